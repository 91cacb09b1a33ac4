package opcua

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
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

// story is a probe as an engineer reads it.
func story(t *testing.T, steps []signal.Step) string {
	t.Helper()
	var b strings.Builder
	for _, s := range steps {
		mark := "ok  "
		switch {
		case s.Warning:
			mark = "warn"
		case s.Problem != nil:
			mark = "FAIL"
		}
		fmt.Fprintf(&b, "%s %s: %s", mark, s.Name, s.Detail)
		if p := s.Problem; p != nil {
			fmt.Fprintf(&b, "[%s] %s; %s", p.Code, p.Reason, p.NextStep)
			if p.Code == "" || p.Reason == "" || p.NextStep == "" {
				t.Errorf("a problem without code, reason or next step: %+v", p)
			}
		}
		b.WriteByte('\n')
	}
	t.Log("\n" + b.String())
	return b.String()
}

// failure is the first step that failed.
func failure(steps []signal.Step) (name string, p *signal.Problem) {
	for _, s := range steps {
		if s.Problem != nil && !s.Warning {
			return s.Name, s.Problem
		}
	}
	return "", nil
}

func testProbe(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(strings.Replace(plant.Endpoint(), "127.0.0.1", "localhost", 1), 1)
	config += `
  - {tag: good, path: "Plant/Press1/Good"}
  - {tag: lost, path: "Plant/Press1/Nowhere"}
  - {tag: gone, node: "ns=2;s=Nowhere"}
  - {tag: folder, node: "ns=2;s=Press1"}
  - {tag: strange, node: "nsu=urn:nobody;s=A"}
`
	before := sessionsOf(t, plant).Sessions
	steps := b.driver(config, nil).Probe(t.Context())
	text := story(t, steps)
	for _, want := range []string{`ok   the name "localhost" is known`, "ok   port ", "ok   an OPC UA server answers: plant, urn:plant:server; it offers ",
		"ok   the server offers Basic256Sha256, SignAndEncrypt", "ok   this agent's certificate is in order", `ok   this agent trusts the server's certificate: "plant", trusted itself`,
		`warn the server's certificate fits: [certificate_warning] the server's certificate is for 127.0.0.1, not for "localhost"`,
		"ok   the server lets users with a name and a password log in", "ok   the server opens a secure channel", `ok   the server accepts user "operator"`,
		"ok   the server says what it is: ", "treated as generic", `ok   tag "c0" can be read: `, "UInt32", `ok   tag "good" can be read`,
		`FAIL tag "lost" can be read: [bad_node]`, `FAIL tag "gone" can be read: [bad_node] the server does not give node "ns=2;s=Nowhere": it does not know the node (BadNodeIdUnknown)`,
		`FAIL tag "folder" can be read: [bad_node] the server does not give node "ns=2;s=Press1": it is no variable`,
		`FAIL tag "strange" can be read: [bad_node]`, "plantagent browse press"} {
		if !strings.Contains(text, want) {
			t.Errorf("the probe does not say %q", want)
		}
	}
	if n := sessionsOf(t, plant).Sessions; n > before {
		t.Errorf("%d sessions are left, %d before", n, before)
	}
	if b.tells("secret") {
		t.Error("a password was shown")
	}
}

// TestAProbeSaysWhereTheWayEnds tries what an engineer meets before any server talks.
func TestAProbeSaysWhereTheWayEnds(t *testing.T) {
	mute, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	go func() {
		for {
			c, err := mute.Accept()
			if err != nil {
				return
			}
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
			c.Close()
		}
	}()
	for _, tt := range []struct{ endpoint, step, code, says string }{
		{"opc.tcp://no-such-press.invalid:4840", "is known", "name_unknown", "hosts file"},
		{fmt.Sprintf("opc.tcp://127.0.0.1:%d", realparts.FreePort(t)), "is open", "port_closed", "nothing listens"},
		{"opc.tcp://" + mute.Addr().String(), "answers", "no_opcua", "does not speak OPC UA"},
	} {
		b := newBench(t)
		config, _ := counterConfig(tt.endpoint, 1)
		steps := b.driver(config, nil).Probe(t.Context())
		text := story(t, steps)
		name, p := failure(steps)
		if p == nil || !strings.Contains(name, tt.step) || p.Code != tt.code || !strings.Contains(text, tt.says) {
			t.Errorf("%s: ends at %q with %+v", tt.endpoint, name, p)
		}
	}
}

// agentPair makes the agent's own certificate.
func agentPair(t *testing.T, b *bench, change func(*x509.Certificate)) {
	t.Helper()
	own, err := sharedOwn()
	if err != nil {
		t.Fatal(err)
	}
	template, err := certificateTemplate(lineURI)
	if err != nil {
		t.Fatal(err)
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, template, &own.key.PublicKey, own.key)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own.key)
	if err != nil {
		t.Fatal(err)
	}
	realparts.WriteFile(t, filepath.Join(b.dir, "agent.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	realparts.WriteFile(t, filepath.Join(b.dir, "agent.key"), string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
}

// TestAProbeSaysWhichSideRefusesACertificate goes through the cases that keep people from connecting, with a server that has a
// list of trusted clients.
func TestAProbeSaysWhichSideRefusesACertificate(t *testing.T) {
	t.Parallel()
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Counters: 1, TrustList: true})
	trusted := filepath.Join(plant.Dir, "pki", "trusted", "certs")
	admit := func(b *bench) {
		der, err := readDER(filepath.Join(b.dir, "agent.pem"))
		if err != nil {
			t.Fatal(err)
		}
		realparts.WriteFile(t, filepath.Join(trusted, fingerprint(der)[:16]+".pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	}
	other, _ := url.Parse("urn:somebody:else")
	for _, tt := range []struct {
		name   string
		change func(*x509.Certificate)
		admit  bool
		more   string
		step   string
		code   string
		says   []string
	}{
		{"the server does not know the agent", func(*x509.Certificate) {}, false, "", "opens a secure channel", "agent_not_trusted",
			[]string{"the server refuses this agent's certificate", "list of client certificates", "agent.pem", "SHA-1 "}},
		{"both know each other", func(*x509.Certificate) {}, true, "", "", "", []string{`the server accepts user "operator"`}},
		{"the agent's certificate has ended", func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.AddDate(-2, 0, 0), now.AddDate(-1, 0, 0) }, true, "",
			"this agent's certificate", "own_certificate", []string{"let the authority issue a new one"}},
		{"the agent's certificate ends soon", func(c *x509.Certificate) { c.NotAfter = time.Now().AddDate(0, 1, 0) }, true, "", "", "",
			[]string{"warn this agent's certificate is in order"}},
		{"the agent's name is not in its certificate", func(c *x509.Certificate) { c.URIs = []*url.URL{other} }, true, "application_uri: " + lineURI + "\n",
			"this agent's certificate", "own_certificate", []string{"urn:somebody:else", "leave application_uri out"}},
		{"the agent takes the name of its certificate", func(c *x509.Certificate) { c.URIs = []*url.URL{other} }, true, "", "", "", []string{"application URI urn:somebody:else"}},
		{"a policy that the server does not have", func(*x509.Certificate) {}, true, "security_policy: Basic256\nallow_deprecated: true\n",
			"the server offers", "security_not_offered", []string{"it offers None/None, Basic256Sha256/Sign"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			b.prepare(plant)
			agentPair(t, b, tt.change)
			if tt.admit {
				admit(b)
			}
			config, _ := counterConfig(plant.Endpoint(), 1)
			config = "certificate: agent.pem\nkey: agent.key\n" + tt.more + config
			var steps []signal.Step
			var text string
			realparts.Eventually(t, 20*time.Second, "the server has read its list of trusted clients", func() error {
				if err := plant.TrustRefused(); tt.admit && err != nil { // the first try may have come too early
					return err
				}
				steps = b.driver(config, nil).Probe(t.Context())
				if _, p := failure(steps); tt.admit && p != nil && p.Code == "agent_not_trusted" {
					return fmt.Errorf("%s", p.Reason)
				}
				return nil
			})
			text = story(t, steps)
			name, p := failure(steps)
			code := ""
			if p != nil {
				code = p.Code
			}
			if code != tt.code || !strings.Contains(name, tt.step) {
				t.Errorf("ends at %q with %q", name, code)
			}
			for _, s := range tt.says {
				if !strings.Contains(text, s) {
					t.Errorf("it does not say %q", s)
				}
			}
		})
	}
	t.Run("the agent does not know the server", func(t *testing.T) {
		b := newBench(t)
		b.password("secret")
		config, _ := counterConfig(plant.Endpoint(), 1)
		name, p := failure(b.driver(config, nil).Probe(t.Context()))
		list, err := ListRejected(b.dir)
		if p == nil || p.Code != "certificate_unknown" || !strings.Contains(name, "this agent trusts") || err != nil || len(list) != 1 {
			t.Fatalf("ends at %q with %+v; kept %v, %v", name, p, list, err)
		}
		if accepted, refused := logins(t, plant); refused != 0 {
			t.Errorf("%d logins accepted, %d refused", accepted, refused)
		}
		if _, err := os.Stat(filepath.Join(b.dir, "own", "cert.der")); err != nil {
			t.Errorf("there is no certificate to give to the server: %v", err)
		}
	})
}
