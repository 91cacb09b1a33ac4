package trading

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
)

const (
	stepsAtOnce = 20 // of one lane, before others get its worker

	// longestPause is the longest that the writer ever makes. What is due later was timed by a clock that has been set back
	// since, and is due now.
	longestPause = time.Hour
	// leastTries must have been made, too, before time runs out: a clock that is set forward is no reason to give up.
	leastTries = 10
)

// runner is the state of one run of the writer; all fields but the channel belong to its goroutine.
type runner struct {
	t       *Trader
	lanes   map[store.WriteLane]*lane
	working map[string]int // running lanes of each system
	done    chan result
	running int
}

// lane is when the runner looks at a lane again, by the machine's own time; a zero next says not by itself.
type lane struct {
	next    time.Time
	running bool
	again   bool // poked while running
}

type result struct {
	lane store.WriteLane
	next time.Time
	err  error
}

func (t *Trader) runOnce(ctx context.Context) (err error) {
	if err := t.recover(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &runner{t: t, lanes: map[store.WriteLane]*lane{}, working: map[string]int{}, done: make(chan result)}
	defer func() {
		cancel()
		for ; r.running > 0; r.running-- {
			if res := <-r.done; errors.Is(res.err, errDies) {
				err = res.err
			}
		}
	}()
	return r.run(ctx)
}

// recover takes what a hub that died had under way for in doubt.
func (t *Trader) recover(ctx context.Context) error {
	err := t.o.Store.Update(ctx, func(tx *store.Tx) error {
		all, err := tx.SendingWrites()
		for _, w := range all {
			if err != nil {
				return err
			}
			doubt(&w, tx.Now(), "the hub ended while it was writing")
			w.NextAt = tx.Now()
			if err = tx.PutWrite(w, "in_doubt", ""); err == nil {
				err = t.crash("write: recovering")
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("recover writes: %w", err)
	}
	if err := t.adopt(ctx); err != nil {
		return ended(ctx, fmt.Errorf("take up writes again: %w", err))
	}
	return t.crash("write: recovered")
}

func (r *runner) run(ctx context.Context) error {
	if err := r.load(ctx); err != nil {
		return ended(ctx, err)
	}
	poll := time.NewTicker(r.t.o.Poll)
	defer poll.Stop()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		r.poke(r.t.takePoked())
		timer.Reset(r.start(ctx))
		select {
		case <-r.t.wake:
		case <-timer.C:
		case <-poll.C:
			if err := r.load(ctx); err != nil {
				return ended(ctx, err)
			}
		case res := <-r.done:
			r.running--
			if err := r.ended(res); err != nil {
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

func (r *runner) load(ctx context.Context) error {
	lanes, err := r.t.o.Store.ActiveWriteLanes(ctx)
	if err != nil {
		return err
	}
	for _, l := range lanes {
		if _, ok := r.t.writers[l.ERP]; !ok {
			if err := r.t.orphan(ctx, l); err != nil {
				return err
			}
		} else if r.lanes[l] == nil { // the times of the others are known
			r.poke([]store.WriteLane{l})
		}
	}
	return nil
}

// orphan parks the writes of a lane whose system may not be written to any more: a person must know of them.
func (t *Trader) orphan(ctx context.Context, l store.WriteLane) error {
	return t.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		all, err := tx.LaneWrites(l)
		for _, w := range all {
			class := map[store.PostingState]string{store.PostingDue: posting.ClassWaiting, store.PostingInDoubt: posting.ClassCannotTell, store.PostingPosted: posting.ClassMismatch}[w.State]
			if err != nil || class == "" {
				continue
			}
			park(&w, tx.Now(), class, posting.CodeNoConnector, fmt.Sprintf("it was %s when %q could not be written to any more", strings.ReplaceAll(string(w.State), "_", " "), w.ERP),
				"allow it again in hub.yaml (business, write: true): then it goes on when the hub starts; or settle it")
			err = tx.PutWrite(w, "parked", "")
		}
		return err
	})
}

// adopt takes up again what was parked because its system could not be written to.
func (t *Trader) adopt(ctx context.Context) error {
	for erp := range t.writers {
		for n := adoptAtOnce; n == adoptAtOnce; {
			all, err := t.o.Store.Writes(ctx, store.WriteFilter{ERP: erp, State: store.PostingParked, Code: posting.CodeNoConnector}, store.Page{Limit: adoptAtOnce})
			if err != nil {
				return err
			}
			n = len(all)
			for _, w := range all {
				if err := t.Replay(ctx, w.Key, nil, ""); err != nil && !errors.Is(err, ErrNotParked) {
					return err
				}
			}
		}
	}
	return nil
}

const adoptAtOnce = 100

func (r *runner) poke(lanes []store.WriteLane) {
	for _, l := range lanes {
		if _, ok := r.t.writers[l.ERP]; !ok {
			continue // was configured once: its writes stay as they are, visible
		}
		s := r.lanes[l]
		if s == nil {
			s = &lane{}
			r.lanes[l] = s
		}
		s.next, s.again = time.Now(), true
	}
}

// start starts the lanes that are due, the one that has waited longest first, and returns how long nothing is due.
func (r *runner) start(ctx context.Context) time.Duration {
	for {
		now := time.Now()
		pause := time.Hour
		var due store.WriteLane
		var found *lane
		for l, s := range r.lanes {
			if s.running || s.next.IsZero() || r.working[l.ERP] >= r.t.o.Workers {
				continue
			}
			if s.next.After(now) {
				pause = min(pause, s.next.Sub(now))
			} else if found == nil || s.next.Before(found.next) {
				due, found = l, s
			}
		}
		if found == nil {
			return pause
		}
		found.running, found.again = true, false
		r.working[due.ERP]++
		r.running++
		go func() {
			next, err := r.t.runLane(ctx, due)
			r.done <- result{due, next, err}
		}()
	}
}

func (r *runner) ended(res result) error {
	s := r.lanes[res.lane]
	s.running = false
	r.working[res.lane.ERP]--
	switch {
	case res.err != nil:
		return fmt.Errorf("write in lane %q of %q: %w", res.lane.Lane, res.lane.ERP, res.err)
	case s.again: // next is set
	case res.next.IsZero():
		delete(r.lanes, res.lane)
	default:
		s.next = time.Now().Add(min(res.next.Sub(r.t.o.Now()), longestPause))
	}
	return nil
}

func (t *Trader) takePoked() []store.WriteLane {
	t.mu.Lock()
	defer t.mu.Unlock()
	lanes := t.poked
	t.poked = nil
	return lanes
}

func (t *Trader) poke(l store.WriteLane) {
	t.mu.Lock()
	t.poked = append(t.poked, l)
	t.mu.Unlock()
	kick(t.wake)
}

// runLane does what is due in a lane, one thing after the other. It returns when the lane has to be looked at again: zero for not by
// itself.
func (t *Trader) runLane(ctx context.Context, l store.WriteLane) (time.Time, error) {
	for range stepsAtOnce {
		if ctx.Err() != nil {
			return time.Time{}, nil
		}
		all, err := t.o.Store.LaneWrites(ctx, l)
		if err != nil {
			return time.Time{}, ended(ctx, err)
		}
		next := t.choose(all)
		if next.held != nil {
			if err := t.hold(ctx, *next.held, next.behind); err != nil {
				return time.Time{}, err
			}
			continue
		}
		if next.do == nil {
			return next.wait, nil
		}
		if again, err := t.permitted(ctx, next.w, next.do); err != nil || !again.IsZero() {
			return again, err
		}
	}
	return t.o.Now(), nil
}

// choice is what comes next in a lane: do something about a write, say of another that it waits, or wait (zero: for somebody).
type choice struct {
	w      store.Write
	do     action
	held   *store.Write
	behind store.Write
	wait   time.Time
}

// choose finds what comes next: what is in doubt, what is to be read back, what is due.
func (t *Trader) choose(all []store.Write) (c choice) {
	now := t.o.Now()
	due := func(w store.Write) bool {
		if !w.NextAt.After(now) || w.NextAt.Sub(now) > longestPause {
			return true
		}
		if c.wait.IsZero() || w.NextAt.Before(c.wait) {
			c.wait = w.NextAt
		}
		return false
	}
	first := func(state store.PostingState) *store.Write {
		for i := range all {
			if all[i].State == state {
				return &all[i]
			}
		}
		return nil
	}
	inDoubt := first(store.PostingInDoubt)
	if inDoubt != nil && due(*inDoubt) {
		return choice{w: *inDoubt, do: t.lookUp}
	}
	for _, w := range all {
		if w.State == store.PostingPosted && due(w) {
			return choice{w: w, do: t.verify}
		}
	}
	if inDoubt != nil { // blocks what follows
		return c
	}
	for i, w := range all {
		if w.State != store.PostingDue {
			continue
		}
		if before := sameObject(all[:i], w); before != nil {
			if w.Code != CodeWaits || w.Reason != waitsFor(*before) {
				return choice{held: &all[i], behind: *before}
			}
			continue
		}
		if due(w) {
			return choice{w: w, do: t.send}
		}
		return c // what follows it waits
	}
	return c
}

// sameObject is the first of the earlier writes about the object of a write that is not in the books yet.
func sameObject(earlier []store.Write, w store.Write) *store.Write {
	for i := range earlier {
		if w.Object != "" && earlier[i].Object == w.Object && earlier[i].State != store.PostingPosted {
			return &earlier[i]
		}
	}
	return nil
}

// CodeWaits is the code of a write that waits for an earlier one of its object.
const CodeWaits = "waits_for_write"

func waitsFor(w store.Write) string {
	return fmt.Sprintf("waits for write %s of the same object, which is %s", w.Key, w.State)
}

// hold says of a write what it waits for.
func (t *Trader) hold(ctx context.Context, w, behind store.Write) error {
	w.Code, w.Reason, w.NextStep = CodeWaits, waitsFor(behind), "replay or settle that one; then this goes on by itself"
	return t.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		now, err := tx.WriteByID(w.ID)
		if err != nil || now.State != store.PostingDue {
			return err
		}
		return tx.PutWrite(w, "", "")
	})
}
