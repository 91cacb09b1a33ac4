package posting

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

var (
	movementSet = mapping.Set{Name: "movements", Kind: mapping.Movement, ERP: "erp"}
	issues      = mapping.Row{From: "ISSUE_TO_ORDER", To: "Z61"}
	returns     = mapping.Row{From: "RETURN_FROM_ORDER", To: "Z62"}
)

// moved is the type of movement by which the outside system holds a fact.
func (w *world) moved(f object.Fact) string {
	w.t.Helper()
	w.erp.mu.Lock()
	defer w.erp.mu.Unlock()
	e, ok := w.erp.effects[f.Key.String()]
	if !ok {
		w.t.Fatalf("fact %q has no effect", f.Position)
	}
	return e.move
}

// Without a set the connector's own types count, with one its types, also of a narrower one for a plant.
func TestMovementsArePostedWithTheTypeThatTheMappingSays(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.types = true
		w.order("WO-1")
		w.start()
		own, theirs, plants := consume("WO-1", 1, "STEEL", "1"), consume("WO-1", 2, "STEEL", "1"), consume("WO-1", 3, "STEEL", "1")
		w.deliver(own)
		w.pass(time.Minute)
		w.approve(movementSet, before, issues, returns)
		w.deliver(theirs)
		w.pass(time.Minute)
		w.approve(mapping.Set{Name: "ulm-movements", Kind: mapping.Movement, ERP: "erp", Plant: "ulm"}, before, mapping.Row{From: "ISSUE_TO_ORDER", To: "Y61"})
		w.deliver(plants)
		w.pass(time.Minute)
		for f, want := range map[*object.Fact]string{&own: "261", &theirs: "Z61", &plants: "Y61"} {
			w.want(*f, store.PostingVerified, "")
			if got := w.moved(*f); got != want {
				t.Errorf("fact %q was posted as %s, want %s", f.Position, got, want)
			}
		}
		if v := w.applied(theirs).Values; len(v) != 1 || v[0].Field != "movement" || v[0].To != "Z61" || v[0].Version != 1 {
			t.Errorf("the trail says %+v", v)
		}
	})
}

// A system that is told no types is not stopped by a set that lacks one.
func TestSystemWithoutTypesOfMovementsIsNotConcerned(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.approve(movementSet, before, returns)
		w.start()
		f := consume("WO-1", 1, "STEEL", "1")
		w.deliver(f)
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		if a := w.applied(f); a.Movements != nil || len(a.Values) > 0 {
			t.Errorf("%+v", a)
		}
	})
}

// An unknown movement stops its fact and no other, takes nothing from what rounding carries, and goes on by itself.
func TestUnknownMovementWaitsForAMappingAndGoesOnByItself(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.types, w.erp.scale = true, 0
		w.order("WO-1")
		w.approve(movementSet, before, returns)
		w.start()
		f, neighbour, next := consume("WO-1", 1, "STEEL", "1.6"), confirm("WO-1", 1, "5"), consume("WO-1", 2, "STEEL", "1.6")
		w.deliver(f, neighbour)
		w.pass(time.Minute)
		p := w.want(f, store.PostingParked, CodeMappingMissing)
		if p.Class != ClassWaiting || p.Attempt != 0 || p.Amounts.Quantity.String() != "1.6" || !strings.Contains(p.Reason, "ISSUE_TO_ORDER") || !strings.Contains(p.NextStep, `"movements"`) {
			t.Errorf("%+v", p)
		}
		w.want(neighbour, store.PostingVerified, "")
		if err := w.e.ReplayFact(context.Background(), f.Key.String(), "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(f, store.PostingParked, CodeMappingMissing)
		w.approve(movementSet, before, returns, issues)
		w.pass(time.Minute)
		w.deliver(next)
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		w.want(next, store.PostingVerified, "")
		if got := w.moved(f); got != "Z61" {
			t.Errorf("posted as %s", got)
		}
		if got := w.erp.consumed("WO-1").String(); got != "3" { // 3.2 counted
			t.Errorf("%s consumed, want 3", got)
		}
	})
}

// What was sent keeps its type for the look-up, for the next attempt and for the reversal; the type that takes it back may come later.
func TestMovementThatWasSentKeepsItsTypeAndIsTakenBackByItsOpposite(t *testing.T) {
	for _, lost := range []trouble{{lostReply: 100}, {lostRequest: 100}} {
		simulate(t, func(t *testing.T, w *world) {
			w.erp.types = true
			w.order("WO-1")
			w.approve(movementSet, before, issues)
			w.start()
			w.erp.set(lost)
			f := consume("WO-1", 1, "STEEL", "2")
			w.deliver(f)
			w.pass(time.Second)
			w.want(f, store.PostingInDoubt, "")
			w.approve(movementSet, before, mapping.Row{From: "ISSUE_TO_ORDER", To: "Y61"})
			w.erp.set(trouble{})
			w.pass(time.Hour)
			w.want(f, store.PostingVerified, "")
			undo := reversal(f, "undo")
			w.deliver(undo)
			w.pass(time.Minute)
			w.want(undo, store.PostingParked, CodeMappingMissing)
			w.approve(movementSet, before, mapping.Row{From: "ISSUE_TO_ORDER", To: "Y61"}, returns)
			w.pass(time.Minute)
			w.want(undo, store.PostingVerified, "")
			if f, back := w.moved(f), w.moved(undo); f != "Z61" || back != "Z62" {
				t.Errorf("posted as %s and taken back as %s, want Z61 and Z62", f, back)
			}
			if got := w.erp.consumed("WO-1"); !got.IsZero() {
				t.Errorf("%s are left", got)
			}
		})
	}
}

// askedAgain lets something happen while the outside system is asked in vain for a type of movement.
type askedAgain struct {
	*modelERP
	meanwhile func()
}

func (x *askedAgain) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	intent, out, err := x.modelERP.Prepare(ctx, p)
	if f := x.meanwhile; f != nil && out != nil && out.Code == CodeMappingMissing {
		x.meanwhile = nil
		f()
	}
	return intent, out, err
}

// A version that is approved while the version before is found to lack a word is followed at once: nobody would look again for an hour.
func TestMappingThatComesWhileAWordIsMissedIsFollowed(t *testing.T) {
	for _, enough := range []bool{true, false} {
		simulate(t, func(t *testing.T, w *world) {
			x := &askedAgain{modelERP: w.erp}
			w.opts.Connectors["erp"] = x
			w.erp.types = true
			w.order("WO-1")
			w.approve(movementSet, before, issues)
			w.start()
			f := consume("WO-1", 1, "STEEL", "2")
			w.deliver(f)
			w.pass(time.Minute)
			w.want(f, store.PostingVerified, "")
			undo := reversal(f, "undo")
			x.meanwhile = func() {
				rows := []mapping.Row{issues}
				if enough {
					rows = append(rows, returns)
				}
				w.approve(movementSet, before, rows...)
				time.Sleep(time.Second) // of a fake clock: who waits for mappings looks now
			}
			w.deliver(undo)
			w.pass(time.Minute)
			if !enough {
				p := w.want(undo, store.PostingParked, CodeMappingMissing)
				if !strings.Contains(p.Reason, "version 2") {
					t.Errorf("parked for %q", p.Reason)
				}
				return
			}
			w.want(undo, store.PostingVerified, "")
		})
	}
}
