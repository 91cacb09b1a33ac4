package rest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// certificates writes an authority and a certificate of it, for both sides, into the plant's folder under names that begin so.
func (p *plant) certificates(name string) {
	p.t.Helper()
	write := func(file, kind string, der []byte) {
		p.file(file, string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})))
	}
	key := func() *ecdsa.PrivateKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			p.t.Fatal(err)
		}
		return k
	}
	caKey, leafKey := key(), key()
	ca := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	leaf := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: name + " leaf"}, NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{{127, 0, 0, 1}},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}}
	for _, c := range []struct {
		file     string
		template *x509.Certificate
		public   any
	}{{name + "-ca.pem", ca, caKey.Public()}, {name + ".pem", leaf, leafKey.Public()}} {
		der, err := x509.CreateCertificate(rand.Reader, c.template, ca, c.public, caKey)
		if err != nil {
			p.t.Fatal(err)
		}
		write(c.file, "CERTIFICATE", der)
	}
	der, err := x509.MarshalPKCS8PrivateKey(leafKey)
	if err != nil {
		p.t.Fatal(err)
	}
	write(name+".key", "PRIVATE KEY", der)
}

// mutual is a server's configuration that wants to see a certificate of the same authority.
func (p *plant) mutual(name string) *tls.Config {
	p.t.Helper()
	at := func(file string) string { return filepath.Join(p.dir, file) }
	c, err := (&ServerTLS{at(name + ".pem"), at(name + ".key"), at(name + "-ca.pem")}).config()
	if err != nil {
		p.t.Fatal(err)
	}
	return c
}

func TestTheMESSeesOurCertificate(t *testing.T) {
	p := newPlant(t)
	p.certificates("good")
	p.certificates("bad")
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	answer := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `[{"n": 1, "id": 1}]`) }
	server := &httptest.Server{Listener: tls.NewListener(l, p.mutual("good")), Config: &http.Server{Handler: http.HandlerFunc(answer)}}
	server.Start()
	defer server.Close()
	section := func(cert string) string {
		return fmt.Sprintf("base: %s\ntls: {ca_file: good-ca.pem, cert_file: %s.pem, key_file: %[2]s.key}\nqueries: [{tag: q, url: /x, key: [id], poll: 10ms}]\n", strings.Replace(server.URL, "http:", "https:", 1), cert)
	}
	stop := p.start(section("bad"))
	p.await("a problem", func() bool { return p.problems["query:q"] != nil })
	stop()
	p.start(section("good"))
	p.awaitCount(1)
}

func TestWebhooksCanAskForACertificate(t *testing.T) {
	h := newHooks(t)
	h.certificates("good")
	h.certificates("bad")
	h.start(strings.Replace(h.section(), "  hooks:", "  tls: {cert_file: good.pem, key_file: good.key, client_ca_file: good-ca.pem}\n  hooks:", 1))
	h.listening(t)
	post := func(name string) (int, error) {
		c := &tls.Config{RootCAs: h.mutual("good").ClientCAs}
		if name != "" {
			pair, err := tls.LoadX509KeyPair(filepath.Join(h.dir, name+".pem"), filepath.Join(h.dir, name+".key"))
			if err != nil {
				t.Fatal(err)
			}
			c.Certificates = []tls.Certificate{pair}
		}
		client := http.Client{Transport: &http.Transport{TLSClientConfig: c, DisableKeepAlives: true}, Timeout: patience}
		req, err := http.NewRequest(http.MethodPost, fmt.Sprintf("https://127.0.0.1:%d/tok", h.port), strings.NewReader(`{"n": 1}`))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer old secret")
		res, err := client.Do(req)
		if err != nil {
			return 0, err
		}
		res.Body.Close()
		return res.StatusCode, nil
	}
	realparts.Eventually(t, patience, "the right certificate", func() error {
		if code, err := post("good"); code != http.StatusOK {
			return fmt.Errorf("answer %d, %v", code, err)
		}
		return nil
	})
	for _, name := range []string{"", "bad"} {
		if code, err := post(name); err == nil {
			t.Errorf("certificate %q is answered with %d", name, code)
		}
	}
	h.awaitCount(1)
}
