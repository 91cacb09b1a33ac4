package console_test

import (
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/hub/api"
)

func person(name string) api.Token {
	sum := sha256.Sum256([]byte(name + "-secret"))
	return api.Token{Name: name, SHA256: hex.EncodeToString(sum[:]), Write: true}
}

// as lets a person use the pages.
func (w *world) as(name string) {
	w.set = func(r *http.Request) { r.SetBasicAuth(name, name+"-secret") }
}

// sends a form and checks where it leads to.
func (w *world) sends(path, to string, form url.Values) {
	w.t.Helper()
	if rec := w.call("POST", path, form); rec.Code != http.StatusSeeOther || rec.Header().Get("Location") != to {
		w.t.Fatalf("%s: %d %s, want %s\n%s", path, rec.Code, rec.Header().Get("Location"), to, rec.Body)
	}
}

const kilograms = "name: weights\r\nkind: unit\r\nerp: erp\r\nrows: [{from: KGM, to: KGM}]\r\ntests: [{from: KGM, value: \"1\", to: KGM, want: \"1\"}]\r\n"

func TestMappingIsProposedTriedApprovedAndReturnedOnThePages(t *testing.T) {
	w := newWorld(t, person("anna"), person("bert"))
	w.fill()
	w.as("anna")
	w.page("/mappings", "No mapping sets", "New set")
	form := url.Values{"format": {"yaml"}, "base": {"0"}, "text": {kilograms}, "note": {"begin"}, "propose": {"yes"}}
	w.sends("/mappings", "/mappings", form)
	w.page("/mappings", "weights", "none")
	body := w.page("/mappings/weights/1", "proposed", "Make a dry run first")
	if strings.Contains(body, `value="approve"`) {
		t.Error("it can be approved without a dry run")
	}
	w.sends("/mappings/weights/1", "/mappings/weights/1", url.Values{"action": {"dry-run"}, "days": {"30"}})
	w.page("/mappings/weights/1", "Nothing about it is implausible", "1 fact since")
	approve := url.Values{"action": {"approve"}, "note": {"it is right"}}
	if rec := w.call("POST", "/mappings/weights/1", approve); rec.Code != http.StatusForbidden || !strings.Contains(rec.Body.String(), "four eyes") {
		t.Errorf("anna approved her own: %d %s", rec.Code, rec.Body)
	}
	w.as("bert")
	w.sends("/mappings/weights/1", "/mappings/weights/1", url.Values{"action": {"approve"}, "note": {"it is right"}, "from": {"2026-01-01T00:00:00+01:00"}})
	w.page("/mappings/weights/1", "effective", "approved by bert")

	// Kilograms that become grams.
	grams := strings.Replace(strings.Replace(kilograms, "to: KGM}]", "to: GRM, factor: 1000/1}]", 1), `to: KGM, want: "1"`, `to: GRM, want: "1000"`, 1)
	w.as("anna")
	form.Set("text", grams)
	form.Set("name", "weights")
	if rec := w.call("POST", "/mappings", form); rec.Code != http.StatusConflict || !strings.Contains(rec.Body.String(), "another version") {
		t.Errorf("a form that is too old: %d %s", rec.Code, rec.Body)
	}
	form.Set("base", "1")
	w.sends("/mappings", "/mappings/weights", form)
	w.as("bert")
	w.page("/mappings/weights/2", "KGM → KGM", "KGM → GRM × 1000/1")
	w.sends("/mappings/weights/2", "/mappings/weights/2", url.Values{"action": {"dry-run"}})
	body = w.page("/mappings/weights/2", "ratio:KGM:GRM:1000", "1.125 KGM", "1125 GRM", "I know of")
	if !strings.Contains(body, `name="acknowledge" value="ratio:KGM:GRM:1000"`) {
		t.Error("the warning cannot be acknowledged")
	}
	if rec := w.call("POST", "/mappings/weights/2", approve); rec.Code != http.StatusConflict || !strings.Contains(rec.Body.String(), "ratio:KGM:GRM:1000") {
		t.Errorf("approved without naming it: %d %s", rec.Code, rec.Body)
	}
	approve.Set("acknowledge", "ratio:KGM:GRM:1000")
	w.sends("/mappings/weights/2", "/mappings/weights/2", approve)
	w.page("/mappings/weights", "Return to the version before", "version 2", "approved", "superseded")
	w.sends("/mappings/weights/return", "/mappings/weights", url.Values{"base": {"2"}, "note": {"grams are wrong"}})
	w.page("/mappings/weights", "returned to version 1", "alone, back to version 1", "grams are wrong")
	w.page("/mappings/weights/3", "effective", "brought back alone", "KGM → GRM × 1000/1")

	// What is wrong is told with its name, and a draft may hold it.
	w.as("anna")
	broken := url.Values{"format": {"yaml"}, "base": {"3"}, "name": {"weights"}, "text": {strings.Replace(grams, "1000/1", "10/1", 1)}, "note": {"try"}}
	w.sends("/mappings", "/mappings/weights", broken)
	body = w.page("/mappings/weights/4", "It has faults", "factor_not_standard", "draft")
	if strings.Contains(body, `value="propose"`) {
		t.Error("a faulty draft can be proposed")
	}
	w.sends("/mappings/weights/4", "/mappings/weights/4", url.Values{"action": {"reject"}, "note": {"a try"}})
	for _, x := range []struct {
		path string
		form url.Values
		code int
	}{
		{"/mappings/weights/4", url.Values{"action": {"melt"}}, http.StatusBadRequest}, {"/mappings", url.Values{"base": {"x"}}, http.StatusBadRequest},
		{"/mappings/weights/return", url.Values{"note": {"why"}}, http.StatusBadRequest}, {"/mappings/weights/4", url.Values{"action": {"approve"}, "from": {"tomorrow"}, "note": {"why"}}, http.StatusBadRequest},
		{"/mappings/weights/9", url.Values{"action": {"reject"}, "note": {"why"}}, http.StatusNotFound},
	} {
		if rec := w.call("POST", x.path, x.form); rec.Code != x.code {
			t.Errorf("%s %v: %d, want %d\n%s", x.path, x.form, rec.Code, x.code, rec.Body)
		}
	}
	load := regexp.MustCompile(`(?i)<script|<iframe| on\w+=| style=|(src|href|action)="(https?:)?//|@import|url\(`)
	for _, path := range []string{"/mappings", "/mappings/weights", "/mappings/weights/2"} {
		if m := load.FindString(w.page(path)); m != "" {
			t.Errorf("%s: %q", path, m)
		}
	}
}

// A form of another site changes nothing, as everywhere.
func TestMappingFormOfAnotherSiteIsRefused(t *testing.T) {
	w := newWorld(t, person("anna"))
	w.set = func(r *http.Request) {
		r.SetBasicAuth("anna", "anna-secret")
		r.Header.Set("Origin", "https://elsewhere.example")
		r.Header.Set("Sec-Fetch-Site", "cross-site")
	}
	form := url.Values{"format": {"yaml"}, "base": {"0"}, "text": {kilograms}, "note": {"begin"}, "propose": {"yes"}}
	if rec := w.call("POST", "/mappings", form); rec.Code != http.StatusForbidden {
		t.Errorf("%d %s", rec.Code, rec.Body)
	}
	w.as("anna")
	w.page("/mappings", "No mapping sets")
}
