package mes

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

const (
	statementPatience = 30 * time.Second
	pingPoll          = 10 * time.Second
	answersSection    = "work_orders" // the name of its part of the cursor
)

// buffering is how rows wait for the buffer, and how long a query waits after it failed.
var buffering = polling.Patience{Records: "rows", Stays: "the rows stay in the database", HeldAfter: 2 * time.Second,
	FirstWait: 500 * time.Millisecond, LongestWait: 30 * time.Second}

// source is the driver of one database.
type source struct {
	env       signal.Env
	config    Config
	zone      *time.Location
	dialect   *dialect
	connector *connector
	db        func() *sql.DB // opened at the first call: a driver that is only made, for a check, holds nothing
	health    polling.Health
	making    sync.Mutex // of the staging table
}

func newSource(env signal.Env, c Config, zone *time.Location) *source {
	s := &source{env: env, config: c, zone: zone, dialect: dialects[c.Driver], connector: &connector{config: &c}}
	s.db = sync.OnceValue(func() *sql.DB {
		db := sql.OpenDB(s.connector) // connects at the first use
		db.SetMaxIdleConns(2)
		db.SetMaxOpenConns(len(c.Queries) + 3)
		db.SetConnMaxIdleTime(time.Minute)
		return db
	})
	s.health.Reporter = env.Reporter
	return s
}

// Run implements signal.Driver: one goroutine for each query and one for the answers. They share the cursor.
func (s *source) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	defer s.env.Reporter.State(signal.StateStopped, "")
	s.env.Reporter.State(signal.StateConnecting, "")
	b, err := polling.Open(&s.env, cursor, emit, &buffering)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	for i := range s.config.Queries {
		q := &s.config.Queries[i]
		p := &poller{source: s, book: b, query: q}
		group.Go(func() {
			s.loop(ctx, q.Tag, q.Table, q.Poll, p.step)
			p.halt()
		})
	}
	w := s.config.WorkOrders
	switch {
	case w != nil && w.Answers.Call != "":
		p := &poller{source: s, book: b, query: w.Answers.byCall(), answers: &w.Answers}
		group.Go(func() { s.loop(ctx, answersSection, w.Answers.Call, w.Answers.Poll, p.step) })
	case w != nil && w.Table != "":
		a := &answers{source: s, book: b, config: w}
		group.Go(func() { s.loop(ctx, answersSection, w.Table, w.Answers.Poll, a.step) })
	case len(s.config.Queries) == 0: // nothing else shows whether the database is there
		group.Go(func() {
			s.loop(ctx, answersSection, w.Procedure, pingPoll, func(ctx context.Context) (bool, error) { return false, s.ping(ctx) })
		})
	}
	group.Wait()
	return s.db().Close()
}

func (s *source) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	return s.db().PingContext(ctx)
}

// loop works on one part of the source until ctx ends.
func (s *source) loop(ctx context.Context, section, table string, poll time.Duration, step func(context.Context) (more bool, err error)) {
	buffering.Loop(ctx, poll, step, func() {
		s.health.Well(section)
		s.env.Reporter.Problem("query:"+section, nil)
	}, func(err error, wait time.Duration) time.Duration {
		s.reportFailure(section, table, err)
		return wait
	})
}

func (s *source) reportFailure(section, table string, err error) {
	class, message := s.dialect.fault(err)
	text := message
	if text == "" {
		text = s.connector.conceal(err)
	}
	p := explain(class, section, table, text, s.config.Driver)
	var own *polling.ProblemError
	if errors.As(err, &own) {
		p = &own.Problem
		class = faultOther
	} else if errors.Is(err, errAddress) {
		p = &signal.Problem{Code: "bad_address", Item: section, Reason: errAddress.Error(), NextStep: "correct dsn or dsn_file of this source"}
		class = faultConnection
	}
	s.env.Logger.Warn("read table", "source", s.env.Source, "query", section, "err", s.connector.conceal(err))
	s.env.Reporter.Problem("query:"+section, p)
	s.health.Ill(section, p.Reason, class == faultConnection || class == faultLogin || class == faultDatabase)
}

func explain(class fault, section, table, text, driver string) *signal.Problem {
	p := &signal.Problem{Code: "query_failed", Item: section, Reason: text,
		NextStep: "read the reason; the query is tried again by itself, the others go on"}
	switch class {
	case faultTable:
		p.Code, p.Item, p.Reason = "table_missing", table, fmt.Sprintf("table %q does not exist: %s", table, text)
		p.NextStep = "correct table in the configuration (with its schema), or make the table"
		if section == answersSection {
			p.NextStep = fmt.Sprintf("let the database's owner run work_order.%s.sql, or set create: true and allow the agent's user to make tables", driver)
		}
	case faultProcedure:
		p.Code, p.Reason = "procedure_missing", text
		p.NextStep = "compare the name and the arguments of the procedure in the configuration with the database's"
	case faultRaised:
		p.Code, p.Reason = "procedure_refuses", "a procedure of the MES says: "+text
	case faultColumn:
		p.Code, p.Item, p.Reason = "column_missing", table, text
		p.NextStep = "compare key, columns, version, time_column and mark with the table's columns"
	case faultLogin:
		p.Code, p.Reason = "login_refused", "the database refuses the user or the password: "+text
		p.NextStep = "correct dsn or dsn_file of this source, or allow the user at the database"
	case faultDatabase:
		p.Code, p.Reason = "database_missing", "the database does not exist: "+text
		p.NextStep = "correct the name of the database in dsn or dsn_file"
	case faultRight:
		p.Code, p.Item, p.Reason = "right_missing", table, text
		p.NextStep = "allow the agent's user to read the table (and to write it, where mark or work_orders are configured)"
	case faultConnection:
		p.Code, p.Reason = "no_connection", "no connection to the database: "+text
		p.NextStep = "check that the database runs and that this computer reaches it"
	}
	return p
}
