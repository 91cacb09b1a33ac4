package realparts

import (
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	_ "github.com/jackc/pgx/v5/stdlib" // the driver "pgx"
)

// Postgres starts a PostgreSQL cluster of its own on a free loopback port.
func Postgres(t testing.TB) *Database {
	t.Helper()
	const bin = "/usr/lib/postgresql/*/bin"
	initdb := Need(t, "initdb", "postgresql", bin)
	server := Need(t, "postgres", "postgresql", bin)
	d := newDatabase(t, "pgx", func(d *Database, database string) string {
		return fmt.Sprintf("postgres://%s:%s@127.0.0.1:%d/%s?sslmode=disable", d.User, d.Password, d.Port, database)
	})
	dir := t.TempDir()
	owner := unprivileged(t, dir, "postgres")
	data := filepath.Join(dir, "data")
	pwfile := WriteFile(t, filepath.Join(dir, "password"), d.Password)
	cmd := exec.Command(initdb, "-D", data, "-U", d.User, "-A", "scram-sha-256", "--pwfile", pwfile,
		"-E", "UTF8", "--locale", "C.UTF-8", "--no-sync", "--no-instructions")
	cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: owner}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a PostgreSQL cluster: %v\n%s", err, out)
	}
	d.Process = &Process{
		Name: "postgres",
		Command: func() *exec.Cmd {
			cmd := exec.Command(server, "-D", data, "-p", strconv.Itoa(d.Port), "-k", dir, "-h", "127.0.0.1",
				"-c", "fsync=off", "-c", "full_page_writes=off", "-c", "shared_buffers=32MB", "-c", "max_connections=100",
				"-c", "logging_collector=off", "-c", "timezone=UTC", "-c", "deadlock_timeout=200ms")
			cmd.Dir, cmd.SysProcAttr = dir, &syscall.SysProcAttr{Credential: owner}
			return cmd
		},
		Ready: func() error { return ping("pgx", d.DSN("postgres")) },
	}
	d.Start(t)
	t.Cleanup(func() { d.Kill(syscall.SIGKILL) })
	return d
}

// unprivileged returns whom to run a server as that refuses to be root, and makes dir belong to it; nil for nobody else.
func unprivileged(t testing.TB, dir, name string) *syscall.Credential {
	t.Helper()
	if os.Getuid() != 0 {
		return nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		t.Fatalf("run a server as another user than root: %v", err)
	}
	uid, _ := strconv.Atoi(u.Uid)
	gid, _ := strconv.Atoi(u.Gid)
	if err := os.Chmod(filepath.Dir(dir), 0o711); err != nil { // the test's own folder is closed to others
		t.Fatalf("open the way to %q: %v", dir, err)
	}
	if err := os.Chown(dir, uid, gid); err != nil {
		t.Fatalf("give %q to %s: %v", dir, name, err)
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}
