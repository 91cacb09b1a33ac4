package mes

import (
	_ "embed"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	mssql "github.com/microsoft/go-mssqldb"
)

// dialect is what differs between the databases.
type dialect struct {
	name        string
	quotes      [2]string
	placeholder func(n int) string
	limit       string // after ORDER BY; %d is the number of rows
	// now is the database's clock in UTC as text in the form 2006-01-02 15:04:05.999999.
	now string
	// clock is now and what proves that transactions have ended: two numbers as text, the oldest transaction that runs and the
	// next one to come. Empty where the database does not tell.
	clock string
	// text reads a version column as text without loss; %s is the column.
	text string
	// horizon, for xid8, xmin and rowversion: the version as a number, its comparison with a parameter, and the bound below
	// which nothing can appear any more.
	horizons map[string]horizon
	// casts give a parameter its type where the database does not find it by itself; "text", "number", "integer", "time".
	casts map[string]string
	from  string // what a SELECT without a table needs before WHERE
	// once keeps a second insert of the same message from having an effect: a condition (%s is the table and the
	// placeholder of the message), and a clause at the end.
	onceCondition, onceClause string
	create                    string // makes the staging table lk_work_order
	outbox                    outboxDialect
	fault                     func(error) (fault, string)
}

// horizon describes a column that orders changes by transaction. %s is the quoted column.
type horizon struct {
	number string // an expression that gives the version as a decimal number
	after  string // a condition: the version is above the parameter %[2]s
	same   string // a condition: the version is the parameter %[2]s
	below  string // a condition: no transaction below this version is open
	order  string
}

// fault is a class of errors that a person mends in its own way.
type fault int

const (
	faultOther fault = iota
	faultTable
	faultColumn
	faultLogin
	faultDatabase
	faultRight
	faultValue  // the database refuses a value: it will never take it
	faultRaised // a procedure of the MES raised it: its own words
	faultConnection
	faultProcedure // it does not exist, or not with these arguments
)

var (
	//go:embed work_order.postgres.sql
	createPostgres string
	//go:embed work_order.mysql.sql
	createMySQL string
	//go:embed work_order.sqlserver.sql
	createSQLServer string
	//go:embed work_order.sqlite.sql
	createSQLite string
)

var dialects = map[string]*dialect{
	"postgres": {
		name: "postgres", quotes: [2]string{`"`, `"`},
		placeholder: func(n int) string { return "$" + strconv.Itoa(n) },
		limit:       "LIMIT %d",
		now:         "SELECT " + postgresNow,
		clock:       "SELECT " + postgresNow + ", pg_snapshot_xmin(s)::text, pg_snapshot_xmax(s)::text FROM (SELECT pg_current_snapshot() AS s) AS x",
		text:        "%s::text",
		horizons: map[string]horizon{
			"xid8": {number: "%s::text", after: "%s > %s::xid8", same: "%s = %s::xid8",
				below: "%s < pg_snapshot_xmin(pg_current_snapshot())", order: "%s"},
			// The column holds the low 32 bits of a transaction that is at most 2^32 before the next one.
			"xmin": {number: "(" + fullXmin + ")::text", after: "(" + fullXmin + ") > %s::bigint", same: "(" + fullXmin + ") = %s::bigint",
				below: "(" + fullXmin + ") < pg_snapshot_xmin(pg_current_snapshot())::text::bigint", order: "(" + fullXmin + ")"},
		},
		casts:      map[string]string{"text": "%s::text", "number": "%s::numeric", "integer": "%s::bigint", "time": "%s::timestamptz"},
		onceClause: " ON CONFLICT (message_id) DO NOTHING",
		create:     createPostgres, outbox: outboxes["postgres"], fault: faultOfPostgres,
	},
	"mysql": {
		name: "mysql", quotes: [2]string{"`", "`"},
		placeholder: func(int) string { return "?" },
		limit:       "LIMIT %d",
		now:         "SELECT CAST(UTC_TIMESTAMP(6) AS CHAR)",
		text:        "CAST(%s AS CHAR)",
		from:        " FROM DUAL",
		onceClause:  " ON DUPLICATE KEY UPDATE message_id = VALUES(message_id)",
		create:      createMySQL, outbox: outboxes["mysql"], fault: faultOfMySQL,
	},
	"sqlserver": {
		name: "sqlserver", quotes: [2]string{"[", "]"},
		placeholder: func(n int) string { return "@p" + strconv.Itoa(n) },
		limit:       "OFFSET 0 ROWS FETCH NEXT %d ROWS ONLY",
		now:         "SELECT CONVERT(nvarchar(30), SYSUTCDATETIME(), 121)",
		text:        "CONVERT(nvarchar(40), %s, 121)",
		horizons: map[string]horizon{
			"rowversion": {number: "CONVERT(nvarchar(20), CONVERT(bigint, %s))",
				after: "%s > CONVERT(binary(8), CONVERT(bigint, %s))", same: "%s = CONVERT(binary(8), CONVERT(bigint, %s))",
				below: "%s < MIN_ACTIVE_ROWVERSION()", order: "%s"},
		},
		// The locks keep a second insert of the same message out until this one has ended.
		onceCondition: " AND NOT EXISTS (SELECT 1 FROM %s WITH (UPDLOCK, HOLDLOCK) WHERE message_id = %s)",
		casts:         map[string]string{"number": "CAST(%s AS decimal(28, 9))", "time": "CAST(%s AS datetimeoffset)"},
		create:        createSQLServer, outbox: outboxes["sqlserver"], fault: faultOfSQLServer,
	},
	"sqlite": {
		name: "sqlite", quotes: [2]string{`"`, `"`},
		placeholder: func(int) string { return "?" },
		limit:       "LIMIT %d",
		now:         "SELECT strftime('%Y-%m-%d %H:%M:%f', 'now')",
		text:        "CAST(%s AS TEXT)",
		onceClause:  " ON CONFLICT (message_id) DO NOTHING",
		create:      createSQLite, outbox: outboxes["sqlite"], fault: faultOfSQLite,
	},
}

const postgresNow = "to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.US')"

const fullXmin = `pg_snapshot_xmax(pg_current_snapshot())::text::bigint - ((pg_snapshot_xmax(pg_current_snapshot())::text::bigint - %s::text::bigint) & 4294967295)`

// cast gives a placeholder the type of a kind of values.
func (d *dialect) cast(kind, placeholder string) string {
	if format, ok := d.casts[kind]; ok {
		return fmt.Sprintf(format, placeholder)
	}
	return placeholder
}

// quote makes an identifier of a name with dots between schema and table.
func (d *dialect) quote(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		parts[i] = d.quoteOne(p)
	}
	return strings.Join(parts, ".")
}

func (d *dialect) quoteOne(name string) string {
	return d.quotes[0] + strings.ReplaceAll(name, d.quotes[1], d.quotes[1]+d.quotes[1]) + d.quotes[1]
}

// statement collects a statement's text and its parameters.
type statement struct {
	d    *dialect
	text strings.Builder
	args []any
}

func (s *statement) add(format string, args ...any) *statement {
	fmt.Fprintf(&s.text, format, args...)
	return s
}

// arg adds a parameter and returns its placeholder.
func (s *statement) arg(v any) string {
	s.args = append(s.args, v)
	return s.d.placeholder(len(s.args))
}

func faultOfPostgres(err error) (fault, string) {
	var p *pgconn.PgError
	if !errors.As(err, &p) {
		return faultConnection, ""
	}
	switch {
	case p.Code == "42P01":
		return faultTable, p.Message
	case p.Code == "42703":
		return faultColumn, p.Message
	case strings.HasPrefix(p.Code, "28"):
		return faultLogin, p.Message
	case p.Code == "3D000":
		return faultDatabase, p.Message
	case p.Code == "42501":
		return faultRight, p.Message
	case p.Code == "P0001":
		return faultRaised, p.Message
	case p.Code == "42883":
		return faultProcedure, p.Message
	case strings.HasPrefix(p.Code, "22"), strings.HasPrefix(p.Code, "23"):
		return faultValue, p.Message
	case strings.HasPrefix(p.Code, "08"), strings.HasPrefix(p.Code, "57P"), strings.HasPrefix(p.Code, "53"):
		return faultConnection, p.Message
	}
	return faultOther, p.Message
}

func faultOfMySQL(err error) (fault, string) {
	var m *mysql.MySQLError
	if !errors.As(err, &m) {
		return faultConnection, ""
	}
	switch m.Number {
	case 1146:
		return faultTable, m.Message
	case 1644:
		return faultRaised, m.Message
	case 1305, 1318:
		return faultProcedure, m.Message
	case 1370:
		return faultRight, m.Message
	case 1054:
		return faultColumn, m.Message
	case 1045, 1698, 1251:
		return faultLogin, m.Message
	case 1049:
		return faultDatabase, m.Message
	case 1044, 1142, 1143, 1227:
		return faultRight, m.Message
	case 1048, 1264, 1265, 1292, 1366, 1406, 3819, 4025, 1364:
		return faultValue, m.Message
	case 1040, 1053, 1203, 1226:
		return faultConnection, m.Message
	}
	return faultOther, m.Message
}

func faultOfSQLServer(err error) (fault, string) {
	var m mssql.Error
	if !errors.As(err, &m) {
		return faultConnection, ""
	}
	if m.Number >= 50000 {
		return faultRaised, m.Message
	}
	switch m.Number {
	case 2812, 8144, 201:
		return faultProcedure, m.Message
	case 208:
		return faultTable, m.Message
	case 207:
		return faultColumn, m.Message
	case 18456, 18452, 18470, 18487, 18488:
		return faultLogin, m.Message
	case 4060, 911:
		return faultDatabase, m.Message
	case 229, 230, 262, 297:
		return faultRight, m.Message
	case 515, 547, 220, 232, 241, 242, 245, 295, 2628, 8114, 8115, 8152:
		return faultValue, m.Message
	}
	return faultOther, m.Message
}

func faultOfSQLite(err error) (fault, string) {
	text := err.Error()
	switch {
	case strings.Contains(text, "no such table"):
		return faultTable, text
	case strings.Contains(text, "no such column"):
		return faultColumn, text
	case strings.Contains(text, "unable to open database file"):
		return faultDatabase, text
	case strings.Contains(text, "readonly database"):
		return faultRight, text
	case strings.Contains(text, "constraint failed"):
		return faultValue, text
	}
	return faultOther, text
}
