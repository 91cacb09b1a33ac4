package console_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/reconcile"
)

func TestADiscrepancyIsShownWithItsEvidenceAndAccepted(t *testing.T) {
	w := newWorld(t)
	w.page("/discrepancies", "plant and ERP agree")
	f := reconcile.Finding{Type: reconcile.Missing, Subject: "fact " + steel.Key.String(), Plant: "ulm", ERP: "erp", OrderNo: "WO/1", Severity: reconcile.High, Owner: reconcile.Production,
		Left: reconcile.Side{Name: "fact", Value: "4900000001"}, Right: reconcile.Side{Name: "erp", Value: "no document"}, Delta: decimal.NewFromInt(7), Unit: "KGM", Escalate: true, Why: "nobody can tell",
		Evidence: []reconcile.Evidence{{Kind: "fact", Ref: steel.Key.String(), Text: "counter good 10 to 17"}}, Proposed: reconcile.Action{Kind: reconcile.Ask, Text: "look in the ERP"}, Since: time.Now()}
	changes, err := w.s.MergeDiscrepancies(t.Context(), "ulm", "erp", "WO/1", []reconcile.Finding{f}, reconcile.DefaultPolicy())
	if err != nil || len(changes) != 1 {
		t.Fatal(changes, err)
	}
	page := fmt.Sprintf("/discrepancies/%d", changes[0].ID)
	if body := w.page("/discrepancies", "missing confirmation", "no document", "nobody can tell"); !strings.Contains(body, `href="`+page+`"`) {
		t.Errorf("no link to %s", page)
	}
	w.page(page, "counter good 10 to 17", steel.Key.String(), "look in the ERP", "Accept")
	for action, code := range map[string]int{"melt": http.StatusBadRequest, "act": http.StatusNotImplemented} { // nothing compares here
		if rec := w.call("POST", page, url.Values{"action": {action}, "note": {"try it"}}); rec.Code != code {
			t.Errorf("%s: %d %s", action, rec.Code, rec.Body)
		}
	}
	for _, form := range []url.Values{{"action": {"assign"}, "person": {"anna"}}, {"action": {"accept"}, "note": {"it was scrap"}}} {
		if rec := w.call("POST", page, form); rec.Code != http.StatusSeeOther {
			t.Errorf("%v: %d %s", form, rec.Code, rec.Body)
		}
	}
	w.page(page, "it was scrap", "anna")
	w.page("/discrepancies?state=ACCEPTED", "missing confirmation")
}
