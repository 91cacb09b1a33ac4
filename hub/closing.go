package hub

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// statusDelay is how long an agent's report may have been under way to the hub: by so much the estimate of its clock is off.
const statusDelay = 2 * time.Second

// mayClose says why the plant may still hold counts of an order that the shop floor has finished. The machine's last counts
// and the MES's "finished" come from two sources, perhaps of two agents: whichever is read later must not find the order
// closed.
func (h *Hub) mayClose(ctx context.Context, f store.Fact) (reason string, err error) {
	plant, no := f.Fact.Plant, f.Fact.OrderNo()
	latest, err := h.store.Facts(ctx, store.FactFilter{Plant: plant, OrderNo: no}, store.Page{Limit: 1})
	if err != nil {
		return "", err
	}
	if len(latest) > 0 && h.now().Sub(latest[0].ReceivedAt) < h.cfg.Posting.Quiet {
		return fmt.Sprintf("waits until nothing new of the order has come for %s", h.cfg.Posting.Quiet), nil
	}
	edge, err := h.store.EdgeLines(ctx, store.TallyFilter{Plant: plant, OrderNo: no})
	if err != nil {
		return "", err
	}
	agents, err := h.concerned(ctx, f, edge)
	if err != nil {
		return "", err
	}
	for _, name := range agents {
		a, err := h.store.Agent(ctx, plant, name)
		if err != nil {
			return "", err
		}
		if reason := unsaid(a, f.ReceivedAt); reason != "" {
			return reason, nil
		}
		if reason, err := h.silentSource(ctx, a, f, edge); err != nil || reason != "" {
			return reason, err
		}
	}
	for _, l := range edge {
		if open := l.Counted.Sub(l.Stored); open.IsPositive() {
			return fmt.Sprintf("waits for %s %s of %s that source %q of %s/%s has counted and not confirmed yet", open, l.Unit, l.Kind, l.Source, l.Plant, l.Agent), nil
		}
	}
	return "", nil
}

// concerned lists the agents that may hold something of an order: who said that it is finished, who got it, and who counts
// it.
func (h *Hub) concerned(ctx context.Context, f store.Fact, edge []object.EdgeLine) ([]string, error) {
	names := []string{f.Agent}
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	o, err := h.store.Order(ctx, "", f.Fact.OrderNo())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err == nil && o.Order.Plant == f.Fact.Plant && o.Sent > 0 {
		add(o.Agent)
	}
	for _, l := range edge {
		add(l.Agent)
	}
	return names, nil
}

// unsaid returns why an agent cannot vouch yet that it has handed over everything up to a time.
func unsaid(a store.Agent, since time.Time) string {
	switch {
	case !a.Connected():
		return fmt.Sprintf("waits for agent %s, which is not connected: it may hold counts of the order", a.Name())
	case a.Status == nil || !a.StatusAt.After(since):
		return fmt.Sprintf("waits until agent %s says that nothing of the order is left", a.Name())
	case pendingSince(a, since):
		return fmt.Sprintf("waits for facts that agent %s has not handed over yet", a.Name())
	}
	return ""
}

// silentSource says which source of an agent may hold counts of the order that nobody has heard of, because it does not work.
func (h *Hub) silentSource(ctx context.Context, a store.Agent, f store.Fact, edge []object.EdgeLine) (reason string, err error) {
	for _, s := range a.Status.Sources {
		if s.State == "ok" {
			continue
		}
		feeds, err := h.feeds(ctx, a, s.Name, f, edge)
		if err != nil {
			return "", err
		}
		if feeds {
			return fmt.Sprintf("waits for source %q of agent %s, which is %s: it may hold counts of the order", s.Name, a.Name(), s.State), nil
		}
	}
	return "", nil
}

// feeds reports whether a source may hold something of an order: it has counted for it or sent a fact of it, or it works for
// the order's work centre. Of a source or an order of which too little is known, it must be assumed.
func (h *Hub) feeds(ctx context.Context, a store.Agent, source string, f store.Fact, edge []object.EdgeLine) (bool, error) {
	no := f.Fact.OrderNo()
	if slices.ContainsFunc(edge, func(l object.EdgeLine) bool { return l.Agent == a.Agent && l.Source == source && l.OrderNo == no }) {
		return true, nil
	}
	sent, err := h.store.Facts(ctx, store.FactFilter{Plant: a.Plant, OrderNo: no, Source: source}, store.Page{Limit: 1})
	if err != nil || len(sent) > 0 {
		return true, err
	}
	order, err := h.store.Order(ctx, "", no)
	if errors.Is(err, store.ErrNotFound) || err == nil && order.Order.WorkCenter == "" {
		return true, nil
	}
	if err != nil {
		return false, err
	}
	centers, err := h.store.SourceWorkCenters(ctx, a, source)
	if err != nil {
		return false, err
	}
	return len(centers) == 0 || slices.Contains(centers, "") || slices.Contains(centers, order.Order.WorkCenter), nil
}

// pendingSince reports whether an agent may hold facts that are older than a time. The agent's times are by its own clock.
func pendingSince(a store.Agent, since time.Time) bool {
	if a.Status.OldestPending == nil {
		return false
	}
	oldest := a.Status.OldestPending.AsTime()
	if a.Status.At != nil {
		oldest = oldest.Add(a.StatusAt.Sub(a.Status.At.AsTime()))
	}
	return !oldest.After(since.Add(statusDelay))
}
