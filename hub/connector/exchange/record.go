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

// Recorder keeps the last exchanges of one call of a connector. It is no reason for anything to fail.
type Recorder struct {
	mu  sync.Mutex
	all []Record
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

// hide removes the secret of a context as it is, and as it stands in JSON.
func hide(ctx context.Context, text []byte) []byte {
	secret, _ := ctx.Value(hiddenKey{}).(string)
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
	return append([]Record(nil), r.all...)
}

// Note records an exchange when the context asks for it. Do notes by itself; connectors that speak by other means call it.
// status is empty when no answer came, answer then says why.
func Note(ctx context.Context, method, address string, request []byte, status string, answer []byte) {
	r, ok := ctx.Value(recorderKey{}).(*Recorder)
	if !ok {
		return
	}
	defer func() { _ = recover() }() // evidence is no reason for a posting to fail
	x := Record{At: time.Now(), Method: method, Address: cleanAddress(address), Status: status}
	var cut bool
	x.Request, x.Cut = shown(hide(ctx, request))
	x.Answer, cut = shown(hide(ctx, answer))
	x.Cut = x.Cut || cut
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, x)
	if len(r.all) > mostKept {
		r.all = r.all[1:]
	}
}

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
	} else {
		text = inJSON.ReplaceAllString(text, `${1}"`+removed+`"`)
		text = inXML.ReplaceAllString(text, `${1}`+removed+`${3}`)
		text = inAttr.ReplaceAllString(text, `${1}"`+removed+`"`)
		text = inForm.ReplaceAllString(text, `${1}`+removed)
	}
	return inScheme.ReplaceAllString(text, "${1} "+removed)
}

// redactJSON leaves text without secrets as it is, letter by letter.
func redactJSON(body []byte) (string, bool) {
	if b := bytes.TrimSpace(body); len(b) == 0 || b[0] != '{' && b[0] != '[' {
		return "", false
	}
	if !secretName.Match(body) {
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
		if secretName.MatchString(name) {
			q.Set(name, removed)
			u.RawQuery = q.Encode()
		}
	}
	out := u.String()
	return out[:min(len(out), 1000)]
}
