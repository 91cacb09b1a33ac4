package buffer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// snapshotOf is the names, sizes, times and content of a folder's files.
func snapshotOf(t *testing.T, dir string) string {
	t.Helper()
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var text strings.Builder
	for _, file := range files {
		info, err := file.Info()
		if err != nil {
			t.Fatal(err)
		}
		content, err := os.ReadFile(filepath.Join(dir, file.Name()))
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintln(&text, file.Name(), info.Size(), info.ModTime(), info.Mode(), len(content), seqOf(append(make([]byte, 8), content...)[:8]))
		text.Write(content)
	}
	return text.String()
}

func TestInspectShowsWhatTheBufferHoldsAndWritesNothing(t *testing.T) {
	f := makePlantFolder(t)
	dir := f.copyTo(t, func(files map[string][]byte) { files["readme.txt"] = []byte("?") })
	before := snapshotOf(t, dir)
	for name, look := range map[string]func(string) (*Inspection, error){"inspect": Inspect, "verify": Verify} {
		in, err := look(dir)
		if err != nil {
			t.Fatal(err)
		}
		if in.Running || in.Generation != f.generation || in.LastSeq != f.records || in.Pending != f.records || in.AckedSeq != 0 {
			t.Errorf("%s: %+v", name, in)
		}
		if len(in.Segments) != len(f.segments) || len(in.Faults) != 0 || !slices.Equal(in.Foreign, []string{"readme.txt"}) || in.Quarantined != 20 {
			t.Errorf("%s: segments %+v, faults %v, foreign %v, %d in quarantine", name, in.Segments, in.Faults, in.Foreign, in.Quarantined)
		}
		if !slices.Contains(in.State, StateInfo{"cursor", len(newestCursor)}) || len(in.State) != 41 {
			t.Errorf("%s: state %v", name, in.State)
		}
		next := uint64(1)
		for _, s := range in.Segments {
			if s.First != next || s.Records != s.Last-s.First+1 {
				t.Errorf("%s: segment %+v does not begin with %d", name, s, next)
			}
			next = s.Last + 1
		}
	}
	if snapshotOf(t, dir) != before {
		t.Error("something was written")
	}
	b := open(t, small(dir))
	if err := b.Ack(30); err != nil {
		t.Fatal(err)
	}
	b.Close()
	in, err := Verify(dir)
	if err != nil || len(in.Faults) > 0 || in.AckedSeq != 30 || in.Pending != f.records-30 {
		t.Errorf("after 30 were acknowledged: %+v, %v", in, err)
	}
}

func TestInspectWorksWhileTheBufferIsOpenAndVerifySaysThatItIs(t *testing.T) {
	b := open(t, small(t.TempDir()))
	commit(t, b, "a", "b")
	in, err := Inspect(b.cfg.Dir)
	if err != nil || !in.Running || in.Pending != 2 {
		t.Errorf("%+v, %v", in, err)
	}
	if _, err := Verify(b.cfg.Dir); !errors.Is(err, ErrInUse) {
		t.Errorf("Verify: %v, want ErrInUse", err)
	}
	commit(t, b, "c")
	if _, err := Inspect(filepath.Join(b.cfg.Dir, "nowhere")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Inspect of no folder: %v", err)
	}
}

// Whatever harm is done to a file, verify must not call the folder good when opening it finds something wrong.
func TestVerifyFindsWhatOpeningFinds(t *testing.T) {
	rng := random(t)
	f := makePlantFolder(t)
	found := 0
	for round := range 50 {
		name := f.segments[rng.IntN(len(f.segments))]
		dir := f.copyTo(t, func(files map[string][]byte) { files[name] = damage(rng, files[name]) })
		before := snapshotOf(t, dir)
		in, err := Verify(dir)
		if err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		if snapshotOf(t, dir) != before {
			t.Fatalf("round %d: something was written", round)
		}
		b := open(t, small(dir))
		commit(t, b, "goes on")
		f.checkRecords(t, b)
		if d := b.Damaged(); len(d) > 0 {
			found++
			if len(in.Faults) == 0 {
				t.Errorf("round %d: verify found nothing in %s, opening %+v", round, name, d)
			}
		}
		b.Close()
	}
	if found < 10 {
		t.Errorf("only %d of 50 were damaged: the test did not test", found)
	}
}
