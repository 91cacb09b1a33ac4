package translate

import (
	"slices"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/exact"
)

// handOver says whose a count is when what it is booked on changed since the counter's last value.
type handOver uint8

const (
	toNext handOver = iota
	toLast
	byTime
)

var handOvers = map[string]handOver{"next": toNext, "last": toLast, "by_time": byTime}

// turn is a change of what a counter is booked on between two of its values.
type turn struct {
	At time.Time `json:"t"`
	On booked    `json:"k"`
}

// maxTurns bounds the changes between two values of a counter that are told apart. Of more, the last one takes the rest.
const maxTurns = 64

// pieces divides a step among what it is booked on. The parts always add up to the step.
func (w *work) pieces(r *rule, c *counter, sm sample, step decimal.Decimal) []piece {
	all := piece{step: step, on: sm.on, from: sm.at, at: sm.at}
	switch {
	case r.handOver == toNext || c.On == nil:
		return []piece{all}
	case r.handOver == toLast:
		if all.on = *c.On; !c.Then.IsZero() {
			all.from = c.Then
		}
		all.late = all.on != sm.on
		return []piece{all}
	}
	return w.byTime(r, c, sm, all)
}

// byTime divides a step in the proportion of the times between the changes.
func (w *work) byTime(r *rule, c *counter, sm sample, all piece) []piece {
	lasted := sm.at.Sub(c.Then)
	if c.Then.IsZero() || lasted <= 0 {
		return []piece{all}
	}
	turns := w.turns(r, c, sm)
	var out []piece
	done := decimal.Decimal{}
	for i, t := range turns {
		p := piece{on: t.On, from: t.At, at: sm.at, late: t.On != sm.on}
		upTo := all.step
		if i+1 < len(turns) {
			p.at = turns[i+1].At
			upTo = r.divided(c, all.step, p.at.Sub(c.Then), lasted)
		}
		if p.step = upTo.Sub(done); p.step.IsPositive() {
			out, done = append(out, p), upTo
		}
	}
	return out
}

// turns are the changes from the last value to this one in the order of their times, the ends of shifts among them. The first
// begins at the last value.
func (w *work) turns(r *rule, c *counter, sm sample) []turn {
	list := []turn{{c.Then, *c.On}}
	for _, t := range c.Turns {
		if t.At = latest(t.At, c.Then); t.At.After(sm.at) {
			t.At = sm.at
		}
		list = append(list, t)
	}
	slices.SortStableFunc(list[1:], func(a, b turn) int { return a.At.Compare(b.At) })
	if !r.closeAtShift {
		return list
	}
	var out []turn
	for i, t := range list {
		end := sm.at
		if i+1 < len(list) {
			end = list[i+1].At
		}
		for at := t.At; len(out) < 2*maxTurns; {
			out = append(out, turn{at, w.inShift(r, t.On, at)})
			next := w.shift(w.t.calendarOf(t.On.Center), at).end
			if next.IsZero() || !next.Before(end) || !next.After(at) {
				break
			}
			at = next
		}
	}
	return out
}

func latest(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// divided is the part of a step that was made in a part of its time: whole steps of a counter that counts whole things.
func (r *rule) divided(c *counter, step decimal.Decimal, part, lasted time.Duration) decimal.Decimal {
	places := int32(maxDecimals)
	if step.IsInteger() && c.At.IsInteger() && whole(r.unit) {
		places = 0
	}
	return exact.Divide(step.Mul(decimal.NewFromInt(int64(part))), decimal.NewFromInt(int64(lasted)), places)
}

// heldOver remembers, for the next value, what this one was booked on.
func (r *rule) heldOver(c *counter, sm sample) (changed bool) {
	if r.handOver == toNext {
		changed = c.On != nil
		c.On, c.Turns, c.Then = nil, nil, time.Time{}
		return changed
	}
	if c.On != nil && *c.On == sm.on && len(c.Turns) == 0 && (r.handOver == toLast || c.Then.Equal(sm.at)) {
		return false
	}
	on := sm.on
	c.On, c.Turns, c.Then = &on, nil, sm.at.UTC()
	return true
}

// turn notes, for the counters that divide by time, that what they are booked on changed with a signal that was not theirs.
func (w *work) turn(s *signal.Signal) {
	for _, r := range w.t.byTime {
		cell := w.counter(r)
		c := &cell.v
		if c.On == nil {
			continue
		}
		on, f := w.bookOn(r, nil)
		if f != nil {
			continue // shown when it is counted
		}
		last := c.On
		if n := len(c.Turns); n > 0 {
			last = &c.Turns[n-1].On
		}
		at := w.timeOf(s)
		on = w.inShift(r, on, at)
		same := on
		same.Shift, same.ShiftDate = last.Shift, last.ShiftDate
		if same == *last {
			continue
		}
		if len(c.Turns) >= maxTurns {
			c.Turns = c.Turns[:maxTurns-1]
		}
		c.Turns, cell.dirty = append(c.Turns, turn{at.UTC(), on}), true
	}
}
