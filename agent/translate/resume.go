package translate

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// ResumeFrom makes the counters of an agent that is new, or went back in time, go on where the hub's knowledge ends: what
// the hub holds is not counted again, and what was made between its last mark and the first value seen here is counted. For
// an agent whose state is the newest it changes nothing. marks should hold every epoch that the hub knows of a counter, in
// any order, or at least the greatest.
//
// Facts that an agent in that state already made are not touched: the hub trims those by their counter range.
func (t *Translator) ResumeFrom(st State, now time.Time, marks []*pb.SourceMark) Result {
	w := t.begin(st, now)
	if len(st.State(keyMet)) == 0 {
		st.SetState(keyMet, []byte("1"))
		w.due(now) // of what waited for this
	}
	for _, m := range newestFirst(marks) {
		line, epoch, ok := splitEpoch(m.GetEpoch())
		to, err := parse(m.GetCounterTo())
		if !ok || err != nil {
			continue
		}
		r := t.byMeter[[2]string{m.GetSource(), m.GetTag()}]
		if r == nil {
			continue
		}
		cell := w.counter(r)
		if r.scale != nil {
			cell.dirty = cell.v.resumeScale(line, epoch, to) || cell.dirty
			continue
		}
		if !cell.v.Dealt.equal(r.share) {
			w.redeal(r, &cell.v)
		}
		cell.dirty = w.resume(r, &cell.v, line, epoch, r.share.heard(to)) || cell.dirty
	}
	return w.end()
}

// newestFirst orders marks by epoch: a counter that begins anew joins the newest, and older ones then say nothing.
func newestFirst(marks []*pb.SourceMark) []*pb.SourceMark {
	marks = slices.Clone(marks)
	slices.SortStableFunc(marks, func(a, b *pb.SourceMark) int {
		la, na, _ := splitEpoch(a.GetEpoch())
		lb, nb, _ := splitEpoch(b.GetEpoch())
		return cmp.Or(strings.Compare(lb, la), cmp.Compare(nb, na))
	})
	return marks
}

func splitEpoch(s string) (line string, epoch int, ok bool) {
	line, n, ok := strings.Cut(s, ".")
	epoch, err := strconv.Atoi(n)
	return line, epoch, ok && err == nil && line != "" && epoch > 0
}

// resume says whether the counter changed.
func (w *work) resume(r *rule, c *counter, line string, epoch int, to decimal.Decimal) bool {
	switch {
	case c.Line == "":
		r.follow(c, line, epoch, to)
		return true
	case c.Line != line && c.Fresh:
		return w.join(r, c, line, epoch, to)
	case c.Line > line:
		return false
	case c.Line < line || c.Epoch < epoch: // this state is older than what the hub holds
		w.dropOpen(c)
		r.follow(c, line, epoch, to)
		return true
	case c.Epoch == epoch:
		fresh := c.Fresh
		c.Fresh = false
		return w.trim(r, c, to) || fresh
	}
	return false
}

// follow lets a counter go on from the hub's mark, with nothing else remembered of it.
func (r *rule) follow(c *counter, line string, epoch int, to decimal.Decimal) {
	*c = counter{Source: r.source, Tag: r.meter, Line: line, Epoch: epoch, At: to, Raw: r.shown(to), Told: true, Dealt: c.Dealt}
}

// shown is what the PLC shows at a position of an epoch.
func (r *rule) shown(at decimal.Decimal) decimal.Decimal {
	if r.modulus.IsPositive() {
		return at.Mod(r.modulus)
	}
	return at
}

// shortest takes a distance between two values that the PLC showed for the shorter way round, which is the likelier one: most of
// a round ahead is a little behind.
func (r *rule) shortest(gap decimal.Decimal) decimal.Decimal {
	if !r.modulus.IsPositive() {
		return gap
	}
	if gap = gap.Mod(r.modulus); gap.IsNegative() {
		gap = gap.Add(r.modulus)
	}
	if gap.Mul(two).GreaterThan(r.modulus) {
		gap = gap.Sub(r.modulus)
	}
	return gap
}

// dropOpen forgets open counts that the hub holds as facts of the time that was lost here.
func (w *work) dropOpen(c *counter) {
	if o := c.Open; o != nil {
		w.row(o.Booked.row(c.Source)).store(o.Qty)
		c.Open = nil
	}
}

// trim takes from the open counts what the hub holds of this epoch.
func (w *work) trim(r *rule, c *counter, to decimal.Decimal) bool {
	if !to.LessThan(c.At) {
		if to.Equal(c.At) && c.Open == nil {
			return false
		}
		w.dropOpen(c)
		c.At, c.Raw, c.Seen, c.Clock, c.Before, c.Told = to, r.shown(to), time.Time{}, time.Time{}, nil, true
		return true
	}
	o := c.Open
	if o == nil || !to.GreaterThan(o.From) {
		return false
	}
	known := r.share.gain(o.From, to).Mul(o.Booked.factor(r))
	if known.GreaterThan(o.Qty) {
		known = o.Qty
	}
	w.row(o.Booked.row(c.Source)).store(known)
	o.From, o.Qty = to, o.Qty.Sub(known)
	return true
}

// join continues the hub's epoch with a counter that began anew here at Base: what lies between is counted.
func (w *work) join(r *rule, c *counter, line string, epoch int, to decimal.Decimal) bool {
	c.Fresh = false
	gap := r.shortest(c.Base.Sub(r.shown(to)))
	if ahead := gap.Add(c.At.Sub(c.Base)); gap.IsNegative() && !ahead.IsNegative() && !c.Told {
		w.rejoin(r, c, line, epoch, to, ahead)
		return true
	}
	if gap.IsNegative() && !c.Told {
		// All that was seen here lies below the hub's mark: it may be an old copy's memory, or a counter that was set back. The next
		// value tells, judged after the mark like any other.
		w.except(r.source, &signal.Signal{Tag: r.tag}, r.name, signal.Problem{
			Code: "counter_gap", Item: r.tag, Reason: fmt.Sprintf("counter %q was seen at %s here, below %s that the hub holds; it goes on from there, and its next value tells whether it was set back", r.tag, c.Raw, to),
			NextStep: "nothing to do if the agent was restored or installed anew; otherwise compare the machine's count with what is booked for this time",
		}, nil, nil)
		if o := c.Open; o != nil {
			w.row(o.Booked.row(c.Source)).count(o.Qty.Neg())
		}
		r.follow(c, line, epoch, to)
		return true
	}
	if gap.IsNegative() {
		w.except(r.source, &signal.Signal{Tag: r.tag}, r.name, signal.Problem{
			Code: "counter_gap", Item: r.tag, Reason: fmt.Sprintf("counter %q began anew at %s, below %s that the hub holds; what was made between is not known", r.tag, c.Base, to),
			NextStep: "compare the machine's count with what is booked for this time",
		}, nil, nil)
		return true
	}
	if c.Told {
		w.tellGap(r, c, fmt.Sprintf("%s.%d", line, epoch), to, gap)
		return true
	}
	c.At = to.Add(gap).Add(c.At.Sub(c.Base))
	c.Line, c.Epoch = line, epoch
	w.openGap(r, c, to, gap)
	return true
}

// rejoin is join for a counter that began anew before the hub's mark was reached: what the hub holds is not counted again.
func (w *work) rejoin(r *rule, c *counter, line string, epoch int, to, ahead decimal.Decimal) {
	c.Line, c.Epoch, c.At, c.Told = line, epoch, to.Add(ahead), true
	if o := c.Open; o != nil {
		left := r.share.gain(to, to.Add(ahead)).Mul(o.Booked.factor(r))
		w.row(o.Booked.row(c.Source)).store(o.Qty.Sub(left))
		if o.From, o.Qty = to, left; left.IsZero() {
			c.Open = nil
		}
	}
}

// openGap puts the gap before what is open already.
func (w *work) openGap(r *rule, c *counter, from, gap decimal.Decimal) {
	if gap.IsZero() {
		if c.Open != nil {
			c.Open.From = from
		}
		return
	}
	if c.Open == nil {
		on, _ := w.bookOn(r, nil)
		c.Open = &open{Booked: w.inShift(r, on, w.now), Since: w.now.UTC(), First: w.now.UTC(), Last: w.now.UTC()}
		w.due(w.now.Add(r.every))
	}
	qty := r.share.gain(from, from.Add(gap)).Mul(c.Open.Booked.factor(r))
	c.Open.From, c.Open.Qty = from, c.Open.Qty.Add(qty)
	w.row(c.Open.Booked.row(c.Source)).count(qty)
}

// tellGap confirms the gap by itself, with no order: facts of the new epoch are under way already.
func (w *work) tellGap(r *rule, c *counter, epoch string, from, gap decimal.Decimal) {
	if gap.IsZero() {
		return
	}
	b, _ := w.bookOn(r, nil)
	b.Order, b.Operation, b.Item = "", "", r.item
	o := &open{Booked: b, Qty: r.share.gain(from, from.Add(gap)).Mul(b.factor(r)), First: w.now.UTC(), Last: w.now.UTC()}
	w.row(b.row(c.Source)).count(o.Qty)
	w.confirm(c, o, epoch, from, from.Add(gap))
}
