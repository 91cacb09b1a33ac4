package buffer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"go.etcd.io/bbolt"
)

// bbolt syncs twice for a commit: first the pages, then the meta page that makes them count. Here one sync covers both,
// which nearly doubles what a disk takes. After a power cut the newest meta page may then be on the disk without all of
// its pages, so a segment carries a proof of its content, and a start that finds it wrong goes back to the other meta
// page, the one of the commit before. That one is whole: bbolt never writes to a page of the last commit's tree, and the
// last commit was synced before the next one began. Nobody was told that the unfinished commit had succeeded.
//
// The proof lies in the page that every commit rewrites: the number of the transaction and a sum over all keys and values.
// With the right number that page is the newest one; with the right sum the pages below it are, and with the right checksum
// each value is: a disk writes sectors, so a page may be there in part.

var (
	bucketMeta       = []byte("meta")       // small: bbolt keeps it inside the root page
	bucketInfo       = []byte("info")       // what rarely changes
	bucketRecords    = []byte("records")    // blocks by the sequence number of their last record
	bucketState      = []byte("state")      // values by key
	bucketQuarantine = []byte("quarantine") // inputs by id

	keyFormat   = []byte("format")
	keyProof    = []byte("proof")
	keyKept     = []byte("kept")  // the sum without the records, and the last record: proves a state whose records are damaged
	keyFirst    = []byte("first") // the segment's first record, as its name says: a file under a wrong name is damage
	keyAcked    = []byte("acked")
	keyFlushed  = []byte("flushed")
	keyInfo     = []byte("info")
	keySegments = []byte("segments")
)

// summed are the buckets that the sum covers, with a salt for each. "meta" is proved by the transaction's number.
var summed = []struct {
	name []byte
	salt uint64
}{{bucketInfo, 1}, {bucketRecords, 2}, {bucketState, 3}, {bucketQuarantine, 4}}

// errUnproved says that the pages of the newest commit are not all there.
var errUnproved = errors.New("the last commit is not whole")

// tree is one writing transaction that keeps the sum.
type tree struct {
	tx   *bbolt.Tx
	sum  uint64
	kept uint64 // of that, all but the records
}

// add changes the sums by a value that is put or taken out.
func (t *tree) add(bucket int, x uint64) {
	t.sum += x
	if bucket != inRecords {
		t.kept += x
	}
}

// put writes a value that starts with its checksum over key and content, as blocks and sealed values do.
func (t *tree) put(bucket int, key, v []byte) error {
	b := t.tx.Bucket(summed[bucket].name)
	if old := b.Get(key); old != nil {
		t.add(bucket, -item(bucket, old))
	}
	t.add(bucket, item(bucket, v))
	return b.Put(key, v)
}

func (t *tree) delete(bucket int, key []byte) error {
	b := t.tx.Bucket(summed[bucket].name)
	if old := b.Get(key); old != nil {
		t.add(bucket, -item(bucket, old))
	}
	return b.Delete(key)
}

// append writes pairs whose keys ascend and are higher than all that are there.
func (t *tree) append(bucket int, pairs []pair) error {
	b := t.tx.Bucket(summed[bucket].name)
	b.FillPercent = 1
	for _, p := range pairs {
		t.add(bucket, item(bucket, p.value))
		if err := b.Put(p.key, p.value); err != nil {
			return err
		}
	}
	return nil
}

// prove writes the proof, as the last thing before the commit; last is the segment's last record by then.
func (t *tree) prove(last uint64) error {
	meta := t.tx.Bucket(bucketMeta)
	v := binary.BigEndian.AppendUint64(nil, uint64(t.tx.ID()))
	if err := meta.Put(keyProof, sealed(keyProof, binary.BigEndian.AppendUint64(v, t.sum))); err != nil {
		return err
	}
	v = binary.BigEndian.AppendUint64(nil, t.kept)
	return meta.Put(keyKept, sealed(keyKept, binary.BigEndian.AppendUint64(v, last)))
}

// checkProof returns the sums of a segment, or errUnproved. It checks the values' own checksums too: the last page of a
// value may be missing while the one with its checksum is there.
func checkProof(tx *bbolt.Tx) (sum, kept uint64, err error) {
	proof, err := unsealed(keyProof, tx.Bucket(bucketMeta).Get(keyProof))
	if err != nil || len(proof) != 16 {
		return 0, 0, fmt.Errorf("%w: %q: %v", errUnproved, keyProof, err)
	}
	if number := binary.BigEndian.Uint64(proof); number != uint64(tx.ID()) {
		return 0, 0, fmt.Errorf("%w: it is number %d and its root number %d", errUnproved, tx.ID(), number)
	}
	records := uint64(0)
	for i, s := range summed {
		b := tx.Bucket(s.name)
		if b == nil {
			return 0, 0, fmt.Errorf("%w: no bucket %q", errUnproved, s.name)
		}
		err := b.ForEach(func(key, v []byte) error {
			if len(v) < 4 || binary.BigEndian.Uint32(v) != blockSum(key, v) {
				return fmt.Errorf("%w: %s %x: %w", errUnproved, s.name, key, errChecksum)
			}
			x := item(i, v)
			sum += x
			if i == inRecords {
				records += x
			}
			return nil
		})
		if err != nil {
			return 0, 0, err
		}
	}
	if want := binary.BigEndian.Uint64(proof[8:]); sum != want {
		return 0, 0, fmt.Errorf("%w: sum %x instead of %x", errUnproved, sum, want)
	}
	return sum, sum - records, nil
}

const (
	inInfo = iota
	inRecords
	inState
	inQuarantine
)

// item is what a value adds to the sum. Its own checksum stands for it.
func item(bucket int, v []byte) uint64 {
	x := summed[bucket].salt << 56
	if len(v) >= 4 {
		x |= uint64(binary.BigEndian.Uint32(v))<<20 ^ uint64(len(v))
	}
	// Spread the bits, so that sums of small differences do not cancel out (the finalizer of SplitMix64).
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// rewind makes a closed segment show its commit before the last one, by a copy of that one's meta page in the place of the
// last one's. undo puts it back.
func rewind(disk Disk, path string) (undo func(), err error) {
	older, newer, err := metaPages(path)
	if err != nil {
		return nil, err
	}
	if older.txid+1 != newer.txid {
		return nil, fmt.Errorf("commit %d follows commit %d", newer.txid, older.txid)
	}
	copied := append(bytes.Clone(newer.raw[:pageHeaderSize]), older.raw[pageHeaderSize:]...)
	if err := overwrite(disk, path, newer.offset, copied); err != nil {
		return nil, err
	}
	return func() { _ = overwrite(disk, path, newer.offset, newer.raw) }, nil
}
