package buffer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// A real file system without a free block: writes end in the middle. What was promised is there, the caller is told, and when
// somebody makes room the open buffer goes on.
func TestRealDiskWithoutRoomLosesNothing(t *testing.T) {
	dir := realparts.SmallDisk(t, "2m")
	if dir == "" {
		return
	}
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := random(t)
	cfg := small(filepath.Join(dir, "buffer"))
	b := open(t, cfg)
	var want []string
	put := func() error {
		body := fmt.Sprintf("%d %s", len(want)+1, strings.Repeat("f", rng.IntN(20_000)))
		err := b.Commit(t.Context(), func(tx *Tx) error { tx.Append([]byte(body)); return nil })
		if err == nil {
			want = append(want, fmt.Sprintf("%d:%s", len(want)+1, body))
		}
		return err
	}
	check := func() {
		t.Helper()
		wantBodies(t, b, want...)
		if damage := b.Damaged(); len(damage) > 0 {
			t.Fatalf("%v (%s)", damage, damage[0].Reason)
		}
	}
	told := 0
	for told < 20 {
		if err := put(); err != nil {
			if told++; !strings.Contains(err.Error(), "the disk is full: free some of it") {
				t.Fatalf("the caller is told %v", err)
			}
			check()
		}
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		if err := put(); err != nil {
			t.Fatalf("there is room again, and the buffer says %v", err)
		}
	}
	check()
	b = reopen(t, b)
	check()
	t.Logf("%d records promised, %d errors told", len(want), told)
}
