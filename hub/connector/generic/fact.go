package generic

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// FactNames are the names that FactVars gives.
var FactNames = []string{"key", "uuid", "kind", "order_no", "item", "unit", "posting_date", "fact", "order", "original"}

// FactVars is a posting in the words of expressions. Every name is there, empty where the fact has nothing to say; numbers are
// exact, times are texts of RFC 3339, units are the system's.
//
//	key, uuid     the fact's key, 16 characters, and the same key as UUID
//	kind          production_confirmation, material_consumption, quality_status or order_state
//	order_no, item, unit, posting_date (2026-03-01)
//	fact          everything that the fact says, see fact below; movement_type is the system's own, where a mapping says it
//	order         the work order: order_no, erp_key, item, unit, quantity, site, plant, work_center, lot, operations, components
//	original      of a reversal, what it takes back: key, uuid, number, id, fact; else null
func FactVars(p connector.Posting, u Units) map[string]any {
	f := factOf(&p.Fact, p.PostingDate, u)
	f["movement_type"] = ""
	if to, no := movementType(p); no == nil {
		f["movement_type"] = to
	} else {
		delete(f, "movement_type") // whoever asks for it gets none: see Unmapped
	}
	if s := p.Fact.OrderState; s.Ends() {
		f["closes_order"] = s.Operation == "" || p.ClosesOrder
	}
	o := orderOf(p.Order, u)
	item := f["item"]
	if item == "" {
		item = o["item"]
	}
	vars := map[string]any{"key": f["key"], "uuid": f["uuid"], "kind": f["kind"], "order_no": OrderNo(p), "item": item, "unit": f["unit"],
		"posting_date": f["posting_date"], "fact": f, "order": o, "original": nil}
	if x := p.Original; x != nil {
		vars["original"] = map[string]any{"key": x.Fact.Key.String(), "uuid": x.Fact.Key.UUID(), "number": x.Document.Number, "id": x.Document.ID,
			"fact": factOf(&x.Fact, time.Time{}, u)}
	} else if !p.Fact.Reverses.IsZero() {
		vars["original"] = map[string]any{"key": p.Fact.Reverses.String(), "uuid": p.Fact.Reverses.UUID(), "number": "", "id": "", "fact": map[string]any{}}
	}
	return vars
}

// movementType is the system's type of the movement that a posting makes, empty where no mapping says it. A reversal has the type that
// takes its original back.
func movementType(p connector.Posting) (string, *connector.Outcome) {
	kind := p.Fact.Moves()
	if !p.Fact.Reverses.IsZero() {
		kind = kind.Back()
	}
	if kind == "" {
		return "", nil
	}
	return p.MovementType(kind, "")
}

// AsksForMovementType reports that an expression somewhere in a configuration asks for fact.movement_type.
func AsksForMovementType(cfg any) bool {
	text, err := json.Marshal(cfg)
	return err == nil && strings.Contains(string(text), "movement_type")
}

// Unmapped is the refusal of a posting whose expressions ask for fact.movement_type, which no mapping in force knows; nil where err has
// another cause.
func Unmapped(p connector.Posting, err error) *connector.Outcome {
	_, no := movementType(p)
	if err == nil || no == nil || !strings.Contains(err.Error(), "no such key: movement_type") {
		return nil
	}
	return no
}

// OrderNo is the order that a posting belongs to.
func OrderNo(p connector.Posting) string {
	if no := p.Fact.OrderNo(); no != "" {
		return no
	}
	return p.Order.OrderNo
}

func number(d decimal.Decimal) json.Number { return json.Number(d.String()) }

func stamp(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Format(time.RFC3339Nano)
}

func factOf(f *object.Fact, posting time.Time, u Units) map[string]any {
	zero := json.Number("0")
	v := map[string]any{"key": f.Key.String(), "uuid": f.Key.UUID(), "kind": string(f.Kind), "plant": f.Plant, "source": f.Source, "rule": f.Rule,
		"equipment": f.Equipment, "occurred_at": stamp(f.OccurredAt), "recorded_at": stamp(f.RecordedAt), "shift": f.Shift, "shift_date": f.ShiftDate,
		"posting_date": f.PostingDate, "order_no": f.OrderNo(), "reverses": "", "operation": "", "item": "", "unit": "", "yield": zero, "scrap": zero,
		"rework": zero, "quantity": zero, "scrap_reason": "", "scrap_reason_text": "", "final": false, "started_at": "", "finished_at": "", "lot": "",
		"serial": "", "person": "", "movement": "", "reservation": "", "status": "", "disposition": "", "reason": "", "state": "", "revision": zero, "closes_order": false}
	if !posting.IsZero() {
		v["posting_date"] = posting.Format(time.DateOnly)
	}
	if !f.Reverses.IsZero() {
		v["reverses"] = f.Reverses.String()
	}
	switch {
	case f.Confirmation != nil:
		x := f.Confirmation
		v["operation"], v["item"], v["unit"], v["lot"], v["serial"], v["person"] = x.Operation, x.Item, u.Theirs(x.Unit), x.Lot, x.Serial, x.Person
		v["yield"], v["scrap"], v["rework"], v["final"] = number(x.Yield), number(x.Scrap), number(x.Rework), x.Final
		v["scrap_reason"], v["scrap_reason_text"], v["started_at"], v["finished_at"] = x.ScrapReason, x.ScrapReasonText, stamp(x.StartedAt), stamp(x.FinishedAt)
	case f.Consumption != nil:
		x := f.Consumption
		v["operation"], v["item"], v["unit"], v["lot"], v["reservation"] = x.Operation, x.Item, u.Theirs(x.Quantity.Unit), x.Lot, x.Reservation
		v["quantity"], v["movement"] = number(x.Quantity.Value), string(x.Movement)
	case f.Quality != nil:
		x := f.Quality
		v["item"], v["unit"], v["lot"], v["serial"], v["quantity"] = x.Item, u.Theirs(x.Quantity.Unit), x.Lot, x.Serial, number(x.Quantity.Value)
		v["status"], v["disposition"], v["reason"] = x.Status, x.Disposition, x.Reason
	case f.OrderState != nil:
		x := f.OrderState
		v["state"], v["reason"], v["operation"], v["revision"] = string(x.State), x.Reason, x.Operation, number(decimal.NewFromInt(x.Revision))
	}
	return v
}

func orderOf(o object.WorkOrder, u Units) map[string]any {
	operations, components := []any{}, []any{}
	for _, x := range o.Operations {
		operations = append(operations, map[string]any{"operation": x.Operation, "description": x.Description, "work_center": x.WorkCenter, "quantity": number(x.Quantity.Value)})
	}
	for _, x := range o.Components {
		components = append(components, map[string]any{"item": x.Item, "operation": x.Operation, "reservation": x.Reservation,
			"quantity": number(x.Required.Value), "unit": u.Theirs(x.Required.Unit), "backflush": x.Backflush})
	}
	return map[string]any{"order_no": o.OrderNo, "erp_key": o.ERPKey, "item": o.Item, "unit": u.Theirs(o.Quantity.Unit), "quantity": number(o.Quantity.Value),
		"site": o.Site, "plant": o.Plant, "work_center": o.WorkCenter, "lot": o.Lot, "operations": operations, "components": components}
}
