package localui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"html/template"
	"io/fs"
	"net"
	"net/http"
	"path"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/status"
)

//go:embed page.html admin.html assets
var files embed.FS

// Deps are what the page shows.
type Deps struct {
	// Snapshot returns the agent's state now.
	Snapshot func() status.Snapshot
	// Hosts are names (without port) under which the page may be opened besides localhost, 127.0.0.1 and ::1.
	Hosts []string
	// Zone is the zone of the times on the page; the computer's own when nil.
	Zone *time.Location
	// Admin lets those in who may use Tools; nil leaves both out.
	Admin *Admin
	Tools Tools
}

type server struct {
	deps    Deps
	hosts   map[string]bool
	page    *template.Template
	version string // of the assets, so that browsers may keep them
}

// New returns the handler of all addresses.
func New(deps Deps) http.Handler {
	if deps.Zone == nil {
		deps.Zone = time.Local
	}
	s := &server{deps: deps, hosts: map[string]bool{"localhost": true, "127.0.0.1": true, "::1": true}, version: assetVersion()}
	for _, h := range deps.Hosts {
		s.hosts[bareHost(h)] = true
	}
	s.page = template.Must(template.New("page.html").ParseFS(files, "page.html"))
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", s.servePage)
	mux.HandleFunc("/api/v1/status", s.serveStatus)
	mux.HandleFunc("/metrics", s.serveMetrics)
	mux.HandleFunc("/healthz", s.serveHealth)
	mux.HandleFunc("/assets/", s.serveAsset)
	if deps.Admin != nil {
		s.addTools(mux)
	}
	return s.guard(mux)
}

// guard lets requests through only under the page's own names, and only reads but for the admin's part.
func (s *server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		forms := "'none'"
		if s.changes(r.URL.Path) {
			forms = "'self'"
		}
		h.Set("Content-Security-Policy", "default-src 'self'; base-uri 'none'; form-action "+forms+"; frame-ancestors 'none'; object-src 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !s.hosts[bareHost(r.Host)] {
			http.Error(w, "this name is not allowed for the agent's page: add it to allowed_hosts in the configuration", http.StatusForbidden)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead && !s.changes(r.URL.Path) {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "this page only reads", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// changes says that an address is one of the admin's, which takes more than reads.
func (s *server) changes(path string) bool {
	return s.deps.Admin != nil && (path == "/login" || strings.HasPrefix(path, "/admin") || strings.HasPrefix(path, "/api/v1/admin/"))
}

// bareHost takes port, brackets and case from a host.
func bareHost(host string) string {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

func (s *server) servePage(w http.ResponseWriter, _ *http.Request) {
	var b bytes.Buffer
	if err := s.page.Execute(&b, s.view(s.deps.Snapshot())); err != nil {
		http.Error(w, "the page cannot be written: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(b.Bytes())
}

func (s *server) serveStatus(w http.ResponseWriter, _ *http.Request) {
	snap := s.deps.Snapshot()
	fillLists(&snap)
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetIndent("", "  ")
	enc.Encode(snap) // an error is the reader's: it has gone
}

// fillLists makes empty lists of missing ones, so that a reader of the JSON need not tell null from [].
func fillLists(s *status.Snapshot) {
	if s.Sources == nil {
		s.Sources = []status.Source{}
	}
	if s.WorkOrders == nil {
		s.WorkOrders = []status.Order{}
	}
	if s.Receipts == nil {
		s.Receipts = []status.Receipt{}
	}
	if s.Quarantine == nil {
		s.Quarantine = []status.Entry{}
	}
	if s.Ledger == nil {
		s.Ledger = []status.Ledger{}
	}
}

func (s *server) serveMetrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write(metrics(s.deps.Snapshot()))
}

func (s *server) serveHealth(w http.ResponseWriter, _ *http.Request) {
	s.deps.Snapshot()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Write([]byte("ok\n"))
}

var assetTypes = map[string]string{".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}

func (s *server) serveAsset(w http.ResponseWriter, r *http.Request) {
	name := path.Clean(strings.TrimPrefix(r.URL.Path, "/"))
	body, err := files.ReadFile(name)
	kind := assetTypes[path.Ext(name)]
	if err != nil || kind == "" || !strings.HasPrefix(name, "assets/") {
		http.NotFound(w, r)
		return
	}
	w.Header().Set("Content-Type", kind)
	if r.URL.Query().Get("v") == s.version {
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	}
	w.Write(body)
}

func assetVersion() string {
	sum := sha256.New()
	fs.WalkDir(files, "assets", func(p string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			body, _ := files.ReadFile(p) // embedded: cannot fail
			sum.Write(body)
		}
		return err
	})
	return hex.EncodeToString(sum.Sum(nil)[:6])
}
