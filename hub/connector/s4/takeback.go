package s4

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

var _ connector.DocumentReverser = (*Connector)(nil)

// ReverseDocument implements connector.DocumentReverser by SAP's own functions, each of which takes one thing back only once: a
// confirmation (group/count) with the receipt that belongs to it, a material document (number/year), or one of its items
// (number/year/item).
func (c *Connector) ReverseDocument(ctx context.Context, number, key string) (connector.Outcome, error) {
	prefix, err := factkey.Parse(key)
	if err != nil {
		return connector.Outcome{}, fmt.Errorf("reverse document %q: %w", number, err)
	}
	var k factkey.Key
	copy(k[:], prefix)
	out, err := c.takeBack(ctx, number, k)
	if err != nil {
		return connector.Outcome{}, fmt.Errorf("reverse document %q: %w", number, err)
	}
	return out, nil
}

func (c *Connector) takeBack(ctx context.Context, number string, key factkey.Key) (connector.Outcome, error) {
	parts := strings.Split(number, "/")
	if len(parts) < 2 || len(parts) > 3 || slices.ContainsFunc(parts, func(p string) bool { return p == "" || strings.Trim(p, "0123456789") != "" }) {
		return connector.Outcome{}, fmt.Errorf("SAP has no such number: %w", connector.ErrNotFound)
	}
	conf, isConf, err := one[sapConfirmation](ctx, c, confService, fmt.Sprintf("ProdnOrdConf2(ConfirmationGroup=%s,ConfirmationCount=%s)", quote(parts[0]), quote(parts[1])))
	if err != nil {
		return connector.Outcome{}, err
	}
	doc, isDoc, err := one[sapDocument](ctx, c, docService, fmt.Sprintf("A_MaterialDocumentHeader(MaterialDocumentYear=%s,MaterialDocument=%s)", quote(parts[1]), quote(parts[0])))
	switch {
	case err != nil:
		return connector.Outcome{}, err
	case len(parts) == 3 && isDoc:
		return c.cancelDocument(ctx, doc, parts[2], key)
	case isConf && isDoc:
		return *reject(connector.Correctable, "TWO_DOCUMENTS", "Take the right one back in SAP.", "A confirmation and a material document both have number %s.", number), nil
	case isConf && len(parts) == 2:
		return c.cancelConfirmation(ctx, conf, key)
	case isDoc:
		return c.cancelDocument(ctx, doc, "", key)
	}
	return connector.Outcome{}, connector.ErrNotFound
}

// one reads one entity with its items; that it is not there is no error.
func one[T any](ctx context.Context, c *Connector, service, path string) (v T, there bool, err error) {
	expand := "to_MaterialDocumentItem"
	if service == confService {
		expand = "to_ProdnOrdConfMatlDocItm"
	}
	err = c.client.get(ctx, service, path, url.Values{"$expand": {expand}}, &v)
	if errors.Is(err, connector.ErrNotFound) {
		return v, false, nil
	}
	return v, err == nil, err
}

// today is the date for the books of what no fact asks for.
func (c *Connector) today() string {
	return "datetime'" + time.Now().In(c.cfg.zone).Format(time.DateOnly) + "T00:00:00'"
}

func (c *Connector) cancelConfirmation(ctx context.Context, x sapConfirmation, key factkey.Key) (connector.Outcome, error) {
	e, receipt, err := c.reversible(ctx, x)
	if err != nil {
		return connector.Outcome{}, err
	}
	if e.Reverses != "" {
		return *reject(connector.Correctable, "IS_REVERSAL", "Confirm again what was cancelled, by a fact or in SAP.", "Confirmation %s cancels %s and cannot be cancelled itself.", e.Number, e.Reverses), nil
	}
	if receipt != "" { // last in, first out
		parts := strings.Split(receipt, "/")
		doc, there, err := one[sapDocument](ctx, c, docService, fmt.Sprintf("A_MaterialDocumentHeader(MaterialDocumentYear=%s,MaterialDocument=%s)", quote(parts[1]), quote(parts[0])))
		if err == nil && !there {
			err = connector.ErrNotFound
		}
		if err != nil {
			return connector.Outcome{}, err
		}
		if out, err := c.cancelDocument(ctx, doc, "", key); err != nil || out.Result != connector.Posted {
			return out, err
		}
	}
	if e.ReversedBy != "" {
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: e.ReversedBy}}, nil
	}
	s := step{Do: doCancel, Order: x.OrderID, RequestID: requestID(key, 0), Query: url.Values{"ConfirmationGroup": {quote(x.ConfirmationGroup)}, "ConfirmationCount": {quote(x.ConfirmationCount)},
		"PostingDate": {c.today()}, "ConfirmationText": {quote(cancelText(key, x.number()))}, "ExternalSystemConfirmation": {"guid'" + key.UUID() + "'"}}}
	return c.onceMore(ctx, s, func() (string, error) {
		e, _, err := c.reversible(ctx, x)
		return e.ReversedBy, err
	})
}

// reversible reads a confirmation as an effect of its order, and the receipt of its own that belongs to it.
func (c *Connector) reversible(ctx context.Context, x sapConfirmation) (e object.Effect, receipt string, err error) {
	b, err := c.books(ctx, x.OrderID)
	if err != nil {
		return e, "", err
	}
	l, err := c.ledger(b)
	if err != nil {
		return e, "", err
	}
	i := slices.IndexFunc(l.confs, func(e object.Effect) bool { return e.Number == x.number() })
	if i < 0 {
		return e, "", fmt.Errorf("order %s does not have it: %w", x.OrderID, connector.ErrNotFound)
	}
	return l.confs[i], l.receipts[x.number()], nil
}

// cancelDocument cancels a material document, or one of its items.
func (c *Connector) cancelDocument(ctx context.Context, d sapDocument, item string, key factkey.Key) (connector.Outcome, error) {
	if d.cancels() {
		return *reject(connector.Correctable, "IS_REVERSAL", "Post again what was cancelled, by a fact or in SAP.", "Material document %s cancels another and is not cancelled itself.", d.number()), nil
	}
	left := slices.DeleteFunc(slices.Clone(d.Items.Results), func(i sapDocItem) bool { return item != "" && i.MaterialDocumentItem != item })
	if len(left) == 0 {
		return connector.Outcome{}, fmt.Errorf("item %s: %w", item, connector.ErrNotFound)
	}
	by, err := c.cancelledBy(ctx, d, item)
	if err != nil {
		return connector.Outcome{}, err
	}
	if by != "" {
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: by}}, nil
	}
	if no, err := c.takenBackByFact(ctx, d, left); no != nil || err != nil {
		return *orNothing(no), err
	}
	s := step{Do: doCancelDocument, Order: left[0].ManufacturingOrder, RequestID: requestID(key, 1),
		Query: url.Values{"MaterialDocumentYear": {quote(d.MaterialDocumentYear)}, "MaterialDocument": {quote(d.MaterialDocument)}, "PostingDate": {c.today()}}}
	if item != "" {
		s.Do = doCancelItem
		s.Query.Set("MaterialDocumentItem", quote(item))
	}
	return c.onceMore(ctx, s, func() (string, error) { return c.cancelledBy(ctx, d, item) })
}

func orNothing(no *connector.Outcome) *connector.Outcome {
	if no == nil {
		return &connector.Outcome{}
	}
	return no
}

// cancelledBy finds what SAP's own function has cancelled a document with; empty when it is not cancelled, or not wholly.
func (c *Connector) cancelledBy(ctx context.Context, d sapDocument, item string) (by string, err error) {
	now, there, err := one[sapDocument](ctx, c, docService, fmt.Sprintf("A_MaterialDocumentHeader(MaterialDocumentYear=%s,MaterialDocument=%s)", quote(d.MaterialDocumentYear), quote(d.MaterialDocument)))
	if err != nil || !there {
		return "", err
	}
	for _, i := range now.Items.Results {
		if (item == "" || i.MaterialDocumentItem == item) && !i.GoodsMovementIsCancelled {
			return "", nil
		}
	}
	q := url.Values{"$filter": {fmt.Sprintf("ReversedMaterialDocument eq %s and ReversedMaterialDocumentYear eq %s", quote(d.MaterialDocument), quote(d.MaterialDocumentYear))}}
	err = pages(ctx, c.client, docService, "A_MaterialDocumentItem", q, func(i sapDocItem) {
		if old, cancels := i.cancels(); cancels && old.document() == d.number() && (item == "" || old.MaterialDocumentItem == item) {
			by = i.document()
		}
	})
	if err == nil && by == "" {
		err = fmt.Errorf("material document %s is cancelled, and what cancelled it cannot be read", d.number())
	}
	return by, err
}

// takenBackByFact refuses what the opposite movement of a fact has taken back already, which SAP does not know of.
func (c *Connector) takenBackByFact(ctx context.Context, d sapDocument, items []sapDocItem) (no *connector.Outcome, err error) {
	if d.ReferenceDocument == "" {
		return nil, nil
	}
	q := url.Values{"$filter": {fmt.Sprintf("ManufacturingOrder eq %s and MaterialDocumentItemText eq %s", quote(items[0].ManufacturingOrder), quote(backWord+d.ReferenceDocument))}}
	err = pages(ctx, c.client, docService, "A_MaterialDocumentItem", q, func(i sapDocItem) {
		no = reject(connector.Correctable, "ALREADY_REVERSED", "Look in SAP which documents of the fact are left, and take back what is too much there.",
			"Document %s takes back a document of fact %s already.", i.document(), d.ReferenceDocument)
	})
	return no, err
}

// onceMore sends a cancellation, and looks again after SAP refused what can be done only once: an earlier request may have done it.
func (c *Connector) onceMore(ctx context.Context, s step, by func() (string, error)) (connector.Outcome, error) {
	out := c.do(ctx, s, time.Now())
	if out.Result != connector.Rejected || out.Class == connector.Retryable {
		return out, nil
	}
	number, err := by()
	switch {
	case err != nil:
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("%s Whether an earlier request did it could not be read: %v", out.Reason, err)}, nil
	case number != "":
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: number}}, nil
	}
	return out, nil
}
