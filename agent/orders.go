package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
)

// receiver is a source that takes work orders.
type receiver struct {
	name string
	to   signal.OrderReceiver
}

// orders are the ways of work orders to their receivers.
type orders struct {
	routes    []OrderRoute
	receivers []receiver
	check     orderCheck

	// told is the newest revision of each open work order that the rules know. Before Run starts its goroutines resume has
	// it, then runOrders alone.
	told map[string]int64

	mu sync.Mutex
	// lanes by their place. busy are the orders that some lane is passing on.
	lanes map[string]*orderLane
	busy  map[string]bool
}

func newOrders(cfg Config) *orders {
	o := &orders{routes: cfg.Orders.Receivers, check: newOrderCheck(cfg), told: map[string]int64{}, lanes: map[string]*orderLane{}, busy: map[string]bool{}}
	if len(o.routes) == 0 {
		o.routes = []OrderRoute{{Source: cfg.Orders.Receiver}} // "" is the only one that there is
	}
	return o
}

// receiver returns a source by its name; the only one for "".
func (o *orders) receiver(name string) (receiver, bool) {
	for _, r := range o.receivers {
		if r.name == name || name == "" {
			return r, true
		}
	}
	return receiver{}, false
}

// centerOf is where an order is made: its own work centre, or that of its first operation that has one.
func centerOf(o signal.WorkOrder) string {
	if o.WorkCenter == "" {
		for _, op := range o.Operations {
			if op.WorkCenter != "" {
				return op.WorkCenter
			}
		}
	}
	return o.WorkCenter
}

// laneTo is the lane to the receiver for an order's work centre; nil when there is none.
func (o *orders) laneTo(w signal.WorkOrder) *orderLane {
	for _, route := range o.routes {
		if !fitsCenter(route.WorkCenter, centerOf(w)) {
			continue
		}
		if r, ok := o.receiver(route.Source); ok {
			return o.lane(r, w)
		}
	}
	return nil
}

func (o *orders) lane(r receiver, w signal.WorkOrder) *orderLane {
	name := ""
	if by, ok := r.to.(signal.LaneReceiver); ok {
		name = by.Lane(w)
	}
	place, key := r.name+"\n"+name, "work_orders"
	if name != "" {
		key += " " + name
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	l := o.lanes[place]
	if l == nil {
		l = &orderLane{receiver: r, place: place, key: key, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1), failed: map[string]*failure{}}
		o.lanes[place] = l
	}
	return l
}

// at is the lane to a place that the inbox remembers; nil when its source takes no orders any more.
func (o *orders) at(place string, w signal.WorkOrder) *orderLane {
	source, _, _ := strings.Cut(place, "\n")
	if r, ok := o.receiver(source); ok && source != "" {
		return o.lane(r, w)
	}
	return nil
}

// claim lets one lane at a time pass an order on.
func (o *orders) claim(no string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.busy[no] {
		return false
	}
	o.busy[no] = true
	return true
}

func (o *orders) release(no string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.busy, no)
}

// runOrders tells the rules of every work order that came down and hands it to its receiver, until ctx ends. A refused
// revision is noted and its neighbours go on; any other failure is tried again.
func (a *Agent) runOrders(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	running := map[*orderLane]bool{}
	again := newBackoff()
	defer again.timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.inbox.Changed():
		case <-again.timer.C:
		}
		// The rules learn of an order before the receiver does, so that the first answer already finds its item and unit.
		err := a.tellRules(ctx)
		if err == nil {
			var work []*orderLane
			work, err = a.sortOrders(ctx)
			for _, l := range work {
				if !running[l] {
					running[l] = true
					wg.Go(func() { a.runLane(ctx, l) })
				}
				select {
				case l.wake <- struct{}{}:
				default:
				}
			}
		}
		if err != nil && ctx.Err() == nil {
			a.log.Warn("pass work orders on", "err", err, "again_in", again.failed())
			continue
		}
		again.succeeded()
	}
}

// backoff is the pause until something is tried again: jittered and ever longer after failures, a minute after success.
type backoff struct {
	timer *time.Timer
	wait  time.Duration
}

func newBackoff() *backoff { return &backoff{timer: time.NewTimer(0)} }

func (b *backoff) failed() time.Duration {
	b.wait = min(max(2*b.wait, time.Second), 30*time.Second)
	b.timer.Reset(b.wait/2 + rand.N(b.wait/2+1))
	return b.wait
}

func (b *backoff) succeeded() {
	b.wait = 0
	b.timer.Reset(time.Minute)
}

// tellRules lets the rules know of every open work order's newest revision, once.
func (a *Agent) tellRules(ctx context.Context) error {
	open := a.inbox.Open()
	told := make(map[string]int64, len(open))
	var news []signal.WorkOrder
	for _, o := range open {
		told[o.OrderNo] = o.Revision
		if last, ok := a.orders.told[o.OrderNo]; !ok || last != o.Revision {
			news = append(news, o)
		}
	}
	if len(news) > 0 {
		err := a.pipe.business.Update(ctx, func(tx *buffer.Tx) error {
			for _, o := range news {
				a.pipe.dispatched(tx, a.now(), o)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("note work orders for the rules: %w", err)
		}
	}
	a.orders.told = told
	return nil
}

// laneOf is the lane that has to do with an order next. A cancellation goes to whoever has the order; so does what belongs to
// a receiver that is told to hold.
func (a *Agent) laneOf(o signal.WorkOrder) *orderLane {
	if o.Cancelled || o.Held {
		place, center := a.inbox.Place(o.OrderNo)
		if l := a.orders.at(place, as(o, center)); l != nil {
			return l
		}
	}
	return a.orders.laneTo(o)
}

// as is an order as it was handed over for a work centre.
func as(o signal.WorkOrder, center string) signal.WorkOrder {
	if center != "" && center != centerOf(o) {
		o.WorkCenter, o.Operations = center, nil
	}
	return o
}

// sortOrders finds the lanes that have something to do, and looks after the orders that have none.
func (a *Agent) sortOrders(ctx context.Context) ([]*orderLane, error) {
	var work []*orderLane
	seen := map[*orderLane]bool{}
	var lost, warnings []string
	list := a.waiting()
	a.orders.check.forget(list)
	for _, o := range list {
		warning, refusal := a.orders.check.look(o)
		if warning != "" {
			warnings = append(warnings, warning)
		}
		l := a.laneOf(o)
		switch {
		case l == nil && refusal != "":
			if err := a.refuse(ctx, a.orderSource(nil), o, refusal); err != nil {
				return nil, err
			}
			continue
		case l == nil && len(a.orders.receivers) > 0:
			lost = append(lost, fmt.Sprintf("%q (work centre %q)", o.OrderNo, centerOf(o)))
			continue
		case l == nil:
			continue // no source takes orders: they are shown, and the rules know them
		}
		if !seen[l] {
			seen[l] = true
			work = append(work, l)
		}
	}
	a.showOrders("work_orders_lost", "no_receiver", lost, "no receiver takes work order %s", "add its work centre to work_orders.receivers, or correct it in the ERP")
	a.showOrders("work_orders_check", "order_doubtful", warnings, "%s", "correct the order in the ERP, or add what it names to the rules or to work_orders.check")
	return work, nil
}

// showOrders shows, or takes from, the page what is wrong with some orders, at the first receiver.
func (a *Agent) showOrders(key, code string, list []string, format, step string) {
	p := status.Problem{Key: key}
	if len(list) > 0 {
		p.Code, p.Item, p.NextStep = code, "work orders", step
		p.Reason = fmt.Sprintf(format, list[0])
		if len(list) > 1 {
			p.Reason += fmt.Sprintf(", and %d more", len(list)-1)
		}
	}
	a.board.SetProblem(a.orderSource(nil), p)
}

// orderSource is the source under which something about orders is told.
func (a *Agent) orderSource(l *orderLane) string {
	switch {
	case l != nil:
		return l.receiver.name
	case len(a.orders.receivers) > 0:
		return a.orders.receivers[0].name
	case len(a.sources) > 0:
		return a.sources[0].name
	}
	return "work_orders"
}

// waiting are the orders that somebody has yet to be offered: cancellations first, so that they overtake what waits, then by
// arrival.
func (a *Agent) waiting() []signal.WorkOrder {
	list := a.inbox.Pending()
	for _, o := range a.inbox.Holding() {
		if l := a.laneOf(o); l != nil {
			if h, ok := l.receiver.to.(signal.OrderHolder); ok && h.HoldsOrders() {
				list = append(list, o)
			}
		}
	}
	slices.SortStableFunc(list, func(x, y signal.WorkOrder) int {
		rank := func(o signal.WorkOrder) int {
			switch {
			case o.Cancelled:
				return 0
			case o.Held:
				return 1
			}
			return 2
		}
		return cmp.Compare(rank(x), rank(y))
	})
	return list
}

// passOrder offers one revision to its receiver and notes what it says.
func (a *Agent) passOrder(ctx context.Context, l *orderLane, o signal.WorkOrder) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err := a.checkOrder(ctx, l, o)
	place, center := a.inbox.Place(o.OrderNo)
	if err == nil && (o.Cancelled || o.Held) {
		o = as(o, center)
	} else if err == nil && place != "" && place != l.place {
		err = a.takeBack(ctx, place, as(o, center))
	}
	if err == nil {
		if err := a.inbox.MarkTried(o.OrderNo, o.Revision, l.place, centerOf(o)); err != nil {
			return err
		}
		err = l.deliver(ctx, o)
	}
	var refused *signal.Refused
	switch {
	case errors.As(err, &refused):
		return a.refuse(ctx, a.orderSource(l), o, refused.Reason)
	case err != nil:
		return fmt.Errorf("hand work order %q revision %d to source %q: %w", o.OrderNo, o.Revision, l.receiver.name, err)
	}
	return a.inbox.MarkDelivered(o.OrderNo, o.Revision)
}

// takeBack cancels an order where it was before it goes to another machine: no two make it.
func (a *Agent) takeBack(ctx context.Context, place string, o signal.WorkOrder) error {
	from := a.orders.at(place, o)
	if from == nil {
		return nil // that receiver is gone from the configuration
	}
	o.Cancelled = true
	err := from.deliver(ctx, o)
	var refused *signal.Refused
	if errors.As(err, &refused) {
		return &signal.Refused{Reason: fmt.Sprintf("it is at work centre %q, which does not give it back: %s", centerOf(o), refused.Reason)}
	}
	if err != nil {
		return fmt.Errorf("take it back from work centre %q: %w", centerOf(o), err)
	}
	return nil
}

// refuse tells the hub, as a fact, that a revision will not be made, and notes it. The fact comes first: the note follows from
// it after a crash, too.
func (a *Agent) refuse(ctx context.Context, source string, o signal.WorkOrder, reason string) error {
	now, revision := a.now(), strconv.FormatInt(o.Revision, 10)
	err := a.pipe.emit(ctx, signal.Batch{Source: source, Signals: []signal.Signal{{
		Tag: signal.AnswerTag, Position: strings.Join([]string{"refused", o.OrderNo, revision}, "|"), SourceTime: now, ReceivedTime: now, Status: "Good",
		Value: map[string]any{
			"order_no": o.OrderNo, "revision": signal.Number(revision), "status": signal.AnswerRejected, "reason": reason, "changed_at": now,
		},
	}}})
	if err != nil {
		return fmt.Errorf("report that work order %q was refused (%s): %w", o.OrderNo, reason, err)
	}
	return a.inbox.MarkRefused(o.OrderNo, o.Revision, reason)
}

// deliver waits for the lane's turn and turns a panic of the driver into an error: one order must not take the agent along.
func (l *orderLane) deliver(ctx context.Context, o signal.WorkOrder) (err error) {
	select {
	case l.turn <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() {
		<-l.turn
		if p := recover(); p != nil {
			err = fmt.Errorf("the driver panicked: %v", p)
		}
	}()
	return l.receiver.to.Deliver(ctx, o)
}
