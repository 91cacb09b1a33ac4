package translate

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// pseudonymise compiles which parts of a rule's signals are replaced.
func (c *compiler) pseudonymise(r *rule) {
	for _, src := range c.cfg.Pseudonymise {
		e := compilePath(strings.TrimSpace(src), false)
		if e == nil || e.root != "payload" {
			c.fault("pseudonymise", "%q is not a path into the message, such as payload.operator, or payload for all of it", src)
			continue
		}
		at := [2]string{r.source, r.tag}
		c.t.masked[at] = append(c.t.masked[at], e.steps)
	}
}

// Masks says whether any rule pseudonymises anything, which needs the plant's secret.
func (t *Translator) Masks() bool { return len(t.masked) > 0 }

// Mask replaces what rules pseudonymise, before anything else of the agent sees a batch: facts, readings, quarantine,
// recordings and traces are made of what it returns. The batch itself is not changed. A message that could not be read, and so
// may hold a name anywhere, loses its bytes.
func (t *Translator) Mask(b signal.Batch) signal.Batch {
	if len(t.masked) == 0 {
		return b
	}
	cloned := false
	for i := range b.Signals {
		paths := slices.Concat(t.masked[[2]string{b.Source, b.Signals[i].Tag}], t.masked[[2]string{b.Source, "*"}])
		if len(paths) == 0 {
			continue
		}
		if !cloned {
			b.Signals, cloned = slices.Clone(b.Signals), true
		}
		b.Signals[i] = t.maskSignal(b.Signals[i], paths)
	}
	return b
}

func (t *Translator) maskSignal(s signal.Signal, paths [][]pathStep) signal.Signal {
	if s.Problem != nil {
		p := *s.Problem
		p.Reason = "the message could not be read (" + p.Code + "); its text is withheld, because rules pseudonymise parts of this tag"
		s.Problem, s.Payload, s.Value = &p, []byte("(withheld)"), nil
		return s
	}
	s.Value = signal.Whole(s.Value)
	for _, path := range paths {
		s.Value = t.maskAt(s.Value, path)
	}
	if s.Payload != nil {
		b, err := json.Marshal(jsonable(s.Value))
		if err != nil {
			b = []byte("(withheld)")
		}
		s.Payload = b
	}
	return s
}

// jsonable writes bytes as text, so that a payload stays readable.
func jsonable(v any) any {
	switch v := v.(type) {
	case string:
		return readable(v)
	case []byte:
		return readable(string(v))
	}
	return v
}

// maskAt returns v with what stands at a path replaced; the parts on the way are copied.
func (t *Translator) maskAt(v any, path []pathStep) any {
	if len(path) == 0 {
		return t.mask(v)
	}
	step := path[0]
	switch v := v.(type) {
	case map[string]any:
		in, ok := v[step.key]
		if step.key == "" || !ok {
			return v
		}
		v = maps.Clone(v)
		v[step.key] = t.maskAt(in, path[1:])
		return v
	case []any:
		if step.key != "" || step.index >= len(v) {
			return v
		}
		v = slices.Clone(v)
		v[step.index] = t.maskAt(v[step.index], path[1:])
		return v
	}
	return v
}

// mask replaces every text and number below v.
func (t *Translator) mask(v any) any {
	switch v := v.(type) {
	case nil, bool:
		return v
	case []any:
		out := make([]any, len(v))
		for i := range v {
			out[i] = t.mask(v[i])
		}
		return out
	case map[string]any:
		out := make(map[string]any, len(v))
		for k := range v {
			out[k] = t.mask(v[k])
		}
		return out
	}
	text := strings.TrimSpace(plain(v))
	if text == "" || text == "0" { // nobody
		return text
	}
	return t.pseudonym(text)
}

// pseudonym is the same for a text for as long as the secret is the same, and says nothing about it to who has not the secret.
func (t *Translator) pseudonym(text string) string {
	if len(t.pseudonymKey) == 0 {
		return "P-WITHHELD"
	}
	sum := hmac.New(sha256.New, t.pseudonymKey)
	sum.Write([]byte(text))
	return "P-" + base32.StdEncoding.EncodeToString(sum.Sum(nil)[:10])
}
