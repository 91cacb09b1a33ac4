// Package polling is what drivers have in common whose sources are asked again and again: the loop of one part of a source, one
// state made of those of its parts, one cursor made of theirs, and the patient way of a batch into the buffer.
//
// It promises that a batch which the buffer does not take is kept and offered again until the context ends, that batches of one
// source become durable one after the other, and that one part which fails stops no other. It never knows a protocol.
package polling

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Patience is how a batch waits for the buffer.
type Patience struct {
	// Records is what the source has ("rows"), Stays what becomes of those that are not taken ("the rows stay in the database").
	Records, Stays string
	// HeldAfter is how long the buffer may take before the source counts as held back.
	HeldAfter time.Duration
	// FirstWait and LongestWait bound the wait after a refusal; it is drawn at random below a bound that doubles.
	FirstWait, LongestWait time.Duration
}

// Wait is how long to wait after so many failures.
func (p *Patience) Wait(failures int) time.Duration {
	return rand.N(min(p.FirstWait<<min(failures, 10), p.LongestWait))
}

// Emit makes a batch durable and repeats that until it is done; the only error is the context's. While it waits the source is
// shown as held; who calls it reports when all is well again.
func (p *Patience) Emit(ctx context.Context, env *signal.Env, emit signal.Emit, batch signal.Batch) error {
	report := env.Reporter.State
	held := time.AfterFunc(p.HeldAfter, func() {
		report(signal.StateHeld, "the buffer does not take more at present; "+p.Stays)
	})
	defer held.Stop()
	for attempt := 0; ; attempt++ {
		err := emit(ctx, batch)
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		report(signal.StateHeld, "store "+p.Records+": "+err.Error())
		env.Logger.Warn("store "+p.Records, "source", env.Source, "err", err)
		if err := Pause(ctx, p.Wait(attempt)); err != nil {
			return err
		}
	}
}

// Pause waits; its only error is the context's.
func Pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Loop calls step at each poll, at once again when it says that there is more, and after a growing wait when it fails, until ctx
// ends. well is told of each step that went well, ill of each that did not: it returns how long to wait, at least what it is given.
func (p *Patience) Loop(ctx context.Context, poll time.Duration, step func(context.Context) (more bool, err error), well func(), ill func(err error, wait time.Duration) time.Duration) {
	for failures := 0; ctx.Err() == nil; {
		more, err := step(ctx)
		wait := poll
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = ill(err, max(poll, p.Wait(failures)))
			failures++
		default:
			failures = 0
			well()
		}
		if more && err == nil {
			continue
		}
		if Pause(ctx, wait) != nil {
			return
		}
	}
}

// Health makes one state of a source of those of its parts.
type Health struct {
	Reporter signal.Reporter

	mu     sync.Mutex
	broken map[string]string // by part: why there is no connection
}

// Well says that a part works.
func (h *Health) Well(part string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.broken, part)
	if len(h.broken) == 0 {
		h.Reporter.State(signal.StateOK, "")
	}
}

// Ill says that a part does not work; noConnection that nothing of the source can.
func (h *Health) Ill(part, reason string, noConnection bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.broken, part)
	if noConnection {
		if h.broken == nil {
			h.broken = map[string]string{}
		}
		h.broken[part] = reason
		h.Reporter.State(signal.StateFailed, reason)
	} else if len(h.broken) == 0 {
		h.Reporter.State(signal.StateOK, "") // the source is there; the part's own problem says the rest
	}
}

// ProblemError is an error that carries its own explanation.
type ProblemError struct{ Problem signal.Problem }

func (e *ProblemError) Error() string { return e.Problem.Reason }
