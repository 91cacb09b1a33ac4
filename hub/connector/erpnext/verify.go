package erpnext

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Verify reads the entry back by the fact's key and compares it with what the fact says.
func (c *Connector) Verify(ctx context.Context, p connector.Posting, _ []byte, doc connector.Document) (connector.Verification, error) {
	field := c.cfg.KeyField
	if !p.Fact.Reverses.IsZero() {
		field = c.cfg.ReversalField
	}
	e, fields, err := c.find(ctx, field, p.Fact.Key.String())
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	var wrong []string
	switch {
	case e == nil:
		wrong = []string{fmt.Sprintf("no entry in ERPNext has key %s", p.Fact.Key)}
	case field == c.cfg.ReversalField:
		wrong = c.compareReversal(p, e, fields)
	case e.Docstatus != 1:
		wrong = []string{fmt.Sprintf("entry %s is %s in ERPNext, not submitted", e.Name, map[int]string{0: "a draft", 2: "cancelled"}[e.Docstatus])}
	default:
		wrong = c.compare(ctx, p, e, fields)
	}
	if e != nil && doc.Number != "" && e.Name != doc.Number {
		wrong = append(wrong, fmt.Sprintf("the document is %s, not %s", e.Name, doc.Number))
	}
	if len(wrong) > 0 {
		text := strings.Join(wrong, "; ")
		return connector.Verification{Difference: strings.ToUpper(text[:1]) + text[1:] + "."}, nil
	}
	return connector.Verification{Matches: true}, nil
}

func (c *Connector) compareReversal(p connector.Posting, e *entry, fields map[string]any) (wrong []string) {
	if e.Docstatus != 2 {
		wrong = append(wrong, fmt.Sprintf("entry %s is not cancelled in ERPNext", e.Name))
	}
	if have, _ := fields[c.cfg.KeyField].(string); have != p.Fact.Reverses.String() {
		wrong = append(wrong, fmt.Sprintf("entry %s is of fact %q, not of %s", e.Name, have, p.Fact.Reverses))
	}
	return wrong
}

func (c *Connector) compare(ctx context.Context, p connector.Posting, e *entry, fields map[string]any) (wrong []string) {
	same := func(what, have, want string) {
		if have != want {
			wrong = append(wrong, fmt.Sprintf("entry %s has %s %q, wanted %q", e.Name, what, have, want))
		}
	}
	// ERPNext computes with floats: what differs by less than half of the last digit is equal.
	amount := func(what string, have, want decimal.Decimal) {
		if have.Sub(want).Abs().GreaterThanOrEqual(decimal.New(5, -c.cfg.Precision-1)) {
			wrong = append(wrong, fmt.Sprintf("entry %s has %s %s, wanted %s", e.Name, what, have, want))
		}
	}
	purpose, code, unit, lot, q, loss := wanted(p)
	same("purpose", e.Purpose, purpose)
	if purpose != receipt {
		same("work order", e.WorkOrder, orderNo(p))
	}
	have, _ := fields[c.cfg.OrderField].(string)
	same("field "+c.cfg.OrderField, have, orderNo(p))
	if !p.PostingDate.IsZero() {
		same("posting date", e.PostingDate, p.PostingDate.Format(time.DateOnly))
	}
	amount("process loss", e.Loss.Decimal, loss)
	if len(e.Rows) != 1 {
		return append(wrong, fmt.Sprintf("entry %s has %d rows, wanted 1", e.Name, len(e.Rows)))
	}
	r := e.Rows[0]
	if code != "" {
		same("item", r.Item, code)
	}
	amount("quantity", r.Quantity.Decimal, q)
	if got, err := c.unit(ctx, r.Item, r.Unit); err != nil || got != unit {
		wrong = append(wrong, fmt.Sprintf("entry %s is in unit %q, wanted %q", e.Name, r.Unit, unit))
	}
	if r.Batch != "" && lot != "" {
		same("batch", r.Batch, lot)
	}
	if purpose == consume && (r.From == "" || r.To != "") || purpose != consume && (r.To == "" || r.From != "") {
		wrong = append(wrong, fmt.Sprintf("entry %s moves item %q from %q to %q, the other way round", e.Name, r.Item, r.From, r.To))
	}
	return wrong
}

// wanted is the one row that a fact makes.
func wanted(p connector.Posting) (purpose, code, unit, lot string, q, loss decimal.Decimal) {
	if f := p.Fact.Consumption; f != nil {
		purpose = consume
		if f.Movement == object.Return {
			purpose = receipt
		}
		return purpose, f.Item, f.Quantity.Unit, f.Lot, f.Quantity.Value, decimal.Zero
	}
	f := p.Fact.Confirmation
	if f.Yield.IsZero() {
		return receipt, cmp.Or(f.Item, p.Order.Item), f.Unit, f.Lot, f.Scrap, decimal.Zero
	}
	return manufacture, cmp.Or(f.Item, p.Order.Item), f.Unit, f.Lot, f.Yield, f.Scrap
}
