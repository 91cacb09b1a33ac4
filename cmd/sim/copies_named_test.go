package sim

import (
	"testing"
	"testing/synctest"
	"time"
)

// scene is a world with one agent, in which only happens what a test lets happen.
func scene(t *testing.T, f func(w *world, a *agentMachine)) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, 1, 1)
		defer w.close()
		w.hub.start()
		w.agents[0].start()
		w.pass(40 * time.Second)
		f(w, w.agents[0])
		w.heal(&agenda{})
		w.reckon()
		if n := w.totals.CannotTell; n > 0 {
			w.failf("a person was asked %d times", n)
		}
		if w.totals.Facts < 30 {
			w.failf("only %d facts were posted", w.totals.Facts)
		}
	})
}

func (w *world) pass(d time.Duration) { w.live(&agenda{}, time.Now().Add(d)) }

// drained waits for a moment in which the hub has everything that the agent took.
func (m *agentMachine) drained() {
	for range 600 {
		synctest.Wait()
		m.station.mu.Lock()
		queue := len(m.station.queue)
		m.station.mu.Unlock()
		if queue == 0 && m.a.Snapshot().Business.Pending == 0 {
			return
		}
		m.w.pass(100 * time.Millisecond)
	}
	m.w.failf("%s never has an empty buffer", m.name)
}

func (w *world) wantAlarm(code string, want bool) {
	if got := w.hub.alarm("ulm/line1", code); got != want {
		w.failf("alarm %q is raised: %v, want %v", code, got, want)
	}
}

// then runs what was put off.
func (a *agenda) then(w *world, d time.Duration) { w.live(a, time.Now().Add(d)) }

func TestRestoredCopyLosesNothingDoublesNothingAndIsNoticed(t *testing.T) {
	scene(t, func(w *world, a *agentMachine) {
		a.keep()
		w.pass(40 * time.Second)
		a.drained()
		var later agenda
		a.restore(&later, 0)
		later.then(w, time.Minute)
		w.wantAlarm("went_back_in_time", true)
		w.wantAlarm("identity_in_use", false)
		if s := a.a.Snapshot().Uplink; s.State != "connected" {
			w.failf("the restored agent is %s: %s", s.State, s.Reason)
		}
	})
}

func TestCopyRestoredTwiceInARowLosesNothingAndDoublesNothing(t *testing.T) {
	scene(t, func(w *world, a *agentMachine) {
		a.keep()
		for range 2 {
			w.pass(20 * time.Second)
			a.drained()
			var later agenda
			a.restore(&later, 0)
			later.then(w, 50*time.Second)
		}
		w.wantAlarm("went_back_in_time", true)
	})
}

func TestRestoredCopyThatWorksOnWithoutTheHubIsNoticedLater(t *testing.T) {
	scene(t, func(w *world, a *agentMachine) {
		a.keep()
		w.pass(10 * time.Second)
		a.drained()
		w.net.isolate(a.name, true)
		var later agenda
		a.restore(&later, 0)
		later.then(w, 2*time.Minute) // it takes more than the hub had of the time that it forgot
		w.net.isolate(a.name, false)
		w.pass(time.Minute)
		if !w.hub.alarm("ulm/line1", "went_back_in_time") && !w.hub.alarm("ulm/line1", "sequence_reused") {
			w.failf("nobody was told")
		}
	})
}

func TestOfTwoAgentsWithOneIdentityTheNewerIsRefusedAndTheFirstUnharmed(t *testing.T) {
	scene(t, func(w *world, a *agentMachine) {
		p, clone := a.launch(w.image(a.p), "line1-clone")
		a.wentBack = false
		refused := 0
		for range 120 {
			w.pass(time.Second)
			synctest.Wait()
			if s := a.a.Snapshot().Uplink; s.State != "connected" {
				w.failf("the first agent is %s: %s", s.State, s.Reason)
				break
			}
			switch s := clone.Snapshot().Uplink; s.State {
			case "refused":
				refused++
			case "connected":
				w.failf("the clone is connected, too")
			}
		}
		if refused < 60 {
			w.failf("the clone was refused in %d of 120 seconds", refused)
		}
		w.wantAlarm("identity_in_use", true)
		w.bury(p, false)
		w.totals.Crashes--
	})
}

func TestCloneThatTakesOverLosesNothingAndDoublesNothing(t *testing.T) {
	scene(t, func(w *world, a *agentMachine) {
		p, clone := a.launch(w.image(a.p), "line1-clone")
		a.wentBack = true
		w.pass(time.Minute)
		a.drained()
		w.bury(a.p, true)
		a.p, a.a, a.dir = p, clone, p.dir
		a.station.serve(p)
		w.pass(8 * time.Minute)
		if s := a.a.Snapshot().Uplink; s.State != "connected" {
			w.failf("the clone is %s: %s", s.State, s.Reason)
		}
	})
}

func TestAgentInstalledFromNothingResumesFromTheHubsMarks(t *testing.T) {
	for name, wait := range map[string]time.Duration{"at once": 0, "after an hour": time.Hour} {
		t.Run(name, func(t *testing.T) {
			scene(t, func(w *world, a *agentMachine) {
				a.drained()
				if !a.known() {
					w.failf("the hub does not know the counters yet")
				}
				var later agenda
				if wait > 0 {
					a.station.rest(true)
				}
				a.reinstall(&later, wait)
				later.then(w, wait+time.Second)
				a.station.rest(false)
				w.pass(time.Minute)
			})
			// Nothing of what machine and MES told may be lost; the broker had let go only of what the hub has.
		})
	}
}

func TestAgentMovesToAnotherComputer(t *testing.T) {
	scene(t, func(w *world, a *agentMachine) {
		a.move()
		w.pass(time.Minute)
		w.wantAlarm("went_back_in_time", false)
		w.wantAlarm("sequence_reused", false)
	})
}
