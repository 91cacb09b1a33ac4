package b2mml

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// MessageID identifies one revision of an order in a document's envelope, and in what answers it.
func MessageID(order string, revision int64) string { return fmt.Sprintf("%s/%d", order, revision) }

// orderOf takes a MessageID apart; revision is 0 when it has none.
func orderOf(id string) (order string, revision int64) {
	if i := strings.LastIndexByte(id, '/'); i > 0 {
		if n, err := strconv.ParseInt(id[i+1:], 10, 64); err == nil && n >= 0 {
			return id[:i], n
		}
	}
	return id, 0
}

// confirm reads a ConfirmBOD: the receiver got a document of ours, or refuses it.
func (r *reader) confirm(root *node) {
	data := root.kid("DataArea")
	verb := data.kid("Confirm")
	bods := data.all("BOD")
	if len(bods) == 0 {
		bods = []*node{data}
	}
	for _, bod := range bods {
		if bod == nil {
			bod = root
		}
		id := orElse(bod.kid("OriginalApplicationArea").get("BODID"), verb.kid("OriginalApplicationArea").get("BODID"))
		order, revision := orderOf(id)
		status := codeStatus(verb)
		switch {
		case status != "":
		case len(bod.find("BODFailureMessage", "NounFailureMessage", "ErrorProcessMessage")) > 0:
			status = signal.AnswerRejected
		case len(bod.find("BODSuccessMessage", "NounSuccessMessage")) > 0, reasonOf(verb, bod) == "":
			status = signal.AnswerAccepted // confirms that it came, and complains of nothing
		}
		r.answer(root, order, revision, status, reasonOf(verb, bod))
	}
}

// acknowledge reads the answer to a document that was processed or changed: it repeats the requests.
func (r *reader) acknowledge(root *node) {
	data := root.kid("DataArea")
	verb := data.kid(r.doc.Verb)
	about, revision := orderOf(verb.kid("OriginalApplicationArea").get("BODID"))
	requests := data.find("ProductionRequest", "OperationsRequest", "WorkRequest")
	if len(requests) == 0 {
		requests = data.find("JobOrder")
	}
	for _, n := range requests {
		order, rev := n.get("ID"), int64(0)
		if order == about {
			rev = revision
		}
		if v, err := strconv.ParseInt(n.get("Version"), 10, 64); err == nil && v >= 0 {
			rev = v
		}
		status := orElse(codeStatus(verb), answerOf[strings.ToLower(n.kid("RequestState", "DispatchStatus").word())])
		if status == "" && reasonOf(verb, nil) == "" {
			status = signal.AnswerAccepted
		}
		r.answer(n, order, rev, status, reasonOf(verb, n))
	}
	if len(requests) == 0 && about != "" && !strings.HasSuffix(r.doc.Noun, "Performance") {
		status := codeStatus(verb)
		if status == "" && reasonOf(verb, nil) == "" {
			status = signal.AnswerAccepted
		}
		r.answer(root, about, revision, status, reasonOf(verb, nil))
	}
}

// state makes an answer of the state that a response carries.
func (r *reader) state(n *node, p place) {
	word := n.kid("ResponseState", "JobState").word()
	status := answerOf[strings.ToLower(word)]
	if status == "" || r.refuse != nil {
		return
	}
	b := &builder{reader: r}
	orders, _ := b.orders(p)
	for _, order := range orders { // a state holds for all of them
		r.answer(n, order.(string), 0, status, word)
	}
}

// codeStatus is what the action codes of an answer's criteria say. One rejection rejects.
func codeStatus(verb *node) string {
	status := ""
	for _, e := range expressions(verb) {
		switch strings.ToLower(e.attr("actionCode")) {
		case "rejected":
			return signal.AnswerRejected
		case "accepted", "modified":
			status = signal.AnswerAccepted
		}
	}
	return status
}

func expressions(verb *node) []*node {
	if verb == nil {
		return nil
	}
	return verb.find("ResponseExpression", "ActionExpression")
}

// answerOf is the answer that a state of a request or a response amounts to.
var answerOf = map[string]string{
	"accepted": signal.AnswerAccepted, "waiting": signal.AnswerAccepted, "pending": signal.AnswerAccepted, "ready": signal.AnswerAccepted, "released": signal.AnswerAccepted, "dispatched": signal.AnswerAccepted,
	"rejected": signal.AnswerRejected, "running": signal.AnswerStarted, "held": signal.AnswerHeld, "paused": signal.AnswerHeld, "suspended": signal.AnswerHeld,
	"completed": signal.AnswerFinished, "closed": signal.AnswerFinished, "close": signal.AnswerFinished, "cancelled": signal.AnswerCancelled, "aborted": signal.AnswerCancelled,
}

// reasonOf collects the words that explain an answer.
func reasonOf(verb, body *node) string {
	var words []string
	add := func(n *node, names ...string) {
		for _, k := range n.all(names...) {
			if k.text != "" {
				words = append(words, k.text)
			}
		}
	}
	if verb != nil {
		for _, s := range verb.find("ChangeStatus") {
			add(s, "Code", "ReasonCode", "Reason", "Description")
		}
	}
	if body != nil && (body.name == "BOD" || body.name == "DataArea") {
		add(body, "Description", "Note")
		for _, k := range body.find("ErrorProcessMessage", "NounFailureMessage", "BODFailureMessage") {
			add(k, "Description", "ReasonCode", "Note")
			for _, deep := range k.find("ErrorProcessMessage") {
				add(deep, "Description", "ReasonCode", "Note")
			}
		}
	}
	return strings.Join(words, "; ")
}

func (r *reader) answer(n *node, order string, revision int64, status, reason string) {
	rec := Record{Raw: r.raw(n), Line: n.line, At: r.doc.Created}
	switch {
	case order == "":
		rec.Problem = &signal.Problem{Code: "answer_without_order", Item: n.name, Reason: fmt.Sprintf("line %d: the answer does not say which order it is about", n.line),
			NextStep: "let the receiver repeat the BODID of what it answers in OriginalApplicationArea, or the request with its ID"}
	case status == "":
		rec.Problem = &signal.Problem{Code: "answer_unclear", Item: order, Reason: fmt.Sprintf("the answer says neither Accepted nor Rejected: %q", excerpt(reason)),
			NextStep: "let the receiver write an actionCode; look up the order there and settle it by hand"}
	default:
		rec.Value = map[string]any{"order_no": order, "revision": signal.Number(strconv.FormatInt(revision, 10)), "status": status, "reason": reason, "changed_at": nil, "message_id": r.doc.MessageID}
		if !r.doc.Created.IsZero() {
			rec.Value["changed_at"] = r.doc.Created
		}
	}
	r.doc.Answers = append(r.doc.Answers, rec)
}
