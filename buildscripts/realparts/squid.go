package realparts

import (
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// Squid is an HTTP proxy that wants a login and opens TLS with certificates of its own authority, as in many plants.
type Squid struct {
	*Process
	Port           int
	User, Password string
	// CAFile holds the certificate of the proxy's own authority.
	CAFile string

	dir string
}

// InspectingSquid starts one. upstreamCA is the file of the authority that it believes for the servers behind it.
func InspectingSquid(t testing.TB, upstreamCA string) *Squid {
	t.Helper()
	program := Need(t, "squid", "squid-openssl", "/usr/sbin")
	helper := Need(t, "security_file_certgen", "squid-openssl", "/usr/lib/squid")
	// It gives up root, and a test's own folder is closed to others.
	dir, err := os.MkdirTemp("", "squid")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &Squid{Port: FreePort(t), User: "ulm", Password: "secret", dir: dir}
	ca := newAuthority(t)
	s.CAFile = WriteFile(t, filepath.Join(dir, "ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.cert.Raw})))
	key, err := x509.MarshalPKCS8PrivateKey(ca.key)
	if err != nil {
		t.Fatal(err)
	}
	WriteFile(t, filepath.Join(dir, "ca.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})))
	raw, err := os.ReadFile(upstreamCA)
	if err != nil {
		t.Fatal(err)
	}
	WriteFile(t, filepath.Join(dir, "upstream.pem"), string(raw))
	// A login as squid's helpers take it: one line for each question.
	WriteFile(t, filepath.Join(dir, "login.sh"), fmt.Sprintf("while read -r user password rest; do\n  if [ \"$user $password\" = %q ]; then echo OK; else echo ERR; fi\ndone\n", s.User+" "+s.Password))
	if out, err := exec.Command(helper, "-c", "-s", filepath.Join(dir, "certs"), "-M", "4MB").CombinedOutput(); err != nil {
		t.Fatalf("prepare squid's certificates: %v\n%s", err, out)
	}
	conf := WriteFile(t, filepath.Join(dir, "squid.conf"), strings.NewReplacer("DIR", dir, "PORT", fmt.Sprint(s.Port), "HELPER", helper).Replace(`
http_port 127.0.0.1:PORT ssl-bump tls-cert=DIR/ca.pem tls-key=DIR/ca.key generate-host-certificates=on dynamic_cert_mem_cache_size=4MB
sslcrtd_program HELPER -s DIR/certs -M 4MB
sslcrtd_children 2
ssl_bump bump all
tls_outgoing_options cafile=DIR/upstream.pem
http_upgrade_request_protocols websocket allow all
auth_param basic program /bin/sh DIR/login.sh
auth_param basic children 2
auth_param basic realm plant
acl known proxy_auth REQUIRED
http_access allow known
http_access deny all
cache deny all
cache_mem 8 MB
access_log stdio:DIR/access.log
cache_log DIR/cache.log
pid_filename none
coredump_dir DIR
pinger_enable off
shutdown_lifetime 1 seconds
`))
	exec.Command("chown", "-R", "proxy:proxy", dir).Run() // where it is not root it writes as itself
	os.Chmod(dir, 0o755)
	s.Process = &Process{
		Name:    "squid",
		Command: func() *exec.Cmd { return exec.Command(program, "-N", "-f", conf) },
		Ready:   Listening(s.Port),
	}
	s.Start(t)
	t.Cleanup(func() {
		s.Kill(syscall.SIGKILL)
		if t.Failed() {
			t.Logf("squid's log:\n%s\n%s", s.Log(), read(filepath.Join(dir, "cache.log")))
		}
	})
	return s
}

// URL is the proxy's address with its login.
func (s *Squid) URL() string {
	return fmt.Sprintf("http://%s:%s@127.0.0.1:%d", s.User, s.Password, s.Port)
}

// Log lists what was asked of it.
func (s *Squid) Log() string { return read(filepath.Join(s.dir, "access.log")) }

func read(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(raw)
}
