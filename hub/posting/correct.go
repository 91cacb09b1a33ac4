package posting

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// A posting can be corrected: it is made with another order number, item, lot or date than its fact says. The fact stays as it
// came, and the posting goes under the fact's own key, so that it still takes effect once. What is in the books already must be
// taken back there first; then it is posted under a new key, because the old one leads to the document that was reversed.

// The codes of postings that a person or a heal takes back.
const (
	CodeReversing = "reversing"  // parked: its document is being taken back, or may have been
	CodeTakenBack = "taken_back" // settled: its document was taken back, and nothing came in its place
)

// ErrNotNow says that a posting cannot be corrected or taken back as it is now; the text says why and what to do.
var ErrNotNow = errors.New("that cannot be done to this posting now")

const (
	stepCorrected = "corrected"
	stepReversing = "reversing"
	stepTakenBack = "taken back"
)

// Correct posts a fact with other values than it says; empty fields of want stay as they are. It is for what is certainly not in
// the books: what was rejected, what waits, what was taken back or settled without a document; and, for the date alone, for what
// is due. note says why, by who; both stay with the fact, with the four values before and after.
func (e *Engine) Correct(ctx context.Context, key string, want store.Values, note, by string) error {
	var taken store.Posting
	err := e.onFact(ctx, "correct", key, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		c, err := tx.Correction(p.FactID)
		if err != nil {
			return err
		}
		now, err := valuesNow(tx, c, f)
		if err != nil {
			return err
		}
		next := store.Correction{FactID: p.FactID, By: by, Note: note, Before: now, After: merged(now, want)}
		if c != nil {
			next.Key = c.Key
		}
		if err := correctable(tx, p, f.Fact, next); err != nil {
			return err
		}
		if err := e.apart(tx, p); err != nil {
			return err
		}
		if p.Code == CodeTakenBack {
			if next.Key, err = keyAfter(tx, p, f.Fact); err != nil {
				return err
			}
		}
		if err := errors.Join(tx.AddCorrection(&next), e.setCorrectedDate(tx, f, next)); err != nil {
			return err
		}
		if err := e.takeUp(tx, p, f, next); err != nil {
			return err
		}
		taken = *p
		return e.changedFor(tx, *p, f, store.PostingStep{Step: stepCorrected, Reason: next.Text(), By: by}, outcomeOf(*p))
	})
	if err == nil {
		e.replayed(taken)
	}
	return err
}

// RetryOn makes a posting due with another date for the books: a period that is closed, or the date of a wrong zone.
func (e *Engine) RetryOn(ctx context.Context, key string, date time.Time, reason, by string) error {
	return e.Correct(ctx, key, store.Values{PostingDate: date.Format(time.DateOnly)}, reason, by)
}

// valuesNow are those that a fact is posted with as it stands.
func valuesNow(tx *store.Tx, c *store.Correction, f store.Fact) (store.Values, error) {
	v := store.ValuesOf(c.Apply(f.Fact))
	d, err := tx.PostingDate(f.ID)
	if errors.Is(err, store.ErrNotFound) {
		return v, nil
	}
	v.PostingDate = d.Date
	return v, err
}

// setCorrectedDate lets a date that was corrected count, whatever a policy says: somebody has decided.
func (e *Engine) setCorrectedDate(tx *store.Tx, f store.Fact, c store.Correction) error {
	if c.After.PostingDate == c.Before.PostingDate {
		return nil
	}
	return tx.SetPostingDate(store.PostingDate{FactID: f.ID, Date: c.After.PostingDate, Event: postingDate(f.Fact).Format(time.DateOnly), Reason: c.Note, ApprovedBy: cmp.Or(c.By, "somebody")})
}

// merged are the values after a correction.
func merged(v, want store.Values) store.Values {
	for _, x := range []struct{ into, from *string }{{&v.OrderNo, &want.OrderNo}, {&v.Item, &want.Item}, {&v.Lot, &want.Lot}, {&v.PostingDate, &want.PostingDate}} {
		if s := strings.TrimSpace(*x.from); s != "" {
			*x.into = s
		}
	}
	return v
}

// correctable says why a correction cannot be made, nil when it can.
func correctable(tx *store.Tx, p *store.Posting, f object.Fact, c store.Correction) error {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrNotNow, fmt.Sprintf(format, args...))
	}
	dated := c.Before
	dated.PostingDate = c.After.PostingDate
	switch {
	case c.Before == c.After:
		return refuse("nothing would change: give another order number, item, lot or date")
	case p.State == store.PostingDue && dated == c.After:
	case p.State == store.PostingSettled && p.Document == "":
	case p.State != store.PostingParked:
		return refuse("it is %s: correct what is parked, or take back first what is in the books", p.State)
	case p.Class == ClassCannotTell || p.Class == ClassMismatch || p.Document != "":
		return refuse("the outside system may have it: take it back there first, or say that it does not have it")
	case p.Code == CodeRangeOverlap:
		return refuse("its counter range is known in part: book what is missing by hand, then accept it")
	}
	if _, err := time.Parse(time.DateOnly, c.After.PostingDate); c.After.PostingDate != c.Before.PostingDate && err != nil {
		return refuse("%q is no date: write it like 2026-11-26", c.After.PostingDate)
	}
	if f.OrderState != nil && (c.After.Item != c.Before.Item || c.After.Lot != c.Before.Lot) {
		return refuse("a change of state has no item and no lot")
	}
	if c.After.OrderNo == c.Before.OrderNo {
		return nil
	}
	order, ok, err := tx.FindOrder(p.Plant, c.After.OrderNo)
	switch {
	case err != nil:
		return err
	case !ok:
		return refuse("work order %q is not known to this hub", c.After.OrderNo)
	case order.Order.Plant != p.Plant:
		return refuse("work order %q belongs to plant %q, the fact comes from %q", c.After.OrderNo, order.Order.Plant, p.Plant)
	}
	return nil
}

// alone refuses a posting whose document is of other facts too.
func alone(tx *store.Tx, p *store.Posting) error {
	shared, err := tx.Shared(p.FactID)
	if err == nil && shared {
		err = fmt.Errorf("%w: it is posted together with other facts as one document: change that in the outside system by hand, then accept it", ErrNotNow)
	}
	return err
}

// takeUp makes a corrected posting due, or lets it wait for what is missing.
func (e *Engine) takeUp(tx *store.Tx, p *store.Posting, f store.Fact, c store.Correction) error {
	moved := c.After.OrderNo != p.OrderNo || c.After.Item != c.Before.Item
	was := store.Correction{After: c.Before}
	if moved {
		if err := unsay(tx, p, was.Values(f.Fact)); err != nil {
			return err
		}
	}
	if f.Fact.OrderState != nil && c.After.OrderNo != p.OrderNo {
		if err := tx.MoveOrderSteps(p.FactID, p.OrderNo, c.After.OrderNo); err != nil {
			return err
		}
	}
	p.OrderNo = c.After.OrderNo
	if p.Amounts == nil {
		p.Amounts = amounts(f.Fact, f.Fact.FactQuantities())
	}
	if moved || slices.Contains(beforePosting, p.Code) || p.ERP == "" {
		f.Fact = c.Values(f.Fact)
		return e.admit(tx, p, f)
	}
	due(p, tx)
	return nil
}

// outcomeOf is what the plant is told of a posting that was decided about anew.
func outcomeOf(p store.Posting) pb.Receipt_Outcome {
	switch {
	case p.State == store.PostingInDoubt:
		return pb.Receipt_OUTCOME_IN_DOUBT
	case p.State == store.PostingPosted:
		return pb.Receipt_OUTCOME_POSTED
	case p.State == store.PostingNotPosted:
		return pb.Receipt_OUTCOME_NOT_POSTED
	case p.State == store.PostingParked && p.Class != ClassWaiting:
		return pb.Receipt_OUTCOME_REJECTED
	}
	return pb.Receipt_OUTCOME_RECEIVED
}

// asPosted gives a fact the values that its posting was corrected to. Its key stays.
func asPosted(tx *store.Tx, f store.Fact) (store.Fact, error) {
	c, err := tx.Correction(f.ID)
	if err == nil {
		f.Fact = c.Values(f.Fact)
	}
	return f, err
}

// inherit gives a reversal the values that the posting it takes back was corrected to.
func inherit(tx *store.Tx, p *store.Posting, f *store.Fact, op store.Posting) error {
	own, err := tx.Correction(p.FactID)
	if err != nil || own != nil {
		return err
	}
	c, err := tx.Correction(op.FactID)
	if err != nil || c == nil {
		return err
	}
	next := store.Correction{FactID: p.FactID, By: c.By, Note: "as the fact that it takes back: " + c.Note, Before: store.ValuesOf(f.Fact), After: c.After}
	if next.Before == next.After {
		return nil
	}
	f.Fact, p.OrderNo, p.ERP = next.Values(f.Fact), next.After.OrderNo, op.ERP
	return tx.AddCorrection(&next)
}

// errCorrected says that a posting was corrected while it was being prepared: it is prepared again.
var errCorrected = errors.New("the posting was corrected meanwhile")

// sameCorrection refuses to send what was prepared before the last correction.
func sameCorrection(tx *store.Tx, c *call) error {
	now, err := tx.Correction(c.p.FactID)
	if err == nil && number(now) != number(c.correction) {
		err = errCorrected
	}
	return err
}

func number(c *store.Correction) int64 {
	if c == nil {
		return 0
	}
	return c.ID
}

// Reverse takes back what is in the books of a fact, by a person's decision: the outside system makes the opposite of its document
// under a key of its own. Nothing comes in its place until somebody corrects the posting. It can be asked for again when the answer
// was lost.
func (e *Engine) Reverse(ctx context.Context, key, note, by string) error {
	return e.takeOut(ctx, key, note, by, false)
}

// Convert takes back what is in the books of a fact and posts the fact again, as it is meant, under a new key.
func (e *Engine) Convert(ctx context.Context, key, reason, by string) error {
	return e.takeOut(ctx, key, reason, by, true)
}

func (e *Engine) takeOut(ctx context.Context, key, note, by string, again bool) error {
	var was store.Posting
	var reverser connector.DocumentReverser
	err := e.onFact(ctx, "take back", key, func(tx *store.Tx, p *store.Posting, f store.Fact) (err error) {
		if reverser, err = e.reversible(tx, p); err != nil {
			return err
		}
		was = *p
		park(p, ClassMismatch, CodeReversing, fmt.Sprintf("document %s is being taken back: %s", p.Document, note),
			"look whether it was reversed; take it back again (that is done once), or replay it to compare")
		p.Since, p.Tries = tx.Now(), 0
		return e.changedFor(tx, *p, f, store.PostingStep{Step: stepReversing, Document: p.Document, Reason: note, By: by}, pb.Receipt_OUTCOME_UNSPECIFIED)
	})
	if err != nil {
		return err
	}
	if err := e.crash("reversing"); err != nil {
		return err
	}
	out, asked := e.reverse(ctx, reverser, store.Lane{ERP: was.ERP, OrderNo: was.OrderNo}, was.Document, takeOutKey(was.ERP, was.Document))
	if err := e.crash("reversed"); err != nil {
		return err
	}
	var now store.Posting
	err = e.onFact(context.WithoutCancel(ctx), "take back", key, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		if p.State != store.PostingParked || p.Code != CodeReversing || p.Document != was.Document {
			return nil // somebody has decided meanwhile
		}
		err := e.reversed(tx, p, f, was, out, asked, note, by, again)
		now = *p
		return err
	})
	switch {
	case err != nil:
		return err
	case asked != nil:
		return fmt.Errorf("take back document %q of fact %q: %w", was.Document, key, asked)
	case out.Result != connector.Posted:
		return fmt.Errorf("%w: document %q of fact %q was not taken back: %s %s", ErrNotNow, was.Document, key, out.Code, out.Reason)
	}
	e.replayed(now)
	return nil
}

// reversible finds who can take a posting's document back.
func (e *Engine) reversible(tx *store.Tx, p *store.Posting) (connector.DocumentReverser, error) {
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrNotNow, fmt.Sprintf(format, args...))
	}
	inPlace := p.State == store.PostingVerified || p.State == store.PostingSettled || p.State == store.PostingParked && p.Class == ClassMismatch
	if !inPlace || p.Document == "" {
		return nil, refuse("it is %s and no document of it is known to be in the books", p.State)
	}
	if err := alone(tx, p); err != nil {
		return nil, err
	}
	if parted, err := tx.Parted(p.FactID); err != nil || parted {
		return nil, errors.Join(err, refuse("its document is being taken back, because a fact takes back a part of it"))
	}
	other, err := tx.LastStep(p.FactID, stepReversed)
	if err == nil {
		return nil, refuse("it is %s already", other.Reason)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	r, ok := e.o.Connectors[p.ERP].(connector.DocumentReverser)
	if !ok {
		return nil, refuse("system %q takes no document back by itself: reverse %s there by hand", p.ERP, p.Document)
	}
	return r, nil
}

// reversed stores what came of it.
func (e *Engine) reversed(tx *store.Tx, p *store.Posting, f store.Fact, was store.Posting, out connector.Outcome, asked error, note, by string, again bool) error {
	switch {
	case asked != nil:
		p.Reason = fmt.Sprintf("whether document %s was taken back is not known: %v", p.Document, asked)
		return tx.PutPosting(*p)
	case out.Result == connector.Rejected:
		if was.Code != CodeReversing {
			*p = was
		} else {
			p.Reason = out.Code + " " + out.Reason
		}
		return e.changedFor(tx, *p, f, store.PostingStep{Step: "not taken back", Code: out.Code, Document: p.Document, Reason: out.Reason, By: by}, pb.Receipt_OUTCOME_UNSPECIFIED)
	case out.Result != connector.Posted:
		p.Reason = fmt.Sprintf("whether document %s was taken back is not known: %s", p.Document, out.Reason)
		return tx.PutPosting(*p)
	}
	p.State, p.Class, p.Code, p.Reason, p.NextStep = store.PostingSettled, "", CodeTakenBack, fmt.Sprintf("document %s was taken back: %s", was.Document, note), ""
	p.Document, p.DocumentID, p.Intent, p.Since, p.Tries = "", "", nil, tx.Now(), 0
	step := store.PostingStep{Step: stepTakenBack, Document: out.Document.Number, Reason: p.Reason, By: by}
	if !again {
		return e.changedFor(tx, *p, f, step, pb.Receipt_OUTCOME_NOT_POSTED)
	}
	if err := tx.PutPosting(*p); err != nil {
		return err
	}
	step.FactID, step.Attempt = p.FactID, p.Attempt
	if err := tx.AddPostingStep(step); err != nil {
		return err
	}
	return e.anew(tx, p, f, note, by)
}

// anew makes what was taken back due again, as it is.
func (e *Engine) anew(tx *store.Tx, p *store.Posting, f store.Fact, note, by string) error {
	c, err := tx.Correction(p.FactID)
	if err != nil {
		return err
	}
	v, err := valuesNow(tx, c, f)
	if err != nil {
		return err
	}
	next := store.Correction{FactID: p.FactID, By: by, Note: note, Before: v, After: v}
	if next.Key, err = keyAfter(tx, p, f.Fact); err != nil {
		return err
	}
	if err := tx.AddCorrection(&next); err != nil {
		return err
	}
	due(p, tx)
	return e.changedFor(tx, *p, f, store.PostingStep{Step: "posted anew", Reason: "under key " + next.Key.String(), By: by}, pb.Receipt_OUTCOME_RECEIVED)
}

// keyAfter is the key under which a fact is posted after its document was taken back: it comes from the document that did it.
func keyAfter(tx *store.Tx, p *store.Posting, f object.Fact) (factkey.Key, error) {
	s, err := tx.LastStep(p.FactID, stepTakenBack)
	if err != nil {
		return factkey.Key{}, fmt.Errorf("find what took the posting back: %w", err)
	}
	return factkey.Of(factkey.Position("posted anew", f.Key.String(), s.Document)), nil
}
