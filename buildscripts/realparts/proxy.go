package realparts

import (
	"io"
	"net"
	"sync"
	"testing"
	"time"
)

// Proxy is a TCP relay before a server that fails on command, the way a plant's network does.
type Proxy struct {
	target   string
	listener net.Listener
	wg       sync.WaitGroup
	closed   chan struct{}

	mu      sync.Mutex
	refuse  bool
	swallow bool
	mute    bool // of what the server says
	delay   time.Duration
	gate    chan struct{} // closed while bytes may pass
	links   map[*link]struct{}
	count   int
	up      int64 // bytes that came from clients
}

// link is one relayed connection.
type link struct {
	client, server net.Conn
	gone           chan struct{}
	once           sync.Once
}

// NewProxy relays connections to target ("127.0.0.1:4840") until the test ends.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatalf("listen for a proxy: %v", err)
	}
	open := make(chan struct{})
	close(open)
	p := &Proxy{target: target, listener: l, closed: make(chan struct{}), gate: open, links: map[*link]struct{}{}}
	p.wg.Add(1)
	go p.accept()
	t.Cleanup(p.close)
	return p
}

// Addr is where clients connect to, as host:port.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Port is the port of Addr.
func (p *Proxy) Port() int { return p.listener.Addr().(*net.TCPAddr).Port }

// Connections is how many connections were relayed since the start.
func (p *Proxy) Connections() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count
}

// Cut resets every connection; new ones are relayed.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for l := range p.links {
		l.reset()
	}
}

// Refuse resets every new connection at once, until Refuse(false).
func (p *Proxy) Refuse(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refuse = on
}

// Stall holds all bytes in both directions, as lost packets that TCP sends again do: nothing is closed, nothing is said.
func (p *Proxy) Stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
		p.gate = make(chan struct{})
	default:
	}
}

// Resume ends a Stall: what was held is delivered.
func (p *Proxy) Resume() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.gate:
	default:
		close(p.gate)
	}
}

// Swallow drops all bytes in both directions while on: the connections stay open, their streams are broken for ever.
func (p *Proxy) Swallow(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swallow = on
}

// SwallowReplies drops what servers say while on; what clients say arrives.
func (p *Proxy) SwallowReplies(on bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = on
}

// Sent is how many bytes have come from clients since the start.
func (p *Proxy) Sent() int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.up
}

// SetDelay delays all bytes in each direction.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

func (p *Proxy) close() {
	close(p.closed)
	p.listener.Close()
	p.Cut()
	p.wg.Wait()
}

func (p *Proxy) accept() {
	defer p.wg.Done()
	for {
		c, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.wg.Add(1)
		go p.relay(c)
	}
}

func (p *Proxy) relay(client net.Conn) {
	defer p.wg.Done()
	l := &link{client: client, gone: make(chan struct{})}
	p.mu.Lock()
	refuse := p.refuse
	p.mu.Unlock()
	if refuse {
		l.reset()
		return
	}
	server, err := net.Dial("tcp", p.target)
	if err != nil {
		l.reset()
		return
	}
	l.server = server
	p.mu.Lock()
	p.links[l] = struct{}{}
	p.count++
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		delete(p.links, l)
		p.mu.Unlock()
	}()
	select {
	case <-p.closed:
		l.reset()
	default:
	}
	var both sync.WaitGroup
	both.Add(2)
	go func() { defer both.Done(); p.pump(l, server, client) }()
	go func() { defer both.Done(); p.pump(l, client, server) }()
	both.Wait()
	l.reset()
}

// reset ends both sides with a TCP reset.
func (l *link) reset() {
	l.once.Do(func() {
		close(l.gone)
		for _, c := range []net.Conn{l.client, l.server} {
			if c == nil {
				continue
			}
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}
	})
}

type parcel struct {
	bytes []byte
	due   time.Time
}

// pump carries bytes from src to dst until either ends.
func (p *Proxy) pump(l *link, dst, src net.Conn) {
	parcels := make(chan parcel, 256)
	var reader sync.WaitGroup
	reader.Add(1)
	go func() {
		defer reader.Done()
		defer close(parcels)
		for {
			b := make([]byte, 32<<10)
			n, err := src.Read(b)
			if n > 0 {
				p.mu.Lock()
				due := time.Now().Add(p.delay)
				if src == l.client {
					p.up += int64(n)
				}
				p.mu.Unlock()
				select {
				case parcels <- parcel{b[:n], due}:
				case <-l.gone:
					return
				}
			}
			if err != nil {
				return
			}
		}
	}()
	for c := range parcels {
		if !p.pass(l, c.due, dst == l.client) {
			continue
		}
		if _, err := dst.Write(c.bytes); err != nil {
			l.reset()
		}
	}
	reader.Wait()
	// A side that ended its writing must be able to read what is still under way.
	// The end of a stream travels like its bytes: it may be held, or never arrive.
	if c, ok := dst.(*net.TCPConn); ok && p.pass(l, time.Now(), dst == l.client) {
		c.CloseWrite()
	}
	io.Copy(io.Discard, src)
}

// pass waits for the delay and for an open gate, and reports whether the bytes are to be delivered.
func (p *Proxy) pass(l *link, due time.Time, reply bool) bool {
	if wait := time.Until(due); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-l.gone:
			return false
		}
	}
	for {
		p.mu.Lock()
		gate, swallow := p.gate, p.swallow || p.mute && reply
		p.mu.Unlock()
		select {
		case <-gate:
			return !swallow
		default:
		}
		select {
		case <-gate:
		case <-l.gone:
			return false
		}
	}
}
