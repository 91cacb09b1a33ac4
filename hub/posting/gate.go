package posting

import (
	"sync"
	"time"
)

const (
	gateFailures = 5                // in a row, then the system is left in peace
	gatePause    = 15 * time.Second // the first one; it doubles up to
	gateLongest  = 2 * time.Minute
)

// Health says how the talk with one outside system goes.
type Health struct {
	OK     bool
	Since  time.Time
	Reason string // of the last failure, while not OK
	// PausedUntil is when the system is tried again, by one call, after too many failed in a row; zero when it is not paused.
	PausedUntil time.Time
}

// gate keeps a system that fails from being called by every order at once: after some failures in a row it pauses, then lets
// one call through to see.
type gate struct {
	mu       sync.Mutex
	health   Health
	failures int
	pause    time.Duration
	probing  bool
}

// enter reports whether a call may be made now, else how long to wait. Each entered call must leave.
func (g *gate) enter(now time.Time) (wait time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.failures < gateFailures:
		return 0, true
	case g.probing:
		return time.Second, false
	case now.Before(g.health.PausedUntil):
		return g.health.PausedUntil.Sub(now), false
	}
	g.probing = true
	return 0, true
}

// leave ends a call; failure is empty when the system answered.
func (g *gate) leave(now time.Time, failure string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.probing = false
	if g.health.OK != (failure == "") {
		g.health.Since = now
	}
	g.health.OK, g.health.Reason = failure == "", failure
	if failure == "" {
		g.failures, g.pause, g.health.PausedUntil = 0, 0, time.Time{}
		return
	}
	if g.failures++; g.failures >= gateFailures {
		g.pause = min(max(2*g.pause, gatePause), gateLongest)
		g.health.PausedUntil = now.Add(g.pause)
	}
}

func (g *gate) state() Health {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.health
}
