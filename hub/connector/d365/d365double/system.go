package d365double

import (
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/shopspring/decimal"
)

// Traps are the ways in which a system surprises. Each is off when zero.
type Traps struct {
	// Throttle answers SendMessage with 429 and Retry-After, Deny with 403.
	Throttle, Deny bool
	// Delay is how long a message waits before it is processed, and between its attempts.
	Delay time.Duration
	// FailWith lets every attempt fail by this text.
	FailWith string
	// OnlyClaimed shows messages as processed and books nothing.
	OnlyClaimed bool
	// OtherQuantity books this instead of the good quantity.
	OtherQuantity string
	// VisibleAfter hides journals for so long.
	VisibleAfter time.Duration
	// MostRows is how many rows a page of OData has; 10000 when 0.
	MostRows int
	// KeyField is the extension field that the customer added to messages and journals; without it the field is forgotten.
	KeyField string
}

// Order is a production order.
type Order struct {
	Number, Company, Item, Unit, Site, Status string
	Quantity                                  decimal.Decimal
	Components                                []Component

	changed time.Time
}

// Component is a line of the order's bill of materials. Flushing is Manual when empty, or Finish: taken at report as finished.
type Component struct {
	Item, Unit, Flushing string
	Required             decimal.Decimal
}

type message struct {
	id, company, kind, content, status, err string
	attempts                                int
	due                                     time.Time
}

// journal is a posted line: of a report as finished, or of a picking list.
type journal struct {
	number, order, item, key string
	picking                  bool
	good, bad, consumed      decimal.Decimal
	visible                  time.Time
	date                     string
}

// System is one D365 with its books. Its methods are what people and other programs do in it.
type System struct {
	mu       sync.Mutex
	traps    Traps
	orders   []*Order
	messages []*message
	journals []*journal
	stock    map[string]decimal.Decimal
	shut     map[string]bool
	tokens   map[string]bool
	next     int
}

// New makes an empty system with the client LINEKEEPER, the secret "secret" and the company USMF.
func New() *System {
	return &System{stock: map[string]decimal.Decimal{}, shut: map[string]bool{}, tokens: map[string]bool{}}
}

// Handler serves the token endpoint, SendMessage and OData.
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

// Shut closes or opens the ledger period of a month, written 2026-03.
func (s *System) Shut(month string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shut[month] = on
}

// ExpireTokens ends every token.
func (s *System) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// CreateOrder takes an order as it is and returns its number, a new one when it has none.
func (s *System) CreateOrder(o Order) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.Number == "" {
		o.Number = fmt.Sprintf("P%06d", 123+len(s.orders))
	}
	o.changed = time.Now().UTC()
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

// Reprocess is what a person does to failed messages.
func (s *System) Reprocess() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		if m.status == "Failed" {
			m.status, m.attempts, m.due = "Queued", 0, time.Now()
		}
	}
}

// Hurry makes every message due that waits.
func (s *System) Hurry() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.messages {
		m.due = time.Now()
	}
}

// ReportByHand is what a person reports as finished for an order, without any message; what it takes is a picking list of its own.
func (s *System) ReportByHand(number string, quantity decimal.Decimal, taken ...Component) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.orders {
		if o.Number != number {
			continue
		}
		day := time.Now().UTC().Format(time.DateOnly)
		s.next++
		s.journals = append(s.journals, &journal{number: fmt.Sprintf("J%07d", s.next), order: number, item: o.Item, good: quantity, date: day})
		for _, c := range taken {
			s.journals = append(s.journals, &journal{number: fmt.Sprintf("J%07d", s.next), order: number, item: c.Item, picking: true, consumed: c.Required, date: day})
		}
		o.Status = "StartedUp"
		return nil
	}
	return fmt.Errorf("order %q does not exist", number)
}

// Totals is what the books hold of one order. Issued and Returned are of one item, by lines above and below zero.
type Totals struct {
	Good, Bad, Issued, Returned decimal.Decimal
	Journals                    int
	Status                      string
}

// Totals sums an order up from its journals, after all messages that are due.
func (s *System) Totals(number, item string) Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	var t Totals
	for _, o := range s.orders {
		if o.Number == number {
			t.Status = o.Status
		}
	}
	for _, j := range s.journals {
		if j.order != number {
			continue
		}
		t.Journals++
		t.Good, t.Bad = t.Good.Add(j.good), t.Bad.Add(j.bad)
		switch {
		case j.item != item:
		case j.consumed.IsPositive():
			t.Issued = t.Issued.Add(j.consumed)
		default:
			t.Returned = t.Returned.Sub(j.consumed)
		}
	}
	return t
}

// Contents are the contents of all messages.
func (s *System) Contents() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, m := range s.messages {
		all = append(all, m.content)
	}
	return strings.Join(all, "\n")
}
