package opcua

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// bench is an agent around one driver: a buffer in memory that can refuse and block, and a page that remembers.
type bench struct {
	t   testing.TB
	dir string

	mu       sync.Mutex
	signals  []signal.Signal
	batches  int
	cursor   []byte
	refuse   int           // emits to fail
	gate     chan struct{} // emits wait while it is not nil and open
	states   []string
	problems map[string]*signal.Problem
	said     strings.Builder // everything that an operator or a log could show

	cancel context.CancelFunc
	done   chan error
}

func newBench(t testing.TB) *bench {
	return &bench{t: t, dir: t.TempDir(), problems: map[string]*signal.Problem{}}
}

func (b *bench) emit(ctx context.Context, batch signal.Batch) error {
	b.mu.Lock()
	gate := b.gate
	if b.refuse > 0 {
		b.refuse--
		b.mu.Unlock()
		return fmt.Errorf("disk is full")
	}
	b.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.signals = append(b.signals, batch.Signals...)
	b.batches++
	if batch.Cursor != nil {
		b.cursor = batch.Cursor
	}
	return nil
}

func (b *bench) State(s signal.State, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fmt.Fprintln(&b.said, reason)
	b.states = append(b.states, strings.TrimSpace(string(s)+" "+reason))
}

func (b *bench) Problem(key string, p *signal.Problem) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if p == nil {
		delete(b.problems, key)
		return
	}
	b.problems[key] = p
	fmt.Fprintln(&b.said, p.Code, p.Item, p.Reason, p.NextStep)
}

func (b *bench) problem(key string) *signal.Problem {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.problems[key]
}

func (b *bench) state() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.states) == 0 {
		return ""
	}
	return b.states[len(b.states)-1]
}

func (b *bench) env() signal.Env {
	return signal.Env{Plant: "hamburg", Agent: "line1", Source: "press", Dir: b.dir, ConfigDir: b.dir, Zone: time.UTC,
		Reporter: b, Logger: slog.New(slog.NewTextHandler(testWriter{b}, &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

type testWriter struct{ b *bench }

func (w testWriter) Write(p []byte) (int, error) {
	w.b.mu.Lock()
	defer w.b.mu.Unlock()
	w.b.said.Write(p)
	w.b.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// tells reports whether any text that the driver produced contains a word.
func (b *bench) tells(word string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Contains(b.said.String(), word)
}

func decodeYAML(text string) func(any) error {
	return func(into any) error { return yaml.Load([]byte(text), into, yaml.WithKnownFields()) }
}

// driver makes the driver of a configuration; change may make it more impatient.
func (b *bench) driver(config string, change func(*pace)) *driver {
	b.t.Helper()
	d, err := Kind.New(b.env(), decodeYAML(config))
	if err != nil {
		b.t.Fatalf("make the driver: %v", err)
	}
	p := &d.(*driver).pace
	p.retryMax = time.Second
	if change != nil {
		change(p)
	}
	return d.(*driver)
}

// start runs the driver from the bench's cursor.
func (b *bench) start(d *driver) {
	ctx, cancel := context.WithCancel(b.t.Context())
	b.cancel, b.done = cancel, make(chan error, 1)
	b.mu.Lock()
	cursor := b.cursor
	b.mu.Unlock()
	go func() { b.done <- d.Run(ctx, cursor, b.emit) }()
	b.t.Cleanup(b.stop)
}

func (b *bench) stop() {
	if b.cancel == nil {
		return
	}
	b.cancel()
	if err := <-b.done; err != nil {
		b.t.Errorf("Run: %v", err)
	}
	b.cancel = nil
}

// sharedOwn is one identity for all tests that are not about identities: keys take time.
var sharedOwn = sync.OnceValues(func() (identity, error) {
	dir, err := os.MkdirTemp("", "own")
	if err != nil {
		return identity{}, err
	}
	defer os.RemoveAll(dir)
	return createOwn(dir, "urn:linekeeper:hamburg:line1")
})

// prepare gives the agent a certificate, a password and trust in the plant.
func (b *bench) prepare(plant *realparts.Plant) {
	b.t.Helper()
	prepareDir(b.t, b.dir, plant)
	b.password("secret")
}

// prepareDir makes a source's folder one whose agent has a certificate and trusts the plant.
func prepareDir(t testing.TB, folder string, plant *realparts.Plant) {
	t.Helper()
	own, err := sharedOwn()
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(own.key)
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"own", "trusted"} {
		if err := os.MkdirAll(filepath.Join(folder, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	certFile, keyFile := ownFiles(folder)
	realparts.WriteFile(t, certFile, string(own.der))
	realparts.WriteFile(t, keyFile, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})))
	cert, err := os.ReadFile(filepath.Join(plant.Dir, "server.pem"))
	if err != nil {
		t.Fatal(err)
	}
	realparts.WriteFile(t, filepath.Join(folder, "trusted", "plant.pem"), string(cert))
}

// catchUp waits until all counters that a plant has counted have arrived, and proves that none was lost.
func (b *bench) catchUp(plant *realparts.Plant, tags []string) (values int) {
	b.t.Helper()
	truth := plant.Counts(b.t).Counters["Count.0"]
	for _, tag := range tags {
		b.awaitCount(tag, truth)
	}
	return b.proof(tags)
}

// values are the distinct values of a tag in the order of their arrival.
func (b *bench) values(tag string) (list []signal.Signal) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, s := range b.signals {
		if s.Tag == tag {
			list = append(list, s)
		}
	}
	return list
}

// awaitState waits until the page shows a state.
func (b *bench) awaitState(want signal.State) {
	b.t.Helper()
	realparts.Eventually(b.t, 30*time.Second, "state "+string(want), func() error {
		if s := b.state(); !strings.HasPrefix(s, string(want)) {
			return fmt.Errorf("it is %q", s)
		}
		return nil
	})
}

// awaitCount waits until a counter has reached a value.
func (b *bench) awaitCount(tag string, want int64) {
	b.t.Helper()
	realparts.Eventually(b.t, 60*time.Second, fmt.Sprintf("%s = %d", tag, want), func() error {
		v := b.values(tag)
		if len(v) == 0 {
			return fmt.Errorf("no value; state: %s", b.state())
		}
		last, ok := v[len(v)-1].Value.(signal.Number)
		if !ok {
			return fmt.Errorf("it is %v (%s)", v[len(v)-1].Value, v[len(v)-1].Status)
		}
		if n, err := last.Int64(); err != nil || n < want {
			return fmt.Errorf("it is %s; state: %s", last, b.state())
		}
		return nil
	})
}

func number(t testing.TB, s signal.Signal) int64 {
	t.Helper()
	n, ok := s.Value.(signal.Number)
	if !ok {
		t.Fatalf("%s is %T %v (%s), not a number", s.Tag, s.Value, s.Value, s.Status)
	}
	i, err := n.Int64()
	if err != nil {
		t.Fatalf("%s is %q: %v", s.Tag, n, err)
	}
	return i
}

// proof is the loss proof: each counter must come as v, v+1, v+2.
func (b *bench) proof(tags []string) (values int) {
	b.t.Helper()
	for _, tag := range tags {
		list := b.values(tag)
		for i := 1; i < len(list); i++ {
			if was, is := number(b.t, list[i-1]), number(b.t, list[i]); is != was+1 {
				b.t.Errorf("%s: %d after %d", tag, is, was)
			}
		}
		values += len(list)
	}
	return values
}

// counterConfig reads the first n counters of a plant at an address.
func counterConfig(endpoint string, n int) (config string, tags []string) {
	var s strings.Builder
	fmt.Fprintf(&s, `
endpoint: %s
user: {name: operator, password_file: password.txt}
publishing_interval: 50ms
keep_alive: 1s
lifetime: 60s
session_timeout: 60s
nodes:
`, endpoint)
	for i := range n {
		tag := fmt.Sprintf("c%d", i)
		tags = append(tags, tag)
		fmt.Fprintf(&s, "  - {tag: %s, node: \"ns=2;s=Count.%d\", sampling: 0s}\n", tag, i)
	}
	return s.String(), tags
}

func (b *bench) password(p string) { realparts.WriteFile(b.t, b.dir+"/password.txt", p+"\n") }
