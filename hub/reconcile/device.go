package reconcile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
)

const secondsPerHour = 3600

// StepOf is what an agent tells of a counter that went back. fact is the key of its report.
func StepOf(plant, agent, source, fact string, s object.CounterStep) Step {
	return Step{Plant: plant, Agent: agent, Source: source, Tag: s.Tag, Last: s.Last, New: s.Now, LastAt: s.LastAt, At: s.At, Modulus: s.Modulus, MaxRate: s.MaxPerSecond,
		NewEpoch: s.Booted, HourOutput: s.MaxPerSecond.Mul(decimal.NewFromInt(secondsPerHour)), Made: s.Outcome, Fact: fact}
}

// CheckStep judges two successive values of a counter; nil when the counter only went up. What the agent has made of them already
// is judged too: nothing is left to do where the rules would have done the same.
func CheckStep(s Step) *Finding {
	back := s.Last.Sub(s.New)
	if !back.IsPositive() && s.Made != "" && !s.NewEpoch {
		back = back.Add(s.Modulus) // back over the rollover
	}
	if !back.IsPositive() && !s.NewEpoch {
		return nil
	}
	f := Finding{Type: CounterReset, Plant: s.Plant, Subject: fmt.Sprintf("counter %s/%s/%s/%s", s.Plant, s.Agent, s.Source, s.Tag), Severity: Medium, Owner: Automation, Delta: s.New.Sub(s.Last),
		Left: Side{"last value", s.Last.String()}, Right: Side{"new value", s.New.String()}, Since: s.At,
		Evidence: []Evidence{{Kind: "counter", Ref: s.Tag, Text: s.text()}}}
	elapsed := decimal.New(s.At.Sub(s.LastAt).Milliseconds(), -3)
	turned := s.Modulus.Sub(s.Last).Add(s.New)
	switch {
	case s.NewEpoch:
		f.Proposed = Action{Kind: CountFromZero, Quantity: s.New, Text: "count from zero: the device has booted"}
		f.decide(false, "", "the epoch changed, so the counter began again")
	case s.Modulus.IsPositive() && s.Last.LessThan(s.Modulus) && turned.LessThanOrEqual(s.MaxRate.Mul(elapsed)):
		f.Proposed = Action{Kind: CountRollover, Quantity: turned, Text: fmt.Sprintf("count %s: the counter turned over at %s", turned, s.Modulus)}
		f.decide(false, "", "what a rollover would mean can have been made in that time")
	case s.Made == object.StepWaits || s.Made == object.StepCorrected || !s.New.IsZero() && s.HourOutput.IsPositive() && back.LessThan(s.Last.Div(decimal.NewFromInt(2))):
		f.Type = CounterStep
		f.Proposed = Action{Kind: Correct, Quantity: back.Neg(), Text: fmt.Sprintf("take %s off the last counts", back)}
		much := s.HourOutput.IsPositive() && back.GreaterThan(s.HourOutput)
		f.decide(much, fmt.Sprintf("%s is more than the machine makes in an hour", back), "a small step back without a boot is rework or a correction")
	default:
		f.Proposed = Action{Kind: Ask, Text: "say whether the counter was reset or turned over: nothing is counted until then"}
		f.decide(true, "neither a boot nor a rollover explains it", "")
	}
	if s.Fact != "" {
		f.Evidence = append(f.Evidence, Evidence{Kind: "fact", Ref: s.Fact, Text: "the agent's report"})
	}
	f.made(s, back)
	return &f
}

// made judges what the agent has made of a step.
func (f *Finding) made(s Step, back decimal.Decimal) {
	switch {
	case s.Made == "":
	case s.Made == object.StepFromZero && f.Proposed.Kind == CountFromZero:
		f.Done = fmt.Sprintf("the agent counted %s from zero: the device has booted", s.New)
	case s.Made == object.StepCorrected && !f.Escalate:
		f.Done = fmt.Sprintf("the agent took %s off counts that were not yet confirmed", back)
	case s.Made == object.StepFromZero:
		f.Severity, f.Escalate, f.Heal = Low, false, false
		f.Why = "no mark of the device says that it began again: the rule took it so"
		f.Proposed = Action{Kind: Ask, Quantity: s.New, Text: fmt.Sprintf("accept it if the counter was set to zero: %s are counted since; otherwise take back what is too much", s.New)}
	case s.Made == object.StepCorrected:
		f.Proposed = Action{Kind: Ask, Quantity: back.Neg(), Text: fmt.Sprintf("accept it if %s were taken off on purpose: they are off counts that were not yet confirmed; otherwise book them by hand", back)}
	case s.Made == object.StepHeld:
		f.Escalate, f.Heal, f.Why = true, false, "the rule holds it for a person, and counting goes on from the new value"
		f.Proposed = Action{Kind: Ask, Quantity: s.New, Text: fmt.Sprintf("book what was made up to %s that is not counted (%s if the counter began at zero) in the outside system, or nothing; then accept it with a note", s.New, s.New)}
	default: // it waits
		f.Escalate, f.Heal, f.Why = true, false, fmt.Sprintf("it went below what is confirmed: nothing is counted until the counter passes %s again", s.Last)
		f.Proposed = Action{Kind: Ask, Quantity: back.Neg(), Text: fmt.Sprintf("say whether %s were taken off, reset or misread; book or take back the difference in the outside system, then accept it with a note", back)}
	}
}

func (s *Step) text() string {
	text := fmt.Sprintf("%s at %s, %s at %s", s.Last, orNever(s.LastAt), s.New, s.At.Format(time.RFC3339))
	if s.Modulus.IsPositive() {
		text += ", turns over at " + s.Modulus.String()
	}
	if s.MaxRate.IsPositive() {
		text += ", at most " + s.MaxRate.String() + " a second"
	}
	if s.Made != "" {
		text += ", " + strings.ReplaceAll(string(s.Made), "_", " ")
	}
	return text
}

func orNever(t time.Time) string {
	if t.IsZero() {
		return "an unknown time"
	}
	return t.Format(time.RFC3339)
}

// CheckGap judges a jump in a source's sequence.
func CheckGap(g Gap) *Finding {
	if g.Got <= g.Expected {
		return nil
	}
	n := g.Got - g.Expected
	f := Finding{Type: SequenceGap, Plant: g.Plant, Subject: fmt.Sprintf("source %s/%s/%s from %d", g.Plant, g.Agent, g.Source, g.Expected), Severity: High, Owner: Automation, Delta: decimal.NewFromUint64(n),
		Left: Side{"expected", fmt.Sprint(g.Expected)}, Right: Side{"got", fmt.Sprint(g.Got)}, Since: g.At,
		Evidence: []Evidence{{Kind: "sequence", Ref: g.Source, Text: fmt.Sprintf("%d records, %d to %d", n, g.Expected, g.Got-1)}}}
	f.Proposed = Action{Kind: Replay, Text: fmt.Sprintf("ask the agent for records %d to %d again", g.Expected, g.Got-1)}
	if !g.Buffered {
		f.Proposed = Action{Kind: Ask, Text: fmt.Sprintf("bring records %d to %d from a copy of the agent's folder or an export (synchub import), or compare the tally with the source, book the difference and accept it with a note", g.Expected, g.Got-1)}
	}
	f.decide(!g.Buffered, cmp.Or(g.Cause, "the agent's buffer does not have them any more"), "the agent still has them")
	return &f
}

// CheckMissed judges records that a source numbered and that no agent has: there is nobody who could send them again.
func CheckMissed(m Missed) *Finding {
	if m.Records == 0 {
		return nil
	}
	f := Finding{Type: SequenceGap, Plant: m.Plant, Subject: fmt.Sprintf("source %s/%s/%s %s", m.Plant, m.Agent, m.Source, m.Item), Severity: Medium, Owner: Automation, Delta: decimal.NewFromUint64(m.Records),
		Left: Side{"missing", fmt.Sprintf("at least %d", m.Records)}, Right: Side{"what the agent saw", m.Reason}, Since: m.At,
		Evidence: []Evidence{{Kind: "sequence", Ref: m.Item, Text: m.Reason}},
		Proposed: Action{Kind: Ask, Text: "compare the counts of this time with the source, book the difference, and accept it with a note; let the source store and forward"}}
	f.decide(true, "the source does not send them again", "")
	return &f
}

// Subject names the stock, as in its discrepancies.
func (b *Balance) Subject() string {
	place := b.Site
	if b.Storage != "" {
		place += "/" + b.Storage
	}
	return fmt.Sprintf("stock %s/%s item %s lot %s", b.ERP, place, b.Item, b.Lot)
}

// CheckBalance judges a stock at one instant; nil when it is what opening and movements say.
func CheckBalance(b Balance) *Finding {
	drift := b.Held.Sub(b.Opening.Add(b.Movements))
	seen := []Evidence{{Kind: "balance", Ref: b.Item, Text: fmt.Sprintf("opening %s, movements %s, held %s as of %s", b.Opening, b.Movements, b.Held, b.AsOf.Format(time.RFC3339))}}
	if b.Held.IsNegative() {
		f := Finding{Evidence: seen, Type: Deficit, Plant: b.Plant, ERP: b.ERP, Subject: b.Subject(), Severity: High, Owner: Warehouse, Delta: b.Held,
			Item: b.Item, Unit: b.Unit, Left: Side{"least possible", "0"}, Right: Side{b.ERP + " balance", b.Held.String()}, Since: b.AsOf,
			Proposed: Action{Kind: WaitReceipt, Item: b.Item, Quantity: b.Held.Neg(), Unit: b.Unit, Text: "wait for the receipt that is missing"}}
		f.Facts = slices.Sorted(maps.Keys(b.Receipts))
		if len(b.Receipts) == 0 {
			f.Proposed = Action{Kind: Ask, Item: b.Item, Quantity: b.Held.Neg(), Unit: b.Unit, Text: "post the receipt that is missing, or count the stock"}
		}
		f.decide(len(b.Receipts) == 0, "no receipt is under way", "a receipt is under way")
		return &f
	}
	if drift.IsZero() {
		return nil
	}
	f := Finding{Type: BalanceDrift, Plant: b.Plant, ERP: b.ERP, Subject: b.Subject(), Severity: Medium, Owner: Warehouse,
		Delta: drift, Item: b.Item, Unit: b.Unit, Left: Side{"opening and movements", b.Opening.Add(b.Movements).String()}, Right: Side{b.ERP + " balance", b.Held.String()}, Since: b.AsOf,
		Evidence: seen}
	if !b.ReadTwice {
		f.Proposed = Action{Kind: ReadAgain, Item: b.Item, Text: "read both sides again at one instant"}
		f.decide(false, "", "a movement may have happened between the two readings")
		return &f
	}
	// One fact whose movement is not in the books and that is exactly the drift explains it.
	for _, key := range slices.Sorted(maps.Keys(b.Unposted)) {
		if b.Unposted[key].Neg().Equal(drift) {
			f.Facts = []string{key}
			f.Proposed = Action{Kind: LookUpAndSend, Fact: key, Item: b.Item, Quantity: drift.Neg(), Unit: b.Unit, Text: "post the movement of fact " + key + ", which explains the difference"}
			f.decide(false, "", "a missing movement explains it")
			return &f
		}
	}
	f.Proposed = Action{Kind: Ask, Item: b.Item, Quantity: drift, Unit: b.Unit, Text: "count the stock"}
	f.decide(true, "no missing movement explains it", "")
	return &f
}
