package checking_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/checking"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/inbox"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/trading"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// trade is a hub's store with a trader and a checker at work on a ledger, in a time of its own.
type trade struct {
	t       *testing.T
	s       *store.Store
	erp     *connectortest.Ledger
	tr      *trading.Trader
	check   *checking.Checker
	manual  bool // nothing is healed without a person
	every   time.Duration
	wrap    func(checking.Trade) checking.Trade
	restart func()
}

func trades(t *testing.T, manual bool, f func(t *testing.T, w *trade)) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "hub.db")
	synctest.Test(t, func(t *testing.T) {
		w := &trade{t: t, erp: connectortest.NewLedger(), manual: manual}
		w.erp.Forgetful = true // nothing but looking up keeps it from doubling
		var err error
		if w.s, err = store.Open(context.Background(), path, store.Options{}); err != nil {
			t.Fatal(err)
		}
		defer w.s.Close()
		stop := w.start()
		defer func() { stop() }()
		w.restart = func() { stop(); stop = w.start() }
		f(t, w)
	})
}

func (w *trade) start() (stop func()) {
	connectors := map[string]connector.Connector{"erp": w.erp}
	w.tr = trading.New(trading.Options{Store: w.s, Connectors: connectors, Posting: posting.New(posting.Options{Store: w.s, Connectors: connectors}), Writes: []string{"erp"}})
	policy := reconcile.DefaultPolicy()
	if w.manual {
		policy.Limits = reconcile.Limits{}
	}
	var door checking.Trade = w.tr
	if w.wrap != nil {
		door = w.wrap(door)
	}
	w.check = checking.New(checking.Options{Store: w.s, Connectors: connectors, Policy: policy, Trade: door, Nightly: -1, Every: w.every})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- w.tr.Run(ctx) }()
	go func() { ended <- w.check.Run(ctx) }()
	return func() {
		cancel()
		if err := errors.Join(<-ended, <-ended); err != nil {
			w.t.Error(err)
		}
	}
}

func (w *trade) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func tradeKey(name string) factkey.Key { return factkey.Of(factkey.Position("trade", name)) }

func kgm(value string) object.Quantity {
	return object.Quantity{Value: decimal.RequireFromString(value), Unit: "KGM"}
}

func purchaseOf(reference string, state object.PurchaseState) object.Business {
	return object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Reference: reference, Supplier: "SUP-1", Currency: "EUR", State: state,
		Lines: []object.PurchaseLine{{LineNo: "10", Item: "STEEL", Ordered: kgm("100"), Price: object.UnitPrice{Price: object.Money{Amount: decimal.RequireFromString("2.10"), Currency: "EUR"}, Per: kgm("1")}}}}}
}

func moved(number string, state object.PurchaseState) object.Business {
	return object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Number: number, State: state}}
}

func receiptOf(order, reference string) object.Business {
	return object.Business{Kind: object.BusinessShipment, Shipment: &object.Shipment{Reference: reference, Direction: object.Inbound, Partner: "SUP-1", State: object.ShipmentDelivered,
		Lines: []object.ShipmentLine{{OrderNo: order, OrderLine: "10", Item: "STEEL", Quantity: kgm("60")}}}}
}

func countOf(value string) object.Business {
	return object.Business{Kind: object.BusinessCount, Count: &object.CycleCount{Location: "STO", State: object.CountPosted,
		Lines: []object.CountLine{{Item: "STEEL", Unit: "KGM", Counted: decimal.NewNullDecimal(decimal.RequireFromString(value))}}}}
}

// wrote wants something and waits until it is verified; it returns the document's number.
func (w *trade) wrote(name string, b object.Business) string {
	w.t.Helper()
	if _, _, err := w.tr.Submit(context.Background(), store.Write{Key: tradeKey(name), ERP: "erp", Want: b, By: "mes"}); err != nil {
		w.t.Fatal(err)
	}
	w.pass(time.Minute)
	return w.is(name, "verified").Document
}

func (w *trade) write(name string) (store.Write, []store.WriteStep) {
	w.t.Helper()
	x, steps, _, err := w.s.WriteLife(context.Background(), tradeKey(name))
	if err != nil {
		w.t.Fatal(err)
	}
	return x, steps
}

// is checks state and code of a write, and that its key has made at most one object.
func (w *trade) is(name, want string) store.Write {
	w.t.Helper()
	x, steps := w.write(name)
	if got := strings.TrimSpace(string(x.State) + " " + x.Code); got != want {
		w.t.Errorf("write %q is %q: %s; want %q", name, got, x.Reason, want)
		for _, s := range steps {
			w.t.Logf("  %s %s %s %s", s.At.Format(time.TimeOnly), s.Step, s.Code, s.Reason)
		}
	}
	if n := w.erp.Carry(x.Key); n > 1 {
		w.t.Errorf("write %q stands %d times in the books", name, n)
	}
	return x
}

func (w *trade) live() []reconcile.Discrepancy {
	w.t.Helper()
	all, err := w.s.Discrepancies(context.Background(), store.DiscrepancyFilter{Live: true}, store.Page{})
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// only is the one live discrepancy.
func (w *trade) only(t reconcile.Type) reconcile.Discrepancy {
	w.t.Helper()
	all := w.live()
	if len(all) != 1 || all[0].Type != t {
		w.t.Fatalf("live are %+v, want one %s", all, t)
	}
	return all[0]
}

// round compares what was verified, as an hour later.
func (w *trade) round() {
	w.t.Helper()
	w.pass(10 * time.Minute)
	if err := w.check.Writes(context.Background()); err != nil {
		w.t.Fatal(err)
	}
	synctest.Wait()
}

func TestWritesThatARestoredERPLostAreBroughtForwardOnce(t *testing.T) {
	trades(t, false, func(t *testing.T, w *trade) {
		old := w.wrote("old", purchaseOf("REQ-0", object.PurchaseSent))
		restore := w.erp.Snapshot()
		number := w.wrote("po", purchaseOf("REQ-1", object.PurchaseSent))
		w.wrote("draft", purchaseOf("REQ-2", object.PurchaseDraft))
		w.wrote("sent", moved("PO-3", object.PurchaseSent))
		w.wrote("asn", receiptOf(number, "ASN-1"))
		w.wrote("more", receiptOf(old, "ASN-2"))
		if w.round(); len(w.live()) != 0 {
			t.Fatalf("before the restore: %+v", w.live())
		}
		restore()
		w.round()
		w.pass(30 * time.Minute) // what waits for what is gone too comes after it
		for _, name := range []string{"old", "po", "draft", "sent", "asn", "more"} {
			x := w.is(name, "verified")
			if made := map[bool]int{true: 0, false: 1}[name == "sent"]; w.erp.Carry(x.Key) != made {
				t.Errorf("%s stands %d times in the books, want %d", name, w.erp.Carry(x.Key), made)
			}
		}
		if all := w.live(); len(all) != 0 {
			t.Errorf("still live: %+v", all)
		}
		healed, err := w.s.Discrepancies(context.Background(), store.DiscrepancyFilter{State: string(reconcile.Healed)}, store.Page{})
		if err != nil || len(healed) != 5 {
			t.Errorf("%d are healed, want 5: %v", len(healed), err)
		}
		_, steps := w.write("po")
		var life []string
		for _, s := range steps {
			life = append(life, s.Step)
		}
		if got := strings.Join(life, " "); got != "due sending posted verified write_missing renewed absent sending posted verified" {
			t.Errorf("the life of a write that was lost is %q", got)
		}
		w.restart() // a hub that starts anew sees nothing either
		if w.round(); len(w.live()) != 0 || w.erp.Effects(tradeKey("po")) != 2 {
			t.Errorf("afterwards %+v are live, and the purchase was made %d times in all", w.live(), w.erp.Effects(tradeKey("po")))
		}
	})
}

func TestAnERPThatCannotBeAskedLosesNoWrite(t *testing.T) {
	trades(t, false, func(t *testing.T, w *trade) {
		w.wrote("po", purchaseOf("", object.PurchaseSent))
		w.erp.Mishaps(func(string, connector.Write) connectortest.Mishap { return connectortest.Down })
		w.round()
		run, err := w.check.Start(context.Background(), store.Compared{})
		if err != nil || run.UnaskedWrites != 1 || run.Writes != 0 || run.Found != 0 {
			t.Errorf("the comparison says %+v, %v", run, err)
		}
		w.is("po", "verified")
		w.erp.Mishaps(nil)
		if run, err = w.check.Start(context.Background(), store.Compared{}); err != nil || run.Writes != 1 || run.Found != 0 {
			t.Errorf("the comparison says %+v, %v", run, err)
		}
	})
}

func TestALostWriteWaitsForOneClickAndIsShownOnce(t *testing.T) {
	trades(t, true, func(t *testing.T, w *trade) {
		restore := w.erp.Snapshot()
		w.wrote("po", purchaseOf("REQ-1", object.PurchaseSent))
		restore()
		w.round()
		w.is("po", "verified write_missing")
		d := w.only(reconcile.WriteMissing)
		if d.State != reconcile.Open || d.Proposed.Kind != reconcile.LookUpAndSend || len(d.Evidence) == 0 || !strings.Contains(d.Note, "allowed without a person") {
			t.Errorf("it is %+v", d)
		}
		w.round()
		if again := w.only(reconcile.WriteMissing); again.ID != d.ID || again.Times < 2 {
			t.Errorf("seen again it is %+v", again)
		}
		if e := w.inbox(); len(e) != 1 || e[0].Write != tradeKey("po").String() || !strings.Contains(e[0].What, "purchase order REQ-1 of SUP-1") || !strings.Contains(e[0].Proposed, "write it anew under the same key") {
			t.Errorf("the inbox has %+v", e)
		}
		w.erp.Mishaps(func(string, connector.Write) connectortest.Mishap { return connectortest.Down })
		if err := w.check.Act(context.Background(), d.ID, "anna", "the ERP was put back"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.is("po", "in_doubt unreachable") // not evidence of anything
		if e := w.inbox(); len(e) != 1 || e[0].Kind != store.InboxWrite {
			t.Errorf("while it is looked for the inbox has %+v", e)
		}
		if err := w.check.Act(context.Background(), d.ID, "anna", "again"); !errors.Is(err, trading.ErrNotVerified) {
			t.Errorf("a second click is answered %v", err)
		}
		w.erp.Mishaps(nil)
		w.pass(5 * time.Minute)
		w.is("po", "verified")
		if w.round(); len(w.live()) != 0 || w.erp.Carry(tradeKey("po")) != 1 {
			t.Errorf("live are %+v", w.live())
		}
		one, err := w.s.Discrepancy(context.Background(), d.ID)
		if err != nil || one.State != reconcile.Healed {
			t.Errorf("it ended %+v, %v", one, err)
		}
	})
}

func (w *trade) inbox() (entries []inbox.Entry) {
	w.t.Helper()
	rows, err := w.s.Inbox(context.Background(), store.InboxFilter{}, store.InboxPlace{}, 100)
	if err != nil {
		w.t.Fatal(err)
	}
	rd := &inbox.Reader{Store: w.s, Policy: reconcile.DefaultPolicy(), Now: time.Now}
	for _, r := range rows {
		e, shown, err := rd.Entry(context.Background(), r)
		if err != nil {
			w.t.Fatal(err)
		}
		if shown {
			entries = append(entries, e)
		}
	}
	return entries
}

func TestALostAnswerWhileAWriteIsBroughtForwardDoublesNothing(t *testing.T) {
	for _, m := range []connectortest.Mishap{connectortest.Loses, connectortest.Late, connectortest.Busy, connectortest.BreaksDown, connectortest.Down} {
		for _, call := range []string{"write", "find", "prepare", "verify"} {
			if call != "write" && m != connectortest.Down {
				continue
			}
			t.Run(call+" "+string(m), func(t *testing.T) {
				trades(t, false, func(t *testing.T, w *trade) {
					restore := w.erp.Snapshot()
					w.wrote("po", purchaseOf("REQ-1", object.PurchaseSent))
					restore()
					times := 0
					w.erp.Mishaps(func(c string, _ connector.Write) connectortest.Mishap {
						if x, _ := w.write("po"); c != call || x.State == store.PostingVerified { // the look of the round is not meant
							return connectortest.NoMishap
						}
						if times++; times > 2 {
							return connectortest.NoMishap
						}
						return m
					})
					w.round()
					w.pass(20 * time.Minute)
					w.erp.Deliver()
					w.pass(20 * time.Minute)
					w.round()
					w.is("po", "verified")
					if n := w.erp.Carry(tradeKey("po")); times == 0 || n != 1 || len(w.live()) != 0 {
						t.Errorf("it happened %d times; the purchase stands %d times, live are %+v", times, n, w.live())
					}
				})
			})
		}
	}
}

// fails lets the hub die before it brings something forward that it had begun to.
type fails struct {
	checking.Trade
	times int
}

func (f *fails) Renew(ctx context.Context, key factkey.Key, reason, by string) error {
	if f.times++; f.times == 1 {
		return errors.New("the hub dies")
	}
	return f.Trade.Renew(ctx, key, reason, by)
}

func TestAHealThatWasBegunAndNeverMadeIsBegunAgain(t *testing.T) {
	trades(t, false, func(t *testing.T, w *trade) {
		dies := &fails{}
		w.wrap = func(to checking.Trade) checking.Trade { dies.Trade = to; return dies }
		w.restart()
		restore := w.erp.Snapshot()
		w.wrote("po", purchaseOf("REQ-1", object.PurchaseSent))
		restore()
		w.round()
		w.is("po", "verified write_missing")
		if d := w.only(reconcile.WriteMissing); d.State != reconcile.Healing {
			t.Errorf("it is %+v", d)
		}
		w.pass(10 * time.Minute)
		w.is("po", "verified")
		w.pass(10 * time.Minute)
		if dies.times != 2 || len(w.live()) != 0 || w.erp.Carry(tradeKey("po")) != 1 {
			t.Errorf("it was brought forward %d times, live are %+v", dies.times, w.live())
		}
	})
}

func TestASurvivorThatIsTakenForGoneIsFoundAgain(t *testing.T) {
	trades(t, false, func(t *testing.T, w *trade) {
		w.wrote("po", purchaseOf("REQ-1", object.PurchaseSent))
		if err := w.tr.Renew(context.Background(), tradeKey("po"), "taken for gone", "test"); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		w.is("po", "verified")
		if n := w.erp.Effects(tradeKey("po")); n != 1 {
			t.Errorf("it took effect %d times", n)
		}
		if err := w.tr.Renew(context.Background(), tradeKey("none"), "x", "test"); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("a write that is not there is answered %v", err)
		}
	})
}

func TestWhatPeopleOrLaterWritesDidIsNoLoss(t *testing.T) {
	trades(t, false, func(t *testing.T, w *trade) {
		before := w.erp.Snapshot()
		received := w.wrote("received", purchaseOf("REQ-1", object.PurchaseSent))
		w.wrote("worked on", purchaseOf("REQ-2", object.PurchaseDraft))
		w.wrote("cancelled", purchaseOf("REQ-3", object.PurchaseDraft))
		w.erp.Touch("purchase_order,1", func(b *object.Business) { b.Purchase.State = object.PurchaseReceived })
		w.erp.Touch("purchase_order,2", func(b *object.Business) { b.Purchase.Lines[0].Ordered = kgm("80") })
		w.round()
		if all := w.live(); len(all) != 0 {
			t.Fatalf("live are %+v", all)
		}
		// A write through the hub takes one back, as far as the ledger's states go.
		w.erp.Cancels = true
		w.wrote("cancel", moved("PO-3", object.PurchaseCancelled))
		w.round()
		w.is("cancelled", "verified")
		before()
		w.round()
		w.pass(20 * time.Minute)
		w.is("cancelled", "verified") // and is not brought back to life
		w.is("cancel", "verified")
		if n := w.erp.Carry(tradeKey("cancelled")); n != 0 || w.erp.Carry(tradeKey("received")) != 1 || len(w.live()) != 0 {
			t.Errorf("what was cancelled stands %d times, %s %d times, live are %+v", n, received, w.erp.Carry(tradeKey("received")), w.live())
		}
	})
}

func TestACancellationThatIsLostIsMadeAgain(t *testing.T) {
	trades(t, false, func(t *testing.T, w *trade) {
		w.erp.Cancels = true
		w.wrote("po", purchaseOf("REQ-1", object.PurchaseSent))
		restore := w.erp.Snapshot()
		w.wrote("cancel", moved("PO-1", object.PurchaseCancelled))
		restore()
		w.round()
		w.pass(20 * time.Minute)
		w.is("cancel", "verified")
		held, err := w.erp.GetBusiness(context.Background(), object.BusinessPurchase, "PO-1")
		if err != nil || held.Purchase.State != object.PurchaseCancelled {
			t.Errorf("the purchase is %+v, %v", held.Purchase, err)
		}
	})
}

func TestWhatAPersonMustDecideIsNotWrittenAnewByItself(t *testing.T) {
	type scene struct {
		make  func(w *trade) // after the copy was taken
		gone  func(w *trade) // after it was put back
		name  string
		says  string
		kind  reconcile.ActionKind
		after string // the state once it was clicked
	}
	for name, c := range map[string]scene{
		"a count":               {func(w *trade) { w.wrote("x", countOf("5")) }, nil, "x", "what was counted holds for its moment", reconcile.LookUpAndSend, "verified"},
		"what has no reference": {func(w *trade) { w.wrote("x", purchaseOf("", object.PurchaseSent)) }, nil, "x", "it has no reference", reconcile.LookUpAndSend, "verified"},
		"what was entered again": {func(w *trade) { w.wrote("x", purchaseOf("REQ-1", object.PurchaseSent)) },
			func(w *trade) { w.erp.Put(purchaseOf("REQ-1", object.PurchaseSent)) }, "x", "somebody may have entered it again: PO-", reconcile.LookUpAndSend, "verified write_differs"},
		"what names what was not made here": {func(w *trade) { w.wrote("x", receiptOf("PO-1", "ASN-1")) }, nil, "x", `names purchase order "PO-1", which was not made through the hub`, reconcile.LookUpAndSend, "verified"},
	} {
		t.Run(name, func(t *testing.T) {
			trades(t, false, func(t *testing.T, w *trade) {
				w.erp.Put(purchaseOf("BY-HAND", object.PurchaseSent))
				restore := w.erp.Snapshot()
				c.make(w)
				restore()
				if c.gone != nil {
					c.gone(w)
				}
				w.round()
				w.pass(2 * time.Hour)
				w.is(c.name, "verified write_missing")
				d := w.only(reconcile.WriteMissing)
				if d.Heals != 0 || !strings.Contains(d.Why, c.says) || d.Proposed.Kind != c.kind {
					t.Errorf("it is %s, proposed %s %q, heals %d, because %q", d.State, d.Proposed.Kind, d.Proposed.Text, d.Heals, d.Why)
				}
				if err := w.check.Act(context.Background(), d.ID, "anna", "it is to be there"); err != nil {
					t.Fatal(err)
				}
				w.pass(5 * time.Minute)
				w.is(c.name, c.after) // with another number, where that was taken
				w.round()
				if want := strings.Count(c.after, "differs"); len(w.live()) != want || w.erp.Carry(tradeKey(c.name)) != 1 {
					t.Errorf("live are %+v", w.live())
				}
			})
		})
	}
}

func TestALostNumberThatSomebodyElseHasNowIsNotTakenForOurs(t *testing.T) {
	trades(t, false, func(t *testing.T, w *trade) {
		restore := w.erp.Snapshot()
		number := w.wrote("po", purchaseOf("REQ-1", object.PurchaseSent))
		w.wrote("asn", receiptOf(number, "ASN-1"))
		restore()
		other := purchaseOf("OTHER", object.PurchaseSent)
		w.erp.Put(other) // has the number of ours now, and its technical key
		w.round()
		w.pass(30 * time.Minute)
		x := w.is("po", "verified write_differs")
		if x.Document == number {
			t.Fatalf("it has the number %s again", number)
		}
		w.is("asn", "verified write_missing")
		late := store.Write{Key: tradeKey("late"), ERP: "erp", Want: receiptOf(number, "ASN-2"), By: "mes"} // by one who knows the old number only
		if _, _, err := w.tr.Submit(context.Background(), late); !errors.Is(err, trading.ErrInvalid) || !strings.Contains(err.Error(), fmt.Sprintf("%q is %q since", number, x.Document)) {
			t.Errorf("a receipt for the old number is answered %v", err)
		}
		late.Accept = []string{trading.AcceptRenamed}
		if _, _, err := w.tr.Submit(context.Background(), late); err != nil {
			t.Errorf("a receipt that means what has the number now is answered %v", err)
		}
		var told, asked bool
		for _, d := range w.live() {
			told = told || d.Type == reconcile.WriteDiffers && d.Left.Value == number && d.Right.Value == x.Document
			asked = asked || d.Type == reconcile.WriteMissing && d.Proposed.Kind == reconcile.Ask && strings.Contains(d.Why, "brought forward as "+x.Document)
			if d.Type != reconcile.WriteDiffers {
				continue
			}
			if err := w.s.DecideDiscrepancy(context.Background(), d.ID, "accepted", "anna", "told the supplier", func(d *reconcile.Discrepancy) { d.State = reconcile.Accepted }); err != nil {
				t.Fatal(err)
			}
		}
		if !told || !asked || w.erp.Carry(tradeKey("asn")) != 0 {
			t.Errorf("live are %+v", w.live())
		}
		w.round()
		w.only(reconcile.WriteMissing) // what was accepted does not come again
	})
}

func TestAChangedWriteIsShownAndLeftAlone(t *testing.T) {
	trades(t, false, func(t *testing.T, w *trade) {
		w.wrote("po", purchaseOf("REQ-1", object.PurchaseSent))
		w.erp.Touch("purchase_order,1", func(b *object.Business) { b.Purchase.Lines[0].Ordered = kgm("10") })
		w.round()
		w.is("po", "verified write_differs")
		d := w.only(reconcile.WriteDiffers)
		if err := w.check.Act(context.Background(), d.ID, "anna", "do it"); !errors.Is(err, checking.ErrByHand) {
			t.Errorf("there is nothing to be done without a person, and the answer is %v", err)
		}
		w.erp.Touch("purchase_order,1", func(b *object.Business) { b.Purchase.Lines[0].Ordered = kgm("100") })
		w.round()
		w.is("po", "verified")
		_, steps := w.write("po")
		if last := steps[len(steps)-1]; last.Step != "stands again" || len(w.live()) != 0 || w.erp.Effects(tradeKey("po")) != 1 {
			t.Errorf("its last step is %+v, live are %+v", last, w.live())
		}
	})
}

func TestWritesAreReadBackInTheirWindowOnly(t *testing.T) {
	trades(t, true, func(t *testing.T, w *trade) {
		w.every = 10 * time.Minute
		w.restart()
		restore := w.erp.Snapshot()
		w.wrote("po", purchaseOf("REQ-1", object.PurchaseSent))
		w.pass(70 * time.Hour)
		asked := w.erp.Calls("find")
		if asked < 60 || asked > 75 {
			t.Errorf("in 70 hours it was read back %d times, want once an hour", asked)
		}
		restore()
		w.pass(time.Hour)
		d := w.only(reconcile.WriteMissing)
		w.pass(100 * time.Hour) // what is known goes on being looked at
		if again := w.only(reconcile.WriteMissing); again.ID != d.ID || again.LastSeen.Sub(d.LastSeen) < 90*time.Hour {
			t.Errorf("it is %+v", again)
		}
	})
	trades(t, true, func(t *testing.T, w *trade) {
		w.every = 10 * time.Minute
		w.restart()
		restore := w.erp.Snapshot()
		w.wrote("po", purchaseOf("REQ-1", object.PurchaseSent))
		w.pass(74 * time.Hour)
		restore()
		w.pass(10 * time.Hour)
		if all := w.live(); len(all) != 0 {
			t.Errorf("a write outside of the window was read back: %+v", all)
		}
	})
}

func TestAHundredLostWritesStayInsideTheLimits(t *testing.T) {
	trades(t, false, func(t *testing.T, w *trade) {
		restore := w.erp.Snapshot()
		var names []string
		for n := range 100 {
			names = append(names, fmt.Sprint("po ", n))
			if _, _, err := w.tr.Submit(context.Background(), store.Write{Key: tradeKey(names[n]), ERP: "erp", Want: purchaseOf(fmt.Sprint("REQ-", n), object.PurchaseSent)}); err != nil {
				t.Fatal(err)
			}
		}
		w.pass(10 * time.Minute)
		restore()
		w.round()
		w.pass(30 * time.Minute)
		slices.Sort(names)
		for _, name := range names {
			x, _ := w.write(name)
			if x.State != store.PostingVerified || w.erp.Carry(x.Key) != 1 {
				t.Errorf("%s is %s %s and stands %d times", name, x.State, x.Code, w.erp.Carry(x.Key))
			}
		}
	})
}
