package realparts

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// PlantOptions say what kind of plant NodeOPCUA starts. The zero value is a plant without machines that trusts every
// client, knows the user "operator" with the password "secret", and lets nobody in without one.
type PlantOptions struct {
	// Dir keeps the plant's counts, certificate and trust lists; a temporary folder when empty. The same folder again is
	// the same plant again.
	Dir string
	// Machines is how many presses there are: Press1, Press2, ... each with Good, Scrap, Order and State.
	Machines int
	// Counters is how many nodes Count.0, Count.1, ... there are, which all count up together (POST /tick, /burst).
	Counters int
	// TrustList makes the plant refuse client certificates that are not in pki/trusted/certs.
	TrustList bool
	// Users are names and passwords; the password of "token" is the issued token that lets a client in.
	Users map[string]string
	// Anonymous lets clients in without a user.
	Anonymous bool
	// Policies are the security policies that it offers; None and the three that are not outdated when empty.
	Policies []string
	// Tree is how many variables there are in a folder Plant/Tree, which leads back to Plant; with them comes an
	// Oil/Temperature in degrees Celsius.
	Tree int
	// OperationLimits are the server's own limits, such as "maxMonitoredItemsPerCall".
	OperationLimits map[string]int
	// Certificate is the server's; zero fields get working values.
	Certificate CertificateOptions
}

// CertificateOptions describe a self-signed application certificate.
type CertificateOptions struct {
	// URI is the application URI in the certificate; PlantURI when empty.
	URI string
	// Host is a name or address in the certificate; 127.0.0.1 when empty.
	Host string
	// NotBefore and NotAfter bound its validity; from yesterday for a year when zero.
	NotBefore, NotAfter time.Time
}

// PlantURI is the application URI that a plant names itself by.
const PlantURI = "urn:plant:server"

// PlantNamespace is the namespace of the plant's nodes; its index is 2.
const PlantNamespace = "urn:plant:machines"

// Plant is a running node-opcua server (not ours) under a test's control.
type Plant struct {
	*Process
	Port    int
	Control int
	Dir     string
}

// MachineCount is the truth about one machine.
type MachineCount struct {
	Good   int64                                  `json:"good"`
	Scrap  int64                                  `json:"scrap"`
	Order  string                                 `json:"order"`
	State  string                                 `json:"state"`
	Orders map[string]struct{ Good, Scrap int64 } `json:"orders"`
}

// PlantCounts is what a plant has counted, by machine and by counter.
type PlantCounts struct {
	Machines map[string]MachineCount `json:"machines"`
	Counters map[string]int64        `json:"counters"`
}

// NodeOPCUA starts a plant and stops it when the test ends. Process.Kill and Process.Run restart it on the same ports,
// with the counts it had.
func NodeOPCUA(t testing.TB, o PlantOptions) *Plant {
	t.Helper()
	node, home := needNodeOPCUA(t)
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Users == nil {
		o.Users = map[string]string{"operator": "secret"}
	}
	p := &Plant{Port: FreePort(t), Control: FreePort(t), Dir: o.Dir}
	cert, key := plantCertificate(t, o.Dir, o.Certificate)
	seedStores(t, o.Dir)
	limits := o.OperationLimits
	if limits == nil {
		limits = map[string]int{}
	}
	options, err := json.Marshal(map[string]any{
		"dir": o.Dir, "port": p.Port, "controlPort": p.Control, "machines": o.Machines, "counters": o.Counters,
		"trustList": o.TrustList, "tree": o.Tree, "policies": o.Policies, "users": o.Users, "anonymous": o.Anonymous, "operationLimits": limits,
		"applicationUri": PlantURI, "certificateFile": cert, "privateKeyFile": key,
	})
	if err != nil {
		t.Fatalf("encode the plant's options: %v", err)
	}
	p.Process = &Process{
		Name: "node-opcua",
		Command: func() *exec.Cmd {
			return exec.Command(node, append(oldCiphers(o), filepath.Join(home, "plant.js"), string(options))...)
		},
		Ready:    func() error { return p.call(http.MethodGet, "/logins", nil, nil) },
		Patience: 90 * time.Second,
	}
	p.Start(t)
	return p
}

// needNodeOPCUA returns the program node and the folder of the server scripts.
func needNodeOPCUA(t testing.TB) (node, home string) {
	t.Helper()
	node = Need(t, "node", "nodejs")
	home = filepath.Join(Root(), "buildscripts", "nodeopcua")
	if _, err := os.Stat(filepath.Join(home, "node_modules", "node-opcua", "package.json")); err != nil {
		t.Fatalf("node-opcua is missing: run `make setup`, or `npm ci --prefix buildscripts/nodeopcua --no-audit --no-fund`: %v", err)
	}
	return node, home
}

// plantCertificate gives a plant in a folder its certificate, once.
func plantCertificate(t testing.TB, dir string, o CertificateOptions) (cert, key string) {
	t.Helper()
	cert, key = filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key")
	if _, err := os.Stat(cert); err != nil {
		if o.URI == "" {
			o.URI = PlantURI
		}
		writeCertificate(t, o, cert, key)
	}
	return cert, key
}

// oldCiphers lets Node do what the outdated Basic128Rsa15 needs, which it has given up by default.
func oldCiphers(o PlantOptions) []string {
	if slices.Contains(o.Policies, "Basic128Rsa15") {
		return []string{"--security-revert=CVE-2023-46809"}
	}
	return nil
}

// Endpoint is the plant's address for OPC UA clients.
func (p *Plant) Endpoint() string { return p.EndpointAt(fmt.Sprintf("127.0.0.1:%d", p.Port)) }

// EndpointAt is the plant's address behind a proxy.
func (p *Plant) EndpointAt(hostport string) string { return "opc.tcp://" + hostport + "/plant" }

// Counts returns the truth.
func (p *Plant) Counts(t testing.TB) PlantCounts {
	t.Helper()
	var c PlantCounts
	p.Get(t, "/counts", &c)
	return c
}

// Get asks the plant's control port and decodes the answer.
func (p *Plant) Get(t testing.TB, path string, into any) {
	t.Helper()
	if err := p.call(http.MethodGet, path, nil, into); err != nil {
		t.Fatal(err)
	}
}

// Post tells the plant to do something; buildscripts/nodeopcua/plant.js lists what it can do. body becomes JSON.
func (p *Plant) Post(t testing.TB, path string, body map[string]any) {
	t.Helper()
	if err := p.call(http.MethodPost, path, body, nil); err != nil {
		t.Fatal(err)
	}
}

// TryPost is Post for what may go wrong.
func (p *Plant) TryPost(path string, body map[string]any) error {
	return p.call(http.MethodPost, path, body, nil)
}

// TrustRefused does what a plant's technician does: it moves the client certificates that were refused to the trusted ones. Call
// it until the client is let in: a file waits for a second, because the server forgets a refusal only when it had noticed the
// file that it wrote about it, and an attempt that was under way meanwhile puts the certificate back.
func (p *Plant) TrustRefused() error {
	from := filepath.Join(p.Dir, "pki", "rejected")
	files, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil || time.Since(info.ModTime()) < time.Second {
			continue
		}
		if err := os.Rename(filepath.Join(from, f.Name()), filepath.Join(p.Dir, "pki", "trusted", "certs", f.Name())); err != nil {
			return err
		}
	}
	return nil
}

// TrustUser makes the plant accept an X.509 user.
func (p *Plant) TrustUser(t testing.TB, der []byte) {
	t.Helper()
	path := filepath.Join(p.Dir, "users", "trusted", "certs", "user.pem")
	WriteFile(t, path, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

var plantClient = &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}

func (p *Plant) call(method, path string, body map[string]any, into any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode %s: %w", path, err)
	}
	if body == nil {
		b = nil
	}
	req, err := http.NewRequest(method, fmt.Sprintf("http://127.0.0.1:%d%s", p.Control, path), bytes.NewReader(b))
	if err != nil {
		return err
	}
	res, err := plantClient.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	answer, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("plant %s %s: %s", method, path, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// storeKey is the key of the plant's trust stores: creating one for each start would take seconds, and nobody sees it.
var storeKey = sync.OnceValues(func() (*rsa.PrivateKey, error) { return rsa.GenerateKey(rand.Reader, 2048) })

func seedStores(t testing.TB, dir string) {
	t.Helper()
	key, err := storeKey()
	if err != nil {
		t.Fatalf("create a key: %v", err)
	}
	for _, store := range []string{"pki", "users"} {
		folder := filepath.Join(dir, store, "own", "private")
		if err := os.MkdirAll(folder, 0o755); err != nil {
			t.Fatalf("create the plant's trust store: %v", err)
		}
		path := filepath.Join(folder, "private_key.pem")
		if _, err := os.Stat(path); err == nil {
			continue
		}
		WriteFile(t, path, string(pemKey(t, key)))
	}
}

func pemKey(t testing.TB, key *rsa.PrivateKey) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("encode a key: %v", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// writeCertificate writes a new key and its self-signed application certificate as PEM files.
func writeCertificate(t testing.TB, o CertificateOptions, certFile, keyFile string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatalf("create a key: %v", err)
	}
	if o.Host == "" {
		o.Host = "127.0.0.1"
	}
	if o.NotBefore.IsZero() {
		o.NotBefore = time.Now().Add(-24 * time.Hour)
	}
	if o.NotAfter.IsZero() {
		o.NotAfter = time.Now().Add(365 * 24 * time.Hour)
	}
	uri, err := url.Parse(o.URI)
	if err != nil {
		t.Fatalf("parse application URI %q: %v", o.URI, err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "plant", Organization: []string{"Linekeeper tests"}},
		NotBefore:    o.NotBefore, NotAfter: o.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment | x509.KeyUsageKeyEncipherment |
			x509.KeyUsageDataEncipherment,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		URIs:                  []*url.URL{uri},
		BasicConstraintsValid: true,
	}
	if ip := net.ParseIP(o.Host); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{o.Host}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatalf("create a certificate: %v", err)
	}
	WriteFile(t, certFile, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	WriteFile(t, keyFile, string(pemKey(t, key)))
}
