package object

import (
	"errors"
	"fmt"
	"time"

	"github.com/shopspring/decimal"
)

// PurchaseState is how far a purchase order, or a line of one, is.
type PurchaseState string

// The states of a purchase order.
const (
	PurchaseDraft        PurchaseState = "DRAFT"
	PurchaseSent         PurchaseState = "SENT"
	PurchaseAcknowledged PurchaseState = "ACKNOWLEDGED"
	PurchasePartShipped  PurchaseState = "PART_SHIPPED"
	PurchaseShipped      PurchaseState = "SHIPPED"
	PurchasePartReceived PurchaseState = "PART_RECEIVED"
	PurchaseReceived     PurchaseState = "RECEIVED"
	PurchaseInvoiced     PurchaseState = "INVOICED"
	PurchaseClosed       PurchaseState = "CLOSED"
	PurchaseCancelled    PurchaseState = "CANCELLED"
)

// PurchaseOrder is one revision of what we order from a supplier.
type PurchaseOrder struct {
	Number string
	// Reference is the number by which whoever asked for it knows it.
	Reference       string
	Revision        int64
	Buyer, Supplier string // parties; an empty Buyer is the system's own company
	OrderDate       string // 2026-11-26
	Currency        string // ISO 4217
	Incoterm        string
	PaymentTerms    string
	ShipTo          string // site
	// ReceiptBasedInvoicing: what was received is invoiced, not what was ordered.
	ReceiptBasedInvoicing bool
	Lines                 []PurchaseLine
	State                 PurchaseState
	Held
}

// PurchaseLine is one item of a purchase order.
type PurchaseLine struct {
	LineNo             string
	Item, SupplierItem string
	Ordered            Quantity
	Price              UnitPrice
	DeliverOn          string // 2026-11-26; for the whole line where there are no schedules
	Schedules          []Schedule
	// OverPct and UnderPct are by how many percent a receipt may differ from what was ordered.
	OverPct, UnderPct       decimal.Decimal
	UnlimitedOver           bool
	ReceiptExpected         bool
	InvoiceExpected         bool
	Received, Invoiced      decimal.Decimal // so far, in the unit of Ordered
	Complete, FinalInvoiced bool
	State                   PurchaseState
}

// Schedule is a part of a line with a date of its own.
type Schedule struct {
	No                  string
	Quantity, Committed Quantity
	DeliverOn           string
}

// Check names what is wrong with a purchase order.
func (o PurchaseOrder) Check() error {
	if o.Supplier == "" {
		return fmt.Errorf("purchase order %q has no supplier", o.Number)
	}
	if err := checkDates("purchase order "+o.Number, o.OrderDate); err != nil {
		return err
	}
	if len(o.Lines) == 0 {
		return fmt.Errorf("purchase order %q has no lines", o.Number)
	}
	seen := map[string]bool{}
	for i, l := range o.Lines {
		where := fmt.Sprintf("line %s of purchase order %q", nameOf(l.LineNo, i), o.Number)
		if err := errors.Join(checkLine(where, l.Item, l.Ordered, l.Price, o.Currency), checkDates(where, l.DeliverOn), unique(where, seen, l.LineNo)); err != nil {
			return err
		}
		if l.Received.IsNegative() || l.Invoiced.IsNegative() || l.OverPct.IsNegative() || l.UnderPct.IsNegative() {
			return fmt.Errorf("%s: received %s, invoiced %s and the tolerances must not be below zero", where, l.Received, l.Invoiced)
		}
	}
	return nil
}

// AckStatus is a supplier's answer to a line.
type AckStatus string

// The answers to a line of a purchase order.
const (
	AckAccepted    AckStatus = "ACCEPTED"
	AckChanged     AckStatus = "CHANGED"
	AckRejected    AckStatus = "REJECTED"
	AckBackordered AckStatus = "BACKORDERED"
	AckPending     AckStatus = "PENDING"
)

// PurchaseOrderAck is a supplier's answer to one revision of a purchase order.
type PurchaseOrderAck struct {
	Number   string // of the purchase order
	Revision int64
	// Lines may name one line several times: the supplier splits its quantity.
	Lines []AckLine
}

// AckLine is the answer to a line, or to a part of its quantity.
type AckLine struct {
	LineNo         string
	Status         AckStatus
	Quantity       Quantity
	DeliverOn      string
	Price          UnitPrice
	SubstituteItem string
	Reason         string
}

// Stale reports whether the answer is to an older revision than the order has: it must not move the order.
func (a PurchaseOrderAck) Stale(o PurchaseOrder) bool { return a.Revision < o.Revision }

// Check names what is wrong with an answer.
func (a PurchaseOrderAck) Check() error {
	if a.Number == "" {
		return errors.New("acknowledgement names no purchase order")
	}
	for i, l := range a.Lines {
		switch l.Status {
		case AckAccepted, AckChanged, AckRejected, AckBackordered, AckPending:
		default:
			return fmt.Errorf("line %s of the acknowledgement of %q has the unknown status %q", nameOf(l.LineNo, i), a.Number, l.Status)
		}
		if l.Quantity.Value.IsNegative() {
			return fmt.Errorf("line %s of the acknowledgement of %q is of %s", nameOf(l.LineNo, i), a.Number, l.Quantity.Value)
		}
	}
	return nil
}

// SalesState is how far a sales order, or a line of one, is.
type SalesState string

// The states of a sales order.
const (
	SalesDraft       SalesState = "DRAFT"
	SalesConfirmed   SalesState = "CONFIRMED"
	SalesPartShipped SalesState = "PART_SHIPPED"
	SalesShipped     SalesState = "SHIPPED"
	SalesInvoiced    SalesState = "INVOICED"
	SalesClosed      SalesState = "CLOSED"
	SalesCancelled   SalesState = "CANCELLED"
)

// SalesOrder is what a customer orders from us.
type SalesOrder struct {
	Number string
	// Reference is the customer's order number.
	Reference             string
	Customer              string // party
	OrderDate             string // 2026-11-26
	Currency              string // ISO 4217
	Incoterm              string
	PaymentTerms          string
	ShipFrom              string // site
	ShipmentBasedInvoices bool   // what was shipped is invoiced, not what was ordered
	Lines                 []SalesLine
	State                 SalesState
	Held
}

// SalesLine is one item of a sales order.
type SalesLine struct {
	LineNo             string
	Item, CustomerItem string
	Ordered            Quantity
	Price              UnitPrice
	ShipOn             string          // 2026-11-26
	Shipped, Invoiced  decimal.Decimal // so far, in the unit of Ordered
	State              SalesState
}

// Check names what is wrong with a sales order.
func (o SalesOrder) Check() error {
	if o.Customer == "" {
		return fmt.Errorf("sales order %q has no customer", o.Number)
	}
	if err := checkDates("sales order "+o.Number, o.OrderDate); err != nil {
		return err
	}
	if len(o.Lines) == 0 {
		return fmt.Errorf("sales order %q has no lines", o.Number)
	}
	seen := map[string]bool{}
	for i, l := range o.Lines {
		where := fmt.Sprintf("line %s of sales order %q", nameOf(l.LineNo, i), o.Number)
		if err := errors.Join(checkLine(where, l.Item, l.Ordered, l.Price, o.Currency), checkDates(where, l.ShipOn), unique(where, seen, l.LineNo)); err != nil {
			return err
		}
		if l.Shipped.IsNegative() || l.Invoiced.IsNegative() {
			return fmt.Errorf("%s: shipped %s and invoiced %s must not be below zero", where, l.Shipped, l.Invoiced)
		}
	}
	return nil
}

// nameOf is how a message calls a line: by its number, or by its place.
func nameOf(lineNo string, i int) string {
	if lineNo != "" {
		return fmt.Sprintf("%q", lineNo)
	}
	return fmt.Sprint(i + 1)
}

func checkLine(where, item string, q Quantity, p UnitPrice, currency string) error {
	if item == "" {
		return fmt.Errorf("%s names no item", where)
	}
	if err := checkQuantity(where, q); err != nil {
		return err
	}
	if err := p.Check(); err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	if p.Price.Amount.IsNegative() {
		return fmt.Errorf("%s costs %s", where, p.Price)
	}
	if currency != "" && p.Price.Currency != currency {
		return fmt.Errorf("%s is priced in %s, the order is in %s", where, p.Price.Currency, currency)
	}
	return nil
}

func checkQuantity(where string, q Quantity) error {
	if !q.Value.IsPositive() || q.Unit == "" {
		return fmt.Errorf("%s is of %s %q; want a quantity above zero and its unit", where, q.Value, q.Unit)
	}
	return nil
}

// checkDates wants calendar dates, or nothing.
func checkDates(where string, dates ...string) error {
	for _, d := range dates {
		if d == "" {
			continue
		}
		if _, err := time.Parse(time.DateOnly, d); err != nil {
			return fmt.Errorf("%s has the date %q; want one like 2026-11-26", where, d)
		}
	}
	return nil
}

func unique(where string, seen map[string]bool, lineNo string) error {
	if lineNo != "" && seen[lineNo] {
		return fmt.Errorf("%s: the number is there twice", where)
	}
	seen[lineNo] = true
	return nil
}
