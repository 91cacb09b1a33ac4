package files

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const patience = 30 * time.Second

// plant is what a driver is run against: it keeps what became durable, as the agent does.
type plant struct {
	t   testing.TB
	dir string // the agent's
	in  string // the feed's folder

	mu       sync.Mutex
	signals  []signal.Signal
	cursor   []byte
	batches  int
	state    signal.State
	why      string
	problems map[string]*signal.Problem
	shown    []string // codes of all problems ever
	log      strings.Builder
}

func newPlant(t testing.TB) *plant {
	return &plant{t: t, dir: t.TempDir(), in: t.TempDir(), problems: map[string]*signal.Problem{}}
}

func (p *plant) State(s signal.State, why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.why = s, why
}

func (p *plant) Problem(key string, x *signal.Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x == nil {
		delete(p.problems, key)
		return
	}
	p.problems[key] = x
	p.shown = append(p.shown, x.Code)
}

func (p *plant) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.log.Write(b)
}

func (p *plant) emit(_ context.Context, b signal.Batch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signals = append(p.signals, b.Signals...)
	p.batches++
	if b.Cursor != nil {
		p.cursor = b.Cursor
	}
	return nil
}

func (p *plant) env() signal.Env {
	return signal.Env{Plant: "ulm", Agent: "a", Source: "s", Dir: p.dir, ConfigDir: p.dir, Zone: time.UTC, Reporter: p, Logger: slog.New(slog.NewTextHandler(p, nil))}
}

func decodeYAML(section string) func(any) error {
	return func(into any) error { return yaml.Load([]byte(section), into, yaml.WithKnownFields()) }
}

func (p *plant) make(section string) *source {
	p.t.Helper()
	d, err := Kind.New(p.env(), decodeYAML(section))
	if err != nil {
		p.t.Fatalf("make the driver: %v\n%s", err, section)
	}
	return d.(*source)
}

// section is one with one fast feed of CSV files.
func (p *plant) section(lines ...string) string {
	return fmt.Sprintf("feeds:\n  - tag: rows\n    folder: %q\n    format: csv\n    scan: %s\n", p.in, scan(lines)) + indented("    ", append(slices.DeleteFunc(slices.Clone(lines), isScan), settle(lines)))
}

func isScan(l string) bool { return strings.HasPrefix(l, "scan:") }

// scan is how often a test looks unless it says otherwise.
func scan(lines []string) string {
	if i := slices.IndexFunc(lines, isScan); i >= 0 {
		return strings.TrimPrefix(lines[i], "scan: ")
	}
	return "20ms"
}

// settle is what a test waits for unless it says otherwise.
func settle(lines []string) string {
	if strings.Contains(strings.Join(lines, "\n"), "settle:") {
		return ""
	}
	return "settle: 40ms"
}

func indented(indent string, lines []string) string {
	out := ""
	for _, l := range lines {
		out += indent + l + "\n"
	}
	return out
}

// start runs a driver and returns a function that stops it and waits for its end.
func (p *plant) start(section string) (stop func()) { return p.run(p.make(section), p.emit) }

func (p *plant) run(d signal.Driver, emit signal.Emit) (stop func()) {
	p.mu.Lock()
	cursor := p.cursor
	p.mu.Unlock()
	return drivertest.Start(p.t, d, cursor, emit, patience)
}

func (p *plant) await(what string, ok func() bool) {
	p.t.Helper()
	realparts.Eventually(p.t, patience, what, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if ok() {
			return nil
		}
		return errors.New(p.describe())
	})
}

// describe is called with the lock held.
func (p *plant) describe() string {
	var problems []string
	for key, x := range p.problems {
		problems = append(problems, fmt.Sprintf("%s: %+v", key, *x))
	}
	tree := []string{}
	filepath.WalkDir(p.in, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() && len(tree) < 30 {
			tree = append(tree, strings.TrimPrefix(path, p.in))
		}
		return nil
	})
	return fmt.Sprintf("%d signals, state %q (%s), problems %q, files %v", len(p.signals), p.state, p.why, problems, tree)
}

func (p *plant) awaitProblem(key, code string) *signal.Problem {
	p.t.Helper()
	var found *signal.Problem
	p.await("problem "+code, func() bool { found = p.problems[key]; return found != nil && found.Code == code })
	return found
}

func (p *plant) awaitCount(n int) {
	p.t.Helper()
	p.await(fmt.Sprintf("%d signals", n), func() bool { return len(p.signals) >= n })
}

// awaitFiles waits until files that match the glob below the feed's folder are so many.
func (p *plant) awaitFiles(glob string, n int) []string {
	p.t.Helper()
	var found []string
	p.await(fmt.Sprintf("%d files %s", n, glob), func() bool { found = p.glob(glob); return len(found) == n })
	return found
}

func (p *plant) glob(pattern string) []string {
	found, err := filepath.Glob(filepath.Join(p.in, pattern))
	if err != nil {
		p.t.Fatal(err)
	}
	return found
}

// put lays a file down whole, as a good sender does.
func (p *plant) put(name, content string) { putFile(p.t, p.in, name, content) }

func putFile(t testing.TB, dir, name, content string) {
	t.Helper()
	part := filepath.Join(dir, name+".tmp")
	realparts.WriteFile(t, part, content)
	if err := os.Rename(part, filepath.Join(dir, name)); err != nil {
		t.Fatal(err)
	}
}

func read(t testing.TB, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// all returns a copy of the durable signals.
func (p *plant) all() []signal.Signal {
	p.mu.Lock()
	defer p.mu.Unlock()
	return append([]signal.Signal(nil), p.signals...)
}

// numbers are the n of all good signals, in their order; a signal that has the position of one before is left out.
func (p *plant) numbers() []string {
	var out []string
	seen := map[string]bool{}
	for _, s := range p.all() {
		m, ok := s.Value.(map[string]any)
		if !ok || seen[s.Position] {
			continue
		}
		seen[s.Position] = true
		out = append(out, fmt.Sprint(m["n"]))
	}
	return out
}

// rows is a CSV text with the numbers from and to.
func rows(from, to int) string {
	var b strings.Builder
	b.WriteString("n,text\n")
	for n := from; n <= to; n++ {
		fmt.Fprintf(&b, "%d,line %d\n", n, n)
	}
	return b.String()
}

// counted reports whether numbers are 1 to n, each once and in order.
func counted(numbers []string, n int) error {
	for i, got := range numbers {
		if got != fmt.Sprint(i+1) {
			return fmt.Errorf("at place %d there is %s", i+1, got)
		}
	}
	if len(numbers) != n {
		return fmt.Errorf("%d records, not %d", len(numbers), n)
	}
	return nil
}
