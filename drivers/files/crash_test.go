package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

var errDead = errors.New("the agent is dead")

// mortal is the end of an agent at its n-th step: a step is an operation that changes a folder, or an emit. After it
// nothing happens any more.
type mortal struct {
	mu    sync.Mutex
	at    int  // the step at which it dies; 0: never
	after bool // that step is done, but nobody hears of it
	steps int
	dead  chan struct{}
}

// step does one thing, unless the agent is dead or dies before it.
func (m *mortal) step(do func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.dead:
		return errDead
	default:
	}
	m.steps++
	if m.steps != m.at {
		return do()
	}
	if m.after {
		do()
	}
	close(m.dead)
	return errDead
}

func (m *mortal) alive() error {
	select {
	case <-m.dead:
		return errDead
	default:
		return nil
	}
}

// mortalStore is this computer's file system as a mortal agent sees it.
type mortalStore struct {
	local
	m *mortal
}

func (s mortalStore) list(dir string) ([]entry, error) {
	if err := s.m.alive(); err != nil {
		return nil, err
	}
	return s.local.list(dir)
}

func (s mortalStore) open(path string) (io.ReadCloser, error) {
	if err := s.m.alive(); err != nil {
		return nil, err
	}
	return s.local.open(path)
}

func (s mortalStore) rename(from, to string) error {
	return s.m.step(func() error { return s.local.rename(from, to) })
}

func (s mortalStore) remove(path string) error {
	return s.m.step(func() error { return s.local.remove(path) })
}

func (s mortalStore) write(path string, b []byte) error {
	return s.m.step(func() error { return s.local.write(path, b) })
}

func (s mortalStore) lost(err error) bool { return errors.Is(err, errDead) }

// live runs an agent until done is true or it is dead, and reports whether it died.
func (p *plant) live(section string, m *mortal, done func() bool) (died bool) {
	p.t.Helper()
	d := p.make(section)
	d.link.dial = func(context.Context) (store, error) {
		if err := m.alive(); err != nil {
			return nil, err
		}
		return mortalStore{m: m}, nil
	}
	stop := p.run(d, func(ctx context.Context, b signal.Batch) error {
		return m.step(func() error { return p.emit(ctx, b) })
	})
	defer stop()
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-m.dead:
			return true
		case <-tick.C:
			if done() {
				stop() // it may be about to die of the step that was the last one
				return m.alive() != nil
			}
		case <-deadline.C:
			p.mu.Lock()
			defer p.mu.Unlock()
			p.t.Fatalf("not done within %s: %s", patience, p.describe())
		}
	}
}

// Killed at any step, before it or right after it: what was taken counts once, and each file ends where it belongs.
func TestKilledAtAnyStepNothingIsLostAndNothingDoubled(t *testing.T) {
	steps := 0
	for at := 0; at == 0 || at <= steps; at++ {
		for _, after := range []bool{false, true} {
			p := newPlant(t)
			section := p.section("ready: renamed", "batch: 4")
			p.put("a-small.csv", rows(1, 3))
			p.put("b-large.csv", rows(4, 14))
			p.put("c-bad.csv", "n,text\n15,x\nx\n")
			p.put("d-refused.csv", "only,bad\nx\n")
			p.put("e-again.csv", rows(1, 3))
			done := func() bool {
				return len(p.glob("done/*/*.csv")) == 4 && len(p.glob("error/*.csv")) == 1 && len(p.glob("processing/*")) == 0
			}
			m := &mortal{at: at, after: after, dead: make(chan struct{})}
			died := p.live(section, m, done)
			if at == 0 {
				steps = m.steps
			} else if !died {
				t.Errorf("step %d of %d was never reached", at, steps)
			}
			p.live(section, &mortal{dead: make(chan struct{})}, done)
			if err := counted(p.numbers(), 15); err != nil {
				t.Errorf("killed at step %d of %d (done: %v): %v", at, steps, after, err)
			}
			for _, f := range []string{"done/*/c-bad.csv.reason.txt", "error/d-refused.csv.reason.txt"} {
				if len(p.glob(f)) != 1 {
					t.Errorf("killed at step %d of %d (done: %v): %s is missing", at, steps, after, f)
				}
			}
			positions := map[string]string{} // a repetition must say the same
			for _, s := range p.all() {
				said := fmt.Sprintf("%s %v %v", s.Tag, s.Value, s.Problem != nil)
				if before, again := positions[s.Position]; again && before != said {
					t.Errorf("position %s was %q, then %q", s.Position, before, said)
				}
				positions[s.Position] = said
			}
		}
	}
	t.Logf("%d steps, each killed before and after", steps)
}

// An order that was laid down stays one file, also when the agent dies in between and the receiver is quick.
func TestKilledAtAnyStepAnOrderIsLaidDownOnce(t *testing.T) {
	for at := 1; at <= 3; at++ {
		for _, after := range []bool{false, true} {
			for _, quick := range []bool{false, true} {
				p := newPlant(t)
				section := fmt.Sprintf("work_orders: {folder: %q, format: json}", p.in)
				m := &mortal{at: at, after: after, dead: make(chan struct{})}
				d := p.make(section)
				d.link.dial = func(context.Context) (store, error) { return mortalStore{m: m}, nil }
				o := signal.WorkOrder{OrderNo: "WO/1", Revision: 2}
				err := d.Deliver(context.Background(), o)
				if at <= 2 && err == nil {
					t.Errorf("step %d: the agent did not die", at)
				}
				laid := 0
				if quick { // the receiver takes what is there
					for _, f := range p.glob("*.json") {
						os.Remove(f)
						laid++
					}
				}
				for range 2 {
					if err := p.make(section).Deliver(context.Background(), o); err != nil {
						t.Errorf("step %d after %v: deliver again: %v", at, after, err)
					}
				}
				if laid += len(p.glob("*.json")); laid != 1 || len(p.glob("*.tmp")) != 0 {
					t.Errorf("step %d after %v quick %v: laid down %d times, files %v", at, after, quick, laid, p.glob("*"))
				}
			}
		}
	}
}

func TestATornLineInTheIndexCostsNothing(t *testing.T) {
	p := newPlant(t)
	stop := p.start(p.section())
	p.put("a.csv", rows(1, 3))
	p.awaitFiles("done/*/a.csv", 1)
	stop()
	index := filepath.Join(p.dir, "taken-rows")
	f, err := os.OpenFile(index, os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(f, `{"h":"to`)
	f.Close()
	stop = p.start(p.section())
	p.put("b.csv", rows(4, 4))
	p.awaitFiles("done/*/b.csv", 1)
	stop()
	defer p.start(p.section())()
	p.put("c.csv", rows(1, 3))
	p.put("d.csv", rows(4, 4))
	p.awaitFiles("done/*/*.reason.txt", 2)
	if err := counted(p.numbers(), 4); err != nil || len(p.all()) != 4 {
		t.Errorf("%v, %d signals; index %s", err, len(p.all()), read(t, index))
	}
}

func TestTheIndexStaysBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "taken")
	x, err := openIndex(path, 1000)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 25 {
		var list []taken
		for j := range 100 {
			list = append(list, taken{Hash: fmt.Sprintf("%032d", i*100+j), Name: fmt.Sprint("f", i*100+j), At: int64(i)})
		}
		if err := x.add(list); err != nil {
			t.Fatal(err)
		}
		if err := x.shrink(map[string]bool{"f7": true}); err != nil {
			t.Fatal(err)
		}
	}
	x, err = openIndex(path, 1000)
	if err != nil || len(x.taken) > 2000 {
		t.Fatalf("%v, %d contents", err, len(x.taken))
	}
	if _, ok := x.taken[fmt.Sprintf("%032d", 2499)]; !ok {
		t.Error("the latest was forgotten")
	}
	if _, ok := x.byName["f7"]; !ok {
		t.Error("one whose file is still there was forgotten")
	}
}
