package bundle

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func make3(t testing.TB, sign *tls.Certificate) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, Header{Kind: Facts, Plant: "ulm", Agent: "hall1", Generation: "g", Number: 7, MadeAt: now, First: 5, Last: 300})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{5, 6, 300} {
		if err := w.Add(n, bytes.Repeat([]byte{byte(n)}, int(n))); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Add(300, nil); err == nil {
		t.Fatal("a number was given twice")
	}
	sum, err := w.Close(sign)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := Open(bytes.NewReader(out.Bytes()), int64(out.Len())); err != nil || b.SHA256 != sum {
		t.Fatalf("%+v, %v; want the sum %s", b, err, sum)
	}
	return out.Bytes()
}

func TestRecordsComeBackInOrder(t *testing.T) {
	text := make3(t, nil)
	b, err := Open(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	if b.Plant != "ulm" || b.Number != 7 || !b.MadeAt.Equal(now) || b.Records != 3 {
		t.Errorf("bundle %+v", b)
	}
	for range 2 {
		var got []string
		err := b.Each(func(n uint64, body []byte) error {
			got = append(got, fmt.Sprintf("%d:%d:%x", n, len(body), body[:1]))
			return nil
		})
		if want := []string{"5:5:05", "6:6:06", "300:300:2c"}; err != nil || !slices.Equal(got, want) {
			t.Errorf("records %v, %v", got, err)
		}
	}
}

func TestBundleThatWasCutOffOrChangedIsRefused(t *testing.T) {
	text := make3(t, nil)
	for cut := range text {
		if _, err := Open(bytes.NewReader(text[:cut]), int64(cut)); !errors.Is(err, ErrBroken) && !errors.Is(err, ErrNotABundle) {
			t.Fatalf("cut to %d of %d bytes: %v", cut, len(text), err)
		}
	}
	for at := range text {
		changed := slices.Clone(text)
		changed[at] ^= 1
		if _, err := Open(bytes.NewReader(changed), int64(len(changed))); err == nil {
			t.Fatalf("a bit of byte %d was changed: %q", at, text[max(0, at-5):at+1])
		}
	}
	for name, more := range map[string][]byte{"a byte": {0}, "itself": text} {
		joined := append(slices.Clone(text), more...)
		if _, err := Open(bytes.NewReader(joined), int64(len(joined))); !errors.Is(err, ErrBroken) {
			t.Errorf("with %s behind it: %v", name, err)
		}
	}
}

func TestBundleThatChangesWhileItIsReadIsNoticed(t *testing.T) {
	text := make3(t, nil)
	b, err := Open(bytes.NewReader(text), int64(len(text)))
	if err != nil {
		t.Fatal(err)
	}
	text[len(magic)+200+100] ^= 1
	if err := b.Each(func(uint64, []byte) error { return nil }); err == nil {
		t.Error("nothing was noticed")
	}
}

// authority makes certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{key: key, cert: &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.cert, a.cert, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	if a.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) issue(t *testing.T, uri string, use x509.ExtKeyUsage) *tls.Certificate {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: uri}, NotBefore: a.cert.NotBefore, NotAfter: a.cert.NotAfter,
		ExtKeyUsage: []x509.ExtKeyUsage{use},
	}
	if strings.Contains(uri, "://") {
		u, err := url.Parse(uri)
		if err != nil {
			t.Fatal(err)
		}
		c.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, c, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestSignatureTellsWhoMadeIt(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	agent := a.issue(t, "linekeeper://ulm/hall1", x509.ExtKeyUsageClientAuth)
	hub := a.issue(t, "hub", x509.ExtKeyUsageServerAuth)
	for name, c := range map[string]struct {
		sign       *tls.Certificate
		agent, hub error
	}{
		"the agent":                   {agent, nil, ErrForged},
		"the hub":                     {hub, ErrForged, nil},
		"nobody":                      {nil, ErrUnsigned, ErrUnsigned},
		"another agent":               {a.issue(t, "linekeeper://ulm/hall2", x509.ExtKeyUsageClientAuth), ErrForged, ErrForged},
		"an agent of another company": {other.issue(t, "linekeeper://ulm/hall1", x509.ExtKeyUsageClientAuth), ErrForged, ErrForged},
		"another key":                 {&tls.Certificate{Certificate: agent.Certificate, PrivateKey: hub.PrivateKey}, ErrForged, ErrForged},
	} {
		text := make3(t, c.sign)
		b, err := Open(bytes.NewReader(text), int64(len(text)))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.VerifyAgent(a.pool()); !errors.Is(err, c.agent) {
			t.Errorf("signed by %s: as an agent's: %v, want %v", name, err, c.agent)
		}
		if err := b.VerifyHub(a.pool()); !errors.Is(err, c.hub) {
			t.Errorf("signed by %s: as a hub's: %v, want %v", name, err, c.hub)
		}
	}
}

func FuzzOpen(f *testing.F) {
	f.Add(make3(f, nil))
	f.Add([]byte(magic + "{\"kind\":\"facts\"}\n\x00{}\n"))
	f.Add([]byte(magic + "{\"kind\":\"answer\"}\n\x01\xff\xff\xff\x0f"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := Open(bytes.NewReader(text), int64(len(text)))
		if err != nil {
			return
		}
		n, last := uint64(0), uint64(0)
		err = b.Each(func(number uint64, _ []byte) error {
			if number <= last {
				t.Fatalf("%d after %d", number, last)
			}
			n, last = n+1, number
			return nil
		})
		if err != nil || n != b.Records {
			t.Fatalf("%d records of %d, %v", n, b.Records, err)
		}
		_ = b.VerifyAgent(x509.NewCertPool())
	})
}
