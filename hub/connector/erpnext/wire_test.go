package erpnext

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/shopspring/decimal"
)

// FuzzAnswer reads what a site or something before it may answer: never a panic, and no success without data.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{`{"data":{"name":"A","docstatus":1,"items":[{"qty":1e-3}]}}`, `{"exc_type":"ValidationError","_server_messages":"[\"{\\\"message\\\":\\\"<b>No</b>\\\"}\"]"}`,
		`{"errors":[{"type":"X","message":"y"}]}`, `<html>`, ``, `null`, `{"data":null}`} {
		f.Add(200, text)
		f.Add(417, text)
	}
	f.Fuzz(func(t *testing.T, status int, text string) {
		var e entry
		err := judge(&http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(""))}, []byte(text), &e)
		if err == nil && !strings.Contains(text, "{") {
			t.Errorf("%d %q is a success", status, text)
		}
		if r, ok := refused(err); ok && (r.kind == "" || status >= 200 && status < 300) {
			t.Errorf("%d %q is the refusal %+v", status, text, r)
		}
	})
}

// Floats of the site's are read digit by digit; what is no number is refused.
func TestQuantitiesAreReadExactly(t *testing.T) {
	for text, want := range map[string]string{"0.1": "0.1", "1e-3": "0.001", "12": "12", "0.30000000000000004": "0.30000000000000004", `"2.5"`: "2.5", "null": "0"} {
		var q quantity
		if err := json.Unmarshal([]byte(text), &q); err != nil || !q.Equal(decimal.RequireFromString(want)) {
			t.Errorf("%s is read as %s, %v", text, q, err)
		}
	}
	for _, text := range []string{`"many"`, "1e99", `true`} {
		var q quantity
		if err := json.Unmarshal([]byte(text), &q); err == nil {
			t.Errorf("%s is read as %s", text, q)
		}
	}
}
