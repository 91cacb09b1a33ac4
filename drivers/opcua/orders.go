package opcua

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// orderPace is how patient orders are with a machine.
type orderPace struct {
	// call is how long one call may take.
	call time.Duration
	// settle is how long after a call without an answer its effect may still come: nothing is sent again before.
	settle time.Duration
	// connect is how long a delivery waits for a session.
	connect time.Duration
}

var defaultOrderPace = orderPace{call: callTimeout, settle: 10 * time.Second, connect: 2 * time.Second}

// orders are the machines behind one server that take work orders.
type orders struct {
	env      signal.Env
	config   *OrdersConfig
	lobby    *lobby
	pace     orderPace
	journal  *journal
	machines []machine

	once    sync.Once
	openErr error
}

// machine takes the orders of one work centre.
type machine interface {
	// name is what the configuration calls it, center the pattern of work centres whose orders it takes.
	name() string
	center() string
	deliver(ctx context.Context, o signal.WorkOrder) error
	// probe looks whether the machine is as the configuration says, and changes nothing.
	probe(ctx context.Context, l *live) (found string, err error)
	// follow tells what becomes of the orders until ctx ends.
	follow(ctx context.Context, emit signal.Emit)
}

func newOrders(env signal.Env, c *OrdersConfig, b *lobby) *orders {
	o := &orders{env: env, config: c, lobby: b, pace: defaultOrderPace}
	if j := c.JobControl; j != nil {
		list := j.Receivers
		if len(list) == 0 {
			list = []Receiver{{Node: j.Receiver}}
		}
		for _, r := range list {
			o.machines = append(o.machines, &jobMachine{orders: o, receiver: r, turn: make(chan struct{}, 1), wake: make(chan struct{}, 1)})
		}
	}
	for i := range c.Write {
		o.machines = append(o.machines, &blockMachine{orders: o, block: &c.Write[i], turn: make(chan struct{}, 1)})
	}
	return o
}

// open reads the journal, once.
func (o *orders) open() error {
	o.once.Do(func() {
		j, damaged, err := openJournal(filepath.Join(o.env.Dir, "orders"), time.Now())
		if err != nil {
			o.openErr = err
			return
		}
		o.journal = j
		if len(damaged) > 0 {
			o.env.Logger.Warn("notes on work orders were damaged and set aside; what the machines list counts", "files", strings.Join(damaged, ", "))
		}
	})
	return o.openErr
}

// run follows all machines until ctx ends.
func (o *orders) run(ctx context.Context, emit signal.Emit) {
	if err := o.open(); err != nil {
		o.env.Reporter.Problem("work_orders/journal", &signal.Problem{Code: "orders_journal", Item: o.env.Dir, Reason: err.Error(),
			NextStep: "let the agent's user write the source's folder, and restart the agent"})
		return
	}
	var wg sync.WaitGroup
	for _, m := range o.machines {
		wg.Go(func() { m.follow(ctx, emit) })
	}
	wg.Wait()
}

// orderDriver is a driver whose server takes work orders.
type orderDriver struct {
	*driver
	orders *orders
}

// Run reads the server and follows its machines' orders until ctx ends; see signal.Driver.
func (d *orderDriver) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	var wg sync.WaitGroup
	wg.Go(func() { d.orders.run(ctx, emit) })
	if j := d.orders.config.JobControl; j != nil && j.Events {
		wg.Go(func() { d.orders.hear(ctx, d.driver) })
	}
	err := d.driver.Run(ctx, cursor, emit)
	wg.Wait()
	return err
}

// TakesOrders reports that machines of this server take work orders.
func (d *orderDriver) TakesOrders() bool { return true }

// Deliver hands an order to the machine of its work centre.
func (d *orderDriver) Deliver(ctx context.Context, o signal.WorkOrder) error {
	if err := d.orders.open(); err != nil {
		return err
	}
	m := d.orders.route(o)
	if m == nil {
		return &signal.Refused{Reason: fmt.Sprintf("no machine of source %q takes orders for work centre %q: it has %s; correct the order's work centre, or add it to work_orders",
			d.env.Source, centerOf(o), d.orders.centers())}
	}
	return m.deliver(ctx, o)
}

// Lane names the machine that an order goes to: orders of different machines need not wait for each other.
func (d *orderDriver) Lane(o signal.WorkOrder) string {
	if m := d.orders.route(o); m != nil {
		return m.name()
	}
	return ""
}

// HoldsOrders reports that job control can hold orders; machines that take them from nodes refuse that.
func (d *orderDriver) HoldsOrders() bool { return d.orders.config.JobControl != nil }

// CheckOrder refuses an order that no machine here takes.
func (d *orderDriver) CheckOrder(_ context.Context, o signal.WorkOrder) error {
	if d.orders.route(o) == nil {
		return &signal.Refused{Reason: fmt.Sprintf("no machine of source %q takes orders for work centre %q", d.env.Source, centerOf(o))}
	}
	return nil
}

func (o *orders) route(w signal.WorkOrder) machine {
	center := centerOf(w)
	for _, m := range o.machines {
		if fits(m.center(), center) {
			return m
		}
	}
	return nil
}

func (o *orders) centers() string {
	var list []string
	for _, m := range o.machines {
		list = append(list, fmt.Sprintf("%q", m.center()))
	}
	return strings.Join(list, ", ")
}

// centerOf is where an order is made: its own work centre, or that of its first operation.
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

// session is the present session, as soon as there is one.
func (o *orders) session(ctx context.Context) (*live, error) {
	ctx, cancel := context.WithTimeout(ctx, o.pace.connect)
	defer cancel()
	l, err := o.lobby.wait(ctx)
	if err != nil {
		return nil, fmt.Errorf("the source is not connected to %s", o.env.Source)
	}
	return l, nil
}

// turn lets one conversation with a machine at a time; the returned function ends it.
func turn(ctx context.Context, c chan struct{}) (func(), error) {
	select {
	case c <- struct{}{}:
		return func() { <-c }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// lostCall is a call that got no answer: whether it had an effect is not known.
type lostCall struct {
	method string
	err    error
}

func (e *lostCall) Error() string {
	return fmt.Sprintf("%s: no answer came, whether the machine did it is looked up before anything is sent again: %v", e.method, e.err)
}
func (e *lostCall) Unwrap() error { return e.err }

func isLost(err error) bool {
	var l *lostCall
	return errors.As(err, &l)
}

func refuse(format string, args ...any) error {
	return &signal.Refused{Reason: fmt.Sprintf(format, args...)}
}
