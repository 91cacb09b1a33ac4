package s4_test

import (
	"fmt"
	"maps"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/s4"
	"github.com/linekeeper/linekeeper/hub/connector/s4/s4double"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

const (
	plant  = "1710"
	place  = "171A"
	maker  = "MZ-FG-R10"
	taken  = "RM124"
	settle = 250 * time.Millisecond
	// mayTake is how long after its intent a request is answered, even on a busy machine.
	mayTake = time.Second
)

var d = decimal.RequireFromString

// bench is a double of S/4HANA behind a proxy that loses things.
type bench struct {
	*s4double.System
	proxy *connectortest.Proxy

	mayTake time.Duration
	mu      sync.Mutex
	traps   s4double.Traps // that stay set
}

func newBench(t testing.TB, traps s4double.Traps) *bench {
	t.Helper()
	traps.SharedSessionsBreak = true // a connector has to live with it everywhere
	if traps.PageSize == 0 {
		traps.PageSize = 3
	}
	b := &bench{System: s4double.New(s4double.Options{}), mayTake: mayTake, traps: traps}
	b.SetTraps(traps)
	b.PutMaterial(s4double.Material{Number: maker, Unit: "PC", UnitISO: "PCE"})
	b.PutMaterial(s4double.Material{Number: taken, Unit: "KG", UnitISO: "KGM", Decimals: 3})
	b.PutStock(taken, plant, place, d("100000"))
	b.PutStock(maker, plant, place, d("0"))
	server := httptest.NewServer(b.Handler())
	t.Cleanup(server.Close)
	b.proxy = connectortest.NewProxy(t, server.URL)
	b.proxy.EndSessions = b.ExpireSessions
	return b
}

func (b *bench) config() s4.Config {
	return s4.Config{URL: b.proxy.URL, User: "LINEKEEPER", Password: "secret", Units: map[string]string{"PCE": "C62", "PC": "C62", "KG": "KGM"},
		Settle: settle, Repeatable: !b.traps.NoRepeats, AbsentAfter: settle + b.mayTake}
}

func (b *bench) connect(t testing.TB, change ...func(*s4.Config)) *s4.Connector {
	t.Helper()
	cfg := b.config()
	for _, f := range change {
		f(&cfg)
	}
	c, err := s4.New(s4.Impatient(cfg, b.mayTake))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (b *bench) order(t testing.TB, quantity string) string {
	t.Helper()
	q := d(quantity)
	return b.CreateOrder(s4double.Order{Material: maker, Plant: plant, StorageLocation: place, Quantity: q, Released: true, AutomaticReceipt: true,
		Operations: []s4double.Operation{{Number: "0010", Text: "Assemble", WorkCenter: "ASSEMBLY"}},
		Components: []s4double.Component{{Material: taken, StorageLocation: place, Operation: "0010", Required: q.Mul(d("0.125"))}}})
}

func (b *bench) change(t testing.TB, order string, f func(*s4double.Order)) {
	t.Helper()
	if err := b.Change(order, f); err != nil {
		t.Fatal(err)
	}
}

// set sets traps beside those that stay set, and returns what ends them.
func (b *bench) set(f func(*s4double.Traps)) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	traps := b.traps
	f(&traps)
	b.SetTraps(traps)
	return func() { b.SetTraps(b.traps) }
}

// resize gives an order another quantity, and its components what that needs.
func resize(quantity string) func(*s4double.Order) {
	return func(o *s4double.Order) {
		o.Quantity = d(quantity)
		for i := range o.Components {
			o.Components[i].Required = o.Quantity.Mul(d("0.125"))
		}
	}
}

func state(o s4double.Order) object.OrderState {
	switch {
	case o.DeletionMarked:
		return object.OrderCancelled
	case o.TechnicallyComplete:
		return object.OrderCompleted
	case o.PartiallyConfirmed:
		return object.OrderInProgress
	}
	return object.OrderReleased
}

// effects counts confirmations and consumptions, and not the receipt that belongs to a confirmation; what an order received is what counts as its yield.
func (b *bench) effects(t testing.TB, order string) connectortest.Effects {
	t.Helper()
	x := b.Totals(order)
	if b.Failed(order) == 0 && !x.Yield.Equal(x.Received) && b.traps.MovementsLater == 0 {
		t.Errorf("order %s has %s confirmed and %s received", order, x.Yield, x.Received)
	}
	e := connectortest.Effects{Yield: x.Received, Scrap: x.Scrap, Issued: x.Issued[taken], Returned: x.Returned[taken], Documents: x.Confirmations + x.Documents - x.Receipts, State: state(x.Order)}
	if e.State == object.OrderReleased && e.Documents > 0 {
		e.State = object.OrderInProgress // S/4HANA leaves it released; material was taken to it
	}
	return e
}

func (b *bench) troubles() map[connectortest.Trouble]connectortest.Switch {
	trap := func(f func(*s4double.Traps)) connectortest.Switch {
		return func(testing.TB, string) func() { return b.set(f) }
	}
	flip := func(f func(*s4double.Order, bool)) connectortest.Switch {
		return func(t testing.TB, order string) func() {
			b.change(t, order, func(o *s4double.Order) { f(o, true) })
			return func() { b.change(t, order, func(o *s4double.Order) { f(o, false) }) }
		}
	}
	month := time.Now().UTC().Format("2006-01")
	return map[connectortest.Trouble]connectortest.Switch{
		connectortest.OrderLocked: func(_ testing.TB, order string) func() {
			b.Lock(order, "PLANNER")
			return func() { b.Unlock(order) }
		},
		connectortest.SystemBusy: trap(func(t *s4double.Traps) { t.Busy = true }),
		connectortest.Throttled:  trap(func(t *s4double.Traps) { t.Throttle = true }),
		connectortest.NoRight:    trap(func(t *s4double.Traps) { t.Deny = true }),
		connectortest.PeriodClosed: func(testing.TB, string) func() {
			b.SetPeriod(month, false)
			return func() { b.SetPeriod(month, true) }
		},
		connectortest.OrderNotReleased: flip(func(o *s4double.Order, on bool) { o.Released = !on }),
		connectortest.OrderComplete:    flip(func(o *s4double.Order, on bool) { o.TechnicallyComplete = on }),
		connectortest.StockMissing: func(testing.TB, string) func() {
			b.PutStock(taken, plant, place, d("1"))
			return func() { b.PutStock(taken, plant, place, d("100000")) }
		},
		connectortest.MovementFailed: func(t testing.TB, _ string) func() {
			end := b.set(func(t *s4double.Traps) { t.MovementsFail = true })
			return func() {
				end()
				if n := b.Reprocess(); n > 0 {
					t.Errorf("%d movements still fail", n)
				}
			}
		},
		connectortest.OnlyClaimed:     trap(func(t *s4double.Traps) { t.UpdateFails = true }),
		connectortest.BookedOtherwise: trap(func(t *s4double.Traps) { t.OtherQuantity = "11" }),
		connectortest.BookedLater:     trap(func(t *s4double.Traps) { t.MovementsLater = 100 * time.Millisecond }),
		connectortest.ReadLate:        trap(func(t *s4double.Traps) { t.VisibleAfter = 100 * time.Millisecond }),
	}
}

var cannotShow = map[connectortest.Trouble]string{
	connectortest.ErrorInSuccess: "SAP answers refused documents with an error status; a function's error inside of a success is shown in CompletionIsRefusedWhileAMovementFailed",
	connectortest.BookedNever:    "a movement that is refused later joins the failed ones (shown above), an update that ends later leaves no reason (success without an effect)",
	connectortest.DuplicateKey:   "SAP does not refuse a second document with one key; RequestID is shown in OneIntentManyWorkersOneEffect",
	connectortest.NoSearch:       "the keys can be searched; while a system refuses it nothing is posted, shown in NothingIsPostedWhileTheSearchIsRefused",
}

func (b *bench) harness(change ...func(*s4.Config)) connectortest.Harness {
	return connectortest.Harness{
		Connect: func(t testing.TB) connector.Connector { return b.connect(t, change...) },
		Item:    maker, ItemUnit: "C62", Component: taken, ComponentUnit: "KGM", PerItem: "0.125", Site: plant,
		CreateOrder:    b.order,
		ChangeQuantity: func(t testing.TB, order, quantity string) { b.change(t, order, resize(quantity)) },
		CancelOrder: func(t testing.TB, order string) {
			b.change(t, order, func(o *s4double.Order) { o.DeletionMarked = true })
		},
		CloseOrder: func(t testing.TB, order string) {
			b.change(t, order, func(o *s4double.Order) { o.TechnicallyComplete = true })
		},
		Effects:        b.effects,
		Faults:         b.proxy,
		ExpireSessions: func(testing.TB) { b.ExpireSessions() },
		ChangeLate: func(t testing.TB, order, quantity string) func() {
			began := time.Now().Add(-30 * time.Second)
			return func() {
				if err := b.ChangeAt(order, began, resize(quantity)); err != nil {
					t.Fatal(err)
				}
			}
		},
		Troubles: b.troubles(), CannotShow: cannotShow, LossyPostings: 150, Listing: b.listing(), Stock: b.stock(),
	}
}

// stock has items in several pages, of all stock types, some of which the connector cannot tell.
func (b *bench) stock() connectortest.Stock {
	var items []string
	for i := range 100 {
		item := fmt.Sprintf("PART-%03d", i)
		b.PutMaterial(s4double.Material{Number: item, Unit: "PC", UnitISO: "PCE"})
		b.PutStock(item, plant, place, d("7"))
		items = append(items, item)
	}
	b.PutMaterial(s4double.Material{Number: "CRATE", Unit: "KI", UnitISO: "CR"})
	b.PutStock("CRATE", plant, place, d("3"))
	b.PutMaterial(s4double.Material{Number: "GONE", Unit: "PC", UnitISO: "PCE"})
	b.PutStock("GONE", plant, place, d("0"))
	b.Transfer(items[0], plant, s4double.Shelf{Location: place}, s4double.Shelf{Location: "171B", Type: s4double.Blocked}, d("2"))
	return connectortest.Stock{Pages: func(t testing.TB) connector.Connector { return b.connect(t) }, Items: items, Empty: "GONE", Unmapped: "CRATE", Service: "SERVICE-1"}
}

// listing is what is done to the system past the connector: a person in its own screens, another program, a gateway.
func (b *bench) listing() connectortest.Listing {
	must := func(t testing.TB, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	return connectortest.Listing{
		Pages:  3,
		ByHand: func(t testing.TB, order, yield string) { must(t, b.ConfirmByHand(order, "0010", yield)) },
		Double: func(t testing.TB, p connector.Posting) {
			must(t, b.Again(p.Fact.Key.UUID(), p.Fact.Key.String()))
		},
		Without: map[string]string{"Pending": "a confirmation is in the books or refused; what waits is its goods movement, which is shown as failed"},
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{})
	connectortest.Run(t, b.harness())
	if n := b.BrokenSessions(); n > 0 {
		t.Errorf("a session was used by two requests at once %d times", n)
	}
}

// Without repeatable requests a request that a gateway sends twice is booked twice, and the difference is seen.
func TestConformanceOfASystemThatIgnoresRequestIDs(t *testing.T) {
	t.Parallel()
	b := newBench(t, s4double.Traps{NoRepeats: true, PageSize: 3})
	b.mayTake = 300 * time.Millisecond // each lost request is waited for
	h := b.harness()
	h.Sparse, h.LossyPostings = true, 100
	connectortest.Run(t, h)
}

// Receipt and confirmation are two documents with a key each.
func TestConformanceWithSeparateDocuments(t *testing.T) {
	t.Parallel()
	h := newBench(t, s4double.Traps{}).harness(func(c *s4.Config) { c.Movements = "separate" })
	h.Sparse = true
	delete(h.Troubles, connectortest.MovementFailed)
	h.CannotShow = maps.Clone(cannotShow)
	h.CannotShow[connectortest.MovementFailed] = "the confirmation has no movements; a receipt that is refused after it is shown in HalfDonePostingIsFinishedOrShown"
	connectortest.Run(t, h)
}
