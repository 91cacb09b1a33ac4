package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/hub/fleet"
)

// seedsOfATest is how many seeds run when nobody says otherwise, from firstOfATest on. They are the same each time, so that a
// change is judged by what it does; make soak draws new ones.
const seedsOfATest, firstOfATest = 200, 1

// certificates is the folder with the certificates of all simulated hosts.
var certificates string

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	debug.SetGCPercent(400) // much is thrown away soon
	dir, err := os.MkdirTemp("", "linekeeper-sim-certificates")
	if err == nil {
		defer os.RemoveAll(dir)
		err = issue(dir)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "make certificates:", err)
		return 1
	}
	certificates = dir
	return m.Run()
}

// issue makes certificates that are valid whatever a clock in the simulation shows.
func issue(dir string) error {
	ca := &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	caKey, err := sign(filepath.Join(dir, "ca"), ca, nil, nil)
	if err != nil {
		return err
	}
	if _, err := sign(filepath.Join(dir, "hub"), &x509.Certificate{DNSNames: []string{"hub.test"}}, ca, caKey); err != nil {
		return err
	}
	for _, name := range []string{"line1", "line2"} {
		leaf := &x509.Certificate{URIs: []*url.URL{fleet.AgentURI("ulm", name)}}
		if _, err := sign(filepath.Join(dir, name), leaf, ca, caKey); err != nil {
			return err
		}
	}
	return nil
}

// sign writes path.pem and path.key; a nil parent signs itself.
func sign(path string, c, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	if parent == nil {
		parent, parentKey = c, key
	} else {
		c.KeyUsage, c.ExtKeyUsage = x509.KeyUsageDigitalSignature, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	}
	c.SerialNumber, c.Subject = big.NewInt(int64(len(path))), pkix.Name{CommonName: filepath.Base(path)}
	c.NotBefore, c.NotAfter = time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2200, 1, 1, 0, 0, 0, 0, time.UTC)
	der, err := x509.CreateCertificate(rand.Reader, c, parent, &key.PublicKey, parentKey)
	if err != nil {
		return nil, err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, errors.Join(
		os.WriteFile(path+".pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600),
		os.WriteFile(path+".key", pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), 0o600),
	)
}

// number reads a number from the environment.
func number(t *testing.T, name string, otherwise uint64) (n uint64, given bool) {
	text := os.Getenv(name)
	if text == "" {
		return otherwise, false
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n, true
}

// TestNothingIsLostAndNothingIsDoubledWhateverHappens runs many seeds. SIM_SEED=n runs only that one, SIM_SEEDS=n so many,
// from SIM_FIRST on; with SIM_STOP=1 none begins after one has failed.
func TestNothingIsLostAndNothingIsDoubledWhateverHappens(t *testing.T) {
	first, _ := number(t, "SIM_FIRST", firstOfATest)
	count, _ := number(t, "SIM_SEEDS", seedsOfATest)
	if n, one := number(t, "SIM_SEED", 0); one {
		first, count = n, 1
	}
	t.Logf("seeds begin at SIM_FIRST=%d", first)
	var mu sync.Mutex
	var sum totals
	var failed atomic.Bool
	done := 0
	t.Run("seed", func(t *testing.T) {
		for n := first; n < first+count; n++ {
			t.Run(fmt.Sprint(n), func(t *testing.T) {
				t.Parallel()
				if os.Getenv("SIM_STOP") == "1" && failed.Load() {
					return
				}
				var did totals
				defer func() { // a bubble that fails ends the test
					mu.Lock()
					defer mu.Unlock()
					sum.add(did)
					done++
					if t.Failed() {
						failed.Store(true)
					}
				}()
				simulate(t, n, &did)
			})
		}
	})
	fmt.Printf("simulation: seeds=%d %s\n", done, sum) // also when nothing failed
}

// simulate runs one seed in a bubble of fake time.
func simulate(t *testing.T, seed uint64, did *totals) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, 1+int(seed%2))
		defer w.close()
		defer func() { *did = w.totals }()
		w.runSeed()
	})
}
