package s4double

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// direction is +1 for movement types that bring stock, -1 for those that take it, 0 for unknown ones.
func direction(kind string) int {
	switch standard(kind) {
	case "101", "262", "531":
		return 1
	case "102", "261", "532":
		return -1
	}
	return 0
}

// customs are movement types that this customer has copied from SAP's own.
var customs = map[string]string{"Z01": "101", "Z02": "102", "Z61": "261", "Z62": "262", "Z31": "531", "Z32": "532"}

func standard(kind string) string {
	if own := customs[kind]; own != "" {
		return own
	}
	return kind
}

var opposite = map[string]string{"101": "102", "102": "101", "261": "262", "262": "261", "531": "532", "532": "531",
	"Z01": "Z02", "Z02": "Z01", "Z61": "Z62", "Z62": "Z61", "Z31": "Z32", "Z32": "Z31"}

// codes are the movement types that each GoodsMovementCode of a material document allows.
var codes = map[string][]string{"02": {"101", "102"}, "03": {"261", "262"}, "05": {"531", "532"}, "06": {"102", "262", "261"}}

// place is where a movement brings material or takes it from. What is not made is unrestricted and no special stock.
func (s *System) place(m *movement) place {
	p := place{m.material, m.plant, m.location, m.batch, Unrestricted, ""}
	if o := s.orders[m.order]; o != nil && (standard(m.kind) == "101" || standard(m.kind) == "102") {
		if p.special = o.SpecialStock; o.Inspect {
			p.kind = Inspected
		}
	}
	return p
}

// possible says why a movement cannot be booked.
func (s *System) possible(m *movement, posting string) *failure {
	if err := s.periodClosed(posting); err != nil {
		return err
	}
	if direction(m.kind) < 0 && s.stock[s.place(m)].LessThan(m.quantity) {
		short := m.quantity.Sub(s.stock[s.place(m)])
		return fail("M7/021", "Deficit of SL Unrestricted-use %s %s : %s %s %s %s", s.show(m.material, short), s.materials[m.material].Unit, m.material, m.plant, m.location, m.batch)
	}
	return nil
}

// apply changes stock, reservation and order by a movement.
func (s *System) apply(m *movement) {
	sign := decimal.NewFromInt(int64(direction(m.kind)))
	s.stock[s.place(m)] = s.stock[s.place(m)].Add(m.quantity.Mul(sign))
	m.unit = s.materials[m.material].Unit
	o := s.orders[m.order]
	if o == nil {
		return
	}
	switch standard(m.kind) {
	case "101", "102":
		o.received = o.received.Add(m.quantity.Mul(sign))
	case "262":
		if !m.reopens {
			break // a return without the reversal code leaves the reservation as it is
		}
		fallthrough
	case "261":
		for i := range o.Components {
			c := &o.Components[i]
			if m.reservation == fmt.Sprint(o.reservation) && m.reservationItem == c.Item {
				c.withdrawn = c.withdrawn.Sub(m.quantity.Mul(sign))
			}
		}
	}
	o.changed = s.now()
}

// bookLater books the movements of a confirmation at once, or later where that trap is set.
func (s *System) bookLater(c *confirmation, moves []*movement) {
	for _, m := range moves {
		m.conf = c
		if s.traps.MovementsLater > 0 {
			m.due = s.now().Add(s.traps.MovementsLater)
		}
	}
	if s.traps.MovementsLater > 0 {
		s.later = append(s.later, moves...)
		return
	}
	s.bookFor(c, moves)
}

// settle books what was put off and is due.
func (s *System) settle() {
	var due []*movement
	s.later = slices.DeleteFunc(s.later, func(m *movement) bool {
		if s.now().Before(m.due) {
			return false
		}
		due = append(due, m)
		return true
	})
	for _, m := range due {
		s.bookFor(m.conf, []*movement{m})
	}
}

// bookFor books movements of a confirmation in one document; those that cannot be booked join the failed ones.
func (s *System) bookFor(c *confirmation, moves []*movement) {
	posting := day(text(c.values, "PostingDate"))
	var good []*movement
	for _, m := range moves {
		m.conf = c
		err := s.possible(m, posting)
		if err == nil && s.traps.MovementsFail {
			err = fail("M7/115", "Material %s is blocked by an inventory", m.material)
		}
		if err != nil {
			m.reason = err.text
			s.failed = append(s.failed, m)
			continue
		}
		s.apply(m)
		good = append(good, m)
	}
	if len(good) == 0 {
		return
	}
	d := &document{posting: posting, documents: posting, items: good, conf: true}
	s.file(d)
	for i := range good {
		c.items = append(c.items, docRef{d, i})
	}
}

// file numbers a document and puts it into the books.
func (s *System) file(d *document) {
	s.number(d)
	s.docs = append(s.docs, d)
	s.docByNo[d.number] = d
	if d.ref != "" {
		s.docByRef[d.ref] = append(s.docByRef[d.ref], d)
	}
}

func (s *System) number(d *document) {
	d.number, d.year = fmt.Sprint(s.nextDoc), d.posting[:4]
	s.nextDoc++
	d.entered = s.now()
	d.visible = d.entered.Add(s.traps.VisibleAfter)
}

// createDoc is the creation of a material document with its items.
func (s *System) createDoc(body []byte) (any, *failure) {
	in, children, err := parse(body, headerSchema, "to_MaterialDocumentItem", docItemSchema)
	if err != nil {
		return nil, err
	}
	d := &document{ref: strings.ToUpper(text(in, "ReferenceDocument")), text: text(in, "MaterialDocumentHeaderText"), code: text(in, "GoodsMovementCode"),
		posting: day(text(in, "PostingDate")), documents: day(text(in, "DocumentDate"))}
	if d.posting == "" {
		d.posting = s.now().Format(time.DateOnly)
	}
	if d.documents == "" {
		d.documents = d.posting
	}
	if len(children) == 0 {
		return nil, fail("M7/123", "Document does not contain any items")
	}
	for _, child := range children {
		m, err := s.docMove(d, child)
		if err != nil {
			return nil, err
		}
		d.items = append(d.items, m)
	}
	if s.traps.UpdateFails {
		s.number(d)
		return s.headerRow(d), nil
	}
	for i, m := range d.items {
		if err := s.possible(m, d.posting); err != nil {
			for _, done := range d.items[:i] {
				undo := *done
				undo.kind, undo.reopens = opposite[done.kind], true
				s.apply(&undo)
			}
			return nil, err
		}
		s.apply(m)
	}
	s.file(d)
	r := s.headerRow(d)
	items := []row{}
	for i := range d.items {
		items = append(items, s.docItemRow(d, i))
	}
	r["to_MaterialDocumentItem"] = row{"results": items}
	return r, nil
}

// docMove checks one item of a material document.
func (s *System) docMove(d *document, in map[string]any) (*movement, *failure) {
	kind := text(in, "GoodsMovementType")
	if !contains(codes[d.code], standard(kind)) {
		return nil, fail("M7/012", "Movement type %s is not possible with goods movement code %q", kind, d.code)
	}
	m, err := s.movementOf(in, "")
	if err != nil {
		return nil, err
	}
	if _, err := s.open(m.order); err != nil {
		return nil, err
	}
	if d.code == "06" && text(in, "MaterialDocumentPostingType") != "1" {
		return nil, fail("M7/012", "Movement type %s with code 06 needs posting type 1", kind)
	}
	m.reopens = d.code == "06"
	return m, nil
}

// cancelDoc is the function Cancel of a material document, or CancelItem of one of its items. Neither takes a key of the caller's.
func (s *System) cancelDoc(q url.Values) (any, *failure) {
	old := s.docByNo[literal(q, "MaterialDocument")]
	if old == nil || old.year != literal(q, "MaterialDocumentYear") {
		return nil, fail("M7/060", "Document %s does not exist", literal(q, "MaterialDocument"))
	}
	d := &document{posting: s.now().Format(time.DateOnly), ref: old.ref, text: old.text, code: "06"}
	if text := literal(q, "PostingDate"); len(text) >= 10 {
		d.posting = text[:10]
	}
	d.documents = d.posting
	item := literal(q, "MaterialDocumentItem")
	var from []*movement
	for i, m := range old.items {
		if item != "" && item != fmt.Sprint(i+1) {
			continue
		}
		if m.cancelled {
			return nil, fail("M7/061", "Document %s has already been cancelled", old.number)
		}
		from = append(from, m)
		back := *m
		back.kind, back.reopens = opposite[m.kind], true
		back.reversedDoc, back.reversedYear, back.reversedItem = old.number, old.year, fmt.Sprint(i+1)
		if err := s.possible(&back, d.posting); err != nil {
			return nil, err
		}
		d.items = append(d.items, &back)
	}
	if len(from) == 0 {
		return nil, fail("M7/060", "Document %s has no item %s", old.number, item)
	}
	for i, m := range d.items {
		from[i].cancelled = true
		s.apply(m)
	}
	s.file(d)
	return s.headerRow(d), nil
}
