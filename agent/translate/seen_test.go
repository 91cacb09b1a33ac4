package translate

import (
	"bytes"
	"math"
	"sort"
	"testing"

	"pgregory.net/rapid"
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
		sort.Sort(entries(block))
		for _, k := range append(keys, key.Draw(t, "other")) {
			found := findSorted(block, k)
			n, known := known[string(k)]
			if known != (found != nil) || known && !bytes.Equal(found, []byte{n, 0, 0, 0, 0, 0}) {
				t.Fatalf("key %x: found %x, known %v as %d", k, found, known, n)
			}
		}
	})
}
