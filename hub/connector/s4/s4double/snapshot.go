package s4double

import (
	"maps"
	"slices"

	"github.com/shopspring/decimal"
)

// Snapshot is a copy of a system's books at one instant, as a backup is.
type Snapshot struct{ of books }

// books is what a backup holds: everything but sessions, locks and traps.
type books struct {
	materials    map[string]Material
	stock        map[place]decimal.Decimal
	orders       map[string]*Order
	confs        []*confirmation
	docs         []*document
	failed       []*movement
	later        []*movement
	closed       map[string]bool
	repeats      map[string]*repeat
	numbers      [4]int
	confByKey    map[string][]*confirmation
	docByRef     map[string][]*document
	docByNo      map[string]*document
	copiedMoves  map[*movement]*movement
	copiedConfs  map[*confirmation]*confirmation
	copiedPapers map[*document]*document
}

// Snapshot copies the books.
func (s *System) Snapshot() Snapshot {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	return Snapshot{copyOf(books{materials: s.materials, stock: s.stock, orders: s.orders, confs: s.confs, docs: s.docs, failed: s.failed, later: s.later, closed: s.closed,
		repeats: s.repeats, numbers: [4]int{s.nextOrder, s.nextReservation, s.nextGroup, s.nextDoc}, confByKey: s.confByKey, docByRef: s.docByRef, docByNo: s.docByNo})}
}

// Restore puts the books back to what they were. What was booked since is gone, and its numbers are given again.
func (s *System) Restore(back Snapshot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := copyOf(back.of)
	s.materials, s.stock, s.orders, s.confs, s.docs, s.failed, s.later, s.closed, s.repeats = b.materials, b.stock, b.orders, b.confs, b.docs, b.failed, b.later, b.closed, b.repeats
	s.nextOrder, s.nextReservation, s.nextGroup, s.nextDoc = b.numbers[0], b.numbers[1], b.numbers[2], b.numbers[3]
	s.confByKey, s.docByRef, s.docByNo = b.confByKey, b.docByRef, b.docByNo
	clear(s.sessions)
}

func copyOf(b books) books {
	b.copiedMoves, b.copiedConfs, b.copiedPapers = map[*movement]*movement{}, map[*confirmation]*confirmation{}, map[*document]*document{}
	b.materials, b.stock, b.closed, b.repeats = maps.Clone(b.materials), maps.Clone(b.stock), maps.Clone(b.closed), maps.Clone(b.repeats)
	orders := map[string]*Order{}
	for no, o := range b.orders {
		own := *o
		own.Operations, own.Components = slices.Clone(o.Operations), slices.Clone(o.Components)
		orders[no] = &own
	}
	b.orders = orders
	b.confs, b.docs, b.failed, b.later = each(b.confs, b.conf), each(b.docs, b.doc), each(b.failed, b.move), each(b.later, b.move)
	b.confByKey, b.docByRef, b.docByNo = byKey(b.confByKey, b.conf), byKey(b.docByRef, b.doc), maps.Clone(b.docByNo)
	for no, d := range b.docByNo {
		b.docByNo[no] = b.doc(d)
	}
	return b
}

func each[T any](all []*T, copied func(*T) *T) []*T {
	out := make([]*T, len(all))
	for i, v := range all {
		out[i] = copied(v)
	}
	return out
}

func byKey[T any](all map[string][]*T, copied func(*T) *T) map[string][]*T {
	out := map[string][]*T{}
	for key, v := range all {
		out[key] = each(v, copied)
	}
	return out
}

func (b *books) conf(c *confirmation) *confirmation {
	if c == nil || b.copiedConfs[c] != nil {
		return b.copiedConfs[c]
	}
	own := *c
	b.copiedConfs[c] = &own
	own.values, own.items = maps.Clone(c.values), slices.Clone(c.items)
	for i, ref := range own.items {
		own.items[i].doc = b.doc(ref.doc)
	}
	return &own
}

func (b *books) doc(d *document) *document {
	if d == nil || b.copiedPapers[d] != nil {
		return b.copiedPapers[d]
	}
	own := *d
	b.copiedPapers[d] = &own
	own.items = each(d.items, b.move)
	return &own
}

func (b *books) move(m *movement) *movement {
	if m == nil || b.copiedMoves[m] != nil {
		return b.copiedMoves[m]
	}
	own := *m
	b.copiedMoves[m] = &own
	own.conf = b.conf(m.conf)
	return &own
}
