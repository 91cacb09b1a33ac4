package mes

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// outboxDialect is what the databases need to fill an outbox.
type outboxDialect struct {
	clock string // the time in taken_at
	// table makes the outbox; %[1]s is its quoted name, %[2]s that of its index, %[3]s its name as text.
	table []string
	// triggers returns the statements that let a table's changes be noted.
	triggers func(d *dialect, q *Query, columns []column) []string
	// visible counts the triggers of a table (a parameter); empty where that is not known.
	visible string
}

var outboxes = map[string]outboxDialect{
	"postgres": {
		clock: "clock_timestamp()",
		table: []string{`CREATE TABLE IF NOT EXISTS %[1]s (
    id         bigserial PRIMARY KEY,
    source     varchar(200) NOT NULL,                             -- the table that changed
    op         varchar(6) NOT NULL,                               -- insert, update, delete
    row_data   text NOT NULL,                                     -- the row as JSON; a deleted one as it was
    old_data   text,                                              -- an updated row as it was
    changed_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    taken_at   timestamptz                                        -- when the agent had it safe (taken: mark)
)`, `CREATE INDEX IF NOT EXISTS %[2]s ON %[1]s (source, id) WHERE taken_at IS NULL`},
		triggers: postgresTriggers,
		visible:  "SELECT COUNT(*)::text FROM pg_trigger WHERE tgrelid = to_regclass(%s) AND NOT tgisinternal AND tgenabled <> 'D'",
	},
	"mysql": {
		clock: "UTC_TIMESTAMP(6)",
		table: []string{`CREATE TABLE IF NOT EXISTS %[1]s (
    id         bigint NOT NULL AUTO_INCREMENT PRIMARY KEY,
    source     varchar(200) NOT NULL,                             -- the table that changed
    op         varchar(6) NOT NULL,                               -- insert, update, delete
    row_data   longtext NOT NULL,                                 -- the row as JSON; a deleted one as it was
    old_data   longtext,                                          -- an updated row as it was
    changed_at datetime(6) NOT NULL,                              -- in UTC
    taken_at   datetime(6),                                       -- when the agent had it safe (taken: mark)
    KEY lk_pending (source, taken_at, id)
) ENGINE=InnoDB DEFAULT CHARSET=utf8mb4 COLLATE=utf8mb4_bin`},
		triggers: mysqlTriggers,
		visible:  "SELECT CAST(COUNT(*) AS CHAR) FROM information_schema.triggers WHERE event_object_schema = DATABASE() AND event_object_table = %s",
	},
	"sqlite": {
		clock: "strftime('%Y-%m-%d %H:%M:%f', 'now')",
		table: []string{`CREATE TABLE IF NOT EXISTS %[1]s (
    id         INTEGER PRIMARY KEY AUTOINCREMENT,
    source     TEXT NOT NULL,                                     -- the table that changed
    op         TEXT NOT NULL,                                     -- insert, update, delete
    row_data   TEXT NOT NULL,                                     -- the row as JSON; a deleted one as it was
    old_data   TEXT,                                              -- an updated row as it was
    changed_at TEXT NOT NULL,                                     -- in UTC
    taken_at   TEXT                                               -- when the agent had it safe (taken: mark)
)`, `CREATE INDEX IF NOT EXISTS %[2]s ON %[1]s (source, id) WHERE taken_at IS NULL`},
		triggers: sqliteTriggers,
		visible:  "SELECT CAST(COUNT(*) AS TEXT) FROM sqlite_master WHERE type = 'trigger' AND lower(tbl_name) = lower(%s)",
	},
	"sqlserver": {
		clock: "SYSUTCDATETIME()",
		table: []string{`IF OBJECT_ID(N'%[3]s', N'U') IS NULL
CREATE TABLE %[1]s (
    id         bigint IDENTITY PRIMARY KEY,
    source     nvarchar(200) NOT NULL,                            -- the table that changed
    op         nvarchar(6) NOT NULL,                              -- insert, update, delete
    row_data   nvarchar(max) NOT NULL,                            -- the row as JSON; a deleted one as it was
    old_data   nvarchar(max),                                     -- an updated row as it was
    changed_at datetime2 NOT NULL DEFAULT SYSUTCDATETIME(),
    taken_at   datetime2                                          -- when the agent had it safe (taken: mark)
)`},
		triggers: sqlserverTriggers,
	},
}

// lastPart is a name without schema.
func lastPart(name string) string { return name[strings.LastIndexByte(name, '.')+1:] }

// beside puts a name into the schema of another.
func beside(name, other string) string { return other[:strings.LastIndexByte(other, '.')+1] + name }

func text(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// outboxStatements are what the database's owner runs for a query with change: outbox.
func outboxStatements(d *dialect, q *Query, columns []column) []string {
	var out []string
	for _, s := range d.outbox.table {
		out = append(out, fmt.Sprintf(s, d.quote(q.Outbox.Table), d.quoteOne(lastPart(q.Outbox.Table)+"_pending"), q.Outbox.Table))
	}
	return append(out, d.outbox.triggers(d, q, columns)...)
}

func postgresTriggers(d *dialect, q *Query, _ []column) []string {
	note, table := d.quote(q.Outbox.Table+"_note"), d.quote(q.Table)
	return []string{
		// The MES's users need no right on the outbox: the function has its owner's.
		`CREATE OR REPLACE FUNCTION ` + note + `() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path FROM CURRENT AS $$
BEGIN
    IF TG_OP = 'INSERT' THEN
        INSERT INTO ` + d.quote(q.Outbox.Table) + ` (source, op, row_data) VALUES (TG_ARGV[0], 'insert', row_to_json(NEW)::text);
    ELSIF TG_OP = 'UPDATE' THEN
        INSERT INTO ` + d.quote(q.Outbox.Table) + ` (source, op, row_data, old_data) VALUES (TG_ARGV[0], 'update', row_to_json(NEW)::text, row_to_json(OLD)::text);
    ELSE
        INSERT INTO ` + d.quote(q.Outbox.Table) + ` (source, op, row_data) VALUES (TG_ARGV[0], 'delete', row_to_json(OLD)::text);
    END IF;
    RETURN NULL;
END $$`,
		`DROP TRIGGER IF EXISTS lk_outbox ON ` + table,
		`CREATE TRIGGER lk_outbox AFTER INSERT OR UPDATE OR DELETE ON ` + table + ` FOR EACH ROW EXECUTE FUNCTION ` + note + `(` + text(q.Table) + `)`,
	}
}

// threeTriggers writes one trigger for each operation, for databases whose triggers see one.
func threeTriggers(d *dialect, q *Query, clock string, image func(side string) string) []string {
	var out []string
	for _, c := range []struct{ op, now, old string }{{"insert", "NEW", ""}, {"update", "NEW", "OLD"}, {"delete", "OLD", ""}} {
		name := d.quote(beside("lk_"+lastPart(q.Table)+"_"+c.op, q.Table))
		old := "NULL"
		if c.old != "" {
			old = image(c.old)
		}
		body := fmt.Sprintf("INSERT INTO %s (source, op, row_data, old_data, changed_at) VALUES (%s, '%s', %s, %s, %s)",
			d.quote(q.Outbox.Table), text(q.Table), c.op, image(c.now), old, clock)
		if d.name == "sqlite" {
			body = "BEGIN " + body + "; END"
		}
		out = append(out, "DROP TRIGGER IF EXISTS "+name,
			fmt.Sprintf("CREATE TRIGGER %s AFTER %s ON %s FOR EACH ROW %s", name, strings.ToUpper(c.op), d.quote(q.Table), body))
	}
	return out
}

func mysqlTriggers(d *dialect, q *Query, columns []column) []string {
	return threeTriggers(d, q, d.outbox.clock, func(side string) string {
		list := make([]string, len(columns))
		for i, c := range columns {
			name := side + "." + d.quoteOne(c.name)
			value := name
			switch c.kind {
			case kindNumber: // JSON would pass some of them through a float
				value = "CAST(" + name + " AS CHAR)"
			case kindTime: // the session that writes may have any zone
				value = "UNIX_TIMESTAMP(" + name + ")"
			case kindPlain, kindBytes:
				value = "JSON_OBJECT('$hex', HEX(" + name + "))"
			}
			list[i] = text(c.name) + ", " + value
		}
		return "JSON_OBJECT(" + strings.Join(list, ", ") + ")"
	})
}

func sqliteTriggers(d *dialect, q *Query, columns []column) []string {
	return threeTriggers(d, q, d.outbox.clock, func(side string) string {
		list := make([]string, len(columns))
		for i, c := range columns {
			name := side + "." + d.quoteOne(c.name)
			list[i] = text(c.name) + ", json(CASE typeof(" + name + ") WHEN 'blob' THEN json_object('$hex', hex(" + name + ")) ELSE json_quote(" + name + ") END)"
		}
		return "json_object(" + strings.Join(list, ", ") + ")"
	})
}

func sqlserverTriggers(d *dialect, q *Query, _ []column) []string {
	same := make([]string, len(q.Key))
	for i, k := range q.Key {
		same[i] = "i." + d.quoteOne(k) + " = d." + d.quoteOne(k)
	}
	image := func(side string) string {
		return "(SELECT " + side + ".* FOR JSON PATH, WITHOUT_ARRAY_WRAPPER, INCLUDE_NULL_VALUES)"
	}
	on, first := strings.Join(same, " AND "), d.quoteOne(q.Key[0])
	into := "    INSERT INTO " + d.quote(q.Outbox.Table) + " (source, op, row_data, old_data)\n    SELECT N" + text(q.Table)
	return []string{"CREATE OR ALTER TRIGGER " + d.quote(beside("lk_"+lastPart(q.Table), q.Table)) + " ON " + d.quote(q.Table) + ` AFTER INSERT, UPDATE, DELETE AS
BEGIN
    SET NOCOUNT ON;
` + into + ", CASE WHEN d." + first + " IS NULL THEN N'insert' ELSE N'update' END, " + image("i") + ",\n        CASE WHEN d." + first + " IS NULL THEN NULL ELSE " + image("d") + ` END
    FROM inserted AS i LEFT JOIN deleted AS d ON ` + on + ";\n" +
		into + ", N'delete', " + image("d") + `, NULL
    FROM deleted AS d LEFT JOIN inserted AS i ON ` + on + " WHERE i." + first + ` IS NULL;
END`}
}

// missingOutbox makes the outbox where that is allowed; else it writes down what the database's owner has to run, and says
// where.
func (p *poller) missingOutbox(ctx context.Context, cause error) error {
	statements := outboxStatements(p.dialect, p.query, p.columns)
	if p.query.Outbox.Create {
		return p.makeOutbox(ctx, statements)
	}
	_, reason := p.class(cause)
	next := "let the database's owner run the statements of "
	path, err := p.writeScript(statements)
	if err != nil {
		next, path = "set create: true to let the agent make table and triggers (its file of statements cannot be written: ", err.Error()+")"
	}
	return &polling.ProblemError{Problem: signal.Problem{Code: "outbox_missing", Item: p.query.Outbox.Table,
		Reason: fmt.Sprintf("the outbox table %q of %q does not exist: %s", p.query.Outbox.Table, p.query.Table, reason), NextStep: next + path}}
}

func (p *poller) makeOutbox(ctx context.Context, statements []string) error {
	p.making.Lock()
	defer p.making.Unlock()
	ctx, cancel := context.WithTimeout(ctx, statementPatience)
	defer cancel()
	tx, err := p.db().BeginTx(ctx, nil) // no change slips through while a trigger is replaced, but in MySQL, which knows no such transactions
	if err != nil {
		return err
	}
	defer tx.Rollback()
	for _, s := range statements {
		if _, err := tx.ExecContext(ctx, s); err != nil {
			return fmt.Errorf("make outbox %q: %w", p.query.Outbox.Table, err)
		}
	}
	return tx.Commit()
}

// writeScript writes the statements for one query into the source's folder.
func (p *poller) writeScript(statements []string) (string, error) {
	separator := ";\n\n"
	if p.config.Driver == "sqlserver" {
		separator = "\nGO\n\n"
	}
	head := fmt.Sprintf("-- Notes every change of %s in %s, for query %q. Run it again after the table got new columns.\n\n", p.query.Table, p.query.Outbox.Table, p.query.Tag)
	path := filepath.Join(p.env.Dir, "outbox."+strings.Map(plainLetter, p.query.Tag)+".sql")
	return path, os.WriteFile(path, []byte(head+strings.Join(statements, separator)+separator), 0o644)
}

// plainLetter keeps a tag from naming another folder.
func plainLetter(r rune) rune {
	if strings.ContainsRune(`/\:*?"<>|`, r) || r < ' ' {
		return '_'
	}
	return r
}

const (
	triggersEvery = time.Minute
	triggersAgain = time.Second // while there are none
)

// checkTriggers reports a table that has no trigger at all: then nothing fills the outbox.
func (p *poller) checkTriggers(ctx context.Context) error {
	if p.dialect.outbox.visible == "" {
		return nil
	}
	s := &statement{d: p.dialect}
	name := p.dialect.quote(p.query.Table)
	if p.config.Driver != "postgres" {
		name = lastPart(p.query.Table)
	}
	s.add(p.dialect.outbox.visible, s.arg(name))
	count, err := p.texts(ctx, 1, s.text.String(), s.args...)
	if err != nil {
		return err
	}
	p.triggersDue = time.Now().Add(triggersEvery)
	if count[0] != "0" {
		p.env.Reporter.Problem("outbox:"+p.query.Tag, nil)
		return nil
	}
	if p.query.Outbox.Create {
		return p.makeOutbox(ctx, outboxStatements(p.dialect, p.query, p.columns))
	}
	if p.config.Driver == "mysql" { // who may not make triggers does not see any
		return nil
	}
	p.triggersDue = time.Now().Add(triggersAgain)
	path, err := p.writeScript(outboxStatements(p.dialect, p.query, p.columns))
	if err != nil {
		path = err.Error()
	}
	p.env.Reporter.Problem("outbox:"+p.query.Tag, &signal.Problem{Code: "trigger_missing", Item: p.query.Table,
		Reason:   fmt.Sprintf("table %q has no trigger: its changes do not come into %q and are not seen", p.query.Table, p.query.Outbox.Table),
		NextStep: "let the database's owner run the statements of " + path})
	return nil
}
