package object

import "slices"

// lifecycle is a state machine. A chain is gone along in one direction, and steps of it may be left out: not every system
// knows every state. Ways are what is allowed besides.
type lifecycle[S ~string] struct {
	chain []S
	ways  map[S][]S
}

// may reports whether the step is allowed. Staying where it is, is no step, and allowed in every state that there is.
func (l lifecycle[S]) may(from, to S) bool {
	if from == to {
		return l.knows(from)
	}
	if slices.Contains(l.ways[from], to) {
		return true
	}
	a, b := slices.Index(l.chain, from), slices.Index(l.chain, to)
	return a >= 0 && b > a
}

func (l lifecycle[S]) knows(s S) bool {
	if slices.Contains(l.chain, s) {
		return true
	}
	for from, to := range l.ways {
		if from == s || slices.Contains(to, s) {
			return true
		}
	}
	return false
}

// reached reports whether a thing in state is where want says, or further along the chain.
func (l lifecycle[S]) reached(want, state S) bool {
	a, b := slices.Index(l.chain, want), slices.Index(l.chain, state)
	return want == state || a >= 0 && b >= a
}

// before lists the states of the chain that come before s.
func (l lifecycle[S]) before(s S) []S { return l.chain[:slices.Index(l.chain, s)] }

// cancellable lets every state before one become cancelled.
func (l lifecycle[S]) cancellable(before, cancelled S) lifecycle[S] {
	if l.ways == nil {
		l.ways = map[S][]S{}
	}
	for _, s := range l.before(before) {
		l.ways[s] = append(l.ways[s], cancelled)
	}
	return l
}

var orderLife = lifecycle[OrderState]{
	chain: []OrderState{OrderPlanned, OrderReleased, OrderInProgress, OrderCompleted, OrderClosed},
	ways: map[OrderState][]OrderState{
		OrderReleased:   {OrderPlanned, OrderHeld},
		OrderInProgress: {OrderReleased, OrderHeld},
		OrderHeld:       {OrderReleased, OrderInProgress, OrderCancelled},
		OrderCompleted:  {OrderReleased}, // reopened
	},
}.cancellable(OrderCompleted, OrderCancelled)

// MayBecome reports whether a work order may go from one state to the other.
func (s OrderState) MayBecome(next OrderState) bool { return orderLife.may(s, next) }

// Over reports that nothing more is expected of an order: it is completed, closed or cancelled.
func (s OrderState) Over() bool {
	return s == OrderCompleted || s == OrderClosed || s == OrderCancelled
}

var purchaseLife = lifecycle[PurchaseState]{
	chain: []PurchaseState{PurchaseDraft, PurchaseSent, PurchaseAcknowledged, PurchasePartShipped, PurchaseShipped,
		PurchasePartReceived, PurchaseReceived, PurchaseInvoiced, PurchaseClosed},
	ways: map[PurchaseState][]PurchaseState{
		PurchaseAcknowledged: {PurchaseSent}, // a change was sent: the next revision is to be acknowledged
		PurchasePartReceived: {PurchaseShipped},
		PurchaseCancelled:    {PurchaseDraft},
	},
}.cancellable(PurchasePartReceived, PurchaseCancelled)

// MayBecome reports whether a purchase order, or a line of one, may go from one state to the other.
func (s PurchaseState) MayBecome(next PurchaseState) bool { return purchaseLife.may(s, next) }

// Reached reports whether a purchase order in state s is as far as want.
func (s PurchaseState) Reached(want PurchaseState) bool { return purchaseLife.reached(want, s) }

var salesLife = lifecycle[SalesState]{
	chain: []SalesState{SalesDraft, SalesConfirmed, SalesPartShipped, SalesShipped, SalesInvoiced, SalesClosed},
	ways:  map[SalesState][]SalesState{SalesCancelled: {SalesDraft}},
}.cancellable(SalesPartShipped, SalesCancelled)

// MayBecome reports whether a sales order, or a line of one, may go from one state to the other.
func (s SalesState) MayBecome(next SalesState) bool { return salesLife.may(s, next) }

// Reached reports whether a sales order in state s is as far as want.
func (s SalesState) Reached(want SalesState) bool { return salesLife.reached(want, s) }

var shipmentLife = lifecycle[ShipmentState]{
	chain: []ShipmentState{ShipmentPlanned, ShipmentTendered, ShipmentAccepted, ShipmentPicked, ShipmentPacked, ShipmentGoodsIssued,
		ShipmentInTransit, ShipmentArrived, ShipmentDelivered, ShipmentProved},
	ways: map[ShipmentState][]ShipmentState{
		ShipmentTendered: {ShipmentDeclined},
		ShipmentDeclined: {ShipmentTendered, ShipmentCancelled},
		ShipmentPicked:   {ShipmentPlanned}, // put back
	},
}.cancellable(ShipmentGoodsIssued, ShipmentCancelled)

// MayBecome reports whether a shipment may go from one state to the other.
func (s ShipmentState) MayBecome(next ShipmentState) bool { return shipmentLife.may(s, next) }

// Reached reports whether a shipment in state s is as far as want.
func (s ShipmentState) Reached(want ShipmentState) bool { return shipmentLife.reached(want, s) }

var invoiceLife = lifecycle[InvoiceState]{
	chain: []InvoiceState{InvoiceReceived, InvoiceValidated, InvoiceMatching, InvoiceMatched, InvoiceApproved, InvoicePosted, InvoicePaid},
	ways: map[InvoiceState][]InvoiceState{
		InvoiceValidated: {InvoiceDuplicate},
		InvoiceMatching:  {InvoiceBlocked},
		InvoiceMatched:   {InvoiceMatching}, // a receipt was taken back
		InvoiceBlocked:   {InvoiceMatching, InvoiceApproved, InvoiceCancelled},
		InvoiceDuplicate: {InvoiceCancelled},
		InvoicePosted:    {InvoiceReversed, InvoiceCredited},
		InvoicePaid:      {InvoicePosted, InvoiceCredited}, // a payment bounced
	},
}.cancellable(InvoicePosted, InvoiceCancelled)

// MayBecome reports whether an invoice may go from one state to the other.
func (s InvoiceState) MayBecome(next InvoiceState) bool { return invoiceLife.may(s, next) }

// Reached reports whether an invoice in state s is as far as want.
func (s InvoiceState) Reached(want InvoiceState) bool { return invoiceLife.reached(want, s) }

var countLife = lifecycle[CountState]{
	chain: []CountState{CountCreated, CountCounted, CountPosted},
	ways: map[CountState][]CountState{
		CountCounted: {CountRecount},
		CountRecount: {CountCounted, CountCancelled},
	},
}.cancellable(CountPosted, CountCancelled)

// MayBecome reports whether a cycle count may go from one state to the other.
func (s CountState) MayBecome(next CountState) bool { return countLife.may(s, next) }

// Reached reports whether a cycle count in state s is as far as want.
func (s CountState) Reached(want CountState) bool { return countLife.reached(want, s) }
