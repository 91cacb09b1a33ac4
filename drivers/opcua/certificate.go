package opcua

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

const (
	maxRejected = 50
	// warnServer is how long before the end of a server's certificate the page says so.
	warnServer = 30 * 24 * time.Hour
)

// distrust is why the agent refuses a server's certificate.
type distrust struct {
	code        string
	fingerprint string
	reason      string
	nextStep    string
}

func (d *distrust) Error() string { return d.reason }

// store is the trust in servers' certificates: one folder for each source, with
//
//	trusted/  certificates of servers, and of authorities whose servers are all trusted; their lists of revoked certificates
//	issuers/  certificates of authorities that only complete a chain; their lists
//	rejected/ what waits for a person
type store struct{ dir string }

func (s store) trusted() string  { return filepath.Join(s.dir, "trusted") }
func (s store) issuers() string  { return filepath.Join(s.dir, "issuers") }
func (s store) rejected() string { return filepath.Join(s.dir, "rejected") }

// judgement is what the agent found about a server's certificate that it does not refuse.
type judgement struct {
	leaf *x509.Certificate
	// authority vouches for the certificate; nil when a person trusted this very one.
	authority *x509.Certificate
	// warnings are faults that are no reason to refuse: another host name, an end that is near.
	warnings []string
}

// host is the warning about the name, the one that the page shows.
func (j judgement) host() string {
	if len(j.warnings) == 0 {
		return ""
	}
	return j.warnings[0]
}

// check decides about a server's certificate before anything is sent to the server but a question for its endpoints. Its error
// is a *distrust.
func (s store) check(source string, chain []byte, uri, host string, tolerates func(string) bool, now time.Time) (j judgement, err error) {
	certs, err := x509.ParseCertificates(chain)
	if err != nil || len(certs) == 0 {
		return j, &distrust{code: "certificate_unreadable", reason: fmt.Sprintf("the server's certificate cannot be read: %v", err),
			nextStep: "give the server a valid X.509 certificate with an RSA key"}
	}
	j.leaf = certs[0]
	key, ok := j.leaf.PublicKey.(*rsa.PublicKey)
	if !ok {
		return j, &distrust{code: "certificate_unreadable", fingerprint: fingerprint(j.leaf.Raw),
			reason:   fmt.Sprintf("the server's certificate has a key of the kind %s, which this agent cannot use", j.leaf.PublicKeyAlgorithm),
			nextStep: "give the server a certificate with an RSA key of 2048 bits or more"}
	}
	papers := s.read()
	pinned := papers.pinned(j.leaf)
	if !pinned {
		if j.authority, err = papers.vouch(certs, now); err != nil {
			return j, err
		}
		if j.authority == nil {
			return j, s.reject(source, j.leaf)
		}
	}
	if err := checkValidity(j.leaf, uri, tolerates, now); err != nil {
		return j, err
	}
	if j.warnings, err = checkHost(j.leaf, host, pinned); err != nil {
		return j, err
	}
	if left := j.leaf.NotAfter.Sub(now); left > 0 && left < warnServer {
		j.warnings = append(j.warnings, "the server's certificate ends on "+j.leaf.NotAfter.Format(time.DateOnly))
	}
	if key.N.BitLen() < keyBits {
		j.warnings = append(j.warnings, fmt.Sprintf("the server's key has %d bits only", key.N.BitLen()))
	}
	return j, nil
}

func checkValidity(leaf *x509.Certificate, uri string, tolerates func(string) bool, now time.Time) error {
	print := fingerprint(leaf.Raw)
	if !tolerates("expired") {
		switch {
		case now.After(leaf.NotAfter):
			return &distrust{code: "certificate_expired", fingerprint: print,
				reason: fmt.Sprintf("this agent refuses the server's certificate: it ended on %s, and it is %s here",
					leaf.NotAfter.Format(time.DateOnly), now.Format(time.DateOnly)),
				nextStep: "renew the certificate in the server, check this computer's clock, or write `tolerate: [expired]`"}
		case now.Before(leaf.NotBefore):
			return &distrust{code: "certificate_expired", fingerprint: print,
				reason: fmt.Sprintf("this agent refuses the server's certificate: it begins on %s, and it is %s here",
					leaf.NotBefore.Format(time.DateTime), now.Format(time.DateTime)),
				nextStep: "check the clocks of this computer and of the server, or write `tolerate: [expired]`"}
		}
	}
	if uri != "" && uriOf(leaf) != uri && !tolerates("application_uri") {
		return &distrust{code: "certificate_wrong_uri", fingerprint: print,
			reason: fmt.Sprintf("this agent refuses the server's certificate: the server calls itself %q, its certificate says %q",
				uri, uriOf(leaf)),
			nextStep: "make sure that it is the right server, let it create a new certificate, or write " +
				"`tolerate: [application_uri]`"}
	}
	return nil
}

// checkHost compares the address with the certificate. Where a person trusted this very certificate, another name is no
// danger: servers are reached through gateways and by addresses that their makers did not know. Where only its issuer is
// trusted, the name is all that tells one server from another.
func checkHost(leaf *x509.Certificate, host string, pinned bool) ([]string, error) {
	if leaf.VerifyHostname(host) == nil {
		return nil, nil
	}
	reason := fmt.Sprintf("the server's certificate is for %s, not for %q", shown(names(leaf)), host)
	if ip := net.ParseIP(host); pinned || ip != nil && ip.IsLoopback() {
		return []string{reason}, nil
	}
	return nil, &distrust{code: "certificate_wrong_host", fingerprint: fingerprint(leaf.Raw),
		reason:   "this agent refuses the server's certificate: " + reason,
		nextStep: "use an address from the certificate as endpoint, or put the server's own certificate into trusted/"}
}

// papers are what lies in the folders of a store.
type papers struct {
	trusted, issuers []*x509.Certificate
	revoked          []*x509.RevocationList
}

// read reads them anew each time: whoever puts a file there is heard at the next connect. What is no certificate and no list
// is passed over, so that a stray file stops nothing.
func (s store) read() (p papers) {
	for _, folder := range []string{s.trusted(), s.issuers()} {
		files, err := os.ReadDir(folder)
		if err != nil {
			continue
		}
		for _, f := range files {
			der, err := readDER(filepath.Join(folder, f.Name()))
			if err != nil {
				continue
			}
			if list, err := x509.ParseRevocationList(der); err == nil {
				p.revoked = append(p.revoked, list)
				continue
			}
			certs, err := x509.ParseCertificates(der)
			if err != nil {
				continue
			}
			if folder == s.trusted() {
				p.trusted = append(p.trusted, certs...)
			} else {
				p.issuers = append(p.issuers, certs...)
			}
		}
	}
	return p
}

// pinned reports whether a person trusted this very certificate.
func (p papers) pinned(leaf *x509.Certificate) bool {
	for _, c := range p.trusted {
		if c.Equal(leaf) {
			return true
		}
	}
	return false
}

// vouch returns the trusted authority that stands behind a certificate, nil when there is none. An authority that would, but
// must not any more, is an error.
func (p papers) vouch(certs []*x509.Certificate, now time.Time) (*x509.Certificate, error) {
	leaf := certs[0]
	roots, middle := x509.NewCertPool(), x509.NewCertPool()
	for _, c := range p.trusted {
		if c.IsCA {
			roots.AddCert(c)
		}
	}
	for _, c := range append(append([]*x509.Certificate{}, certs[1:]...), p.issuers...) {
		middle.AddCert(c)
	}
	at := now
	if now.After(leaf.NotAfter) || now.Before(leaf.NotBefore) {
		at = leaf.NotBefore.Add(time.Second) // the leaf's own validity is judged apart, with its own reason
	}
	options := x509.VerifyOptions{Roots: roots, Intermediates: middle, CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	chains, err := leaf.Verify(options)
	var invalid x509.CertificateInvalidError
	if errors.As(err, &invalid) && invalid.Reason == x509.Expired && !invalid.Cert.Equal(leaf) {
		return nil, &distrust{code: "issuer_expired", fingerprint: fingerprint(leaf.Raw),
			reason: fmt.Sprintf("this agent refuses the server's certificate: that of its authority %q is valid from %s to %s only",
				subject(invalid.Cert), invalid.Cert.NotBefore.Format(time.DateOnly), invalid.Cert.NotAfter.Format(time.DateOnly)),
			nextStep: "put the authority's renewed certificate into trusted/, or trust the server's own certificate"}
	}
	if err != nil {
		return nil, nil
	}
	chain := chains[0]
	if err := p.checkRevoked(chain); err != nil {
		return nil, err
	}
	return chain[len(chain)-1], nil
}

// checkRevoked looks for each certificate of a chain in the list of the one that issued it. A chain without lists is taken:
// plants seldom have them.
func (p papers) checkRevoked(chain []*x509.Certificate) error {
	for i, c := range chain[:len(chain)-1] {
		for _, list := range p.revoked {
			if !bytes.Equal(list.RawIssuer, chain[i+1].RawSubject) || list.CheckSignatureFrom(chain[i+1]) != nil {
				continue
			}
			for _, r := range list.RevokedCertificateEntries {
				if r.SerialNumber.Cmp(c.SerialNumber) != 0 {
					continue
				}
				return &distrust{code: "certificate_revoked", fingerprint: fingerprint(c.Raw),
					reason: fmt.Sprintf("this agent refuses the server's certificate: its authority %q revoked %q on %s",
						subject(chain[i+1]), subject(c), r.RevocationTime.Format(time.DateOnly)),
					nextStep: "give the server a new certificate; ask who runs the authority why the old one was revoked"}
			}
		}
	}
	return nil
}

// reject keeps an unknown certificate for a person to decide about.
func (s store) reject(source string, leaf *x509.Certificate) error {
	print := fingerprint(leaf.Raw)
	d := &distrust{code: "certificate_unknown", fingerprint: print,
		reason: fmt.Sprintf("this agent does not trust the server's certificate yet: %q, SHA-256 %s (SHA-1 %s)", subject(leaf), print,
			thumbprint(leaf.Raw)),
		nextStep: fmt.Sprintf("compare the fingerprint with the one the server shows, then run: plantagent trust %s %s",
			source, print)}
	if !selfSigned(leaf) {
		d.nextStep += fmt.Sprintf("; or put the certificate of its authority %q into %s", issuer(leaf), s.trusted())
	}
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
	Fingerprint string
	// Thumbprint is the SHA-1, by which most servers' own pages list it.
	Thumbprint     string
	Subject        string
	Issuer         string
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
	return Rejected{Fingerprint: fingerprint(der), Thumbprint: thumbprint(der), Subject: c.Subject.String(), Issuer: issuer(c),
		ApplicationURI: uriOf(c), Hosts: names(c), NotBefore: c.NotBefore, NotAfter: c.NotAfter, Seen: info.ModTime()}, nil
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
		if strings.HasPrefix(r.Fingerprint, want) || strings.HasPrefix(r.Thumbprint, want) {
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
