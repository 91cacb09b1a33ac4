package translate

import (
	"errors"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/exact"
)

// scaleRule is what only a weight rule has.
type scaleRule struct {
	gain          bool
	least, refill decimal.Decimal
	within        decimal.Decimal
	stableFor     time.Duration
	tare          *expr
}

// scale is what is remembered of a scale between two values.
type scale struct {
	// Last is the weight up to which everything is counted.
	Last decimal.Decimal `json:"l"`
	// The window in which the weight stands still: it began with Anchor at Since (the source's time) and Began (the agent's), and
	// shows Now on what On says. Waits says that it has not stood long enough yet.
	Anchor decimal.Decimal `json:"a"`
	Now    decimal.Decimal `json:"n"`
	Since  time.Time       `json:"s,omitzero"`
	Began  time.Time       `json:"b,omitzero"`
	On     *booked         `json:"o,omitempty"`
	Waits  bool            `json:"w,omitempty"`
	// Ahead is up to where the hub holds what this state, which went back in time, has not counted. Lost says that not even that
	// can be told: the next value is a baseline.
	Ahead *decimal.Decimal `json:"h,omitempty"`
	Lost  bool             `json:"x,omitempty"`
}

func (c *compiler) weight(r *rule) {
	cfg := c.cfg
	s := &scaleRule{gain: c.oneOf("weighs", cfg.Weighs, "loss", "gain") == "gain", stableFor: cfg.StableFor, tare: c.expr("tare", cfg.Tare, false)}
	if cfg.Least == "" {
		c.fault("least", "is missing; give the smallest change that is more than the noise of the scale")
	} else if s.least = c.number("least", cfg.Least, ""); s.least.IsPositive() {
		s.refill, s.within = s.least.Mul(decimal.NewFromInt(5)), s.least.Div(two)
	}
	if cfg.Refill != "" {
		s.refill = c.number("refill", cfg.Refill, "")
	}
	if cfg.StableWithin != "" {
		s.within = c.number("stable_within", cfg.StableWithin, "")
	}
	if s.stableFor < 0 {
		c.fault("stable_for", "%v is negative", s.stableFor)
	}
	if s.stableFor == 0 && cfg.StableWithin != "" {
		c.fault("stable_within", "has a meaning with stable_for only")
	}
	if s.stableFor > 0 && r.closeAt.IsZero() {
		r.closeAt = decimal.New(1, -maxDecimals)
	}
	r.scale = s
}

// readWeight reads the net weight.
func (w *work) readWeight(r *rule, item string, v any) (decimal.Decimal, *fault) {
	d, f := weightOf(item, v)
	if f != nil || r.scale.tare == nil {
		return d, f
	}
	t, err := r.scale.tare.eval(&w.scope)
	if err != nil {
		return d, ruleFailed(r, "tare", err)
	}
	tare, f := weightOf(r.scale.tare.src, t)
	return d.Sub(tare), f
}

func weightOf(item string, v any) (decimal.Decimal, *fault) {
	n, ok := v.(signal.Number)
	if !ok {
		return decimal.Decimal{}, &fault{"wrong_type", item, fmt.Sprintf("weight %q is %s, not a number", item, describe(v)), "point the rule at a number, or say with value: where the number is"}
	}
	d, err := parse(string(n))
	if errors.Is(err, exact.ErrTooLarge) {
		return d, &fault{"too_large", item, fmt.Sprintf("weight %q is %q, which %v", item, excerptText(string(n)), err), "check the type of the tag"}
	}
	if err != nil {
		return d, &fault{"wrong_type", item, fmt.Sprintf("weight %q is %q, not a number", item, excerptText(string(n))), "check the scale: it shows no valid weight"}
	}
	return d.RoundBank(maxDecimals), nil
}

// weigh takes one value of a scale and says whether its state changed. What goes from the scale (or comes onto it) in all is a
// counter of the rule's own, whose positions make the keys: so a count is told once however often the agent starts.
func (w *work) weigh(r *rule, s *signal.Signal, c *counter, sm sample) bool {
	if c.Line == "" || c.Scale == nil || c.Scale.Lost {
		w.newScale(r, s, c, sm)
		return true
	}
	sc := c.Scale
	if !sm.clock.IsZero() && sm.clock.Before(c.Clock) && c.Clock.Sub(sm.clock) <= recent {
		w.say(r.name, "repeated", "a weight from before the last one: it was seen already")
		return false
	}
	c.Seen, c.Clock = sm.seen.UTC(), sm.clock.UTC()
	if r.scale.stableFor == 0 {
		w.settled(r, s, c, sm)
		return true
	}
	if sc.Waits && sm.at.Sub(sc.Since) >= r.scale.stableFor {
		w.settleWindow(r, s, c)
	}
	on := sm.on
	if sm.raw.Sub(sc.Anchor).Abs().GreaterThan(r.scale.within) {
		sc.Anchor, sc.Since, sc.Began, sc.Waits = sm.raw, sm.at.UTC(), w.now.UTC(), true
	}
	sc.Now, sc.On = sm.raw, &on
	if sc.Waits {
		if w.explain != nil {
			w.say(r.name, "waiting", "%s: waits until the weight stands still for %v", sm.raw, r.scale.stableFor)
		}
		w.due(sc.Began.Add(r.scale.stableFor))
	} else {
		if w.explain != nil {
			w.say(r.name, "unchanged", "%s: the weight stands still", sm.raw)
		}
	}
	return true
}

// newScale begins with a weight that nothing is known of before.
func (w *work) newScale(r *rule, s *signal.Signal, c *counter, sm sample) {
	if c.Scale != nil && c.Scale.Lost {
		w.noteGap(r, s, sm.raw)
	}
	w.close(c)
	*c = counter{
		Source: r.source, Tag: r.meter, Line: w.newLine(), Epoch: 1, Seen: sm.seen.UTC(), Clock: sm.clock.UTC(),
		Scale: &scale{Last: sm.raw, Anchor: sm.raw, Now: sm.raw, Since: sm.at.UTC(), Began: w.now.UTC()},
	}
	if r.scale.stableFor > 0 {
		on := sm.on
		c.Scale.On, c.Scale.Waits = &on, true
		w.due(w.now.Add(r.scale.stableFor))
	}
	r.heldOver(c, sm)
	if w.explain != nil {
		w.say(r.name, "baseline", "the first weight seen: what goes from %s on is counted", sm.raw)
	}
}

// noteGap tells of weight that nobody can tell apart any more.
func (w *work) noteGap(r *rule, s *signal.Signal, now decimal.Decimal) {
	w.note(r, s, "weight_gap", fmt.Sprintf("the agent went back in time, and the scale was filled since; counting goes on from %s", now),
		"compare the silo's book with what is booked for this time")
}

// settleWindow counts a weight that stood still long enough.
func (w *work) settleWindow(r *rule, s *signal.Signal, c *counter) {
	sc := c.Scale
	sc.Waits = false
	sm := sample{raw: sc.Now, seen: c.Seen, at: sc.Since.Add(r.scale.stableFor)}
	if sc.On != nil {
		sm.on = *sc.On
	} else {
		sm.on, _ = w.bookOn(r, nil)
	}
	sm.on = w.inShift(r, sm.on, sm.at)
	w.settled(r, s, c, sm)
}

// settleScale is settleWindow for a scale that has nothing more to say.
func (w *work) settleScale(r *rule, cell *cell[counter]) {
	sc := cell.v.Scale
	if sc == nil || !sc.Waits {
		return
	}
	if w.now.Before(sc.Began) { // the clock was set back
		sc.Began, cell.dirty = w.now.UTC(), true
	}
	if due := sc.Began.Add(r.scale.stableFor); due.After(w.now) {
		w.due(due)
		return
	}
	w.settleWindow(r, nil, &cell.v)
	cell.dirty = true
}

// settled counts what a weight says after the last one.
func (w *work) settled(r *rule, s *signal.Signal, c *counter, sm sample) {
	sc := c.Scale
	moved := sc.Last.Sub(sm.raw)
	if r.scale.gain {
		moved = moved.Neg()
	}
	switch {
	case !moved.LessThan(r.scale.least):
		sc.Last = sm.raw
		w.forward(r, s, c, sm, moved)
		c.Raw = c.At
		if sc.Ahead != nil && !c.At.LessThan(*sc.Ahead) {
			sc.Ahead = nil
		}
		w.sayCounted(r, c, sm, moved)
	case !moved.Neg().LessThan(r.scale.refill):
		sc.Last = sm.raw
		if w.explain != nil {
			w.say(r.name, "baseline", "the weight went the other way by %s: counting goes on from %s", moved.Neg(), sm.raw)
		}
		if sc.Ahead != nil {
			w.refilledBehind(r, s, c, sm)
		}
	default:
		if w.explain != nil {
			w.say(r.name, "unchanged", "%s differs from %s by less than counts", sm.raw, sc.Last)
		}
	}
	r.heldOver(c, sm)
}

// refilledBehind begins a new line, because what the hub holds of the present one cannot be told from what comes now.
func (w *work) refilledBehind(r *rule, s *signal.Signal, c *counter, sm sample) {
	w.close(c)
	if s == nil {
		s = &signal.Signal{Tag: r.tag}
	}
	w.noteGap(r, s, sm.raw)
	c.Line, c.Epoch, c.At, c.Raw, c.Told, c.Scale.Ahead = w.newLine(), 1, decimal.Decimal{}, decimal.Decimal{}, false, nil
}

// resumeScale notes that the hub holds more of a scale than this state, which then went back in time. What it counts again up
// to there is trimmed by the hub.
func (c *counter) resumeScale(line string, epoch int, to decimal.Decimal) bool {
	switch {
	case c.Scale == nil || c.Line > line || c.Line == line && (c.Epoch > epoch || c.Epoch == epoch && !to.GreaterThan(c.At)):
		return false
	case c.Line == line && c.Epoch == epoch:
		c.Scale.Ahead = &to
	default:
		c.Scale.Lost = true
	}
	return true
}
