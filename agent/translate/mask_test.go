package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// An operator's badge leaves the edge nowhere: not in facts, readings, quarantine or explanations, also when a message is
// refused or cannot be read.
func TestBadgeNeverLeavesTheEdge(t *testing.T) {
	const badge = "4711-MEIER"
	cfg := rules(t, `
rules:
  - {name: badge, rule: reading, source: plc, tag: badge, pseudonymise: [payload]}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, unit: C62, person: tags.badge}
  - name: booked
    rule: record
    source: mes
    tag: rows
    fact: production_confirmation
    pseudonymise: [payload.who.badge, "payload.crew[1]"]
    fields: {order_no: payload.order, yield: payload.n, unit: payload.u, person: payload.who.badge}
  - {name: all, rule: reading, source: mes, tag: "*"}
`)
	l := newLine(t, cfg)
	var seen []string
	send := func(source string, s signal.Signal) {
		b := l.tr.Mask(signal.Batch{Source: source, Signals: []signal.Signal{s}})
		res, why := l.tr.TranslateExplained(l.st, l.now, b)
		l.take(res)
		for _, x := range []any{b, res, why, l.st} {
			j, err := json.Marshal(x)
			if err != nil {
				t.Fatal(err)
			}
			seen = append(seen, string(j))
		}
		for _, f := range res.Facts {
			seen = append(seen, string(f.Body))
		}
		for _, q := range res.Quarantined {
			seen = append(seen, string(q.Payload)+q.Reason)
		}
		for _, v := range l.st {
			seen = append(seen, string(v))
		}
	}
	row := func(text string, p *signal.Problem) {
		s := signal.Signal{Tag: "rows", Payload: []byte(text), Problem: p, Position: fmt.Sprint(len(seen))}
		if p == nil {
			s.Value = decode(t, text)
		}
		send("mes", s)
	}
	send("plc", signal.Signal{Tag: "badge", Value: badge})
	send("plc", signal.Signal{Tag: "good", Value: num("1")})
	send("plc", signal.Signal{Tag: "good", Value: num("5")})
	row(`{"order": "A", "n": 3, "u": "C62", "who": {"badge": "`+badge+`"}, "crew": ["x", "`+badge+`"]}`, nil)
	row(`{"order": "A", "n": -3, "u": "C62", "who": {"badge": "`+badge+`"}}`, nil)
	row(`{"order": "A", "n": 3, "u": "box", "who": {"badge": "`+badge+`"}}`, nil)
	row(`{"order": "A", "who": "`+badge, &signal.Problem{Code: "bad_json", Item: "rows", Reason: "unexpected end after " + badge, NextStep: "look"})
	l.tick(3600e9)
	for _, text := range seen {
		if strings.Contains(text, badge) || strings.Contains(text, "MEIER") {
			t.Fatalf("the badge is in %q", text)
		}
	}
	if got, want := codes(l.facts), "negative_count unknown_unit bad_json"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	var persons []string
	for _, f := range l.facts {
		if c := f.GetProductionConfirmation(); c != nil {
			persons = append(persons, c.Person)
		}
	}
	if len(persons) != 2 || persons[0] != persons[1] || !strings.HasPrefix(persons[0], "P-") || len(persons[0]) != 18 {
		t.Errorf("persons are %q, want the same pseudonym in both", persons)
	}
}

func TestPseudonymDependsOnTheSecretAndOnNothingElse(t *testing.T) {
	name := func(key, badge string) string {
		cfg := rules(t, `rules: [{name: b, rule: reading, source: plc, tag: b, pseudonymise: [payload]}]`)
		cfg.PseudonymKey = []byte(key)
		tr, err := New(cfg, keys())
		if err != nil {
			t.Fatal(err)
		}
		b := signal.Batch{Source: "plc", Signals: []signal.Signal{{Tag: "b", Value: badge}}}
		masked := tr.Mask(b)
		if b.Signals[0].Value != badge {
			t.Error("the driver's own batch was changed")
		}
		return masked.Signals[0].Value.(string)
	}
	if a, b := name("one", "17"), name("one", " 17 "); a != b {
		t.Errorf("%s and %s differ under one secret", a, b)
	}
	if a, b := name("one", "17"), name("two", "17"); a == b {
		t.Errorf("%s comes of two secrets", a)
	}
	if a := name("", "17"); a != "P-WITHHELD" {
		t.Errorf("without a secret a badge became %s", a)
	}
	if a := name("one", ""); a != "" {
		t.Errorf("no badge became %s", a)
	}
}

// FuzzTyped reads anything as a typed value: what is accepted is written as what reads back equal.
func FuzzTyped(f *testing.F) {
	for _, s := range []string{`null`, `"x"`, `{"n":"1.50"}`, `{"t":"2026-03-01T12:00:00+01:00"}`, `{"b":"AAE="}`, `{"x":"/w=="}`, `{"m":{"a":[true,{"n":"18446744073709551615"}]}}`, `{"n":1}`, `7`, `{}`, `{"m":{},"n":"1"}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var v, again Typed
		if json.Unmarshal(b, &v) != nil {
			return
		}
		once, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%q was read and cannot be written: %v", b, err)
		}
		if err := json.Unmarshal(once, &again); err != nil {
			t.Fatalf("%q was written as %q, which cannot be read: %v", b, once, err)
		}
		twice, err := json.Marshal(again)
		if err != nil || !bytes.Equal(once, twice) {
			t.Fatalf("%q became %q and then %q (%v)", b, once, twice, err)
		}
	})
}
