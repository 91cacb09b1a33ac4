package setup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/signal"
)

// shed is a kind of source with two ways to it, a certificate that must be trusted, and a few values; it counts for itself.
type shed struct {
	trusted string
	probes  int
}

type shedConfig struct {
	Endpoint string `yaml:"endpoint"`
	Safe     bool   `yaml:"safe"`
	User     string `yaml:"user"`
	Nodes    []struct {
		Tag  string `yaml:"tag"`
		Node string `yaml:"node"`
	} `yaml:"nodes"`
}

var entries = []signal.Entry{
	{ID: "o", Path: "Objects", Name: "Objects", Kind: "Object", Children: true},
	{ID: "p1", Path: "Objects/Press1", Name: "Press1", Kind: "Object", Children: true},
	{ID: "g", Path: "Objects/Press1/Good", Name: "Good", Kind: "Variable", Type: "UInt32", Readable: true, Tag: "tag: Good\nnode: g"},
	{ID: "s", Path: "Objects/Press1/Scrap", Name: "Scrap", Kind: "Variable", Type: "UInt32", Readable: true, Tag: "tag: Scrap\nnode: s"},
}

func (s *shed) kind() signal.Kind {
	make := func(tags bool) func(signal.Env, func(any) error) (signal.Driver, error) {
		return func(env signal.Env, decode func(any) error) (signal.Driver, error) {
			var c shedConfig
			if err := decode(&c); err != nil {
				return nil, err
			}
			if tags && len(c.Nodes) == 0 {
				return nil, errors.New("nodes is empty")
			}
			return &shedDriver{s, env, c}, nil
		}
	}
	return signal.Kind{Name: "shed", New: make(true), Explore: make(false), Tags: "nodes",
		Discover: func(context.Context, signal.Env, string) ([]signal.Offer, error) {
			return []signal.Offer{
				{Title: "shed://h safe", Secure: true, Section: "endpoint: shed://h\nsafe: true\n"},
				{Title: "shed://h open", Section: "endpoint: shed://h\n"},
			}, nil
		}}
}

type shedDriver struct {
	shed   *shed
	env    signal.Env
	config shedConfig
}

func (d *shedDriver) Run(ctx context.Context, _ []byte, emit signal.Emit) error {
	d.env.Reporter.State(signal.StateOK, "")
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for n := 0; ; n++ {
		now := time.Now()
		if err := emit(ctx, signal.Batch{Source: d.env.Source, Signals: []signal.Signal{{Tag: "Good", Value: signal.Number(fmt.Sprint(n)), SourceTime: now, ReceivedTime: now}}}); err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (d *shedDriver) Probe(context.Context) []signal.Step {
	d.shed.probes++
	steps := []signal.Step{{Name: "port is open"}}
	if d.config.Safe && d.shed.trusted == "" {
		return append(steps, signal.Step{Name: "certificate is trusted", Problem: &signal.Problem{Reason: "nobody trusts abcdef01", NextStep: "trust it"}})
	}
	return append(steps, signal.Step{Name: "certificate is trusted"})
}

func (d *shedDriver) Browse(_ context.Context, at, _ string, _ int) (list []signal.Entry, next string, err error) {
	for _, e := range entries {
		parent := path.Dir(e.Path)
		for _, p := range entries {
			if p.ID == at && parent == p.Path || at == "" && parent == "." {
				list = append(list, e)
				break
			}
		}
	}
	return list, "", nil
}

func (d *shedDriver) Find(_ context.Context, _, glob string, f func(signal.Entry) bool) error {
	for _, e := range entries {
		if ok, _ := path.Match(glob, e.Path); ok && e.Readable && !f(e) {
			return nil
		}
	}
	return nil
}

func deps(t *testing.T, s *shed, in string, out *strings.Builder) Deps {
	d := Deps{
		Kinds: []signal.Kind{s.kind()}, Out: out, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Decode: func(n *yaml.Node, into any) error { return n.Load(into, yaml.WithKnownFields()) },
		Load:   load,
		Trust: func(_, _, fingerprint string) error {
			if !strings.HasPrefix("abcdef01", fingerprint) {
				return errors.New("no such certificate")
			}
			s.trusted = fingerprint
			return nil
		},
		Rejected: func(string, string) ([]Certificate, error) {
			if s.trusted != "" {
				return nil, nil
			}
			return []Certificate{{Fingerprint: "abcdef01", About: "CN=shed"}}, nil
		},
	}
	d.Options = agent.Options{Version: "test", Logger: d.Logger, Kinds: d.Kinds}
	if in != "" {
		d.In = strings.NewReader(in)
	}
	return d
}

// load reads a configuration as the command does, in short.
func load(path string) (agent.Config, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return agent.Config{}, err
	}
	var f struct {
		agent.Config `yaml:",inline"`
		Sources      []yaml.Node `yaml:"sources"`
	}
	if err := yaml.Load(raw, &f); err != nil {
		return agent.Config{}, err
	}
	cfg := f.Config
	cfg.Path = path
	for _, n := range f.Sources {
		sc := agent.SourceConfig{}
		rest := yaml.Node{Kind: yaml.MappingNode}
		for i := 0; i+1 < len(n.Content); i += 2 {
			switch n.Content[i].Value {
			case "name":
				sc.Name = n.Content[i+1].Value
			case "kind":
				sc.Kind = n.Content[i+1].Value
			default:
				rest.Content = append(rest.Content, n.Content[i], n.Content[i+1])
			}
		}
		sc.Decode = func(into any) error { return rest.Load(into, yaml.WithKnownFields()) }
		cfg.Sources = append(cfg.Sources, sc)
	}
	return cfg, nil
}

const answers = `
plant: ulm
agent: line1
time_zone: Europe/Berlin
listen: 127.0.0.1:0
sources:
  - name: press
    kind: shed
    address: h
    trust: abcdef01
    section: {user: "agent"}
    pick: ["Objects/*/Good", "Objects/Press1/*"]
`

func TestAnswersLeadToAConfiguration(t *testing.T) {
	s, out, file := &shed{}, &strings.Builder{}, filepath.Join(t.TempDir(), "plantagent.yaml")
	a, err := ReadAnswers([]byte(strings.Replace(answers, "listen", "rules: [{name: mine, rule: reading, source: press, tag: Scrap}]\nlisten", 1)))
	if err != nil {
		t.Fatal(err)
	}
	a.Sources[0].Unit = "KGM"
	if err := Run(t.Context(), deps(t, s, "", out), Options{Path: file, Answers: a}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"safe: true", "user: \"agent\"", "unit: KGM", "work_center: Press1", "counts: scrap", "name: mine", "- tag: Good"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("the file lacks %q:\n%s", want, raw)
		}
	}
	if s.trusted == "" || !strings.Contains(out.String(), "failed   certificate is trusted") {
		t.Errorf("the certificate was not shown and trusted:\n%s", out)
	}
	if err := Run(t.Context(), deps(t, s, "", out), Options{Path: file, Answers: a}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a file that exists was answered with %v", err)
	}
	if err := Run(t.Context(), deps(t, s, "", out), Options{Path: file, Answers: a, Force: true}); err != nil {
		t.Error(err)
	}
	if kept, err := os.ReadFile(file + ".bak"); err != nil || string(kept) != string(raw) {
		t.Errorf("the old file was not kept: %v", err)
	}
}

func TestTheAgentRunsUntilAFirstFact(t *testing.T) {
	s, out, file := &shed{}, &strings.Builder{}, filepath.Join(t.TempDir(), "plantagent.yaml")
	quick := strings.Replace(answers, "listen", "rules: [{name: count, rule: counter, source: press, tag: Good, counts: yield, work_center: press, unit: C62, close: {every: 200ms}}]\nlisten", 1)
	a, err := ReadAnswers([]byte(strings.Replace(quick, "    trust", "    rules: none\n    trust", 1)))
	if err != nil {
		t.Fatal(err)
	}
	if err := Run(t.Context(), deps(t, s, "", out), Options{Path: file, Answers: a, Try: time.Minute}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out.String(), "first fact:") {
		t.Error(out)
	}
}

func TestWhatFailsLeavesNoFile(t *testing.T) {
	for name, c := range map[string]struct{ from, to, want string }{
		"a certificate of another":    {"abcdef01", "12345678", "certificate is trusted"},
		"a glob that matches nothing": {"Objects/*/Good", "Objects/*/None", "nothing that can be read matches"},
		"a kind that nobody knows":    {"kind: shed", "kind: barn", "unknown"},
		"a key that nobody knows":     {"user:", "usr:", "usr"},
		"no open way by itself":       {"trust: abcdef01", "offer: open-way", "no way"},
	} {
		t.Run(name, func(t *testing.T) {
			s, out, file := &shed{}, &strings.Builder{}, filepath.Join(t.TempDir(), "plantagent.yaml")
			a, err := ReadAnswers([]byte(strings.Replace(answers, c.from, c.to, 1)))
			if err != nil {
				t.Fatal(err)
			}
			a.Sources[0].Wait = time.Millisecond
			err = Run(t.Context(), deps(t, s, "", out), Options{Path: file, Answers: a})
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q\n%s", err, c.want, out)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("a file was written")
			}
		})
	}
}

func TestAPersonIsLedThroughIt(t *testing.T) {
	s, out, file := &shed{}, &strings.Builder{}, filepath.Join(t.TempDir(), "plantagent.yaml")
	typed := strings.Join([]string{
		"", "ulm", // plant: empty is asked again
		"", "Moon/Base", "Europe/Berlin", "", // agent, zone, hub
		"2", "press", "h", // a source
		"1", "user: agent", "", // its first way, a key
		"y",      // trust the certificate
		"1", "1", // Objects, Press1
		"1", "..", "Objects/Press1/S*", "", // Good; a glob
		"1", // no more sources
	}, "\n") + "\n"
	if err := Run(t.Context(), deps(t, s, typed, out), Options{Path: file}); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	raw, _ := os.ReadFile(file)
	for _, want := range []string{"plant: ulm", "agent: line1", "safe: true", "user: agent", "tag: Good", "tag: Scrap", "counts: yield", "counts: scrap"} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("the file lacks %q:\n%s\n%s", want, raw, out)
		}
	}
	out.Reset()
	if err := Run(t.Context(), deps(t, &shed{}, "ulm\n", out), Options{Path: filepath.Join(t.TempDir(), "x.yaml")}); !errors.Is(err, errNoAnswer) {
		t.Errorf("an input that ends was answered with %v", err)
	}
}
