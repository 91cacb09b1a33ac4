package reconcile

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/shopspring/decimal"
)

// CheckStep judges two successive values of a counter; nil when the counter only went up.
func CheckStep(s Step) *Finding {
	if s.New.GreaterThanOrEqual(s.Last) {
		return nil
	}
	back := s.Last.Sub(s.New)
	f := Finding{Type: CounterReset, Plant: s.Plant, Subject: fmt.Sprintf("counter %s/%s/%s/%s", s.Plant, s.Agent, s.Source, s.Tag), Severity: Medium, Owner: Automation, Delta: s.New.Sub(s.Last),
		Left: Side{"last value", s.Last.String()}, Right: Side{"new value", s.New.String()}, Since: s.At,
		Evidence: []Evidence{{Kind: "counter", Ref: s.Tag, Text: fmt.Sprintf("%s at %s, %s at %s", s.Last, s.LastAt.Format(time.RFC3339), s.New, s.At.Format(time.RFC3339))}}}
	elapsed := decimal.New(s.At.Sub(s.LastAt).Milliseconds(), -3)
	turned := s.Modulus.Sub(s.Last).Add(s.New)
	switch {
	case s.NewEpoch:
		f.Proposed = Action{Kind: CountFromZero, Quantity: s.New, Text: "count from zero: the device has booted"}
		f.decide(false, "", "the epoch changed, so the counter began again")
	case s.Modulus.IsPositive() && s.Last.LessThan(s.Modulus) && turned.LessThanOrEqual(s.MaxRate.Mul(elapsed)):
		f.Proposed = Action{Kind: CountRollover, Quantity: turned, Text: fmt.Sprintf("count %s: the counter turned over at %s", turned, s.Modulus)}
		f.decide(false, "", "what a rollover would mean can have been made in that time")
	case !s.New.IsZero() && s.HourOutput.IsPositive() && back.LessThan(s.Last.Div(decimal.NewFromInt(2))):
		f.Type = CounterStep
		f.Proposed = Action{Kind: Correct, Quantity: back.Neg(), Text: fmt.Sprintf("take %s off the last counts", back)}
		f.decide(back.GreaterThan(s.HourOutput), fmt.Sprintf("%s is more than the machine makes in an hour", back), "a small step back without a boot is rework or a correction")
	default:
		f.Proposed = Action{Kind: Ask, Text: "say whether the counter was reset or turned over: nothing is counted until then"}
		f.decide(true, "neither a boot nor a rollover explains it", "")
	}
	return &f
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
	f.decide(!g.Buffered, "the agent's buffer does not have them any more", "the agent still has them")
	return &f
}

// CheckBalance judges a stock at one instant; nil when it is what opening and movements say.
func CheckBalance(b Balance) *Finding {
	drift := b.Held.Sub(b.Opening.Add(b.Movements))
	seen := []Evidence{{Kind: "balance", Ref: b.Item, Text: fmt.Sprintf("opening %s, movements %s, held %s as of %s", b.Opening, b.Movements, b.Held, b.AsOf.Format(time.RFC3339))}}
	if b.Held.IsNegative() {
		f := Finding{Evidence: seen, Type: Deficit, Plant: b.Plant, ERP: b.ERP, Subject: fmt.Sprintf("stock %s/%s item %s lot %s", b.ERP, b.Site, b.Item, b.Lot), Severity: High, Owner: Warehouse, Delta: b.Held,
			Item: b.Item, Unit: b.Unit, Left: Side{"least possible", "0"}, Right: Side{b.ERP + " balance", b.Held.String()}, Since: b.AsOf,
			Proposed: Action{Kind: WaitReceipt, Item: b.Item, Quantity: b.Held.Neg(), Unit: b.Unit, Text: "wait for the receipt that is missing"}}
		f.decide(len(b.Unposted) == 0, "no receipt is under way", "a receipt is under way")
		return &f
	}
	if drift.IsZero() {
		return nil
	}
	f := Finding{Type: BalanceDrift, Plant: b.Plant, ERP: b.ERP, Subject: fmt.Sprintf("stock %s/%s item %s lot %s", b.ERP, b.Site, b.Item, b.Lot), Severity: Medium, Owner: Warehouse,
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
