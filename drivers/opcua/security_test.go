package opcua

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// testKnocks opens a channel by hand in each way that the server offers.
func testKnocks(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	for policy := range policyRank {
		if policy == "None" || deprecated(policy) {
			continue
		}
		for _, mode := range []string{"Sign", "SignAndEncrypt"} {
			config, _ := counterConfig(plant.Endpoint(), 1)
			r := b.driver("security_policy: "+policy+"\nsecurity_mode: "+mode+"\n"+config, nil).scout()
			if err := r.loadOwn(); err != nil {
				t.Fatal(err)
			}
			found, err := r.discover(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := knock(t.Context(), r.config.Endpoint, found[0], r.own); err != nil {
				t.Errorf("%s %s: %v", policy, mode, err)
			}
		}
	}
}

// authority signs certificates for a plant.
type authority struct {
	key  *rsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T, name string, by *authority) *authority {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, IsCA: true,
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: time.Now().AddDate(-1, 0, 0), NotAfter: time.Now().AddDate(5, 0, 0)}
	a := &authority{key: key, cert: template}
	if by == nil {
		by = a
	}
	a.cert = by.sign(t, template, key)
	return a
}

func (a *authority) sign(t *testing.T, template *x509.Certificate, key *rsa.PrivateKey) *x509.Certificate {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// revoke is the authority's list of revoked certificates.
func (a *authority) revoke(t *testing.T, certs ...*x509.Certificate) string {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(time.Now().UnixNano()), ThisUpdate: time.Now().AddDate(0, 0, -1), NextUpdate: time.Now().AddDate(1, 0, 0)}
	for _, c := range certs {
		list.RevokedCertificateEntries = append(list.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, list, a.cert, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: der}))
}

func pemOf(certs ...*x509.Certificate) string {
	var b strings.Builder
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.String()
}

// TestAPlantWithAnAuthorityOfItsOwn has a server and an agent whose certificates the plant's authority issued, behind a second one.
func TestAPlantWithAnAuthorityOfItsOwn(t *testing.T) {
	t.Parallel()
	root := newAuthority(t, "plant root", nil)
	issuing := newAuthority(t, "plant issuing", root)
	uri, _ := url.Parse(realparts.PlantURI)
	agentURI, _ := url.Parse("urn:company:agent7")
	leaf := func(name string, u *url.URL, usage x509.ExtKeyUsage) (*x509.Certificate, *rsa.PrivateKey) {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		return issuing.sign(t, &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
			NotBefore: time.Now().AddDate(0, 0, -1), NotAfter: time.Now().AddDate(1, 0, 0), URIs: []*url.URL{u}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
			KeyUsage:    x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment | x509.KeyUsageDataEncipherment,
			ExtKeyUsage: []x509.ExtKeyUsage{usage}, BasicConstraintsValid: true}, key), key
	}
	keyPEM := func(key *rsa.PrivateKey) string {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	dir := t.TempDir()
	serverCert, serverKey := leaf("press 7", uri, x509.ExtKeyUsageServerAuth)
	realparts.WriteFile(t, filepath.Join(dir, "server.pem"), pemOf(serverCert, issuing.cert))
	realparts.WriteFile(t, filepath.Join(dir, "server.key"), keyPEM(serverKey))
	for name, text := range map[string]string{"certs/root.pem": pemOf(root.cert), "certs/issuing.pem": pemOf(issuing.cert),
		"crl/root.pem": root.revoke(t), "crl/issuing.pem": issuing.revoke(t)} { // this server wants to see that nobody was revoked
		path := filepath.Join(dir, "pki", "issuers", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		realparts.WriteFile(t, path, text)
	}
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Dir: dir, Counters: 1})

	b := newBench(t)
	b.password("secret")
	agentCert, agentKey := leaf("agent 7", agentURI, x509.ExtKeyUsageClientAuth)
	realparts.WriteFile(t, filepath.Join(b.dir, "agent.pem"), pemOf(agentCert, issuing.cert))
	realparts.WriteFile(t, filepath.Join(b.dir, "agent.key"), keyPEM(agentKey))
	config, tags := counterConfig(plant.Endpoint(), 1)
	config = "certificate: agent.pem\nkey: agent.key\n" + config
	if err := os.MkdirAll(filepath.Join(b.dir, "trusted"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, p := failure(b.driver(config, nil).Probe(t.Context())); p == nil || p.Code != "certificate_unknown" || !strings.Contains(p.NextStep, `authority "plant issuing"`) {
		t.Errorf("before the authority is trusted: %+v", p)
	}
	realparts.WriteFile(t, filepath.Join(b.dir, "trusted", "root.pem"), pemOf(root.cert))
	steps := b.driver(config, nil).Probe(t.Context())
	text := story(t, steps)
	if _, p := failure(steps); p != nil || !strings.Contains(text, `trusted through the authority "plant root"`) || !strings.Contains(text, "urn:company:agent7") {
		t.Errorf("with the authority: %+v", p)
	}
	b.start(b.driver(config, nil))
	b.awaitState(signal.StateOK)
	plant.Post(t, "/burst", map[string]any{"times": 3})
	b.catchUp(plant, tags)
	b.stop()

	realparts.WriteFile(t, filepath.Join(b.dir, "trusted", "issuing.crl"), issuing.revoke(t, serverCert))
	if _, p := failure(b.driver(config, nil).Probe(t.Context())); p == nil || p.Code != "certificate_revoked" {
		t.Errorf("revoked: %+v", p)
	}
}

// TestOutdatedPoliciesWorkWhenTheyAreNamed reads from a server that has nothing better.
func TestOutdatedPoliciesWorkWhenTheyAreNamed(t *testing.T) {
	t.Parallel()
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Counters: 1, Policies: []string{"None", "Basic256", "Basic128Rsa15"}})
	for _, policy := range []string{"Basic256", "Basic128Rsa15"} {
		t.Run(policy, func(t *testing.T) {
			b := newBench(t)
			b.prepare(plant)
			config, tags := counterConfig(plant.Endpoint(), 1)
			steps := b.driver("security_policy: "+policy+"\nallow_deprecated: true\n"+config, nil).Probe(t.Context())
			story(t, steps)
			if _, p := failure(steps); p != nil {
				t.Fatalf("%+v", p)
			}
			b.start(b.driver("security_policy: "+policy+"\nallow_deprecated: true\n"+config, nil))
			b.awaitState(signal.StateOK)
			b.catchUp(plant, tags)
		})
	}
	// Never by itself: what is written is what is taken.
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(plant.Endpoint(), 1)
	if _, p := failure(b.driver(config, nil).Probe(t.Context())); p == nil || p.Code != "security_not_offered" {
		t.Errorf("problem is %+v", p)
	}
}
