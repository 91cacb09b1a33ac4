package s4_test

import (
	"maps"
	"slices"
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

func customs() *object.MovementTypes {
	return &object.MovementTypes{Set: "movements", Version: 3, Types: map[object.MovementKind]string{object.ReceiptFromOrder: "Z01", object.ReceiptReversal: "Z02",
		object.IssueToOrder: "Z61", object.ReturnFromOrder: "Z62", object.ByProduct: "Z31", object.ByProductReversal: "Z32"}}
}

// types are the movement types of an order's documents, in the order in which they were booked.
func types(t *testing.T, b *bench, order string) (all []string) {
	t.Helper()
	for _, d := range b.Movements(order) {
		all = append(all, d.Type)
	}
	return all
}

// A mapping's types go with every movement that the connector writes, and back; what a mapping with them does not know stops by its name.
func TestMovementTypesOfAMappingArePostedReadBackAndTakenBack(t *testing.T) {
	t.Parallel()
	for _, way := range []string{"explicit", "separate"} {
		b := newBench(t, s4double.Traps{})
		c, order := b.connect(t, func(c *s4.Config) { c.Movements = way }), b.order(t, "40")
		b.change(t, order, func(o *s4double.Order) {
			o.Components = append(o.Components, s4double.Component{Item: "2", Material: maker, StorageLocation: place, Operation: "0010", Required: d("1"), MovementType: "Z31"})
		})
		w, err := c.Get(t.Context(), order)
		if err != nil || len(w.Components) != 2 || w.Components[0].MovementType != "" || w.Components[1].MovementType != "Z31" {
			t.Fatalf("the components are %+v, %v", w.Components, err)
		}
		made, used, chips := confirmation(order, "12", "0"), consumption(order, "1.5", object.Issue), consumption(order, "1", object.Return)
		chips.Fact.Consumption.Item, chips.Fact.Consumption.Quantity.Unit = maker, "C62"
		all := []connector.Posting{made, used, chips}
		for i := range all {
			all[i].Movements = customs()
			settled(t, c, all[i])
		}
		if got := types(t, b, order); !slices.Equal(got, []string{"Z01", "Z61", "Z31"}) {
			t.Errorf("%s: posted as %v", way, got)
		}
		for _, e := range listed(t, c, order) {
			for _, m := range e.Movements {
				if m.Failed || m.Backflush {
					t.Errorf("%s: %+v of %s", way, m, e.Number)
				}
			}
		}
		for _, p := range all {
			back := p
			back.Fact.Key, back.Fact.Reverses, back.Original = factkey.Random(), p.Fact.Key, &connector.Original{Fact: p.Fact}
			settled(t, c, back)
		}
		want := []string{"Z01", "Z61", "Z31", "Z02", "Z62", "Z32"}
		if got := types(t, b, order); !slices.Equal(got, want) {
			t.Errorf("%s: the documents are %v, want %v", way, got, want)
		}
	}
}

func TestMovementThatTheMappingDoesNotKnowStopsByItsName(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	c, order := b.connect(t), b.order(t, "40")
	for kind, p := range map[object.MovementKind]connector.Posting{object.ReceiptFromOrder: confirmation(order, "12", "0"),
		object.IssueToOrder: consumption(order, "1", object.Issue), object.ReturnFromOrder: consumption(order, "1", object.Return)} {
		p.Movements = customs()
		maps.DeleteFunc(p.Movements.Types, func(k object.MovementKind, _ string) bool { return k == kind })
		ends(t, c, p, connectortest.Refused, string(kind), "movements", "version 3")
	}
	if x := b.Totals(order); x.Confirmations+x.Documents > 0 {
		t.Errorf("the order holds %+v", x)
	}
	scrap := confirmation(order, "0", "2") // moves nothing, and needs no type
	scrap.Movements = &object.MovementTypes{Set: "movements", Version: 3}
	settled(t, c, scrap)
}
