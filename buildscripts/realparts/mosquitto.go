package realparts

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
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// MosquittoOptions says how a broker is set up. The zero value is a plain listener that anybody may use.
type MosquittoOptions struct {
	// User and Password close the broker to anybody else.
	User, Password string
	// TLS makes the listener speak TLS only, with a certificate of the broker's own authority (Broker.CAFile).
	TLS bool
	// ClientCertificates makes a TLS listener ask for certificates of the same authority (Broker.ClientCertificate).
	ClientCertificates bool
	// MaxInflight is how many messages a client may leave unacknowledged; 5,000 when zero.
	MaxInflight int
	// SaveOnChanges, when not zero, writes the broker's memory to disk after so many changes; otherwise once a second. What
	// came after the last save is lost when the broker is killed, and kept when it ends by SIGTERM.
	SaveOnChanges int
	// Extra lines for the broker's configuration.
	Extra string
}

// Broker is a mosquitto under a test's control. Its sessions and queues stay when it is killed and run again.
type Broker struct {
	*Process
	Port int
	// CAFile holds the certificate of the authority that signed the broker's, when it speaks TLS.
	CAFile string

	dir string
	ca  *authority
}

// Mosquitto starts a broker on a free loopback port. It never drops a queued message.
func Mosquitto(t testing.TB, o MosquittoOptions) *Broker {
	t.Helper()
	program := Need(t, "mosquitto", "mosquitto", "/usr/sbin")
	dir := t.TempDir()
	b := &Broker{Port: FreePort(t), dir: dir}
	conf := WriteFile(t, filepath.Join(dir, "mosquitto.conf"), b.configuration(t, o))
	b.Process = &Process{
		Name:    "mosquitto",
		Command: func() *exec.Cmd { return exec.Command(program, "-c", conf) },
		Ready:   Listening(b.Port),
	}
	b.Start(t)
	return b
}

// URL is the broker's address in the form the driver's configuration takes.
func (b *Broker) URL() string {
	if b.ca != nil {
		return fmt.Sprintf("tls://127.0.0.1:%d", b.Port)
	}
	return fmt.Sprintf("tcp://127.0.0.1:%d", b.Port)
}

// ClientCertificate returns the files of a certificate that the broker accepts, and of its key.
func (b *Broker) ClientCertificate(t testing.TB, name string) (cert, key string) {
	t.Helper()
	return b.ca.issue(t, b.dir, name, x509.ExtKeyUsageClientAuth)
}

func (b *Broker) configuration(t testing.TB, o MosquittoOptions) string {
	t.Helper()
	var c strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&c, format+"\n", args...) }
	if os.Getuid() == 0 {
		line("user root")
	}
	if o.MaxInflight == 0 {
		o.MaxInflight = 5000
	}
	line("persistence true\npersistence_location %s/", b.dir)
	line("max_queued_messages 0\nmax_inflight_messages %d", o.MaxInflight)
	if o.SaveOnChanges > 0 {
		line("autosave_on_changes true\nautosave_interval %d", o.SaveOnChanges)
	} else {
		line("autosave_interval 1")
	}
	line("listener %d 127.0.0.1", b.Port)
	if o.TLS {
		b.ca = newAuthority(t)
		b.CAFile = WriteFile(t, filepath.Join(b.dir, "ca.pem"), string(b.ca.pem))
		cert, key := b.ca.issue(t, b.dir, "localhost", x509.ExtKeyUsageServerAuth)
		line("cafile %s\ncertfile %s\nkeyfile %s", b.CAFile, cert, key)
		line("require_certificate %t", o.ClientCertificates)
	}
	if o.User == "" {
		line("allow_anonymous true")
	} else {
		passwords := filepath.Join(b.dir, "passwords")
		tool := Need(t, "mosquitto_passwd", "mosquitto")
		if out, err := exec.Command(tool, "-b", "-c", passwords, o.User, o.Password).CombinedOutput(); err != nil {
			t.Fatalf("write the broker's password file: %v\n%s", err, out)
		}
		line("allow_anonymous false\npassword_file %s", passwords)
	}
	line("%s", o.Extra)
	return c.String()
}

// authority signs the certificates of one test.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pem  []byte
	next int64
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatalf("sign an authority: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("read an authority: %v", err)
	}
	return &authority{cert: cert, key: key, next: 1,
		pem: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

// issue writes a certificate for name (and the loopback addresses) and its key into dir.
func (a *authority) issue(t testing.TB, dir, name string, usage x509.ExtKeyUsage) (certFile, keyFile string) {
	t.Helper()
	a.next++
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(a.next), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:   time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		t.Fatalf("sign a certificate for %q: %v", name, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatalf("encode the key of %q: %v", name, err)
	}
	base := filepath.Join(dir, fmt.Sprintf("%s-%d", name, a.next))
	certFile = WriteFile(t, base+".pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	keyFile = WriteFile(t, base+".key", string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})))
	return certFile, keyFile
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("make a key: %v", err)
	}
	return key
}
