package reconcile

import (
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
)

// trouble says what kind of disagreement a posting's code means. SAP's message numbers stand as its texts have them, the words
// are those of our own connectors.
var trouble = map[string]Type{
	"M7/053": PeriodClosed, "period_closed": PeriodClosed,
	"C1/005": OrderLocked, "CO/469": OrderLocked, "MC/601": OrderLocked, "M3/897": OrderLocked, "M3/024": OrderLocked, "423": OrderLocked, "order_locked": OrderLocked,
	"order_changed": OrderLocked,
	"ORDER_STATE":   OrderClosed, "order_closed": OrderClosed, "CO/106": OrderClosed, "RU/013": OrderClosed,
	"M7/021": Deficit, "insufficient_stock": Deficit,
	"M3/305": MasterMissing, "ITEM": MasterMissing, "unknown_item": MasterMissing, "UNIT": MasterMissing, "unknown_unit": MasterMissing, "unknown_lot": MasterMissing,
	"RU/002": MasterMissing, "OPERATION": MasterMissing, "operation_not_of_order": MasterMissing, "unknown_order": MasterMissing, "UNKNOWN_ORDER": MasterMissing, "CO/017": MasterMissing,
	"BM/302": UnitMismatch, "unit_mismatch": UnitMismatch,
	// The hub's own, of what its policies hold.
	"late_fact": PeriodClosed, "over_delivery": OverDelivery, "order_closed_for_good": OrderClosed,
	"mapping_missing": MasterMissing,
}

// TypeOf says what kind of disagreement the code of a refused posting means; empty for none that is compared.
func TypeOf(code string) Type { return trouble[code] }

// MayBeClosed reports whether a refusal's code may mean that the order takes no postings in its state.
func MayBeClosed(code string) bool { return trouble[code] == OrderClosed || code == bothWays }

// bothWays is one message for two things: failed movements stand in the way, or the order takes nothing any more.
const bothWays = "CO/688"

// refused classifies what keeps a posting from the books.
func (c *orderCheck) refused(f *Fact) {
	if f.State != "parked" && f.State != "due" || f.Code == "" {
		return
	}
	t := trouble[f.Code]
	if f.Code == bothWays {
		t = MovementFailed
		if c.o.Work != nil && orderRank[c.o.Work.State] >= 2 {
			t = OrderClosed
		}
	}
	x := Finding{Type: t, Subject: "fact " + f.Key.String(), Facts: []string{f.Key.String()}, Severity: Medium, Since: f.Since,
		Left: Side{"fact", "to be posted"}, Right: Side{c.o.ERP, f.Code + " " + f.Reason}, Evidence: []Evidence{factEvidence(f)}}
	if q := f.Lines(); len(q) > 0 {
		x.Delta, x.Unit, x.Item = q[0].Received, q[0].Unit, q[0].Item
	}
	act := func(kind ActionKind, owner Owner, format string, args ...any) {
		x.Owner = owner
		x.Proposed = Action{Kind: kind, Fact: f.Key.String(), Item: x.Item, Quantity: x.Delta, Unit: x.Unit, Text: fmt.Sprintf(format, args...)}
	}
	old := c.age(f.Since)
	switch t {
	case PeriodClosed:
		act(MoveDate, Controlling, "post on the first day of an open period, with the original date in the text")
		x.decide(!c.r.FirstOpenDay || f.Code == "late_fact", "the plant's policy asks a person about a closed period", "the plant's policy posts on the first open day")
	case OrderLocked:
		act(Retry, Planning, "try again: a lock goes when its user leaves the order")
		x.decide(old > c.p.LockFor, fmt.Sprintf("the lock has lasted %s, held by %s", old.Round(time.Minute), orUnknown(c.o.LockHolder)), "locks go by themselves")
	case OrderClosed:
		act(Reopen, Planning, "reopen the order, post, and restore its state")
		x.Severity = High
		x.decide(!c.r.MayReopen || c.beyond() || f.Code == "order_closed_for_good", "the order is closed or may not be reopened without a person", "the plant's policy lets it be reopened")
	case Deficit:
		act(WaitReceipt, Warehouse, "wait for the receipt of %q, then post again in causal order", x.Item)
		x.decide(!c.o.Receipts[x.Item] && old > c.p.ReceiptFor, fmt.Sprintf("no receipt of %q is under way", x.Item), "a receipt may come")
	case MasterMissing:
		if f.Code == "mapping_missing" {
			act(Ask, Masterdata, "add what is missing to the mapping set and have that approved; then it goes on by itself")
			x.decide(true, "no mapping in force knows it, and nothing is guessed", "")
			break
		}
		act(PullMaster, Masterdata, "read the master data again, then post again")
		x.decide(old > c.p.LockFor, "it was not found after the master data was read again", "the master data may have come meanwhile")
	case UnitMismatch:
		act(Ask, Masterdata, "correct the unit of item %q in the mapping or at the source", x.Item)
		x.decide(true, "no factor between the units is known for the item", "")
	case OverDelivery:
		act(Ask, Planning, "raise the order's quantity and replay the fact, approve it, or reject what is too much")
		x.decide(true, "the plant's policy stops what is more than ordered", "")
	case MovementFailed:
		act(PostMovement, Warehouse, "process the order's failed movements, then post again")
		x.decide(old > c.p.MovementFor, fmt.Sprintf("it has waited for longer than %s", c.p.MovementFor), "the movements may be processed by now")
	default:
		return
	}
	c.add(x)
}

func (f *Finding) decide(escalate bool, why, whyNot string) {
	f.Escalate, f.Heal, f.Why = escalate, !escalate, whyNot
	if escalate {
		f.Why = why
	}
}

func orUnknown(s string) string {
	if s == "" {
		return "an unknown user"
	}
	return s
}

// clock is about a device whose clock is off.
func (c *orderCheck) clock(f *Fact) {
	ahead := f.OccurredAt.Sub(f.RecordedAt)
	late := f.OccurredAt.Sub(f.ReceivedAt)
	if !f.ClockSuspect && ahead <= c.p.Skew && late <= c.p.Skew {
		return
	}
	x := Finding{Type: ClockSkew, Subject: "source " + f.Plant + "/" + f.Source, Facts: []string{f.Key.String()}, Severity: Low, Owner: Automation,
		Left: Side{"device", f.OccurredAt.Format(time.RFC3339)}, Right: Side{"hub", f.ReceivedAt.Format(time.RFC3339)}, Evidence: []Evidence{factEvidence(f)}, Since: f.ReceivedAt,
		Proposed: Action{Kind: Estimate, Fact: f.Key.String(), Text: "use the sequence and the agent's time, marked as estimated"}}
	n := 0
	for i := range c.o.Facts {
		g := &c.o.Facts[i]
		if g.Source == f.Source && (g.ClockSuspect || g.OccurredAt.Sub(g.RecordedAt) > c.p.Skew || g.OccurredAt.Sub(g.ReceivedAt) > c.p.Skew) {
			n++
		}
	}
	x.decide(n >= 3, fmt.Sprintf("%d facts of this source have doubtful times: set the device's clock", n), "the sequence tells the order of the facts")
	c.add(x)
}

// place is about a fact of another plant than its order, and about dates that the wrong zone has moved.
func (c *orderCheck) place(f *Fact) {
	if f.Code == "wrong_plant" || c.o.Work != nil && c.o.Work.Plant != "" && f.Plant != c.o.Work.Plant {
		plant := ""
		if c.o.Work != nil {
			plant = c.o.Work.Plant
		}
		c.add(Finding{Type: WrongPlace, Subject: "fact " + f.Key.String(), Facts: []string{f.Key.String()}, Severity: High, Owner: Production, Left: Side{"fact's plant", f.Plant},
			Right: Side{"order's plant", plant}, Evidence: []Evidence{factEvidence(f)}, Escalate: true, Why: "the fact's plant is not the order's", Since: f.ReceivedAt,
			Proposed: Action{Kind: Ask, Fact: f.Key.String(), Text: "say which order ran on that machine, or correct the route of the order"}})
		return
	}
	zone, err := time.LoadLocation(f.TimeZone)
	if f.PostingDate == "" || f.ShiftDate != "" || f.TimeZone == "" || err != nil {
		return
	}
	local := f.OccurredAt.In(zone).Format(time.DateOnly)
	other := f.OccurredAt.UTC().Format(time.DateOnly)
	if f.PostingDate == local || f.PostingDate != other {
		return // right, or set on purpose
	}
	x := Finding{Type: WrongPlace, Subject: "fact " + f.Key.String(), Facts: []string{f.Key.String()}, Severity: Low, Owner: Controlling, Left: Side{"date in zone " + f.TimeZone, local},
		Right: Side{"date for the books", f.PostingDate}, Evidence: []Evidence{factEvidence(f)}, Since: f.ReceivedAt,
		Proposed: Action{Kind: FixDate, Fact: f.Key.String(), Text: "use the date of the plant's zone, " + local}}
	x.decide(f.State != "due" && f.State != "", "it is posted already with the date of another zone", "it is not posted yet")
	c.add(x)
}

// lot is about material of a lot that should not have been used.
func (c *orderCheck) lot(f *Fact) {
	use := f.Consumption
	if use == nil || use.Lot == "" || c.o.Lots == nil || use.Movement == object.Return {
		return
	}
	lot, known := c.o.Lots[use.Item+"/"+use.Lot]
	var why string
	switch {
	case !known || !lot.Issued:
		why = "the lot was not issued to the line"
	case lot.Blocked:
		why = "the lot is blocked by quality"
	case !lot.Expires.IsZero() && f.OccurredAt.After(lot.Expires):
		why = "the lot had expired"
	default:
		return
	}
	c.add(Finding{Type: LotMismatch, Subject: fmt.Sprintf("lot %s of item %s", use.Lot, use.Item), Facts: []string{f.Key.String()}, Severity: High, Owner: Quality, Item: use.Item,
		Left: Side{"used", use.Lot}, Right: Side{"issued", why}, Delta: use.Quantity.Value, Unit: use.Quantity.Unit, Evidence: []Evidence{factEvidence(f)}, Escalate: true, Why: why, Since: f.ReceivedAt,
		Proposed: Action{Kind: Ask, Fact: f.Key.String(), Text: "hold what was produced with it until quality has decided"}})
}

// machines compares what the agents stored with what came here: what is in no buffer any more is a gap.
func (c *orderCheck) machines() {
	type sum struct{ stored, received object.FactLine }
	var keys []object.LedgerKey
	sums := map[object.LedgerKey]*sum{}
	at := func(k object.LedgerKey) *sum {
		if sums[k] == nil {
			sums[k] = &sum{}
			keys = append(keys, k)
		}
		return sums[k]
	}
	pending := map[object.LedgerKey]bool{}
	for _, e := range c.o.Edge {
		s := at(anywhere(e.LedgerKey))
		s.stored.Received = s.stored.Received.Add(e.Stored)
		pending[anywhere(e.LedgerKey)] = pending[anywhere(e.LedgerKey)] || e.Pending > 0 || e.AsOf.After(c.o.Now.Add(-c.p.Settle))
	}
	for _, f := range append(slices.Clone(c.o.Facts), c.o.Elsewhere...) {
		for _, l := range f.counted() {
			s := at(anywhere(l.LedgerKey))
			s.received.Received = s.received.Received.Add(l.Received)
		}
	}
	slices.SortFunc(keys, compareKeys)
	for _, k := range keys {
		lost := sums[k].stored.Received.Sub(sums[k].received.Received)
		if !lost.IsPositive() || pending[k] {
			continue
		}
		c.add(Finding{Type: SequenceGap, Subject: keyText(k), Severity: High, Owner: Automation, Item: k.Item, Unit: k.Unit, Delta: lost, Left: Side{"stored at the agents", sums[k].stored.Received.String()},
			Right: Side{"received", sums[k].received.Received.String()}, Escalate: true, Why: "the agents' buffers are empty and the facts never came", Since: c.o.Now,
			Proposed: Action{Kind: Ask, Item: k.Item, Quantity: lost, Unit: k.Unit, Text: "restore the agent's buffer from a copy, or enter the quantity by hand"}})
	}
}
