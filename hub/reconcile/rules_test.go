package reconcile_test

import (
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// The plant's rules decide what is proposed about material that was taken twice, or whose backflush has failed.
func TestOwnerOfConsumptionDecidesWhatIsProposed(t *testing.T) {
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	oil := func(q string, backflush, failed bool) object.EffectMovement {
		return object.EffectMovement{Kind: object.Consumed, Item: "OIL", Quantity: object.Quantity{Value: decimal.RequireFromString(q), Unit: "LTR"}, Backflush: backflush, Failed: failed}
	}
	order := func(all ...object.EffectMovement) reconcile.Order {
		return reconcile.Order{Now: at, Plant: "ulm", ERP: "erp", OrderNo: "WO-1", Asked: true, AsOf: at,
			Work:    &object.WorkOrder{OrderNo: "WO-1", State: object.OrderInProgress, Components: []object.Component{{Item: "OIL"}}},
			Effects: []object.Effect{{Number: "D1", Kind: object.KindConfirmation, State: object.EffectBooked, BookedAt: at.Add(-10 * time.Minute), Movements: all}}}
	}
	for _, x := range []struct {
		name  string
		owner string
		order reconcile.Order
		kind  reconcile.Type
		want  reconcile.ActionKind
		text  string
	}{
		{"twice, the ERP's", "erp", order(oil("2", true, false), oil("3", false, false)), reconcile.DoubleUse, reconcile.Ask, "take back what was posted for the plant, 3 LTR"},
		{"failed, the plant's", "mes", order(oil("2", true, true)), reconcile.MovementFailed, reconcile.Ask, "delete the failed backflush of 2 LTR"},
		{"failed, the ERP's", "erp", order(oil("2", true, true)), reconcile.MovementFailed, reconcile.PostMovement, "post the missing movement"},
	} {
		t.Run(x.name, func(t *testing.T) {
			p := reconcile.DefaultPolicy()
			p.Of = func(plant, erp string) reconcile.Rules {
				return reconcile.Rules{Owner: func(item string, m *object.Component) string {
					if plant != "ulm" || erp != "erp" || item != "OIL" || m == nil {
						t.Errorf("asked about %s %s %s %v", plant, erp, item, m)
					}
					return x.owner
				}}
			}
			for _, f := range reconcile.CheckOrder(x.order, p) {
				if f.Type != x.kind {
					continue
				}
				if f.Proposed.Kind != x.want || !strings.Contains(f.Proposed.Text, x.text) {
					t.Errorf("proposed %+v", f.Proposed)
				}
				return
			}
			t.Error("nothing was found")
		})
	}
}

func TestWhatAPolicyHoldsIsADiscrepancyForAPerson(t *testing.T) {
	at := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for code, want := range map[string]reconcile.Type{"late_fact": reconcile.PeriodClosed, "over_delivery": reconcile.OverDelivery, "order_closed_for_good": reconcile.OrderClosed} {
		f := reconcile.Fact{Fact: object.Fact{Key: factkey.Of(code), Kind: object.KindConfirmation, Plant: "ulm", OccurredAt: at.Add(-time.Hour), RecordedAt: at.Add(-time.Hour),
			Confirmation: &object.Confirmation{OrderNo: "WO-1", Item: "P", Unit: "C62", Yield: decimal.NewFromInt(5)}}, ReceivedAt: at.Add(-time.Hour), State: "parked", Code: code, Since: at.Add(-time.Hour)}
		found := reconcile.CheckOrder(reconcile.Order{Now: at, Plant: "ulm", ERP: "erp", OrderNo: "WO-1", Facts: []reconcile.Fact{f}}, reconcile.DefaultPolicy())
		if len(found) != 1 || found[0].Type != want || !found[0].Escalate || found[0].Heal || found[0].Why == "" {
			t.Errorf("%s: %+v", code, found)
		}
	}
}

// What was taken back and posted under another key is in the books again, beside or in the place of that: no document of the two is reversed by
// itself, because the later number need not be the wrong one.
func TestADocumentThatWasTakenBackAndIsThereAgainGoesToAPerson(t *testing.T) {
	long := time.Now().Add(-time.Hour)
	f := reconcile.Fact{Fact: object.Fact{Key: factkey.Of("f"), Kind: object.KindConfirmation, OccurredAt: long, RecordedAt: long,
		Confirmation: &object.Confirmation{OrderNo: "1", Item: "P", Unit: "C62", Yield: decimal.NewFromInt(7)}},
		ReceivedAt: long, Since: long, State: "verified", Document: "2", Keys: []string{factkey.Of("left").String()}}
	doc := func(number, key string) object.Effect {
		return object.Effect{Number: number, Key: key, Kind: object.KindConfirmation, State: object.EffectBooked, BookedAt: long,
			Quantities: []object.EffectQuantity{{Kind: object.Yield, Item: "P", Quantity: object.Quantity{Value: decimal.NewFromInt(7), Unit: "C62"}}},
			Movements:  []object.EffectMovement{{Kind: object.Yield, Item: "P", Quantity: object.Quantity{Value: decimal.NewFromInt(7), Unit: "C62"}}}}
	}
	for want, docs := range map[reconcile.Type][]object.Effect{
		reconcile.Duplicate: {doc("1", f.Key.String()), doc("2", f.Keys[0])},
		reconcile.Missing:   {doc("1", f.Key.String())},
		"":                  {doc("2", f.Keys[0])},
	} {
		found := reconcile.CheckOrder(reconcile.Order{Now: time.Now(), ERP: "erp", OrderNo: "1", Facts: []reconcile.Fact{f}, Asked: true, AsOf: time.Now(), Effects: docs}, reconcile.DefaultPolicy())
		if want == "" && len(found) > 0 || want != "" && (len(found) != 1 || found[0].Type != want || found[0].Heal || !found[0].Escalate) {
			t.Errorf("%d documents: %+v, want %q for a person", len(docs), found, want)
		}
	}
}
