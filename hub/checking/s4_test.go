package checking_test

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

// s4plant is a plant whose ERP is the double of S/4HANA.
type s4plant struct {
	*plant
	sap *s4double.System
	c   *s4.Connector
}

func newS4Plant(t *testing.T, orders int, traps s4double.Traps, change ...func(*reconcile.Policy)) *s4plant {
	t.Helper()
	return configuredS4Plant(t, orders, traps, func(*s4.Config) {}, change...)
}

// configuredS4Plant is newS4Plant with another configuration of the connector.
func configuredS4Plant(t *testing.T, orders int, traps s4double.Traps, set func(*s4.Config), change ...func(*reconcile.Policy)) *s4plant {
	t.Helper()
	p := &s4plant{plant: &plant{t: t, dir: t.TempDir(), made: map[string]decimal.Decimal{}}, sap: s4double.New(s4double.Options{})}
	traps.PageSize = 3
	p.sap.SetTraps(traps)
	p.sap.PutMaterial(s4double.Material{Number: "BRACKET-10", Unit: "PC", UnitISO: "PCE"})
	p.sap.PutMaterial(s4double.Material{Number: "STEEL-S235", Unit: "KG", UnitISO: "KGM", Decimals: 3})
	p.sap.PutStock("STEEL-S235", "1710", "171A", decimal.NewFromInt(100_000))
	server := httptest.NewServer(p.sap.Handler())
	t.Cleanup(server.Close)
	cfg := s4.Config{Name: "erp", URL: server.URL, User: "LINEKEEPER", Password: "secret", Units: map[string]string{"PCE": "C62", "PC": "C62", "KG": "KGM"},
		Repeatable: true, Settle: 100 * time.Millisecond, Timeout: time.Second}
	set(&cfg)
	c, err := s4.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p.hub(c, change...)
	p.c = c
	for range orders {
		q := decimal.NewFromInt(1000)
		p.know(c, p.sap.CreateOrder(s4double.Order{Material: "BRACKET-10", Plant: "1710", StorageLocation: "171A", Quantity: q, Released: true, AutomaticReceipt: true,
			Operations: []s4double.Operation{{Number: "0010", WorkCenter: "PRESS"}},
			Components: []s4double.Component{{Material: "STEEL-S235", StorageLocation: "171A", Operation: "0010", Required: q.Mul(decimal.RequireFromString("0.12")), Backflush: traps.AlwaysBackflush}}}))
	}
	return p
}

// balanced compares SAP's books with what was meant.
func (p *s4plant) balanced() {
	p.t.Helper()
	confirmations, documents := 0, 0
	for _, no := range p.orders {
		x := p.sap.Totals(no)
		used := x.Issued["STEEL-S235"].Sub(x.Returned["STEEL-S235"])
		if !x.Yield.Equal(p.made[no]) || !x.Received.Equal(p.made[no]) || !used.Equal(p.made[no].Mul(decimal.RequireFromString("0.12"))) {
			p.t.Errorf("order %s: SAP holds %s confirmed, %s received and %s used; meant were %s made", no, x.Yield, x.Received, used, p.made[no])
		}
		confirmations, documents = confirmations+x.Confirmations, documents+x.Documents
	}
	if confirmations+documents != len(p.facts) {
		p.t.Errorf("SAP holds %d confirmations and %d material documents for %d facts", confirmations, documents, len(p.facts))
	}
}

// parked waits until so many postings are with a person.
func (p *s4plant) parked(n int64) {
	p.t.Helper()
	realparts.Eventually(p.t, 60*time.Second, "postings are parked", func() error {
		have, err := p.s.CountPostings(p.t.Context(), store.PostingFilter{State: store.PostingParked})
		if err == nil && have != n {
			err = fmt.Errorf("%d are parked, want %d", have, n)
		}
		return err
	})
}

// one is the only discrepancy there is, in any state.
func (p *s4plant) one(want reconcile.Type, state reconcile.State) reconcile.Discrepancy {
	p.t.Helper()
	all, err := p.s.Discrepancies(p.t.Context(), store.DiscrepancyFilter{}, store.Page{})
	if err != nil || len(all) != 1 || all[0].Type != want || all[0].State != state {
		p.t.Fatalf("%+v %v, want one %s, %s", all, err, want, state)
	}
	return all[0]
}

func TestARestoredS4IsFoundInOneRunAndBroughtForwardWithoutDoubles(t *testing.T) {
	p := newS4Plant(t, 3, s4double.Traps{})
	p.produce(4)
	if run := p.all(); run.Found != 0 || run.Facts != 24 || run.Documents != 24 || run.Unasked != 0 {
		t.Fatalf("before the restore: %+v", run)
	}
	backup, survived := p.sap.Snapshot(), len(p.facts)
	p.produce(3)
	p.sap.Restore(backup)
	gone := int64(len(p.facts) - survived)
	run := p.all()
	t.Logf("restored: %d facts, %d documents left; one run found %d missing and began %d heals", run.Facts, run.Documents, run.Found, run.Begun)
	if run.Found != gone || run.Begun != gone {
		t.Errorf("the run found %d and began %d, want %d", run.Found, run.Begun, gone)
	}
	p.verified()
	p.balanced()
	for _, f := range p.facts[:4] { // survivors that are taken for gone
		if err := p.engine.Renew(t.Context(), f.Key.String(), "taken for gone", "test"); err != nil {
			t.Fatal(err)
		}
	}
	p.verified()
	p.balanced()
	if run := p.all(); run.Found != 0 || run.Documents != int64(len(p.facts)) {
		t.Errorf("after the heal: %+v", run)
	}
}

func TestASecondDocumentInS4IsReversedOnce(t *testing.T) {
	p := newS4Plant(t, 2, s4double.Traps{})
	p.produce(2)
	for _, f := range p.facts[:2] { // a confirmation and a consumption
		if err := p.sap.Again(f.Key.UUID(), f.Key.String()); err != nil {
			t.Fatal(err)
		}
	}
	if run := p.all(); run.Found != 2 || run.Begun != 2 {
		t.Fatalf("%+v", run)
	}
	for range 2 {
		if again := p.all(); again.Found != 0 || again.Begun != 0 {
			t.Errorf("after the heal: %+v", again)
		}
	}
	all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
	if err != nil || len(all) != 2 || all[0].Type != reconcile.Duplicate || all[1].Type != reconcile.Duplicate || all[0].State != reconcile.Healed {
		t.Errorf("%+v %v", all, err)
	}
	for _, no := range p.orders {
		if x := p.sap.Totals(no); !x.Yield.Equal(p.made[no]) || !x.Issued["STEEL-S235"].Sub(x.Returned["STEEL-S235"]).Equal(p.made[no].Mul(decimal.RequireFromString("0.12"))) {
			t.Errorf("order %s: %+v, meant were %s made", no, x, p.made[no])
		}
	}
}

// Nobody's fact says why a person cancelled it: it is not posted again by itself.
func TestAConfirmationThatSomebodyCancelledInS4GoesToAPerson(t *testing.T) {
	p := newS4Plant(t, 1, s4double.Traps{})
	p.produce(1)
	f, err := p.s.FactByKey(t.Context(), p.facts[0].Key.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.sap.CancelByHand(f.Posting.Document); err != nil {
		t.Fatal(err)
	}
	if run := p.all(); run.Found != 1 || run.Begun != 0 {
		t.Fatalf("%+v", run)
	}
	if d := p.one(reconcile.Missing, reconcile.Escalated); !strings.Contains(d.Note, "reversed") {
		t.Errorf("%+v", d)
	}
}

// What only SAP's documents show is not gone while they cannot be read.
func TestASystemThatCannotBeAskedHealsNothing(t *testing.T) {
	p := newS4Plant(t, 1, s4double.Traps{})
	p.produce(1)
	f, err := p.s.FactByKey(t.Context(), p.facts[0].Key.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.sap.CancelByHand(f.Posting.Document); err != nil {
		t.Fatal(err)
	}
	p.all()
	before := p.one(reconcile.Missing, reconcile.Escalated)
	p.sap.SetTraps(s4double.Traps{NoRead: true})
	if run := p.all(); run.Found != 0 || run.Unasked != 1 {
		t.Errorf("%+v", run)
	}
	if d := p.one(reconcile.Missing, reconcile.Escalated); d.ID != before.ID {
		t.Errorf("%+v, before it was %+v", d, before)
	}
	p.sap.SetTraps(s4double.Traps{})
	if run := p.all(); run.Found != 1 || run.Unasked != 0 {
		t.Errorf("%+v", run)
	}
	p.one(reconcile.Missing, reconcile.Escalated)
}

// SAP saves a confirmation whose goods movement failed. It is found with item and quantity, and gone once SAP has processed it again.
func TestAFailedMovementInS4IsFoundUntilItIsProcessed(t *testing.T) {
	p := newS4Plant(t, 1, s4double.Traps{})
	p.produce(1)
	p.sap.SetTraps(s4double.Traps{MovementsFail: true})
	p.send(1)
	p.parked(1)
	p.sap.SetTraps(s4double.Traps{})
	if run := p.all(); run.Found != 1 {
		t.Fatalf("%+v", run)
	}
	d := p.one(reconcile.MovementFailed, reconcile.Open) // a person processes it there
	made := p.facts[2].Confirmation
	if d.Item != "BRACKET-10" || !d.Delta.Equal(made.Yield) || d.Facts[0] != p.facts[2].Key.String() || !strings.Contains(d.Evidence[1].Text, "COGI") {
		t.Errorf("%+v, want the receipt of %s", d, made.Yield)
	}
	if n := p.sap.Reprocess(); n != 0 {
		t.Fatalf("%d still fail", n)
	}
	if run := p.all(); run.Found != 0 {
		t.Errorf("%+v", run)
	}
	p.one(reconcile.MovementFailed, reconcile.Healed)
	p.balanced()
}

// SAP takes the component beside the plant's own consumption: the backflush alone is taken back, and the confirmation stays.
func TestDoubleConsumptionInS4IsFoundAndTheBackflushTakenBack(t *testing.T) {
	p := newS4Plant(t, 1, s4double.Traps{AlwaysBackflush: true}, func(p *reconcile.Policy) { p.BackflushOwner = "mes" })
	p.send(1)
	p.parked(1) // the confirmation has a movement that nobody asked for
	realparts.Eventually(t, 30*time.Second, "the consumption is posted", func() error {
		n, err := p.s.CountPostings(t.Context(), store.PostingFilter{State: store.PostingVerified})
		if err == nil && n != 1 {
			err = fmt.Errorf("%d are verified", n)
		}
		return err
	})
	no := p.orders[0]
	if x := p.sap.Totals(no); !x.Issued["STEEL-S235"].Equal(p.made[no].Mul(decimal.RequireFromString("0.24"))) {
		t.Fatalf("SAP took %s for %s made, want it twice", x.Issued["STEEL-S235"], p.made[no])
	}
	if run := p.all(); run.Found != 1 || run.Begun != 1 {
		t.Fatalf("%+v", run)
	}
	if d := p.one(reconcile.DoubleUse, reconcile.Healing); d.Item != "STEEL-S235" {
		t.Errorf("%+v", d)
	}
	if run := p.all(); run.Found != 0 || run.Begun != 0 {
		t.Errorf("after the heal: %+v", run)
	}
	p.one(reconcile.DoubleUse, reconcile.Healed)
	if x := p.sap.Totals(no); !x.Yield.Equal(p.made[no]) || !x.Received.Equal(p.made[no]) || !x.Issued["STEEL-S235"].Sub(x.Returned["STEEL-S235"]).Equal(p.made[no].Mul(decimal.RequireFromString("0.12"))) {
		t.Errorf("SAP holds %+v, meant were %s made", x, p.made[no])
	}
}

// Operations that are finished one after the other: SAP is told of each, the order is completed with the last, and the comparison
// takes nothing of it for missing.
func TestTheEndOfEachOperationStandsInS4AndIsNotMissed(t *testing.T) {
	for _, confirms := range []bool{true, false} {
		p := configuredS4Plant(t, 0, s4double.Traps{}, func(c *s4.Config) {
			if confirms {
				c.FinishOperations = "confirm"
			}
		})
		no := p.sap.CreateOrder(s4double.Order{Material: "BRACKET-10", Plant: "1710", StorageLocation: "171A", Quantity: decimal.NewFromInt(10), Released: true,
			Operations: []s4double.Operation{{Number: "0010", WorkCenter: "PRESS"}, {Number: "0020", WorkCenter: "PACK"}}})
		p.know(p.c, no)
		state := func(operation string) object.Fact {
			return p.confirm(time.Now(), func(f *object.Fact) {
				f.Kind, f.Confirmation, f.OrderState = object.KindOrderState, nil, &object.ShopFloorState{OrderNo: no, Revision: 1, State: object.FloorFinished, Operation: operation}
			})
		}
		confirm := func(operation string) object.Fact {
			return p.confirm(time.Now(), func(f *object.Fact) { f.Confirmation.Operation = operation })
		}
		p.becomes(confirm("0010"), "verified")
		first, want, confirmations := state("0010"), "not_posted operation_ended", 1
		if confirms {
			want, confirmations = "verified", 2
		}
		p.becomes(first, want)
		if x := p.sap.Totals(no); x.Confirmations != confirmations || x.Order.TechnicallyComplete || x.Order.Confirmed {
			t.Fatalf("after the first operation: %+v", x)
		}
		if run := p.all(); run.Found != 0 || run.Unasked != 0 {
			t.Errorf("after the first operation: %+v", run)
		}
		p.becomes(confirm("0020"), "verified")
		p.becomes(state("0020"), "verified")
		if x := p.sap.Totals(no); x.Confirmations != confirmations+1 || !x.Order.TechnicallyComplete {
			t.Fatalf("after the last operation: %+v", x)
		}
		if run := p.all(); run.Found != 0 || run.Unasked != 0 {
			all, _ := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
			t.Errorf("after the last operation: %+v %+v", run, all)
		}
	}
}
