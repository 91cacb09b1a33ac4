package agent

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// clocked is an agent without goroutines but its ticker, in a bubble, with a counter that closes after an hour ("slow") and
// one that closes after ten seconds ("quick"). Its clock is ahead of the bubble's by that much.
func clocked(t *testing.T, ahead *atomic.Int64) (a *Agent, emit func(source string, n int), stop func()) {
	fs := fakes{"slow": {}, "quick": {}}
	cfg := testConfig(t.TempDir(), fs)
	for i := range cfg.Rules {
		switch cfg.Rules[i].Name {
		case "slow count":
			cfg.Rules[i].Close.Every = time.Hour
		case "quick count":
			cfg.Rules[i].Close.Every = 10 * time.Second
		}
	}
	a = newAgent(t, cfg, fs)
	a.pipe.now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	g := newGroup(t.Context())
	g.run(a.pipe.runTicker)
	emit = func(source string, n int) {
		t.Helper()
		if err := a.pipe.emit(t.Context(), signal.Batch{Source: source, Signals: []signal.Signal{count(n, time.Now())}}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
	}
	return a, emit, func() { g.stop(); a.Close() }
}

func pending(a *Agent) uint64 {
	synctest.Wait()
	return a.pipe.business.Stats().Pending
}

func TestConfirmationClosesByTimeWhileNothingComes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		a, emit, stop := clocked(t, &ahead)
		defer stop()
		emit("quick", 5)
		time.Sleep(9 * time.Second)
		if n := pending(a); n != 0 {
			t.Errorf("%d facts after 9 s", n)
		}
		time.Sleep(1100 * time.Millisecond)
		if n := pending(a); n != 1 {
			t.Errorf("%d facts after 10.1 s, want 1", n)
		}
	})
}

func TestEarlierDueTimeThatComesLaterShortensTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		a, emit, stop := clocked(t, &ahead)
		defer stop()
		emit("slow", 5)
		time.Sleep(5 * time.Minute)
		emit("quick", 3)
		time.Sleep(10100 * time.Millisecond)
		if n := pending(a); n != 1 {
			t.Errorf("%d facts ten seconds after the quick count, want 1", n)
		}
		time.Sleep(time.Hour - 5*time.Minute - 10*time.Second)
		if n := pending(a); n != 2 {
			t.Errorf("%d facts an hour after the slow count, want 2", n)
		}
		for range 3 { // and again with nothing in between
			emit("quick", 10)
			time.Sleep(time.Second)
		}
		time.Sleep(10 * time.Second)
		if n := pending(a); n != 3 {
			t.Errorf("%d facts, want 3", n)
		}
	})
}

func TestClockThatIsSetForwardClosesWithinAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ahead atomic.Int64
		a, emit, stop := clocked(t, &ahead)
		defer stop()
		emit("slow", 5)
		ahead.Store(int64(2 * time.Hour)) // a computer that slept, or whose clock was corrected
		time.Sleep(61 * time.Second)
		if n := pending(a); n != 1 {
			t.Errorf("%d facts a minute later, want 1", n)
		}
	})
}
