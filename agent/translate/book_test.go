package translate

import (
	"fmt"
	"maps"
	"testing"

	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/linekeeper/linekeeper/agent/signal"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

const ledgerRules = `
rules:
  - {name: made, rule: record, source: mes, tag: made, fact: production_confirmation, decimals: %d,
     fields: {order_no: payload.order, operation: payload.op, item: payload.item, unit: payload.unit, yield: payload.a, scrap: payload.b, rework: payload.c}}
  - {name: used, rule: record, source: mes, tag: used, fact: material_consumption, decimals: %[1]d,
     fields: {order_no: payload.order, operation: payload.op, item: payload.item, unit: payload.unit, quantity: payload.a, movement: payload.move}}
`

// TestEachLineOfTheLedgerIsItsRecords: however records of many orders, operations, items, units and kinds follow each other in
// batches, each line of the ledger counts what its records say and stores what their facts say, exactly.
func TestEachLineOfTheLedgerIsItsRecords(t *testing.T) {
	one := func(texts ...string) *rapid.Generator[string] { return rapid.SampledFrom(texts) }
	quantity := rapid.OneOf(one("", "0", "1", "2.5", "0.125", "0.0005", "12.500", "900000000000000000", "1e3"), rapid.Custom(func(t *rapid.T) string {
		return decimal.New(rapid.Int64Range(0, 1_000_000).Draw(t, "n"), -rapid.Int32Range(0, 6).Draw(t, "places")).String()
	}))
	rapid.Check(t, func(t *rapid.T) {
		tr, err := New(rules(t, fmt.Sprintf(ledgerRules, rapid.IntRange(0, 9).Draw(t, "decimals"))), keys())
		if err != nil {
			t.Fatal(err)
		}
		st, counted, stored := memory{}, map[string]decimal.Decimal{}, map[string]decimal.Decimal{}
		add := func(sums map[string]decimal.Decimal, key, text string) {
			if text != "" {
				sums[key] = sums[key].Add(decimal.RequireFromString(text))
			}
		}
		for range rapid.IntRange(1, 4).Draw(t, "batches") {
			b := signal.Batch{Source: "mes"}
			for range rapid.IntRange(1, 12).Draw(t, "records") {
				p := map[string]any{
					"order": one("A", "B").Draw(t, "order"), "op": one("", "10", "20").Draw(t, "operation"), "item": one("X", "Y").Draw(t, "item"), "unit": one("KGM", "LTR").Draw(t, "unit"),
					"a": quantity.Draw(t, "a"), "b": quantity.Draw(t, "b"), "c": quantity.Draw(t, "c"),
				}
				at := fmt.Sprint(p["order"], "|", p["op"], "|", p["item"], "|", p["unit"], "|")
				s := signal.Signal{Tag: one("made", "used").Draw(t, "tag"), Value: p, ReceivedTime: noon}
				if a, _ := p["a"].(string); s.Tag == "made" {
					p["a"] = "0" + a // one quantity is needed
					add(counted, at+kindYield, a)
					add(counted, at+kindScrap, p["b"].(string))
					add(counted, at+kindRework, p["c"].(string))
				} else {
					p["a"], p["move"] = "0"+a, one("issue", "return").Draw(t, "movement")
					add(counted, at+map[any]string{"issue": kindConsumed, "return": kindReturned}[p["move"]], a)
				}
				b.Signals = append(b.Signals, s)
			}
			res := tr.Translate(st, noon, b)
			if len(res.Facts) != len(b.Signals) {
				t.Fatalf("%d facts of %d records, in quarantine %+v", len(res.Facts), len(b.Signals), res.Quarantined)
			}
			for _, f := range res.Facts {
				var m pb.Fact
				if err := proto.Unmarshal(f.Body, &m); err != nil {
					t.Fatal(err)
				}
				if c := m.GetProductionConfirmation(); c != nil {
					at := c.OrderNo + "|" + c.Operation + "|" + c.Item + "|" + c.Unit + "|"
					add(stored, at+kindYield, c.Yield)
					add(stored, at+kindScrap, c.Scrap)
					add(stored, at+kindRework, c.Rework)
				} else {
					c := m.GetMaterialConsumption()
					kind := map[pb.MaterialConsumption_Movement]string{pb.MaterialConsumption_MOVEMENT_ISSUE: kindConsumed, pb.MaterialConsumption_MOVEMENT_RETURN: kindReturned}[c.Movement]
					add(stored, c.OrderNo+"|"+c.Operation+"|"+c.Item+"|"+c.Quantity.Unit+"|"+kind, c.Quantity.Value)
				}
			}
			checkLines(t, tr, st, counted, stored)
		}
	})
}

// checkLines compares the ledger with sums by "order|operation|item|unit|kind".
func checkLines(t *rapid.T, tr *Translator, st memory, counted, stored map[string]decimal.Decimal) {
	left := maps.Clone(counted)
	for _, r := range tr.Ledger(st) {
		key := r.OrderNo + "|" + r.Operation + "|" + r.Item + "|" + r.Unit + "|" + r.Kind
		if r.Counted != counted[key].String() || r.Stored != stored[key].String() {
			t.Fatalf("line %s: %s counted, %s stored, want %s and %s", key, r.Counted, r.Stored, counted[key], stored[key])
		}
		delete(left, key)
	}
	for key, q := range left {
		if !q.IsZero() {
			t.Fatalf("line %s is missing: %s was counted", key, q)
		}
	}
}
