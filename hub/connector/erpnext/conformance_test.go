package erpnext_test

import (
	"fmt"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/erpnext"
	"github.com/linekeeper/linekeeper/hub/connector/erpnext/erpnextdouble"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

const (
	company = "Ulm Works"
	wip     = "WIP - U"
	maker   = "Valve 10"
	taken   = "Granulate"
)

var d = decimal.RequireFromString

var need = erpnextdouble.Need{Item: taken, Each: d("0.125")}

// bench is a double of ERPNext behind a proxy that loses things.
type bench struct {
	*erpnextdouble.System
	proxy *connectortest.Proxy

	mu    sync.Mutex
	traps erpnextdouble.Traps // that stay set
}

func newBench(t testing.TB, traps erpnextdouble.Traps, opt erpnextdouble.Options) *bench {
	t.Helper()
	b := &bench{System: erpnextdouble.New(opt), traps: traps}
	b.SetTraps(traps)
	b.PutItem(maker, "Nos")
	b.PutItem(taken, "Kg")
	b.PutStock(taken, wip, d("100000"))
	server := httptest.NewServer(b.Handler())
	t.Cleanup(server.Close)
	b.proxy = connectortest.NewProxy(t, server.URL)
	return b
}

func (b *bench) connect(t testing.TB, change ...func(*erpnext.Config)) *erpnext.Connector {
	t.Helper()
	cfg := erpnext.Config{URL: b.proxy.URL, User: "key", Password: "secret", Units: map[string]string{"Nos": "C62", "Kg": "KGM"}}
	for _, f := range change {
		f(&cfg)
	}
	c, err := erpnext.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (b *bench) order(_ testing.TB, quantity string) string {
	return b.CreateOrder(maker, d(quantity), need)
}

func (b *bench) change(t testing.TB, order string, f func(map[string]any)) {
	t.Helper()
	if err := b.Change(order, time.Time{}, f); err != nil {
		t.Fatal(err)
	}
}

// set sets traps beside those that stay set, and returns what ends them.
func (b *bench) set(f func(*erpnextdouble.Traps)) func() {
	b.mu.Lock()
	defer b.mu.Unlock()
	traps := b.traps
	f(&traps)
	b.SetTraps(traps)
	return func() { b.SetTraps(b.traps) }
}

func status(name string, docstatus int) func(map[string]any) {
	return func(o map[string]any) { o["status"], o["docstatus"] = name, docstatus }
}

func (b *bench) effects(_ testing.TB, order string) connectortest.Effects {
	x := b.Totals(order)
	e := connectortest.Effects{Yield: x.Yield, Scrap: x.Scrap, Issued: x.Issued[taken], Returned: x.Returned[taken], Documents: x.Documents}
	switch {
	case x.Status == "Cancelled":
		e.State = object.OrderCancelled
	case x.Status == "Closed":
		e.State = object.OrderClosed
	case x.Documents > 0 || x.Status == "In Process":
		e.State = object.OrderInProgress // ERPNext leaves an order that only consumed as not started
	default:
		e.State = object.OrderReleased
	}
	return e
}

func (b *bench) troubles() map[connectortest.Trouble]connectortest.Switch {
	trap := func(f func(*erpnextdouble.Traps)) connectortest.Switch {
		return func(testing.TB, string) func() { return b.set(f) }
	}
	becomes := func(name string, docstatus int) connectortest.Switch {
		return func(t testing.TB, order string) func() {
			b.change(t, order, status(name, docstatus))
			return func() { b.change(t, order, status("Not Started", 1)) }
		}
	}
	return map[connectortest.Trouble]connectortest.Switch{
		connectortest.OrderLocked: func(_ testing.TB, order string) func() {
			b.Lock(order, true)
			return func() { b.Lock(order, false) }
		},
		connectortest.SystemBusy:       trap(func(t *erpnextdouble.Traps) { t.Busy = true }),
		connectortest.Throttled:        trap(func(t *erpnextdouble.Traps) { t.Throttle = true }),
		connectortest.NoRight:          trap(func(t *erpnextdouble.Traps) { t.Deny = true }),
		connectortest.PeriodClosed:     trap(func(t *erpnextdouble.Traps) { t.FrozenUpto = time.Now().UTC().Format(time.DateOnly) }),
		connectortest.OrderNotReleased: becomes("Draft", 0),
		connectortest.OrderComplete:    becomes("Closed", 1),
		connectortest.StockMissing: func(testing.TB, string) func() {
			b.PutStock(taken, wip, d("1"))
			return func() { b.PutStock(taken, wip, d("100000")) }
		},
		connectortest.OnlyClaimed:     trap(func(t *erpnextdouble.Traps) { t.SubmitLies = true }),
		connectortest.BookedOtherwise: trap(func(t *erpnextdouble.Traps) { t.OtherQuantity = "11" }),
		connectortest.DuplicateKey:    trap(func(t *erpnextdouble.Traps) { t.Conflict409 = true }),
	}
}

var cannotShow = map[connectortest.Trouble]string{
	connectortest.MovementFailed: "a submit and its stock movements are one transaction; a draft whose submit failed is shown in DraftWhoseSubmitIsRefused",
	connectortest.ErrorInSuccess: "an exception always comes with an error status",
	connectortest.BookedLater:    "the interface submits at once; only the desk queues long entries",
	connectortest.BookedNever:    "the interface submits at once; only the desk queues long entries",
	connectortest.ReadLate:       "what is committed is read from the same database",
	connectortest.NoSearch:       "without the field for the key nothing is posted, shown in NothingIsPostedWithoutAUniqueKey",
}

func (b *bench) harness(change ...func(*erpnext.Config)) connectortest.Harness {
	return connectortest.Harness{
		Connect: func(t testing.TB) connector.Connector { return b.connect(t, change...) },
		Item:    maker, ItemUnit: "C62", Component: taken, ComponentUnit: "KGM", PerItem: "0.125", Site: company,
		CreateOrder: b.order,
		ChangeQuantity: func(t testing.TB, order, quantity string) {
			b.change(t, order, erpnextdouble.Resize(d(quantity), need))
		},
		CancelOrder: func(t testing.TB, order string) { b.change(t, order, status("Cancelled", 2)) },
		CloseOrder:  func(t testing.TB, order string) { b.change(t, order, status("Closed", 1)) },
		Effects:     b.effects,
		Faults:      b.proxy,
		ChangeLate: func(t testing.TB, order, quantity string) func() {
			began := time.Now().Add(-30 * time.Second)
			return func() {
				if err := b.Change(order, began, erpnextdouble.Resize(d(quantity), need)); err != nil {
					t.Fatal(err)
				}
			}
		},
		Troubles: b.troubles(), CannotShow: cannotShow, LossyPostings: 200, Stock: b.stock(),
		Listing: connectortest.Listing{
			Pages: 3, ByHand: b.byHand,
			Pending: b.troubles()[connectortest.OrderLocked], // the draft is there, and its submit is refused
			Without: map[string]string{"Double": "the database takes no second entry with one key"},
		},
	}
}

// stock has items in several pages, of which the connector cannot tell one.
func (b *bench) stock() connectortest.Stock {
	items := []string{taken}
	for i := range 50 {
		items = append(items, fmt.Sprintf("Part %d", i))
		b.PutItem(items[i+1], "Nos")
		b.PutStock(items[i+1], wip, d("3.5"))
	}
	b.PutItem("Rope", "Furlong")
	b.PutStock("Rope", wip, d("2"))
	b.PutItem("Gone", "Nos")
	b.PutStock("Gone", wip, d("0"))
	return connectortest.Stock{Pages: func(t testing.TB) connector.Connector {
		return b.connect(t, func(c *erpnext.Config) { c.PageSize = 7 })
	}, Items: items,
		Empty: "Gone", Unmapped: "Rope", Without: map[string]string{"Service": "an item that is not kept in stock has no bin, like one that is unknown"}}
}

// byHand is an entry that a person makes, without any key.
func (b *bench) byHand(t testing.TB, order, yield string) {
	t.Helper()
	if _, err := b.Manufacture(order, d(yield)); err != nil {
		t.Fatal(err)
	}
}

func TestConformance(t *testing.T) {
	t.Parallel()
	connectortest.Run(t, newBench(t, erpnextdouble.Traps{}, erpnextdouble.Options{OverPercent: 1000}).harness(func(c *erpnext.Config) { c.PageSize = 3 }))
}

// The newer interface, at a site that keeps six decimals and refuses a second key by 409, with pages of three orders.
func TestConformanceOfVersion2(t *testing.T) {
	t.Parallel()
	zone := time.FixedZone("UTC", 0)
	h := newBench(t, erpnextdouble.Traps{Conflict409: true}, erpnextdouble.Options{OverPercent: 1000, Precision: 6, Zone: zone}).harness(func(c *erpnext.Config) {
		c.API, c.Precision, c.PageSize = "v2", 6, 3
	})
	connectortest.Run(t, h)
}
