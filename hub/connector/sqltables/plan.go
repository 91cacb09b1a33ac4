package sqltables

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// value is what one field of a row shall hold.
type value struct {
	field string
	v     any // string, decimal.Decimal or time.Time
	must  bool
}

// values is the row of a posting, apart from its status.
func (c *Connector) values(p connector.Posting) []value {
	f := p.Fact
	all := []value{{"fact_key", f.Key.String(), true}, {"kind", string(f.Kind), true}, {"order_no", orderNo(p), true}, {"equipment", f.Equipment, false},
		{"plant", f.Plant, false}, {"posting_date", p.PostingDate.Format(time.DateOnly), false}, {"occurred_at", f.OccurredAt, false}}
	if !f.Reverses.IsZero() {
		all = append(all, value{"reverses", f.Reverses.String(), true})
	}
	if to, _ := c.moveType(p); to != "" {
		all = append(all, value{"movement_type", to, true})
	}
	switch {
	case f.Confirmation != nil:
		x := f.Confirmation
		final := "0"
		if x.Final {
			final = "1"
		}
		all = append(all, value{"item", cmp.Or(x.Item, p.Order.Item), true}, value{"unit", c.back[x.Unit], true}, value{"operation", x.Operation, true},
			value{"yield", x.Yield, true}, value{"scrap", x.Scrap, true}, value{"rework", x.Rework, true}, value{"scrap_reason", x.ScrapReason, false},
			value{"lot", x.Lot, true}, value{"serial", x.Serial, true}, value{"person", x.Person, false}, value{"final", final, false})
	case f.Consumption != nil:
		x := f.Consumption
		all = append(all, value{"item", x.Item, true}, value{"unit", c.back[x.Quantity.Unit], true}, value{"operation", x.Operation, true},
			value{"quantity", x.Quantity.Value, true}, value{"movement", string(x.Movement), true}, value{"lot", x.Lot, true})
	case f.OrderState != nil:
		all = append(all, value{"state", string(f.OrderState.State), true})
		if c.cfg.Postings.OperationStates && !p.ClosesOrder {
			all = append(all, value{"operation", f.OrderState.Operation, true})
		}
	}
	return all
}

// moveType is the system's type of the movement that a posting makes, where there is a column for it and a mapping says it. A reversal
// has the type that takes its original back.
func (c *Connector) moveType(p connector.Posting) (string, *connector.Outcome) {
	kind := p.Fact.Moves()
	if c.cfg.Postings.Columns["movement_type"] == "" || kind == "" {
		return "", nil
	}
	if !p.Fact.Reverses.IsZero() {
		kind = kind.Back()
	}
	return p.MovementType(kind, "")
}

func orderNo(p connector.Posting) string { return cmp.Or(p.Fact.OrderNo(), p.Order.OrderNo) }

func (v value) empty() bool {
	if d, ok := v.v.(decimal.Decimal); ok {
		return d.IsZero()
	}
	return v.v == ""
}

// argument is the value as the driver takes it: quantities as text, so that they stay exact.
func (c *Connector) argument(v value) any {
	switch x := v.v.(type) {
	case decimal.Decimal:
		return x.String()
	case time.Time:
		if c.cfg.Driver == "sqlite" {
			return x.Format(time.RFC3339Nano)
		}
		return x.UTC()
	}
	return v.v
}

func reject(class connector.Class, code, next, reason string, args ...any) *connector.Outcome {
	return &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: fmt.Sprintf(reason, args...), NextStep: next}
}

// unsuitable refuses a posting that no row can carry whole.
func (c *Connector) unsuitable(p connector.Posting) *connector.Outcome {
	if can := c.Capabilities(); !slices.Contains(can.Posts, p.Fact.Kind) || !p.Fact.Reverses.IsZero() && !slices.Contains(can.Reverses, p.Fact.Kind) ||
		p.Fact.OrderState != nil && !slices.Contains(can.States, p.Fact.OrderState.State) {
		return reject(connector.Fatal, "NOT_POSTED", "Add it to postings in the configuration, or leave the kind out by policy.",
			"Table %s takes no such fact of kind %s.", c.cfg.Postings.Table, p.Fact.Kind)
	}
	unit := ""
	if x := p.Fact.Confirmation; x != nil {
		unit = x.Unit
	} else if x := p.Fact.Consumption; x != nil {
		unit = x.Quantity.Unit
	}
	if c.back[unit] == "" && p.Fact.OrderState == nil {
		return reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source, or add it to units.", "Unit %q is not mapped to one of the system.", unit)
	}
	if _, no := c.moveType(p); no != nil {
		return no
	}
	for _, v := range c.values(p) {
		if c.cfg.Postings.Columns[v.field] == "" && v.must && !v.empty() {
			return reject(connector.Fatal, "NO_COLUMN", "Name a column for it in postings.columns, or leave it out in the rule of the source.",
				"Table %s has no column for %s of fact %s.", c.cfg.Postings.Table, v.field, p.Fact.Key)
		}
		if d, ok := v.v.(decimal.Decimal); ok && !d.Equal(d.Truncate(*c.cfg.Postings.Scale)) {
			return reject(connector.Fatal, "SCALE", "Round it by the rule of the source, or raise postings.scale if the columns keep more.",
				"%s %s has more than %d decimals.", v.field, d, *c.cfg.Postings.Scale)
		}
	}
	return nil
}

// misfit refuses a posting that does not fit its order.
func (c *Connector) misfit(ctx context.Context, p connector.Posting) (*connector.Outcome, error) {
	no := orderNo(p)
	o, err := c.Get(ctx, no)
	if errors.Is(err, connector.ErrNotFound) {
		return reject(connector.Fatal, "NO_ORDER", "Check the order number at the source.", "Order %s is not in table %s.", no, c.cfg.Orders.Table), nil
	}
	if err != nil {
		return nil, err
	}
	if o.State == object.OrderCancelled || o.State == object.OrderClosed || o.State == object.OrderPlanned ||
		o.State == object.OrderCompleted && p.Fact.OrderState == nil {
		return reject(connector.Correctable, "ORDER_STATE", "Release or reopen the order in the ERP, then replay the fact.", "Order %s is %s.", no, o.State), nil
	}
	badUnit := func(item, got, want string) *connector.Outcome {
		return reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source.", "Item %s of order %s is counted in %s, not in %s.", item, no, want, got)
	}
	badItem := func(item string) *connector.Outcome {
		return reject(connector.Fatal, "ITEM", "Correct the item in the rule of the source, or add it to the order.", "Order %s has no item %s.", no, item)
	}
	switch x := p.Fact; {
	case x.Confirmation != nil && x.Confirmation.Item != "" && x.Confirmation.Item != o.Item:
		return badItem(x.Confirmation.Item), nil
	case x.Confirmation != nil && x.Confirmation.Unit != o.Quantity.Unit:
		return badUnit(o.Item, x.Confirmation.Unit, o.Quantity.Unit), nil
	case x.Consumption != nil && c.cfg.Components.Table != "":
		i := slices.IndexFunc(o.Components, func(part object.Component) bool { return part.Item == x.Consumption.Item })
		if i < 0 {
			return badItem(x.Consumption.Item), nil
		}
		if want := o.Components[i].Required.Unit; want != x.Consumption.Quantity.Unit {
			return badUnit(x.Consumption.Item, x.Consumption.Quantity.Unit, want), nil
		}
	}
	return nil, nil
}
