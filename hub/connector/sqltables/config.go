package sqltables

import (
	"cmp"
	_ "embed"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/secret"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Sample is the commented section of a configuration file.
//
//go:embed sample.yaml
var Sample string

// Config says where the database is and what its tables mean.
type Config struct {
	// Name is what work orders call this ERP; "sql" when empty.
	Name string `yaml:"name"`
	// Driver is postgres, mysql (also for MariaDB) or sqlite.
	Driver string `yaml:"driver"`
	// DSN is the database's address in the driver's own form; DSNFile a file whose first line is that, for it holds a password.
	DSN     string `yaml:"dsn"`
	DSNFile string `yaml:"dsn_file"`

	Orders     Orders     `yaml:"orders"`
	Components Components `yaml:"components"`
	Postings   Postings   `yaml:"postings"`

	// States maps the system's order states to ours; ours (RELEASED, ...) need no entry. Units maps its units to UN/ECE
	// Recommendation 20, one to one; usual codes of it (C62, KGM, ...) need no entry.
	States map[string]string `yaml:"states"`
	Units  map[string]string `yaml:"units"`

	// Wait is how long Post waits for the job to process a row; 2 s when 0. Settle is how long a statement whose answer was lost
	// may go on in the database; 1 min when 0. Timeout of one question; 30 s when 0.
	Wait    time.Duration `yaml:"wait"`
	Settle  time.Duration `yaml:"settle"`
	Timeout time.Duration `yaml:"timeout"`
	// PageSize is how many orders are read at once, 1 to 1000; 200 when 0. Connections is how many are open at most; 4 when 0.
	PageSize    int `yaml:"page_size"`
	Connections int `yaml:"connections"`
}

// Orders is the table or view of work orders. Columns: order_no, item, quantity, unit, state and changed are necessary.
type Orders struct {
	Table   string            `yaml:"table"`
	Columns map[string]string `yaml:"columns"`
	// Changed is what the changed column holds: time (default) or number. Overlap is how far back it is read again: 5 min for
	// a time when 0. OverlapNumber is the same for a number; 1000 when 0.
	Changed       string        `yaml:"changed"`
	Overlap       time.Duration `yaml:"overlap"`
	OverlapNumber int64         `yaml:"overlap_number"`
	// Site of all orders where no column says it.
	Site string `yaml:"site"`
}

// Components is the table or view of what orders need; it may be left out. All columns but description, operation and
// reservation are necessary.
type Components struct {
	Table   string            `yaml:"table"`
	Columns map[string]string `yaml:"columns"`
}

// Postings is the interface table. Its column movement_type, where there is one, gets the system's own type of a goods movement as a
// mapping says it; empty without one.
type Postings struct {
	Table   string            `yaml:"table"`
	Columns map[string]string `yaml:"columns"`
	// Kinds of facts that the job understands: production_confirmation, material_consumption, order_state; the first two when
	// empty. States are the shop floor's states it understands: STARTED and FINISHED when empty.
	Kinds  []string `yaml:"kinds"`
	States []string `yaml:"states"`
	// Reversals says that the job takes back the fact that the reverses column names.
	Reversals bool `yaml:"reversals"`
	// Kept says that rows stay in the table for as long as their orders are compared, also after they were processed. Without it
	// nothing is listed for reconciliation: a row that was tidied away would be taken for missing and posted again.
	Kept bool `yaml:"kept"`
	// New, Posted and Rejected are values of the status column: N, P and E when empty. NULL and other values are "not yet".
	New      string   `yaml:"new"`
	Posted   []string `yaml:"posted"`
	Rejected []string `yaml:"rejected"`
	// ErrorClasses says by error code what can be done: retryable, correctable (also for all others) or fatal.
	ErrorClasses map[string]string `yaml:"error_classes"`
	// OperationStates: the job takes the states of a single operation, which the operation column names; it is empty in rows of the
	// whole order.
	OperationStates bool `yaml:"operation_states"`
	// Scale is how many decimals the quantity columns keep; 3 when nil. A quantity with more is refused, never rounded.
	Scale *int32 `yaml:"scale"`
}

var (
	name    = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?$`)
	classes = map[string]connector.Class{"retryable": connector.Retryable, "correctable": connector.Correctable, "fatal": connector.Fatal}

	orderColumns     = strings.Fields("order_no item quantity unit state changed description site work_center lot over_percent over_unlimited")
	componentColumns = strings.Fields("order_no item quantity unit description operation reservation")
	postingColumns   = strings.Fields("fact_key kind order_no item unit status error error_code document operation yield scrap rework scrap_reason " +
		"quantity movement movement_type lot serial person equipment plant posting_date occurred_at reverses state final")
	orderStates = []object.OrderState{object.OrderPlanned, object.OrderReleased, object.OrderInProgress, object.OrderHeld,
		object.OrderCompleted, object.OrderClosed, object.OrderCancelled}
)

// rec20 are codes of UN/ECE Recommendation 20 that need no entry in units.
var rec20 = strings.Fields("C62 H87 EA KGM GRM MGM TNE LBR ONZ LTR MLT HLT MTQ MTR CMT MMT KMT MTK SEC MIN HUR DAY PR SET KWH")

func wrong(format string, args ...any) error {
	return fmt.Errorf("configure SQL tables: "+format, args...)
}

// withDefaults fills in what zero means and checks the rest; the address is read from its file.
func (c Config) withDefaults() (Config, error) {
	if c.DSNFile != "" {
		line, err := secret.FirstLine(c.DSNFile)
		if err != nil {
			return c, wrong("read dsn_file: %w", err)
		}
		c.DSN = strings.TrimSpace(line)
	}
	c.Name = cmp.Or(c.Name, "sql")
	c.Wait, c.Settle, c.Timeout = cmp.Or(c.Wait, 2*time.Second), cmp.Or(c.Settle, time.Minute), cmp.Or(c.Timeout, 30*time.Second)
	c.PageSize, c.Connections = cmp.Or(c.PageSize, 200), cmp.Or(c.Connections, 4)
	o, p := &c.Orders, &c.Postings
	o.Changed, o.Overlap, o.OverlapNumber = cmp.Or(o.Changed, "time"), cmp.Or(o.Overlap, 5*time.Minute), cmp.Or(o.OverlapNumber, 1000)
	p.New = cmp.Or(p.New, "N")
	if len(p.Posted) == 0 {
		p.Posted = []string{"P"}
	}
	if len(p.Rejected) == 0 {
		p.Rejected = []string{"E"}
	}
	if len(p.Kinds) == 0 {
		p.Kinds = []string{string(object.KindConfirmation), string(object.KindConsumption)}
	}
	if len(p.States) == 0 {
		p.States = []string{string(object.FloorStarted), string(object.FloorFinished)}
	}
	if p.Scale == nil {
		three := int32(3)
		p.Scale = &three
	}
	return c, c.check()
}

func (c *Config) check() error {
	if _, ok := dialects[c.Driver]; !ok {
		return wrong("driver %q is not known; use postgres, mysql or sqlite", c.Driver)
	}
	switch o := c.Orders; {
	case c.DSN == "":
		return wrong("dsn is empty; put the database's address into a file and name it in dsn_file")
	case o.Changed != "time" && o.Changed != "number":
		return wrong("orders.changed %q is not known; use time or number", o.Changed)
	case o.Changed == "time" && c.Driver == "sqlite":
		return wrong("orders.changed: SQLite has no times; use a column that holds a number and set changed: number")
	case o.Overlap < 0 || o.OverlapNumber < 0 || c.Wait < 0 || c.Settle < 0 || c.Timeout < 0:
		return wrong("overlap, overlap_number, wait, settle and timeout must not be below zero")
	case c.PageSize < 1 || c.PageSize > 1000:
		return wrong("page_size %d is out of range; use 1 to 1000", c.PageSize)
	case c.Connections < 1 || c.Connections > 64:
		return wrong("connections %d is out of range; use 1 to 64", c.Connections)
	case *c.Postings.Scale < 0 || *c.Postings.Scale > 12:
		return wrong("postings.scale %d is out of range; use 0 to 12", *c.Postings.Scale)
	}
	if err := columns("orders", c.Orders.Table, c.Orders.Columns, orderColumns, orderColumns[:6]); err != nil {
		return err
	}
	if c.Components.Table != "" || len(c.Components.Columns) > 0 {
		if err := columns("components", c.Components.Table, c.Components.Columns, componentColumns, componentColumns[:4]); err != nil {
			return err
		}
	}
	if err := c.checkMaps(); err != nil {
		return err
	}
	return c.checkPostings()
}

func (c *Config) checkMaps() error {
	for from, to := range c.States {
		if !slices.Contains(orderStates, object.OrderState(to)) {
			return wrong("states: %q of %q is not known; use one of %v", to, from, orderStates)
		}
	}
	back := map[string]string{}
	for _, from := range slices.Sorted(maps.Keys(c.Units)) {
		to := c.Units[from]
		if other, twice := back[to]; twice || to == "" {
			return wrong("units: %q and %q both mean %q; it must be clear which one to write", other, from, to)
		}
		back[to] = from
	}
	for code, class := range c.Postings.ErrorClasses {
		if _, ok := classes[class]; !ok {
			return wrong("postings.error_classes: %q of %q is not known; use retryable, correctable or fatal", class, code)
		}
	}
	return nil
}

func (c *Config) checkPostings() error {
	p := c.Postings
	need := slices.Clone(postingColumns[:5])
	for _, kind := range p.Kinds {
		switch object.Kind(kind) {
		case object.KindConfirmation:
			need = append(need, "yield", "scrap")
		case object.KindConsumption:
			need = append(need, "quantity", "movement")
		case object.KindOrderState:
			need = append(need, "state")
		default:
			return wrong("postings.kinds: %q is not known; use production_confirmation, material_consumption or order_state", kind)
		}
	}
	if p.Reversals {
		need = append(need, "reverses")
	}
	if p.OperationStates {
		need = append(need, "operation")
	}
	for _, s := range p.States {
		if !slices.Contains([]object.FloorState{object.FloorStarted, object.FloorHeld, object.FloorFinished, object.FloorCancelled}, object.FloorState(s)) {
			return wrong("postings.states: %q is not known; use STARTED, HELD, FINISHED or CANCELLED", s)
		}
	}
	for _, s := range p.Posted {
		if slices.Contains(p.Rejected, s) || s == p.New {
			return wrong("postings: status %q means two things", s)
		}
	}
	if slices.Contains(p.Rejected, p.New) {
		return wrong("postings: status %q means two things", p.New)
	}
	return columns("postings", p.Table, p.Columns, postingColumns, need)
}

// columns checks the names of one table, which go into statements.
func columns(section, table string, cols map[string]string, known, need []string) error {
	if !name.MatchString(table) {
		return wrong("%s.table %q is not a table's name; use letters, digits and _, with the schema before a dot", section, table)
	}
	for field, column := range cols {
		if !slices.Contains(known, field) {
			return wrong("%s.columns: %q is not known; use some of: %s", section, field, strings.Join(known, " "))
		}
		if !name.MatchString(column) || strings.Contains(column, ".") {
			return wrong("%s.columns: %q of %q is not a column's name; use letters, digits and _", section, column, field)
		}
	}
	for _, field := range need {
		if cols[field] == "" {
			return wrong("%s.columns: %s is missing; name its column", section, field)
		}
	}
	return nil
}
