package e2e

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// seedOf is the seed of a random test: E2E_SEED, or a new one, which is printed.
func seedOf(t testing.TB) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("E2E_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatalf("E2E_SEED: %v", err)
		}
	}
	t.Logf("seed: E2E_SEED=%d", seed)
	return seed
}

const machines = 4

// plantConfig is the agent's sources and rules for the whole plant.
func plantConfig(t testing.TB, dir string, plant *realparts.Plant, broker *realparts.Broker, mesDSN string) string {
	t.Helper()
	realparts.WriteFile(t, dir+"/press-password.txt", "secret\n")
	realparts.WriteFile(t, dir+"/mes-dsn.txt", mesDSN+"\n")
	realparts.WriteFile(t, dir+"/mqtt-password.txt", "broker-secret\n")
	nodes, rules := "", ""
	for i := 1; i <= machines; i++ {
		for _, tag := range []string{"Good", "Scrap", "Order"} {
			nodes += fmt.Sprintf("      - {tag: press%d.%s, node: \"nsu=%s;s=Press%d.%s\", sampling: 0s, queue: 5000}\n", i, tag, realparts.PlantNamespace, i, tag)
		}
		for tag, counts := range map[string]string{"Good": "yield", "Scrap": "scrap"} {
			rules += fmt.Sprintf("  - {name: press%d %s, rule: counter, source: press, tag: press%d.%s, counts: %s, work_center: press%d, equipment: ulm/hall1/press%d, unit: C62, start_from_zero: true, close: {quantity: \"12\", every: 15s}}\n",
				i, counts, i, tag, counts, i, i)
		}
		rules += fmt.Sprintf("  - {name: press%d order, rule: state, source: press, tag: press%d.Order, work_center: press%d}\n", i, i, i)
	}
	return fmt.Sprintf(`
units: {Stk: C62, kg: KGM}
sources:
  - name: press
    kind: opcua
    endpoint: %s
    security_policy: Basic256Sha256
    security_mode: SignAndEncrypt
    user: {name: operator, password_file: press-password.txt}
    publishing_interval: 100ms
    nodes:
%s
  - name: broker
    kind: mqtt
    broker: %s
    username: linekeeper
    password_file: mqtt-password.txt
    topics:
      - {tag: consumption, topic: plant/ulm/+/consumption}
  - name: mes
    kind: mes
    driver: postgres
    dsn_file: mes-dsn.txt
    queries:
      - {tag: consumption, table: mes_consumption, key: [id], poll: 500ms}
    work_orders: {table: lk_work_order, create: true, answers: {poll: 300ms}}
rules:
%s
  - name: dosing
    rule: record
    source: broker
    tag: consumption
    fact: material_consumption
    id: payload.id
    fields: {order_no: payload.order, item: payload.item, quantity: payload.qty, unit: payload.unit, occurred_at: payload.ts}
  - name: screws
    rule: record
    source: mes
    tag: consumption
    fact: material_consumption
    fields: {order_no: payload.order_no, item: payload.item, quantity: payload.quantity, unit: payload.unit, occurred_at: payload.booked_at}
  - name: answers
    rule: record
    source: mes
    tag: work_order_answer
    fact: order_state
    fields: {order_no: payload.order_no, state: payload.status, revision: payload.revision, reason: payload.error_text, occurred_at: payload.changed_at}
    states: {ACCEPTED: accepted, REJECTED: rejected, STARTED: started, HELD: held, FINISHED: finished, CANCELLED: cancelled}
`, plant.Endpoint(), nodes, broker.URL(), rules)
}

func erpConfig(t testing.TB, dir string, erp *realparts.TrytonServer, url string) string {
	t.Helper()
	realparts.WriteFile(t, dir+"/erp-password.txt", erp.Password+"\n")
	return fmt.Sprintf(`
erps:
  - name: tryton
    kind: tryton
    url: %s
    user: %s
    password_file: erp-password.txt
dispatch: {every: 1s}
posting:
  quiet: 3s
routes:
  - {erp: tryton, plant: ulm, agent: line1}
`, url, erp.User)
}

// plantLine is everything of one run: real parts, product, MES and people.
type plantLine struct {
	*line
	plant  *realparts.Plant
	broker *realparts.Broker
	db     *realparts.Database
	erp    *realparts.TrytonServer
	mes    *mes
}

// newPlantLine starts all real parts and writes the configurations. erpURL may put something in front of the ERP.
func newPlantLine(t testing.TB, seed uint64, erpURL func(*realparts.TrytonServer) string) *plantLine {
	t.Helper()
	p := &plantLine{
		erp:    realparts.Tryton(t),
		plant:  realparts.NodeOPCUA(t, realparts.PlantOptions{Machines: machines}),
		broker: realparts.Mosquitto(t, realparts.MosquittoOptions{User: "linekeeper", Password: "broker-secret"}),
		db:     realparts.Postgres(t),
	}
	dsn := p.db.NewDatabase(t)
	db, err := sql.Open(p.db.Driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	if _, err := db.Exec(mesSchema); err != nil {
		t.Fatal(err)
	}
	p.mes = newMES(t, db, p.plant, p.broker, seed)
	p.line = newLine(t, func(dir string) (string, string) {
		return erpConfig(t, dir, p.erp, erpURL(p.erp)), plantConfig(t, dir, p.plant, p.broker, dsn)
	})
	return p
}

func (p *plantLine) start(t testing.TB) {
	t.Helper()
	p.hub.Start(t)
	p.agent.Start(t)
	p.trust(t, "press")
	p.sourcesOK(t)
}

// release makes n orders in the ERP, as a planner does, and returns their numbers.
func (p *plantLine) release(t testing.TB, n, quantity int) []string {
	t.Helper()
	var orders []string
	for range n {
		orders = append(orders, p.erp.CreateProductionOrder(t, realparts.TrytonOrder{Item: "FG-GEAR", Quantity: strconv.Itoa(quantity)}))
	}
	return orders
}

// seen waits until the agent's page shows every piece that the machines have made.
func (p *plantLine) seen(t testing.TB) {
	t.Helper()
	realparts.Eventually(t, 30*time.Second, "the page shows every piece made", func() error {
		want := int64(0)
		for _, m := range p.plant.Counts(t).Machines {
			want += m.Good + m.Scrap
		}
		s, err := p.status()
		if err != nil {
			return err
		}
		got := decimal.Zero
		for _, l := range s.Ledger {
			if l.Source == "press" {
				got = got.Add(decimal.RequireFromString(l.Counted))
			}
		}
		if !got.Equal(decimal.NewFromInt(want)) {
			return fmt.Errorf("machines made %d, the page shows %s", want, got)
		}
		return nil
	})
}

// truth is what was really made and consumed of an order.
type truth struct{ good, scrap, screws, steel decimal.Decimal }

func (p *plantLine) truth(t testing.TB, counts realparts.PlantCounts, order string) truth {
	t.Helper()
	var w truth
	for _, m := range counts.Machines {
		w.good = w.good.Add(decimal.NewFromInt(m.Orders[order].Good))
		w.scrap = w.scrap.Add(decimal.NewFromInt(m.Orders[order].Scrap))
	}
	p.mes.mu.Lock()
	defer p.mes.mu.Unlock()
	w.screws, w.steel = p.mes.consumed[order]["RM-SCREW"], p.mes.consumed[order]["RM-STEEL"]
	return w
}

func (p *plantLine) posted(t testing.TB, order string) truth {
	t.Helper()
	d := decimal.RequireFromString
	gear := p.erp.Effects(t, order, "FG-GEAR")
	return truth{d(gear.Yield), d(gear.Scrap), d(p.erp.Effects(t, order, "RM-SCREW").Issued), d(p.erp.Effects(t, order, "RM-STEEL").Issued)}
}

func (a truth) equal(b truth) bool {
	return a.good.Equal(b.good) && a.scrap.Equal(b.scrap) && a.screws.Equal(b.screws) && a.steel.Equal(b.steel)
}

func (a truth) String() string {
	return fmt.Sprintf("%s good, %s scrap, %s screws, %s kg steel", a.good, a.scrap, a.screws, a.steel)
}

// tally is the part of /v1/tally that the tests look at.
type tally struct {
	Sum         map[string]any   `json:"sum"`
	Differences []map[string]any `json:"differences"`
}

// settle waits until every order is closed in the ERP and the tally has no difference left.
func (p *plantLine) settle(t testing.TB, orders []string) {
	t.Helper()
	// Tryton answers in some 50 ms on a quiet machine, and in several times that on a busy one.
	realparts.Eventually(t, 8*time.Minute, "every order is closed in the ERP and nothing is open", func() error {
		for _, o := range orders {
			if s := p.erp.OrderState(t, o); s != "done" {
				return fmt.Errorf("order %s is %s in the ERP; %s", o, s, p.stuck())
			}
		}
		var y tally
		if err := p.get(p.hubHTTP+"/v1/tally", &y); err != nil {
			return err
		}
		if len(y.Differences) > 0 {
			return fmt.Errorf("%d differences, the first: %v", len(y.Differences), y.Differences[0])
		}
		return nil
	})
}

// stuck says what the hub says of postings that are not through.
func (p *plantLine) stuck() string {
	var list struct {
		Items []map[string]any `json:"items"`
	}
	out := ""
	for _, state := range []string{"due", "in_doubt", "parked"} {
		if err := p.get(p.hubHTTP+"/v1/postings?limit=3&state="+state, &list); err != nil {
			return err.Error()
		}
		for _, x := range list.Items {
			out += fmt.Sprintf(" [%v %v %v]", x["order_no"], x["kind"], x["posting"])
		}
	}
	return out
}

// check compares the ERP's own database with what really happened.
func (p *plantLine) check(t testing.TB, orders []string) {
	t.Helper()
	counts := p.plant.Counts(t)
	var want, got truth
	missing, doubled := decimal.Zero, decimal.Zero
	for _, o := range orders {
		w, g := p.truth(t, counts, o), p.posted(t, o)
		want, got = want.add(w), got.add(g)
		if !w.equal(g) {
			t.Errorf("order %s: made %s; the ERP has %s", o, w, g)
		}
		for _, d := range []decimal.Decimal{w.good.Sub(g.good), w.scrap.Sub(g.scrap), w.screws.Sub(g.screws), w.steel.Sub(g.steel)} {
			if d.IsPositive() {
				missing = missing.Add(d)
			} else {
				doubled = doubled.Sub(d)
			}
		}
	}
	var y tally
	p.api(t, "/v1/tally", &y)
	t.Logf("machines and MES: %s", want)
	t.Logf("Tryton:           %s", got)
	t.Logf("/v1/tally:        %v, %d differences", y.Sum, len(y.Differences))
	t.Logf("orders=%d missing=%s doubled=%s", len(orders), missing, doubled)
	// Scrap is drawn by chance, now and then: a few pieces may have none.
	if want.good.IsZero() || want.scrap.IsZero() && len(orders) >= 20 || want.screws.IsZero() || want.steel.IsZero() {
		t.Error("the run made nothing of some kind: it proves nothing")
	}
}

func (a truth) add(b truth) truth {
	return truth{a.good.Add(b.good), a.scrap.Add(b.scrap), a.screws.Add(b.screws), a.steel.Add(b.steel)}
}

// Twenty orders through everything that can fail, and the ERP's own database equals what the machines counted.
func TestNothingIsMissingOrDoubledThroughKillsCutsAndRestarts(t *testing.T) {
	seed := seedOf(t)
	p := newPlantLine(t, seed, func(e *realparts.TrytonServer) string { return e.URL })
	p.start(t)
	orders := p.release(t, 20, 30)

	ctx, cancel := context.WithCancel(context.Background())
	working := make(chan struct{})
	go func() { defer close(working); p.mes.run(ctx, machines) }()
	defer func() { cancel(); <-working }()

	p.disasters(t, seed, len(orders), 20*31)
	realparts.Eventually(t, 5*time.Minute, "the machines finish all orders", func() error {
		if made, finished := p.mes.progress(); finished < len(orders) {
			return fmt.Errorf("%d pieces made, %d of %d orders finished; %s", made, finished, len(orders), p.stuck())
		}
		return nil
	})
	p.settle(t, orders)
	p.check(t, orders)
}

// disasters strikes as the work goes on, spread over the whole run in an order that the seed decides.
func (p *plantLine) disasters(t testing.TB, seed uint64, orders, pieces int) {
	t.Helper()
	type disaster struct {
		name string
		do   func()
	}
	kill := func(name string, proc *realparts.Process) disaster {
		return disaster{"kill -9 the " + name, func() { restart(t, proc, syscall.SIGKILL) }}
	}
	cut := disaster{"cut the link for 20 s", func() {
		p.link.Refuse(true)
		p.link.Cut()
		timer := time.NewTimer(20 * time.Second) // the length of the cut is the disaster
		<-timer.C
		p.link.Refuse(false)
	}}
	all := []disaster{
		cut, cut,
		{"restart the broker", func() { restart(t, p.broker, syscall.SIGTERM) }},
		{"kill -9 the MES database", func() { restart(t, p.db, syscall.SIGKILL) }},
		{"kill -9 the OPC UA server", func() {
			p.mes.calm.Lock() // a machine takes no new order and counts nothing while its own server starts
			defer p.mes.calm.Unlock()
			p.seen(t)
			restart(t, p.plant, syscall.SIGKILL)
			p.pressSubscribed(t) // which order a piece belongs to can be known only while somebody listens
		}},
	}
	for range 5 {
		all = append(all, kill("agent", p.agent), kill("hub", p.hub))
	}
	rng := rand.New(rand.NewPCG(seed, 2))
	rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	for i, d := range all {
		at := pieces * (i + 1) / (len(all) + 3)
		realparts.Eventually(t, 2*time.Minute, fmt.Sprintf("%d pieces are made", at), func() error {
			made, finished := p.mes.progress()
			if made < at && finished < orders {
				return fmt.Errorf("%d made, %d orders finished; %s", made, finished, p.stuck())
			}
			return nil
		})
		made, _ := p.mes.progress()
		t.Logf("after %d pieces: %s", made, d.name)
		d.do()
	}
}

// pressSubscribed waits until somebody listens to the plant again.
func (p *plantLine) pressSubscribed(t testing.TB) {
	t.Helper()
	realparts.Eventually(t, time.Minute, "the agent has subscribed again", func() error {
		var s struct{ Subscriptions []struct{ Items int } }
		p.plant.Get(t, "/sessions", &s)
		for _, x := range s.Subscriptions {
			if x.Items >= 3*machines {
				return nil
			}
		}
		return fmt.Errorf("subscriptions: %+v", s.Subscriptions)
	})
}
