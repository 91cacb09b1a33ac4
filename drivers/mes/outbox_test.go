package mes

import (
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func (l *lab) outboxQuery(table, more string) string {
	return l.section("queries:\n" + l.query(table, "outbox", strings.TrimPrefix(more+", outbox: {create: true}", ", ")))
}

func (l *lab) rowsLeft(t *testing.T, want int, condition string) {
	t.Helper()
	realparts.Eventually(t, patience, "rows of the outbox are taken away", func() error {
		var n int
		if err := l.db.QueryRow("SELECT COUNT(*) FROM lk_outbox WHERE " + condition).Scan(&n); err != nil || n != want {
			return fmt.Errorf("%d rows are left, want %d (%v)", n, want, err)
		}
		return nil
	})
}

// Every insert and update arrives with its image, a delete where it was asked for, and the outbox is empty afterwards, also
// when the agent died in between.
func testOutbox(t *testing.T, l *lab) {
	l.booking(t, "watched")
	p := newPlant(t)
	section := l.section("queries:\n" + l.query("watched", "outbox", "batch: 3, outbox: {create: true, operations: [insert, update, delete]}"))
	stop := p.start(section)
	p.await("state ok", func() bool { return p.state == signal.StateOK })
	l.exec(t, "INSERT INTO watched (at, n) VALUES ("+l.now()+", 1)")
	l.exec(t, "UPDATE watched SET n = 2")
	l.exec(t, "DELETE FROM watched")
	p.awaitCount(3)
	l.rowsLeft(t, 0, "1 = 1")
	stop()
	for n := range 20 {
		l.exec(t, "INSERT INTO watched (at, n) VALUES ("+l.now()+", ?)", 10+n)
	}
	stop = p.run(p.make(section), p.dying(2, true)) // the third batch is durable, and nobody was told
	p.awaitCount(12)
	stop()
	stop = p.start(section)
	p.awaitCount(23)
	l.rowsLeft(t, 0, "1 = 1")
	stop()
	var got []string
	positions := map[string]bool{}
	for _, s := range p.all() {
		v := signal.Whole(s.Value).(map[string]any)
		old, _ := v["lk_old"].(map[string]any)
		got = append(got, fmt.Sprint(v["lk_op"], v["n"], old["n"]))
		positions[s.Position] = true
		if _, ok := v["at"].(time.Time); !ok && l.driver != "sqlite" { // a TEXT column there
			t.Errorf("time is %#v", v["at"])
		}
		if at, ok := v["lk_changed_at"].(time.Time); !ok || time.Since(at).Abs() > time.Minute {
			t.Errorf("changed at %v", v["lk_changed_at"])
		}
	}
	if fmt.Sprint(got[:3]) != "[insert1<nil> update21 delete2<nil>]" || len(positions) != 23 || len(got) != 23 {
		t.Errorf("changes are %v, %d positions", got, len(positions))
	}
}

// A plant that wants inserts only gets no deletes, and they do not pile up.
func testOutboxOperations(t *testing.T, l *lab) {
	l.booking(t, "inserts")
	p := newPlant(t)
	p.start(l.section("queries:\n" + l.query("inserts", "outbox", "outbox: {create: true, operations: [insert], taken: mark}")))
	p.await("state ok", func() bool { return p.state == signal.StateOK })
	l.exec(t, "INSERT INTO inserts (at, n) VALUES ("+l.now()+", 1)")
	l.exec(t, "UPDATE inserts SET n = 2")
	l.exec(t, "DELETE FROM inserts")
	p.awaitCount(1)
	l.rowsLeft(t, 3, "taken_at IS NOT NULL")
	if s := p.all(); len(s) != 1 || signal.Whole(s[0].Value).(map[string]any)["lk_op"] != "insert" {
		t.Errorf("signals are %+v", s)
	}
}

// Without the right to make anything, the agent writes down what the database's owner has to run, and that works.
func testOutboxScript(t *testing.T, l *lab) {
	l.booking(t, "scripted")
	p := newPlant(t)
	p.start(l.section("queries:\n" + l.query("scripted", "outbox", "")))
	code := "outbox_missing"
	x := p.awaitProblem("query:outbox", code)
	path := filepath.Join(p.dir, "outbox.outbox.sql")
	if !strings.Contains(x.NextStep, path) {
		t.Errorf("problem is %+v", x)
	}
	script, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range strings.Split(string(script), ";\n\n") {
		if l.driver == "mysql" || l.driver == "postgres" || l.driver == "sqlite" {
			if s = strings.TrimSpace(s); s != "" {
				if _, err := l.db.Exec(s); err != nil {
					t.Fatalf("%v\n%s", err, s)
				}
			}
		}
	}
	p.await("no problem", func() bool { return len(p.problems) == 0 && p.state == signal.StateOK })
	l.exec(t, "INSERT INTO scripted (at, n) VALUES ("+l.now()+", 1)")
	p.awaitCount(1)
	l.exec(t, "INSERT INTO lk_outbox (source, op, row_data, changed_at) VALUES ('scripted', 'insert', '{\"id\": torn', "+l.now()+")")
	p.awaitCount(2)
	l.exec(t, "INSERT INTO scripted (at, n) VALUES ("+l.now()+", 2)")
	p.awaitCount(3)
	if s := p.all()[1]; s.Problem == nil || s.Problem.Code != "bad_json" || !strings.Contains(string(s.Payload), "torn") || s.Position == "" {
		t.Errorf("a row that is none became %+v", s)
	}
	l.rowsLeft(t, 0, "1 = 1")
}

// A table that nothing watches is named: its changes would never be seen.
func testOutboxWithoutTrigger(t *testing.T, l *lab) {
	l.booking(t, "first")
	l.booking(t, "second")
	p := newPlant(t)
	p.start(l.outboxQuery("first", ""))
	p.await("state ok", func() bool { return p.state == signal.StateOK })
	q := newPlant(t)
	q.start(l.section("queries:\n" + l.query("second", "outbox", "")))
	if l.driver != "mysql" {
		q.awaitProblem("outbox:outbox", "trigger_missing")
		defer func() { q.await("no problem", func() bool { return len(q.problems) == 0 }) }() // once somebody made them
	}
	r := newPlant(t) // the outbox is there, the triggers are not
	r.start(l.outboxQuery("second", ""))
	r.await("state ok", func() bool { return r.state == signal.StateOK })
	l.exec(t, "INSERT INTO second (at, n) VALUES ("+l.now()+", 1)")
	realparts.Eventually(t, patience, "the row is read", func() error {
		if len(q.all())+len(r.all()) == 0 {
			return errors.New("not yet")
		}
		return nil
	})
}

// What comes by the outbox equals what a SELECT of the table gives, value by value.
func testOutboxValues(t *testing.T, l *lab) {
	types := map[string]string{
		"postgres": "d numeric(30,12), u numeric(20), i bigint, f4 real, f8 double precision, w timestamp, z timestamptz, day date, s text, b bytea, j jsonb, yes boolean, empty text",
		"mysql":    "d DECIMAL(30,12), u BIGINT UNSIGNED, i BIGINT, f4 FLOAT, f8 DOUBLE, w DATETIME(6), z TIMESTAMP(6) NULL, day DATE, s VARCHAR(50), b VARBINARY(50), yes BOOLEAN, empty VARCHAR(10)",
		"sqlite":   "d TEXT, u TEXT, i INTEGER, f4 REAL, f8 REAL, w DATETIME, day DATE, s TEXT, b BLOB, yes BOOLEAN, empty TEXT",
	}[l.driver]
	l.exec(t, fmt.Sprintf("CREATE TABLE kinds (id %s, %s)", l.serial(), types))
	p := newPlant(t)
	section := "zone: Asia/Tokyo\nqueries:\n" + l.query("kinds", "outbox", "outbox: {create: true}")
	stop := p.start(l.section(section))
	p.await("state ok", func() bool { return p.state == signal.StateOK }) // so the triggers are there
	stop()
	p.start(l.section(section + "\n" + l.query("kinds", "id", "")))
	columns, values := "d, u, i, f4, f8, w, day, s, b, yes", "?, ?, ?, ?, ?, ?, ?, ?, ?, TRUE"
	args := []any{"123456789012345678.123456789012", "18446744073709551614", int64(-9223372036854775807), 0.1, 1e-7, "2026-03-29 02:30:00.123456",
		"2026-03-29", "Größe | \"x\" \\ \n'", []byte{0, 255}}
	if l.driver != "sqlite" { // written by a session in another zone than ours
		columns, values = columns+", z", values+", ?"
		args = append(args, "2026-10-25 02:30:00.5")
	}
	if l.driver == "postgres" {
		columns, values = columns+", j", values+`, '{"a": [1.500, null]}'`
	}
	for range 2 {
		l.exec(t, "INSERT INTO kinds ("+columns+") VALUES ("+values+")", args...)
	}
	l.exec(t, "INSERT INTO kinds (d) VALUES (NULL)")
	p.awaitCount(6)
	byTag := map[string][]map[string]any{}
	for _, s := range p.all() {
		byTag[s.Tag] = append(byTag[s.Tag], signal.Whole(s.Value).(map[string]any))
	}
	if len(byTag["id"]) != 3 || len(byTag["outbox"]) != 3 {
		t.Fatalf("%d rows by id, %d by the outbox", len(byTag["id"]), len(byTag["outbox"]))
	}
	for i, want := range byTag["id"] {
		got := byTag["outbox"][i]
		for name, v := range want {
			if at, ok := v.(time.Time); ok {
				if x, ok := got[name].(time.Time); !ok || !x.Equal(at) {
					t.Errorf("row %d: %s is %v (%T), by id %v", i, name, got[name], got[name], v)
				}
			} else if sameNumber(v, got[name]) { // a float has more than one spelling
			} else if fmt.Sprintf("%T %v", v, v) != fmt.Sprintf("%T %v", got[name], got[name]) {
				t.Errorf("row %d: %s is %T %v, by id %T %v", i, name, got[name], got[name], v, v)
			}
		}
	}
}

func sameNumber(a, b any) bool {
	x, isX := a.(signal.Number)
	y, isY := b.(signal.Number)
	if !isX || !isY {
		return false
	}
	p, okP := new(big.Rat).SetString(string(x))
	q, okQ := new(big.Rat).SetString(string(y))
	return okP && okQ && p.Cmp(q) == 0
}

// SQL Server is not installed for tests: its statements are compared with what its manual asks for.
func TestOutboxStatementsForSQLServer(t *testing.T) {
	q := Query{Tag: "t", Table: "mes.confirmation", Key: []string{"order no", "line"}, Change: "outbox"}
	q.fill()
	all := strings.Join(outboxStatements(dialects["sqlserver"], &q, nil), "\n")
	for _, part := range []string{"IF OBJECT_ID(N'lk_outbox', N'U') IS NULL\nCREATE TABLE [lk_outbox]", "CREATE OR ALTER TRIGGER [mes].[lk_confirmation] ON [mes].[confirmation]",
		"SET NOCOUNT ON", "SELECT N'mes.confirmation', CASE WHEN d.[order no] IS NULL THEN N'insert'", "ON i.[order no] = d.[order no] AND i.[line] = d.[line]",
		"(SELECT d.* FOR JSON PATH, WITHOUT_ARRAY_WRAPPER, INCLUDE_NULL_VALUES), NULL\n    FROM deleted AS d LEFT JOIN inserted AS i", "WHERE i.[order no] IS NULL;"} {
		if !strings.Contains(all, part) {
			t.Errorf("the statements lack %q:\n%s", part, all)
		}
	}
	p := &poller{source: newSource(signal.Env{Zone: time.UTC}, Config{Driver: "sqlserver", DSN: "sqlserver://u:p@h"}, time.UTC), query: &q,
		columns: []column{{name: "v", kind: kindOf("sqlserver", "VARBINARY")}, {name: "m", kind: kindOf("sqlserver", "MONEY")}, {name: "at", kind: kindOf("sqlserver", "DATETIME2")}}}
	r := p.fromImage(image{op: "insert", now: []byte(`{"v":"AP8=","m":12.3400,"at":"2026-01-02T03:04:05.5","order no":"A","line":3}`)})
	values, _ := r.values.(map[string]any)
	if r.problem != nil || string(values["v"].([]byte)) != "\x00\xff" || values["m"] != signal.Number("12.3400") ||
		!values["at"].(time.Time).Equal(time.Date(2026, 1, 2, 3, 4, 5, 5e8, time.UTC)) || keyText(r.key) != "A,3" {
		t.Errorf("row is %+v", r)
	}
}

// FuzzImage reads anything as an image of a row: it becomes values of the vocabulary, or a problem.
func FuzzImage(f *testing.F) {
	for _, s := range []string{`{"id":1,"b":"\\x00ff","at":1790.25}`, `{"id":{"$hex":"0g"}}`, `null`, `[]`, `{"at":1e400}`, `{"at":"9999999-01-01"}`, `{"b":{"$hex":null}}`} {
		f.Add(s)
	}
	q := Query{Tag: "t", Table: "t", Key: []string{"id"}, Change: "outbox"}
	q.fill()
	p := &poller{source: newSource(signal.Env{Zone: time.UTC}, Config{Driver: "mysql", DSN: "x"}, time.UTC), query: &q,
		columns: []column{{name: "b", kind: kindBytes}, {name: "at", kind: kindTime}, {name: "j", kind: kindJSON}, {name: "y", kind: kindBool}}}
	f.Fuzz(func(t *testing.T, text string) {
		r := p.fromImage(image{op: "update", now: []byte(text), old: []byte(text)})
		signals := p.signals([]row{r}, nil)
		if len(signals) != 1 || signals[0].Position == "" || (signals[0].Problem == nil) == (signals[0].Value == nil) {
			t.Fatalf("%q became %+v", text, signals)
		}
	})
}
