package realparts

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"

	_ "github.com/go-sql-driver/mysql" // the driver "mysql"
)

// MariaDB starts a MariaDB server of its own on a free loopback port.
func MariaDB(t testing.TB) *Database {
	t.Helper()
	server := Need(t, "mariadbd", "mariadb-server", "/usr/sbin")
	install := Need(t, "mariadb-install-db", "mariadb-server")
	dir := t.TempDir()
	data := filepath.Join(dir, "data")
	d := newDatabase(t, "mysql", func(d *Database, database string) string {
		return fmt.Sprintf("%s:%s@tcp(127.0.0.1:%d)/%s", d.User, d.Password, d.Port, database)
	})
	small := []string{"--datadir=" + data, "--innodb-log-file-size=8M", "--innodb-buffer-pool-size=32M"}
	if os.Getuid() == 0 {
		small = append(small, "--user=root")
	}
	args := append([]string{"--no-defaults", "--skip-test-db", "--auth-root-authentication-method=normal"}, small...)
	if out, err := exec.Command(install, args...).CombinedOutput(); err != nil {
		t.Fatalf("make the files of a MariaDB: %v\n%s", err, out)
	}
	first := WriteFile(t, filepath.Join(dir, "first.sql"), fmt.Sprintf(
		"CREATE OR REPLACE USER '%s'@'127.0.0.1' IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO '%s'@'127.0.0.1' WITH GRANT OPTION;\n",
		d.User, d.Password, d.User))
	args = append([]string{"--no-defaults"}, small...)
	args = append(args, "--socket="+filepath.Join(dir, "s"), "--pid-file="+filepath.Join(dir, "pid"), "--init-file="+first,
		"--bind-address=127.0.0.1", "--port="+strconv.Itoa(d.Port), "--skip-name-resolve", "--character-set-server=utf8mb4",
		"--innodb-flush-log-at-trx-commit=2", "--skip-log-bin", "--performance-schema=off")
	d.Process = &Process{
		Name:    "mariadbd",
		Command: func() *exec.Cmd { return exec.Command(server, args...) },
		Ready:   func() error { return ping("mysql", d.DSN("mysql")) },
	}
	d.Start(t)
	return d
}
