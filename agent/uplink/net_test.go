package uplink

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// The tests of this file use real TCP on loopback.

// seed returns the seed of this run and says how to have it again.
func seed(t *testing.T) uint64 {
	n := uint64(time.Now().UnixNano())
	if s := os.Getenv("UPLINK_SEED"); s != "" {
		var err error
		if n, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed: UPLINK_SEED=%d", n)
	return n
}

// frail is a connection that breaks after some bytes, in the middle of whatever is under way.
type frail struct {
	net.Conn
	mu   sync.Mutex
	left int
}

// spend reports whether the connection broke.
func (f *frail) spend(n int) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.left -= n; f.left < 0 {
		f.Close()
	}
	return f.left < 0
}

func (f *frail) Read(b []byte) (int, error) { n, err := f.Conn.Read(b); f.spend(n); return n, err }
func (f *frail) Write(b []byte) (int, error) {
	f.mu.Lock()
	left := f.left
	f.mu.Unlock()
	if len(b) > left && left > 0 {
		b = b[:left] // half of a frame still goes out
	}
	n, err := f.Conn.Write(b)
	if broken := f.spend(n + 1); err == nil && broken {
		err = net.ErrClosed
	}
	return n, err
}

func listen(t testing.TB, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// connectTo points the line at l, whose certificate says "hub.test", with short pauses.
func (p *plant) connectTo(address string) {
	p.cfg.Address, p.cfg.ServerName = address, "hub.test"
	p.cfg.BackoffMin, p.cfg.BackoffMax = time.Millisecond, 20*time.Millisecond
	p.cfg.RefusedMin, p.cfg.RefusedMax = time.Millisecond, 20*time.Millisecond
}

func TestThousandCutsAtRandomPointsLoseNothingAndDoubleNothing(t *testing.T) {
	t.Run("direct", func(t *testing.T) { cutAtRandom(t, 1000, false) })
	t.Run("inside a WebSocket", func(t *testing.T) { cutAtRandom(t, 150, true) })
}

// cutAtRandom sends facts, readings and deliveries for as long as it takes to be cut so often.
func cutAtRandom(t *testing.T, cuts int, inside bool) {
	n := seed(t)
	sizes, places := rand.New(rand.NewPCG(n, 1)), rand.New(rand.NewPCG(n, 2))
	a := newAuthority(t)
	h := newHub(t)
	l := listen(t, "127.0.0.1:0")
	p := newPlant(a)
	p.connectTo(l.Addr().String())
	if inside {
		p.cfg.WebSocket, p.cfg.WebSocketURL = "always", "wss://"+l.Addr().String()+pb.TunnelPath
		defer h.serveInside(l, a.outer("hub.test"), a.server("hub.test", -hour, day))()
	} else {
		defer h.serve(l, a.server("hub.test", -hour, day))()
	}
	p.cfg.BackoffMax = 2 * time.Millisecond
	in := &box{}
	p.deps.Inbox = in
	for i := int64(1); i <= 2000; i++ {
		h.deliveries = append(h.deliveries, &pb.Delivery{Seq: i})
	}
	made := 0
	var mu sync.Mutex
	p.cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		mu.Lock()
		defer mu.Unlock()
		if err != nil || made >= cuts {
			return c, err
		}
		made++
		return &frail{Conn: c, left: 1000 + places.IntN(30_000)}, nil
	}
	check := func(s pb.Stream) func(string, uint64) {
		return func(gen string, seq uint64) {
			h.mu.Lock()
			defer h.mu.Unlock()
			if held := h.acked[laneName(s, gen)]; held < seq {
				t.Errorf("%s: acknowledged %d, the hub holds %d", s, seq, held)
			}
		}
	}
	p.business.onAck, p.telemetry.onAck = check(pb.Stream_STREAM_BUSINESS), check(pb.Stream_STREAM_TELEMETRY)
	stop := p.run(t)
	defer stop()
	facts, readings := 0, 0
	realparts.Eventually(t, 2*time.Minute, "cut often enough", func() error {
		for range 20 { // always something to be cut in
			if p.business.pending() < 2000 {
				p.business.append(records(facts, 100, 60+sizes.IntN(300))...)
				facts += 100
			}
			if p.telemetry.pending() < 200 {
				p.telemetry.append(records(100_000_000+readings, 100, 60)...)
				readings += 100
			}
		}
		mu.Lock()
		defer mu.Unlock()
		if made < cuts {
			return fmt.Errorf("%d of %d", made, cuts)
		}
		return nil
	})
	realparts.Eventually(t, time.Minute, "everything is acknowledged", func() error {
		_, down := in.Position()
		if b, tl := p.business.pending(), p.telemetry.pending(); b+tl > 0 || down != 2000 {
			return fmt.Errorf("%d facts, %d readings are pending, %d deliveries stored: %+v", b, tl, down, p.up.Status())
		}
		return nil
	})
	stop()
	h.mu.Lock()
	defer h.mu.Unlock()
	doubled := 0
	for _, n := range h.stored {
		doubled += n - 1
	}
	for i, seq := range in.stored {
		if seq != int64(i+1) {
			t.Fatalf("delivery %d was stored as number %d", seq, i+1)
		}
	}
	t.Logf("cuts=%d hellos=%d facts=%d readings=%d deliveries=%d missing=%d doubled=%d", made, len(h.hellos), facts, readings, len(in.stored), facts+readings-len(h.stored), doubled)
	if len(h.stored) != facts+readings || doubled != 0 {
		t.Errorf("the hub holds %d keys, want %d", len(h.stored), facts+readings)
	}
	if len(h.hellos) < cuts/4 {
		t.Errorf("only %d connections came as far as hello: the cuts did not work", len(h.hellos))
	}
}

func TestHubRestartLosesNothingFromTheRealBuffer(t *testing.T) {
	a := newAuthority(t)
	h := newHub(t)
	l := listen(t, "127.0.0.1:0")
	address := l.Addr().String()
	conf := a.server("hub.test", -hour, day)
	stopHub := h.serve(l, conf)
	b, err := buffer.Open(buffer.Config{Dir: t.TempDir(), DiskReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	p := newPlant(a)
	p.connectTo(address)
	p.deps.Business, p.deps.Telemetry = b, nil
	defer p.run(t)()
	for restart := range 4 {
		err := b.Commit(t.Context(), func(tx *buffer.Tx) error {
			for _, r := range records(restart*5000, 5000, 300) {
				tx.Append(r)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		stopHub()
		stopHub = h.serve(listen(t, address), conf)
	}
	defer func() { stopHub() }()
	realparts.Eventually(t, time.Minute, "everything is acknowledged", func() error {
		if s := b.Stats(); s.Pending > 0 {
			return fmt.Errorf("%d are pending: %+v", s.Pending, p.up.Status())
		}
		return nil
	})
	if n := h.count(); n != 20_000 {
		t.Errorf("hub holds %d keys, want 20000", n)
	}
}

// reasonOf runs the line until it is down and returns how it says so.
func reasonOf(t *testing.T, p *plant) (code, reason, next string) {
	t.Helper()
	stop := p.run(t)
	defer stop()
	realparts.Eventually(t, 20*time.Second, "the line is down", func() error {
		if st := p.up.Status(); st.Code == "" {
			return fmt.Errorf("status is %+v", st)
		}
		return nil
	})
	st := p.up.Status()
	return st.Code, st.Reason, st.NextStep
}

func TestEachCertificateFaultHasItsOwnReason(t *testing.T) {
	a, stranger := newAuthority(t), newAuthority(t)
	type files struct{ cert, key string }
	own := func(a *authority, from, to time.Duration) func() files {
		return func() files { c, k := a.issue("agent", from, to); return files{c, k} }
	}
	good := own(a, -hour, day)
	for _, c := range []struct {
		name   string
		server func() *tls.Config
		own    func() files
		code   string
		words  []string
	}{
		{"hub expired", func() *tls.Config { return a.server("hub.test", -9*day, -3*day-hour) }, good, "hub_certificate_expired", []string{"hub certificate expired 3 days ago"}},
		{"own clock is behind", func() *tls.Config { return a.server("hub.test", 41*time.Minute+30*time.Second, day) }, good, "clock", []string{"clock is wrong by at least 41 minutes"}},
		{"both expired", func() *tls.Config { return a.server("hub.test", -9*day, -3*day-hour) }, own(a, -9*day, -2*day-hour), "clock", []string{"clock is probably wrong", "3 days", "2 days"}},
		{"hub of a stranger", func() *tls.Config {
			conf := stranger.server("hub.test", -hour, day)
			conf.ClientCAs = a.server("x", -hour, day).ClientCAs
			return conf
		}, good, "hub_certificate_untrusted", []string{"hub certificate is not trusted", "does not know"}},
		{"hub with another name", func() *tls.Config { return a.server("other.test", -hour, day) }, good, "hub_certificate_name", []string{"hub certificate is not trusted", "other.test", "hub.test"}},
		{"own expired", func() *tls.Config { return a.server("hub.test", -hour, day) }, own(a, -9*day, -5*hour-time.Minute), "own_certificate_expired", []string{"own certificate expired 5 hours ago"}},
		{"own not yet valid", func() *tls.Config { return a.server("hub.test", -hour, day) }, own(a, 3*hour+time.Minute, day), "clock", []string{"clock is wrong by at least 3 hours"}},
		{"own from a stranger", func() *tls.Config { return a.server("hub.test", -hour, day) }, own(stranger, -hour, day), "own_certificate_refused", []string{"does not accept this agent's certificate"}},
		{"own file missing", func() *tls.Config { return a.server("hub.test", -hour, day) }, func() files { return files{"/nowhere/agent.pem", "/nowhere/agent.key"} }, "own_files", []string{"/nowhere/agent.pem", "does not exist"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := newHub(t)
			l := listen(t, "127.0.0.1:0")
			defer h.serve(l, c.server())()
			p := newPlant(a)
			p.connectTo(l.Addr().String())
			f := c.own()
			p.cfg.CertFile, p.cfg.KeyFile = f.cert, f.key
			code, reason, next := reasonOf(t, p)
			t.Logf("%s: %s (%s)", code, reason, next)
			if code != c.code || next == "" {
				t.Errorf("code is %q, want %q; next step %q", code, c.code, next)
			}
			for _, w := range c.words {
				if !strings.Contains(reason, w) {
					t.Errorf("reason %q lacks %q", reason, w)
				}
			}
		})
	}
}

func TestRenewedCertificateIsUsedAtTheNextConnect(t *testing.T) {
	a := newAuthority(t)
	h := newHub(t)
	l := listen(t, "127.0.0.1:0")
	defer h.serve(l, a.server("hub.test", -hour, day))()
	p := newPlant(a)
	p.connectTo(l.Addr().String())
	a.issue("agent", -2*day, -day) // the files now hold an expired one
	defer p.run(t)()
	realparts.Eventually(t, 20*time.Second, "the expired one is refused", func() error {
		if st := p.up.Status(); st.Code != "own_certificate_expired" {
			return fmt.Errorf("status is %+v", st)
		}
		return nil
	})
	a.issue("agent", -hour, day)
	realparts.Eventually(t, 20*time.Second, "connected", func() error {
		if st := p.up.Status(); st.State != "connected" {
			return fmt.Errorf("status is %+v", st)
		}
		return nil
	})
}

// answer serves each connection with f.
func answer(t *testing.T, f func(net.Conn)) (address string) {
	t.Helper()
	l := listen(t, "127.0.0.1:0")
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { defer c.Close(); f(c) })
		}
	})
	t.Cleanup(func() { l.Close(); wg.Wait() })
	return l.Addr().String()
}

func TestEachNetworkFaultHasItsOwnReason(t *testing.T) {
	a := newAuthority(t)
	fails := func(err error) func(context.Context, string, string) (net.Conn, error) {
		return func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Net: "tcp", Err: err}
		}
	}
	for _, c := range []struct {
		name    string
		prepare func(t *testing.T, p *plant)
		code    string
		word    string
	}{
		{"nobody listens", func(t *testing.T, p *plant) { p.connectTo(fmt.Sprintf("127.0.0.1:%d", realparts.FreePort(t))) }, "hub_connection_refused", "connection refused by hub"},
		{"name unknown", func(_ *testing.T, p *plant) {
			p.cfg.Dial = fails(&net.DNSError{Err: "no such host", Name: "x", IsNotFound: true})
		}, "dns", "hub name not found"},
		{"name server down", func(_ *testing.T, p *plant) {
			p.cfg.Dial = fails(&net.DNSError{Err: "timeout", Name: "x", IsTimeout: true})
		}, "dns", "name server does not answer"},
		{"no answer", func(_ *testing.T, p *plant) { p.cfg.Dial = fails(os.ErrDeadlineExceeded) }, "hub_timeout", "does not answer"},
		{"not TLS", func(t *testing.T, p *plant) {
			p.connectTo(answer(t, func(c net.Conn) { io.WriteString(c, "220 mail.example.com ESMTP ready\r\n"); io.Copy(io.Discard, c) }))
		}, "not_tls", "does not speak TLS"},
		{"no HTTP/2", func(t *testing.T, p *plant) {
			conf := a.server("hub.test", -hour, day)
			p.connectTo(answer(t, func(c net.Conn) { io.Copy(io.Discard, tls.Server(c, conf)) }))
		}, "no_http2", "does not offer HTTP/2"},
		{"not a hub", func(t *testing.T, p *plant) {
			l := listen(t, "127.0.0.1:0")
			srv := &http.Server{TLSConfig: a.server("hub.test", -hour, day)}
			var wg sync.WaitGroup
			wg.Go(func() { srv.ServeTLS(l, "", "") })
			t.Cleanup(func() { srv.Close(); wg.Wait() })
			p.connectTo(l.Addr().String())
		}, "not_a_hub", "is not a hub"},
		{"proxy refuses", func(t *testing.T, p *plant) {
			p.cfg.Proxy = fmt.Sprintf("http://127.0.0.1:%d", realparts.FreePort(t))
		}, "proxy_connection_refused", "connection refused by proxy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlant(a)
			c.prepare(t, p)
			code, reason, next := reasonOf(t, p)
			t.Logf("%s: %s (%s)", code, reason, next)
			if code != c.code || !strings.Contains(reason, c.word) || next == "" {
				t.Errorf("code %q, reason %q, next %q; want %q, %q", code, reason, next, c.code, c.word)
			}
		})
	}
}

// proxy is an HTTP proxy that wants a login.
func proxy(t *testing.T, scheme string, reach map[string]string) (address string, asked *[]string) {
	asked = new([]string)
	var mu sync.Mutex
	address = answer(t, func(c net.Conn) {
		r := bufio.NewReader(c)
		req, err := http.ReadRequest(r)
		if err != nil || req.Method != http.MethodConnect {
			fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			return
		}
		mu.Lock()
		*asked = append(*asked, req.Host)
		mu.Unlock()
		if req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("ulm:p@ss")) {
			fmt.Fprintf(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: %s\r\nContent-Length: 0\r\n\r\n", scheme)
			return
		}
		to, ok := reach[req.Host]
		if !ok {
			fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
			return
		}
		hub, err := net.Dial("tcp", to)
		if err != nil {
			fmt.Fprint(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
			return
		}
		defer hub.Close()
		fmt.Fprint(c, "HTTP/1.1 200 Connection established\r\n\r\n")
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(hub, r); hub.(*net.TCPConn).CloseWrite() })
		io.Copy(c, hub)
		c.Close()
		wg.Wait()
	})
	return address, asked
}

func TestProxyWithLoginIsPassedAndLooksUpTheName(t *testing.T) {
	a := newAuthority(t)
	h := newHub(t)
	l := listen(t, "127.0.0.1:0")
	defer h.serve(l, a.server("hub.test", -hour, day))()
	// Only the proxy knows what hub.test is.
	address, asked := proxy(t, "Basic realm=\"x\"", map[string]string{"hub.test:9443": l.Addr().String()})
	p := newPlant(a)
	p.cfg.Proxy = "http://ulm:p%40ss@" + address
	stop := p.run(t)
	p.business.append(records(0, 1000, 300)...)
	realparts.Eventually(t, 20*time.Second, "sent through the proxy", func() error {
		if n := p.business.pending(); n > 0 {
			return fmt.Errorf("%d are pending: %+v", n, p.up.Status())
		}
		return nil
	})
	stop()
	if len(*asked) == 0 || (*asked)[0] != "hub.test:9443" {
		t.Errorf("proxy was asked for %v", *asked)
	}
}

func TestEachProxyFaultHasItsOwnReason(t *testing.T) {
	a := newAuthority(t)
	gone := fmt.Sprintf("127.0.0.1:%d", realparts.FreePort(t))
	basic, _ := proxy(t, "Basic realm=\"plant\"", map[string]string{"hub.test:9443": gone})
	ntlm, _ := proxy(t, "NTLM", nil)
	forbids, _ := proxy(t, "Basic", nil)
	garbage := answer(t, func(c net.Conn) { io.WriteString(c, "SSH-2.0-OpenSSH_9\r\n") })
	for _, c := range []struct{ name, proxy, code, reason, next string }{
		{"no login", "http://" + basic, "proxy_login", "proxy asks for login (407)", "set user and password"},
		{"wrong login", "http://ulm:wrong@" + basic, "proxy_login", "proxy asks for login (407)", "correct them"},
		{"only NTLM", "http://" + ntlm, "proxy_login", "proxy asks for login (407)", "offers only NTLM"},
		{"forbidden", "http://ulm:p%40ss@" + forbids, "proxy_forbidden", "forbids", "exception"},
		{"hub unreachable from there", "http://ulm:p%40ss@" + basic, "proxy_answer", "502", "looks the name up"},
		{"not a proxy", "http://" + garbage, "proxy_answer", "not HTTP", "port of the proxy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPlant(a)
			p.cfg.Proxy = c.proxy
			code, reason, next := reasonOf(t, p)
			if code != c.code || !strings.Contains(reason, c.reason) || !strings.Contains(next, c.next) {
				t.Errorf("code %q, reason %q, next %q", code, reason, next)
			}
		})
	}
}

func TestProxyComesFromTheEnvironmentUnlessConfigured(t *testing.T) {
	t.Setenv("HTTPS_PROXY", "http://env.example.com:3128")
	t.Setenv("NO_PROXY", "inside.example.com")
	for _, c := range []struct{ configured, address, want string }{
		{"", "hub.example.com:9443", "env.example.com:3128"},
		{"", "inside.example.com:9443", ""},
		{"direct", "hub.example.com:9443", ""},
		{"http://own.example.com:8080", "inside.example.com:9443", "own.example.com:8080"},
		{"http://own.example.com", "hub.example.com:9443", "own.example.com:80"},
	} {
		u, err := proxyFor(c.configured, c.address)
		got := ""
		if u != nil {
			got = u.Host
		}
		if err != nil || got != c.want {
			t.Errorf("proxy %q for %q is %q (%v), want %q", c.configured, c.address, got, err, c.want)
		}
	}
}

func TestConfigurationFaultsAreListedWithoutTheProxysPassword(t *testing.T) {
	faults := Config{Address: "hub", Proxy: "ftp://user:secret@proxy"}.Validate()
	text := errors.Join(faults...).Error()
	if len(faults) != 3 || strings.Contains(text, "secret") {
		t.Errorf("faults are %q", text)
	}
}

// BenchmarkRecords sends records of 300 bytes over TLS on loopback to a hub that only acknowledges.
func BenchmarkRecords(b *testing.B) {
	a := newAuthority(b)
	h := &sinkHub{done: make(chan struct{})}
	l := listen(b, "127.0.0.1:0")
	defer serveSink(h, l, a.server("hub.test", -hour, day))()
	p := newPlant(a)
	p.connectTo(l.Addr().String())
	const block = 1 << 16
	h.want = uint64(max(b.N, block))
	bodies := records(0, block, 300)
	for n := uint64(0); n < h.want; n += block {
		p.business.append(bodies[:min(block, h.want-n)]...)
	}
	b.ResetTimer()
	began := time.Now()
	stop := p.run(b)
	<-h.done
	b.ReportMetric(float64(h.want)/time.Since(began).Seconds(), "records/s")
	b.StopTimer()
	stop()
}
