package rest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const patience = 30 * time.Second

// mes is a small HTTP MES with switches for its faults. It keeps its records while its server is stopped.
type mes struct {
	t      testing.TB
	server *httptest.Server
	addr   string

	mu      sync.Mutex
	items   []item
	made    int
	visible func(item) bool // nil: all
	// faults
	rest       string            // Retry-After of the next answer, which is a 429
	broken     int               // answers that are 500
	loseReply  func(n int) bool  // of the nth order: it takes effect, and nobody is told
	answerWith func() (int, any) // to orders
	etags      bool
	token      string // that the MES takes; empty: anybody
	tokens     int    // issued

	requests []string
	known    map[string]bool            // paths that are answered
	orders   map[string]json.RawMessage // by key
	effects  int
	tries    int
	answers  []map[string]any
}

type item struct {
	Seq  int64       `json:"seq"`
	ID   string      `json:"id"`
	N    json.Number `json:"n"`
	Good json.Number `json:"good"`
	At   string      `json:"at"`
	bad  bool
}

func newMES(t testing.TB) *mes {
	m := &mes{t: t, orders: map[string]json.RawMessage{}}
	m.start()
	t.Cleanup(func() { m.server.Close() })
	return m
}

// start listens at the address that it had before.
func (m *mes) start() {
	at := m.addr
	if at == "" {
		at = "127.0.0.1:0"
	}
	var l net.Listener
	realparts.Eventually(m.t, patience, "listen again", func() (err error) { l, err = net.Listen("tcp", at); return err })
	m.addr = l.Addr().String()
	m.server = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(m.handle)}}
	m.server.Start()
}

func (m *mes) url() string { return "http://" + m.addr }

func (m *mes) add(n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for range n {
		seq := int64(len(m.items) + 1)
		m.made++
		m.items = append(m.items, item{Seq: seq, ID: "id" + strconv.FormatInt(seq, 10), N: json.Number(strconv.Itoa(m.made)), Good: "12.500000000000000001",
			At: time.Date(2026, 1, 2, 3, 0, int(seq), 0, time.UTC).Format(time.RFC3339)})
	}
}

func (m *mes) handle(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.requests = append(m.requests, r.Method+" "+r.URL.RequestURI())
	switch {
	case r.URL.Path == "/token":
		m.issue(w, r)
		return
	case m.rest != "":
		w.Header().Set("Retry-After", m.rest)
		m.rest = ""
		http.Error(w, "slow down", http.StatusTooManyRequests)
		return
	case m.broken > 0:
		m.broken--
		http.Error(w, `{"error": {"message": "the MES is ill"}}`, http.StatusInternalServerError)
		return
	case m.token != "" && r.Header.Get("Authorization") != "Bearer "+m.token:
		http.Error(w, "who are you", http.StatusUnauthorized)
		return
	}
	switch r.URL.Path {
	case "/items":
		m.since(w, r)
	case "/feed":
		m.feed(w, r)
	case "/pages":
		m.pages(w, r)
	case "/all":
		m.send(w, r, m.shown())
	case "/orders":
		m.order(w, r)
	case "/answers":
		after, _ := strconv.Atoi(r.URL.Query().Get("since"))
		m.send(w, r, m.answers[min(after, len(m.answers)):])
	default:
		if m.known[r.URL.Path] {
			m.send(w, r, map[string]any{})
			return
		}
		http.NotFound(w, r)
	}
}

func (m *mes) issue(w http.ResponseWriter, r *http.Request) {
	id, secret, ok := r.BasicAuth()
	if !ok || id != "lk" || secret != "s3cret" || r.FormValue("grant_type") != "client_credentials" || r.FormValue("audience") != "mes" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"error": "invalid_client"}`)
		return
	}
	m.tokens++
	m.token = rand.Text()
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"access_token": %q, "token_type": "Bearer", "expires_in": 3600}`, m.token)
}

func (m *mes) shown() []item {
	var out []item
	for _, x := range m.items {
		if m.visible == nil || m.visible(x) {
			out = append(out, x)
		}
	}
	return out
}

func (m *mes) send(w http.ResponseWriter, r *http.Request, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		m.t.Error(err)
	}
	if m.etags {
		tag := `W/"` + contentHash(b) + `"`
		w.Header().Set("ETag", tag)
		if r.Header.Get("If-None-Match") == tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Write(b)
}

// since answers with the records from a number or time on, that one included, a page at most.
func (m *mes) since(w http.ResponseWriter, r *http.Request) {
	from, limit := r.URL.Query().Get("since"), 1000
	if n, err := strconv.Atoi(r.URL.Query().Get("limit")); err == nil {
		limit = n
	}
	list := []any{}
	for _, x := range m.shown() {
		if n, err := strconv.ParseInt(from, 10, 64); err == nil && x.Seq < n || err != nil && x.At < from {
			continue
		}
		if len(list) == limit {
			break
		}
		if x.bad {
			list = append(list, map[string]any{"seq": x.Seq, "at": x.At, "n": "none"})
			continue
		}
		list = append(list, x)
	}
	m.send(w, r, map[string]any{"data": map[string]any{"items": list}})
}

// feed answers with records behind a token, and with a new token also when there are none.
func (m *mes) feed(w http.ResponseWriter, r *http.Request) {
	all := m.shown()
	from, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Query().Get("token"), "t"))
	to := min(from+7, len(all))
	m.send(w, r, map[string]any{"records": all[from:to], "next": "t" + strconv.Itoa(to)})
}

// pages answers with numbered pages and Link headers.
func (m *mes) pages(w http.ResponseWriter, r *http.Request) {
	all := m.shown()
	page, _ := strconv.Atoi(r.URL.Query().Get("page"))
	from, to := min(page*7, len(all)), min(page*7+7, len(all))
	if to < len(all) {
		w.Header().Set("Link", fmt.Sprintf(`</other>; rel="prev", </pages?page=%d>; title="x"; rel="next last"`, page+1))
	}
	m.send(w, r, all[from:to])
}

func (m *mes) order(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	m.tries++
	if m.answerWith != nil {
		code, answer := m.answerWith()
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		json.NewEncoder(w).Encode(answer)
		return
	}
	key := r.Header.Get("Idempotency-Key")
	if _, ok := m.orders[key]; !ok {
		m.orders[key] = body
		m.effects++
		no, revision, _ := strings.Cut(key, "/")
		m.answers = append(m.answers, map[string]any{"seq": len(m.answers) + 1, "no": no, "rev": json.Number(revision), "state": "ANGENOMMEN", "at": "2026-01-02T03:04:05Z"})
	} else if m.loseReply == nil {
		w.WriteHeader(http.StatusConflict)
		return
	}
	if m.loseReply != nil && m.loseReply(m.tries) {
		if m.tries%2 == 0 { // the other half never sees a single byte: the library itself asks again with the same key
			w.Header().Set("Content-Length", "100")
			w.WriteHeader(http.StatusCreated)
			http.NewResponseController(w).Flush()
		}
		panic(http.ErrAbortHandler)
	}
	w.WriteHeader(http.StatusCreated)
}

func (m *mes) count(prefix string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.requests {
		if strings.HasPrefix(r, prefix) {
			n++
		}
	}
	return n
}

func (m *mes) set(f func()) { m.mu.Lock(); defer m.mu.Unlock(); f() }

// plant is what a driver is run against: it keeps what became durable, like the agent does.
type plant struct {
	t   testing.TB
	dir string

	mu       sync.Mutex
	signals  []signal.Signal
	cursor   []byte
	state    signal.State
	problems map[string]*signal.Problem
	log      strings.Builder
}

func newPlant(t testing.TB) *plant {
	return &plant{t: t, dir: t.TempDir(), problems: map[string]*signal.Problem{}}
}

func (p *plant) State(s signal.State, _ string) { p.mu.Lock(); defer p.mu.Unlock(); p.state = s }

func (p *plant) Problem(key string, x *signal.Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.problems, key)
	if x != nil {
		p.problems[key] = x
		fmt.Fprintf(&p.log, "%+v\n", *x)
	}
}

func (p *plant) Write(b []byte) (int, error) { p.mu.Lock(); defer p.mu.Unlock(); return p.log.Write(b) }

func (p *plant) emit(_ context.Context, b signal.Batch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signals = append(p.signals, b.Signals...)
	if b.Cursor != nil {
		p.cursor = b.Cursor
	}
	return nil
}

// dying is an emit that works for some batches, then does not answer any more: the batch is durable, or not.
func (p *plant) dying(batches int, durable bool) signal.Emit {
	n := 0
	var mu sync.Mutex
	return func(ctx context.Context, b signal.Batch) error {
		mu.Lock()
		n++
		k := n
		mu.Unlock()
		if k <= batches {
			return p.emit(ctx, b)
		}
		if k == batches+1 && durable {
			p.emit(ctx, b)
		}
		<-ctx.Done()
		return ctx.Err()
	}
}

func (p *plant) file(name, content string) {
	realparts.WriteFile(p.t, filepath.Join(p.dir, name), content)
}

func (p *plant) make(section string) signal.Driver {
	p.t.Helper()
	d, err := makeFor(p, section)
	if err != nil {
		p.t.Fatalf("make the driver: %v\n%s", err, section)
	}
	return d
}

func makeFor(p *plant, section string) (signal.Driver, error) {
	env := signal.Env{Plant: "p", Agent: "a", Source: "s", Dir: p.dir, ConfigDir: p.dir, Zone: time.UTC, Reporter: p, Logger: slog.New(slog.NewTextHandler(p, nil))}
	return Kind.New(env, func(into any) error { return yaml.Load([]byte(section), into, yaml.WithKnownFields()) })
}

func (p *plant) start(section string) (stop func()) { return p.run(p.make(section), p.emit) }

func (p *plant) run(d signal.Driver, emit signal.Emit) (stop func()) {
	p.mu.Lock()
	cursor := p.cursor
	p.mu.Unlock()
	return drivertest.Start(p.t, d, cursor, emit, patience)
}

func (p *plant) await(what string, ok func() bool) {
	p.t.Helper()
	realparts.Eventually(p.t, patience, what, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if ok() {
			return nil
		}
		var problems []string
		for key, x := range p.problems {
			problems = append(problems, fmt.Sprintf("%s: %+v", key, *x))
		}
		return fmt.Errorf("%d signals, state %q, problems %q", len(p.signals), p.state, problems)
	})
}

func (p *plant) awaitProblem(key, code string) *signal.Problem {
	p.t.Helper()
	var found *signal.Problem
	p.await("problem "+code, func() bool { found = p.problems[key]; return found != nil && found.Code == code })
	return found
}

func (p *plant) awaitCount(n int) {
	p.t.Helper()
	p.await(fmt.Sprintf("%d signals", n), func() bool { return len(p.signals) >= n })
}

func (p *plant) all() []signal.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]signal.Signal(nil), p.signals...)
}

// compare checks that the records from 1 to n became durable once, at positions of their own.
func (p *plant) compare(n int) {
	p.t.Helper()
	got, positions := map[string]int{}, map[string]bool{}
	for _, s := range p.all() {
		v, _ := s.Value.(map[string]any)
		got[fmt.Sprint(v["n"])]++
		if positions[s.Position] {
			p.t.Errorf("position %q was used twice", s.Position)
		}
		positions[s.Position] = true
	}
	missing, doubled := 0, 0
	for i := range n {
		switch got[strconv.Itoa(i+1)] {
		case 0:
			missing++
		case 1:
		default:
			doubled++
		}
	}
	p.t.Logf("records=%d durable=%d missing=%d doubled=%d", n, len(p.all()), missing, doubled)
	if missing+doubled > 0 || len(got) != n {
		p.t.Errorf("missing=%d doubled=%d, %d different", missing, doubled, len(got))
	}
}
