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

// CheckOrder compares everything of one order.
func CheckOrder(o Order, p Policy) []Finding {
	c := &orderCheck{o: o, p: p, r: p.of(&o), effects: map[string][]object.Effect{}}
	slices.SortFunc(c.o.Facts, func(a, b Fact) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	slices.SortFunc(c.o.Effects, func(a, b object.Effect) int { return strings.Compare(a.Number, b.Number) })
	for _, e := range c.o.Effects {
		if e.Key != "" {
			c.effects[e.Key] = append(c.effects[e.Key], e)
		}
	}
	for i := range c.o.Facts {
		c.fact(&c.o.Facts[i])
	}
	if c.o.Asked {
		c.together()
		c.keyless()
		c.movements()
		c.uses()
		c.delivery()
	}
	c.machines()
	c.mes()
	return unique(c.found)
}

type orderCheck struct {
	o       Order
	p       Policy
	r       Rules
	effects map[string][]object.Effect // by key
	found   []Finding
	units   map[string]bool // facts and lines explained by a wrong unit
}

// unique keeps the first finding of each type and subject.
func unique(all []Finding) []Finding {
	slices.SortStableFunc(all, func(a, b Finding) int { return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Subject, b.Subject)) })
	return slices.CompactFunc(all, func(a, b Finding) bool { return a.Type == b.Type && a.Subject == b.Subject })
}

func (c *orderCheck) add(f Finding) {
	f.Plant, f.ERP, f.OrderNo = c.o.Plant, c.o.ERP, cmp.Or(f.OrderNo, c.o.OrderNo)
	c.found = append(c.found, f)
}

func factEvidence(f *Fact) Evidence {
	text := fmt.Sprintf("%s of source %q, %s", f.Kind, f.Source, f.OccurredAt.Format(time.RFC3339))
	if r := f.CounterRange(); r != nil {
		text += fmt.Sprintf(", counter %s %s to %s (epoch %s)", r.Tag, r.From, r.To, r.Epoch)
	}
	return Evidence{Kind: "fact", Ref: f.Key.String(), Text: text}
}

func effectEvidence(e object.Effect) Evidence {
	var parts []string
	for _, q := range e.Quantities {
		parts = append(parts, fmt.Sprintf("%s %s %s", q.Kind, q.Value, q.Unit))
	}
	text := strings.Join(parts, ", ")
	if e.Key != "" {
		text += ", key " + e.Key
	}
	return Evidence{Kind: "document", Ref: e.Number, Text: strings.TrimPrefix(text, ", ")}
}

// settled reports that a fact's posting has been where it is for longer than the settle time.
func (c *orderCheck) settled(f *Fact) bool {
	return !f.ReceivedAt.After(c.o.Now.Add(-c.p.Settle)) && !f.Since.After(c.o.Now.Add(-c.p.Settle))
}

func (c *orderCheck) age(t time.Time) time.Duration { return c.o.Now.Sub(t) }

// documents are those of all keys that a fact was posted under.
func (c *orderCheck) documents(f *Fact) (all []object.Effect) {
	for _, key := range f.keys() {
		all = append(all, c.effects[key]...)
	}
	return all
}

// current is the key that a fact is posted under now.
func (f *Fact) current() string {
	if len(f.Keys) == 0 || len(f.members) > 0 {
		return f.Key.String()
	}
	return f.Keys[len(f.Keys)-1]
}

// live are the documents of a key that nothing has taken back.
func live(all []object.Effect) []object.Effect {
	return slices.DeleteFunc(slices.Clone(all), func(e object.Effect) bool { return e.ReversedBy != "" })
}

// booked are the documents that are in the books.
func booked(all []object.Effect) []object.Effect {
	return slices.DeleteFunc(slices.Clone(all), func(e object.Effect) bool { return e.State == object.EffectPending })
}

// fact compares one fact with its documents, and classifies what its posting says.
func (c *orderCheck) fact(f *Fact) {
	c.clock(f)
	c.place(f)
	c.lot(f)
	if !c.settled(f) {
		return
	}
	c.refused(f)
	c.moved(f)
	if c.o.Asked && f.Aggregate.IsZero() {
		c.compare(f)
	}
}

// compare compares a fact, or the sum of several, with its documents.
func (c *orderCheck) compare(f *Fact) {
	if f.Since.After(c.o.AsOf) {
		return
	}
	docs := slices.DeleteFunc(live(c.documents(f)), f.wrongWay)
	if in := booked(docs); len(in) > 0 {
		docs = in // what waits beside it has no effect yet, and may be refused
	}
	switch {
	case len(docs) > 1:
		c.twice(f, docs)
	case len(docs) == 0:
		c.absent(f)
	case docs[0].Key != f.current():
		c.outlived(f, docs[0])
	default:
		c.unit(f, docs[0])
	}
}

// outlived is about a document of which we have taken back that and posted something else: the outside system was put back.
func (c *orderCheck) outlived(f *Fact, d object.Effect) {
	c.add(Finding{Type: Missing, Subject: "fact " + f.Key.String(), Facts: f.about(), Severity: High, Owner: Production, Left: Side{"fact, posting " + f.State, cmp.Or(f.Document, "sent")},
		Right: Side{c.o.ERP, d.Number}, Evidence: []Evidence{factEvidence(f), effectEvidence(d)}, Since: f.Since, Escalate: true,
		Why: fmt.Sprintf("document %s was taken back and posted otherwise, and stands in the books as if it had not been", d.Number),
		Proposed: Action{Kind: Ask, Fact: f.Key.String(), Document: d.Number,
			Text: fmt.Sprintf("reverse document %s; what was posted in its place is then looked for, and posted when it is not there", d.Number)}})
}

// twice is about two documents with one key.
func (c *orderCheck) twice(f *Fact, docs []object.Effect) {
	last := docs[len(docs)-1]
	x := Finding{Type: Duplicate, Subject: "fact " + f.Key.String(), Facts: f.about(), Severity: High, Owner: Controlling,
		Left: Side{"intended documents", "1"}, Right: Side{c.o.ERP + " documents", fmt.Sprint(len(docs))}, Delta: decimal.NewFromInt(int64(len(docs) - 1)),
		Evidence: []Evidence{factEvidence(f)}, Since: last.BookedAt}
	for _, d := range docs {
		x.Evidence = append(x.Evidence, effectEvidence(d))
	}
	x.Proposed = Action{Kind: ReverseDocument, Fact: f.Key.String(), Document: last.Number, Text: fmt.Sprintf("reverse document %s, the later of %d with one key", last.Number, len(docs))}
	if q := f.FactQuantities(); len(q) > 0 {
		x.Proposed.Item, x.Proposed.Quantity, x.Proposed.Unit = q[0].Item, q[0].Received, q[0].Unit
	}
	switch {
	case c.beyond():
		x.Escalate, x.Why = true, "the order is closed: the document can be reversed only after it is open again"
	case slices.ContainsFunc(docs, func(d object.Effect) bool { return d.Key != last.Key }):
		x.Escalate, x.Why = true, "the documents carry several keys of the fact: one of them was taken back once, and is there again"
	case docs[0].User != last.User:
		x.Escalate, x.Why = true, fmt.Sprintf("the documents are of different users (%q and %q)", docs[0].User, last.User)
	default:
		x.Heal, x.Why = true, "the documents carry the same key and the order is open"
	}
	c.add(x)
}

// beyond reports that the order takes no more postings.
func (c *orderCheck) beyond() bool {
	return c.o.Work != nil && (c.o.Work.State == object.OrderClosed || c.o.Work.State == object.OrderCancelled)
}

var floorRank = map[object.FloorState]int{object.FloorStarted: 1, object.FloorFinished: 2}
var orderRank = map[object.OrderState]int{object.OrderInProgress: 1, object.OrderHeld: 1, object.OrderCompleted: 2, object.OrderClosed: 2}

// absent is about a fact whose posting says that it is in the books, of which there is no document.
func (c *orderCheck) absent(f *Fact) {
	sent := f.State == "posted" || f.State == "verified" || f.Document != ""
	if !sent && !f.CannotTell || f.State == "settled" && f.Document == "" {
		return
	}
	if s := f.OrderState; s != nil && (c.o.Work == nil || orderRank[c.o.Work.State] >= floorRank[s.State] || s.Operation != "" && s.Ends() && !f.Closing) {
		return // what became of an operation, the order's state does not say
	}
	if len(c.documents(f)) > 0 && c.takenBack(f) {
		return
	}
	if f.OrderState == nil && zero(f) {
		return
	}
	x := Finding{Type: Missing, Subject: "fact " + f.Key.String(), Facts: f.about(), Severity: High, Owner: Production,
		Left: Side{"fact, posting " + f.State, cmp.Or(f.Document, "sent")}, Right: Side{c.o.ERP, "no document"}, Evidence: []Evidence{factEvidence(f)}, Since: f.Since,
		Proposed: Action{Kind: LookUpAndSend, Fact: f.Key.String(), Document: f.Document, Text: "look for the fact's key once more, and post it when it is certainly not there"}}
	if q := f.Lines(); len(q) > 0 {
		x.Delta, x.Unit, x.Item = q[0].Received, q[0].Unit, q[0].Item
		x.Proposed.Item, x.Proposed.Quantity, x.Proposed.Unit = q[0].Item, q[0].Received, q[0].Unit
	}
	switch {
	case f.CannotTell:
		x.Escalate, x.Why = true, "the outside system cannot tell whether it has the effect"
	case f.Tries >= c.p.LookUps:
		x.Escalate, x.Why = true, fmt.Sprintf("%d look-ups have not found it", f.Tries)
	case len(c.documents(f)) > 0:
		x.Escalate, x.Why = true, "its document was reversed and no fact of ours says so"
	case c.beyond():
		x.Escalate, x.Why = true, "the order is closed"
	default:
		x.Heal, x.Why = true, "the effect is gone: a look-up comes before the posting, so nothing is doubled"
	}
	c.add(x)
}

// takenBack reports that one of our own facts reverses the document of a fact: not a share of it, nor before it was made.
func (c *orderCheck) takenBack(f *Fact) bool {
	return slices.ContainsFunc(c.o.Facts, func(r Fact) bool {
		return !r.Reverses.IsZero() && r.Aggregate.IsZero() && !r.Opposite && slices.Contains(f.about(), r.Reverses.String())
	})
}

func zero(f *Fact) bool {
	return !slices.ContainsFunc(f.Lines(), func(l object.FactLine) bool { return !l.Received.IsZero() })
}

// Lines are the quantities that were to be posted, in the words of the books.
func (f *Fact) Lines() []object.FactLine {
	all := f.ownLines()
	if f.Books == nil {
		return all
	}
	for i := range all {
		l := &all[i]
		l.Item, l.Unit = cmp.Or(f.Books.Item, l.Item), cmp.Or(f.Books.Unit, l.Unit)
		if v, ok := f.Books.Amounts[l.Kind]; ok {
			if !f.Reverses.IsZero() {
				v = v.Neg()
			}
			l.Received = v
		}
	}
	return all
}

// ownLines are the quantities that were to be posted, in the fact's own unit.
func (f *Fact) ownLines() []object.FactLine {
	all := f.FactQuantities()
	for i, l := range all {
		kind := l.Kind
		if f.Consumption != nil {
			kind = object.Consumed
		}
		if v, ok := f.Amounts[kind]; ok {
			all[i].Received = v
		} else if v, ok := f.Amounts[l.Kind]; ok {
			all[i].Received = v
		}
	}
	return all
}

// keyless looks for the same posting twice where a document carries no key.
func (c *orderCheck) keyless() {
	docs := booked(live(c.o.Effects))
	docs = slices.DeleteFunc(docs, func(e object.Effect) bool { return e.Reverses != "" || e.Kind != object.KindConfirmation })
	for i, e := range docs {
		if e.Key != "" || e.BookedAt.IsZero() || e.BookedAt.After(c.o.Now.Add(-c.p.Settle)) {
			continue
		}
		for j, other := range docs {
			if i == j || other.Key == "" && j > i || other.Operation != e.Operation || !sameQuantities(e, other) || other.BookedAt.Sub(e.BookedAt).Abs() > c.p.Window {
				continue
			}
			c.add(Finding{Type: Duplicate, Subject: "document " + e.Number, Severity: High, Owner: Controlling, Left: Side{"document " + other.Number, "1"},
				Right: Side{"document " + e.Number, "1"}, Delta: decimal.NewFromInt(1), Evidence: []Evidence{effectEvidence(other), effectEvidence(e)}, Escalate: true, Since: e.BookedAt,
				Why: "the documents are alike and one has no key: a person has to say whether it is the same posting", Proposed: Action{Kind: ReverseDocument, Document: e.Number,
					Text: fmt.Sprintf("reverse document %s if it is the same as %s", e.Number, other.Number)}})
			break
		}
	}
}

func sameQuantities(a, b object.Effect) bool {
	return len(a.Quantities) > 0 && slices.EqualFunc(a.Quantities, b.Quantities, func(x, y object.EffectQuantity) bool {
		return x.Kind == y.Kind && x.Item == y.Item && x.Unit == y.Unit && x.Value.Equal(y.Value)
	})
}

// movements looks for documents whose goods movements are not in the books.
func (c *orderCheck) movements() {
	for _, e := range live(c.o.Effects) {
		if e.Kind != object.KindConfirmation || e.Reverses != "" || e.State != object.EffectBooked || e.BookedAt.After(c.o.Now.Add(-c.p.Settle)) {
			continue
		}
		for n, m := range failed(e) {
			x := Finding{Type: MovementFailed, Subject: fmt.Sprintf("document %s movement %d of item %s", e.Number, n+1, m.Item), Severity: High, Owner: Warehouse, Item: m.Item,
				Left: Side{"document " + e.Number, m.Value.String()}, Right: Side{c.o.ERP + " stock", "0"}, Delta: m.Value, Unit: m.Unit, Since: e.BookedAt,
				Evidence: []Evidence{effectEvidence(e), {Kind: "movement", Ref: m.Item, Text: strings.TrimSpace(fmt.Sprintf("%s %s %s %s %s", m.Kind, m.Value, m.Unit, m.Code, m.Reason))}},
				Proposed: Action{Kind: PostMovement, Document: e.Number, Fact: e.Key, Item: m.Item, Quantity: m.Value, Unit: m.Unit, Text: fmt.Sprintf("post the missing movement of %s %s of %q", m.Value, m.Unit, m.Item)}}
			if e.Key != "" {
				x.Facts = []string{e.Key}
			}
			switch {
			case m.Backflush && c.owner(m.Item) == "mes":
				x.Proposed = Action{Kind: Ask, Document: e.Number, Fact: e.Key, Item: m.Item, Quantity: m.Value, Unit: m.Unit,
					Text: fmt.Sprintf("delete the failed backflush of %s %s of %q: the plant posts what it takes", m.Value, m.Unit, m.Item)}
				x.Escalate, x.Why = true, "the plant owns the item's consumption: to post the movement would take it twice"
			case c.age(e.BookedAt) > c.p.MovementFor:
				x.Escalate, x.Why = true, fmt.Sprintf("it has waited for longer than %s", c.p.MovementFor)
			default:
				x.Heal, x.Why = true, "the stock may be there by now"
			}
			c.add(x)
		}
	}
}

// failed lists the movements of a document that failed or are not there: the receipt that the yield of one of our facts asks
// for. Who confirms by hand may receive by hand.
func failed(e object.Effect) (out []object.EffectMovement) {
	got := decimal.Zero
	for _, m := range e.Movements {
		if m.Failed {
			out = append(out, m)
		}
		if m.Kind == object.Yield {
			got = got.Add(m.Value)
		}
	}
	for _, q := range e.Quantities {
		if e.Key != "" && !e.Interim && q.Kind == object.Yield && q.Value.IsPositive() && got.LessThan(q.Value) && len(out) == 0 {
			out = append(out, object.EffectMovement{Kind: object.Yield, Item: q.Item, Quantity: object.Quantity{Value: q.Value.Sub(got), Unit: q.Unit}, Failed: true})
		}
	}
	return out
}
