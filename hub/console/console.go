// Package console is the hub's pages for people: whether everything is accounted for, what is stuck, since when, why and what
// to do; the orders, the facts, the tally and the plants.
//
// It owns templates and styles. It promises that it shows nothing that the API does not offer everybody, by asking the API
// in the caller's own name; that it works without a script and loads nothing from elsewhere. It never reaches the store.
package console

import (
	"bytes"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
)

//go:embed pages/*.html
var pages embed.FS

//go:embed assets
var assets embed.FS

type console struct {
	api   http.Handler
	pages map[string]*template.Template
}

// New returns the pages with the API beside them.
func New(apiHandler http.Handler) http.Handler {
	c := &console{api: apiHandler, pages: map[string]*template.Template{}}
	base := template.Must(template.New("base.html").Funcs(funcs).ParseFS(pages, "pages/base.html", "pages/parts.html"))
	for _, name := range []string{"overview", "orders", "order", "facts", "fact", "tally", "agents", "settle", "problem", "discrepancies", "discrepancy", "inbox", "entry", "evidence", "replays", "messages", "mappings", "mapping", "mappingversion", "objects", "object", "writes", "write"} {
		c.pages[name] = template.Must(template.Must(base.Clone()).ParseFS(pages, "pages/"+name+".html"))
	}
	mux := http.NewServeMux()
	for _, p := range []string{"/v1/", "/openapi.json", "/openapi.yaml", "/healthz", "/readyz", "/metrics"} {
		mux.Handle(p, apiHandler)
	}
	mux.Handle("GET /assets/", secure(http.FileServerFS(assets)))
	mux.Handle("GET /{$}", c.page("overview", c.overview))
	mux.Handle("GET /orders", c.page("orders", c.orders))
	mux.Handle("GET /orders/{no}", c.page("order", c.order))
	mux.Handle("GET /facts", c.page("facts", c.facts))
	mux.Handle("GET /facts/{key}", c.page("fact", c.fact))
	mux.Handle("GET /tally", c.page("tally", c.tally))
	mux.Handle("GET /agents", c.page("agents", c.agents))
	mux.Handle("GET /discrepancies", c.page("discrepancies", c.discrepancies))
	mux.Handle("GET /discrepancies/{id}", c.page("discrepancy", c.discrepancy))
	mux.Handle("POST /discrepancies/{id}", secure(http.HandlerFunc(c.settleDiscrepancy)))
	c.inboxRoutes(mux)
	c.objectRoutes(mux)
	mux.Handle("GET /mappings", c.page("mappings", c.mappings))
	mux.Handle("POST /mappings", secure(http.HandlerFunc(c.addMapping)))
	mux.Handle("GET /mappings/{name}", c.page("mapping", c.mappingSet))
	mux.Handle("POST /mappings/{name}/return", secure(http.HandlerFunc(c.returnMapping)))
	mux.Handle("GET /mappings/{name}/{version}", c.page("mappingversion", c.mappingVersion))
	mux.Handle("POST /mappings/{name}/{version}", secure(http.HandlerFunc(c.decideMapping)))
	mux.Handle("GET /settle", c.page("settle", c.settleForm))
	mux.Handle("POST /decide", secure(http.HandlerFunc(c.decide)))
	mux.Handle("POST /settle", secure(http.HandlerFunc(c.settle)))
	mux.Handle("/", secure(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.fail(w, &refused{code: http.StatusNotFound, detail: "there is no page " + r.URL.Path})
	})))
	return mux
}

func secure(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'")
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "same-origin")
		next.ServeHTTP(w, r)
	})
}

// refused is the API's refusal, which goes on to the browser.
type refused struct {
	code   int
	header http.Header
	detail string
}

func (r *refused) Error() string { return r.detail }

// answer keeps what the API answers.
type answer struct {
	header http.Header
	code   int
	body   bytes.Buffer
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(code int) {
	if a.code == 0 {
		a.code = code
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	return a.body.Write(p)
}

// ask calls the API in the name of whoever asked for the page.
func (c *console) ask(r *http.Request, method, path string, body, into any) error {
	res, err := c.call(r, method, path, body)
	if err != nil {
		return err
	}
	return json.Unmarshal(res.body.Bytes(), into)
}

// call is ask for an answer that may be no JSON.
func (c *console) call(r *http.Request, method, path string, body any) (*answer, error) {
	var send bytes.Buffer
	if body != nil {
		if err := json.NewEncoder(&send).Encode(body); err != nil {
			return nil, err
		}
	}
	req, err := http.NewRequestWithContext(r.Context(), method, path, &send)
	if err != nil {
		return nil, err
	}
	req.Host, req.RemoteAddr = r.Host, r.RemoteAddr
	for _, h := range []string{"Authorization", "Origin", "Sec-Fetch-Site"} {
		if v := r.Header.Get(h); v != "" {
			req.Header.Set(h, v)
		}
	}
	req.Header.Set("Content-Type", "application/json")
	res := &answer{header: http.Header{}}
	c.api.ServeHTTP(res, req)
	if res.code >= 300 {
		var problem struct {
			Detail string
			Errors []struct{ Location, Message string }
		}
		if json.Unmarshal(res.body.Bytes(), &problem) != nil || problem.Detail == "" {
			problem.Detail = http.StatusText(res.code)
		}
		for _, x := range problem.Errors {
			problem.Detail += "; " + x.Location + ": " + x.Message
		}
		return nil, &refused{res.code, res.header, problem.Detail}
	}
	return res, nil
}

// view is what every page gets.
type view struct {
	Title   string
	Active  string
	Now     time.Time
	Refresh int    // seconds; 0 for a page that stays
	Still   string // where the same page does not refresh itself
	Data    any
}

func (c *console) page(name string, data func(*http.Request) (view, error)) http.Handler {
	return secure(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		v, err := data(r)
		if err != nil {
			c.fail(w, err)
			return
		}
		v.Active = name
		q := r.URL.Query()
		if q.Has("still") {
			v.Refresh = 0
		}
		q.Set("still", "1")
		v.Still = r.URL.Path + "?" + q.Encode()
		c.show(w, name, http.StatusOK, v)
	}))
}

func (c *console) show(w http.ResponseWriter, name string, code int, v view) {
	v.Now = time.Now()
	var out bytes.Buffer
	if err := c.pages[name].ExecuteTemplate(&out, "base.html", v); err != nil {
		http.Error(w, "show page: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	w.Write(out.Bytes())
}

// fail shows a refusal under the API's own status; a browser asks for the token when the API did.
func (c *console) fail(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	var r *refused
	if errors.As(err, &r) {
		code = r.code
		if v := r.header.Get("WWW-Authenticate"); v != "" {
			w.Header().Set("WWW-Authenticate", v)
		}
	}
	c.show(w, "problem", code, view{Title: http.StatusText(code), Data: map[string]any{"Code": code, "Title": http.StatusText(code), "Text": err.Error()}})
}

type list[T any] struct {
	Items []T
	Next  int64
}

func (c *console) orders(r *http.Request) (view, error) {
	l, older, err := listed[api.WorkOrder](c, r, "/v1/work-orders", "state", "plant", "search", "unroutable")
	q := r.URL.Query()
	return view{Title: "Work orders", Refresh: 10, Data: map[string]any{
		"List": l, "Older": older, "Search": q.Get("search"), "State": q.Get("state"), "Filtered": q.Get("search")+q.Get("state")+q.Get("unroutable") != "",
	}}, err
}

// listed asks for a list with those of the page's own parameters that it takes, and returns the address of the next page.
func listed[T any](c *console, r *http.Request, path string, keys ...string) (l list[T], older string, err error) {
	q := url.Values{}
	for _, k := range append(keys, "before") {
		if v := r.URL.Query().Get(k); v != "" {
			q.Set(k, v)
		}
	}
	ask := url.Values{"limit": {"100"}}
	for k, v := range q {
		ask[k] = v
	}
	err = c.ask(r, http.MethodGet, path+"?"+ask.Encode(), nil, &l)
	if l.Next > 0 {
		q.Set("before", fmt.Sprint(l.Next))
		older = r.URL.Path + "?" + q.Encode()
	}
	return l, older, err
}

func (c *console) order(r *http.Request) (view, error) {
	no := r.PathValue("no")
	var o api.OrderLife
	if err := c.ask(r, http.MethodGet, "/v1/work-orders/"+url.PathEscape(no), nil, &o); err != nil {
		return view{}, err
	}
	var facts list[api.Fact]
	if err := c.ask(r, http.MethodGet, "/v1/facts?limit=50&order_no="+url.QueryEscape(no), nil, &facts); err != nil {
		return view{}, err
	}
	var t api.Tally
	err := c.ask(r, http.MethodGet, "/v1/tally?order_no="+url.QueryEscape(no), nil, &t)
	return view{Title: "Work order " + no, Refresh: 5, Data: map[string]any{"Order": o, "Facts": facts, "Tally": t}}, err
}

// facts lists facts, or the postings with one code.
func (c *console) facts(r *http.Request) (view, error) {
	q := r.URL.Query()
	path, keys := "/v1/facts", []string{"state", "plant", "order_no", "kind", "source"}
	if q.Get("code") != "" {
		path, keys = "/v1/postings", []string{"state", "plant", "order_no", "code", "erp"}
	}
	l, older, err := listed[api.Fact](c, r, path, keys...)
	return view{Title: "Facts", Refresh: 10, Data: map[string]any{"List": l, "Older": older, "State": q.Get("state"), "Code": q.Get("code"), "OrderNo": q.Get("order_no")}}, err
}

func (c *console) fact(r *http.Request) (view, error) {
	var f api.FactLife
	err := c.ask(r, http.MethodGet, "/v1/facts/"+url.PathEscape(r.PathValue("key")), nil, &f)
	v := view{Title: "Fact " + f.Key, Refresh: 5, Data: f}
	if f.Posting != nil && f.Posting.State == "parked" {
		v.Refresh = 0 // somebody may be writing into its forms
	}
	return v, err
}

func (c *console) tally(r *http.Request) (view, error) {
	var t api.Tally
	err := c.ask(r, http.MethodGet, "/v1/tally", nil, &t)
	return view{Title: "Tally", Refresh: 5, Data: map[string]any{"Tally": t, "Groups": grouped(t.Differences)}}, err
}

func (c *console) agents(r *http.Request) (view, error) {
	var l list[api.Agent]
	err := c.ask(r, http.MethodGet, "/v1/agents", nil, &l)
	return view{Title: "Agents", Refresh: 5, Data: l.Items}, err
}

// decide does what a person decided about a parked posting: replay it (or all with one code), accept it, or post it again.
func (c *console) decide(w http.ResponseWriter, r *http.Request) {
	key, code := r.PostFormValue("key"), r.PostFormValue("code")
	back, path, body := "/facts/"+url.PathEscape(key), "/v1/postings/"+url.PathEscape(key)+"/", map[string]string{}
	switch action := r.PostFormValue("action"); {
	case action == "replay" && key != "":
		path, body["key"] = "/v1/postings/replay", key
	case action == "replay" && code != "":
		path, back, body["code"], body["erp"] = "/v1/postings/replay", "/", code, r.PostFormValue("erp")
	case action == "accept" && key != "":
		path, body["note"], body["document"] = path+"accept", r.PostFormValue("note"), r.PostFormValue("document")
	case action == "post-again" && key != "":
		path, body["note"] = path+"post-again", r.PostFormValue("note")
	case action == "approve" && key != "":
		path, body["note"] = path+"approve", r.PostFormValue("note")
		if date := r.PostFormValue("posting_date"); date != "" {
			body["posting_date"] = date
		}
	default:
		c.fail(w, &refused{code: http.StatusBadRequest, detail: "choose a posting and what to do about it"})
		return
	}
	c.done(w, r, path, body, back)
}

// settleable are the lists whose entries a person settles with a note.
var settleable = map[string]string{
	"alarm": "/v1/alarms/%s/close", "exception": "/v1/exceptions/%s/close", "conflict": "/v1/asides/conflict/%s/close", "unreadable": "/v1/asides/unreadable/%s/close",
}

func (c *console) settleForm(r *http.Request) (view, error) {
	kind, id := r.URL.Query().Get("kind"), r.URL.Query().Get("id")
	if settleable[kind] == "" {
		return view{}, &refused{code: http.StatusNotFound, detail: "there is nothing of the kind " + kind + " to settle"}
	}
	// The page itself holds nothing of the hub; who may not read gets no form either.
	err := c.ask(r, http.MethodGet, "/v1/alarms?limit=1", nil, &struct{}{})
	return view{Title: "Settle", Data: map[string]string{"Kind": kind, "ID": id}}, err
}

func (c *console) settle(w http.ResponseWriter, r *http.Request) {
	path, ok := settleable[r.PostFormValue("kind")]
	if !ok {
		c.fail(w, &refused{code: http.StatusBadRequest, detail: "choose what to settle"})
		return
	}
	c.done(w, r, fmt.Sprintf(path, url.PathEscape(r.PostFormValue("id"))), map[string]string{"note": r.PostFormValue("note")}, "/")
}

// done asks the API to do something and leads back to a page of the console.
func (c *console) done(w http.ResponseWriter, r *http.Request, path string, body map[string]string, back string) {
	for k, v := range body {
		if v == "" && k != "note" {
			delete(body, k)
		}
	}
	if err := c.ask(r, http.MethodPost, path, body, &struct{}{}); err != nil {
		c.fail(w, err)
		return
	}
	http.Redirect(w, r, back, http.StatusSeeOther)
}

// group is the differences of a tally that have one reason.
type group struct {
	Reason, Title, Tone string
	Items               []api.TallyDifference
}

var reasons = []group{
	{Reason: "missing", Title: "Missing: nothing explains it", Tone: "bad"},
	{Reason: "doubled", Title: "Counted twice", Tone: "bad"},
	{Reason: "parked", Title: "Waits for a person", Tone: "bad"},
	{Reason: "in_doubt", Title: "The ERP was asked and did not answer: it is being looked up", Tone: "warn"},
	{Reason: "waiting", Title: "At the hub, waits for its posting", Tone: "info"},
	{Reason: "buffered", Title: "At the plant, on its way to the hub", Tone: "info"},
	{Reason: "open", Title: "Counted at the machine, confirmation not closed yet", Tone: "info"},
	{Reason: "ahead", Title: "The hub knows more than the plant's last report", Tone: "quiet"},
	{Reason: "carried", Title: "Left over by rounding, goes to the next posting", Tone: "quiet"},
	{Reason: "not_posted", Title: "Needs no posting", Tone: "quiet"},
}

// grouped puts differences under their reasons, what needs a person first.
func grouped(all []api.TallyDifference) (out []group) {
	for _, g := range reasons {
		for _, d := range all {
			if d.Reason == g.Reason {
				g.Items = append(g.Items, d)
			}
		}
		if len(g.Items) > 0 {
			out = append(out, g)
		}
	}
	for _, d := range all { // a reason that this page does not know
		if !slices.ContainsFunc(reasons, func(g group) bool { return g.Reason == d.Reason }) {
			out = append(out, group{d.Reason, words(d.Reason), "info", []api.TallyDifference{d}})
		}
	}
	return out
}
