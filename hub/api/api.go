// Package api is the hub's versioned HTTP interface, with its OpenAPI 3.1 document made from the same Go types.
//
// It owns paths, representations, errors and who may call. It promises that a field never changes its meaning under /v1,
// that quantities are decimal text and times carry a zone, and that an error names the item and the next step. It never
// decides anything about facts or postings itself.
package api

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/linekeeper/linekeeper/hub/inbox"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// Poster is what the API needs of the posting engine.
type Poster interface {
	// Replay takes up all parked postings that match and returns how many; it never doubles an effect.
	Replay(ctx context.Context, f store.PostingFilter, by string) (int, error)
	// ReplayFact does it for one fact.
	ReplayFact(ctx context.Context, key, by string) error
	// Accept settles a parked posting by a person's decision: with the document that has the effect, or without one.
	Accept(ctx context.Context, key, document, note, by string) error
	// PostAgain makes a posting due that nobody could tell about: a person vouches that the ERP does not have it.
	PostAgain(ctx context.Context, key, note, by string) error
	// Correct posts a fact with other values than it says; empty ones stay.
	Correct(ctx context.Context, key string, want store.Values, note, by string) error
	// Reverse takes back what is in the books of a fact.
	Reverse(ctx context.Context, key, note, by string) error
	// Approve posts what a policy holds, or what was refused for its date: with the date for the books (2026-11-01) that a person
	// chose, or the fact's own when it is empty.
	Approve(ctx context.Context, key, date, note, by string) error
}

// Token lets a caller in.
type Token struct {
	// Name says whose it is; it is written down with what the caller does.
	Name string `yaml:"name"`
	// SHA256 of the secret, in hex. The secret itself is shown once, by `synchub token`.
	SHA256 string `yaml:"sha256"`
	// Write allows replaying and settling, and writing business objects where that is configured; without it the token reads.
	Write bool `yaml:"write"`
	// Wake names the outside systems that the token may wake. Such a token may do nothing else.
	Wake []string `yaml:"wake"`
}

// Options of the API.
type Options struct {
	// Version of the hub, shown in its metrics.
	Version string
	// Tokens; with none, only a browser or program on the same machine is served, under a loopback name.
	Tokens []Token
	Now    func() time.Time
	// Health tells how the talk about postings goes with each outside system. Nil: nobody knows.
	Health func() map[string]ERPHealth
	// Reconciler compares with the outside systems. Nil: nothing does.
	Reconciler Reconciler
	// Trader writes business objects. Nil: nobody does.
	Trader Trader
	// Policy has prices and times for what a person must see to; Currency is that of the prices.
	Policy   reconcile.Policy
	Currency string
	// Wake asks one of the ERPs for changed orders at once. Nil: none can be woken. WakeKeys are what they sign such calls with, where
	// they cannot send a token.
	Wake     func(erp string)
	ERPs     []string
	WakeKeys map[string][]byte
	Logger   *slog.Logger
}

// ERPHealth is how the talk about postings with one outside system goes.
type ERPHealth struct {
	OK     bool
	Since  time.Time
	Reason string // of the last failure, while not OK
	// PausedUntil is when a system that failed too often is tried again; zero when it is not paused.
	PausedUntil time.Time
}

type server struct {
	store  *store.Store
	poster Poster
	o      Options
	inbox  inbox.Reader
	wakes  buckets
}

// New returns the handler of /v1, /openapi.json, /healthz, /readyz and /metrics.
//
//go:generate go test -run TestOpenAPIDocumentIsFresh -update .
func New(s *store.Store, p Poster, o Options) http.Handler {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	srv := &server{store: s, poster: p, o: o, inbox: inbox.Reader{Store: s, Policy: o.Policy, Now: o.Now}}
	mux := http.NewServeMux()
	cfg := huma.DefaultConfig("Linekeeper hub", "1.0.0")
	cfg.Info.Description = "Work orders, facts, postings, the quantity ledger, and the business objects of outside systems. Quantities are decimal text with UN/ECE Recommendation 20 units; times are RFC 3339."
	cfg.DocsPath = ""     // the documentation page would load scripts from elsewhere
	cfg.CreateHooks = nil // no schema links inside of bodies
	cfg.SchemasPath = ""  // one document holds all schemas
	cfg.OpenAPIPath = "/openapi"
	cfg.Components.SecuritySchemes = map[string]*huma.SecurityScheme{"token": {Type: "http", Scheme: "bearer"}}
	cfg.Security = []map[string][]string{{"token": {}}}
	srv.routes(humago.New(mux, cfg))
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("ok\n")) })
	mux.HandleFunc("GET /readyz", srv.ready)
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{store: s, version: o.Version, now: o.Now, health: srv.health})
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{}))
	mux.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		refuse(w, http.StatusNotFound, "there is no "+r.Method+" "+r.URL.Path+": /openapi.json lists what there is")
	})
	origin := http.NewCrossOriginProtection()
	if len(o.Tokens)+len(o.WakeKeys) > 0 { // senders of events name an origin of their own, and no browser's log-in is asked for
		origin.AddInsecureBypassPattern("POST /v1/erps/{erp}/wake")
	}
	origin.SetDenyHandler(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		refuse(w, http.StatusForbidden, "the request comes from a page of another site")
	}))
	return origin.Handler(srv.admit(mux))
}

func (s *server) ready(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), 2*time.Second)
	defer cancel()
	if err := s.store.Ping(ctx); err != nil {
		http.Error(w, "the store does not answer: "+err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Write([]byte("ready\n"))
}

type callerKey struct{}

// caller is the name written down with what somebody does.
func caller(ctx context.Context) string {
	name, _ := ctx.Value(callerKey{}).(string)
	return name
}

// admit lets in who has a token, or, when there are no tokens, who calls under a loopback name, or who signs that a system is to be
// woken.
func (s *server) admit(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/healthz" || r.URL.Path == "/readyz" {
			next.ServeHTTP(w, r)
			return
		}
		if handshake(w, r) {
			return
		}
		name, problem, tried := s.signed(w, r)
		if tried && problem != "" {
			refuse(w, http.StatusUnauthorized, problem)
			return
		}
		if !tried {
			var token Token
			token, problem = s.who(r)
			if name = token.Name; !s.allowed(w, r, token, problem) {
				return
			}
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, name)))
	})
}

// allowed reports whether a caller may do what the request wants, and answers otherwise. problem is why it is not known who calls.
func (s *server) allowed(w http.ResponseWriter, r *http.Request, t Token, problem string) bool {
	erp, wakes := wakeTarget(r)
	switch {
	case problem != "" && len(s.o.Tokens) == 0:
		refuse(w, http.StatusForbidden, problem)
	case problem != "":
		w.Header().Set("WWW-Authenticate", `Basic realm="Linekeeper: any user name, the token as password"`)
		refuse(w, http.StatusUnauthorized, problem)
	case len(t.Wake) > 0 && (!wakes || r.Method != http.MethodPost || !slices.Contains(t.Wake, erp)):
		refuse(w, http.StatusForbidden, "the token "+t.Name+" may wake "+strings.Join(t.Wake, ", ")+" only")
	case len(t.Wake) == 0 && !t.Write && r.Method != http.MethodGet && r.Method != http.MethodHead:
		refuse(w, http.StatusForbidden, "the token "+t.Name+" may read only: use one with write: true")
	default:
		return true
	}
	return false
}

func refuse(w http.ResponseWriter, code int, text string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(code)
	w.Write([]byte(`{"status":` + itoa(code) + `,"title":"` + http.StatusText(code) + `","detail":` + quote(text) + "}\n"))
}

func (s *server) who(r *http.Request) (t Token, problem string) {
	if len(s.o.Tokens) == 0 {
		if loopbackHost(r.Host) {
			return Token{Name: "local", Write: true}, ""
		}
		return t, "without tokens the API answers on this machine only, as localhost: make one with `synchub token`"
	}
	secret := ""
	if scheme, bearer, ok := strings.Cut(r.Header.Get("Authorization"), " "); ok && strings.EqualFold(scheme, "Bearer") {
		secret = strings.TrimSpace(bearer)
	} else if _, password, ok := r.BasicAuth(); ok {
		secret = password
	}
	if secret == "" {
		return t, "a token is needed: Authorization: Bearer TOKEN"
	}
	sum := sha256.Sum256([]byte(secret))
	i := slices.IndexFunc(s.o.Tokens, func(t Token) bool {
		want, err := hex.DecodeString(t.SHA256)
		return err == nil && subtle.ConstantTimeCompare(want, sum[:]) == 1
	})
	if i < 0 {
		return t, "the token is not known"
	}
	return s.o.Tokens[i], ""
}

// loopbackHost keeps other names that were pointed at this machine (DNS rebinding) out.
func loopbackHost(hostport string) bool {
	host, _, err := net.SplitHostPort(hostport)
	if err != nil {
		host = strings.Trim(hostport, "[]")
	}
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// fail turns an error of the store or the engine into an answer.
func fail(err error, item string) error {
	if errors.Is(err, store.ErrNotFound) {
		return huma.Error404NotFound(item + " is not known to this hub")
	}
	return huma.Error500InternalServerError("the hub could not read " + item + ": " + err.Error())
}

// refusal turns an error of a decision into an answer: what is not there, or not in a state to decide about, is the caller's.
func refusal(err error, item string) error {
	if errors.Is(err, store.ErrNotFound) {
		return huma.Error404NotFound("there is no " + item)
	}
	if errors.Is(err, ErrConflict) {
		return huma.Error409Conflict(err.Error())
	}
	return huma.Error500InternalServerError("the hub could not do that: " + err.Error())
}

// ErrConflict marks errors of a Poster that say that the posting is not in a state to decide about.
var ErrConflict = errors.New("not in a state to decide about")

// badKey says what is wrong with a fact's key, nil when it is well formed.
func badKey(key string) error {
	if _, err := factkey.Parse(key); err != nil {
		return huma.Error422UnprocessableEntity(err.Error())
	}
	return nil
}
