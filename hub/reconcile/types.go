package reconcile

import (
	"time"

	"github.com/shopspring/decimal"
)

// Type says what kind of disagreement it is. The name never changes: it is stored and shown.
type Type string

// The types of discrepancies.
const (
	Duplicate      Type = "duplicate_confirmation"
	Missing        Type = "missing_confirmation"
	MovementFailed Type = "movement_failed"
	DoubleUse      Type = "double_consumption"
	UseOff         Type = "over_under_consumption"
	OverDelivery   Type = "over_delivery"
	UnitMismatch   Type = "unit_mismatch"
	PeriodClosed   Type = "period_closed"
	OrderLocked    Type = "order_locked"
	OrderClosed    Type = "order_closed_early"
	Deficit        Type = "negative_stock"
	WrongPlace     Type = "wrong_place_or_zone"
	ClockSkew      Type = "clock_skew"
	CounterReset   Type = "counter_reset"
	CounterStep    Type = "counter_decrement"
	SequenceGap    Type = "sequence_gap"
	LotMismatch    Type = "lot_mismatch"
	BalanceDrift   Type = "balance_drift"
	MasterMissing  Type = "master_data_missing"
	// SumsDiffer is beside the nineteen: the MES counts other quantities than the machines, and no fact explains it.
	SumsDiffer Type = "sums_differ"
	// WriteMissing and WriteDiffers are of business objects that were written and read back: the outside system has one no longer, or
	// has something else.
	WriteMissing Type = "write_missing"
	WriteDiffers Type = "write_differs"
)

// Types lists the nineteen types in the order in which tables show them.
func Types() []Type {
	return []Type{Duplicate, Missing, MovementFailed, DoubleUse, UseOff, OverDelivery, UnitMismatch, PeriodClosed, OrderLocked, OrderClosed,
		Deficit, WrongPlace, ClockSkew, CounterReset, CounterStep, SequenceGap, LotMismatch, BalanceDrift, MasterMissing}
}

// ByDocuments reports a type that only the outside system's documents show: while they cannot be read, nothing of it is known.
func (t Type) ByDocuments() bool {
	switch t {
	case Duplicate, Missing, MovementFailed, DoubleUse, UseOff, OverDelivery, UnitMismatch:
		return true
	}
	return false
}

// ActionKind says what would be done. Every action that changes books is made under a key of its own and has an opposite.
type ActionKind string

// The actions.
const (
	NoAction        ActionKind = ""
	LookUpAndSend   ActionKind = "look_up_and_send"    // find the effect by key, post it only when it is certainly not there
	ReverseDocument ActionKind = "reverse_document"    // make the opposite of a document
	PostMovement    ActionKind = "post_movement"       // post a goods movement that failed
	Convert         ActionKind = "reverse_and_convert" // reverse, then post in the right unit
	MoveDate        ActionKind = "post_on_open_day"    // first day of an open period, the original date in the text
	Retry           ActionKind = "retry"               // post again, as what was refused
	Reopen          ActionKind = "reopen_and_post"     // ask for the order's reopening, post, restore its state
	WaitReceipt     ActionKind = "wait_for_receipt"    // then retry in causal order
	FixDate         ActionKind = "recompute_date"      // a date by the wrong zone, before it is posted
	Estimate        ActionKind = "mark_estimated"      // sequence and the agent's time count
	CountRollover   ActionKind = "count_rollover"
	CountFromZero   ActionKind = "count_from_zero"
	Correct         ActionKind = "correct_last_counts"
	Replay          ActionKind = "replay_buffer" // ask the agent for the records again
	ReadAgain       ActionKind = "read_again"
	PullMaster      ActionKind = "pull_master_data"
	Ask             ActionKind = "ask" // a person decides; the text of the finding says what
)

// changesBooks reports that an action makes or takes back an effect in the outside system: only these count against limits.
func (k ActionKind) changesBooks() bool {
	switch k {
	case LookUpAndSend, ReverseDocument, PostMovement, Convert, MoveDate, Reopen:
		return true
	}
	return false
}

// Undo is the action that takes another back; NoAction where nothing was changed in any books.
func (k ActionKind) Undo() ActionKind {
	switch k {
	case LookUpAndSend, PostMovement, Convert, MoveDate, Reopen:
		return ReverseDocument
	case ReverseDocument:
		return LookUpAndSend
	}
	return NoAction
}

// Action is what is proposed.
type Action struct {
	Kind     ActionKind      `json:"kind"`
	Fact     string          `json:"fact,omitempty"`
	Write    string          `json:"write,omitempty"` // the key of a write of a business object
	Document string          `json:"document,omitempty"`
	Item     string          `json:"item,omitempty"`
	Quantity decimal.Decimal `json:"quantity"`
	Unit     string          `json:"unit,omitempty"`
	Text     string          `json:"text"`
}

// Side is what one system says.
type Side struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// Evidence is one thing that shows the disagreement: a fact, a document, a counter's value.
type Evidence struct {
	Kind string `json:"kind"` // fact, document, counter, order, balance, write
	Ref  string `json:"ref"`
	Text string `json:"text"`
}

// Severity says how much it matters.
type Severity string

// The severities.
const (
	Low    Severity = "low"
	Medium Severity = "medium"
	High   Severity = "high"
)

// Owner is the role that has to decide when nothing heals by itself.
type Owner string

// The owners.
const (
	Production  Owner = "production"
	Controlling Owner = "controlling"
	Planning    Owner = "planning"
	Warehouse   Owner = "warehouse"
	Quality     Owner = "quality"
	Masterdata  Owner = "master data"
	Automation  Owner = "automation"
)

// Finding is one disagreement as it is seen now.
type Finding struct {
	Type        Type
	Subject     string // what it is about; with Type the identity of a discrepancy
	Plant       string
	ERP         string
	OrderNo     string
	Left, Right Side
	Delta       decimal.Decimal
	Unit        string
	Item        string
	Severity    Severity
	Owner       Owner
	Facts       []string
	Evidence    []Evidence
	// Proposed is the action of the rules, whether it may be done without a person or not. Heal says that the rules allow it
	// without one; Decide has the last word. Escalate says that a person has to be told at once, and Why.
	Proposed Action
	Heal     bool
	Escalate bool
	Why      string
	// Done says what was done about it where it happened, by rules of the plant's own; nothing is left to do then.
	Done string `json:",omitempty"`
	// Since is when the disagreement began as far as it can be told.
	Since time.Time
}
