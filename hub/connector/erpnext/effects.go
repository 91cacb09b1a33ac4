package erpnext

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

var (
	_ connector.EffectReader     = (*Connector)(nil)
	_ connector.DocumentReverser = (*Connector)(nil)
)

// stored is an entry with what only a list is read for.
type stored struct {
	entry
	Creation string `json:"creation"`
	Owner    string `json:"owner"`

	key, reversal string
}

// Effects implements connector.EffectReader. A document is a Stock Entry that makes or uses something: a draft is pending, and one
// that was cancelled is two documents, itself and its cancellation. Transfers between warehouses use nothing: they are documents that move
// stock only.
//
// A site may hide entries from a user without a word. What the work order says to have been produced has to be among them.
func (c *Connector) Effects(ctx context.Context, orderNo string) (connector.Effects, error) {
	out, err := c.effects(ctx, orderNo)
	if err != nil {
		return connector.Effects{}, fmt.Errorf("list entries of order %q: %w", orderNo, err)
	}
	return out, nil
}

func (c *Connector) effects(ctx context.Context, orderNo string) (out connector.Effects, err error) {
	out.AsOf = time.Now().UTC()
	if err := c.prove(ctx); err != nil { // a key field that is missing would leave all entries without a key
		return out, err
	}
	var o order
	if err := c.client.get(ctx, workOrder, orderNo, &o); err != nil {
		return out, err
	}
	if out.Order, err = c.workOrder(ctx, &o); err != nil {
		return out, hidden(err)
	}
	names, err := c.entriesOf(ctx, o.Name)
	if err != nil {
		return out, hidden(err)
	}
	produced := decimal.Zero
	for _, name := range names {
		e, err := c.entry(ctx, name)
		if err != nil {
			return out, hidden(err)
		}
		if e == nil {
			continue // a draft that was deleted since
		}
		docs, err := c.documents(ctx, &o, e)
		if err != nil {
			return out, hidden(fmt.Errorf("entry %s: %w", name, err))
		}
		out.Documents = append(out.Documents, docs...)
		for _, r := range e.Rows {
			if e.Docstatus == 1 && e.Purpose == manufacture && r.made(&o) {
				produced = produced.Add(r.Quantity.Decimal)
			}
		}
	}
	if produced.LessThan(o.Produced.Sub(c.half())) {
		return out, fmt.Errorf("ERPNext says that %s were produced, and the entries that can be read hold %s: let the connector's user see all entries of the company", o.Produced, produced)
	}
	return out, nil
}

// half is half of the last digit that the site keeps.
func (c *Connector) half() decimal.Decimal { return decimal.New(5, -c.cfg.Precision-1) }

// hidden keeps something else that is missing from being taken for a missing order.
func hidden(err error) error {
	if errors.Is(err, connector.ErrNotFound) {
		return errors.New(err.Error())
	}
	return err
}

// entriesOf lists the names of an order's entries: by the order, and by our own field, since ERPNext drops the order from receipts.
// The next page begins behind a name and not at a count: a draft that is deleted meanwhile must shift nobody.
func (c *Connector) entriesOf(ctx context.Context, order string) (names []string, err error) {
	for _, field := range []string{"work_order", c.cfg.OrderField} {
		for last := ""; ; {
			var page []struct {
				Name string `json:"name"`
			}
			filters := [][]any{{field, "=", order}}
			if last != "" {
				filters = append(filters, []any{"name", ">", last})
			}
			if err := c.client.list(ctx, stockEntry, filters, []string{"name"}, "name asc", 0, c.cfg.PageSize, &page); err != nil {
				return nil, err
			}
			for _, e := range page {
				if e.Name == last {
					return nil, fmt.Errorf("the list of entries does not go on behind %q", last)
				}
				names, last = append(names, e.Name), e.Name
			}
			if len(page) < c.cfg.PageSize {
				break
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// entry reads one entry; nil when it is gone.
func (c *Connector) entry(ctx context.Context, name string) (*stored, error) {
	var raw json.RawMessage
	err := c.client.get(ctx, stockEntry, name, &raw)
	if errors.Is(err, connector.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e, fields := &stored{}, map[string]any{}
	if err := errors.Join(json.Unmarshal(raw, e), json.Unmarshal(raw, &fields)); err != nil {
		return nil, fmt.Errorf("read entry %s: %w", name, err)
	}
	e.key, _ = fields[c.cfg.KeyField].(string)
	e.reversal, _ = fields[c.cfg.ReversalField].(string)
	return e, nil
}

// made reports a row of what the order makes.
func (r *entryRow) made(o *order) bool { return bool(r.Finished) || r.Item == o.Item }

// documents makes effects of an entry.
func (c *Connector) documents(ctx context.Context, o *order, e *stored) ([]object.Effect, error) {
	x := object.Effect{Number: e.Name, Stock: []object.StockMovement{}, ID: e.Name, Key: e.key, Kind: object.KindConsumption, OrderNo: o.Name, State: object.EffectBooked, PostingDate: e.PostingDate, User: e.Owner,
		BookedAt: instant(cmp.Or(e.Creation, e.Modified), c.cfg.zone).UTC()}
	if e.Docstatus == 0 {
		x.State = object.EffectPending
	}
	for i := range e.Rows {
		if err := c.addRow(ctx, &x, o, e, &e.Rows[i]); err != nil {
			return nil, err
		}
	}
	if loss := e.Loss.Round(c.cfg.Precision); loss.IsPositive() {
		unit, err := c.unit(ctx, o.Item, o.Unit)
		if err != nil {
			return nil, err
		}
		x.Kind = object.KindConfirmation
		x.Quantities = append(x.Quantities, object.EffectQuantity{Kind: object.Scrap, Item: o.Item, Quantity: object.Quantity{Value: loss, Unit: unit}})
	}
	if len(x.Quantities)+len(x.Movements)+len(x.Stock) == 0 {
		return nil, nil
	}
	if e.Docstatus != 2 {
		return []object.Effect{x}, nil
	}
	return []object.Effect{x, cancellation(&x, e, instant(e.Modified, c.cfg.zone).UTC())}, nil
}

// addRow adds one row of an entry to its effect. ERPNext has rows with a source, a target, or both; both is a transfer.
func (c *Connector) addRow(ctx context.Context, x *object.Effect, o *order, e *stored, r *entryRow) error {
	between := r.From != "" && r.To != ""
	if between && e.Docstatus == 0 {
		return nil
	}
	unit, err := c.unit(ctx, r.Item, cmp.Or(r.StockUnit, r.Unit))
	if err != nil {
		return err
	}
	v := r.Quantity.Decimal
	if r.StockUnit != "" && !r.InStockUnit.IsZero() {
		v = r.InStockUnit.Decimal
	}
	v = v.Round(c.cfg.Precision)
	if e.Docstatus != 0 {
		c.stockOf(x, r, object.Quantity{Value: v, Unit: unit})
	}
	if between {
		return nil
	}
	kind := object.Consumed
	switch made := r.made(o); {
	case made && e.Purpose == receipt:
		kind, x.Kind = object.Scrap, object.KindConfirmation
	case made:
		if kind, x.Kind = object.Yield, object.KindConfirmation; r.To == "" {
			v = v.Neg() // taken apart again
		}
	case r.To != "":
		kind = object.Returned
	}
	q := object.Quantity{Value: v, Unit: unit}
	if kind != object.Consumed && kind != object.Returned || e.Purpose != manufacture {
		x.Quantities = append(x.Quantities, object.EffectQuantity{Kind: kind, Item: r.Item, Quantity: q})
	}
	if kind != object.Scrap {
		x.Movements = append(x.Movements, object.EffectMovement{Kind: kind, Item: r.Item, Lot: r.Batch, Quantity: q, Backflush: e.Purpose == manufacture && kind == object.Consumed})
	}
	return nil
}

// stockOf adds what a row takes from a warehouse and brings to one, of those whose stock is read.
func (c *Connector) stockOf(x *object.Effect, r *entryRow, q object.Quantity) {
	add := func(at string, v decimal.Decimal) {
		if at == "" || len(c.cfg.Warehouses) > 0 && !slices.Contains(c.cfg.Warehouses, at) {
			return
		}
		x.Stock = append(x.Stock, object.StockMovement{Site: c.cfg.Sites[at], Location: at, Item: r.Item, Lot: r.Batch, Quantity: object.Quantity{Value: v, Unit: q.Unit}})
	}
	add(r.From, q.Value.Neg())
	add(r.To, q.Value)
}

const cancelled = " cancelled"

// cancellation makes the second document of a cancelled entry, and links the two.
func cancellation(x *object.Effect, e *stored, at time.Time) object.Effect {
	back := *x
	back.Number, back.ID, back.Key, back.Reverses, back.BookedAt = e.Name+cancelled, e.Name+cancelled, e.reversal, e.Name, at
	back.Quantities, back.Movements, back.Stock = slices.Clone(x.Quantities), slices.Clone(x.Movements), slices.Clone(x.Stock)
	for i := range back.Quantities {
		back.Quantities[i].Value = back.Quantities[i].Value.Neg()
	}
	for i := range back.Movements {
		back.Movements[i].Value = back.Movements[i].Value.Neg()
	}
	for i := range back.Stock {
		back.Stock[i].Value = back.Stock[i].Value.Neg()
	}
	x.ReversedBy = back.Number
	return back
}

// ReverseDocument implements connector.DocumentReverser: it cancels a submitted entry, which ERPNext does only once.
func (c *Connector) ReverseDocument(ctx context.Context, number, key string) (connector.Outcome, error) {
	fail := func(err error) (connector.Outcome, error) {
		return connector.Outcome{}, fmt.Errorf("reverse entry %q: %w", number, err)
	}
	prefix, err := factkey.Parse(key)
	if err != nil {
		return fail(err)
	}
	if strings.HasSuffix(number, cancelled) {
		return *reject(connector.Correctable, "IS_REVERSAL", "Post again what was cancelled, by a fact or in ERPNext.", "%q is a cancellation and cannot be cancelled itself.", number), nil
	}
	if err := c.prove(ctx); err != nil {
		return fail(err)
	}
	var p connector.Posting
	copy(p.Fact.Key[:], prefix)
	e, err := c.entry(ctx, number)
	switch {
	case err != nil:
		return fail(err)
	case e == nil:
		return fail(connector.ErrNotFound)
	case e.Docstatus == 0:
		return *reject(connector.Correctable, "DRAFT", "Delete the draft in ERPNext, or submit it.", "Entry %s is a draft and has no effect.", number), nil
	case e.Docstatus == 2:
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: number + cancelled, ID: number + cancelled}}, nil
	}
	out := c.cancel(ctx, p, intent{Order: e.WorkOrder, Draft: number, Modified: e.Modified})
	if out.Result == connector.Posted {
		out.Document = connector.Document{Number: number + cancelled, ID: number + cancelled}
	}
	return out, nil
}
