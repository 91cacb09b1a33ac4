package checking_test

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// use hands over material that was used by the first order.
func (p *plant) use(item, quantity, lot string) object.Fact {
	p.t.Helper()
	p.seq++
	f := p.fact(object.KindConsumption)
	f.Consumption = &object.Consumption{OrderNo: p.orders[0], Item: item, Lot: lot, Movement: object.Issue, Quantity: object.Quantity{Value: decimal.RequireFromString(quantity), Unit: "KGM"}}
	p.hand(f)
	return f
}

// parks waits until a fact is with a person, or is refused for now.
func (p *plant) parks(f object.Fact) {
	p.t.Helper()
	realparts.Eventually(p.t, 20*time.Second, "the posting is refused", func() error {
		if x := p.posting(f); x.State != store.PostingParked && (x.State != store.PostingDue || x.Code == "") {
			return fmt.Errorf("it is %s %s: %s", x.State, x.Code, x.Reason)
		}
		return nil
	})
}

// byHand posts something in the ERP without the hub.
func (p *plant) byHand(r erp.Request) {
	p.t.Helper()
	if _, err := p.erp.Post(p.t.Context(), r); err != nil {
		p.t.Fatal(err)
	}
}

// inFile changes the ERP's books behind its back.
func (p *plant) inFile(statement string, args ...any) {
	p.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(p.dir, "erp.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(p.t.Context(), statement, args...); err != nil {
		p.t.Fatal(err)
	}
}

func today() time.Time { return time.Now().In(time.FixedZone("", 3600)).Truncate(time.Second) }

// spoiled are plants in which one thing went wrong on its way through the running hub, by the type that it must be found as.
var spoiled = []struct {
	name  string
	want  reconcile.Type
	spoil func(p *plant)
}{
	{"a second document", reconcile.Duplicate, func(p *plant) {
		p.produce(1)
		f := p.facts[0]
		p.byHand(erp.Request{Kind: erp.KindConfirmation, ExternalKey: f.Key.String(), OrderNo: f.OrderNo(), Operation: "0010", Item: "BRACKET-10", Unit: "C62", Yield: f.Confirmation.Yield})
	}},
	{"books put back", reconcile.Missing, func(p *plant) {
		p.copyTo("empty.db")
		p.produce(1)
		p.restore("empty.db")
	}},
	{"a confirmation without its receipt", reconcile.MovementFailed, func(p *plant) {
		p.erp.SetFaults(erp.Faults{HalfApply: 1})
		p.parks(p.confirm(today(), func(*object.Fact) {}))
		p.erp.SetFaults(erp.Faults{})
	}},
	{"backflushed and booked", reconcile.DoubleUse, func(p *plant) {
		no, err := p.erp.ReleaseOrder(p.t.Context(), erp.Order{Item: "BRACKET-10", Quantity: decimal.NewFromInt(100), Site: "1000", WorkCenter: "press1", Operations: []erp.Operation{{Operation: "0010", WorkCenter: "press1", Quantity: decimal.NewFromInt(100)}},
			Components: []erp.Component{{Item: steel, Required: decimal.NewFromInt(12), Unit: "KGM", Operation: "0010", Backflush: true}}})
		if err != nil {
			p.t.Fatal(err)
		}
		p.know(p.connectors["erp"], no)
		p.orders = []string{no}
		p.becomes(p.confirm(today(), func(*object.Fact) {}), "verified")
		p.byHand(erp.Request{Kind: erp.KindMovement, OrderNo: no, Movement: erp.IssueToOrder, Item: steel, Quantity: decimal.RequireFromString("0.6"), Unit: "KGM"})
	}},
	{"more material than the parts list", reconcile.UseOff, func(p *plant) {
		p.produce(1)
		p.byHand(erp.Request{Kind: erp.KindMovement, OrderNo: p.orders[0], Movement: erp.IssueToOrder, Item: steel, Quantity: decimal.NewFromInt(130), Unit: "KGM"})
	}},
	{"more than ordered", reconcile.OverDelivery, func(p *plant) {
		p.becomes(p.confirm(today(), func(f *object.Fact) { f.Confirmation.Yield = decimal.NewFromInt(1500) }), "verified")
	}},
	{"thousands for pieces", reconcile.UnitMismatch, func(p *plant) {
		f := p.confirm(today(), func(*object.Fact) {})
		number := p.becomes(f, "verified").Document
		p.inFile("update document set yield = yield * 1000 where number = ?", number)
		p.inFile("update document_line set quantity = quantity * 1000 where number = ?", number)
	}},
	{"a closed period", reconcile.PeriodClosed, func(p *plant) {
		if err := p.erp.SetPeriod(p.t.Context(), time.Now().UTC().Format("2006-01"), false); err != nil {
			p.t.Fatal(err)
		}
		p.parks(p.confirm(today(), func(*object.Fact) {}))
	}},
	{"an order that somebody works on", reconcile.OrderLocked, func(p *plant) {
		p.erp.Lock(p.orders[0], "MILLER")
		p.parks(p.confirm(today(), func(*object.Fact) {}))
	}},
	{"an order closed too early", reconcile.OrderClosed, func(p *plant) {
		if err := p.erp.CloseOrder(p.t.Context(), p.orders[0]); err != nil {
			p.t.Fatal(err)
		}
		p.parks(p.confirm(today(), func(*object.Fact) {}))
	}},
	{"not enough stock", reconcile.Deficit, func(p *plant) { p.parks(p.use(steel, "2000000", "")) }},
	{"a stock below zero", reconcile.Deficit, func(p *plant) {
		p.watch(nil, steel)
		p.balances(1)
		p.setStock(steel, "-1")
	}},
	{"a fact of another plant", reconcile.WrongPlace, func(p *plant) { p.parks(p.confirm(today(), func(f *object.Fact) { f.Plant = "jena" })) }},
	{"a clock that is ahead", reconcile.ClockSkew, func(p *plant) {
		p.becomes(p.confirm(today().Add(5*time.Minute), func(*object.Fact) {}), "verified")
	}},
	{"a counter that began again", reconcile.CounterReset, func(p *plant) { newMachine(p, "reset: hold").shows(500, 510, 3, 5); p.verified() }},
	{"a counter that went below what is confirmed", reconcile.CounterStep, func(p *plant) {
		newMachine(p, `close: {quantity: "5"}`).shows(500, 510, 506, 512)
		p.verified()
	}},
	{"less came than the agent stored", reconcile.SequenceGap, func(p *plant) {
		f := p.confirm(today(), func(*object.Fact) {})
		p.becomes(f, "verified")
		err := p.s.SetStatus(p.t.Context(), p.agent.ID, &pb.AgentStatus{State: "ok", Ledger: []*pb.LedgerRow{{Source: "press", OrderNo: p.orders[0], Operation: "0010", Item: "BRACKET-10", Kind: "yield", Unit: "C62", Counted: "12", Stored: "12"}}})
		if err != nil {
			p.t.Fatal(err)
		}
	}},
	{"records that an agent lost", reconcile.SequenceGap, func(p *plant) {
		err := p.s.Update(p.t.Context(), func(tx *store.Tx) error {
			return tx.AddGap(store.Gap{Plant: "ulm", Agent: "line1", AgentID: p.agent.ID, Generation: "g", First: 3, Last: 6, Code: "records_lost", Reason: "records 3 to 6 never came"}, "look at the agent", nil)
		})
		if err != nil {
			p.t.Fatal(err)
		}
	}},
	{"a lot that quality holds", reconcile.LotMismatch, func(p *plant) {
		p.seq++
		q := p.fact(object.KindQuality)
		q.Quality = &object.Quality{Item: steel, Lot: "L7", Status: "hold", Disposition: "Restricted"}
		p.hand(q)
		p.facts = p.facts[:len(p.facts)-1] // it is not posted
		p.becomes(p.use(steel, "1", "L7"), "verified")
	}},
	{"stock that went past all orders", reconcile.BalanceDrift, func(p *plant) {
		p.watch(nil, steel)
		p.produce(1)
		p.balances(1)
		p.take(steel, "-10")
		p.balances(1)
	}},
	{"an item that nobody knows", reconcile.MasterMissing, func(p *plant) { p.parks(p.use("UNOBTAINIUM", "1", "")) }},
}

// Each of the nineteen types is seeded where it comes from (the machine, the line, the ERP's books), goes through the running hub (planner,
// store, posting engine, checker, the connector over HTTP), and is found as what it is and as nothing else.
func TestEveryTypeIsFoundThroughTheRunningHub(t *testing.T) {
	types := reconcile.Types()
	found := map[reconcile.Type]map[reconcile.Type]int{}
	for _, s := range spoiled {
		t.Run(s.name, func(t *testing.T) {
			p := newPlant(t)
			s.spoil(p)
			run := p.all()
			if run.Error != "" || run.Unasked > 0 {
				t.Errorf("%+v", run)
			}
			all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
			if err != nil || len(all) == 0 {
				t.Errorf("nothing was found: %v", err)
			}
			if found[s.want] == nil {
				found[s.want] = map[reconcile.Type]int{}
			}
			seen := map[string]bool{}
			for _, d := range all {
				found[s.want][d.Type]++
				if d.Type != s.want {
					t.Errorf("found %s of %s: %s", d.Type, d.Subject, d.Why)
				}
				if d.Owner == "" || d.Severity == "" || d.Proposed.Text == "" || d.Due.IsZero() || d.Why == "" {
					t.Errorf("it lacks something: %+v", d)
				}
				if live := string(d.Type) + d.Subject; d.State.Live() && seen[live] {
					t.Errorf("two are live: %s of %s", d.Type, d.Subject)
				} else {
					seen[live] = true
				}
			}
		})
	}
	t.Log("confusion table through the running hub: a row for what was seeded, a column for what was found")
	for i, want := range types {
		row := fmt.Sprintf("%2d %-23s", i+1, want)
		for _, got := range types {
			row += fmt.Sprintf("%4d", found[want][got])
		}
		t.Log(row)
		if found[want][want] == 0 {
			t.Errorf("type %s is never seeded", want)
		}
	}
}

// A plant in which nothing goes wrong has nothing to show, whatever is watched.
func TestAPlantInOrderRaisesNothingInTheRunningHub(t *testing.T) {
	p := newPlant(t)
	p.watch(nil, steel, "BRACKET-10")
	p.balances(1)
	m := newMachine(p, `modulus: "1000", max_per_second: "20"`)
	m.shows(980, 985, 990, 5, 30)
	p.produce(2)
	p.becomes(p.use(steel, "1", "L1"), "verified")
	m.shows(60, 90)
	p.verified()
	for range 3 {
		if run := p.all(); run.Found != 0 || run.Error != "" {
			t.Errorf("%+v", run)
		}
		p.balances(1)
	}
	p.none("in order")
	if all := p.inbox(); len(all) > 0 {
		t.Errorf("%+v", all)
	}
	var texts []string
	for _, row := range p.statement("plant=ulm") {
		if row["agrees"] != "true" {
			texts = append(texts, fmt.Sprint(row))
		}
	}
	if len(texts) > 0 {
		t.Error(strings.Join(texts, "\n"))
	}
}
