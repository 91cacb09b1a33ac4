package oracle

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

var _ connector.EffectReader = (*Connector)(nil)

// errNoReference says why nothing is listed by totals.
var errNoReference = errors.New("by totals no transaction can be told from another: reconciliation needs lookup: reference")

// Effects implements connector.EffectReader. The resources that post cannot be read, so a document is a completed inventory
// transaction of the order. Those show neither scrap nor operations before the last; so the order's own totals have to be what
// the transactions add up to, else the list is not whole and an error. The order is read last: what is booked meanwhile is then
// in the totals only.
func (c *Connector) Effects(ctx context.Context, orderNo string) (connector.Effects, error) {
	out := connector.Effects{AsOf: time.Now().UTC()}
	fail := func(err error) (connector.Effects, error) {
		return connector.Effects{}, fmt.Errorf("list transactions of order %q: %w", orderNo, err)
	}
	if c.cfg.Lookup != byReference {
		return fail(errNoReference)
	}
	found, err := c.transactions(ctx, orderNo)
	if err != nil {
		return fail(err)
	}
	o, err := c.order(ctx, orderNo, "")
	if err != nil {
		return fail(err)
	}
	if out.Order, err = c.workOrder(&o); err != nil {
		return fail(err)
	}
	for _, r := range found {
		if org := r.text("OrganizationCode"); org != "" && org != o.OrganizationCode {
			continue // a number is unique in one organization only
		}
		e, err := c.effect(&o, r)
		if err != nil {
			return fail(fmt.Errorf("transaction %s: %w", r.text("TransactionId"), err))
		}
		out.Documents = append(out.Documents, e)
	}
	if err := explained(&o, out.Documents); err != nil {
		return fail(err)
	}
	link(out.Documents)
	return out, nil
}

// transactions reads the completed inventory transactions of an order, page after page: each begins behind an id, not at a count.
func (c *Connector) transactions(ctx context.Context, orderNo string) (all []row, err error) {
	for last := ""; ; {
		q := c.cfg.SourceAttribute + " = " + quote(orderNo)
		if last != "" {
			q += " and TransactionId > " + last
		}
		page, err := get[row](ctx, c, c.cfg.CompletedResource, url.Values{"q": {q}, "limit": {fmt.Sprint(c.cfg.PageSize)}, "orderBy": {"TransactionId"}})
		if err != nil {
			return nil, err
		}
		for _, r := range page.Items {
			id := r.text("TransactionId")
			if id == "" || strings.Trim(id, "0123456789") != "" || id == last {
				return nil, fmt.Errorf("a transaction has the id %q behind %q", id, last)
			}
			last = id
			if r.text(c.cfg.SourceAttribute) == orderNo { // a system that does not filter must not make us believe
				all = append(all, r)
			}
		}
		switch {
		case !*page.HasMore:
			return all, nil
		case len(page.Items) == 0:
			return nil, errors.New("there is more, and the page is empty")
		}
	}
}

func (c *Connector) effect(o *order, r row) (object.Effect, error) {
	e := object.Effect{Number: r.text("TransactionId"), ID: r.text("TransactionId"), OrderNo: o.WorkOrderNumber, State: object.EffectBooked, Kind: object.KindConfirmation}
	at := r.text("TransactionDate")
	e.PostingDate = at[:min(len(at), len(time.DateOnly))]
	key, back, _ := strings.Cut(r.text(c.cfg.ReferenceAttribute), "/")
	if _, err := factkey.Parse(key); err == nil && len(key) == 16 {
		e.Key, e.Reverses = key, back
	}
	q, err := decimal.NewFromString(r.text("TransactionQuantity"))
	if err = errors.Join(err, sane(q)); err != nil {
		return e, fmt.Errorf("quantity %.60q: %w", r.text("TransactionQuantity"), err)
	}
	unit, err := c.unit(r.text("TransactionUOMCode"))
	if err != nil {
		return e, err
	}
	item, kind, flushed := r.text("ItemNumber"), object.Yield, false
	if item != o.ItemNumber { // an issue takes from stock
		e.Kind = object.KindConsumption
		switch out := q.IsNegative(); {
		case out && e.Reverses == "":
			kind, q = object.Consumed, q.Neg()
		case out:
			kind = object.Returned
		case e.Reverses == "":
			kind = object.Returned
		default:
			kind, q = object.Consumed, q.Neg()
		}
		for _, op := range o.Operations {
			for _, m := range op.Materials {
				flushed = flushed || m.ItemNumber == item && m.pulled() && e.Key == ""
			}
		}
	}
	e.Quantities = []object.EffectQuantity{{Kind: kind, Item: item, Quantity: object.Quantity{Value: q, Unit: unit}}}
	e.Movements = []object.EffectMovement{{Kind: kind, Item: item, Quantity: object.Quantity{Value: q, Unit: unit}, Backflush: flushed}}
	return e, nil
}

// explained compares an order's totals with its transactions.
func explained(o *order, all []object.Effect) error {
	listed, taken := decimal.Zero, map[string]decimal.Decimal{}
	for _, e := range all {
		for _, q := range e.Quantities {
			switch q.Kind {
			case object.Yield:
				listed = listed.Add(q.Value)
			case object.Consumed:
				taken[q.Item] = taken[q.Item].Add(q.Value)
			case object.Returned:
				taken[q.Item] = taken[q.Item].Sub(q.Value)
			}
		}
	}
	last := 0
	for _, op := range o.Operations {
		last = max(last, op.Sequence)
	}
	issued := map[string]decimal.Decimal{}
	for _, op := range o.Operations {
		for _, m := range op.Materials {
			issued[m.ItemNumber] = issued[m.ItemNumber].Add(m.IssuedQuantity)
		}
		switch {
		case !op.ScrappedQuantity.IsZero():
			return fmt.Errorf("operation %d has %s scrapped, which no transaction that can be read shows", op.Sequence, op.ScrappedQuantity)
		case op.Sequence != last && !op.CompletedQuantity.IsZero():
			return fmt.Errorf("operation %d has %s completed, which no transaction that can be read shows", op.Sequence, op.CompletedQuantity)
		case op.Sequence == last && !op.CompletedQuantity.Equal(listed):
			return fmt.Errorf("operation %d has %s completed, and the transactions that can be read add up to %s", op.Sequence, op.CompletedQuantity, listed)
		}
	}
	for item, q := range issued {
		if !q.Equal(taken[item]) {
			return fmt.Errorf("%s of item %q are issued, and the transactions that can be read add up to %s", q, item, taken[item])
		}
	}
	return nil
}

// link gives each transaction the number of what takes it back, or what it takes back.
func link(all []object.Effect) {
	for i := range all {
		if all[i].Reverses == "" {
			continue
		}
		j := slices.IndexFunc(all, func(e object.Effect) bool {
			return e.Key == all[i].Reverses && e.ReversedBy == "" && e.Reverses == ""
		})
		if j >= 0 {
			all[j].ReversedBy, all[i].Reverses = all[i].Number, all[j].Number
		}
	}
}
