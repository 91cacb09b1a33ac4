package checking_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/reconcile"
)

// half makes a confirmation of five whose goods movement fails, and waits until the hub has seen that.
func (p *plant) half() object.Fact {
	p.t.Helper()
	p.erp.SetFaults(erp.Faults{HalfApply: 1})
	f := p.confirm(time.Now().In(time.FixedZone("", 3600)), func(*object.Fact) {})
	p.becomes(f, "parked "+posting.CodeDiffers)
	p.erp.SetFaults(erp.Faults{})
	return f
}

// onHand is what the ERP holds of what the order makes.
func (p *plant) onHand() decimal.Decimal {
	p.t.Helper()
	all, err := p.erp.Stock(p.t.Context(), []string{"BRACKET-10"})
	if err != nil || len(all) != 1 {
		p.t.Fatal(all, err)
	}
	return all[0].OnHand
}

// A movement that failed is posted once, whatever answer is lost, the fact is compared again, and the heal can be taken back.
func TestAMovementThatFailedIsPostedOnceAndThatCanBeTakenBack(t *testing.T) {
	for _, lost := range []bool{false, true} {
		t.Run(fmt.Sprintf("reply lost %v", lost), func(t *testing.T) {
			p := newPlant(t)
			before := p.onHand()
			f := p.half()
			if got := p.onHand(); !got.Equal(before) {
				t.Fatalf("%s on hand, want %s: the movement has failed", got, before)
			}
			if lost {
				p.erp.SetFaults(erp.Faults{LoseReply: 1})
			}
			if run := p.all(); run.Found != 1 || run.Begun != 1 {
				t.Fatalf("%+v", run)
			}
			p.erp.SetFaults(erp.Faults{})
			if lost { // nobody knows, and a person asks for it again
				if err := p.check.Act(t.Context(), p.only(reconcile.MovementFailed).ID, "anna", "look again"); err != nil {
					t.Fatal(err)
				}
			}
			p.becomes(f, "verified")
			if got := p.onHand().Sub(before); got.String() != "5" {
				t.Errorf("%s were received, want 5", got)
			}
			if run := p.all(); run.Found != 0 {
				t.Errorf("%+v", run)
			}
			d := p.only(reconcile.MovementFailed)
			if d.State != reconcile.Healed || len(d.Heals) == 0 || !d.Heals[0].Books {
				t.Errorf("%+v", d)
			}
			if err := p.check.Undo(t.Context(), d.ID, "anna", "the pieces were scrapped", false); err != nil {
				t.Fatal(err)
			}
			p.becomes(f, "settled "+posting.CodeTakenBack)
			if got := p.onHand(); !got.Equal(before) {
				t.Errorf("%s on hand after the heal was taken back, want %s", got, before)
			}
		})
	}
}

// While its period is closed nothing is posted, and it is no heal; once it is open a person has it done.
func TestAMovementIsNotPostedWhileItsPeriodIsClosed(t *testing.T) {
	p := newPlant(t)
	f := p.half()
	period := time.Now().UTC().Format("2006-01")
	if err := p.erp.SetPeriod(t.Context(), period, false); err != nil {
		t.Fatal(err)
	}
	p.all()
	d := p.only(reconcile.MovementFailed)
	if n, err := p.s.CountHeals(t.Context()); err != nil || n.Made != 0 || len(d.Heals) != 0 || d.State != reconcile.Open && d.State != reconcile.Escalated {
		t.Errorf("%+v, %+v %v", d, n, err)
	}
	if err := p.erp.SetPeriod(t.Context(), period, true); err != nil {
		t.Fatal(err)
	}
	if err := p.check.Act(t.Context(), d.ID, "anna", "the period is open"); err != nil {
		t.Fatal(err)
	}
	p.becomes(f, "verified")
}

// A heal is limited by the value of what it moves.
func TestAMovementOfGreatValueIsLeftToAPerson(t *testing.T) {
	p := newPlant(t)
	p.policy(func(r *reconcile.Policy) {
		r.Prices = map[string]decimal.Decimal{"BRACKET-10": decimal.NewFromInt(10_000)}
	})
	p.half()
	if run := p.all(); run.Found != 1 || run.Begun != 0 {
		t.Fatalf("%+v", run)
	}
	if d := p.only(reconcile.MovementFailed); d.State != reconcile.Escalated && d.State != reconcile.Open || !strings.Contains(d.Note, "without a person") {
		t.Errorf("%+v", d)
	}
}
