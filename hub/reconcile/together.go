package reconcile

import (
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

// about are the facts that a comparison is about: the fact itself, or all that were posted as one document.
func (f *Fact) about() []string {
	if len(f.members) > 0 {
		return f.members
	}
	return []string{f.Key.String()}
}

// together compares the documents that were made of several facts: the sum of these under the key of the document.
func (c *orderCheck) together() {
	byKey := map[factkey.Key]*Fact{}
	var order []factkey.Key
	for i := range c.o.Facts {
		f := &c.o.Facts[i]
		if f.Aggregate.IsZero() {
			continue
		}
		if whole := byKey[f.Aggregate]; whole != nil {
			whole.join(f)
			continue
		}
		whole := *f
		whole.Key, whole.Reverses, whole.members, whole.Amounts = f.Aggregate, factkey.Key{}, []string{f.Key.String()}, nil
		whole.Keys = f.others()
		if c := f.Confirmation; c != nil {
			whole.Confirmation = &object.Confirmation{OrderNo: c.OrderNo, Operation: c.Operation, Item: c.Item, Unit: c.Unit}
		}
		if c := f.Consumption; c != nil {
			whole.Consumption = &object.Consumption{OrderNo: c.OrderNo, Operation: c.Operation, Item: c.Item, Movement: c.Movement, Quantity: object.Quantity{Unit: c.Quantity.Unit}}
		}
		whole.sum(f)
		byKey[f.Aggregate], order = &whole, append(order, f.Aggregate)
	}
	for _, k := range order {
		if c.settled(byKey[k]) {
			c.compare(byKey[k])
		}
	}
}

func (f *Fact) join(o *Fact) {
	f.members = append(f.members, o.Key.String())
	f.Keys = append(f.Keys, o.others()...)
	f.sum(o)
}

// others are the keys of a fact but that of the document that it was posted in with others.
func (f *Fact) others() []string {
	return slices.DeleteFunc(f.keys(), func(k string) bool { return k == f.Aggregate.String() })
}

// sum adds the quantities of another fact, of which what takes back is below zero.
func (f *Fact) sum(o *Fact) {
	sign := decimal.NewFromInt(1)
	if !o.Reverses.IsZero() {
		sign = sign.Neg()
	}
	if a, b := f.Confirmation, o.Confirmation; a != nil && b != nil {
		a.Yield, a.Scrap, a.Rework = a.Yield.Add(b.Yield.Mul(sign)), a.Scrap.Add(b.Scrap.Mul(sign)), a.Rework.Add(b.Rework.Mul(sign))
	}
	if a, b := f.Consumption, o.Consumption; a != nil && b != nil {
		a.Quantity.Value = a.Quantity.Value.Add(b.Quantity.Value.Mul(sign))
	}
	f.add(o)
}

// add adds what was to be posted of another fact.
func (f *Fact) add(o *Fact) {
	sums := map[object.QuantityKind]decimal.Decimal{}
	for _, all := range []map[object.QuantityKind]decimal.Decimal{f.Amounts, o.Amounts} {
		for k, v := range all {
			sums[k] = sums[k].Add(v)
		}
	}
	if len(sums) > 0 {
		f.Amounts = sums
	}
}

// moved is about a fact that is in the books with another date than its own, because that was in a closed period and a policy moved it:
// it stays to be seen until somebody accepts it.
func (c *orderCheck) moved(f *Fact) {
	if f.PostedOn == f.MovedFrom || f.ClockSuspect || f.State != "posted" && f.State != "verified" {
		return
	}
	c.add(Finding{Type: PeriodClosed, Subject: "fact " + f.Key.String(), Facts: []string{f.Key.String()}, Severity: Low, Owner: Controlling, Left: Side{"fact", f.MovedFrom},
		Right: Side{"document " + f.Document, f.PostedOn}, Evidence: []Evidence{factEvidence(f)}, Since: f.Since, Why: "its own period was closed: it is in the books on " + f.PostedOn,
		Proposed: Action{Kind: Ask, Fact: f.Key.String(), Document: f.Document, Text: fmt.Sprintf("accept that what happened on %s is in the books of %s", f.MovedFrom, monthOf(f.PostedOn))}})
}

func monthOf(date string) string {
	if t, err := time.Parse(time.DateOnly, date); err == nil {
		return t.Format("2006-01")
	}
	return date
}

// shares divides what the documents of several facts hold among these: each has what was intended, and the last of a line what is
// then left, so that a difference stands at one of them and the sum is that of the documents.
type shares struct {
	left map[shareOf]decimal.Decimal
	open map[shareOf]int
}

type shareOf struct {
	aggregate factkey.Key
	line      object.LedgerKey
}

func (s *statement) divide() {
	s.shares = shares{map[shareOf]decimal.Decimal{}, map[shareOf]int{}}
	for i := range s.o.Facts {
		f := &s.o.Facts[i]
		if f.Aggregate.IsZero() {
			continue
		}
		for _, l := range f.FactQuantities() {
			k := shareOf{f.Aggregate, l.LedgerKey}
			if s.open[k]++; s.open[k] > 1 {
				continue
			}
			for _, e := range s.effects[f.Aggregate.String()] {
				s.left[k] = s.left[k].Add(held(e, l))
			}
		}
	}
}

// share is what the documents hold of one fact's line.
func (s *statement) share(f *Fact, l object.FactLine, intended decimal.Decimal) decimal.Decimal {
	k := shareOf{f.Aggregate, l.LedgerKey}
	s.open[k]--
	have := s.left[k]
	if s.open[k] > 0 && have.GreaterThanOrEqual(intended) {
		have = intended
	}
	s.left[k] = s.left[k].Sub(have)
	return have
}

// wrongWay reports a document that cannot be a fact's: the opposite of another where the fact takes nothing back, or the reverse.
func (f *Fact) wrongWay(e object.Effect) bool {
	takesBack := !f.Reverses.IsZero() && !f.Opposite
	return (e.Reverses != "") != takesBack && e.Kind != object.KindOrderState
}

// MarkOpposites finds the facts that took back a share or a part of a document by a movement of their own.
func MarkOpposites(all []*Fact) {
	for _, f := range all {
		f.Opposite = f.Consumption != nil && !f.Reverses.IsZero() && slices.ContainsFunc(all, func(o *Fact) bool {
			return o.Key == f.Reverses && (!o.Aggregate.IsZero() || o.Consumption != nil && !o.Consumption.Quantity.Value.Equal(f.Consumption.Quantity.Value))
		})
	}
}
