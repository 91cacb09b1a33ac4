package connectortest

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

// patience is how long one posting may take on a busy machine.
const patience = 2 * time.Minute

// Run runs every case that the connector's capabilities and the harness allow. The random case prints its seed and takes it
// back from CONNECTORTEST_SEED.
func Run(t *testing.T, h Harness) {
	s := &suite{Harness: h, c: h.Connect(t)}
	s.can = s.c.Capabilities()
	t.Run("ListChangedShowsWhatPlannersDo", s.listChanged)
	s.optional(t, "ListChangedShowsWhatWasCommittedLate", h.ChangeLate != nil, s.listLate)
	t.Run("GetKnowsOrdersAndSaysWhenItDoesNot", s.get)

	confirms, consumes := s.posts(object.KindConfirmation), s.posts(object.KindConsumption)
	s.optional(t, "ConfirmationTakesEffectOnce", confirms, s.confirm)
	s.optional(t, "ConsumptionTakesEffectOnce", consumes, s.consume)
	s.row(t, "HubThatForgotPostsNothingTwice", "hub that forgot what it posted", expectOnce,
		unless(confirms && s.can.ExternalKey, "the system keeps no key"), s.forgot)
	s.optional(t, "VerifySeesADifference", confirms, s.verifyDifference)
	holder, holds := s.Faults.(Holder)
	s.optional(t, "AnswerThatIsReadLateIsAsOldAsItsQuestion", confirms && holds, func(t *testing.T) {
		if waits := s.lateAnswers(t, holder); !waits && !t.Failed() && s.can.Settle > 0 {
			t.Errorf("effects take up to %s to appear, and what was never sent is called missing at once", s.can.Settle)
		}
	})
	_, many := s.c.(connector.ManyVerifier)
	s.optional(t, "VerifyManySaysOfEachWhatVerifySays", confirms && many, s.verifyMany)
	s.row(t, "OneIntentManyWorkersOneEffect", "four workers post one intent", expectOnce,
		unless(confirms && s.can.CompareAndSet, "a posting cannot be tied to what was read"), s.oneIntent)
	s.optional(t, "OrdersSideBySide", confirms && consumes, s.sideBySide)
	s.row(t, "SessionEnded", "session ended between postings", expectOnce,
		unless(confirms && h.ExpireSessions != nil, "the harness cannot end sessions"), s.sessionEnded)
	s.row(t, "Rejections", "unknown order, item or unit; order cancelled or closed", expectRefused,
		unless(confirms && consumes, "the connector posts no such facts"), s.rejections)

	s.optional(t, "FirstConsumptionThough/"+LoseReply.name(), consumes && h.Faults != nil, func(t *testing.T) { s.consumeFirstThough(t, LoseReply) })
	for _, f := range []Fault{LoseReply, DelayRequest} {
		s.optional(t, "FinishThough/"+f.name(), s.states(object.FloorFinished) && h.Faults != nil, func(t *testing.T) { s.finishThough(t, f) })
	}
	s.optional(t, "StartedThenFinished", s.states(object.FloorStarted, object.FloorFinished), s.startedFinished)
	s.optional(t, "CancelledBeforeAnythingWasPosted", s.states(object.FloorCancelled), s.cancelled)
	s.optional(t, "CancelledAfterPostingIsRefused", confirms && s.states(object.FloorCancelled), s.cancelledTooLate)
	s.faults(t, confirms && consumes)
	s.reversals(t, confirms && consumes)
	s.listings(t, confirms && consumes)
	s.stocks(t, confirms && consumes)
	_, reads := s.c.(connector.StockReader)
	s.optional(t, "InventoryFollowsConsumption", reads && consumes, s.inventory)
	s.optional(t, "NothingMissingNothingDoubledUnderLostReplies", confirms && consumes && h.Faults != nil, s.lossy)
}

type suite struct {
	Harness
	c    connector.Connector
	can  connector.Capabilities
	rows []row         // of the table of faults
	ripe time.Duration // how old at least is what lateAnswers asks for
}

func (f Fault) name() string {
	words := strings.Fields(string(f))
	for i, w := range words {
		words[i] = strings.ToUpper(w[:1]) + w[1:]
	}
	return strings.Join(words, "")
}

// optional runs a case that not every system has; what is left out is said, so that nobody takes it for passed.
func (s *suite) optional(t *testing.T, name string, has bool, run func(*testing.T)) {
	if !has {
		t.Logf("not part of this run: %s", name)
		return
	}
	t.Run(name, run)
}

func unless(has bool, why string) string {
	if has {
		return ""
	}
	return why
}

func (s *suite) posts(k object.Kind) bool { return slices.Contains(s.can.Posts, k) }

func (s *suite) states(want ...object.FloorState) bool {
	for _, w := range want {
		if !slices.Contains(s.can.States, w) {
			return false
		}
	}
	return s.posts(object.KindOrderState)
}

// posting makes a posting of a fact of today.
func (s *suite) posting(order string) connector.Posting {
	now := time.Now().UTC()
	return connector.Posting{
		Fact: object.Fact{Key: factkey.Random(), Plant: "plant", Source: "suite", Rule: "suite",
			OccurredAt: now, RecordedAt: now, TimeZone: "UTC"},
		Order:       object.WorkOrder{OrderNo: order, Item: s.Item, Site: s.Site},
		PostingDate: time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC),
	}
}

// confirmation makes a posting of yield and scrap of the order's item.
func (s *suite) confirmation(order, yield, scrap string) connector.Posting {
	p := s.posting(order)
	p.Fact.Kind = object.KindConfirmation
	p.Fact.Confirmation = &object.Confirmation{OrderNo: order, Item: s.Item, Unit: s.ItemUnit,
		Yield: decimal.RequireFromString(yield), Scrap: decimal.RequireFromString(scrap)}
	return p
}

func (s *suite) consumption(order, quantity string, m object.Movement) connector.Posting {
	p := s.posting(order)
	p.Fact.Kind = object.KindConsumption
	p.Fact.Consumption = &object.Consumption{OrderNo: order, Item: s.Component, Movement: m,
		Quantity: object.Quantity{Value: decimal.RequireFromString(quantity), Unit: s.ComponentUnit}}
	return p
}

func (s *suite) state(order string, state object.FloorState) connector.Posting {
	p := s.posting(order)
	p.Fact.Kind = object.KindOrderState
	p.Fact.OrderState = &object.ShopFloorState{OrderNo: order, State: state}
	return p
}

// settle drives a posting and fails the test unless it is posted and verified.
func (s *suite) settle(t testing.TB, p connector.Posting) Settlement {
	t.Helper()
	return s.settleThough(t, p, func() {})
}

// settleThough is settle, with a disaster just after a look-up said Absent.
func (s *suite) settleThough(t testing.TB, p connector.Posting, absent func()) Settlement {
	t.Helper()
	x := drive(t.Context(), s.c, p, patience, absent)
	if x.End != Settled {
		t.Fatalf("posting %s of order %s ended %s:\n  %s", p.Fact.Kind, p.Fact.OrderNo(), x.End, strings.Join(x.Why, "\n  "))
	}
	if x.Document.Number == "" {
		t.Errorf("posting %s of order %s has no document number", p.Fact.Kind, p.Fact.OrderNo())
	}
	return x
}

// refuse drives a posting and fails the test unless it is rejected with class, by a code and sentences that name the item.
func (s *suite) refuse(t testing.TB, p connector.Posting, class connector.Class, names string) {
	t.Helper()
	x := Drive(t.Context(), s.c, p, patience)
	out := x.Outcome
	if x.End != Refused || out.Class != class {
		t.Fatalf("posting ended %s as %q, want %s as %q:\n  %s", x.End, out.Class, Refused, class, strings.Join(x.Why, "\n  "))
	}
	if out.Code == "" || out.NextStep == "" || !strings.Contains(out.Reason, names) {
		t.Errorf("rejection has code %q, reason %q and next step %q; the reason must name %q", out.Code, out.Reason, out.NextStep, names)
	}
}

// holds compares the system's books with what they should hold.
func (s *suite) holds(t testing.TB, order string, want Effects) {
	t.Helper()
	got := s.Effects(t, order)
	if !got.Yield.Equal(want.Yield) || !got.Scrap.Equal(want.Scrap) || !got.Issued.Equal(want.Issued) || !got.Returned.Equal(want.Returned) {
		t.Errorf("order %s holds yield %s, scrap %s, issued %s, returned %s; want %s, %s, %s, %s",
			order, got.Yield, got.Scrap, got.Issued, got.Returned, want.Yield, want.Scrap, want.Issued, want.Returned)
	}
	if want.Documents > 0 && got.Documents != want.Documents {
		t.Errorf("order %s holds %d documents, want %d", order, got.Documents, want.Documents)
	}
	if want.State != "" && got.State != want.State {
		t.Errorf("order %s is %s, want %s", order, got.State, want.State)
	}
}

// sum adds what a posting should bring about.
func (e *Effects) sum(p connector.Posting) {
	if c := p.Fact.Confirmation; c != nil {
		e.Yield, e.Scrap = e.Yield.Add(c.Yield), e.Scrap.Add(c.Scrap)
	}
	if c := p.Fact.Consumption; c != nil {
		if c.Movement == object.Return {
			e.Returned = e.Returned.Add(c.Quantity.Value)
		} else {
			e.Issued = e.Issued.Add(c.Quantity.Value)
		}
	}
}

// changes pages through ListChanged until there is no more, and returns the last content of each order.
func (s *suite) changes(t testing.TB, c connector.Connector, cursor string) (map[string]object.WorkOrder, string) {
	t.Helper()
	seen := map[string]object.WorkOrder{}
	for range 1000 {
		page, err := c.ListChanged(t.Context(), cursor)
		if err != nil {
			t.Fatalf("list changed orders: %v", err)
		}
		for _, o := range page.Orders {
			seen[o.OrderNo] = o
		}
		cursor = page.Cursor
		if !page.More {
			return seen, cursor
		}
	}
	t.Fatal("list changed orders: still more after 1000 pages")
	return nil, ""
}

func (s *suite) listChanged(t *testing.T) {
	a, b, c := s.CreateOrder(t, "40"), s.CreateOrder(t, "7"), s.CreateOrder(t, "9")
	seen, cursor := s.changes(t, s.c, "")
	for order, quantity := range map[string]string{a: "40", b: "7", c: "9"} {
		s.isReleased(t, seen[order], order, quantity)
	}
	s.ChangeQuantity(t, b, "12")
	s.CancelOrder(t, c)
	again := s.Connect(t) // the cursor must mean the same to a hub that started again
	seen, cursor = s.changes(t, again, cursor)
	s.isReleased(t, seen[b], b, "12")
	if got := seen[c].State; got != object.OrderCancelled {
		t.Errorf("a cancelled order is listed as %q", got)
	}
	d := s.CreateOrder(t, "3")
	seen, _ = s.changes(t, again, cursor)
	s.isReleased(t, seen[d], d, "3")
}

func (s *suite) isReleased(t testing.TB, o object.WorkOrder, order, quantity string) {
	t.Helper()
	if o.OrderNo != order {
		t.Errorf("order %s is not listed", order)
		return
	}
	want := decimal.RequireFromString(quantity)
	if o.State != object.OrderReleased || o.Item != s.Item || o.Site != s.Site || o.Quantity.Unit != s.ItemUnit || !o.Quantity.Value.Equal(want) {
		t.Errorf("order %s is %s, %s %s of %q at %q; want RELEASED, %s %s of %q at %q", order,
			o.State, o.Quantity.Value, o.Quantity.Unit, o.Item, o.Site, quantity, s.ItemUnit, s.Item, s.Site)
	}
	i := slices.IndexFunc(o.Components, func(c object.Component) bool { return c.Item == s.Component })
	if i < 0 {
		t.Errorf("order %s has no component %q: %+v", order, s.Component, o.Components)
		return
	}
	need := want.Mul(decimal.RequireFromString(s.PerItem))
	if r := o.Components[i].Required; r.Unit != s.ComponentUnit || !r.Value.Equal(need) {
		t.Errorf("order %s needs %s %s of %q, want %s %s", order, r.Value, r.Unit, s.Component, need, s.ComponentUnit)
	}
}

func (s *suite) listLate(t *testing.T) {
	early, late := s.CreateOrder(t, "5"), s.CreateOrder(t, "6")
	_, cursor := s.changes(t, s.c, "")
	commit := s.ChangeLate(t, late, "8")
	s.ChangeQuantity(t, early, "11")
	seen, cursor := s.changes(t, s.c, cursor)
	if got := seen[early].Quantity.Value; !got.Equal(decimal.NewFromInt(11)) {
		t.Errorf("the order that was committed has quantity %s, want 11", got)
	}
	commit()
	seen, _ = s.changes(t, s.c, cursor)
	if got := seen[late].Quantity.Value; !got.Equal(decimal.NewFromInt(8)) {
		t.Errorf("the change that began before the cursor and was committed after it shows quantity %s, want 8", got)
	}
}

func (s *suite) get(t *testing.T) {
	order := s.CreateOrder(t, "4")
	o, err := s.c.Get(t.Context(), order)
	if err != nil {
		t.Fatalf("get order %s: %v", order, err)
	}
	s.isReleased(t, o, order, "4")
	if _, err := s.c.Get(t.Context(), "NO-SUCH-ORDER"); !errors.Is(err, connector.ErrNotFound) {
		t.Errorf("get of an unknown order gives %v, want ErrNotFound", err)
	}
}

func (s *suite) confirm(t *testing.T) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(order, "12", "0"))
	s.settle(t, s.confirmation(order, "3", "2"))
	s.settle(t, s.confirmation(order, "0", "1"))
	s.holds(t, order, Effects{Yield: dec("15"), Scrap: dec("3"), State: object.OrderInProgress})
}

func (s *suite) consume(t *testing.T) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.consumption(order, "25.75", object.Issue))
	s.settle(t, s.consumption(order, "0.3", object.Issue))
	s.settle(t, s.consumption(order, "1.05", object.Return))
	s.holds(t, order, Effects{Issued: dec("26.05"), Returned: dec("1.05"), State: object.OrderInProgress})
}

// forgot is a hub whose database was put back to before the posting.
func (s *suite) forgot(t *testing.T) {
	order := s.CreateOrder(t, "40")
	p := s.confirmation(order, "12", "1")
	first := s.settle(t, p)
	s.settle(t, s.confirmation(order, "5", "0"))
	held := s.Effects(t, order)
	second := s.settle(t, p)
	if second.Document != first.Document {
		t.Errorf("the second time the document is %+v, the first time %+v", second.Document, first.Document)
	}
	s.holds(t, order, held)
}

func (s *suite) verifyDifference(t *testing.T) {
	order := s.CreateOrder(t, "40")
	p := s.confirmation(order, "12", "1")
	intent, early, err := s.c.Prepare(t.Context(), p)
	if err != nil || early != nil {
		t.Fatalf("prepare: %+v, %v", early, err)
	}
	out := s.c.Post(t.Context(), p, intent)
	for deadline := time.Now().Add(patience); out.Result == connector.InDoubt && time.Now().Before(deadline); pause(t.Context(), 20*time.Millisecond) {
		// a system that only queues what it is told says later what became of it
		if f, err := s.c.Lookup(t.Context(), p, intent); err == nil && f.Presence == connector.Found {
			out = connector.Outcome{Result: connector.Posted, Document: f.Document}
		}
	}
	if out.Result != connector.Posted {
		t.Fatalf("post: %+v", out)
	}
	for _, change := range []func(*object.Confirmation){
		func(c *object.Confirmation) { c.Yield = dec("13") },
		func(c *object.Confirmation) { c.Scrap = dec("0") },
	} {
		other := p
		confirmation := *p.Fact.Confirmation
		change(&confirmation)
		other.Fact.Confirmation = &confirmation
		v, err := s.c.Verify(t.Context(), other, intent, out.Document)
		if err != nil || v.Matches || v.NotYet || v.Difference == "" {
			t.Errorf("an effect that differs is verified as %+v, %v", v, err)
		}
	}
}

func (s *suite) oneIntent(t *testing.T) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(order, "1", "0"))
	held := s.Effects(t, order)
	p := s.confirmation(order, "12", "0")
	intent, early, err := s.c.Prepare(t.Context(), p)
	if err != nil || early != nil {
		t.Fatalf("prepare: %+v, %v", early, err)
	}
	outcomes := make([]connector.Outcome, 4)
	var wg sync.WaitGroup
	for i := range outcomes {
		wg.Go(func() { outcomes[i] = s.c.Post(t.Context(), p, slices.Clone(intent)) })
	}
	wg.Wait()
	for _, out := range outcomes {
		if out.Result == connector.Rejected && out.Class != connector.Retryable {
			t.Errorf("one of the workers was told %+v", out)
		}
	}
	held.sum(p)
	held.Documents++
	s.holds(t, order, held)
}

func (s *suite) sideBySide(t *testing.T) {
	orders := make([]string, 4)
	for i := range orders {
		orders[i] = s.CreateOrder(t, "40")
	}
	want := Effects{Yield: dec("5"), Scrap: dec("1"), Issued: dec("2.5"), State: object.OrderInProgress}
	var wg sync.WaitGroup
	for _, order := range orders {
		wg.Go(func() {
			for _, p := range []connector.Posting{s.consumption(order, "2.5", object.Issue),
				s.confirmation(order, "3", "1"), s.confirmation(order, "2", "0")} {
				if x := Drive(t.Context(), s.c, p, patience); x.End != Settled {
					t.Errorf("posting on order %s ended %s:\n  %s", order, x.End, strings.Join(x.Why, "\n  "))
				}
			}
		})
	}
	wg.Wait()
	for _, order := range orders {
		s.holds(t, order, want)
	}
}

func (s *suite) sessionEnded(t *testing.T) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(order, "2", "0"))
	s.ExpireSessions(t)
	s.settle(t, s.confirmation(order, "3", "0"))
	s.holds(t, order, Effects{Yield: dec("5")})
}

func (s *suite) rejections(t *testing.T) {
	order := s.CreateOrder(t, "40")
	s.refuse(t, s.confirmation("NO-SUCH-ORDER", "1", "0"), connector.Fatal, "NO-SUCH-ORDER")

	p := s.consumption(order, "1", object.Issue)
	p.Fact.Consumption.Item = "NO-SUCH-ITEM"
	s.refuse(t, p, connector.Fatal, "NO-SUCH-ITEM")

	p = s.confirmation(order, "1", "0")
	p.Fact.Confirmation.Unit = "XBX"
	s.refuse(t, p, connector.Fatal, "XBX")

	p = s.consumption(order, "1", object.Issue)
	p.Fact.Consumption.Quantity.Unit = "HUR" // nobody consumes hours of it
	s.refuse(t, p, connector.Fatal, "HUR")
	s.holds(t, order, Effects{})

	cancelled := s.CreateOrder(t, "40")
	s.CancelOrder(t, cancelled)
	s.refuse(t, s.confirmation(cancelled, "1", "0"), connector.Correctable, cancelled)
	s.holds(t, cancelled, Effects{State: object.OrderCancelled})

	closed := s.CreateOrder(t, "40")
	s.CloseOrder(t, closed)
	held := s.Effects(t, closed)
	s.refuse(t, s.confirmation(closed, "1", "0"), connector.Correctable, closed)
	s.refuse(t, s.consumption(closed, "1", object.Issue), connector.Correctable, closed)
	s.holds(t, closed, held)
}

// likeAnother lists the faults that are to the system as a lost reply or a lost request is.
var likeAnother = []Fault{HalfReply, ServerError, TooMany, WebPage, WebPageAfter, EmptyReply}

// eachExchange makes f happen to the first exchange of a posting, then to the second of another, and so on until a posting
// has fewer exchanges than that.
func (s *suite) eachExchange(t *testing.T, f Fault, post func(nth int)) {
	first, step := 1, 1
	if i := slices.Index(likeAnother, f); s.Sparse && i >= 0 {
		first, step = 1+i%3, 3
	}
	tried := 0
	for nth := first; nth <= 50; nth += step {
		s.Faults.Arm(f, nth)
		post(nth)
		fired := s.Faults.Fired()
		s.Faults.Deliver()
		if !fired {
			if tried == 0 {
				t.Fatal("the fault never happened: the connector's exchanges do not pass through Faults")
			}
			t.Logf("%s: tried at %d exchanges", f, tried)
			return
		}
		tried++
	}
	t.Fatal("a posting has more than 50 exchanges")
}

func (s *suite) confirmThough(t *testing.T, f Fault) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(order, "1", "1"))
	want := s.Effects(t, order)
	step := want.Documents
	s.eachExchange(t, f, func(nth int) {
		p := s.confirmation(order, strconv.Itoa(nth), "1")
		x := s.settleThough(t, p, s.Faults.Deliver) // the worst moment for a late request: nothing is there, and it is posted again
		want.sum(p)
		want.Documents += step
		s.Faults.Deliver()
		s.holds(t, order, want)
		if t.Failed() {
			t.Fatalf("%s at exchange %d:\n  %s", f, nth, strings.Join(x.Why, "\n  "))
		}
	})
}

// consumeFirstThough posts on orders that were not started, because that takes more steps than any other posting.
func (s *suite) consumeFirstThough(t *testing.T, f Fault) {
	s.eachExchange(t, f, func(nth int) {
		order := s.CreateOrder(t, "4")
		x := s.settle(t, s.consumption(order, "2.5", object.Issue))
		s.Faults.Deliver()
		s.holds(t, order, Effects{Issued: dec("2.5"), Documents: 1})
		if t.Failed() {
			t.Fatalf("%s at exchange %d:\n  %s", f, nth, strings.Join(x.Why, "\n  "))
		}
	})
}

// finishThough finishes orders that were not started, which takes all the steps there are.
func (s *suite) finishThough(t *testing.T, f Fault) {
	s.eachExchange(t, f, func(nth int) {
		order := s.CreateOrder(t, "4")
		x := s.settle(t, s.state(order, object.FloorFinished))
		s.Faults.Deliver() // and here late requests arrive when all is over
		s.holds(t, order, Effects{State: cmp.Or(s.FinishedEmpty, object.OrderCompleted)})
		if t.Failed() {
			t.Fatalf("%s at exchange %d:\n  %s", f, nth, strings.Join(x.Why, "\n  "))
		}
	})
}

func (s *suite) startedFinished(t *testing.T) {
	order := s.CreateOrder(t, "40")
	_, cursor := s.changes(t, s.c, "")
	s.settle(t, s.state(order, object.FloorStarted))
	s.holds(t, order, Effects{State: object.OrderInProgress}) // and nothing was consumed by it
	s.settle(t, s.state(order, object.FloorStarted))
	s.settle(t, s.consumption(order, "7.5", object.Issue))
	s.settle(t, s.confirmation(order, "3", "1"))
	seen, cursor := s.changes(t, s.c, cursor)
	if got := seen[order]; got.State != object.OrderInProgress || !got.Quantity.Value.Equal(dec("40")) {
		t.Errorf("a started order is listed as %s of %s, want IN_PROGRESS of 40", got.State, got.Quantity.Value)
	} else {
		got.State = object.OrderReleased // its content must not change because the floor works on it
		s.isReleased(t, got, order, "40")
	}
	s.settle(t, s.state(order, object.FloorFinished))
	s.settle(t, s.state(order, object.FloorFinished))
	s.holds(t, order, Effects{Yield: dec("3"), Scrap: dec("1"), Issued: dec("7.5"), State: object.OrderCompleted})
	seen, _ = s.changes(t, s.c, cursor)
	if got := seen[order].State; got != object.OrderCompleted {
		t.Errorf("a finished order is listed as %q", got)
	}
	s.refuse(t, s.confirmation(order, "1", "0"), connector.Correctable, order)
	s.settle(t, s.state(s.CreateOrder(t, "2"), object.FloorFinished)) // finished without a word before it
}

func (s *suite) cancelled(t *testing.T) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.state(order, object.FloorCancelled))
	s.settle(t, s.state(order, object.FloorCancelled))
	s.holds(t, order, Effects{State: object.OrderCancelled})
	if s.states(object.FloorStarted) {
		s.refuse(t, s.state(order, object.FloorStarted), connector.Correctable, order)
		started := s.CreateOrder(t, "40")
		s.settle(t, s.state(started, object.FloorStarted))
		s.settle(t, s.state(started, object.FloorCancelled))
		s.holds(t, started, Effects{State: object.OrderCancelled})
	}
}

func (s *suite) cancelledTooLate(t *testing.T) {
	order := s.CreateOrder(t, "40")
	s.settle(t, s.confirmation(order, "3", "1"))
	s.refuse(t, s.state(order, object.FloorCancelled), connector.Correctable, order)
	s.holds(t, order, Effects{Yield: dec("3"), Scrap: dec("1"), State: object.OrderInProgress})
}

func (s *suite) inventory(t *testing.T) {
	reader := s.c.(connector.StockReader)
	held := func() decimal.Decimal {
		t.Helper()
		balances, err := reader.Inventory(t.Context(), []string{s.Component})
		if err != nil || len(balances) == 0 {
			t.Fatalf("inventory of %q: %+v, %v", s.Component, balances, err)
		}
		sum := decimal.Zero
		for _, b := range balances {
			if b.Item != s.Component || b.OnHand.Unit != s.ComponentUnit || b.AsOf.IsZero() {
				t.Errorf("balance is %+v, want item %q in %s and an instant", b, s.Component, s.ComponentUnit)
			}
			sum = sum.Add(b.OnHand.Value)
		}
		return sum
	}
	before := held()
	order := s.CreateOrder(t, "4")
	s.settle(t, s.consumption(order, "2.5", object.Issue))
	s.settle(t, s.consumption(order, "0.5", object.Return))
	if after := held(); !before.Sub(after).Equal(dec("2")) {
		t.Errorf("after 2.5 issued and 0.5 returned the stock went from %s to %s", before, after)
	}
	if all, err := reader.Inventory(t.Context(), nil); err != nil || len(all) < 2 {
		t.Errorf("inventory of everything: %d balances, %v", len(all), err)
	}
}

// lossy posts on several orders while replies and requests get lost at random, and then counts.
func (s *suite) lossy(t *testing.T) {
	seed := time.Now().UnixNano()
	if text := os.Getenv("CONNECTORTEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseInt(text, 10, 64); err != nil {
			t.Fatalf("read CONNECTORTEST_SEED %q: %v", text, err)
		}
	}
	postings := s.LossyPostings
	if postings == 0 {
		postings = 100
	}
	t.Logf("CONNECTORTEST_SEED=%d", seed)
	const lines = 4
	var orders [lines]string
	var want [lines]Effects
	for i := range orders {
		orders[i] = s.CreateOrder(t, "400")
	}
	s.Faults.Lossy(seed, 0.10, 0.02)
	defer s.Faults.Lossy(seed, 0, 0)
	var wg sync.WaitGroup
	var mu sync.Mutex
	attempts, lookups := 0, 0
	for i, order := range orders {
		wg.Go(func() {
			random := rand.New(rand.NewSource(seed + int64(i)))
			for range (postings + lines - 1) / lines {
				p := s.randomPosting(random, order)
				x := Drive(t.Context(), s.c, p, patience)
				if x.End != Settled {
					t.Errorf("posting on order %s ended %s:\n  %s", order, x.End, strings.Join(x.Why, "\n  "))
					return
				}
				want[i].sum(p)
				want[i].Documents++ // randomPosting makes one effect on stock
				mu.Lock()
				attempts, lookups = attempts+x.Attempts, lookups+x.Lookups
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	s.Faults.Lossy(seed, 0, 0)
	for i, order := range orders {
		want[i].State = object.OrderInProgress
		s.holds(t, order, want[i])
	}
	t.Logf("%d postings took %d attempts and %d look-ups", postings, attempts, lookups)
}

// randomPosting has one effect on stock only, so that documents can be counted on any system.
func (s *suite) randomPosting(r *rand.Rand, order string) connector.Posting {
	switch r.Intn(5) {
	case 0:
		return s.confirmation(order, "0", strconv.Itoa(1+r.Intn(3)))
	case 1:
		return s.consumption(order, fmt.Sprintf("%d.%02d", r.Intn(3), 1+r.Intn(99)), object.Issue)
	case 2:
		return s.consumption(order, fmt.Sprintf("0.%02d", 1+r.Intn(99)), object.Return)
	}
	return s.confirmation(order, strconv.Itoa(1+r.Intn(9)), "0")
}

func dec(text string) decimal.Decimal { return decimal.RequireFromString(text) }
