// Package tally proves where every quantity is.
//
// It owns the comparison of the quantity ledger: what was counted at the sources, stored at the agents, received by the hub
// and posted to the outside systems, for each plant, order, operation, item, kind and unit. It promises that each difference
// is listed with its reason and the facts that make it, that what no reason explains is called missing or doubled, and that
// the same rows give the same report in any order. It is a pure function of its input: no clock, no store, no network.
package tally

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Reason says why a quantity is not yet, or never, where the next column counts it.
type Reason string

// The reasons of differences.
const (
	Open      Reason = "open"       // counted, in no fact yet: the open remainder of a confirmation at the agent
	Buffered  Reason = "buffered"   // stored at the agent, not at the hub yet
	Ahead     Reason = "ahead"      // the hub holds more than the agent's last report: the report is older, or the agent was restored
	Waiting   Reason = "waiting"    // at the hub, not posted yet
	InDoubt   Reason = "in_doubt"   // the outside system was asked and did not answer
	Parked    Reason = "parked"     // needs a person
	NotPosted Reason = "not_posted" // needs no effect, by policy or by a person's decision
	Carried   Reason = "carried"    // left over by rounding, goes to the next posting
	Missing   Reason = "missing"    // nothing explains it
	Doubled   Reason = "doubled"    // posted more than was received, or one fact twice
)

// Difference is a quantity of one line and why it is not in the next column.
type Difference struct {
	object.LedgerKey
	Reason   Reason
	Quantity decimal.Decimal
	// Facts are the 16-character keys of records that make it, as far as they were named; empty for quantities that are in no fact.
	Facts []string
	// Text is one sentence for a person.
	Text string
}

// Line is one line of the ledger.
type Line struct {
	object.LedgerKey
	Counts
}

// Counts are the columns of the ledger. NotPosted is what was received and needs no effect.
type Counts struct{ Counted, Stored, Received, Posted, NotPosted, Missing, Doubled decimal.Decimal }

func (c *Counts) add(o Counts) {
	for _, p := range []struct{ to, from *decimal.Decimal }{
		{&c.Counted, &o.Counted}, {&c.Stored, &o.Stored}, {&c.Received, &o.Received}, {&c.Posted, &o.Posted},
		{&c.NotPosted, &o.NotPosted}, {&c.Missing, &o.Missing}, {&c.Doubled, &o.Doubled},
	} {
		*p.to = p.to.Add(*p.from)
	}
}

// String is the line that the demonstration ends with.
func (c Counts) String() string {
	return fmt.Sprintf("tally: counted=%s stored=%s received=%s posted=%s missing=%s doubled=%s",
		c.Counted, c.Stored, c.Received, c.Posted, c.Missing, c.Doubled)
}

// Settled reports that all columns agree and nothing is unexplained.
func (c Counts) Settled() bool {
	return c.Counted.Equal(c.Stored) && c.Stored.Equal(c.Received) && c.Received.Equal(c.Posted.Add(c.NotPosted)) && c.Missing.IsZero() && c.Doubled.IsZero()
}

// Order is the ledger of one order in one plant.
type Order struct {
	Plant, OrderNo string
	Lines          []Line
	Differences    []Difference
}

// Report is the whole comparison. Totals adds all lines whatever their unit: good for telling whether the columns agree.
type Report struct {
	Orders []Order
	Totals Counts
}

// Of compares the rows of the ledger.
func Of(edge []object.EdgeLine, facts []object.FactLine) Report {
	books := map[object.LedgerKey]*book{}
	at := func(k object.LedgerKey) *book {
		b := books[k]
		if b == nil {
			b = &book{line: Line{LedgerKey: k}, seen: map[string]bool{}}
			books[k] = b
		}
		return b
	}
	for _, e := range edge {
		at(e.LedgerKey).addEdge(e)
	}
	for _, f := range facts {
		at(f.LedgerKey).addFact(f)
	}
	return report(books)
}

func report(books map[object.LedgerKey]*book) (r Report) {
	for _, b := range books {
		b.compare()
	}
	for _, b := range slices.SortedFunc(values(books), func(x, y *book) int { return compareKeys(x.line.LedgerKey, y.line.LedgerKey) }) {
		k := b.line.LedgerKey
		if n := len(r.Orders); n == 0 || r.Orders[n-1].Plant != k.Plant || r.Orders[n-1].OrderNo != k.OrderNo {
			r.Orders = append(r.Orders, Order{Plant: k.Plant, OrderNo: k.OrderNo})
		}
		o := &r.Orders[len(r.Orders)-1]
		o.Lines = append(o.Lines, b.line)
		o.Differences = append(o.Differences, b.differences...)
		r.Totals.add(b.line.Counts)
	}
	return r
}

func values(books map[object.LedgerKey]*book) func(yield func(*book) bool) {
	return func(yield func(*book) bool) {
		for _, b := range books {
			if !yield(b) {
				return
			}
		}
	}
}

func compareKeys(a, b object.LedgerKey) int {
	return cmp.Or(cmp.Compare(a.Plant, b.Plant), cmp.Compare(a.OrderNo, b.OrderNo), cmp.Compare(a.Operation, b.Operation),
		cmp.Compare(a.Item, b.Item), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Unit, b.Unit))
}

// book is what is known of one line.
type book struct {
	line        Line
	open        map[string]decimal.Decimal // by "agent, source"
	pending     map[string]uint64          // by agent
	asOf        time.Time
	reported    bool
	seen        map[string]bool
	carried     decimal.Decimal
	groups      map[group]*Difference
	differences []Difference
}

// group is what the facts of one difference share.
type group struct {
	reason Reason
	text   string
}

func (b *book) addEdge(e object.EdgeLine) {
	b.reported = true
	b.line.Counted = b.line.Counted.Add(e.Counted)
	b.line.Stored = b.line.Stored.Add(e.Stored)
	if b.open == nil {
		b.open, b.pending = map[string]decimal.Decimal{}, map[string]uint64{}
	}
	who := fmt.Sprintf("agent %q, source %q", e.Agent, e.Source)
	b.open[who] = b.open[who].Add(e.Counted.Sub(e.Stored))
	b.pending[e.Agent] = max(b.pending[e.Agent], e.Pending)
	if e.AsOf.After(b.asOf) {
		b.asOf = e.AsOf
	}
}

func (b *book) addFact(f object.FactLine) {
	facts := f.Facts
	if f.FactKey != "" {
		if facts = []string{f.FactKey}; b.seen[f.FactKey] {
			b.line.Posted = b.line.Posted.Add(f.Posted)
			b.line.Doubled = b.line.Doubled.Add(f.Posted)
			b.note(Doubled, "the fact is in the books twice", f.Posted, facts...)
			return
		}
		b.seen[f.FactKey] = true
	}
	b.line.Received = b.line.Received.Add(f.Received)
	b.line.Posted = b.line.Posted.Add(f.Posted)
	b.line.NotPosted = b.line.NotPosted.Add(f.Settled)
	rest := f.Received.Sub(f.Posted).Sub(f.Settled)
	if !f.Settled.IsZero() {
		b.note(NotPosted, sentence("needs no posting", f), f.Settled, facts...)
	}
	switch {
	case f.State == "posted" || f.State == "verified" || f.State == "settled" || f.State == "not_posted" || f.Document != "":
		b.carried = b.carried.Add(rest)
	case f.State == "in_doubt":
		b.note(InDoubt, sentence("is being looked up in the outside system", f), rest, facts...)
	case f.State == "parked":
		b.note(Parked, sentence("needs a person", f), rest, facts...)
	case f.State == "":
		b.note(Waiting, "was received and is about to be planned", rest, facts...)
	default:
		b.note(Waiting, sentence("waits for its posting", f), rest, facts...)
	}
}

func sentence(what string, f object.FactLine) string {
	text := strings.TrimSpace(f.Code + ": " + f.Reason)
	if text == ":" {
		return what
	}
	return what + ": " + strings.Trim(text, ": ")
}

func (b *book) note(reason Reason, text string, quantity decimal.Decimal, facts ...string) {
	if b.groups == nil {
		b.groups = map[group]*Difference{}
	}
	g := group{reason, text}
	d := b.groups[g]
	if d == nil {
		d = &Difference{LedgerKey: b.line.LedgerKey, Reason: reason, Text: text}
		b.groups[g] = d
	}
	d.Quantity = d.Quantity.Add(quantity)
	d.Facts = append(d.Facts, facts...)
}

// compare explains the differences of the line's columns.
func (b *book) compare() {
	for who, open := range b.open {
		if !open.IsZero() {
			b.note(Open, "is counted at the source and no confirmation has closed it yet: "+who, open)
		}
	}
	b.compareReceived()
	b.comparePosted()
	for _, d := range b.groups {
		slices.Sort(d.Facts)
		b.differences = append(b.differences, *d)
	}
	slices.SortFunc(b.differences, func(x, y Difference) int { return cmp.Or(cmp.Compare(x.Reason, y.Reason), cmp.Compare(x.Text, y.Text)) })
}

func (b *book) compareReceived() {
	way := b.line.Stored.Sub(b.line.Received)
	pending := uint64(0)
	for _, n := range b.pending {
		pending += n
	}
	switch {
	case way.IsPositive() && pending > 0:
		b.note(Buffered, fmt.Sprintf("is in the agent's buffer on its way to the hub (%d facts wait there)", pending), way)
	case way.IsPositive():
		b.line.Missing = b.line.Missing.Add(way)
		b.note(Missing, "was stored at the agent, is not in its buffer any more and never came to the hub", way)
	case way.IsNegative() && b.reported:
		b.note(Ahead, "the hub holds more than the agent reported at "+b.asOf.UTC().Format(time.RFC3339)+": the report is older, or the agent was restored", way)
	case way.IsNegative():
		b.note(Ahead, "no agent reports this line", way)
	}
}

// comparePosted judges what posted facts left over. Rounding never leaves as much as one; more is a fault.
func (b *book) comparePosted() {
	one := decimal.NewFromInt(1)
	switch {
	case b.carried.IsZero():
	case b.carried.Abs().LessThan(one):
		b.note(Carried, "is below the outside system's decimals and goes to the next posting", b.carried)
	case b.carried.IsPositive():
		b.line.Missing = b.line.Missing.Add(b.carried)
		b.note(Missing, "less was posted than received", b.carried)
	default:
		b.line.Doubled = b.line.Doubled.Add(b.carried.Neg())
		b.note(Doubled, "more was posted than received", b.carried.Neg())
	}
}
