package connectortest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Trouble is a way in which a system itself goes wrong, beside what can go wrong on the line (Fault).
type Trouble string

// The troubles.
const (
	// OrderLocked: somebody else works on the order.
	OrderLocked Trouble = "order is locked by a user"
	// SystemBusy: the system takes no work now, and may say when it will.
	SystemBusy Trouble = "system is busy"
	// Throttled: too many requests; the system says when it takes the next.
	Throttled Trouble = "too many requests, with Retry-After"
	// PeriodClosed: the posting date is in a closed period.
	PeriodClosed Trouble = "posting period is closed"
	// OrderNotReleased: the order is only planned.
	OrderNotReleased Trouble = "order is not released"
	// OrderComplete: the order is technically complete.
	OrderComplete Trouble = "order is technically complete"
	// StockMissing: there is less of the component than is consumed.
	StockMissing Trouble = "stock is missing"
	// NoRight: the account may not post.
	NoRight Trouble = "account may not post"
	// MovementFailed: the confirmation is saved and its goods movement is not. The switch's end lets it be processed again.
	MovementFailed Trouble = "confirmation saved, goods movement failed"
	// ErrorInSuccess: the status says success, the body says error, and nothing is booked.
	ErrorInSuccess Trouble = "error inside of a success"
	// OnlyClaimed: the system answers with a document and has booked none.
	OnlyClaimed Trouble = "success without an effect"
	// BookedOtherwise: the system books another quantity than it was given.
	BookedOtherwise Trouble = "another quantity is booked"
	// BookedLater: the system accepts the posting and books it a while later.
	BookedLater Trouble = "accepted, booked later"
	// BookedNever: the system accepts the posting, and refuses it a while later.
	BookedNever Trouble = "accepted, refused later"
	// ReadLate: what is booked can be read only a while later.
	ReadLate Trouble = "booked, readable later"
	// DuplicateKey: the system refuses a second document with one key by an error.
	DuplicateKey Trouble = "duplicate key is an error"
	// NoSearch: the system cannot be searched by key.
	NoSearch Trouble = "no search by key"
)

// Switch makes a trouble happen to every posting on an order until end is called, which also mends what the trouble left.
type Switch func(t testing.TB, order string) (end func())

// row is one line of the table that says which faults a connector was shown.
type row struct{ fault, expects, result string }

const (
	expectOnce    = "one effect, posted and verified"
	expectRetry   = "nothing done, tried again by itself, then one effect"
	expectMended  = "nothing done, parked with the reason; after it is mended one effect"
	expectRefused = "nothing done, parked with class, code, reason and next step"
	expectPerson  = "never taken for done: a person is shown the difference"
	expectNoGuess = "never two effects; what cannot be told goes to a person"
	expectSeen    = "one effect, or two that a person is shown"
)

// troubles is every trouble with its case.
func (s *suite) troubles() []struct {
	trouble Trouble
	expects string
	run     func(*testing.T, Switch)
} {
	return []struct {
		trouble Trouble
		expects string
		run     func(*testing.T, Switch)
	}{
		{OrderLocked, expectRetry, func(t *testing.T, sw Switch) { s.retried(t, sw, true, false) }},
		{SystemBusy, expectRetry, func(t *testing.T, sw Switch) { s.retried(t, sw, false, false) }},
		{Throttled, expectRetry, func(t *testing.T, sw Switch) { s.retried(t, sw, false, true) }},
		{PeriodClosed, expectMended, func(t *testing.T, sw Switch) { s.mended(t, sw, connector.Correctable, false) }},
		{OrderNotReleased, expectMended, func(t *testing.T, sw Switch) { s.mended(t, sw, connector.Correctable, true) }},
		{OrderComplete, expectMended, func(t *testing.T, sw Switch) { s.mended(t, sw, connector.Correctable, true) }},
		{StockMissing, expectMended, s.stockMissing},
		{NoRight, expectMended, func(t *testing.T, sw Switch) { s.mended(t, sw, connector.Fatal, false) }},
		{ErrorInSuccess, expectMended, func(t *testing.T, sw Switch) { s.mended(t, sw, connector.Correctable, false) }},
		{MovementFailed, expectPerson, s.movementFailed},
		{OnlyClaimed, expectPerson, s.onlyClaimed},
		{BookedOtherwise, expectPerson, s.bookedOtherwise},
		{BookedLater, expectOnce, s.settledThough},
		{BookedNever, expectMended, func(t *testing.T, sw Switch) { s.mended(t, sw, connector.Correctable, false) }},
		{ReadLate, expectOnce, s.settledThough},
		{DuplicateKey, expectOnce, s.duplicateKey},
		{NoSearch, expectNoGuess, s.noSearch},
	}
}

// faults runs every fault of the line and every trouble of the system, and prints which of them the connector was shown.
func (s *suite) faults(t *testing.T, posts bool) {
	for _, f := range []Fault{LoseReply, LoseRequest, DelayRequest, HalfReply, ServerError, TooMany, WebPage, WebPageAfter, EmptyReply, EndSession} {
		s.row(t, "ConfirmationThough/"+f.name(), string(f), expectOnce, s.lineReason(f, posts), func(t *testing.T) { s.confirmThough(t, f) })
	}
	s.row(t, "ConfirmationThough/"+SendTwice.name(), string(SendTwice), expectSeen, s.lineReason(SendTwice, posts), s.sentTwice)
	for _, x := range s.troubles() {
		sw, why := s.Troubles[x.trouble], s.CannotShow[x.trouble]
		switch {
		case sw == nil && why == "":
			t.Errorf("the harness says nothing of %q: give it a Switch, or say in CannotShow why it has none", x.trouble)
		case sw != nil && why != "":
			t.Errorf("the harness can show %q and says that it cannot: %s", x.trouble, why)
		case sw == nil:
		case !posts:
			why = "the connector posts no such facts"
		}
		s.row(t, "Trouble/"+Fault(x.trouble).name(), string(x.trouble), x.expects, why, func(t *testing.T) { x.run(t, sw) })
	}
	t.Log(s.table("faults"))
}

// lineReason says why a fault of the line cannot be shown, empty when it can.
func (s *suite) lineReason(f Fault, posts bool) string {
	p, isProxy := s.Faults.(*Proxy)
	switch {
	case s.Faults == nil:
		return "the harness has no Faults"
	case !posts:
		return "the connector posts no such facts"
	case f == EndSession && (!isProxy || p.EndSessions == nil):
		return "the harness cannot end sessions on the way"
	}
	return ""
}

func (s *suite) row(t *testing.T, name, fault, expects, why string, run func(*testing.T)) {
	r := row{fault, expects, "shown"}
	if why != "" {
		r.result = "cannot be shown: " + why
	} else if !t.Run(name, run) {
		r.result = "FAILED"
	}
	s.rows = append(s.rows, r)
}

func (s *suite) table(what string) string {
	var b strings.Builder
	shown := 0
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "%s\tthe hub must see\t%s\n", strings.TrimSuffix(what, "s"), s.can.System)
	for _, r := range s.rows {
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.fault, r.expects, r.result)
		if r.result == "shown" {
			shown++
		}
	}
	w.Flush()
	return fmt.Sprintf("%d of %d %s shown to %s\n%s", shown, len(s.rows), what, s.can.System, b.String())
}

// once asks for a posting once and returns the answer, of Prepare or of Post.
func (s *suite) once(t testing.TB, p connector.Posting) connector.Outcome {
	t.Helper()
	p.Attempt = 1
	intent, early, err := s.c.Prepare(t.Context(), p)
	if err != nil {
		t.Fatalf("prepare: %v", err)
	}
	if early != nil {
		return *early
	}
	return s.c.Post(t.Context(), p, intent)
}

func (s *suite) retried(t *testing.T, sw Switch, names, later bool) {
	order := s.CreateOrder(t, "40")
	end := sw(t, order)
	p := s.confirmation(order, "12", "0")
	out := s.once(t, p)
	if out.Result != connector.Rejected || out.Class != connector.Retryable || out.Code == "" || out.NextStep == "" {
		t.Errorf("the answer is %+v, want rejected as retryable with code and next step", out)
	}
	if names && !strings.Contains(out.Reason, order) {
		t.Errorf("reason %q does not name order %s", out.Reason, order)
	}
	if later && out.RetryAfter <= 0 {
		t.Errorf("the system said when it takes the next request, the answer does not: %+v", out)
	}
	s.holds(t, order, Effects{})
	end()
	s.settle(t, p)
	s.holds(t, order, Effects{Yield: dec("12")})
}

func (s *suite) mended(t *testing.T, sw Switch, class connector.Class, names bool) {
	order := s.CreateOrder(t, "40")
	end := sw(t, order)
	p := s.confirmation(order, "12", "0")
	word := ""
	if names {
		word = order
	}
	s.refuse(t, p, class, word)
	s.holds(t, order, Effects{})
	end()
	s.settle(t, p)
	s.holds(t, order, Effects{Yield: dec("12")})
}

func (s *suite) stockMissing(t *testing.T, sw Switch) {
	order := s.CreateOrder(t, "40")
	end := sw(t, order)
	p := s.consumption(order, "2.5", object.Issue)
	s.refuse(t, p, connector.Correctable, s.Component)
	s.holds(t, order, Effects{})
	end()
	s.settle(t, p)
	s.holds(t, order, Effects{Issued: dec("2.5"), Documents: 1})
}

func (s *suite) settledThough(t *testing.T, sw Switch) {
	order := s.CreateOrder(t, "40")
	end := sw(t, order)
	defer end()
	s.settle(t, s.confirmation(order, "12", "0"))
	s.settle(t, s.consumption(order, "2.5", object.Issue))
	s.holds(t, order, Effects{Yield: dec("12"), Issued: dec("2.5"), Documents: 2})
}

// undecided drives a posting and fails the test unless a person is asked, because the effect differs.
func (s *suite) undecided(t testing.TB, p connector.Posting) Settlement {
	t.Helper()
	x := Drive(t.Context(), s.c, p, patience)
	if x.End != Undecided || !strings.HasPrefix(x.Why[len(x.Why)-1], "verify: ") {
		t.Fatalf("posting ended %s, want undecided because of a difference:\n  %s", x.End, strings.Join(x.Why, "\n  "))
	}
	return x
}

func (s *suite) movementFailed(t *testing.T, sw Switch) {
	order := s.CreateOrder(t, "40")
	end := sw(t, order)
	p := s.confirmation(order, "12", "0")
	x := s.undecided(t, p)
	if last := x.Why[len(x.Why)-1]; !strings.Contains(last, s.Item) {
		t.Errorf("%q does not name the item %q whose movement failed", last, s.Item)
	}
	end()
	v, err := s.c.Verify(t.Context(), p, nil, x.Document)
	if err != nil || !v.Matches {
		t.Errorf("after the movement was processed again the effect is verified as %+v, %v", v, err)
	}
	s.holds(t, order, Effects{Yield: dec("12"), Documents: 1})
}

func (s *suite) onlyClaimed(t *testing.T, sw Switch) {
	order := s.CreateOrder(t, "40")
	end := sw(t, order)
	defer end()
	s.undecided(t, s.confirmation(order, "12", "0"))
	s.holds(t, order, Effects{})
}

func (s *suite) bookedOtherwise(t *testing.T, sw Switch) {
	order := s.CreateOrder(t, "40")
	end := sw(t, order)
	defer end()
	s.undecided(t, s.confirmation(order, "12", "0"))
}

// duplicateKey is two hubs that prepared before either posted, or one that forgot: the system refuses the second.
func (s *suite) duplicateKey(t *testing.T, sw Switch) {
	order := s.CreateOrder(t, "40")
	end := sw(t, order)
	defer end()
	p := s.confirmation(order, "12", "0")
	p.Attempt = 1
	other := s.Connect(t)
	first, early1, err1 := s.c.Prepare(t.Context(), p)
	second, early2, err2 := other.Prepare(t.Context(), p)
	if err1 != nil || err2 != nil || early1 != nil || early2 != nil {
		t.Fatalf("prepare: %+v %v, %+v %v", early1, err1, early2, err2)
	}
	if out := s.c.Post(t.Context(), p, first); out.Result != connector.Posted {
		t.Fatalf("first post: %+v", out)
	}
	if out := other.Post(t.Context(), p, slices.Clone(second)); out.Result == connector.Rejected && out.Class != connector.Retryable {
		t.Errorf("the second post is told %+v, but the effect is there", out)
	}
	s.settle(t, p)
	s.holds(t, order, Effects{Yield: dec("12"), Documents: 1})
}

// noSearch loses each reply in turn: where nobody can tell, a person must be asked, and never may there be two effects.
func (s *suite) noSearch(t *testing.T, sw Switch) {
	if s.Faults == nil {
		t.Skip("nothing can get lost")
	}
	asked := 0
	s.eachExchange(t, LoseReply, func(nth int) {
		order := s.CreateOrder(t, "40")
		end := sw(t, order)
		x := Drive(t.Context(), s.c, s.confirmation(order, "12", "0"), patience)
		end()
		got := s.Effects(t, order)
		switch {
		case got.Documents > 1:
			t.Errorf("reply %d lost: %d effects", nth, got.Documents)
		case x.End == Settled && got.Documents != 1, x.End == Refused:
			t.Errorf("reply %d lost: ended %s with %d effects:\n  %s", nth, x.End, got.Documents, strings.Join(x.Why, "\n  "))
		case x.End == Undecided:
			asked++
		}
	})
	if asked == 0 {
		t.Error("no lost reply made the connector say that it cannot tell")
	}
}

// sentTwice allows both: that the second request has no effect, and that it has one and is seen.
func (s *suite) sentTwice(t *testing.T) {
	doubled := 0
	s.eachExchange(t, SendTwice, func(nth int) {
		order := s.CreateOrder(t, "40")
		x := Drive(t.Context(), s.c, s.confirmation(order, "12", "0"), patience)
		got := s.Effects(t, order)
		switch once := got.Yield.Equal(decimal.NewFromInt(12)); {
		case x.End == Settled && once:
		case x.End == Undecided && !once:
			doubled++
		default:
			t.Errorf("request %d sent twice: ended %s, the order holds %s in %d documents:\n  %s",
				nth, x.End, got.Yield, got.Documents, strings.Join(x.Why, "\n  "))
		}
	})
	if doubled > 0 {
		t.Logf("the system books a request that is sent twice, and the connector shows it to a person (%d of the exchanges)", doubled)
		if s.can.CompareAndSet {
			t.Error("the connector claims CompareAndSet, and a request sent twice took effect twice")
		}
	}
}
