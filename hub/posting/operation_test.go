package posting

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// routed is an order with operations.
func (w *world) routed(no string, operations ...string) {
	w.t.Helper()
	w.put(store.Order{Agent: "edge1", Order: routedOrder(no, operations...)})
}

func routedOrder(no string, operations ...string) object.WorkOrder {
	o := object.WorkOrder{OrderNo: no, ERP: "erp", Plant: "ulm", Revision: 1, State: object.OrderReleased}
	for _, name := range operations {
		o.Operations = append(o.Operations, object.Operation{Operation: name})
	}
	return o
}

var moments int

// stateOf is a state of one operation. Each comes a second after the one before.
func stateOf(order, operation string, s object.FloorState) object.Fact {
	moments++
	f := base(object.KindOrderState, "state", order, operation, string(s), fmt.Sprint(moments))
	f.OccurredAt = f.OccurredAt.Add(time.Duration(moments) * time.Second)
	f.OrderState = &object.ShopFloorState{OrderNo: order, Revision: 1, State: s, Operation: operation}
	return f
}

func confirmAt(order, operation string, n int) object.Fact {
	f := confirm(order, n, "1")
	f.Confirmation.Operation = operation
	f.Position, f.Key = base(object.KindConfirmation, order, operation, fmt.Sprint(n)).Position, base(object.KindConfirmation, order, operation, fmt.Sprint(n)).Key
	return f
}

func (w *world) stillOpen(order string) {
	w.t.Helper()
	if by := w.erp.closedBy(order); by != "" {
		w.t.Fatalf("order %s was closed by %q", order, by)
	}
}

func (w *world) closedBy(f object.Fact) {
	w.t.Helper()
	w.want(f, store.PostingVerified, "")
	if by := w.erp.closedBy(f.OrderNo()); by != f.Position {
		w.t.Fatalf("order %s was closed by %q, want %q", f.OrderNo(), by, f.Position)
	}
}

func TestFinishOfAnOperationLeavesItsOrderOpenAndTheLastOneClosesIt(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.routed("WO-1", "0010", "0020")
		w.start()
		first := stateOf("WO-1", "10", object.FloorFinished) // zeros before a number need not be written
		w.deliver(confirmAt("WO-1", "0010", 1), first)
		w.pass(time.Hour)
		p := w.want(first, store.PostingNotPosted, CodeOperationEnded)
		for _, words := range []string{`"10"`, `"WO-1"`, `"0020"`, "stays open"} {
			if !strings.Contains(p.Reason, words) {
				t.Errorf("reason %q does not name %s", p.Reason, words)
			}
		}
		w.stillOpen("WO-1")
		made, last := confirmAt("WO-1", "0020", 1), stateOf("WO-1", "0020", object.FloorFinished)
		w.deliver(made, last)
		w.pass(time.Hour)
		w.want(made, store.PostingVerified, "")
		w.closedBy(last)
		if got := w.receipts(); got[len(got)-1] != "VERIFIED" {
			t.Errorf("receipts %v", got)
		}
		_, _, steps, err := w.s.OrderTimeline(context.Background(), "", "WO-1")
		if err != nil {
			t.Fatal(err)
		}
		var said []string
		for _, s := range steps {
			said = append(said, strings.TrimSpace(s.Step+" "+s.Operation))
		}
		for _, want := range []string{"FINISHED 10", "FINISHED 0020", store.StepLast + " 0020", "posted FINISHED"} {
			if !strings.Contains(strings.Join(said, "\n")+"\n", want+"\n") {
				t.Errorf("timeline %q lacks %q", said, want)
			}
		}
	})
}

func TestSystemThatKeepsOperationsIsToldOfEach(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.operations = []object.FloorState{object.FloorFinished}
		w.routed("WO-1", "10", "20")
		w.start()
		first, last := stateOf("WO-1", "10", object.FloorFinished), stateOf("WO-1", "20", object.FloorFinished)
		cancelled := stateOf("WO-1", "10", object.FloorCancelled)
		w.deliver(first, cancelled)
		w.pass(time.Hour)
		w.want(first, store.PostingVerified, "")
		w.want(cancelled, store.PostingNotPosted, CodePolicy)
		w.stillOpen("WO-1")
		if f := w.erp.effects[first.Key.String()].fact; f.OrderState.Operation != "10" {
			t.Errorf("the system was told %+v", f.OrderState)
		}
		w.deliver(last)
		w.pass(time.Hour)
		w.closedBy(last)
		if f := w.erp.effects[last.Key.String()].fact; f.OrderState.Operation != "20" {
			t.Errorf("the system was told %+v", f.OrderState)
		}
	})
}

// The last operation may be reported first: what the plant has reported of the others keeps the order open until it ends, in
// whichever of the ways there are, and across the death of the hub.
func TestLastOperationWaitsForThoseThatThePlantHasReported(t *testing.T) {
	final := func(no string) object.Fact {
		f := confirmAt(no, "10", 9)
		f.Confirmation.Final, f.OccurredAt = true, stateOf(no, "10", object.FloorHeld).OccurredAt
		return f
	}
	ends := map[string]func(w *world, no string){
		"finished":       func(w *world, no string) { w.deliver(stateOf(no, "10", object.FloorFinished)) },
		"cancelled":      func(w *world, no string) { w.deliver(stateOf(no, "10", object.FloorCancelled)) },
		"final":          func(w *world, no string) { w.deliver(final(no)) },
		"order finished": func(w *world, no string) { w.deliver(state(no, object.FloorFinished)) },
		"order completed": func(w *world, no string) {
			o := routedOrder(no, "10", "20")
			o.State = object.OrderCompleted
			w.put(store.Order{Order: o})
		},
	}
	starts := map[string]func(no string) object.Fact{
		"started":         func(no string) object.Fact { return stateOf(no, "0010", object.FloorStarted) },
		"confirmed":       func(no string) object.Fact { return confirmAt(no, "10", 1) },
		"begun once more": func(no string) object.Fact { return stateOf(no, "10", object.FloorStarted) },
	}
	for how, end := range ends {
		for begun, start := range starts {
			t.Run(begun+" then "+how, func(t *testing.T) {
				simulate(t, func(t *testing.T, w *world) {
					w.routed("WO-1", "10", "20")
					w.start()
					if begun == "begun once more" {
						w.deliver(stateOf("WO-1", "10", object.FloorFinished))
					}
					last := stateOf("WO-1", "20", object.FloorFinished)
					w.deliver(start("WO-1"), last)
					w.pass(3 * time.Hour) // longer than a plant is waited for that does not answer
					p := w.want(last, store.PostingDue, CodeWaitsForOthers)
					if !strings.Contains(p.Reason, `operation "10"`) || !strings.Contains(p.Reason, `"20" is the last`) || p.NextStep == "" {
						t.Fatalf("reason %q, next %q", p.Reason, p.NextStep)
					}
					w.stillOpen("WO-1")
					w.wantTold(last, "RECEIVED", p.Reason) // once, whatever goes on beside it
					w.stop()
					w.start()
					w.deliver(confirmAt("WO-1", "0010", 2))
					w.pass(time.Hour)
					w.want(last, store.PostingDue, CodeWaitsForOthers)
					w.wantTold(last, "RECEIVED", p.Reason)
					end(w, "WO-1")
					w.pass(10 * time.Minute)
					w.want(last, store.PostingVerified, "")
					w.wantTold(last, "RECEIVED POSTED VERIFIED", "")
					if w.erp.closedBy("WO-1") == "" {
						t.Fatal("the order is still open")
					}
				})
			})
		}
	}
}

func TestPlantThatReportsTheLastOperationOnlyClosesItsOrders(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.routed("WO-1", "10", "20", "30")
		w.start()
		last := stateOf("WO-1", "30", object.FloorFinished)
		w.deliver(state("WO-1", object.FloorStarted), confirmAt("WO-1", "30", 1), last)
		w.pass(10 * time.Minute)
		w.closedBy(last)
	})
}

func TestPolicySaysWhichFinishClosesAnOrder(t *testing.T) {
	for _, x := range []struct {
		end                         OrderEnd
		operations                  []string
		reported                    string // another operation of which something was reported
		closedByFirst, closedByLast bool
	}{
		{EndReported, []string{"10", "20"}, "", false, true},
		{EndReported, []string{"10", "20"}, "10", false, false},
		{EndReported, nil, "", true, true}, // nobody but the plant knows operations
		{EndReported, nil, "15", false, false},
		{EndAll, []string{"10", "20"}, "", false, false},
		{EndAll, []string{"20"}, "", false, true},
		{EndAll, nil, "", false, false},
		{EndLast, []string{"10", "20"}, "10", false, true},
		{EndLast, nil, "15", true, true},
		{EndOrder, []string{"10", "20"}, "", false, false},
		{EndOrder, nil, "", false, false},
	} {
		t.Run(fmt.Sprintf("%s of %v with %q reported", x.end, x.operations, x.reported), func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				w.opts.Policies = []Policy{{End: x.end}}
				w.routed("WO-1", x.operations...)
				w.start()
				if x.reported != "" {
					w.deliver(stateOf("WO-1", x.reported, object.FloorStarted))
				}
				for _, finish := range []struct {
					operation string
					closed    bool
				}{{"10", x.closedByFirst}, {"20", x.closedByLast}} {
					if finish.operation == "10" && (x.reported == "10" || len(x.operations) == 1) {
						continue
					}
					if x.end == EndAll && finish.operation == "10" && len(x.operations) == 2 {
						continue // that would end all of them
					}
					w.deliver(stateOf("WO-1", finish.operation, object.FloorFinished))
					w.pass(10 * time.Minute)
					if closed := w.erp.closedBy("WO-1") != ""; closed != finish.closed {
						t.Fatalf("after the finish of operation %s the order is closed: %v", finish.operation, closed)
					}
				}
				w.deliver(state("WO-1", object.FloorFinished))
				w.pass(10 * time.Minute)
				if w.erp.closedBy("WO-1") == "" {
					t.Fatal("a finish that names no operation has not closed the order")
				}
				if got := w.counts(); strings.Contains(got, "due") || strings.Contains(got, "parked") {
					t.Errorf("in the end: %s", got)
				}
			})
		})
	}
}

func TestFinishOfAnOperationThatTheOrderDoesNotHaveIsParked(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.start()
		odd, last := stateOf("WO-1", "25", object.FloorFinished), stateOf("WO-1", "20", object.FloorFinished)
		w.deliver(odd)
		w.pass(time.Minute)
		w.want(odd, store.PostingParked, CodeUnknownOrder) // its order has not come yet
		w.routed("WO-1", "10", "20")
		w.pass(time.Minute)
		p := w.want(odd, store.PostingParked, CodeUnknownOperation)
		if !strings.Contains(p.Reason, `"25"`) || !strings.Contains(p.Reason, "10, 20") || p.NextStep == "" {
			t.Errorf("reason %q, next %q", p.Reason, p.NextStep)
		}
		w.deliver(last)
		w.pass(time.Minute)
		w.want(last, store.PostingDue, CodeWaitsForOthers) // somebody has to see to the other
		o := routedOrder("WO-1", "10", "20", "25", "30")
		o.Revision = 2
		w.put(store.Order{Order: o})
		if err := w.e.ReplayFact(context.Background(), odd.Key.String(), "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Hour)
		w.want(odd, store.PostingNotPosted, CodeOperationEnded)
		w.want(last, store.PostingNotPosted, CodeOperationEnded) // 20 is not the last any more
		w.stillOpen("WO-1")
		end := stateOf("WO-1", "30", object.FloorFinished)
		w.deliver(end)
		w.pass(time.Hour)
		w.closedBy(end)
	})
}

// An operation that was the last may be so no more when its turn comes, in a system that keeps operations as well.
func TestOrderThatGetsAnotherOperationStaysOpen(t *testing.T) {
	for _, keeps := range [][]object.FloorState{nil, {object.FloorFinished}} {
		simulate(t, func(t *testing.T, w *world) {
			w.erp.operations = keeps
			w.routed("WO-1", "10", "20")
			w.start()
			last := stateOf("WO-1", "20", object.FloorFinished)
			w.deliver(stateOf("WO-1", "10", object.FloorStarted), last)
			w.pass(time.Minute)
			w.want(last, store.PostingDue, CodeWaitsForOthers)
			w.routed("WO-1", "10", "20", "30")
			w.pass(time.Hour)
			if keeps == nil {
				w.want(last, store.PostingNotPosted, CodeOperationEnded)
			} else {
				w.want(last, store.PostingVerified, "")
			}
			w.stillOpen("WO-1")
		})
	}
}

func TestCancellationOfAnOperationNeverEndsItsOrder(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Policies = []Policy{{End: EndLast}}
		w.opts.Connectors["erp"] = cancelling{w.erp}
		w.routed("WO-1", "10", "20")
		w.start()
		one, two := stateOf("WO-1", "10", object.FloorCancelled), stateOf("WO-1", "20", object.FloorCancelled)
		w.deliver(one, two)
		w.pass(time.Hour)
		w.want(one, store.PostingNotPosted, CodeOperationEnded)
		w.want(two, store.PostingNotPosted, CodeOperationEnded)
		if made := w.erp.madeOn("WO-1"); len(made) > 0 {
			t.Fatalf("the system was told %v", made)
		}
		whole := state("WO-1", object.FloorCancelled)
		w.deliver(whole)
		w.pass(time.Hour)
		w.want(whole, store.PostingVerified, "")
	})
}

func TestFinishOfTheLastOperationThatComesTwiceClosesOnce(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.routed("WO-1", "10", "20")
		w.start()
		last, again := stateOf("WO-1", "20", object.FloorFinished), stateOf("WO-1", "20", object.FloorFinished)
		w.deliver(last, again)
		w.deliver(last)
		w.pass(time.Hour)
		w.closedBy(last)
		w.want(again, store.PostingVerified, "")
		_, _, steps, err := w.s.OrderTimeline(context.Background(), "", "WO-1")
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range steps {
			if s.Step == store.StepLast {
				n++
			}
		}
		if n != 1 {
			t.Errorf("the timeline says %d times that the last operation was finished", n)
		}
	})
}

func TestFinishThatWasCorrectedToAnotherOrderCountsThere(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.routed("WO-1", "10", "20")
		w.routed("WO-2", "10", "20", "25")
		w.start()
		wrong := stateOf("WO-1", "25", object.FloorFinished)
		w.deliver(wrong, stateOf("WO-2", "10", object.FloorStarted))
		w.pass(time.Minute)
		w.want(wrong, store.PostingParked, CodeUnknownOperation)
		if err := w.e.Correct(context.Background(), wrong.Key.String(), store.Values{OrderNo: "WO-2"}, "badge", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(wrong, store.PostingDue, CodeWaitsForOthers)
		w.deliver(stateOf("WO-2", "10", object.FloorFinished))
		w.pass(time.Minute)
		w.want(wrong, store.PostingVerified, "")
		w.stillOpen("WO-1")
		if w.erp.closedBy("WO-2") != wrong.Position {
			t.Error("order WO-2 is open")
		}
		var over bool
		w.update(func(tx *store.Tx) (err error) { over, err = tx.Finished("WO-1"); return err })
		if over {
			t.Error("order WO-1 is at its end by a fact that was another's")
		}
	})
}

// TestOperationsOfManyOrdersEndInAnyOrder mixes the operations of orders, of which each is begun before any ends, through the
// trouble of the model and the deaths of the hub. Each order is closed once, after everything of all of its operations.
func TestOperationsOfManyOrdersEndInAnyOrder(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (run again with -seed %d)", seed, seed)
	simulate(t, func(t *testing.T, w *world) {
		rng := rand.New(rand.NewPCG(seed, 4))
		w.erp = newModel(seed, time.Now)
		w.opts.Connectors["erp"] = w.erp
		w.opts.Poll = 20 * time.Minute
		if rng.IntN(2) == 0 {
			w.erp.operations = []object.FloorState{object.FloorFinished}
		}
		const orders = 6
		var left [][]object.Fact // of each operation, in their order
		var begun []object.Fact
		last := map[string]object.Fact{}
		for o := range orders {
			no := fmt.Sprintf("WO-%d", o)
			for _, op := range []string{"10", "20", "30"} {
				begun = append(begun, stateOf(no, op, object.FloorStarted))
				var facts []object.Fact
				for n := range rng.IntN(4) {
					facts = append(facts, confirmAt(no, op, n))
				}
				last[no] = stateOf(no, op, object.FloorFinished)
				left = append(left, append(facts, last[no]))
			}
		}
		w.erp.set(trouble{down: 5, lostReply: 12, lostRequest: 6, delayed: 8, retry: 10, early: 4, unreadable: 10})
		w.start()
		w.deliver(begun...)
		for round := 0; len(left) > 0 || round < 12; round++ {
			for range rng.IntN(8) {
				if len(left) == 0 {
					break
				}
				i := rng.IntN(len(left))
				w.deliver(left[i][0])
				if left[i] = left[i][1:]; len(left[i]) == 0 {
					left = append(left[:i], left[i+1:]...)
				}
			}
			if round < orders {
				w.routed(fmt.Sprintf("WO-%d", round), "10", "20", "30") // some facts come before their order
			}
			w.pass(time.Duration(rng.IntN(60)) * time.Second)
			if rng.IntN(3) == 0 {
				w.die(rng)
			}
		}
		w.pass(96 * time.Hour)
		if got := w.counts(); strings.Contains(got, "parked") || strings.Contains(got, "due") || strings.Contains(got, "doubt") {
			t.Errorf("in the end: %s", got)
		}
		for no, f := range last {
			w.closedBy(f)
			if made := w.erp.madeOn(no); made[len(made)-1] != f.Position {
				t.Errorf("order %s was closed before its last posting: %v", no, made)
			}
		}
	})
}

// cancelling is the model with the cancellation of orders.
type cancelling struct{ *modelERP }

func (c cancelling) Capabilities() connector.Capabilities {
	can := c.modelERP.Capabilities()
	can.States = append(can.States, object.FloorCancelled)
	return can
}

// What an earlier version took for the end of its order, and had not posted yet, is that of its operation alone.
func TestFinishThatAnEarlierVersionTookForTheOrdersLeavesItOpen(t *testing.T) {
	for _, keeps := range [][]object.FloorState{nil, {object.FloorFinished}} {
		simulate(t, func(t *testing.T, w *world) {
			w.erp.operations = keeps
			w.erp.set(trouble{down: 100})
			w.routed("WO-1", "10", "20")
			w.start()
			f := stateOf("WO-1", "10", object.FloorFinished)
			w.deliver(f)
			w.pass(time.Minute)
			w.stop()
			p := w.posting(f)
			p.State, p.Closing, p.Code, p.Reason, p.NextAt, p.Amounts = store.PostingDue, true, "", "", time.Time{}, &store.Amounts{}
			w.update(func(tx *store.Tx) error { return tx.PutPosting(p) })
			w.erp.set(trouble{})
			w.start()
			w.pass(time.Hour)
			if keeps == nil {
				w.want(f, store.PostingNotPosted, CodeOperationEnded)
			} else {
				w.want(f, store.PostingVerified, "")
			}
			w.stillOpen("WO-1")
		})
	}
}
