package odoo

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
	"github.com/shopspring/decimal"
)

// The kinds of places, by their usage in Odoo.
const (
	placeStock = "stock"
	placeFloor = "production"
	placeScrap = "inventory"
)

func place(usage string) string {
	if usage == "internal" || usage == "transit" {
		return placeStock
	}
	return usage
}

// Verify reads the transfer back by the fact's key and compares it with what the fact says.
func (c *Connector) Verify(ctx context.Context, p connector.Posting, raw []byte, doc connector.Document) (connector.Verification, error) {
	fail := func(err error) (connector.Verification, error) {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	asked := time.Now()
	s, err := c.known(ctx)
	if err != nil {
		return fail(err)
	}
	if p.Fact.OrderState != nil {
		return c.verifyState(ctx, s, p, raw, asked)
	}
	f, err := c.find(ctx, s, orderNo(p))
	if err != nil {
		return fail(err)
	}
	key := p.Fact.Key.String()
	there, err := c.byKey(ctx, s, f.number, key)
	if err != nil {
		return fail(err)
	}
	done := slices.DeleteFunc(slices.Clone(there), func(t transfer) bool { return t.State != "done" })
	if done, err = c.standing(ctx, s, done); err != nil {
		return fail(err)
	}
	if in, err := readIntent(raw); len(done) == 0 && err == nil && c.early(in, asked) {
		return connector.Verification{NotYet: true}, nil
	}
	var wrong []string
	switch {
	case len(there) == 0:
		wrong = []string{fmt.Sprintf("no transfer in Odoo has key %s", key)}
	case len(done) == 0:
		wrong = []string{fmt.Sprintf("transfer %s is %s in Odoo, not done", there[0].Name, there[0].State)}
	case len(done) > 1:
		wrong = []string{fmt.Sprintf("transfers %s and %s both have key %s and are done", done[0].Name, done[1].Name, key)}
	default:
		if wrong, err = c.judge(ctx, s, p, f, &done[0], doc); err != nil {
			return fail(err)
		}
		if err := c.tidy(ctx, spare(there)); err != nil {
			return fail(err)
		}
	}
	if len(wrong) > 0 {
		text := strings.Join(wrong, "; ")
		return connector.Verification{Difference: strings.ToUpper(text[:1]) + text[1:] + "."}, nil
	}
	return connector.Verification{Matches: true}, nil
}

// tidy deletes drafts that a late request left beside what is done.
func (c *Connector) tidy(ctx context.Context, spare []int) error {
	if len(spare) == 0 {
		return nil
	}
	var ok bool
	err := c.client.call(ctx, "stock.picking", "unlink", spare, nil, &ok)
	if _, no := refused(err); no {
		return nil // the list of effects shows them as pending
	}
	return err
}

func (c *Connector) judge(ctx context.Context, s *setup, p connector.Posting, f *family, t *transfer, doc connector.Document) ([]string, error) {
	booked, err := c.booking(ctx, s, t)
	if err != nil {
		return nil, err
	}
	wrong, err := c.compare(ctx, p, booked, !p.Fact.Reverses.IsZero())
	if err != nil {
		return nil, err
	}
	if order, _ := split(string(t.Origin)); order != f.number {
		wrong = append(wrong, fmt.Sprintf("transfer %s is of order %q, wanted %q", t.Name, order, f.number))
	}
	if doc.Number != "" && doc.Number != string(t.Name) {
		wrong = append(wrong, fmt.Sprintf("the document is %s, not %s", t.Name, doc.Number))
	}
	if !c.whole(p, t.Moves) {
		wrong = append(wrong, fmt.Sprintf("transfer %s does not count in order %s", t.Name, f.number))
	}
	if lot := lotOf(p); lot != "" {
		lots, no, err := c.lotsOf(ctx, t)
		if err != nil {
			return nil, err
		}
		if no != nil {
			wrong = append(wrong, no.Reason)
		}
		for _, have := range lots {
			if have.Name != lot {
				wrong = append(wrong, fmt.Sprintf("transfer %s has lot %q, wanted %q", t.Name, have.Name, lot))
			}
		}
	}
	if p.Fact.Reverses.IsZero() {
		return wrong, nil
	}
	var ids []int
	for _, m := range t.Moves {
		ids = append(ids, m.Returns.ID)
	}
	moves, err := c.moves(ctx, s, []any{where("id", "in", ids)})
	if err != nil {
		return nil, err
	}
	originals, err := c.byKey(ctx, s, f.number, p.Fact.Reverses.String())
	for _, m := range moves {
		if !slices.ContainsFunc(originals, func(o transfer) bool { return o.ID == m.Transfer.ID }) {
			wrong = append(wrong, fmt.Sprintf("transfer %s takes back %s, which is not of fact %s", t.Name, m.Transfer.Name, p.Fact.Reverses))
		}
	}
	if err == nil && len(moves) == 0 {
		wrong = append(wrong, fmt.Sprintf("transfer %s takes back no move of fact %s", t.Name, p.Fact.Reverses))
	}
	return wrong, err
}

// booking reads the lines of a done transfer, as moves: they are what Odoo books by.
func (c *Connector) booking(ctx context.Context, s *setup, t *transfer) ([]move, error) {
	var raw []json.RawMessage
	fields := []string{"product_id", "product_uom_id", "location_id", "location_dest_id", s.lineDone}
	if err := c.client.list(ctx, "stock.move.line", []any{where("picking_id", "=", t.ID)}, fields, "id", 0, &raw); err != nil {
		return nil, err
	}
	all := make([]move, len(raw))
	for i := range raw {
		var named map[string]json.RawMessage
		if err := errors.Join(json.Unmarshal(raw[i], &all[i]), json.Unmarshal(raw[i], &named)); err != nil {
			return nil, &lost{cause: fmt.Errorf("read a line of transfer %s: %w: %w", t.Name, errForm, err)}
		}
		if err := errors.Join(field1(named, "product_uom_id", &all[i].Unit), field1(named, s.lineDone, &all[i].Done)); err != nil {
			return nil, err
		}
		all[i].State = "done"
	}
	return all, nil
}

func lotOf(p connector.Posting) string {
	if f := p.Fact.Confirmation; f != nil {
		return cmp.Or(f.Serial, f.Lot)
	}
	return p.Fact.Consumption.Lot
}

// flow is what moved from one kind of place to another.
type flow struct{ item, unit, from, to string }

// expected is what a fact moves; back when another fact takes it back.
func expected(p connector.Posting, back bool) map[flow]decimal.Decimal {
	want := map[flow]decimal.Decimal{}
	add := func(item, unit, from, to string, q decimal.Decimal) {
		if back {
			from, to = to, from
		}
		if !q.IsZero() {
			want[flow{item, unit, from, to}] = q
		}
	}
	if f := p.Fact.Confirmation; f != nil {
		item := cmp.Or(f.Item, p.Order.Item)
		add(item, f.Unit, placeFloor, placeStock, f.Yield)
		add(item, f.Unit, placeFloor, placeScrap, f.Scrap)
		return want
	}
	f := p.Fact.Consumption
	if f.Movement == object.Return {
		back = !back
	}
	add(f.Item, f.Quantity.Unit, placeStock, placeFloor, f.Quantity.Value)
	return want
}

// compare says how moves differ from what a fact says. Odoo computes with floats: what differs by less than half of the last digit is equal.
func (c *Connector) compare(ctx context.Context, p connector.Posting, moves []move, back bool) ([]string, error) {
	flows, err := c.flows(ctx, moves)
	if err != nil {
		return nil, err
	}
	want := expected(p, back)
	var keys []flow
	for k := range want {
		keys = append(keys, k)
	}
	for k := range flows {
		if _, ok := want[k]; !ok {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, func(a, b flow) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	var wrong []string
	for _, k := range keys {
		if flows[k].Sub(want[k]).Abs().GreaterThanOrEqual(decimal.New(5, -c.cfg.Precision-1)) {
			wrong = append(wrong, fmt.Sprintf("Odoo has moved %s %s of %q from %s to %s, wanted %s", flows[k].Round(c.cfg.Precision), k.unit, k.item, k.from, k.to, want[k]))
		}
	}
	return wrong, nil
}

// flows sums done moves by what they did.
func (c *Connector) flows(ctx context.Context, moves []move) (map[flow]decimal.Decimal, error) {
	places, items, err := c.placesAndItems(ctx, moves)
	if err != nil {
		return nil, err
	}
	sums := map[flow]decimal.Decimal{}
	for _, m := range moves {
		if m.State != "done" {
			continue
		}
		unit, err := c.unit(m.Unit)
		if err != nil {
			unit = m.Unit.Name // which equals no unit of a fact's
		}
		k := flow{string(items[m.Product.ID].Code), unit, places[m.From.ID], places[m.To.ID]}
		sums[k] = sums[k].Add(m.Done.Decimal)
	}
	return sums, nil
}

func (c *Connector) placesAndItems(ctx context.Context, moves []move) (map[int]string, map[int]product, error) {
	var at, of []int
	for _, m := range moves {
		at, of = append(at, m.From.ID, m.To.ID), append(of, m.Product.ID)
	}
	slices.Sort(at)
	slices.Sort(of)
	usages, err := c.usage(ctx, slices.Compact(at))
	if err != nil {
		return nil, nil, err
	}
	for id, usage := range usages {
		usages[id] = place(usage)
	}
	items, err := c.products(ctx, slices.Compact(of))
	return usages, items, err
}
