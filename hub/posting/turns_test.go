package posting

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// slowModel is a model whose calls take time and are watched.
type slowModel struct {
	*modelERP
	takes time.Duration

	mu          sync.Mutex
	under, most int // calls under way
	prepared    map[string]int
	ready       map[string]time.Time // when Prepare ended
	waited      time.Duration        // the longest time from there to Post
}

func (m *slowModel) call() {
	m.mu.Lock()
	m.under++
	m.most = max(m.most, m.under)
	m.mu.Unlock()
	time.Sleep(m.takes)
	m.mu.Lock()
	m.under--
	m.mu.Unlock()
}

func (m *slowModel) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	m.call()
	m.mu.Lock()
	m.prepared[p.Fact.OrderNo()]++
	m.ready[p.Fact.Key.String()] = time.Now()
	m.mu.Unlock()
	return m.modelERP.Prepare(ctx, p)
}

func (m *slowModel) Post(ctx context.Context, p connector.Posting, intent []byte) connector.Outcome {
	m.mu.Lock()
	m.waited = max(m.waited, time.Since(m.ready[p.Fact.Key.String()]))
	m.mu.Unlock()
	m.call()
	return m.modelERP.Post(ctx, p, intent)
}

func (m *slowModel) Verify(ctx context.Context, p connector.Posting, intent []byte, doc connector.Document) (connector.Verification, error) {
	m.call()
	return m.modelERP.Verify(ctx, p, intent, doc)
}

func (m *slowModel) VerifyMany(ctx context.Context, all []connector.ToVerify) ([]connector.Verification, error) {
	m.call()
	return m.modelERP.VerifyMany(ctx, all)
}

// slow puts facts on many orders into a world whose system takes its time.
func (w *world) slow(takes time.Duration, workers, orders, each int) *slowModel {
	m := &slowModel{modelERP: w.erp, takes: takes, prepared: map[string]int{}, ready: map[string]time.Time{}}
	w.opts.Connectors["erp"], w.opts.Workers = m, workers
	var facts []object.Fact
	for i := range orders {
		w.order(fmt.Sprintf("WO-%d", i))
		for n := range each {
			facts = append(facts, confirm(fmt.Sprintf("WO-%d", i), n, "1"))
		}
	}
	w.deliver(facts...)
	return m
}

func TestNoMoreCallsThanWorkersAreUnderWayAndWhatIsPreparedGoesFirst(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		const workers, takes = 2, 100 * time.Millisecond
		m := w.slow(takes, workers, 30, 6)
		w.start()
		w.pass(10 * time.Minute)
		if m.most != workers {
			t.Errorf("%d calls were under way at a time, want %d", m.most, workers)
		}
		if m.waited > 2*takes {
			t.Errorf("a prepared posting waited %s for its turn, want about as long as one call takes, %s", m.waited, takes)
		}
		if n, err := w.s.CountPostings(t.Context(), store.PostingFilter{State: store.PostingVerified}); err != nil || n != 180 {
			t.Errorf("%d postings are verified, %v; want 180", n, err)
		}
	})
}

// With more orders than can be worked on at a time, the choice by chance would leave some waiting for many times as long as
// others: whatever is in doubt there would be in doubt for minutes.
func TestEveryOrderGetsItsTurnBeforeOthersGetTheirThird(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		const orders = 40
		m := w.slow(10*time.Millisecond, 1, orders, 2*stepsAtOnce+5)
		w.start()
		for {
			w.pass(100 * time.Millisecond)
			m.mu.Lock()
			most, served := 0, len(m.prepared)
			for _, n := range m.prepared {
				most = max(most, n)
			}
			m.mu.Unlock()
			if most > 2*stepsAtOnce {
				t.Fatalf("an order was served for the third time, and only %d of %d orders at all", served, orders)
			}
			if served == orders {
				return
			}
		}
	})
}

func TestTurnThatIsNotWaitedForAnyMoreGoesToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		all := &turns{free: 1}
		if err := all.take(t.Context(), false); err != nil {
			t.Fatal(err)
		}
		gone, leave := context.WithCancel(t.Context())
		left, taken := make(chan error), make(chan error)
		go func() { left <- all.take(gone, true) }()
		synctest.Wait()
		go func() { taken <- all.take(t.Context(), false) }()
		synctest.Wait()
		leave()
		if err := <-left; err == nil {
			t.Error("a turn was taken by who had left")
		}
		all.give()
		if err := <-taken; err != nil {
			t.Error(err)
		}
		all.give()
		if all.free != 1 {
			t.Errorf("%d turns are free in the end, want 1", all.free)
		}
	})
}
