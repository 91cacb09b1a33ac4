// Package b2mml reads what an MES reports in B2MML documents, and writes work orders as such.
//
// It owns the mapping between ISA-95's words in XML and records that rules can use: V0401 Production*, V0600 and V0700
// Operations* and Work*, with and without transaction envelope, whatever prefixes and namespaces they use. It promises that
// quantities stay exactly as they were written, that materials of one segment are never merged, that what it does not know stays
// readable, and that a document which takes something back is never read as one that reports it. It never touches a network, a
// file or a clock. The Business To Manufacturing Markup Language (B2MML) is used courtesy of MESA International.
package b2mml

import (
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Options of Read. The zero value is right for most senders.
type Options struct {
	// Zone is that of times that carry none; nil is UTC.
	Zone *time.Location
	// Verbs are the transactions whose content is taken as reported, and Actions their action codes; by default Process, Sync,
	// Show, Respond and documents without envelope, and the codes Add, Accepted and none.
	Verbs, Actions []string
	// MaterialUse tells what the sender's own words for the use of a material mean: produced, consumed, scrap, rework,
	// by_product, sample or other.
	MaterialUse map[string]string
}

// Uses are the meanings that a material's use can have.
var Uses = []string{UseProduced, UseConsumed, UseScrap, UseRework, UseByProduct, UseSample, UseOther}

// The meanings of a material's use.
const (
	UseProduced  = "produced"
	UseConsumed  = "consumed"
	UseScrap     = "scrap"
	UseRework    = "rework"
	UseByProduct = "by_product"
	UseSample    = "sample"
	UseOther     = "other"
)

// Document is what a B2MML text says.
type Document struct {
	// Root is the root element's local name; Verb (empty without envelope) and Noun are its parts. Version is V0401 and the like.
	Root, Verb, Noun, Version string
	// MessageID (BODID), Sender (LogicalID) and Created are those of the envelope.
	MessageID, Sender string
	Created           time.Time
	// Records is what was reported: one for each segment or job response, and for each response without any. A document of
	// another kind has one for each of its nouns, with the whole of it under "content".
	Records []Record
	// Answers are to work orders that were sent: of a ConfirmBOD, of an Acknowledge or Respond transaction, and the states that
	// responses carry. Each is a map as signal.AnswerTag describes it.
	Answers []Record
}

// Record is one thing that a document says.
type Record struct {
	Value map[string]any
	// Raw is how it stands in the document, cut after 64 KiB; Line is where it begins, from 1.
	Raw  []byte
	Line int
	// At is when it happened, as the sender says; zero when it does not.
	At time.Time
	// Problem says why it cannot be used; the other records can.
	Problem *signal.Problem
}

// Error is why a text is no B2MML document that can be used.
type Error struct {
	signal.Problem
	Line int
}

func (e *Error) Error() string {
	if e.Line > 0 {
		return fmt.Sprintf("line %d: %s: %s", e.Line, e.Item, e.Reason)
	}
	return fmt.Sprintf("%s: %s", e.Item, e.Reason)
}
