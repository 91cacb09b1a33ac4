package main

import (
	"database/sql"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	_ "modernc.org/sqlite"

	"github.com/linekeeper/linekeeper/agent/recording"
	"github.com/linekeeper/linekeeper/agent/status"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const mesRules = `
units: {Stk: C62}
sources:
  - name: mes
    kind: mes
    driver: sqlite
    dsn: %s
    queries:
      - {tag: booked, table: booked, key: [id], poll: 50ms}
rules:
  - name: booked
    rule: record
    source: mes
    tag: booked
    fact: material_consumption
    pseudonymise: [payload.badge]
    fields: {order_no: payload.order_no, item: payload.item, quantity: payload.qty, unit: "'KGM'", lot: payload.lot}
`

// A plant engineer watches rows of a real database become facts, records them, and tries changed rules on the recording.
func TestRulesAreTriedOnRecordedRowsBeforeTheyAreLive(t *testing.T) {
	dir := t.TempDir()
	db, err := sql.Open("sqlite", filepath.Join(dir, "mes.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`CREATE TABLE booked (id INTEGER PRIMARY KEY AUTOINCREMENT, order_no TEXT, item TEXT, qty TEXT, lot TEXT, badge TEXT)`); err != nil {
		t.Fatal(err)
	}
	rows := 0
	insert := func() {
		if _, err := db.Exec(`INSERT INTO booked (order_no, item, qty, lot, badge) VALUES ('4711', 'RM-PE', '1.250', ?, 'MEIER-17')`, fmt.Sprintf("0%d", rows)); err != nil {
			t.Fatal(err)
		}
		rows++
	}
	path := filepath.Join(dir, "agent.yaml")
	text := plain + fmt.Sprintf(mesRules, filepath.Join(dir, "mes.db"))
	writeFile(t, path, text)
	addr, stop := runAgent(t, path)
	on := []string{"-c", path, "--addr", addr}
	do := func(args ...string) (int, string, string) { return call(append(args, on...)...) }

	code, out, errOut := do("record", "--source", "mes", "--for", "10m", "--json")
	var rec status.Recording
	if code != 0 || json.Unmarshal([]byte(out), &rec) != nil || !rec.Running {
		t.Fatalf("record: code %d\n%s%s", code, out, errOut)
	}
	traced := watch(t, func() (int, string, string) {
		return do("trace", "--source", "mes", "--tag", "booked", "--count", "3", "--for", "30s")
	})
	if out := traced(insert); !strings.Contains(out, "mes/booked = ") || !strings.Contains(out, "booked: fact: 1.250 kg of RM-PE consumed, order 4711 [") || strings.Contains(out, "MEIER") {
		t.Errorf("trace printed\n%s", out)
	}
	realparts.Eventually(t, 30*time.Second, "all rows to be recorded", func() error {
		if _, out, _ := do("record", "--show", "--json"); json.Unmarshal([]byte(out), &rec) != nil || countRows(t, rec.File, false) < rows {
			return fmt.Errorf("the recording is %+v", rec)
		}
		return nil
	})
	if code, out, errOut := do("record", "--stop"); code != 0 || !strings.Contains(out, "it ended because it was stopped") {
		t.Errorf("record --stop: code %d\n%s%s", code, out, errOut)
	}
	if n := countRows(t, rec.File, true); n != rows {
		t.Errorf("%d rows are recorded, want %d", n, rows)
	}
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, old, new string
		code           int
		want           []string
	}{
		{"same", "", "", 0, []string{fmt.Sprintf("facts: %d before, %d after; %d the same", rows, rows, rows), "no difference"}},
		{"grams", "'KGM'", "'GRM'", 1, []string{"material_consumption.quantity.unit: KGM -> GRM", "sum      order 4711, item RM-PE, consumed: 0 -> " + decimal.New(int64(rows)*125, -2).String() + " GRM (+"}},
		{"lot as a number", "lot: payload.lot", `lot: "string(dec(payload.lot))"`, 1, []string{"material_consumption.lot: 01 -> 1"}},
		{"broken", "unit: \"'KGM'\"", "unit: \"'pounds'\"", exitConfig, []string{"fields.unit 'pounds' is neither in units"}},
	} {
		changed := writeFile(t, filepath.Join(dir, "changed.yaml"), strings.Replace(text, c.old, c.new, 1))
		code, out, errOut := call("replay", rec.File, "-c", changed)
		for _, want := range c.want {
			if code != c.code || !strings.Contains(out+errOut, want) {
				t.Errorf("%s: code %d, want %d and %q\n%s%s", c.name, code, c.code, want, out, errOut)
			}
		}
	}
	var d recording.Difference
	if code, out, _ := call("replay", rec.File, "-c", filepath.Join(dir, "changed.yaml"), "--json"); code != exitConfig || out != "" {
		t.Errorf("a broken file: code %d, %s", code, out)
	}
	changed := writeFile(t, filepath.Join(dir, "changed.yaml"), strings.Replace(text, "'KGM'", "'GRM'", 1))
	if code, out, _ := call("replay", rec.File, "-c", changed, "--against", changed, "--json"); code != 0 || json.Unmarshal([]byte(out), &d) != nil || d.Same != rows {
		t.Errorf("against itself: code %d, %s", code, out)
	}
	if code, _, errOut := call("replay", path, "-c", changed); code != exitFailed || !strings.Contains(errOut, "is no recording") {
		t.Errorf("no recording: code %d, %s", code, errOut)
	}
	if code, _, errOut := do("trace"); code != exitFailed || !strings.Contains(errOut, "nothing answers at "+addr) {
		t.Errorf("trace of an agent that does not run: code %d, %s", code, errOut)
	}
}

// watch runs a command beside the test; the returned function does something again and again until the command ends, and returns
// what it wrote.
func watch(t *testing.T, run func() (int, string, string)) func(meanwhile func()) string {
	done := make(chan struct{})
	var code int
	var out, errOut string
	go func() {
		defer close(done)
		code, out, errOut = run()
	}()
	return func(meanwhile func()) string {
		t.Helper()
		for ended := false; !ended; {
			meanwhile()
			select {
			case <-done:
				ended = true
			case <-time.After(50 * time.Millisecond):
			}
		}
		if code != 0 {
			t.Errorf("code %d\n%s", code, errOut)
		}
		return out
	}
}

func countRows(t *testing.T, file string, whole bool) (rows int) {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		return 0
	}
	defer f.Close()
	raw, events, cut, err := recording.Read(f)
	if err != nil || cut && whole {
		if whole {
			t.Errorf("read the recording: cut off %v, %v", cut, err)
		}
		return 0
	}
	if b, _ := json.Marshal(events); strings.Contains(string(b), "MEIER") || strings.Contains(fmt.Sprint(raw), "MEIER") {
		t.Error("the recording holds a badge")
	}
	for _, e := range events {
		if e.Batch != nil {
			rows += len(e.Batch.Signals)
		}
	}
	return rows
}
