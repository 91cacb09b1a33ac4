package ingest

import (
	"fmt"
	"testing"
	"time"
)

func TestHellosAreLetInAtABoundedRateAndEachAgentOnce(t *testing.T) {
	const agents, rate = 1000, 50
	a := newAdmission(rate)
	now := time.Unix(1_000_000, 0)
	type coming struct {
		agent string
		at    time.Time
	}
	var queue []coming
	for i := range agents {
		queue = append(queue, coming{fmt.Sprintf("ulm/line%d", i), now})
	}
	admitted := map[int64]int{} // per second
	asked, last := 0, time.Time{}
	for len(queue) > 0 {
		first := 0
		for i := range queue {
			if queue[i].at.Before(queue[first].at) {
				first = i
			}
		}
		c := queue[first]
		queue = append(queue[:first], queue[first+1:]...)
		asked++
		if wait := a.admit(c.agent, c.at); wait > 0 {
			queue = append(queue, coming{c.agent, c.at.Add(wait)})
			continue
		}
		admitted[c.at.Unix()]++
		last = c.at
	}
	for second, n := range admitted {
		if most := rate + 1; n > most && second != now.Unix() || n > 2*rate {
			t.Errorf("%d agents in second %d", n, second-now.Unix())
		}
	}
	t.Logf("%d agents, %d hellos, all in after %s", agents, asked, last.Sub(now))
	if asked > 2*agents || last.Sub(now) > time.Duration(agents/rate)*time.Second {
		t.Errorf("%d hellos, all in after %s", asked, last.Sub(now))
	}
}

func TestLoneAgentIsNeverHeldUpAndTurnsAreForgotten(t *testing.T) {
	a := newAdmission(2)
	now := time.Unix(1_000_000, 0)
	for range 1000 {
		now = now.Add(600 * time.Millisecond)
		if wait := a.admit("ulm/line1", now); wait > 0 {
			t.Fatalf("held up for %s", wait)
		}
	}
	for i := range 100 {
		a.admit(fmt.Sprintf("ulm/gone%d", i), now) // they never come back
	}
	now = now.Add(10 * time.Minute)
	if wait := a.admit("ulm/gone99", now); wait > 0 || len(a.turns) > 0 {
		t.Errorf("waits %s, %d turns are kept", wait, len(a.turns))
	}
}
