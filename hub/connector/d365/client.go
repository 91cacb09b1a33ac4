package d365

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/exchange"
)

// refusal is D365's no: nothing has happened.
type refusal struct {
	status     int
	text       string
	retryAfter time.Duration
}

func (r *refusal) Error() string {
	return fmt.Sprintf("refused by D365 with status %d: %s", r.status, r.text)
}

// lost is the error of a request that may have had an effect all the same.
type lost struct{ cause error }

func (l *lost) Error() string { return "answer of D365 was lost: " + l.cause.Error() }
func (l *lost) Unwrap() error { return l.cause }

var errToken = errors.New("the token was not taken by D365: enter the app in D365 and give it a user with rights")

// row is one item of an answer; its numbers keep their text.
type row map[string]any

func (r row) text(name string) string {
	if v := r[name]; v != nil {
		return fmt.Sprint(v)
	}
	return ""
}

// maxPages bounds how long a reading that is cut into pages may go on.
const maxPages = 10_000

// read reads an entity of the company whole, or no more than top when that is above zero.
func (c *Connector) read(ctx context.Context, entity, filter, order string, top int) (all []row, err error) {
	return c.readPages(ctx, entity, filter, order, top, false)
}

// readAll reads an entity of the company whole, and asks D365 how much that is: a shorter list is an error.
func (c *Connector) readAll(ctx context.Context, entity, filter, order string) ([]row, error) {
	return c.readPages(ctx, entity, filter, order, 0, true)
}

func (c *Connector) readPages(ctx context.Context, entity, filter, order string, top int, count bool) (all []row, err error) {
	of := "dataAreaId eq " + quote(strings.ToLower(c.cfg.Company))
	if filter != "" {
		of += " and " + filter
	}
	q := url.Values{"cross-company": {"true"}, "$filter": {of}}
	if order != "" {
		q.Set("$orderby", order)
	}
	if top > 0 {
		q.Set("$top", strconv.Itoa(top))
	}
	if count {
		q.Set("$count", "true")
	}
	want := -1
	for range maxPages {
		body, err := c.call(ctx, http.MethodGet, "/data/"+c.cfg.entity(entity)+"?"+strings.ReplaceAll(q.Encode(), "+", "%20"), nil)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", c.cfg.entity(entity), err)
		}
		var page struct {
			Value *[]row `json:"value"`
			Next  string `json:"@odata.nextLink"`
			Count *int   `json:"@odata.count"`
		}
		d := json.NewDecoder(bytes.NewReader(body))
		d.UseNumber()
		if err := d.Decode(&page); err != nil || page.Value == nil {
			return nil, fmt.Errorf("read %s: the answer is not D365's own (%v): %.200q", c.cfg.entity(entity), err, body)
		}
		all = append(all, *page.Value...)
		if page.Count != nil && want < 0 {
			want = *page.Count
		}
		if page.Next == "" && len(all) < want {
			return nil, fmt.Errorf("%s has %d entries, and only %d came", c.cfg.entity(entity), want, len(all))
		}
		if page.Next == "" {
			return all, nil
		}
		next, err := url.Parse(page.Next)
		if err != nil {
			return nil, fmt.Errorf("read %s: address of the next page: %w", c.cfg.entity(entity), err)
		}
		q = next.Query() // only its options: where it leads is ours to know
	}
	return nil, fmt.Errorf("%s has more than %d pages", c.cfg.entity(entity), maxPages)
}

// call makes one exchange with the token, and once more with a new one where the token was not taken: D365 has then not looked
// at the request.
func (c *Connector) call(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	for range 2 {
		token, err := c.token(ctx)
		if err != nil {
			return nil, err
		}
		header := http.Header{"Authorization": {"Bearer " + token}, "Accept": {"application/json"}}
		if body != nil {
			header.Set("Content-Type", "application/json")
		}
		text, err := c.send(ctx, method, c.cfg.URL+path, header, body)
		if !errors.Is(err, errToken) {
			return text, err
		}
		c.mu.Lock()
		if c.bearer == token {
			c.bearer = ""
		}
		c.mu.Unlock()
	}
	return nil, errToken
}

// token fetches a token by client credentials, and keeps it until a minute before its end.
func (c *Connector) token(ctx context.Context) (string, error) {
	c.mu.Lock()
	token := c.bearer
	if time.Now().After(c.bearerEnds) {
		token = ""
	}
	c.mu.Unlock()
	if token != "" {
		return token, nil
	}
	form := url.Values{"grant_type": {"client_credentials"}, "client_id": {c.cfg.ClientID}, "client_secret": {c.cfg.ClientSecret}, "scope": {c.cfg.URL + "/.default"}}
	text, err := c.send(ctx, http.MethodPost, c.cfg.TokenURL, http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, []byte(form.Encode()))
	var l *lost
	if errors.As(err, &l) {
		err = l.cause // asking for a token has no effect
	}
	if errors.Is(err, errToken) {
		err = errors.New("client_id and secret are not taken: correct them, and see that the secret has not expired")
	}
	var a struct {
		Token string      `json:"access_token"`
		Ends  json.Number `json:"expires_in"`
	}
	if err == nil && (json.Unmarshal(text, &a) != nil || a.Token == "") {
		err = errors.New("the answer brought none")
	}
	if err != nil {
		return "", fmt.Errorf("fetch a token: %v", err) // never as a refusal of what the token is for
	}
	seconds, _ := a.Ends.Int64()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bearer, c.bearerEnds = a.Token, time.Now().Add(time.Duration(min(seconds, 86_400))*time.Second-time.Minute)
	return a.Token, nil
}

// send makes one exchange. An error is a *refusal, a *lost, errToken, or one by which nothing was sent.
func (c *Connector) send(ctx context.Context, method, address string, header http.Header, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header = header
	resp, text, err := exchange.Do(c.http, req, func(cause error) error { return &lost{cause} })
	if err != nil {
		return nil, err
	}
	return judge(resp, text)
}

// judge reads the status of an answer. Whoever answers 429 has not passed the request on.
func judge(resp *http.Response, text []byte) ([]byte, error) {
	var e struct {
		Error struct{ Message string } `json:"error"`
	}
	own := json.Unmarshal(text, &e) == nil && e.Error.Message != ""
	switch s := resp.StatusCode; {
	case s >= 200 && s < 300:
		return text, nil
	case s == http.StatusUnauthorized:
		return nil, errToken
	case s == http.StatusTooManyRequests, own && s < 500:
		return nil, &refusal{status: s, text: cmp.Or(e.Error.Message, "too many requests"), retryAfter: exchange.RetryAfter(resp.Header)}
	}
	return nil, &lost{fmt.Errorf("answer %s is not D365's own: %.200q", resp.Status, text)}
}

// quote writes a text for $filter.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
