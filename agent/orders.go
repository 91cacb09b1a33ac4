package agent

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
)

// receiver is the source that takes work orders.
type receiver struct {
	name string
	to   signal.OrderReceiver
}

// runOrders tells the rules of every work order that came down and hands it to the receiver, until ctx ends. A refused
// revision is noted and its neighbours go on; any other failure is tried again.
func (a *Agent) runOrders(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	wait := time.Duration(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.inbox.Changed():
		case <-timer.C:
		}
		if err := a.passOrders(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			wait = min(max(2*wait, time.Second), 30*time.Second)
			a.log.Warn("deliver work orders", "err", err, "again_in", wait)
			timer.Reset(wait/2 + rand.N(wait/2+1))
			continue
		}
		wait = 0
		timer.Reset(time.Minute)
	}
}

// tellRules lets the rules know of every open work order's newest revision, once.
func (a *Agent) tellRules(ctx context.Context) error {
	open := a.inbox.Open()
	told := make(map[string]int64, len(open))
	var news []signal.WorkOrder
	for _, o := range open {
		told[o.OrderNo] = o.Revision
		if last, ok := a.told[o.OrderNo]; !ok || last != o.Revision {
			news = append(news, o)
		}
	}
	if len(news) > 0 {
		err := a.pipe.business.Update(ctx, func(tx *buffer.Tx) error {
			for _, o := range news {
				a.pipe.rules.Dispatched(tx, a.now(), o)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("note work orders for the rules: %w", err)
		}
	}
	a.told = told
	return nil
}

// passOrders brings every pending revision one step further. The rules learn of an order before the receiver does, so
// that the first answer already finds its item and unit.
func (a *Agent) passOrders(ctx context.Context) error {
	if err := a.tellRules(ctx); err != nil {
		return err
	}
	if a.receiver.to == nil {
		return nil // no source takes orders: they are shown, and the rules know them
	}
	var failed []error
	pending := a.inbox.Pending()
	for _, o := range pending {
		if err := a.passOrder(ctx, o); err != nil {
			failed = append(failed, err)
			a.showUndelivered(failed, len(pending)) // the others may take long
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	a.showUndelivered(failed, len(pending))
	return errors.Join(failed...)
}

// showUndelivered tells on the page which work orders the receiver has not got, until it has.
func (a *Agent) showUndelivered(failed []error, of int) {
	p := status.Problem{Key: "work_orders"}
	if len(failed) > 0 {
		p.Code, p.Item, p.Reason = "not_delivered", "work orders", failed[0].Error()
		if len(failed) > 1 {
			p.Reason = fmt.Sprintf("%d of %d are not delivered, the first: %s", len(failed), of, p.Reason)
		}
		p.NextStep = "look at the receiver; delivery is tried again by itself"
	}
	a.board.SetProblem(a.receiver.name, p)
}

func (a *Agent) passOrder(ctx context.Context, o signal.WorkOrder) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := a.inbox.MarkTried(o.OrderNo, o.Revision); err != nil {
		return err
	}
	err := a.receiver.deliver(ctx, o)
	var refused *signal.Refused
	switch {
	case errors.As(err, &refused):
		return a.inbox.MarkRefused(o.OrderNo, o.Revision, refused.Reason)
	case err != nil:
		return fmt.Errorf("hand work order %q revision %d to source %q: %w", o.OrderNo, o.Revision, a.receiver.name, err)
	}
	return a.inbox.MarkDelivered(o.OrderNo, o.Revision)
}

// deliver turns a panic of the driver into an error: one order must not take the agent along.
func (r receiver) deliver(ctx context.Context, o signal.WorkOrder) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the driver panicked: %v", p)
		}
	}()
	return r.to.Deliver(ctx, o)
}
