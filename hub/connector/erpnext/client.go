package erpnext

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
)

// refusal is an exception of Frappe's own: its transaction was rolled back.
type refusal struct {
	status     int
	kind, says string
	retryAfter time.Duration
}

func (r *refusal) Error() string { return fmt.Sprintf("ERPNext refused: %s: %s", r.kind, r.says) }

func (r *refusal) Unwrap() error {
	if r.status == http.StatusNotFound {
		return connector.ErrNotFound
	}
	return nil
}

// lost is the error of a request that may have had an effect all the same.
type lost struct{ cause error }

func (l *lost) Error() string { return "ERPNext's answer was lost: " + l.cause.Error() }
func (l *lost) Unwrap() error { return l.cause }

// errForm is of an answer that is Frappe's own and holds something that cannot be read: of a document, not of the line.
var errForm = errors.New("a field has another form than it should")

type client struct {
	cfg  Config
	http *http.Client
}

func newClient(cfg Config) *client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 8
	return &client{cfg: cfg, http: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// get reads one document.
func (c *client) get(ctx context.Context, doctype, name string, v any) error {
	if name == "" {
		return fmt.Errorf("%s without a name: %w", doctype, connector.ErrNotFound)
	}
	return c.send(ctx, http.MethodGet, doctype, name, nil, nil, v)
}

// list reads rows of a type. Frappe cuts a list without a limit at 20, so there is always one.
func (c *client) list(ctx context.Context, doctype string, filters [][]any, fields []string, order string, start, limit int, v any) error {
	f, err := json.Marshal(filters)
	if err != nil {
		return err
	}
	names, err := json.Marshal(fields)
	if err != nil {
		return err
	}
	q := url.Values{"filters": {string(f)}, "fields": {string(names)}, "order_by": {order}}
	if c.cfg.API == "v2" {
		q.Set("start", strconv.Itoa(start))
		q.Set("limit", strconv.Itoa(limit))
	} else {
		q.Set("limit_start", strconv.Itoa(start))
		q.Set("limit_page_length", strconv.Itoa(limit))
	}
	return c.send(ctx, http.MethodGet, doctype, "", q, nil, v)
}

// send makes one exchange and reads the answer's data into v. An error is a *refusal (nothing has happened), a *lost (it may
// have), or any other (nothing was sent).
func (c *client) send(ctx context.Context, method, doctype, name string, query url.Values, body, v any) error {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	req, err := http.NewRequestWithContext(ctx, method, c.address(doctype, name, query), bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "token "+c.cfg.User+":"+c.cfg.Password)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Content-Type", "application/json")
	resp, answer, err := exchange.Do(c.http, req, func(cause error) error { return &lost{cause} })
	if err != nil {
		return err
	}
	return judge(resp, answer, v)
}

func (c *client) address(doctype, name string, query url.Values) string {
	path := "/api/resource/"
	if c.cfg.API == "v2" {
		path = "/api/v2/document/"
	}
	path += url.PathEscape(doctype)
	if name != "" {
		path += "/" + url.PathEscape(name)
	}
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	return c.cfg.URL + path
}

// judge reads an answer. Only what has Frappe's own form counts: a page of something in between says nothing of the effect.
func judge(resp *http.Response, text []byte, v any) error {
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		var envelope struct {
			Data json.RawMessage `json:"data"`
		}
		if err := json.Unmarshal(text, &envelope); err != nil || len(envelope.Data) == 0 || string(envelope.Data) == "null" {
			return &lost{fmt.Errorf("answer is not Frappe's own: %.200q", text)}
		}
		if v == nil {
			return nil
		}
		if err := json.Unmarshal(envelope.Data, v); err != nil {
			return &lost{fmt.Errorf("%w: %w", errForm, err)}
		}
		return nil
	}
	r, ok := readRefusal(text)
	if !ok || (resp.StatusCode >= 500 && resp.StatusCode != http.StatusServiceUnavailable) {
		return &lost{fmt.Errorf("answer %s is not Frappe's own: %.200q", resp.Status, text)}
	}
	r.status = resp.StatusCode
	r.retryAfter = exchange.RetryAfter(resp.Header)
	return r
}

var tag = regexp.MustCompile(`<[^>]{0,200}>`)

// readRefusal reads an exception: exc_type with messages inside of texts (version 1), or errors (version 2).
func readRefusal(text []byte) (*refusal, bool) {
	var e struct {
		Kind      string `json:"exc_type"`
		Exception string `json:"exception"`
		Messages  string `json:"_server_messages"`
		Errors    []struct{ Type, Message string }
	}
	if json.Unmarshal(text, &e) != nil {
		return nil, false
	}
	if len(e.Errors) > 0 {
		return &refusal{kind: e.Errors[0].Type, says: plain(e.Errors[0].Message)}, e.Errors[0].Type != ""
	}
	says := e.Exception
	var messages []string
	if json.Unmarshal([]byte(e.Messages), &messages) == nil && len(messages) > 0 {
		var m struct{ Message string }
		if json.Unmarshal([]byte(messages[len(messages)-1]), &m) == nil && m.Message != "" {
			says = m.Message
		}
	}
	return &refusal{kind: e.Kind, says: plain(says)}, e.Kind != ""
}

// plain takes the mark-up out of a message for people.
func plain(text string) string {
	text = strings.TrimSpace(html.UnescapeString(tag.ReplaceAllString(text, "")))
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
