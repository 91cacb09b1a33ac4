package connectortest

import (
	"slices"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// verifyMany reads postings of every sort back together, and one by one before and after.
func (s *suite) verifyMany(t *testing.T) {
	many := s.c.(connector.ManyVerifier)
	if answers, err := many.VerifyMany(t.Context(), nil); err != nil || len(answers) != 0 {
		t.Errorf("nothing read back together gives %+v, %v", answers, err)
	}
	order := s.CreateOrder(t, "40")
	good, other := s.toVerify(t, s.confirmation(order, "2", "1")), s.toVerify(t, s.confirmation(order, "3", "0"))
	all := []connector.ToVerify{good, other, s.differing(t, order), s.missing(t, order), good}
	if s.posts(object.KindConsumption) {
		all = append(all, s.toVerify(t, s.consumption(order, "2.5", object.Issue)), s.toVerify(t, s.consumption(order, "0.5", object.Return)))
	}
	if s.states(object.FloorStarted) {
		all = append(all, s.toVerify(t, s.state(order, object.FloorStarted)))
	}
	if s.reverses(object.KindConfirmation) {
		all = append(all, s.toVerify(t, reversal(other.Posting, other.Document)))
	}
	if late := s.late(t, order); len(late) > 0 {
		all = append(all, late...)
		s.sameTogether(t, many, all) // these are not there yet
	}
	if s.Faults != nil {
		s.Faults.Deliver()
	}
	answers := s.sameTogether(t, many, all)
	for i, want := range []bool{true, true, false, false, true} {
		if a := answers[i]; !a.Alone && a.Matches != want && !(i == 1 && len(a.Difference) > 0) { // 1 may have been taken back
			t.Errorf("question %d is answered by %+v, want a match: %t", i, a, want)
		}
	}
	for len(all) < 45 { // more than fit into one question of any system
		all = append(all, all[len(all)%len(answers)])
	}
	s.sameTogether(t, many, all)
	if s.Faults != nil {
		s.togetherThough(t, many, all[:len(answers)])
	}
}

// toVerify settles a posting and returns the question whether it is there.
func (s *suite) toVerify(t *testing.T, p connector.Posting) connector.ToVerify {
	t.Helper()
	x := s.settle(t, p)
	return connector.ToVerify{Posting: p, Intent: x.intent, Document: x.Document}
}

// differing is there with another quantity.
func (s *suite) differing(t *testing.T, order string) connector.ToVerify {
	q := s.toVerify(t, s.confirmation(order, "4", "1"))
	changed := *q.Posting.Fact.Confirmation
	changed.Yield = dec("5")
	q.Posting.Fact.Confirmation = &changed
	return q
}

// missing was prepared and never sent.
func (s *suite) missing(t *testing.T, order string) connector.ToVerify {
	t.Helper()
	q := s.missingOf(t, s.confirmation(order, "6", "0"))
	q.Document.Number = "NO-SUCH-DOCUMENT"
	return q
}

func (s *suite) missingOf(t *testing.T, p connector.Posting) connector.ToVerify {
	t.Helper()
	intent, early, err := s.c.Prepare(t.Context(), p)
	if err != nil || early != nil {
		t.Fatalf("prepare: %+v, %v", early, err)
	}
	return connector.ToVerify{Posting: p, Intent: intent}
}

// late are postings that were sent and have not arrived, or were taken and are not booked.
func (s *suite) late(t *testing.T, order string) (all []connector.ToVerify) {
	t.Helper()
	post := func(yield string) {
		q := s.missingOf(t, s.confirmation(order, yield, "0"))
		q.Document = s.c.Post(t.Context(), q.Posting, slices.Clone(q.Intent)).Document
		all = append(all, q)
	}
	if later := s.Troubles[BookedLater]; later != nil {
		end := later(t, order)
		post("7")
		end()
	}
	if s.Faults != nil {
		s.Faults.Arm(DelayRequest, 1)
		post("8")
		s.Faults.Fired()
	}
	return all
}

// oneByOne is what Verify says of each.
func (s *suite) oneByOne(t *testing.T, all []connector.ToVerify) []connector.Verification {
	t.Helper()
	answers := make([]connector.Verification, len(all))
	for i, q := range all {
		var err error
		if answers[i], err = s.c.Verify(t.Context(), q.Posting, slices.Clone(q.Intent), q.Document); err != nil {
			t.Fatalf("verify %s: %v", q.Posting.Fact.Key, err)
		}
		if answers[i].Alone {
			t.Errorf("verify %s is to be asked alone, and it was", q.Posting.Fact.Key)
		}
	}
	return answers
}

// sameTogether compares what is said of all together with what is said of each. Time goes on between the two, so that what may still
// appear may have done so or be missing for good.
func (s *suite) sameTogether(t *testing.T, many connector.ManyVerifier, all []connector.ToVerify) []connector.Verification {
	t.Helper()
	before := s.oneByOne(t, all)
	answers, err := many.VerifyMany(t.Context(), all)
	if err != nil || len(answers) != len(all) {
		t.Fatalf("%d postings read back together give %d answers, %v", len(all), len(answers), err)
	}
	s.equal(t, all, answers, before, s.oneByOne(t, all))
	return answers
}

func (s *suite) equal(t *testing.T, all []connector.ToVerify, answers, before, after []connector.Verification) {
	t.Helper()
	told := 0
	for i, a := range answers {
		switch {
		case a == connector.Verification{Alone: true}:
			continue
		case a != before[i] && a != after[i]:
			t.Errorf("%s (question %d of %d) is read back together as %+v, and alone as %+v before and %+v after", all[i].Posting.Fact.Key, i, len(all), a, before[i], after[i])
		}
		told++
	}
	if told < 3 {
		t.Errorf("of %d postings only %d were told of together", len(all), told)
	}
}

// togetherThough lets each fault happen to each exchange of a question about several postings. Nothing may be known then; or, where the
// connector has asked again by itself, all that Verify says.
func (s *suite) togetherThough(t *testing.T, many connector.ManyVerifier, all []connector.ToVerify) {
	want := s.oneByOne(t, all)
	for _, f := range []Fault{LoseReply, HalfReply, LoseRequest, ServerError, TooMany, WebPage, WebPageAfter, EmptyReply, SendTwice, EndSession} {
		exchanges := 0
		for nth := 1; ; nth++ {
			s.Faults.Arm(f, nth)
			answers, err := many.VerifyMany(t.Context(), all)
			fired := s.Faults.Fired()
			switch {
			case err == nil && len(answers) != len(all):
				t.Errorf("%s at exchange %d: %d answers to %d questions", f, nth, len(answers), len(all))
			case err == nil:
				s.equal(t, all, answers, want, s.oneByOne(t, all))
			case !fired:
				t.Errorf("%s at exchange %d did not happen, and still: %v", f, nth, err)
			}
			if !fired {
				exchanges = nth - 1
				break
			}
			pause(t.Context(), 10*time.Millisecond)
		}
		if exchanges == 0 || exchanges > len(all)/2 {
			t.Errorf("%s: %d postings read back together took %d exchanges", f, len(all), exchanges)
		}
	}
}
