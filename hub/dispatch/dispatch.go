// Package dispatch brings work orders from the outside systems to the plants.
//
// It owns the polling of each system, the decision what a new revision is, and the routes from sites and work centres to
// agents. It promises that an order which a system reported is in the store, with its cursor and what waits for its agent, in
// one transaction; that a plant hears of a change only when the change concerns it, and never of the hub's own effects; and
// that an order which nobody gets is visible with the reason. It never posts anything and never talks to an agent.
package dispatch

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// Route leads orders to an agent. Empty ERP, Site and WorkCenter match everything; a WorkCenter may end in "*". The first
// route that matches counts.
type Route struct {
	ERP        string
	Site       string
	WorkCenter string
	Plant      string
	Agent      string
}

func (r Route) matches(o object.WorkOrder) bool {
	text := func(pattern, value string) bool {
		if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
			return strings.HasPrefix(value, prefix)
		}
		return pattern == "" || pattern == value
	}
	return text(r.ERP, o.ERP) && text(r.Site, o.Site) && text(r.WorkCenter, o.WorkCenter)
}

// Validate names what is wrong with a route.
func (r Route) Validate() error {
	if r.Plant == "" || r.Agent == "" {
		return fmt.Errorf("route for erp %q site %q work centre %q names no plant or no agent", r.ERP, r.Site, r.WorkCenter)
	}
	return nil
}

// Options of New. Store and Connectors are needed; zero fields mean the documented default.
type Options struct {
	Store *store.Store
	// Connectors by name; the name becomes the ERP of the orders.
	Connectors map[string]connector.Connector
	Routes     []Route
	// Poll is the pause between two questions to a system; 5 s. Backoff is the longest pause after failures; 5 min.
	Poll, Backoff time.Duration
	// CallTimeout bounds one call of a connector; 2 min.
	CallTimeout time.Duration
	// Now is the clock by which mappings come into force; time.Now.
	Now    func() time.Time
	Logger *slog.Logger
}

func (o *Options) setDefaults() {
	set := func(d *time.Duration, v time.Duration) {
		if *d <= 0 {
			*d = v
		}
	}
	set(&o.Poll, 5*time.Second)
	set(&o.Backoff, 5*time.Minute)
	set(&o.CallTimeout, 2*time.Minute)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
}

// Dispatcher polls and routes. Make one with New.
type Dispatcher struct {
	o    Options
	wake map[string]chan struct{}
}

// New returns a dispatcher that does nothing until Run runs.
func New(o Options) *Dispatcher {
	o.setDefaults()
	d := &Dispatcher{o: o, wake: map[string]chan struct{}{}}
	for name := range o.Connectors {
		d.wake[name] = make(chan struct{}, 1)
	}
	return d
}

// Wake lets a system be asked at once: it said that something changed. However often it is called, a system that answers is asked
// once a second for it, and one that does not answer once in its pause or half a minute. An unknown name is ignored.
func (d *Dispatcher) Wake(erp string) {
	select {
	case d.wake[erp] <- struct{}{}:
	default:
	}
}

// Run routes the stored orders as the configuration is now and then polls all systems until ctx ends. One system that fails
// stops no other. Its error is one of the store.
func (d *Dispatcher) Run(ctx context.Context) error {
	since := d.o.Now()
	if err := d.reroute(ctx); err != nil && ctx.Err() == nil {
		return fmt.Errorf("route stored orders: %w", err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { d.followMappings(ctx, since) })
	for name, c := range d.o.Connectors {
		wg.Go(func() { d.poll(ctx, name, c) })
	}
	wg.Wait()
	return nil
}

// reroute gives the open orders to whom the routes lead now.
func (d *Dispatcher) reroute(ctx context.Context) error {
	for page := (store.Page{Limit: 500}); ; {
		orders, err := d.o.Store.Orders(ctx, store.OrderFilter{}, page)
		if err != nil || len(orders) == 0 {
			return err
		}
		page.Before = orders[len(orders)-1].ID
		err = d.o.Store.Update(ctx, func(tx *store.Tx) error {
			for _, o := range orders {
				if class(o.Order.State) == "done" || class(o.Order.State) == "cancelled" {
					continue
				}
				now, _, err := tx.Order(o.Order.ERP, o.Order.OrderNo) // may have changed since it was listed
				if err == nil {
					err = d.take(tx, o.Order.ERP, now.Order)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
}

func (d *Dispatcher) poll(ctx context.Context, erp string, c connector.Connector) {
	failures := 0
	u := &unreadable{d: d, erp: erp, c: c}
	for {
		err := u.again(ctx)
		more := false
		if err == nil {
			more, err = d.ask(ctx, erp, c, u)
		}
		pause := d.o.Poll
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			failures++
			limit := min(d.o.Poll<<min(failures, 10), d.o.Backoff)
			pause = d.o.Poll/2 + rand.N(limit)
			d.failed(ctx, erp, err)
		case more:
			failures, pause = 0, 0
		default:
			failures = 0
		}
		rest := min(pause, wakeRest)
		if err != nil {
			rest = min(pause, wakeRestFailed)
		}
		if !d.wait(ctx, erp, pause, rest) {
			return
		}
	}
}

// What a system is left in peace after a question although it says that something changed.
const (
	wakeRest       = time.Second
	wakeRestFailed = 30 * time.Second
)

// wait ends after pause, or after rest when the system says that something changed; false when ctx ends before.
func (d *Dispatcher) wait(ctx context.Context, erp string, pause, rest time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	earliest := time.Now().Add(rest)
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	case <-d.wake[erp]:
	}
	timer.Reset(time.Until(earliest))
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func (d *Dispatcher) failed(ctx context.Context, erp string, err error) {
	d.o.Logger.Warn("cannot read changed work orders", "erp", erp, "error", err)
	if err := d.o.Store.SetCursorError(ctx, erp, err.Error()); err != nil && ctx.Err() == nil {
		d.o.Logger.Error("cannot record that an erp failed", "erp", erp, "error", err)
	}
}

// ask takes one page of changes.
func (d *Dispatcher) ask(ctx context.Context, erp string, c connector.Connector, u *unreadable) (more bool, err error) {
	cursor, err := d.o.Store.Cursor(ctx, erp)
	if err != nil {
		return false, fmt.Errorf("read cursor of %q: %w", erp, err)
	}
	call, cancel := context.WithTimeout(ctx, d.o.CallTimeout)
	defer cancel()
	changes, err := c.ListChanged(call, cursor.Cursor)
	if err != nil {
		return false, err
	}
	err = d.o.Store.Update(ctx, func(tx *store.Tx) error {
		for _, o := range changes.Orders {
			if err := d.take(tx, erp, o); err != nil {
				return fmt.Errorf("take work order %q: %w", o.OrderNo, err)
			}
		}
		return errors.Join(u.note(tx, changes), tx.SetCursor(erp, changes.Cursor))
	})
	if err == nil {
		u.noted(changes)
	}
	return changes.More, err
}

// Fetch reads one order that facts name and the hub has never seen from the systems that have it. It returns nil also when
// none has it, and an error when one could not be asked.
func (d *Dispatcher) Fetch(ctx context.Context, orderNo string) error {
	var errs []error
	for erp, c := range d.o.Connectors {
		call, cancel := context.WithTimeout(ctx, d.o.CallTimeout)
		o, err := c.Get(call, orderNo)
		cancel()
		if errors.Is(err, connector.ErrNotFound) {
			continue
		}
		if err == nil {
			err = d.o.Store.Update(ctx, func(tx *store.Tx) error { return d.take(tx, erp, o) })
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("fetch work order %q from %q: %w", orderNo, erp, err))
		}
	}
	return errors.Join(errs...)
}

// take stores what a system says of an order, and queues it for its agent when that concerns the plant.
func (d *Dispatcher) take(tx *store.Tx, erp string, o object.WorkOrder) error {
	if o.OrderNo == "" {
		return tx.RaiseAlarm(erp, "order_without_number", fmt.Sprintf("the system reported an order of item %q without a number", o.Item), "correct the order in the outside system")
	}
	o.ERP = erp
	old, known, err := tx.Order(erp, o.OrderNo)
	if err != nil {
		return err
	}
	if known {
		if o.State, err = stateApart(tx, erp, old.Order.State, o); err != nil {
			return err
		}
	}
	said, err := wordsOf(tx, o)
	if err != nil {
		return err
	}
	next := store.Order{Order: o, Sent: old.Sent}
	d.route(&next, old, said.site)
	said.fingerprint(&next, old, known)
	moved := known && old.Sent > 0 && (old.Order.Plant != next.Order.Plant || old.Agent != next.Agent)
	revised := !known || moved || !bytes.Equal(old.Content, next.Content)
	if known && class(old.Order.State) != class(o.State) && !revised {
		own, err := ownEffect(tx, o)
		if err != nil {
			return err
		}
		revised = !own
	}
	next.Order.Revision, next.Order.RevisedAt = old.Order.Revision, old.Order.RevisedAt
	if revised {
		next.Order.Revision++
		next.Order.RevisedAt = tx.Now().UTC()
	}
	if moved {
		out, _ := said.order(next.Order)
		if err := d.withdraw(tx, old, out); err != nil {
			return err
		}
		next.Sent = 0
	}
	if !known || old.Order.State != o.State {
		step := store.OrderStep{OrderNo: o.OrderNo, Step: string(o.State), Revision: next.Order.Revision, Origin: "erp " + erp}
		if err := tx.AddOrderStep(step); err != nil {
			return err
		}
	}
	return d.send(tx, old, next, revised, said)
}

// restoredLately is how long after the hub has restored an order's state a change may still be listed that shows it open.
const restoredLately = 10 * time.Minute

// stateApart is an order's state without what the hub itself does with it: an order that it has reopened for late facts is no
// new work for the plant.
func stateApart(tx *store.Tx, erp string, before object.OrderState, o object.WorkOrder) (object.OrderState, error) {
	n, err := tx.Reopening(store.Lane{ERP: erp, OrderNo: o.OrderNo})
	if err != nil || n == nil || n.Was == "" || class(before) != "done" || class(o.State) != "active" {
		return o.State, err
	}
	if n.State == store.ReopeningRestored && tx.Now().Sub(n.ChangedAt).Abs() > restoredLately {
		return o.State, nil
	}
	return before, nil
}

// send stores the order and queues it for its agent: orders that are released or further, and every change of one that was
// sent before.
func (d *Dispatcher) send(tx *store.Tx, old, next store.Order, revised bool, said words) error {
	c := class(next.Order.State)
	if said.sayable(next.Order) && next.Agent != "" && next.Sent < next.Order.Revision && (next.Sent > 0 && revised || next.Sent == 0 && (c == "active" || c == "held")) {
		a, err := tx.AgentByName(next.Order.Plant, next.Agent)
		if err != nil {
			return err
		}
		out, _ := said.order(next.Order)
		if err := tx.DeliverOrder(a.ID, out); err != nil {
			return err
		}
		next.Sent = next.Order.Revision
		step := store.OrderStep{OrderNo: next.Order.OrderNo, Step: "queued", Revision: next.Sent, Origin: "hub", Reason: next.Order.Plant + "/" + next.Agent}
		if err := tx.AddOrderStep(step); err != nil {
			return err
		}
	}
	if !revised && old.Sent == next.Sent && old.Agent == next.Agent && old.Order.Plant == next.Order.Plant && old.Unroutable == next.Unroutable && sameOrder(old.Order, next.Order) {
		return nil // the system said nothing new
	}
	return tx.PutOrder(next, revised)
}

// withdraw cancels an order at the agent that had it.
func (d *Dispatcher) withdraw(tx *store.Tx, old store.Order, o object.WorkOrder) error {
	a, err := tx.AgentByName(old.Order.Plant, old.Agent)
	if err != nil {
		return err
	}
	o.Plant, o.State = old.Order.Plant, object.OrderCancelled
	step := store.OrderStep{OrderNo: o.OrderNo, Step: "withdrawn", Revision: o.Revision, Origin: "hub", Reason: a.Name()}
	if err := tx.AddOrderStep(step); err != nil {
		return err
	}
	return tx.DeliverOrder(a.ID, o)
}

// route finds the agent. An order that was sent and that no route leads to any more stays where it is: a mistake in the
// configuration must not take the work away from a plant.
// site is the order's in our words.
func (d *Dispatcher) route(o *store.Order, old store.Order, site string) {
	asked := o.Order
	asked.Site = site
	for _, r := range d.o.Routes {
		if r.matches(asked) {
			o.Order.Plant, o.Agent, o.Unroutable = r.Plant, r.Agent, ""
			return
		}
	}
	o.Order.Plant, o.Agent = "", ""
	if old.Sent > 0 {
		o.Order.Plant, o.Agent = old.Order.Plant, old.Agent
	}
	o.Unroutable = fmt.Sprintf("no route leads from erp %q, site %q, work centre %q to an agent", o.Order.ERP, o.Order.Site, o.Order.WorkCenter)
}

// fingerprint is the hash of what concerns the plant, the state aside.
func fingerprint(o object.WorkOrder) []byte {
	o.Revision, o.ERPKey, o.Plant, o.RevisedAt, o.State = 0, "", "", time.Time{}, ""
	o.PlannedStart, o.PlannedEnd, o.OverPercent = o.PlannedStart.UTC(), o.PlannedEnd.UTC(), nil
	o.OverUnlimited, o.LastOperation = false, ""
	return hash(o)
}

func hash(o object.WorkOrder) []byte {
	text, err := json.Marshal(o)
	if err != nil {
		panic(err) // a struct of texts, numbers and times
	}
	sum := sha256.Sum256(text)
	return sum[:]
}

func sameOrder(a, b object.WorkOrder) bool {
	a.RevisedAt, b.RevisedAt = time.Time{}, time.Time{}
	a.PlannedStart, a.PlannedEnd, b.PlannedStart, b.PlannedEnd = a.PlannedStart.UTC(), a.PlannedEnd.UTC(), b.PlannedStart.UTC(), b.PlannedEnd.UTC()
	return bytes.Equal(hash(a), hash(b))
}

// class is what a state means to the plant.
func class(s object.OrderState) string {
	switch s {
	case object.OrderReleased, object.OrderInProgress:
		return "active"
	case object.OrderHeld:
		return "held"
	case object.OrderCancelled:
		return "cancelled"
	case object.OrderCompleted, object.OrderClosed:
		return "done"
	}
	return "planned"
}

// ownEffect reports whether the plant itself brought the order into its state.
func ownEffect(tx *store.Tx, o object.WorkOrder) (bool, error) {
	steps, err := tx.OrderSteps(o.OrderNo)
	if err != nil {
		return false, err
	}
	last := object.FloorState("")
	ever := map[object.FloorState]bool{}
	for _, s := range steps {
		if s.Step == "queued" {
			delete(ever, object.FloorCancelled) // an order that went down again can be cancelled again
		}
		if s.FactID == 0 || strings.HasPrefix(s.Step, "posted ") {
			continue
		}
		if over := s.Step == string(object.FloorFinished) || s.Step == string(object.FloorCancelled); over && s.Operation != "" {
			continue // the order goes on
		}
		ever[object.FloorState(s.Step)] = true
		switch f := object.FloorState(s.Step); f {
		case object.FloorStarted, object.FloorHeld, object.FloorFinished, object.FloorCancelled:
			last = f
		}
	}
	switch class(o.State) {
	case "active":
		return last == object.FloorStarted, nil
	case "held":
		return last == object.FloorHeld, nil
	case "done":
		return ever[object.FloorFinished], nil
	case "cancelled":
		return ever[object.FloorCancelled], nil
	}
	return false, nil
}
