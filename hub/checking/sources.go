package checking

import (
	"context"
	"fmt"

	"github.com/linekeeper/linekeeper/hub/reconcile"
)

// Sources makes discrepancies of what agents and their lines told of: counters that went back, records that never came. What was found
// here belongs to no order and is not seen again by comparing one: it ends when a person decides, or when the records have come.
func (c *Checker) Sources(ctx context.Context) error {
	for {
		all, err := c.o.Store.StepsBack(ctx, stepsAtOnce)
		if err != nil {
			return err
		}
		if err := c.o.Store.RaiseSteps(ctx, all, c.o.Policy); err != nil {
			return err
		}
		if len(all) < stepsAtOnce {
			break
		}
	}
	gaps, err := c.o.Store.Gaps(ctx)
	if err != nil {
		return err
	}
	for _, g := range gaps {
		if g.Discrepancy != 0 {
			continue
		}
		if err := c.o.Store.RaiseGap(ctx, g, c.o.Policy); err != nil {
			return err
		}
	}
	if err := c.missed(ctx); err != nil {
		return err
	}
	return c.o.Store.AgeDiscrepancies(ctx, c.o.Policy)
}

// missed raises what agents tell of their sources' own numbering.
func (c *Checker) missed(ctx context.Context) error {
	agents, err := c.o.Store.Agents(ctx)
	if err != nil {
		return err
	}
	for _, a := range agents {
		for _, src := range a.Status.GetSources() {
			for _, g := range src.GetGaps() {
				f := reconcile.CheckMissed(reconcile.Missed{Plant: a.Plant, Agent: a.Agent, Source: src.GetName(), Item: g.GetItem(), Reason: g.GetReason(), Records: g.GetMissing(), At: g.GetAt().AsTime()})
				if f == nil {
					continue
				}
				if err := c.o.Store.RaiseMissed(ctx, *f, c.o.Policy); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// refill ends gaps whose records came after all, brought by hand, and those that a person has decided about.
func (c *Checker) refill(ctx context.Context) error {
	gaps, err := c.o.Store.Gaps(ctx)
	if err != nil {
		return err
	}
	for _, g := range gaps {
		if g.Discrepancy == 0 {
			continue
		}
		d, err := c.o.Store.Discrepancy(ctx, g.Discrepancy)
		if err != nil {
			return err
		}
		filled := false
		if d.State.Live() {
			if filled, err = c.o.Store.GapFilled(ctx, g); err != nil {
				return err
			}
		}
		if d.State.Live() && !filled {
			continue
		}
		if err := c.o.Store.CloseGap(ctx, g, fmt.Sprintf("records %d to %d have come", g.First, g.Last)); err != nil {
			return err
		}
	}
	return nil
}
