package opcua

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// trust makes the agent trust the plant, and gives it the user's password.
func (b *bench) trust(plant *realparts.Plant) {
	b.t.Helper()
	der, err := readDER(filepath.Join(plant.Dir, "server.pem"))
	if err != nil {
		b.t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(b.dir, "trusted"), 0o755); err != nil {
		b.t.Fatal(err)
	}
	realparts.WriteFile(b.t, filepath.Join(b.dir, "trusted", "plant.der"), string(der))
	b.password("secret")
}

// TestACertificateThatEndsIsFollowedByOneThatTheServerTrusts: while the server does not know the new one the old one stays,
// and reading goes on in each step.
func TestACertificateThatEndsIsFollowedByOneThatTheServerTrusts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	certFile, keyFile := ownFiles(b.dir)
	old := pair(t, certFile, keyFile, lineURI, time.Now().AddDate(0, 0, 60))
	dir := t.TempDir()
	trusted := filepath.Join(dir, "pki", "trusted", "certs")
	if err := os.MkdirAll(trusted, 0o755); err != nil {
		t.Fatal(err)
	}
	realparts.WriteFile(t, filepath.Join(trusted, "old.pem"), pemOf(old.cert))
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Dir: dir, Counters: 1, TrustList: true})
	b.trust(plant)
	config, tags := counterConfig(plant.Endpoint(), 1)
	d := b.driver(config, nil)
	b.start(d)
	b.awaitState(signal.StateOK)

	b.awaitProblem("own_certificate", "own_certificate")
	p := b.problem("own_certificate")
	next, err := Own(b.dir)
	if err != nil || len(next) != 2 || !next[1].Next || next[0].Fingerprint != fingerprint(old.der) {
		t.Fatalf("own certificates: %+v, %v", next, err)
	}
	for _, want := range []string{old.cert.NotAfter.Format(time.DateOnly), "the server refuses this agent's certificate", next[1].File, next[1].Thumbprint, next[1].Fingerprint} {
		if !strings.Contains(p.Reason+p.NextStep, want) {
			t.Errorf("the page does not say %q: %+v", want, p)
		}
	}
	if again := d.renew(t.Context(), time.Now()); again == nil || again.Code != "own_certificate" {
		t.Errorf("renewed although the server does not trust it: %+v", again)
	}
	if s := b.state(); !strings.HasPrefix(s, string(signal.StateOK)) {
		t.Errorf("state is %q", s)
	}

	due := time.Now()
	trustClient(t, plant, func() error {
		if wait := time.Until(due); wait > 0 {
			return fmt.Errorf("the next try comes in %s", wait)
		}
		due = time.Now().Add(500 * time.Millisecond)
		if p := d.renew(t.Context(), time.Now()); p != nil {
			return errors.New(p.Reason)
		}
		return nil
	})
	now, err := Own(b.dir)
	if err != nil || len(now) != 1 || now[0].Fingerprint != next[1].Fingerprint {
		t.Fatalf("own certificates: %+v, %v", now, err)
	}
	if kept, _ := filepath.Glob(filepath.Join(b.dir, "own", "*.until-*")); len(kept) != 2 {
		t.Errorf("the old pair is gone: %v", kept)
	}
	// The running session goes on; the next one is made with the new certificate, with nothing lost between.
	plant.Post(t, "/burst", map[string]any{"times": 5})
	b.catchUp(plant, tags)
	plant.Post(t, "/close-sessions", nil)
	plant.Post(t, "/burst", map[string]any{"times": 5})
	b.catchUp(plant, tags)
	if p := b.problem("gap"); p != nil {
		t.Errorf("a gap was reported: %s", p.Reason)
	}
	if p := d.renew(t.Context(), time.Now()); p != nil {
		t.Errorf("problem remains: %+v", p)
	}
}

func TestACertificateOfAnAuthorityIsRenewedByThatAuthority(t *testing.T) {
	b := newBench(t)
	own := pair(t, filepath.Join(b.dir, "agent.der"), filepath.Join(b.dir, "agent.key"), lineURI, time.Now().AddDate(0, 0, 30))
	config, _ := counterConfig("opc.tcp://127.0.0.1:1", 1)
	d := b.driver("certificate: agent.der\nkey: agent.key\n"+config, nil)
	p := d.renew(t.Context(), time.Now())
	if p == nil || !strings.Contains(p.Reason, own.cert.NotAfter.Format(time.DateOnly)) || !strings.Contains(p.NextStep, "authority") {
		t.Errorf("problem is %+v", p)
	}
	if _, err := os.Stat(filepath.Join(b.dir, "own")); err == nil {
		t.Error("the agent made a certificate of its own beside")
	}
	if p := d.renew(t.Context(), time.Now().AddDate(0, 0, -100)); p != nil {
		t.Errorf("long before the end: %+v", p)
	}
	// Nobody is asked for a certificate that is not used.
	if p := b.driver("security_policy: None\nanonymous: true\n"+strings.Replace(config, "user: {name: operator, password_file: password.txt}\n", "", 1), nil).renew(context.Background(), time.Now()); p != nil {
		t.Errorf("without security: %+v", p)
	}
}
