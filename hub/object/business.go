package object

import (
	"fmt"

	"github.com/shopspring/decimal"
)

// BusinessKind is the kind of a business object.
type BusinessKind string

// The kinds of business objects.
const (
	BusinessItem     BusinessKind = "item"
	BusinessParty    BusinessKind = "party"
	BusinessPurchase BusinessKind = "purchase_order"
	BusinessSale     BusinessKind = "sales_order"
	BusinessShipment BusinessKind = "shipment"
	BusinessInvoice  BusinessKind = "invoice"
	BusinessCount    BusinessKind = "cycle_count"
	BusinessMovement BusinessKind = "inventory_movement"
)

// Business is one business object. Exactly the field of its Kind is set.
type Business struct {
	Kind     BusinessKind
	Item     *Item
	Party    *Party
	Purchase *PurchaseOrder
	Sale     *SalesOrder
	Shipment *Shipment
	Invoice  *Invoice
	Count    *CycleCount
	Movement *InventoryMovement
}

// Names are how a business object is known.
type Names struct {
	Number    string
	Reference string
	State     string
	Held
}

// Names of the object; empty when the field of its kind is not set.
func (b Business) Names() Names {
	switch {
	case b.Item != nil:
		return Names{b.Item.Item, "", "", b.Item.Held}
	case b.Party != nil:
		return Names{b.Party.Party, "", "", b.Party.Held}
	case b.Purchase != nil:
		return Names{b.Purchase.Number, b.Purchase.Reference, string(b.Purchase.State), b.Purchase.Held}
	case b.Sale != nil:
		return Names{b.Sale.Number, b.Sale.Reference, string(b.Sale.State), b.Sale.Held}
	case b.Shipment != nil:
		return Names{b.Shipment.Number, b.Shipment.Reference, string(b.Shipment.State), b.Shipment.Held}
	case b.Invoice != nil:
		return Names{b.Invoice.Number, b.Invoice.Reference, string(b.Invoice.State), b.Invoice.Held}
	case b.Count != nil:
		return Names{b.Count.Number, "", string(b.Count.State), b.Count.Held}
	case b.Movement != nil:
		return Names{b.Movement.Number, "", "", b.Movement.Held}
	}
	return Names{}
}

// Lines is how many lines the object has; 0 for one that has none.
func (b Business) Lines() int {
	switch {
	case b.Purchase != nil:
		return len(b.Purchase.Lines)
	case b.Sale != nil:
		return len(b.Sale.Lines)
	case b.Shipment != nil:
		return len(b.Shipment.Lines)
	case b.Invoice != nil:
		return len(b.Invoice.Lines)
	case b.Count != nil:
		return len(b.Count.Lines)
	}
	return 0
}

// Check names what is wrong with the object.
func (b Business) Check() error {
	if err := b.Shape(); err != nil {
		return err
	}
	switch b.Kind {
	case BusinessItem:
		return b.Item.Check()
	case BusinessParty:
		return b.Party.Check()
	case BusinessPurchase:
		return b.Purchase.Check()
	case BusinessSale:
		return b.Sale.Check()
	case BusinessShipment:
		return b.Shipment.Check()
	case BusinessInvoice:
		return b.Invoice.Check()
	case BusinessCount:
		return b.Count.Check()
	}
	return b.Movement.Check()
}

// Shape checks only that exactly the field of the object's kind is set.
func (b Business) Shape() error {
	set, own := 0, false
	for kind, is := range map[BusinessKind]bool{
		BusinessItem: b.Item != nil, BusinessParty: b.Party != nil, BusinessPurchase: b.Purchase != nil, BusinessSale: b.Sale != nil,
		BusinessShipment: b.Shipment != nil, BusinessInvoice: b.Invoice != nil, BusinessCount: b.Count != nil, BusinessMovement: b.Movement != nil,
	} {
		if is {
			set, own = set+1, own || kind == b.Kind
		}
	}
	if set != 1 || !own {
		return fmt.Errorf("business object of kind %q has %d fields set; want the one of its kind", b.Kind, set)
	}
	return nil
}

// Difference compares what was asked for with what a system holds, and says in a sentence what is different; empty when
// nothing is. What b does not state (an empty text, no state) is not compared. Lines are compared by what they are of, summed:
// a system may number and split them as it likes.
func (b Business) Difference(held Business) string {
	if b.Kind != held.Kind {
		return fmt.Sprintf("it is of kind %q, not %q", held.Kind, b.Kind)
	}
	switch {
	case b.Purchase != nil && held.Purchase != nil:
		return b.Purchase.difference(*held.Purchase)
	case b.Sale != nil && held.Sale != nil:
		return b.Sale.difference(*held.Sale)
	case b.Shipment != nil && held.Shipment != nil:
		return b.Shipment.difference(*held.Shipment)
	case b.Invoice != nil && held.Invoice != nil:
		return b.Invoice.difference(*held.Invoice)
	case b.Count != nil && held.Count != nil:
		return b.Count.difference(*held.Count)
	}
	return fmt.Sprintf("objects of kind %q are not compared", b.Kind)
}

// texts compares pairs of wanted and held texts, each with its name.
func texts(named ...string) string {
	for i := 0; i+2 < len(named); i += 3 {
		if name, want, held := named[i], named[i+1], named[i+2]; want != "" && want != held {
			return fmt.Sprintf("its %s is %q, not %q", name, held, want)
		}
	}
	return ""
}

// what is what lines are summed by.
type what struct{ order, line, item, lot, unit string }

func (w what) String() string {
	s := fmt.Sprintf("%s of item %q", w.unit, w.item)
	if w.lot != "" {
		s += fmt.Sprintf(", lot %q", w.lot)
	}
	if w.order != "" {
		s += fmt.Sprintf(", order %q line %q", w.order, w.line)
	}
	return s
}

// sums keeps quantities in the order in which they were added.
type sums struct {
	keys []what
	of   map[what]decimal.Decimal
}

func (s *sums) add(w what, q decimal.Decimal) {
	if s.of == nil {
		s.of = map[what]decimal.Decimal{}
	}
	if _, ok := s.of[w]; !ok {
		s.keys = append(s.keys, w)
	}
	s.of[w] = s.of[w].Add(q)
}

// difference compares quantities both ways, where any were asked for.
func (s sums) difference(held sums) string {
	if len(s.keys) == 0 {
		return ""
	}
	for _, w := range s.keys {
		if !s.of[w].Equal(held.of[w]) {
			return fmt.Sprintf("it holds %s %s, not %s", held.of[w], w, s.of[w])
		}
	}
	for _, w := range held.keys {
		if _, ok := s.of[w]; !ok && !held.of[w].IsZero() {
			return fmt.Sprintf("it holds %s %s, which was not asked for", held.of[w], w)
		}
	}
	return ""
}

// first returns the first sentence that is not empty.
func first(sentences ...string) string {
	for _, s := range sentences {
		if s != "" {
			return s
		}
	}
	return ""
}

func notThere(reached bool, want, state string) string {
	if want == "" || reached {
		return ""
	}
	return fmt.Sprintf("it is %s, not %s", state, want)
}

// priced is a line of an order with its price.
type priced struct {
	item  string
	of    Quantity
	price UnitPrice
}

// differPriced compares the lines of orders. Prices are compared where an item stands in one line only.
func differPriced(want, held []priced) string {
	var asked, got sums
	prices, times := map[what]UnitPrice{}, map[what]int{}
	for _, l := range want {
		w := what{item: l.item, unit: l.of.Unit}
		asked.add(w, l.of.Value)
		prices[w] = l.price
		times[w]++
	}
	price := ""
	for _, l := range held {
		w := what{item: l.item, unit: l.of.Unit}
		got.add(w, l.of.Value)
		if p := prices[w]; times[w] == 1 && !p.Same(l.price) {
			price = fmt.Sprintf("item %q costs %s, not %s", l.item, l.price, p)
		}
	}
	return first(asked.difference(got), price)
}

func (o PurchaseOrder) priced() (lines []priced) {
	for _, l := range o.Lines {
		lines = append(lines, priced{l.Item, l.Ordered, l.Price})
	}
	return lines
}

func (o SalesOrder) priced() (lines []priced) {
	for _, l := range o.Lines {
		lines = append(lines, priced{l.Item, l.Ordered, l.Price})
	}
	return lines
}

func (o PurchaseOrder) difference(held PurchaseOrder) string {
	return first(texts("number", o.Number, held.Number, "supplier", o.Supplier, held.Supplier, "reference", o.Reference, held.Reference,
		"currency", o.Currency, held.Currency, "order date", o.OrderDate, held.OrderDate),
		differPriced(o.priced(), held.priced()), notThere(held.State.Reached(o.State), string(o.State), string(held.State)))
}

func (o SalesOrder) difference(held SalesOrder) string {
	return first(texts("number", o.Number, held.Number, "customer", o.Customer, held.Customer, "reference", o.Reference, held.Reference,
		"currency", o.Currency, held.Currency, "order date", o.OrderDate, held.OrderDate),
		differPriced(o.priced(), held.priced()), notThere(held.State.Reached(o.State), string(o.State), string(held.State)))
}

func (s Shipment) difference(held Shipment) string {
	var want, got sums
	orders, orderLines, lots := false, false, false
	for _, l := range s.Lines {
		orders, orderLines, lots = orders || l.OrderNo != "", orderLines || l.OrderLine != "", lots || l.Lot != ""
	}
	of := func(l ShipmentLine) what {
		w := what{item: l.Item, unit: l.Quantity.Unit}
		if orders {
			w.order = l.OrderNo
		}
		if orderLines {
			w.line = l.OrderLine
		}
		if lots {
			w.lot = l.Lot
		}
		return w
	}
	for _, l := range s.Lines {
		want.add(of(l), l.Quantity.Value)
	}
	for _, l := range held.Lines {
		got.add(of(l), l.Quantity.Value)
	}
	return first(texts("number", s.Number, held.Number, "direction", string(s.Direction), string(held.Direction), "partner", s.Partner, held.Partner,
		"reference", s.Reference, held.Reference, "start", s.From, held.From, "destination", s.To, held.To, "date", s.EffectiveOn, held.EffectiveOn),
		want.difference(got), notThere(held.State.Reached(s.State), string(s.State), string(held.State)))
}

func (v Invoice) difference(held Invoice) string {
	var want, got, wantNet, gotNet sums
	orders, orderLines := false, false
	for _, l := range v.Lines {
		orders, orderLines = orders || l.OrderNo != "", orderLines || l.OrderLine != ""
	}
	of := func(l InvoiceLine) what {
		w := what{item: l.Item, unit: l.Quantity.Unit}
		if orders {
			w.order = l.OrderNo
		}
		if orderLines {
			w.line = l.OrderLine
		}
		return w
	}
	money := func(l InvoiceLine) what { // prices are compared by what the lines cost
		w := of(l)
		w.unit = v.Currency + " for " + w.unit
		return w
	}
	cost := func(l InvoiceLine) decimal.Decimal {
		if l.Price.Per.Value.IsZero() {
			return decimal.Zero
		}
		return l.Price.Price.Amount.Mul(l.Quantity.Value).Div(l.Price.Per.Value)
	}
	for _, l := range v.Lines {
		want.add(of(l), l.Quantity.Value)
		wantNet.add(money(l), cost(l))
	}
	for _, l := range held.Lines {
		got.add(of(l), l.Quantity.Value)
		gotNet.add(money(l), cost(l))
	}
	total := ""
	if !v.Gross.IsZero() && !v.Gross.Equal(held.Gross) {
		total = fmt.Sprintf("its gross total is %s, not %s", held.Gross, v.Gross)
	}
	return first(texts("number", v.Number, held.Number, "direction", string(v.Direction), string(held.Direction), "kind", string(v.Kind), string(held.Kind),
		"partner", v.Partner, held.Partner, "reference", v.Reference, held.Reference, "currency", v.Currency, held.Currency,
		"invoice date", v.InvoiceDate, held.InvoiceDate),
		want.difference(got), wantNet.difference(gotNet), total, notThere(held.State.Reached(v.State), string(v.State), string(held.State)))
}

func (c CycleCount) difference(held CycleCount) string {
	type line struct{ item, lot, unit string }
	got := map[line]CountLine{}
	for _, l := range held.Lines {
		got[line{l.Item, l.Lot, l.Unit}] = l
	}
	for _, l := range c.Lines {
		found, counted := l.Found()
		g, there := got[line{l.Item, l.Lot, l.Unit}]
		has, ok := g.Found()
		if counted && (!there || !ok || !has.Equal(found)) {
			return fmt.Sprintf("it holds %s %s of item %q, lot %q, not %s", has, l.Unit, l.Item, l.Lot, found)
		}
		if counted && c.State == CountPosted && held.State == CountPosted && !g.Posted.Equal(g.Difference()) {
			return fmt.Sprintf("a difference of %s %s of item %q, lot %q was booked, not %s", g.Posted, l.Unit, l.Item, l.Lot, g.Difference())
		}
	}
	return first(texts("number", c.Number, held.Number, "location", c.Location, held.Location, "date", c.CountedOn, held.CountedOn),
		notThere(held.State.Reached(c.State), string(c.State), string(held.State)))
}
