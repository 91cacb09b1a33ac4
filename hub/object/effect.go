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
	// Stock is what the document has moved by now into stocks, above zero, and out of them, where the system tells that by place and in
	// the unit in which it holds the item. Nil where it does not: Movements then say it.
	Stock []StockMovement
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

// StockMovement is what went into a stock, or out of it (below zero).
type StockMovement struct {
	Site, Location, Item, Lot string
	Quantity
}

// StockMoves is what a document has moved of stocks; site is that of its order. Where the system does not tell the place, Location is
// empty, and the unit is the document's. What failed or waits to be booked has moved nothing.
func (e *Effect) StockMoves(site string) []StockMovement {
	if e.Stock != nil || e.State == EffectPending {
		return e.Stock
	}
	var all []StockMovement
	for _, m := range e.Movements {
		q, moves := m.Kind.Stocked(m.Value)
		if m.Failed || !moves || e.Interim && m.Kind == Yield {
			continue
		}
		all = append(all, StockMovement{Site: site, Item: m.Item, Lot: m.Lot, Quantity: Quantity{Value: q, Unit: m.Unit}})
	}
	return all
}
