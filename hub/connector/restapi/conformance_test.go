package restapi_test

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/restapi"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
)

func d(text string) decimal.Decimal { return decimal.RequireFromString(text) }

// load reads a configuration as the hub does, with a password beside it.
func load(t testing.TB, text string) restapi.Config {
	t.Helper()
	var cfg restapi.Config
	if err := yaml.Load([]byte(text), &cfg, yaml.WithKnownFields(), yaml.WithUniqueKeys()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "erp-password.txt"), []byte("sandbox\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, f := range cfg.Files() {
		if *f != "" {
			*f = filepath.Join(dir, *f)
		}
	}
	return cfg
}

// bench is the ERP sandbox behind a proxy that loses things. The connector knows it by the sample of its configuration alone.
type bench struct {
	*erp.ERP
	proxy  *connectortest.Proxy
	change func(*restapi.Config)
	mu     sync.Mutex
	frost  time.Time // what the clock shows while it is not zero
}

func newBench(t testing.TB) *bench {
	t.Helper()
	b := &bench{}
	e, err := erp.Open(t.TempDir(), erp.Options{User: "hub", Password: "sandbox", FinishCloses: true, Now: b.now})
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

func (b *bench) connect(t testing.TB) connector.Connector {
	t.Helper()
	cfg := load(t, restapi.Sample)
	cfg.URL, cfg.Settle, cfg.Orders.PageSize = b.proxy.URL+"/api", 500*time.Millisecond, 500
	for _, p := range []*restapi.Posting{cfg.Postings["production_confirmation"], cfg.Postings["material_consumption"]} {
		p.ValidFor, p.Reverse.ValidFor = 500*time.Millisecond, 500*time.Millisecond
		p.Verify.Within, p.Reverse.Verify.Within = 0, 0
	}
	if b.change != nil {
		b.change(&cfg)
	}
	c, err := restapi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
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

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// faults sets the sandbox's faults on top of those that always hold.
func (b *bench) faults(always erp.Faults, set func(*erp.Faults)) connectortest.Switch {
	return func(testing.TB, string) func() {
		f := always
		set(&f)
		b.SetFaults(f)
		return func() { b.SetFaults(always) }
	}
}

// troubles is every trouble there is: the sandbox can be made to do all of them.
func (b *bench) troubles(always erp.Faults) map[connectortest.Trouble]connectortest.Switch {
	period := time.Now().UTC().Format("2006-01")
	closed := func(t testing.TB, _ string) func() {
		must(t, b.SetPeriod(t.Context(), period, false))
		return func() { must(t, b.SetPeriod(t.Context(), period, true)) }
	}
	later := erp.Duration(200 * time.Millisecond)
	faults := func(set func(*erp.Faults)) connectortest.Switch { return b.faults(always, set) }
	delay := faults(func(f *erp.Faults) { f.Delay, f.DelayFor = 1, later })
	return map[connectortest.Trouble]connectortest.Switch{
		connectortest.OrderLocked: func(_ testing.TB, order string) func() {
			b.Lock(order, "PLANNER")
			return func() { b.Unlock(order) }
		},
		connectortest.SystemBusy:   faults(func(f *erp.Faults) { f.Busy = 1 }),
		connectortest.Throttled:    faults(func(f *erp.Faults) { f.Throttle = 1 }),
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
		connectortest.NoRight: faults(func(f *erp.Faults) { f.Deny = 1 }),
		connectortest.MovementFailed: func(t testing.TB, order string) func() {
			end := faults(func(f *erp.Faults) { f.HalfApply = 1 })(t, order)
			return func() {
				end()
				_, err := b.Reprocess(t.Context())
				must(t, err)
			}
		},
		connectortest.ErrorInSuccess:  faults(func(f *erp.Faults) { f.ErrorFlag = 1 }),
		connectortest.OnlyClaimed:     faults(func(f *erp.Faults) { f.Phantom = 1 }),
		connectortest.BookedOtherwise: faults(func(f *erp.Faults) { f.Misbook = 1 }),
		connectortest.BookedLater:     delay,
		connectortest.BookedNever: func(t testing.TB, order string) func() {
			end, open := delay(t, order), closed(t, order)
			return func() { end(); open() }
		},
		connectortest.ReadLate:     faults(func(f *erp.Faults) { f.ReadLag = later }),
		connectortest.DuplicateKey: faults(func(f *erp.Faults) { f.UniqueKeys = true }),
		connectortest.NoSearch:     faults(func(f *erp.Faults) { f.NoSearch = true }),
	}
}

func (b *bench) conform(t *testing.T, always erp.Faults) { connectortest.Run(t, b.harness(always)) }

func (b *bench) harness(always erp.Faults) connectortest.Harness {
	b.SetFaults(always)
	return connectortest.Harness{
		Connect: b.connect,
		Item:    "BRACKET-10", Component: "STEEL-S235", ItemUnit: "C62", ComponentUnit: "KGM", PerItem: "0.125", Site: "1000",
		CreateOrder: b.create,
		ChangeQuantity: func(t testing.TB, order, quantity string) {
			must(t, b.ERP.ChangeQuantity(t.Context(), order, d(quantity)))
		},
		CancelOrder: func(t testing.TB, order string) { must(t, b.Cancel(t.Context(), order)) },
		CloseOrder:  func(t testing.TB, order string) { must(t, b.ERP.CloseOrder(t.Context(), order)) },
		Effects:     b.effects,
		Faults:      b.proxy,
		ChangeLate: func(t testing.TB, order, quantity string) func() {
			began := time.Now().Add(-30 * time.Second)
			return func() {
				b.setClock(began)
				defer b.setClock(time.Time{})
				must(t, b.ERP.ChangeQuantity(t.Context(), order, decimal.RequireFromString(quantity)))
			}
		},
		Troubles: b.troubles(always),
		Listing: connectortest.Listing{
			ByHand: func(t testing.TB, order, yield string) {
				_, err := b.Post(t.Context(), erp.Request{Kind: erp.KindConfirmation, OrderNo: order, Item: "BRACKET-10", Unit: "C62", Yield: d(yield)})
				must(t, err)
			},
			Without: map[string]string{"Pages": "the sandbox gives all documents of an order in one answer", "Pending": "what waits is in no list of the sandbox",
				"Failed": "the effects' map says nothing of movements"},
		},
	}
}

// TestConformanceOfTheSample: the sandbox takes a key twice, and refuses a request whose time is over.
func TestConformanceOfTheSample(t *testing.T) {
	t.Parallel()
	newBench(t).conform(t, erp.Faults{})
}

// TestConformanceOfAKeyThatIsTakenOnce: the system refuses a second document with a key, and nothing but that keeps a late request
// from taking effect.
func TestConformanceOfAKeyThatIsTakenOnce(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.change = func(cfg *restapi.Config) {
		for _, p := range cfg.Postings {
			p.Once, p.ValidFor = true, 0
			p.Lookup.Pending = "body.pending"
			delete(p.Body.(map[string]any), "valid_until")
			if r := p.Reverse; r != nil {
				r.Once, r.ValidFor = true, 0
				delete(r.Body.(map[string]any), "valid_until")
			}
		}
	}
	b.conform(t, erp.Faults{UniqueKeys: true})
}

// TestNothingIsProvenByAnAnswerThatIsReadLate: by the configuration a while must pass, or nothing is ever a proof.
func TestNothingIsProvenByAnAnswerThatIsReadLate(t *testing.T) {
	t.Parallel()
	after := 300 * time.Millisecond
	for name, absentAfter := range map[string]*time.Duration{"AbsentAfter": &after, "NeverAbsent": nil} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t)
			b.change = func(cfg *restapi.Config) {
				l := cfg.Postings["production_confirmation"].Lookup
				l.Pending, l.AbsentAfter = "body.pending", absentAfter
			}
			connectortest.RunLateAnswers(t, b.harness(erp.Faults{}), b.proxy, 0)
		})
	}
}
