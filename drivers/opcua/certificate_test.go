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
			found, err := s.check("press", tt.shown, tt.uri, tt.host, func(f string) bool { return f == tt.tolerate }, now)
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
			if code != tt.code || (found.host() != "") != tt.warns {
				t.Errorf("refused with %q, warnings %q; want %q, %v", code, found.warnings, tt.code, tt.warns)
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

func TestAuthoritiesVouchAndRevoke(t *testing.T) {
	key, err := testKey()
	if err != nil {
		t.Fatal(err)
	}
	ca := func(name string, issuer *x509.Certificate, change func(*x509.Certificate)) ([]byte, *x509.Certificate) {
		der := certificate(t, func(c *x509.Certificate) {
			c.IsCA, c.Subject.CommonName, c.KeyUsage = true, name, x509.KeyUsageCertSign|x509.KeyUsageCRLSign
			c.SubjectKeyId = []byte(name)
			if change != nil {
				change(c)
			}
		}, issuer)
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return der, c
	}
	rootDER, root := ca("root", nil, nil)
	plantDER, plant := ca("plant", root, nil)
	oldDER, old := ca("old", nil, func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, -1, 0) })
	leaf, oldLeaf := certificate(t, nil, plant), certificate(t, nil, old)
	serial := func(der []byte) *big.Int {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c.SerialNumber
	}
	list := func(issuer *x509.Certificate, serials ...*big.Int) []byte {
		l := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: now.AddDate(0, -1, 0), NextUpdate: now.AddDate(0, 1, 0)}
		for _, n := range serials {
			l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: n, RevocationTime: now.AddDate(0, -1, 0)})
		}
		der, err := x509.CreateRevocationList(rand.Reader, l, issuer, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	for _, tt := range []struct {
		name  string
		shown []byte
		files map[string][]byte
		code  string
		vouch string
		says  string
	}{
		{"root trusted, the one between shown", append(append([]byte{}, leaf...), plantDER...), map[string][]byte{"trusted/root.der": rootDER}, "", "root", ""},
		{"root trusted, the one between kept", leaf, map[string][]byte{"trusted/root.der": rootDER, "issuers/plant.der": plantDER}, "", "root", ""},
		{"root trusted, the one between missing", leaf, map[string][]byte{"trusted/root.der": rootDER}, "certificate_unknown", "", `authority "plant"`},
		{"an issuer alone is not trusted", leaf, map[string][]byte{"issuers/plant.der": plantDER, "issuers/root.der": rootDER}, "certificate_unknown", "", ""},
		{"the one between trusted", leaf, map[string][]byte{"trusted/plant.der": plantDER, "trusted/notes.txt": []byte("hello")}, "", "plant", ""},
		{"not revoked", leaf, map[string][]byte{"trusted/plant.der": plantDER, "trusted/plant.crl": list(plant, big.NewInt(7))}, "", "plant", ""},
		{"revoked", leaf, map[string][]byte{"trusted/plant.der": plantDER, "issuers/plant.crl": list(plant, serial(leaf))}, "certificate_revoked", "", "plant"},
		{"a list of somebody else's", leaf, map[string][]byte{"trusted/plant.der": plantDER, "trusted/root.crl": list(root, serial(leaf))}, "", "plant", ""},
		{"the one between revoked", leaf, map[string][]byte{"trusted/root.der": rootDER, "issuers/plant.der": plantDER, "issuers/root.crl": list(root, serial(plantDER))}, "certificate_revoked", "", "root"},
		{"the authority expired", oldLeaf, map[string][]byte{"trusted/old.der": oldDER}, "issuer_expired", "", "old"},
		{"a revoked one that a person trusts", leaf, map[string][]byte{"trusted/leaf.der": leaf, "trusted/plant.crl": list(plant, serial(leaf))}, "", "", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := store{t.TempDir()}
			for name, content := range tt.files {
				path := filepath.Join(s.dir, name)
				if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
					t.Fatal(err)
				}
				realparts.WriteFile(t, path, string(content))
			}
			found, err := s.check("press", tt.shown, "urn:press", "press.plant", func(string) bool { return false }, now)
			var d *distrust
			code := ""
			if errors.As(err, &d) {
				code = d.code
				if !strings.Contains(d.reason+d.nextStep, tt.says) {
					t.Errorf("it says %q, %q: %q is missing", d.reason, d.nextStep, tt.says)
				}
			}
			vouch := ""
			if found.authority != nil {
				vouch = found.authority.Subject.CommonName
			}
			if code != tt.code || vouch != tt.vouch {
				t.Errorf("refused with %q, vouched for by %q; want %q, %q (%v)", code, vouch, tt.code, tt.vouch, err)
			}
		})
	}
}

func TestAnEndThatIsNearAndAShortKeyAreSaid(t *testing.T) {
	s := store{t.TempDir()}
	leaf := certificate(t, func(c *x509.Certificate) { c.NotAfter = now.AddDate(0, 0, 20) }, nil)
	if err := os.MkdirAll(s.trusted(), 0o755); err != nil {
		t.Fatal(err)
	}
	realparts.WriteFile(t, filepath.Join(s.trusted(), "press.der"), string(leaf))
	found, err := s.check("press", leaf, "urn:press", "press.plant", func(string) bool { return false }, now)
	if err != nil || len(found.warnings) != 1 || !strings.Contains(found.warnings[0], "2026-05-21") {
		t.Errorf("warnings %q, %v", found.warnings, err)
	}
}
