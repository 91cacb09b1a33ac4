package opcua

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

const (
	keyBits     = 2048
	validFor    = 10 * 365 * 24 * time.Hour
	maxRejected = 50
	// warnBefore is how long before its end the agent's own certificate becomes a problem on the page.
	warnBefore = 60 * 24 * time.Hour
)

// identity is a certificate with its key.
type identity struct {
	der  []byte
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

// loadOwn reads the agent's certificate from dir/own, and creates it at the first start or when the application URI is
// another one than it was: the old pair is kept beside. created tells that the server has to trust a new one.
func loadOwn(dir, uri string) (own identity, created bool, err error) {
	certFile, keyFile := ownFiles(dir)
	own, err = loadIdentity(certFile, keyFile)
	switch {
	case err == nil && uriOf(own.cert) == uri:
		return own, false, nil
	case err == nil:
		if err := setAside(certFile, keyFile, fingerprint(own.der)[:12]); err != nil {
			return own, false, err
		}
	case !errors.Is(err, os.ErrNotExist):
		return own, false, fmt.Errorf("read the agent's certificate: %w", err)
	}
	own, err = createOwn(dir, uri)
	return own, true, err
}

func ownFiles(dir string) (cert, key string) {
	return filepath.Join(dir, "own", "cert.der"), filepath.Join(dir, "own", "key.pem")
}

func setAside(certFile, keyFile, mark string) error {
	for _, f := range []string{certFile, keyFile} {
		if err := os.Rename(f, f+".until-"+mark); err != nil {
			return fmt.Errorf("set the agent's old certificate aside: %w", err)
		}
	}
	return nil
}

func createOwn(dir, uri string) (identity, error) {
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
	certFile, keyFile := ownFiles(dir)
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
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "Linekeeper agent", Organization: []string{"Linekeeper"}},
		NotBefore:    now.AddDate(-1, 0, 0), NotAfter: now.Add(validFor),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment |
			x509.KeyUsageDataEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{u},
		DNSNames:              []string{host},
		BasicConstraintsValid: true,
	}, nil
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

// loadIdentity reads a certificate and its key, each DER or PEM, the key PKCS#1 or PKCS#8.
func loadIdentity(certFile, keyFile string) (identity, error) {
	der, err := readDER(certFile)
	if err != nil {
		return identity{}, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return identity{}, fmt.Errorf("parse certificate %q: %w", certFile, err)
	}
	keyDER, err := readDER(keyFile)
	if err != nil {
		return identity{}, err
	}
	key, err := parseKey(keyDER)
	if err != nil {
		return identity{}, fmt.Errorf("parse key %q: %w", keyFile, err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return identity{}, fmt.Errorf("key %q does not belong to certificate %q", keyFile, certFile)
	}
	return identity{der: der, cert: cert, key: key}, nil
}

func readDER(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if block, _ := pem.Decode(b); block != nil {
		return block.Bytes, nil
	}
	return b, nil
}

func parseKey(der []byte) (*rsa.PrivateKey, error) {
	if key, err := x509.ParsePKCS1PrivateKey(der); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	r, ok := key.(*rsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("it is a %T: OPC UA needs an RSA key", key)
	}
	return r, nil
}

func uriOf(c *x509.Certificate) string {
	if len(c.URIs) == 0 {
		return ""
	}
	return c.URIs[0].String()
}

func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// distrust is why a server's certificate is refused.
type distrust struct {
	code        string
	fingerprint string
	reason      string
	nextStep    string
}

func (d *distrust) Error() string { return d.reason }

// store is the trust in servers' certificates: one folder for each source.
type store struct{ dir string }

func (s store) trusted() string  { return filepath.Join(s.dir, "trusted") }
func (s store) rejected() string { return filepath.Join(s.dir, "rejected") }

// check decides about a server's certificate before anything is sent to the server but a question for its endpoints.
// warning is a fault that is no reason to refuse.
func (s store) check(source string, chain []byte, uri, host string, tolerates func(string) bool, now time.Time) (warning string, err error) {
	certs, err := x509.ParseCertificates(chain)
	if err != nil || len(certs) == 0 {
		return "", &distrust{code: "certificate_unreadable", reason: fmt.Sprintf("the server's certificate cannot be read: %v", err),
			nextStep: "give the server a valid X.509 certificate with an RSA key"}
	}
	leaf := certs[0]
	if _, ok := leaf.PublicKey.(*rsa.PublicKey); !ok {
		return "", &distrust{code: "certificate_unreadable", fingerprint: fingerprint(leaf.Raw),
			reason:   fmt.Sprintf("the server's certificate has a %s key", leaf.PublicKeyAlgorithm),
			nextStep: "give the server a certificate with an RSA key of 2048 bits or more"}
	}
	pinned, byIssuer := s.find(certs, now)
	if !pinned && !byIssuer {
		return "", s.reject(source, leaf)
	}
	if err := checkValidity(leaf, uri, tolerates, now); err != nil {
		return "", err
	}
	return checkHost(leaf, host, pinned)
}

func checkValidity(leaf *x509.Certificate, uri string, tolerates func(string) bool, now time.Time) error {
	print := fingerprint(leaf.Raw)
	if (now.After(leaf.NotAfter) || now.Before(leaf.NotBefore)) && !tolerates("expired") {
		return &distrust{code: "certificate_expired", fingerprint: print,
			reason: fmt.Sprintf("the server's certificate is valid from %s to %s only, and it is %s here",
				leaf.NotBefore.Format(time.DateOnly), leaf.NotAfter.Format(time.DateOnly), now.Format(time.DateOnly)),
			nextStep: "renew the certificate in the server, check this computer's clock, or write `tolerate: [expired]`"}
	}
	if uri != "" && uriOf(leaf) != uri && !tolerates("application_uri") {
		return &distrust{code: "certificate_wrong_uri", fingerprint: print,
			reason: fmt.Sprintf("the server calls itself %q, its certificate says %q", uri, uriOf(leaf)),
			nextStep: "make sure that it is the right server, let it create a new certificate, or write " +
				"`tolerate: [application_uri]`"}
	}
	return nil
}

// checkHost compares the address with the certificate. Where a person trusted this very certificate, another name is no
// danger: servers are reached through gateways and by addresses that their makers did not know. Where only its issuer is
// trusted, the name is all that tells one server from another.
func checkHost(leaf *x509.Certificate, host string, pinned bool) (string, error) {
	if leaf.VerifyHostname(host) == nil {
		return "", nil
	}
	names := append([]string{}, leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		names = append(names, ip.String())
	}
	reason := fmt.Sprintf("the server's certificate is for %s, not for %q", strings.Join(names, ", "), host)
	if ip := net.ParseIP(host); pinned || ip != nil && ip.IsLoopback() {
		return reason, nil
	}
	return "", &distrust{code: "certificate_wrong_host", fingerprint: fingerprint(leaf.Raw), reason: reason,
		nextStep: "use an address from the certificate, or put the server's own certificate into trusted/"}
}

// find reports whether the leaf itself is in the trusted folder, or signed by an authority that is.
func (s store) find(certs []*x509.Certificate, now time.Time) (pinned, byIssuer bool) {
	leaf := certs[0]
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	files, err := os.ReadDir(s.trusted())
	if err != nil {
		return false, false
	}
	for _, f := range files {
		der, err := readDER(filepath.Join(s.trusted(), f.Name()))
		if err != nil {
			continue
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			continue
		}
		if c.Equal(leaf) {
			return true, false
		}
		if c.IsCA {
			roots.AddCert(c)
		}
	}
	for _, c := range certs[1:] {
		middle.AddCert(c)
	}
	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		now = leaf.NotBefore.Add(time.Second) // the leaf's own validity is judged apart, with its own reason
	}
	_, err = leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}})
	return false, err == nil
}

// reject keeps an unknown certificate for a person to decide about.
func (s store) reject(source string, leaf *x509.Certificate) error {
	print := fingerprint(leaf.Raw)
	d := &distrust{code: "certificate_unknown", fingerprint: print,
		reason: fmt.Sprintf("the server's certificate %q with the fingerprint %s is not trusted yet", leaf.Subject.CommonName, print),
		nextStep: fmt.Sprintf("compare the fingerprint with the one the server shows, then run: plantagent trust %s %s",
			source, print)}
	if err := os.MkdirAll(s.rejected(), 0o755); err != nil {
		return fmt.Errorf("keep an unknown certificate: %w", err)
	}
	path := filepath.Join(s.rejected(), print+".der")
	if _, err := os.Stat(path); err == nil {
		return d
	}
	s.prune()
	if err := writeFile(path, leaf.Raw, 0o644); err != nil {
		return fmt.Errorf("keep an unknown certificate: %w", err)
	}
	return d
}

// prune makes room for one more: a server that shows a new certificate each time must not fill the disk.
func (s store) prune() {
	list, err := ListRejected(s.dir)
	if err != nil {
		return
	}
	for i := maxRejected - 1; i < len(list); i++ {
		os.Remove(filepath.Join(s.rejected(), list[i].Fingerprint+".der"))
	}
}

// Rejected is a server's certificate that waits for a person's decision.
type Rejected struct {
	// Fingerprint is the SHA-256 of the certificate, 64 hexadecimal digits.
	Fingerprint    string
	Subject        string
	ApplicationURI string
	Hosts          []string
	NotBefore      time.Time
	NotAfter       time.Time
	// Seen is when the agent met it first.
	Seen time.Time
}

// ListRejected returns the certificates in a source's folder that were refused because nobody trusts them, newest first.
func ListRejected(dir string) ([]Rejected, error) {
	folder := store{dir}.rejected()
	files, err := os.ReadDir(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list refused certificates: %w", err)
	}
	var list []Rejected
	for _, f := range files {
		if r, err := readRejected(filepath.Join(folder, f.Name())); err == nil {
			list = append(list, r)
		}
	}
	sort.SliceStable(list, func(i, j int) bool { return list[i].Seen.After(list[j].Seen) })
	return list, nil
}

func readRejected(path string) (Rejected, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Rejected{}, err
	}
	der, err := readDER(path)
	if err != nil {
		return Rejected{}, err
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		return Rejected{}, err
	}
	r := Rejected{Fingerprint: fingerprint(der), Subject: c.Subject.String(), ApplicationURI: uriOf(c), Hosts: c.DNSNames,
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Seen: info.ModTime()}
	for _, ip := range c.IPAddresses {
		r.Hosts = append(r.Hosts, ip.String())
	}
	return r, nil
}

// Trust moves the refused certificate with this fingerprint to the trusted ones: the source connects within seconds,
// without a restart. The fingerprint may be written with colons or spaces and may be cut to its first 8 digits or more
// where that names only one.
func Trust(dir, print string) error {
	want := strings.ToLower(strings.NewReplacer(":", "", " ", "", "-", "").Replace(print))
	if len(want) < 8 {
		return fmt.Errorf("fingerprint %q is too short: give at least 8 digits", print)
	}
	list, err := ListRejected(dir)
	if err != nil {
		return err
	}
	var found []string
	for _, r := range list {
		if strings.HasPrefix(r.Fingerprint, want) {
			found = append(found, r.Fingerprint)
		}
	}
	switch len(found) {
	case 0:
		return fmt.Errorf("no refused certificate has the fingerprint %q: the source's problem on the agent's page names it", print)
	case 1:
	default:
		return fmt.Errorf("fingerprint %q fits %d refused certificates: give more digits", print, len(found))
	}
	s := store{dir}
	if err := os.MkdirAll(s.trusted(), 0o755); err != nil {
		return fmt.Errorf("trust certificate %s: %w", found[0], err)
	}
	if err := os.Rename(filepath.Join(s.rejected(), found[0]+".der"), filepath.Join(s.trusted(), found[0]+".der")); err != nil {
		return fmt.Errorf("trust certificate %s: %w", found[0], err)
	}
	return nil
}
