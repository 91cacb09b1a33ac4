package checking_test

import (
	"strings"
	"testing"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

// takeBackOne takes back one piece of a confirmation, and what that had used.
func (p *plant) takeBackOne(made, used object.Fact) {
	p.t.Helper()
	p.seq++
	piece := p.fact(object.KindConfirmation)
	c := *made.Confirmation
	c.Yield, c.CounterRange = decimal.NewFromInt(1), nil
	piece.Confirmation, piece.Reverses = &c, made.Key
	p.seq++
	steel := p.fact(object.KindConsumption)
	m := *used.Consumption
	m.Quantity.Value = decimal.RequireFromString("0.12")
	steel.Consumption, steel.Reverses = &m, used.Key
	p.made[c.OrderNo] = p.made[c.OrderNo].Sub(c.Yield)
	p.deliver(piece, steel)
	p.verified()
}

// SAP can cancel a confirmation only whole: the part is taken back by that and by what is left, and the comparison knows.
func TestAPartThatIsTakenBackInS4AddsUpAndIsNoDiscrepancy(t *testing.T) {
	p := newS4Plant(t, 1, s4double.Traps{})
	p.produce(2)
	backup := p.sap.Snapshot()
	for n := range 2 {
		p.takeBackOne(p.facts[2], p.facts[3])
		x := p.sap.Totals(p.orders[0])
		made := p.made[p.orders[0]]
		if used := x.Issued["STEEL-S235"].Sub(x.Returned["STEEL-S235"]); !x.Yield.Equal(made) || !x.Received.Equal(made) || !used.Equal(made.Mul(decimal.RequireFromString("0.12"))) {
			t.Errorf("SAP holds %+v, meant were %s made", x, made)
		}
		if run := p.all(); run.Found != 0 {
			all, _ := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
			t.Errorf("after part %d: %+v %+v", n+1, run, all)
		}
	}
	p.sap.Restore(backup) // what was taken back is there again, and what was left is not
	p.all()
	all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, d := range all {
		if d.Type == reconcile.Missing && d.State == reconcile.Escalated && strings.Contains(d.Note, "as if it had not been") {
			told++
		}
	}
	if x := p.sap.Totals(p.orders[0]); told != 1 || x.Confirmations != 2 {
		t.Errorf("%d are told of the document that was taken back, and SAP has %d confirmations; want 1 and 2: %+v", told, x.Confirmations, all)
	}
}

func TestAPartThatIsTakenBackInTheSandboxAddsUpAndIsNoDiscrepancy(t *testing.T) {
	p := newPlant(t)
	p.produce(2)
	p.takeBackOne(p.facts[2], p.facts[3])
	p.takeBackOne(p.facts[2], p.facts[3])
	if run := p.all(); run.Found != 0 {
		all, _ := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
		t.Errorf("%+v %+v", run, all)
	}
}
