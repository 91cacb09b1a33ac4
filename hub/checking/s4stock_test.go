package checking_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

var (
	sapSteel    = store.StockPlace{Site: "1710", Storage: "171A", Item: "STEEL-S235"}
	sapBrackets = store.StockPlace{Item: "BRACKET-10"}
	onShelf     = s4double.Shelf{Location: "171A"}
)

// Whatever orders and their documents move in S/4HANA is no drift: into inspection and out of it, into stock of a sales order, in other
// units, by persons, and what is cancelled.
func TestStockOfS4ThatOrdersExplainIsNoDrift(t *testing.T) {
	p := newS4Plant(t, 2, s4double.Traps{})
	for _, change := range []func(*s4double.Order){
		func(o *s4double.Order) { o.Inspect = true },
		func(o *s4double.Order) { o.SpecialStock = "E" },
	} {
		o := s4double.Order{Material: "BRACKET-10", Plant: "1710", StorageLocation: "171B", Quantity: decimal.NewFromInt(1000), Released: true, AutomaticReceipt: true,
			Operations: []s4double.Operation{{Number: "0010", WorkCenter: "PRESS"}},
			Components: []s4double.Component{{Material: "STEEL-S235", StorageLocation: "171A", Operation: "0010", Required: decimal.NewFromInt(120)}}}
		change(&o)
		p.know(p.c, p.sap.CreateOrder(o))
	}
	p.at(nil, sapSteel, sapBrackets, store.StockPlace{Storage: "171B", Item: "BRACKET-10"})
	p.produce(1)
	p.balances(1)
	p.produce(2)
	p.balances(1)
	p.sap.Transfer("BRACKET-10", "1710", s4double.Shelf{Location: "171B", Type: s4double.Inspected}, s4double.Shelf{Location: "171B"}, decimal.NewFromInt(2)) // released
	p.sap.Transfer("BRACKET-10", "1710", onShelf, s4double.Shelf{Location: "171A", Type: s4double.Blocked}, decimal.NewFromInt(1))
	if err := p.sap.IssueByHand(p.orders[0], "STEEL-S235", "171A", decimal.RequireFromString("2.5"), s4double.Entry{Quantity: decimal.NewFromInt(2500), Unit: "G", UnitISO: "GRM"}); err != nil {
		t.Fatal(err)
	}
	if err := p.sap.IssueByHand(p.orders[1], "STEEL-S235", "171A", decimal.NewFromInt(3), s4double.Entry{Quantity: decimal.NewFromInt(3), Unit: "KG", UnitISO: "KGM"}); err != nil {
		t.Fatal(err)
	}
	f, err := p.s.FactByKey(t.Context(), p.facts[0].Key.String())
	if err != nil {
		t.Fatal(err)
	}
	if err := p.sap.CancelByHand(f.Posting.Document); err != nil {
		t.Fatal(err)
	}
	if p.balances(3) {
		t.Error("a stock that stands still is still in doubt")
	}
	if all := p.drifts(); len(all) > 0 {
		t.Errorf("%+v", all)
	}
}

func TestStockOfS4ThatSomebodyMovesIsFound(t *testing.T) {
	p := newS4Plant(t, 2, s4double.Traps{})
	p.at(nil, sapSteel, sapBrackets, store.StockPlace{Site: "1710", Item: "STEEL-S235"})
	p.produce(1)
	p.balances(2)
	p.sap.Transfer("STEEL-S235", "1710", onShelf, s4double.Shelf{Location: "171B"}, decimal.RequireFromString("12.375"))
	if !p.balances(1) {
		t.Error("a drift is believed by one reading, or was not seen")
	}
	p.none("after one reading")
	p.produce(1)
	p.balances(1)
	p.drift(1, "stock erp/1710/171A item STEEL-S235 lot ", "-12.375", "KGM")
	p.sap.Transfer("STEEL-S235", "1710", s4double.Shelf{Location: "171B"}, s4double.Shelf{}, decimal.NewFromInt(2)) // scrapped
	p.balances(2)
	if d := p.drift(2, "stock erp/1710 item STEEL-S235 lot ", "-2", "KGM"); len(d.Evidence) < 4 || !strings.Contains(d.Evidence[3].Text, `10.375 KGM at "1710/171B"`) {
		t.Errorf("nothing says where the steel lies: %+v", d.Evidence)
	}
	p.sap.Transfer("STEEL-S235", "1710", s4double.Shelf{Location: "171B"}, onShelf, decimal.RequireFromString("10.375"))
	p.sap.Transfer("STEEL-S235", "1710", s4double.Shelf{}, onShelf, decimal.NewFromInt(2))
	p.balances(2)
	if all := p.drifts(); len(all) > 0 {
		t.Errorf("put right: %+v", all)
	}
}

// SAP takes the component beside the plant's own consumption: the orders show it, and the stock is as the documents say.
func TestStockOfS4TakenByBothSidesShowsAsDoubleConsumption(t *testing.T) {
	p := newS4Plant(t, 1, s4double.Traps{AlwaysBackflush: true}, func(p *reconcile.Policy) { p.BackflushOwner = "mes" })
	p.sap.PutStock("BRACKET-10", "1710", "171A", decimal.Zero) // there were some once
	p.at(func(p *reconcile.Policy) { p.BackflushOwner = "mes" }, sapSteel, sapBrackets)
	p.balances(1)
	p.send(1)
	p.parked(1)
	p.balances(2)
	p.all()
	d := p.only(reconcile.DoubleUse)
	if want := p.facts[1].Consumption.Quantity.Value; d.Item != "STEEL-S235" || !d.Delta.Equal(want) || len(d.Evidence) == 0 {
		t.Errorf("%+v, want %s", d, want)
	}
	p.all()
	p.balances(3)
	if all := p.drifts(); len(all) > 0 {
		t.Errorf("after the backflush was taken back: %+v", all)
	}
}

func TestStockOfS4WhoseBooksWerePutBackIsBroughtForward(t *testing.T) {
	p := newS4Plant(t, 2, s4double.Traps{})
	p.at(nil, sapSteel, sapBrackets)
	p.produce(1)
	p.balances(2)
	backup := p.sap.Snapshot()
	p.produce(2)
	p.balances(1)
	p.sap.Restore(backup)
	p.balances(1)
	p.verified()
	p.balances(3)
	p.balanced()
	all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
	if err != nil || len(all) != 8 {
		t.Errorf("%d discrepancies, want one for each of 8 facts (%v)", len(all), err)
	}
	for _, d := range all {
		if d.Type != reconcile.Missing {
			t.Errorf("%s of %s: %s", d.Type, d.Subject, d.Proposed.Text)
		}
	}
}

// SAP counts on in another unit: what is held and what was moved cannot be put side by side, and that is said.
func TestStockOfS4InAnotherUnitThanItWasMovedInIsNotJudged(t *testing.T) {
	p := newS4Plant(t, 1, s4double.Traps{})
	p.at(nil, store.StockPlace{Item: "STEEL-S235"})
	p.produce(1)
	p.balances(2)
	if err := p.s.PutStockMoves(t.Context(), "erp", "long ago", []store.StockMove{{Item: "STEEL-S235", Unit: "GRM", Moved: decimal.NewFromInt(-720)}},
		func(store.StockPlace, time.Time) (decimal.Decimal, bool) { return decimal.Zero, true }); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if later, err := p.check.Balances(t.Context()); err == nil || !strings.Contains(err.Error(), "held in KGM and moved in GRM") {
			t.Errorf("%v %v", later, err)
		}
	}
	p.none("units that cannot be put side by side")
}

// A line, a session, a right or a page that fails: nothing is said of any stock.
func TestStockOfS4ThatCannotBeToldIsNotJudged(t *testing.T) {
	p := newS4Plant(t, 1, s4double.Traps{})
	p.sap.PutMaterial(s4double.Material{Number: "CRATE", Unit: "KI", UnitISO: "CR"})
	p.sap.PutStock("CRATE", "1710", "171A", decimal.NewFromInt(3))
	p.at(nil, store.StockPlace{Item: "CRATE"}, store.StockPlace{Item: "SERVICE-1"}, sapSteel)
	p.produce(1)
	for range 2 {
		_, err := p.check.Balances(t.Context())
		if err == nil || !strings.Contains(err.Error(), `"KI"`) || !strings.Contains(err.Error(), `"SERVICE-1"`) {
			t.Errorf("what is said of stocks that cannot be told: %v", err)
		}
	}
	p.sap.Transfer("STEEL-S235", "1710", onShelf, s4double.Shelf{}, decimal.NewFromInt(1))
	p.sap.SetTraps(s4double.Traps{NoRead: true, PageSize: 3})
	for range 3 {
		p.check.Balances(t.Context())
	}
	p.none("while documents cannot be read")
	p.sap.SetTraps(s4double.Traps{PageSize: 3})
	p.sap.ExpireSessions()
	p.check.Balances(t.Context())
	p.check.Balances(t.Context())
	p.drift(1, "stock erp/1710/171A item STEEL-S235 lot ", "-1", "KGM")
}

// Goods movements that SAP processes later, or that failed: the stock is not judged by what was confirmed.
func TestStockOfS4FollowsMovementsThatComeLater(t *testing.T) {
	p := newS4Plant(t, 1, s4double.Traps{})
	p.at(nil, sapSteel, sapBrackets)
	p.produce(1)
	p.balances(1)
	p.sap.SetTraps(s4double.Traps{MovementsFail: true})
	p.send(1)
	p.parked(1)
	p.balances(3)
	p.none("the receipt failed, and the stock is without it")
	p.sap.SetTraps(s4double.Traps{})
	if n := p.sap.Reprocess(); n != 0 {
		t.Fatalf("%d still fail", n)
	}
	p.balances(3)
	p.none("processed again")
}

// With a confirmation that was lost what SAP took by itself for it was lost too, which no fact says: the document is missing, and nothing drifts.
func TestABackflushThatWasLostWithItsConfirmationIsNoDrift(t *testing.T) {
	p := configuredS4Plant(t, 0, s4double.Traps{}, func(c *s4.Config) { c.Movements = "sap" })
	no := p.sap.CreateOrder(s4double.Order{Material: "BRACKET-10", Plant: "1710", StorageLocation: "171A", Quantity: decimal.NewFromInt(1000), Released: true, AutomaticReceipt: true,
		Operations: []s4double.Operation{{Number: "0010", WorkCenter: "PRESS"}},
		Components: []s4double.Component{{Material: "STEEL-S235", StorageLocation: "171A", Operation: "0010", Required: decimal.NewFromInt(120), Backflush: true}}})
	p.know(p.c, no)
	p.at(nil, store.StockPlace{Item: "STEEL-S235"}, sapBrackets)
	p.becomes(p.confirm(time.Now(), func(*object.Fact) {}), "verified")
	p.balances(2)
	backup := p.sap.Snapshot()
	p.becomes(p.confirm(time.Now(), func(*object.Fact) {}), "verified")
	p.balances(1)
	p.sap.Restore(backup)
	p.balances(1)
	p.verified()
	p.balances(3)
	if d := p.one(reconcile.Missing, reconcile.Healing); d.Item != "BRACKET-10" {
		t.Errorf("%+v", d)
	}
}
