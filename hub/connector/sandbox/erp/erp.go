// Package erp is a small ERP for the demo and for tests: it keeps work orders, stock, posting periods and numbered
// documents, and it misbehaves when asked to.
//
// It owns its documents in one SQLite file and an HTTP API of its own. It promises the manners of a real ERP: a posting is
// one transaction, quantities are exact, stock never goes below zero, a closed period and a locked order are refused, an
// external key is stored and can be searched but does not stop a duplicate, and change times have whole seconds. It knows
// nothing of Linekeeper, and it never corrects a client's mistake.
package erp

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	_ "modernc.org/sqlite"
)

// Options of an ERP. The zero value works.
type Options struct {
	// User and Password log in at the API; "linekeeper" and "sandbox" when empty.
	User, Password string
	// FinishCloses refuses every posting to a finished order; without it a finished order takes the last counts.
	FinishCloses bool
	// Seed of the dice that roll the faults; 0 draws one, which Seed returns.
	Seed uint64
	// Now is the ERP's clock; time.Now when nil.
	Now func() time.Time
}

// ERP is the server's state. Its methods may be called from any goroutine.
type ERP struct {
	user, password string
	now            func() time.Time
	seed           uint64
	finishCloses   bool
	file, readers  *sql.DB
	writer         *sql.Conn
	read, write    statements // on readers and on writer
	writing        sync.Mutex // postings queue up behind each other

	stop func()
	wake chan struct{}
	done sync.WaitGroup

	mu       sync.Mutex
	dice     *rand.Rand
	faults   Faults
	locks    map[string]string    // order number to who holds it
	inFlight map[string]int       // external key to requests being worked on
	tokens   map[string]time.Time // token to expiry
}

// Open opens the ERP in a file, or in erp.db of a folder, and starts to book what was accepted but not booked yet.
func Open(path string, o Options) (*ERP, error) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = filepath.Join(path, "erp.db")
	}
	e := &ERP{
		user: o.User, password: o.Password, now: o.Now, seed: o.Seed, finishCloses: o.FinishCloses,
		wake: make(chan struct{}, 1), locks: map[string]string{}, inFlight: map[string]int{}, tokens: map[string]time.Time{},
	}
	if e.user == "" {
		e.user, e.password = "linekeeper", "sandbox"
	}
	if e.now == nil {
		e.now = time.Now
	}
	if e.seed == 0 {
		e.seed = rand.Uint64()
	}
	e.dice = rand.New(rand.NewPCG(e.seed, e.seed))
	if err := e.openFile(path); err != nil {
		return nil, errors.Join(fmt.Errorf("open ERP %q: %w", path, err), e.closeFile())
	}
	ctx, cancel := context.WithCancel(context.Background())
	e.stop = cancel
	e.done.Go(func() { e.bookLater(ctx) })
	return e, nil
}

func (e *ERP) openFile(path string) (err error) {
	dsn := fileURI(path) + "?_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)&_pragma=synchronous(NORMAL)"
	if e.file, err = sql.Open("sqlite", dsn); err != nil {
		return err
	}
	e.file.SetMaxOpenConns(1)
	if _, err = e.file.Exec(schema); err != nil {
		return err
	}
	if _, err = e.file.Exec(`alter table document add column arrived integer not null default 0`); err != nil && !strings.Contains(err.Error(), "duplicate column") {
		return err // files of earlier versions lack it
	}
	if e.writer, err = e.file.Conn(context.Background()); err != nil {
		return err
	}
	if e.readers, err = sql.Open("sqlite", dsn+"&_pragma=query_only(1)"); err != nil {
		return err
	}
	e.readers.SetMaxIdleConns(16) // a new connection reads the schema and parses every statement again
	e.read.on, e.write.on = e.readers, e.writer
	return nil
}

func (e *ERP) closeFile() error {
	var errs []error
	if e.writer != nil {
		errs = append(errs, e.writer.Close())
	}
	for _, db := range []*sql.DB{e.readers, e.file} {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	return errors.Join(errs...)
}

// Close stops the booking of delayed postings, which stay queued in the file, and closes the file. Requests must have
// ended before.
func (e *ERP) Close() error {
	e.stop()
	e.done.Wait()
	return e.closeFile()
}

// Seed is the seed of the fault dice.
func (e *ERP) Seed() uint64 { return e.seed }

const schema = `
create table if not exists item (
  item text primary key, description text not null, unit text not null, on_hand text not null default '0') strict;
create table if not exists work_order (
  no text primary key, version integer not null, changed_at integer not null, state text not null,
  item text not null, quantity text not null, unit text not null, site text not null, work_center text not null,
  lot text not null, priority integer not null, planned_start integer not null, planned_end integer not null) strict;
create index if not exists work_order_changed on work_order (changed_at, no);
create table if not exists operation (
  order_no text not null, operation text not null, description text not null, work_center text not null,
  quantity text not null, primary key (order_no, operation)) strict;
create table if not exists component (
  order_no text not null, reservation text not null, operation text not null, item text not null,
  required text not null, unit text not null, backflush integer not null, primary key (order_no, reservation)) strict;
create table if not exists tolerance (order_no text primary key, over_percent text not null) strict;
create table if not exists period (period text primary key, open integer not null) strict;
create table if not exists counter (name text primary key, last integer not null) strict;
create table if not exists document (
  number text primary key, kind text not null, external_key text not null, order_no text not null, operation text not null,
  item text not null, yield text not null, scrap text not null, rework text not null, unit text not null,
  scrap_reason text not null, final integer not null, state text not null, person text not null, lot text not null,
  posting_date text not null, booked_at integer not null, reverses text not null default '', arrived integer not null default 0) strict;
create index if not exists document_key on document (external_key);
create index if not exists document_reverses on document (reverses);
create index if not exists document_order on document (order_no);
create table if not exists document_line (
  number text not null, line integer not null, movement text not null, item text not null, quantity text not null,
  unit text not null, lot text not null, reservation text not null, primary key (number, line)) strict;
create table if not exists failed_line (
  number text not null, line integer not null, movement text not null, item text not null, quantity text not null,
  unit text not null, lot text not null, reservation text not null, primary key (number, line)) strict;
create table if not exists queue (
  ticket integer primary key autoincrement, external_key text not null, due_at integer not null, request text not null,
  state text not null, code text not null default '', message text not null default '') strict;
create index if not exists queue_key on queue (external_key);
`

// fileURI names a file to SQLite, whatever characters its path has.
func fileURI(path string) string {
	p := filepath.ToSlash(path)
	if filepath.VolumeName(path) != "" {
		p = "/" + p // C:/erp.db
	}
	return "file:" + (&url.URL{Path: p}).EscapedPath()
}
