package odoo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// reached reports that an order is where a state of the shop floor brings it. Odoo cannot complete an order of which nothing was made, so one that
// was finished with nothing is over when it is cancelled.
func (f *family) reached(state object.FloorState) bool {
	now := f.state(false)
	switch state {
	case object.FloorStarted:
		return now == object.OrderInProgress || now == object.OrderCompleted
	case object.FloorFinished:
		return len(f.opens()) == 0 && (now == object.OrderCompleted || !f.made().IsPositive())
	}
	return now == object.OrderCancelled && !f.made().IsPositive()
}

// booked reports whether anything was moved for an order.
func (c *Connector) booked(ctx context.Context, f *family) (bool, error) {
	var found []struct {
		ID int `json:"id"`
	}
	domain := []any{where("state", "=", "done"), "|", "|", where(tieRaw, "in", f.ids()), where(tieMade, "in", f.ids()), where("picking_id.origin", "=like", escape(f.number)+" %")}
	err := c.client.list(ctx, "stock.move", domain, []string{"state"}, "id", 1, &found)
	return len(found) > 0, err
}

func (c *Connector) prepareState(ctx context.Context, s *setup, p connector.Posting, in *intent) (*connector.Outcome, error) {
	f, err := c.find(ctx, s, in.Order)
	if errors.Is(err, connector.ErrNotFound) {
		return unknownOrder(in.Order), nil
	}
	if err != nil {
		return nil, err
	}
	in.Order, in.State = f.number, p.Fact.OrderState.State
	booked, err := c.booked(ctx, f)
	switch {
	case err != nil:
		return nil, err
	case in.State == object.FloorFinished && booked && !f.made().IsPositive():
		return reject(connector.Correctable, "NOTHING_MADE", "Cancel the order in Odoo if that is right, then accept the fact.",
			"Order %s has material or scrap booked and nothing made: Odoo can only cancel it, not complete it.", f.number), nil
	case f.reached(in.State):
		return &connector.Outcome{Result: connector.Posted, Document: stateDocument(f)}, nil
	case in.State == object.FloorCancelled && booked:
		return reject(connector.Correctable, "ALREADY_POSTED", "Finish the order instead, or take back what was posted.", "Order %s has effects in Odoo already and cannot be cancelled.", f.number), nil
	}
	part, no := receiver(f)
	if no != nil && (in.State != object.FloorCancelled || len(f.opens()) == 0) {
		return no, nil
	}
	switch in.State {
	case object.FloorFinished, object.FloorCancelled:
		in.Records = f.opens()
	case object.FloorStarted:
		var work []workOrder
		domain := []any{where("production_id", "=", part.ID), where("state", "not in", []string{"done", "cancel"})}
		if err := c.client.list(ctx, "mrp.workorder", domain, []string{"name", "state", "production_id", "workcenter_id"}, "id", 1, &work); err != nil {
			return nil, err
		}
		if len(work) == 0 {
			return reject(connector.Fatal, "NO_WORK_ORDER", "Accept the fact: the order shows progress with its first consumption.", "Order %s has no open work order that could be started in Odoo.", f.number), nil
		}
		in.Records = []int{work[0].ID}
	default:
		return reject(connector.Fatal, "NOT_SUPPORTED", "Accept the fact: there is nothing to post.", "Odoo has no state %s for order %s.", in.State, f.number), nil
	}
	return nil, nil
}

func stateDocument(f *family) connector.Document {
	return connector.Document{Number: f.number, ID: fmt.Sprint(f.members[0].ID)}
}

// postState runs the one method that brings an order there. Each can come twice or late and does nothing more then.
func (c *Connector) postState(ctx context.Context, in intent) connector.Outcome {
	model, method := "mrp.production", "action_cancel"
	if in.State == object.FloorStarted {
		model, method = "mrp.workorder", "button_start"
	}
	var answer json.RawMessage
	if err := c.client.call(ctx, model, method, in.Records, nil, &answer); err != nil {
		return c.outcome(in.Order, err)
	}
	return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: in.Order, ID: fmt.Sprint(in.Records[0])}}
}

func (c *Connector) lookUpState(ctx context.Context, s *setup, in intent, asked time.Time) (connector.Finding, error) {
	f, err := c.find(ctx, s, in.Order)
	switch {
	case err != nil:
		return connector.Finding{}, fmt.Errorf("look up the state of order %s: %w", in.Order, err)
	case f.reached(in.State):
		return connector.Finding{Presence: connector.Found, Document: stateDocument(f)}, nil
	case c.early(in, asked):
		return connector.Finding{Presence: connector.NotFoundYet, Reason: "What Odoo reads from may lag behind."}, nil
	}
	return connector.Finding{Presence: connector.Absent, Reason: fmt.Sprintf("Order %s is %s, and the change may come twice.", f.number, f.state(false))}, nil
}

func (c *Connector) verifyState(ctx context.Context, s *setup, p connector.Posting, raw []byte, asked time.Time) (connector.Verification, error) {
	f, err := c.find(ctx, s, orderNo(p))
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	want := p.Fact.OrderState.State
	if f.reached(want) {
		return connector.Verification{Matches: true}, nil
	}
	if in, err := readIntent(raw); err == nil && c.early(in, asked) {
		return connector.Verification{NotYet: true}, nil
	}
	return connector.Verification{Difference: fmt.Sprintf("Order %s is %s in Odoo after %s was posted; Odoo leaves an order without components open: close it there.", f.number, f.state(false), want)}, nil
}
