package restapi

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
	"github.com/linekeeper/linekeeper/hub/connector/secret"
)

// lost is the error of a request that may have had an effect all the same.
type lost struct{ cause error }

func (l *lost) Error() string { return "the answer was lost: " + l.cause.Error() }
func (l *lost) Unwrap() error { return l.cause }

// answer is what came back, whatever its status.
type answer struct {
	status     int
	header     http.Header
	text       []byte
	body       any  // nil unless it is JSON
	json       bool // it is JSON
	retryAfter time.Duration
}

// own reports that an answer has the form of a program's, not of a page for people.
func (a *answer) own() bool { return a.json || len(bytes.TrimSpace(a.text)) == 0 }

// vars adds the answer to what expressions may use.
func (a *answer) vars(with map[string]any) map[string]any {
	out := map[string]any{"status": a.status, "body": a.body}
	headers := map[string]any{}
	for k, v := range a.header {
		headers[strings.ToLower(k)] = strings.Join(v, ", ")
	}
	out["headers"] = headers
	for k, v := range with {
		out[k] = v
	}
	return out
}

// words is what the answer says to a person.
func (a *answer) words() string {
	text := a.text
	if !a.own() && bytes.Contains(bytes.ToLower(text[:min(len(text), 500)]), []byte("<html")) || bytes.HasPrefix(bytes.ToLower(bytes.TrimSpace(text)), []byte("<!doctype")) {
		return fmt.Sprintf("status %d with a web page", a.status)
	}
	return fmt.Sprintf("status %d: %.300q", a.status, strings.ToValidUTF8(string(text), "?"))
}

// request is one request as it is sent.
type request struct {
	Method string            `json:"method"`
	URL    string            `json:"url"`
	Header map[string]string `json:"header,omitempty"`
	Body   string            `json:"body,omitempty"`
}

type client struct {
	cfg    Config
	base   *url.URL
	http   *http.Client
	secret string
	oauth  *clientcredentials.Config

	mu    sync.Mutex
	token *oauth2.Token
}

func newClient(cfg Config) (*client, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, wrong("url: %w", err)
	}
	secure, err := cfg.TLS.config()
	if err != nil {
		return nil, err
	}
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.TLSClientConfig, t.MaxIdleConnsPerHost = secure, 8
	c := &client{cfg: cfg, base: base, http: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
	switch a := cfg.Auth; {
	case a.Basic != nil:
		c.secret, err = a.Basic.Password.read("auth.basic.password")
	case a.Bearer != nil:
		c.secret, err = a.Bearer.read("auth.bearer")
	case a.Header != nil:
		c.secret, err = a.Header.Value.read("auth.header.value")
	case a.OAuth2 != nil:
		c.secret, err = a.OAuth2.ClientSecret.read("auth.oauth2.client_secret")
		c.oauth = a.OAuth2.config(c.secret)
	}
	return c, err
}

func (t TLS) config() (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: t.ServerName}
	if t.CAFile != "" {
		text, err := os.ReadFile(t.CAFile)
		if err != nil {
			return nil, wrong("read tls.ca_file: %w", err)
		}
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(text) {
			return nil, wrong("tls.ca_file %q holds no certificate; it begins with -----BEGIN CERTIFICATE-----", t.CAFile)
		}
	}
	if t.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
		if err != nil {
			return nil, wrong("read tls.cert_file and tls.key_file: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// read gives the secret that the key names.
func (s Secret) read(key string) (string, error) {
	text, err := secret.Source(s).Read()
	if err != nil {
		return "", wrong("%s %w", key, err)
	}
	return text, nil
}

func (o *OAuth2) config(secret string) *clientcredentials.Config {
	cc := &clientcredentials.Config{ClientID: o.ClientID, ClientSecret: secret, TokenURL: o.TokenURL, Scopes: o.Scopes, EndpointParams: url.Values{}, AuthStyle: oauth2.AuthStyleInHeader}
	if o.InBody {
		cc.AuthStyle = oauth2.AuthStyleInParams
	}
	for k, v := range o.Parameters {
		cc.EndpointParams.Set(k, v)
	}
	return cc
}

// authorize says who we are. Its error means that nothing was sent.
func (c *client) authorize(ctx context.Context, req *http.Request) error {
	switch a := c.cfg.Auth; {
	case a.Basic != nil:
		req.SetBasicAuth(a.Basic.User, c.secret)
	case a.Bearer != nil:
		req.Header.Set("Authorization", "Bearer "+c.secret)
	case a.Header != nil:
		req.Header.Set(a.Header.Name, c.secret)
	case a.OAuth2 != nil:
		c.mu.Lock()
		defer c.mu.Unlock()
		if !c.token.Valid() {
			token, err := c.oauth.Token(context.WithValue(ctx, oauth2.HTTPClient, c.http))
			if err != nil {
				return tokenError(err)
			}
			c.token = token
		}
		c.token.SetAuthHeader(req)
	}
	return nil
}

// tokenError leaves out of an error what may hold a secret.
func tokenError(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil {
		return fmt.Errorf("the token server refuses client id or secret with status %d %s: correct auth.oauth2", refused.Response.StatusCode,
			strings.TrimSpace(refused.ErrorCode+" "+refused.ErrorDescription))
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("get a token: %w", err)
}

// forget drops a token that was not taken, and reports whether there was one.
func (c *client) forget() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	had := c.token != nil
	c.token = nil
	return had
}

// address is an absolute address of the system's: relative ones begin at of, the address that named it, or at the configured one.
func (c *client) address(text string, of *url.URL) (string, error) {
	u, err := url.Parse(text)
	if err != nil {
		return "", fmt.Errorf("address %.100q: %w", text, err)
	}
	switch {
	case u.IsAbs() || u.Host != "":
	case of != nil:
		u = of.ResolveReference(u)
	case strings.HasPrefix(text, "/"):
		u = c.base.ResolveReference(u)
	default:
		if u, err = url.Parse(c.cfg.URL + "/" + text); err != nil {
			return "", fmt.Errorf("address %.100q: %w", text, err)
		}
	}
	if u.Scheme != c.base.Scheme || u.Host != c.base.Host {
		return "", fmt.Errorf("address is at %s://%s, and url is at %s://%s: credentials go to no other host; correct the configuration, or let the system name its own address",
			u.Scheme, u.Host, c.base.Scheme, c.base.Host)
	}
	return u.String(), nil
}

// escape writes a value into an address, as a part of a path or of a query.
func escape(text string) (string, error) {
	if text == "." || text == ".." {
		return "", fmt.Errorf("%q cannot be a part of an address", text)
	}
	return strings.ReplaceAll(url.QueryEscape(text), "+", "%20"), nil
}

// send makes one exchange. An error that is a *lost says that it may have had an effect, any other that nothing was sent. A token
// that is not taken is renewed once: the request was then not looked at.
func (c *client) send(ctx context.Context, r request) (*answer, error) {
	a, err := c.once(ctx, r)
	if err == nil && a.status == http.StatusUnauthorized && c.cfg.Auth.OAuth2 != nil && c.forget() {
		a, err = c.once(ctx, r)
	}
	return a, err
}

func (c *client) once(ctx context.Context, r request) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	target, err := c.address(r.URL, nil)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, r.Method, target, bytes.NewReader([]byte(r.Body)))
	if err != nil {
		return nil, err
	}
	req.GetBody = nil // nothing on the way may send it a second time
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "linekeeper")
	if r.Body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for _, headers := range []map[string]string{c.cfg.Headers, r.Header} {
		for k, v := range headers {
			req.Header.Set(k, v)
		}
	}
	if err := c.authorize(ctx, req); err != nil {
		return nil, err
	}
	resp, text, err := exchange.Do(c.http, req, func(cause error) error { return &lost{bare(cause)} })
	if err != nil {
		return nil, bare(err)
	}
	a := &answer{status: resp.StatusCode, header: resp.Header, text: text, retryAfter: exchange.RetryAfter(resp.Header)}
	if v, err := generic.ReadJSON(text); err == nil {
		a.body, a.json = v, true
	}
	return a, nil
}

// bare leaves the address out of an error: it may hold a key.
func bare(err error) error {
	var l *lost
	if errors.As(err, &l) {
		return l
	}
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// unhappy is an answer to a question that is none.
type unhappy struct {
	what string
	*answer
}

func (u *unhappy) Error() string {
	if u.status >= 300 && u.status < 400 {
		return fmt.Sprintf("%s: status %d sends elsewhere, which is not followed: correct the address", u.what, u.status)
	}
	return fmt.Sprintf("%s: the answer is not one that the configuration recognises: %s", u.what, u.words())
}

// get asks. Its error is never about an effect.
func (c *client) get(ctx context.Context, address string) (*answer, error) {
	a, err := c.send(ctx, request{Method: http.MethodGet, URL: address})
	var l *lost
	if errors.As(err, &l) {
		err = l.cause
	}
	return a, err
}
