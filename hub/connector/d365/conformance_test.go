package d365_test

import (
	"net/http/httptest"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/d365"
	"github.com/linekeeper/linekeeper/hub/connector/d365/d365double"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

const (
	maker  = "A0001"
	taken  = "RM-7"
	settle = 250 * time.Millisecond
)

var d = decimal.RequireFromString

// bench is a double of D365 behind a proxy that loses things, tokens among them.
type bench struct {
	*d365double.System
	proxy *connectortest.Proxy
	traps d365double.Traps // that stay set
}

func newBench(t testing.TB, traps d365double.Traps) *bench {
	t.Helper()
	b := &bench{System: d365double.New(), traps: traps}
	b.SetTraps(traps)
	b.PutStock(taken, d("100000"))
	server := httptest.NewServer(b.Handler())
	t.Cleanup(server.Close)
	b.proxy = connectortest.NewProxy(t, server.URL)
	b.proxy.EndSessions = b.ExpireTokens
	return b
}

func (b *bench) connect(t testing.TB, change ...func(*d365.Config)) *d365.Connector {
	t.Helper()
	cfg := d365.Config{URL: b.proxy.URL, TokenURL: b.proxy.URL + "/tenant/oauth2/v2.0/token", ClientID: "LINEKEEPER", ClientSecret: "secret", Company: "USMF",
		Units: map[string]string{"ea": "C62", "kg": "KGM"}, KeyField: b.traps.KeyField, SingleWriter: true, Settle: settle, AbsentAfter: 2 * settle, PageSize: 7}
	for _, f := range change {
		f(&cfg)
	}
	c, err := d365.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func (b *bench) order(_ testing.TB, quantity string) string {
	q := d(quantity)
	return b.CreateOrder(d365double.Order{Company: "USMF", Item: maker, Unit: "ea", Site: "1", Status: "Released", Quantity: q,
		Components: []d365double.Component{{Item: taken, Unit: "kg", Flushing: "Finish", Required: q.Mul(d("0.125"))}}})
}

func (b *bench) change(t testing.TB, order string, f func(*d365double.Order)) {
	t.Helper()
	if err := b.ChangeAt(order, time.Now(), f); err != nil {
		t.Fatal(err)
	}
}

// set sets traps beside those that stay set, and returns what ends them.
func (b *bench) set(f func(*d365double.Traps)) func() {
	traps := b.traps
	f(&traps)
	b.SetTraps(traps)
	return func() { b.SetTraps(b.traps) }
}

func resize(quantity string) func(*d365double.Order) {
	return func(o *d365double.Order) {
		o.Quantity = d(quantity)
		for i := range o.Components {
			o.Components[i].Required = o.Quantity.Mul(d("0.125"))
		}
	}
}

func status(s string) func(*d365double.Order) { return func(o *d365double.Order) { o.Status = s } }

func (b *bench) effects(_ testing.TB, order string) connectortest.Effects {
	x := b.Totals(order, taken)
	states := map[string]object.OrderState{"Cancelled": object.OrderCancelled, "ReportedFinished": object.OrderCompleted, "StartedUp": object.OrderInProgress, "Released": object.OrderReleased}
	return connectortest.Effects{Yield: x.Good, Scrap: x.Bad, Issued: x.Issued, Returned: x.Returned, Documents: x.Journals, State: states[x.Status]}
}

func (b *bench) troubles() map[connectortest.Trouble]connectortest.Switch {
	trap := func(f func(*d365double.Traps)) connectortest.Switch {
		return func(testing.TB, string) func() { return b.set(f) }
	}
	flip := func(s string) connectortest.Switch {
		return func(t testing.TB, order string) func() {
			b.change(t, order, status(s))
			return func() { b.change(t, order, status("Released")) }
		}
	}
	month := time.Now().UTC().Format("2006-01")
	return map[connectortest.Trouble]connectortest.Switch{
		connectortest.Throttled: trap(func(t *d365double.Traps) { t.Throttle = true }),
		connectortest.NoRight:   trap(func(t *d365double.Traps) { t.Deny = true }),
		connectortest.PeriodClosed: func(testing.TB, string) func() {
			b.Shut(month, true)
			return func() { b.Shut(month, false) }
		},
		connectortest.OrderNotReleased: flip("Scheduled"),
		connectortest.OrderComplete:    flip("ReportedFinished"),
		connectortest.StockMissing: func(testing.TB, string) func() {
			b.PutStock(taken, d("1"))
			return func() { b.PutStock(taken, d("100000")) }
		},
		connectortest.BookedNever:     trap(func(t *d365double.Traps) { t.FailWith = "Voucher is missing." }),
		connectortest.BookedLater:     trap(func(t *d365double.Traps) { t.Delay = 100 * time.Millisecond }),
		connectortest.OnlyClaimed:     trap(func(t *d365double.Traps) { t.OnlyClaimed = true }),
		connectortest.BookedOtherwise: trap(func(t *d365double.Traps) { t.OtherQuantity = "11" }),
		connectortest.ReadLate:        trap(func(t *d365double.Traps) { t.VisibleAfter = 100 * time.Millisecond }),
	}
}

var cannotShow = map[connectortest.Trouble]string{
	connectortest.OrderLocked:    "the queue itself tries a message again, three times; then it has failed, which is shown",
	connectortest.SystemBusy:     "D365 says so by 429, which is shown",
	connectortest.ErrorInSuccess: "the answer only says that a message is queued",
	connectortest.MovementFailed: "a message is booked whole or not at all",
	connectortest.DuplicateKey:   "D365 does not refuse a second message",
	connectortest.NoSearch:       "shown in OthersPostTooSoNobodyCanTell and NothingIsPostedWhileTheListIsRefused",
}

// listing is what is done to the system past the connector.
func (b *bench) listing() connectortest.Listing {
	if b.traps.KeyField == "" {
		return connectortest.Listing{Not: "the journals carry no key"}
	}
	return connectortest.Listing{
		Pages: b.traps.MostRows,
		ByHand: func(t testing.TB, order, yield string) {
			if err := b.ReportByHand(order, d(yield)); err != nil {
				t.Fatal(err)
			}
		},
		Pending: func(testing.TB, string) func() {
			end := b.set(func(t *d365double.Traps) { t.Delay = time.Hour })
			return func() { end(); b.Hurry() }
		},
	}
}

func (b *bench) harness() connectortest.Harness {
	return connectortest.Harness{
		Listing: b.listing(),
		Connect: func(t testing.TB) connector.Connector { return b.connect(t) },
		Item:    maker, ItemUnit: "C62", Component: taken, ComponentUnit: "KGM", PerItem: "0.125", Site: "1",
		CreateOrder:    b.order,
		ChangeQuantity: func(t testing.TB, order, quantity string) { b.change(t, order, resize(quantity)) },
		CancelOrder:    func(t testing.TB, order string) { b.change(t, order, status("Cancelled")) },
		CloseOrder:     func(t testing.TB, order string) { b.change(t, order, status("ReportedFinished")) },
		Effects:        b.effects,
		Faults:         b.proxy,
		ExpireSessions: func(testing.TB) { b.ExpireTokens() },
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

// With the extension field the fact's key is found in messages and journals.
func TestConformanceWithKeyField(t *testing.T) {
	t.Parallel()
	connectortest.Run(t, newBench(t, d365double.Traps{Delay: 2 * time.Millisecond, KeyField: "LinekeeperFactKey", MostRows: 8}).harness())
}

// Without it, the message list and the sums of the journals are all there is.
func TestConformanceWithoutKey(t *testing.T) {
	t.Parallel()
	connectortest.Run(t, newBench(t, d365double.Traps{Delay: 2 * time.Millisecond, MostRows: 60}).harness())
}
