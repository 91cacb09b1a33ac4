package odoo_test

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/linekeeper/linekeeper/hub/connector/odoo"
	"github.com/linekeeper/linekeeper/hub/connector/odoo/odoodouble"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"go.yaml.in/yaml/v4"
)

func made(order, yield, scrap string) connector.Posting {
	now := time.Now().UTC()
	return connector.Posting{Attempt: 1, Order: object.WorkOrder{OrderNo: order, Item: maker}, PostingDate: now.Truncate(24 * time.Hour),
		Fact: object.Fact{Key: factkey.Random(), Kind: object.KindConfirmation, OccurredAt: now, TimeZone: "UTC",
			Confirmation: &object.Confirmation{OrderNo: order, Item: maker, Unit: "C62", Yield: d(yield), Scrap: d(scrap)}}}
}

func used(order, quantity string) connector.Posting {
	p := made(order, "1", "0")
	p.Fact.Kind, p.Fact.Confirmation = object.KindConsumption, nil
	p.Fact.Consumption = &object.Consumption{OrderNo: order, Item: taken, Movement: object.Issue, Quantity: object.Quantity{Value: d(quantity), Unit: "KGM"}}
	return p
}

func state(order string, s object.FloorState) connector.Posting {
	p := made(order, "1", "0")
	p.Fact.Kind, p.Fact.Confirmation = object.KindOrderState, nil
	p.Fact.OrderState = &object.ShopFloorState{OrderNo: order, State: s}
	return p
}

func back(p connector.Posting) connector.Posting {
	r := p
	r.Fact.Key, r.Fact.Reverses = factkey.Random(), p.Fact.Key
	r.Original = &connector.Original{Fact: p.Fact}
	return r
}

func prepare(t *testing.T, c connector.Connector, p connector.Posting) []byte {
	t.Helper()
	intent, early, err := c.Prepare(t.Context(), p)
	if err != nil || early != nil {
		t.Fatalf("prepare: %+v, %v", early, err)
	}
	return intent
}

// ends drives a posting to its end.
func ends(t *testing.T, c connector.Connector, p connector.Posting, want connectortest.End) connectortest.Settlement {
	t.Helper()
	x := connectortest.Drive(t.Context(), c, p, time.Minute)
	if x.End != want {
		t.Fatalf("posting ended %s, want %s:\n  %s", x.End, want, strings.Join(x.Why, "\n  "))
	}
	return x
}

func settled(t *testing.T, c connector.Connector, p connector.Posting) connectortest.Settlement {
	t.Helper()
	return ends(t, c, p, connectortest.Settled)
}

func (b *bench) bears(t *testing.T, p connector.Posting, states ...string) {
	t.Helper()
	if got := b.Transfers(p.Fact.Key.String()); !slices.Equal(got, states) {
		t.Errorf("the transfers of the fact are %v, want %v", got, states)
	}
}

func (b *bench) yields(t *testing.T, order, want string) {
	t.Helper()
	if got := b.Totals(order).Yield; !got.Equal(d(want)) {
		t.Errorf("order %s holds yield %s, want %s", order, got, want)
	}
}

// A hub dies after each exchange of a posting in turn, with and without the effect of the last one; another takes over with the stored intent.
func TestHubDiesBetweenTheSteps(t *testing.T) {
	for _, f := range []connectortest.Fault{connectortest.LoseReply, connectortest.LoseRequest, connectortest.DelayRequest} {
		for nth := 1; ; nth++ {
			b := newBench(t, odoodouble.Options{Version: 16}, rpc)
			order := b.order(t, "40")
			c, p := b.connect(t), made(order, "12", "3")
			intent := prepare(t, c, p)
			b.proxy.Arm(f, nth)
			c.Post(t.Context(), p, intent)
			fired := b.proxy.Fired()
			other := b.connect(t)
			if x, err := other.Lookup(t.Context(), p, intent); err != nil || x.Presence == connector.CannotTell {
				t.Fatalf("%s at %d: look-up: %+v, %v", f, nth, x, err)
			}
			b.proxy.Deliver()
			settled(t, other, p)
			b.bears(t, p, "done")
			if x := b.Totals(order); !x.Yield.Equal(d("12")) || !x.Scrap.Equal(d("3")) || !b.Made(order).Equal(d("12")) {
				t.Fatalf("%s at %d: the order holds %+v, Odoo counts %s made", f, nth, x, b.Made(order))
			}
			if !fired {
				if nth < 5 {
					t.Fatalf("a posting has only %d exchanges", nth-1)
				}
				break
			}
		}
	}
}

// A draft that Odoo will not validate has no effect and must not lie about for somebody to validate by hand.
func TestDraftWhoseValidationIsRefused(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c, p := b.connect(t), made(order, "12", "0")
	end := b.set(func(t *odoodouble.Traps) { t.Locked = true })
	if x := ends(t, c, p, connectortest.Refused); !strings.Contains(x.Outcome.Reason, order) || !strings.Contains(x.Outcome.Reason, "lock date") {
		t.Errorf("refused with %+v", x.Outcome)
	}
	b.bears(t, p)
	end()
	settled(t, c, p)
	b.yields(t, order, "12")
}

// Odoo answers a validation by asking something: nothing is booked, and the person is told what asks.
func TestQuestionIsNoEffect(t *testing.T) {
	b := newBench(t, odoodouble.Options{Version: 18}, rpc)
	order := b.order(t, "40")
	c, p := b.connect(t), made(order, "12", "0")
	end := b.set(func(t *odoodouble.Traps) { t.Wizard = "expiry.picking.confirmation" })
	x := ends(t, c, p, connectortest.Refused)
	if x.Outcome.Class != connector.Correctable || !strings.Contains(x.Outcome.Reason, "expiry.picking.confirmation") {
		t.Errorf("refused with %+v", x.Outcome)
	}
	b.yields(t, order, "0")
	b.bears(t, p)
	end()
	settled(t, c, p)
	b.yields(t, order, "12")
}

// An error of the server's own may come after the commit: it is no refusal.
func TestErrorAfterTheCommitIsInDoubt(t *testing.T) {
	for name, opt := range map[string]func(*odoo.Config){"json2": nil, "jsonrpc": rpc} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, odoodouble.Options{}, opt)
			order := b.order(t, "40")
			c, p := b.connect(t), made(order, "12", "0")
			intent := prepare(t, c, p)
			b.set(func(t *odoodouble.Traps) { t.ErrorAfterCommit = true })
			if out := c.Post(t.Context(), p, intent); out.Result != connector.InDoubt {
				t.Fatalf("post: %+v", out)
			}
			if f, err := c.Lookup(t.Context(), p, intent); err != nil || f.Presence != connector.Found {
				t.Errorf("look-up: %+v, %v", f, err)
			}
			settled(t, c, p)
			b.yields(t, order, "12")
		})
	}
}

// A draft that somebody changed is not what the fact says, and is not validated.
func TestDraftChangedByAPersonIsNotValidated(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c, p := b.connect(t), made(order, "12", "0")
	intent := prepare(t, c, p)
	b.proxy.Arm(connectortest.LoseReply, 1)
	if out := c.Post(t.Context(), p, intent); out.Result != connector.InDoubt {
		t.Fatalf("post: %+v", out)
	}
	b.bears(t, p, "open")
	b.ChangeDraft(p.Fact.Key.String(), 120)
	f, err := c.Lookup(t.Context(), p, intent)
	if err != nil || f.Presence != connector.Absent || f.Rejection == nil || f.Rejection.Code != "DRAFT_CHANGED" {
		t.Errorf("look-up: %+v, %v", f, err)
	}
	b.yields(t, order, "0")
}

// The moves are what the fact says and their lines, by which Odoo books, are not.
func TestLineThatIsBookedElsewhereIsSeen(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c, p := b.connect(t), made(order, "12", "0")
	intent := prepare(t, c, p)
	b.proxy.Arm(connectortest.LoseReply, 1)
	c.Post(t.Context(), p, intent)
	b.MoveLines(p.Fact.Key.String(), odoodouble.Scrap)
	f, err := c.Lookup(t.Context(), p, intent)
	if err != nil || f.Presence != connector.Found {
		t.Fatalf("look-up: %+v, %v", f, err)
	}
	if v, err := c.Verify(t.Context(), p, intent, f.Document); err != nil || v.Matches || !strings.Contains(v.Difference, maker) {
		t.Errorf("verify: %+v, %v", v, err)
	}
}

// Two drafts bear the key and a person has validated both by hand: that is shown, in the posting and in the list of effects.
func TestTwoTransfersUnderOneKeyAreShown(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c, p := b.connect(t), made(order, "12", "0")
	intent := prepare(t, c, p)
	for range 2 {
		b.proxy.Arm(connectortest.LoseReply, 1)
		c.Post(t.Context(), p, intent)
		b.ValidateNewest(p.Fact.Key.String())
	}
	if x := ends(t, c, p, connectortest.Undecided); !strings.Contains(x.Why[len(x.Why)-1], "both have key") {
		t.Errorf("%v", x.Why)
	}
	got, err := c.Effects(t.Context(), order)
	if err != nil || len(got.Documents) != 2 || got.Documents[0].Key != got.Documents[1].Key {
		t.Fatalf("%+v, %v", got, err)
	}
	if x := ends(t, c, back(p), connectortest.Refused); x.Outcome.Code != "SEVERAL_TO_REVERSE" {
		t.Errorf("a reversal of both: %+v", x.Outcome)
	}
	if out, err := c.ReverseDocument(t.Context(), got.Documents[1].Number, factkey.Random().String()); err != nil || out.Result != connector.Posted {
		t.Errorf("reverse: %+v, %v", out, err)
	}
	b.yields(t, order, "12")
	settled(t, c, p)
	settled(t, c, back(p))
	b.yields(t, order, "0")
}

// A request that was taken for lost makes its draft when all is over: it has no effect, and it goes.
func TestLateDraftIsDeleted(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c, p := b.connect(t), made(order, "12", "0")
	intent := prepare(t, c, p)
	b.proxy.Arm(connectortest.DelayRequest, 1)
	c.Post(t.Context(), p, intent)
	out := c.Post(t.Context(), p, intent)
	if out.Result != connector.Posted {
		t.Fatalf("post: %+v", out)
	}
	b.proxy.Deliver()
	b.bears(t, p, "done", "open")
	if v, err := c.Verify(t.Context(), p, intent, out.Document); err != nil || !v.Matches {
		t.Errorf("verify: %+v, %v", v, err)
	}
	b.bears(t, p, "done")
	b.yields(t, order, "12")
}

// Odoo reads from a copy that lags behind, and the reply of each exchange is lost in turn.
func TestReplicaThatLagsDoublesNothing(t *testing.T) {
	const lag = 300 * time.Millisecond
	for nth := 1; nth <= 6; nth++ {
		b := newBench(t, odoodouble.Options{}, nil)
		b.traps.ReadLag = lag
		order := b.order(t, "40")
		c := b.connect(t, func(cfg *odoo.Config) { cfg.ReadDelay, cfg.Timeout = lag, 2*time.Second })
		p := made(order, "12", "0")
		intent := prepare(t, c, p)
		b.SetTraps(b.traps)
		b.proxy.Arm(connectortest.LoseReply, nth)
		out := c.Post(t.Context(), p, intent)
		for start := time.Now(); out.Result != connector.Posted && time.Since(start) < 30*time.Second; {
			<-time.After(20 * time.Millisecond)
			f, err := c.Lookup(t.Context(), p, intent)
			if err != nil {
				continue
			}
			if f.Presence == connector.Absent {
				t.Fatalf("reply %d lost: absent, and the draft is there: %v", nth, b.Transfers(p.Fact.Key.String()))
			}
			if f.Presence == connector.Found {
				out = connector.Outcome{Result: connector.Posted, Document: f.Document}
			}
		}
		settled(t, c, p)
		b.bears(t, p, "done")
		b.yields(t, order, "12")
	}
}

// What a replica that lags did not show may be there by the time that its answer is read.
func TestReplicaThatLagsProvesNothingWhenItIsReadLate(t *testing.T) {
	t.Parallel()
	b := newBench(t, odoodouble.Options{}, nil)
	h := b.harness()
	h.Connect = func(t testing.TB) connector.Connector {
		return b.connect(t, func(cfg *odoo.Config) { cfg.ReadDelay, cfg.Timeout = time.Second, time.Second })
	}
	connectortest.RunLateAnswers(t, h, b.proxy, 1500*time.Millisecond)
}

// Without a place for the key nothing happens once, so nothing happens; the error says how to mend it.
func TestNothingIsPostedWithoutAFieldForTheKey(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	end := b.set(func(t *odoodouble.Traps) { t.NoKeyField = true })
	c, p := b.connect(t), made(order, "12", "0")
	if _, early, err := c.Prepare(t.Context(), p); err == nil || early != nil || !strings.Contains(err.Error(), "x_fact_key") || !strings.Contains(err.Error(), "key_field to origin") {
		t.Errorf("prepare: %+v, %v", early, err)
	}
	settled(t, b.connect(t, func(c *odoo.Config) { c.KeyField = "origin" }), p)
	end()
	b.yields(t, order, "12")
}

// Done moves that the account may not tie to their order are shown, and tied when the fact is replayed.
func TestMovesThatDoNotCountInTheirOrderAreShown(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c, p := b.connect(t), made(order, "12", "0")
	end := b.set(func(t *odoodouble.Traps) { t.DenyTies = true })
	if x := ends(t, c, p, connectortest.Undecided); !strings.Contains(x.Why[len(x.Why)-1], "does not count") {
		t.Errorf("%v", x.Why)
	}
	end()
	settled(t, c, p)
	b.bears(t, p, "done")
	if !b.Made(order).Equal(d("12")) {
		t.Errorf("Odoo counts %s made, want 12", b.Made(order))
	}
}

// A planner splits the order and a person makes part of it by hand: the number that the plant knows leads to what is open, and the whole is what all
// parts are together.
func TestBackordersAreOneOrder(t *testing.T) {
	for version := range map[int]bool{16: true, 18: true, 19: true} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b := newBench(t, odoodouble.Options{Version: version}, rpc)
			order := b.order(t, "40")
			c := b.connect(t)
			settled(t, c, made(order, "5", "0"))
			b.Backorder(order, 10)
			b.Split(order, 20)
			w, err := c.Get(t.Context(), order)
			if err != nil || w.OrderNo != order || !w.Quantity.Value.Equal(d("40")) || w.State != object.OrderInProgress || len(w.Components) != 1 || !w.Components[0].Required.Value.Equal(d("10")) {
				t.Errorf("order %+v, %v", w, err)
			}
			if w, err = c.Get(t.Context(), order+"-002"); err != nil || w.OrderNo != order {
				t.Errorf("the number of a part leads to %+v, %v", w, err)
			}
			settled(t, c, made(order, "7", "1"))
			settled(t, c, used(order, "1.25"))
			if x := b.Totals(order); !x.Yield.Equal(d("22")) || !x.Scrap.Equal(d("1")) || !x.Issued[taken].Equal(d("3.75")) {
				t.Errorf("the order holds %+v", x)
			}
			settled(t, c, state(order, object.FloorFinished))
			want := map[string]string{order + "-001": "done", order + "-002": "done", order + "-003": "cancel"}
			if got := b.States(order); !maps.Equal(got, want) {
				t.Errorf("the parts are %v, want %v", got, want)
			}
			if w, err = c.Get(t.Context(), order); err != nil || w.State != object.OrderCompleted || !w.Quantity.Value.Equal(d("30")) {
				t.Errorf("finished order %+v, %v", w, err)
			}
			ends(t, c, made(order, "1", "0"), connectortest.Refused)
		})
	}
}

// A name that looks like a part's proves nothing: Odoo says itself what was split off.
func TestOrderThatOnlyLooksLikeAPartIsNotOne(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order, other := b.order(t, "40"), b.order(t, "7")
	b.Change(other, time.Time{}, func(r map[string]any) { r["name"] = order + "-002" })
	c := b.connect(t)
	if w, err := c.Get(t.Context(), order); err != nil || !w.Quantity.Value.Equal(d("40")) {
		t.Errorf("the order is %+v, %v", w, err)
	}
	b.Change(order+"-002", time.Time{}, func(r map[string]any) { r["backorder_sequence"] = 2 })
	if _, _, err := c.Prepare(t.Context(), made(order, "1", "0")); err == nil || !strings.Contains(err.Error(), order+"-002") {
		t.Errorf("two orders that bear one number: %v", err)
	}
	page, err := c.ListChanged(t.Context(), "")
	if err != nil || len(page.Unreadable) != 1 || page.Unreadable[0].OrderNo != order {
		t.Errorf("listed %+v, %v", page, err)
	}
}

// all pages through the changes until there is no more.
func all(t *testing.T, c *odoo.Connector, cursor string, between func()) (map[string]object.WorkOrder, []connector.Unreadable, string) {
	t.Helper()
	seen := map[string]object.WorkOrder{}
	var bad []connector.Unreadable
	for range 10_000 {
		page, err := c.ListChanged(t.Context(), cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Orders {
			seen[o.OrderNo] = o
		}
		bad = append(bad, page.Unreadable...)
		if cursor = page.Cursor; !page.More {
			return seen, bad, cursor
		}
		between()
	}
	t.Fatal("still more after 10,000 pages")
	return nil, nil, ""
}

// Odoo does not stamp an order for a change of its material.
func TestChangesThatTheOrdersStampDoesNotShowAreListed(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	past := time.Now().Add(-time.Hour)
	b.Change(order, past, func(map[string]any) {})
	c := b.connect(t)
	b.order(t, "1")
	_, _, cursor := all(t, c, "", func() {})
	b.Need(order, 12.5)
	seen, _, _ := all(t, c, cursor, func() {})
	if w, ok := seen[order]; !ok || !w.Components[0].Required.Value.Equal(d("12.5")) {
		t.Errorf("listed %+v", seen[order])
	}
}

// Many orders share one second, which is all that Odoo shows of a time, and some change while the pages are read.
func TestPagesLeaveNothingOut(t *testing.T) {
	for _, size := range []int{1, 3, 7} {
		b := newBench(t, odoodouble.Options{}, nil)
		second := time.Now().Add(-time.Minute).Truncate(time.Second)
		want := map[string]string{}
		var orders []string
		for i := range 30 {
			order := b.CreateOrder(maker, 4) // without components, whose stamps would show it too
			b.Change(order, second.Add(time.Duration(30-i)*70*time.Millisecond), func(map[string]any) {})
			orders, want[order] = append(orders, order), "4"
		}
		n := 0
		c := b.connect(t, func(c *odoo.Config) { c.PageSize = size })
		seen, _, _ := all(t, c, "", func() {
			if n < 5 {
				order := orders[n*5]
				b.Resize(order, float64(10+n), time.Time{})
				want[order] = fmt.Sprint(10 + n)
			}
			n++
		})
		for order, quantity := range want {
			if !seen[order].Quantity.Value.Equal(d(quantity)) {
				t.Errorf("pages of %d: order %s is listed with %s, want %s", size, order, seen[order].Quantity.Value, quantity)
			}
		}
	}
}

// A change is committed after the newest one was read, and its stamp is older.
func TestChangeThatIsCommittedLateIsListed(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	late := b.CreateOrder(maker, 4)
	b.CreateOrder(maker, 4)
	c := b.connect(t)
	_, _, cursor := all(t, c, "", func() {})
	b.Resize(late, 9, time.Now().Add(-4*time.Minute))
	if seen, _, _ := all(t, c, cursor, func() {}); !seen[late].Quantity.Value.Equal(d("9")) {
		t.Errorf("listed %+v", seen[late])
	}
}

func TestUnreadableOrderStopsNoNeighbour(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	b.PutUnit("Dozens")
	b.PutProduct("TWELVE", "Dozens", "none")
	good := b.order(t, "4")
	bad := b.CreateOrder("TWELVE", 2)
	form := b.order(t, "5")
	b.Change(form, time.Time{}, func(r map[string]any) { r["product_qty"] = "many" })
	c := b.connect(t)
	seen, unreadable, _ := all(t, c, "", func() {})
	if _, ok := seen[good]; !ok || len(seen) != 1 {
		t.Errorf("listed %v", seen)
	}
	reasons := fmt.Sprint(unreadable)
	if !strings.Contains(reasons, bad) || !strings.Contains(reasons, `"Dozens"`) || !strings.Contains(reasons, "add it to units") || !strings.Contains(reasons, `product_qty`) && !strings.Contains(reasons, "many") {
		t.Errorf("unreadable are %v", unreadable)
	}
	if _, err := c.Get(t.Context(), bad); err == nil || !strings.Contains(err.Error(), "Dozens") {
		t.Errorf("get: %v", err)
	}
	p := made(bad, "1", "0")
	p.Fact.Confirmation.Item = "TWELVE"
	if x := ends(t, c, p, connectortest.Refused); x.Outcome.Code != "UNIT" {
		t.Errorf("refused with %+v", x.Outcome)
	}
}

// Reconciliation sees what was posted by the facts' keys, what was taken back, and what Odoo took by itself.
func TestTheMovesOfAnOrderAreListedByFact(t *testing.T) {
	b := newBench(t, odoodouble.Options{Version: 18}, rpc)
	order := b.order(t, "40")
	c := b.connect(t)
	m, u, w := made(order, "10", "2"), used(order, "3.5"), made(order, "7", "0")
	var documents []string
	for _, p := range []connector.Posting{m, u, w} {
		documents = append(documents, settled(t, c, p).Document.Number)
	}
	taken7 := back(w)
	settled(t, c, taken7)
	if !b.Made(order).Equal(d("10")) {
		t.Errorf("Odoo counts %s made after the reversal, want 10", b.Made(order))
	}
	b.Close(order) // a person makes the rest, with the planned material
	got, err := c.Effects(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	lines := map[string]bool{}
	for _, e := range got.Documents {
		for _, q := range e.Quantities {
			lines[fmt.Sprintf("%s %s %s %s %s", e.Key, q.Kind, q.Item, q.Value, e.State)] = true
		}
		if e.Key == "" && e.Kind == object.KindConsumption && !e.Movements[0].Backflush {
			t.Errorf("what Odoo took by itself is %+v", e)
		}
	}
	for _, line := range []string{
		m.Fact.Key.String() + " yield VALVE-10 10 booked", m.Fact.Key.String() + " scrap VALVE-10 2 booked", u.Fact.Key.String() + " consumed GRANULATE 3.5 booked",
		w.Fact.Key.String() + " yield VALVE-10 7 booked", taken7.Fact.Key.String() + " yield VALVE-10 -7 booked", " yield VALVE-10 30 booked", " consumed GRANULATE 10 booked",
	} {
		if !lines[line] {
			t.Errorf("there is no %q among %v", line, slices.Sorted(maps.Keys(lines)))
		}
	}
	if len(lines) != 7 || got.Order.State != object.OrderCompleted {
		t.Errorf("%d lines, order %s", len(lines), got.Order.State)
	}
	for _, e := range got.Documents {
		if e.Key == w.Fact.Key.String() && (e.Number != documents[2] || e.ReversedBy == "") || e.Key == taken7.Fact.Key.String() && e.Reverses != documents[2] {
			t.Errorf("reversal is shown as %+v", e)
		}
	}
}

// A person's return bears the key of what it takes back, where the field is copied: it is no second effect of the fact, and it is listed.
func TestReturnByHandIsNoSecondEffect(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c := b.connect(t)
	p := made(order, "10", "0")
	doc := settled(t, c, p).Document
	b.Return(p.Fact.Key.String())
	if again := settled(t, c, p).Document; again != doc { // a hub that forgot
		t.Errorf("the fact's document is %+v, was %+v", again, doc)
	}
	got, err := c.Effects(t.Context(), order)
	if err != nil || len(got.Documents) != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	if first, second := got.Documents[0], got.Documents[1]; first.Key != p.Fact.Key.String() || first.ReversedBy != second.Number || second.Key != "" || !second.Quantities[0].Value.Equal(d("-10")) {
		t.Errorf("listed are %+v", got.Documents)
	}
	if x := ends(t, c, back(p), connectortest.Refused); x.Outcome.Code != "ALREADY_REVERSED" {
		t.Errorf("refused with %+v", x.Outcome)
	}
}

// A transfer whose source document somebody changed is found by its key, and listed with the order it is tied to.
func TestTransferWithAnotherSourceDocumentIsFound(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c := b.connect(t)
	p := made(order, "10", "0")
	settled(t, c, p)
	b.Rename(p.Fact.Key.String(), "by phone")
	if x := ends(t, c, p, connectortest.Undecided); !strings.Contains(x.Why[len(x.Why)-1], "by phone") {
		t.Errorf("%v", x.Why)
	}
	if got, err := c.Effects(t.Context(), order); err != nil || len(got.Documents) != 1 || got.Documents[0].Key != p.Fact.Key.String() {
		t.Errorf("%+v, %v", got, err)
	}
}

// Material that is given back must not count as consumed, as Odoo would count it under its order.
func TestReturnedMaterialIsNotCountedAsConsumed(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c := b.connect(t)
	settled(t, c, used(order, "3"))
	p := used(order, "1")
	p.Fact.Consumption.Movement = object.Return
	settled(t, c, p)
	if got := b.Consumed(order, taken); !got.Equal(d("3")) {
		t.Errorf("Odoo counts %s consumed, want 3", got)
	}
	if x := b.Totals(order); !x.Issued[taken].Equal(d("3")) || !x.Returned[taken].Equal(d("1")) || !b.InStock(taken).Equal(d("99998")) {
		t.Errorf("the order holds %+v, in stock are %s", x, b.InStock(taken))
	}
}

// Two drafts bear the key and a person has validated the newer one by hand: the older one is none to validate.
func TestDraftBesideWhatIsDoneIsNotValidated(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c, p := b.connect(t), made(order, "12", "0")
	intent := prepare(t, c, p)
	for range 2 {
		b.proxy.Arm(connectortest.LoseReply, 1)
		if out := c.Post(t.Context(), p, intent); out.Result != connector.InDoubt {
			t.Fatalf("post: %+v", out)
		}
	}
	b.bears(t, p, "open", "open")
	b.ValidateNewest(p.Fact.Key.String())
	if f, err := c.Lookup(t.Context(), p, intent); err != nil || f.Presence != connector.Found {
		t.Errorf("look-up: %+v, %v", f, err)
	}
	settled(t, c, p)
	b.bears(t, p, "done")
	b.yields(t, order, "12")
}

// A component that the order needs in another unit than it is kept in is taken in either.
func TestComponentIsTakenInTheOrdersUnit(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, func(c *odoo.Config) { c.Units["g"] = "GRM" })
	b.PutUnit("g")
	order := b.order(t, "40")
	b.NeedIn(order, "g")
	c := b.connect(t)
	p := used(order, "250")
	p.Fact.Consumption.Quantity.Unit = "GRM"
	settled(t, c, p)
	settled(t, c, used(order, "0.5"))
	p = used(order, "1")
	p.Fact.Consumption.Quantity.Unit = "LTR"
	if x := ends(t, c, p, connectortest.Refused); x.Outcome.Code != "UNIT" {
		t.Errorf("refused with %+v", x.Outcome)
	}
}

// The second of two documents is taken back by its number, once however often it is asked.
func TestDocumentIsTakenBackOnce(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "40")
	c := b.connect(t)
	settled(t, c, made(order, "10", "0"))
	doc := settled(t, c, made(order, "10", "1")).Document
	key := factkey.Random().String()
	for nth := 1; nth < 20; nth++ {
		b.proxy.Arm(connectortest.LoseReply, nth)
		out, err := c.ReverseDocument(t.Context(), doc.Number, key)
		if !b.proxy.Fired() && (err != nil || out.Result != connector.Posted || out.Document == doc) {
			t.Errorf("reverse %s: %+v, %v", doc.Number, out, err)
		}
	}
	b.yields(t, order, "10")
	if x := b.Totals(order); !x.Scrap.IsZero() {
		t.Errorf("scrap is %s", x.Scrap)
	}
	if out, err := c.ReverseDocument(t.Context(), doc.Number, factkey.Random().String()); err != nil || out.Result != connector.Posted || out.Document == doc {
		t.Errorf("a second reversal: %+v, %v", out, err)
	}
	b.yields(t, order, "10")
	if out, err := c.ReverseDocument(t.Context(), "WH/SF/99999", key); err != nil || out.Code != "NOT_REVERSIBLE" {
		t.Errorf("reversal of nothing: %+v, %v", out, err)
	}
}

// Lots of tracked products go with their moves; Odoo makes a lot of what is produced, and none of what is taken.
func TestLotsGoWithTheirMoves(t *testing.T) {
	for version, opt := range map[int]func(*odoo.Config){16: rpc, 19: nil} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			b := newBench(t, odoodouble.Options{Version: version}, opt)
			b.PutProduct("LOTTED", "Units", "lot")
			b.PutProduct("RESIN", "kg", "lot")
			b.PutLot("RESIN", "R-1")
			order := b.CreateOrder("LOTTED", 5, odoodouble.Need{Code: "RESIN", Each: 1})
			c := b.connect(t)
			p := made(order, "2", "1")
			p.Fact.Confirmation.Item = "LOTTED"
			if x := ends(t, c, p, connectortest.Refused); x.Outcome.Code != "NO_LOT" {
				t.Errorf("without a lot: %+v", x.Outcome)
			}
			p.Fact.Confirmation.Lot = "L-77"
			doc := settled(t, c, p).Document
			other := p
			confirmation := *p.Fact.Confirmation
			confirmation.Lot = "L-78"
			other.Fact.Confirmation = &confirmation
			if v, err := c.Verify(t.Context(), other, prepareAny(t, c, p), doc); err != nil || v.Matches || !strings.Contains(v.Difference, "L-77") {
				t.Errorf("another lot is verified as %+v, %v", v, err)
			}
			u := used(order, "1")
			u.Fact.Consumption.Item, u.Fact.Consumption.Lot = "RESIN", "R-2"
			if x := ends(t, c, u, connectortest.Refused); x.Outcome.Code != "LOT" || !strings.Contains(x.Outcome.Reason, "R-2") {
				t.Errorf("an unknown lot: %+v", x.Outcome)
			}
			u.Fact.Consumption.Lot = "R-1"
			settled(t, c, u)
			held, err := c.Balances(t.Context(), []string{"LOTTED", "RESIN", taken})
			got := map[string]string{}
			for _, h := range held {
				got[h.Item+" "+h.Lot] = h.OnHand.Value.String() + h.OnHand.Unit + h.Location
			}
			want := map[string]string{"LOTTED L-77": "2C62WH/Stock", "RESIN R-1": "-1KGMWH/Stock", taken + " ": "100000KGMWH/Stock"}
			if err != nil || !maps.Equal(got, want) {
				t.Errorf("in stock are %v, want %v: %v", got, want, err)
			}
			settled(t, c, back(u))
			if held, err = c.Balances(t.Context(), []string{"RESIN"}); err != nil || len(held) != 0 {
				t.Errorf("after the reversal there are %+v, %v", held, err)
			}
		})
	}
}

// prepareAny makes an intent, whatever is there already.
func prepareAny(t *testing.T, c connector.Connector, p connector.Posting) []byte {
	t.Helper()
	intent, _, err := c.Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	return intent
}

// Odoo can only cancel an order that made nothing, so one that used material is left to a person.
func TestFinishWithNothingMade(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	c := b.connect(t)
	order := b.order(t, "4")
	settled(t, c, used(order, "0.5"))
	if x := ends(t, c, state(order, object.FloorFinished), connectortest.Refused); x.Outcome.Code != "NOTHING_MADE" || !strings.Contains(x.Outcome.Reason, order) {
		t.Errorf("refused with %+v", x.Outcome)
	}
	empty := b.order(t, "4")
	settled(t, c, state(empty, object.FloorFinished))
	if w, err := c.Get(t.Context(), empty); err != nil || w.State != object.OrderCancelled {
		t.Errorf("the empty order is %s, %v", w.State, err)
	}
}

// Odoo leaves an order without components open when the rest of it is cancelled: that is seen.
func TestOrderWithoutComponentsThatStaysOpenIsShown(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	c := b.connect(t)
	order := b.CreateOrder(maker, 4)
	settled(t, c, made(order, "4", "0"))
	if x := ends(t, c, state(order, object.FloorFinished), connectortest.Undecided); !strings.Contains(x.Why[len(x.Why)-1], "close it there") {
		t.Errorf("%v", x.Why)
	}
}

// The evidence of a posting holds no key, by either protocol: jsonrpc has it among the arguments.
func TestEvidenceHoldsNoKey(t *testing.T) {
	for name, opt := range map[string]func(*odoo.Config){"json2": nil, "jsonrpc": rpc} {
		b := newBench(t, odoodouble.Options{}, opt)
		ctx, rec := exchange.Recording(t.Context())
		if _, _, err := b.connect(t).Prepare(ctx, made(b.order(t, "1"), "1", "0")); err != nil {
			t.Fatal(err)
		}
		all := fmt.Sprint(rec.Records())
		if !strings.Contains(all, "search_read") || strings.Contains(all, odoodouble.Key) {
			t.Errorf("%s: recorded is %s", name, all)
		}
	}
}

func TestWrongKeyIsNamed(t *testing.T) {
	for name, opt := range map[string]func(*odoo.Config){"json2": func(c *odoo.Config) { c.Password = "old" }, "jsonrpc": func(c *odoo.Config) { rpc(c); c.Password = "old" }} {
		b := newBench(t, odoodouble.Options{}, opt)
		if _, err := b.connect(t).Get(t.Context(), b.order(t, "1")); err == nil || !strings.Contains(err.Error(), "key") || strings.Contains(err.Error(), "old") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestConfigurationNamesItemAndNextStep(t *testing.T) {
	good := odoo.Config{URL: "http://x", Password: "k", OperationType: "Shop Floor"}
	for want, change := range map[string]func(*odoo.Config){
		"url":            func(c *odoo.Config) { c.URL = "x" },
		"api":            func(c *odoo.Config) { c.API = "xmlrpc" },
		"password_file":  func(c *odoo.Config) { c.Password = "" },
		"database":       func(c *odoo.Config) { c.API = "jsonrpc" },
		"operation_type": func(c *odoo.Config) { c.OperationType = "" },
		"precision":      func(c *odoo.Config) { c.Precision = 10 },
		"page_size":      func(c *odoo.Config) { c.PageSize = 501 },
		"overlap":        func(c *odoo.Config) { c.Overlap = time.Second },
		"read_delay":     func(c *odoo.Config) { c.ReadDelay = 2 * time.Hour },
		"timeout":        func(c *odoo.Config) { c.Timeout = -1 },
	} {
		c := good
		change(&c)
		if _, err := odoo.New(c); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "configure Odoo: ") {
			t.Errorf("%s: %v", want, err)
		}
	}
	if _, err := odoo.New(good); err != nil {
		t.Error(err)
	}
}

// What Odoo lacks is named with what to do, before anything is posted.
func TestSetUpThatLacksSomethingIsNamed(t *testing.T) {
	b := newBench(t, odoodouble.Options{}, nil)
	order := b.order(t, "1")
	for want, change := range map[string]func(*odoo.Config){
		"operation_type": func(c *odoo.Config) { c.OperationType = "Nowhere" },
		"scrap_location": func(c *odoo.Config) { c.ScrapLocation = "Nowhere" },
		"key_field":      func(c *odoo.Config) { c.KeyField = "state" },
	} {
		if _, _, err := b.connect(t, change).Prepare(t.Context(), made(order, "1", "0")); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	c := b.connect(t, func(c *odoo.Config) { c.ScrapLocation = "" })
	if x := ends(t, c, made(order, "0", "1"), connectortest.Refused); x.Outcome.Code != "NO_LOCATION" {
		t.Errorf("scrap without a place: %+v", x.Outcome)
	}
}

func TestSampleIsAConfiguration(t *testing.T) {
	for _, text := range []string{odoo.Sample, strings.ReplaceAll("\n"+odoo.Sample, "\n# ", "\n")} {
		var c odoo.Config
		dec := yaml.NewDecoder(strings.NewReader(text))
		dec.KnownFields(true)
		if err := dec.Decode(&c); err != nil {
			t.Fatal(err)
		}
		c.PasswordFile, c.Password = "", "secret"
		if _, err := odoo.New(c); err != nil {
			t.Error(err)
		}
	}
}
