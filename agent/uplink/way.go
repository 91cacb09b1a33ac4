package uplink

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/connectivity"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// The values of Config.WebSocket.
const (
	wsAuto   = "auto"
	wsAlways = "always"
	wsNever  = "never"
)

// way is how the hub is reached: directly, or inside a WebSocket.
type way struct {
	url     string // of the WebSocket; empty: directly
	because string // why not directly
}

func (w way) name() string {
	if w.url == "" {
		return "direct"
	}
	return "websocket"
}

// errDirectAgain ends a session inside a WebSocket because the direct way works again.
var errDirectAgain = errors.New("the direct way works again")

// tunnels lists the WebSocket addresses to try: the configured one, or the hub's own port and then the one that every
// proxy knows.
func (c *Config) tunnels() []string {
	if c.WebSocketURL != "" {
		return []string{c.WebSocketURL}
	}
	list := []string{"wss://" + c.Address + pb.TunnelPath}
	if host, port, err := net.SplitHostPort(c.Address); err == nil && port != "443" {
		list = append(list, "wss://"+net.JoinHostPort(host, "443")+pb.TunnelPath)
	}
	return list
}

func (c *Config) checkWebSocket() error {
	switch c.WebSocket {
	case "", wsAuto, wsAlways, wsNever:
	default:
		return fmt.Errorf("websocket %q is not known: use auto, always or never", c.WebSocket)
	}
	if c.WebSocketURL == "" {
		return nil
	}
	u, err := url.Parse(c.WebSocketURL)
	if err != nil || u.Scheme != "ws" && u.Scheme != "wss" || u.Hostname() == "" || u.User != nil {
		return errors.New(`websocket_url is not understood: write it like "wss://hub.example.com` + pb.TunnelPath + `"`)
	}
	return nil
}

// meddling are the faults that show that something between agent and hub breaks the direct way.
var meddling = map[string]bool{
	"no_http2": true, "hub_certificate_untrusted": true, "hub_certificate_name": true, "not_tls": true, "proxy_forbidden": true,
}

// enoughCuts is how often in a row a direct way that worked before must be cut before the hub's first word until something
// between is blamed: a hub that ends or begins cuts lines, too.
const enoughCuts = 3

// outcome is how one attempt ended.
type outcome struct {
	held    time.Duration
	reached bool // the hub took our hello
	meddled bool // something between broke it
	cut     bool // it was cut before the hub's first word, by whomever
	err     error
}

// beside reports whether a WebSocket is worth a try after the direct way ended with o. An address that somebody configured
// is tried after every fault that may lie in the network.
func (u *Uplink) beside(o outcome) bool {
	if o.reached {
		u.cuts, u.directWorked = 0, true
		return false
	}
	if o.cut {
		u.cuts++
	}
	switch {
	case u.cfg.WebSocket == wsNever:
		return false
	case o.meddled, o.cut && (!u.directWorked || u.cuts >= enoughCuts):
		return true
	}
	return u.cfg.WebSocketURL != "" && asFault(o.err).inTheNetwork()
}

// inTheNetwork reports a fault that is neither our own nor the hub's word.
func (f *Fault) inTheNetwork() bool {
	return !f.Refused && !f.answered() && f.Code != "own_files" && f.Code != "clock"
}

// answered reports that the hub itself said this.
func (f *Fault) answered() bool {
	switch f.Code {
	case "hub_store", "hub_busy", "out_of_sequence", "marks", "buffer":
		return true
	}
	return strings.HasPrefix(f.Code, "refused")
}

// round tries the ways until one of them reaches the hub, and returns how that session ended. The way that worked last
// comes first, the direct one next; those inside a WebSocket follow when beside says so. When none works the error is what
// the direct way met.
func (u *Uplink) round(ctx context.Context) outcome {
	last := u.way
	if u.cfg.WebSocket == wsAlways {
		return u.roundInside(ctx, u.cfg.tunnels(), nil)
	}
	if last.url != "" {
		if o := u.session(ctx, last); o.reached || ctx.Err() != nil {
			return o
		}
		u.way = way{}
	}
	o := u.session(ctx, way{})
	if ctx.Err() != nil || !u.beside(o) {
		return o
	}
	rest := slices.DeleteFunc(u.cfg.tunnels(), func(address string) bool { return address == last.url })
	return u.roundInside(ctx, rest, asFault(o.err))
}

// roundInside tries the WebSockets of the list. direct is what the direct way met, nil when it was not asked.
func (u *Uplink) roundInside(ctx context.Context, list []string, direct *Fault) (o outcome) {
	because, also := "the configuration says always", ""
	if direct != nil {
		because = direct.Reason
	}
	for _, address := range list {
		w := way{address, because}
		o = u.session(ctx, w)
		if o.reached {
			u.way = w
		}
		if o.reached || ctx.Err() != nil || asFault(o.err).answered() {
			return o
		}
		also = "; inside a WebSocket: " + asFault(o.err).Reason
		u.log().Debug("no way inside a WebSocket", "url", address, "reason", asFault(o.err).Reason)
	}
	if direct == nil {
		return o
	}
	f := *direct
	f.Reason += also
	return outcome{err: &f}
}

// watchDirect ends a session inside a WebSocket once the direct way works again: without being looked for it would never
// be used. The pause between two looks doubles, and no look disturbs the session.
func (s *session) watchDirect(ctx context.Context) error {
	least, most := s.u.cfg.RetryDirect, 16*s.u.cfg.RetryDirect
	for wait := least; ; wait = min(2*wait, most) {
		pause(ctx, wait/2+rand.N(wait))
		if ctx.Err() != nil {
			return nil
		}
		if s.u.directWorks(ctx) {
			return errDirectAgain
		}
	}
}

// directWorks opens a second line directly, up to the first word of the hub's HTTP/2, and closes it.
func (u *Uplink) directWorks(ctx context.Context) bool {
	ctx, cancel := context.WithTimeout(ctx, u.cfg.ConnectTimeout)
	defer cancel()
	a := &attempt{cfg: &u.cfg}
	conn, err := a.open()
	if err != nil {
		return false
	}
	defer conn.Close()
	defer a.cut()
	conn.Connect()
	for {
		state := conn.GetState()
		switch state {
		case connectivity.Ready:
			return true
		case connectivity.TransientFailure, connectivity.Shutdown:
			return false
		}
		if !conn.WaitForStateChange(ctx, state) {
			return false
		}
	}
}
