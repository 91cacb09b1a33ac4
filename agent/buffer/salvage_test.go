package buffer

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// eatWord makes the test binary a salvage process that was sent astray.
const eatWord = "eat-memory"

func eatMemory() {
	limitSelf(salvageMemory)
	var eaten [][]byte
	for range 64 {
		b := make([]byte, 64<<20)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		eaten = append(eaten, b)
	}
	fmt.Println("still alive with", len(eaten)*64, "MiB")
	os.Exit(0)
}

func TestSalvageProcessThatGoesAstrayIsEnded(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux limits the memory of a process")
	}
	out, err := exec.Command(os.Args[0], eatWord).CombinedOutput()
	if err == nil || strings.Contains(string(out), "still alive") {
		t.Errorf("a process that was to have %d MiB took 4 GiB: %v", salvageMemory>>20, err)
	}
}

// damagedMiddle is a folder with a block of the second segment broken.
func damagedMiddle(t *testing.T) (dir string, n int, broken uint64) {
	t.Helper()
	b := open(t, small(t.TempDir()))
	n = fill(t, b, 4)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	path := files(t, b, segmentSuffix)[1]
	_, first, _ := parseName(filepath.Base(path), segmentSuffix)
	flipRecord(t, path, fmt.Sprintf("%06d", first+5))
	return b.cfg.Dir, n, first + 5
}

func TestSalvageIsDoneHereWhenItsProcessFails(t *testing.T) {
	for name, salvager := range map[string][]string{
		"can not be started": {"/no/such/program"},
		"fails":              {"/bin/false"},
		"talks nonsense":     {"/bin/echo", strings.Repeat("x", 1000)},
		"none":               nil,
	} {
		t.Run(name, func(t *testing.T) {
			dir, n, broken := damagedMiddle(t)
			cfg := small(dir)
			cfg.Salvager = salvager
			b := open(t, cfg)
			bodies(t, b, 0)
			settle(t, b)
			d := b.Damaged()
			if len(d) != 1 || d[0].First > broken || d[0].Last < broken || d[0].Records > 4 {
				t.Fatalf("damage %+v, want the block with %d", d, broken)
			}
			wantAllBut(t, b, n, d[0].Lost)
		})
	}
}

// A salvage that takes long holds up nothing but the records behind it, and what is not known yet is not skipped.
func TestServiceRunsWhileASalvageTakesLong(t *testing.T) {
	dir, n, broken := damagedMiddle(t)
	cfg := small(dir)
	cfg.Salvager = []string{"/bin/sh", "-c", "exec sleep 1000"}
	b := open(t, cfg)
	before := bodies(t, b, 0)
	if s := b.Stats(); s.Salvaging != 1 {
		t.Fatalf("%d segments are being salvaged, want 1", s.Salvaging)
	}
	commit(t, b, "meanwhile")
	setState(t, b, "cursor", "meanwhile")
	if err := b.Ack(uint64(len(before))); err != nil {
		t.Fatal(err)
	}
	if got := bodies(t, b, uint64(len(before))); len(got) > 0 {
		t.Fatalf("behind the damage %.20q was read before it was known what is left of it", got[0])
	}
	if s := b.Stats(); s.Pending != uint64(n-len(before))+1 {
		t.Errorf("%d pending, want %d", s.Pending, n-len(before)+1)
	}
	began := time.Now()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("Close waited %v for the salvage", took)
	}
	b = open(t, small(dir))
	settle(t, b)
	d := b.Damaged()
	if len(d) != 1 || d[0].First > broken || d[0].Last < broken || d[0].Records > 4 {
		t.Fatalf("damage %+v, want the block with %d", d, broken)
	}
	got := bodies(t, b, 0)
	if want := n - len(before) + 1 - int(d[0].Records); len(got) != want || !strings.HasSuffix(got[len(got)-1], ":meanwhile") {
		t.Errorf("%d records are left, want %d and the last one from meanwhile", len(got), want)
	}
}

func TestSalvageThatNeverEndsIsGivenUp(t *testing.T) {
	dir, n, broken := damagedMiddle(t)
	cfg := small(dir)
	cfg.Salvager = []string{"/bin/sh", "-c", "exec sleep 1000"}
	cfg.salvageTime, cfg.salvageStateTime = 50*time.Millisecond, 50*time.Millisecond
	b := open(t, cfg)
	bodies(t, b, 0)
	settle(t, b)
	d := b.Damaged()
	if len(d) != 1 || d[0].First > broken || d[0].Last < broken {
		t.Fatalf("damage %+v, want the block with %d", d, broken)
	}
	wantAllBut(t, b, n, d[0].Lost)
}

func TestStartWithADamagedNewestSegmentDoesNotWaitForASalvageThatHangs(t *testing.T) {
	b := open(t, small(t.TempDir()))
	n := fill(t, b, 3)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	newest := files(t, b, segmentSuffix)[2]
	corrupt(t, newest, func(text []byte) []byte { clear(text[:2*pageSize]); return text })
	cfg := small(b.cfg.Dir)
	cfg.Salvager = []string{"/bin/sh", "-c", "exec sleep 1000"}
	cfg.salvageTime, cfg.salvageStateTime = 50*time.Millisecond, 50*time.Millisecond
	b = open(t, cfg)
	commit(t, b, "goes on")
	settle(t, b)
	if d := b.Damaged(); len(d) != 1 || len(d[0].Lost) > 0 {
		t.Errorf("damage %+v", d)
	}
	if got := bodies(t, b, 0); len(got) != n+1 {
		t.Errorf("%d records, want %d", len(got), n+1)
	}
}

func TestDamagedFileThatSomebodyTookAwayIsReportedAsLost(t *testing.T) {
	dir, _, _ := damagedMiddle(t)
	b := open(t, small(dir))
	bodies(t, b, 0)
	settle(t, b)
	d := b.Damaged()[0]
	left := bodies(t, b, 0)
	if err := os.Remove(filepath.Join(dir, d.File)); err != nil {
		t.Fatal(err)
	}
	// While it runs, and again after a restart.
	for range 2 {
		after := bodies(t, b, 0)
		lost := b.Damaged()[0]
		if len(b.Damaged()) != 1 || len(after) != len(left)-int(d.Recovered) {
			t.Fatalf("%d records of %d are left; damage %+v", len(after), len(left), b.Damaged())
		}
		if want := d.Recovered + d.Records; lost.Records != want {
			t.Errorf("%d are named as lost, want %d: %+v", lost.Records, want, lost)
		}
		b = reopen(t, b)
		settle(t, b)
	}
}

func TestManyLostRangesAreMerged(t *testing.T) {
	d := Damage{First: 1}
	for i := range uint64(1000) {
		d.lose(10*i+10, 10*i+12)
		d.lose(10*i+10, 10*i+12) // again, as after a restart
		d.lose(10*i+13, 10*i+13)
	}
	d.total()
	if len(d.Lost) != maxLost || d.First != 10 || d.Last != 10_003 || d.Lost[0] != (Range{10, 13}) {
		t.Errorf("%d ranges, %d to %d, the first is %v", len(d.Lost), d.First, d.Last, d.Lost[0])
	}
}

func TestRowsOfASalvageThatWasCutOffAreTaken(t *testing.T) {
	rows := []blockRef{{1, 3, 100, 200}, {4, 4, 300, 60}, {5, 900, 400, 4000}}
	var out strings.Builder
	if err := writeRows(&out, rows); err != nil {
		t.Fatal(err)
	}
	text := []byte(out.String())
	for cut := range text {
		got, whole := readRows(text[:cut])
		if whole || !slices.Equal(got, rows[:min(cut/rowSize, len(rows))]) {
			t.Fatalf("cut at %d: %v, whole: %v", cut, got, whole)
		}
	}
	if got, whole := readRows(text); !whole || !slices.Equal(got, rows) {
		t.Errorf("%v, whole: %v", got, whole)
	}
	text[0] = 0xff
	if got, _ := readRows(text); len(got) > 0 && got[0].first > math.MaxUint64/2 {
		t.Errorf("a row that goes backwards was taken: %v", got)
	}
}

func FuzzFindBlocks(f *testing.F) {
	block, _ := appendBlock(nil, block{first: 7, storedAt: time.Unix(0, 1)}, [][]byte{[]byte("abc"), []byte("de")}, blockPage)
	f.Add(append(seqKey(8), block...), uint64(1), uint64(100))
	f.Add([]byte(strings.Repeat("\x00\x00\x00\x00\x00\x00\x00\x08", 30)), uint64(8), uint64(9))
	path := filepath.Join(f.TempDir(), "segment")
	f.Fuzz(func(t *testing.T, text []byte, first, end uint64) {
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		file, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = file.Close() }()
		found, err := findBlocks(file, first, end)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range found {
			head, err := r.read(file)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := head.entries(); err != nil {
				t.Fatalf("a block whose checksum holds: %v", err)
			}
		}
		findState(file, first, found)
	})
}
