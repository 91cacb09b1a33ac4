package sim

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// network is the wire between hosts. It delays everything, and it can be cut, made half-open, and closed for one host.
type network struct {
	mu        sync.Mutex
	rng       *rand.Rand
	slowest   time.Duration // of one packet
	listeners map[string]*listener
	links     map[*link]bool
	apart     map[string]bool // agents that are cut off: nothing of theirs passes
	cuts      atomic.Int64
}

func newNetwork(rng *rand.Rand) *network {
	return &network{rng: rng, slowest: 40 * time.Millisecond, listeners: map[string]*listener{}, links: map[*link]bool{}, apart: map[string]bool{}}
}

func (n *network) delay() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return time.Millisecond + time.Duration(n.rng.Int64N(int64(n.slowest)))
}

// link is one connection between a client's process and a server's.
type link struct {
	client, server *process
	up, down       *pipe
	broken         bool // half-open for good: heals never
}

// cut resets all connections of a process at once: both ends get an error, what was under way is lost.
func (n *network) cut(p *process) {
	n.cuts.Add(1)
	n.each(p, func(l *link) {
		l.up.reset(syscall.ECONNRESET)
		l.down.reset(syscall.ECONNRESET)
	})
}

// vanish makes all connections of a process half-open for good: packets go nowhere and nobody is told.
func (n *network) vanish(p *process) {
	n.each(p, func(l *link) {
		l.broken = true
		l.up.stall(true)
		l.down.stall(true)
	})
}

// stall holds back what passes between a process and its peers; with false it goes on where it was, as TCP does.
func (n *network) stall(p *process, on bool) {
	n.each(p, func(l *link) {
		if !l.broken {
			l.up.stall(on)
			l.down.stall(on)
		}
	})
}

func (n *network) each(p *process, f func(*link)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.links {
		if l.client == p || l.server == p {
			f(l)
		}
	}
}

// isolate keeps a machine from connecting, or lets it again. What is connected stays.
func (n *network) isolate(machine string, on bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.apart[machine] = on
}

// healAll undoes what still holds.
func (n *network) healAll() {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.apart)
	for l := range n.links {
		if !l.broken {
			l.up.stall(false)
			l.down.stall(false)
		}
	}
}

// listener takes connections for a process.
type listener struct {
	net    *network
	owner  *process
	addr   address
	accept chan net.Conn
	closed chan struct{}
	once   sync.Once
}

type address string

func (a address) Network() string { return "memory" }
func (a address) String() string  { return string(a) }

func (n *network) listen(owner *process, at string) (net.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.listeners[at] != nil {
		return nil, fmt.Errorf("listen on %q: %w", at, syscall.EADDRINUSE)
	}
	l := &listener{net: n, owner: owner, addr: address(at), accept: make(chan net.Conn), closed: make(chan struct{})}
	n.listeners[at] = l
	return l, nil
}

func (l *listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.accept:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *listener) Close() error {
	l.once.Do(func() {
		l.net.mu.Lock()
		if l.net.listeners[string(l.addr)] == l {
			delete(l.net.listeners, string(l.addr))
		}
		l.net.mu.Unlock()
		close(l.closed)
	})
	return nil
}

func (l *listener) Addr() net.Addr { return l.addr }

// forget takes a dead process off the network: its address can be listened on again.
func (n *network) forget(p *process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for at, l := range n.listeners {
		if l.owner == p {
			delete(n.listeners, at)
		}
	}
}

// dial opens a connection from a process to an address.
func (n *network) dial(ctx context.Context, from *process, to string) (net.Conn, error) {
	if err := pause(ctx, 2*n.delay()); err != nil {
		return nil, err
	}
	n.mu.Lock()
	l := n.listeners[to]
	silent := n.apart[from.machine] || from.frozen() || l != nil && l.owner.frozen()
	n.mu.Unlock()
	if silent {
		if err := pause(ctx, 15*time.Second); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("dial %q: %w", to, syscall.ETIMEDOUT)
	}
	if l == nil {
		return nil, fmt.Errorf("dial %q: %w", to, syscall.ECONNREFUSED)
	}
	k := &link{client: from, server: l.owner, up: newPipe(n), down: newPipe(n)}
	near, far := &conn{n, k, k.down, k.up, "client"}, &conn{n, k, k.up, k.down, to}
	n.mu.Lock()
	n.links[k] = true
	n.mu.Unlock()
	select {
	case l.accept <- far:
		return near, nil
	case <-l.closed:
		near.Close()
		return nil, fmt.Errorf("dial %q: %w", to, syscall.ECONNREFUSED)
	case <-ctx.Done():
		near.Close()
		return nil, ctx.Err()
	}
}

// pause waits in fake time.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// conn is one end of a link.
type conn struct {
	net     *network
	link    *link
	in, out *pipe
	name    string
}

func (c *conn) Read(b []byte) (int, error)         { return c.in.read(b) }
func (c *conn) Write(b []byte) (int, error)        { return c.out.write(b) }
func (c *conn) LocalAddr() net.Addr                { return address(c.name) }
func (c *conn) RemoteAddr() net.Addr               { return address("peer of " + c.name) }
func (c *conn) SetReadDeadline(t time.Time) error  { return c.in.deadline(&c.in.readBy, t) }
func (c *conn) SetWriteDeadline(t time.Time) error { return c.out.deadline(&c.out.writeBy, t) }
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *conn) Close() error {
	c.out.finish()
	c.in.abandon()
	if c.in.over() && c.out.over() {
		c.net.mu.Lock()
		delete(c.net.links, c.link)
		c.net.mu.Unlock()
	}
	return nil
}

const windowBytes = 128 << 10 // that one direction holds before its writer waits

type packet struct {
	data []byte
	at   time.Time
}

// pipe is one direction of a link.
type pipe struct {
	net *network

	mu              sync.Mutex
	packets         []packet
	size            int
	finished        bool // the writer closed: end of file after the packets
	abandoned       bool // the reader closed
	stalled         bool
	broken          error
	readBy, writeBy time.Time
	changed         chan struct{}
}

func newPipe(n *network) *pipe { return &pipe{net: n, changed: make(chan struct{})} }

// wake tells everybody who waits. mu is held.
func (p *pipe) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}

func (p *pipe) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.wake()
}

func (p *pipe) reset(err error) { p.set(func() { p.broken, p.packets, p.size = err, nil, 0 }) }
func (p *pipe) stall(on bool)   { p.set(func() { p.stalled = on }) }
func (p *pipe) finish()         { p.set(func() { p.finished = true }) }
func (p *pipe) abandon()        { p.set(func() { p.abandoned, p.packets, p.size = true, nil, 0 }) }
func (p *pipe) deadline(field *time.Time, t time.Time) error {
	p.set(func() { *field = t })
	return nil
}

func (p *pipe) over() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.broken != nil || p.finished && p.abandoned
}

// wait blocks until something changes, until a time (zero: none), or until the deadline. mu is held, and held again after.
func (p *pipe) wait(until, deadline time.Time) error {
	now := time.Now()
	if !deadline.IsZero() && !now.Before(deadline) {
		return os.ErrDeadlineExceeded
	}
	if until.IsZero() || !deadline.IsZero() && deadline.Before(until) {
		until = deadline
	}
	changed := p.changed
	p.mu.Unlock()
	defer p.mu.Lock()
	if until.IsZero() {
		<-changed
		return nil
	}
	t := time.NewTimer(until.Sub(now))
	defer t.Stop()
	select {
	case <-changed:
	case <-t.C:
	}
	return nil
}

func (p *pipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		var next time.Time
		switch {
		case p.abandoned:
			return 0, net.ErrClosed
		case p.stalled:
		case p.broken != nil:
			return 0, p.broken
		case len(p.packets) > 0 && !p.packets[0].at.After(time.Now()):
			return p.take(b), nil
		case len(p.packets) > 0:
			next = p.packets[0].at
		case p.finished:
			return 0, io.EOF
		}
		if err := p.wait(next, p.readBy); err != nil {
			return 0, err
		}
	}
}

// take hands over what has arrived of the first packet. mu is held.
func (p *pipe) take(b []byte) int {
	n := copy(b, p.packets[0].data)
	if p.packets[0].data = p.packets[0].data[n:]; len(p.packets[0].data) == 0 {
		p.packets = p.packets[1:]
	}
	p.size -= n
	p.wake()
	return n
}

func (p *pipe) write(b []byte) (int, error) {
	delay := p.net.delay()
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.finished:
			return 0, net.ErrClosed
		case p.broken != nil && !p.stalled:
			return 0, p.broken
		case p.abandoned && !p.stalled:
			return 0, syscall.EPIPE
		case p.size < windowBytes:
			at := time.Now().Add(delay)
			if n := len(p.packets); n > 0 && p.packets[n-1].at.After(at) {
				at = p.packets[n-1].at
			}
			p.packets = append(p.packets, packet{append([]byte(nil), b...), at})
			p.size += len(b)
			p.wake()
			return len(b), nil
		}
		if err := p.wait(time.Time{}, p.writeBy); err != nil {
			return 0, err
		}
	}
}

// drop ends the connections of a process that is gone, at its own end only where they are half-open for good.
func (n *network) drop(p *process) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for l := range n.links {
		if (l.client == p || l.server == p) && l.up.over() && l.down.over() {
			delete(n.links, l)
		}
	}
}
