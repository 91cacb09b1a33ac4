package restapi

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
)

// find asks the look-up and says what it shows, Absent without asking whether that is a proof; vars are over its answer.
func (c *Connector) find(ctx context.Context, p connector.Posting, spec *posting, in intent) (connector.Finding, map[string]any, error) {
	l, key := spec.lookup, p.Fact.Key
	if l == nil {
		return connector.Finding{Presence: connector.CannotTell, Reason: "No look-up is configured."}, nil, nil
	}
	vars := c.vars(p, in)
	address, err := l.url.Fill(vars, escape)
	if err != nil {
		return connector.Finding{}, nil, fmt.Errorf("lookup.url: %w", err)
	}
	a, err := c.client.get(ctx, address)
	if err != nil {
		return connector.Finding{}, nil, err
	}
	vars = a.vars(vars)
	if !a.own() {
		return connector.Finding{}, nil, &unhappy{"look up", a}
	}
	switch refused := match(l.rejected, p, a, vars); {
	case l.found.True(vars):
		doc, err := l.document.of(p, vars)
		if err != nil {
			return connector.Finding{}, nil, fmt.Errorf("lookup.document: %w", err)
		}
		return connector.Finding{Presence: connector.Found, Document: doc}, vars, nil
	case refused != nil:
		return connector.Finding{Presence: connector.Absent, Reason: refused.Reason, Rejection: refused}, vars, nil
	case l.pending.True(vars):
		return connector.Finding{Presence: connector.NotFoundYet, Reason: fmt.Sprintf("The ERP still works on fact %s.", key)}, vars, nil
	case l.cannotTell.True(vars):
		return connector.Finding{Presence: connector.CannotTell, Reason: fmt.Sprintf("The ERP cannot say what became of fact %s: %s.", key, a.words())}, vars, nil
	case l.absent.True(vars):
		return connector.Finding{Presence: connector.Absent, Reason: fmt.Sprintf("Nothing has key %s.", key)}, vars, nil
	}
	return connector.Finding{}, nil, &unhappy{"look up", a}
}

// Lookup says what became of a posting, as far as the configuration lets it. What it cannot tell is sent again where the system
// replays its answers.
func (c *Connector) Lookup(ctx context.Context, p connector.Posting, raw []byte) (connector.Finding, error) {
	in, err := readIntent(raw)
	if err != nil {
		return connector.Finding{}, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	spec := c.spec(p)
	if spec == nil {
		return connector.Finding{Presence: connector.CannotTell, Reason: fmt.Sprintf("Facts of kind %s are no longer configured.", p.Fact.Kind)}, nil
	}
	asked := time.Now()
	f, _, err := c.find(ctx, p, spec, in)
	if err != nil {
		return f, fmt.Errorf("look up %s: %w", p.Fact.Key, err)
	}
	if f.Presence == connector.Absent && f.Rejection == nil {
		f = c.prove(p, spec, asked.Sub(c.sentLast(p.Fact.Key.String(), in)), f)
	}
	if i := spec.cfg.Idempotency; f.Presence == connector.CannotTell && i != nil && time.Since(in.At) < i.Within-c.cfg.Timeout && c.inTime(in) {
		f = c.replay(ctx, p, spec, in)
	}
	if f.Presence == connector.Found || f.Presence == connector.Absent {
		c.unmark(p.Fact.Key.String())
	}
	return f, nil
}

// prove says what it is worth that nothing was found when the ERP was asked, so long after the request can have been sent last.
func (c *Connector) prove(p connector.Posting, spec *posting, since time.Duration, f connector.Finding) connector.Finding {
	key := p.Fact.Key.String()
	switch after := spec.lookup.absentAfter; {
	case after == nil && since < c.cfg.Settle:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: f.Reason}
	case after == nil:
		return connector.Finding{Presence: connector.CannotTell, Reason: fmt.Sprintf("Nothing has key %s, which by the configuration proves nothing: look in the ERP for the posting on order %s.",
			key, generic.OrderNo(p))}
	case since < *after:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: fmt.Sprintf("Nothing has key %s yet; it may still appear.", key)}
	}
	return f
}

// replay sends the same request again, to a system that knows it by its header and answers as before.
func (c *Connector) replay(ctx context.Context, p connector.Posting, spec *posting, in intent) connector.Finding {
	switch out := c.send(ctx, p, spec, in); {
	case out.Result == connector.Posted:
		return connector.Finding{Presence: connector.Found, Document: out.Document, Reason: "The ERP gave the answer of the first request again."}
	case out.Result == connector.Rejected && out.Class != connector.Retryable && out.Class != generic.Duplicate:
		return connector.Finding{Presence: connector.Absent, Reason: out.Reason, Rejection: &out}
	default:
		return connector.Finding{Presence: connector.NotFoundYet, Reason: out.Reason}
	}
}

// Verify reads the effect back, as far as that is configured, and compares it with the fact.
func (c *Connector) Verify(ctx context.Context, p connector.Posting, raw []byte, doc connector.Document) (connector.Verification, error) {
	spec := c.spec(p)
	if spec == nil || spec.verify == nil && spec.lookup == nil {
		return connector.Verification{Matches: true}, nil // nobody can ask: the system's word is all there is
	}
	in, _ := readIntent(raw)
	v, err := c.verify(ctx, p, spec, in, doc)
	if err != nil {
		return v, fmt.Errorf("verify %s: %w", p.Fact.Key, err)
	}
	return v, nil
}

func (c *Connector) verify(ctx context.Context, p connector.Posting, spec *posting, in intent, doc connector.Document) (connector.Verification, error) {
	v := spec.verify
	if v == nil {
		v = &verify{url: spec.lookup.url, found: spec.lookup.found, notYet: spec.lookup.pending}
	}
	vars := c.vars(p, in)
	vars["document"] = map[string]any{"number": doc.Number, "id": doc.ID}
	address, err := v.url.Fill(vars, escape)
	if err != nil {
		return connector.Verification{}, err
	}
	asked := time.Now()
	a, err := c.client.get(ctx, address)
	if err != nil {
		return connector.Verification{}, err
	}
	if !a.own() || a.status >= 500 || a.status == 401 || a.status == 403 || a.status == 429 || a.status >= 300 && a.status < 400 {
		return connector.Verification{}, &unhappy{"read the effect", a}
	}
	vars = a.vars(vars)
	switch {
	case v.notYet.True(vars):
		return connector.Verification{NotYet: true}, nil
	case !v.found.True(vars) && asked.Sub(in.At) < max(v.within, c.cfg.Settle):
		return connector.Verification{NotYet: true}, nil
	case !v.found.True(vars):
		return connector.Verification{Difference: fmt.Sprintf("Document %s of order %s is not there as it should be: %s.", doc.Number, generic.OrderNo(p), a.words())}, nil
	}
	var wrong []string
	for _, e := range v.equal {
		if text := e.Different(vars, *c.cfg.Scale); text != "" {
			wrong = append(wrong, text)
		}
	}
	for _, w := range v.wrong {
		if w.When.True(vars) {
			reason, err := w.Reason.Text(vars)
			if err != nil {
				reason = fmt.Sprintf("%q is true", w.When)
			}
			wrong = append(wrong, reason)
		}
	}
	if len(wrong) > 0 {
		return connector.Verification{Difference: fmt.Sprintf("Document %s of order %s: %s.", doc.Number, generic.OrderNo(p), strings.Join(wrong, "; "))}, nil
	}
	return connector.Verification{Matches: true}, nil
}
