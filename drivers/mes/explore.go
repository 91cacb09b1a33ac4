package mes

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/microsoft/go-mssqldb/msdsn"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// Probe implements signal.Prober: the way to the database step by step, and one row of each query. Work orders are not tried:
// that would hand one over; only their table is looked at.
func (s *source) Probe(ctx context.Context) []signal.Step {
	var steps []signal.Step
	add := func(name, detail string, err error) bool {
		x := signal.Step{Name: name, Detail: detail}
		if err != nil {
			x.Problem = s.problemOf(name, "", err)
		}
		steps = append(steps, x)
		return err == nil
	}
	if host := s.host(); host != "" {
		conn, err := (&net.Dialer{Timeout: 10 * time.Second}).DialContext(ctx, "tcp", host)
		if err == nil {
			conn.Close()
		}
		if !add("port of "+host+" is open", "", err) {
			return steps
		}
	}
	if !add("the database lets us in", s.config.Driver, s.ping(ctx)) {
		return steps
	}
	for i := range s.config.Queries {
		s.probeQuery(ctx, &s.config.Queries[i], add)
	}
	if w := s.config.WorkOrders; w != nil && w.Table != "" {
		err := s.readable(ctx, w.Table)
		if class, _ := s.class(err); class == faultTable && w.Create {
			err = nil
		}
		add("table "+w.Table+" for work orders", "", err)
	}
	return steps
}

// problemOf explains an error as reportFailure does.
func (s *source) problemOf(item, table string, err error) *signal.Problem {
	class, message := s.dialect.fault(err)
	if message == "" {
		message = s.connector.conceal(err)
	}
	p := explain(class, item, table, message, s.config.Driver)
	if own, ok := err.(*polling.ProblemError); ok {
		p = &own.Problem
	}
	return p
}

func (s *source) readable(ctx context.Context, table string) error {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	rows, err := s.db().QueryContext(ctx, "SELECT 1 FROM "+s.dialect.quote(table)+" WHERE 1 = 0")
	if err == nil {
		rows.Close()
	}
	return err
}

func (s *source) probeQuery(ctx context.Context, q *Query, add func(name, detail string, err error) bool) {
	if q.Change == "call" {
		return // a call may have an effect
	}
	p := &poller{source: s, query: q}
	if err := p.readColumns(ctx); err != nil {
		x := &polling.ProblemError{Problem: *s.problemOf(q.Tag, q.Table, err)}
		add("table "+q.Table, "", x)
		return
	}
	add("table "+q.Table, fmt.Sprintf("%d columns", len(p.columns)), nil)
	if q.Change == "outbox" {
		err := s.readable(ctx, q.Outbox.Table)
		if class, _ := s.class(err); class == faultTable {
			err = p.missingOutboxOnly(err)
		}
		add("outbox "+q.Outbox.Table, "", err)
	}
	rows, err := p.fetch(ctx, p.selectRows().add(" ORDER BY %s ", p.cols(q.Key)).add(p.dialect.limit, 1), 0)
	add("a row of "+q.Table, fmt.Sprintf("%d read", len(rows)), err)
}

// missingOutboxOnly explains, and makes nothing even where that is allowed.
func (p *poller) missingOutboxOnly(cause error) error {
	if p.query.Outbox.Create {
		return nil // made at the start
	}
	return p.missingOutbox(context.Background(), cause)
}

// host is where the database listens; empty for a file.
func (s *source) host() string {
	dsn, err := s.connector.dsn()
	if err != nil {
		return ""
	}
	switch s.config.Driver {
	case "postgres":
		if c, err := pgx.ParseConfig(dsn); err == nil && !strings.HasPrefix(c.Host, "/") {
			return net.JoinHostPort(c.Host, strconv.Itoa(int(c.Port)))
		}
	case "mysql":
		if c, err := mysql.ParseDSN(dsn); err == nil && c.Net == "tcp" {
			return c.Addr
		}
	case "sqlserver":
		if c, err := msdsn.Parse(dsn); err == nil && c.Port > 0 {
			return net.JoinHostPort(c.Host, strconv.FormatUint(c.Port, 10))
		}
	}
	return ""
}

// catalogs list the tables and views that the user may see, in order, as schema and name; and a table's columns with type, and
// whether one is of the primary key.
var catalogs = map[string]struct{ tables, columns string }{
	"postgres": {`SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f')
		AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg_toast%' ORDER BY 1, 2`,
		`SELECT a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = a.attrelid AND i.indisprimary
		AND a.attnum = ANY (i.indkey)) THEN 1 ELSE 0 END FROM pg_attribute a WHERE a.attrelid = to_regclass(%s) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum`},
	"mysql": {`SELECT '', table_name FROM information_schema.tables WHERE table_schema = DATABASE() ORDER BY 2`,
		`SELECT column_name, column_type, CASE column_key WHEN 'PRI' THEN 1 ELSE 0 END FROM information_schema.columns WHERE table_schema = DATABASE() AND table_name = %s ORDER BY ordinal_position`},
	"sqlserver": {`SELECT table_schema, table_name FROM information_schema.tables ORDER BY 1, 2`,
		`SELECT c.name, TYPE_NAME(c.user_type_id), CASE WHEN EXISTS (SELECT 1 FROM sys.index_columns x JOIN sys.indexes i ON i.object_id = x.object_id AND i.index_id = x.index_id
		WHERE i.is_primary_key = 1 AND x.object_id = c.object_id AND x.column_id = c.column_id) THEN 1 ELSE 0 END FROM sys.columns c WHERE c.object_id = OBJECT_ID(%s) ORDER BY c.column_id`},
	"sqlite": {`SELECT '', name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite_%' ORDER BY 2`,
		`SELECT name, type, CASE WHEN pk > 0 THEN 1 ELSE 0 END FROM pragma_table_info(%s) ORDER BY cid`},
}

// Browse implements signal.Browser: tables and views at the top, the columns of a table below it with the values of its first
// row. page is the number of entries before.
func (s *source) Browse(ctx context.Context, at, page string, limit int) ([]signal.Entry, string, error) {
	var (
		all []signal.Entry
		err error
	)
	if at == "" {
		all, err = s.tables(ctx)
	} else {
		all, err = s.tableColumns(ctx, at)
	}
	if err != nil {
		return nil, "", &polling.ProblemError{Problem: *s.problemOf(at, at, err)}
	}
	skip, _ := strconv.Atoi(page)
	all = all[min(max(skip, 0), len(all)):]
	if limit > 0 && len(all) > limit {
		return all[:limit], strconv.Itoa(skip + limit), nil
	}
	return all, "", nil
}

func (s *source) tables(ctx context.Context) ([]signal.Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	rows, err := s.db().QueryContext(ctx, catalogs[s.config.Driver].tables)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []signal.Entry
	for rows.Next() {
		var schema, name string
		if err := rows.Scan(&schema, &name); err != nil {
			return nil, err
		}
		id := name
		if schema != "" && !(schema == "public" && s.config.Driver == "postgres") && !(schema == "dbo" && s.config.Driver == "sqlserver") {
			id = schema + "." + name
		}
		out = append(out, signal.Entry{ID: id, Path: strings.ReplaceAll(id, ".", "/"), Name: name, Kind: "table", Children: true})
	}
	return out, rows.Err()
}

// catalogColumn is a column as the catalog describes it.
type catalogColumn struct {
	name, typeName string
	key            bool
}

func (s *source) tableColumns(ctx context.Context, table string) ([]signal.Entry, error) {
	if !tableName.MatchString(table) {
		return nil, fmt.Errorf("%q is not the name of a table", table)
	}
	columns, err := s.catalogColumns(ctx, table)
	if err != nil {
		return nil, err
	}
	first := s.firstRow(ctx, table, columns)
	tag := s.proposal(table, columns)
	out := make([]signal.Entry, len(columns))
	for i, c := range columns {
		out[i] = signal.Entry{ID: table + "#" + c.name, Path: strings.ReplaceAll(table, ".", "/") + "/" + c.name, Name: c.name, Kind: "column", Type: c.typeName, Readable: true, Tag: tag}
		if v, ok := first[c.name]; ok && v != nil {
			out[i].Value = keyPart(v)
		}
	}
	return out, nil
}

func (s *source) catalogColumns(ctx context.Context, table string) ([]catalogColumn, error) {
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	q := &statement{d: s.dialect}
	name := lastPart(table)
	if s.config.Driver == "postgres" || s.config.Driver == "sqlserver" {
		name = s.dialect.quote(table)
	}
	q.add(catalogs[s.config.Driver].columns, q.arg(name))
	rows, err := s.db().QueryContext(ctx, q.text.String(), q.args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var out []catalogColumn
	for rows.Next() {
		var c catalogColumn
		var key int
		if err := rows.Scan(&c.name, &c.typeName, &key); err != nil {
			return nil, err
		}
		c.key = key == 1
		out = append(out, c)
	}
	return out, rows.Err()
}

// firstRow shows what the columns hold; nothing when the table is empty or may not be read.
func (s *source) firstRow(ctx context.Context, table string, columns []catalogColumn) map[string]any {
	if len(columns) == 0 {
		return nil
	}
	p := &poller{source: s, query: &Query{Table: table, Key: []string{columns[0].name}}}
	if err := p.readColumns(ctx); err != nil {
		return nil
	}
	rows, err := p.fetch(ctx, p.selectRows().add(" ORDER BY 1 ").add(p.dialect.limit, 1), 0)
	if err != nil || len(rows) == 0 {
		return nil
	}
	return signal.Whole(rows[0].values).(map[string]any)
}

// changeNames are columns that often hold when a row was changed.
var changeNames = regexp.MustCompile(`(?i)^(updated|changed|modified|last_?update|last_?change)`)

var wholeNumber = regexp.MustCompile(`(?i)int|serial`)

// proposal is a query for a table: by a number that the database counts up, else by the time of the change.
func (s *source) proposal(table string, columns []catalogColumn) string {
	var keys []string
	change, version := "", ""
	for _, c := range columns {
		if c.key {
			keys = append(keys, c.name)
		}
		switch {
		case s.config.Driver == "sqlserver" && (c.typeName == "timestamp" || c.typeName == "rowversion"):
			change, version = "rowversion", c.name
		case change == "" && changeNames.MatchString(c.name):
			change, version = "version", c.name
		}
	}
	text := fmt.Sprintf("tag: %s\ntable: %s\n", lastPart(table), table)
	if len(keys) == 0 {
		return text + "key: []  # the table has no primary key: name the columns that identify a row\n"
	}
	text += "key: [" + strings.Join(keys, ", ") + "]\n"
	i := slices.IndexFunc(columns, func(c catalogColumn) bool { return c.key })
	switch {
	case change != "":
		text += "change: " + change + "\nversion: " + version + "\n"
	case len(keys) > 1 || !wholeNumber.MatchString(columns[i].typeName):
		text += "change: outbox\n"
	}
	return text
}

// Find implements signal.Browser. A table that fits is readable as a whole.
func (s *source) Find(ctx context.Context, at, glob string, f func(signal.Entry) bool) error {
	match, err := signal.Glob(glob)
	if err != nil {
		return err
	}
	tables := []signal.Entry{{ID: at}}
	if at == "" {
		if tables, err = s.tables(ctx); err != nil {
			return &polling.ProblemError{Problem: *s.problemOf(at, at, err)}
		}
	}
	for _, t := range tables {
		columns, err := s.tableColumns(ctx, t.ID)
		if err != nil {
			return &polling.ProblemError{Problem: *s.problemOf(t.ID, t.ID, err)}
		}
		if match(t.Path) && len(columns) > 0 {
			t.Readable, t.Tag = true, columns[0].Tag
			if !f(t) {
				return nil
			}
		}
		for _, c := range columns {
			if match(c.Path) && !f(c) {
				return nil
			}
		}
	}
	return nil
}

// address splits what a person typed into host and port, which may be missing.
func address(text string) (host, port string) {
	if u, err := url.Parse(text); err == nil && u.Host != "" {
		return u.Hostname(), u.Port()
	}
	if h, p, err := net.SplitHostPort(text); err == nil {
		return h, p
	}
	return strings.Trim(text, "[]"), ""
}
