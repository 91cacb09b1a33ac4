package odoo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
)

// refusal is an exception of Odoo's own: the call's transaction was rolled back.
type refusal struct {
	status     int
	name, says string
	retryAfter time.Duration
}

func (r *refusal) Error() string { return fmt.Sprintf("Odoo refused: %s: %s", r.name, r.says) }

func (r *refusal) Unwrap() error {
	if r.name == "odoo.exceptions.MissingError" {
		return connector.ErrNotFound
	}
	return nil
}

// lost is the error of a request that may have had an effect all the same. RetryAfter is set where something between asked for a rest.
type lost struct {
	cause      error
	status     int
	retryAfter time.Duration
}

func (l *lost) Error() string { return "Odoo's answer was lost: " + l.cause.Error() }
func (l *lost) Unwrap() error { return l.cause }

// errForm is of an answer that is Odoo's own and holds something that cannot be read: of a record, not of the line.
var errForm = errors.New("a field has another form than it should")

// arg is one named argument of a method.
type arg struct {
	name  string
	value any
}

type row = map[string]any

type client struct {
	cfg  Config
	http *http.Client
	id   atomic.Int64

	mu  sync.Mutex
	uid int // of jsonrpc, once it is known
}

func newClient(cfg Config) *client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 8
	return &client{cfg: cfg, http: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// call runs one method, which is one transaction of Odoo's, and reads its result into v. An error is a *refusal (nothing has happened), a
// *lost (it may have), or any other (nothing was sent).
func (c *client) call(ctx context.Context, model, method string, ids []int, extra row, v any, args ...arg) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	// Names of units and operation types are translated: they are read as they are written in the configuration.
	words := row{"lang": "en_US"}
	for k, x := range extra {
		words[k] = x
	}
	if c.cfg.API == jsonRPC {
		return c.execute(ctx, model, method, ids, words, v, args)
	}
	body := row{"context": words}
	if ids != nil {
		body["ids"] = ids
	}
	for _, a := range args {
		body[a.name] = a.value
	}
	return c.send(ctx, "/json/2/"+model+"/"+method, body, func(resp *http.Response, text []byte) error { return judge(resp, text, v) })
}

// execute runs a method by jsonrpc's object service. Create and write take their values by position: Odoo looks at the first of them.
func (c *client) execute(ctx context.Context, model, method string, ids []int, words row, v any, args []arg) error {
	uid, err := c.logIn(ctx)
	if err != nil {
		return err
	}
	position, named := []any{}, row{"context": words}
	if ids != nil {
		position = append(position, ids)
	}
	for _, a := range args {
		if method == "create" || method == "write" {
			position = append(position, a.value)
		} else {
			named[a.name] = a.value
		}
	}
	return c.rpc(ctx, "object", "execute_kw", v, c.cfg.Database, uid, c.cfg.Password, model, method, position, named)
}

// logIn asks once for the user's id, which jsonrpc wants in each call.
func (c *client) logIn(ctx context.Context) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.uid != 0 {
		return c.uid, nil
	}
	var uid ref
	if err := c.rpc(ctx, "common", "authenticate", &uid, c.cfg.Database, c.cfg.User, c.cfg.Password, row{}); err != nil {
		return 0, notSent{fmt.Errorf("log in to Odoo: %w", err)}
	}
	if uid.ID == 0 {
		return 0, notSent{fmt.Errorf("log in to Odoo: database %q does not take user %q with this key; make a new API key and put it in password_file", c.cfg.Database, c.cfg.User)}
	}
	c.uid = uid.ID
	return c.uid, nil
}

// notSent hides what became of a log-in: whatever it was, the call itself was not sent.
type notSent struct{ cause error }

func (n notSent) Error() string { return n.cause.Error() }

func (c *client) rpc(ctx context.Context, service, method string, v any, args ...any) error {
	id := c.id.Add(1)
	body := row{"jsonrpc": "2.0", "method": "call", "id": id, "params": row{"service": service, "method": method, "args": args}}
	return c.send(ctx, "/jsonrpc", body, func(resp *http.Response, text []byte) error { return judgeRPC(resp, text, id, v) })
}

func (c *client) send(ctx context.Context, path string, body any, judge func(*http.Response, []byte) error) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	// jsonrpc sends the key by position, where nobody would take it for a secret.
	req, err := http.NewRequestWithContext(exchange.Hiding(ctx, c.cfg.Password), http.MethodPost, c.cfg.URL+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "linekeeper")
	if c.cfg.API == json2 {
		req.Header.Set("Authorization", "bearer "+c.cfg.Password)
		if c.cfg.Database != "" {
			req.Header.Set("X-Odoo-Database", c.cfg.Database)
		}
	}
	resp, answer, err := exchange.Do(c.http, req, func(cause error) error { return &lost{cause: cause} })
	if err != nil {
		return err
	}
	return judge(resp, answer)
}

// exception is how both protocols tell one.
type exception struct {
	Name    string `json:"name"`
	Message string `json:"message"`
}

// judge reads an answer of json2: the result as it is, or an exception with an error status.
func judge(resp *http.Response, text []byte, v any) error {
	if resp.StatusCode == http.StatusOK {
		return read(resp, text, v)
	}
	var e exception
	if json.Unmarshal(text, &e) != nil {
		e.Name = ""
	}
	return e.judge(resp, text)
}

// judgeRPC reads an answer of jsonrpc: status 200 with a result or with an error.
func judgeRPC(resp *http.Response, text []byte, id int64, v any) error {
	var a struct {
		ID     *int64          `json:"id"`
		Result json.RawMessage `json:"result"`
		Error  *struct {
			Data exception `json:"data"`
		} `json:"error"`
	}
	if err := json.Unmarshal(text, &a); resp.StatusCode != http.StatusOK || err != nil || a.ID == nil || *a.ID != id {
		return foreign(resp, text)
	}
	if a.Error != nil {
		return a.Error.Data.judge(resp, text)
	}
	return read(resp, a.Result, v)
}

// foreign is an answer of something between here and Odoo, or one that Odoo did not finish.
func foreign(resp *http.Response, text []byte) error {
	return &lost{fmt.Errorf("answer %s is not Odoo's own: %.200q", resp.Status, text), resp.StatusCode, exchange.RetryAfter(resp.Header)}
}

func read(resp *http.Response, text []byte, v any) error {
	if len(text) == 0 || !json.Valid(text) {
		return foreign(resp, text)
	}
	if err := json.Unmarshal(text, v); err != nil {
		return &lost{cause: fmt.Errorf("%w: %w", errForm, err)}
	}
	return nil
}

// contended are the exceptions of PostgreSQL after which Odoo itself tries again, five times, before it tells them; and Odoo's own for a lock.
var contended = []string{"SerializationFailure", "LockNotAvailable", "DeadlockDetected", "TransactionRollbackError", "ConcurrencyError", "LockError"}

func (e exception) contended() bool {
	for _, name := range contended {
		if strings.HasSuffix(e.Name, "."+name) {
			return true
		}
	}
	return false
}

// judge tells an exception that came before the commit from one that may have come after it: Odoo rolls back after each exception in a method,
// but what it does after the commit can fail too, and then says nothing of that.
func (e exception) judge(resp *http.Response, text []byte) error {
	if strings.HasPrefix(e.Name, "odoo.exceptions.") || strings.HasPrefix(e.Name, "werkzeug.exceptions.") || e.contended() {
		return &refusal{resp.StatusCode, e.Name, plain(e.Message), exchange.RetryAfter(resp.Header)}
	}
	return foreign(resp, text)
}

// plain shortens a message for people.
func plain(text string) string {
	text = strings.Join(strings.Fields(text), " ")
	if r := []rune(text); len(r) > 400 {
		text = string(r[:400])
	}
	return text
}

func refused(err error) (*refusal, bool) {
	var r *refusal
	ok := errors.As(err, &r)
	return r, ok
}

// list reads records of a model.
func (c *client) list(ctx context.Context, model string, domain []any, fields []string, order string, limit int, v any) error {
	args := []arg{{"domain", domain}, {"fields", fields}, {"order", order}}
	if limit > 0 {
		args = append(args, arg{"limit", limit})
	}
	if err := c.call(ctx, model, "search_read", nil, nil, v, args...); err != nil {
		return fmt.Errorf("read %s: %w", model, err)
	}
	return nil
}

// where is one condition of a domain.
func where(field, operator string, value any) []any { return []any{field, operator, value} }
