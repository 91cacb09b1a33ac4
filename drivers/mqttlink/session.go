package mqttlink

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"
)

const (
	connectPatience = 10 * time.Second
	settlePatience  = 3 * time.Second
	forever         = 10_000 * time.Hour
	silentIntervals = 3 // keep-alive intervals without a byte end a connection
)

// Session is one connection: from a successful Connect to the first of its loss and Close. It never comes back.
type Session struct {
	// Present says that the broker still had the session of an earlier connection.
	Present bool
	Version Version // V311 or V5
	// Older says that Auto was answered, in so many words, that the broker does not know version 5.
	Older  bool
	Limits Limits

	link    *link
	window  *window
	library library
	arrived uint64 // PUBLISH packets handled; of the library's reading goroutine

	life    context.Context // ends with the connection
	die     context.CancelFunc
	ended   <-chan struct{} // of life
	endOnce sync.Once
	err     error
	closing sync.Once
	pinger  sync.WaitGroup
}

// library is what the two client libraries have to do.
type library interface {
	subscribe(ctx context.Context, s []Subscription) ([]Grant, error)
	unsubscribe(ctx context.Context, filters []string) error
	publish(ctx context.Context, p Publication) error
	// close says farewell when told to and returns when nothing is received any more.
	close(farewell bool)
}

// Connect makes one connection. Its errors can be told by Explain; a refusal is a *Refused.
func Connect(ctx context.Context, o Options) (*Session, error) {
	o.fill()
	if o.Version == V311 {
		return connect(ctx, &o, connect311)
	}
	s, err := connect(ctx, &o, connect5)
	if err == nil || o.Version == V5 || ctx.Err() != nil {
		return s, err
	}
	unheard := errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET)
	if !errors.Is(err, ErrVersion) && !unheard {
		return nil, err
	}
	older, olderErr := connect(ctx, &o, connect311)
	switch {
	case olderErr == nil:
		older.Older = !unheard
	case unheard:
		return nil, err
	}
	return older, olderErr
}

// connect runs one library over a new connection.
func connect(ctx context.Context, o *Options, with func(context.Context, *Options, *Session, string) error) (*Session, error) {
	password, err := o.password()
	if err != nil {
		return nil, err
	}
	secure, err := o.TLS.config(o.Broker)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	c, err := dial(ctx, o.Broker, secure)
	if err != nil {
		return nil, err
	}
	s := &Session{window: newWindow(o.Window, o.WindowBytes),
		Limits: Limits{Retain: true, Wildcards: true, Shared: true, MaxQoS: 2, SessionExpiry: o.SessionExpiry, KeepAlive: o.KeepAlive}}
	s.life, s.die = context.WithCancel(context.Background())
	s.ended = s.life.Done()
	s.link = newLink(c, silentIntervals*o.KeepAlive, s.window.wait)
	if err := with(ctx, o, s, password); err != nil {
		s.die()
		c.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for the broker's answer: %w", ctx.Err())
		}
		if s.link.refusesVersion() {
			return nil, &Refused{Code: 0x84, Words: words[0x84]}
		}
		return nil, err
	}
	s.pinger.Go(s.keepAlive)
	return s, nil
}

// refusesVersion recognises the answer of a broker that knows 3.1.1 only to a connect of version 5.
func (l *link) refusesVersion() bool {
	const connack, unacceptable = 0x20, 1
	return len(l.opening) == openingBytes && l.opening[0] == connack && l.opening[1] == 2 && l.opening[3] == unacceptable
}

func (t *TLS) config(u *url.URL) (*tls.Config, error) {
	if u.Scheme != "tls" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if c.ServerName == "" {
		c.ServerName = u.Hostname()
	}
	if t.CA != "" {
		pem, err := os.ReadFile(t.CA)
		if err != nil {
			return nil, fmt.Errorf("read ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ca %q: it holds no certificate in PEM form", t.CA)
		}
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func dial(ctx context.Context, u *url.URL, secure *tls.Config) (net.Conn, error) {
	if secure == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	}
	return (&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", u.Host)
}

// received is called by the library for each PUBLISH, in order.
func (s *Session) received(m Message) {
	s.arrived++
	m.Received = time.Now()
	m.Freed = s.arrived > s.link.freedAfter.Load()
	s.window.put(m)
}

// end notes why the connection is over; the first reason counts.
func (s *Session) end(err error) {
	s.endOnce.Do(func() {
		s.err = err
		s.die()
	})
}

// Done is closed when the connection is over. What it had brought can still be taken.
func (s *Session) Done() <-chan struct{} { return s.ended }

// Err says why the connection is over: nil before Done is closed and after Close.
func (s *Session) Err() error {
	select {
	case <-s.ended:
		return s.err
	default:
		return nil
	}
}

// during returns a context that ends with ctx and with the connection.
func (s *Session) during(ctx context.Context) (context.Context, func()) {
	ctx, cancel := context.WithCancel(ctx)
	stop := context.AfterFunc(s.life, cancel)
	return ctx, func() { stop(); cancel() }
}

// Ready receives when there is something to take.
func (s *Session) Ready() <-chan struct{} { return s.window.ready }

// Take moves up to max of the oldest messages into batch, which is emptied first. Ready receives again when more is left.
func (s *Session) Take(batch []Message, max int) []Message { return s.window.take(batch, max) }

// Waiting is how many messages are received and not taken.
func (s *Session) Waiting() int { return s.window.count() }

// Full reports whether the window is full, so that nothing is read from the broker now.
func (s *Session) Full() bool { return s.window.holds() }

// Acknowledge acknowledges the messages of QoS 1 of a batch, in one write. Messages must be acknowledged in the order in which
// they came. It returns how many of those acknowledgements may have been written.
func (s *Session) Acknowledge(batch []Message) (int, error) {
	ids := make([]uint16, 0, len(batch))
	for i := range batch {
		if batch[i].QoS > 0 {
			ids = append(ids, batch[i].ID)
		}
	}
	if len(ids) == 0 {
		return 0, nil
	}
	return s.link.acknowledge(ids)
}

// Progress returns how many acknowledgements were written on this connection, and how many the broker has certainly read.
func (s *Session) Progress() (acked, confirmed uint64) { return s.link.progress() }

// Subscribe returns the broker's answer to each subscription, in their order. The answer may come behind a whole night's
// queue, so messages must be taken meanwhile; it ends with ctx or the connection.
func (s *Session) Subscribe(ctx context.Context, subscriptions []Subscription) ([]Grant, error) {
	return s.library.subscribe(ctx, subscriptions)
}

// Unsubscribe ends subscriptions; one that the broker does not know is no error.
func (s *Session) Unsubscribe(ctx context.Context, filters ...string) error {
	return s.library.unsubscribe(ctx, filters)
}

// Publish returns nil when the broker has the message (QoS 1), or when it was written (QoS 0). After any other error than a
// *Refused nobody knows. It may be called by several goroutines.
func (s *Session) Publish(ctx context.Context, p Publication) error { return s.library.publish(ctx, p) }

// keepAlive keeps the broker content, also while nothing is read, and ends a connection from which nothing is heard.
func (s *Session) keepAlive() {
	tick := time.NewTicker(s.Limits.KeepAlive / 2)
	defer tick.Stop()
	for {
		select {
		case <-s.ended:
			return
		case <-tick.C:
		}
		if !s.window.holds() && s.link.silence() > silentIntervals*s.Limits.KeepAlive {
			s.end(ErrSilent)
			s.link.Close()
			return
		}
		// An error is reported by the reading side, after what had come before it; or it is silence.
		_ = s.link.ping()
	}
}

// Close ends the connection with a farewell and returns when nothing is received any more. The broker keeps the session, if
// it was asked to, and publishes no will. It may be called twice.
func (s *Session) Close() { s.finish(true) }

// Abandon ends the connection without a farewell: the broker publishes the will.
func (s *Session) Abandon() { s.finish(false) }

func (s *Session) finish(farewell bool) {
	s.closing.Do(func() {
		s.window.close()
		s.settle()
		s.end(nil)
		stuck := time.AfterFunc(settlePatience, func() { s.link.Close() }) // a farewell that nobody reads
		defer stuck.Stop()
		s.library.close(farewell)
		s.link.Close()
		s.pinger.Wait()
	})
}

// settle waits until the broker has read all acknowledgements: closing a connection with something unread in it can take
// back what was written last, and the broker would send those messages again.
func (s *Session) settle() {
	patience := time.NewTimer(settlePatience)
	defer patience.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for {
		if acked, confirmed := s.link.progress(); acked == confirmed {
			return
		}
		select {
		case <-s.ended:
			return
		case <-patience.C:
			return
		case <-poll.C:
		}
	}
}
