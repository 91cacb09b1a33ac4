package api_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/wire"
)

const gramsFile = `name: weights
kind: unit
erp: erp
rows:
  - {from: KGM, to: GRM, factor: 1000/1}
  - {from: C62, to: C62}
tests:
  - {from: KGM, value: "1.5", to: GRM, want: "1500"}
  - {from: LBR, missing: true}
`

var (
	asAnna = header("Authorization", "Bearer anna-secret")
	asBert = header("Authorization", "Bearer bert-secret")
	asRead = header("Authorization", "Bearer "+reader)
)

func fourEyes(t *testing.T) *world {
	return newWorld(t, token("anna", "anna-secret", true), token("bert", "bert-secret", true), token("screen", reader, false))
}

func body(t *testing.T, v any) string {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

func version(text string, base int, propose bool) map[string]any {
	return map[string]any{"format": "yaml", "text": text, "base": base, "note": "as agreed", "propose": propose}
}

// Kilograms that would become grams are caught in the dry run: nobody approves that without naming it.
func TestKilogramsThatBecomeGramsAreNotApprovedUnnamed(t *testing.T) {
	w := fourEyes(t)
	w.call("POST", "/v1/mappings", body(t, version(gramsFile, 0, true)), asRead).problem(http.StatusForbidden, "screen")
	v := read[api.MappingVersion](w.call("POST", "/v1/mappings", body(t, version(gramsFile, 0, true)), asAnna))
	if v.Number != 1 || v.State != "proposed" || v.MadeBy != "anna" || v.ProposedBy != "anna" || v.Rows != 2 || v.Tests != 2 {
		t.Errorf("%+v", v)
	}
	d := read[api.MappingDryRun](w.call("POST", "/v1/mappings/weights/versions/1/dry-run", `{"days":7}`, asAnna))
	if d.Facts != 2 || d.Changed != 1 || len(d.Warnings) != 1 || d.Warnings[0].Name != "ratio:KGM:GRM:1000" || d.By != "anna" || len(d.Examples) != 1 {
		t.Errorf("%+v", d)
	}
	if i := slices.IndexFunc(d.Sums, func(s api.MappingSum) bool { return s.Unit == "KGM" }); i < 0 || d.Sums[i].Before != "1.125" || d.Sums[i].After != "1125" || d.Sums[i].UnitAfter != "GRM" {
		t.Errorf("%+v", d.Sums)
	}
	if d.Orders != 3 || d.OrdersStop != 3 || len(d.OrderExamples) != 3 || !strings.Contains(d.OrderExamples[0].After, `"KGM"`) { // their components are in kilograms
		t.Errorf("%+v", d)
	}
	approve := "/v1/mappings/weights/versions/1/approve"
	note := map[string]any{"note": "checked with the scale", "effective_from": time.Now().Add(-time.Hour)}
	w.call("POST", approve, body(t, note), asBert).problem(http.StatusConflict, "ratio:KGM:GRM:1000", "by name", "KGM today")
	note["acknowledge"] = []string{"ratio:KGM:GRM:1000"}
	w.call("POST", approve, body(t, note), asAnna).problem(http.StatusForbidden, "anna", "four eyes")
	v = read[api.MappingVersion](w.call("POST", approve, body(t, note), asBert))
	if v.State != "effective" || v.DecidedBy != "bert" || v.From == nil || !slices.Equal(v.Acknowledged, []string{"ratio:KGM:GRM:1000"}) {
		t.Errorf("%+v", v)
	}
	w.call("POST", approve, body(t, note), asBert).problem(http.StatusConflict, "approved")
	life := read[api.MappingLife](w.call("GET", "/v1/mappings/weights", "", asRead))
	var trail []string
	for _, x := range life.Trail {
		trail = append(trail, x.Step+" by "+x.By)
	}
	if life.InForce != 1 || life.Latest != 1 || life.Waiting != 0 || strings.Join(trail, ", ") != "made by anna, proposed by anna, approved by bert" {
		t.Errorf("%+v", life)
	}
	list := read[struct{ Items []api.Mapping }](w.call("GET", "/v1/mappings", "", asRead)).Items
	if len(list) != 1 || list[0].InForce != 1 || list[0].Kind != "unit" || list[0].Since == nil {
		t.Errorf("%+v", list)
	}
}

func TestFactShowsWhichVersionMadeWhichValueOfItsPosting(t *testing.T) {
	w := fourEyes(t)
	read[api.MappingVersion](w.call("POST", "/v1/mappings", body(t, version(gramsFile, 0, true)), asAnna))
	read[api.MappingVersion](w.call("POST", "/v1/mappings/weights/versions/1/approve",
		body(t, map[string]any{"note": "agreed", "effective_from": time.Now().Add(-time.Hour), "acknowledge": []string{"ratio:KGM:GRM:1000"}}), asBert))
	if v := read[api.FactLife](w.call("GET", "/v1/facts/"+w.good.Key.String(), "", asRead)); v.Mapping != nil {
		t.Errorf("what was posted before is not said anew: %+v", v.Mapping)
	}
	known, unknown := fact(object.KindConsumption, "known"), fact(object.KindConsumption, "unknown unit")
	for f, unit := range map[*object.Fact]string{&known: "KGM", &unknown: "LBR"} {
		f.Consumption = &object.Consumption{OrderNo: "100", Item: "STEEL", Quantity: object.Quantity{Value: decimal.RequireFromString("2.5"), Unit: unit}, Movement: object.Issue}
	}
	var records []store.Record
	for _, f := range []object.Fact{known, unknown} {
		raw, err := wire.EncodeFact(f)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, store.Record{Key: f.Key, Body: raw})
	}
	if _, err := w.s.AppendFacts(t.Context(), []store.Batch{{AgentID: w.agent.ID, Agent: "ulm/line1", Generation: "g2", FirstSeq: 1, Records: records}}); err != nil {
		t.Fatal(err)
	}
	w.becomes(known, "verified")
	v := read[api.FactLife](w.call("GET", "/v1/facts/"+known.Key.String(), "", asRead))
	if m := v.Mapping; m == nil || m.Unit != "GRM" || m.Factor != "1000/1" || len(m.Amounts) != 1 || m.Amounts[0] != (api.MappedAmount{Kind: "consumed", Counted: "2.5", Posted: "2500"}) ||
		len(m.Values) != 1 || m.Values[0] != (api.MappedValue{Field: "unit", Set: "weights", Version: 1, From: "KGM", To: "GRM", Factor: "1000/1"}) {
		t.Errorf("%+v", m)
	}
	if q, ok := v.Content["quantity"].(map[string]any); !ok || q["unit"] != "KGM" || q["value"] != "2.5" {
		t.Errorf("the fact itself says %v", v.Content)
	}
	w.becomes(unknown, "parked")
	w.call("GET", "/v1/postings?code=mapping_missing", "", asRead).wants(http.StatusOK, unknown.Key.String(), "LBR", "weights")
	more := strings.Replace(gramsFile, "rows:\n", "rows:\n  - {from: LBR, to: GRM, factor: 453.59237, direction: up}\n", 1)
	more = strings.Replace(more, "  - {from: LBR, missing: true}\n", "  - {from: LBR, value: \"1\", to: GRM, want: \"453.59237\"}\n", 1)
	read[api.MappingVersion](w.call("POST", "/v1/mappings", body(t, version(more, 1, true)), asBert))
	d := read[api.MappingDryRun](w.call("POST", "/v1/mappings/weights/versions/2/dry-run", `{}`, asAnna))
	if d.Goes != 1 || d.Against != 1 {
		t.Errorf("%+v", d)
	}
	var names []string
	for _, x := range d.Warnings {
		names = append(names, x.Name)
	}
	read[api.MappingVersion](w.call("POST", "/v1/mappings/weights/versions/2/approve", body(t, map[string]any{"note": "pounds too", "acknowledge": names}), asAnna))
	w.becomes(unknown, "verified") // by itself
}

func TestReturnIsOneCallOfOnePersonAndSaysSo(t *testing.T) {
	w := fourEyes(t)
	for i, text := range []string{gramsFile, strings.Replace(gramsFile, "name: weights", "name: weights\nscale: 3", 1)} {
		read[api.MappingVersion](w.call("POST", "/v1/mappings", body(t, version(text, i, true)), asAnna))
		read[api.MappingVersion](w.call("POST", fmt.Sprintf("/v1/mappings/weights/versions/%d/approve", i+1), `{"note":"agreed","acknowledge":["ratio:KGM:GRM:1000"]}`, asBert))
	}
	w.call("POST", "/v1/mappings/weights/return", `{"base":1,"note":"wrong"}`, asBert).problem(http.StatusConflict, "latest", "2")
	w.call("POST", "/v1/mappings/nothing/return", `{"base":1,"note":"wrong"}`, asBert).problem(http.StatusNotFound)
	v := read[api.MappingVersion](w.call("POST", "/v1/mappings/weights/return", `{"base":2,"note":"wrong scale"}`, asBert))
	if v.Number != 3 || v.Returns != 1 || v.State != "effective" || v.DecidedBy != "bert" {
		t.Errorf("%+v", v)
	}
	c := read[api.MappingContent](w.call("GET", "/v1/mappings/weights/versions/3", "", asRead))
	if c.Against != 2 || c.Content.Scale != nil || len(c.Content.Rows) != 2 || c.InForce != 3 {
		t.Errorf("%+v", c)
	}
}

func TestAVersionIsShownWithItsFaultsChangesAndFiles(t *testing.T) {
	w := fourEyes(t)
	broken := strings.Replace(gramsFile, "1000/1", "100/1", 1)
	faults := read[api.MappingFaults](w.call("POST", "/v1/mappings/check", body(t, map[string]any{"format": "yaml", "text": broken}), asAnna)).Faults
	if len(faults) < 1 || faults[0].Name != mapping.FaultStandard || faults[0].Row != 1 {
		t.Errorf("%+v", faults)
	}
	w.call("POST", "/v1/mappings", body(t, version(broken, 0, true)), asAnna).problem(http.StatusUnprocessableEntity, "factor_not_standard", "1000")
	w.call("POST", "/v1/mappings", body(t, version("name: [", 0, true)), asAnna).problem(http.StatusUnprocessableEntity, "read mapping set")
	read[api.MappingVersion](w.call("POST", "/v1/mappings", body(t, version(broken, 0, false)), asAnna))
	w.call("POST", "/v1/mappings/weights/versions/1/propose", `{"note":"please"}`, asAnna).problem(http.StatusUnprocessableEntity, "factor_not_standard")
	w.call("POST", "/v1/mappings/weights/versions/1/dry-run", `{}`, asAnna).problem(http.StatusUnprocessableEntity, "factor_not_standard")
	w.call("POST", "/v1/mappings/weights/versions/1/approve", `{"note":"fine"}`, asBert).problem(http.StatusConflict, "draft")
	read[api.MappingVersion](w.call("POST", "/v1/mappings/weights/versions/1/reject", `{"note":"wrong factor"}`, asAnna))
	w.call("POST", "/v1/mappings", body(t, version(gramsFile, 0, true)), asBert).problem(http.StatusConflict, "latest", "1")
	read[api.MappingVersion](w.call("POST", "/v1/mappings", body(t, version(gramsFile, 1, false)), asBert))
	read[api.MappingVersion](w.call("POST", "/v1/mappings/weights/versions/2/propose", `{"note":"please"}`, asBert))
	c := read[api.MappingContent](w.call("GET", "/v1/mappings/weights/versions/2?against=1", "", asRead))
	if len(c.Faults) != 0 || len(c.Changes) != 1 || c.Changes[0].Before != "KGM → GRM × 100/1" || c.Changes[0].After != "KGM → GRM × 1000/1" || c.DryRun != nil {
		t.Errorf("%+v", c)
	}
	for _, format := range []string{"yaml", "csv"} {
		file := w.call("GET", "/v1/mappings/weights/versions/2/file?format="+format, "", asRead).wants(http.StatusOK, "weights", "1000/1")
		v := version(string(file.body), 2, false)
		v["format"] = format
		if format == "csv" {
			v["base"] = 3
		}
		if got := read[api.MappingVersion](w.call("POST", "/v1/mappings", body(t, v), asAnna)); got.Rows != 2 || got.Tests != 2 {
			t.Errorf("%s: %+v", format, got)
		}
	}
	for _, path := range []string{"/v1/mappings/nothing", "/v1/mappings/weights/versions/9", "/v1/mappings/weights/versions/9/file", "/v1/mappings/weights/versions/2?against=9"} {
		w.call("GET", path, "", asRead).problem(http.StatusNotFound)
	}
	w.call("POST", "/v1/mappings/weights/versions/9/approve", `{"note":"fine"}`, asBert).problem(http.StatusNotFound)
}

// Without tokens everybody is the same caller: nothing can be approved.
func TestWithoutTokensNobodyHasFourEyes(t *testing.T) {
	w := newWorld(t)
	read[api.MappingVersion](w.call("POST", "/v1/mappings", body(t, version(gramsFile, 0, true))))
	w.call("POST", "/v1/mappings/weights/versions/1/approve", `{"note":"fine","acknowledge":["ratio:KGM:GRM:1000"]}`).problem(http.StatusForbidden, "token")
}
