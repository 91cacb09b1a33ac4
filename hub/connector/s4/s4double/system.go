package s4double

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shopspring/decimal"
)

// Options of a System; zero values are what a plain system has.
type Options struct {
	// User and Password log in; "LINEKEEPER" and "secret" when empty.
	User, Password string
	// Now is the system's clock, UTC; time.Now when nil.
	Now func() time.Time
}

// Traps are the ways in which a system surprises. Each is off when zero.
type Traps struct {
	// Busy answers every posting with 503, Throttle with 429 and Retry-After, Deny with 403 and a message on authorisation.
	Busy, Throttle, Deny bool
	// SharedSessionsBreak ends the token of a session that is used by two requests at once.
	SharedSessionsBreak bool
	// NoRepeats ignores RequestID, as a system that is not configured for it.
	NoRepeats bool
	// KeepAnswers and KeepIDs are how long repeatable requests are remembered: the answer, then only the id. 6 h and 12 h when 0.
	KeepAnswers, KeepIDs time.Duration
	// PageSize is how many rows the server puts on one page before it answers with __next; 0 is no limit.
	PageSize int
	// MovementsFail lets every goods movement of a confirmation fail, while the confirmation is saved.
	MovementsFail bool
	// MovementsLater books the goods movements of a confirmation so much after it.
	MovementsLater time.Duration
	// UpdateFails numbers a posting, answers with success, and loses it: an update task that ended.
	UpdateFails bool
	// OtherQuantity books this instead of the yield that was confirmed; an exit that somebody programmed.
	OtherQuantity string
	// VisibleAfter hides what was booked for so long.
	VisibleAfter time.Duration
	// NoRead refuses to list confirmations, for lack of a right.
	NoRead bool
	// NoKeySearch refuses every $filter by an external key.
	NoKeySearch bool
	// NoStampAtCreation leaves the stamp of the last change empty until an order is changed.
	NoStampAtCreation bool
	// DumpAfter does the work and then answers 500 in the system's own form, as when something ends after the commit.
	DumpAfter bool
	// AlwaysBackflush adds the automatic movements to the ones that a confirmation brings, as a modification may do.
	AlwaysBackflush bool
	// PeriodFailsMovements lets a closed period stop the movements of a confirmation only, not the confirmation.
	PeriodFailsMovements bool
}

// System is one S/4HANA with its books. Its methods are what people and other programs do in it.
type System struct {
	options Options

	mu        sync.Mutex
	traps     Traps
	materials map[string]Material
	stock     map[place]decimal.Decimal
	orders    map[string]*Order
	confs     []*confirmation
	confByKey map[string][]*confirmation
	docs      []*document
	docByRef  map[string][]*document
	docByNo   map[string]*document
	failed    []*movement // COGI
	later     []*movement // CO1P
	locks     map[string]string
	closed    map[string]bool
	sessions  map[string]*session
	repeats   map[string]*repeat
	broken    int
	nextOrder, nextReservation, nextGroup,
	nextDoc int
}

// Material is a material with its base unit: the commercial code, which depends on the language, the ISO code, and the decimals
// in which the system shows quantities of it.
type Material struct {
	Number, Unit, UnitISO string
	Decimals              int32
}

// place is where stock lies, and as what: the stock type and the indicator of a special stock.
type place struct{ material, plant, location, batch, kind, special string }

// The stock types.
const (
	Unrestricted = "01"
	Inspected    = "02"
	Blocked      = "07"
)

// Order is a production order.
type Order struct {
	Number, Type, Material, Plant, StorageLocation, Batch string
	Quantity                                              decimal.Decimal
	Operations                                            []Operation
	Components                                            []Component
	// AutomaticReceipt lets the confirmation of the last operation receive the yield when it brings no movements of its own.
	AutomaticReceipt bool
	// Inspect receives what is made into stock in quality inspection, SpecialStock into a special stock, such as E.
	Inspect      bool
	SpecialStock string

	Released, PartiallyConfirmed, Confirmed, Delivered, TechnicallyComplete, Closed, DeletionMarked, Locked bool

	reservation, routing int
	parts                time.Time // when operations and components were changed without the order
	changed              time.Time
	created              time.Time
	yield, received      decimal.Decimal
}

// Operation is one operation; its confirmations share one group.
type Operation struct {
	Number, Text, WorkCenter string
	group, count             int
	yield                    decimal.Decimal
	final                    bool
}

// Component is one reservation item.
type Component struct {
	Item, Material, StorageLocation, Operation string
	Required                                   decimal.Decimal
	Backflush                                  bool
	// MovementType is 261, or 531 for a by-product; 261 when empty.
	MovementType string
	withdrawn    decimal.Decimal
	final        bool
}

type movement struct {
	kind, material, plant, location, batch, order, text string
	reservation, reservationItem                        string
	quantity                                            decimal.Decimal // in the material's unit, above zero
	unit                                                string
	entered                                             *Entry // where it is in another unit than the material's
	conf                                                *confirmation
	due                                                 time.Time
	cancelled                                           bool
	reason                                              string
	reopens                                             bool
	refType                                             string
	reversedDoc, reversedYear, reversedItem             string
}

type confirmation struct {
	group, count int
	values       row // as sent and completed
	order        string
	operation    string
	yield        decimal.Decimal
	scrap        decimal.Decimal
	visible      time.Time
	entered      time.Time
	reversed     bool
	reversal     bool
	items        []docRef
}

type docRef struct {
	doc  *document
	item int
}

type document struct {
	number, year       string
	ref, text, code    string
	posting, documents string
	entered, visible   time.Time
	items              []*movement
	conf               bool
}

// New makes an empty system.
func New(o Options) *System {
	if o.User == "" {
		o.User, o.Password = "LINEKEEPER", "secret"
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &System{options: o, materials: map[string]Material{}, stock: map[place]decimal.Decimal{}, orders: map[string]*Order{},
		confByKey: map[string][]*confirmation{}, docByRef: map[string][]*document{}, docByNo: map[string]*document{}, locks: map[string]string{},
		closed: map[string]bool{}, sessions: map[string]*session{}, repeats: map[string]*repeat{},
		nextOrder: 1000001, nextReservation: 22, nextGroup: 207, nextDoc: 4900000483}
}

// Handler serves the system's OData services.
func (s *System) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *System) now() time.Time { return s.options.Now().UTC() }

// SetTraps replaces the traps that are set.
func (s *System) SetTraps(t Traps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traps = t
}

// PutMaterial makes a material known.
func (s *System) PutMaterial(m Material) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.materials[m.Number] = m
}

// PutStock sets what a place holds.
func (s *System) PutStock(material, plant, location string, quantity decimal.Decimal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stock[place{material, plant, location, "", Unrestricted, ""}] = quantity
}

// StockOf returns what a place holds.
func (s *System) StockOf(material, plant, location string) decimal.Decimal {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	return s.stock[place{material, plant, location, "", Unrestricted, ""}]
}

// CreateOrder takes an order as it is and returns its number, a new one when it has none.
func (s *System) CreateOrder(o Order) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Number == "" {
		o.Number = fmt.Sprint(s.nextOrder)
		s.nextOrder++
	}
	if o.Type == "" {
		o.Type = "YBM1"
	}
	o.reservation, o.routing = s.nextReservation, s.nextReservation
	s.nextReservation++
	o.Operations, o.Components = slices.Clone(o.Operations), slices.Clone(o.Components)
	for i := range o.Operations {
		o.Operations[i].group = s.nextGroup
		s.nextGroup++
	}
	for i := range o.Components {
		c := &o.Components[i]
		if c.Item == "" {
			c.Item = fmt.Sprint(i + 1)
		}
		if c.MovementType == "" {
			c.MovementType = "261"
		}
	}
	o.created = s.now()
	o.changed = o.created
	s.orders[o.Number] = &o
	return o.Number
}

// Change lets f change an order, as a planner does, and stamps it with the time.
func (s *System) Change(number string, f func(*Order)) error { return s.ChangeAt(number, s.now(), f) }

// ChangeAt is Change by a transaction that took its stamp at another time.
func (s *System) ChangeAt(number string, at time.Time, f func(*Order)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.orders[number]
	if !ok {
		return fmt.Errorf("order %q does not exist", number)
	}
	f(o)
	o.changed = at.UTC()
	return nil
}

// ChangeParts is ChangeAt of operations and components that leaves the order's own stamp as it is.
func (s *System) ChangeParts(number string, at time.Time, f func(*Order)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.orders[number]
	if !ok {
		return fmt.Errorf("order %q does not exist", number)
	}
	f(o)
	o.parts = at.UTC()
	return nil
}

// partsChanged is the stamp of an order's operations and components.
func (o *Order) partsChanged() time.Time {
	if o.parts.After(o.changed) {
		return o.parts
	}
	return o.changed
}

// Withdrawn is what the reservation of an order shows as taken of a material.
func (s *System) Withdrawn(order, material string) (sum decimal.Decimal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.orders[order].Components {
		if c.Material == material {
			sum = sum.Add(c.withdrawn)
		}
	}
	return sum
}

// CancelByHand is what a person does to a confirmation (group/counter) or a material document (number/year), without any key.
func (s *System) CancelByHand(number string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a, b, _ := strings.Cut(number, "/")
	q := url.Values{"ConfirmationGroup": {"'" + a + "'"}, "ConfirmationCount": {"'" + b + "'"}, "MaterialDocument": {"'" + a + "'"}, "MaterialDocumentYear": {"'" + b + "'"}}
	var err *failure
	if s.docByNo[a] != nil {
		_, err = s.cancelDoc(q)
	} else {
		_, err = s.cancelConf(q)
	}
	if err != nil {
		return err
	}
	return nil
}

// Lock lets a user work on an order; Unlock ends that.
func (s *System) Lock(order, user string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locks[order] = user
}

// Unlock ends a lock.
func (s *System) Unlock(order string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.locks, order)
}

// SetPeriod closes or opens a month, written 2026-03.
func (s *System) SetPeriod(month string, open bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed[month] = !open
}

// ExpireSessions ends every session and its token.
func (s *System) ExpireSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.sessions)
}

// BrokenSessions counts how often two requests used one session at once.
func (s *System) BrokenSessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// Reprocess tries the failed goods movements again and returns how many still fail.
func (s *System) Reprocess() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	failed := s.failed
	s.failed = nil
	for _, m := range failed {
		s.bookFor(m.conf, []*movement{m})
	}
	return len(s.failed)
}

// Failed counts the open failed goods movements of an order.
func (s *System) Failed(order string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failedOf(order)
}

func (s *System) failedOf(order string) (n int) {
	for _, m := range s.failed {
		if m.order == order {
			n++
		}
	}
	return n
}

// Totals is what the books hold of one order.
type Totals struct {
	// Yield and Scrap were confirmed, less what was cancelled. Received came into stock by 101, less 102.
	Yield, Scrap, Received decimal.Decimal
	// Issued and Returned are by material, of movements 261 and 262; cancelled ones count in both.
	Issued, Returned map[string]decimal.Decimal
	// Confirmations counts them with their cancellations; Documents are the material documents that no confirmation made, Receipts
	// those among them of movements 101 and 102.
	Confirmations, Documents, Receipts int
	Order                              Order
}

// Totals sums an order up, from documents and not from counters.
func (s *System) Totals(number string) Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	t := Totals{Issued: map[string]decimal.Decimal{}, Returned: map[string]decimal.Decimal{}}
	if o := s.orders[number]; o != nil {
		t.Order = *o
	}
	for _, c := range s.confs {
		if c.order != number {
			continue
		}
		t.Confirmations++
		sign := decimal.NewFromInt(1)
		if c.reversal {
			sign = sign.Neg()
		}
		t.Yield, t.Scrap = t.Yield.Add(c.yield.Mul(sign)), t.Scrap.Add(c.scrap.Mul(sign))
	}
	for _, d := range s.docs {
		mine, receipt := false, false
		for _, m := range d.items {
			if m.order != number {
				continue
			}
			kind := standard(m.kind)
			mine, receipt = true, kind == "101" || kind == "102"
			switch kind {
			case "101":
				t.Received = t.Received.Add(m.quantity)
			case "102":
				t.Received = t.Received.Sub(m.quantity)
			case "261":
				t.Issued[m.material] = t.Issued[m.material].Add(m.quantity)
			case "262":
				t.Returned[m.material] = t.Returned[m.material].Add(m.quantity)
			}
		}
		if mine && !d.conf {
			t.Documents++
			if receipt {
				t.Receipts++
			}
		}
	}
	return t
}

// Keys counts how many confirmations carry each external key (a GUID in lower case), and how many material documents that no
// confirmation made carry each reference. Without a trap there is one of each; what is cancelled counts.
func (s *System) Keys() map[string]int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := map[string]int{}
	for key, all := range s.confByKey {
		if key != noGUID {
			n[key] = len(all)
		}
	}
	for ref, all := range s.docByRef {
		for _, d := range all {
			if !d.conf && ref != "" {
				n[ref]++
			}
		}
	}
	return n
}
