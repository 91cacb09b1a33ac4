package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const (
	firstWait     = 500 * time.Millisecond
	longestWait   = 30 * time.Second
	heldAfter     = 2 * time.Second
	ordersSection = "work_orders" // the name of the answers' part of the cursor
	hookSection   = "webhook"
)

// source is the driver of one MES.
type source struct {
	env    signal.Env
	config Config
	zone   *time.Location
	client *client
	health health
}

func newSource(env signal.Env, c Config, zone *time.Location) (*source, error) {
	s := &source{env: env, config: c, zone: zone}
	var err error
	if s.client, err = newClient(&s.config); err != nil {
		return nil, err
	}
	s.health = health{reporter: env.Reporter, broken: map[string]string{}}
	return s, nil
}

// Run implements signal.Driver: one goroutine for each query, one for the answers and one for the webhooks. They share the
// cursor.
func (s *source) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	defer s.env.Reporter.State(signal.StateStopped, "")
	s.env.Reporter.State(signal.StateConnecting, "")
	b, err := openBook(s, cursor, emit)
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

// loop calls step at each poll, at once again when it says that there is more, and after a growing wait when it fails.
func (s *source) loop(ctx context.Context, section string, poll time.Duration, step func(context.Context) (more bool, err error)) {
	for failures := 0; ctx.Err() == nil; {
		more, err := step(ctx)
		wait := poll
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			wait = max(poll, rand.N(min(firstWait<<min(failures, 10), longestWait)))
			var asked *waitError
			if errors.As(err, &asked) {
				wait = max(wait, asked.wait)
			}
			failures++
			s.reportFailure(section, err, wait)
		default:
			failures = 0
			s.health.well(section)
			s.env.Reporter.Problem("query:"+section, nil)
		}
		if more && err == nil {
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
		}
	}
}

// problemError is an error that carries its own explanation.
type problemError struct{ problem signal.Problem }

func (e *problemError) Error() string { return e.problem.Reason }

func (s *source) reportFailure(section string, err error, wait time.Duration) {
	p := explain(section, err, wait)
	s.env.Logger.Warn("ask the MES", "source", s.env.Source, "query", section, "err", err)
	s.env.Reporter.Problem("query:"+section, p)
	s.health.ill(section, p.Reason, unreachable[p.Code])
}

// unreachable are the problems that concern the MES as a whole.
var unreachable = map[string]bool{"no_connection": true, "login_refused": true, "certificate_refused": true, "not_listening": true}

func explain(section string, err error, wait time.Duration) *signal.Problem {
	var (
		own      *problemError
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
		*p = own.problem
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

// health makes one state of the source of those of its parts.
type health struct {
	reporter signal.Reporter
	mu       sync.Mutex
	broken   map[string]string // by section: why there is no connection
}

func (h *health) well(section string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.broken, section)
	if len(h.broken) == 0 {
		h.reporter.State(signal.StateOK, "")
	}
}

func (h *health) ill(section, reason string, noConnection bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.broken, section)
	if noConnection {
		h.broken[section] = reason
		h.reporter.State(signal.StateFailed, reason)
	} else if len(h.broken) == 0 {
		h.reporter.State(signal.StateOK, "") // the MES is there; the query's own problem says the rest
	}
}

// book is the cursor of the whole source: a part for each query and one for the answers. It makes batches durable one after
// the other.
type book struct {
	source *source
	emit   signal.Emit

	mu    sync.Mutex
	parts map[string]json.RawMessage
}

func openBook(s *source, cursor []byte, emit signal.Emit) (*book, error) {
	b := &book{source: s, emit: emit, parts: map[string]json.RawMessage{}}
	if len(cursor) == 0 {
		return b, nil
	}
	if err := json.Unmarshal(cursor, &b.parts); err != nil {
		// To start anew would read everything again, to go on would be a guess.
		return nil, fmt.Errorf("read cursor of source %q: %w", s.env.Source, err)
	}
	return b, nil
}

// part reads one part into state; it leaves it alone when there is none yet.
func (b *book) part(section string, state any) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	raw, ok := b.parts[section]
	if !ok {
		return nil
	}
	if err := json.NewDecoder(bytes.NewReader(raw)).Decode(state); err != nil {
		return &problemError{signal.Problem{Code: "cursor_unreadable", Item: section,
			Reason: "the stored position of this query cannot be read: " + err.Error(), NextStep: "give the query another tag to read from its beginning"}}
	}
	return nil
}

// commit makes signals and the new state of a part durable together. It repeats until that is done; the only error is the
// context's.
func (b *book) commit(ctx context.Context, section string, state any, signals []signal.Signal) error {
	raw, err := json.Marshal(state)
	if err != nil {
		panic(err) // states are made of texts and numbers
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	parts := make(map[string]json.RawMessage, len(b.parts)+1)
	for k, v := range b.parts {
		parts[k] = v
	}
	parts[section] = raw
	cursor, err := json.Marshal(parts)
	if err != nil {
		panic(err)
	}
	if err := b.emitUntilDurable(ctx, signal.Batch{Source: b.source.env.Source, Signals: signals, Cursor: cursor}); err != nil {
		return err
	}
	b.parts = parts
	return nil
}

func (b *book) emitUntilDurable(ctx context.Context, batch signal.Batch) error {
	report := b.source.env.Reporter.State
	held := time.AfterFunc(heldAfter, func() {
		report(signal.StateHeld, "the buffer does not take more at present; the records stay in the MES")
	})
	defer held.Stop()
	for attempt := 0; ; attempt++ {
		err := b.emit(ctx, batch)
		if err == nil {
			return nil // the next successful step reports that all is well
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		report(signal.StateHeld, "store records: "+err.Error())
		b.source.env.Logger.Warn("store records", "source", b.source.env.Source, "err", err)
		timer := time.NewTimer(rand.N(min(firstWait<<min(attempt, 10), longestWait)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}
