package opcua

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"
)

const (
	keyBits  = 2048
	validFor = 10 * 365 * 24 * time.Hour
	// renewBefore is how long before the end of the agent's certificate its successor is made, and the page asks for trust in
	// it: long enough for the next planned stop of the line.
	renewBefore = 90 * 24 * time.Hour
)

// loadOwn reads the agent's certificate from dir/own. It makes one at the first start, when the application URI is another one
// than it was, and when it has expired without a successor: the old pair is kept beside. An expired one gives way to its
// successor. created tells that the server has to trust a certificate which it may not know.
func loadOwn(dir, uri string, now time.Time) (own identity, created bool, err error) {
	certFile, keyFile := ownFiles(dir)
	if err := finishPromotion(dir); err != nil {
		return own, false, err
	}
	own, err = loadIdentity(certFile, keyFile)
	switch {
	case err == nil && uriOf(own.cert) == uri && now.Before(own.cert.NotAfter):
		return own, false, nil
	case err == nil && uriOf(own.cert) == uri:
		if next, err := loadIdentity(nextFiles(dir)); err == nil && uriOf(next.cert) == uri && now.Before(next.cert.NotAfter) {
			return next, true, promote(dir)
		}
	case err == nil:
	case !errors.Is(err, os.ErrNotExist):
		return own, false, fmt.Errorf("read the agent's certificate: %w", err)
	}
	if err == nil {
		if err := setAside(dir); err != nil {
			return own, false, err
		}
	}
	own, err = createOwn(dir, uri)
	return own, true, err
}

// ownFiles are the certificate that the agent shows, and its key.
func ownFiles(dir string) (cert, key string) {
	return filepath.Join(dir, "own", "cert.der"), filepath.Join(dir, "own", "key.pem")
}

// nextFiles are the successor, which waits until the server trusts it.
func nextFiles(dir string) (cert, key string) {
	return filepath.Join(dir, "own", "next", "cert.der"), filepath.Join(dir, "own", "next", "key.pem")
}

// setAside moves the pair away, the certificate first: without one the folder counts as empty.
func setAside(dir string) error {
	certFile, keyFile := ownFiles(dir)
	mark := ".until-" + time.Now().UTC().Format("20060102")
	if der, err := readDER(certFile); err == nil {
		mark = ".until-" + fingerprint(der)[:12]
	}
	for _, f := range []string{certFile, keyFile} {
		if err := os.Rename(f, f+mark); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("set the agent's old certificate aside: %w", err)
		}
	}
	return nil
}

// promote puts the successor in the place of the certificate, which is kept beside.
func promote(dir string) error {
	if err := setAside(dir); err != nil {
		return err
	}
	return finishPromotion(dir)
}

// finishPromotion also ends a promotion that a crash cut off: the key moves first, so a certificate that still waits says that
// there is something to do, unless the present one is in its place.
func finishPromotion(dir string) error {
	certFile, keyFile := ownFiles(dir)
	nextCert, nextKey := nextFiles(dir)
	if exists(certFile) || !exists(nextCert) {
		return nil
	}
	if exists(nextKey) {
		if err := os.Rename(nextKey, keyFile); err != nil {
			return fmt.Errorf("take the agent's new certificate: %w", err)
		}
	}
	if err := os.Rename(nextCert, certFile); err != nil {
		return fmt.Errorf("take the agent's new certificate: %w", err)
	}
	os.Remove(filepath.Dir(nextCert)) // it is in nobody's way if something else lies there
	return nil
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// successor returns the certificate that will follow own, making it where there is none yet.
func successor(dir, uri string, now time.Time) (identity, error) {
	next, err := loadIdentity(nextFiles(dir))
	if err == nil && uriOf(next.cert) == uri && now.Add(renewBefore).Before(next.cert.NotAfter) {
		return next, nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return next, fmt.Errorf("read the agent's next certificate: %w", err)
	}
	certFile, keyFile := nextFiles(dir)
	return create(certFile, keyFile, uri)
}

// createOwn makes the pair. Two programs that do so at the same time, the agent and its doctor, end with one pair: the first
// one's folder stays.
func createOwn(dir, uri string) (identity, error) {
	certFile, keyFile := ownFiles(dir)
	if exists(certFile) {
		return loadIdentity(certFile, keyFile)
	}
	if exists(filepath.Dir(certFile)) {
		return create(certFile, keyFile, uri)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return identity{}, fmt.Errorf("create the agent's certificate folder: %w", err)
	}
	temp, err := os.MkdirTemp(dir, "own.new-")
	if err != nil {
		return identity{}, fmt.Errorf("create the agent's certificate folder: %w", err)
	}
	defer os.RemoveAll(temp)
	if _, err := create(filepath.Join(temp, filepath.Base(certFile)), filepath.Join(temp, filepath.Base(keyFile)), uri); err != nil {
		return identity{}, err
	}
	if err := os.Rename(temp, filepath.Dir(certFile)); err != nil && !errors.Is(err, fs.ErrExist) && !exists(certFile) {
		return identity{}, fmt.Errorf("keep the agent's certificate: %w", err)
	}
	return loadIdentity(certFile, keyFile)
}

func create(certFile, keyFile, uri string) (identity, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return identity{}, fmt.Errorf("create the agent's key: %w", err)
	}
	template, err := certificateTemplate(uri)
	if err != nil {
		return identity{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return identity{}, fmt.Errorf("create the agent's certificate: %w", err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return identity{}, fmt.Errorf("encode the agent's key: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(certFile), 0o700); err != nil {
		return identity{}, fmt.Errorf("create the agent's certificate folder: %w", err)
	}
	// The key first: a certificate without its key would be read as a whole pair.
	if err := writeFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600); err != nil {
		return identity{}, err
	}
	if err := writeFile(certFile, der, 0o644); err != nil {
		return identity{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return identity{der: der, cert: cert, key: key}, err
}

// certificateTemplate has what OPC 10000-6 asks of an application's certificate. It begins in the past because the clocks
// of machines do.
func certificateTemplate(uri string) (*x509.Certificate, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return nil, fmt.Errorf("parse application URI %q: %w", uri, err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, fmt.Errorf("create a serial number: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: commonName(uri), Organization: []string{"Linekeeper"}},
		NotBefore:    now.AddDate(-1, 0, 0), NotAfter: now.Add(validFor),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment |
			x509.KeyUsageDataEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{u},
		DNSNames:              []string{hostName()},
		BasicConstraintsValid: true,
	}, nil
}

// commonName is what the server's list of certificates shows: the agent's name, the last part of its URI.
func commonName(uri string) string {
	name := uri[strings.LastIndexAny(uri, ":/")+1:]
	if plain, err := url.PathUnescape(name); err == nil {
		name = plain
	}
	text := strings.TrimSpace("Linekeeper agent " + name)
	if runes := []rune(text); len(runes) > 64 { // the field ends there
		return string(runes[:64])
	}
	return text
}

// hostName is this computer's name as a certificate can carry it.
func hostName() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return "localhost"
	}
	for _, c := range host {
		if c > 126 || c <= ' ' {
			return "localhost" // Windows lets people write an umlaut into it; a certificate does not
		}
	}
	return host
}

// writeFile replaces a file in one step.
func writeFile(path string, content []byte, mode os.FileMode) error {
	if err := os.WriteFile(path+".new", content, mode); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		return fmt.Errorf("write %q: %w", path, err)
	}
	return nil
}

// OwnCertificate is the certificate that the agent shows to one server.
type OwnCertificate struct {
	// File is where it lies, PEM what it is, for the server's list of trusted clients.
	File, PEM string
	Subject   string
	// ApplicationURI and Hosts are whom it is for.
	ApplicationURI string
	Hosts          []string
	// Fingerprint is its SHA-256, Thumbprint its SHA-1, in hexadecimal digits.
	Fingerprint string
	Thumbprint  string
	NotBefore   time.Time
	NotAfter    time.Time
	// Next says that it is the successor, which the agent uses once the server accepts it.
	Next bool
}

// Own returns the certificate in a source's folder, and its successor where there is one. Before the first start there is none:
// the error wraps os.ErrNotExist.
func Own(dir string) ([]OwnCertificate, error) {
	var list []OwnCertificate
	for _, next := range []bool{false, true} {
		file, _ := ownFiles(dir)
		if next {
			file, _ = nextFiles(dir)
		}
		der, err := readDER(file)
		if next && errors.Is(err, os.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read the agent's certificate: %w", err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read the agent's certificate %q: %w", file, err)
		}
		list = append(list, OwnCertificate{File: file, PEM: string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
			Subject: subject(c), ApplicationURI: uriOf(c), Hosts: names(c), Fingerprint: fingerprint(der), Thumbprint: thumbprint(der),
			NotBefore: c.NotBefore, NotAfter: c.NotAfter, Next: next})
	}
	return list, nil
}
