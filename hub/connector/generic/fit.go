package generic

import (
	"fmt"
	"slices"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Reject makes a rejection. Nothing has happened outside when it is given.
func Reject(class connector.Class, code, next, reason string, args ...any) *connector.Outcome {
	return &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: fmt.Sprintf(reason, args...), NextStep: next}
}

// ByItself is the next step of what the hub tries again.
const ByItself = "Wait: it is tried again by itself."

// Unsuitable refuses a posting that the system was not configured for, or whose unit or decimals it does not have. A scale
// below zero means any number of decimals.
func Unsuitable(p connector.Posting, can connector.Capabilities, u Units) *connector.Outcome {
	f := p.Fact
	if !slices.Contains(can.Posts, f.Kind) || !f.Reverses.IsZero() && !slices.Contains(can.Reverses, f.Kind) ||
		f.OrderState != nil && !slices.Contains(can.States, f.OrderState.State) {
		return Reject(connector.Fatal, "NOT_POSTED", "Add it to postings in the configuration, or leave the kind out by policy.",
			"%s takes no such fact of kind %s as %s.", can.System, f.Kind, f.Key)
	}
	unit, quantities := "", map[string]decimal.Decimal{}
	switch {
	case f.Confirmation != nil:
		unit, quantities = f.Confirmation.Unit, map[string]decimal.Decimal{"yield": f.Confirmation.Yield, "scrap": f.Confirmation.Scrap, "rework": f.Confirmation.Rework}
	case f.Consumption != nil:
		unit, quantities = f.Consumption.Quantity.Unit, map[string]decimal.Decimal{"quantity": f.Consumption.Quantity.Value}
	case f.Quality != nil:
		unit, quantities = f.Quality.Quantity.Unit, map[string]decimal.Decimal{"quantity": f.Quality.Quantity.Value}
	}
	if u.Theirs(unit) == "" && (unit != "" || f.Confirmation != nil || f.Consumption != nil) {
		return Reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source, or add it to units.", "Unit %q of fact %s is not mapped to one of %s.", unit, f.Key, can.System)
	}
	for name, q := range quantities {
		if can.QuantityScale >= 0 && !q.Equal(q.Truncate(can.QuantityScale)) {
			return Reject(connector.Fatal, "SCALE", "Round it by the rule of the source, or raise scale if the system keeps more.",
				"%s %s of order %s has more than %d decimals.", name, q, OrderNo(p), can.QuantityScale)
		}
	}
	return nil
}

// Misfit refuses a posting that does not fit its order as the system holds it. Where the order lists no components, any item
// may be consumed.
func Misfit(p connector.Posting, o object.WorkOrder) *connector.Outcome {
	if o.State == object.OrderCancelled || o.State == object.OrderClosed || o.State == object.OrderPlanned ||
		o.State == object.OrderCompleted && p.Fact.OrderState == nil {
		return Reject(connector.Correctable, "ORDER_STATE", "Release or reopen the order in the ERP, then replay the fact.", "Order %s is %s.", o.OrderNo, o.State)
	}
	badUnit := func(item, got, want string) *connector.Outcome {
		return Reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source.", "Item %s of order %s is counted in %s, not in %s.", item, o.OrderNo, want, got)
	}
	badItem := func(item string) *connector.Outcome {
		return Reject(connector.Fatal, "ITEM", "Correct the item in the rule of the source, or add it to the order.", "Order %s has no item %s.", o.OrderNo, item)
	}
	switch f := p.Fact; {
	case f.Confirmation != nil && f.Confirmation.Item != "" && f.Confirmation.Item != o.Item:
		return badItem(f.Confirmation.Item)
	case f.Confirmation != nil && f.Confirmation.Unit != o.Quantity.Unit:
		return badUnit(o.Item, f.Confirmation.Unit, o.Quantity.Unit)
	case f.Consumption != nil && len(o.Components) > 0:
		i := slices.IndexFunc(o.Components, func(c object.Component) bool { return c.Item == f.Consumption.Item })
		if i < 0 {
			return badItem(f.Consumption.Item)
		}
		if want := o.Components[i].Required.Unit; want != f.Consumption.Quantity.Unit {
			return badUnit(f.Consumption.Item, f.Consumption.Quantity.Unit, want)
		}
	}
	return nil
}

// NoOrder refuses a posting whose order the system does not have.
func NoOrder(p connector.Posting, system string) *connector.Outcome {
	return Reject(connector.Fatal, "NO_ORDER", "Check the order number at the source.", "%s has no order %s.", system, OrderNo(p))
}
