package sqltables

import (
	"context"
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

// errTidied says why nothing is listed unless the configuration says that rows stay.
var errTidied = errors.New("rows that the job has processed may be tidied away, and what is gone would be taken for missing: set postings.kept if they stay")

// Effects implements connector.EffectReader. A document is a row of the interface table that the job has booked, or has not
// looked at yet, which is pending; a row that it refused has no effect. What the books behind the table hold cannot be seen.
func (c *Connector) Effects(ctx context.Context, no string) (connector.Effects, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	out := connector.Effects{AsOf: time.Now().UTC()}
	var err error
	if out.Order, err = c.Get(ctx, no); err == nil {
		out.Documents, err = c.effects(ctx, no)
	}
	if err != nil {
		return connector.Effects{}, fmt.Errorf("list postings of order %q: %w", no, err)
	}
	return out, nil
}

func (c *Connector) effects(ctx context.Context, no string) ([]object.Effect, error) {
	if !c.cfg.Postings.Kept {
		return nil, errTidied
	}
	t := c.cfg.Postings
	key := c.d.table(t.Columns["fact_key"])
	found, err := c.rows(ctx, c.db, t.Table, t.Columns, "WHERE "+c.d.table(t.Columns["order_no"])+" = ? ORDER BY "+key, no)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(r row) bool { return text(r["order_no"]) != no || c.status(r) == isRejected }) // some databases ignore case
	var all []object.Effect
	for _, r := range found {
		e, err := c.effect(r)
		if err != nil {
			return nil, fmt.Errorf("row with key %s: %w", text(r["fact_key"]), err)
		}
		all = append(all, e)
	}
	link(all)
	return all, nil
}

// link gives each document a number of its own and its partner's: a row names by key what it takes back.
func link(all []object.Effect) {
	uses := map[string]int{}
	for _, e := range all {
		uses[e.Number]++
	}
	at := map[string]int{}
	for i := range all {
		if uses[all[i].Number] > 1 { // one document of the job's for several rows
			all[i].Number += "/" + all[i].Key
		}
		at[all[i].Key] = i
	}
	for i := range all {
		if all[i].Reverses == "" {
			continue
		}
		if j, known := at[all[i].Reverses]; known {
			if all[i].State == object.EffectBooked {
				all[j].ReversedBy = all[i].Number
			}
			all[i].Reverses = all[j].Number
		}
	}
}

func (c *Connector) effect(r row) (object.Effect, error) {
	doc := c.document(r)
	e := object.Effect{Number: doc.Number, ID: doc.ID, Key: text(r["fact_key"]), Reverses: text(r["reverses"]), Kind: object.Kind(text(r["kind"])), OrderNo: text(r["order_no"]),
		Operation: text(r["operation"]), State: object.EffectBooked, PostingDate: date(r["posting_date"])}
	if c.status(r) == isNew {
		e.State = object.EffectPending
	}
	if e.Kind == object.KindOrderState {
		return e, nil
	}
	unit, known := c.unit[text(r["unit"])]
	if !known {
		return e, fmt.Errorf("unit %q is not mapped: add it to units", text(r["unit"]))
	}
	kinds := map[string]object.QuantityKind{"yield": object.Yield, "scrap": object.Scrap, "rework": object.Rework}
	if e.Kind == object.KindConsumption {
		kinds = map[string]object.QuantityKind{"quantity": object.Consumed}
		if text(r["movement"]) == string(object.Return) {
			kinds["quantity"] = object.Returned
		}
	}
	for _, field := range []string{"yield", "scrap", "rework", "quantity"} {
		kind, has := kinds[field]
		if !has {
			continue
		}
		v, err := number(r[field])
		if err != nil {
			return e, fmt.Errorf("%s %w", field, err)
		}
		if e.Reverses != "" {
			v = v.Neg()
		}
		if !v.IsZero() {
			q := object.Quantity{Value: v, Unit: unit}
			e.Quantities = append(e.Quantities, object.EffectQuantity{Kind: kind, Item: text(r["item"]), Quantity: q})
			if kind != object.Scrap && kind != object.Rework { // the job books it with the row, or refuses the row
				e.Movements = append(e.Movements, object.EffectMovement{Kind: kind, Item: text(r["item"]), Lot: text(r["lot"]), Quantity: q})
			}
		}
	}
	return e, nil
}

// date is a calendar date as the column holds it, whatever the column's type.
func date(v any) string {
	if t, ok := v.(time.Time); ok {
		return t.Format(time.DateOnly)
	}
	s := text(v)
	return s[:min(len(s), len(time.DateOnly))]
}

// ReverseDocument implements connector.DocumentReverser: it hands over a row that takes another back, under a key of its own.
func (c *Connector) ReverseDocument(ctx context.Context, docNumber, key string) (connector.Outcome, error) {
	out, err := c.takeBack(ctx, docNumber, key)
	if err != nil {
		return connector.Outcome{}, fmt.Errorf("reverse posting %q: %w", docNumber, err)
	}
	return out, nil
}

func (c *Connector) takeBack(ctx context.Context, docNumber, key string) (connector.Outcome, error) {
	if !c.cfg.Postings.Reversals {
		return *reject(connector.Fatal, "NOT_POSTED", "Take it back in the ERP.", "Table %s takes no reversals.", c.cfg.Postings.Table), nil
	}
	r, err := c.numbered(ctx, docNumber)
	if err != nil {
		return connector.Outcome{}, err
	}
	if text(r["reverses"]) != "" {
		return *reject(connector.Correctable, "IS_REVERSAL", "Post again what was taken back.", "%s takes a posting back and is not taken back itself.", docNumber), nil
	}
	p, err := c.oppositeOf(r, key)
	if err != nil {
		return connector.Outcome{}, err
	}
	t := c.cfg.Postings
	others, err := c.rows(ctx, c.db, t.Table, t.Columns, "WHERE "+c.d.table(t.Columns["reverses"])+" = ?", text(r["fact_key"]))
	if err != nil {
		return connector.Outcome{}, err
	}
	for _, o := range others {
		switch c.status(o) {
		case isPosted:
			return connector.Outcome{Result: connector.Posted, Document: c.document(o)}, nil
		case isNew:
			return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("The ERP has not processed row %s yet, which takes %s back.", text(o["fact_key"]), docNumber)}, nil
		}
	}
	if unique, err := c.uniqueKey(ctx); err != nil || !unique {
		return connector.Outcome{}, errors.Join(err, fmt.Errorf("column %s of table %s is not UNIQUE", t.Columns["fact_key"], t.Table))
	}
	if no := c.unsuitable(p); no != nil {
		return *no, nil
	}
	if out := c.write(ctx, p); out != nil {
		return *out, nil
	}
	return c.await(ctx, p), nil
}

// numbered finds the one row with a number as Effects gives it: the job's document, the fact's key, or both.
func (c *Connector) numbered(ctx context.Context, docNumber string) (row, error) {
	t := c.cfg.Postings
	if doc := t.Columns["document"]; doc != "" {
		found, err := c.rows(ctx, c.db, t.Table, t.Columns, "WHERE "+c.d.table(doc)+" = ?", docNumber)
		if err != nil || len(found) == 1 {
			return first(found), err
		}
		if len(found) > 1 {
			return nil, fmt.Errorf("%d rows have it", len(found))
		}
	}
	r, err := c.find(ctx, c.db, docNumber[strings.LastIndex(docNumber, "/")+1:], "")
	if err == nil && r == nil {
		err = connector.ErrNotFound
	}
	return r, err
}

func first(found []row) row {
	if len(found) == 0 {
		return nil
	}
	return found[0]
}

// oppositeOf is the posting that takes a row back.
func (c *Connector) oppositeOf(r row, key string) (p connector.Posting, err error) {
	own, err := keyOf(key)
	if err != nil {
		return p, err
	}
	back, err := keyOf(text(r["fact_key"]))
	if err != nil {
		return p, err
	}
	unit, known := c.unit[text(r["unit"])]
	if !known {
		return p, fmt.Errorf("unit %q is not mapped: add it to units", text(r["unit"]))
	}
	now := time.Now()
	p.Fact = object.Fact{Key: own, Kind: object.Kind(text(r["kind"])), Reverses: back, OccurredAt: now}
	p.PostingDate = time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC)
	var q [4]decimal.Decimal
	for i, field := range []string{"yield", "scrap", "rework", "quantity"} {
		if q[i], err = number(r[field]); err != nil {
			return p, fmt.Errorf("%s %w", field, err)
		}
	}
	no, item, operation, lot := text(r["order_no"]), text(r["item"]), text(r["operation"]), text(r["lot"])
	switch p.Fact.Kind {
	case object.KindConfirmation:
		p.Fact.Confirmation = &object.Confirmation{OrderNo: no, Operation: operation, Item: item, Unit: unit, Yield: q[0], Scrap: q[1], Rework: q[2], Lot: lot, Serial: text(r["serial"])}
	case object.KindConsumption:
		p.Fact.Consumption = &object.Consumption{OrderNo: no, Operation: operation, Item: item, Lot: lot, Movement: object.Movement(text(r["movement"])), Quantity: object.Quantity{Value: q[3], Unit: unit}}
	default:
		return p, fmt.Errorf("a row of kind %q is not taken back", p.Fact.Kind)
	}
	return p, nil
}

func keyOf(text string) (key factkey.Key, err error) {
	prefix, err := factkey.Parse(text)
	copy(key[:], prefix)
	return key, err
}
