package buffer

// makeRoom drops the oldest segments while a DropOldest buffer has no room. It returns true when the disk is still too full
// with nothing left to drop: new records are then counted and not stored, because what may be dropped must not hold up
// what may not. The committer calls it.
func (b *Buffer) makeRoom() (shed bool) {
	if b.cfg.Overflow != DropOldest {
		return false
	}
	for {
		b.mu.Lock()
		why := b.room()
		oldest := b.segments[0]
		only := len(b.segments) == 1
		empty := only && oldest.count == 0
		b.mu.Unlock()
		if why == "" {
			return false
		}
		if empty {
			return why == heldDisk
		}
		if only {
			if err := b.roll(); err != nil {
				b.cfg.Logger.Warn("start a new segment", "buffer", b.cfg.Dir, "error", err)
				return true
			}
			continue
		}
		b.drop(oldest)
	}
}

// drop deletes the oldest segment and counts what was not acknowledged.
func (b *Buffer) drop(s *segment) {
	b.mu.Lock()
	if len(b.segments) < 2 || b.segments[0] != s {
		b.mu.Unlock()
		return
	}
	lost, _ := s.unacked(b.acked)
	b.segments = b.segments[1:]
	b.info.Dropped += lost
	b.infoVersion++
	b.mu.Unlock()
	b.remove(s)
	b.cfg.Logger.Warn("buffer is full, oldest records dropped", "buffer", b.cfg.Dir, "records", lost)
}
