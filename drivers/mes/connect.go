package mes

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"net/url"
	"os"
	"strings"
	"sync"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/stdlib"
	mssql "github.com/microsoft/go-mssqldb"
	"github.com/microsoft/go-mssqldb/msdsn"
	"modernc.org/sqlite"
)

// connector opens connections. It reads the address anew for each, so that a changed password needs no restart, and it
// keeps passwords out of errors.
type connector struct {
	config *Config

	mu      sync.Mutex
	secrets []string
}

// errAddress is the error of an address that cannot be read. Its cause would repeat the text.
var errAddress = errors.New("the database address cannot be read: compare it with the sample for this driver")

func (c *connector) dsn() (string, error) {
	if c.config.DSNFile == "" {
		return c.config.DSN, nil
	}
	b, err := os.ReadFile(c.config.DSNFile)
	if err != nil {
		return "", fmt.Errorf("read dsn_file: %w", err)
	}
	return strings.TrimSpace(string(b)), nil
}

// Connect implements driver.Connector.
func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	dsn, err := c.dsn()
	if err != nil {
		return nil, err
	}
	var (
		open    driver.Connector
		secrets []string
	)
	switch c.config.Driver {
	case "postgres":
		open, secrets, err = openPostgres(dsn)
	case "mysql":
		open, secrets, err = openMySQL(dsn)
	case "sqlserver":
		open, secrets, err = openSQLServer(dsn)
	default:
		open = sqliteConnector(sqliteAddress(dsn))
	}
	if err != nil {
		return nil, errAddress
	}
	c.learn(secrets)
	return open.Connect(ctx)
}

// Driver implements driver.Connector.
func (c *connector) Driver() driver.Driver { return &sqlite.Driver{} }

func openPostgres(dsn string) (driver.Connector, []string, error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return nil, nil, err
	}
	config.RuntimeParams["application_name"] = "linekeeper"
	config.RuntimeParams["timezone"] = "UTC"
	config.RuntimeParams["datestyle"] = "ISO"
	return stdlib.GetConnector(*config, stdlib.OptionAfterConnect(planAnew)), []string{config.Password}, nil
}

// planAnew lets the server plan each statement for the table as it is. It would else keep the plan that it made while the table
// was empty or small, and read all of a large one at each poll until its statistics are renewed. Planning costs a fraction of a
// millisecond. Servers before version 12 know no such setting and go on as they do.
func planAnew(ctx context.Context, conn *pgx.Conn) error {
	_, err := conn.Exec(ctx, "SET plan_cache_mode = force_custom_plan")
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		return nil
	}
	return err
}

func openMySQL(dsn string) (driver.Connector, []string, error) {
	config, err := mysql.ParseDSN(dsn)
	if err != nil {
		return nil, nil, err
	}
	config.ParseTime = false // we read times by ourselves: most carry no zone
	if config.Params == nil {
		config.Params = map[string]string{}
	}
	config.Params["time_zone"] = "'+00:00'"
	config.Params["sql_mode"] = "CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')" // refuse what does not fit, never cut it
	config.Logger = &mysql.NopLogger{}
	open, err := mysql.NewConnector(config)
	return open, []string{config.Passwd}, err
}

func openSQLServer(dsn string) (driver.Connector, []string, error) {
	config, err := msdsn.Parse(dsn)
	if err != nil {
		return nil, nil, err
	}
	return mssql.NewConnectorConfig(config), []string{config.Password}, nil
}

type sqliteConnector string

func (s sqliteConnector) Connect(context.Context) (driver.Conn, error) {
	return (&sqlite.Driver{}).Open(string(s))
}

func (s sqliteConnector) Driver() driver.Driver { return &sqlite.Driver{} }

// sqliteAddress makes a URI of a path. A database that does not exist is not created, and a lock is waited for.
func sqliteAddress(dsn string) string {
	if !strings.HasPrefix(dsn, "file:") {
		dsn = "file:" + strings.NewReplacer("%", "%25", "?", "%3f", "#", "%23", `\`, "/").Replace(dsn) + "?mode=rw"
	}
	separator := "?"
	if strings.Contains(dsn, "?") {
		separator = "&"
	}
	return dsn + separator + "_pragma=busy_timeout(10000)"
}

func (c *connector) learn(secrets []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secrets = c.secrets[:0]
	for _, s := range secrets {
		if s != "" {
			c.secrets = append(c.secrets, s, url.QueryEscape(s), url.PathEscape(s))
		}
	}
}

// conceal returns the text of an error without passwords.
func (c *connector) conceal(err error) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := err.Error()
	for _, s := range c.secrets {
		text = strings.ReplaceAll(text, s, "***")
	}
	return text
}
