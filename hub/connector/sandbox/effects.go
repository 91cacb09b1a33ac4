package sandbox

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

var (
	_ connector.EffectReader     = (*Connector)(nil)
	_ connector.DocumentReverser = (*Connector)(nil)
)

// listed is a document with what only a list of an order's documents is read for.
type listed struct {
	document
	ExternalKey string    `json:"external_key"`
	BookedAt    time.Time `json:"booked_at"`
}

// Effects implements connector.EffectReader.
func (c *Connector) Effects(ctx context.Context, orderNo string) (connector.Effects, error) {
	var all struct {
		AsOf      time.Time `json:"as_of"`
		Order     order     `json:"order"`
		Documents []listed  `json:"documents"`
	}
	if err := c.client.get(ctx, "/api/orders/"+url.PathEscape(orderNo)+"/documents", nil, &all); err != nil {
		return connector.Effects{}, fmt.Errorf("list documents of order %q: %w", orderNo, err)
	}
	out := connector.Effects{AsOf: all.AsOf, Order: c.workOrder(all.Order)}
	for _, d := range all.Documents {
		out.Documents = append(out.Documents, effect(d))
	}
	return out, nil
}

func effect(d listed) object.Effect {
	e := object.Effect{Number: d.Number, Key: d.ExternalKey, Reverses: d.Reverses, ReversedBy: d.ReversedBy, OrderNo: d.OrderNo, Operation: d.Operation, State: object.EffectBooked,
		PostingDate: d.PostingDate, BookedAt: d.BookedAt}
	add := func(kind object.QuantityKind, item string, q decimal.Decimal, unit string) {
		if !q.IsZero() {
			e.Quantities = append(e.Quantities, object.EffectQuantity{Kind: kind, Item: item, Quantity: object.Quantity{Value: q, Unit: unit}})
		}
	}
	switch d.Kind {
	case "CONFIRMATION":
		e.Kind = object.KindConfirmation
		add(object.Yield, d.Item, d.Yield, d.Unit)
		add(object.Scrap, d.Item, d.Scrap, d.Unit)
		add(object.Rework, d.Item, d.Rework, d.Unit)
	case "MOVEMENT":
		e.Kind = object.KindConsumption
	default:
		e.Kind = object.KindOrderState
	}
	for _, l := range d.Lines {
		kind, q := moved(l.Movement, l.Quantity, d.Reverses != "")
		if e.Kind == object.KindConsumption {
			add(kind, l.Item, q, l.Unit)
		}
		e.Movements = append(e.Movements, object.EffectMovement{Kind: kind, Item: l.Item, Quantity: object.Quantity{Value: q, Unit: l.Unit},
			Backflush: e.Kind == object.KindConfirmation && kind != object.Yield})
	}
	for _, l := range d.Failed {
		kind, q := moved(l.Movement, l.Quantity, d.Reverses != "")
		e.Movements = append(e.Movements, object.EffectMovement{Kind: kind, Item: l.Item, Quantity: object.Quantity{Value: q, Unit: l.Unit}, Failed: true,
			Backflush: e.Kind == object.KindConfirmation && kind != object.Yield})
	}
	return e
}

// moved says what a movement code means. What a reversal moves back is the original's kind below zero.
func moved(code string, q decimal.Decimal, reversal bool) (object.QuantityKind, decimal.Decimal) {
	switch {
	case code == "101":
		return object.Yield, q
	case code == "102":
		return object.Yield, q.Neg()
	case code == "261" && reversal:
		return object.Returned, q.Neg()
	case code == "262" && reversal:
		return object.Consumed, q.Neg()
	case code == "262":
		return object.Returned, q
	}
	return object.Consumed, q
}

// ReverseDocument implements connector.DocumentReverser. The ERP itself refuses a second reversal of one document.
func (c *Connector) ReverseDocument(ctx context.Context, number, key string) (connector.Outcome, error) {
	d, err := c.client.document(ctx, number)
	if err != nil {
		return connector.Outcome{}, fmt.Errorf("read document %q: %w", number, err)
	}
	if d.ReversedBy != "" {
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: d.ReversedBy}}, nil
	}
	body := map[string]any{"external_key": key}
	a, err := c.client.call(ctx, "POST", "/api/documents/"+url.PathEscape(number)+"/reverse", body)
	return c.outcome(a, err), nil
}
