package posting

import (
	"context"
	"fmt"
	"sync"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/store"
)

// onOrder lets one call about an order through at a time: lanes work on what is due, and people and heals take documents back
// meanwhile. Connectors are promised that.
type onOrder struct {
	mu   sync.Mutex
	held map[store.Lane]chan struct{}
}

// take waits until no call about the order is under way; give must be called then.
func (o *onOrder) take(ctx context.Context, l store.Lane) (give func(), err error) {
	for {
		o.mu.Lock()
		busy := o.held[l]
		if busy == nil {
			mine := make(chan struct{})
			if o.held == nil {
				o.held = map[store.Lane]chan struct{}{}
			}
			o.held[l] = mine
			o.mu.Unlock()
			return func() {
				o.mu.Lock()
				delete(o.held, l)
				o.mu.Unlock()
				close(mine)
			}, nil
		}
		o.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// ReverseDocument takes back a document of an order that no posting of ours has, under a key of its own, while nothing else is asked
// about that order.
func (e *Engine) ReverseDocument(ctx context.Context, erp, orderNo, number, key string) (connector.Outcome, error) {
	r, ok := e.o.Connectors[erp].(connector.DocumentReverser)
	if !ok {
		return connector.Outcome{}, fmt.Errorf("%w: system %q takes no document back by itself: reverse %s there by hand", ErrNotNow, erp, number)
	}
	return e.reverse(ctx, r, store.Lane{ERP: erp, OrderNo: orderNo}, number, key)
}

// reverse asks the outside system. A connector that breaks down leaves the question open.
func (e *Engine) reverse(ctx context.Context, r connector.DocumentReverser, l store.Lane, number, key string) (out connector.Outcome, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.o.CallTimeout)
	defer cancel()
	give, err := e.onOrder.take(ctx, l)
	if err != nil {
		return out, fmt.Errorf("wait for other calls about order %q: %w", l.OrderNo, err)
	}
	defer give()
	defer guarded{erp: l.ERP, log: e.o.Logger}.broke(connector.Posting{}, func(reason string) {
		out, err = connector.Outcome{Result: connector.InDoubt, Reason: reason}, nil
	})
	return r.ReverseDocument(ctx, number, key)
}
