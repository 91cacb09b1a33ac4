package posting

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// Codes of postings that are collected. They are stable.
const (
	CodeCollecting   = "collecting"    // due: waits to be made as one document with others
	CodeCancelledOut = "cancelled_out" // not posted: it was taken back before anything was posted
)

const (
	collectLongest = 24 * time.Hour
	collectMost    = 500 // members: each change is stored for all of them at once
)

// gather lets a posting that has become due join the open aggregate of its line, where a policy collects.
func (e *Engine) gather(tx *store.Tx, p *store.Posting, f store.Fact) error {
	rule := collectOf(e.o.Policies, p.ERP, p.Plant)
	if rule == nil || p.State != store.PostingDue || !collectable(f.Fact) {
		return nil
	}
	if over, err := tx.Finished(p.OrderNo); err != nil || over {
		return err // the order is at its end: what still comes goes alone
	}
	if c, err := tx.Correction(p.FactID); err != nil || c != nil {
		return err // it has values, and perhaps a key, of its own
	}
	line := lineOf(f.Fact)
	g, err := tx.OpenAggregate(p.ERP, p.OrderNo, line)
	if err != nil {
		return err
	}
	if g == nil {
		every := rule.Every
		if every <= 0 {
			every = collectLongest
		}
		g = &store.Aggregate{ERP: p.ERP, OrderNo: p.OrderNo, Line: line, OpenedAt: tx.Now(), SealAt: tx.Now().Add(every)}
	}
	if f.Fact.Confirmation != nil && f.Fact.Confirmation.Final || rule.Quantity.IsPositive() && !g.Quantity.Add(p.Amounts.Sum()).LessThan(rule.Quantity) {
		g.SealAt = tx.Now()
	}
	return e.enter(tx, g, p)
}

// enter makes a posting a member of an open aggregate.
func (e *Engine) enter(tx *store.Tx, g *store.Aggregate, p *store.Posting) error {
	g.Members++
	g.Quantity = g.Quantity.Add(p.Amounts.Sum())
	if g.Members >= collectMost {
		g.SealAt = tx.Now()
	}
	if err := tx.PutAggregate(g); err != nil {
		return err
	}
	p.Code, p.NextAt = CodeCollecting, g.SealAt
	p.Reason = fmt.Sprintf("is collected with others of order %q into one document", p.OrderNo)
	p.NextStep = "nothing to do: it is posted by itself, at the latest at the order's end"
	return tx.JoinAggregate(p.FactID, g.ID)
}

// collectable reports whether a fact may lose its own document. One piece with a number of its own may not, nor may what takes
// another fact back, nor one whose date is not to be believed.
func collectable(f object.Fact) bool {
	return f.Reverses.IsZero() && !f.ClockSuspect && (f.Consumption != nil || f.Confirmation != nil && f.Confirmation.Serial == "")
}

// lineOf is what facts must have in common to be posted as one: everything that a document says but quantities and times.
func lineOf(f object.Fact) string {
	parts := []string{string(f.Kind), f.Plant, postingDate(f).Format(time.DateOnly), f.Shift, f.ShiftDate, f.Equipment, f.TimeZone}
	if c := f.Confirmation; c != nil {
		parts = append(parts, c.Operation, c.Item, c.Unit, c.Lot, c.Shift, c.Person, c.ScrapReason, c.ScrapReasonText)
	}
	if c := f.Consumption; c != nil {
		parts = append(parts, c.Operation, c.Item, c.Quantity.Unit, c.Lot, string(c.Movement), c.Reservation)
	}
	return factkey.Position(parts...)
}

// seal ends an aggregate: its members are due as one posting with a key of its own.
func (e *Engine) seal(tx *store.Tx, g store.Aggregate) error {
	members, err := tx.Members(g.ID)
	if err != nil {
		return err
	}
	if sum := sumOf(members); len(members) > 1 && sum.IsZero() {
		return e.cancelOut(tx, g, members)
	}
	if len(members) < 2 {
		err = tx.DropAggregate(g.ID)
	} else {
		parts := []string{"aggregate", g.ERP}
		for _, m := range members {
			parts = append(parts, m.Fact.Key.String())
		}
		g.Key = factkey.Of(factkey.Position(parts...))
		err = tx.PutAggregate(&g)
	}
	for _, m := range members {
		if err != nil {
			return err
		}
		due(m.Posting, tx)
		if err = tx.PutPosting(*m.Posting); err == nil && len(members) > 1 {
			err = tx.AddPostingStep(store.PostingStep{FactID: m.ID, Step: "collected",
				Reason: fmt.Sprintf("is posted as one document with %d others, under key %s", len(members)-1, g.Key)})
		}
	}
	if err == nil {
		err = e.crash("sealing")
	}
	return err
}

// cancelOut settles members that take each other back: nothing of them was ever posted.
func (e *Engine) cancelOut(tx *store.Tx, g store.Aggregate, members []store.Fact) error {
	err := tx.DropAggregate(g.ID)
	for _, m := range members {
		if err != nil {
			return err
		}
		amounts := m.Posting.Amounts
		notPosted(m.Posting, CodeCancelledOut, "it and what takes it back came before either was posted")
		m.Posting.Amounts = amounts
		err = e.changedOne(tx, *m.Posting, m, store.PostingStep{Step: "not_posted", Code: m.Posting.Code, Reason: m.Posting.Reason}, pb.Receipt_OUTCOME_NOT_POSTED)
	}
	if err == nil {
		err = e.crash("sealing")
	}
	return err
}

// joinOriginal lets a fact that takes back another join the aggregate in which that still waits: then nothing has to be taken back
// in the books. It reports whether it did.
func (e *Engine) joinOriginal(tx *store.Tx, p *store.Posting, f store.Fact, op store.Posting, part *cut) (bool, error) {
	if op.State != store.PostingDue || op.Code != CodeCollecting {
		return false, nil
	}
	g, err := tx.Aggregate(op.FactID)
	if err != nil || g == nil || !g.Key.IsZero() {
		return false, err
	}
	if part != nil && !part.all {
		err = e.takePart(tx, p, f, op, part)
	} else {
		err = e.takeBack(tx, p, f, op, nil, part) // what is collected has no other words
	}
	if err != nil {
		return false, err
	}
	if p.State != store.PostingDue {
		return true, nil
	}
	return true, e.enter(tx, g, p)
}

// apart takes an aggregate apart of which certainly nothing is in the books, because one of its members is to be posted otherwise:
// each goes alone, under its own key, from where it stands. Only then may a member be changed alone.
func (e *Engine) apart(tx *store.Tx, p *store.Posting) error {
	if !e.collects.Load() {
		return nil
	}
	g, err := tx.Aggregate(p.FactID)
	if err != nil || g == nil {
		return err
	}
	if strings.HasPrefix(g.Line, remainderLine) {
		return fmt.Errorf("%w: it is what is left of a document that was taken back: correct that in the outside system by hand, then accept it", ErrNotNow)
	}
	members, err := tx.Members(g.ID)
	if err == nil {
		err = tx.DissolveAggregate(g.ID)
	}
	for _, m := range members {
		if err != nil {
			return err
		}
		if m.Posting.Code == CodeCollecting {
			due(m.Posting, tx)
			err = tx.PutPosting(*m.Posting)
		}
		if m.ID == p.FactID && p.Code == CodeCollecting {
			due(p, tx)
		}
		if err == nil {
			err = tx.AddPostingStep(store.PostingStep{FactID: m.ID, Step: "apart", Reason: "is posted by itself: one of those that it was collected with is posted otherwise"})
		}
	}
	return err
}

// sameAggregate refuses to send what was prepared before its aggregate was taken apart.
func (e *Engine) sameAggregate(tx *store.Tx, c *call) error {
	g, err := e.sealed(tx, c.p.FactID)
	now := factkey.Key{}
	if g != nil {
		now = g.Key
	}
	if err == nil && now != c.aggregate {
		err = errCorrected
	}
	return err
}

// sealOrder seals all that is collected of an order, because it ends. It returns the lanes that have something to do.
func (e *Engine) sealOrder(tx *store.Tx, orderNo string) (lanes []store.Lane, err error) {
	if !e.collects.Load() || orderNo == "" {
		return nil, nil
	}
	open, err := tx.OpenAggregatesOf(orderNo)
	for _, g := range open {
		if err != nil {
			return nil, err
		}
		err = e.seal(tx, g)
		lanes = append(lanes, store.Lane{ERP: g.ERP, OrderNo: g.OrderNo})
	}
	return lanes, err
}

// sealDue seals what has been collected for long enough in a lane, and returns when the next is; zero when nothing is collected.
func (e *Engine) sealDue(ctx context.Context, l store.Lane) (next time.Time, err error) {
	if !e.collects.Load() {
		return time.Time{}, nil
	}
	open, err := e.o.Store.OpenAggregates(ctx, l)
	if err != nil {
		return time.Time{}, err
	}
	now := e.o.Now()
	for _, g := range open {
		// What was opened after now was timed by a clock that has been set back since.
		if g.SealAt.After(now) && !g.OpenedAt.After(now) && e.stillCollected(ctx, g) {
			next = sooner(next, g.SealAt)
			continue
		}
		err := e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
			fresh, err := tx.OpenAggregate(g.ERP, g.OrderNo, g.Line)
			if err != nil || fresh == nil || fresh.ID != g.ID {
				return err // the planner has sealed it
			}
			return e.seal(tx, *fresh)
		})
		if err == nil {
			err = e.crash("sealed")
		}
		if err != nil {
			return time.Time{}, fmt.Errorf("seal what was collected of order %q: %w", l.OrderNo, err)
		}
	}
	return next, nil
}

// stillCollected reports whether a policy still collects for the aggregate's system: its plant is not known here, so that of any
// policy counts.
func (e *Engine) stillCollected(_ context.Context, g store.Aggregate) bool {
	return slices.ContainsFunc(e.o.Policies, func(p Policy) bool { return p.Collect != nil && (p.ERP == "" || p.ERP == g.ERP) })
}

// sooner is the earlier of two times, of which zero means none.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

// sealed is the aggregate that a posting is made with, nil when it goes alone.
func (e *Engine) sealed(tx *store.Tx, factID int64) (*store.Aggregate, error) {
	if !e.collects.Load() {
		return nil, nil
	}
	g, err := tx.Aggregate(factID)
	if err != nil || g == nil || g.Key.IsZero() {
		return nil, err
	}
	return g, nil
}

// together returns a posting as it is to be stored, and those of all facts that are made as one document with it, in the order of
// the facts. Each keeps its amounts; the first keeps the intent.
func (e *Engine) together(tx *store.Tx, p store.Posting, f store.Fact) ([]store.Fact, error) {
	f.Posting = &p
	g, err := e.sealed(tx, p.FactID)
	if err != nil || g == nil {
		return []store.Fact{f}, err
	}
	members, err := tx.Members(g.ID)
	firstOwn(members)
	for i, m := range members {
		own := m.Posting
		shared := p
		shared.FactID, shared.Amounts, shared.Closing, shared.Intent = own.FactID, own.Amounts, own.Closing, nil
		switch {
		case i == 0 && own.FactID == p.FactID:
			shared.Intent = p.Intent
		case i == 0 && p.State != store.PostingDue && !p.State.Settled():
			shared.Intent = own.Intent
		}
		*members[i].Posting = shared
	}
	return members, err
}

// put stores a call's posting without a step in its life.
func (e *Engine) put(ctx context.Context, c *call) error {
	return e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return e.putAll(tx, c) })
}

// putAll is put inside a transaction.
func (e *Engine) putAll(tx *store.Tx, c *call) error {
	all, err := e.together(tx, c.p, c.f)
	for _, m := range all {
		if err == nil {
			err = tx.PutPosting(*m.Posting)
		}
	}
	return err
}

// past reports that a posting has changed since it was read, because it was changed together with another.
func (e *Engine) past(tx *store.Tx, p store.Posting) (bool, error) {
	g, err := e.sealed(tx, p.FactID)
	if err != nil || g == nil {
		return false, err
	}
	now, err := tx.Posting(p.FactID)
	return now.State != p.State || now.Code != p.Code, err
}

// setDate stores what was decided about the date of a posting, and of those that are made with it. A date that a policy chose
// stands in their lives; own: the fact's own counts.
func (e *Engine) setDate(tx *store.Tx, p store.Posting, f store.Fact, d store.PostingDate, own bool) error {
	all, err := e.together(tx, p, f)
	for _, m := range all {
		switch {
		case err != nil:
			return err
		case own:
			err = tx.ClearPostingDate(m.ID)
			continue
		}
		d.FactID = m.ID
		if err = tx.SetPostingDate(d); err == nil && d.ApprovedBy == "" {
			err = tx.AddPostingStep(store.PostingStep{FactID: m.ID, Step: "date moved", Reason: fmt.Sprintf("posted on %s instead of %s: %s", d.Date, d.Event, d.Reason)})
		}
	}
	return err
}

// asOne puts the whole aggregate into a call in the place of any of its members.
func (e *Engine) asOne(ctx context.Context, c *call) error {
	if !e.collects.Load() {
		return nil
	}
	g, err := e.o.Store.Aggregate(ctx, c.p.FactID)
	if err != nil || g == nil || g.Key.IsZero() {
		return err
	}
	members, err := e.o.Store.Members(ctx, g.ID)
	if err != nil {
		return err
	}
	firstOwn(members)
	c.aggregate = g.Key
	c.f, c.p = members[0], *members[0].Posting
	c.f.Posting = nil
	c.posting.Fact, c.posting.Attempt = whole(*g, members), max(c.p.Attempt, 1)
	return nil
}

// firstOwn puts those that take back others behind them: the first stands for all.
func firstOwn(members []store.Fact) {
	slices.SortStableFunc(members, func(a, b store.Fact) int {
		switch own, other := a.Fact.Reverses.IsZero(), b.Fact.Reverses.IsZero(); {
		case own == other:
			return 0
		case own:
			return -1
		}
		return 1
	})
}

// sumOf is the sum of what is to be posted of all members; all zero where they cancel each other out.
func sumOf(members []store.Fact) (sum store.Amounts) {
	for _, m := range members {
		if a := m.Posting.Amounts; a != nil {
			sum.Yield, sum.Scrap, sum.Rework, sum.Quantity = sum.Yield.Add(a.Yield), sum.Scrap.Add(a.Scrap), sum.Rework.Add(a.Rework), sum.Quantity.Add(a.Quantity)
		}
	}
	return sum
}

// whole is the fact that an aggregate is posted as: the sum of its members under its own key, over the time of all of them.
func whole(g store.Aggregate, members []store.Fact) object.Fact {
	sum := sumOf(members)
	f := members[0].Fact
	f.Key, f.Position, f.Source, f.Rule = g.Key, g.Line, "", ""
	if f.Confirmation != nil {
		c := *f.Confirmation
		c.CounterRange = nil
		f.Confirmation = &c
	}
	if f.Consumption != nil {
		c := *f.Consumption
		c.CounterRange = nil
		f.Consumption = &c
	}
	for _, m := range members {
		if !m.Fact.Reverses.IsZero() {
			continue // its times are those of the correction
		}
		if m.Fact.OccurredAt.After(f.OccurredAt) {
			f.OccurredAt = m.Fact.OccurredAt
		}
		if m.Fact.RecordedAt.After(f.RecordedAt) {
			f.RecordedAt = m.Fact.RecordedAt
		}
		if c := m.Fact.Confirmation; c != nil && f.Confirmation != nil {
			f.Confirmation.Final = f.Confirmation.Final || c.Final
			f.Confirmation.StartedAt = sooner(f.Confirmation.StartedAt, c.StartedAt)
			if c.FinishedAt.After(f.Confirmation.FinishedAt) {
				f.Confirmation.FinishedAt = c.FinishedAt
			}
		}
	}
	return adjusted(f, &sum)
}

// share makes the taking back of a member the taking back of its share: material goes the other way in a movement of its own, of
// a confirmation a part is taken back.
func (e *Engine) share(ctx context.Context, c *call, original store.Fact) error {
	if !e.collects.Load() {
		return nil
	}
	g, err := e.o.Store.Aggregate(ctx, original.ID)
	if err != nil || g == nil || g.Key.IsZero() || original.Posting == nil || original.Posting.Document == "" {
		return err
	}
	if c.posting.Fact.Consumption != nil {
		c.posting.Fact, c.posting.Original = opposite(c.posting.Fact), nil
		return nil
	}
	members, err := e.o.Store.Members(ctx, g.ID)
	if err != nil {
		return err
	}
	firstOwn(members)
	taken := negated(c.p.Amounts)
	c.posting.Original.Fact, c.posting.Original.Part = whole(*g, members), taken == nil || !same(sumOf(members), *taken)
	c.posting.Fact.Reverses = g.Key
	return nil
}

// opposite is a consumption that goes the other way, as a fact of its own.
func opposite(f object.Fact) object.Fact {
	m := *f.Consumption
	if f.Reverses, m.CounterRange = (factkey.Key{}), nil; m.Movement == object.Return {
		m.Movement = object.Issue
	} else {
		m.Movement = object.Return
	}
	f.Consumption = &m
	return f
}
