package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/grpc"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/uplink"
	"github.com/linekeeper/linekeeper/hub/fleet"
	"github.com/linekeeper/linekeeper/hub/ingest"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/tunnel"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// lab is the hub's end of the line in this process: store, ingest and the agents' port.
type lab struct {
	t       testing.TB
	dir     string
	ca      *fleet.Authority
	tls     *tls.Config
	address string

	store  *store.Store
	ingest *ingest.Server
	stop   func() // ends it; the store's file stays

	mu     sync.Mutex
	hellos []time.Time
}

// newLab starts a hub at host.
func newLab(t testing.TB, host string) *lab {
	t.Helper()
	b := &lab{t: t, dir: t.TempDir()}
	pki := filepath.Join(b.dir, "pki")
	var err error
	if b.ca, err = fleet.CreateAuthority(pki, time.Now); err != nil {
		t.Fatal(err)
	}
	if err := b.ca.IssueHub(pki, []string{host}); err != nil {
		t.Fatal(err)
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(pki, "hub.pem"), filepath.Join(pki, "hub.key"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	raw, err := os.ReadFile(filepath.Join(pki, "ca.pem"))
	if err != nil || !pool.AppendCertsFromPEM(raw) {
		t.Fatalf("read the authority: %v", err)
	}
	b.tls = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	b.address = host + ":0"
	b.start()
	t.Cleanup(func() { b.stop() })
	return b
}

// Known notes when each hello came.
func (b *lab) Known(string, string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.hellos = append(b.hellos, time.Now())
	return true
}

func (b *lab) start() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	if b.store, err = store.Open(ctx, filepath.Join(b.dir, "hub.db"), store.Options{}); err != nil {
		b.t.Fatal(err)
	}
	l, err := net.Listen("tcp", b.address)
	if err != nil {
		b.t.Fatal(err)
	}
	b.address = l.Addr().String()
	b.ingest = ingest.New(ingest.Options{Store: b.store, Directory: b, Version: "lab", Poll: 200 * time.Millisecond})
	tn := tunnel.New(tunnel.Options{})
	srv := grpc.NewServer(append(ingest.ServerOptions(), grpc.Creds(tn.Credentials(b.tls)))...)
	pb.RegisterUplinkServer(srv, b.ingest)
	plain := tn.PlainServer()
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	wg.Go(func() { srv.Serve(tn) })
	wg.Go(func() { plain.Serve(tn.PlainListener()) })
	wg.Go(func() {
		if err := b.ingest.Run(ctx); err != nil {
			b.t.Errorf("ingest: %v", err)
		}
	})
	b.stop = func() {
		b.stop = func() {}
		cancel()
		tn.Close()
		plain.Close()
		srv.Stop()
		wg.Wait()
		b.store.Close()
	}
}

// agent returns the configuration of an agent of this hub.
func (b *lab) agent(name string) uplink.Config {
	b.t.Helper()
	out := filepath.Join(b.dir, name)
	if err := b.ca.IssueAgent(out, "ulm", name); err != nil {
		b.t.Fatal(err)
	}
	return uplink.Config{
		Address: b.address, CAFile: filepath.Join(out, "ca.pem"), CertFile: filepath.Join(out, "agent.pem"), KeyFile: filepath.Join(out, "agent.key"),
		Proxy: "direct", Plant: "ulm", Agent: name, Version: "lab",
	}
}

// run runs a line until the returned function is called.
func (b *lab) run(cfg uplink.Config, deps uplink.Deps) (up *uplink.Uplink, stop func()) {
	b.t.Helper()
	up, err := uplink.New(cfg, deps)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { up.Run(ctx) })
	stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	b.t.Cleanup(stop)
	return up, stop
}

// tally counts what the hub's store holds, prints it and compares it with what was sent.
func (b *lab) tally(sent int) {
	b.t.Helper()
	keys := map[string]int{}
	for after := int64(0); ; {
		list, err := b.store.FactsAfter(context.Background(), after, 5000)
		if err != nil {
			b.t.Fatal(err)
		}
		if len(list) == 0 {
			break
		}
		for _, f := range list {
			keys[f.Fact.Position]++
			after = f.ID
		}
	}
	doubled := 0
	for _, n := range keys {
		doubled += n - 1
	}
	b.t.Logf("sent=%d received=%d missing=%d doubled=%d", sent, len(keys), sent-len(keys), doubled)
	if len(keys) != sent || doubled != 0 {
		b.t.Errorf("the hub holds %d facts of %d, %d twice", len(keys), sent, doubled)
	}
}

// deliver queues n receipts for an agent, or one work order.
func (b *lab) deliver(agent string, receipts int, order string) {
	b.t.Helper()
	err := b.store.Update(context.Background(), func(tx *store.Tx) error {
		a, err := tx.AgentByName("ulm", agent)
		if err != nil {
			return err
		}
		for range receipts {
			key := factkey.Random()
			if err := tx.DeliverReceipt(a.ID, key.String(), &pb.Receipt{FactKey: key[:], Outcome: pb.Receipt_OUTCOME_POSTED, Document: "0000812/00000017", OrderNo: "1004711"}); err != nil {
				return err
			}
		}
		if order == "" {
			return nil
		}
		o := object.WorkOrder{OrderNo: order, Revision: 1, ERP: "erp", Plant: "ulm", Item: "P", State: object.OrderReleased}
		if err := tx.PutOrder(store.Order{Order: o, Agent: agent, Sent: 1, Content: []byte("c")}, true); err != nil {
			return err
		}
		return tx.DeliverOrder(a.ID, o)
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

// stored is when the hub learned that an order is stored at its agent; zero when it does not know.
func (b *lab) stored(order string) time.Time {
	_, _, steps, err := b.store.OrderTimeline(context.Background(), "", order)
	if err != nil {
		return time.Time{}
	}
	for _, s := range steps {
		if s.Step == "stored" {
			return s.At
		}
	}
	return time.Time{}
}

// factOf is the n-th fact of an agent.
func factOf(agent string, n int) []byte {
	position := factkey.Position("wire", agent, fmt.Sprint(n))
	body, err := wire.EncodeFact(object.Fact{
		Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press1", TimeZone: "UTC", Position: position,
		OccurredAt: time.Unix(1_800_000_000, 0), RecordedAt: time.Unix(1_800_000_000, 0),
		Confirmation: &object.Confirmation{OrderNo: "WO-1", Item: "P", Unit: "C62", Yield: decimal.NewFromInt(1)},
	})
	if err != nil {
		panic(err)
	}
	return body
}

// openBuffer opens a real buffer for an agent of a lab.
func openBuffer(t testing.TB) *buffer.Buffer {
	t.Helper()
	buf, err := buffer.Open(buffer.Config{Dir: t.TempDir(), DiskReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { buf.Close() })
	return buf
}

// fill puts facts from to to-1 of an agent into its buffer.
func fill(t testing.TB, b *buffer.Buffer, agent string, from, to int) {
	t.Helper()
	err := b.Commit(t.Context(), func(tx *buffer.Tx) error {
		for n := from; n < to; n++ {
			tx.Append(factOf(agent, n))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// shelf is a business buffer without a disk, for agents by the hundred.
type shelf struct {
	agent string

	mu      sync.Mutex
	entries []buffer.Entry
	acked   uint64
	changed chan struct{}
}

func newShelf(agent string) *shelf { return &shelf{agent: agent, changed: make(chan struct{})} }

func (s *shelf) put(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		seq := len(s.entries) + 1
		s.entries = append(s.entries, buffer.Entry{Seq: uint64(seq), Body: factOf(s.agent, seq)})
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

func (s *shelf) Generation() string { return "g-" + s.agent }

func (s *shelf) Stats() buffer.Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return buffer.Stats{LastSeq: uint64(len(s.entries)), AckedSeq: s.acked, Generation: s.Generation()}
}

func (s *shelf) Read(after uint64, maxRecords, _ int) ([]buffer.Entry, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	rest := s.entries[after:]
	return rest[:min(len(rest), maxRecords)], nil
}

func (s *shelf) Wait(ctx context.Context, after uint64) error {
	for {
		s.mu.Lock()
		more, changed := uint64(len(s.entries)) > after, s.changed
		s.mu.Unlock()
		if more {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *shelf) Ack(seq uint64) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.acked = max(s.acked, seq)
	return nil
}

func (s *shelf) NewGeneration() error {
	return fmt.Errorf("agent %s must not start a new generation", s.agent)
}

func (s *shelf) pending() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.entries) - int(s.acked)
}
