package restapi_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/connectortest"
	"github.com/linekeeper/linekeeper/hub/connector/restapi"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// small is the least that a configuration can be.
const small = `
url: http://erp.example.com/api
orders:
  url: "orders?since={cursor}"
  at: body.items
  get: {url: "orders/{order_no}"}
  map: {order_no: row.no, item: row.item, quantity: row.qty, unit: "'C62'", state: "'RELEASED'", changed: row.changed}
postings:
  production_confirmation:
    url: "confirmations"
    body: {key: key, yield: fact.yield, text: string(fact.yield), fixed: 7, missing: "fact.?nothing"}
    success: "status == 201 && has(body.id)"
    document: {number: body.id}
`

// system is an HTTP server whose requests are kept.
type system struct {
	*httptest.Server
	mu   sync.Mutex
	seen []seen
}

type seen struct {
	method, path, body string
	header             http.Header
}

func serve(t testing.TB, answer func(w http.ResponseWriter, r *http.Request, n int)) *system {
	t.Helper()
	s := &system{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		s.mu.Lock()
		s.seen = append(s.seen, seen{r.Method, r.URL.RequestURI(), string(body), r.Header.Clone()})
		n := len(s.seen)
		s.mu.Unlock()
		answer(w, r, n)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *system) requests(method string) (out []seen) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.seen {
		if r.method == method {
			out = append(out, r)
		}
	}
	return out
}

func connect(t testing.TB, at string, text string, change ...func(*restapi.Config)) connector.Connector {
	t.Helper()
	cfg := load(t, text)
	cfg.URL = at
	for _, f := range change {
		f(&cfg)
	}
	c, err := restapi.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func confirmation(yield string) connector.Posting {
	at := time.Date(2026, 3, 1, 22, 30, 0, 0, time.UTC)
	p := connector.Posting{PostingDate: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)}
	p.Fact = object.Fact{Key: factkey.Of("restapi"), Kind: object.KindConfirmation, OccurredAt: at, RecordedAt: at,
		Confirmation: &object.Confirmation{OrderNo: "A/1", Item: "X", Unit: "C62", Yield: d(yield)}}
	return p
}

const oneOrder = `{"no":"A/1","item":"X","qty":"5","changed":"2026-03-01T00:00:00Z"}`

func TestNumbersAreWrittenDigitByDigit(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.Method == "GET" {
			io.WriteString(w, oneOrder)
			return
		}
		w.WriteHeader(201)
		io.WriteString(w, `{"id":"D1"}`)
	})
	c := connect(t, s.URL, small, func(cfg *restapi.Config) { any := int32(-1); cfg.Scale = &any })
	x := connectortest.Drive(t.Context(), c, confirmation("12345678901234567890.100000001"), time.Minute)
	if x.End != connectortest.Settled || x.Document.Number != "D1" {
		t.Fatalf("ended %s:\n%s", x.End, strings.Join(x.Why, "\n"))
	}
	want := `{"fixed":7,"key":"` + factkey.Of("restapi").String() + `","text":"12345678901234567890.100000001","yield":12345678901234567890.100000001}`
	if got := s.requests("POST")[0].body; got != want {
		t.Errorf("the body is\n%s, want\n%s", got, want)
	}
	if got := s.requests("GET")[0].path; got != "/orders/A%2F1" {
		t.Errorf("the order was asked for at %s", got)
	}
}

func TestNothingCountsThatTheConfigurationDoesNotRecognise(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter){
		"web page with a good status": func(w http.ResponseWriter) { w.WriteHeader(201); io.WriteString(w, "<html>hello") },
		"status that nobody thought of": func(w http.ResponseWriter) {
			w.WriteHeader(418)
			io.WriteString(w, `{}`)
		},
		"gateway's 502":  func(w http.ResponseWriter) { w.WriteHeader(502) },
		"redirect":       func(w http.ResponseWriter) { w.Header().Set("Location", "/elsewhere"); w.WriteHeader(302) },
		"no document":    func(w http.ResponseWriter) { w.WriteHeader(201); io.WriteString(w, `{"id":""}`) },
		"half an answer": func(w http.ResponseWriter) { w.WriteHeader(201); io.WriteString(w, `{"id":"D1"`) },
	} {
		s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
			if r.Method == "GET" {
				io.WriteString(w, oneOrder)
				return
			}
			answer(w)
		})
		c := connect(t, s.URL, small, func(cfg *restapi.Config) {
			p := cfg.Postings["production_confirmation"]
			p.Success = "status >= 200 && status < 300"
			if name != "no document" {
				p.Document = restapi.Document{}
			}
		})
		raw, early, err := c.Prepare(t.Context(), confirmation("1"))
		if err != nil || early != nil {
			t.Fatalf("prepare: %+v, %v", early, err)
		}
		if out := c.Post(t.Context(), confirmation("1"), raw); out.Result != connector.InDoubt {
			t.Errorf("%s: %+v", name, out)
		}
		if f, err := c.Lookup(t.Context(), confirmation("1"), raw); err != nil || f.Presence != connector.CannotTell {
			t.Errorf("%s: without a look-up it is %+v, %v", name, f, err)
		}
		if n := len(s.requests("POST")); n != 1 {
			t.Errorf("%s: sent %d times", name, n)
		}
	}
}

// TestCredentialsStayAtTheirHost: neither a redirect nor the address of a next page takes them elsewhere.
func TestCredentialsStayAtTheirHost(t *testing.T) {
	thief := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) { io.WriteString(w, `{"items":[]}`) })
	for name, answer := range map[string]func(w http.ResponseWriter){
		"redirect":  func(w http.ResponseWriter) { w.Header().Set("Location", thief.URL+"/x"); w.WriteHeader(307) },
		"next page": func(w http.ResponseWriter) { fmt.Fprintf(w, `{"items":[],"next":"%s/y"}`, thief.URL) },
	} {
		s := serve(t, func(w http.ResponseWriter, _ *http.Request, _ int) { answer(w) })
		c := connect(t, s.URL, small+"auth: {basic: {user: hub, password: {file: erp-password.txt}}}\n", func(cfg *restapi.Config) { cfg.Orders.Next = "body.next" })
		if _, err := c.ListChanged(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "correct") {
			t.Errorf("%s: %v", name, err)
		}
		if got := s.requests("GET")[0].header.Get("Authorization"); got != "Basic aHViOnNhbmRib3g=" {
			t.Errorf("%s: the system itself got %q", name, got)
		}
	}
	if len(thief.seen) > 0 {
		t.Errorf("another host was asked: %+v", thief.seen)
	}
}

// TestAbsenceIsAProofOnlyWhereTheConfigurationSaysSo, and only so long after any process can have sent the request.
func TestAbsenceIsAProofOnlyWhereTheConfigurationSaysSo(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		switch {
		case r.Method == "POST":
			w.WriteHeader(504)
		case r.URL.Path == "/found":
			io.WriteString(w, `{"items":[]}`)
		default:
			io.WriteString(w, oneOrder)
		}
	})
	after := func(d *time.Duration) func(*restapi.Config) {
		return func(cfg *restapi.Config) {
			cfg.Postings["production_confirmation"].Lookup = &restapi.Lookup{URL: "found?key={key}", Found: "size(body.items) == 1", Absent: "size(body.items) == 0", AbsentAfter: d}
		}
	}
	zero, hour := time.Duration(0), time.Hour
	c := connect(t, s.URL, small, after(nil))
	raw, early, err := c.Prepare(t.Context(), confirmation("1"))
	if err != nil || early != nil {
		t.Fatalf("prepare: %+v, %v", early, err)
	}
	if out := c.Post(t.Context(), confirmation("1"), raw); out.Result != connector.InDoubt {
		t.Fatalf("post: %+v", out)
	}
	for _, x := range []struct {
		after *time.Duration
		want  connector.Presence
	}{{nil, connector.CannotTell}, {&zero, connector.Absent}, {&hour, connector.NotFoundYet}} {
		if f, err := connect(t, s.URL, small, after(x.after)).Lookup(t.Context(), confirmation("1"), raw); err != nil || f.Presence != x.want {
			t.Errorf("absent_after %v: %+v, %v", x.after, f, err)
		}
	}
	old := strings.Replace(string(raw), `"at":"20`, `"at":"19`, 1) // prepared long ago, sent by a hub that froze, and by which it is not known
	if f, err := connect(t, s.URL, small, after(&hour)).Lookup(t.Context(), confirmation("1"), []byte(old)); err != nil || f.Presence != connector.NotFoundYet {
		t.Errorf("after a restart: %+v, %v", f, err)
	}
}

// TestDoubtIsEndedByTheSameRequest: where the system replays its answer, the same bytes are sent again.
func TestDoubtIsEndedByTheSameRequest(t *testing.T) {
	posts := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.Method == "GET" {
			io.WriteString(w, oneOrder)
			return
		}
		if posts++; posts == 1 {
			panic(http.ErrAbortHandler) // the answer is lost
		}
		w.WriteHeader(201)
		io.WriteString(w, `{"id":"D1"}`)
	})
	p := confirmation("1.5")
	idempotent := func(cfg *restapi.Config) {
		cfg.Postings["production_confirmation"].Idempotency = &restapi.Idempotency{Header: "Idempotency-Key", Within: time.Hour}
	}
	c := connect(t, s.URL, small, idempotent)
	raw, _, err := c.Prepare(t.Context(), p)
	if err != nil {
		t.Fatal(err)
	}
	if out := c.Post(t.Context(), p, raw); out.Result != connector.InDoubt {
		t.Fatalf("post: %+v", out)
	}
	if n := len(s.requests("POST")); n != 1 {
		t.Fatalf("before anybody asked it was sent %d times", n)
	}
	p.Order.Item = "the order changed meanwhile"
	again := connect(t, s.URL, small, idempotent) // and the hub started again
	if f, err := again.Lookup(t.Context(), p, raw); err != nil || f.Presence != connector.Found || f.Document.Number != "D1" {
		t.Fatalf("look up: %+v, %v", f, err)
	}
	sent := s.requests("POST")
	if len(sent) != 2 || sent[0].body != sent[1].body || sent[0].header.Get("Idempotency-Key") != p.Fact.Key.UUID() || sent[1].header.Get("Idempotency-Key") != p.Fact.Key.UUID() {
		t.Errorf("sent %+v", sent)
	}
	late := strings.Replace(string(raw), `"at":"20`, `"at":"19`, 1)
	if f, err := again.Lookup(t.Context(), p, []byte(late)); err != nil || f.Presence != connector.CannotTell {
		t.Errorf("when the system has forgotten the header: %+v, %v", f, err)
	}
}

func TestTokenIsRenewedOnceAndNothingIsSentTwice(t *testing.T) {
	issued := 0
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		switch {
		case r.URL.Path == "/token":
			user, password, _ := r.BasicAuth()
			if user != "hub" || password != "sandbox" || r.FormValue("grant_type") == "x" {
				w.WriteHeader(401)
				return
			}
			issued++
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"access_token":"T%d","token_type":"Bearer","expires_in":3600}`, issued)
		case r.Header.Get("Authorization") != "Bearer T2":
			w.WriteHeader(401)
		case r.Method == "GET":
			io.WriteString(w, oneOrder)
		default:
			w.WriteHeader(201)
			io.WriteString(w, `{"id":"D1"}`)
		}
	})
	c := connect(t, s.URL, small, func(cfg *restapi.Config) {
		dir := t.TempDir()
		os.WriteFile(filepath.Join(dir, "secret"), []byte("sandbox\n"), 0o600)
		cfg.Auth.OAuth2 = &restapi.OAuth2{TokenURL: s.URL + "/token", ClientID: "hub", ClientSecret: restapi.Secret{File: filepath.Join(dir, "secret")}}
	})
	if _, err := c.Get(t.Context(), "A/1"); err != nil { // T1 is not taken, T2 is
		t.Fatal(err)
	}
	x := connectortest.Drive(t.Context(), c, confirmation("1"), time.Minute)
	if x.End != connectortest.Settled || issued != 2 {
		t.Errorf("ended %s with %d tokens:\n%s", x.End, issued, strings.Join(x.Why, "\n"))
	}
}

func TestSystemWithItsOwnAuthorityAndOneThatWantsOurCertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.TLS.PeerCertificates) == 0 {
			w.WriteHeader(403)
			return
		}
		io.WriteString(w, oneOrder)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	s.StartTLS()
	defer s.Close()
	dir := t.TempDir()
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	must(t, err)
	ca, keyFile := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "key.pem")
	must(t, os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: pair.Certificate[0]}), 0o600))
	must(t, os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600))
	if _, err := connect(t, s.URL, small).Get(t.Context(), "A/1"); err == nil {
		t.Error("an authority that nobody named is believed")
	}
	if _, err := connect(t, s.URL, small, func(cfg *restapi.Config) { cfg.TLS.CAFile = ca }).Get(t.Context(), "A/1"); err == nil {
		t.Error("the certificate of ours was not needed")
	}
	if _, err := connect(t, s.URL, small, func(cfg *restapi.Config) {
		cfg.TLS.CAFile, cfg.TLS.CertFile, cfg.TLS.KeyFile = ca, ca, keyFile
	}).Get(t.Context(), "A/1"); err != nil {
		t.Error(err)
	}
}

// listed is a list of orders that a planner changes while it is read.
type listed struct {
	mu   sync.Mutex
	rows []map[string]any
}

func (l *listed) put(no int, changed int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rows = slices.DeleteFunc(l.rows, func(r map[string]any) bool { return r["no"] == strconv.Itoa(no) })
	l.rows = append(l.rows, map[string]any{"no": strconv.Itoa(no), "item": "X", "qty": no, "changed": changed})
	slices.SortStableFunc(l.rows, func(a, b map[string]any) int { return a["changed"].(int) - b["changed"].(int) })
}

func (l *listed) from(since int) (out []map[string]any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.rows {
		if r["changed"].(int) >= since {
			out = append(out, r)
		}
	}
	return out
}

// TestEveryWayOfPagingListsEveryOrder, also those that move while the list is read.
func TestEveryWayOfPagingListsEveryOrder(t *testing.T) {
	const page = 3
	window := func(rows []map[string]any, at int) []map[string]any {
		at = min(at, len(rows))
		return rows[at:min(at+page, len(rows))]
	}
	for name, way := range map[string]struct {
		set    func(*restapi.Orders)
		answer func(l *listed, r *http.Request) any
	}{
		"link": {func(o *restapi.Orders) { o.Next = "body.?next" }, func(l *listed, r *http.Request) any {
			since, _ := strconv.Atoi(r.FormValue("since"))
			at, _ := strconv.Atoi(r.FormValue("at"))
			all := l.from(since)
			out := map[string]any{"items": window(all, at)}
			if at+page < len(all) {
				out["next"] = fmt.Sprintf("orders?since=%d&at=%d", since, at+page)
			}
			return out
		}},
		"cursor": {func(o *restapi.Orders) { o.Cursor = "body.cursor" }, func(l *listed, r *http.Request) any {
			since, _ := strconv.Atoi(r.FormValue("since"))
			all := window(l.from(since), 0)
			if len(all) > 0 {
				since = all[len(all)-1]["changed"].(int) + 1
			}
			return map[string]any{"items": all, "cursor": strconv.Itoa(since)}
		}},
		"change": {func(*restapi.Orders) {}, func(l *listed, r *http.Request) any {
			since, _ := strconv.Atoi(r.FormValue("since"))
			return map[string]any{"items": window(l.from(since), 0)}
		}},
		"offset": {func(o *restapi.Orders) { o.URL = "orders?since={cursor}&at={offset}" }, func(l *listed, r *http.Request) any {
			since, _ := strconv.Atoi(r.FormValue("since"))
			at, _ := strconv.Atoi(r.FormValue("at"))
			return map[string]any{"items": window(l.from(since), at)}
		}},
	} {
		t.Run(name, func(t *testing.T) {
			l := &listed{}
			for no := 1; no <= 10; no++ {
				l.put(no, no)
			}
			s := serve(t, func(w http.ResponseWriter, r *http.Request, n int) {
				json.NewEncoder(w).Encode(way.answer(l, r))
				if name == "offset" && n == 2 {
					l.put(1, 11) // moves to the end: all others move up, and one behind the page's edge in front of it
				}
			})
			c := connect(t, s.URL, small, func(cfg *restapi.Config) {
				cfg.Orders.First, cfg.Orders.Overlap, cfg.Orders.PageSize = "0", "1", 100 // the system gives fewer than it is asked for
				way.set(&cfg.Orders)
			})
			seen, cursor := all(t, c, "")
			if len(seen) != 10 {
				t.Errorf("%d orders: %v", len(seen), seen)
			}
			l.put(4, 20)
			if name != "cursor" {
				l.put(5, 10) // committed late, within the overlap
			}
			seen, _ = all(t, c, cursor)
			if !seen["4"] || name != "cursor" && !seen["5"] || len(seen) > 5 {
				t.Errorf("the second reading shows %v", seen)
			}
		})
	}
}

func all(t *testing.T, c connector.Connector, cursor string) (map[string]bool, string) {
	t.Helper()
	seen := map[string]bool{}
	for range 100 {
		page, err := c.ListChanged(t.Context(), cursor)
		if err != nil {
			t.Fatal(err)
		}
		for _, o := range page.Orders {
			seen[o.OrderNo] = true
		}
		if cursor = page.Cursor; !page.More {
			return seen, cursor
		}
	}
	t.Fatal("no end after 100 pages")
	return nil, ""
}

func TestOrderThatCannotBeReadStopsNoNeighbour(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		io.WriteString(w, `{"items":[{"no":"1","item":"X","qty":"many","changed":1},{"no":"2","item":"X","qty":"1e99999999","changed":2},{"no":"3","item":"X","qty":3,"changed":3},{"no":4}]}`)
	})
	page, err := connect(t, s.URL, small, func(cfg *restapi.Config) { cfg.Orders.First, cfg.Orders.Overlap = "0", "0" }).ListChanged(t.Context(), "")
	if err != nil || len(page.Orders) != 1 || page.Orders[0].OrderNo != "3" || len(page.Unreadable) != 3 {
		t.Fatalf("%+v, %v", page, err)
	}
	for i, want := range []string{`Order 1: quantity: "many" is not a number`, "Order 2: quantity", "Order 4: "} {
		if got := page.Unreadable[i].Reason; !strings.Contains(got, want) {
			t.Errorf("the reason is %q, want %q in it", got, want)
		}
	}
}

// TestEffectsAreWhatTheSandboxsOwnConnectorReads.
func TestEffectsAreWhatTheSandboxsOwnConnectorReads(t *testing.T) {
	b := newBench(t)
	c := b.connect(t)
	own, err := sandbox.New(sandbox.Config{URL: b.proxy.URL, User: "hub", Password: "sandbox"})
	must(t, err)
	no := b.create(t, "40")
	settle := func(p connector.Posting) connectortest.Settlement {
		t.Helper()
		x := connectortest.Drive(t.Context(), c, p, time.Minute)
		if x.End != connectortest.Settled {
			t.Fatalf("ended %s:\n%s", x.End, strings.Join(x.Why, "\n"))
		}
		return x
	}
	made := confirmation("12")
	made.PostingDate, made.Fact.Key = time.Now().UTC().Truncate(24*time.Hour), factkey.Random()
	made.Fact.Confirmation = &object.Confirmation{OrderNo: no, Unit: "C62", Yield: d("12"), Scrap: d("1")}
	used := made
	used.Fact.Key, used.Fact.Kind, used.Fact.Confirmation = factkey.Random(), object.KindConsumption, nil
	used.Fact.Consumption = &object.Consumption{OrderNo: no, Item: "STEEL-S235", Movement: object.Issue, Quantity: object.Quantity{Value: d("2.5"), Unit: "KGM"}}
	settle(made)
	doc := settle(used).Document
	back := used
	back.Fact.Key, back.Fact.Reverses = factkey.Random(), used.Fact.Key
	back.Original = &connector.Original{Fact: used.Fact, Document: doc}
	settle(back)
	got, err := c.(connector.EffectReader).Effects(t.Context(), no)
	must(t, err)
	want, err := own.Effects(t.Context(), no)
	must(t, err)
	if diff := cmp.Diff(want.Documents, got.Documents); diff != "" || len(got.Documents) != 3 {
		t.Errorf("documents (-own +by configuration):\n%s", diff)
	}
	if got.AsOf.IsZero() || got.Order.OrderNo != no {
		t.Errorf("as of %s, order %q", got.AsOf, got.Order.OrderNo)
	}
	if _, err := c.(connector.EffectReader).Effects(t.Context(), "NO-SUCH-ORDER"); !errors.Is(err, connector.ErrNotFound) {
		t.Errorf("effects of an unknown order: %v", err)
	}
}

func TestConfigurationFaultsNameTheItemAndTheNextStep(t *testing.T) {
	for _, x := range []struct{ from, to, item, next string }{
		{"url: http://erp.example.com/api", "url: erp", "url", "write it like"},
		{"url: http://erp.example.com/api", "url: https://hub:secret@erp.example.com", "url", "write it like"},
		{"row.no", "rov.no", "orders.map: order_no", "it may use: row"},
		{"item: row.item,", "", "item is missing", "row.item"},
		{"quantity: row.qty", "quantity: 'row.qty >'", "quantity", "not an expression"},
		{"yield: fact.yield", "yield: 1.5", "postings.production_confirmation.body: yield", "write it as an expression"},
		{"yield: fact.yield", "yield: facts", "body: yield", "it may use"},
		{`url: "confirmations"`, `url: "confirmations/{key"`, "postings.production_confirmation.url", "without a }"},
		{`success: "status == 201 && has(body.id)"`, "", "postings.production_confirmation.success", "write an expression"},
		{`success: "status == 201 && has(body.id)"`, `success: "200 < status"`, "success", "write it on the right"},
		{"production_confirmation:", "confirmation:", `postings: "confirmation"`, "use some of"},
		{"document:", "method: DELETE\n    document:", `method "DELETE"`, "use POST"},
		{"document:", "errors: [{when: status == 1, class: bad}]\n    document:", `errors[0]: class "bad"`, "use one of"},
		{"document:", "states: [STARTED]\n    document:", "states", "order_state only"},
		{"document:", "lookup: {url: x, found: status == 200}\n    document:", "lookup.absent", "write an expression"},
		{"document:", "reverse: {url: x, success: status == 200}\n    document:", "reverse", "add lookup"},
		{"document:", "verify: {equal: {fact.yield: body.yield}}\n    document:", "verify", "there is no lookup"},
		{"document:", "idempotency: {header: X}\n    document:", "idempotency", "within"},
		{", changed: row.changed}", "}", "changed is missing", "unless next"},
		{"  at: body.items", "  overlap: soon", `overlap "soon"`, "duration such as 5m"},
		{"orders:", "auth: {basic: {user: hub, password: {}}}\norders:", "auth.basic.password", "first line of a file"},
		{"orders:", "auth: {bearer: {env: LINEKEEPER_NO_SUCH}}\norders:", "auth.bearer is empty", "into the environment"},
		{"orders:", "units: {A: C62, B: C62}\norders:", `"A" and "B"`, "which one to write"},
		{"orders:", "states: {A: DONE}\norders:", `"DONE" of "A"`, "use one of"},
		{"orders:", "time_zone: Mars\norders:", `time_zone "Mars"`, "use an IANA name"},
		{"orders:", "tls: {cert_file: a}\norders:", "cert_file", "belong together"},
	} {
		text := strings.Replace(small, x.from, x.to, 1)
		if text == small {
			t.Fatalf("%q is not in the configuration", x.from)
		}
		_, err := restapi.New(load(t, text))
		if err == nil || !strings.Contains(err.Error(), x.item) || !strings.Contains(err.Error(), x.next) || !strings.HasPrefix(err.Error(), "configure REST: ") {
			t.Errorf("%q instead of %q: %v; want %q and %q in it", x.to, x.from, err, x.item, x.next)
		}
	}
}

// FuzzAnswer gives anything as answer to every question: no order is made up, and nothing counts as posted or absent that has not
// the form which the configuration names.
func FuzzAnswer(f *testing.F) {
	for _, text := range []string{oneOrder, `{"items":[` + oneOrder + `]}`, `{"items":[]}`, `{"id":"D1"}`, `{"items":[{"no":1,"item":{},"qty":1e9}]}`, `[]`, `null`, ``, `<html>`,
		`{"items":[[[[{"qty":12345678901234567890123}]]]],"id":["x"]}`, `{"items":[{"no":"A/1","item":"X","qty":"0x10","changed":"9999-12-31T23:59:59Z"}]}`} {
		f.Add([]byte(text), 200)
		f.Add([]byte(text), 201)
	}
	var text []byte
	var status int
	s := serve(f, func(w http.ResponseWriter, _ *http.Request, _ int) {
		w.WriteHeader(status)
		w.Write(text)
	})
	c := connect(f, s.URL, small, func(cfg *restapi.Config) {
		zero := time.Duration(0)
		cfg.Postings["production_confirmation"].Lookup = &restapi.Lookup{URL: "found?key={key}", Found: "size(body.items) == 1", Document: restapi.Document{Number: "body.items[0].no"},
			Absent: "size(body.items) == 0", AbsentAfter: &zero}
	})
	p := confirmation("1")
	f.Fuzz(func(t *testing.T, answer []byte, code int) {
		text, status = answer, 200+max(code, -code)%400
		s.seen = nil
		if page, err := c.ListChanged(t.Context(), ""); err == nil {
			for _, o := range page.Orders {
				if o.OrderNo == "" || o.Item == "" || o.Quantity.Unit != "C62" {
					t.Errorf("order %+v", o)
				}
			}
		}
		if o, err := c.Get(t.Context(), "A/1"); err == nil && o.OrderNo != "A/1" {
			t.Errorf("asked for A/1, got %+v", o)
		}
		raw := []byte(`{"at":"2026-03-01T00:00:00Z","request":{"method":"POST","url":"confirmations"}}`)
		out := c.Post(t.Context(), p, raw)
		if out.Result == connector.Posted && (status != 201 || out.Document.Number == "") || out.Result == connector.Rejected {
			t.Errorf("%d %q is taken for %+v", status, answer, out)
		}
		found, err := c.Lookup(t.Context(), p, raw)
		if err == nil && found.Presence == connector.Absent && !strings.Contains(strings.ReplaceAll(string(answer), " ", ""), "items") {
			t.Errorf("%d %q is taken for %+v", status, answer, found)
		}
		c.Verify(t.Context(), p, raw, connector.Document{Number: "D1"})
	})
}

// An expression that asks for the movement's type gets what the mapping says, nothing where none is in force, and stops the fact where that
// does not know it. One that does not ask is not concerned.
func TestMovementTypeIsAskedForByExpressions(t *testing.T) {
	s := serve(t, func(w http.ResponseWriter, r *http.Request, _ int) {
		if r.Method == "GET" {
			io.WriteString(w, oneOrder)
			return
		}
		w.WriteHeader(201)
		io.WriteString(w, `{"id":"D1"}`)
	})
	asks := connect(t, s.URL, strings.Replace(small, "fixed: 7", "type: fact.movement_type", 1))
	if !asks.Capabilities().MovementTypes || connect(t, s.URL, small).Capabilities().MovementTypes {
		t.Error("types are not asked for where an expression names them, and there only")
	}
	known := &object.MovementTypes{Set: "movements", Version: 2, Types: map[object.MovementKind]string{object.ReceiptFromOrder: "Z01"}}
	unknown := &object.MovementTypes{Set: "movements", Version: 2}
	for i, x := range []struct {
		c     connector.Connector
		types *object.MovementTypes
		want  string // empty: stops
	}{{asks, nil, `"type":""`}, {asks, known, `"type":"Z01"`}, {asks, unknown, ""}, {connect(t, s.URL, small), unknown, `"fixed":7`}} {
		p := confirmation("3")
		p.Movements = x.types
		before := len(s.requests("POST"))
		end := connectortest.Drive(t.Context(), x.c, p, time.Minute)
		posts := s.requests("POST")[before:]
		switch {
		case x.want == "" && (end.End != connectortest.Refused || end.Outcome.Code != connector.CodeMappingMissing || len(posts) > 0):
			t.Errorf("%d ended %s with %+v after %d requests", i, end.End, end.Outcome, len(posts))
		case x.want != "" && (len(posts) != 1 || !strings.Contains(posts[0].body, x.want)):
			t.Errorf("%d ended %s (%v), sent %+v", i, end.End, end.Why, posts)
		}
	}
}
