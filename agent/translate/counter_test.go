package translate

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const counterRule = `
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: press1}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: press1, unit: C62, %s}
`

func counterLine(t testing.TB, extra string) *line {
	t.Helper()
	if extra == "" {
		extra = "equipment: press1"
	}
	l := newLine(t, rules(t, fmt.Sprintf(counterRule, extra)))
	l.send("plc", signal.Signal{Tag: "order", Value: "A"})
	return l
}

// see sends one counter value.
func (l *line) see(v any) string {
	l.t.Helper()
	if s, ok := v.(string); ok {
		v = num(s)
	}
	return codes(l.send("plc", signal.Signal{Tag: "good", Value: v}))
}

// What is counted, and what is said about it, for every way a counter can move.
func TestEveryMoveOfACounterIsJudged(t *testing.T) {
	for _, c := range []struct {
		name, rule string
		values     string // "+10s" moves the clock
		counted    string
		codes      string
	}{
		{"first value is the baseline", "", "500", "", ""},
		{"first value counts from zero when asked", "start_from_zero: true", "500", "500", ""},
		{"steps", "", "500 500 503 510", "10", ""},
		{"factor", `factor: "0.5"`, "0 3 4", "2", ""},
		{"rollover", `modulus: "100"`, "95 99 3", "8", ""},
		{"rollover to zero", `modulus: "100"`, "95 0", "5", ""},
		{"rollover at possible speed", `modulus: "100", max_per_second: "1"`, "95 +10s 4", "9", ""},
		{"no rollover at that speed, but a reset", `modulus: "1000", max_per_second: "1"`, "800 +10s 4", "4", "counter_reset"},
		{"reset", "", "500 510 3 5", "15", "counter_reset"},
		{"reset to zero", "", "500 0 5", "5", "counter_reset"},
		{"reset held for a person", "reset: hold", "500 510 3 5", "12", "counter_reset"},
		{"correction within what is open", "", "500 510 505 512", "12", "counter_decrement"},
		{"correction over the rollover", `modulus: "1000"`, "990 4 998 3", "13", "counter_decrement"},
		{"long outage of a counter that rolls over", `modulus: "1000"`, "100 900", "800", ""},
		{"back over the rollover, below what is confirmed", `modulus: "1000"`, "990 4 +61s 998 999 4 6", "16", "counter_decrement"},
		{"back below what is confirmed waits", "", "500 510 +61s 505 507 510 511", "11", "counter_decrement"},
		{"lower and lower is told once a minute", "", "500 +61s 490 480 +61s 470 501", "1", "counter_decrement counter_decrement"},
		{"jump is not counted", `max_per_second: "2"`, "500 +1s 900 +1s 502", "2", "counter_jump"},
		{"jump is counted once it is possible", `max_per_second: "2"`, "500 +1s 600 +60s 600", "100", "counter_jump"},
		{"misread zero", `max_per_second: "2"`, "500 +1s 502 +1s 0 +1s 504", "4", "counter_reset counter_misread"},
		{"bad values between good ones lose nothing", "", "500 NaN x -5 1.5 503", "3", "wrong_type negative_count not_whole"},
		{"value beyond the modulus", `modulus: "100"`, "5 100 7", "2", "over_modulus"},
		{"a monster of a number", "", "5 1e60 7", "2", "too_large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := counterLine(t, c.rule)
			start := len(l.facts)
			for _, v := range strings.Fields(c.values) {
				if d, ok := strings.CutPrefix(v, "+"); ok {
					wait, err := time.ParseDuration(d)
					if err != nil {
						t.Fatal(err)
					}
					l.tick(wait)
					continue
				}
				l.see(v)
			}
			got := codes(l.facts[start:])
			l.tick(2 * time.Minute)
			if got != c.codes {
				t.Errorf("told %q, want %q", got, c.codes)
			}
			want := ""
			if c.counted != "" {
				want = "A yield: " + c.counted + " counted, " + c.counted + " stored"
			}
			if l.ledger() != want {
				t.Errorf("ledger is %q, want %q", l.ledger(), want)
			}
		})
	}
}

func TestWrongTypesOfACounterAreNamed(t *testing.T) {
	for _, v := range []any{"text", true, nil, []any{num("1")}, map[string]any{"n": num("1")}, []byte("5")} {
		l := counterLine(t, "")
		l.see("10")
		l.send("plc", signal.Signal{Tag: "good", Value: v})
		if len(l.quarantined) != 1 || l.quarantined[0].Code != "wrong_type" || l.quarantined[0].NextStep == "" {
			t.Errorf("value %v: quarantine holds %+v", v, l.quarantined)
		}
		l.see("12")
		if got, want := l.ledger(), "A yield: 2 counted, 0 stored"; got != want {
			t.Errorf("after value %v the ledger is %q, want %q", v, got, want)
		}
	}
}

func TestBadQualityIsNeverCountedAndShownUntilItIsGood(t *testing.T) {
	l := counterLine(t, "")
	l.see("10")
	for _, v := range []string{"999", "0"} {
		l.send("plc", signal.Signal{Tag: "good", Value: num(v), Quality: signal.Bad, Status: "BadSensorFailure"})
	}
	if len(l.readings) != 2 || l.readings[0].Quality != "bad" || l.readings[0].Value != "999" {
		t.Errorf("readings are %v", l.readings)
	}
	if len(l.problems) != 1 || l.problems[0].Problem == nil || l.problems[0].Key != "good" {
		t.Fatalf("problems are %+v", l.problems)
	}
	l.see("13")
	if len(l.problems) != 2 || l.problems[1].Problem != nil {
		t.Errorf("the problem is not taken back: %+v", l.problems)
	}
	if got, want := l.ledger(), "A yield: 3 counted, 0 stored"; got != want {
		t.Errorf("ledger is %q, want %q", got, want)
	}
	if got := codes(l.facts); got != "bad_quality" {
		t.Errorf("told %q, want one bad_quality", got)
	}
}

func TestConfirmationClosesByQuantityTimeAndOrderChange(t *testing.T) {
	l := counterLine(t, `close: {quantity: "100", every: 30s}`)
	l.see("0")
	l.see("99")
	if n := len(l.facts); n != 1 { // the order's start
		t.Fatalf("%d facts before the quantity is reached", n)
	}
	l.see("103")
	l.see("110")
	if due := l.tr.NextTick(l.st); !due.Equal(noon.Add(30 * time.Second)) {
		t.Errorf("next tick is due at %v", due)
	}
	l.tick(29 * time.Second)
	l.tick(time.Second)
	l.see("115")
	l.send("plc", signal.Signal{Tag: "order", Value: "B"})
	l.see("118")
	l.send("plc", signal.Signal{Tag: "order", Value: ""})
	var got []string
	for _, f := range l.facts {
		if c := f.GetProductionConfirmation(); c != nil {
			got = append(got, c.OrderNo+" "+c.Yield+" ("+c.CounterRange.From+","+c.CounterRange.To+"]")
		}
	}
	want := "A 103 (0,103]; A 7 (103,110]; A 5 (110,115]; B 3 (115,118]"
	if s := strings.Join(got, "; "); s != want {
		t.Errorf("confirmations are %s\nwant %s", s, want)
	}
}

func TestCountsWithoutAnOrderStayVisible(t *testing.T) {
	l := newLine(t, rules(t, fmt.Sprintf(counterRule, "without_order: hold")))
	l.see("0")
	l.see("5")
	facts := l.tick(time.Minute)
	if len(facts) != 1 || facts[0].GetProductionConfirmation().OrderNo != "" || facts[0].GetProductionConfirmation().Yield != "5" {
		t.Errorf("facts are %v, want one confirmation of 5 without order", facts)
	}
}

func TestCountsWithoutAnOrderGoToTheNext(t *testing.T) {
	l := newLine(t, rules(t, fmt.Sprintf(counterRule, "without_order: assign_next, close: {quantity: \"3\"}")))
	l.see("0")
	l.see("5")
	if facts := l.tick(time.Hour); len(facts) != 0 {
		t.Fatalf("counts that wait for an order were confirmed: %v", facts)
	}
	l.send("plc", signal.Signal{Tag: "order", Value: "A"})
	l.see("7")
	if got, want := l.ledger(), " yield: 0 counted, 0 stored; A yield: 7 counted, 7 stored"; got != want {
		t.Errorf("ledger is %q, want %q", got, want)
	}
}

func TestDispatchedOrderGivesItemAndOperation(t *testing.T) {
	l := newLine(t, rules(t, fmt.Sprintf(counterRule, "equipment: ulm/h1/press1")))
	l.tr.Dispatched(l.st, l.now, signal.WorkOrder{OrderNo: "A", Revision: 2, Item: "FG-GEAR", Unit: "C62", Quantity: "100",
		Operations: []signal.Operation{{Operation: "0010", WorkCenter: "ulm/h1/press1"}, {Operation: "0020", WorkCenter: "oven"}}})
	l.tr.Dispatched(l.st, l.now, signal.WorkOrder{OrderNo: "A", Revision: 1, Item: "OLD"})
	l.send("plc", signal.Signal{Tag: "order", Value: "A"})
	l.see("0")
	l.see("5")
	c := l.tick(time.Minute)[0].GetProductionConfirmation()
	if c.Item != "FG-GEAR" || c.Operation != "0010" {
		t.Errorf("confirmation is %v", c)
	}
}

func TestOpenCountsOfARemovedRuleAreConfirmed(t *testing.T) {
	l := counterLine(t, "")
	l.see("0")
	l.see("5")
	tr, err := New(rules(t, `rules: [{name: other, rule: reading, source: plc, tag: good}]`), keys())
	if err != nil {
		t.Fatal(err)
	}
	l.tr = tr
	l.tick(time.Second)
	if got, want := l.ledger(), "A yield: 5 counted, 5 stored"; got != want {
		t.Errorf("ledger is %q, want %q", got, want)
	}
}

func TestConsumptionCounterRoundsOnceAndCarriesTheRest(t *testing.T) {
	l := newLine(t, rules(t, `rules: [{name: oil, rule: counter, source: plc, tag: oil, counts: consumed, item: RM-OIL, unit: LTR, decimals: 2, close: {quantity: "0.001"}}]`))
	for _, v := range []string{"0", "1.005", "2.010", "3.015", "4.020"} {
		l.send("plc", signal.Signal{Tag: "oil", Value: num(v)})
	}
	var got []string
	for _, f := range l.facts {
		c := f.GetMaterialConsumption()
		got = append(got, c.Quantity.Value+"@"+c.CounterRange.GetTo())
	}
	if s := strings.Join(got, " "); s != "1@1.005 1.01@2.01 1@3.015 1.01@4.02" {
		t.Errorf("quantities are %s, want 1@1.005 1.01@2.01 1@3.015 1.01@4.02", s)
	}
}

func TestBootMarkMakesAResetCertain(t *testing.T) {
	l := newLine(t, rules(t, `rules: [{name: n, rule: counter, source: plc, tag: m, counts: scrap, unit: C62, reset: hold, value: payload.n, boot: payload.boot}]`))
	for _, v := range []string{`{"n": 10, "boot": "a"}`, `{"n": 12, "boot": "a"}`, `{"n": 15, "boot": "b"}`} {
		l.send("plc", signal.Signal{Tag: "m", Value: decode(t, v)})
	}
	l.tick(time.Minute)
	if got, want := l.ledger(), " scrap: 17 counted, 17 stored"; got != want {
		t.Errorf("ledger is %q, want %q", got, want)
	}
}

// The hub judges by the two values and their times, so they travel; of several within a minute the one that waits for a person does.
func TestACounterThatWentBackTellsWhatItShowedAndWhatBecameOfIt(t *testing.T) {
	for _, c := range []struct{ name, rule, values, want string }{
		{"reset", `modulus: "1000", max_per_second: "1"`, "800 +10s 4", "good 800 to 4 after 10s of 1000 at 1 OUTCOME_FROM_ZERO"},
		{"held", "reset: hold", "500 +5s 3", "good 500 to 3 after 5s of  at  OUTCOME_HELD"},
		{"correction", "", "500 510 505", "good 510 to 505 after 0s of  at  OUTCOME_CORRECTED"},
		{"below what is confirmed", "", "500 510 +61s 505", "good 510 to 505 after 1m1s of  at  OUTCOME_WAITS"},
		{"one that waits is not told over", "", "500 510 505 +61s 490 +1s 512 +1s 511 +61s 600", "good 510 to 505 after 0s of  at  OUTCOME_CORRECTED; good 505 to 490 after 1m1s of  at  OUTCOME_WAITS; good 512 to 511 after 1s of  at  OUTCOME_CORRECTED"},
		{"nor when it came second", "", "500 +61s 510 505 +1s 400 +1s 512 +1s 511 +61s 600", "good 510 to 505 after 0s of  at  OUTCOME_CORRECTED; good 505 to 400 after 1s of  at  OUTCOME_WAITS"},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := counterLine(t, c.rule)
			for _, v := range strings.Fields(c.values) {
				if d, ok := strings.CutPrefix(v, "+"); ok {
					wait, err := time.ParseDuration(d)
					if err != nil {
						t.Fatal(err)
					}
					l.tick(wait)
					continue
				}
				l.see(v)
			}
			var got []string
			for _, f := range l.facts {
				if s := f.GetSourceException().GetCounterStep(); s != nil {
					got = append(got, fmt.Sprintf("%s %s to %s after %s of %s at %s %s", s.Tag, s.Last, s.Now, s.At.AsTime().Sub(s.LastAt.AsTime()), s.Modulus, s.MaxPerSecond, s.Outcome))
				}
			}
			if strings.Join(got, "; ") != c.want {
				t.Errorf("told %q, want %q", strings.Join(got, "; "), c.want)
			}
		})
	}
}
