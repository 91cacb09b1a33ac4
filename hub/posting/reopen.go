package posting

import (
	"context"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// A fact that is refused because its order is completed may have it reopened, where the policy and the connector allow it: the
// order's state is read and stored, then it is reopened, the postings of its lane are made, and the state is restored when nothing
// more is to do. Each step may come again after a crash and does nothing the second time. An order that is closed for good is
// never reopened.

// CodeOrderFinal is the code of a fact whose order takes nothing any more and must not be reopened.
const CodeOrderFinal = "order_closed_for_good"

const (
	reopenMost   = 5 // times a day: something else is wrong then
	reopenWithin = 24 * time.Hour
	reopenFor    = time.Hour // at most, then its state is restored even if something is still to be posted
	restoreAgain = 30 * time.Second
)

func (e *Engine) reopener(erp string) connector.Reopener {
	r, _ := e.o.Connectors[erp].(connector.Reopener)
	return r
}

// orderShut makes a refused posting due again when its order may be reopened, and notes that. It reports whether it did.
func (e *Engine) orderShut(ctx context.Context, c *call, out connector.Outcome) (again bool, err error) {
	if !reconcile.MayBeClosed(out.Code) || e.reopener(c.p.ERP) == nil || ClosedBy(e.o.Policies, c.p.ERP, c.p.Plant) != ClosedReopen || c.f.Fact.OrderState.Ends() {
		return false, nil
	}
	l := store.Lane{ERP: c.p.ERP, OrderNo: c.p.OrderNo}
	n, err := e.o.Store.Reopening(ctx, l)
	now := e.o.Now()
	switch {
	case err != nil:
		return false, err
	case n == nil || now.Sub(n.FirstAt).Abs() > reopenWithin:
		n = &store.Reopening{Lane: l, FirstAt: now}
	case n.Times >= reopenMost:
		return false, nil
	}
	n.State, n.Was = store.ReopeningWanted, ""
	n.Times++
	c.p.State, c.p.Class, c.p.Code = store.PostingDue, string(out.Class), out.Code
	c.p.Reason, c.p.NextStep = fmt.Sprintf("%s; the order is reopened for this", out.Reason), "nothing to do: it is posted by itself, and the order's state is restored"
	c.p.Intent, c.p.Tries, c.p.Since, c.p.NextAt = nil, 0, now, now
	err = e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		if err := tx.PutReopening(*n); err != nil {
			return err
		}
		return e.changed(tx, c.p, c.f, "order shut", "", pb.Receipt_OUTCOME_UNSPECIFIED)
	})
	if err == nil {
		e.markReopened(l, true)
		err = e.crash("order shut")
	}
	return true, err
}

// markReopened remembers the lanes whose orders are reopened, or about to be.
func (e *Engine) markReopened(l store.Lane, open bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.reopened == nil {
		e.reopened = map[store.Lane]bool{}
	}
	if e.reopened[l] = true; !open {
		delete(e.reopened, l)
	}
}

func (e *Engine) isReopened(l store.Lane) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.reopened[l]
}

// opened has a shut order reopened before something is posted to it. It reports that the posting can not be made now.
func (e *Engine) opened(ctx context.Context, c *call) (stop bool, err error) {
	l := store.Lane{ERP: c.p.ERP, OrderNo: c.p.OrderNo}
	if e.reopener(l.ERP) == nil {
		return false, nil
	}
	n, err := e.o.Store.Reopening(ctx, l)
	if err != nil || n == nil || n.State != store.ReopeningWanted && n.State != store.ReopeningBegun {
		return false, err
	}
	if n.State == store.ReopeningWanted {
		if stop, err := e.beginReopening(ctx, c, n); stop || err != nil {
			return stop, err
		}
	}
	if n.State != store.ReopeningBegun {
		return false, nil
	}
	e.markReopened(l, true)
	if err := e.reopenerOf(l).Reopen(ctx, e.erpOrder(c)); err != nil {
		return true, e.unreachable(ctx, c, fmt.Errorf("reopen order %q: %w", l.OrderNo, err))
	}
	if err := e.crash("order reopened"); err != nil {
		return false, err
	}
	n.State = store.ReopeningOpen
	return false, e.putReopening(ctx, *n, fmt.Sprintf("at system %q, where it was %s", n.ERP, n.Was))
}

// beginReopening notes the state that is to be restored.
func (e *Engine) beginReopening(ctx context.Context, c *call, n *store.Reopening) (stop bool, err error) {
	lock, err := e.reopenerOf(n.Lane).Shut(ctx, e.erpOrder(c))
	switch {
	case err != nil:
		return true, e.unreachable(ctx, c, fmt.Errorf("read the state of order %q: %w", n.OrderNo, err))
	case lock.Final:
		e.markReopened(n.Lane, false)
		n.State = store.ReopeningRestored // nothing was changed
		if err := e.putReopening(ctx, *n, ""); err != nil {
			return true, err
		}
		park(&c.p, string(connector.Correctable), CodeOrderFinal, fmt.Sprintf("order %q is %s in system %q: it takes nothing any more, and is not reopened", n.OrderNo, lock.State, n.ERP),
			"book it on another order or by hand, then accept this fact with the document's number")
		c.p.Since, c.p.Tries, c.p.Intent = e.o.Now(), 0, nil
		return true, e.save(ctx, c, "rejected", pb.Receipt_OUTCOME_REJECTED)
	case !lock.Shut:
		n.State = store.ReopeningRestored // somebody has opened it: it stays so
		e.markReopened(n.Lane, false)
	default:
		n.State, n.Was = store.ReopeningBegun, lock.State
	}
	if err := e.putReopening(ctx, *n, ""); err != nil {
		return false, err
	}
	return false, e.crash("reopening begun")
}

// restore brings a reopened order back to its state when its lane has nothing more to do, or after an hour. It returns when to
// look again; zero for nothing to restore.
func (e *Engine) restore(ctx context.Context, l store.Lane, w store.LaneWork) (time.Time, error) {
	if !e.isReopened(l) {
		return time.Time{}, nil
	}
	n, err := e.o.Store.Reopening(ctx, l)
	if err != nil {
		return time.Time{}, err
	}
	if n == nil || n.State == store.ReopeningRestored {
		e.markReopened(l, false)
		return time.Time{}, nil
	}
	now := e.o.Now()
	busy := w.Unverified != nil || w.Due != nil && !w.Due.Closing
	switch {
	case w.Doubt != nil: // the lane comes back by itself
		return time.Time{}, nil
	case busy && now.Sub(n.ChangedAt).Abs() < reopenFor:
		return n.ChangedAt.Add(reopenFor), nil
	}
	if n.State != store.ReopeningWanted { // what was only wanted has changed nothing
		if err := e.callRestore(ctx, l, n); err != nil {
			e.o.Logger.Warn("a reopened order could not be brought back to its state", "erp", l.ERP, "order", l.OrderNo, "state", n.Was, "error", err)
			return now.Add(restoreAgain), e.restoreFails(ctx, l, n, err)
		}
	}
	if err := e.crash("order restored"); err != nil {
		return time.Time{}, err
	}
	n.State = store.ReopeningRestored
	if err := e.putReopening(ctx, *n, fmt.Sprintf("at system %q to %s", n.ERP, n.Was)); err != nil {
		return time.Time{}, err
	}
	e.markReopened(l, false)
	return time.Time{}, nil
}

func (e *Engine) callRestore(ctx context.Context, l store.Lane, n *store.Reopening) error {
	order, err := e.o.Store.Order(ctx, l.ERP, l.OrderNo)
	if err != nil {
		return err
	}
	no := order.Order.ERPKey
	if no == "" {
		no = l.OrderNo
	}
	give, err := e.onOrder.take(ctx, l)
	if err != nil {
		return err
	}
	defer give()
	ctx, cancel := e.callContext(ctx)
	defer cancel()
	return e.reopenerOf(l).Restore(ctx, no, n.Was)
}

// restoreFails tells a person when an order has been open for too long.
func (e *Engine) restoreFails(ctx context.Context, l store.Lane, n *store.Reopening, cause error) error {
	if e.o.Now().Sub(n.ChangedAt) < reopenFor {
		return nil
	}
	return e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		return tx.RaiseAlarm(l.ERP, "order_left_open", fmt.Sprintf("order %q was reopened to post late facts and cannot be brought back to %s: %v", l.OrderNo, n.Was, cause),
			"bring it back to its state in the outside system; the hub notices that by itself")
	})
}

func (e *Engine) putReopening(ctx context.Context, n store.Reopening, reason string) error {
	return e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		if step := map[store.ReopeningState]string{store.ReopeningOpen: "reopened", store.ReopeningRestored: "restored"}[n.State]; step != "" && n.Was != "" {
			if err := tx.AddOrderStep(store.OrderStep{OrderNo: n.OrderNo, Step: step, Origin: "hub", Reason: reason}); err != nil {
				return err
			}
		}
		return tx.PutReopening(n)
	})
}

// erpOrder is the order's number as the system has it.
func (e *Engine) erpOrder(c *call) string {
	if k := c.posting.Order.ERPKey; k != "" {
		return k
	}
	return c.p.OrderNo
}

// calmReopener keeps a connector that breaks down from ending the hub.
type calmReopener struct{ connector.Reopener }

func (e *Engine) reopenerOf(l store.Lane) connector.Reopener { return calmReopener{e.reopener(l.ERP)} }

func calm(what string, err *error) {
	if problem := recover(); problem != nil {
		*err = fmt.Errorf("the connector broke down when asked to %s: %v", what, problem)
	}
}

func (r calmReopener) Shut(ctx context.Context, orderNo string) (lock connector.Lock, err error) {
	defer calm("read an order's state", &err)
	return r.Reopener.Shut(ctx, orderNo)
}

func (r calmReopener) Reopen(ctx context.Context, orderNo string) (err error) {
	defer calm("reopen an order", &err)
	return r.Reopener.Reopen(ctx, orderNo)
}

func (r calmReopener) Restore(ctx context.Context, orderNo, state string) (err error) {
	defer calm("restore an order's state", &err)
	return r.Reopener.Restore(ctx, orderNo, state)
}
