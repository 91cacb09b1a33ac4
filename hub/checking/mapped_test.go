package checking_test

import (
	"slices"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
)

func (p *plant) approve(s mapping.Set, rows ...mapping.Row) {
	p.t.Helper()
	v, err := p.s.AddMappingVersion(p.t.Context(), s, 0, mapping.Content{Rows: rows, Tests: []mapping.Test{{From: "not there", Missing: true}}}, "anna", "test", true)
	if err == nil {
		_, err = p.s.ChangeMapping(p.t.Context(), s.Name, v.Number, "approved", "bert", "test", func(v *mapping.Version, all []mapping.Version, now time.Time) error {
			return v.Approve(all, "bert", "test", now.Add(-time.Hour), now, mapping.Dry{Set: s.Name, Version: v.Number}, nil)
		})
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// The plant counts boxes and weighs in grams, the ERP holds pieces and kilograms: what both mean is the same.
func TestWhatIsPostedInOtherWordsIsComparedInThose(t *testing.T) {
	p := newPlant(t)
	p.approve(mapping.Set{Name: "units", Kind: mapping.Unit, ERP: "erp"}, mapping.Row{From: "XBX", To: "C62", Item: "P-7", Factor: "12"}, mapping.Row{From: "GRM", To: "KGM", Factor: "1/1000"})
	p.approve(mapping.Set{Name: "items", Kind: mapping.Item, ERP: "erp"}, mapping.Row{From: "P-7", To: "BRACKET-10"}, mapping.Row{From: "S-1", To: "STEEL-S235"})
	p.orders = p.orders[:1]
	no := p.orders[0]
	var records []store.Record
	add := func(f object.Fact) {
		body, err := wire.EncodeFact(f)
		if err != nil {
			t.Fatal(err)
		}
		p.facts, records = append(p.facts, f), append(records, store.Record{Key: f.Key, Body: body})
	}
	for n := range 5 {
		p.seq++
		made := p.fact(object.KindConfirmation)
		made.Confirmation = &object.Confirmation{OrderNo: no, Operation: "0010", Item: "P-7", Unit: "XBX", Yield: decimal.NewFromInt(int64(n + 1))}
		add(made)
		p.seq++
		used := p.fact(object.KindConsumption)
		used.Consumption = &object.Consumption{OrderNo: no, Item: "S-1", Movement: object.Issue, Quantity: object.Quantity{Value: decimal.NewFromInt(int64(n+1) * 1440), Unit: "GRM"}}
		add(used)
		p.made[no] = p.made[no].Add(decimal.NewFromInt(int64(n+1) * 12))
	}
	if _, err := p.s.AppendFacts(t.Context(), []store.Batch{{AgentID: p.agent.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: 1, Records: records}}); err != nil {
		t.Fatal(err)
	}
	p.verified()
	p.balanced()
	if run := p.all(); run.Found != 0 || run.Documents == 0 || run.Unasked != 0 {
		found, _ := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
		t.Errorf("%+v: %+v", run, found)
	}
	var lines []reconcile.Line
	if err := p.check.Statement(t.Context(), store.Compared{OrderNo: no}, func(l []reconcile.Line) error { lines = append(lines, l...); return nil }); err != nil {
		t.Fatal(err)
	}
	sum := func(item, unit string) reconcile.Line {
		i := slices.IndexFunc(lines, func(l reconcile.Line) bool { return l.Level == "sum" && l.Item == item && l.Unit == unit })
		if i < 0 {
			t.Fatalf("no sum of %s in %s: %+v", item, unit, lines)
		}
		return lines[i]
	}
	if l := sum("P-7", "XBX"); !l.Agrees || l.Received.String() != "15" {
		t.Errorf("%+v", l)
	}
	if l := sum("BRACKET-10", "C62"); !l.Agrees || l.Intended.String() != "180" || l.Held.String() != "180" {
		t.Errorf("%+v", l)
	}
	if l := sum("STEEL-S235", "KGM"); !l.Agrees || l.Intended.String() != "21.6" || l.Held.String() != "21.6" {
		t.Errorf("%+v", l)
	}
}
