package object

// Stands compares what was asked for, and was there, with what a system holds of it later on, and says in a sentence why it does not
// stand any more; empty when it does. What people have done with it since is no difference:
//
//   - a purchase or sale that is further on (acknowledged, received, shipped, invoiced, closed) stands, one that was cancelled does not;
//   - a shipment stands by what it moves once goods have moved, and is people's to change before that;
//   - an invoice stands by its lines once it is posted, also when it was paid, or taken back by another document;
//   - a count stands by what was counted once its differences are booked.
//
// Of what was wanted as a draft, or planned, only that it is there: it is there to be worked on.
func (b Business) Stands(held Business) string {
	want := b
	if !b.binds() {
		want = b.bare()
	}
	if v := held.Invoice; v != nil && (v.State == InvoiceReversed || v.State == InvoiceCredited) {
		posted := *v
		posted.State = InvoicePosted // it was; what took it back is a document of its own
		held.Invoice = &posted
	}
	return want.Difference(held)
}

// binds reports whether the state is one in which the content is settled.
func (b Business) binds() bool {
	switch {
	case b.Purchase != nil:
		return b.Purchase.State != PurchaseDraft
	case b.Sale != nil:
		return b.Sale.State != SalesDraft
	case b.Shipment != nil:
		return b.Shipment.State.Reached(ShipmentGoodsIssued)
	case b.Invoice != nil:
		return b.Invoice.State.Reached(InvoicePosted)
	case b.Count != nil:
		return b.Count.State == CountPosted
	}
	return true
}

// bare is the object with nothing but its state.
func (b Business) bare() Business {
	switch {
	case b.Purchase != nil:
		b.Purchase = &PurchaseOrder{State: b.Purchase.State}
	case b.Sale != nil:
		b.Sale = &SalesOrder{State: b.Sale.State}
	case b.Shipment != nil:
		b.Shipment = &Shipment{State: b.Shipment.State}
	case b.Invoice != nil:
		b.Invoice = &Invoice{State: b.Invoice.State}
	case b.Count != nil:
		b.Count = &CycleCount{State: b.Count.State}
	}
	return b
}

// Withdrawn reports whether the object is wanted to be without effect: cancelled.
func (b Business) Withdrawn() bool {
	return b.Names().State == string(PurchaseCancelled) // each kind has the same word for it
}
