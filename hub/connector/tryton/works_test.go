package tryton_test

import (
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/tryton"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

func (pl *plant) routed(t testing.TB) string {
	t.Helper()
	return pl.erp.CreateProductionOrder(t, realparts.TrytonOrder{Item: "FG-GEAR", Quantity: "10", Routed: true})
}

func operationState(order, operation string, s object.FloorState) connector.Posting {
	p := floorState(order, s)
	p.Fact.OrderState.Operation = operation
	return p
}

// cycles counts the cycles of an order's works by state, straight from the database.
func (pl *plant) cycles(t testing.TB, order string) (n map[string]int) {
	t.Helper()
	n = map[string]int{}
	pl.rows(t, `SELECT c.state FROM production_work_cycle c JOIN production_work w ON w.id = c.work JOIN production p ON p.id = w.production
		WHERE p.number = $1`, func(scan func(...any)) {
		var state string
		scan(&state)
		n[state]++
	}, order)
	return n
}

func routedOrder(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.routed(t)
	o, err := c.Get(t.Context(), order)
	if err != nil || len(o.Operations) != 2 || o.Operations[0].Operation != "10" || o.Operations[1].WorkCenter != "Assemble 1" {
		t.Fatalf("a routed order has the operations %+v, %v", o.Operations, err)
	}
	pl.refuse(t, c, operationState(order, "99", object.FloorStarted), connector.Fatal, "unknown_operation")
	settle(t, c, operationState(order, "10", object.FloorStarted))
	settle(t, c, operationState(order, "10", object.FloorStarted))
	if n := pl.cycles(t, order); n["running"] != 1 || len(n) != 1 || pl.erp.OrderState(t, order) != "running" {
		t.Errorf("an operation that was started has cycles %v, its order is %s", n, pl.erp.OrderState(t, order))
	}
	settle(t, c, operationState(order, "10", object.FloorFinished))
	settle(t, c, consumption(order, "2.5"))
	made := confirmation(order, "10", "0", "0")
	made.Fact.Confirmation.Operation = "10"
	pl.refuse(t, c, made, connector.Correctable, "not_the_last_operation")
	made.Fact.Confirmation.Operation = "20"
	settle(t, c, made)
	if got := pl.erp.OrderState(t, order); got != "running" {
		t.Errorf("with one operation of two finished the order is %s", got)
	}
	last := operationState(order, "20", object.FloorFinished) // nobody said that it started
	settle(t, c, last)
	if n := pl.cycles(t, order); n["done"] != 2 || len(n) != 1 || pl.erp.OrderState(t, order) != "running" {
		t.Errorf("the hub did not say that the order is closed with its last operation: the cycles are %v, the order is %s", n, pl.erp.OrderState(t, order))
	}
	last.ClosesOrder = true
	settle(t, c, last)
	if n := pl.cycles(t, order); n["done"] != 2 || len(n) != 1 || pl.erp.OrderState(t, order) != "done" {
		t.Errorf("with all operations finished the cycles are %v, the order is %s", n, pl.erp.OrderState(t, order))
	}
	settle(t, c, floorState(order, object.FloorFinished))
	if got := pl.erp.Effects(t, order, "FG-GEAR"); got.Yield != "10" || got.Open != 0 {
		t.Errorf("Tryton holds %+v, want yield 10 and nothing open", got)
	}
}

func routedAsAWhole(t *testing.T, pl *plant) {
	c, order := pl.connect(t), pl.routed(t)
	settle(t, c, operationState(order, "10", object.FloorStarted))
	pl.refuse(t, c, floorState(order, object.FloorFinished), connector.Correctable, "works_open")
	if n := pl.cycles(t, order); n["running"] != 1 || len(n) != 1 {
		t.Errorf("a refused finish left the cycles %v", n)
	}
	c = pl.connect(t, func(c *tryton.Config) { c.FinishWorks = true })
	settle(t, c, floorState(order, object.FloorFinished))
	if n := pl.cycles(t, order); n["done"] != 2 || len(n) != 1 || pl.erp.OrderState(t, order) != "done" {
		t.Errorf("after the finish the cycles are %v, the order is %s", n, pl.erp.OrderState(t, order))
	}
}

func operationThoughLostReplies(t *testing.T, pl *plant) {
	c := pl.connect(t)
	for nth := 2; nth <= 60; nth += 7 { // each fault at different steps; a posting has some twenty exchanges
		fault := connectortest.LoseReply
		if nth%2 == 0 {
			fault = connectortest.DelayRequest
		}
		order := pl.routed(t)
		pl.proxy.Arm(fault, nth)
		x := settle(t, c, operationState(order, "10", object.FloorFinished))
		fired := pl.proxy.Fired()
		pl.proxy.Deliver()
		if n := pl.cycles(t, order); n["done"] != 1 || len(n) != 1 {
			t.Fatalf("%s at exchange %d: cycles %v\n  %s", fault, nth, n, strings.Join(x.Why, "\n  "))
		}
		if !fired {
			return
		}
	}
	t.Fatal("finishing an operation takes more than 40 exchanges")
}

func lotTracked(t *testing.T, pl *plant) {
	c := pl.connect(t)
	order := pl.erp.CreateProductionOrder(t, realparts.TrytonOrder{Item: "FG-SHAFT", Quantity: "4"})
	used := consumption(order, "6")
	used.Fact.Consumption.Item = "RM-ALLOY"
	pl.refuse(t, c, used, connector.Correctable, "lot_required")
	used.Fact.Consumption.Lot = "HEAT-0"
	pl.refuse(t, c, used, connector.Correctable, "unknown_lot")
	used.Fact.Consumption.Lot = "HEAT-1"
	x := settle(t, c, used)
	made := confirmation(order, "4", "0", "0")
	made.Fact.Confirmation.Item = "FG-SHAFT"
	pl.refuse(t, c, made, connector.Correctable, "lot_required")
	made.Fact.Confirmation.Lot = "SHAFT-1"
	settle(t, c, made)
	used.Fact.Consumption.Lot = "HEAT-2"
	if v, err := c.Verify(t.Context(), used, nil, x.Document); err != nil || v.Matches || !strings.Contains(v.Difference, "HEAT-2") {
		t.Errorf("material of another lot is verified as %+v, %v", v, err)
	}
	effects, err := c.Effects(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	lots := map[string]string{}
	for _, e := range effects.Documents {
		for _, m := range e.Movements {
			lots[m.Item] = m.Lot
		}
	}
	if lots["RM-ALLOY"] != "HEAT-1" || lots["FG-SHAFT"] != "SHAFT-1" {
		t.Errorf("the order's effects are of lots %v", lots)
	}
	settle(t, c, floorState(order, object.FloorFinished))
	balances, err := c.Balances(t.Context(), []string{"RM-ALLOY", "FG-SHAFT", "RM-STEEL"})
	if err != nil {
		t.Fatal(err)
	}
	held := map[[3]string]decimal.Decimal{}
	for _, b := range balances {
		held[[3]string{b.Location, b.Item, b.Lot}] = b.OnHand.Value
	}
	if !held[[3]string{"STO", "RM-ALLOY", "HEAT-1"}].Equal(decimal.NewFromInt(9994)) || !held[[3]string{"STO", "FG-SHAFT", "SHAFT-1"}].Equal(decimal.NewFromInt(4)) {
		t.Errorf("stock by location and lot is %v, want 9994 of HEAT-1 and 4 of SHAFT-1", held)
	}
	if _, ok := held[[3]string{"STO", "RM-STEEL", ""}]; !ok {
		t.Errorf("steel without a lot is not among %v", held)
	}
}
