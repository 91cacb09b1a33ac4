package object

import "time"

// EffectState says how far a document of an outside system is.
type EffectState string

// The states of an effect.
const (
	EffectBooked  EffectState = "booked"
	EffectPending EffectState = "pending" // accepted, not in the books yet: a queue, a draft
)

// Effect is one document that an outside system holds for a work order, as it was read from there.
type Effect struct {
	Number, ID string
	// Key is the 16-character key of the fact that it was made for; empty when it carries none.
	Key string
	// Reverses and ReversedBy are numbers of other documents.
	Reverses, ReversedBy string
	Kind                 Kind
	OrderNo, Operation   string
	State                EffectState
	// Interim: it confirms an operation before the order's last one. What it yields neither comes into stock nor counts as what
	// the order made.
	Interim bool
	// Quantities are the document's own, below zero where it takes something back.
	Quantities []EffectQuantity
	// Movements are the goods movements that belong to it, the failed ones among them.
	Movements []EffectMovement
	// PostingDate is the date of the books, such as 2026-11-26. BookedAt is when the system made the document, zero when it
	// does not tell.
	PostingDate string
	BookedAt    time.Time
	User        string
}

// EffectQuantity is one quantity of a document.
type EffectQuantity struct {
	Kind QuantityKind
	Item string
	Quantity
}

// EffectMovement is one goods movement of a document.
type EffectMovement struct {
	Kind QuantityKind // Yield for a receipt from the order, Consumed or Returned for material
	Item string
	Lot  string
	Quantity
	// Backflush: the system made it by itself, from the parts list.
	Backflush bool
	// Document is the number by which this movement alone can be taken back; empty where that takes back all of the effect.
	Document string
	// Failed: it is not in the books; Code and Reason say why.
	Failed       bool
	Code, Reason string
}
