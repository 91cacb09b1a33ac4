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
	if segments, setAside, err = b.undoForgotten(segments, setAside); err != nil {
		return err
	}
	newest, known, err := b.loadNewest(segments)
	if err != nil {
		return err
	}
	b.takeNotedAck()
	b.reportNewestMissing(segments)
	segments = b.adopt(segments, setAside, known)
	if err := b.loadOlder(segments, newest, known); err != nil {
		return err
	}
	if b.info.Generation == "" {
		b.info.Generation = randomID()
	}
	if err := b.begin(newest, max(nextNumber(segments, setAside), b.missing+1)); err != nil {
		return err
	}
	b.rescueNext()
	return nil
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
			segments = append(segments, &segment{number: number, first: first, last: first - 1, path: path, disk: b.cfg.Disk})
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

// loadNewest reads state and counts from the newest segment that is whole, or from one that was set aside whose state is,
// and sets aside those that are newer.
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
		found, err := b.loadDamaged(s, segments[i+1:], err)
		if err != nil {
			return nil, nil, err
		}
		if !found.Found {
			continue
		}
		lost := segments[i:]
		if found.EndKnown {
			lost = segments[i+1:]
		}
		b.afterLoss(lost)
		if !found.Newest {
			b.newGeneration()
		}
		return s, found.Known, nil
	}
	b.afterLoss(segments)
	return nil, nil, nil
}

// loadDamaged sets a segment aside and takes up the newest state that it holds as a whole, if any.
func (b *Buffer) loadDamaged(s *segment, newer []*segment, cause error) (foundState, error) {
	b.forget()
	path := s.path
	b.setAsideFile(s, cause)
	end := uint64(0)
	if len(newer) > 0 {
		end = newer[0].first
	}
	found, err := b.salvageState(s, end)
	if err != nil {
		return found, errors.Join(err, b.cfg.Disk.Rename(s.path, path))
	}
	if !found.Found || !found.Newest {
		why := found.Why
		b.amend(s, func(d *Damage) { d.Reason += "; its newest state is lost: " + why })
	}
	if !found.Found {
		return found, nil
	}
	found.Info.Damage = append(found.Info.Damage, b.info.Damage...)
	b.info, b.acked, b.ackedDirty, b.state = found.Info, found.Acked, false, found.State
	b.info.Last = max(b.info.Last, found.Last, s.first-1)
	if found.EndKnown && found.Last >= s.first {
		s.last, s.count = found.Last, found.Last-s.first+1
	}
	for _, q := range found.Quarantine {
		b.rescuedQuarantine = append(b.rescuedQuarantine, pair{seqKey(q.ID), q.Value})
		b.quarantine.entries = append(b.quarantine.entries, quarantineEntry{q.ID, int64(len(q.Value))})
		b.quarantine.bytes += int64(len(q.Value))
	}
	b.quarantine.sequence = found.Sequence
	b.infoVersion++
	return found, nil
}

// undoForgotten gives segments their names back that were set aside by a run which ended before it could write that down,
// so that this one deals with them in its turn. Such a run began no segment after them.
func (b *Buffer) undoForgotten(segments, setAside []*segment) (all, known []*segment, err error) {
	newest := uint64(0)
	if len(segments) > 0 {
		newest = segments[len(segments)-1].number
	}
	for _, s := range setAside {
		if s.number <= newest {
			known = append(known, s)
			continue
		}
		path := strings.TrimSuffix(s.path, damagedSuffix) + segmentSuffix
		if err := b.cfg.Disk.Rename(s.path, path); err != nil {
			return nil, nil, err
		}
		s.path = path
		segments = append(segments, s)
	}
	slices.SortFunc(segments, byNumber)
	return segments, known, nil
}

// adopt puts segments that were set aside in an earlier run back into the order, unless the hub holds what was left of them.
func (b *Buffer) adopt(segments, setAside []*segment, known []sealedSegment) []*segment {
	segments = slices.Clone(segments)
	there := map[string]bool{}
	for _, s := range setAside {
		s.rescue = &rescue{path: s.path}
		name := filepath.Base(s.path)
		there[name] = true
		i := slices.IndexFunc(b.info.Damage, func(d Damage) bool { return d.File == name })
		if i < 0 {
			b.report(Damage{Segment: s.number, File: name, First: s.first, Last: s.last, Salvage: SalvageRunning, Reason: "set aside in an earlier run"})
		} else if d := b.info.Damage[i]; d.Salvage == SalvageDrained {
			continue
		} else if d.Salvage == SalvageRunning && d.Last >= s.first {
			s.last, s.count = d.Last, d.Last-s.first+1
		}
		segments = append(segments, s)
	}
	slices.SortFunc(segments, byNumber)
	for _, s := range segments {
		there[filepath.Base(s.path)] = true
	}
	for i := range b.info.Damage {
		if d := &b.info.Damage[i]; d.File != "" && !there[d.File] && (d.Salvage == SalvageRunning || d.Salvage == SalvageDone) {
			b.damagedFileIsGone(d, known)
		}
	}
	return segments
}

// damagedFileIsGone reports what was still to be read from a file that somebody took away.
func (b *Buffer) damagedFileIsGone(d *Damage, known []sealedSegment) {
	first, last := d.First, d.Last
	for _, k := range known {
		if k.Number == d.Segment && k.Count > 0 {
			first, last = k.First, k.Last
		}
	}
	if first = max(first, b.acked+1); first <= last {
		d.lose(first, last)
	}
	d.total()
	d.Reason += "; the file that was set aside is gone"
	d.Salvage = SalvageDrained
	b.infoVersion++
}

// reportNewestMissing finds out that the last segment was taken away: the lock file names it. State and sequence go back in
// time with it.
func (b *Buffer) reportNewestMissing(segments []*segment) {
	number, first, _ := readNewest(b.lock)
	if number == 0 || len(segments) > 0 && segments[len(segments)-1].number >= number {
		return
	}
	from := first
	if len(segments) == 0 {
		from = 1 // nobody knows which of the others were acknowledged
	}
	b.report(Damage{Segment: number, First: from, Last: from - 1, OpenEnd: true, Reason: "the file of the newest segment is missing"})
	b.afterLoss([]*segment{{number: number, first: first}})
	b.missing = number
}

// The lock file names the newest segment, and says whether it was closed in order.
const (
	noteOpen   = " open  \n"
	noteClosed = " closed\n"
)

// noteNewest writes into the lock file which segment is the newest. That it is not synced does no harm: an older note only
// says less.
func noteNewest(lock *os.File, s *segment, note string) error {
	_, err := lock.WriteAt([]byte(filepath.Base(s.path)+note), 0)
	return err
}

// readNewest returns the numbers of the newest segment, zero when they are not known.
func readNewest(lock *os.File) (number, first uint64, closed bool) {
	note := make([]byte, len(segmentName(0, 0))+len(noteClosed))
	if _, err := lock.ReadAt(note, 0); err != nil {
		return 0, 0, false
	}
	name, closed := strings.CutSuffix(string(note), noteClosed)
	number, first, _ = parseName(strings.TrimSuffix(name, noteOpen), segmentSuffix)
	return number, first, closed
}

// ackNote is where in the lock file stands up to where the hub held all records when the disk was full, and of which generation.
const ackNote = 256

// noteAck writes down what was acknowledged, durably, where that needs no room on the disk.
func (b *Buffer) noteAck(seq uint64) error {
	note := sealed([]byte(b.Generation()), seqKey(seq))
	if _, err := b.lock.WriteAt(note, ackNote); err != nil {
		return err
	}
	return b.cfg.Disk.Sync(b.lock)
}

// takeNotedAck takes up such a note, unless it is of another generation.
func (b *Buffer) takeNotedAck() {
	note := make([]byte, len(sealed(nil, seqKey(0))))
	if _, err := b.lock.ReadAt(note, ackNote); err != nil {
		return
	}
	v, err := unsealed([]byte(b.info.Generation), note)
	if seq := min(seqOf(v), b.info.Last); err == nil && seq > b.acked {
		b.acked, b.ackedDirty = seq, true
	}
}

func (b *Buffer) forget() {
	b.info = info{Damage: b.info.Damage}
	b.acked, b.state, b.quarantine, b.rescuedQuarantine = 0, map[string][]byte{}, quarantineIndex{}, nil
}

// afterLoss is called with the segments that were newer than the one that the state now comes from. Their sequence numbers
// are not given out again, and a new generation says that time went back.
func (b *Buffer) afterLoss(lost []*segment) {
	if len(lost) == 0 {
		return
	}
	b.newGeneration()
	for _, s := range lost {
		b.info.Last = max(b.info.Last, s.first+lostNumbers)
	}
	b.infoVersion++
}

// loadNewestCommit reads the state of a segment. A last commit that a power cut left half on the disk is taken back: its
// caller never got an answer. A segment that was closed in order had no such commit, so that there it is damage.
func (b *Buffer) loadNewestCommit(s *segment) ([]sealedSegment, error) {
	known, err := b.loadState(s)
	if !isDamage(err) {
		return known, err
	}
	_ = s.close()
	if number, _, closed := readNewest(b.lock); closed && number == s.number && s.wasCut() {
		return nil, err
	}
	undo, rewindErr := rewind(b.cfg.Disk, s.path)
	if rewindErr != nil && !isDamage(openError(rewindErr)) {
		return nil, rewindErr // the disk fails: nothing is known of the content
	}
	if rewindErr != nil {
		return nil, err
	}
	b.forget()
	s.trusted = false
	if known, again := b.loadState(s); again == nil {
		b.cfg.Logger.Warn("last commit was not whole, the one before counts", "segment", s.path, "error", err)
		return known, nil
	}
	_ = s.close()
	undo()
	return nil, err
}

// newGeneration says that the state went back in time.
func (b *Buffer) newGeneration() {
	b.wentBack = true
	b.info.Generation = randomID()
	b.infoVersion++
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
		if s.rescue != nil {
			b.segments = append(b.segments, s)
			continue
		}
		if s.number == b.info.Replaces {
			if err := b.cfg.Disk.Remove(s.path); err != nil {
				return err
			}
			s.removed = true
			continue
		}
		if s != newest && i+1 < len(segments) && segments[i+1].first <= max(s.first, b.acked+1) {
			b.segments = append(b.segments, s) // left over, because it could not be removed: whatever it holds is not needed
			continue
		}
		if err := b.loadTotals(s, newest, totals); err != nil {
			return err
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
		s.last, s.count, s.bytes, s.earlier = k.Last, k.Count, k.Bytes, true
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
	b.setAsideFile(s, err)
	return nil
}

// reportMissing finds segments that somebody took out. Where the state went back in time, those at the old end may have been
// acknowledged since.
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
		if (k.Number > found[0].number || !b.wentBack) && !there[k.Number] && k.Last > b.acked && k.Count > 0 {
			d := Damage{Segment: k.Number, Reason: "the file is missing"}
			d.lose(max(k.First, b.acked+1), k.Last)
			d.total()
			b.report(d)
		}
	}
}

// begin starts the segment that this process writes. A small newest segment is taken over into it.
func (b *Buffer) begin(newest *segment, number uint64) error {
	s := &segment{number: number, first: b.info.Last + 1}
	c := content{info: b.info, acked: b.acked, state: b.state, flushed: b.info.Last}
	merged := false
	c.quarantine, c.sequence = b.rescuedQuarantine, b.quarantine.sequence
	if newest != nil && newest.rescue == nil {
		c.quarantine, c.sequence = b.quarantine.carry(newest), b.quarantine.sequence
		if b.segments[len(b.segments)-1] == newest { // nothing that is to be salvaged lies between
			c.blocks, merged = s.takeOver(newest, b.acked)
		}
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
	c.first, c.last = s.first, s.last
	s.path = b.segmentPath(number, s.first)
	version := b.infoVersion
	if err := b.start(s, c); err != nil {
		return fmt.Errorf("start a new segment: %w", err)
	}
	b.infoStored, b.ackedStored = version, c.acked
	b.quarantine.keep(c.quarantine)
	b.active = s
	b.segments = append(b.segments, s)
	if err := noteNewest(b.lock, s, noteOpen); err != nil {
		return err
	}
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
	if s.rescue != nil {
		b.mu.Lock()
		b.amend(s, func(d *Damage) { d.Salvage = SalvageDrained })
		b.mu.Unlock()
		return // a damaged file stays
	}
	if err := b.cfg.Disk.Remove(s.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		b.cfg.Logger.Warn("delete segment", "segment", s.path, "error", err)
	}
}

// sweep deletes the segments, but for the newest, whose records are all acknowledged. The acknowledgement must be on the
// disk first: a file that is missing is then one that nobody of us took.
func (b *Buffer) sweep() {
	b.mu.Lock()
	stored := b.ackedStored
	b.mu.Unlock()
	b.sweepUpTo(stored)
}

// sweepUpTo deletes the segments, but for the newest, with records up to seq only.
func (b *Buffer) sweepUpTo(seq uint64) {
	b.mu.Lock()
	var gone, left []*segment
	for i, s := range b.segments {
		empty := s.count == 0 || s.last <= seq
		if s.rescue != nil && !s.rescue.done {
			empty = b.endOf(i) <= seq+1
		}
		if i < len(b.segments)-1 && empty {
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
