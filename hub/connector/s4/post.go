package s4

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// firstDone is the document of the first step that has one.
func firstDone(in intent) connector.Document {
	for _, s := range in.Steps {
		if s.Done != nil {
			return *s.Done
		}
	}
	return connector.Document{}
}

// stateID marks a Document that is no document but the state of the order whose number it has.
const stateID = "state"

// Prepare reads the order, makes the requests, and looks whether their effects are there already.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	if no := c.unsuitable(p); no != nil {
		return nil, no, nil
	}
	o, err := c.order(ctx, orderNo(p))
	if errors.Is(err, connector.ErrNotFound) {
		return nil, reject(connector.Fatal, "UNKNOWN_ORDER", "Check the order number at the source; SAP does not have it.", "SAP has no order %q.", orderNo(p)), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	in, no, err := c.intend(ctx, p, &o)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	if no != nil {
		return nil, no, nil
	}
	done := 0
	for i := range in.Steps {
		found, err := c.find(ctx, p, in.Steps[i])
		if err != nil {
			return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
		}
		if in.Steps[i].Done = found; found != nil {
			done++
		}
	}
	text := encode(in)
	if done == len(in.Steps) || (done > 0 && !c.repeatable()) { // the rest may be under way: Verify shows what is missing
		return text, &connector.Outcome{Result: connector.Posted, Document: firstDone(in)}, nil
	}
	if why := o.shut(); why != "" && done == 0 {
		return nil, reject(connector.Correctable, "ORDER_STATE", o.opening(), "Order %s %s.", o.ManufacturingOrder, why), nil
	}
	return text, nil, nil
}

// intend makes the steps of a posting.
func (c *Connector) intend(ctx context.Context, p connector.Posting, o *sapOrder) (in intent, no *connector.Outcome, err error) {
	in.At = time.Now().UTC()
	if p.Fact.Reverses.IsZero() {
		in.Steps, no = c.plan(p, o)
		return in, no, nil
	}
	in.Steps, no, err = c.planReversal(ctx, p, o)
	return in, no, err
}

// find looks for the effect of a step; nil when it is not there.
func (c *Connector) find(ctx context.Context, p connector.Posting, s step) (*connector.Document, error) {
	switch s.Do {
	case doFinish:
		o, err := c.order(ctx, s.Order)
		if err != nil || !o.finished() {
			return nil, err
		}
		return &connector.Document{Number: o.ManufacturingOrder, ID: stateID}, nil
	case doEndOperation:
		return c.findEnd(ctx, p, s)
	case doDocument:
		docs, err := c.findDocuments(ctx, p.Fact.Key.String())
		if err != nil || len(docs) == 0 {
			return nil, err
		}
		return &connector.Document{Number: docs[0].number()}, nil
	}
	confs, err := c.findConfirmations(ctx, p.Fact.Key.UUID())
	if confs = only(confs, s.Do == doCancel); err != nil || len(confs) == 0 {
		return nil, err
	}
	return &connector.Document{Number: confs[0].number()}, nil
}

// findEnd looks for the final confirmation of an operation, by whomever. Where it is not ours, the order's state has it.
func (c *Connector) findEnd(ctx context.Context, p connector.Posting, s step) (*connector.Document, error) {
	confs, err := c.findConfirmations(ctx, p.Fact.Key.UUID())
	if confs = only(confs, false); err != nil || len(confs) > 0 {
		if err != nil {
			return nil, err
		}
		return &connector.Document{Number: confs[0].number()}, nil
	}
	o, err := c.order(ctx, s.Order)
	if err != nil {
		return nil, err
	}
	if op, no := operation(&o, p.Fact.OrderState.Operation); no != nil || !op.confirmed() {
		return nil, nil
	}
	return &connector.Document{Number: o.ManufacturingOrder, ID: stateID}, nil
}

// findConfirmations searches by the external key, which SAP keeps and does not hold to be unique.
func (c *Connector) findConfirmations(ctx context.Context, uuid string) ([]sapConfirmation, error) {
	found, err := c.confirmationsUnder(ctx, []string{uuid})
	return found[uuid], err
}

// confirmationsUnder searches by several external keys. What is under a key that was not asked for does not count: a system that does not
// filter must not make us believe.
func (c *Connector) confirmationsUnder(ctx context.Context, uuids []string) (map[string][]sapConfirmation, error) {
	found := map[string][]sapConfirmation{}
	var parts []string
	for _, uuid := range uuids {
		parts = append(parts, "ExternalSystemConfirmation eq guid'"+uuid+"'")
	}
	q := url.Values{"$filter": {strings.Join(parts, " or ")}, "$expand": {"to_ProdnOrdConfMatlDocItm"}}
	err := pages(ctx, c.client, confService, "ProdnOrdConf2", q, func(x sapConfirmation) {
		for _, uuid := range uuids {
			if strings.EqualFold(x.ExternalSystemConfirmation, uuid) {
				found[uuid] = append(found[uuid], x)
			}
		}
	})
	return found, err
}

// findDocuments searches by the reference, leaving out what a person cancelled a document with.
func (c *Connector) findDocuments(ctx context.Context, ref string) ([]sapDocument, error) {
	found, err := c.documentsUnder(ctx, []string{ref})
	return found[ref], err
}

// documentsUnder searches by several references.
func (c *Connector) documentsUnder(ctx context.Context, refs []string) (map[string][]sapDocument, error) {
	found := map[string][]sapDocument{}
	var parts []string
	for _, ref := range refs {
		parts = append(parts, "ReferenceDocument eq "+quote(ref))
	}
	q := url.Values{"$filter": {strings.Join(parts, " or ")}, "$expand": {"to_MaterialDocumentItem"}}
	err := pages(ctx, c.client, docService, "A_MaterialDocumentHeader", q, func(d sapDocument) {
		for _, ref := range refs {
			if strings.EqualFold(d.ReferenceDocument, ref) && !d.cancels() {
				found[ref] = append(found[ref], d)
			}
		}
	})
	return found, err
}

// Post sends the steps that are not done, in order.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	in, err := readIntent(raw)
	if err != nil || len(in.Steps) == 0 {
		return *reject(connector.Retryable, "NO_INTENT", "Replay the fact: it is prepared again.", "Posting %s was not prepared, or its intent was damaged.", p.Fact.Key)
	}
	if age := time.Since(in.At); age > c.cfg.Timeout {
		return *reject(connector.Retryable, "STALE_INTENT", "Wait: it is prepared again by itself.", "Posting %s was prepared %s ago: SAP may look different now.", p.Fact.Key, age.Round(time.Second))
	}
	doc, no := c.perform(ctx, p, in)
	if no != nil {
		return *no
	}
	return connector.Outcome{Result: connector.Posted, Document: doc}
}

// perform does the steps that are not done. What stops it after an effect was made leaves the whole in doubt.
func (c *Connector) perform(ctx context.Context, p connector.Posting, in intent) (first connector.Document, no *connector.Outcome) {
	effects := 0
	for i, s := range in.Steps {
		doc := s.Done
		if doc == nil {
			out := c.perhapsDone(ctx, p, s, c.do(ctx, s, in.At))
			if out.Result == connector.Rejected && effects > 0 {
				out = connector.Outcome{Result: connector.InDoubt, Reason: "The confirmation is there, its material document is not: " + out.Reason, RetryAfter: out.RetryAfter}
			}
			if out.Result != connector.Posted {
				return first, &out
			}
			doc = &out.Document
		}
		effects++
		if i == 0 {
			first = *doc
		}
	}
	return first, nil
}

// perhapsDone looks again after SAP refused what can be done only once: an earlier request of the same fact may have done it.
func (c *Connector) perhapsDone(ctx context.Context, p connector.Posting, s step, out connector.Outcome) connector.Outcome {
	if out.Result != connector.Rejected || out.Class == connector.Retryable || (s.Do != doCancel && s.Do != doFinish && s.Do != doEndOperation) {
		return out
	}
	switch doc, err := c.find(ctx, p, s); {
	case err != nil:
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("%s Whether an earlier request did it could not be read: %v", out.Reason, err)}
	case doc != nil:
		return connector.Outcome{Result: connector.Posted, Document: *doc}
	}
	return out
}

// do sends one step.
func (c *Connector) do(ctx context.Context, s step, first time.Time) connector.Outcome {
	service, path := confService, "ProdnOrdConf2"
	switch s.Do {
	case doDocument:
		service, path = docService, "A_MaterialDocumentHeader"
	case doCancel:
		path = "CancelProdnOrdConf"
	case doCancelDocument:
		service, path = docService, "Cancel"
	case doCancelItem:
		service, path = docService, "CancelItem"
	case doFinish:
		service, path = orderService, finishFunction
	}
	h := http.Header{}
	if c.cfg.Repeatable {
		h.Set("RequestID", s.RequestID)
		h.Set("RepeatabilityCreation", first.UTC().Format("2006-01-02T15:04:05Z"))
	}
	a, err := c.client.post(ctx, service, path, s.Query, s.Body, h)
	var l *lost
	switch {
	case errors.As(err, &l):
		return connector.Outcome{Result: connector.InDoubt, Reason: err.Error()}
	case err != nil:
		return *reject(connector.Retryable, "UNREACHABLE", "Check that SAP runs at "+c.cfg.URL+" and takes the user and password.", "SAP could not be reached: %v", err)
	case a.refusal != nil && a.refusal.code == outdatedID:
		return connector.Outcome{Result: connector.InDoubt, Reason: "SAP says that the request was processed long ago: " + a.refusal.text}
	case a.refusal != nil:
		return c.rejection(s.Order, a.refusal)
	}
	out := c.read(s, a)
	if c.cfg.Repeatable && out.Result == connector.Posted && !strings.EqualFold(a.header.Get("RepeatabilityResult"), "accepted") {
		c.unrepeatable.Store(true) // only SAP's own answer says so, and no page of something in between
	}
	return out
}

const finishFunction = "TechlyCmpltOrder"

// message is what a function on an order answers: also a refusal comes with status 200.
type message struct{ SystemMessageType, SystemMessageIdentification, SystemMessageNumber, SystemMessageLongText string }

// read takes the document out of a success. A success without one is in doubt.
func (c *Connector) read(s step, a answer) connector.Outcome {
	var d struct {
		D struct {
			ConfirmationGroup, ConfirmationCount, MaterialDocument, MaterialDocumentYear string
			TechlyCmpltOrder, CancelProdnOrdConf, Cancel, CancelItem                     json.RawMessage
			message
		} `json:"d"`
	}
	if err := json.Unmarshal(a.body, &d); err != nil {
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("SAP answered success without saying what it did: %.200q", a.body)}
	}
	x := &d.D
	if s.Do == doFinish {
		return c.finishAnswer(s, x.message, x.TechlyCmpltOrder)
	}
	// some releases wrap the result of a function in its name
	wrapped := map[string]json.RawMessage{doCancel: x.CancelProdnOrdConf, doCancelDocument: x.Cancel, doCancelItem: x.CancelItem}[s.Do]
	if len(wrapped) > 0 {
		_ = json.Unmarshal(wrapped, x)
	}
	moves := s.Do == doDocument || s.Do == doCancelDocument || s.Do == doCancelItem
	switch {
	case moves && strings.Trim(x.MaterialDocument, "0") != "":
		doc := sapDocument{MaterialDocument: x.MaterialDocument, MaterialDocumentYear: x.MaterialDocumentYear}
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: doc.number()}}
	case !moves && strings.Trim(x.ConfirmationGroup, "0") != "" && strings.Trim(x.ConfirmationCount, "0") != "":
		conf := sapConfirmation{ConfirmationGroup: x.ConfirmationGroup, ConfirmationCount: x.ConfirmationCount}
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: conf.number()}}
	}
	return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("SAP answered success without a document number: %.200q", a.body)}
}

func (c *Connector) finishAnswer(s step, m message, wrapped json.RawMessage) connector.Outcome {
	if len(wrapped) > 0 {
		_ = json.Unmarshal(wrapped, &m)
	}
	switch m.SystemMessageType {
	case "E", "A", "X":
		return c.rejection(s.Order, &refusal{status: http.StatusBadRequest, code: m.SystemMessageIdentification + "/" + m.SystemMessageNumber, text: m.SystemMessageLongText})
	case "S", "I", "W":
		return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: s.Order, ID: stateID}}
	}
	return connector.Outcome{Result: connector.InDoubt, Reason: "SAP answered success without a message on the order."}
}

// Lookup looks for the effects of an intent. What is half done is finished, once what is missing can no longer appear by itself.
func (c *Connector) Lookup(ctx context.Context, p connector.Posting, raw []byte) (connector.Finding, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	if len(in.Steps) == 0 {
		return connector.Finding{}, fmt.Errorf("look up %s: the intent is empty", p.Fact.Key)
	}
	asked, done := time.Now(), 0
	for i := range in.Steps {
		s := &in.Steps[i]
		if s.Done, err = c.find(ctx, p, *s); err != nil {
			return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
		}
		if s.Done != nil {
			done++
		}
	}
	if done == len(in.Steps) {
		return connector.Finding{Presence: connector.Found, Document: firstDone(in)}, nil
	}
	f := c.absent(p, in, asked)
	if f.Presence != connector.Absent || done == 0 {
		return f, nil
	}
	if !c.repeatable() { // sending the rest again could double it: Verify shows a person what is missing
		return connector.Finding{Presence: connector.Found, Document: firstDone(in), Reason: "The posting is half done."}, nil
	}
	return c.finish(ctx, in), nil
}

// absent says what it means that an effect is not there. It can still appear for Settle, because SAP posts in tasks of its
// own. After that the request may only be under way: one with a RequestID can be sent again in spite of it, any other once no
// request lives that long. What counts is when SAP was asked: an answer may be read long after it was given.
func (c *Connector) absent(p connector.Posting, in intent, asked time.Time) connector.Finding {
	wait, age := c.cfg.Settle, asked.Sub(in.At)
	if !c.repeatable() {
		if wait = max(wait, c.cfg.AbsentAfter); c.cfg.AbsentAfter < 0 && age > c.cfg.Settle {
			return connector.Finding{Presence: connector.CannotTell,
				Reason: fmt.Sprintf("SAP holds nothing under key %s, but its request may still be under way: it must be looked up by hand.", p.Fact.Key)}
		}
	}
	if age <= wait {
		return connector.Finding{Presence: connector.NotFoundYet, Reason: fmt.Sprintf("SAP holds nothing under key %s yet; it may appear for another %s.", p.Fact.Key, (wait - age).Round(time.Second))}
	}
	return connector.Finding{Presence: connector.Absent, Reason: fmt.Sprintf("SAP holds nothing under key %s.", p.Fact.Key)}
}

// finish does the rest of a posting that is half done. A refusal is left for Verify to show.
func (c *Connector) finish(ctx context.Context, in intent) connector.Finding {
	for _, s := range in.Steps {
		if s.Done != nil {
			continue
		}
		out := c.do(ctx, s, time.Now())
		switch {
		case out.Result == connector.InDoubt, out.Result == connector.Rejected && out.Class == connector.Retryable:
			return connector.Finding{Presence: connector.NotFoundYet, Reason: out.Reason}
		case out.Result == connector.Rejected:
			return connector.Finding{Presence: connector.Found, Document: firstDone(in), Reason: out.Reason}
		}
	}
	return connector.Finding{Presence: connector.NotFoundYet, Reason: "The rest of the posting was sent."}
}
