package s4double

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
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
