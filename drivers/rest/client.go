package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/oauth2"
	"golang.org/x/oauth2/clientcredentials"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// client makes requests of one MES. Files with credentials are read anew for each, so that a changed one needs no restart.
type client struct {
	config *Config
	hosts  map[string]bool // that may have our credentials

	mu    sync.Mutex
	http  *http.Client
	token *oauth2.Token
}

func newClient(c *Config) (*client, error) {
	out := &client{config: c, hosts: map[string]bool{}}
	addresses := []string{c.Base}
	for _, q := range c.Queries {
		addresses = append(addresses, q.URL)
	}
	if w := c.WorkOrders; w != nil {
		addresses = append(addresses, w.URL)
		if w.Cancel != nil {
			addresses = append(addresses, w.Cancel.URL)
		}
		if w.Answers != nil {
			addresses = append(addresses, w.Answers.URL)
		}
		for _, x := range w.Check {
			addresses = append(addresses, x.URL)
		}
	}
	for _, a := range addresses {
		if a == "" {
			continue
		}
		u, err := join(c.Base, strings.NewReplacer("{", "", "}", "").Replace(a))
		if err != nil {
			return nil, err
		}
		out.hosts[u.Scheme+"://"+u.Host] = true
	}
	return out, nil
}

// transport is made at the first use: the files that it needs may come later than the configuration.
func (c *client) transport() (*http.Client, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		return c.http, nil
	}
	secure := &tls.Config{MinVersion: tls.VersionTLS12}
	if t := c.config.TLS; t != nil {
		secure.ServerName = t.ServerName
		if t.CAFile != "" {
			pem, err := os.ReadFile(t.CAFile)
			if err != nil {
				return nil, fmt.Errorf("read tls.ca_file: %w", err)
			}
			secure.RootCAs = x509.NewCertPool()
			if !secure.RootCAs.AppendCertsFromPEM(pem) {
				return nil, fmt.Errorf("tls.ca_file %q holds no certificate in PEM form", t.CAFile)
			}
		}
		if t.CertFile != "" {
			secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				pair, err := tls.LoadX509KeyPair(t.CertFile, t.KeyFile)
				return &pair, err
			}
		}
	}
	c.http = &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: secure, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 4,
			IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 15 * time.Second, MaxResponseHeaderBytes: 256 << 10,
			DialContext: (&net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}).DialContext},
		CheckRedirect: func(r *http.Request, via []*http.Request) error {
			if len(via) > 5 || !c.hosts[r.URL.Scheme+"://"+r.URL.Host] {
				return fmt.Errorf("the MES sends on to %s://%s, which is not configured: credentials stay here", r.URL.Scheme, r.URL.Host)
			}
			return nil
		},
	}
	return c.http, nil
}

func (c *client) close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.http != nil {
		c.http.CloseIdleConnections()
	}
}

// request is one question to the MES.
type request struct {
	method, url string
	headers     map[string]string
	body        []byte
}

// reply is the MES's answer, read to its end.
type reply struct {
	code   int
	header http.Header
	body   []byte
}

// do sends a request. The error is about the way to the MES; a reply with any code is none.
func (c *client) do(ctx context.Context, r request) (*reply, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.Timeout)
	defer cancel()
	rep, err := c.once(ctx, r)
	if err == nil && rep.code == http.StatusUnauthorized && c.forget() {
		rep, err = c.once(ctx, r) // with a new token
	}
	return rep, err
}

func (c *client) once(ctx context.Context, r request) (*reply, error) {
	hc, err := c.transport()
	if err != nil {
		return nil, &polling.ProblemError{Problem: signal.Problem{Code: "file_unreadable", Item: "tls", Reason: err.Error(), NextStep: "correct tls of this source, or the file"}}
	}
	req, err := http.NewRequestWithContext(ctx, r.method, r.url, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("make a request: %w", err)
	}
	if !c.hosts[req.URL.Scheme+"://"+req.URL.Host] {
		return nil, &polling.ProblemError{Problem: signal.Problem{Code: "foreign_address", Item: req.URL.Host, Reason: fmt.Sprintf("the MES names an address at %s, which is not configured: credentials stay here", req.URL.Host),
			NextStep: "correct next, or let the MES name addresses of its own"}}
	}
	req.Header.Set("User-Agent", "linekeeper")
	req.Header.Set("Accept", "application/json")
	if len(r.body) > 0 {
		req.Header.Set("Content-Type", "application/json")
	}
	for k, v := range r.headers {
		req.Header.Set(k, v)
	}
	if err := c.authorize(ctx, hc, req); err != nil {
		return nil, err
	}
	res, err := hc.Do(req)
	if err != nil {
		return nil, bare(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, c.config.MaxBody+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", bare(err))
	}
	if int64(len(body)) > c.config.MaxBody {
		return nil, &polling.ProblemError{Problem: signal.Problem{Code: "too_large", Item: req.URL.Path, Reason: fmt.Sprintf("the answer is larger than max_body, %d bytes", c.config.MaxBody),
			NextStep: "let the MES answer in smaller pages, or raise max_body"}}
	}
	return &reply{res.StatusCode, res.Header, body}, nil
}

// bare leaves the address out of an error: it may hold a key.
func bare(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// authorize says who we are.
func (c *client) authorize(ctx context.Context, hc *http.Client, req *http.Request) error {
	a := c.config.Auth
	switch {
	case a == nil:
	case a.Basic != nil:
		password, err := secret(a.Basic.PasswordFile)
		if err != nil {
			return err
		}
		req.SetBasicAuth(a.Basic.User, password)
	case a.BearerFile != "":
		token, err := secret(a.BearerFile)
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+token)
	case a.Header != nil:
		value, err := secret(a.Header.ValueFile)
		if err != nil {
			return err
		}
		req.Header.Set(a.Header.Name, value)
	case a.OAuth2 != nil:
		token, err := c.oauthToken(ctx, hc)
		if err != nil {
			return err
		}
		token.SetAuthHeader(req)
	}
	return nil
}

func secret(file string) (string, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return "", &polling.ProblemError{Problem: signal.Problem{Code: "file_unreadable", Item: file, Reason: "read a file with credentials: " + err.Error(), NextStep: "make the file, readable for the agent only"}}
	}
	text := strings.TrimSpace(string(b))
	if text == "" || strings.ContainsAny(text, "\r\n") {
		return "", &polling.ProblemError{Problem: signal.Problem{Code: "file_unreadable", Item: file, Reason: "the file with credentials does not hold exactly one line", NextStep: "write the credential into it, on one line"}}
	}
	return text, nil
}

// oauthToken returns the token that is known, or fetches one.
func (c *client) oauthToken(ctx context.Context, hc *http.Client) (*oauth2.Token, error) {
	o := c.config.Auth.OAuth2
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token.Valid() {
		return c.token, nil
	}
	id, err := secret(o.ClientSecretFile)
	if err != nil {
		return nil, err
	}
	cc := clientcredentials.Config{ClientID: o.ClientID, ClientSecret: id, TokenURL: o.TokenURL, Scopes: o.Scopes, EndpointParams: url.Values{},
		AuthStyle: oauth2.AuthStyleInHeader}
	if o.InBody {
		cc.AuthStyle = oauth2.AuthStyleInParams
	}
	for k, v := range o.Parameters {
		cc.EndpointParams.Set(k, v)
	}
	// The token's own server may be elsewhere; it gets nothing but id and secret.
	plain := &http.Client{Transport: hc.Transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	token, err := cc.Token(context.WithValue(ctx, oauth2.HTTPClient, plain))
	if err != nil {
		return nil, tokenProblem(err)
	}
	c.token = token
	return token, nil
}

func tokenProblem(err error) error {
	var refused *oauth2.RetrieveError
	if errors.As(err, &refused) && refused.Response != nil {
		words := strings.TrimSpace(refused.ErrorCode + " " + refused.ErrorDescription)
		code := refused.Response.StatusCode
		if code >= 500 || code == http.StatusTooManyRequests {
			return fmt.Errorf("the token server answers %d %s", code, words)
		}
		return &polling.ProblemError{Problem: signal.Problem{Code: "login_refused", Item: "auth.oauth2", Reason: fmt.Sprintf("the token server refuses client id or secret: %d %s", code, words),
			NextStep: "correct client_id, client_secret_file, scopes or in_body of this source"}}
	}
	return fmt.Errorf("no token: %w", bare(err))
}

// forget drops a token that the MES does not take, and reports whether there was one.
func (c *client) forget() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	had := c.token != nil
	c.token = nil
	return had
}

// waitError is an error that says when to come again.
type waitError struct {
	wait time.Duration
	text string
}

func (e *waitError) Error() string { return e.text }

const longestRest = time.Hour

// retryAfter reads for how long the MES wants to be left alone; zero when it does not say.
func (r *reply) retryAfter(now time.Time) time.Duration {
	text := r.header.Get("Retry-After")
	if n, err := strconv.Atoi(text); err == nil && n >= 0 {
		return min(time.Duration(min(n, 1<<20))*time.Second, longestRest)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), longestRest)
	}
	return 0
}

// problem turns a reply that is no success into an error for a person.
func (r *reply) problem(item string) error {
	words := r.words()
	switch {
	case r.code == http.StatusTooManyRequests || r.code == http.StatusServiceUnavailable:
		return &waitError{r.retryAfter(time.Now()), fmt.Sprintf("the MES asks for a rest: %d %s", r.code, words)}
	case r.code == http.StatusUnauthorized || r.code == http.StatusForbidden || r.code == http.StatusProxyAuthRequired:
		return &polling.ProblemError{Problem: signal.Problem{Code: "login_refused", Item: item, Reason: fmt.Sprintf("the MES refuses us: %d %s", r.code, words), NextStep: "correct auth of this source, or allow the agent's user at the MES"}}
	case r.code == http.StatusNotFound || r.code == http.StatusMethodNotAllowed:
		return &polling.ProblemError{Problem: signal.Problem{Code: "address_missing", Item: item, Reason: fmt.Sprintf("the MES knows no such address: %d %s", r.code, words), NextStep: "correct base, url or method"}}
	case r.code == http.StatusGone:
		return &polling.ProblemError{Problem: signal.Problem{Code: "cursor_expired", Item: item, Reason: "the MES no longer knows the place where we were: " + words,
			NextStep: "records since then may be missing: find out which, then give the query another tag and set first"}}
	case r.code >= 500:
		return fmt.Errorf("the MES answers %d %s", r.code, words)
	}
	return &polling.ProblemError{Problem: signal.Problem{Code: "request_refused", Item: item, Reason: fmt.Sprintf("the MES refuses the request: %d %s", r.code, words), NextStep: "read the reason; compare url, headers and body with the MES's documentation"}}
}

const longestWords = 500

// words is what the body says to a person: the text of a problem in JSON, or its beginning.
func (r *reply) words() string {
	if v, err := payload.JSON(r.body); err == nil {
		for _, name := range []string{"detail", "message", "error_description", "error", "title", "reason"} {
			switch text := find(v, name).(type) {
			case string:
				return clip(text)
			case map[string]any:
				if inner, ok := text["message"].(string); ok {
					return clip(inner)
				}
			}
		}
	}
	if strings.Contains(r.header.Get("Content-Type"), "html") {
		return http.StatusText(r.code)
	}
	return clip(strings.TrimSpace(string(r.body)))
}

func clip(text string) string {
	text = strings.Join(strings.Fields(strings.ToValidUTF8(text, "?")), " ")
	if len(text) > longestWords {
		text = strings.ToValidUTF8(text[:longestWords], "") + " ..."
	}
	return text
}
