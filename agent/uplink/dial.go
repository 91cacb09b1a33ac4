package uplink

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http/httpproxy"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

// attempt is one try to reach the hub. It remembers what each step met, because gRPC hands on only its text.
type attempt struct {
	cfg   *Config
	way   way
	proxy *url.URL
	own   *x509.Certificate
	// piece is the most bytes that are given to TLS at once, 0 for any number.
	piece   atomic.Int64
	dialled atomic.Bool
	got     atomic.Int64 // bytes from the hub

	mu      sync.Mutex
	conns   []net.Conn
	dialErr error
	tlsErr  error
	readErr error
	heard   bool // something came from the hub after the handshake
	greeted bool // the hub answered hello
	secured bool // TLS is there
	hub     *x509.Certificate
	outer   string // who signed the certificate of the outer layer, when the line is inside a WebSocket
}

// target is the address that is dialled.
func (a *attempt) target() string {
	u, err := url.Parse(a.way.url)
	if a.way.url == "" || err != nil {
		return a.cfg.Address
	}
	port := u.Port()
	if port == "" {
		port = map[string]string{"ws": "80", "wss": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// open reads the certificates and returns a client that connects at its first call.
func (a *attempt) open() (*grpc.ClientConn, error) {
	tlsConfig, err := a.tlsConfig()
	if err != nil {
		return nil, err
	}
	if a.proxy, err = proxyFor(a.cfg.Proxy, a.target()); err != nil {
		return nil, err
	}
	return grpc.NewClient("passthrough:///"+a.cfg.Address,
		grpc.WithContextDialer(a.dial),
		grpc.WithTransportCredentials(&watchedTLS{credentials.NewTLS(tlsConfig), a}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: a.cfg.Keepalive, Timeout: a.cfg.KeepaliveTimeout}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: a.cfg.ConnectTimeout}),
		grpc.WithDisableServiceConfig(),
		grpc.WithDisableRetry(),
		grpc.WithIdleTimeout(0),
		grpc.WithUserAgent("linekeeper-agent/"+a.cfg.Version),
	)
}

func (a *attempt) tlsConfig() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(a.cfg.CertFile, a.cfg.KeyFile)
	if err != nil {
		return nil, fileFault("own certificate", a.cfg.CertFile, err)
	}
	a.own = pair.Leaf
	var roots *x509.CertPool
	if a.cfg.CAFile != "" {
		pem, err := os.ReadFile(a.cfg.CAFile)
		if err != nil {
			return nil, fileFault("CA file", a.cfg.CAFile, err)
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, fileFault("CA file", a.cfg.CAFile, errors.New("it holds no certificate"))
		}
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, ServerName: a.cfg.ServerName, RootCAs: roots, Certificates: []tls.Certificate{pair}, Time: a.cfg.Now,
	}, nil
}

// errOneDial answers gRPC when it dials again by itself: pauses and ways are chosen by Run.
var errOneDial = errors.New("one connection for each attempt")

// dial opens what the agent's TLS runs on.
func (a *attempt) dial(ctx context.Context, address string) (conn net.Conn, err error) {
	if a.dialled.Swap(true) {
		return nil, errOneDial
	}
	if a.way.url != "" {
		conn, err = a.dialWebSocket(ctx)
	} else if conn, err = a.dialTCP(ctx, address); err == nil {
		a.keep(conn)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.dialErr = err
	return conn, err
}

// keep remembers a TCP connection for cut.
func (a *attempt) keep(c net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.conns = append(a.conns, c)
}

// cut closes the connections below gRPC, which would otherwise wait some seconds for a peer that no longer reads.
func (a *attempt) cut() {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, c := range a.conns {
		c.Close()
	}
}

func (a *attempt) dialTCP(ctx context.Context, address string) (net.Conn, error) {
	if a.proxy == nil {
		return a.cfg.Dial(ctx, "tcp", address)
	}
	conn, err := a.cfg.Dial(ctx, "tcp", a.proxy.Host)
	if err != nil {
		return nil, err
	}
	through, err := tunnel(ctx, conn, a.proxy, address)
	if err != nil {
		conn.Close()
		return nil, err
	}
	return through, nil
}

// proxyFor returns the proxy to use for address, nil for none. The host name is resolved by the proxy.
func proxyFor(configured, address string) (*url.URL, error) {
	switch configured {
	case "direct":
		return nil, nil
	case "":
		return httpproxy.FromEnvironment().ProxyFunc()(&url.URL{Scheme: "https", Host: address})
	}
	p, err := url.Parse(configured)
	if err != nil || p.Scheme != "http" || p.Hostname() == "" {
		// The value may hold a password: it is not repeated.
		return nil, errors.New("proxy is not understood: write it like \"http://user:password@proxy.example.com:3128\", or \"direct\"")
	}
	if p.Port() == "" {
		p.Host = net.JoinHostPort(p.Hostname(), "80")
	}
	return p, nil
}

// tunnel asks the proxy at the other end of conn for a way to address.
func tunnel(ctx context.Context, conn net.Conn, proxy *url.URL, address string) (net.Conn, error) {
	stop := context.AfterFunc(ctx, func() { conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var b strings.Builder
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: linekeeper-agent\r\n", address, address)
	if proxy.User != nil {
		password, _ := proxy.User.Password()
		login := base64.StdEncoding.EncodeToString([]byte(proxy.User.Username() + ":" + password))
		fmt.Fprintf(&b, "Proxy-Authorization: Basic %s\r\n", login)
	}
	b.WriteString("\r\n")
	if _, err := io.WriteString(conn, b.String()); err != nil {
		return nil, fmt.Errorf("ask proxy %q: %w", proxy.Host, err)
	}
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, &http.Request{Method: http.MethodConnect})
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return nil, &Fault{"proxy_answer", "proxy " + proxy.Host + " answers something that is not HTTP", "check address and port of the proxy", false, err}
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, proxyFault(proxy, resp)
	}
	if r.Buffered() > 0 {
		return &prefixed{conn, r}, nil
	}
	return conn, nil
}

func proxyFault(proxy *url.URL, resp *http.Response) *Fault {
	switch resp.StatusCode {
	case http.StatusProxyAuthRequired:
		offered := strings.Join(resp.Header.Values("Proxy-Authenticate"), ", ")
		next := "set user and password of the proxy in the configuration"
		switch {
		case offered != "" && !strings.Contains(strings.ToLower(offered), "basic"):
			next = "this proxy offers only " + oneLine(offered) + ": ask for an exception for the hub's address, or for Basic login"
		case proxy.User != nil:
			next = "the proxy does not take the user and password of the configuration: correct them"
		}
		return &Fault{Code: "proxy_login", Reason: "proxy asks for login (407)", NextStep: next}
	case http.StatusForbidden:
		return &Fault{Code: "proxy_forbidden", Reason: "proxy forbids the way to the hub (403)", NextStep: "ask for an exception for the hub's address and port"}
	}
	return &Fault{Code: "proxy_answer", Reason: "proxy cannot reach the hub: " + oneLine(resp.Status), NextStep: "check the hub's name and port; the proxy looks the name up"}
}

// prefixed is a connection of which some bytes were read ahead.
type prefixed struct {
	net.Conn
	r *bufio.Reader
}

func (p *prefixed) Read(b []byte) (int, error) { return p.r.Read(b) }

// watchedTLS is TLS that remembers what went wrong.
type watchedTLS struct {
	credentials.TransportCredentials
	a *attempt
}

func (w *watchedTLS) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := w.TransportCredentials.ClientHandshake(ctx, authority, raw)
	w.a.mu.Lock()
	w.a.tlsErr, w.a.secured = err, err == nil
	if t, ok := info.(credentials.TLSInfo); ok && len(t.State.PeerCertificates) > 0 {
		w.a.hub = t.State.PeerCertificates[0]
	}
	w.a.mu.Unlock()
	if err != nil {
		return nil, nil, err
	}
	return &watchedConn{conn, w.a}, info, nil
}

func (w *watchedTLS) Clone() credentials.TransportCredentials {
	return &watchedTLS{w.TransportCredentials.Clone(), w.a}
}

// watchedConn remembers the first read error: in TLS 1.3 the hub's opinion of our certificate arrives there.
type watchedConn struct {
	net.Conn
	a *attempt
}

func (w *watchedConn) Read(b []byte) (int, error) {
	n, err := w.Conn.Read(b)
	w.a.got.Add(int64(n))
	w.a.mu.Lock()
	defer w.a.mu.Unlock()
	if n > 0 {
		w.a.heard = true
	}
	if err != nil && w.a.readErr == nil {
		w.a.readErr = err
	}
	return n, err
}

func (w *watchedConn) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		piece := b[n:]
		if most := int(w.a.piece.Load()); most > 0 {
			piece = piece[:min(len(piece), most)]
		}
		var m int
		m, err = w.Conn.Write(piece)
		n += m
	}
	if err != nil {
		w.lastWords()
	}
	return n, err
}

// mostRecord is the size of a full TLS record.
const mostRecord = 16 << 10

// fit makes TLS records so short that the line needs about a quarter of a second for one: what stands at a record's
// beginning cannot be read before its end has come.
func (a *attempt) fit(bytesPerSecond float64) {
	most := max(int64(bytesPerSecond/4), 1024)
	if most >= mostRecord {
		most = 0
	}
	a.piece.Store(most)
}

// lastWords reads what a hub that hung up had said: gRPC does not look when its first write fails.
func (w *watchedConn) lastWords() {
	w.a.mu.Lock()
	heard := w.a.heard || w.a.readErr != nil
	w.a.mu.Unlock()
	if !heard {
		w.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
		w.Read(make([]byte, 1))
	}
}
