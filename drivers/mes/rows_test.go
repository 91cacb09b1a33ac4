package mes

import (
	"context"
	"database/sql"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

var (
	seed   = flag.Uint64("seed", 0, "repeat a random run")
	rounds = flag.Int("rounds", 16, "rounds of a random run")
)

func dice(t *testing.T) *rand.Rand {
	s := *seed
	if s == 0 {
		s = rand.Uint64()
	}
	t.Logf("seed %d (repeat with -seed)", s)
	return rand.New(rand.NewPCG(s, 1))
}

// modes are the ways of finding changes that a database knows.
func (l *lab) modes() map[string]string {
	m := map[string]string{"id": "", "version": "version: at, overlap: 1m"}
	if l.driver == "postgres" {
		m["xid8"], m["xmin"] = "version: xid", ""
	}
	return m
}

// booking makes a table of bookings with every column that some mode needs.
func (l *lab) booking(t testing.TB, name string) {
	t.Helper()
	xid := ""
	if l.driver == "postgres" {
		xid = ", xid xid8 NOT NULL DEFAULT pg_current_xact_id()"
	}
	l.exec(t, fmt.Sprintf("CREATE TABLE %s (id %s, at %s NOT NULL, n INT NOT NULL%s)", name, l.serial(), l.timestamp(), xid))
}

func (l *lab) query(table, change, more string) string {
	if more != "" {
		more = ", " + more
	}
	return fmt.Sprintf("- {tag: %s, table: %s, key: [id], change: %s, poll: 10ms%s}", change, table, change, more)
}

// Several sessions hold transactions open and end them in random order, some by rollback, while the driver is killed at
// random: before a batch is durable, after it, or in peace. Each committed row must have become durable once.
func testOutOfOrderCommits(t *testing.T, l *lab) {
	for change, more := range l.modes() {
		t.Run(change, func(t *testing.T) {
			table := "booking_" + change
			l.booking(t, table)
			r := dice(t)
			p := newPlant(t)
			section := l.section("queries:\n" + l.query(table, change, strings.TrimPrefix(more+", batch: 7", ", ")))
			stop := p.start(section)
			committed := map[string]int{}
			n := 0
			dead := false
			sessions := 1 // SQLite has one writer
			if l.driver != "sqlite" {
				sessions = 4
			}
			for round := range *rounds {
				var open []*transaction
				for range sessions {
					open = append(open, l.begin(t, table))
				}
				for range 3 * sessions {
					n++
					open[r.IntN(sessions)].insert(t, l, n)
				}
				r.Shuffle(len(open), func(i, j int) { open[i], open[j] = open[j], open[i] })
				for _, x := range open {
					x.end(t, r.IntN(5) > 0, committed)
					if r.IntN(3) == 0 { // let the driver see the state between two commits
						l.exec(t, fmt.Sprintf("INSERT INTO %s (at, n) VALUES (%s, ?)", table, l.now()), -1-n)
						n++
						committed[fmt.Sprint(-n)]++
						if !dead && change[0] != 'x' { // those see nothing behind an open transaction
							p.await("sight of the state in between", func() bool { return p.has(-n) })
						}
					}
				}
				switch round % 4 {
				case 2:
					stop()
					stop, dead = p.run(p.make(section), p.dying(r.IntN(4), r.IntN(2) == 0)), true
				case 3:
					stop()
					stop, dead = p.start(section), false
				}
			}
			stop()
			p.start(section)
			p.awaitCount(len(committed))
			l.exec(t, fmt.Sprintf("INSERT INTO %s (at, n) VALUES (%s, ?)", table, l.now()), 1_000_000)
			committed["1000000"]++
			p.await("the last row", func() bool { return p.has(1_000_000) })
			p.compare(committed)
		})
	}
}

// dying is an emit that works for some batches, then does not answer any more: the batch is durable, or not.
func (p *plant) dying(batches int, durable bool) signal.Emit {
	n := 0
	return func(ctx context.Context, b signal.Batch) error {
		if n++; n <= batches {
			return p.emit(ctx, b)
		}
		if n == batches+1 && durable {
			p.emit(ctx, b)
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

// has needs the lock.
func (p *plant) has(n int) bool {
	want := signal.Number(fmt.Sprint(n))
	for i := len(p.signals) - 1; i >= 0; i-- {
		if signal.Whole(p.signals[i].Value).(map[string]any)["n"] == want {
			return true
		}
	}
	return false
}

// compare checks that each committed row became durable once, at a position of its own.
func (p *plant) compare(committed map[string]int) {
	p.t.Helper()
	got, positions := map[string]int{}, map[string]bool{}
	for _, s := range p.all() {
		got[fmt.Sprint(signal.Whole(s.Value).(map[string]any)["n"])]++
		if positions[s.Position] {
			p.t.Errorf("position %q was used twice", s.Position)
		}
		positions[s.Position] = true
	}
	missing, doubled, invented := 0, 0, 0
	for n := range committed {
		switch {
		case got[n] == 0:
			missing++
		case got[n] > 1:
			doubled++
		}
	}
	for n := range got {
		if committed[n] == 0 {
			invented++
		}
	}
	p.t.Logf("committed=%d durable=%d missing=%d doubled=%d invented=%d", len(committed), len(p.all()), missing, doubled, invented)
	if missing+doubled+invented > 0 || len(committed) == 0 {
		p.t.Errorf("missing=%d doubled=%d invented=%d", missing, doubled, invented)
	}
}

type transaction struct {
	tx    *sql.Tx
	table string
	rows  []int
}

func (l *lab) begin(t *testing.T, table string) *transaction {
	t.Helper()
	tx, err := l.db.Begin()
	if err != nil {
		t.Fatal(err)
	}
	return &transaction{tx: tx, table: table}
}

func (x *transaction) insert(t *testing.T, l *lab, n int) {
	t.Helper()
	if _, err := x.tx.Exec(fmt.Sprintf("INSERT INTO %s (at, n) VALUES (%s, %d)", x.table, l.now(), n)); err != nil {
		t.Fatal(err)
	}
	x.rows = append(x.rows, n)
}

func (x *transaction) end(t *testing.T, commit bool, committed map[string]int) {
	t.Helper()
	if !commit {
		x.tx.Rollback()
		return
	}
	if err := x.tx.Commit(); err != nil {
		t.Fatal(err)
	}
	for _, n := range x.rows {
		committed[fmt.Sprint(n)]++
	}
}

// A transaction stays open while many later ones are read, and the driver starts anew in between.
func testLateCommit(t *testing.T, l *lab) {
	if l.driver == "sqlite" {
		t.Log("SQLite has one writer at a time: nothing can be committed late")
		return
	}
	for change, more := range l.modes() {
		t.Run(change, func(t *testing.T) {
			table := "late_" + change
			l.booking(t, table)
			p := newPlant(t)
			if change == "id" && l.driver == "postgres" {
				more = "gap_wait: 10ms" // the transaction is known to be open: its numbers are waited for all the same
			}
			section := l.section("queries:\n" + l.query(table, change, more))
			committed := map[string]int{}
			stop := p.start(section)
			late := l.begin(t, table)
			late.insert(t, l, 1)
			late.insert(t, l, 2)
			for n := range 200 {
				l.exec(t, fmt.Sprintf("INSERT INTO %s (at, n) VALUES (%s, ?)", table, l.now()), 100+n)
				committed[fmt.Sprint(100+n)]++
			}
			if strings.HasPrefix(change, "x") { // nothing behind an open transaction is final
				late.end(t, true, committed)
				p.awaitCount(202)
				p.compare(committed)
				return
			}
			p.awaitCount(200)
			stop()
			p.start(section)
			p.await("state ok", func() bool { return p.state == signal.StateOK })
			late.end(t, true, committed)
			p.awaitCount(202)
			p.compare(committed)
		})
	}
}

func testRolledBackNumbers(t *testing.T, l *lab) {
	l.booking(t, "gaps")
	p := newPlant(t)
	p.start(l.section("queries:\n" + l.query("gaps", "id", "gap_wait: 20ms")))
	committed := map[string]int{}
	for n := range 50 {
		x := l.begin(t, "gaps")
		x.insert(t, l, n)
		x.end(t, n%3 == 0, committed)
	}
	l.exec(t, "INSERT INTO gaps (id, at, n) VALUES (9000000000, "+l.now()+", 50)") // a jump of the counter
	committed["50"]++
	if l.driver == "postgres" {
		l.exec(t, "SELECT setval('gaps_id_seq', 9000000000)")
	}
	p.awaitCount(len(committed))
	p.await("no problem", func() bool { return len(p.problems) == 0 })
	// With the gaps given up, the cursor becomes small again.
	l.exec(t, "INSERT INTO gaps (at, n) VALUES ("+l.now()+", 51)")
	committed["51"]++
	realparts.Eventually(t, patience, "gaps given up", func() error {
		l.exec(t, "INSERT INTO gaps (at, n) VALUES ("+l.now()+", ?)", 100+len(committed))
		committed[fmt.Sprint(100+len(committed))]++
		p.mu.Lock()
		defer p.mu.Unlock()
		if strings.Count(string(p.cursor), `"f":`) == 1 { // the jump: it may be filled from below
			return nil
		}
		return errors.New(string(p.cursor))
	})
	p.awaitCount(len(committed))
	p.compare(committed)
}

func testUpdates(t *testing.T, l *lab) {
	for change, more := range l.modes() {
		if change == "id" || change == "xid8" { // they see inserts only
			continue
		}
		t.Run(change, func(t *testing.T) {
			table := "updates_" + change
			l.booking(t, table)
			p := newPlant(t)
			stop := p.start(l.section("queries:\n" + l.query(table, change, more)))
			committed := map[string]int{}
			for n := range 10 {
				if n == 0 {
					l.exec(t, fmt.Sprintf("INSERT INTO %s (at, n) VALUES (%s, 0)", table, l.now()))
				} else {
					l.exec(t, fmt.Sprintf("UPDATE %s SET n = ?, at = %s", table, l.now()), n)
				}
				committed[fmt.Sprint(n)]++
				p.await("version", func() bool { return p.has(n) })
				if n == 5 {
					stop()
					p.start(l.section("queries:\n" + l.query(table, change, more)))
				}
			}
			p.compare(committed)
		})
	}
}

func testExactValues(t *testing.T, l *lab) {
	types := map[string][]string{ // decimal, big number, time without zone, date, text, bytes
		"postgres": {"numeric(30,12)", "numeric(20)", "timestamp", "date", "text", "bytea"},
		"mysql":    {"DECIMAL(30,12)", "BIGINT UNSIGNED", "DATETIME(6)", "DATE", "VARCHAR(50)", "VARBINARY(50)"},
		"sqlite":   {"TEXT", "TEXT", "DATETIME", "DATE", "TEXT", "BLOB"},
	}[l.driver]
	l.exec(t, fmt.Sprintf("CREATE TABLE exact (id %s, d %s, u %s, w %s, day %s, s %s, b %s, f DOUBLE PRECISION, empty %s)", l.serial(),
		types[0], types[1], types[2], types[3], types[4], types[5], types[4]))
	l.exec(t, "INSERT INTO exact (d, u, w, day, s, b, f) VALUES (?, ?, ?, ?, ?, ?, 0.1)", "123456789012345678.123456789012", "18446744073709551614",
		"2026-03-29 02:30:00.123456", "2026-03-29", "Größe | \"x\"", []byte{0, 255})
	p := newPlant(t)
	p.start(l.section("zone: Asia/Tokyo\nqueries:\n" + l.query("exact", "id", "time_column: w")))
	p.awaitCount(1)
	s := p.all()[0]
	row := signal.Whole(s.Value).(map[string]any)
	number := func(text string) any {
		if l.driver == "sqlite" {
			return text
		}
		return signal.Number(text)
	}
	for name, want := range map[string]any{"id": signal.Number("1"), "d": number("123456789012345678.123456789012"),
		"u": number("18446744073709551614"), "day": "2026-03-29", "s": "Größe | \"x\"", "f": signal.Number("0.1"), "empty": nil} {
		if row[name] != want {
			t.Errorf("%s is %#v, want %#v", name, row[name], want)
		}
	}
	if string(row["b"].([]byte)) != "\x00\xff" {
		t.Errorf("bytes are %v", row["b"])
	}
	want := time.Date(2026, 3, 28, 17, 30, 0, 123456000, time.UTC)
	if at, ok := row["w"].(time.Time); !ok || !at.Equal(want) || !s.SourceTime.Equal(want) {
		t.Errorf("time is %v, source time %v, want %v", row["w"], s.SourceTime, want)
	}
	if s.Payload != nil || s.Position != "exact|1|" {
		t.Errorf("payload %s, position %q", s.Payload, s.Position)
	}
}

// What PostgreSQL sends in binary is what its own text says, at the edges and beyond what this program has times and numbers for.
func testServersTimes(t *testing.T, l *lab) {
	if l.driver != "postgres" {
		t.SkipNow() // the others send text, or the library reads the time
	}
	l.exec(t, `CREATE TABLE moment (id bigserial PRIMARY KEY, big int8, middle int4, small int2, zoned timestamptz, local timestamp, big_text text, middle_text text, small_text text, zoned_text text, local_text text)`)
	moments := []string{"infinity", "-infinity", "4713-01-01 00:00:00+00 BC", "0044-03-15 12:34:56.789+00 BC", "0001-12-31 23:59:59.999999+00 BC",
		"0001-01-01 00:00:00+00", "1969-12-31 23:59:59.999999+00", "1970-01-01 00:00:00+00", "1999-12-31 23:59:59.5+00", "2000-01-01 00:00:00+00", "2000-01-01 00:00:00.000001+00",
		"2026-03-29 02:30:00.12+00", "9999-12-31 23:59:59.999999+00", "10000-01-01 00:00:00+00", "294276-12-31 23:59:59.999999+00"}
	numbers := [][3]string{{"-9223372036854775808", "-2147483648", "-32768"}, {"9223372036854775807", "2147483647", "32767"}, {"0", "0", "0"}, {"-1", "-1", "-1"},
		{"3544952156018063160", "875770417", "12594"}} // these are bytes that look like digits
	for i, m := range moments {
		n := numbers[i%len(numbers)]
		l.exec(t, fmt.Sprintf(`INSERT INTO moment (big, middle, small, big_text, middle_text, small_text, zoned, local, zoned_text, local_text) SELECT %[1]s, %[2]s, %[3]s, '%[1]s', '%[2]s', '%[3]s', zoned, local,
			CASE WHEN isfinite(zoned) THEN replace(local::text, ' BC', '') || '+00' || CASE WHEN local::text LIKE '%%BC' THEN ' BC' ELSE '' END ELSE zoned::text END, local::text
			FROM (SELECT '%[4]s'::timestamptz AS zoned, '%[4]s'::timestamptz AT TIME ZONE 'UTC' AS local) AS m`, n[0], n[1], n[2], m))
	}
	p := newPlant(t)
	p.start(l.section("zone: Asia/Tokyo\nqueries:\n" + l.query("moment", "id", "")))
	p.awaitCount(len(moments))
	zone, err := time.LoadLocation("Asia/Tokyo")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range p.all() {
		row := signal.Whole(s.Value).(map[string]any)
		for name, kind := range map[string]kind{"zoned": kindTime, "local": kindLocal} {
			text := row[name+"_text"].(string)
			want, err := column{kind: kind}.text(text, zone)
			if err != nil {
				t.Fatal(err)
			}
			at, isTime := want.(time.Time)
			if got, ok := row[name].(time.Time); isTime && ok && got.Equal(at) && got.Format(time.RFC3339Nano) == at.Format(time.RFC3339Nano) {
				continue
			}
			if isTime || row[name] != want {
				t.Errorf("%s %q was read as %#v, want %#v", name, text, row[name], want)
			}
		}
		for _, name := range []string{"big", "middle", "small"} {
			if text := row[name+"_text"].(string); row[name] != signal.Number(text) {
				t.Errorf("%s %s was read as %#v", name, text, row[name])
			}
		}
	}
}

func testBrokenTable(t *testing.T, l *lab) {
	l.booking(t, "good")
	p := newPlant(t)
	p.start(l.section("queries:\n" + l.query("good", "id", "") + "\n- {tag: gone, table: absent, key: [id], poll: 10ms}\n" +
		"- {tag: wrong, table: good, key: [id], columns: [id, nonsense], poll: 10ms}"))
	if x := p.awaitProblem("query:gone", "table_missing"); x.Item != "absent" || x.NextStep == "" {
		t.Errorf("problem is %+v", x)
	}
	if x := p.awaitProblem("query:wrong", "column_missing"); !strings.Contains(x.Reason, "nonsense") {
		t.Errorf("problem is %+v", x)
	}
	l.exec(t, "INSERT INTO good (at, n) VALUES ("+l.now()+", 1)")
	p.awaitCount(1)
	p.await("state ok", func() bool { return p.state == signal.StateOK })
	l.booking(t, "absent") // mended while the agent runs
	l.exec(t, "INSERT INTO absent (at, n) VALUES ("+l.now()+", 2)")
	p.awaitCount(2)
	p.await("no problem", func() bool { return p.problems["query:gone"] == nil })
}

func testWrongPassword(t *testing.T, l *lab) {
	if l.driver == "sqlite" {
		p := newPlant(t)
		p.start("driver: sqlite\ndsn: /nowhere/mes.db\nqueries:\n" + l.query("x", "id", ""))
		p.awaitProblem("query:id", "database_missing")
		p.await("failed state", func() bool { return p.state == signal.StateFailed })
		return
	}
	const wrong = "very&wrong%secret"
	p := newPlant(t)
	dsn := strings.Replace(l.dsn, l.server.Password, "very%26wrong%25secret", 1)
	if l.driver == "mysql" {
		dsn = strings.Replace(l.dsn, l.server.Password, wrong, 1)
	}
	realparts.WriteFile(t, p.dir+"/dsn", dsn+"\n")
	l.booking(t, "x")
	l.exec(t, "INSERT INTO x (at, n) VALUES ("+l.now()+", 1)")
	p.start(fmt.Sprintf("driver: %s\ndsn_file: dsn\nqueries:\n%s", l.driver, l.query("x", "id", "")))
	if x := p.awaitProblem("query:id", "login_refused"); x.NextStep == "" {
		t.Errorf("problem is %+v", x)
	}
	p.await("failed state", func() bool { return p.state == signal.StateFailed })
	realparts.WriteFile(t, p.dir+"/dsn", l.dsn) // corrected while the agent runs
	p.awaitCount(1)
	for _, secret := range []string{wrong, "very%26wrong", l.server.Password} {
		if strings.Contains(p.log.String(), secret) {
			t.Errorf("the password is in what the driver reported:\n%s", p.log.String())
		}
	}
}

func testMark(t *testing.T, l *lab) {
	l.exec(t, fmt.Sprintf("CREATE TABLE outbox (id %s, n INT NOT NULL, state VARCHAR(10) NOT NULL DEFAULT 'NEW')", l.serial()))
	p := newPlant(t)
	section := l.section("queries:\n" + l.query("outbox", "mark", "batch: 3, mark: {column: state, value: TAKEN, pending: NEW}"))
	committed := map[string]int{}
	for n := range 20 {
		l.exec(t, "INSERT INTO outbox (n) VALUES (?)", n)
		committed[fmt.Sprint(n)]++
	}
	stop := p.run(p.make(section), p.dying(2, true)) // the third batch is durable, and nobody was told
	p.awaitCount(9)
	stop()
	p.start(section)
	p.awaitCount(20)
	marked := func(want int) {
		t.Helper()
		realparts.Eventually(t, patience, "marks", func() error {
			var n int
			if err := l.db.QueryRow("SELECT COUNT(*) FROM outbox WHERE state = 'TAKEN'").Scan(&n); err != nil || n != want {
				return fmt.Errorf("%d rows are marked, %v", n, err)
			}
			return nil
		})
	}
	marked(20)
	p.compare(committed)
}

func testStartAtEnd(t *testing.T, l *lab) {
	for change, more := range l.modes() {
		t.Run(change, func(t *testing.T) {
			table := "end_" + change
			l.booking(t, table)
			for n := range 10 {
				l.exec(t, fmt.Sprintf("INSERT INTO %s (at, n) VALUES (%s, ?)", table, l.now()), n)
			}
			p := newPlant(t)
			p.start(l.section("queries:\n" + l.query(table, change, strings.TrimPrefix(more+", start: end", ", "))))
			p.await("state ok", func() bool { return p.state == signal.StateOK })
			l.exec(t, fmt.Sprintf("INSERT INTO %s (at, n) VALUES (%s, 10)", table, l.now()))
			p.awaitCount(1)
			p.compare(map[string]int{"10": 1})
		})
	}
}

func testRestart(t *testing.T, l *lab) {
	l.booking(t, "restart")
	p := newPlant(t)
	p.start(l.section("queries:\n" + l.query("restart", "id", "")))
	committed := map[string]int{}
	for n := range 2 {
		l.exec(t, "INSERT INTO restart (at, n) VALUES ("+l.now()+", ?)", n)
		committed[fmt.Sprint(n)]++
		p.awaitCount(n + 1)
		l.server.Kill(syscall.SIGKILL)
		p.await("failed state", func() bool { return p.state == signal.StateFailed })
		if err := l.server.Run(); err != nil {
			t.Fatal(err)
		}
		p.await("state ok", func() bool { return p.state == signal.StateOK })
	}
	p.compare(committed)
}
