package oracledouble

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/shopspring/decimal"
)

// Traps are the ways in which a system surprises. Each is off when zero.
type Traps struct {
	// Busy answers every request that posts with 503, Throttle with 429 and Retry-After, Deny with 403.
	Busy, Throttle, Deny bool
	// FlagIsBoolean writes ErrorsExistFlag as a boolean, as newer releases do, and not as a string.
	FlagIsBoolean bool
	// ErrorInside refuses every request by this message, with a status of success.
	ErrorInside string
	// OnlyClaimed answers with success and books nothing.
	OnlyClaimed bool
	// OtherQuantity books this instead of what was completed.
	OtherQuantity string
	// VisibleAfter hides what was booked for so long.
	VisibleAfter time.Duration
	// MostRows is how many rows a page has at most, whatever limit says; 0 is 499.
	MostRows int
	// NoCompletedRead refuses to read completed transactions, NoReference keeps no reference in them.
	NoCompletedRead, NoReference bool
}

// Order is a work order. Its number is unique within its organization.
type Order struct {
	Number, Organization, Item, Unit, Status string
	ID                                       int64
	Quantity                                 decimal.Decimal
	Operations                               []Operation
	Components                               []Component

	changed time.Time
}

// Operation is one operation.
type Operation struct {
	Sequence         int
	Name, WorkCenter string
}

// Component is material that an operation needs.
type Component struct {
	Item, Unit string
	Operation  int
	Required   decimal.Decimal
	// Supply is how it is supplied: PUSH when empty, or OPERATION_PULL.
	Supply string
}

// The kinds of transactions.
const (
	complete   = "PRODUCT_COMPLETE"
	completeOp = "OPERATION_COMPLETE" // of an operation that is not the last: nothing comes into stock
	scrap      = "SCRAP"
	issue      = "MATERIAL_ISSUE"
	giveBack   = "MATERIAL_RETURN"
)

type transaction struct {
	id, batch             int64
	order                 *Order
	sequence              int
	kind, item, unit, ref string
	quantity              decimal.Decimal // below zero when it takes back
	date                  string
	visible               time.Time
}

func (t *transaction) inventory() bool { return t.kind != completeOp && t.kind != scrap }

// System is one Oracle Fusion with its books. Its methods are what people and other programs do in it.
type System struct {
	mu      sync.Mutex
	traps   Traps
	orders  []*Order
	done    []*transaction
	stock   map[string]decimal.Decimal
	locked  map[string]bool
	shut    map[string]bool
	sources map[string]bool
	next    int64
}

// New makes an empty system that knows the source system LINEKEEPER, the user LINEKEEPER and the password secret.
func New() *System {
	return &System{stock: map[string]decimal.Decimal{}, locked: map[string]bool{}, shut: map[string]bool{}, sources: map[string]bool{"LINEKEEPER": true}, next: 300100000000000}
}

// Handler serves the system's REST resources.
func (s *System) Handler() http.Handler { return http.HandlerFunc(s.serve) }

// SetTraps replaces the traps that are set.
func (s *System) SetTraps(t Traps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traps = t
}

// PutStock sets how much of an item there is.
func (s *System) PutStock(item string, quantity decimal.Decimal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stock[item] = quantity
}

// Lock lets a user work on an order until it is called with false.
func (s *System) Lock(order string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked[order] = on
}

// Shut closes or opens the inventory period of a month, written 2026-03.
func (s *System) Shut(month string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut[month] = on
}

func (s *System) id() int64 { s.next++; return s.next }

// CreateOrder takes an order as it is and returns its number, a new one when it has none.
func (s *System) CreateOrder(o Order) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	o.ID, o.changed = s.id(), time.Now().UTC()
	if o.Number == "" {
		o.Number = fmt.Sprintf("%s-%d", o.Organization, 1000+len(s.orders))
	}
	s.orders = append(s.orders, &o)
	return o.Number
}

// ChangeAt lets f change an order in a transaction that took its stamp at another time.
func (s *System) ChangeAt(number string, at time.Time, f func(*Order)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.orders {
		if o.Number == number {
			f(o)
			o.changed = at.UTC()
			return nil
		}
	}
	return fmt.Errorf("order %q does not exist", number)
}

// Totals is what the books hold of one order.
type Totals struct {
	Completed, Scrapped, Issued, Returned decimal.Decimal
	// Requests counts the requests that were booked.
	Requests int
	Status   string
}

// Totals sums an order up from its transactions. Issued and Returned are of one item.
func (s *System) Totals(number, item string) Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	var t Totals
	for _, o := range s.orders {
		if o.Number == number {
			t.Status = o.Status
		}
	}
	batches := map[int64]bool{}
	for _, x := range s.done {
		if x.order.Number != number {
			continue
		}
		batches[x.batch] = true
		switch {
		case x.kind == complete:
			t.Completed = t.Completed.Add(x.quantity)
		case x.kind == scrap:
			t.Scrapped = t.Scrapped.Add(x.quantity)
		case x.kind == issue && x.item == item:
			t.Issued = t.Issued.Add(x.quantity)
		case x.kind == giveBack && x.item == item:
			t.Returned = t.Returned.Add(x.quantity)
		}
	}
	t.Requests = len(batches)
	return t
}

// PostByHand is what another program completes on an order's only operation, without any reference.
func (s *System) PostByHand(number string, quantity decimal.Decimal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.orders {
		if o.Number == number {
			last := o.Operations[len(o.Operations)-1].Sequence
			s.done = append(s.done, &transaction{id: s.id(), batch: s.id(), order: o, sequence: last, kind: complete, item: o.Item, unit: o.Unit, quantity: quantity})
		}
	}
}
