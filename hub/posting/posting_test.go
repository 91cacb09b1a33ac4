package posting

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"
)

var seedFlag = flag.Uint64("seed", 0, "seed of the random run; 0 draws one")

// world is a store, an outside system and an engine that can die. Use it inside a synctest bubble.
type world struct {
	t       *testing.T
	path    string
	s       *store.Store
	erp     *modelERP
	e       *Engine
	opts    Options
	crash   func(step string) error
	agent   store.Agent
	seq     uint64
	cancel  context.CancelFunc
	running chan error
}

// simulate runs a test in a bubble of its own time.
func simulate(t *testing.T, f func(t *testing.T, w *world)) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := &world{t: t, path: filepath.Join(dir, "hub.db"), crash: func(string) error { return nil }}
		w.erp = newModel(1, time.Now)
		w.opts = Options{Connectors: map[string]connector.Connector{"erp": w.erp}}
		w.open()
		defer func() { // a failed test must leave no goroutine in the bubble
			w.stop()
			if err := w.s.Close(); err != nil {
				t.Error(err)
			}
			for _, fault := range w.erp.faults {
				t.Error(fault)
			}
		}()
		f(t, w)
	})
}

func (w *world) open() {
	w.t.Helper()
	s, err := store.Open(context.Background(), w.path, store.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	w.s = s
	w.update(func(tx *store.Tx) (err error) {
		w.agent, err = tx.AgentByName("ulm", "edge1")
		return err
	})
}

func (w *world) update(f func(tx *store.Tx) error) {
	w.t.Helper()
	if err := w.s.Update(context.Background(), f); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) order(no string) {
	w.t.Helper()
	w.put(store.Order{Agent: "edge1", Order: object.WorkOrder{OrderNo: no, ERP: "erp", Plant: "ulm", Revision: 1, State: object.OrderReleased}})
}

func (w *world) put(o store.Order) {
	w.t.Helper()
	o.Content = []byte("content")
	w.update(func(tx *store.Tx) error { return tx.PutOrder(o, true) })
}

func (w *world) start() {
	w.opts.Store = w.s
	w.e = New(w.opts)
	w.e.crash = w.crash
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	w.running = make(chan error, 1)
	e, running := w.e, w.running
	go func() { running <- e.Run(ctx) }()
}

func (w *world) stop() error {
	if w.cancel == nil {
		return nil
	}
	w.cancel()
	err := <-w.running
	w.cancel = nil
	return err
}

// pass lets the world go on for a while.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	time.Sleep(d) // fake time
	synctest.Wait()
}

func (w *world) deliver(facts ...object.Fact) {
	w.t.Helper()
	b := store.Batch{AgentID: w.agent.ID, Agent: w.agent.Name(), Generation: "g", FirstSeq: w.seq + 1}
	for _, f := range facts {
		body, err := wire.EncodeFact(f)
		if err != nil {
			w.t.Fatal(err)
		}
		b.Records = append(b.Records, store.Record{Key: f.Key, Body: body})
	}
	w.seq += uint64(len(facts))
	if _, err := w.s.AppendFacts(context.Background(), []store.Batch{b}); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) posting(f object.Fact) store.Posting {
	w.t.Helper()
	stored, err := w.s.FactByKey(context.Background(), f.Key.String())
	if err != nil {
		w.t.Fatal(err)
	}
	if stored.Posting == nil {
		w.t.Fatalf("fact %q is not planned", f.Position)
	}
	return *stored.Posting
}

func (w *world) want(f object.Fact, state store.PostingState, code string) store.Posting {
	w.t.Helper()
	p := w.posting(f)
	if p.State != state || p.Code != code {
		_, life, _ := w.s.Life(context.Background(), f.Key.String())
		w.t.Fatalf("fact %q is %s %q (%s), want %s %q\n%+v", f.Position, p.State, p.Code, p.Reason, state, code, life)
	}
	return p
}

func (w *world) counts() string {
	w.t.Helper()
	counts, err := w.s.PostingCounts(context.Background())
	if err != nil {
		w.t.Fatal(err)
	}
	var parts []string
	for _, c := range counts {
		parts = append(parts, strings.TrimSpace(fmt.Sprintf("%d %s %s", c.Count, c.State, c.Code)))
	}
	return strings.Join(parts, ", ")
}

func (w *world) receipts() (outcomes []string) {
	w.t.Helper()
	all, err := w.s.DeliveriesAfter(context.Background(), w.agent.ID, 0, 1000)
	if err != nil {
		w.t.Fatal(err)
	}
	for _, d := range all {
		var r pb.Receipt
		if err := proto.Unmarshal(d.Body, &r); err != nil {
			w.t.Fatal(err)
		}
		outcomes = append(outcomes, strings.TrimPrefix(r.GetOutcome().String(), "OUTCOME_"))
	}
	return outcomes
}

var berlin = func() *time.Location {
	z, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		panic(err)
	}
	return z
}()

func base(kind object.Kind, parts ...string) object.Fact {
	position := factkey.Position(parts...)
	return object.Fact{
		Key: factkey.Of(position), Kind: kind, Plant: "ulm", Source: "press1", TimeZone: "Europe/Berlin", Position: position,
		OccurredAt: time.Date(1999, 12, 31, 23, 30, 0, 0, berlin), RecordedAt: time.Date(1999, 12, 31, 23, 31, 0, 0, berlin),
	}
}

func confirm(order string, n int, yield string) object.Fact {
	f := base(object.KindConfirmation, "confirmation", order, fmt.Sprintf("%06d", n))
	f.Confirmation = &object.Confirmation{OrderNo: order, Operation: "0010", Item: "P", Unit: "C62", Yield: decimal.RequireFromString(yield)}
	return f
}

func counted(order, from, to string) object.Fact {
	f := base(object.KindConfirmation, "counter", order, to)
	d := decimal.RequireFromString
	f.Confirmation = &object.Confirmation{
		OrderNo: order, Operation: "0010", Item: "P", Unit: "C62", Yield: d(to).Sub(d(from)),
		CounterRange: &object.CounterRange{Tag: "good", Epoch: "e1", From: d(from), To: d(to)},
	}
	return f
}

func metered(order, from, to string) object.Fact {
	f := base(object.KindConsumption, "meter", order, to)
	d := decimal.RequireFromString
	f.Consumption = &object.Consumption{
		OrderNo: order, Operation: "0010", Item: "OIL", Movement: object.Issue, Quantity: object.Quantity{Value: d(to).Sub(d(from)), Unit: "LTR"},
		CounterRange: &object.CounterRange{Tag: "flow", Epoch: "e1", From: d(from), To: d(to)},
	}
	return f
}

func state(order string, s object.FloorState) object.Fact {
	f := base(object.KindOrderState, "state", order, string(s))
	f.OrderState = &object.ShopFloorState{OrderNo: order, Revision: 1, State: s}
	return f
}

func TestFactIsPostedVerifiedAndReceipted(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.start()
		f := confirm("WO-1", 1, "5")
		w.deliver(f)
		w.pass(time.Minute)
		p := w.want(f, store.PostingVerified, "")
		if p.Document != "D1" || p.Attempt != 1 {
			t.Fatalf("posting %+v", p)
		}
		if got := fmt.Sprint(w.receipts()); got != "[POSTED VERIFIED]" {
			t.Fatalf("receipts %s", got)
		}
		_, life, err := w.s.Life(context.Background(), f.Key.String())
		var steps []string
		for _, l := range life {
			steps = append(steps, l.Step)
		}
		if want := "occurred recorded received planned due sending posted verified"; err != nil || strings.Join(steps, " ") != want {
			t.Fatalf("life %v, %v; want %s", steps, err, want)
		}
		if d := postingDate(f); d.Format("2006-01-02") != "1999-12-31" {
			t.Fatalf("posting date %v", d)
		}
	})
}

func TestHubThatDiesAtAnyStepPostsOnce(t *testing.T) {
	for _, step := range []string{
		"plan", "planned", "asking", "prepared", "storing sending", "saved sending", "sending", "posted", "storing posted", "saved posted",
		"reading back", "read back", "storing verified", "saved verified",
	} {
		for i := range 4 {
			lost, single := i%2 == 1, i >= 2
			t.Run(fmt.Sprintf("%s, reply lost %v, read back one by one %v", step, lost, single), func(t *testing.T) {
				simulate(t, func(t *testing.T, w *world) {
					if single {
						w.opts.Connectors["erp"] = oneByOne{w.erp}
					}
					dead := false
					w.crash = func(s string) error {
						if dead || s == step {
							dead = true
							return errDies
						}
						return nil
					}
					if lost {
						w.erp.set(trouble{lostReply: 100})
					}
					w.order("WO-1")
					w.deliver(confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7"))
					w.start()
					w.pass(time.Hour)
					if !dead {
						t.Fatalf("step %q never came", step)
					}
					if err := w.stop(); err == nil {
						t.Fatal("the engine did not notice its death")
					}
					w.crash = func(string) error { return nil }
					w.s.Close()
					w.open()
					w.start()
					w.pass(time.Hour)
					w.want(confirm("WO-1", 1, "5"), store.PostingVerified, "")
					w.want(confirm("WO-1", 2, "7"), store.PostingVerified, "")
					if sum := w.erp.yield("WO-1"); sum.String() != "12" {
						t.Fatalf("the outside system holds %s, want 12", sum)
					}
				})
			})
		}
	}
}

func TestStoreThatFailsForAMomentIsSurvivedWithoutADouble(t *testing.T) {
	for _, step := range []string{"plan", "sending", "posted", "saved posted"} {
		t.Run(step, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				failed := false
				w.crash = func(s string) error {
					if s == step && !failed {
						failed = true
						return errors.New("disk is full")
					}
					return nil
				}
				w.order("WO-1")
				w.deliver(confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7"))
				w.start()
				w.pass(time.Hour)
				w.want(confirm("WO-1", 1, "5"), store.PostingVerified, "")
				w.want(confirm("WO-1", 2, "7"), store.PostingVerified, "")
				if !failed {
					t.Fatalf("step %q never came", step)
				}
			})
		})
	}
}

func TestStoredFactThatCannotBeReadStopsNoOther(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		b := store.Batch{AgentID: w.agent.ID, Agent: w.agent.Name(), Generation: "g", FirstSeq: 1, Records: []store.Record{{Key: factkey.Of("x"), Body: []byte{0xff}}}}
		if _, err := w.s.AppendFacts(context.Background(), []store.Batch{b}); err != nil {
			t.Fatal(err)
		}
		w.seq = 1
		w.start()
		f := confirm("WO-1", 1, "5")
		w.deliver(f)
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		alarms, err := w.s.Alarms(context.Background(), false, store.Page{})
		if err != nil || len(alarms) != 1 || alarms[0].Code != "stored_fact_unreadable" {
			t.Fatalf("alarms %+v, %v", alarms, err)
		}
	})
}

func TestRejectedFactIsParkedItsNeighboursGoOnAndReplayPostsIt(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		bad, good := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
		w.erp.set(trouble{reject: map[string]bool{bad.Key.String(): true}})
		w.start()
		w.deliver(bad, good)
		w.pass(time.Minute)
		p := w.want(bad, store.PostingParked, "period_closed")
		if p.Class != "correctable" || p.Reason == "" || p.NextStep == "" {
			t.Fatalf("parked without words: %+v", p)
		}
		w.want(good, store.PostingVerified, "")
		if n := w.erp.called("post"); n != 2 {
			t.Fatalf("%d posts, want 2: a rejection is not repeated by itself", n)
		}
		w.erp.set(trouble{})
		n, err := w.e.Replay(context.Background(), store.PostingFilter{Code: "period_closed"}, "anna")
		if err != nil || n != 1 {
			t.Fatalf("replayed %d, %v", n, err)
		}
		w.pass(time.Minute)
		w.want(bad, store.PostingVerified, "")
		if err := w.e.ReplayFact(context.Background(), bad.Key.String(), "anna"); !errors.Is(err, ErrNotParked) {
			t.Fatalf("replay of a verified fact: %v", err)
		}
	})
}

func TestInDoubtBlocksItsOrderAndNoOther(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.order("WO-2")
		w.start()
		w.erp.set(trouble{lostRequest: 100})
		doubtful := confirm("WO-1", 1, "5")
		w.deliver(doubtful)
		w.pass(time.Second)
		w.want(doubtful, store.PostingInDoubt, "")
		w.erp.set(trouble{})
		next, other := confirm("WO-1", 2, "5"), confirm("WO-2", 1, "5")
		w.deliver(next, other)
		w.pass(30 * time.Second)
		w.want(doubtful, store.PostingInDoubt, "")
		w.want(next, store.PostingDue, "")
		w.want(other, store.PostingVerified, "")
		w.pass(time.Hour)
		w.want(doubtful, store.PostingVerified, "")
		w.want(next, store.PostingVerified, "")
	})
}

func TestRetryableIsTriedAgainAndParkedInTheEnd(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.erp.set(trouble{retry: 100})
		w.start()
		f := confirm("WO-1", 1, "5")
		w.deliver(f)
		w.pass(time.Hour)
		if p := w.want(f, store.PostingDue, "locked"); p.Attempt < 5 || p.Reason == "" {
			t.Fatalf("after an hour: %+v", p)
		}
		w.pass(24 * time.Hour)
		w.want(f, store.PostingParked, "locked")
		if got := fmt.Sprint(w.receipts()); got != "[REJECTED]" {
			t.Fatalf("receipts %s", got)
		}
	})
}

func TestSystemThatIsDownIsLeftInPeaceAndCaughtUpWith(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		var facts []object.Fact
		for n := range 40 {
			no := fmt.Sprintf("WO-%d", n)
			w.order(no)
			facts = append(facts, confirm(no, 1, "1"))
		}
		w.erp.set(trouble{down: 100})
		w.start()
		w.deliver(facts...)
		w.pass(time.Hour)
		if n := w.erp.called("prepare"); n > 400 { // more than twice as many without the pauses
			t.Fatalf("%d calls of a dead system in an hour", n)
		}
		if h := w.e.Health()["erp"]; h.OK || h.Reason == "" || h.PausedUntil.IsZero() {
			t.Fatalf("health %+v", h)
		}
		w.erp.set(trouble{})
		w.pass(15 * time.Minute)
		if got := w.counts(); got != "40 verified" {
			t.Fatalf("after the system is back: %s", got)
		}
	})
}

// throttled is a system that takes one call in a minute.
type throttled struct {
	*modelERP
	next time.Time
}

func (x *throttled) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if wait := x.next.Sub(x.now()); wait > 0 {
		x.calls["refused"]++
		return nil, &connector.Outcome{Result: connector.Rejected, Class: connector.Retryable, Code: "429", Reason: "too many requests", RetryAfter: wait}, nil
	}
	x.next = x.now().Add(time.Minute)
	return []byte("intent of " + p.Fact.Key.String()), nil, nil
}

func TestSystemThatAsksForARestIsLeftInPeaceByAllOrders(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		x := &throttled{modelERP: w.erp}
		w.opts.Connectors["erp"] = x
		var facts []object.Fact
		for n := range 20 {
			no := fmt.Sprintf("WO-%d", n)
			w.order(no)
			facts = append(facts, confirm(no, 1, "1"))
		}
		w.start()
		w.deliver(facts...)
		w.pass(10 * time.Second)
		if h := w.e.Health()["erp"]; !h.OK || h.PausedUntil.IsZero() {
			t.Errorf("health %+v, want well and paused", h)
		}
		w.pass(10 * time.Minute)
		w.erp.mu.Lock()
		refused := w.erp.calls["refused"]
		w.erp.mu.Unlock()
		if refused > 60 { // a few workers run into each minute's end
			t.Errorf("%d calls in ten minutes although the system asked for a rest", refused)
		}
		w.pass(2 * time.Hour)
		if got := w.counts(); got != "20 verified" {
			t.Errorf("in the end: %s", got)
		}
	})
}

func TestFinishWaitsForEverythingElseOfTheOrderAndSaysSo(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		started, bad, finished, late := state("WO-1", object.FloorStarted), confirm("WO-1", 1, "5"), state("WO-1", object.FloorFinished), confirm("WO-1", 2, "2")
		w.erp.set(trouble{reject: map[string]bool{bad.Key.String(): true}})
		w.start()
		w.deliver(started, bad, finished, late)
		w.pass(10 * time.Minute)
		w.want(started, store.PostingVerified, "")
		w.want(late, store.PostingVerified, "")
		p := w.want(finished, store.PostingDue, CodeWaitsForOthers)
		if !strings.Contains(p.Reason, bad.Key.String()) || !strings.Contains(p.Reason, "period is closed") {
			t.Fatalf("reason %q does not name what it waits for", p.Reason)
		}
		if err := w.e.Accept(context.Background(), bad.Key.String(), "4711", "booked by hand", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(10 * time.Minute)
		w.want(finished, store.PostingVerified, "")
		w.want(bad, store.PostingSettled, CodeAccepted)
		made := w.erp.madeOn("WO-1")
		if made[len(made)-1] != finished.Position {
			t.Fatalf("the order was finished before its last posting: %v", made)
		}
		_, _, steps, err := w.s.OrderTimeline(context.Background(), "", "WO-1")
		if err != nil || steps[len(steps)-1].Step != "posted FINISHED" {
			t.Fatalf("timeline %+v, %v", steps, err)
		}
	})
}

func TestUnknownOrderIsAskedForOnceAndReleasedWhenItAppears(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		asked := []string{}
		w.opts.FetchOrder = func(_ context.Context, no string) error {
			asked = append(asked, no)
			if len(asked) == 1 {
				return errors.New("connection refused")
			}
			time.Sleep(30 * time.Second) // the engine must rest meanwhile: if it turned round and round, no time would pass here
			return nil
		}
		w.start()
		f, g := confirm("WO-9", 1, "5"), confirm("WO-9", 2, "6")
		w.deliver(f, g)
		w.pass(time.Hour)
		w.want(f, store.PostingParked, CodeUnknownOrder)
		if fmt.Sprint(asked) != "[WO-9 WO-9]" {
			t.Fatalf("asked for %v, want a second time after the failure and no more", asked)
		}
		w.put(store.Order{Unroutable: "no route for site 7", Order: object.WorkOrder{OrderNo: "WO-9", ERP: "erp", Revision: 1}})
		w.pass(time.Minute)
		if p := w.want(f, store.PostingParked, CodeOrderWithoutPlant); !strings.Contains(p.Reason, "no route for site 7") {
			t.Fatalf("reason %q", p.Reason)
		}
		w.order("WO-9")
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		w.want(g, store.PostingVerified, "")
	})
}

func TestWhatCannotBePostedSaysWhy(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.put(store.Order{Order: object.WorkOrder{OrderNo: "WO-L", ERP: "erp", Plant: "lyon", Revision: 1}})
		w.put(store.Order{Order: object.WorkOrder{OrderNo: "WO-X", ERP: "elsewhere", Plant: "ulm", Revision: 1}})
		reversal, noOrder := confirm("WO-1", 4, "1"), confirm("", 5, "1")
		reversal.Reverses = confirm("WO-1", 7, "5").Key
		quality := base(object.KindQuality, "quality")
		quality.Quality = &object.Quality{OrderNo: "WO-1", Status: "ok"}
		exception := base(object.KindException, "exception")
		exception.Exception = &object.Exception{Code: "bad_json", Item: "topic", Reason: "not JSON"}
		cases := []struct {
			fact  object.Fact
			state store.PostingState
			code  string
		}{
			{confirm("WO-1", 1, "-5"), store.PostingParked, CodeNegative},
			{confirm("WO-1", 2, "0"), store.PostingNotPosted, CodeZero},
			{state("WO-1", object.FloorDelivered), store.PostingNotPosted, CodePolicy},
			{quality, store.PostingNotPosted, CodePolicy},
			{confirm("WO-L", 1, "1"), store.PostingParked, CodeWrongPlant},
			{confirm("WO-X", 1, "1"), store.PostingParked, CodeNoConnector},
			{reversal, store.PostingParked, CodeWaitsForOriginal},
			{noOrder, store.PostingParked, CodeNoOrder},
		}
		w.start()
		w.deliver(exception)
		for _, c := range cases {
			w.deliver(c.fact)
		}
		w.pass(time.Minute)
		for _, c := range cases {
			if p := w.want(c.fact, c.state, c.code); p.Reason == "" {
				t.Errorf("%q has no reason", c.code)
			}
		}
		if n := w.erp.called("prepare"); n != 0 {
			t.Errorf("the outside system was asked %d times", n)
		}
		list, err := w.s.Exceptions(context.Background(), store.ExceptionFilter{Plant: "ulm"}, store.Page{})
		if err != nil || len(list) != 1 || list[0].Code != "bad_json" {
			t.Errorf("exceptions %+v, %v", list, err)
		}
	})
}

func TestOverlappingCounterRangesCountOnce(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.start()
		first, gap := counted("WO-1", "0", "100"), counted("WO-1", "150", "200")
		inside, over, fill := counted("WO-1", "40", "90"), counted("WO-1", "180", "230"), counted("WO-1", "100", "150")
		uneven := counted("WO-1", "220", "233")
		uneven.Confirmation.Yield = decimal.RequireFromString("10")
		w.deliver(first, gap, inside, over, fill, uneven)
		w.pass(time.Minute)
		w.want(inside, store.PostingNotPosted, CodeRangeKnown)
		w.want(over, store.PostingVerified, "")
		w.want(fill, store.PostingVerified, "")
		w.want(uneven, store.PostingParked, CodeRangeOverlap)
		if sum := w.erp.yield("WO-1"); sum.String() != "230" {
			t.Fatalf("the outside system holds %s, the counter stands at 230", sum)
		}
		marks, err := w.s.Marks(context.Background(), w.agent.ID)
		if err != nil || len(marks) != 1 || marks[0].CounterTo != "233" {
			t.Fatalf("marks %+v, %v", marks, err)
		}
	})
}

func TestHubWithoutOutsideSystemKeepsFactsUntilOneIsConfigured(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Connectors = nil
		w.start()
		f, noOrder := confirm("WO-1", 1, "5"), confirm("", 2, "1")
		w.deliver(f, noOrder)
		w.pass(time.Minute)
		w.want(f, store.PostingParked, CodeNoConnector)
		w.want(noOrder, store.PostingNotPosted, CodePolicy)
		w.stop()
		w.opts.Connectors = map[string]connector.Connector{"erp": w.erp}
		w.start()
		w.pass(time.Minute)
		w.want(f, store.PostingParked, CodeUnknownOrder)
		w.order("WO-1")
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
	})
}

func TestKindThatNoSystemTakesDoesNotWaitForItsOrder(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		f := base(object.KindQuality, "quality", "WO-1", "1")
		f.Quality = &object.Quality{OrderNo: "WO-1", Lot: "L", Status: "OK"}
		w.deliver(f)
		w.pass(time.Minute)
		w.want(f, store.PostingNotPosted, CodePolicy)
		if got := fmt.Sprint(w.receipts()); got != "[NOT_POSTED]" {
			t.Errorf("receipts %s", got)
		}
	})
}

func TestManyPostingsWaitForManyOrders(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		var facts []object.Fact
		for n := range planAtOnce + 50 {
			facts = append(facts, confirm(fmt.Sprintf("WO-%d", n%70), n, "1"))
		}
		w.deliver(facts...)
		w.pass(time.Second)
		if got, want := w.counts(), fmt.Sprintf("%d parked unknown_order", len(facts)); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
		for n := range 70 {
			w.order(fmt.Sprintf("WO-%d", n))
		}
		w.pass(time.Minute)
		if got, want := w.counts(), fmt.Sprintf("%d verified", len(facts)); got != want {
			t.Fatalf("%s, want %s", got, want)
		}
	})
}

func TestOverlappingMeterRangesAreConsumedOnce(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.start()
		first, inside, over := metered("WO-1", "0", "10.5"), metered("WO-1", "2", "10"), metered("WO-1", "10", "12.5")
		uneven := metered("WO-1", "12", "15")
		uneven.Consumption.Quantity.Value = decimal.RequireFromString("1")
		w.deliver(first, inside, over, uneven, counted("WO-1", "0", "7"))
		w.pass(time.Minute)
		w.want(first, store.PostingVerified, "")
		w.want(inside, store.PostingNotPosted, CodeRangeKnown)
		w.want(over, store.PostingVerified, "")
		w.want(uneven, store.PostingParked, CodeRangeOverlap)
		if sum := w.erp.consumed("WO-1"); sum.String() != "12.5" {
			t.Fatalf("the outside system holds %s, the meter stood at 12.5", sum)
		}
		_, lines, err := w.s.TallyInput(context.Background(), store.TallyFilter{OrderNo: "WO-1"})
		if err != nil {
			t.Fatal(err)
		}
		var received decimal.Decimal
		for _, l := range lines {
			if l.Kind == object.Consumed && l.FactKey != uneven.Key.String() {
				received = received.Add(l.Received)
			}
		}
		if received.String() != "12.5" {
			t.Errorf("the ledger received %s, want 12.5", received)
		}
		marks, err := w.s.Marks(context.Background(), w.agent.ID)
		if err != nil || len(marks) != 2 || marks[0].Tag != "flow" || marks[0].CounterTo != "15" || marks[1].CounterTo != "7" {
			t.Fatalf("marks %+v, %v", marks, err)
		}
	})
}

func TestRoundingCarriesTheRestToTheNextPosting(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.scale = 1
		w.order("WO-1")
		w.start()
		var facts []object.Fact
		for n := range 30 {
			facts = append(facts, confirm("WO-1", n, "0.33"))
		}
		tiny := confirm("WO-1", 99, "0.01")
		w.deliver(append(facts, tiny)...)
		w.pass(time.Minute)
		if sum := w.erp.yield("WO-1"); sum.String() != "9.9" { // 30 times 0.33, and 0.01
			t.Fatalf("the outside system holds %s, want 9.9", sum)
		}
		w.want(tiny, store.PostingNotPosted, CodeBelowScale)
	})
}

func TestNobodyCanTellIsDecidedByAPerson(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		made, not, next := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7"), confirm("WO-1", 3, "1")
		dark := map[string]bool{made.Key.String(): true, not.Key.String(): true}
		w.start()
		w.erp.set(trouble{dark: dark, lostReply: 100})
		w.deliver(made)
		w.pass(time.Minute)
		w.erp.set(trouble{dark: dark, lostRequest: 100})
		w.deliver(not)
		w.pass(time.Minute)
		w.erp.set(trouble{dark: dark})
		w.deliver(next)
		w.pass(time.Hour)
		w.want(made, store.PostingParked, CodeCannotTell)
		w.want(not, store.PostingParked, CodeCannotTell)
		w.want(next, store.PostingVerified, "")
		if err := w.e.ReplayFact(context.Background(), made.Key.String(), "anna"); err != nil { // a replay only looks again
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(made, store.PostingParked, CodeCannotTell)
		if err := w.e.Accept(context.Background(), made.Key.String(), "D1", "seen in the system", "anna"); err != nil {
			t.Fatal(err)
		}
		if err := w.e.PostAgain(context.Background(), not.Key.String(), "not in the system", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		w.want(made, store.PostingSettled, CodeAccepted)
		w.want(not, store.PostingVerified, "")
		if sum := w.erp.yield("WO-1"); sum.String() != "13" {
			t.Fatalf("the outside system holds %s, want 13", sum)
		}
	})
}

func TestEffectThatDiffersIsParkedAndComparedAgain(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.start()
		f := confirm("WO-1", 1, "5")
		w.deliver(f)
		w.pass(500 * time.Millisecond) // posted, and verified only after the settle time
		w.erp.mu.Lock()
		right := w.erp.effects[f.Key.String()]
		wrong := right
		wrong.fact.Confirmation = &object.Confirmation{OrderNo: "WO-1", Yield: decimal.NewFromInt(4)}
		w.erp.effects[f.Key.String()] = wrong
		w.erp.mu.Unlock()
		w.pass(time.Minute)
		if p := w.want(f, store.PostingParked, CodeDiffers); p.Document != "D1" || p.Class != ClassMismatch {
			t.Fatalf("posting %+v", p)
		}
		w.erp.mu.Lock()
		w.erp.effects[f.Key.String()] = right
		w.erp.mu.Unlock()
		if err := w.e.ReplayFact(context.Background(), f.Key.String(), "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		if n := w.erp.called("post"); n != 1 {
			t.Fatalf("%d posts, want 1", n)
		}
	})
}

// TestRandomTroubleAndCrashesLoseAndDoubleNothing runs orders through a system that loses replies and requests, delays
// effects, refuses and cannot tell, and a hub that dies at random steps. In the end persons decide what is left to them, and
// both sides must hold the same.
func TestRandomTroubleAndCrashesLoseAndDoubleNothing(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (run again with -seed %d)", seed, seed)
	simulate(t, func(t *testing.T, w *world) {
		rng := rand.New(rand.NewPCG(seed, 2))
		w.erp = newModel(seed, time.Now)
		w.opts.Connectors["erp"] = w.erp
		if seed%4 == 0 {
			w.opts.Connectors["erp"] = oneByOne{w.erp}
		}
		w.opts.Poll = 20 * time.Minute // days pass in this test
		bad := trouble{down: 5, lostReply: 10, lostRequest: 8, delayed: 8, retry: 8, early: 3, unreadable: 10, alone: 10, reject: map[string]bool{}, dark: map[string]bool{}}
		want := map[string]decimal.Decimal{}
		var facts []object.Fact
		const orders, each = 8, 12
		for o := range orders {
			no := fmt.Sprintf("WO-%d", o)
			facts = append(facts, state(no, object.FloorStarted))
			for n := range each {
				f := confirm(no, n, fmt.Sprintf("%d.%03d", rng.IntN(50)+1, rng.IntN(1000)))
				want[no] = want[no].Add(f.Confirmation.Yield)
				if rng.IntN(15) == 0 {
					bad.reject[f.Key.String()] = true
				}
				if rng.IntN(15) == 0 {
					bad.dark[f.Key.String()] = true
				}
				facts = append(facts, f)
			}
			facts = append(facts, state(no, object.FloorFinished))
		}
		w.erp.set(bad)
		crashes := 0
		w.start()
		for i, round := 0, 0; i < len(facts) || round < 40; round++ {
			if i < len(facts) {
				n := min(rng.IntN(12)+1, len(facts)-i)
				w.deliver(facts[i : i+n]...)
				i += n
			}
			if round < orders {
				w.order(fmt.Sprintf("WO-%d", round)) // some facts come before their order
			}
			w.pass(time.Duration(rng.IntN(60)) * time.Second)
			if rng.IntN(2) == 0 {
				w.die(rng)
				crashes++
			}
		}
		w.pass(48 * time.Hour)
		w.settleByHand()
		w.pass(48 * time.Hour)
		if got, n := w.counts(), len(facts); !strings.Contains(got, "verified") || strings.Contains(got, "parked") || strings.Contains(got, "due") || strings.Contains(got, "doubt") {
			t.Errorf("of %d facts: %s", n, got)
		}
		for no, sum := range want {
			if got := w.erp.yield(no); !got.Equal(sum) {
				t.Errorf("order %s: the outside system holds %s, the plant made %s", no, got, sum)
			}
			if made := w.erp.madeOn(no); made[len(made)-1] != state(no, object.FloorFinished).Position {
				t.Errorf("order %s was finished before its last posting", no)
			}
		}
		t.Logf("%d facts, %d crashes, calls %v", len(facts), crashes, w.erp.calls)
	})
}

// die lets the hub die at one of its next steps, and starts it again on the same file.
func (w *world) die(rng *rand.Rand) {
	left := rng.IntN(6)
	w.stop()
	var mu sync.Mutex
	w.crash = func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if left--; left < 0 {
			return errDies
		}
		return nil
	}
	w.start()
	w.pass(time.Duration(rng.IntN(30)) * time.Second)
	w.stop()
	w.crash = func(string) error { return nil }
	w.s.Close()
	w.open()
	w.start()
}

// settleByHand is the person: what was refused is mended and replayed, what nobody could tell is looked up in the system.
func (w *world) settleByHand() {
	w.t.Helper()
	ctx := context.Background()
	w.erp.set(trouble{})
	if _, err := w.e.Replay(ctx, store.PostingFilter{Code: "period_closed"}, "anna"); err != nil {
		w.t.Fatal(err)
	}
	parked, err := w.s.Postings(ctx, store.PostingFilter{State: store.PostingParked, Code: CodeCannotTell}, store.Page{Limit: 1000})
	if err != nil {
		w.t.Fatal(err)
	}
	slices.Reverse(parked)
	for _, f := range parked {
		key := f.Fact.Key.String()
		w.erp.mu.Lock()
		e, there := w.erp.effects[key]
		w.erp.mu.Unlock()
		if there {
			err = w.e.Accept(ctx, key, e.document, "seen", "anna")
		} else {
			err = w.e.PostAgain(ctx, key, "not there", "anna")
		}
		if err != nil {
			w.t.Fatal(err)
		}
	}
}
