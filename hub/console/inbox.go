package console

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/linekeeper/linekeeper/hub/api"
)

// The inbox: everything that a person must see to, whose it is, what it is worth, and what may be done about it.

func (c *console) inboxRoutes(mux *http.ServeMux) {
	mux.Handle("GET /inbox", c.page("inbox", c.inbox))
	mux.Handle("GET /inbox/{ref}", c.page("entry", c.entry))
	mux.Handle("POST /inbox/{ref}", secure(http.HandlerFunc(c.assignEntry)))
	mux.Handle("GET /facts/{key}/evidence", c.page("evidence", c.evidence))
	mux.Handle("POST /facts/{key}/evidence", secure(http.HandlerFunc(c.correctOrReverse)))
	mux.Handle("GET /messages", c.page("messages", c.messages))
	mux.Handle("GET /replays", c.page("replays", c.replays))
	mux.Handle("POST /replays", secure(http.HandlerFunc(c.beginReplay)))
	mux.Handle("POST /replays/{id}/cancel", secure(http.HandlerFunc(c.cancelReplay)))
}

type inboxList struct {
	Items []api.InboxEntry
	Next  string
}

// roles are those that an exception can belong to.
var roles = []string{"production", "controlling", "planning", "warehouse", "quality", "master data", "automation"}

func (c *console) inbox(r *http.Request) (view, error) {
	q := url.Values{}
	for _, k := range []string{"kind", "plant", "order_no", "code", "owner", "person", "late", "after"} {
		if v := r.URL.Query().Get(k); v != "" {
			q.Set(k, v)
		}
	}
	var l inboxList
	var heals api.HealCounts
	if err := c.ask(r, http.MethodGet, "/v1/inbox?"+q.Encode(), nil, &l); err != nil {
		return view{}, err
	}
	err := c.ask(r, http.MethodGet, "/v1/heals", nil, &heals)
	more := ""
	if l.Next != "" {
		q.Set("after", l.Next)
		more = "/inbox?" + q.Encode()
	}
	return view{Title: "Inbox", Refresh: 10, Data: map[string]any{
		"List": l.Items, "More": more, "Heals": heals, "Roles": roles, "Owner": q.Get("owner"), "Person": q.Get("person"), "Late": q.Get("late") != "", "Filtered": len(q) > 0,
	}}, err
}

// entry shows one exception with its evidence. It is not renewed by itself: somebody may be writing into its forms.
func (c *console) entry(r *http.Request) (view, error) {
	var e api.InboxEntryLife
	err := c.ask(r, http.MethodGet, "/v1/inbox/"+url.PathEscape(r.PathValue("ref")), nil, &e)
	data := map[string]any{"E": e, "Roles": roles}
	if err == nil && e.Kind == "posting" {
		var proof api.Evidence
		err = c.ask(r, http.MethodGet, "/v1/facts/"+url.PathEscape(e.Fact)+"/evidence", nil, &proof)
		data["Proof"] = proof
	}
	if err == nil && e.Kind == "write" {
		var w api.WriteLife
		err = c.ask(r, http.MethodGet, "/v1/writes/"+url.PathEscape(e.Write), nil, &w)
		data["Write"] = w
	}
	if _, id, ok := strings.Cut(e.Ref, ":"); ok && settleable[e.Kind] != "" {
		data["Settle"] = "/settle?" + url.Values{"kind": {e.Kind}, "id": {id}}.Encode()
	}
	return view{Title: "Inbox: " + r.PathValue("ref"), Data: data}, err
}

func (c *console) assignEntry(w http.ResponseWriter, r *http.Request) {
	page := "/inbox/" + url.PathEscape(r.PathValue("ref"))
	c.done(w, r, "/v1"+page+"/assign", map[string]string{"owner": r.PostFormValue("owner"), "person": r.PostFormValue("person"), "note": r.PostFormValue("note")}, page)
}

func (c *console) evidence(r *http.Request) (view, error) {
	var proof api.Evidence
	err := c.ask(r, http.MethodGet, "/v1/facts/"+url.PathEscape(r.PathValue("key"))+"/evidence", nil, &proof)
	return view{Title: "Evidence of fact " + proof.Fact.Key, Data: proof}, err
}

func (c *console) correctOrReverse(w http.ResponseWriter, r *http.Request) {
	key := url.PathEscape(r.PathValue("key"))
	body := map[string]string{"note": r.PostFormValue("note")}
	switch r.PostFormValue("action") {
	case "correct":
		for _, k := range []string{"order_no", "item", "lot", "posting_date"} {
			body[k] = strings.TrimSpace(r.PostFormValue(k))
		}
		c.done(w, r, "/v1/postings/"+key+"/correct", body, "/facts/"+key)
	case "reverse":
		c.done(w, r, "/v1/postings/"+key+"/reverse", body, "/facts/"+key)
	default:
		c.fail(w, &refused{code: http.StatusBadRequest, detail: "choose whether the posting is corrected or taken back"})
	}
}

// messages shows what receivers were told, and what did not arrive.
func (c *console) messages(r *http.Request) (view, error) {
	l, older, err := listed[api.Message](c, r, "/v1/messages", "state", "receiver")
	return view{Title: "Messages", Refresh: 10, Data: map[string]any{"List": l.Items, "State": r.URL.Query().Get("state"), "More": older}}, err
}

func (c *console) replays(r *http.Request) (view, error) {
	var l list[api.BulkReplay]
	err := c.ask(r, http.MethodGet, "/v1/replays?limit=50", nil, &l)
	return view{Title: "Replays", Data: map[string]any{"List": l.Items, "Code": r.URL.Query().Get("code"), "ERP": r.URL.Query().Get("erp")}}, err
}

// beginReplay begins a replay, or shows what it would take.
func (c *console) beginReplay(w http.ResponseWriter, r *http.Request) {
	body := map[string]any{"note": r.PostFormValue("note")}
	for _, k := range []string{"code", "erp", "plant", "order_no"} {
		if v := strings.TrimSpace(r.PostFormValue(k)); v != "" {
			body[k] = v
		}
	}
	if rate := r.PostFormValue("per_minute"); rate != "" {
		n, err := strconv.Atoi(rate)
		if err != nil {
			c.fail(w, &refused{code: http.StatusBadRequest, detail: fmt.Sprintf("%q is no number of postings a minute", rate)})
			return
		}
		body["per_minute"] = n
	}
	dry := r.PostFormValue("action") == "count"
	body["dry_run"] = dry
	var out api.BulkReplay
	if err := c.ask(r, http.MethodPost, "/v1/replays", body, &out); err != nil {
		c.fail(w, err)
		return
	}
	if !dry {
		http.Redirect(w, r, "/replays", http.StatusSeeOther)
		return
	}
	var l list[api.BulkReplay]
	if err := c.ask(r, http.MethodGet, "/v1/replays?limit=50", nil, &l); err != nil {
		c.fail(w, err)
		return
	}
	c.show(w, "replays", http.StatusOK, view{Title: "Replays", Active: "replays", Data: map[string]any{"List": l.Items, "Dry": out, "Code": out.Filter.Code, "ERP": out.Filter.ERP,
		"Plant": out.Filter.Plant, "OrderNo": out.Filter.OrderNo, "Rate": out.PerMinute, "Note": r.PostFormValue("note")}})
}

func (c *console) cancelReplay(w http.ResponseWriter, r *http.Request) {
	c.done(w, r, "/v1/replays/"+url.PathEscape(r.PathValue("id"))+"/cancel", map[string]string{"note": r.PostFormValue("note")}, "/replays")
}
