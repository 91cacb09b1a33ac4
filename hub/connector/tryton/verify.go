package tryton

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Verify implements connector.Connector: it reads the effect back and compares it with the posting, not with the intent.
func (c *Connector) Verify(ctx context.Context, p connector.Posting, _ []byte, doc connector.Document) (connector.Verification, error) {
	if p.Fact.Kind == object.KindOrderState {
		o, err := c.find(ctx, p.Fact.OrderNo())
		switch {
		case errors.Is(err, connector.ErrNotFound):
			return differs(p, "it is no longer in Tryton")
		case err != nil:
			return connector.Verification{}, err
		}
		there, err := c.reachedState(ctx, p, o)
		switch {
		case err != nil:
			return connector.Verification{}, err
		case !there && p.Fact.OrderState.Operation != "":
			return differs(p, "its operation %q is not %s in Tryton", p.Fact.OrderState.Operation, p.Fact.OrderState.State)
		case !there:
			return differs(p, "it is %s in Tryton, which is not %s", o.State, p.Fact.OrderState.State)
		}
		return connector.Verification{Matches: true}, nil
	}
	ids, err := moveIDs(doc)
	if err != nil {
		return connector.Verification{}, err
	}
	moves, lots, err := c.movesOf(ctx, ids)
	if err != nil {
		return connector.Verification{}, err
	}
	return c.compare(ctx, p, moves, lots)
}

// VerifyMany implements connector.ManyVerifier: it reads the moves of all postings by one search. States of orders and operations are read
// back alone.
func (c *Connector) VerifyMany(ctx context.Context, all []connector.ToVerify) ([]connector.Verification, error) {
	answers := make([]connector.Verification, len(all))
	documents := make([][]int, len(all))
	var ids []int
	for i, q := range all {
		var err error
		documents[i], err = moveIDs(q.Document)
		if answers[i].Alone = err != nil || q.Posting.Fact.Kind == object.KindOrderState; !answers[i].Alone {
			ids = append(ids, documents[i]...)
		}
	}
	if len(ids) == 0 {
		for i := range answers {
			answers[i].Alone = true
		}
		return answers, nil
	}
	slices.Sort(ids)
	moves, lots, err := c.movesOf(ctx, slices.Compact(ids))
	if err != nil {
		return nil, fmt.Errorf("verify %d postings, %s first: %w", len(all), all[0].Posting.Fact.Key, err)
	}
	for i, q := range all {
		if answers[i].Alone {
			continue
		}
		var own []verified
		for _, m := range moves {
			if slices.Contains(documents[i], m.ID) {
				own = append(own, m)
			}
		}
		if answers[i], err = c.compare(ctx, q.Posting, own, lots); err != nil {
			answers[i] = connector.Verification{Alone: true} // the reason is this posting's, and no neighbour's
		}
	}
	return answers, nil
}

// movesOf reads moves by their ids, and whether Tryton keeps lots.
func (c *Connector) movesOf(ctx context.Context, ids []int) (moves []verified, lots bool, err error) {
	fields, err := c.withLots(ctx, verifiedFields)
	if err != nil {
		return nil, false, err
	}
	err = c.client.call(ctx, &moves, nil, "stock.move.search_read", []any{idsIn(ids)}, 0, nil, nil, fields)
	return moves, len(fields) > len(verifiedFields), err
}

// compare says whether the moves of a document are what a posting should have brought about.
func (c *Connector) compare(ctx context.Context, p connector.Posting, moves []verified, lots bool) (connector.Verification, error) {
	want := wanted(p)
	held := map[effect]decimal.Decimal{}
	digits := int32(0)
	for _, m := range moves {
		e, why := effectOf(m, p.Fact.OrderNo(), c.config.ReworkLocation)
		if why != "" {
			return differs(p, "move %d %s", m.ID, why)
		}
		u, err := c.master.unitOf(ctx, m.Unit)
		if err != nil {
			return connector.Verification{}, err
		}
		q, err := exact(m.Quantity, u.Digits)
		if err != nil {
			return connector.Verification{}, err
		}
		e.unit, digits = u.code, max(digits, u.Digits)
		if lots && lotOf(p) != "" {
			e.lot = m.lot()
		}
		held[e] = held[e].Add(q)
	}
	for e, q := range want {
		if lots {
			e.lot = lotOf(p)
		}
		if !same(held[e], q, digits) {
			return differs(p, "Tryton holds %s of %s, want %s", held[e], e, q)
		}
	}
	for _, e := range slices.SortedFunc(maps.Keys(held), func(a, b effect) int { return strings.Compare(a.String(), b.String()) }) {
		bare := e
		bare.lot = ""
		if _, ok := want[bare]; !ok {
			return differs(p, "Tryton holds %s of %s, which is not in the fact", held[e], e)
		}
	}
	return connector.Verification{Matches: true}, nil
}

func differs(p connector.Posting, format string, args ...any) (connector.Verification, error) {
	return connector.Verification{Difference: fmt.Sprintf("order %q: ", p.Fact.OrderNo()) + fmt.Sprintf(format, args...)}, nil
}

// verified is a move with the number of its order.
type verified struct {
	move
	UsedBy *numbered `json:"production_input."`
	MadeBy *numbered `json:"production_output."`
	Lot    *numbered `json:"lot."`
}

func (m verified) lot() string {
	if m.Lot == nil {
		return ""
	}
	return m.Lot.Number
}

type numbered struct {
	Number string `json:"number"`
}

// withLots adds the lot to the fields of a move, where Tryton keeps lots.
func (c *Connector) withLots(ctx context.Context, fields []string) ([]string, error) {
	has, err := c.master.keepsLots(ctx)
	if err != nil || !has {
		return fields, err
	}
	return append(slices.Clone(fields), "lot.number"), nil
}

var verifiedFields = append(slices.Clone(moveFields), "production_input.number", "production_output.number")

// effect is what moved and where, without how much.
type effect struct{ role, item, unit, lot string }

func (e effect) String() string {
	if e.lot != "" {
		return fmt.Sprintf("%s %s of item %q, lot %q", e.unit, e.role, e.item, e.lot)
	}
	return fmt.Sprintf("%s %s of item %q", e.unit, e.role, e.item)
}

// The roles of a move.
const (
	roleYield  = "yield"
	roleScrap  = "scrap"
	roleRework = "rework"
	roleIssue  = "issue"
)

// effectOf reads a move's role from where it went. Taking made pieces back and returning material are other roles than
// making and issuing, told by the side.
func effectOf(m verified, order, reworkCode string) (effect, string) {
	e := effect{item: m.Product.Code}
	on := m.MadeBy
	if on == nil {
		on = m.UsedBy
	}
	switch {
	case on == nil || on.Number != order:
		return e, "belongs to another order"
	case m.State != "done":
		return e, "is " + m.State + ", not done"
	case m.Output == nil:
		e.role = roleIssue
	case m.To.Type == "lost_found":
		e.role = roleScrap
	case reworkCode != "" && m.To.Code == reworkCode:
		e.role = roleRework
	default:
		e.role = roleYield
	}
	return e, ""
}

// wanted is what a posting should have brought about.
func wanted(p connector.Posting) map[effect]decimal.Decimal {
	want := map[effect]decimal.Decimal{}
	add := func(role, item, unit string, q decimal.Decimal) {
		if q.IsPositive() {
			e := effect{role: role, item: item, unit: unit}
			want[e] = want[e].Add(q)
		}
	}
	reversed := !p.Fact.Reverses.IsZero()
	if x := p.Fact.Consumption; x != nil {
		role := roleIssue
		if (x.Movement == object.Return) != reversed {
			role = roleYield // out of production, into storage
		}
		add(role, x.Item, x.Quantity.Unit, x.Quantity.Value)
	}
	if x := p.Fact.Confirmation; x != nil {
		item := x.Item
		if item == "" {
			item = p.Order.Item
		}
		if reversed {
			add(roleIssue, item, x.Unit, x.Yield.Add(x.Scrap).Add(x.Rework))
			return want
		}
		add(roleYield, item, x.Unit, x.Yield)
		add(roleScrap, item, x.Unit, x.Scrap)
		add(roleRework, item, x.Unit, x.Rework)
	}
	return want
}

// lotOf is the lot that a fact names, or empty.
func lotOf(p connector.Posting) string {
	switch {
	case p.Fact.Consumption != nil:
		return p.Fact.Consumption.Lot
	case p.Fact.Confirmation != nil:
		return p.Fact.Confirmation.Lot
	}
	return ""
}

func moveIDs(doc connector.Document) ([]int, error) {
	ids := []int{}
	for text := range strings.SplitSeq(doc.ID, ",") {
		if text == "" {
			continue
		}
		id, err := strconv.Atoi(text)
		if err != nil {
			return nil, fmt.Errorf("verify document %q of Tryton: %q is no record id", doc.Number, text)
		}
		ids = append(ids, id)
	}
	return ids, nil
}
