package reconcile

import (
	"fmt"

	"github.com/shopspring/decimal"
)

// Used is what was healed without a person already. A heal that was undone still counts.
type Used struct{ Order, Day int }

// Decision says whether a finding is healed without a person, and why or why not.
type Decision struct {
	Heal   bool
	Action Action
	Why    string
}

// Value is what an action moves, by the plant's prices.
func (p *Policy) Value(a Action) decimal.Decimal {
	return a.Quantity.Abs().Mul(p.Prices[a.Item])
}

// Decide applies the limits to what the rules propose. It never allows what cannot be taken back.
func Decide(f Finding, used Used, p Policy) Decision {
	d := Decision{Action: f.Proposed, Why: f.Why}
	books := f.Proposed.Kind.changesBooks()
	switch {
	case f.Escalate || !f.Heal || f.Proposed.Kind == Ask || f.Proposed.Kind == NoAction:
		return d
	case books && f.Proposed.Kind.Undo() == NoAction:
		d.Why = "it could not be taken back"
		return d
	case books && used.Order >= p.Limits.PerOrder:
		d.Why = fmt.Sprintf("%d heals of this order are as many as are allowed without a person", used.Order)
		return d
	case books && used.Day >= p.Limits.PerDay:
		d.Why = fmt.Sprintf("%d heals today are as many as are allowed without a person", used.Day)
		return d
	case books && p.Value(f.Proposed).GreaterThan(p.Limits.Value):
		d.Why = fmt.Sprintf("it moves %s, and %s is allowed without a person", p.Value(f.Proposed), p.Limits.Value)
		return d
	}
	d.Heal = true
	return d
}

// UndoOf is the action that takes a heal back that turned out to be wrong; false when nothing in the books has to be changed.
// document is what the heal made.
func UndoOf(healed Action, document string) (Action, bool) {
	kind := healed.Kind.Undo()
	if kind == NoAction {
		return Action{}, false
	}
	if healed.Write != "" {
		return Action{Kind: Ask, Write: healed.Write, Document: document, Text: "cancel or reverse " + document + " in the outside system, or by a write of its own"}, true
	}
	a := Action{Kind: kind, Fact: healed.Fact, Document: document, Item: healed.Item, Quantity: healed.Quantity, Unit: healed.Unit}
	switch kind {
	case ReverseDocument:
		a.Text = "reverse document " + document + ", which a heal has made"
	default:
		a.Text = "post fact " + healed.Fact + " again, of which a heal has reversed document " + healed.Document
	}
	return a, true
}
