package ingest

import (
	"sync"
	"time"
)

// admission lets hellos in at a bounded rate: each costs the store a transaction, and after a restart all agents come at
// once. Who must wait is given a turn, the next free one, and is let in when it comes back for it.
type admission struct {
	every time.Duration // between two turns
	burst int           // hellos that are let in at once after a calm time

	mu    sync.Mutex
	next  time.Time            // the first turn that nobody has
	turns map[string]time.Time // of agents that wait
}

func newAdmission(perSecond float64) *admission {
	return &admission{
		every: time.Duration(float64(time.Second) / perSecond), burst: max(1, int(perSecond)), turns: map[string]time.Time{},
	}
}

// kept is how long a turn waits for its agent.
const kept = time.Minute

// admit reports how long the agent must wait; 0 lets it in.
func (a *admission) admit(agent string, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if turn, has := a.turns[agent]; has && now.Sub(turn) < kept {
		if wait := turn.Sub(now); wait > 0 {
			return wait
		}
		delete(a.turns, agent)
		return 0
	}
	delete(a.turns, agent)
	// The turns before now that nobody used are kept for a burst, but not more than that.
	if oldest := now.Add(-time.Duration(a.burst-1) * a.every); a.next.Before(oldest) {
		a.next = oldest
		a.forget(now)
	}
	turn := a.next
	a.next = a.next.Add(a.every)
	if !turn.After(now) {
		return 0
	}
	a.turns[agent] = turn
	return turn.Sub(now)
}

// forget drops the turns of agents that never came.
func (a *admission) forget(now time.Time) {
	for agent, turn := range a.turns {
		if now.Sub(turn) >= kept {
			delete(a.turns, agent)
		}
	}
}
