package sqltables

import (
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5/pgconn"
	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
	"github.com/shopspring/decimal"
	"modernc.org/sqlite"

	"github.com/linekeeper/linekeeper/hub/connector"
)

// dialect is what differs between databases.
type dialect struct {
	driver, quote string
	// lock ends a SELECT that must keep others from its rows until the transaction ends.
	lock string
	// dollars: parameters are $1, $2, ... instead of ?.
	dollars   bool
	isolation sql.IsolationLevel
	address   func(dsn string) (string, error)
	// code is the server's own code of an error, empty when it is not the server's.
	code                            func(error) string
	duplicate, retryable, forbidden []string // beginnings of codes
	// unique counts the unique keys of one column alone; a schema of the table comes first among its parameters where split.
	unique string
	split  bool
}

var dialects = map[string]dialect{
	"postgres": {
		driver: "pgx", quote: `"`, lock: " FOR UPDATE", dollars: true, isolation: sql.LevelReadCommitted,
		address: func(dsn string) (string, error) { return dsn, nil },
		code: func(err error) string {
			if e := (*pgconn.PgError)(nil); errors.As(err, &e) {
				return e.Code
			}
			return ""
		},
		unique: `SELECT COUNT(*) FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
			WHERE i.indrelid = to_regclass(?) AND i.indisunique AND i.indisvalid AND i.indnkeyatts = 1 AND i.indpred IS NULL AND a.attname = ?`,
		duplicate: []string{"23505"}, retryable: []string{"40", "53", "55", "57", "08"}, forbidden: []string{"42", "28", "3D", "3F"},
	},
	"mysql": {
		driver: "mysql", quote: "`", lock: " FOR UPDATE", isolation: sql.LevelReadCommitted,
		address: func(dsn string) (string, error) {
			cfg, err := mysql.ParseDSN(dsn)
			if err != nil {
				return "", wrong("dsn is not one of MySQL: write it like user:password@tcp(host:3306)/database") // the cause may show the password
			}
			cfg.ParseTime = true
			return cfg.FormatDSN(), nil
		},
		code: func(err error) string {
			if e := (*mysql.MySQLError)(nil); errors.As(err, &e) {
				return strconv.Itoa(int(e.Number))
			}
			return ""
		},
		unique: `SELECT COUNT(*) FROM information_schema.statistics s WHERE s.table_schema = COALESCE(?, DATABASE()) AND s.table_name = ?
			AND s.column_name = ? AND s.non_unique = 0 AND s.sub_part IS NULL AND NOT EXISTS (SELECT 1 FROM information_schema.statistics o
			WHERE o.table_schema = s.table_schema AND o.table_name = s.table_name AND o.index_name = s.index_name AND o.seq_in_index > 1)`,
		split:     true,
		duplicate: []string{"1062"}, retryable: []string{"1205", "1213", "1040", "1053", "3024"}, forbidden: []string{"1044", "1045", "1142", "1143", "1146", "1054", "1290"},
	},
	"sqlite": {
		driver: "sqlite", quote: `"`,
		address: func(dsn string) (string, error) {
			if !strings.HasPrefix(dsn, "file:") {
				dsn = "file:" + dsn
			}
			sep := "?"
			if strings.Contains(dsn, "?") {
				sep = "&"
			}
			return dsn + sep + "_txlock=immediate&_pragma=busy_timeout(10000)", nil
		},
		code: func(err error) string {
			if e := (*sqlite.Error)(nil); errors.As(err, &e) {
				return fmt.Sprintf("%d/%d", e.Code()&0xff, e.Code())
			}
			return ""
		},
		unique: `SELECT COUNT(*) FROM pragma_index_list(?) l JOIN pragma_index_info(l.name) c WHERE l."unique" = 1 AND l.partial = 0
			AND c.name = ? AND (SELECT COUNT(*) FROM pragma_index_info(l.name)) = 1`,
		duplicate: []string{"19/2067", "19/1555"}, retryable: []string{"5/", "6/"}, forbidden: []string{"1/", "3/", "8/", "14/"},
	},
}

// table and column are quoted names; their letters were checked.
func (d dialect) table(t string) string {
	return d.quote + strings.ReplaceAll(t, ".", d.quote+"."+d.quote) + d.quote
}

// number replaces each ? by the dialect's parameter.
func (d dialect) number(statement string) string {
	if !d.dollars {
		return statement
	}
	var b strings.Builder
	n := 0
	for _, r := range statement {
		if r == '?' {
			n++
			b.WriteString("$" + strconv.Itoa(n))
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

func starts(code string, with []string) bool {
	return code != "" && slices.ContainsFunc(with, func(w string) bool { return strings.HasPrefix(code, w) })
}

// class says what can be done about a statement that the server refused, or that never reached it.
func (d dialect) class(err error) connector.Class {
	code := d.code(err)
	switch {
	case code == "" || starts(code, d.retryable) || errors.Is(err, driver.ErrBadConn):
		return connector.Retryable
	case starts(code, d.forbidden):
		return connector.Fatal
	}
	return connector.Correctable
}

// text is a column's value as text; NULL is empty.
func text(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case []byte:
		return strings.TrimRight(string(v), " ") // CHAR(n) comes padded
	case string:
		return strings.TrimRight(v, " ")
	case time.Time:
		return v.Format(time.RFC3339Nano)
	}
	return fmt.Sprint(v)
}

// number is a column's value as an exact decimal.
func number(v any) (decimal.Decimal, error) {
	switch v.(type) {
	case float32, float64:
		return decimal.Zero, fmt.Errorf("%v is a binary floating-point number: make the column DECIMAL, or TEXT in SQLite", v)
	case nil:
		return decimal.Zero, nil
	}
	d, err := decimal.NewFromString(strings.TrimSpace(text(v)))
	if err != nil || d.Exponent() < -30 || d.Exponent() > 30 {
		return decimal.Zero, fmt.Errorf("%.40q is not a number", text(v))
	}
	return d, nil
}
