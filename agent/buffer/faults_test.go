package buffer

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/linekeeper/linekeeper/agent/buffer/faultdisk"
)

// Whatever the disk refuses, callers get an error that names the folder, nothing is there in part, and what was promised can be
// read; as soon as the disk is well the open buffer goes on by itself. Power cuts come on top.
func TestFailingDiskIsToldToTheCallerAndTheBufferGoesOn(t *testing.T) {
	names := []faultdisk.Op{faultdisk.Rename, faultdisk.Remove, faultdisk.SyncDir, faultdisk.Truncate}
	all := append([]faultdisk.Op{faultdisk.Write, faultdisk.Sync}, names...)
	faults := map[string]func(d *faultdisk.Disk){
		"write error":      func(d *faultdisk.Disk) { d.Fail(syscall.EIO, faultdisk.Write) },
		"full":             func(d *faultdisk.Disk) { d.Fail(syscall.ENOSPC, faultdisk.Write) },
		"full at the sync": func(d *faultdisk.Disk) { d.Fail(syscall.ENOSPC, faultdisk.Sync) },
		"names":            func(d *faultdisk.Disk) { d.Fail(syscall.EIO, names...) },
		"sync of names":    func(d *faultdisk.Disk) { d.Fail(syscall.EIO, faultdisk.SyncDir) },
		"removal":          func(d *faultdisk.Disk) { d.Fail(syscall.EACCES, faultdisk.Remove) },
		"read-only":        func(d *faultdisk.Disk) { d.Fail(syscall.EROFS, all...) },
		"everything":       func(d *faultdisk.Disk) { d.Fail(syscall.EIO, all...) },
	}
	p := newPlant(t, random(t), false)
	told := map[string]int{}
	for range rounds(10) {
		for name, begin := range faults {
			begin(p.disk)
			before := p.fails
			for range 1 + p.rng.IntN(15) {
				p.step()
				p.check()
			}
			told[name] += p.fails - before
			p.disk.Before(nil)
			if p.err == nil && p.rng.IntN(4) == 0 {
				p.cut()
			}
			before = p.fails
			p.commit(1)
			if p.check(); p.fails > before {
				p.fail("a commit failed after the fault had ended")
			}
			if p.err != nil {
				t.Fatalf("%s: %v", name, p.err)
			}
		}
	}
	for _, name := range []string{"write error", "full", "full at the sync", "read-only", "everything"} {
		if told[name] == 0 {
			t.Errorf("fault %q was never met: the test did not test", name)
		}
	}
	t.Logf("errors told: %v; %d cuts, %d records promised, %d acknowledged", told, p.cuts, p.now.last, p.acked)
}

// On a disk without room facts wait, what comes from the hub does not, and intake goes on by itself when there is room again.
func TestDiskReserveHoldsFactsAndNothingIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, err := faultdisk.New(t.TempDir(), random(t))
		if err != nil {
			t.Fatal(err)
		}
		dir := t.TempDir()
		b := open(t, Config{Dir: dir, Disk: disk, DiskReserve: 1 << 20, SegmentSize: minSegmentSize})
		disk.SetFree(2 << 20) // near enough to be looked at with each commit
		time.Sleep(time.Second)
		commit(t, b, "before")
		disk.SetFree(1<<20 - 1)
		waits := make(chan error, 1)
		go func() {
			waits <- b.Commit(context.Background(), func(tx *Tx) error { tx.Append([]byte("waited")); return nil })
		}()
		synctest.Wait()
		if s := b.Stats(); !s.Held || s.HeldReason != heldDisk || s.FreeDisk != 1<<20-1 {
			t.Errorf("held %v because of %q, %d bytes free", s.Held, s.HeldReason, s.FreeDisk)
		}
		setState(t, b, "from the hub", "stored")
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		err = b.Commit(ctx, func(tx *Tx) error { tx.Append([]byte("too late")); return nil })
		if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "free") {
			t.Errorf("a caller that gives up is told %v", err)
		}
		disk.SetFree(1 << 30)
		if err := <-waits; err != nil {
			t.Error(err)
		}
		wantBodies(t, b, "1:before", "2:waited")
		if s := b.Stats(); s.Held {
			t.Error("still held although there is room")
		}
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
}

// The caller and the page are told what to do, until the disk is well.
func TestFullDiskIsVisibleUntilItIsOver(t *testing.T) {
	disk, err := faultdisk.New(t.TempDir(), random(t))
	if err != nil {
		t.Fatal(err)
	}
	cfg := small(t.TempDir())
	cfg.Disk = disk
	b := open(t, cfg)
	for want, fault := range map[string]error{
		"the disk is full: free some of it":                           syscall.ENOSPC,
		"it cannot be written: let the agent's user write the folder": syscall.EROFS,
		"the disk fails: look into the system's log and at the disk":  syscall.EIO,
	} {
		disk.Fail(fault, faultdisk.Write)
		err := b.Commit(t.Context(), func(tx *Tx) error { tx.Append([]byte("lost")); return nil })
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(b.Stats().Trouble, want) {
			t.Errorf("%v: the caller is told %v, the page %q", fault, err, b.Stats().Trouble)
		}
		if _, err := Open(Config{Dir: t.TempDir(), Disk: disk}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: who opens a buffer is told %v", fault, err)
		}
		disk.Fail(nil)
		commit(t, b, "kept")
		if trouble := b.Stats().Trouble; trouble != "" {
			t.Errorf("%v: it is over, and the page says %q", fault, trouble)
		}
	}
	wantBodies(t, b, "1:kept", "2:kept", "3:kept")
}

// A buffer that is closed after a failed commit may have a part of that on the disk. After a power cut it must not be taken
// for one that was closed in order, whose last commit is a promise.
func TestCloseAfterAFailedCommitPromisesNothingOfIt(t *testing.T) {
	rng := random(t)
	for range 60 {
		dir, image := t.TempDir(), t.TempDir()
		disk, err := faultdisk.New(dir, rng)
		if err != nil {
			t.Fatal(err)
		}
		cfg := small(dir)
		cfg.Disk = disk
		b := open(t, cfg)
		commit(t, b, "kept")
		disk.FailSync(2) // that of the commit, and that of taking it back
		err = b.Commit(t.Context(), func(tx *Tx) error { tx.Append([]byte(strings.Repeat("lost", 5000))); return nil })
		if err == nil {
			t.Fatal("the commit was promised although the sync failed")
		}
		disk.Fail(nil)
		if err := errors.Join(b.Close(), disk.Crash(rng, image)); err != nil {
			t.Fatal(err)
		}
		after := open(t, small(image))
		if damage := after.Damaged(); len(damage) > 0 {
			t.Fatalf("%v (%s)", damage, damage[0].Reason)
		}
		if got := bodies(t, after, 0); len(got) == 0 || got[0] != "1:kept" {
			t.Fatalf("records are %.200q", got)
		}
		if err := after.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A new segment may get its name although its folder could not be synced. It must not hide what was promised after that: state
// that went to the segment before it would be gone at the next start.
func TestSegmentThatOnlyGotItsNameHidesNothing(t *testing.T) {
	disk, err := faultdisk.New(t.TempDir(), random(t))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cfg := Config{Dir: dir, Disk: disk, DiskReserve: 1 << 20, SegmentSize: minSegmentSize, Overflow: DropOldest}
	b := open(t, cfg)
	disk.SetFree(1) // a record is counted and not stored, so that the next one needs a new segment
	commit(t, b, "no room")
	disk.SetFree(1 << 30)
	disk.Fail(syscall.EIO, faultdisk.SyncDir)
	err = b.Commit(t.Context(), func(tx *Tx) error { tx.Append([]byte("late")); return nil })
	if !errors.Is(err, syscall.EIO) {
		t.Fatalf("commit with a folder that cannot be synced: %v", err)
	}
	disk.Before(nil)
	err = b.Update(t.Context(), func(tx *Tx) error { tx.SetState("cursor", []byte("7")); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if got := string(open(t, cfg).State("cursor")); got != "7" {
		t.Errorf("the promised state is %q after a restart, want 7", got)
	}
}
