package odoo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// intent is what Prepare found out for Post and Lookup.
type intent struct {
	Order string    `json:"order"`
	At    time.Time `json:"at"`
	// Type, From and To are the head of the transfer, Lines its moves.
	Type  int    `json:"type,omitempty"`
	From  int    `json:"from,omitempty"`
	To    int    `json:"to,omitempty"`
	Note  string `json:"note,omitempty"`
	Lines []line `json:"lines,omitempty"`
	// There: the transfer was there already and is only to be finished.
	There bool `json:"there,omitempty"`
	// Part is the manufacturing order that moves are tied to once they are done, and Untie what a reversal takes out of its order.
	Part  int   `json:"part,omitempty"`
	Untie []tie `json:"untie,omitempty"`
	// State and Records are of a change of state: the method runs on them.
	State   object.FloorState `json:"state,omitempty"`
	Records []int             `json:"records,omitempty"`
}

// line is one move to make.
type line struct {
	Item     string          `json:"item"`
	Product  int             `json:"product"`
	Unit     int             `json:"unit"`
	Quantity decimal.Decimal `json:"quantity"`
	From     int             `json:"from"`
	To       int             `json:"to"`
	// Lot is the lot's name where the product has lots, LotID its id; zero for one that Odoo is to make.
	Lot   string `json:"lot,omitempty"`
	LotID int    `json:"lot_id,omitempty"`
	// Tie is the field by which the done move belongs to its order; empty for one that Odoo would count wrongly.
	Tie string `json:"tie,omitempty"`
	// Returns is the move that this one takes back.
	Returns int `json:"returns,omitempty"`
}

// tie is a move and the field that ties it to its order.
type tie struct {
	Move  int    `json:"move"`
	Field string `json:"field"`
}

const (
	tieRaw  = "raw_material_production_id"
	tieMade = "production_id"
)

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

// unsuitable refuses what Odoo has no place for, before anything is read.
func unsuitable(p connector.Posting) *connector.Outcome {
	f := &p.Fact
	switch {
	case f.Confirmation == nil && f.Consumption == nil && f.OrderState == nil:
		return reject(connector.Fatal, "NOT_SUPPORTED", "Do not route this kind of fact to this ERP.", "Odoo has no document for a fact of kind %s.", f.Kind)
	case f.OrderNo() == "":
		return reject(connector.Fatal, "NO_ORDER", "Find the order that ran at that time, then send the fact again with it.", "Fact %s names no order.", f.Key)
	case f.OrderState != nil && !f.Reverses.IsZero():
		return reject(connector.Fatal, "NOT_REVERSIBLE", "Set the order's state in Odoo by hand, then accept the fact.", "A change of state of order %s cannot be taken back in Odoo.", f.OrderNo())
	case f.Confirmation != nil && !f.Confirmation.Rework.IsZero():
		return reject(connector.Fatal, "REWORK", "Let the rule of the source report rework as scrap or not at all.", "Odoo has no place for rework of order %s.", f.OrderNo())
	case f.Confirmation != nil && f.Confirmation.Yield.IsZero() && f.Confirmation.Scrap.IsZero():
		return reject(connector.Fatal, "EMPTY", "Accept the fact: there is nothing to post.", "The confirmation of order %s has no quantity.", f.OrderNo())
	}
	return nil
}

func unknownOrder(number string) *connector.Outcome {
	return reject(connector.Fatal, "ORDER", "Check the order number at the source.", "Odoo has no manufacturing order %q.", number)
}

// receiver is the part of an order that takes a posting.
func receiver(f *family) (*production, *connector.Outcome) {
	if p := f.open(); p != nil {
		return p, nil
	}
	next, state := "Check which order ran on the machine: this one is over in Odoo.", f.members[len(f.members)-1].State
	if state == "draft" {
		next = "Confirm the order in Odoo, then replay the fact."
	}
	return nil, reject(connector.Correctable, "ORDER_STATE", next, "Order %s is %s in Odoo.", f.number, state)
}

// plan makes the moves of a fact.
func (c *Connector) plan(ctx context.Context, s *setup, p connector.Posting, in *intent) (*connector.Outcome, error) {
	f, err := c.find(ctx, s, orderNo(p))
	if errors.Is(err, connector.ErrNotFound) {
		return unknownOrder(orderNo(p)), nil
	}
	if err != nil {
		return nil, err
	}
	in.Order = f.number
	part, no := receiver(f)
	if no != nil {
		return no, nil
	}
	if p.Fact.Confirmation != nil {
		in.Lines, no, err = c.confirmation(ctx, s, p.Fact.Confirmation, f.number, part)
	} else {
		in.Lines, no, err = c.consumption(ctx, s, p.Fact.Consumption, part)
	}
	if no != nil || err != nil {
		return no, err
	}
	if in.Type, err = c.typeFor(ctx, s, part); err != nil {
		return nil, err
	}
	in.Part, in.From, in.To = part.ID, in.Lines[0].From, in.Lines[0].To
	in.Note = note(p)
	return nil, nil
}

// note tells a person what the transfer is of. Odoo dates it by the clock of its own at the moment it is done.
func note(p connector.Posting) string {
	text := fmt.Sprintf("Linekeeper %s, happened %s", p.Fact.Key, p.Fact.OccurredAt.Format(time.RFC3339))
	if !p.PostingDate.IsZero() {
		text += ", for the books of " + p.PostingDate.Format(time.DateOnly)
	}
	if !p.EventDate.IsZero() {
		text += ", of " + p.EventDate.Format(time.DateOnly)
	}
	if f := p.Fact.Confirmation; f != nil && (f.ScrapReason != "" || f.ScrapReasonText != "") {
		text += ", scrap: " + plain(f.ScrapReason+" "+f.ScrapReasonText)
	}
	return text
}

// fits refuses a quantity that Odoo would round.
func (c *Connector) fits(what, item string, q decimal.Decimal) *connector.Outcome {
	if q.IsNegative() || q.Exponent() < -60 || !q.Equal(q.Truncate(c.cfg.Precision)) || q.GreaterThanOrEqual(decimal.New(1, 12)) {
		return reject(connector.Fatal, "QUANTITY_SCALE", fmt.Sprintf("Let the rule of the source round the quantity to %d decimals.", c.cfg.Precision),
			"%s %.60s of item %q does not fit Odoo's precision of %d decimals.", what, q, item, c.cfg.Precision)
	}
	return nil
}

// inUnit checks that a quantity is in a unit of Odoo's.
func (c *Connector) inUnit(item string, u ref, unit string) *connector.Outcome {
	switch have, err := c.unit(u); {
	case err != nil:
		return reject(connector.Fatal, "UNIT", "Add the unit to units in the configuration, then replay the fact.", "Item %q: %v; the fact is in %q.", item, err, unit)
	case have != unit:
		return reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source, or units in the configuration.", "Item %q is kept in %q, the fact is in %q.", item, have, unit)
	}
	return nil
}

func (c *Connector) confirmation(ctx context.Context, s *setup, f *object.Confirmation, number string, part *production) ([]line, *connector.Outcome, error) {
	products, err := c.products(ctx, []int{part.Product.ID})
	if err != nil {
		return nil, nil, err
	}
	made := products[part.Product.ID]
	item := string(made.Code)
	if f.Item != "" && f.Item != item {
		return nil, reject(connector.Fatal, "ITEM", "Check which order ran on the machine.", "Order %s makes item %q, not %q.", number, item, f.Item), nil
	}
	if no := c.inUnit(item, part.Unit, f.Unit); no != nil {
		return nil, no, nil
	}
	l := line{Item: item, Product: made.ID, Unit: part.Unit.ID, From: part.Floor.ID}
	if no, err := c.lot(ctx, s, made, cmp.Or(f.Serial, f.Lot), true, &l); no != nil || err != nil {
		return nil, no, err
	}
	var lines []line
	for _, x := range []struct {
		what string
		q    decimal.Decimal
		to   int
		tie  string
	}{{"Yield", f.Yield, part.Destination.ID, tieMade}, {"Scrap", f.Scrap, s.scrap, ""}} {
		if no := c.fits(x.what, item, x.q); no != nil {
			return nil, no, nil
		}
		if x.q.IsZero() {
			continue
		}
		if x.to == 0 {
			return nil, reject(connector.Correctable, "NO_LOCATION", "Name scrap_location in the configuration, then replay the fact.", "Order %s has scrap, and no location takes it.", number), nil
		}
		l.Quantity, l.To, l.Tie = x.q, x.to, x.tie
		lines = append(lines, l)
	}
	return lines, nil, nil
}

func (c *Connector) consumption(ctx context.Context, s *setup, f *object.Consumption, part *production) ([]line, *connector.Outcome, error) {
	var found []product
	if err := c.client.list(ctx, "product.product", []any{where("default_code", "=", f.Item)}, productFields, "id", 2, &found); err != nil {
		return nil, nil, err
	}
	if f.Item == "" || len(found) != 1 {
		return nil, reject(connector.Fatal, "ITEM", "Give exactly one product this internal reference in Odoo, or correct the item's mapping, then replay the fact.",
			"Odoo has %d products with internal reference %q.", len(found), f.Item), nil
	}
	unit, no, err := c.unitFor(ctx, s, f, found[0], part)
	if no != nil || err != nil {
		return nil, no, err
	}
	if no := c.fits("Quantity", f.Item, f.Quantity.Value); no != nil {
		return nil, no, nil
	}
	if f.Quantity.Value.IsZero() {
		return nil, reject(connector.Fatal, "EMPTY", "Accept the fact: there is nothing to post.", "The consumption of item %q has no quantity.", f.Item), nil
	}
	l := line{Item: f.Item, Product: found[0].ID, Unit: unit, Quantity: f.Quantity.Value, From: part.Source.ID, To: part.Floor.ID, Tie: tieRaw}
	if f.Movement == object.Return { // Odoo would add a tied return to what was consumed
		l.From, l.To, l.Tie = l.To, l.From, ""
	}
	if no, err := c.lot(ctx, s, found[0], f.Lot, false, &l); no != nil || err != nil {
		return nil, no, err
	}
	return []line{l}, nil, nil
}

// unitFor is the unit in which a component is taken: the one it is kept in, or the one in which the order needs it.
func (c *Connector) unitFor(ctx context.Context, s *setup, f *object.Consumption, p product, part *production) (int, *connector.Outcome, error) {
	no := c.inUnit(f.Item, p.Unit, f.Quantity.Unit)
	if no == nil {
		return p.Unit.ID, nil, nil
	}
	planned, err := c.moves(ctx, s, []any{where(tieRaw, "=", part.ID), where("product_id", "=", p.ID), where("picking_id", "=", false)})
	for _, m := range planned {
		if c.inUnit(f.Item, m.Unit, f.Quantity.Unit) == nil {
			return m.Unit.ID, nil, nil
		}
	}
	return 0, no, err
}

// lot finds a product's lot. Odoo makes one of what is produced where it is not there yet; where a product has no lots, there is no place for one.
func (c *Connector) lot(ctx context.Context, s *setup, p product, lot string, makes bool, l *line) (*connector.Outcome, error) {
	tracked := p.Tracking == "lot" || p.Tracking == "serial"
	switch {
	case !tracked:
		return nil, nil
	case lot == "":
		return reject(connector.Correctable, "NO_LOT", "Let the source report the lot, or set tracking of the product to none in Odoo, then replay the fact.", "Item %q is tracked by %s in Odoo, and the fact has none.", p.Code, p.Tracking), nil
	}
	var found []struct {
		ID int `json:"id"`
	}
	if err := c.client.list(ctx, s.lotModel, []any{where("name", "=", lot), where("product_id", "=", p.ID)}, []string{"name"}, "id", 2, &found); err != nil {
		return nil, err
	}
	l.Lot = lot
	switch {
	case len(found) == 1:
		l.LotID = found[0].ID
	case len(found) > 1:
		return reject(connector.Correctable, "LOT", "Rename one of them in Odoo, then replay the fact.", "Item %q has %d lots %q in Odoo.", p.Code, len(found), lot), nil
	case !makes:
		return reject(connector.Correctable, "LOT", "Receive the lot in Odoo or correct it at the source, then replay the fact.", "Item %q has no lot %q in Odoo.", p.Code, lot), nil
	}
	return nil, nil
}

// values makes a transfer out of an intent.
func (c *Connector) values(s *setup, key string, in *intent) row {
	moves := make([]any, len(in.Lines))
	for i, l := range in.Lines {
		m := row{"product_id": l.Product, "product_uom": l.Unit, "product_uom_qty": exact(l.Quantity), "location_id": l.From, "location_dest_id": l.To}
		if s.moveName {
			m["name"] = in.Order + " " + l.Item
		}
		if l.Returns != 0 {
			m["origin_returned_move_id"] = l.Returns
		}
		if l.Lot == "" {
			m[s.done] = exact(l.Quantity)
		} else {
			part := row{"product_id": l.Product, "product_uom_id": l.Unit, s.lineDone: exact(l.Quantity), "location_id": l.From, "location_dest_id": l.To}
			if l.LotID != 0 {
				part["lot_id"] = l.LotID
			} else {
				part["lot_name"] = l.Lot
			}
			if s.picked {
				part["picked"] = true
			}
			m["move_line_ids"] = []any{[]any{0, 0, part}}
		}
		if s.picked {
			m["picked"] = true
		}
		moves[i] = []any{0, 0, m}
	}
	v := row{"picking_type_id": in.Type, "location_id": in.From, "location_dest_id": in.To, "origin": origin(in.Order, key), "note": in.Note, s.moves: moves}
	if c.cfg.KeyField != "origin" {
		v[c.cfg.KeyField] = key
	}
	return v
}

// origin is a transfer's source document as a person searches for it: the order, and the fact's key.
func origin(order, key string) string { return order + " " + key }
