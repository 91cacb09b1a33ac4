package checking_test

import (
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/connector/sandbox/erp"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
)

func (p *plant) call(method, path, body string, code int) []byte {
	p.t.Helper()
	h := api.New(p.s, nil, api.Options{Now: time.Now, Reconciler: p.check})
	req := httptest.NewRequestWithContext(p.t.Context(), method, path, strings.NewReader(body))
	req.Host = "localhost"
	req.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	if w.Code != code {
		p.t.Fatalf("%s %s: %d %s", method, path, w.Code, w.Body)
	}
	return w.Body.Bytes()
}

// statement reads the rows of a statement by their columns.
func (p *plant) statement(query string) (all []map[string]string) {
	p.t.Helper()
	for line := range strings.Lines(string(p.call("GET", "/v1/reconciliations/statement?format=json&"+query, "", http.StatusOK))) {
		row := map[string]string{}
		if err := json.Unmarshal([]byte(line), &row); err != nil {
			p.t.Fatal(err)
		}
		all = append(all, row)
	}
	return all
}

// An auditor starts at a sum and comes to each counter range and document, and a person decides about what differs.
func TestTheStatementLeadsFromTheSumToTheCounterRangeAndTheDocument(t *testing.T) {
	p := newPlant(t)
	p.produce(3)
	no := p.orders[0]
	rows, err := csv.NewReader(strings.NewReader(string(p.call("GET", "/v1/reconciliations/statement?plant=ulm&order_no="+no, "", http.StatusOK)))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	column := map[string]int{}
	for i, name := range rows[0] {
		column[name] = i
	}
	sums, facts := 0, 0
	for _, row := range rows[1:] {
		if row[column["agrees"]] != "true" {
			t.Errorf("%v", row)
		}
		switch row[column["level"]] {
		case "sum":
			sums++
		case "fact":
			facts++
			if row[column["documents"]] == "" || row[column["kind"]] == "yield" && !strings.Contains(row[column["counter"]], "good "+no+" epoch 1 (") {
				t.Errorf("%v", row)
			}
		}
	}
	if sums != 2 || facts != 6 || column["held_by_erp"] == 0 {
		t.Errorf("%d sums, %d facts", sums, facts)
	}
	lines := p.call("GET", "/v1/reconciliations/statement?format=json", "", http.StatusOK)
	if n := strings.Count(string(lines), "\n"); n != 4*(2+2+6) { // sums, their parts, facts
		t.Errorf("%d lines of JSON", n)
	}
}

func TestAPersonDecidesAboutADiscrepancy(t *testing.T) {
	p := newPlant(t)
	p.produce(1)
	f := p.facts[0]
	// Two alike, one without a key: nobody but a person can tell.
	if _, err := p.erp.Post(t.Context(), erp.Request{Kind: erp.KindConfirmation, OrderNo: f.OrderNo(), Operation: "0010", Item: "BRACKET-10", Unit: "C62", Yield: f.Confirmation.Yield}); err != nil {
		t.Fatal(err)
	}
	var run api.Reconciliation
	if err := json.Unmarshal(p.call("POST", "/v1/reconciliations", `{"plant":"ulm"}`, http.StatusOK), &run); err != nil || run.Found != 1 || run.Begun != 0 {
		t.Fatalf("%+v %v", run, err)
	}
	var list struct{ Items []api.Discrepancy }
	if err := json.Unmarshal(p.call("GET", "/v1/discrepancies?live=true", "", http.StatusOK), &list); err != nil || len(list.Items) != 1 {
		t.Fatalf("%+v %v", list, err)
	}
	d := list.Items[0]
	if d.Type != string(reconcile.Duplicate) || d.State != "ESCALATED" || len(d.Evidence) != 2 || d.Proposed.Document == "" {
		t.Errorf("%+v", d)
	}
	path := fmt.Sprintf("/v1/discrepancies/%d", d.ID)
	p.call("POST", path+"/assign", `{"person":"anna"}`, http.StatusOK)
	p.call("POST", path+"/accept", `{"note":"a second batch of the same size"}`, http.StatusOK)
	p.call("POST", path+"/accept", `{"note":"once more"}`, http.StatusConflict)
	p.call("POST", "/v1/discrepancies/999/accept", `{"note":"unknown"}`, http.StatusNotFound)
	if run := p.all(); run.Found != 1 || run.Begun != 0 {
		t.Errorf("%+v", run)
	}
	var life api.DiscrepancyLife
	if err := json.Unmarshal(p.call("GET", path, "", http.StatusOK), &life); err != nil || life.State != "ACCEPTED" || life.Assigned != "anna" || len(life.Steps) != 3 || life.Steps[2].By != "local" {
		t.Errorf("%+v %v", life, err)
	}
	if err := json.Unmarshal(p.call("GET", "/v1/discrepancies?live=true", "", http.StatusOK), &list); err != nil || len(list.Items) != 0 {
		t.Errorf("an accepted discrepancy came again: %+v %v", list, err)
	}
}

func TestAWrongHealIsTakenBackAndCounted(t *testing.T) {
	p := newPlant(t)
	p.copyTo("empty.db")
	p.produce(1)
	p.restore("empty.db")
	if run := p.all(); run.Begun != 8 {
		t.Fatalf("%+v", run)
	}
	p.verified()
	p.all()
	var list struct{ Items []api.Discrepancy }
	if err := json.Unmarshal(p.call("GET", "/v1/discrepancies?state=HEALED", "", http.StatusOK), &list); err != nil || len(list.Items) != 8 {
		t.Fatalf("%+v %v", list, err)
	}
	path := fmt.Sprintf("/v1/discrepancies/%d", list.Items[0].ID)
	p.call("POST", path+"/undo", `{"note":"the ERP was restored on purpose"}`, http.StatusOK)
	if n, err := p.s.CountHeals(t.Context()); err != nil || n.Made != 8 || n.Undone != 1 {
		t.Errorf("%+v %v", n, err)
	}
	// What was taken back is not healed again: a person has decided, and the fact's posting and the statement say so.
	if run := p.all(); run.Found != 0 || run.Begun != 0 {
		t.Errorf("%+v", run)
	}
	f, err := p.s.FactByKey(t.Context(), list.Items[0].Facts[0])
	if err != nil || f.Posting.State != store.PostingSettled || f.Posting.Code != posting.CodeTakenBack {
		t.Errorf("%+v %v", f.Posting, err)
	}
	for _, row := range p.statement("order_no=" + f.Fact.OrderNo()) {
		if row["agrees"] != "true" || row["level"] == "document" {
			t.Errorf("%v", row)
		}
	}
}
