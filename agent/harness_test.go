package agent

import (
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
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/agent/uplink"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

func TestMain(m *testing.M) {
	if os.Getenv("AGENT_TEST_CHILD") != "" {
		childMain()
		return
	}
	goleak.VerifyTestMain(m)
}

// fake is a driver that does what a test says.
type fake struct {
	run     func(ctx context.Context, cursor []byte, emit signal.Emit) error
	deliver func(ctx context.Context, o signal.WorkOrder) error // nil: takes no orders
	report  signal.Reporter
}

func (f *fake) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	f.report.State(signal.StateOK, "")
	if f.run == nil {
		<-ctx.Done()
		return nil
	}
	return f.run(ctx, cursor, emit)
}
func (f *fake) TakesOrders() bool                                     { return f.deliver != nil }
func (f *fake) Deliver(ctx context.Context, o signal.WorkOrder) error { return f.deliver(ctx, o) }

// fakes are the drivers of an agent by the name of their source.
type fakes map[string]*fake

func (fs fakes) kinds() []signal.Kind {
	return []signal.Kind{{Name: "fake", New: func(env signal.Env, _ func(any) error) (signal.Driver, error) {
		f := fs[env.Source]
		if f == nil {
			return nil, fmt.Errorf("the test has no driver for %q", env.Source)
		}
		made := *f
		made.report = env.Reporter
		return &made, nil
	}}}
}

// testConfig is an agent with those drivers and one rule of each kind that the tests need for each of them.
func testConfig(dir string, fs fakes) Config {
	c := Config{
		Plant: "ulm", Agent: "line1", TimeZone: "Europe/Berlin", DataDir: filepath.Join(dir, "data"), Listen: "127.0.0.1:0",
		Buffer: BufferConfig{DiskReserve: -1}, Path: filepath.Join(dir, "agent.yaml"),
	}
	for name := range fs {
		c.Sources = append(c.Sources, SourceConfig{Name: name, Kind: "fake", Decode: func(any) error { return nil }})
		c.Rules = append(c.Rules,
			translate.Rule{Name: name + " rows", Rule: "record", Source: name, Tag: "rows", Fact: "production_confirmation",
				Fields: map[string]string{"order_no": "payload.order", "item": "payload.item", "yield": "payload.good", "unit": "'C62'"}},
			translate.Rule{Name: name + " states", Rule: "record", Source: name, Tag: "states", Fact: "order_state", WorkCenter: name,
				Fields: map[string]string{"order_no": "payload.order", "state": "payload.state", "revision": "payload.rev", "reason": "payload.text", "occurred_at": "payload.at"}},
			translate.Rule{Name: name + " count", Rule: "counter", Source: name, Tag: "count", Counts: "yield", WorkCenter: name, Unit: "C62",
				StartFromZero: true, Close: translate.Close{Every: 100 * time.Millisecond}},
			translate.Rule{Name: name + " temperature", Rule: "reading", Source: name, Tag: "temperature"},
		)
	}
	slices.SortFunc(c.Sources, func(a, b SourceConfig) int { return compareText(a.Name, b.Name) })
	return c
}

func compareText(a, b string) int {
	if a < b {
		return -1
	}
	return 1
}

// row is a signal with an identity of its own.
func row(n int) signal.Signal {
	return signal.Signal{
		Tag: "rows", Position: fmt.Sprintf("rows|%d", n), ReceivedTime: time.Now(),
		Value: map[string]any{"order": fmt.Sprintf("WO-%d", n%5), "item": "FG-GEAR", "good": signal.Number("1")},
	}
}

func rowsOf(from, to int) []signal.Signal {
	var list []signal.Signal
	for n := from; n < to; n++ {
		list = append(list, row(n))
	}
	return list
}

func count(n int, at time.Time) signal.Signal {
	return signal.Signal{Tag: "count", Value: signal.Number(fmt.Sprint(n)), ReceivedTime: at}
}

func orderState(order, state string, rev int, at time.Time) signal.Signal {
	return signal.Signal{
		Tag: "states", Position: fmt.Sprintf("states|%s|%s|%d", order, state, rev), ReceivedTime: at,
		Value: map[string]any{"order": order, "state": state, "rev": signal.Number(fmt.Sprint(rev)), "at": at},
	}
}

// started is an agent that runs.
type started struct {
	*Agent
	stop func()
}

func (s started) source(name string) status.Source {
	for _, src := range s.Snapshot().Sources {
		if src.Name == name {
			return src
		}
	}
	return status.Source{}
}

func (s started) order(no string) status.Order {
	for _, o := range s.Snapshot().WorkOrders {
		if o.OrderNo == no {
			return o
		}
	}
	return status.Order{}
}

func newAgent(t testing.TB, cfg Config, fs fakes) *Agent {
	t.Helper()
	a, err := New(cfg, Options{Version: "test", Logger: slog.New(slog.NewTextHandler(testLog{t}, nil)), Kinds: fs.kinds()})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// testLog shows the log of a failed test.
type testLog struct{ t testing.TB }

func (l testLog) Write(b []byte) (int, error) {
	l.t.Logf("%s", b)
	return len(b), nil
}

// start runs an agent until stop, or the test, ends; it must then stop within seconds.
func start(t testing.TB, cfg Config, fs fakes) started {
	t.Helper()
	a := newAgent(t, cfg, fs)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	var once sync.Once
	stop := func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					t.Errorf("the agent ended with %v", err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the agent did not stop within 10 s")
				<-done
			}
		})
	}
	t.Cleanup(stop)
	return started{Agent: a, stop: stop}
}

func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	realparts.Eventually(t, 30*time.Second, what, f)
}

// hub is a hub that keeps facts by key and sends what a test lets it send.
type hub struct {
	pb.UnimplementedUplinkServer
	t       testing.TB
	address string
	files   uplink.Config

	mu       sync.Mutex
	facts    map[string][]byte // key -> the fact's bytes
	readings int
	acked    map[string]uint64
	hellos   int
	statuses []*pb.AgentStatus
	downs    []*pb.Delivery
	more     chan struct{} // closed when downs grew
	marks    func() []*pb.SourceMark
	gate     chan struct{} // nothing is committed or acknowledged until it is closed
}

// serveHub starts a hub; its gate is open.
func serveHub(t testing.TB) *hub {
	t.Helper()
	h := &hub{t: t, facts: map[string][]byte{}, acked: map[string]uint64{}, more: make(chan struct{}), gate: make(chan struct{})}
	close(h.gate)
	conf := h.pki(t.TempDir())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h.address = l.Addr().String()
	srv := grpc.NewServer(grpc.Creds(credentials.NewTLS(conf)))
	pb.RegisterUplinkServer(srv, h)
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	t.Cleanup(func() { srv.Stop(); wg.Wait() })
	return h
}

// shut closes the gate; the returned function opens it.
func (h *hub) shut() (open func()) {
	gate := make(chan struct{})
	h.mu.Lock()
	h.gate = gate
	h.mu.Unlock()
	return sync.OnceFunc(func() { close(gate) })
}

// line is the hub section of an agent's configuration.
func (h *hub) line() uplink.Config {
	c := h.files
	c.Address, c.ServerName = h.address, "hub.test"
	c.BackoffMin, c.BackoffMax, c.StatusGap = 10*time.Millisecond, 100*time.Millisecond, 50*time.Millisecond
	return c
}

// pki makes an authority, a certificate for both sides, and their files.
func (h *hub) pki(dir string) *tls.Config {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, DNSNames: []string{"hub.test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err2 := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	keyDER, err3 := x509.MarshalECPrivateKey(key)
	cert, keyPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
	pair, err4 := tls.X509KeyPair(cert, keyPEM)
	h.files.CAFile, h.files.CertFile, h.files.KeyFile = filepath.Join(dir, "hub.pem"), filepath.Join(dir, "hub.pem"), filepath.Join(dir, "hub.key")
	err5 := os.WriteFile(h.files.CertFile, cert, 0o600)
	err6 := os.WriteFile(h.files.KeyFile, keyPEM, 0o600)
	if err := errors.Join(err, err2, err3, err4, err5, err6); err != nil {
		h.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(cert)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
}

func lane(s pb.Stream, generation string) string { return s.String() + generation }

func (h *hub) Connect(stream grpc.BidiStreamingServer[pb.Up, pb.Down]) error {
	up, err := stream.Recv()
	if err != nil {
		return err
	}
	hello := up.GetHello()
	ack := &pb.HelloAck{HubVersion: "test", DeliveryEpoch: "e1", HubTime: timestamppb.Now(), Window: 32}
	h.mu.Lock()
	h.hellos++
	for _, s := range hello.GetStreams() {
		if seq, ok := h.acked[lane(s.Stream, s.Generation)]; ok {
			ack.Streams = append(ack.Streams, &pb.StreamPosition{Stream: s.Stream, Generation: s.Generation, AckedSeq: seq})
		}
	}
	if h.marks != nil {
		ack.Marks = h.marks()
	}
	h.mu.Unlock()
	var sending sync.Mutex
	send := func(d *pb.Down) error {
		sending.Lock()
		defer sending.Unlock()
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
	batches := make(chan *pb.Batch, 100)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(batches)
	wg.Go(func() {
		for b := range batches {
			h.store(stream.Context(), b, send)
		}
	})
	for {
		up, err := stream.Recv()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if s := up.GetStatus(); s != nil {
			h.mu.Lock()
			h.statuses = append(h.statuses, s)
			h.mu.Unlock()
		}
		if b := up.GetBatch(); b != nil {
			batches <- b
		}
	}
}

// store commits and acknowledges a batch once the gate is open.
func (h *hub) store(ctx context.Context, b *pb.Batch, send func(*pb.Down) error) {
	h.mu.Lock()
	gate := h.gate
	h.mu.Unlock()
	select {
	case <-gate:
	case <-ctx.Done():
		return
	}
	h.commit(b)
	seq := b.FirstSeq + uint64(len(b.Records)) - 1
	send(&pb.Down{Kind: &pb.Down_BatchAck{BatchAck: &pb.BatchAck{Stream: b.Stream, Generation: b.Generation, Seq: seq}}})
}

func (h *hub) commit(b *pb.Batch) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.acked[lane(b.Stream, b.Generation)] = b.FirstSeq + uint64(len(b.Records)) - 1
	if b.Stream == pb.Stream_STREAM_TELEMETRY {
		h.readings += len(b.Records)
		return
	}
	for _, r := range b.Records {
		var f pb.Fact
		if err := proto.Unmarshal(r, &f); err != nil {
			h.t.Errorf("the hub cannot read a fact: %v", err)
			continue
		}
		key := string(f.GetKey())
		if old, ok := h.facts[key]; ok && string(old) != string(r) {
			h.t.Errorf("fact %x came with two contents", key)
		}
		h.facts[key] = r
	}
}

// push sends something down, now and to whoever says hello later.
func (h *hub) push(d *pb.Delivery) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d.Seq = int64(len(h.downs)) + 1
	h.downs = append(h.downs, d)
	close(h.more)
	h.more = make(chan struct{})
}

func (h *hub) deliver(ctx context.Context, hello *pb.Hello, send func(*pb.Down) error) {
	after := hello.GetDeliverySeq()
	for {
		h.mu.Lock()
		list, more := h.downs[min(int(after), len(h.downs)):], h.more
		h.mu.Unlock()
		for _, d := range list {
			if send(&pb.Down{Kind: &pb.Down_Delivery{Delivery: d}}) != nil {
				return
			}
			after = d.Seq
		}
		select {
		case <-more:
		case <-ctx.Done():
			return
		}
	}
}

// all returns the facts that the hub holds.
func (h *hub) all() []*pb.Fact {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []*pb.Fact
	for _, r := range h.facts {
		f := &pb.Fact{}
		if err := proto.Unmarshal(r, f); err != nil {
			h.t.Error(err)
		}
		out = append(out, f)
	}
	return out
}

// holds reports whether the hub holds exactly the rows [0, n) of a source's confirmations, each once.
func (h *hub) holds(n int) error {
	seen := map[string]int{}
	for _, f := range h.all() {
		if c := f.GetProductionConfirmation(); c != nil && c.CounterRange == nil {
			seen[f.GetHeader().GetPosition()]++
		}
	}
	for p, k := range seen {
		if k != 1 {
			return fmt.Errorf("%q is there %d times", p, k)
		}
	}
	if len(seen) != n {
		return fmt.Errorf("the hub holds %d confirmations, want %d", len(seen), n)
	}
	return nil
}

// counted is the sum of a source's counts that the hub holds.
func (h *hub) counted(source string) string {
	sum := 0
	for _, f := range h.all() {
		if c := f.GetProductionConfirmation(); c.GetCounterRange() != nil && f.GetHeader().GetSource() == source {
			var n int
			fmt.Sscan(c.GetYield(), &n)
			sum += n
		}
	}
	return fmt.Sprint(sum)
}

func workOrder(no string, rev int64, state pb.WorkOrder_State) *pb.Delivery {
	return &pb.Delivery{Kind: &pb.Delivery_WorkOrder{WorkOrder: &pb.WorkOrder{
		OrderNo: no, Revision: rev, State: state, Plant: "ulm", WorkCenter: "press", Item: "FG-GEAR",
		Quantity: &pb.Quantity{Value: "100", Unit: "C62"}, RevisedAt: timestamppb.New(time.Now().Add(-time.Minute)),
	}}}
}

// state of the buffer without an agent.
func cursorOf(t *testing.T, cfg Config, source string) string {
	t.Helper()
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(cfg.DataDir, "business"), DiskReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	return string(b.State(cursorPrefix + source))
}

func newDiscard() *slog.Logger { return slog.New(slog.DiscardHandler) }
