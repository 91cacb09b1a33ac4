package api_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/trading"
)

// writes are the requests that carry a body.
var writes = []string{
	"/v1/postings/replay", "/v1/facts/U7DOIRTV5EXVVADG/accept", "/v1/facts/U7DOIRTV5EXVVADG/post-again", "/v1/asides/conflict/1/close",
	"/v1/exceptions/1/close", "/v1/alarms/1/close", "/v1/mappings", "/v1/mappings/check", "/v1/mappings/units/return", "/v1/mappings/units/versions/1/approve",
	"/v1/writes", "/v1/writes/U7DOIRTV5EXVVADG/replay", "/v1/writes/U7DOIRTV5EXVVADG/settle", "/v1/writes/U7DOIRTV5EXVVADG/write-again",
}

// FuzzBody sends anything as the body of each request that changes something: the answer is a refusal in words or a result,
// never a failure of the hub.
func FuzzBody(f *testing.F) {
	for i, s := range []string{
		`{"key":"U7DOIRTV5EXVVADG"}`, `{"document":"4711","note":"found by hand"}`, `{"note":"ab"}`, `{"note":"seen","surprise":1}`, `{"plant":"ulm","state":"parked"}`,
		`{"format":"csv","text":"line,from,to\nrow,A,B","base":0,"note":"why","propose":true}`, `{"format":"yaml","text":"kind: unit\nrows: [{from: KGM, to: GRM, factor: 1/0}]"}`,
		`[]`, `null`, ``, `{"note":"\ud800"}`, `{"key":null,"key":"x"}`, "\xff", `{"document":{"a":[[[[]]]]},"note":123}`, `{"note":"a\u0000b"}`,
	} {
		f.Add(uint8(i), []byte(s), "application/json")
	}
	for _, s := range []string{
		strings.Replace(purchaseBody, `{"object"`, `{"key":"fuzz/1/purchase","object"`, 1), `{"key":"fuzz/2/twice","object":{"kind":"cycle_count","kind":"shipment","cycle_count":{}}}`,
		`{"key":"fuzz/3/both","object":{"kind":"shipment","shipment":{},"invoice":{}}}`, `{"key":"fuzz/4/null","object":{"kind":"shipment","shipment":{"lines":[null],"proof":{"at":"x"}}}}`,
	} {
		f.Add(uint8(len(writes)-4), []byte(s), "application/json")
	}
	f.Add(uint8(0), []byte("a=b"), "application/x-www-form-urlencoded")
	s, err := store.Open(f.Context(), filepath.Join(f.TempDir(), "hub.db"), store.Options{})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { s.Close() })
	engine := posting.New(posting.Options{Store: s, Connectors: map[string]connector.Connector{}})
	ledger := map[string]connector.Connector{"ledger": connectortest.NewLedger()}
	tr := trading.New(trading.Options{Store: s, Connectors: ledger, Posting: engine, Writes: []string{"ledger"}})
	handler := api.New(s, poster{engine}, api.Options{Version: "test", Tokens: []api.Token{token("w", writer, true)}, Now: time.Now, Trader: trader{tr}})
	f.Fuzz(func(t *testing.T, which uint8, body []byte, kind string) {
		path := writes[int(which)%len(writes)]
		req := httptest.NewRequest(http.MethodPost, path, bytes.NewReader(body))
		req.Header.Set("Authorization", "Bearer "+writer)
		req.Header["Content-Type"] = []string{kind}
		w := httptest.NewRecorder()
		handler.ServeHTTP(w, req)
		if w.Code >= 500 {
			t.Fatalf("%s with %q of %q: %d %s", path, body, kind, w.Code, w.Body)
		}
		var answer struct {
			Title, Detail string
			Count         *int
		}
		if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || !utf8.Valid(w.Body.Bytes()) {
			t.Fatalf("%s with %q: %d, answer %q is not JSON: %v", path, body, w.Code, w.Body, err)
		}
		if w.Code >= 400 && strings.TrimSpace(answer.Title+answer.Detail) == "" {
			t.Fatalf("%s with %q: %d without a reason: %s", path, body, w.Code, w.Body)
		}
	})
}
