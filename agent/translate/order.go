package translate

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// maxSteps is how many changes of state are remembered of one order, the newest.
const maxSteps = 50

func (w *work) order(no string) *cell[order] { return w.orders.get(w.st, no) }

// running returns what runs on a work centre, with what the order itself knows filled in.
func (w *work) running(center string) running {
	if center == "" {
		return running{}
	}
	run := w.contexts.get(w.st, center).v
	if run.Order != "" {
		w.fromDispatch(&run, center)
	}
	return run
}

func (w *work) fromDispatch(run *running, center string) {
	if run.Item != "" && run.Unit != "" && run.Operation != "" {
		return
	}
	o := &w.order(run.Order).v
	if run.Item == "" || run.Item == o.Item {
		fallback(&run.Item, o.Item)
		fallback(&run.Unit, o.Unit)
	}
	if run.Operation == "" {
		run.Operation = operationAt(o.Ops, center)
	}
}

// operationAt returns the only operation that an order has on a work centre; "" when there is none or a choice.
func operationAt(ops [][2]string, center string) string {
	found := ""
	for _, op := range ops {
		if !sameCenter(op[1], center) {
			continue
		}
		if found != "" {
			return ""
		}
		found = op[0]
	}
	return found
}

// sameCenter compares names of work centres, either of which may be the full path.
func sameCenter(a, b string) bool {
	return a == b || a != "" && b != "" && (strings.HasSuffix(a, "/"+b) || strings.HasSuffix(b, "/"+a))
}

// setRunning changes what runs on a work centre. Open counts of the order before are closed first.
func (w *work) setRunning(center string, next running) {
	c := w.contexts.get(w.st, center)
	if c.v == next {
		return
	}
	changed := c.v.Order != next.Order || c.v.Operation != next.Operation
	if changed {
		for _, r := range w.t.byCenter[center] {
			w.endRun(r, center, next)
		}
	}
	c.v, c.dirty = next, true
	w.turned = true
	if changed {
		w.adoptOpen(center)
	}
}

// state applies a state rule.
func (w *work) state(r *rule, s *signal.Signal) {
	if s.Quality != signal.Good {
		w.reject(r.source, s, r.name, signal.Problem{
			Code: "bad_quality", Item: s.Tag, Reason: fmt.Sprintf("tag %q has quality %s (%s); the order on %q is left as it was", s.Tag, s.Quality, s.Status, r.center),
			NextStep: "mend the sensor or the connection at the source",
		})
		return
	}
	f := w.applyState(r, s)
	if f != nil {
		w.reject(r.source, s, r.name, f.problem())
	}
}

func (w *work) applyState(r *rule, s *signal.Signal) *fault {
	w.scope = scope{sig: s, source: r.source, work: w}
	if r.when != nil {
		v, err := r.when.eval(&w.scope)
		if err != nil {
			return ruleFailed(r, "when", err)
		}
		if yes, _ := v.(bool); !yes {
			if w.explain != nil {
				w.say(r.name, "skipped", "when: %s is false", r.when.src)
			}
			return nil
		}
	}
	d := &draft{rule: r, center: r.center}
	if r.orderTag && !r.has[fOrder] {
		whole := mapped{field: fOrder, expr: &expr{src: "payload", root: "payload", steps: []pathStep{}}}
		if s.Value != nil {
			if f := w.set(d, &whole, s.Value); f != nil {
				return f
			}
		}
	}
	if f := w.fill(d, &w.scope); f != nil && !(r.orderTag && f.code == "missing_field") {
		return f
	}
	if r.orderTag {
		w.orderTag(d)
		return nil
	}
	if r.id == nil && s.Position == "" {
		return w.book(d)
	}
	if f := w.identify(d, &w.scope, -1); f != nil {
		return f
	}
	return w.book(d)
}

// orderTag takes a tag whose value is the number of the order that runs; empty or 0 is none. Only a change says something:
// a tag that still shows a finished order does not start it again.
func (w *work) orderTag(d *draft) {
	no := d.text[fOrder]
	last := w.tags.get(w.st, d.rule.source+sep+d.rule.tag)
	if last.v == no && (no != "" || w.contexts.get(w.st, d.center).v.Order == "") {
		if w.explain != nil {
			w.say(d.rule.name, "unchanged", "order %q still runs", no)
		}
		return
	}
	last.v, last.dirty = no, true
	if no == "" || no == "0" {
		w.setRunning(d.center, running{})
		return
	}
	d.state = pb.OrderState_STATE_STARTED
	w.bookOrderState(d)
}

// bookOrderState emits a change of an order's state, once per state, and sets what runs on the work centre.
func (w *work) bookOrderState(d *draft) {
	no := d.text[fOrder]
	c := w.order(no)
	if d.center != "" {
		w.setRunningBy(d)
	}
	word, operation := stateWord(d.state), d.text[fOperation]
	if d.rule.kind == kindState && c.v.said(word, operation, d.text[fReason]) {
		if w.explain != nil {
			w.say(d.rule.name, "repeated", "order %s is %s already", no, word)
		}
		return // the source repeats itself
	}
	c.dirty = true
	o := &c.v
	o.Seq++
	o.Touched = w.now.UTC()
	if !o.goesOn(d.state, operation) {
		o.State, o.Reason = word, d.text[fReason]
	}
	o.Steps = append(o.Steps, orderStep{State: word, Revision: d.revision, At: d.occurred.UTC(), Reason: d.text[fReason], Operation: operation})
	if n := len(o.Steps); n > maxSteps {
		o.Steps = slices.Delete(o.Steps, 0, n-maxSteps)
	}
	h := d.header()
	if h.key.IsZero() {
		h.position = factkey.Position("state", w.t.plant, d.rule.source, d.rule.tag, no, word, strconv.Itoa(o.Seq))
		h.key = factkey.Of(h.position)
	}
	e := &pb.OrderState{OrderNo: no, Revision: d.revision, State: d.state, Reason: d.text[fReason], Operation: operation}
	w.enc.fact.Content = &pb.Fact_OrderState{OrderState: e}
	w.emit(h, no, e)
}

// said reports that the last word on an operation, or on the order where none is named, was the same.
func (o *order) said(state, operation, reason string) bool {
	for _, s := range slices.Backward(o.Steps) {
		if s.Operation == operation || s.Operation == "" {
			return s.State == state && s.Reason == reason && s.Operation == operation
		}
	}
	return operation == "" && o.State == state && o.Reason == reason
}

// goesOn reports that a state ends an operation and not its order, which has others.
func (o *order) goesOn(s pb.OrderState_State, operation string) bool {
	ends := s == pb.OrderState_STATE_FINISHED || s == pb.OrderState_STATE_CANCELLED
	return ends && operation != "" && len(o.Ops) > 1
}

// setRunningBy sets what runs on the draft's work centre.
func (w *work) setRunningBy(d *draft) {
	no := d.text[fOrder]
	switch d.state {
	case pb.OrderState_STATE_STARTED:
		w.setRunning(d.center, running{Order: no, Operation: d.text[fOperation], Item: d.text[fItem], Unit: d.text[fUnit]})
	case pb.OrderState_STATE_FINISHED, pb.OrderState_STATE_CANCELLED:
		if w.contexts.get(w.st, d.center).v.Order == no {
			w.setRunning(d.center, running{})
		}
	}
}

// Dispatched tells that a work order arrived from the hub. Only a later revision replaces what is known.
func (t *Translator) Dispatched(st State, now time.Time, o signal.WorkOrder) {
	w := t.begin(st, now)
	c := w.order(o.OrderNo)
	if c.v.Known && o.Revision < c.v.Revision {
		return
	}
	k := &c.v
	k.Known, k.Revision, k.Cancelled, k.Touched = true, o.Revision, o.Cancelled, now.UTC()
	k.Item, k.Unit, k.Quantity, k.Lot, k.Center = o.Item, o.Unit, string(o.Quantity), o.Lot, o.WorkCenter
	k.Ops = nil
	for _, op := range o.Operations {
		center := op.WorkCenter
		fallback(&center, o.WorkCenter)
		k.Ops = append(k.Ops, [2]string{op.Operation, center})
	}
	c.dirty = true
	w.end()
}

// OrderStep is one state that the shop floor reported of an order.
type OrderStep struct {
	State *pb.OrderState
	At    time.Time
}

// OrderStates returns every state of the orders that are remembered, per order in the order they were reached: what a page
// needs after a restart.
func (t *Translator) OrderStates(st State) []OrderStep {
	w := t.begin(st, time.Time{})
	keys := keysUnder(st, prefixOrder)
	slices.Sort(keys)
	var out []OrderStep
	for _, no := range keys {
		for _, s := range w.order(no).v.Steps {
			out = append(out, OrderStep{
				State: &pb.OrderState{OrderNo: no, Revision: s.Revision, State: stateWords[s.State], Reason: s.Reason, Operation: s.Operation},
				At:    s.At,
			})
		}
	}
	return out
}

func (o *order) over() bool { return o.Cancelled || o.State == "finished" || o.State == "cancelled" }
