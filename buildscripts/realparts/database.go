package realparts

import (
	"context"
	"database/sql"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Database is a database server under a test's control. Its files stay when it is killed and run again: it survives
// kill -9, but for the sake of speed not a power cut.
type Database struct {
	*Process
	Port int
	// Driver is the name for sql.Open: "pgx" or "mysql"; the package registers both.
	Driver string
	// User may do everything; nobody gets in without Password.
	User, Password string

	dsn   func(d *Database, database string) string
	count atomic.Int64
}

func newDatabase(t testing.TB, driver string, dsn func(*Database, string) string) *Database {
	return &Database{Port: FreePort(t), Driver: driver, User: "linekeeper", Password: "secret-" + strconv.Itoa(os.Getpid()), dsn: dsn}
}

// DSN returns the address of a database in the form its driver takes, password included.
func (d *Database) DSN(database string) string { return d.dsn(d, database) }

// NewDatabase makes an empty database and returns its address.
func (d *Database) NewDatabase(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("test_%d", d.count.Add(1))
	home := map[string]string{"pgx": "postgres", "mysql": "mysql"}[d.Driver]
	execute(t, d.Driver, d.DSN(home), "CREATE DATABASE "+name)
	return d.DSN(name)
}

// Kill sends sig to the server and waits until it and its child processes are gone, so that it can run again.
func (d *Database) Kill(sig syscall.Signal) {
	sessions := children(d.PID())
	d.Process.Kill(sig)
	for _, pid := range sessions { // they lead process groups of their own
		if sig == syscall.SIGKILL {
			syscall.Kill(pid, sig)
		}
		waitGone(pid, time.Minute)
	}
}

// children lists the processes whose parent is pid.
func children(pid int) []int {
	var out []int
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it just ended
		}
		s := string(b)
		fields := strings.Fields(s[strings.LastIndexByte(s, ')')+1:])
		if len(fields) > 1 && fields[1] == strconv.Itoa(pid) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			out = append(out, child)
		}
	}
	return out
}

func waitGone(pid int, patience time.Duration) {
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for syscall.Kill(pid, 0) == nil {
		select {
		case <-poll.C:
		case <-deadline.C:
			return
		}
	}
}

func ping(driver, dsn string) error {
	db, err := sql.Open(driver, dsn)
	if err != nil {
		return err
	}
	defer db.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return db.PingContext(ctx)
}

func execute(t testing.TB, driver, dsn, statement string) {
	t.Helper()
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatalf("open a database: %v", err)
	}
	defer db.Close()
	if _, err := db.Exec(statement); err != nil {
		t.Fatalf("execute %q: %v", statement, err)
	}
}
