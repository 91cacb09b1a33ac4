package translate

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/linekeeper/linekeeper/proto/factkey"
)

// TestFindSorted compares the search with a walk over all entries, also where keys do not lie evenly or share their
// beginning.
func TestFindSorted(t *testing.T) {
	key := rapid.Custom(func(t *rapid.T) []byte {
		head := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 3), rapid.Uint64Range(math.MaxUint64-3, math.MaxUint64)).Draw(t, "head")
		k := make([]byte, 0, keyPart)
		for shift := 56; shift >= 0; shift -= 8 {
			k = append(k, byte(head>>shift))
		}
		return append(k, 0, rapid.ByteRange(0, 2).Draw(t, "end"))
	})
	rapid.Check(t, func(t *rapid.T) {
		keys := rapid.SliceOfN(key, 0, 200).Draw(t, "keys")
		var block []byte
		known := map[string]byte{}
		for i, k := range keys {
			if _, twice := known[string(k)]; twice {
				continue
			}
			known[string(k)] = byte(i)
			block = append(append(block, k...), byte(i), 0, 0, 0, 0, 0)
		}
		block = mergeSorted(nil, sortEntries(nil, block))
		for _, k := range append(keys, key.Draw(t, "other")) {
			found := findSorted(block, k)
			n, known := known[string(k)]
			if known != (found != nil) || known && !bytes.Equal(found, []byte{n, 0, 0, 0, 0, 0}) {
				t.Fatalf("key %x: found %x, known %v as %d", k, found, known, n)
			}
		}
	})
}

// TestKeysAreRemembered asks in calls that are long enough for the filter and in calls that are not: none of the last 16,384
// keys is taken for new, in the call that brought it or in another one, no other key is taken for one of them, and other content
// is told from the same.
func TestKeysAreRemembered(t *testing.T) {
	tr, err := New(rules(t, Sample), keys())
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	if text := os.Getenv("TRANSLATE_SEED"); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed: TRANSLATE_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	key := func(n int) factkey.Key { return factkey.Of(fmt.Sprint("key ", n)) }
	content := func(n int) uint64 { return uint64(n) * fnvPrime }
	st, taken := memory{}, 0
	for taken < 40_000 {
		w := tr.begin(st, noon)
		for range 1 + random.IntN(3*filterAfter)*random.IntN(4) {
			if old := taken - 1 - random.IntN(16_384); random.IntN(3) == 0 && old >= 0 {
				changed := uint64(random.IntN(2)) << 32
				if before, same := w.seen("s", key(old), content(old)+changed); !before || same != (changed == 0) {
					t.Fatalf("key %d of %d: before %v, same %v with content changed by %d", old, taken, before, same, changed)
				}
				continue
			}
			if before, _ := w.seen("s", key(taken), content(taken)); before {
				t.Fatalf("key %d is new and was taken for a known one", taken)
			}
			taken++
		}
		w.end()
	}
	for block := range 8 {
		if n := len(st[prefixSeen+"s"+sep+strconv.Itoa(block)]); n != middleSize {
			t.Errorf("block %d has %d bytes, not %d", block, n, middleSize)
		}
	}
}

// TestAnotherCallsMemoryIsNotWrittenIn remembers keys in a call whose work is lost: what it began with is as it was.
func TestAnotherCallsMemoryIsNotWrittenIn(t *testing.T) {
	tr, err := New(rules(t, Sample), keys())
	if err != nil {
		t.Fatal(err)
	}
	st := memory{}
	remember := func(w *work, from, to int) {
		for n := from; n < to; n++ {
			w.seen("s", factkey.Of(fmt.Sprint("key ", n)), uint64(n))
		}
	}
	w := tr.begin(st, noon)
	remember(w, 0, 5000)
	w.end()
	before := map[string]string{}
	for key, v := range st {
		st[key] = append(make([]byte, 0, 4*len(v)), v...) // with room behind it
		before[key] = string(v)
	}
	remember(tr.begin(st, noon), 5000, 12_000) // and no end: the commit failed
	for key, v := range before {
		if string(st[key]) != v {
			t.Errorf("state %q was written in", key)
		}
	}
}

// TestMergedBlockIsSorted merges entries into a sorted block, as keys compare byte by byte.
func TestMergedBlockIsSorted(t *testing.T) {
	entry := rapid.SliceOfN(rapid.Byte(), entrySize, entrySize)
	block := rapid.SliceOfNDistinct(entry, 0, 300, func(e []byte) string { return string(e[:keyPart]) })
	rapid.Check(t, func(t *rapid.T) {
		all := block.Draw(t, "entries")
		young := all[:min(len(all), rapid.IntRange(0, openSize/entrySize).Draw(t, "young"))]
		got := mergeSorted(mergeSorted(nil, sortEntries(nil, bytes.Join(all[len(young):], nil))), sortEntries(nil, bytes.Join(young, nil)))
		slices.SortFunc(all, bytes.Compare)
		if want := bytes.Join(all, nil); !bytes.Equal(got, want) {
			t.Fatalf("merged to\n%x, want\n%x", got, want)
		}
	})
}
