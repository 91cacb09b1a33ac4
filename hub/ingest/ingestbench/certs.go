package ingestbench

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"time"
)

// Authority issues short-lived certificates for one run on the loopback address.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

// NewAuthority makes an authority with a fresh key.
func NewAuthority() (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	t := template("authority")
	t.IsCA, t.BasicConstraintsValid, t.KeyUsage = true, true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &Authority{cert, key, pool}, nil
}

func template(name string) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
}

func (a *Authority) issue(t *x509.Certificate) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, t, a.cert, &key.PublicKey, a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

// Server returns the TLS configuration of a hub that demands client certificates of this authority.
func (a *Authority) Server() (*tls.Config, error) {
	t := template("hub")
	t.IPAddresses, t.DNSNames = []net.IP{net.IPv4(127, 0, 0, 1)}, []string{"localhost"}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	c, err := a.issue(t)
	return &tls.Config{Certificates: []tls.Certificate{c}, ClientCAs: a.pool, ClientAuth: tls.RequireAndVerifyClientCert}, err
}

// Agent returns the TLS configuration of an agent with the identity linekeeper://plant/agent.
func (a *Authority) Agent(plant, agent string) (*tls.Config, error) {
	t := template(plant + "/" + agent)
	t.URIs = []*url.URL{{Scheme: "linekeeper", Host: plant, Path: "/" + agent}}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	c, err := a.issue(t)
	return &tls.Config{Certificates: []tls.Certificate{c}, RootCAs: a.pool, ServerName: "localhost"}, err
}

// The files of a hub's certificates in the folder that it is started with.
const (
	hubCertFile = "hub.pem"
	hubKeyFile  = "hub.key"
	caCertFile  = "ca.pem"
)

// writeServer writes what readServer reads.
func (a *Authority) writeServer(dir string) error {
	c, err := a.Server()
	if err != nil {
		return err
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.Certificates[0].PrivateKey)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		hubCertFile: {Type: "CERTIFICATE", Bytes: c.Certificates[0].Certificate[0]},
		hubKeyFile:  {Type: "PRIVATE KEY", Bytes: key},
		caCertFile:  {Type: "CERTIFICATE", Bytes: a.cert.Raw},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}

// readServer is Server from the files of a folder.
func readServer(dir string) (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, hubCertFile), filepath.Join(dir, hubKeyFile))
	if err != nil {
		return nil, err
	}
	raw, err := os.ReadFile(filepath.Join(dir, caCertFile))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(raw)
	return &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}, nil
}
