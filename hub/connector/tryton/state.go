package tryton

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// reached reports whether an order in state is where the shop floor's state wants it, or beyond.
func reached(floor object.FloorState, state string) bool {
	switch floor {
	case object.FloorStarted:
		return state == stateRunning || state == stateDone
	case object.FloorFinished:
		return state == stateDone
	case object.FloorCancelled:
		return state == stateCancelled
	}
	return false
}

// prepareState answers early where nothing is to be done or nothing can be.
func (c *Connector) prepareState(ctx context.Context, p connector.Posting, o order) (*connector.Outcome, error) {
	x := p.Fact.OrderState
	floor := x.State
	there, err := c.reachedState(ctx, p, o)
	if errors.Is(err, errNoWork) {
		return reject(connector.Fatal, "unknown_operation", fmt.Sprintf("order %q has no operation %q in Tryton", o.Number, x.Operation),
			"Correct the operation at the source, or add the work to the order in Tryton and replay."), nil
	}
	if err != nil {
		return nil, err
	}
	if there {
		out := atState(o)
		return &out, nil
	}
	switch {
	case floor != object.FloorStarted && floor != object.FloorFinished && floor != object.FloorCancelled:
		return reject(connector.Fatal, "unsupported_state", fmt.Sprintf("Tryton holds nothing like %q of order %q", floor, o.Number),
			"Take this state out of the connector's policy."), nil
	case o.State == stateCancelled, o.State == stateDone:
		return reject(connector.Correctable, "order_closed", fmt.Sprintf("order %q is %s in Tryton and cannot become %s", o.Number, o.State, floor),
			"Find out why the shop floor still works on it; copy the order in Tryton if it must go on."), nil
	case floor != object.FloorCancelled && (o.State == stateRequest || o.State == stateDraft):
		return reject(connector.Correctable, "order_not_released", fmt.Sprintf("order %q is only a draft in Tryton", o.Number),
			"Release the order in Tryton (Wait) and replay."), nil
	}
	return nil, nil
}

func atState(o order) connector.Outcome {
	return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: o.Number, ID: "production," + strconv.Itoa(o.ID)}}
}

// errPosted says that an order cannot be cancelled any more.
var errPosted = errors.New("material or pieces have already been posted to it")

func (c *Connector) postState(ctx context.Context, p connector.Posting, in intent) connector.Outcome {
	o, err := c.reachState(ctx, in.Order, p)
	switch {
	case err == nil:
		return atState(o)
	case errors.Is(err, errPosted):
		return *reject(connector.Correctable, "order_has_postings", fmt.Sprintf("order %q cannot be cancelled: %s", p.Fact.OrderNo(), errPosted),
			"Return the material and correct the pieces, or finish the order instead.")
	}
	return c.beforeEffect(p, err)
}

// lookUpState: every step towards a state may be repeated, and each but the cancelling of planned moves is tied to the order
// as it was read. So a state that is not reached can be posted again once late requests have been outrun.
func (c *Connector) lookUpState(ctx context.Context, p connector.Posting, in intent) (connector.Finding, error) {
	o, err := c.read(ctx, in.Order)
	if err != nil {
		return connector.Finding{}, err
	}
	there, err := c.reachedState(ctx, p, o)
	if err != nil {
		return connector.Finding{}, err
	}
	if there {
		return connector.Finding{Presence: connector.Found, Document: atState(o).Document}, nil
	}
	return c.outrun(ctx, o)
}

// start brings an order to running without letting Tryton consume anything.
func (c *Connector) start(ctx context.Context, id int) error {
	_, err := c.reach(ctx, id, object.FloorStarted)
	return err
}

// reach takes an order step by step to where the floor's state wants it, reading it back after each: Tryton silently ignores
// a step that does not fit.
func (c *Connector) reach(ctx context.Context, id int, floor object.FloorState) (order, error) {
	for n := 0; ; n++ {
		o, err := c.readWhole(ctx, id)
		if err != nil || reached(floor, o.State) {
			return o.order, err
		}
		if n >= 8+stepsOfWork*len(o.Works) {
			break
		}
		err = c.step(ctx, o, floor)
		if err != nil && kindOf(err) != outdated {
			return o.order, err
		}
	}
	return order{}, &callError{kind: outdated, method: "production", text: "the order is changed again and again"}
}

// step makes the next transition towards a floor state. A draft move left on the order would be done by Tryton's run (inputs)
// or done (outputs) without anybody having reported it, so these are cancelled first; they stay readable. What could refuse
// the transition is asked before, so that a refusal leaves the order as it was.
func (c *Connector) step(ctx context.Context, o whole, floor object.FloorState) error {
	transition := func(name string, cancelled []int) error {
		if len(cancelled) > 0 {
			if err := c.client.call(ctx, nil, nil, "stock.move.cancel", cancelled); err != nil {
				return err
			}
		}
		return c.client.call(ctx, nil, asRead(o.ID, o.Timestamp), "production."+name, []int{o.ID})
	}
	if floor == object.FloorCancelled {
		switch {
		case o.posted():
			return errPosted
		case o.State == stateRunning:
			return transition("wait", nil)
		}
		return transition("cancel", nil)
	}
	switch o.State {
	case stateWaiting:
		return transition("assign_try", open(o.Consumed))
	case stateAssigned:
		return transition("run", open(o.Consumed))
	case stateRunning:
		if o.openWorks() > 0 {
			return c.finishWorks(ctx, o.order)
		}
		return transition("done", open(o.Made))
	}
	return &callError{kind: refused, method: "production", text: fmt.Sprintf("the order is %s", o.State)}
}
