package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
)

// plantFolder is a folder as an agent leaves it: several segments with state, quarantine and a record of many pages.
type plantFolder struct {
	files      map[string][]byte
	segments   []string // names, oldest first
	records    uint64
	generation string
}

const newestCursor = "the newest"

func makePlantFolder(t *testing.T) *plantFolder {
	t.Helper()
	b := open(t, small(t.TempDir()))
	for i := range 40 {
		setState(t, b, fmt.Sprintf("key/%02d", i), strings.Repeat("v", 100))
	}
	err := b.Update(t.Context(), func(tx *Tx) error {
		for i := range 20 {
			tx.Quarantine(Quarantined{Item: strconv.Itoa(i), Reason: strings.Repeat("r", 300)})
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	n := uint64(0)
	for i := 0; b.Stats().Segments < 4 || b.active.count < 25; i++ {
		size := 800
		if i%20 == 10 {
			size = 20_000
		}
		err := b.Commit(t.Context(), func(tx *Tx) error {
			for range 1 + i%4 {
				n++
				tx.Append(plantRecord(n, size))
			}
			tx.SetState("cursor", strconv.AppendInt(nil, int64(i), 10))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	setState(t, b, "cursor", newestCursor)
	f := &plantFolder{records: n, generation: b.Generation()}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	f.files = readFiles(t, b)
	f.segments = slices.Sorted(maps.Keys(f.files))
	if f.files["lock"], err = os.ReadFile(filepath.Join(b.cfg.Dir, "lock")); err != nil {
		t.Fatal(err)
	}
	return f
}

// plantRecord can be told from its number alone.
func plantRecord(seq uint64, size int) []byte {
	return append(fmt.Appendf(nil, "%06d", seq), bytes.Repeat([]byte{byte(seq)}, size)...)
}

// copyTo writes the folder's files, with one of them changed; nil leaves it out.
func (f *plantFolder) copyTo(t *testing.T, change func(files map[string][]byte)) string {
	t.Helper()
	dir := t.TempDir()
	all := maps.Clone(f.files)
	for name := range all {
		all[name] = slices.Clone(all[name])
	}
	change(all)
	for name, text := range all {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// check opens a folder and holds the buffer to its promises: it runs at once, gives back what is whole in order and once,
// names exactly what is missing, raises one alarm, and has the newest state or says that time went back.
func (f *plantFolder) check(t *testing.T, dir string) Damage {
	t.Helper()
	cfg := small(dir)
	began := time.Now()
	b := open(t, cfg)
	if err := b.Update(t.Context(), func(tx *Tx) error { return nil }); err != nil {
		t.Fatal(err)
	}
	commit(t, b, "goes on")
	if took := time.Since(began); took > time.Minute {
		t.Errorf("running after %v", took)
	}
	d := f.checkRecords(t, b)
	if string(b.State("cursor")) != newestCursor && b.Generation() == f.generation {
		t.Errorf("the state went back to %q within the same generation", b.State("cursor"))
	}
	if len(b.Damaged()) > 0 && d.File != "" {
		if _, err := os.Stat(filepath.Join(dir, d.File)); err != nil {
			t.Errorf("the damaged file is not kept: %v", err)
		}
	}
	lost := d.Lost
	b = reopen(t, b)
	if d = f.checkRecords(t, b); !slices.Equal(d.Lost, lost) {
		t.Errorf("after a restart %v are lost, before it %v were", d.Lost, lost)
	}
	if err := b.Ack(b.Stats().LastSeq); err != nil {
		t.Fatal(err)
	}
	b = reopen(t, b)
	if s := b.Stats(); s.Pending != 0 || s.Salvaging != 0 {
		t.Errorf("all is acknowledged, but %d are pending and %d segments are salvaged", s.Pending, s.Salvaging)
	}
	return d
}

func (f *plantFolder) checkRecords(t *testing.T, b *Buffer) (d Damage) {
	t.Helper()
	for range 3 { // damage may be found on the way
		bodies(t, b, 0)
		settle(t, b)
	}
	missing := map[uint64]bool{}
	for seq := uint64(1); seq <= f.records; seq++ {
		missing[seq] = true
	}
	last, goesOn := uint64(0), false
	for _, line := range bodies(t, b, 0) {
		seq := seqFrom(t, line)
		_, body, _ := strings.Cut(line, ":")
		if seq <= last {
			t.Fatalf("after %d comes %d", last, seq)
		}
		last = seq
		if goesOn = body == "goes on"; goesOn {
			continue
		}
		if want := plantRecord(seq, 800); body != string(want) && body != string(plantRecord(seq, 20_000)) {
			t.Fatalf("record %d is %.40q", seq, body)
		}
		delete(missing, seq)
	}
	if !goesOn {
		t.Error("the record that was stored after the damage does not come last")
	}
	damage := b.Damaged()
	if len(damage) > 1 {
		t.Errorf("%d alarms for one damage: %+v", len(damage), damage)
	}
	if len(damage) > 0 {
		d = damage[0]
	}
	named := map[uint64]bool{}
	for _, r := range d.Lost {
		for seq := r.First; seq <= r.Last && seq <= f.records; seq++ {
			named[seq] = true
		}
	}
	if d.OpenEnd {
		for seq := range missing {
			if seq >= d.First {
				named[seq] = true
			}
		}
	}
	if !maps.Equal(missing, named) {
		t.Errorf("missing are %v, named are %v: %+v", slices.Sorted(maps.Keys(missing)), slices.Sorted(maps.Keys(named)), d)
	}
	return d
}

// pageKinds tells for each kind of page which there are in a segment.
func pageKinds(t *testing.T, path string) map[string][]uint64 {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	p := newPageFile(file)
	if err := p.readMeta(); err != nil {
		t.Fatal(err)
	}
	kinds := map[string][]uint64{"meta": {0, 1}, "root": {p.root}}
	buckets, err := newPageFile(file).buckets(p.root)
	if err != nil {
		t.Fatal(err)
	}
	var walk func(name string, id uint64)
	walk = func(name string, id uint64) {
		page, err := newPageFile(file).page(id)
		if err != nil {
			t.Fatal(err)
		}
		if native.Uint16(page[8:]) == leafPage {
			kinds["leaf of "+name] = append(kinds["leaf of "+name], id)
		} else {
			kinds["branch of "+name] = append(kinds["branch of "+name], id)
			for i := range int(native.Uint16(page[10:])) {
				walk(name, native.Uint64(page[pageHeaderSize+i*elementSize+8:]))
			}
		}
		for over := range uint64(native.Uint32(page[12:])) {
			kinds["overflow of "+name] = append(kinds["overflow of "+name], id+1+over)
		}
	}
	for name, v := range buckets {
		if root := native.Uint64(v); root != 0 {
			walk(name, root)
		}
	}
	return kinds
}

func TestFlippedByteInEachKindOfPage(t *testing.T) {
	rng := random(t)
	f := makePlantFolder(t)
	seen := map[string]bool{}
	for _, at := range []int{1, len(f.segments) - 1} {
		name := f.segments[at]
		path := filepath.Join(f.copyTo(t, func(map[string][]byte) {}), name)
		kinds := pageKinds(t, path)
		for _, kind := range slices.Sorted(maps.Keys(kinds)) {
			seen[kind] = true
			pages := kinds[kind]
			for _, offset := range []int{rng.IntN(16), 16 + rng.IntN(48), rng.IntN(pageSize)} {
				page := pages[rng.IntN(len(pages))]
				t.Run(fmt.Sprintf("segment %d/%s/%d at %d", at, kind, page, offset), func(t *testing.T) {
					dir := f.copyTo(t, func(files map[string][]byte) {
						files[name][int(page)*pageSize+offset] ^= 1 << rng.IntN(8)
					})
					d := f.check(t, dir)
					if d.Records > 120 {
						t.Errorf("%d records are lost with one bit: %+v", d.Records, d)
					}
				})
			}
		}
	}
	for _, kind := range []string{"meta", "root", "branch of records", "leaf of records", "overflow of records", "leaf of state", "leaf of quarantine"} {
		if !seen[kind] {
			t.Errorf("there was no page of kind %q: the test did not test", kind)
		}
	}
}

type damagedFolder struct {
	name   string
	change func(files map[string][]byte)
	alarm  bool
	lost   []Range // nil: whatever is missing
	state  bool    // the newest one must be there
}

func TestDamagedFolders(t *testing.T) {
	rng := random(t)
	f := makePlantFolder(t)
	oldest, middle, newest := f.segments[0], f.segments[1], f.segments[len(f.segments)-1]
	firstOf := func(name string) uint64 {
		_, first, _ := parseName(name, segmentSuffix)
		return first
	}
	all := func(name string) Range { // the records of a segment that is not the newest
		return Range{firstOf(name), firstOf(f.segments[slices.Index(f.segments, name)+1]) - 1}
	}
	cases := []damagedFolder{
		{name: "nothing", change: func(map[string][]byte) {}, state: true},
		{name: "oldest missing", change: without(oldest), alarm: true, lost: []Range{all(oldest)}, state: true},
		{name: "middle missing", change: without(middle), alarm: true, lost: []Range{all(middle)}, state: true},
		{name: "newest missing", change: without(newest), alarm: true},
		{name: "all missing", change: func(files map[string][]byte) {
			for _, name := range f.segments {
				delete(files, name)
			}
		}, alarm: true},
		{name: "middle of zero length", change: with(middle, nil), alarm: true, lost: []Range{all(middle)}, state: true},
		{name: "newest of zero length", change: with(newest, nil), alarm: true},
		{name: "middle is garbage", change: with(middle, noise(rng, 100_000)), alarm: true, lost: []Range{all(middle)}, state: true},
		{name: "newest is garbage", change: with(newest, noise(rng, 100_000)), alarm: true},
		{name: "newest is another segment", change: with(newest, f.files[oldest]), alarm: true},
		{name: "both meta pages of the middle zeroed", change: zeroed(middle, 0, 2*pageSize), alarm: true, lost: []Range{}, state: true},
		{name: "both meta pages of the newest zeroed", change: zeroed(newest, 0, 2*pageSize), alarm: true},
		{name: "first meta page of the newest zeroed", change: zeroed(newest, 0, pageSize), alarm: true, lost: []Range{}},
		{name: "second meta page of the newest zeroed", change: zeroed(newest, pageSize, pageSize), alarm: true, lost: []Range{}},
		{name: "foreign files", change: func(files map[string][]byte) {
			files["readme.txt"], files["000000000009-1.segment"], files["x.segment"] = []byte("?"), []byte("?"), []byte("?")
			files["000000000099-00000000000000000001.segment.new"] = []byte("?")
		}, state: true},
		{name: "lock file left behind", change: func(files map[string][]byte) { files["lock"] = []byte("pid 12345\n") }, state: true},
	}
	for range 12 {
		name := f.segments[rng.IntN(len(f.segments))]
		length := rng.IntN(len(f.files[name]))
		change := func(files map[string][]byte) { files[name] = files[name][:length] }
		cases = append(cases, damagedFolder{name: fmt.Sprintf("%s cut to %d bytes", name, length), change: change, alarm: true, state: name != newest})
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			dir := f.copyTo(t, c.change)
			if c.state {
				b := open(t, small(dir))
				if string(b.State("cursor")) != newestCursor || b.Generation() != f.generation {
					t.Errorf("cursor is %q, generation changed: %v", b.State("cursor"), b.Generation() != f.generation)
				}
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
			}
			d := f.check(t, dir)
			cut := strings.Contains(c.name, "cut") && len(d.Lost) == 0 // the end of a file may hold nothing
			if (d.Reason != "") != c.alarm && !cut {
				t.Errorf("alarm %+v, want one: %v", d, c.alarm)
			}
			if c.lost != nil && !slices.Equal(d.Lost, c.lost) {
				t.Errorf("lost are %v, want %v", d.Lost, c.lost)
			}
		})
	}
}

func without(name string) func(map[string][]byte) {
	return func(files map[string][]byte) { delete(files, name) }
}

func with(name string, text []byte) func(map[string][]byte) {
	return func(files map[string][]byte) { files[name] = slices.Clone(text) }
}

func zeroed(name string, from, n int) func(map[string][]byte) {
	return func(files map[string][]byte) { clear(files[name][from : from+n]) }
}

func noise(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// The records of the newest segment can be damaged without any harm to its state, and the other way round.
func TestStateSurvivesDamageToRecordsOfTheSameSegment(t *testing.T) {
	f := makePlantFolder(t)
	newest := f.segments[len(f.segments)-1]
	path := filepath.Join(f.copyTo(t, func(map[string][]byte) {}), newest)
	kinds := pageKinds(t, path)
	for _, kind := range []string{"leaf of records", "branch of records", "overflow of records"} {
		t.Run(kind, func(t *testing.T) {
			dir := f.copyTo(t, func(files map[string][]byte) {
				page := int(kinds[kind][0]) * pageSize
				clear(files[newest][page : page+pageSize])
			})
			b := open(t, small(dir))
			if string(b.State("cursor")) != newestCursor || b.Generation() != f.generation {
				t.Errorf("cursor is %q, generation changed: %v", b.State("cursor"), b.Generation() != f.generation)
			}
			if list, err := b.Quarantined(100); err != nil || len(list) != 20 {
				t.Errorf("%d in quarantine, %v", len(list), err)
			}
			if d := b.Damaged(); len(d) != 1 || d[0].OpenEnd {
				t.Errorf("damage %+v", d)
			}
			if err := b.Close(); err != nil {
				t.Fatal(err)
			}
			f.check(t, dir)
		})
	}
	t.Run("leaf of state", func(t *testing.T) {
		dir := f.copyTo(t, func(files map[string][]byte) {
			page := int(kinds["leaf of state"][0]) * pageSize
			clear(files[newest][page : page+pageSize])
		})
		d := f.check(t, dir)
		if d.Records != 0 || d.Recovered == 0 {
			t.Errorf("damage %+v, want all records saved", d)
		}
	})
}

// A folder that a newer program wrote is left alone, even where its newest segment is damaged.
func TestDamagedFolderOfANewerProgramIsLeftAlone(t *testing.T) {
	f := makePlantFolder(t)
	newest := f.segments[len(f.segments)-1]
	dir := f.copyTo(t, func(map[string][]byte) {})
	path := filepath.Join(dir, newest)
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketMeta).Put(keyFormat, []byte{0, 0, 0, formatVersion + 1})
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	page := int64(pageKinds(t, path)["leaf of records"][0]) * pageSize
	corrupt(t, path, func(text []byte) []byte { clear(text[page : page+pageSize]); return text })
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(small(dir)); !errors.Is(err, ErrNewerFormat) {
		t.Errorf("Open: %v, want ErrNewerFormat", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the segment was touched: %v", err)
	}
}

// Root may write everywhere, so the test gives up its rights in a process of its own.
func TestFolderThatCanNotBeWrittenToIsNamedWithTheNextStep(t *testing.T) {
	if os.Getuid() == 0 && os.Getenv(readOnlyVariable) == "" {
		cmd := exec.Command("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", os.Args[0], "-test.run", t.Name()+"$", "-test.v")
		dir, err := os.MkdirTemp("/var/tmp", "buffer-read-only-")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		b := open(t, small(filepath.Join(dir, "buffer")))
		commit(t, b, "a")
		if err := errors.Join(b.Close(), os.Chmod(dir, 0o755), os.Chmod(b.cfg.Dir, 0o555)); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(os.Environ(), readOnlyVariable+"="+b.cfg.Dir)
		cmd.Dir = "/"
		if text, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(text, []byte("--- PASS")) {
			t.Errorf("%v: %s", err, text)
		}
		return
	}
	dir := os.Getenv(readOnlyVariable)
	if dir == "" {
		dir = t.TempDir()
		b := open(t, small(dir))
		if err := errors.Join(b.Close(), os.Remove(filepath.Join(dir, "lock")), os.Chmod(dir, 0o555)); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = os.Chmod(dir, 0o755) })
	}
	_, err := Open(small(dir))
	if err == nil || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "give the folder to the user") {
		t.Errorf("Open: %v, want an error with the folder and what to do", err)
	}
}

const readOnlyVariable = "LINEKEEPER_BUFFER_READ_ONLY"
