package reconcile

import (
	"time"

	"github.com/shopspring/decimal"
)

// Triage is whose an exception is by the rules, how much it matters, and the one thing that is proposed.
type Triage struct {
	Owner    Owner
	Severity Severity
	Proposed string
}

var ownerOf = map[Type]Owner{
	PeriodClosed: Controlling, OrderLocked: Planning, OrderClosed: Planning, Deficit: Warehouse, MasterMissing: Masterdata, UnitMismatch: Masterdata, OverDelivery: Planning,
	MovementFailed: Warehouse, LotMismatch: Quality,
}

// ownerOfCode is of the hub's own codes of postings.
var ownerOfCode = map[string]Owner{
	"unknown_order": Planning, "order_without_plant": Planning, "wrong_plant": Production, "no_connector": Automation, "no_order": Production, "reversal": Controlling,
	"waits_for_original": Production, "negative_quantity": Production, "range_overlap": Production, "connector_broke": Automation, "reversing": Controlling, "doubtful_clock": Automation,
}

// TriagePosting judges a posting that is parked or in doubt.
func TriagePosting(state, class, code string) Triage {
	t := Triage{Owner: Production, Severity: Medium, Proposed: "mend what the reason says, then replay it"}
	if o, ok := ownerOf[TypeOf(code)]; ok {
		t.Owner = o
	} else if o, ok := ownerOfCode[code]; ok {
		t.Owner = o
	}
	switch {
	case state == "in_doubt":
		t.Proposed = "nothing: the outside system is asked until it is known"
	case class == "cannot_tell":
		t.Severity, t.Proposed = High, "look in the outside system: accept it with the document's number if it is there, or have it posted again if it is not"
	case code == "reversing":
		t.Owner, t.Severity, t.Proposed = Controlling, High, "take it back again: that is done once"
	case class == "mismatch":
		t.Owner, t.Severity, t.Proposed = Controlling, High, "take the document back and correct the posting, or correct the document and compare again"
	case class == "waiting":
		t.Severity, t.Proposed = Low, "bring what it waits for; then it goes on by itself"
	case TypeOf(code) == PeriodClosed:
		t.Proposed = "correct the date to one of an open period"
	case TypeOf(code) == OrderClosed || code == "wrong_plant" || code == "no_order" || TypeOf(code) == MasterMissing:
		t.Proposed = "correct the order number or the item, or mend it in the outside system and replay it"
	}
	return t
}

// TriageOther judges an exception that is neither a posting nor a discrepancy, by its kind.
func TriageOther(kind string) Triage {
	switch kind {
	case "exception":
		return Triage{Automation, Medium, "mend the source or its rule, then settle it with a note"}
	case "conflict":
		return Triage{Automation, High, "find out at the source which of the two is right, then settle it with a note"}
	case "unreadable":
		return Triage{Automation, High, "read it again after an upgrade"}
	}
	return Triage{Automation, High, "do what the next step says, then settle it with a note"}
}

// triageOfAlarm is of alarms that are not urgent, or not automation's.
var triageOfAlarm = map[string]Triage{
	"source_down":         {Automation, Medium, ""},
	"clock_differs":       {Automation, Medium, ""},
	"facts_stuck":         {Automation, Medium, ""},
	"agent_never_came":    {Automation, Medium, ""},
	"order_unrouted":      {Planning, Medium, ""},
	"order_unmapped":      {Masterdata, Medium, ""},
	"facts_without_order": {Planning, Medium, ""},
	"facts_without_plant": {Planning, Medium, ""},
}

// TriageAlarm judges an alarm by its code.
func TriageAlarm(code string) Triage {
	t := TriageOther("alarm")
	if x, ok := triageOfAlarm[code]; ok {
		t.Owner, t.Severity = x.Owner, x.Severity
	}
	return t
}

// Worth is what amounts of items are worth by the plant's prices; false when one of them has no price.
func (p *Policy) Worth(amounts map[string]decimal.Decimal) (decimal.Decimal, bool) {
	sum := decimal.Zero
	for item, n := range amounts {
		price, ok := p.Prices[item]
		if !ok {
			return decimal.Zero, false
		}
		sum = sum.Add(n.Abs().Mul(price))
	}
	return sum, len(amounts) > 0
}

// TimeFor is how long an exception of a severity may be open.
func (p *Policy) TimeFor(s Severity) time.Duration { return p.sla(s) }

// TierOf is how often an exception without a life of its own has outlasted its time: 0 inbox, 1 the plant's owner, 2 stop.
func (p *Policy) TierOf(s Severity, age time.Duration) int {
	switch limit := p.sla(s); {
	case age >= 2*limit:
		return 2
	case age >= limit:
		return 1
	}
	return 0
}
