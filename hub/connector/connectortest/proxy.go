package connectortest

import (
	"bytes"
	"context"
	"io"
	"math/rand"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Proxy stands between a connector and a system that speaks HTTP, and makes exchanges go wrong on demand. It implements
// Faults. Without a fault it passes everything on unchanged.
type Proxy struct {
	// URL is where to send requests instead of to the system; it has no path and no slash at its end.
	URL string
	// EndSessions is what EndSession does. Set it before the first request.
	EndSessions func()

	target *url.URL
	client *http.Client

	mu       sync.Mutex
	armed    Fault
	nth      int // exchanges until the armed fault happens
	fired    bool
	lossy    *rand.Rand
	replies  float64
	requests float64
	delayed  []*http.Request
	watch    func(body []byte)
	keeper   Keeper
	count    int
	lost     int
}

// NewProxy starts a proxy for the system at target, of which scheme, host and port matter. It ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatalf("start a fault proxy for %q: %v", target, err)
	}
	transport := &http.Transport{DisableCompression: true, DisableKeepAlives: true}
	p := &Proxy{target: u, client: &http.Client{
		Transport:     transport,
		Timeout:       2 * time.Minute,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	server := httptest.NewServer(p)
	p.URL = server.URL
	t.Cleanup(server.Close)
	return p
}

// Retarget sends what comes from now on to another address, for systems that move when they restart.
func (p *Proxy) Retarget(t testing.TB, target string) {
	t.Helper()
	u, err := url.Parse(target)
	if err != nil {
		t.Fatalf("turn the fault proxy to %q: %v", target, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = u
}

// Arm implements Faults.
func (p *Proxy) Arm(f Fault, nth int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.nth, p.fired = f, nth, false
}

// Fired implements Faults.
func (p *Proxy) Fired() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.armed, p.nth = "", 0
	return p.fired
}

// Lossy implements Faults.
func (p *Proxy) Lossy(seed int64, replies, requests float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lossy, p.replies, p.requests = rand.New(rand.NewSource(seed)), replies, requests
}

// Watch calls f with the body of each request before it is passed on, for disasters at a chosen moment; nil ends it.
func (p *Proxy) Watch(f func(body []byte)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch = f
}

// Hold implements Holder.
func (p *Proxy) Hold() (came <-chan time.Time, release func()) { return p.keeper.Hold() }

// Counts returns how many exchanges there were and how many of them went wrong.
func (p *Proxy) Counts() (exchanges, faults int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.count, p.lost
}

// Deliver implements Faults.
func (p *Proxy) Deliver() {
	p.mu.Lock()
	delayed := p.delayed
	p.delayed = nil
	p.mu.Unlock()
	for _, r := range delayed {
		if resp, err := p.client.Do(r); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
}

// next decides what happens to one exchange.
func (p *Proxy) next() Fault {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.count++
	f := p.draw()
	if f != "" {
		p.lost++
	}
	return f
}

func (p *Proxy) draw() Fault {
	if p.armed != "" {
		if p.nth--; p.nth == 0 {
			f := p.armed
			p.armed, p.fired = "", true
			return f
		}
	}
	if p.replies+p.requests > 0 {
		switch x := p.lossy.Float64(); {
		case x < p.replies*0.8:
			return LoseReply
		case x < p.replies:
			return HalfReply
		case x < p.replies+p.requests*0.7:
			return LoseRequest
		case x < p.replies+p.requests:
			return ServerError
		}
	}
	return ""
}

// ServeHTTP passes one exchange on, or what is left of it.
func (p *Proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the connector went away
	}
	p.mu.Lock()
	watch := p.watch
	p.mu.Unlock()
	if watch != nil {
		watch(body)
	}
	wait := p.keeper.Take()
	fault := p.next()
	forward := p.forward(r, body)
	if p.instead(w, fault, forward) {
		return
	}
	if fault == SendTwice {
		if resp, err := p.client.Do(p.forward(r, body)); err == nil {
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
	}
	resp, err := p.client.Do(forward)
	if err != nil {
		hangUp(w) // the system is down: so it looks from outside
		return
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	wait()
	switch {
	case err != nil || fault == LoseReply:
		hangUp(w)
	case fault == WebPageAfter:
		webPage(w, http.StatusOK, "Please log in")
	case fault == EmptyReply:
		w.WriteHeader(http.StatusOK)
	default:
		pass(w, resp, answer, fault == HalfReply)
	}
}

// instead does what a fault puts in the place of the exchange, and reports whether that was all.
func (p *Proxy) instead(w http.ResponseWriter, fault Fault, forward *http.Request) bool {
	switch fault {
	case LoseRequest:
		hangUp(w)
	case DelayRequest:
		p.mu.Lock()
		p.delayed = append(p.delayed, forward)
		p.mu.Unlock()
		hangUp(w)
	case ServerError:
		webPage(w, http.StatusServiceUnavailable, "Service Unavailable")
	case TooMany:
		w.Header().Set("Retry-After", "1")
		webPage(w, http.StatusTooManyRequests, "Too Many Requests")
	case WebPage:
		webPage(w, http.StatusOK, "Please log in")
	case EndSession:
		p.EndSessions()
		return false
	default:
		return false
	}
	return true
}

func webPage(w http.ResponseWriter, status int, title string) {
	w.Header().Set("Content-Type", "text/html")
	w.WriteHeader(status)
	io.WriteString(w, "<!doctype html><title>"+title+"</title><h1>"+title+"</h1>")
}

// forward makes the request to the system; it does not end when the connector hangs up.
func (p *Proxy) forward(r *http.Request, body []byte) *http.Request {
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	out := r.Clone(context.WithoutCancel(r.Context()))
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host, out.Host = target.Scheme, target.Host, target.Host
	out.Body = io.NopCloser(bytes.NewReader(body))
	out.ContentLength = int64(len(body))
	out.Header.Del("Connection")
	return out
}

func pass(w http.ResponseWriter, resp *http.Response, answer []byte, half bool) {
	for k, v := range resp.Header {
		w.Header()[k] = v
	}
	w.Header().Del("Transfer-Encoding")
	w.Header().Del("Connection")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
	w.WriteHeader(resp.StatusCode)
	if half {
		w.Write(answer[:len(answer)/2])
		w.(http.Flusher).Flush()
		hangUp(w)
		return
	}
	w.Write(answer)
}

// hangUp closes the connection without another byte.
func hangUp(w http.ResponseWriter) {
	if c, _, err := w.(http.Hijacker).Hijack(); err == nil {
		c.Close()
	}
}
