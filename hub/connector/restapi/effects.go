package restapi

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
	"github.com/linekeeper/linekeeper/hub/object"
)

// maxPages bounds a list of documents.
const maxPages = 10_000

// Effects lists all documents of an order. What cannot be read is an error: a document that is left out would be taken for missing.
func (r reading) Effects(ctx context.Context, no string) (connector.Effects, error) {
	out, err := r.all(ctx, no)
	if err != nil {
		return connector.Effects{}, fmt.Errorf("list documents of order %q: %w", no, err)
	}
	return out, nil
}

func (r reading) all(ctx context.Context, no string) (out connector.Effects, err error) {
	out.AsOf = time.Now()
	if out.Order, err = r.order(ctx, no); err != nil {
		return out, err
	}
	e := r.effects
	vars := map[string]any{"order_no": no, "cursor": nil, "offset": 0, "page_size": 0}
	address, err := e.url.Fill(vars, escape)
	for n := 0; err == nil; n++ {
		if n == maxPages {
			return out, fmt.Errorf("there are more than %d pages", maxPages)
		}
		var s sheet
		if s, err = r.readList(ctx, address, e.at, vars); err != nil {
			return out, err
		}
		if n == 0 {
			if err := e.instant(&out, s.vars, r.zone); err != nil {
				return out, err
			}
		}
		for _, row := range s.rows {
			s.vars["row"] = row
			d, err := r.effect(s.vars, no)
			if err != nil {
				return out, fmt.Errorf("document %q: %w", d.Number, err)
			}
			out.Documents = append(out.Documents, d)
		}
		switch {
		case e.next.IsSet():
			next, nerr := e.next.Text(s.vars)
			if nerr != nil || next == "" {
				return out, nerr
			}
			address, err = r.client.address(next, s.at)
		case e.url.Uses("offset") && len(s.rows) > 0:
			vars["offset"] = len(out.Documents)
			address, err = e.url.Fill(vars, escape)
		default:
			return out, distinct(out.Documents)
		}
	}
	return out, err
}

// distinct finds a list that moved while it was read in pages.
func distinct(all []object.Effect) error {
	seen := map[string]bool{}
	for _, d := range all {
		if seen[d.Number] {
			return fmt.Errorf("document %q is listed twice: it is read again later", d.Number)
		}
		seen[d.Number] = true
	}
	return nil
}

func (e *effects) instant(out *connector.Effects, vars map[string]any, zone *time.Location) error {
	if !e.asOf.IsSet() {
		return nil
	}
	v, err := e.asOf.Value(vars)
	if err == nil {
		out.AsOf, _, err = generic.ReadTime(v, zone)
	}
	if err != nil {
		return fmt.Errorf("effects.as_of: %w", err)
	}
	return nil
}

// effect translates one document.
func (r reading) effect(vars map[string]any, no string) (d object.Effect, err error) {
	text := func(name string) string {
		t, terr := r.effects.fields[name].Text(vars)
		if terr != nil {
			err = errors.Join(err, fmt.Errorf("effects.map.%s: %w", name, terr))
		}
		return t
	}
	d = object.Effect{Number: text("number"), ID: text("id"), Key: text("key"), Reverses: text("reverses"), ReversedBy: text("reversed_by"), Kind: object.Kind(text("kind")),
		OrderNo: no, Operation: text("operation"), State: object.EffectBooked, PostingDate: text("posting_date"), User: text("user")}
	if text("pending") == "true" {
		d.State = object.EffectPending
	}
	if at := text("booked_at"); at != "" {
		var terr error
		if d.BookedAt, _, terr = generic.ReadTime(at, r.zone); terr != nil {
			err = errors.Join(err, fmt.Errorf("effects.map.booked_at: %w", terr))
		}
	}
	switch {
	case err != nil:
		return d, err
	case d.Number == "":
		return d, errors.New("effects.map.number gives nothing")
	case !slices.Contains(kinds, d.Kind):
		return d, fmt.Errorf("effects.map.kind gives %q; it must be one of %v", d.Kind, kinds)
	}
	for _, q := range r.effects.quantities {
		if err := r.quantity(q, vars, &d); err != nil {
			return d, fmt.Errorf("effects.map.quantities: %s: %w", q.kind, err)
		}
	}
	return d, nil
}

func (r reading) quantity(q effectQuantity, vars map[string]any, d *object.Effect) error {
	v, err := q.value.Value(vars)
	if err != nil || v == nil {
		return err
	}
	n, err := generic.Decimal(v)
	if err != nil || n.IsZero() {
		return err
	}
	item, err := q.item.Text(vars)
	if err != nil {
		return err
	}
	unit, err := q.unit.Text(vars)
	if err != nil {
		return err
	}
	if unit, err = r.units.Ours(unit); err != nil {
		return err
	}
	d.Quantities = append(d.Quantities, object.EffectQuantity{Kind: q.kind, Item: item, Quantity: object.Quantity{Value: n, Unit: unit}})
	if q.kind == object.Yield || q.kind == object.Consumed || q.kind == object.Returned { // nothing says otherwise; else it would be called missing
		d.Movements = append(d.Movements, object.EffectMovement{Kind: q.kind, Item: item, Quantity: object.Quantity{Value: n, Unit: unit}})
	}
	return nil
}
