package erpnextdouble

import (
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// fault is an exception of Frappe's.
type fault struct {
	status     int
	kind, says string
}

func throw(kind, format string, args ...any) *fault {
	return &fault{417, kind, fmt.Sprintf(format, args...)}
}

// keyFields are custom fields of stock entries that are unique.
var keyFields = []string{"linekeeper_key", "linekeeper_reversed_by"}

// insert makes a draft, which has no effect.
func (s *System) insert(d doc) (doc, *fault) {
	if f := s.unique(d, ""); f != nil {
		return nil, f
	}
	if s.traps.NoKeyField { // Frappe leaves out what it does not know, and says nothing
		for _, field := range keyFields {
			delete(d, field)
		}
	}
	if f := s.validate(d); f != nil {
		return nil, f
	}
	s.seq++
	d["name"], d["doctype"], d["modified"] = fmt.Sprintf("MAT-STE-2026-%05d", s.seq), StockEntry, s.now()
	if whole(d, "docstatus") == 1 {
		if f := s.effect(d, 1); f != nil {
			return nil, f
		}
	} else {
		d["docstatus"] = 0
	}
	s.tables[StockEntry][text(d, "name")] = d
	return d, nil
}

func (s *System) unique(d doc, name string) *fault {
	if s.traps.KeyNotUnique || s.traps.NoKeyField {
		return nil
	}
	for _, field := range keyFields {
		for _, e := range s.tables[StockEntry] {
			if v := text(d, field); v == "" || text(e, field) != v || text(e, "name") == name {
				continue
			}
			if s.traps.Conflict409 {
				return &fault{409, "DuplicateEntryError", fmt.Sprintf("Duplicate entry '%s' for key '%s'", text(d, field), field)}
			}
			return throw("UniqueValidationError", "%s must be unique", field)
		}
	}
	return nil
}

// validate is what a save of a stock entry checks and fills in.
func (s *System) validate(d doc) *fault {
	purpose := text(d, "stock_entry_type")
	if own, is := strings.CutPrefix(purpose, "Plant "); is { // types that this customer has made, each of a purpose of ERPNext's
		purpose = own
	}
	d["purpose"] = purpose
	made := purpose == "Manufacture" || purpose == "Material Consumption for Manufacture"
	if !made && purpose != "Material Transfer" && purpose != "Material Transfer for Manufacture" {
		d["work_order"] = nil // so does ERPNext
	}
	o := s.tables[WorkOrder][text(d, "work_order")]
	list := rows(d, "items")
	switch {
	case made && o == nil:
		return &fault{417, "LinkValidationError", "Could not find Work Order: " + text(d, "work_order")}
	case made && !amount(d, "fg_completed_qty").IsPositive():
		return throw("ValidationError", "For Quantity (Manufactured Qty) is mandatory")
	case len(list) == 0:
		return throw("MandatoryError", "items")
	}
	if s.traps.LossFromJobCards && purpose == "Manufacture" {
		d["fg_completed_qty"] = number(amount(d, "fg_completed_qty").Sub(amount(d, "process_loss_qty")))
		d["process_loss_qty"] = number(decimal.Zero)
	}
	finished, raw := decimal.Zero, 0
	for i, r := range list {
		q := amount(r, "qty").Round(s.opt.Precision)
		if s.traps.OtherQuantity != "" && i == 0 && whole(d, "docstatus") == 1 {
			q = decimal.RequireFromString(s.traps.OtherQuantity)
			d["fg_completed_qty"] = number(q.Add(amount(d, "process_loss_qty")))
		}
		r["qty"] = number(q)
		item := s.tables["Item"][text(r, "item_code")]
		switch {
		case item == nil:
			return throw("LinkValidationError", "Could not find Row #%d: Item Code: %s", i+1, text(r, "item_code"))
		case !q.IsPositive():
			return throw("ValidationError", "Row %d: Qty is mandatory", i+1)
		case text(r, "s_warehouse") == "" && text(r, "t_warehouse") == "":
			return throw("ValidationError", "Source or Target Warehouse is required for item %s", text(r, "item_code"))
		}
		r["stock_uom"], r["uom"], r["transfer_qty"] = item["stock_uom"], item["stock_uom"], r["qty"]
		if whole(r, "is_finished_item") == 1 {
			if text(r, "item_code") != text(o, "production_item") {
				return throw("ValidationError", "Finished Item %s does not match with Work Order %s", text(r, "item_code"), text(o, "name"))
			}
			finished = finished.Add(q)
		}
		if text(r, "s_warehouse") != "" {
			raw++
		}
	}
	if purpose == "Manufacture" {
		switch loss := amount(d, "process_loss_qty"); {
		case !finished.IsPositive():
			return throw("FinishedGoodError", "There must be atleast 1 Finished Good in this Stock Entry")
		case !finished.Add(loss).Equal(amount(d, "fg_completed_qty")):
			return throw("FinishedGoodError", "Finished Item Qty %s and For Quantity %v differ", finished, d["fg_completed_qty"])
		case raw == 0 && s.traps.NeedsRawMaterial:
			return throw("ValidationError", "At least one raw material item must be present in the stock entry for the type Manufacture")
		}
	}
	return nil
}

// save is an update of a stored entry: of a draft, or a change of docstatus.
func (s *System) save(name string, change doc) (doc, *fault) {
	old, ok := s.tables[StockEntry][name]
	if !ok {
		return nil, &fault{404, "DoesNotExistError", "Stock Entry " + name + " not found"}
	}
	d := maps.Clone(old)
	maps.Copy(d, change)
	if whole(old, "docstatus") == 2 { // what Frappe looks at first
		return nil, throw("ValidationError", "Cannot edit cancelled document")
	}
	if text(d, "modified") != text(old, "modified") {
		return nil, throw("TimestampMismatchError", "Error: Document has been modified after you have opened it (%s, %s). Please refresh to get the latest document.", text(old, "modified"), text(d, "modified"))
	}
	if f := s.unique(d, name); f != nil {
		return nil, f
	}
	from, to := whole(old, "docstatus"), whole(d, "docstatus")
	var f *fault
	switch {
	case from == 0 && to <= 1:
		if f = s.validate(d); f == nil && to == 1 {
			f = s.effect(d, 1)
		}
	case from == 1 && to == 2:
		f = s.effect(d, -1)
	case from == 1 && to == 1:
		f = throw("UpdateAfterSubmitError", "Not allowed to change after submission")
	default:
		f = throw("DocstatusTransitionError", "Cannot change docstatus from %d to %d", from, to)
	}
	if f != nil {
		return nil, f
	}
	d["modified"] = s.now()
	if !s.traps.SubmitLies {
		s.tables[StockEntry][name] = d
	}
	return d, nil
}

// effect books an entry, or takes it back with sign -1, wholly or not at all.
func (s *System) effect(d doc, sign int64) *fault {
	o := s.tables[WorkOrder][text(d, "work_order")]
	date := text(d, "posting_date")
	switch {
	case s.traps.FrozenUpto != "" && date <= s.traps.FrozenUpto:
		return throw("StockFreezeError", "Stock transactions before %s are frozen", s.traps.FrozenUpto)
	case date+" "+text(d, "posting_time") > time.Now().In(s.opt.Zone).Format(time.DateTime):
		return throw("ValidationError", "Posting date and time cannot be in the future")
	case o != nil && s.locked[text(o, "name")]:
		return throw("DocumentLockedError", "This document is currently locked and queued for execution. Please try again after some time.")
	case o != nil && whole(o, "docstatus") != 1:
		return throw("ValidationError", "Work Order %s must be submitted", text(o, "name"))
	case o != nil && (text(o, "status") == "Stopped" || text(o, "status") == "Closed"):
		return throw("ValidationError", "Transaction not allowed against %s Work Order %s", text(o, "status"), text(o, "name"))
	}
	moved := map[[2]string]decimal.Decimal{}
	for _, r := range rows(d, "items") {
		q := amount(r, "qty").Mul(decimal.NewFromInt(sign))
		if w := text(r, "s_warehouse"); w != "" {
			moved[[2]string{text(r, "item_code"), w}] = moved[[2]string{text(r, "item_code"), w}].Sub(q)
		}
		if w := text(r, "t_warehouse"); w != "" {
			moved[[2]string{text(r, "item_code"), w}] = moved[[2]string{text(r, "item_code"), w}].Add(q)
		}
	}
	for at, q := range moved {
		if q.IsNegative() && s.bins[at].Add(q).IsNegative() {
			return throw("NegativeStockError", "%s units of Item %s needed in Warehouse %s to complete this transaction.", q.Neg().Sub(s.bins[at]), at[0], at[1])
		}
	}
	if f := s.produce(o, d, sign); f != nil || s.traps.SubmitLies {
		return f
	}
	for at, q := range moved {
		s.bins[at] = s.bins[at].Add(q)
	}
	return nil
}

// produce brings an order up to date.
func (s *System) produce(o, d doc, sign int64) *fault {
	if o == nil || s.traps.SubmitLies {
		return nil
	}
	o = maps.Clone(o)
	if text(d, "purpose") == "Manufacture" {
		by := decimal.NewFromInt(sign)
		loss := amount(d, "process_loss_qty")
		made := amount(o, "produced_qty").Add(amount(d, "fg_completed_qty").Sub(loss).Mul(by))
		lost := amount(o, "process_loss_qty").Add(loss.Mul(by))
		most := amount(o, "qty").Mul(decimal.NewFromInt(100 + s.opt.OverPercent)).Div(decimal.NewFromInt(100))
		if made.Add(lost).GreaterThan(most) {
			return throw("StockOverProductionError", "For quantity %s should not be greater than allowed quantity %s", made.Add(lost), most)
		}
		o["produced_qty"], o["process_loss_qty"], o["status"] = number(made), number(lost), "Not Started"
		switch {
		case made.Add(lost).GreaterThanOrEqual(amount(o, "qty")) && s.opt.OverPercent == 0:
			o["status"] = "Completed"
		case made.Add(lost).IsPositive():
			o["status"] = "In Process"
		}
	}
	o["modified"] = s.now()
	s.tables[WorkOrder][text(o, "name")] = o
	return nil
}
