package ingest_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/ingest"
	"github.com/linekeeper/linekeeper/hub/ingest/ingestbench"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/shopspring/decimal"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// directory is the list of configured agents.
type directory map[string]bool

func (d directory) Known(plant, agent string) bool { return d[plant+"/"+agent] }

// hub is a running ingest with a store that survives it.
type hub struct {
	t       testing.TB
	ca      *ingestbench.Authority
	tls     *tls.Config
	path    string
	vfs     string // of the store's, see package faultvfs
	clock   *clock
	store   *store.Store
	ingest  *ingest.Server
	server  *grpc.Server
	address string
	stop    func()
	options []grpc.ServerOption
}

// clock is real time that can be set forward.
type clock struct {
	mu  sync.Mutex
	add time.Duration
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return time.Now().Add(c.add)
}

func (c *clock) Forward(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add += d
}

func newHub(t testing.TB) *hub {
	t.Helper()
	ca, err := ingestbench.NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ca.Server()
	if err != nil {
		t.Fatal(err)
	}
	h := &hub{t: t, ca: ca, tls: cfg, path: filepath.Join(t.TempDir(), "hub.db"), clock: &clock{}}
	h.start()
	t.Cleanup(func() { h.stop() })
	return h
}

func (h *hub) start() {
	h.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var err error
	if h.store, err = store.Open(ctx, h.path, store.Options{Now: h.clock.Now, VFS: h.vfs}); err != nil {
		h.t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		h.t.Fatal(err)
	}
	h.address = l.Addr().String()
	h.ingest = ingest.New(ingest.Options{
		Store: h.store, Directory: directory{"ulm/edge1": true, "ulm/edge2": true}, Version: "test", Now: h.clock.Now, Poll: 200 * time.Millisecond,
	})
	h.server = grpc.NewServer(append(ingest.ServerOptions(), append(h.options, grpc.Creds(credentials.NewTLS(h.tls)))...)...)
	pb.RegisterUplinkServer(h.server, h.ingest)
	var wg sync.WaitGroup
	wg.Go(func() { h.server.Serve(l) })
	wg.Go(func() {
		if err := h.ingest.Run(ctx); err != nil {
			h.t.Errorf("run ingest: %v", err)
		}
	})
	h.stop = func() {
		cancel()
		h.server.Stop()
		wg.Wait()
		h.store.Close()
		h.stop = func() {}
	}
}

// line is an agent's end of a stream.
type line struct {
	t      testing.TB
	stream grpc.BidiStreamingClient[pb.Up, pb.Down]
	close  func()
}

func (h *hub) dial(certificate string) *line {
	h.t.Helper()
	plant, agent, _ := strings.Cut(certificate, "/")
	cfg, err := h.ca.Agent(plant, agent)
	if err != nil {
		h.t.Fatal(err)
	}
	conn, err := grpc.NewClient(h.address, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))
	if err != nil {
		h.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	stream, err := pb.NewUplinkClient(conn).Connect(ctx)
	if err != nil {
		h.t.Fatal(err)
	}
	l := &line{t: h.t, stream: stream, close: func() { cancel(); conn.Close() }}
	h.t.Cleanup(l.close)
	return l
}

func hello(instance string, streams ...*pb.StreamPosition) *pb.Hello {
	return &pb.Hello{Protocol: 1, Plant: "ulm", Agent: "edge1", Instance: instance, Streams: streams}
}

func business(generation string, last, acked uint64) *pb.StreamPosition {
	return &pb.StreamPosition{Stream: pb.Stream_STREAM_BUSINESS, Generation: generation, LastSeq: last, AckedSeq: acked}
}

func (l *line) hello(h *pb.Hello) *pb.Down {
	l.t.Helper()
	l.send(&pb.Up{Kind: &pb.Up_Hello{Hello: h}})
	return l.recv()
}

// connect says hello and expects to be welcome.
func (h *hub) connect(m *pb.Hello) (*line, *pb.HelloAck) {
	h.t.Helper()
	var l *line
	var ack *pb.HelloAck
	realparts.Eventually(h.t, 10*time.Second, "hello", func() error { // a stream that was closed just now may not be gone yet
		l = h.dial("ulm/edge1")
		down := l.hello(m)
		if ack = down.GetHelloAck(); ack == nil {
			l.close()
			if code := down.GetRefusal().GetCode(); code != pb.Refusal_CODE_IDENTITY_IN_USE {
				h.t.Fatalf("hello was answered with %v", down)
			}
			return fmt.Errorf("answered with %v", down)
		}
		return nil
	})
	return l, ack
}

func (l *line) send(m *pb.Up) {
	l.t.Helper()
	if err := l.stream.Send(m); err != nil {
		l.t.Fatal(err)
	}
}

func (l *line) recv() *pb.Down {
	l.t.Helper()
	down, err := l.stream.Recv()
	if err != nil {
		l.t.Fatalf("receive: %v", err)
	}
	return down
}

func (l *line) batch(generation string, first uint64, records ...[]byte) {
	l.t.Helper()
	l.send(&pb.Up{Kind: &pb.Up_Batch{Batch: &pb.Batch{
		Stream: pb.Stream_STREAM_BUSINESS, Generation: generation, FirstSeq: first, Records: records,
	}}})
}

func (l *line) ack() *pb.BatchAck {
	l.t.Helper()
	down := l.recv()
	if down.GetBatchAck() == nil {
		l.t.Fatalf("got %v, want an acknowledgement", down)
	}
	return down.GetBatchAck()
}

func fact(n int, yield int64) []byte {
	position := factkey.Position("test", fmt.Sprint(n))
	body, err := wire.EncodeFact(object.Fact{
		Key: factkey.Of(position), Kind: object.KindConfirmation, Plant: "ulm", Source: "press1", TimeZone: "UTC", Position: position,
		OccurredAt: time.Unix(1_800_000_000, 0), RecordedAt: time.Unix(1_800_000_000, 0),
		Confirmation: &object.Confirmation{OrderNo: "WO-1", Item: "P", Unit: "C62", Yield: decimal.NewFromInt(yield)},
	})
	if err != nil {
		panic(err)
	}
	return body
}

func (h *hub) facts() int {
	h.t.Helper()
	f, err := h.store.FactsAfter(context.Background(), 0, 1000)
	if err != nil {
		h.t.Fatal(err)
	}
	return len(f)
}

func (h *hub) alarms() []string {
	h.t.Helper()
	all, err := h.store.Alarms(context.Background(), false, store.Page{})
	if err != nil {
		h.t.Fatal(err)
	}
	var codes []string
	for _, a := range all {
		codes = append(codes, a.Subject+" "+a.Code)
	}
	return codes
}

func (h *hub) wantAlarm(code string) {
	h.t.Helper()
	realparts.Eventually(h.t, 10*time.Second, "alarm "+code, func() error {
		for _, a := range h.alarms() {
			if a == "ulm/edge1 "+code {
				return nil
			}
		}
		return fmt.Errorf("alarms are %v", h.alarms())
	})
}

func TestBatchIsAcknowledgedAndOddRecordsAreNamed(t *testing.T) {
	h := newHub(t)
	l, _ := h.connect(hello("a", business("g1", 6, 0)))
	other, err := proto.Marshal(&pb.Fact{})
	if err != nil {
		t.Fatal(err)
	}
	l.batch("g1", 1, fact(1, 5), fact(2, 5))
	if a := l.ack(); a.GetSeq() != 2 || len(a.GetVerdicts()) != 0 {
		t.Fatalf("first acknowledgement %v", a)
	}
	l.batch("g1", 3, fact(2, 5), fact(1, 6), []byte{0xff}, other)
	a := l.ack()
	var kinds []string
	for _, v := range a.GetVerdicts() {
		kinds = append(kinds, fmt.Sprint(v.GetSeq(), v.GetKind()))
	}
	want := "[3KIND_DUPLICATE 4KIND_CONFLICT 5KIND_UNREADABLE 6KIND_UNREADABLE]"
	if a.GetSeq() != 6 || strings.ReplaceAll(fmt.Sprint(kinds), " K", "K") != want {
		t.Fatalf("acknowledged %d with %v, want %s", a.GetSeq(), kinds, want)
	}
	if n := h.facts(); n != 2 {
		t.Fatalf("%d facts stored, want 2", n)
	}
}

func TestFactOfAnotherPlantIsKeptAside(t *testing.T) {
	h := newHub(t)
	l := h.dial("ulm/edge2")
	if d := l.hello(&pb.Hello{Protocol: 1, Plant: "ulm", Agent: "edge2", Instance: "a"}); d.GetHelloAck() == nil {
		t.Fatal(d)
	}
	var m pb.Fact
	if err := proto.Unmarshal(fact(1, 5), &m); err != nil {
		t.Fatal(err)
	}
	m.Header.Plant = "lyon"
	body, _ := proto.Marshal(&m)
	l.batch("g1", 1, body)
	a := l.ack()
	if len(a.GetVerdicts()) != 1 || !strings.Contains(a.GetVerdicts()[0].GetReason(), `"lyon"`) {
		t.Fatalf("acknowledgement %v", a)
	}
}

func TestKilledBetweenCommitAndAcknowledgementDoublesNothing(t *testing.T) {
	h := newHub(t)
	l, _ := h.connect(hello("a", business("g1", 2, 0)))
	l.batch("g1", 1, fact(1, 5), fact(2, 5))
	realparts.Eventually(t, 10*time.Second, "the commit", func() error {
		if n := h.facts(); n != 2 {
			return fmt.Errorf("%d facts", n)
		}
		return nil
	})
	l.close() // the acknowledgement was never read
	h.stop()
	h.start()
	l, ack := h.connect(hello("b", business("g1", 3, 0)))
	if s := ack.GetStreams(); len(s) != 1 || s[0].GetAckedSeq() != 2 {
		t.Fatalf("hub says it holds %v, want 2", s)
	}
	l.batch("g1", 1, fact(1, 5), fact(2, 5), fact(3, 5))
	a := l.ack()
	if a.GetSeq() != 3 || len(a.GetVerdicts()) != 2 {
		t.Fatalf("acknowledgement %v", a)
	}
	if n := h.facts(); n != 3 {
		t.Fatalf("%d facts stored, want 3", n)
	}
	if al := h.alarms(); len(al) != 0 {
		t.Fatalf("a plain resend raised %v", al)
	}
}

func TestWhoMayNotSpeakIsRefusedByName(t *testing.T) {
	h := newHub(t)
	for _, c := range []struct {
		name, certificate string
		hello             *pb.Hello
		want              pb.Refusal_Code
	}{
		{"certificate of another agent", "ulm/edge2", hello("a"), pb.Refusal_CODE_IDENTITY_MISMATCH},
		{"agent that is not configured", "ulm/edge9", &pb.Hello{Protocol: 1, Plant: "ulm", Agent: "edge9"}, pb.Refusal_CODE_UNKNOWN_AGENT},
		{"newer protocol", "ulm/edge1", &pb.Hello{Protocol: 2, Plant: "ulm", Agent: "edge1"}, pb.Refusal_CODE_PROTOCOL_VERSION},
	} {
		t.Run(c.name, func(t *testing.T) {
			down := h.dial(c.certificate).hello(c.hello)
			r := down.GetRefusal()
			if r.GetCode() != c.want || r.GetReason() == "" || r.GetNextStep() == "" {
				t.Fatalf("got %v, want %v with reason and next step", down, c.want)
			}
		})
	}
}

func TestSecondLiveInstanceIsRefusedAndBothAreFlagged(t *testing.T) {
	h := newHub(t)
	first, _ := h.connect(hello("a"))
	down := h.dial("ulm/edge1").hello(hello("b"))
	if down.GetRefusal().GetCode() != pb.Refusal_CODE_IDENTITY_IN_USE {
		t.Fatalf("the second instance got %v", down)
	}
	if a := h.alarms(); len(a) != 0 {
		t.Fatalf("flagged before the first was heard again: %v", a)
	}
	first.batch("g1", 1, fact(1, 5)) // the first one lives
	if first.ack().GetSeq() != 1 {
		t.Fatal("the first instance lost its stream")
	}
	h.wantAlarm("identity_in_use")
}

func TestDeadInstanceIsReplaced(t *testing.T) {
	h := newHub(t)
	dead, _ := h.connect(hello("a"))
	h.clock.Forward(time.Hour) // nothing was heard for long: a half-open line
	l, _ := h.connect(hello("b"))
	if _, err := dead.stream.Recv(); err == nil {
		t.Fatal("the dead stream stayed open")
	}
	l.batch("g1", 1, fact(1, 5))
	l.ack()
}

func TestSameProcessReplacesItsOwnOldLine(t *testing.T) {
	h := newHub(t)
	h.connect(hello("a"))
	l, _ := h.connect(hello("a"))
	l.batch("g1", 1, fact(1, 5))
	l.ack()
}

func TestGapInOneStreamIsRefusedAndAGapThatStaysIsTakenWithAnAlarm(t *testing.T) {
	h := newHub(t)
	l, _ := h.connect(hello("a", business("g1", 9, 0)))
	l.batch("g1", 1, fact(1, 5))
	l.ack()
	l.batch("g1", 5, fact(5, 5))
	if d := l.recv(); d.GetRefusal().GetCode() != pb.Refusal_CODE_OUT_OF_SEQUENCE {
		t.Fatalf("gap was answered with %v", d)
	}
	if n := h.facts(); n != 1 {
		t.Fatalf("%d facts, want 1", n)
	}
	l, _ = h.connect(hello("a", business("g1", 9, 1)))
	l.batch("g1", 5, fact(5, 5)) // records 2 to 4 are gone at the agent: a damaged segment
	if l.ack().GetSeq() != 5 {
		t.Fatal("what follows a real gap was not taken")
	}
	h.wantAlarm("records_lost")
}

func TestRestoredCopyMustStartANewGenerationAndLosesNothing(t *testing.T) {
	h := newHub(t)
	l, _ := h.connect(hello("a", business("g1", 3, 0)))
	l.batch("g1", 1, fact(1, 5), fact(2, 5), fact(3, 5))
	l.ack()
	l.close()
	l, ack := h.connect(hello("b", business("g1", 2, 1)))
	if !ack.GetNewGenerationRequired() {
		t.Fatalf("restored copy was welcomed with %v", ack)
	}
	h.wantAlarm("went_back_in_time")
	l.batch("g2", 2, fact(2, 5), fact(4, 5)) // keeps its numbers under a new generation
	if a := l.ack(); a.GetSeq() != 3 || len(a.GetVerdicts()) != 1 {
		t.Fatalf("acknowledgement %v", a)
	}
	if n := h.facts(); n != 4 {
		t.Fatalf("%d facts, want 4", n)
	}
}

func TestRestoredCopyThatGrewPastTheHubIsGivenAwayByItsReadings(t *testing.T) {
	readings := func(last, acked uint64) *pb.StreamPosition {
		return &pb.StreamPosition{Stream: pb.Stream_STREAM_TELEMETRY, Generation: "t1", LastSeq: last, AckedSeq: acked}
	}
	h := newHub(t)
	l, _ := h.connect(hello("a", business("g1", 3, 0), readings(9, 0)))
	l.send(&pb.Up{Kind: &pb.Up_Batch{Batch: &pb.Batch{Stream: pb.Stream_STREAM_TELEMETRY, Generation: "t1", FirstSeq: 1, Records: make([][]byte, 9)}}})
	l.ack()
	l.batch("g1", 1, fact(1, 5), fact(2, 5), fact(3, 5))
	l.ack()
	l.close()
	_, ack := h.connect(hello("b", business("g1", 5, 1), readings(4, 4)))
	if !ack.GetNewGenerationRequired() {
		t.Errorf("restored copy was welcomed with %v", ack)
	}
	h.wantAlarm("went_back_in_time")
}

func TestCopyThatGrewPastTheHubIsNotSkippedBySequence(t *testing.T) {
	h := newHub(t)
	l, _ := h.connect(hello("a", business("g1", 3, 0)))
	l.batch("g1", 1, fact(1, 5), fact(2, 5), fact(3, 5))
	l.ack()
	l.close()
	l, _ = h.connect(hello("b", business("g1", 5, 1))) // other facts under 2 and 3
	l.batch("g1", 2, fact(12, 5), fact(13, 5), fact(14, 5), fact(15, 5))
	l.ack()
	if n := h.facts(); n != 7 {
		t.Fatalf("%d facts, want 7", n)
	}
	h.wantAlarm("sequence_reused")
}

func TestStoreThatCannotCommitIsARefusalAndNeverAnAcknowledgement(t *testing.T) {
	h := newHub(t)
	l, _ := h.connect(hello("a"))
	h.store.Close()
	l.batch("g1", 1, fact(1, 5))
	if d := l.recv(); d.GetRefusal().GetCode() != pb.Refusal_CODE_HUB_STORE {
		t.Fatalf("got %v, want a refusal", d)
	}
}

func TestTelemetryKeepsTheLatestReadingAndStatusIsStored(t *testing.T) {
	h := newHub(t)
	ctx := context.Background()
	l, _ := h.connect(hello("a"))
	var records [][]byte
	for i := range 3 {
		b, _ := proto.Marshal(&pb.Reading{Source: "press1", Tag: "speed", Value: fmt.Sprint(i), Quality: "good", At: timestamppb.New(time.Unix(int64(i), 0))})
		records = append(records, b)
	}
	l.send(&pb.Up{Kind: &pb.Up_Batch{Batch: &pb.Batch{Stream: pb.Stream_STREAM_TELEMETRY, Generation: "t1", FirstSeq: 40, Records: records}}})
	if a := l.ack(); a.GetSeq() != 42 || a.GetStream() != pb.Stream_STREAM_TELEMETRY {
		t.Fatalf("acknowledgement %v", a)
	}
	l.send(&pb.Up{Kind: &pb.Up_Status{Status: &pb.AgentStatus{State: "degraded", Ledger: []*pb.LedgerRow{
		{Source: "press1", OrderNo: "WO-1", Item: "P", Kind: "yield", Unit: "C62", Counted: "12", Stored: "10"},
	}}}})
	a, err := h.store.Agent(ctx, "ulm", "edge1")
	if err != nil {
		t.Fatal(err)
	}
	readings, err := h.store.Readings(ctx, a.ID)
	if err != nil || len(readings) != 1 || readings[0].Value != "2" {
		t.Fatalf("readings %v, %v", readings, err)
	}
	realparts.Eventually(t, 10*time.Second, "status", func() error {
		edge, _, err := h.store.TallyInput(ctx, store.TallyFilter{})
		if err != nil {
			return err
		}
		if len(edge) != 1 || edge[0].Counted.String() != "12" || edge[0].Agent != "edge1" {
			return fmt.Errorf("ledger %+v", edge)
		}
		return nil
	})
}

func TestWorkOrderGoesDownAtOnceAndIsMarkedStored(t *testing.T) {
	h := newHub(t)
	ctx := context.Background()
	l, ack := h.connect(hello("a"))
	order := func(no string) {
		t.Helper()
		err := h.store.Update(ctx, func(tx *store.Tx) error {
			a, err := tx.AgentByName("ulm", "edge1")
			if err != nil {
				return err
			}
			o := object.WorkOrder{OrderNo: no, Revision: 1, ERP: "erp", Plant: "ulm", Item: "P", State: object.OrderReleased}
			if err := tx.PutOrder(store.Order{Order: o, Agent: "edge1", Sent: 1, Content: []byte("c")}, true); err != nil {
				return err
			}
			return tx.DeliverOrder(a.ID, o)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	order("WO-1")
	d := l.recv().GetDelivery()
	if d.GetSeq() != 1 || d.GetWorkOrder().GetOrderNo() != "WO-1" {
		t.Fatalf("delivery %v", d)
	}
	l.send(&pb.Up{Kind: &pb.Up_DownAck{DownAck: &pb.DownAck{Seq: 1}}})
	realparts.Eventually(t, 10*time.Second, "stored", func() error {
		_, _, steps, err := h.store.OrderTimeline(ctx, "", "WO-1")
		if err != nil {
			return err
		}
		if len(steps) != 2 || steps[0].Step != "sent" || steps[1].Step != "stored" {
			return fmt.Errorf("timeline %+v", steps)
		}
		return nil
	})
	l.close()

	again := hello("b")
	again.DeliveryEpoch, again.DeliverySeq = ack.GetDeliveryEpoch(), 1
	l, _ = h.connect(again)
	order("WO-2")
	if d := l.recv().GetDelivery(); d.GetWorkOrder().GetOrderNo() != "WO-2" {
		t.Fatalf("after a reconnect came %v", d)
	}
	l.close()
	l, _ = h.connect(hello("c")) // an empty inbox
	if d := l.recv().GetDelivery(); d.GetWorkOrder().GetOrderNo() != "WO-1" {
		t.Fatalf("an empty inbox got %v first", d)
	}
}

func TestManyStreamsShareCommitsAndLoseNothing(t *testing.T) {
	h := newHub(t)
	const agents, batches, size = 2, 30, 20
	var wg sync.WaitGroup
	for n := range agents {
		name := fmt.Sprintf("edge%d", n+1)
		l := h.dial("ulm/" + name)
		if d := l.hello(&pb.Hello{Protocol: 1, Plant: "ulm", Agent: name, Instance: "i"}); d.GetHelloAck() == nil {
			t.Fatal(d)
		}
		wg.Go(func() {
			for b := range batches {
				var records [][]byte
				for i := range size {
					records = append(records, fact(n*1_000_000+b*size+i, 1))
				}
				if err := l.stream.Send(&pb.Up{Kind: &pb.Up_Batch{Batch: &pb.Batch{
					Stream: pb.Stream_STREAM_BUSINESS, Generation: "g", FirstSeq: uint64(b*size + 1), Records: records,
				}}}); err != nil {
					t.Errorf("send: %v", err)
					return
				}
			}
			for seq := uint64(0); seq < batches*size; {
				d, err := l.stream.Recv()
				if err != nil || d.GetBatchAck() == nil {
					t.Errorf("receive: %v, %v", d, err)
					return
				}
				seq = d.GetBatchAck().GetSeq()
			}
		})
	}
	wg.Wait()
	c := h.ingest.Counts()
	if c.Accepted != agents*batches*size || c.Duplicates != 0 {
		t.Fatalf("counts %+v", c)
	}
}
