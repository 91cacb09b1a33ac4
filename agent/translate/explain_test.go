package translate

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Each signal's explanation says which rule took it, what it became, or why nothing; asking changes nothing.
func TestExplanationSaysWhatAValueBecameAndWhy(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: w, unit: C62, lot: tags.lot, close: {quantity: "10"}}
  - {name: row, rule: record, source: plc, tag: row, when: payload.n > 0, fact: production_confirmation, id: payload.id, fields: {order_no: payload.o, yield: payload.n, unit: "'C62'"}}
  - {name: temp, rule: reading, source: plc, tag: temp}
`))
	explain := func(s signal.Signal) string {
		t.Helper()
		b := signal.Batch{Source: "plc", Signals: []signal.Signal{s}}
		_, why := l.tr.TranslateExplained(l.st, l.now, b)
		if len(why) != 1 {
			t.Fatalf("%d explanations of one signal", len(why))
		}
		var out []string
		for _, step := range why[0].Steps {
			out = append(out, strings.TrimSpace(step.Rule+" "+step.Outcome))
		}
		return strings.Join(out, ", ")
	}
	for _, c := range []struct {
		tag   string
		value any
		want  string
	}{
		{"order", "A", "order fact"},
		{"order", "A", "order unchanged"},
		{"lot", "L1", "kept"},
		{"good", num("5"), "good baseline"},
		{"good", num("5"), "good unchanged"},
		{"good", num("8"), "good counted"},
		{"good", num("20"), "good fact, good counted"},
		{"good", num("19"), "good exception"},
		{"good", "x", "good exception"},
		{"row", map[string]any{"id": "1", "o": "A", "n": num("2")}, "row fact"},
		{"row", map[string]any{"id": "1", "o": "A", "n": num("2")}, "row repeated"},
		{"row", map[string]any{"id": "2", "o": "A", "n": num("0")}, "row skipped"},
		{"temp", num("21.5"), "temp reading"},
		{"other", num("1"), "no_rule"},
		{"other", num("1"), "no_rule"},
	} {
		if got := explain(signal.Signal{Tag: c.tag, Value: c.value}); !strings.HasPrefix(got, c.want) {
			t.Errorf("%s %v is explained as %q, want %q", c.tag, c.value, got, c.want)
		}
		l.now = l.now.Add(time.Second)
	}
	bad := signal.Signal{Tag: "good", Value: num("30"), Quality: signal.Bad, Status: "BadSensorFailure"}
	if got := explain(bad); got != "good reading, good exception" {
		t.Errorf("a bad value is explained as %q", got)
	}
}

func TestExplainingChangesNothing(t *testing.T) {
	cfg := rules(t, benchCounterRules)
	one, two := newLine(t, cfg), newLine(t, cfg)
	for i, v := range []string{"0", "5", "3", "70000", "9"} {
		b := signal.Batch{Source: "plc", Signals: []signal.Signal{{Tag: "good", Value: num(v), ReceivedTime: noon.Add(time.Duration(i) * time.Second)}}}
		res := one.tr.Translate(one.st, noon, b)
		explained, _ := two.tr.TranslateExplained(two.st, noon, b)
		if diff := cmp.Diff(res, explained, cmp.Comparer(func(a, b Fact) bool { return a.Key == b.Key && string(a.Body) == string(b.Body) })); diff != "" {
			t.Fatal(diff)
		}
	}
	if diff := cmp.Diff(one.st, two.st); diff != "" {
		t.Fatal(diff)
	}
}

const benchCounterRules = `rules: [{name: good, rule: counter, source: plc, tag: good, counts: yield, unit: C62, close: {quantity: "2"}}]`
