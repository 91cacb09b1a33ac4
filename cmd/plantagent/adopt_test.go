package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/agent/localui"
)

const adoptable = `# our press
plant: ulm   # the site
agent: line1
time_zone: Europe/Berlin

sources:
  - name: press
    kind: opcua
    endpoint: opc.tcp://127.0.0.1:4840
    anonymous: true
    security_policy: None
    nodes:
      - tag: good
        node: ns=2;s=Good

      # what is thrown away
      - {tag: scrap, node: "ns=2;s=Scrap"}
  - name: broker
    kind: mqtt
    broker: tcp://127.0.0.1:1883
    topics:
      - tag: t
        topic: t

rules:
  # the count
  - name: good
    rule: counter
    source: press
    tag: good
    counts: yield
    work_center: p1
    unit: C62

# the end
units: {Stk: C62}
`

func TestAPickedTagGoesIntoTheFileAndNothingElseChanges(t *testing.T) {
	file := filepath.Join(t.TempDir(), "plantagent.yaml")
	if err := os.WriteFile(file, []byte(adoptable), 0o600); err != nil {
		t.Fatal(err)
	}
	p := localui.Proposal{Source: "press", Tags: "- tag: rework\n  node: ns=2;s=Rework\n", Rules: "# Proposed.\n- name: press rework\n  rule: reading\n  source: press\n  tag: rework\n"}
	if _, err := adopt(file, p); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Replace(adoptable, "  - name: broker", "      - tag: rework\n        node: ns=2;s=Rework\n  - name: broker", 1)
	want = strings.Replace(want, "    unit: C62\n", "    unit: C62\n  # Proposed.\n  - name: press rework\n    rule: reading\n    source: press\n    tag: rework\n", 1)
	if string(got) != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	if kept, _ := os.ReadFile(file + ".bak"); string(kept) != adoptable {
		t.Error("the old file was not kept")
	}
}

func TestAProposalThatDoesNotFitChangesNothing(t *testing.T) {
	for name, c := range map[string]struct {
		p    localui.Proposal
		want string
	}{
		"a source that is not there": {localui.Proposal{Source: "oven", Tags: "- tag: x\n  node: i=1\n"}, "no source"},
		"a tag that is there":        {localui.Proposal{Source: "press", Tags: "- tag: good\n  node: ns=2;s=Good2\n"}, "used twice"},
		"a rule with a fault":        {localui.Proposal{Source: "press", Rules: "- name: x\n  rule: guess\n  source: press\n  tag: good\n"}, "nothing was changed"},
		"text that is no YAML":       {localui.Proposal{Source: "press", Tags: "- {tag: x\n"}, "nothing was changed"},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "plantagent.yaml")
			if err := os.WriteFile(file, []byte(adoptable), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := adopt(file, c.p); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			left, _ := os.ReadDir(filepath.Dir(file))
			if got, _ := os.ReadFile(file); string(got) != adoptable || len(left) != 1 {
				t.Errorf("the file changed, or %v lies beside it", left)
			}
		})
	}
}
