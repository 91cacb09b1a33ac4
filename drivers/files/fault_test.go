package files

import (
	"context"
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

func TestAFullDiskOfTheAgentHoldsFilesInProcessing(t *testing.T) {
	small := realparts.SmallDisk(t, "64k")
	if small == "" {
		return
	}
	p := newPlant(t)
	p.dir = small
	filler := filepath.Join(small, "filler")
	fill := func() { // to the last byte
		f, err := os.Create(filler)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for {
			if _, err := f.Write(make([]byte, 512)); err != nil {
				return
			}
		}
	}
	fill()
	stop := p.start(p.section("ready: renamed"))
	p.put("a.csv", rows(1, 5))
	p.awaitProblem("feed:rows:index", "index_not_written")
	p.awaitFiles("processing/a.csv", 1)
	stop()
	stop = p.start(p.section("ready: renamed")) // the cursor knows what the index could not be told
	p.awaitProblem("feed:rows:index", "index_not_written")
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	p.awaitFiles("done/*/a.csv", 1)
	p.await("no problem", func() bool { return len(p.problems) == 0 })
	stop()
	defer p.start(p.section("ready: renamed"))()
	p.put("b.csv", rows(1, 5))
	p.awaitFiles("done/*/b.csv.reason.txt", 1)
	if err := counted(p.numbers(), 5); err != nil || len(p.all()) != 5 {
		t.Errorf("%v, %d signals", err, len(p.all()))
	}
}

// refusing is a file system that lets nobody read some files, and on which one gets another name while it is read.
type refusing struct{ local }

func (s refusing) open(path string) (io.ReadCloser, error) {
	switch filepath.Base(path) {
	case "secret.csv":
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrPermission}
	case "old.csv":
		if err := os.Rename(path, filepath.Join(filepath.Dir(path), "new.csv")); err != nil {
			return nil, err
		}
		return s.local.open(filepath.Join(filepath.Dir(path), "new.csv"))
	}
	return s.local.open(path)
}

func TestAnUnreadableFileLeavesTheOthersAlone(t *testing.T) {
	p := newPlant(t)
	d := p.make(p.section("ready: renamed"))
	d.link.dial = func(context.Context) (store, error) { return refusing{}, nil }
	stop := p.run(d, p.emit)
	p.put("secret.csv", rows(4, 5))
	p.put("z.csv", rows(1, 3))
	p.awaitFiles("done/*/z.csv", 1)
	if shown := p.awaitProblem("feed:rows:read", "unreadable"); !strings.Contains(shown.Item, "secret.csv") {
		t.Errorf("%+v", shown)
	}
	stop()
	defer p.start(p.section("ready: renamed"))() // the right was given
	p.awaitFiles("done/*/secret.csv", 1)
	if err := counted(p.numbers(), 5); err != nil {
		t.Error(err)
	}
}

func TestAFileThatIsRenamedWhileItIsReadCountsOnce(t *testing.T) {
	p := newPlant(t)
	d := p.make(p.section("ready: renamed", "keep: true"))
	d.link.dial = func(context.Context) (store, error) { return refusing{}, nil }
	defer p.run(d, p.emit)()
	p.put("old.csv", rows(1, 3))
	p.awaitCount(3)
	p.put("last.csv", rows(4, 4))
	p.awaitCount(4)
	if err := counted(p.numbers(), 4); err != nil || len(p.all()) != 4 || p.all()[0].Topic != "new.csv" {
		t.Errorf("%v, %+v", err, p.all())
	}
}

// Nothing but the notification can cause a second look within the hour.
func TestANotificationWakesTheScan(t *testing.T) {
	p := newPlant(t)
	defer p.start(p.section("ready: renamed", "scan: 1h"))()
	p.await("the first scan", func() bool { return p.state == signal.StateOK })
	p.put("a.csv", rows(1, 3))
	p.awaitFiles("done/*/a.csv", 1)
}
