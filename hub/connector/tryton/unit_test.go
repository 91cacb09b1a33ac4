package tryton

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
)

func TestConfigNamesWhatIsWrongAndTheNextStep(t *testing.T) {
	good := Config{URL: "https://erp.example.com/plant", User: "linekeeper", Password: "x"}
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no database":      {func(c *Config) { c.URL = "https://erp.example.com/" }, "address of a database"},
		"no scheme":        {func(c *Config) { c.URL = "erp.example.com/plant" }, "address of a database"},
		"no user":          {func(c *Config) { c.User = "" }, "account of its own"},
		"no password":      {func(c *Config) { c.Password = "" }, "set password_file"},
		"no password file": {func(c *Config) { c.PasswordFile = filepath.Join(t.TempDir(), "gone") }, "password_file"},
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
	good.Password, good.PasswordFile, good.Overlap = "", file, time.Second
	c, err := good.withDefaults()
	if err != nil || c.Password != "secret" || c.URL != "https://erp.example.com/plant/" || c.Overlap != time.Minute || c.Parallel != 2 {
		t.Errorf("config becomes %+v, %v", c, err)
	}
}

func TestEveryShapeOfAnswerSaysWhatBecameOfTheCall(t *testing.T) {
	for _, test := range []struct {
		status int
		body   string
		want   kind
		text   string
	}{
		{200, `{"id":0,"error":["UserError",["A value is required.","",null]]}`, refused, "A value is required."},
		{200, `{"id":0,"error":["UserWarning",["ab12.done","Moves have no origin.",""]]}`, warned, "Moves have no origin."},
		{200, `{"id":0,"error":["ConcurrencyException","Records were modified in the meanwhile"]}`, outdated, "changed"},
		{200, `{"id":0,"error":["server closed the connection unexpectedly",""]}`, failed, "server closed"},
		{200, `{"id":0,"error":{"odd":1}}`, failed, "odd"},
		{200, `{"id":0,"result`, unknown, "not JSON"},
		{401, ``, denied, "401"},
		{403, `<html>`, denied, "403"},
		{429, ``, locked, "locked"},
		{500, `<html>`, unknown, "500"},
		{503, `<html>`, unknown, "503"},
	} {
		resp := &http.Response{StatusCode: test.status, Status: fmt.Sprint(test.status, " ", http.StatusText(test.status))}
		err := decode("model.x.y", resp, []byte(test.body), nil)
		if err == nil || kindOf(err) != test.want || !strings.Contains(err.Error(), test.text) {
			t.Errorf("answer %d %s is read as kind %d: %v; want kind %d and %q", test.status, test.body, kindOf(err), err, test.want, test.text)
		}
	}
}

func TestQuantitiesSurviveTheWayThroughFloats(t *testing.T) {
	for _, text := range []string{"0.1", "1234567.89", "0.29", "100000", "0.01"} {
		d := decimal.RequireFromString(text)
		b, err := json.Marshal(map[string]any{"quantity": number(d)})
		if err != nil || string(b) != `{"quantity":`+text+`}` {
			t.Errorf("%s is written as %s, %v", text, b, err)
		}
	}
	for float, want := range map[json.Number]string{"0.30000000000000004": "0.3", "2.675": "2.68", "1e-05": "0", "32.0": "32", "1.0E3": "1000"} {
		if got, err := exact(float, 2); err != nil || got.String() != want {
			t.Errorf("%s is read as %s, %v; want %s", float, got, err, want)
		}
	}
	if same(decimal.RequireFromString("1.005"), decimal.RequireFromString("1"), 2) || !same(decimal.RequireFromString("1.0049"), decimal.RequireFromString("1"), 2) {
		t.Error("quantities are the same within less than half of the last digit, and not beyond")
	}
}

func TestTimestampsKeepTheirMicroseconds(t *testing.T) {
	for stamp, want := range map[string]int64{"1795505470.162707": 1795505470162707, "1795505470.1": 1795505470100000, "1795505470": 1795505470000000} {
		if got, err := microseconds(stamp); err != nil || got != want {
			t.Errorf("timestamp %s is read as %d, %v; want %d", stamp, got, err, want)
		}
	}
	if _, err := microseconds("soon"); err == nil {
		t.Error("a timestamp of words is read")
	}
	at := time.UnixMicro(1795505470162707).UTC()
	w := wireTimeOf(at)
	if got := w.instant(); !got.Equal(at) {
		t.Errorf("%s becomes %s on the wire", at, got)
	}
}

func FuzzRefusal(f *testing.F) {
	f.Add([]byte(`["UserError",["a","b",null]]`))
	f.Add([]byte(`["UserWarning",[1,2]]`))
	f.Add([]byte(`[["x"]]`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if refusal("m", raw) == nil {
			t.Error("an error was read as success")
		}
	})
}
