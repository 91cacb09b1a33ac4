package buffer

import (
	"context"
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Damage is a segment that was set aside.
type Damage struct {
	At      time.Time `json:"at"`      // when it was found
	Segment uint64    `json:"segment"` // its number
	// File is its name in the buffer's folder now; empty when it could not be found.
	File string `json:"file,omitempty"`
	// First and Last are the range of sequence numbers lost with it. Last is First-1 when nobody can say how many there
	// were: the segment was the newest one, and its sources from then on may be asked again.
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
	// Records is how many unacknowledged records that range held, 0 when unknown.
	Records uint64 `json:"records"`
	Reason  string `json:"reason"`
}

// Damaged returns the segments that were set aside, the oldest report first. The latest hundred reports are kept.
func (b *Buffer) Damaged() []Damage {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.info.Damage)
}

// report keeps a damage for Damaged and for the next commit. mu is held, or nobody else knows the buffer yet.
func (b *Buffer) report(d Damage) {
	d.At = b.cfg.Now()
	b.info.Damage = append(slices.Clone(b.info.Damage), d)
	if over := len(b.info.Damage) - maxDamage; over > 0 {
		b.info.Damage = b.info.Damage[over:]
	}
	b.infoVersion++
	b.cfg.Logger.Error("segment set aside", "buffer", b.cfg.Dir, "segment", d.Segment, "file", d.File,
		"first", d.First, "last", d.Last, "records", d.Records, "reason", d.Reason)
}

// setAsideFile renames a damaged file and reports it. The buffer is not shared yet, or mu is held and the segment is out of
// the list.
func (b *Buffer) setAsideFile(s *segment, cause error) {
	_ = s.close()
	d := Damage{Segment: s.number, First: max(s.first, b.acked+1), Last: s.last, Reason: cause.Error()}
	d.Records, _ = s.unacked(b.acked)
	target := strings.TrimSuffix(s.path, segmentSuffix) + damagedSuffix
	if err := b.cfg.Disk.Rename(s.path, target); err == nil {
		d.File = filepath.Base(target)
	} else {
		// It stays under its name and is met again at the next start.
		d.File = filepath.Base(s.path)
		d.Reason += "; rename: " + err.Error()
	}
	if d.Last < d.First {
		d.Last = d.First - 1
	}
	b.report(d)
	_ = b.cfg.Disk.SyncDir(b.cfg.Dir)
}

// setAside takes a segment out while the buffer is in use. The one that is being written is first followed by a new one.
func (b *Buffer) setAside(s *segment, cause error) error {
	b.mu.Lock()
	isActive := !b.closed && len(b.segments) > 0 && b.segments[len(b.segments)-1] == s
	b.mu.Unlock()
	if isActive {
		r := newRequest(nil)
		r.small, r.roll = true, true
		if err := b.do(context.Background(), r); err != nil { // never waits for room
			return errors.Join(cause, err)
		}
	}
	b.readMu.Lock()
	defer b.readMu.Unlock()
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.Index(b.segments, s)
	if i < 0 {
		return nil // somebody else was faster
	}
	b.segments = slices.Delete(slices.Clone(b.segments), i, i+1)
	b.handles = slices.DeleteFunc(b.handles, func(h *segment) bool { return h == s })
	s.removed = true
	b.setAsideFile(s, cause)
	b.hint()
	return nil
}
