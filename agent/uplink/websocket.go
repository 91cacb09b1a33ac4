package uplink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os"

	"github.com/coder/websocket"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// dialWebSocket opens the outer layer: TCP, through the proxy where there is one, TLS as far as the address says, and the
// WebSocket. What it returns carries the agent's own TLS, so the outer layer's certificate guards nothing: it is checked
// against a configured CA file, and else only noted.
func (a *attempt) dialWebSocket(ctx context.Context) (net.Conn, error) {
	u, err := url.Parse(a.way.url)
	if err != nil {
		return nil, err
	}
	outer, err := a.outerTLS()
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, address string) (net.Conn, error) {
			c, err := a.dialTCP(ctx, address)
			if err == nil {
				a.keep(c)
			}
			return c, err
		},
		TLSClientConfig: outer,
	}
	ws, resp, err := websocket.Dial(ctx, a.way.url, &websocket.DialOptions{
		HTTPClient: &http.Client{
			Transport:     transport,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
		HTTPHeader: http.Header{"User-Agent": {"linekeeper-agent/" + a.cfg.Version}}, Subprotocols: []string{pb.TunnelProtocol},
	})
	if err != nil {
		transport.CloseIdleConnections()
		return nil, a.explainWebSocket(u, resp, err)
	}
	if ws.Subprotocol() != pb.TunnelProtocol {
		ws.CloseNow()
		return nil, &Fault{Code: "websocket_answer", Reason: "what answers at " + u.Host + " is a WebSocket, but no hub's", NextStep: "check websocket_url in the configuration"}
	}
	live, end := context.WithCancel(context.Background()) // ends with the connection, not with the dialling
	return &webSocketConn{websocket.NetConn(live, ws, websocket.MessageBinary), ws, end}, nil
}

// webSocketConn closes at once: a closing handshake would wait seconds for a peer that is gone.
type webSocketConn struct {
	net.Conn
	ws  *websocket.Conn
	end context.CancelFunc
}

func (c *webSocketConn) Close() error {
	defer c.end()
	return c.ws.CloseNow()
}

func (a *attempt) outerTLS() (*tls.Config, error) {
	conf := &tls.Config{
		MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
		// The inner layer proves who the hub is. VerifyConnection below looks at the outer certificate.
		InsecureSkipVerify: true,
	}
	var own *x509.CertPool
	if a.cfg.WebSocketCAFile != "" {
		pem, err := os.ReadFile(a.cfg.WebSocketCAFile)
		if err != nil {
			return nil, fileFault("CA file of the WebSocket", a.cfg.WebSocketCAFile, err)
		}
		own = x509.NewCertPool()
		if !own.AppendCertsFromPEM(pem) {
			return nil, fileFault("CA file of the WebSocket", a.cfg.WebSocketCAFile, errors.New("it holds no certificate"))
		}
	}
	conf.VerifyConnection = func(state tls.ConnectionState) error {
		err := verifyOuter(state, own)
		a.mu.Lock()
		a.outer = state.PeerCertificates[0].Issuer.String()
		a.mu.Unlock()
		if own == nil {
			return nil
		}
		return err
	}
	return conf, nil
}

func verifyOuter(state tls.ConnectionState, roots *x509.CertPool) error {
	o := x509.VerifyOptions{Roots: roots, DNSName: state.ServerName, Intermediates: x509.NewCertPool()}
	for _, c := range state.PeerCertificates[1:] {
		o.Intermediates.AddCert(c)
	}
	_, err := state.PeerCertificates[0].Verify(o)
	return err
}

func (a *attempt) explainWebSocket(u *url.URL, resp *http.Response, err error) error {
	var f *Fault
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	var name x509.HostnameError
	var op *net.OpError
	switch {
	case errors.As(err, &f):
		return f
	case errors.As(err, &unknown), errors.As(err, &invalid), errors.As(err, &name):
		return &Fault{Code: "websocket_certificate", Reason: "the certificate at " + u.Host + " is not signed by the CA file of the WebSocket" + issuerOf(unknown.Cert),
			NextStep: "put the inspecting proxy's CA into websocket_ca_file, or leave that key out: the inner line is checked in any case", cause: err}
	case resp != nil && resp.StatusCode == http.StatusServiceUnavailable:
		return &Fault{Code: "websocket_answer", Reason: "the hub takes no more tunnels now", NextStep: "it is tried again by itself", cause: err}
	case resp != nil:
		return &Fault{Code: "websocket_answer", Reason: "what answers at " + u.Host + " opens no WebSocket: " + oneLine(resp.Status),
			NextStep: "check websocket_url; a proxy or gateway on the way must let WebSockets pass", cause: err}
	case errors.As(err, &op) && op.Op == "dial":
		return a.explainDial(err)
	}
	return &Fault{Code: "websocket", Reason: "no WebSocket to " + u.Host + ": " + oneLine(unwrapped(err).Error()), NextStep: "check what is between agent and hub", cause: err}
}

// unwrapped is the innermost error: those around it repeat the address.
func unwrapped(err error) error {
	for next := errors.Unwrap(err); next != nil; next = errors.Unwrap(err) {
		err = next
	}
	return err
}
