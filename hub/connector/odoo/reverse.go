package odoo

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// prepareReversal finds the transfer of the original and makes the opposite of it, move by move.
func (c *Connector) prepareReversal(ctx context.Context, s *setup, p connector.Posting, in *intent) (*connector.Outcome, error) {
	f, err := c.find(ctx, s, in.Order)
	if errors.Is(err, connector.ErrNotFound) {
		return unknownOrder(in.Order), nil
	}
	if err != nil {
		return nil, err
	}
	in.Order = f.number
	found, err := c.byKey(ctx, s, in.Order, p.Fact.Reverses.String())
	if err != nil {
		return nil, err
	}
	found, err = c.standing(ctx, s, slices.DeleteFunc(found, func(t transfer) bool { return t.State != "done" }))
	if err != nil {
		return nil, err
	}
	switch len(found) {
	case 0:
		return reject(connector.Correctable, "NOTHING_TO_REVERSE", "Look in Odoo what became of that fact, then replay or accept this one.", "No transfer of fact %s is done in Odoo.", p.Fact.Reverses), nil
	case 1:
	default:
		return reject(connector.Correctable, "SEVERAL_TO_REVERSE", "Return the surplus ones in Odoo, then replay the fact.", "%d transfers bear the key of fact %s.", len(found), p.Fact.Reverses), nil
	}
	wrong, err := c.compare(ctx, p, found[0].Moves, false)
	if err != nil {
		return nil, err
	}
	if len(wrong) > 0 {
		return reject(connector.Correctable, "REVERSAL_DIFFERS", "Return in Odoo what is to be returned, then accept the fact.", "Transfer %s of fact %s is not what this fact takes back: %s.",
			found[0].Name, p.Fact.Reverses, strings.Join(wrong, "; ")), nil
	}
	by, err := c.takenBack(ctx, s, &found[0])
	if err != nil {
		return nil, err
	}
	if by != nil && by.Key != p.Fact.Key.String() {
		return reject(connector.Correctable, "ALREADY_REVERSED", "Check that the other reversal meant the same, then accept this fact.", "Transfer %s of fact %s is taken back already by %s.", found[0].Name, p.Fact.Reverses, by.Name), nil
	}
	no, err := c.opposite(ctx, s, f, &found[0], in)
	in.Note = note(p) + ", takes back " + p.Fact.Reverses.String()
	return no, err
}

// takenBack is the done transfer that takes a transfer back, nil when there is none.
func (c *Connector) takenBack(ctx context.Context, s *setup, t *transfer) (*transfer, error) {
	var ids []int
	for _, m := range t.Moves {
		ids = append(ids, m.ID)
	}
	returned, err := c.moves(ctx, s, []any{where("origin_returned_move_id", "in", ids), where("state", "=", "done")})
	if err != nil || len(returned) == 0 {
		return nil, err
	}
	by, err := c.transfers(ctx, s, []any{where("id", "=", returned[0].Transfer.ID)})
	if err == nil && len(by) == 0 {
		by = []transfer{{ID: returned[0].ID, Name: text(fmt.Sprintf("#%d", returned[0].ID)), State: "done"}}
	}
	if err != nil {
		return nil, err
	}
	return &by[0], nil
}

// opposite fills an intent with the opposite of a done transfer. Moves that counted in an open order are taken out of it: Odoo would add the opposite
// to what was made or consumed.
func (c *Connector) opposite(ctx context.Context, s *setup, f *family, t *transfer, in *intent) (*connector.Outcome, error) {
	lots, no, err := c.lotsOf(ctx, t)
	if no != nil || err != nil {
		return no, err
	}
	for _, m := range t.Moves {
		if m.State != "done" {
			continue
		}
		lot := lots[m.ID]
		in.Lines = append(in.Lines, line{Item: m.Product.Name, Product: m.Product.ID, Unit: m.Unit.ID, Quantity: m.Done.Round(c.cfg.Precision), From: m.To.ID, To: m.From.ID, Returns: m.ID, Lot: lot.Name, LotID: lot.ID})
		for field, of := range map[string]ref{tieRaw: m.RawOf, tieMade: m.MadeIn} {
			if slices.Contains(f.opens(), of.ID) {
				in.Untie = append(in.Untie, tie{m.ID, field})
			}
		}
	}
	if len(in.Lines) == 0 {
		return reject(connector.Correctable, "NOTHING_TO_REVERSE", "Look in Odoo what became of it.", "Transfer %s has no done move.", t.Name), nil
	}
	in.From, in.To = in.Lines[0].From, in.Lines[0].To
	in.Type, err = c.typeFor(ctx, s, &f.members[0])
	return nil, err
}

// lotsOf reads which lot each move of a transfer took.
func (c *Connector) lotsOf(ctx context.Context, t *transfer) (map[int]ref, *connector.Outcome, error) {
	var lines []struct {
		Move ref `json:"move_id"`
		Lot  ref `json:"lot_id"`
	}
	if err := c.client.list(ctx, "stock.move.line", []any{where("picking_id", "=", t.ID), where("lot_id", "!=", false)}, []string{"move_id", "lot_id"}, "id", 0, &lines); err != nil {
		return nil, nil, err
	}
	lots := map[int]ref{}
	for _, l := range lines {
		if have, ok := lots[l.Move.ID]; ok && have.ID != l.Lot.ID {
			return nil, reject(connector.Correctable, "SEVERAL_LOTS", "Return the transfer in Odoo by hand.", "Transfer %s has a move of several lots.", t.Name), nil
		}
		lots[l.Move.ID] = l.Lot
	}
	return lots, nil, nil
}

// ReverseDocument makes the opposite of a transfer under a key of its own.
func (c *Connector) ReverseDocument(ctx context.Context, number, key string) (connector.Outcome, error) {
	fail := func(err error) (connector.Outcome, error) {
		return connector.Outcome{}, fmt.Errorf("reverse document %q: %w", number, err)
	}
	s, err := c.known(ctx)
	if err != nil {
		return fail(err)
	}
	found, err := c.transfers(ctx, s, []any{where("name", "=", number), where("state", "=", "done")})
	if err != nil {
		return fail(err)
	}
	if len(found) != 1 {
		return *reject(connector.Fatal, "NOT_REVERSIBLE", "Take it back in Odoo by hand.", "Odoo has %d done transfers %q: only a transfer can be taken back.", len(found), number), nil
	}
	order, _ := split(string(found[0].Origin))
	f, err := c.find(ctx, s, order)
	if err != nil {
		return fail(err)
	}
	in := intent{Order: f.number, Note: "Linekeeper " + key + ", takes back transfer " + number}
	there, err := c.byKey(ctx, s, in.Order, key)
	if err != nil {
		return fail(err)
	}
	by, err := c.takenBack(ctx, s, &found[0])
	switch {
	case err != nil:
		return fail(err)
	case by != nil && by.Key != key:
		return connector.Outcome{Result: connector.Posted, Document: document(by), Reason: fmt.Sprintf("Transfer %s was taken back already.", number)}, nil
	}
	if in.There = len(there) > 0; by == nil {
		if no, err := c.opposite(ctx, s, f, &found[0], &in); no != nil || err != nil {
			if err != nil {
				return fail(err)
			}
			return *no, nil
		}
	}
	return c.post(ctx, key, &in), nil
}
