package mes

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func (l *lab) orders(more string) string {
	return l.section("zone: Europe/Berlin\nwork_orders: {create: true, answers: {poll: 10ms}" + more + "}")
}

func order(no string, revision int64) signal.WorkOrder {
	return signal.WorkOrder{OrderNo: no, Revision: revision, Plant: "p", WorkCenter: "W1", Item: "ITEM", Description: "Größe <1>", Quantity: "1234.567000001",
		Unit: "KGM", Priority: 5, Lot: "L", PlannedStart: time.Date(2026, 7, 1, 4, 0, 0, 0, time.UTC),
		Operations: []signal.Operation{{Operation: "0010", Quantity: "1.50", Unit: "KGM"}},
		Components: []signal.Component{{Item: "C1", Required: "0.250", Unit: "KGM", Backflush: true}}}
}

func testDeliver(t *testing.T, l *lab) {
	p := newPlant(t)
	d := p.make(l.orders(""))
	p.run(d, p.emit)
	r := d.(signal.OrderReceiver)
	if !r.TakesOrders() {
		t.Fatal("the source says that it takes no orders")
	}
	deliver := func(o signal.WorkOrder) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return r.Deliver(ctx, o)
	}
	for range 3 { // again after a crash that forgot the first answer
		if err := deliver(order("100", 1)); err != nil {
			t.Fatalf("deliver: %v", err)
		}
	}
	changed := order("100", 2)
	changed.Quantity = ""
	cancelled := order("100", 4)
	cancelled.Cancelled = true
	for _, o := range []signal.WorkOrder{changed, cancelled} {
		if err := deliver(o); err != nil {
			t.Fatalf("deliver: %v", err)
		}
	}
	var refused *signal.Refused
	if err := deliver(order("100", 3)); !errors.As(err, &refused) {
		t.Errorf("an overtaken revision: %v", err)
	}
	if err := deliver(order("100", 1)); err != nil {
		t.Errorf("an old revision that is there: %v", err)
	}
	long := order("200", 1)
	long.Unit = strings.Repeat("x", 100)
	if err := deliver(long); l.driver != "sqlite" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), "200")) {
		t.Errorf("a value that does not fit: %v", err)
	}
	rows, err := l.db.Query("SELECT message_id, action, status, COALESCE(quantity, -1), planned_start, operations, components FROM lk_work_order WHERE order_no = '100' ORDER BY revision")
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var got []string
	for rows.Next() {
		var id, action, status, quantity, start, operations, components string
		if err := rows.Scan(&id, &action, &status, &quantity, &start, &operations, &components); err != nil {
			t.Fatal(err)
		}
		got = append(got, strings.Join([]string{id, action, status, quantity}, " "))
		if at, ok := parseTime(strings.TrimSuffix(start, "Z"), mustZone(t, l, "Europe/Berlin")); !ok || !at.Equal(order("", 0).PlannedStart) {
			t.Errorf("planned start is %q", start)
		}
		if !strings.Contains(operations, `"quantity":1.50`) || !strings.Contains(components, `"required":0.250`) {
			t.Errorf("operations %s, components %s", operations, components)
		}
	}
	want := "[100/1 CREATE NEW 1234.567000001 100/2 CHANGE NEW -1 100/4 CANCEL NEW 1234.567000001]"
	if s := strings.ReplaceAll(fmt.Sprint(got), "-1.000000000", "-1"); s != want {
		t.Errorf("the table holds %s, want %s", s, want)
	}
}

// mustZone is the zone of a time that was read as text: the MySQL column has none, the others give UTC or their own.
func mustZone(t *testing.T, l *lab, name string) *time.Location {
	t.Helper()
	if l.driver == "postgres" {
		return time.UTC
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return zone
}

func testAnswers(t *testing.T, l *lab) {
	p := newPlant(t)
	section := l.orders("")
	d := p.make(section)
	stop := p.run(d, p.emit)
	for _, no := range []string{"1", "2"} {
		if err := d.(signal.OrderReceiver).Deliver(context.Background(), order(no, 1)); err != nil {
			t.Fatal(err)
		}
	}
	answer := func(no, status, reason string) {
		t.Helper()
		l.exec(t, fmt.Sprintf("UPDATE lk_work_order SET status = ?, error_text = ?, changed_at = %s WHERE order_no = ?", l.now()), status, reason, no)
	}
	answer("1", "ACCEPTED", "")
	p.awaitCount(1)
	answer("2", "REJECTED", "no such item")
	p.awaitCount(2)
	answer("1", "STARTED", "")
	p.awaitCount(3)
	stop()
	answer("1", "HELD", "")
	stop = p.run(p.make(section), p.dying(0, true)) // durable, and the agent died before it knew
	p.awaitCount(4)
	stop()
	answer("1", "STARTED", "") // a second time: it is another answer
	stop = p.start(section)
	p.awaitCount(5)
	stop()
	answer("1", "HELD", "")
	answer("1", "FINISHED", "") // nobody saw HELD: it is not invented
	p.start(section)
	p.awaitCount(6)
	realparts.Eventually(t, patience, "answers noted in the table", func() error {
		var n int
		if err := l.db.QueryRow("SELECT COUNT(*) FROM lk_work_order WHERE answered = status").Scan(&n); err != nil || n != 2 {
			return fmt.Errorf("%d rows, %v", n, err)
		}
		return nil
	})
	var got []string
	positions := map[string]bool{}
	for _, s := range p.all() {
		v := signal.Whole(s.Value).(map[string]any)
		got = append(got, fmt.Sprint(v["order_no"], "/", v["revision"], " ", v["status"], v["reason"]))
		positions[s.Position] = true
		if s.Tag != "work_order_answer" || s.SourceTime.IsZero() || time.Since(s.SourceTime).Abs() > 25*time.Hour {
			t.Errorf("signal is %+v", s)
		}
	}
	want := "[1/1 accepted 2/1 rejectedno such item 1/1 started 1/1 held 1/1 started 1/1 finished]"
	if fmt.Sprint(got) != want || len(positions) != 6 {
		t.Errorf("answers are %v, want %s; positions %v", got, want, positions)
	}
}

func testMissingStagingTable(t *testing.T, l *lab) {
	p := newPlant(t)
	d := p.make(l.section("work_orders: {answers: {poll: 10ms}}"))
	p.run(d, p.emit)
	if err := d.(signal.OrderReceiver).Deliver(context.Background(), order("1", 1)); err == nil {
		t.Error("an order was delivered into a table that is not there")
	}
	if x := p.awaitProblem("query:work_orders", "table_missing"); !strings.Contains(x.NextStep, "work_order."+l.driver+".sql") {
		t.Errorf("problem is %+v", x)
	}
	l.exec(t, dialects[l.driver].create) // the shipped statement, run by the owner
	realparts.Eventually(t, patience, "delivery", func() error { return d.(signal.OrderReceiver).Deliver(context.Background(), order("1", 1)) })
	p.await("no problem", func() bool { return len(p.problems) == 0 })
}

// What the MES's tables do not know is refused when it arrives; what cannot be told now waits.
func testCheckOrder(t *testing.T, l *lab) {
	p := newPlant(t)
	l.exec(t, "CREATE TABLE items (item_no varchar(20) PRIMARY KEY)")
	for _, known := range []string{"ITEM", "C1"} {
		l.exec(t, "INSERT INTO items VALUES (?)", known)
	}
	d := p.make(l.section("work_orders: {check: [{field: item, table: items, column: item_no}, {field: component, table: items, column: item_no}]}")).(signal.OrderChecker)
	if err := d.CheckOrder(context.Background(), order("1", 1)); err != nil {
		t.Errorf("an order that the MES can take: %v", err)
	}
	var refused *signal.Refused
	o := order("1", 1)
	o.Components[0].Item = "C2' OR 1=1"
	if err := d.CheckOrder(context.Background(), o); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "component") {
		t.Errorf("a component that the MES does not know: %v", err)
	}
	l.exec(t, "DROP TABLE items")
	if err := d.CheckOrder(context.Background(), order("1", 1)); err == nil || errors.As(err, &refused) {
		t.Errorf("a table that is gone: %v", err)
	}
}
