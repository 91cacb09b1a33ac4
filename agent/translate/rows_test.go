package translate

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// TestARowIsReadLikeTheMapItStandsFor gives the same contents as rows and as maps, good ones and bad ones.
func TestARowIsReadLikeTheMapItStandsFor(t *testing.T) {
	const text = `
rules:
  - {name: plain, rule: record, source: mes, tag: c, fact: production_confirmation, pseudonymise: [payload.who], fields: {order_no: payload.order_no, yield: payload.good, unit: payload.unit, lot: 'payload["lot no"]', person: payload.who, item: payload.nowhere}}
  - {name: worked out, rule: record, source: mes, tag: c, fact: material_consumption, when: has(payload.used) && payload.used != '0', id: position + '#used', fields: {order_no: payload.order_no, item: payload.unit, quantity: payload.used, unit: "'C62'"}}
  - {name: state, rule: state, source: mes, tag: s, work_center: press1, fields: {event: payload.what, order_no: payload.order_no}, events: {begin: started}}
  - {name: all, rule: reading, source: mes, tag: r}
`
	columns := signal.NewColumns([]string{"order_no", "good", "unit", "lot no", "who", "used", "what"})
	other := signal.NewColumns([]string{"used", "order_no", "unit"})
	row := func(c *signal.Columns, values ...any) *signal.Row { return &signal.Row{Columns: c, Values: values} }
	good := func(yield any) []any {
		return []any{"WO-1", yield, "C62", " L\u00fc1 ", "Ann", signal.Number("0"), "begin"}
	}
	contents := []*signal.Row{
		row(columns, good(signal.Number("12.500"))...), row(columns, good("7")...), row(columns, good(noon)...), row(columns, good(nil)...),
		row(other, signal.Number("3"), "WO-2", "FG"), row(columns, "WO-3", signal.Number("1"), "bad\x01", nil, "", nil, "begin"), row(columns, good(signal.Number("-1"))...),
	}
	results := map[bool]Result{}
	for _, asMap := range []bool{false, true} {
		n := byte(0)
		tr, err := New(rules(t, text), func() factkey.Key { n++; return factkey.Key{n} })
		if err != nil {
			t.Fatal(err)
		}
		batch := signal.Batch{Source: "mes"}
		for i, r := range contents {
			for _, tag := range []string{"c", "s", "r"} {
				s := signal.Signal{Tag: tag, ReceivedTime: noon, Position: fmt.Sprint("table|", i, "|"), Value: r}
				if asMap {
					s.Value = r.Map()
				}
				batch.Signals = append(batch.Signals, s)
			}
		}
		results[asMap] = tr.Translate(memory{}, noon, tr.Mask(batch))
	}
	rows, maps := results[false], results[true]
	if len(rows.Facts) < 5 || len(rows.Quarantined) < 4 || len(rows.Readings) != len(contents) {
		t.Fatalf("%d facts, %d quarantined, %d readings: the contents do not try enough", len(rows.Facts), len(rows.Quarantined), len(rows.Readings))
	}
	if d := cmp.Diff(maps, rows, protocmp.Transform()); d != "" {
		t.Errorf("rows give something else than maps (-map +row):\n%s", d)
	}
}

const benchRows = `
rules: [{name: c, rule: record, source: mes, tag: c, fact: production_confirmation, fields: {order_no: payload.order_no, operation: payload.operation, item: payload.item, yield: payload.good, scrap: payload.scrap,
unit: payload.unit, lot: payload.lot, finished_at: payload.finished_at}}]
`

// BenchmarkRows translates the rows of a table, 2000 in a batch.
func BenchmarkRows(b *testing.B) {
	const perBatch = 2000
	tr, err := New(rules(b, benchRows), factkey.Random)
	if err != nil {
		b.Fatal(err)
	}
	st := memory{}
	columns := signal.NewColumns([]string{"id", "order_no", "operation", "item", "good", "scrap", "unit", "lot", "finished_at"})
	batch := signal.Batch{Source: "mes"}
	for i := range perBatch {
		batch.Signals = append(batch.Signals, signal.Signal{Tag: "c", ReceivedTime: noon, Value: &signal.Row{Columns: columns, Values: []any{
			signal.Number(strconv.Itoa(i)), fmt.Sprint("WO-", i%50), "0010", "FG-GEAR", signal.Number("12.500"), signal.Number("1.000"), "C62", fmt.Sprint("L2026-", i%1000), noon.Add(time.Duration(i))}}})
	}
	b.ReportAllocs()
	b.ResetTimer()
	n := 0
	for done := 0; done < b.N; done += perBatch {
		for i := range batch.Signals {
			n++
			batch.Signals[i].Position = "confirmation|" + strconv.Itoa(n) + "|"
		}
		if res := tr.Translate(st, noon, batch); len(res.Facts) != perBatch {
			b.Fatalf("%d facts of %d rows: %+v", len(res.Facts), perBatch, res.Quarantined)
		}
	}
}
