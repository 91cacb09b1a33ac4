package buffer

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
)

// backlogVariable is how many bytes of records to let pile up, 10737418240 for the full test; much less without it.
const backlogVariable = "LINEKEEPER_BACKLOG"

func dirSize(t testing.TB, dir string) (size int64) {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if info, err := file.Info(); err == nil { // else it was deleted meanwhile
			size += info.Size()
		}
	}
	return size
}

// After a long outage the backlog drains while intake goes on, in order and without a gap, and the disk is given back.
func TestBacklogDrainsWhileIntakeGoesOnAndGivesTheDiskBack(t *testing.T) {
	cfg := small(t.TempDir())
	backlog, most, group := int64(12<<20), int64(2*minSegmentSize+256<<10), 300
	if text := os.Getenv(backlogVariable); text != "" {
		var err error
		if backlog, err = strconv.ParseInt(text, 10, 64); err != nil {
			t.Fatal(err)
		}
		cfg.SegmentSize, most, group = DefaultSegmentSize, 200<<20, 8000
	}
	cfg.Limit = 2*backlog + 1<<30
	b := open(t, cfg)
	filler := bytes.Repeat([]byte("x"), 248)
	record := func(seq uint64) []byte { return append(seqKey(seq), filler...) }
	next := uint64(1)
	appendSome := func(n int) {
		err := b.Commit(context.Background(), func(tx *Tx) error {
			for i := range n {
				tx.Append(record(next + uint64(i)))
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
		next += uint64(n)
	}
	for b.Stats().Bytes < backlog && !t.Failed() {
		appendSome(group)
	}
	full := dirSize(t, cfg.Dir)
	if full < backlog {
		t.Fatalf("the folder has %d bytes with a backlog of %d", full, backlog)
	}
	waiting := next - 1
	var drained atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !drained.Load() && !t.Failed() {
			appendSome(10)
		}
	})
	seen := uint64(0)
	for (seen < waiting || !drained.Load()) && !t.Failed() {
		entries, err := b.Read(seen, 4000, 2<<20)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Seq != seen+1 || len(e.Body) != 256 || seqOf(e.Body[:8]) != e.Seq {
				t.Fatalf("after %d comes %d, %.20q", seen, e.Seq, e.Body)
			}
			seen = e.Seq
		}
		if err := b.Ack(seen); err != nil {
			t.Fatal(err)
		}
		if seen >= waiting {
			drained.Store(true)
		}
	}
	wg.Wait()
	intake := next - 1 - waiting
	if size := dirSize(t, cfg.Dir); size > most {
		t.Errorf("the folder has %d bytes after the backlog of %d is gone, want at most %d", size, full, most)
	}
	if intake == 0 {
		t.Error("nothing was stored while the backlog drained: the test did not test")
	}
	t.Logf("backlog of %d bytes (%d records) drained, %d records came meanwhile; folder %d -> %d bytes", full, waiting, intake, full, dirSize(t, cfg.Dir))
}

// fullDisk takes no write while it is full.
type fullDisk struct {
	systemDisk
	full atomic.Bool
}

func (d *fullDisk) BeforeWrite(string, int64) error {
	if d.full.Load() {
		return syscall.ENOSPC
	}
	return nil
}

// What frees a full disk is an acknowledgement, so it must not need the disk.
func TestAcknowledgementFreesADiskThatTakesNoWrite(t *testing.T) {
	disk := &fullDisk{}
	cfg := small(t.TempDir())
	cfg.Disk = disk
	b := open(t, cfg)
	n := fill(t, b, 4)
	full := dirSize(t, cfg.Dir)
	disk.full.Store(true)
	if err := b.Ack(uint64(n)); err != nil {
		t.Fatal(err)
	}
	if size := dirSize(t, cfg.Dir); size > full/2 {
		t.Errorf("the folder still has %d bytes of %d", size, full)
	}
	disk.full.Store(false)
	commit(t, b, "goes on")
	b = reopen(t, b)
	if d := b.Damaged(); len(d) > 0 {
		t.Errorf("damage %+v", d)
	}
	wantBodies(t, b, fmt.Sprintf("%d:goes on", n+1))
}
