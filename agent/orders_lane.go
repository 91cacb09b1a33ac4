package agent

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
)

// orderLane is the orders of one receiver, or of one machine behind it: they go one after the other, and no other lane waits.
type orderLane struct {
	receiver receiver
	place    string // of the receiver and the machine, for the inbox
	key      string // of its problem on the page
	turn     chan struct{}
	wake     chan struct{}
	// failed are the revisions that could not be delivered and when they are tried again; runLane's own.
	failed map[string]*failure
}

// failure is a delivery that is tried again.
type failure struct {
	revision int64
	err      error
	wait     time.Duration
	due      time.Time
}

// runLane passes the orders of one lane on until ctx ends.
func (a *Agent) runLane(ctx context.Context, l *orderLane) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.wake:
		case <-timer.C:
		}
		a.passLane(ctx, l)
		next := time.Minute
		for _, f := range l.failed {
			next = min(next, time.Until(f.due))
		}
		timer.Reset(max(next, 0))
	}
}

// passLane brings every waiting revision of a lane one step further, each once, but for those whose time to be tried again has
// not come. What comes down meanwhile is seen: a cancellation does not wait for the orders before it.
func (a *Agent) passLane(ctx context.Context, l *orderLane) {
	tried := map[string]int64{}
	var list []signal.WorkOrder
	news := a.inbox.News() - 1
	for {
		if n := a.inbox.News(); n != news {
			news, list = n, a.waiting()
			a.forgetFailures(l, list)
		}
		i := slices.IndexFunc(list, func(o signal.WorkOrder) bool {
			last, done := tried[o.OrderNo]
			return !(done && last == o.Revision) && a.laneOf(o) == l && l.isDue(o)
		})
		if i < 0 {
			break
		}
		o := list[i]
		list = list[i+1:]
		tried[o.OrderNo] = o.Revision
		err := errBusy
		if a.orders.claim(o.OrderNo) {
			err = a.passOrder(ctx, l, o)
			a.orders.release(o.OrderNo)
		}
		if ctx.Err() != nil {
			return
		}
		l.note(o, err)
		if err != nil && !errors.Is(err, errBusy) {
			a.log.Warn("deliver work order", "source", l.receiver.name, "err", err, "again_in", l.failed[o.OrderNo].wait)
		}
		a.showUndelivered(l) // the others may take long
	}
	a.showUndelivered(l)
}

// errBusy says that another lane passes an order on: one that goes from one machine to another.
var errBusy = errors.New("another machine is being told of the order first")

// isDue reports whether a revision may be tried now.
func (l *orderLane) isDue(o signal.WorkOrder) bool {
	f := l.failed[o.OrderNo]
	return f == nil || f.revision != o.Revision || !time.Now().Before(f.due)
}

// note remembers what became of a try. The pause before the next one is jittered and ever longer.
func (l *orderLane) note(o signal.WorkOrder, err error) {
	if err == nil {
		delete(l.failed, o.OrderNo)
		return
	}
	f := l.failed[o.OrderNo]
	if f == nil || f.revision != o.Revision {
		f = &failure{revision: o.Revision}
		l.failed[o.OrderNo] = f
	}
	f.err, f.wait = err, min(max(2*f.wait, time.Second), 30*time.Second)
	f.due = time.Now().Add(f.wait/2 + rand.N(f.wait/2+1))
}

// forgetFailures drops what is remembered of orders that this lane has nothing more to do with.
func (a *Agent) forgetFailures(l *orderLane, waiting []signal.WorkOrder) {
	still := map[string]bool{}
	for _, o := range waiting {
		if l.failed[o.OrderNo] != nil {
			still[o.OrderNo] = a.laneOf(o) == l
		}
	}
	for no := range l.failed {
		if !still[no] {
			delete(l.failed, no)
		}
	}
}

// showUndelivered tells on the page which work orders the receiver has not got, until it has.
func (a *Agent) showUndelivered(l *orderLane) {
	p := status.Problem{Key: l.key}
	if len(l.failed) > 0 {
		first := slices.Min(slices.Collect(maps.Keys(l.failed)))
		p.Code, p.Item, p.Reason = "not_delivered", "work orders", l.failed[first].err.Error()
		if n := len(l.failed); n > 1 {
			p.Reason = fmt.Sprintf("%d are not delivered, the first: %s", n, p.Reason)
		}
		p.NextStep = "look at the receiver; delivery is tried again by itself"
	}
	a.board.SetProblem(l.receiver.name, p)
}
