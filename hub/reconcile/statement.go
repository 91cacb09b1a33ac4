package reconcile

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Line is one row of a statement: a sum (Level "sum"), or a fact under it with its counter range and its documents ("fact"),
// or a document that belongs to none of our facts ("document").
type Line struct {
	Level                                     string
	Plant, ERP, OrderNo, Operation, Item      string
	Kind, Unit                                string
	Counted, Stored, Received, Intended, Held decimal.Decimal
	// MES is empty where the MES says nothing.
	MES           string
	Agrees        bool
	Fact, State   string
	Source        string
	Occurred      time.Time
	Counter       string // tag, epoch, from, to
	Documents     string
	PostingDate   string
	Discrepancies string
}

// Header names the columns of Fields.
func Header() []string {
	return []string{"level", "plant", "erp", "order_no", "operation", "item", "kind", "unit", "counted", "stored", "received", "intended", "held_by_erp", "mes", "agrees",
		"fact", "posting", "source", "occurred_at", "counter", "documents", "posting_date", "discrepancies"}
}

// Fields are the columns of a line as text, in the order of Header.
func (l Line) Fields() []string {
	at := ""
	if !l.Occurred.IsZero() {
		at = l.Occurred.Format(time.RFC3339)
	}
	return []string{l.Level, l.Plant, l.ERP, l.OrderNo, l.Operation, l.Item, l.Kind, l.Unit, l.Counted.String(), l.Stored.String(), l.Received.String(), l.Intended.String(), l.Held.String(),
		l.MES, fmt.Sprint(l.Agrees), l.Fact, l.State, l.Source, at, l.Counter, l.Documents, l.PostingDate, l.Discrepancies}
}

// Statement lists one order from its sums down to the single counter range and document.
func Statement(o Order, found []Finding) []Line {
	s := statement{o: o, effects: map[string][]object.Effect{}, types: map[string][]string{}, sums: map[object.LedgerKey]*Line{}, facts: map[object.LedgerKey][]Line{}, ours: map[string]bool{}}
	for _, e := range o.Effects {
		s.effects[e.Key] = append(s.effects[e.Key], e)
	}
	for _, f := range found {
		for _, key := range f.Facts {
			s.types[key] = append(s.types[key], string(f.Type))
		}
	}
	for i := range o.Facts {
		s.fact(&o.Facts[i])
	}
	for _, e := range o.Edge {
		l := s.sum(e.LedgerKey)
		l.Counted, l.Stored = l.Counted.Add(e.Counted), l.Stored.Add(e.Stored)
	}
	for _, m := range o.MES {
		s.sum(m.LedgerKey).MES = m.Value.String()
	}
	return append(s.lines(), s.foreign()...)
}

type statement struct {
	o       Order
	effects map[string][]object.Effect
	types   map[string][]string
	sums    map[object.LedgerKey]*Line
	facts   map[object.LedgerKey][]Line
	ours    map[string]bool
}

func (s *statement) sum(k object.LedgerKey) *Line {
	l := s.sums[k]
	if l == nil {
		l = &Line{Level: "sum", Plant: k.Plant, ERP: s.o.ERP, OrderNo: k.OrderNo, Operation: k.Operation, Item: k.Item, Kind: string(k.Kind), Unit: k.Unit}
		s.sums[k] = l
	}
	return l
}

func (s *statement) fact(f *Fact) {
	key := f.Key.String()
	s.ours[key] = true
	intended := f.lines()
	for i, l := range f.FactQuantities() {
		x := Line{Level: "fact", Plant: l.Plant, ERP: s.o.ERP, OrderNo: l.OrderNo, Operation: l.Operation, Item: l.Item, Kind: string(l.Kind), Unit: l.Unit, Received: l.Received,
			Fact: key, State: f.State, Source: f.Source, Occurred: f.OccurredAt, Discrepancies: strings.Join(s.types[key], " ")}
		if f.State != "not_posted" && (f.State != "settled" || f.Document != "") {
			x.Intended = intended[i].Received
		}
		if r := f.CounterRange(); r != nil {
			x.Counter = fmt.Sprintf("%s epoch %s (%s, %s]", r.Tag, r.Epoch, r.From, r.To)
		}
		var numbers []string
		for _, e := range s.effects[key] {
			if e.State == object.EffectPending {
				numbers = append(numbers, e.Number+" (pending)")
				continue
			}
			numbers = append(numbers, e.Number)
			x.PostingDate = e.PostingDate
			x.Held = x.Held.Add(held(e, intended[i]))
		}
		if len(numbers) == 0 && f.Document != "" && !s.o.Asked {
			numbers = append(numbers, f.Document+" (not asked)")
			x.Held = x.Intended
		}
		x.Documents = strings.Join(numbers, " ")
		x.Agrees = x.Intended.Equal(x.Held)
		if k := intended[i].LedgerKey; k != l.LedgerKey {
			y := x // what is in the books has other words, and so its own sum
			y.Item, y.Unit, y.Received = k.Item, k.Unit, decimal.Zero
			x.Intended, x.Held, x.Agrees = decimal.Zero, decimal.Zero, true
			s.take(k, y)
		}
		s.take(l.LedgerKey, x)
	}
}

func (s *statement) take(k object.LedgerKey, x Line) {
	sum := s.sum(k)
	sum.Received, sum.Intended, sum.Held = sum.Received.Add(x.Received), sum.Intended.Add(x.Intended), sum.Held.Add(x.Held)
	s.facts[k] = append(s.facts[k], x)
}

// held is how much of a fact's line a document holds.
func held(e object.Effect, l object.FactLine) decimal.Decimal {
	sum := decimal.Zero
	for _, q := range e.Quantities {
		switch {
		case q.Item != l.Item && q.Item != "" && l.Item != "":
		case q.Kind == l.Kind:
			sum = sum.Add(q.Value)
		}
	}
	return sum
}

func (s *statement) lines() (out []Line) {
	var keys []object.LedgerKey
	for k := range s.sums {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	for _, k := range keys {
		sum := *s.sums[k]
		sum.Agrees = sum.Intended.Equal(sum.Held) && (sum.MES == "" || sum.MES == sum.Received.String())
		slices.SortFunc(s.facts[k], func(a, b Line) int { return strings.Compare(a.Fact, b.Fact) })
		out = append(append(out, sum), s.facts[k]...)
	}
	return out
}

// foreign lists documents that no fact of ours explains.
func (s *statement) foreign() (out []Line) {
	for _, e := range s.o.Effects {
		if s.ours[e.Key] && e.Key != "" || e.State == object.EffectPending {
			continue
		}
		for _, q := range e.Quantities {
			out = append(out, Line{Level: "document", Plant: s.o.Plant, ERP: s.o.ERP, OrderNo: e.OrderNo, Operation: e.Operation, Item: q.Item, Kind: string(q.Kind), Unit: q.Unit, Held: q.Value,
				Documents: e.Number, PostingDate: e.PostingDate})
		}
	}
	return out
}
