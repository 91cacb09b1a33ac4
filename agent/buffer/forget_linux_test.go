package buffer

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
)

// mappedKB is how much of a file is in this process's memory.
func mappedKB(t *testing.T, path string) (kb int) {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	ours := false
	for in := bufio.NewScanner(f); in.Scan(); {
		line := in.Text()
		if fields := strings.Fields(line); len(fields) > 0 && strings.Contains(fields[0], "-") {
			ours = strings.HasSuffix(line, path)
		}
		var n int
		if _, err := fmt.Sscanf(line, "Rss: %d kB", &n); err == nil && ours {
			kb += n
		}
	}
	return kb
}

// What was written long ago stays in the file and need not stay in memory: on a plant's computer each megabyte is somebody
// else's.
func TestWhatWasWrittenDoesNotStayInMemory(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.SegmentSize, cfg.Limit = 64<<20, 1<<30
	b := open(t, cfg)
	body := make([]byte, 1000)
	most := 0
	for range 400 {
		err := b.Commit(context.Background(), func(tx *Tx) error {
			for range 100 {
				tx.Append(body)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, mappedKB(t, b.active.path))
	}
	if size := fileSize(b.active.path); size < 40_000_000 {
		t.Fatalf("the file has %d bytes only: nothing is shown", size)
	}
	if most > keptMapped*3/2>>10 {
		t.Errorf("up to %d KiB of the file were in memory, want at most %d", most, keptMapped*3/2>>10)
	}
	entries, err := b.Read(0, 10, 1<<20)
	if err != nil || len(entries) != 10 || len(entries[0].Body) != len(body) {
		t.Errorf("the first records are %d, %v", len(entries), err)
	}
}
