package api_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/store"
)

var update = flag.Bool("update", false, "write openapi.json anew")

func TestEveryListShowsWhatTheStoreHolds(t *testing.T) {
	w := newWorld(t)
	orders := read[page[api.WorkOrder]](w.call("GET", "/v1/work-orders", ""))
	if len(orders.Items) != 3 || orders.Items[0].OrderNo != "102" || orders.Items[0].Unroutable == "" || orders.Items[2].Quantity.Value != "60.5" {
		t.Errorf("work orders %+v", orders.Items)
	}
	if x := read[page[api.WorkOrder]](w.call("GET", "/v1/work-orders?unroutable=true", "")); len(x.Items) != 1 || x.Items[0].OrderNo != "102" {
		t.Errorf("unroutable work orders %+v", x.Items)
	}
	if x := read[page[api.WorkOrder]](w.call("GET", "/v1/work-orders?search=01", "")); len(x.Items) != 1 || x.Items[0].OrderNo != "101" {
		t.Errorf("found work orders %+v", x.Items)
	}
	if x := read[page[api.Fact]](w.call("GET", "/v1/facts?kind=quality_status", "")); len(x.Items) != 1 || x.Items[0].Posting.State != "not_posted" {
		t.Errorf("quality facts %+v", x.Items)
	}
	parked := read[page[api.Fact]](w.call("GET", "/v1/postings?state=parked&code=no_stock", ""))
	if len(parked.Items) != 1 || parked.Items[0].Key != w.gone.Key.String() || parked.Items[0].Posting.NextStep == "" || parked.Items[0].Posting.Since.IsZero() {
		t.Errorf("parked postings %+v", parked.Items)
	}
	counts := read[page[api.PostingCount]](w.call("GET", "/v1/postings/counts", ""))
	if !slices.ContainsFunc(counts.Items, func(c api.PostingCount) bool {
		return c.State == "parked" && c.Code == "no_stock" && c.Count == 1 && c.Oldest != nil
	}) {
		t.Errorf("counts %+v", counts.Items)
	}
	agents := read[page[api.Agent]](w.call("GET", "/v1/agents", ""))
	if len(agents.Items) != 1 || !agents.Items[0].Connected || agents.Items[0].Pending != 3 || agents.Items[0].Sources[0].Problems[0] != "tag x" {
		t.Errorf("agents %+v", agents.Items)
	}
	if erps := read[page[api.ERP]](w.call("GET", "/v1/erps", "")); len(erps.Items) != 1 || erps.Items[0].OKAt == nil || erps.Items[0].FailedAt != nil {
		t.Errorf("ERPs %+v", erps.Items)
	}
	exceptions := read[page[api.Exception]](w.call("GET", "/v1/exceptions", ""))
	if len(exceptions.Items) != 1 || exceptions.Items[0].Item != "payload.qty" || exceptions.Items[0].Payload != `{"qty":"x"}` {
		t.Errorf("exceptions %+v", exceptions.Items)
	}
	if x := read[page[api.Aside]](w.call("GET", "/v1/asides?kind=conflict", "")); len(x.Items) != 1 || x.Items[0].Key != w.good.Key.String() {
		t.Errorf("conflicts %+v", x.Items)
	}
	if x := read[page[api.Aside]](w.call("GET", "/v1/asides?kind=unreadable", "")); len(x.Items) != 1 || string(x.Items[0].Body) != "\xff\xff" {
		t.Errorf("unreadable records %+v", x.Items)
	}
	if x := read[page[api.Alarm]](w.call("GET", "/v1/alarms", "")); len(x.Items) != 1 || x.Items[0].NextStep != "find the copy" {
		t.Errorf("alarms %+v", x.Items)
	}
}

func TestWorkOrderShowsRevisionsAndTheTimeOfEachState(t *testing.T) {
	w := newWorld(t)
	o := read[api.OrderLife](w.call("GET", "/v1/work-orders/100", ""))
	var steps []string
	for _, s := range o.Timeline {
		steps = append(steps, s.Step)
		if s.At.IsZero() || s.Origin == "" {
			t.Errorf("step %+v has no time or no origin", s)
		}
	}
	slices.Sort(steps)
	if fmt.Sprint(steps) != "[RELEASED STARTED]" || o.FloorState != "STARTED" || len(o.Revisions) != 1 || o.Components[0].Required != (api.Quantity{Value: "7.25", Unit: "KGM"}) {
		t.Errorf("work order %+v", o)
	}
	w.call("GET", "/v1/work-orders/100?erp=other", "").problem(404, `"100"`)
	w.call("GET", "/v1/work-orders/NO-SUCH", "").problem(404, `"NO-SUCH"`)
}

func TestFactIsFoundByEitherFormOfItsKeyInAnyCase(t *testing.T) {
	w := newWorld(t)
	k := w.good.Key
	for _, form := range []string{k.String(), strings.ToLower(k.String()), k.UUID(), strings.ToUpper(k.UUID())} {
		f := read[api.FactLife](w.call("GET", "/v1/facts/"+form, ""))
		if f.Key != k.String() || f.UUID != k.UUID() || f.Content["yield"] != "10.5" {
			t.Errorf("fact %+v", f)
		}
		if f.Shift != "night" || f.ShiftDate != "2026-03-01" || f.Content["scrap_reason_text"] != "burr" || f.Content["serial"] != "0042" {
			t.Errorf("fact without its shift, reason or serial: %+v", f)
		}
		for i, s := range f.Life {
			if s.At.IsZero() {
				t.Errorf("step %d %q has no time", i, s.Step)
			}
		}
		if n := len(f.Life); n < 6 || f.Life[0].Step != "occurred" {
			t.Errorf("life %+v", f.Life)
		}
	}
	w.call("GET", "/v1/facts/AAAAAAAAAAAAAAAA", "").problem(404, "AAAAAAAAAAAAAAAA")
	w.call("GET", "/v1/facts/00000000-0000-8000-8000-000000000000", "").problem(404, "00000000-0000-8000-8000-000000000000")
	for _, bad := range []string{"x", "1111111111111111", "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"} {
		w.call("GET", "/v1/facts/"+bad, "").problem(422, bad)
	}
}

func TestTallyNamesEachDifference(t *testing.T) {
	w := newWorld(t)
	v := read[api.Tally](w.call("GET", "/v1/tally?order_no=100", ""))
	if v.Balanced || len(v.Orders) != 1 {
		t.Fatalf("tally %+v", v)
	}
	found := map[string]api.TallyDifference{}
	for _, d := range v.Differences {
		found[d.Reason] = d
	}
	if d := found["open"]; d.Quantity != "2" || d.Item != "P" || d.Text == "" {
		t.Errorf("open remainder %+v in %+v", d, v.Differences)
	}
	if d := found["parked"]; d.Quantity != "1.125" || fmt.Sprint(d.Facts) != "["+w.gone.Key.String()+"]" || !strings.Contains(d.Text, "out of stock") {
		t.Errorf("parked quantity %+v in %+v", d, v.Differences)
	}
	if x := read[api.Tally](w.call("GET", "/v1/tally?plant=elsewhere", "")); !x.Balanced || len(x.Orders) != 0 {
		t.Errorf("tally of another plant %+v", x)
	}
}

func TestPagesTogetherHoldEveryRowOnce(t *testing.T) {
	w := newWorld(t)
	for _, path := range []string{"/v1/work-orders", "/v1/facts", "/v1/postings"} {
		whole := read[page[struct{ ID int64 }]](loose(w.call("GET", path, "")))
		for _, limit := range []int{1, 2, len(whole.Items), len(whole.Items) + 1} {
			var got []struct{ ID int64 }
			next, pages := int64(0), 0
			for more := true; more; more = next != 0 {
				p := read[page[struct{ ID int64 }]](loose(w.call("GET", fmt.Sprintf("%s?limit=%d&before=%d", path, limit, next), "")))
				if len(p.Items) == 0 || len(p.Items) > limit {
					t.Fatalf("%s: a page of %d with limit %d", path, len(p.Items), limit)
				}
				got, next, pages = append(got, p.Items...), p.Next, pages+1
			}
			if !slices.Equal(got, whole.Items) || pages != (len(got)+limit-1)/limit {
				t.Errorf("%s by %d: %v in %d pages, want %v", path, limit, got, pages, whole.Items)
			}
		}
	}
	for _, bad := range []string{"limit=0", "limit=501", "limit=x", "before=x", "state=melted"} {
		name, _, _ := strings.Cut(bad, "=")
		w.call("GET", "/v1/postings?"+bad, "").problem(422, name)
	}
}

// loose keeps only the ids of a list.
func loose(a answer) answer {
	var v struct {
		Items []struct {
			ID int64 `json:"id"`
		} `json:"items"`
		Next int64 `json:"next"`
	}
	if err := json.Unmarshal(a.body, &v); err != nil {
		a.t.Fatalf("%s: %v\n%s", a.what, err, a.body)
	}
	a.body, _ = json.Marshal(v)
	return a
}

func TestReplayOfEverythingMustBeMeantAndCanBeCountedFirst(t *testing.T) {
	w := newWorld(t)
	w.call("POST", "/v1/postings/replay", `{}`).problem(422, "choose what to replay", "all: true")
	w.call("POST", "/v1/postings/replay", `{"state":"parked"}`).problem(422, "choose what to replay")
	w.call("POST", "/v1/postings/replay", `{"key":"`+w.gone.Key.String()+`","all":true}`).problem(422, "leave out")
	parked, err := w.s.CountPostings(t.Context(), store.PostingFilter{State: store.PostingParked})
	if err != nil || parked < 2 {
		t.Fatalf("%d postings are parked, %v", parked, err)
	}
	for body, want := range map[string]int{
		`{"all":true,"dry_run":true}`: int(parked), `{"code":"no_stock","dry_run":true}`: 1, `{"code":"no_such_code","dry_run":true}`: 0,
		`{"key":"` + w.gone.Key.String() + `","dry_run":true}`: 1, `{"key":"` + w.good.Key.String() + `","dry_run":true}`: 0,
	} {
		if n := read[api.Done](w.call("POST", "/v1/postings/replay", body)); n.Count != want || !n.DryRun {
			t.Errorf("%s gives %+v, want a dry run of %d", body, n, want)
		}
	}
	if n, err := w.s.CountPostings(t.Context(), store.PostingFilter{State: store.PostingParked}); err != nil || n != parked {
		t.Errorf("after dry runs %d postings are parked, %v; want %d", n, err, parked)
	}
	if n := read[api.Done](w.call("POST", "/v1/postings/replay", `{"all":true}`)); n.Count != int(parked) || n.DryRun {
		t.Errorf("all: %+v, want %d", n, parked)
	}
}

func TestERPsShowHowTheTalkAboutPostingsGoes(t *testing.T) {
	w := newWorld(t)
	since := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	w.handler = api.New(w.s, poster{w.engine}, api.Options{Now: time.Now, Health: func() map[string]api.ERPHealth {
		return map[string]api.ERPHealth{"books2": {Since: since, Reason: "connection refused", PausedUntil: since.Add(time.Minute)}}
	}})
	var found *api.ERPPosting
	for _, e := range read[struct{ Items []api.ERP }](w.call("GET", "/v1/erps", "")).Items {
		if e.Name == "books2" { // though nothing was read of it yet
			found = e.Posting
		}
	}
	if found == nil || found.OK || found.Reason != "connection refused" || found.PausedUntil == nil || !found.Since.Equal(since) {
		t.Errorf("posting is %+v", found)
	}
	w.call("GET", "/metrics", "").wants(200, `linekeeper_erp_posting_up{erp="books2"} 0`)
}

func TestReplayTakesUpOnlyWhatIsParked(t *testing.T) {
	w := newWorld(t)
	key := w.gone.Key.String()
	w.call("POST", "/v1/postings/replay", `{"key":"`+w.good.Key.String()+`"}`).problem(409, w.good.Key.String(), "verified")
	w.call("POST", "/v1/postings/replay", `{"key":"AAAAAAAAAAAAAAAA"}`).problem(404, "AAAAAAAAAAAAAAAA")
	w.call("POST", "/v1/postings/replay", `{"key":"zz"}`).problem(422, `"zz"`)
	w.call("POST", "/v1/postings/replay", `{"kee":"zz"}`).problem(422, "kee")
	w.call("POST", "/v1/postings/replay", `{"state":"melted"}`).problem(422, "state")
	w.call("POST", "/v1/postings/replay", `{`).wants(400)
	if n := read[api.Done](w.call("POST", "/v1/postings/replay", `{"code":"no_such_code"}`)); n.Count != 0 {
		t.Errorf("%d postings with an unknown code", n.Count)
	}
	close(w.erp.stock)
	if n := read[api.Done](w.call("POST", "/v1/postings/replay", `{"code":"no_stock","erp":"erp"}`)); n.Count != 1 {
		t.Errorf("%d postings were taken up, want 1", n.Count)
	}
	w.becomes(w.gone, "verified")
	f := read[api.FactLife](w.call("GET", "/v1/facts/"+key, ""))
	if !slices.ContainsFunc(f.Life, func(s api.LifeStep) bool { return s.Step == "replayed" && s.By == "local" }) {
		t.Errorf("the life does not say who replayed: %+v", f.Life)
	}
}

func TestPersonsDecisionIsWrittenDownWithItsReason(t *testing.T) {
	w := newWorld(t)
	key := w.gone.Key.String()
	path := "/v1/postings/" + key + "/accept"
	w.call("POST", path, `{"note":""}`).problem(422, "note")
	w.call("POST", path, `{}`).problem(422, "note")
	w.call("POST", "/v1/postings/zz/accept", `{"note":"by hand"}`).problem(422, "zz")
	w.call("POST", "/v1/postings/zz/post-again", `{"note":"by hand"}`).problem(422, "zz")
	w.call("POST", "/v1/postings/zz/approve", `{"note":"year end"}`).problem(422, "zz")
	w.call("POST", "/v1/postings/"+w.good.Key.String()+"/approve", `{"note":"year end","posting_date":"tomorrow"}`).problem(422, "posting_date")
	w.call("POST", "/v1/postings/"+w.good.Key.String()+"/approve", `{"note":"year end","posting_date":"2026-11-01"}`).problem(409, w.good.Key.String())
	w.call("POST", "/v1/postings/AAAAAAAAAAAAAAAA/accept", `{"note":"by hand"}`).problem(404, "AAAAAAAAAAAAAAAA")
	w.call("POST", "/v1/postings/"+w.good.Key.String()+"/post-again", `{"note":"I looked"}`).problem(409, w.good.Key.String())
	read[api.Done](w.call("POST", path, `{"note":"booked by hand","document":"4711"}`))
	f := read[api.FactLife](w.call("GET", "/v1/facts/"+w.gone.Key.UUID(), ""))
	last := f.Life[len(f.Life)-1]
	if f.Posting.State != "settled" || f.Posting.Document != "4711" || f.Posting.Reason != "booked by hand" || last.By != "local" {
		t.Errorf("accepted posting %+v, last step %+v", f.Posting, last)
	}
	w.call("POST", path, `{"note":"once more"}`).problem(409, key)
}

func TestSettledRecordsLeaveTheListsAndStayInTheBooks(t *testing.T) {
	w := newWorld(t)
	for _, x := range []struct{ list, settle string }{
		{"/v1/alarms?", "/v1/alarms/%d/close"},
		{"/v1/exceptions?", "/v1/exceptions/%d/close"},
		{"/v1/asides?kind=conflict&", "/v1/asides/conflict/%d/close"},
		{"/v1/asides?kind=unreadable&", "/v1/asides/unreadable/%d/close"},
	} {
		before := read[page[struct{ ID int64 }]](loose(w.call("GET", x.list, "")))
		path := fmt.Sprintf(x.settle, before.Items[0].ID)
		w.call("POST", path, `{"note":"x"}`).problem(422, "note")
		w.call("POST", fmt.Sprintf(x.settle, 999), `{"note":"seen to"}`).problem(404, "999")
		read[api.Done](w.call("POST", path, `{"note":"seen to"}`))
		w.call("POST", path, `{"note":"seen to"}`).problem(404, fmt.Sprint(before.Items[0].ID))
		if open := read[page[struct{ ID int64 }]](loose(w.call("GET", x.list, ""))); len(open.Items) != 0 {
			t.Errorf("%s: still open: %v", path, open)
		}
		if all := read[page[struct{ ID int64 }]](loose(w.call("GET", x.list+"closed=true", ""))); len(all.Items) != 1 {
			t.Errorf("%s: gone: %v", path, all)
		}
	}
	w.call("GET", "/v1/exceptions?closed=true", "").wants(200, "seen to (local)")
	w.call("GET", "/v1/asides?kind=nonsense", "").problem(422, "kind")
	w.call("GET", "/v1/asides", "").problem(422, "kind")
}

func TestRecordThatStillCannotBeReadSaysWhy(t *testing.T) {
	w := newWorld(t)
	w.call("POST", "/v1/asides/unreadable/1/replay", "").problem(409, "still cannot be read", "decode fact")
	w.call("POST", "/v1/asides/unreadable/77/replay", "").problem(404, "77")
}

func TestWithoutTokensOnlyThisMachineIsServed(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"localhost", "localhost:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:8080", "[::1]"} {
		w.call("GET", "/v1/agents", "", host(name)).wants(200)
	}
	// A name of somebody else's that leads to this machine: DNS rebinding.
	for _, name := range []string{"evil.example", "evil.example:8080", "192.168.1.5:8080", "localhost.evil.example", ""} {
		w.call("GET", "/v1/agents", "", host(name)).problem(403, "synchub token")
		w.call("GET", "/metrics", "", host(name)).problem(403)
		w.call("GET", "/healthz", "", host(name)).wants(200)
	}
}

func TestTokenDecidesWhatACallerMayDo(t *testing.T) {
	w := newWorld(t, token("dashboard", reader, false), token("planner", writer, true))
	bearer := func(s string) func(*http.Request) { return header("Authorization", "Bearer "+s) }
	basic := func(s string) func(*http.Request) { return func(r *http.Request) { r.SetBasicAuth("anybody", s) } }
	elsewhere := host("hub.example.com")
	for _, set := range []func(*http.Request){bearer(reader), basic(reader), bearer(writer), header("Authorization", "bearer "+reader)} {
		w.call("GET", "/v1/agents", "", set, elsewhere).wants(200)
		w.call("GET", "/metrics", "", set, elsewhere).wants(200)
	}
	for _, set := range []func(*http.Request){bearer("wrong"), basic("wrong"), bearer(""), header("Authorization", "Bearer"), header("X", "y"), header("Authorization", "Digest x")} {
		for _, path := range []string{"/v1/agents", "/metrics", "/openapi.json", "/v1/no-such-thing"} {
			a := w.call("GET", path, "", set)
			a.problem(401, "token")
			if !strings.HasPrefix(a.head.Get("WWW-Authenticate"), "Basic ") {
				t.Errorf("no browser would ask for the token: %v", a.head)
			}
		}
	}
	replay := `{"key":"` + w.gone.Key.String() + `"}`
	w.call("POST", "/v1/postings/replay", replay, bearer(reader)).problem(403, "dashboard", "read only")
	w.call("POST", "/v1/postings/replay", replay).problem(401)
	w.call("POST", "/v1/postings/replay", replay, basic(writer)).wants(200)
	f := read[api.FactLife](w.call("GET", "/v1/facts/"+w.gone.Key.String(), "", bearer(reader)))
	if !slices.ContainsFunc(f.Life, func(s api.LifeStep) bool { return s.By == "planner" }) {
		t.Errorf("the life does not name the token: %+v", f.Life)
	}
	for _, path := range []string{"/healthz", "/readyz"} {
		w.call("GET", path, "", elsewhere).wants(200)
	}
}

func TestPageOfAnotherSiteCannotWrite(t *testing.T) {
	w := newWorld(t)
	for _, set := range []func(*http.Request){header("Sec-Fetch-Site", "cross-site"), header("Sec-Fetch-Site", "same-site"), header("Origin", "https://evil.example")} {
		w.call("POST", "/v1/postings/replay", `{}`, set).problem(403, "another site")
	}
	if f := read[api.FactLife](w.call("GET", "/v1/facts/"+w.gone.Key.String(), "")); f.Posting.State != "parked" {
		t.Errorf("posting is %s", f.Posting.State)
	}
	w.call("POST", "/v1/postings/replay", `{"code":"none"}`, header("Sec-Fetch-Site", "same-origin"), header("Origin", "http://localhost:8080")).wants(200)
}

func TestWhatIsNotThereIsAProblemDocument(t *testing.T) {
	w := newWorld(t)
	w.call("GET", "/v1/nothing", "").problem(404, "GET /v1/nothing", "openapi.json")
	w.call("DELETE", "/v1/facts/"+w.good.Key.String(), "").problem(404, "DELETE")
}

// Nothing under /v1 may carry a quantity as a JSON number, or a link to a schema.
func TestQuantitiesAreTextEverywhere(t *testing.T) {
	w := newWorld(t)
	number := regexp.MustCompile(`"(value|counted|stored|received|posted|not_posted|missing|doubled|yield|scrap|rework|quantity|from|to)":\s*-?[0-9]`)
	paths := []string{
		"/v1/work-orders", "/v1/work-orders/100", "/v1/facts", "/v1/postings", "/v1/tally", "/v1/agents", "/v1/erps", "/v1/exceptions", "/v1/alarms",
		"/v1/asides?kind=conflict", "/v1/asides?kind=unreadable", "/v1/postings/counts", "/v1/facts/" + w.good.Key.String(), "/v1/facts/" + w.gone.Key.String(),
	}
	for _, path := range paths {
		a := w.call("GET", path, "").wants(200)
		if m := number.Find(a.body); m != nil {
			t.Errorf("%s: %s", a.what, m)
		}
		for _, bad := range []string{"$schema", `"items":null`, "null"} {
			if bytes.Contains(a.body, []byte(bad)) {
				t.Errorf("%s: %s in %s", a.what, bad, a.body)
			}
		}
		if a.head.Get("Link") != "" || a.head.Get("Content-Type") != "application/json" {
			t.Errorf("%s: headers %v", a.what, a.head)
		}
	}
	for _, want := range []string{`"yield":"10.5"`, `"scrap":"0.25"`, `"to":"10.75"`} {
		w.call("GET", "/v1/facts/"+w.good.Key.String(), "").wants(200, want)
	}
	w.call("GET", "/v1/facts/"+w.gone.Key.String(), "").wants(200, `"quantity":{"value":"1.125","unit":"KGM"}`)
}

func TestOpenAPIDocumentIsFreshAndListsEveryRoute(t *testing.T) {
	w := newWorld(t)
	a := w.call("GET", "/openapi.json", "").wants(200)
	var doc struct {
		OpenAPI string
		Paths   map[string]map[string]struct{ Summary, OperationID string }
	}
	if err := json.Unmarshal(a.body, &doc); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(doc.OpenAPI, "3.1") {
		t.Errorf("OpenAPI %q", doc.OpenAPI)
	}
	for _, want := range []string{
		"get /v1/work-orders", "get /v1/work-orders/{order_no}", "get /v1/facts", "get /v1/facts/{key}", "get /v1/postings", "get /v1/postings/counts",
		"get /v1/tally", "get /v1/agents", "get /v1/erps", "get /v1/exceptions", "get /v1/asides", "get /v1/alarms", "post /v1/postings/replay",
		"post /v1/postings/{key}/accept", "post /v1/postings/{key}/post-again", "post /v1/postings/{key}/approve", "post /v1/asides/unreadable/{id}/replay", "post /v1/asides/{kind}/{id}/close",
		"post /v1/exceptions/{id}/close", "post /v1/alarms/{id}/close",
	} {
		method, path, _ := strings.Cut(want, " ")
		if op, ok := doc.Paths[path][method]; !ok || op.Summary == "" {
			t.Errorf("%s is not in the document", want)
		}
	}
	var pretty bytes.Buffer
	if err := json.Indent(&pretty, a.body, "", " "); err != nil {
		t.Fatal(err)
	}
	pretty.WriteByte('\n')
	const file = "openapi.json"
	if *update {
		if err := os.WriteFile(file, pretty.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	old, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(old, pretty.Bytes()) {
		t.Errorf("%s is stale: go generate ./hub/api", file)
	}
	w.call("GET", "/openapi.yaml", "").wants(200, "openapi: 3.1")
}

func TestMetricsCanBeReadByPrometheus(t *testing.T) {
	w := newWorld(t)
	a := w.call("GET", "/metrics", "").wants(200)
	parser := expfmt.NewTextParser(model.UTF8Validation)
	families, err := parser.TextToMetricFamilies(bytes.NewReader(a.body))
	if err != nil {
		t.Fatalf("%v\n%s", err, a.body)
	}
	for name, value := range map[string]float64{
		"linekeeper_agent_connected": 1, "linekeeper_agent_pending_facts": 3, "linekeeper_erp_up": 1, "linekeeper_hub_info": 1, "linekeeper_open_alarms": 1,
	} {
		f := families[name]
		if f == nil || f.Metric[0].GetGauge().GetValue() != value {
			t.Errorf("%s is %v, want %v", name, f, value)
		}
	}
	for _, name := range []string{"linekeeper_postings", "linekeeper_posting_oldest_seconds", "linekeeper_agent_status_age_seconds"} {
		if families[name] == nil {
			t.Errorf("no %s in\n%s", name, a.body)
		}
	}
	for _, label := range []string{`order=`, `order_no=`, `item=`} {
		if bytes.Contains(a.body, []byte(label)) {
			t.Errorf("metrics carry %s as a label", label)
		}
	}
}

func TestHubWithoutItsStoreIsNotReadyButAlive(t *testing.T) {
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "hub.db"), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	w := &world{t: t, handler: api.New(s, nil, api.Options{Now: time.Now})}
	w.call("GET", "/readyz", "").wants(200)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	w.call("GET", "/readyz", "").wants(503, "store does not answer")
	w.call("GET", "/healthz", "").wants(200)
	w.call("GET", "/v1/agents", "").problem(500, "list of agents")
}
