package uplink

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/agent/buffer"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority signs certificates for a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	a.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().AddDate(-10, 0, 0), NotAfter: time.Now().AddDate(10, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &a.key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	a.cert, _ = x509.ParseCertificate(der)
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// issue writes name.pem and name.key, valid from from to to relative to now.
func (a *authority) issue(name string, from, to time.Duration) (certFile, keyFile string) {
	a.t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		NotBefore: time.Now().Add(from), NotAfter: time.Now().Add(to), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, _ := x509.MarshalECPrivateKey(key)
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "EC PRIVATE KEY", keyDER)
}

func (a *authority) caFile() string { return filepath.Join(a.dir, "ca.pem") }

func (a *authority) server(name string, from, to time.Duration) *tls.Config {
	cert, key := a.issue(name, from, to)
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		a.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
}

const (
	hour = time.Hour
	day  = 24 * time.Hour
)

// memory is a Source without a disk.
type memory struct {
	mu      sync.Mutex
	gen     string
	first   uint64 // sequence of entries[0]
	entries []buffer.Entry
	acked   uint64
	changed chan struct{}
	renewed int
	onAck   func(gen string, seq uint64)
	lost    func(seq uint64) bool // records that a damaged file took along
}

func newMemory(gen string) *memory {
	return &memory{gen: gen, first: 1, changed: make(chan struct{})}
}

func (m *memory) append(bodies ...[]byte) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, b := range bodies {
		m.entries = append(m.entries, buffer.Entry{Seq: m.first + uint64(len(m.entries)), StoredAt: time.Now(), Body: b})
	}
	close(m.changed)
	m.changed = make(chan struct{})
}

// drop gives up the entries before seq, as telemetry does when it is full.
func (m *memory) drop(seq uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.entries, m.first = m.entries[seq-m.first:], seq
}

func (m *memory) Generation() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.gen
}

func (m *memory) last() uint64 { return m.first + uint64(len(m.entries)) - 1 }

func (m *memory) Position() (last, acked uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.last(), m.acked
}

func (m *memory) Stats() buffer.Stats {
	m.mu.Lock()
	defer m.mu.Unlock()
	return buffer.Stats{LastSeq: m.last(), AckedSeq: m.acked, Generation: m.gen}
}

func (m *memory) Read(after uint64, maxRecords, maxBytes int) ([]buffer.Entry, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var out []buffer.Entry
	size := 0
	for seq := max(after+1, m.first); seq <= m.last() && len(out) < maxRecords; seq++ {
		e := m.entries[seq-m.first]
		if m.lost != nil && m.lost(seq) {
			continue
		}
		if size += len(e.Body); size > maxBytes && len(out) > 0 {
			break
		}
		out = append(out, e)
	}
	return out, nil
}

func (m *memory) Wait(ctx context.Context, after uint64) error {
	for {
		m.mu.Lock()
		last, changed := m.last(), m.changed
		m.mu.Unlock()
		if last > after {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

func (m *memory) Ack(seq uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.onAck != nil {
		m.onAck(m.gen, seq)
	}
	m.acked = max(m.acked, seq)
	return nil
}

func (m *memory) NewGeneration() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.renewed++
	m.gen = fmt.Sprintf("%s+%d", m.gen, m.renewed)
	return nil
}

func (m *memory) pending() uint64 {
	last, acked := m.Position()
	return last - acked
}

// record makes a body whose first 16 bytes are its key.
func record(n int, size int) []byte {
	b := bytes.Repeat([]byte{byte(n)}, size)
	copy(b, fmt.Sprintf("key-%012d", n))
	return b
}

func records(from, count, size int) [][]byte {
	out := make([][]byte, count)
	for i := range out {
		out[i] = record(from+i, size)
	}
	return out
}

// hub is a hub that stores by key and remembers everything it saw.
type hub struct {
	pb.UnimplementedUplinkServer
	t testing.TB

	mu         sync.Mutex
	stored     map[string]int               // key -> how often it took effect
	seen       map[string]map[uint64]string // stream and generation -> sequence -> bytes
	acked      map[string]uint64
	order      []pb.Stream // of batches as they came
	batches    int
	hellos     []*pb.Hello
	statuses   []time.Time
	downAcks   []int64
	deliveries []*pb.Delivery
	arrived    chan struct{}

	// What it does; nil means the ordinary thing.
	onHello   func(n int, h *pb.Hello, a *pb.HelloAck) *pb.Refusal
	onBatch   func(stop <-chan struct{}, b *pb.Batch) (ack bool) // after the commit
	onDownAck func(*pb.DownAck)
	midway    func() *pb.Refusal // instead of an acknowledgement, after the commit
	gaps      bool               // records may be missing
	silent    bool               // never answers hello
	pauseAt   int64              // delivery that waits for more
	more      chan struct{}
	feed      chan *pb.Delivery // further deliveries, as they come
	epoch     string
}

func newHub(t testing.TB) *hub {
	return &hub{
		t: t, stored: map[string]int{}, seen: map[string]map[uint64]string{}, acked: map[string]uint64{},
		arrived: make(chan struct{}, 1), epoch: "e1",
	}
}

func laneName(s pb.Stream, generation string) string { return s.String() + "/" + generation }

func (h *hub) Connect(stream grpc.BidiStreamingServer[pb.Up, pb.Down]) error {
	up, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := up.GetHello()
	if hello == nil {
		h.t.Errorf("first message is %T, want hello", up.GetKind())
		return errors.New("no hello")
	}
	h.mu.Lock()
	h.hellos = append(h.hellos, hello)
	n := len(h.hellos)
	ack := &pb.HelloAck{HubVersion: "test", DeliveryEpoch: h.epoch, HubTime: timestamppb.Now()}
	for _, s := range hello.GetStreams() {
		if seq, known := h.acked[laneName(s.GetStream(), s.GetGeneration())]; known {
			ack.Streams = append(ack.Streams, &pb.StreamPosition{Stream: s.GetStream(), Generation: s.GetGeneration(), AckedSeq: seq})
		}
	}
	silent := h.silent
	h.mu.Unlock()
	if silent {
		<-stream.Context().Done()
		return nil
	}
	if h.onHello != nil {
		if r := h.onHello(n, hello, ack); r != nil {
			return stream.Send(&pb.Down{Kind: &pb.Down_Refusal{Refusal: r}})
		}
	}
	sending := make(chan struct{}, 1) // a mutex would stop a test's own clock
	send := func(d *pb.Down) error {
		sending <- struct{}{}
		defer func() { <-sending }()
		return stream.Send(d)
	}
	if err := send(&pb.Down{Kind: &pb.Down_HelloAck{HelloAck: ack}}); err != nil {
		return err
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { h.deliver(stream.Context(), hello, send) })
	return h.take(stream, send)
}

func (h *hub) take(stream grpc.BidiStreamingServer[pb.Up, pb.Down], send func(*pb.Down) error) error {
	var next uint64 // business record that must follow in this session; 0 at its beginning
	for {
		up, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch k := up.GetKind().(type) {
		case *pb.Up_Batch:
			if k.Batch.Stream == pb.Stream_STREAM_BUSINESS {
				if next > 0 && k.Batch.FirstSeq != next {
					h.t.Errorf("batch begins at %d within a session, want %d", k.Batch.FirstSeq, next)
				}
				next = k.Batch.FirstSeq + uint64(len(k.Batch.Records))
			}
			h.commit(k.Batch)
			if h.midway != nil {
				if r := h.midway(); r != nil {
					return send(&pb.Down{Kind: &pb.Down_Refusal{Refusal: r}})
				}
			}
			if h.onBatch != nil && !h.onBatch(stream.Context().Done(), k.Batch) {
				continue
			}
			seq := k.Batch.FirstSeq + uint64(len(k.Batch.Records)) - 1
			if err := send(&pb.Down{Kind: &pb.Down_BatchAck{BatchAck: &pb.BatchAck{Stream: k.Batch.Stream, Generation: k.Batch.Generation, Seq: seq}}}); err != nil {
				return err
			}
		case *pb.Up_DownAck:
			h.mu.Lock()
			h.downAcks = append(h.downAcks, k.DownAck.GetSeq())
			h.mu.Unlock()
			if h.onDownAck != nil {
				h.onDownAck(k.DownAck)
			}
		case *pb.Up_Status:
			h.mu.Lock()
			h.statuses = append(h.statuses, time.Now())
			h.mu.Unlock()
		}
		select {
		case h.arrived <- struct{}{}:
		default:
		}
	}
}

// commit stores a batch and checks that it follows what was acknowledged and that a resend is the same bytes.
func (h *hub) commit(b *pb.Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	lane := laneName(b.Stream, b.Generation)
	h.batches++
	h.order = append(h.order, b.Stream)
	seen := h.seen[lane]
	if seen == nil {
		seen = map[uint64]string{}
		h.seen[lane] = seen
	} else if b.FirstSeq > h.acked[lane]+1 && b.Stream == pb.Stream_STREAM_BUSINESS && !h.gaps {
		h.t.Errorf("batch starts at %d, the hub holds %d", b.FirstSeq, h.acked[lane])
	}
	for i, r := range b.Records {
		seq := b.FirstSeq + uint64(i)
		if old, ok := seen[seq]; ok && old != string(r) {
			h.t.Errorf("record %d of %s came again with other bytes", seq, lane)
		}
		seen[seq] = string(r)
		if key := string(r[:16]); h.stored[key] == 0 {
			h.stored[key]++
		}
	}
	h.acked[lane] = max(h.acked[lane], b.FirstSeq+uint64(len(b.Records))-1)
}

func (h *hub) deliver(ctx context.Context, hello *pb.Hello, send func(*pb.Down) error) {
	after := hello.GetDeliverySeq()
	if hello.GetDeliveryEpoch() != h.epoch {
		after = 0
	}
	h.mu.Lock()
	list := slices.Clone(h.deliveries)
	h.mu.Unlock()
	for _, d := range list {
		if d.Seq <= after {
			continue
		}
		if h.pauseAt == d.Seq {
			select {
			case <-h.more:
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil || send(&pb.Down{Kind: &pb.Down_Delivery{Delivery: d}}) != nil {
			return
		}
	}
	for h.feed != nil {
		select {
		case d := <-h.feed:
			if send(&pb.Down{Kind: &pb.Down_Delivery{Delivery: d}}) != nil {
				return
			}
		case <-ctx.Done():
			return
		}
	}
}

func (h *hub) count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.stored)
}

func (h *hub) helloCount() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.hellos)
}

// serve runs the hub on l until stop is called.
func (h *hub) serve(l net.Listener, conf *tls.Config) (stop func()) {
	srv := grpc.NewServer(
		grpc.Creds(credentials.NewTLS(conf)),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 20 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
	)
	pb.RegisterUplinkServer(srv, h)
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	return func() { srv.Stop(); wg.Wait() }
}

// pipes is a network of in-memory connections, for tests that own the clock.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
	wrap   func(net.Conn) net.Conn // of the agent's end
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (p *pipes) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case p.conns <- theirs:
		if p.wrap != nil {
			return p.wrap(ours), nil
		}
		return ours, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// plant is an agent's line with its parts.
type plant struct {
	business, telemetry *memory
	cfg                 Config
	deps                Deps
	up                  *Uplink
}

func newPlant(a *authority) *plant {
	cert, key := a.issue("agent", -hour, day)
	p := &plant{business: newMemory("b"), telemetry: newMemory("t")}
	p.cfg = Config{
		Address: "hub.test:9443", CAFile: a.caFile(), CertFile: cert, KeyFile: key, Proxy: "direct", Plant: "ulm", Agent: "a1", Version: "test",
	}
	p.deps = Deps{Business: p.business, Telemetry: p.telemetry}
	return p
}

// run starts the line; stop ends it and waits.
func (p *plant) run(t testing.TB) (stop func()) {
	t.Helper()
	up, err := New(p.cfg, p.deps)
	if err != nil {
		t.Fatal(err)
	}
	p.up = up
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := up.Run(ctx); err != nil {
			t.Errorf("run ended with %v", err)
		}
	})
	return func() { cancel(); wg.Wait() }
}

// box is an Inbox without a disk.
type box struct {
	mu     sync.Mutex
	epoch  string
	seq    int64
	stored []int64
	early  []int64 // ahead of their turn
	fail   error
	block  chan struct{}
}

func (b *box) Position() (string, int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.epoch, b.seq
}

func (b *box) Store(epoch string, ds []*pb.Delivery) error {
	b.mu.Lock()
	block := b.block
	b.mu.Unlock()
	if block != nil {
		<-block
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return b.fail
	}
	if b.epoch != epoch {
		b.epoch, b.seq = epoch, 0
	}
	for _, d := range ds {
		if d.GetAhead() {
			b.early = append(b.early, d.Seq)
			continue
		}
		if d.Seq > b.seq {
			b.stored = append(b.stored, d.Seq)
			b.seq = d.Seq
		}
	}
	return nil
}

// atomicOffset is how wrong a clock is.
type atomicOffset struct{ ns atomic.Int64 }

func (a *atomicOffset) Store(d time.Duration) { a.ns.Store(int64(d)) }
func (a *atomicOffset) Load() time.Duration   { return time.Duration(a.ns.Load()) }

// serveBoth accepts TLS on l and gives a connection to plain when the client knows HTTP/1.1 only. The others are given on
// with their handshake still to come.
func serveBoth(l net.Listener, conf *tls.Config, direct, plain *pipes) (stop func()) {
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				r := bufio.NewReaderSize(c, 4096)
				head, _ := r.Peek(5)
				if len(head) == 5 {
					head, _ = r.Peek(min(4096, 5+int(head[3])<<8+int(head[4])))
				}
				to, on := direct, net.Conn(&prefixed{c, r})
				if !bytes.Contains(head, []byte("\x02h2")) {
					outer := conf.Clone()
					outer.ClientAuth, outer.NextProtos = tls.NoClientCert, []string{"http/1.1"}
					to, on = plain, tls.Server(on, outer)
				}
				select {
				case to.conns <- on:
				case <-to.closed:
					c.Close()
				}
			})
		}
	})
	return func() { l.Close(); direct.Close(); plain.Close(); wg.Wait() }
}
