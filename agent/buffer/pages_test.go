package buffer

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"go.etcd.io/bbolt"
)

// A wrong key in a branch page leads a search past keys that are there: what a commit changed last would be missed without a word.
func TestEachBitOfABranchPageThatHidesAKeyIsNoticed(t *testing.T) {
	f := makePlantFolder(t)
	name := f.segments[len(f.segments)-1]
	path := filepath.Join(f.copyTo(t, func(map[string][]byte) {}), name)
	pages := pageKinds(t, path)["branch of records"]
	if len(pages) == 0 {
		t.Fatal("the segment has no branch page")
	}
	keys := recordKeys(t, path)
	hidden := 0
	for _, page := range pages {
		at := int(page) * pageSize
		count := int(native.Uint16(f.files[name][at+10:]))
		used := pageHeaderSize + count*(elementSize+8)
		for bit := pageHeaderSize * 8; bit < used*8; bit++ {
			spoiled := filepath.Join(t.TempDir(), name)
			text := bytes.Clone(f.files[name])
			text[at+bit/8] ^= 1 << (bit % 8)
			if err := os.WriteFile(spoiled, text, 0o600); err != nil {
				t.Fatal(err)
			}
			if checkPages(spoiled) != nil {
				hidden++
				continue
			}
			if missed := notFound(t, spoiled, keys); missed != "" {
				t.Errorf("bit %d of page %d: %s is not found, and nothing was noticed", bit, page, missed)
			}
		}
	}
	if hidden == 0 {
		t.Error("no bit was noticed")
	}
}

func recordKeys(t *testing.T, path string) (keys [][]byte) {
	t.Helper()
	viewRecords(t, path, func(b *bbolt.Bucket) error {
		return b.ForEach(func(key, _ []byte) error {
			keys = append(keys, bytes.Clone(key))
			return nil
		})
	})
	return keys
}

// notFound names a key that a search in the file misses.
func notFound(t *testing.T, path string, keys [][]byte) (missed string) {
	t.Helper()
	viewRecords(t, path, func(b *bbolt.Bucket) error {
		for _, key := range keys {
			if found, _ := b.Cursor().Seek(key); !bytes.Equal(found, key) {
				missed = fmt.Sprintf("%x", key)
			}
		}
		return nil
	})
	return missed
}

func viewRecords(t *testing.T, path string, fn func(b *bbolt.Bucket) error) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, readOptions())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	if err := db.View(func(tx *bbolt.Tx) error { return fn(tx.Bucket(bucketRecords)) }); err != nil {
		t.Fatal(err)
	}
}

// What the check of a file's pages takes for damage would cost a whole file: it must never meet anything that bbolt writes.
func TestWhatIsWrittenPassesTheCheckOfItsPages(t *testing.T) {
	rng := random(t)
	path := filepath.Join(t.TempDir(), "a")
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true, NoFreelistSync: true, PageSize: pageSize})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	key := func() []byte { return fmt.Appendf(nil, "key/%05d", rng.IntN(3000)) }
	for round := range 300 {
		err := db.Update(func(tx *bbolt.Tx) error {
			b, err := tx.CreateBucketIfNotExists([]byte("b"))
			if err != nil {
				return err
			}
			for range rng.IntN(200) {
				if err := b.Put(key(), bytes.Repeat([]byte{'v'}, rng.IntN(300))); err != nil {
					return err
				}
			}
			low := rng.IntN(3000) // a whole stretch goes, with the pages that held it
			for i := low; i < low+rng.IntN(600); i++ {
				if err := b.Delete(fmt.Appendf(nil, "key/%05d", i)); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := checkPages(path); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}
