package s4

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

var good = Config{URL: "https://s4.example.com", User: "LINEKEEPER", Password: "x"}

func TestConfigNamesWhatIsWrongAndTheNextStep(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"path in url":               {func(c *Config) { c.URL += "/sap/opu" }, "https://s4.example.com"},
		"no scheme":                 {func(c *Config) { c.URL = "s4.example.com" }, "https://s4.example.com"},
		"no such end of operations": {func(c *Config) { c.FinishOperations = "close" }, "confirm or none"},
		"no user":                   {func(c *Config) { c.User = "" }, "set password_file"},
		"no password file":          {func(c *Config) { c.PasswordFile = filepath.Join(t.TempDir(), "gone") }, "password_file"},
		"no certificate":            {func(c *Config) { c.CAFile = "config.go" }, "BEGIN CERTIFICATE"},
		"zone":                      {func(c *Config) { c.TimeZone = "Mars/Olympus" }, "IANA"},
		"movements":                 {func(c *Config) { c.Movements = "both" }, "explicit, separate or sap"},
		"finish":                    {func(c *Config) { c.Finish = "close" }, "technically_complete or none"},
		"page size":                 {func(c *Config) { c.PageSize = 1001 }, "1 to 1000"},
		"sessions":                  {func(c *Config) { c.Sessions = -1 }, "1 to 64"},
		"impatient":                 {func(c *Config) { c.AbsentAfter = time.Minute }, "at least 4m0s"},
		"variance reason":           {func(c *Config) { c.ScrapReasons = map[string]string{"jam": "12345"} }, "1 to 4 characters"},
		"message class":             {func(c *Config) { c.Messages = map[string]string{"CO/469": "later"} }, "retryable, correctable or fatal"},
	} {
		c := good
		test.change(&c)
		if _, err := New(c); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error is %v, want one that says %q", name, err, test.want)
		}
	}
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("secret\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	c := good
	c.Password, c.PasswordFile, c.Overlap = "", file, time.Second
	c, err := c.withDefaults()
	if err != nil || c.Password != "secret" || c.Overlap != 5*time.Minute || c.AbsentAfter != 15*time.Minute || c.Movements != movementsExplicit {
		t.Errorf("completed to %+v, %v", c, err)
	}
}

// Every key of the sample is a key of the configuration, with a value that is taken; and every key is in the sample.
func TestSampleNamesEveryKeyWithAValueThatIsTaken(t *testing.T) {
	whole := regexp.MustCompile(`(?m)^# `).ReplaceAllString(Sample, "")
	var c Config
	if err := yaml.Load([]byte(whole), &c, yaml.WithKnownFields()); err != nil {
		t.Fatalf("%v in:\n%s", err, whole)
	}
	c.PasswordFile, c.CAFile, c.Password = "", "", "x"
	if _, err := New(c); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile("config.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile("yaml:\"([a-z_]+)\"").FindAllSubmatch(text, -1) {
		if key := string(m[1]); key != "name" && key != "password" && !regexp.MustCompile(`(?m)^(# )?`+key+`:`).MatchString(Sample) {
			t.Errorf("key %s is not in the sample", key)
		}
	}
}

func TestStateIsTheHighestOfSeveralFlags(t *testing.T) {
	all := sapOrder{OrderIsReleased: "X", OrderIsPartiallyConfirmed: "X", OrderIsConfirmed: "X", OrderIsLocked: "X", OrderIsTechnicallyCompleted: "X", OrderIsClosed: "X", OrderIsMarkedForDeletion: "X"}
	for _, step := range []struct {
		want object.OrderState
		off  func(*sapOrder)
	}{
		{object.OrderCancelled, func(o *sapOrder) { o.OrderIsMarkedForDeletion = "" }},
		{object.OrderClosed, func(o *sapOrder) { o.OrderIsClosed = "" }},
		{object.OrderCompleted, func(o *sapOrder) { o.OrderIsTechnicallyCompleted = "" }},
		{object.OrderHeld, func(o *sapOrder) { o.OrderIsLocked = "" }},
		{object.OrderCompleted, func(o *sapOrder) { o.OrderIsConfirmed = "" }},
		{object.OrderInProgress, func(o *sapOrder) { o.OrderIsPartiallyConfirmed = "" }},
		{object.OrderReleased, func(o *sapOrder) { o.OrderIsReleased = "" }},
		{object.OrderPlanned, func(*sapOrder) {}},
	} {
		if got := all.state(); got != step.want {
			t.Errorf("state is %s, want %s", got, step.want)
		}
		step.off(&all)
	}
}

// A date is a day wherever it is read; a time belongs to it without a zone of its own.
func TestDatesAreNotShiftedByZones(t *testing.T) {
	auckland, err := time.LoadLocation("Pacific/Auckland")
	if err != nil {
		t.Fatal(err)
	}
	if got := sapDate(time.Date(2026, 3, 1, 0, 30, 0, 0, auckland)); got != "/Date(1772323200000)/" { // 2026-03-01 at UTC midnight
		t.Errorf("the day is written %s", got)
	}
	got := at("/Date(1772323200000)/", "PT07H05M00S", auckland)
	if want := time.Date(2026, 3, 1, 7, 5, 0, 0, auckland); !got.Equal(want) {
		t.Errorf("read %s, want %s", got, want)
	}
	// The night in which an hour comes twice, and the one in which an hour is missing.
	berlin, _ := time.LoadLocation("Europe/Berlin")
	for _, day := range []time.Time{time.Date(2026, 10, 25, 0, 0, 0, 0, time.UTC), time.Date(2026, 3, 29, 0, 0, 0, 0, time.UTC)} {
		if got := at(sapDate(day), "PT23H59M59S", berlin); got.Day() != day.Day() || got.Hour() != 23 {
			t.Errorf("the evening of %s is read as %s", day.Format(time.DateOnly), got)
		}
	}
	for _, bad := range []string{"", "/Date(x)/", "/Date(9999999999999999)/", "2026-03-01"} {
		if !at(bad, "PT00H00M00S", time.UTC).IsZero() {
			t.Errorf("%q is read as a date", bad)
		}
	}
}

func TestQuantitiesAreTexts(t *testing.T) {
	for text, want := range map[string]string{`"10"`: "10", `"30.000"`: "30", `" 1.5 "`: "1.5", `""`: "0", `null`: "0", `7.25`: "7.25", `"-2.000"`: "-2"} {
		var q quantity
		if err := q.UnmarshalJSON([]byte(text)); err != nil || !q.Equal(decimal.RequireFromString(want)) {
			t.Errorf("%s is read as %s, %v", text, q, err)
		}
	}
	for _, text := range []string{`"1e9"`, `"1E999999"`, `"one"`, `"` + strings.Repeat("9", 100) + `"`} {
		var q quantity
		if err := q.UnmarshalJSON([]byte(text)); err == nil {
			t.Errorf("%.20s is read as %s", text, q)
		}
	}
}

func TestRequestIDIsTheSameForAFactAndDiffersBetweenStepsAndFacts(t *testing.T) {
	a, b := factkey.Of("a"), factkey.Of("b")
	ids := map[string]bool{requestID(a, 0): true, requestID(a, 1): true, requestID(b, 0): true}
	if len(ids) != 3 || !ids[requestID(a, 0)] || !regexp.MustCompile(`^[0-9A-F]{32}$`).MatchString(requestID(a, 0)) {
		t.Errorf("ids are %v", ids)
	}
}

func TestUnitsAreNeverGuessed(t *testing.T) {
	u := newUnits(map[string]string{"PCE": "C62", "ST": "C62", "STX": "EA", "EAX": "EA", "KG": "KGM"})
	if got, err := u.known("PCE", "ST"); got != "C62" || err != nil {
		t.Errorf("PCE is %q, %v", got, err)
	}
	for _, code := range []string{"", "CT", "kgm"} {
		if got, err := u.known(code, ""); err == nil {
			t.Errorf("%q is %q", code, got)
		}
	}
	if got, err := u.iso("C62"); got != "PCE" || err != nil {
		t.Errorf("C62 is written %q, %v", got, err)
	}
	if got, err := u.iso("KGM"); got != "KGM" || err != nil {
		t.Errorf("KGM is written %q, %v", got, err)
	}
	if got, err := u.iso("XBX"); err == nil {
		t.Errorf("XBX is written %q", got)
	}
}

// A system whose certificate nobody signed but the plant's own authority is believed with that authority's, and only then.
func TestOwnAuthorityIsBelieved(t *testing.T) {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"d":{"ManufacturingOrder":"1","ProductionUnitISOCode":"C62","TotalQuantity":"5"}}`)
	}))
	defer server.Close()
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, ca := range []string{"", file} {
		cfg := good
		cfg.URL, cfg.CAFile = server.URL, ca
		c, err := New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		if _, err = c.Get(t.Context(), "1"); (err == nil) != (ca != "") {
			t.Errorf("with ca_file %q: %v", ca, err)
		}
		c.Close()
	}
}

// talker answers every request with the same words, and gives tokens.
type talker struct {
	status int
	body   []byte
}

func (a talker) RoundTrip(r *http.Request) (*http.Response, error) {
	h := http.Header{}
	status, body := a.status, a.body
	if r.Header.Get("X-CSRF-Token") == "Fetch" {
		status, body = http.StatusOK, nil
		h.Set("X-CSRF-Token", "t")
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Header: h, Body: io.NopCloser(bytes.NewReader(body)), Request: r}, nil
}

// FuzzAnswer reads anything as SAP's answer: only a document's number counts as posted, what says neither yes nor no is in
// doubt, and an answer never becomes bigger than it was.
func FuzzAnswer(f *testing.F) {
	for _, s := range []struct {
		status int
		body   string
	}{
		{201, `{"d":{"ConfirmationGroup":"207","ConfirmationCount":"1"}}`}, {201, `{"d":{"ConfirmationGroup":"0000000000","ConfirmationCount":"00000000"}}`}, {200, `{"d":{}}`}, {200, `<html>`},
		{200, `{"d":{"results":[{"ExternalSystemConfirmation":"x","ConfirmationYieldQuantity":"1e99999"}],"__next":"A_ProductionOrder_2?$skiptoken=1"}}`},
		{200, `{"d":{"TechlyCmpltOrder":{"SystemMessageType":"E","SystemMessageIdentification":"CO","SystemMessageNumber":"688"}}}`},
		{400, `{"error":{"code":"M7/021","message":{"lang":"en","value":"Deficit"}}}`}, {400, `{"error":{"code":"/IWBEP/CM_COS/005","message":{"value":"RequestID is outdated"}}}`},
		{403, `{"error":{"code":"RU/519","message":{"value":"No"}}}`}, {429, `{"error":{"code":"SY/003"}}`}, {500, `{"error":{"code":"SY/500"}}`}, {502, `<html>`}, {401, ``},
		{200, `{"d":{"ManufacturingOrder":"1","ProductionUnitISOCode":"C62","TotalQuantity":"5","to_ProductionOrderOperation":{"results":[{"ManufacturingOrderOperation":"0010"}]}}}`},
	} {
		f.Add(s.status, []byte(s.body))
	}
	p := connector.Posting{Attempt: 1, Fact: object.Fact{Key: factkey.Of("p"), Kind: object.KindConfirmation,
		Confirmation: &object.Confirmation{OrderNo: "1", Yield: decimal.New(1, 0), Unit: "C62"}}}
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		if status < 200 || status > 599 {
			return
		}
		c, err := New(good)
		if err != nil {
			t.Fatal(err)
		}
		c.client.http.Transport = talker{status, body}
		for _, s := range []step{{Do: doConfirm, Order: "1", Body: []byte(`{}`)}, {Do: doDocument, Order: "1", Body: []byte(`{}`), Moves: []move{{}}}, {Do: doFinish, Order: "1"}, {Do: doCancel, Order: "1"}} {
			raw := encode(intent{At: time.Now(), Steps: []step{s}})
			out := c.Post(t.Context(), p, raw)
			switch {
			case out.Result == connector.Posted && (out.Document.Number == "" || status >= 300):
				t.Fatalf("%d %q counts as posted: %+v", status, body, out)
			case out.Result == connector.Rejected && (out.Code == "" || out.NextStep == ""):
				t.Fatalf("%d %q is a rejection without a code or a next step: %+v", status, body, out)
			case out.Result == connector.InDoubt && out.Reason == "":
				t.Fatalf("%d %q is in doubt without a reason", status, body)
			}
			if found, err := c.Lookup(t.Context(), p, raw); err == nil && found.Presence == connector.Found && status >= 300 {
				t.Fatalf("%d %q was read as a document that is there", status, body)
			}
		}
		if page, err := c.ListChanged(t.Context(), ""); err == nil && len(page.Orders) > len(body) {
			t.Fatalf("%d orders out of %d bytes", len(page.Orders), len(body))
		}
		if _, early, err := c.Prepare(t.Context(), p); err == nil && early != nil && early.Result == connector.Posted && status >= 300 {
			t.Fatalf("%d %q was read as an effect that is there", status, body)
		}
	})
}

func TestSequencesThatRunSideBySideDoNotHideTheLastOperation(t *testing.T) {
	c, err := New(Config{URL: "http://127.0.0.1:1", User: "u", Password: "p", Units: map[string]string{"PC": "C62"}})
	if err != nil {
		t.Fatal(err)
	}
	var o sapOrder
	err = json.Unmarshal([]byte(`{"ManufacturingOrder":"1","Material":"X","ProductionUnit":"PC","TotalQuantity":"1","to_ProductionOrderOperation":{"results":[
		{"ManufacturingOrderSequence":"0","ManufacturingOrderOperation":"0010"},{"ManufacturingOrderSequence":"0","ManufacturingOrderOperation":"0020"},
		{"ManufacturingOrderSequence":"1","ManufacturingOrderOperation":"0010"}]}}`), &o)
	if err != nil {
		t.Fatal(err)
	}
	if w, err := c.workOrder(o); err != nil || len(w.Operations) != 3 || w.Last() != "0020" || w.Operations[2].Operation != "1-0010" {
		t.Errorf("%+v, the last is %q, %v", w.Operations, w.Last(), err)
	}
}

func TestToleranceOfAnOrderIsTakenWhereTheSystemSaysIt(t *testing.T) {
	c, err := New(Config{URL: "http://127.0.0.1:1", User: "u", Password: "p", Units: map[string]string{"PC": "C62"}})
	if err != nil {
		t.Fatal(err)
	}
	for item, want := range map[string]string{
		`{"Batch":"B1"}`: "nil false", `{"OverdelivTolrtdLmtRatioInPct":"10.0","UnlimitedOverdeliveryIsAllowed":false}`: "10 false",
		`{"OverdelivTolrtdLmtRatioInPct":"0.0","UnlimitedOverdeliveryIsAllowed":true}`: "0 true", `{"OverdelivTolrtdLmtRatioInPct":null}`: "nil false",
	} {
		var o sapOrder
		if err := json.Unmarshal([]byte(`{"ManufacturingOrder":"1","Material":"X","ProductionUnit":"PC","TotalQuantity":"1","to_ProductionOrderItem":{"results":[`+item+`]}}`), &o); err != nil {
			t.Fatal(err)
		}
		w, err := c.workOrder(o)
		got := "nil"
		if w.OverPercent != nil {
			got = w.OverPercent.String()
		}
		if got = fmt.Sprint(got, " ", w.OverUnlimited); err != nil || got != want {
			t.Errorf("%s: %s, %v, want %s", item, got, err, want)
		}
	}
}
