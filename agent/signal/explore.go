package signal

import "context"

// AnswerTag is the tag of a receiver's answers to work orders, unless its source names another. Such a signal's Value is a
// map: order_no (string), revision (Number; 0 when the receiver does not say), status (one of the Answer words), reason
// (string), changed_at (time.Time, or nil), and what else the receiver told. Its Position is the receiver's own identity of the
// answer, so that one that is read twice counts once. Rules need not name the tag: without a rule for it, an answer becomes the
// order's state as it is.
const AnswerTag = "work_order_answer"

// The words of an answer's status.
const (
	AnswerAccepted  = "accepted"
	AnswerRejected  = "rejected"
	AnswerStarted   = "started"
	AnswerHeld      = "held"
	AnswerFinished  = "finished"
	AnswerCancelled = "cancelled"
)

// Prober is a Driver that can try its source without reading from it.
type Prober interface {
	// Probe goes the way to the source step by step, as Run would, until one fails, and changes nothing that lasts. The steps
	// are what a plant engineer checks: name resolved, port open, certificate trusted, session made, each tag readable.
	Probe(ctx context.Context) []Step
}

// Step is one step of a Probe.
type Step struct {
	// Name says what was tried: "port 4840 is open". Detail is what was found, in a few words.
	Name   string `json:"name"`
	Detail string `json:"detail,omitempty"`
	// Problem says why it failed, on which side, and what to do; nil when it went well. Warning marks one that does not keep
	// the source from working.
	Problem *Problem `json:"problem,omitempty"`
	Warning bool     `json:"warning,omitempty"`
}

// Browser is a Driver that can list what its source has to offer.
type Browser interface {
	// Browse lists what stands below at (an Entry's ID; empty for the top), page by page: next is what to hand in as page for
	// the following one, empty at the end. A page has at most limit entries.
	Browse(ctx context.Context, at, page string, limit int) (entries []Entry, next string, err error)
	// Find walks everything below at and calls f for each readable entry whose path matches the glob (* within a level, ** across
	// levels, ? one character), until f returns false.
	Find(ctx context.Context, at, glob string, f func(Entry) bool) error
}

// Entry is one thing a source offers: a node, a topic, a table, a column.
type Entry struct {
	// ID is what the configuration names it by, such as "nsu=urn:press;s=Good". Path is how a person finds it, levels
	// separated by "/".
	ID   string `json:"id"`
	Path string `json:"path"`
	Name string `json:"name"`
	// Kind is the source's word: "Variable", "Object", "Method", "table", "topic".
	Kind string `json:"kind"`
	// Type is the data type as the source names it, Value its present value as text with Quality; empty when it has none.
	Type    string  `json:"type,omitempty"`
	Value   string  `json:"value,omitempty"`
	Unit    string  `json:"unit,omitempty"`
	Quality Quality `json:"-"`
	// Readable entries can become tags; Children says that there is more below.
	Readable bool `json:"readable"`
	Writable bool `json:"writable,omitempty"`
	Children bool `json:"children,omitempty"`
	// Tag is the part of a source's configuration, as YAML, that would read this entry: one element of its list of nodes, topics
	// or queries.
	Tag string `json:"tag,omitempty"`
}

// Offer is a way to reach a source, as a Discover found it.
type Offer struct {
	// Title is one line for a person: "opc.tcp://10.0.0.5:4840, Basic256Sha256, SignAndEncrypt, user name".
	Title string `json:"title"`
	// Secure says that the offer encrypts and checks who is there. Offers come best first.
	Secure bool `json:"secure"`
	// Section is the source's configuration as YAML (the keys of its driver), without tags.
	Section string `json:"section"`
	// Notes say what to know or to do before it works, such as whose certificate has to be trusted where.
	Notes []string `json:"notes,omitempty"`
}
