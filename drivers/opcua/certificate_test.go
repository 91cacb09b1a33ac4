package opcua

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

var testKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

// certificate makes a server's certificate; issuer nil signs itself.
func certificate(t *testing.T, change func(*x509.Certificate), issuer *x509.Certificate) []byte {
	t.Helper()
	key, err := testKey()
	if err != nil {
		t.Fatal(err)
	}
	uri, _ := url.Parse("urn:press")
	c := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "press"},
		NotBefore: now.AddDate(-1, 0, 0), NotAfter: now.AddDate(1, 0, 0), URIs: []*url.URL{uri},
		DNSNames: []string{"press.plant"}, IPAddresses: []net.IP{net.IPv4(10, 0, 0, 7)}, BasicConstraintsValid: true}
	if change != nil {
		change(c)
	}
	parent := c
	if issuer != nil {
		parent = issuer
	}
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

var now = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestAServersCertificateIsRefusedForItsOwnReason(t *testing.T) {
	authority := certificate(t, func(c *x509.Certificate) {
		c.IsCA, c.Subject.CommonName, c.KeyUsage = true, "plant authority", x509.KeyUsageCertSign
	}, nil)
	ca, err := x509.ParseCertificate(authority)
	if err != nil {
		t.Fatal(err)
	}
	good := certificate(t, nil, nil)
	expired := certificate(t, func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, -1, 0) }, nil)
	early := certificate(t, func(c *x509.Certificate) { c.NotBefore = now.AddDate(0, 1, 0) }, nil)
	issued := certificate(t, nil, ca)
	issuedExpired := certificate(t, func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, -1, 0) }, ca)
	for _, tt := range []struct {
		name      string
		shown     []byte
		trusted   []byte
		uri, host string
		tolerate  string
		code      string
		warns     bool
	}{
		{"trusted", good, good, "urn:press", "press.plant", "", "", false},
		{"trusted, by address", good, good, "urn:press", "10.0.0.7", "", "", false},
		{"unknown", good, expired, "urn:press", "press.plant", "", "certificate_unknown", false},
		{"unknown and expired: a person decides first", expired, good, "urn:press", "press.plant", "", "certificate_unknown", false},
		{"expired", expired, expired, "urn:press", "press.plant", "", "certificate_expired", false},
		{"not valid yet", early, early, "urn:press", "press.plant", "", "certificate_expired", false},
		{"expired and tolerated", expired, expired, "urn:press", "press.plant", "expired", "", false},
		{"wrong URI", good, good, "urn:other", "press.plant", "expired", "certificate_wrong_uri", false},
		{"wrong URI and tolerated", good, good, "urn:other", "press.plant", "application_uri", "", false},
		{"another host of a trusted certificate", good, good, "urn:press", "192.168.0.1", "", "", true},
		{"issued by a trusted authority", issued, authority, "urn:press", "press.plant", "", "", false},
		{"issued, another host", issued, authority, "urn:press", "192.168.0.1", "", "certificate_wrong_host", false},
		{"issued, expired", issuedExpired, authority, "urn:press", "press.plant", "", "certificate_expired", false},
		{"not a certificate", []byte("hello"), good, "urn:press", "press.plant", "", "certificate_unreadable", false},
		{"chain with the authority", append(append([]byte{}, issued...), authority...), authority, "urn:press", "press.plant", "", "", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := store{t.TempDir()}
			if err := os.MkdirAll(s.trusted(), 0o755); err != nil {
				t.Fatal(err)
			}
			realparts.WriteFile(t, filepath.Join(s.trusted(), "one.pem"),
				string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: tt.trusted})))
			warning, err := s.check("press", tt.shown, tt.uri, tt.host, func(f string) bool { return f == tt.tolerate }, now)
			var d *distrust
			code := ""
			if errors.As(err, &d) {
				code = d.code
				if d.reason == "" || d.nextStep == "" {
					t.Errorf("refused without reason or next step: %+v", d)
				}
			} else if err != nil {
				t.Fatal(err)
			}
			if code != tt.code || (warning != "") != tt.warns {
				t.Errorf("refused with %q, warning %q; want %q, %v", code, warning, tt.code, tt.warns)
			}
			list, _ := ListRejected(s.dir)
			if kept := len(list) == 1; kept != (code == "certificate_unknown") {
				t.Errorf("kept for a decision: %v", kept)
			}
		})
	}
}

func TestTrustMovesOneCertificate(t *testing.T) {
	s := store{t.TempDir()}
	der := certificate(t, nil, nil)
	check := func() error {
		_, err := s.check("press", der, "urn:press", "press.plant", func(string) bool { return false }, now)
		return err
	}
	for range 2 { // being asked again is no decision
		if check() == nil {
			t.Fatal("trusted without a decision")
		}
	}
	print := fingerprint(der)
	for _, wrong := range []string{"", print[:7], strings.Repeat("0", 64), "../../etc/passwd"} {
		if err := Trust(s.dir, wrong); err == nil {
			t.Errorf("fingerprint %q trusts something", wrong)
		}
	}
	if err := Trust(s.dir, strings.ToUpper(print[:2]+":"+print[2:4]+":"+print[4:])); err != nil {
		t.Fatal(err)
	}
	if err := check(); err != nil {
		t.Error(err)
	}
	if list, err := ListRejected(s.dir); err != nil || len(list) != 0 {
		t.Errorf("still listed: %v %v", list, err)
	}
}

func TestManyUnknownCertificatesDoNotFillTheDisk(t *testing.T) {
	s := store{t.TempDir()}
	for range maxRejected + 5 {
		s.check("press", certificate(t, nil, nil), "urn:press", "press.plant", func(string) bool { return false }, now)
	}
	if list, err := ListRejected(s.dir); err != nil || len(list) != maxRejected {
		t.Errorf("%d kept, %v", len(list), err)
	}
}

func TestOurCertificateIsMadeOnceAndAnewForAnotherURI(t *testing.T) {
	dir := t.TempDir()
	first, created, err := loadOwn(dir, "urn:linekeeper:hamburg:line1")
	if err != nil || !created {
		t.Fatalf("created %v, %v", created, err)
	}
	c := first.cert
	const usage = x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment
	if uriOf(c) != "urn:linekeeper:hamburg:line1" || c.KeyUsage != usage || first.key.N.BitLen() < 2048 || c.IsCA {
		t.Errorf("certificate: URI %q, usage %b, %d bits", uriOf(c), c.KeyUsage, first.key.N.BitLen())
	}
	_, keyFile := ownFiles(dir)
	if info, err := os.Stat(keyFile); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", info, err)
	}
	again, created, err := loadOwn(dir, "urn:linekeeper:hamburg:line1")
	if err != nil || created || fingerprint(again.der) != fingerprint(first.der) {
		t.Errorf("not the same at the second start: created %v, %v", created, err)
	}
	other, created, err := loadOwn(dir, "urn:linekeeper:hamburg:line2")
	if err != nil || !created || uriOf(other.cert) != "urn:linekeeper:hamburg:line2" {
		t.Errorf("another URI: created %v, %v", created, err)
	}
	if kept, _ := filepath.Glob(filepath.Join(dir, "own", "*.until-*")); len(kept) != 2 {
		t.Errorf("the old pair is gone: %v", kept)
	}
}
