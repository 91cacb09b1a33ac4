package translate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"testing"
	"time"

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

const benchRowRules = `
rules:
  - name: c
    rule: record
    source: mes
    tag: c
    fact: production_confirmation
    fields: {order_no: payload.order_no, operation: payload.operation, item: payload.item, yield: payload.good, scrap: payload.scrap, unit: payload.unit, finished_at: payload.finished_at, lot: payload.lot}
`

// rowBatches are rows of a table as its driver hands them over, each with a position of its own. There are so many that the
// first ones are forgotten before they come again.
func rowBatches() []signal.Batch {
	const perBatch = 500
	batches := make([]signal.Batch, 40)
	for b := range batches {
		batches[b].Source = "mes"
		for i := range perBatch {
			n := b*perBatch + i
			batches[b].Signals = append(batches[b].Signals, signal.Signal{Tag: "c", ReceivedTime: noon, Position: "confirmation|" + strconv.Itoa(n) + "|" + strconv.Itoa(n), Value: map[string]any{
				"id": signal.Number(strconv.Itoa(n)), "order_no": "WO-" + strconv.Itoa(n%50), "operation": "0010", "item": "FG-GEAR", "good": signal.Number("12.500"), "scrap": signal.Number("1.000"),
				"unit": "C62", "lot": "L2026-" + strconv.Itoa(n%1000), "finished_at": noon.Add(time.Duration(n) * time.Millisecond),
			}})
		}
	}
	return batches
}

// BenchmarkRowsInBatchOf500 is per row.
func BenchmarkRowsInBatchOf500(b *testing.B) {
	tr, err := New(rules(b, benchRowRules), factkey.Random)
	if err != nil {
		b.Fatal(err)
	}
	st, batches := memory{}, rowBatches()
	for _, batch := range batches {
		tr.Translate(st, noon, batch)
	}
	b.ReportAllocs()
	b.ResetTimer()
	for done, n := 0, 0; done < b.N; n++ {
		batch := batches[n%len(batches)]
		res := tr.Translate(st, noon, batch)
		if done += len(batch.Signals); len(res.Facts) != len(batch.Signals) {
			b.Fatalf("%d facts of %d rows", len(res.Facts), len(batch.Signals))
		}
	}
}

// BenchmarkBookRows is what is left of BenchmarkRowsInBatchOf500 when the fields are read: keys, memory, ledger, encoding.
func BenchmarkBookRows(b *testing.B) {
	tr, err := New(rules(b, benchRowRules), factkey.Random)
	if err != nil {
		b.Fatal(err)
	}
	st, batches := memory{}, rowBatches()
	drafts := make([][]draft, len(batches))
	for i, batch := range batches {
		w := tr.begin(st, noon)
		for j := range batch.Signals {
			w.record(tr.rules[0], &batch.Signals[j])
		}
		drafts[i] = w.staged
		tr.Translate(st, noon, batch)
	}
	b.ReportAllocs()
	b.ResetTimer()
	in := &scope{}
	for done, n := 0, 0; done < b.N; n++ {
		at := n % len(batches)
		w := tr.begin(st, noon)
		w.signals = len(drafts[at])
		w.res.Facts = make([]Fact, 0, w.signals)
		for i := range drafts[at] {
			d := &drafts[at][i]
			in.sig = &batches[at].Signals[i]
			if f := w.identify(d, in, -1); f != nil {
				b.Fatal(f)
			}
			if f := w.book(d); f != nil {
				b.Fatal(f)
			}
		}
		if done += len(drafts[at]); len(w.end().Facts) != len(drafts[at]) {
			b.Fatalf("facts of %d rows are missing", len(drafts[at]))
		}
	}
}
