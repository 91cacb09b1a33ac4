package api_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/reconcile"
)

type inboxPage struct {
	Items []api.InboxEntry
	Next  string
}

// withPolicy serves the same world with prices and times.
func (w *world) withPolicy(change func(*reconcile.Policy)) {
	p := reconcile.DefaultPolicy()
	change(&p)
	w.handler = api.New(w.s, poster{w.engine}, api.Options{Version: "test", Tokens: w.tokens, Now: time.Now, Policy: p, Currency: "EUR"})
}

func (w *world) discrepancy(f reconcile.Finding) int64 {
	w.t.Helper()
	changes, err := w.s.MergeDiscrepancies(w.t.Context(), f.Plant, f.ERP, f.OrderNo, []reconcile.Finding{f}, reconcile.DefaultPolicy())
	if err != nil || len(changes) != 1 {
		w.t.Fatal(changes, err)
	}
	return changes[0].ID
}

func find(t *testing.T, all []api.InboxEntry, kind, code string) api.InboxEntry {
	t.Helper()
	i := slices.IndexFunc(all, func(e api.InboxEntry) bool { return e.Kind == kind && (code == "" || e.Code == code) })
	if i < 0 {
		t.Fatalf("no %s %s in %+v", kind, code, all)
	}
	return all[i]
}

func TestTheInboxIsOneListOfEverythingThatAPersonMustSeeTo(t *testing.T) {
	w := newWorld(t)
	w.withPolicy(func(p *reconcile.Policy) {
		p.Prices = map[string]decimal.Decimal{"GONE": decimal.RequireFromString("2.50"), "P": decimal.NewFromInt(3)}
	})
	loose := reconcile.Finding{Type: reconcile.BalanceDrift, Subject: "stock erp/1000 item P lot ", Plant: "ulm", ERP: "erp", OrderNo: "100", Severity: reconcile.High, Owner: reconcile.Warehouse, Escalate: true,
		Left: reconcile.Side{Name: "movements", Value: "10"}, Right: reconcile.Side{Name: "erp", Value: "7"}, Delta: decimal.NewFromInt(-3), Item: "P", Unit: "C62", Why: "nothing explains it",
		Proposed: reconcile.Action{Kind: reconcile.Ask, Text: "count the stock"}}
	id := w.discrepancy(loose)
	same := reconcile.Finding{Type: reconcile.Deficit, Subject: "fact " + w.gone.Key.String(), Facts: []string{w.gone.Key.String()}, Plant: "ulm", ERP: "erp2", OrderNo: "100", Severity: reconcile.Medium,
		Owner: reconcile.Warehouse, Proposed: reconcile.Action{Kind: reconcile.Ask, Text: "wait for the receipt"}, Escalate: true}
	w.discrepancy(same)

	all := read[inboxPage](w.call("GET", "/v1/inbox", "")).Items
	kinds := map[string]int{}
	for i, e := range all {
		kinds[e.Kind]++
		if e.What == "" || e.Owner == "" || e.Severity == "" || e.Proposed == "" || e.Due.IsZero() || e.Since.IsZero() || e.Money == "" || e.Money == "0" {
			t.Errorf("%+v", e)
		}
		if i > 0 && e.Since.Before(all[i-1].Since) {
			t.Errorf("%s is older than the one before it", e.Ref)
		}
	}
	if want := map[string]int{"posting": 2, "discrepancy": 1, "exception": 1, "conflict": 1, "unreadable": 1, "alarm": 1}; fmt.Sprint(kinds) != fmt.Sprint(want) {
		t.Errorf("%v, want %v", kinds, want)
	}
	gone := find(t, all, "posting", "no_stock")
	if gone.Fact != w.gone.Key.String() || gone.Money != "2.8125" || gone.Currency != "EUR" || len(gone.Stock) != 1 || gone.Stock[0].Quantity != "1.125" || gone.Discrepancy == 0 || gone.Proposed != "wait for the receipt" {
		t.Errorf("%+v", gone)
	}
	if d := find(t, all, "discrepancy", ""); d.Money != "9" || d.Owner != "warehouse" || d.Discrepancy != id || d.Tier != 1 {
		t.Errorf("%+v", d)
	}
	if e := find(t, all, "exception", ""); e.Money != "unknown" || e.Currency != "" || e.Owner != "automation" {
		t.Errorf("%+v", e)
	}
	// Pages and filters show the same rows.
	var paged []string
	for after := ""; ; {
		p := read[inboxPage](w.call("GET", "/v1/inbox?limit=2&after="+after, ""))
		for _, e := range p.Items {
			paged = append(paged, e.Ref)
		}
		if after = p.Next; after == "" {
			break
		}
	}
	if len(paged) != len(all) || len(slices.Compact(slices.Sorted(slices.Values(paged)))) != len(all) {
		t.Errorf("%v in pages, want %d", paged, len(all))
	}
	for query, want := range map[string]int{"owner=warehouse": 1, "kind=alarm": 1, "order_no=999": 1, "code=no_stock": 1, "late=true": 1, "person=anna": 0, "plant=nowhere": 0} {
		if got := read[inboxPage](w.call("GET", "/v1/inbox?"+query, "")).Items; len(got) != want {
			t.Errorf("%s: %d, want %d: %+v", query, len(got), want, got)
		}
	}
	w.call("GET", "/v1/inbox?after=x", "").problem(422, "after")
	w.call("GET", "/v1/inbox/posting:0", "").problem(422, "posting:0")
	w.call("GET", "/v1/inbox/alarm:999", "").problem(404, "alarm:999")
	w.call("POST", "/v1/inbox/alarm:1/assign", `{"note":"nobody"}`).problem(422, "person")
	for _, e := range all {
		read[api.Done](w.call("POST", "/v1/inbox/"+e.Ref+"/assign", `{"person":"anna","owner":"quality","note":"hers"}`))
		life := read[api.InboxEntryLife](w.call("GET", "/v1/inbox/"+e.Ref, ""))
		if life.Person != "anna" || life.Owner != "quality" || !slices.ContainsFunc(life.Steps, func(s api.LifeStep) bool {
			return s.Step == "given to quality anna" && s.By == "local" && s.Reason == "hers"
		}) {
			t.Errorf("%+v", life)
		}
	}
	if got := read[inboxPage](w.call("GET", "/v1/inbox?person=anna", "")).Items; len(got) != len(all) {
		t.Errorf("anna has %d of %d", len(got), len(all))
	}
	if life := read[api.InboxEntryLife](w.call("GET", "/v1/inbox/"+find(t, all, "exception", "").Ref, "")); life.Payload != `{"qty":"x"}` {
		t.Errorf("%+v", life)
	}
}

func TestAParkedPostingIsCorrectedThroughTheAPI(t *testing.T) {
	w := newWorld(t)
	close(w.erp.stock)
	path := "/v1/postings/" + w.unknown.Key.String() + "/correct"
	w.call("POST", path, `{"note":"nothing"}`).problem(409, "nothing would change")
	w.call("POST", path, `{"order_no":"777","note":"try"}`).problem(409, "777", "not known")
	w.call("POST", path, `{"order_no":"101"}`).problem(422, "note")
	w.call("POST", "/v1/postings/KEY/correct", `{"order_no":"101","note":"try"}`).problem(422)
	read[api.Done](w.call("POST", path, `{"order_no":"101","lot":"L9","note":"the terminal was wrong"}`))
	w.becomes(w.unknown, "verified")
	f, err := w.s.FactByKey(t.Context(), w.unknown.Key.String())
	if err != nil || f.Posting.OrderNo != "101" || f.Fact.OrderNo() != "999" {
		t.Errorf("%+v %v", f.Posting, err)
	}
	life := w.call("GET", "/v1/facts/"+w.unknown.Key.String(), "")
	life.wants(http.StatusOK, "corrected", `order \"101\" instead of \"999\"`, "the terminal was wrong", "local")
	w.call("POST", "/v1/postings/"+w.unknown.Key.String()+"/reverse", `{"note":"wrong after all"}`).problem(409, "by hand")
}

func TestABulkReplayIsCountedFirstAndCanBeCancelled(t *testing.T) {
	w := newWorld(t)
	w.call("POST", "/v1/replays", `{"note":"all of it"}`).problem(422, "choose")
	w.call("POST", "/v1/replays", `{"code":"no_stock","per_minute":0,"note":"too slow"}`).problem(422)
	dry := read[api.BulkReplay](w.call("POST", "/v1/replays", `{"code":"no_stock","dry_run":true,"note":"look first"}`))
	if dry.State != "dry_run" || dry.Total != 1 || dry.ID != 0 || len(dry.Examples) != 1 || dry.Examples[0] != w.gone.Key.String() {
		t.Errorf("%+v", dry)
	}
	r := read[api.BulkReplay](w.call("POST", "/v1/replays", `{"code":"no_stock","per_minute":6,"note":"stock came"}`))
	if r.State != "running" || r.Total != 1 || r.By != "local" || r.PerMinute != 6 || r.Filter.Code != "no_stock" {
		t.Errorf("%+v", r)
	}
	read[api.Done](w.call("POST", fmt.Sprintf("/v1/replays/%d/cancel", r.ID), `{"note":"not yet"}`))
	w.call("POST", fmt.Sprintf("/v1/replays/%d/cancel", r.ID), `{"note":"again"}`).problem(404, "replay")
	list := read[page[api.BulkReplay]](w.call("GET", "/v1/replays", ""))
	if len(list.Items) != 1 || list.Items[0].State != "cancelled" || !strings.Contains(list.Items[0].Reason, "not yet") || list.Items[0].EndedAt == nil {
		t.Errorf("%+v", list.Items)
	}
	if running, err := w.s.RunningReplays(t.Context()); err != nil || len(running) != 0 {
		t.Errorf("%+v %v", running, err)
	}
	if n := read[api.HealCounts](w.call("GET", "/v1/heals", "")); n != (api.HealCounts{Share: "0"}) {
		t.Errorf("%+v", n)
	}
}
