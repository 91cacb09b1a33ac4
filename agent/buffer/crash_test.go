package buffer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

const (
	crashDirVariable = "LINEKEEPER_BUFFER_CRASH_DIR" // makes the test binary the process that is killed
	seedVariable     = "LINEKEEPER_SEED"             // repeats a random run
	crashesVariable  = "LINEKEEPER_CRASHES"          // how often to kill

	killPointVariable = "LINEKEEPER_BUFFER_KILL_POINT" // where that process ends itself
)

// random returns a generator whose seed is printed, and taken from LINEKEEPER_SEED when that is set.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv(seedVariable); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	fmt.Printf("%s: %s=%d\n", t.Name(), seedVariable, seed)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("repeat with %s=%d", seedVariable, seed)
		}
	})
	return rand.New(rand.NewPCG(seed, seed))
}

func crashConfig(dir string) Config {
	cfg := small(dir)
	cfg.Limit = 1 << 30
	return cfg
}

// killPoint is where a process ends itself with SIGKILL: before or after the nth time that the buffer asks one thing of its
// disk. What was written and not synced is still there afterwards: that is the difference to a power cut.
type killPoint struct {
	op    string
	nth   int64
	after bool
}

// The things that the buffer asks of its disk, and how often a run of a few hundred commits does about. A commit writes and
// syncs; a roll writes the state anew in a file of its own, which is synced, renamed and its folder synced; what was
// acknowledged is removed and the folder synced; a closed file is truncated.
var killOps = []struct {
	name  string
	often int
}{{"write", 60}, {"sync", 60}, {"sync folder", 8}, {"rename", 4}, {"remove", 6}, {"truncate", 3}}

func (k killPoint) String() string { return fmt.Sprintf("%s:%d:%s", k.op, k.nth, k.when()) }

func (k killPoint) when() string {
	if k.after {
		return "after"
	}
	return "before"
}

func parseKillPoint(text string) (k killPoint) {
	parts := strings.Split(text, ":")
	if len(parts) == 3 {
		k.op, k.after = parts[0], parts[2] == "after"
		k.nth, _ = strconv.ParseInt(parts[1], 10, 64)
	}
	return k
}

// killDisk is the real disk, with a point at which the process ends.
type killDisk struct {
	systemDisk
	point killPoint
	asked atomic.Int64
}

func (d *killDisk) at(op string, do func() error) error {
	dies := op == d.point.op && d.asked.Add(1) == d.point.nth
	if dies && !d.point.after {
		killSelf()
	}
	err := do()
	if dies {
		killSelf()
	}
	return err
}

func killSelf() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	select {}
}

func (d *killDisk) BeforeWrite(path string, end int64) error {
	return d.at("write", func() error { return nil })
}
func (d *killDisk) Sync(f *os.File) error {
	return d.at("sync", func() error { return d.systemDisk.Sync(f) })
}
func (d *killDisk) SyncDir(dir string) error {
	return d.at("sync folder", func() error { return d.systemDisk.SyncDir(dir) })
}
func (d *killDisk) Rename(from, to string) error {
	return d.at("rename", func() error { return d.systemDisk.Rename(from, to) })
}
func (d *killDisk) Remove(path string) error {
	return d.at("remove", func() error { return d.systemDisk.Remove(path) })
}
func (d *killDisk) Truncate(path string, size int64) error {
	return d.at("truncate", func() error { return d.systemDisk.Truncate(path, size) })
}

// crashingWriter is the process that is killed. Each writer carries a counter in the state and appends one to three
// records with it; a drain writes what it read to a file before it acknowledges. Each commit is told to the parent.
func crashingWriter(dir string) {
	cfg := crashConfig(dir)
	cfg.Disk = &killDisk{point: parseKillPoint(os.Getenv(killPointVariable))}
	b, err := Open(cfg)
	if err != nil {
		fmt.Println("open:", err)
		os.Exit(1)
	}
	var out sync.Mutex
	for w := range 4 {
		go func() {
			for {
				n := commitNext(b, w)
				out.Lock()
				fmt.Printf("%d %d\n", w, n)
				out.Unlock()
			}
		}()
	}
	drain(b, filepath.Join(dir, "delivered"))
}

func commitNext(b *Buffer, w int) (n int) {
	err := b.Commit(context.Background(), func(tx *Tx) error {
		key := fmt.Sprintf("writer/%d", w)
		n, _ = strconv.Atoi(string(tx.State(key)))
		n++
		for range 1 + n%3 {
			tx.Append(fmt.Appendf(nil, "%d %d %s", w, n, strings.Repeat("x", n%700)))
		}
		tx.SetState(key, strconv.AppendInt(nil, int64(n), 10))
		if n%20 == 0 {
			tx.SetState(key+"/large", bytes.Repeat([]byte("S"), 1500)) // moves all state to its own pages
		}
		if n%10 == 0 {
			tx.Quarantine(Quarantined{Source: key, Item: strconv.Itoa(n), Reason: "the tenth"})
		}
		return nil
	})
	if err != nil {
		fmt.Println("commit:", err)
		os.Exit(1)
	}
	return n
}

func drain(b *Buffer, path string) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	for after := uint64(0); err == nil; {
		if err = b.Wait(context.Background(), after); err != nil {
			break
		}
		var entries []Entry
		if entries, err = b.Read(after, 50, 1<<20); err != nil || len(entries) == 0 {
			continue
		}
		var text []byte
		for _, e := range entries {
			text = fmt.Appendf(text, "%d:%s\n", e.Seq, e.Body)
			after = e.Seq
		}
		if _, err = f.Write(text); err == nil && after%3 > 0 {
			err = b.Ack(after - 10*min(1, after/11))
		}
	}
	fmt.Println("drain:", err)
	os.Exit(1)
}

// TestKilledProcessKeepsWhatItPromised kills a real process again and again, at a point of its work with the disk or after
// a random number of commits, and checks each time that all that was promised is there, once, with its state.
func TestKilledProcessKeepsWhatItPromised(t *testing.T) {
	rng := random(t)
	crashes := 200
	if n, err := strconv.Atoi(os.Getenv(crashesVariable)); err == nil {
		crashes = n
	}
	var mu sync.Mutex
	counts := map[string]int{}
	left := crashes
	next := func() (point killPoint, after int, ok bool) {
		mu.Lock()
		defer mu.Unlock()
		left--
		after = 1 + rng.IntN(500)
		if rng.IntN(8) > 0 {
			op := killOps[rng.IntN(len(killOps))]
			point = killPoint{op.name, 1 + rng.Int64N(int64(op.often)), rng.IntN(2) == 0}
		}
		return point, after, left >= 0
	}
	const folders = 3 // at a time
	t.Run("folders", func(t *testing.T) {
		for range folders {
			t.Run("", func(t *testing.T) {
				t.Parallel()
				dir, promised, used := t.TempDir(), map[int]int{}, 0
				for point, after, ok := next(); ok; point, after, ok = next() {
					how := runAndKill(t, dir, point, after, promised)
					checkPromises(t, dir, promised)
					mu.Lock()
					counts[how]++
					mu.Unlock()
					if used++; used == 25 { // the check reads all that ever was
						dir, promised, used = t.TempDir(), map[int]int{}, 0
					}
				}
			})
		}
	})
	if t.Failed() {
		return
	}
	fmt.Printf("buffer: crashes=%d missing=0 doubled=0, killed at %v\n", crashes, counts)
	if crashes < 100 {
		return
	}
	for _, op := range killOps {
		for _, when := range []string{"before ", "after "} {
			if counts[when+op.name] == 0 {
				t.Errorf("no process was killed %s%s: the test did not test", when, op.name)
			}
		}
	}
}

// runAndKill starts the writer, which is killed at the point or, where it does not come to it, after it has told of so many
// commits. It notes all that was told and returns how the process was killed.
func runAndKill(t *testing.T, dir string, point killPoint, after int, promised map[int]int) (how string) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashDirVariable+"="+dir, killPointVariable+"="+point.String())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	how = point.when() + " " + point.op
	lines := bufio.NewReader(out)
	for told := 0; ; told++ {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break // a line that was cut off does not count: the parent may not have got it whole
		}
		var w, n int
		if _, scanErr := fmt.Sscanf(line, "%d %d\n", &w, &n); scanErr != nil || err != nil {
			_ = cmd.Process.Kill()
			t.Fatalf("writer says %q (%v)", line, err)
		}
		promised[w] = max(promised[w], n)
		if told == 0 && point.op == "" {
			if _, err := Open(crashConfig(dir)); !errors.Is(err, ErrInUse) {
				t.Errorf("a second process opened the folder: %v", err)
			}
		}
		if told == after {
			how = "after some commits"
			_ = cmd.Process.Kill() // it may just have come to its point
		}
	}
	_ = cmd.Wait()
	return how
}

func checkPromises(t *testing.T, dir string, promised map[int]int) {
	t.Helper()
	b, err := Open(crashConfig(dir))
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	}()
	if damage := b.Damaged(); len(damage) > 0 {
		t.Fatalf("a kill damaged segments: %+v", damage)
	}
	all := delivered(t, dir)
	for _, line := range bodies(t, b, 0) {
		addLine(t, all, line)
	}
	counts, last := map[int]int{}, map[int]int{}
	for seq := uint64(1); seq <= uint64(len(all)); seq++ {
		body, ok := all[seq]
		if !ok {
			t.Fatalf("record %d of %d is missing", seq, len(all))
		}
		var w, n int
		if _, err := fmt.Sscanf(body, "%d %d", &w, &n); err != nil {
			t.Fatalf("record %d is %.40q", seq, body)
		}
		if n != last[w] {
			if n != last[w]+1 || last[w] > 0 && counts[w] != 1+last[w]%3 {
				t.Fatalf("record %d: writer %d goes from %d (%d records) to %d", seq, w, last[w], counts[w], n)
			}
			last[w], counts[w] = n, 0
		}
		counts[w]++
	}
	for w, n := range promised {
		state, _ := strconv.Atoi(string(b.State(fmt.Sprintf("writer/%d", w))))
		if last[w] < n || last[w] > n+1 || state != last[w] || counts[w] != 1+last[w]%3 {
			t.Fatalf("writer %d was promised %d, records go to %d (%d of it), state says %d", w, n, last[w], counts[w], state)
		}
	}
	checkQuarantine(t, b, last)
	maps.Copy(promised, last) // what is there now must stay, whether its caller heard of it or not
}

// delivered reads what the drain wrote. A line that the kill cut off was not acknowledged.
func delivered(t *testing.T, dir string) map[uint64]string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "delivered"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	all := map[uint64]string{}
	lines := bytes.Split(text, []byte("\n"))
	for _, line := range lines[:max(len(lines)-1, 0)] {
		addLine(t, all, string(line))
	}
	if rest := lines[len(lines)-1]; len(rest) > 0 {
		whole := text[:len(text)-len(rest)]
		if err := os.WriteFile(filepath.Join(dir, "delivered"), whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

func addLine(t *testing.T, all map[uint64]string, line string) {
	t.Helper()
	number, body, _ := strings.Cut(line, ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if err != nil {
		t.Fatalf("line %.40q", line)
	}
	if old, ok := all[seq]; ok && old != body {
		t.Fatalf("record %d was %.40q and is now %.40q", seq, old, body)
	}
	all[seq] = body
}

func checkQuarantine(t *testing.T, b *Buffer, last map[int]int) {
	t.Helper()
	want, got := map[string]int{}, map[string]int{}
	for w, n := range last {
		for i := 10; i <= n; i += 10 {
			want[fmt.Sprintf("writer/%d %d", w, i)]++
		}
	}
	list, err := b.Quarantined(MaxQuarantined)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range list {
		got[q.Source+" "+q.Item]++
	}
	if dropped := b.Stats().QuarantineDropped; dropped == 0 && !maps.Equal(want, got) {
		t.Fatalf("%d inputs in quarantine, want %d", len(got), len(want))
	}
}

// picture is all that a buffer holds, as text.
func picture(t *testing.T, b *Buffer) string {
	t.Helper()
	var text strings.Builder
	fmt.Fprintln(&text, bodies(t, b, 0))
	b.EachState("", func(key string, v []byte) { fmt.Fprintf(&text, "%s=%s\n", key, v) })
	list, err := b.Quarantined(MaxQuarantined)
	if err != nil {
		t.Fatal(err)
	}
	for _, q := range list {
		fmt.Fprintln(&text, q.ID, q.Item)
	}
	return text.String()
}

// randomCommit does a bit of everything.
func randomCommit(rng *rand.Rand, n int) func(tx *Tx) error {
	return func(tx *Tx) error {
		for range rng.IntN(6) {
			tx.Append(fmt.Appendf(nil, "%d %s", n, strings.Repeat("r", rng.IntN(900))))
		}
		for range 1 + rng.IntN(3) {
			key := fmt.Sprintf("key/%02d", rng.IntN(60))
			switch rng.IntN(6) {
			case 0:
				tx.SetState(key, nil)
			case 1:
				tx.SetState(key, bytes.Repeat([]byte("S"), 1500))
			default:
				tx.SetState(key, fmt.Appendf(nil, "value %d", n))
			}
		}
		if rng.IntN(5) == 0 {
			id := tx.Quarantine(Quarantined{Item: strconv.Itoa(n)})
			if id > 3 {
				tx.RemoveQuarantined(id - 3)
			}
		}
		return nil
	}
}

// A power cut leaves any part of the last commit's pages on the disk, and pages in part: they were not yet synced. The commit must then
// be there as a whole or not at all, and nothing counts as damaged.
func TestPowerCutWithinACommitLeavesItWholeOrNotAtAll(t *testing.T) {
	rng := random(t)
	b := open(t, small(t.TempDir()))
	partial, taken := 0, 0
	for n := range 50 {
		before, filesBefore := picture(t, b), readFiles(t, b)
		if err := b.Commit(t.Context(), randomCommit(rng, n)); err != nil {
			t.Fatal(err)
		}
		after, filesAfter := picture(t, b), readFiles(t, b)
		if !slices.Equal(slices.Sorted(maps.Keys(filesBefore)), slices.Sorted(maps.Keys(filesAfter))) {
			continue // a new segment was begun: that is synced step by step
		}
		for range 3 {
			dir := t.TempDir()
			if cutPower(t, rng, dir, filesBefore, filesAfter) {
				partial++
			}
			cut := open(t, small(dir))
			got := picture(t, cut)
			if got == after {
				taken++
			} else if got != before {
				t.Fatalf("commit %d: after the power cut\n%.1000s\nbefore\n%.1000s\nafter\n%.1000s", n, got, before, after)
			}
			if damage := cut.Damaged(); len(damage) > 0 {
				t.Fatalf("commit %d: a power cut counts as damage: %+v", n, damage)
			}
			if err := cut.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if partial == 0 || taken == 0 {
		t.Errorf("%d cuts were within a commit, %d left it whole: the test did not test", partial, taken)
	}
}

func readFiles(t *testing.T, b *Buffer) map[string][]byte {
	t.Helper()
	content := map[string][]byte{}
	for _, path := range files(t, b, segmentSuffix) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		content[filepath.Base(path)] = text
	}
	return content
}

// cutPower writes the files with a random part of the pages, or of the sectors of 512 bytes, that changed. It returns true
// when the new meta page is there and something else is not.
func cutPower(t *testing.T, rng *rand.Rand, dir string, before, after map[string][]byte) (partial bool) {
	t.Helper()
	for name, text := range after {
		old := before[name]
		mix := make([]byte, len(text))
		copy(mix, old)
		meta, missing, unit, chance := false, false, pageSize, 4
		if rng.IntN(2) == 0 {
			unit, chance = 512, 40
		}
		for at := 0; at < len(text); at += unit {
			if bytes.Equal(mix[at:at+unit], text[at:at+unit]) {
				continue
			}
			if at < 2*pageSize && rng.IntN(8) > 0 || at >= 2*pageSize && rng.IntN(chance) > 0 {
				copy(mix[at:], text[at:at+unit])
				meta = meta || at < 2*pageSize
			} else {
				missing = missing || at >= 2*pageSize
			}
		}
		partial = partial || meta && missing
		if err := os.WriteFile(filepath.Join(dir, name), mix, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return partial
}
