package connectortest

import (
	"context"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// End is how a posting ended.
type End string

// The ends of a posting.
const (
	Settled   End = "settled"   // posted and verified
	Refused   End = "refused"   // rejected as correctable or fatal
	Undecided End = "undecided" // the connector cannot tell, or the effect differs, or patience ran out: a person decides
)

// Settlement is the end of a posting and how it came about.
type Settlement struct {
	End      End
	Document connector.Document
	// Outcome is the last answer of Post or Prepare.
	Outcome connector.Outcome
	// Why says what happened, step by step.
	Why []string
	// Attempts counts calls of Post, Lookups calls of Lookup.
	Attempts, Lookups int
	intent            []byte // of the last Prepare
}

// Drive takes one posting to its end exactly as the hub's posting engine does: it prepares, keeps the intent, posts, and
// after a lost outcome looks up before it posts again, never otherwise. Errors and retryable rejections are tried again
// until patience is over. An error of the context's is Undecided.
func Drive(ctx context.Context, c connector.Connector, p connector.Posting, patience time.Duration) Settlement {
	return drive(ctx, c, p, patience, func() {})
}

// drive is Drive, and calls absent when a look-up has said so and before anything else is done.
func drive(ctx context.Context, c connector.Connector, p connector.Posting, patience time.Duration, absent func()) Settlement {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	d := &driver{c: c, p: p, absent: absent}
	for ctx.Err() == nil {
		if d.once(ctx) {
			return d.s
		}
		pause(ctx, d.pause)
	}
	d.end(Undecided, "patience is over")
	return d.s
}

type driver struct {
	c      connector.Connector
	p      connector.Posting
	s      Settlement
	intent []byte
	doubt  bool // the outcome of the last Post is unknown
	pause  time.Duration
	absent func()
}

// once makes one step and reports whether the posting has ended.
func (d *driver) once(ctx context.Context) bool {
	d.pause = 20 * time.Millisecond
	if d.doubt {
		return d.lookUp(ctx)
	}
	d.p.Attempt = d.s.Attempts + 1
	intent, early, err := d.c.Prepare(ctx, d.p)
	if err != nil {
		d.note("prepare: error: %v", err)
		return false
	}
	d.intent = append([]byte(nil), intent...) // what the hub keeps is its own
	if early != nil {
		d.note("prepare: %s %s %s", early.Result, early.Code, early.Reason)
		return d.answer(ctx, *early)
	}
	d.s.Attempts++
	out := d.c.Post(ctx, d.p, append([]byte(nil), d.intent...))
	d.note("post: %s %s %s", out.Result, out.Code, out.Reason)
	return d.answer(ctx, out)
}

func (d *driver) answer(ctx context.Context, out connector.Outcome) bool {
	d.s.Outcome = out
	switch out.Result {
	case connector.Posted:
		return d.verify(ctx, out.Document)
	case connector.InDoubt:
		d.doubt = true
		return false
	}
	if out.Class == connector.Retryable {
		d.pause = min(max(out.RetryAfter, d.pause), 2*time.Second)
		return false
	}
	return d.end(Refused, "%s: %s", out.Code, out.Reason)
}

func (d *driver) lookUp(ctx context.Context) bool {
	d.s.Lookups++
	f, err := d.c.Lookup(ctx, d.p, append([]byte(nil), d.intent...))
	if err != nil {
		d.note("look up: error: %v", err)
		return false
	}
	d.note("look up: %s %s", f.Presence, f.Reason)
	switch f.Presence {
	case connector.Found:
		return d.verify(ctx, f.Document)
	case connector.Absent:
		d.doubt = false
		d.absent()
		if f.Rejection != nil {
			return d.answer(ctx, *f.Rejection)
		}
		return false
	case connector.NotFoundYet:
		return false
	}
	return d.end(Undecided, "look up: %s", f.Reason)
}

func (d *driver) verify(ctx context.Context, doc connector.Document) bool {
	d.s.Document = doc
	for ctx.Err() == nil {
		v, err := d.c.Verify(ctx, d.p, append([]byte(nil), d.intent...), doc)
		switch {
		case err != nil:
			d.note("verify: error: %v", err)
		case v.NotYet:
			d.note("verify: not yet")
		case v.Matches:
			return d.end(Settled, "verified as %q", doc.Number)
		default:
			return d.end(Undecided, "verify: %s", v.Difference)
		}
		pause(ctx, d.pause)
	}
	return d.end(Undecided, "patience is over")
}

// note says once what happens several times in a row.
func (d *driver) note(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if n := len(d.s.Why); n == 0 || d.s.Why[n-1] != text {
		d.s.Why = append(d.s.Why, text)
	}
}

func (d *driver) end(e End, format string, args ...any) bool {
	d.note(format, args...)
	d.s.End, d.s.intent = e, d.intent
	return true
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
