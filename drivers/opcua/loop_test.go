package opcua

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// fakeServer behaves as a server's publish engine: messages wait for requests, sent ones wait for acknowledgements, and
// the way back loses, delays and swaps answers.
type fakeServer struct {
	t       testing.TB
	mu      sync.Mutex
	rand    *rand.Rand
	sub     uint32
	next    uint32 // sequence number of the next message
	value   uint32
	ready   []*message
	sent    map[uint32]*message
	asked   chan struct{} // a token for each message or sign of life
	acked   map[uint32]int
	refuse  map[uint32]error // republish of a number fails
	touches int
	waiting int
	most    int
	// faults of the way, in percent
	lose, swap int
	capacity   int // publish requests that the server takes
}

func newFakeServer(t testing.TB, seed uint64, first uint32) *fakeServer {
	return &fakeServer{t: t, rand: rand.New(rand.NewPCG(seed, 1)), sub: 9, next: first, sent: map[uint32]*message{},
		acked: map[uint32]int{}, refuse: map[uint32]error{}, asked: make(chan struct{}, 10000),
		capacity: 100}
}

// sent is a value after its way through the encoding.
func sent(t testing.TB, d *ua.DataValue) (v dataValue) {
	t.Helper()
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{b: b}
	w.dataValue(&v)
	if w.err != nil || w.at != len(b) {
		t.Fatalf("decode %x: %v", b, w.err)
	}
	return v
}

// produce makes one message with n values of one item.
func (f *fakeServer) produce(n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	m := &message{seq: f.next}
	for range n {
		f.value++
		m.changes = append(m.changes, change{handle: 1, value: sent(f.t, &ua.DataValue{
			EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp, Value: ua.MustVariant(f.value),
			SourceTimestamp: time.Unix(int64(f.value), 0)})})
	}
	f.ready = append(f.ready, m)
	f.next = after(f.next)
	f.asked <- struct{}{}
}

func (f *fakeServer) life() { f.asked <- struct{}{} }

func (f *fakeServer) publish(ctx context.Context, acks []*ua.SubscriptionAcknowledgement) (*publishAnswer, error) {
	f.mu.Lock()
	for _, a := range acks {
		f.acked[a.SequenceNumber]++
		delete(f.sent, a.SequenceNumber)
	}
	f.waiting++
	f.most = max(f.most, f.waiting)
	full := f.waiting > f.capacity
	f.mu.Unlock()
	defer func() { f.mu.Lock(); f.waiting--; f.mu.Unlock() }()
	if full {
		return nil, ua.StatusBadTooManyPublishRequests
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-f.asked:
	}
	f.mu.Lock()
	m := &message{seq: f.next, empty: true}
	if len(f.ready) > 0 {
		m, f.ready = f.ready[0], f.ready[1:]
		f.sent[m.seq] = m
	}
	lost := f.rand.IntN(100) < f.lose
	wait := time.Duration(0)
	if f.rand.IntN(100) < f.swap {
		wait = time.Duration(f.rand.IntN(100)) * time.Millisecond
	}
	f.mu.Unlock()
	if lost {
		return nil, io.EOF
	}
	if !pause(ctx, wait) {
		return nil, ctx.Err()
	}
	return &publishAnswer{subscription: f.sub, message: m}, nil
}

func (f *fakeServer) republish(_ context.Context, _, seq uint32) (*message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.refuse[seq]; err != nil {
		return nil, err
	}
	if m := f.sent[seq]; m != nil {
		return m, nil
	}
	return nil, ua.StatusBadMessageNotAvailable
}

func (f *fakeServer) touch(context.Context, uint32) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.touches++
	return nil
}

func (f *fakeServer) createItems(context.Context, uint32, []*ua.MonitoredItemCreateRequest) ([]*ua.MonitoredItemCreateResult, error) {
	return nil, errors.New("not used")
}

func (f *fakeServer) deleteItems(context.Context, uint32, []uint32) error { return nil }

func (f *fakeServer) dataTypeOf(context.Context, *ua.NodeID) (*ua.NodeID, error) { return nil, nil }

func (f *fakeServer) definition(context.Context, *ua.NodeID) (string, any, error) {
	return "", nil, nil
}

func (f *fakeServer) dictionary(context.Context, *ua.NodeID) (string, []byte, error) {
	return "", nil, nil
}

func (f *fakeServer) supertypeOf(context.Context, *ua.NodeID) (*ua.NodeID, error) { return nil, nil }

// read runs the publish loop over and over, as reconnects do, until ctx ends.
func readFake(ctx context.Context, r *reader, f *fakeServer) {
	for ctx.Err() == nil {
		r.read(ctx, f, serverFacts{})
		if r.sub == nil {
			return
		}
		r.sub.draining, r.sub.acks = true, nil
		pause(ctx, 10*time.Millisecond)
	}
}

func fakeReader(b *bench, first uint32) *reader {
	c := Config{Endpoint: "opc.tcp://fake:4840", KeepAlive: time.Second}
	r := newReader(&driver{env: b.env(), config: c, pace: defaultPace}, b.emit)
	r.sub = newSubscription("", table{Subscription: 9, KeepAlive: time.Second, Endpoint: c.Endpoint})
	r.sub.order = newOrder(first, first == 1)
	r.sub.add(&item{tableItem: tableItem{Handle: 1, Tag: "c0"}})
	r.sub.changed()
	r.types = newTypes(nil)
	return r
}

var seedFlag = flag.Uint64("seed", 0, "seed of the random tests; a new one each time when 0")

func testSeed(t *testing.T) uint64 {
	seed := *seedFlag
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("seed %d: go test -run %s -args -seed=%d", seed, t.Name(), seed)
	return seed
}

func TestNothingIsLostOrDoubledWhenAnswersGetLostAndSwapped(t *testing.T) {
	seed := testSeed(t)
	for round := range uint64(40) {
		first := uint32(1)
		if round%2 == 1 {
			first = 1<<32 - 20 // over the wrap
		}
		t.Run(strconv.FormatUint(seed+round, 10), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { loseAndSwap(t, seed+round, first) })
		})
	}
}

func loseAndSwap(t *testing.T, seed uint64, first uint32) {
	b := newBench(t)
	f := newFakeServer(t, seed, first)
	f.lose, f.swap = f.rand.IntN(20), f.rand.IntN(100)
	ctx, cancel := context.WithCancel(t.Context())
	r := fakeReader(b, first)
	var wg sync.WaitGroup
	wg.Go(func() { r.emitter.run(ctx) })
	wg.Go(func() { readFake(ctx, r, f) })
	for range 100 {
		f.mu.Lock()
		n, refuse, wait := 1+f.rand.IntN(3), f.rand.IntN(30), time.Duration(f.rand.IntN(200))*time.Millisecond
		f.mu.Unlock()
		f.produce(n)
		if refuse == 0 {
			b.mu.Lock()
			b.refuse = 3
			b.mu.Unlock()
		}
		time.Sleep(wait) // the bubble's clock
	}
	for range 60 {
		f.life()
		time.Sleep(time.Second)
	}
	synctest.Wait()
	cancel()
	wg.Wait()
	list := b.values("c0")
	if len(list) != int(f.value) {
		t.Errorf("%d values, want %d; missing or doubled", len(list), f.value)
	}
	for i, s := range list {
		if n := number(t, s); n != int64(i+1) {
			t.Fatalf("value %d is %d", i+1, n)
		}
	}
	for seq, times := range f.acked {
		if times > 1 {
			t.Errorf("message %d was acknowledged %d times", seq, times)
		}
	}
	if p := b.problem("gap"); p != nil {
		t.Errorf("a gap was reported: %s", p.Reason)
	}
}

func TestNothingIsAcknowledgedBeforeItIsDurable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		b.gate = make(chan struct{})
		f := newFakeServer(t, 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		r := fakeReader(b, 1)
		var wg sync.WaitGroup
		wg.Go(func() { r.emitter.run(ctx) })
		wg.Go(func() { readFake(ctx, r, f) })
		for range 50 {
			f.produce(1)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if len(f.acked) > 0 {
			t.Errorf("acknowledged while nothing is durable: %v", f.acked)
		}
		if len(f.sent) > window || f.waiting > 0 {
			t.Errorf("%d messages are in memory and %d requests wait while the buffer takes nothing", len(f.sent), f.waiting)
		}
		if f.touches < 30 {
			t.Errorf("the subscription was kept alive %d times in a minute", f.touches)
		}
		if s := b.state(); s[:4] != string(signal.StateHeld) {
			t.Errorf("state is %q", s)
		}
		close(b.gate)
		for range 20 {
			f.life()
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if s := b.state(); s != string(signal.StateOK) {
			t.Errorf("state is %q after the buffer took all", s)
		}
		if n := len(b.values("c0")); n != 50 || len(f.acked) != 50 {
			t.Errorf("%d values, %d acknowledged, want 50", n, len(f.acked))
		}
		cancel()
		wg.Wait()
	})
}

func TestAMessageTheServerDroppedIsReportedAndPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		f := newFakeServer(t, 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		r := fakeReader(b, 1)
		f.produce(1)
		f.produce(1)
		f.produce(1)
		// The second message vanishes: it is neither ready nor kept.
		f.ready = append(f.ready[:1], f.ready[2:]...)
		<-f.asked
		var wg sync.WaitGroup
		wg.Go(func() { r.emitter.run(ctx) })
		wg.Go(func() { readFake(ctx, r, f) })
		time.Sleep(3 * time.Second)
		cancel()
		wg.Wait()
		if got := fmt.Sprintf("%v %v", b.values("c0")[0].Value, b.values("c0")[1].Value); got != "1 3" {
			t.Errorf("values are %s, want 1 and 3", got)
		}
		if p := b.problem("gap"); p == nil || p.Code != "gap" {
			t.Errorf("no gap was reported: %v", p)
		}
	})
}

func TestAMessageThatCannotBeDecodedDoesNotBlockTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		f := newFakeServer(t, 1, 1)
		ctx, cancel := context.WithCancel(t.Context())
		r := fakeReader(b, 1)
		r.sub.draining = true
		for range 3 {
			f.produce(1)
		}
		for _, m := range f.ready {
			f.sent[m.seq] = m
		}
		f.ready = nil
		f.refuse[2] = errors.New("invalid type id: 61")
		var wg sync.WaitGroup
		wg.Go(func() { r.emitter.run(ctx) })
		wg.Go(func() { readFake(ctx, r, f) })
		time.Sleep(5 * time.Second)
		cancel()
		wg.Wait()
		list := b.values("c0")
		if len(list) != 2 || list[1].Value != signal.Number("3") {
			t.Errorf("values are %v, want 1 and 3", list)
		}
		if p := b.problem("gap"); p == nil {
			t.Error("no gap was reported")
		}
	})
}

func TestAServerThatTakesFewRequestsGetsFewer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		f := newFakeServer(t, 1, 1)
		f.capacity = 1
		ctx, cancel := context.WithCancel(t.Context())
		r := fakeReader(b, 1)
		var wg sync.WaitGroup
		wg.Go(func() { r.emitter.run(ctx) })
		wg.Go(func() { readFake(ctx, r, f) })
		for range 20 {
			f.produce(1)
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second)
		cancel()
		wg.Wait()
		if n := len(b.values("c0")); n != 20 {
			t.Errorf("%d values, want 20", n)
		}
		if r.publishLimit != 1 {
			t.Errorf("%d requests at a time, want 1", r.publishLimit)
		}
	})
}

func TestASilentServerIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		f := newFakeServer(t, 1, 1)
		r := fakeReader(b, 1)
		began := time.Now()
		err := r.read(t.Context(), f, serverFacts{})
		if err == nil || time.Since(began) > 5*time.Second {
			t.Errorf("left after %s: %v", time.Since(began), err)
		}
	})
}

func TestMain(m *testing.M) {
	if dir := os.Getenv("OPCUA_TEST_AGENT"); dir != "" {
		crashingAgent(dir)
		return
	}
	os.Exit(m.Run())
}
