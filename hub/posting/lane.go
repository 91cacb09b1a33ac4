package posting

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
	"github.com/linekeeper/linekeeper/proto/sabotage"
)

const (
	stepsAtOnce = 20 // of one lane, before others get its worker

	// longestPause is the longest that the engine ever makes. What is due later was timed by a clock that has been set back
	// since, and is due now.
	longestPause = time.Hour
	// leastTries must have been made, too, before time runs out: a clock that is set forward is no reason to give up.
	leastTries = 10
)

// runLane does what is due in a lane, one thing after the other. It returns when the lane has to be looked at again: zero
// for not by itself.
func (e *Engine) runLane(ctx context.Context, l store.Lane) (next time.Time, err error) {
	for range stepsAtOnce {
		if ctx.Err() != nil {
			return time.Time{}, nil
		}
		seal, err := e.sealDue(ctx, l)
		if err != nil {
			return time.Time{}, ended(ctx, err)
		}
		work, err := e.o.Store.LaneWork(ctx, l)
		if err != nil {
			return time.Time{}, ended(ctx, err)
		}
		restore, err := e.restore(ctx, l, work)
		if err != nil {
			return time.Time{}, ended(ctx, err)
		}
		again, err := e.step(ctx, l, work)
		if err != nil || !again.IsZero() || work == (store.LaneWork{}) {
			return sooner(sooner(again, seal), restore), err
		}
	}
	return e.o.Now(), nil
}

// step does the one thing that comes first. A non-zero time says that nothing can be done before.
func (e *Engine) step(ctx context.Context, l store.Lane, w store.LaneWork) (time.Time, error) {
	now := e.o.Now()
	var wait time.Time
	due := func(p *store.Waiting) bool {
		if p == nil {
			return false
		}
		if isDue(*p, now) {
			return true
		}
		if wait.IsZero() || p.NextAt.Before(wait) {
			wait = p.NextAt
		}
		return false
	}
	switch {
	case due(w.Doubt):
		return e.permitted(ctx, l, *w.Doubt, e.lookUp)
	case due(w.Unverified):
		if !e.readsMany(l) {
			return e.permitted(ctx, l, *w.Unverified, e.verify)
		}
		if w.Doubt == nil && due(w.Due) && !w.Due.Closing && !due(w.LastOfMany) && readBackMayWait(*w.Unverified, now) {
			return e.permitted(ctx, l, *w.Due, e.post)
		}
		again, err := e.readBack(ctx, l, now)
		return sooner(again, wait), err
	case w.Doubt != nil: // blocks what follows
		return wait, nil
	case due(w.Due):
		if w.Due.Closing {
			return e.closeOrder(ctx, l, *w.Due, wait)
		}
		return e.permitted(ctx, l, *w.Due, e.post)
	}
	return wait, nil
}

func isDue(w store.Waiting, now time.Time) bool {
	return !w.NextAt.After(now) || w.NextAt.Sub(now) > longestPause
}

// closeOrder posts what finishes an order, once nothing else of it is open, here or at the plant.
func (e *Engine) closeOrder(ctx context.Context, l store.Lane, w store.Waiting, wait time.Time) (time.Time, error) {
	task, err := e.o.Store.Task(ctx, w.FactID)
	if err != nil {
		return time.Time{}, ended(ctx, err)
	}
	p := task.Posting
	if stale(l, w, p) {
		return time.Time{}, nil
	}
	reason, stay, err := e.operationsOpen(ctx, p, task.Fact)
	switch {
	case err != nil:
		return time.Time{}, ended(ctx, err)
	case !stay:
		return time.Time{}, e.leaveOpen(ctx, p)
	case reason != "":
		return e.o.Now().Add(lookAgain * e.o.Poll), e.waitForOperations(ctx, p, reason)
	}
	n, example, err := e.o.Store.OpenBeside(ctx, p.OrderNo, p.FactID)
	if err != nil {
		return time.Time{}, ended(ctx, err)
	}
	if n == 0 {
		reason, err := e.mayClose(ctx, task.Fact)
		if err != nil {
			return time.Time{}, ended(ctx, err)
		}
		if reason == "" {
			e.mu.Lock()
			delete(e.closing, p.FactID)
			e.mu.Unlock()
			return e.permitted(ctx, l, w, e.post)
		}
		return e.holdClosing(ctx, p, e.o.Now().Add(askPlantAgain), reason, "nothing to do: it goes on by itself")
	}
	f, err := e.o.Store.FactByID(ctx, example.FactID)
	if err != nil {
		return time.Time{}, ended(ctx, err)
	}
	reason = fmt.Sprintf("waits for %d postings of the order, the first is %s: %s", n, f.Fact.Key, example.State)
	if example.Reason != "" {
		reason += ", " + example.Reason
	}
	if wait.IsZero() || wait.Sub(e.o.Now()) > e.o.Poll {
		wait = e.o.Now().Add(e.o.Poll) // others wake the lane; this is for the case that they cannot
	}
	return e.holdClosing(ctx, p, wait, reason, "settle those; then this goes on by itself")
}

const (
	askPlantAgain = time.Second
	doubtUnheard  = 15 * time.Second // the longest pause after a look-up that did not get through
)

func (e *Engine) holdClosing(ctx context.Context, p store.Posting, wait time.Time, reason, next string) (time.Time, error) {
	if p.Reason == reason {
		return wait, nil
	}
	p.Code, p.Reason, p.NextStep = CodeWaitsForOthers, reason, next
	err := e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.PutPosting(p) })
	if err == nil {
		err = e.crash("held closing")
	}
	return wait, err
}

// mayClose returns why the plant may still hold something of the order, empty when it does not or was waited for long enough.
func (e *Engine) mayClose(ctx context.Context, f store.Fact) (reason string, err error) {
	if e.o.MayClose == nil || e.asking(f.ID) >= e.o.CloseAfter {
		return "", nil
	}
	return e.o.MayClose(ctx, f)
}

// asking is how long the engine has been asking whether an order may be closed. It is measured, not read off the clock on the
// wall: one that is set forward must not close what the plant still works on.
func (e *Engine) asking(factID int64) time.Duration {
	e.mu.Lock()
	defer e.mu.Unlock()
	first, ok := e.closing[factID]
	if !ok {
		first = time.Now()
		e.closing[factID] = first
	}
	return time.Since(first)
}

// call is everything that a step needs to know.
type call struct {
	erp guarded
	// seen is what the lane saw in the posting, or in another that is made with it.
	seen    store.Waiting
	p       store.Posting
	f       store.Fact
	posting connector.Posting
	// original is the posting of the fact that a reversal takes back.
	original *store.Posting
	turn     turn
	// aggregate is the key of the document that is made of several facts; zero for one of one fact.
	aggregate factkey.Key
	// date is what was decided about the date for the books; zero when the fact's own counts.
	date store.PostingDate
	// applied is what the posting is said with; nil without mappings.
	applied *mapping.Applied
	// correction is what was changed of the posting, said is what was said with the outside system.
	correction *store.Correction
	said       *exchange.Recorder
	looksUp    bool
}

// action makes one call of the outside system, with the turn that it has and gives back, and stores what came of it. failure is
// a reason to believe that the system itself is in trouble.
type action func(ctx context.Context, c *call) (failure string, err error)

// permitted runs an action unless the system is being left in peace.
func (e *Engine) permitted(ctx context.Context, l store.Lane, w store.Waiting, do action) (time.Time, error) {
	c, err := e.prepareCall(ctx, l, w)
	if err != nil || c == nil {
		return time.Time{}, ended(ctx, err)
	}
	return e.withTurn(ctx, l, c, do)
}

// withTurn runs an action in the turn of a posting.
func (e *Engine) withTurn(ctx context.Context, l store.Lane, c *call, do action) (time.Time, error) {
	give, err := e.onOrder.take(ctx, l)
	if err != nil {
		return time.Time{}, ended(ctx, err)
	}
	defer give()
	if err := c.turn.take(ctx, false); err != nil {
		return time.Time{}, ended(ctx, err)
	}
	defer c.turn.give()
	wait, ok := e.gates[l.ERP].enter(time.Now())
	if !ok {
		return e.o.Now().Add(wait), nil
	}
	ctx, cancel := e.callContext(ctx)
	defer cancel()
	ctx, c.said = exchange.Recording(ctx)
	failure, err := do(ctx, c)
	e.gates[l.ERP].leave(time.Now(), failure)
	if failure != "" {
		e.o.Logger.Warn("outside system failed", "erp", l.ERP, "order", l.OrderNo, "fact", c.f.Fact.Key.String(), "reason", failure)
	}
	return time.Time{}, err
}

// callContext outlives the engine's end by the grace, so that a call which has begun can be answered.
func (e *Engine) callContext(ctx context.Context) (context.Context, context.CancelFunc) {
	call, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.o.CallTimeout)
	stop := context.AfterFunc(ctx, func() {
		grace := time.NewTimer(e.o.Grace)
		defer grace.Stop()
		select {
		case <-grace.C:
			cancel()
		case <-call.Done():
		}
	})
	return call, func() { stop(); cancel() }
}

// stale reports that a posting is not any more what its lane saw in it: a person had it meanwhile. The lane looks again.
func stale(l store.Lane, w store.Waiting, p store.Posting) bool {
	return p.State != w.State || !p.NextAt.Equal(w.NextAt) || p.ERP != l.ERP || p.OrderNo != l.OrderNo
}

// prepareCall returns nil when the posting has changed since the lane saw it.
func (e *Engine) prepareCall(ctx context.Context, l store.Lane, w store.Waiting) (*call, error) {
	return e.prepareFor(ctx, l, w, func() (store.Order, error) { return e.o.Store.Order(ctx, l.ERP, l.OrderNo) })
}

// prepareFor is prepareCall with what knows the lane's order.
func (e *Engine) prepareFor(ctx context.Context, l store.Lane, w store.Waiting, orderOf func() (store.Order, error)) (*call, error) {
	task, err := e.o.Store.Task(ctx, w.FactID)
	if err != nil {
		return nil, err
	}
	p, f, decided := task.Posting, task.Fact, task.Decided
	if stale(l, w, p) {
		return nil, nil
	}
	order, err := orderOf()
	if err != nil {
		return nil, err
	}
	fact := decided.Correction.Apply(f.Fact)
	fact.PostingDate = f.Fact.PostingDate // what was decided about the date comes below
	c := &call{erp: guarded{e.o.Connectors[l.ERP], l.ERP, e.o.Logger}, turn: turn{of: e.turns[l.ERP]}, seen: w, p: p, f: f, correction: decided.Correction, posting: connector.Posting{
		Fact: adjusted(fact, p.Amounts), Order: order.Order, PostingDate: postingDate(fact), Attempt: max(p.Attempt, 1),
	}}
	if err := e.asOne(ctx, c); err != nil {
		return nil, err
	}
	if c.p.FactID != p.FactID { // it is made with others, of which the first stands for all
		if decided, err = e.o.Store.Decided(ctx, c.p.FactID); err != nil {
			return nil, err
		}
	}
	if !c.f.Fact.Reverses.IsZero() {
		if err := e.undo(ctx, c); err != nil {
			return nil, err
		}
	}
	c.wholeOrder()
	c.say(decided.Applied)
	if decided.Date != (store.PostingDate{}) {
		c.take(decided.Date)
	}
	return c, nil
}

// wholeOrder lets the end of the last operation be the order's where the system keeps no state of an operation.
func (c *call) wholeOrder() {
	s := ofOperation(c.posting.Fact)
	if s == nil || !c.p.Closing {
		return
	}
	c.posting.ClosesOrder = true
	if !slices.Contains(c.erp.Capabilities().OperationStates, s.State) {
		whole := *s
		whole.Operation = ""
		c.posting.Fact.OrderState = &whole
	}
}

// post asks for the intent, stores it, and only then makes the effect.
func (e *Engine) post(ctx context.Context, c *call) (failure string, err error) {
	for _, before := range []func(context.Context, *call) (bool, error){e.tooEarly, e.reworded, e.dated, e.overDelivered, e.opened, e.parted} {
		if stop, err := before(ctx, c); stop || err != nil {
			return "", err
		}
	}
	c.posting.Attempt = c.p.Attempt + 1
	if err := e.crash("asking"); err != nil {
		return "", err
	}
	intent, early, err := c.erp.Prepare(ctx, c.posting)
	c.turn.give()
	if err != nil {
		return err.Error(), e.unreachable(ctx, c, err)
	}
	c.p.Attempt++
	if early != nil {
		return e.answered(ctx, c, *early)
	}
	if err := e.crash("prepared"); err != nil {
		return "", err
	}
	c.p.State, c.p.Intent, c.p.Code, c.p.Reason, c.p.NextStep = store.PostingSending, intent, "", "", ""
	if err := e.save(ctx, c, "sending", pb.Receipt_OUTCOME_UNSPECIFIED); err != nil {
		if errors.Is(err, errCorrected) {
			err = nil // it is prepared again, as it is to be now
		}
		return "", err
	}
	if err := e.crash("sending"); err != nil {
		return "", err
	}
	// What Prepare read grows old: it goes before the calls of others.
	if err := c.turn.take(ctx, true); err != nil {
		c.p.State, c.p.Intent = store.PostingDue, nil // nothing was sent
		return err.Error(), e.unreachable(ctx, c, fmt.Errorf("wait for other calls of the outside system: %w", err))
	}
	out := c.erp.Post(ctx, c.posting, intent)
	c.turn.give()
	if err := e.crash("posted"); err != nil {
		return "", err
	}
	return e.answered(ctx, c, out)
}

// operation is the one that a change of state is of; empty when it is of the whole order.
func (c *call) operation() string {
	if s := c.f.Fact.OrderState; s != nil && !c.p.Closing {
		return s.Operation
	}
	return ""
}

// store is Store.Update after a call. It is not cut short by the engine's end, and is not in a hurry where others use the system's time
// meanwhile.
func (e *Engine) store(ctx context.Context, c *call, change func(*store.Tx) error) error {
	update := e.o.Store.Update
	if c.turn.of.wanted() {
		update = e.o.Store.Unhurried
	}
	return update(context.WithoutCancel(ctx), change)
}

// save stores a posting after a call; it is not cut short by the engine's end.
func (e *Engine) save(ctx context.Context, c *call, step string, outcome pb.Receipt_Outcome) error {
	purpose, said := c.saidAt(step)
	err := e.store(ctx, c, func(tx *store.Tx) error {
		if o := c.f.Fact.OrderState; o != nil && step == "posted" {
			err := tx.AddOrderStep(store.OrderStep{
				OrderNo: c.p.OrderNo, Step: "posted " + string(o.State), Origin: "erp " + c.p.ERP, FactID: c.p.FactID, Reason: c.p.Document, Operation: c.operation(),
			})
			if err == nil && c.p.Closing {
				err = e.noteResidues(tx, c.p.ERP, c.p.OrderNo, c.p.FactID)
			}
			if err != nil {
				return err
			}
		}
		if step == "sending" {
			if err := errors.Join(sameCorrection(tx, c), e.sameAggregate(tx, c)); err != nil {
				return err
			}
		} else if len(said) > 0 {
			if err := tx.PutExchanges(c.p.FactID, purpose, said); err != nil {
				return err
			}
		}
		if err := e.changed(tx, c.p, c.f, step, "", outcome); err != nil {
			return err
		}
		return e.crash("storing " + step)
	})
	if err != nil {
		return fmt.Errorf("store what became of fact %q: %w", c.f.Fact.Key, err)
	}
	return e.crash("saved " + step)
}

// unreachable leaves a posting where it is; the call comes again, for ever.
func (e *Engine) unreachable(ctx context.Context, c *call, err error) error {
	pause := RetryAfter(c.p.Tries + 1)
	if c.p.State == store.PostingInDoubt {
		// The question was lost, not answered: what is in doubt holds its order up, and the gate keeps a system that fails
		// from being asked too often.
		pause = min(pause, doubtUnheard)
	}
	if c.unheard(err, e.o.Now().Add(pause)) {
		return e.save(ctx, c, "unreachable", pb.Receipt_OUTCOME_UNSPECIFIED)
	}
	return e.put(ctx, c)
}

// unheard notes that the outside system could not be asked, and when it is next. It reports whether that is new.
func (c *call) unheard(err error, next time.Time) bool {
	c.p.Tries++
	c.p.NextAt = next
	first := c.p.Code != CodeUnreachable || c.p.Reason != err.Error()
	c.p.Code, c.p.Reason, c.p.NextStep = CodeUnreachable, err.Error(), "nothing to do here: it is tried again until the system answers"
	return first
}

// answered stores the answer of Post, or the early one of Prepare.
func (e *Engine) answered(ctx context.Context, c *call, out connector.Outcome) (failure string, err error) {
	now := e.o.Now()
	switch {
	case out.Result == connector.Posted:
		return "", e.posted(ctx, c, out.Document, "posted")
	case out.Result == connector.Rejected && out.Class == connector.Retryable:
		return "", e.retry(ctx, c, out)
	case out.Result == connector.Rejected && out.Code == CodeMappingMissing:
		return "", e.unworded(ctx, c, out)
	case out.Result == connector.Rejected:
		for _, policy := range []func(context.Context, *call, connector.Outcome) (bool, error){e.periodClosed, e.orderShut} {
			if again, err := policy(ctx, c, out); again || err != nil {
				return "", err
			}
		}
		park(&c.p, string(out.Class), out.Code, out.Reason, out.NextStep)
		c.p.Since, c.p.Tries, c.p.Intent = now, 0, nil
		return "", e.save(ctx, c, "rejected", pb.Receipt_OUTCOME_REJECTED)
	}
	reason := out.Reason
	if reason == "" {
		reason = "the outside system was asked and did not answer"
	}
	doubt(&c.p, now, reason)
	return reason, e.save(ctx, c, "in_doubt", pb.Receipt_OUTCOME_IN_DOUBT)
}

func (e *Engine) posted(ctx context.Context, c *call, doc connector.Document, step string) error {
	now := e.o.Now()
	c.p.State, c.p.Class, c.p.Code, c.p.Reason, c.p.NextStep = store.PostingPosted, "", "", "", ""
	c.p.Document, c.p.DocumentID, c.p.Since, c.p.Tries = doc.Number, doc.ID, now, 0
	c.p.NextAt = now.Add(c.erp.Capabilities().Settle)
	return e.save(ctx, c, step, pb.Receipt_OUTCOME_POSTED)
}

// retry makes a posting due again, or parks it when that has gone on for too long.
func (e *Engine) retry(ctx context.Context, c *call, out connector.Outcome) error {
	now := e.o.Now()
	if out.RetryAfter > 0 {
		e.gates[c.p.ERP].rest(now, out.RetryAfter)
	}
	if c.p.Tries == 0 || c.p.Code == CodeUnreachable {
		c.p.Since = now
	}
	c.p.Tries++
	if now.Sub(c.p.Since) >= e.o.RetryFor && c.p.Tries > leastTries {
		park(&c.p, string(out.Class), out.Code, fmt.Sprintf("%s (tried %d times since %s)", out.Reason, c.p.Tries, c.p.Since.Format(time.RFC3339)), out.NextStep)
		c.p.Tries, c.p.Intent = 0, nil
		return e.save(ctx, c, "rejected", pb.Receipt_OUTCOME_REJECTED)
	}
	c.p.State, c.p.Class, c.p.Code, c.p.Reason, c.p.NextStep = store.PostingDue, string(out.Class), out.Code, out.Reason, out.NextStep
	c.p.Intent = nil
	c.p.NextAt = now.Add(min(max(out.RetryAfter, RetryAfter(c.p.Tries)), longestPause))
	return e.save(ctx, c, "retry", pb.Receipt_OUTCOME_UNSPECIFIED)
}

// lookUp finds out what became of a posting in doubt.
func (e *Engine) lookUp(ctx context.Context, c *call) (failure string, err error) {
	c.looksUp = true
	if err := e.crash("looking up"); err != nil {
		return "", err
	}
	asked := e.o.Now() // the answer may be read long after it was given
	found, err := c.erp.Lookup(ctx, c.posting, c.p.Intent)
	c.turn.give()
	if sabotage.Rule(6) {
		found, err = connector.Finding{Presence: connector.Absent}, nil
	}
	if err != nil {
		return err.Error(), e.unreachable(ctx, c, err)
	}
	if err := e.crash("looked up"); err != nil {
		return "", err
	}
	now := e.o.Now()
	switch found.Presence {
	case connector.Found:
		return "", e.posted(ctx, c, found.Document, "posted")
	case connector.Absent:
		if r := found.Rejection; r != nil && r.Result == connector.Rejected {
			return e.answered(ctx, c, *r)
		}
		c.p.State, c.p.Class, c.p.Code, c.p.Reason, c.p.NextStep = store.PostingDue, "", "", "", ""
		c.p.Intent, c.p.Tries, c.p.Since, c.p.NextAt = nil, 0, now, now
		return "", e.save(ctx, c, "absent", pb.Receipt_OUTCOME_RECEIVED)
	case connector.NotFoundYet:
		if asked.Sub(c.p.Since) < e.o.DoubtFor || c.p.Tries < leastTries {
			c.p.Tries++
			c.p.NextAt = now.Add(LookupAfter(c.p.Tries))
			c.p.Code = ""
			return "", e.save(ctx, c, "not found yet", pb.Receipt_OUTCOME_UNSPECIFIED)
		}
		found.Reason = fmt.Sprintf("the effect has not appeared since %s", c.p.Since.Format(time.RFC3339))
	}
	park(&c.p, ClassCannotTell, CodeCannotTell, found.Reason,
		"look in the outside system: accept this fact with the document's number if it is there, or have it posted again if it is not")
	c.p.Since, c.p.Tries = now, 0
	return "", e.save(ctx, c, "cannot tell", pb.Receipt_OUTCOME_IN_DOUBT)
}

// verify reads the effect back.
func (e *Engine) verify(ctx context.Context, c *call) (failure string, err error) {
	if err := e.crash("reading back"); err != nil {
		return "", err
	}
	asked := e.o.Now()
	v, err := c.erp.Verify(ctx, c.posting, c.p.Intent, connector.Document{Number: c.p.Document, ID: c.p.DocumentID})
	c.turn.give()
	if err != nil {
		return err.Error(), e.unreachable(ctx, c, err)
	}
	if err := e.crash("read back"); err != nil {
		return "", err
	}
	if step, outcome, known := c.readAs(v, asked, e.o.Now(), e.o.DoubtFor); known {
		if step == "" {
			return "", e.put(ctx, c)
		}
		return "", e.save(ctx, c, step, outcome)
	}
	if v.NotYet {
		v.Difference = fmt.Sprintf("the effect of document %q has not appeared since %s", c.p.Document, c.p.Since.Format(time.RFC3339))
	}
	park(&c.p, ClassMismatch, CodeDiffers, v.Difference, "correct the document in the outside system, then replay this fact to compare again")
	c.p.Since, c.p.Tries = e.o.Now(), 0
	return "", e.save(ctx, c, "differs", pb.Receipt_OUTCOME_POSTED)
}

// readAs changes the posting as it was read back, if it is as it should be or, when it was asked for, might still become so. It returns
// the step in its life; empty when there is none.
func (c *call) readAs(v connector.Verification, asked, now time.Time, patience time.Duration) (step string, outcome pb.Receipt_Outcome, known bool) {
	switch {
	case v.Matches:
		c.p.State, c.p.Class, c.p.Code, c.p.Reason, c.p.NextStep = store.PostingVerified, "", "", "", ""
		c.p.Intent, c.p.Since, c.p.Tries, c.p.NextAt = nil, now, 0, time.Time{}
		return "verified", pb.Receipt_OUTCOME_VERIFIED, true
	case v.NotYet && (asked.Sub(c.p.Since) < patience || c.p.Tries < leastTries):
		c.p.Tries++
		c.p.NextAt = now.Add(LookupAfter(c.p.Tries - 1))
		return "", pb.Receipt_OUTCOME_UNSPECIFIED, true
	}
	return "", pb.Receipt_OUTCOME_UNSPECIFIED, false
}
