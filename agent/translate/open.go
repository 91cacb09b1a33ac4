package translate

import (
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// forward counts step.
func (w *work) forward(r *rule, s *signal.Signal, c *counter, sm sample, step decimal.Decimal) {
	for _, p := range w.pieces(r, c, sm, step) {
		if o := c.Open; p.on.Reason != "" && (o == nil || o.Booked.Reason != p.on.Reason) {
			w.tellReason(r, s, p.on.Reason)
		}
		w.add(r, c, p)
	}
}

// add counts a piece.
func (w *work) add(r *rule, c *counter, p piece) {
	if o := c.Open; o != nil && o.Booked != p.on {
		w.rebook(r, c, p.on)
	}
	qty := r.share.gain(c.At, c.At.Add(p.step)).Mul(p.on.factor(r))
	if c.Open == nil && qty.IsZero() {
		c.At = c.At.Add(p.step) // dealt to another output
		return
	}
	if c.Open == nil {
		w.openAt(r, c, p)
	}
	c.At = c.At.Add(p.step)
	c.Open.Qty, c.Open.Last = c.Open.Qty.Add(qty), p.at.UTC()
	w.row(c.Open.Booked.row(r.source)).count(qty)
	full := r.closeAt.IsPositive() && c.Open.Qty.GreaterThanOrEqual(r.closeAt)
	if (full || p.late) && !(r.assignNext && c.Open.Booked.Order == "") && !w.waits(c) {
		w.close(c)
	}
}

func (w *work) openAt(r *rule, c *counter, p piece) {
	c.Open = &open{Booked: p.on, From: c.At, Since: w.now.UTC(), First: p.at.UTC()}
	w.due(w.now.Add(r.every))
	if r.closeAtShift {
		if until := w.shift(w.t.calendarOf(p.on.Center), p.from).end; !until.IsZero() {
			c.Open.Until = until.UTC()
			w.due(until)
		}
	}
}

// waits tells that a counter which was never seen before makes no fact yet: the hub has not been heard, and it may know the
// counter from an agent that was here before this one.
func (w *work) waits(c *counter) bool {
	return w.t.awaitHub && c.Fresh && !c.Told && len(w.st.State(keyMet)) == 0
}

// rebook makes room for counts that are booked on something else: what is open is confirmed, or, where it waited for an
// order, goes to the order that came.
func (w *work) rebook(r *rule, c *counter, on booked) {
	o := c.Open
	if r.assignNext && o.Booked.Order == "" && on.Order == "" {
		same := on
		same.Shift, same.ShiftDate = o.Booked.Shift, o.Booked.ShiftDate
		if o.Booked == same { // it waits beyond the end of the shift
			o.Booked = on
			return
		}
	}
	if !r.assignNext || o.Booked.Order != "" || on.Order == "" || o.Booked.Rule != on.Rule || o.Booked.Unit != on.Unit || o.Booked.Counts != on.Counts || o.Booked.Factor != on.Factor {
		w.close(c)
		return
	}
	w.row(o.Booked.row(r.source)).count(o.Qty.Neg())
	w.row(on.row(r.source)).count(o.Qty)
	o.Booked, o.Since = on, w.now.UTC()
	w.due(w.now.Add(r.every))
}

// endRun closes what is open on the order that ends at a work centre.
func (w *work) endRun(r *rule, center string, next running) {
	cell := w.counter(r)
	o := cell.v.Open
	if o == nil || r.orderOf != nil || o.Booked.Center != center || o.Booked.Order == "" && r.assignNext || next.Order == "" && !r.closeAtEnd {
		return
	}
	w.close(&cell.v)
	cell.dirty = true
}

// adoptOpen gives counts that waited for an order to the one that runs now.
func (w *work) adoptOpen(center string) {
	for _, r := range w.t.byCenter[center] {
		cell := w.counter(r)
		o := cell.v.Open
		if o == nil || !r.assignNext || o.Booked.Order != "" {
			continue
		}
		run, on := w.running(center), o.Booked
		on.Order, on.Operation, on.Item = run.Order, run.Operation, r.item
		if fallback(&on.Item, run.Item); on.Order != "" {
			w.rebook(r, &cell.v, w.inShift(r, on, w.now))
			cell.dirty = true
		}
	}
}

// close makes a confirmation (or a consumption) of what is open.
func (w *work) close(c *counter) {
	o := c.Open
	if o == nil {
		return
	}
	c.Open = nil
	if o.Qty.IsZero() {
		return
	}
	c.Told = true
	w.confirm(c, o, c.epoch(), o.From, c.At)
}

// confirm emits the counts of the range (from, to] of an epoch.
func (w *work) confirm(c *counter, o *open, epoch string, from, to decimal.Decimal) {
	b := &o.Booked
	if part := c.Dealt.share(); part != nil {
		from, to = part.told(from), part.told(to)
	}
	qty := w.row(b.row(c.Source)).settle(o.Qty, b.Places).String()
	position := factkey.Position("counter", w.t.plant, c.Source, c.Tag, epoch, from.String(), to.String())
	h := head{
		key: factkey.Of(position), source: c.Source, rule: b.Rule, equipment: b.Equipment, position: position, occurred: o.Last,
		center: b.Center, shift: worked{name: b.Shift, date: b.ShiftDate},
	}
	w.enc.counter.Tag, w.enc.counter.Epoch, w.enc.counter.From, w.enc.counter.To = c.Tag, epoch, from.String(), to.String()
	if b.Counts == kindConsumed {
		e := w.enc.consumption()
		w.enc.quantity.Value, w.enc.quantity.Unit = qty, b.Unit
		e.OrderNo, e.Operation, e.Item, e.Quantity = b.Order, b.Operation, b.Item, &w.enc.quantity
		e.Lot, e.Reservation, e.Movement = b.Lot, "", pb.MaterialConsumption_MOVEMENT_ISSUE
		e.CounterRange = &w.enc.counter
		w.emit(h, b.Order, nil)
		return
	}
	e := w.enc.confirmation()
	e.Yield, e.Scrap, e.Rework = "", "", ""
	switch b.Counts {
	case kindYield:
		e.Yield = qty
	case kindScrap:
		e.Scrap = qty
	case kindRework:
		e.Rework = qty
	}
	e.OrderNo, e.Operation, e.Item, e.Unit = b.Order, b.Operation, b.Item, b.Unit
	e.ScrapReason, e.ScrapReasonText, e.Final, e.Lot, e.Person, e.Shift, e.Serial = b.Reason, b.ReasonText, false, b.Lot, b.Person, "", ""
	e.StartedAt, e.FinishedAt = w.enc.time(&w.enc.started, o.First), w.enc.time(&w.enc.finished, o.Last)
	e.CounterRange = &w.enc.counter
	w.emit(h, b.Order, nil)
}

// tickCounter closes what is due by time, and what no rule counts any more.
func (w *work) tickCounter(cell *cell[counter]) {
	c := &cell.v
	r := w.t.byMeter[[2]string{c.Source, c.Tag}]
	if r != nil && r.scale != nil {
		w.settleScale(r, cell)
	}
	o := c.Open
	if o == nil {
		return
	}
	if r != nil && (r.assignNext && o.Booked.Order == "" || w.waits(c)) {
		return
	}
	if r != nil {
		if w.now.Before(o.Since) { // the clock was set back
			o.Since, cell.dirty = w.now.UTC(), true
		}
		due := o.Since.Add(r.every)
		if !o.Until.IsZero() && o.Until.Before(due) {
			due = o.Until
		}
		if due.After(w.now) {
			w.due(due)
			return
		}
	}
	w.close(c)
	cell.dirty = true
}

// piece is a part of a step that is booked on one thing. from is when it began as far as is known, late says that what it is
// booked on is over already.
type piece struct {
	step     decimal.Decimal
	on       booked
	from, at time.Time
	late     bool
}
