package config

import (
	"errors"
	"strings"
	"testing"
)

type inner struct {
	Topics []string `yaml:"topics"`
	QoS    int      `yaml:"qos"`
}

type outer struct {
	Plant   string    `yaml:"plant"`
	Hub     inner     `yaml:"hub"`
	Sources []Section `yaml:"sources"`
}

func TestUnknownKeyIsRefusedWithLineAndHint(t *testing.T) {
	var c outer
	err := Parse("agent.yaml", []byte("plant: ulm\nhub:\n  topix: [a]\n  qos: one\n"), &c)
	var f *Faults
	if !errors.As(err, &f) {
		t.Fatalf("got %v, want faults", err)
	}
	text := err.Error()
	for _, want := range []string{`agent.yaml:3: unknown key "topix" (did you mean "topics"?)`, "agent.yaml:4: "} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
}

func TestSectionKeepsItsOwnKeysForTheirOwner(t *testing.T) {
	var c outer
	if err := Parse("a", []byte("sources:\n  - name: bus\n    kind: mqtt\n    topics: [x]\n    qoss: 1\n"), &c); err != nil {
		t.Fatal(err)
	}
	s := c.Sources[0]
	if s.Name != "bus" || s.Kind != "mqtt" {
		t.Errorf("section is %q of kind %q", s.Name, s.Kind)
	}
	var in inner
	err := s.Decode(&in)
	if err == nil || !strings.Contains(err.Error(), `:5: unknown key "qoss" (did you mean "qos"?)`) {
		t.Errorf("got %v", err)
	}
}

func TestDuplicateKeyAndEmptyFileAreRefused(t *testing.T) {
	for _, text := range []string{"plant: a\nplant: b\n", "", "# nothing\n", "plant: [\n"} {
		if err := Parse("a", []byte(text), &outer{}); err == nil {
			t.Errorf("%q was accepted", text)
		}
	}
}

func TestEachKeyHasItsLine(t *testing.T) {
	lines := Lines([]byte("plant: ulm\nbuffer:\n  segment_size: 1MiB\nrules:\n  - name: a\n    close: {every: 1s}\n  - name: b\n\n    unit: C62\n"))
	for key, want := range map[string]int{
		"plant": 1, "buffer": 2, "buffer.segment_size": 3, "rules": 4, "rules[0]": 5, "rules[0].close.every": 6, "rules[1]": 7, "rules[1].unit": 9, "nothing": 0,
	} {
		if lines[key] != want {
			t.Errorf("%s is at line %d, want %d", key, lines[key], want)
		}
	}
	if n := Lines([]byte("a: [")); len(n) != 0 {
		t.Errorf("a broken file has lines: %v", n)
	}
}

func TestFileOfCommentsIsCalledEmpty(t *testing.T) {
	for _, text := range []string{"", "\n\n", "# nothing\n  # more\n"} {
		if err := Parse("a", []byte(text), &outer{}); err == nil || err.Error() != "a: the file is empty (start from the commented sample)" {
			t.Errorf("%q: %v", text, err)
		}
	}
}
