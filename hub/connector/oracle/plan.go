package oracle

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// intent is what Prepare found out for Post, Lookup and Verify: the request itself, so that whatever is sent later is what was
// looked for, and the totals before it.
type intent struct {
	// At is when it was made, by the hub's clock.
	At    time.Time `json:"at"`
	Order string    `json:"order"`
	ID    string    `json:"id"`
	// Resource and Body are the request; Ref is the reference of its transactions.
	Resource string          `json:"resource"`
	Body     json.RawMessage `json:"body"`
	Ref      string          `json:"ref"`
	// Search says that the effect can be found by Ref.
	Search bool `json:"search,omitempty"`
	// Sequence and Item say of what the totals are. Before is nil when the effect was there already.
	Sequence int     `json:"sequence"`
	Item     string  `json:"item,omitempty"`
	Before   *totals `json:"before,omitempty"`
}

// totals are the sums that a posting changes.
type totals struct {
	Completed decimal.Decimal `json:"completed"`
	Scrapped  decimal.Decimal `json:"scrapped"`
	Issued    decimal.Decimal `json:"issued"`
}

func (t totals) plus(d totals) totals {
	return totals{t.Completed.Add(d.Completed), t.Scrapped.Add(d.Scrapped), t.Issued.Add(d.Issued)}
}

func (t totals) equal(o totals) bool {
	return t.Completed.Equal(o.Completed) && t.Scrapped.Equal(o.Scrapped) && t.Issued.Equal(o.Issued)
}

func (t totals) String() string {
	return fmt.Sprintf("%s completed, %s scrapped, %s issued", t.Completed, t.Scrapped, t.Issued)
}

// reject makes a rejection. Nothing has happened in Oracle when it is given.
func reject(class connector.Class, code, next, reason string, args ...any) *connector.Outcome {
	return &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: fmt.Sprintf(reason, args...), NextStep: next}
}

// unsuitable refuses what Oracle has no place for, before anything is read.
func (c *Connector) unsuitable(p connector.Posting) *connector.Outcome {
	f := &p.Fact
	lot := (f.Confirmation != nil && (f.Confirmation.Lot != "" || f.Confirmation.Serial != "")) || (f.Consumption != nil && f.Consumption.Lot != "")
	switch {
	case f.Confirmation == nil && f.Consumption == nil:
		return reject(connector.Fatal, "NOT_SUPPORTED", "Do not route this kind of fact to this ERP.", "Oracle has no transaction here for a fact of kind %s.", f.Kind)
	case f.OrderNo() == "":
		return reject(connector.Fatal, "NO_ORDER", "Find the order that ran at that time, then send the fact again with it.", "Fact %s names no order.", f.Key)
	case lot:
		return reject(connector.Fatal, "LOT", "Post it by hand in Oracle, then accept the fact.", "Fact %s carries a lot or a serial number, which this connector does not write to Oracle.", f.Key)
	case f.Confirmation != nil && f.Confirmation.Rework.IsPositive():
		return reject(connector.Fatal, "REWORK", "Report rework as scrap or not at all in the rule of the source.", "Oracle has no dispatch state for rework of %s pieces.", f.Confirmation.Rework)
	case f.Confirmation != nil && !f.Confirmation.Yield.IsPositive() && !f.Confirmation.Scrap.IsPositive():
		return reject(connector.Fatal, "NOTHING", "Correct the rule of the source.", "Fact %s confirms neither yield nor scrap.", f.Key)
	case !f.Reverses.IsZero() && c.cfg.Lookup != byReference:
		return reject(connector.Fatal, "NOT_SUPPORTED", "Take it back in Oracle, then accept this fact.", "Without references the transaction of fact %s cannot be found.", f.Reverses)
	}
	return nil
}

// reference is what the transactions of a fact carry. That of a reversal also names what it takes back.
func reference(p connector.Posting) string {
	if p.Fact.Reverses.IsZero() {
		return p.Fact.Key.String()
	}
	return p.Fact.Key.String() + "/" + p.Fact.Reverses.String()
}

// change is what a posting adds to the totals.
func change(p connector.Posting) (d totals) {
	sign := decimal.NewFromInt(1)
	if !p.Fact.Reverses.IsZero() {
		sign = sign.Neg()
	}
	if f := p.Fact.Confirmation; f != nil {
		d.Completed, d.Scrapped = f.Yield.Mul(sign), f.Scrap.Mul(sign)
	}
	if f := p.Fact.Consumption; f != nil {
		d.Issued = f.Quantity.Value.Mul(sign)
		if f.Movement == object.Return {
			d.Issued = d.Issued.Neg()
		}
	}
	return d
}

// read takes the totals of an intent's operation and item out of an order.
func (in *intent) read(o *order) (t totals) {
	for _, op := range o.Operations {
		if op.Sequence != in.Sequence {
			continue
		}
		if in.Item == "" {
			t.Completed, t.Scrapped = op.CompletedQuantity, op.ScrappedQuantity
		}
		for _, m := range op.Materials {
			if in.Item != "" && m.ItemNumber == in.Item {
				t.Issued = t.Issued.Add(m.IssuedQuantity)
			}
		}
	}
	return t
}

// plan makes the request of a posting.
func (c *Connector) plan(p connector.Posting, o *order) (in intent, no *connector.Outcome) {
	in = intent{At: time.Now().UTC(), Order: o.WorkOrderNumber, ID: string(o.WorkOrderID), Ref: reference(p)}
	var details []map[string]any
	if p.Fact.Confirmation != nil {
		details, no = c.confirm(p, o, &in)
	} else {
		details, no = c.consume(p, o, &in)
	}
	if no != nil {
		return in, no
	}
	before := in.read(o)
	in.Before = &before
	for _, d := range details {
		d["WorkOrderNumber"], d["OrganizationCode"], d["SourceSystemType"] = o.WorkOrderNumber, o.OrganizationCode, "EXTERNAL"
		d["WoOperationSequenceNumber"], d["TransactionDate"], d[c.cfg.ReferenceField] = in.Sequence, when(p), in.Ref
	}
	name := "OperationTransactionDetail"
	if in.Resource == materials {
		name = "MaterialTransactionDetail"
	}
	text, err := json.Marshal(map[string]any{"SourceSystemCode": c.cfg.SourceSystem, "SourceSystemType": "EXTERNAL", name: details})
	if err != nil {
		panic(err) // only our own maps of texts are encoded
	}
	in.Body = text
	return in, nil
}

// The resources that post.
const (
	operations = "operationTransactions"
	materials  = "materialTransactions"
)

// when is the instant of a transaction: when it happened, or noon of the posting date where that is another day.
func when(p connector.Posting) string {
	zone, err := time.LoadLocation(p.Fact.TimeZone)
	if err != nil {
		zone = time.UTC
	}
	at := p.Fact.OccurredAt.In(zone)
	if d := p.PostingDate; !d.IsZero() && at.Format(time.DateOnly) != d.Format(time.DateOnly) {
		at = time.Date(d.Year(), d.Month(), d.Day(), 12, 0, 0, 0, zone)
	}
	return at.Format(time.RFC3339)
}

func (c *Connector) confirm(p connector.Posting, o *order, in *intent) ([]map[string]any, *connector.Outcome) {
	f := p.Fact.Confirmation
	if f.Item != "" && f.Item != o.ItemNumber {
		return nil, reject(connector.Fatal, "ITEM", "Check which order ran on the machine.", "Order %s makes item %q, not %q.", o.WorkOrderNumber, o.ItemNumber, f.Item)
	}
	if unit, err := c.unit(o.UOMCode); err != nil || unit != f.Unit {
		return nil, reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source, or units in the configuration.",
			"Order %s is kept in unit %q of Oracle, the fact is in %q.", o.WorkOrderNumber, o.UOMCode, f.Unit)
	}
	var no *connector.Outcome
	if in.Sequence, no = sequence(o, f.Operation); no != nil {
		return nil, no
	}
	last := slices.MaxFunc(o.Operations, func(a, b operation) int { return a.Sequence - b.Sequence })
	in.Resource, in.Search = operations, c.cfg.Lookup == byReference && f.Yield.IsPositive() && last.Sequence == in.Sequence
	var details []map[string]any
	for _, x := range []struct {
		state    string
		quantity decimal.Decimal
	}{{"COMPLETE", f.Yield}, {"SCRAP", f.Scrap}} {
		if !x.quantity.IsPositive() {
			continue
		}
		from, to := "READY", x.state
		if !p.Fact.Reverses.IsZero() {
			from, to = to, from
		}
		details = append(details, map[string]any{"FromDispatchState": from, "ToDispatchState": to, "TransactionQuantity": json.Number(x.quantity.String()), "TransactionUOMCode": o.UOMCode})
	}
	return details, nil
}

// sequence finds the operation that a fact means. It never guesses among several.
func sequence(o *order, name string) (int, *connector.Outcome) {
	if name == "" && len(o.Operations) == 1 {
		return o.Operations[0].Sequence, nil
	}
	for _, op := range o.Operations {
		if name != "" && fmt.Sprint(op.Sequence) == strings.TrimLeft(name, "0") {
			return op.Sequence, nil
		}
	}
	return 0, reject(connector.Fatal, "OPERATION", "Name the operation in the rule of the source.", "Order %s has %d operations, and none is meant by %q.", o.WorkOrderNumber, len(o.Operations), name)
}

func (c *Connector) consume(p connector.Posting, o *order, in *intent) ([]map[string]any, *connector.Outcome) {
	f := p.Fact.Consumption
	var found []material
	for _, op := range o.Operations {
		for _, m := range op.Materials {
			if m.ItemNumber == f.Item && (f.Operation == "" || fmt.Sprint(op.Sequence) == strings.TrimLeft(f.Operation, "0")) {
				found = append(found, m)
				in.Sequence, in.Item = op.Sequence, m.ItemNumber
			}
		}
	}
	if len(found) != 1 {
		return nil, reject(connector.Fatal, "COMPONENT", "Correct item and operation in the rule of the source, or add the material to the order in Oracle.",
			"Order %s plans item %q at operation %q %d times, wanted once.", o.WorkOrderNumber, f.Item, f.Operation, len(found))
	}
	m := found[0]
	if unit, err := c.unit(m.UOMCode); err != nil || unit != f.Quantity.Unit {
		return nil, reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source, or units in the configuration.",
			"Item %q of order %s is kept in unit %q of Oracle, the fact is in %q.", f.Item, o.WorkOrderNumber, m.UOMCode, f.Quantity.Unit)
	}
	if m.pulled() {
		return nil, reject(connector.Fatal, "BACKFLUSHED", "Make the supply type of the material push in Oracle, or stop reporting it from the plant.",
			"Oracle itself takes item %q of order %s: posting it would take it twice.", f.Item, o.WorkOrderNumber)
	}
	kind := "MATERIAL_ISSUE"
	if change(p).Issued.IsNegative() {
		kind = "MATERIAL_RETURN"
	}
	in.Resource, in.Search = materials, c.cfg.Lookup == byReference
	return []map[string]any{{"InventoryItemNumber": f.Item, "TransactionTypeCode": kind, "TransactionQuantity": json.Number(f.Quantity.Value.String()), "TransactionUOMCode": m.UOMCode}}, nil
}
