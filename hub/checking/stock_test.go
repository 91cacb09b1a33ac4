package checking_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/checking"
	"github.com/linekeeper/linekeeper/hub/connector/tryton"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// at watches stocks of the ERP by item and place.
func (p *plant) at(change func(*reconcile.Policy), places ...store.StockPlace) {
	p.t.Helper()
	policy := reconcile.DefaultPolicy()
	policy.Settle = 0
	if change != nil {
		change(&policy)
	}
	var watches []checking.Watch
	for _, at := range places {
		at.ERP = "erp"
		watches = append(watches, checking.Watch{Plant: "ulm", StockPlace: at})
	}
	p.check = checking.New(checking.Options{Store: p.s, Connectors: p.connectors, Books: p.engine, Policy: policy, Watches: watches})
}

// drifts are the live discrepancies of stocks, by subject.
func (p *plant) drifts() map[string]reconcile.Discrepancy {
	p.t.Helper()
	all, err := p.s.Discrepancies(p.t.Context(), store.DiscrepancyFilter{Live: true}, store.Page{})
	if err != nil {
		p.t.Fatal(err)
	}
	found := map[string]reconcile.Discrepancy{}
	for _, d := range all {
		found[d.Subject] = d
	}
	return found
}

// drift is one of so many live discrepancies, a stock that is off by a quantity, which the warehouse has to count.
func (p *plant) drift(of int, subject, delta, unit string) reconcile.Discrepancy {
	p.t.Helper()
	all := p.drifts()
	d, ok := all[subject]
	if !ok || len(all) != of {
		p.t.Fatalf("%d discrepancies and not %d, or none of %q: %+v", len(all), of, subject, all)
	}
	if d.Type != reconcile.BalanceDrift || d.State != reconcile.Escalated || d.Delta.String() != delta || d.Unit != unit || d.Owner != reconcile.Warehouse || d.Plant != "ulm" ||
		len(d.Evidence) < 2 || !strings.Contains(d.Evidence[0].Text, "opening") {
		p.t.Errorf("%+v, want a drift of %s %s", d, delta, unit)
	}
	return d
}

// trytonPlant is a plant whose ERP is a real Tryton, which several of them share.
type trytonPlant struct {
	*plant
	erp *realparts.TrytonServer
	c   *tryton.Connector
}

func newTrytonPlant(t *testing.T, erp *realparts.TrytonServer, orders int) *trytonPlant {
	t.Helper()
	p := &trytonPlant{plant: &plant{t: t, dir: t.TempDir(), made: map[string]decimal.Decimal{}}, erp: erp}
	c, err := tryton.New(tryton.Config{Name: "erp", URL: erp.URL, User: erp.User, Password: erp.Password, Sites: map[string]string{"WH": "ulm"}, ReworkLocation: "REWORK"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	p.hub(c)
	p.c = c
	for range orders {
		p.know(c, erp.CreateProductionOrder(t, realparts.TrytonOrder{Item: "FG-GEAR", Quantity: "1000"}))
	}
	return p
}

// own gives a fact a key that no other plant on the same Tryton has.
func (p *trytonPlant) own(f object.Fact) object.Fact {
	f.Position = factkey.Position(p.t.Name(), fmt.Sprint(p.seq))
	f.Key = factkey.Of(f.Position)
	return f
}

// produce counts good pieces, scrap and rework n times on each order, with the steel for them, and waits until all is in the books.
func (p *trytonPlant) produce(n int) {
	p.t.Helper()
	var facts []object.Fact
	for _, no := range p.orders {
		for range n {
			p.seq++
			yield := decimal.NewFromInt(int64(1 + p.seq%7))
			f := p.own(p.fact(object.KindConfirmation))
			f.Confirmation = &object.Confirmation{OrderNo: no, Item: "FG-GEAR", Unit: "C62", Yield: yield, Scrap: decimal.NewFromInt(int64(p.seq % 2)), Rework: decimal.NewFromInt(int64(p.seq % 3))}
			p.made[no] = p.made[no].Add(yield)
			p.seq++
			use := p.own(p.fact(object.KindConsumption))
			use.Consumption = &object.Consumption{OrderNo: no, Item: "RM-STEEL", Movement: object.Issue, Quantity: object.Quantity{Value: yield.Mul(decimal.RequireFromString("2.51")), Unit: "KGM"}}
			facts = append(facts, f, use)
		}
	}
	p.deliver(facts...)
	p.verified()
}

// carry is what somebody in the warehouse moves in Tryton, past all orders.
func (p *trytonPlant) carry(product, unit, from, to, quantity string) {
	p.t.Helper()
	find := func(code string) (ids []int) {
		p.read(&ids, "stock.location", "search", []any{[]any{"code", "=", code}}, 0, 1, nil)
		return ids
	}
	var made []int
	p.read(&made, "stock.move", "create", []any{map[string]any{"product": p.erp.IDs[product], "uom": p.erp.IDs[unit], "quantity": json.Number(quantity), "from_location": find(from)[0],
		"to_location": find(to)[0], "company": p.erp.IDs["company"], "unit_price": map[string]string{"__class__": "Decimal", "decimal": "1"}}})
	p.erp.Call(p.t, "stock.move", "do", made)
}

// takePlanned lets Tryton take planned material of an order that nobody has started, as its own screens do.
func (p *trytonPlant) takePlanned(no, quantity, unit string) {
	p.t.Helper()
	var line, units []int
	p.read(&line, "stock.move", "search", []any{[]any{"production_input.number", "=", no}, []any{"product", "=", p.erp.IDs["steel"]}, []any{"state", "=", "draft"}}, 0, 2, nil)
	p.read(&units, "product.uom", "search", []any{[]any{"symbol", "=", unit}}, 0, 2, nil)
	if len(line) != 1 || len(units) != 1 {
		p.t.Fatalf("order %s has planned lines %v, the unit is %v", no, line, units)
	}
	p.erp.Call(p.t, "stock.move", "write", line, map[string]any{"quantity": json.Number(quantity), "uom": units[0]})
	p.erp.Call(p.t, "stock.move", "do", line)
}

func (p *trytonPlant) read(into any, model, method string, args ...any) {
	p.t.Helper()
	if err := json.Unmarshal(p.erp.Call(p.t, model, method, args...), into); err != nil {
		p.t.Fatal(err)
	}
}

var (
	storedSteel = store.StockPlace{Site: "ulm", Storage: "STO", Item: "RM-STEEL"}
	storedGears = store.StockPlace{Site: "ulm", Storage: "STO", Item: "FG-GEAR"}
	asideGears  = store.StockPlace{Storage: "REWORK", Item: "FG-GEAR"}
	allGears    = store.StockPlace{Item: "FG-GEAR"}
	theAlloy    = store.StockPlace{Item: "RM-ALLOY", Lot: "HEAT-1"}
)

// One Tryton serves all these, because its start is the longest part of each.
func TestStockOfARealTryton(t *testing.T) {
	t.Parallel()
	erp := realparts.Tryton(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *realparts.TrytonServer)
	}{
		{"ThatOrdersExplainIsNoDrift", trytonClean},
		{"ThatSomebodyMovesIsFound", trytonMovedByHand},
		{"TakenByBothSidesShowsAsDoubleConsumption", trytonTakenTwice},
		{"OfBooksThatWerePutBackIsBroughtForward", trytonPutBack},
		{"ThatCannotBeToldIsNotJudged", trytonUntold},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, erp) })
	}
}

func trytonClean(t *testing.T, erp *realparts.TrytonServer) {
	p := newTrytonPlant(t, erp, 3)
	p.at(nil, storedSteel, storedGears, asideGears, allGears, theAlloy)
	p.produce(1)
	p.balances(1)
	for range 2 {
		p.produce(1)
		p.balances(1)
	}
	// What others book on an order is among its documents, in whatever unit.
	p.know(p.c, erp.CreateProductionOrder(t, realparts.TrytonOrder{Item: "FG-GEAR", Quantity: "1000"}))
	p.takePlanned(p.orders[3], "3250", "g")
	p.balances(2)
	p.seq++
	back := p.own(p.fact(object.KindConsumption)) // and so is what is taken back
	back.Consumption, back.Reverses = p.facts[1].Consumption, p.facts[1].Key
	p.deliver(back)
	p.verified()
	if p.balances(3) {
		t.Error("a stock that stands still is still in doubt")
	}
	p.none("what the documents explain")
}

func trytonMovedByHand(t *testing.T, erp *realparts.TrytonServer) {
	p := newTrytonPlant(t, erp, 2)
	p.at(nil, storedSteel, storedGears, asideGears, allGears, theAlloy)
	p.produce(1)
	p.balances(2)
	p.carry("steel", "kg", "STO", "SCRAP", "12.5")
	if !p.balances(1) {
		t.Error("a drift is believed by one reading, or was not seen")
	}
	p.none("after one reading")
	p.produce(1)
	p.balances(1)
	p.drift(1, "stock erp/ulm/STO item RM-STEEL lot ", "-12.5", "KGM")

	p.carry("gear", "unit", "STO", "REWORK", "4") // within the plant: of each place, not of both together
	p.balances(2)
	p.drift(3, "stock erp/ulm/STO item FG-GEAR lot ", "-4", "C62")
	p.drift(3, "stock erp//REWORK item FG-GEAR lot ", "4", "C62")

	p.carry("gear", "unit", "REWORK", "STO", "4")
	p.carry("steel", "kg", "SCRAP", "STO", "12.5")
	p.balances(2)
	if all := p.drifts(); len(all) > 0 {
		t.Errorf("put right: %+v", all)
	}

	p.carry("gear", "unit", "STO", "SCRAP", "2")
	p.balances(2)
	if d := p.drift(2, "stock erp/ item FG-GEAR lot ", "-2", "C62"); len(d.Evidence) < 4 || !strings.Contains(fmt.Sprint(d.Evidence), `"ulm/REWORK"`) {
		t.Errorf("nothing says where the gears lie: %+v", d.Evidence)
	}
}

// A planner lets Tryton take the planned material of an order of which the plant reports what it takes.
func trytonTakenTwice(t *testing.T, erp *realparts.TrytonServer) {
	p := newTrytonPlant(t, erp, 1)
	p.at(func(p *reconcile.Policy) { p.BackflushOwner = "mes" }, storedSteel, allGears)
	p.balances(1)
	p.takePlanned(p.orders[0], "7.5", "kg")
	p.produce(1)
	p.balances(2)
	if run := p.all(); run.Found != 1 {
		t.Errorf("%+v", run)
	}
	d := p.only(reconcile.DoubleUse)
	// Tryton cannot take back one document by its number: that is a person's.
	if want := decimal.Min(decimal.RequireFromString("7.5"), p.facts[1].Consumption.Quantity.Value); d.State != reconcile.Open || !strings.Contains(d.Note, "by hand") || d.Item != "RM-STEEL" || !d.Delta.Equal(want) || len(d.Evidence) == 0 {
		t.Errorf("%+v, want %s", d, want)
	}
	if all := p.drifts(); len(all) != 1 {
		t.Errorf("the documents explain the stock: %+v", all)
	}
}

func trytonPutBack(t *testing.T, erp *realparts.TrytonServer) {
	p := newTrytonPlant(t, erp, 2)
	p.at(nil, storedSteel, storedGears, asideGears, allGears)
	p.produce(1)
	p.balances(2)
	p.erp.Backup(t)
	p.produce(2)
	p.balances(1)
	before := p.gears()
	p.erp.Restore(t)
	if p.gears().Equal(before) {
		t.Fatal("the books were not put back")
	}
	p.balances(1)
	p.verified()
	p.balances(3)
	all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
	if err != nil || len(all) != 8 {
		t.Errorf("%d discrepancies, want one for each of 8 facts (%v)", len(all), err)
	}
	for _, d := range all {
		if d.Type != reconcile.Missing {
			t.Errorf("%s of %s: %s", d.Type, d.Subject, d.Proposed.Text)
		}
	}
	if !p.gears().Equal(before) {
		t.Errorf("%s gears are in stock, were %s", p.gears(), before)
	}

	p.erp.Backup(t) // one movement that is lost, and known to the last digit
	p.seq++
	use := p.own(p.fact(object.KindConsumption))
	use.Consumption = &object.Consumption{OrderNo: p.orders[0], Item: "RM-STEEL", Movement: object.Issue, Quantity: object.Quantity{Value: decimal.RequireFromString("7.25"), Unit: "KGM"}}
	p.deliver(use)
	p.verified()
	p.at(nil, store.StockPlace{Item: "RM-STEEL"})
	p.balances(1)
	p.erp.Restore(t)
	p.balances(2)
	if d := p.only(reconcile.BalanceDrift); d.Proposed.Kind != reconcile.LookUpAndSend || d.Proposed.Fact != use.Key.String() || d.Delta.String() != "7.25" {
		t.Errorf("%+v", d)
	}
	p.verified()
	p.balances(2)
	if d := p.only(reconcile.BalanceDrift); d.State != reconcile.Healed {
		t.Errorf("%+v", d)
	}
}

func (p *trytonPlant) gears() (sum decimal.Decimal) {
	p.t.Helper()
	all, err := p.c.Balances(p.t.Context(), []string{"FG-GEAR"})
	if err != nil {
		p.t.Fatal(err)
	}
	for _, b := range all {
		sum = sum.Add(b.OnHand.Value)
	}
	return sum
}

func trytonUntold(t *testing.T, erp *realparts.TrytonServer) {
	p := newTrytonPlant(t, erp, 1)
	p.at(nil, store.StockPlace{Item: "NO-SUCH", Storage: "STO"}, storedSteel)
	p.produce(1)
	_, err := p.check.Balances(t.Context())
	if err == nil || !strings.Contains(err.Error(), `"NO-SUCH"`) || !strings.Contains(err.Error(), "no active item") {
		t.Errorf("of an item that Tryton does not have is said: %v", err)
	}
	p.carry("steel", "kg", "STO", "SCRAP", "1")
	for range 2 {
		p.check.Balances(t.Context())
	}
	p.drift(1, "stock erp/ulm/STO item RM-STEEL lot ", "-1", "KGM")
	p.carry("steel", "kg", "SCRAP", "STO", "1")
	p.at(nil, storedSteel)
	p.balances(1)
	p.carry("steel", "kg", "STO", "SCRAP", "1")
	p.erp.DB.Kill(9)
	for range 3 {
		if later, err := p.check.Balances(t.Context()); err == nil || !later {
			t.Errorf("books that cannot be read: %v %v", later, err)
		}
	}
	if all := p.drifts(); len(all) > 0 {
		t.Errorf("while nothing can be read: %+v", all)
	}
	if err := p.erp.DB.Run(); err != nil {
		t.Fatal(err)
	}
	realparts.Eventually(t, time.Minute, "the difference is found again", func() error {
		if _, err := p.check.Balances(t.Context()); err != nil {
			return err
		}
		if len(p.drifts()) == 0 {
			return fmt.Errorf("nothing is found yet")
		}
		return nil
	})
	p.drift(1, "stock erp/ulm/STO item RM-STEEL lot ", "-1", "KGM")
}
