package posting

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
)

// runner is the state of one Run; all fields but the channels belong to its goroutine.
type runner struct {
	e       *Engine
	lanes   map[store.Lane]*lane
	working map[string]int // running lanes of each system
	done    chan result
	workers sync.WaitGroup

	waiting map[wait]bool // what parked postings wait for
	facts   bool          // there may be facts to plan
	news    time.Time     // facts were last announced
	restTo  time.Time     // the store is left to others until then
	behind  time.Time     // since then each transaction left facts behind; zero when the last one did not

	unknown  []string // orders to ask for
	asked    map[string]bool
	fetched  chan fetched
	fetching bool
	retryAt  time.Time // of the order that could not be asked for
}

// lane is when the runner looks at a lane again; a zero next says not by itself. The runner's own times are the machine's,
// which goes on evenly while the clock on the wall is set.
type lane struct {
	next    time.Time
	running bool
	again   bool // poked while running
}

type result struct {
	lane store.Lane
	next time.Time
	err  error
}

type fetched struct {
	orderNo string
	err     error
}

func newRunner(e *Engine) *runner {
	return &runner{
		e: e, lanes: map[store.Lane]*lane{}, working: map[string]int{}, done: make(chan result), waiting: map[wait]bool{}, asked: map[string]bool{}, fetched: make(chan fetched, 1),
	}
}

func (r *runner) run(ctx context.Context) error {
	facts, unwatchFacts := r.e.o.Store.Watch(store.TopicFacts)
	defer unwatchFacts()
	orders, unwatchOrders := r.e.o.Store.Watch(store.TopicOrders)
	defer unwatchOrders()
	if err := r.load(ctx); err != nil {
		return ended(ctx, err)
	}
	poll := time.NewTicker(r.e.o.Poll)
	defer poll.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	admit := true
	r.facts = true
	for {
		if err := r.lookForWork(ctx, admit); err != nil {
			return ended(ctx, err)
		}
		lanes, waiting := r.e.takePoked()
		r.poke(lanes)
		r.await(waiting)
		r.startLanes(ctx)
		r.fetch(ctx)
		timer.Reset(r.pause())
		admit = len(waiting) > 0
		select {
		case <-facts:
			r.facts, r.news = true, time.Now()
		case <-orders:
			admit = true
		case <-poll.C:
			r.facts, admit = true, true
		case <-r.e.wake:
		case <-timer.C:
		case f := <-r.fetched:
			r.fetchEnded(f)
			admit = true
		case res := <-r.done:
			if err := r.laneEnded(res); err != nil {
				return ended(ctx, err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func ended(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return nil
	}
	return err
}

// stop waits for the workers and takes their results.
func (r *runner) stop() {
	gone := make(chan struct{})
	go func() { r.workers.Wait(); close(gone) }()
	for {
		select {
		case <-r.done:
		case <-gone:
			return
		}
	}
}

func (r *runner) load(ctx context.Context) error {
	lanes, err := r.e.o.Store.ActiveLanes(ctx)
	if err != nil {
		return fmt.Errorf("load lanes: %w", err)
	}
	r.poke(lanes)
	if lanes, err = r.e.o.Store.Reopened(ctx); err != nil {
		return fmt.Errorf("load reopened orders: %w", err)
	}
	for _, l := range lanes {
		r.e.markReopened(l, true)
	}
	r.poke(lanes)
	for _, code := range []string{CodeUnknownOrder, CodeOrderWithoutPlant} {
		numbers, err := r.e.o.Store.ParkedOrders(ctx, code)
		if err != nil {
			return fmt.Errorf("load what is waited for: %w", err)
		}
		for _, no := range numbers {
			r.await([]wait{{code, no}})
		}
	}
	return nil
}

// await remembers what postings wait for.
func (r *runner) await(all []wait) {
	for _, w := range all {
		if r.waiting[w] || w.code != CodeUnknownOrder && w.code != CodeOrderWithoutPlant {
			continue
		}
		r.waiting[w] = true
		if w.code == CodeUnknownOrder {
			r.unknown = append(r.unknown, w.orderNo)
		}
	}
}

// lookForWork plans what is new, one transaction, and admits what need not wait any more. While facts arrive the planner
// leaves most of the store's time to their intake.
func (r *runner) lookForWork(ctx context.Context, admit bool) error {
	if now := time.Now(); r.facts && !now.Before(r.restTo) {
		limit := planMany
		arriving := now.Sub(r.news) < arriveWithin
		if arriving {
			limit = planBusy
		}
		out, err := r.e.plan(ctx, limit)
		if err != nil {
			return err
		}
		r.poke(out.lanes)
		r.await(out.waiting)
		r.facts = out.facts == limit
		// An order that came just now has new facts, and others that waited for it: these go first.
		admit = admit || slices.ContainsFunc(out.lanes, func(l store.Lane) bool {
			return r.waiting[wait{CodeUnknownOrder, l.OrderNo}] || r.waiting[wait{CodeOrderWithoutPlant, l.OrderNo}]
		})
		if arriving {
			r.restTo = time.Now().Add(r.rest(now, out.took))
		}
	}
	if !admit || len(r.waiting) == 0 {
		return nil
	}
	return r.admit(ctx)
}

// Facts arrive when some came so lately. Then the planner rests after each transaction for a multiple of what that took,
// bounded; what takes no time makes nobody wait.
const (
	arriveWithin = time.Second
	restTimes    = 4
	longestRest  = 200 * time.Millisecond
	// A planner that has left facts behind for so long shares the store with their intake half and half: postings must not
	// fall behind for as long as a plant is busy.
	burst = 10 * time.Second
)

// rest is how long the planner rests after a transaction.
func (r *runner) rest(now time.Time, took time.Duration) time.Duration {
	switch {
	case !r.facts:
		r.behind = time.Time{}
	case r.behind.IsZero():
		r.behind = now
	case now.Sub(r.behind) > burst:
		return min(took, longestRest)
	}
	return min(restTimes*took, longestRest)
}

func (r *runner) admit(ctx context.Context) error {
	var come []string
	for _, code := range []string{CodeUnknownOrder, CodeOrderWithoutPlant} {
		var numbers []string
		for w := range r.waiting {
			if w.code == code {
				numbers = append(numbers, w.orderNo)
			}
		}
		known, err := r.e.o.Store.KnownOrders(ctx, numbers, code == CodeOrderWithoutPlant)
		if err != nil {
			return fmt.Errorf("look for orders that are waited for: %w", err)
		}
		come = append(come, known...)
	}
	if len(come) == 0 {
		return nil
	}
	slices.Sort(come)
	lanes, waiting, err := r.e.admitWaiting(ctx, slices.Compact(come))
	if err != nil {
		return err
	}
	r.poke(lanes)
	for _, no := range come {
		delete(r.waiting, wait{CodeUnknownOrder, no})
		delete(r.waiting, wait{CodeOrderWithoutPlant, no})
	}
	r.await(waiting)
	return nil
}

func (r *runner) poke(lanes []store.Lane) {
	now := time.Now()
	for _, l := range lanes {
		if r.e.o.Connectors[l.ERP] == nil {
			continue // was configured once: its postings stay as they are, visible
		}
		s := r.lanes[l]
		if s == nil {
			s = &lane{}
			r.lanes[l] = s
		}
		s.next, s.again = now, true
	}
}

// startLanes starts those that are due, the one that has waited longest first: where there are more orders than can be worked
// on, each gets its turn.
func (r *runner) startLanes(ctx context.Context) {
	for ctx.Err() == nil {
		l, s := r.longestDue(time.Now())
		if s == nil {
			return
		}
		s.running, s.again = true, false
		r.working[l.ERP]++
		r.workers.Go(func() {
			next, err := r.e.runLane(ctx, l)
			r.done <- result{l, next, err}
		})
	}
}

// longestDue is the lane that has been due for longest among those that may start, nil when there is none.
func (r *runner) longestDue(now time.Time) (due store.Lane, found *lane) {
	if !r.anyFree() {
		return due, nil
	}
	for l, s := range r.lanes {
		if s.running || s.next.IsZero() || s.next.After(now) || !r.free(l.ERP) {
			continue
		}
		if found == nil || s.next.Before(found.next) {
			due, found = l, s
		}
	}
	return due, found
}

// free reports that one more order of a system may be worked on.
func (r *runner) free(erp string) bool { return r.working[erp] < lanesOfTurn*r.e.o.Workers }

func (r *runner) anyFree() bool {
	for erp := range r.e.gates {
		if r.free(erp) {
			return true
		}
	}
	return false
}

// pause is how long nothing is due. A lane that waits for a worker is started when one ends.
func (r *runner) pause() time.Duration {
	now := time.Now()
	pause := time.Hour
	if r.facts {
		pause = r.restTo.Sub(now)
	}
	for l, s := range r.lanes {
		if !s.running && !s.next.IsZero() && r.free(l.ERP) {
			pause = min(pause, s.next.Sub(now))
		}
	}
	if len(r.unknown) > 0 && !r.fetching && !r.retryAt.IsZero() {
		pause = min(pause, r.retryAt.Sub(now))
	}
	return max(pause, 0)
}

func (r *runner) laneEnded(res result) error {
	s := r.lanes[res.lane]
	s.running = false
	r.working[res.lane.ERP]--
	if res.err != nil {
		return fmt.Errorf("post order %q: %w", res.lane.OrderNo, res.err)
	}
	if s.again {
		return nil // next is set
	}
	if res.next.IsZero() {
		delete(r.lanes, res.lane)
		return nil
	}
	s.next = time.Now().Add(min(res.next.Sub(r.e.o.Now()), longestPause))
	return nil
}

// fetch asks for the orders that facts name and nobody knows, one after the other and each once.
func (r *runner) fetch(ctx context.Context) {
	if r.e.o.FetchOrder == nil || r.fetching || ctx.Err() != nil || time.Now().Before(r.retryAt) {
		return
	}
	r.unknown = slices.DeleteFunc(r.unknown, func(no string) bool { return r.asked[no] })
	if len(r.unknown) == 0 {
		r.unknown = nil
		return
	}
	no := r.unknown[0]
	r.fetching = true
	r.workers.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, r.e.o.CallTimeout)
		defer cancel()
		r.fetched <- fetched{no, r.e.o.FetchOrder(ctx, no)}
	})
}

func (r *runner) fetchEnded(f fetched) {
	r.fetching = false
	if f.err != nil {
		r.e.o.Logger.Warn("cannot ask for an unknown work order", "order", f.orderNo, "error", f.err)
		r.retryAt = time.Now().Add(time.Minute)
		return
	}
	r.asked[f.orderNo] = true
	r.retryAt = time.Time{}
}
