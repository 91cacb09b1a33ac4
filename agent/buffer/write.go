package buffer

import (
	"fmt"
	"maps"
	"slices"

	"go.etcd.io/bbolt"
)

// write makes a group durable and then visible, or nothing of it.
func (b *Buffer) write(g *group) error {
	if b.mustRoll || b.active.size >= b.active.rollAt(b.cfg.SegmentSize) || b.wouldGap(g) {
		if err := b.roll(); err != nil {
			return fmt.Errorf("start a new segment: %w", err)
		}
	}
	p := b.plan(g)
	err := guarded(func() error { return b.active.put(p) })
	if err != nil {
		b.mustRoll = true
		b.takeBack(b.active)
		return err
	}
	b.publish(g, p)
	b.active.letGo()
	return nil
}

// wouldGap says that numbers were given out without being stored since the last record of the segment. Within a segment
// there are no gaps, so that a missing page is noticed.
func (b *Buffer) wouldGap(g *group) bool {
	return len(g.bodies) > 0 && !g.shed && g.first != b.active.last+1
}

// plan is what a commit writes besides the group, and what the memory becomes after it.
type plan struct {
	blocks     []pair
	state      map[string][]byte // to be written to the state's own pages
	flushed    bool              // with these, all state is there
	delta      []byte            // state that goes into the first block instead
	count      uint64
	bytes      int64
	last       uint64 // sequence number given out
	lastStored uint64 // record of the segment
	info       *info
	version    uint64 // of the info
	acked      *uint64
	quarantine quarantinePlan
}

func (b *Buffer) plan(g *group) *plan {
	b.mu.Lock()
	defer b.mu.Unlock()
	p := &plan{last: b.info.Last + uint64(len(g.bodies)), lastStored: b.active.last, count: b.active.count, bytes: b.active.bytes}
	p.quarantine = b.quarantine.plan(g)
	next := b.info
	p.version = b.infoVersion
	dirty := b.infoVersion != b.infoStored || p.quarantine.dropped > 0 || g.generation != ""
	if g.generation != "" {
		next.Generation = g.generation
	}
	next.QuarantineDropped += p.quarantine.dropped
	if g.shed && len(g.bodies) > 0 {
		next.Dropped += uint64(len(g.bodies))
		dirty = true
		b.planState(&group{staged: staged{state: g.state}}, p)
	} else {
		b.planState(g, p)
		b.packRecords(g, p)
	}
	next.Last = p.last
	if dirty {
		p.info = &next
	}
	if b.ackedDirty {
		acked := b.acked
		p.acked = &acked
	}
	return p
}

// planState decides where changed state goes. The pages of the state cost more than the change, so a small change goes
// into a block of the commit's records, which has to be written anyway. Now and then, and when there are no records, all
// that was changed since goes to the pages.
func (b *Buffer) planState(g *group, p *plan) {
	if len(g.state) == 0 {
		return
	}
	if len(g.bodies) > 0 {
		delta := appendDelta(nil, g.state)
		if len(delta) <= maxDelta && b.unflushedBytes+len(delta) <= maxUnflushed {
			p.delta = delta
			return
		}
	}
	p.flushed = true
	p.state = make(map[string][]byte, len(b.unflushed)+len(g.state))
	for key := range b.unflushed {
		p.state[key] = b.state[key]
	}
	maps.Copy(p.state, g.state)
}

// packRecords packs the group's records into blocks, all in one piece of memory that serves every commit.
func (b *Buffer) packRecords(g *group, p *plan) {
	if len(g.bodies) == 0 {
		return
	}
	left := blockRoom(g.bodies) + len(p.delta)
	if cap(b.pack) < left {
		b.pack = make([]byte, 0, left)
	}
	mem, first, delta := b.pack[:0], g.first, p.delta
	p.lastStored = p.last
	for rest := g.bodies; len(rest) > 0; {
		start, n := len(mem), 0
		mem, n = appendBlock(mem, block{first: first, storedAt: g.at, records: p.count, bytes: p.bytes, delta: delta}, rest, blockTarget(left))
		delta, left = nil, left-(len(mem)-start)
		first, rest = first+uint64(n), rest[n:]
		value := mem[start:len(mem):len(mem)]
		p.blocks = append(p.blocks, pair{seqKey(first - 1), value})
		p.count, p.bytes = p.count+uint64(n), p.bytes+int64(len(value))
	}
	if cap(b.pack) > 2*maxGroupBytes {
		b.pack = nil // one huge record shall not stay for ever
	}
}

// put is the bbolt transaction, made durable by one sync.
func (s *segment) put(p *plan) (err error) {
	tx, err := s.db.Begin(true)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	s.size = tx.Size()
	t, number := &tree{tx: tx, sum: s.sum, kept: s.kept}, uint64(tx.ID())
	if err := t.apply(p); err != nil {
		return err
	}
	if err := s.disk.BeforeWrite(s.path, tx.Size()); err != nil {
		return err
	}
	if err := tx.Commit(); err != nil {
		return err
	}
	if err := s.disk.Sync(s.file); err != nil {
		return err
	}
	s.sum, s.kept, s.commit = t.sum, t.kept, number
	return nil
}

func (t *tree) apply(p *plan) error {
	if err := t.append(inRecords, p.blocks); err != nil {
		return err
	}
	if err := putState(t, p.state); err != nil {
		return err
	}
	if p.flushed {
		if err := putSeq(t.tx, keyFlushed, p.last); err != nil {
			return err
		}
	}
	if err := p.quarantine.put(t); err != nil {
		return err
	}
	if p.acked != nil {
		if err := putSeq(t.tx, keyAcked, *p.acked); err != nil {
			return err
		}
	}
	if p.info != nil {
		if err := putJSON(t, keyInfo, *p.info); err != nil {
			return err
		}
	}
	return t.prove(p.lastStored)
}

// putState writes in the order of the keys: bbolt splits a page only at the commit, and until then each key that comes before
// others moves all of them.
func putState(t *tree, state map[string][]byte) error {
	for _, key := range slices.Sorted(maps.Keys(state)) {
		var err error
		if v := state[key]; v == nil {
			err = t.delete(inState, []byte(key))
		} else {
			err = t.put(inState, []byte(key), sealed([]byte(key), v))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// publish shows readers what is now on the disk.
func (b *Buffer) publish(g *group, p *plan) {
	if p.flushed {
		clear(b.unflushed)
		b.unflushedBytes = 0
	}
	if p.delta != nil {
		for key := range g.state {
			b.unflushed[key] = true
		}
		b.unflushedBytes += len(p.delta)
	}
	if len(g.state) > 0 {
		b.stateMu.Lock()
		for key, v := range g.state {
			if v == nil {
				delete(b.state, key)
			} else {
				b.state[key] = v
			}
		}
		b.stateMu.Unlock()
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.quarantine.apply(p.quarantine)
	b.freeBytes += p.bytes - b.active.bytes
	b.active.count, b.active.bytes = p.count, p.bytes
	b.info.Last = p.last
	if p.info != nil {
		b.infoStored = p.version // damage found while the commit ran has a higher one
		b.info.Generation, b.info.Dropped, b.info.QuarantineDropped = p.info.Generation, p.info.Dropped, p.info.QuarantineDropped
	}
	if p.acked != nil {
		b.ackedDirty, b.ackedStored = b.acked != *p.acked, *p.acked
	}
	b.sample()
	if len(p.blocks) == 0 {
		return
	}
	b.active.last = p.last
	if !b.closed {
		close(b.changed)
		b.changed = make(chan struct{})
	}
}

// rollAt is where the segment is closed. A new segment may start large (state, quarantine): it still gets room of its own.
func (s *segment) rollAt(size int64) int64 { return max(size-size/32, s.base+size/2) }

// roll starts the next segment: state first, in a file that is complete before anybody sees it.
func (b *Buffer) roll() error {
	old := b.active
	b.mu.Lock()
	c := content{info: b.info, acked: b.acked, state: b.state, flushed: b.info.Last}
	for _, s := range b.segments {
		c.segments = append(c.segments, s.sealed())
	}
	first, version := b.info.Last+1, b.infoVersion
	b.mu.Unlock()
	b.readMu.Lock()
	c.quarantine, c.sequence = b.quarantine.carry(old), b.quarantine.sequence
	b.readMu.Unlock()
	next := &segment{number: old.number + 1, first: first, last: first - 1, path: b.segmentPath(old.number+1, first)}
	c.first, c.last = next.first, next.last
	if err := b.start(next, c); err != nil {
		return err
	}
	b.mu.Lock()
	b.segments = append(b.segments, next)
	b.quarantine.keep(c.quarantine)
	b.ackedDirty, b.ackedStored = b.ackedDirty && b.acked != c.acked, c.acked
	b.infoStored = version
	b.mu.Unlock()
	b.readMu.Lock()
	b.active, b.mustRoll = next, false
	clear(b.unflushed)
	b.unflushedBytes = 0
	err := old.seal()
	b.readMu.Unlock()
	if noteErr := noteNewest(b.lock, next, noteOpen); err == nil {
		err = noteErr
	}
	if err != nil {
		b.cfg.Logger.Warn("close full segment", "segment", old.path, "error", err)
	}
	b.sweep()
	return nil
}

// start makes the file and opens it.
func (b *Buffer) start(s *segment, c content) error {
	named, err := writeSegment(b.cfg.Disk, s.path, c)
	if err != nil {
		// A file that may come back under the highest number must not hide commits that went to the one before it: the next
		// commit makes it anew.
		b.mustRoll = b.mustRoll || named
		return err
	}
	s.disk = b.cfg.Disk
	if err := s.openWrite(b.cfg.SegmentSize); err != nil {
		b.mustRoll = true
		_ = s.close()
		_ = b.cfg.Disk.Remove(s.path)
		return err
	}
	return nil
}

// seal closes the segment that was written and cuts off what was kept for it to grow into.
func (s *segment) seal() error {
	if s.db == nil {
		return nil
	}
	size := int64(0)
	err := guarded(func() error {
		return s.db.View(func(tx *bbolt.Tx) error {
			size = tx.Size()
			return nil
		})
	})
	if closeErr := s.close(); err == nil {
		err = closeErr
	}
	if err == nil && size > 0 {
		_ = s.disk.Truncate(s.path, size)
	}
	return err
}
