package posting

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// A fact may take back less than another has. Material then goes the other way by a movement of its own, and a confirmation loses a part
// where the connector can do that. Most systems can only cancel a document whole. There the document is taken back first, under a key
// made of it, and then the original and what takes it back are posted as one document, as those are that were collected: the sum is
// what is left, each keeps its amounts, and each leads to that document. The first step is asked for again until it is known to be
// done; what comes of it and the second are one transaction, so that nothing of it is ever done twice or half.

const (
	stepPart = "taken back in part"
	// remainderLine begins the line of an aggregate that is what is left of a document.
	remainderLine = "what is left after "
)

// cut is how a part is taken back.
type cut struct {
	part store.Part
	// all: what is left of the document is taken back whole, as any other.
	all bool
}

// partOf finds out whether a reversal takes back a part of what stands in a document, and which. why says that it cannot. Nil for one that
// takes back what is there, whole.
func (e *Engine) partOf(tx *store.Tx, p *store.Posting, f store.Fact, original store.Fact, op store.Posting, c connector.Capabilities) (x *cut, why string, err error) {
	parts, err := tx.PartsOf(op.FactID)
	if err != nil {
		return nil, "", err
	}
	for _, old := range parts {
		if old.FactID == p.FactID { // admitted before
			return &cut{part: old}, "", nil
		}
	}
	g, err := e.sealed(tx, op.FactID)
	collected := op.State == store.PostingDue && op.Code == CodeCollecting
	if err != nil || op.Amounts == nil || op.Document == "" && !collected {
		return nil, "", err
	}
	shared := g != nil && f.Fact.Confirmation != nil
	counted, takes := *amounts(original.Fact, original.Fact.FactQuantities()), *negated(amounts(f.Fact, f.Fact.FactQuantities()))
	if len(parts) == 0 && !shared && same(takes, counted) {
		return nil, "", nil
	}
	left, leftCounted := *op.Amounts, counted
	for _, old := range parts {
		left, leftCounted = minus(left, old.Taken), minus(leftCounted, old.Counted)
	}
	if rest := minus(leftCounted, takes); below(object.Fact{}, &rest) {
		return nil, fmt.Sprintf("of its %s only %s are left, other facts took back the rest", inWords(counted), inWords(leftCounted)), nil
	}
	x = &cut{part: store.Part{FactID: p.FactID, OriginalID: op.FactID, Counted: takes, Taken: rounded(takes, left, c.QuantityScale)}}
	if same(takes, leftCounted) {
		x.part.Taken = left
	}
	whole := *op.Amounts
	if g != nil {
		members, err := tx.Members(g.ID)
		if err != nil {
			return nil, "", err
		}
		whole = sumOf(members)
	}
	if f.Fact.Confirmation != nil && same(whole, x.part.Taken) {
		x.all = true
		if len(parts) == 0 {
			return nil, "", nil // what the others share cancels out
		}
		return x, "", nil
	}
	if collected { // it joins what it takes a part of
		x.part.Own = f.Fact.Consumption != nil || slices.Contains(c.ReversesPart, f.Fact.Kind)
		return x, "", nil
	}
	why, err = e.cuttable(tx, x, f.Fact, original.Fact, op, g, c)
	return x, why, err
}

// cuttable says how a part is taken back, and why it cannot be; g is the aggregate that the original was posted in, nil for none.
func (e *Engine) cuttable(tx *store.Tx, x *cut, f, original object.Fact, op store.Posting, g *store.Aggregate, c connector.Capabilities) (why string, err error) {
	said, err := tx.Applied(op.FactID)
	if err != nil {
		return "", err
	}
	if said.Converts() {
		return fmt.Sprintf("it was posted in unit %q by a mapping, and of that no part is taken back", said.Unit), nil
	}
	if x.part.Own = f.Consumption != nil || slices.Contains(c.ReversesPart, f.Kind); x.part.Own {
		return "", nil
	}
	if _, ok := e.o.Connectors[op.ERP].(connector.DocumentReverser); !ok {
		if g != nil {
			return fmt.Sprintf("it was posted as one document with %d others, %s under key %s, and system %q takes back no part of one, nor one by its number", g.Members-1, op.Document, g.Key, op.ERP), nil
		}
		return fmt.Sprintf("%s, and system %q takes back no part of a document, nor one by its number", beside(original.FactQuantities()[0], f.FactQuantities()[0]), op.ERP), nil
	}
	if fixed, err := tx.Correction(op.FactID); err != nil || fixed != nil {
		return "its posting was corrected: that is no longer what the fact says", err
	}
	return "", nil
}

// rounded is what the system can keep of some amounts, no more than is left.
func rounded(a, left store.Amounts, scale int32) store.Amounts {
	each(&a, left, func(v, most decimal.Decimal) decimal.Decimal {
		if scale >= 0 {
			v = v.RoundBank(scale)
		}
		return decimal.Min(v, most)
	})
	return a
}

// each changes amounts one by one, beside others.
func each(a *store.Amounts, b store.Amounts, f func(a, b decimal.Decimal) decimal.Decimal) {
	a.Yield, a.Scrap, a.Rework, a.Quantity = f(a.Yield, b.Yield), f(a.Scrap, b.Scrap), f(a.Rework, b.Rework), f(a.Quantity, b.Quantity)
}

func minus(a, b store.Amounts) store.Amounts {
	each(&a, b, decimal.Decimal.Sub)
	return a
}

func same(a, b store.Amounts) bool { d := minus(a, b); return d.IsZero() }

func inWords(a store.Amounts) string {
	var parts []string
	for _, x := range []struct {
		name string
		v    decimal.Decimal
	}{{"yield", a.Yield}, {"scrap", a.Scrap}, {"rework", a.Rework}, {"material", a.Quantity}} {
		if !x.v.IsZero() {
			parts = append(parts, fmt.Sprintf("%s %s", x.v, x.name))
		}
	}
	if len(parts) == 0 {
		return "0"
	}
	return strings.Join(parts, ", ")
}

// takePart makes the taking back of a part due. What rounding leaves of it goes to the next posting.
func (e *Engine) takePart(tx *store.Tx, p *store.Posting, f store.Fact, op store.Posting, x *cut) error {
	known, err := tx.Part(p.FactID)
	if err != nil || known != nil {
		due(p, tx)
		return err
	}
	if err := e.takeAmounts(tx, p, f, x.part.Taken, false, false); err != nil {
		return err
	}
	if err := tx.PutPart(x.part); err != nil || p.State != store.PostingDue {
		return err
	}
	return tx.AddPostingStep(store.PostingStep{FactID: op.FactID, Step: stepPart, Document: op.Document, Reason: fmt.Sprintf("%s, by fact %s", inWords(x.part.Taken), f.Fact.Key)})
}

// parted takes a document back whole of which a part shall go, and makes what is left of it due. It reports that there is nothing else to do
// for the posting now.
func (e *Engine) parted(ctx context.Context, c *call) (stop bool, err error) {
	if c.original == nil {
		return false, nil
	}
	part, err := e.o.Store.Part(ctx, c.p.FactID)
	if err != nil || part == nil || part.Own {
		return false, err
	}
	e.collects.Store(true) // what is left is made as one document
	reverser, ok := e.o.Connectors[c.p.ERP].(connector.DocumentReverser)
	if !ok {
		return true, e.notParted(ctx, c, connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: CodeReversal, Reason: "no document is taken back any more by this system",
			NextStep: "take back by hand what this fact takes back, then accept it"})
	}
	document := c.original.Document
	if part.Document != document {
		part.Document = document
		if err := e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error { return tx.PutPart(*part) }); err != nil {
			return true, err
		}
	}
	if err := e.crash("parting"); err != nil {
		return true, err
	}
	out, asked := calmReverse(ctx, reverser, document, takeOutKey(c.p.ERP, document))
	c.turn.give()
	if err := e.crash("parted"); err != nil {
		return true, err
	}
	switch {
	case asked == nil && out.Result == connector.Posted:
		return true, e.remain(ctx, c, *part, out.Document.Number)
	case asked == nil && out.Result == connector.Rejected:
		return true, e.notParted(ctx, c, out)
	case asked == nil:
		asked = errors.New(out.Reason)
	}
	return true, e.unreachable(ctx, c, fmt.Errorf("take back document %s, of which a part shall go: %w", document, asked))
}

// notParted stores that a document was not taken back: nothing has happened.
func (e *Engine) notParted(ctx context.Context, c *call, out connector.Outcome) error {
	if out.Class != connector.Retryable {
		err := e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
			part, err := tx.Part(c.p.FactID)
			if err == nil && part != nil {
				part.Document = ""
				err = tx.PutPart(*part)
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	_, err := e.answered(ctx, c, out)
	return err
}

// remain makes due what is left of a document that was taken back: the facts that it was made of, and the one that takes back the part,
// as one posting under a key of its own.
func (e *Engine) remain(ctx context.Context, c *call, part store.Part, by string) error {
	err := e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		op, err := tx.Posting(part.OriginalID)
		if err != nil {
			return err
		}
		if op.Document != part.Document || !op.State.Settled() {
			p := c.p
			park(&p, ClassMismatch, CodeReversing, fmt.Sprintf("document %s was taken back (by %s) because a part of it shall go, and its posting is another meanwhile", part.Document, by),
				"look what of it is in the outside system, book what is missing by hand, then accept this fact")
			p.Since, p.Tries = tx.Now(), 0
			return e.changed(tx, p, c.f, string(p.State), "", pb.Receipt_OUTCOME_REJECTED)
		}
		members, line, err := e.leftOver(tx, c, part)
		if err != nil {
			return err
		}
		sum := sumOf(members)
		g := store.Aggregate{ERP: c.p.ERP, OrderNo: c.p.OrderNo, Line: line, Key: factkey.Of(factkey.Position("what is left", c.p.ERP, part.Document, c.f.Fact.Key.String())),
			OpenedAt: tx.Now(), SealAt: tx.Now(), Members: len(members), Quantity: sum.Sum()}
		if err := tx.PutAggregate(&g); err != nil {
			return err
		}
		for _, m := range members {
			if err := e.stay(tx, g, m, part, by); err != nil {
				return err
			}
		}
		part.Ended, part.Key = true, g.Key
		return errors.Join(tx.PutPart(part), e.crash("remaining"))
	})
	if err == nil {
		err = e.crash("remained")
	}
	return err
}

// leftOver are the facts of which what is left is made. The aggregate that they were posted in is over.
func (e *Engine) leftOver(tx *store.Tx, c *call, part store.Part) (members []store.Fact, line string, err error) {
	line = remainderLine + c.f.Fact.Key.String()
	g, err := e.sealed(tx, part.OriginalID)
	switch {
	case err != nil:
		return nil, "", err
	case g != nil:
		if members, err = tx.Members(g.ID); err == nil {
			err = tx.DissolveAggregate(g.ID)
		}
	default:
		var original store.Fact
		if original, err = tx.FactByKey(c.f.Fact.Reverses); err == nil {
			var p store.Posting
			if p, err = tx.Posting(original.ID); err == nil {
				original.Posting = &p
				members = []store.Fact{original}
			}
		}
	}
	own, p := c.f, c.p
	own.Posting = &p
	return append(members, own), line, err
}

// stay makes one of the facts due of which what is left is made.
func (e *Engine) stay(tx *store.Tx, g store.Aggregate, m store.Fact, part store.Part, by string) error {
	if err := tx.JoinAggregate(m.ID, g.ID); err != nil {
		return err
	}
	p := m.Posting
	due(p, tx)
	p.Document, p.DocumentID = "", ""
	steps := []store.PostingStep{{FactID: m.ID, Step: "collected", Reason: fmt.Sprintf("what is left of document %s is posted as one document under key %s", part.Document, g.Key)}}
	if m.ID != part.FactID {
		steps = append([]store.PostingStep{{FactID: m.ID, Step: stepTakenBack, Document: by, Reason: fmt.Sprintf("document %s was taken back: %s of it shall go", part.Document, inWords(part.Taken))}}, steps...)
	}
	if err := tx.PutPosting(*p); err != nil {
		return err
	}
	for _, s := range steps {
		if err := tx.AddPostingStep(s); err != nil {
			return err
		}
	}
	return receipt(tx, *p, m, pb.Receipt_OUTCOME_RECEIVED)
}

// remainder reports that a posting is what is left of a document: it is posted as it is, under a key of its own, because the facts' own
// keys lead to what was taken back.
func (e *Engine) remainder(tx *store.Tx, factID int64) (bool, error) {
	g, err := e.sealed(tx, factID)
	return g != nil && strings.HasPrefix(g.Line, remainderLine), err
}

// takeOutKey is the key under which a document is taken back that is to go whole.
func takeOutKey(erp, document string) string {
	return factkey.Of(factkey.Position("taken back", erp, document)).String()
}

// calmReverse keeps a connector that breaks down from ending the hub.
func calmReverse(ctx context.Context, r connector.DocumentReverser, number, key string) (out connector.Outcome, err error) {
	defer calm("take back a document", &err)
	return r.ReverseDocument(ctx, number, key)
}
