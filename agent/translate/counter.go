package translate

import (
	"fmt"
	"strconv"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// counter is what is remembered of one counted tag.
type counter struct {
	Source string `json:"s,omitempty"` // empty: never seen
	Tag    string `json:"t,omitempty"`
	// Line and Epoch together name the epoch: "<Line>.<Epoch>". A line begins with the time of its start, so that a later
	// line is greater.
	Line  string `json:"l,omitempty"`
	Epoch int    `json:"e,omitempty"`
	// At is the position within the epoch up to which everything is counted; Raw is what the PLC showed there.
	At  decimal.Decimal `json:"a"`
	Raw decimal.Decimal `json:"r"`
	// Seen and Clock are when that was, by the agent's and by the source's clock; zero: it is not known.
	Seen  time.Time `json:"n"`
	Clock time.Time `json:"c"`
	Boot  string    `json:"b,omitempty"`
	// Fresh marks a first epoch that began with nothing remembered, at Base: the hub may know better (ResumeFrom).
	Fresh bool            `json:"f,omitempty"`
	Base  decimal.Decimal `json:"z"`
	// Told says that a fact of this epoch was made.
	Told bool `json:"d,omitempty"`
	// Low is the lowest value seen below Raw while nothing is counted.
	Low *decimal.Decimal `json:"w,omitempty"`
	// Bad says that the value's quality is not Good at present.
	Bad bool `json:"q,omitempty"`
	// Cut is the source's time at which the counter last went down, and High the highest value before that (and before it
	// went down shortly earlier): what comes again from before is recognised by these.
	Cut  time.Time       `json:"x"`
	High decimal.Decimal `json:"h"`
	// Before is the epoch before, until the second value after a reset: the reset may have been a misread.
	Before *past `json:"p,omitempty"`
	Open   *open `json:"o,omitempty"`

	// On is what the last value was booked on, Then its time, and Turns the changes since: for rules that hand over with care.
	On    *booked   `json:"k,omitempty"`
	Then  time.Time `json:"y,omitzero"`
	Turns []turn    `json:"v,omitempty"`
	// Dealt is the share of the steps that the positions of this epoch are told in.
	Dealt *dealt `json:"g,omitempty"`
	// Scale is what is remembered of a scale: At and Raw are then what was taken from it in all.
	Scale *scale `json:"i,omitempty"`
}

type past struct {
	Epoch int             `json:"e"`
	At    decimal.Decimal `json:"a"`
	Raw   decimal.Decimal `json:"r"`
	Told  bool            `json:"d,omitempty"`
}

func (c *counter) epoch() string { return c.Line + "." + strconv.Itoa(c.Epoch) }

func (w *work) counter(r *rule) *cell[counter] {
	return w.counters.get(w.st, r.source+sep+r.meter)
}

// count applies a counter rule to one signal.
func (w *work) count(r *rule, s *signal.Signal) {
	cell := w.counter(r)
	c := &cell.v
	w.muted = r.echo // what one output tells of the value holds for all
	defer func() { w.muted = false }()
	if s.Quality != signal.Good {
		w.badQuality(r, s, cell)
		return
	}
	sm, f := w.sample(r, s)
	if f != nil {
		w.reject(r.source, s, r.name, f.problem())
		return
	}
	if c.Bad {
		c.Bad, cell.dirty = false, true
		w.res.Problems = append(w.res.Problems, SourceProblem{Source: r.source, Key: r.tag})
	}
	w.muted = false
	on, f := w.bookOn(r, s)
	sm.on = w.inShift(r, on, sm.at)
	if c.Line == "" && !r.echo && r.scale == nil {
		w.inherit(r)
	}
	if f != nil {
		if c.Line == "" && r.scale == nil {
			w.firstUncounted(r, c, sm)
			cell.dirty = true
		}
		w.reject(r.source, s, r.name, f.problem())
		return
	}
	w.muted = r.echo
	if r.scale != nil {
		cell.dirty = w.weigh(r, s, c, sm) || cell.dirty
		return
	}
	if !c.Dealt.equal(r.share) {
		w.redeal(r, c)
		cell.dirty = true
	}
	if w.apply(r, s, c, sm) {
		cell.dirty = true
	}
}

// badQuality keeps a value that must not be counted visible: as a reading, and once per episode as a problem.
func (w *work) badQuality(r *rule, s *signal.Signal, cell *cell[counter]) {
	if !w.muted {
		w.reading(r, s)
	}
	if cell.v.Bad {
		return
	}
	cell.v.Bad, cell.dirty = true, true
	p := signal.Problem{
		Code: "bad_quality", Item: s.Tag, Reason: fmt.Sprintf("counter %q has quality %s (%s); nothing is counted until it is good again, and then from the last good value on", s.Tag, s.Quality, s.Status),
		NextStep: "mend the sensor or the connection at the source",
	}
	w.note(r, s, p.Code, p.Reason, p.NextStep)
	w.res.Problems = append(w.res.Problems, SourceProblem{Source: r.source, Key: r.tag, Problem: &p})
}

type verdict uint8

const (
	isFirst verdict = iota
	isSame
	isForward // also over a rollover
	isReset
	isMisread // the reset before was none
	isCorrection
	isAmbiguous
	isJump
	isStillLow
	isOld
)

// judge says what a value means after what was seen before, and by how much the counter moved.
func (r *rule) judge(c *counter, sm sample) (verdict, decimal.Decimal) {
	if c.Line == "" {
		return isFirst, decimal.Decimal{}
	}
	step := sm.raw.Sub(c.Raw)
	rebooted := c.Boot != "" && sm.boot != "" && sm.boot != c.Boot
	if c.old(sm, rebooted) {
		return isOld, step
	}
	if rebooted {
		return isReset, sm.raw
	}
	switch step.Sign() {
	case 0:
		return isSame, step
	case 1:
		return r.judgeForward(c, sm, step)
	}
	if r.modulus.IsPositive() {
		over := step.Add(r.modulus)
		if most, limited := r.most(c, sm); limited && over.LessThanOrEqual(most) || !limited && over.Mul(two).LessThanOrEqual(r.modulus) {
			return isForward, over
		}
	}
	if most, limited := r.most(c, sm); limited && sm.raw.LessThanOrEqual(most) || !limited && sm.raw.Mul(two).LessThanOrEqual(c.Raw) {
		return isReset, sm.raw
	}
	return r.judgeBackward(c, sm, step)
}

var two, sixteen = decimal.NewFromInt(2), decimal.NewFromInt(16)

func (r *rule) judgeForward(c *counter, sm sample, step decimal.Decimal) (verdict, decimal.Decimal) {
	most, limited := r.most(c, sm)
	far := !limited && r.modulus.IsPositive() && step.Sub(r.modulus).Neg().Mul(sixteen).LessThan(r.modulus)
	if far || limited && step.GreaterThan(most) {
		// Nearly once round, or too fast: this may be a small step back over the rollover.
		if back := step.Sub(r.modulus); r.modulus.IsPositive() && c.openFrom(back) {
			return isCorrection, back
		}
	}
	if far {
		return r.judgeBackward(c, sm, step.Sub(r.modulus))
	}
	if !limited || step.LessThanOrEqual(most) {
		return isForward, step
	}
	if b := c.Before; b != nil && !c.Told {
		if back := sm.raw.Sub(b.Raw); !back.IsNegative() && back.LessThanOrEqual(most) {
			return isMisread, back
		}
	}
	return isJump, step
}

func (r *rule) judgeBackward(c *counter, sm sample, step decimal.Decimal) (verdict, decimal.Decimal) {
	if c.openFrom(step) {
		return isCorrection, step
	}
	if c.Low != nil && !sm.raw.LessThan(*c.Low) {
		return isStillLow, step
	}
	return isAmbiguous, step
}

// recent is how far back in the source's time a value is taken for one that comes again after a restart. One that lies
// further back comes from a clock that was set.
const recent = time.Hour

// old tells a value that was counted before and comes again: it is older than the last one, and lower, or from before the
// counter last went down.
func (c *counter) old(sm sample, rebooted bool) bool {
	if sm.clock.IsZero() || !sm.clock.Before(c.Clock) || c.Clock.Sub(sm.clock) > recent {
		return false
	}
	return rebooted || sm.raw.LessThan(c.Raw) || sm.clock.Before(c.Cut) && !sm.raw.GreaterThan(c.High)
}

// cut notes that the counter went down, by rollover, reset or correction: higher values from before are old ones.
func (c *counter) cut(sm sample) {
	if c.High = decimal.Max(c.High, c.Raw); sm.clock.Sub(c.Cut) > recent {
		c.High = c.Raw
	}
	c.Cut = sm.clock.UTC()
}

// openFrom tells whether a step back stays within what is open.
func (c *counter) openFrom(step decimal.Decimal) bool {
	return c.Open != nil && !c.At.Add(step).LessThan(c.Open.From)
}

// most is how far the counter can have come since it was seen last, a second of grace included; limited is false when
// nothing limits it. Of the two clocks the more generous counts: either may have stood still.
func (r *rule) most(c *counter, sm sample) (d decimal.Decimal, limited bool) {
	if !r.maxPerSecond.IsPositive() || c.Seen.IsZero() {
		return d, false
	}
	elapsed := max(sm.seen.Sub(c.Seen), 0)
	if !c.Clock.IsZero() && !sm.clock.IsZero() {
		elapsed = max(elapsed, sm.clock.Sub(c.Clock))
	}
	return r.maxPerSecond.Mul(decimal.New(int64((elapsed+time.Second)/time.Millisecond), -3)), true
}

// apply counts one value and says whether the counter changed.
func (w *work) apply(r *rule, s *signal.Signal, c *counter, sm sample) bool {
	v, step := r.judge(c, sm)
	switch v {
	case isFirst:
		w.first(r, s, c, sm)
	case isSame:
		if w.explain != nil {
			w.say(r.name, "unchanged", "the counter stands at %s", sm.raw)
		}
		return r.same(c, sm)
	case isForward:
		c.Low, c.Before = nil, nil
		w.forward(r, s, c, sm, step)
		w.sayCounted(r, c, sm, step)
	case isReset:
		w.reset(r, s, c, sm)
	case isMisread:
		w.misread(r, s, c, sm, step)
	case isCorrection:
		w.correct(r, s, c, sm, step)
	case isStillLow:
		if w.explain != nil {
			w.say(r.name, "waiting", "still below %s, which is confirmed: nothing is counted until the counter passes it", c.Raw)
		}
		return false
	case isOld:
		w.note(r, s, "counter_old_value", fmt.Sprintf("counter %q is %s with a time before that of the %s already counted; it is left out", s.Tag, sm.raw, c.Raw),
			"nothing to do after a restart, when messages come a second time; otherwise check the clock of the source")
		return false
	case isAmbiguous, isJump:
		w.refuseStep(r, s, c, sm, v)
		return true
	}
	if sm.raw.LessThan(c.Raw) {
		c.cut(sm)
	}
	c.Raw, c.Seen, c.Clock = sm.raw, sm.seen.UTC(), sm.clock.UTC()
	if sm.boot != "" {
		c.Boot = sm.boot
	}
	r.heldOver(c, sm)
	return true
}

// sayCounted explains what became of a step.
func (w *work) sayCounted(r *rule, c *counter, sm sample, step decimal.Decimal) {
	if w.explain == nil {
		return
	}
	text := fmt.Sprintf("%s more", step)
	switch o := c.Open; {
	case o == nil:
		text += ", which is confirmed"
	case w.waits(c):
		text += "; it waits for the hub, which may know the counter"
	case r.assignNext && o.Booked.Order == "":
		text += fmt.Sprintf("; %s wait for the next order", o.Qty)
	default:
		text += fmt.Sprintf("; %s %s %s open, confirmed by %s at the latest", o.Qty, spoken(o.Booked.Unit), o.Booked.Counts, o.Since.Add(r.every).Format(time.RFC3339))
	}
	for _, c := range [][2]string{{"reason", sm.on.Reason}, {"lot", sm.on.Lot}, {"person", sm.on.Person}, {"factor", sm.on.Factor}, {"shift", sm.on.Shift}} {
		if c[1] != "" {
			text += ", " + c[0] + " " + c[1]
		}
	}
	w.explain.add("", w.now, Step{Rule: r.name, Outcome: "counted", Text: text, OrderNo: sm.on.Order})
}

// same notes that the counter stood still. The time matters only where a speed is judged.
func (r *rule) same(c *counter, sm sample) bool {
	changed := c.Low != nil || sm.boot != "" && sm.boot != c.Boot
	c.Low = nil
	if sm.boot != "" {
		c.Boot = sm.boot
	}
	if r.maxPerSecond.IsPositive() {
		c.Seen, c.Clock, changed = sm.seen.UTC(), sm.clock.UTC(), true
	}
	return r.heldOver(c, sm) || changed
}

// newLine names a line of epochs: when it began, and four random characters.
func (w *work) newLine() string {
	return w.now.UTC().Format("20060102T150405-") + w.t.newKey().String()[:4]
}

// firstUncounted begins with a value on which nothing can be counted yet: what is counted from it waits in the counter.
func (w *work) firstUncounted(r *rule, c *counter, sm sample) {
	at := sm.raw
	if r.fromZero {
		at = decimal.Decimal{}
	}
	*c = counter{Source: r.source, Tag: r.meter, Line: w.newLine(), Epoch: 1, At: at, Base: at, Raw: at, Fresh: true, Seen: sm.seen.UTC(), Clock: sm.clock.UTC(), Boot: sm.boot}
}

func (w *work) first(r *rule, s *signal.Signal, c *counter, sm sample) {
	*c = counter{Source: r.source, Tag: r.meter, Line: w.newLine(), Epoch: 1, At: sm.raw, Base: sm.raw, Fresh: true, Dealt: c.Dealt}
	if r.fromZero && sm.raw.IsPositive() {
		c.At, c.Base = decimal.Decimal{}, decimal.Decimal{}
		w.forward(r, s, c, sm, sm.raw)
		w.sayCounted(r, c, sm, sm.raw)
		return
	}
	if w.explain != nil {
		w.say(r.name, "baseline", "the first value seen of this counter: counting begins from %s", sm.raw)
	}
}

// reset begins a new epoch.
func (w *work) reset(r *rule, s *signal.Signal, c *counter, sm sample) {
	w.close(c)
	certain := c.Boot != "" && sm.boot != "" && sm.boot != c.Boot
	told := r.wentBack(c, sm, pb.CounterStep_OUTCOME_FROM_ZERO)
	told.Booted = certain
	before := &past{Epoch: c.Epoch, At: c.At, Raw: c.Raw, Told: c.Told}
	c.Epoch++
	c.Fresh, c.Told, c.Low = false, false, nil
	if r.hold && !certain {
		c.At, c.Before = sm.raw, nil
		told.Outcome = pb.CounterStep_OUTCOME_HELD
		w.rejectStep(r, s, signal.Problem{
			Code: "counter_reset", Item: s.Tag, Reason: fmt.Sprintf("counter %q went from %s to %s; up to %s may be uncounted, and counting goes on from %s", s.Tag, c.Raw, sm.raw, sm.raw, sm.raw),
			NextStep: "count what was made since the reset and book it by hand, or set reset: restart",
		}, told)
		return
	}
	w.noteStep(r, s, "counter_reset", fmt.Sprintf("counter %q was set back from %s to %s; the %s since then are counted", s.Tag, c.Raw, sm.raw, sm.raw),
		"nothing to do if the counter was set to zero; use a counter that nobody resets if you can", told)
	c.At = decimal.Decimal{}
	if sm.raw.IsPositive() {
		w.forward(r, s, c, sm, sm.raw)
	}
	if !certain {
		c.Before = before
	}
}

// misread takes a reset back that was none.
func (w *work) misread(r *rule, s *signal.Signal, c *counter, sm sample, step decimal.Decimal) {
	if o := c.Open; o != nil {
		w.row(o.Booked.row(c.Source)).count(o.Qty.Neg())
		c.Open = nil
	}
	b := c.Before
	w.note(r, s, "counter_misread", fmt.Sprintf("counter %q read %s once between %s and %s; that value is taken for a misread, and counting goes on from %s", s.Tag, c.Raw, b.Raw, sm.raw, b.Raw),
		"check the counts around this time if the counter really was set back")
	c.Epoch, c.At, c.Told, c.Before, c.Low = b.Epoch, b.At, b.Told, nil, nil
	if step.IsPositive() {
		w.forward(r, s, c, sm, step)
	}
}

// correct takes parts off that were counted and not yet confirmed.
func (w *work) correct(r *rule, s *signal.Signal, c *counter, sm sample, step decimal.Decimal) {
	o, told := c.Open, r.wentBack(c, sm, pb.CounterStep_OUTCOME_CORRECTED)
	less := r.share.gain(c.At, c.At.Add(step)).Mul(o.Booked.factor(r))
	w.row(o.Booked.row(c.Source)).count(less)
	o.Qty, c.At, c.Before = o.Qty.Add(less), c.At.Add(step), nil
	c.Low = nil
	w.noteStep(r, s, "counter_decrement", fmt.Sprintf("counter %q went back by %s; that is taken off the counts that are not yet confirmed", s.Tag, step.Neg()),
		"nothing to do if parts were taken off the counter on purpose", told)
}

func (w *work) refuseStep(r *rule, s *signal.Signal, c *counter, sm sample, v verdict) {
	if v == isJump {
		w.reject(r.source, s, r.name, signal.Problem{
			Code: "counter_jump", Item: s.Tag, Reason: fmt.Sprintf("counter %q went from %s to %s, faster than max_per_second %s allows; it is not counted until enough time has passed", s.Tag, c.Raw, sm.raw, r.maxPerSecond),
			NextStep: "check the counter; raise max_per_second of the rule if the machine is that fast",
		})
		return
	}
	c.Low = &sm.raw
	w.rejectStep(r, s, signal.Problem{
		Code: "counter_decrement", Item: s.Tag, Reason: fmt.Sprintf("counter %q went back from %s to %s, below what is confirmed; nothing is counted until it passes %s again", s.Tag, c.Raw, sm.raw, c.Raw),
		NextStep: "if the counter was set to this value by hand, correct the booked quantity by hand; use a counter that nobody sets",
	}, r.wentBack(c, sm, pb.CounterStep_OUTCOME_WAITS))
}

// wentBack is what is told of a step back, before the counter's memory follows it.
func (r *rule) wentBack(c *counter, sm sample, outcome pb.CounterStep_Outcome) *stepBack {
	return &stepBack{Tag: c.Tag, Epoch: c.epoch(), Last: c.Raw, Now: sm.raw, LastAt: c.Seen, At: sm.seen.UTC(), Modulus: r.modulus, Most: r.maxPerSecond, Outcome: outcome}
}
