package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/agent/translate"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// steps are the states of an order's history, each with its revision.
func steps(o status.Order) string {
	var list []string
	for _, s := range o.History {
		if s.At.IsZero() {
			list = append(list, "no time!")
		}
		list = append(list, fmt.Sprintf("%s/%d", s.State, s.Revision))
	}
	return strings.Join(list, " ")
}

func TestWorkOrderGoesDownAndItsAnswersComeUpWithTheirTimes(t *testing.T) {
	h := serveHub(t)
	answers := make(chan signal.Batch, 10)
	now := time.Now().Truncate(time.Millisecond)
	at := func(s int) time.Time { return now.Add(time.Duration(s) * time.Second) }
	fs := fakes{"mes": {
		run: func(ctx context.Context, _ []byte, emit signal.Emit) error {
			for {
				select {
				case <-ctx.Done():
					return nil
				case b := <-answers:
					if err := emit(ctx, b); err != nil {
						return err
					}
				}
			}
		},
		deliver: func(_ context.Context, o signal.WorkOrder) error {
			// The receiver answers at once: the rules must know the order, or they refuse the booking.
			answers <- signal.Batch{Signals: []signal.Signal{
				orderState(o.OrderNo, "accepted", 1, at(1)),
				{Tag: "bookings", Position: "b1", ReceivedTime: at(2), Value: map[string]any{"order": o.OrderNo, "good": signal.Number("3")}},
			}}
			return nil
		},
	}}
	cfg := testConfig(t.TempDir(), fs)
	cfg.Hub = h.line()
	cfg.Rules = append(cfg.Rules, translate.Rule{
		Name: "bookings", Rule: "record", Source: "mes", Tag: "bookings", Fact: "production_confirmation", KnownOrdersOnly: true,
		Fields: map[string]string{"order_no": "payload.order", "yield": "payload.good"},
	})
	a := start(t, cfg, fs)
	h.push(workOrder("WO-1", 1, pb.WorkOrder_STATE_RELEASED))
	eventually(t, "it is accepted", func() error {
		if o := a.order("WO-1"); o.State != "accepted" {
			return fmt.Errorf("it is %+v", o)
		}
		return nil
	})
	answers <- signal.Batch{Signals: []signal.Signal{orderState("WO-1", "started", 1, at(3)), orderState("WO-1", "finished", 1, at(9))}}
	eventually(t, "the hub has all answers", func() error {
		var got []string
		for _, f := range h.all() {
			switch {
			case f.GetOrderState() != nil:
				got = append(got, f.GetOrderState().GetState().String())
			case f.GetProductionConfirmation().GetItem() == "FG-GEAR" && f.GetProductionConfirmation().GetUnit() == "C62":
				got = append(got, "booked")
			}
		}
		if slices.Sort(got); strings.Join(got, " ") != "STATE_ACCEPTED STATE_FINISHED STATE_STARTED booked" {
			return fmt.Errorf("it has %v", got)
		}
		return nil
	})
	const want = "sent/1 stored/1 delivered/1 accepted/1 started/1 finished/1"
	check := func(a started) {
		t.Helper()
		o := a.order("WO-1")
		got := steps(o)
		// An answer may overtake the note of the delivery.
		if got = strings.Replace(got, "accepted/1 delivered/1", "delivered/1 accepted/1", 1); got != want || o.State != "finished" {
			t.Errorf("history is %s (%s), want %s", got, o.State, want)
		}
		for _, s := range o.History {
			if s.State == "started" && !s.At.Equal(at(3)) || s.State == "finished" && !s.At.Equal(at(9)) {
				t.Errorf("%s at %s is not the source's time", s.State, s.At)
			}
		}
	}
	eventually(t, "the page has the last answer too", func() error {
		if o := a.order("WO-1"); o.State != "finished" {
			return fmt.Errorf("it is %+v", o)
		}
		return nil
	})
	check(a)
	a.stop()
	check(start(t, cfg, fs)) // the states are not told twice
}

// dispatched is an agent with one receiver whose orders are passed on in a bubble of its own time.
func dispatched(t *testing.T, dir string, f *fake) (s started, stop func()) {
	t.Helper()
	fs := fakes{"mes": f}
	a := newAgent(t, testConfig(dir, fs), fs)
	if err := a.resume(t.Context()); err != nil {
		t.Fatal(err)
	}
	g := newGroup(t.Context())
	g.run(a.runOrders)
	return started{Agent: a}, func() { g.stop(); a.Close() }
}

func store(t *testing.T, a started, seq int64, d *pb.Delivery) {
	t.Helper()
	d.Seq = seq
	if err := a.inbox.Store("e1", []*pb.Delivery{d}); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestDeliveryThatFailsIsShownAndTriedAgainAndItsNeighboursGoOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		tries, broken := map[string]int{}, true
		tried := func(no string) int {
			mu.Lock()
			defer mu.Unlock()
			return tries[no]
		}
		a, stop := dispatched(t, t.TempDir(), &fake{deliver: func(_ context.Context, o signal.WorkOrder) error {
			mu.Lock()
			defer mu.Unlock()
			tries[o.OrderNo]++
			if o.OrderNo == "WO-1" && broken {
				if tries["WO-1"] == 2 {
					panic("nil map")
				}
				return errors.New("staging table is missing")
			}
			return nil
		}})
		defer stop()
		store(t, a, 1, workOrder("WO-1", 1, pb.WorkOrder_STATE_RELEASED))
		store(t, a, 2, workOrder("WO-2", 1, pb.WorkOrder_STATE_RELEASED))
		if o := a.order("WO-2"); o.State != "delivered" || tried("WO-2") != 1 {
			t.Errorf("the neighbour is %s after %d tries", o.State, tried("WO-2"))
		}
		p := a.source("mes").Problems
		if len(p) != 1 || p[0].Code != "not_delivered" || !strings.Contains(p[0].Reason, `work order "WO-1"`) || p[0].NextStep == "" {
			t.Errorf("the page shows %+v", p)
		}
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if n := tried("WO-1"); n < 15 || n > 60 {
			t.Errorf("%d tries within ten minutes", n)
		}
		mu.Lock()
		broken = false
		mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if o, p := a.order("WO-1"), a.source("mes").Problems; o.State != "delivered" || len(p) != 0 {
			t.Errorf("in the end it is %s, problems %+v", o.State, p)
		}
		n := tried("WO-1")
		time.Sleep(time.Hour)
		if tried("WO-1") != n || tried("WO-2") != 1 {
			t.Error("a delivered order was delivered again")
		}
	})
}

func TestRefusedOrderIsShownAndNotOfferedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var tries atomic.Int64
		a, stop := dispatched(t, t.TempDir(), &fake{deliver: func(_ context.Context, o signal.WorkOrder) error {
			tries.Add(1)
			if o.Revision == 1 {
				return fmt.Errorf("write row: %w", &signal.Refused{Reason: "quantity is too large"})
			}
			return nil
		}})
		defer stop()
		store(t, a, 1, workOrder("WO-1", 1, pb.WorkOrder_STATE_RELEASED))
		time.Sleep(time.Hour)
		synctest.Wait()
		if o := a.order("WO-1"); o.State != "rejected" || o.Reason != "quantity is too large" || tries.Load() != 1 {
			t.Errorf("after %d tries it is %+v", tries.Load(), o)
		}
		if p := a.source("mes").Problems; len(p) != 0 {
			t.Errorf("a refusal is shown as a failed delivery: %+v", p)
		}
		store(t, a, 2, workOrder("WO-1", 2, pb.WorkOrder_STATE_RELEASED))
		if o := a.order("WO-1"); o.State != "delivered" || tries.Load() != 2 {
			t.Errorf("the corrected revision is %s after %d tries", o.State, tries.Load())
		}
	})
}

func TestCancellationReachesAReceiverThatMayHaveTheOrderFromBeforeACrash(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		a, stop := dispatched(t, dir, &fake{deliver: func(ctx context.Context, _ signal.WorkOrder) error {
			<-ctx.Done() // the receiver has it, the agent ends before it hears so
			return ctx.Err()
		}})
		store(t, a, 1, workOrder("WO-1", 1, pb.WorkOrder_STATE_RELEASED))
		stop()
		var got []signal.WorkOrder
		a, stop = dispatched(t, dir, &fake{})
		store(t, a, 2, workOrder("WO-1", 2, pb.WorkOrder_STATE_CANCELLED)) // comes down while nobody takes orders
		stop()
		a, stop = dispatched(t, dir, &fake{deliver: func(_ context.Context, o signal.WorkOrder) error {
			got = append(got, o)
			return nil
		}})
		defer stop()
		synctest.Wait()
		if len(got) != 1 || got[0].Revision != 2 || !got[0].Cancelled {
			t.Errorf("the receiver got %+v", got)
		}
		if o := a.order("WO-1"); o.State != "cancelled" || !strings.HasSuffix(steps(o), "delivered/2") {
			t.Errorf("it is %s: %s", o.State, steps(o))
		}
	})
}

func TestRulesHearOfAnOrderOnceAndNotAtEachNews(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, stop := dispatched(t, t.TempDir(), &fake{})
		defer stop()
		store(t, a, 1, workOrder("WO-1", 1, pb.WorkOrder_STATE_RELEASED))
		var all []string
		a.pipe.business.EachState("", func(k string, v []byte) { all = append(all, k+"="+string(v)) })
		if len(all) == 0 {
			t.Fatal("the rules do not know the order")
		}
		time.Sleep(time.Second) // a second telling would carry another time
		key := make([]byte, 16)
		store(t, a, 2, &pb.Delivery{Kind: &pb.Delivery_Receipt{Receipt: &pb.Receipt{FactKey: key, Outcome: pb.Receipt_OUTCOME_POSTED}}})
		var again []string
		a.pipe.business.EachState("", func(k string, v []byte) { again = append(again, k+"="+string(v)) })
		if !slices.Equal(all, again) {
			t.Errorf("the state changed from %v to %v", all, again)
		}
	})
}

func TestOrdersWithoutAReceiverAreShownAndKnownToTheRules(t *testing.T) {
	h := serveHub(t)
	book := make(chan struct{})
	fs := fakes{"mes": {run: func(ctx context.Context, _ []byte, emit signal.Emit) error {
		<-book
		if err := emit(ctx, signal.Batch{Signals: []signal.Signal{{
			Tag: "bookings", Position: "b1", ReceivedTime: time.Now(), Value: map[string]any{"order": "WO-1", "good": signal.Number("3")},
		}}}); err != nil {
			return err
		}
		<-ctx.Done()
		return nil
	}}}
	cfg := testConfig(t.TempDir(), fs)
	cfg.Hub = h.line()
	cfg.Rules = append(cfg.Rules, translate.Rule{
		Name: "bookings", Rule: "record", Source: "mes", Tag: "bookings", Fact: "production_confirmation", KnownOrdersOnly: true,
		Fields: map[string]string{"order_no": "payload.order", "yield": "payload.good"},
	})
	a := start(t, cfg, fs)
	release := sync.OnceFunc(func() { close(book) })
	defer release()
	h.push(workOrder("WO-1", 1, pb.WorkOrder_STATE_HELD))
	eventually(t, "it is shown", func() error {
		if o := a.order("WO-1"); o.State != "stored" {
			return fmt.Errorf("it is %+v", o)
		}
		if len(a.pipe.business.State(cursorPrefix+"mes")) > 0 {
			return errors.New("impossible")
		}
		n := 0
		a.pipe.business.EachState("", func(string, []byte) { n++ })
		if n == 0 {
			return errors.New("the rules do not know it yet")
		}
		return nil
	})
	release()
	eventually(t, "the booking finds the item", func() error { return h.holds(1) })
}
