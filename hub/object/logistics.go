package object

import (
	"errors"
	"fmt"
	"time"

	"github.com/shopspring/decimal"
)

// Direction is which way goods or invoices go, seen from us.
type Direction string

// The directions.
const (
	Inbound  Direction = "INBOUND"  // from a supplier to us
	Outbound Direction = "OUTBOUND" // from us to a customer
	Internal Direction = "INTERNAL" // between places of ours
)

// ShipmentState is how far a shipment is. An exception lies over a state and is none.
type ShipmentState string

// The states of a shipment.
const (
	ShipmentPlanned     ShipmentState = "PLANNED"
	ShipmentTendered    ShipmentState = "TENDERED"
	ShipmentAccepted    ShipmentState = "ACCEPTED"
	ShipmentDeclined    ShipmentState = "DECLINED"
	ShipmentPicked      ShipmentState = "PICKED"
	ShipmentPacked      ShipmentState = "PACKED"
	ShipmentGoodsIssued ShipmentState = "GOODS_ISSUED"
	ShipmentInTransit   ShipmentState = "IN_TRANSIT"
	ShipmentArrived     ShipmentState = "ARRIVED"   // at the dock
	ShipmentDelivered   ShipmentState = "DELIVERED" // taken over, in stock
	ShipmentProved      ShipmentState = "POD_RECEIVED"
	ShipmentCancelled   ShipmentState = "CANCELLED"
)

// Shipment is goods on their way: an advance notice and its receipt, a delivery, a transfer.
type Shipment struct {
	Number string
	// Reference is the other side's number: the supplier's advance notice, the customer's delivery.
	Reference string
	Direction Direction
	Partner   string // party; empty for an internal one
	Site      string // where it arrives or leaves
	// From and To are storage locations, of an internal one.
	From, To                string
	Mode, Carrier           string
	BillOfLading, ProNumber string
	PlannedOn, EffectiveOn  string // 2026-11-26
	Lines                   []ShipmentLine
	Units                   []HandlingUnit
	Milestones              []Milestone
	Proof                   *ProofOfDelivery
	State                   ShipmentState
	Held
}

// ShipmentLine is one item of a shipment, of one lot.
type ShipmentLine struct {
	LineNo string
	// OrderNo and OrderLine are the purchase or sales order that it fulfils.
	OrderNo, OrderLine string
	Item               string
	Quantity           Quantity
	Lot                string
	Serials            []string
}

// HandlingUnit is a pallet or a box with a serial shipping container code.
type HandlingUnit struct {
	SSCC, Parent, Type string
	Weight             Quantity
}

// Certainty says how much is known of a milestone's time.
type Certainty string

// The certainties of a milestone.
const (
	PlannedTime   Certainty = "PLN"
	EstimatedTime Certainty = "EST"
	ActualTime    Certainty = "ACT"
)

// Milestone is something that happens to a shipment on its way. It can be taken back by a later one.
type Milestone struct {
	EventID   string
	Code      string
	Certainty Certainty
	At        time.Time
	Location  string
	Reason    string
	Source    string
	Retracts  string // EventID
}

// ProofOfDelivery is what the receiver signed.
type ProofOfDelivery struct {
	SignedBy, Document string
	At                 time.Time
	Short, Damaged     []ShipmentLine
}

// Check names what is wrong with a shipment.
func (s Shipment) Check() error {
	who := fmt.Sprintf("shipment %q", s.Number)
	switch s.Direction {
	case Inbound, Outbound:
		if s.Partner == "" {
			return fmt.Errorf("%s is %s and names no partner", who, s.Direction)
		}
	case Internal:
		if s.From == "" || s.To == "" || s.From == s.To {
			return fmt.Errorf("%s goes from %q to %q; want two places", who, s.From, s.To)
		}
	default:
		return fmt.Errorf("%s has the unknown direction %q", who, s.Direction)
	}
	if len(s.Lines) == 0 {
		return fmt.Errorf("%s has no lines", who)
	}
	seen := map[string]bool{}
	for i, l := range s.Lines {
		where := fmt.Sprintf("line %s of %s", nameOf(l.LineNo, i), who)
		if l.Item == "" {
			return fmt.Errorf("%s names no item", where)
		}
		if l.OrderLine != "" && l.OrderNo == "" {
			return fmt.Errorf("%s names line %q of no order", where, l.OrderLine)
		}
		if len(l.Serials) > 0 && !l.Quantity.Value.Equal(decimal.NewFromInt(int64(len(l.Serials)))) {
			return fmt.Errorf("%s is of %s and has %d serial numbers", where, l.Quantity.Value, len(l.Serials))
		}
		if err := errors.Join(checkQuantity(where, l.Quantity), unique(where, seen, l.LineNo)); err != nil {
			return err
		}
	}
	return checkDates(who, s.PlannedOn, s.EffectiveOn)
}

// MovementKind says what a movement of stock is.
type MovementKind string

// The kinds of movements.
const (
	IssueToOrder       MovementKind = "ISSUE_TO_ORDER"
	ReturnFromOrder    MovementKind = "RETURN_FROM_ORDER"
	ReceiptFromOrder   MovementKind = "RECEIPT_FROM_ORDER"
	ReceiptFromPO      MovementKind = "RECEIPT_FROM_PO"
	ReturnToSupplier   MovementKind = "RETURN_TO_SUPPLIER"
	ByProduct          MovementKind = "BY_PRODUCT"
	ScrapMovement      MovementKind = "SCRAP"
	Transfer           MovementKind = "TRANSFER"
	CountGain          MovementKind = "COUNT_GAIN"
	CountLoss          MovementKind = "COUNT_LOSS"
	IssueToDelivery    MovementKind = "ISSUE_TO_DELIVERY"
	ReturnFromCustomer MovementKind = "RETURN_FROM_CUSTOMER"
)

// InventoryMovement is one booked movement of stock.
type InventoryMovement struct {
	Number   string
	Kind     MovementKind
	Item     string
	Quantity Quantity // above zero in every direction
	Lot      string
	Serials  []string
	// From and To are storage locations; the one outside of our stock is empty.
	From, To string
	// OrderNo is the work, purchase or sales order, OrderLine its line; Document the shipment or count.
	OrderNo, OrderLine, Document string
	Reason                       string
	MovedOn                      string // 2026-11-26, the date of the books
	Held
}

// Check names what is wrong with a movement.
func (m InventoryMovement) Check() error {
	who := fmt.Sprintf("movement %q", m.Number)
	switch m.Kind {
	case IssueToOrder, ReturnFromOrder, ReceiptFromOrder, ReceiptFromPO, ReturnToSupplier, ByProduct, ScrapMovement, Transfer,
		CountGain, CountLoss, IssueToDelivery, ReturnFromCustomer:
	default:
		return fmt.Errorf("%s has the unknown kind %q", who, m.Kind)
	}
	if m.Item == "" {
		return fmt.Errorf("%s names no item", who)
	}
	if m.Kind == Transfer && (m.From == "" || m.To == "" || m.From == m.To) {
		return fmt.Errorf("%s goes from %q to %q; want two places", who, m.From, m.To)
	}
	return errors.Join(checkQuantity(who, m.Quantity), checkDates(who, m.MovedOn))
}

// CountState is how far a cycle count is.
type CountState string

// The states of a cycle count.
const (
	CountCreated   CountState = "CREATED"
	CountCounted   CountState = "COUNTED"
	CountRecount   CountState = "RECOUNT"
	CountPosted    CountState = "POSTED"
	CountCancelled CountState = "CANCELLED"
)

// CycleCount is what somebody found at a location, beside what the books say.
type CycleCount struct {
	Number         string
	Site, Location string
	CountedOn      string // 2026-11-26
	Counter        string // who counted, as a pseudonym
	Lines          []CountLine
	State          CountState
	Held
}

// CountLine is one item of a count, of one lot.
type CountLine struct {
	Item, Lot string
	Unit      string          // UN/ECE Recommendation 20
	Book      decimal.Decimal // what the books said
	// Counted and Recounted are what was found; not valid where nobody has counted. Zero is a count.
	Counted, Recounted decimal.NullDecimal
	// Posted is the difference that was booked: above zero for a gain.
	Posted decimal.Decimal
	Reason string
}

// Found is the last count of a line, false when nobody has counted it.
func (l CountLine) Found() (decimal.Decimal, bool) {
	if l.Recounted.Valid {
		return l.Recounted.Decimal, true
	}
	return l.Counted.Decimal, l.Counted.Valid
}

// Difference is what was found less what the books said; zero for a line that nobody has counted.
func (l CountLine) Difference() decimal.Decimal {
	found, ok := l.Found()
	if !ok {
		return decimal.Zero
	}
	return found.Sub(l.Book)
}

// Check names what is wrong with a count.
func (c CycleCount) Check() error {
	who := fmt.Sprintf("count %q", c.Number)
	if c.Location == "" {
		return fmt.Errorf("%s names no location", who)
	}
	seen := map[[2]string]bool{}
	for i, l := range c.Lines {
		if l.Item == "" || l.Unit == "" {
			return fmt.Errorf("line %d of %s is of item %q in %q; want both", i+1, who, l.Item, l.Unit)
		}
		if found, _ := l.Found(); found.IsNegative() {
			return fmt.Errorf("line %d of %s: %s of item %q were counted", i+1, who, found, l.Item)
		}
		if seen[[2]string{l.Item, l.Lot}] {
			return fmt.Errorf("line %d of %s: item %q, lot %q is there twice", i+1, who, l.Item, l.Lot)
		}
		seen[[2]string{l.Item, l.Lot}] = true
	}
	return checkDates(who, c.CountedOn)
}
