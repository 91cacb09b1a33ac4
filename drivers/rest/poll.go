package rest

import (
	"context"
	"fmt"
	"hash/fnv"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// poller reads one address. One goroutine uses it.
//
// It works in passes: from the place that the cursor names (taken back by the overlap) page by page to the end. What was
// emitted is remembered as long as a pass may meet it again, so that a record that turns up late is found and the others are
// not emitted twice.
type poller struct {
	*source
	book    *polling.Book
	query   *Query
	section string
	answers *Answers // the records are answers to work orders; nil for others

	ready bool
	state state
	seen  map[uint64]entry
	pass  *pass // nil between passes
	passN int
	etag  etag
}

// state is a query's part of the cursor.
type state struct {
	// Cursor is the token of the MES, or the highest value of the field; Number says that it was a number in JSON.
	Cursor string   `json:"cursor,omitempty"`
	Known  bool     `json:"known,omitempty"`
	Number bool     `json:"number,omitempty"`
	Seen   []uint64 `json:"seen,omitempty"` // hashes of identities
}

// entry is a record that was emitted: the value of its cursor field, and the pass that met it last.
type entry struct {
	at   value
	pass int
}

type pass struct {
	front string // what {cursor} is
	page  string // what {page} is
	url   string // the next page's address, when the MES names it
	high  *value // of the records met in this pass
	pages int
}

// etag is the version of an answer that was a whole pass.
type etag struct{ url, tag string }

// maxSeen bounds memory and cursor.
const maxSeen = 50_000

func (q *Query) byField() bool { return q.Cursor != nil && q.Cursor.Field != "" }

// ordered reports whether a page's last record is where the next one begins.
func (q *Query) ordered() bool { return q.byField() && q.Next == nil && !q.Unordered }

// step reads one page.
func (p *poller) step(ctx context.Context) (more bool, err error) {
	if !p.ready {
		if err := p.prepare(); err != nil {
			return false, err
		}
		p.ready = true
	}
	defer func() {
		if err != nil {
			p.ready, p.pass = false, nil // the durable state decides where to go on
		}
	}()
	if p.pass == nil {
		p.passN++
		p.pass = &pass{front: p.from()}
	}
	rep, asked, err := p.ask(ctx)
	if err != nil {
		return false, err
	}
	if rep.code == http.StatusNotModified {
		p.pass = nil
		return false, nil
	}
	body, err := payload.JSON(rep.body)
	if err != nil {
		return false, &polling.ProblemError{Problem: signal.Problem{Code: "bad_json", Item: p.section, Reason: fmt.Sprintf("the answer is no JSON: %v", err),
			NextStep: "compare url and headers with the MES's documentation; the MES must answer in JSON"}}
	}
	items, err := p.items(body)
	if err != nil {
		return false, err
	}
	return p.take(ctx, rep, asked, body, items)
}

func (p *poller) prepare() error {
	p.state, p.seen, p.etag = state{}, map[uint64]entry{}, etag{}
	if _, err := p.book.Part(p.section, &p.state); err != nil {
		return err
	}
	for _, h := range p.state.Seen {
		p.seen[h] = entry{pass: p.passN + 1} // of a pass that is not ended
	}
	return nil
}

// from is where a pass begins.
func (p *poller) from() string {
	if !p.state.Known {
		return p.query.First
	}
	if p.query.byField() {
		return p.query.overlap.back(p.high())
	}
	return p.state.Cursor
}

// high is the highest value so far.
func (p *poller) high() value {
	var raw any = p.state.Cursor
	if p.state.Number {
		raw = signal.Number(p.state.Cursor)
	}
	v, _ := readValue(raw, p.zone)
	return v
}

// ask sends the request of the present page; asked is its address.
func (p *poller) ask(ctx context.Context) (rep *reply, asked string, err error) {
	q := p.query
	r := request{method: q.Method, url: p.pass.url, headers: map[string]string{}}
	values := map[string]string{"{cursor}": p.pass.front, "{page}": p.pass.page, "{limit}": fmt.Sprint(q.PageSize)}
	if r.url == "" {
		u, err := join(p.config.Base, fillURL(q.URL, values))
		if err != nil {
			return nil, "", err
		}
		r.url = u.String()
	}
	for k, v := range q.Headers {
		r.headers[k] = replace(v, values, func(s string) string { return s })
	}
	if q.Body != "" {
		r.body = []byte(replace(q.Body, values, jsonInner))
	}
	if p.etag.tag != "" && p.etag.url == r.url && q.Method == http.MethodGet && p.pass.pages == 0 {
		r.headers["If-None-Match"] = p.etag.tag
	}
	rep, err = p.client.do(ctx, r)
	if err != nil {
		return nil, "", err
	}
	p.pass.pages++
	if rep.code != http.StatusOK && rep.code != http.StatusNotModified && rep.code != http.StatusNoContent {
		return nil, "", rep.problem(p.section)
	}
	if rep.code == http.StatusNoContent {
		rep.body = []byte("[]")
	}
	return rep, r.url, nil
}

// items are the records of an answer.
func (p *poller) items(body any) ([]any, error) {
	switch v := find(body, p.query.Records).(type) {
	case []any:
		return v, nil
	case map[string]any:
		return []any{v}, nil
	case nil:
		if list, ok := body.([]any); ok && len(list) == 0 {
			return nil, nil
		}
		if m, ok := body.(map[string]any); ok && p.query.Records != "" && hasParent(m, p.query.Records) {
			return nil, nil // null
		}
	}
	return nil, &polling.ProblemError{Problem: signal.Problem{Code: "records_missing", Item: p.section,
		Reason: fmt.Sprintf("the answer has no list at %q", p.query.Records), NextStep: "correct records: the path of the list in the answer, such as data.items"}}
}

// hasParent reports whether a path's last name is there, with null.
func hasParent(m map[string]any, path string) bool {
	parent, name := m, path
	if i := strings.LastIndexByte(path, '.'); i >= 0 {
		var ok bool
		if parent, ok = find(m, path[:i]).(map[string]any); !ok {
			return false
		}
		name = path[i+1:]
	}
	_, ok := parent[name]
	return ok
}

// take emits what is new on a page and goes on to the next.
func (p *poller) take(ctx context.Context, rep *reply, asked string, body any, items []any) (more bool, err error) {
	var fresh []signal.Signal
	var last *value
	whole := p.pass
	for i, item := range items {
		r := p.record(item)
		if p.query.ordered() && r.at != nil {
			if last != nil && r.at.compare(*last) < 0 {
				return false, p.notAscending(i, *last, *r.at)
			}
			last = r.at
		}
		if r.at != nil && (whole.high == nil || r.at.compare(*whole.high) > 0) {
			whole.high = r.at
		}
		h := hash(r.signal.Position)
		_, known := p.seen[h]
		e := entry{pass: p.passN}
		if r.at != nil {
			e.at = *r.at
		}
		p.seen[h] = e
		if !known {
			fresh = append(fresh, r.signal)
		}
	}
	goOn, err := p.next(rep, asked, body, len(items), last)
	if err != nil {
		return false, err
	}
	p.move(rep, body, goOn)
	p.prune(goOn, len(items))
	if len(p.seen) > maxSeen {
		return false, &polling.ProblemError{Problem: signal.Problem{Code: "too_many_records", Item: p.section,
			Reason:   fmt.Sprintf("more than %d records are read again at each poll", maxSeen),
			NextStep: "shorten overlap to the longest time that a record of the MES turns up late, or use a cursor"}}
	}
	if len(fresh) > 0 {
		p.export()
		if err := p.book.Commit(ctx, p.section, p.state, fresh); err != nil {
			return false, err
		}
	}
	if !goOn {
		p.etag = etag{}
		if whole.pages == 1 {
			p.etag = etag{asked, rep.header.Get("ETag")}
		}
		p.pass = nil
	}
	return goOn, nil
}

func (p *poller) notAscending(i int, before, after value) error {
	return &polling.ProblemError{Problem: signal.Problem{Code: "not_ascending", Item: p.section,
		Reason:   fmt.Sprintf("record %d has %q in %q after %q: what lies behind a page cannot be asked for", i+1, after.text, p.query.Cursor.Field, before.text),
		NextStep: "let the MES sort by that field in ascending order, or set unordered: true when each answer has all records behind {cursor}"}}
}

// next prepares the next page and reports whether there is one.
func (p *poller) next(rep *reply, asked string, body any, n int, last *value) (bool, error) {
	q := p.query
	switch {
	case q.Next != nil:
		token := place(q.Next, rep, body)
		if token == "" {
			return false, nil
		}
		return true, p.turn(token, asked)
	case q.ordered():
		if last == nil || last.text == p.pass.front {
			if n >= q.PageSize && last != nil {
				return false, &polling.ProblemError{Problem: signal.Problem{Code: "page_stuck", Item: p.section,
					Reason:   fmt.Sprintf("a whole page of %d records has the same %q, %q: there may be more behind it that cannot be asked for", n, q.Cursor.Field, last.text),
					NextStep: "raise page_size, name a finer field, or use next"}}
			}
			return false, nil
		}
		p.pass.front = last.text
		return true, nil
	case q.Cursor != nil && !q.byField():
		token := place(q.Cursor, rep, body)
		if token == "" || token == p.pass.front || n == 0 {
			return false, nil
		}
		return true, nil
	}
	return false, nil
}

const mostPages = 100_000 // of one pass

// turn goes to the page that the MES names by a token or an address.
func (p *poller) turn(token, asked string) error {
	if strings.Contains(p.query.URL+p.query.Body+fmt.Sprint(p.query.Headers), "{page}") {
		if token == p.pass.page || p.pass.pages > mostPages {
			return p.loops(token)
		}
		p.pass.page = token
		return nil
	}
	base, err := url.Parse(asked)
	if err != nil {
		return err
	}
	u, err := base.Parse(token)
	if err != nil {
		return &polling.ProblemError{Problem: signal.Problem{Code: "next_unreadable", Item: p.section, Reason: fmt.Sprintf("the next page's address %q cannot be read", clip(token)), NextStep: "correct next, or write {page} into url when it is a token"}}
	}
	if u.String() == asked || p.pass.pages > mostPages {
		return p.loops(token)
	}
	p.pass.url = u.String()
	return nil
}

func (p *poller) loops(token string) error {
	return &polling.ProblemError{Problem: signal.Problem{Code: "next_loops", Item: p.section, Reason: fmt.Sprintf("the MES names the same next page %q again and again", clip(token)), NextStep: "correct next, or tell the MES's maker"}}
}

// move sets the cursor to where the next pass, or after a crash this one, may begin.
func (p *poller) move(rep *reply, body any, goOn bool) {
	switch q := p.query; {
	case q.Cursor == nil:
	case q.byField():
		// Pages that the MES numbers need not be in order: the cursor moves when all were read.
		if high := p.pass.high; high != nil && (q.ordered() || !goOn) && (!p.state.Known || high.compare(p.high()) > 0) {
			p.state.Cursor, p.state.Known, p.state.Number = high.text, true, high.number != nil
		}
	default:
		if token := place(q.Cursor, rep, body); token != "" {
			p.state.Cursor, p.state.Known = token, true
			p.pass.front = token
		}
	}
}

// prune forgets what no later request can bring again.
func (p *poller) prune(goOn bool, n int) {
	switch {
	case p.query.ordered():
		floor, ok := readValue(p.floor(), p.zone)
		if !ok {
			return
		}
		maps.DeleteFunc(p.seen, func(_ uint64, e entry) bool { return e.at.text != "" && e.at.compare(floor) < 0 })
	case p.query.Cursor != nil && !p.query.byField():
		if n > 0 { // the same token can only bring this page again
			maps.DeleteFunc(p.seen, func(_ uint64, e entry) bool { return e.pass < p.passN })
			p.passN++
		}
		return
	}
	if !goOn {
		maps.DeleteFunc(p.seen, func(_ uint64, e entry) bool { return e.pass < p.passN })
	}
}

func (p *poller) floor() any {
	text := p.query.overlap.back(p.high())
	if p.state.Number {
		return signal.Number(text)
	}
	return text
}

func (p *poller) export() { p.state.Seen = slices.Sorted(maps.Keys(p.seen)) }

func hash(text string) uint64 {
	h := fnv.New64a()
	h.Write([]byte(text))
	return h.Sum64()
}
