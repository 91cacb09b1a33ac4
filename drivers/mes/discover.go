package mes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// greetings let a database say what it is: what is sent to it, and what its answer tells. The ports are their usual ones.
var greetings = []struct {
	driver, name, port string
	send               []byte
	is                 func(answer []byte) (detail string, ok bool)
}{
	{"postgres", "PostgreSQL", "5432", []byte{0, 0, 0, 8, 4, 210, 22, 47}, func(a []byte) (string, bool) { // a request for TLS
		if len(a) != 1 || a[0] != 'S' && a[0] != 'N' {
			return "", false
		}
		return map[byte]string{'S': "encrypts", 'N': "does not encrypt"}[a[0]], true
	}},
	{"mysql", "MySQL or MariaDB", "3306", nil, func(a []byte) (string, bool) { // it speaks first: length, number, version 10, text
		if len(a) < 6 || a[3] != 0 || a[4] != 10 && a[4] != 255 {
			return "", false
		}
		if a[4] == 255 { // it does not like where we come from, but it is one
			return "answers with an error", true
		}
		version, _, _ := bytes.Cut(a[5:], []byte{0})
		return strings.TrimPrefix(strings.ToValidUTF8(string(version), "?"), "5.5.5-"), true
	}},
	{"sqlserver", "SQL Server", "1433", preLogin, func(a []byte) (string, bool) {
		return "", len(a) > 8 && a[0] == 4 && a[1] == 1
	}},
}

// preLogin asks SQL Server for its version and whether it encrypts.
var preLogin = []byte{0x12, 1, 0, 26, 0, 0, 1, 0, 0, 0, 11, 0, 6, 1, 0, 17, 0, 1, 0xff, 0, 0, 0, 0, 0, 0, 0}

const greetingPatience = 3 * time.Second

// discover finds out which database answers at an address (a host, host:port, a path of a file, or an address of a database with
// user and password), and what its tables are where it lets us in.
func discover(ctx context.Context, env signal.Env, text string) ([]signal.Offer, error) {
	if text == "" {
		return nil, errors.New("the address is empty: write a host, host:port, or the path of an SQLite file")
	}
	for driver, prefix := range map[string]string{"postgres": "postgres", "sqlserver": "sqlserver://"} {
		if strings.HasPrefix(text, prefix) && strings.Contains(text, "://") {
			return discoverInside(ctx, env, driver, text)
		}
	}
	if strings.Contains(text, "@tcp(") {
		return discoverInside(ctx, env, "mysql", text)
	}
	if looksLikeFile(text) {
		return discoverInside(ctx, env, "sqlite", text)
	}
	host, port := address(text)
	var (
		offers []signal.Offer
		failed []error
	)
	for _, g := range greetings {
		at := net.JoinHostPort(host, g.port)
		if port != "" {
			at = net.JoinHostPort(host, port)
		}
		answer, err := greet(ctx, at, g.send)
		if err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", at, err))
			continue
		}
		if detail, ok := g.is(answer); ok {
			offers = append(offers, offerOf(g.driver, g.name, at, detail))
		}
	}
	if len(offers) == 0 {
		return nil, errors.Join(append([]error{fmt.Errorf("no PostgreSQL, MySQL, MariaDB or SQL Server answers at %s", text)}, failed...)...)
	}
	return offers, nil
}

func looksLikeFile(text string) bool {
	info, err := os.Stat(text)
	return err == nil && info.Mode().IsRegular()
}

// greet returns the first bytes that a server answers with.
func greet(ctx context.Context, at string, send []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, greetingPatience)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", at)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		conn.SetDeadline(deadline)
	}
	if _, err := conn.Write(send); err != nil {
		return nil, err
	}
	answer := make([]byte, 256)
	n, err := conn.Read(answer)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return answer[:n], nil
}

func offerOf(driver, name, at, detail string) signal.Offer {
	dsn := map[string]string{
		"postgres":  "postgres://user:password@" + at + "/mes",
		"mysql":     "user:password@tcp(" + at + ")/mes",
		"sqlserver": "sqlserver://user:password@" + at + "?database=mes",
	}[driver]
	o := signal.Offer{Title: strings.TrimSuffix(name+" at "+at+", "+detail, ", "), Section: "driver: " + driver + "\ndsn_file: mes.dsn\n",
		Notes: []string{"Write one line into the file mes.dsn beside the configuration, readable for the agent only: " + dsn}}
	if driver == "postgres" {
		o.Secure = detail == "encrypts"
		if o.Secure {
			o.Notes = append(o.Notes, "Add ?sslmode=verify-full to be sure that nobody is in between.")
		}
	}
	return o
}

// discoverInside looks into a database whose whole address is known. The address, which holds a password, goes into a file.
func discoverInside(ctx context.Context, env signal.Env, driver, dsn string) ([]signal.Offer, error) {
	s := newSource(env, Config{Driver: driver, DSN: dsn}, time.UTC)
	defer s.db().Close()
	if err := s.ping(ctx); err != nil {
		p := s.problemOf(driver, "", err)
		return nil, fmt.Errorf("%s (%s)", p.Reason, p.NextStep)
	}
	tables, err := s.tables(ctx)
	if err != nil {
		return nil, &polling.ProblemError{Problem: *s.problemOf(driver, "", err)}
	}
	names := make([]string, len(tables))
	for i, t := range tables {
		names[i] = t.ID
	}
	o := signal.Offer{Title: fmt.Sprintf("%s, %d tables", driver, len(tables)), Section: "driver: " + driver + "\ndsn_file: mes.dsn\n", Secure: driver == "sqlite",
		Notes: []string{"Write the address into the file mes.dsn beside the configuration, readable for the agent only."}}
	if driver == "sqlite" {
		o.Title = fmt.Sprintf("SQLite file %s, %d tables", filepath.Base(dsn), len(tables))
		o.Section, o.Notes = fmt.Sprintf("driver: sqlite\ndsn: %q\n", dsn), nil
	}
	if len(names) > 0 {
		o.Notes = append(o.Notes, "Tables: "+strings.Join(names[:min(len(names), 40)], ", "))
	}
	return []signal.Offer{o}, nil
}
