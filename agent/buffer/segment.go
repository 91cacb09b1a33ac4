package buffer

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"syscall"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"
)

// formatVersion is what this code writes. A segment with a higher one was written by a newer program and is refused.
const formatVersion = 1

// pageSize is the same on all machines, so that a folder can be moved and blocks fit.
const pageSize = 4096

const (
	segmentSuffix = ".segment"
	newSuffix     = ".segment.new"
	damagedSuffix = ".segment.damaged"
)

// segment is one file. Its fields belong to the Buffer's mu; db belongs to readMu.
type segment struct {
	number uint64
	first  uint64 // where its records begin
	last   uint64 // first-1 while it is empty
	count  uint64
	bytes  int64
	path   string

	rescue *rescue // of a segment that was set aside

	ahead   int64 // up to where the system was asked to load the file; belongs to readMu as well
	db      *bbolt.DB
	file    *os.File // what db writes to
	disk    Disk
	trusted bool // written or checked by this process
	removed bool
	earlier bool // written by an earlier process, and what it must hold is known; see takeback.go
	// doubtful says that a commit failed in it; commit is the number of the last one that did not.
	doubtful bool
	commit   uint64
	base     int64  // size of the file before the first record
	size     int64  // size of the file when last written to; the committer's own
	sum      uint64 // see tree; the committer's own
	kept     uint64 // likewise
	let      int64  // size of the file when its mapped part was let go; likewise
}

// info is what a segment carries besides state and records.
type info struct {
	Generation        string   `json:"generation"`
	Last              uint64   `json:"last"` // highest sequence number used when this was written
	Dropped           uint64   `json:"dropped,omitempty"`
	QuarantineDropped uint64   `json:"quarantine_dropped,omitempty"`
	Replaces          uint64   `json:"replaces,omitempty"` // number of the segment whose records were taken over
	Damage            []Damage `json:"damage,omitempty"`
}

// sealedSegment is what the newest segment knows of an older one, so that a start need not read them all.
type sealedSegment struct {
	Number uint64 `json:"n"`
	First  uint64 `json:"f"`
	Last   uint64 `json:"l"`
	Count  uint64 `json:"c"`
	Bytes  int64  `json:"b"`
}

// damageError says that a file's content is bad, in contrast to a file that can not be reached.
type damageError struct{ cause error }

func (e *damageError) Error() string { return "damaged: " + e.cause.Error() }
func (e *damageError) Unwrap() error { return e.cause }

func damaged(err error) error { return &damageError{err} }

func isDamage(err error) bool {
	var d *damageError
	return errors.As(err, &d)
}

// guarded runs fn on mapped pages. A panic, and a fault in the mapping (a file that was cut short, a sector that can not be
// read), becomes an error that says "damaged".
func guarded(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if p := recover(); p != nil {
			err = damaged(fmt.Errorf("panic: %v", p))
		}
	}()
	return fn()
}

func segmentName(number, first uint64) string {
	return fmt.Sprintf("%012d-%020d%s", number, first, segmentSuffix)
}

// parseName reads a file name made by segmentName, whatever its suffix.
func parseName(name, suffix string) (number, first uint64, ok bool) {
	stem, found := strings.CutSuffix(name, suffix)
	if !found {
		return 0, 0, false
	}
	if n, err := fmt.Sscanf(stem, "%d-%d", &number, &first); err != nil || n != 2 {
		return 0, 0, false
	}
	return number, first, filepath.Base(segmentName(number, first)) == stem+segmentSuffix
}

func readOptions() *bbolt.Options {
	return &bbolt.Options{ReadOnly: true, Timeout: 5 * time.Second, NoStatistics: true}
}

// openRead maps a segment for reading, after a check of its pages unless this process wrote it.
func (s *segment) openRead() error {
	if s.db != nil {
		return nil
	}
	if !s.trusted {
		if err := checkPages(s.path); err != nil {
			return err
		}
	}
	err := guarded(func() error {
		db, err := bbolt.Open(s.path, 0o600, readOptions())
		if err != nil {
			return openError(err)
		}
		s.db = db
		return nil
	})
	if err == nil && !s.trusted {
		if err = s.checkName(); err != nil {
			_ = s.close()
		}
	}
	if err == nil {
		s.trusted = true
	}
	return err
}

// checkName says that the file is the one that its name says.
func (s *segment) checkName() error {
	return guarded(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			meta := tx.Bucket(bucketMeta)
			if meta == nil || meta.Get(keyFirst) == nil {
				return nil // whoever needs it will say so
			}
			first, err := getSeq(tx, keyFirst)
			if err == nil && first != s.first {
				err = fmt.Errorf("it is the file of records from %d on", first)
			}
			if err != nil {
				return damaged(err)
			}
			return nil
		})
	})
}

// openError tells a bad file from one that can not be opened now.
func openError(err error) error {
	var path *fs.PathError
	var errno syscall.Errno
	if errors.As(err, &path) || errors.As(err, &errno) || errors.Is(err, berrors.ErrTimeout) {
		return err
	}
	return damaged(err)
}

// wasCut says that seal has cut off what the file was given to grow into.
func (s *segment) wasCut() bool {
	_, newer, err := metaPages(s.path)
	return err == nil && fileSize(s.path) == int64(newer.end)*int64(newer.pageSize)
}

func (s *segment) close() error {
	if s.db == nil {
		return nil
	}
	db := s.db
	s.db = nil
	return guarded(db.Close)
}

// view runs fn on the segment's buckets. Errors of fn count as damage. fn may be run again when it failed.
func (s *segment) view(fn func(tx *bbolt.Tx) error) error {
	if s.doubtful {
		_ = s.showGood(nil) // else the reading fails
	}
	err := s.viewNow(fn)
	if isDamage(err) && s.goBack() {
		return s.viewNow(fn)
	}
	return err
}

func (s *segment) viewNow(fn func(tx *bbolt.Tx) error) error {
	if err := s.openRead(); err != nil {
		return err
	}
	return guarded(func() error {
		if err := s.db.View(fn); err != nil {
			if errors.Is(err, ErrNewerFormat) {
				return err
			}
			return damaged(err)
		}
		return nil
	})
}

// checkFormat refuses what a newer program wrote.
func checkFormat(tx *bbolt.Tx) error {
	meta := tx.Bucket(bucketMeta)
	if meta == nil {
		return errors.New("no bucket \"meta\"")
	}
	return checkVersion(meta.Get(keyFormat))
}

func checkVersion(v []byte) error {
	if len(v) != 4 {
		return errors.New("no format version")
	}
	if version := binary.BigEndian.Uint32(v); version > formatVersion {
		return fmt.Errorf("%w: it has format %d, this program reads up to %d; install the newer program again",
			ErrNewerFormat, version, formatVersion)
	}
	return nil
}

// readTotals takes the segment's range from its last block.
func (s *segment) readTotals() error {
	return s.view(func(tx *bbolt.Tx) error {
		if err := checkFormat(tx); err != nil {
			return err
		}
		return s.totals(tx)
	})
}

func (s *segment) totals(tx *bbolt.Tx) error {
	records := tx.Bucket(bucketRecords)
	if records == nil {
		return errors.New("no bucket \"records\"")
	}
	s.last, s.count, s.bytes = s.first-1, 0, 0
	key, v := records.Cursor().Last()
	if key == nil {
		return nil
	}
	b, err := decodeBlock(key, v)
	if err != nil {
		return fmt.Errorf("last block: %w", err)
	}
	s.last, s.count, s.bytes = b.last, b.records, b.bytes
	return nil
}

// clip ends the segment before next: a failed commit may have left records behind that were given out again.
func (s *segment) clip(next uint64) {
	if s.count == 0 || s.last < next {
		return
	}
	over := min(s.last-next+1, s.count)
	s.bytes -= int64(float64(s.bytes) * float64(over) / float64(s.count))
	s.count -= over
	s.last = next - 1
}

// unacked returns how many records of the segment are above acked, and about how many bytes they take.
func (s *segment) unacked(acked uint64) (uint64, int64) {
	if s.count == 0 || acked >= s.last {
		return 0, 0
	}
	if acked < s.first {
		return s.count, s.bytes
	}
	n := min(s.last-acked, s.count)
	return n, int64(float64(s.bytes) * float64(n) / float64(s.count))
}

func (s *segment) sealed() sealedSegment {
	return sealedSegment{Number: s.number, First: s.first, Last: s.last, Count: s.count, Bytes: s.bytes}
}

type pair struct{ key, value []byte }

// content is what a new segment starts with.
type content struct {
	info       info
	acked      uint64
	first      uint64 // record, see segment
	last       uint64
	flushed    uint64 // the state holds what the blocks up to here changed
	segments   []sealedSegment
	state      map[string][]byte
	quarantine []pair
	sequence   uint64 // of the quarantine's ids
	blocks     []pair
}

// writeSegment makes the file of a new segment under its final name, complete and synced. named says that it got this name,
// with an error too: then nobody can tell whether it is there after a power cut.
func writeSegment(disk Disk, path string, c content) (named bool, err error) {
	temp := strings.TrimSuffix(path, segmentSuffix) + newSuffix
	if err := disk.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := disk.BeforeWrite(temp, 0); err != nil {
		return false, err
	}
	var file *os.File
	db, err := bbolt.Open(temp, 0o600, &bbolt.Options{
		Timeout: 5 * time.Second, NoFreelistSync: true, NoStatistics: true, PageSize: pageSize, NoSync: true,
		OpenFile: keepFile(&file),
	})
	if err != nil {
		_ = disk.Remove(temp)
		return false, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		if err := c.write(tx); err != nil {
			return err
		}
		return disk.BeforeWrite(temp, tx.Size())
	})
	if err == nil {
		err = disk.Sync(file)
	}
	if closeErr := db.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = disk.Rename(temp, path)
	}
	if err != nil {
		_ = disk.Remove(temp)
		return false, err
	}
	return true, disk.SyncDir(filepath.Dir(path))
}

// keepFile opens files for bbolt and notes which.
func keepFile(into **os.File) func(string, int, os.FileMode) (*os.File, error) {
	return func(name string, flag int, mode os.FileMode) (*os.File, error) {
		file, err := os.OpenFile(name, flag, mode)
		*into = file
		return file, err
	}
}

func (c content) write(tx *bbolt.Tx) error {
	for _, name := range [][]byte{bucketMeta, bucketInfo, bucketRecords, bucketState, bucketQuarantine} {
		if _, err := tx.CreateBucket(name); err != nil {
			return err
		}
	}
	if err := tx.Bucket(bucketMeta).Put(keyFormat, binary.BigEndian.AppendUint32(nil, formatVersion)); err != nil {
		return err
	}
	if err := putSeq(tx, keyFirst, c.first); err != nil {
		return err
	}
	if err := putSeq(tx, keyAcked, c.acked); err != nil {
		return err
	}
	if err := putSeq(tx, keyFlushed, c.flushed); err != nil {
		return err
	}
	t := &tree{tx: tx}
	if err := putJSON(t, keyInfo, c.info); err != nil {
		return err
	}
	if err := putJSON(t, keySegments, c.segments); err != nil {
		return err
	}
	if err := putState(t, c.state); err != nil {
		return err
	}
	if err := t.append(inQuarantine, c.quarantine); err != nil {
		return err
	}
	if err := tx.Bucket(bucketQuarantine).SetSequence(c.sequence); err != nil {
		return err
	}
	if err := t.append(inRecords, c.blocks); err != nil {
		return err
	}
	return t.prove(c.last)
}

// keptMapped is how much of the file that is written may come to lie in this process's memory: each commit reads pages that the
// ones before wrote, and the system maps their neighbours too.
const keptMapped = 8 << 20

// letGo gives the memory back that reading the file while it is written has taken.
func (s *segment) letGo() {
	if s.size-s.let < keptMapped {
		return
	}
	s.let = s.size
	_ = s.db.View(func(tx *bbolt.Tx) error { // holds the mapping where it is
		letGo(s.db.Info().Data, tx.Size())
		return nil
	})
}

func putSeq(tx *bbolt.Tx, key []byte, seq uint64) error {
	return tx.Bucket(bucketMeta).Put(key, sealed(key, seqKey(seq)))
}

func getSeq(tx *bbolt.Tx, key []byte) (uint64, error) {
	v, err := unsealed(key, tx.Bucket(bucketMeta).Get(key))
	if err != nil {
		return 0, fmt.Errorf("%q: %w", key, err)
	}
	return seqOf(v), nil
}

func putJSON(t *tree, key []byte, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return t.put(inInfo, key, sealed(key, text))
}

func getJSON(b *bbolt.Bucket, key []byte, into any) error {
	text, err := unsealed(key, b.Get(key))
	if err != nil {
		return fmt.Errorf("%q: %w", key, err)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("%q: %w", key, err)
	}
	return nil
}

// openWrite opens a segment that writeSegment has just made. The file may grow to its final size without a new mapping, so
// readers never hold up the writer.
func (s *segment) openWrite(room int64) error {
	db, err := bbolt.Open(s.path, 0o600, &bbolt.Options{
		Timeout: 5 * time.Second, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoStatistics: true,
		InitialMmapSize: int(room),
		OpenFile:        keepFile(&s.file),
	})
	if err != nil {
		return err
	}
	db.AllocSize = max(db.AllocSize, int(room)) // one truncate instead of one for every 16 MiB
	db.NoSync = true                            // put syncs, once; see tree
	s.db, s.trusted = db, true
	return db.View(func(tx *bbolt.Tx) error {
		s.base, s.size = tx.Size(), tx.Size()
		s.commit = uint64(tx.ID())
		s.sum, s.kept, err = checkProof(tx)
		return err
	})
}
