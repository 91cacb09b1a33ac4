package checking

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

// ErrNothingToUndo says that no heal of a discrepancy is left to be taken back.
var ErrNothingToUndo = errors.New("nothing was healed that could be taken back")

// Start compares all orders that match now, and heals what the rules allow.
func (c *Checker) Start(ctx context.Context, f store.Compared) (store.Reconciliation, error) {
	return c.All(ctx, "asked", f, nil)
}

// Statement reads and compares the orders that match and hands each one's lines over. It stores and changes nothing.
func (c *Checker) Statement(ctx context.Context, f store.Compared, give func([]reconcile.Line) error) error {
	for after := ""; ; {
		orders, err := c.o.Store.OrdersToCompare(ctx, f, after, ordersAtOnce)
		if err != nil || len(orders) == 0 {
			return err
		}
		for _, no := range orders {
			all, err := Read(ctx, c.o.Store, c.o.Connectors, c.o.Now, f.Plant, no)
			if err != nil {
				return fmt.Errorf("order %q: %w", no, err)
			}
			for _, o := range all {
				if err := give(reconcile.Statement(o, reconcile.CheckOrder(o, c.o.Policy))); err != nil {
					return err
				}
			}
			after = no
		}
	}
}

// Act carries out the proposed action of a discrepancy because a person wants it. No limit holds for that, and it can be undone as
// what was done without a person.
func (c *Checker) Act(ctx context.Context, id int64, by, note string) error {
	d, err := c.o.Store.Discrepancy(ctx, id)
	if err != nil {
		return err
	}
	if err := c.o.Store.BeginHeal(ctx, id, by, note); err != nil {
		return err
	}
	made, err := c.carryOut(ctx, d.Discrepancy, by, note)
	if err != nil {
		err = fmt.Errorf("%s: %w", d.Proposed.Text, err)
		return errors.Join(err, c.o.Store.DropHeal(context.WithoutCancel(ctx), id, err.Error()))
	}
	return c.o.Store.SetHealMade(context.WithoutCancel(ctx), id, made, "done")
}

// Undo takes the last heal of a discrepancy back, which was wrong, and counts it as such. The person's name and note are kept. byHand
// says that the person has taken it back in the outside system already: then it is only counted.
func (c *Checker) Undo(ctx context.Context, id int64, by, note string, byHand bool) error {
	d, err := c.o.Store.Discrepancy(ctx, id)
	if err != nil {
		return err
	}
	for i := len(d.Heals) - 1; i >= 0; i-- {
		h := d.Heals[i]
		if !h.UndoneAt.IsZero() {
			continue
		}
		if byHand {
			note += " (taken back by hand)"
		} else if err := c.undo(ctx, d, h, by, note); err != nil {
			return err
		}
		return c.o.Store.UndoHeal(ctx, h.ID, by, note)
	}
	return ErrNothingToUndo
}

// undo does the opposite of a heal. What a heal has brought into the books of a fact is taken back there, and the fact's posting says
// so: a person can correct it and post it anew.
func (c *Checker) undo(ctx context.Context, d store.Discrepancy, h store.Heal, by, note string) error {
	var current string
	if h.Action.Fact != "" {
		f, err := c.o.Store.FactByKey(ctx, h.Action.Fact)
		if err != nil {
			return err
		}
		if f.Posting != nil {
			current = f.Posting.Document
		}
	}
	if h.Action.Write != "" {
		w, err := c.o.Store.WriteByKey(ctx, h.Action.Write)
		if err != nil {
			return err
		}
		current = cmp.Or(w.Document, w.DocumentID)
	}
	a, books := reconcile.UndoOf(h.Action, cmp.Or(h.Made, current))
	switch {
	case !books:
		return nil // nothing was changed outside
	case a.Kind != reconcile.ReverseDocument || a.Document == "":
		return fmt.Errorf("%w: %s; then say that it was taken back by hand", ErrByHand, a.Text)
	case a.Document == current:
		return c.o.Books.Reverse(ctx, h.Action.Fact, note, by)
	}
	_, err := c.reverse(ctx, d.Discrepancy, a.Document, "undo", fmt.Sprint(h.ID))
	return err
}
