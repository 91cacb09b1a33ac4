package payload

import (
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Record is one record of a text that holds many.
type Record struct {
	// Value is the record: mostly a map[string]any. Nil when Problem is set.
	Value any
	// Raw is how it stood in the text, in UTF-8, cut after 64 KiB.
	Raw []byte
	// Line is where it begins, from 1; 0 where the format has no lines.
	Line int
	// At is when it happened, where the format itself has a place for that; otherwise zero.
	At time.Time
	// Problem says why it cannot be used; the records after it can.
	Problem *signal.Problem
}

// Reader gives the records of a text, one after the other.
type Reader interface {
	// Next returns io.EOF after the last record. A *Fault says that the text as a whole cannot be used; any other error is that
	// of the reader below.
	Next() (Record, error)
}

// Fault is why a text as a whole cannot be used.
type Fault struct {
	signal.Problem
	Line int
}

func (f *Fault) Error() string {
	if f.Line > 0 {
		return fmt.Sprintf("line %d: %s: %s", f.Line, f.Item, f.Reason)
	}
	return fmt.Sprintf("%s: %s", f.Item, f.Reason)
}

const maxRaw = 64 << 10

func raw(text string) []byte { return []byte(text[:min(len(text), maxRaw)]) }

const badEncodingStep = "set encoding to what the sender writes, often windows-1252, or let it write UTF-8"

// bad makes a record that cannot be used.
func bad(text string, line int, code, item, reason, next string) Record {
	return Record{Raw: raw(text), Line: line, Problem: &signal.Problem{Code: code, Item: item, Reason: reason, NextStep: next}}
}

func lineItem(line int) string { return fmt.Sprintf("line %d", line) }

func excerpt(s string) string {
	const most = 60
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
