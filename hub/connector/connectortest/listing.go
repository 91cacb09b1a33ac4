package connectortest

import (
	"cmp"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

// Listing is what a test does to a system whose connector lists the documents of an order. Of each thing that is nil or empty
// Without has to say why it cannot be shown, by the name of the field.
type Listing struct {
	// Not says why this system, as it is configured, cannot list its documents: the connector must then say so by an error.
	Not string
	// NoScrap says why orders that have scrap cannot be listed: the connector must then say so by an error.
	NoScrap string
	// Pages says how many documents come at once, so few that those of an order need several readings.
	Pages int
	// ByHand books so much yield of the order's item without any key, as a person does in the system.
	ByHand func(t testing.TB, order, yield string)
	// Double books a posting that is settled once more under the same key, as a gateway that sends a request twice.
	Double func(t testing.TB, p connector.Posting)
	// Pending lets what is posted on an order be accepted and not booked, until end is called. It has to last as long as the
	// reading of a list may take on a busy machine.
	Pending Switch
	// Without says why something is missing; under "Failed", why the documents do not show a movement that failed.
	Without map[string]string
}

const (
	expectAll     = "every document once, with key, date and exact quantities, and the sums of the books"
	expectPair    = "both documents, each with the other's number, the second below zero"
	expectPending = "the document with its key, not booked; later booked, once"
	expectFailed  = "the confirmation, and its movement as failed; later not failed"
	expectForeign = "a document without a key"
	expectError   = "an error, never a shorter list and never \"not found\""
	expectNoOrder = "ErrNotFound"
	expectUndone  = "the opposite of one document, once, however often it is asked for"
)

// listings runs the cases of connectors that list a system's documents.
func (s *suite) listings(t *testing.T, posts bool) {
	reader, lists := s.c.(connector.EffectReader)
	if !lists {
		t.Log("not part of this run: the documents of an order (the connector cannot list them)")
		return
	}
	if s.Listing.Not != "" {
		t.Run("DocumentsThatCannotBeListedAreAnError", func(t *testing.T) { s.notListed(t, reader) })
		return
	}
	without := func(field string, has bool) string {
		why := s.Listing.Without[field]
		if has == (why != "") {
			t.Errorf("the harness must give Listing.%s, or say in Listing.Without why it cannot, and not both", field)
		}
		if !has {
			return cmp.Or(why, "the harness does not say")
		}
		return unless(posts, "the connector posts no such facts")
	}
	reverses := posts && s.reverses(object.KindConfirmation) && s.reverses(object.KindConsumption)
	_, undoes := s.c.(connector.DocumentReverser)
	movement := s.Troubles[MovementFailed]
	before := s.rows
	s.rows = nil
	if s.Listing.NoScrap != "" {
		t.Run("DocumentsOfAnOrderWithScrapAreAnError", func(t *testing.T) { s.scrapNotListed(t, reader) })
	}
	pages := fmt.Sprintf("documents, %d at once", s.Listing.Pages)
	if s.Listing.Pages == 0 {
		pages = "documents, all at once: " + without("Pages", false)
	}
	s.row(t, "DocumentsOfAnOrderAreListed", pages, expectAll, unless(posts, "the connector posts no such facts"), s.listAll)
	s.row(t, "ListedReversalsAreLinked", "documents that were taken back", expectPair, unless(reverses, "the connector takes nothing back"), s.listReversals)
	s.row(t, "ListedPendingIsPending", "accepted, not booked yet", expectPending, without("Pending", s.Listing.Pending != nil), s.listPending)
	s.row(t, "ListedMovementFailed", string(MovementFailed), expectFailed, cmp.Or(unless(movement != nil, s.CannotShow[MovementFailed]), s.Listing.Without["Failed"]), func(t *testing.T) { s.listFailed(t, movement) })
	s.row(t, "ListedByHand", "posted by hand", expectForeign, without("ByHand", s.Listing.ByHand != nil), s.listByHand)
	s.row(t, "ListOfAnUnknownOrder", "the order is unknown", expectNoOrder, "", s.listUnknown)
	s.row(t, "ListWithAFailingPage", "a reading fails at each exchange", expectError, unless(posts && s.Faults != nil, "the harness has no Faults"), s.listThough)
	why := unless(undoes, "the connector does not take documents back by their number")
	if why == "" {
		why = without("Double", s.Listing.Double != nil)
		s.row(t, "DocumentIsReversedOnce", "one document is taken back by its number", expectUndone, unless(posts, "the connector posts no such facts"), s.undo)
		s.row(t, "DocumentIsReversedOnceThoughAnswersGetLost", "answers and requests get lost meanwhile", expectUndone, unless(posts && s.Faults != nil, "the harness has no Faults"), s.undoThough)
	}
	s.row(t, "SecondDocumentOfAKeyIsReversed", "two documents under one key", expectUndone, why, s.undoDouble)
	t.Log(s.table("listings"))
	s.rows = before
}

func (s *suite) scrapNotListed(t *testing.T, reader connector.EffectReader) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(order, "12", "0"))
	s.list(t, order)
	s.settle(t, s.confirmation(order, "0", "1"))
	all, err := reader.Effects(t.Context(), order)
	if err == nil || errors.Is(err, connector.ErrNotFound) || len(all.Documents) > 0 {
		t.Errorf("%d documents and the error %v; want an error, because %s", len(all.Documents), err, s.Listing.NoScrap)
	}
	t.Logf("it says: %v", err)
}

// scrap is a quantity of scrap for orders that are listed.
func (s *suite) scrap(quantity string) string {
	if s.Listing.NoScrap != "" {
		return "0"
	}
	return quantity
}

func (s *suite) notListed(t *testing.T, reader connector.EffectReader) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(order, "12", "0"))
	all, err := reader.Effects(t.Context(), order)
	if err == nil || errors.Is(err, connector.ErrNotFound) || len(all.Documents) > 0 {
		t.Errorf("%d documents and the error %v; want an error, because %s", len(all.Documents), err, s.Listing.Not)
	}
	t.Logf("it says: %v", err)
}

// list reads the documents of an order and checks what holds for every list.
func (s *suite) list(t testing.TB, order string) []object.Effect {
	t.Helper()
	all, err := s.c.(connector.EffectReader).Effects(t.Context(), order)
	if err != nil {
		t.Fatalf("list documents of order %s: %v", order, err)
	}
	if all.AsOf.IsZero() || all.Order.OrderNo != order || all.Order.Item != s.Item {
		t.Errorf("the list is of order %q, item %q, as of %s; want order %q of item %q and an instant", all.Order.OrderNo, all.Order.Item, all.AsOf, order, s.Item)
	}
	numbers := map[string]object.Effect{}
	for _, e := range all.Documents {
		if _, twice := numbers[e.Number]; twice || e.Number == "" || e.OrderNo != order || e.Kind == "" || e.State == "" {
			t.Errorf("document %+v: want a number of its own, order %s, kind and state", e, order)
		}
		numbers[e.Number] = e
	}
	for _, e := range all.Documents {
		if old, there := numbers[e.Reverses]; there && old.ReversedBy != e.Number && e.State == object.EffectBooked {
			t.Errorf("document %s reverses %s, which says that %q reverses it", e.Number, e.Reverses, old.ReversedBy)
		}
	}
	s.addsUp(t, order, all.Documents)
	return all.Documents
}

// addsUp compares the sums of a list with the system's own books.
func (s *suite) addsUp(t testing.TB, order string, all []object.Effect) {
	t.Helper()
	var sum Effects
	for _, e := range all {
		if e.State != object.EffectBooked {
			continue
		}
		for _, q := range e.Quantities {
			unit := s.ComponentUnit
			switch q.Kind {
			case object.Yield:
				sum.Yield, unit = sum.Yield.Add(q.Value), s.ItemUnit
			case object.Scrap:
				sum.Scrap, unit = sum.Scrap.Add(q.Value), s.ItemUnit
			case object.Consumed:
				sum.Issued = sum.Issued.Add(q.Value)
			case object.Returned:
				sum.Issued = sum.Issued.Sub(q.Value)
			}
			if q.Unit != unit {
				t.Errorf("document %s has a quantity in %q, want %q: %+v", e.Number, q.Unit, unit, q)
			}
		}
	}
	want := s.Effects(t, order).net()
	if !sum.Yield.Equal(want.Yield) || !sum.Scrap.Equal(want.Scrap) || !sum.Issued.Equal(want.Issued) {
		t.Errorf("order %s: the list adds up to %s yield, %s scrap and %s issued, the books hold %s, %s and %s", order, sum.Yield, sum.Scrap, sum.Issued, want.Yield, want.Scrap, want.Issued)
	}
}

// listed is the one document of a posting's key, which must hold exactly what the posting says, below zero where it takes back.
func (s *suite) listed(t testing.TB, all []object.Effect, p connector.Posting, state object.EffectState) object.Effect {
	t.Helper()
	key := p.Fact.Key.String()
	var found []object.Effect
	for _, e := range all {
		if e.Key == key {
			found = append(found, e)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d documents carry key %s, want 1: %+v", len(found), key, all)
	}
	e := found[0]
	if e.Kind != p.Fact.Kind || e.State != state {
		t.Errorf("document %s of key %s is %s of kind %s, want %s of kind %s", e.Number, key, e.State, e.Kind, state, p.Fact.Kind)
	}
	if e.PostingDate != "" && p.Fact.Reverses.IsZero() && e.PostingDate != p.PostingDate.Format(time.DateOnly) {
		t.Errorf("document %s has posting date %q, want %s", e.Number, e.PostingDate, p.PostingDate.Format(time.DateOnly))
	}
	want := map[object.QuantityKind]decimal.Decimal{}
	for _, l := range p.Fact.FactQuantities() {
		want[l.Kind] = want[l.Kind].Add(l.Received) // below zero where it takes back
	}
	for _, q := range e.Quantities {
		want[q.Kind] = want[q.Kind].Sub(q.Value)
	}
	for kind, v := range want {
		if !v.IsZero() {
			t.Errorf("document %s of key %s lacks %s of %s: %+v", e.Number, key, v, kind, e.Quantities)
		}
	}
	return e
}

func (s *suite) listAll(t *testing.T) {
	order, other := s.CreateOrder(t, "400"), s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(other, "7", "0"))
	if all := s.list(t, order); len(all) != 0 {
		t.Errorf("an order without documents has %+v", all)
	}
	few := s.exchanges(func() { s.list(t, order) })
	posts := []connector.Posting{s.confirmation(order, "12", s.scrap("1")), s.consumption(order, "25.75", object.Issue), s.consumption(order, "0.3", object.Issue),
		s.consumption(order, "1.05", object.Return), s.confirmation(order, "3", "0"), s.consumption(order, "0.1", object.Issue), s.consumption(order, "0.2", object.Issue)}
	for len(posts) < 2*s.Listing.Pages+2 {
		posts = append(posts, s.confirmation(order, "2", "0"), s.consumption(order, "0.05", object.Issue))
	}
	for _, p := range posts {
		s.settle(t, p)
	}
	var all []object.Effect
	if many := s.exchanges(func() { all = s.list(t, order) }); s.Listing.Pages > 0 && many > 0 && many <= few {
		t.Errorf("%d documents took %d readings, none took %d: nothing was cut into pages of %d", len(all), many, few, s.Listing.Pages)
	}
	if len(all) != len(posts) {
		t.Errorf("%d documents are listed, want %d", len(all), len(posts))
	}
	for _, p := range posts {
		if e := s.listed(t, all, p, object.EffectBooked); e.Reverses != "" || e.ReversedBy != "" {
			t.Errorf("document %s reverses %q and is reversed by %q", e.Number, e.Reverses, e.ReversedBy)
		}
	}
}

// exchanges counts those of f; 0 where nothing counts them.
func (s *suite) exchanges(f func()) int {
	p, counts := s.Faults.(*Proxy)
	if !counts {
		f()
		return 0
	}
	before, _ := p.Counts()
	f()
	after, _ := p.Counts()
	return after - before
}

func (s *suite) listReversals(t *testing.T) {
	order := s.CreateOrder(t, "40")
	made, used, back := s.confirmation(order, "12", "0"), s.consumption(order, "2.5", object.Issue), s.consumption(order, "0.5", object.Return)
	stays := s.confirmation(order, "3", "0")
	var reversals []connector.Posting
	for _, p := range []connector.Posting{made, used, back} {
		doc := s.settle(t, p).Document
		reversals = append(reversals, reversal(p, doc))
	}
	s.settle(t, stays)
	for _, r := range reversals {
		s.settle(t, r)
	}
	all := s.list(t, order)
	for i, p := range []connector.Posting{made, used, back} {
		first, second := s.listed(t, all, p, object.EffectBooked), s.listed(t, all, reversals[i], object.EffectBooked)
		if first.ReversedBy != second.Number || second.Reverses != first.Number || first.Reverses != "" || second.ReversedBy != "" {
			t.Errorf("documents %+v and %+v are not a pair", first, second)
		}
	}
	if e := s.listed(t, all, stays, object.EffectBooked); e.ReversedBy != "" {
		t.Errorf("document %+v was not taken back", e)
	}
}

func (s *suite) listPending(t *testing.T) {
	order := s.CreateOrder(t, "40")
	end := s.Listing.Pending(t, order)
	p := s.confirmation(order, "12", "0")
	if out := s.once(t, p); out.Result == connector.Posted {
		t.Errorf("the answer is %+v, but nothing is booked", out)
	}
	e := s.listed(t, s.list(t, order), p, object.EffectPending)
	end()
	s.settle(t, p)
	s.listed(t, s.list(t, order), p, object.EffectBooked)
	s.holds(t, order, Effects{Yield: dec("12"), Documents: 1})
	t.Logf("pending it was %s", e.Number)
}

func (s *suite) listFailed(t *testing.T, sw Switch) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(order, "3", "0"))
	end := sw(t, order)
	p := s.confirmation(order, "12", "0")
	s.undecided(t, p)
	failed := func() (n int) {
		all, err := s.c.(connector.EffectReader).Effects(t.Context(), order)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range all.Documents {
			for _, m := range e.Movements {
				if !m.Failed {
					continue
				}
				if n++; e.Key != p.Fact.Key.String() || m.Item != s.Item || !m.Value.Equal(dec("12")) || m.Unit != s.ItemUnit {
					t.Errorf("movement %+v of document %s failed, want the receipt of 12 %s of %q of key %s", m, e.Number, s.ItemUnit, s.Item, p.Fact.Key)
				}
			}
		}
		return n
	}
	if n := failed(); n != 1 {
		t.Errorf("%d movements failed, want 1", n)
	}
	end()
	if n := failed(); n != 0 {
		t.Errorf("after it was processed again %d movements failed", n)
	}
	s.listed(t, s.list(t, order), p, object.EffectBooked)
}

func (s *suite) listByHand(t *testing.T) {
	order := s.CreateOrder(t, "40")
	p := s.confirmation(order, "3", "0")
	s.settle(t, p)
	s.Listing.ByHand(t, order, "5")
	all := s.list(t, order)
	s.listed(t, all, p, object.EffectBooked)
	foreign := 0
	for _, e := range all {
		if e.Key != "" {
			continue
		}
		foreign++
		if e.Kind != object.KindConfirmation || len(e.Quantities) != 1 || e.Quantities[0].Kind != object.Yield || !e.Quantities[0].Value.Equal(dec("5")) {
			t.Errorf("what was posted by hand is listed as %+v", e)
		}
	}
	if foreign != 1 || len(all) != 2 {
		t.Errorf("%d of %d documents have no key, want 1 of 2", foreign, len(all))
	}
}

func (s *suite) listUnknown(t *testing.T) {
	all, err := s.c.(connector.EffectReader).Effects(t.Context(), "NO-SUCH-ORDER")
	if !errors.Is(err, connector.ErrNotFound) || len(all.Documents) > 0 {
		t.Errorf("an unknown order gives %d documents and the error %v, want ErrNotFound", len(all.Documents), err)
	}
}

// listThough reads a list while each of its exchanges fails in turn, in each of the ways in which a line fails.
func (s *suite) listThough(t *testing.T) {
	order := s.CreateOrder(t, "400")
	for range max(3, s.Listing.Pages) {
		s.settle(t, s.confirmation(order, "2", s.scrap("1")))
		s.settle(t, s.consumption(order, "0.3", object.Issue))
	}
	want := len(s.list(t, order))
	for _, f := range []Fault{LoseReply, LoseRequest, HalfReply, ServerError, TooMany, WebPage, WebPageAfter, EmptyReply} {
		tried := 0
		for ; ; tried++ {
			s.Faults.Arm(f, tried+1)
			all, err := s.c.(connector.EffectReader).Effects(t.Context(), order)
			if !s.Faults.Fired() {
				if err != nil || len(all.Documents) != want {
					t.Errorf("after %s: %d documents and the error %v, want %d", f, len(all.Documents), err, want)
				}
				break
			}
			if err == nil && len(all.Documents) != want || errors.Is(err, connector.ErrNotFound) {
				t.Errorf("%s at exchange %d: %d of %d documents and the error %v", f, tried+1, len(all.Documents), want, err)
			}
		}
		if tried == 0 {
			t.Errorf("%s never happened: the connector's exchanges do not pass through Faults", f)
		}
	}
}

// takeBack asks for the opposite of a document until it is there.
func (s *suite) takeBack(t testing.TB, number, key string) string {
	t.Helper()
	var why []string
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); pause(t.Context(), 20*time.Millisecond) {
		out, err := s.c.(connector.DocumentReverser).ReverseDocument(t.Context(), number, key)
		switch {
		case err == nil && out.Result == connector.Posted:
			if out.Document.Number == "" || out.Document.Number == number {
				t.Errorf("what takes back document %s is called %q", number, out.Document.Number)
			}
			return out.Document.Number
		case err == nil && out.Result == connector.Rejected && out.Class != connector.Retryable:
			t.Fatalf("document %s is not taken back: %+v\n  %s", number, out, strings.Join(why, "\n  "))
		}
		why = append(why, fmt.Sprintf("%s %s %v", out.Result, out.Reason, err))
	}
	t.Fatalf("document %s was never taken back:\n  %s", number, strings.Join(why, "\n  "))
	return ""
}

// undone checks that a list holds one document that takes number back.
func (s *suite) undone(t testing.TB, order, number, by string) {
	t.Helper()
	n := 0
	for _, e := range s.list(t, order) {
		if e.Reverses != "" && e.State == object.EffectBooked { // a late request may leave a draft, which has no effect
			n++
			if e.Number != by || e.Reverses != number {
				t.Errorf("document %s reverses %s, want %s of %s", e.Number, e.Reverses, by, number)
			}
		}
		if e.Number == number && e.ReversedBy != by {
			t.Errorf("document %s is reversed by %q, want %s", number, e.ReversedBy, by)
		}
	}
	if n != 1 {
		t.Errorf("%d documents take something back, want 1", n)
	}
}

func (s *suite) undo(t *testing.T) {
	for _, p := range []connector.Posting{s.confirmation("", "12", "0"), s.consumption("", "2.5", object.Issue), s.consumption("", "0.5", object.Return)} {
		order := s.CreateOrder(t, "40")
		if c := p.Fact.Confirmation; c != nil {
			c.OrderNo = order
		} else {
			p.Fact.Consumption.OrderNo = order
		}
		p.Order.OrderNo = order
		s.settle(t, p)
		number := s.listed(t, s.list(t, order), p, object.EffectBooked).Number
		key := factkey.Random().String()
		by := s.takeBack(t, number, key)
		s.holdsNet(t, order, "0", "0")
		if again := s.takeBack(t, number, key); again != by {
			t.Errorf("the second time document %s is taken back by %s, the first time by %s", number, again, by)
		}
		out, err := s.c.(connector.DocumentReverser).ReverseDocument(t.Context(), number, factkey.Random().String())
		same := out.Result == connector.Posted && out.Document.Number == by
		if named := out.Result == connector.Rejected && out.Class == connector.Correctable && strings.Contains(out.Reason, by); err != nil || !same && !named {
			t.Errorf("document %s was taken back by %s, and under another key the answer is %+v, %v", number, by, out, err)
		}
		s.holdsNet(t, order, "0", "0")
		s.undone(t, order, number, by)
	}
	out, err := s.c.(connector.DocumentReverser).ReverseDocument(t.Context(), "NO-SUCH-DOCUMENT", factkey.Random().String())
	if err == nil && out.Result == connector.Posted {
		t.Errorf("a document that is not there is taken back: %+v", out)
	}
}

func (s *suite) undoThough(t *testing.T) {
	for _, f := range []Fault{LoseReply, LoseRequest, DelayRequest} {
		for nth, fired := 1, true; fired; nth++ {
			order := s.CreateOrder(t, "40")
			p := s.confirmation(order, "12", "0")
			s.settle(t, p)
			number, key := s.listed(t, s.list(t, order), p, object.EffectBooked).Number, factkey.Random().String()
			s.Faults.Arm(f, nth)
			by := s.takeBack(t, number, key)
			fired = s.Faults.Fired()
			s.Faults.Deliver()
			s.holdsNet(t, order, "0", "0")
			s.undone(t, order, number, by)
			if t.Failed() || nth == 1 && !fired {
				t.Fatalf("%s at exchange %d (it happened: %t)", f, nth, fired)
			}
		}
	}
}

func (s *suite) undoDouble(t *testing.T) {
	order := s.CreateOrder(t, "40")
	p := s.confirmation(order, "12", "0")
	s.settle(t, p)
	s.Listing.Double(t, p)
	s.holdsNet(t, order, "24", "0")
	var numbers []string
	for _, e := range s.list(t, order) {
		if e.Key == p.Fact.Key.String() {
			numbers = append(numbers, e.Number)
		}
	}
	if len(numbers) != 2 {
		t.Fatalf("documents %q carry the key, want two", numbers)
	}
	by := s.takeBack(t, numbers[1], factkey.Random().String())
	s.holdsNet(t, order, "12", "0")
	s.undone(t, order, numbers[1], by)
}
