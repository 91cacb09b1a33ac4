package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const (
	sqlRowsEach = 2_000_000 // rows of a round: seconds, beside which the look at the page is nothing
	sqlRounds   = 3
	sqlGoal     = 0.6
)

// sqlRows compares the rows that the agent reads from a PostgreSQL table, until they are durable facts, with a program that
// reads the same rows by the same library, as database/sql hands them over, in the same portions and only counts them.
func sqlRows(ctx context.Context, dir, binaries string) (err error) {
	parts := &partsTB{dir: dir}
	defer parts.close()
	defer func() {
		if r := recover(); r != nil {
			failed, ours := r.(partFailed)
			if !ours {
				panic(r)
			}
			err = failed
		}
	}()
	server := realparts.Postgres(parts)
	dsn := server.NewDatabase(parts)
	db, err := sql.Open("pgx", dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	if _, err := db.ExecContext(ctx, `CREATE TABLE confirmation (id bigserial PRIMARY KEY, order_no text NOT NULL, operation text NOT NULL, item text NOT NULL,
		good numeric(18, 3) NOT NULL, scrap numeric(18, 3) NOT NULL, unit text NOT NULL, lot text, finished_at timestamptz NOT NULL)`); err != nil {
		return err
	}
	agent, page, err := startSQLAgent(ctx, dir, binaries, dsn)
	if err != nil {
		return err
	}
	defer agent.kill()
	var ratios []float64
	for round := range sqlRounds {
		counted, err := countRows(ctx, db, dsn, round)
		if err != nil {
			return err
		}
		before := processorTime(agent.Process.Pid)
		durable, err := storeRows(ctx, db, page, round)
		if err != nil {
			return err
		}
		used := processorTime(agent.Process.Pid) - before
		fmt.Printf("  %d rows: only counted %.0f/s, durable at the agent %.0f/s with %.1f us of its processor time each\n",
			sqlRowsEach, sqlRowsEach/counted.Seconds(), sqlRowsEach/durable.Seconds(), used.Seconds()*1e6/sqlRowsEach)
		ratios = append(ratios, counted.Seconds()/durable.Seconds())
	}
	slices.Sort(ratios)
	fmt.Printf("ratio sql_rows_durable %.2f %.2f\n", ratios[len(ratios)/2], sqlGoal)
	return nil
}

// fillRows makes the rows of a round visible at once.
const fillRows = `INSERT INTO %s (order_no, operation, item, good, scrap, unit, lot, finished_at)
	SELECT 'WO-' || i %% 50, '0010', 'FG-GEAR', 12.5, 1, 'C62', 'L2026-' || i %% 1000, now() FROM generate_series(1, $1) AS i`

// countRows reads a round's rows from a table of their own.
func countRows(ctx context.Context, db *sql.DB, dsn string, round int) (time.Duration, error) {
	table := fmt.Sprintf("counted_%d", round)
	if _, err := db.ExecContext(ctx, "CREATE TABLE "+table+" (LIKE confirmation INCLUDING ALL)"); err != nil {
		return 0, err
	}
	if _, err := db.ExecContext(ctx, fmt.Sprintf(fillRows, table), sqlRowsEach); err != nil {
		return 0, err
	}
	reader, err := sql.Open("pgx", dsn)
	if err != nil {
		return 0, err
	}
	defer reader.Close()
	begin := time.Now()
	var first int64
	if err := reader.QueryRowContext(ctx, "SELECT min(id) - 1 FROM "+table).Scan(&first); err != nil {
		return 0, err
	}
	for n, last := 0, first; ; {
		got, high, err := countPage(ctx, reader, table, last)
		if err != nil {
			return 0, err
		}
		if n, last = n+got, high; got == 0 {
			if n != sqlRowsEach {
				return 0, fmt.Errorf("counted %d of %d rows", n, sqlRowsEach)
			}
			return time.Since(begin), nil
		}
	}
}

func countPage(ctx context.Context, db *sql.DB, table string, last int64) (n int, high int64, err error) {
	rows, err := db.QueryContext(ctx, "SELECT * FROM "+table+" WHERE id > $1 ORDER BY id LIMIT 2000", last)
	if err != nil {
		return 0, 0, err
	}
	defer rows.Close()
	values := make([]any, 9)
	into := make([]any, 9)
	for i := range values {
		into[i] = &values[i]
	}
	for rows.Next() {
		if err := rows.Scan(into...); err != nil {
			return 0, 0, err
		}
		n, high = n+1, values[0].(int64)
	}
	return n, high, rows.Err()
}

// storeRows lets the agent read a round's rows and waits until all are durable there.
func storeRows(ctx context.Context, db *sql.DB, page string, round int) (time.Duration, error) {
	if _, err := db.ExecContext(ctx, fmt.Sprintf(fillRows, "confirmation"), sqlRowsEach); err != nil {
		return 0, err
	}
	begin := time.Now()
	all := uint64((round + 1) * sqlRowsEach)
	stored := func(want uint64) func() error {
		return func() error {
			s, err := pageStatus(page)
			if err == nil && s.Business.LastSeq < want {
				return fmt.Errorf("%d of %d stored at the agent", s.Business.LastSeq, want)
			}
			return err
		}
	}
	err := await(ctx, 5*time.Minute, 250*time.Millisecond, stored(all-sqlRowsEach/5)) // seldom: the page takes the processor, too
	if err == nil {
		err = await(ctx, 5*time.Minute, 20*time.Millisecond, stored(all))
	}
	return time.Since(begin), err
}

func pageStatus(page string) (s status.Snapshot, err error) {
	res, err := http.Get(page + "/api/v1/status")
	if err != nil {
		return s, err
	}
	defer res.Body.Close()
	return s, json.NewDecoder(res.Body).Decode(&s)
}

func startSQLAgent(ctx context.Context, dir, binaries, dsn string) (*process, string, error) {
	ports, err := freePorts(1)
	if err != nil {
		return nil, "", err
	}
	listen := fmt.Sprintf("127.0.0.1:%d", ports[0])
	config := fmt.Sprintf(`{plant: ulm, agent: line1, listen: %q, sources: [{name: mes, kind: mes, driver: postgres, dsn: %q, queries: [{tag: c, table: confirmation, key: [id], poll: 10ms}]}],
rules: [{name: c, rule: record, source: mes, tag: c, fact: production_confirmation, fields: {order_no: payload.order_no, operation: payload.operation, item: payload.item, yield: payload.good, scrap: payload.scrap,
unit: payload.unit, lot: payload.lot, finished_at: payload.finished_at}}]}
`, listen, dsn)
	file := filepath.Join(dir, "agent.yaml")
	if err := os.WriteFile(file, []byte(config), 0o600); err != nil {
		return nil, "", err
	}
	page := "http://" + listen
	reading := func() error {
		s, err := pageStatus(page)
		if err == nil && s.Sources[0].State != "ok" {
			return fmt.Errorf("source %s", s.Sources[0].State)
		}
		return err
	}
	p, err := launch(ctx, dir, reading, filepath.Join(binaries, "plantagent"), "run", "-c", file)
	return p, page, err
}

// partsTB lets a real part, which else a test starts, run in a measurement.
type partsTB struct {
	testing.TB
	dir      string
	folders  int
	cleanups []func()
}

// partFailed is what a part ends its caller with.
type partFailed string

func (p partFailed) Error() string { return string(p) }

func (t *partsTB) Helper()                      {}
func (t *partsTB) Failed() bool                 { return false }
func (t *partsTB) Logf(string, ...any)          {}
func (t *partsTB) Cleanup(f func())             { t.cleanups = append(t.cleanups, f) }
func (t *partsTB) Fatalf(text string, a ...any) { panic(partFailed(fmt.Sprintf(text, a...))) }

func (t *partsTB) TempDir() string {
	t.folders++
	dir := filepath.Join(t.dir, fmt.Sprintf("part%d", t.folders), "files")
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.Chmod(t.dir, 0o711)); err != nil { // a server may run as another user
		t.Fatalf("make a folder: %v", err)
	}
	return dir
}

func (t *partsTB) close() {
	for _, f := range slices.Backward(t.cleanups) {
		f()
	}
}
