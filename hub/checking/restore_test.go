package checking_test

import (
	"context"
	"database/sql"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/checking"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// plant is a store, a posting engine at work, and the ERP sandbox behind a server that outlives it.
type plant struct {
	t       *testing.T
	s       *store.Store
	engine  *posting.Engine
	check   *checking.Checker
	dir     string
	erp     *erp.ERP
	handler atomic.Pointer[http.Handler]
	agent   store.Agent
	orders  []string
	seq     uint64
	made    map[string]decimal.Decimal // what was meant, by order
	facts   []object.Fact

	connectors map[string]connector.Connector
}

func newPlant(t *testing.T) *plant {
	t.Helper()
	p := &plant{t: t, dir: t.TempDir(), made: map[string]decimal.Decimal{}}
	p.open("erp.db")
	if err := p.erp.SeedDemo(t.Context()); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*p.handler.Load()).ServeHTTP(w, r) }))
	t.Cleanup(func() { server.Close(); p.erp.Close() })
	c, err := sandbox.New(sandbox.Config{Name: "erp", URL: server.URL, User: "linekeeper", Password: "sandbox", Settle: 200 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	p.hub(c)
	for range 4 {
		p.release(c)
	}
	return p
}

// hub opens a store and sets a posting engine to work on an ERP; change is what the plant's policy has of its own.
func (p *plant) hub(c connector.Connector, change ...func(*reconcile.Policy)) {
	t := p.t
	t.Helper()
	var err error
	if p.s, err = store.Open(t.Context(), filepath.Join(p.dir, "hub.db"), store.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := p.s.Update(t.Context(), func(tx *store.Tx) (err error) { p.agent, err = tx.AgentByName("ulm", "line1"); return err }); err != nil {
		t.Fatal(err)
	}
	connectors := map[string]connector.Connector{"erp": c}
	p.engine = posting.New(posting.Options{Store: p.s, Connectors: connectors})
	p.connectors = connectors
	p.policy(func(policy *reconcile.Policy) {
		for _, f := range change {
			f(policy)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- p.engine.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		p.s.Close()
	})
}

// policy makes a checker with other rules.
func (p *plant) policy(change func(*reconcile.Policy)) {
	policy := reconcile.DefaultPolicy()
	policy.Settle = 0
	change(&policy)
	p.check = checking.New(checking.Options{Store: p.s, Connectors: p.connectors, Books: p.engine, Policy: policy})
}

func (p *plant) open(file string) {
	p.t.Helper()
	e, err := erp.Open(filepath.Join(p.dir, file), erp.Options{})
	if err != nil {
		p.t.Fatal(err)
	}
	p.erp = e
	h := e.Handler()
	p.handler.Store(&h)
}

func (p *plant) release(c *sandbox.Connector) {
	p.t.Helper()
	no, err := p.erp.ReleaseDemoOrder(p.t.Context(), "1000", "press1", 0, 1000)
	if err != nil {
		p.t.Fatal(err)
	}
	p.know(c, no)
}

// know brings an order to the hub.
func (p *plant) know(c connector.Connector, no string) {
	p.t.Helper()
	o, err := c.Get(p.t.Context(), no)
	if err != nil {
		p.t.Fatal(err)
	}
	o.Plant, o.Revision = "ulm", 1
	if err := p.s.Update(p.t.Context(), func(tx *store.Tx) error {
		return tx.PutOrder(store.Order{Order: o, Agent: "line1", Content: []byte("c")}, true)
	}); err != nil {
		p.t.Fatal(err)
	}
	p.orders = append(p.orders, no)
}

// produce sends n confirmations and as many consumptions of each order, and waits until they are in the books.
func (p *plant) produce(n int) {
	p.t.Helper()
	p.send(n)
	p.verified()
}

// send is produce without the waiting.
func (p *plant) send(n int) {
	p.t.Helper()
	var facts []object.Fact
	for _, no := range p.orders {
		for range n {
			p.seq++
			yield := decimal.NewFromInt(int64(1 + p.seq%7))
			f := p.fact(object.KindConfirmation)
			f.Confirmation = &object.Confirmation{OrderNo: no, Operation: "0010", Item: "BRACKET-10", Unit: "C62", Yield: yield, CounterRange: &object.CounterRange{
				Tag: "good " + no, Epoch: "1", From: p.made[no], To: p.made[no].Add(yield)}}
			p.made[no] = p.made[no].Add(yield)
			p.seq++
			use := p.fact(object.KindConsumption)
			use.Consumption = &object.Consumption{OrderNo: no, Item: "STEEL-S235", Movement: object.Issue, Quantity: object.Quantity{Value: yield.Mul(decimal.RequireFromString("0.12")), Unit: "KGM"}}
			facts = append(facts, f, use)
		}
	}
	p.deliver(facts...)
}

// deliver brings facts to the hub; each has counted seq up.
func (p *plant) deliver(facts ...object.Fact) {
	p.t.Helper()
	var records []store.Record
	for _, f := range facts {
		body, err := wire.EncodeFact(f)
		if err != nil {
			p.t.Fatal(err)
		}
		records = append(records, store.Record{Key: f.Key, Body: body})
		p.facts = append(p.facts, f)
	}
	first := p.seq - uint64(len(records)) + 1
	if _, err := p.s.AppendFacts(p.t.Context(), []store.Batch{{AgentID: p.agent.ID, Agent: "ulm/line1", Generation: "g", FirstSeq: first, Records: records}}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) fact(kind object.Kind) object.Fact {
	position := factkey.Position("restore", fmt.Sprint(p.seq))
	now := time.Now().In(time.FixedZone("", 3600)).Truncate(time.Second)
	return object.Fact{Key: factkey.Of(position), Kind: kind, Plant: "ulm", Source: "press", Rule: "r", TimeZone: "Europe/Berlin", Position: position, OccurredAt: now, RecordedAt: now}
}

func (p *plant) verified() {
	p.t.Helper()
	realparts.Eventually(p.t, 30*time.Second, "all facts are in the books", func() error {
		n, err := p.s.CountPostings(p.t.Context(), store.PostingFilter{State: store.PostingVerified})
		if err == nil && n != int64(len(p.facts)) {
			err = fmt.Errorf("%d of %d are verified", n, len(p.facts))
		}
		return err
	})
}

// copyTo writes the ERP's books to a file, as a backup does.
func (p *plant) copyTo(file string) {
	p.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(p.dir, "erp.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec("VACUUM INTO ?", filepath.Join(p.dir, file)); err != nil {
		p.t.Fatal(err)
	}
}

// restore puts the books back to a copy while the hub runs.
func (p *plant) restore(file string) {
	p.t.Helper()
	down := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	p.handler.Store(&down)
	if err := p.erp.Close(); err != nil {
		p.t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(p.dir, file)); err != nil {
		p.t.Fatal(err)
	}
	p.open(file)
}

// balanced compares the books with what was meant.
func (p *plant) balanced() {
	p.t.Helper()
	totals, err := p.erp.Totals(p.t.Context())
	if err != nil {
		p.t.Fatal(err)
	}
	if len(totals.Duplicates) > 0 {
		p.t.Errorf("documents are doubled: %+v", totals.Duplicates)
	}
	for _, no := range p.orders {
		o := totals.Orders[no]
		if !o.Yield.Equal(p.made[no]) || !o.Consumed["STEEL-S235"].Equal(p.made[no].Mul(decimal.RequireFromString("0.12"))) {
			p.t.Errorf("order %s: the books hold %s made and %s used, meant were %s made", no, o.Yield, o.Consumed["STEEL-S235"], p.made[no])
		}
	}
}

func (p *plant) all() store.Reconciliation {
	p.t.Helper()
	run, err := p.check.All(p.t.Context(), "asked", store.Compared{}, nil)
	if err != nil {
		p.t.Fatal(err)
	}
	return run
}

func TestARestoredERPIsFoundInOneRunAndBroughtForwardWithoutDoubles(t *testing.T) {
	p := newPlant(t)
	p.produce(5)
	if run := p.all(); run.Found != 0 || run.Facts != 40 || run.Documents != 40 || run.Unasked != 0 {
		t.Fatalf("before the restore: %+v", run)
	}
	p.copyTo("hour-ago.db")
	survived := len(p.facts)
	p.produce(4)
	p.restore("hour-ago.db")
	gone := int64(len(p.facts) - survived)
	run := p.all()
	t.Logf("restored: %d facts, %d documents left; one run found %d missing and began %d heals", run.Facts, run.Documents, run.Found, run.Begun)
	if run.Found != gone || run.Begun != gone {
		t.Errorf("the run found %d and began %d, want %d", run.Found, run.Begun, gone)
	}
	p.verified()
	p.balanced()
	// Taking a survivor for gone does no harm either: it is looked for before anything is sent.
	for _, f := range p.facts[:4] {
		if err := p.engine.Renew(t.Context(), f.Key.String(), "taken for gone", "test"); err != nil {
			t.Fatal(err)
		}
	}
	p.verified()
	p.balanced()
	if run := p.all(); run.Found != 0 || run.Documents != int64(len(p.facts)) {
		t.Errorf("after the heal: %+v", run)
	}
	live, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{Live: true}, store.Page{})
	if err != nil || len(live) > 0 {
		t.Errorf("still live: %+v %v", live, err)
	}
	healed, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{State: string(reconcile.Healed)}, store.Page{Limit: 500})
	if err != nil || int64(len(healed)) != gone {
		t.Errorf("%d are healed, want %d (%v)", len(healed), gone, err)
	}
	t.Logf("brought forward: %d documents, 0 doubled, %d discrepancies healed", len(p.facts), len(healed))
}

func TestASecondDocumentOfAKeyIsReversedOnceAndTheHealCounts(t *testing.T) {
	p := newPlant(t)
	p.produce(2)
	f := p.facts[0]
	if _, err := p.erp.Post(t.Context(), erp.Request{Kind: erp.KindConfirmation, ExternalKey: f.Key.String(), OrderNo: f.OrderNo(), Operation: "0010", Item: "BRACKET-10", Unit: "C62",
		Yield: f.Confirmation.Yield}); err != nil {
		t.Fatal(err)
	}
	run := p.all()
	if run.Found != 1 || run.Begun != 1 {
		t.Fatalf("%+v", run)
	}
	for range 2 {
		if again := p.all(); again.Found != 0 || again.Begun != 0 {
			t.Errorf("after the heal: %+v", again)
		}
	}
	totals, err := p.erp.Totals(t.Context())
	if err != nil || !totals.Orders[f.OrderNo()].Yield.Equal(p.made[f.OrderNo()]) {
		t.Errorf("the books hold %s, meant were %s (%v)", totals.Orders[f.OrderNo()].Yield, p.made[f.OrderNo()], err)
	}
	all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
	if err != nil || len(all) != 1 || all[0].Type != reconcile.Duplicate || all[0].State != reconcile.Healed {
		t.Fatalf("%+v %v", all, err)
	}
	one, err := p.s.Discrepancy(t.Context(), all[0].ID)
	if err != nil || len(one.Heals) != 1 || one.Heals[0].Made == "" || !one.Heals[0].Books {
		t.Fatalf("%+v %v", one, err)
	}
	if err := p.s.UndoHeal(t.Context(), one.Heals[0].ID, "anna", "both were right"); err != nil {
		t.Fatal(err)
	}
	if n, err := p.s.CountHeals(t.Context()); err != nil || n.Made != 1 || n.Undone != 1 {
		t.Errorf("%+v %v", n, err)
	}
}

func TestAnERPThatCannotBeAskedMakesNothingMissing(t *testing.T) {
	p := newPlant(t)
	p.produce(1)
	down := http.Handler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }))
	p.handler.Store(&down)
	if run := p.all(); run.Found != 0 || run.Unasked != 4 {
		t.Errorf("%+v", run)
	}
}
