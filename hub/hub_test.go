package hub

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/fleet"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kinds is the list of connectors that a command would have.
var kinds = []ConnectorKind{{Name: "sandbox", New: func(name, dir string, decode func(any) error) (connector.Connector, error) {
	cfg := sandbox.Config{Name: name}
	if err := decode(&cfg); err != nil {
		return nil, err
	}
	return sandbox.New(cfg)
}}}

// configured returns a configuration that is valid, with certificates, on free ports.
func configured(t *testing.T, erpURL string) Config {
	t.Helper()
	dir := t.TempDir()
	ca, err := fleet.CreateAuthority(filepath.Join(dir, "pki"), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.IssueHub(filepath.Join(dir, "pki"), []string{"localhost", "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	if err := ca.IssueAgent(filepath.Join(dir, "line1"), "ulm", "line1"); err != nil {
		t.Fatal(err)
	}
	return Config{
		Path:   filepath.Join(dir, "hub.yaml"),
		Listen: ListenConfig{GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0"},
		TLS:    TLSConfig{CertFile: "pki/hub.pem", KeyFile: "pki/hub.key", AgentsCAFile: "pki/ca.pem"},
		Plants: []PlantConfig{{Plant: "ulm", TimeZone: "Europe/Berlin", Agents: []string{"line1"}}},
		Routes: []RouteConfig{{ERP: "erp", Plant: "ulm", Agent: "line1"}},
		ERPs: []ERPConfig{{Name: "erp", Kind: "sandbox", Line: 12, Decode: func(into any) error {
			c := into.(*sandbox.Config)
			c.URL, c.User, c.Password, c.Settle = erpURL, "hub", "sandbox", time.Second
			return nil
		}}},
		Dispatch: DispatchConfig{Every: 100 * time.Millisecond},
		Posting:  PostingConfig{Quiet: 100 * time.Millisecond},
	}
}

// running is a hub at work.
type running struct {
	t    *testing.T
	h    *Hub
	dir  string
	stop func() error
}

func run(t *testing.T, cfg Config) *running {
	t.Helper()
	return runKinds(t, cfg, kinds)
}

func runKinds(t *testing.T, cfg Config, kinds []ConnectorKind) *running {
	t.Helper()
	h, err := New(t.Context(), cfg, Options{Version: "test", Kinds: kinds})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- h.Run(ctx) }()
	r := &running{t: t, h: h, dir: filepath.Dir(cfg.Path), stop: sync.OnceValue(func() error { cancel(); return <-ended })}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return r
}

func (r *running) get(path string, into any) error {
	res, err := http.Get(r.h.URL() + path)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, res.Status, raw)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(raw, into)
}

func books(t *testing.T) (*erp.ERP, string) {
	t.Helper()
	e, err := erp.Open(filepath.Join(t.TempDir(), "erp.db"), erp.Options{User: "hub", Password: "sandbox"})
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(e.Handler())
	t.Cleanup(func() { srv.Close(); e.Close() })
	if err := e.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	return e, srv.URL
}

// plant is the hub's end of line1, spoken by hand.
type plant struct {
	t      *testing.T
	stream grpc.BidiStreamingClient[pb.Up, pb.Down]
	seq    uint64
	close  func()
}

func (r *running) dial() *plant { return r.dialAt(0, 0) }

// dialAt is dial of an agent whose buffer stands at a record and knows that the hub held another.
func (r *running) dialAt(last, acked uint64) *plant {
	r.t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(r.dir, "line1/agent.pem"), filepath.Join(r.dir, "line1/agent.key"))
	if err != nil {
		r.t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(r.dir, "line1/ca.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	creds := credentials.NewTLS(&tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ServerName: "localhost"})
	conn, err := grpc.NewClient(r.h.GRPCAddr(), grpc.WithTransportCredentials(creds))
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &plant{t: r.t, seq: acked, close: func() { cancel(); conn.Close() }}
	r.t.Cleanup(p.close)
	if p.stream, err = pb.NewUplinkClient(conn).Connect(ctx); err != nil {
		r.t.Fatal(err)
	}
	p.send(&pb.Up{Kind: &pb.Up_Hello{Hello: &pb.Hello{Protocol: 1, Plant: "ulm", Agent: "line1", Instance: "i", Streams: []*pb.StreamPosition{
		{Stream: pb.Stream_STREAM_BUSINESS, Generation: "g", LastSeq: last, AckedSeq: acked},
	}}}})
	if down, err := p.stream.Recv(); err != nil || down.GetHelloAck() == nil {
		r.t.Fatalf("hello was answered with %v, %v", down, err)
	}
	return p
}

func (p *plant) send(m *pb.Up) {
	p.t.Helper()
	if err := p.stream.Send(m); err != nil {
		p.t.Fatal(err)
	}
}

// hand gives facts to the hub and waits until it has acknowledged them.
func (p *plant) hand(facts ...object.Fact) error {
	b := &pb.Batch{Stream: pb.Stream_STREAM_BUSINESS, Generation: "g", FirstSeq: p.seq + 1}
	for _, f := range facts {
		body, err := wire.EncodeFact(f)
		if err != nil {
			return err
		}
		b.Records = append(b.Records, body)
	}
	p.seq += uint64(len(facts))
	if err := p.stream.Send(&pb.Up{Kind: &pb.Up_Batch{Batch: b}}); err != nil {
		return err
	}
	for { // receipts and work orders come between
		down, err := p.stream.Recv()
		if err != nil || down.GetBatchAck().GetSeq() == p.seq {
			return err
		}
	}
}

func (p *plant) deliver(facts ...object.Fact) {
	p.t.Helper()
	if err := p.hand(facts...); err != nil {
		p.t.Fatal(err)
	}
}

// count is two pieces counted on an order.
func count(name, no string) object.Fact {
	return fact(name, func(x *object.Fact) {
		x.Kind, x.Source = object.KindConfirmation, "press"
		x.Confirmation = &object.Confirmation{OrderNo: no, Operation: "0010", Item: "BRACKET-10", Unit: "C62", Yield: decimal.NewFromInt(2)}
	})
}

func (p *plant) status(open ...*pb.LedgerRow) {
	p.t.Helper()
	p.send(&pb.Up{Kind: &pb.Up_Status{Status: &pb.AgentStatus{
		At: timestamppb.Now(), State: "ok", Ledger: open, Sources: []*pb.SourceStatus{{Name: "press", Kind: "opcua", State: "ok"}},
	}}})
}

// The machine's last counts come after the MES's "finished": the order is closed in the ERP only behind them.
func TestFinishedOrderIsClosedInTheERPBehindItsLastCounts(t *testing.T) {
	e, url := books(t)
	no, err := e.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, configured(t, url))
	p := r.dial()
	step := func(name string, s object.FloorState) object.Fact {
		return fact(name, func(x *object.Fact) {
			x.Kind, x.OrderState = object.KindOrderState, &object.ShopFloorState{OrderNo: no, Revision: 1, State: s}
		})
	}
	finished := step("finished", object.FloorFinished)
	realparts.Eventually(t, 20*time.Second, "order at the hub", func() error { return r.get("/v1/work-orders/"+no, nil) })
	p.deliver(step("started", object.FloorStarted), finished)
	row := &pb.LedgerRow{Source: "press", OrderNo: no, Item: "BRACKET-10", Kind: "yield", Unit: "C62", Counted: "2", Stored: "0"}
	p.status(row)
	type life struct {
		Posting struct{ State, Reason string }
	}
	posting := func(f object.Fact) (l life, err error) { return l, r.get("/v1/facts/"+f.Key.String(), &l) }
	realparts.Eventually(t, 20*time.Second, "the closing waits for the counts", func() error {
		l, err := posting(finished)
		if err == nil && !strings.Contains(l.Posting.Reason, "2 C62 of yield") {
			err = fmt.Errorf("posting %+v", l.Posting)
		}
		return err
	})
	last := count("last count", no)
	p.deliver(last)
	row.Stored = "2"
	p.status(row)
	for _, f := range []object.Fact{last, finished} {
		realparts.Eventually(t, 30*time.Second, f.Position+" is verified", func() error {
			l, err := posting(f)
			if err == nil && l.Posting.State != "verified" {
				err = fmt.Errorf("posting %+v", l.Posting)
			}
			return err
		})
	}
	var o struct{ State string }
	realparts.Eventually(t, 20*time.Second, "the ERP's state comes back", func() error {
		if err := r.get("/v1/work-orders/"+no, &o); err != nil || o.State != "COMPLETED" {
			return fmt.Errorf("state %q, %v", o.State, err)
		}
		return nil
	})
}

// An ERP that says that something has changed need not wait for its turn, and is believed in nothing else.
func TestOrderIsThereASecondAfterTheERPSaysThatSomethingChanged(t *testing.T) {
	e, url := books(t)
	cfg := configured(t, url)
	cfg.Dispatch.Every = time.Hour
	r := run(t, cfg)
	var l struct {
		Items []struct {
			OKAt *time.Time `json:"ok_at"`
		}
	}
	realparts.Eventually(t, 20*time.Second, "the ERP was asked once", func() error {
		if err := r.get("/v1/erps", &l); err != nil || len(l.Items) != 1 || l.Items[0].OKAt == nil {
			return fmt.Errorf("%+v, %v", l, err)
		}
		return nil
	})
	no, err := e.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 60)
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	res, err := http.Post(r.h.URL()+"/v1/erps/erp/wake", "application/cloudevents+json", strings.NewReader(`{"specversion":"1.0","type":"order.changed","data":{"order":"NONSENSE"}}`))
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Fatal(res.Status)
	}
	realparts.Eventually(t, 20*time.Second, "order at the hub", func() error { return r.get("/v1/work-orders/"+no, nil) })
	t.Logf("it was there after %s", time.Since(begin))
	if r.get("/v1/work-orders/NONSENSE", nil) == nil {
		t.Error("what the event said was believed")
	}
}

func TestHubStartsAndStopsOnRealPorts(t *testing.T) {
	_, url := books(t)
	cfg := configured(t, url)
	for range 3 { // the same store and the same folder each time
		r := run(t, cfg)
		for _, path := range []string{"/healthz", "/readyz", "/", "/orders", "/facts", "/tally", "/agents", "/v1/agents", "/openapi.json", "/metrics"} {
			if err := r.get(path, nil); err != nil {
				t.Error(err)
			}
		}
		r.dial().close()
		if err := r.stop(); err != nil {
			t.Fatal(err)
		}
		if err := r.h.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
		if c, err := net.Dial("tcp", r.h.HTTPAddr()); err == nil {
			c.Close()
			t.Error("the API still listens")
		}
	}
}

func TestHubSpeaksTLSWithTokensOnItsHTTPPort(t *testing.T) {
	_, url := books(t)
	cfg := configured(t, url)
	cfg.TLS.HTTP = true
	r := run(t, cfg)
	ca, err := os.ReadFile(filepath.Join(r.dir, "pki/ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	client := http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	defer client.CloseIdleConnections()
	if !strings.HasPrefix(r.h.URL(), "https://127.0.0.1:") {
		t.Errorf("address %s", r.h.URL())
	}
	res, err := client.Get(r.h.URL() + "/readyz")
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusOK {
		t.Error(res.Status)
	}
}

func TestSecondHubOnOneStoreIsRefused(t *testing.T) {
	_, url := books(t)
	cfg := configured(t, url)
	run(t, cfg)
	h, err := New(t.Context(), cfg, Options{Kinds: kinds})
	if err == nil {
		h.Close()
		t.Fatal("two hubs work on one store")
	}
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), "stop the other hub") || !strings.Contains(err.Error(), "hub.db") {
		t.Errorf("error %v", err)
	}
}

func TestPortThatIsTakenIsNamedAndNothingStaysOpen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	_, url := books(t)
	cfg := configured(t, url)
	for key, port := range map[string]*string{"listen.grpc": &cfg.Listen.GRPC, "listen.http": &cfg.Listen.HTTP} {
		before := *port
		*port = taken.Addr().String()
		if _, err := New(t.Context(), cfg, Options{Kinds: kinds}); err == nil || !strings.Contains(err.Error(), key) || !strings.Contains(err.Error(), *port) {
			t.Errorf("%s: error %v", key, err)
		}
		*port = before
	}
	run(t, cfg) // the store was let go each time
}

func TestHubUnderLoadStopsWithinSeconds(t *testing.T) {
	e, url := books(t)
	no, err := e.ReleaseDemoOrder(t.Context(), "ULM", "press1", 0, 6000)
	if err != nil {
		t.Fatal(err)
	}
	r := run(t, configured(t, url))
	realparts.Eventually(t, 20*time.Second, "order at the hub", func() error { return r.get("/v1/work-orders/"+no, nil) })
	p := r.dial()
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	defer load.Wait()
	defer p.close()
	defer cancel()
	load.Go(func() { // an agent that sends until it is cut off
		for i := 0; p.hand(count(fmt.Sprint("count ", i), no)) == nil; i++ {
		}
	})
	for range 2 {
		load.Go(func() {
			for ctx.Err() == nil {
				r.get("/v1/tally", nil)
			}
		})
	}
	realparts.Eventually(t, 60*time.Second, "facts are posted", func() error {
		var l struct{ Items []struct{ Key string } }
		if err := r.get("/v1/postings?state=verified&limit=1", &l); err != nil || len(l.Items) == 0 {
			return fmt.Errorf("%d are, %v", len(l.Items), err)
		}
		return nil
	})
	begin := time.Now()
	if err := r.stop(); err != nil {
		t.Errorf("stopped with %v", err)
	}
	if d := time.Since(begin); d > 8*time.Second {
		t.Errorf("stopping took %s", d)
	}
}
