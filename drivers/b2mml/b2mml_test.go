package b2mml

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

type m = map[string]any

func load(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func read(t testing.TB, text []byte, o Options) *Document {
	t.Helper()
	d, err := Read(text, o)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// only keeps some keys of a map, for a short comparison.
func only(v m, keys ...string) m {
	out := m{}
	for _, k := range keys {
		out[k] = v[k]
	}
	return out
}

func num(s string) signal.Number { return signal.Number(s) }

func TestAPerformanceOfV0700BecomesRecords(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	d := read(t, load(t, "v0700_sync_performance.xml"), Options{Zone: berlin})
	if d.Verb != "Sync" || d.Noun != "OperationsPerformance" || d.Version != "V0700" || d.Sender != "MES-ULM" || d.MessageID != "perf-1" || len(d.Records) != 4 {
		t.Fatalf("%+v", d)
	}
	got := d.Records[0].Value
	want := m{"order_no": "WO-1", "order_from": "OperationsRequestID", "kind": "segment", "performance_id": "P1", "schedule_id": "WO-1/2", "response_id": "R1", "response_state": "Completed",
		"segment_id": "S1", "process_segment": "0010", "state": "Running", "hierarchy": "ULM/PRESS1", "person": "4711", "equipment": "PRESS1",
		"started_at": time.Date(2026, 3, 29, 0, 30, 0, 0, time.UTC), "finished_at": time.Date(2026, 3, 29, 1, 15, 0, 0, time.UTC), // summer time began in between
		"item": "COVER", "unit": "PCE", "yield": num("120.5"), "scrap": num("3"), "rework": nil, "data": m{"Pressure": num("7.50"), "Recipe": "0070"}}
	keys := []string{}
	for k := range want {
		keys = append(keys, k)
	}
	if diff := cmp.Diff(want, only(got, keys...)); diff != "" {
		t.Error(diff)
	}
	consumed := got["consumed"].([]any)
	if len(consumed) != 2 || len(got["materials"].([]any)) != 5 {
		t.Fatalf("materials of one segment are never merged: %v", consumed)
	}
	if diff := cmp.Diff(m{"item": "STEEL", "lot": "C7", "sublot": "C7-3", "quantity": num("0.410"), "unit": "KGM", "location": "BIN-4", "properties": m{"Indice": "0010"}},
		only(consumed[0].(m), "item", "lot", "sublot", "quantity", "unit", "location", "properties")); diff != "" {
		t.Error(diff)
	}
	if child := d.Records[1].Value; child["order_no"] != "WO-1" || child["segment_id"] != "S1.1" || !reflect.DeepEqual(child["segment_path"], []any{"S1", "S1.1"}) || child["yield"] != nil {
		t.Errorf("child %v", child)
	}
	if p := d.Records[2].Problem; p == nil || p.Code != "bad_number" || !strings.Contains(p.Reason, "12,5") || d.Records[3].Value["order_no"] != "WO-2" {
		t.Errorf("a bad quantity must stop its own segment only: %+v", d.Records[2])
	}
	if !strings.HasPrefix(string(d.Records[3].Raw), "<mes:SegmentResponse>") || len(d.Answers) != 1 || d.Answers[0].Value["status"] != signal.AnswerFinished {
		t.Errorf("raw %q, answers %v", d.Records[3].Raw, d.Answers)
	}
}

func TestAPerformanceOfV0401KeepsWhatItDoesNotKnow(t *testing.T) {
	d := read(t, load(t, "v0401_performance.xml"), Options{})
	if d.Version != "V0401" || len(d.Records) != 2 {
		t.Fatalf("%+v", d)
	}
	got := d.Records[0].Value
	if diff := cmp.Diff(m{"order_no": "000123", "segment_id": "10", "process_segment": "MIX", "yield": num("250"), "item": "PASTE", "unit": "KG", "hierarchy": "ULM",
		"data": m{"Batch": "00042"}, "extensions": m{"Shift": "night"}},
		only(got, "order_no", "segment_id", "process_segment", "yield", "item", "unit", "hierarchy", "data", "extensions")); diff != "" {
		t.Error(diff)
	}
	water := got["consumed"].([]any)[0].(m)
	if produced := got["produced"].([]any)[0].(m); produced["quantity"] != num("250.00") || water["quantity"] != num("0.5") {
		t.Errorf("quantities %v, %v", produced["quantity"], water["quantity"])
	}
	if diff := cmp.Diff(any(m{"Dosing": m{"@unit": "s", "#text": "12"}}), water["extensions"]); diff != "" {
		t.Error(diff)
	}
	if last := d.Records[1].Value; last["order_no"] != "000124" || last["order_from"] != "response_id" || last["kind"] != "response" {
		t.Errorf("%v", last)
	}
}

func TestJobResponsesOfV0600(t *testing.T) {
	d := read(t, load(t, "v0600_work.xml"), Options{})
	if d.Version != "V0600" || len(d.Records) != 1 || len(d.Answers) != 1 {
		t.Fatalf("%+v", d)
	}
	got := d.Records[0].Value
	if diff := cmp.Diff(m{"order_no": "WO-7", "job_order": "WO-7/0010", "kind": "job", "state": "Completed", "yield": num("12"), "unit": "PCE", "data": m{"Count": num("12")},
		"finished_at": time.Date(2026, 1, 2, 2, 0, 0, 0, time.UTC)}, only(got, "order_no", "job_order", "kind", "state", "yield", "unit", "data", "finished_at")); diff != "" {
		t.Error(diff)
	}
	if q := got["produced"].([]any)[0].(m)["quantities"].([]any); len(q) != 2 || q[1].(m)["quantity"] != num("1.2") {
		t.Errorf("second quantity: %v", q)
	}
}

func TestWhatTakesBackIsNotAReport(t *testing.T) {
	text := string(load(t, "v0700_sync_performance.xml"))
	for name, changed := range map[string]string{
		"cancel":        strings.NewReplacer("SyncOperations", "CancelOperations", "mes:Sync", "mes:Cancel").Replace(text),
		"get":           strings.NewReplacer("SyncOperations", "GetOperations", "mes:Sync", "mes:Get").Replace(text),
		"change":        strings.NewReplacer("SyncOperations", "ChangeOperations", "mes:Sync", "mes:Change").Replace(text),
		"sync a delete": strings.Replace(text, "<mes:Sync/>", `<mes:Sync><mes:ActionCriteria><mes:ActionExpression actionCode="Delete">/x</mes:ActionExpression></mes:ActionCriteria></mes:Sync>`, 1),
	} {
		d := read(t, []byte(changed), Options{})
		for _, r := range d.Records {
			if r.Problem == nil || r.Problem.Code != "not_a_report" || r.Value != nil {
				t.Errorf("%s: %+v", name, r)
			}
		}
		if len(d.Records) != 4 || len(d.Answers) != 0 {
			t.Errorf("%s: %d records, %d answers", name, len(d.Records), len(d.Answers))
		}
	}
	if d := read(t, []byte(strings.NewReplacer("SyncOperations", "ChangeOperations", "mes:Sync", "mes:Change").Replace(text)), Options{Verbs: []string{"Change"}}); d.Records[0].Problem != nil {
		t.Errorf("a verb that the configuration lists: %+v", d.Records[0].Problem)
	}
}

func TestSeveralTransactionsInAWrapperKeepTheirVerbs(t *testing.T) {
	text := strings.TrimPrefix(string(load(t, "v0700_sync_performance.xml")), `<?xml version="1.0" encoding="UTF-8"?>`)
	cancel := strings.NewReplacer("SyncOperations", "CancelOperations", "mes:Sync", "mes:Cancel").Replace(text)
	confirm := strings.TrimPrefix(string(load(t, "v0700_confirm_rejected.xml")), `<?xml version="1.0" encoding="UTF-8"?>`)
	d := read(t, []byte("<Messages>"+text+cancel+confirm+"</Messages>"), Options{})
	if len(d.Records) != 8 || len(d.Answers) != 2 {
		t.Fatalf("%d records, %d answers", len(d.Records), len(d.Answers))
	}
	if d.Records[0].Problem != nil || d.Records[4].Problem == nil || d.Records[4].Problem.Code != "not_a_report" || d.Records[0].Value["document"].(m)["message_id"] != "perf-1" {
		t.Errorf("%+v, %+v", d.Records[0].Problem, d.Records[4].Problem)
	}
}

func TestWhatSeveralOrdersShareIsNotBookedOnOne(t *testing.T) {
	d := read(t, []byte(`<OperationsResponse xmlns:v="urn:v"><ID>1</ID><OperationsRequestID>A</OperationsRequestID><OperationsRequestID>B</OperationsRequestID><OperationsRequestID>A</OperationsRequestID>
<v:Team><v:Name>x</v:Name></v:Team><SegmentResponse><ID>s</ID><EquipmentActual><EquipmentID>E</EquipmentID><v:Wear>3</v:Wear></EquipmentActual></SegmentResponse></OperationsResponse>`), Options{})
	v := d.Records[0].Value
	if v["order_no"] != "" || !reflect.DeepEqual(v["order_nos"], []any{"A", "B"}) {
		t.Errorf("%v", v)
	}
	if diff := cmp.Diff(m{"Team": m{"Name": "x"}}, v["response_extensions"]); diff != "" {
		t.Error(diff)
	}
	if e := v["equipment_actuals"].([]any)[0].(m); !reflect.DeepEqual(e["extensions"], m{"Wear": "3"}) {
		t.Errorf("%v", e)
	}
}

func TestAJobOfOursTellsOrderAndOperation(t *testing.T) {
	for id, want := range map[string][2]string{"WH/MO/12#0010": {"WH/MO/12", "0010"}, "WH/MO/12": {"WH/MO/12", ""}} {
		d := read(t, []byte("<JobResponse><ID>1</ID><JobOrderID>"+id+"</JobOrderID><JobState>Running</JobState></JobResponse>"), Options{})
		if v := d.Records[0].Value; v["order_no"] != want[0] || v["operation"] != want[1] || d.Answers[0].Value["order_no"] != want[0] {
			t.Errorf("%s: %v", id, v)
		}
	}
}

func TestAnswersToWorkOrders(t *testing.T) {
	rejected := string(load(t, "v0700_confirm_rejected.xml"))
	acknowledge := string(load(t, "v0700_acknowledge.xml"))
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, c := range map[string]struct {
		text string
		want m
		code string
	}{
		"rejected": {rejected, m{"order_no": "WO/1", "revision": num("3"), "status": "rejected", "reason": "ITEM; item COVER is not known; work centre PRESS9 is closed", "changed_at": at, "message_id": "confirm-9"}, ""},
		"accepted": {strings.Replace(rejected, `"Rejected"`, `"Accepted"`, 1), m{"order_no": "WO/1", "revision": num("3"), "status": "accepted", "reason": "ITEM; item COVER is not known; work centre PRESS9 is closed", "changed_at": at, "message_id": "confirm-9"}, ""},
		"confirms without a code": {`<ConfirmBOD><ApplicationArea/><DataArea><Confirm/><BOD><OriginalApplicationArea><BODID>A/1</BODID></OriginalApplicationArea></BOD></DataArea></ConfirmBOD>`,
			m{"order_no": "A", "revision": num("1"), "status": "accepted", "reason": "", "changed_at": nil, "message_id": ""}, ""},
		"OAGIS failure": {`<ConfirmBOD><DataArea><Confirm/><BOD><OriginalApplicationArea><BODID>A</BODID></OriginalApplicationArea><BODFailureMessage><ErrorProcessMessage><Description>no</Description></ErrorProcessMessage></BODFailureMessage></BOD></DataArea></ConfirmBOD>`,
			m{"order_no": "A", "revision": num("0"), "status": "rejected", "reason": "no", "changed_at": nil, "message_id": ""}, ""},
		"complains without a code": {strings.Replace(rejected, ` actionCode="Rejected"`, ` actionCode="Replaced"`, 1), nil, "answer_unclear"},
		"about nothing":            {`<ConfirmBOD><DataArea><Confirm/></DataArea></ConfirmBOD>`, nil, "answer_without_order"},
		"acknowledged":             {acknowledge, m{"order_no": "WO-1", "revision": num("3"), "status": "accepted", "reason": "", "changed_at": at, "message_id": ""}, ""},
		"responds": {strings.NewReplacer("Acknowledge", "Respond", `actionCode="Accepted"`, `actionCode="Rejected"`).Replace(acknowledge),
			m{"order_no": "WO-1", "revision": num("3"), "status": "rejected", "reason": "", "changed_at": at, "message_id": ""}, ""},
	} {
		d := read(t, []byte(c.text), Options{})
		if len(d.Answers) != 1 || len(d.Records) != 0 {
			t.Errorf("%s: %+v", name, d)
			continue
		}
		a := d.Answers[0]
		if c.code != "" {
			if a.Problem == nil || a.Problem.Code != c.code {
				t.Errorf("%s: %+v", name, a)
			}
		} else if diff := cmp.Diff(c.want, a.Value); diff != "" {
			t.Errorf("%s: %s %v", name, diff, a.Problem)
		}
	}
}

func TestOtherDocumentsStayReadable(t *testing.T) {
	d := read(t, []byte(`<soap:Envelope xmlns:soap="s"><soap:Body><SyncMaterialInformation xmlns="http://www.wbf.org/xml/B2MML-V0401"><ApplicationArea/><DataArea><Sync/><MaterialInformation><MaterialDefinition><ID>M1</ID></MaterialDefinition></MaterialInformation></DataArea></SyncMaterialInformation></soap:Body></soap:Envelope>`), Options{})
	if len(d.Records) != 1 || d.Records[0].Value["kind"] != "MaterialInformation" || d.Version != "V0401" {
		t.Fatalf("%+v", d)
	}
	if diff := cmp.Diff(any(m{"MaterialDefinition": m{"ID": "M1"}}), d.Records[0].Value["content"]); diff != "" {
		t.Error(diff)
	}
}

func TestHostileDocumentsAreRefused(t *testing.T) {
	for _, text := range []string{"", "x", "<a>", "<a/><b/>", `<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>`, "<a>\xff</a>", strings.Repeat("<a>", 1000), "<a>&b;</a>", "<a></b>"} {
		_, err := Read([]byte(text), Options{})
		var e *Error
		if !errors.As(err, &e) || e.Code == "" || e.NextStep == "" {
			t.Errorf("%.30q: %v", text, err)
		}
	}
}

// samples are public documents of others, which the repository does not hold.
func samples(t *testing.T) string {
	dir := filepath.Join(realparts.Root(), "..", "shared", "samples", "b2mml")
	if _, err := os.Stat(dir); err != nil {
		t.Skipf("left out: the public B2MML documents and schemas are not at %s", dir)
	}
	return dir
}

func TestPublicDocumentsCanBeRead(t *testing.T) {
	dir := samples(t)
	files, err := filepath.Glob(filepath.Join(dir, "*.xml"))
	if err != nil || len(files) < 4 {
		t.Fatalf("%v %v", files, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		d := read(t, bytes.TrimPrefix(text, []byte("\xEF\xBB\xBF")), Options{})
		if len(d.Records) == 0 {
			t.Errorf("%s: nothing was read", f)
		}
		for _, r := range d.Records {
			if r.Problem != nil {
				t.Errorf("%s: %+v", f, r.Problem)
			}
		}
		if strings.Contains(f, "SyncProductionPerformance") {
			v := d.Records[0].Value
			c := v["consumed"].([]any)[0].(m)
			if v["order_no"] != "53107" || v["segment_id"] != "Weighing" || c["item"] != "CRBN0001" || c["quantity"] != num("0.41") || c["unit"] != "KG" || c["lot"] != "CRBN0001_LOT01" {
				t.Errorf("%v", v)
			}
		}
	}
}

func order() signal.WorkOrder {
	start := time.Date(2026, 10, 25, 1, 30, 0, 0, time.UTC)
	return signal.WorkOrder{OrderNo: "WO-1", Revision: 3, Plant: "ULM", WorkCenter: "PRESS1", Item: "COVER", Description: "covers <big> & \"round\"", Quantity: "1000.5", Unit: "PCE", Priority: 7, Lot: "L1",
		PlannedStart: start, PlannedEnd: start.Add(8 * time.Hour),
		Operations: []signal.Operation{{Operation: "0010", Description: "press", WorkCenter: "PRESS1", Quantity: "1010", Unit: "PCE"}, {Operation: "0020"}},
		Components: []signal.Component{{Item: "STEEL", Required: "12.250", Unit: "KGM", Operation: "0010", Reservation: "R7", Backflush: true}, {Item: "STEEL", Required: "1", Unit: "KGM", Operation: "0020"}, {Item: "OIL"}}}
}

func formats() []Format {
	var out []Format
	for _, vm := range [][2]string{{"V0401", "production"}, {"V0600", "operations"}, {"V0600", "work"}, {"V0700", "operations"}, {"V0700", "work"}} {
		for _, e := range []string{"process", "sync", "none"} {
			out = append(out, Format{Version: vm[0], Model: vm[1], Envelope: e, Sender: "LINEKEEPER"})
		}
	}
	return out
}

func TestAWorkOrderIsWrittenWhole(t *testing.T) {
	for _, f := range formats() {
		for _, cancelled := range []bool{false, true} {
			o := order()
			o.Cancelled = cancelled
			text, err := Write(o, f, time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
			if err != nil {
				t.Fatal(err)
			}
			root, err := parse(text)
			if err != nil {
				t.Fatalf("%+v: %v\n%s", f, err, text)
			}
			request := append(root.find("ProductionRequest", "OperationsRequest", "WorkRequest"), root)[0]
			if request.get("ID") != "WO-1" || request.get("Description") != o.Description || request.get("StartTime") != "2026-10-25T01:30:00Z" || root.space != spaces[f.Version] {
				t.Errorf("%+v: %s", f, text)
			}
			var items []string
			for _, n := range request.find("MaterialRequirement") {
				items = append(items, n.get("MaterialUse")+" "+n.get("MaterialDefinitionID")+" "+n.kid("Quantity").get("QuantityString"))
			}
			if diff := cmp.Diff([]string{"Consumed STEEL 12.250", "Consumed OIL ", "Produced COVER 1000.5", "Consumed STEEL 1"}, items); diff != "" {
				t.Errorf("%+v: %s", f, diff)
			}
			if f.Envelope != "none" && root.kid("ApplicationArea").get("BODID") != "WO-1/3" {
				t.Errorf("%+v: no message id", f)
			}
			if got := strings.Contains(string(text), "Cancelled"); got != cancelled {
				t.Errorf("%+v: cancelled is %v, not %v", f, got, cancelled)
			}
			o.Held = true
			if text, err = Write(o, f, time.Now()); err != nil || strings.Contains(string(text), ">Held<") == cancelled {
				t.Errorf("%+v: held, cancelled %v: %v %s", f, cancelled, err, text)
			}
		}
	}
	if err := (&Format{Version: "V0700", Model: "production"}).Fill(); err == nil || !strings.Contains(err.Error(), "operations") {
		t.Errorf("V0700 has no production documents: %v", err)
	}
}

var (
	includes = regexp.MustCompile(`<xsd:include\s+schemaLocation\s*=\s*"([^"]+)"`)
	target   = regexp.MustCompile(`targetNamespace\s*=\s*"([^"]+)"`)
)

// completeSchemas copies the public schemas and puts empty ones where they include others that are not there: extensions of
// BatchML, which hold nothing until somebody adds to them, and what no document here uses.
func completeSchemas(t *testing.T, from string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.xsd"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no schemas in %s: %v", from, err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range includes.FindAllSubmatch(text, -1) {
			path := filepath.Join(dir, string(m[1]))
			if _, err := os.Stat(path); err != nil {
				types := ""
				if string(m[1]) == "B2MML-InformationObject.xsd" { // others name its two types
					types = `<xsd:complexType name="InformationObjectType"/><xsd:complexType name="InformationObjectTypeType"/>`
				}
				realparts.WriteFile(t, path, fmt.Sprintf(`<xsd:schema xmlns:xsd="http://www.w3.org/2001/XMLSchema" targetNamespace=%q>%s</xsd:schema>`, target.FindSubmatch(text)[1], types))
			}
		}
	}
	return dir
}

// validate runs xmllint with the public V0700 schemas.
func validate(t *testing.T, schemas, schema string, documents map[string][]byte) {
	t.Helper()
	dir := t.TempDir()
	args := []string{"--noout", "--nonet", "--schema", filepath.Join(schemas, schema)}
	for name, text := range documents {
		args = append(args, realparts.WriteFile(t, filepath.Join(dir, name), string(text)))
	}
	out, err := exec.Command(realparts.Need(t, "xmllint", "libxml2-utils"), args...).CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", schema, err, out)
	}
}

func TestDocumentsFollowTheSchemasOfV0700(t *testing.T) {
	schemas := completeSchemas(t, filepath.Join(samples(t), "xsd-v0700"))
	documents := map[string][]byte{"acknowledge.xml": load(t, "v0700_acknowledge.xml")}
	for _, f := range formats() {
		if f.Version != "V0700" || f.Model != "operations" {
			continue
		}
		for _, name := range []string{"whole", "cancelled", "held", "bare"} {
			o := order()
			switch name {
			case "cancelled":
				o.Cancelled = true
			case "held":
				o.Held = true
			case "bare":
				o = signal.WorkOrder{OrderNo: "1", Item: "X", Quantity: "1"}
			}
			text, err := Write(o, f, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			documents[fmt.Sprintf("%s-%s.xml", f.Envelope, name)] = text
		}
	}
	validate(t, schemas, "B2MML-OperationsSchedule.xsd", documents)
	validate(t, schemas, "B2MML-OperationsPerformance.xsd", map[string][]byte{"performance.xml": load(t, "v0700_sync_performance.xml")})
	validate(t, schemas, "B2MML-ConfirmBOD.xsd", map[string][]byte{"confirm.xml": load(t, "v0700_confirm_rejected.xml")})
}

func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/*.xml")
	if err != nil || len(files) == 0 {
		f.Fatal("no documents")
	}
	for _, name := range files {
		f.Add(load(f, filepath.Base(name)))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Read(text, Options{})
		if err != nil {
			return
		}
		for _, r := range append(d.Records, d.Answers...) {
			if (r.Problem == nil) == (r.Value == nil) {
				t.Fatalf("a record is either good or not: %+v", r)
			}
		}
	})
}
