package posting

import (
	"sync"
	"time"
)

const (
	gateFailures = 5                // in a row, and
	gateSilence  = 15 * time.Second // without an answer: then the system is left in peace
	gatePause    = 5 * time.Second  // the first one; it doubles up to
	gateLongest  = time.Minute
	// gateProbes is how many calls then go to see at a time. A system that loses some answers is not down: one call alone
	// would say too often that it is.
	gateProbes = 3
	// longestRestAsked bounds how long a system can ask to be left in peace: beyond that it is asked again.
	longestRestAsked = 10 * time.Minute
)

// Health says how the talk with one outside system goes.
type Health struct {
	OK     bool
	Since  time.Time
	Reason string // of the last failure, while not OK
	// PausedUntil is when the system is tried again, by a few calls, after too many failed in a row, or when it asked to be
	// called again; zero when it is not paused.
	PausedUntil time.Time
}

// gate keeps a system that fails from being called by every order at once: after some failures in a row it pauses, then lets
// a few calls through to see.
type gate struct {
	mu       sync.Mutex
	health   Health
	failures int
	since    time.Time // of the first failure in a row
	pause    time.Duration
	calls    int // under way
	restTo   time.Time
}

// enter reports whether a call may be made now, else how long to wait. Each entered call must leave.
func (g *gate) enter(now time.Time) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now.Before(g.restTo) {
		return g.restTo.Sub(now), false
	}
	if g.pause > 0 {
		if now.Before(g.health.PausedUntil) {
			return g.health.PausedUntil.Sub(now), false
		}
		if g.calls >= gateProbes {
			return time.Second, false
		}
	}
	g.calls++
	return 0, true
}

// leave ends a call; failure is empty when the system answered.
func (g *gate) leave(now time.Time, failure string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
	if g.health.OK != (failure == "") {
		g.health.Since = now
	}
	g.health.OK, g.health.Reason = failure == "", failure
	if failure == "" {
		g.failures, g.pause, g.health.PausedUntil = 0, 0, time.Time{}
		return
	}
	if g.failures++; g.failures == 1 {
		g.since = now
	}
	// What fails while a pause runs was called before it, and says nothing new.
	if g.failures >= gateFailures && now.Sub(g.since) >= gateSilence && !now.Before(g.health.PausedUntil) {
		g.pause = min(max(2*g.pause, gatePause), gateLongest)
		g.health.PausedUntil = now.Add(g.pause)
	}
}

// quit ends a call of which nothing is said.
func (g *gate) quit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.calls--
}

// rest leaves the system in peace for as long as it asked, within reason. It is well all the same.
func (g *gate) rest(now time.Time, d time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if to := now.Add(min(d, longestRestAsked)); to.After(g.restTo) {
		g.restTo = to
	}
}

// at is the state at a time, with the rest that the system asked for.
func (g *gate) at(now time.Time) Health {
	g.mu.Lock()
	defer g.mu.Unlock()
	h := g.health
	if now.Before(g.restTo) && g.restTo.After(h.PausedUntil) {
		h.PausedUntil = g.restTo
	}
	return h
}
