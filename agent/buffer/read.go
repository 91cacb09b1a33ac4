package buffer

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// maxHandles is how many full segments are kept mapped for reading.
const maxHandles = 4

// Entry is one stored record.
type Entry struct {
	Seq      uint64
	StoredAt time.Time // UTC; the time of the commit
	Body     []byte
}

// Read returns stored records with sequence numbers above after, in order: at most maxRecords, and no more than maxBytes of
// bodies unless the first one alone is larger. What is acknowledged is not returned; numbers that were dropped or lost are
// skipped. It returns nothing when there is nothing yet. A damaged segment met on the way is set aside; until it is known
// what is left of it nothing behind it is returned.
func (b *Buffer) Read(after uint64, maxRecords, maxBytes int) ([]Entry, error) {
	for {
		b.mu.Lock()
		if b.closed {
			b.mu.Unlock()
			return nil, ErrClosed
		}
		after = max(after, b.acked)
		ranges := b.ranges(after)
		b.mu.Unlock()
		entries, bad, err := b.readRanges(ranges, after, maxRecords, maxBytes)
		if err == nil {
			return entries, nil
		}
		if bad != nil && isDamage(err) {
			err = b.setAside(bad, err)
		}
		if err != nil {
			return nil, fmt.Errorf("read buffer %q: %w", b.cfg.Dir, err)
		}
	}
}

// span is the part of a segment that may be read.
type span struct {
	s           *segment
	first, last uint64
}

func (b *Buffer) ranges(after uint64) []span {
	var spans []span
	for i, s := range b.segments {
		if s.rescue != nil && !s.rescue.done && b.endOf(i) > after+1 {
			break // what it holds comes first
		}
		if s.count > 0 && s.last > after {
			spans = append(spans, span{s, s.first, s.last})
		}
	}
	return spans
}

func (b *Buffer) readRanges(spans []span, after uint64, maxRecords, maxBytes int) ([]Entry, *segment, error) {
	b.readMu.Lock()
	defer b.readMu.Unlock()
	r := reading{after: after, records: maxRecords, bytes: maxBytes, block: b.block}
	defer func() { b.block = r.block }()
	for _, span := range spans {
		if span.s.removed {
			continue
		}
		r.last = span.last
		r.after = max(r.after, span.first-1)
		if span.s.rescue != nil {
			if err := b.readRescued(&r, span.s); err != nil {
				return nil, nil, err
			}
			if r.full {
				break
			}
			continue
		}
		if span.s != b.active {
			span.readAhead(r.after + 1)
		}
		if err := span.s.view(r.segment); err != nil {
			if isDamage(err) && len(r.entries) > 0 {
				return r.entries, nil, nil // what was read is good; the next call starts with the damage
			}
			return nil, span.s, err
		}
		b.keepOpen(span.s)
		if r.full {
			break
		}
	}
	return r.entries, nil, nil
}

// aheadBytes is how much of a full segment is loaded before it is needed.
const aheadBytes = 4 << 20

// readAhead sees to it that the system loads what is read next. bbolt tells it not to guess, so that a segment which has left
// the memory would be read one page after the other, each waited for: after a long outage that is every segment. Where
// records lie is guessed by their number. readMu is held.
func (p span) readAhead(next uint64) {
	size := fileSize(p.s.path)
	at := int64(float64(size) * (float64(next-p.first) / float64(p.last-p.first+1)))
	if p.s.ahead > at+aheadBytes/2 || p.s.ahead >= size {
		return
	}
	to := min(size, at+aheadBytes)
	loadSoon(p.s.path, max(at, p.s.ahead), to)
	p.s.ahead = to
}

// keepOpen remembers a mapped segment and closes the one that was used longest ago. readMu is held.
func (b *Buffer) keepOpen(s *segment) {
	if s == b.active || s.db == nil {
		return
	}
	b.handles = slices.DeleteFunc(b.handles, func(h *segment) bool { return h == s })
	b.handles = append(b.handles, s)
	if len(b.handles) > maxHandles {
		_ = b.handles[0].close()
		b.handles = slices.Delete(b.handles, 0, 1)
	}
}

// reading collects entries from one segment after the other.
type reading struct {
	after, last    uint64
	records, bytes int
	entries        []Entry
	full           bool
	block          []Entry // of the block that is looked at, in the mapping
}

func (r *reading) segment(tx *bbolt.Tx) error {
	records := tx.Bucket(bucketRecords)
	if records == nil {
		return errors.New("no bucket \"records\"")
	}
	c := records.Cursor()
	for key, v := c.Seek(seqKey(r.after + 1)); key != nil && !r.full; key, v = c.Next() {
		head, err := decodeBlock(key, v)
		if err != nil {
			return fmt.Errorf("block %x: %w", key, err)
		}
		if head.first > r.last {
			break // left behind by a failed commit
		}
		if head.first > r.after+1 {
			return fmt.Errorf("records %d to %d are missing", r.after+1, head.first-1)
		}
		if r.block, err = head.appendEntries(r.block[:0]); err != nil {
			return fmt.Errorf("block %x: %w", key, err)
		}
		r.add(r.block)
	}
	if !r.full && r.after < r.last {
		return fmt.Errorf("records %d to %d are missing", r.after+1, r.last)
	}
	return nil
}

// add takes those entries that are asked for, with a copy of their bodies.
func (r *reading) add(entries []Entry) {
	start, size := len(r.entries), 0
	for _, e := range entries {
		if e.Seq <= r.after || e.Seq > r.last {
			continue
		}
		if len(r.entries) >= r.records || len(r.entries) > 0 && len(e.Body) > r.bytes {
			r.full = true
			break
		}
		if r.entries == nil {
			r.entries = make([]Entry, 0, min(r.records, 512))
		}
		r.entries = append(r.entries, e)
		r.after, r.bytes, size = e.Seq, r.bytes-len(e.Body), size+len(e.Body)
	}
	mem := make([]byte, 0, size)
	for i := start; i < len(r.entries); i++ {
		body := &r.entries[i].Body
		from := len(mem)
		mem = append(mem, *body...)
		*body = mem[from:len(mem):len(mem)]
	}
}

// Wait returns nil when a record with a sequence number above after can be read, ctx's error when ctx ends before, and
// ErrClosed when the buffer is closed.
func (b *Buffer) Wait(ctx context.Context, after uint64) error {
	for {
		b.mu.Lock()
		last, changed, closed := b.lastReadable(), b.changed, b.closed
		after = max(after, b.acked)
		b.mu.Unlock()
		if closed {
			return ErrClosed
		}
		if last > after {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Ack says that the hub holds all records up to and with seq. Segments that hold nothing else are deleted. The position is
// made durable with the next Commit or Update (one that does nothing is enough), by Close, and before a segment is deleted. A lower seq than before does
// nothing; one that was never given out is refused.
func (b *Buffer) Ack(seq uint64) error {
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	if seq > b.info.Last {
		last := b.info.Last
		b.mu.Unlock()
		return fmt.Errorf("acknowledge %d in buffer %q: the last record is %d", seq, b.cfg.Dir, last)
	}
	if seq > b.acked {
		b.acked, b.ackedDirty = seq, true
		b.sample()
	}
	deletes := len(b.segments) > 1 && b.acked > b.ackedStored && b.endOf(0) <= b.acked+1
	b.mu.Unlock()
	if deletes {
		b.storeAck(seq)
	}
	b.sweep()
	b.mu.Lock()
	b.hint()
	b.mu.Unlock()
	return nil
}

// storeAck makes the acknowledgement durable before files are deleted because of it; that happens once for a segment. A disk
// that is full needs the room that the files give, so there they go first, and the lock file says that the hub holds what was
// in them: it needs no room for that.
func (b *Buffer) storeAck(seq uint64) {
	err := b.Update(b.stopped, nil)
	if IsDiskFull(err) {
		if err = b.noteAck(seq); err == nil {
			b.sweepUpTo(seq)
			err = b.Update(b.stopped, nil)
		}
	}
	if err != nil && !errors.Is(err, ErrClosed) && b.stopped.Err() == nil {
		b.cfg.Logger.Warn("store what was acknowledged", "buffer", b.cfg.Dir, "error", err) // the files stay until it is
	}
}

func seqOf(key []byte) uint64 {
	if len(key) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(key)
}
