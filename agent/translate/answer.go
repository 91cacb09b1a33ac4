package translate

import (
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// answersRule is the name of the built-in rule for receivers' answers to work orders. It is part of their keys.
const answersRule = "work order answers"

// answer books an answer to a work order that no rule takes: it becomes the order's state as it is. The signal's position
// makes it count once; an answer without one counts when it says something new of its order.
func (w *work) answer(source string, s *signal.Signal) {
	r := &rule{
		name: answersRule, source: source, tag: s.Tag, kind: kindRecord, fact: factOrderState, places: maxDecimals,
		position: factkey.Position("record", w.t.plant, source, answersRule), fields: w.t.answerFields, states: w.t.answerStates,
	}
	if s.Position == "" {
		r.kind = kindState
	}
	w.staged = w.staged[:0]
	faults := w.record(r, s)
	if r.kind == kindState {
		for i := range w.staged {
			w.staged[i].key = factkey.Key{} // made from the state when it is booked
		}
	}
	w.bookAll(source, s, faults, r)
}

// answerMapping are the fields of an answer as signal.AnswerTag describes them.
func answerMapping() []mapped {
	at := func(names ...string) *expr {
		e := &expr{src: "payload." + names[0], root: "payload", steps: []pathStep{{key: names[0]}}}
		if len(names) > 1 {
			e.other = &expr{src: "payload." + names[1], root: "payload", steps: []pathStep{{key: names[1]}}}
		}
		return e
	}
	return []mapped{
		{fOrder, at("order_no")}, {fRevision, at("revision")}, {fState, at("status")}, {fReason, at("reason", "error_text")}, {fOccurredAt, at("changed_at")},
	}
}
