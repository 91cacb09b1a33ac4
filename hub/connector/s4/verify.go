package s4

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Verify reads every effect of a posting back, goods movements among them, and compares it with what was meant.
func (c *Connector) Verify(ctx context.Context, p connector.Posting, raw []byte, doc connector.Document) (connector.Verification, error) {
	v, err := c.verify(ctx, p, raw, doc, nil, time.Now())
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	return v, nil
}

// verify compares with what was read, or is read now; asked is when, at the earliest.
func (c *Connector) verify(ctx context.Context, p connector.Posting, raw []byte, doc connector.Document, read *found, asked time.Time) (connector.Verification, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Verification{}, err
	}
	if len(in.Steps) == 0 {
		o, err := c.order(ctx, orderNo(p))
		if err != nil {
			return connector.Verification{}, err
		}
		var no *connector.Outcome
		if in, no, err = c.intend(ctx, p, &o); err != nil || no != nil {
			if no != nil {
				err = fmt.Errorf("%s", no.Reason)
			}
			return connector.Verification{}, err
		}
		in.At = time.Time{}
	}
	var all check
	for i, s := range in.Steps {
		x, err := c.verifyStep(ctx, p, s, read)
		if err != nil {
			return connector.Verification{}, err
		}
		if i == 0 && len(x.wrong)+len(x.missing) == 0 && doc.Number != "" && x.number != doc.Number {
			x.wrong = append(x.wrong, fmt.Sprintf("the document is %s, not %s", x.number, doc.Number))
		}
		all.wrong, all.missing = append(all.wrong, x.wrong...), append(all.missing, x.missing...)
	}
	switch {
	case len(all.wrong) > 0:
		return connector.Verification{Difference: sentence(append(all.wrong, all.missing...))}, nil
	case len(all.missing) > 0 && asked.Sub(in.At) <= c.cfg.mayTake+c.cfg.Settle:
		return connector.Verification{NotYet: true}, nil
	case len(all.missing) > 0:
		return connector.Verification{Difference: sentence(all.missing)}, nil
	}
	return connector.Verification{Matches: true}, nil
}

func sentence(parts []string) string {
	text := strings.Join(parts, "; ")
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// check is what is different for good, and what is only not there, which time may mend.
type check struct {
	number         string
	wrong, missing []string
}

func (x *check) differ(format string, args ...any) {
	x.wrong = append(x.wrong, fmt.Sprintf(format, args...))
}
func (x *check) lack(format string, args ...any) {
	x.missing = append(x.missing, fmt.Sprintf(format, args...))
}

func (x *check) same(what, have, want string) {
	if have != want {
		x.differ("document %s has %s %q, wanted %q", x.number, what, have, want)
	}
}

func (x *check) amount(what string, have quantity, want decimal.Decimal) {
	if !have.Equal(want) {
		x.differ("document %s has %s %s, wanted %s", x.number, what, have, want)
	}
}

func (c *Connector) verifyStep(ctx context.Context, p connector.Posting, s step, read *found) (check, error) {
	switch s.Do {
	case doFinish:
		o, err := c.order(ctx, s.Order)
		x := check{number: o.ManufacturingOrder}
		if err == nil && !o.finished() {
			x.lack("order %s is not technically complete in SAP", s.Order)
		}
		return x, err
	case doEndOperation:
		return c.verifyEnd(ctx, p, s)
	case doDocument:
		docs, err := read.documents(ctx, c, p.Fact.Key.String())
		return verifyDocument(p, s, docs), err
	}
	confs, err := read.confirmations(ctx, c, p.Fact.Key.UUID())
	if err != nil {
		return check{}, err
	}
	x := verifyConfirmation(p, s, only(confs, s.Do == doCancel))
	if s.Do == doCancel && len(x.wrong)+len(x.missing) == 0 {
		old, err := read.confirmations(ctx, c, p.Fact.Reverses.UUID())
		if err != nil {
			return check{}, err
		}
		if old = only(old, false); len(old) != 1 || !old[0].IsReversed {
			x.differ("document %s is there, but the confirmation of fact %s is not cancelled", x.number, p.Fact.Reverses)
		}
	}
	return x, nil
}

// verifyEnd reads back that an operation was confirmed finally: by us, then that confirmation is compared, or by somebody else.
func (c *Connector) verifyEnd(ctx context.Context, p connector.Posting, s step) (check, error) {
	confs, err := c.findConfirmations(ctx, p.Fact.Key.UUID())
	if err != nil {
		return check{}, err
	}
	if confs = only(confs, false); len(confs) > 0 {
		x := verifyConfirmation(p, s, confs)
		if !confs[0].IsFinalConfirmation {
			x.differ("confirmation %s is not a final one", x.number)
		}
		return x, nil
	}
	doc, err := c.findEnd(ctx, p, s)
	x := check{number: s.Order}
	if err == nil && doc == nil {
		x.lack("operation %s of order %s is not confirmed finally in SAP", s.Operation, s.Order)
	}
	return x, err
}

func verifyConfirmation(p connector.Posting, s step, confs []sapConfirmation) (x check) {
	if len(confs) == 0 {
		x.lack("no confirmation is in SAP under key %s", p.Fact.Key.UUID())
		return x
	}
	d := confs[0]
	x.number = d.number()
	if len(confs) > 1 {
		x.differ("%d confirmations carry key %s: %s and %s", len(confs), p.Fact.Key.UUID(), confs[0].number(), confs[1].number())
		return x
	}
	f := p.Fact.Confirmation
	if s.Do == doEndOperation {
		f = &object.Confirmation{}
	}
	if f == nil {
		x.differ("document %s is a confirmation", x.number)
		return x
	}
	x.same("order", strings.TrimLeft(d.OrderID, "0"), strings.TrimLeft(s.Order, "0"))
	x.same("operation", d.OrderOperation, s.Operation)
	if s.ISO != "" && d.ConfirmationUnitISOCode != "" {
		x.same("unit", d.ConfirmationUnitISOCode, s.ISO)
	} else {
		x.same("unit", d.ConfirmationUnit, s.Unit)
	}
	x.amount("yield", d.ConfirmationYieldQuantity, f.Yield)
	x.amount("scrap", d.ConfirmationScrapQuantity, f.Scrap)
	x.amount("rework", d.ConfirmationReworkQuantity, f.Rework)
	x.date(d.PostingDate, p.PostingDate)
	switch {
	case s.Do == doCancel:
		x.same("group", d.ConfirmationGroup, s.Group)
	case d.IsReversed:
		x.differ("confirmation %s is cancelled in SAP", x.number)
	}
	x.moves(s, d.Moves.Results)
	return x
}

func (x *check) date(have string, want time.Time) {
	if want.IsZero() {
		return
	}
	day, _ := readDate(have)
	x.same("posting date", day.Format(time.DateOnly), want.Format(time.DateOnly))
}

// moves compares the goods movements of a confirmation with those it must have. SAP saves a confirmation whose movements
// failed: what is missing is then in its list of failed movements.
func (x *check) moves(s step, have []sapMove) {
	have = slices.Clone(have)
	for _, m := range s.Moves {
		i := slices.IndexFunc(have, func(h sapMove) bool {
			return (h.GoodsMovementType == m.Type || m.Type == "") && h.Material == m.Material && h.QuantityInEntryUnit.Equal(m.Quantity) && h.EntryUnit == m.Unit
		})
		if i < 0 {
			x.lack("confirmation %s is there, but its %s is not: look for it among the order's failed goods movements (transaction COGI)", x.number, m)
			continue
		}
		have = slices.Delete(have, i, i+1)
	}
	for _, item := range s.Backflushed {
		i := slices.IndexFunc(have, func(h sapMove) bool { return h.Material == item && h.GoodsMovementType == "261" })
		if i < 0 {
			x.lack("confirmation %s is there, but SAP has not taken component %q: look for it among the order's failed goods movements (transaction COGI)", x.number, item)
			continue
		}
		have = slices.DeleteFunc(have, func(h sapMove) bool { return h.Material == item && h.GoodsMovementType == "261" })
	}
	for _, h := range have {
		x.differ("confirmation %s also has movement %s of %s %s of item %q in document %s/%s", x.number, h.GoodsMovementType, h.QuantityInEntryUnit, h.EntryUnit, h.Material, h.MaterialDocument, h.MaterialDocumentYear)
	}
}

func verifyDocument(p connector.Posting, s step, docs []sapDocument) (x check) {
	if len(docs) == 0 {
		x.lack("no material document is in SAP under reference %s (%s)", p.Fact.Key, s.Moves[0])
		return x
	}
	d := docs[0]
	x.number = d.number()
	if len(docs) > 1 {
		x.differ("%d material documents carry reference %s: %s and %s", len(docs), p.Fact.Key, docs[0].number(), docs[1].number())
		return x
	}
	x.date(d.PostingDate, p.PostingDate)
	if len(d.Items.Results) != 1 {
		x.differ("document %s has %d items, wanted 1", x.number, len(d.Items.Results))
		return x
	}
	i, m := d.Items.Results[0], wanted(p, s.Moves[0])
	x.same("order", strings.TrimLeft(i.ManufacturingOrder, "0"), strings.TrimLeft(s.Order, "0"))
	x.same("item", i.Material, m.Material)
	x.same("movement", i.GoodsMovementType, m.Type)
	x.amount("quantity", i.QuantityInEntryUnit, m.Quantity)
	if m.ISO != "" && i.EntryUnitISOCode != "" {
		x.same("unit", i.EntryUnitISOCode, m.ISO)
	} else {
		x.same("unit", i.EntryUnit, m.Unit)
	}
	if i.GoodsMovementIsCancelled {
		x.differ("document %s is cancelled in SAP", x.number)
	}
	if !p.Fact.Reverses.IsZero() {
		x.same("text", i.MaterialDocumentItemText, backText(p))
	}
	return x
}

// wanted is the movement of an intent with item and quantity of the fact, which is what counts.
func wanted(p connector.Posting, m move) move {
	switch f := p.Fact.Consumption; {
	case f != nil:
		m.Material, m.Quantity = f.Item, f.Quantity.Value
		if kind := kindOf(p.Movements, m.Type); p.Fact.Reverses.IsZero() {
			want := &sapComponent{}
			if kind == object.ByProduct || kind == object.ByProductReversal {
				want.GoodsMovementType = ownTypes[object.ByProduct]
			}
			moves := movementOf(connector.Posting{}, want, f)
			m.Type, _ = p.Movements.Of(moves, ownTypes[moves])
		}
	case p.Fact.Confirmation != nil:
		m.Quantity = p.Fact.Confirmation.Yield
	}
	return m
}
