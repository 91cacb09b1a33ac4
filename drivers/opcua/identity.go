package opcua

import (
	"bytes"
	"crypto/rsa"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"os"
	"strings"
)

// identity is a certificate with its key.
type identity struct {
	der  []byte
	cert *x509.Certificate
	key  *rsa.PrivateKey
}

// loadIdentity reads a certificate and its key, each DER or PEM, the key PKCS#1 or PKCS#8.
func loadIdentity(certFile, keyFile string) (identity, error) {
	der, err := readDER(certFile)
	if err != nil {
		return identity{}, err
	}
	chain, err := x509.ParseCertificates(der)
	if err != nil || len(chain) == 0 {
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
	if !key.PublicKey.Equal(chain[0].PublicKey) {
		return identity{}, fmt.Errorf("key %q does not belong to certificate %q", keyFile, certFile)
	}
	// What may stand behind it, its authority's certificate, is not shown: both sides sign the other's certificate, the library
	// all that was shown and servers the first one only.
	return identity{der: chain[0].Raw, cert: chain[0], key: key}, nil
}

// readDER reads what a file holds, all of it: a PEM file may have several blocks, such as a certificate and its authority's.
func readDER(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var all []byte
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		all = append(all, block.Bytes...)
	}
	if all != nil {
		return all, nil
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

// fingerprint is the SHA-256 of a certificate.
func fingerprint(der []byte) string {
	sum := sha256.Sum256(der)
	return hex.EncodeToString(sum[:])
}

// thumbprint is the SHA-1 of a certificate, by which most servers' own pages list it.
func thumbprint(der []byte) string {
	sum := sha1.Sum(der)
	return hex.EncodeToString(sum[:])
}

// names are the hosts that a certificate is for.
func names(c *x509.Certificate) []string {
	list := append([]string{}, c.DNSNames...)
	for _, ip := range c.IPAddresses {
		list = append(list, ip.String())
	}
	return list
}

// subject is how a person knows a certificate.
func subject(c *x509.Certificate) string {
	switch {
	case c.Subject.CommonName != "":
		return c.Subject.CommonName
	case c.Subject.String() != "":
		return c.Subject.String()
	}
	return uriOf(c)
}

func issuer(c *x509.Certificate) string {
	if c.Issuer.CommonName != "" {
		return c.Issuer.CommonName
	}
	return c.Issuer.String()
}

// selfSigned reports whether nobody stands behind a certificate but itself.
func selfSigned(c *x509.Certificate) bool { return bytes.Equal(c.RawIssuer, c.RawSubject) }

// shown is a list for people: "a, b", or "no host" when it is empty.
func shown(hosts []string) string {
	if len(hosts) == 0 {
		return "no host"
	}
	return strings.Join(hosts, ", ")
}
