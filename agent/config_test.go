package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
)

func TestSizesAreReadAsWritten(t *testing.T) {
	for text, want := range map[string]Size{
		"67108864": 64 << 20, "64MiB": 64 << 20, "2GiB": 2 << 30, " 1 TiB ": 1 << 40, "512KiB": 512 << 10, "0": 0, "12B": 12, "none": -1,
	} {
		var s Size
		if err := s.UnmarshalText([]byte(text)); err != nil || s != want {
			t.Errorf("%q is %d (%v), want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "lots", "-5", "1.5GiB", "64MB", "64mib", "9999999TiB", "GiB", "5 5", "None"} {
		s := Size(7)
		err := s.UnmarshalText([]byte(text))
		if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%q", text)) || !strings.Contains(err.Error(), "for example") || s != 7 {
			t.Errorf("%q gave %d, %v", text, s, err)
		}
	}
}

func TestEachFaultIsNamedWithItsLineAndNextStep(t *testing.T) {
	ok := func(any) error { return nil }
	for _, c := range []struct {
		name   string
		change func(c *Config)
		want   string // what At says; "..." stands for anything
	}{
		{"nothing", func(*Config) {}, ""},
		{"no plant", func(c *Config) { c.Plant = "" }, `a.yaml:1: plant: it is missing (write for example plant: ulm)`},
		{"odd agent", func(c *Config) { c.Agent = "line 1" }, `a.yaml:2: agent: name "line 1" has a character that it must not have (use letters...`},
		{"plant of dots", func(c *Config) { c.Plant = ".." }, `a.yaml:1: plant: name ".." has...`},
		{"unknown zone", func(c *Config) { c.TimeZone = "Europe/Ulm" }, `a.yaml: time_zone: zone "Europe/Ulm" is not known (use an IANA name such as Europe/Berlin)`},
		{"the computer's zone", func(c *Config) { c.TimeZone = "Local" }, `a.yaml: time_zone: zone "Local" is not known...`},
		{"no port", func(c *Config) { c.Listen = "localhost" }, `a.yaml:4: listen: address "localhost" is not valid (write host:port...`},
		{"open page", func(c *Config) { c.Listen = ":8480" }, `a.yaml:4: listen: address ":8480" opens the page to the network...allowed_hosts...`},
		{"open page with names", func(c *Config) { c.Listen, c.AllowedHosts = ":8480", []string{"plant-pc"} }, ""},
		{"hub without port", func(c *Config) { c.Hub.Address, c.Hub.CertFile, c.Hub.KeyFile = "hub", "a", "b" }, `a.yaml:5: hub: hub address "hub" is not host:port...`},
		{"hub without certificate", func(c *Config) { c.Hub.Address = "hub:1" }, `a.yaml:5: hub: certificate or key file is not named...`},
		{"hub without address", func(c *Config) { c.Hub.CAFile = "ca.pem" }, `a.yaml:5: hub: address is missing (...`},
		{"limit of none", func(c *Config) { c.Buffer.BusinessLimit = -1 }, `a.yaml:8: buffer.business_limit: only disk_reserve can be none (write a size such as 2GiB)`},
		{"segment of none", func(c *Config) { c.Buffer.SegmentSize = -1 }, `a.yaml:7: buffer.segment_size: only...`},
		{"log level", func(c *Config) { c.Log.Level = "verbose" }, `a.yaml: log.level: level "verbose" is not known (use debug...`},
		{"log format", func(c *Config) { c.Log.Format = "xml" }, `a.yaml: log.format: format "xml" is not known...`},
		{"source without a name", func(c *Config) { c.Sources[0].Name = ""; c.Rules = nil }, `a.yaml:10: source "": a source has no name (...`},
		{"source that leaves its folder", func(c *Config) { c.Sources[0].Name = "../x"; c.Rules = nil }, `a.yaml:10: source "../x": the name has a character...`},
		{"two of one name", func(c *Config) {
			c.Sources = append(c.Sources, SourceConfig{Name: "Press", Kind: "fake", Line: 20, Decode: ok})
		}, `a.yaml:20: source "Press": another source has the same name (...`},
		{"unknown kind", func(c *Config) { c.Sources[0].Kind = "opc" }, `a.yaml:10: source "press": kind "opc" is not known (use one of fake, taker)`},
		{"the driver's own faults", func(c *Config) {
			c.Sources[0].Decode = func(any) error {
				return Faults{{Line: 12, Text: `unknown key "nods"`, Hint: `did you mean "nodes"?`}, {Line: 13, Text: "bad"}}
			}
		}, "a.yaml:12: source \"press\": unknown key \"nods\" (did you mean \"nodes\"?)\na.yaml:13: source \"press\": bad"},
		{"several faults of a driver", func(c *Config) {
			c.Sources[0].Decode = func(any) error { return errors.Join(errors.New("no endpoint"), errors.New("no nodes")) }
		}, "a.yaml:10: source \"press\": read section: no endpoint\na.yaml:10: source \"press\": no nodes"},
		{"rule of no source", func(c *Config) { c.Rules[1].Source = "pres" }, `a.yaml:32: rules: rule "b": source "pres" is not a source...`},
		{"rule without a kind", func(c *Config) { c.Rules[0].Rule = "x" }, `a.yaml:30: rules: rule "a": rule "x" is not a kind of rule...`},
		{"units", func(c *Config) { c.Units = map[string]string{"Stk": "pieces"} }, `a.yaml:40: units: "Stk" is given as "pieces"...`},
		{"two that take orders", func(c *Config) {
			c.Sources = append(c.Sources, SourceConfig{Name: "m1", Kind: "taker", Decode: ok}, SourceConfig{Name: "m2", Kind: "taker", Decode: ok})
		}, `a.yaml:50: work_orders: 2 sources can take work orders: m1, m2 (name one of them in receiver:, or give each its work centres in receivers:)`},
		{"receiver chosen", func(c *Config) {
			c.Sources = append(c.Sources, SourceConfig{Name: "m1", Kind: "taker", Decode: ok}, SourceConfig{Name: "m2", Kind: "taker", Decode: ok})
			c.Orders.Receiver = "m2"
		}, ""},
		{"receiver that is none", func(c *Config) { c.Orders.Receiver = "mes" }, `a.yaml:51: work_orders.receiver: "mes" is not a source (...`},
		{"receiver that takes none", func(c *Config) { c.Orders.Receiver = "press" }, `a.yaml:51: work_orders.receiver: source "press" does not take work orders (...`},
		{"many at once, by line", func(c *Config) { c.Rules[1].Tag, c.Sources[0].Kind, c.Plant = "", "x", "" }, "a.yaml:1: plant...\na.yaml:10: source...\na.yaml:31: rules: rule \"b\": tag is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := Config{
				Plant: "ulm", Agent: "line1", Path: filepath.Join(t.TempDir(), "a.yaml"),
				Sources: []SourceConfig{{Name: "press", Kind: "fake", Line: 10, Decode: ok}},
				Rules:   []translate.Rule{{Name: "a", Rule: "reading", Source: "press", Tag: "x"}, {Name: "b", Rule: "reading", Source: "press", Tag: "y"}},
				Lines: map[string]int{"plant": 1, "agent": 2, "listen": 4, "hub": 5, "buffer": 7, "buffer.business_limit": 8, "rules": 29, "rules[0]": 30,
					"rules[1]": 31, "rules[1].source": 32, "units": 40, "work_orders": 50, "work_orders.receiver": 51},
			}
			c.change(&cfg)
			var got []string
			for _, f := range cfg.Check(checkKinds()) {
				got = append(got, f.At("a.yaml"))
			}
			if !fits(strings.Join(got, "\n"), c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), c.want)
			}
			cfg.Listen = strings.ReplaceAll(cfg.Listen, ":8480", ":0")
			a, err := New(cfg, Options{Logger: newDiscard(), Kinds: checkKinds()})
			if err == nil {
				defer a.Close()
			}
			if (err == nil) != (c.want == "") {
				t.Errorf("New says %v", err)
			}
			if c.want != "" && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), strings.Split(got[0], ": ")[1])) {
				t.Errorf("New says %v", err)
			}
		})
	}
}

// checkKinds are a driver without and one with work orders; both read their sections.
func checkKinds() []signal.Kind {
	kind := func(name string, d *fake) signal.Kind {
		return signal.Kind{Name: name, New: func(_ signal.Env, decode func(any) error) (signal.Driver, error) {
			if err := decode(nil); err != nil {
				return nil, fmt.Errorf("read section: %w", err)
			}
			return d, nil
		}}
	}
	return []signal.Kind{kind("fake", &fake{}), kind("taker", &fake{deliver: func(context.Context, signal.WorkOrder) error { return nil }})}
}

// fits compares line by line; "..." in want stands for anything.
func fits(got, want string) bool {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	if len(g) != len(w) {
		return false
	}
	for i := range w {
		rest := g[i]
		parts := strings.Split(w[i], "...")
		for j, part := range parts {
			at := strings.Index(rest, part)
			if at < 0 || j == 0 && at != 0 {
				return false
			}
			rest = rest[at+len(part):]
		}
		if len(parts) == 1 && rest != "" {
			return false
		}
	}
	return true
}

func TestDefaultsStandBesideTheFile(t *testing.T) {
	c := Config{Path: filepath.Join("etc", "linekeeper", "a.yaml")}
	c.Hub.CAFile, c.Hub.KeyFile = "ca.pem", filepath.Join(string(filepath.Separator), "keys", "k.pem")
	c.setDefaults()
	dir := filepath.Join("etc", "linekeeper")
	if c.DataDir != filepath.Join(dir, "data") || c.Hub.CAFile != filepath.Join(dir, "ca.pem") || c.Hub.CertFile != "" || c.Hub.KeyFile[0] != filepath.Separator {
		t.Errorf("folders are %q, %q, %q, %q", c.DataDir, c.Hub.CAFile, c.Hub.CertFile, c.Hub.KeyFile)
	}
	if c.Listen != "127.0.0.1:8480" || c.TimeZone != "UTC" {
		t.Errorf("defaults are %q, %q", c.Listen, c.TimeZone)
	}
}

func TestDriverThatCannotBeMadeStopsTheStartAndLeavesNothingOpen(t *testing.T) {
	fs := fakes{"mes": {}}
	cfg := testConfig(t.TempDir(), fs)
	calls := 0
	kinds := []signal.Kind{{Name: "fake", New: func(env signal.Env, _ func(any) error) (signal.Driver, error) {
		if calls++; calls == 2 { // not in the check, but when its folder exists
			return nil, errors.New("cannot make its key")
		}
		fs["mes"].report = env.Reporter
		return fs["mes"], nil
	}}}
	if _, err := New(cfg, Options{Logger: newDiscard(), Kinds: kinds}); !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), `source "mes": cannot make its key`) {
		t.Fatalf("got %v", err)
	}
	began := time.Now()
	a, err := New(cfg, Options{Logger: newDiscard(), Kinds: kinds})
	if err != nil || time.Since(began) > 2*time.Second {
		t.Fatalf("the second start: %v after %s", err, time.Since(began))
	}
	if err := errors.Join(a.Close(), a.Close()); err != nil {
		t.Error(err)
	}
}
