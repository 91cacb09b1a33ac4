package posting

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

// A fact that takes another back is posted once that other is in the books, with the quantities that were posted of it. Until
// then it is parked and waits; the original's way into the books releases it, in the same transaction. Where the original
// needs no effect, its reversal needs none either.

// stepReversed stands in the life of a fact that another takes back; the reason names that.
const stepReversed = "reversed"

// reversals are the parked facts that wait for the one they take back, by its key.
type reversals struct {
	mu      sync.Mutex
	waiting map[string][]int64
}

// wait notes that a reversal waits for an original. Noting one that does not is no harm.
func (r *reversals) wait(original string, id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiting == nil {
		r.waiting = map[string][]int64{}
	}
	if !slices.Contains(r.waiting[original], id) {
		r.waiting[original] = append(r.waiting[original], id)
	}
}

func (r *reversals) of(original string) []int64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.waiting[original])
}

func (r *reversals) done(original string, id int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := slices.DeleteFunc(r.waiting[original], func(x int64) bool { return x == id })
	if len(left) == 0 {
		delete(r.waiting, original)
		return
	}
	r.waiting[original] = left
}

// loadReversals reads what waits from the store.
func (e *Engine) loadReversals(ctx context.Context) error {
	for page := (store.Page{Limit: 1000}); ; {
		facts, err := e.o.Store.Postings(ctx, store.PostingFilter{State: store.PostingParked, Code: CodeWaitsForOriginal}, page)
		if err != nil {
			return fmt.Errorf("load reversals that wait: %w", err)
		}
		for _, f := range facts {
			e.reversals.wait(f.Fact.Reverses.String(), f.ID)
			page.Before = f.ID
		}
		if len(facts) < page.Limit {
			return nil
		}
	}
}

// inBooks reports that nothing more has to happen before a posting can be taken back. It may have no effect at all.
func inBooks(p store.Posting) bool { return p.State == store.PostingPosted || p.State.Settled() }

// releaseReversals plans the reversals again that wait for a fact which was planned or has changed.
func (e *Engine) releaseReversals(tx *store.Tx, f store.Fact) error {
	key := f.Fact.Key.String()
	for _, id := range e.reversals.of(key) {
		err := e.one(tx, id, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
			if p.State != store.PostingParked || p.Code != CodeWaitsForOriginal {
				return nil
			}
			return e.readmit("")(tx, p, f)
		})
		if err != nil && !errors.Is(err, store.ErrNotFound) { // not found: its planning was undone
			return fmt.Errorf("take fact %q back: %w", key, err)
		}
	}
	return nil
}

// admitReversal makes a reversal due when the original is in the books, with the original's quantities.
func (e *Engine) admitReversal(tx *store.Tx, p *store.Posting, f store.Fact, c connector.Capabilities) error {
	key := f.Fact.Reverses.String()
	byHand := func(why string) error {
		park(p, string(connector.Correctable), CodeReversal, fmt.Sprintf("takes back fact %s: %s", key, why),
			"reverse that fact's document in the outside system by hand, then accept this one with the reversal's number")
		return nil
	}
	if !slices.Contains(c.Reverses, f.Fact.Kind) {
		return byHand(fmt.Sprintf("system %q does not do that by itself for facts of this kind", p.ERP))
	}
	original, op, err := e.original(tx, f)
	if err != nil {
		return err
	}
	waits := op != nil && op.State == store.PostingDue && op.Code == CodeCollecting
	if op == nil || !inBooks(*op) && !waits {
		e.reversals.wait(key, p.FactID)
		why := "it has not come yet"
		if op != nil {
			why = fmt.Sprintf("it is %s", op.State)
		}
		park(p, ClassWaiting, CodeWaitsForOriginal, fmt.Sprintf("takes back fact %s, which is not in the books: %s", key, why),
			"nothing here: settle that fact; then this goes on by itself")
		return nil
	}
	e.reversals.done(key, p.FactID)
	if err := inherit(tx, p, &f, *op); err != nil {
		return err
	}
	said, err := tx.Applied(op.FactID)
	if err != nil {
		return err
	}
	if said, err = movementsToo(tx, said, original.Fact, p.ERP); err != nil {
		return err
	}
	counted, err := tx.Counted(op.FactID)
	if err != nil {
		return err
	}
	if why := misfit(f.Fact, original.Fact, *op, counted); why != "" {
		return byHand(why)
	}
	part, why, err := e.partOf(tx, p, f, original, *op, c)
	if err != nil {
		return err
	}
	if why != "" {
		return byHand(why)
	}
	other, err := tx.LastStep(op.FactID, stepReversed)
	switch {
	case err == nil && other.Reason != reversedBy(f.Fact):
		return byHand("it is " + other.Reason + " already")
	case err != nil && !errors.Is(err, store.ErrNotFound):
		return err
	}
	if joined, err := e.joinOriginal(tx, p, f, *op, part); joined || err != nil {
		return err
	}
	if op.Document == "" && op.Code != CodeBelowScale {
		notPosted(p, CodeNothingToReverse, fmt.Sprintf("fact %s, which this one takes back, has no effect in the outside system", key))
		return nil
	}
	if err == nil {
		due(p, tx) // was admitted before: what is below is done
		if said != nil {
			err = tx.SetApplied(p.FactID, said) // a type of movement may have been missing
		}
		return err
	}
	if part != nil && !part.all {
		if said != nil {
			if err := tx.SetApplied(p.FactID, said); err != nil {
				return err
			}
		}
		return e.takePart(tx, p, f, *op, part)
	}
	return e.takeBack(tx, p, f, *op, said, part)
}

// movementsToo adds what a reversal needs and its original did not: the type of the opposite movement.
func movementsToo(tx *store.Tx, said *mapping.Applied, original object.Fact, erp string) (*mapping.Applied, error) {
	rules, err := tx.MappingRules()
	if err != nil || rules.Empty() {
		return said, err
	}
	return said.WithMovements(rules, original, erp, tx.Now()), nil
}

func reversedBy(f object.Fact) string { return "taken back by fact " + f.Key.String() }

// original finds the fact that another takes back, and its posting; nil when it is not planned yet.
func (e *Engine) original(tx *store.Tx, f store.Fact) (store.Fact, *store.Posting, error) {
	original, err := tx.FactByKey(f.Fact.Reverses)
	if err == nil {
		var p store.Posting
		if p, err = tx.Posting(original.ID); err == nil {
			original, err = asPosted(tx, original)
			return original, &p, err
		}
	}
	if errors.Is(err, store.ErrNotFound) {
		err = nil
	}
	return original, nil, err
}

// misfit says why a reversal cannot take back what was posted of a fact, or a part of it, empty when it can. counted is what counted of it:
// what was posted may be more or less by what rounding carried on.
func misfit(f, original object.Fact, op store.Posting, counted *store.Amounts) string {
	lines, of := f.FactQuantities(), original.FactQuantities()
	switch {
	case !original.Reverses.IsZero():
		return "that is itself a reversal"
	case f.Kind != original.Kind || f.OrderNo() != original.OrderNo() || f.Plant != original.Plant:
		return fmt.Sprintf("that is a %s of order %q", original.Kind, original.OrderNo())
	case (len(lines) == 0) != (len(of) == 0):
		return "its quantities are others"
	}
	for _, l := range lines {
		i := slices.IndexFunc(of, func(o object.FactLine) bool { return o.LedgerKey == l.LedgerKey })
		if i < 0 || l.Received.Neg().GreaterThan(of[i].Received) {
			return beside(of[max(i, 0)], l)
		}
	}
	for _, o := range of {
		if v := *amount(counted, o.Kind); op.Amounts != nil && !v.Equal(o.Received) {
			return fmt.Sprintf("of its %s %s only %s counted", o.Received, o.Unit, v)
		}
	}
	return ""
}

// beside says what a fact has and what another takes back of it.
func beside(of, l object.FactLine) string {
	return fmt.Sprintf("that has %s %s of %q, this one takes back %s %s of %q", of.Received, of.Unit, of.Item, l.Received.Neg(), l.Unit, l.Item)
}

// takeBack makes the reversal due. What rounding carried on from the original is taken back too.
//
// Of what other facts took a part back before, the rest is left.
func (e *Engine) takeBack(tx *store.Tx, p *store.Posting, f store.Fact, op store.Posting, said *mapping.Applied, rest *cut) error {
	carriedBack, err := takeBackWords(tx, p, f, op, said)
	if err != nil {
		return err
	}
	posted := op.Amounts
	switch {
	case rest != nil:
		posted = &rest.part.Taken
	case posted == nil:
		posted = negated(amounts(f.Fact, f.Fact.FactQuantities()))
	}
	if err := e.takeAmounts(tx, p, f, *posted, op.Amounts == nil, carriedBack); err != nil {
		return err
	}
	return tx.AddPostingStep(store.PostingStep{FactID: op.FactID, Step: stepReversed, Document: op.Document, Reason: reversedBy(f.Fact)})
}

// takeAmounts makes a reversal due with what it takes back of what was posted, above zero. any: also when that is nothing.
func (e *Engine) takeAmounts(tx *store.Tx, p *store.Posting, f store.Fact, posted store.Amounts, any, carriedBack bool) error {
	due(p, tx)
	p.Amounts = negated(&posted)
	for _, l := range f.Fact.FactQuantities() {
		rest := amount(&posted, l.Kind).Add(l.Received) // l is below zero
		if rest.IsZero() || carriedBack {
			continue
		}
		carried, err := tx.Residue(p.ERP, l.LedgerKey)
		if err == nil {
			err = tx.SetResidue(p.ERP, l.LedgerKey, carried.Add(rest))
		}
		if err != nil {
			return err
		}
	}
	if !any && posted.IsZero() {
		belowScale(p, "less than the outside system can keep: it is taken off what goes to the next posting of the same thing")
	}
	return nil
}

// undo gives a call the fact that its own takes back, as it was posted.
func (e *Engine) undo(ctx context.Context, c *call) error {
	original, err := e.o.Store.FactByKey(ctx, c.f.Fact.Reverses.String())
	if err != nil {
		return err
	}
	correction, err := e.o.Store.Correction(ctx, original.ID)
	if err != nil {
		return err
	}
	o := &connector.Original{Fact: correction.Apply(original.Fact)}
	if p := original.Posting; p != nil {
		said, err := e.o.Store.Applied(ctx, p.FactID)
		if err != nil {
			return err
		}
		o.Fact, o.Document = said.Apply(adjusted(o.Fact, p.Amounts)), connector.Document{Number: p.Document, ID: p.DocumentID}
	}
	c.original, c.posting.Original = original.Posting, o
	c.posting.Fact = adjusted(c.correction.Apply(c.f.Fact), negated(c.p.Amounts))
	c.posting.Fact.Reverses = o.Fact.Key // the one that it was posted under
	part, err := e.o.Store.Part(ctx, c.p.FactID)
	switch {
	case err != nil:
		return err
	case part != nil && c.posting.Fact.Consumption != nil:
		c.posting.Fact, c.posting.Original = opposite(c.posting.Fact), nil
		return nil
	case part != nil:
		o.Part = true
	}
	return e.share(ctx, c, original)
}

// tooEarly lets a reversal wait until the original has been read back. It holds its place in the order for that, and gives it
// up when the original turns out to be different.
func (e *Engine) tooEarly(ctx context.Context, c *call) (bool, error) {
	switch {
	case c.original == nil || c.original.State.Settled():
		return false, nil
	case c.original.State == store.PostingPosted:
		c.p.NextAt = e.o.Now().Add(time.Second)
		if at := c.original.NextAt; at.After(e.o.Now()) {
			c.p.NextAt = at
		}
		return true, e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.PutPosting(c.p) })
	}
	return true, e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		return e.readmit("")(tx, &c.p, c.f)
	})
}

// negated turns the amounts of a reversal, which are below zero in the ledger, into those that are to be taken back.
func negated(a *store.Amounts) *store.Amounts {
	if a == nil {
		return nil
	}
	return &store.Amounts{Yield: a.Yield.Neg(), Scrap: a.Scrap.Neg(), Rework: a.Rework.Neg(), Quantity: a.Quantity.Neg()}
}
