package posting

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
)

// An ERP refuses for a while, the clock is set, and the ERP takes again: the fact is posted without a person.
func TestClockThatIsSetNeitherStopsPostingNorGivesUp(t *testing.T) {
	for name, by := range map[string]time.Duration{"a day back": -24 * time.Hour, "a year ahead": 365 * 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				var off atomic.Int64
				w.opts.Now = func() time.Time { return time.Now().Add(time.Duration(off.Load())).Round(0) }
				w.order("WO-1")
				w.erp.set(trouble{retry: 100})
				w.start()
				first := confirm("WO-1", 1, "5")
				w.deliver(first)
				w.pass(20 * time.Second)
				off.Store(int64(by))
				w.pass(time.Minute)
				w.erp.set(trouble{})
				second := confirm("WO-1", 2, "7")
				w.deliver(second)
				w.pass(10 * time.Minute)
				w.want(first, store.PostingVerified, "")
				w.want(second, store.PostingVerified, "")
			})
		})
	}
}

// The hub's computer sleeps for longer than anything is waited for, just before it reads that an effect is not there yet. Much may have
// happened meanwhile, so the system is asked again before a person is.
func TestAnswerThatIsReadLateIsNoReasonToAskAPerson(t *testing.T) {
	for step, said := range map[string]struct {
		trouble trouble
		state   store.PostingState
	}{
		"looked up": {trouble{lostRequest: 100}, store.PostingInDoubt},
		"read back": {trouble{unreadable: 100}, store.PostingPosted},
	} {
		t.Run(step, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				var off atomic.Int64
				w.opts.Now = func() time.Time { return time.Now().Add(time.Duration(off.Load())).Round(0) }
				var asleep atomic.Bool
				var once sync.Once
				w.crash = func(s string) error {
					if s == step && asleep.Load() {
						once.Do(func() {
							off.Store(int64(48 * time.Hour))
							w.erp.set(trouble{})
							w.erp.mu.Lock()
							defer w.erp.mu.Unlock()
							w.erp.late = map[string]time.Time{}
						})
					}
					return nil
				}
				w.order("WO-1")
				w.erp.set(said.trouble)
				f := confirm("WO-1", 1, "5")
				w.start()
				w.deliver(f)
				w.pass(time.Second)
				w.erp.mu.Lock()
				if _, waits := w.erp.late[f.Key.String()]; waits {
					w.erp.late[f.Key.String()] = time.Now().Add(24 * time.Hour)
				}
				w.erp.mu.Unlock()
				w.pass(5 * time.Hour)
				if p := w.want(f, said.state, ""); p.Tries < leastTries {
					t.Fatalf("it was asked for %d times only", p.Tries)
				}
				asleep.Store(true)
				w.pass(time.Hour)
				w.want(f, store.PostingVerified, "")
			})
		})
	}
}
