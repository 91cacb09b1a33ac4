package buffer

import "time"

// Stats is how a buffer is. Sizes are bytes.
type Stats struct {
	Pending     uint64    // records that are not acknowledged
	Bytes       int64     // about what they take
	Limit       int64     // see Config
	LastSeq     uint64    // the last sequence number given out
	AckedSeq    uint64    // the last one acknowledged
	Oldest      time.Time // when the oldest pending record was stored; zero without one
	Held        bool      // callers of Commit are held back
	HeldReason  string    // "limit" or "disk"
	Trouble     string    // why the last write failed, with the next step; empty when it did not
	Dropped     uint64    // records lost to the limit or the disk's reserve (DropOldest)
	FreeDisk    int64     // on the buffer's disk; -1 when it can not be asked
	DiskReserve int64     // see Config; -1 without one
	Generation  string
	Quarantined uint64 // inputs in quarantine
	// QuarantineDropped counts the inputs that the quarantine's own limit pushed out.
	QuarantineDropped uint64
	Damaged           int     // segments set aside, see Damaged
	Salvaging         int     // of those, where it is not yet known what is left; nothing behind them is read until then
	Segments          int     // files in use
	FillRate          float64 // bytes per second over the last minutes; negative while it drains
	FullIn            time.Duration
}

const (
	sampleEvery = 10 * time.Second
	sampleCount = 12
)

// sample is how full the buffer was at a time.
type sample struct {
	at    time.Time
	bytes int64
}

// oldest remembers when the first pending record was stored.
type oldest struct {
	seq uint64
	at  time.Time
}

// sample notes how full the buffer is, now and then. mu is held.
func (b *Buffer) sample() {
	now := b.cfg.Now()
	if n := len(b.samples); n > 0 && now.Sub(b.samples[n-1].at) < sampleEvery {
		return
	}
	_, bytes := b.pending()
	if len(b.samples) == sampleCount {
		b.samples = append(b.samples[:0], b.samples[1:]...)
	}
	b.samples = append(b.samples, sample{now, bytes})
}

// Stats returns how the buffer is now. FullIn is the time until the limit or the disk's reserve is reached at the present
// rate, 0 when it is not filling or not yet known.
func (b *Buffer) Stats() Stats {
	oldest := b.oldestPending()
	free, err := b.cfg.Disk.Free(b.cfg.Dir)
	if err != nil {
		free = -1
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	count, bytes := b.pending()
	s := Stats{
		Pending: count, Bytes: bytes, Limit: b.cfg.Limit, LastSeq: b.info.Last, AckedSeq: b.acked, Oldest: oldest,
		Held: b.held != "", HeldReason: b.held, Trouble: b.trouble, Dropped: b.info.Dropped, FreeDisk: free, DiskReserve: b.cfg.DiskReserve,
		Generation: b.info.Generation, Quarantined: uint64(len(b.quarantine.entries)),
		QuarantineDropped: b.info.QuarantineDropped, Damaged: len(b.info.Damage), Segments: len(b.segments),
	}
	for _, segment := range b.segments {
		if segment.rescue != nil && !segment.rescue.done {
			s.Salvaging++
		}
	}
	if b.closed {
		return s
	}
	b.sample()
	s.FillRate, s.FullIn = b.forecast(bytes, free)
	return s
}

func (b *Buffer) forecast(bytes, free int64) (rate float64, fullIn time.Duration) {
	first := b.samples[0]
	span := b.cfg.Now().Sub(first.at).Seconds()
	if span < 1 {
		return 0, 0
	}
	rate = float64(bytes-first.bytes) / span
	if rate <= 0 {
		return rate, 0
	}
	room := b.cfg.Limit - bytes
	if b.cfg.DiskReserve >= 0 && free >= 0 {
		room = min(room, free-b.cfg.DiskReserve)
	}
	seconds := float64(max(room, 0)) / rate
	return rate, time.Duration(min(seconds, 10*365*24*3600)) * time.Second
}

// oldestPending reads the time of the first pending record, once for each.
func (b *Buffer) oldestPending() time.Time {
	b.mu.Lock()
	known, first := b.oldest, uint64(0)
	for _, s := range b.segments {
		if n, _ := s.unacked(b.acked); n > 0 {
			first = max(s.first, b.acked+1)
			break
		}
	}
	b.mu.Unlock()
	if first == 0 {
		return time.Time{}
	}
	if known.seq == first {
		return known.at
	}
	entries, err := b.Read(first-1, 1, 1)
	if err != nil || len(entries) == 0 {
		return time.Time{}
	}
	b.mu.Lock()
	b.oldest = oldest{first, entries[0].StoredAt}
	b.mu.Unlock()
	return entries[0].StoredAt
}
