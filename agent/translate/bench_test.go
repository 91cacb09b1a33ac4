package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"testing"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

func decode(t testing.TB, text string) any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader([]byte(text)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

const benchRules = `
units: {Stk: C62}
rules:
  - name: confirmations
    rule: record
    source: mes
    tag: c
    fact: production_confirmation
    id: payload.id
    %s
    fields: {order_no: payload.order.no, operation: payload.order.op, item: payload.item, yield: payload.qty.good, scrap: payload.qty.bad, unit: payload.unit, finished_at: payload.at, lot: payload.lot}
`

func benchRecords(b *testing.B, perBatch int, when string) {
	tr, err := New(rules(b, fmt.Sprintf(benchRules, when)), factkey.Random)
	if err != nil {
		b.Fatal(err)
	}
	st, n := memory{}, 0
	batch := signal.Batch{Source: "mes"}
	for i := range perBatch {
		text := fmt.Sprintf(`{"id":"","type":"dosed","order":{"no":"4711%02d","op":"0010"},"item":"FG-GEAR","qty":{"good":12.5,"bad":1},"unit":"Stk","at":"2026-03-02T12:00:00+01:00","lot":"L2026-0302-A"}`, i%7)
		batch.Signals = append(batch.Signals, signal.Signal{Tag: "c", Topic: "ulm/press1/c", Value: decode(b, text), ReceivedTime: noon})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += perBatch {
		for i := range batch.Signals {
			n++
			batch.Signals[i].Value.(map[string]any)["id"] = "7b0c1f52-" + strconv.Itoa(n)
		}
		if res := tr.Translate(st, noon, batch); len(res.Facts) != perBatch {
			b.Fatalf("%d facts of %d records: %+v", len(res.Facts), perBatch, res.Quarantined)
		}
	}
}

func BenchmarkRecordInBatchOf100(b *testing.B) { benchRecords(b, 100, "") }
func BenchmarkRecordAlone(b *testing.B)        { benchRecords(b, 1, "") }
func BenchmarkRecordWithCondition(b *testing.B) {
	benchRecords(b, 100, `when: payload.type == 'dosed' && payload.qty.good > 0`)
}

func BenchmarkCounter(b *testing.B) {
	tr, err := New(rules(b, Sample), factkey.Random)
	if err != nil {
		b.Fatal(err)
	}
	st := memory{}
	tr.Translate(st, noon, signal.Batch{Source: "press1", Signals: []signal.Signal{{Tag: "order", Value: "4711"}}})
	b.ReportAllocs()
	for i := range b.N {
		tr.Translate(st, noon, signal.Batch{Source: "press1", Signals: []signal.Signal{{Tag: "good", Value: num(fmt.Sprint(i % 65536)), ReceivedTime: noon}}})
	}
}
