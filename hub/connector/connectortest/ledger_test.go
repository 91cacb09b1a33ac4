package connectortest

import (
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

func ledgerPurchase() connector.Write {
	d := decimal.RequireFromString
	return connector.Write{Key: factkey.Random(), PostingDate: time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC), Want: object.Business{Kind: object.BusinessPurchase, Purchase: &object.PurchaseOrder{
		Reference: factkey.Random().String(), Supplier: "SUP", Currency: "EUR", State: object.PurchaseSent, Lines: []object.PurchaseLine{{LineNo: "10", Item: "STEEL",
			Ordered: object.Quantity{Value: d("100"), Unit: "KGM"}, Price: object.UnitPrice{Price: object.Money{Amount: d("2.10"), Currency: "EUR"}, Per: object.Quantity{Value: d("1"), Unit: "KGM"}}}}}}}
}

// What is tried on the ledger means something only when it keeps the promises of a connector itself.
func TestLedgerKeepsThePromisesOfAConnector(t *testing.T) {
	l := NewLedger()
	RunBusiness(t, BusinessHarness{Connect: func(testing.TB) connector.Connector { return l }, Cases: []BusinessCase{{
		Name: "Purchase", New: func(testing.TB) connector.Write { return ledgerPurchase() },
		Held:   func(_ testing.TB, w connector.Write) int { return l.Effects(w.Key) },
		Change: func(w *connector.Write) { w.Want.Purchase.Lines[0].Ordered.Value = decimal.New(101, 0) },
	}}})
}

func TestLedgerDoublesWhatIsWrittenBlindlyAgain(t *testing.T) {
	l := NewLedger()
	l.Forgetful = true
	w := ledgerPurchase()
	for range 2 {
		intent, early, err := l.PrepareBusiness(t.Context(), w)
		if early != nil || err != nil {
			t.Fatal(early, err)
		}
		l.WriteBusiness(t.Context(), w, intent)
	}
	if n := l.Effects(w.Key); n != 2 {
		t.Errorf("what was written twice without a look-up took effect %d times: the ledger hides the mistake", n)
	}
}

func TestLedgersLateRequestFindsItsGateChanged(t *testing.T) {
	for _, looksUp := range []bool{true, false} {
		l := NewLedger()
		w := ledgerPurchase()
		intent, _, err := l.PrepareBusiness(t.Context(), w)
		if err != nil {
			t.Fatal(err)
		}
		l.Mishaps(func(call string, _ connector.Write) Mishap { return map[string]Mishap{"write": Late}[call] })
		if out := l.WriteBusiness(t.Context(), w, intent); out.Result != connector.InDoubt {
			t.Fatalf("a late request is answered %+v", out)
		}
		want := 1
		if looksUp {
			want = 0
			if f, err := l.LookupBusiness(t.Context(), w, intent); err != nil || f.Presence != connector.Absent {
				t.Fatal(f, err)
			}
		}
		l.Deliver()
		if n := l.Effects(w.Key); n != want {
			t.Errorf("looked up %t: the late request took effect %d times, want %d", looksUp, n, want)
		}
	}
}
