package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestReconcilePrintsTheSumsAndFailsWhereTheyDisagree(t *testing.T) {
	statement := "level,plant,erp,order_no,operation,item,kind,unit,counted,stored,received,intended,held_by_erp,mes,agrees,fact,discrepancies\n" +
		"sum,ulm,erp,100,0010,P,yield,C62,10,10,10,10,7,,false,,\nfact,ulm,erp,100,0010,P,yield,C62,0,0,3,3,0,,false,ABC,missing_confirmation\n"
	hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost && r.URL.Path == "/v1/reconciliations":
			w.Write([]byte(`{"orders":1,"facts":4,"documents":3,"found":1,"begun":1}`))
		case r.URL.Path != "/v1/reconciliations/statement" || r.URL.Query().Get("plant") != "ulm" || r.URL.Query().Get("from") != "2026-11-25T00:00:00Z":
			w.WriteHeader(http.StatusNotFound)
		default:
			w.Write([]byte(statement))
		}
	}))
	defer hub.Close()
	ask := func(more ...string) (int, string, string) {
		var out, errOut bytes.Buffer
		code := run(append([]string{"reconcile", "--url", hub.URL, "--plant", "ulm"}, more...), &out, &errOut)
		return code, out.String(), errOut.String()
	}
	code, out, errOut := ask("--from", "2026-11-25")
	if code != exitFailed || !strings.Contains(out, "HELD_BY_ERP") || !strings.Contains(out, "false") || strings.Contains(out, "ABC") || !strings.Contains(errOut, "do not agree") {
		t.Errorf("%d\n%s\n%s", code, out, errOut)
	}
	if code, out, _ := ask("--from", "2026-11-25", "--csv"); code != 0 || out != statement {
		t.Errorf("%d\n%s", code, out)
	}
	if code, _, errOut := ask("--from", "2026-11-25", "--heal", "--csv"); code != 0 || !strings.Contains(errOut, "1 heals begun") {
		t.Errorf("%d\n%s", code, errOut)
	}
	if code, _, errOut := ask("--from", "yesterday"); code != exitUsage || !strings.Contains(errOut, "2026-11-26") {
		t.Errorf("%d\n%s", code, errOut)
	}
	statement = strings.Replace(statement, "7,,false", "10,,true", 1)
	if code, out, errOut := ask("--from", "2026-11-25"); code != 0 || !strings.Contains(out, "true") {
		t.Errorf("%d\n%s\n%s", code, out, errOut)
	}
	statement += "incomplete" + strings.Repeat(",", 16) + "the ERP went away\n"
	if code, _, errOut := ask("--from", "2026-11-25"); code != exitFailed || !strings.Contains(errOut, "not complete") {
		t.Errorf("%d %s", code, errOut)
	}
}
