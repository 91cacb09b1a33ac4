package s4_test

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

const patience = 20 * time.Second

func posting(order string) connector.Posting {
	now := time.Now().UTC()
	return connector.Posting{Attempt: 1, Order: object.WorkOrder{OrderNo: order}, PostingDate: time.Date(now.Year(), now.Month(), now.Day(), 0, 0, 0, 0, time.UTC),
		Fact: object.Fact{Key: factkey.Random(), OccurredAt: now, RecordedAt: now, TimeZone: "Europe/Berlin"}}
}

func confirmation(order, yield, scrap string) connector.Posting {
	p := posting(order)
	p.Fact.Kind = object.KindConfirmation
	p.Fact.Confirmation = &object.Confirmation{OrderNo: order, Item: maker, Unit: "C62", Yield: d(yield), Scrap: d(scrap)}
	return p
}

func consumption(order, quantity string, m object.Movement) connector.Posting {
	p := posting(order)
	p.Fact.Kind = object.KindConsumption
	p.Fact.Consumption = &object.Consumption{OrderNo: order, Item: taken, Movement: m, Quantity: object.Quantity{Value: d(quantity), Unit: "KGM"}}
	return p
}

func finished(order string) connector.Posting {
	p := posting(order)
	p.Fact.Kind = object.KindOrderState
	p.Fact.OrderState = &object.ShopFloorState{OrderNo: order, State: object.FloorFinished}
	return p
}

func settled(t *testing.T, c connector.Connector, p connector.Posting) connectortest.Settlement {
	t.Helper()
	x := connectortest.Drive(t.Context(), c, p, patience)
	if x.End != connectortest.Settled {
		t.Fatalf("posting ended %s:\n  %s", x.End, strings.Join(x.Why, "\n  "))
	}
	return x
}

// ends drives a posting and wants it to end so, with these words in its last step.
func ends(t *testing.T, c connector.Connector, p connector.Posting, end connectortest.End, words ...string) connectortest.Settlement {
	t.Helper()
	x := connectortest.Drive(t.Context(), c, p, patience)
	last := ""
	if len(x.Why) > 0 {
		last = x.Why[len(x.Why)-1]
	}
	if x.End != end {
		t.Fatalf("posting ended %s, want %s:\n  %s", x.End, end, strings.Join(x.Why, "\n  "))
	}
	for _, w := range words {
		if !strings.Contains(last, w) {
			t.Errorf("last step is %q, want it to name %q", last, w)
		}
	}
	return x
}

// A receipt that is a document of its own can be lost between the two: it is finished by itself where that cannot double it,
// and shown to a person where it could.
func TestHalfDonePostingIsFinishedOrShown(t *testing.T) {
	t.Parallel()
	for _, repeats := range []bool{true, false} {
		b := newBench(t, s4double.Traps{NoRepeats: !repeats})
		c := b.connect(t, func(c *s4.Config) { c.Movements = "separate" })
		order := b.order(t, "40")
		b.proxy.Watch(func(body []byte) {
			if bytes.Contains(body, []byte("GoodsMovementCode")) {
				b.proxy.Watch(nil)
				b.proxy.Arm(connectortest.LoseRequest, 1)
			}
		})
		p := confirmation(order, "12", "1")
		if repeats {
			settled(t, c, p)
		} else {
			ends(t, c, p, connectortest.Undecided, "verify", "101", maker)
		}
		x := b.Totals(order)
		if want := map[bool]string{true: "12", false: "0"}[repeats]; !x.Yield.Equal(d("12")) || !x.Received.Equal(d(want)) || x.Confirmations != 1 {
			t.Errorf("repeatable %t: %s confirmed in %d confirmations, %s received; want 12 in 1 and %s", repeats, x.Yield, x.Confirmations, x.Received, want)
		}
	}
}

// SAP refuses completion by a message inside of a success while a goods movement has failed.
func TestCompletionIsRefusedWhileAMovementFailed(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t), b.order(t, "40")
	end := b.set(func(t *s4double.Traps) { t.MovementsFail = true })
	ends(t, c, confirmation(order, "12", "0"), connectortest.Undecided, "COGI", maker)
	end()
	x := ends(t, c, finished(order), connectortest.Refused, "CO/688", order)
	if x.Outcome.Class != connector.Correctable || !strings.Contains(x.Outcome.NextStep, "COGI") {
		t.Errorf("refusal is %+v", x.Outcome)
	}
	if n := b.Reprocess(); n != 0 {
		t.Fatalf("%d movements still fail", n)
	}
	settled(t, c, finished(order))
	settled(t, c, finished(order)) // again is the same
	if o, err := c.Get(t.Context(), order); err != nil || o.State != object.OrderCompleted {
		t.Errorf("the order is %s, %v", o.State, err)
	}
}

func TestNothingIsPostedWhileTheSearchIsRefused(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{NoKeySearch: true})
	c, order := b.connect(t), b.order(t, "40")
	for _, p := range []connector.Posting{confirmation(order, "1", "0"), consumption(order, "1", object.Issue)} {
		if _, early, err := c.Prepare(t.Context(), p); err == nil || early != nil {
			t.Errorf("prepare gives %+v, %v; want an error", early, err)
		}
	}
	if x := b.Totals(order); x.Confirmations+x.Documents > 0 {
		t.Errorf("the order holds %+v", x)
	}
}

// An outdated RequestID means that it was processed: it is searched for, and not sent again.
func TestOutdatedRequestIsLookedUp(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{KeepAnswers: time.Nanosecond})
	c, order := b.connect(t), b.order(t, "40")
	p := confirmation(order, "12", "0")
	intent, early, err := c.Prepare(t.Context(), p)
	if err != nil || early != nil {
		t.Fatalf("prepare: %+v, %v", early, err)
	}
	if out := c.Post(t.Context(), p, intent); out.Result != connector.Posted {
		t.Fatalf("first post: %+v", out)
	}
	if out := c.Post(t.Context(), p, intent); out.Result != connector.InDoubt {
		t.Errorf("the second post is told %+v, want in doubt", out)
	}
	if f, err := c.Lookup(t.Context(), p, intent); err != nil || f.Presence != connector.Found {
		t.Errorf("look-up gives %+v, %v", f, err)
	}
	if x := b.Totals(order); x.Confirmations != 1 {
		t.Errorf("the order holds %d confirmations", x.Confirmations)
	}
}

func TestSystemThatDoesNotAcceptRequestIDsIsNotTrustedWithThem(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{NoRepeats: true})
	c := b.connect(t, func(c *s4.Config) { c.Repeatable = true })
	if !c.Capabilities().CompareAndSet {
		t.Error("a configured system is not trusted from the start")
	}
	settled(t, c, confirmation(b.order(t, "40"), "1", "0"))
	if c.Capabilities().CompareAndSet {
		t.Error("a system that answered \"unsupported\" is still trusted")
	}
}

// Where no request can be sent again and nobody says how long one lives, a person decides.
func TestLostRequestIsLeftToAPersonWhenAskedFor(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{NoRepeats: true})
	c, order := b.connect(t, func(c *s4.Config) { c.AbsentAfter = -time.Second }), b.order(t, "40")
	b.proxy.Watch(func(body []byte) {
		if bytes.Contains(body, []byte("OrderOperation")) {
			b.proxy.Arm(connectortest.LoseRequest, 1)
		}
	})
	ends(t, c, confirmation(order, "1", "0"), connectortest.Undecided, "by hand")
}

// Where SAP moves stock, a component that it could not take is named, and the plant may not take it a second time.
func TestBackflushIsOwnedByOneSide(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c := b.connect(t, func(c *s4.Config) { c.Movements = "sap" })
	order := b.order(t, "40")
	b.change(t, order, func(o *s4double.Order) { o.Components[0].Backflush = true })
	settled(t, c, confirmation(order, "8", "0"))
	if x := b.Totals(order); !x.Issued[taken].Equal(d("1")) || !x.Received.Equal(d("8")) {
		t.Errorf("SAP took %s and received %s, want 1 and 8", x.Issued[taken], x.Received)
	}
	ends(t, c, consumption(order, "1", object.Issue), connectortest.Refused, "BACKFLUSHED", taken, order)
	b.PutStock(taken, plant, place, d("0.5"))
	ends(t, c, confirmation(order, "8", "0"), connectortest.Undecided, "COGI", taken)
	b.PutStock(taken, plant, place, d("100"))
	b.Reprocess()

	explicit := b.connect(t)
	other := b.order(t, "40")
	b.change(t, other, func(o *s4double.Order) { o.Components[0].Backflush = true })
	settled(t, explicit, confirmation(other, "8", "0"))
	settled(t, explicit, confirmation(other, "0", "2"))
	settled(t, explicit, consumption(other, "1.25", object.Issue))
	if x := b.Totals(other); !x.Issued[taken].Equal(d("1.25")) {
		t.Errorf("the plant owns the consumption, and SAP took %s, want 1.25", x.Issued[taken])
	}
}

// A system that takes the component all the same, beside what the confirmation brings, is seen before the plant takes it too.
func TestMovementThatNobodyAskedForIsSeen(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{AlwaysBackflush: true})
	c, order := b.connect(t), b.order(t, "40")
	b.change(t, order, func(o *s4double.Order) { o.Components[0].Backflush = true })
	ends(t, c, confirmation(order, "8", "0"), connectortest.Undecided, "also has movement 261", taken)
}

func TestTwoDocumentsUnderOneKeyAreSeen(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{NoRepeats: true})
	c, order := b.connect(t), b.order(t, "40")
	for _, p := range []connector.Posting{confirmation(order, "8", "0"), consumption(order, "1", object.Issue)} {
		intent, early, err := c.Prepare(t.Context(), p)
		if err != nil || early != nil {
			t.Fatalf("prepare: %+v, %v", early, err)
		}
		first := c.Post(t.Context(), p, intent)
		second := c.Post(t.Context(), p, intent)
		if first.Result != connector.Posted || second.Result != connector.Posted {
			t.Fatalf("posts: %+v, %+v", first, second)
		}
		for _, doc := range []connector.Document{first.Document, second.Document, {}} {
			v, err := c.Verify(t.Context(), p, intent, doc)
			if err != nil || v.Matches || v.NotYet || !strings.Contains(v.Difference, "2 ") {
				t.Errorf("document %q is verified as %+v, %v", doc.Number, v, err)
			}
		}
	}
}

// SAP's own error 500 says nothing of the effect.
func TestErrorAfterTheCommitIsInDoubt(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{DumpAfter: true})
	c, order := b.connect(t), b.order(t, "40")
	x := settled(t, c, confirmation(order, "8", "0"))
	if got := b.Totals(order); got.Confirmations != 1 || x.Attempts != 1 || x.Lookups == 0 {
		t.Errorf("%d confirmations after %d attempts and %d look-ups", got.Confirmations, x.Attempts, x.Lookups)
	}
}

// A closed period may stop the goods movement only: the confirmation is there, the difference is named.
func TestPeriodThatStopsOnlyTheMovementIsSeen(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{PeriodFailsMovements: true})
	c, order := b.connect(t), b.order(t, "40")
	b.SetPeriod(time.Now().UTC().Format("2006-01"), false)
	ends(t, c, confirmation(order, "12", "0"), connectortest.Undecided, "movement 101", maker)
}

func TestOnlyTheLastOperationReceivesStock(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t), b.order(t, "40")
	b.change(t, order, func(o *s4double.Order) { o.Operations[0].Number = "0010" })
	two := b.CreateOrder(s4double.Order{Material: maker, Plant: plant, StorageLocation: place, Quantity: d("40"), Released: true, AutomaticReceipt: true,
		Operations: []s4double.Operation{{Number: "0010"}, {Number: "0020"}}})
	ends(t, c, confirmation(two, "5", "0"), connectortest.Refused, "OPERATION", two)
	for _, operation := range []string{"0010", "20"} {
		p := confirmation(two, "5", "0")
		p.Fact.Confirmation.Operation = operation
		settled(t, c, p)
	}
	p := confirmation(two, "5", "0")
	p.Fact.Confirmation.Operation = "0030"
	ends(t, c, p, connectortest.Refused, "OPERATION", "0030")
	if x := b.Totals(two); !x.Received.Equal(d("5")) || x.Confirmations != 2 {
		t.Errorf("the order received %s by %d confirmations, want 5 by 2", x.Received, x.Confirmations)
	}
}

// A return opens the reservation again, and what a fact took is taken back into the same one.
func TestReturnAndReversalOpenTheReservation(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t), b.order(t, "40")
	withdrawn := func(want string) {
		t.Helper()
		if got := b.Withdrawn(order, taken); !got.Equal(d(want)) {
			t.Errorf("the reservation shows %s withdrawn, want %s", got, want)
		}
	}
	issue := consumption(order, "3", object.Issue)
	doc := settled(t, c, issue).Document
	settled(t, c, consumption(order, "0.5", object.Return))
	withdrawn("2.5")
	back := issue
	back.Fact.Key, back.Fact.Reverses = factkey.Random(), issue.Fact.Key
	back.Original = &connector.Original{Fact: issue.Fact, Document: doc}
	settled(t, c, back)
	withdrawn("-0.5")
	back.Fact.Key = factkey.Random()
	ends(t, c, back, connectortest.Refused, "ALREADY_REVERSED", issue.Fact.Key.String())
	withdrawn("-0.5")
}

func TestByProductIsReceivedBy531(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t), b.order(t, "40")
	b.PutMaterial(s4double.Material{Number: "SCRAP-ST", Unit: "KG", UnitISO: "KGM", Decimals: 3})
	b.change(t, order, func(o *s4double.Order) {
		o.Components = append(o.Components, s4double.Component{Item: "9", Material: "SCRAP-ST", StorageLocation: place, Operation: "0010", Required: d("-2"), MovementType: "531"})
	})
	p := consumption(order, "1.5", object.Return)
	p.Fact.Consumption.Item = "SCRAP-ST"
	settled(t, c, p)
	if got := b.StockOf("SCRAP-ST", plant, place); !got.Equal(d("1.5")) {
		t.Errorf("stock of the by-product is %s, want 1.5", got)
	}
	if w, err := c.Get(t.Context(), order); err != nil || len(w.Components) != 1 {
		t.Errorf("the by-product is listed as a component: %+v, %v", w.Components, err)
	}
}

// A request that arrives between Prepare and Post does the reversal first: SAP refuses the second, and the effect is there.
func TestReversalThatWasDoneMeanwhileIsPosted(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{NoRepeats: true})
	c, order := b.connect(t), b.order(t, "40")
	p := confirmation(order, "3", "0")
	doc := settled(t, c, p).Document
	back := p
	back.Fact.Key, back.Fact.Reverses, back.Original = factkey.Random(), p.Fact.Key, &connector.Original{Fact: p.Fact, Document: doc}
	var outs []connector.Outcome
	intent, early, err := c.Prepare(t.Context(), back)
	if err != nil || early != nil {
		t.Fatalf("prepare: %+v, %v", early, err)
	}
	for range 2 {
		outs = append(outs, c.Post(t.Context(), back, intent))
	}
	if outs[0].Result != connector.Posted || outs[1].Result != connector.Posted || outs[0].Document != outs[1].Document {
		t.Errorf("the two posts are told %+v and %+v", outs[0], outs[1])
	}
	if x := b.Totals(order); !x.Received.IsZero() || x.Confirmations != 2 {
		t.Errorf("the order holds %+v", x)
	}
}

func TestReworkAndFinalConfirmationArrive(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t), b.order(t, "40")
	p := confirmation(order, "3", "1")
	p.Fact.Confirmation.Rework, p.Fact.Confirmation.Final = d("2"), true
	p.Fact.Confirmation.StartedAt, p.Fact.Confirmation.FinishedAt = time.Now().Add(-time.Hour), time.Now()
	doc := settled(t, c, p).Document
	if o, err := c.Get(t.Context(), order); err != nil || o.State != object.OrderCompleted {
		t.Errorf("after the final confirmation the order is %s, %v", o.State, err)
	}
	p.Fact.Confirmation.Rework = d("3")
	if v, err := c.Verify(t.Context(), p, nil, doc); err != nil || v.Matches || !strings.Contains(v.Difference, "rework") {
		t.Errorf("another rework is verified as %+v, %v", v, err)
	}
	p.Fact.Confirmation.Rework = d("2")
	p.PostingDate = p.PostingDate.AddDate(0, 0, -1)
	if v, err := c.Verify(t.Context(), p, nil, doc); err != nil || v.Matches || !strings.Contains(v.Difference, "posting date") {
		t.Errorf("another posting date is verified as %+v, %v", v, err)
	}
}

func TestDocumentCancelledByHandIsSeen(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t), b.order(t, "40")
	made, used := confirmation(order, "3", "0"), consumption(order, "1", object.Issue)
	docs := []connector.Document{settled(t, c, made).Document, settled(t, c, used).Document}
	for i, p := range []connector.Posting{made, used} {
		if err := b.CancelByHand(docs[i].Number); err != nil {
			t.Fatal(err)
		}
		v, err := c.Verify(t.Context(), p, nil, docs[i])
		if err != nil || v.Matches || !strings.Contains(v.Difference, "cancelled in SAP") {
			t.Errorf("%s is verified as %+v, %v", docs[i].Number, v, err)
		}
		back := p
		back.Fact.Key, back.Fact.Reverses, back.Original = factkey.Random(), p.Fact.Key, &connector.Original{Fact: p.Fact, Document: docs[i]}
		ends(t, c, back, connectortest.Refused, "ALREADY_REVERSED", p.Fact.Key.String())
	}
}

func TestFactsThatSAPHasNoPlaceForAreRefusedByName(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c := b.connect(t, func(c *s4.Config) { c.ScrapReasons = map[string]string{"jam": "0001"} })
	order := b.order(t, "40")
	for name, test := range map[string]struct {
		change func(*object.Confirmation)
		words  []string
	}{
		"too many decimals": {func(f *object.Confirmation) { f.Yield = d("1.2345") }, []string{"QUANTITY_SCALE", maker}},
		"too many digits":   {func(f *object.Confirmation) { f.Scrap = d("10000000000") }, []string{"QUANTITY_SCALE", "Scrap"}},
		"long lot":          {func(f *object.Confirmation) { f.Lot = "12345678901" }, []string{"TOO_LONG", "12345678901"}},
		"other item":        {func(f *object.Confirmation) { f.Item = "OTHER" }, []string{"ITEM", "OTHER"}},
		"unknown reason":    {func(f *object.Confirmation) { f.ScrapReason = "flood" }, []string{"SCRAP_REASON", "flood"}},
		"unknown unit":      {func(f *object.Confirmation) { f.Unit = "KGM" }, []string{"UNIT", "KGM"}},
	} {
		p := confirmation(order, "1", "1")
		test.change(p.Fact.Confirmation)
		t.Run(name, func(t *testing.T) { ends(t, c, p, connectortest.Refused, test.words...) })
	}
	if x := b.Totals(order); x.Confirmations > 0 {
		t.Errorf("%d confirmations were made", x.Confirmations)
	}
	p := confirmation(order, "1", "1")
	p.Fact.Confirmation.ScrapReason, p.Fact.Confirmation.Final = "jam", true
	settled(t, c, p)
	if o, err := c.Get(t.Context(), order); err != nil || o.State != object.OrderCompleted {
		t.Errorf("after the final confirmation the order is %s, %v", o.State, err)
	}
}

// A wrong password is an error that names the next step and never the password.
func TestWrongPasswordIsSaidWithoutIt(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t, func(c *s4.Config) { c.Password = "hunter2" }), b.order(t, "1")
	_, _, err := c.Prepare(context.WithoutCancel(t.Context()), confirmation(order, "1", "0"))
	if err == nil || !strings.Contains(err.Error(), "password") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("error is %v", err)
	}
}
