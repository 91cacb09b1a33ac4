// Package object is the hub's canonical vocabulary: work orders, the facts of the shop floor, and their states.
//
// It owns names, invariants and state machines. It promises that a value which passed Check can be posted, compared and
// summed without a second look: quantities are exact decimals in UN/ECE Recommendation 20 units, times carry their zone.
// It never touches a clock, the network or a file, and it knows no wire format and no ERP.
package object

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

// Quantity is an exact amount in a UN/ECE Recommendation 20 unit, such as 12.5 KGM.
type Quantity struct {
	Value decimal.Decimal
	Unit  string
}

// OrderState is the state of a work order as the ERP sees it.
type OrderState string

// The states of a work order.
const (
	OrderPlanned    OrderState = "PLANNED"
	OrderReleased   OrderState = "RELEASED"
	OrderInProgress OrderState = "IN_PROGRESS"
	OrderHeld       OrderState = "HELD"
	OrderCompleted  OrderState = "COMPLETED"
	OrderClosed     OrderState = "CLOSED"
	OrderCancelled  OrderState = "CANCELLED"
)

// WorkOrder is one revision of a work order.
type WorkOrder struct {
	OrderNo         string
	Revision        int64 // counted by the hub: 1 for the first content seen, +1 for each change that concerns the plant
	ERP             string
	ERPKey          string
	Plant           string // set by the hub's routing
	Site            string // the ERP's own name of the place, which routing maps to a plant
	WorkCenter      string
	Item            string
	ItemDescription string
	Quantity        Quantity
	State           OrderState
	Priority        int32
	PlannedStart    time.Time
	PlannedEnd      time.Time
	Lot             string
	Operations      []Operation
	Components      []Component
	RevisedAt       time.Time
	// OverPercent is by how much the system lets the order be exceeded, in percent; nil where it does not say. OverUnlimited: by
	// any quantity.
	OverPercent   *decimal.Decimal `json:",omitempty"`
	OverUnlimited bool             `json:",omitempty"`
	// LastOperation is the operation with which the order is made where that is not the last one listed, as with sequences that run
	// side by side.
	LastOperation string `json:",omitempty"`
}

// Last names the operation with which the order is made; empty where the order lists none.
func (w *WorkOrder) Last() string {
	if w.LastOperation != "" || len(w.Operations) == 0 {
		return w.LastOperation
	}
	return w.Operations[len(w.Operations)-1].Operation
}

// HasOperation reports whether the order lists an operation.
func (w *WorkOrder) HasOperation(name string) bool {
	return slices.ContainsFunc(w.Operations, func(o Operation) bool { return SameOperation(o.Operation, name) })
}

// SameOperation reports whether two names mean one operation: zeros before a number are not always written.
func SameOperation(a, b string) bool { return PlainOperation(a) == PlainOperation(b) }

// PlainOperation is the name of an operation without the zeros before it.
func PlainOperation(name string) string { return cmp.Or(strings.TrimLeft(name, "0"), name) }

// Operation is one step of a work order. They are listed in the order in which they are worked on.
type Operation struct {
	Operation   string
	Description string
	WorkCenter  string
	Quantity    Quantity
}

// Component is material that a work order needs.
type Component struct {
	Item        string
	Description string
	Required    Quantity
	Operation   string
	Reservation string
	Backflush   bool
	// MovementType is the system's own type of the movement that takes it, where that is not the one that it always is.
	MovementType string `json:",omitempty"`
}

// Kind is the kind of a fact.
type Kind string

// The kinds of facts.
const (
	KindConfirmation Kind = "production_confirmation"
	KindConsumption  Kind = "material_consumption"
	KindQuality      Kind = "quality_status"
	KindOrderState   Kind = "order_state"
	KindException    Kind = "source_exception"
)

// Fact is what happened at a source. Exactly the field of its Kind is set.
type Fact struct {
	Key        factkey.Key
	Kind       Kind
	Plant      string
	Source     string
	Rule       string
	OccurredAt time.Time // in the plant's zone
	RecordedAt time.Time
	TimeZone   string
	Equipment  string
	Reverses   factkey.Key
	Position   string
	// ClockSuspect says that the agent knew its clock to be wrong when it recorded the fact: its times are doubtful.
	ClockSuspect bool
	// Shift is the shift of the plant's calendar in which it happened, ShiftDate the date that the plant gives that shift
	// (2026-03-01). PostingDate is the date for the books where the calendar sets it; empty: the local date of OccurredAt.
	Shift, ShiftDate, PostingDate string

	Confirmation *Confirmation
	Consumption  *Consumption
	Quality      *Quality
	OrderState   *ShopFloorState
	Exception    *Exception
}

// CounterRange is the counter evidence of a confirmation or a consumption; nil for what no counter measured.
func (f *Fact) CounterRange() *CounterRange {
	switch {
	case f.Confirmation != nil:
		return f.Confirmation.CounterRange
	case f.Consumption != nil:
		return f.Consumption.CounterRange
	}
	return nil
}

// OrderNo is the work order that the fact belongs to, or empty.
func (f *Fact) OrderNo() string {
	switch {
	case f.Confirmation != nil:
		return f.Confirmation.OrderNo
	case f.Consumption != nil:
		return f.Consumption.OrderNo
	case f.Quality != nil:
		return f.Quality.OrderNo
	case f.OrderState != nil:
		return f.OrderState.OrderNo
	}
	return ""
}

// Confirmation is what was produced: three separate quantities in one unit.
type Confirmation struct {
	OrderNo      string
	Operation    string
	Item         string
	Yield        decimal.Decimal
	Scrap        decimal.Decimal
	Rework       decimal.Decimal
	Unit         string
	ScrapReason  string
	Final        bool
	StartedAt    time.Time
	FinishedAt   time.Time
	CounterRange *CounterRange
	Lot          string
	Person       string
	Shift        string
	// Serial is set when the confirmation is of one piece with a number of its own. ScrapReasonText is what ScrapReason means.
	Serial, ScrapReasonText string
}

// CounterRange is the PLC evidence: raw counter values, (From, To], of one epoch.
type CounterRange struct {
	Tag, Epoch string
	From, To   decimal.Decimal
}

// Movement says which way material went.
type Movement string

// The movements.
const (
	Issue  Movement = "ISSUE"
	Return Movement = "RETURN"
)

// Consumption is material taken to an order, or given back.
type Consumption struct {
	OrderNo     string
	Operation   string
	Item        string
	Quantity    Quantity // positive in both directions
	Lot         string
	Movement    Movement
	Reservation string
	// CounterRange is set when a counter measured the quantity, such as a flow meter.
	CounterRange *CounterRange
}

// Quality is a decision on a lot, a serial number or an order.
type Quality struct {
	OrderNo, Item, Lot, Serial  string
	Status, Disposition, Reason string
	Quantity                    Quantity
}

// FloorState is how far the shop floor is with a work order.
type FloorState string

// The shop floor's states of a work order.
const (
	FloorDelivered FloorState = "DELIVERED"
	FloorAccepted  FloorState = "ACCEPTED"
	FloorRejected  FloorState = "REJECTED"
	FloorStarted   FloorState = "STARTED"
	FloorHeld      FloorState = "HELD"
	FloorFinished  FloorState = "FINISHED"
	FloorCancelled FloorState = "CANCELLED"
)

// ShopFloorState is a work order's change of state on the shop floor, or that of one of its operations.
type ShopFloorState struct {
	OrderNo   string
	Revision  int64
	State     FloorState
	Reason    string
	Operation string // empty: of the whole order
}

// Ends reports that nothing more is to come of the order, or of its operation where it names one.
func (s *ShopFloorState) Ends() bool {
	return s != nil && (s.State == FloorFinished || s.State == FloorCancelled)
}

// Exception is an input that did not become a fact.
type Exception struct {
	Code, Item, Reason, NextStep string
	Excerpt                      []byte
	// Step is set when it is about a counter that went back.
	Step *CounterStep
}

// StepOutcome is what the agent made of a counter that went back.
type StepOutcome string

// The outcomes of a step back.
const (
	StepWaits     StepOutcome = "waits"     // nothing is counted until the counter passes the last value again
	StepHeld      StepOutcome = "held"      // nothing of the step is counted, and counting goes on from the new value
	StepFromZero  StepOutcome = "from_zero" // the counter began again: all of the new value is counted
	StepCorrected StepOutcome = "corrected" // the step was taken off what was counted and not yet confirmed
)

// CounterStep is two successive values of a counter that went back.
type CounterStep struct {
	Tag, Epoch string // Epoch is that of Last
	Last, Now  decimal.Decimal
	// LastAt and At are when the two were seen, by the agent's clock; LastAt is zero where it is not known.
	LastAt, At time.Time
	// Modulus is where the counter turns over to zero, MaxPerSecond the most that it counts; zero where the rule does not say.
	Modulus, MaxPerSecond decimal.Decimal
	Booted                bool // the device says that it was started between the two
	Outcome               StepOutcome
}

// Balance is how much of an item a place holds, at one instant.
type Balance struct {
	Site, Location, Item, Lot string
	OnHand                    Quantity
	AsOf                      time.Time
	// CannotTell says why what is held there cannot be told: a unit that is not mapped, an item that the system does not keep. OnHand
	// means nothing then, and an empty place means all of them.
	CannotTell string
}
