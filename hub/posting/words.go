package posting

import (
	"context"
	"math/big"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// Where mappings are in force, a posting is said in the outside system's words: by the version of the fact's own time, decided
// when the posting becomes due and kept beside it. It is decided again while nothing was sent, and by a replay of what was
// rejected; then never more, so that retries, look-ups, reading back and the reversal all speak of the same effect. The fact and
// the amounts in its own unit, which the tally counts, stay what they are.

// CodeMappingMissing is the code of a posting of which no mapping in force knows a word. It waits until one does.
const CodeMappingMissing = connector.CodeMappingMissing

// decimals is the most decimals that a quantity has.
const decimals = 9

// say makes a posting due in the outside system's words, with quantities that the system can keep, or parks it.
func (e *Engine) say(tx *store.Tx, p *store.Posting, f store.Fact, w object.WorkOrder, can connector.Capabilities) error {
	scale := can.QuantityScale
	rules, err := tx.MappingRules()
	if err != nil {
		return err
	}
	if rules.Empty() || f.Fact.OrderState != nil {
		if err := e.round(tx, p, f, scale); err != nil {
			return err
		}
		return e.gather(tx, p, f) // what has other words goes alone
	}
	a, missing := rules.Of(f.Fact, p.ERP, tx.Now())
	if !can.MovementTypes {
		a.WithoutMovements()
	}
	if missing == nil && w.Site == "" {
		var v mapping.Value
		if a.Site, v, missing = rules.SiteOf(p.ERP, f.Fact.Plant, f.Fact.OccurredAt, tx.Now()); a.Site != "" {
			a.Values = append(a.Values, v)
		}
	}
	if missing != nil {
		park(p, ClassWaiting, CodeMappingMissing, missing.Reason(), missing.NextStep())
		return nil
	}
	if a.Converts() && (f.Fact.Confirmation != nil || f.Fact.Consumption != nil) {
		err = e.convert(tx, p, f, a, scale)
	} else {
		err = e.round(tx, p, f, scale)
	}
	if err != nil {
		return err
	}
	return tx.SetApplied(p.FactID, a)
}

// inItsWords is a fact with its item in the system's words, as orders and policies name it. What no mapping knows stays as it is:
// say parks it.
func inItsWords(tx *store.Tx, erp string, f object.Fact) object.Fact {
	rules, err := tx.MappingRules()
	if err != nil || rules.Empty() || f.Consumption == nil {
		return f // an error comes again where it is told
	}
	a, missing := rules.Of(f, erp, tx.Now())
	if missing != nil {
		return f
	}
	return (&mapping.Applied{Item: a.Item}).Apply(f)
}

// convert makes the posting due with quantities in the system's unit. They are exact until they are rounded, once, with what
// earlier ones left over. The amounts in the fact's own unit tell the tally how much of what was counted that is.
func (e *Engine) convert(tx *store.Tx, p *store.Posting, f store.Fact, a *mapping.Applied, scale int32) error {
	due(p, tx)
	scale = a.DecimalsOf(scale)
	ratio, any := a.Ratio(), false
	for _, l := range f.Fact.FactQuantities() {
		v := amount(p.Amounts, l.Kind)
		line := mappedLine(p.ERP, l.LedgerKey, a)
		carried, own, err := tx.MappedResidue(line)
		if err != nil {
			return err
		}
		exact := new(big.Rat).Mul(v.Rat(), ratio)
		exact.Add(exact, carried)
		posted := decimal.Max(mapping.RoundTo(exact, scale), decimal.Zero) // a reversal may have left more to take off than this has
		rest := exact.Sub(exact, posted.Rat())
		left := mapping.RoundTo(new(big.Rat).Quo(rest, ratio), decimals)
		if posted.IsZero() {
			left = v.Add(own)
		}
		a.Amounts = append(a.Amounts, mapping.Amount{Kind: l.Kind, Counted: *v, Posted: posted})
		*v = v.Add(own).Sub(left)
		if rest.Cmp(carried) != 0 || !left.Equal(own) {
			if err := tx.SetMappedResidue(line, rest, left); err != nil {
				return err
			}
		}
		any = any || !posted.IsZero()
	}
	if !any {
		belowScale(p, carriedOn)
	}
	return nil
}

func mappedLine(erp string, k object.LedgerKey, a *mapping.Applied) store.MappedLine {
	return store.MappedLine{ERP: erp, Line: k, ToItem: a.Item, ToUnit: a.Unit}
}

// giveBack takes out of what is carried on what rounding a posting left there: of its counted amounts, only what is posted of
// them in their own unit had gone.
func giveBack(tx *store.Tx, erp string, l object.LedgerKey, a *mapping.Applied, counted, gone decimal.Decimal) error {
	off := counted.Sub(gone)
	if !a.Converts() {
		if off.IsZero() {
			return nil
		}
		carried, err := tx.Residue(erp, l)
		if err != nil {
			return err
		}
		return tx.SetResidue(erp, l, carried.Sub(off))
	}
	line := mappedLine(erp, l, a)
	rest, own, err := tx.MappedResidue(line)
	if err != nil {
		return err
	}
	posted, _ := a.Posted(l.Kind)
	exact := new(big.Rat).Mul(counted.Rat(), a.Ratio())
	rest = rest.Sub(rest, exact.Sub(exact, posted.Rat()))
	return tx.SetMappedResidue(line, rest, own.Sub(off))
}

// sayAgain decides about a posting anew by which nothing was sent, or which was rejected, when the mappings are others than
// those that it was decided by. It reports whether it did.
func (e *Engine) sayAgain(tx *store.Tx, p *store.Posting, f store.Fact) (bool, error) {
	if !sayable(f.Fact) || p.Amounts == nil {
		return false, nil
	}
	rules, err := tx.MappingRules()
	if err != nil {
		return false, err
	}
	a, err := tx.Applied(p.FactID)
	if err != nil || rules.Generation == generation(a) {
		return false, err
	}
	if left, err := e.remainder(tx, p.FactID); err != nil || left {
		return false, err // it goes as what was taken back did
	}
	if f, err = e.undecide(tx, p, f); err != nil {
		return false, err
	}
	return true, e.admit(tx, p, f)
}

// undecide takes back what was decided about a posting by which nothing was sent, and returns its fact as it was posted until now.
func (e *Engine) undecide(tx *store.Tx, p *store.Posting, f store.Fact) (store.Fact, error) {
	f, err := asPosted(tx, f)
	if err != nil {
		return f, err
	}
	if err := e.apart(tx, p); err != nil {
		return f, err
	}
	return f, unsay(tx, p, f.Fact)
}

// unsay takes back what was decided about a posting's quantities, for a fact as it was posted until now: they are what counts of
// it again, and what rounding carried on is as if it had not been.
func unsay(tx *store.Tx, p *store.Posting, f object.Fact) error {
	if !sayable(f) || p.Amounts == nil {
		return nil
	}
	a, err := tx.Applied(p.FactID)
	if err != nil {
		return err
	}
	counted, err := tx.Counted(p.FactID)
	if err != nil {
		return err
	}
	for _, l := range f.FactQuantities() {
		if err := giveBack(tx, p.ERP, l.LedgerKey, a, *amount(counted, l.Kind), *amount(p.Amounts, l.Kind)); err != nil {
			return err
		}
	}
	if f.Quality == nil {
		p.Amounts = counted
	}
	return tx.ForgetApplied(p.FactID) // so that nothing of it is given back twice
}

// unworded parks a posting of which the connector needs a word that no mapping knows: the type of a goods movement. It waits as it would
// have before, with its quantities as they count. Where the mappings have changed since it was decided by them, it is decided again:
// who takes up what waits for them has been here already, and found nothing that waits.
func (e *Engine) unworded(ctx context.Context, c *call, out connector.Outcome) error {
	c.p.Since, c.p.Tries, c.p.Intent = e.o.Now(), 0, nil
	c.p.Attempt-- // nothing was sent
	var p store.Posting
	err := e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		p = c.p
		posted, err := e.undecide(tx, &p, c.f)
		if err != nil {
			return err
		}
		park(&p, ClassWaiting, CodeMappingMissing, out.Reason, out.NextStep)
		rules, err := tx.MappingRules()
		if err != nil {
			return err
		}
		if !rules.Empty() && rules.Generation != generation(c.applied) {
			if err := e.admit(tx, &p, posted); err != nil {
				return err
			}
		}
		return e.changed(tx, p, c.f, admittedStep(p), "", pb.Receipt_OUTCOME_UNSPECIFIED)
	})
	if err == nil {
		e.replayed(p) // it may be another lane's now
	}
	return err
}

// sayable reports that a fact has words of its own. A reversal has those of its original.
func sayable(f object.Fact) bool {
	return f.Reverses.IsZero() && (f.Confirmation != nil || f.Consumption != nil || f.Quality != nil)
}

func generation(a *mapping.Applied) int64 {
	if a == nil {
		return 0
	}
	return a.Generation
}

// reworded decides about a posting again, right before it is sent for the first time, when the mappings have changed since. It
// reports whether the lane has to look again.
func (e *Engine) reworded(ctx context.Context, c *call) (bool, error) {
	if c.p.Attempt > 0 || !sayable(c.f.Fact) {
		return false, nil
	}
	rules, err := e.o.Store.MappingRules(ctx)
	if err != nil || rules.Generation == generation(c.applied) {
		return false, err
	}
	p, done := c.p, false
	err = e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		p = c.p
		var err error
		if done, err = e.sayAgain(tx, &p, c.f); err != nil || !done {
			return err
		}
		a, err := tx.Applied(p.FactID)
		if err != nil {
			return err
		}
		if p.State == store.PostingDue && a.Same(c.applied) {
			return tx.PutPosting(p) // another mapping changed
		}
		step, outcome := "mapped", pb.Receipt_OUTCOME_UNSPECIFIED
		if p.State != store.PostingDue {
			step = string(p.State)
		}
		if p.State == store.PostingNotPosted {
			outcome = pb.Receipt_OUTCOME_NOT_POSTED
		}
		return e.changed(tx, p, c.f, step, "", outcome)
	})
	if err == nil && done {
		e.replayed(p) // it may be another lane's now, or wait
		err = e.crash("reworded")
	}
	return done, err
}

// say gives a call what its posting is said with.
func (c *call) say(a *mapping.Applied) {
	if c.applied = a; a == nil {
		return
	}
	c.posting.Fact = c.applied.Apply(c.posting.Fact)
	c.posting.Movements = c.applied.Movements
	if c.applied.Site != "" && c.posting.Order.Site == "" {
		c.posting.Order.Site = c.applied.Site
	}
}

// takeBackWords gives a reversal the words of its original and takes back what rounding that carried on. It reports whether the
// original was said in another unit.
func takeBackWords(tx *store.Tx, p *store.Posting, f store.Fact, op store.Posting, a *mapping.Applied) (bool, error) {
	if a == nil {
		return false, nil
	}
	if err := tx.SetApplied(p.FactID, a); err != nil || !a.Converts() || op.Amounts == nil {
		return false, err
	}
	for _, l := range f.Fact.FactQuantities() {
		if err := giveBack(tx, p.ERP, l.LedgerKey, a, l.Received.Neg(), *amount(op.Amounts, l.Kind)); err != nil {
			return false, err
		}
	}
	return true, nil
}

// followMappings takes up what waits for a mapping whenever one comes into force. It ends with ctx.
func (e *Engine) followMappings(ctx context.Context) error {
	changed, unwatch := e.o.Store.Watch(store.TopicMappings)
	defer unwatch()
	for {
		since := e.o.Now()
		if err := e.admitMapped(ctx); err != nil {
			return ended(ctx, err)
		}
		if e.o.Store.AwaitMappings(ctx, changed, since, e.o.Now, longestPause); ctx.Err() != nil {
			return nil
		}
	}
}

// admitMapped looks again at what waits for a mapping.
func (e *Engine) admitMapped(ctx context.Context) error {
	filter := store.PostingFilter{State: store.PostingParked, Code: CodeMappingMissing}
	n, err := e.o.Store.CountPostings(ctx, filter)
	if err != nil || n == 0 {
		return err
	}
	readmit := e.readmit("")
	var taken []store.Posting
	err = e.each(ctx, filter, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		err := readmit(tx, p, f)
		taken = append(taken, *p)
		return err
	})
	e.replayed(taken...)
	return err
}
