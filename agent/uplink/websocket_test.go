package uplink

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// passage is what stands at a hub: an HTTP server whose WebSockets are lines to the hub.
type passage struct{ *pipes }

func (p passage) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != pb.TunnelPath {
		http.NotFound(w, r)
		return
	}
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{pb.TunnelProtocol}})
	if err != nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	c := &watchedEnd{Conn: websocket.NetConn(ctx, ws, websocket.MessageBinary), ws: ws, end: make(chan struct{})}
	select {
	case p.conns <- c:
		<-c.end
	case <-p.closed:
		c.Close()
	}
}

type watchedEnd struct {
	net.Conn
	ws   *websocket.Conn
	once sync.Once
	end  chan struct{}
}

func (w *watchedEnd) Close() error {
	w.once.Do(func() { close(w.end) })
	return w.ws.CloseNow()
}

// serveInside serves the hub inside WebSockets on l; outer is the outer layer's TLS, nil for none.
func (h *hub) serveInside(l net.Listener, outer, inner *tls.Config) (stop func()) {
	p := passage{newPipes()}
	stopHub := h.serve(p, inner)
	if outer != nil {
		outer.NextProtos = []string{"http/1.1"}
		l = tls.NewListener(l, outer)
	}
	srv := &http.Server{Handler: p}
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	return func() { stopHub(); p.Close(); srv.Close(); wg.Wait() }
}

// outerTLS is what the hub's port shows to whoever knows HTTP/1.1 only: no certificate is asked for.
func (a *authority) outer(name string) *tls.Config {
	conf := a.server(name, -hour, day)
	conf.ClientAuth = tls.NoClientCert
	return conf
}

func arrived(t *testing.T, p *plant, h *hub, want int) {
	t.Helper()
	realparts.Eventually(t, 30*time.Second, "everything is acknowledged", func() error {
		if n := p.business.pending() + p.telemetry.pending(); n > 0 {
			return fmt.Errorf("%d are pending: %+v", n, p.up.Status())
		}
		return nil
	})
	h.mu.Lock()
	defer h.mu.Unlock()
	doubled := 0
	for _, n := range h.stored {
		doubled += n - 1
	}
	t.Logf("sent=%d stored=%d missing=%d doubled=%d", want, len(h.stored), want-len(h.stored), doubled)
	if len(h.stored) != want || doubled != 0 {
		t.Errorf("hub holds %d keys, want %d; doubled %d", len(h.stored), want, doubled)
	}
}

func TestInspectingProxyIsPassedInsideAWebSocketAndReadsNothing(t *testing.T) {
	a := newAuthority(t)
	h := newHub(t)
	l := listen(t, "127.0.0.1:0")
	defer h.serveInside(l, a.outer("hub.test"), a.server("hub.test", -hour, day))()
	proxy := realparts.NewInspector(t, realparts.InspectorOptions{
		User: "ulm", Password: "secret", Inspect: true, Reach: map[string]string{"hub.test:9443": l.Addr().String()},
	})
	p := newPlant(a)
	p.cfg.Proxy = proxy.URL()
	p.business.append(records(0, 5000, 300)...)
	stop := p.run(t)
	defer stop()
	arrived(t, p, h, 5000)
	st := p.up.Status()
	if st.Way != "websocket" || st.State != "connected" || !strings.Contains(st.WayReason, "Plant Web Gateway CA") {
		t.Errorf("status is %+v, want a WebSocket because of the gateway's certificate", st)
	}
	proxy.Cut() // the way that worked is tried first
	p.business.append(records(5000, 1000, 300)...)
	arrived(t, p, h, 6000)
	stop()
	seen := proxy.Seen()
	if len(seen) < 6000*300 || !bytes.Contains(seen, []byte(pb.TunnelPath)) {
		t.Fatalf("the proxy saw %d bytes: it did not inspect", len(seen))
	}
	for _, secret := range []string{"key-0000", "linekeeper.v1.Uplink"} {
		if bytes.Contains(seen, []byte(secret)) {
			t.Errorf("the proxy could read %q", secret)
		}
	}
}

func TestProxyThatForbidsTheHubsPortIsPassedAtPort443(t *testing.T) {
	a := newAuthority(t)
	h := newHub(t)
	l := listen(t, "127.0.0.1:0")
	defer h.serveInside(l, a.outer("gateway.test"), a.server("hub.test", -hour, day))()
	proxy := realparts.NewInspector(t, realparts.InspectorOptions{Ports: []string{"443"}, Reach: map[string]string{"hub.test:443": l.Addr().String()}})
	p := newPlant(a)
	p.cfg.Proxy = proxy.URL()
	p.business.append(records(0, 500, 300)...)
	defer p.run(t)()
	arrived(t, p, h, 500)
	if st := p.up.Status(); st.Way != "websocket" || !strings.Contains(st.WayReason, "403") || !strings.Contains(st.WayURL, ":443/") {
		t.Errorf("status is %+v", st)
	}
}

// Some firewalls let TLS come about and cut the line when they see what is inside.
func TestLineThatIsCutBeforeTheHubsFirstWordIsTriedInsideAWebSocket(t *testing.T) {
	a := newAuthority(t)
	h := newHub(t)
	l := listen(t, "127.0.0.1:0")
	defer h.serveInside(l, a.outer("hub.test"), a.server("hub.test", -hour, day))()
	conf := a.server("hub.test", -hour, day)
	conf.NextProtos = []string{"h2"}
	cutter := answer(t, func(c net.Conn) {
		s := tls.Server(c, conf)
		io.ReadFull(s, make([]byte, 24)) // HTTP/2's preface
		c.(*net.TCPConn).SetLinger(0)
	})
	router := realparts.NewInspector(t, realparts.InspectorOptions{Reach: map[string]string{"hub.test:9443": cutter, "hub.test:443": l.Addr().String()}})
	p := newPlant(a)
	p.connectTo("hub.test:9443")
	p.cfg.Proxy = router.URL()
	p.business.append(records(0, 500, 300)...)
	defer p.run(t)()
	arrived(t, p, h, 500)
	if st := p.up.Status(); st.Way != "websocket" || st.WayReason == "" {
		t.Errorf("status is %+v", st)
	}
}

func TestOuterCertificateIsCheckedAgainstAConfiguredFileOnly(t *testing.T) {
	a := newAuthority(t)
	h := newHub(t)
	l := listen(t, "127.0.0.1:0")
	defer h.serveInside(l, a.outer("hub.test"), a.server("hub.test", -hour, day))()
	proxy := realparts.NewInspector(t, realparts.InspectorOptions{Inspect: true, Reach: map[string]string{"hub.test:9443": l.Addr().String()}})
	for _, c := range []struct {
		name, file string
		works      bool
	}{
		{"the proxy's own authority", proxy.CAFile(t.TempDir()), true},
		{"another authority", newAuthority(t).caFile(), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlant(a)
			p.cfg.Proxy, p.cfg.WebSocket, p.cfg.WebSocketURL, p.cfg.WebSocketCAFile = proxy.URL(), "always", "wss://hub.test:9443"+pb.TunnelPath, c.file
			defer p.run(t)()
			realparts.Eventually(t, 20*time.Second, "it is decided", func() error {
				st := p.up.Status()
				switch {
				case c.works && st.State == "connected" && st.Way == "websocket":
				case !c.works && st.Code == "websocket_certificate" && strings.Contains(st.NextStep, "websocket_ca_file"):
				default:
					return fmt.Errorf("status is %+v", st)
				}
				return nil
			})
		})
	}
}

// A stranger at the end of the tunnel is not believed, whatever the outer layer says.
func TestInnerCertificateIsDemandedInsideTheWebSocket(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	h := newHub(t)
	l := listen(t, "127.0.0.1:0")
	inner := stranger.server("hub.test", -hour, day)
	inner.ClientAuth = tls.NoClientCert
	defer h.serveInside(l, a.outer("hub.test"), inner)()
	p := newPlant(a)
	p.connectTo(l.Addr().String())
	p.cfg.WebSocket, p.cfg.WebSocketURL = "always", "wss://"+l.Addr().String()+pb.TunnelPath
	code, reason, _ := reasonOf(t, p)
	if code != "hub_certificate_untrusted" || h.helloCount() != 0 {
		t.Errorf("code %q, reason %q, %d hellos", code, reason, h.helloCount())
	}
}

func TestWebSocketNeverAndFaultsOfBothWaysAreSaid(t *testing.T) {
	a := newAuthority(t)
	nowhere := answer(t, func(c net.Conn) { io.WriteString(c, "220 mail.example.com ESMTP ready\r\n"); io.Copy(io.Discard, c) })
	for mode, want := range map[string]string{"never": "does not speak TLS", "auto": "does not speak TLS; inside a WebSocket: no WebSocket to"} {
		p := newPlant(a)
		p.connectTo(nowhere)
		p.cfg.WebSocket, p.cfg.WebSocketURL = mode, "wss://"+nowhere+pb.TunnelPath
		code, reason, next := reasonOf(t, p)
		t.Logf("%s: %s: %s (%s)", mode, code, reason, next)
		if code != "not_tls" || !strings.Contains(reason, want) || strings.Contains(reason, "inside") != (mode == "auto") {
			t.Errorf("%s: code %q, reason %q", mode, code, reason)
		}
	}
}

func TestDirectWayIsTakenAgainOnceItWorksAndTheSessionIsNotDisturbedBefore(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		inside := newPipes()
		blocked := make(chan struct{})
		w.cfg.WebSocketURL = "ws://hub.test" + pb.TunnelPath
		w.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address == "hub.test:80" {
				return inside.Dial(ctx, network, address)
			}
			select {
			case <-blocked:
				return w.net.Dial(ctx, network, address)
			default:
				return nil, errors.New("the firewall says no")
			}
		}
		inner := w.auth.server("hub.test", -hour, day)
		stopDirect := w.hub.serve(w.net, inner)
		stopInside := w.hub.serveInside(inside, nil, inner)
		stop := w.run(t)
		defer func() { stop(); inside.Close(); stopInside(); stopDirect() }()
		w.business.append(records(0, 1000, 300)...)
		until(t, time.Minute, "connected inside a WebSocket", func() bool { return w.up.Status().Way == "websocket" })
		pause(t.Context(), 2*time.Hour)
		if n := w.hub.helloCount(); n != 1 || w.up.Status().Way != "websocket" {
			t.Fatalf("%d hellos while the direct way is blocked, want 1: %+v", n, w.up.Status())
		}
		close(blocked)
		until(t, 7*time.Hour, "direct again", func() bool { st := w.up.Status(); return st.Way == "direct" && st.WayReason == "" })
		w.business.append(records(1000, 1000, 300)...)
		until(t, time.Minute, "the rest is sent", func() bool { return w.business.pending() == 0 })
		if w.hub.count() != 2000 || w.hub.helloCount() != 2 {
			t.Errorf("hub has %d records after %d hellos, want 2000 after 2", w.hub.count(), w.hub.helloCount())
		}
	})
}

// A hub that ends cuts lines as a meddling firewall does. The direct way that worked is not given up for that.
func TestHubThatRestartsIsNotTakenForAFirewall(t *testing.T) {
	bubble(t, func(t *testing.T, w *world) {
		var cuts atomic.Int64
		var there atomic.Pointer[pipes]
		there.Store(w.net)
		inside := newPipes()
		conf := w.auth.server("hub.test", -hour, day)
		w.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
			if address != "hub.test:9443" {
				return inside.Dial(ctx, network, address)
			}
			n := there.Load()
			if n == nil {
				return nil, errors.New("connection refused")
			}
			if cuts.Add(-1) < 0 {
				return n.Dial(ctx, network, address)
			}
			ours, theirs := net.Pipe()
			go func() { theirs.Read(make([]byte, 1)); theirs.Close() }()
			return ours, nil
		}
		stopDirect := w.hub.serve(w.net, conf)
		outer := w.auth.outer("hub.test")
		stopInside := w.hub.serveInside(inside, outer, conf)
		defer func() { inside.Close(); stopInside() }()
		stop := w.run(t)
		defer func() { stop() }()
		until(t, time.Minute, "connected", func() bool { return w.up.Status().State == "connected" })
		for _, c := range []struct {
			cuts int64
			way  string
		}{{enoughCuts - 1, "direct"}, {enoughCuts, "websocket"}} {
			since := w.up.Status().Since
			there.Store(nil)
			stopDirect()
			pause(t.Context(), time.Second)
			again := newPipes()
			stopDirect = w.hub.serve(again, conf)
			cuts.Store(c.cuts)
			there.Store(again)
			until(t, time.Minute, "connected again", func() bool { st := w.up.Status(); return st.State == "connected" && st.Since.After(since) })
			if st := w.up.Status(); st.Way != c.way {
				t.Errorf("after %d cuts the way is %q because %q, want %q", c.cuts, st.Way, st.WayReason, c.way)
			}
		}
		stopDirect()
	})
}
