package dispatch

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/store"
)

// codeUnreadable is the alarm of an order that a system has and its connector cannot put into our words: a unit that nobody has
// mapped, for instance. The order reaches no plant until that is mended.
const codeUnreadable = "order_unreadable"

// askAgain is how often such orders are read again: what was wrong is mended in the system, or in the hub's configuration, after
// which nothing need change in the order.
const askAgain = 10 * time.Minute

// unreadable are the orders of one system that could not be read. One goroutine uses it.
type unreadable struct {
	d   *Dispatcher
	erp string
	c   connector.Connector

	open map[string]string // reasons by order number; nil before the first look
	due  time.Time
}

// name is the order's number; without one, its key in the system behind a mark, and it cannot be asked for.
func name(x connector.Unreadable) string {
	if x.OrderNo == "" {
		return withoutNumber + x.ERPKey
	}
	return x.OrderNo
}

const withoutNumber = "#"

func (u *unreadable) subject(orderNo string) string { return u.erp + "/" + orderNo }

// note raises an alarm for each order that cannot be read now, and closes those of orders that can. It changes nothing in u.
func (u *unreadable) note(tx *store.Tx, changes connector.Changes) error {
	for _, x := range changes.Unreadable {
		no := name(x)
		if old, is := u.open[no]; is && old == x.Reason {
			continue // told already; a connector lists it again as long as it stands in its overlap
		}
		if err := u.raise(tx, no, x.Reason); err != nil {
			return err
		}
	}
	for _, o := range changes.Orders {
		if _, was := u.open[o.OrderNo]; !was {
			continue
		}
		if err := tx.SettleAlarm(u.subject(o.OrderNo), codeUnreadable, "it can be read now"); err != nil {
			return err
		}
	}
	return nil
}

func (u *unreadable) raise(tx *store.Tx, no, reason string) error {
	return tx.RaiseAlarm(u.subject(no), codeUnreadable, fmt.Sprintf("work order %q of %q cannot be read and goes to no plant: %s", no, u.erp, reason),
		fmt.Sprintf("mend it in the system or in the hub's configuration; it is read again every %s, when it changes and when the hub starts", askAgain))
}

// noted remembers what note has stored.
func (u *unreadable) noted(changes connector.Changes) {
	for _, o := range changes.Orders {
		delete(u.open, o.OrderNo)
	}
	for _, x := range changes.Unreadable {
		u.open[name(x)] = x.Reason
	}
}

// again reads those orders anew, at the start and then from time to time. One that still cannot be read, or that the system does
// not give now, stops nothing.
func (u *unreadable) again(ctx context.Context) error {
	if u.open != nil && time.Now().Before(u.due) {
		return nil
	}
	told, err := u.d.o.Store.OpenAlarms(ctx, codeUnreadable, u.subject(""))
	if err != nil {
		return err
	}
	u.open, u.due = map[string]string{}, time.Now().Add(askAgain)
	for subject := range told {
		no := strings.TrimPrefix(subject, u.subject(""))
		u.open[no] = "" // its reason is told anew when the system lists it
		if strings.HasPrefix(no, withoutNumber) {
			continue
		}
		if err := u.readAgain(ctx, no); err != nil {
			return err
		}
	}
	return nil
}

func (u *unreadable) readAgain(ctx context.Context, no string) error {
	call, cancel := context.WithTimeout(ctx, u.d.o.CallTimeout)
	defer cancel()
	o, err := u.c.Get(call, no)
	gone := errors.Is(err, connector.ErrNotFound)
	if err != nil && !gone {
		return ctx.Err()
	}
	err = u.d.o.Store.Update(ctx, func(tx *store.Tx) error {
		if gone {
			return tx.SettleAlarm(u.subject(no), codeUnreadable, "the system does not have the order any more")
		}
		return errors.Join(u.d.take(tx, u.erp, o), tx.SettleAlarm(u.subject(no), codeUnreadable, "it can be read now"))
	})
	if err == nil {
		delete(u.open, no)
	}
	return err
}
