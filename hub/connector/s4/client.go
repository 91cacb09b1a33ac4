package s4

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
)

const root = "/sap/opu/odata/sap/"

// The services.
const (
	orderService = "API_PRODUCTION_ORDER_2_SRV"
	confService  = "API_PROD_ORDER_CONFIRMATION_2_SRV"
	docService   = "API_MATERIAL_DOCUMENT_SRV"
	stockService = "API_MATERIAL_STOCK_SRV"
)

// client sends requests, each in a session that no other request uses at that time: SAP ends the token of a session that two
// requests share.
type client struct {
	cfg  Config
	http *http.Client
	free chan *session
}

// session is cookies and the tokens that hang on them, by service.
type session struct {
	cookies map[string]string
	tokens  map[string]string
}

func (s *session) forget() { s.cookies, s.tokens = map[string]string{}, map[string]string{} }

func newClient(cfg Config) *client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = cfg.Sessions
	if cfg.roots != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: cfg.roots, MinVersion: tls.VersionTLS12}
	}
	c := &client{cfg: cfg, free: make(chan *session, cfg.Sessions),
		http: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	for range cfg.Sessions {
		s := &session{}
		s.forget()
		c.free <- s
	}
	return c
}

// answer is what SAP said in its own form: a body, or a refusal by which nothing has happened.
type answer struct {
	body    []byte
	header  http.Header
	refusal *refusal
}

// refusal is SAP's no.
type refusal struct {
	status     int
	code, text string
	retryAfter time.Duration
}

func (r *refusal) Error() string { return fmt.Sprintf("SAP refused: %s %s", r.code, r.text) }

func (r *refusal) Unwrap() error {
	if r.status == http.StatusNotFound {
		return connector.ErrNotFound
	}
	return nil
}

// lost is the error of a request that may have had an effect all the same.
type lost struct{ cause error }

func (l *lost) Error() string { return "SAP's answer was lost: " + l.cause.Error() }
func (l *lost) Unwrap() error { return l.cause }

// outdatedID is the answer to a repeated request whose first answer is no longer kept: it was processed.
const outdatedID = "/IWBEP/CM_COS/005"

// get reads something into v; a refusal is an error.
func (c *client) get(ctx context.Context, service, path string, query url.Values, v any) error {
	s, err := c.borrow(ctx)
	if err != nil {
		return err
	}
	defer func() { c.free <- s }()
	a, err := c.send(ctx, s, http.MethodGet, service, path, query, nil, nil)
	if err != nil {
		return err
	}
	if a.refusal != nil {
		return a.refusal
	}
	var d struct {
		D json.RawMessage `json:"d"`
	}
	if err := json.Unmarshal(a.body, &d); err != nil || len(d.D) == 0 {
		return fmt.Errorf("answer to %s/%s is not SAP's own: %.200q", service, path, a.body)
	}
	if err := json.Unmarshal(d.D, v); err != nil {
		return fmt.Errorf("read answer to %s/%s: %w", service, path, err)
	}
	return nil
}

// post sends one change with the session's token, and once more with a new one where SAP did not take the token: it then has
// not looked at the request. An error that is a *lost may have had an effect, any other certainly had none.
func (c *client) post(ctx context.Context, service, path string, query url.Values, body []byte, header http.Header) (answer, error) {
	s, err := c.borrow(ctx)
	if err != nil {
		return answer{}, err
	}
	defer func() { c.free <- s }()
	for range 2 {
		if err := c.token(ctx, s, service); err != nil {
			return answer{}, err
		}
		h := header.Clone()
		h.Set("X-CSRF-Token", s.tokens[service])
		a, err := c.send(ctx, s, http.MethodPost, service, path, query, body, h)
		if err != nil || a.refusal == nil || a.refusal.code != tokenRefused {
			return a, err
		}
		s.forget()
	}
	return answer{}, fmt.Errorf("SAP at %s takes no CSRF token of its own: check that nothing on the way removes cookies", c.cfg.URL)
}

func (c *client) borrow(ctx context.Context) (*session, error) {
	select {
	case s := <-c.free:
		return s, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// token fetches the token of a service, by GET of the service with a slash at its end and no options.
func (c *client) token(ctx context.Context, s *session, service string) error {
	if s.tokens[service] != "" {
		return nil
	}
	a, err := c.send(ctx, s, http.MethodGet, service, "", nil, nil, http.Header{"X-Csrf-Token": {"Fetch"}})
	var l *lost
	if errors.As(err, &l) {
		err = l.cause // a question has no effect
	}
	if err == nil && a.refusal != nil {
		err = a.refusal
	}
	if err == nil && s.tokens[service] == "" {
		err = errors.New("the answer brought none")
	}
	if err != nil {
		return fmt.Errorf("fetch CSRF token of %s: %w", service, err)
	}
	return nil
}

// tokenRefused stands for 403 with X-CSRF-Token: Required.
const tokenRefused = "csrf"

// send makes one exchange. Only an error in SAP's own form counts as a refusal: an error page of something in between says
// nothing of the effect.
func (c *client) send(ctx context.Context, s *session, method, service, path string, query url.Values, body []byte, header http.Header) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.address(service, path, query), bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	if header != nil {
		req.Header = header
	}
	c.dress(req, s)
	resp, text, err := exchange.Do(c.http, req, func(cause error) error { return &lost{cause} })
	if err != nil {
		return answer{}, err
	}
	s.keep(service, resp)
	return judge(resp, text)
}

func (c *client) address(service, path string, query url.Values) string {
	q := url.Values{}
	for k, v := range query {
		q[k] = v
	}
	if c.cfg.Client != "" {
		q.Set("sap-client", c.cfg.Client)
	}
	text := c.cfg.URL + root + service + "/" + path
	if len(q) > 0 {
		text += "?" + strings.ReplaceAll(q.Encode(), "+", "%20") // SAP Gateway reads a plus as a plus
	}
	return text
}

func (c *client) dress(req *http.Request, s *session) {
	req.SetBasicAuth(c.cfg.User, c.cfg.Password)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("Accept-Language", strings.ToLower(c.cfg.Language))
	if req.Method == http.MethodPost {
		req.Header.Set("Content-Type", "application/json")
	}
	for name, value := range s.cookies {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
}

// keep remembers cookies and a token that came.
func (s *session) keep(service string, resp *http.Response) {
	for _, c := range resp.Cookies() {
		if c.MaxAge < 0 || c.Value == "" {
			delete(s.cookies, c.Name)
			continue
		}
		s.cookies[c.Name] = c.Value
	}
	if token := resp.Header.Get("X-CSRF-Token"); token != "" && !strings.EqualFold(token, "required") {
		s.tokens[service] = token
	}
}

// judge reads status and form of an answer.
func judge(resp *http.Response, text []byte) (answer, error) {
	status := resp.StatusCode
	switch {
	case status >= 200 && status < 300:
		return answer{body: text, header: resp.Header}, nil
	case status == http.StatusForbidden && strings.EqualFold(resp.Header.Get("X-CSRF-Token"), "required"):
		return answer{refusal: &refusal{status: status, code: tokenRefused, text: "CSRF token validation failed"}}, nil
	case status == http.StatusUnauthorized:
		return answer{}, errors.New("SAP does not take user and password: correct them in the configuration, and see that the user is not locked")
	}
	var envelope struct {
		Error struct {
			Code    string `json:"code"`
			Message struct {
				Value string `json:"value"`
			} `json:"message"`
		} `json:"error"`
	}
	if json.Unmarshal(text, &envelope) != nil || envelope.Error.Code == "" || (status >= 500 && status != http.StatusServiceUnavailable && status != http.StatusNotImplemented) {
		return answer{}, &lost{fmt.Errorf("answer %s is not SAP's own: %.200q", resp.Status, text)}
	}
	return answer{refusal: &refusal{status: status, code: envelope.Error.Code, text: envelope.Error.Message.Value, retryAfter: exchange.RetryAfter(resp.Header)}}, nil
}
