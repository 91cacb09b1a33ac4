package checking_test

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/checking"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

const steel = "STEEL-S235"

// watch lets the checker compare the stock of items.
func (p *plant) watch(change func(*reconcile.Policy), items ...string) {
	p.t.Helper()
	var places []store.StockPlace
	for _, item := range items {
		places = append(places, store.StockPlace{Item: item})
	}
	p.at(change, places...)
}

// balances compares so many times.
func (p *plant) balances(times int) (later bool) {
	p.t.Helper()
	for range times {
		var err error
		if later, err = p.check.Balances(p.t.Context()); err != nil {
			p.t.Fatal(err)
		}
	}
	return later
}

// take moves stock in the ERP past all orders.
func (p *plant) take(item, quantity string) {
	p.t.Helper()
	if err := p.erp.PutItem(p.t.Context(), erp.Item{Item: item, OnHand: decimal.RequireFromString(quantity)}); err != nil {
		p.t.Fatal(err)
	}
}

// setStock writes an item's stock into the ERP's file, whatever the ERP would say to that.
func (p *plant) setStock(item, quantity string) {
	p.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(p.dir, "erp.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.ExecContext(p.t.Context(), "update item set on_hand = ? where item = ?", quantity, item); err != nil {
		p.t.Fatal(err)
	}
}

// stock is what the ERP holds of an item.
func (p *plant) stock(item string) string {
	p.t.Helper()
	all, err := p.erp.Stock(p.t.Context(), []string{item})
	if err != nil || len(all) != 1 {
		p.t.Fatalf("%+v %v", all, err)
	}
	return all[0].OnHand.String()
}

// none says that nothing was ever found.
func (p *plant) none(when string) {
	p.t.Helper()
	if all, err := p.s.Discrepancies(p.t.Context(), store.DiscrepancyFilter{}, store.Page{}); err != nil || len(all) > 0 {
		p.t.Errorf("%s: %+v %v", when, all, err)
	}
}

func TestABalanceThatOrdersExplainIsNoDriftAndOneThatNothingExplainsIsCounted(t *testing.T) {
	p := newPlant(t)
	p.watch(nil, steel, "BRACKET-10")
	p.produce(2)
	p.balances(1) // the opening
	for range 3 {
		p.produce(2)
		p.balances(1)
	}
	// Others post on an order: that is listed.
	if _, err := p.erp.Post(t.Context(), erp.Request{Kind: erp.KindMovement, OrderNo: p.orders[0], Movement: erp.IssueToOrder, Item: steel, Quantity: decimal.RequireFromString("3.5"), Unit: "KGM"}); err != nil {
		t.Fatal(err)
	}
	p.balances(2)
	p.none("what the documents explain")

	p.take(steel, "-10")
	if !p.balances(1) {
		t.Error("a drift is believed by one reading, or was not seen")
	}
	p.none("after one reading")
	p.balances(1)
	d := p.only(reconcile.BalanceDrift)
	if d.State != reconcile.Escalated || d.Subject != "stock erp/ item "+steel+" lot " || !d.Delta.Equal(decimal.NewFromInt(-10)) || d.Unit != "KGM" || d.Owner != reconcile.Warehouse || d.Proposed.Text != "count the stock" || d.Plant != "ulm" || len(d.Evidence) != 2 {
		t.Errorf("%+v", d)
	}
	p.produce(1)
	p.balances(3)
	if d = p.only(reconcile.BalanceDrift); d.State != reconcile.Escalated || !d.Delta.Equal(decimal.NewFromInt(-10)) {
		t.Errorf("the line goes on and the drift is as it was: %+v", d)
	}
	// The count finds 4 of the 10: what is still off is another difference, and the rest is accepted.
	p.take(steel, "4")
	p.balances(2)
	if d = p.only(reconcile.BalanceDrift); !d.Delta.Equal(decimal.NewFromInt(-6)) {
		t.Errorf("%+v", d)
	}
	if err := p.s.DecideDiscrepancy(t.Context(), d.ID, "accepted", "anna", "counted: 6 kg were scrap", func(d *reconcile.Discrepancy) { d.State = reconcile.Accepted }); err != nil {
		t.Fatal(err)
	}
	p.produce(1)
	p.balances(3)
	if d = p.only(reconcile.BalanceDrift); d.State != reconcile.Accepted {
		t.Errorf("what was accepted came again: %+v", d)
	}
	p.take(steel, "-1")
	p.balances(2)
	all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{Live: true}, store.Page{})
	if err != nil || len(all) != 1 || !all[0].Delta.Equal(decimal.NewFromInt(-1)) {
		t.Errorf("the next drift: %+v %v", all, err)
	}
	p.take(steel, "1")
	p.balances(1)
	if all, err = p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{Live: true}, store.Page{}); err != nil || len(all) > 0 {
		t.Errorf("put right: %+v %v", all, err)
	}
}

// Without a watch nothing is said of any stock.
func TestStocksThatNobodyWatchesRaiseNothing(t *testing.T) {
	p := newPlant(t)
	p.produce(1)
	p.all()
	p.take(steel, "-10")
	p.balances(3)
	p.all()
	p.none("not watched")
}

// An ERP that was put back has lost one movement of a stock: it is looked for, sent, and the drift is over.
func TestAMissingMovementThatExplainsADriftIsLookedForAndSent(t *testing.T) {
	p := newPlant(t)
	p.watch(nil, steel)
	p.produce(2)
	p.balances(2)
	p.copyTo("hour-ago.db")
	no := p.orders[0]
	p.seq++
	use := p.fact(object.KindConsumption)
	use.Consumption = &object.Consumption{OrderNo: no, Item: steel, Movement: object.Issue, Quantity: object.Quantity{Value: decimal.RequireFromString("7.25"), Unit: "KGM"}}
	p.hand(use)
	p.verified()
	p.balances(1)
	p.restore("hour-ago.db")
	if !p.balances(1) {
		t.Error("one reading was believed")
	}
	p.none("after one reading")
	p.balances(1)
	d := p.only(reconcile.BalanceDrift)
	if d.Proposed.Kind != reconcile.LookUpAndSend || d.Proposed.Fact != use.Key.String() || !d.Delta.Equal(decimal.RequireFromString("7.25")) || len(d.Heals) != 1 {
		t.Fatalf("%+v", d)
	}
	p.verified()
	p.balances(2)
	if d = p.only(reconcile.BalanceDrift); d.State != reconcile.Healed {
		t.Errorf("%+v", d)
	}
	p.made[no] = p.made[no].Add(decimal.RequireFromString("7.25").Div(decimal.RequireFromString("0.12")))
	if totals, err := p.erp.Totals(t.Context()); err != nil || len(totals.Duplicates) > 0 {
		t.Errorf("%+v %v", totals.Duplicates, err)
	}
	if run := p.all(); run.Found != 0 {
		t.Errorf("%+v", run)
	}
	if all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{Type: string(reconcile.Missing)}, store.Page{}); err != nil || len(all) > 0 {
		t.Errorf("the same difference has two discrepancies: %+v %v", all, err)
	}
}

// When more than one movement has gone, each is healed as the missing document that it is.
func TestManyMissingMovementsAreHealedAsWhatIsMissingAndTheStockIsNotCounted(t *testing.T) {
	p := newPlant(t)
	p.watch(nil, steel, "BRACKET-10")
	p.produce(2)
	p.balances(2)
	p.copyTo("hour-ago.db")
	p.produce(2)
	p.balances(1)
	p.restore("hour-ago.db")
	p.balances(1)
	p.verified()
	p.balanced()
	p.balances(3)
	all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
	if err != nil || len(all) != 16 {
		t.Errorf("%d discrepancies, %v", len(all), err)
	}
	for _, d := range all {
		if d.Type != reconcile.Missing {
			t.Errorf("%+v", d)
		}
	}
}

func TestAStockBelowZeroWaitsForTheReceiptThatIsUnderWay(t *testing.T) {
	p := newPlant(t)
	p.watch(nil, "BRACKET-10")
	p.produce(1)
	p.balances(1)
	have := p.stock("BRACKET-10")
	p.setStock("BRACKET-10", "-3")
	p.balances(1)
	d := p.only(reconcile.Deficit)
	if d.State != reconcile.Escalated || d.Proposed.Kind != reconcile.Ask || !d.Delta.Equal(decimal.NewFromInt(-3)) {
		t.Errorf("%+v", d)
	}
	p.setStock("BRACKET-10", have)
	p.balances(1)
	if d = p.only(reconcile.Deficit); d.State != reconcile.Healed {
		t.Errorf("%+v", d)
	}

	// Now a receipt waits: its order is locked.
	q := newPlant(t)
	q.watch(nil, "BRACKET-10")
	q.produce(1)
	q.balances(1)
	have = q.stock("BRACKET-10")
	q.erp.Lock(q.orders[0], "MILLER")
	f := q.confirm(time.Now().In(time.FixedZone("", 3600)), func(*object.Fact) {})
	q.becomes(f, "due C1/005")
	q.setStock("BRACKET-10", "-3")
	q.balances(1)
	d = q.only(reconcile.Deficit)
	if d.State != reconcile.Healing || d.Proposed.Kind != reconcile.WaitReceipt || len(d.Facts) != 1 || d.Facts[0] != f.Key.String() {
		t.Errorf("%+v", d)
	}
	q.setStock("BRACKET-10", have)
	q.erp.Unlock(q.orders[0])
	q.verified()
	q.balances(1)
	if d = q.only(reconcile.Deficit); d.State != reconcile.Healed {
		t.Errorf("%+v", d)
	}
}

// A stock that moves while it is read is not judged, and a system that cannot be asked makes no drift.
func TestAStockThatMovesOrCannotBeReadIsNotJudged(t *testing.T) {
	p := newPlant(t)
	c := &restless{Connector: p.connectors["erp"]}
	p.connectors["erp"] = c
	p.watch(nil, steel)
	p.produce(1)
	p.balances(1)
	c.by = decimal.NewFromInt(1)
	for range 4 {
		if !p.balances(1) {
			t.Error("a moving stock was judged")
		}
	}
	p.none("while it moves")
	c.by, c.err = decimal.Zero, errors.New("out of order")
	if later, err := p.check.Balances(t.Context()); err == nil || !later {
		t.Errorf("%v %v", later, err)
	}
	p.none("while it cannot be read")
}

// restless is an ERP whose stock is another at each second reading.
type restless struct {
	connector.Connector
	by    decimal.Decimal
	calls int
	err   error
}

func (r *restless) Inventory(ctx context.Context, items []string) ([]object.Balance, error) {
	all, err := r.Connector.(connector.StockReader).Inventory(ctx, items)
	r.calls++
	for i := range all {
		if r.calls%2 == 0 { // of two readings the second is always off by as much
			all[i].OnHand.Value = all[i].OnHand.Value.Sub(r.by)
		}
	}
	return all, errors.Join(err, r.err)
}

func (r *restless) Effects(ctx context.Context, no string) (connector.Effects, error) {
	return r.Connector.(connector.EffectReader).Effects(ctx, no)
}

// hiding is an ERP that cannot list the documents of one order.
type hiding struct {
	restless
	order string
}

func (h *hiding) Effects(ctx context.Context, no string) (connector.Effects, error) {
	if no == h.order {
		return connector.Effects{}, errors.New("its documents are being archived")
	}
	return h.restless.Effects(ctx, no)
}

// What an order has moved while its documents could not be listed is not known: its stock is not judged, and it is read once that is possible,
// whatever has become of it, also by a hub that has started again.
func TestAnOrderThatCannotBeListedIsReadLaterAndItsStockNotJudgedMeanwhile(t *testing.T) {
	for _, known := range []bool{true, false} { // by its documents, before
		for _, restart := range []bool{true, false} {
			p := newPlant(t)
			c := &hiding{restless: restless{Connector: p.connectors["erp"]}}
			p.connectors["erp"] = c
			p.watch(nil, steel)
			p.produce(1)
			p.balances(2)
			if !known {
				no, err := p.erp.ReleaseDemoOrder(t.Context(), "1000", "press1", 0, 1000)
				if err != nil {
					t.Fatal(err)
				}
				c.order = no
				p.know(c, no)
			}
			c.order = cmp.Or(c.order, p.orders[0])
			p.produce(1)
			o, err := p.s.Order(t.Context(), "erp", c.order)
			if err != nil {
				t.Fatal(err)
			}
			o.Order.State = object.OrderClosed
			if err := p.s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutOrder(o, false) }); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				if i == 2 && restart {
					p.watch(nil, steel)
				}
				if _, err := p.check.Balances(t.Context()); err == nil || !strings.Contains(err.Error(), c.order) || !strings.Contains(err.Error(), "archived") {
					t.Errorf("of an order that cannot be listed is said: %v", err)
				}
			}
			p.none("while it cannot be listed")
			c.order = ""
			p.balances(3)
			p.none(fmt.Sprintf("when it can be listed again, known %v, restart %v", known, restart))
			p.take(steel, "-1")
			p.balances(2)
			if d := p.only(reconcile.BalanceDrift); !d.Delta.Equal(decimal.NewFromInt(-1)) {
				t.Errorf("%+v", d)
			}
		}
	}
}

// An order that becomes known late, and had moved the stock before it was opened, is no drift.
func TestAnOrderThatIsReadLateCountsFromTheOpening(t *testing.T) {
	p := newPlant(t)
	p.watch(nil, steel)
	issue := func(no, q string) {
		t.Helper()
		if _, err := p.erp.Post(t.Context(), erp.Request{Kind: erp.KindMovement, OrderNo: no, Movement: erp.IssueToOrder, Item: steel, Quantity: decimal.RequireFromString(q), Unit: "KGM"}); err != nil {
			t.Fatal(err)
		}
	}
	no, err := p.erp.ReleaseDemoOrder(t.Context(), "1000", "press1", 0, 1000)
	if err != nil {
		t.Fatal(err)
	}
	issue(no, "5")
	p.produce(1)
	p.balances(1)
	late := p.booked(no, -time.Hour) // it was long ago
	p.know(p.connectors["erp"], no)
	p.balances(3)
	p.none(fmt.Sprintf("after %d documents of before", late))
	issue(no, "2")
	p.balances(3)
	p.none("what it moves now is listed")
	p.take(steel, "-1")
	p.balances(2)
	if d := p.only(reconcile.BalanceDrift); !d.Delta.Equal(decimal.NewFromInt(-1)) {
		t.Errorf("%+v", d)
	}
}

// booked moves the time at which an order's documents were booked.
func (p *plant) booked(no string, by time.Duration) int64 {
	p.t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(p.dir, "erp.db"))
	if err != nil {
		p.t.Fatal(err)
	}
	defer db.Close()
	res, err := db.ExecContext(p.t.Context(), "update document set booked_at = booked_at + ? where order_no = ?", int64(by/time.Second), no)
	if err != nil {
		p.t.Fatal(err)
	}
	n, _ := res.RowsAffected()
	return n
}

// A stock that cannot be compared stops no other.
func TestAStockThatCannotBeComparedStopsNoOther(t *testing.T) {
	p := newPlant(t)
	p.check = checking.New(checking.Options{Store: p.s, Connectors: p.connectors, Books: p.engine, Watches: []checking.Watch{
		{StockPlace: store.StockPlace{ERP: "erp", Item: steel, Lot: "L1"}}, {StockPlace: store.StockPlace{ERP: "gone", Item: steel}}, {StockPlace: store.StockPlace{ERP: "erp", Item: "BRACKET-10"}}}})
	p.produce(1)
	_, err := p.check.Balances(t.Context())
	if err == nil || !strings.Contains(err.Error(), "without a lot") || !strings.Contains(err.Error(), `system "gone"`) {
		t.Errorf("%v", err)
	}
	o, err := p.s.StockOpening(t.Context(), store.StockPlace{ERP: "erp", Item: "BRACKET-10"})
	if err != nil || o.Held.String() != p.stock("BRACKET-10") {
		t.Errorf("the neighbour: %+v %v", o, err)
	}
	p.none("not compared")
}

// A random day of a plant: counting, restarts of the comparison, documents of others; whatever moves by orders is no drift, and whatever
// moves past them is found with its exact quantity.
func TestARandomDayHasNoFalseDriftAndHidesNone(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	p := newPlant(t)
	p.watch(nil, steel, "BRACKET-10")
	p.balances(1)
	off := decimal.Zero
	for range 12 {
		switch random.IntN(4) {
		case 0:
			p.produce(1 + random.IntN(2))
		case 1:
			q := decimal.New(int64(1+random.IntN(5000)), -3)
			if _, err := p.erp.Post(t.Context(), erp.Request{Kind: erp.KindMovement, OrderNo: p.orders[random.IntN(4)], Movement: erp.IssueToOrder, Item: steel, Quantity: q, Unit: "KGM"}); err != nil {
				t.Fatal(err)
			}
		case 2:
			p.send(1)
			p.balances(1) // in the middle of it
			p.verified()
		case 3:
			q := decimal.New(int64(random.IntN(2000)-1000), -3)
			off = off.Add(q)
			p.take(steel, q.String())
			p.watch(nil, steel, "BRACKET-10")
		}
		p.balances(2)
		live, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{Live: true}, store.Page{})
		if err != nil || off.IsZero() != (len(live) == 0) || len(live) > 1 || len(live) == 1 && (!live[0].Delta.Equal(off) || !strings.Contains(live[0].Subject, steel)) {
			t.Fatalf("%s past the orders: %+v %v", off, live, err)
		}
	}
}

// Documents may have gone of an order that is long done: before a drift is believed that order is read, too.
func TestADriftThatADoneOrderExplainsIsNotCounted(t *testing.T) {
	p := newPlant(t)
	p.watch(nil, steel)
	p.produce(1)
	p.balances(2)
	p.copyTo("hour-ago.db")
	p.produce(1)
	p.balances(1)
	for _, no := range p.orders {
		o, err := p.s.Order(t.Context(), "erp", no)
		if err != nil {
			t.Fatal(err)
		}
		o.Order.State = object.OrderClosed
		if err := p.s.Update(t.Context(), func(tx *store.Tx) error { return tx.PutOrder(o, false) }); err != nil {
			t.Fatal(err)
		}
	}
	p.restore("hour-ago.db")
	p.balances(3)
	all, err := p.s.Discrepancies(t.Context(), store.DiscrepancyFilter{}, store.Page{})
	if err != nil || len(all) != 8 {
		t.Errorf("%d discrepancies, %v", len(all), err)
	}
	for _, d := range all {
		if d.Type != reconcile.Missing {
			t.Errorf("%s: %s", d.Type, d.Proposed.Text)
		}
	}
}
