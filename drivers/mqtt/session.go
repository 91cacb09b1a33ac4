package mqtt

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const (
	connectPatience = 10 * time.Second
	setupPatience   = 30 * time.Second // without an answer and without messages
	settlePatience  = 3 * time.Second
	forever         = 10_000 * time.Hour
	refusedTopic    = 0x80 // in a SUBACK
)

// session is one connection. The client library is made anew for each, so nothing of a dead one is carried on.
type session struct {
	client paho.Client
	link   *link
	window *window
	lost   chan error  // receives once when the connection ended
	shaken func() bool // keeps the end of ctx from cutting the connection
	closed chan struct{}
	pinger sync.WaitGroup
}

// connect makes a connection and nothing more.
func (r *run) connect(ctx context.Context) (*session, error) {
	s := &session{window: newWindow(r.config.Window, windowBytes), lost: make(chan error, 1), closed: make(chan struct{})}
	options, err := r.options(ctx, s)
	if err != nil {
		return nil, err
	}
	s.client = paho.NewClient(options)
	token := s.client.Connect().(*paho.ConnectToken)
	<-token.Done() // ends with ctx too: that closes the connection beneath
	if s.shaken != nil {
		s.shaken() // from here on the end of ctx is handled with a farewell
	}
	if err := token.Error(); err != nil {
		return nil, err
	}
	s.pinger.Go(func() { s.ping(r.config.KeepAlive / 2) })
	r.ledger.connected(token.SessionPresent())
	r.env.Reporter.Problem("connect", nil)
	if r.memory.Joined && !token.SessionPresent() {
		r.reportGap()
	}
	return s, nil
}

func (r *run) options(ctx context.Context, s *session) (*paho.ClientOptions, error) {
	password, err := r.config.password()
	if err != nil {
		return nil, err
	}
	secure, err := r.tls()
	if err != nil {
		return nil, err
	}
	o := paho.NewClientOptions().AddBroker(r.broker.String()).SetClientID(r.config.ClientID)
	o.SetUsername(r.config.Username).SetPassword(password)
	o.SetProtocolVersion(4).SetCleanSession(false).SetStore(nowhere{})
	o.SetAutoReconnect(false).SetConnectRetry(false).SetConnectTimeout(connectPatience)
	// The library would take a full window for a dead broker: it waits for answers to its pings. We watch by ourselves.
	o.SetKeepAlive(r.config.KeepAlive).SetPingTimeout(forever)
	o.SetOrderMatters(true).SetAutoAckDisabled(true)
	o.SetCustomOpenConnectionFn(func(u *url.URL, _ paho.ClientOptions) (net.Conn, error) {
		c, err := dial(ctx, u, secure)
		if err != nil {
			return nil, err
		}
		s.link = newLink(c, 3*r.config.KeepAlive)
		s.shaken = context.AfterFunc(ctx, func() { c.Close() })
		return s.link, nil
	})
	o.SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) {
		blocked := s.window.put(message{topic: m.Topic(), payload: m.Payload(), received: time.Now(), id: m.MessageID(),
			qos: m.Qos(), dup: m.Duplicate(), retained: m.Retained(), freed: s.link.confirmed.Load() > 0})
		if blocked {
			s.link.touch() // nothing was heard because nobody listened
		}
	})
	o.SetConnectionLostHandler(func(_ paho.Client, err error) { s.lost <- err })
	return o, nil
}

func (r *run) tls() (*tls.Config, error) {
	if r.broker.Scheme != "tls" {
		return nil, nil
	}
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: r.config.ServerName}
	if c.ServerName == "" {
		c.ServerName = r.broker.Hostname()
	}
	if r.config.CA != "" {
		pem, err := os.ReadFile(r.config.CA)
		if err != nil {
			return nil, fmt.Errorf("read ca: %w", err)
		}
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read ca %q: it holds no certificate in PEM form", r.config.CA)
		}
	}
	if r.config.Cert != "" {
		pair, err := tls.LoadX509KeyPair(r.config.Cert, r.config.Key)
		if err != nil {
			return nil, fmt.Errorf("read cert and key: %w", err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c, nil
}

func dial(ctx context.Context, u *url.URL, secure *tls.Config) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectPatience)
	defer cancel()
	if secure == nil {
		return (&net.Dialer{}).DialContext(ctx, "tcp", u.Host)
	}
	return (&tls.Dialer{Config: secure}).DialContext(ctx, "tcp", u.Host)
}

// setup is what is to be settled with the broker at the start of a connection: step by step, each after its answer.
type setup struct {
	token paho.Token // nil when all is done
	then  func(context.Context) error
}

func (u *setup) done() <-chan struct{} {
	if u.token == nil {
		return nil
	}
	return u.token.Done()
}

func (u *setup) next(ctx context.Context) error {
	if err := u.token.Error(); err != nil {
		return fmt.Errorf("subscribe: %w", err)
	}
	u.token = nil
	return u.then(ctx)
}

// subscribe asks for every topic again: a broker that lost only the subscriptions would else stay silent. Then it
// unsubscribes what left the configuration.
func (r *run) subscribe(s *session) *setup {
	filters := map[string]byte{}
	for _, t := range r.rules.topics {
		filters[t.Filter] = 1
	}
	token := s.client.SubscribeMultiple(filters, nil).(*paho.SubscribeToken)
	u := &setup{token: token}
	u.then = func(ctx context.Context) error {
		granted := token.Result()
		for _, t := range r.rules.topics {
			r.env.Reporter.Problem("topic:"+t.Tag, judge(t, granted[t.Filter]))
		}
		r.env.Reporter.State(signal.StateOK, "")
		if gone := missing(r.memory.Topics, r.rules.filters()); len(gone) > 0 {
			u.token, u.then = s.client.Unsubscribe(gone...), r.joined
			return nil
		}
		return r.joined(ctx)
	}
	return u
}

// joined notes that the session at the broker is what the configuration wants.
func (r *run) joined(ctx context.Context) error {
	wanted := r.rules.filters()
	if r.memory.Joined && slices.Equal(r.memory.Topics, wanted) {
		return nil
	}
	r.memory.Topics, r.memory.Joined = wanted, true
	r.store(ctx, nil)
	return nil
}

func judge(t Topic, granted byte) *signal.Problem {
	switch {
	case granted == refusedTopic:
		return &signal.Problem{Code: "topic_refused", Item: t.Filter, Reason: "the broker refuses this subscription",
			NextStep: "allow the agent's user to read the topic at the broker (access list); the other topics go on"}
	case granted == 0:
		return &signal.Problem{Code: "qos_downgraded", Item: t.Filter, Reason: "the broker grants QoS 0 only: messages can be lost",
			NextStep: "allow QoS 1 for this topic at the broker"}
	}
	return nil
}

// ping keeps the broker content, also while nothing is read.
func (s *session) ping(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-s.closed:
			return
		case <-tick.C:
			if _, err := s.link.Write([]byte{pingreqPacket, 0}); err != nil {
				return // the reading side reports the end of the connection
			}
		}
	}
}

// close ends the connection and waits until nothing is received any more. The broker keeps the session.
func (s *session) close() {
	s.window.close()
	s.settle()
	close(s.closed)
	s.client.Disconnect(1000)
	s.link.Close()
	s.pinger.Wait()
}

// settle waits until the broker has read all acknowledgements: closing a connection with something unread in it can take
// back what was written last, and the broker would send those messages again.
func (s *session) settle() {
	patience := time.NewTimer(settlePatience)
	defer patience.Stop()
	poll := time.NewTicker(10 * time.Millisecond)
	defer poll.Stop()
	for s.client.IsConnectionOpen() {
		if acked, confirmed := s.link.progress(); acked == confirmed {
			return
		}
		select {
		case <-patience.C:
			return
		case <-poll.C:
		}
	}
}

func (r *run) reportGap() {
	r.env.Logger.Warn("the broker did not know the session any more", "source", r.env.Source, "broker", r.broker.Host)
	r.env.Reporter.Problem("session", &signal.Problem{Code: "possible_gap", Item: r.config.ClientID,
		Reason: fmt.Sprintf("at %s the broker did not know the agent's session any more: messages published while the agent was not connected may be lost",
			time.Now().Format(time.RFC3339)),
		NextStep: "compare the counts of this time with the machine; let the broker keep sessions on disk (mosquitto: persistence true, a short autosave_interval, no persistent_client_expiration)"})
}

// explain says why a connection failed, and what to do.
func explain(err error, c *Config) *signal.Problem {
	p := &signal.Problem{Code: "no_connection", Item: c.address(), Reason: err.Error(),
		NextStep: "check that the broker runs and that this computer reaches it"}
	var (
		unknown x509.UnknownAuthorityError
		host    x509.HostnameError
		invalid x509.CertificateInvalidError
		timeout net.Error
		pathErr *os.PathError
	)
	switch {
	case errors.Is(err, packets.ErrorRefusedBadUsernameOrPassword), errors.Is(err, packets.ErrorRefusedNotAuthorised):
		p.Code, p.Reason = "login_refused", fmt.Sprintf("the broker refuses user %q", c.Username)
		p.NextStep = "correct username and password_file of this source, or allow the user at the broker"
	case errors.Is(err, packets.ErrorRefusedIDRejected):
		p.Code, p.Item, p.Reason = "client_id_refused", c.ClientID, "the broker refuses this client_id"
		p.NextStep = "set a client_id that the broker accepts"
	case errors.As(err, &unknown):
		p.Code, p.Reason = "certificate_unknown", "the broker's certificate was signed by nobody this agent trusts; nothing was sent"
		p.NextStep = "set ca to the certificate of the authority that signed it"
	case errors.As(err, &host):
		p.Code, p.Reason = "certificate_name", "the broker's certificate is for another name: "+host.Error()
		p.NextStep = "set server_name to a name in the certificate, after checking that it is the right broker"
	case errors.As(err, &invalid):
		p.Code, p.Reason = "certificate_invalid", "the broker's certificate is not valid: "+invalid.Error()
		p.NextStep = "renew the broker's certificate and check the clocks of both computers"
	case strings.Contains(err.Error(), "remote error: tls"): // the alert has no type of its own
		p.Code, p.Reason = "certificate_refused", "the broker refuses the agent's certificate, or that it has none: "+err.Error()
		p.NextStep = "set cert and key to a certificate that the broker accepts"
	case errors.Is(err, syscall.ECONNREFUSED):
		p.Reason = "nothing listens at the broker's address"
	case errors.As(err, &pathErr):
		p.Code, p.Item, p.NextStep = "file_unreadable", pathErr.Path, "correct the path or the rights of the file"
	case errors.Is(err, errSilent):
		p.Reason = errSilent.Error()
	case errors.As(err, &timeout) && timeout.Timeout():
		p.Reason = "the broker does not answer"
	}
	return p
}

// nowhere is the library's store of unfinished work. There is none: the broker has it.
type nowhere struct{}

func (nowhere) Open()                             {}
func (nowhere) Put(string, packets.ControlPacket) {}
func (nowhere) Get(string) packets.ControlPacket  { return nil }
func (nowhere) All() []string                     { return nil }
func (nowhere) Del(string)                        {}
func (nowhere) Close()                            {}
func (nowhere) Reset()                            {}
