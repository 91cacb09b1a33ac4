package sparkplug

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const testPatience = 40 * time.Second

func TestMain(m *testing.M) {
	if os.Getenv("SPARKPLUG_TEST_CHILD") != "" {
		childMain()
		return
	}
	goleak.VerifyTestMain(m)
}

// plant is what a driver is run against: it keeps what became durable, like the agent does.
type plant struct {
	t   testing.TB
	dir string

	mu       sync.Mutex
	gate     chan struct{} // emit waits for it, when set
	signals  []signal.Signal
	cursor   []byte
	state    signal.State
	reason   string
	problems map[string]*signal.Problem
}

func newPlant(t testing.TB) *plant {
	return &plant{t: t, dir: t.TempDir(), problems: map[string]*signal.Problem{}}
}

func (p *plant) State(s signal.State, reason string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state, p.reason = s, reason
}

func (p *plant) Problem(key string, x *signal.Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.problems, key)
	if x != nil {
		p.problems[key] = x
	}
}

func (p *plant) emit(ctx context.Context, b signal.Batch) error {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.signals = append(p.signals, b.Signals...)
	if b.Cursor != nil {
		p.cursor = b.Cursor
	}
	return nil
}

func (p *plant) set(f func()) { p.mu.Lock(); defer p.mu.Unlock(); f() }

func (p *plant) env() signal.Env {
	return signal.Env{Plant: "ulm", Agent: "line1", Source: "s", Dir: p.dir, ConfigDir: p.dir, Zone: time.UTC, Reporter: p,
		Logger: slog.New(slog.NewTextHandler(p.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

func decodeYAML(section string) func(any) error {
	return func(into any) error { return yaml.Load([]byte(section), into, yaml.WithKnownFields()) }
}

func (p *plant) driver(section string) *driver {
	p.t.Helper()
	d, err := Kind.New(p.env(), decodeYAML(section))
	if err != nil {
		p.t.Fatalf("make the driver: %v", err)
	}
	return d.(*driver)
}

// start runs a driver and returns a function that stops it and waits for its end.
func (p *plant) start(section string) (stop func()) { return p.run(p.driver(section)) }

func (p *plant) run(d signal.Driver) (stop func()) {
	p.mu.Lock()
	cursor := p.cursor
	p.mu.Unlock()
	return drivertest.Start(p.t, d, cursor, p.emit, testPatience)
}

func (p *plant) await(what string, ok func() bool) {
	p.t.Helper()
	realparts.Eventually(p.t, testPatience, what, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if ok() {
			return nil
		}
		return fmt.Errorf("%d signals, state %q (%s), problems %v", len(p.signals), p.state, p.reason, p.problems)
	})
}

func (p *plant) awaitOK() {
	p.t.Helper()
	p.await("state ok", func() bool { return p.state == signal.StateOK })
}

func section(b *realparts.Broker) string {
	return fmt.Sprintf(`
broker: tcp://127.0.0.1:%d
host: {id: here, history_wait: 500ms, rebirth_wait: 500ms, reorder_wait: 500ms}
metrics:
  - {tag: parts, metric: PartDone, reports: event}
  - {tag: good, device: none, metric: Counts/Good}
  - {tag: other, metric: "**"}
`, b.Port)
}

func clients(b *realparts.Broker) string { return fmt.Sprintf("mqtt://127.0.0.1:%d", b.Port) }

// part is the number of the part that a signal tells of.
func part(s *signal.Signal) (int, bool) {
	n, ok := s.Value.(signal.Number)
	if s.Tag != "parts" || !ok {
		return 0, false
	}
	i, err := strconv.Atoi(string(n))
	return i, err == nil
}

// record is what the child process keeps of a signal.
type record struct {
	Tag, Position, Value, Quality string
}

// childMain is an agent around the driver that only a kill ends: it appends what became durable to a file.
func childMain() {
	file, err := os.OpenFile(os.Getenv("SPARKPLUG_TEST_FILE"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	cursorFile := os.Getenv("SPARKPLUG_TEST_FILE") + ".cursor"
	cursor, _ := os.ReadFile(cursorFile)
	env := signal.Env{Plant: "ulm", Agent: "line1", Source: "s", Dir: os.Getenv("SPARKPLUG_TEST_DIR"), Zone: time.UTC, Reporter: mute{},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	d, err := Kind.New(env, decodeYAML(os.Getenv("SPARKPLUG_TEST_CHILD")))
	if err != nil {
		panic(err)
	}
	err = d.Run(context.Background(), cursor, func(_ context.Context, b signal.Batch) error {
		var out []byte
		for _, s := range b.Signals {
			r := record{Tag: s.Tag, Position: s.Position, Value: fmt.Sprint(s.Value), Quality: s.Quality.String()}
			if s.Problem != nil {
				r.Value = "problem " + s.Problem.Code
			}
			line, err := json.Marshal(r)
			if err != nil {
				panic(err)
			}
			out = append(append(out, line...), '\n')
		}
		if _, err := file.Write(out); err != nil {
			panic(err)
		}
		if err := os.WriteFile(cursorFile+".new", b.Cursor, 0o600); err != nil {
			panic(err)
		}
		return os.Rename(cursorFile+".new", cursorFile)
	})
	panic(fmt.Sprint("the driver ended: ", err))
}

// mute takes no reports.
type mute struct{}

func (mute) State(signal.State, string)      {}
func (mute) Problem(string, *signal.Problem) {}
