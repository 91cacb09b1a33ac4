package posting

import (
	"context"
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

// reversal makes the fact that takes another back.
func reversal(of object.Fact, name string) object.Fact {
	f := base(of.Kind, "reversal", name, of.Position)
	f.Confirmation, f.Consumption, f.Reverses = of.Confirmation, of.Consumption, of.Key
	return f
}

func TestReversalFollowsItsOriginalAndTakesBackWhatWasPosted(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.scale = 1
		w.order("WO-1")
		w.start()
		wrong, right := confirm("WO-1", 1, "5.44"), confirm("WO-1", 2, "7.32")
		undo := reversal(wrong, "undo")
		w.deliver(wrong, undo, right) // planned in one transaction
		w.pass(time.Minute)
		w.want(wrong, store.PostingVerified, "")
		w.want(undo, store.PostingVerified, "")
		w.want(right, store.PostingVerified, "")
		if got := w.posting(undo).Amounts.Yield.String(); got != "-5.4" {
			t.Errorf("the ledger takes back %s, want -5.4", got)
		}
		if made := w.erp.madeOn("WO-1"); !slices.Equal(made, []string{wrong.Position, undo.Position, right.Position}) {
			t.Errorf("order of the effects: %v", made)
		}
		w.deliver(confirm("WO-1", 3, "0.05"), confirm("WO-1", 4, "0.23")) // what rounding carried on is taken back, too
		w.pass(time.Minute)
		if sum := w.erp.yield("WO-1"); sum.String() != "7.6" { // 5.44 - 5.44 + 7.32 + 0.05 + 0.23
			t.Errorf("the outside system holds %s, want 7.6", sum)
		}
		edge, lines, err := w.s.TallyInput(context.Background(), store.TallyFilter{OrderNo: "WO-1"})
		if err != nil {
			t.Fatal(err)
		}
		sums := tally.Of(edge, lines).Totals
		if sums.Received.String() != "7.6" || sums.Posted.String() != "7.6" || !sums.Missing.IsZero() || !sums.Doubled.IsZero() {
			t.Errorf("the ledger says %s", sums)
		}
		_, life, err := w.s.Life(context.Background(), wrong.Key.String())
		if err != nil || !slices.ContainsFunc(life, func(s store.LifeStep) bool {
			return s.Step == stepReversed && strings.Contains(s.Reason, undo.Key.String())
		}) {
			t.Errorf("the life of the fact does not say that it was taken back: %+v, %v", life, err)
		}
	})
}

func TestReversalOfWhatIsInTheBooksIsPostedAtOnce(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.start()
		wrong := confirm("WO-1", 1, "5")
		w.deliver(wrong)
		w.pass(time.Minute)
		w.want(wrong, store.PostingVerified, "")
		undo := reversal(wrong, "undo")
		w.deliver(undo)
		w.pass(time.Minute)
		w.want(undo, store.PostingVerified, "")
	})
}

func TestReversalOfAParkedFactWaitsAndStopsNoNeighbour(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		bad, next := confirm("WO-1", 1, "5"), confirm("WO-1", 3, "7")
		undo := reversal(bad, "undo")
		w.erp.set(trouble{reject: map[string]bool{bad.Key.String(): true}})
		w.start()
		w.deliver(bad, undo, next)
		w.pass(10 * time.Minute)
		w.want(bad, store.PostingParked, "period_closed")
		if p := w.want(undo, store.PostingParked, CodeWaitsForOriginal); p.Class != ClassWaiting || !strings.Contains(p.Reason, "parked") {
			t.Errorf("posting %+v", p)
		}
		w.want(next, store.PostingVerified, "")
		w.stop() // what waits must be known to the hub that starts again
		w.start()
		w.erp.set(trouble{})
		w.pass(time.Second)
		if err := w.e.ReplayFact(context.Background(), bad.Key.String(), "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(bad, store.PostingVerified, "")
		w.want(undo, store.PostingVerified, "")
		if sum := w.erp.yield("WO-1"); sum.String() != "7" {
			t.Errorf("the outside system holds %s, want 7", sum)
		}
	})
}

func TestReversalWaitsUntilItsOriginalWasReadBack(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.start()
		wrong, next := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
		undo := reversal(wrong, "undo")
		w.erp.set(trouble{unreadable: 100})
		w.deliver(wrong, undo, next)
		w.pass(time.Minute)
		w.want(wrong, store.PostingPosted, "")
		w.want(undo, store.PostingDue, "")
		w.want(next, store.PostingDue, "") // the order is kept
		w.erp.mu.Lock()
		e := w.erp.effects[wrong.Key.String()]
		e.fact.Confirmation = &object.Confirmation{OrderNo: "WO-1", Yield: decimal.NewFromInt(4)}
		w.erp.effects[wrong.Key.String()] = e
		w.erp.mu.Unlock()
		w.erp.set(trouble{})
		w.pass(10 * time.Minute)
		w.want(wrong, store.PostingParked, CodeDiffers)
		w.want(undo, store.PostingParked, CodeWaitsForOriginal)
		w.want(next, store.PostingVerified, "")
		w.erp.mu.Lock()
		e.fact.Confirmation = wrong.Confirmation
		w.erp.effects[wrong.Key.String()] = e
		w.erp.mu.Unlock()
		if err := w.e.ReplayFact(context.Background(), wrong.Key.String(), "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(undo, store.PostingVerified, "")
	})
}

func TestReversalThatCameBeforeItsOriginalWaitsForIt(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.start()
		wrong := confirm("WO-1", 1, "5")
		undo := reversal(wrong, "undo")
		w.deliver(undo)
		w.pass(time.Hour)
		w.want(undo, store.PostingParked, CodeWaitsForOriginal)
		w.deliver(wrong)
		w.pass(time.Minute)
		w.want(wrong, store.PostingVerified, "")
		w.want(undo, store.PostingVerified, "")
	})
}

func TestReversalOfWhatHasNoEffectNeedsNone(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		bad, known := confirm("WO-1", 1, "5"), counted("WO-1", "0", "10")
		again := base(object.KindConfirmation, "the same range once more")
		again.Confirmation = known.Confirmation
		w.erp.set(trouble{reject: map[string]bool{bad.Key.String(): true}})
		w.start()
		undoBad, undoAgain := reversal(bad, "1"), reversal(again, "2")
		w.deliver(undoAgain, bad, undoBad, known, again)
		w.pass(time.Minute)
		w.want(again, store.PostingNotPosted, CodeRangeKnown)
		w.want(undoAgain, store.PostingNotPosted, CodeNothingToReverse)
		if err := w.e.Accept(context.Background(), bad.Key.String(), "", "never happened", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(undoBad, store.PostingNotPosted, CodeNothingToReverse)
		if sum := w.erp.yield("WO-1"); sum.String() != "10" {
			t.Errorf("the outside system holds %s, want 10", sum)
		}
	})
}

func TestReversalThatDoesNotFitIsAPersons(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.order("WO-2")
		w.start()
		first := confirm("WO-1", 1, "5")
		less, elsewhere := reversal(first, "less"), reversal(first, "elsewhere")
		less.Confirmation = &object.Confirmation{OrderNo: "WO-1", Operation: "0010", Item: "P", Unit: "C62", Yield: decimal.NewFromInt(3)}
		elsewhere.Confirmation = &object.Confirmation{OrderNo: "WO-2", Operation: "0010", Item: "P", Unit: "C62", Yield: decimal.NewFromInt(5)}
		undo, second := reversal(first, "undo"), reversal(first, "second")
		ofUndo := reversal(undo, "of the undo")
		w.deliver(first, less, elsewhere, undo, second, ofUndo)
		w.pass(time.Minute)
		w.want(undo, store.PostingVerified, "")
		for f, words := range map[*object.Fact]string{&less: "takes back 3 C62", &elsewhere: `order "WO-1"`, &second: "taken back by fact " + undo.Key.String() + " already", &ofUndo: "itself a reversal"} {
			if p := w.want(*f, store.PostingParked, CodeReversal); !strings.Contains(p.Reason, words) || p.NextStep == "" {
				t.Errorf("reason %q does not say %q", p.Reason, words)
			}
		}
		if sum := w.erp.yield("WO-1"); !sum.IsZero() {
			t.Errorf("the outside system holds %s, want 0", sum)
		}
	})
}

// cannotReverse is a system that takes nothing back by itself.
type cannotReverse struct{ *modelERP }

func (c cannotReverse) Capabilities() connector.Capabilities {
	x := c.modelERP.Capabilities()
	x.Reverses = nil
	return x
}

func TestReversalInASystemThatCannotIsAPersons(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Connectors["erp"] = cannotReverse{w.erp}
		w.order("WO-1")
		w.start()
		first := confirm("WO-1", 1, "5")
		undo := reversal(first, "undo")
		w.deliver(first, undo)
		w.pass(time.Minute)
		if p := w.want(undo, store.PostingParked, CodeReversal); !strings.Contains(p.Reason, "does not do that by itself") {
			t.Errorf("reason %q", p.Reason)
		}
	})
}
