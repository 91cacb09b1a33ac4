package mes

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const patience = 30 * time.Second

// plant is what a driver is run against: it keeps what became durable, like the agent does.
type plant struct {
	t   testing.TB
	dir string

	mu       sync.Mutex
	signals  []signal.Signal
	cursor   []byte
	state    signal.State
	problems map[string]*signal.Problem
	log      strings.Builder
}

func newPlant(t testing.TB) *plant {
	return &plant{t: t, dir: t.TempDir(), problems: map[string]*signal.Problem{}}
}

func (p *plant) State(s signal.State, _ string) { p.mu.Lock(); defer p.mu.Unlock(); p.state = s }

func (p *plant) Problem(key string, x *signal.Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x == nil {
		delete(p.problems, key)
	} else {
		p.problems[key] = x
		fmt.Fprintf(&p.log, "%+v\n", *x)
	}
}

func (p *plant) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *plant) emit(_ context.Context, b signal.Batch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signals = append(p.signals, b.Signals...)
	if b.Cursor != nil {
		p.cursor = b.Cursor
	}
	return nil
}

func (p *plant) make(section string) signal.Driver {
	p.t.Helper()
	env := signal.Env{Plant: "p", Agent: "a", Source: "s", Dir: p.dir, ConfigDir: p.dir, Zone: time.UTC, Reporter: p,
		Logger: slog.New(slog.NewTextHandler(p, nil))}
	d, err := Kind.New(env, func(into any) error { return yaml.Load([]byte(section), into, yaml.WithKnownFields()) })
	if err != nil {
		p.t.Fatalf("make the driver: %v\n%s", err, section)
	}
	return d
}

// start runs a driver and returns a function that stops it and waits for its end.
func (p *plant) start(section string) (stop func()) { return p.run(p.make(section), p.emit) }

func (p *plant) run(d signal.Driver, emit signal.Emit) (stop func()) {
	p.mu.Lock()
	cursor := p.cursor
	p.mu.Unlock()
	return drivertest.Start(p.t, d, cursor, emit, patience)
}

func (p *plant) await(what string, ok func() bool) {
	p.t.Helper()
	realparts.Eventually(p.t, patience, what, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if ok() {
			return nil
		}
		var problems []string
		for key, x := range p.problems {
			problems = append(problems, fmt.Sprintf("%s: %+v", key, *x))
		}
		return fmt.Errorf("%d signals, state %q, problems %q", len(p.signals), p.state, problems)
	})
}

func (p *plant) awaitProblem(key, code string) *signal.Problem {
	p.t.Helper()
	var found *signal.Problem
	p.await("problem "+code, func() bool { found = p.problems[key]; return found != nil && found.Code == code })
	return found
}

func (p *plant) awaitCount(n int) {
	p.t.Helper()
	p.await(fmt.Sprintf("%d signals", n), func() bool { return len(p.signals) >= n })
}

// all returns a copy of the durable signals.
func (p *plant) all() []signal.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]signal.Signal(nil), p.signals...)
}

// lab is one kind of database with an empty one of its own.
type lab struct {
	driver string // as in the configuration
	dsn    string
	db     *sql.DB
	server *realparts.Database // nil for SQLite
}

// serial is the definition of a key that the database counts up.
func (l *lab) serial() string {
	return map[string]string{"postgres": "bigserial PRIMARY KEY", "mysql": "BIGINT AUTO_INCREMENT PRIMARY KEY",
		"sqlite": "INTEGER PRIMARY KEY AUTOINCREMENT"}[l.driver]
}

func (l *lab) timestamp() string {
	return map[string]string{"postgres": "timestamptz", "mysql": "DATETIME(6)", "sqlite": "TEXT"}[l.driver]
}

func (l *lab) now() string {
	return map[string]string{"postgres": "clock_timestamp()", "mysql": "NOW(6)", "sqlite": "strftime('%Y-%m-%dT%H:%M:%fZ', 'now')"}[l.driver]
}

func (l *lab) exec(t testing.TB, statement string, args ...any) {
	t.Helper()
	if l.driver == "postgres" {
		for n := 1; strings.Contains(statement, "?"); n++ {
			statement = strings.Replace(statement, "?", fmt.Sprintf("$%d", n), 1)
		}
	}
	if _, err := l.db.Exec(statement, args...); err != nil {
		t.Fatalf("execute %q: %v", statement, err)
	}
}

func (l *lab) section(rest string) string {
	return fmt.Sprintf("driver: %s\ndsn: %q\n%s\n", l.driver, l.dsn, rest)
}

// servers are shared by the package's tests; each test has databases of its own.
var servers struct {
	postgres, mysql *realparts.Database
}

func TestOnRealDatabases(t *testing.T) {
	servers.postgres, servers.mysql = realparts.Postgres(t), realparts.MariaDB(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *lab)
	}{
		{"OutOfOrderCommits", testOutOfOrderCommits},
		{"LateCommitIsFoundAfterAnyTime", testLateCommit},
		{"RolledBackNumbersDoNotBlock", testRolledBackNumbers},
		{"UpdatesAreNewVersions", testUpdates},
		{"DecimalsAndTimesStayExact", testExactValues},
		{"TimesAreWhatTheServerWrites", testServersTimes},
		{"BrokenTableLeavesTheOthersAlone", testBrokenTable},
		{"WrongPasswordIsAClearProblemWithoutThePassword", testWrongPassword},
		{"InterfaceTableIsMarked", testMark},
		{"StartAtTheEndLeavesOldRowsOut", testStartAtEnd},
		{"WorkOrderIsInsertedOnce", testDeliver},
		{"AnswersAreTakenOnce", testAnswers},
		{"MissingStagingTable", testMissingStagingTable},
		{"OutboxNotesEveryChange", testOutbox},
		{"OutboxOnlyOfInserts", testOutboxOperations},
		{"OutboxMadeByTheOwner", testOutboxScript},
		{"OutboxWithoutTrigger", testOutboxWithoutTrigger},
		{"OutboxValuesAreThoseOfTheTable", testOutboxValues},
		{"OrderIsCheckedAgainstTables", testCheckOrder},
		{"ProcedureReturnsRows", testCall},
		{"ProcedureTakesOrders", testProcedure},
		{"TenThousandOutOfOrder", testTenThousand},
		{"BrowsingProposesQueries", testBrowse},
		{"ProbeNamesTheStepThatFails", testProbe},
		{"DatabasesAreFound", testDiscover},
		{"PlansAreMadeForTheTableAsItIs", testPlans},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, driver := range []string{"postgres", "mysql", "sqlite"} {
				t.Run(driver, func(t *testing.T) {
					t.Parallel() // with the other databases: most of the time is waiting
					c.test(t, newLab(t, driver))
				})
			}
		})
	}
	// The last ones: they kill the servers.
	t.Run("ADriverLikeOthers", func(t *testing.T) {
		for _, c := range []struct{ driver, change string }{{"postgres", "id"}, {"mysql", "mark"}, {"sqlite", "outbox"}} {
			t.Run(c.driver+"_"+c.change, func(t *testing.T) { testSuite(t, c.driver, c.change) })
		}
	})
	t.Run("RestartOfTheDatabase", func(t *testing.T) {
		for _, driver := range []string{"postgres", "mysql"} {
			t.Run(driver, func(t *testing.T) {
				t.Parallel()
				testRestart(t, newLab(t, driver))
			})
		}
	})
}

func newLab(t *testing.T, driver string) *lab {
	t.Helper()
	return newLabOn(t, driver, map[string]*realparts.Database{"postgres": servers.postgres, "mysql": servers.mysql}[driver])
}

// newLabOn makes an empty database on a server.
func newLabOn(t testing.TB, driver string, server *realparts.Database) *lab {
	t.Helper()
	l := &lab{driver: driver, server: server}
	name := driver
	switch driver {
	case "postgres":
		name = "pgx"
	case "sqlite":
		l.dsn = filepath.Join(t.TempDir(), "mes.db")
		if err := os.WriteFile(l.dsn, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	address := l.dsn + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(wal)&_pragma=synchronous(off)"
	if l.server != nil {
		l.dsn = l.server.NewDatabase(t)
		address = l.dsn
	}
	db, err := sql.Open(name, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	l.db = db
	return l
}
