package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/bits"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite" // the driver "sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// This file holds what differs between database systems; another system is another set of these.
//
//  1. How the writer and the readers are opened, and what guards against a second hub (here: a lock on a file).
//  2. How a write transaction begins (here: with the write lock, so that it cannot fail half way for want of it).
//  3. The fastest way to insert many rows that may be there already.
//  4. The column types of the migrations (BLOB) and goose's name of the dialect.
//  5. How it says that the disk is full or fails.
//  6. That row ids are given out in the order of commits. A single writer makes it so here; the planner's cursor over
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
		"_pragma=busy_timeout(10000)", "_pragma=journal_mode(WAL)", "_pragma=synchronous(FULL)", "_pragma=wal_autocheckpoint(16000)"))
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
	// A connection that is opened anew reads the schema and parses each statement again: those that a busy hub uses are kept
	// until it is quiet.
	db.SetMaxOpenConns(8)
	db.SetMaxIdleConns(8)
	db.SetConnMaxIdleTime(time.Minute)
	return db, nil
}

// isBusy reports that another process holds the lock that writing needs.
func isBusy(err error) bool {
	var e *sqlite.Error
	return errors.As(err, &e) && e.Code()&0xff == sqlite3.SQLITE_BUSY
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

// nextStep says what to do about an error of the disk or of the database file; it is empty for any other error.
func nextStep(err error) string {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return ""
	}
	switch e.Code() & 0xff {
	case sqlite3.SQLITE_FULL:
		return "the disk is full: free some of it; the hub goes on by itself"
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN:
		return "the disk fails: look into the system's log and at the disk; the hub goes on by itself when it is well again"
	case sqlite3.SQLITE_READONLY:
		return "it cannot be written: let the hub's user write the file and its folder; the hub then goes on by itself"
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return "it is damaged: stop the hub, keep a copy of the file, and put the newest backup in its place"
	}
	return ""
}

func dsn(path, vfs string, options ...string) string {
	if vfs != "" {
		options = append(options, "vfs="+url.QueryEscape(vfs))
	}
	escaped := (&url.URL{Path: filepath.ToSlash(path)}).EscapedPath()
	return "file:" + strings.ReplaceAll(escaped, "?", "%3F") + "?" + strings.Join(options, "&")
}

// insertInto begins an insertion of many rows. What fails fails its whole transaction, so that a statement need not keep each
// page as it was in order to be undone by itself.
const insertInto = "INSERT OR FAIL INTO "

// insertRows stores rows of equally many columns, some in a statement. into names the table and the columns, as in
// "table (a, b)".
func (tx *Tx) insertRows(into string, rows [][]any) error {
	for len(rows) > 0 {
		n := bulkRows
		for n > len(rows) {
			n /= 4 // few different statements
		}
		if _, err := tx.insertSome(into, rows[:n], ""); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// insertSome stores rows in one statement, which end ends. A column that has the same value in all rows of a full statement is
// bound once: handing a value over costs about as much as storing it.
func (tx *Tx) insertSome(into string, rows [][]any, end string) (sql.Result, error) {
	shape := insertion{into: into, end: end, rows: len(rows)}
	if len(rows) == bulkRows {
		shape.shared = tx.s.shapes.allow(into, sharedColumns(rows))
	}
	args := make([]any, 0, len(rows)*len(rows[0]))
	for c, v := range rows[0] {
		if shape.shares(c) {
			args = append(args, v)
		}
	}
	for _, r := range rows {
		for c, v := range r {
			if !shape.shares(c) {
				args = append(args, v)
			}
		}
	}
	return tx.exec(tx.s.shapes.text(shape), args...)
}

// insertion is what the text of an insertion depends on: bit c of shared says that column c has one value for all rows.
type insertion struct {
	into, end string
	rows      int
	shared    uint64
}

func (i insertion) shares(column int) bool { return i.shared>>column&1 == 1 }

// unnamed writes the arguments $1, $2 and so on as ?, where each stands once and in this order: to SQLite the others are names, which
// the driver looks up one by one.
func unnamed(q string) string {
	if strings.ContainsRune(q, '?') {
		return q
	}
	var b strings.Builder
	rest, n := q, 0
	for {
		before, after, found := strings.Cut(rest, "$")
		b.WriteString(before)
		if !found {
			return b.String()
		}
		n++
		number := strconv.Itoa(n)
		if rest = strings.TrimPrefix(after, number); rest == after || rest != "" && '0' <= rest[0] && rest[0] <= '9' {
			return q
		}
		b.WriteByte('?')
	}
}

func sharedColumns(rows [][]any) (shared uint64) {
	for c, v := range rows[0] {
		same := true
		for _, r := range rows[1:] {
			if same = sameValue(v, r[c]); !same {
				break
			}
		}
		if same {
			shared |= 1 << c
		}
	}
	return shared
}

// sameValue compares what can be bound. Bytes count as different: comparing them costs more than binding them.
func sameValue(a, b any) bool {
	x, ok := a.([]byte)
	if y, both := b.([]byte); ok || both {
		return ok && both && x == nil && y == nil
	}
	return a == b
}

// shapes keeps the texts of insertions. It belongs to who writes.
type shapes struct {
	texts   map[insertion]string
	allowed map[string][]uint64 // by into
}

const shapesOfTable = 16 // each is a prepared statement of some hundred kilobytes

// allow returns which of the columns an insertion shares: all of them, or what earlier ones of the same table shared when
// there are too many kinds of insertions.
func (s *shapes) allow(into string, shared uint64) uint64 {
	best := uint64(0)
	for _, known := range s.allowed[into] {
		if known == shared {
			return shared
		}
		if known&^shared == 0 && bits.OnesCount64(known) > bits.OnesCount64(best) {
			best = known
		}
	}
	if len(s.allowed[into]) == shapesOfTable {
		return best
	}
	if s.allowed == nil {
		s.allowed = map[string][]uint64{}
	}
	s.allowed[into] = append(s.allowed[into], shared)
	return shared
}

// text makes the statement. The shared columns stand first, so that their numbers come before those without a name: looking
// up a name takes as long as there are names.
func (s *shapes) text(i insertion) string {
	if text, ok := s.texts[i]; ok {
		return text
	}
	table, list, _ := strings.Cut(strings.TrimSuffix(i.into, ")"), " (")
	var columns, shared []string
	for c, name := range strings.Fields(strings.ReplaceAll(list, ",", " ")) {
		if i.shares(c) {
			shared = append(shared, name)
		} else {
			columns = append(columns, name)
		}
	}
	var row []string
	for n := range shared {
		row = append(row, fmt.Sprintf("?%d", n+1))
	}
	for range columns {
		row = append(row, "?")
	}
	values := strings.TrimSuffix(strings.Repeat("("+strings.Join(row, ",")+"),", i.rows), ",")
	text := insertInto + table + " (" + strings.Join(append(shared, columns...), ", ") + ") VALUES " + values + i.end
	if s.texts == nil {
		s.texts = map[insertion]string{}
	}
	s.texts[i] = text
	return text
}

// in is a list of n placeholders that follow the first `after`.
func in(after, n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, ",$%d", after+i+1)
	}
	return strings.TrimPrefix(b.String(), ",")
}
