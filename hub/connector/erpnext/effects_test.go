package erpnext_test

import (
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/erpnext"
	"github.com/linekeeper/linekeeper/hub/connector/erpnext/erpnextdouble"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// What a person's entry takes by the parts list is marked as such; that a person cancelled it is seen without any key.
func TestEntriesMadeByHandAreListed(t *testing.T) {
	t.Parallel()
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{OverPercent: 1000})
	c, order := b.connect(t), b.order(t, "40")
	name, err := b.Manufacture(order, d("8"), erpnextdouble.Raw{Item: taken, Quantity: d("1")})
	if err != nil {
		t.Fatal(err)
	}
	all, err := c.Effects(t.Context(), order)
	if err != nil || len(all.Documents) != 1 {
		t.Fatalf("%+v %v", all, err)
	}
	e := all.Documents[0]
	if len(e.Quantities) != 1 || len(e.Movements) != 2 || !e.Movements[1].Backflush || e.Movements[1].Item != taken || !e.Movements[1].Value.Equal(d("1")) || e.Movements[0].Kind != object.Yield {
		t.Errorf("%+v", e)
	}
	if err := b.Cancel(name); err != nil {
		t.Fatal(err)
	}
	if all, err = c.Effects(t.Context(), order); err != nil || len(all.Documents) != 2 {
		t.Fatalf("%+v %v", all, err)
	}
	first, second := all.Documents[0], all.Documents[1]
	if first.ReversedBy != second.Number || second.Reverses != name || second.Key != "" || !second.Quantities[0].Value.Equal(d("-8")) || !second.Movements[1].Value.Equal(d("-1")) || !second.Movements[1].Backflush {
		t.Errorf("%+v\n%+v", first, second)
	}
	out, err := c.ReverseDocument(t.Context(), second.Number, factkey.Random().String())
	if err != nil || out.Result != connector.Rejected || out.NextStep == "" {
		t.Errorf("a cancellation is cancelled: %+v %v", out, err)
	}
}

// Entries that the site hides from the user, and keys that it does not keep, make an error and never a shorter list.
func TestListOfWhatTheUserMayNotSeeIsAnError(t *testing.T) {
	t.Parallel()
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{OverPercent: 1000})
	c, order := b.connect(t), b.order(t, "40")
	for range 2 {
		name, err := b.Manufacture(order, d("4"))
		if err != nil {
			t.Fatal(err)
		}
		b.Hide(name)
		all, err := c.Effects(t.Context(), order)
		if err == nil || !strings.Contains(err.Error(), "produced") || errors.Is(err, connector.ErrNotFound) {
			t.Errorf("%d entries, %v", len(all.Documents), err)
		}
	}
	odd := b.order(t, "40") // an item that is gone does not make its order gone
	b.change(t, odd, func(o map[string]any) { o["required_items"].([]any)[0].(map[string]any)["item_code"] = "GONE" })
	if all, err := c.Effects(t.Context(), odd); err == nil || errors.Is(err, connector.ErrNotFound) {
		t.Errorf("%d entries of an order with an item that is gone, %v", len(all.Documents), err)
	}
	b.SetTraps(erpnextdouble.Traps{NoKeyField: true})
	if all, err := b.connect(t).Effects(t.Context(), order); err == nil || errors.Is(err, connector.ErrNotFound) {
		t.Errorf("%d entries without a field for keys, %v", len(all.Documents), err)
	}
}

// What is brought to the line changes the stock of two warehouses and uses nothing; of a warehouse that is not read nothing is told.
func TestTransfersMoveStockAndUseNothing(t *testing.T) {
	t.Parallel()
	b := newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{OverPercent: 1000})
	b.PutStock(taken, "Stores - U", d("500"))
	order := b.order(t, "40")
	name, err := b.Stage(order, taken, "Stores - U", d("20"))
	if err != nil {
		t.Fatal(err)
	}
	for _, only := range [][]string{nil, {"Stores - U"}} {
		c := b.connect(t, func(c *erpnext.Config) { c.Warehouses = only })
		all, err := c.Effects(t.Context(), order)
		if err != nil || len(all.Documents) != 1 || len(all.Documents[0].Quantities)+len(all.Documents[0].Movements) != 0 {
			t.Fatalf("%+v %v", all, err)
		}
		moved := map[string]string{}
		for _, m := range all.Documents[0].StockMoves("") {
			moved[m.Location] = m.Value.String()
		}
		want := map[string]string{"Stores - U": "-20", wip: "20"}
		if only != nil {
			delete(want, wip)
		}
		if !maps.Equal(moved, want) {
			t.Errorf("of the warehouses %v entry %s moved %v", only, name, moved)
		}
	}
	if err := b.Cancel(name); err != nil {
		t.Fatal(err)
	}
	all, err := b.connect(t).Effects(t.Context(), order)
	if err != nil || len(all.Documents) != 2 || !all.Documents[1].Stock[0].Value.Equal(d("20")) || !all.Documents[0].Stock[0].Value.Equal(d("-20")) {
		t.Errorf("%+v %v", all, err)
	}
}
