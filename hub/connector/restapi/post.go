package restapi

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
)

// intent is the request as it will be sent, and what was known before.
type intent struct {
	At         time.Time `json:"at"`
	ValidUntil string    `json:"valid_until,omitempty"`
	Mark       any       `json:"mark,omitempty"`
	Request    request   `json:"request"`
}

func readIntent(raw []byte) (in intent, err error) {
	v, err := generic.ReadJSON(raw) // numbers of the mark keep their text
	if err == nil {
		err = json.Unmarshal(raw, &in)
	}
	if err == nil && (in.At.IsZero() || in.Request.URL == "") {
		err = errors.New("it is not one of this connector")
	}
	if err != nil {
		return in, fmt.Errorf("read intent %.100q: %w", raw, err)
	}
	if m, ok := v.(map[string]any); ok {
		in.Mark = m["mark"]
	}
	return in, nil
}

// vars is a posting in the words of expressions.
func (c *Connector) vars(p connector.Posting, in intent) map[string]any {
	v := generic.FactVars(p, c.units)
	v["valid_until"], v["mark"] = in.ValidUntil, in.Mark
	return v
}

// Prepare looks the fact up, and whether the posting fits its order, and makes the request.
func (c *Connector) Prepare(ctx context.Context, p connector.Posting) ([]byte, *connector.Outcome, error) {
	if early := generic.Unsuitable(p, c.can, c.units); early != nil {
		return nil, early, nil
	}
	in := intent{At: time.Now()}
	early, err := c.prepare(ctx, p, &in)
	if err != nil {
		if rest := c.busy(p, err); rest != nil {
			return nil, rest, nil
		}
		return nil, nil, fmt.Errorf("prepare %s: %w", p.Fact.Key, err)
	}
	b, err := generic.JSON(in)
	return b, early, err
}

func (c *Connector) prepare(ctx context.Context, p connector.Posting, in *intent) (*connector.Outcome, error) {
	spec := c.spec(p)
	if early, err := c.known(ctx, p, spec, in); early != nil || err != nil {
		return early, err
	}
	if !p.Fact.Reverses.IsZero() { // what is done already can be taken back in every state of the order, if the ERP lets it
		if early, err := c.reversible(ctx, &p); early != nil || err != nil {
			return early, err
		}
	} else {
		o, err := c.order(ctx, generic.OrderNo(p))
		if errors.Is(err, connector.ErrNotFound) {
			return generic.NoOrder(p, c.cfg.Name), nil
		}
		if err != nil {
			return nil, fmt.Errorf("order %s: %w", generic.OrderNo(p), err)
		}
		if early := generic.Misfit(p, o); early != nil {
			return early, nil
		}
		o.Plant, o.Revision = p.Order.Plant, p.Order.Revision
		p.Order = o
	}
	if v := spec.cfg.ValidFor; v > 0 {
		in.ValidUntil = time.Now().Add(v).UTC().Format(time.RFC3339Nano)
	}
	var err error
	if in.Request, err = spec.request(c.vars(p, *in)); err != nil {
		if no := generic.Unmapped(p, err); no != nil {
			return no, nil
		}
		return generic.Reject(connector.Fatal, "MAPPING", "Correct the expression in postings of the configuration, then replay the fact.",
			"The request for fact %s of order %s cannot be made: %v.", p.Fact.Key, generic.OrderNo(p), err), nil
	}
	return nil, nil
}

// known finds an effect that is there already, and reads the mark. The hub calls Prepare only when it is in no doubt, so what
// cannot be found out here stops nothing.
func (c *Connector) known(ctx context.Context, p connector.Posting, spec *posting, in *intent) (*connector.Outcome, error) {
	if spec.lookup == nil {
		return nil, nil
	}
	f, vars, err := c.find(ctx, p, spec, *in)
	if err != nil {
		return nil, err
	}
	switch f.Presence {
	case connector.Found:
		return &connector.Outcome{Result: connector.Posted, Document: f.Document}, nil
	case connector.NotFoundYet:
		return generic.Reject(connector.Retryable, "PENDING", "Wait: it is looked at again by itself.", "%s", f.Reason), nil
	}
	if spec.lookup.mark.IsSet() {
		if in.Mark, err = spec.lookup.mark.Value(vars); err != nil {
			return nil, fmt.Errorf("lookup.mark: %w", err)
		}
	}
	return nil, nil
}

// reversible finds what shall be taken back, and refuses what is not there or was taken back by another fact.
func (c *Connector) reversible(ctx context.Context, p *connector.Posting) (*connector.Outcome, error) {
	original, spec := *p, c.postings[p.Fact.Kind]
	if p.Original != nil {
		original.Fact = p.Original.Fact
	}
	original.Fact.Key, original.Original = p.Fact.Reverses, nil
	original.Fact.Reverses = [16]byte{}
	f, vars, err := c.find(ctx, original, spec, intent{At: time.Now()})
	if err != nil {
		return nil, err
	}
	key := p.Fact.Reverses
	switch f.Presence {
	case connector.Found:
	case connector.NotFoundYet:
		return generic.Reject(connector.Retryable, "PENDING", "Wait: it is looked at again by itself.", "The posting of fact %s is not done yet.", key), nil
	default:
		return generic.Reject(connector.Correctable, "NOTHING_TO_REVERSE", "Look in the ERP what became of that fact, then replay or accept this one.",
			"No posting of fact %s is there to be reversed: %s", key, f.Reason), nil
	}
	by, err := spec.lookup.reversedBy.Text(vars)
	if err != nil {
		return nil, fmt.Errorf("lookup.reversed_by: %w", err)
	}
	if by != "" && by != p.Fact.Key.String() {
		return generic.Reject(connector.Correctable, "ALREADY_REVERSED", "Check that the other reversal meant the same, then accept this fact with its document.",
			"Fact %s is reversed already, by %s.", key, by), nil
	}
	known := connector.Original{Fact: original.Fact, Document: f.Document}
	if p.Original != nil && p.Original.Document.Number != "" {
		known.Document = p.Original.Document
	}
	p.Original = &known
	return nil, nil
}

// request makes the request of a posting.
func (s *posting) request(vars map[string]any) (r request, err error) {
	r.Method, r.Header = s.method, map[string]string{}
	if r.URL, err = s.url.Fill(vars, escape); err != nil {
		return r, fmt.Errorf("url: %w", err)
	}
	for name, t := range s.headers {
		if r.Header[name], err = t.Fill(vars, inHeader); err != nil {
			return r, fmt.Errorf("headers: %w", err)
		}
	}
	if i := s.cfg.Idempotency; i != nil {
		r.Header[i.Header] = vars[cmp.Or(i.Value, "uuid")].(string)
	}
	if !s.body.IsSet() {
		return r, nil
	}
	v, err := s.body.Fill(vars)
	if err != nil {
		return r, fmt.Errorf("body: %w", err)
	}
	b, err := generic.JSON(v)
	r.Body = string(b)
	return r, err
}

func inHeader(text string) (string, error) {
	if strings.ContainsAny(text, "\r\n\x00") {
		return "", fmt.Errorf("%q cannot stand in a header", text)
	}
	return text, nil
}

// Post sends the request as it was prepared.
func (c *Connector) Post(ctx context.Context, p connector.Posting, raw []byte) connector.Outcome {
	if early := generic.Unsuitable(p, c.can, c.units); early != nil {
		return *early
	}
	in, err := readIntent(raw)
	if err != nil {
		return *generic.Reject(connector.Retryable, "NO_INTENT", "Replay the fact: it is prepared again.", "Posting %s was not prepared: %v.", p.Fact.Key, err)
	}
	if !c.inTime(in) {
		return *generic.Reject(connector.Retryable, "TOO_LATE", generic.ByItself, "The request of fact %s was valid until %s.", p.Fact.Key, in.ValidUntil)
	}
	spec := c.spec(p)
	out := c.send(ctx, p, spec, in)
	if out.Result == connector.Rejected && out.Class == generic.Duplicate {
		f, _, err := c.find(ctx, p, spec, in)
		if err == nil && f.Presence == connector.Found {
			return connector.Outcome{Result: connector.Posted, Document: f.Document}
		}
		return connector.Outcome{Result: connector.InDoubt, Code: out.Code, Reason: fmt.Sprintf("%s It is looked up.", out.Reason)}
	}
	return out
}

func (c *Connector) inTime(in intent) bool {
	if in.ValidUntil == "" {
		return true
	}
	t, err := time.Parse(time.RFC3339Nano, in.ValidUntil)
	return err == nil && time.Now().Before(t)
}

// send makes the exchange and judges its answer.
func (c *Connector) send(ctx context.Context, p connector.Posting, spec *posting, in intent) connector.Outcome {
	key := p.Fact.Key.String()
	c.mark(key, time.Now().Add(c.cfg.Timeout))
	a, err := c.client.send(ctx, in.Request)
	var l *lost
	switch {
	case errors.As(err, &l):
		c.mark(key, time.Now())
		return doubt("The answer to the posting of fact %s on order %s is unknown: %v.", key, generic.OrderNo(p), l.cause)
	case err != nil:
		c.unmark(key)
		return *generic.Reject(connector.Retryable, "NOT_SENT", "Check the line to the ERP and the log-in: it is tried again by itself.", "Nothing was sent for order %s: %v.", generic.OrderNo(p), err)
	}
	out := c.judge(p, spec, in, a)
	if out.Result == connector.InDoubt {
		c.mark(key, time.Now())
	} else {
		c.unmark(key)
	}
	return out
}

func doubt(format string, args ...any) connector.Outcome {
	return connector.Outcome{Result: connector.InDoubt, Reason: fmt.Sprintf(format, args...)}
}

// judge says what an answer means. Only what the configuration recognises counts.
func (c *Connector) judge(p connector.Posting, spec *posting, in intent, a *answer) connector.Outcome {
	vars := a.vars(c.vars(p, in))
	success := a.own() && spec.success.True(vars)
	refused := match(spec.errors, p, a, vars)
	switch {
	case success && refused != nil:
		return doubt("The answer to the posting of fact %s is a success and an error at once: %s", p.Fact.Key, refused.Reason)
	case refused != nil:
		return *refused
	case success:
		doc, err := spec.document.of(p, vars)
		if err != nil {
			return doubt("The answer to the posting of fact %s names no document: %v.", p.Fact.Key, err)
		}
		return connector.Outcome{Result: connector.Posted, Document: doc}
	case a.own() && spec.accepted.True(vars):
		return doubt("The posting of fact %s on order %s was taken and is not done yet.", p.Fact.Key, generic.OrderNo(p))
	}
	return doubt("The answer to the posting of fact %s on order %s is not one that the configuration recognises: %s.", p.Fact.Key, generic.OrderNo(p), a.words())
}

// of reads the system's own key; the fact's where it has none.
func (d document) of(p connector.Posting, vars map[string]any) (doc connector.Document, err error) {
	if !d.number.IsSet() {
		return connector.Document{Number: p.Fact.Key.String()}, nil
	}
	if doc.Number, err = d.number.Text(vars); err == nil && doc.Number == "" {
		err = fmt.Errorf("expression %q gives nothing", d.number)
	}
	if err == nil {
		doc.ID, err = d.id.Text(vars)
	}
	return doc, err
}

// match is the first rule that is true of an answer, as a rejection.
func match(rules []generic.Refusal, p connector.Posting, a *answer, vars map[string]any) *connector.Outcome {
	for _, r := range rules {
		if r.When.True(vars) {
			return refusal(r, p, a, vars)
		}
	}
	return nil
}

func refusal(r generic.Refusal, p connector.Posting, a *answer, vars map[string]any) *connector.Outcome {
	out := r.Outcome(generic.OrderNo(p), fmt.Sprintf("HTTP_%d", a.status), a.words(), vars)
	out.RetryAfter = a.retryAfter
	return out
}

// mark notes until when a request can have been sent, unmark that it is no more in doubt.
func (c *Connector) mark(key string, at time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent[key] = at
}

func (c *Connector) unmark(key string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sent, key)
}

// sentLast is when a request can have been sent last: by this process, or, where it knows nothing of it, by one before it.
func (c *Connector) sentLast(key string, in intent) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if at, known := c.sent[key]; known {
		return at
	}
	if in.At.After(c.started) {
		return in.At
	}
	return c.started
}
