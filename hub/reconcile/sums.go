package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

func compareKeys(a, b object.LedgerKey) int {
	return cmp.Or(cmp.Compare(a.Plant, b.Plant), cmp.Compare(a.OrderNo, b.OrderNo), cmp.Compare(a.Operation, b.Operation),
		cmp.Compare(a.Item, b.Item), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Unit, b.Unit))
}

// anywhere is a ledger line whatever the plant: a fact in the wrong plant is a finding of its own.
func anywhere(k object.LedgerKey) object.LedgerKey {
	k.Plant = ""
	return k
}

func keyText(k object.LedgerKey) string {
	return fmt.Sprintf("order %s operation %s item %s %s %s", k.OrderNo, k.Operation, k.Item, k.Kind, k.Unit)
}

// unit compares the quantities of a fact with those of its document. A ratio near a known factor is a wrong unit.
func (c *orderCheck) unit(f *Fact, e object.Effect) {
	for _, l := range f.Lines() {
		i := slices.IndexFunc(e.Quantities, func(q object.EffectQuantity) bool {
			return q.Kind == l.Kind && (q.Item == l.Item || l.Item == "" || q.Item == "")
		})
		if i < 0 {
			continue
		}
		q := e.Quantities[i]
		if q.Unit == l.Unit && q.Value.Equal(l.Received) || l.Received.IsZero() || q.Value.IsZero() {
			continue
		}
		fac, known := c.factor(l, q)
		if !known && q.Unit == l.Unit && !suspicious(q.Value, l.Received) {
			continue // a wrong quantity, which Verify has parked already
		}
		if c.units == nil {
			c.units = map[string]bool{}
		}
		c.units[l.Item] = true
		x := Finding{Type: UnitMismatch, Subject: "fact " + f.Key.String(), Facts: f.about(), Severity: High, Owner: Masterdata, Item: l.Item, Unit: l.Unit,
			Left: Side{"fact", l.Received.String() + " " + l.Unit}, Right: Side{"document " + e.Number, q.Value.String() + " " + q.Unit}, Delta: q.Value.Sub(l.Received),
			Evidence: []Evidence{factEvidence(f), effectEvidence(e)}, Since: e.BookedAt,
			Proposed: Action{Kind: Convert, Fact: f.Key.String(), Document: e.Number, Item: l.Item, Quantity: l.Received, Unit: l.Unit, Text: fmt.Sprintf("reverse document %s and post %s %s", e.Number, l.Received, l.Unit)}}
		x.decide(!known, "the ratio is that of a unit, but the item has no such factor", fmt.Sprintf("the item has %s %s for one %s", fac.Times, fac.To, fac.From))
		c.add(x)
	}
}

// factor finds the item's factor that explains a difference.
func (c *orderCheck) factor(l object.FactLine, q object.EffectQuantity) (Factor, bool) {
	for _, f := range c.p.Factors {
		if f.Item != "" && f.Item != l.Item || f.Times.IsZero() {
			continue
		}
		if f.From == l.Unit && near(q.Value, l.Received.Mul(f.Times)) || f.To == l.Unit && near(q.Value.Mul(f.Times), l.Received) {
			return f, true
		}
	}
	return Factor{}, false
}

// near is equal but for what rounding does.
func near(a, b decimal.Decimal) bool {
	return a.Sub(b).Abs().LessThanOrEqual(b.Abs().Mul(decimal.New(1, -3)))
}

var ratios = []decimal.Decimal{decimal.NewFromInt(10), decimal.NewFromInt(12), decimal.NewFromInt(100), decimal.NewFromInt(1000), decimal.NewFromInt(144)}

// suspicious reports a ratio that units have.
func suspicious(a, b decimal.Decimal) bool {
	return slices.ContainsFunc(ratios, func(r decimal.Decimal) bool { return near(a, b.Mul(r)) || near(a.Mul(r), b) })
}

// used is the material of an order by who posted it.
type used struct {
	byERP, byMES decimal.Decimal // backflushed by the system, posted for facts
	unit         string
	backflush    []object.Effect
	alone        string // the number of one backflush that can be taken back without anything else
}

func (c *orderCheck) material() map[string]*used {
	all := map[string]*used{}
	for _, e := range booked(c.o.Effects) {
		for _, m := range e.Movements {
			if m.Failed || m.Kind != object.Consumed && m.Kind != object.Returned {
				continue
			}
			u := all[m.Item]
			if u == nil {
				u = &used{unit: m.Unit}
				all[m.Item] = u
			}
			v := m.Value
			if m.Kind == object.Returned {
				v = v.Neg()
			}
			if m.Backflush {
				u.byERP = u.byERP.Add(v)
				if e.ReversedBy == "" && e.Reverses == "" && m.Value.IsPositive() {
					u.backflush = append(u.backflush, e)
					u.alone = cmp.Or(alone(e, m), u.alone)
				}
			} else {
				u.byMES = u.byMES.Add(v)
			}
		}
	}
	return all
}

// alone is the number under which a movement can be taken back and nothing else; empty where there is none.
func alone(e object.Effect, m object.EffectMovement) string {
	if m.Document != "" {
		return m.Document
	}
	if e.Kind != object.KindConsumption || len(e.Movements) != 1 {
		return "" // to take it back would take back what was confirmed with it
	}
	return e.Number
}

// made is what the system holds of the order's item: yield, and all that was started.
func (c *orderCheck) made() (yield, all decimal.Decimal, unit string) {
	for _, e := range booked(c.o.Effects) {
		for _, q := range e.Quantities {
			if e.Kind != object.KindConfirmation {
				continue
			}
			switch q.Kind {
			case object.Yield:
				if e.Interim {
					continue
				}
				yield, unit = yield.Add(q.Value), q.Unit
				all = all.Add(q.Value)
			case object.Scrap:
				all = all.Add(q.Value)
			}
		}
	}
	return yield, all, unit
}

// uses compares the material of the order with its parts list, and looks for material that was taken twice.
func (c *orderCheck) uses() {
	if c.o.Work == nil {
		return
	}
	material := c.material()
	_, made, _ := c.made()
	for _, item := range slices.Sorted(maps.Keys(material)) {
		u := material[item]
		if u.byERP.IsPositive() && u.byMES.IsPositive() {
			c.twiceUsed(item, u)
			continue
		}
		c.useOff(item, u, made)
	}
}

func (c *orderCheck) twiceUsed(item string, u *used) {
	x := Finding{Type: DoubleUse, Subject: fmt.Sprintf("order %s item %s", c.o.OrderNo, item), Severity: High, Owner: Controlling, Item: item, Unit: u.unit, Delta: decimal.Min(u.byERP, u.byMES),
		Left: Side{"posted by the MES", u.byMES.String()}, Right: Side{"backflushed by the ERP", u.byERP.String()}, Since: c.o.Now,
		Proposed: Action{Kind: ReverseDocument, Item: item, Quantity: u.byERP, Unit: u.unit, Text: fmt.Sprintf("take back the backflush of %s %s of %q", u.byERP, u.unit, item)}}
	for _, e := range u.backflush {
		x.Evidence = append(x.Evidence, effectEvidence(e))
	}
	x.Proposed.Document = u.alone
	owner := c.owner(item)
	if owner == "erp" {
		x.Proposed = Action{Kind: Ask, Item: item, Quantity: u.byMES, Unit: u.unit, Text: fmt.Sprintf("take back what was posted for the plant, %s %s of %q: the system backflushes it", u.byMES, u.unit, item)}
	}
	x.decide(owner != "mes" || u.alone == "", "the plant's policy does not say that the MES owns the component's consumption", "the plant's policy says that the MES posts the consumption")
	if owner == "mes" && u.alone == "" {
		x.Why = "the backflush is a part of a confirmation and cannot be taken back alone"
	}
	c.add(x)
}

func (c *orderCheck) components() []object.Component {
	if c.o.Work == nil {
		return nil
	}
	return c.o.Work.Components
}

// owner is who posts the consumption of an item of the order.
func (c *orderCheck) owner(item string) string {
	all := c.components()
	if i := slices.IndexFunc(all, func(m object.Component) bool { return m.Item == item }); i >= 0 {
		return c.r.Owner(item, &all[i])
	}
	return c.r.Owner(item, nil)
}

func (c *orderCheck) useOff(item string, u *used, made decimal.Decimal) {
	required := decimal.Zero
	for _, m := range c.o.Work.Components {
		if m.Item == item && m.Required.Unit == u.unit {
			required = required.Add(m.Required.Value)
		}
	}
	over := (c.o.Work.State == object.OrderCompleted || c.o.Work.State == object.OrderClosed) && !c.unposted()
	if required.IsZero() || c.o.Work.Quantity.Value.IsZero() || c.units[item] {
		return
	}
	want := required.Mul(made).Div(c.o.Work.Quantity.Value)
	have := u.byERP.Add(u.byMES)
	off := have.Sub(want)
	if !over && off.IsNegative() || off.Abs().LessThanOrEqual(want.Mul(c.p.UseTolerance)) || !over && have.LessThanOrEqual(required) {
		return // too little may still come, and a charge may be fed before it is used
	}
	c.add(Finding{Type: UseOff, Subject: fmt.Sprintf("order %s item %s", c.o.OrderNo, item), Severity: Medium, Owner: Production, Item: item, Unit: u.unit, Delta: off,
		Left: Side{"parts list for what was made", want.Round(6).String()}, Right: Side{"consumed", have.String()}, Escalate: true, Since: c.o.Now,
		Why: "it may be true: production and controlling give a reason code", Proposed: Action{Kind: Ask, Item: item, Quantity: off, Unit: u.unit, Text: "give a reason code, or correct the consumption"},
		Evidence: []Evidence{{Kind: "order", Ref: c.o.OrderNo, Text: fmt.Sprintf("requires %s %s of %q for %s", required, u.unit, item, c.o.Work.Quantity.Value)}}})
}

// unposted reports that something of the order is not in the books yet: it may explain what is off there.
func (c *orderCheck) unposted() bool {
	return slices.ContainsFunc(c.found, func(f Finding) bool { return f.Type == Missing }) || slices.ContainsFunc(c.o.Facts, func(f Fact) bool {
		return f.State == "" || f.State == "due" || f.State == "parked" || f.State == "sending" || f.State == "in_doubt"
	})
}

// delivery is about more than was ordered.
func (c *orderCheck) delivery() {
	if c.o.Work == nil || c.o.Work.Quantity.Value.IsZero() {
		return
	}
	yield, _, unit := c.made()
	limit := c.o.Work.Quantity.Value.Mul(decimal.NewFromInt(1).Add(c.r.YieldTolerance))
	if unit != c.o.Work.Quantity.Unit || !yield.GreaterThan(limit) || c.units[c.o.Work.Item] || slices.ContainsFunc(c.found, func(f Finding) bool { return f.Type == Duplicate }) {
		return // a duplicate or a wrong unit explains it
	}
	c.add(Finding{Type: OverDelivery, Subject: "order " + c.o.OrderNo, Severity: Medium, Owner: Planning, Item: c.o.Work.Item, Unit: unit, Delta: yield.Sub(c.o.Work.Quantity.Value),
		Left: Side{"ordered", c.o.Work.Quantity.Value.String()}, Right: Side{"delivered", yield.String()}, Escalate: true, Why: "more was delivered than the order allows", Since: c.o.Now,
		Proposed: Action{Kind: Ask, Item: c.o.Work.Item, Quantity: yield.Sub(c.o.Work.Quantity.Value), Unit: unit, Text: "raise the order's quantity, or reject what is too much"}})
}

// mes compares what the MES says with what the machines' facts say.
func (c *orderCheck) mes() {
	for _, m := range c.o.MES {
		if m.AsOf.After(c.o.Now.Add(-c.p.Settle)) {
			continue
		}
		have, later := decimal.Zero, false
		for _, f := range append(slices.Clone(c.o.Facts), c.o.Elsewhere...) {
			for _, l := range f.counted() {
				if anywhere(l.LedgerKey) == anywhere(m.LedgerKey) {
					have = have.Add(l.Received)
					later = later || f.OccurredAt.After(m.AsOf)
				}
			}
		}
		if later || have.Equal(m.Value) {
			continue
		}
		c.add(Finding{Type: SumsDiffer, Subject: keyText(m.LedgerKey), Severity: Medium, Owner: Production, Item: m.Item, Unit: m.Unit, Delta: m.Value.Sub(have),
			Left: Side{"machines", have.String()}, Right: Side{"MES", m.Value.String()}, Escalate: true, Why: "no fact explains the difference", Since: m.AsOf,
			Proposed: Action{Kind: Ask, Item: m.Item, Quantity: m.Value.Sub(have), Unit: m.Unit, Text: "find out which count is right: the counter ranges of the facts are listed in the statement"}})
	}
}
