package tryton

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

var _ connector.BusinessWriter = (*Connector)(nil)

// desk is how one kind of business object is written.
type desk struct {
	states []string
	// key finds what was made under a key, by a field that is written in the making itself.
	key func(key string) []any
	// plan fills in the intent: a new record's values, or an existing record and what is to be changed on it.
	plan func(c *Connector, ctx context.Context, w connector.Write, in *writeIntent) (*connector.Outcome, error)
	// step makes the next step of a record towards the state that is wanted, reached says that there is none to be made. A step
	// must not be made twice by being repeated: Tryton ignores one that does not fit, and each is tied to the timestamp.
	step    func(c *Connector, ctx context.Context, w connector.Write, r record) error
	reached func(w connector.Write, r record) bool
}

var desks = map[object.BusinessKind]desk{
	object.BusinessPurchase: {states: states(object.PurchaseDraft, object.PurchaseSent, object.PurchaseCancelled), key: byDescription,
		plan: (*Connector).planPurchase, step: (*Connector).stepOrder, reached: reachedOrder},
	object.BusinessSale: {states: states(object.SalesDraft, object.SalesConfirmed, object.SalesCancelled), key: byDescription,
		plan: (*Connector).planSale, step: (*Connector).stepOrder, reached: reachedOrder},
	object.BusinessShipment: {states: states(object.ShipmentPlanned, object.ShipmentPicked, object.ShipmentPacked, object.ShipmentGoodsIssued,
		object.ShipmentInTransit, object.ShipmentArrived, object.ShipmentDelivered), key: byReference,
		plan: (*Connector).planShipment, step: (*Connector).stepShipment, reached: reachedShipment},
	object.BusinessInvoice: {states: states(object.InvoiceReceived, object.InvoiceValidated, object.InvoicePosted), key: byDescription,
		plan: (*Connector).planInvoice, step: (*Connector).stepInvoice, reached: reachedInvoice},
	object.BusinessCount: {states: states(object.CountCreated, object.CountCounted, object.CountPosted, object.CountCancelled), key: byNumber,
		plan: (*Connector).planCount, step: (*Connector).stepCount, reached: reachedCount},
}

func states[S ~string](all ...S) []string {
	out := make([]string, len(all))
	for i, s := range all {
		out[i] = string(s)
	}
	return out
}

func keyText(k factkey.Key) string { return "Linekeeper " + k.String() }

func byDescription(key string) []any { return []any{"description", "=", "Linekeeper " + key} }
func byReference(key string) []any   { return []any{"reference", "=", key} }
func byNumber(key string) []any      { return []any{"number", "=", key} }

// WritesBusiness implements connector.BusinessWriter.
func (c *Connector) WritesBusiness() map[object.BusinessKind][]string {
	out := map[object.BusinessKind][]string{}
	for kind, d := range desks {
		out[kind] = slices.Clone(d.states)
	}
	return out
}

// writeIntent is what the caller keeps between Prepare and Write.
type writeIntent struct {
	Model string `json:"model"`
	// ID is the record that is moved on; 0 for one that is to be made with Values, tied to Gates and Stamps.
	ID     int             `json:"id,omitempty"`
	Values json.RawMessage `json:"values,omitempty"`
	Gates  []gate          `json:"gates,omitempty"`
	// Stamps are the timestamps of records that must still be as they were read.
	Stamps map[string]string `json:"stamps,omitempty"`
	// Edit is written to an existing record before its first step.
	Edit json.RawMessage `json:"edit,omitempty"`
	// Before is a transition that an existing record needs before it can be edited at all: it is made, and all is planned anew.
	Before string `json:"before,omitempty"`
}

// make fills in a new record. Its rows are nested in a field, and the gates in a field of the first row; with no such field, in
// the rows' own.
func (in *writeIntent) make(model string, values map[string]any, field string, rows []any, gateField string) error {
	in.Model = model
	if gateField != "" {
		rows[0].(map[string]any)[gateField] = touched(in.Gates)
		values[field] = []any{[]any{"create", rows}}
	}
	b, err := json.Marshal(values)
	in.Values = b
	return err
}

// record is a record as a step needs it.
type record struct {
	ref
	State     string `json:"state"`
	Timestamp string `json:"_timestamp"`
}

// PrepareBusiness implements connector.BusinessWriter.
func (c *Connector) PrepareBusiness(ctx context.Context, w connector.Write) ([]byte, *connector.Outcome, error) {
	in, early, err := c.prepareBusiness(ctx, w)
	if k := kindOf(err); err != nil && (k == refused || k == denied) {
		out := c.notWritten(w, err)
		return nil, &out, nil
	}
	if err != nil || early != nil {
		return nil, early, err
	}
	b, err := json.Marshal(in)
	return b, nil, err
}

func (c *Connector) prepareBusiness(ctx context.Context, w connector.Write) (*writeIntent, *connector.Outcome, error) {
	names := w.Want.Names()
	d, ok := desks[w.Want.Kind]
	if !ok || !slices.Contains(d.states, names.State) {
		return nil, reject(connector.Fatal, "unsupported_write", fmt.Sprintf("Tryton's %s cannot be brought to %q through here", w.Want.Kind, names.State),
			"Ask for one of: "+strings.Join(d.states, ", ")+"."), nil
	}
	if err := w.Want.Shape(); err != nil {
		return nil, reject(connector.Fatal, "invalid", err.Error(), "Correct the object at its source."), nil
	}
	if s := w.Want.Shipment; s != nil && shipmentModels[s.Direction] == "" {
		return nil, reject(connector.Fatal, "invalid", fmt.Sprintf("shipment %q has the unknown direction %q", s.Number, s.Direction), "Correct the object at its source."), nil
	}
	existing := names.Number != "" || names.ERPKey != ""
	if err := w.Want.Check(); err != nil && (!existing || w.Want.Lines() > 0) {
		return nil, reject(connector.Fatal, "invalid", err.Error(), "Correct the object at its source."), nil
	}
	in := &writeIntent{}
	var err error
	if in.Gates, err = c.gate(ctx, w.Key); err != nil { // before the search: what is made after it is told by the gate
		return nil, nil, err
	}
	found, err := c.written(ctx, w)
	if err != nil {
		return nil, nil, err
	}
	if len(found) > 0 {
		in.Model, in.ID = found[0].model, found[0].id
		if in.Model != shipmentOut { // of which a transition may have undone what was edited
			return c.asIs(ctx, w, d, in)
		}
	}
	if existing && in.ID == 0 {
		number := names.ERPKey
		if number == "" {
			number = names.Number
		}
		r, err := c.locate(ctx, w.Want.Kind, shelfFor(w), number)
		switch {
		case errors.Is(err, connector.ErrNotFound):
			return nil, reject(connector.Fatal, "unknown_object", fmt.Sprintf("Tryton has no %s %q", w.Want.Kind, number), "Correct the number at the source, or leave it out to make a new one."), nil
		case errors.Is(err, errSeveral):
			return nil, reject(connector.Fatal, "ambiguous_object", err.Error(), "Name it by its key."), nil
		case err != nil:
			return nil, nil, err
		}
		in.Model, in.ID = r.model, r.id
	}
	early, err := d.plan(c, ctx, w, in)
	if early != nil || err != nil {
		return nil, early, err
	}
	if in.ID != 0 {
		return c.asIs(ctx, w, d, in)
	}
	return in, nil, nil
}

// asIs ties an intent to an existing record as it is now. One that is already where it shall be, and carries the key, is written.
func (c *Connector) asIs(ctx context.Context, w connector.Write, d desk, in *writeIntent) (*writeIntent, *connector.Outcome, error) {
	r, err := c.state(ctx, ref{in.Model, in.ID})
	if err != nil {
		return nil, nil, err
	}
	if in.Stamps == nil {
		in.Stamps = map[string]string{}
	}
	in.Stamps[r.ref.String()] = r.Timestamp
	if d.reached(w, r) && in.Edit == nil && in.Before == "" {
		marked, err := c.marked(ctx, w, r.ref)
		if err != nil || !marked {
			return in, nil, err
		}
		doc, err := c.documentOf(ctx, w.Want.Kind, r.ref)
		return nil, &connector.Outcome{Result: connector.Posted, Document: doc}, err
	}
	return in, nil, nil
}

func (c *Connector) state(ctx context.Context, r ref) (record, error) {
	var rows []record
	if err := c.client.call(ctx, &rows, nil, r.model+".read", []int{r.id}, []string{"state", "_timestamp"}); err != nil {
		return record{}, err
	}
	if len(rows) != 1 {
		return record{}, fmt.Errorf("read record %s of Tryton: got %d records", r, len(rows))
	}
	rows[0].ref = r
	return rows[0], nil
}

// shelfFor is where the object of a write stands: a shipment says by its direction which of the three it is.
func shelfFor(w connector.Write) shelf {
	s := shelves[w.Want.Kind]
	if w.Want.Shipment != nil {
		s.models = []string{shipmentModels[w.Want.Shipment.Direction]}
	}
	return s
}

// written finds the records that carry the key of a write.
func (c *Connector) written(ctx context.Context, w connector.Write) ([]ref, error) {
	return c.keyed(ctx, w.Want.Kind, shelfFor(w), w.Key.String())
}

// keyed finds the records that carry a key: in the field of the making, or in a note.
func (c *Connector) keyed(ctx context.Context, kind object.BusinessKind, s shelf, key string) ([]ref, error) {
	d, ok := desks[kind]
	if !ok || len(key) != 16 {
		return nil, nil
	}
	found, err := c.search(ctx, s, d.key(key))
	if err != nil {
		return nil, err
	}
	var notes []struct{ Resource string }
	err = c.client.call(ctx, &notes, nil, "ir.note.search_read", []any{[]any{"message", "=", "Linekeeper " + key}}, 0, nil, [][]string{{"id", "ASC"}}, []string{"resource"})
	if err != nil {
		return nil, err
	}
	for _, n := range notes {
		if r, ok := parseRef(n.Resource); ok && slices.Contains(s.models, r.model) && !slices.Contains(found, r) {
			found = append(found, r)
		}
	}
	return found, nil
}

// marked reports whether a record carries the key of a write.
func (c *Connector) marked(ctx context.Context, w connector.Write, r ref) (bool, error) {
	found, err := c.written(ctx, w)
	return slices.Contains(found, r), err
}

// mark puts the key on a record that does not carry it; one that was just made cannot.
func (c *Connector) mark(ctx context.Context, w connector.Write, r ref, fresh bool) error {
	var n int
	note := keyText(w.Key)
	if !fresh {
		err := c.client.call(ctx, &n, nil, "ir.note.search_count", []any{[]any{"resource", "=", r.String()}, []any{"message", "=", note}})
		if err != nil || n > 0 {
			return err
		}
	}
	return c.client.call(ctx, nil, nil, "ir.note.create", []any{map[string]any{"resource": r.String(), "message": note}})
}

// WriteBusiness implements connector.BusinessWriter.
func (c *Connector) WriteBusiness(ctx context.Context, w connector.Write, intent []byte) connector.Outcome {
	var in writeIntent
	if err := json.Unmarshal(intent, &in); err != nil || in.Model == "" {
		return *reject(connector.Fatal, "bad_intent", fmt.Sprintf("the intent of a write to Tryton cannot be read: %v", err), "Ask again.")
	}
	d := desks[w.Want.Kind]
	r := ref{in.Model, in.ID}
	var err error
	if in.ID == 0 {
		if r.id, err = c.makeRecord(ctx, w, in); err != nil {
			return c.notWritten(w, err)
		}
	} else if in.Before != "" {
		if err := c.press(ctx, w, record{ref: r, Timestamp: in.Stamps[r.String()]}, in.Before, nil); err != nil {
			return c.notWritten(w, err)
		}
		return *reject(connector.Retryable, "object_changed", fmt.Sprintf("%s %s was opened for changes", w.Want.Kind, r), "Nothing: it is tried again.")
	} else if in.Edit != nil {
		err = c.client.call(ctx, nil, map[string]any{"_timestamp": maps.Clone(in.Stamps)}, r.model+".write", []int{r.id}, in.Edit)
		if err != nil {
			return c.notWritten(w, err)
		}
	}
	return c.advance(ctx, w, d, r, in.ID == 0)
}

// makeRecord makes the record, if and only if nothing was made through its gate since Prepare.
func (c *Connector) makeRecord(ctx context.Context, w connector.Write, in writeIntent) (int, error) {
	all := stamps(in.Gates)
	maps.Copy(all, in.Stamps)
	var made []int
	err := c.client.call(ctx, &made, map[string]any{"_timestamp": all}, in.Model+".create", []any{in.Values})
	if err == nil && len(made) == 1 {
		return made[0], nil
	}
	if kindOf(err) != outdated {
		return 0, err
	}
	// A gateway may have sent the request twice: then what changed the gate is this write itself.
	found, lookErr := c.written(ctx, w)
	switch {
	case lookErr != nil:
		return 0, &callError{kind: unknown, method: in.Model + ".create", text: "what became of it cannot be read", cause: lookErr}
	case len(found) > 0:
		return found[0].id, nil
	}
	return 0, err
}

const mostSteps = 24

// advance takes a record step by step to where the write wants it, reading it back after each: Tryton silently ignores a step
// that does not fit.
func (c *Connector) advance(ctx context.Context, w connector.Write, d desk, r ref, fresh bool) connector.Outcome {
	if w.Want.Kind == object.BusinessShipment || w.Want.Names().Number != "" || w.Want.Names().ERPKey != "" {
		if err := c.mark(ctx, w, r, fresh); err != nil {
			return c.notWritten(w, err)
		}
	}
	if w.Want.Kind == object.BusinessShipment {
		if err := c.refer(ctx, w, r); err != nil {
			return c.notWritten(w, err)
		}
	}
	for range mostSteps {
		now, err := c.state(ctx, r)
		if err != nil {
			return doubt(err)
		}
		if d.reached(w, now) {
			doc, err := c.documentOf(ctx, w.Want.Kind, r)
			if err != nil {
				return doubt(err)
			}
			return connector.Outcome{Result: connector.Posted, Document: doc}
		}
		if err := d.step(c, ctx, w, now); err != nil && kindOf(err) != outdated {
			return c.notWritten(w, err)
		}
	}
	return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf("%s %s does not become %s in Tryton, which does not say why", w.Want.Kind, r, w.Want.Names().State)}
}

// documentOf names a record for people: by its number where it has one.
func (c *Connector) documentOf(ctx context.Context, kind object.BusinessKind, r ref) (connector.Document, error) {
	var rows []map[string]json.RawMessage
	field := shelves[kind].number
	if err := c.client.call(ctx, &rows, nil, r.model+".read", []int{r.id}, []string{field}); err != nil {
		return connector.Document{}, err
	}
	doc := connector.Document{Number: r.String(), ID: r.String()}
	var number string
	if len(rows) == 1 && json.Unmarshal(rows[0][field], &number) == nil && number != "" {
		doc.Number = number
	}
	return doc, nil
}

// press makes a transition of a record as it was read. A warning is answered only where the write accepts it.
func (c *Connector) press(ctx context.Context, w connector.Write, r record, button string, out any) error {
	stamp := map[string]any{"_timestamp": map[string]string{r.ref.String(): r.Timestamp}}
	for range 4 { // a step may ask several things
		err := c.client.call(ctx, out, stamp, r.model+"."+button, []int{r.id})
		var warning *callError
		if !errors.As(err, &warning) || warning.kind != warned || !c.accepted(w, warning.name) {
			return err
		}
		uid, uidErr := c.client.uid(ctx)
		if uidErr != nil {
			return uidErr
		}
		if err := c.client.call(ctx, nil, nil, "res.user.warning.create", []any{map[string]any{"user": uid, "name": warning.name, "always": false}}); err != nil {
			return err
		}
	}
	return &callError{kind: refused, method: r.model + "." + button, text: "Tryton asks again and again."}
}

// accepted: a date of tomorrow is a plant east of the server, and means today; anything else is for a person.
func (c *Connector) accepted(w connector.Write, warning string) bool {
	code := warningCode(warning)
	if code == dateInFuture && !w.PostingDate.After(tomorrow()) {
		return true
	}
	return slices.Contains(w.Accept, code)
}

const dateInFuture = "date_in_future"

// warningCode names a warning of Tryton's stably: its own name holds record ids.
func warningCode(name string) string {
	switch {
	case strings.HasSuffix(name, ".effective_date_future"), strings.HasSuffix(name, ".date_future"):
		return dateInFuture
	case strings.HasSuffix(name, ".done"):
		return "no_origin"
	case strings.HasPrefix(name, "invoice_payment_term_"):
		return "payment_term_past"
	}
	return "needs_confirmation"
}

// notWritten turns a failed call into an outcome. A call that may have had an effect is in doubt.
func (c *Connector) notWritten(w connector.Write, err error) connector.Outcome {
	names := w.Want.Names()
	what := fmt.Sprintf("%s %q", w.Want.Kind, cmpOr(names.Number, names.Reference, w.Key.String()))
	var e *callError
	if errors.As(err, &e) {
		switch e.kind {
		case warned:
			return *reject(connector.Correctable, warningCode(e.name), fmt.Sprintf("Tryton warns of %s: %s", what, strings.TrimSpace(e.text)),
				"Decide whether the warning is right; where it is not, accept it and ask again.")
		case outdated:
			return *reject(connector.Retryable, "object_changed", what+" or what it is tied to was changed in Tryton while it was being written", "Nothing: it is tried again.")
		case failed: // Tryton broke down inside, and may have done it
			return doubt(err)
		case missing:
			return *reject(connector.Correctable, "insufficient_stock", fmt.Sprintf("Tryton does not have what %s needs: %s", what, e.text), "Post the missing receipt or transfer, or ship less, and ask again.")
		}
	}
	return c.failedCall(what, err)
}

func cmpOr(texts ...string) string {
	for _, t := range texts {
		if t != "" {
			return t
		}
	}
	return ""
}

// LookupBusiness implements connector.BusinessWriter. An object that was made is taken on to where it shall be: every step may be
// repeated. What was not made, or not moved, can no longer be once the gate or the record has been touched.
func (c *Connector) LookupBusiness(ctx context.Context, w connector.Write, intent []byte) (connector.Finding, error) {
	var in writeIntent
	if err := json.Unmarshal(intent, &in); err != nil || in.Model == "" {
		return connector.Finding{Presence: connector.CannotTell, Reason: fmt.Sprintf("the intent of a write to Tryton cannot be read: %v", err)}, nil
	}
	d := desks[w.Want.Kind]
	var gs []gate
	var now record
	var gone bool
	var err error
	if in.ID == 0 {
		gs, err = c.gate(ctx, w.Key)
	} else if now, err = c.state(ctx, ref{in.Model, in.ID}); err != nil && kindOf(err) == refused {
		gone, err = c.gone(ctx, ref{in.Model, in.ID}, err)
	}
	if err != nil {
		return connector.Finding{}, err
	}
	found, err := c.written(ctx, w)
	if err != nil {
		return connector.Finding{}, err
	}
	// What was edited, or was to be opened for that, is to be seen first: going on would ship what stands there.
	if again := in.Model == shipmentOut && (in.Edit != nil || in.Before != ""); len(found) > 0 && !again {
		return c.goOn(ctx, w, d, found[0])
	}
	closed := gone // nothing can be done any more to what is not there
	if in.ID == 0 {
		closed, err = c.closeGate(ctx, gs)
	} else if !gone {
		closed, err = c.outrunRecord(ctx, now)
	}
	switch {
	case err != nil:
		return connector.Finding{}, err
	case !closed:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: "what it is tied to is being changed in Tryton"}, nil
	}
	return connector.Finding{Presence: connector.Absent}, nil
}

// gone reports that a record which Tryton refused to read does not exist; the refusal is returned when it does.
func (c *Connector) gone(ctx context.Context, r ref, refusal error) (bool, error) {
	var ids []int
	if err := c.client.call(ctx, &ids, nil, r.model+".search", []any{[]any{"id", "=", r.id}}); err != nil {
		return false, err
	}
	if len(ids) > 0 {
		return false, refusal
	}
	return true, nil
}

// goOn finishes what carries the key.
func (c *Connector) goOn(ctx context.Context, w connector.Write, d desk, r ref) (connector.Finding, error) {
	out := c.advance(ctx, w, d, r, false)
	switch out.Result {
	case connector.Posted:
		return connector.Finding{Presence: connector.Found, Document: out.Document}, nil
	case connector.InDoubt:
		return connector.Finding{}, errors.New(out.Reason)
	}
	return connector.Finding{Presence: connector.Absent, Reason: out.Reason, Rejection: &out}, nil
}

// outrunRecord changes nothing but a record's timestamp.
func (c *Connector) outrunRecord(ctx context.Context, r record) (bool, error) {
	err := c.client.call(ctx, nil, map[string]any{"_timestamp": map[string]string{r.ref.String(): r.Timestamp}}, r.model+".write", []int{r.id}, map[string]any{})
	if err != nil && (kindOf(err) == outdated || kindOf(err) == refused) {
		return false, nil
	}
	return err == nil, err
}

// VerifyBusiness implements connector.BusinessWriter: it reads the object back and compares it with what was wanted.
func (c *Connector) VerifyBusiness(ctx context.Context, w connector.Write, _ []byte, doc connector.Document) (connector.Verification, error) {
	r, ok := parseRef(doc.ID)
	if !ok {
		return connector.Verification{}, fmt.Errorf("verify %s %q of Tryton: %q is no record", w.Want.Kind, doc.Number, doc.ID)
	}
	if r.model == purchaseSide.order || r.model == saleSide.order {
		now, err := c.state(ctx, r)
		if err == nil && now.State == confirmed {
			return connector.Verification{NotYet: true}, nil
		}
	}
	held, err := c.loadOne(ctx, w.Want.Kind, r)
	switch {
	case errors.Is(err, connector.ErrNotFound):
		return connector.Verification{Difference: fmt.Sprintf("%s %q is no longer in Tryton", w.Want.Kind, doc.Number)}, nil
	case err != nil:
		return connector.Verification{}, err
	}
	if says := w.Want.Difference(held); says != "" {
		return connector.Verification{Difference: fmt.Sprintf("%s %q: %s", w.Want.Kind, doc.Number, says)}, nil
	}
	return connector.Verification{Matches: true}, nil
}

// stepOrder confirms or cancels an order.
func (c *Connector) stepOrder(ctx context.Context, w connector.Write, r record) error {
	want := w.Want.Names().State
	switch {
	case want == string(object.PurchaseCancelled) && (r.State == "draft" || r.State == "quotation"):
		return c.press(ctx, w, r, "cancel", nil)
	case want == string(object.PurchaseCancelled), r.State == "cancelled":
		return &callError{kind: refused, method: r.model, text: fmt.Sprintf("It is %s and cannot become %s.", r.State, want)}
	case r.State == "draft":
		return c.press(ctx, w, r, "quote", nil)
	}
	return c.press(ctx, w, r, "confirm", nil)
}

func reachedOrder(w connector.Write, r record) bool {
	switch w.Want.Names().State {
	case string(object.PurchaseDraft):
		return r.State != "cancelled"
	case string(object.PurchaseCancelled):
		return r.State == "cancelled"
	}
	return r.State == confirmed || r.State == "processing" || r.State == "done"
}

// confirmed is an order that Tryton itself will plan the moves of: at the end of the request, or in its queue.
const confirmed = "confirmed"
