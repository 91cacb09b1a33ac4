package tryton_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/tryton"
	"github.com/linekeeper/linekeeper/hub/object"
)

// find returns the record that a search finds, as a person with all rights.
func (p *plant) find(t testing.TB, model string, domain ...any) int {
	t.Helper()
	var ids []int
	if err := json.Unmarshal(p.erp.Call(t, model, "search", domain, 0, 2, nil), &ids); err != nil || len(ids) != 1 {
		t.Fatalf("Tryton has %v of %s with %v (%v), want one", ids, model, domain, err)
	}
	return ids[0]
}

func (p *plant) create(t testing.TB, model string, values map[string]any) int {
	t.Helper()
	var ids []int
	if err := json.Unmarshal(p.erp.Call(t, model, "create", []any{values}), &ids); err != nil {
		t.Fatal(err)
	}
	return ids[0]
}

// item makes an item of a type (goods, service), kept in a unit.
func (p *plant) item(t testing.TB, code, kind, unit string) int {
	t.Helper()
	template := p.create(t, "product.template", map[string]any{"name": code, "code": code, "type": kind, "default_uom": p.find(t, "product.uom", []any{"symbol", "=", unit}),
		"list_price": map[string]string{"__class__": "Decimal", "decimal": "1"}, "cost_price_method": "fixed",
		"products": []any{[]any{"create", []any{map[string]any{"cost_price": map[string]string{"__class__": "Decimal", "decimal": "1"}}}}}})
	return p.find(t, "product.product", []any{"template", "=", template})
}

// carry moves an item past all orders, as a person does with a move of one's own, on a day.
func (p *plant) carry(t testing.TB, product int, unit, from, to, quantity string, day time.Time) {
	t.Helper()
	id := p.create(t, "stock.move", map[string]any{"product": product, "uom": p.find(t, "product.uom", []any{"symbol", "=", unit}), "quantity": json.Number(quantity),
		"from_location": p.find(t, "stock.location", []any{"code", "=", from}), "to_location": p.find(t, "stock.location", []any{"code", "=", to}),
		"company": p.erp.IDs["company"], "unit_price": map[string]string{"__class__": "Decimal", "decimal": "1"},
		"effective_date": map[string]any{"__class__": "date", "year": day.Year(), "month": int(day.Month()), "day": day.Day()}})
	p.erp.Call(t, "stock.move", "do", []int{id})
}

func (p *plant) stock(t testing.TB) connectortest.Stock {
	p.item(t, "SRV-1", "service", "u")
	p.carry(t, p.item(t, "DAYS-1", "goods", "wd"), "wd", "SCRAP", "STO", "3", time.Now().UTC())
	p.carry(t, p.erp.IDs["screw"], "u", "STO", "REWORK", "30", time.Now().UTC())
	return connectortest.Stock{
		Pages: func(t testing.TB) connector.Connector {
			c := p.connect(t)
			c.ReadStockBy(1)
			return c
		},
		Items: []string{"RM-STEEL", "RM-SCREW", "RM-ALLOY"}, Empty: "FG-SHAFT", Service: "SRV-1", Unmapped: "DAYS-1",
	}
}

// held sums what the connector says to be held of an item, at a place or anywhere.
func (p *plant) held(t testing.TB, c connector.LotStockReader, item, place string) decimal.Decimal {
	t.Helper()
	all, err := c.Balances(t.Context(), []string{item})
	if err != nil {
		t.Fatal(err)
	}
	sum := decimal.Zero
	for _, b := range all {
		if b.CannotTell != "" {
			t.Fatalf("%+v", b)
		}
		if place == "" || b.Location == place {
			sum = sum.Add(b.OnHand.Value)
		}
	}
	return sum
}

// Tryton sums stock up to a day by its own clock: what is planned for a day to come must not count, and what a plant east of the server
// has moved on a day that the server has not reached must.
func stockOfAllDays(t *testing.T, pl *plant) {
	c := pl.connect(t)
	bolt := pl.item(t, "BOLT-1", "goods", "kg")
	now := time.Now().UTC()
	for day, quantity := range map[int]string{-20: "10", -3: "1", -2: "0.1", -1: "0.25", 0: "0.12"} {
		pl.carry(t, bolt, "kg", "SCRAP", "STO", quantity, now.AddDate(0, 0, day))
	}
	pl.carry(t, bolt, "g", "STO", "REWORK", "250", now)
	pl.exec(t, `UPDATE stock_move SET effective_date = CURRENT_DATE + 1 WHERE product = $1 AND quantity = 250`, bolt)
	planned := pl.create(t, "stock.move", map[string]any{"product": bolt, "uom": pl.erp.IDs["kg"], "quantity": 5, "company": pl.erp.IDs["company"],
		"from_location": pl.find(t, "stock.location", []any{"code", "=", "STO"}), "to_location": pl.erp.IDs["scrap"],
		"planned_date": map[string]any{"__class__": "date", "year": now.Year(), "month": int(now.Month()), "day": now.Day()}})
	defer pl.erp.Call(t, "stock.move", "cancel", []int{planned})
	for place, want := range map[string]string{"STO": "11.22", "REWORK": "0.25", "": "11.47"} {
		if have := pl.held(t, c, "BOLT-1", place); have.String() != want {
			t.Errorf("at %q are %s, want %s", place, have, want)
		}
	}
}

// What is put aside for rework comes into a stock, scrap into none.
func reworkIsStock(t *testing.T, pl *plant) {
	c := pl.connect(t, func(c *tryton.Config) { c.ReworkLocation = "REWORK" })
	order := pl.order(t, "40")
	before, aside := pl.held(t, c, "FG-GEAR", ""), pl.held(t, c, "FG-GEAR", "REWORK")
	settle(t, c, confirmation(order, "3", "2", "1"))
	all, err := c.Effects(t.Context(), order)
	if err != nil || len(all.Documents) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	moved := map[string]string{}
	for _, m := range all.Documents[0].StockMoves("elsewhere") {
		moved[m.Site+"/"+m.Location] = m.Value.String() + " " + m.Unit
	}
	if len(moved) != 2 || moved["ulm/STO"] != "3 C62" || moved["ulm/REWORK"] != "1 C62" {
		t.Errorf("the document moved %v", moved)
	}
	if n := pl.held(t, c, "FG-GEAR", "").Sub(before); n.String() != "4" {
		t.Errorf("the stock grew by %s, want 3 good and 1 to rework", n)
	}
	if n := pl.held(t, c, "FG-GEAR", "REWORK").Sub(aside); n.String() != "1" {
		t.Errorf("%s came to rework, want 1", n)
	}
}

// A person books a component in another unit than the one in which it is held.
func heldInAnotherUnit(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.order(t, "40")
	before := pl.held(t, c, "RM-STEEL", "")
	pl.exec(t, `UPDATE stock_move SET uom = (SELECT id FROM product_uom WHERE symbol = 'g') WHERE product = $1 AND state = 'draft'
		AND production_input = (SELECT id FROM production WHERE number = $2)`, pl.erp.IDs["steel"], order)
	line := pl.find(t, "stock.move", []any{"production_input.number", "=", order}, []any{"product", "=", pl.erp.IDs["steel"]})
	pl.erp.Call(t, "stock.move", "write", []int{line}, map[string]any{"quantity": json.Number("1250")})
	pl.erp.Call(t, "stock.move", "do", []int{line})
	all, err := c.Effects(t.Context(), order)
	if err != nil || len(all.Documents) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	if m := all.Documents[0].Movements[0]; m.Value.String() != "1250" || m.Unit != "GRM" {
		t.Errorf("the document says %+v", m)
	}
	want := object.StockMovement{Site: "ulm", Location: "STO", Item: "RM-STEEL", Quantity: object.Quantity{Value: decimal.RequireFromString("-1.25"), Unit: "KGM"}}
	if m := all.Documents[0].Stock; len(m) != 1 || m[0].Value.String() != "-1.25" || m[0].Unit != want.Unit || m[0].Location != want.Location {
		t.Errorf("it moved %+v, want %+v", m, want)
	}
	if n := before.Sub(pl.held(t, c, "RM-STEEL", "")); n.String() != "1.25" {
		t.Errorf("the stock went down by %s, want 1.25", n)
	}
}
