// Package tunnel takes agents' lines that come inside a WebSocket, for plants whose proxy inspects TLS or knows no HTTP/2.
//
// It owns the HTTP path that agents ask for, the WebSocket around the line, and the choice at the agents' port between a
// line that comes directly and one that comes inside HTTP/1.1. It promises that what it hands on is the same as a direct
// connection: the agent's own TLS with its certificate runs inside, from end to end, so that whoever opens the outer layer
// sees ciphertext only. It never reads what passes and authenticates nobody: that is the inner layer's work.
package tunnel

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"

	"github.com/coder/websocket"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// Options of New; zero fields mean the documented default.
type Options struct {
	// Limit is how many tunnels may be open at once, those that are still to say who they are among them; 2,000.
	Limit  int
	Logger *slog.Logger
}

// Tunnel is an http.Handler for pb.TunnelPath and a net.Listener whose connections are what came through it.
type Tunnel struct {
	o      Options
	conns  chan net.Conn
	plain  chan net.Conn // HTTP/1.1 connections that came to the agents' port
	ctx    context.Context
	cancel context.CancelFunc

	mu   sync.Mutex
	open int
}

// New returns a tunnel that is open until Close.
func New(o Options) *Tunnel {
	if o.Limit <= 0 {
		o.Limit = 2000
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	t := &Tunnel{o: o, conns: make(chan net.Conn), plain: make(chan net.Conn)}
	t.ctx, t.cancel = context.WithCancel(context.Background())
	return t
}

// Before returns a handler that takes pb.TunnelPath for itself and leaves everything else to next.
func (t *Tunnel) Before(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == pb.TunnelPath {
			t.ServeHTTP(w, r)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ServeHTTP opens a tunnel and returns when it is closed. A request that asks for no WebSocket is told so, with the
// hub's time in the Date header: agents whose clock is wrong read it there.
func (t *Tunnel) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !t.enter() {
		http.Error(w, "too many tunnels are open", http.StatusServiceUnavailable)
		return
	}
	defer t.leave()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{pb.TunnelProtocol}})
	if err != nil {
		t.o.Logger.Debug("no tunnel", "from", r.RemoteAddr, "error", err)
		return
	}
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	c := &conn{Conn: websocket.NetConn(ctx, ws, websocket.MessageBinary), ws: ws, closed: make(chan struct{})}
	defer c.Close()
	select {
	case t.conns <- c:
		select {
		case <-c.closed:
		case <-t.ctx.Done():
		}
	case <-t.ctx.Done():
	}
}

func (t *Tunnel) enter() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open >= t.o.Limit || t.ctx.Err() != nil {
		return false
	}
	t.open++
	return true
}

func (t *Tunnel) leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.open--
}

// Open is how many tunnels are open.
func (t *Tunnel) Open() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.open
}

// Accept returns the next line that came through a tunnel.
func (t *Tunnel) Accept() (net.Conn, error) { return t.accept(t.conns) }

func (t *Tunnel) accept(from chan net.Conn) (net.Conn, error) {
	select {
	case c := <-from:
		return c, nil
	case <-t.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends all tunnels.
func (t *Tunnel) Close() error { t.cancel(); return nil }

// Addr names the tunnel where an address is asked for.
func (t *Tunnel) Addr() net.Addr { return address{} }

type address struct{}

func (address) Network() string { return "websocket" }
func (address) String() string  { return pb.TunnelPath }

// conn ends at once when it is closed: a closing handshake would wait seconds for a peer that is gone.
type conn struct {
	net.Conn
	ws     *websocket.Conn
	closed chan struct{}
	once   sync.Once
}

func (c *conn) Close() (err error) {
	c.once.Do(func() {
		err = c.ws.CloseNow()
		close(c.closed)
	})
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
