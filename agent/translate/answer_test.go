package translate

import (
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// A receiver's answer needs no rule; read twice, it counts once, and what it does not know stops no neighbour.
func TestAnswerToAWorkOrderBecomesItsStateWithoutARule(t *testing.T) {
	l := newLine(t, rules(t, `rules: [{name: all, rule: reading, source: other, tag: "*"}]`))
	say := func(position, order, status string, more map[string]any) {
		v := map[string]any{"order_no": order, "revision": num("3"), "status": status, "changed_at": noon.Add(-time.Minute)}
		for k, x := range more {
			v[k] = x
		}
		l.send("mes", signal.Signal{Tag: signal.AnswerTag, Value: v, Position: position})
	}
	say("a|1", "4711", "accepted", nil)
	say("a|1", "4711", "accepted", nil)
	say("a|2", "4712", "rejected", map[string]any{"error_text": "no mould"})
	say("a|3", "4713", "dancing", nil)
	say("", "4714", "started", map[string]any{"reason": "by hand", "changed_at": nil, "revision": num("0")})
	say("", "4714", "started", map[string]any{"reason": "by hand"})
	say("", "4714", "finished", nil)
	if got, want := said(l.facts), "4711 accepted, 4712 rejected, unknown_state, 4714 started, 4714 finished"; got != want {
		t.Fatalf("facts are %s, want %s", got, want)
	}
	first, second := l.facts[0], l.facts[1].GetOrderState()
	if !first.GetHeader().GetOccurredAt().AsTime().Equal(noon.Add(-time.Minute)) || first.GetOrderState().GetRevision() != 3 || second.GetReason() != "no mould" {
		t.Errorf("first is %v, second %v", first, second)
	}
	if keys := map[string]bool{string(l.facts[3].Key): true, string(l.facts[4].Key): true}; len(keys) != 2 {
		t.Error("two states share a key")
	}
}

func TestRuleForAnswersIsTakenInsteadOfTheBuiltInOne(t *testing.T) {
	l := newLine(t, rules(t, `rules: [{name: mine, rule: record, source: mes, tag: work_order_answer, fact: order_state, fields: {order_no: payload.order_no, state: payload.status}, states: {OK: accepted}}]`))
	l.send("mes", signal.Signal{Tag: signal.AnswerTag, Position: "1", Value: map[string]any{"order_no": "A", "status": "OK"}})
	if got := said(l.facts); got != "A accepted" || l.facts[0].Header.Rule != "mine" {
		t.Errorf("facts are %s by %q", got, l.facts[0].Header.Rule)
	}
}
