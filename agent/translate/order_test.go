package translate

import (
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

const stateRules = `
rules:
  - name: events
    rule: state
    source: plc
    tag: ev
    work_center: press1
    fields: {order_no: payload.order, operation: payload.op, event: payload.type, reason: payload.why, occurred_at: payload.at}
    events: {BEGIN: started, PAUSE: held, END: finished}
  - {name: tag, rule: state, source: plc, tag: order, work_center: press2}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: press1, unit: C62}
  - {name: late, rule: counter, source: plc, tag: late, counts: scrap, work_center: press1, unit: C62, close: {on_order_end: false}}
`

// said is the facts in short, in order.
func said(facts []*pb.Fact) string {
	var out []string
	for _, f := range facts {
		switch c := f.Content.(type) {
		case *pb.Fact_OrderState:
			out = append(out, c.OrderState.OrderNo+" "+stateWord(c.OrderState.State))
		case *pb.Fact_ProductionConfirmation:
			out = append(out, strings.TrimSpace(c.ProductionConfirmation.OrderNo+" +"+c.ProductionConfirmation.Yield+c.ProductionConfirmation.Scrap))
		case *pb.Fact_SourceException:
			out = append(out, c.SourceException.Code)
		}
	}
	return strings.Join(out, ", ")
}

func (l *line) event(text string) {
	l.t.Helper()
	l.send("plc", signal.Signal{Tag: "ev", Value: decode(l.t, text)})
}

func TestOrderEventsAreToldOncePerState(t *testing.T) {
	l := newLine(t, rules(t, stateRules))
	for _, e := range []string{"BEGIN", "BEGIN", "PAUSE", "started", "END", "END", "DANCE"} {
		l.event(`{"order": "A", "type": "` + e + `"}`)
	}
	if got, want := said(l.facts), "A started, A held, A started, A finished, unknown_state"; got != want {
		t.Errorf("facts are %s, want %s", got, want)
	}
	keys := map[string]bool{}
	for _, f := range l.facts {
		keys[string(f.Key)] = true
	}
	if len(keys) != len(l.facts) {
		t.Error("two states share a key")
	}
}

func TestOrderChangeClosesCountsOfTheOldOrderFirst(t *testing.T) {
	l := newLine(t, rules(t, stateRules))
	count := func(tag, v string) { l.send("plc", signal.Signal{Tag: tag, Value: num(v)}) }
	l.event(`{"order": "A", "type": "BEGIN"}`)
	count("good", "0")
	count("late", "0")
	l.facts = nil
	b := signal.Batch{Source: "plc", Signals: []signal.Signal{
		{Tag: "good", Value: num("5")}, {Tag: "late", Value: num("1")},
		{Tag: "ev", Value: map[string]any{"order": "B", "type": "BEGIN"}},
		{Tag: "good", Value: num("8")}, {Tag: "late", Value: num("3")},
	}}
	l.take(l.tr.Translate(l.st, l.now, b))
	l.event(`{"order": "B", "type": "END"}`)
	if got, want := said(l.facts), "A +5, A +1, B started, B +3, B finished"; got != want {
		t.Errorf("facts are %s, want %s", got, want)
	}
	l.tick(time.Minute)
	if got, want := l.ledger(), "A scrap: 1 counted, 1 stored; A yield: 5 counted, 5 stored; B scrap: 2 counted, 2 stored; B yield: 3 counted, 3 stored"; got != want {
		t.Errorf("ledger is %q\nwant %q", got, want)
	}
}

func TestOrderTagSaysSomethingOnlyWhenItChanges(t *testing.T) {
	l := newLine(t, rules(t, stateRules))
	for _, v := range []any{"", "A", "A", num("0"), "B", num("77"), nil, "B"} {
		l.send("plc", signal.Signal{Tag: "order", Value: v})
	}
	if got, want := said(l.facts), "A started, B started, 77 started"; got != want {
		t.Errorf("facts are %s, want %s", got, want)
	}
	l.send("plc", signal.Signal{Tag: "order", Value: true})
	l.send("plc", signal.Signal{Tag: "order", Value: "C", Quality: signal.Bad})
	if got := codes(l.facts); got != "wrong_type bad_quality" {
		t.Errorf("told %q", got)
	}
}

func TestValidateNamesRuleAndKey(t *testing.T) {
	for _, c := range []struct{ rule, want string }{
		{`{rule: counter, source: s, tag: t, counts: yield, unit: C62}`, `rule "number 1": name is missing`},
		{`{name: x, rule: weigh, source: s, tag: t}`, `rule "x": rule "weigh" is not a kind`},
		{`{name: x, rule: reading, source: nope, tag: t}`, `rule "x": source "nope" is not a source`},
		{`{name: x, rule: counter, source: s, tag: t, unit: C62}`, `rule "x": counts is missing`},
		{`{name: x, rule: counter, source: s, tag: t, counts: good, unit: C62}`, `rule "x": counts "good" is none of`},
		{`{name: x, rule: counter, source: s, tag: t, counts: yield}`, `rule "x": unit is missing`},
		{`{name: x, rule: counter, source: s, tag: t, counts: yield, unit: pcs}`, `rule "x": unit "pcs" is neither`},
		{`{name: x, rule: counter, source: s, tag: t, counts: consumed, unit: KGM}`, `rule "x": item is missing`},
		{`{name: x, rule: counter, source: s, tag: t, counts: yield, unit: C62, factor: "-1"}`, `rule "x": factor "-1" is not above zero`},
		{`{name: x, rule: counter, source: s, tag: t, counts: yield, unit: C62, modulus: many}`, `rule "x": modulus "many" is not a number`},
		{`{name: x, rule: counter, source: s, tag: t, counts: yield, unit: C62, fact: order_state}`, `rule "x": fact has no meaning in a counter rule`},
		{`{name: x, rule: counter, source: s, tag: "*", counts: yield, unit: C62}`, `rule "x": tag "*" is for readings only`},
		{`{name: x, rule: counter, source: s, tag: t, counts: yield, unit: C62, without_order: assign_next}`, `rule "x": without_order assign_next needs work_center`},
		{`{name: x, rule: record, source: s, tag: t, fact: invoice}`, `rule "x": fact "invoice" is none of`},
		{`{name: x, rule: record, source: s, tag: t, fact: production_confirmation, fields: {yield: payload.y}}`, `rule "x": fields lack order_no`},
		{`{name: x, rule: record, source: s, tag: t, fact: production_confirmation, fields: {order_no: payload.o}}`, `rule "x": fields lack yield, scrap or rework`},
		{`{name: x, rule: record, source: s, tag: t, fact: order_state, fields: {order_no: payload.o, state: payload.s, colour: payload.c}}`, `rule "x": fields.colour is not a field here`},
		{`{name: x, rule: record, source: s, tag: t, fact: order_state, fields: {order_no: paylod.o, state: payload.s}}`, `undeclared reference to 'paylod'`},
		{`{name: x, rule: record, source: s, tag: t, fact: order_state, when: "3 < payload.n", fields: {order_no: payload.o, state: payload.s}}`, `write it on the right`},
		{`{name: x, rule: record, source: s, tag: t, fact: order_state, states: {A: walking}, fields: {order_no: payload.o, state: payload.s}}`, `rule "x": states "A" is mapped to "walking"`},
		{`{name: x, rule: record, source: s, tag: t, fact: order_state, fields: {order_no: item.o, state: payload.s}}`, `undeclared reference to 'item'`},
		{`{name: x, rule: record, source: s, tag: t, fact: production_confirmation, decimals: 12, fields: {order_no: payload.o, yield: payload.y}}`, `rule "x": decimals 12 is not from 0 to 9`},
		{`{name: x, rule: record, source: s, tag: t, fact: production_confirmation, fields: {order_no: payload.o, yield: payload.y, unit: "'box'"}}`, `rule "x": fields.unit 'box' is neither`},
		{`{name: x, rule: state, source: s, tag: t}`, `rule "x": work_center is missing`},
		{`{name: x, rule: state, source: s, tag: t, work_center: w, fields: {event: payload.e}}`, `rule "x": fields lack order_no`},
	} {
		cfg := rules(t, "rules:\n  - "+c.rule+"\n")
		var got []string
		for _, err := range cfg.Validate([]string{"s"}) {
			got = append(got, err.Error())
		}
		if !strings.Contains(strings.Join(got, "\n"), c.want) {
			t.Errorf("%s\n gives %q\n want %q", c.rule, got, c.want)
		}
	}
	twice := rules(t, `
units: {Stk: pieces}
rules:
  - {name: x, rule: counter, source: s, tag: t, counts: yield, unit: C62}
  - {name: x, rule: counter, source: s, tag: t, counts: scrap, unit: C62}
`)
	twice.Zone = "Mars/Base"
	if errs := twice.Validate(nil); len(errs) != 4 {
		t.Errorf("faults are %q, want zone, unit, name and tag", errs)
	}
}

// An order's operations end one after the other: each end is a fact, and the order is not over with the first.
func TestEndsOfOperationsAreToldEachAndLeaveTheirOrderRunning(t *testing.T) {
	l := newLine(t, rules(t, stateRules))
	l.tr.Dispatched(l.st, l.now, signal.WorkOrder{OrderNo: "A", Revision: 1, WorkCenter: "press1", Operations: []signal.Operation{{Operation: "10"}, {Operation: "20"}}})
	for _, e := range [][2]string{{"10", "BEGIN"}, {"10", "END"}, {"10", "END"}, {"20", "BEGIN"}, {"20", "BEGIN"}, {"20", "END"}, {"20", "END"}, {"", "END"}, {"", "END"}, {"20", "BEGIN"}} {
		l.event(`{"order": "A", "op": "` + e[0] + `", "type": "` + e[1] + `"}`)
	}
	var got []string
	for _, f := range l.facts {
		s := f.GetOrderState()
		got = append(got, strings.TrimSpace(s.GetOperation()+" "+stateWord(s.GetState())))
	}
	if got, want := strings.Join(got, ", "), "10 started, 10 finished, 20 started, 20 finished, finished, 20 started"; got != want {
		t.Errorf("facts are %s, want %s", got, want)
	}
	over := func(until int) bool {
		l := newLine(t, rules(t, stateRules))
		l.tr.Dispatched(l.st, l.now, signal.WorkOrder{OrderNo: "A", Revision: 1, Operations: []signal.Operation{{Operation: "10"}, {Operation: "20"}}})
		for _, e := range []string{"10", "20", ""}[:until] {
			l.event(`{"order": "A", "op": "` + e + `", "type": "END"}`)
		}
		w := l.tr.begin(l.st, l.now)
		defer w.end()
		return w.order("A").v.over()
	}
	if over(2) || !over(3) {
		t.Error("an order is over with its operations, or not with its own end")
	}
	if _, what := l.facts[1], whatOfOrder(l.facts[1].GetOrderState()); what != "order A operation 10 finished" {
		t.Errorf("the page says %q", what)
	}
}
