package s4double

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const root = "/sap/opu/odata/sap/"

// The services.
const (
	orderService = "API_PRODUCTION_ORDER_2_SRV"
	confService  = "API_PROD_ORDER_CONFIRMATION_2_SRV"
	docService   = "API_MATERIAL_DOCUMENT_SRV"
	stockService = "API_MATERIAL_STOCK_SRV"
)

type session struct {
	token string
	busy  int
}

// repeat is a request that was done and may come again.
type repeat struct {
	at     time.Time
	status int
	body   []byte
}

// failure is an answer that says no.
type failure struct {
	status     int
	code, text string
	retryAfter string
}

func (f *failure) Error() string { return f.code + " " + f.text }

// fail makes the answer to a request that breaks a rule of the business.
func fail(code, text string, args ...any) *failure {
	return &failure{status: http.StatusBadRequest, code: code, text: fmt.Sprintf(text, args...)}
}

const technical = "005056A509B11EE1B9A8FEC11C21578E" // malformed requests share codes of this form

func malformed(text string) *failure {
	return &failure{status: http.StatusBadRequest, code: technical, text: strings.ToUpper(text[:1]) + text[1:]}
}

func notFound(what string) *failure {
	return &failure{status: http.StatusNotFound, code: "/IWBEP/CM_MGW_RT/020", text: fmt.Sprintf("Resource not found for segment '%s'", what)}
}

func (s *System) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 16<<20))
	if err != nil {
		return
	}
	if user, password, ok := r.BasicAuth(); !ok || user != s.options.User || password != s.options.Password {
		w.Header().Set("WWW-Authenticate", `Basic realm="SAP NetWeaver Application Server"`)
		page(w, http.StatusUnauthorized, "Logon Error")
		return
	}
	path, ok := strings.CutPrefix(r.URL.Path, root)
	service, resource, slash := strings.Cut(path, "/")
	if !ok || !slash || !strings.Contains(" "+orderService+" "+confService+" "+docService+" "+stockService+" ", " "+service+" ") {
		page(w, http.StatusForbidden, "Service not found, or the slash behind its name is missing")
		return
	}
	mine, shared := s.enter(r)
	defer s.leave(mine)
	if r.Method == http.MethodGet {
		s.read(w, r, service, resource)
		return
	}
	if r.Method != http.MethodPost {
		writeFailure(w, &failure{status: http.StatusMethodNotAllowed, code: technical, text: "Method " + r.Method + " is not allowed for " + resource})
		return
	}
	s.change(w, r, service, resource, body, mine, shared)
}

func page(w http.ResponseWriter, status int, title string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<html><head><title>%s</title></head><body><h1>%s</h1></body></html>", title, title)
}

const cookieName = "SAP_SESSIONID_S4D_100"

// enter finds the session of a request. A session that two requests use at once loses its token, where that trap is set.
func (s *System) enter(r *http.Request) (mine *session, shared bool) {
	c, err := r.Cookie(cookieName)
	if err != nil {
		return nil, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mine = s.sessions[c.Value]
	if mine != nil {
		if mine.busy++; mine.busy > 1 {
			s.broken++
			if s.traps.SharedSessionsBreak {
				mine.token = ""
			}
		}
	}
	return mine, mine != nil && mine.token == ""
}

func (s *System) leave(mine *session) {
	if mine == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	mine.busy--
}

// fetchToken answers X-CSRF-Token: Fetch, in a session of its own where the request brought none.
func (s *System) fetchToken(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("X-CSRF-Token"), "fetch") {
		return
	}
	var mine *session
	if c, err := r.Cookie(cookieName); err == nil {
		mine = s.sessions[c.Value]
	}
	if mine == nil {
		mine = &session{}
		id := rand.Text()
		s.sessions[id] = mine
		http.SetCookie(w, &http.Cookie{Name: cookieName, Value: id, Path: "/", HttpOnly: true})
		http.SetCookie(w, &http.Cookie{Name: "sap-usercontext", Value: "sap-client=100", Path: "/"})
	}
	if mine.token == "" {
		mine.token = rand.Text()
	}
	w.Header().Set("X-CSRF-Token", mine.token)
}

func (s *System) read(w http.ResponseWriter, r *http.Request, service, resource string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	query := r.URL.Query()
	query.Del("sap-client")
	query.Del("sap-language")
	if resource == "" && len(query) > 0 {
		writeFailure(w, malformed("Query options are not allowed for the service document"))
		return
	}
	s.fetchToken(w, r)
	if resource == "$metadata" {
		writeMetadata(w, service)
		return
	}
	if resource == "" {
		writeJSON(w, http.StatusOK, map[string]any{"d": map[string]any{"EntitySets": setsOf[service]}})
		return
	}
	result, err := s.query(service, resource, query)
	if err != nil {
		writeFailure(w, err)
		return
	}
	if etag := etagOf(result); etag != "" {
		w.Header().Set("ETag", etag)
	}
	writeJSON(w, http.StatusOK, map[string]any{"d": result})
}

func etagOf(result any) string {
	if r, ok := result.(row); ok {
		if m, ok := r["__metadata"].(row); ok {
			etag, _ := m["etag"].(string)
			return etag
		}
	}
	return ""
}

// change does a POST: token, repetition, traps, then the work.
func (s *System) change(w http.ResponseWriter, r *http.Request, service, resource string, body []byte, mine *session, shared bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settle()
	token := r.Header.Get("X-CSRF-Token")
	if mine == nil || shared || token == "" || mine.token != token {
		w.Header().Set("X-CSRF-Token", "Required")
		w.Header().Set("Content-Type", "text/plain")
		w.WriteHeader(http.StatusForbidden)
		io.WriteString(w, "CSRF token validation failed")
		return
	}
	if err := s.refuseAll(); err != nil {
		writeFailure(w, err)
		return
	}
	id, answered := s.repeated(w, r)
	if answered {
		return
	}
	status, result, err := s.post(service, resource, r.URL.Query(), r.Header.Get("If-Match"), body)
	if err != nil {
		writeFailure(w, err)
		return
	}
	text := encode(map[string]any{"d": result})
	if id != "" {
		s.repeats[id] = &repeat{at: s.now(), status: status, body: text}
	}
	if s.traps.DumpAfter {
		writeFailure(w, &failure{status: http.StatusInternalServerError, code: "SY/530", text: "An exception was raised"})
		return
	}
	write(w, status, text)
}

// refuseAll is what stops every posting before it is looked at.
func (s *System) refuseAll() *failure {
	switch {
	case s.traps.Busy:
		return &failure{status: http.StatusServiceUnavailable, code: "SY/002", text: "No free work process"}
	case s.traps.Throttle:
		return &failure{status: http.StatusTooManyRequests, code: "SY/003", text: "Too many requests", retryAfter: "1"}
	case s.traps.Deny:
		return &failure{status: http.StatusForbidden, code: "RU/519", text: "No authorization for confirmations in this plant"}
	}
	return nil
}

// repeated handles RequestID with RepeatabilityCreation. It returns the id under which the answer is to be kept.
func (s *System) repeated(w http.ResponseWriter, r *http.Request) (id string, answered bool) {
	id, created := strings.ToUpper(r.Header.Get("RequestID")), r.Header.Get("RepeatabilityCreation")
	if id == "" || created == "" {
		return "", false
	}
	if s.traps.NoRepeats {
		w.Header().Set("RepeatabilityResult", "unsupported")
		return "", false
	}
	at, err := time.Parse(time.RFC3339, created)
	if err != nil || len(id) != 32 {
		writeFailure(w, malformed("RequestID or RepeatabilityCreation is malformed"))
		return "", true
	}
	keep, ids := s.traps.KeepAnswers, s.traps.KeepIDs
	if keep == 0 {
		keep = 6 * time.Hour
	}
	if ids == 0 {
		ids = 12 * time.Hour
	}
	done, now := s.repeats[id], s.now()
	if done != nil && now.Sub(done.at) >= ids {
		delete(s.repeats, id)
		done = nil
	}
	switch {
	case done != nil && now.Sub(done.at) < keep:
		w.Header().Set("RepeatabilityResult", "accepted")
		write(w, done.status, done.body)
		return "", true
	case done != nil || now.Sub(at) >= ids:
		writeFailure(w, &failure{status: http.StatusBadRequest, code: "/IWBEP/CM_COS/005", text: "RequestID is outdated"})
		return "", true
	}
	w.Header().Set("RepeatabilityResult", "accepted")
	return id, false
}

func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(err) // only our own maps of texts are encoded
	}
	return b.Bytes()
}

func writeJSON(w http.ResponseWriter, status int, v any) { write(w, status, encode(v)) }

func write(w http.ResponseWriter, status int, text []byte) {
	w.Header().Set("Content-Type", "application/json;charset=utf-8")
	w.Header().Set("DataServiceVersion", "2.0")
	w.WriteHeader(status)
	w.Write(text)
}

func writeFailure(w http.ResponseWriter, f *failure) {
	if f.retryAfter != "" {
		w.Header().Set("Retry-After", f.retryAfter)
	}
	writeJSON(w, f.status, map[string]any{"error": map[string]any{"code": f.code,
		"message": map[string]any{"lang": "en", "value": f.text},
		"innererror": map[string]any{"transactionid": strings.Repeat("0", 32), "timestamp": "20261126000000.0000000",
			"Error_Resolution": map[string]any{"SAP_Transaction": "Run transaction /IWFND/ERROR_LOG on the system."},
			"errordetails":     []any{map[string]any{"code": f.code, "message": f.text, "propertyref": "", "severity": "error", "target": ""}}}}})
}

// query answers a GET of a set or of one entity.
func (s *System) query(service, resource string, q url.Values) (any, *failure) {
	entity, nav, isNav := strings.Cut(resource, ")/")
	if isNav {
		return s.navigate(service, entity, nav)
	}
	set, key, isKey := strings.Cut(strings.TrimSuffix(resource, ")"), "(")
	if !contains(setsOf[service], set) {
		return nil, notFound(set)
	}
	if isKey {
		rows, err := s.byKey(set, key)
		if err != nil {
			return nil, err
		}
		s.expand(set, rows, q.Get("$expand"))
		return rows[0], nil
	}
	return s.list(service, set, q)
}

func contains(all []string, one string) bool {
	for _, a := range all {
		if a == one {
			return true
		}
	}
	return false
}

// list answers a GET of a set with $filter, $orderby, $skip, $top, $inlinecount and $expand.
func (s *System) list(service, set string, q url.Values) (any, *failure) {
	sch := Schemas[set]
	if s.traps.NoRead && set == "ProdnOrdConf2" {
		return nil, &failure{status: http.StatusForbidden, code: "/IWFND/CM_CONSUMER/101", text: "No authorization to access service"}
	}
	var f filter
	if text := q.Get("$filter"); text != "" {
		var err error
		if f, err = parseFilter(text, sch); err != nil {
			return nil, malformed(err.Error())
		}
		if s.traps.NoKeySearch && (strings.Contains(text, "ExternalSystemConfirmation") || strings.Contains(text, "ReferenceDocument")) {
			return nil, &failure{status: http.StatusNotImplemented, code: "/IWBEP/CM_MGW_RT/026", text: "Filter by this property is not implemented"}
		}
	}
	var rows []row
	for _, r := range s.candidates(set, f) {
		if f == nil || f.match(r) {
			rows = append(rows, r)
		}
	}
	if by := q.Get("$orderby"); by != "" {
		if err := order(rows, by, sch); err != nil {
			return nil, malformed(err.Error())
		}
	}
	return s.pageOf(service, set, rows, q)
}

func (s *System) pageOf(service, set string, rows []row, q url.Values) (any, *failure) {
	result := row{}
	if q.Get("$inlinecount") == "allpages" {
		result["__count"] = strconv.Itoa(len(rows))
	}
	number := func(name string, def int) (int, *failure) {
		text := q.Get(name)
		if text == "" {
			return def, nil
		}
		n, err := strconv.Atoi(text)
		if err != nil || n < 0 {
			return 0, malformed("Invalid value for " + name)
		}
		return n, nil
	}
	skip, err1 := number("$skip", 0)
	top, err2 := number("$top", len(rows))
	token, err3 := number("$skiptoken", 0)
	for _, err := range []*failure{err1, err2, err3} {
		if err != nil {
			return nil, err
		}
	}
	rows = rows[min(skip, len(rows)):]
	rows = rows[:min(top, len(rows))]
	rows = rows[min(token, len(rows)):]
	if n := s.traps.PageSize; n > 0 && len(rows) > n {
		rows = rows[:n]
		next := url.Values{}
		for k, v := range q {
			next[k] = v
		}
		next.Set("$skiptoken", strconv.Itoa(token+n))
		result["__next"] = root + service + "/" + set + "?" + next.Encode()
	}
	s.expand(set, rows, q.Get("$expand"))
	if rows == nil {
		rows = []row{}
	}
	result["results"] = rows
	return result, nil
}
