package odoo

import (
	"cmp"
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

var keyForm = regexp.MustCompile(`^[A-Z2-7]{16}$`)

// split takes an origin apart into order and key; the key is empty where the text does not end with one.
func split(origin string) (order, key string) {
	i := strings.LastIndexByte(origin, ' ')
	if i < 0 || !keyForm.MatchString(origin[i+1:]) {
		return origin, ""
	}
	return origin[:i], origin[i+1:]
}

// Effects implements connector.EffectReader. A document is a transfer made here, or a single move that Odoo or a person made under the order.
func (c *Connector) Effects(ctx context.Context, orderNo string) (connector.Effects, error) {
	fail := func(err error) (connector.Effects, error) {
		return connector.Effects{}, fmt.Errorf("list moves of order %q: %w", orderNo, err)
	}
	out := connector.Effects{AsOf: time.Now().UTC().Add(-c.cfg.ReadDelay)}
	s, err := c.known(ctx)
	if err != nil {
		return fail(err)
	}
	f, err := c.find(ctx, s, orderNo)
	if err != nil {
		return fail(err)
	}
	if out.Order, err = c.Get(ctx, f.number); err != nil {
		return fail(err)
	}
	all, err := c.listed(ctx, s, f)
	if err != nil {
		return fail(err)
	}
	if out.Documents, err = c.documents(ctx, f, all); err != nil {
		return fail(err)
	}
	return out, nil
}

// listed is a document, ours or not.
type listed struct {
	transfer
	ours bool
}

// listed reads what there is of an order: transfers that name it, whatever moved under its parts, and what takes any of that back.
func (c *Connector) listed(ctx context.Context, s *setup, f *family) ([]listed, error) {
	named, err := c.transfers(ctx, s, []any{where("origin", "=like", escape(f.number)+" %"), where("state", "!=", "cancel")})
	if err != nil {
		return nil, err
	}
	tied, err := c.moves(ctx, s, []any{where("state", "=", "done"), "|", where(tieRaw, "in", f.ids()), where(tieMade, "in", f.ids())})
	if err != nil {
		return nil, err
	}
	var ids, moves []int
	for _, m := range tied {
		ids, moves = append(ids, m.Transfer.ID), append(moves, m.ID)
	}
	for _, t := range named {
		for _, m := range t.Moves {
			moves = append(moves, m.ID)
		}
	}
	back, err := c.moves(ctx, s, []any{where("state", "=", "done"), where("origin_returned_move_id", "in", moves)})
	if err != nil {
		return nil, err
	}
	for _, m := range back {
		ids = append(ids, m.Transfer.ID)
	}
	ids = slices.DeleteFunc(ids, func(id int) bool {
		return id == 0 || slices.ContainsFunc(named, func(t transfer) bool { return t.ID == id })
	})
	others, err := c.transfers(ctx, s, []any{where("id", "in", ids)})
	if err != nil {
		return nil, err
	}
	all := []listed{}
	for _, t := range append(named, others...) {
		all = append(all, listed{t, t.Key != ""})
	}
	for id := range returnsOf(append(named, others...)) {
		for i := range all {
			if all[i].ID == id {
				all[i].Key = ""
			}
		}
	}
	for _, m := range append(tied, back...) {
		if m.Transfer.ID == 0 {
			all = append(all, listed{transfer{ID: m.ID, Name: text(fmt.Sprintf("%s#%d", f.number, m.ID)), State: "done", Written: m.Date, User: m.User, Moves: []move{m}}, false})
		}
	}
	return all, nil
}

func (c *Connector) documents(ctx context.Context, f *family, all []listed) ([]object.Effect, error) {
	var moves []move
	of := map[int]string{} // document by move
	for _, t := range all {
		for _, m := range t.Moves {
			of[m.ID] = string(t.Name)
			moves = append(moves, m)
		}
	}
	places, items, err := c.placesAndItems(ctx, moves)
	if err != nil {
		return nil, err
	}
	made := string(items[f.members[0].Product.ID].Code)
	if made == "" {
		p, err := c.products(ctx, []int{f.members[0].Product.ID})
		if err != nil {
			return nil, err
		}
		made = string(p[f.members[0].Product.ID].Code)
	}
	out := make([]object.Effect, len(all))
	at := map[string]int{}
	for i, t := range all {
		if out[i], err = c.effect(f, t, places, items, made); err != nil {
			return nil, err
		}
		at[out[i].Number] = i
	}
	for i, t := range all {
		for _, m := range t.Moves {
			if m.Returns.ID == 0 || out[i].State != object.EffectBooked { // what is not booked has taken nothing back
				continue
			}
			out[i].Reverses = cmp.Or(of[m.Returns.ID], fmt.Sprint("#", m.Returns.ID))
			if j, ok := at[out[i].Reverses]; ok {
				out[j].ReversedBy = out[i].Number
			}
		}
	}
	return out, nil
}

// effect makes one document. Which way it went says what it counts; what takes another back counts below zero as what that one counted.
func (c *Connector) effect(f *family, t listed, places map[int]string, items map[int]product, made string) (object.Effect, error) {
	e := object.Effect{Number: string(t.Name), Stock: []object.StockMovement{}, ID: fmt.Sprint(t.ID), Key: t.Key, Kind: object.KindConsumption, OrderNo: f.number, State: object.EffectPending, User: t.User.Name}
	if t.State == "done" {
		e.State = object.EffectBooked
		e.BookedAt = instant(t.Written)
	}
	for _, m := range t.Moves {
		if m.State == "cancel" {
			continue
		}
		unit, err := c.unit(m.Unit)
		if err != nil {
			return e, fmt.Errorf("move %d: %w", m.ID, err)
		}
		item := string(items[m.Product.ID].Code)
		if item == "" {
			return e, fmt.Errorf("move %d: product %q has no internal reference: give it one in Odoo", m.ID, m.Product.Name)
		}
		q := object.Quantity{Value: m.Done.Round(c.cfg.Precision), Unit: unit}
		if e.State == object.EffectBooked {
			c.stockOf(&e, m, places, item, q)
		}
		from, to := places[m.From.ID], places[m.To.ID]
		if m.Returns.ID != 0 {
			from, to, q.Value = to, from, q.Value.Neg()
		}
		kind, err := kindOf(from, to, item == made)
		if err != nil {
			return e, fmt.Errorf("move %d of %q: %w", m.ID, item, err)
		}
		if kind == object.Yield || kind == object.Scrap {
			e.Kind = object.KindConfirmation
		}
		e.Quantities = append(e.Quantities, object.EffectQuantity{Kind: kind, Item: item, Quantity: q})
		if kind != object.Scrap {
			e.Movements = append(e.Movements, object.EffectMovement{Kind: kind, Item: item, Quantity: q, Backflush: !t.ours && kind == object.Consumed})
		}
		if at := instant(m.Date); e.State == object.EffectBooked && !at.IsZero() {
			e.BookedAt, e.PostingDate = at, at.Format(time.DateOnly)
		}
	}
	return e, nil
}

// stockOf adds what a move takes from a location and brings to one, of those whose stock is read. Which lots it is of is not read.
func (c *Connector) stockOf(e *object.Effect, m move, places map[int]string, item string, q object.Quantity) {
	add := func(at ref, v decimal.Decimal) {
		if places[at.ID] != placeStock || len(c.cfg.Locations) > 0 && !slices.Contains(c.cfg.Locations, at.Name) {
			return
		}
		e.Stock = append(e.Stock, object.StockMovement{Site: c.cfg.Sites[at.Name], Location: at.Name, Item: item, Quantity: object.Quantity{Value: v, Unit: q.Unit}})
	}
	add(m.From, q.Value.Neg())
	add(m.To, q.Value)
}

func kindOf(from, to string, made bool) (object.QuantityKind, error) {
	switch {
	case from == placeFloor && to == placeScrap:
		return object.Scrap, nil
	case from == placeFloor && to == placeStock && made:
		return object.Yield, nil
	case from == placeFloor && to == placeStock:
		return object.Returned, nil
	case from == placeStock && to == placeFloor:
		return object.Consumed, nil
	}
	return "", fmt.Errorf("a move from %s to %s under an order is none that this connector knows", from, to)
}
