package odoo_test

import (
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/odoo"
	"github.com/linekeeper/linekeeper/hub/connector/odoo/odoodouble"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

const (
	company = "Ulm Works"
	maker   = "VALVE-10"
	taken   = "GRANULATE"
)

var (
	d    = decimal.RequireFromString
	need = odoodouble.Need{Code: taken, Each: 0.25}
)

// bench is a double of Odoo behind a proxy that loses things.
type bench struct {
	*odoodouble.System
	proxy  *connectortest.Proxy
	change func(*odoo.Config)

	mu    sync.Mutex
	traps odoodouble.Traps // that stay set
}

func newBench(t testing.TB, opt odoodouble.Options, change func(*odoo.Config)) *bench {
	t.Helper()
	b := &bench{System: odoodouble.New(opt), change: change}
	b.PutProduct(maker, "Units", "none")
	b.PutProduct(taken, "kg", "none")
	b.PutStock(taken, 100000)
	server := httptest.NewServer(b.Handler())
	t.Cleanup(server.Close)
	b.proxy = connectortest.NewProxy(t, server.URL)
	return b
}

func (b *bench) config() odoo.Config {
	cfg := odoo.Config{URL: b.proxy.URL, Password: odoodouble.Key, OperationType: "Shop Floor", ScrapLocation: "Virtual Locations/Scrap", Database: odoodouble.Database,
		Units: map[string]string{"Units": "C62", "kg": "KGM"}}
	if b.change != nil {
		b.change(&cfg)
	}
	return cfg
}

func (b *bench) connect(t testing.TB, change ...func(*odoo.Config)) *odoo.Connector {
	t.Helper()
	cfg := b.config()
	for _, f := range change {
		f(&cfg)
	}
	c, err := odoo.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (b *bench) order(_ testing.TB, quantity string) string {
	q, _ := d(quantity).Float64()
	return b.CreateOrder(maker, q, need)
}

func (b *bench) state(order, state string) {
	b.Change(order, time.Time{}, func(r map[string]any) { r["state"] = state })
}

// set sets traps beside those that stay set, and returns what ends them.
func (b *bench) set(f func(*odoodouble.Traps)) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	traps := b.traps
	f(&traps)
	b.SetTraps(traps)
	return func() { b.SetTraps(b.traps) }
}

func (b *bench) effects(_ testing.TB, order string) connectortest.Effects {
	x := b.Totals(order)
	e := connectortest.Effects{Yield: x.Yield, Scrap: x.Scrap, Issued: x.Issued[taken], Returned: x.Returned[taken], Documents: x.Documents}
	has := map[string]bool{}
	for _, state := range b.States(order) {
		has[state] = true
	}
	switch {
	case has["progress"], has["confirmed"] && x.Documents > 0: // Odoo leaves an order that only made something as confirmed
		e.State = object.OrderInProgress
	case has["confirmed"]:
		e.State = object.OrderReleased
	case has["done"]:
		e.State = object.OrderCompleted
	case has["cancel"]:
		e.State = object.OrderCancelled
	}
	return e
}

func (b *bench) troubles() map[connectortest.Trouble]connectortest.Switch {
	trap := func(f func(*odoodouble.Traps)) connectortest.Switch {
		return func(testing.TB, string) func() { return b.set(f) }
	}
	becomes := func(state string) connectortest.Switch {
		return func(_ testing.TB, order string) func() {
			b.state(order, state)
			return func() { b.state(order, "confirmed") }
		}
	}
	return map[connectortest.Trouble]connectortest.Switch{
		connectortest.OrderLocked: func(_ testing.TB, order string) func() {
			b.Lock(order, true)
			return func() { b.Lock(order, false) }
		},
		connectortest.SystemBusy:       trap(func(t *odoodouble.Traps) { t.Busy = true }),
		connectortest.Throttled:        trap(func(t *odoodouble.Traps) { t.Throttle = true }),
		connectortest.NoRight:          trap(func(t *odoodouble.Traps) { t.Deny = true }),
		connectortest.PeriodClosed:     trap(func(t *odoodouble.Traps) { t.Locked = true }),
		connectortest.OrderNotReleased: becomes("draft"),
		connectortest.OrderComplete:    becomes("done"),
		connectortest.ErrorInSuccess:   trap(func(t *odoodouble.Traps) { t.Wizard = "stock.backorder.confirmation" }),
		connectortest.OnlyClaimed:      trap(func(t *odoodouble.Traps) { t.ValidateLies = true }),
		connectortest.BookedOtherwise:  trap(func(t *odoodouble.Traps) { t.OtherQuantity = 11 }),
		connectortest.DuplicateKey:     trap(func(t *odoodouble.Traps) { t.KeyUnique = true }),
	}
}

var cannotShow = map[connectortest.Trouble]string{
	connectortest.StockMissing:   "Odoo books below zero",
	connectortest.MovementFailed: "a validation is one transaction; a draft whose validation is refused is shown in DraftWhoseValidationIsRefused",
	connectortest.BookedLater:    "a validation books at once",
	connectortest.BookedNever:    "a validation books at once",
	connectortest.ReadLate:       "shown in ReplicaThatLagsDoublesNothing",
	connectortest.NoSearch:       "without the field for the key nothing is posted, shown in NothingIsPostedWithoutAFieldForTheKey",
}

func (b *bench) harness() connectortest.Harness {
	return connectortest.Harness{
		Connect: func(t testing.TB) connector.Connector { return b.connect(t) },
		Item:    maker, ItemUnit: "C62", Component: taken, ComponentUnit: "KGM", PerItem: "0.25", Site: company,
		CreateOrder: b.order,
		ChangeQuantity: func(_ testing.TB, order, quantity string) {
			q, _ := d(quantity).Float64()
			b.Resize(order, q, time.Time{})
		},
		CancelOrder: func(_ testing.TB, order string) { b.Cancel(order) },
		CloseOrder:  func(_ testing.TB, order string) { b.Close(order) },
		Effects:     b.effects,
		Faults:      b.proxy,
		ChangeLate: func(_ testing.TB, order, quantity string) func() {
			began := time.Now().Add(-30 * time.Second)
			return func() {
				q, _ := d(quantity).Float64()
				b.Resize(order, q, began)
			}
		},
		Troubles: b.troubles(), CannotShow: cannotShow, FinishedEmpty: object.OrderCancelled, Listing: b.listing(), Stock: b.stock(),
	}
}

// stock has items in several pages, of which the connector cannot tell one.
func (b *bench) stock() connectortest.Stock {
	items := []string{taken}
	for i := range 20 {
		items = append(items, fmt.Sprintf("PART-%d", i))
		b.PutProduct(items[i+1], "Units", "none")
		b.PutStock(items[i+1], 3.5)
	}
	b.PutUnit("Coils")
	b.PutProduct("WIRE-3", "Coils", "none")
	b.PutStock("WIRE-3", 2)
	b.PutProduct("GONE", "Units", "none")
	b.PutStock("GONE", 0)
	return connectortest.Stock{Pages: func(t testing.TB) connector.Connector { return b.connect(t, func(c *odoo.Config) { c.PageSize = 7 }) }, Items: items,
		Empty: "GONE", Unmapped: "WIRE-3", Without: map[string]string{"Service": "a product that is not kept in stock has no quants, like one that is unknown"}}
}

func (b *bench) listing() connectortest.Listing {
	return connectortest.Listing{
		ByHand: func(_ testing.TB, order, yield string) {
			q, _ := d(yield).Float64()
			b.MakeByHand(order, q)
		},
		Double: func(_ testing.TB, p connector.Posting) { b.Again(p.Fact.Key.String()) },
		Pending: func(testing.TB, string) func() { // the draft is there, and its validation is refused
			return b.set(func(t *odoodouble.Traps) { t.Contended = true })
		},
		Without: map[string]string{"Pages": "a list is read whole, in one exchange"},
	}
}

func TestConformanceByJSON2(t *testing.T) {
	t.Parallel()
	connectortest.Run(t, newBench(t, odoodouble.Options{}, nil).harness())
}

// Version 16 by the older interface, with pages of three changes.
func TestConformanceByJSONRPC(t *testing.T) {
	t.Parallel()
	h := newBench(t, odoodouble.Options{Version: 16}, rpc).harness()
	h.Sparse = true
	connectortest.Run(t, h)
}

func rpc(c *odoo.Config) {
	c.API, c.User, c.PageSize = "jsonrpc", odoodouble.Login, 3
}

// Version 18 by the older interface, with work orders that are started and the key in the source document.
func TestConformanceWithWorkOrders(t *testing.T) {
	t.Parallel()
	h := newBench(t, odoodouble.Options{Version: 18, WorkOrders: true}, func(c *odoo.Config) {
		rpc(c)
		c.PageSize, c.KeyField, c.StartWorkOrders = 0, "origin", true
	}).harness()
	h.Sparse = true
	delete(h.Troubles, connectortest.DuplicateKey)
	h.CannotShow = map[connectortest.Trouble]string{connectortest.DuplicateKey: "nothing holds a source document unique"}
	for k, v := range cannotShow {
		h.CannotShow[k] = v
	}
	connectortest.Run(t, h)
}
