package realparts

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// InspectorOptions say what kind of HTTP proxy a plant has.
type InspectorOptions struct {
	// User and Password are demanded by Basic login when User is not empty.
	User, Password string
	// Inspect opens TLS with certificates of the proxy's own authority and speaks HTTP/1.1 only, as many inspecting proxies
	// do. Without it bytes pass as they are.
	Inspect bool
	// Reach maps the "host:port" that clients ask for to real addresses; others are dialled as they are.
	Reach map[string]string
	// Ports are those that may be asked for; nil means all, others are answered with 403.
	Ports []string
}

// Inspector is an HTTP proxy with CONNECT that may open TLS and sees what passes.
type Inspector struct {
	o        InspectorOptions
	t        testing.TB
	listener net.Listener
	ca       *x509.Certificate
	key      *ecdsa.PrivateKey
	wg       sync.WaitGroup

	mu    sync.Mutex
	seen  bytes.Buffer // what it could read, both directions
	asked []string
	conns map[net.Conn]struct{}
	done  bool
}

// NewInspector starts a proxy that ends with the test.
func NewInspector(t testing.TB, o InspectorOptions) *Inspector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen for a proxy: %v", err)
	}
	p := &Inspector{o: o, t: t, listener: l, conns: map[net.Conn]struct{}{}}
	p.key, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Plant Web Gateway CA"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().AddDate(5, 0, 0), KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &p.key.PublicKey, p.key)
	if err != nil {
		t.Fatalf("make a proxy's authority: %v", err)
	}
	p.ca, _ = x509.ParseCertificate(der)
	p.wg.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// URL is the proxy's address with its login.
func (p *Inspector) URL() string {
	if p.o.User == "" {
		return "http://" + p.listener.Addr().String()
	}
	return "http://" + p.o.User + ":" + p.o.Password + "@" + p.listener.Addr().String()
}

// CAFile writes the certificate of the proxy's authority into dir.
func (p *Inspector) CAFile(dir string) string {
	return WriteFile(p.t, filepath.Join(dir, "proxy-ca.pem"), string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.ca.Raw})))
}

// Seen is everything that the proxy could read.
func (p *Inspector) Seen() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return bytes.Clone(p.seen.Bytes())
}

// Asked lists what clients asked for.
func (p *Inspector) Asked() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]string(nil), p.asked...)
}

// Cut ends all connections.
func (p *Inspector) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
}

// SetInspect turns the inspection on or off for new connections: an exception that somebody asked for.
func (p *Inspector) SetInspect(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.o.Inspect = on
}

func (p *Inspector) close() {
	p.mu.Lock()
	p.done = true
	p.mu.Unlock()
	p.listener.Close()
	p.Cut()
	p.wg.Wait()
}

func (p *Inspector) keep(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done {
		c.Close()
		return false
	}
	p.conns[c] = struct{}{}
	return true
}

func (p *Inspector) drop(c net.Conn) {
	c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.conns, c)
}

func (p *Inspector) accept() {
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Go(func() {
			if p.keep(c) {
				defer p.drop(c)
				p.serve(c)
			}
		})
	}
}

func (p *Inspector) serve(c net.Conn) {
	r := bufio.NewReader(c)
	req, err := http.ReadRequest(r)
	if err != nil || req.Method != http.MethodConnect {
		fmt.Fprint(c, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		return
	}
	p.mu.Lock()
	p.asked = append(p.asked, req.Host)
	inspect := p.o.Inspect
	p.mu.Unlock()
	if p.o.User != "" && req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(p.o.User+":"+p.o.Password)) {
		fmt.Fprint(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"plant\"\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if !p.allowed(req.Host) {
		fmt.Fprint(c, "HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
		return
	}
	to := req.Host
	if real, ok := p.o.Reach[to]; ok {
		to = real
	}
	server, err := net.Dial("tcp", to)
	if err != nil {
		fmt.Fprint(c, "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n")
		return
	}
	if !p.keep(server) {
		return
	}
	defer p.drop(server)
	fmt.Fprint(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	client := net.Conn(&readAhead{c, r})
	if first, err := r.Peek(1); inspect && err == nil && first[0] == 0x16 { // a TLS handshake
		if client, server, err = p.open(client, server, req.Host); err != nil {
			return
		}
	}
	p.relay(client, server)
}

func (p *Inspector) allowed(host string) bool {
	_, port, err := net.SplitHostPort(host)
	if p.o.Ports == nil {
		return true
	}
	for _, ok := range p.o.Ports {
		if err == nil && ok == port {
			return true
		}
	}
	return false
}

// open ends the client's TLS with a certificate of our own and begins another toward the server.
func (p *Inspector) open(client, server net.Conn, host string) (net.Conn, net.Conn, error) {
	name, _, _ := net.SplitHostPort(host)
	cert, err := p.issue(name)
	if err != nil {
		return nil, nil, err
	}
	in := tls.Server(client, &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"http/1.1"}, MinVersion: tls.VersionTLS12,
		// Proxies answer a client that offers HTTP/2 only without choosing a protocol.
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
			for _, proto := range h.SupportedProtos {
				if proto == "http/1.1" {
					return nil, nil
				}
			}
			return &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}, nil
		}})
	if err := in.Handshake(); err != nil {
		return nil, nil, err
	}
	// The test is about what an inspecting proxy does, not about whom it trusts.
	out := tls.Client(server, &tls.Config{ServerName: name, NextProtos: []string{"http/1.1"}, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	if err := out.Handshake(); err != nil {
		return nil, nil, err
	}
	return in, out, nil
}

func (p *Inspector) issue(name string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: p.ca.NotBefore, NotAfter: p.ca.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(name); ip != nil {
		tmpl.IPAddresses = []net.IP{ip}
	} else {
		tmpl.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, p.ca, &key.PublicKey, p.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}

func (p *Inspector) relay(client, server net.Conn) {
	var both sync.WaitGroup
	one := func(dst, src net.Conn) {
		both.Go(func() {
			io.Copy(&tee{dst, p}, src)
			dst.Close()
			src.Close()
		})
	}
	one(server, client)
	one(client, server)
	both.Wait()
}

// tee writes down what passes.
type tee struct {
	dst net.Conn
	p   *Inspector
}

func (t *tee) Write(b []byte) (int, error) {
	t.p.mu.Lock()
	t.p.seen.Write(b)
	t.p.mu.Unlock()
	return t.dst.Write(b)
}

// readAhead is a connection of which some bytes were read already.
type readAhead struct {
	net.Conn
	r *bufio.Reader
}

func (c *readAhead) Read(b []byte) (int, error) { return c.r.Read(b) }
