// Package mes reads rows from the tables and procedures of an MES and hands work orders to a staging table or a procedure.
//
// It owns one database. It promises that a row is emitted once per version, also when its transaction commits after later
// ones, when the agent dies between two steps, and when the database restarts; that numbers stay exact; that marks of
// progress come from the database and never from the agent's clock; and that one broken table leaves the others alone. It
// writes nothing but marks that were asked for, the outbox, and work orders, and makes nothing unless it was told to.
// PostgreSQL, MariaDB and SQLite are tested live; for SQL Server only the statements are.
package mes

import (
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

//go:embed sample.yaml
var sample string

// Kind is this driver in the agent's list.
var Kind = signal.Kind{Name: "mes", Sample: sample, New: newDriver, Discover: discover, Explore: exploreDriver, Tags: "queries"}

// Config is a source's section. Zero values mean the defaults that the sample names.
type Config struct {
	Driver     string      `yaml:"driver"` // "postgres", "mysql", "sqlserver", "sqlite"
	DSN        string      `yaml:"dsn"`
	DSNFile    string      `yaml:"dsn_file"`
	Zone       string      `yaml:"zone"` // IANA name; default: the plant's
	Queries    []Query     `yaml:"queries"`
	WorkOrders *WorkOrders `yaml:"work_orders"`
}

// Query is one table and how its new rows are found.
type Query struct {
	Tag         string        `yaml:"tag"`
	Table       string        `yaml:"table"`
	Key         []string      `yaml:"key"`
	Columns     []string      `yaml:"columns"`      // default: all
	Change      string        `yaml:"change"`       // "id" (default), "version", "xid8", "xmin", "rowversion", "mark", "outbox", "call"
	Version     string        `yaml:"version"`      // the column of the change
	TimeColumn  string        `yaml:"time_column"`  // becomes the signal's source time
	Poll        time.Duration `yaml:"poll"`         // default 1s
	Start       string        `yaml:"start"`        // "beginning" (default), "end"
	Batch       int           `yaml:"batch"`        // rows; default 2000
	GapWait     time.Duration `yaml:"gap_wait"`     // default 10m
	Overlap     time.Duration `yaml:"overlap"`      // default 10m
	OverlapRows int64         `yaml:"overlap_rows"` // for a version that is a number; default 10000
	Mark        *Mark         `yaml:"mark"`
	Outbox      *Outbox       `yaml:"outbox"`
	Call        string        `yaml:"call"`      // a procedure that returns rows, instead of a table
	Arguments   []string      `yaml:"arguments"` // of call; default {cursor}, {limit}
	First       string        `yaml:"first"`     // what {cursor} is at the very first call; default NULL
	Done        string        `yaml:"done"`      // a procedure that is told the cursor when its rows are durable
}

// Mark is what is written back into a row after it is durable.
type Mark struct {
	Column  string `yaml:"column"`
	Value   string `yaml:"value"`
	Pending string `yaml:"pending"` // what the column holds before; needed by change: mark
}

// WorkOrders is the staging table, or the procedure that takes orders.
type WorkOrders struct {
	Table     string   `yaml:"table"` // default lk_work_order; with a procedure: where it lays orders, for the answers
	Create    bool     `yaml:"create"`
	Procedure string   `yaml:"procedure"`
	Arguments []string `yaml:"arguments"` // of the procedure; default: all of orderArguments
	Returns   string   `yaml:"returns"`   // "row" (default), "out", "code"
	Again     []int64  `yaml:"again"`     // codes that mean: later
	Check     []Check  `yaml:"check"`     // tables that must know what an order names
	Answers   Answers  `yaml:"answers"`
}

// Answers says how the MES's answers are read.
type Answers struct {
	Poll time.Duration `yaml:"poll"` // default 1s
	Tag  string        `yaml:"tag"`  // default signal.AnswerTag
	// Words translates the MES's words for a status.
	Words map[string]string `yaml:"words"`
	// Call is a procedure that returns answers, instead of the staging table; see Query.
	Call      string   `yaml:"call"`
	Arguments []string `yaml:"arguments"`
	Version   string   `yaml:"version"` // the column of the cursor; default seq
}

func newDriver(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	return makeDriver(env, decode, false)
}

func exploreDriver(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	return makeDriver(env, decode, true)
}

func makeDriver(env signal.Env, decode func(into any) error, explore bool) (signal.Driver, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	c.fill(env)
	if err := c.validate(explore); err != nil {
		return nil, err
	}
	zone := env.Zone
	if c.Zone != "" {
		var err error
		if zone, err = time.LoadLocation(c.Zone); err != nil {
			return nil, fmt.Errorf("zone %q is unknown: write an IANA name such as Europe/Berlin", c.Zone)
		}
	}
	if zone == nil {
		zone = time.UTC
	}
	return newSource(env, c, zone), nil
}

func (c *Config) fill(env signal.Env) {
	if c.DSNFile != "" && !filepath.IsAbs(c.DSNFile) {
		c.DSNFile = filepath.Join(env.ConfigDir, c.DSNFile)
	}
	for i := range c.Queries {
		c.Queries[i].fill()
	}
	if w := c.WorkOrders; w != nil {
		w.fill()
	}
}

func (w *WorkOrders) fill() {
	if w.Procedure == "" {
		setDefault(&w.Table, "lk_work_order")
	} else {
		setDefault(&w.Returns, "row")
		if len(w.Arguments) == 0 {
			w.Arguments = slices.Clone(orderArguments)
		}
	}
	setDefault(&w.Answers.Poll, time.Second)
	setDefault(&w.Answers.Tag, signal.AnswerTag)
	setDefault(&w.Answers.Version, "seq")
}

func (q *Query) fill() {
	if q.Call != "" {
		setDefault(&q.Change, "call")
		if len(q.Arguments) == 0 {
			q.Arguments = []string{"{cursor}", "{limit}"}
		}
	}
	setDefault(&q.Change, "id")
	if q.Change == "outbox" {
		if q.Outbox == nil {
			q.Outbox = &Outbox{}
		}
		setDefault(&q.Outbox.Table, "lk_outbox")
		setDefault(&q.Outbox.Taken, "delete")
		if len(q.Outbox.Operations) == 0 {
			q.Outbox.Operations = []string{"insert", "update"}
		}
	}
	setDefault(&q.Poll, time.Second)
	setDefault(&q.Start, "beginning")
	setDefault(&q.Batch, 2000)
	setDefault(&q.GapWait, 10*time.Minute)
	setDefault(&q.Overlap, 10*time.Minute)
	setDefault(&q.OverlapRows, 10_000)
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

func (c *Config) validate(explore bool) error {
	if _, ok := dialects[c.Driver]; !ok {
		return fmt.Errorf("driver %q is none of postgres, mysql, sqlserver, sqlite", c.Driver)
	}
	if (c.DSN == "") == (c.DSNFile == "") {
		return errors.New("name the database by either dsn or dsn_file")
	}
	if len(c.Queries) == 0 && c.WorkOrders == nil && !explore {
		return errors.New("neither queries nor work_orders are configured: there is nothing to do")
	}
	tags := map[string]bool{answersSection: true}
	for i := range c.Queries {
		q := &c.Queries[i]
		if q.Tag == "" || tags[q.Tag] {
			return fmt.Errorf("queries: tag %q is empty, reserved or used twice", q.Tag)
		}
		tags[q.Tag] = true
		if err := q.validate(c.Driver); err != nil {
			return fmt.Errorf("queries: %q: %w", q.Tag, err)
		}
	}
	if w := c.WorkOrders; w != nil {
		if tags[w.Answers.Tag] {
			return fmt.Errorf("work_orders: answers: tag %q is used by a query", w.Answers.Tag)
		}
		if err := w.validate(c.Driver); err != nil {
			return fmt.Errorf("work_orders: %w", err)
		}
	}
	return nil
}

func (w *WorkOrders) validate(driver string) error {
	for i := range w.Check {
		if err := w.Check[i].validate(); err != nil {
			return err
		}
	}
	switch {
	case w.Table != "" && !tableName.MatchString(w.Table):
		return fmt.Errorf("table %q is not a plain name", w.Table)
	case w.Answers.Poll < 10*time.Millisecond:
		return fmt.Errorf("answers: poll is %s, the least is 10ms", w.Answers.Poll)
	case w.Answers.Call != "" && (!tableName.MatchString(w.Answers.Call) || driver == "sqlite"):
		return fmt.Errorf("answers: call %q is not a plain name, or %s has no procedures", w.Answers.Call, driver)
	case w.Answers.badWord() != "":
		return fmt.Errorf("answers: words: %q is none of accepted, rejected, started, held, finished, cancelled", w.Answers.badWord())
	case w.Procedure == "" && (len(w.Arguments) > 0 || w.Returns != "" || len(w.Again) > 0):
		return errors.New("arguments, returns and again belong to a procedure: name it")
	case w.Procedure == "":
		return nil
	case !tableName.MatchString(w.Procedure):
		return fmt.Errorf("procedure %q is not a name such as mes.take_order", w.Procedure)
	case driver == "sqlite":
		return errors.New("sqlite has no procedures: use table")
	case w.Create:
		return errors.New("create has no use with a procedure: it makes the staging table")
	case w.Returns != "row" && w.Returns != "out" && (w.Returns != "code" || driver != "sqlserver"):
		return fmt.Errorf("returns %q is neither row nor out, nor is it code on sqlserver", w.Returns)
	}
	for _, a := range w.Arguments {
		if !slices.Contains(orderArguments, a) {
			return fmt.Errorf("arguments: %q is none of %s", a, strings.Join(orderArguments, ", "))
		}
	}
	if !slices.Contains(w.Arguments, "message_id") && !(slices.Contains(w.Arguments, "order_no") && slices.Contains(w.Arguments, "revision")) {
		return errors.New("arguments: the procedure needs message_id, or order_no and revision, to know an order that comes a second time")
	}
	return nil
}

// tableName allows a schema and a database in front.
var tableName = regexp.MustCompile(`^[\pL_][\pL\pN_$]*(\.[\pL_][\pL\pN_$]*){0,2}$`)

// needs says which databases know a way of finding changes, and whether it needs a version column.
var needs = map[string]struct {
	drivers []string
	version bool
}{
	"id":         {[]string{"postgres", "mysql", "sqlserver", "sqlite"}, false},
	"version":    {[]string{"postgres", "mysql", "sqlserver", "sqlite"}, true},
	"mark":       {[]string{"postgres", "mysql", "sqlserver", "sqlite"}, false},
	"xid8":       {[]string{"postgres"}, true},
	"xmin":       {[]string{"postgres"}, false},
	"rowversion": {[]string{"sqlserver"}, true},
	"outbox":     {[]string{"postgres", "mysql", "sqlserver", "sqlite"}, false},
	"call":       {[]string{"postgres", "mysql", "sqlserver"}, true},
}

func (q *Query) validate(driver string) error {
	need, ok := needs[q.Change]
	switch {
	case !ok:
		return fmt.Errorf("change %q is none of id, version, xid8, xmin, rowversion, mark, outbox, call", q.Change)
	case !slices.Contains(need.drivers, driver):
		return fmt.Errorf("change %q does not exist for %s", q.Change, driver)
	case need.version && q.Version == "":
		return fmt.Errorf("change %q needs version: the name of the column", q.Change)
	case !need.version && q.Change != "mark" && q.Version != "":
		return fmt.Errorf("version %q has no use with change %q: set change: version", q.Version, q.Change)
	case q.Change == "call":
		return q.validateCall()
	case q.Call != "" || q.Done != "" || len(q.Arguments) > 0 || q.First != "":
		return fmt.Errorf("call, arguments, first and done have no use with change %q", q.Change)
	case !tableName.MatchString(q.Table):
		return fmt.Errorf("table %q is not a name such as confirmation or mes.confirmation", q.Table)
	case len(q.Key) == 0:
		return errors.New("key is empty: name the columns that identify a row")
	case q.Change == "id" && len(q.Key) != 1:
		return fmt.Errorf("change id needs one integer key, not %v: set change: version and name a version column", q.Key)
	case q.Change == "mark" && (q.Mark == nil || q.Mark.Pending == ""):
		return errors.New("change mark needs mark: {column, value, pending}")
	case q.Mark != nil && (q.Mark.Column == "" || q.Mark.Value == q.Mark.Pending):
		return errors.New("mark needs a column, and a value that differs from pending")
	case (q.Outbox != nil) != (q.Change == "outbox"):
		return fmt.Errorf("outbox has no use with change %q: set change: outbox", q.Change)
	case q.Mark != nil && q.Change == "outbox":
		return errors.New("mark has no use with change outbox: its rows are deleted or marked by themselves")
	case q.Start != "beginning" && q.Start != "end":
		return fmt.Errorf("start %q is neither beginning nor end", q.Start)
	case q.Start == "end" && (q.Change == "mark" || q.Change == "outbox"):
		return fmt.Errorf("start end has no use with change %s: mark or delete the old rows instead", q.Change)
	case q.Poll < 10*time.Millisecond || q.Batch < 1 || q.GapWait < 0 || q.Overlap < 0 || q.OverlapRows < 0:
		return errors.New("poll must be at least 10ms, batch at least 1, gap_wait, overlap and overlap_rows not negative")
	}
	return q.Outbox.validate()
}

func (q *Query) validateCall() error {
	switch {
	case q.Call == "" || !tableName.MatchString(q.Call):
		return fmt.Errorf("call %q is not a name such as mes.new_confirmations", q.Call)
	case q.Done != "" && !tableName.MatchString(q.Done):
		return fmt.Errorf("done %q is not a name such as mes.confirmations_taken", q.Done)
	case len(q.Key) == 0:
		return errors.New("key is empty: name the columns that identify a row")
	case !slices.Contains(q.Arguments, "{cursor}"):
		return errors.New("arguments need {cursor}: without it each call would return the same rows")
	case q.Table != "" || q.Mark != nil || q.Outbox != nil || len(q.Columns) > 0 || q.Start == "end":
		return errors.New("table, columns, mark, outbox and start: end have no use with call: set first to where to begin")
	case q.Poll < 10*time.Millisecond || q.Batch < 1:
		return errors.New("poll must be at least 10ms and batch at least 1")
	}
	return nil
}

func (o *Outbox) validate() error {
	if o == nil {
		return nil
	}
	if !tableName.MatchString(o.Table) {
		return fmt.Errorf("outbox: table %q is not a name such as lk_outbox", o.Table)
	}
	if o.Taken != "delete" && o.Taken != "mark" {
		return fmt.Errorf("outbox: taken %q is neither delete nor mark", o.Taken)
	}
	for _, op := range o.Operations {
		if op != "insert" && op != "update" && op != "delete" {
			return fmt.Errorf("outbox: operations: %q is none of insert, update, delete", op)
		}
	}
	return nil
}
