package realparts

import (
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"os"
	"syscall"
	"testing"
	"time"
)

func TestPostgresKeepsItsRowsWhenKilled(t *testing.T) {
	p := Postgres(t)
	keepsRows(t, "pgx", p.NewDatabase(t), func() error { p.Kill(syscall.SIGKILL); return p.Run() })
	if ping("pgx", "postgres://"+p.User+":wrong@"+p.DSN("postgres")[len("postgres://")+len(p.User)+len(p.Password)+2:]) == nil {
		t.Error("a wrong password was accepted")
	}
}

func TestMariaDBKeepsItsRowsWhenKilled(t *testing.T) {
	m := MariaDB(t)
	keepsRows(t, "mysql", m.NewDatabase(t), func() error { m.Kill(syscall.SIGKILL); return m.Run() })
}

func keepsRows(t *testing.T, driver, dsn string, restart func() error) {
	t.Helper()
	execute(t, driver, dsn, "CREATE TABLE kept (id INT PRIMARY KEY)")
	execute(t, driver, dsn, "INSERT INTO kept VALUES (7)")
	if err := restart(); err != nil {
		t.Fatalf("run again: %v", err)
	}
	db, err := sql.Open(driver, dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	var id int
	if err := db.QueryRow("SELECT id FROM kept").Scan(&id); err != nil || id != 7 {
		t.Errorf("after the kill the row is %d, %v", id, err)
	}
}

func TestMosquittoSpeaksTLSWithItsOwnAuthority(t *testing.T) {
	b := Mosquitto(t, MosquittoOptions{TLS: true})
	pem, err := os.ReadFile(b.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(pem)
	dial := func(c *tls.Config) error {
		conn, err := tls.Dial("tcp", b.URL()[len("tls://"):], c)
		if err == nil {
			conn.Close()
		}
		return err
	}
	Eventually(t, 10*time.Second, "handshake", func() error { return dial(&tls.Config{RootCAs: pool}) })
	if dial(&tls.Config{}) == nil {
		t.Error("the broker's certificate passes without its authority")
	}
	b.Kill(syscall.SIGTERM)
	if err := b.Run(); err != nil {
		t.Errorf("run again: %v", err)
	}
}
