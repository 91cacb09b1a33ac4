// Package fleet owns who belongs to the hub: its certificate authority and the certificates of the hub and its agents.
//
// It promises that a private key is written readable by its owner only, that an existing authority is never overwritten,
// and that an agent's certificate names exactly one plant and agent. It never talks to the network.
package fleet

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"time"
)

// Lifetimes of what is issued here.
const (
	CALifetime   = 10 * 365 * 24 * time.Hour
	LeafLifetime = 2 * 365 * 24 * time.Hour
)

// Authority is a certificate authority kept in a folder: ca.pem and ca.key.
type Authority struct {
	dir  string
	cert *x509.Certificate
	key  crypto.Signer
	now  func() time.Time
}

// CreateAuthority makes a new authority in dir. It refuses a folder that has one.
func CreateAuthority(dir string, now func() time.Time) (*Authority, error) {
	if _, err := os.Stat(filepath.Join(dir, "ca.key")); !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("create authority: folder %q has one already; every certificate issued by it would become worthless", dir)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	t := template("Linekeeper CA", now(), CALifetime)
	t.IsCA, t.BasicConstraintsValid, t.MaxPathLenZero = true, true, true
	t.KeyUsage = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("create authority: %w", err)
	}
	if err := write(dir, "ca", der, key); err != nil {
		return nil, err
	}
	return OpenAuthority(dir, now)
}

// OpenAuthority reads the authority in dir.
func OpenAuthority(dir string, now func() time.Time) (*Authority, error) {
	rawCert, err := os.ReadFile(filepath.Join(dir, "ca.pem"))
	if err != nil {
		return nil, fmt.Errorf("open authority: %w (make one with `synchub cert init`)", err)
	}
	rawKey, err := os.ReadFile(filepath.Join(dir, "ca.key"))
	if err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	certBlock, _ := pem.Decode(rawCert)
	keyBlock, _ := pem.Decode(rawKey)
	if certBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("open authority: %q holds no PEM certificate and key", dir)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("open authority: read ca.pem: %w", err)
	}
	key, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("open authority: read ca.key: %w", err)
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("open authority: ca.key cannot sign")
	}
	return &Authority{dir: dir, cert: cert, key: signer, now: now}, nil
}

// IssueHub writes hub.pem and hub.key for a hub that is reached under the given host names and addresses.
func (a *Authority) IssueHub(out string, hosts []string) error {
	if len(hosts) == 0 {
		return errors.New("issue hub certificate: no host name given: agents would refuse the hub")
	}
	t := template(hosts[0], a.now(), LeafLifetime)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	for _, h := range hosts {
		if ip := net.ParseIP(h); ip != nil {
			t.IPAddresses = append(t.IPAddresses, ip)
		} else {
			t.DNSNames = append(t.DNSNames, h)
		}
	}
	return a.issue(t, out, "hub")
}

var name = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// AgentURI is the identity in an agent's certificate.
func AgentURI(plant, agent string) *url.URL {
	return &url.URL{Scheme: "linekeeper", Host: plant, Path: "/" + agent}
}

// IssueAgent writes agent.pem, agent.key and a copy of ca.pem for one agent of one plant.
func (a *Authority) IssueAgent(out, plant, agent string) error {
	for _, n := range []string{plant, agent} {
		if !name.MatchString(n) {
			return fmt.Errorf("issue agent certificate: name %q has characters other than letters, digits, '.', '_' and '-'", n)
		}
	}
	t := template(plant+"/"+agent, a.now(), LeafLifetime)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	t.URIs = []*url.URL{AgentURI(plant, agent)}
	if err := a.issue(t, out, "agent"); err != nil {
		return err
	}
	return writeFile(filepath.Join(out, "ca.pem"), "CERTIFICATE", a.cert.Raw, 0o644)
}

func (a *Authority) issue(t *x509.Certificate, out, file string) error {
	if err := os.MkdirAll(out, 0o700); err != nil {
		return fmt.Errorf("issue certificate: %w", err)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("issue certificate: %w", err)
	}
	t.KeyUsage = x509.KeyUsageDigitalSignature
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, key.Public(), a.key)
	if err != nil {
		return fmt.Errorf("issue certificate: %w", err)
	}
	return write(out, file, der, key)
}

func template(cn string, now time.Time, life time.Duration) *x509.Certificate {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		panic("no random numbers: " + err.Error())
	}
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: cn, Organization: []string{"Linekeeper"}},
		// An agent's clock may be a little behind the hub's.
		NotBefore: now.Add(-time.Hour),
		NotAfter:  now.Add(life),
	}
}

func write(dir, file string, der []byte, key crypto.Signer) error {
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("write key: %w", err)
	}
	if err := writeFile(filepath.Join(dir, file+".key"), "PRIVATE KEY", raw, 0o600); err != nil {
		return err
	}
	return writeFile(filepath.Join(dir, file+".pem"), "CERTIFICATE", der, 0o644)
}

func writeFile(path, kind string, der []byte, mode fs.FileMode) error {
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), mode); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return nil
}
