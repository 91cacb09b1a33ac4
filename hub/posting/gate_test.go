package posting

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// A system that loses some of its answers is not down: most of what is asked of it must go through, however the failures
// fall.
func TestGateStaysOpenWhileSomeAnswersCome(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("POSTING_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	t.Logf("POSTING_SEED=%d", seed)
	rng := rand.New(rand.NewPCG(seed, seed))
	g, now := &gate{health: Health{OK: true}}, time.Date(2026, 3, 2, 6, 0, 0, 0, time.UTC)
	answered := 0
	for end := now.Add(time.Hour); now.Before(end); {
		wait, ok := g.enter(now)
		if !ok {
			now = now.Add(wait)
			continue
		}
		now = now.Add(time.Second)
		failure := ""
		if rng.IntN(3) < 2 { // two of three steps fail
			failure = "the answer was lost"
		} else {
			answered++
		}
		g.leave(now, failure)
	}
	if answered < 600 {
		t.Fatalf("%d steps of an hour went through, want at least half of the 1,200 that would without a gate", answered)
	}
}

func TestGateLetsFewCallsSeeWhetherADeadSystemIsBack(t *testing.T) {
	g, now := &gate{health: Health{OK: true}}, time.Date(2026, 3, 2, 6, 0, 0, 0, time.UTC)
	for range 2 * gateFailures {
		if _, ok := g.enter(now); !ok {
			break
		}
		now = now.Add(gateSilence / gateFailures)
		g.leave(now, "connection refused")
	}
	until := g.at(now).PausedUntil
	if !until.After(now) {
		t.Fatal("a system that failed for long is not left in peace")
	}
	if wait, ok := g.enter(now); ok || now.Add(wait) != until {
		t.Fatalf("a call is let through after %s", wait)
	}
	for n := range gateProbes {
		if _, ok := g.enter(until); !ok {
			t.Fatalf("probe %d is not let through", n)
		}
	}
	if _, ok := g.enter(until); ok {
		t.Fatal("more calls than probes go to a system that is down")
	}
	g.leave(until, "")
	if _, ok := g.enter(until); !ok {
		t.Fatal("the system answered and is not called")
	}
}
