package posting

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/tally"
	"github.com/shopspring/decimal"
)

func collecting(every time.Duration) []Policy { return []Policy{{Collect: &Collect{Every: every}}} }

// documents counts what the outside system holds of an order but its states.
func (w *world) documents(order string) (n int) {
	w.erp.mu.Lock()
	defer w.erp.mu.Unlock()
	for _, e := range w.erp.effects {
		if e.fact.OrderState == nil && e.fact.OrderNo() == order {
			n++
		}
	}
	return n
}

// agrees checks that the ledger of an order has received and posted as much as the outside system holds.
func (w *world) agrees(order, yield string) {
	w.t.Helper()
	if sum := w.erp.yield(order); sum.String() != yield {
		w.t.Errorf("order %s: the outside system holds %s, want %s", order, sum, yield)
	}
	edge, lines, err := w.s.TallyInput(context.Background(), store.TallyFilter{OrderNo: order})
	if err != nil {
		w.t.Fatal(err)
	}
	var posted decimal.Decimal
	for _, o := range tally.Of(edge, lines).Orders {
		for _, l := range o.Lines {
			if !l.Missing.IsZero() || !l.Doubled.IsZero() {
				w.t.Errorf("line %+v", l)
			}
			if l.Kind == object.Yield {
				posted = posted.Add(l.Posted)
			}
		}
	}
	if posted.String() != yield {
		w.t.Errorf("order %s: the ledger has posted %s, want %s", order, posted, yield)
	}
}

func TestFactsOfOneLineBecomeOneDocumentAndEachLeadsToIt(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Policies = collecting(10 * time.Minute)
		w.order("WO-1")
		w.start()
		facts := []object.Fact{confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7.25"), confirm("WO-1", 3, "1")}
		w.deliver(facts...)
		w.pass(9 * time.Minute)
		for _, f := range facts {
			if p := w.want(f, store.PostingDue, CodeCollecting); p.Reason == "" {
				t.Error("it does not say what it waits for")
			}
		}
		w.deliver(facts[1]) // comes again
		w.pass(2 * time.Minute)
		for _, f := range facts {
			if p := w.want(f, store.PostingVerified, ""); p.Document != "D1" {
				t.Errorf("posting %+v", p)
			}
			_, life, err := w.s.Life(context.Background(), f.Key.String())
			var steps []string
			for _, l := range life {
				steps = append(steps, l.Step)
			}
			if want := "occurred recorded received planned due collected sending posted verified"; err != nil || strings.Join(steps, " ") != want {
				t.Errorf("life %v, %v", steps, err)
			}
		}
		if got := fmt.Sprint(w.receipts()); got != "[POSTED POSTED POSTED VERIFIED VERIFIED VERIFIED]" {
			t.Errorf("receipts %s", got)
		}
		if n := w.documents("WO-1"); n != 1 {
			t.Errorf("%d documents", n)
		}
		w.agrees("WO-1", "13.25")
		late := confirm("WO-1", 4, "2") // of the same line, when the first is sealed: a new one, of one member
		w.deliver(late)
		w.pass(11 * time.Minute)
		w.want(late, store.PostingVerified, "")
		w.erp.mu.Lock()
		if _, own := w.erp.effects[late.Key.String()]; !own {
			t.Error("a single fact has not its own key")
		}
		w.erp.mu.Unlock()
		w.agrees("WO-1", "15.25")
	})
}

func TestOnlyWhatADocumentSaysAlikeIsMerged(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Policies = collecting(10 * time.Minute)
		w.order("WO-1")
		w.start()
		change := func(n int, with func(*object.Fact)) []object.Fact {
			a, b := confirm("WO-1", 2*n, "1"), confirm("WO-1", 2*n+1, "1")
			with(&a)
			with(&b)
			return []object.Fact{a, b}
		}
		var facts []object.Fact
		for n, with := range []func(*object.Fact){
			func(*object.Fact) {},
			func(f *object.Fact) { f.Confirmation.Operation = "0020" },
			func(f *object.Fact) { f.Confirmation.Lot = "L" },
			func(f *object.Fact) { f.Shift, f.ShiftDate = "night", "1999-12-31" },
			func(f *object.Fact) { f.PostingDate = "1999-12-30" },
			func(f *object.Fact) { f.OccurredAt = f.OccurredAt.Add(time.Hour) }, // the next day
			func(f *object.Fact) { f.Confirmation.Person = "p1" },
			func(f *object.Fact) { f.Confirmation.Item = "Q" },
		} {
			facts = append(facts, change(n, with)...)
		}
		serial := change(50, func(f *object.Fact) { f.Confirmation.Serial = f.Position })
		w.deliver(append(facts, serial...)...)
		w.pass(time.Minute)
		for _, f := range serial {
			w.want(f, store.PostingVerified, "")
		}
		w.pass(11 * time.Minute)
		if n := w.documents("WO-1"); n != len(facts)/2+len(serial) {
			t.Errorf("%d documents of %d facts that are alike in pairs", n, len(facts))
		}
		w.agrees("WO-1", fmt.Sprint(len(facts)+len(serial)))
	})
}

func TestCollectingEndsByQuantityAFinalConfirmationAndTheOrder(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Policies = []Policy{{Collect: &Collect{Quantity: decimal.NewFromInt(10), OrderEnd: true}}}
		w.order("WO-1")
		w.order("WO-2")
		w.order("WO-3")
		w.start()
		full := []object.Fact{confirm("WO-1", 1, "5"), confirm("WO-1", 2, "4"), confirm("WO-1", 3, "3")}
		last := confirm("WO-2", 2, "1")
		last.Confirmation.Final = true
		w.deliver(full[0], full[1], confirm("WO-2", 1, "1"), last, confirm("WO-3", 1, "2"), confirm("WO-3", 2, "2"))
		w.pass(time.Minute)
		w.want(full[0], store.PostingDue, CodeCollecting)
		w.want(last, store.PostingVerified, "")
		w.deliver(full[2], state("WO-3", object.FloorFinished), confirm("WO-3", 3, "1"))
		w.pass(time.Minute)
		for _, f := range full {
			w.want(f, store.PostingVerified, "")
		}
		w.want(confirm("WO-3", 1, "2"), store.PostingVerified, "")
		w.want(confirm("WO-3", 3, "1"), store.PostingVerified, "") // came after the end: goes alone
		w.want(state("WO-3", object.FloorFinished), store.PostingVerified, "")
		if made := w.erp.madeOn("WO-3"); made[len(made)-1] != state("WO-3", object.FloorFinished).Position {
			t.Errorf("order of the effects %v", made)
		}
		for no, want := range map[string]int{"WO-1": 1, "WO-2": 1, "WO-3": 2} {
			if n := w.documents(no); n != want {
				t.Errorf("order %s: %d documents, want %d", no, n, want)
			}
		}
		w.agrees("WO-1", "12")
		w.agrees("WO-2", "2")
		w.agrees("WO-3", "5")
	})
}

func TestWhatIsCollectedIsPostedWhenNobodyCollectsAnyMore(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Policies = collecting(10 * time.Hour)
		w.order("WO-1")
		w.start()
		f, g := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
		w.deliver(f, g)
		w.pass(time.Minute)
		w.want(f, store.PostingDue, CodeCollecting)
		w.stop()
		w.opts.Policies = nil
		w.start()
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		w.want(g, store.PostingVerified, "")
		w.agrees("WO-1", "12")
	})
}

func TestHubThatDiesAtAnyStepOfAnAggregatePostsItOnce(t *testing.T) {
	for _, step := range []string{
		"plan", "planned", "sealing", "sealed", "dated", "asking", "prepared", "storing sending", "saved sending", "sending", "posted", "storing posted", "saved posted",
		"reading back", "read back", "storing verified", "saved verified",
	} {
		for _, lost := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, reply lost %v", step, lost), func(t *testing.T) {
				simulate(t, func(t *testing.T, w *world) {
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
					w.opts.Policies = []Policy{{Collect: &Collect{Every: time.Minute}, Late: LateFirstOpenDay, Closing: &Closing{Day: 1}}}
					w.order("WO-1")
					w.deliver(confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7"), counted("WO-1", "0", "3"), counted("WO-1", "1", "4"))
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
					for _, f := range []object.Fact{confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7"), counted("WO-1", "0", "3"), counted("WO-1", "1", "4")} {
						if p := w.want(f, store.PostingVerified, ""); p.Document != "D1" {
							t.Errorf("document %s", p.Document)
						}
					}
					if n := w.documents("WO-1"); n != 1 {
						t.Errorf("%d documents", n)
					}
					w.agrees("WO-1", "16")
				})
			})
		}
	}
}

// refusing is a system that refuses the next posting.
type refusing struct {
	*modelERP
	next bool
}

func (r *refusing) Post(ctx context.Context, p connector.Posting, intent []byte) connector.Outcome {
	r.mu.Lock()
	no := r.next
	r.mu.Unlock()
	if no {
		return connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: "no_stock", Reason: "no stock", NextStep: "receive it"}
	}
	return r.modelERP.Post(ctx, p, intent)
}

func TestAggregateThatIsRefusedIsParkedWholeAndOneReplayPostsIt(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		r := &refusing{w.erp, true}
		w.opts.Connectors["erp"], w.opts.Policies = r, collecting(time.Minute)
		w.order("WO-1")
		w.start()
		f, g := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
		w.deliver(f, g)
		w.pass(5 * time.Minute)
		w.want(f, store.PostingParked, "no_stock")
		w.want(g, store.PostingParked, "no_stock")
		w.erp.mu.Lock()
		r.next = false
		w.erp.mu.Unlock()
		if err := w.e.ReplayFact(context.Background(), g.Key.String(), "anna"); err != nil { // not the first of them
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		w.want(g, store.PostingVerified, "")
		w.agrees("WO-1", "12")
		if n := w.documents("WO-1"); n != 1 {
			t.Errorf("%d documents", n)
		}
	})
}

func TestAggregateThatNobodyCanTellAboutIsDecidedOnce(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Policies = collecting(time.Minute)
		w.order("WO-1")
		w.start()
		f, g := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
		w.deliver(f, g)
		w.pass(30 * time.Second)
		stored, err := w.s.FactByKey(context.Background(), f.Key.String())
		if err != nil {
			t.Fatal(err)
		}
		w.pass(20 * time.Second)
		w.erp.set(trouble{lostRequest: 100})
		w.pass(15 * time.Second) // sealed and sent
		a, err := w.s.Aggregate(context.Background(), stored.ID)
		if err != nil || a == nil || a.Key.IsZero() {
			t.Fatalf("aggregate %+v, %v", a, err)
		}
		w.want(f, store.PostingInDoubt, "")
		w.want(g, store.PostingInDoubt, "")
		w.erp.set(trouble{dark: map[string]bool{a.Key.String(): true}})
		w.pass(10 * time.Minute)
		w.want(f, store.PostingParked, CodeCannotTell)
		if n, err := w.e.Replay(context.Background(), store.PostingFilter{Code: CodeCannotTell}, "anna"); err != nil || n == 0 { // both at once
			t.Fatal(n, err)
		}
		w.pass(time.Minute)
		if err := w.e.ReplayFact(context.Background(), g.Key.String(), "anna"); err != nil { // not the first of them
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(g, store.PostingParked, CodeCannotTell)
		w.erp.set(trouble{})
		if err := w.e.PostAgain(context.Background(), g.Key.String(), "not there", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(5 * time.Minute)
		w.want(f, store.PostingVerified, "")
		w.want(g, store.PostingVerified, "")
		w.agrees("WO-1", "12")
		if err := w.e.Renew(context.Background(), g.Key.String(), "restored from a copy", "anna"); err != nil {
			t.Fatal(err)
		}
		w.want(f, store.PostingDue, "")
		w.erp.mu.Lock()
		delete(w.erp.effects, a.Key.String())
		w.erp.mu.Unlock()
		w.pass(5 * time.Minute)
		w.want(f, store.PostingVerified, "")
		w.agrees("WO-1", "12")
	})
}

func TestShareOfAMemberIsTakenBackUnderItsOwnKey(t *testing.T) {
	for _, parts := range []bool{true, false} {
		t.Run(fmt.Sprintf("takes back a part %v", parts), func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				if parts {
					w.erp.parts = []object.Kind{object.KindConfirmation}
				}
				w.opts.Policies = collecting(time.Minute)
				w.order("WO-1")
				w.start()
				made, more := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
				used, rest := consume("WO-1", 1, "OIL", "2.5"), consume("WO-1", 2, "OIL", "4")
				undoMade, undoUsed := reversal(made, "made"), reversal(used, "used")
				w.erp.set(trouble{unreadable: 100})
				w.deliver(made, more, used, rest)
				w.pass(90 * time.Second)
				w.want(made, store.PostingPosted, "")
				w.deliver(undoMade, undoUsed)
				w.pass(time.Second)
				w.want(undoUsed, store.PostingDue, "")
				w.erp.set(trouble{})
				w.pass(5 * time.Minute)
				w.want(made, store.PostingVerified, "")
				w.want(undoUsed, store.PostingVerified, "")
				if sum := w.erp.consumed("WO-1"); sum.String() != "4" {
					t.Errorf("the outside system took %s, want 4", sum)
				}
				if parts {
					w.want(undoMade, store.PostingVerified, "")
					w.agrees("WO-1", "7")
					return
				}
				if p := w.want(undoMade, store.PostingParked, CodeReversal); !strings.Contains(p.Reason, "one document with 1 others") {
					t.Errorf("reason %q", p.Reason)
				}
				w.agrees("WO-1", "12")
			})
		})
	}
}

func TestWhatIsTakenBackWhileItIsCollectedIsNeverPosted(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Policies = collecting(time.Minute)
		w.order("WO-1")
		w.start()
		early := confirm("WO-1", 3, "4")
		made, more, alone := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7"), consume("WO-1", 1, "OIL", "2.5")
		undoEarly, undoMade, undoAlone, again := reversal(early, "early"), reversal(made, "made"), reversal(alone, "alone"), reversal(made, "again")
		w.deliver(undoEarly) // comes before what it takes back
		w.pass(time.Second)
		w.want(undoEarly, store.PostingParked, CodeWaitsForOriginal)
		w.deliver(early, made, more, alone, undoMade, undoAlone, again)
		w.pass(time.Second)
		w.want(undoMade, store.PostingDue, CodeCollecting)
		w.want(undoEarly, store.PostingDue, CodeCollecting)
		w.want(again, store.PostingParked, CodeReversal)
		w.pass(5 * time.Minute)
		for _, f := range []object.Fact{early, made, more, undoEarly, undoMade} {
			if p := w.want(f, store.PostingVerified, ""); p.Document != "D1" {
				t.Errorf("posting %+v", p)
			}
		}
		w.want(alone, store.PostingNotPosted, CodeCancelledOut)
		w.want(undoAlone, store.PostingNotPosted, CodeCancelledOut)
		if n := w.documents("WO-1"); n != 1 {
			t.Errorf("%d documents", n)
		}
		w.agrees("WO-1", "7")
	})
}

func TestMemberWhoseShareIsTheWholeDocumentIsTakenBackWithIt(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Policies = collecting(time.Minute)
		w.order("WO-1")
		w.start()
		f, g := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
		w.deliver(f, g)
		w.pass(time.Second)
		w.deliver(reversal(g, "g"))
		w.pass(5 * time.Minute)
		w.want(f, store.PostingVerified, "")
		undo := reversal(f, "f")
		w.deliver(undo)
		w.pass(5 * time.Minute)
		w.want(undo, store.PostingVerified, "")
		w.agrees("WO-1", "0")
	})
}

// TestSumOfDocumentsIsTheSumOfFactsUnderPolicies runs facts, repetitions, overlapping ranges and reversals through policies that
// collect, move dates, stop over-delivery and round, with a system that loses and refuses and a hub that dies. In the end
// a person decides what is left, and the documents hold what the facts say, but for what is named.
func TestSumOfDocumentsIsTheSumOfFactsUnderPolicies(t *testing.T) {
	seed := *seedFlag
	if seed == 0 {
		seed = rand.Uint64()
	}
	t.Logf("seed %d (run again with -seed %d)", seed, seed)
	simulate(t, func(t *testing.T, w *world) {
		rng := rand.New(rand.NewPCG(seed, 7))
		w.erp = newModel(seed, time.Now)
		w.erp.scale, w.erp.parts = 1, []object.Kind{object.KindConfirmation}
		w.opts.Connectors["erp"] = w.erp
		w.opts.Poll = 20 * time.Minute
		zero := decimal.Zero
		w.opts.Policies = []Policy{{Collect: &Collect{Every: time.Duration(rng.IntN(200)+1) * time.Second, Quantity: decimal.NewFromInt(int64(rng.IntN(300) + 50))},
			Late: LateFirstOpenDay, Closing: &Closing{Day: 1}, Delivery: DeliveryStop, Tolerance: &zero}}
		w.erp.set(trouble{down: 4, lostReply: 10, lostRequest: 5, delayed: 8, retry: 8, early: 2, unreadable: 10})
		const orders, each = 5, 30
		var facts []object.Fact
		made, used := map[string]decimal.Decimal{}, map[string]decimal.Decimal{}
		for o := range orders {
			no := fmt.Sprintf("WO-%d", o)
			counter := 0
			var own []object.Fact
			for n := range each {
				v := decimal.New(int64(rng.IntN(900)+1), -2)
				switch rng.IntN(5) {
				case 0:
					f := consume(no, n, "OIL", v.String())
					used[no] = used[no].Add(v)
					own = append(own, f)
				case 1:
					from := max(counter-rng.IntN(3), 0)
					to := counter + rng.IntN(9) + 1
					made[no] = made[no].Add(decimal.NewFromInt(int64(to - counter)))
					counter = to
					f := counted(no, fmt.Sprint(from), fmt.Sprint(to))
					f.Source = no
					own = append(own, f)
				case 2:
					if len(own) == 0 {
						continue
					}
					f := own[rng.IntN(len(own))]
					if f.CounterRange() != nil || !f.Reverses.IsZero() || slices.ContainsFunc(own, func(x object.Fact) bool { return x.Reverses == f.Key }) {
						continue
					}
					if f.Consumption != nil {
						used[no] = used[no].Sub(f.Consumption.Quantity.Value)
					} else {
						made[no] = made[no].Sub(f.Confirmation.Yield)
					}
					own = append(own, reversal(f, "undo"))
				default:
					made[no] = made[no].Add(v)
					own = append(own, confirm(no, n, v.String()))
				}
			}
			facts = append(facts, own...)
			facts = append(facts, state(no, object.FloorFinished))
		}
		put := func(no string, quantity int64, revision int64) {
			w.put(store.Order{Agent: "edge1", Order: object.WorkOrder{OrderNo: no, ERP: "erp", Plant: "ulm", Revision: revision, Item: "P", State: object.OrderReleased,
				Quantity: object.Quantity{Value: decimal.NewFromInt(quantity), Unit: "C62"}}})
		}
		w.start()
		crashes, corrected := 0, 0
		for i, round := 0, 0; i < len(facts) || round < 40; round++ {
			if i < len(facts) {
				n := min(rng.IntN(12)+1, len(facts)-i)
				w.deliver(facts[i : i+n]...)
				if rng.IntN(3) == 0 {
					w.deliver(facts[i]) // comes again
				}
				i += n
			}
			if round < orders {
				put(fmt.Sprintf("WO-%d", round), 60, 1)
			}
			w.pass(time.Duration(rng.IntN(90)) * time.Second)
			if rng.IntN(2) == 0 {
				w.die(rng)
				crashes++
			}
			if f := facts[rng.IntN(min(i+1, len(facts)))]; f.OrderState == nil && f.Reverses.IsZero() && rng.IntN(2) == 0 { // some are parked, some collected
				values := []store.Values{{Lot: "L7"}, {PostingDate: "2000-01-01"}}[rng.IntN(2)]
				switch err := w.e.Correct(context.Background(), f.Key.String(), values, "as told", "anna"); {
				case err == nil:
					corrected++
				case !errors.Is(err, ErrNotNow) && !errors.Is(err, store.ErrNotFound):
					t.Error(err)
				}
			}
		}
		w.pass(48 * time.Hour)
		w.erp.set(trouble{})
		for o := range orders {
			put(fmt.Sprintf("WO-%d", o), 100_000, 2)
		}
		for range 3 {
			if _, err := w.e.Replay(context.Background(), store.PostingFilter{}, "anna"); err != nil {
				t.Fatal(err)
			}
			w.pass(12 * time.Hour)
		}
		if got := w.counts(); strings.Contains(got, "parked") || strings.Contains(got, "due") || strings.Contains(got, "doubt") {
			t.Errorf("of %d facts: %s", len(facts), got)
		}
		documents := 0
		for o := range orders {
			no := fmt.Sprintf("WO-%d", o)
			documents += w.documents(no)
			left := w.named(no)
			if got := w.erp.yield(no).Add(left["C62"]); !got.Equal(made[no]) {
				t.Errorf("order %s: the outside system holds %s, and %s are named; the plant made %s", no, w.erp.yield(no), left["C62"], made[no])
			}
			if got := w.erp.consumed(no).Add(left["KGM"]); !got.Equal(used[no]) {
				t.Errorf("order %s: the outside system took %s, and %s are named; the plant used %s", no, w.erp.consumed(no), left["KGM"], used[no])
			}
		}
		t.Logf("%d facts, %d documents, %d corrections, %d crashes, calls %v", len(facts), documents, corrected, crashes, w.erp.calls)
		if documents >= len(facts)-orders {
			t.Error("nothing was collected")
		}
	})
}

// named sums by unit what the timeline of an order says was never posted.
func (w *world) named(no string) map[string]decimal.Decimal {
	w.t.Helper()
	_, _, steps, err := w.s.OrderTimeline(context.Background(), "", no)
	if err != nil {
		w.t.Fatal(err)
	}
	sums := map[string]decimal.Decimal{}
	for _, s := range steps {
		if s.Step == "never posted" {
			words := strings.Fields(s.Reason)
			sums[words[1]] = sums[words[1]].Add(decimal.RequireFromString(words[0]))
		}
	}
	return sums
}
