package translate

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// FuzzLedgerRow reads anything as a line of the ledger: what is accepted is written down as the same line.
func FuzzLedgerRow(f *testing.F) {
	for _, s := range []string{"12 10 0.5 20500", "1.50 1.5 0 -3", "1e5 2 3 4", "99999999999999999999.999999999 0 0 0", "-1 -1 0 1", "1 2 3", "NaN 0 0 0", "1  2 3 4"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.ContainsAny(b, "eE") {
			return // is never written: exponents would take memory
		}
		r, err := decodeRow(b)
		if err != nil {
			return
		}
		text := r.append(nil)
		again, err := decodeRow(text)
		if err != nil {
			t.Fatalf("%q was read and written as %q, which can not be read: %v", b, text, err)
		}
		if !again.counted.equal(r.counted) || !again.stored.equal(r.stored) || !again.rest.equal(r.rest) || again.day != r.day {
			t.Fatalf("%q became %q", b, text)
		}
	})
}

// FuzzOldState lets the rules work on state that another release, or a fault, left behind: they go on, or they break with a
// word on what they can not read, which the agent turns into an entry of the quarantine. Nothing else may break.
func FuzzOldState(f *testing.F) {
	cfg := rules(f, `
rules:
  - {name: c, rule: counter, source: s, tag: n, counts: yield, unit: C62, work_center: w, close: {quantity: "5"}}
  - {name: o, rule: state, source: s, tag: order, work_center: w}
  - {name: r, rule: record, source: s, tag: row, fact: production_confirmation, id: payload.id, fields: {order_no: payload.order, yield: payload.n, unit: "'C62'"}}
  - {name: d, rule: counter, source: s, tag: m, counts: yield, unit: C62, lot: tags.lot, hand_over: by_time, work_center: w, outputs: [{name: a, share: 2}, {name: b, share: 1}]}
  - {name: k, rule: weight, source: s, tag: kg, counts: consumed, item: RM, unit: KGM, least: "1", stable_for: 2s, factor: "0.5", lot: tags.lot, hand_over: last, work_center: w}
`)
	signals := []signal.Signal{
		{Tag: "lot", Value: "L1"}, {Tag: "m", Value: num("7")}, {Tag: "kg", Value: num("70")}, {Tag: "lot", Value: "L2"}, {Tag: "m", Value: num("9")}, {Tag: "kg", Value: num("7")},
		{Tag: "n", Value: num("7")}, {Tag: "order", Value: "A"},
		{Tag: "row", Value: map[string]any{"id": "1", "order": "A", "n": num("2")}}, {Tag: "n", Value: num("19")}, {Tag: "order", Value: ""},
	}
	l := newLine(f, cfg)
	for _, s := range signals {
		l.send("s", s)
	}
	for key, v := range l.st {
		f.Add(key, v)
	}
	f.Add("t/d/s\x1fm", []byte("odd"))
	f.Add("t/c/s\x1fn", []byte(`{"b":{"t":"1e999999999"}}`))
	f.Fuzz(func(t *testing.T, key string, v []byte) {
		if !strings.HasPrefix(key, "t/") {
			return
		}
		l := newLine(t, cfg)
		for _, s := range signals {
			l.send("s", s)
		}
		l.st.SetState(key, v)
		defer func() {
			if r := recover(); r != nil {
				if text, ok := r.(string); !ok || !strings.HasPrefix(text, "read own state") {
					panic(r)
				}
			}
		}()
		for _, s := range signals {
			s.ReceivedTime = noon.Add(time.Minute)
			l.send("s", s)
		}
		l.tick(time.Hour)
		l.tr.Ledger(l.st)
		l.tr.OrderStates(l.st)
	})
}

// FuzzCounter lets a counter show anything: what is counted is in facts or open, and never less than nothing.
func FuzzCounter(f *testing.F) {
	cfg := rules(f, `
rules:
  - {name: c, rule: counter, source: s, tag: n, counts: yield, unit: C62, modulus: "1000", factor: "0.5", value: payload.n, boot: payload.b, occurred_at: payload.at, close: {quantity: "5"}}
`)
	f.Add(`{"n": 1} {"n": 999} {"n": 3}`)
	f.Add(`{"n": 5} {"n": "6"} {"n": 2, "b": "x"} {"n": -1} {"n": 1e3}`)
	f.Add(`{"n": 10.5} {"n": 11} {"n": 11, "at": "2026-03-02T11:59:00Z"} {"n": null} 7`)
	f.Add(`{"n": 99999999999999999999999} {"n": 0.0000000001}`)
	f.Fuzz(func(t *testing.T, text string) {
		l := newLine(t, cfg)
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		for range 50 {
			var v any
			if d.Decode(&v) != nil {
				break
			}
			l.now = l.now.Add(time.Second)
			l.send("s", signal.Signal{Tag: "n", Value: v, Payload: []byte("p")})
		}
		l.tick(time.Hour)
		for _, r := range l.tr.Ledger(l.st) {
			if strings.HasPrefix(r.Counted, "-") || strings.HasPrefix(r.Stored, "-") {
				t.Fatalf("the ledger went below zero: %v", r)
			}
			if r.Counted != r.Stored {
				t.Fatalf("an hour later counts are still open: %v", r)
			}
		}
		for _, q := range l.quarantined {
			if q.Code == "" || q.Reason == "" || q.NextStep == "" {
				t.Fatalf("quarantined without a word: %+v", q)
			}
		}
	})
}

func TestRowWhoseKeyIsInAnotherCharacterSetBecomesAFact(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: r, rule: record, source: s, tag: row, fact: quality_status, fields: {status: payload.s, lot: payload.s}}
`))
	value := map[string]any{"s": "OK"}
	for _, position := range []string{"t|M\xfcller|1", "t|M\xf6ller|1", `t|M\\xfcller|1`, "t|M\xfcller|1"} {
		l.send("s", signal.Signal{Tag: "row", Value: value, Position: position})
	}
	keys := map[string]string{}
	for _, f := range l.facts {
		keys[string(f.Key)] = f.GetHeader().GetPosition()
	}
	if len(l.facts) != 3 || len(keys) != 3 || len(l.quarantined) != 0 {
		t.Errorf("%d facts under the keys of %q, %d quarantined; want one for each of three keys", len(l.facts), keys, len(l.quarantined))
	}
}

func TestReadingInAnotherCharacterSetTakesNoNeighbourAlong(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: all, rule: reading, source: s, tag: "*"}
`))
	l.send("s", signal.Signal{Tag: "\xe4", Value: "M\xfcller"})
	l.send("s", signal.Signal{Tag: "temperature", Value: num("21.5")})
	if len(l.readings) != 2 {
		t.Fatalf("%d readings, want 2", len(l.readings))
	}
	for i, want := range []string{"\\xe4 M\ufffdller", "temperature 21.5"} {
		r := l.readings[i]
		if _, err := proto.Marshal(r); err != nil || r.GetTag()+" "+r.GetValue() != want {
			t.Errorf("reading %d is %q %q, %v; want %q", i, r.GetTag(), r.GetValue(), err, want)
		}
	}
}

// FuzzSignal gives the rules anything in the words that a driver adds to a value: what comes of it can travel.
func FuzzSignal(f *testing.F) {
	cfg := rules(f, `
rules:
  - {name: r, rule: record, source: s, tag: row, fact: quality_status, fields: {status: payload, lot: topic, serial: position, reason: tag}}
  - {name: c, rule: counter, source: s, tag: n, counts: yield, unit: C62, boot: topic, close: {quantity: "1"}}
  - {name: o, rule: state, source: s, tag: order, work_center: w}
  - {name: all, rule: reading, source: s, tag: "*"}
`)
	f.Add("row", "OK", "a/b", "t|1", "Good", "", "")
	f.Add("row", "OK", "\xff", "M\xfcller", "\xff", "bad_json", "\xff/x")
	f.Add("n", "7", "\x00", "", "Bad", "", "")
	f.Add("order", "A\xff", "", "", "", "", "")
	f.Add("elsewhere\xff", "x", "", "", "", "unexpected_topic", "t\xff")
	f.Fuzz(func(t *testing.T, tag, value, topic, position, status, code, item string) {
		l := newLine(t, cfg)
		for i, v := range []any{value, num("1"), map[string]any{value: value}, []byte(value)} {
			s := signal.Signal{Tag: tag, Value: v, Topic: topic, Position: position, Status: status, Payload: []byte(value), Quality: signal.Quality(i % 3)}
			if code != "" {
				s.Problem = &signal.Problem{Code: code, Item: item, Reason: item, NextStep: "look"}
			}
			l.now = l.now.Add(time.Second)
			l.send("s", s)
		}
		l.tick(time.Hour)
		for _, r := range l.readings {
			if _, err := proto.Marshal(r); err != nil {
				t.Fatalf("a reading can not travel: %v", err)
			}
		}
	})
}
