package tryton_test

import (
	"testing"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// Reconciliation sees in Tryton what was posted, by the facts' keys, and what a person has added without one.
func TestTheMovesOfAnOrderAreListedByFact(t *testing.T) {
	p := startPlant(t)
	c := p.connect(t)
	no := p.order(t, "100")
	made, used := confirmation(no, "10", "2", "0"), consumption(no, "30")
	settle(t, c, made)
	settle(t, c, used)
	whole := confirmation(no, "7", "0", "0") // Tryton takes no scrap back
	settle(t, c, whole)
	back := whole
	back.Fact.Key, back.Fact.Reverses = factkey.Random(), whole.Fact.Key
	back.Original = &connector.Original{Fact: whole.Fact}
	settle(t, c, back)
	all, err := c.Effects(t.Context(), no)
	if err != nil {
		t.Fatal(err)
	}
	byKey := map[string]object.Effect{}
	for _, e := range all.Documents {
		byKey[e.Key] = e
	}
	if len(all.Documents) != 4 || len(byKey) != 4 || all.Order.OrderNo != no || all.Order.State != object.OrderInProgress {
		t.Fatalf("%+v", all)
	}
	want := func(key factkey.Key, kind object.Kind, q object.QuantityKind, value string) object.Effect {
		t.Helper()
		e := byKey[key.String()]
		sum := decimal.Zero
		for _, x := range e.Quantities {
			if x.Kind == q {
				sum = sum.Add(x.Value)
			}
		}
		if e.Kind != kind || !sum.Equal(decimal.RequireFromString(value)) || e.Number == "" || e.PostingDate == "" || e.BookedAt.IsZero() {
			t.Errorf("want %s %s: %+v", q, value, e)
		}
		return e
	}
	want(made.Fact.Key, object.KindConfirmation, object.Yield, "10")
	first := want(whole.Fact.Key, object.KindConfirmation, object.Yield, "7")
	want(made.Fact.Key, object.KindConfirmation, object.Scrap, "2")
	want(used.Fact.Key, object.KindConsumption, object.Consumed, "30")
	second := want(back.Fact.Key, object.KindConfirmation, object.Yield, "-7")
	if second.Reverses != first.Number || first.ReversedBy != second.Number {
		t.Errorf("%+v does not reverse %+v", second, first)
	}
	if _, err := c.Effects(t.Context(), "no such order"); err == nil {
		t.Error("an order that is not there has effects")
	}
}
