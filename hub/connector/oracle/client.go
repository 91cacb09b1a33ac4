package oracle

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

const root = "/fscmRestApi/resources/11.13.18.05/"

// refusal is Oracle's no, in its own form: nothing has happened.
type refusal struct {
	status     int
	code, text string
	retryAfter time.Duration
}

func (r *refusal) Error() string {
	return fmt.Sprintf("refused by Oracle with status %d: %s %s", r.status, r.code, r.text)
}

// lost is the error of a request that may have had an effect all the same.
type lost struct{ cause error }

func (l *lost) Error() string { return "answer of Oracle was lost: " + l.cause.Error() }
func (l *lost) Unwrap() error { return l.cause }

// row is one item of an answer; its numbers keep their text.
type row map[string]any

func (r row) text(name string) string {
	if v := r[name]; v != nil {
		return fmt.Sprint(v)
	}
	return ""
}

// page is an answer to a question about several.
type page[T any] struct {
	Items   []T   `json:"items"`
	HasMore *bool `json:"hasMore"`
}

// children is a list that some versions of the framework write as an array and others as a collection.
type children[T any] []T

func (c *children[T]) UnmarshalJSON(text []byte) error {
	if bytes.HasPrefix(text, []byte("{")) {
		var p page[T]
		if err := json.Unmarshal(text, &p); err != nil {
			return err
		}
		if p.HasMore != nil && *p.HasMore {
			return errors.New("a list inside of the answer is cut off")
		}
		*c = p.Items
		return nil
	}
	return json.Unmarshal(text, (*[]T)(c))
}

// get reads one page. An answer that is not Oracle's own is an error.
func get[T any](ctx context.Context, c *Connector, resource string, q url.Values) (page[T], error) {
	q.Set("onlyData", "true")
	var p page[T]
	body, err := c.send(ctx, http.MethodGet, resource+"?"+strings.ReplaceAll(q.Encode(), "+", "%20"), nil)
	if err != nil {
		return p, err
	}
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	if err := d.Decode(&p); err != nil || p.HasMore == nil {
		return p, fmt.Errorf("answer to %s is not Oracle's own (%v): %.200q", resource, err, body)
	}
	return p, nil
}

// send makes one exchange. An error is a *refusal, a *lost, or one by which nothing was sent.
func (c *Connector) send(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, c.cfg.URL+root+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.SetBasicAuth(c.cfg.User, c.cfg.Password)
	req.Header.Set("REST-Framework-Version", strconv.Itoa(c.cfg.FrameworkVersion))
	req.Header.Set("Accept", "application/json, application/vnd.oracle.adf.resourceitem+json, application/vnd.oracle.adf.resourcecollection+json")
	if method == http.MethodPost {
		req.Header.Set("Content-Type", "application/vnd.oracle.adf.resourceitem+json")
	}
	resp, text, err := exchange.Do(c.http, req, func(cause error) error { return &lost{cause} })
	if err != nil {
		return nil, err
	}
	return judge(resp, text)
}

// judge reads status and form of an answer. Only a refusal in Oracle's own form counts as one: the page of something in between
// says nothing of the effect.
func judge(resp *http.Response, text []byte) ([]byte, error) {
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return text, nil
	}
	if resp.StatusCode == http.StatusUnauthorized {
		return nil, errors.New("user and password are not taken by Oracle: correct them in the configuration, and see that the user is not locked")
	}
	var e struct {
		Title   string `json:"title"`
		Code    string `json:"o:errorCode"`
		Details []struct {
			Detail string `json:"detail"`
		} `json:"o:errorDetails"`
	}
	own := strings.Contains(resp.Header.Get("Content-Type"), "json") && json.Unmarshal(text, &e) == nil && e.Title != ""
	server := resp.StatusCode >= 500 && resp.StatusCode != http.StatusServiceUnavailable
	if !own || server {
		return nil, &lost{fmt.Errorf("answer %s is not Oracle's own: %.200q", resp.Status, text)}
	}
	r := &refusal{status: resp.StatusCode, code: cmp.Or(e.Code, "HTTP_"+strconv.Itoa(resp.StatusCode)), text: e.Title, retryAfter: exchange.RetryAfter(resp.Header)}
	for _, d := range e.Details {
		r.text = cmp.Or(d.Detail, r.text)
	}
	return nil, r
}

// quote writes a text for q.
func quote(text string) string { return "'" + strings.ReplaceAll(text, "'", "''") + "'" }
