package translate

import (
	"errors"
	"fmt"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/exact"
)

// sample is a value of a counter, checked, with what belongs to it.
type sample struct {
	raw         decimal.Decimal
	boot        string
	seen, clock time.Time // by the agent's and by the source's clock, which may be zero
	at          time.Time // when it happened
	on          booked    // what a count is booked on now
}

func (w *work) sample(r *rule, s *signal.Signal) (sample, *fault) {
	w.scope = scope{sig: s, source: r.source, work: w}
	sm := sample{seen: s.ReceivedTime, at: w.timeOf(s)}
	if sm.seen.IsZero() {
		sm.seen = w.now
	}
	if plausible(s.SourceTime) {
		sm.clock = s.SourceTime
	}
	v, item := s.Value, s.Tag
	if r.value != nil {
		var err error
		item = r.value.src
		if v, err = r.value.eval(&w.scope); err != nil {
			return sm, ruleFailed(r, "value", err)
		}
	}
	if r.occurred != nil {
		t, err := r.occurred.eval(&w.scope)
		if err != nil {
			return sm, ruleFailed(r, "occurred_at", err)
		}
		at, ok := readTime(t, w.t.zone)
		if !ok {
			return sm, &fault{"bad_time", r.occurred.src, fmt.Sprintf("%s is %s, not a time", r.occurred.src, describe(t)), "write times as 2026-03-01T12:00:00+01:00"}
		}
		sm.clock, sm.at = at, at
	}
	if r.boot != nil {
		b, err := r.boot.eval(&w.scope)
		if err != nil {
			return sm, ruleFailed(r, "boot", err)
		}
		sm.boot = plain(b)
	}
	var f *fault
	if r.scale != nil {
		sm.raw, f = w.readWeight(r, item, v)
	} else {
		sm.raw, f = readCount(r, item, v)
	}
	return sm, f
}

func readCount(r *rule, item string, v any) (decimal.Decimal, *fault) {
	n, ok := v.(signal.Number)
	if !ok {
		return decimal.Decimal{}, &fault{"wrong_type", item, fmt.Sprintf("counter %q is %s, not a number", item, describe(v)), "point the tag at a numeric counter, or say with value: where the number is"}
	}
	d, err := parse(string(n))
	switch {
	case errors.Is(err, exact.ErrTooLarge):
		return d, &fault{"too_large", item, fmt.Sprintf("counter %q is %q, which %v", item, excerptText(string(n)), err), "check the type of the tag"}
	case err != nil:
		return d, &fault{"wrong_type", item, fmt.Sprintf("counter %q is %q, not a number", item, excerptText(string(n))), "check the program of the PLC: the counter has no valid value"}
	case d.IsNegative():
		return d, &fault{"negative_count", item, fmt.Sprintf("counter %q is %s; a counter is never below zero", item, d), "check the type of the tag (a 16-bit counter read as signed?)"}
	case whole(r.unit) && !d.IsInteger():
		return d, &fault{"not_whole", item, fmt.Sprintf("counter %q is %s, but it counts %s", item, d, spoken(r.unit)), "point the tag at a whole-numbered counter, or correct the unit of the rule"}
	case r.modulus.IsPositive() && d.GreaterThanOrEqual(r.modulus):
		return d, &fault{"over_modulus", item, fmt.Sprintf("counter %q is %s, but rule %q says that it rolls over at %s", item, d, r.name, r.modulus), "correct the modulus of the rule"}
	case -d.Exponent() > maxDecimals:
		d = d.RoundBank(maxDecimals)
	}
	return d, nil
}
