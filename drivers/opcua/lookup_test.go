package opcua

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// scoutLink connects as a driver of this configuration would.
func scoutLink(t *testing.T, d *driver) (*link, serverFacts) {
	t.Helper()
	r := d.scout()
	if err := r.loadOwn(); err != nil {
		t.Fatal(err)
	}
	l, err := r.connect(t.Context())
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { l.leave(t.Context()) })
	facts, err := l.facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l, facts
}

func testPaths(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(plant.Endpoint(), 1)
	l, facts := scoutLink(t, b.driver(config, nil))
	texts := []string{"Objects/<urn:plant:machines>Plant/Press1/Good", "Plant/Press1/Good", "Objects/2:Plant/2:Press1/2:Good",
		"Objects/<urn:plant:machines>Plant/Press9/Good", "Plant/Press9", "<urn:nobody>Plant", "Server/ServerStatus/CurrentTime",
		"Plant/Tree/Oil&/Temperature", "Plant/Tree/Plant/Tree/Leaf3"}
	for _, size := range []int{0, 1, 2, 100} {
		facts.pathsPerCall = size
		var paths []browsePath
		for _, s := range texts {
			p, err := parsePath(s)
			if err != nil {
				t.Fatal(err)
			}
			paths = append(paths, p)
		}
		got, err := l.findPaths(t.Context(), paths, facts)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"nsu=urn:plant:machines;s=Press1.Good", "nsu=urn:plant:machines;s=Press1.Good",
			"nsu=urn:plant:machines;s=Press1.Good", "Press9", "Press9", "urn:nobody", "i=2258", "nsu=urn:plant:machines;s=Tree.Temperature",
			"nsu=urn:plant:machines;s=Tree.3"} {
			if got[i].err != nil && strings.Contains(got[i].err.Error(), want) {
				continue
			}
			if got[i].id == nil || nodeText(got[i].id, facts.namespaces) != want {
				t.Errorf("%d in a call: %s is %v, %v; want %q", size, texts[i], got[i].id, got[i].err, want)
			}
		}
	}
}

// testDownload loads a machine's program anew while it counts: its nodes get other ids.
func testDownload(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, _ := counterConfig(plant.Endpoint(), 1)
	config += `
  - {tag: good, path: "Objects/<urn:plant:machines>Plant/Press1/Good", sampling: 0s}
  - {tag: scrap, node: "ns=2;s=Press1.Scrap", path: "Plant/Press1/Scrap", sampling: 0s}
  - {tag: order, node: "ns=2;s=Press1.Order", path: "Plant/Press1/Nowhere", sampling: 0s}
  - {tag: lost, path: "Plant/Press1/Nowhere", sampling: 0s}
`
	b.start(b.driver(config, func(p *pace) { p.item, p.itemMax = 200*time.Millisecond, 500*time.Millisecond }))
	count := func(n int) {
		t.Helper()
		for range n {
			plant.Post(t, "/count", map[string]any{"machine": "Press1", "good": 1, "scrap": 1})
		}
		truth := plant.Counts(t).Machines["Press1"]
		b.awaitCount("good", truth.Good)
		b.awaitCount("scrap", truth.Scrap)
	}
	count(3)
	b.awaitProblem("node:lost", "bad_node")
	if p := b.problem("node:lost"); !strings.Contains(p.Reason, "Plant/Press1/Nowhere") || !strings.Contains(p.Reason, "BadNoMatch") && !strings.Contains(p.Reason, `no "Nowhere" below`) {
		t.Errorf("problem is %+v", p)
	}
	realparts.Eventually(t, 20*time.Second, "the order's number by its id", func() error {
		if len(b.values("order")) == 0 {
			return fmt.Errorf("none; problem %+v", b.problem("node:order"))
		}
		return nil
	})
	// Twice while the session lives, and once while it is gone.
	for range 2 {
		plant.Post(t, "/download", map[string]any{"machine": "Press1"})
		count(3)
	}
	b.mu.Lock()
	for _, s := range b.states {
		if strings.HasPrefix(s, string(signal.StateFailed)) {
			t.Errorf("the connection was lost over it: %s", s)
		}
	}
	b.mu.Unlock()
	plant.Post(t, "/download", map[string]any{"machine": "Press1"})
	plant.Post(t, "/close-sessions", nil)
	count(3)
	b.awaitState(signal.StateOK)
	for _, tag := range []string{"good", "scrap"} {
		list := b.values(tag)
		for i := 1; i < len(list); i++ {
			if list[i].Quality != signal.Good {
				continue // the old id's last word
			}
			last := i - 1
			for last >= 0 && list[last].Quality != signal.Good {
				last--
			}
			if last >= 0 && number(t, list[i]) < number(t, list[last]) {
				t.Errorf("%s went back from %v to %v", tag, list[last].Value, list[i].Value)
			}
		}
		if p := b.problem("node:" + tag); p != nil {
			t.Errorf("problem remains: %+v", p)
		}
	}
	t.Logf("three downloads, one without a session: %d values of good pieces", len(b.values("good")))
}
