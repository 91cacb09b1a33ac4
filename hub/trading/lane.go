package trading

import (
	"context"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
)

// call is everything that a step needs to know.
type call struct {
	erp   guarded
	w     store.Write
	want  connector.Write
	visit *posting.Visit
	said  *exchange.Recorder
	// looksUp says that what is said is the question for a write, not the write.
	looksUp bool
}

// action makes one call of the outside system and stores what came of it. failure is a reason to believe that the system itself is
// in trouble.
type action func(ctx context.Context, c *call) (failure string, err error)

// permitted runs an action unless the system is being left in peace.
func (t *Trader) permitted(ctx context.Context, w store.Write, do action) (time.Time, error) {
	v, wait, err := t.o.Posting.Visit(w.ERP)
	if err != nil || v == nil {
		return t.o.Now().Add(wait), err
	}
	if err := v.Turn(ctx, false); err != nil {
		v.Quit()
		return time.Time{}, ended(ctx, err)
	}
	c := &call{erp: t.writers[w.ERP], w: w, want: wanted(w), visit: v}
	ctx, cancel := v.Context(ctx)
	defer cancel()
	ctx, c.said = exchange.Recording(ctx)
	failure, err := do(ctx, c)
	v.Leave(failure)
	if failure != "" {
		t.o.Logger.Warn("outside system failed", "erp", w.ERP, "write", w.Key.String(), "reason", failure)
	}
	return time.Time{}, err
}

// wanted is a write as the connector gets it: in the system's own words, as it was asked for. Whoever lets mappings say it in other
// words does it here, and keeps them fixed from the intent on.
func wanted(w store.Write) connector.Write {
	out := connector.Write{Key: w.Key, Want: w.Want, Accept: w.Accept, Attempt: max(w.Attempt, 1)}
	if d, err := time.Parse(time.DateOnly, w.PostingDate); err == nil {
		out.PostingDate = d
	}
	return out
}

// send asks for the intent, stores it, and only then makes the effect.
func (t *Trader) send(ctx context.Context, c *call) (failure string, err error) {
	c.want.Attempt = c.w.Attempt + 1
	if err := t.crash("write: asking"); err != nil {
		return "", err
	}
	intent, early, err := c.erp.PrepareBusiness(ctx, c.want)
	c.visit.Pause()
	if err != nil {
		return err.Error(), t.unreachable(ctx, c, err)
	}
	c.w.Attempt++
	if early != nil {
		return t.answered(ctx, c, *early)
	}
	if err := t.crash("write: prepared"); err != nil {
		return "", err
	}
	c.w.State, c.w.Intent, c.w.Code, c.w.Reason, c.w.NextStep = store.PostingSending, intent, "", "", ""
	if err := t.save(ctx, c, "sending"); err != nil {
		return "", err
	}
	if err := t.crash("write: sending"); err != nil {
		return "", err
	}
	// What was prepared grows old: it goes before the calls of others.
	if err := c.visit.Turn(ctx, true); err != nil {
		c.w.State, c.w.Intent = store.PostingDue, nil // nothing was sent
		return err.Error(), t.unreachable(ctx, c, fmt.Errorf("wait for other calls of the outside system: %w", err))
	}
	out := c.erp.WriteBusiness(ctx, c.want, intent)
	c.visit.Pause()
	if err := t.crash("write: written"); err != nil {
		return "", err
	}
	return t.answered(ctx, c, out)
}

// purposes are the steps at which what was said is kept, and as what.
var purposes = map[string]string{"posted": "post", "rejected": "post", "in_doubt": "post", "retry": "post", "found": "look up", "absent": "look up", "cannot tell": "look up",
	"refused": "look up", "differs": "read back"}

// save stores a write after a call; it is not cut short by the hub's end.
func (t *Trader) save(ctx context.Context, c *call, step string) error {
	var said []store.Exchange
	purpose := purposes[step]
	if purpose != "" {
		said = posting.Exchanges(c.said)
	}
	if c.looksUp && purpose == "post" { // what was said when it was written stays beside it
		purpose = "look up"
	}
	err := t.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		if len(said) > 0 {
			if err := tx.PutWriteExchanges(c.w.ID, purpose, said); err != nil {
				return err
			}
		}
		if err := tx.PutWrite(c.w, step, ""); err != nil {
			return err
		}
		return t.crash("write: storing " + step)
	})
	if err != nil {
		return fmt.Errorf("store what became of write %q: %w", c.w.Key, err)
	}
	return t.crash("write: saved " + step)
}

// put is save for what is no step of its own.
func (t *Trader) put(ctx context.Context, c *call) error {
	return t.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.PutWrite(c.w, "", "") })
}

// doubtUnheard is the longest pause after a look-up that did not get through.
const doubtUnheard = 15 * time.Second

// unreachable leaves a write where it is; the call comes again, for ever.
func (t *Trader) unreachable(ctx context.Context, c *call, err error) error {
	c.w.Tries++
	pause := posting.RetryAfter(c.w.Tries)
	if c.w.State == store.PostingInDoubt { // the question was lost, not answered
		pause = min(pause, doubtUnheard)
	}
	c.w.NextAt = t.o.Now().Add(pause)
	first := c.w.Code != posting.CodeUnreachable || c.w.Reason != err.Error()
	c.w.Code, c.w.Reason, c.w.NextStep = posting.CodeUnreachable, err.Error(), "nothing to do here: it is tried again until the system answers"
	if first {
		return t.save(ctx, c, "unreachable")
	}
	return t.put(ctx, c)
}

// answered stores the answer of WriteBusiness, or the early one of PrepareBusiness.
func (t *Trader) answered(ctx context.Context, c *call, out connector.Outcome) (failure string, err error) {
	switch {
	case out.Result == connector.Posted:
		return "", t.posted(ctx, c, out.Document, "posted")
	case out.Result == connector.Rejected && out.Class == connector.Retryable:
		return "", t.retry(ctx, c, out)
	case out.Result == connector.Rejected:
		park(&c.w, t.o.Now(), string(out.Class), out.Code, out.Reason, out.NextStep)
		c.w.Intent = nil
		return "", t.save(ctx, c, "rejected")
	}
	reason := out.Reason
	if reason == "" {
		reason = "the outside system was asked and did not answer"
	}
	doubt(&c.w, t.o.Now(), reason)
	return reason, t.save(ctx, c, "in_doubt")
}

func (t *Trader) posted(ctx context.Context, c *call, doc connector.Document, step string) error {
	now := t.o.Now()
	c.w.State, c.w.Class, c.w.Code, c.w.Reason, c.w.NextStep = store.PostingPosted, "", "", "", ""
	c.w.Document, c.w.DocumentID, c.w.Since, c.w.Tries = doc.Number, doc.ID, now, 0
	c.w.NextAt = now.Add(t.o.Connectors[c.w.ERP].Capabilities().Settle)
	return t.save(ctx, c, step)
}

// retry makes a write due again, or parks it when that has gone on for too long.
func (t *Trader) retry(ctx context.Context, c *call, out connector.Outcome) error {
	now := t.o.Now()
	if out.RetryAfter > 0 {
		c.visit.Rest(out.RetryAfter)
	}
	if c.w.Tries == 0 || c.w.Code == posting.CodeUnreachable {
		c.w.Since = now
	}
	c.w.Tries++
	c.w.Intent = nil
	if now.Sub(c.w.Since) >= t.o.RetryFor && c.w.Tries > leastTries {
		park(&c.w, now, string(out.Class), out.Code, fmt.Sprintf("%s (tried %d times since %s)", out.Reason, c.w.Tries, c.w.Since.Format(time.RFC3339)), out.NextStep)
		return t.save(ctx, c, "rejected")
	}
	c.w.State, c.w.Class, c.w.Code, c.w.Reason, c.w.NextStep = store.PostingDue, string(out.Class), out.Code, out.Reason, out.NextStep
	c.w.NextAt = now.Add(min(max(out.RetryAfter, posting.RetryAfter(c.w.Tries)), longestPause))
	return t.save(ctx, c, "retry")
}

// lookUp finds out what became of a write in doubt.
func (t *Trader) lookUp(ctx context.Context, c *call) (string, error) {
	if err := t.crash("write: looking up"); err != nil {
		return "", err
	}
	c.looksUp = true
	asked := t.o.Now() // the answer may be read long after it was given
	var found connector.Finding
	var err error
	if c.w.Class == ClassGone {
		found, err = c.search(ctx, t.o.Connectors[c.w.ERP])
	} else {
		found, err = c.erp.LookupBusiness(ctx, c.want, c.w.Intent)
	}
	c.visit.Pause()
	if err != nil {
		return err.Error(), t.unreachable(ctx, c, err)
	}
	if err := t.crash("write: looked up"); err != nil {
		return "", err
	}
	now := t.o.Now()
	switch found.Presence {
	case connector.Found:
		return "", t.posted(ctx, c, found.Document, "found")
	case connector.Absent:
		if r := found.Rejection; r != nil && r.Result == connector.Rejected {
			return t.answered(ctx, c, *r)
		}
		due(&c.w, now)
		return "", t.save(ctx, c, "absent")
	case connector.NotFoundYet:
		if asked.Sub(c.w.Since) < t.o.DoubtFor || c.w.Tries < leastTries {
			c.w.Tries++
			c.w.NextAt = now.Add(posting.LookupAfter(c.w.Tries))
			c.w.Code = ""
			return "", t.save(ctx, c, "not found yet")
		}
		found.Reason = fmt.Sprintf("the object has not appeared since %s", c.w.Since.Format(time.RFC3339))
	}
	park(&c.w, now, posting.ClassCannotTell, posting.CodeCannotTell, found.Reason,
		"look in the outside system: settle this write with the document's number if it is there, or have it written again if it is not")
	return "", t.save(ctx, c, "cannot tell")
}

// verify reads the object back.
func (t *Trader) verify(ctx context.Context, c *call) (failure string, err error) {
	if err := t.crash("write: reading back"); err != nil {
		return "", err
	}
	asked := t.o.Now()
	v, err := c.erp.VerifyBusiness(ctx, c.want, c.w.Intent, connector.Document{Number: c.w.Document, ID: c.w.DocumentID})
	c.visit.Pause()
	if err != nil {
		return err.Error(), t.unreachable(ctx, c, err)
	}
	if err := t.crash("write: read back"); err != nil {
		return "", err
	}
	now := t.o.Now()
	switch {
	case v.Matches:
		c.w.State, c.w.Class, c.w.Code, c.w.Reason, c.w.NextStep = store.PostingVerified, "", "", "", ""
		c.w.Intent, c.w.Since, c.w.Tries, c.w.NextAt = nil, now, 0, time.Time{}
		err := t.save(ctx, c, "verified")
		t.Wake(c.w.ERP)
		return "", err
	case v.NotYet && (asked.Sub(c.w.Since) < t.o.DoubtFor || c.w.Tries < leastTries):
		c.w.Tries++
		c.w.NextAt = now.Add(posting.LookupAfter(c.w.Tries - 1))
		return "", t.put(ctx, c)
	case v.NotYet:
		v.Difference = fmt.Sprintf("document %q has not appeared since %s", c.w.Document, c.w.Since.Format(time.RFC3339))
	}
	park(&c.w, now, posting.ClassMismatch, posting.CodeDiffers, v.Difference, "correct the object in the outside system, then replay this write to compare again")
	return "", t.save(ctx, c, "differs")
}

func park(w *store.Write, now time.Time, class, code, reason, next string) {
	w.State, w.Class, w.Code, w.Reason, w.NextStep = store.PostingParked, class, code, reason, next
	w.Since, w.Tries, w.NextAt = now, 0, time.Time{}
}

func due(w *store.Write, now time.Time) {
	w.State, w.Class, w.Code, w.Reason, w.NextStep = store.PostingDue, "", "", "", ""
	w.Intent, w.Tries, w.Since, w.NextAt = nil, 0, now, now
}

func doubt(w *store.Write, now time.Time, reason string) {
	w.State, w.Class, w.Code, w.Reason = store.PostingInDoubt, "", "", reason
	w.NextStep = "nothing to do: the outside system is asked until it is known"
	w.Since, w.Tries = now, 0
	w.NextAt = now.Add(posting.LookupAfter(0))
}
