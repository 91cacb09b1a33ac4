package object

import "slices"

// What takes a receipt from an order, or a by-product of it, out of stock again. An inventory movement never has these kinds: they
// are for MovementTypes.
const (
	ReceiptReversal   MovementKind = "RECEIPT_REVERSAL"
	ByProductReversal MovementKind = "BY_PRODUCT_REVERSAL"
)

// OrderMovements lists the kinds of movements that postings on work orders make.
func OrderMovements() []MovementKind {
	return []MovementKind{IssueToOrder, ReturnFromOrder, ReceiptFromOrder, ReceiptReversal, ByProduct, ByProductReversal}
}

// MovementKinds lists all kinds of movements.
func MovementKinds() []MovementKind {
	return append(OrderMovements(), ReceiptFromPO, ReturnToSupplier, ScrapMovement, Transfer, CountGain, CountLoss, IssueToDelivery, ReturnFromCustomer)
}

// Back is the kind that takes a movement on a work order back; empty for others.
func (k MovementKind) Back() MovementKind {
	i := slices.Index(OrderMovements(), k)
	if i < 0 {
		return ""
	}
	return OrderMovements()[i^1] // they stand in pairs
}

// Moves is the movement that a fact is about: what a consumption says, or the receipt of a confirmation's yield; empty for others.
func (f *Fact) Moves() MovementKind {
	switch {
	case f.Consumption != nil && f.Consumption.Movement == Return:
		return ReturnFromOrder
	case f.Consumption != nil:
		return IssueToOrder
	case f.Confirmation != nil && f.Confirmation.Yield.IsPositive():
		return ReceiptFromOrder
	}
	return ""
}

// MovementTypes are an outside system's own types of goods movements, as a mapping says them. Nil is where none is in force.
type MovementTypes struct {
	Types map[MovementKind]string `json:"types,omitempty"`
	// Set and Version name what stops a movement that is not among Types; Set is empty where that keeps the connector's own type.
	Set     string `json:"set,omitempty"`
	Version int    `json:"version,omitempty"`
}

// Of is the type of a movement: own where no mapping is in force, or where it keeps what it does not list. It is false for one that
// has to stop.
func (t *MovementTypes) Of(k MovementKind, own string) (string, bool) {
	if t == nil {
		return own, true
	}
	if to, ok := t.Types[k]; ok {
		return to, true
	}
	return own, t.Set == ""
}

// Kind is the movement on a work order that a type means; empty where no mapping says so.
func (t *MovementTypes) Kind(of string) MovementKind {
	if t != nil && of != "" {
		for _, k := range OrderMovements() {
			if t.Types[k] == of {
				return k
			}
		}
	}
	return ""
}
