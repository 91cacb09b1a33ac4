// Package drivertest is the suite that every driver passes, with the real server that it reads.
//
// It owns the tests of the contract in agent/signal: what a driver must keep when it is killed between a batch and its
// acknowledgement, when the acknowledgement is lost, when the buffer is slow or refuses, when the source restarts, when an old
// cursor comes back, when it is told to stop. It promises that a driver which passes loses no record that its source still had,
// and repeats none that could not be recognised. It never knows a protocol: a Source does.
package drivertest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Patience is how long the suite waits for something that must come about.
const Patience = 60 * time.Second

// patience is shorter in the suite's own tests only.
var patience = Patience

// Source is a real source under the suite's control. Its methods fail the test that they were started for when they cannot do
// what they say.
type Source interface {
	// Section is the source's configuration as YAML, as a plant engineer would write it.
	Section() string
	// Produce lets the source say n records more, numbered on from the last one; the first ever is 1. It returns when the source
	// has them (a row is committed, a message is with the broker), whether or not a driver is there.
	Produce(n int)
	// Number tells which record a signal is; false when it is none of them.
	Number(s signal.Signal) (int, bool)
	// Restart stops the source's server in its usual way and starts it again at the same address, with what it keeps over a
	// restart.
	Restart()
}

// Spoiler is a Source that can say something its driver cannot use.
type Spoiler interface {
	// Spoil lets the source say one record that is not one: bad JSON, a torn line, a null where a number belongs.
	Spoil()
}

// Options of Run.
type Options struct {
	Kind signal.Kind
	// Start starts a source of its own for one test and stops it when the test ends.
	Start func(t testing.TB) Source
	// Identity is what tells a repeated record from a new one, as the rules would: by default its Position, or else its tag and
	// the source's time. An empty one cannot be recognised.
	Identity func(s signal.Signal) string
	// OnlyRunning says that the source keeps nothing for a driver that was never there (an OPC UA server's queue begins with the
	// subscription): records are produced only after the driver was connected once.
	OnlyRunning bool
	// Unordered sources deliver records in an order of their own.
	Unordered bool
}

// Run runs the suite.
func Run(t *testing.T, o Options) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.test(newWorld(t, o)) })
	}
}

var cases = []struct {
	name string
	test func(*world)
}{
	{"everything arrives once and in order", everything},
	{"killed after a batch was stored", killedAfterEmit},
	{"the acknowledgement of a batch is lost", ackLost},
	{"the buffer refuses", refusing},
	{"the buffer is slow", slow},
	{"told to stop", stopped},
	{"an old cursor comes back", oldCursor},
	{"the source restarts", restarted},
	{"a bad record among good ones", badAmongGood},
	{"an unknown key is refused", unknownKey},
}

func newWorld(t testing.TB, o Options) *world {
	if o.Identity == nil {
		o.Identity = identity
	}
	return &world{t: t, o: o, source: o.Start(t), dir: t.TempDir(), problems: map[string]string{}}
}

func identity(s signal.Signal) string {
	switch {
	case s.Position != "":
		return s.Position
	case !s.SourceTime.IsZero():
		return s.Tag + "\x00" + s.Topic + "\x00" + s.SourceTime.UTC().Format(time.RFC3339Nano)
	}
	return ""
}

// world is an agent around one driver: a buffer in memory, and a page.
type world struct {
	t      testing.TB
	o      Options
	source Source
	dir    string

	mu       sync.Mutex
	cond     chan struct{} // closed and replaced when something changed
	signals  []signal.Signal
	cursor   []byte
	cursors  [][]byte
	state    signal.State
	why      string
	problems map[string]string
	made     int // records produced
}

func (w *world) changed() {
	if w.cond != nil {
		close(w.cond)
	}
	w.cond = nil
}

// State and Problem implement signal.Reporter.
func (w *world) State(s signal.State, reason string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.state, w.why = s, reason
	w.changed()
}

func (w *world) Problem(key string, p *signal.Problem) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.problems, key)
	if p != nil {
		w.problems[key] = fmt.Sprintf("%s: %s: %s", p.Code, p.Item, p.Reason)
	}
	w.changed()
}

// until waits for a condition that is looked at whenever something changed.
func (w *world) until(what string, ok func() bool) {
	w.t.Helper()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		w.mu.Lock()
		done := ok()
		if w.cond == nil {
			w.cond = make(chan struct{})
		}
		news := w.cond
		w.mu.Unlock()
		if done {
			return
		}
		select {
		case <-news:
		case <-deadline.C:
			w.t.Fatalf("%s has not come about within %s; %s", what, patience, w.describe())
		}
	}
}

func (w *world) describe() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return fmt.Sprintf("%d signals are stored, the source is %q (%s), problems: %v", len(w.signals), w.state, w.why, w.problems)
}

// store is what the buffer does with a batch.
func (w *world) store(b signal.Batch) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signals = append(w.signals, b.Signals...)
	if b.Cursor != nil {
		w.cursor = append([]byte{}, b.Cursor...)
		w.cursors = append(w.cursors, w.cursor)
	}
	w.changed()
}

func (w *world) produce(n int) {
	w.source.Produce(n)
	w.made += n
}

// has reports whether the records from 1 to the last produced are all stored. The caller holds the lock.
func (w *world) has() bool {
	seen := map[int]bool{}
	for _, s := range w.signals {
		if n, ok := w.source.Number(s); ok {
			seen[n] = true
		}
	}
	return len(seen) >= w.made
}

// all waits for every record, and then sees that none is wrong, none came twice unless it can be recognised, and that they came
// in order. repeats says that repetitions were to be expected.
func (w *world) all(repeats bool) {
	w.t.Helper()
	w.until(fmt.Sprintf("that all %d records are stored", w.made), w.has)
	w.mu.Lock()
	defer w.mu.Unlock()
	first, last := map[int]signal.Signal{}, 0
	for _, s := range w.signals {
		n, ok := w.source.Number(s)
		if !ok {
			continue
		}
		if n < 1 || n > w.made {
			w.t.Errorf("record %d was never produced: %+v", n, s)
			continue
		}
		before, again := first[n]
		switch {
		case !again:
			if n < last && !w.o.Unordered {
				w.t.Errorf("record %d came after record %d", n, last)
			}
			first[n], last = s, max(last, n)
		case !repeats:
			w.t.Errorf("record %d came twice without a reason", n)
		case w.o.Identity(s) == "" || w.o.Identity(s) != w.o.Identity(before):
			w.t.Errorf("record %d came twice and cannot be recognised: identity %q, then %q", n, w.o.Identity(before), w.o.Identity(s))
		}
	}
	byIdentity := map[string]int{}
	for n, s := range first {
		id := w.o.Identity(s)
		if other, ok := byIdentity[id]; ok && id != "" {
			w.t.Errorf("records %d and %d have the same identity %q: one of them would be taken for a repetition", other, n, id)
		}
		byIdentity[id] = n
	}
}

// run is a driver at work.
type run struct {
	w      *world
	cancel context.CancelFunc
	done   chan error
}

func (w *world) driver() signal.Driver {
	w.t.Helper()
	d, err := w.o.Kind.New(w.env(), decode(w.source.Section()))
	if err != nil {
		w.t.Fatalf("make the driver: %v", err)
	}
	return d
}

func (w *world) env() signal.Env {
	return signal.Env{Plant: "ulm", Agent: "line1", Source: "source", Dir: w.dir, ConfigDir: w.dir, Zone: time.UTC, Reporter: w,
		Logger: slog.New(slog.NewTextHandler(w.t.Output(), nil))}
}

func decode(section string) func(any) error {
	return func(into any) error { return yaml.Load([]byte(section), into, yaml.WithKnownFields()) }
}

// start runs a new driver with the stored cursor, as after a start of the agent. emit may be nil for a buffer that takes all.
func (w *world) start(emit signal.Emit) *run {
	w.t.Helper()
	if emit == nil {
		emit = func(_ context.Context, b signal.Batch) error { w.store(b); return nil }
	}
	d := w.driver()
	ctx, cancel := context.WithCancel(context.Background())
	r := &run{w: w, cancel: cancel, done: make(chan error, 1)}
	w.mu.Lock()
	cursor := w.cursor
	w.state = ""
	w.mu.Unlock()
	go func() { r.done <- d.Run(ctx, cursor, emit) }()
	w.t.Cleanup(r.cancel)
	return r
}

// stop ends a run; a driver that does not end then is at fault.
func (r *run) stop() {
	r.w.t.Helper()
	r.cancel()
	select {
	case err := <-r.done:
		if err != nil && !errors.Is(err, context.Canceled) {
			r.w.t.Errorf("Run ended with %v: it returns an error only for a configuration that can never work", err)
		}
		r.done <- nil
	case <-time.After(patience / 2):
		r.w.t.Fatalf("Run has not ended %s after it was told to", patience/2)
	}
}

func (w *world) connected() {
	w.t.Helper()
	w.until("that the source is connected", func() bool { return w.state == signal.StateOK })
}

// ready lets a source that keeps nothing for strangers make the driver's acquaintance.
func (w *world) ready() {
	w.t.Helper()
	if !w.o.OnlyRunning {
		return
	}
	r := w.start(nil)
	w.connected()
	w.produce(1)
	w.all(false)
	r.stop()
}

func everything(w *world) {
	w.ready()
	w.produce(25)
	r := w.start(nil)
	w.connected()
	w.produce(25)
	w.all(w.o.OnlyRunning)
	r.stop()
	w.all(w.o.OnlyRunning)
}

// A process that dies right after its buffer stored a batch never acknowledges it.
func killedAfterEmit(w *world) { killed(w, nil) }

// The buffer stored a batch, and the driver hears of a failure: the process died before it could be told.
func ackLost(w *world) { killed(w, errors.New("killed before the answer")) }

func killed(w *world, answer error) {
	w.ready()
	w.produce(10)
	for range 3 {
		dead := make(chan struct{})
		var once sync.Once
		r := w.start(func(ctx context.Context, b signal.Batch) error {
			select {
			case <-dead:
				return context.Canceled
			default:
			}
			kill := false
			for _, s := range b.Signals {
				if _, ok := w.source.Number(s); ok {
					kill = true
				}
			}
			w.store(b)
			if kill {
				once.Do(func() { close(dead) })
				return answer
			}
			return nil
		})
		select {
		case <-dead:
		case <-time.After(patience):
			w.t.Fatalf("no batch with a record has come within %s; %s", patience, w.describe())
		}
		r.stop()
		w.produce(5)
	}
	r := w.start(nil)
	w.all(true)
	r.stop()
}

func refusing(w *world) {
	w.ready()
	w.produce(10)
	var mu sync.Mutex
	left := 3
	r := w.start(func(_ context.Context, b signal.Batch) error {
		mu.Lock()
		defer mu.Unlock()
		if left > 0 && len(b.Signals) > 0 {
			left--
			return errors.New("the disk is full")
		}
		w.store(b)
		return nil
	})
	w.produce(10)
	w.all(true)
	r.stop()
	if left > 0 {
		w.t.Errorf("%d of 3 refusals were not needed: the driver gave nothing to refuse", left)
	}
}

func slow(w *world) {
	w.ready()
	gate := make(chan struct{})
	blocked := make(chan struct{}, 1)
	r := w.start(func(ctx context.Context, b signal.Batch) error {
		select {
		case <-gate:
		default:
			select {
			case blocked <- struct{}{}:
			default:
			}
		}
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
		w.store(b)
		return nil
	})
	w.produce(200)
	select {
	case <-blocked:
	case <-time.After(patience):
		w.t.Fatalf("no batch has come within %s; %s", patience, w.describe())
	}
	w.produce(200)
	close(gate)
	w.all(true)
	r.stop()
}

// Told to stop while a batch waits for the buffer: Run ends soon, with all of its goroutines, and the batch comes again.
func stopped(w *world) {
	w.ready()
	w.produce(10)
	before := goleak.IgnoreCurrent()
	blocked := make(chan struct{}, 1)
	r := w.start(func(ctx context.Context, _ signal.Batch) error {
		select {
		case blocked <- struct{}{}:
		default:
		}
		<-ctx.Done()
		return ctx.Err()
	})
	select {
	case <-blocked:
	case <-time.After(patience):
		w.t.Fatalf("no batch has come within %s; %s", patience, w.describe())
	}
	r.stop()
	if err := goleak.Find(before); err != nil {
		w.t.Errorf("Run has left goroutines behind: %v", err)
	}
	r = w.start(nil)
	w.all(true)
	r.stop()
}

// The folder was restored from a copy: what comes again must be recognised, and nothing may be left out.
func oldCursor(w *world) {
	w.ready()
	w.produce(10)
	r := w.start(nil)
	w.all(w.o.OnlyRunning)
	r.stop()
	w.mu.Lock()
	old := w.cursor
	w.mu.Unlock()
	r = w.start(nil)
	w.connected()
	w.produce(10)
	w.all(w.o.OnlyRunning)
	r.stop()
	w.mu.Lock()
	w.cursor = old
	w.mu.Unlock()
	r = w.start(nil)
	w.connected()
	w.produce(10)
	w.all(true)
	r.stop()
}

func restarted(w *world) {
	w.ready()
	r := w.start(nil)
	w.connected()
	w.produce(10)
	w.all(w.o.OnlyRunning)
	w.mu.Lock()
	w.state = ""
	w.mu.Unlock()
	w.source.Restart()
	if w.o.OnlyRunning {
		w.connected()
	}
	w.produce(10)
	w.all(true)
	r.stop()
}

func badAmongGood(w *world) {
	spoiler, ok := w.source.(Spoiler)
	if !ok {
		w.t.Fatal("the source is no Spoiler: say how it can go wrong")
	}
	w.ready()
	r := w.start(nil)
	w.connected()
	w.produce(5)
	w.all(true) // the bad one must not replace a good one in the source
	spoiler.Spoil()
	w.produce(5)
	w.all(true)
	w.until("that the bad record is shown", func() bool {
		if len(w.problems) > 0 {
			return true
		}
		for _, s := range w.signals {
			if s.Problem != nil || s.Quality != signal.Good {
				return true
			}
		}
		return false
	})
	r.stop()
}

func unknownKey(w *world) {
	_, err := w.o.Kind.New(w.env(), decode(strings.TrimRight(w.source.Section(), "\n")+"\nno_such_key: 1\n"))
	if err == nil || !strings.Contains(err.Error(), "no_such_key") {
		w.t.Errorf("a key that nobody knows is answered with %v; it must be refused by name", err)
	}
}
