package oracle

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Prepare reads the order, makes the request, and looks whether its effect is there already.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	if no := c.unsuitable(p); no != nil {
		return nil, no, nil
	}
	o, err := c.order(ctx, p.Fact.OrderNo(), p.Order.ERPKey)
	if errors.Is(err, connector.ErrNotFound) {
		return nil, reject(connector.Fatal, "UNKNOWN_ORDER", "Check the order number at the source; Oracle does not have it.", "Oracle has no order %q.", p.Fact.OrderNo()), nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	in, no := c.plan(p, &o)
	if no != nil {
		return nil, no, nil
	}
	early, err := c.there(ctx, p, &o, &in)
	if err != nil {
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	text, err := json.Marshal(in)
	if err != nil || early != nil {
		return text, early, err
	}
	if s := o.state(); s != object.OrderReleased && s != object.OrderInProgress {
		return nil, reject(connector.Correctable, "ORDER_STATE", "Release or reopen the order in Oracle, then replay the fact.", "Order %s has status %s in Oracle.", o.WorkOrderNumber, o.WorkOrderStatusCode), nil
	}
	return text, nil, nil
}

// there looks for the effect before anything is sent.
func (c *Connector) there(ctx context.Context, p connector.Posting, o *order, in *intent) (*connector.Outcome, error) {
	if !in.Search {
		return c.came(p, o, in), nil
	}
	found, err := c.find(ctx, "=", in.Ref)
	if err != nil {
		return nil, err
	}
	if len(found) > 0 {
		in.Before = nil // what was before is not known
		return &connector.Outcome{Result: connector.Posted, Document: document(found[0].text("TransactionId"), in.Ref)}, nil
	}
	if p.Fact.Reverses.IsZero() {
		return nil, nil
	}
	original, err := c.find(ctx, "=", p.Fact.Reverses.String())
	if err != nil {
		return nil, err
	}
	if len(original) == 0 {
		return reject(connector.Correctable, "NOTHING_TO_REVERSE", "Look in Oracle what became of that fact, then replay or accept this one.", "No transaction of fact %s is there to be reversed.", p.Fact.Reverses), nil
	}
	other, err := c.find(ctx, "LIKE", "%/"+p.Fact.Reverses.String())
	if err != nil || len(other) == 0 {
		return nil, err
	}
	return reject(connector.Correctable, "ALREADY_REVERSED", "Check that the other reversal meant the same, then accept this fact with its document.",
		"Transaction %s of fact %s is reversed already by %s.", original[0].text("TransactionId"), p.Fact.Reverses, other[0].text("TransactionId")), nil
}

// came looks whether a request came after all that was taken for lost by totals.
func (c *Connector) came(p connector.Posting, o *order, in *intent) *connector.Outcome {
	if !p.Fact.Reverses.IsZero() {
		return reject(connector.Correctable, "NOT_FOUND_BY_REFERENCE", "Take it back in Oracle, then accept this fact.",
			"What fact %s did has no reference in Oracle (scrap alone, or an operation before the last).", p.Fact.Reverses)
	}
	c.mu.Lock()
	old, waits := c.forsaken[in.Ref]
	c.mu.Unlock()
	if !waits || old.Before == nil {
		return nil
	}
	now := in.read(o)
	switch {
	case now.equal(*old.Before):
		return nil
	case now.equal(old.Before.plus(change(p))):
		*in = old
		return &connector.Outcome{Result: connector.Posted, Document: document("", in.Ref)}
	}
	return reject(connector.Correctable, "TOTALS_MOVED", "Compare the order's transactions in Oracle with the fact, then accept or replay it.",
		"A request for order %s was taken for lost, and since then its totals went from %s to %s.", in.Order, *old.Before, now)
}

// document is the transaction's own number, or the reference where it is not known.
func document(id, ref string) connector.Document {
	return connector.Document{Number: cmp.Or(id, ref), ID: id}
}

// find reads completed transactions by their reference.
func (c *Connector) find(ctx context.Context, op, ref string) ([]row, error) {
	q := url.Values{"q": {c.cfg.ReferenceAttribute + " " + op + " " + quote(ref)}, "limit": {"100"}, "orderBy": {"TransactionId"}}
	found, err := get[row](ctx, c, c.cfg.CompletedResource, q)
	if err != nil {
		return nil, fmt.Errorf("search transactions by reference %s: %w", ref, err)
	}
	var mine []row
	for _, r := range found.Items { // a system that does not filter must not make us believe
		if have := r.text(c.cfg.ReferenceAttribute); have == ref || (op == "LIKE" && strings.HasSuffix(have, strings.TrimPrefix(ref, "%"))) {
			mine = append(mine, r)
		}
	}
	return mine, nil
}

func readIntent(raw []byte) (in intent, err error) {
	if err := json.Unmarshal(raw, &in); err != nil {
		return in, fmt.Errorf("read intent %.100q: %w", raw, err)
	}
	return in, nil
}

// Post sends the request.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	in, err := readIntent(raw)
	if err != nil || len(in.Body) == 0 {
		return *reject(connector.Retryable, "NO_INTENT", "Replay the fact: it is prepared again.", "Posting %s was not prepared, or its intent was damaged.", p.Fact.Key)
	}
	if age := time.Since(in.At); age > c.cfg.Timeout {
		return *reject(connector.Retryable, "STALE_INTENT", "Wait: it is prepared again by itself.", "Posting %s was prepared %s ago: Oracle may look different now.", p.Fact.Key, age.Round(time.Second))
	}
	body, err := c.send(ctx, http.MethodPost, in.Resource, in.Body)
	var l *lost
	var r *refusal
	switch {
	case errors.As(err, &l):
		return connector.Outcome{Result: connector.InDoubt, Reason: err.Error()}
	case errors.As(err, &r):
		return c.refused(in.Order, r)
	case err != nil:
		return *reject(connector.Retryable, "UNREACHABLE", "Check that Oracle Fusion runs at "+c.cfg.URL+" and takes user and password.", "Oracle could not be reached: %v", err)
	}
	out := c.answered(p, in, body)
	if out.Result == connector.Posted {
		c.mu.Lock()
		delete(c.forsaken, in.Ref)
		c.mu.Unlock()
	}
	return out
}

// answered reads a success of HTTP, which may say that nothing was booked.
func (c *Connector) answered(p connector.Posting, in intent, body []byte) connector.Outcome {
	var a struct {
		ErrorsExistFlag any
		Operations      []row `json:"OperationTransactionDetail"`
		Materials       []row `json:"MaterialTransactionDetail"`
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	err := d.Decode(&a)
	details := append(a.Operations, a.Materials...)
	switch flag := strings.ToLower(fmt.Sprint(a.ErrorsExistFlag)); {
	case err == nil && flag == "true":
		return c.inside(p, in, details)
	case err != nil || flag != "false":
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("Oracle answered success without saying whether errors exist: %.200q", body)}
	}
	doc := document("", in.Ref)
	for _, x := range details {
		if id := x.text("InvTransactionId"); id != "" && doc.ID == "" {
			doc = document(id, in.Ref)
		}
	}
	return connector.Outcome{Result: connector.Posted, Document: doc}
}

// advice says by the name of a message what can be done about it. The names are assumed; messages in the configuration adds to
// them. A message that is not here is correctable: nothing was booked, and a person reads it.
var advice = map[string]struct {
	class connector.Class
	next  string
}{
	"WIE_WO_LOCKED":              {connector.Retryable, "Wait until the user has left the order: it is tried again by itself."},
	"WIE_WO_STATUS_INVALID":      {connector.Correctable, "Release or reopen the order in Oracle, then replay the fact."},
	"INV_PERIOD_NOT_OPEN":        {connector.Correctable, "Open the inventory period in Oracle, or give the fact a posting date in an open one, then replay it."},
	"INV_QUANTITY_NOT_AVAILABLE": {connector.Correctable, "Post the missing receipt of the item in Oracle, then replay the fact."},
	"WIE_SOURCE_SYSTEM_INVALID":  {connector.Fatal, "Register source_system in Oracle, then replay the fact."},
	"WIE_WO_NOT_FOUND":           {connector.Fatal, "Check the order number at the source; Oracle does not have it."},
	"WIE_ITEM_INVALID":           {connector.Fatal, "Create the item in Oracle or correct its mapping, then replay the fact."},
	"WIE_UOM_INVALID":            {connector.Fatal, "Correct the unit in the rule of the source, or units in the configuration."},
}

// inside is the outcome of errors inside of a success: all details of a request are booked, or none.
func (c *Connector) inside(p connector.Posting, in intent, details []row) connector.Outcome {
	code, text := "ERRORS_EXIST", "no message was given"
	for _, x := range details {
		if names := x.text("ErrorMessageNames"); names != "" {
			code, _, _ = strings.Cut(names, ",")
		}
		text = cmp.Or(strings.TrimRight(x.text("ErrorMessages"), "."), text)
	}
	of := ""
	if f := p.Fact.Consumption; f != nil {
		of = fmt.Sprintf(" for item %q", f.Item)
	}
	return c.classed(connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: code,
		Reason:   fmt.Sprintf("Oracle refused a transaction on order %s%s: %s.", in.Order, of, text),
		NextStep: "Look up Oracle's message " + code + ", mend what it says, then replay the fact."})
}

func (c *Connector) classed(o connector.Outcome) connector.Outcome {
	if a, known := advice[o.Code]; known {
		o.Class, o.NextStep = a.class, a.next
	}
	if class, ok := c.cfg.Messages[o.Code]; ok {
		o.Class = classes[class]
	}
	return o
}

// refused is the outcome of a refusal by status.
func (c *Connector) refused(order string, r *refusal) connector.Outcome {
	o := connector.Outcome{Result: connector.Rejected, Class: connector.Correctable, Code: r.code, RetryAfter: r.retryAfter,
		Reason:   fmt.Sprintf("Oracle refused a transaction on order %s with status %d: %s.", order, r.status, strings.TrimRight(r.text, ".")),
		NextStep: "Mend what the message says, then replay the fact."}
	switch r.status {
	case http.StatusTooManyRequests, http.StatusServiceUnavailable, http.StatusLocked:
		o.Class, o.NextStep = connector.Retryable, "Wait: it is tried again by itself."
	case http.StatusForbidden:
		o.Class, o.NextStep = connector.Fatal, "Give the integration user the privilege to report work order transactions, then replay the fact."
	}
	return c.classed(o)
}

// Lookup finds out what became of a request.
func (c *Connector) Lookup(ctx context.Context, p connector.Posting, raw []byte) (connector.Finding, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	asked := time.Now()
	if in.Search {
		found, err := c.find(ctx, "=", in.Ref)
		if err != nil {
			return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
		}
		if len(found) > 0 {
			return connector.Finding{Presence: connector.Found, Document: document(found[0].text("TransactionId"), in.Ref)}, nil
		}
		return c.notThere(asked.Sub(in.At), "No transaction has reference "+in.Ref+"."), nil
	}
	if !c.cfg.SingleWriter || in.Before == nil {
		return connector.Finding{Presence: connector.CannotTell, Reason: fmt.Sprintf("Others may post on order %s, so its totals do not say whether %s was booked; set single_writer if nobody does.", in.Order, in.Ref)}, nil
	}
	o, err := c.order(ctx, in.Order, in.ID)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	switch now := in.read(&o); {
	case now.equal(in.Before.plus(change(p))):
		return connector.Finding{Presence: connector.Found, Document: document("", in.Ref), Reason: "The totals of the order rose by what the fact says."}, nil
	case !now.equal(*in.Before):
		return connector.Finding{Presence: connector.CannotTell, Reason: fmt.Sprintf("The totals of order %s went from %s to %s, which is not what fact %s does.", in.Order, *in.Before, now, p.Fact.Key)}, nil
	}
	f := c.notThere(asked.Sub(in.At), "The totals of order "+in.Order+" are what they were.")
	if f.Presence == connector.Absent {
		c.mu.Lock()
		c.forsaken[in.Ref] = in
		c.mu.Unlock()
	}
	return f, nil
}

// notThere says what it means that there was no trace yet when Oracle was asked, which was so long after the intent.
func (c *Connector) notThere(age time.Duration, reason string) connector.Finding {
	switch {
	case c.cfg.AbsentAfter < 0 && age > c.cfg.Settle:
		return connector.Finding{Presence: connector.CannotTell, Reason: reason + " A late request cannot be excluded."}
	case c.cfg.AbsentAfter < 0 || age <= c.cfg.AbsentAfter:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: reason}
	}
	return connector.Finding{Presence: connector.Absent, Reason: reason}
}

// Verify reads the effect back.
func (c *Connector) Verify(ctx context.Context, p connector.Posting, raw []byte, doc connector.Document) (connector.Verification, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	asked := time.Now()
	if in.Search {
		found, err := c.find(ctx, "=", in.Ref)
		if err != nil {
			return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
		}
		if len(found) == 0 {
			return c.missing(asked.Sub(in.At), "No completed transaction has reference "+in.Ref+"."), nil
		}
		if why := c.wrong(p, in, found); why != "" {
			return connector.Verification{Difference: why}, nil
		}
	}
	if in.Before == nil || (in.Search && (!c.cfg.SingleWriter || p.Fact.Confirmation == nil)) {
		return connector.Verification{Matches: true}, nil
	}
	o, err := c.order(ctx, in.Order, in.ID)
	if err != nil {
		return connector.Verification{}, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	now, want := in.read(&o), in.Before.plus(change(p))
	switch {
	case now.equal(want), !c.cfg.SingleWriter && enough(now, want, *in.Before):
		return connector.Verification{Matches: true}, nil
	case now.equal(*in.Before):
		return c.missing(asked.Sub(in.At), fmt.Sprintf("Order %s still has %s, wanted %s.", in.Order, now, want)), nil
	}
	return connector.Verification{Difference: fmt.Sprintf("Order %s has %s, wanted %s.", in.Order, now, want)}, nil
}

// enough reports that at least what was wanted was added, where others post too.
func enough(now, want, before totals) bool {
	reached := func(now, want, before decimal.Decimal) bool {
		return want.Sub(before).Sign()*now.Sub(want).Sign() >= 0
	}
	return reached(now.Completed, want.Completed, before.Completed) && reached(now.Scrapped, want.Scrapped, before.Scrapped) && reached(now.Issued, want.Issued, before.Issued)
}

// missing is what it means for a read-back, like notThere.
func (c *Connector) missing(age time.Duration, what string) connector.Verification {
	if age <= c.cfg.Settle {
		return connector.Verification{NotYet: true}
	}
	return connector.Verification{Difference: what}
}

// wrong compares the transactions of a reference with the posting, empty when there is one and it is right.
func (c *Connector) wrong(p connector.Posting, in intent, found []row) string {
	if len(found) > 1 {
		return fmt.Sprintf("%d transactions carry reference %s: %s and %s.", len(found), in.Ref, found[0].text("TransactionId"), found[1].text("TransactionId"))
	}
	item, want := p.Order.Item, change(p).Completed
	if f := p.Fact.Consumption; f != nil {
		item, want = f.Item, change(p).Issued.Neg() // an issue takes from stock
	} else if p.Fact.Confirmation.Item != "" {
		item = p.Fact.Confirmation.Item
	}
	x := found[0]
	have, err := decimal.NewFromString(x.text("TransactionQuantity"))
	order := x.text(c.cfg.SourceAttribute)
	switch id := x.text("TransactionId"); {
	case err != nil || sane(have) != nil || !have.Equal(want):
		return fmt.Sprintf("Transaction %s has quantity %s, wanted %s.", id, x.text("TransactionQuantity"), want)
	case item != "" && x.text("ItemNumber") != item:
		return fmt.Sprintf("Transaction %s is of item %q, wanted %q.", id, x.text("ItemNumber"), item)
	case order != "" && order != in.Order:
		return fmt.Sprintf("Transaction %s is of order %q, wanted %q.", id, order, in.Order)
	}
	return ""
}
