package reconcile_test

import (
	"math/rand/v2"
	"reflect"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/reconcile"
)

func missing(t *testing.T) (reconcile.Order, reconcile.Finding) {
	t.Helper()
	o := clean(1, rand.New(rand.NewPCG(1, 1)))
	drop(&o, o.Facts[0].Key.String())
	found := reconcile.CheckOrder(o, reconcile.DefaultPolicy())
	if len(found) != 1 {
		t.Fatalf("%+v", found)
	}
	return o, found[0]
}

func TestThereIsOneLiveDiscrepancyForATypeAndASubject(t *testing.T) {
	_, f := missing(t)
	p := reconcile.DefaultPolicy()
	changes := reconcile.Merge(now, nil, []reconcile.Finding{f, f, f}, reconcile.Used{}, p)
	if len(changes) != 1 {
		t.Fatalf("%d changes of one subject", len(changes))
	}
	d := changes[0].Discrepancy
	d.ID = 7
	for range 5 {
		changes = reconcile.Merge(now.Add(time.Minute), []reconcile.Discrepancy{d}, []reconcile.Finding{f, f}, reconcile.Used{}, p)
		if len(changes) != 1 || changes[0].ID != 7 || changes[0].Begin {
			t.Fatalf("%+v", changes)
		}
		d = changes[0].Discrepancy
	}
	if d.Times != 6 || d.Heals != 1 {
		t.Errorf("seen %d times, healed %d times", d.Times, d.Heals)
	}
	gone := reconcile.Merge(now.Add(2*time.Minute), []reconcile.Discrepancy{d}, nil, reconcile.Used{}, p)
	if len(gone) != 1 || gone[0].State != reconcile.Healed {
		t.Errorf("%+v", gone)
	}
}

func TestHealsHaveLimitsAndEndWithAPerson(t *testing.T) {
	_, f := missing(t)
	f.Proposed.Item, f.Proposed.Quantity = "GEAR", decimal.NewFromInt(10)
	p := reconcile.DefaultPolicy()
	p.Prices = map[string]decimal.Decimal{"GEAR": decimal.NewFromInt(100)}
	for name, c := range map[string]struct {
		used   reconcile.Used
		change func(*reconcile.Policy)
		heal   bool
	}{
		"within":    {heal: true},
		"per order": {used: reconcile.Used{Order: 20}},
		"per day":   {used: reconcile.Used{Day: 1000}},
		"value":     {change: func(p *reconcile.Policy) { p.Limits.Value = decimal.NewFromInt(999) }},
		"at value":  {change: func(p *reconcile.Policy) { p.Limits.Value = decimal.NewFromInt(1000) }, heal: true},
		"never":     {change: func(p *reconcile.Policy) { p.Limits.PerDay = 0 }},
	} {
		q := p
		if c.change != nil {
			c.change(&q)
		}
		if d := reconcile.Decide(f, c.used, q); d.Heal != c.heal || d.Why == "" {
			t.Errorf("%s: %+v", name, d)
		}
	}
	var known []reconcile.Discrepancy
	begun := 0
	for at := now; at.Before(now.Add(10 * time.Hour)); at = at.Add(time.Minute) {
		for _, c := range reconcile.Merge(at, known, []reconcile.Finding{f}, reconcile.Used{}, p) {
			known = []reconcile.Discrepancy{c.Discrepancy}
			if c.Begin {
				begun++
			}
		}
	}
	if begun != 3 || known[0].State != reconcile.Escalated || known[0].Tier != 2 {
		t.Errorf("begun %d times, now %s in tier %d", begun, known[0].State, known[0].Tier)
	}
}

func TestWhatWasAcceptedStaysAcceptedUntilItChanges(t *testing.T) {
	_, f := missing(t)
	p := reconcile.DefaultPolicy()
	d := reconcile.Discrepancy{ID: 1, Finding: f, State: reconcile.Accepted}
	if c := reconcile.Merge(now, []reconcile.Discrepancy{d}, []reconcile.Finding{f}, reconcile.Used{}, p); len(c) != 0 {
		t.Errorf("%+v", c)
	}
	f.Right.Value = "another"
	if c := reconcile.Merge(now, []reconcile.Discrepancy{d}, []reconcile.Finding{f}, reconcile.Used{}, p); len(c) != 1 || c[0].ID != 0 {
		t.Errorf("%+v", c)
	}
}

func TestEveryHealThatChangesBooksCanBeUndone(t *testing.T) {
	for _, k := range []reconcile.ActionKind{reconcile.LookUpAndSend, reconcile.ReverseDocument, reconcile.PostMovement, reconcile.Convert, reconcile.MoveDate, reconcile.Reopen} {
		if u, ok := reconcile.UndoOf(reconcile.Action{Kind: k, Document: "1", Fact: "K"}, "2"); !ok || u.Kind == reconcile.NoAction || u.Text == "" {
			t.Errorf("%s: %+v", k, u)
		}
	}
}

func TestNothingYoungOrUnaskedIsCalledMissing(t *testing.T) {
	o, _ := missing(t)
	p := reconcile.DefaultPolicy()
	young := o
	young.Facts = append([]reconcile.Fact(nil), o.Facts...)
	for i := range young.Facts {
		young.Facts[i].Since = now.Add(-time.Minute)
	}
	if f := reconcile.CheckOrder(young, p); len(f) != 0 {
		t.Errorf("younger than the settle time: %+v", f)
	}
	silent := o
	silent.Asked = false
	if f := reconcile.CheckOrder(silent, p); len(f) != 0 {
		t.Errorf("the system was not asked: %+v", f)
	}
}

func TestTheOrderOfTheInputDoesNotMatter(t *testing.T) {
	for i, s := range seeds() {
		a, p := clean(3, rand.New(rand.NewPCG(3, 3))), reconcile.DefaultPolicy()
		s.spoil(&a, &p)
		b := a
		b.Facts, b.Effects = append([]reconcile.Fact(nil), a.Facts...), append(b.Effects[:0:0], a.Effects...)
		r := rand.New(rand.NewPCG(uint64(i), 5))
		r.Shuffle(len(b.Facts), func(i, j int) { b.Facts[i], b.Facts[j] = b.Facts[j], b.Facts[i] })
		r.Shuffle(len(b.Effects), func(i, j int) { b.Effects[i], b.Effects[j] = b.Effects[j], b.Effects[i] })
		if x, y := reconcile.CheckOrder(a, p), reconcile.CheckOrder(b, p); !reflect.DeepEqual(x, y) {
			t.Errorf("%s:\n%+v\n%+v", s.name, x, y)
		}
	}
}
