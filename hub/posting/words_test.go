package posting

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/tally"
	"github.com/shopspring/decimal"
)

var before = time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC) // all facts

var weights = mapping.Set{Name: "weights", Kind: mapping.Unit, ERP: "erp"}

// approve puts the rows of a set in force from a time; zero means now.
func (w *world) approve(s mapping.Set, from time.Time, rows ...mapping.Row) int {
	w.t.Helper()
	ctx := context.Background()
	all, _, err := w.s.MappingVersions(ctx, s.Name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		w.t.Fatal(err)
	}
	c := mapping.Content{Rows: rows, Tests: []mapping.Test{{From: "not there", Missing: true}}}
	v, err := w.s.AddMappingVersion(ctx, s, len(all), c, "anna", "test", true)
	if err != nil {
		w.t.Fatal(err)
	}
	_, err = w.s.ChangeMapping(ctx, s.Name, v.Number, "approved", "bert", "test", func(v *mapping.Version, all []mapping.Version, now time.Time) error {
		return v.Approve(all, "bert", "test", from, now, mapping.Dry{Set: s.Name, Version: v.Number}, nil)
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return v.Number
}

func (w *world) applied(f object.Fact) *mapping.Applied {
	w.t.Helper()
	a, err := w.s.Applied(context.Background(), w.posting(f).FactID)
	if err != nil {
		w.t.Fatal(err)
	}
	return a
}

// booked is what the outside system holds of a fact.
func (w *world) booked(f object.Fact) object.Confirmation {
	w.t.Helper()
	w.erp.mu.Lock()
	defer w.erp.mu.Unlock()
	e, ok := w.erp.effects[f.Key.String()]
	if !ok {
		w.t.Fatalf("fact %q has no effect", f.Position)
	}
	return *e.fact.Confirmation
}

func (w *world) tally(order string) tally.Counts {
	w.t.Helper()
	edge, lines, err := w.s.TallyInput(context.Background(), store.TallyFilter{OrderNo: order})
	if err != nil {
		w.t.Fatal(err)
	}
	return tally.Of(edge, lines).Totals
}

func weighed(order string, n int, yield string) object.Fact {
	f := confirm(order, n, yield)
	f.Confirmation.Unit = "LBR"
	return f
}

var pounds = mapping.Row{From: "LBR", To: "KGM", Factor: "0.45359237"}

func TestFactIsPostedInTheWordsOfTheSystem(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.approve(weights, before, pounds)
		w.approve(mapping.Set{Name: "items", Kind: mapping.Item}, before, mapping.Row{From: "P", To: "M-77"})
		w.approve(mapping.Set{Name: "reasons", Kind: mapping.Reason, Plant: "ulm"}, before, mapping.Row{From: "bent", To: "0042"})
		w.approve(mapping.Set{Name: "sites", Kind: mapping.Site}, before, mapping.Row{From: "ulm", To: "1010"})
		w.start()
		f := weighed("WO-1", 1, "3")
		f.Confirmation.ScrapReason = "bent"
		w.deliver(f)
		w.pass(time.Minute)
		p := w.want(f, store.PostingVerified, "")
		if c := w.booked(f); c.Unit != "KGM" || c.Item != "M-77" || c.ScrapReason != "0042" || c.Yield.String() != "1.361" { // 1.36077711
			t.Errorf("the system holds %+v", c)
		}
		stored, err := w.s.FactByID(context.Background(), p.FactID)
		if err != nil || stored.Fact.Confirmation.Unit != "LBR" || stored.Fact.Confirmation.Item != "P" || stored.Fact.Confirmation.Yield.String() != "3" {
			t.Errorf("the fact was changed: %+v, %v", stored.Fact.Confirmation, err)
		}
		a := w.applied(f)
		var fields []string
		for _, v := range a.Values {
			fields = append(fields, fmt.Sprintf("%s:%d", v.Set, v.Version))
		}
		if got := strings.Join(fields, " "); got != "weights:1 items:1 reasons:1 sites:1" || a.Site != "1010" {
			t.Errorf("made by %s, site %q", got, a.Site)
		}
	})
}

func TestHubWithoutMappingsKeepsNoWords(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.start()
		f := weighed("WO-1", 1, "3")
		w.deliver(f)
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		if a := w.applied(f); a != nil || w.booked(f).Unit != "LBR" {
			t.Errorf("%+v, %+v", a, w.booked(f))
		}
	})
}

// An unknown unit stops that fact and no other; it goes on by itself when a version that has it comes into force, be it later.
func TestUnknownUnitWaitsForAMappingAndGoesOnByItself(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.approve(weights, before, pounds)
		w.start()
		known, unknown, later := weighed("WO-1", 1, "3"), confirm("WO-1", 2, "5"), confirm("WO-1", 3, "2")
		later.Confirmation.Unit = "TNE"
		w.deliver(unknown, known, later)
		w.pass(time.Minute)
		w.want(known, store.PostingVerified, "")
		p := w.want(unknown, store.PostingParked, CodeMappingMissing)
		if p.Class != ClassWaiting || !strings.Contains(p.Reason, `"C62"`) || !strings.Contains(p.Reason, `"weights"`) || !strings.Contains(p.NextStep, "weights") {
			t.Errorf("%+v", p)
		}
		pieces := mapping.Row{From: "C62", To: "C62"}
		w.approve(weights, time.Time{}, pounds, pieces) // from now on: the row was added for what lacked it
		w.pass(time.Minute)
		w.want(unknown, store.PostingVerified, "")
		w.want(later, store.PostingParked, CodeMappingMissing)
		w.approve(weights, time.Now().Add(3*time.Hour), pounds, pieces, mapping.Row{From: "TNE", To: "GRM", Factor: "1000000"})
		w.pass(2 * time.Hour)
		w.want(later, store.PostingParked, CodeMappingMissing)
		w.pass(time.Hour + time.Minute)
		w.want(later, store.PostingVerified, "")
		if c := w.booked(later); c.Unit != "GRM" || c.Yield.String() != "2000000" {
			t.Errorf("%+v", c)
		}
	})
}

func TestAMappingThatComesWhileTheHubIsDownIsUsed(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.approve(weights, before, pounds)
		w.start()
		f := confirm("WO-1", 1, "5")
		w.deliver(f)
		w.pass(time.Minute)
		w.want(f, store.PostingParked, CodeMappingMissing)
		w.stop()
		w.approve(weights, before, pounds, mapping.Row{From: "C62", To: "C62"})
		w.start()
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
	})
}

// Between posting and reversal the mapping changes: what is taken back is what was posted.
func TestReversalTakesBackWhatWasPostedWhateverTheMappingSaysNow(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.approve(weights, before, pounds)
		w.start()
		f, next := weighed("WO-1", 1, "3"), weighed("WO-1", 2, "3")
		w.deliver(f)
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		w.approve(weights, before, mapping.Row{From: "LBR", To: "GRM", Factor: "453.59237"})
		undo := reversal(f, "undo")
		w.deliver(undo, next)
		w.pass(time.Minute)
		w.want(undo, store.PostingVerified, "")
		w.want(next, store.PostingVerified, "")
		if c := w.booked(undo); c.Unit != "KGM" || c.Yield.String() != "1.361" {
			t.Errorf("taken back %+v", c)
		}
		if c := w.booked(next); c.Unit != "GRM" || c.Yield.String() != "1360.777" {
			t.Errorf("then posted %+v", c)
		}
		if sums := w.tally("WO-1"); !sums.Missing.IsZero() || !sums.Doubled.IsZero() || sums.Received.String() != "3" {
			t.Errorf("the ledger says %s", sums)
		}
	})
}

// What was sent keeps its words for the look-up and for the next attempt.
func TestWhatWasSentKeepsItsWords(t *testing.T) {
	for _, lost := range []trouble{{lostReply: 100}, {lostRequest: 100}} {
		simulate(t, func(t *testing.T, w *world) {
			w.order("WO-1")
			w.approve(weights, before, pounds)
			w.start()
			w.erp.set(lost)
			f := weighed("WO-1", 1, "3")
			w.deliver(f)
			w.pass(time.Second)
			w.want(f, store.PostingInDoubt, "")
			w.approve(weights, before, mapping.Row{From: "LBR", To: "GRM", Factor: "453.59237"})
			w.erp.set(trouble{})
			w.pass(time.Hour)
			p := w.want(f, store.PostingVerified, "")
			if c := w.booked(f); c.Unit != "KGM" || c.Yield.String() != "1.361" || w.applied(f).Values[0].Version != 1 {
				t.Errorf("attempt %d: %+v", p.Attempt, c)
			}
		})
	}
}

// A wrong version is taken back while the system cannot be reached: what waits goes out by the version before.
func TestWhatWasNotSentYetFollowsTheReturn(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.approve(weights, before, pounds)
		wrong := w.approve(weights, before, mapping.Row{From: "LBR", To: "GRM", Factor: "453.59237"})
		w.start()
		w.erp.set(trouble{down: 100})
		f, g := weighed("WO-1", 1, "3"), weighed("WO-1", 2, "5.5")
		w.deliver(f, g)
		w.pass(time.Minute)
		if a := w.applied(g); a.Unit != "GRM" || a.Values[0].Version != wrong {
			t.Fatalf("%+v", a)
		}
		if _, err := w.s.ReturnMapping(context.Background(), "weights", wrong, 0, "bert", "grams are wrong", time.Time{}); err != nil {
			t.Fatal(err)
		}
		w.erp.set(trouble{})
		w.pass(time.Hour)
		for i, f := range []object.Fact{f, g} {
			w.want(f, store.PostingVerified, "")
			if c, want := w.booked(f), []string{"1.361", "2.495"}[i]; c.Unit != "KGM" || c.Yield.String() != want {
				t.Errorf("%+v, want %s", c, want)
			}
			if a := w.applied(f); a.Values[0].Version != wrong+1 {
				t.Errorf("%+v", a)
			}
		}
	})
}

func TestReplayOfARejectedFactUsesTheMappingThatWasMended(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.order("WO-1")
		w.approve(weights, before, mapping.Row{From: "LBR", To: "GRM", Factor: "453.59237"})
		w.start()
		f := weighed("WO-1", 1, "3")
		w.erp.set(trouble{reject: map[string]bool{f.Key.String(): true}})
		w.deliver(f)
		w.pass(time.Minute)
		w.want(f, store.PostingParked, "period_closed")
		w.approve(weights, before, pounds)
		w.erp.set(trouble{})
		if err := w.e.ReplayFact(context.Background(), f.Key.String(), "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		if c := w.booked(f); c.Unit != "KGM" || c.Yield.String() != "1.361" {
			t.Errorf("%+v", c)
		}
	})
}

func TestMappedQuantitiesBelowTheSystemsScaleGoToTheNextPosting(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.scale = 0
		w.order("WO-1")
		w.approve(weights, before, mapping.Row{From: "LBR", To: "KGM", Factor: "0.45359237", FromScale: 0, Scale: ptr(3)})
		w.start()
		a, b, c := weighed("WO-1", 1, "1"), weighed("WO-1", 2, "1"), weighed("WO-1", 3, "2")
		w.deliver(a, b, c)
		w.pass(time.Minute)
		w.want(a, store.PostingNotPosted, CodeBelowScale) // 0.454
		w.want(b, store.PostingVerified, "")              // 0.907
		w.want(c, store.PostingVerified, "")              // 1.814
		if sum := w.erp.yield("WO-1"); sum.String() != "2" {
			t.Errorf("the system holds %s, want 2", sum)
		}
		if s := w.tally("WO-1"); !s.Missing.IsZero() || !s.Doubled.IsZero() || s.Received.String() != "4" {
			t.Errorf("the ledger says %s", s)
		}
	})
}

func ptr(n int32) *int32 { return &n }

// Whatever happens, what is posted is what its posting says that it is, and nothing gets lost between the units: what was
// counted is what went, and what is carried on.
func TestMappingsThatChangeUnderTroubleAndCrashesLoseNothing(t *testing.T) {
	for round := range 3 {
		seed := *seedFlag
		if seed == 0 {
			seed = rand.Uint64()
		}
		t.Run(fmt.Sprint(round), func(t *testing.T) {
			t.Logf("seed %d", seed)
			simulate(t, func(t *testing.T, w *world) { changeUnderTrouble(t, w, rand.New(rand.NewPCG(seed, 9))) })
		})
	}
}

func changeUnderTrouble(t *testing.T, w *world, rng *rand.Rand) {
	ways := []mapping.Row{pounds, {From: "LBR", To: "GRM", Factor: "453.59237"}, {From: "LBR", To: "LBR"}, {From: "LBR", To: "ONZ", Factor: "16"}}
	w.erp.scale = int32(rng.IntN(3))
	w.order("WO-1")
	w.order("WO-2")
	var mu sync.Mutex // the lanes die side by side
	dying := rand.New(rand.NewPCG(rng.Uint64(), 3))
	w.crash = func(string) error {
		mu.Lock()
		defer mu.Unlock()
		if dying.IntN(150) == 0 {
			return errDies
		}
		return nil
	}
	w.start()
	var facts []object.Fact
	versions, crashes := 0, 0
	for n := range 60 {
		f := weighed(fmt.Sprintf("WO-%d", 1+rng.IntN(2)), n, decimal.New(rng.Int64N(100_000), -3).String())
		facts = append(facts, f)
		w.deliver(f)
		if rng.IntN(8) == 0 && n > 5 {
			if of := facts[rng.IntN(len(facts)-1)]; of.Reverses.IsZero() {
				undo := reversal(of, fmt.Sprint("undo", n))
				facts = append(facts, undo)
				w.deliver(undo)
			}
		}
		if rng.IntN(6) == 0 {
			from := time.Time{}
			if rng.IntN(2) == 0 {
				from = before
			}
			way := ways[rng.IntN(len(ways))]
			if w.erp.scale == 0 || way.To == "LBR" {
				way.Scale = nil
			}
			w.approve(weights, from, way)
			versions++
		}
		w.erp.set(trouble{down: rng.IntN(40), lostReply: rng.IntN(30), lostRequest: rng.IntN(20), delayed: rng.IntN(20), retry: rng.IntN(20)})
		w.pass(time.Duration(rng.IntN(60)) * time.Second)
		select {
		case err := <-w.running:
			if !errors.Is(err, errDies) {
				t.Fatal(err)
			}
			crashes++
			w.cancel()
			w.cancel = nil
			w.start()
		default:
		}
	}
	w.crash = func(string) error { return nil }
	w.stop()
	w.erp.set(trouble{})
	w.start()
	w.pass(30 * time.Hour)
	t.Logf("%d facts, %d versions, %d crashes: %s", len(facts), versions, crashes, w.counts())
	w.nothingLostBetweenUnits(facts)
}

// nothingLostBetweenUnits checks each posting against the system, and the sums of each line against what is carried on.
func (w *world) nothingLostBetweenUnits(facts []object.Fact) {
	w.t.Helper()
	type line struct {
		order string
		a     string // the unit that it went out in, empty for its own
	}
	type sum struct {
		exact       *big.Rat
		counted, in decimal.Decimal
		said        *mapping.Applied
	}
	sums := map[line]*sum{}
	var mixed []string
	for _, f := range facts {
		p, a := w.posting(f), w.applied(f)
		sign := decimal.NewFromInt(1)
		if !f.Reverses.IsZero() {
			sign = sign.Neg()
		}
		switch p.State {
		case store.PostingVerified:
			want := adjusted(f, p.Amounts)
			if !f.Reverses.IsZero() {
				want = adjusted(f, negated(p.Amounts))
			}
			want = a.Apply(want)
			if got := w.booked(f); got.Unit != want.Confirmation.Unit || !got.Yield.Equal(want.Confirmation.Yield) {
				w.t.Errorf("fact %q: the system holds %s %s, its posting says %s %s", f.Position, got.Yield, got.Unit, want.Confirmation.Yield, want.Confirmation.Unit)
			}
		case store.PostingNotPosted:
			if p.Code == CodeZero || p.Code == CodeNothingToReverse {
				continue
			}
		case store.PostingParked:
			if p.Code == CodeReversal { // taken back twice, or itself a reversal
				continue
			}
			w.t.Fatalf("fact %q is parked: %s %s", f.Position, p.Code, p.Reason)
		default:
			w.t.Fatalf("fact %q is %s %s", f.Position, p.State, p.Reason)
		}
		unit := ""
		if a.Converts() {
			unit = a.Unit
		}
		k := line{f.OrderNo(), unit}
		s := sums[k]
		if s == nil {
			s = &sum{exact: new(big.Rat), said: a}
			sums[k] = s
		}
		if !slices.Contains(mixed, unit) {
			mixed = append(mixed, unit)
		}
		counted := f.Confirmation.Yield.Mul(sign)
		s.counted, s.in = s.counted.Add(counted), s.in.Add(p.Amounts.Yield)
		if a.Converts() {
			v, _ := a.Posted(object.Yield)
			s.exact.Add(s.exact, new(big.Rat).Mul(counted.Rat(), a.Ratio()))
			s.exact.Sub(s.exact, v.Mul(sign).Rat())
		}
	}
	w.update(func(tx *store.Tx) error {
		for k, s := range sums {
			of := object.LedgerKey{Plant: "ulm", OrderNo: k.order, Operation: "0010", Item: "P", Kind: object.Yield, Unit: "LBR"}
			if k.a == "" {
				carried, err := tx.Residue("erp", of)
				if err != nil {
					return err
				}
				if !s.counted.Equal(s.in.Add(carried)) {
					w.t.Errorf("%v: %s counted, %s went and %s is carried on", k, s.counted, s.in, carried)
				}
				continue
			}
			rest, own, err := tx.MappedResidue(mappedLine("erp", of, s.said))
			if err != nil {
				return err
			}
			if rest.Cmp(s.exact) != 0 || !s.counted.Equal(s.in.Add(own)) {
				w.t.Errorf("%v: %s counted, %s went and %s is carried on; in the system's unit %s is open and %s carried", k, s.counted, s.in, own, s.exact, rest)
			}
		}
		return nil
	})
	if len(mixed) < 2 {
		w.t.Logf("only %v: the draw was poor", mixed)
	}
}

// What policies decide by the order is decided in the words of the order: a component that the system takes by itself is found
// under its own item, and what is over-delivered is counted in the order's unit.
func TestPoliciesSeePostingsInTheWordsOfTheOrder(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.opts.Policies = []Policy{{Delivery: DeliveryStop}}
		w.put(store.Order{Agent: "edge1", Order: object.WorkOrder{OrderNo: "WO-1", ERP: "erp", Plant: "ulm", Revision: 1, Item: "M-77", State: object.OrderReleased,
			Quantity: object.Quantity{Value: decimal.NewFromInt(24), Unit: "C62"}, Components: []object.Component{{Item: "M-OIL", Operation: "0010", Backflush: true}}}})
		w.approve(mapping.Set{Name: "items", Kind: mapping.Item}, before, mapping.Row{From: "P", To: "M-77"}, mapping.Row{From: "OIL", To: "M-OIL"})
		w.approve(weights, before, mapping.Row{From: "XBX", To: "C62", Factor: "12"}, mapping.Row{From: "KGM", To: "KGM"})
		w.start()
		oil := consume("WO-1", 1, "OIL", "2")
		boxes := func(n int) object.Fact {
			f := confirm("WO-1", n, "1")
			f.Confirmation.Unit = "XBX"
			return f
		}
		w.deliver(oil, boxes(1), boxes(2), boxes(3))
		w.pass(time.Minute)
		w.want(oil, store.PostingNotPosted, CodeBackflushed)
		w.want(boxes(1), store.PostingVerified, "")
		w.want(boxes(2), store.PostingVerified, "")
		if p := w.want(boxes(3), store.PostingParked, CodeOverDelivery); !strings.Contains(p.Reason, "24 C62") || !strings.Contains(p.Reason, "36") {
			t.Errorf("%s", p.Reason)
		}
	})
}

func TestWhatRoundingLeavesInOtherWordsIsNamedAtTheEnd(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.scale = 2
		w.order("WO-1")
		w.approve(weights, before, pounds)
		w.start()
		w.deliver(weighed("WO-1", 1, "3"), state("WO-1", object.FloorFinished)) // 1.36077711
		w.pass(10 * time.Minute)
		w.want(state("WO-1", object.FloorFinished), store.PostingVerified, "")
		_, _, steps, err := w.s.OrderTimeline(context.Background(), "", "WO-1")
		if err != nil || !slices.ContainsFunc(steps, func(s store.OrderStep) bool {
			return s.Step == "never posted" && strings.HasPrefix(s.Reason, `0.00077711 KGM yield of item "P"`)
		}) {
			t.Errorf("%+v, %v", steps, err)
		}
	})
}
