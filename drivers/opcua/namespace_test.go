package opcua

import (
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// TestAFirmwareWithOneNamespaceMoreChangesNoTag updates the server: the index of the machines' namespace is another one then.
func TestAFirmwareWithOneNamespaceMoreChangesNoTag(t *testing.T) {
	t.Parallel()
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{Counters: 1, Machines: 1})
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(plant.Endpoint(), 1) // by index: ns=2;s=Count.0
	config += `
  - {tag: named, node: "nsu=urn:plant:machines;s=Press1.Good", sampling: 0s}
  - {tag: placed, path: "Objects/<urn:plant:machines>Plant/Press1/Good", sampling: 0s}
`
	b.start(b.driver(config, nil))
	b.awaitState(signal.StateOK)
	count := func() {
		t.Helper()
		plant.Post(t, "/burst", map[string]any{"times": 2})
		plant.Post(t, "/count", map[string]any{"machine": "Press1", "good": 2})
		truth := plant.Counts(t)
		b.awaitCount("c0", truth.Counters["Count.0"])
		b.awaitCount("named", truth.Machines["Press1"].Good)
		b.awaitCount("placed", truth.Machines["Press1"].Good)
	}
	count()
	plant.Kill(syscall.SIGKILL)
	realparts.WriteFile(t, filepath.Join(plant.Dir, "updated"), "")
	if err := plant.Run(); err != nil {
		t.Fatal(err)
	}
	count()
	_, facts := scoutLink(t, b.driver(config, nil))
	if index, err := namespaceIndex(realparts.PlantNamespace, facts.namespaces); err != nil || index != 3 {
		t.Errorf("the server was not updated: %v", facts.namespaces)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for key, p := range b.problems {
		if strings.HasPrefix(key, "node:") {
			t.Errorf("problem: %+v", p)
		}
	}
}
