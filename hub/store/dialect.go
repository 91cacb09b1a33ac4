package store

import (
	"context"
	"database/sql"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver "sqlite"
)

// This file holds what differs between database systems; another system is another set of these.
//
//  1. How the writer and the readers are opened, and what guards against a second hub (here: a lock on a file).
//  2. How a write transaction begins (here: with the write lock, so that it cannot fail half way for want of it).
//  3. The fastest way to insert many rows that may be there already.
//  4. The column types of the migrations (BLOB) and goose's name of the dialect.
//  5. That row ids are given out in the order of commits. A single writer makes it so here; the planner's cursor over
//     facts.id depends on it.
const (
	beginWrite   = "BEGIN IMMEDIATE"
	gooseDialect = goose.DialectSQLite3
	bulkRows     = 64 // rows of one INSERT: more gains nothing, fewer lose a third
)

func openWriter(path, vfs string) (*sql.DB, error) {
	// What a statement or a part of a transaction needs to be undone is kept in memory: a file would be written for each page
	// that changes. The cache (in KiB) holds the index over the keys of about a million facts, which come in no order.
	db, err := sql.Open("sqlite", dsn(path, vfs, "_txlock=immediate", "_pragma=temp_store(MEMORY)", "_pragma=cache_size(-32768)",
		"_pragma=busy_timeout(10000)", "_pragma=journal_mode(WAL)", "_pragma=synchronous(FULL)", "_pragma=wal_autocheckpoint(4000)"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

func openReaders(path, vfs string) (*sql.DB, error) {
	db, err := sql.Open("sqlite", dsn(path, vfs, "_pragma=busy_timeout(10000)", "_pragma=query_only(1)"))
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(4)
	return db, nil
}

// copyDatabase writes a consistent copy to a new file, on a connection of its own.
func copyDatabase(ctx context.Context, from, to, vfs string) error {
	db, err := sql.Open("sqlite", dsn(from, vfs, "_pragma=busy_timeout(10000)"))
	if err != nil {
		return err
	}
	defer db.Close()
	_, err = db.ExecContext(ctx, "VACUUM INTO ?", to)
	return err
}

func dsn(path, vfs string, options ...string) string {
	if vfs != "" {
		options = append(options, "vfs="+url.QueryEscape(vfs))
	}
	escaped := (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath()
	return "file:" + strings.ReplaceAll(escaped, "?", "%3F") + "?" + strings.Join(options, "&")
}

// insertFacts is the statement that stores n facts and leaves alone those whose keys are there.
func insertFacts(n int) string {
	return insertInto + "facts (key, position_id, seq, received_at, body) VALUES " +
		strings.TrimSuffix(strings.Repeat("(?,?,?,?,?),", n), ",") + " ON CONFLICT DO NOTHING"
}

// insertInto begins an insertion of many rows. What fails fails its whole transaction, so that a statement need not keep each
// page as it was in order to be undone by itself.
const insertInto = "INSERT OR FAIL INTO "

// insertRows stores rows of equally many columns, some in a statement. into names the table and the columns.
func (tx *Tx) insertRows(into string, rows [][]any) error {
	var args []any
	for len(rows) > 0 {
		n := bulkRows
		for n > len(rows) {
			n /= 4 // few different statements
		}
		args = args[:0]
		for _, r := range rows[:n] {
			args = append(args, r...)
		}
		row := "(" + strings.Repeat("?,", len(rows[0])-1) + "?)"
		if _, err := tx.exec(insertInto+into+" VALUES "+row+strings.Repeat(","+row, n-1), args...); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// in is a list of n placeholders that follow the first `after`.
func in(after, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",$%d", after+i+1)
	}
	return strings.TrimPrefix(b.String(), ",")
}
