package drill

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"time"
)

// relay is the plant's network: a TCP relay to the receiver that cuts, stalls and slows, or an HTTP proxy with a password.
type relay struct {
	target string
	ln     net.Listener
	wg     sync.WaitGroup

	mu    sync.Mutex
	conns map[*pipe]bool
	mode  mode
	login string // "user:password" of the proxy; empty: no proxy, a plain relay
	cuts  int
	asked int // logins that the proxy refused
}

// mode is how the network is.
type mode struct {
	down  bool          // connections are refused and cut
	stall bool          // what is sent vanishes, and nobody is told
	rate  int           // bytes a second in each direction; 0: no limit
	delay time.Duration // of each piece in each direction
}

// pipe is one relayed connection. Once stalled, it stays so: what vanished can not come back.
type pipe struct {
	a, b    net.Conn
	stalled bool
}

func newRelay(target string) (*relay, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("open the scratch network: %w", err)
	}
	r := &relay{target: target, ln: ln, conns: map[*pipe]bool{}}
	r.wg.Go(r.serve)
	return r, nil
}

func (r *relay) addr() string { return r.ln.Addr().String() }

func (r *relay) close() {
	r.ln.Close()
	r.cut()
	r.wg.Wait()
}

// set changes the network. A network that is down cuts what is connected.
func (r *relay) set(m mode) {
	r.mu.Lock()
	r.mode = m
	if m.stall {
		for p := range r.conns {
			p.stalled = true
		}
	}
	r.mu.Unlock()
	if m.down {
		r.cut()
	}
}

func (r *relay) setLogin(login string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.login = login
}

// cut ends every connection.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for p := range r.conns {
		p.a.Close()
		p.b.Close()
		r.cuts++
	}
}

func (r *relay) serve() {
	for {
		c, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.wg.Go(func() { r.connect(c) })
	}
}

func (r *relay) connect(c net.Conn) {
	defer c.Close()
	r.mu.Lock()
	down, login := r.mode.down, r.login
	r.mu.Unlock()
	if down {
		return
	}
	if login != "" && !r.admit(c, login) {
		return
	}
	to, err := net.DialTimeout("tcp", r.target, 5*time.Second)
	if err != nil {
		return
	}
	defer to.Close()
	r.mu.Lock()
	if r.mode.down { // it went down while this one was being made
		r.mu.Unlock()
		return
	}
	p := &pipe{a: c, b: to, stalled: r.mode.stall}
	r.conns[p] = true
	r.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { r.copy(p, to, c) })
	both.Go(func() { r.copy(p, c, to) })
	both.Wait()
	r.mu.Lock()
	delete(r.conns, p)
	r.mu.Unlock()
}

// copy moves bytes from one end to the other, as the network is just then.
func (r *relay) copy(p *pipe, to, from net.Conn) {
	buf := make([]byte, 4<<10)
	for {
		n, err := from.Read(buf)
		r.mu.Lock()
		m, stalled := r.mode, p.stalled
		r.mu.Unlock()
		if n > 0 && !stalled {
			pause := m.delay
			if m.rate > 0 {
				pause += time.Duration(n) * time.Second / time.Duration(m.rate)
			}
			if pause > 0 {
				time.Sleep(pause)
			}
			if _, werr := to.Write(buf[:n]); werr != nil {
				err = werr
			}
		}
		if err != nil {
			// A stalled line tells nobody that the other end is gone either, until it is cut.
			if !stalled || err != io.EOF {
				to.Close()
				from.Close()
			}
			return
		}
	}
}

// admit plays the HTTP proxy: CONNECT with the right login, or 407.
func (r *relay) admit(c net.Conn, login string) bool {
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	req, err := http.ReadRequest(bufio.NewReader(c))
	if err != nil || req.Method != http.MethodConnect {
		return false
	}
	_ = c.SetReadDeadline(time.Time{})
	if req.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte(login)) {
		r.mu.Lock()
		r.asked++
		r.mu.Unlock()
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"drill\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return false
	}
	_, err = io.WriteString(c, "HTTP/1.1 200 Connection established\r\n\r\n")
	return err == nil
}

// between draws a time from low to high.
func between(r *rand.Rand, low, high time.Duration) time.Duration {
	return low + time.Duration(r.Int64N(int64(high-low)))
}
