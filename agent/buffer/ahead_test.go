package buffer

import (
	"context"
	"testing"
)

// TestFullSegmentsAreLoadedAheadOfTheReader looks at what the system was asked for: of a full segment never less than what
// was read, in the end all of it, and nothing of the one that is written.
func TestFullSegmentsAreLoadedAheadOfTheReader(t *testing.T) {
	cfg := small(t.TempDir())
	cfg.SegmentSize = 2 * aheadBytes
	b := open(t, cfg)
	body := make([]byte, 1000)
	for len(b.segments) < 3 {
		err := b.Commit(context.Background(), func(tx *Tx) error {
			for range 500 {
				tx.Append(body)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	first := b.segments[0]
	for after := uint64(0); after < first.last; {
		entries, err := b.Read(after, 100, 1<<20)
		if err != nil || len(entries) == 0 {
			t.Fatalf("read after %d: %d entries, %v", after, len(entries), err)
		}
		after = entries[len(entries)-1].Seq
		if read := int64(after) * int64(len(body)); after <= first.last && first.ahead < read {
			t.Fatalf("%d bytes were asked for, %d are read", first.ahead, read)
		}
		if after < first.last/4 && first.ahead > aheadBytes*2 {
			t.Fatalf("%d bytes were asked for with %d records read", first.ahead, after)
		}
	}
	if size := fileSize(first.path); first.ahead != size {
		t.Errorf("%d bytes were asked for, the file has %d", first.ahead, size)
	}
	if b.active.ahead != 0 {
		t.Errorf("%d bytes of the segment that is written were asked for", b.active.ahead)
	}
}
