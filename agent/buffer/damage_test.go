package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"go.etcd.io/bbolt"
)

// corrupt changes bytes of a file.
func corrupt(t *testing.T, path string, change func(content []byte) []byte) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, change(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// flipRecord flips a bit within a record's body.
func flipRecord(t *testing.T, path, body string) {
	t.Helper()
	corrupt(t, path, func(content []byte) []byte {
		found := false
		for at := 0; ; {
			i := strings.Index(string(content[at:]), body)
			if i < 0 {
				break
			}
			content[at+i+1] ^= 4 // all copies: old pages hold some too
			at, found = at+i+len(body), true
		}
		if !found {
			t.Fatalf("%q is not in %q", body, path)
		}
		return content
	})
}

// settle waits until it is known what is left of damaged segments.
func settle(t testing.TB, b *Buffer) {
	t.Helper()
	realparts.Eventually(t, time.Minute, "the salvage ends", func() error {
		if n := b.Stats().Salvaging; n > 0 {
			return fmt.Errorf("%d segments to go", n)
		}
		return nil
	})
}

func TestDamagedSegmentLosesOnlyTheBlocksThatAreBroken(t *testing.T) {
	b := open(t, small(t.TempDir()))
	setState(t, b, "cursor", "9")
	n := fill(t, b, 4)
	generation := b.Generation()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	segments := files(t, b, segmentSuffix)
	_, first, _ := parseName(filepath.Base(segments[1]), segmentSuffix)
	flipRecord(t, segments[1], fmt.Sprintf("%06d", first+5))
	b = open(t, b.cfg)
	bodies(t, b, 0) // finds the damage
	settle(t, b)
	damage := b.Damaged()
	if len(damage) != 1 || damage[0].Salvage != SalvageDone || len(damage[0].Lost) != 1 {
		t.Fatalf("damage %+v, want one", damage)
	}
	d := damage[0]
	if d.First > first+5 || d.Last < first+5 || d.Records != d.Last-d.First+1 || d.Records > 4 {
		t.Errorf("damage %+v, want the few records of one block with %d", d, first+5)
	}
	wantAllBut(t, b, n, d.Lost)
	if _, err := os.Stat(filepath.Join(b.cfg.Dir, d.File)); err != nil || !strings.HasSuffix(d.File, damagedSuffix) {
		t.Errorf("damaged file is not kept as it says: %q, %v", d.File, err)
	}
	if string(b.State("cursor")) != "9" || b.Generation() != generation {
		t.Error("an old segment's damage changed the state or the generation")
	}
	b = reopen(t, b)
	settle(t, b)
	if again := b.Damaged(); len(again) != 1 || !slices.Equal(again[0].Lost, d.Lost) || b.Stats().Damaged != 1 {
		t.Errorf("after reopening the damage reads %+v", again)
	}
	wantAllBut(t, b, n, d.Lost)
	if s := b.Stats(); s.Pending != uint64(n)-d.Records {
		t.Errorf("%d pending, want %d", s.Pending, uint64(n)-d.Records)
	}
	if err := b.Ack(uint64(n)); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b)
	if d := b.Damaged(); len(d) != 1 || d[0].Salvage != SalvageDrained || b.Stats().Salvaging != 0 {
		t.Errorf("after all was acknowledged the damage reads %+v", d)
	}
	if _, err := os.Stat(filepath.Join(b.cfg.Dir, d.File)); err != nil {
		t.Errorf("the damaged file was deleted: %v", err)
	}
}

// wantAllBut says that the records 1 to n are there, but for those in the ranges.
func wantAllBut(t testing.TB, b *Buffer, n int, lost []Range) {
	t.Helper()
	got, next := bodies(t, b, 0), 0
	for seq := uint64(1); seq <= uint64(n); seq++ {
		if slices.ContainsFunc(lost, func(r Range) bool { return r.First <= seq && seq <= r.Last }) {
			continue
		}
		if next >= len(got) || !strings.HasPrefix(got[next], fmt.Sprintf("%d:%06d", seq, seq)) {
			t.Fatalf("want record %d, got %.20q", seq, got[next:min(next+1, len(got))])
		}
		next++
	}
	if next < len(got) {
		t.Fatalf("after the last record comes %.20q", got[next])
	}
}

func seqFrom(t *testing.T, line string) uint64 {
	t.Helper()
	var seq uint64
	if _, err := fmt.Sscanf(line, "%d:", &seq); err != nil {
		t.Fatal(err)
	}
	return seq
}

func TestDamageWhileRunningIsSetAsideToo(t *testing.T) {
	b := open(t, small(t.TempDir()))
	commit(t, b, "first good", "second good")
	setState(t, b, "s", "1")
	// The file that is being written goes bad under our feet.
	flipRecord(t, b.active.path, "second good")
	commit(t, b, "third")
	got := bodies(t, b, 0)
	settle(t, b)
	if d := b.Damaged(); len(d) != 1 || !slices.Equal(d[0].Lost, []Range{{1, 2}}) {
		t.Fatalf("damage %+v after reading %q", d, got)
	}
	commit(t, b, "fourth")
	wantBodies(t, b, "3:third", "4:fourth")
	b = reopen(t, b)
	settle(t, b)
	wantBodies(t, b, "3:third", "4:fourth")
	if string(b.State("s")) != "1" {
		t.Error("the state went with the damage")
	}
}

func TestLostNewestSegmentStartsANewGeneration(t *testing.T) {
	b := open(t, small(t.TempDir()))
	setState(t, b, "cursor", "old")
	n := fill(t, b, 3)
	setState(t, b, "cursor", "new")
	commit(t, b, "lost")
	generation := b.Generation()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	newest := files(t, b, segmentSuffix)[2]
	_, first, _ := parseName(filepath.Base(newest), segmentSuffix)
	corrupt(t, newest, func([]byte) []byte { return []byte("all gone") })
	b = open(t, b.cfg)
	if b.Generation() == generation {
		t.Error("the state went back in time within the same generation")
	}
	if got := string(b.State("cursor")); got != "old" {
		t.Errorf("cursor is %q, want the old one", got)
	}
	settle(t, b)
	damage := b.Damaged()
	if len(damage) != 1 || damage[0].First != first || !damage[0].OpenEnd {
		t.Fatalf("damage %+v, want one from %d on", damage, first)
	}
	if got := bodies(t, b, 0); len(got) != int(first)-1 {
		t.Errorf("%d records left, want %d", len(got), first-1)
	}
	commit(t, b, "next")
	if got := b.Stats().LastSeq; got <= uint64(n)+1 {
		t.Errorf("sequence number %d was given out again", got)
	}
}

func TestDamageFoundByARunThatWasKilledIsStillReported(t *testing.T) {
	b := open(t, small(t.TempDir()))
	fill(t, b, 3)
	generation := b.Generation()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	newest := files(t, b, segmentSuffix)[2]
	corrupt(t, newest, func([]byte) []byte { return []byte("all gone") })
	if err := os.Rename(newest, strings.TrimSuffix(newest, segmentSuffix)+damagedSuffix); err != nil {
		t.Fatal(err)
	}
	b = open(t, b.cfg)
	settle(t, b)
	if len(b.Damaged()) != 1 || b.Generation() == generation {
		t.Errorf("damage %+v, generation changed: %v", b.Damaged(), b.Generation() != generation)
	}
}

func TestSegmentThatWasSetAsideWithoutReasonIsTakenBack(t *testing.T) {
	b := open(t, small(t.TempDir()))
	n := fill(t, b, 3)
	generation := b.Generation()
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	newest := files(t, b, segmentSuffix)[2]
	if err := os.Rename(newest, strings.TrimSuffix(newest, segmentSuffix)+damagedSuffix); err != nil {
		t.Fatal(err)
	}
	b = open(t, b.cfg)
	if len(b.Damaged()) != 0 || b.Generation() != generation {
		t.Errorf("damage %+v, generation changed: %v", b.Damaged(), b.Generation() != generation)
	}
	wantAllBut(t, b, n, nil)
}

func TestMissingSegmentIsReported(t *testing.T) {
	b := open(t, small(t.TempDir()))
	fill(t, b, 4)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	segments := files(t, b, segmentSuffix)
	_, first, _ := parseName(filepath.Base(segments[1]), segmentSuffix)
	if err := os.Remove(segments[1]); err != nil {
		t.Fatal(err)
	}
	b = open(t, b.cfg)
	if damage := b.Damaged(); len(damage) != 1 || damage[0].First != first {
		t.Errorf("damage %+v, want one from %d on", damage, first)
	}
	bodies(t, b, 0)
}

func TestNewerFormatIsRefusedAndLeftAlone(t *testing.T) {
	b := open(t, small(t.TempDir()))
	commit(t, b, "a")
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	path := files(t, b, segmentSuffix)[0]
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keyFormat, binary.BigEndian.AppendUint32(nil, formatVersion+1))
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	_, err = Open(b.cfg)
	if !errors.Is(err, ErrNewerFormat) || !strings.Contains(err.Error(), b.cfg.Dir) || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("Open: %v, want ErrNewerFormat with folder and version", err)
	}
	if left := files(t, b, segmentSuffix); len(left) != 1 {
		t.Errorf("the segment was touched: %q", left)
	}
}

// Whatever happens to a file, the buffer starts, stores, and returns no wrong record.
func TestAnyDamageLeavesAServiceThatRuns(t *testing.T) {
	rng := random(t)
	b := open(t, small(t.TempDir()))
	for i := range 40 {
		setState(t, b, fmt.Sprintf("key/%d", i), strings.Repeat("v", 100))
	}
	fill(t, b, 3)
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	original := readFiles(t, b)
	damaged := 0
	for round := range 120 {
		dir := t.TempDir()
		for name, content := range original {
			content = slices.Clone(content)
			if rng.IntN(2) == 0 {
				content = damage(rng, content)
			}
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		damaged += liveWith(t, dir, round)
	}
	if damaged == 0 {
		t.Error("no damage was noticed: the test did not test")
	}
}

// damage does to a file what disks do.
func damage(rng *rand.Rand, content []byte) []byte {
	const page = pageSize
	at := rng.IntN(len(content)/page) * page
	switch rng.IntN(7) {
	case 0: // cut short
		return content[:rng.IntN(len(content))]
	case 1: // a page of zeros
		clear(content[at : at+page])
	case 2: // a page from elsewhere
		copy(content[at:at+page], content[rng.IntN(len(content)/page)*page:])
	case 3: // both meta pages
		clear(content[:2*page])
	case 4: // noise over a page's head
		for i := range 64 {
			content[at+i] = byte(rng.Uint32())
		}
	case 5: // noise over a page
		for i := range page {
			content[at+i] = byte(rng.Uint32())
		}
	default: // one bit in a page's head, where the structure is
		content[at+rng.IntN(256)] ^= 1 << rng.IntN(8)
	}
	return content
}

func liveWith(t *testing.T, dir string, round int) (damaged int) {
	t.Helper()
	b, err := Open(small(dir))
	if err != nil {
		t.Fatalf("round %d: %v", round, err)
	}
	defer func() { _ = b.Close() }()
	commit(t, b, "goes on")
	bodies(t, b, 0) // finds damage
	settle(t, b)
	bodies(t, b, 0)
	settle(t, b)
	var last uint64
	for _, line := range bodies(t, b, 0) {
		seq := seqFrom(t, line)
		_, body, _ := strings.Cut(line, ":")
		if seq <= last || body != "goes on" && !strings.HasPrefix(body, fmt.Sprintf("%06dxxx", seq)) {
			t.Fatalf("round %d: after %d comes %.30q", round, last, line)
		}
		last = seq
	}
	if last != b.Stats().LastSeq {
		t.Fatalf("round %d: the new record was not read", round)
	}
	return len(b.Damaged())
}
