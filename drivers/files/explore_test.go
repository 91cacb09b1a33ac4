package files

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
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

// tree is a folder as an MES may have filled it.
func tree(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range map[string]string{
		"conf/a.csv": "Auftrag;Menge;Text\n000123;12,5;gr\xfcn\n", "conf/b.csv": "Auftrag;Menge;Text\n000124;1,5;gr\xfcn\n", "conf/half.csv.tmp": "x",
		"perf/x.xml": `<?xml version="1.0"?><ProductionPerformance xmlns="http://www.wbf.org/xml/B2MML-V0401"><ProductionResponse><ID>7</ID></ProductionResponse></ProductionPerformance>`,
		"c.json":     `[{"n":1}]`, "d.jsonl": "{\"n\":1}\n{\"n\":2}\n", "conf/done/2026-01-01/old.csv": "a,b\n1,2\n",
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		realparts.WriteFile(t, filepath.Join(root, name), text)
	}
	return root
}

func TestFromAFolderToAFeed(t *testing.T) {
	p := newPlant(t)
	root := tree(t)
	offers, err := Kind.Discover(context.Background(), p.env(), root)
	if err != nil || len(offers) != 1 || !strings.Contains(offers[0].Title, "*.json (JSON)") {
		t.Fatalf("%v %+v", err, offers)
	}
	looksInto(t, p, offers[0].Section)
}

func TestFromAnSFTPServerToAFeed(t *testing.T) {
	p := newPlant(t)
	root := tree(t)
	server := realparts.SFTP(t, realparts.SFTPOptions{})
	offers, err := Kind.Discover(context.Background(), p.env(), fmt.Sprintf("sftp://%s@127.0.0.1:%d%s", server.User, server.Port, root))
	if err != nil || len(offers) != 1 || !strings.Contains(offers[0].Section, server.Fingerprint) {
		t.Fatalf("%v %+v", err, offers)
	}
	looksInto(t, p, strings.Replace(offers[0].Section, "key_file: sftp.key", fmt.Sprintf("key_file: %q", server.KeyFile), 1))
}

// looksInto goes the way of a person who sets the agent up: the offer, what there is, a feed of it, and that it works.
func looksInto(t *testing.T, p *plant, section string) {
	t.Helper()
	d, err := Kind.Explore(p.env(), decodeYAML(section))
	if err != nil {
		t.Fatalf("%v\n%s", err, section)
	}
	defer d.(*source).link.close()
	browser := d.(signal.Browser)
	var names []string
	for page := ""; ; {
		entries, next, err := browser.Browse(context.Background(), "", page, 3)
		if err != nil || len(entries) > 3 {
			t.Fatal(err, entries)
		}
		for _, e := range entries {
			names = append(names, e.Path)
		}
		if page = next; page == "" {
			break
		}
	}
	if fmt.Sprint(names) != "[conf perf *.json *.jsonl]" {
		t.Errorf("at the top %v", names)
	}
	found := map[string]signal.Entry{}
	if err := browser.Find(context.Background(), "", "**", func(e signal.Entry) bool { found[e.Path] = e; return true }); err != nil || len(found) != 4 {
		t.Fatalf("%v %v", err, found)
	}
	only := 0
	if err := browser.Find(context.Background(), "", "*/*.csv", func(signal.Entry) bool { only++; return false }); err != nil || only != 1 {
		t.Errorf("%v, %d found", err, only)
	}
	for _, want := range []string{`folder: "conf"`, "format: csv", "encoding: windows-1252", `decimal: ","`, `name: "Menge", type: number`} {
		if !strings.Contains(found["conf/*.csv"].Tag, want) {
			t.Errorf("no %q in\n%s", want, found["conf/*.csv"].Tag)
		}
	}
	fields, _, err := browser.Browse(context.Background(), "conf/*.csv", "", 100)
	if err != nil || len(fields) != 3 || fields[0].Name != "Auftrag" || !strings.HasPrefix(fields[0].Value, "00012") || fields[2].Value != "grün" {
		t.Errorf("%v %+v", err, fields)
	}
	fields, _, err = browser.Browse(context.Background(), "perf/*.xml", "", 100)
	if err != nil || !slices.ContainsFunc(fields, func(e signal.Entry) bool { return e.Name == "order_no" && e.Value == "7" }) {
		t.Errorf("%v %+v", err, fields)
	}
	feeds := "feeds:\n"
	for _, e := range found {
		lines := strings.Split(strings.TrimSpace(e.Tag), "\n")
		feeds += "  - scan: 20ms\n    settle: 20ms\n    " + strings.Join(lines, "\n    ") + "\n"
	}
	feeds = strings.Replace(feeds, `tag: "records"`, `tag: "records2"`, 1)
	defer p.start(section + feeds)()
	p.awaitCount(6)
	for _, s := range p.all() {
		if s.Problem != nil {
			t.Errorf("%+v", s.Problem)
		}
	}
}

func TestBrowseWithoutRootShowsTheFeedsFolders(t *testing.T) {
	p := newPlant(t)
	s := p.make(p.section("csv: {columns: [{name: n, type: number, as: number}]}"))
	p.put("a.csv", rows(7, 7))
	top, _, err := s.Browse(context.Background(), "", "", 10)
	if err != nil || len(top) != 1 || top[0].Name != "rows" {
		t.Fatalf("%v %+v", err, top)
	}
	fields, _, err := s.Browse(context.Background(), top[0].ID+"/*.csv", "", 10)
	if err != nil || len(fields) != 2 || fields[0].Name != "number" || fields[0].Type != "number" || fields[0].Value != "7" {
		t.Errorf("%v %+v", err, fields)
	}
	if _, err := Kind.Discover(context.Background(), p.env(), filepath.Join(p.in, "no")); err == nil {
		t.Error("a path that is not there was accepted")
	}
}
