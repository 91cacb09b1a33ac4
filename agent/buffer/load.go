package buffer

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"go.etcd.io/bbolt"
)

// mergeBelow is how many bytes of blocks the newest segment may hold to be taken over into the new one at a start, so that
// many short runs do not leave many small files.
const mergeBelow = 256 << 10

// lostNumbers is more than the records that any segment can hold. So many sequence numbers are skipped when nobody can say
// how many a lost segment used.
const lostNumbers = 1 << 32

// load finds out what the folder holds and starts a new segment in it.
func (b *Buffer) load() error {
	segments, setAside, err := b.list()
	if err != nil {
		return err
	}
	newest, known, err := b.loadNewest(segments)
	if err != nil {
		return err
	}
	b.reportForgotten(newest, setAside)
	if newest != nil {
		if err := b.loadOlder(segments, newest, known); err != nil {
			return err
		}
	}
	if b.info.Generation == "" {
		b.info.Generation = randomID()
	}
	return b.begin(newest, nextNumber(segments, setAside))
}

func nextNumber(lists ...[]*segment) uint64 {
	next := uint64(1)
	for _, list := range lists {
		for _, s := range list {
			next = max(next, s.number+1)
		}
	}
	return next
}

// list returns the segments in the folder and those that were set aside, oldest first, and clears away what a crash left
// half made.
func (b *Buffer) list() (segments, setAside []*segment, err error) {
	files, err := os.ReadDir(b.cfg.Dir)
	if err != nil {
		return nil, nil, err
	}
	for _, file := range files {
		path := filepath.Join(b.cfg.Dir, file.Name())
		if strings.HasSuffix(file.Name(), newSuffix) {
			if err := b.cfg.Disk.Remove(path); err != nil {
				return nil, nil, err
			}
		}
		if number, first, ok := parseName(file.Name(), segmentSuffix); ok {
			segments = append(segments, &segment{number: number, first: first, last: first - 1, path: path})
		}
		if number, first, ok := parseName(file.Name(), damagedSuffix); ok {
			setAside = append(setAside, &segment{number: number, first: first, last: first - 1, path: path})
		}
	}
	slices.SortFunc(segments, byNumber)
	slices.SortFunc(setAside, byNumber)
	return segments, setAside, nil
}

func byNumber(x, y *segment) int { return cmp.Compare(x.number, y.number) }

func fileSize(path string) int64 {
	stat, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return stat.Size()
}

// loadNewest reads state and counts from the newest segment that is whole, and sets aside those that are newer.
func (b *Buffer) loadNewest(segments []*segment) (*segment, []sealedSegment, error) {
	for i := len(segments) - 1; i >= 0; i-- {
		s := segments[i]
		known, err := b.loadNewestCommit(s)
		if err == nil {
			b.afterLoss(segments[i+1:])
			return s, known, nil
		}
		if !isDamage(err) {
			return nil, nil, fmt.Errorf("read segment %q: %w", filepath.Base(s.path), err)
		}
		b.forget()
		s.removed = true
		b.setAsideFile(s, err)
	}
	b.afterLoss(segments)
	return nil, nil, nil
}

// reportForgotten finds segments that were set aside by a run that ended before it could write that down.
func (b *Buffer) reportForgotten(newest *segment, setAside []*segment) {
	var lost []*segment
	for _, s := range setAside {
		name := filepath.Base(s.path)
		if slices.ContainsFunc(b.info.Damage, func(d Damage) bool { return d.Segment == s.number }) {
			continue
		}
		b.report(Damage{Segment: s.number, File: name, First: s.first, Last: s.last, Reason: "set aside in an earlier run"})
		if newest == nil || s.number > newest.number {
			lost = append(lost, s)
		}
	}
	b.afterLoss(lost)
}

func (b *Buffer) forget() {
	b.info = info{Damage: b.info.Damage}
	b.acked, b.state, b.quarantine = 0, map[string][]byte{}, quarantineIndex{}
}

// afterLoss is called with the segments that were newer than the one that the state now comes from. Their sequence numbers
// are not given out again, and a new generation says that time went back.
func (b *Buffer) afterLoss(lost []*segment) {
	if len(lost) == 0 {
		return
	}
	b.info.Generation = randomID()
	for _, s := range lost {
		b.info.Last = max(b.info.Last, s.first+lostNumbers)
	}
	b.infoVersion++
}

// loadNewestCommit reads the state of a segment. A last commit that a power cut left half on the disk is taken back.
func (b *Buffer) loadNewestCommit(s *segment) ([]sealedSegment, error) {
	known, err := b.loadState(s)
	if !isDamage(err) {
		return known, err
	}
	_ = s.close()
	wasClosed := s.wasClosed()
	undo, rewindErr := rewind(b.cfg.Disk, s.path)
	if rewindErr != nil {
		return nil, err
	}
	b.forget()
	s.trusted = false
	if known, again := b.loadState(s); again == nil {
		b.afterRewind(s, wasClosed, err)
		return known, nil
	}
	_ = s.close()
	undo()
	return nil, err
}

// afterRewind tells the harmless case, a power cut within the last commit, whose caller never got its answer, from a page
// that went bad later: then something that was promised is gone.
func (b *Buffer) afterRewind(s *segment, wasClosed bool, cause error) {
	b.cfg.Logger.Warn("last commit was not whole, the one before counts", "segment", s.path, "error", cause)
	if !wasClosed {
		return
	}
	b.report(Damage{
		Segment: s.number, File: filepath.Base(s.path), First: b.info.Last + 1, Last: b.info.Last,
		Reason: "its last commit is lost: " + cause.Error(),
	})
	b.info.Generation = randomID()
	b.info.Last += lostNumbers
}

func (b *Buffer) loadState(s *segment) (known []sealedSegment, err error) {
	var acked uint64
	var stored info
	err = s.view(func(tx *bbolt.Tx) error {
		if err := checkFormat(tx); err != nil {
			return err
		}
		if _, _, err := checkProof(tx); err != nil {
			return err
		}
		if err := getJSON(tx.Bucket(bucketInfo), keyInfo, &stored); err != nil {
			return err
		}
		if err := getJSON(tx.Bucket(bucketInfo), keySegments, &known); err != nil {
			return err
		}
		if acked, err = getSeq(tx, keyAcked); err != nil {
			return err
		}
		if err := b.loadKeys(tx); err != nil {
			return err
		}
		if err := b.quarantine.load(tx.Bucket(bucketQuarantine)); err != nil {
			return err
		}
		return s.totals(tx)
	})
	if err != nil {
		return nil, err
	}
	stored.Damage = append(stored.Damage, b.info.Damage...)
	b.info = stored
	b.info.Last = max(b.info.Last, s.last, s.first-1)
	b.acked, b.ackedDirty = acked, false
	return known, nil
}

// loadKeys reads the state: its own pages, then what later blocks changed.
func (b *Buffer) loadKeys(tx *bbolt.Tx) error {
	err := tx.Bucket(bucketState).ForEach(func(key, v []byte) error {
		value, err := unsealed(key, v)
		if err != nil {
			return fmt.Errorf("state %.40q: %w", key, err)
		}
		b.state[string(key)] = value
		return nil
	})
	if err != nil {
		return err
	}
	flushed, err := getSeq(tx, keyFlushed)
	if err != nil {
		return err
	}
	c := tx.Bucket(bucketRecords).Cursor()
	for key, v := c.Seek(seqKey(flushed + 1)); key != nil; key, v = c.Next() {
		head, err := decodeBlock(key, v)
		if err == nil {
			err = applyDelta(b.state, head.delta)
		}
		if err != nil {
			return fmt.Errorf("block %x: %w", key, err)
		}
	}
	return nil
}

// loadOlder lines up the newest segment and those before it.
func (b *Buffer) loadOlder(segments []*segment, newest *segment, known []sealedSegment) error {
	totals := map[uint64]sealedSegment{}
	for _, k := range known {
		totals[k.Number] = k
	}
	for i, s := range segments {
		if s.removed {
			continue
		}
		if s.number == b.info.Replaces {
			if err := b.cfg.Disk.Remove(s.path); err != nil {
				return err
			}
			s.removed = true
			continue
		}
		if err := b.loadTotals(s, newest, totals); err != nil {
			return err
		}
		if s.removed {
			continue
		}
		if i+1 < len(segments) {
			s.clip(segments[i+1].first)
		}
		b.segments = append(b.segments, s)
	}
	b.info.Replaces = 0
	b.reportMissing(known, segments)
	if len(b.segments) > 0 {
		b.acked = max(b.acked, b.segments[0].first-1)
	}
	return nil
}

func (b *Buffer) loadTotals(s, newest *segment, totals map[uint64]sealedSegment) error {
	if s == newest {
		return nil
	}
	if k, ok := totals[s.number]; ok && k.First == s.first {
		s.last, s.count, s.bytes = k.Last, k.Count, k.Bytes
		return nil
	}
	err := s.readTotals()
	if err == nil {
		b.keepOpen(s)
		return nil
	}
	if !isDamage(err) {
		return fmt.Errorf("read segment %q: %w", filepath.Base(s.path), err)
	}
	s.removed = true
	b.setAsideFile(s, err)
	return nil
}

// reportMissing finds segments that somebody took out of the middle. At the old end they may have been acknowledged.
func (b *Buffer) reportMissing(known []sealedSegment, found []*segment) {
	if len(found) == 0 {
		return
	}
	there := map[uint64]bool{}
	for _, s := range found {
		there[s.number] = true
	}
	for _, d := range b.info.Damage {
		there[d.Segment] = true
	}
	for _, k := range known {
		if k.Number > found[0].number && !there[k.Number] && k.Last > b.acked && k.Count > 0 {
			b.report(Damage{Segment: k.Number, First: k.First, Last: k.Last, Records: k.Count, Reason: "the file is missing"})
		}
	}
}

// begin starts the segment that this process writes. A small newest segment is taken over into it.
func (b *Buffer) begin(newest *segment, number uint64) error {
	s := &segment{number: number, first: b.info.Last + 1}
	c := content{info: b.info, acked: b.acked, state: b.state, flushed: b.info.Last}
	merged := false
	if newest != nil {
		c.quarantine, c.sequence = b.quarantine.carry(newest), b.quarantine.sequence
		c.blocks, merged = s.takeOver(newest, b.acked)
		b.keepOpen(newest)
	}
	if merged {
		c.info.Replaces = newest.number
		b.segments = slices.DeleteFunc(b.segments, func(old *segment) bool { return old == newest })
	}
	for _, old := range b.segments {
		c.segments = append(c.segments, old.sealed())
	}
	if len(c.blocks) == 0 {
		s.last = s.first - 1
	}
	s.path = b.segmentPath(number, s.first)
	version := b.infoVersion
	if err := b.start(s, c); err != nil {
		return fmt.Errorf("start a new segment: %w", err)
	}
	b.infoStored = version
	b.quarantine.keep(c.quarantine)
	b.active = s
	b.segments = append(b.segments, s)
	if merged {
		b.remove(newest)
	}
	b.sweep()
	return nil
}

// takeOver reads the pending blocks of a small old segment and counts them as this one's. It returns false when the old
// one is large, or not readable to its end.
func (s *segment) takeOver(old *segment, acked uint64) (blocks []pair, ok bool) {
	if old.bytes > mergeBelow {
		return nil, false
	}
	taken := *s
	err := old.view(func(tx *bbolt.Tx) error {
		return tx.Bucket(bucketRecords).ForEach(func(key, v []byte) error {
			b, err := decodeBlock(key, v)
			if err != nil {
				return err
			}
			if b.last <= acked || b.last > old.last {
				return nil // not needed, or left behind by a failed commit
			}
			if len(blocks) == 0 {
				taken.first = b.first
			}
			v = bytes.Clone(v)
			taken.count, taken.bytes, taken.last = taken.count+uint64(b.count), taken.bytes+int64(len(v)), b.last
			retotal(key, v, taken.count, taken.bytes)
			blocks = append(blocks, pair{bytes.Clone(key), v})
			return nil
		})
	})
	if err != nil {
		return nil, false
	}
	*s = taken
	return blocks, true
}

// remove deletes the file of a segment that is no longer listed.
func (b *Buffer) remove(s *segment) {
	b.readMu.Lock()
	s.removed = true
	_ = s.close()
	b.handles = slices.DeleteFunc(b.handles, func(h *segment) bool { return h == s })
	b.readMu.Unlock()
	if err := b.cfg.Disk.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.cfg.Logger.Warn("delete segment", "segment", s.path, "error", err)
	}
}

// sweep deletes the segments, but for the newest, whose records are all acknowledged.
func (b *Buffer) sweep() {
	b.mu.Lock()
	var gone, left []*segment
	for i, s := range b.segments {
		if i < len(b.segments)-1 && (s.count == 0 || s.last <= b.acked) {
			gone = append(gone, s)
		} else {
			left = append(left, s)
		}
	}
	if len(gone) > 0 {
		b.segments = left
	}
	b.mu.Unlock()
	for _, s := range gone {
		b.remove(s)
	}
	if len(gone) == 0 {
		return
	}
	if err := b.cfg.Disk.SyncDir(b.cfg.Dir); err != nil {
		b.cfg.Logger.Warn("sync folder after deleting segments", "buffer", b.cfg.Dir, "error", err)
	}
}
