package s4

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

// intent is what Prepare found out for Post, Lookup and Verify: the requests themselves, so that whatever is sent later is
// what was looked for.
type intent struct {
	// At is when it was made, by the hub's clock, and the time of first sending that SAP is told.
	At    time.Time `json:"at"`
	Steps []step    `json:"steps"`
}

// The kinds of steps.
const (
	doConfirm  = "confirm"
	doDocument = "document"
	doCancel   = "cancel"
	doFinish   = "finish"
	// The final confirmation of an operation, without quantities.
	doEndOperation = "end operation"
	// What nobody asks for by a fact: SAP's own cancellation of a material document, or of one of its items.
	doCancelDocument = "cancel document"
	doCancelItem     = "cancel item"
)

// step is one request with an effect, and how its effect is found again.
type step struct {
	Do    string          `json:"do"`
	Order string          `json:"order"`
	Query url.Values      `json:"query,omitempty"`
	Body  json.RawMessage `json:"body,omitempty"`
	// RequestID is the same for each sending of the step for this fact.
	RequestID string `json:"request_id"`
	// Moves are the goods movements that the effect must have.
	Moves []move `json:"moves,omitempty"`
	// Backflushed are materials that SAP takes by itself, in quantities of its own.
	Backflushed []string `json:"backflushed,omitempty"`
	// Group is the group of the confirmation that is taken back.
	Group string `json:"group,omitempty"`
	// Unit and ISO are how SAP writes the unit of a confirmation, Operation which one is confirmed.
	Unit      string `json:"unit,omitempty"`
	ISO       string `json:"iso,omitempty"`
	Operation string `json:"operation,omitempty"`
	// Done is the document of a step that was found before the first sending.
	Done *connector.Document `json:"done,omitempty"`
}

type move struct {
	Type     string          `json:"type"`
	Material string          `json:"material"`
	Quantity decimal.Decimal `json:"quantity"`
	// Unit is the commercial code, ISO the ISO code; either may be empty.
	Unit string `json:"unit,omitempty"`
	ISO  string `json:"iso,omitempty"`
}

func (m move) String() string {
	return fmt.Sprintf("movement %s of %s %s of item %q", m.Type, m.Quantity, cmp.Or(m.ISO, m.Unit), m.Material)
}

func readIntent(raw []byte) (in intent, err error) {
	if len(raw) == 0 {
		return in, nil
	}
	if err := json.Unmarshal(raw, &in); err != nil {
		return in, fmt.Errorf("read intent %.100q: %w", raw, err)
	}
	return in, nil
}

// requestID is 32 upper-case hex digits out of the fact's key and the number of the step.
func requestID(key factkey.Key, n int) string {
	sum := sha256.Sum256(append([]byte("s4 request|"+hex.EncodeToString(key[:])+"|"), byte('0'+n)))
	return strings.ToUpper(hex.EncodeToString(sum[:16]))
}

// reject makes a rejection. Nothing has happened in SAP when it is given.
func reject(class connector.Class, code, next, reason string, args ...any) *connector.Outcome {
	return &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: fmt.Sprintf(reason, args...), NextStep: next}
}

func orderNo(p connector.Posting) string { return cmp.Or(p.Order.ERPKey, p.Fact.OrderNo()) }

// unsuitable refuses what SAP has no place for, before anything is read.
func (c *Connector) unsuitable(p connector.Posting) *connector.Outcome {
	f := &p.Fact
	switch {
	case f.Confirmation == nil && f.Consumption == nil && f.OrderState == nil:
		return reject(connector.Fatal, "NOT_SUPPORTED", "Do not route this kind of fact to this ERP.", "SAP has no document for a fact of kind %s.", f.Kind)
	case f.OrderState != nil && (f.OrderState.State != object.FloorFinished || !ofOperation(p) && c.cfg.Finish == finishNothing || ofOperation(p) && c.cfg.FinishOperations == finishNothing):
		return reject(connector.Fatal, "NOT_SUPPORTED", "Post only FINISHED to this ERP, and set finish or finish_operations.", "State %s of an order has no effect in SAP here.", f.OrderState.State)
	case f.OrderState != nil && !f.Reverses.IsZero():
		return reject(connector.Fatal, "NOT_SUPPORTED", "Take the technical completion back in SAP.", "A change of state cannot be reversed here.")
	case f.OrderNo() == "":
		return reject(connector.Fatal, "NO_ORDER", "Find the order that ran at that time, then send the fact again with it.", "Fact %s names no order.", f.Key)
	}
	return nil
}

// plan makes the steps of a posting that takes nothing back.
func (c *Connector) plan(p connector.Posting, o *sapOrder) ([]step, *connector.Outcome) {
	var steps []step
	var no *connector.Outcome
	switch f := &p.Fact; {
	case f.Confirmation != nil:
		steps, no = c.planConfirmation(p, o)
	case f.Consumption != nil:
		steps, no = c.planConsumption(p, o)
	case ofOperation(p):
		steps, no = planEnd(p, o)
	default:
		steps = []step{{Do: doFinish, Query: url.Values{"ManufacturingOrder": {quote(o.ManufacturingOrder)}}}}
	}
	for i := range steps {
		steps[i].Order, steps[i].RequestID = o.ManufacturingOrder, requestID(p.Fact.Key, i)
	}
	return steps, no
}

// fits refuses a quantity that SAP would round.
func fits(what, item string, q decimal.Decimal) *connector.Outcome {
	if q.Exponent() < -100 || !q.Equal(q.Truncate(scale)) || q.Abs().GreaterThanOrEqual(decimal.New(1, digits-scale)) {
		return reject(connector.Fatal, "QUANTITY_SCALE", "Let the rule of the source round the quantity to 3 decimals.",
			"%s %.60s of item %q does not fit SAP's %d digits with %d decimals.", what, q, item, digits, scale)
	}
	return nil
}

// short refuses a text that SAP would cut.
func short(what, text string, most int) *connector.Outcome {
	if utf8.RuneCountInString(text) > most {
		return reject(connector.Fatal, "TOO_LONG", "Shorten it in the rule of the source.", "%s %q is longer than SAP's %d characters.", what, text, most)
	}
	return nil
}

func firstOf(all ...*connector.Outcome) *connector.Outcome {
	for _, o := range all {
		if o != nil {
			return o
		}
	}
	return nil
}

// operation finds the operation that a fact means. It never guesses among several.
func operation(o *sapOrder, name string) (sapOperation, *connector.Outcome) {
	ops := o.operations()
	if name == "" {
		if len(ops) == 1 {
			return ops[0], nil
		}
		return sapOperation{}, reject(connector.Fatal, "OPERATION", "Name the operation in the rule of the source.",
			"Order %s has %d operations, and the fact names none.", o.ManufacturingOrder, len(ops))
	}
	for _, op := range ops {
		if n := operationName(op.ManufacturingOrderSequence, op.ManufacturingOrderOperation); n == name || strings.TrimLeft(n, "0") == strings.TrimLeft(name, "0") {
			return op, nil
		}
	}
	return sapOperation{}, reject(connector.Fatal, "OPERATION", "Correct the operation in the rule of the source.", "Order %s has no operation %q.", o.ManufacturingOrder, name)
}

func (c *Connector) planConfirmation(p connector.Posting, o *sapOrder) ([]step, *connector.Outcome) {
	f := p.Fact.Confirmation
	if f.Item != "" && f.Item != o.Material {
		return nil, reject(connector.Fatal, "ITEM", "Check which order ran on the machine.", "Order %s makes item %q, not %q.", o.ManufacturingOrder, o.Material, f.Item)
	}
	unit, err := c.units.known(o.ProductionUnitISOCode, o.ProductionUnit)
	if err != nil || unit != f.Unit {
		return nil, reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source, or units in the configuration.",
			"Order %s is kept in unit %q of SAP, the fact is in %q.", o.ManufacturingOrder, cmp.Or(o.ProductionUnitISOCode, o.ProductionUnit), f.Unit)
	}
	op, no := operation(o, f.Operation)
	reason, reasonNo := c.reason(f)
	if no = firstOf(no, reasonNo, fits("Yield", o.Material, f.Yield), fits("Scrap", o.Material, f.Scrap), fits("Rework", o.Material, f.Rework), short("Lot", f.Lot, 10)); no != nil {
		return nil, no
	}
	s := step{Do: doConfirm, Unit: o.ProductionUnit, ISO: o.ProductionUnitISOCode, Operation: op.ManufacturingOrderOperation}
	body := map[string]any{"OrderID": o.ManufacturingOrder, "OrderOperation": op.ManufacturingOrderOperation, "ExternalSystemConfirmation": p.Fact.Key.UUID(),
		"ConfirmationYieldQuantity": f.Yield.String(), "ConfirmationScrapQuantity": f.Scrap.String(), "ConfirmationReworkQuantity": f.Rework.String(),
		"ConfirmationText": clip(strings.TrimSpace(p.Fact.Key.String()+happened(p)+" "+f.ScrapReason), 40)}
	if reason != "" {
		body["VarianceReasonCode"] = reason
	}
	setUnit(body, "ConfirmationUnit", o.ProductionUnit, o.ProductionUnitISOCode)
	if seq := strings.TrimLeft(op.ManufacturingOrderSequence, "0"); seq != "" {
		body["Sequence"] = op.ManufacturingOrderSequence
	}
	if f.Final {
		body["FinalConfirmationType"], body["IsFinalConfirmation"] = "X", true
	}
	times(body, p, f)
	last, _ := o.last()
	receipt := f.Yield.IsPositive() && last.ManufacturingOrderOperation == op.ManufacturingOrderOperation && strings.TrimLeft(op.ManufacturingOrderSequence, "0") == ""
	return c.withMoves(p, o, op, s, body, receipt)
}

// ofOperation reports that a change of state is of one operation, and not of its order.
func ofOperation(p connector.Posting) bool {
	return p.Fact.OrderState != nil && p.Fact.OrderState.Operation != "" && !p.ClosesOrder
}

// planEnd makes the final confirmation of an operation. It moves nothing: what was made was confirmed before.
func planEnd(p connector.Posting, o *sapOrder) ([]step, *connector.Outcome) {
	op, no := operation(o, p.Fact.OrderState.Operation)
	if no != nil {
		return nil, no
	}
	body := map[string]any{"OrderID": o.ManufacturingOrder, "OrderOperation": op.ManufacturingOrderOperation, "ExternalSystemConfirmation": p.Fact.Key.UUID(),
		"ConfirmationYieldQuantity": "0", "ConfirmationScrapQuantity": "0", "ConfirmationReworkQuantity": "0", "FinalConfirmationType": "X", "IsFinalConfirmation": true,
		"APIConfHasNoGoodsMovements": true, "ConfirmationText": clip(strings.TrimSpace(p.Fact.Key.String()+happened(p)+" "+p.Fact.OrderState.Reason), 40)}
	setUnit(body, "ConfirmationUnit", o.ProductionUnit, o.ProductionUnitISOCode)
	if seq := strings.TrimLeft(op.ManufacturingOrderSequence, "0"); seq != "" {
		body["Sequence"] = op.ManufacturingOrderSequence
	}
	if !p.PostingDate.IsZero() {
		body["PostingDate"] = sapDate(p.PostingDate)
	}
	return []step{{Do: doEndOperation, Body: encode(body), Unit: o.ProductionUnit, ISO: o.ProductionUnitISOCode, Operation: op.ManufacturingOrderOperation}}, nil
}

// withMoves adds the goods movements in the way that Movements says.
func (c *Connector) withMoves(p connector.Posting, o *sapOrder, op sapOperation, s step, body map[string]any, receipt bool) ([]step, *connector.Outcome) {
	f := p.Fact.Confirmation
	m := move{Material: o.Material, Quantity: f.Yield, Unit: o.ProductionUnit}
	if receipt {
		var no *connector.Outcome
		if m.Type, no = c.receiptType(p); no != nil {
			return nil, no
		}
	}
	place, batch := o.StorageLocation, f.Lot
	for _, i := range o.Items.Results {
		place, batch = cmp.Or(i.StorageLocation, place), cmp.Or(batch, i.Batch)
	}
	var more []step
	switch {
	case c.cfg.Movements == movementsSAP:
		if receipt {
			s.Moves = []move{m}
		}
		s.Backflushed = backflushed(o, op)
	case receipt && c.cfg.Movements == movementsExplicit:
		s.Moves = []move{m}
		item := map[string]any{"OrderID": o.ManufacturingOrder, "OrderItem": "1", "Material": o.Material, "Plant": o.ProductionPlant, "StorageLocation": place,
			"GoodsMovementType": m.Type, "GoodsMovementRefDocType": "F", "EntryUnit": o.ProductionUnit, "QuantityInEntryUnit": f.Yield.String(),
			"MaterialDocumentItemText": p.Fact.Key.String()}
		if batch != "" {
			item["Batch"] = batch
		}
		body["to_ProdnOrdConfMatlDocItm"] = map[string]any{"results": []any{item}}
	default:
		body["APIConfHasNoGoodsMovements"] = true
		if receipt {
			item := map[string]any{"Material": o.Material, "Plant": o.ProductionPlant, "StorageLocation": place, "GoodsMovementType": m.Type, "GoodsMovementRefDocType": "F",
				"ManufacturingOrder": o.ManufacturingOrder, "ManufacturingOrderItem": "1", "QuantityInEntryUnit": f.Yield.String(), "MaterialDocumentItemText": p.Fact.Key.String()}
			if batch != "" {
				item["Batch"] = batch
			}
			setUnit(item, "EntryUnit", o.ProductionUnit, o.ProductionUnitISOCode)
			m.ISO = o.ProductionUnitISOCode
			more = append(more, document(p, "02", p.Fact.Key, item, m))
		}
	}
	s.Body = encode(body)
	return append([]step{s}, more...), nil
}

// backflushed are the components that SAP takes at a confirmation of an operation.
func backflushed(o *sapOrder, op sapOperation) (items []string) {
	for i, m := range o.Components.Results {
		here := m.ManufacturingOrderOperation == op.ManufacturingOrderOperation && m.ManufacturingOrderSequence == op.ManufacturingOrderSequence
		if m.MatlCompIsMarkedForBackflush && here && !m.MatlCompIsMarkedForDeletion && m.RequiredQuantity.IsPositive() {
			items = append(items, o.Components.Results[i].Material)
		}
	}
	return items
}

// reason translates the reason of scrap; an unknown one stops the fact where there is a map.
func (c *Connector) reason(f *object.Confirmation) (string, *connector.Outcome) {
	if f.ScrapReason == "" || len(c.cfg.ScrapReasons) == 0 {
		return "", nil
	}
	code, ok := c.cfg.ScrapReasons[f.ScrapReason]
	if !ok {
		return "", reject(connector.Fatal, "SCRAP_REASON", "Add it to scrap_reasons of this ERP, then replay the fact.", "Scrap reason %q has no variance reason code.", f.ScrapReason)
	}
	return code, nil
}

func setUnit(body map[string]any, name, commercial, iso string) {
	if iso != "" {
		body[name+"ISOCode"] = iso
		return
	}
	body[name] = commercial
}

// times adds posting date, and start and end of the work in the plant's own zone.
func times(body map[string]any, p connector.Posting, f *object.Confirmation) {
	if !p.PostingDate.IsZero() {
		body["PostingDate"] = sapDate(p.PostingDate)
	}
	zone, err := time.LoadLocation(p.Fact.TimeZone)
	if err != nil {
		return
	}
	for name, t := range map[string]time.Time{"ConfirmedExecutionStart": f.StartedAt, "ConfirmedExecutionEnd": f.FinishedAt} {
		if !t.IsZero() {
			body[name+"Date"], body[name+"Time"] = sapDate(t.In(zone)), sapTime(t.In(zone))
		}
	}
}

func clip(text string, most int) string {
	if r := []rune(text); len(r) > most {
		return string(r[:most])
	}
	return text
}

func encode(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // only our own maps of texts are encoded
	}
	return text
}

// happened is the fact's own date for a text (12 of its characters), where the books have another.
func happened(p connector.Posting) string {
	if p.EventDate.IsZero() {
		return ""
	}
	return " " + p.EventDate.Format(time.DateOnly)
}

// document makes the step of a material document with one item, found again by key.
func document(p connector.Posting, code string, key factkey.Key, item map[string]any, m move) step {
	body := map[string]any{"GoodsMovementCode": code, "ReferenceDocument": key.String(), "MaterialDocumentHeaderText": "Linekeeper" + happened(p),
		"to_MaterialDocumentItem": map[string]any{"results": []any{item}}}
	if !p.PostingDate.IsZero() {
		body["PostingDate"], body["DocumentDate"] = sapDate(p.PostingDate), sapDate(p.PostingDate)
	}
	return step{Do: doDocument, Body: encode(body), Moves: []move{m}}
}

// component finds the component that a consumption means, nil when the order does not plan it.
func component(o *sapOrder, f *object.Consumption) (*sapComponent, *connector.Outcome) {
	var found []*sapComponent
	for i := range o.Components.Results {
		m := &o.Components.Results[i]
		if m.Material != f.Item || m.MatlCompIsMarkedForDeletion || m.MaterialComponentIsPhantomItem {
			continue
		}
		if f.Reservation == m.Reservation+"/"+m.ReservationItem {
			return m, nil
		}
		found = append(found, m)
	}
	if len(found) > 1 && f.Operation != "" {
		found = slices.DeleteFunc(found, func(m *sapComponent) bool {
			return strings.TrimLeft(operationName(m.ManufacturingOrderSequence, m.ManufacturingOrderOperation), "0") != strings.TrimLeft(f.Operation, "0")
		})
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return found[0], nil
	}
	return nil, reject(connector.Fatal, "COMPONENT", "Name the operation or the reservation in the rule of the source.",
		"Order %s plans item %q %d times, and the fact does not say which.", o.ManufacturingOrder, f.Item, len(found))
}

func (c *Connector) planConsumption(p connector.Posting, o *sapOrder) ([]step, *connector.Outcome) {
	f := p.Fact.Consumption
	m, no := component(o, f)
	if no = firstOf(no, fits("Quantity", f.Item, f.Quantity.Value), short("Lot", f.Lot, 10), short("Item", f.Item, 40)); no != nil {
		return nil, no
	}
	if m != nil && m.MatlCompIsMarkedForBackflush && c.cfg.Movements == movementsSAP {
		return nil, reject(connector.Fatal, "BACKFLUSHED", "Take the mark for backflush off the component in SAP, or stop reporting it from the plant.",
			"SAP itself takes item %q of order %s at its confirmations: posting it would take it twice.", f.Item, o.ManufacturingOrder)
	}
	iso, commercial, no := c.consumptionUnit(o, m, f)
	if no != nil {
		return nil, no
	}
	moves := movementOf(p, m, f)
	kind, no := p.MovementType(moves, ownTypes[moves])
	if no != nil {
		return nil, no
	}
	code := codes[moves]
	item := map[string]any{"Material": f.Item, "Plant": o.ProductionPlant, "StorageLocation": c.cfg.StorageLocations[o.ProductionPlant], "GoodsMovementType": kind,
		"ManufacturingOrder": o.ManufacturingOrder, "QuantityInEntryUnit": f.Quantity.Value.String(), "MaterialDocumentItemText": p.Fact.Key.String()}
	if m != nil {
		item["Plant"], item["Reservation"], item["ReservationItem"] = cmp.Or(m.Plant, o.ProductionPlant), m.Reservation, m.ReservationItem
		item["StorageLocation"] = cmp.Or(m.StorageLocation, c.cfg.StorageLocations[o.ProductionPlant])
		if code == "06" {
			item["MaterialDocumentPostingType"] = "1" // only so is the reservation open again
		}
	} else if code == "06" {
		code = "03"
	}
	if f.Lot != "" {
		item["Batch"] = f.Lot
	}
	setUnit(item, "EntryUnit", commercial, iso)
	return []step{document(p, code, p.Fact.Key, item, move{Type: kind, Material: f.Item, Quantity: f.Quantity.Value, Unit: commercial, ISO: iso})}, nil
}

// consumptionUnit is how SAP writes the unit of a consumption.
func (c *Connector) consumptionUnit(o *sapOrder, m *sapComponent, f *object.Consumption) (iso, commercial string, no *connector.Outcome) {
	if m == nil {
		iso, err := c.units.iso(f.Quantity.Unit)
		if err != nil {
			return "", "", reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source, or units in the configuration.", "Item %q: %v.", f.Item, err)
		}
		return iso, "", nil
	}
	for _, u := range [][2]string{{m.BaseUnitISOCode, m.BaseUnit}, {m.EntryUnitISOCode, m.EntryUnit}} {
		if unit, err := c.units.known(u[0], u[1]); err == nil && unit == f.Quantity.Unit {
			return u[0], u[1], nil
		}
	}
	return "", "", reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source, or units in the configuration.",
		"Item %q of order %s is kept in unit %q of SAP, the fact is in %q.", f.Item, o.ManufacturingOrder, cmp.Or(m.BaseUnitISOCode, m.BaseUnit), f.Quantity.Unit)
}
