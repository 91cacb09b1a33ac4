package posting

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// A finish that names an operation is that operation's. The one of the last operation is also the order's: it waits, as every
// closing does, and also until the earlier operations have ended as far as the policy asks (see OrderEnd). Which operation is the
// last is the system's word, and is asked again when the closing's turn has come: an order may have been given another one
// meanwhile. The finish of any other operation goes to the systems that keep the state of an operation, and needs no posting
// elsewhere. The plant can always end an order by a finish without an operation.

// Codes of what is said of one operation. They are stable.
const (
	CodeUnknownOperation = "operation_not_of_order" // parked: the order does not have it
	CodeOperationEnded   = "operation_ended"        // not posted: it leaves the order open, and the system keeps no state of an operation
)

// OrderEnd says which finish of an operation closes its order.
type OrderEnd string

// The ends of an order.
const (
	// EndReported: that of the last operation, once every other of which the plant has reported anything has ended. Of an order
	// without operations, that of any, by the same rule.
	EndReported OrderEnd = "reported_operations"
	// EndAll: that of the last operation, once all others of the order have ended.
	EndAll OrderEnd = "all_operations"
	// EndLast: that of the last operation, whatever the others are; of an order without operations, that of any.
	EndLast OrderEnd = "last_operation"
	// EndOrder: none; only a finish without an operation.
	EndOrder OrderEnd = "order"
)

// EndBy is which finish of an operation closes an order.
func EndBy(all []Policy, erp, plant string) OrderEnd {
	return decided(all, erp, plant, func(p Policy) OrderEnd { return p.End }, EndReported)
}

// ofOperation is the change of state of one operation that ends it; nil for every other fact.
func ofOperation(f object.Fact) *object.ShopFloorState {
	if s := f.OrderState; s.Ends() && s.Operation != "" {
		return s
	}
	return nil
}

// closes reports that a fact ends its order, whatever that order is.
func closes(f object.Fact) bool { return f.OrderState.Ends() && f.OrderState.Operation == "" }

// closesOrder reports that the end of an operation is also the order's.
func (e *Engine) closesOrder(p *store.Posting, s *object.ShopFloorState, w object.WorkOrder) bool {
	c := e.o.Connectors[p.ERP]
	if s.State != object.FloorFinished || c == nil || !slices.Contains(c.Capabilities().States, s.State) {
		return false
	}
	end, last := EndBy(e.o.Policies, p.ERP, p.Plant), w.Last()
	switch {
	case end == EndOrder:
		return false
	case last == "":
		return end != EndAll
	}
	return object.SameOperation(last, s.Operation)
}

// admitOperation decides what the end of an operation means for its order, which is known.
func (e *Engine) admitOperation(tx *store.Tx, p *store.Posting, f store.Fact, w object.WorkOrder, can connector.Capabilities) error {
	s := f.Fact.OrderState
	p.Closing = false
	if len(w.Operations) > 0 && !w.HasOperation(s.Operation) {
		var names []string
		for _, o := range w.Operations {
			names = append(names, o.Operation)
		}
		park(p, string(connector.Correctable), CodeUnknownOperation, fmt.Sprintf("work order %q has no operation %q, which is %s: it has %s", w.OrderNo, s.Operation, s.State, strings.Join(names, ", ")),
			"correct the operation at the source, or add it to the order in the outside system and replay this fact; a finish without an operation finishes the order")
		return nil
	}
	switch {
	case e.closesOrder(p, s, w):
		p.Closing = true
		if err := e.noteLast(tx, p, s); err != nil {
			return err
		}
	case !slices.Contains(can.OperationStates, s.State):
		notPosted(p, CodeOperationEnded, e.whyOpen(p, s, w))
		return nil
	}
	return e.say(tx, p, f, w, can)
}

// noteLast writes once on the order's timeline that it is at its end.
func (e *Engine) noteLast(tx *store.Tx, p *store.Posting, s *object.ShopFloorState) error {
	over, err := tx.Finished(p.OrderNo)
	if err != nil || over {
		return err
	}
	return tx.AddOrderStep(store.OrderStep{OrderNo: p.OrderNo, Step: store.StepLast, Origin: "hub", FactID: p.FactID, Operation: s.Operation,
		Reason: "the order is closed when nothing of it is open"})
}

// whyOpen says why the end of an operation is not posted.
func (e *Engine) whyOpen(p *store.Posting, s *object.ShopFloorState, w object.WorkOrder) string {
	text := fmt.Sprintf("operation %q is %s, and system %q keeps no such state of an operation: order %q stays open", s.Operation, s.State, p.ERP, w.OrderNo)
	switch {
	case s.State == object.FloorCancelled || EndBy(e.o.Policies, p.ERP, p.Plant) == EndOrder || w.Last() == "":
		return text + " until it is finished without naming an operation"
	}
	return text + fmt.Sprintf(" until its last operation %q is finished", w.Last())
}

// lookAgain is how often a closing that waits for an operation looks by itself; what the plant reports wakes it.
const lookAgain = 10 // times Options.Poll

// operationsOpen says which operations the closing of an order by its last operation waits for; empty for none. stay is false
// when the fact does not close the order any more.
func (e *Engine) operationsOpen(ctx context.Context, p store.Posting, f store.Fact) (reason string, stay bool, err error) {
	s := ofOperation(f.Fact)
	if s == nil {
		return "", true, nil
	}
	o, err := e.o.Store.Order(ctx, p.ERP, p.OrderNo)
	if err != nil {
		return "", true, err
	}
	if !e.closesOrder(&p, s, o.Order) {
		return "", false, nil
	}
	end := EndBy(e.o.Policies, p.ERP, p.Plant)
	if end == EndLast || o.Order.State.Over() {
		return "", true, nil
	}
	steps, err := e.o.Store.OrderSteps(ctx, p.OrderNo)
	if err != nil {
		return "", true, err
	}
	confirmed, err := e.o.Store.ConfirmedOperations(ctx, p.Plant, p.OrderNo)
	if err != nil {
		return "", true, err
	}
	said := saidOf(p.Plant, steps, confirmed)
	if said.orderEnded {
		return "", true, nil
	}
	open := said.open(o.Order, s.Operation, end)
	if len(open) == 0 {
		return "", true, nil
	}
	return fmt.Sprintf("operation %q is the last of order %q and is finished; waits until the plant finishes operation %s", s.Operation, p.OrderNo, strings.Join(open, ", ")), true, nil
}

// said is what a plant has said of an order's operations, by their plain names.
type said struct {
	orderEnded bool
	ended      map[string]bool // false: something was reported, and not the end
}

// stepFinal stands on an order's timeline when an operation was confirmed for the last time.
const stepFinal = "confirmed finally"

// saidOf reads a timeline, oldest first: an operation that is started again after its end is open again.
func saidOf(plant string, steps []store.OrderStep, confirmed []string) said {
	x := said{ended: map[string]bool{}}
	for _, name := range confirmed {
		x.ended[object.PlainOperation(name)] = false
	}
	for _, s := range steps {
		if s.FactID == 0 || !strings.HasPrefix(s.Origin, plant+"/") {
			continue
		}
		over := s.Step == string(object.FloorFinished) || s.Step == string(object.FloorCancelled)
		switch {
		case s.Operation == "":
			x.orderEnded = x.orderEnded || over
		case over, s.Step == stepFinal:
			x.ended[object.PlainOperation(s.Operation)] = true
		case s.Step == string(object.FloorStarted), s.Step == string(object.FloorHeld):
			x.ended[object.PlainOperation(s.Operation)] = false
		}
	}
	return x
}

// open names the operations that have not ended, beside the one that closes the order. Of an order that lists none, those that the
// plant has named.
func (x said) open(w object.WorkOrder, last string, end OrderEnd) (open []string) {
	names := make([]string, 0, len(w.Operations))
	for _, o := range w.Operations {
		names = append(names, o.Operation)
	}
	if len(names) == 0 {
		for name := range x.ended {
			names = append(names, name)
		}
		slices.Sort(names)
	}
	for _, name := range names {
		ended, reported := x.ended[object.PlainOperation(name)]
		if !ended && (reported || end == EndAll) && !object.SameOperation(name, last) {
			open = append(open, fmt.Sprintf("%q", name))
		}
	}
	return open
}

// noteFinal writes on the order's timeline that an operation was confirmed for the last time.
func noteFinal(tx *store.Tx, f store.Fact) error {
	c := f.Fact.Confirmation
	if c == nil || !c.Final || c.Operation == "" || c.OrderNo == "" || !f.Fact.Reverses.IsZero() {
		return nil
	}
	return tx.AddOrderStep(store.OrderStep{OrderNo: c.OrderNo, Step: stepFinal, At: f.Fact.OccurredAt, Origin: f.Fact.Plant + "/" + f.Agent, FactID: f.ID, Operation: c.Operation})
}

// waitForOperations tells the plant once what the closing of its order waits for: nobody else can end that.
func (e *Engine) waitForOperations(ctx context.Context, p store.Posting, reason string) error {
	if p.Reason == reason {
		return nil
	}
	p.Code, p.Reason = CodeWaitsForOthers, reason
	p.NextStep = "nothing to do when the plant goes on with them; else finish them there, or finish the order there without naming an operation, or complete it in the outside system"
	err := e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		f, err := tx.FactByID(p.FactID)
		if err != nil {
			return err
		}
		return e.changed(tx, p, f, "waits", "", pb.Receipt_OUTCOME_RECEIVED)
	})
	if err == nil {
		err = e.crash("waits for operations")
	}
	return err
}

// leaveOpen decides anew about the end of an operation that was taken for the order's, and is not any more.
func (e *Engine) leaveOpen(ctx context.Context, p store.Posting) error {
	err := e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		return e.one(tx, p.FactID, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
			if p.State != store.PostingDue {
				return nil // somebody had it meanwhile
			}
			return e.readmit("")(tx, p, f)
		})
	})
	if err != nil {
		return fmt.Errorf("leave order %q open: %w", p.OrderNo, err)
	}
	return e.crash("left open")
}
