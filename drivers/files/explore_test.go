package files

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func failed(steps []signal.Step) (codes []string) {
	for _, s := range steps {
		if s.Problem != nil {
			codes = append(codes, s.Problem.Code)
		}
	}
	return codes
}

func TestProbeGoesTheWholeWayAndLeavesNothing(t *testing.T) {
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	p := newPlant(t)
	p.put("a.csv", rows(1, 3))
	orders := t.TempDir()
	good := sftpSection(server) + p.section("csv: {columns: [{name: n, type: number}]}") + fmt.Sprintf("work_orders: {folder: %q}\n", orders)
	steps := p.make(good).Probe(context.Background())
	if bad := failed(steps); len(bad) != 0 || len(steps) != 5 {
		t.Errorf("%v, %d steps: %+v", bad, len(steps), steps)
	}
	if left := append(p.glob("*"), p.glob(".*")...); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
	for section, want := range map[string]string{
		strings.Replace(good, "name: n,", "name: menge,", 1):                            "column_missing",
		strings.Replace(good, p.in, filepath.Join(p.in, "x"), 1):                        "folder_unreachable",
		strings.Replace(good, server.Fingerprint, "SHA256:"+strings.Repeat("A", 43), 1): "host_key_unknown",
	} {
		if bad := failed(p.make(section).Probe(context.Background())); len(bad) != 1 || bad[0] != want {
			t.Errorf("%v, not %s", bad, want)
		}
	}
}

func TestBrowseShowsFeedsFilesAndFields(t *testing.T) {
	p := newPlant(t)
	s := p.make(p.section("files: ['*.csv']"))
	for i := range 5 {
		p.put(fmt.Sprintf("f%d.csv", i), "Auftrag;Menge;Zeit\n000123;12,5;2026-01-02 10:00\n")
	}
	p.put("other.txt", "x")
	top, next, err := s.Browse(context.Background(), "", "", 10)
	if err != nil || next != "" || len(top) != 1 || top[0].ID != "rows" || !top[0].Children {
		t.Fatalf("%v %q %+v", err, next, top)
	}
	var names []string
	for page := ""; ; {
		entries, next, err := s.Browse(context.Background(), "rows", page, 2)
		if err != nil || len(entries) > 2 {
			t.Fatal(err, entries)
		}
		for _, e := range entries {
			names = append(names, e.Name)
		}
		if page = next; page == "" {
			break
		}
	}
	if fmt.Sprint(names) != "[f0.csv f1.csv f2.csv f3.csv f4.csv]" {
		t.Errorf("files %v", names)
	}
	var found []string
	if err := s.Find(context.Background(), "", "rows/f3.csv/*", func(e signal.Entry) bool {
		found = append(found, e.Name+"="+e.Value+" "+e.Tag)
		return true
	}); err != nil {
		t.Fatal(err)
	}
	want := `[Auftrag=000123 {name: "Auftrag", type: text} Menge=12,5 {name: "Menge", type: number} Zeit=2026-01-02 10:00 {name: "Zeit", type: time}]`
	if fmt.Sprint(found) != want {
		t.Errorf("%v", found)
	}
	count := 0
	if err := s.Find(context.Background(), "", "**/Menge", func(signal.Entry) bool { count++; return count < 3 }); err != nil || count != 3 {
		t.Errorf("%v, %d found before it was told to stop", err, count)
	}
}

func TestDiscoverProposesWhatWorks(t *testing.T) {
	p := newPlant(t)
	p.put("a.csv", "Auftrag;Menge;Text\n000123;12,5;gr\xfcn\n")
	p.put("b.xml", `<?xml version="1.0"?><SyncProductionPerformance xmlns="http://www.wbf.org/xml/B2MML-V0401"/>`)
	p.put("c.json", `[{"n":1}]`)
	p.put("d.jsonl", "{\"n\":1}\n{\"n\":2}\n")
	offers, err := Kind.Discover(context.Background(), p.env(), p.in)
	if err != nil || len(offers) != 4 {
		t.Fatalf("%v %+v", err, offers)
	}
	all := ""
	for _, o := range offers {
		if _, err := Kind.New(p.env(), decodeYAML(o.Section)); err != nil {
			t.Errorf("%s: %v\n%s", o.Title, err, o.Section)
		}
		all += o.Section
	}
	for _, want := range []string{"format: csv", "encoding: windows-1252", `decimal: ","`, `name: "Menge", type: number`, "format: b2mml", "format: json\n", "format: jsonl"} {
		if !strings.Contains(all, want) {
			t.Errorf("no %q in\n%s", want, all)
		}
	}
	if _, err := Kind.Discover(context.Background(), p.env(), filepath.Join(p.in, "no")); err == nil {
		t.Error("a path that is not there was accepted")
	}
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	offers, err = Kind.Discover(context.Background(), p.env(), fmt.Sprintf("sftp://%s@127.0.0.1:%d%s", server.User, server.Port, p.in))
	if err != nil || len(offers) != 1 || !strings.Contains(offers[0].Section, server.Fingerprint) {
		t.Fatalf("%v %+v", err, offers)
	}
	if _, err := Kind.New(p.env(), decodeYAML(offers[0].Section)); err != nil {
		t.Errorf("%v\n%s", err, offers[0].Section)
	}
}
