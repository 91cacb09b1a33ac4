package reconcile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Line is one row of a statement: a sum (Level "sum"), the part of it that one line made of one lot in one shift ("part"), a fact
// under it with its counter range and its documents ("fact"), or a document that belongs to none of our facts ("document").
type Line struct {
	Level                          string
	Plant, ERP, OrderNo, Operation string
	Item, Kind, Unit               string
	// Line is the equipment, or the source where no equipment is named.
	Line, Lot, Shift, ShiftDate               string
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
	Correction    string
	Discrepancies string
}

// Header names the columns of Fields.
func Header() []string {
	return []string{"level", "plant", "erp", "order_no", "operation", "item", "kind", "unit", "line", "lot", "shift", "shift_date", "counted", "stored", "received", "intended",
		"held_by_erp", "mes", "agrees", "fact", "posting", "source", "occurred_at", "counter", "documents", "posting_date", "correction", "discrepancies"}
}

// Fields are the columns of a line as text, in the order of Header. What the plant counted and stored is known of sums only.
func (l Line) Fields() []string {
	at, counted, stored := "", l.Counted.String(), l.Stored.String()
	if !l.Occurred.IsZero() {
		at = l.Occurred.Format(time.RFC3339)
	}
	if l.Level != "sum" {
		counted, stored = "", ""
	}
	return []string{l.Level, l.Plant, l.ERP, l.OrderNo, l.Operation, l.Item, l.Kind, l.Unit, l.Line, l.Lot, l.Shift, l.ShiftDate, counted, stored, l.Received.String(),
		l.Intended.String(), l.Held.String(), l.MES, fmt.Sprint(l.Agrees), l.Fact, l.State, l.Source, at, l.Counter, l.Documents, l.PostingDate, l.Correction, l.Discrepancies}
}

// Statement lists one order from its sums down to the single counter range and document.
func Statement(o Order, found []Finding) []Line {
	s := statement{o: o, effects: map[string][]object.Effect{}, opposites: map[string][]object.Effect{}, types: map[string][]string{}, sums: map[object.LedgerKey]*Line{},
		facts: map[object.LedgerKey][]Line{}, ours: map[string]bool{}, explained: map[string]bool{}}
	for _, e := range o.Effects {
		s.effects[e.Key] = append(s.effects[e.Key], e)
		if e.Reverses != "" {
			s.opposites[e.Reverses] = append(s.opposites[e.Reverses], e)
		}
	}
	for _, f := range found {
		for _, key := range f.Facts {
			s.types[key] = append(s.types[key], string(f.Type))
		}
	}
	for _, f := range append(slices.Clone(o.Facts), o.Elsewhere...) {
		for _, key := range f.keys() {
			s.ours[key] = true
		}
		if !f.Aggregate.IsZero() {
			s.ours[f.Aggregate.String()] = true
		}
	}
	s.divide()
	for i := range o.Facts {
		s.fact(&o.Facts[i], o.Facts[i].AsCame == nil)
	}
	for i := range o.Elsewhere {
		s.came(&o.Elsewhere[i])
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
	o         Order
	effects   map[string][]object.Effect // by key
	opposites map[string][]object.Effect // by the number of what they reverse
	types     map[string][]string
	sums      map[object.LedgerKey]*Line
	facts     map[object.LedgerKey][]Line
	ours      map[string]bool // keys
	explained map[string]bool // numbers
	shares
}

func (s *statement) sum(k object.LedgerKey) *Line {
	l := s.sums[k]
	if l == nil {
		l = &Line{Level: "sum", Plant: k.Plant, ERP: s.o.ERP, OrderNo: k.OrderNo, Operation: k.Operation, Item: k.Item, Kind: string(k.Kind), Unit: k.Unit}
		s.sums[k] = l
	}
	return l
}

// of is what a line says of its fact, without quantities.
func (s *statement) of(f *Fact, l object.FactLine) Line {
	x := Line{Level: "fact", Plant: l.Plant, ERP: s.o.ERP, OrderNo: l.OrderNo, Operation: l.Operation, Item: l.Item, Kind: string(l.Kind), Unit: l.Unit,
		Line: cmp.Or(f.Equipment, f.Source), Shift: f.Shift, ShiftDate: f.ShiftDate, Fact: f.Key.String(), State: f.State, Source: f.Source, Occurred: f.OccurredAt,
		Correction: f.Corrected, Discrepancies: strings.Join(s.types[f.Key.String()], " ")}
	switch {
	case f.Confirmation != nil:
		x.Lot, x.Shift = f.Confirmation.Lot, cmp.Or(x.Shift, f.Confirmation.Shift)
	case f.Consumption != nil:
		x.Lot = f.Consumption.Lot
	}
	if r := f.CounterRange(); r != nil {
		x.Counter = fmt.Sprintf("%s epoch %s (%s, %s]", r.Tag, r.Epoch, r.From, r.To)
	}
	return x
}

func (s *statement) add(k object.LedgerKey, x Line) {
	sum := s.sum(k)
	sum.Received, sum.Intended, sum.Held = sum.Received.Add(x.Received), sum.Intended.Add(x.Intended), sum.Held.Add(x.Held)
	s.facts[k] = append(s.facts[k], x)
}

// fact adds a fact as it is posted. What was corrected stands with the quantities that came where they were counted, and without
// them where they are posted, so that both sums are right.
func (s *statement) fact(f *Fact, received bool) {
	intended := f.Lines()
	docs := s.documents(f)
	for i, l := range f.FactQuantities() {
		x := s.of(f, l)
		if received {
			x.Received = l.Received
		}
		if f.State != "not_posted" && (f.State != "settled" || f.Document != "") {
			x.Intended = intended[i].Received
		}
		var numbers []string
		if !f.Aggregate.IsZero() {
			x.Held = s.share(f, l, x.Intended)
		}
		for _, e := range docs {
			if e.State == object.EffectPending {
				numbers = append(numbers, e.Number+" (pending)")
				continue
			}
			numbers = append(numbers, e.Number)
			x.PostingDate = e.PostingDate
			if f.Aggregate.IsZero() {
				x.Held = x.Held.Add(held(e, intended[i]))
			}
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
			s.add(k, y)
		}
		s.add(l.LedgerKey, x)
	}
	if !received {
		s.came(f)
	}
}

// came adds what a corrected fact said when it came.
func (s *statement) came(f *Fact) {
	for _, l := range f.counted() {
		if l.OrderNo != s.o.OrderNo {
			continue
		}
		came := *f
		came.Fact = *f.AsCame
		x := s.of(&came, l)
		x.Received, x.State, x.Agrees = l.Received, "corrected", true
		s.add(l.LedgerKey, x)
	}
}

// documents are those of a fact's keys, and those that took them back without a fact of ours.
func (s *statement) documents(f *Fact) (docs []object.Effect) {
	for _, key := range f.keys() {
		for _, e := range s.effects[key] {
			docs = append(docs, e)
			s.explained[e.Number] = true
			for _, back := range s.opposites[e.Number] {
				if !s.ours[back.Key] || back.Key == "" {
					docs = append(docs, back)
					s.explained[back.Number] = true
				}
			}
		}
	}
	return docs
}

// held is how much of a fact's line a document holds.
func held(e object.Effect, l object.FactLine) decimal.Decimal {
	sum := decimal.Zero
	for _, q := range e.Quantities {
		switch {
		case q.Item != l.Item && q.Item != "" && l.Item != "":
		case q.Kind == l.Kind:
			sum = sum.Add(q.Value)
		case opposite[q.Kind] == l.Kind && (e.Reverses != "" || l.Received.IsNegative()):
			sum = sum.Sub(q.Value)
		}
	}
	return sum
}

// opposite is what a kind is called by a document that takes it back.
var opposite = map[object.QuantityKind]object.QuantityKind{object.Returned: object.Consumed, object.Consumed: object.Returned}

func (s *statement) lines() (out []Line) {
	var keys []object.LedgerKey
	for k := range s.sums {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, compareKeys)
	for _, k := range keys {
		sum := *s.sums[k]
		sum.Agrees = sum.Intended.Equal(sum.Held) && (sum.MES == "" || sum.MES == sum.Received.String())
		out = append(append(out, sum), parts(s.facts[k])...)
	}
	return out
}

// part is what the facts of a part share.
func part(l Line) Line {
	return Line{Level: "part", Plant: l.Plant, ERP: l.ERP, OrderNo: l.OrderNo, Operation: l.Operation, Item: l.Item, Kind: l.Kind, Unit: l.Unit, Line: l.Line, Lot: l.Lot,
		Shift: l.Shift, ShiftDate: l.ShiftDate}
}

// parts puts the facts of a sum under what one line made of one lot in one shift.
func parts(facts []Line) (out []Line) {
	slices.SortFunc(facts, func(a, b Line) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Lot, b.Lot), cmp.Compare(a.ShiftDate, b.ShiftDate), cmp.Compare(a.Shift, b.Shift), cmp.Compare(a.Fact, b.Fact),
			cmp.Compare(a.State, b.State))
	})
	at := -1
	for i, f := range facts {
		if i == 0 || part(facts[i-1]).name() != part(f).name() {
			at = len(out)
			p := part(f)
			p.Agrees = true
			out = append(out, p)
		}
		p := &out[at]
		p.Received, p.Intended, p.Held = p.Received.Add(f.Received), p.Intended.Add(f.Intended), p.Held.Add(f.Held)
		p.Agrees = p.Intended.Equal(p.Held)
		out = append(out, f)
	}
	return out
}

func (l Line) name() [4]string { return [4]string{l.Line, l.Lot, l.ShiftDate, l.Shift} }

// foreign lists documents that no fact of ours explains.
func (s *statement) foreign() (out []Line) {
	for _, e := range s.o.Effects {
		if s.explained[e.Number] || s.ours[e.Key] && e.Key != "" || e.State == object.EffectPending {
			continue
		}
		for _, q := range e.Quantities {
			out = append(out, Line{Level: "document", Plant: s.o.Plant, ERP: s.o.ERP, OrderNo: e.OrderNo, Operation: e.Operation, Item: q.Item, Kind: string(q.Kind), Unit: q.Unit, Held: q.Value,
				Documents: e.Number, PostingDate: e.PostingDate})
		}
	}
	return out
}
