package fleet

import (
	"crypto/tls"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestIssuedCertificatesAuthenticateBothSides(t *testing.T) {
	dir := t.TempDir()
	ca, err := CreateAuthority(dir, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.IssueHub(dir, []string{"hub.example", "127.0.0.1"}); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "line1")
	if err := ca.IssueAgent(out, "ulm", "line1"); err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	raw, _ := os.ReadFile(filepath.Join(out, "ca.pem"))
	roots.AppendCertsFromPEM(raw)
	hub := leaf(t, filepath.Join(dir, "hub"))
	if _, err := hub.Verify(x509.VerifyOptions{Roots: roots, DNSName: "hub.example", KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}); err != nil {
		t.Errorf("hub certificate: %v", err)
	}
	agent := leaf(t, filepath.Join(out, "agent"))
	if _, err := agent.Verify(x509.VerifyOptions{Roots: roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}); err != nil {
		t.Errorf("agent certificate: %v", err)
	}
	if got := agent.URIs[0].String(); got != "linekeeper://ulm/line1" {
		t.Errorf("agent certificate names %q", got)
	}
	if info, _ := os.Stat(filepath.Join(out, "agent.key")); info.Mode().Perm() != 0o600 {
		t.Errorf("agent.key has mode %v", info.Mode())
	}
}

func leaf(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(path+".pem", path+".key")
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func TestAuthorityIsNeverOverwritten(t *testing.T) {
	dir := t.TempDir()
	if _, err := CreateAuthority(dir, time.Now); err != nil {
		t.Fatal(err)
	}
	if _, err := CreateAuthority(dir, time.Now); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second authority in one folder: %v", err)
	}
}

func TestNamesThatCouldForgeAnIdentityAreRefused(t *testing.T) {
	ca, err := CreateAuthority(t.TempDir(), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []string{"", "a/b", "a b", "../x", "@"} {
		if err := ca.IssueAgent(t.TempDir(), "ulm", n); err == nil {
			t.Errorf("agent name %q was accepted", n)
		}
	}
}
