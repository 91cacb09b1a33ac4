package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/cmd/config"
	"github.com/linekeeper/linekeeper/hub"
)

// FuzzHubConfig checks anything as a hub's configuration: every fault is a sentence, and checking it again finds the same.
func FuzzHubConfig(f *testing.F) {
	f.Add([]byte("data_dir: d\nplants: [{name: ulm, agents: [line1]}]\nerps: [{name: a, kind: sandbox, url: http://127.0.0.1:1}]\n"))
	f.Add([]byte("plants: [{name: ''}, {name: ''}]\nroutes: [{plant: x, erp: y}]\n"))
	f.Add([]byte("erps: [{name: a, kind: nothing}, {name: a, kind: tryton, url: ':'}]\napi: {tokens: [{name: a, sha256: zz}]}\n"))
	var sample bytes.Buffer
	if code := run([]string{"sample"}, &sample, &bytes.Buffer{}); code != 0 {
		f.Fatalf("sample: exit code %d", code)
	}
	f.Add(sample.Bytes())
	f.Fuzz(func(t *testing.T, raw []byte) {
		if bytes.Contains(raw, []byte("_file")) || bytes.Contains(raw, []byte("/dev/")) {
			t.Skip("this could make the check read a file of this machine")
		}
		var x file
		if config.Parse("hub.yaml", raw, &x) != nil {
			return
		}
		cfg := x.Config
		cfg.Path = "hub.yaml"
		for _, s := range x.ERPs {
			cfg.ERPs = append(cfg.ERPs, hub.ERPConfig{Name: s.Name, Kind: s.Kind, Line: s.Line, Decode: s.Decode})
		}
		faults := cfg.Check(connectors())
		for _, fault := range faults {
			if strings.TrimSpace(fault.String()) == "" {
				t.Fatalf("a fault without a sentence: %+v", fault)
			}
		}
		if again := cfg.Check(connectors()); len(again) != len(faults) {
			t.Fatalf("checked again, there are %d faults instead of %d", len(again), len(faults))
		}
	})
}
