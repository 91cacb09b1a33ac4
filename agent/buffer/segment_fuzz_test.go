package buffer

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzBlock reads anything as a block of records: what is accepted holds together, and what was written is read the same.
func FuzzBlock(f *testing.F) {
	at := time.Unix(0, 1_700_000_000_123_456_789)
	for _, list := range [][][]byte{{[]byte("a")}, {nil, []byte("bb"), bytes.Repeat([]byte("x"), 5000)}} {
		v, n := appendBlock(nil, block{first: 7, storedAt: at, delta: appendDelta(nil, map[string][]byte{"k": []byte("v"), "gone": nil})}, list, 1<<20)
		f.Add(seqKey(7+uint64(n)-1), v)
	}
	f.Add(seqKey(1), make([]byte, blockHeader))
	f.Fuzz(func(t *testing.T, key, v []byte) {
		blockSize(v)
		state := map[string][]byte{}
		_ = applyDelta(state, v)
		if len(key) == 8 && len(v) >= blockHeader {
			v = bytes.Clone(v)
			retotal(key, v, 1, 1) // makes the checksum right, so that what is behind it is reached
		}
		b, err := decodeBlock(key, v)
		if err != nil {
			return
		}
		_ = applyDelta(state, b.delta)
		entries, err := b.entries()
		if err != nil {
			return
		}
		if len(entries) != b.count || entries[0].Seq != b.first || entries[len(entries)-1].Seq != b.last {
			t.Fatalf("%d entries from %d to %d in a block of %+v", len(entries), entries[0].Seq, entries[len(entries)-1].Seq, b)
		}
		list := make([][]byte, len(entries))
		for i, e := range entries {
			list[i] = e.Body
		}
		again, n := appendBlock(nil, block{first: b.first, storedAt: b.storedAt, delta: b.delta}, list, 1<<30)
		back, err := decodeBlock(seqKey(b.last), again)
		if err != nil || n != len(list) {
			t.Fatalf("written again it can not be read: %v", err)
		}
		same, err := back.entries()
		if err != nil || len(same) != len(entries) {
			t.Fatalf("written again it has %d entries: %v", len(same), err)
		}
		for i := range same {
			if !bytes.Equal(same[i].Body, entries[i].Body) {
				t.Fatalf("record %d changed", same[i].Seq)
			}
		}
	})
}

// perCommit is how many records one commit of the folder holds.
const perCommit = 20

// mangledFolder is a buffer's folder whose files the fuzzer spoils.
type mangledFolder struct {
	files map[string][]byte // name to content
	names []string          // segments, the oldest first
	want  map[uint64]string
	last  uint64
}

func newMangledFolder(f *testing.F) mangledFolder {
	f.Helper()
	cfg := small(f.TempDir())
	b, err := Open(cfg)
	if err != nil {
		f.Fatal(err)
	}
	m := mangledFolder{files: map[string][]byte{}, want: map[uint64]string{}}
	for m.last = 0; b.Stats().Segments < 3; {
		var bodies []string
		for range perCommit {
			m.last++
			bodies = append(bodies, fmt.Sprintf("%06d%s", m.last, strings.Repeat("y", 700)))
			m.want[m.last] = bodies[len(bodies)-1]
		}
		err := b.Commit(context.Background(), func(tx *Tx) error {
			for _, body := range bodies {
				tx.Append([]byte(body))
			}
			tx.SetState("cursor", []byte(bodies[0][:6]))
			return nil
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	if err := b.Close(); err != nil {
		f.Fatal(err)
	}
	list, err := os.ReadDir(cfg.Dir)
	if err != nil {
		f.Fatal(err)
	}
	for _, e := range list {
		content, err := os.ReadFile(filepath.Join(cfg.Dir, e.Name()))
		if err != nil {
			f.Fatal(err)
		}
		if m.files[e.Name()] = content; strings.HasSuffix(e.Name(), segmentSuffix) {
			m.names = append(m.names, e.Name())
		}
	}
	slices.Sort(m.names)
	return m
}

// spoiled writes the folder with one file overwritten from an offset on, or cut there when there is nothing to write.
func (m mangledFolder) spoiled(t *testing.T, which uint8, offset uint32, patch []byte) string {
	t.Helper()
	dir := t.TempDir()
	victim := m.names[int(which)%len(m.names)]
	for name, content := range m.files {
		if name == victim {
			content = bytes.Clone(content)
			at := int(offset) % len(content)
			if len(patch) == 0 {
				content = content[:at]
			} else {
				copy(content[at:], patch)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// FuzzSegmentFolder opens a folder with a spoiled segment: it opens, what is read is what was written, what is missing lies
// in a range that is reported, and the buffer takes new records.
func FuzzSegmentFolder(f *testing.F) {
	m := newMangledFolder(f)
	f.Add(uint8(0), uint32(0), []byte{})                            // emptied
	f.Add(uint8(1), uint32(0), make([]byte, 4096))                  // first meta page zeroed
	f.Add(uint8(2), uint32(0), make([]byte, 8192))                  // both meta pages zeroed
	f.Add(uint8(1), uint32(20_000), []byte{0xff, 0xff, 0xff, 0xff}) // in the tree
	f.Add(uint8(2), uint32(60_000), []byte{})                       // cut short
	f.Add(uint8(0), uint32(4096*3+8), []byte{1, 0, 255, 255})       // a page's flags and count
	f.Fuzz(func(t *testing.T, which uint8, offset uint32, patch []byte) {
		cfg := small(m.spoiled(t, which, offset, patch))
		b, err := Open(cfg)
		if err != nil {
			t.Fatalf("the buffer does not open: %v", err)
		}
		defer b.Close()
		missing := m.read(t, b)
		settle(t, b)
		missing = min(missing, m.read(t, b))
		unseen := 0
		if int(which)%len(m.names) == len(m.names)-1 {
			unseen = perCommit // half of the last commit looks like one that a power cut stopped before it was acknowledged
		}
		if missing > unseen && len(b.Damaged()) == 0 {
			t.Fatalf("%d records are missing and no damage is reported", missing)
		}
		if err := b.Commit(t.Context(), func(tx *Tx) error { tx.Append([]byte("new")); return nil }); err != nil {
			t.Fatalf("the buffer takes nothing: %v", err)
		}
	})
}

// read wants everything that can be read to be what was written under its number, and returns how many are missing.
func (m mangledFolder) read(t *testing.T, b *Buffer) (missing int) {
	t.Helper()
	seen := map[string]bool{}
	for after := uint64(0); ; {
		entries, err := b.Read(after, 100, 1<<20)
		if err != nil {
			t.Fatalf("read after %d: %v", after, err)
		}
		if len(entries) == 0 {
			break
		}
		for _, e := range entries {
			seen[string(e.Body)] = true
			if want, ok := m.want[e.Seq]; ok && want != string(e.Body) {
				t.Fatalf("record %d reads %.20q, written was %.20q", e.Seq, e.Body, want)
			}
			after = e.Seq
		}
	}
	for _, body := range m.want {
		if !seen[body] {
			missing++
		}
	}
	return missing
}
