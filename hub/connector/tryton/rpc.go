package tryton

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/exchange"
)

// kind says what a failed call means for its effect.
type kind int

const (
	notSent    kind = iota // nothing reached Tryton
	unknown                // the request may have been carried out: reply lost, gateway error
	failed                 // Tryton broke down inside, a lost database among the causes; it may have been carried out
	refused                // UserError: Tryton took everything back
	warned                 // UserWarning: it wants a person's yes first; taken back too
	outdated               // ConcurrencyException: the record is not as it was read; taken back too
	locked                 // wrong password, or too many of them: no log-in for a while; nothing was carried out
	denied                 // the log-in or the method is not allowed; nothing was carried out
	missing                // there is not enough stock: nothing was reserved
	impossible             // the request or the answer makes no sense: a mistake of ours or another version
)

// callError is a call that brought no result.
type callError struct {
	kind   kind
	method string
	text   string // Tryton's words, or the transport's
	name   string // of a warning
	cause  error
}

func (e *callError) Error() string {
	if e.cause != nil {
		return fmt.Sprintf("call Tryton's %s: %s: %v", e.method, e.text, e.cause)
	}
	return fmt.Sprintf("call Tryton's %s: %s", e.method, e.text)
}

func (e *callError) Unwrap() error { return e.cause }

// kindOf returns what an error of call means; unknown for errors of elsewhere.
func kindOf(err error) kind {
	var e *callError
	if errors.As(err, &e) {
		return e.kind
	}
	return unknown
}

// lockout is how long Tryton turns a user away after too many wrong passwords (its setting "session timeout").
const lockout = 5 * time.Minute

// client speaks Tryton's JSON-RPC: one session, shared by a few requests at a time.
type client struct {
	url, user, password string
	http                *http.Client
	slots               chan struct{}

	mu      sync.Mutex
	session session
	// No log-in is tried before this time: each wrong one slows and finally locks the account.
	refusedUntil time.Time
}

// session is what a log-in brings.
type session struct {
	key     string // the Authorization header's value
	uid     int
	context map[string]any // the user's preferences, which name the company
}

func newClient(c Config) *client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = c.Parallel
	return &client{
		url: c.URL, user: c.User, password: c.Password,
		slots: make(chan struct{}, c.Parallel),
		http: &http.Client{Transport: transport, Timeout: c.Timeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// call calls a method of a model and decodes its result into out (nil when it does not matter). The user's context goes
// with it, and extra on top. A session that ended is opened again once, and a question whose answer was lost is asked again:
// a step asks many, and without that a line which loses some answers would fail most steps.
func (c *client) call(ctx context.Context, out any, extra map[string]any, method string, args ...any) error {
	select {
	case c.slots <- struct{}{}:
		defer func() { <-c.slots }()
	case <-ctx.Done():
		return &callError{kind: notSent, method: method, text: "wait for a free session", cause: ctx.Err()}
	}
	asked, reopened := 0, false
	for {
		s, err := c.open(ctx)
		if err != nil {
			return err
		}
		whole := maps.Clone(s.context)
		maps.Copy(whole, extra)
		params := append(append(make([]any, 0, len(args)+1), args...), whole)
		err = c.exchange(ctx, s.key, out, "model."+method, params)
		asked++
		switch {
		case isExpired(err) && !reopened:
			c.drop(s)
			reopened = true
		case kindOf(err) == unknown && err != nil && onlyReads(method) && asked < askedAtMost && ctx.Err() == nil:
		default:
			return err
		}
	}
}

const askedAtMost = 3

// onlyReads says that a method changes nothing, so that it may be called again whatever became of it.
func onlyReads(method string) bool {
	switch method[strings.LastIndexByte(method, '.')+1:] {
	case "read", "search", "search_read", "search_count", "fields_get":
		return true
	}
	return false
}

var (
	errExpired = errors.New("the session has ended")
	errEnded   = errors.New("the session was ended while Tryton worked on the call")
)

func isExpired(err error) bool { return errors.Is(err, errExpired) }

// uid returns the record id of the connector's user.
func (c *client) uid(ctx context.Context) (int, error) {
	s, err := c.open(ctx)
	return s.uid, err
}

// company returns the record id of the company that the user works for.
func (c *client) company(ctx context.Context) (int, error) {
	s, err := c.open(ctx)
	if err != nil {
		return 0, err
	}
	if id, ok := s.context["company"].(float64); ok {
		return int(id), nil
	}
	if n, ok := s.context["company"].(json.Number); ok {
		if id, err := n.Int64(); err == nil {
			return int(id), nil
		}
	}
	return 0, &callError{kind: denied, method: "res.user.get_preferences", text: fmt.Sprintf("user %q works for no company; give it one in Tryton", c.user)}
}

func (c *client) drop(s session) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session.key == s.key {
		c.session = session{}
	}
}

// open returns the session, after a log-in if there is none. A refused log-in is not tried again before the lock-out is over.
func (c *client) open(ctx context.Context) (session, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.session.key != "" {
		return c.session, nil
	}
	if left := time.Until(c.refusedUntil); left > 0 {
		return session{}, &callError{kind: locked, method: "common.db.login", text: fmt.Sprintf(
			"Tryton refused user %q; the next log-in is tried in %s, because each wrong one locks the account longer", c.user, left.Round(time.Second))}
	}
	s, err := c.login(ctx)
	if err == nil {
		c.session = s
	} else if kindOf(err) == locked {
		c.refusedUntil = time.Now().Add(lockout)
	}
	return s, err
}

func (c *client) login(ctx context.Context) (session, error) {
	const method = "common.db.login"
	var who []json.RawMessage
	err := c.exchange(ctx, "", &who, method, []any{c.user, map[string]string{"password": c.password}, "en"})
	switch {
	case isExpired(err):
		return session{}, &callError{kind: locked, method: method,
			text: fmt.Sprintf("wrong password for user %q; set the right one in password_file", c.user)}
	case err != nil:
		return session{}, loginFailed(err)
	}
	var s session
	var key string
	if len(who) != 2 || json.Unmarshal(who[0], &s.uid) != nil || json.Unmarshal(who[1], &key) != nil {
		return session{}, &callError{kind: denied, method: method, text: fmt.Sprintf("Tryton opened no session for user %q", c.user)}
	}
	s.key = "Session " + base64.StdEncoding.EncodeToString(fmt.Appendf(nil, "%s:%d:%s", c.user, s.uid, key))
	if err := c.exchange(ctx, s.key, &s.context, "model.res.user.get_preferences", []any{true, map[string]any{}}); err != nil {
		return session{}, loginFailed(err)
	}
	s.context["language"] = "en" // texts that rejections are told by
	return s, nil
}

// loginFailed turns a failed log-in into one that says what is true of the call that needed it: it was not sent.
func loginFailed(err error) error {
	var e *callError
	if errors.As(err, &e) && e.kind == unknown {
		e.kind = notSent
	}
	return err
}

// exchange makes one request. Tryton answers 200 to everything it understood; the body says what happened.
func (c *client) exchange(ctx context.Context, key string, out any, method string, params []any) error {
	body, err := json.Marshal(map[string]any{"id": 0, "method": method, "params": params})
	if err != nil {
		return &callError{kind: impossible, method: method, text: "write the request", cause: err}
	}
	var sent atomic.Bool
	trace := &httptrace.ClientTrace{WroteHeaders: func() { sent.Store(true) }}
	req, err := http.NewRequestWithContext(httptrace.WithClientTrace(ctx, trace), http.MethodPost, c.url, bytes.NewReader(body))
	if err != nil {
		return &callError{kind: impossible, method: method, text: "write the request", cause: err}
	}
	req.Header.Set("Content-Type", "application/json")
	if key != "" {
		req.Header.Set("Authorization", key)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if !sent.Load() {
			return &callError{kind: notSent, method: method, text: "Tryton cannot be reached", cause: err}
		}
		note(ctx, key, method, body, "", []byte(err.Error()))
		return &callError{kind: unknown, method: method, text: "the answer was lost", cause: err}
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	note(ctx, key, method, body, resp.Status, answer)
	if err != nil {
		return &callError{kind: unknown, method: method, text: "the answer was cut off", cause: err}
	}
	return decode(method, resp, answer, out)
}

// note records a call as evidence, except a log-in: its answer is the session's key.
func note(ctx context.Context, key, method string, request []byte, status string, answer []byte) {
	if key != "" {
		exchange.Note(ctx, method, "", request, status, answer)
	}
}

const maxAnswer = 64 << 20

func decode(method string, resp *http.Response, answer []byte, out any) error {
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusUnauthorized:
		return &callError{kind: denied, method: method, text: "Tryton answers 401", cause: errExpired}
	case http.StatusTooManyRequests:
		return &callError{kind: locked, method: method, text: "Tryton has locked the user out after too many wrong passwords; find out who else uses the account"}
	case http.StatusForbidden, http.StatusNotFound:
		return &callError{kind: denied, method: method, text: "Tryton answers " + resp.Status + "; check the database in url, and that its modules are active"}
	default: // a gateway, or Tryton itself in trouble: what it did before is not known
		return &callError{kind: unknown, method: method, text: "the answer is " + resp.Status}
	}
	var reply struct{ Result, Error json.RawMessage }
	if err := json.Unmarshal(answer, &reply); err != nil {
		return &callError{kind: unknown, method: method, text: "the answer is not JSON", cause: err}
	}
	if reply.Error != nil {
		return refusal(method, reply.Error)
	}
	if out == nil {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(reply.Result))
	d.UseNumber()
	if err := d.Decode(out); err != nil {
		return &callError{kind: impossible, method: method, text: "read the answer", cause: err}
	}
	return nil
}

// refusal reads the four shapes of Tryton's errors:
//
//	["UserError", [text, description, domain]]
//	["UserWarning", [name, text, description]]
//	["ConcurrencyException", text]
//	[text, ""]     anything unforeseen, a lost database among it
func refusal(method string, raw json.RawMessage) error {
	e := &callError{kind: failed, method: method, text: string(raw)}
	var shape []json.RawMessage
	var first string
	if json.Unmarshal(raw, &shape) != nil || len(shape) == 0 || json.Unmarshal(shape[0], &first) != nil {
		return e
	}
	e.text = first
	var words []json.RawMessage
	word := func(i int) (s string) {
		if i < len(words) {
			json.Unmarshal(words[i], &s) // a word of another type stays empty
		}
		return s
	}
	if len(shape) > 1 {
		json.Unmarshal(shape[1], &words)
	}
	switch first {
	case "UserError":
		e.kind, e.text = refused, word(0)
		// Tryton marks the session as used after its commit. A session that was ended meanwhile is refused then, and the effect is there.
		if strings.Contains(e.text, `of "Session"`) {
			e.kind, e.cause = unknown, errEnded
		}
	case "UserWarning":
		e.kind, e.name, e.text = warned, word(0), word(1)
	case "ConcurrencyException":
		e.kind, e.text = outdated, "the record was changed in the meantime"
	case "LoginException":
		e.kind, e.text = denied, "Tryton wants another way to log in"
	}
	return e
}
