package erp_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
)

type server struct {
	*httptest.Server
	client *http.Client
}

func serve(t *testing.T, e *erp.ERP) *server {
	t.Helper()
	s := httptest.NewServer(e.Handler())
	transport := &http.Transport{}
	t.Cleanup(func() { transport.CloseIdleConnections(); s.Close() })
	return &server{s, &http.Client{Transport: transport}}
}

// ask makes a request as the default user; status 0 means that the connection ended without an answer.
func (s *server) ask(t *testing.T, method, path, body string) (status int, header http.Header, answer string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, s.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("linekeeper", "sandbox")
	resp, err := s.client.Do(req)
	if err != nil {
		return 0, nil, err.Error()
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header, string(text)
}

func (s *server) post(t *testing.T, path, body string) int {
	t.Helper()
	status, _, _ := s.ask(t, "POST", path, body)
	return status
}

const oneGood = `{"external_key":"K1","yield":"1","unit":"C62"}`

func TestFaultsAreSwitchedWhileItRuns(t *testing.T) {
	e, no := open(t, erp.Options{Seed: 1})
	s := serve(t, e)
	confirmations := "/api/orders/" + no + "/confirmations"
	for _, c := range []struct {
		faults    string
		status    int
		documents int
	}{
		{`{"lose_request":1}`, 0, 0},
		{`{"lock":1}`, 423, 0},
		{`{"busy":1,"busy_after":"1.2s"}`, 503, 0},
		{`{"lose_reply":1}`, 0, 1},
		{`{}`, 201, 2},
	} {
		if status, _, answer := s.ask(t, "PUT", "/admin/faults", c.faults); status != 200 {
			t.Fatalf("set faults %s: %d %s", c.faults, status, answer)
		}
		status, header, answer := s.ask(t, "POST", confirmations, oneGood)
		totals, err := e.Totals(t.Context())
		if status != c.status || err != nil || totals.Documents != c.documents {
			t.Errorf("faults %s: status %d %s, %d documents, want %d and %d", c.faults, status, answer, totals.Documents, c.status, c.documents)
		}
		if status == 503 && header.Get("Retry-After") != "2" {
			t.Errorf("Retry-After %q, want 2", header.Get("Retry-After"))
		}
	}
}

func TestLockedOrderIsRefusedUntilItIsUnlocked(t *testing.T) {
	e, no := open(t, erp.Options{})
	s := serve(t, e)
	e.Lock(no, "MILLER")
	if status, _, answer := s.ask(t, "POST", "/api/orders/"+no+"/confirmations", oneGood); status != 423 || !strings.Contains(answer, "MILLER") {
		t.Errorf("locked: %d %s", status, answer)
	}
	e.Unlock(no)
	if status := s.post(t, "/api/orders/"+no+"/confirmations", oneGood); status != 201 {
		t.Errorf("unlocked: %d", status)
	}
}

func TestRequestThatArrivesAfterItsTimeIsRefused(t *testing.T) {
	e, no := open(t, erp.Options{})
	late := `{"external_key":"K1","yield":"1","unit":"C62","valid_until":"` + time.Now().Add(-time.Second).UTC().Format(time.RFC3339Nano) + `"}`
	if status := serve(t, e).post(t, "/api/orders/"+no+"/confirmations", late); status != 422 {
		t.Errorf("status %d, want 422", status)
	}
}

func TestSeveralKeysAreSearchedAtOnceAndNotTooMany(t *testing.T) {
	e, no := open(t, erp.Options{})
	s, order := serve(t, e), "/api/orders/"+no
	for _, key := range []string{"K1", "K2"} {
		if status := s.post(t, order+"/confirmations", strings.Replace(oneGood, "K1", key, 1)); status != 201 {
			t.Fatalf("status %d", status)
		}
	}
	var found struct {
		Found []struct {
			ExternalKey string    `json:"external_key"`
			AsOf        time.Time `json:"as_of"`
			Documents   []struct {
				ExternalKey string `json:"external_key"`
			} `json:"documents"`
		} `json:"found"`
	}
	_, _, text := s.ask(t, "GET", "/api/documents?external_key=K2&external_key=K9&external_key=K1", "")
	if err := json.Unmarshal([]byte(text), &found); err != nil || len(found.Found) != 3 {
		t.Fatalf("%v: %s", err, text)
	}
	for i, key := range []string{"K2", "K9", "K1"} {
		f := found.Found[i]
		if f.ExternalKey != key || f.AsOf.IsZero() || len(f.Documents) != map[string]int{"K1": 1, "K2": 1}[key] || len(f.Documents) == 1 && f.Documents[0].ExternalKey != key {
			t.Errorf("under key %s: %+v", key, f)
		}
	}
	status, _, text := s.ask(t, "GET", "/api/documents?"+strings.Repeat("external_key=K&", 51), "")
	if status != 400 || !strings.Contains(text, "51 times") {
		t.Errorf("51 keys give %d %s", status, text)
	}
	if status, _, text := s.ask(t, "GET", "/api/documents?external_key=K1&external_key=", ""); status != 400 {
		t.Errorf("an empty key gives %d %s", status, text)
	}
}

func TestNobodyGetsInWithoutPassword(t *testing.T) {
	e, _ := open(t, erp.Options{User: "hub", Password: "right"})
	s := serve(t, e)
	if status, _, _ := s.ask(t, "GET", "/api/orders", ""); status != 401 { // asks as linekeeper:sandbox
		t.Errorf("status %d, want 401", status)
	}
	if status, _, page := s.ask(t, "GET", "/", ""); status != 200 || !strings.Contains(page, "BRACKET-10") {
		t.Errorf("page: %d %s", status, page)
	}
}

func TestOrdersArePagedByChangeTimeAndNumber(t *testing.T) {
	e, _ := open(t, erp.Options{})
	for range 6 {
		if _, err := e.ReleaseDemoOrder(t.Context(), "2000", "press2", 1, 5); err != nil {
			t.Fatal(err)
		}
	}
	s := serve(t, e)
	seen := map[string]bool{}
	query := "?limit=4"
	for range 3 {
		var page struct{ Orders []erp.Order }
		_, _, answer := s.ask(t, "GET", "/api/orders"+query, "")
		if err := json.Unmarshal([]byte(answer), &page); err != nil {
			t.Fatal(err, answer)
		}
		for _, o := range page.Orders {
			seen[o.No] = true
			query = "?limit=4&changed_since=" + o.ChangedAt.Format(time.RFC3339) + "&after=" + o.No
		}
	}
	if len(seen) != 7 {
		t.Errorf("saw %d orders, want 7", len(seen))
	}
}
