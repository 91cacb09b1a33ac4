package rest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

const (
	ordersSection = "work_orders" // the name of the answers' part of the cursor
	hookSection   = "webhook"
)

// buffering is how records wait for the buffer, and how long a query waits after it failed.
var buffering = polling.Patience{Records: "records", Stays: "the records stay in the MES", HeldAfter: 2 * time.Second,
	FirstWait: 500 * time.Millisecond, LongestWait: 30 * time.Second}

// source is the driver of one MES.
type source struct {
	env    signal.Env
	config Config
	zone   *time.Location
	client *client
	health polling.Health
}

func newSource(env signal.Env, c Config, zone *time.Location) (*source, error) {
	s := &source{env: env, config: c, zone: zone}
	var err error
	if s.client, err = newClient(&s.config); err != nil {
		return nil, err
	}
	s.health.Reporter = env.Reporter
	return s, nil
}

// Run implements signal.Driver: one goroutine for each query, one for the answers and one for the webhooks. They share the
// cursor.
func (s *source) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	defer s.env.Reporter.State(signal.StateStopped, "")
	s.env.Reporter.State(signal.StateConnecting, "")
	b, err := polling.Open(&s.env, cursor, emit, &buffering)
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	for i := range s.config.Queries {
		q := &s.config.Queries[i]
		p := &poller{source: s, book: b, query: q, section: q.Tag}
		group.Go(func() { s.loop(ctx, q.Tag, q.Poll, p.step) })
	}
	if w := s.config.WorkOrders; w != nil && w.Answers != nil {
		p := &poller{source: s, book: b, query: &w.Answers.Query, section: ordersSection, answers: w.Answers}
		group.Go(func() { s.loop(ctx, ordersSection, w.Answers.Poll, p.step) })
	}
	if s.config.Webhook != nil {
		h := &hookServer{source: s, emit: emit}
		group.Go(func() { s.loop(ctx, hookSection, time.Second, h.serve) })
	}
	if len(s.config.Queries) == 0 && s.config.Webhook == nil && s.config.WorkOrders.Answers == nil {
		s.env.Reporter.State(signal.StateOK, "") // there is nothing to be connected to before an order comes
	}
	group.Wait()
	<-ctx.Done()
	s.client.close()
	return nil
}

// loop works on one part of the source until ctx ends. An MES that asks for a rest gets it.
func (s *source) loop(ctx context.Context, section string, poll time.Duration, step func(context.Context) (more bool, err error)) {
	buffering.Loop(ctx, poll, step, func() {
		s.health.Well(section)
		s.env.Reporter.Problem("query:"+section, nil)
	}, func(err error, wait time.Duration) time.Duration {
		var asked *waitError
		if errors.As(err, &asked) {
			wait = max(wait, asked.wait)
		}
		s.reportFailure(section, err, wait)
		return wait
	})
}

func (s *source) reportFailure(section string, err error, wait time.Duration) {
	p := explain(section, err, wait)
	s.env.Logger.Warn("ask the MES", "source", s.env.Source, "query", section, "err", err)
	s.env.Reporter.Problem("query:"+section, p)
	s.health.Ill(section, p.Reason, unreachable[p.Code])
}

// unreachable are the problems that concern the MES as a whole.
var unreachable = map[string]bool{"no_connection": true, "login_refused": true, "certificate_refused": true, "not_listening": true}

func explain(section string, err error, wait time.Duration) *signal.Problem {
	var (
		own      *polling.ProblemError
		asked    *waitError
		unknown  x509.UnknownAuthorityError
		name     x509.HostnameError
		expired  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		dnsError *net.DNSError
	)
	p := &signal.Problem{Code: "request_failed", Item: section, Reason: err.Error(), NextStep: "read the reason; it is tried again by itself, the others go on"}
	switch {
	case errors.As(err, &own):
		*p = own.Problem
		if p.Item == "" {
			p.Item = section
		}
	case errors.As(err, &asked):
		p.Code, p.NextStep = "asked_to_wait", fmt.Sprintf("nothing: it is asked again in %s", wait.Round(time.Second))
	case errors.As(err, &unknown), errors.As(err, &name), errors.As(err, &expired), errors.As(err, &verify):
		p.Code, p.Reason = "certificate_refused", "the MES's certificate is not trusted: "+err.Error()
		p.NextStep = "put the certificate of the authority that signed it into tls.ca_file, and use the host name that stands in it"
	case errors.As(err, &dnsError):
		p.Code, p.Reason, p.NextStep = "no_connection", "the MES's name is not known: "+err.Error(), "correct base or url, or the name server"
	case isNet(err):
		p.Code, p.Reason = "no_connection", "no connection to the MES: "+err.Error()
		p.NextStep = "check that the MES runs and that this computer reaches it (proxies are taken from HTTPS_PROXY and NO_PROXY)"
	}
	return p
}

func isNet(err error) bool {
	var n net.Error
	var op *net.OpError
	return errors.As(err, &n) || errors.As(err, &op)
}
