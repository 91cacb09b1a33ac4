package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

var orderStates = map[string]object.OrderState{
	"RELEASED": object.OrderReleased, "STARTED": object.OrderInProgress, "FINISHED": object.OrderCompleted,
	"CREATED": object.OrderPlanned, "COMPLETED": object.OrderCompleted, "CLOSED": object.OrderClosed, "CANCELLED": object.OrderCancelled,
}

func (c *Connector) workOrder(o order) object.WorkOrder {
	w := object.WorkOrder{
		OrderNo: o.No, ERP: c.cfg.Name, ERPKey: o.No, Site: o.Site, WorkCenter: o.WorkCenter, Item: o.Item, ItemDescription: o.Description,
		Quantity: object.Quantity{Value: o.Quantity, Unit: o.Unit}, State: orderStates[o.State], Priority: o.Priority,
		PlannedStart: o.PlannedStart, PlannedEnd: o.PlannedEnd, Lot: o.Lot, RevisedAt: o.ChangedAt,
		OverPercent: o.OverPercent,
	}
	for _, op := range o.Operations {
		w.Operations = append(w.Operations, object.Operation{Operation: op.Operation, Description: op.Description, WorkCenter: op.WorkCenter,
			Quantity: object.Quantity{Value: op.Quantity, Unit: o.Unit}})
	}
	for _, m := range o.Components {
		w.Components = append(w.Components, object.Component{Item: m.Item, Description: m.Description, Required: object.Quantity{Value: m.Required, Unit: m.Unit},
			Operation: m.Operation, Reservation: m.Reservation, Backflush: m.Backflush})
	}
	return w
}

// reached reports whether an order's state in the ERP is at or beyond a state of the shop floor.
func reached(erpState string, s object.FloorState) bool {
	rank := map[string]int{"STARTED": 1, "FINISHED": 2, "CLOSED": 2}
	want := map[object.FloorState]int{object.FloorStarted: 1, object.FloorFinished: 2}
	return rank[erpState] >= want[s]
}

func orderNo(p connector.Posting) string {
	if p.Order.ERPKey != "" {
		return p.Order.ERPKey
	}
	return p.Fact.OrderNo()
}

// unsuitable refuses what the sandbox has no place for, before anything is sent.
func unsuitable(p connector.Posting) *connector.Outcome {
	refuse := func(code, reason, next string) *connector.Outcome {
		return &connector.Outcome{Result: connector.Rejected, Class: connector.Fatal, Code: code, Reason: reason, NextStep: next}
	}
	f := &p.Fact
	switch {
	case f.Confirmation == nil && f.Consumption == nil && f.OrderState == nil:
		return refuse("NOT_SUPPORTED", fmt.Sprintf("The ERP sandbox has no document for a fact of kind %s.", f.Kind), "Do not route this kind of fact to this ERP.")
	case f.OrderState != nil && f.OrderState.State != object.FloorStarted && f.OrderState.State != object.FloorFinished:
		return refuse("NOT_SUPPORTED", fmt.Sprintf("The ERP sandbox has no document for state %s of an order.", f.OrderState.State), "Post only STARTED and FINISHED to this ERP.")
	case f.OrderNo() == "":
		return refuse("NO_ORDER", fmt.Sprintf("Fact %s names no order.", f.Key), "Find the order that ran at that time, then send the fact again with it.")
	case f.OrderState != nil && !f.Reverses.IsZero():
		return refuse("NOT_SUPPORTED", "A change of state cannot be reversed in the ERP sandbox.", "Reopen the order in the ERP.")
	}
	return nil
}

// request is the path and the body of a posting.
func request(p connector.Posting, in intent) (string, map[string]any) {
	body := map[string]any{"external_key": p.Fact.Key.String()}
	if !in.ValidUntil.IsZero() {
		body["valid_until"] = in.ValidUntil
	}
	if !p.PostingDate.IsZero() {
		body["posting_date"] = p.PostingDate.Format(time.DateOnly)
	}
	if in.Reverses != "" {
		return "/api/documents/" + url.PathEscape(in.Reverses) + "/reverse", body
	}
	path := "/api/orders/" + url.PathEscape(orderNo(p))
	switch f := p.Fact; {
	case f.Confirmation != nil:
		confirmation(body, f.Confirmation)
		return path + "/confirmations", body
	case f.Consumption != nil:
		movement(body, f.Consumption, p.Order)
		return path + "/movements", body
	case f.OrderState.State == object.FloorStarted:
		return path + "/start", body
	}
	return path + "/finish", body
}

func confirmation(body map[string]any, c *object.Confirmation) {
	body["operation"], body["item"], body["unit"] = c.Operation, c.Item, c.Unit
	body["yield"], body["scrap"], body["rework"] = c.Yield, c.Scrap, c.Rework
	body["scrap_reason"], body["final"], body["lot"], body["person"] = c.ScrapReason, c.Final, c.Lot, c.Person
}

func movement(body map[string]any, c *object.Consumption, o object.WorkOrder) {
	body["operation"], body["item"], body["lot"] = c.Operation, c.Item, c.Lot
	body["movement"], body["quantity"], body["unit"] = movementCode(c.Movement), c.Quantity.Value, c.Quantity.Unit
	reservation := c.Reservation
	for _, m := range o.Components {
		if reservation == "" && m.Item == c.Item {
			reservation = m.Reservation
		}
	}
	body["reservation"] = reservation
}

func movementCode(m object.Movement) string {
	if m == object.Return {
		return "262"
	}
	return "261"
}

// outcome reads the answer to a posting.
func (c *Connector) outcome(a answer, err error) connector.Outcome {
	var l *lost
	switch {
	case errors.As(err, &l):
		return connector.Outcome{Result: connector.InDoubt, Reason: err.Error()}
	case err != nil:
		return connector.Outcome{Result: connector.Rejected, Class: connector.Retryable, Code: "UNREACHABLE", Reason: fmt.Sprintf("The ERP could not be reached: %v", err),
			NextStep: "Check that the ERP runs at " + c.cfg.URL + " and takes the user and password."}
	case a.refusal != nil:
		return rejection(a.refusal)
	case a.duplicate != "":
		return connector.Outcome{Result: connector.InDoubt, Reason: "The ERP has the key already: " + a.duplicate + "."}
	case a.status == http.StatusAccepted:
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("The ERP accepted the posting and books it later: %s", a.body)}
	}
	var doc struct {
		document
		ErrorsExist flag      `json:"errors_exist"`
		Errors      []refusal `json:"errors"`
	}
	err = json.Unmarshal(a.body, &doc)
	if err == nil && bool(doc.ErrorsExist) && len(doc.Errors) > 0 {
		return rejection(&doc.Errors[0])
	}
	if err != nil || doc.Number == "" {
		return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("The ERP answered %d without a document number.", a.status)}
	}
	return connector.Outcome{Result: connector.Posted, Document: connector.Document{Number: doc.Number}}
}

// advice says by the ERP's code what can be done about a rejection; codes that are not here are fatal.
var advice = map[string]struct {
	class connector.Class
	next  string
}{
	"C1/005":  {connector.Retryable, "Wait until the user has left the order: it is tried again by itself."},
	"SY/503":  {connector.Retryable, "Wait: it is tried again by itself."},
	"SY/429":  {connector.Retryable, "Wait: it is tried again by itself, no sooner than the ERP asked."},
	"SY/403":  {connector.Fatal, "Give the connector's user the right to post in the ERP, then replay the fact."},
	"SY/408":  {connector.Retryable, "Wait: it is prepared and sent again by itself."},
	"SY/401":  {connector.Retryable, "Wait: the connector logs in again by itself."},
	"SY/402":  {connector.Retryable, "Correct user and password of this ERP in the hub's configuration."},
	"M7/021":  {connector.Correctable, "Post the missing receipt of the item in the ERP, then replay the fact."},
	"M7/053":  {connector.Correctable, "Open the posting period in the ERP or give the fact a posting date in an open one, then replay it."},
	"CO/106":  {connector.Correctable, "Release the order in the ERP, then replay the fact."},
	"WIP/001": {connector.Correctable, "Correct in the ERP what it says, then replay the fact."},
	"CO/688":  {connector.Correctable, "Reopen the order in the ERP, then replay the fact."},
	"M7/061":  {connector.Correctable, "Check that the other reversal meant the same, then accept this fact with its document."},
	"CO/017":  {connector.Fatal, "Check the order number at the source; the ERP does not have it."},
	"CO/119":  {connector.Fatal, "Check which order ran on the machine: its item is another one."},
	"M3/305":  {connector.Fatal, "Create the item in the ERP or correct its mapping, then replay the fact."},
	"BM/302":  {connector.Fatal, "Correct the unit in the rule of the source: the item is kept in another unit."},
	"BM/314":  {connector.Fatal, "Let the rule of the source round the quantity to 3 decimals."},
	"RU/002":  {connector.Fatal, "Correct the operation in the rule of the source: the order does not have it."},
}

func rejection(r *refusal) connector.Outcome {
	o := connector.Outcome{Result: connector.Rejected, Class: connector.Fatal, Code: r.Code, Reason: r.Message + ".",
		NextStep: "Look up the ERP's message " + r.Code + " with the ERP's owner.", RetryAfter: r.RetryAfter}
	if a, known := advice[r.Code]; known {
		o.Class, o.NextStep = a.class, a.next
	}
	return o
}

// compare says whether the document is there, alone, and as it was meant.
func compare(p connector.Posting, in intent, doc connector.Document, docs []document) connector.Verification {
	differ := func(format string, args ...any) connector.Verification {
		return connector.Verification{Difference: fmt.Sprintf(format, args...)}
	}
	if len(docs) > 1 {
		return differ("%d documents carry key %s: %s and %s.", len(docs), p.Fact.Key, docs[0].Number, docs[1].Number)
	}
	if len(docs) == 0 || (doc.Number != "" && docs[0].Number != doc.Number) {
		return differ("Document %s is not in the ERP under key %s.", doc.Number, p.Fact.Key)
	}
	d := docs[0]
	if len(d.Failed) > 0 {
		m := d.Failed[0]
		return differ("Document %s is there, but %d of its goods movements failed, the first is %s %s of item %q (%s).", d.Number, len(d.Failed), m.Quantity, m.Unit, m.Item, m.Movement)
	}
	for _, f := range fields(p, in, d) {
		if f.want != f.have {
			return differ("Document %s has %s %q, wanted %q.", d.Number, f.name, f.have, f.want)
		}
	}
	return connector.Verification{Matches: true}
}

// field is one thing in which document and posting have to agree.
type field struct{ name, have, want string }

func fields(p connector.Posting, in intent, d document) []field {
	all := []field{{"order", d.OrderNo, orderNo(p)}}
	add := func(name, have, want string) { all = append(all, field{name, have, want}) }
	amount := func(name string, have, want decimal.Decimal) {
		if in.Reverses != "" {
			want = want.Neg()
		}
		add(name, have.StringFixed(9), want.StringFixed(9))
	}
	if !p.PostingDate.IsZero() {
		add("posting date", d.PostingDate, p.PostingDate.Format(time.DateOnly))
	}
	add("reversed document", d.Reverses, in.Reverses)
	switch f := p.Fact; {
	case f.Confirmation != nil:
		add("unit", d.Unit, f.Confirmation.Unit)
		amount("yield", d.Yield, f.Confirmation.Yield)
		amount("scrap", d.Scrap, f.Confirmation.Scrap)
		amount("rework", d.Rework, f.Confirmation.Rework)
		amount("received quantity", received(d), f.Confirmation.Yield)
	case f.Consumption != nil:
		add("item", d.Item, f.Consumption.Item)
		add("unit", d.Unit, f.Consumption.Quantity.Unit)
		add("issued quantity", issued(d).StringFixed(9), wantedIssue(f.Consumption, in).StringFixed(9))
	case f.OrderState != nil:
		add("state", d.State, string(f.OrderState.State))
	}
	return all
}

// received is what a document brought into stock from the order, less what it took back.
func received(d document) decimal.Decimal {
	sum := decimal.Zero
	for _, l := range d.Lines {
		switch {
		case l.Item != d.Item:
		case l.Movement == "101":
			sum = sum.Add(l.Quantity)
		case l.Movement == "102":
			sum = sum.Sub(l.Quantity)
		}
	}
	return sum
}

// issued is what a document took from stock, less what it gave back.
func issued(d document) decimal.Decimal {
	sum := decimal.Zero
	for _, l := range d.Lines {
		switch l.Movement {
		case "261":
			sum = sum.Add(l.Quantity)
		case "262":
			sum = sum.Sub(l.Quantity)
		}
	}
	return sum
}

func wantedIssue(c *object.Consumption, in intent) decimal.Decimal {
	if (c.Movement == object.Return) != (in.Reverses != "") {
		return c.Quantity.Value.Neg()
	}
	return c.Quantity.Value
}
