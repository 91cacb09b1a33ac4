package mes

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"testing"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func (p *plant) explore(section string) signal.Driver {
	p.t.Helper()
	d, err := Kind.Explore(signal.Env{Source: "s", Dir: p.dir, ConfigDir: p.dir, Reporter: p}, func(into any) error { return yaml.Load([]byte(section), into, yaml.WithKnownFields()) })
	if err != nil {
		p.t.Fatalf("make the driver: %v\n%s", err, section)
	}
	return d
}

// What is found in the database can be read as it is proposed.
func testBrowse(t *testing.T, l *lab) {
	l.booking(t, "mes_booking")
	l.exec(t, "CREATE TABLE line_items (order_no varchar(20), line int, changed_at "+l.timestamp()+", PRIMARY KEY (order_no, line))")
	l.exec(t, "CREATE TABLE parts (order_no varchar(20) PRIMARY KEY, n int)")
	l.exec(t, "INSERT INTO mes_booking (at, n) VALUES ("+l.now()+", 42)")
	p := newPlant(t)
	ctx := context.Background()
	d := p.explore(l.section("")).(signal.Browser)
	tables, next, err := d.Browse(ctx, "", "", 2)
	if err != nil || len(tables) != 2 || next == "" || tables[0].ID != "line_items" || tables[0].Kind != "table" || !tables[0].Children {
		t.Fatalf("tables are %+v, next %q, %v", tables, next, err)
	}
	rest, next, err := d.Browse(ctx, "", next, 2)
	if err != nil || next != "" || len(rest) == 0 || rest[len(rest)-1].ID != "parts" {
		t.Errorf("the rest is %+v, next %q, %v", rest, next, err)
	}
	want := map[string]string{"mes_booking": "key: [id]\n", "line_items": "key: [order_no, line]\nchange: version\nversion: changed_at\n", "parts": "key: [order_no]\nchange: outbox\n"}
	var queries []string
	for table, tag := range want {
		columns, _, err := d.Browse(ctx, table, "", 100)
		if err != nil || len(columns) < 2 || columns[0].Type == "" || columns[0].Tag != "tag: "+table+"\ntable: "+table+"\n"+tag {
			t.Fatalf("columns of %s are %+v, %v", table, columns, err)
		}
		q := strings.ReplaceAll("- "+columns[0].Tag+"poll: 10ms\n", "\n", "\n  ")
		if table == "parts" {
			q = strings.TrimRight(q, " ") + "  outbox: {create: true}\n"
		}
		queries = append(queries, strings.TrimRight(q, " "))
	}
	var found []signal.Entry
	if err := d.Find(ctx, "", "*ing/n", func(e signal.Entry) bool { found = append(found, e); return true }); err != nil || len(found) != 1 || found[0].Value != "42" || found[0].ID != "mes_booking#n" {
		t.Errorf("found %+v, %v", found, err)
	}
	section := l.section("queries:\n" + strings.Join(queries, ""))
	steps := p.make(section).(signal.Prober).Probe(ctx)
	for _, s := range steps {
		if s.Problem != nil {
			t.Errorf("step %q: %+v", s.Name, s.Problem)
		}
	}
	if len(steps) < 8 {
		t.Errorf("steps are %+v", steps)
	}
	p.start(section)
	p.awaitCount(1)
}

func testProbe(t *testing.T, l *lab) {
	l.booking(t, "here")
	p := newPlant(t)
	last := func(section string) *signal.Problem {
		steps := p.make(section).(signal.Prober).Probe(context.Background())
		for _, s := range steps {
			if s.Problem != nil {
				return s.Problem
			}
		}
		return &signal.Problem{}
	}
	if x := last(l.section("queries: [{tag: a, table: gone, key: [id]}]")); x.Code != "table_missing" || x.Item != "gone" {
		t.Errorf("a missing table: %+v", x)
	}
	if x := last(l.section("queries: [{tag: a, table: here, key: [nope]}]")); x.Code != "column_missing" {
		t.Errorf("a missing column: %+v", x)
	}
	if x := last(l.section("queries: [{tag: a, table: here, key: [id], change: outbox}]")); x.Code != "outbox_missing" || !strings.Contains(x.NextStep, "outbox.a.sql") {
		t.Errorf("a missing outbox: %+v", x)
	}
	if x := last(l.section("work_orders: {}")); x.Code != "table_missing" {
		t.Errorf("a missing staging table: %+v", x)
	}
	if l.server == nil {
		return
	}
	if x := last(strings.Replace(l.section("queries: [{tag: a, table: here, key: [id]}]"), l.server.Password, "wrong", 1)); x.Code != "login_refused" {
		t.Errorf("a wrong password: %+v", x)
	}
	gone := strings.Replace(l.section("queries: [{tag: a, table: here, key: [id]}]"), fmt.Sprint(l.server.Port), fmt.Sprint(realparts.FreePort(t)), 1)
	if x := last(gone); x.Code != "no_connection" || strings.Contains(x.Reason, l.server.Password) {
		t.Errorf("nobody listens: %+v", x)
	}
}

func testDiscover(t *testing.T, l *lab) {
	l.booking(t, "to_be_found")
	ctx := context.Background()
	env := signal.Env{Reporter: newPlant(t)}
	addresses := []string{l.dsn}
	if l.server != nil {
		addresses = append(addresses, fmt.Sprintf("127.0.0.1:%d", l.server.Port))
	}
	for i, a := range addresses {
		offers, err := Kind.Discover(ctx, env, a)
		if err != nil || len(offers) != 1 || !strings.Contains(offers[0].Section, "driver: "+l.driver+"\n") {
			t.Fatalf("at %q: %+v, %v", a, offers, err)
		}
		if i == 0 && !strings.Contains(strings.Join(offers[0].Notes, " "), "to_be_found") {
			t.Errorf("tables are not named: %+v", offers[0])
		}
		if l.server != nil && strings.Contains(fmt.Sprint(offers), l.server.Password) {
			t.Errorf("the password is in an offer: %+v", offers)
		}
		newPlant(t).explore(offers[0].Section)
	}
	if offers, err := Kind.Discover(ctx, env, fmt.Sprintf("127.0.0.1:%d", realparts.FreePort(t))); err == nil {
		t.Errorf("nobody is there: %+v", offers)
	}
}

// suite is one table of a real database, for the suite that every driver passes.
type suite struct {
	*lab
	t      testing.TB
	change string
	made   int
}

func (s *suite) Section() string {
	return s.section("queries:\n" + s.query("suite", s.change, map[string]string{"mark": "mark: {column: state, value: TAKEN, pending: NEW}", "version": "version: at",
		"xid8": "version: xid", "outbox": "outbox: {create: true}"}[s.change]) + "\n- {tag: other, table: other, key: [id], poll: 10ms}")
}

func (s *suite) Produce(n int) {
	s.t.Helper()
	for range n {
		s.made++
		s.exec(s.t, "INSERT INTO suite (at, n, note) VALUES ("+s.now()+", ?, 'x')", s.made)
	}
}

// Spoil lets somebody write what is no row into the outbox. Elsewhere a table holds rows and nothing else: another table, which
// the source reads, too, goes away.
func (s *suite) Spoil() {
	s.t.Helper()
	if s.change == "outbox" {
		s.exec(s.t, "INSERT INTO lk_outbox (source, op, row_data, changed_at) VALUES ('suite', 'insert', 'torn', "+s.now()+")")
		return
	}
	s.exec(s.t, "DROP TABLE other")
}

func (s *suite) Number(x signal.Signal) (int, bool) {
	v, ok := signal.Whole(x.Value).(map[string]any)
	if !ok {
		return 0, false
	}
	n, err := v["n"].(signal.Number).Int64()
	return int(n), err == nil
}

func (s *suite) Restart() {
	if s.server == nil {
		return // a file has no server
	}
	s.server.Kill(endServer)
	if err := s.server.Run(); err != nil {
		s.t.Fatal(err)
	}
}

func testSuite(t *testing.T, driver, change string) {
	drivertest.Run(t, drivertest.Options{Kind: Kind, Start: func(tb testing.TB) drivertest.Source {
		server := map[string]*realparts.Database{"postgres": servers.postgres, "mysql": servers.mysql}[driver]
		s := &suite{lab: newLabOn(tb, driver, server), t: tb, change: change}
		xid := ""
		if change == "xid8" {
			xid = ", xid xid8 NOT NULL DEFAULT pg_current_xact_id()"
		}
		s.exec(tb, fmt.Sprintf("CREATE TABLE suite (id %s, at %s NOT NULL, n INT NOT NULL, note VARCHAR(20), state VARCHAR(10) NOT NULL DEFAULT 'NEW'%s)", s.serial(), s.timestamp(), xid))
		s.booking(tb, "other")
		if change == "outbox" { // a plant that starts has its triggers
			p := &plant{t: tb, dir: tb.TempDir(), problems: map[string]*signal.Problem{}}
			stop := p.start(s.outboxQuery("suite", ""))
			p.await("state ok", func() bool { return p.state == signal.StateOK })
			stop()
		}
		return s
	}})
}

// endServer: PostgreSQL waits for its clients at SIGTERM, and MariaDB takes long.
const endServer = syscall.SIGKILL

// A plan that was made while the table was empty would read all of it at each poll once it is large.
func testPlans(t *testing.T, l *lab) {
	if l.driver != "postgres" {
		return // the others plan for the values they get
	}
	s := newPlant(t).explore(l.section("")).(*source)
	defer s.db().Close()
	for range 3 { // on whatever connection
		var mode string
		if err := s.db().QueryRow("SHOW plan_cache_mode").Scan(&mode); err != nil || mode != "force_custom_plan" {
			t.Errorf("plans are made by mode %q, %v", mode, err)
		}
	}
}
