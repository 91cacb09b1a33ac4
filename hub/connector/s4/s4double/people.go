package s4double

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// ConfirmByHand is what a person confirms in the system's own screens, without any key.
func (s *System) ConfirmByHand(order, operation, yield string) error {
	body, err := json.Marshal(row{"OrderID": order, "OrderOperation": operation, "ConfirmationYieldQuantity": yield})
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, f := s.confirm(body); f != nil {
		return f
	}
	return nil
}

// Again books a confirmation and the material documents of a reference once more as they are, as when a gateway has sent their
// requests twice.
func (s *System) Again(uuid, ref string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	confs, docs := s.confByKey[strings.ToLower(uuid)], s.docByRef[strings.ToUpper(ref)]
	if len(confs)+len(docs) == 0 {
		return fmt.Errorf("nothing is booked under %s or %s", uuid, ref)
	}
	for _, old := range slices.Clone(confs) {
		o := s.orders[old.order]
		i := slices.IndexFunc(o.Operations, func(op Operation) bool { return op.Number == old.operation })
		c := &confirmation{order: old.order, operation: old.operation, yield: old.yield, scrap: old.scrap, values: maps.Clone(old.values)}
		var moves []*movement
		for _, ref := range old.items {
			m := *ref.doc.items[ref.item]
			moves = append(moves, &m)
		}
		s.complete(o, i, c)
		s.keep(o, i, c)
		s.bookFor(c, moves)
	}
	for _, old := range slices.Clone(docs) {
		d := &document{ref: old.ref, text: old.text, code: old.code, posting: old.posting, documents: old.documents}
		for _, item := range old.items {
			m := *item
			d.items = append(d.items, &m)
			s.apply(&m)
		}
		s.file(d)
	}
	return nil
}

// Shelf is where stock lies in a plant, and as what; unrestricted when Type is empty.
type Shelf struct{ Location, Batch, Type, Special string }

func (h Shelf) of(material, plant string) place {
	if h.Type == "" {
		h.Type = Unrestricted
	}
	return place{material, plant, h.Location, h.Batch, h.Type, h.Special}
}

// Transfer is what a person moves from one shelf to another, past all orders. A shelf without a location is out of the plant.
func (s *System) Transfer(material, plant string, from, to Shelf, quantity decimal.Decimal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if from.Location != "" {
		s.stock[from.of(material, plant)] = s.stock[from.of(material, plant)].Sub(quantity)
	}
	if to.Location != "" {
		s.stock[to.of(material, plant)] = s.stock[to.of(material, plant)].Add(quantity)
	}
}

// Entry is a quantity as somebody entered it.
type Entry struct {
	Quantity      decimal.Decimal
	Unit, UnitISO string
}

// IssueByHand is what a person takes to an order of a material in a unit of choice, without any key; quantity is that in the material's own.
func (s *System) IssueByHand(order, material, location string, quantity decimal.Decimal, as Entry) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.orders[order]
	if o == nil {
		return fmt.Errorf("order %q does not exist", order)
	}
	m := &movement{kind: "261", material: material, plant: o.Plant, location: location, order: order, quantity: quantity, entered: &as, refType: "B"}
	today := s.now().Format(time.DateOnly)
	if f := s.possible(m, today); f != nil {
		return f
	}
	s.apply(m)
	s.file(&document{posting: today, documents: today, code: "03", items: []*movement{m}})
	return nil
}

// Moved is one goods movement in the books.
type Moved struct{ Type, Material, Reservation string }

// Movements are the goods movements of an order in the order in which they were booked.
func (s *System) Movements(order string) (all []Moved) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	for _, d := range s.docs {
		for _, m := range d.items {
			if m.order == order {
				all = append(all, Moved{m.kind, m.material, m.reservation})
			}
		}
	}
	return all
}
