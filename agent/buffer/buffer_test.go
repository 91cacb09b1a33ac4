package buffer

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"go.uber.org/goleak"
)

// salvageWord makes the test binary the process that reads a damaged segment.
const salvageWord = "salvage-segment"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == eatWord {
		eatMemory()
	}
	if len(os.Args) > 1 && os.Args[1] == salvageWord {
		if err := SalvageProcess(os.Args[2:], os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if dir := os.Getenv(crashDirVariable); dir != "" {
		crashingWriter(dir)
	}
	// Fewer than rapid's hundred, since each one syncs a disk; -rapid.checks on the command line still counts.
	if err := flag.Set("rapid.checks", "30"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// small is a configuration whose segments are as small as they can be.
func small(dir string) Config {
	return Config{Dir: dir, Limit: 64 << 20, DiskReserve: -1, SegmentSize: minSegmentSize, Salvager: []string{os.Args[0], salvageWord}}
}

func open(t testing.TB, cfg Config) *Buffer {
	t.Helper()
	b, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func reopen(t testing.TB, b *Buffer) *Buffer {
	t.Helper()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	return open(t, b.cfg)
}

func commit(t testing.TB, b *Buffer, bodies ...string) {
	t.Helper()
	err := b.Commit(t.Context(), func(tx *Tx) error {
		for _, body := range bodies {
			tx.Append([]byte(body))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func setState(t testing.TB, b *Buffer, key, v string) {
	t.Helper()
	if err := b.Update(t.Context(), func(tx *Tx) error { tx.SetState(key, []byte(v)); return nil }); err != nil {
		t.Fatal(err)
	}
}

// bodies reads everything above after as "seq:body".
func bodies(t testing.TB, b *Buffer, after uint64) []string {
	t.Helper()
	var all []string
	for {
		entries, err := b.Read(after, 100, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) == 0 {
			return all
		}
		for _, e := range entries {
			all = append(all, fmt.Sprintf("%d:%s", e.Seq, e.Body))
			after = e.Seq
		}
	}
}

func wantBodies(t testing.TB, b *Buffer, want ...string) {
	t.Helper()
	if got := bodies(t, b, 0); !slices.Equal(got, want) {
		t.Errorf("records are %.200q, want %.200q", got, want)
	}
}

// fill commits records of 1,000 bytes until the buffer has n segments, and returns how many.
func fill(t testing.TB, b *Buffer, n int) int {
	t.Helper()
	count := 0
	for b.Stats().Segments < n {
		group := make([]string, 10)
		for i := range group {
			count++
			group[i] = fmt.Sprintf("%06d%s", count, strings.Repeat("x", 994))
		}
		commit(t, b, group...)
	}
	return count
}

func files(t testing.TB, b *Buffer, suffix string) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(b.cfg.Dir, "*"+suffix))
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestRecordsStateAndTimeSurviveReopening(t *testing.T) {
	at := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("plant", 3600))
	cfg := small(t.TempDir())
	cfg.Now = func() time.Time { return at }
	b := open(t, cfg)
	commit(t, b, "a", "", "c")
	setState(t, b, "cursor/mes", "41")
	setState(t, b, "gone", "x")
	if err := b.Update(t.Context(), func(tx *Tx) error { tx.SetState("gone", nil); return nil }); err != nil {
		t.Fatal(err)
	}
	generation := b.Generation()
	b = reopen(t, b)
	wantBodies(t, b, "1:a", "2:", "3:c")
	commit(t, b, "d")
	b = reopen(t, b)
	wantBodies(t, b, "1:a", "2:", "3:c", "4:d")
	if got := string(b.State("cursor/mes")); got != "41" {
		t.Errorf("cursor is %q after reopening, want 41", got)
	}
	if b.State("gone") != nil {
		t.Error("a deleted key is back after reopening")
	}
	if b.Generation() != generation {
		t.Error("reopening changed the generation")
	}
	entries, err := b.Read(0, 1, 1)
	if err != nil {
		t.Fatal(err)
	}
	if !entries[0].StoredAt.Equal(at) {
		t.Errorf("record was stored at %v, want %v", entries[0].StoredAt, at)
	}
	if s := b.Stats(); s.Pending != 4 || s.LastSeq != 4 || !s.Oldest.Equal(at) || s.Bytes <= 0 {
		t.Errorf("stats after reopening: %+v", s)
	}
}

func TestFunctionSeesWhatWasStagedBefore(t *testing.T) {
	b := open(t, small(t.TempDir()))
	setState(t, b, "k/1", "old")
	setState(t, b, "k/3", "three")
	err := b.Commit(t.Context(), func(tx *Tx) error {
		tx.SetState("k/1", []byte("new"))
		tx.SetState("k/2", []byte("two"))
		tx.SetState("k/3", nil)
		var seen []string
		tx.EachState("k/", func(key string, v []byte) { seen = append(seen, key+"="+string(v)) })
		if want := []string{"k/1=new", "k/2=two"}; !slices.Equal(seen, want) {
			return fmt.Errorf("function sees %q, want %q", seen, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	b.EachState("k/", func(key string, v []byte) { seen = append(seen, key+"="+string(v)) })
	if want := []string{"k/1=new", "k/2=two"}; !slices.Equal(seen, want) {
		t.Errorf("committed state is %q, want %q", seen, want)
	}
}

// together makes the committer wait in one function while others queue up, so that they form one group.
func together(t *testing.T, b *Buffer, fns ...func(tx *Tx) error) []error {
	t.Helper()
	started, release := make(chan struct{}), make(chan struct{})
	errs := make([]error, len(fns))
	var wg sync.WaitGroup
	wg.Go(func() {
		_ = b.Update(context.Background(), func(*Tx) error { close(started); <-release; return nil })
	})
	<-started
	for i, fn := range fns {
		wg.Go(func() { errs[i] = b.Commit(context.Background(), fn) })
		realparts.Eventually(t, 10*time.Second, "the commit queues up", func() error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if len(b.queue) != i+1 {
				return fmt.Errorf("%d wait, want %d", len(b.queue), i+1)
			}
			return nil
		})
	}
	close(release)
	wg.Wait()
	return errs
}

func TestFailingFunctionTakesNobodyAlong(t *testing.T) {
	b := open(t, small(t.TempDir()))
	boom := errors.New("boom")
	var seqs [5]uint64
	errs := together(t, b,
		func(tx *Tx) error { seqs[0] = tx.Append([]byte("a")); tx.SetState("s", []byte("a")); return nil },
		func(tx *Tx) error { seqs[1] = tx.Append([]byte("bad")); tx.SetState("s", []byte("bad")); return boom },
		func(tx *Tx) error {
			tx.Append([]byte("worse"))
			tx.Quarantine(Quarantined{Reason: "x"})
			panic("worse")
		},
		func(tx *Tx) error { tx.Append(make([]byte, MaxRecord+1)); return nil },
		func(tx *Tx) error {
			seqs[4] = tx.Append([]byte("b"))
			tx.SetState("s", append(slices.Clone(tx.State("s")), 'b'))
			return nil
		},
	)
	if errs[0] != nil || errs[4] != nil {
		t.Errorf("good functions failed: %v, %v", errs[0], errs[4])
	}
	if !errors.Is(errs[1], boom) {
		t.Errorf("failing function's caller got %v", errs[1])
	}
	if errs[2] == nil || !strings.Contains(errs[2].Error(), "panic: worse") {
		t.Errorf("panicking function's caller got %v", errs[2])
	}
	if errs[3] == nil {
		t.Error("a record above the size limit was taken")
	}
	if seqs[0] != 1 || seqs[4] != 2 {
		t.Errorf("sequence numbers %v, want 1 and 2 for the good ones", seqs)
	}
	check := func() {
		t.Helper()
		wantBodies(t, b, "1:a", "2:b")
		if got := string(b.State("s")); got != "ab" {
			t.Errorf("state is %q, want ab", got)
		}
		if n := b.Stats().Quarantined; n != 0 {
			t.Errorf("%d inputs in quarantine, want 0", n)
		}
	}
	check()
	b = reopen(t, b)
	check()
}

// breakDisk makes all writes to the segment fail.
func breakDisk(t *testing.T, b *Buffer) {
	t.Helper()
	err := b.Update(t.Context(), func(*Tx) error { return b.active.file.Close() })
	if err != nil {
		t.Fatal(err)
	}
}

func TestFailedCommitLeavesNothing(t *testing.T) {
	b := open(t, small(t.TempDir()))
	commit(t, b, "a")
	setState(t, b, "s", "a")
	breakDisk(t, b)
	errs := together(t, b,
		func(tx *Tx) error { tx.Append([]byte("lost")); tx.SetState("s", []byte("lost")); return nil },
		func(tx *Tx) error { tx.Append([]byte("lost")); tx.Quarantine(Quarantined{Reason: "x"}); return nil },
	)
	if errs[0] == nil || errs[1] == nil {
		t.Fatalf("commits on a broken disk: %v, %v", errs[0], errs[1])
	}
	check := func(want ...string) {
		t.Helper()
		wantBodies(t, b, want...)
		if got := string(b.State("s")); got != "a" {
			t.Errorf("state is %q, want a", got)
		}
		if s := b.Stats(); s.Quarantined != 0 || int(s.Pending) != len(want) {
			t.Errorf("stats %+v, want %d pending, none in quarantine", s, len(want))
		}
	}
	check("1:a")
	commit(t, b, "b")
	check("1:a", "2:b")
	b = reopen(t, b)
	check("1:a", "2:b")
}

func TestWhatAFailedCommitLeftOnDiskStaysHidden(t *testing.T) {
	b := open(t, small(t.TempDir()))
	commit(t, b, "a")
	// The write reached the disk, only the answer of the sync was bad: the transaction is there, its caller got an error.
	err := b.Update(t.Context(), func(tx *Tx) error {
		g := &group{first: 2, at: time.Now()}
		g.bodies = [][]byte{[]byte("ghost"), []byte("ghost")}
		g.state = map[string][]byte{"ghost": []byte("1")}
		if err := b.active.put(b.plan(g)); err != nil {
			return err
		}
		b.mustRoll = true
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	wantBodies(t, b, "1:a")
	commit(t, b, "b")
	wantBodies(t, b, "1:a", "2:b")
	b = reopen(t, b)
	wantBodies(t, b, "1:a", "2:b")
	if n := b.Stats().Pending; n != 2 {
		t.Errorf("%d pending, want 2", n)
	}
}

func TestAcknowledgedSegmentsAreDeletedAndGiveDiskBack(t *testing.T) {
	b := open(t, small(t.TempDir()))
	setState(t, b, "cursor", "7")
	n := fill(t, b, 6)
	if err := b.Ack(uint64(n) - 15); err != nil {
		t.Fatal(err)
	}
	if left := files(t, b, segmentSuffix); len(left) > 2 {
		t.Errorf("%d segments left after the acknowledgement: %q", len(left), left)
	}
	if got := len(bodies(t, b, 0)); got != 15 {
		t.Errorf("%d records left, want 15", got)
	}
	if s := b.Stats(); s.Pending != 15 || s.Bytes < 15_000 || s.Bytes > 17_000 {
		t.Errorf("%d pending of %d bytes, want 15 of about 15,000", s.Pending, s.Bytes)
	}
	b = reopen(t, b)
	if got := string(b.State("cursor")); got != "7" {
		t.Errorf("state is %q after its first segment was deleted, want 7", got)
	}
	if got := len(bodies(t, b, 0)); got != 15 {
		t.Errorf("%d records left after reopening, want 15", got)
	}
}

func TestDrainedBufferSendsNothingAgain(t *testing.T) {
	b := open(t, small(t.TempDir()))
	n := fill(t, b, 3)
	if err := b.Ack(uint64(n)); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b)
	wantBodies(t, b)
	s := b.Stats()
	if s.Pending != 0 || s.AckedSeq != uint64(n) || s.LastSeq != uint64(n) || !s.Oldest.IsZero() {
		t.Errorf("after drain and restart: %+v", s)
	}
	commit(t, b, "next")
	wantBodies(t, b, fmt.Sprintf("%d:next", n+1))
	if err := b.Ack(uint64(n) + 2); err == nil {
		t.Error("acknowledged a record that was never given out")
	}
}

func TestEmptyUpdateMakesTheAcknowledgementDurable(t *testing.T) {
	b := open(t, small(t.TempDir()))
	commit(t, b, "a", "b")
	if err := b.Ack(1); err != nil {
		t.Fatal(err)
	}
	if err := b.Update(t.Context(), func(*Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if b.dirty() {
		t.Error("the acknowledged position still lies in memory only")
	}
	copied := open(t, small(copyDir(t, b)))
	wantBodies(t, copied, "2:b")
}

// copyDir copies the files of an open buffer, like a crash that keeps what was synced.
func copyDir(t *testing.T, b *Buffer) string {
	t.Helper()
	dir := t.TempDir()
	for _, path := range files(t, b, "") {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(path)), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestCrashWhileASegmentIsMadeIsHarmless(t *testing.T) {
	b := open(t, small(t.TempDir()))
	commit(t, b, "a")
	setState(t, b, "s", "1")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	// Half a file under the temporary name.
	half := strings.TrimSuffix(b.segmentPath(99, 2), segmentSuffix) + newSuffix
	realparts.WriteFile(t, half, "half a segm")
	b = open(t, b.cfg)
	wantBodies(t, b, "1:a")
	if left := files(t, b, newSuffix); len(left) > 0 {
		t.Errorf("left over: %q", left)
	}
	// A whole file, but the small one that it took over is still there.
	before := copyDir(t, b)
	b = reopen(t, b)
	for _, path := range files(t, b, segmentSuffix) {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		realparts.WriteFile(t, filepath.Join(before, filepath.Base(path)), string(content))
	}
	both := open(t, small(before))
	wantBodies(t, both, "1:a")
	if got := string(both.State("s")); got != "1" {
		t.Errorf("state is %q, want 1", got)
	}
	if s := both.Stats(); s.Pending != 1 || s.Segments != 1 {
		t.Errorf("%d pending in %d segments, want 1 in 1", s.Pending, s.Segments)
	}
}

func TestManyShortRunsLeaveFewFiles(t *testing.T) {
	b := open(t, small(t.TempDir()))
	for i := range 20 {
		commit(t, b, fmt.Sprint(i))
		b = reopen(t, b)
	}
	if left := files(t, b, segmentSuffix); len(left) != 1 {
		t.Errorf("%d segments after 20 short runs, want 1", len(left))
	}
	if got := len(bodies(t, b, 0)); got != 20 {
		t.Errorf("%d records, want 20", got)
	}
}

func TestFullBufferHoldsCommitsUntilAcknowledged(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.Limit = 1 << 20
	b := open(t, cfg)
	record := strings.Repeat("x", 1000)
	for b.Stats().Bytes < cfg.Limit {
		commit(t, b, slices.Repeat([]string{record}, 50)...)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var ended atomic.Int32
	var wg sync.WaitGroup
	for i := range 3 {
		wg.Go(func() {
			err := b.Commit(ctx, func(tx *Tx) error { tx.Append([]byte(record)); return nil })
			if !errors.Is(err, ErrFull) || !errors.Is(err, context.Canceled) {
				t.Errorf("held commit %d ended with %v, want ErrFull and the context's error", i, err)
			}
			ended.Add(1)
		})
	}
	realparts.Eventually(t, 10*time.Second, "three commits are held", func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.queue) != 3 || b.held != heldLimit {
			return fmt.Errorf("%d wait, held %q", len(b.queue), b.held)
		}
		return nil
	})
	if s := b.Stats(); !s.Held || s.HeldReason != "limit" {
		t.Errorf("stats do not say that callers are held: %+v", s)
	}
	setState(t, b, "receipt", "goes on") // an Update is not held
	if n := ended.Load(); n != 0 {
		t.Fatalf("%d held commits ended by themselves", n)
	}
	cancel()
	wg.Wait()
	before := b.Stats().LastSeq
	released := make(chan error, 1)
	go func() {
		released <- b.Commit(context.Background(), func(tx *Tx) error { tx.Append([]byte("after")); return nil })
	}()
	realparts.Eventually(t, 10*time.Second, "the commit is held", func() error {
		if !b.Stats().Held {
			return errors.New("not held")
		}
		return nil
	})
	if err := b.Ack(before / 2); err != nil {
		t.Fatal(err)
	}
	if err := <-released; err != nil {
		t.Errorf("commit after the acknowledgement: %v", err)
	}
	if s := b.Stats(); s.Held || s.LastSeq != before+1 || s.Dropped != 0 {
		t.Errorf("after the acknowledgement: %+v", s)
	}
}

func TestOneGroupDoesNotRunFarOverTheLimit(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.Limit = 1 << 20
	b := open(t, cfg)
	big := make([]byte, 400<<10)
	fn := func(tx *Tx) error { tx.Append(big); return nil }
	done := make(chan []error, 1)
	go func() { done <- together(t, b, fn, fn, fn, fn, fn) }()
	realparts.Eventually(t, 10*time.Second, "the fourth and fifth are held", func() error {
		if s := b.Stats(); !s.Held || s.Pending != 3 {
			return fmt.Errorf("held %v with %d pending", s.Held, s.Pending)
		}
		return nil
	})
	if err := b.Ack(3); err != nil {
		t.Fatal(err)
	}
	for _, err := range <-done {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestLowDiskHoldsAndRecoversByItself(t *testing.T) {
	var free atomic.Int64
	free.Store(5000)
	cfg := small(t.TempDir())
	cfg.DiskReserve = 10_000
	cfg.Disk = freeDiskOf{free: &free}
	b := open(t, cfg)
	done := make(chan error, 1)
	go func() {
		done <- b.Commit(context.Background(), func(tx *Tx) error { tx.Append([]byte("a")); return nil })
	}()
	realparts.Eventually(t, 10*time.Second, "the commit is held for the disk", func() error {
		if s := b.Stats(); s.HeldReason != "disk" {
			return fmt.Errorf("held for %q", s.HeldReason)
		}
		return nil
	})
	free.Store(50_000)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	wantBodies(t, b, "1:a")
}

func TestTelemetryDropsItsOldestAndCounts(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.Limit, cfg.Overflow = 1<<20, DropOldest
	b := open(t, cfg)
	const groups, each = 60, 50
	for i := range groups {
		commit(t, b, slices.Repeat([]string{fmt.Sprint(i) + strings.Repeat("x", 1000)}, each)...)
	}
	check := func() {
		t.Helper()
		s := b.Stats()
		if s.Dropped == 0 || s.Pending+s.Dropped != groups*each || s.LastSeq != groups*each {
			t.Errorf("%d pending + %d dropped of %d", s.Pending, s.Dropped, groups*each)
		}
		if s.Bytes > cfg.Limit+100_000 || s.Bytes < cfg.Limit/2 {
			t.Errorf("%d bytes pending with a limit of %d", s.Bytes, cfg.Limit)
		}
		if got := bodies(t, b, 0); uint64(len(got)) != s.Pending || !strings.HasPrefix(got[0], fmt.Sprintf("%d:", s.Dropped+1)) {
			t.Errorf("%d records from %.10q on, want %d from %d on", len(got), got[0], s.Pending, s.Dropped+1)
		}
	}
	check()
	commit(t, b) // nothing new: writes the count down
	b = reopen(t, b)
	check()
}

func TestTelemetryOnAFullDiskIsCountedAndHoldsNobodyUp(t *testing.T) {
	var free atomic.Int64
	free.Store(50_000)
	cfg := small(t.TempDir())
	cfg.Overflow, cfg.DiskReserve = DropOldest, 10_000
	cfg.Disk = freeDiskOf{free: &free}
	b := open(t, cfg)
	commit(t, b, "a", "b")
	free.Store(5000)
	b.mu.Lock()
	b.free = 0 // look at the disk again now
	b.mu.Unlock()
	commit(t, b, "c")
	setState(t, b, "cursor", "3")
	if s := b.Stats(); s.Dropped != 3 || s.Pending != 0 || s.LastSeq != 3 {
		t.Errorf("on a full disk: %+v", s)
	}
	free.Store(50_000)
	commit(t, b, "d")
	b = reopen(t, b)
	wantBodies(t, b, "4:d")
	if s := b.Stats(); s.Dropped != 3 || string(b.State("cursor")) != "3" {
		t.Errorf("after reopening: %d dropped, cursor %q", s.Dropped, b.State("cursor"))
	}
}

func TestFolderIsOpenedOnce(t *testing.T) {
	b := open(t, small(t.TempDir()))
	_, err := Open(b.cfg)
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), b.cfg.Dir) {
		t.Errorf("second Open: %v, want ErrInUse with the folder's name", err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, b.cfg)
}

func TestReadGoesAcrossSegmentsWithinItsBounds(t *testing.T) {
	b := open(t, small(t.TempDir()))
	n := fill(t, b, 8) // more than are kept mapped
	after := uint64(0)
	for after < uint64(n) {
		entries, err := b.Read(after, 7, 3500)
		if err != nil {
			t.Fatal(err)
		}
		if len(entries) != min(3, n-int(after)) {
			t.Fatalf("%d records after %d, want 3 of 1,000 bytes in 3,500", len(entries), after)
		}
		for _, e := range entries {
			after++
			if e.Seq != after || !strings.HasPrefix(string(e.Body), fmt.Sprintf("%06d", after)) || len(e.Body) != 1000 {
				t.Fatalf("record %d is %d with %.10q", after, e.Seq, e.Body)
			}
		}
	}
	entries, err := b.Read(0, 1000, 10)
	if err != nil || len(entries) != 1 {
		t.Errorf("%d records (%v) where not even one fits, want that one", len(entries), err)
	}
}

func TestWaitEndsWithTheRecordTheContextOrTheBuffer(t *testing.T) {
	b := open(t, small(t.TempDir()))
	commit(t, b, "a")
	if err := b.Wait(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- b.Wait(context.Background(), 1) }()
	setState(t, b, "s", "wakes nobody")
	commit(t, b, "b")
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { done <- b.Wait(ctx, 2) }()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("Wait ended with %v", err)
	}
	go func() { done <- b.Wait(context.Background(), 2) }()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, ErrClosed) {
		t.Errorf("Wait on a closed buffer: %v", err)
	}
}

func TestClosedBufferSaysSo(t *testing.T) {
	b := open(t, small(t.TempDir()))
	commit(t, b, "a")
	if err := errors.Join(b.Close(), b.Close()); err != nil {
		t.Fatal(err)
	}
	_, readErr := b.Read(0, 1, 1)
	_, quarantineErr := b.Quarantined(1)
	for i, err := range []error{b.Commit(t.Context(), nil), b.Ack(1), b.NewGeneration(), readErr, quarantineErr} {
		if !errors.Is(err, ErrClosed) {
			t.Errorf("method %d of a closed buffer: %v", i, err)
		}
	}
	_ = b.Stats()
}

func TestUpdateRefusesRecords(t *testing.T) {
	b := open(t, small(t.TempDir()))
	if err := b.Update(t.Context(), func(tx *Tx) error { tx.Append([]byte("a")); return nil }); err == nil {
		t.Error("Update took a record")
	}
	wantBodies(t, b)
}

func TestNewGenerationKeepsPendingRecords(t *testing.T) {
	b := open(t, small(t.TempDir()))
	commit(t, b, "a")
	before := b.Generation()
	if err := b.NewGeneration(); err != nil {
		t.Fatal(err)
	}
	after := b.Generation()
	if after == before || len(after) != 32 {
		t.Errorf("generation %q after %q", after, before)
	}
	b = reopen(t, b)
	if b.Generation() != after {
		t.Error("the new generation did not survive")
	}
	wantBodies(t, b, "1:a")
}

func TestForecastSaysWhenTheBufferIsFull(t *testing.T) {
	now := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	cfg := small(t.TempDir())
	cfg.Limit = 10 << 20
	cfg.Now = func() time.Time { return now }
	b := open(t, cfg)
	if s := b.Stats(); s.FullIn != 0 {
		t.Errorf("an empty buffer is full in %v", s.FullIn)
	}
	for range 6 {
		now = now.Add(10 * time.Second)
		commit(t, b, slices.Repeat([]string{strings.Repeat("x", 1000)}, 100)...)
	}
	s := b.Stats()
	want := time.Duration(float64(s.Limit-s.Bytes) / 10_000 * float64(time.Second))
	if s.FullIn < want*9/10 || s.FullIn > want*11/10 {
		t.Errorf("full in %v at %.0f bytes/s, want about %v", s.FullIn, s.FillRate, want)
	}
}

// freeDiskOf is a disk with a test's own answer to how much is free.
type freeDiskOf struct {
	systemDisk
	free *atomic.Int64
}

func (d freeDiskOf) Free(string) (int64, error) { return d.free.Load(), nil }
