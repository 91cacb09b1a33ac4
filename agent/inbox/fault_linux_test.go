package inbox

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// replaceFile lets the inbox write to another file instead of its own, until the function that it returns is called. What it
// reads stays its own: that is mapped.
func replaceFile(t *testing.T, f *fixture, with string) (restore func()) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		fd, _ := strconv.Atoi(e.Name())
		if target, _ := os.Readlink("/proc/self/fd/" + e.Name()); target != f.path {
			continue
		}
		own, err := syscall.Dup(fd)
		f.must(err)
		other, err := os.OpenFile(with, os.O_RDWR, 0)
		f.must(err)
		f.must(syscall.Dup3(int(other.Fd()), fd, syscall.O_CLOEXEC))
		f.must(other.Close())
		return func() {
			f.must(syscall.Dup3(own, fd, syscall.O_CLOEXEC))
			f.must(syscall.Close(own))
		}
	}
	t.Fatalf("%q is not open", f.path)
	return nil
}

// On a full disk, and on one that takes writes and cannot sync them, the caller gets an error that names the file and the next
// step, and the position stays; when the disk is well the open inbox goes on.
func TestFailingDiskIsToldAndTheInboxGoesOn(t *testing.T) {
	for device, step := range map[string]string{"/dev/full": "free some of it", "/dev/null": "look into the system's log"} {
		t.Run(filepath.Base(device), func(t *testing.T) {
			f := open(t)
			f.come(order("WO-1", 1, pb.WorkOrder_STATE_RELEASED))
			epoch, before := f.Position()
			more := f.number(order("WO-2", 1, pb.WorkOrder_STATE_RELEASED), receipt(1, pb.Receipt_OUTCOME_POSTED, noon))
			restore := replaceFile(t, f, device)
			for range 2 {
				err := f.Store(epoch, more)
				if err == nil || !strings.Contains(err.Error(), f.path) || !strings.Contains(err.Error(), step) {
					t.Errorf("the caller is told %v", err)
				}
			}
			restore()
			if _, seq := f.Position(); seq != before {
				t.Errorf("the position went from %d to %d although nothing was stored", before, seq)
			}
			f.must(f.Store(epoch, more))
			f.reopen()
			if f.Recovered() != "" {
				t.Error(f.Recovered())
			}
			f.wantPending("WO-1/1 WO-2/1")
			if got := len(f.Receipts(10)); got != 1 {
				t.Errorf("%d receipts, want 1", got)
			}
		})
	}
}

// A commit whose last sync failed is in the file, although its caller got an error and memory does not know it. What comes
// again then must not be mixed up with it.
func TestCommitThatFailedAtItsEndIsTakenUp(t *testing.T) {
	f := open(t)
	f.come(receipt(1, pb.Receipt_OUTCOME_POSTED, noon))
	epoch, seq := f.Position()
	arrivals, listed, orders := f.arrivals, maps.Clone(f.listed), maps.Clone(f.orders)
	lost := f.number(receipt(2, pb.Receipt_OUTCOME_POSTED, noon), order("WO-1", 1, pb.WorkOrder_STATE_RELEASED))
	f.must(f.Store(epoch, lost))
	f.seq, f.arrivals, f.listed, f.orders, f.doubtful = seq, arrivals, listed, orders, true // as the failure would leave it
	f.must(f.Store(epoch, f.number(receipt(3, pb.Receipt_OUTCOME_POSTED, noon))))
	f.must(f.Store(epoch, lost))
	check := func() {
		t.Helper()
		if got := len(f.Receipts(10)); got != 3 || f.listed[listSettled] != 3 {
			t.Errorf("%d receipts, %d counted, want 3", got, f.listed[listSettled])
		}
		f.wantPending("WO-1/1")
	}
	check()
	f.reopen()
	check()
}

// bbolt syncs the pages of a commit before it writes the page that makes them count, and then that one. A power cut leaves any
// part of what was not synced.
func TestPowerCutKeepsEachDeliveryThatWasStored(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("LINEKEEPER_SEED"); text != "" {
		seed, _ = strconv.ParseUint(text, 10, 64)
	}
	fmt.Printf("%s: LINEKEEPER_SEED=%d\n", t.Name(), seed)
	rng := rand.New(rand.NewPCG(seed, seed))
	f := open(t)
	for n := 1; n <= 40; n++ {
		before, err := os.ReadFile(f.path)
		f.must(err)
		_, seq := f.Position()
		f.come(order(fmt.Sprintf("WO-%d", n), 1, pb.WorkOrder_STATE_RELEASED), receipt(n, pb.Receipt_OUTCOME_POSTED, noon))
		after, err := os.ReadFile(f.path)
		f.must(err)
		for range 3 {
			cut := &fixture{t: t, path: filepath.Join(t.TempDir(), "inbox.db")}
			f.must(os.WriteFile(cut.path, cutCommit(rng, before, after), 0o600))
			cut.reopen()
			_, got := cut.Position()
			whole := int64(2 * (n - 1))
			if got != seq {
				whole = int64(2 * n)
			}
			if cut.Recovered() != "" || got != whole || len(cut.Orders()) != int(whole/2) || len(cut.Receipts(100)) != int(whole/2) {
				t.Fatalf("after the power cut: position %d, %d orders, %d receipts, %q", got, len(cut.Orders()), len(cut.Receipts(100)),
					cut.Recovered())
			}
			f.must(cut.Close())
		}
	}
}

// cutCommit returns a file with a part of a commit: some sectors of its pages, or all of them and perhaps the meta page.
func cutCommit(rng *rand.Rand, before, after []byte) []byte {
	const sector = 512
	meta := 2 * os.Getpagesize()
	image := make([]byte, len(after))
	copy(image, before)
	all := rng.IntN(2) == 0
	for at := meta; at < len(after); at += sector {
		if all || rng.IntN(2) == 0 {
			copy(image[at:at+sector], after[at:])
		}
	}
	if all && rng.IntN(2) == 0 {
		copy(image[:meta], after)
	}
	return image
}
