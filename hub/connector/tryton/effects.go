package tryton

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

var _ connector.EffectReader = (*Connector)(nil)

// listed is a move with what only a list of an order's effects is read for.
type listed struct {
	verified
	Date    *wireDate   `json:"effective_date"`
	Written *wireTime   `json:"write_date"`
	Held    json.Number `json:"internal_quantity"` // in the unit in which the product is held
}

var listedFields = append(slices.Clone(verifiedFields), "effective_date", "write_date", "internal_quantity", "product.default_uom")

// Effects implements connector.EffectReader. A document is the moves of one note, or a single done move without one: Tryton
// itself has no documents on a production order. Moves of a note that are not done are pending; those without a note are only
// planned, and none.
func (c *Connector) Effects(ctx context.Context, orderNo string) (connector.Effects, error) {
	fail := func(err error) (connector.Effects, error) {
		return connector.Effects{}, fmt.Errorf("list moves of order %q: %w", orderNo, err)
	}
	out := connector.Effects{AsOf: time.Now().UTC()}
	o, err := c.find(ctx, orderNo)
	if err != nil {
		return fail(err)
	}
	if out.Order, err = c.Get(ctx, orderNo); err != nil {
		return fail(err)
	}
	fields, err := c.withLots(ctx, listedFields)
	if err != nil {
		return fail(err)
	}
	var moves []listed
	err = c.client.call(ctx, &moves, nil, "stock.move.search_read", []any{idsIn(slices.Concat(o.Inputs, o.Outputs)), notCancelled}, 0, nil, [][]string{{"id", "ASC"}}, fields)
	if err != nil {
		return fail(err)
	}
	ids := make([]int, len(moves))
	for i, m := range moves {
		ids[i] = m.ID
	}
	notes, err := c.notes(ctx, ids)
	if err != nil {
		return fail(err)
	}
	moves = slices.DeleteFunc(moves, func(m listed) bool { return m.State != "done" && notes[m.ID] == "" })
	if out.Documents, err = c.group(ctx, o, moves, notes); err != nil {
		return fail(err)
	}
	return out, nil
}

// group makes documents of moves.
func (c *Connector) group(ctx context.Context, o order, moves []listed, notes map[int]string) ([]object.Effect, error) {
	byNote := map[string][]listed{}
	var order []string
	for _, m := range moves {
		note, ok := notes[m.ID]
		if !ok {
			note = fmt.Sprint("#", m.ID)
		}
		if byNote[note] == nil {
			order = append(order, note)
		}
		byNote[note] = append(byNote[note], m)
	}
	numbers := map[string]string{} // of facts
	reversals := map[int]string{}
	var out []object.Effect
	for _, note := range order {
		e, err := c.effect(ctx, o, byNote[note], note)
		if err != nil {
			return nil, err
		}
		_, original, _ := strings.Cut(note, reversesWord)
		if original == "" && e.Key != "" {
			numbers[e.Key] = e.Number
		} else if original != "" {
			reversals[len(out)] = original
		}
		out = append(out, e)
	}
	for i, original := range reversals {
		out[i].Reverses = cmp.Or(numbers[original], "fact "+original)
		for j := range out {
			if out[j].Number == numbers[original] {
				out[j].ReversedBy = out[i].Number
			}
		}
	}
	return out, nil
}

func (c *Connector) effect(ctx context.Context, o order, moves []listed, note string) (object.Effect, error) {
	var ids []int
	for _, m := range moves {
		ids = append(ids, m.ID)
	}
	doc := document(o.Number, ids)
	e := object.Effect{Number: doc.Number, ID: doc.ID, OrderNo: o.Number, State: object.EffectBooked, Kind: object.KindConsumption}
	text, known := strings.CutPrefix(note, notePrefix)
	own, _, reversal := strings.Cut(text, reversesWord)
	if known {
		e.Key = own
	}
	e.Stock = []object.StockMovement{}
	for _, m := range moves {
		if err := c.stockOf(ctx, &e, m); err != nil {
			return e, fmt.Errorf("move %d: %w", m.ID, err)
		}
		if m.State != "done" {
			m.State, e.State = "done", object.EffectPending // as what it will be
		}
		role, why := effectOf(m.verified, o.Number, c.config.ReworkLocation)
		if why != "" {
			return e, fmt.Errorf("move %d %s", m.ID, why)
		}
		u, err := c.master.unitOf(ctx, m.Unit)
		if err != nil {
			return e, err
		}
		q, err := exact(m.Quantity, u.Digits)
		if err != nil {
			return e, err
		}
		made := o.Product != nil && m.Product.Code == o.Product.Code
		if made {
			e.Kind = object.KindConfirmation
		}
		kind := kindOfMove(role.role, made, reversal)
		if reversal {
			q = q.Neg()
		}
		e.Quantities = append(e.Quantities, object.EffectQuantity{Kind: kind, Item: m.Product.Code, Quantity: object.Quantity{Value: q, Unit: u.code}})
		if kind != object.Scrap && kind != object.Rework {
			e.Movements = append(e.Movements, object.EffectMovement{Kind: kind, Item: m.Product.Code, Lot: m.lot(), Quantity: object.Quantity{Value: q, Unit: u.code}, Backflush: !known && !made})
		}
		if m.Date != nil {
			e.PostingDate = m.Date.instant().Format(time.DateOnly)
		}
		e.BookedAt = m.Written.instant()
	}
	return e, nil
}

// stockOf adds what a move has done to stocks, in the unit in which Tryton holds the item. Scrap comes into no stock, rework does.
func (c *Connector) stockOf(ctx context.Context, e *object.Effect, m listed) error {
	if m.State != "done" {
		return nil
	}
	u, err := c.master.unitOf(ctx, m.Product.Unit)
	if err != nil {
		return err
	}
	q, err := exact(m.Held, u.Digits)
	if err != nil {
		return err
	}
	for _, at := range []struct {
		location
		q decimal.Decimal
	}{{m.From, q.Neg()}, {m.To, q}} {
		if at.Type != storage {
			continue
		}
		p, err := c.storageOf(ctx, at.ID)
		if err != nil {
			return err
		}
		e.Stock = append(e.Stock, object.StockMovement{Site: p.site, Location: p.name(), Item: m.Product.Code, Lot: m.lot(), Quantity: object.Quantity{Value: at.q, Unit: u.code}})
	}
	return nil
}

// kindOfMove says what a move counts. A reversal moves the other way than what it takes back.
func kindOfMove(role string, made, reversal bool) object.QuantityKind {
	switch {
	case role == roleScrap:
		return object.Scrap
	case role == roleRework:
		return object.Rework
	case made:
		return object.Yield
	case (role == roleIssue) != reversal:
		return object.Consumed
	}
	return object.Returned
}
