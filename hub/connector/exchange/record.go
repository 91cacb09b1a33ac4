package exchange

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

// Record is one exchange as it may be kept and shown: headers are never in it, secrets are removed, and each side is cut to
// mostShown bytes.
type Record struct {
	At      time.Time
	Method  string // such as POST, or what the system calls it
	Address string
	Request string
	Status  string // empty when there was no answer
	Answer  string
	Cut     bool
}

const (
	mostShown = 4 << 10 // bytes of a request or an answer
	mostRead  = 64 << 10
	mostKept  = 4 // of one call of a connector: the last ones
)

// Recorder keeps the last exchanges of one call of a connector. It is no reason for anything to fail. Most are never asked for:
// secrets are removed when they are.
type Recorder struct {
	mu  sync.Mutex
	all []noted
}

// noted is an exchange as it was, but for what is too long to be read.
type noted struct {
	at                      time.Time
	method, address, status string
	request, answer         []byte
	hidden                  string
}

type recorderKey struct{}

// Recording returns a context in which exchanges are recorded.
func Recording(ctx context.Context) (context.Context, *Recorder) {
	r := &Recorder{}
	return context.WithValue(ctx, recorderKey{}, r), r
}

type hiddenKey struct{}

// Hiding returns a context in which a secret is removed from what is recorded, for protocols in which no name gives it away.
func Hiding(ctx context.Context, secret string) context.Context {
	return context.WithValue(ctx, hiddenKey{}, secret)
}

// hide removes a secret as it is, and as it stands in JSON.
func hide(secret string, text []byte) []byte {
	if secret == "" {
		return text
	}
	quoted, _ := json.Marshal(secret)
	text = bytes.ReplaceAll(text, quoted[1:len(quoted)-1], []byte(removed))
	return bytes.ReplaceAll(text, []byte(secret), []byte(removed))
}

// Records returns what was recorded, oldest first.
func (r *Recorder) Records() []Record {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []Record
	for _, n := range r.all {
		if x, ok := n.record(); ok {
			all = append(all, x)
		}
	}
	return all
}

// record is the exchange as it may be kept; false for one that cannot be shown.
func (n noted) record() (x Record, ok bool) {
	defer func() { ok = recover() == nil }() // evidence is no reason for a posting to fail
	x = Record{At: n.at, Method: n.method, Address: cleanAddress(n.address), Status: n.status}
	var cut bool
	x.Request, x.Cut = shown(hide(n.hidden, n.request))
	x.Answer, cut = shown(hide(n.hidden, n.answer))
	x.Cut = x.Cut || cut
	return x, true
}

// Note records an exchange when the context asks for it. Do notes by itself; connectors that speak by other means call it.
// status is empty when no answer came, answer then says why.
func Note(ctx context.Context, method, address string, request []byte, status string, answer []byte) {
	r, ok := ctx.Value(recorderKey{}).(*Recorder)
	if !ok {
		return
	}
	hidden, _ := ctx.Value(hiddenKey{}).(string)
	n := noted{time.Now(), method, address, status, beginning(request), beginning(answer), hidden}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, n)
	if len(r.all) > mostKept {
		r.all = r.all[1:]
	}
}

// beginning is a copy of what is read of a body, and of one byte more where there is more.
func beginning(body []byte) []byte { return bytes.Clone(body[:min(len(body), mostRead+1)]) }

// noteHTTP records an HTTP exchange; failure is why there is no whole answer.
func noteHTTP(req *http.Request, resp *http.Response, answer []byte, failure error) {
	ctx := req.Context()
	if _, ok := ctx.Value(recorderKey{}).(*Recorder); !ok {
		return
	}
	var body []byte
	if req.GetBody != nil {
		if b, err := req.GetBody(); err == nil {
			body, _ = io.ReadAll(io.LimitReader(b, mostRead+1))
			b.Close()
		}
	}
	status := ""
	if resp != nil {
		status = resp.Status
	}
	if failure != nil {
		answer = []byte(failure.Error())
	}
	Note(ctx, req.Method, req.URL.String(), body, status, answer)
}

const removed = "[removed]"

// secret names what no evidence may hold.
const secret = `(?:passw|secret|token|authori[sz]ation|cookie|api[-_]?key|session|credential|csrf|signature)`

var (
	secretName = regexp.MustCompile(`(?i)` + secret)
	// Fallbacks for what is not whole JSON.
	inJSON   = regexp.MustCompile(`(?i)("[^"]*` + secret + `[^"]*"\s*:\s*)("(?:[^"\\]|\\.)*(?:"|$)|[^\s,}\]]+)`)
	inXML    = regexp.MustCompile(`(?is)(<([\w:.-]*` + secret + `[\w:.-]*)[^>]*>).*?(</|$)`)
	inAttr   = regexp.MustCompile(`(?i)([\w:.-]*` + secret + `[\w:.-]*\s*=\s*)("[^"]*(?:"|$)|'[^']*(?:'|$))`)
	inForm   = regexp.MustCompile(`(?i)((?:^|[&?\s;])[\w.%-]*` + secret + `[\w.%-]*=)[^&\s;]*`)
	inScheme = regexp.MustCompile(`(?i)\b(bearer|basic|negotiate)\s+[\w.~+/=-]{6,}`)
)

// Of what the expressions look for, each word is here: a text that has none of them has nothing to be removed, and most have none.
var (
	secretHints = hints("passw", "secret", "token", "authori", "cookie", "apikey", "api-key", "api_key", "session", "credential", "csrf", "signature")
	schemeHints = hints("bearer", "basic", "negotiate")
)

// hints are words in small letters, by their first one.
func hints(words ...string) (by [128][]string) {
	for _, w := range words {
		by[w[0]] = append(by[w[0]], w)
	}
	return by
}

// hinted reports whether a text has one of the words, in letters of any size. It may say so of a text that has none, never the
// other way round. It takes a hundredth of the expressions' time.
func hinted[T string | []byte](text T, words *[128][]string) bool {
	for i := range len(text) {
		switch c := text[i]; {
		case c == 0xc5 || c == 0xe2: // begins a long s or a Kelvin sign, which expressions take for s and k
			return true
		case c < utf8.RuneSelf:
			for _, w := range words[lower(c)] {
				if len(text)-i >= len(w) && hasWord(text[i:], w) {
					return true
				}
			}
		}
	}
	return false
}

func hasWord[T string | []byte](text T, word string) bool {
	for i := range len(word) {
		if lower(text[i]) != word[i] {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// shown is the beginning of a body without its secrets, and whether there was more.
func shown(body []byte) (string, bool) {
	cut := len(body) > mostRead
	if cut {
		body = body[:mostRead]
	}
	text := redact(body)
	if len(text) > mostShown {
		text, cut = text[:mostShown], true
	}
	return strings.ToValidUTF8(text, "\uFFFD"), cut
}

func redact(body []byte) string {
	if !utf8.Valid(body) && bytes.IndexByte(body, 0) >= 0 {
		return "[not text]"
	}
	text := string(body)
	if clean, ok := redactJSON(body); ok {
		text = clean
	} else if hinted(text, &secretHints) {
		text = inJSON.ReplaceAllString(text, `${1}"`+removed+`"`)
		text = inXML.ReplaceAllString(text, `${1}`+removed+`${3}`)
		text = inAttr.ReplaceAllString(text, `${1}"`+removed+`"`)
		text = inForm.ReplaceAllString(text, `${1}`+removed)
	}
	if !hinted(text, &schemeHints) {
		return text
	}
	return inScheme.ReplaceAllString(text, "${1} "+removed)
}

// redactJSON leaves text without secrets as it is, letter by letter.
func redactJSON(body []byte) (string, bool) {
	if b := bytes.TrimSpace(body); len(b) == 0 || b[0] != '{' && b[0] != '[' {
		return "", false
	}
	if !hinted(body, &secretHints) || !secretName.Match(body) {
		return string(body), json.Valid(body)
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var v any
	if d.Decode(&v) != nil || d.More() {
		return "", false
	}
	clean, err := json.Marshal(withoutSecrets(v))
	return string(clean), err == nil
}

func withoutSecrets(v any) any {
	switch v := v.(type) {
	case map[string]any:
		for name, x := range v {
			if secretName.MatchString(name) {
				v[name] = removed
				continue
			}
			v[name] = withoutSecrets(x)
		}
	case []any:
		for i, x := range v {
			v[i] = withoutSecrets(x)
		}
	}
	return v
}

// cleanAddress removes user, password and secret parameters.
func cleanAddress(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return removed
	}
	u.User = nil
	q := u.Query()
	for name := range q {
		if hinted(name, &secretHints) && secretName.MatchString(name) {
			q.Set(name, removed)
			u.RawQuery = q.Encode()
		}
	}
	out := u.String()
	return out[:min(len(out), 1000)]
}
