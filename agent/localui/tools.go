package localui

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
)

// Tools are what an admin can do on the page. Any of them may be nil: its part is then left out.
type Tools struct {
	// Sources are those that can be browsed.
	Sources []string
	// Browse and Find look around at a source, as signal.Browser does; more says that Find stopped at the limit.
	Browse func(ctx context.Context, source, at, page string, limit int) (entries []signal.Entry, next string, err error)
	Find   func(ctx context.Context, source, glob string, limit int) (entries []signal.Entry, more bool, err error)
	// Propose makes configuration text out of picked entries.
	Propose func(ctx context.Context, source string, picked []signal.Entry) (Proposal, error)
	// Adopt writes a proposal into the configuration and says what to do for it to take effect.
	Adopt func(p Proposal) (note string, err error)
	// Certificates are those that were refused and wait for a decision; Trust trusts one.
	Certificates func() ([]Refused, error)
	Trust        func(source, fingerprint string) error
	// Trace calls emit with what the rules make of each signal of a source and tag (empty: all) until ctx ends or emit fails, and
	// with nil when it begins and every beat without news.
	Trace func(ctx context.Context, source, tag string, beat time.Duration, emit func(any) error) error
	// StartRecording records what the rules are given, StopRecording ends that; Recording is the one that runs, or the last one.
	StartRecording func(ctx context.Context, req status.RecordRequest) (status.Recording, error)
	StopRecording  func() (status.Recording, error)
	Recording      func() (s status.Recording, ok bool)
}

// Proposal is what picked entries would be in the configuration.
type Proposal struct {
	Source string `json:"source"`
	// Tags are elements of the source's list of tags, Rules elements of the list of rules, both as YAML.
	Tags  string `json:"tags"`
	Rules string `json:"rules"`
}

// Refused is a certificate that nobody trusts yet.
type Refused struct {
	Source, Fingerprint, About string
}

// pageEntries is how many entries a page of the tag picker shows.
const pageEntries = 200

// lookPatience bounds one look at a source.
const lookPatience = 30 * time.Second

type tools struct {
	*server
	admin *Admin
	tools Tools
	html  *template.Template
}

// adminView is what the admin pages show.
type adminView struct {
	Assets       string
	Title        string
	Sources      []string
	Source       string
	At, Up, Glob string
	Next         string
	More         bool
	Entries      []adminEntry
	Refused      []Refused
	Proposal     *Proposal
	CanAdopt     bool
	Note, Error  string
	To           string
	All          []string // sources, whether or not they can be browsed
	CanRecord    bool
	Recording    *status.Recording
}

type adminEntry struct {
	signal.Entry
	JSON string
}

// addTools adds the admin's pages.
func (s *server) addTools(mux *http.ServeMux) {
	t := &tools{server: s, admin: s.deps.Admin, tools: s.deps.Tools, html: template.Must(template.New("admin.html").ParseFS(files, "admin.html"))}
	mux.HandleFunc("GET /login", func(w http.ResponseWriter, r *http.Request) {
		t.show(w, "login", adminView{Title: "Log in", To: r.URL.Query().Get("to")})
	})
	mux.HandleFunc("POST /login", t.login)
	inside := func(pattern string, f http.HandlerFunc) { mux.Handle(pattern, t.admin.Require(f)) }
	inside("GET /admin", t.overview)
	inside("GET /admin/tags", t.tags)
	inside("POST /admin/tags", t.propose)
	inside("POST /admin/adopt", t.adopt)
	inside("POST /admin/trust", t.trust)
	inside("POST /admin/recording", t.record)
	t.addFollow(inside)
}

func (t *tools) show(w http.ResponseWriter, name string, v adminView) {
	v.Assets, v.Sources, v.CanAdopt = t.version, t.tools.Sources, t.tools.Adopt != nil
	var b bytes.Buffer
	if err := t.html.ExecuteTemplate(&b, name, v); err != nil {
		http.Error(w, "the page cannot be written: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if v.Error != "" {
		w.WriteHeader(http.StatusUnprocessableEntity)
	}
	w.Write(b.Bytes())
}

func (t *tools) login(w http.ResponseWriter, r *http.Request) {
	to := r.FormValue("to")
	if !strings.HasPrefix(to, "/admin") {
		to = "/admin"
	}
	if !sameOrigin(r) || !t.admin.login(w, r.FormValue("token")) {
		t.show(w, "login", adminView{Title: "Log in", To: to, Error: "That is not the token, or it was tried too often: `plantagent token` prints it; after five wrong ones wait a minute."})
		return
	}
	http.Redirect(w, r, to, http.StatusSeeOther)
}

func (t *tools) overview(w http.ResponseWriter, _ *http.Request) { t.showOverview(w, adminView{}) }

// showOverview fills in what there is.
func (t *tools) showOverview(w http.ResponseWriter, v adminView) {
	v.Title, v.CanRecord = "Set up", t.tools.StartRecording != nil
	for _, s := range t.deps.Snapshot().Sources {
		v.All = append(v.All, s.Name)
	}
	if v.CanRecord {
		if s, ok := t.tools.Recording(); ok {
			v.Recording = &s
		}
	}
	if t.tools.Certificates != nil {
		list, err := t.tools.Certificates()
		if v.Refused = list; err != nil && v.Error == "" {
			v.Error = err.Error()
		}
	}
	t.show(w, "overview", v)
}

// record starts or stops a recording from the page's form.
func (t *tools) record(w http.ResponseWriter, r *http.Request) {
	if t.tools.StartRecording == nil {
		http.NotFound(w, r)
		return
	}
	v := adminView{}
	err := r.ParseForm()
	if err == nil && r.PostForm.Get("stop") != "" {
		_, err = t.tools.StopRecording()
	} else if err == nil {
		req := status.RecordRequest{Sources: r.PostForm["source"]}
		if req.For, err = time.ParseDuration(r.PostForm.Get("for")); err == nil {
			_, err = t.tools.StartRecording(r.Context(), req)
		}
	}
	if err != nil {
		v.Error = err.Error()
	}
	t.showOverview(w, v)
}

// tags lists what a source offers: one level, or all that a glob finds.
func (t *tools) tags(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	v := adminView{Title: "Pick tags", Source: q.Get("source"), At: q.Get("at"), Up: q.Get("up"), Glob: q.Get("find")}
	ctx, cancel := context.WithTimeout(r.Context(), lookPatience)
	defer cancel()
	var entries []signal.Entry
	var err error
	switch {
	case t.tools.Browse == nil || t.tools.Find == nil:
		err = fmt.Errorf("no source can be browsed")
	case v.Glob != "":
		entries, v.More, err = t.tools.Find(ctx, v.Source, v.Glob, pageEntries)
	default:
		entries, v.Next, err = t.tools.Browse(ctx, v.Source, v.At, q.Get("page"), pageEntries)
	}
	if err != nil {
		v.Error = err.Error()
	}
	for _, e := range entries {
		raw, err := json.Marshal(e)
		if err != nil {
			v.Error = err.Error()
			continue
		}
		v.Entries = append(v.Entries, adminEntry{e, string(raw)})
	}
	t.show(w, "tags", v)
}

func (t *tools) propose(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 8<<20)
	v := adminView{Title: "Proposal", Source: r.FormValue("source")}
	picked, err := picks(r)
	if err == nil {
		ctx, cancel := context.WithTimeout(r.Context(), lookPatience)
		defer cancel()
		var p Proposal
		if p, err = t.tools.Propose(ctx, v.Source, picked); err == nil {
			v.Proposal = &p
		}
	}
	if err != nil {
		v.Error = err.Error()
	}
	t.show(w, "proposal", v)
}

func picks(r *http.Request) (list []signal.Entry, err error) {
	if err := r.ParseForm(); err != nil {
		return nil, fmt.Errorf("read the form: %w", err)
	}
	for _, raw := range r.PostForm["pick"] {
		var e signal.Entry
		if err := json.Unmarshal([]byte(raw), &e); err != nil {
			return nil, fmt.Errorf("read the form: %w", err)
		}
		list = append(list, e)
	}
	if len(list) == 0 {
		return nil, fmt.Errorf("nothing is picked: tick what shall be read")
	}
	return list, nil
}

func (t *tools) adopt(w http.ResponseWriter, r *http.Request) {
	r.Body = http.MaxBytesReader(w, r.Body, 8<<20)
	p := Proposal{Source: r.FormValue("source"), Tags: r.FormValue("tags"), Rules: r.FormValue("rules")}
	if t.tools.Adopt == nil {
		http.NotFound(w, r)
		return
	}
	note, err := t.tools.Adopt(p)
	v := adminView{Title: "Proposal", Source: p.Source, Proposal: &p, Note: note}
	if err != nil {
		v.Error = err.Error()
	}
	t.show(w, "proposal", v)
}

func (t *tools) trust(w http.ResponseWriter, r *http.Request) {
	if t.tools.Trust == nil {
		http.NotFound(w, r)
		return
	}
	v := adminView{}
	source, fingerprint := r.FormValue("source"), r.FormValue("fingerprint")
	if err := t.tools.Trust(source, fingerprint); err != nil {
		v.Error = err.Error()
	} else {
		v.Note = fmt.Sprintf("Source %s trusts %s now; it connects within seconds.", source, fingerprint)
	}
	t.showOverview(w, v)
}
