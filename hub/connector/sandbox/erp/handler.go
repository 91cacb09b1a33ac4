package erp

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// tokenLife is how long a log-in lasts.
const tokenLife = 30 * time.Minute

// Found is the answer to a search by external key.
type Found struct {
	// AsOf is the ERP's clock before the search began: a request that is valid until then can no longer be booked unless it
	// is Pending.
	AsOf      time.Time  `json:"as_of"`
	Documents []Document `json:"documents"`
	// Pending says that a request with the key is being worked on or waits to be booked.
	Pending bool `json:"pending"`
	// Failed is the last refusal of an accepted request with the key that could not be booked.
	Failed *FailedRequest `json:"failed,omitempty"`
}

// FailedRequest is an accepted request that was refused later. Tickets count up.
type FailedRequest struct {
	Failure
	Ticket int64 `json:"ticket"`
}

// Failure is a refusal as the API writes it.
type Failure struct {
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Handler is the ERP's HTTP API. Everything but the page at / needs Basic authentication or a bearer token of /api/login.
// A refusal is {"error":{"code","message"}} with a status from 400 on; nothing has been booked then.
func (e *ERP) Handler() http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, h func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := e.authorise(r); err != nil {
				fail(w, err)
			} else if err := h(w, r); err != nil {
				fail(w, err)
			}
		})
	}
	handle("POST /api/login", e.serveLogin)
	handle("GET /api/orders", e.serveOrders)
	handle("GET /api/orders/{no}", e.serveOrder)
	handle("GET /api/orders/{no}/documents", e.serveOrderDocuments)
	handle("POST /api/orders/{no}/confirmations", e.posting(KindConfirmation, ""))
	handle("POST /api/orders/{no}/movements", e.posting(KindMovement, ""))
	handle("POST /api/orders/{no}/start", e.posting(KindStatus, Started))
	handle("POST /api/orders/{no}/finish", e.posting(KindStatus, Finished))
	handle("POST /api/documents/{number}/reverse", e.posting("", ""))
	handle("POST /api/documents/{number}/movements", e.serveMovements)
	handle("GET /api/documents", e.serveDocuments)
	handle("GET /api/documents/{number}", e.serveDocument)
	handle("GET /api/stock", e.serveStock)
	e.handleAdmin(handle)
	mux.HandleFunc("GET /{$}", e.servePage)
	return mux
}

// handleAdmin adds what a planner or a tester does.
func (e *ERP) handleAdmin(handle func(string, func(http.ResponseWriter, *http.Request) error)) {
	change := func(f func(ctx context.Context, no string) error) func(http.ResponseWriter, *http.Request) error {
		return func(w http.ResponseWriter, r *http.Request) error {
			if err := f(r.Context(), r.PathValue("no")); err != nil {
				return err
			}
			return e.serveOrder(w, r)
		}
	}
	handle("POST /api/orders/{no}/cancel", change(e.Cancel))
	handle("POST /api/orders/{no}/close", change(e.CloseOrder))
	handle("POST /api/orders/{no}/reopen", change(e.Reopen))
	handle("POST /api/orders/{no}/complete", change(e.CompleteOrder))
	handle("POST /api/orders/{no}/withdraw", change(e.Withdraw))
	handle("POST /admin/orders/{no}/lock", change(func(_ context.Context, no string) error { e.Lock(no, "PLANNER"); return nil }))
	handle("POST /admin/orders/{no}/unlock", change(func(_ context.Context, no string) error { e.Unlock(no); return nil }))
	handle("POST /admin/movements/reprocess", func(w http.ResponseWriter, r *http.Request) error {
		n, err := e.Reprocess(r.Context())
		if err != nil {
			return err
		}
		return write(w, http.StatusOK, map[string]int{"movements": n})
	})
	handle("POST /admin/orders/{no}/quantity", func(w http.ResponseWriter, r *http.Request) error {
		var body struct {
			Quantity decimal.Decimal `json:"quantity"`
		}
		if err := readBody(r, &body); err != nil {
			return err
		}
		return change(func(ctx context.Context, no string) error { return e.ChangeQuantity(ctx, no, body.Quantity) })(w, r)
	})
	handle("POST /admin/orders", func(w http.ResponseWriter, r *http.Request) error {
		var o Order
		if err := readBody(r, &o); err != nil {
			return err
		}
		no, err := e.ReleaseOrder(r.Context(), o)
		if err != nil {
			return err
		}
		r.SetPathValue("no", no)
		return e.serveOrder(w, r)
	})
	handle("GET /admin/faults", func(w http.ResponseWriter, r *http.Request) error { return write(w, http.StatusOK, e.Faults()) })
	handle("PUT /admin/faults", func(w http.ResponseWriter, r *http.Request) error {
		var f Faults
		if err := readBody(r, &f); err != nil {
			return err
		}
		e.SetFaults(f)
		return write(w, http.StatusOK, f)
	})
	handle("PUT /admin/periods/{period}", func(w http.ResponseWriter, r *http.Request) error {
		var body struct {
			Open bool `json:"open"`
		}
		if err := readBody(r, &body); err != nil {
			return err
		}
		if err := e.SetPeriod(r.Context(), r.PathValue("period"), body.Open); err != nil {
			return &Error{Status: 400, Code: "00/088", Message: err.Error()}
		}
		return write(w, http.StatusOK, body)
	})
	handle("POST /admin/tokens/expire", func(w http.ResponseWriter, r *http.Request) error {
		e.ExpireTokens()
		return write(w, http.StatusOK, struct{}{})
	})
	handle("GET /admin/totals", func(w http.ResponseWriter, r *http.Request) error {
		t, err := e.Totals(r.Context())
		if err != nil {
			return err
		}
		return write(w, http.StatusOK, t)
	})
}

func (e *ERP) authorise(r *http.Request) error {
	if token, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); ok {
		e.mu.Lock()
		defer e.mu.Unlock()
		if expiry, known := e.tokens[token]; known && e.now().Before(expiry) {
			return nil
		}
		delete(e.tokens, token)
		return sessionEnded()
	}
	user, password, _ := r.BasicAuth()
	if same(user, e.user)&same(password, e.password) != 1 {
		return &Error{Status: 401, Code: "SY/402", Message: "User name or password is wrong"}
	}
	return nil
}

func sessionEnded() *Error {
	return &Error{Status: 401, Code: "SY/401", Message: "The token has expired: log in again"}
}

func same(a, b string) int { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) }

func (e *ERP) serveLogin(w http.ResponseWriter, r *http.Request) error {
	token, expiry := rand.Text(), e.now().Add(tokenLife)
	e.mu.Lock()
	e.tokens[token] = expiry
	e.mu.Unlock()
	return write(w, http.StatusOK, map[string]any{"token": token, "expires_at": expiry.UTC()})
}

// serveOrders lists orders by change time and number. changed_since includes its second; after=NUMBER goes on behind that
// order of that second.
func (e *ERP) serveOrders(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	since := time.Unix(0, 0)
	if text := q.Get("changed_since"); text != "" {
		var err error
		if since, err = time.Parse(time.RFC3339, text); err != nil {
			return &Error{Status: 400, Code: "00/088", Message: fmt.Sprintf("changed_since %q is not a time like 2026-11-24T07:00:00Z", text)}
		}
	}
	limit := 100
	if text := q.Get("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > 1000 {
			return &Error{Status: 400, Code: "00/089", Message: fmt.Sprintf("limit %q is not a number from 1 to 1000", text)}
		}
		limit = n
	}
	orders, err := changedOrders(&e.read, since.Unix(), q.Get("after"), q["site"], limit)
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, map[string]any{"orders": orders})
}

func (e *ERP) serveOrder(w http.ResponseWriter, r *http.Request) error {
	o, err := readOrder(&e.read, r.PathValue("no"))
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, o)
}

func (e *ERP) serveDocuments(w http.ResponseWriter, r *http.Request) error {
	if e.Faults().NoSearch {
		return &Error{Status: 405, Code: "SY/405", Message: "Documents cannot be searched by external key"}
	}
	keys := r.URL.Query()["external_key"]
	if len(keys) == 0 || slices.Contains(keys, "") {
		return &Error{Status: 400, Code: "00/055", Message: "Fill in external_key"}
	}
	if len(keys) > 1 {
		return e.serveMany(w, r, keys)
	}
	found, err := e.Find(r.Context(), keys[0])
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, found)
}

// keysAtOnce is how many external keys are searched at once at most.
const keysAtOnce = 50

// serveMany answers a search by several external keys: what Find says of each, in the order of the keys.
func (e *ERP) serveMany(w http.ResponseWriter, r *http.Request, keys []string) error {
	if len(keys) > keysAtOnce {
		return &Error{Status: 400, Code: "00/056", Message: fmt.Sprintf("external_key is given %d times: search by %d keys at most", len(keys), keysAtOnce)}
	}
	type foundByKey struct {
		ExternalKey string `json:"external_key"`
		Found
	}
	all := make([]foundByKey, len(keys))
	for i, key := range keys {
		found, err := e.Find(r.Context(), key)
		if err != nil {
			return err
		}
		all[i] = foundByKey{key, found}
	}
	return write(w, http.StatusOK, map[string]any{"found": all})
}

// Find searches documents and waiting requests by external key.
func (e *ERP) Find(_ context.Context, key string) (Found, error) {
	// What is being worked on is looked at before the documents: what ends in between is then in one of the two.
	e.mu.Lock()
	lag := time.Duration(e.faults.ReadLag)
	found := Found{AsOf: e.now().Add(-lag).UTC()}
	found.Pending = e.inFlight[key] > 0
	e.mu.Unlock()
	type queued struct {
		state string
		FailedRequest
	}
	all, err := collect(&e.read, func(row scanner) (q queued, err error) {
		return q, row.Scan(&q.state, &q.Code, &q.Message, &q.Ticket)
	}, `select state, code, message, ticket from queue where external_key = $1 order by ticket`, key)
	if err != nil {
		return Found{}, err
	}
	for _, q := range all {
		found.Pending = found.Pending || q.state == "WAITING"
		if q.state == "FAILED" {
			found.Failed = &q.FailedRequest
		}
	}
	found.Documents, err = readDocuments(&e.read, ` where d.external_key = $1 and d.arrived <= $2`, key, seen(found.AsOf, lag))
	return found, err
}

// seen is the latest instant, in milliseconds, that a reader sees.
func seen(asOf time.Time, lag time.Duration) int64 {
	if lag <= 0 {
		return math.MaxInt64
	}
	return asOf.UnixMilli()
}

func (e *ERP) serveDocument(w http.ResponseWriter, r *http.Request) error {
	lag := time.Duration(e.Faults().ReadLag)
	d, err := readDocument(&e.read, r.PathValue("number"), seen(e.now().Add(-lag), lag))
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, d)
}

func (e *ERP) serveStock(w http.ResponseWriter, r *http.Request) error {
	items, err := e.Stock(r.Context(), r.URL.Query()["item"])
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, map[string]any{"as_of": e.now().UTC().Truncate(time.Second), "stock": items})
}

// posting is the door of everything that makes a document, and the place of most faults.
func (e *ERP) posting(kind, state string) func(http.ResponseWriter, *http.Request) error {
	return func(w http.ResponseWriter, r *http.Request) error {
		var req Request
		if err := readBody(r, &req); err != nil {
			return err
		}
		req.Kind, req.State, req.OrderNo, req.Reverses = kind, state, r.PathValue("no"), r.PathValue("number")
		req.arrived = e.now().UnixMilli()
		defer e.enter(req.ExternalKey)()
		f := e.roll(req.OrderNo)
		switch {
		case f.loseRequest:
			panic(http.ErrAbortHandler)
		case f.htmlPage:
			return webPage(w)
		}
		if f.refuse != nil {
			return f.refuse
		}
		if !req.ValidUntil.IsZero() && e.now().After(req.ValidUntil) {
			return &Error{Status: 422, Code: "SY/408", Message: fmt.Sprintf("The request arrived too late: it was valid until %s", req.ValidUntil.Format(time.RFC3339Nano))}
		}
		status, answer, err := e.perform(r.Context(), req, f)
		switch {
		case f.loseReply:
			panic(http.ErrAbortHandler)
		case f.htmlReply:
			return webPage(w)
		case f.emptyReply:
			return nil
		case err != nil:
			return err
		}
		return write(w, status, answer)
	}
}

// serveMovements books what failed of a document's goods movements. Of the faults only lost requests and replies concern it.
func (e *ERP) serveMovements(w http.ResponseWriter, r *http.Request) error {
	f := e.roll("")
	if f.loseRequest {
		panic(http.ErrAbortHandler)
	}
	doc, err := e.ReprocessDocument(r.Context(), r.PathValue("number"))
	if f.loseReply {
		panic(http.ErrAbortHandler)
	}
	if err != nil {
		return err
	}
	return write(w, http.StatusOK, doc)
}

func (e *ERP) perform(ctx context.Context, req Request, f fate) (status int, answer any, err error) {
	switch {
	case f.delay > 0:
		ticket, err := e.accept(ctx, req, f.delay)
		return http.StatusAccepted, map[string]any{"ticket": ticket, "status": "QUEUED"}, err
	case f.errorFlag:
		return http.StatusCreated, map[string]any{"errors_exist": "true", "errors": []Failure{{"WIP/001", fmt.Sprintf("Order %s is not valid for this transaction", req.OrderNo)}}}, nil
	case f.phantom:
		return http.StatusCreated, Document{Number: "9999999999", Kind: req.Kind, OrderNo: req.OrderNo, ExternalKey: req.ExternalKey, Lines: []Line{}}, nil
	}
	doc, err := e.post(ctx, req, f)
	return http.StatusCreated, doc, err
}

// webPage is what a gateway or a log-in form puts in the place of an answer.
func webPage(w http.ResponseWriter) error {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	fmt.Fprint(w, "<!doctype html><title>Please log in</title><form method=post>")
	return nil
}

func readBody(r *http.Request, into any) error {
	d := json.NewDecoder(http.MaxBytesReader(nil, r.Body, 1<<20))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return &Error{Status: 400, Code: "00/001", Message: fmt.Sprintf("The request is not understood: %v", err)}
	}
	return nil
}

func write(w http.ResponseWriter, status int, answer any) error {
	body, err := json.Marshal(answer)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	w.Write(body) // a client that went away has lost its answer: that is its affair
	return nil
}

func fail(w http.ResponseWriter, err error) {
	var refused *Error
	if !errors.As(err, &refused) {
		refused = &Error{Status: 500, Code: "SY/500", Message: err.Error()}
	}
	if refused.RetryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int((refused.RetryAfter+time.Second-1)/time.Second)))
	}
	write(w, refused.Status, map[string]any{"error": Failure{Code: refused.Code, Message: refused.Message}})
}

var page = template.Must(template.New("").Parse(`<!doctype html><meta charset="utf-8"><title>ERP sandbox</title>
<style>body{font:15px system-ui;margin:2em}table{border-collapse:collapse}td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:left}</style>
<h1>ERP sandbox</h1><p>{{.Totals.Documents}} documents, {{len .Totals.Duplicates}} external keys with more than one.</p>
<table><tr><th>Order<th>Item<th>Quantity<th>Work centre<th>State<th>Yield<th>Scrap</tr>
{{range .Orders}}{{$t := index $.Totals.Orders .No}}<tr><td>{{.No}}<td>{{.Item}}<td>{{.Quantity}} {{.Unit}}<td>{{.WorkCenter}}<td>{{.State}}<td>{{$t.Yield}}<td>{{$t.Scrap}}</tr>
{{end}}</table>`))

// servePage shows the newest orders to people.
func (e *ERP) servePage(w http.ResponseWriter, r *http.Request) {
	totals, err := e.Totals(r.Context())
	var orders []Order
	if err == nil {
		orders, err = collect(&e.read, scanOrder, `select `+orderColumns+` order by o.no desc limit 50`)
	}
	if err != nil {
		fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	page.Execute(w, map[string]any{"Totals": totals, "Orders": orders})
}
