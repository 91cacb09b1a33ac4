package dispatch

import (
	"context"
	"time"

	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// What is stored of an order is what the system said, in its own words; what goes to the plant is in the plant's. It is mapped by
// the version in force when it goes down, and goes down again when another one changes it.

// words are how an order is said at the plant.
type words struct {
	rules   *mapping.Rules
	now     time.Time
	site    string
	missing *mapping.Missing
}

func wordsOf(tx *store.Tx, o object.WorkOrder) (words, error) {
	rules, err := tx.MappingRules()
	w := words{rules: rules, now: tx.Now(), site: o.Site}
	if err == nil && !rules.Empty() && o.Site != "" {
		w.site, w.missing = rules.Place(o.ERP, o.Site, w.now)
	}
	return w, err
}

// order is the order in the plant's words. What cannot be said stays as the system says it.
func (w words) order(o object.WorkOrder) (object.WorkOrder, *mapping.Missing) {
	if w.rules.Empty() {
		return o, nil
	}
	out, _, missing := w.rules.Order(o, w.now)
	out.Site = w.site
	if w.missing != nil {
		missing = w.missing
	}
	return out, missing
}

// fingerprint is of what the plant is told. While that cannot be said, nothing new concerns the plant.
func (w words) fingerprint(next *store.Order, old store.Order, known bool) {
	out, missing := w.order(next.Order)
	next.Content = fingerprint(out)
	if missing == nil {
		return
	}
	if known {
		next.Content = old.Content
	}
	if c := class(next.Order.State); c != "done" && c != "cancelled" {
		next.Unroutable = store.MappingMissing + missing.Reason() + "; " + missing.NextStep()
	}
}

// sayable reports that an order can go down: that it is cancelled is understood whatever its quantities are.
func (w words) sayable(o object.WorkOrder) bool {
	_, missing := w.order(o)
	return missing == nil || class(o.State) == "cancelled"
}

// followMappings gives the plants their orders anew whenever a mapping comes into force, until ctx ends. They had them as of since.
func (d *Dispatcher) followMappings(ctx context.Context, since time.Time) {
	changed, unwatch := d.o.Store.Watch(store.TopicMappings)
	defer unwatch()
	for {
		if d.o.Store.AwaitMappings(ctx, changed, since, d.o.Now, time.Hour); ctx.Err() != nil {
			return
		}
		since = d.o.Now()
		rules, err := d.o.Store.MappingRules(ctx)
		if err == nil && !rules.Empty() {
			err = d.reroute(ctx)
		}
		if err != nil && ctx.Err() == nil {
			d.o.Logger.Warn("work orders could not be mapped anew; they are in an hour, or when they change", "error", err)
		}
	}
}
