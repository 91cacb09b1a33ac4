package tryton

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// work is an operation of an order's routing.
type work struct {
	ID       int    `json:"id"`
	Sequence *int   `json:"sequence"`
	State    string `json:"state"`
	Cycles   []withState
}

// operation is how the order names it, and how facts do.
func (w work) operation() string {
	if w.Sequence != nil {
		return strconv.Itoa(*w.Sequence)
	}
	return strconv.Itoa(w.ID)
}

// stepsOfWork is how many steps a work takes from nothing to finished: a cycle is made, run, done.
const stepsOfWork = 3

// The states of a work that matter; before them it is "request", "draft" or "waiting".
const (
	workRunning  = "running"
	workFinished = "finished"
	workDone     = "done"
)

// reachedWork reports whether a work is where the shop floor's state wants it, or beyond.
func reachedWork(floor object.FloorState, state string) bool {
	return state == workFinished || state == workDone || floor == object.FloorStarted && state == workRunning
}

// works reads the works of an order with their cycles, in the order of the routing.
func (c *Connector) works(ctx context.Context, order int) ([]work, error) {
	has, err := c.master.keepsWorks(ctx)
	if err != nil || !has {
		return nil, err
	}
	var works []work
	err = c.client.call(ctx, &works, nil, "production.work.search_read", []any{[]any{"production", "=", order}}, 0, nil,
		[][]string{{"sequence", "ASC"}, {"id", "ASC"}}, []string{"sequence", "state"})
	if err != nil || len(works) == 0 {
		return nil, err
	}
	var cycles []struct {
		withState
		Work int `json:"work"`
	}
	err = c.client.call(ctx, &cycles, nil, "production.work.cycle.search_read", []any{[]any{"work.production", "=", order}}, 0, nil,
		[][]string{{"id", "ASC"}}, []string{"work", "state"})
	if err != nil {
		return nil, err
	}
	for _, y := range cycles {
		for i := range works {
			if works[i].ID == y.Work {
				works[i].Cycles = append(works[i].Cycles, y.withState)
			}
		}
	}
	return works, nil
}

// workOf returns the work that a state names. Nil where the state is of the whole order: it names no operation, or the order has no
// works in Tryton, so that the operation is only told along. The finish of an operation alone is never the order's.
func (c *Connector) workOf(ctx context.Context, p connector.Posting, order int) (*work, error) {
	x := p.Fact.OrderState
	if x.Operation == "" {
		return nil, nil
	}
	works, err := c.works(ctx, order)
	if err != nil || len(works) == 0 && (p.ClosesOrder || x.State != object.FloorFinished) {
		return nil, err
	}
	i := slices.IndexFunc(works, func(w work) bool { return object.SameOperation(w.operation(), x.Operation) })
	if i < 0 {
		return nil, errNoWork
	}
	return &works[i], nil
}

var errNoWork = errors.New("the order has no such operation in Tryton")

// ofWork reports whether a state is one that a work can have.
func ofWork(s object.FloorState) bool { return s == object.FloorStarted || s == object.FloorFinished }

// lastOperation refuses good pieces of an operation after which others come: they are not in stock yet, and with the last
// operation's they would be there twice. Tryton itself keeps no quantities of operations.
func (c *Connector) lastOperation(ctx context.Context, x *object.Confirmation, o order) (*connector.Outcome, error) {
	if x.Operation == "" || !x.Yield.IsPositive() {
		return nil, nil
	}
	works, err := c.works(ctx, o.ID)
	if err != nil || len(works) == 0 {
		return nil, err
	}
	last := works[len(works)-1].operation()
	if !slices.ContainsFunc(works, func(w work) bool { return w.operation() == x.Operation }) || x.Operation == last {
		return nil, nil
	}
	return reject(connector.Correctable, "not_the_last_operation", fmt.Sprintf("order %q goes on after operation %q: its pieces come into stock with operation %q", o.Number, x.Operation, last),
		"Settle this fact, and let the rule of the source confirm the last operation only."), nil
}

// reachedState reports whether an order, and the work that a state names, are where the state wants them.
func (c *Connector) reachedState(ctx context.Context, p connector.Posting, o order) (bool, error) {
	x := p.Fact.OrderState
	w, err := c.workOf(ctx, p, o.ID)
	if err != nil {
		return false, err
	}
	if w == nil || !ofWork(x.State) {
		return reached(x.State, o.State), nil
	}
	floor := object.FloorStarted
	if p.ClosesOrder {
		floor = x.State
	}
	return reachedWork(x.State, w.State) && reached(floor, o.State), nil
}

// reachState takes an order, and the work that the state names, step by step to where the floor's state wants it.
func (c *Connector) reachState(ctx context.Context, id int, p connector.Posting) (order, error) {
	x := p.Fact.OrderState
	w, err := c.workOf(ctx, p, id)
	if err != nil {
		return order{}, err
	}
	if w == nil || !ofWork(x.State) {
		return c.reach(ctx, id, x.State)
	}
	for range 8 {
		o, err := c.reach(ctx, id, object.FloorStarted)
		if err != nil {
			return o, err
		}
		w, err := c.workOf(ctx, p, id)
		switch {
		case err != nil:
			return o, err
		case !reachedWork(x.State, w.State):
			if err := c.workOn(ctx, o, *w, x.State, nil); err != nil && kindOf(err) != outdated {
				return o, err
			}
		case p.ClosesOrder:
			return c.reach(ctx, id, x.State)
		default:
			return o, nil
		}
	}
	return order{}, &callError{kind: outdated, method: "production.work", text: "the order is changed again and again"}
}

// workOn makes the next step of a work: a cycle is made, is run, is done. Only the making could double; it is tied to the order
// as it was read. A duration is given for a cycle that nobody ran; otherwise Tryton takes the time between run and done.
func (c *Connector) workOn(ctx context.Context, o order, w work, floor object.FloorState, duration any) error {
	var waiting, running []int
	for _, y := range w.Cycles {
		switch y.State {
		case "draft":
			waiting = append(waiting, y.ID)
		case "running":
			running = append(running, y.ID)
		}
	}
	switch {
	case len(waiting) > 0:
		return c.client.call(ctx, nil, nil, "production.work.cycle.run", waiting)
	case len(running) > 0 && floor == object.FloorFinished:
		return c.client.call(ctx, nil, nil, "production.work.cycle.do", running)
	}
	cycle := map[string]any{}
	if duration != nil {
		cycle["duration"] = duration
	}
	values := map[string]any{"works": []any{[]any{"write", []int{w.ID}, map[string]any{"cycles": []any{[]any{"create", []any{cycle}}}}}}}
	return c.client.call(ctx, nil, asRead(o.ID, o.Timestamp), "production.write", []int{o.ID}, values)
}

// noTime is a duration of nothing.
var noTime = map[string]any{"__class__": "timedelta", "seconds": json.Number("0")}

// finishWorks makes the next step towards an order without open works: those that the floor started are finished with it. Where
// it said nothing of one, nothing is done.
func (c *Connector) finishWorks(ctx context.Context, o order) error {
	works, err := c.works(ctx, o.ID)
	if err != nil {
		return err
	}
	untold := 0
	works = slices.DeleteFunc(works, func(w work) bool { return reachedWork(object.FloorFinished, w.State) })
	for _, w := range works {
		if len(w.Cycles) == 0 {
			untold++
		}
	}
	if untold > 0 && !c.config.FinishWorks {
		return &callError{kind: refused, method: "production.done", text: fmt.Sprintf("To complete production %q, %d works must be finished.", o.Number, untold)}
	}
	if len(works) == 0 {
		return nil
	}
	return c.workOn(ctx, o, works[0], object.FloorFinished, noTime)
}
