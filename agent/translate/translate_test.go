package translate

import (
	"bytes"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// memory is State in a map; a copy of it is what a transaction works on.
type memory map[string][]byte

func (m memory) State(key string) []byte { return m[key] }

func (m memory) SetState(key string, v []byte) {
	if v == nil {
		delete(m, key)
		return
	}
	m[key] = bytes.Clone(v)
}

func (m memory) EachState(prefix string, f func(key string, v []byte)) {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if strings.HasPrefix(k, prefix) {
			f(k, m[k])
		}
	}
}

// keys returns a source of keys that differ and repeat from run to run.
func keys() func() factkey.Key {
	n := 0
	return func() factkey.Key {
		n++
		return factkey.Of(fmt.Sprintf("random %d", n))
	}
}

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

// line is a translator with its state and a clock, and all it ever made.
type line struct {
	t   testing.TB
	tr  *Translator
	st  memory
	now time.Time

	facts       []*pb.Fact
	quarantined []Quarantined
	problems    []SourceProblem
	readings    []*pb.Reading
}

func newLine(t testing.TB, cfg Config) *line {
	t.Helper()
	if cfg.Plant == "" {
		cfg.Plant, cfg.Agent, cfg.Zone = "ulm", "pc1", "Europe/Berlin"
	}
	tr, err := New(cfg, keys())
	if err != nil {
		t.Fatal(err)
	}
	return &line{t: t, tr: tr, st: memory{}, now: noon}
}

// failer is what tests and properties have in common.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// rules reads rules as the configuration file has them.
func rules(t failer, text string) Config {
	t.Helper()
	var f struct {
		Rules []Rule            `yaml:"rules"`
		Units map[string]string `yaml:"units"`
		Items map[string]string `yaml:"items"`

		Calendars []Calendar             `yaml:"calendars"`
		Reasons   map[string]ReasonTable `yaml:"reasons"`
		KeyFile   string                 `yaml:"pseudonym_key_file"` // the agent's
	}
	if err := yaml.Load([]byte(text), &f, yaml.WithKnownFields()); err != nil {
		t.Fatalf("read rules: %v", err)
	}
	return Config{Plant: "ulm", Agent: "pc1", Zone: "Europe/Berlin", Rules: f.Rules, Units: f.Units, Items: f.Items, Calendars: f.Calendars, Reasons: f.Reasons, PseudonymKey: []byte("a secret of the plant")}
}

func (l *line) take(res Result) []*pb.Fact {
	l.t.Helper()
	var facts []*pb.Fact
	for _, f := range res.Facts {
		m := &pb.Fact{}
		if err := proto.Unmarshal(f.Body, m); err != nil {
			l.t.Fatal(err)
		}
		if !bytes.Equal(m.Key, f.Key[:]) {
			l.t.Fatalf("fact says key %x, its body %x", f.Key, m.Key)
		}
		if what, order := What(m); what == "" || f.OrderNo != order {
			l.t.Fatalf("fact %v is of order %q for the page, and %q of order %q after a restart", m, f.OrderNo, what, order)
		}
		facts = append(facts, m)
	}
	l.facts = append(l.facts, facts...)
	l.quarantined = append(l.quarantined, res.Quarantined...)
	l.problems = append(l.problems, res.Problems...)
	l.readings = append(l.readings, res.Readings...)
	return facts
}

// send translates one signal.
func (l *line) send(source string, s signal.Signal) []*pb.Fact {
	l.t.Helper()
	if s.ReceivedTime.IsZero() {
		s.ReceivedTime = l.now
	}
	return l.take(l.tr.Translate(l.st, l.now, signal.Batch{Source: source, Signals: []signal.Signal{s}}))
}

func (l *line) tick(after time.Duration) []*pb.Fact {
	l.t.Helper()
	l.now = l.now.Add(after)
	return l.take(l.tr.Tick(l.st, l.now))
}

func num(s string) signal.Number { return signal.Number(s) }

// ledger is the ledger in short: "good/100 yield: 12 counted, 10 stored".
func (l *line) ledger() string {
	var out []string
	for _, r := range l.tr.Ledger(l.st) {
		out = append(out, fmt.Sprintf("%s %s: %s counted, %s stored", r.OrderNo, r.Kind, r.Counted, r.Stored))
	}
	sort.Strings(out)
	return strings.Join(out, "; ")
}

// codes are the exceptions told, in order.
func codes(facts []*pb.Fact) string {
	var out []string
	for _, f := range facts {
		if e := f.GetSourceException(); e != nil {
			out = append(out, e.Code)
		}
	}
	return strings.Join(out, " ")
}

func TestSampleLoadsAndIsValid(t *testing.T) {
	cfg := rules(t, Sample)
	if errs := cfg.Validate([]string{"press1", "broker", "mes"}); len(errs) > 0 {
		t.Fatal(errs)
	}
	seen := map[string]bool{}
	for _, r := range cfg.Rules {
		seen[r.Rule+" "+r.Fact] = true
	}
	for _, want := range []string{"counter ", "weight ", "serial ", "state ", "reading ", "record production_confirmation", "record material_consumption", "record quality_status", "record order_state"} {
		if !seen[want] {
			t.Errorf("the sample shows no %q", want)
		}
	}
}

func TestCounterDeltasBecomeConfirmationsOfTheRunningOrder(t *testing.T) {
	l := newLine(t, rules(t, Sample))
	l.send("press1", signal.Signal{Tag: "order", Value: "4711"})
	for _, v := range []string{"65530", "65534", "2"} { // baseline, +4, rollover +4
		l.send("press1", signal.Signal{Tag: "good", Value: num(v)})
	}
	if got, want := l.ledger(), "4711 yield: 16 counted, 0 stored"; got != want {
		t.Fatalf("ledger is %q, want %q", got, want)
	}
	facts := l.tick(time.Minute)
	if len(facts) != 1 {
		t.Fatalf("a minute later there are %d facts, want 1: %v", len(facts), facts)
	}
	c := facts[0].GetProductionConfirmation()
	if c.Yield != "16" || c.OrderNo != "4711" || c.CounterRange.From != "65530" || c.CounterRange.To != "65538" {
		t.Errorf("confirmation is %v", c)
	}
	if got, want := l.ledger(), "4711 yield: 16 counted, 16 stored"; got != want {
		t.Errorf("ledger is %q, want %q", got, want)
	}
	if due := l.tr.NextTick(l.st); !due.IsZero() {
		t.Errorf("nothing is open, but the next tick is due at %v", due)
	}
}

// decodeFacts reads the bodies of facts.
func decodeFacts(t failer, res Result) []*pb.Fact {
	t.Helper()
	var facts []*pb.Fact
	for _, f := range res.Facts {
		m := &pb.Fact{}
		if err := proto.Unmarshal(f.Body, m); err != nil {
			t.Fatalf("read fact: %v", err)
		}
		facts = append(facts, m)
	}
	return facts
}
