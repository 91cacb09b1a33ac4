package files

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// answerFields are what an answer can say; orderOf reads a message_id.
var answerFields = []string{"order_no", "revision", "status", "reason", "changed_at", "message_id"}

var answerWords = []string{signal.AnswerAccepted, signal.AnswerRejected, signal.AnswerStarted, signal.AnswerHeld, signal.AnswerFinished, signal.AnswerCancelled}

// plainWords are what receivers write beside our own words.
var plainWords = map[string]string{"ok": signal.AnswerAccepted, "error": signal.AnswerRejected, "refused": signal.AnswerRejected, "running": signal.AnswerStarted, "completed": signal.AnswerFinished, "canceled": signal.AnswerCancelled}

// read makes a record of the receiver's an answer.
func (a *Answers) read(v any, zone *time.Location) (any, *signal.Problem) {
	field := func(ours string) string {
		if a.Map[ours] == "" {
			return ""
		}
		found, _ := at(v, a.Map[ours])
		return strings.TrimSpace(textOf(found))
	}
	order, revision := field("order_no"), field("revision")
	if id := field("message_id"); id != "" {
		if i := strings.LastIndexByte(id, '/'); i > 0 {
			if order == "" {
				order = id[:i]
			}
			if revision == "" {
				revision = id[i+1:]
			}
		}
	}
	if order == "" {
		return nil, &signal.Problem{Code: "answer_without_order", Item: a.Map["order_no"], Reason: "the answer does not say which order it is about", NextStep: "correct the answer at its source, or map of answers"}
	}
	if revision == "" {
		revision = "0"
	}
	if n, err := strconv.ParseInt(revision, 10, 64); err != nil || n < 0 {
		return nil, &signal.Problem{Code: "bad_revision", Item: order, Reason: fmt.Sprintf("the answer's revision is %q, which is no whole number", revision), NextStep: "correct the answer at its source, or map of answers"}
	} else {
		revision = strconv.FormatInt(n, 10)
	}
	status, ok := a.status(field("status"))
	if !ok {
		return nil, &signal.Problem{Code: "answer_unclear", Item: order, Reason: fmt.Sprintf("the answer's status is %q, which has no meaning here", field("status")),
			NextStep: "name it in statuses of answers with one of " + strings.Join(answerWords, ", ")}
	}
	out := map[string]any{"order_no": order, "revision": signal.Number(revision), "status": status, "reason": field("reason"), "changed_at": nil, "answer": v}
	if text := field("changed_at"); text != "" {
		t, ok := payload.Time(text, zone)
		if !ok {
			return nil, &signal.Problem{Code: "bad_time", Item: order, Reason: fmt.Sprintf("the answer's time is %q, which is no ISO time", text), NextStep: "correct it, or give the column a type and a layout"}
		}
		out["changed_at"] = t
	}
	return out, nil
}

func (a *Answers) status(word string) (string, bool) {
	for theirs, ours := range a.Statuses {
		if strings.EqualFold(theirs, word) {
			return ours, true
		}
	}
	word = strings.ToLower(word)
	if slices.Contains(answerWords, word) {
		return word, true
	}
	ours, ok := plainWords[word]
	return ours, ok
}
