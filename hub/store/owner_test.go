package store_test

import (
	"context"
	"database/sql"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
)

// write is a transaction as any part of a hub makes it.
func write(s *store.Store, code string) error {
	return s.Update(context.Background(), func(tx *store.Tx) error { return tx.RaiseAlarm("test", code, "a reason", "a step") })
}

func openStore(t *testing.T, path string) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), path, store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// guard lets a store answer other hubs, until the returned function is called; that gives its error.
func guard(s *store.Store) (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Guard(ctx) }()
	return func() error { cancel(); return <-ended }
}

func TestSecondHubIsRefusedWhileTheFirstLivesThoughItsLockFileIsGone(t *testing.T) {
	for _, way := range []string{"deleted", "another path"} {
		t.Run(way, func(t *testing.T) {
			dir, elsewhere := t.TempDir(), filepath.Join(t.TempDir(), "hub.db")
			synctest.Test(t, func(t *testing.T) {
				path := filepath.Join(dir, "hub.db")
				first := openStore(t, path)
				defer first.Close()
				end := guard(first)
				if way == "deleted" {
					if err := os.Remove(path + ".lock"); err != nil {
						t.Fatal(err)
					}
				} else {
					if err := os.Symlink(path, elsewhere); err != nil {
						t.Fatal(err)
					}
					path = elsewhere
				}
				for range 2 {
					_, err := store.Open(context.Background(), path, store.Options{})
					if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), "was the file deleted") || !strings.Contains(err.Error(), "process ") {
						t.Fatalf("second open: %v, want ErrLocked that names the process", err)
					}
				}
				if err := write(first, "after"); err != nil {
					t.Fatalf("the first hub was harmed: %v", err)
				}
				if err := end(); err != nil {
					t.Fatalf("guard of the first hub: %v", err)
				}
			})
		})
	}
}

func TestOwnerThatCannotAnswerIsTakenOverAndCanWriteNoMore(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(dir, "hub.db")
		frozen := openStore(t, path) // nobody answers for it
		defer frozen.Close()
		if err := os.Remove(path + ".lock"); err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		second := openStore(t, path)
		defer second.Close()
		if waited := time.Since(began); waited < 5*time.Second {
			t.Errorf("the owner had only %s to answer", waited)
		}
		if err := write(frozen, "stale"); !errors.Is(err, store.ErrTakenOver) {
			t.Fatalf("the hub that was taken over writes: %v, want ErrTakenOver", err)
		}
		end := guard(frozen)
		time.Sleep(10 * time.Second) // fake time
		if err := end(); !errors.Is(err, store.ErrTakenOver) {
			t.Errorf("guard of the hub that was taken over: %v, want ErrTakenOver", err)
		}
		if err := write(second, "fresh"); err != nil {
			t.Fatal(err)
		}
		alarms, err := second.Alarms(context.Background(), false, store.Page{})
		if err != nil || len(alarms) != 1 || alarms[0].Code != "fresh" {
			t.Errorf("alarms %+v, %v; want the second hub's only", alarms, err)
		}
	})
}

func TestHubAfterADeadOneTakesOverAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	openStore(t, path).Close()
	began := time.Now()
	synctest.Test(t, func(t *testing.T) {
		began = time.Now()
		s := openStore(t, path)
		defer s.Close()
		if waited := time.Since(began); waited > 0 {
			t.Errorf("opening after a hub that has ended waits %s", waited)
		}
	})
}

func TestHubIsRefusedWhileAProcessStaysInTheMiddleOfAWrite(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	openStore(t, path).Close()
	db, err := sql.Open("sqlite", "file:"+path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	_, err = store.Open(context.Background(), path, store.Options{})
	if !errors.Is(err, store.ErrLocked) || !strings.Contains(err.Error(), "in the middle of writing") {
		t.Fatalf("open: %v, want ErrLocked with the reason", err)
	}
	if _, err := db.Exec("ROLLBACK"); err != nil {
		t.Fatal(err)
	}
	openStore(t, path)
}
