package mes

import (
	"bytes"
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const (
	statementPatience = 30 * time.Second
	firstWait         = 500 * time.Millisecond
	longestWait       = 30 * time.Second
	heldAfter         = 2 * time.Second
	pingPoll          = 10 * time.Second
	answersSection    = "work_orders" // the name of its part of the cursor
)

// source is the driver of one database.
type source struct {
	env       signal.Env
	config    Config
	zone      *time.Location
	dialect   *dialect
	connector *connector
	db        func() *sql.DB // opened at the first call: a driver that is only made, for a check, holds nothing
	health    health
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
	s.health = health{reporter: env.Reporter, broken: map[string]string{}}
	return s
}

// Run implements signal.Driver: one goroutine for each query and one for the answers. They share the cursor.
func (s *source) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	defer s.env.Reporter.State(signal.StateStopped, "")
	s.env.Reporter.State(signal.StateConnecting, "")
	b, err := openBook(s, cursor, emit)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	for i := range s.config.Queries {
		q := &s.config.Queries[i]
		p := &poller{source: s, book: b, query: q}
		group.Go(func() { s.loop(ctx, q.Tag, q.Table, q.Poll, p.step) })
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

// loop calls step at each poll, at once again when it says that there is more, and after a growing wait when it fails.
func (s *source) loop(ctx context.Context, section, table string, poll time.Duration, step func(context.Context) (more bool, err error)) {
	for failures := 0; ctx.Err() == nil; {
		more, err := step(ctx)
		wait := poll
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = max(poll, rand.N(min(firstWait<<min(failures, 10), longestWait)))
			failures++
			s.reportFailure(section, table, err)
		default:
			failures = 0
			s.health.well(section)
			s.env.Reporter.Problem("query:"+section, nil)
		}
		if more && err == nil {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

func (s *source) reportFailure(section, table string, err error) {
	class, message := s.dialect.fault(err)
	text := message
	if text == "" {
		text = s.connector.conceal(err)
	}
	p := explain(class, section, table, text, s.config.Driver)
	var own *problemError
	if errors.As(err, &own) {
		p = &own.problem
		class = faultOther
	} else if errors.Is(err, errAddress) {
		p = &signal.Problem{Code: "bad_address", Item: section, Reason: errAddress.Error(), NextStep: "correct dsn or dsn_file of this source"}
		class = faultConnection
	}
	s.env.Logger.Warn("read table", "source", s.env.Source, "query", section, "err", s.connector.conceal(err))
	s.env.Reporter.Problem("query:"+section, p)
	s.health.ill(section, p.Reason, class == faultConnection || class == faultLogin || class == faultDatabase)
}

// problemError is an error that carries its own explanation.
type problemError struct{ problem signal.Problem }

func (e *problemError) Error() string { return e.problem.Reason }

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

// health makes one state of the source of those of its queries.
type health struct {
	reporter signal.Reporter
	mu       sync.Mutex
	broken   map[string]string // by query: why there is no connection
}

func (h *health) well(section string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.broken, section)
	if len(h.broken) == 0 {
		h.reporter.State(signal.StateOK, "")
	}
}

func (h *health) ill(section, reason string, noConnection bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.broken, section)
	if noConnection {
		h.broken[section] = reason
		h.reporter.State(signal.StateFailed, reason)
	} else if len(h.broken) == 0 {
		h.reporter.State(signal.StateOK, "") // the database is there; the query's own problem says the rest
	}
}

// book is the cursor of the whole source: a part for each query and one for the answers. It makes batches durable one
// after the other.
type book struct {
	source *source
	emit   signal.Emit

	mu    sync.Mutex
	parts map[string]json.RawMessage
}

func openBook(s *source, cursor []byte, emit signal.Emit) (*book, error) {
	b := &book{source: s, emit: emit, parts: map[string]json.RawMessage{}}
	if len(cursor) == 0 {
		return b, nil
	}
	if err := json.Unmarshal(cursor, &b.parts); err != nil {
		// To start anew would read everything again, to go on would be a guess.
		return nil, fmt.Errorf("read cursor of source %q: %w", s.env.Source, err)
	}
	return b, nil
}

// part reads one part into state; it reports false when there is none yet.
func (b *book) part(section string, state any) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	raw, ok := b.parts[section]
	if !ok {
		return false, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(state); err != nil {
		return false, &problemError{signal.Problem{Code: "cursor_unreadable", Item: section,
			Reason: "the stored position of this query cannot be read: " + err.Error(), NextStep: "give the query another tag to read the table from its beginning"}}
	}
	return true, nil
}

// commit makes signals and the new state of a part durable together. It repeats until that is done; the only error is the
// context's.
func (b *book) commit(ctx context.Context, section string, state any, signals []signal.Signal) error {
	return b.commitEncoded(ctx, section, encodeState(state), signals)
}

func encodeState(state any) json.RawMessage {
	raw, err := json.Marshal(state)
	if err != nil {
		panic(err) // states are made of texts and numbers
	}
	return raw
}

// commitEncoded is commit with a state that may change meanwhile.
func (b *book) commitEncoded(ctx context.Context, section string, raw json.RawMessage, signals []signal.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	parts := make(map[string]json.RawMessage, len(b.parts)+1)
	for k, v := range b.parts {
		parts[k] = v
	}
	parts[section] = raw
	cursor, err := json.Marshal(parts)
	if err != nil {
		panic(err)
	}
	batch := signal.Batch{Source: b.source.env.Source, Signals: signals, Cursor: cursor}
	if err := b.emitUntilDurable(ctx, batch); err != nil {
		return err
	}
	b.parts = parts
	return nil
}

func (b *book) emitUntilDurable(ctx context.Context, batch signal.Batch) error {
	report := b.source.env.Reporter.State
	held := time.AfterFunc(heldAfter, func() {
		report(signal.StateHeld, "the buffer does not take more at present; the rows stay in the database")
	})
	defer held.Stop()
	for attempt := 0; ; attempt++ {
		err := b.emit(ctx, batch)
		if err == nil {
			return nil // the next successful step reports that all is well
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		report(signal.StateHeld, "store rows: "+err.Error())
		b.source.env.Logger.Warn("store rows", "source", b.source.env.Source, "err", err)
		timer := time.NewTimer(rand.N(min(firstWait<<min(attempt, 10), longestWait)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
