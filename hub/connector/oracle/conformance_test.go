package oracle_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/oracle"
	"github.com/linekeeper/linekeeper/hub/connector/oracle/oracledouble"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

const (
	maker  = "CB-100"
	taken  = "STEEL-2"
	settle = 250 * time.Millisecond
)

var d = decimal.RequireFromString

// bench is a double of Oracle Fusion behind a proxy that loses things.
type bench struct {
	*oracledouble.System
	proxy *connectortest.Proxy
	traps oracledouble.Traps // that stay set
}

func newBench(t testing.TB, traps oracledouble.Traps) *bench {
	t.Helper()
	b := &bench{System: oracledouble.New(), traps: traps}
	b.SetTraps(traps)
	b.PutStock(taken, d("100000"))
	b.PutStock(maker, d("0"))
	server := httptest.NewServer(b.Handler())
	t.Cleanup(server.Close)
	b.proxy = connectortest.NewProxy(t, server.URL)
	return b
}

func (b *bench) connect(t testing.TB, change ...func(*oracle.Config)) *oracle.Connector {
	t.Helper()
	cfg := oracle.Config{URL: b.proxy.URL, User: "LINEKEEPER", Password: "secret", SourceSystem: "LINEKEEPER", Units: map[string]string{"Ea": "C62", "KG": "KGM"},
		Settle: settle, AbsentAfter: 2 * settle, SingleWriter: true, PageSize: 7}
	for _, f := range change {
		f(&cfg)
	}
	c, err := oracle.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (b *bench) order(_ testing.TB, quantity string) string {
	q := d(quantity)
	return b.CreateOrder(oracledouble.Order{Organization: "M1", Item: maker, Unit: "Ea", Status: "ORA_RELEASED", Quantity: q,
		Operations: []oracledouble.Operation{{Sequence: 10, Name: "Assemble", WorkCenter: "WC1"}},
		Components: []oracledouble.Component{{Item: taken, Unit: "KG", Operation: 10, Required: q.Mul(d("0.125"))}}})
}

func (b *bench) change(t testing.TB, order string, f func(*oracledouble.Order)) {
	t.Helper()
	if err := b.ChangeAt(order, time.Now(), f); err != nil {
		t.Fatal(err)
	}
}

// set sets traps beside those that stay set, and returns what ends them.
func (b *bench) set(f func(*oracledouble.Traps)) func() {
	traps := b.traps
	f(&traps)
	b.SetTraps(traps)
	return func() { b.SetTraps(b.traps) }
}

func resize(quantity string) func(*oracledouble.Order) {
	return func(o *oracledouble.Order) {
		o.Quantity = d(quantity)
		for i := range o.Components {
			o.Components[i].Required = o.Quantity.Mul(d("0.125"))
		}
	}
}

func status(code string) func(*oracledouble.Order) {
	return func(o *oracledouble.Order) { o.Status = code }
}

func (b *bench) effects(_ testing.TB, order string) connectortest.Effects {
	x := b.Totals(order, taken)
	e := connectortest.Effects{Yield: x.Completed, Scrap: x.Scrapped, Issued: x.Issued, Returned: x.Returned, Documents: x.Requests}
	switch {
	case x.Status == "ORA_CANCELED":
		e.State = object.OrderCancelled
	case x.Status != "ORA_RELEASED":
		e.State = object.OrderCompleted
	case x.Requests > 0:
		e.State = object.OrderInProgress
	default:
		e.State = object.OrderReleased
	}
	return e
}

func (b *bench) troubles() map[connectortest.Trouble]connectortest.Switch {
	trap := func(f func(*oracledouble.Traps)) connectortest.Switch {
		return func(testing.TB, string) func() { return b.set(f) }
	}
	flip := func(code string) connectortest.Switch {
		return func(t testing.TB, order string) func() {
			b.change(t, order, status(code))
			return func() { b.change(t, order, status("ORA_RELEASED")) }
		}
	}
	month := time.Now().UTC().Format("2006-01")
	return map[connectortest.Trouble]connectortest.Switch{
		connectortest.OrderLocked: func(_ testing.TB, order string) func() {
			b.Lock(order, true)
			return func() { b.Lock(order, false) }
		},
		connectortest.SystemBusy: trap(func(t *oracledouble.Traps) { t.Busy = true }),
		connectortest.Throttled:  trap(func(t *oracledouble.Traps) { t.Throttle = true }),
		connectortest.NoRight:    trap(func(t *oracledouble.Traps) { t.Deny = true }),
		connectortest.PeriodClosed: func(testing.TB, string) func() {
			b.Shut(month, true)
			return func() { b.Shut(month, false) }
		},
		connectortest.OrderNotReleased: flip("ORA_UNRELEASED"),
		connectortest.OrderComplete:    flip("ORA_COMPLETED"),
		connectortest.StockMissing: func(testing.TB, string) func() {
			b.PutStock(taken, d("1"))
			return func() { b.PutStock(taken, d("100000")) }
		},
		connectortest.ErrorInSuccess:  trap(func(t *oracledouble.Traps) { t.ErrorInside = "WIE_SOMETHING_NEW" }),
		connectortest.OnlyClaimed:     trap(func(t *oracledouble.Traps) { t.OnlyClaimed = true }),
		connectortest.BookedOtherwise: trap(func(t *oracledouble.Traps) { t.OtherQuantity = "11" }),
		connectortest.ReadLate:        trap(func(t *oracledouble.Traps) { t.VisibleAfter = 100 * time.Millisecond }),
	}
}

var cannotShow = map[connectortest.Trouble]string{
	connectortest.MovementFailed: "Oracle books all of a request or nothing",
	connectortest.BookedLater:    "Oracle books before it answers; that the effect can be read late is shown",
	connectortest.BookedNever:    "Oracle refuses in its answer, shown as an error inside of a success",
	connectortest.DuplicateKey:   "nothing says that Oracle refuses a second transaction with one reference",
	connectortest.NoSearch:       "shown in OthersPostTooSoNobodyCanTell and NothingIsPostedWhileTheSearchIsRefused",
}

func (b *bench) harness(change ...func(*oracle.Config)) connectortest.Harness {
	return connectortest.Harness{
		Connect: func(t testing.TB) connector.Connector { return b.connect(t, change...) },
		Item:    maker, ItemUnit: "C62", Component: taken, ComponentUnit: "KGM", PerItem: "0.125", Site: "M1",
		CreateOrder:    b.order,
		ChangeQuantity: func(t testing.TB, order, quantity string) { b.change(t, order, resize(quantity)) },
		CancelOrder:    func(t testing.TB, order string) { b.change(t, order, status("ORA_CANCELED")) },
		CloseOrder:     func(t testing.TB, order string) { b.change(t, order, status("ORA_COMPLETED")) },
		Effects:        b.effects,
		Faults:         b.proxy,
		ChangeLate: func(t testing.TB, order, quantity string) func() {
			began := time.Now().Add(-30 * time.Second)
			return func() {
				if err := b.ChangeAt(order, began, resize(quantity)); err != nil {
					t.Fatal(err)
				}
			}
		},
		Troubles: b.troubles(), CannotShow: cannotShow, LossyPostings: 100,
	}
}

func TestConformanceByReference(t *testing.T) {
	t.Parallel()
	b := newBench(t, oracledouble.Traps{MostRows: 5})
	h := b.harness()
	h.Listing = connectortest.Listing{
		Pages: 5, NoScrap: "no inventory transaction shows scrap",
		ByHand:  func(_ testing.TB, order, yield string) { b.PostByHand(order, d(yield)) },
		Without: map[string]string{"Pending": "Oracle books before it answers"},
	}
	connectortest.Run(t, h)
}

// Totals before and after a posting are all there is where references cannot be read. A newer release answers by a boolean.
func TestConformanceByTotals(t *testing.T) {
	t.Parallel()
	traps := oracledouble.Traps{FlagIsBoolean: true, MostRows: 3, NoReference: true, NoCompletedRead: true}
	h := newBench(t, traps).harness(func(c *oracle.Config) { c.Lookup = "totals" })
	h.Listing.Not = "by totals no transaction can be told from another"
	connectortest.Run(t, h)
}
