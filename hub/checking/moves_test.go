package checking

import (
	"testing"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// What a fact moves in a stock is what was posted of it, in the books' words: also of material that comes back, and of a fact that takes
// another back.
func TestAFactMovesWhatWasPostedOfIt(t *testing.T) {
	n := decimal.NewFromInt
	kg := func(v int64) object.Quantity { return object.Quantity{Value: n(v), Unit: "KGM"} }
	issued := func(q int64, movement object.Movement) object.Fact {
		return object.Fact{Key: factkey.Of("f"), Consumption: &object.Consumption{OrderNo: "1", Item: "STEEL", Lot: "L1", Movement: movement, Quantity: kg(q)}}
	}
	back := issued(-3, object.Issue)
	back.Reverses = factkey.Of("other")
	grams := &reconcile.Words{Item: "STAHL", Unit: "GRM", Amounts: map[object.QuantityKind]decimal.Decimal{object.Consumed: n(3000)}}
	made := func(operation string) object.Fact {
		return object.Fact{Key: factkey.Of("f"), Confirmation: &object.Confirmation{OrderNo: "1", Operation: operation, Item: "FG", Unit: "C62", Yield: n(5)}}
	}
	sideBySide := &object.WorkOrder{Operations: []object.Operation{{Operation: "0010"}, {Operation: "0020"}, {Operation: "0015"}}, LastOperation: "0020"}
	for name, c := range map[string]struct {
		fact reconcile.Fact
		want string
	}{
		"rounded":               {reconcile.Fact{Fact: issued(3, object.Issue), Amounts: map[object.QuantityKind]decimal.Decimal{object.Consumed: n(2)}}, "-2 KGM of STEEL lot L1"},
		"returned, rounded":     {reconcile.Fact{Fact: issued(3, object.Return), Amounts: map[object.QuantityKind]decimal.Decimal{object.Consumed: n(2)}}, "2 KGM of STEEL lot L1"},
		"taken back, mapped":    {reconcile.Fact{Fact: back, Books: grams}, "3000 GRM of STAHL lot L1"},
		"last of its sequences": {reconcile.Fact{Fact: made("20")}, "5 C62 of FG lot "},
		"before the last":       {reconcile.Fact{Fact: made("0015")}, ""},
	} {
		got := ""
		for _, m := range movesOfFact(&reconcile.Order{OrderNo: "1", Work: sideBySide}, &c.fact).moves {
			got += m.Moved.String() + " " + m.Unit + " of " + m.Item + " lot " + m.Lot
		}
		if got != c.want {
			t.Errorf("%s: it moves %q, want %q", name, got, c.want)
		}
	}
}
