package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
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
				return false
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

func TestAFileThatVanishesIsNoFault(t *testing.T) {
	p := newPlant(t)
	d := p.make(p.section("ready: renamed"))
	d.link.dial = func(context.Context) (store, error) { return &thief{}, nil }
	defer p.run(d, p.emit)()
	p.put("gone.csv", rows(1, 3))
	p.put("kept.csv", rows(1, 2))
	p.awaitFiles("done/*/kept.csv", 1)
	if err := counted(p.numbers(), 2); err != nil || len(p.shown) != 0 {
		t.Errorf("%v, problems %v", err, p.shown)
	}
}

// thief takes a file away, or gives it another name, right before the agent has it.
type thief struct{ local }

func (s *thief) rename(from, to string) error {
	if strings.HasSuffix(from, "gone.csv") {
		os.Remove(from)
	}
	return s.local.rename(from, to)
}

func TestAFullDiskHoldsFilesBackAndLosesNothing(t *testing.T) {
	small := realparts.SmallDisk(t, "96k")
	if small == "" {
		return
	}
	p := newPlant(t)
	section := p.section(fmt.Sprintf("done: %q", filepath.Join(small, "done")))
	filler := realparts.WriteFile(t, filepath.Join(small, "filler"), strings.Repeat("x", 64<<10))
	stop := p.start(section)
	p.put("a.csv", rows(1, 3000)) // larger than what is free
	p.awaitProblem("feed:rows:move", "move_failed")
	p.put("b.csv", rows(3001, 3010))
	p.awaitCount(3010) // the disk of done files does not stop records
	stop()
	stop = p.start(section)
	p.awaitProblem("feed:rows:move", "move_failed")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	p.await("files in done", func() bool {
		found, _ := filepath.Glob(filepath.Join(small, "done", "*", "*.csv"))
		return len(found) == 2 && len(p.problems) == 0
	})
	stop()
	found, _ := filepath.Glob(filepath.Join(small, "done", "*", "a.csv"))
	if got := read(t, found[0]); got != rows(1, 3000) {
		t.Errorf("the copy on the other volume has %d bytes", len(got))
	}
	if err := counted(p.numbers(), 3010); err != nil || len(p.all()) != 3010 || len(p.glob("processing/*")) != 0 {
		t.Errorf("%v, %d signals, in processing %v", err, len(p.all()), p.glob("processing/*"))
	}
}

func TestTenThousandSmallFiles(t *testing.T) {
	const n = 10_000
	p := newPlant(t)
	for i := 1; i <= n; i++ {
		realparts.WriteFile(t, filepath.Join(p.in, fmt.Sprintf("f%05d.csv", i)), rows(i, i))
	}
	began := time.Now()
	defer p.start(p.section("ready: renamed"))()
	p.awaitFiles("done/*/f*.csv", n)
	seen := map[string]bool{}
	for _, v := range p.numbers() {
		seen[v] = true
	}
	if len(seen) != n || len(p.all()) != n {
		t.Errorf("%d of %d records, %d signals", len(seen), n, len(p.all()))
	}
	t.Logf("%d files in %s, %d batches", n, time.Since(began).Round(time.Millisecond), p.batches)
	if p.batches > n/50 {
		t.Errorf("%d batches: small files are to become durable together", p.batches)
	}
}

// A file of 100 MB goes in batches, and goes on where it was when the agent is killed in its middle.
func TestAHugeFileGoesOnWhereItWas(t *testing.T) {
	p := newPlant(t)
	const lines = 500_000
	path := filepath.Join(p.in, "huge.csv.tmp")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(f, "n,text")
	pad := strings.Repeat("x", 192)
	for i := 1; i <= lines; i++ {
		fmt.Fprintf(f, "%d,%s\n", i, pad)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	os.Rename(path, filepath.Join(p.in, "huge.csv"))
	var mu sync.Mutex
	next, repeated, largest := 1, 0, 0
	take := func(b signal.Batch) {
		mu.Lock()
		defer mu.Unlock()
		largest = max(largest, len(b.Signals))
		for _, s := range b.Signals {
			var n int
			fmt.Sscan(s.Value.(map[string]any)["n"].(string), &n)
			switch {
			case n == next:
				next++
			case n < next:
				repeated++
			default:
				t.Errorf("record %d came after record %d", n, next-1)
				next = n + 1
			}
		}
		p.mu.Lock()
		p.cursor = b.Cursor
		p.mu.Unlock()
	}
	section := p.section("ready: renamed", "batch: 10000")
	dead := make(chan struct{})
	batches := 0
	stop := p.run(p.make(section), func(_ context.Context, b signal.Batch) error {
		if batches++; batches > 20 {
			if batches == 21 {
				close(dead)
			}
			return errDead
		}
		take(b)
		return nil
	})
	<-dead
	stop()
	defer p.run(p.make(section), func(_ context.Context, b signal.Batch) error { take(b); return nil })()
	p.awaitFiles("done/*/huge.csv", 1)
	mu.Lock()
	defer mu.Unlock()
	if next != lines+1 || repeated != 0 || largest > 10_000 {
		t.Errorf("%d records, %d repeated, largest batch %d", next-1, repeated, largest)
	}
	if left, _ := filepath.Glob(filepath.Join(p.dir, "spool-*")); len(left) != 0 {
		t.Errorf("copies are left: %v", left)
	}
}
