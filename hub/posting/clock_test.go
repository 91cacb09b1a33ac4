package posting

import (
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
