package object

import (
	"time"

	"github.com/shopspring/decimal"
)

// QuantityKind says what a quantity of the ledger counts.
type QuantityKind string

// The kinds of quantities.
const (
	Yield    QuantityKind = "yield"
	Scrap    QuantityKind = "scrap"
	Rework   QuantityKind = "rework"
	Consumed QuantityKind = "consumed"
	Returned QuantityKind = "returned"
)

// Stocked is what a quantity of the kind does to the stock of its item: above zero it comes in. False: nothing.
func (k QuantityKind) Stocked(q decimal.Decimal) (decimal.Decimal, bool) {
	switch k {
	case Yield, Returned:
		return q, true
	case Consumed:
		return q.Neg(), true
	}
	return q, false
}

// LedgerKey names one line of the quantity ledger. Quantities of different keys are never added.
type LedgerKey struct {
	Plant, OrderNo, Operation, Item string
	Kind                            QuantityKind
	Unit                            string
}

// EdgeLine is what one agent reported for one source: counted there, and stored as facts.
type EdgeLine struct {
	LedgerKey
	Agent, Source   string
	Counted, Stored decimal.Decimal
	// Pending is how many facts the agent had not yet handed over, and AsOf when it said so.
	Pending uint64
	AsOf    time.Time
}

// FactLine is one quantity of one fact that the hub holds, and what became of it; or the sum over Count facts of the same line
// of which State, Code and Reason say the same.
type FactLine struct {
	LedgerKey
	FactKey string // the 16-character form; empty for a sum
	// Count is of how many facts it is, 0 and 1 for one. Facts are the keys of some facts of a sum, FactKey among them.
	Count int64
	Facts []string
	// Received counts once: what an overlapping counter range repeated is left out already. Negative for a reversal.
	Received decimal.Decimal
	// State is the posting's state, empty while the fact is not planned yet. Posted is what has an effect in the ERP.
	State  string
	Posted decimal.Decimal
	// Settled is what will have no effect by policy or by a person's decision.
	Settled  decimal.Decimal
	Code     string
	Reason   string
	Document string
}

// FactQuantities lists the quantities of a fact that are not zero; the kinds that carry none give an empty list.
func (f *Fact) FactQuantities() []FactLine {
	line := func(op, item string, kind QuantityKind, unit string, v decimal.Decimal) FactLine {
		if !f.Reverses.IsZero() {
			v = v.Neg()
		}
		key := LedgerKey{Plant: f.Plant, OrderNo: f.OrderNo(), Operation: op, Item: item, Kind: kind, Unit: unit}
		return FactLine{LedgerKey: key, FactKey: f.Key.String(), Received: v}
	}
	var all []FactLine
	if c := f.Confirmation; c != nil {
		all = append(all, line(c.Operation, c.Item, Yield, c.Unit, c.Yield), line(c.Operation, c.Item, Scrap, c.Unit, c.Scrap),
			line(c.Operation, c.Item, Rework, c.Unit, c.Rework))
	}
	if c := f.Consumption; c != nil {
		kind := Consumed
		if c.Movement == Return {
			kind = Returned
		}
		all = append(all, line(c.Operation, c.Item, kind, c.Quantity.Unit, c.Quantity.Value))
	}
	kept := all[:0]
	for _, l := range all {
		if !l.Received.IsZero() {
			kept = append(kept, l)
		}
	}
	return kept
}
