package checking

import (
	"context"
	"errors"
	"fmt"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
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

// Act carries out the proposed action of a discrepancy because a person wants it. No limit holds for that.
func (c *Checker) Act(ctx context.Context, id int64, by, note string) error {
	d, err := c.o.Store.Discrepancy(ctx, id)
	if err != nil {
		return err
	}
	if !d.State.Live() {
		return fmt.Errorf("%w: it is %s", store.ErrNotLive, d.State)
	}
	if _, err := c.carryOut(ctx, reconcile.Change{Discrepancy: d.Discrepancy}); err != nil {
		return fmt.Errorf("%s: %w", d.Proposed.Text, err)
	}
	return c.o.Store.DecideDiscrepancy(ctx, id, "acted", by, note, func(d *reconcile.Discrepancy) {
		d.State, d.Note = reconcile.Healing, note
	})
}

// Undo takes the last heal of a discrepancy back, which was wrong, and counts it as such. The person's name and note are kept.
func (c *Checker) Undo(ctx context.Context, id int64, by, note string) error {
	d, err := c.o.Store.Discrepancy(ctx, id)
	if err != nil {
		return err
	}
	for i := len(d.Heals) - 1; i >= 0; i-- {
		h := d.Heals[i]
		if !h.UndoneAt.IsZero() {
			continue
		}
		if err := c.undo(ctx, d, h); err != nil {
			return err
		}
		return c.o.Store.UndoHeal(ctx, h.ID, by, note)
	}
	return ErrNothingToUndo
}

func (c *Checker) undo(ctx context.Context, d store.Discrepancy, h store.Heal) error {
	made := h.Made
	if made == "" && h.Action.Fact != "" {
		f, err := c.o.Store.FactByKey(ctx, h.Action.Fact)
		if err != nil {
			return err
		}
		if f.Posting != nil {
			made = f.Posting.Document
		}
	}
	a, books := reconcile.UndoOf(h.Action, made)
	if !books {
		return nil // nothing was changed outside
	}
	r, ok := c.o.Connectors[d.ERP].(connector.DocumentReverser)
	if a.Kind != reconcile.ReverseDocument || !ok || made == "" {
		return fmt.Errorf("%s: %w", a.Text, ErrByHand)
	}
	out, err := r.ReverseDocument(ctx, made, factkey.Of(factkey.Position("reconciliation", fmt.Sprint(d.ID), "undo", fmt.Sprint(h.ID))).String())
	if err == nil && out.Result != connector.Posted {
		err = fmt.Errorf("%s: %s: %s", a.Text, out.Result, out.Reason)
	}
	return err
}
