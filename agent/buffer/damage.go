package buffer

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Damage is a segment that was set aside.
type Damage struct {
	At      time.Time `json:"at"`      // when it was found
	Segment uint64    `json:"segment"` // its number
	// File is its name in the buffer's folder now; empty when it could not be found.
	File string `json:"file,omitempty"`
	// Salvage says how far the search for whole records in it is: SalvageRunning, SalvageDone, SalvageDrained; empty when
	// there is nothing to search.
	Salvage string `json:"salvage,omitempty"`
	// Lost are the sequence numbers that are lost with it, once that is known. First and Last are their ends; Last is
	// First-1 when nothing is lost, or nobody can say what. While the salvage is running, First and Last are the numbers
	// in question.
	Lost  []Range `json:"lost,omitempty"`
	First uint64  `json:"first"`
	Last  uint64  `json:"last"`
	// OpenEnd says that more records may be lost behind the last one found: the segment was the newest one and nobody
	// knows where it ended. Its sources are asked again from where the state now stands.
	OpenEnd bool `json:"open_end,omitempty"`
	// Records is how many records are known to be lost, Recovered how many were found in the file.
	Records   uint64 `json:"records"`
	Recovered uint64 `json:"recovered,omitempty"`
	Reason    string `json:"reason"`
}

// String says in one sentence what happened and what is lost.
func (d Damage) String() string {
	text := fmt.Sprintf("a buffer file was damaged (%s)", d.File)
	if d.File == "" {
		text = "a buffer file is missing"
	}
	switch {
	case d.Salvage == SalvageRunning:
		return text + ": what is whole in it is being looked for"
	case d.Records == 1:
		text += fmt.Sprintf(": record %d is lost, %d were saved", d.First, d.Recovered)
	case d.Records > 0:
		text += fmt.Sprintf(": records %s are lost, %d were saved", ranges(d.Lost, d.First, d.Last), d.Recovered)
	default:
		text += fmt.Sprintf(": no record is known to be lost, %d were saved", d.Recovered)
	}
	if d.OpenEnd {
		text += "; it was the newest file and its end is not known: the sources are asked again from the last position that is"
	}
	return text
}

// ranges names the first ranges of a list.
func ranges(list []Range, first, last uint64) string {
	if len(list) == 0 {
		list = []Range{{first, last}}
	}
	var names []string
	for _, r := range list[:min(len(list), 5)] {
		if r.First == r.Last {
			names = append(names, strconv.FormatUint(r.First, 10))
		} else {
			names = append(names, fmt.Sprintf("%d to %d", r.First, r.Last))
		}
	}
	if more := len(list) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more ranges", more))
	}
	return strings.Join(names, ", ")
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
	b.info.Damage = slices.Clone(b.info.Damage)
	b.infoVersion++
	for i, old := range b.info.Damage {
		if old.File == d.File && old.File != "" && old.Salvage == SalvageRunning {
			b.info.Damage[i] = d // it could not be renamed, and was met again
			return
		}
	}
	b.info.Damage = append(b.info.Damage, d)
	if over := len(b.info.Damage) - maxDamage; over > 0 {
		b.info.Damage = b.info.Damage[over:]
	}
	b.cfg.Logger.Error("segment set aside", "buffer", b.cfg.Dir, "segment", d.Segment, "file", d.File,
		"first", d.First, "last", d.Last, "reason", d.Reason)
}

// setAsideFile renames a damaged file and reports it; from then on the segment waits for its rescue. The buffer is not
// shared yet, or readMu and mu are held.
func (b *Buffer) setAsideFile(s *segment, cause error) {
	_ = s.close()
	d := Damage{Segment: s.number, First: max(s.first, b.acked+1), Last: s.last, Salvage: SalvageRunning, Reason: cause.Error()}
	target := b.freeName(strings.TrimSuffix(s.path, segmentSuffix) + damagedSuffix)
	if err := b.cfg.Disk.Rename(s.path, target); err == nil {
		s.path = target
	} else {
		d.Reason += "; rename: " + err.Error() // it is met again at the next start
	}
	d.File = filepath.Base(s.path)
	if d.Last < d.First {
		d.Last = d.First - 1
	}
	s.rescue = &rescue{path: s.path}
	b.report(d)
	_ = b.cfg.Disk.SyncDir(b.cfg.Dir)
}

// freeName returns the path, or one that begins with it: a file that was set aside earlier is never written over.
func (b *Buffer) freeName(path string) string {
	free := path
	for i := 2; ; i++ {
		if _, err := os.Lstat(free); err != nil {
			return free
		}
		free = fmt.Sprintf("%s.%d", path, i)
	}
}

// setAside sets a segment aside while the buffer is in use. The one that is being written is first followed by a new one.
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
	if s.rescue != nil || !slices.Contains(b.segments, s) {
		return nil // somebody else was faster
	}
	b.handles = slices.DeleteFunc(b.handles, func(h *segment) bool { return h == s })
	b.setAsideFile(s, cause)
	b.rescueNext()
	return nil
}
