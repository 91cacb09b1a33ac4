package generic_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

func vars(t testing.TB, text string) map[string]any {
	t.Helper()
	v, err := generic.ReadJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return map[string]any{"body": v, "status": 200}
}

func TestValuesOfExpressions(t *testing.T) {
	v := vars(t, `{"n": 0.10, "s": "x", "list": [{"a": 1}, {"a": 2}], "none": null, "deep": {"b": {"c": "d"}}}`)
	for src, want := range map[string]string{
		"body.n":                            "0.1",
		"body.n + 0.2":                      "0.3",
		"string(body.n)":                    `"0.1"`,
		"body.?missing":                     "null",
		"body.?deep.?b.?c":                  `"d"`,
		"body.?deep.?x.?c.orValue('no')":    `"no"`,
		"body.list.map(x, x.a)":             "[1,2]",
		"body.list[1]":                      `{"a":2}`,
		"{'k': body.s}":                     `{"k":"x"}`,
		"status in [200, 201]":              "true",
		"body.s.upperAscii()":               `"X"`,
		"timestamp('2026-03-01T00:00:00Z')": `"2026-03-01T00:00:00Z"`,
	} {
		e, err := generic.Compile(src, "body", "status")
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		got, err := e.Value(v)
		if err != nil {
			t.Errorf("%s: %v", src, err)
			continue
		}
		text, err := generic.JSON(got)
		if err != nil || string(text) != want {
			t.Errorf("%s is %s (%v), want %s", src, text, err, want)
		}
	}
}

func TestAConditionThatCannotBeEvaluatedIsNotTrue(t *testing.T) {
	for _, src := range []string{"body.missing == 1", "size(body) == 0 || body.x", "body.s > 1", "1"} {
		e, err := generic.Compile(src, "body")
		if err != nil {
			t.Fatal(err)
		}
		if e.True(vars(t, `{"s": "text"}`)) {
			t.Errorf("%s is true", src)
		}
	}
}

func TestEndlessWorkIsCutOff(t *testing.T) {
	list := "[" + strings.TrimSuffix(strings.Repeat("1,", 300), ",") + "]"
	e, err := generic.Compile("body.all(a, body.all(b, body.all(c, a + b + c > 0)))", "body")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Value(vars(t, list)); err == nil || !strings.Contains(err.Error(), "cost") {
		t.Errorf("the work of 27 million additions ended with %v", err)
	}
}

func TestTreesAndTemplates(t *testing.T) {
	tree, err := generic.CompileTree(map[string]any{"b": []any{"body.n", true, 3, "body.?none"}, "a": map[string]any{"x": "body.?none", "y": "'<&>'"}}, "body")
	if err != nil {
		t.Fatal(err)
	}
	got, err := tree.Fill(vars(t, `{"n": 12345678901234567890.000000001}`))
	if err != nil {
		t.Fatal(err)
	}
	if text, err := generic.JSON(got); err != nil || string(text) != `{"a":{"y":"<&>"},"b":[12345678901234567890.000000001,true,3]}` {
		t.Errorf("%s, %v", text, err)
	}
	tmpl, err := generic.CompileTemplate("a/{body.s}/{body.s}", "body")
	if err != nil {
		t.Fatal(err)
	}
	same := func(s string) (string, error) { return s, nil }
	if text, err := tmpl.Fill(vars(t, `{"s": "x"}`), same); err != nil || text != "a/x/x" {
		t.Errorf("%q, %v", text, err)
	}
	if text, err := tmpl.Fill(vars(t, `{"s": {}}`), same); err == nil {
		t.Errorf("an object in an address gives %q", text)
	}
	for _, bad := range []any{1.5, time.Now(), map[string]any{"x": "nothing"}} {
		if _, err := generic.CompileTree(bad, "body"); err == nil {
			t.Errorf("%v is taken", bad)
		}
	}
}

func TestFactInTheWordsOfExpressions(t *testing.T) {
	u, err := generic.NewUnits(map[string]string{"PCS": "C62"})
	if err != nil {
		t.Fatal(err)
	}
	key, other := factkey.Of("a"), factkey.Of("b")
	p := connector.Posting{PostingDate: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC), Fact: object.Fact{Key: key, Kind: object.KindConfirmation, Reverses: other,
		Confirmation: &object.Confirmation{OrderNo: "1", Unit: "C62", Yield: decimal.RequireFromString("1.50")}}, Order: object.WorkOrder{Item: "X"}}
	v := generic.FactVars(p, u)
	for src, want := range map[string]string{"key": key.String(), "uuid": key.UUID(), "fact.yield": "1.5", "unit": "PCS", "item": "X", "posting_date": "2026-03-01",
		"original.key": other.String(), "fact.lot": "", "fact.reverses": other.String()} {
		e, err := generic.Compile(src, generic.FactNames...)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := e.Text(v); err != nil || got != want {
			t.Errorf("%s is %q (%v), want %q", src, got, err, want)
		}
	}
	for _, kind := range []object.Fact{{Consumption: &object.Consumption{}}, {Quality: &object.Quality{}}, {OrderState: &object.ShopFloorState{}}} {
		if got, want := len(generic.FactVars(connector.Posting{Fact: kind}, u)["fact"].(map[string]any)), len(v["fact"].(map[string]any)); got != want {
			t.Errorf("a fact has %d names, another %d", got, want)
		}
	}
}

func TestOrderFieldsThatCannotBeReadAreNamed(t *testing.T) {
	u, err := generic.NewUnits(nil)
	if err != nil {
		t.Fatal(err)
	}
	o, err := generic.NewOrders(generic.OrderMap{OrderNo: "row.no", Item: "row.item", Quantity: "row.q", Unit: "row.u", State: "row.s", PlannedStart: "row.?start", OverPercent: "row.?over", OverUnlimited: "row.?any",
		Components: &generic.ComponentMap{Each: "row.?parts", Item: "line.item", Quantity: "line.q", Unit: "line.u"}},
		generic.OrderConfig{ERP: "e", Units: u, States: map[string]string{"REL": "RELEASED"}})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`{"no": 7, "item": "X", "q": "1.5", "u": "C62", "s": "REL", "start": "2026-03-01 06:00"}`:              "start",
		`{"no": 7, "item": "X", "q": "NaN", "u": "C62", "s": "REL"}`:                                           "quantity",
		`{"no": 7, "item": "X", "q": 1, "u": "BOX", "s": "REL"}`:                                               `"BOX" is not mapped: add it to units`,
		`{"no": 7, "item": "X", "q": 1, "u": "C62", "s": "OLD"}`:                                               `"OLD" is not mapped: add it to states`,
		`{"no": "", "item": "X", "q": 1, "u": "C62", "s": "REL"}`:                                              "order number or item is empty",
		`{"no": 7, "item": "X", "q": 1, "u": "C62", "s": "REL", "parts": [{"item": "S", "q": 1, "u": "BOX"}]}`: `component "S": unit "BOX"`,
		`{"no": 7, "item": "X", "q": 1, "u": "C62", "s": "REL", "over": "some"}`:                               "over_percent",
		`{"no": 7, "item": "X", "q": 1, "u": "C62", "s": "REL", "over": -1}`:                                   "over_percent",
		`{"no": 7, "item": "X", "q": 1, "u": "C62", "s": "REL", "parts": 3}`:                                   "no list",
		`[]`: "order_no",
	} {
		v, err := generic.ReadJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := o.Read(v); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	v, _ := generic.ReadJSON([]byte(`{"no": 7, "item": "X", "q": 1.500, "u": "C62", "s": "REL", "parts": [{"item": "S", "q": "0.25", "u": "KGM"}]}`))
	w, err := o.Read(v)
	if err != nil || w.OrderNo != "7" || !w.Quantity.Value.Equal(decimal.RequireFromString("1.5")) || w.State != object.OrderReleased || len(w.Components) != 1 {
		t.Errorf("%+v, %v", w, err)
	}
}

func TestToleranceOfAnOrderIsReadWhereThereIsOne(t *testing.T) {
	u, err := generic.NewUnits(nil)
	if err != nil {
		t.Fatal(err)
	}
	o, err := generic.NewOrders(generic.OrderMap{OrderNo: "row.no", Item: "row.no", Quantity: "1", Unit: "'C62'", State: "'RELEASED'", OverPercent: "row.?over", OverUnlimited: "row.?any"},
		generic.OrderConfig{ERP: "e", Units: u})
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		`{"no": "7"}`: "nil false", `{"no": "7", "over": ""}`: "nil false", `{"no": "7", "over": null, "any": false}`: "nil false",
		`{"no": "7", "over": "2.50", "any": true}`: "2.5 true", `{"no": "7", "over": 0, "any": "true"}`: "0 true",
	} {
		v, err := generic.ReadJSON([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		w, err := o.Read(v)
		got := "nil"
		if w.OverPercent != nil {
			got = w.OverPercent.String()
		}
		if got = fmt.Sprint(got, " ", w.OverUnlimited); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", text, got, err, want)
		}
	}
}

func TestTheEndOfAnOperationIsToldFromTheOrders(t *testing.T) {
	u, err := generic.NewUnits(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct {
		state     object.FloorState
		operation string
		closes    bool
		want      bool
	}{
		{object.FloorFinished, "", false, true}, {object.FloorFinished, "10", true, true}, {object.FloorFinished, "10", false, false},
		{object.FloorStarted, "", false, false}, {object.FloorCancelled, "", false, true},
	} {
		p := connector.Posting{Fact: object.Fact{OrderState: &object.ShopFloorState{State: x.state, Operation: x.operation}}, ClosesOrder: x.closes}
		if got := generic.FactVars(p, u)["fact"].(map[string]any)["closes_order"]; got != x.want {
			t.Errorf("%+v: %v", x, got)
		}
	}
}

func TestJSONWithMoreBehindItIsNone(t *testing.T) {
	for _, text := range []string{`{} {}`, `{}]`, `1 2`, ``, `{"a":1}x`} {
		if v, err := generic.ReadJSON([]byte(text)); err == nil {
			t.Errorf("%q gives %v", text, v)
		}
	}
	if v, err := generic.ReadJSON([]byte(" 1.0 \n")); err != nil || v != json.Number("1.0") {
		t.Errorf("%v, %v", v, err)
	}
}
