package files

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func TestAFileThatIsStillGrowingIsLeftAlone(t *testing.T) {
	p := newPlant(t)
	defer p.start(p.section("settle: 300ms"))()
	f, err := os.Create(filepath.Join(p.in, "slow.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	text := rows(1, 200)
	for i := 0; i < len(text); i += 300 { // each piece ends somewhere in a line, and comes well within settle
		if _, err := f.WriteString(text[i:min(i+300, len(text))]); err != nil {
			t.Fatal(err)
		}
		if n := len(p.all()); n > 0 {
			t.Fatalf("%d records were taken when %d of %d bytes were there", n, i, len(text))
		}
		time.Sleep(20 * time.Millisecond) // the sender's pace, not a wait for something
	}
	p.awaitCount(200)
	if err := counted(p.numbers(), 200); err != nil {
		t.Error(err)
	}
}

func TestASenderThatGoesOnWritingIsNoticed(t *testing.T) {
	p := newPlant(t)
	f, err := os.Create(filepath.Join(p.in, "paused.csv"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fmt.Fprint(f, rows(1, 3))
	stop := p.run(p.make(p.section()), func(ctx context.Context, b signal.Batch) error {
		fmt.Fprint(f, "4,late\n") // it holds the file open, wherever it lies now
		return p.emit(ctx, b)
	})
	defer stop()
	p.awaitFiles("error/paused.csv", 1)
	if why := read(t, filepath.Join(p.in, "error", "paused.csv.reason.txt")); !strings.Contains(why, "changed_after_reading") {
		t.Errorf("reason: %s", why)
	}
	p.awaitProblem("feed:rows:refused", "files_refused")
	if err := counted(p.numbers(), 3); err != nil {
		t.Error(err)
	}
}

func TestAMarkerSaysThatAFileIsComplete(t *testing.T) {
	p := newPlant(t)
	defer p.start(p.section("ready: marker"))()
	realparts.WriteFile(t, filepath.Join(p.in, "a.csv"), rows(1, 2))
	realparts.WriteFile(t, filepath.Join(p.in, "b.csv"), rows(3, 4))
	realparts.WriteFile(t, filepath.Join(p.in, "b.ok"), "")
	p.awaitCount(2)
	p.awaitFiles("b.ok", 0)
	if p.glob("a.csv") == nil {
		t.Error("a file without its marker was taken")
	}
	realparts.WriteFile(t, filepath.Join(p.in, "a.csv.ok"), "")
	p.awaitCount(4)
	p.awaitFiles("done/*/*.csv", 2)
	p.awaitFiles("*.ok", 0)
}

func TestAContentIsTakenOnceWhateverItsName(t *testing.T) {
	p := newPlant(t)
	stop := p.start(p.section())
	p.put("a.csv", rows(1, 3))
	p.awaitFiles("done/*/a.csv", 1)
	p.put("b.csv", rows(1, 3))
	p.awaitFiles("done/*/b.csv", 1)
	if why := read(t, p.awaitFiles("done/*/b.csv.reason.txt", 1)[0]); !strings.Contains(why, "Duplicate") || !strings.Contains(why, `"a.csv"`) {
		t.Errorf("reason: %s", why)
	}
	p.put("a.csv", rows(4, 5)) // names are used again
	p.awaitCount(5)
	stop()
	defer p.start(p.section())()
	p.put("c.csv", rows(4, 5))
	p.awaitFiles("done/*/c.csv.reason.txt", 1)
	if err := counted(p.numbers(), 5); err != nil || len(p.all()) != 5 {
		t.Errorf("%v, %d signals", err, len(p.all()))
	}
	if n := len(p.glob("done/*/a*.csv")); n != 2 {
		t.Errorf("%d files a.csv in done, not 2", n)
	}
}

func TestTwoFilesWithOneContentCountWhereTheNameBelongsToIt(t *testing.T) {
	p := newPlant(t)
	defer p.start(p.section("identity: name_and_content"))()
	p.put("a.csv", rows(1, 2))
	p.put("b.csv", rows(1, 2))
	p.awaitFiles("done/*/*.csv", 2)
	if all := p.all(); len(all) != 4 || all[0].Position == all[2].Position {
		t.Errorf("%v", all)
	}
}

func TestARefusedFileLiesBesideItsReason(t *testing.T) {
	p := newPlant(t)
	columns := []string{"csv: {columns: [{name: Menge, type: number}]}"}
	stop := p.start(p.section(columns...))
	p.put("good.csv", "n,Menge\n1,5\n")
	p.put("other.csv", "n,quantity\n2,5\n")
	realparts.WriteFile(t, filepath.Join(p.in, "empty.csv"), "")
	p.awaitFiles("error/other.csv", 1)
	p.awaitFiles("error/empty.csv", 1)
	why := read(t, filepath.Join(p.in, "error", "other.csv.reason.txt"))
	for _, want := range []string{"column_missing", "Menge", "quantity", "Next step:"} {
		if !strings.Contains(why, want) {
			t.Errorf("the reason does not say %q: %s", want, why)
		}
	}
	if shown := p.awaitProblem("feed:rows:refused", "files_refused"); !strings.Contains(shown.Reason, "2 files") {
		t.Errorf("%+v", shown)
	}
	p.awaitCount(3)
	for _, s := range p.all() {
		if (s.Problem != nil) == (s.Topic == "good.csv") {
			t.Errorf("%s: %+v", s.Topic, s.Problem)
		}
	}
	stop()
	// With the configuration corrected the file is moved back as it is.
	if err := os.Rename(filepath.Join(p.in, "error", "other.csv"), filepath.Join(p.in, "other.csv")); err != nil {
		t.Fatal(err)
	}
	os.RemoveAll(filepath.Join(p.in, "error"))
	defer p.start(p.section("csv: {columns: [{name: quantity, type: number}]}"))()
	p.awaitFiles("done/*/other.csv", 1)
	p.await("no problem", func() bool { return len(p.problems) == 0 })
	if err := counted(p.numbers(), 2); err != nil {
		t.Error(err)
	}
}

func TestABadRecordLeavesTheOthersAlone(t *testing.T) {
	const text = "n,text\n1,a\n\"torn\n2,b\n3\n3,c\n"
	p := newPlant(t)
	stop := p.start(p.section())
	p.put("mixed.csv", text)
	p.awaitFiles("done/*/mixed.csv", 1)
	stop()
	why := read(t, p.awaitFiles("done/*/mixed.csv.reason.txt", 1)[0])
	if err := counted(p.numbers(), 3); err != nil || len(p.all()) != 5 || !strings.Contains(why, "line 3") || !strings.Contains(why, "line 5") {
		t.Errorf("%v, %d signals, reason %s", err, len(p.all()), why)
	}
	strict := newPlant(t)
	defer strict.start(strict.section("on_error: reject_file"))()
	strict.put("mixed.csv", text)
	strict.awaitFiles("error/mixed.csv", 1)
	if all := strict.all(); len(all) != 1 || all[0].Problem == nil || all[0].Problem.Code != "bad_records" {
		t.Errorf("nothing of a refused file may pass: %+v", all)
	}
	if why := read(t, filepath.Join(strict.in, "error", "mixed.csv.reason.txt")); !strings.Contains(why, "2 of 5") || !strings.Contains(why, "line 3") {
		t.Errorf("reason: %s", why)
	}
}

func TestAFolderThatMayOnlyBeReadIsRememberedOverRestarts(t *testing.T) {
	p := newPlant(t)
	section := p.section("keep: true", "csv: {columns: [{name: n}]}")
	stop := p.start(section)
	p.put("a.csv", rows(1, 3))
	p.put("bad.csv", "x\n1\n")
	p.awaitCount(4)
	p.awaitProblem("feed:rows:refused", "column_missing")
	stop()
	stop = p.start(section)
	p.put("b.csv", rows(4, 4))
	p.await("the new file", func() bool { return len(p.signals) >= 6 }) // and the refused one once more
	p.put("a.csv", rows(5, 6))
	p.await("the new content", func() bool { return len(p.signals) >= 8 })
	os.Remove(filepath.Join(p.in, "bad.csv"))
	p.await("no problem", func() bool { return len(p.problems) == 0 })
	stop()
	if err := counted(p.numbers(), 6); err != nil || len(p.all()) != 8 {
		t.Errorf("%v, %d signals", err, len(p.all()))
	}
	if dirs := p.glob("*/"); len(dirs) != 0 {
		for _, d := range dirs {
			if info, err := os.Stat(d); err == nil && info.IsDir() {
				t.Errorf("folder %s was made where nothing may be changed", d)
			}
		}
	}
}

func TestAMissingFolderLeavesTheOtherFeedsAlone(t *testing.T) {
	p := newPlant(t)
	missing := filepath.Join(t.TempDir(), "not", "mounted")
	defer p.start(p.section() + fmt.Sprintf("  - {tag: away, folder: %q, format: csv, scan: 20ms, settle: 1ms}\n", missing))()
	p.put("a.csv", rows(1, 3))
	p.awaitCount(3)
	p.awaitProblem("feed:away:folder", "folder_missing")
	if _, err := os.Stat(missing); err == nil {
		t.Error("the agent made a folder that a share belongs on")
	}
	if err := os.MkdirAll(missing, 0o755); err != nil {
		t.Fatal(err)
	}
	putFile(t, missing, "b.csv", rows(4, 4))
	p.awaitCount(4)
	p.await("no problem", func() bool { return len(p.problems) == 0 && p.state == signal.StateOK })
}

func TestAnUnreachableFolderIsAFailedSource(t *testing.T) {
	p := newPlant(t)
	p.in = filepath.Join(p.in, "gone")
	defer p.start(p.section())()
	p.await("state failed", func() bool { return p.state == signal.StateFailed && strings.Contains(p.why, "gone") })
}

func TestAKeyMakesARecordTheSameInAnotherFile(t *testing.T) {
	p := newPlant(t)
	defer p.start(p.section("key: [n]", "where: {type: C}", "time: at", "csv: {columns: [{name: at, type: time, layout: dd.MM.yyyy HH:mm}]}"))()
	p.put("a.csv", "n,type,at\n1,C,02.01.2026 10:00\n2,X,02.01.2026 10:00\n3,C,02.01.2026 11:00\n")
	p.put("b.csv", "n,type,at\n1,C,02.01.2026 10:00\n,C,02.01.2026 10:00\n")
	p.awaitFiles("done/*/*.csv", 2)
	all := p.all()
	if len(all) != 4 || all[0].Position != "key|1" || all[0].Position != all[2].Position || all[1].Position != "key|3" || all[3].Problem == nil || all[3].Problem.Code != "key_missing" {
		t.Errorf("%+v", all)
	}
	if want := time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC); !all[0].SourceTime.Equal(want) {
		t.Errorf("source time %s", all[0].SourceTime)
	}
}

func TestDoneFilesGoAfterTheirRetention(t *testing.T) {
	p := newPlant(t)
	old, young := time.Now().UTC().AddDate(0, 0, -10), time.Now().UTC().AddDate(0, 0, -2)
	for _, day := range []time.Time{old, young} {
		dir := filepath.Join(p.in, "done", day.Format(time.DateOnly))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		realparts.WriteFile(t, filepath.Join(dir, "x.csv"), "n\n")
	}
	defer p.start(p.section("retention: 120h"))()
	p.awaitFiles("done/*", 1)
	if left := p.glob("done/*/x.csv"); len(left) != 1 || !strings.Contains(left[0], young.Format(time.DateOnly)) {
		t.Errorf("left in done: %v", left)
	}
}

func TestFormatsOfAllKinds(t *testing.T) {
	for name, c := range map[string]struct {
		section, text string
		want          []any
	}{
		"a.json":  {"format: json, json: {record: data.rows}", `{"data":{"rows":[{"n":1},{"n":2.50}]}}`, []any{"1", "2.50"}},
		"b.json":  {"format: json", `[{"n":"007"},{"n":null}]`, []any{"007", "<nil>"}},
		"c.jsonl": {"format: jsonl", "{\"n\":1}\n\n{bad}\n{\"n\":3}\n", []any{"1", "bad_json", "3"}},
		"d.xml":   {"format: xml, xml: {record: r/x}", "<r><x><n>1</n></x><x n=\"2\"/></r>", []any{"1", "<nil>"}},
		"e.txt":   {"format: fixed, fixed: {columns: [{name: n, type: number, start: 3, length: 4}]}", "xx0012\nyy  3 \n", []any{"12", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlant(t)
			defer p.start(fmt.Sprintf("feeds: [{tag: rows, folder: %q, scan: 20ms, ready: renamed, %s}]", p.in, c.section))()
			p.put(name, c.text)
			p.awaitFiles("done/*/"+name, 1)
			var got []any
			for _, s := range p.all() {
				if s.Problem != nil {
					got = append(got, s.Problem.Code)
				} else {
					got = append(got, fmt.Sprint(s.Value.(map[string]any)["n"]))
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("%v, not %v", got, c.want)
			}
		})
	}
}

func TestB2MMLBecomesOneSignalForEachSegment(t *testing.T) {
	p := newPlant(t)
	defer p.start(fmt.Sprintf("feeds: [{tag: rows, folder: %q, scan: 20ms, ready: renamed, format: b2mml, b2mml: {material_use: {Ausschuss: scrap}}}]", p.in))()
	p.put("x.xml", "\ufeff"+`<?xml version="1.0" encoding="utf-8"?><ProductionPerformance xmlns="http://www.wbf.org/xml/B2MML-V0401"><ProductionResponse><ID>7</ID><SegmentResponse><ID>A</ID>
<ActualEndTime>2026-01-02T10:00:00</ActualEndTime><MaterialActual><MaterialDefinitionID>M</MaterialDefinitionID><MaterialUse OtherValue="Ausschuss">Other</MaterialUse><Quantity><QuantityString>2</QuantityString></Quantity></MaterialActual></SegmentResponse>
<SegmentResponse><ID>B</ID></SegmentResponse></ProductionResponse></ProductionPerformance>`)
	p.awaitCount(2)
	s := p.all()[0]
	m := s.Value.(map[string]any)
	if m["order_no"] != "7" || m["scrap"] != signal.Number("2") || !s.SourceTime.Equal(time.Date(2026, 1, 2, 10, 0, 0, 0, time.UTC)) || !strings.HasPrefix(string(s.Payload), "<SegmentResponse>") {
		t.Errorf("%+v", s)
	}
}

func TestWrongConfigurationsAreRefusedByName(t *testing.T) {
	p := newPlant(t)
	for section, want := range map[string]string{
		"feeds: []": "nothing to do",
		"feeds: [{tag: a, folder: x, format: excel}]":                                 `"excel"`,
		"feeds: [{tag: a, folder: x, format: csv}, {tag: a, folder: y, format: csv}]": "used twice",
		"feeds: [{tag: a, folder: x, format: csv}, {tag: b, folder: x, format: csv}]": "same files",
		"feeds: [{tag: a, folder: x, format: csv, ready: never}]":                     `"never"`,
		"feeds: [{tag: a, folder: x, format: csv, done: error}]":                      "same folder",
		"feeds: [{tag: a, folder: x, format: csv, csv: {encoding: ebcdic}}]":          `"ebcdic"`,
		"feeds: [{tag: a, folder: x, format: csv, files: ['[']}]":                     "glob",
		"feeds: [{tag: a, folder: x, format: fixed}]":                                 "columns is empty",
		"feeds: [{tag: a, folder: x, format: csv, keep: true, retention: 1h}]":        "retention",
		"feeds: [{tag: a, format: csv}]":                                              "folder",
		"feeds: [{tag: a, folder: x, format: csv, csv: {colums: []}}]":                "colums",
		"work_orders: {folder: x, b2mml: {version: V0300}}":                           "V0300",
		"work_orders: {folder: x, answers: {folder: y, format: csv}}":                 "map needs",
		"sftp: {address: h, user: u}":                                                 "password_file or key_file",
		"sftp: {address: h, user: u, key_file: k, host_key: [x]}":                     "fingerprint",
	} {
		if _, err := Kind.New(p.env(), decodeYAML(section)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, which does not say %q", section, err, want)
		}
	}
}

func TestAConfirmationAmongReportsIsAnAnswer(t *testing.T) {
	p := newPlant(t)
	defer p.start(fmt.Sprintf("feeds: [{tag: rows, folder: %q, scan: 20ms, ready: renamed, format: b2mml, key: [response_id]}]", p.in))()
	p.put("x.xml", `<ConfirmBOD><DataArea><Confirm/><BOD><OriginalApplicationArea><BODID>A/1</BODID></OriginalApplicationArea></BOD></DataArea></ConfirmBOD>`)
	p.awaitCount(1)
	s := p.all()[0]
	if m, ok := s.Value.(map[string]any); !ok || s.Tag != signal.AnswerTag || m["order_no"] != "A" || s.Problem != nil || s.Position == "" {
		t.Errorf("%+v", s)
	}
}

func TestAConditionOnAFieldThatIsNotThereLeavesNothingOutInSilence(t *testing.T) {
	p := newPlant(t)
	defer p.start(p.section("ready: renamed", "where: {typ: C}"))()
	p.put("a.csv", rows(1, 3))
	p.awaitFiles("error/a.csv", 1)
	if why := read(t, filepath.Join(p.in, "error", "a.csv.reason.txt")); !strings.Contains(why, "field_missing") {
		t.Errorf("%s", why)
	}
}

// The agent stops in the middle of a file and is started with a configuration that cannot read it.
func TestAFileThatWasHalfTakenIsRefusedWithItsCount(t *testing.T) {
	p := newPlant(t)
	p.put("a.csv", rows(1, 10))
	stored := make(chan struct{})
	stop := p.run(p.make(p.section("ready: renamed", "batch: 4")), func(ctx context.Context, b signal.Batch) error {
		select {
		case <-stored:
			return errDead
		default:
		}
		defer close(stored)
		return p.emit(ctx, b)
	})
	<-stored
	stop()
	stop = p.start(p.section("ready: renamed", "csv: {columns: [{name: menge}]}"))
	p.put("b.csv", "menge\n5\n")
	p.awaitFiles("error/a.csv", 1)
	p.awaitFiles("done/*/b.csv", 1)
	stop()
	if why := read(t, filepath.Join(p.in, "error", "a.csv.reason.txt")); !strings.Contains(why, "half_taken") || !strings.Contains(why, "first 4 records") {
		t.Errorf("%s", why)
	}
	os.Rename(filepath.Join(p.in, "error", "a.csv"), filepath.Join(p.in, "a.csv"))
	defer p.start(p.section("ready: renamed"))()
	p.awaitFiles("done/*/a.csv", 1)
	var numbers []string
	for _, n := range p.numbers() {
		if n != "<nil>" { // b.csv
			numbers = append(numbers, n)
		}
	}
	if err := counted(numbers, 10); err != nil {
		t.Error(err)
	}
}
