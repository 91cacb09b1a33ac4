package drill

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// makeCerts writes an authority, a receiver's and an agent's certificate into dir. They live for a day and are trusted by
// nobody but the drill.
func makeCerts(dir, plant, agent string, now time.Time) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make certificates for the drill: %w", err)
	}
	m := maker{dir: dir, now: now}
	m.authority()
	m.leaf("hub", &x509.Certificate{IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}})
	m.leaf("agent", &x509.Certificate{URIs: []*url.URL{{Scheme: "linekeeper", Host: plant, Path: "/" + agent}}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	if m.err != nil {
		return fmt.Errorf("make certificates for the drill: %w", m.err)
	}
	return nil
}

// maker keeps the first error.
type maker struct {
	dir   string
	now   time.Time
	err   error
	ca    *x509.Certificate
	caKey *ecdsa.PrivateKey
}

func (m *maker) authority() {
	m.ca = m.template("Linekeeper drill")
	m.ca.IsCA, m.ca.BasicConstraintsValid, m.ca.KeyUsage = true, true, x509.KeyUsageCertSign
	if m.caKey, m.err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); m.err == nil {
		m.sign("ca", m.ca, &m.caKey.PublicKey)
	}
}

func (m *maker) leaf(name string, t *x509.Certificate) {
	if m.err != nil {
		return
	}
	base := m.template(name)
	t.SerialNumber, t.Subject, t.NotBefore, t.NotAfter, t.KeyUsage = base.SerialNumber, base.Subject, base.NotBefore, base.NotAfter, x509.KeyUsageDigitalSignature
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		m.err = err
		return
	}
	m.sign(name, t, &key.PublicKey)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		m.err = err
		return
	}
	m.write(name+".key", "PRIVATE KEY", der)
}

func (m *maker) template(name string) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		m.err = err
	}
	return &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: m.now.Add(-time.Hour), NotAfter: m.now.Add(24 * time.Hour)}
}

func (m *maker) sign(name string, t *x509.Certificate, pub *ecdsa.PublicKey) {
	der, err := x509.CreateCertificate(rand.Reader, t, m.ca, pub, m.caKey)
	if err != nil {
		m.err = err
		return
	}
	m.write(name+".pem", "CERTIFICATE", der)
}

func (m *maker) write(name, kind string, der []byte) {
	if m.err == nil {
		m.err = os.WriteFile(filepath.Join(m.dir, name), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600)
	}
}
