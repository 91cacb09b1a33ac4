package console_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/console"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/trading"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// newTrade is a console before a ledger.
func newTrade(t *testing.T) (*world, *connectortest.Ledger, *trading.Trader) {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	erp := connectortest.NewLedger()
	connectors := map[string]connector.Connector{"ledger": erp}
	engine := posting.New(posting.Options{Store: s, Connectors: connectors})
	tr := trading.New(trading.Options{Store: s, Connectors: connectors, Posting: engine, Writes: []string{"ledger"},
		Mirrors: []trading.Mirror{{ERP: "ledger", Kinds: erp.ReadsBusiness(), Every: 50 * time.Millisecond}}})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- tr.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		s.Close()
	})
	return &world{t: t, s: s, set: func(*http.Request) {}, handler: console.New(api.New(s, engine, api.Options{Now: time.Now, Trader: tr}))}, erp, tr
}

func amount(value, unit string) object.Quantity {
	return object.Quantity{Value: decimal.RequireFromString(value), Unit: unit}
}

func bought() object.Business {
	return object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{Supplier: "SUP <1>", Reference: "REQ-7", Currency: "EUR", State: object.PurchaseSent, OrderDate: "2026-11-26",
		Lines: []object.PurchaseLine{{LineNo: "10", Item: "STEEL", Ordered: amount("100.5", "KGM"), Received: decimal.RequireFromString("60.25"),
			Price: object.UnitPrice{Price: object.Money{Amount: decimal.RequireFromString("210"), Currency: "EUR"}, Per: amount("100", "KGM")}}}}}
}

func (w *world) eventually(path string, words ...string) {
	w.t.Helper()
	realparts.Eventually(w.t, 20*time.Second, path, func() error {
		if rec := w.call("GET", path, nil); rec.Code != http.StatusOK {
			return fmt.Errorf("%d", rec.Code)
		}
		return nil
	})
	w.page(path, words...)
}

func TestObjectsAreShownWithMoneyQuantitiesRevisionsAndWhatBelongsToThem(t *testing.T) {
	w, erp, _ := newTrade(t)
	key := erp.Put(bought())
	erp.Put(object.Business{Kind: object.BusinessShipment, Shipment: &object.Shipment{Direction: object.Inbound, Partner: "SUP <1>", State: object.ShipmentDelivered,
		Lines: []object.ShipmentLine{{OrderNo: "PO-1", Item: "STEEL", Quantity: amount("60.25", "KGM"), Lot: "HEAT-7"}}}})
	erp.Put(object.Business{Kind: object.BusinessInvoice, Invoice: &object.Invoice{Direction: object.Inbound, Kind: object.InvoiceDebit, Partner: "SUP <1>", Currency: "EUR", State: object.InvoiceReceived,
		Net: decimal.RequireFromString("126.53"), Gross: decimal.RequireFromString("126.53"), Lines: []object.InvoiceLine{{OrderNo: "PO-1", Receipts: []string{"SH-2"}, Item: "STEEL",
			Quantity: amount("60.25", "KGM"), Price: bought().Purchase.Lines[0].Price, Amount: decimal.RequireFromString("126.53")}}}})
	w.eventually("/objects/purchase_order/ledger/PO-1", "Purchase order", "100.5 kg", "210 EUR / 100 kg", "60.25", "SUP <1>", "2026-11-26")
	w.eventually("/objects/shipment/ledger/SH-2", "60.25 kg", "HEAT-7", "PO-1")
	w.eventually("/objects/invoice/ledger/INV-3", "126.53 EUR", "PO-1", "SH-2")
	w.page("/objects/purchase_order/ledger/PO-1", "SH-2", "INV-3", "received")
	erp.Touch(key, func(b *object.Business) { b.Purchase.State = object.PurchasePartReceived })
	realparts.Eventually(t, 20*time.Second, "the second revision", func() error {
		all, err := w.s.FindBusiness(t.Context(), "ledger", object.BusinessPurchase, "PO-1")
		if err == nil && all[0].Revision != 2 {
			err = fmt.Errorf("revision %d", all[0].Revision)
		}
		return err
	})
	w.page("/objects/purchase_order/ledger/"+url.PathEscape(key), "revision 2", "revision 1", "part received")
	w.page("/objects", "purchase order", "cycle count", "ledger")
	w.page("/objects?kind=purchase_order", "PO-1", "REQ-7", "part received")
	w.page("/objects?kind=purchase_order&reference=NONE", "Nothing matches")
	if rec := w.call("GET", "/objects/purchase_order/ledger/PO-9", nil); rec.Code != http.StatusNotFound {
		t.Errorf("an unknown object is answered %d", rec.Code)
	}
}

func TestAKindThatCannotBeReadIsShown(t *testing.T) {
	w, erp, _ := newTrade(t)
	erp.Mishaps(func(call string, _ connector.Write) connectortest.Mishap {
		if call == "list" {
			return connectortest.Down
		}
		return connectortest.NoMishap
	})
	realparts.Eventually(t, 20*time.Second, "a kind to fail", func() error {
		all, err := w.s.BusinessCursors(t.Context())
		for _, c := range all {
			if c.FailedAt.IsZero() {
				return fmt.Errorf("%s does not", c.Kind)
			}
		}
		if err == nil && len(all) < 5 {
			err = fmt.Errorf("%d kinds were tried", len(all))
		}
		return err
	})
	w.page("/", "Of ERP ledger no cycle count can be read", "the ledger is down")
	w.page("/objects", "the ledger is down")
}

func TestAParkedWriteIsDecidedFromAPage(t *testing.T) {
	w, erp, tr := newTrade(t)
	w.page("/writes", "Nobody has wanted to write")
	erp.Mishaps(func(call string, _ connector.Write) connectortest.Mishap {
		if call == "write" && erp.Calls("write") <= 2 {
			return connectortest.Refuses
		}
		return connectortest.NoMishap
	})
	keys := []factkey.Key{factkey.Random(), factkey.Random()}
	for _, k := range keys {
		if _, _, err := tr.Submit(t.Context(), store.Write{Key: k, Want: bought(), By: "mes"}); err != nil {
			t.Fatal(err)
		}
	}
	becomes := func(k factkey.Key, state store.PostingState) {
		t.Helper()
		realparts.Eventually(t, 20*time.Second, "write "+k.String(), func() error {
			x, _, _, err := w.s.WriteLife(t.Context(), k)
			if err == nil && x.State != state {
				err = fmt.Errorf("it is %s", x.State)
			}
			return err
		})
	}
	for _, k := range keys {
		becomes(k, store.PostingParked)
	}
	w.page("/", "Purchase order to ledger waits for a person: stopped", "Mend it and replay the write.")
	path := "/writes/" + keys[0].String()
	w.page(path, "parked", "stopped", "100.5 kg", "Refused by the ERP", "Accept and replay", "Settle", "wanted by mes")
	x, _, _, err := w.s.WriteLife(t.Context(), keys[0])
	if err != nil {
		t.Fatal(err)
	}
	w.page("/inbox", "purchase order REQ-7", "planning")
	w.page(fmt.Sprintf("/inbox/write:%d", x.ID), "Replay", "Settle", "Write "+keys[0].String())
	if rec := w.call("POST", path, url.Values{"action": {"replay"}, "accept": {"stopped"}}); rec.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	becomes(keys[0], store.PostingVerified)
	w.page(path, "verified", "warning stopped accepted", "PO-1", "Read back from the ERP and found equal")
	if rec := w.call("POST", "/writes/"+keys[1].String(), url.Values{"action": {"settle"}, "note": {"by hand"}, "document": {"X-1"}}); rec.Code != http.StatusSeeOther {
		t.Fatalf("%d %s", rec.Code, rec.Body)
	}
	becomes(keys[1], store.PostingSettled)
	w.page("/writes?state=settled", keys[1].String(), "X-1")
	if rec := w.call("POST", path, url.Values{"action": {"nothing"}}); rec.Code != http.StatusBadRequest {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
}
