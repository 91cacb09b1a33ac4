// Package mes reads rows from the tables of an MES and lays work orders into a staging table.
//
// It owns one database. It promises that a row is emitted once per version, also when its transaction commits after later
// ones, when the agent dies between two steps, and when the database restarts; that numbers stay exact; that marks of
// progress come from the database and never from the agent's clock; and that one broken table leaves the others alone. It
// writes nothing but marks that were asked for and the staging table. PostgreSQL, MariaDB and SQLite are tested live; for
// SQL Server only the statements are.
package mes

import (
	_ "embed"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

//go:embed sample.yaml
var sample string

// Kind is this driver in the agent's list.
var Kind = signal.Kind{Name: "mes", Sample: sample, New: newDriver}

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
	Change      string        `yaml:"change"`       // "id" (default), "version", "xid8", "xmin", "rowversion", "mark"
	Version     string        `yaml:"version"`      // the column of the change
	TimeColumn  string        `yaml:"time_column"`  // becomes the signal's source time
	Poll        time.Duration `yaml:"poll"`         // default 1s
	Start       string        `yaml:"start"`        // "beginning" (default), "end"
	Batch       int           `yaml:"batch"`        // rows; default 500
	GapWait     time.Duration `yaml:"gap_wait"`     // default 10m
	Overlap     time.Duration `yaml:"overlap"`      // default 10m
	OverlapRows int64         `yaml:"overlap_rows"` // for a version that is a number; default 10000
	Mark        *Mark         `yaml:"mark"`
}

// Mark is what is written back into a row after it is durable.
type Mark struct {
	Column  string `yaml:"column"`
	Value   string `yaml:"value"`
	Pending string `yaml:"pending"` // what the column holds before; needed by change: mark
}

// WorkOrders is the staging table.
type WorkOrders struct {
	Table   string  `yaml:"table"` // default lk_work_order
	Create  bool    `yaml:"create"`
	Answers Answers `yaml:"answers"`
}

// Answers says how the MES's answers are read.
type Answers struct {
	Poll time.Duration `yaml:"poll"` // default 1s
	Tag  string        `yaml:"tag"`  // default work_order_answer
}

func newDriver(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	c.fill(env)
	if err := c.validate(); err != nil {
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
		setDefault(&w.Table, "lk_work_order")
		setDefault(&w.Answers.Poll, time.Second)
		setDefault(&w.Answers.Tag, "work_order_answer")
	}
}

func (q *Query) fill() {
	setDefault(&q.Change, "id")
	setDefault(&q.Poll, time.Second)
	setDefault(&q.Start, "beginning")
	setDefault(&q.Batch, 500)
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

func (c *Config) validate() error {
	if _, ok := dialects[c.Driver]; !ok {
		return fmt.Errorf("driver %q is none of postgres, mysql, sqlserver, sqlite", c.Driver)
	}
	if (c.DSN == "") == (c.DSNFile == "") {
		return errors.New("name the database by either dsn or dsn_file")
	}
	if len(c.Queries) == 0 && c.WorkOrders == nil {
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
		switch {
		case !tableName.MatchString(w.Table):
			return fmt.Errorf("work_orders: table %q is not a plain name", w.Table)
		case w.Answers.Poll < 0 || tags[w.Answers.Tag]:
			return fmt.Errorf("work_orders: answers: poll %s is negative or tag %q is used by a query", w.Answers.Poll, w.Answers.Tag)
		}
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
}

func (q *Query) validate(driver string) error {
	need, ok := needs[q.Change]
	switch {
	case !ok:
		return fmt.Errorf("change %q is none of id, version, xid8, xmin, rowversion, mark", q.Change)
	case !slices.Contains(need.drivers, driver):
		return fmt.Errorf("change %q does not exist for %s", q.Change, driver)
	case need.version && q.Version == "":
		return fmt.Errorf("change %q needs version: the name of the column", q.Change)
	case !need.version && q.Change != "mark" && q.Version != "":
		return fmt.Errorf("version %q has no use with change %q: set change: version", q.Version, q.Change)
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
	case q.Start != "beginning" && q.Start != "end":
		return fmt.Errorf("start %q is neither beginning nor end", q.Start)
	case q.Start == "end" && q.Change == "mark":
		return errors.New("start end has no use with change mark: mark the old rows instead")
	case q.Poll < 10*time.Millisecond || q.Batch < 1 || q.GapWait < 0 || q.Overlap < 0 || q.OverlapRows < 0:
		return errors.New("poll must be at least 10ms, batch at least 1, gap_wait, overlap and overlap_rows not negative")
	}
	return nil
}
