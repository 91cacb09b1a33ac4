package trading

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
)

func (w *world) revisions(o store.BusinessObject) []store.BusinessRevision {
	w.t.Helper()
	all, err := w.s.BusinessRevisions(context.Background(), o.ID)
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

// alarms are the open ones of objects that cannot be read, by subject.
func (w *world) alarms() map[string]string {
	w.t.Helper()
	all, err := w.s.OpenAlarms(context.Background(), CodeUnreadable, "")
	if err != nil {
		w.t.Fatal(err)
	}
	return all
}

func TestEachChangeIsOneRevisionAndAReadingThatSaysTheSameIsNone(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.mirrored()
		var keys []string
		for range 10 { // more than a page
			keys = append(keys, w.erp.Put(purchase(object.PurchaseDraft)))
		}
		w.start()
		w.pass(time.Minute)
		if n := len(w.objects(object.BusinessPurchase, false)); n != 10 {
			t.Fatalf("%d of 10 objects are stored", n)
		}
		w.erp.Touch(keys[3], func(b *object.Business) { b.Purchase.State = object.PurchaseSent })
		w.erp.Touch(keys[4], func(*object.Business) {}) // changed there, and says the same
		w.pass(time.Minute)
		w.stop()
		w.mirrors[0].Every = 10 * time.Minute
		w.start() // a hub that starts again
		w.pass(48 * time.Hour)
		all := w.objects(object.BusinessPurchase, false)
		if all[0].Key != keys[3] || all[0].Revision != 2 || all[0].Object.Purchase.State != object.PurchaseSent {
			t.Errorf("what changed last is %+v", all[0])
		}
		if r := w.revisions(all[0]); len(r) != 2 || r[0].Object.Purchase.State != object.PurchaseDraft || r[1].Object.Purchase.State != object.PurchaseSent {
			t.Errorf("its revisions are %+v", r)
		}
		for _, o := range all[1:] {
			if r := w.revisions(o); o.Revision != 1 || len(r) != 1 {
				t.Errorf("%s, which says what it said, has %d revisions", o.Key, len(r))
			}
		}
		if o := all[1].Object; o.Held().ERP != "erp" || o.Held().RevisedAt.IsZero() || !o.Purchase.Lines[0].Price.Price.Amount.Equal(d("2.1")) {
			t.Errorf("an object is kept as %+v", o.Purchase)
		}
	})
}

func TestObjectsThatCannotBeReadStopNoNeighbourAndAreNamed(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.mirrored()
		var keys []string
		for range 9 {
			keys = append(keys, w.erp.Put(purchase(object.PurchaseDraft)))
		}
		for _, k := range keys[:3] { // a whole page of them
			w.erp.Break(k, `unit "Fass" is not mapped`)
		}
		w.start()
		w.pass(time.Minute)
		if n := len(w.objects(object.BusinessPurchase, false)); n != 6 {
			t.Errorf("%d objects are stored, want the 6 that can be read", n)
		}
		told := w.alarms()
		if len(told) != 3 || !strings.Contains(told["erp/purchase_order/PO-1"], `purchase order "PO-1" of "erp" cannot be read: unit "Fass" is not mapped`) {
			t.Errorf("the alarms are %v", told)
		}
		w.erp.Break(keys[8], "no") // one that was read before
		w.pass(time.Minute)
		w.stop()
		w.mirrors[0].Whole = time.Minute
		w.start()
		w.pass(2 * time.Minute) // read from the beginning meanwhile
		if n := len(w.objects(object.BusinessPurchase, false)); n != 6 || len(w.alarms()) != 4 {
			t.Errorf("one that became unreadable: %d objects, alarms %v", n, w.alarms())
		}
		for _, k := range []string{keys[0], keys[8]} {
			w.erp.Break(k, "")
		}
		w.pass(time.Minute)
		if n := len(w.objects(object.BusinessPurchase, false)); n != 7 || len(w.alarms()) != 2 {
			t.Errorf("after two were mended: %d objects, alarms %v", n, w.alarms())
		}
	})
}

// number is a reader whose objects the store could not give back.
type number struct{ *connectortest.Ledger }

func (n number) ListBusiness(ctx context.Context, kind object.BusinessKind, cursor string) (connector.BusinessChanges, error) {
	page, err := n.Ledger.ListBusiness(ctx, kind, cursor)
	for i := range page.Objects {
		switch i {
		case 0:
			page.Objects[i].Sale = &object.SalesOrder{} // of two kinds
		case 1:
			*page.Objects[i].Purchase = object.PurchaseOrder{} // of no name
		}
	}
	return page, err
}

func TestObjectsThatAreNoneStopNoNeighbour(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		for range 3 {
			w.erp.Put(purchase(object.PurchaseDraft))
		}
		w.mirrors = []Mirror{{ERP: "erp", Kinds: []object.BusinessKind{object.BusinessPurchase}, Every: 10 * time.Second}}
		w.build()
		w.tr.kinds[0].from = number{w.erp}
		if _, err := w.tr.kinds[0].step(context.Background()); err != nil {
			t.Fatal(err)
		}
		if n := len(w.objects(object.BusinessPurchase, false)); n != 1 || len(w.alarms()) != 2 {
			t.Errorf("%d objects are stored, alarms %v", n, w.alarms())
		}
	})
}

func TestKindThatCannotBeReadStopsNoOtherAndSaysSo(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.mirrored()
		w.erp.Put(purchase(object.PurchaseDraft))
		var down atomic.Bool
		down.Store(true)
		w.erp.Mishaps(func(call string, _ connector.Write) connectortest.Mishap {
			if call == "list" && down.Load() {
				return connectortest.Down
			}
			return connectortest.NoMishap
		})
		w.start()
		w.pass(time.Hour)
		c, err := w.s.BusinessCursor(context.Background(), "erp", object.BusinessPurchase)
		if err != nil || c.FailedAt.IsZero() || !strings.Contains(c.Error, "the ledger is down") {
			t.Errorf("the cursor says %+v, %v", c, err)
		}
		told, err := w.s.OpenAlarms(context.Background(), CodeNotRead, "")
		if err != nil || len(told) != 5 || !strings.Contains(told["erp/purchase_order"], "the ledger is down") {
			t.Errorf("the alarms are %v, %v", told, err)
		}
		w.submit("cc", count("5")) // a listing that fails keeps nobody from writing
		w.pass(time.Minute)
		w.want("cc", store.PostingVerified, "", 1)
		down.Store(false)
		w.pass(10 * time.Minute)
		if told, err := w.s.OpenAlarms(context.Background(), CodeNotRead, ""); err != nil || len(told) != 0 {
			t.Errorf("after it came back there are the alarms %v, %v", told, err)
		}
		all, err := w.s.BusinessCursors(context.Background())
		if i := slices.IndexFunc(all, func(c store.BusinessCursor) bool { return c.Kind == object.BusinessPurchase }); err != nil || i < 0 || !all[i].FailedAt.IsZero() || all[i].Objects != 1 {
			t.Errorf("after it came back the cursors say %+v %v", all, err)
		}
	})
}

func TestReadingLeavesTheOtherCallsToPostings(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.mirrored()
		now, most := 0, 0
		w.erp.Mishaps(func(call string, _ connector.Write) connectortest.Mishap {
			if call == "list" {
				now++
				most = max(most, now)
				time.Sleep(time.Second)
				now--
			}
			return connectortest.NoMishap
		})
		w.start()
		w.pass(time.Minute)
		if most != 1 {
			t.Errorf("%d kinds of one system were read at a time", most)
		}
	})
}

func TestHubThatDiesWhileItReadsReadsOn(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.mirrored()
		for range 8 {
			w.erp.Put(purchase(object.PurchaseDraft))
		}
		var lists atomic.Int64
		w.erp.Mishaps(func(call string, _ connector.Write) connectortest.Mishap {
			if call == "list" {
				lists.Add(1)
			}
			return connectortest.NoMishap
		})
		for range 6 { // dies again and again, each time a little later
			w.start()
			w.pass(time.Duration(lists.Load()%3) * time.Millisecond)
			w.stop()
			w.s.Close()
			w.open()
		}
		w.start()
		w.pass(time.Minute)
		all := w.objects(object.BusinessPurchase, false)
		if len(all) != 8 {
			t.Errorf("%d of 8 objects are stored", len(all))
		}
		for _, o := range all {
			if o.Revision != 1 {
				t.Errorf("%s has %d revisions", o.Key, o.Revision)
			}
		}
	})
}

// A system that was put back has less, and older, than its cursor says. Nothing breaks, and after a day the mirror says what it has.
func TestRestoredSystemIsHarmlessAndIsSeenAsItIs(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.mirrored()
		old := w.erp.Put(purchase(object.PurchaseDraft))
		restore := w.erp.Snapshot()
		w.mirrors[0].Every = 5 * time.Minute
		w.start()
		w.pass(time.Minute)
		w.erp.Touch(old, func(b *object.Business) { b.Purchase.State = object.PurchaseSent })
		lost := w.erp.Put(purchase(object.PurchaseDraft))
		w.pass(10 * time.Minute)
		restore()
		made := w.erp.Put(receipt("PO-1", "5"))
		w.pass(time.Hour)
		if n := len(w.objects(object.BusinessPurchase, false)); n != 2 {
			t.Errorf("before it is read anew the mirror has %d, want what it had", n)
		}
		w.pass(25 * time.Hour)
		all := w.objects(object.BusinessPurchase, false)
		if len(all) != 1 || all[0].Key != old || all[0].Object.Purchase.State != object.PurchaseDraft || all[0].Revision != 3 {
			t.Errorf("after a day the mirror has %+v", all)
		}
		gone := w.objects(object.BusinessPurchase, true)
		if len(gone) != 2 || gone[1].Key != lost && gone[0].Key != lost {
			t.Errorf("what is gone is not kept: %+v", gone)
		}
		if s := w.objects(object.BusinessShipment, false); len(s) != 1 || s[0].Key != made {
			t.Errorf("what was made since is listed as %+v", s)
		}
	})
}

func TestObjectsLeadToEachOther(t *testing.T) {
	simulate(t, func(t *testing.T, w *world) {
		w.mirrored()
		w.start()
		w.submit("po", purchase(object.PurchaseSent))
		w.pass(time.Minute)
		order := w.want("po", store.PostingVerified, "", 1).Document
		w.submit("receipt", receipt(order, "60"))
		w.pass(time.Minute)
		shipment := w.want("receipt", store.PostingVerified, "", 1).Document
		b := invoice(order, "60")
		b.Invoice.Lines[0].Receipts = []string{shipment}
		w.submit("invoice", b)
		w.pass(time.Minute)
		named := func(kind object.BusinessKind, number string) (all []string) {
			rows, err := w.s.Business(context.Background(), store.BusinessFilter{ERP: "erp", LinkedTo: object.Link{Kind: kind, Number: number}}, store.Page{})
			if err != nil {
				t.Fatal(err)
			}
			for _, o := range rows {
				all = append(all, string(o.Object.Kind))
			}
			return all
		}
		if got := fmt.Sprint(named(object.BusinessPurchase, order)); got != "[invoice shipment]" {
			t.Errorf("the order is named by %s", got)
		}
		if got := fmt.Sprint(named(object.BusinessShipment, shipment)); got != "[invoice]" {
			t.Errorf("the receipt is named by %s", got)
		}
	})
}
