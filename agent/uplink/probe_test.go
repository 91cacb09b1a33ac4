package uplink

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// tale is a probe as a person reads it.
func tale(t *testing.T, steps []signal.Step) string {
	t.Helper()
	var b strings.Builder
	for _, s := range steps {
		switch {
		case s.Problem == nil:
			fmt.Fprintf(&b, "ok %s: %s\n", s.Name, s.Detail)
			continue
		case s.Warning:
			b.WriteString("warn ")
		default:
			b.WriteString("FAIL ")
		}
		fmt.Fprintf(&b, "%s: [%s] %s (%s)\n", s.Name, s.Problem.Code, s.Problem.Reason, s.Problem.NextStep)
		if s.Problem.Reason == "" || s.Problem.NextStep == "" {
			t.Errorf("step without reason or next step: %+v", s)
		}
	}
	t.Log("\n" + b.String())
	return b.String()
}

func TestAProbeOfTheHubSaysWhereTheWayEnds(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	for _, c := range []struct {
		name   string
		server func() *tls.Config
		change func(*Config)
		says   []string
	}{
		{"all is well", func() *tls.Config { return a.server("hub.test", -hour, 90*day) }, nil,
			[]string{"ok this agent's certificate for the hub is in order", "ok the hub ", "is reached: directly", "ok the hub and this agent trust each other"}},
		{"the hub's certificate ends soon", func() *tls.Config { return a.server("hub.test", -hour, 9*day) }, nil,
			[]string{"ok the hub and this agent trust each other", "warn the hub's certificate lasts: [hub_certificate_ends]"}},
		{"this agent's certificate ends soon", func() *tls.Config { return a.server("hub.test", -hour, 90*day) },
			func(c *Config) { c.CertFile, c.KeyFile = a.issue("short", -hour, 9*day) },
			[]string{"warn this agent's certificate for the hub is in order: [own_certificate_ends]", "ok the hub and this agent trust each other"}},
		{"this agent is a stranger", func() *tls.Config { return a.server("hub.test", -hour, 90*day) },
			func(c *Config) { c.CertFile, c.KeyFile = stranger.issue("agent", -hour, 90*day) },
			[]string{"FAIL the hub and this agent trust each other: [own_certificate_refused]"}},
		{"the hub has another name", func() *tls.Config { return a.server("other.test", -hour, 90*day) }, func(c *Config) { c.WebSocket = wsNever },
			[]string{"FAIL the hub and this agent trust each other: [hub_certificate_name]"}},
		{"no certificate", func() *tls.Config { return a.server("hub.test", -hour, 90*day) }, func(c *Config) { c.CertFile = "/nowhere/agent.pem" },
			[]string{"FAIL this agent's certificate for the hub is in order: [own_files]"}},
		{"nobody there", nil, nil, []string{"FAIL the hub ", "[hub_connection_refused]"}},
		{"no address", nil, func(c *Config) { c.Address = "hub" }, []string{"FAIL the configuration of the hub is in order: [config]"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub(t)
			l := listen(t, "127.0.0.1:0")
			address := l.Addr().String()
			if c.server == nil {
				l.Close()
			} else {
				defer h.serve(l, c.server())()
			}
			p := newPlant(a)
			p.cfg.CertFile, p.cfg.KeyFile = a.issue("agent", -hour, 90*day)
			p.connectTo(address)
			p.cfg.ConnectTimeout = 5 * time.Second
			if c.change != nil {
				c.change(&p.cfg)
			}
			text := tale(t, Probe(t.Context(), p.cfg))
			for _, s := range c.says {
				if !strings.Contains(text, s) {
					t.Errorf("it does not say %q", s)
				}
			}
			if h.helloCount() != 0 {
				t.Error("the hub was told hello: it would take the probe for a second agent")
			}
		})
	}
}

func TestAProbeOfTheHubFindsTheWayThroughAnInspectingProxy(t *testing.T) {
	a := newAuthority(t)
	h := newHub(t)
	l := listen(t, "127.0.0.1:0")
	defer h.serveInside(l, a.outer("hub.test"), a.server("hub.test", -hour, 90*day))()
	proxy := realparts.NewInspector(t, realparts.InspectorOptions{
		User: "ulm", Password: "secret", Inspect: true, Reach: map[string]string{"hub.test:9443": l.Addr().String()},
	})
	p := newPlant(a)
	p.cfg.CertFile, p.cfg.KeyFile = a.issue("agent", -hour, 90*day)
	p.cfg.Proxy = proxy.URL()
	text := tale(t, Probe(t.Context(), p.cfg))
	for _, s := range []string{"warn the hub and this agent trust each other: [hub_certificate_untrusted]", "ok the hub is reached inside a WebSocket: wss://",
		"ok the hub and this agent trust each other inside the WebSocket", "through the proxy"} {
		if !strings.Contains(text, s) {
			t.Errorf("it does not say %q", s)
		}
	}
	if strings.Contains(text, "secret") {
		t.Error("the proxy's password was shown")
	}
}
