package sandbox_test

import (
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// bench is an ERP behind a proxy that loses things, with a clock that can be set back.
type bench struct {
	*erp.ERP
	proxy *connectortest.Proxy
	mu    sync.Mutex
	frost time.Time // what the clock shows while it is not zero
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{}
	e, err := erp.Open(t.TempDir(), erp.Options{FinishCloses: true, Now: b.now})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	if err := e.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(e.Handler())
	t.Cleanup(server.Close)
	b.ERP, b.proxy = e, connectortest.NewProxy(t, server.URL)
	b.proxy.EndSessions = e.ExpireTokens
	return b
}

func (b *bench) now() time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.frost.IsZero() {
		return b.frost
	}
	return time.Now()
}

func (b *bench) setClock(at time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.frost = at
}

func (b *bench) create(t testing.TB, quantity string) string {
	t.Helper()
	q := d(quantity)
	no, err := b.ReleaseOrder(t.Context(), erp.Order{Item: "BRACKET-10", Quantity: q, Site: "1000", WorkCenter: "press1",
		Components: []erp.Component{{Item: "STEEL-S235", Required: q.Mul(d("0.125"))}}})
	if err != nil {
		t.Fatal(err)
	}
	return no
}

func (b *bench) effects(t testing.TB, order string) connectortest.Effects {
	t.Helper()
	totals, err := b.Totals(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	o := totals.Orders[order]
	return connectortest.Effects{Yield: o.Yield, Scrap: o.Scrap, Issued: o.Issued["STEEL-S235"], Returned: o.Returned["STEEL-S235"], Documents: o.Documents,
		State: map[string]object.OrderState{erp.Released: object.OrderReleased, erp.Started: object.OrderInProgress, erp.Finished: object.OrderCompleted,
			erp.Closed: object.OrderClosed, erp.Cancelled: object.OrderCancelled}[o.State]}
}

// confirm books without the connector.
func (b *bench) confirm(t testing.TB, order, yield, key string) {
	t.Helper()
	if _, err := b.Post(t.Context(), erp.Request{Kind: erp.KindConfirmation, OrderNo: order, Item: "BRACKET-10", Unit: "C62", Yield: d(yield), ExternalKey: key}); err != nil {
		t.Fatal(err)
	}
}

// troubles is every trouble there is: the sandbox can be made to do all of them.
func (b *bench) troubles() map[connectortest.Trouble]connectortest.Switch {
	faults := func(f erp.Faults) connectortest.Switch {
		return func(testing.TB, string) func() {
			b.SetFaults(f)
			return func() { b.SetFaults(erp.Faults{}) }
		}
	}
	must := func(t testing.TB, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	period := time.Now().UTC().Format("2006-01")
	closed := func(t testing.TB, _ string) func() {
		must(t, b.SetPeriod(t.Context(), period, false))
		return func() { must(t, b.SetPeriod(t.Context(), period, true)) }
	}
	later := erp.Duration(200 * time.Millisecond)
	return map[connectortest.Trouble]connectortest.Switch{
		connectortest.OrderLocked: func(_ testing.TB, order string) func() {
			b.Lock(order, "PLANNER")
			return func() { b.Unlock(order) }
		},
		connectortest.SystemBusy:   faults(erp.Faults{Busy: 1}),
		connectortest.Throttled:    faults(erp.Faults{Throttle: 1}),
		connectortest.PeriodClosed: closed,
		connectortest.OrderNotReleased: func(t testing.TB, order string) func() {
			must(t, b.Withdraw(t.Context(), order))
			return func() { must(t, b.Reopen(t.Context(), order)) }
		},
		connectortest.OrderComplete: func(t testing.TB, order string) func() {
			must(t, b.CompleteOrder(t.Context(), order))
			return func() { must(t, b.Reopen(t.Context(), order)) }
		},
		connectortest.StockMissing: func(t testing.TB, _ string) func() {
			stock, err := b.Stock(t.Context(), []string{"STEEL-S235"})
			must(t, err)
			all := stock[0]
			all.OnHand = all.OnHand.Neg()
			must(t, b.PutItem(t.Context(), all))
			return func() { must(t, b.PutItem(t.Context(), stock[0])) }
		},
		connectortest.NoRight: faults(erp.Faults{Deny: 1}),
		connectortest.MovementFailed: func(t testing.TB, _ string) func() {
			b.SetFaults(erp.Faults{HalfApply: 1})
			return func() {
				b.SetFaults(erp.Faults{})
				_, err := b.Reprocess(t.Context())
				must(t, err)
			}
		},
		connectortest.ErrorInSuccess:  faults(erp.Faults{ErrorFlag: 1}),
		connectortest.OnlyClaimed:     faults(erp.Faults{Phantom: 1}),
		connectortest.BookedOtherwise: faults(erp.Faults{Misbook: 1}),
		connectortest.BookedLater:     faults(erp.Faults{Delay: 1, DelayFor: later}),
		connectortest.BookedNever: func(t testing.TB, order string) func() {
			b.SetFaults(erp.Faults{Delay: 1, DelayFor: later})
			open := closed(t, order)
			return func() { b.SetFaults(erp.Faults{}); open() }
		},
		connectortest.ReadLate:     faults(erp.Faults{ReadLag: later}),
		connectortest.DuplicateKey: faults(erp.Faults{UniqueKeys: true}),
		connectortest.NoSearch:     faults(erp.Faults{NoSearch: true}),
	}
}

func TestConformance(t *testing.T) {
	b := newBench(t)
	must := func(t testing.TB, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	connectortest.Run(t, connectortest.Harness{
		Connect: func(t testing.TB) connector.Connector {
			c, err := sandbox.New(sandbox.Config{URL: b.proxy.URL, User: "linekeeper", Password: "sandbox", Settle: 500 * time.Millisecond})
			must(t, err)
			return c
		},
		Item: "BRACKET-10", Component: "STEEL-S235", ItemUnit: "C62", ComponentUnit: "KGM", PerItem: "0.125", Site: "1000",
		CreateOrder: b.create,
		ChangeQuantity: func(t testing.TB, order, quantity string) {
			must(t, b.ERP.ChangeQuantity(t.Context(), order, d(quantity)))
		},
		CancelOrder:    func(t testing.TB, order string) { must(t, b.Cancel(t.Context(), order)) },
		CloseOrder:     func(t testing.TB, order string) { must(t, b.ERP.CloseOrder(t.Context(), order)) },
		Effects:        b.effects,
		Faults:         b.proxy,
		ExpireSessions: func(testing.TB) { b.ExpireTokens() },
		ChangeLate: func(t testing.TB, order, quantity string) func() {
			began := time.Now().Add(-30 * time.Second)
			return func() {
				b.setClock(began)
				defer b.setClock(time.Time{})
				must(t, b.ERP.ChangeQuantity(t.Context(), order, decimal.RequireFromString(quantity)))
			}
		},
		Troubles:      b.troubles(),
		LossyPostings: 300,
		Stock: connectortest.Stock{Without: map[string]string{"Pages": "one answer holds all", "Empty": "each item of the demo is in stock", "Service": "it keeps all items in stock",
			"Unmapped": "its units are the hub's own"}},
		Listing: connectortest.Listing{
			ByHand: func(t testing.TB, order, yield string) { b.confirm(t, order, yield, "") },
			Double: func(t testing.TB, p connector.Posting) {
				b.confirm(t, p.Fact.OrderNo(), p.Fact.Confirmation.Yield.String(), p.Fact.Key.String())
			},
			Without: map[string]string{"Pages": "one answer holds all documents of an order in one snapshot", "Pending": "what waits is in no list of the sandbox; a look-up says that it may still appear"},
		},
	})
}
