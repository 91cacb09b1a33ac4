package posting

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// readBackWaits is how long a posting that is to be read back lets others of its order be posted, so that several are read back by
// one call. Nobody waits for it: the document's number is known.
const readBackWaits = time.Second

// readsMany reports that a lane's system can be asked to read several postings back by one call.
func (e *Engine) readsMany(l store.Lane) bool {
	_, ok := e.o.Connectors[l.ERP].(connector.ManyVerifier)
	return ok
}

// readBackMayWait reports that company may still come for what is to be read back. A time that no clock can have meant waits no longer.
func readBackMayWait(w store.Waiting, now time.Time) bool {
	waits := now.Sub(w.NextAt)
	return waits >= 0 && waits < readBackWaits
}

// readBack reads all postings of a lane back that are due, by one call, when no more of them will be due very soon: what is posted together is read
// back together. What that call does not settle is read back alone then, so that what is stored of a difference is what was said about that
// posting. A non-zero time says that nothing is read back before.
func (e *Engine) readBack(ctx context.Context, l store.Lane, now time.Time) (time.Time, error) {
	listed, err := e.o.Store.Unverified(ctx, l)
	if err != nil || len(listed) == 0 {
		return time.Time{}, ended(ctx, err)
	}
	var due []store.Waiting
	var company time.Time // when the last of those is due that go with the first
	for _, w := range listed {
		if isDue(w, now) {
			due = append(due, w)
		} else if readBackMayWait(listed[0], now) && w.NextAt.Sub(listed[0].NextAt) < readBackWaits {
			company = w.NextAt
		}
	}
	if !company.IsZero() {
		return company, nil
	}
	calls, alone, err := e.prepareMany(ctx, l, due)
	if err != nil {
		return time.Time{}, ended(ctx, err)
	}
	if len(calls) == 1 {
		alone = append(alone, calls[0].seen)
	}
	if len(calls) > 1 {
		var rest []store.Waiting
		lost := false
		again, err := e.withTurn(ctx, l, calls[0], func(ctx context.Context, _ *call) (failure string, err error) {
			rest, failure, err = e.verifyMany(ctx, l, calls)
			lost = failure != ""
			return failure, err
		})
		if err != nil || lost || !again.IsZero() {
			return again, err
		}
		alone = append(alone, rest...)
	}
	for _, w := range alone {
		if again, err := e.permitted(ctx, l, w, e.verify); err != nil || !again.IsZero() || ctx.Err() != nil {
			return again, err
		}
	}
	return time.Time{}, nil
}

// prepareMany prepares reading postings back together, each document once. A posting of which the question was lost is read back alone: a
// system that cannot answer for many may for one.
func (e *Engine) prepareMany(ctx context.Context, l store.Lane, waiting []store.Waiting) (calls []*call, alone []store.Waiting, err error) {
	orderOf := sync.OnceValues(func() (store.Order, error) { return e.o.Store.Order(ctx, l.ERP, l.OrderNo) })
	documents := map[int64]bool{}
	for _, w := range waiting {
		c, err := e.prepareFor(ctx, l, w, orderOf)
		switch {
		case err != nil:
			return nil, nil, err
		case c == nil || documents[c.p.FactID]:
			continue
		case c.p.Code == CodeUnreachable:
			alone = append(alone, w)
		default:
			calls = append(calls, c)
		}
		documents[c.p.FactID] = true
	}
	return calls, alone, nil
}

// verifyMany reads several postings of one order back by one call, in the turn of the first, and stores what came of it in one transaction. It
// returns those that are to be read back alone.
func (e *Engine) verifyMany(ctx context.Context, l store.Lane, calls []*call) (alone []store.Waiting, failure string, err error) {
	if err := e.crash("reading back"); err != nil {
		return nil, "", err
	}
	first := calls[0]
	questions := make([]connector.ToVerify, len(calls))
	for i, c := range calls {
		questions[i] = connector.ToVerify{Posting: c.posting, Intent: c.p.Intent, Document: connector.Document{Number: c.p.Document, ID: c.p.DocumentID}}
	}
	asked := e.o.Now()
	answers, err := first.erp.VerifyMany(ctx, questions)
	first.turn.give()
	if err != nil {
		return nil, err.Error(), e.saveMany(ctx, l, first, unheardOf(calls, err, e.o.Now()))
	}
	if err := e.crash("read back"); err != nil {
		return nil, "", err
	}
	var read []change
	for i, c := range calls {
		step, outcome, known := "", pb.Receipt_OUTCOME_UNSPECIFIED, false
		if !answers[i].Alone {
			step, outcome, known = c.readAs(answers[i], asked, e.o.Now(), e.o.DoubtFor)
		}
		if known {
			read = append(read, change{c, step, outcome})
		} else {
			alone = append(alone, c.seen)
		}
	}
	return alone, "", e.saveMany(ctx, l, first, read)
}

// change is what came of one posting of several: the step in its life, none when empty, and what the plant is told.
type change struct {
	c       *call
	step    string
	outcome pb.Receipt_Outcome
}

// unheardOf is what comes of all postings when the question was lost. They come again at the same time.
func unheardOf(calls []*call, err error, now time.Time) (all []change) {
	tries := 0
	for _, c := range calls {
		tries = max(tries, c.p.Tries)
	}
	next := now.Add(RetryAfter(tries + 1))
	for _, c := range calls {
		x := change{c: c, outcome: pb.Receipt_OUTCOME_UNSPECIFIED}
		if c.unheard(err, next) {
			x.step = "unreachable"
		}
		all = append(all, x)
	}
	return all
}

// saveMany stores what came of several postings of a lane that were read back together. One that somebody had meanwhile stays as it is: the lane
// looks again.
func (e *Engine) saveMany(ctx context.Context, l store.Lane, first *call, all []change) error {
	if len(all) == 0 {
		return nil
	}
	steps := stepsOf(all)
	err := e.store(ctx, first, func(tx *store.Tx) error {
		for _, x := range all {
			if err := e.saveOneOf(tx, l, x); err != nil {
				return fmt.Errorf("fact %q: %w", x.c.f.Fact.Key, err)
			}
		}
		return e.crashAt("storing", steps)
	})
	if err != nil {
		return fmt.Errorf("store what became of %d facts of order %q: %w", len(all), l.OrderNo, err)
	}
	return e.crashAt("saved", steps)
}

// crashAt asks of each step whether the process dies there, as for postings that are saved alone.
func (e *Engine) crashAt(what string, steps []string) error {
	for _, step := range steps {
		if err := e.crash(what + " " + step); err != nil {
			return err
		}
	}
	return nil
}

func (e *Engine) saveOneOf(tx *store.Tx, l store.Lane, x change) error {
	now, err := tx.Posting(x.c.p.FactID)
	if err != nil || stale(l, x.c.seen, now) {
		return err
	}
	if x.step != "" {
		return e.changed(tx, x.c.p, x.c.f, x.step, "", x.outcome)
	}
	return e.putAll(tx, x.c)
}

// stepsOf lists each step once.
func stepsOf(all []change) (steps []string) {
	for _, x := range all {
		if x.step != "" && !slices.Contains(steps, x.step) {
			steps = append(steps, x.step)
		}
	}
	return steps
}
