package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/exchange"
	"github.com/shopspring/decimal"
)

// client speaks HTTP and JSON with the ERP and keeps a session's token.
type client struct {
	base           string
	user, password string
	timeout        time.Duration
	http           *http.Client

	mu    sync.Mutex
	token string
}

func newClient(cfg Config) *client {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.MaxIdleConnsPerHost = 32
	return &client{base: strings.TrimRight(cfg.URL, "/"), user: cfg.User, password: cfg.Password, timeout: cfg.Timeout, http: &http.Client{Transport: t}}
}

// answer is what the ERP said. Exactly one of body, refusal and duplicate is set.
type answer struct {
	status  int
	body    []byte
	refusal *refusal
	// duplicate is the ERP's sentence that a document with the key of the request is there: of this request, or of one before.
	duplicate string
}

// flag is true as the ERP writes it: true, or the text "true".
type flag bool

func (f *flag) UnmarshalJSON(b []byte) error {
	*f = flag(strings.EqualFold(strings.Trim(string(b), `"`), "true"))
	return nil
}

// refusal is an answer by which nothing has happened.
type refusal struct {
	Status     int
	Code       string `json:"code"`
	Message    string `json:"message"`
	RetryAfter time.Duration
}

func (r *refusal) Error() string { return fmt.Sprintf("ERP refused: %s %s", r.Code, r.Message) }

func (r *refusal) Unwrap() error {
	if r.Status == http.StatusNotFound {
		return connector.ErrNotFound
	}
	return nil
}

// lost is the error of a call that may have had an effect all the same.
type lost struct{ cause error }

func (l *lost) Error() string { return "the ERP's answer was lost: " + l.cause.Error() }
func (l *lost) Unwrap() error { return l.cause }

// call sends one request, logging in before when there is no session and once again when the session has ended. An error
// that is a *lost may have had an effect, any other certainly had none.
func (c *client) call(ctx context.Context, method, path string, body any) (answer, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return answer{}, err
		}
	}
	token, err := c.session(ctx, "")
	if err != nil {
		return answer{}, err
	}
	a, err := c.send(ctx, method, path, text, "Bearer "+token)
	if err == nil && a.refusal != nil && a.refusal.Status == http.StatusUnauthorized {
		if token, err = c.session(ctx, token); err != nil {
			return answer{}, err
		}
		a, err = c.send(ctx, method, path, text, "Bearer "+token)
	}
	return a, err
}

// session returns the token, or a new one when it is empty or equals expired.
func (c *client) session(ctx context.Context, expired string) (string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.token != "" && c.token != expired {
		return c.token, nil
	}
	request := http.Request{Header: http.Header{}}
	request.SetBasicAuth(c.user, c.password)
	a, err := c.send(ctx, "POST", "/api/login", nil, request.Header.Get("Authorization"))
	var l *lost
	if errors.As(err, &l) {
		err = l.cause // a log-in without an answer has no effect
	}
	if err == nil && a.refusal != nil {
		err = a.refusal
	}
	var login struct {
		Token string `json:"token"`
	}
	if err == nil {
		err = json.Unmarshal(a.body, &login)
	}
	if err != nil {
		return "", fmt.Errorf("log in to ERP %s as %q: %w", c.base, c.user, err)
	}
	c.token = login.Token
	return c.token, nil
}

// send makes one exchange. Only a body in the ERP's own form counts as a refusal: an error page of something in between
// says nothing of the effect.
func (c *client) send(ctx context.Context, method, path string, body []byte, authorization string) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return answer{}, err
	}
	req.Header.Set("Authorization", authorization)
	req.Header.Set("Content-Type", "application/json")
	resp, text, err := exchange.Do(c.http, req, func(cause error) error { return &lost{cause} })
	if err != nil {
		return answer{}, err
	}
	if resp.StatusCode < 300 {
		return answer{status: resp.StatusCode, body: text}, nil
	}
	var envelope struct {
		Error *refusal `json:"error"`
	}
	if json.Unmarshal(text, &envelope) != nil || envelope.Error == nil || envelope.Error.Code == "" || resp.StatusCode == http.StatusInternalServerError {
		return answer{}, &lost{fmt.Errorf("answer %s is not the ERP's own: %.200q", resp.Status, text)}
	}
	r := envelope.Error
	r.Status = resp.StatusCode
	r.RetryAfter = exchange.RetryAfter(resp.Header)
	if r.Code == duplicateKey {
		return answer{status: resp.StatusCode, duplicate: r.Message}, nil
	}
	return answer{status: resp.StatusCode, refusal: r}, nil
}

// The ERP's codes that are answers rather than refusals.
const (
	duplicateKey = "00/409" // the key has its document
	noSearch     = "SY/405" // documents cannot be searched by key
)

// get reads something; a refusal is an error.
func (c *client) get(ctx context.Context, path string, query url.Values, into any) error {
	if len(query) > 0 {
		path += "?" + query.Encode()
	}
	a, err := c.call(ctx, "GET", path, nil)
	if err != nil {
		return err
	}
	if a.refusal != nil {
		return a.refusal
	}
	if err := json.Unmarshal(a.body, into); err != nil {
		return fmt.Errorf("answer to GET %s is not the ERP's own: %w: %.200q", path, err, a.body)
	}
	return nil
}

// The ERP's own words.
type (
	order struct {
		No           string          `json:"no"`
		Version      int64           `json:"version"`
		ChangedAt    time.Time       `json:"changed_at"`
		State        string          `json:"state"`
		Item         string          `json:"item"`
		Description  string          `json:"description"`
		Quantity     decimal.Decimal `json:"quantity"`
		Unit         string          `json:"unit"`
		Site         string          `json:"site"`
		WorkCenter   string          `json:"work_center"`
		Lot          string          `json:"lot"`
		Priority     int32           `json:"priority"`
		PlannedStart time.Time       `json:"planned_start"`
		PlannedEnd   time.Time       `json:"planned_end"`
		Operations   []struct {
			Operation   string          `json:"operation"`
			Description string          `json:"description"`
			WorkCenter  string          `json:"work_center"`
			Quantity    decimal.Decimal `json:"quantity"`
		} `json:"operations"`
		Components []struct {
			Reservation string          `json:"reservation"`
			Operation   string          `json:"operation"`
			Item        string          `json:"item"`
			Description string          `json:"description"`
			Required    decimal.Decimal `json:"required"`
			Unit        string          `json:"unit"`
			Backflush   bool            `json:"backflush"`
		} `json:"components"`
		OverPercent *decimal.Decimal `json:"over_percent"`
	}

	document struct {
		Number      string          `json:"number"`
		Kind        string          `json:"kind"`
		OrderNo     string          `json:"order_no"`
		Operation   string          `json:"operation"`
		Item        string          `json:"item"`
		Yield       decimal.Decimal `json:"yield"`
		Scrap       decimal.Decimal `json:"scrap"`
		Rework      decimal.Decimal `json:"rework"`
		Unit        string          `json:"unit"`
		State       string          `json:"state"`
		PostingDate string          `json:"posting_date"`
		Reverses    string          `json:"reverses"`
		ReversedBy  string          `json:"reversed_by"`
		Lines       []struct {
			Movement string          `json:"movement"`
			Item     string          `json:"item"`
			Quantity decimal.Decimal `json:"quantity"`
			Unit     string          `json:"unit"`
		} `json:"lines"`
		Failed []struct {
			Movement string          `json:"movement"`
			Item     string          `json:"item"`
			Quantity decimal.Decimal `json:"quantity"`
			Unit     string          `json:"unit"`
		} `json:"failed_movements"`
	}

	found struct {
		AsOf      time.Time  `json:"as_of"`
		Documents []document `json:"documents"`
		Pending   bool       `json:"pending"`
		Failed    *struct {
			refusal
			Ticket int64 `json:"ticket"`
		} `json:"failed"`
	}

	stock struct {
		AsOf  time.Time `json:"as_of"`
		Stock []struct {
			Item   string          `json:"item"`
			Unit   string          `json:"unit"`
			OnHand decimal.Decimal `json:"on_hand"`
		} `json:"stock"`
	}
)

func (c *client) order(ctx context.Context, no string) (o order, err error) {
	return o, c.get(ctx, "/api/orders/"+url.PathEscape(no), nil, &o)
}

func (c *client) find(ctx context.Context, key string) (f found, err error) {
	return f, c.get(ctx, "/api/documents", url.Values{"external_key": {key}}, &f)
}

// findMany searches by several keys at once, keysAtOnce at most, and returns what was found by key. Of a key that is not in it the
// ERP said nothing.
func (c *client) findMany(ctx context.Context, keys []string) (map[string]found, error) {
	var answer struct {
		Found []struct {
			ExternalKey string `json:"external_key"`
			found
		} `json:"found"`
	}
	if err := c.get(ctx, "/api/documents", url.Values{"external_key": keys}, &answer); err != nil {
		return nil, err
	}
	all := map[string]found{}
	for _, f := range answer.Found {
		all[f.ExternalKey] = f.found
	}
	return all, nil
}

func (c *client) document(ctx context.Context, number string) (d document, err error) {
	return d, c.get(ctx, "/api/documents/"+url.PathEscape(number), nil, &d)
}

func (c *client) stock(ctx context.Context, items []string) (s stock, err error) {
	return s, c.get(ctx, "/api/stock", url.Values{"item": items}, &s)
}

func (c *client) changed(ctx context.Context, since time.Time, after string, sites []string, limit int) ([]order, error) {
	q := url.Values{"changed_since": {since.UTC().Format(time.RFC3339)}, "limit": {strconv.Itoa(limit)}, "site": sites}
	if after != "" {
		q.Set("after", after)
	}
	var page struct {
		Orders []order `json:"orders"`
	}
	return page.Orders, c.get(ctx, "/api/orders", q, &page)
}
