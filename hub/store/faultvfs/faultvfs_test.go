package faultvfs

import (
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"modernc.org/sqlite"
)

func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LINEKEEPER_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("%s: LINEKEEPER_SEED=%d\n", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, seed))
}

func newFS(t *testing.T, rng *rand.Rand) *FS {
	t.Helper()
	f, err := New(rng)
	must(t, err)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	return f
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// connect opens a database as the hub does; mode is the journal's. A rollback journal must be gone for sure before a commit
// is: only EXTRA syncs the folder after its removal.
func connect(t *testing.T, f *FS, path, mode string) *sql.DB {
	t.Helper()
	sync := map[string]string{"WAL": "FULL", "DELETE": "EXTRA"}[mode]
	db, err := sql.Open("sqlite", "file:"+path+"?vfs="+url.QueryEscape(f.Name())+"&_pragma=journal_mode("+mode+")&_pragma=synchronous("+sync+")")
	must(t, err)
	db.SetMaxOpenConns(1)
	return db
}

func insert(db *sql.DB, n int) error {
	tx, err := db.Begin()
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	for part := range 3 {
		if _, err := tx.Exec("INSERT INTO t (n, part, filler) VALUES (?, ?, ?)", n, part, strings.Repeat("x", 100*part+n%900)); err != nil {
			return err
		}
	}
	return tx.Commit()
}

// count returns how many commits a database holds, and fails when one is there in part.
func count(t *testing.T, db *sql.DB) int {
	t.Helper()
	var rows, commits, highest int
	must(t, db.QueryRow("SELECT count(*), count(DISTINCT n), coalesce(max(n), 0) FROM t").Scan(&rows, &commits, &highest))
	if rows != 3*commits || highest != commits {
		t.Fatalf("%d rows of %d commits, the last is %d", rows, commits, highest)
	}
	var ok string
	must(t, db.QueryRow("PRAGMA integrity_check").Scan(&ok))
	if ok != "ok" {
		t.Fatal(ok)
	}
	return commits
}

// The power fails before any operation, also those of checkpoints: each commit that returned nil is there, none is there in
// part.
func TestSQLiteKeepsItsPromiseOverPowerCuts(t *testing.T) {
	for _, mode := range []string{"WAL", "DELETE"} {
		t.Run(mode, func(t *testing.T) {
			rng := random(t)
			f := newFS(t, rng)
			path := filepath.Join(t.TempDir(), "db")
			n, more := 0, 0
			for cut := range 60 {
				db := connect(t, f, path, mode)
				_, err := db.Exec("PRAGMA wal_autocheckpoint = 20; CREATE TABLE IF NOT EXISTS t (n, part, filler, PRIMARY KEY (n, part))")
				must(t, err)
				if cut > 0 {
					switch got := count(t, db); got {
					case n:
					case n + 1:
						n, more = n+1, more+1
					default:
						t.Fatalf("cut %d: %d commits, %d were promised", cut, got, n)
					}
				}
				left, image := 1+rng.IntN(120), ""
				f.Before(func(op Op, _ string) Code {
					if op == Read || image != "" {
						return OK
					}
					if left--; left == 0 {
						image = t.TempDir()
						must(t, f.Crash(rng, path, image))
					}
					return OK
				})
				for image == "" {
					must(t, insert(db, n+1))
					if image == "" {
						n++
					}
				}
				f.Before(nil)
				must(t, db.Close())
				path = filepath.Join(image, "db")
			}
			t.Logf("%d commits, %d of them came back without a promise; %d syncs", n, more, f.Count(Sync))
			if n == 0 || mode == "WAL" && more == 0 {
				t.Error("the test did not test")
			}
		})
	}
}

// The test above is worth something only if it finds a database that does not sync.
func TestWithoutSyncsCommitsAreLost(t *testing.T) {
	rng := random(t)
	f := newFS(t, rng)
	path := filepath.Join(t.TempDir(), "db")
	db := connect(t, f, path, "WAL")
	_, err := db.Exec("PRAGMA synchronous = OFF; CREATE TABLE t (n, part, filler, PRIMARY KEY (n, part))")
	must(t, err)
	for n := range 20 {
		must(t, insert(db, n+1))
	}
	lost := 0
	for range 20 {
		image := t.TempDir()
		must(t, f.Crash(rng, path, image))
		cut := connect(t, f, filepath.Join(image, "db"), "WAL")
		var n int
		if err := cut.QueryRow("SELECT count(DISTINCT n) FROM t").Scan(&n); err != nil || n < 20 {
			lost++
		}
		must(t, cut.Close())
	}
	must(t, db.Close())
	if lost == 0 {
		t.Error("20 power cuts lost nothing of a database that was never synced")
	}
}

func TestFaultsAreGivenToTheCaller(t *testing.T) {
	rng := random(t)
	f := newFS(t, rng)
	db := connect(t, f, filepath.Join(t.TempDir(), "db"), "WAL")
	_, err := db.Exec("CREATE TABLE t (n, part, filler, PRIMARY KEY (n, part))")
	must(t, err)
	n := 0
	for _, fault := range []struct {
		code Code
		set  func()
	}{
		{SyncFail, func() { f.Fail(SyncFail, "-wal", Sync) }},
		{WriteFail, func() { f.Fail(WriteFail, "-wal", Write) }},
		{FullDisk, func() { f.Full(true) }},
	} {
		fault.set()
		var e *sqlite.Error
		if err := insert(db, n+1); !errors.As(err, &e) || e.Code() != int(fault.code) {
			t.Errorf("fault %d: the caller got %v", fault.code, err)
		}
		f.Before(nil)
		f.Full(false)
		n++
		must(t, insert(db, n))
		if got := count(t, db); got != n {
			t.Errorf("fault %d: %d commits, want %d", fault.code, got, n)
		}
	}
	must(t, db.Close())
}

func TestSeveralDatabasesAndConnectionsInABubble(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFS(t, random(t))
		dir := t.TempDir()
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				path := filepath.Join(dir, strconv.Itoa(i))
				db := connect(t, f, path, "WAL")
				defer db.Close()
				reader := connect(t, f, path, "WAL")
				defer reader.Close()
				if _, err := db.Exec("CREATE TABLE t (n, part, filler, PRIMARY KEY (n, part))"); err != nil {
					t.Error(err)
					return
				}
				for n := range 30 {
					time.Sleep(time.Hour)
					if err := insert(db, n+1); err != nil {
						t.Error(err)
					}
					var got int
					if err := reader.QueryRow("SELECT max(n) FROM t").Scan(&got); err != nil || got != n+1 {
						t.Errorf("the other connection sees %d commits of %d (%v)", got, n+1, err)
					}
				}
			})
		}
		wg.Wait()
	})
}
