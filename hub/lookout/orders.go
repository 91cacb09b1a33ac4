package lookout

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
)

func (l *Lookout) lookAtOrders(ctx context.Context, now time.Time) error {
	if err := l.orders.begin(ctx); err != nil {
		return err
	}
	l.orders.tick(now)
	var found []finding
	if l.o.Limits.OrderWaits > 0 {
		unrouted, err := l.o.Store.Unrouted(ctx)
		if err != nil {
			return err
		}
		for _, u := range unrouted {
			found = append(found, l.unrouted(u))
		}
		waiting, err := l.orderless(ctx)
		if err != nil {
			return err
		}
		found = append(found, waiting...)
	}
	return l.orders.settle(ctx, found, func(key) bool { return false }, func(key) string {
		if l.o.Limits.OrderWaits == 0 {
			return store.EndedUnlooked
		}
		return store.EndedNone
	})
}

// unrouted is about released work orders that nobody gets for one reason.
func (l *Lookout) unrouted(u store.Unrouted) finding {
	w := u.Example.Order
	f := finding{after: l.o.Limits.OrderWaits, since: seenNow, from: w.RevisedAt, counts: true}
	what := fmt.Sprintf("work order %q (item %q) reaches no plant", w.OrderNo, w.Item)
	if u.Count > 1 {
		what = fmt.Sprintf("%d work orders reach no plant, such as %q (item %q)", u.Count, w.OrderNo, w.Item)
	}
	what += ", known since " + l.clock(w.Plant, w.RevisedAt)
	if why, ok := strings.CutPrefix(u.Reason, store.MappingMissing); ok {
		why, next, _ := strings.Cut(why, "; ")
		word, _, _ := strings.Cut(why, " is not in ")
		f.key, f.reason, f.next = key{u.ERP + ": " + word, store.AlarmNotMapped}, what+": "+why, next
		return f
	}
	f.key, f.reason = key{strings.Join([]string{u.ERP, w.Site, w.WorkCenter}, "/"), store.AlarmNoRoute}, what+": "+u.Reason
	f.next = fmt.Sprintf("add {erp: %q, site: %q, work_center: %q, plant: PLANT, agent: AGENT} under routes: in the hub's configuration and restart the hub, or correct the order in the ERP. Where none of the plants here is meant, close this with a note",
		u.ERP, w.Site, w.WorkCenter)
	return f
}

// settling is how long facts must be seen to wait: at a start of the hub, or when its clock was set, old ones may go on at once.
const settling = time.Minute

// orderless is about facts whose order has not come for long.
func (l *Lookout) orderless(ctx context.Context) ([]finding, error) {
	limit := l.o.Limits.OrderWaits
	all, err := l.o.Store.Orderless(ctx, []string{posting.CodeUnknownOrder, posting.CodeOrderWithoutPlant}, l.o.Now().Add(-limit))
	if err != nil {
		return nil, err
	}
	var found []finding
	for _, o := range all {
		f := finding{after: min(limit, settling), since: seenNow, from: o.Since, counts: true}
		f.reason = fmt.Sprintf("%d facts of plant %q wait for %d work orders, the oldest since %s for order %q", o.Count, o.Plant, o.Orders, l.clock(o.Plant, o.Since), o.Example)
		if o.Code == posting.CodeUnknownOrder {
			f.key = key{o.Plant, store.AlarmNoOrder}
			f.reason += ": no ERP has the order"
			f.next = "correct the order number of the facts in the inbox and at the source, or enter the order in the ERP; then they go on by themselves"
		} else {
			f.key = key{o.Plant, store.AlarmNoPlant}
			f.reason += ": no route leads from the order to a plant"
			f.next = "add the order's site and work centre under routes: in the hub's configuration and restart the hub; then they go on by themselves"
		}
		found = append(found, f)
	}
	return found, nil
}
