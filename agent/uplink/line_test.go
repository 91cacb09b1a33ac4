package uplink

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// The tests of this file run over in-memory lines that are slow, or that lose everything without saying so, in fake time.

// network makes lines that are as it says now. Zero values are a fast and good one.
type network struct {
	*pipes
	speed  int           // bytes a second in each direction
	way    time.Duration // how long a byte travels
	buffer int           // bytes that the sender's kernel takes before it blocks

	wires sync.WaitGroup

	mu   sync.Mutex
	dark chan struct{} // not nil: everything is lost; closed when that is over
}

func newNetwork(speed int, way time.Duration) *network {
	return &network{pipes: newPipes(), speed: speed, way: way, buffer: 64 << 10}
}

// goDark loses everything, also what asks for a new line, until light.
func (n *network) goDark() {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.dark = make(chan struct{})
}

// light lets new lines come about. Those that were there stay dead: their peers have nothing of what was lost.
func (n *network) light() {
	n.mu.Lock()
	defer n.mu.Unlock()
	close(n.dark)
	n.dark = nil
}

func (n *network) darkness() chan struct{} {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.dark
}

func (n *network) Dial(ctx context.Context, _, _ string) (net.Conn, error) {
	if n.darkness() != nil {
		select { // as a kernel that gets no answer
		case <-time.After(15 * time.Second):
			return nil, os.ErrDeadlineExceeded
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	up, down := n.newWire(), n.newWire()
	ours, theirs := &end{in: down, out: up}, &end{in: up, out: down}
	select {
	case n.conns <- theirs:
		return ours, nil
	case <-ctx.Done():
		ours.Close()
		theirs.Close()
		return nil, ctx.Err()
	}
}

// wire is one direction of a line.
type wire struct {
	n    *network
	mu   sync.Mutex
	cond *sync.Cond

	waiting []byte // in the sender's kernel
	arrived []byte
	lost    bool // the darkness took a part: nothing comes through any more
	noWrite bool // the sender closed
	noRead  bool // the reader closed
	ended   bool // the reader knows of the end
	late    bool // the reader's deadline has passed
}

func (n *network) newWire() *wire {
	w := &wire{n: n}
	w.cond = sync.NewCond(&w.mu)
	n.wires.Go(w.carry)
	return w
}

const packet = 1400

func (w *wire) carry() {
	for {
		w.mu.Lock()
		for len(w.waiting) == 0 && !w.noWrite && !w.noRead {
			w.cond.Wait()
		}
		if w.noRead || len(w.waiting) == 0 {
			w.ended = w.ended || !w.lost && w.n.darkness() == nil
			w.cond.Broadcast()
			w.mu.Unlock()
			return
		}
		chunk := w.waiting[:min(packet, len(w.waiting))]
		w.mu.Unlock()
		if w.n.speed > 0 {
			pause(context.Background(), time.Duration(len(chunk))*time.Second/time.Duration(w.n.speed))
		}
		w.mu.Lock()
		if w.n.darkness() != nil {
			w.lost = true
		}
		if w.lost { // sent again and again by the kernel: its buffer stays full
			for !w.noWrite && !w.noRead {
				w.cond.Wait()
			}
			w.mu.Unlock()
			return
		}
		w.waiting = w.waiting[len(chunk):]
		w.mu.Unlock()
		w.land(chunk)
	}
}

// land delivers a packet after its way, without holding up the next one.
func (w *wire) land(chunk []byte) {
	put := func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.arrived = append(w.arrived, chunk...)
		w.cond.Broadcast()
	}
	if w.n.way == 0 {
		put()
		return
	}
	time.AfterFunc(w.n.way, put)
}

// end is one end of a line.
type end struct {
	in, out *wire
	late    *time.Timer // of reading; guarded by in.mu
}

func (e *end) Read(b []byte) (int, error) {
	w := e.in
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.arrived) == 0 {
		if w.noRead {
			return 0, net.ErrClosed
		}
		if w.ended {
			return 0, io.EOF
		}
		if w.late {
			return 0, os.ErrDeadlineExceeded
		}
		w.cond.Wait()
	}
	n := copy(b, w.arrived)
	w.arrived = w.arrived[n:]
	return n, nil
}

func (e *end) Write(b []byte) (int, error) {
	w := e.out
	w.mu.Lock()
	defer w.mu.Unlock()
	for sent := 0; ; {
		for len(w.waiting) >= w.n.buffer && !w.noWrite && !w.noRead {
			w.cond.Wait()
		}
		if w.noWrite {
			return sent, net.ErrClosed
		}
		if w.noRead {
			return sent, errors.New("connection reset by peer")
		}
		n := min(len(b)-sent, w.n.buffer-len(w.waiting))
		w.waiting = append(w.waiting, b[sent:sent+n]...)
		w.cond.Broadcast()
		if sent += n; sent == len(b) {
			return sent, nil
		}
	}
}

func (e *end) Close() error {
	dark := e.in.n.darkness() != nil
	for _, w := range []*wire{e.in, e.out} {
		w.mu.Lock()
		if w == e.out {
			w.noWrite = true
		} else {
			w.noRead = !dark && !w.lost || w.noRead
			w.lost = w.lost || dark
			w.ended = true
		}
		w.cond.Broadcast()
		w.mu.Unlock()
	}
	return nil
}

func (e *end) LocalAddr() net.Addr              { return e.in.n.Addr() }
func (e *end) RemoteAddr() net.Addr             { return e.in.n.Addr() }
func (e *end) SetDeadline(t time.Time) error    { return e.SetReadDeadline(t) }
func (e *end) SetWriteDeadline(time.Time) error { return nil }

func (e *end) SetReadDeadline(t time.Time) error {
	w := e.in
	w.mu.Lock()
	defer w.mu.Unlock()
	if e.late != nil {
		e.late.Stop()
	}
	w.late = false
	if !t.IsZero() {
		e.late = time.AfterFunc(time.Until(t), func() {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.late = true
			w.cond.Broadcast()
		})
	}
	return nil
}

// over runs a world over a network of its own.
func over(t *testing.T, speed int, way time.Duration, f func(t *testing.T, w *world, n *network)) {
	t.Helper()
	bubble(t, func(t *testing.T, w *world) {
		n := newNetwork(speed, way)
		w.net = n.pipes
		w.cfg.Dial = n.Dial
		f(t, w, n)
		n.wires.Wait()
	})
}

// tally prints and checks what the hub holds.
func (w *world) tally(t *testing.T, want int) {
	t.Helper()
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	doubled := 0
	for _, n := range w.hub.stored {
		doubled += n - 1
	}
	t.Logf("sent=%d stored=%d missing=%d doubled=%d hellos=%d", want, len(w.hub.stored), want-len(w.hub.stored), doubled, len(w.hub.hellos))
	if len(w.hub.stored) != want || doubled != 0 {
		t.Errorf("hub holds %d keys, want %d; doubled %d", len(w.hub.stored), want, doubled)
	}
}

func TestLineThatIsHalfOpenForAnHourIsFoundCostsNothingAndResumes(t *testing.T) {
	over(t, 0, 0, func(t *testing.T, w *world, n *network) {
		defer w.start(t)()
		w.business.append(records(0, 5000, 300)...)
		until(t, time.Minute, "connected and working", func() bool { return w.business.pending() == 0 })
		n.goDark()
		w.business.append(records(5000, 5000, 300)...) // on its way when the light goes out
		began := time.Now()
		until(t, 2*time.Minute, "found", func() bool { return w.up.Status().State == "offline" })
		found := time.Since(began)
		if found > 45*time.Second {
			t.Errorf("found after %s", found)
		}
		measure := func() (goroutines int, heap uint64) {
			var m runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&m)
			return runtime.NumGoroutine(), m.HeapAlloc
		}
		pause(t.Context(), 5*time.Minute)
		goroutines, heap := measure()
		pause(t.Context(), 54*time.Minute)
		goroutinesAfter, heapAfter := measure()
		t.Logf("found after %s; goroutines %d -> %d, heap %d -> %d KiB within the hour", found, goroutines, goroutinesAfter, heap>>10, heapAfter>>10)
		if goroutinesAfter > goroutines+5 || heapAfter > heap+2<<20 {
			t.Errorf("goroutines %d -> %d, heap %d -> %d", goroutines, goroutinesAfter, heap, heapAfter)
		}
		n.light()
		until(t, 50*time.Second, "connected again", func() bool { return w.up.Status().State == "connected" })
		until(t, time.Minute, "all is acknowledged", func() bool { return w.business.pending() == 0 })
		w.tally(t, 10_000)
	})
}

// 64 kbit/s are 8,000 bytes a second. What goes up must not hold up what comes down, nor its acknowledgement, and the line
// is kept full and never cut.
func TestBacklogOn64kbitDelaysNoDeliveryAndIsNeverCut(t *testing.T) {
	over(t, 8000, 60*time.Millisecond, func(t *testing.T, w *world, n *network) {
		const count, size = 6000, 300
		in := &box{}
		w.deps.Inbox = in
		w.hub.feed = make(chan *pb.Delivery)
		w.business.append(records(0, count, size)...)
		defer w.start(t)()
		until(t, time.Minute, "connected", func() bool { return w.up.Status().State == "connected" })
		began := time.Now()
		pause(t.Context(), 20*time.Second)
		var longest, sum time.Duration
		const deliveries = 25
		for i := int64(1); i <= deliveries; i++ {
			sent := time.Now()
			w.hub.feed <- &pb.Delivery{Seq: i, Kind: &pb.Delivery_WorkOrder{WorkOrder: &pb.WorkOrder{OrderNo: "1004711", Item: string(make([]byte, 800))}}}
			until(t, time.Minute, "acknowledged", func() bool {
				w.hub.mu.Lock()
				defer w.hub.mu.Unlock()
				return len(w.hub.downAcks) > 0 && w.hub.downAcks[len(w.hub.downAcks)-1] == i
			})
			took := time.Since(sent)
			longest, sum = max(longest, took), sum+took
			pause(t.Context(), 5*time.Second)
		}
		if w.business.pending() == 0 {
			t.Fatal("the backlog was gone before the last delivery: nothing is proved")
		}
		until(t, 10*time.Minute, "the backlog is gone", func() bool { return w.business.pending() == 0 })
		use := float64(count*size) / (time.Since(began).Seconds() * 8000)
		t.Logf("a delivery and its acknowledgement took %s on average, %s at most; %.0f %% of the line carried records", sum/deliveries, longest, use*100)
		if longest > 3*time.Second || use < 0.8 || w.hub.helloCount() != 1 {
			t.Errorf("longest %s (want 3 s), use %.2f (want 0.8), %d hellos (want 1)", longest, use, w.hub.helloCount())
		}
		w.tally(t, count)
	})
}

func TestRecordThatASlowLineNeedsAMinuteForGetsThrough(t *testing.T) {
	over(t, 8000, 60*time.Millisecond, func(t *testing.T, w *world, n *network) {
		w.business.append(record(0, 100), record(1, 700_000), record(2, 100))
		defer w.start(t)()
		until(t, 5*time.Minute, "all three are acknowledged", func() bool { return w.business.pending() == 0 })
		if w.hub.helloCount() != 1 {
			t.Errorf("%d hellos, want 1", w.hub.helloCount())
		}
		w.tally(t, 3)
	})
}

// The marks of many counters make an answer to hello that a slow line needs longer for than a hub may stay silent.
func TestLongAnswerToHelloIsWaitedForOnASlowLine(t *testing.T) {
	over(t, 8000, 60*time.Millisecond, func(t *testing.T, w *world, n *network) {
		const marks = 9000
		w.hub.onHello = func(_ int, _ *pb.Hello, a *pb.HelloAck) *pb.Refusal {
			for i := range marks {
				a.Marks = append(a.Marks, &pb.SourceMark{Source: "press", Tag: fmt.Sprintf("press%d.Good", i), Epoch: "1", CounterTo: "123456"})
			}
			return nil
		}
		got := 0
		w.deps.Marks = func(_ context.Context, m []*pb.SourceMark, _ bool) error { got = len(m); return nil }
		w.business.append(records(0, 100, 300)...)
		defer w.start(t)()
		began := time.Now()
		until(t, 10*time.Minute, "all is acknowledged", func() bool { return w.business.pending() == 0 })
		t.Logf("%d marks took %s", got, time.Since(began))
		if got != marks || w.hub.helloCount() != 1 || time.Since(began) < 31*time.Second {
			t.Errorf("%d marks after %s, %d hellos", got, time.Since(began), w.hub.helloCount())
		}
		w.tally(t, 100)
	})
}

func TestLargeStatusThatChangesAllTheTimeLeavesASlowLineToTheRecords(t *testing.T) {
	over(t, 8000, 60*time.Millisecond, func(t *testing.T, w *world, n *network) {
		changed := make(chan struct{}, 1)
		w.deps.StatusChanged = changed
		ledger := make([]*pb.LedgerRow, 500)
		for i := range ledger {
			ledger[i] = &pb.LedgerRow{Source: "press", OrderNo: "1004711", Item: "FG-GEAR", Kind: "yield", Unit: "C62", Counted: "1000", Stored: "1000"}
		}
		w.deps.Status = func() *pb.AgentStatus { return &pb.AgentStatus{State: "ok", Ledger: ledger} }
		const count, size = 4000, 300
		w.business.append(records(0, count, size)...)
		defer w.start(t)()
		began := time.Now()
		until(t, 15*time.Minute, "the backlog is gone", func() bool {
			select {
			case changed <- struct{}{}:
			default:
			}
			return w.business.pending() == 0
		})
		use := float64(count*size) / (time.Since(began).Seconds() * 8000)
		w.hub.mu.Lock()
		statuses := len(w.hub.statuses)
		w.hub.mu.Unlock()
		t.Logf("%.0f %% of the line carried records, %d statuses", use*100, statuses)
		if use < 0.65 || statuses < 2 || w.hub.helloCount() != 1 {
			t.Errorf("use %.2f (want 0.65), %d statuses, %d hellos (want 1)", use, statuses, w.hub.helloCount())
		}
		w.tally(t, count)
	})
}

// Half-open links of random length while both directions work, again and again.
func TestDarknessAtRandomPointsLosesAndDoublesNothing(t *testing.T) {
	s := seed(t)
	over(t, 50_000, 20*time.Millisecond, func(t *testing.T, w *world, n *network) {
		rng := rand.New(rand.NewPCG(s, 3))
		in := &box{}
		w.deps.Inbox = in
		const count, rounds = 12_000, 20
		for i := int64(1); i <= 1000; i++ {
			w.hub.deliveries = append(w.hub.deliveries, &pb.Delivery{Seq: i, Kind: &pb.Delivery_Receipt{Receipt: &pb.Receipt{Reason: string(make([]byte, 200))}}})
		}
		defer w.start(t)()
		for round := range rounds {
			w.business.append(records(round*count/rounds, count/rounds, 100+rng.IntN(300))...)
			pause(t.Context(), time.Duration(rng.IntN(4000))*time.Millisecond)
			n.goDark()
			pause(t.Context(), time.Duration(rng.IntN(120_000))*time.Millisecond)
			n.light()
		}
		until(t, 10*time.Minute, "everything is acknowledged", func() bool {
			_, down := in.Position()
			return w.business.pending() == 0 && down == 1000
		})
		synctest.Wait()
		for i, seq := range in.stored {
			if seq != int64(i+1) {
				t.Fatalf("delivery %d was stored as number %d", seq, i+1)
			}
		}
		w.tally(t, count)
	})
}

// An inbox that cannot store, more deliveries than fit, a hub that refuses at hello and in the middle, that is busy, that
// acknowledges nothing, and a line that goes dark: in the end everything is where it belongs, once and in order.
func TestTroubleAtBothEndsAtOnceLosesAndDoublesNothing(t *testing.T) {
	s := seed(t)
	over(t, 400_000, 20*time.Millisecond, func(t *testing.T, w *world, n *network) {
		rng, plan := rand.New(rand.NewPCG(s, 4)), rand.New(rand.NewPCG(s, 5)) // the hub's and the test's own
		var mu sync.Mutex
		trouble := true
		happens := func(oneIn int) bool {
			mu.Lock()
			defer mu.Unlock()
			return trouble && rng.IntN(oneIn) == 0
		}
		codes := []pb.Refusal_Code{pb.Refusal_CODE_HUB_STORE, pb.Refusal_CODE_OUT_OF_SEQUENCE, pb.Refusal_CODE_BUSY, pb.Refusal_CODE_IDENTITY_IN_USE}
		refusal := func(oneIn int) *pb.Refusal {
			if !happens(oneIn) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			return &pb.Refusal{Code: codes[rng.IntN(len(codes))], RetryAfter: durationpb.New(time.Duration(rng.IntN(20)) * time.Second)}
		}
		refused, unacked := 0, 0
		w.hub.onHello = func(int, *pb.Hello, *pb.HelloAck) *pb.Refusal {
			r := refusal(3)
			mu.Lock()
			defer mu.Unlock()
			if r != nil {
				refused++
			}
			return r
		}
		w.hub.midway = func() *pb.Refusal { return refusal(40) }
		w.hub.onBatch = func(<-chan struct{}, *pb.Batch) bool {
			if !happens(60) {
				return true
			}
			mu.Lock()
			defer mu.Unlock()
			unacked++
			return false
		}
		in := &box{}
		w.deps.Inbox = in
		const count, deliveries, rounds = 20_000, 3 * deliveriesHeld, 60
		for i := int64(1); i <= deliveries; i++ {
			w.hub.deliveries = append(w.hub.deliveries, &pb.Delivery{Seq: i})
		}
		defer w.start(t)()
		for round := range rounds {
			w.business.append(records(round*count/rounds, (round+1)*count/rounds-round*count/rounds, 50+plan.IntN(200))...)
			in.mu.Lock()
			in.fail = nil
			if plan.IntN(2) == 0 {
				in.fail = errors.New("disk full")
			}
			in.mu.Unlock()
			pause(t.Context(), time.Duration(plan.IntN(40_000))*time.Millisecond)
			if plan.IntN(5) == 0 {
				n.goDark()
				pause(t.Context(), time.Duration(plan.IntN(90_000))*time.Millisecond)
				n.light()
			}
		}
		in.mu.Lock()
		in.fail = nil
		in.mu.Unlock()
		mu.Lock()
		trouble = false
		mu.Unlock()
		until(t, 30*time.Minute, "everything is acknowledged", func() bool {
			_, down := in.Position()
			return w.business.pending() == 0 && down == deliveries
		})
		for i, seq := range in.stored {
			if seq != int64(i+1) {
				t.Fatalf("delivery %d was stored as number %d", seq, i+1)
			}
		}
		mu.Lock()
		defer mu.Unlock()
		t.Logf("refused=%d unacknowledged=%d deliveries=%d", refused, unacked, len(in.stored))
		if refused == 0 {
			t.Error("nothing was refused: the run proves little")
		}
		w.tally(t, count)
	})
}

// What is sent ahead of its turn is stored and acknowledged by its own number, moves no position, and comes again.
func TestDeliveryAheadOfItsTurnIsStoredAtOnceAndMovesNoPosition(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		in := &box{}
		w.deps.Inbox = in
		w.hub.feed = make(chan *pb.Delivery)
		var acks []*pb.DownAck
		w.hub.onDownAck = func(a *pb.DownAck) { acks = append(acks, a) }
		defer w.start(t)()
		send := func(d *pb.Delivery) { w.hub.feed <- d; pause(t.Context(), time.Second); synctest.Wait() }
		send(&pb.Delivery{Seq: 1})
		send(&pb.Delivery{Seq: 900, Ahead: true})
		if _, seq := in.Position(); seq != 1 || len(in.early) != 1 || in.early[0] != 900 {
			t.Fatalf("position %d, early %v", seq, in.early)
		}
		if last := acks[len(acks)-1]; last.GetSeq() > 1 || len(last.GetAhead()) != 1 || last.GetAhead()[0] != 900 {
			t.Fatalf("acknowledged as %v", last)
		}
		send(&pb.Delivery{Seq: 2})
		if last := acks[len(acks)-1]; last.GetSeq() != 2 || len(last.GetAhead()) != 0 {
			t.Fatalf("acknowledged as %v", last)
		}
		if h := w.hub.hellos[0]; !h.GetTakesAhead() {
			t.Error("hello does not say that deliveries may come ahead")
		}
	})
}
