package sandbox

import (
	"bytes"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

// talker answers every request with the same words; a log-in works.
type talker struct {
	status int
	body   []byte
}

func (a talker) RoundTrip(r *http.Request) (*http.Response, error) {
	status, body := a.status, a.body
	if r.URL.Path == "/api/login" {
		status, body = http.StatusOK, []byte(`{"token":"t"}`)
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
}

// mostDigits is how long a number with an exponent may become.
const mostDigits = 11_000

// FuzzAnswer reads anything as the answer of an ERP: only a document's number counts as posted, everything that says neither
// yes nor no is in doubt, and no exponent in an answer takes memory without bounds.
func FuzzAnswer(f *testing.F) {
	for _, s := range []struct {
		status int
		body   string
	}{
		{201, `{"number":"4900000001","kind":"confirmation"}`}, {200, `{"number":"","errors_exist":"TRUE","errors":[{"code":"M7/021","message":"short"}]}`},
		{200, `{"documents":[{"number":"1"},{"number":"2"}],"as_of":"2026-01-01T00:00:00Z"}`}, {200, `{"pending":true}`}, {200, `{"failed":{"code":"CO/688","ticket":9}}`},
		{409, `{"error":{"code":"00/409","message":"is there"}}`}, {429, `{"error":{"code":"SY/429"}}`}, {500, `{"error":{"code":"SY/500"}}`}, {502, `<html>`},
		{200, `{"no":"1","quantity":1e9999999,"state":"RELEASED"}`}, {200, `{"orders":[{"no":"1","version":-1,"quantity":"1"}]}`}, {202, `later`}, {401, `{"error":{"code":"SY/401"}}`},
	} {
		f.Add(s.status, []byte(s.body))
	}
	p := connector.Posting{Attempt: 1, Fact: object.Fact{Key: factkey.Of("p"), Kind: object.KindConfirmation,
		Confirmation: &object.Confirmation{OrderNo: "1", Item: "P", Yield: decimal.New(1, 0), Unit: "C62"}}}
	intent := []byte(`{"valid_until":"2026-01-01T00:00:00Z"}`)
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		c, err := New(Config{URL: "http://erp.invalid", User: "u", Password: "p", Timeout: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		c.client.http.Transport = talker{status, body}
		out := c.Post(t.Context(), p, intent)
		switch {
		case out.Result == connector.Posted && (out.Document.Number == "" || status >= 300):
			t.Fatalf("%d %q counts as posted: %+v", status, body, out)
		case out.Result == connector.Rejected && (status < 200 || out.Code == "" || out.NextStep == ""):
			t.Fatalf("%d %q is a rejection without a code or a next step: %+v", status, body, out)
		case out.Result == connector.InDoubt && out.Reason == "":
			t.Fatalf("%d %q is in doubt without a reason", status, body)
		}
		if found, err := c.Lookup(t.Context(), p, intent); err == nil && found.Presence == connector.Found && status >= 300 {
			t.Fatalf("%d %q was read as a document that is there", status, body)
		}
		if o, err := c.Get(t.Context(), "1"); err == nil {
			if n := len(o.Quantity.Value.String()); n > len(body)+mostDigits {
				t.Fatalf("a quantity of %d digits out of an answer of %d bytes", n, len(body))
			}
		}
		if page, err := c.ListChanged(t.Context(), ""); err == nil && len(page.Orders) > len(body) {
			t.Fatalf("%d orders out of %d bytes", len(page.Orders), len(body))
		}
	})
}
