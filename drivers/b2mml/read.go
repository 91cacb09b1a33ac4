package b2mml

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

var verbs = []string{"Acknowledge", "Respond", "Process", "Change", "Cancel", "Show", "Sync", "Get"}

// Read reads a UTF-8 document. Its error is always an *Error; what is wrong with one record stands in the record.
func Read(text []byte, o Options) (*Document, error) {
	root, err := parse(text)
	if err != nil {
		return nil, err
	}
	if o.Zone == nil {
		o.Zone = time.UTC
	}
	if o.Verbs == nil {
		o.Verbs = []string{"", "Process", "Sync", "Show", "Respond"}
	}
	if o.Actions == nil {
		o.Actions = []string{"", "Add", "Accepted"}
	}
	return readRoot(inside(root), text, o), nil
}

// readRoot reads one transaction, or what stands there without one.
func readRoot(root *node, text []byte, o Options) *Document {
	r := &reader{o: o, text: text, root: root, doc: &Document{Root: root.name, Noun: root.name, Version: version(root)}}
	r.envelope(root)
	if r.doc.Root == "ConfirmBOD" {
		r.confirm(root)
		return r.doc
	}
	if r.doc.Verb == "Acknowledge" || r.doc.Verb == "Respond" {
		r.acknowledge(root)
	}
	r.walk(root, place{})
	if len(r.doc.Records) == 0 && len(r.doc.Answers) == 0 {
		r.others(root)
	}
	return r.doc
}

// inside looks through a SOAP envelope.
func inside(root *node) *node {
	if root.name == "Envelope" {
		if body := root.kid("Body"); body != nil && len(body.kids) == 1 {
			return body.kids[0]
		}
	}
	return root
}

var versionWord = regexp.MustCompile(`(?i)V(0\d{3})`)

func version(root *node) string {
	space := root.space
	for _, k := range root.kids { // an envelope of another namespace
		if space == "" {
			space = k.space
		}
	}
	if m := versionWord.FindStringSubmatch(space); m != nil {
		return "V" + m[1]
	}
	if strings.HasPrefix(space, "http://www.mesa.org/xml/B2MML") {
		return "V0700"
	}
	return ""
}

type reader struct {
	o      Options
	text   []byte
	root   *node
	doc    *Document
	action string
	refuse *signal.Problem // why the document's records are none that were reported
}

// envelope reads a transaction's head.
func (r *reader) envelope(root *node) {
	d := r.doc
	area := root.kid("ApplicationArea")
	data := root.kid("DataArea")
	if area != nil || data != nil {
		for _, v := range verbs {
			if strings.HasPrefix(root.name, v) && len(root.name) > len(v) {
				d.Verb, d.Noun = v, root.name[len(v):]
				break
			}
		}
	}
	d.MessageID, d.Sender = area.get("BODID"), area.kid("Sender").get("LogicalID")
	d.Created, _ = r.time(area.get("CreationDateTime"))
	verb := data.kid(d.Verb)
	for _, criteria := range verb.all("ActionCriteria") {
		for _, e := range criteria.all("ActionExpression") {
			if r.action == "" || !slices.Contains(r.o.Actions, e.attr("actionCode")) {
				r.action = e.attr("actionCode")
			}
		}
	}
	if !slices.Contains(r.o.Verbs, d.Verb) || !slices.Contains(r.o.Actions, r.action) {
		r.refuse = &signal.Problem{Code: "not_a_report", Item: d.Root,
			Reason:   fmt.Sprintf("the document is a %s transaction with action %q: it does not report what happened, or takes it back or changes it", d.Verb, r.action),
			NextStep: "book the change by hand; or list the verb and the action in verbs and actions when this sender means a new report by it"}
	}
}

// place is where in the document an element stands.
type place struct {
	performance, response *node
	segments              []*node
}

// walk finds the responses, whatever they are wrapped in.
func (r *reader) walk(n *node, p place) {
	if n != r.root && n.kid("DataArea") != nil { // one of several transactions in a wrapper, with a verb of its own
		inner := readRoot(n, r.text, r.o)
		r.doc.Records, r.doc.Answers = append(r.doc.Records, inner.Records...), append(r.doc.Answers, inner.Answers...)
		return
	}
	switch n.name {
	case "ProductionRequest", "OperationsRequest", "WorkRequest", "JobOrder", "RequestedSegmentResponse", "OriginalApplicationArea":
		return // asks for responses, or repeats them
	case "ProductionPerformance", "OperationsPerformance", "WorkPerformance":
		p.performance = n
	case "ProductionResponse", "OperationsResponse", "WorkResponse":
		p.response = n
		if len(n.find(segmentNames...)) == 0 {
			r.add(n, p)
		}
		r.state(n, p)
	case "SegmentResponse", "SegmentResponseChild", "JobResponse", "JobResponseChild":
		p.segments = append(slices.Clip(p.segments), n)
		r.add(n, p)
		if strings.HasPrefix(n.name, "Job") {
			r.state(n, p)
		}
	}
	for _, k := range n.kids {
		r.walk(k, p)
	}
}

var segmentNames = []string{"SegmentResponse", "SegmentResponseChild", "JobResponse", "JobResponseChild"}

func (r *reader) raw(n *node) []byte {
	return r.text[n.from:min(n.to, n.from+maxRaw, int64(len(r.text)))]
}

// add makes the record of a segment, a job, or a response that has neither.
func (r *reader) add(n *node, p place) {
	rec := Record{Raw: r.raw(n), Line: n.line, Problem: r.refuse}
	if rec.Problem == nil {
		b := &builder{reader: r, m: map[string]any{}}
		b.head(n, p)
		b.resources(n)
		b.sums()
		b.extensions(n, p)
		rec.Value, rec.Problem, rec.At = b.m, b.problem, r.doc.Created
		for _, key := range []string{"posted_at", "started_at", "finished_at"} {
			if t, ok := b.m[key].(time.Time); ok {
				rec.At = t
			}
		}
		if rec.Problem != nil {
			rec.Value = nil
		}
	}
	r.doc.Records = append(r.doc.Records, rec)
}

// others makes records of a document that is no report: a schedule, a definition, a recipe.
func (r *reader) others(root *node) {
	nouns := []*node{root}
	if data := root.kid("DataArea"); data != nil {
		nouns = nil
		for _, k := range data.kids {
			if k.name != r.doc.Verb {
				nouns = append(nouns, k)
			}
		}
	}
	for _, n := range nouns {
		rec := Record{Raw: r.raw(n), Line: n.line, At: r.doc.Created, Problem: r.refuse}
		if rec.Problem == nil {
			rec.Value = map[string]any{"document": r.document(), "kind": n.name, "id": n.get("ID"), "content": n.generic()}
		}
		r.doc.Records = append(r.doc.Records, rec)
	}
}

func (r *reader) document() map[string]any {
	d := r.doc
	m := map[string]any{"root": d.Root, "noun": d.Noun, "verb": d.Verb, "action": r.action, "version": d.Version, "message_id": d.MessageID, "sender": d.Sender, "created_at": nil}
	if !d.Created.IsZero() {
		m["created_at"] = d.Created
	}
	return m
}

var timeLayouts = []string{time.RFC3339, "2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05", "2006-01-02T15:04:05", "2006-01-02T15:04Z07:00", "2006-01-02T15:04", "2006-01-02Z07:00", "2006-01-02"}

func (r *reader) time(text string) (time.Time, bool) {
	for _, layout := range timeLayouts {
		if t, err := time.ParseInLocation(layout, text, r.o.Zone); err == nil {
			return t, true
		}
	}
	return time.Time{}, false
}

// number reads a decimal as XML writes it.
func number(text string) (signal.Number, bool) {
	sign := ""
	if strings.HasPrefix(text, "-") {
		sign = "-"
	}
	rest := strings.TrimLeft(strings.TrimPrefix(strings.TrimPrefix(text, "+"), "-"), "0")
	if rest == "" || rest[0] < '0' || rest[0] > '9' {
		rest = "0" + rest
	}
	rest = strings.TrimSuffix(rest, ".")
	const most = 64
	if len(text) == 0 || len(text) > most || strings.Trim(text, "+-.") == "" || !json.Valid([]byte(sign+rest)) {
		return "", false
	}
	if strings.HasPrefix(text, "+-") || strings.HasPrefix(text, "-+") {
		return "", false
	}
	return signal.Number(sign + rest), true
}
