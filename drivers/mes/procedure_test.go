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

// A procedure of the MES says what is new behind a place, and is told what is safe.
func testCall(t *testing.T, l *lab) {
	if l.driver == "sqlite" {
		t.Log("SQLite has no procedures")
		return
	}
	l.booking(t, "source_rows")
	l.exec(t, "CREATE TABLE taken (upto bigint)")
	for _, s := range map[string][]string{
		"postgres": {`CREATE FUNCTION news(after bigint, most int) RETURNS TABLE (seq bigint, n int, at timestamptz) LANGUAGE sql AS
			$$ SELECT id, n, at FROM source_rows WHERE id > coalesce(after, 0) ORDER BY id LIMIT most $$`,
			`CREATE FUNCTION news_taken(upto bigint) RETURNS void LANGUAGE sql AS $$ INSERT INTO taken VALUES (upto) $$`},
		"mysql": {`CREATE PROCEDURE news(IN after_id bigint, IN most int) SELECT id AS seq, n, at FROM source_rows WHERE id > coalesce(after_id, 0) ORDER BY id LIMIT most`,
			`CREATE PROCEDURE news_taken(IN upto bigint) INSERT INTO taken VALUES (upto)`},
	}[l.driver] {
		if _, err := l.db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	section := l.section("queries: [{tag: c, call: news, key: [seq], version: seq, time_column: at, done: news_taken, batch: 7, poll: 10ms}]")
	p := newPlant(t)
	committed := map[string]int{}
	add := func(n int) {
		l.exec(t, "INSERT INTO source_rows (at, n) VALUES ("+l.now()+", ?)", n)
		committed[fmt.Sprint(n)]++
	}
	for n := range 20 {
		add(n)
	}
	stop := p.run(p.make(section), p.dying(1, true)) // the second batch is durable, and the procedure was not told
	p.awaitCount(14)
	stop()
	p.start(section)
	p.awaitCount(20)
	add(20)
	p.awaitCount(21)
	p.compare(committed)
	if s := p.all()[0]; s.SourceTime.IsZero() || s.Position != "news|1|1" {
		t.Errorf("signal is %+v", s)
	}
	realparts.Eventually(t, patience, "the procedure is told", func() error {
		var upto, calls int
		if err := l.db.QueryRow("SELECT MAX(upto), COUNT(DISTINCT upto) FROM taken").Scan(&upto, &calls); err != nil || upto != 21 || calls != 4 {
			return fmt.Errorf("upto %d in %d steps, %v", upto, calls, err)
		}
		return nil
	})
	q := newPlant(t)
	q.start(l.section("queries: [{tag: c, call: nobody, key: [seq], version: seq, poll: 10ms}]"))
	q.awaitProblem("query:c", "procedure_missing")
	q = newPlant(t)
	q.start(l.section("queries: [{tag: c, call: news, key: [absent], version: seq, poll: 10ms}]"))
	q.awaitProblem("query:c", "column_missing")
}

// orderProcedures take orders into a table. The code is 0 also for one that is there, 7 for an item that is not known, 9 while
// the MES is busy.
var orderProcedures = map[string]map[string][]string{
	"postgres": {
		"row": {`CREATE FUNCTION take_order(message_id text, order_no text, rev bigint, item text, quantity numeric, start timestamptz) RETURNS TABLE (code int, words text) LANGUAGE plpgsql AS $$
		BEGIN
			IF item = 'BUSY' THEN RETURN QUERY SELECT 9, 'inventory'; RETURN; END IF;
			IF item = 'RAISE' THEN RAISE EXCEPTION 'order % is cursed', order_no; END IF;
			IF item <> 'ITEM' THEN RETURN QUERY SELECT 7, 'item ' || item || ' is unknown'; RETURN; END IF;
			INSERT INTO orders_in VALUES (message_id, quantity, start) ON CONFLICT DO NOTHING;
			RETURN QUERY SELECT 0, NULL::text;
		END $$`},
		"out": {`CREATE PROCEDURE take_order(message_id text, order_no text, rev bigint, item text, quantity numeric, start timestamptz, INOUT code int, INOUT words text) LANGUAGE plpgsql AS $$
		BEGIN
			IF item = 'BUSY' THEN code := 9; RETURN; END IF;
			IF item = 'RAISE' THEN RAISE EXCEPTION 'order % is cursed', order_no; END IF;
			IF item <> 'ITEM' THEN code := 7; words := 'item ' || item || ' is unknown'; RETURN; END IF;
			INSERT INTO orders_in VALUES (message_id, quantity, start) ON CONFLICT DO NOTHING;
			code := 0;
		END $$`},
	},
	"mysql": {
		"row": {`CREATE PROCEDURE take_order(IN message_id varchar(200), IN order_no varchar(100), IN rev bigint, IN item varchar(100), IN quantity decimal(28,9), IN start datetime(6))
		BEGIN
			IF item = 'BUSY' THEN SELECT 9, 'inventory';
			ELSEIF item = 'RAISE' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the order is cursed';
			ELSEIF item <> 'ITEM' THEN SELECT 7, CONCAT('item ', item, ' is unknown');
			ELSE
				INSERT IGNORE INTO orders_in VALUES (message_id, quantity, start);
				SELECT 0, NULL;
			END IF;
		END`},
		"out": {`CREATE PROCEDURE take_order(IN message_id varchar(200), IN order_no varchar(100), IN rev bigint, IN item varchar(100), IN quantity decimal(28,9), IN start datetime(6), OUT code int, OUT words text)
		BEGIN
			IF item = 'BUSY' THEN SET code = 9;
			ELSEIF item = 'RAISE' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = 'the order is cursed';
			ELSEIF item <> 'ITEM' THEN SET code = 7; SET words = CONCAT('item ', item, ' is unknown');
			ELSE
				INSERT IGNORE INTO orders_in VALUES (message_id, quantity, start);
				SET code = 0;
			END IF;
		END`},
	},
}

func testProcedure(t *testing.T, l *lab) {
	for returns, statements := range orderProcedures[l.driver] {
		t.Run(returns, func(t *testing.T) {
			l.exec(t, "CREATE TABLE orders_in (message_id varchar(200) PRIMARY KEY, quantity decimal(28,9), start "+l.timestamp()+")")
			defer func() {
				l.exec(t, "DROP TABLE orders_in")
				l.exec(t, "DROP "+map[bool]string{true: "FUNCTION", false: "PROCEDURE"}[l.driver == "postgres" && returns == "row"]+" take_order")
			}()
			for _, s := range statements {
				if _, err := l.db.Exec(s); err != nil {
					t.Fatal(err)
				}
			}
			testProcedureOf(t, l, returns)
		})
	}
}

func testProcedureOf(t *testing.T, l *lab, returns string) {
	p := newPlant(t)
	d := p.make(l.section("zone: Europe/Berlin\nwork_orders: {procedure: take_order, returns: " + returns + ", again: [9], arguments: [message_id, order_no, revision, item, quantity, planned_start]}"))
	p.run(d, p.emit)
	p.await("state ok", func() bool { return p.state == signal.StateOK })
	deliver := func(o signal.WorkOrder) error {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		return d.(signal.OrderReceiver).Deliver(ctx, o)
	}
	of := func(item string) signal.WorkOrder { o := order("5", 1); o.Item = item; return o }
	for range 3 { // again after a crash that forgot the first answer
		if err := deliver(of("ITEM")); err != nil {
			t.Fatalf("deliver: %v", err)
		}
	}
	var refused *signal.Refused
	if err := deliver(of("WHAT")); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "item WHAT is unknown") {
		t.Errorf("an item that is not known: %v", err)
	}
	if err := deliver(of("RAISE")); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "cursed") {
		t.Errorf("a procedure that raises: %v", err)
	}
	if err := deliver(of("BUSY")); err == nil || errors.As(err, &refused) {
		t.Errorf("a busy MES: %v", err)
	}
	p.awaitProblem("query:work_orders", "procedure_later")
	if err := deliver(of("ITEM")); err != nil {
		t.Errorf("deliver: %v", err)
	}
	p.await("no problem", func() bool { return len(p.problems) == 0 })
	var n int
	var quantity, start string
	if err := l.db.QueryRow("SELECT COUNT(*), MIN(quantity), MIN(start) FROM orders_in").Scan(&n, &quantity, &start); err != nil || n != 1 || quantity != "1234.567000001" {
		t.Errorf("%d orders of quantity %s at %s, %v", n, quantity, start, err)
	}
	if at, ok := parseTime(start, mustZone(t, l, "Europe/Berlin")); !ok || !at.Equal(order("", 0).PlannedStart) {
		t.Errorf("planned start is %q", start)
	}
	if l.server != nil && returns == "row" {
		testAnswersByCall(t, l)
	}
}

// Answers come from a procedure, too, in the plant's own words.
func testAnswersByCall(t *testing.T, l *lab) {
	l.exec(t, fmt.Sprintf("CREATE TABLE answers_out (seq %s, order_no varchar(20), status varchar(20), reason varchar(50))", l.serial()))
	s := map[string]string{
		"postgres": `CREATE FUNCTION answers(after bigint, most int) RETURNS SETOF answers_out LANGUAGE sql AS $$ SELECT * FROM answers_out WHERE seq > coalesce(after, 0) ORDER BY seq LIMIT most $$`,
		"mysql":    `CREATE PROCEDURE answers(IN after_seq bigint, IN most int) SELECT * FROM answers_out WHERE seq > coalesce(after_seq, 0) ORDER BY seq LIMIT most`,
	}[l.driver]
	if _, err := l.db.Exec(s); err != nil {
		t.Fatal(err)
	}
	p := newPlant(t)
	section := l.section("work_orders: {procedure: take_order, answers: {call: answers, poll: 10ms, words: {ANGENOMMEN: accepted}}}")
	stop := p.start(section)
	say := func(status, reason string) {
		l.exec(t, "INSERT INTO answers_out (order_no, status, reason) VALUES ('5', ?, ?)", status, reason)
	}
	say("ANGENOMMEN", "")
	p.awaitCount(1)
	stop()
	say("REJECTED", "no tool")
	p.start(section)
	p.awaitCount(2)
	var got []string
	for _, s := range p.all() {
		v := signal.Whole(s.Value).(map[string]any)
		got = append(got, fmt.Sprint(s.Tag, v["order_no"], v["revision"], v["status"], v["reason"], v["changed_at"], s.Position))
	}
	if want := "[work_order_answer50accepted<nil>answers|5|1 work_order_answer50rejectedno tool<nil>answers|5|2]"; fmt.Sprint(got) != want {
		t.Errorf("answers are %v, want %s", got, want)
	}
}

// SQL Server is not installed for tests: its statements are compared with what its manual asks for.
func TestProcedureStatementsForSQLServer(t *testing.T) {
	w := WorkOrders{Procedure: "mes.take_order", Arguments: []string{"message_id", "quantity"}}
	w.fill()
	s := newSource(signal.Env{Zone: time.UTC}, Config{Driver: "sqlserver", DSN: "sqlserver://u:p@h", WorkOrders: &w}, time.UTC)
	for returns, want := range map[string]string{
		"row":  "EXEC [mes].[take_order] @p1, @p2",
		"code": "SET NOCOUNT ON; DECLARE @lk_code int; EXEC @lk_code = [mes].[take_order] @p1, @p2; SELECT @lk_code, N''",
		"out": "SET NOCOUNT ON; DECLARE @lk_code bigint, @lk_words nvarchar(1000); EXEC [mes].[take_order] @p1, @p2, @lk_code OUTPUT, @lk_words OUTPUT; " +
			"SELECT @lk_code, @lk_words",
	} {
		q := &statement{d: s.dialect}
		w.Returns = returns
		s.procedureStatement(q, &w, []string{q.arg("1/2"), q.arg("1.5")})
		if q.text.String() != want {
			t.Errorf("statement\n%s\nwant\n%s", q.text.String(), want)
		}
	}
}
