package store

import (
	"context"
	"crypto/rand"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/linekeeper/linekeeper/hub/mapping"
)

//go:embed migrations/*.sql
var migrations embed.FS

var (
	// ErrLocked says that another hub has the database open; Open wraps it.
	ErrLocked = errors.New("another hub has it open")
	// ErrNotFound says that nothing is stored under that name.
	ErrNotFound = errors.New("not found")
)

// Store is an open database. Its methods may be called from several goroutines. Make one with Open.
type Store struct {
	rw   *sql.DB
	ro   *sql.DB
	conn *sql.Conn // the only one that writes
	lock *fileLock
	path string
	vfs  string // see Options
	// session is this store as owner of the database, empty until it is.
	session string
	now     func() time.Time
	// numbered is what DeliveryLast of each agent was when the store was opened.
	numbered map[int64]int64

	write chan struct{} // holds one token: who has it writes
	stmts map[string]*sql.Stmt
	// shapes belongs to who writes, as stmts does.
	shapes shapes
	reads  sync.Map // text -> *sql.Stmt of the readers
	fresh  fresh
	latest latest

	ledgers ledgers
	rules   atomic.Pointer[mapping.Rules] // as they were read last

	mu      sync.Mutex
	queue   []*update     // wait to be written
	company chan struct{} // closed when gather need not wait any more; nil while it does not
	// companyTime is the constant of that name; tests set it.
	companyTime time.Duration
	trouble     trouble
	watchers    map[*watcher]struct{}
}

// Options of Open. The zero value is good.
type Options struct {
	// Now is the clock for the times that the store itself writes; time.Now when nil.
	Now func() time.Time
	// VFS is the name of the SQLite VFS that reaches the file, as registered; SQLite's own when empty. See package faultvfs.
	VFS string
}

// Open opens the database file at path, making it and its folder where they are missing, and brings its schema up to date.
// The error wraps ErrLocked when another process has it.
func Open(ctx context.Context, path string, o Options) (*Store, error) {
	if o.Now == nil {
		o.Now = time.Now
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return nil, fmt.Errorf("make folder of store %q: %w", path, err)
	}
	lock, err := lockFile(path + ".lock")
	if err != nil {
		return nil, fmt.Errorf("open store %q: %w (stop the other hub, or give this one its own file)", path, err)
	}
	s := &Store{
		companyTime: companyTime,
		lock:        lock, path: path, vfs: o.VFS, now: o.Now, write: make(chan struct{}, 1), stmts: map[string]*sql.Stmt{}, watchers: map[*watcher]struct{}{},
	}
	s.write <- struct{}{}
	if err := s.open(ctx, path); err != nil {
		s.Close()
		if isBusy(err) {
			err = fmt.Errorf("%w: another process is in the middle of writing to it, and stays there (was it stopped?): %w", ErrLocked, err)
		}
		return nil, fmt.Errorf("open store %q: %w", path, err)
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, path string) (err error) {
	if s.rw, err = openWriter(path, s.vfs); err != nil {
		return err
	}
	if err := migrate(ctx, s.rw); err != nil {
		return err
	}
	if s.conn, err = s.rw.Conn(ctx); err != nil {
		return err
	}
	if s.ro, err = openReaders(path, s.vfs); err != nil {
		return err
	}
	mark, err := markLock(s.lock.f)
	if err != nil {
		return err
	}
	if err := s.own(ctx, mark); err != nil {
		return err
	}
	return s.Update(ctx, func(tx *Tx) error {
		if err := tx.lookAtNumbers(); err != nil {
			return err
		}
		_, err := tx.exec(`INSERT INTO meta (name, value) VALUES ('made_at', $1) ON CONFLICT DO NOTHING`, s.now().UTC().Format(time.RFC3339))
		if err != nil {
			return err
		}
		summed, err := tx.metaText("summed_at")
		if err != nil || summed != "" {
			return err
		}
		// An earlier version kept no sums.
		if err := tx.sumAll(); err != nil {
			return fmt.Errorf("sum up the tally: %w", err)
		}
		return tx.setMeta("summed_at", s.now().UTC().Format(time.RFC3339))
	})
}

func migrate(ctx context.Context, db *sql.DB) error {
	files, err := fs.Sub(migrations, "migrations")
	if err != nil {
		return err
	}
	p, err := goose.NewProvider(gooseDialect, db, files)
	if err != nil {
		return fmt.Errorf("read migrations: %w", err)
	}
	if _, err := p.Up(ctx); err != nil {
		return fmt.Errorf("migrate schema: %w", err)
	}
	return nil
}

// Close ends all work on the database and lets the next process have it. It waits for a running transaction. Using the
// store afterwards is an error; closing twice is none.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	<-s.write // never given back: nobody writes any more
	var errs []error
	for _, st := range s.stmts {
		errs = append(errs, st.Close())
	}
	if s.conn != nil {
		errs = append(errs, s.conn.Close())
	}
	s.reads.Range(func(_, st any) bool {
		errs = append(errs, st.(*sql.Stmt).Close())
		return true
	})
	if s.ro != nil {
		errs = append(errs, s.ro.Close())
	}
	if s.rw != nil {
		errs = append(errs, s.rw.Close())
	}
	errs = append(errs, s.lock.release())
	s.lock = nil
	close(s.write)
	return errors.Join(errs...)
}

// ErrClosed is what every write answers after Close.
var ErrClosed = errors.New("store is closed")

// Ping reports whether the database answers, and whether it can be written. After a write has failed that is so again once one
// went well, or for a minute none was wanted.
func (s *Store) Ping(ctx context.Context) error {
	var one int
	if err := s.ro.QueryRowContext(ctx, "SELECT 1").Scan(&one); err != nil {
		return fmt.Errorf("ask store: %w", s.explain(err))
	}
	return s.checkWrite(ctx)
}

// Backup writes a consistent copy of the database to a new file while the hub works.
func (s *Store) Backup(ctx context.Context, path string) error {
	if err := copyDatabase(ctx, s.path, path, s.vfs); err != nil {
		return fmt.Errorf("back up store to %q: %w", path, err)
	}
	return nil
}

func randomText() string { return rand.Text()[:16] }

// us and at convert between time.Time and what is stored: microseconds since 1970, 0 for the zero time.
func us(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMicro()
}

func at(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us).UTC()
}
