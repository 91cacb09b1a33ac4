// Package layers holds the rule of who may know whom, as a test.
//
// It owns the table of layers. It promises that an import which points upward or sideways is named, with the reason. It
// holds no product code.
package layers

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path"
	"sort"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const module = "github.com/linekeeper/linekeeper/"

// side keeps agent and hub apart: they share proto and nothing else.
type side string

const (
	shared side = "shared"
	agents side = "agent"
	hubs   side = "hub"
	tools  side = "tools"
)

type place struct {
	pattern string
	side    side
	layer   int
	why     string
}

// table is read from the top; the first pattern that matches a package decides.
var table = []place{
	{"proto/*", shared, 0, "the wire knows nobody"},
	{"proto/linekeeper/v1", shared, 0, "the wire knows nobody"},

	{"agent/signal", agents, 0, "the vocabulary of drivers knows nobody"},
	{"agent/status", agents, 0, "the vocabulary of the page knows nobody"},
	{"agent/buffer", agents, 0, "the buffer stores bytes and knows no facts"},
	{"agent/buffer/bufferbench", agents, 1, "measures the buffer"},
	{"agent/buffer/faultdisk", agents, 0, "a disk for tests knows nobody"},
	{"agent/translate", agents, 1, "pure rules"},
	{"agent/recording", agents, 2, "writes down what the rules were given, and replays it"},
	{"agent/inbox", agents, 1, ""},
	{"agent/uplink", agents, 1, ""},
	{"agent/localui", agents, 1, ""},
	{"agent/signal/drivertest", agents, 1, "the suite every driver passes"},
	{"drivers/polling", agents, 1, "what drivers of sources that are asked share"},
	{"drivers/payload", agents, 1, "decodes what sources send as text or bytes; shared by the drivers"},
	{"drivers/mqttlink", agents, 1, "a connection to an MQTT broker; shared by the drivers that speak it"},
	{"drivers/b2mml", agents, 1, "reads and writes B2MML documents; shared by the drivers"},
	{"drivers/*/*", agents, 1, "a part of a driver: knows agent/signal and its siblings of the same driver"},
	{"drivers/*", agents, 2, "a driver knows agent/signal and its own parts only"},
	{"agent", agents, 3, "assembles the agent"},
	{"agent/propose", agents, 1, "pure: tags and rules out of names and types"},
	{"agent/setup", agents, 4, "leads to a first fact with the assembled agent"},
	{"agent/drill", agents, 4, "runs the assembled agent through disasters"},

	{"hub/object", hubs, 1, "the vocabulary of the hub knows a fact's key and nobody else"},
	{"hub/wire", hubs, 2, "the way between wire and vocabulary"},
	{"hub/connector", hubs, 2, "the contract toward outside systems"},
	{"hub/tally", hubs, 2, "pure sums"},
	{"hub/reconcile", hubs, 2, "pure comparison"},
	{"hub/mapping", hubs, 2, "pure: the words of plant and system, exact factors"},
	{"hub/webhook", hubs, 2, "signatures of what goes over HTTP, both ways"},
	{"hub/checking", hubs, 5, "compares by the clock; sees store, connectors and the posting engine's doors"},
	{"hub/trading", hubs, 5, "business objects of outside systems, read and written; sees the store, connectors and the leave to ask that the posting engine gives"},
	{"hub/store", hubs, 3, ""},
	{"hub/store/faultvfs", hubs, 1, "a disk for tests knows nobody"},
	{"hub/connector/exchange", hubs, 2, "one HTTP exchange; shared by the connectors"},
	{"hub/connector/folder", hubs, 2, "files down to the disk; shared by the connectors that exchange some"},
	{"hub/connector/secret", hubs, 2, "what a connector logs in with; shared by them"},
	{"hub/connector/generic", hubs, 3, "the language of connectors by configuration; shared by them"},
	{"hub/connector/connectortest", hubs, 3, "the suite every connector passes"},
	{"hub/connector/sandbox/erp", hubs, 3, "an ERP, not a part of the hub"},
	{"hub/connector/*/*double", hubs, 3, "a stand-in for an ERP, not a part of the hub"},
	{"hub/connector/restapi", hubs, 4, "a connector by configuration: knows hub/connector/generic as well"},
	{"hub/connector/filedrop", hubs, 4, "a connector by configuration: knows hub/connector/generic as well"},
	{"hub/connector/*", hubs, 3, "a connector knows hub/connector and hub/object only"},
	{"hub/ingest", hubs, 4, ""},
	{"hub/ingest/ingestbench", hubs, 5, "measures the ingest"},
	{"hub/tunnel", hubs, 4, "carries bytes and knows no part of the hub"},
	{"hub/posting", hubs, 4, ""},
	{"hub/dispatch", hubs, 4, ""},
	{"hub/desk", hubs, 4, "works off what people asked for; sees the store and one door of the posting engine"},
	{"hub/fleet", hubs, 4, ""},
	{"hub/inbox", hubs, 4, "what a person must see to, readable; sees the store"},
	{"hub/lookout", hubs, 5, "raises alarms about what is silent; sees the store and the posting engine's codes"},
	{"hub/api", hubs, 5, ""},
	{"hub/notify/notifytest", hubs, 1, "a mail server for tests, not a part of the hub"},
	{"hub/notify", hubs, 5, "tells people; sees the store and the inbox"},
	{"hub/console", hubs, 6, "the console uses what the API offers everybody"},
	{"hub", hubs, 7, "assembles the hub"},

	{"cmd/config", tools, 7, "reads configuration files for the commands"},
	{"cmd/demo/plant/uaserver", tools, 7, "the demo machines' OPC UA server"},
	{"cmd/demo/plant", tools, 8, "the demo's machines and MES"},
	{"cmd/sim/soak", tools, 9, "runs the simulation's tests"},
	{"cmd/*", tools, 9, "commands"},
	{"buildscripts/realparts", tools, 8, "starts real servers for tests"},
	{"buildscripts/*", tools, 9, "builds and checks"},
	{"packaging/*", tools, 9, "packages"},
}

func find(pkg string) (place, bool) {
	for _, p := range table {
		if ok, _ := path.Match(p.pattern, pkg); ok {
			return p, true
		}
	}
	return place{}, false
}

// narrow lists the packages that may see only a few others, whatever their layer.
var narrow = []struct {
	pattern string
	allowed []string
	why     string
}{
	{"drivers/*", []string{"agent/signal", "drivers/payload", "drivers/polling", "drivers/b2mml", "drivers/mqttlink"}, "a driver sees agent/signal, the shared decoders and its own parts only, so that it can be written without knowing the agent"},
	{"drivers/*/*", []string{"agent/signal", "drivers/payload", "drivers/polling", "drivers/b2mml", "drivers/mqttlink"}, "a part of a driver sees no more than the driver"},
	{"hub/connector/*", []string{"hub/connector", "hub/connector/exchange", "hub/connector/folder", "hub/connector/secret", "hub/connector/generic", "hub/object", "proto/factkey", "proto/exact"}, "a connector sees hub/connector, its shared parts and hub/object only"},
	{"hub/console", []string{"hub/api"}, "the console calls only what the API offers everybody"},
	{"agent/translate", []string{"agent/signal", "proto/*", "proto/linekeeper/v1"}, "translate is pure: no buffer, no network"},
	{"hub/tally", []string{"hub/object", "proto/factkey"}, "tally is pure"},
	{"hub/reconcile", []string{"hub/object", "proto/factkey"}, "reconcile is pure"},
	{"hub/mapping", []string{"hub/object", "proto/factkey"}, "mapping is pure"},
}

// pure lists packages that must not touch clock, net or files, and what gives them away.
var pure = map[string][]string{
	"agent/translate": {"net", "os", "net/http", "database/sql"},
	"hub/object":      {"net", "os", "net/http", "database/sql"},
	"hub/tally":       {"net", "os", "net/http", "database/sql"},
	"hub/reconcile":   {"net", "os", "net/http", "database/sql"},
	"hub/mapping":     {"net", "os", "net/http", "database/sql"},
}

type listed struct {
	ImportPath string
	Imports    []string
	Doc        string
	GoFiles    []string
}

func list(t *testing.T) []listed {
	t.Helper()
	cmd := exec.Command("go", "list", "-json=ImportPath,Imports,Doc,GoFiles", "./...")
	cmd.Dir = realparts.Root()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("list packages: %v", err)
	}
	var all []listed
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listed
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

func TestImportsPointOnlyDownward(t *testing.T) {
	for _, p := range list(t) {
		name := strings.TrimPrefix(p.ImportPath, module)
		from, ok := find(name)
		if !ok {
			t.Errorf("package %s has no place in the table of layers: add it there with its reason", name)
			continue
		}
		for _, imp := range p.Imports {
			for _, no := range pure[name] {
				if imp == no {
					t.Errorf("%s imports %s: it must touch no clock, net or file", name, imp)
				}
			}
			if !strings.HasPrefix(imp, module) {
				continue
			}
			target := strings.TrimPrefix(imp, module)
			to, ok := find(target)
			if !ok {
				continue // reported for the package itself
			}
			switch {
			case from.side == agents && to.side == hubs, from.side == hubs && to.side == agents:
				t.Errorf("%s imports %s: agent and hub share proto and nothing else", name, target)
			case to.layer >= from.layer:
				t.Errorf("%s (layer %d) imports %s (layer %d): imports point to lower layers, never upward or sideways", name, from.layer, target, to.layer)
			}
			for _, n := range narrow {
				if ok, _ := path.Match(n.pattern, name); ok && !allowed(n.allowed, target) && !strings.HasPrefix(target, name+"/") && name != "hub/connector/connectortest" {
					t.Errorf("%s imports %s: %s", name, target, n.why)
				}
			}
		}
	}
}

func allowed(patterns []string, target string) bool {
	for _, p := range patterns {
		if ok, _ := path.Match(p, target); ok {
			return true
		}
	}
	return false
}

func TestEveryPackageSaysWhatItOwns(t *testing.T) {
	for _, p := range list(t) {
		if len(p.GoFiles) > 0 && len(strings.TrimSpace(p.Doc)) < 40 {
			t.Errorf("package %s has no package comment that says what it owns, promises and never does", strings.TrimPrefix(p.ImportPath, module))
		}
	}
}

// The rule is worth something only if it can fail.
func TestTheTableTellsUpwardFromDownward(t *testing.T) {
	var names []string
	for _, n := range []string{"drivers/opcua", "hub/connector/tryton", "agent", "hub", "cmd/plantagent"} {
		if p, ok := find(n); ok {
			names = append(names, n)
			_ = p
		}
	}
	sort.Strings(names)
	if len(names) != 5 {
		t.Fatalf("only %v have a place", names)
	}
	d, _ := find("drivers/opcua")
	a, _ := find("agent")
	if d.layer >= a.layer {
		t.Error("a driver must stand below the agent that assembles it")
	}
	if c, _ := find("hub/connector/connectortest"); c.layer != 3 || c.pattern != "hub/connector/connectortest" {
		t.Errorf("hub/connector/connectortest matched %q", c.pattern)
	}
}
