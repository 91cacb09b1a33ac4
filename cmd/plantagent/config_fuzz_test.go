package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/cmd/config"
)

// FuzzAgentConfig checks anything as an agent's configuration: every fault is a sentence, and a file without faults stays
// without when it is checked again.
func FuzzAgentConfig(f *testing.F) {
	var sample bytes.Buffer
	if err := writeSample(&sample); err != nil {
		f.Fatal(err)
	}
	f.Add(sample.Bytes())
	f.Add([]byte(plain))
	f.Add([]byte(plain + "rules: [{name: a, rule: record, source: s, tag: t, fact: order_state, fields: {order_no: \"payload.x +\"}}]\n"))
	f.Add([]byte("plant: ../x\nagent: 'a b'\ntime_zone: Local\nlisten: \"[::1\"\nbuffer: {business_limit: -1, segment_size: 99999999999TiB}\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if bytes.Contains(raw, []byte("_file")) || bytes.Contains(raw, []byte("/dev/")) {
			t.Skip("this could make the check read a file of this machine")
		}
		var x file
		if config.Parse("f.yaml", raw, &x) != nil {
			return
		}
		cfg := x.Config
		cfg.Path, cfg.Lines = "f.yaml", config.Lines(raw)
		for _, s := range x.Sources {
			cfg.Sources = append(cfg.Sources, agent.SourceConfig{Name: s.Name, Kind: s.Kind, Line: s.Line, Decode: decoder(s)})
		}
		faults := cfg.Check(drivers())
		for _, fault := range faults {
			if strings.TrimSpace(fault.Text) == "" {
				t.Fatalf("a fault without a sentence: %+v", fault)
			}
		}
		if again := cfg.Check(drivers()); len(again) != len(faults) {
			t.Fatalf("checked again, there are %d faults instead of %d: %v, %v", len(again), len(faults), again, faults)
		}
	})
}
