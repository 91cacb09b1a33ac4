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
	differs := func(format string, args ...any) (connector.Verification, error) {
		return connector.Verification{Difference: fmt.Sprintf("order %q: ", p.Fact.OrderNo()) + fmt.Sprintf(format, args...)}, nil
	}
	if p.Fact.Kind == object.KindOrderState {
		o, err := c.find(ctx, p.Fact.OrderNo())
		switch {
		case errors.Is(err, connector.ErrNotFound):
			return differs("it is no longer in Tryton")
		case err != nil:
			return connector.Verification{}, err
		case !reached(p.Fact.OrderState.State, o.State):
			return differs("it is %s in Tryton, which is not %s", o.State, p.Fact.OrderState.State)
		}
		return connector.Verification{Matches: true}, nil
	}
	ids, err := moveIDs(doc)
	if err != nil {
		return connector.Verification{}, err
	}
	var moves []verified
	err = c.client.call(ctx, &moves, nil, "stock.move.search_read", []any{idsIn(ids)}, 0, nil, nil, verifiedFields)
	if err != nil {
		return connector.Verification{}, err
	}
	held := map[effect]decimal.Decimal{}
	digits := int32(0)
	for _, m := range moves {
		e, why := effectOf(m, p.Fact.OrderNo(), c.config.ReworkLocation)
		if why != "" {
			return differs("move %d %s", m.ID, why)
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
		held[e] = held[e].Add(q)
	}
	want := wanted(p)
	for e, q := range want {
		if !same(held[e], q, digits) {
			return differs("Tryton holds %s of %s, want %s", held[e], e, q)
		}
	}
	for _, e := range slices.SortedFunc(maps.Keys(held), func(a, b effect) int { return strings.Compare(a.String(), b.String()) }) {
		if _, ok := want[e]; !ok {
			return differs("Tryton holds %s of %s, which is not in the fact", held[e], e)
		}
	}
	return connector.Verification{Matches: true}, nil
}

// verified is a move with the number of its order.
type verified struct {
	move
	UsedBy *numbered `json:"production_input."`
	MadeBy *numbered `json:"production_output."`
}

type numbered struct {
	Number string `json:"number"`
}

var verifiedFields = append(slices.Clone(moveFields), "production_input.number", "production_output.number")

// effect is what moved and where, without how much.
type effect struct{ role, item, unit string }

func (e effect) String() string { return fmt.Sprintf("%s %s of item %q", e.unit, e.role, e.item) }

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
			want[effect{role, item, unit}] = want[effect{role, item, unit}].Add(q)
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
