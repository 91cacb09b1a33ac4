package drivertest

import (
	"context"
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// shelf is a source in memory: records that stay until they are taken off.
type shelf struct {
	mu      sync.Mutex
	records []string
	next    int
	news    chan struct{}
}

func (s *shelf) Section() string { return "name: shelf\n" }

func (s *shelf) put(text string) {
	s.records = append(s.records, text)
	close(s.news)
	s.news = make(chan struct{})
}

func (s *shelf) Produce(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range n {
		s.next++
		s.put(fmt.Sprint(s.next))
	}
}

func (s *shelf) Spoil() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put("x")
}

func (s *shelf) Number(g signal.Signal) (int, bool) {
	var n int
	text, _ := g.Value.(signal.Number)
	_, err := fmt.Sscan(string(text), &n)
	return n, err == nil
}

func (s *shelf) Restart() {}

// faults that a driver of the shelf can have.
type faults struct {
	acksEarly, dropsRefused, noIdentity, leaks, stopsAtBad, takesAnyKey, reorders, repeats bool
}

type shelfDriver struct {
	env    signal.Env
	shelf  *shelf
	faults faults
}

func kindOf(s *shelf, f faults) signal.Kind {
	return signal.Kind{Name: "shelf", New: func(env signal.Env, decode func(any) error) (signal.Driver, error) {
		var c struct {
			Name string `yaml:"name"`
		}
		if err := decode(&c); err != nil && !f.takesAnyKey {
			return nil, err
		}
		return &shelfDriver{env, s, f}, nil
	}}
}

func (d *shelfDriver) Run(ctx context.Context, cursor []byte, emit signal.Emit) error {
	if d.faults.leaks {
		go func() { <-context.WithoutCancel(ctx).Done() }()
	}
	at := 0
	if cursor != nil && !d.faults.repeats {
		if err := json.Unmarshal(cursor, &at); err != nil {
			return err
		}
	}
	d.env.Reporter.State(signal.StateOK, "")
	for {
		d.shelf.mu.Lock()
		waiting, news := d.shelf.records[min(at, len(d.shelf.records)):], d.shelf.news
		d.shelf.mu.Unlock()
		if len(waiting) == 0 {
			select {
			case <-news:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		if d.faults.reorders && len(waiting) > 2 {
			waiting = append([]string{waiting[1], waiting[0]}, waiting[2:]...)
		}
		after, _ := json.Marshal(at + len(waiting))
		b := signal.Batch{Source: d.env.Source, Cursor: after}
		for i, text := range waiting {
			g := signal.Signal{Tag: "t", Value: signal.Number(text), Position: fmt.Sprint(at + i)}
			if d.faults.noIdentity {
				g.Position = ""
			}
			if text == "x" {
				if d.faults.stopsAtBad {
					<-ctx.Done()
					return nil
				}
				g = signal.Signal{Tag: "t", Problem: &signal.Problem{Code: "bad", Item: text, Reason: "is no number"}}
			}
			b.Signals = append(b.Signals, g)
		}
		if d.faults.acksEarly { // takes them off before anybody has them
			d.shelf.mu.Lock()
			for i := range waiting {
				d.shelf.records[at+i] = "gone"
			}
			d.shelf.mu.Unlock()
		}
		err := emit(ctx, b)
		if err == nil || d.faults.dropsRefused && ctx.Err() == nil {
			at += len(waiting)
		}
		if err != nil && ctx.Err() != nil {
			return nil
		}
		runtime.Gosched()
	}
}

func options(s *shelf, f faults) Options {
	return Options{Kind: kindOf(s, f), Start: func(testing.TB) Source {
		s.news = make(chan struct{})
		return s
	}}
}

func TestADriverThatKeepsTheContractPasses(t *testing.T) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) { c.test(newWorld(t, options(&shelf{}, faults{}))) })
	}
}

// noted is a test that only notes whether it failed.
type noted struct {
	testing.TB
	mu       sync.Mutex
	failures []string
	cleanups []func()
}

func (n *noted) Helper() {}
func (n *noted) Cleanup(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cleanups = append(n.cleanups, f)
}

func (n *noted) Errorf(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.failures = append(n.failures, fmt.Sprintf(format, args...))
}

func (n *noted) Fatalf(format string, args ...any) {
	n.Errorf(format, args...)
	runtime.Goexit()
}

func (n *noted) Fatal(args ...any) { n.Fatalf("%s", fmt.Sprint(args...)) }

func TestEachBrokenDriverIsCaught(t *testing.T) {
	patience = 2 * time.Second
	defer func() { patience = Patience }()
	for _, broken := range []struct {
		name   string
		faults faults
		by     string
		says   string
	}{
		{"acknowledges before the batch is stored", faults{acksEarly: true}, "told to stop", "not come about"},
		{"forgets what was refused", faults{dropsRefused: true}, "the buffer refuses", "not come about"},
		{"repeats without a mark", faults{noIdentity: true}, "an old cursor comes back", "cannot be recognised"},
		{"begins again at each start", faults{repeats: true}, "everything arrives once and in order", ""},
		{"leaves goroutines behind", faults{leaks: true}, "told to stop", "goroutines"},
		{"stops at a bad record", faults{stopsAtBad: true}, "a bad record among good ones", "not come about"},
		{"takes any key", faults{takesAnyKey: true}, "an unknown key is refused", "refused by name"},
		{"changes the order", faults{reorders: true}, "everything arrives once and in order", "came after"},
	} {
		t.Run(broken.name, func(t *testing.T) {
			if broken.says == "" {
				broken.by, broken.says = "killed after a batch was stored", "" // it passes: its repetitions can be recognised
			}
			n := &noted{TB: t}
			for _, c := range cases {
				if c.name != broken.by {
					continue
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					c.test(newWorld(n, options(&shelf{}, broken.faults)))
				}()
				<-done
			}
			for _, f := range n.cleanups {
				f()
			}
			said := strings.Join(n.failures, "; ")
			if broken.says == "" {
				if said != "" {
					t.Errorf("repetitions that can be recognised failed the suite: %s", said)
				}
			} else if !strings.Contains(said, broken.says) {
				t.Errorf("%q did not catch it: %q", broken.by, said)
			}
		})
	}
}
