package object

import "slices"

// WorkOrderKind is the kind of a link to a work order, which is no business object of its own.
const WorkOrderKind BusinessKind = "work_order"

// Link is another object that an object names.
type Link struct {
	Kind   BusinessKind
	Number string
}

// Links are the objects that an object names, each once: the orders that a shipment fulfils, the orders and receipts of an
// invoice, what a movement was for.
func (b Business) Links() (all []Link) {
	add := func(kind BusinessKind, number string) {
		if l := (Link{kind, number}); number != "" && kind != "" && !slices.Contains(all, l) {
			all = append(all, l)
		}
	}
	switch {
	case b.Shipment != nil:
		for _, l := range b.Shipment.Lines {
			add(orderKind(b.Shipment.Direction), l.OrderNo)
		}
	case b.Invoice != nil:
		for _, l := range b.Invoice.Lines {
			add(orderKind(b.Invoice.Direction), l.OrderNo)
			for _, r := range l.Receipts {
				add(BusinessShipment, r)
			}
		}
	case b.Movement != nil:
		order, document := b.Movement.Kind.about()
		add(order, b.Movement.OrderNo)
		add(document, b.Movement.Document)
	}
	return all
}

// orderKind is the kind of the orders that goods or invoices of a direction belong to.
func orderKind(d Direction) BusinessKind {
	switch d {
	case Inbound:
		return BusinessPurchase
	case Outbound:
		return BusinessSale
	}
	return ""
}

// about says of what kind the order and the document of a movement are.
func (k MovementKind) about() (order, document BusinessKind) {
	switch k {
	case IssueToOrder, ReturnFromOrder, ReceiptFromOrder, ByProduct, ScrapMovement:
		return WorkOrderKind, ""
	case ReceiptFromPO, ReturnToSupplier:
		return BusinessPurchase, BusinessShipment
	case IssueToDelivery, ReturnFromCustomer:
		return BusinessSale, BusinessShipment
	case CountGain, CountLoss:
		return "", BusinessCount
	case Transfer:
		return "", BusinessShipment
	}
	return "", ""
}

// Partner is the party that an object is of, empty for one without.
func (b Business) Partner() string {
	switch {
	case b.Purchase != nil:
		return b.Purchase.Supplier
	case b.Sale != nil:
		return b.Sale.Customer
	case b.Shipment != nil:
		return b.Shipment.Partner
	case b.Invoice != nil:
		return b.Invoice.Partner
	}
	return ""
}

// Held gives access to who holds the object, nil when the field of its kind is not set.
func (b Business) Held() *Held {
	switch {
	case b.Item != nil:
		return &b.Item.Held
	case b.Party != nil:
		return &b.Party.Held
	case b.Purchase != nil:
		return &b.Purchase.Held
	case b.Sale != nil:
		return &b.Sale.Held
	case b.Shipment != nil:
		return &b.Shipment.Held
	case b.Invoice != nil:
		return &b.Invoice.Held
	case b.Count != nil:
		return &b.Count.Held
	case b.Movement != nil:
		return &b.Movement.Held
	}
	return nil
}

// LineQuantity is how much of an item a line is about.
type LineQuantity struct {
	Item string
	Quantity
}

// Quantities are those of the lines: ordered, moved, invoiced or counted.
func (b Business) Quantities() (all []LineQuantity) {
	add := func(item string, q Quantity) { all = append(all, LineQuantity{item, q}) }
	switch {
	case b.Purchase != nil:
		for _, l := range b.Purchase.Lines {
			add(l.Item, l.Ordered)
		}
	case b.Sale != nil:
		for _, l := range b.Sale.Lines {
			add(l.Item, l.Ordered)
		}
	case b.Shipment != nil:
		for _, l := range b.Shipment.Lines {
			add(l.Item, l.Quantity)
		}
	case b.Invoice != nil:
		for _, l := range b.Invoice.Lines {
			add(l.Item, l.Quantity)
		}
	case b.Count != nil:
		for _, l := range b.Count.Lines {
			if found, ok := l.Found(); ok {
				add(l.Item, Quantity{found, l.Unit})
			}
		}
	}
	return all
}
