package s4

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// backWord stands before the key of the fact that an item takes back, cancelWord between the own key of a cancelled confirmation
// and what it cancels.
const (
	backWord   = "REVERSES "
	cancelWord = " REV "
)

// backText marks an item that takes back the item of another fact, in the 50 characters that an item has for text.
func backText(p connector.Posting) string { return backWord + p.Fact.Reverses.String() }

// cancelText is the text of the confirmation that cancels another, in the 40 characters that it has for that.
func cancelText(key factkey.Key, what string) string { return clip(key.String()+cancelWord+what, 40) }

// planReversal makes the steps that take back the effect of p.Fact.Reverses. A confirmation is cancelled by SAP's function,
// which takes a key; material documents are taken back by the opposite movement under the fact's own key, because the function
// Cancel takes none: its effect could not be told from that of another. That the original is reversed is no reason to refuse
// when it was this fact that did it.
func (c *Connector) planReversal(ctx context.Context, p connector.Posting, o *sapOrder) ([]step, *connector.Outcome, error) {
	// The steps of the original say which documents it has.
	original := p
	if p.Original != nil {
		original.Fact = p.Original.Fact
	}
	original.Fact.Key = p.Fact.Reverses
	planned, no := c.plan(original, o)
	if no != nil {
		return nil, no, nil
	}
	var steps []step
	for i := len(planned) - 1; i >= 0; i-- { // last in, first out
		var s step
		var err error
		if planned[i].Do == doConfirm {
			s, no, err = c.reverseConfirmation(ctx, p, planned[i])
		} else {
			s, no, err = c.reverseDocument(ctx, p, o)
		}
		if err != nil || no != nil {
			return nil, no, err
		}
		s.Order, s.RequestID = o.ManufacturingOrder, requestID(p.Fact.Key, len(steps))
		steps = append(steps, s)
	}
	return steps, nil, nil
}

func nothingToReverse(p connector.Posting) *connector.Outcome {
	return reject(connector.Correctable, "NOTHING_TO_REVERSE", "Look in SAP what became of that fact, then replay or accept this one.",
		"No document of fact %s is there to be reversed.", p.Fact.Reverses)
}

func alreadyReversed(p connector.Posting, number string) *connector.Outcome {
	return reject(connector.Correctable, "ALREADY_REVERSED", "Check that the other reversal meant the same, then accept this fact with its document.",
		"Document %s of fact %s is reversed already.", number, p.Fact.Reverses)
}

func severalToReverse(p connector.Posting, n int) *connector.Outcome {
	return reject(connector.Correctable, "SEVERAL_TO_REVERSE", "Cancel the surplus ones in SAP, then replay the fact.", "%d documents carry the key of fact %s.", n, p.Fact.Reverses)
}

func (c *Connector) reverseConfirmation(ctx context.Context, p connector.Posting, planned step) (step, *connector.Outcome, error) {
	confs, err := c.findConfirmations(ctx, p.Fact.Reverses.UUID())
	if err != nil {
		return step{}, nil, err
	}
	mine, err := c.findConfirmations(ctx, p.Fact.Key.UUID())
	if err != nil {
		return step{}, nil, err
	}
	confs = only(confs, false)
	switch {
	case len(confs) == 0:
		return step{}, nothingToReverse(p), nil
	case len(confs) > 1:
		return step{}, severalToReverse(p, len(confs)), nil
	case confs[0].IsReversed && len(only(mine, true)) == 0:
		return step{}, alreadyReversed(p, confs[0].number()), nil
	}
	q := url.Values{"ConfirmationGroup": {quote(confs[0].ConfirmationGroup)}, "ConfirmationCount": {quote(confs[0].ConfirmationCount)},
		"ConfirmationText": {quote(cancelText(p.Fact.Key, p.Fact.Reverses.String()))}, "ExternalSystemConfirmation": {"guid'" + p.Fact.Key.UUID() + "'"}}
	if !p.PostingDate.IsZero() {
		q.Set("PostingDate", "datetime'"+p.PostingDate.Format(time.DateOnly)+"T00:00:00'")
	}
	s := step{Do: doCancel, Query: q, Group: confs[0].ConfirmationGroup, Unit: planned.Unit, ISO: planned.ISO, Operation: planned.Operation}
	for _, m := range confs[0].Moves.Results {
		s.Moves = append(s.Moves, move{Type: cancelType(p.Movements, m.GoodsMovementType), Material: m.Material, Quantity: m.QuantityInEntryUnit.Decimal, Unit: m.EntryUnit})
	}
	return s, nil, nil
}

func (c *Connector) reverseDocument(ctx context.Context, p connector.Posting, o *sapOrder) (step, *connector.Outcome, error) {
	docs, err := c.findDocuments(ctx, p.Fact.Reverses.String())
	if err != nil {
		return step{}, nil, err
	}
	switch {
	case len(docs) == 0:
		return step{}, nothingToReverse(p), nil
	case len(docs) > 1:
		return step{}, severalToReverse(p, len(docs)), nil
	case len(docs[0].Items.Results) != 1:
		return step{}, reject(connector.Correctable, "NOT_OURS", "Take it back in SAP, then accept this fact.", "Document %s has %d items, wanted 1.", docs[0].number(), len(docs[0].Items.Results)), nil
	}
	d := docs[0].Items.Results[0]
	if d.GoodsMovementIsCancelled {
		return step{}, alreadyReversed(p, docs[0].number()), nil
	}
	var others list[sapDocItem]
	q := url.Values{"$filter": {fmt.Sprintf("ManufacturingOrder eq %s and MaterialDocumentItemText eq %s", quote(o.ManufacturingOrder), quote(backText(p)))}}
	if err := c.client.get(ctx, docService, "A_MaterialDocumentItem", q, &others); err != nil {
		return step{}, nil, err
	}
	if len(others.Results) > 0 {
		mine, err := c.findDocuments(ctx, p.Fact.Key.String())
		if err != nil {
			return step{}, nil, err
		}
		if len(mine) == 0 {
			return step{}, alreadyReversed(p, docs[0].number()), nil
		}
	}
	s, no := c.opposite(p, o, d)
	return s, no, nil
}

// opposite makes the document that takes an item back.
func (c *Connector) opposite(p connector.Posting, o *sapOrder, d sapDocItem) (step, *connector.Outcome) {
	kind, code, no := backType(p, d.GoodsMovementType)
	if no != nil {
		return step{}, no
	}
	item := map[string]any{"Material": d.Material, "Plant": d.Plant, "StorageLocation": d.StorageLocation, "GoodsMovementType": kind, "ManufacturingOrder": o.ManufacturingOrder,
		"QuantityInEntryUnit": d.QuantityInEntryUnit.String(), "MaterialDocumentItemText": backText(p)}
	setUnit(item, "EntryUnit", d.EntryUnit, d.EntryUnitISOCode)
	for name, value := range map[string]string{"Batch": d.Batch, "GoodsMovementRefDocType": d.GoodsMovementRefDocType} {
		if value != "" {
			item[name] = value
		}
	}
	switch hasReservation := d.Reservation != "" && d.Reservation != "0"; {
	case hasReservation:
		item["Reservation"], item["ReservationItem"] = d.Reservation, d.ReservationItem
		if code == "06" {
			item["MaterialDocumentPostingType"] = "1"
		}
	case code == "06":
		code = "03"
	}
	return document(p, code, p.Fact.Key, item, move{Type: kind, Material: d.Material, Quantity: d.QuantityInEntryUnit.Decimal, Unit: d.EntryUnit, ISO: d.EntryUnitISOCode}), nil
}

func only(confs []sapConfirmation, reversals bool) (out []sapConfirmation) {
	for _, x := range confs {
		if x.IsReversal == reversals {
			out = append(out, x)
		}
	}
	return out
}
