package erpnext

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/shopspring/decimal"
)

// prove sees to it, once, that the custom fields are there and unique: without that nothing happens once. Frappe leaves a
// field out that it does not know, and says nothing.
func (c *Connector) prove(ctx context.Context) error {
	if c.proved.Load() {
		return nil
	}
	for _, field := range []string{c.cfg.KeyField, c.cfg.ReversalField} {
		var f struct {
			Unique flag `json:"unique"`
		}
		err := c.client.get(ctx, "Custom Field", stockEntry+"-"+field, &f)
		switch {
		case errors.Is(err, connector.ErrNotFound):
			return fmt.Errorf("field %q of Stock Entry is missing in ERPNext: create it as a custom field of type Data, unique, no copy, allow on submit", field)
		case err != nil:
			return fmt.Errorf("read custom field %q of Stock Entry: %w", field, err)
		case !bool(f.Unique):
			return fmt.Errorf("field %q of Stock Entry is not unique in ERPNext: mark it so, else a request that arrives late is booked twice", field)
		}
	}
	c.proved.Store(true)
	return nil
}

// find reads the entry that has a fact's key in a field, nil when there is none.
func (c *Connector) find(ctx context.Context, field, key string) (*entry, map[string]any, error) {
	var found []struct {
		Name string `json:"name"`
	}
	if err := c.client.list(ctx, stockEntry, [][]any{{field, "=", key}}, []string{"name"}, "name asc", 0, 2, &found); err != nil || len(found) == 0 {
		return nil, nil, err
	}
	if len(found) > 1 {
		return nil, nil, fmt.Errorf("entries %s and %s both have key %s in field %q, which is not unique in ERPNext: mark it so, and cancel one", found[0].Name, found[1].Name, key, field)
	}
	var raw json.RawMessage
	err := c.client.get(ctx, stockEntry, found[0].Name, &raw)
	if errors.Is(err, connector.ErrNotFound) {
		return nil, nil, nil // a draft that was deleted since
	}
	if err != nil {
		return nil, nil, err
	}
	e, fields := &entry{}, map[string]any{}
	if err := errors.Join(json.Unmarshal(raw, e), json.Unmarshal(raw, &fields)); err != nil {
		return nil, nil, fmt.Errorf("read entry %s: %w", found[0].Name, err)
	}
	return e, fields, nil
}

func document(e *entry) connector.Document {
	if e.Docstatus == 2 { // the document of a reversal is the cancellation
		return connector.Document{Number: e.Name, ID: e.Name + " cancelled"}
	}
	return connector.Document{Number: e.Name, ID: e.Name}
}

// Prepare finds an earlier effect, reads the order and makes the entry.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	if no := unsuitable(p); no != nil {
		return nil, no, nil
	}
	in, early, err := c.prepare(ctx, p)
	if r, ok := refused(err); ok && (r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable) {
		return nil, rejection(p.Fact.OrderNo(), r), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	raw, err := json.Marshal(in)
	return raw, early, err
}

func (c *Connector) prepare(ctx context.Context, p connector.Posting) (in intent, early *connector.Outcome, err error) {
	if err := c.prove(ctx); err != nil {
		return in, nil, err
	}
	in.Order = orderNo(p)
	if !p.Fact.Reverses.IsZero() {
		early, err = c.prepareReversal(ctx, p, &in)
		return in, early, err
	}
	e, _, err := c.find(ctx, c.cfg.KeyField, p.Fact.Key.String())
	if err != nil {
		return in, nil, err
	}
	if e != nil && e.Docstatus == 1 {
		return in, &connector.Outcome{Result: connector.Posted, Document: document(e)}, nil
	}
	if e != nil && e.Docstatus == 2 {
		return in, cancelledThere(p, e), nil
	}
	if e != nil {
		if no := c.changed(p, e); no != nil {
			return in, no, nil
		}
		in.Draft, in.Modified = e.Name, e.Modified
	}
	var o order
	err = c.client.get(ctx, workOrder, in.Order, &o)
	if errors.Is(err, connector.ErrNotFound) {
		return in, reject(connector.Fatal, "ORDER", "Check the order number at the source.", "ERPNext has no work order %q.", in.Order), nil
	}
	if err != nil {
		return in, nil, err
	}
	if no := receivable(&o); no != nil {
		return in, no, nil
	}
	in.Body, early, err = c.body(ctx, p, &o)
	return in, early, err
}

func cancelledThere(p connector.Posting, e *entry) *connector.Outcome {
	return reject(connector.Correctable, "CANCELLED", "Find out who cancelled it and why, then accept the fact.", "Entry %s of fact %s is cancelled in ERPNext.", e.Name, p.Fact.Key)
}

func (c *Connector) prepareReversal(ctx context.Context, p connector.Posting, in *intent) (*connector.Outcome, error) {
	mine, _, err := c.find(ctx, c.cfg.ReversalField, p.Fact.Key.String())
	if err != nil {
		return nil, err
	}
	if mine != nil && mine.Docstatus == 2 {
		return &connector.Outcome{Result: connector.Posted, Document: document(mine)}, nil
	}
	e, _, err := c.find(ctx, c.cfg.KeyField, p.Fact.Reverses.String())
	switch {
	case err != nil:
		return nil, err
	case e == nil || e.Docstatus == 0:
		return reject(connector.Correctable, "NOTHING_TO_REVERSE", "Look in ERPNext what became of that fact, then replay or accept this one.", "No entry of fact %s is submitted in ERPNext.", p.Fact.Reverses), nil
	case e.Docstatus == 2:
		return reject(connector.Correctable, "ALREADY_REVERSED", "Check that the other reversal meant the same, then accept this fact.", "Entry %s of fact %s is cancelled already.", e.Name, p.Fact.Reverses), nil
	}
	in.Draft, in.Modified = e.Name, e.Modified
	return nil, nil
}

// Post inserts and submits, or cancels.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	in, err := readIntent(raw)
	if err != nil {
		return *reject(connector.Retryable, "NO_INTENT", byItself, "Posting %s: %v.", p.Fact.Key, err)
	}
	if !p.Fact.Reverses.IsZero() {
		return c.cancel(ctx, p, in)
	}
	if in.Draft != "" {
		return c.submit(ctx, p, in, in.Draft, in.Modified)
	}
	var e entry
	err = c.client.send(ctx, http.MethodPost, stockEntry, "", nil, in.Body, &e)
	if r, ok := refused(err); ok && r.there() {
		return c.again(ctx, p, in, r)
	}
	if err != nil || e.Name == "" {
		return c.outcome(in, err)
	}
	if no := c.changed(p, &e); no != nil {
		return c.discard(ctx, p, e.Name, *no)
	}
	return c.submit(ctx, p, in, e.Name, e.Modified)
}

// changed refuses to submit a draft with other quantities than the fact's: ERPNext itself may have put them there (it takes the
// process loss of an order with operations from its job cards, and else from the BOM), a server script, or a person.
func (c *Connector) changed(p connector.Posting, e *entry) *connector.Outcome {
	_, code, _, _, q, loss := wanted(p)
	same := func(a, b decimal.Decimal) bool { return a.Sub(b).Abs().LessThan(decimal.New(5, -c.cfg.Precision-1)) }
	if len(e.Rows) == 1 && (code == "" || e.Rows[0].Item == code) && same(e.Rows[0].Quantity.Decimal, q) && same(e.Loss.Decimal, loss) {
		return nil
	}
	have := fmt.Sprintf("%d rows", len(e.Rows))
	if len(e.Rows) == 1 {
		have = fmt.Sprintf("%s of %q with process loss %s", e.Rows[0].Quantity, e.Rows[0].Item, e.Loss)
	}
	return reject(connector.Correctable, "DRAFT_CHANGED", "Find out what sets it: job cards of the order's operations, the BOM's process loss, a server script or a person. Then replay the fact.",
		"ERPNext's draft of fact %s has %s, wanted %s with process loss %s; it was not submitted.", p.Fact.Key, have, q, loss)
}

// outcome is what an error says of the effect of a change.
func (c *Connector) outcome(in intent, err error) connector.Outcome {
	if r, ok := refused(err); ok {
		return *rejection(in.Order, r)
	}
	var l *lost
	if err == nil || errors.As(err, &l) {
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("The outcome in ERPNext is not known: %v.", err)}
	}
	return *reject(connector.Retryable, "UNREACHABLE", "Check that ERPNext runs at "+c.cfg.URL+".", "ERPNext could not be reached: %v.", err)
}

// submit makes a draft take effect. That it changed meanwhile means that somebody else, or a request thought lost, was at it.
func (c *Connector) submit(ctx context.Context, p connector.Posting, in intent, name, modified string) connector.Outcome {
	change := row{"docstatus": 1, "modified": modified}
	change["posting_date"], change["posting_time"] = c.when(p)
	var e entry
	err := c.client.send(ctx, http.MethodPut, stockEntry, name, nil, change, &e)
	if r, ok := refused(err); ok && r.stale() {
		return c.again(ctx, p, in, r)
	}
	if err == nil && e.Docstatus == 1 {
		return connector.Outcome{Result: connector.Posted, Document: document(&e)}
	}
	out := c.outcome(in, err)
	if out.Result == connector.Rejected && out.Class != connector.Retryable {
		return c.discard(ctx, p, name, out)
	}
	return out
}

// again looks by key at what is there after ERPNext said that it is there already, or is no longer what it was.
func (c *Connector) again(ctx context.Context, p connector.Posting, in intent, r *refusal) connector.Outcome {
	e, _, err := c.find(ctx, c.cfg.KeyField, p.Fact.Key.String())
	switch {
	case err != nil:
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("%v; and then: %v.", r, err)}
	case e == nil && r.there():
		return *rejection(in.Order, r) // something else is to be unique
	case e == nil:
		return *reject(connector.Retryable, r.kind, byItself, "The draft of fact %s on order %s was deleted.", p.Fact.Key, in.Order)
	case e.Docstatus == 1:
		return connector.Outcome{Result: connector.Posted, Document: document(e)}
	case e.Docstatus == 2:
		return *cancelledThere(p, e)
	}
	return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("Entry %s of fact %s is a draft: it is submitted next.", e.Name, p.Fact.Key)}
}

// discard deletes a draft that was refused for good. While it is not known to be gone nobody may be told that nothing is there.
// It looks first: Frappe would delete a cancelled entry too, which is a record of the books.
func (c *Connector) discard(ctx context.Context, p connector.Posting, name string, out connector.Outcome) connector.Outcome {
	e, _, err := c.find(ctx, c.cfg.KeyField, p.Fact.Key.String())
	switch {
	case err == nil && e == nil:
		return out
	case err == nil && e.Docstatus == 1:
		return connector.Outcome{Result: connector.Posted, Document: document(e)}
	case err == nil && e.Docstatus == 2:
		return *cancelledThere(p, e)
	case err == nil:
		err = c.client.send(ctx, http.MethodDelete, stockEntry, name, nil, nil, nil)
	}
	r, ok := refused(err)
	switch {
	case err == nil, ok && r.status == http.StatusNotFound:
		return out
	case ok && r.status != http.StatusTooManyRequests && r.status != http.StatusServiceUnavailable:
		out.NextStep += fmt.Sprintf(" ERPNext did not let draft %s be deleted (%s): delete it, or the replay uses it.", name, r.kind)
		return out
	}
	return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("%s Whether draft %s is gone is not known: %v.", out.Reason, name, err)}
}

func (c *Connector) cancel(ctx context.Context, p connector.Posting, in intent) connector.Outcome {
	var e entry
	change := row{"docstatus": 2, "modified": in.Modified, c.cfg.ReversalField: p.Fact.Key.String()}
	err := c.client.send(ctx, http.MethodPut, stockEntry, in.Draft, nil, change, &e)
	if err == nil && e.Docstatus == 2 {
		return connector.Outcome{Result: connector.Posted, Document: document(&e)}
	}
	if r, ok := refused(err); ok && (r.stale() || r.there() || r.kind == "ValidationError") { // a cancelled document cannot be edited
		mine, _, ferr := c.find(ctx, c.cfg.ReversalField, p.Fact.Key.String())
		switch {
		case ferr != nil:
			return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("%v; and then: %v.", r, ferr)}
		case mine != nil && mine.Docstatus == 2:
			return connector.Outcome{Result: connector.Posted, Document: document(mine)}
		case r.stale():
			return *reject(connector.Retryable, r.kind, byItself, "Entry %s changed in ERPNext before it was cancelled.", in.Draft)
		}
	}
	return c.outcome(in, err)
}

// Lookup finds by key what became of a posting, and submits a draft that was left behind.
func (c *Connector) Lookup(ctx context.Context, p connector.Posting, raw []byte) (connector.Finding, error) {
	field := c.cfg.KeyField
	if !p.Fact.Reverses.IsZero() {
		field = c.cfg.ReversalField
	}
	in, err := readIntent(raw)
	var e *entry
	if err == nil {
		e, _, err = c.find(ctx, field, p.Fact.Key.String())
	}
	switch {
	case err != nil:
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	case e == nil && field == c.cfg.KeyField:
		return connector.Finding{Presence: connector.Absent, Reason: "No entry has the key, and ERPNext takes only one with it."}, nil
	case e == nil:
		return connector.Finding{Presence: connector.Absent, Reason: "No cancelled entry has the key, and an entry can be cancelled only once."}, nil
	case field == c.cfg.ReversalField || e.Docstatus == 1:
		return connector.Finding{Presence: connector.Found, Document: document(e)}, nil
	case e.Docstatus == 2:
		return connector.Finding{Presence: connector.Absent, Reason: "The entry is cancelled.", Rejection: cancelledThere(p, e)}, nil
	}
	var out connector.Outcome
	if no := c.changed(p, e); no != nil {
		out = c.discard(ctx, p, e.Name, *no)
	} else {
		out = c.submit(ctx, p, in, e.Name, e.Modified)
	}
	switch {
	case out.Result == connector.Posted:
		return connector.Finding{Presence: connector.Found, Document: out.Document, Reason: "The entry was a draft and is submitted now."}, nil
	case out.Result == connector.Rejected && out.Class != connector.Retryable:
		return connector.Finding{Presence: connector.Absent, Reason: out.Reason, Rejection: &out}, nil
	default:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: out.Reason}, nil
	}
}
