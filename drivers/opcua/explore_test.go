package opcua

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// all pages of what stands below a node.
func browseAll(t *testing.T, d signal.Browser, at string, limit int) (list []signal.Entry) {
	t.Helper()
	page := ""
	for range 10_000 {
		entries, next, err := d.Browse(t.Context(), at, page, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) > limit {
			t.Fatalf("%d entries on a page of %d", len(entries), limit)
		}
		list = append(list, entries...)
		if page = next; page == "" {
			return list
		}
	}
	t.Fatal("the pages have no end")
	return nil
}

func named(list []signal.Entry, name string) signal.Entry {
	for _, e := range list {
		if e.Name == name {
			return e
		}
	}
	return signal.Entry{}
}

func testBrowse(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(plant.Endpoint(), 1)
	d := b.driver(config, nil)
	before := sessionsOf(t, plant).Sessions

	top := browseAll(t, d, "", 3)
	folder := named(top, "Plant")
	if d := cmp.Diff(signal.Entry{ID: "nsu=urn:plant:machines;s=Plant", Path: "Plant", Name: "Plant", Kind: "Object", Children: true}, folder); d != "" {
		t.Errorf("the top: %s", d)
	}
	tree := browseAll(t, d, "nsu=urn:plant:machines;s=Tree", 400)
	var leaves []string
	for _, e := range tree {
		if strings.HasPrefix(e.Name, "Leaf") {
			leaves = append(leaves, e.Value)
		}
	}
	slices.Sort(leaves)
	if len(slices.Compact(leaves)) != 1500 {
		t.Errorf("%d leaves of 1500", len(leaves))
	}
	warm := named(tree, "Oil/Temperature")
	want := signal.Entry{ID: "nsu=urn:plant:machines;s=Tree.Temperature", Path: "Plant/Tree/Oil&/Temperature", Name: "Oil/Temperature",
		Kind: "Variable", Type: "Double", Value: "71.5", Unit: "°C", Readable: true,
		Tag: "tag: tree.oil_temperature\nnode: nsu=urn:plant:machines;s=Tree.Temperature\n"}
	if d := cmp.Diff(want, warm); d != "" {
		t.Errorf("a value with a unit: %s", d)
	}
	press := browseAll(t, d, "Plant/Press1", 100)
	if e := named(press, "Good"); e.Path != "Plant/Press1/Good" || e.Type != "UInt32" || !e.Writable || e.Children || e.Tag == "" {
		t.Errorf("by its path: %+v", e)
	}
	types := browseAll(t, d, "Plant", 7)
	if e := named(types, "Recipe"); e.Type != "Recipe" || e.Kind != "Variable" {
		t.Errorf("a type of the server's own: %+v", e)
	}
	if n := sessionsOf(t, plant).Sessions; n > before {
		t.Errorf("%d sessions are left, %d before", n, before)
	}
	for _, wrong := range []struct{ at, page, want string }{
		{"Plant/Nowhere", "", "Nowhere"}, {"nsu=urn:nobody;s=A", "", "urn:nobody"}, {"ns=2;s=Nobody", "", "BadNodeIdUnknown"}, {"", "x", `page "x"`},
	} {
		if list, _, err := d.Browse(t.Context(), wrong.at, wrong.page, 10); err == nil || !strings.Contains(err.Error(), wrong.want) {
			t.Errorf("%q page %q: %v, %v", wrong.at, wrong.page, list, err)
		}
	}
	// What a browser offers is what the configuration takes.
	var made Node
	if err := yaml.Load([]byte(warm.Tag), &made, yaml.WithKnownFields()); err != nil || made.validateName() != nil {
		t.Errorf("the tag is no node: %v", err)
	}
}

func testFind(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(plant.Endpoint(), 1)
	d := b.driver(config, nil)
	find := func(at, glob string, most int) (paths []string) {
		t.Helper()
		err := d.Find(t.Context(), at, glob, func(e signal.Entry) bool {
			paths = append(paths, e.Path)
			if !e.Readable || e.Tag == "" {
				t.Errorf("it cannot become a tag: %+v", e)
			}
			return len(paths) < most
		})
		if err != nil {
			t.Fatalf("find %q below %q: %v", glob, at, err)
		}
		slices.Sort(paths)
		return paths
	}
	for _, tt := range []struct {
		at, glob string
		want     []string
	}{
		{"", "Plant/Press*/Good", []string{"Plant/Press1/Good", "Plant/Press2/Good"}},
		{"", "**/press2/?ood", []string{"Plant/Press2/Good"}},
		{"Plant/Press1", "**", []string{"Plant/Press1/Good", "Plant/Press1/Order", "Plant/Press1/Scrap", "Plant/Press1/State"}},
		{"", "Plant/Tree/Plant/Press1/Good", []string{"Plant/Tree/Plant/Press1/Good"}},
		{"", "Server/ServerStatus/CurrentTime", []string{"Server/ServerStatus/CurrentTime"}},
		{"", "**/CurrentTime", nil},
		{"", "**/Oil&/*", []string{"Plant/Tree/Oil&/Temperature"}},
		{"", "Nowhere/**", nil},
	} {
		if d := cmp.Diff(tt.want, find(tt.at, tt.glob, 100)); d != "" {
			t.Errorf("%q below %q: %s", tt.glob, tt.at, d)
		}
	}
	if n := len(find("", "Plant/Tree/Leaf*", 10_000)); n != 1500 {
		t.Errorf("%d of 1500 leaves", n)
	}
	if n := len(find("", "**", 7)); n != 7 {
		t.Errorf("%d found, 7 wanted", n)
	}
	every := find("", "**", 100_000)
	if len(slices.Compact(slices.Clone(every))) != len(every) || len(every) < 1500 {
		t.Errorf("%d found, some of them twice", len(every))
	}
}

// testBrowseWhileReading browses in the session that reads.
func testBrowseWhileReading(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(plant.Endpoint(), 1)
	d := b.driver(config, nil)
	b.start(d)
	b.awaitState(signal.StateOK)
	before := sessionsOf(t, plant).Sessions
	for range 3 {
		if list := browseAll(t, d, "Plant/Tree", 1000); len(list) < 1500 {
			t.Errorf("%d entries", len(list))
		}
		if n := sessionsOf(t, plant).Sessions; n != before {
			t.Errorf("%d sessions, %d before", n, before)
		}
	}
	plant.Post(t, "/burst", map[string]any{"times": 3})
	b.awaitCount("c0", plant.Counts(t).Counters["Count.0"])
	if s := b.state(); !strings.HasPrefix(s, string(signal.StateOK)) {
		t.Errorf("state is %q", s)
	}
}

func TestWhatATagIsCalled(t *testing.T) {
	for _, tt := range []struct {
		path []browseName
		want string
	}{
		{[]browseName{{0, "Plant"}, {2, "Press1"}, {2, "Good"}}, "press1.good"},
		{[]browseName{{3, `"DB Press"`}, {3, `"Good Parts"`}}, "db_press.good_parts"},
		{[]browseName{{3, "Good"}}, "good"},
		{nil, ""},
	} {
		if got := tagName(tt.path); got != tt.want {
			t.Errorf("%v: %q", tt.path, got)
		}
	}
	namespaces := []string{"http://opcfoundation.org/UA/", "urn:server", "http://maker.example/press/"}
	got := namedPath([]browseName{{0, "Server"}, {2, "Line/1"}, {2, "Good"}, {0, "Sum"}, {9, "x"}}, namespaces)
	if want := "Objects/Server/<http://maker.example/press/>Line&/1/Good/0:Sum/9:x"; got != want {
		t.Errorf("path is %q", got)
	}
	if p, err := parsePath(got); err != nil || fmt.Sprint(p.String()) != got {
		t.Errorf("it is read as %v, %v", p, err)
	}
}
