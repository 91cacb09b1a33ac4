package uplink

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// The tests of this file own the clock and use in-memory connections under real gRPC and real TLS.

type world struct {
	*plant
	hub  *hub
	net  *pipes
	auth *authority
}

func newWorld(t *testing.T) *world {
	a := newAuthority(t)
	w := &world{plant: newPlant(a), hub: newHub(t), net: newPipes(), auth: a}
	w.cfg.Dial = w.net.Dial
	return w
}

// start runs hub and agent; both are stopped by the returned function.
func (w *world) start(t *testing.T) (stop func()) {
	stopHub := w.hub.serve(w.net, w.auth.server("hub.test", -hour, day))
	stopPlant := w.run(t)
	return func() { stopPlant(); stopHub() }
}

func bubble(t *testing.T, f func(t *testing.T, w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(t, newWorld(t)) })
}

// until lets time pass in steps until done holds.
func until(t *testing.T, patience time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for {
		synctest.Wait()
		if done() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s", what, patience)
		}
		pause(t.Context(), 50*time.Millisecond)
	}
}

func TestRecordIsAcknowledgedOnlyAfterTheHubCommitted(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		release := make(chan struct{})
		w.hub.onBatch = func(stop <-chan struct{}, _ *pb.Batch) bool {
			select {
			case <-release:
			case <-stop:
			}
			return true
		}
		defer w.start(t)()
		w.business.append(records(0, 10, 100)...)
		until(t, time.Minute, "the hub has the batch", func() bool { return w.hub.count() == 10 })
		if _, acked := w.business.Position(); acked != 0 {
			t.Fatalf("acknowledged up to %d before the hub said so", acked)
		}
		close(release)
		until(t, time.Minute, "all is acknowledged", func() bool { return w.business.pending() == 0 })
	})
}

func TestWindowIsRespectedAndTelemetryLeavesHalfOfItToBusiness(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.hub.onHello = func(_ int, _ *pb.Hello, a *pb.HelloAck) *pb.Refusal { a.Window = 6; return nil }
		w.hub.onBatch = func(<-chan struct{}, *pb.Batch) bool { return false }
		w.cfg.StartBytes = 8 << 20 // the line is known to be fast
		w.telemetry.append(records(1_000_000, 256*20, 100)...)
		defer w.start(t)()
		batches := func() int { w.hub.mu.Lock(); defer w.hub.mu.Unlock(); return w.hub.batches }
		until(t, time.Minute, "telemetry fills its half", func() bool { return batches() == 3 })
		pause(t.Context(), 5*time.Second)
		synctest.Wait()
		if n := batches(); n != 3 {
			t.Fatalf("telemetry put %d batches in flight, want half the window, 3", n)
		}
		w.business.append(records(0, 256*20, 100)...)
		until(t, time.Minute, "business fills the rest", func() bool { return batches() == 6 })
		pause(t.Context(), 5*time.Second)
		synctest.Wait()
		if n := batches(); n != 6 {
			t.Fatalf("%d batches in flight, the window is 6", n)
		}
	})
}

func TestBusinessGoesBeforeTelemetry(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.StartBytes = 8 << 20 // the line is known to be fast
		w.telemetry.append(records(1_000_000, 256*10, 100)...)
		w.business.append(records(0, 256*10, 100)...)
		defer w.start(t)()
		until(t, time.Minute, "both are sent", func() bool { return w.business.pending() == 0 && w.telemetry.pending() == 0 })
		w.hub.mu.Lock()
		defer w.hub.mu.Unlock()
		for i, s := range w.hub.order {
			if want := s == pb.Stream_STREAM_BUSINESS; want != (i < 10) {
				t.Fatalf("order of batches is %v", w.hub.order)
			}
		}
	})
}

func TestDroppedTelemetryLeavesAGapAndGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.telemetry.append(records(0, 300, 100)...)
		w.telemetry.drop(100)
		defer w.start(t)()
		until(t, time.Minute, "the rest is sent", func() bool { _, acked := w.telemetry.Position(); return acked == 300 })
		if n := w.hub.count(); n != 201 {
			t.Fatalf("hub has %d records, want 201", n)
		}
	})
}

func TestRecordsLostInTheMiddleLeaveAGapAndTheOthersKeepTheirNumbers(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.business.append(records(0, 1000, 100)...)
		w.business.lost = func(seq uint64) bool { return seq >= 100 && seq < 140 || seq == 700 }
		w.hub.gaps = true
		defer w.start(t)()
		until(t, time.Minute, "the rest is sent", func() bool { return w.business.pending() == 0 })
		w.hub.mu.Lock()
		defer w.hub.mu.Unlock()
		seen := w.hub.seen[laneName(pb.Stream_STREAM_BUSINESS, "b")]
		if len(seen) != 1000-41 {
			t.Errorf("hub has %d records, want %d", len(seen), 1000-41)
		}
		for seq, body := range seen {
			if want := string(record(int(seq)-1, 100)); body != want {
				t.Fatalf("record %d arrived as %q", seq, body[:16])
			}
		}
	})
}

func TestHubThatAcknowledgesNothingIsCutAndGetsTheSameBytesAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.hub.onBatch = func(<-chan struct{}, *pb.Batch) bool { return w.hub.helloCount() > 1 }
		w.business.append(records(0, 1000, 100)...)
		defer w.start(t)()
		began := time.Now()
		until(t, 2*time.Minute, "the line is down", func() bool { return w.up.Status().Code == "no_acknowledgement" })
		if took := time.Since(began); took < 29*time.Second || took > 35*time.Second {
			t.Fatalf("noticed after %s, want about 30 s", took)
		}
		if _, acked := w.business.Position(); acked != 0 {
			t.Fatalf("acknowledged %d without the hub's word", acked)
		}
		until(t, time.Minute, "all is acknowledged at last", func() bool { return w.business.pending() == 0 })
		if n := w.hub.count(); n != 1000 {
			t.Fatalf("hub has %d records, want 1000", n)
		}
	})
}

func TestHubThatStopsReadingIsCut(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.hub.onBatch = func(stop <-chan struct{}, _ *pb.Batch) bool {
			if w.hub.helloCount() == 1 {
				<-stop // reads nothing more: flow control blocks the agent's sending
			}
			return true
		}
		w.business.append(records(0, 20_000, 300)...)
		defer w.start(t)()
		until(t, 40*time.Second, "the line is down", func() bool { return w.up.Status().Code == "no_acknowledgement" })
		until(t, 2*time.Minute, "all is acknowledged at last", func() bool { return w.business.pending() == 0 })
	})
}

// sink is a connection that can be made to swallow everything and say nothing, like a pulled cable.
type sink struct {
	net.Conn
	dead chan struct{} // closed: swallow
	gone chan struct{}
	once sync.Once
}

func (s *sink) Write(b []byte) (int, error) {
	select {
	case <-s.dead:
		return len(b), nil
	default:
		return s.Conn.Write(b)
	}
}

func (s *sink) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	select {
	case <-s.dead:
		<-s.gone
		return 0, net.ErrClosed
	default:
		return n, err
	}
}

func (s *sink) Close() error {
	s.once.Do(func() { close(s.gone) })
	return s.Conn.Close()
}

func TestIdleLineThatIsDeadIsNoticedByKeepalive(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		dead := make(chan struct{})
		first := true
		w.net.wrap = func(c net.Conn) net.Conn {
			if !first {
				return c
			}
			first = false
			return &sink{Conn: c, dead: dead, gone: make(chan struct{})}
		}
		defer w.start(t)()
		until(t, time.Minute, "connected", func() bool { return w.up.Status().State == "connected" })
		close(dead)
		began := time.Now()
		until(t, 2*time.Minute, "offline", func() bool { return w.up.Status().State == "offline" })
		if took := time.Since(began); took > 45*time.Second {
			t.Fatalf("noticed after %s", took)
		}
		until(t, time.Minute, "connected again", func() bool { return w.up.Status().State == "connected" })
	})
}

func TestHubThatDoesNotAnswerHelloIsGivenUp(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.hub.silent = true
		defer w.start(t)()
		until(t, time.Minute, "given up", func() bool { return w.up.Status().Code == "hub_timeout" })
		if st := w.up.Status(); st.State != "offline" || st.NextTry.IsZero() || st.NextStep == "" {
			t.Fatalf("status is %+v", st)
		}
	})
}

func TestRefusalsSayWhyAndAreAskedAgainSlowly(t *testing.T) {
	for _, c := range []struct {
		code   pb.Refusal_Code
		state  string
		word   string
		atMost int // hellos within a minute
	}{
		{pb.Refusal_CODE_IDENTITY_MISMATCH, "refused", "certificate was made out to another agent", 6},
		{pb.Refusal_CODE_UNKNOWN_AGENT, "refused", "does not know this agent", 6},
		{pb.Refusal_CODE_IDENTITY_IN_USE, "refused", "another running agent", 6},
		{pb.Refusal_CODE_PROTOCOL_VERSION, "refused", "protocol version", 6},
		{pb.Refusal_Code(99), "refused", "refuses this agent", 6},
		{pb.Refusal_CODE_HUB_STORE, "offline", "cannot store", 1000},
	} {
		t.Run(c.code.String(), func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.hub.onHello = func(int, *pb.Hello, *pb.HelloAck) *pb.Refusal {
					return &pb.Refusal{Code: c.code, Reason: "said the hub", NextStep: "do this"}
				}
				defer w.start(t)()
				pause(t.Context(), time.Minute)
				synctest.Wait()
				st := w.up.Status()
				if st.State != c.state || !strings.Contains(st.Reason, c.word) || !strings.Contains(st.Reason, "said the hub") || st.NextStep != "do this" {
					t.Errorf("status is %+v", st)
				}
				if n := w.hub.helloCount(); n > c.atMost || n < 2 {
					t.Errorf("asked %d times within a minute, want 2 to %d", n, c.atMost)
				}
			})
		})
	}
}

func TestDeliveryIsAcknowledgedOnlyAfterItIsStoredAndNeverStopsTheRecords(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		in := &box{block: make(chan struct{})}
		w.deps.Inbox = in
		for i := int64(1); i <= 3; i++ {
			w.hub.deliveries = append(w.hub.deliveries, &pb.Delivery{Seq: i})
		}
		defer w.start(t)()
		w.business.append(records(0, 1000, 100)...)
		until(t, time.Minute, "records go up while the inbox is stuck", func() bool { return w.business.pending() == 0 })
		w.hub.mu.Lock()
		if len(w.hub.downAcks) != 0 {
			t.Errorf("acknowledged %v before it was stored", w.hub.downAcks)
		}
		w.hub.mu.Unlock()
		close(in.block)
		until(t, time.Minute, "deliveries are acknowledged", func() bool {
			w.hub.mu.Lock()
			defer w.hub.mu.Unlock()
			return len(w.hub.downAcks) > 0 && w.hub.downAcks[len(w.hub.downAcks)-1] == 3
		})
		if len(in.stored) != 3 {
			t.Errorf("stored %v", in.stored)
		}
	})
}

func TestBacklogDoesNotDelayDeliveries(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		in := &box{}
		w.deps.Inbox = in
		w.hub.deliveries = []*pb.Delivery{{Seq: 1}}
		w.hub.onBatch = func(<-chan struct{}, *pb.Batch) bool { return false } // the window stays full
		w.business.append(records(0, 30_000, 100)...)
		defer w.start(t)()
		until(t, 5*time.Second, "the delivery is stored and acknowledged", func() bool {
			w.hub.mu.Lock()
			defer w.hub.mu.Unlock()
			return len(w.hub.downAcks) == 1
		})
	})
}

func TestInboxThatFailsIsTriedAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		in := &box{fail: errors.New("disk full")}
		w.deps.Inbox = in
		w.hub.deliveries = []*pb.Delivery{{Seq: 1}, {Seq: 2}}
		defer w.start(t)()
		pause(t.Context(), 20*time.Second)
		in.mu.Lock()
		in.fail = nil
		in.mu.Unlock()
		until(t, time.Minute, "stored in the end", func() bool { _, seq := in.Position(); return seq == 2 })
		if n := w.hub.helloCount(); n != 1 {
			t.Errorf("the line was opened %d times, want once", n)
		}
	})
}

func TestMoreDeliveriesThanTheInboxCanHoldAreAskedForAgainInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		in := &box{block: make(chan struct{})}
		w.deps.Inbox = in
		const all = 3 * deliveriesHeld
		for i := int64(1); i <= all; i++ {
			w.hub.deliveries = append(w.hub.deliveries, &pb.Delivery{Seq: i})
		}
		w.hub.pauseAt, w.hub.more = all-100, make(chan struct{})
		defer w.start(t)()
		pause(t.Context(), 10*time.Second) // most has come down, and some of it was let go
		synctest.Wait()
		in.block <- struct{}{} // the first store returns; the next one takes all that is held
		synctest.Wait()
		close(w.hub.more) // what comes now must not be stored: it would be acknowledged for what was let go
		pause(t.Context(), time.Second)
		synctest.Wait()
		close(in.block)
		until(t, time.Minute, "all are stored", func() bool { _, seq := in.Position(); return seq == all })
		for i, seq := range in.stored {
			if seq != int64(i+1) {
				t.Fatalf("delivery %d was stored as number %d", seq, i+1)
			}
		}
	})
}

func TestAgentThatWentBackInTimeTakesTheMarksThenStartsANewGeneration(t *testing.T) {
	for _, c := range []struct {
		name string
		ack  func(*pb.HelloAck)
	}{
		{"the hub says so", func(a *pb.HelloAck) { a.NewGenerationRequired = true }},
		{"the hub holds more than was written", func(a *pb.HelloAck) {
			a.Streams = []*pb.StreamPosition{{Stream: pb.Stream_STREAM_BUSINESS, Generation: "b", AckedSeq: 5000}}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				w.hub.onHello = func(n int, h *pb.Hello, a *pb.HelloAck) *pb.Refusal {
					a.Marks = []*pb.SourceMark{{Source: "press1", CounterTo: "1250"}}
					if n == 1 {
						c.ack(a)
					}
					return nil
				}
				var calls []bool
				w.deps.Marks = func(_ context.Context, marks []*pb.SourceMark, wentBack bool) error {
					if len(marks) != 1 || w.hub.count() > 0 || w.business.Generation() == "b" && len(calls) > 0 {
						t.Errorf("marks %v at the wrong time", marks)
					}
					calls = append(calls, wentBack)
					return nil
				}
				w.business.append(records(0, 300, 100)...)
				defer w.start(t)()
				until(t, time.Minute, "all is acknowledged", func() bool { return w.business.pending() == 0 })
				if len(calls) != 2 || !calls[0] || calls[1] {
					t.Errorf("marks were told with went back = %v, want true, then false", calls)
				}
				w.hub.mu.Lock()
				defer w.hub.mu.Unlock()
				if len(w.hub.seen[laneName(pb.Stream_STREAM_BUSINESS, "b")]) != 0 {
					t.Error("records were sent under the old generation")
				}
				if w.hub.hellos[0].Instance == "" || w.hub.hellos[0].Instance != w.hub.hellos[1].Instance {
					t.Error("the instance must stay the same within one process")
				}
			})
		})
	}
}

func TestMarksThatCannotBeTakenKeepEverythingBack(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.deps.Marks = func(context.Context, []*pb.SourceMark, bool) error { return errors.New("disk full") }
		w.business.append(records(0, 10, 100)...)
		defer w.start(t)()
		until(t, time.Minute, "offline with the reason", func() bool { return w.up.Status().Code == "marks" })
		if w.hub.count() != 0 {
			t.Error("records were sent")
		}
	})
}

func TestHubRestoredFromAnOlderCopyIsReportedAndTheRestGoesOn(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.business.append(records(0, 100, 100)...)
		w.business.acked = 50
		lane := laneName(pb.Stream_STREAM_BUSINESS, "b")
		w.hub.acked[lane], w.hub.seen[lane] = 30, map[uint64]string{}
		var from, to uint64
		w.deps.HubLost = func(_ pb.Stream, _ string, f, l uint64) { from, to = f, l }
		defer w.start(t)()
		until(t, time.Minute, "the rest is acknowledged", func() bool { return w.business.pending() == 0 })
		if from != 30 || to != 50 {
			t.Errorf("reported (%d, %d], want (30, 50]", from, to)
		}
		if w.hub.count() != 50 {
			t.Errorf("hub has %d records, want 50", w.hub.count())
		}
	})
}

func TestGenerationRenewedBelowTheLineSaysHelloAgain(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		defer w.start(t)()
		w.business.append(records(0, 10, 100)...)
		until(t, time.Minute, "sent", func() bool { return w.business.pending() == 0 })
		w.business.NewGeneration()
		w.business.append(records(10, 10, 100)...)
		until(t, time.Minute, "sent under the new generation", func() bool { return w.business.pending() == 0 })
		if w.hub.helloCount() != 2 || w.hub.count() != 20 {
			t.Errorf("%d hellos, %d records", w.hub.helloCount(), w.hub.count())
		}
	})
}

func TestHubThatAcknowledgesWhatWasNeverSentIsNotBelieved(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.hub.onBatch = func(_ <-chan struct{}, b *pb.Batch) bool { b.FirstSeq += 1000; return true }
		w.business.append(records(0, 10, 100)...)
		defer w.start(t)()
		until(t, time.Minute, "cut", func() bool { return w.up.Status().Code == "hub_confused" })
		if _, acked := w.business.Position(); acked != 0 {
			t.Errorf("acknowledged up to %d", acked)
		}
	})
}

func TestStatusIsSentAfterHelloThenWhenItChangedButNotTooOftenThenRegularly(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		changed := make(chan struct{}, 1)
		w.deps.StatusChanged = changed
		w.deps.Status = func() *pb.AgentStatus { return &pb.AgentStatus{State: "ok"} }
		defer w.start(t)()
		sent := func() []time.Time {
			w.hub.mu.Lock()
			defer w.hub.mu.Unlock()
			return append([]time.Time(nil), w.hub.statuses...)
		}
		until(t, time.Second, "the first status", func() bool { return len(sent()) == 1 })
		for range 10 { // a burst within half a second
			changed <- struct{}{}
			pause(t.Context(), 50*time.Millisecond)
		}
		pause(t.Context(), 5*time.Second)
		synctest.Wait()
		if n := len(sent()); n != 2 {
			t.Fatalf("%d statuses after a burst, want 2", n)
		}
		pause(t.Context(), time.Minute)
		synctest.Wait()
		if n := len(sent()); n != 4 {
			t.Fatalf("%d statuses after another minute of calm, want 4", n)
		}
	})
}

func TestOutageKeepsItsBeginningAndPausesStartSmallAfterAHealthyTime(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.cfg.Dial = func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.DNSError{Err: "no such host", Name: "hub.test", IsNotFound: true}
		}
		stop := w.run(t)
		defer stop()
		until(t, time.Minute, "offline", func() bool { return w.up.Status().State == "offline" })
		since := w.up.Status().Since
		pause(t.Context(), 10*time.Minute)
		st := w.up.Status()
		if !st.Since.Equal(since) || st.Code != "dns" || st.Reason != "hub name not found: hub.test" {
			t.Errorf("status is %+v, want the outage's beginning %s", st, since)
		}
	})
}

func TestClockSkewIsMeasuredAtHello(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		w.hub.onHello = func(_ int, _ *pb.Hello, a *pb.HelloAck) *pb.Refusal {
			a.HubTime.Seconds += 41 * 60
			return nil
		}
		defer w.start(t)()
		until(t, time.Minute, "connected", func() bool { return w.up.Status().State == "connected" })
		if skew, ok := w.up.ClockSkew(); !ok || skew.Round(time.Second) != -41*time.Minute {
			t.Errorf("skew is %s, want -41m", skew)
		}
	})
}

func TestEndOfContextIsHeededAtOnceInEveryState(t *testing.T) {
	for name, prepare := range map[string]func(w *world){
		"connected and idle": func(*world) {},
		"hub silent":         func(w *world) { w.hub.silent = true },
		"hub reads nothing":  func(w *world) { w.hub.onBatch = func(stop <-chan struct{}, _ *pb.Batch) bool { <-stop; return false } },
		"network does not dial": func(w *world) {
			w.cfg.Dial = func(ctx context.Context, _, _ string) (net.Conn, error) { <-ctx.Done(); return nil, ctx.Err() }
		},
		"pausing": func(w *world) {
			w.hub.onHello = func(int, *pb.Hello, *pb.HelloAck) *pb.Refusal {
				return &pb.Refusal{Code: pb.Refusal_CODE_UNKNOWN_AGENT}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, w *world) {
				prepare(w)
				w.business.append(records(0, 50_000, 300)...)
				stopHub := w.hub.serve(w.net, w.auth.server("hub.test", -hour, day))
				defer stopHub()
				stop := w.run(t)
				pause(t.Context(), 5*time.Second)
				began := time.Now()
				stop()
				if took := time.Since(began); took > time.Second {
					t.Errorf("stopping took %s", took)
				}
			})
		})
	}
}

func TestPausesAreDrawnFromZeroToADoublingLimit(t *testing.T) {
	c := Config{Address: "h:1"}
	c.setDefaults()
	for _, refused := range []bool{false, true} {
		var longest time.Duration
		for range 200 {
			var b backoff
			now := time.Unix(0, 0)
			for try := range 60 {
				d := b.next(now, refused, c)
				limit := c.BackoffMax
				if refused {
					limit = c.RefusedMax
				} else if now.Sub(time.Unix(0, 0)) < c.BackoffSoonFor {
					limit = c.BackoffSoon
				}
				if d < 0 || d > limit || !refused && try < 5 && d > c.BackoffMin<<try {
					t.Fatalf("try %d: pause %s (refused %v)", try, d, refused)
				}
				if refused && d < c.RefusedMin/2 {
					t.Fatalf("pause %s after a refusal", d)
				}
				longest = max(longest, d)
				now = now.Add(d)
			}
		}
		if longest < 20*time.Second {
			t.Errorf("longest of 12,000 pauses is %s", longest)
		}
	}
}

func TestHubThatIsBackWithinHalfAMinuteIsFoundWithinTwoSeconds(t *testing.T) {
	for _, outage := range []time.Duration{time.Second, 5 * time.Second, 15 * time.Second, 29 * time.Second} {
		bubble(t, func(t *testing.T, w *world) {
			conf := w.auth.server("hub.test", -hour, day)
			var there atomic.Pointer[pipes] // nil while the hub is down
			there.Store(w.net)
			w.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
				if n := there.Load(); n != nil {
					return n.Dial(ctx, network, address)
				}
				return nil, &net.OpError{Op: "dial", Err: errors.New("connection refused")}
			}
			stopHub := w.hub.serve(w.net, conf)
			stop := w.run(t)
			until(t, time.Minute, "connected", func() bool { return w.up.Status().State == "connected" })
			there.Store(nil)
			stopHub()
			pause(t.Context(), outage)
			again := newPipes()
			stopHub = w.hub.serve(again, conf)
			there.Store(again)
			back := time.Now()
			until(t, 2100*time.Millisecond, "connected again", func() bool { return w.up.Status().State == "connected" })
			t.Logf("outage of %s, found %s after it", outage, time.Since(back))
			stop()
			stopHub()
		})
	}
}

func TestHubThatIsBusySaysWhenAndIsAskedThen(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var at []time.Time
		w.hub.onHello = func(n int, _ *pb.Hello, _ *pb.HelloAck) *pb.Refusal {
			at = append(at, time.Now())
			if n > 3 {
				return nil
			}
			return &pb.Refusal{Code: pb.Refusal_CODE_BUSY, RetryAfter: durationpb.New(40 * time.Second)}
		}
		defer w.start(t)()
		until(t, 30*time.Second, "offline, not refused", func() bool { st := w.up.Status(); return st.State == "offline" && st.Code == "hub_busy" })
		until(t, 5*time.Minute, "connected", func() bool { return w.up.Status().State == "connected" })
		for i := 1; i < len(at); i++ {
			if gap := at[i].Sub(at[i-1]); gap < 40*time.Second || gap > 43*time.Second {
				t.Errorf("asked again after %s, want a little more than 40 s", gap)
			}
		}
	})
}
