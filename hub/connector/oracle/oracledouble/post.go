package oracledouble

import (
	"encoding/json"
	"net/http"
	"time"

	"github.com/shopspring/decimal"
)

// detail is one transaction of a request, of either resource.
type detail struct {
	WorkOrderNumber, OrganizationCode, SourceSystemType, TransactionTypeCode, InventoryItemNumber, TransactionUOMCode string
	FromDispatchState, ToDispatchState, TransactionDate, TransactionReference                                         string
	WoOperationSequenceNumber                                                                                         int
	TransactionQuantity                                                                                               decimal.Decimal
}

// post books all details of a request, or none of them and says why inside of a success.
func (s *System) post(w http.ResponseWriter, r *http.Request, resource string) {
	switch {
	case s.traps.Busy:
		fail(w, http.StatusServiceUnavailable, "", "The service is busy.")
		return
	case s.traps.Throttle:
		w.Header().Set("Retry-After", "1")
		fail(w, http.StatusTooManyRequests, "", "Too many requests.")
		return
	case s.traps.Deny:
		fail(w, http.StatusForbidden, "", "You do not have the privilege to report work order transactions.")
		return
	}
	name := "OperationTransactionDetail"
	if resource == "materialTransactions" {
		name = "MaterialTransactionDetail"
	}
	var body struct {
		SourceSystemCode, SourceSystemType string
		Operations                         []detail `json:"OperationTransactionDetail"`
		Materials                          []detail `json:"MaterialTransactionDetail"`
	}
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
		fail(w, http.StatusBadRequest, "", err.Error())
		return
	}
	details := append(body.Operations, body.Materials...)
	var echo []row
	var booked []*transaction
	failed, batch := false, s.id()
	for _, d := range details {
		t, code, text := s.check(d, resource)
		if body.SourceSystemType != "EXTERNAL" || !s.sources[body.SourceSystemCode] {
			code, text = "WIE_SOURCE_SYSTEM_INVALID", "The source system "+body.SourceSystemCode+" is not registered."
		}
		x := row{"WorkOrderNumber": d.WorkOrderNumber, "TransactionQuantity": number(d.TransactionQuantity), "TransactionReference": d.TransactionReference, "ErrorMessages": nil, "ErrorMessageNames": nil}
		if code != "" {
			failed = true
			x["ErrorMessages"], x["ErrorMessageNames"] = text, code
		} else {
			t.batch = batch
			booked = append(booked, t)
			if t.inventory() {
				x["InvTransactionId"] = t.id
			}
			x["TransactionId"] = t.id
		}
		echo = append(echo, x)
	}
	if failed {
		for _, x := range echo { // all or nothing
			delete(x, "InvTransactionId")
			delete(x, "TransactionId")
		}
	} else if !s.traps.OnlyClaimed {
		s.book(booked)
	}
	var flag any = map[bool]string{true: "true", false: "false"}[failed]
	if s.traps.FlagIsBoolean {
		flag = failed
	}
	answer(w, http.StatusCreated, row{"SourceSystemCode": body.SourceSystemCode, "SourceSystemType": body.SourceSystemType, "ErrorsExistFlag": flag, name: echo})
}

func (s *System) book(all []*transaction) {
	for _, t := range all {
		t.visible = time.Now().Add(s.traps.VisibleAfter)
		if t.kind == complete && s.traps.OtherQuantity != "" {
			t.quantity = decimal.RequireFromString(s.traps.OtherQuantity)
		}
		switch t.kind {
		case complete, giveBack:
			s.stock[t.item] = s.stock[t.item].Add(t.quantity)
		case issue:
			s.stock[t.item] = s.stock[t.item].Sub(t.quantity)
		}
		s.done = append(s.done, t)
	}
}

// check makes a transaction of a detail, or says why there is none.
func (s *System) check(d detail, resource string) (t *transaction, code, text string) {
	var o *Order
	for _, x := range s.orders {
		if x.Number == d.WorkOrderNumber && x.Organization == d.OrganizationCode {
			o = x
		}
	}
	if o == nil {
		return nil, "WIE_WO_NOT_FOUND", "Work order " + d.WorkOrderNumber + " does not exist."
	}
	last, known := 0, false
	for _, op := range o.Operations {
		last, known = max(last, op.Sequence), known || op.Sequence == d.WoOperationSequenceNumber
	}
	when, err := time.Parse(time.RFC3339, d.TransactionDate)
	switch {
	case s.traps.ErrorInside != "":
		return nil, s.traps.ErrorInside, "The transaction was refused."
	case s.locked[o.Number]:
		return nil, "WIE_WO_LOCKED", "Work order " + o.Number + " is locked by another user."
	case o.Status != "ORA_RELEASED":
		return nil, "WIE_WO_STATUS_INVALID", "Work order " + o.Number + " has a status that allows no transactions."
	case !known:
		return nil, "WIE_OP_SEQ_INVALID", "The operation sequence does not exist."
	case err != nil:
		return nil, "WIE_TXN_DATE_INVALID", "The transaction date cannot be read."
	case s.shut[when.Format("2006-01")]:
		return nil, "INV_PERIOD_NOT_OPEN", "The transaction date is not in an open inventory period."
	case !d.TransactionQuantity.IsPositive():
		return nil, "WIE_TXN_QTY_INVALID", "The quantity must be above zero."
	}
	t = &transaction{id: s.id(), order: o, sequence: d.WoOperationSequenceNumber, unit: d.TransactionUOMCode, ref: d.TransactionReference, quantity: d.TransactionQuantity, date: d.TransactionDate}
	if resource == "materialTransactions" {
		return s.checkMaterial(t, d)
	}
	t.item = o.Item
	if d.TransactionUOMCode != o.Unit {
		return nil, "WIE_UOM_INVALID", "The unit " + d.TransactionUOMCode + " is not that of the work order."
	}
	completes := complete
	if t.sequence != last {
		completes = completeOp
	}
	switch d.FromDispatchState + ">" + d.ToDispatchState {
	case "READY>COMPLETE":
		t.kind = completes
	case "COMPLETE>READY":
		t.kind, t.quantity = completes, t.quantity.Neg()
	case "READY>SCRAP":
		t.kind = scrap
	case "SCRAP>READY":
		t.kind, t.quantity = scrap, t.quantity.Neg()
	default:
		return nil, "WIE_DISPATCH_STATE_INVALID", "The dispatch states are not valid."
	}
	if t.quantity.IsNegative() && s.sum(o, t.sequence, "", t.kind).Add(t.quantity).IsNegative() {
		return nil, "WIE_TXN_QTY_INVALID", "There is less to take back."
	}
	return t, "", ""
}

func (s *System) checkMaterial(t *transaction, d detail) (*transaction, string, string) {
	t.kind, t.item = d.TransactionTypeCode, d.InventoryItemNumber
	held, known := s.stock[t.item]
	switch {
	case !known:
		return nil, "WIE_ITEM_INVALID", "Item " + t.item + " does not exist."
	case t.kind != issue && t.kind != giveBack:
		return nil, "WIE_TXN_TYPE_INVALID", "The transaction type is not valid."
	case t.kind == issue && held.LessThan(t.quantity):
		return nil, "INV_QUANTITY_NOT_AVAILABLE", "The quantity is not available."
	}
	for _, c := range t.order.Components {
		if c.Item == t.item && c.Unit != t.unit {
			return nil, "WIE_UOM_INVALID", "The unit " + t.unit + " is not that of the component."
		}
	}
	return t, "", ""
}
