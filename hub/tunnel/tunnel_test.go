package tunnel

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"google.golang.org/grpc/credentials"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is an agents' port with a service behind it, and the certificates of both sides.
type site struct {
	t       *testing.T
	tunnel  *Tunnel
	address string
	agent   *tls.Config // with a certificate that the port accepts
}

func newSite(t *testing.T, o Options) *site {
	t.Helper()
	key, _ := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true, DNSNames: []string{"hub.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := x509.ParseCertificate(der)
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	pair := tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	s := &site{
		t: t, tunnel: New(o), agent: &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: pool, ServerName: "hub.test", MinVersion: tls.VersionTLS12},
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.address = l.Addr().String()
	conf := &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS12}
	srv := grpc.NewServer(grpc.Creds(s.tunnel.Credentials(conf)), grpc.ConnectionTimeout(2*time.Second))
	healthpb.RegisterHealthServer(srv, health.NewServer())
	plain := s.tunnel.PlainServer()
	var wg sync.WaitGroup
	wg.Go(func() { srv.Serve(l) })
	wg.Go(func() { srv.Serve(s.tunnel) })
	wg.Go(func() { plain.Serve(s.tunnel.PlainListener()) })
	t.Cleanup(func() { s.tunnel.Close(); plain.Close(); srv.Stop(); wg.Wait() })
	return s
}

// stranger has no certificate, and proto is what it offers.
func (s *site) stranger(proto ...string) *tls.Config {
	c := s.agent.Clone()
	c.Certificates, c.NextProtos = nil, proto
	return c
}

// ask calls the service; dial is nil for the direct way.
func (s *site) ask(conf *tls.Config, dial func(context.Context) (net.Conn, error)) error {
	opts := []grpc.DialOption{grpc.WithTransportCredentials(credentials.NewTLS(conf)), grpc.WithDisableServiceConfig()}
	if dial != nil {
		opts = append(opts, grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }))
	}
	c, err := grpc.NewClient("passthrough:///"+s.address, opts...)
	if err != nil {
		return err
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
	defer cancel()
	_, err = healthpb.NewHealthClient(c).Check(ctx, &healthpb.HealthCheckRequest{})
	return err
}

// client is an HTTP client without a certificate.
func (s *site) client() *http.Client {
	tr := &http.Transport{
		TLSClientConfig: s.stranger("http/1.1"),
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", s.address)
		},
	}
	s.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (s *site) through(ctx context.Context) (net.Conn, error) {
	ws, _, err := websocket.Dial(ctx, "https://hub.test"+pb.TunnelPath, &websocket.DialOptions{HTTPClient: s.client(), Subprotocols: []string{pb.TunnelProtocol}})
	if err != nil {
		return nil, err
	}
	return websocket.NetConn(context.WithoutCancel(ctx), ws, websocket.MessageBinary), nil
}

func TestAgentIsServedDirectlyAndThroughTheTunnelAtOnePort(t *testing.T) {
	s := newSite(t, Options{})
	if err := s.ask(s.agent, nil); err != nil {
		t.Errorf("direct: %v", err)
	}
	if err := s.ask(s.agent, s.through); err != nil {
		t.Errorf("through the tunnel: %v", err)
	}
}

func TestStrangerIsRefusedOnBothWaysAndReachesNothingButTheTunnel(t *testing.T) {
	s := newSite(t, Options{})
	if err := s.ask(s.stranger(), nil); err == nil {
		t.Error("direct: served without a certificate")
	}
	if err := s.ask(s.stranger(), s.through); err == nil {
		t.Error("through the tunnel: served without a certificate")
	}
	for path, want := range map[string]int{"/": 404, "/v1/facts": 404, pb.TunnelPath: http.StatusUpgradeRequired} {
		resp, err := s.client().Get("https://hub.test" + path)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s answers %d, want %d", path, resp.StatusCode, want)
		}
		if at, err := http.ParseTime(resp.Header.Get("Date")); err != nil || time.Since(at).Abs() > time.Minute {
			t.Errorf("%s tells the time %q", path, resp.Header.Get("Date"))
		}
	}
	// A tunnel inside a tunnel: the inner side must not come to the plain part again.
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	c, err := s.through(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	inner := tls.Client(c, s.stranger("http/1.1"))
	inner.Handshake()
	io.WriteString(inner, "GET / HTTP/1.1\r\nHost: hub.test\r\n\r\n")
	if b, _ := io.ReadAll(inner); strings.Contains(string(b), "HTTP/1.1") {
		t.Errorf("answered inside a tunnel: %q", b)
	}
}

func TestTunnelsAreBoundedAndFreedWhenTheyEnd(t *testing.T) {
	s := newSite(t, Options{Limit: 3})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var open []net.Conn
	for range 3 {
		c, err := s.through(ctx)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, c)
	}
	if _, err := s.through(ctx); err == nil || !strings.Contains(err.Error(), "503") {
		t.Errorf("a fourth tunnel: %v, want 503", err)
	}
	for _, c := range open {
		c.Close()
	}
	for { // its end is noticed a moment later
		c, err := s.through(ctx)
		if err == nil {
			c.Close()
			break
		}
		if ctx.Err() != nil {
			t.Fatalf("no room after all have ended: %v", err)
		}
	}
}

// Whoever opens a tunnel and says nothing is let go after a while, and does not keep the hub from ending.
func TestSilentTunnelIsClosed(t *testing.T) {
	s := newSite(t, Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	c, err := s.through(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	began := time.Now()
	c.SetReadDeadline(began.Add(15 * time.Second))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("it says something")
	}
	if took := time.Since(began); took > 10*time.Second || s.tunnel.Open() > 1 {
		t.Errorf("closed after %s, %d open", took, s.tunnel.Open())
	}
}
