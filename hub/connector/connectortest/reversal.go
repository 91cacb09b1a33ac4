package connectortest

import (
	"slices"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// reversals runs the cases of facts that take others back.
func (s *suite) reversals(t *testing.T, posts bool) {
	reverses := posts && s.reverses(object.KindConfirmation) && s.reverses(object.KindConsumption)
	s.optional(t, "ReversalTakesBackOnce", reverses, s.reverse)
	s.optional(t, "ReversalOfNothingIsRefused", reverses, s.reverseNothing)
	s.optional(t, "SecondReversalIsRefused", reverses, s.reverseTwice)
	for _, f := range []Fault{LoseReply, LoseRequest, DelayRequest} {
		s.optional(t, "ReversalThough/"+f.name(), reverses && s.Faults != nil, func(t *testing.T) { s.reverseThough(t, f) })
	}
}

func (s *suite) reverses(k object.Kind) bool { return slices.Contains(s.can.Reverses, k) }

// reversal makes the posting that takes p back.
func reversal(p connector.Posting, doc connector.Document) connector.Posting {
	r := p
	r.Fact.Key, r.Fact.Reverses = factkey.Random(), p.Fact.Key
	r.Original = &connector.Original{Fact: p.Fact, Document: doc}
	return r
}

// net is what an order holds when what was returned is taken off what was issued.
func (e Effects) net() Effects {
	e.Issued, e.Returned = e.Issued.Sub(e.Returned), dec("0")
	return e
}

func (s *suite) holdsNet(t testing.TB, order, yield, issued string) {
	t.Helper()
	got := s.Effects(t, order).net()
	if !got.Yield.Equal(dec(yield)) || !got.Issued.Equal(dec(issued)) {
		t.Errorf("order %s holds yield %s and %s issued net, want %s and %s", order, got.Yield, got.Issued, yield, issued)
	}
}

func (s *suite) reverse(t *testing.T) {
	order := s.CreateOrder(t, "40")
	made, used, back := s.confirmation(order, "12", "0"), s.consumption(order, "2.5", object.Issue), s.consumption(order, "0.5", object.Return)
	var docs []connector.Document
	for _, p := range []connector.Posting{made, used, back, s.confirmation(order, "3", "0")} {
		docs = append(docs, s.settle(t, p).Document)
	}
	s.holdsNet(t, order, "15", "2")
	for i, p := range []connector.Posting{made, used, back} {
		r := reversal(p, docs[i])
		first := s.settle(t, r)
		if first.Document == docs[i] {
			t.Errorf("the reversal of %s has the document of what it takes back", docs[i].Number)
		}
		if again := s.settle(t, r); again.Document != first.Document { // a hub that forgot
			t.Errorf("the second time the reversal's document is %+v, the first time %+v", again.Document, first.Document)
		}
	}
	s.holdsNet(t, order, "3", "0")
}

func (s *suite) reverseNothing(t *testing.T) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(order, "3", "0"))
	held := s.Effects(t, order)
	never := s.confirmation(order, "3", "0")
	s.refuse(t, reversal(never, connector.Document{}), connector.Correctable, never.Fact.Key.String())
	s.holds(t, order, held)
}

func (s *suite) reverseTwice(t *testing.T) {
	order := s.CreateOrder(t, "40")
	p := s.confirmation(order, "12", "0")
	doc := s.settle(t, p).Document
	s.settle(t, reversal(p, doc))
	held := s.Effects(t, order)
	s.refuse(t, reversal(p, doc), connector.Correctable, p.Fact.Key.String())
	s.holds(t, order, held)
	s.holdsNet(t, order, "0", "0")
}

func (s *suite) reverseThough(t *testing.T, f Fault) {
	s.eachExchange(t, f, func(nth int) {
		s.Faults.Fired() // what is armed is for the reversal
		order := s.CreateOrder(t, "40")
		p := s.confirmation(order, "12", "0")
		doc := s.settle(t, p).Document
		s.Faults.Arm(f, nth)
		x := s.settleThough(t, reversal(p, doc), s.Faults.Deliver)
		s.Faults.Deliver()
		s.holdsNet(t, order, "0", "0")
		if t.Failed() {
			t.Fatalf("%s at exchange %d:\n  %s", f, nth, strings.Join(x.Why, "\n  "))
		}
	})
}
