package posting

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/shopspring/decimal"
)

func consume(order string, n int, item, quantity string) object.Fact {
	f := base(object.KindConsumption, "consumption", order, item, fmt.Sprintf("%06d", n))
	f.Consumption = &object.Consumption{OrderNo: order, Operation: "0010", Item: item, Movement: object.Issue, Quantity: object.Quantity{Value: decimal.RequireFromString(quantity), Unit: "KGM"}}
	return f
}

func TestConsumptionIsPostedByOneOwnerOnly(t *testing.T) {
	const never, marks = connector.BackflushNever, connector.BackflushMarked
	mes := []Policy{{ERP: "other", Backflush: OwnerERP}, {ERP: "erp", Plant: "ulm", Items: []string{"OIL"}, Backflush: OwnerMES}}
	erp := []Policy{{Items: []string{"OIL"}, Backflush: OwnerERP}}
	for _, x := range []struct {
		policies []Policy
		item     string
		marked   bool
		takes    connector.Backflush
		want     Owner
	}{
		{nil, "OIL", false, marks, OwnerByOrder},
		{nil, "OIL", true, marks, OwnerERP},
		{nil, "OIL", true, "", OwnerERP},
		{nil, "OIL", true, never, OwnerByOrder},
		{mes, "OIL", true, marks, OwnerMES},
		{mes, "STEEL", true, marks, OwnerERP},
		{erp, "OIL", false, marks, OwnerERP},
		{erp, "STEEL", false, marks, OwnerByOrder},
	} {
		if got := BackflushOwner(x.policies, "erp", "ulm", x.item, x.marked, x.takes); got != x.want {
			t.Errorf("%+v: %q", x, got)
		}
	}
}

func TestConsumptionThatTheSystemBackflushesIsNotPostedAndSaysWhoOwnsIt(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.put(store.Order{Agent: "edge1", Order: object.WorkOrder{OrderNo: "WO-1", ERP: "erp", Plant: "ulm", Revision: 1, State: object.OrderReleased,
			Components: []object.Component{{Item: "OIL", Operation: "0010", Backflush: true}, {Item: "STEEL", Operation: "0010"}}}})
		w.start()
		oil, steel := consume("WO-1", 1, "OIL", "2"), consume("WO-1", 1, "STEEL", "3")
		undo := reversal(oil, "undo")
		w.deliver(oil, steel, undo)
		w.pass(time.Minute)
		if p := w.want(oil, store.PostingNotPosted, CodeBackflushed); !strings.Contains(p.Reason, `"erp" takes item "OIL"`) {
			t.Errorf("reason %q", p.Reason)
		}
		w.want(steel, store.PostingVerified, "")
		w.want(undo, store.PostingNotPosted, CodeNothingToReverse)
		if sum := w.erp.consumed("WO-1"); sum.String() != "3" {
			t.Errorf("the outside system got %s, want the 3 that it does not take by itself", sum)
		}
	})
}

func at(z *time.Location, text string) time.Time {
	t, err := time.ParseInLocation("2006-01-02 15:04", text, z)
	if err != nil {
		panic(err)
	}
	return t
}

func TestDateForTheBooks(t *testing.T) {
	newYork, err := time.LoadLocation("America/New_York")
	if err != nil {
		t.Fatal(err)
	}
	rule := &Closing{Day: 3, Hour: 18}
	for name, x := range map[string]struct {
		zone               *time.Location
		rule               *Closing
		learned            string
		happened, received string
		now                string
		shiftDate          string
		suspect            bool
		late               Late
		doubtful           Doubtful
		want, hold         string
	}{
		"in an open month":                       {happened: "2026-10-31 23:59", now: "2026-11-01 00:00", want: "2026-10-31"},
		"a minute before the closing":            {happened: "2026-10-31 12:00", now: "2026-11-03 17:59", want: "2026-10-31"},
		"at the closing":                         {happened: "2026-10-31 12:00", now: "2026-11-03 18:00", want: "2026-11-01"},
		"two months late":                        {happened: "2026-09-02 12:00", now: "2026-11-10 12:00", want: "2026-11-01"},
		"two months late, last month still open": {happened: "2026-09-02 12:00", now: "2026-11-02 12:00", want: "2026-10-01"},
		"over the turn of the year":              {happened: "2025-12-31 23:30", now: "2026-01-04 12:00", want: "2026-01-01"},
		"night shift of the day before":          {happened: "2026-11-01 03:00", shiftDate: "2026-10-31", now: "2026-11-03 19:00", want: "2026-11-01"},
		"night shift, not closed":                {happened: "2026-11-01 03:00", shiftDate: "2026-10-31", now: "2026-11-03 17:00", want: "2026-10-31"},
		"no rule":                                {rule: &Closing{}, happened: "2020-01-01 12:00", now: "2026-11-10 12:00", want: "2020-01-01"},
		"learned":                                {rule: &Closing{}, learned: "2026-10", happened: "2026-10-20 12:00", now: "2026-11-02 12:00", want: "2026-11-01"},
		"learned for the present month":          {rule: &Closing{}, learned: "2026-11", happened: "2026-11-02 12:00", now: "2026-11-02 13:00", want: "2026-11-02"},
		"own date by policy":                     {late: LateEventDate, happened: "2026-10-20 12:00", now: "2026-11-10 12:00", want: "2026-10-20"},
		"held":                                   {late: LateHold, happened: "2026-10-20 12:00", now: "2026-11-10 12:00", want: "2026-10-20", hold: CodeLate},
		"not held in an open month":              {late: LateHold, happened: "2026-11-05 12:00", now: "2026-11-10 12:00", want: "2026-11-05"},
		// 2026-03-29 02:00 to 03:00 does not exist in Berlin, 2026-10-25 02:00 to 03:00 is there twice.
		"closing in the hour that is left out":      {rule: &Closing{Day: 29, Hour: 2, Minute: 30}, happened: "2026-02-10 12:00", now: "2026-03-29 03:29", want: "2026-02-10"},
		"after the hour that is left out":           {rule: &Closing{Day: 29, Hour: 2, Minute: 30}, happened: "2026-02-10 12:00", now: "2026-03-29 03:31", want: "2026-03-01"},
		"before midnight on the day clocks go on":   {happened: "2026-03-29 23:59", now: "2026-03-30 01:00", want: "2026-03-29"},
		"before midnight on the day clocks go back": {happened: "2026-10-25 23:59", now: "2026-10-26 01:00", want: "2026-10-25"},
		"after midnight on the day clocks go back":  {happened: "2026-10-25 00:01", now: "2026-10-26 01:00", want: "2026-10-25"},
		"the last day of a short month":             {rule: &Closing{Day: 31, Hour: 12}, happened: "2026-01-10 12:00", now: "2026-02-28 12:00", want: "2026-02-01"},
		"a minute before it":                        {rule: &Closing{Day: 31, Hour: 12}, happened: "2026-01-10 12:00", now: "2026-02-28 11:59", want: "2026-01-10"},
		"another zone, still the day before":        {zone: newYork, happened: "2026-10-31 23:30", now: "2026-11-03 17:59", want: "2026-10-31"},
		"another zone, at the closing":              {zone: newYork, happened: "2026-10-31 23:30", now: "2026-11-03 18:00", want: "2026-11-01"},
		"doubtful, in the same month":               {suspect: true, happened: "2026-11-01 12:00", received: "2026-11-08 12:00", now: "2026-11-08 13:00", want: "2026-11-01"},
		"doubtful, in another month":                {suspect: true, happened: "2026-10-31 12:00", received: "2026-11-01 00:10", now: "2026-11-01 00:20", want: "2026-11-01"},
		"doubtful, far ahead":                       {suspect: true, happened: "2031-01-01 12:00", received: "2026-11-01 00:10", now: "2026-11-01 00:20", want: "2026-11-01"},
		"doubtful and held":                         {suspect: true, doubtful: DoubtfulHold, happened: "2026-10-31 12:00", received: "2026-11-01 00:10", now: "2026-11-01 00:20", want: "2026-10-31", hold: CodeDoubtfulClock},
		"doubtful and believed":                     {suspect: true, doubtful: DoubtfulEventDate, happened: "2026-10-31 12:00", received: "2026-11-01 00:10", now: "2026-11-01 00:20", want: "2026-10-31"},
		"doubtful, received in a closed month":      {suspect: true, happened: "1999-10-31 12:00", received: "2026-10-30 12:00", now: "2026-11-05 12:00", want: "2026-11-01"},
		"doubtful, received in a month that is held": {suspect: true, late: LateHold, happened: "1999-10-31 12:00", received: "2026-10-30 12:00", now: "2026-11-05 12:00", want: "1999-10-31",
			hold: CodeLate},
	} {
		t.Run(name, func(t *testing.T) {
			zone := x.zone
			if zone == nil {
				zone = berlin
			}
			f := confirm("WO-1", 1, "5")
			f.OccurredAt, f.PostingDate, f.ClockSuspect = at(zone, x.happened), x.shiftDate, x.suspect
			c := calendar{now: at(zone, x.now).UTC(), zone: zone, rule: rule, learned: x.learned}
			if x.rule != nil {
				c.rule = x.rule
			}
			if *c.rule == (Closing{}) {
				c.rule = nil
			}
			received := x.received
			if received == "" {
				received = x.now
			}
			late, doubtful := x.late, x.doubtful
			if late == "" {
				late = LateFirstOpenDay
			}
			if doubtful == "" {
				doubtful = DoubtfulReceivedDate
			}
			d := c.date(f, at(zone, received).UTC(), late, doubtful)
			if got := d.date.Format(time.DateOnly); got != x.want || d.hold != x.hold {
				t.Errorf("date %s, held %q (%s); want %s, %q", got, d.hold, d.reason, x.want, x.hold)
			}
			if d.hold != "" && d.reason == "" {
				t.Error("held without a reason")
			}
		})
	}
}

// books is a system whose months are closed up to one, and which remembers the dates.
type books struct {
	*modelERP
	closed string
	dates  map[string]string
	asked  int
}

func (b *books) Post(ctx context.Context, p connector.Posting, intent []byte) connector.Outcome {
	b.mu.Lock()
	b.asked++
	closed := p.PostingDate.Format(monthFormat) <= b.closed
	b.mu.Unlock()
	if closed {
		return connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: "M7/053", Reason: "period is closed", NextStep: "open it"}
	}
	out := b.modelERP.Post(ctx, p, intent)
	b.mu.Lock()
	b.dates[p.Fact.Key.String()] = p.PostingDate.Format(time.DateOnly)
	if !p.EventDate.IsZero() {
		b.dates[p.Fact.Key.String()] += " for " + p.EventDate.Format(time.DateOnly)
	}
	b.mu.Unlock()
	return out
}

// The world's clock begins at midnight UTC of 2000-01-01, and its facts are of 1999-12-31 in Berlin.
func TestClosedPeriodIsLearnedFromTheRefusalAndTheFactMoves(t *testing.T) {
	for name, x := range map[string]struct {
		closed, state, date string
		policy              Policy
	}{
		"moves":               {"1999-12", "verified", "2000-01-01 for 1999-12-31", Policy{Late: LateFirstOpenDay}},
		"stays without":       {"1999-12", "parked", "", Policy{}},
		"held":                {"1999-12", "parked", "", Policy{Late: LateHold}},
		"nothing open at all": {"2000-01", "parked", "", Policy{Late: LateFirstOpenDay}},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				b := &books{w.erp, x.closed, map[string]string{}, 0}
				w.opts.Connectors["erp"] = b
				w.opts.Policies = []Policy{x.policy}
				w.order("WO-1")
				w.start()
				f, g := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7")
				w.deliver(f, g)
				w.pass(10 * time.Minute)
				for _, f := range []object.Fact{f, g} {
					if p := w.posting(f); string(p.State) != x.state || b.dates[f.Key.String()] != x.date {
						t.Errorf("posting %+v, date %q", p, b.dates[f.Key.String()])
					}
				}
				if b.asked > 4 {
					t.Errorf("asked %d times", b.asked)
				}
				if x.state == "verified" && b.asked != 3 {
					t.Errorf("asked %d times: what was learned from the first counts for the second", b.asked)
				}
			})
		})
	}
}

func TestHeldFactIsPostedOnTheDateThatAPersonApproves(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		b := &books{w.erp, "", map[string]string{}, 0}
		w.opts.Connectors["erp"] = b
		w.opts.Policies = []Policy{{Late: LateHold, Closing: &Closing{Day: 1, Hour: 0}}}
		w.opts.Zones = map[string]*time.Location{"ulm": berlin}
		w.order("WO-1")
		w.start()
		f, g, next := confirm("WO-1", 1, "5"), confirm("WO-1", 2, "7"), confirm("WO-1", 3, "1")
		next.PostingDate = "2000-01-01"
		w.deliver(f, g, next)
		w.pass(time.Minute)
		if p := w.want(f, store.PostingParked, CodeLate); p.Reason == "" || p.NextStep == "" {
			t.Errorf("held without words: %+v", p)
		}
		w.want(next, store.PostingVerified, "")
		ctx := context.Background()
		if err := w.e.ReplayFact(ctx, f.Key.String(), "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(f, store.PostingParked, CodeLate) // a replay approves nothing
		if err := w.e.Approve(ctx, f.Key.String(), "tomorrow", "year end", "anna"); !errors.Is(err, ErrNotHeld) {
			t.Errorf("a date that is none: %v", err)
		}
		if err := w.e.Approve(ctx, f.Key.String(), "2000-01-02", "year end", "anna"); err != nil {
			t.Fatal(err)
		}
		if err := w.e.Approve(ctx, g.Key.String(), "", "the books are open again", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(f, store.PostingVerified, "")
		w.want(g, store.PostingVerified, "")
		if d := b.dates[f.Key.String()]; d != "2000-01-02 for 1999-12-31" {
			t.Errorf("posted on %s", d)
		}
		if d := b.dates[g.Key.String()]; d != "1999-12-31" {
			t.Errorf("posted on %s", d)
		}
		if err := w.e.Approve(ctx, f.Key.String(), "", "again", "anna"); !errors.Is(err, ErrNotParked) {
			t.Errorf("a second approval: %v", err)
		}
	})
}

func TestMoreThanOrderedIsStoppedAndAPersonDecides(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		five := decimal.NewFromInt(5)
		w.opts.Policies = []Policy{{Delivery: DeliveryStop, Tolerance: &five}}
		order := func(quantity int64, revision int64) {
			w.put(store.Order{Agent: "edge1", Order: object.WorkOrder{OrderNo: "WO-1", ERP: "erp", Plant: "ulm", Revision: revision, Item: "P", State: object.OrderReleased,
				Quantity: object.Quantity{Value: decimal.NewFromInt(quantity), Unit: "C62"}}})
		}
		order(100, 1)
		w.start()
		first, exact, over, reject, scrap := confirm("WO-1", 1, "60"), confirm("WO-1", 2, "45"), confirm("WO-1", 3, "1"), confirm("WO-1", 4, "2"), confirm("WO-1", 5, "0")
		scrap.Confirmation.Scrap = decimal.NewFromInt(7)
		other := confirm("WO-1", 6, "100")
		other.Confirmation.Operation = "0020"
		w.deliver(first, exact, over, reject, scrap, other)
		w.pass(time.Minute)
		for _, f := range []object.Fact{first, exact, scrap, other} {
			w.want(f, store.PostingVerified, "")
		}
		if p := w.want(over, store.PostingParked, CodeOverDelivery); !strings.Contains(p.Reason, "ordered are 100, and 5 percent more are allowed") {
			t.Errorf("reason %q", p.Reason)
		}
		w.want(reject, store.PostingParked, CodeOverDelivery)
		ctx := context.Background()
		if err := w.e.Accept(ctx, reject.Key.String(), "", "melted down", "anna"); err != nil {
			t.Fatal(err)
		}
		order(101, 2)
		if err := w.e.ReplayFact(ctx, over.Key.String(), "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(over, store.PostingVerified, "") // 106 of 101 and 5 percent
		undo, more := reversal(first, "undo"), confirm("WO-1", 7, "60")
		w.deliver(undo, more)
		w.pass(time.Minute)
		w.want(more, store.PostingVerified, "") // what was taken back makes room
		last := confirm("WO-1", 8, "1")
		w.deliver(last)
		w.pass(time.Minute)
		w.want(last, store.PostingParked, CodeOverDelivery)
		if err := w.e.Approve(ctx, last.Key.String(), "", "the customer takes it", "anna"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.want(last, store.PostingVerified, "")
	})
}

func TestWhatRoundingLeavesIsCarriedOverARestartTakenBackAndNamedAtTheEnd(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.scale = 1
		w.order("WO-1")
		w.start()
		half, even := confirm("WO-1", 1, "0.25"), confirm("WO-1", 2, "0.3") // 0.2 rest 0.05; 0.35 is 0.4 rest -0.05
		w.deliver(half)
		w.pass(time.Minute)
		w.stop()
		w.s.Close()
		w.open()
		w.start()
		w.deliver(even)
		w.pass(time.Minute)
		for f, want := range map[*object.Fact]string{&half: "0.2", &even: "0.4"} {
			if got := w.posting(*f).Amounts.Yield.String(); got != want {
				t.Errorf("fact %s is posted as %s, want %s", f.Position, got, want)
			}
		}
		other := confirm("WO-1", 3, "1.04") // of another item: its rest is its own
		other.Confirmation.Item = "Q"
		w.deliver(other, reversal(half, "undo"), confirm("WO-1", 4, "0.13"), state("WO-1", object.FloorFinished))
		w.pass(10 * time.Minute)
		w.want(state("WO-1", object.FloorFinished), store.PostingVerified, "")
		_, _, steps, err := w.s.OrderTimeline(context.Background(), "", "WO-1")
		if err != nil {
			t.Fatal(err)
		}
		var left []string
		for _, s := range steps {
			if s.Step == "never posted" {
				left = append(left, strings.SplitN(s.Reason, ":", 2)[0])
			}
		}
		// 0.25 + 0.3 - 0.25 + 0.13 = 0.43 of P, of which 0.4 are posted.
		if got := strings.Join(left, "; "); got != `0.03 C62 yield of item "P" at operation "0010"; 0.04 C62 yield of item "Q" at operation "0010"` {
			t.Errorf("named are %s", got)
		}
		if sum := w.erp.yield("WO-1"); sum.String() != "1.4" {
			t.Errorf("the outside system holds %s, want 1.4", sum)
		}
	})
}

func TestReversalIsNotRefusedForWhatRoundingCarriedOn(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.erp.scale = 1
		w.order("WO-1")
		w.start()
		a, b, c := confirm("WO-1", 1, "0.25"), confirm("WO-1", 2, "0.3"), confirm("WO-1", 3, "4.95")
		w.deliver(a, b, reversal(a, "a")) // together they leave 0.1 to take off
		w.pass(time.Minute)
		undo := reversal(c, "c")
		w.deliver(c, undo)
		w.pass(time.Minute)
		w.deliver(confirm("WO-1", 4, "0.1"))
		w.pass(time.Minute)
		if got := w.posting(c).Amounts.Yield.String(); got != "4.8" {
			t.Fatalf("posted %s, want 4.8: the rest is not what this test is about", got)
		}
		w.want(undo, store.PostingVerified, "")
		if sum := w.erp.yield("WO-1"); sum.String() != "0.4" {
			t.Errorf("the outside system holds %s, want 0.4", sum)
		}
	})
}

func TestOrderThatMayBeExceededIsHeldByNoPolicy(t *testing.T) {
	percent := func(n int64) *decimal.Decimal { d := decimal.NewFromInt(n); return &d }
	for name, x := range map[string]struct {
		set  func(*object.WorkOrder)
		held bool
	}{
		"says nothing":     {func(o *object.WorkOrder) {}, true},
		"less than policy": {func(o *object.WorkOrder) { o.OverPercent = percent(0) }, true},
		"not enough":       {func(o *object.WorkOrder) { o.OverPercent = percent(19) }, true},
		"enough":           {func(o *object.WorkOrder) { o.OverPercent = percent(20) }, false},
		"unlimited":        {func(o *object.WorkOrder) { o.OverPercent, o.OverUnlimited = percent(0), true }, false},
	} {
		t.Run(name, func(t *testing.T) {
			simulate(t, func(t *testing.T, w *world) {
				w.opts.Policies = []Policy{{Delivery: DeliveryStop, Tolerance: percent(5)}}
				o := object.WorkOrder{OrderNo: "WO-1", ERP: "erp", Plant: "ulm", Revision: 1, Item: "P", State: object.OrderReleased, Quantity: object.Quantity{Value: decimal.NewFromInt(100), Unit: "C62"}}
				x.set(&o)
				w.put(store.Order{Order: o})
				w.start()
				exact, over := confirm("WO-1", 1, "105"), confirm("WO-1", 2, "15")
				w.deliver(exact, over)
				w.pass(time.Minute)
				w.want(exact, store.PostingVerified, "")
				if x.held {
					w.want(over, store.PostingParked, CodeOverDelivery)
				} else {
					w.want(over, store.PostingVerified, "")
				}
			})
		})
	}
}
