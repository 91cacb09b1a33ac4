package erpnext

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// intent is what Prepare found out for Post and Lookup.
type intent struct {
	Order string `json:"order"`
	// Body is the entry to insert. Draft is one that an earlier attempt left, or the submitted entry that is to be cancelled,
	// as it was then.
	Body     json.RawMessage `json:"body,omitempty"`
	Draft    string          `json:"draft,omitempty"`
	Modified string          `json:"modified,omitempty"`
}

func readIntent(raw []byte) (in intent, err error) {
	if len(raw) == 0 {
		return in, errors.New("the posting was not prepared")
	}
	if err = json.Unmarshal(raw, &in); err != nil {
		err = fmt.Errorf("read intent %.100q: %w", raw, err)
	}
	return in, err
}

func orderNo(p connector.Posting) string { return cmp.Or(p.Order.ERPKey, p.Fact.OrderNo()) }

// unsuitable refuses what ERPNext has no place for, before anything is read.
func unsuitable(p connector.Posting) *connector.Outcome {
	f := &p.Fact
	switch {
	case f.Confirmation == nil && f.Consumption == nil:
		return reject(connector.Fatal, "NOT_SUPPORTED", "Do not route this kind of fact to this ERP.", "ERPNext has no document for a fact of kind %s.", f.Kind)
	case f.OrderNo() == "":
		return reject(connector.Fatal, "NO_ORDER", "Find the order that ran at that time, then send the fact again with it.", "Fact %s names no order.", f.Key)
	case f.Confirmation != nil && !f.Confirmation.Rework.IsZero():
		return reject(connector.Fatal, "REWORK", "Let the rule of the source report rework as scrap or not at all.", "ERPNext has no place for rework of order %s.", f.OrderNo())
	case f.Confirmation != nil && f.Confirmation.Yield.IsZero() && f.Confirmation.Scrap.IsZero():
		return reject(connector.Fatal, "EMPTY", "Accept the fact: there is nothing to post.", "The confirmation of order %s has no quantity.", f.OrderNo())
	}
	return nil
}

// receivable says by status whether an order takes postings. Whether it takes more than planned is for ERPNext to say.
func receivable(o *order) *connector.Outcome {
	next := "Reopen the order in ERPNext, then replay the fact."
	switch {
	case o.Docstatus == 0:
		next = "Submit the order in ERPNext, then replay the fact."
	case o.Docstatus == 1 && o.Status != "Stopped" && o.Status != "Closed":
		return nil
	case o.Docstatus == 2:
		next = "Check which order ran on the machine: this one is cancelled in ERPNext."
	}
	return reject(connector.Correctable, "ORDER_STATE", next, "Order %s is %s in ERPNext.", o.Name, cmp.Or(o.Status, "not submitted"))
}

type row = map[string]any

// body makes the stock entry of a fact.
func (c *Connector) body(ctx context.Context, p connector.Posting, o *order) (json.RawMessage, *connector.Outcome, error) {
	var fields row
	var no *connector.Outcome
	var err error
	if p.Fact.Confirmation != nil {
		fields, no, err = c.confirmation(ctx, p.Fact.Confirmation, o)
	} else {
		fields, no, err = c.consumption(ctx, p.Fact.Consumption, o)
	}
	if no != nil || err != nil {
		return nil, no, err
	}
	fields["company"], fields["set_posting_time"], fields["docstatus"] = o.Company, 1, 0
	fields["purpose"] = fields["stock_entry_type"]
	if moves := p.Fact.Moves(); moves != "" { // a type of the customer's own has one of ERPNext's purposes
		if fields["stock_entry_type"], no = p.MovementType(moves, fmt.Sprint(fields["purpose"])); no != nil {
			return nil, no, nil
		}
	}
	fields[c.cfg.KeyField], fields[c.cfg.OrderField] = p.Fact.Key.String(), o.Name
	fields["remarks"] = strings.TrimSpace("Linekeeper " + p.Fact.Key.String() + " " + reason(p.Fact.Confirmation))
	fields["posting_date"], fields["posting_time"] = c.when(p)
	text, err := json.Marshal(fields)
	return text, nil, err
}

func reason(f *object.Confirmation) string {
	if f == nil {
		return ""
	}
	return strings.TrimSpace(f.ScrapReason + " " + f.ScrapReasonText)
}

// when is date and time for the books. The time of day is the fact's own where the date is; ERPNext takes no time to come, and
// looks at stock at that time: so another day's entry stands at the day's end, today's at the present.
func (c *Connector) when(p connector.Posting) (date, clock string) {
	now, at := time.Now().In(c.cfg.zone), p.Fact.OccurredAt.In(c.cfg.zone)
	date = at.Format(time.DateOnly)
	if !p.PostingDate.IsZero() {
		date = p.PostingDate.Format(time.DateOnly)
	}
	switch {
	case at.Format(time.DateOnly) == date && !at.After(now):
		return date, at.Format(time.TimeOnly)
	case now.Format(time.DateOnly) == date:
		return date, now.Format(time.TimeOnly)
	}
	return date, "23:59:59"
}

// fits refuses a quantity that ERPNext would round.
func (c *Connector) fits(what, item string, q decimal.Decimal) *connector.Outcome {
	if q.IsNegative() || q.Exponent() < -60 || !q.Equal(q.Truncate(c.cfg.Precision)) || q.GreaterThanOrEqual(decimal.New(1, 12)) {
		return reject(connector.Fatal, "QUANTITY_SCALE", fmt.Sprintf("Let the rule of the source round the quantity to %d decimals.", c.cfg.Precision),
			"%s %.60s of item %q does not fit ERPNext's precision of %d decimals.", what, q, item, c.cfg.Precision)
	}
	return nil
}

// inUnit checks that a quantity is in the stock unit of its item.
func (c *Connector) inUnit(ctx context.Context, code, stock, unit string) (*connector.Outcome, error) {
	have, err := c.unit(ctx, code, stock)
	switch {
	case errors.Is(err, connector.ErrNotFound):
		return reject(connector.Fatal, "ITEM", "Create the item in ERPNext or correct its mapping, then replay the fact.", "ERPNext has no item %q.", code), nil
	case err != nil && isLine(err):
		return nil, err
	case err != nil:
		return reject(connector.Fatal, "UNIT", "Add the unit to units in the configuration, then replay the fact.", "%s; the fact is in %q.", err, unit), nil
	case have != unit:
		return reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source, or units in the configuration.", "Item %q is kept in %q, the fact is in %q.", code, have, unit), nil
	}
	return nil, nil
}

func (c *Connector) confirmation(ctx context.Context, f *object.Confirmation, o *order) (row, *connector.Outcome, error) {
	if f.Item != "" && f.Item != o.Item {
		return nil, reject(connector.Fatal, "ITEM", "Check which order ran on the machine.", "Order %s makes item %q, not %q.", o.Name, o.Item, f.Item), nil
	}
	if no, err := c.inUnit(ctx, o.Item, o.Unit, f.Unit); no != nil || err != nil {
		return nil, no, err
	}
	for what, q := range map[string]decimal.Decimal{"Yield": f.Yield, "Scrap": f.Scrap} {
		if no := c.fits(what, o.Item, q); no != nil {
			return nil, no, nil
		}
	}
	if f.Yield.IsZero() {
		place := cmp.Or(o.Scrap, c.cfg.ScrapWarehouse)
		if place == "" {
			return nil, reject(connector.Correctable, "NO_WAREHOUSE", "Name a scrap warehouse in the work order or scrap_warehouse in the configuration, then replay the fact.",
				"Order %s has scrap without yield, and no scrap warehouse.", o.Name), nil
		}
		r := line(o.Item, f.Scrap, f.Lot)
		r["t_warehouse"], r["allow_zero_valuation_rate"] = place, 1
		return row{"stock_entry_type": receipt, "items": []any{r}}, nil, nil
	}
	if o.Finished == "" {
		return nil, reject(connector.Correctable, "NO_WAREHOUSE", "Name the target warehouse in the work order, then replay the fact.", "Order %s has no target warehouse.", o.Name), nil
	}
	r := line(o.Item, f.Yield, f.Lot)
	r["t_warehouse"], r["is_finished_item"] = o.Finished, 1
	return row{"stock_entry_type": manufacture, "work_order": o.Name, "bom_no": o.BOM, "from_bom": 0, "fg_completed_qty": exact(f.Yield.Add(f.Scrap)),
		"process_loss_qty": exact(f.Scrap), "items": []any{r}}, nil, nil
}

func (c *Connector) consumption(ctx context.Context, f *object.Consumption, o *order) (row, *connector.Outcome, error) {
	place, unit := o.WIP, ""
	if bool(o.SkipTransfer && !o.FromWIP) {
		place = o.Source
	}
	for _, n := range o.RequiredItems {
		if n.Item == f.Item {
			unit = n.Unit
			if bool(o.SkipTransfer && !o.FromWIP) {
				place = cmp.Or(n.Source, place)
			}
		}
	}
	if no, err := c.inUnit(ctx, f.Item, unit, f.Quantity.Unit); no != nil || err != nil {
		return nil, no, err
	}
	if no := c.fits("Quantity", f.Item, f.Quantity.Value); no != nil {
		return nil, no, nil
	}
	if place == "" {
		return nil, reject(connector.Correctable, "NO_WAREHOUSE", "Name the item's source warehouse or the WIP warehouse in the work order, then replay the fact.",
			"Order %s does not say from which warehouse item %q is taken.", o.Name, f.Item), nil
	}
	r := line(f.Item, f.Quantity.Value, f.Lot)
	if f.Movement == object.Return {
		r["t_warehouse"] = place
		return row{"stock_entry_type": receipt, "items": []any{r}}, nil, nil
	}
	r["s_warehouse"] = place
	// ERPNext wants a quantity of the finished item in such an entry and adds it up nowhere.
	return row{"stock_entry_type": consume, "work_order": o.Name, "bom_no": o.BOM, "from_bom": 0, "fg_completed_qty": 1, "items": []any{r}}, nil, nil
}

func line(code string, q decimal.Decimal, lot string) row {
	r := row{"item_code": code, "qty": exact(q), "conversion_factor": 1}
	if lot != "" {
		r["batch_no"], r["use_serial_batch_fields"] = lot, 1
	}
	return r
}

// exact writes a decimal as a JSON number, digit by digit.
func exact(d decimal.Decimal) json.Number { return json.Number(d.String()) }
