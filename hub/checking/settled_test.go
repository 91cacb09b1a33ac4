package checking_test

import (
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

func TestWhatHasSettledIsComparedOnceByItself(t *testing.T) {
	p := newPlant(t)
	p.produce(2)
	f := p.facts[0]
	if _, err := p.erp.Post(t.Context(), erp.Request{Kind: erp.KindConfirmation, ExternalKey: f.Key.String(), OrderNo: f.OrderNo(), Operation: "0010", Item: "BRACKET-10", Unit: "C62",
		Yield: f.Confirmation.Yield}); err != nil {
		t.Fatal(err)
	}
	if err := p.check.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
	if err != nil || len(all) != 1 || all[0].Type != reconcile.Duplicate || all[0].State != reconcile.Healing {
		t.Fatalf("%+v %v", all, err)
	}
	step, err := p.s.Compared(t.Context())
	if err != nil || step == 0 {
		t.Fatalf("compared up to step %d, %v", step, err)
	}
	if err := p.check.Settled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again, err := p.s.Compared(t.Context()); err != nil || again != step {
		t.Errorf("compared up to step %d, then %d (%v)", step, again, err)
	}
	totals, err := p.erp.Totals(t.Context())
	if err != nil || !totals.Orders[f.OrderNo()].Yield.Equal(p.made[f.OrderNo()]) {
		t.Errorf("the books hold %s, meant were %s (%v)", totals.Orders[f.OrderNo()].Yield, p.made[f.OrderNo()], err)
	}
}
