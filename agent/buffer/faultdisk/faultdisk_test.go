package faultdisk

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LINEKEEPER_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("%s: LINEKEEPER_SEED=%d\n", t.Name(), seed)
	return rand.New(rand.NewPCG(seed, seed))
}

const looks = 40 // at what a power cut would leave

func newDisk(t *testing.T, rng *rand.Rand) (*Disk, string) {
	t.Helper()
	dir := t.TempDir()
	d, err := New(dir, rng)
	if err != nil {
		t.Fatal(err)
	}
	return d, dir
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// write puts content at the start of a file, as the buffer's library does.
func write(t *testing.T, d *Disk, path string, content []byte, sync bool) error {
	t.Helper()
	must(t, d.BeforeWrite(path, int64(len(content))))
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt(content, 0)
	must(t, err)
	if !sync {
		return nil
	}
	return d.Sync(f)
}

// images returns how often each content was found at a name after a cut.
func images(t *testing.T, d *Disk, rng *rand.Rand, name string) map[string]int {
	t.Helper()
	found := map[string]int{}
	for range looks {
		dst := t.TempDir()
		must(t, d.Crash(rng, dst))
		content, err := os.ReadFile(filepath.Join(dst, name))
		if errors.Is(err, os.ErrNotExist) {
			found["none"]++
			continue
		}
		must(t, err)
		found[string(content)]++
	}
	return found
}

func TestOnlyWhatWasSyncedIsSureToSurvive(t *testing.T) {
	rng := random(t)
	d, dir := newDisk(t, rng)
	path := filepath.Join(dir, "a")
	old, fresh := bytes.Repeat([]byte("o"), 3*pageSize), bytes.Repeat([]byte("n"), 3*pageSize)
	must(t, write(t, d, path, old, true))
	if found := images(t, d, rng, "a"); found["none"] == 0 || found[string(old)] == 0 {
		t.Errorf("a synced file in a folder that was not synced is there %d times and missing %d times", found[string(old)], found["none"])
	}
	must(t, d.SyncDir(dir))
	if found := images(t, d, rng, "a"); found[string(old)] != looks {
		t.Errorf("a synced file in a synced folder was found whole %d times of %d", found[string(old)], looks)
	}
	must(t, write(t, d, path, fresh, false))
	found := images(t, d, rng, "a")
	if found[string(old)] == 0 || found[string(fresh)] == 0 || len(found) < 5 { // some seven of ten looks show one of these two
		t.Errorf("an unsynced write was missing %d times, whole %d times, and left %d different contents", found[string(old)],
			found[string(fresh)], len(found))
	}
	if now, _ := os.ReadFile(path); !bytes.Equal(now, fresh) {
		t.Error("looking at what a cut would leave changed the file")
	}
}

func TestNamesAreSureOnlyAfterTheFoldersSync(t *testing.T) {
	rng := random(t)
	d, dir := newDisk(t, rng)
	must(t, write(t, d, filepath.Join(dir, "a"), []byte("text"), true), d.SyncDir(dir))
	must(t, d.Rename(filepath.Join(dir, "a"), filepath.Join(dir, "b")))
	if a, b := images(t, d, rng, "a"), images(t, d, rng, "b"); a["none"] == 0 || a["text"] == 0 || b["none"] == 0 || b["text"] == 0 {
		t.Errorf("after a rename: %v at the old name, %v at the new one", a, b)
	}
	must(t, d.SyncDir(dir))
	must(t, d.Remove(filepath.Join(dir, "b")))
	if found := images(t, d, rng, "b"); found["none"] == 0 || found["text"] == 0 {
		t.Errorf("after a removal: %v", found)
	}
	must(t, d.SyncDir(dir))
	if found := images(t, d, rng, "b"); found["none"] != looks {
		t.Errorf("after a synced removal: %v", found)
	}
}

// Linux drops what it could not write: the next sync says that all is well, and it is not.
func TestFailedSyncLosesWhatALaterOneDoesNotBring(t *testing.T) {
	rng := random(t)
	d, dir := newDisk(t, rng)
	path := filepath.Join(dir, "a")
	must(t, write(t, d, path, bytes.Repeat([]byte("o"), 64*pageSize), true), d.SyncDir(dir))
	d.FailSync(1)
	fresh := bytes.Repeat([]byte("n"), 64*pageSize)
	if err := write(t, d, path, fresh, true); !errors.Is(err, syscall.EIO) {
		t.Fatalf("the sync says %v", err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	must(t, d.Sync(f))
	seen, err := os.ReadFile(path)
	must(t, err)
	for content, n := range images(t, d, rng, "a") {
		lost, hidden := bytes.Count([]byte(content), []byte("o")), bytes.Count(seen, []byte("n"))-bytes.Count([]byte(content), []byte("n"))
		if n != looks || lost == 0 || lost == len(content) || hidden <= 0 {
			t.Errorf("%d times %d of %d bytes are lost, %d of them can still be read", n, lost, len(content), hidden)
		}
	}
	must(t, write(t, d, path, bytes.Repeat([]byte("m"), 64*pageSize), true))
	if found := images(t, d, rng, "a"); found[string(bytes.Repeat([]byte("m"), 64*pageSize))] != looks {
		t.Error("what was written again after the failure is not all there")
	}
}

func TestFullDiskSaysSo(t *testing.T) {
	d, dir := newDisk(t, random(t))
	d.Full(true)
	if err := d.BeforeWrite(filepath.Join(dir, "a"), 1); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("a write on a full disk: %v", err)
	}
	if free, err := d.Free(dir); free != 0 || err != nil {
		t.Errorf("%d bytes free (%v)", free, err)
	}
	d.Full(false)
	must(t, write(t, d, filepath.Join(dir, "a"), []byte("text"), true))
}

func TestFoldersOfOthersAreCopiedAsTheyAre(t *testing.T) {
	rng := random(t)
	d, dir := newDisk(t, rng)
	must(t, os.Mkdir(filepath.Join(dir, "buffer"), 0o700))
	must(t, write(t, d, filepath.Join(dir, "buffer", "a"), []byte("text"), false))
	must(t, os.WriteFile(filepath.Join(dir, "other"), []byte("other"), 0o600))
	if found := images(t, d, rng, "other"); found["other"] != looks {
		t.Errorf("a file of others: %v", found)
	}
	if found := images(t, d, rng, filepath.Join("buffer", "a")); found["none"] == 0 {
		t.Errorf("a file of the buffer: %v", found)
	}
}
