package tunnel

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc/credentials"
)

// Credentials are those of the agents' port: agents that offer HTTP/2 must bring their certificate, as conf says, and are
// served by gRPC. Whoever offers only HTTP/1.1, or nothing, is given to PlainListener without being asked for one; it can
// reach the tunnel there, and inside of it the agent's certificate is demanded again.
func (t *Tunnel) Credentials(conf *tls.Config) credentials.TransportCredentials {
	agents := conf.Clone()
	agents.NextProtos = []string{"h2"}
	plain := &tls.Config{Certificates: conf.Certificates, GetCertificate: conf.GetCertificate, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	choosing := agents.Clone()
	choosing.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if slices.Contains(hello.SupportedProtos, "h2") {
			return agents, nil
		}
		return plain, nil
	}
	return &portCredentials{credentials.NewTLS(agents), choosing, t}
}

type portCredentials struct {
	credentials.TransportCredentials // for what a server never asks
	choosing                         *tls.Config
	tunnel                           *Tunnel
}

func (p *portCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c := tls.Server(raw, p.choosing)
	if err := c.Handshake(); err != nil {
		c.Close()
		return nil, nil, err
	}
	state := c.ConnectionState()
	if state.NegotiatedProtocol == "h2" {
		return c, credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}, nil
	}
	if _, inside := raw.(*conn); inside { // only an agent's line may come through a tunnel
		c.Close()
		return nil, nil, io.EOF
	}
	c.SetDeadline(time.Time{}) // gRPC's was for the handshake
	select {
	case p.tunnel.plain <- c:
	case <-p.tunnel.ctx.Done():
		c.Close()
	}
	return nil, nil, credentials.ErrConnDispatched
}

func (p *portCredentials) Clone() credentials.TransportCredentials {
	return &portCredentials{p.TransportCredentials.Clone(), p.choosing, p.tunnel}
}

// PlainListener returns the HTTP/1.1 connections that came to the agents' port. Its Close ends nothing but Accept.
func (t *Tunnel) PlainListener() net.Listener { return plainListener{t} }

type plainListener struct{ t *Tunnel }

func (l plainListener) Accept() (net.Conn, error) { return l.t.accept(l.t.plain) }
func (l plainListener) Close() error              { return nil }
func (l plainListener) Addr() net.Addr            { return address{} }

// PlainServer returns the HTTP server for PlainListener: it knows the tunnel and nothing else.
func (t *Tunnel) PlainServer() *http.Server {
	return &http.Server{
		Handler: t.Before(http.NotFoundHandler()), ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second, IdleTimeout: time.Minute,
		MaxHeaderBytes: 16 << 10,
	}
}
