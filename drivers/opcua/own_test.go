package opcua

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const lineURI = "urn:linekeeper:hamburg:line1"

func TestOurCertificateIsMadeOnceAndAnewForAnotherURI(t *testing.T) {
	dir := t.TempDir()
	first, created, err := loadOwn(dir, lineURI, time.Now())
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	c := first.cert
	const usage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment
	if uriOf(c) != lineURI || c.KeyUsage != usage || first.key.N.BitLen() < 2048 || c.IsCA || subject(c) != "Linekeeper agent line1" {
		t.Errorf("certificate: %q, URI %q, usage %b, %d bits", subject(c), uriOf(c), c.KeyUsage, first.key.N.BitLen())
	}
	if host, err := os.Hostname(); err != nil || c.VerifyHostname(host) != nil {
		t.Errorf("the certificate is for %v, not for %q", names(c), host)
	}
	_, keyFile := ownFiles(dir)
	if info, err := os.Stat(keyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", info, err)
	}
	again, created, err := loadOwn(dir, lineURI, time.Now())
	if err != nil || created || !again.cert.Equal(first.cert) {
		t.Errorf("not the same at the second start: created %v, %v", created, err)
	}
	other, created, err := loadOwn(dir, "urn:linekeeper:hamburg:line2", time.Now())
	if err != nil || !created || uriOf(other.cert) != "urn:linekeeper:hamburg:line2" {
		t.Errorf("another URI: created %v, %v", created, err)
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "own", "*.until-*")); len(kept) != 2 {
		t.Errorf("the old pair is gone: %v", kept)
	}
}

func TestTwoProgramsMakeOneCertificate(t *testing.T) {
	dir := t.TempDir()
	var all sync.WaitGroup
	made := make([]identity, 4)
	for i := range made {
		all.Go(func() {
			var err error
			if made[i], err = createOwn(dir, lineURI); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, m := range made[1:] {
		if m.cert == nil || !m.cert.Equal(made[0].cert) {
			t.Fatal("they made different ones")
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "own.new-*")); left != nil {
		t.Errorf("left behind: %v", left)
	}
}

func TestNamesThatDoNotFitACertificate(t *testing.T) {
	for _, tt := range []struct{ uri, want string }{
		{"urn:linekeeper:ulm:" + strings.Repeat("ü", 80), "Linekeeper agent " + strings.Repeat("ü", 47)},
		{"urn:linekeeper:ulm:halle%202", "Linekeeper agent halle 2"},
		{"urn:x:", "Linekeeper agent"},
	} {
		if got := commonName(tt.uri); got != tt.want {
			t.Errorf("%s: %q", tt.uri, got)
		}
	}
}

// pair writes a certificate and its key, valid until end.
func pair(t *testing.T, certFile, keyFile, uri string, end time.Time) identity {
	t.Helper()
	own, err := sharedOwn()
	if err != nil {
		t.Fatal(err)
	}
	template, err := certificateTemplate(uri)
	if err != nil {
		t.Fatal(err)
	}
	template.NotBefore, template.NotAfter = end.AddDate(-10, 0, 0), end
	der, err := x509.CreateCertificate(rand.Reader, template, template, &own.key.PublicKey, own.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own.key)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(certFile), 0o755); err != nil {
		t.Fatal(err)
	}
	realparts.WriteFile(t, certFile, string(der))
	realparts.WriteFile(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	got, err := loadIdentity(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestAnExpiredCertificateGivesWayToItsSuccessor(t *testing.T) {
	end := time.Now().Add(24 * time.Hour)
	for _, tt := range []struct {
		name  string
		next  string // its URI
		after bool
		fresh bool
	}{
		{"before the end", lineURI, false, false},
		{"at the end", lineURI, true, false},
		{"no successor", "", true, true},
		{"a successor of another name", "urn:other", true, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			certFile, keyFile := ownFiles(dir)
			old := pair(t, certFile, keyFile, lineURI, end)
			var next identity
			if tt.next != "" {
				c, k := nextFiles(dir)
				next = pair(t, c, k, tt.next, end.AddDate(10, 0, 0))
			}
			now := end.Add(-time.Hour)
			if tt.after {
				now = end.Add(time.Hour)
			}
			got, created, err := loadOwn(dir, lineURI, now)
			if err != nil || created != tt.after {
				t.Fatalf("created %v, %v", created, err)
			}
			switch {
			case !tt.after && !got.cert.Equal(old.cert), tt.after && !tt.fresh && !got.cert.Equal(next.cert),
				tt.fresh && (got.cert.Equal(old.cert) || uriOf(got.cert) != lineURI):
				t.Errorf("it shows %s, valid until %s", subject(got.cert), got.cert.NotAfter)
			}
			if again, created, err := loadOwn(dir, lineURI, now); err != nil || created || !again.cert.Equal(got.cert) {
				t.Errorf("at the next start: created %v, %v", created, err)
			}
		})
	}
}

// TestAPromotionThatWasCutOffIsFinished stops after each step of it.
func TestAPromotionThatWasCutOffIsFinished(t *testing.T) {
	end := time.Now().AddDate(1, 0, 0)
	for steps := range 5 {
		dir := t.TempDir()
		certFile, keyFile := ownFiles(dir)
		old := pair(t, certFile, keyFile, lineURI, end)
		nextCert, nextKey := nextFiles(dir)
		next := pair(t, nextCert, nextKey, lineURI, end.AddDate(10, 0, 0))
		for _, move := range [][2]string{{certFile, certFile + ".until-x"}, {keyFile, keyFile + ".until-x"}, {nextKey, keyFile}, {nextCert, certFile}}[:steps] {
			if err := os.Rename(move[0], move[1]); err != nil {
				t.Fatal(err)
			}
		}
		want := next
		if steps == 0 {
			want = old
		}
		got, created, err := loadOwn(dir, lineURI, time.Now())
		if err != nil || created || !got.cert.Equal(want.cert) {
			t.Errorf("cut off after %d steps: created %v, %v", steps, created, err)
		}
	}
}
