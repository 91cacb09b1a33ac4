package buffer

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"time"
)

// A segment that was set aside stays in the list with its place in the order. Nothing behind it is read until it is known
// which of its blocks are whole: an acknowledgement covers all that lies before it. Then its records are read from the file
// that was set aside, block by block, and the others are reported as lost. Commits go on all the while.

// How long reading a damaged segment may take. At a start the state of damaged segments is waited for, records never are.
const (
	salvageStateTime = 20 * time.Second // for all segments of a start together
	salvageTime      = time.Minute      // for one segment, and a second for each MiB of it
	salvageTries     = 2                // processes that are given this time
)

// rescue is what a segment that was set aside is read by. It is written with readMu and mu held.
type rescue struct {
	path   string
	done   bool // what is whole is known
	blocks []blockRef
}

// Range is consecutive sequence numbers.
type Range struct {
	First uint64 `json:"first"`
	Last  uint64 `json:"last"`
}

// maxLost is how many ranges a report names; what lies between the last ones is then counted with them.
const maxLost = 200

// State of a Damage's salvage.
const (
	SalvageRunning = "running" // nothing behind it is read until it is known what is left
	SalvageDone    = "done"    // what is left is read from the file that was set aside
	SalvageDrained = "drained" // the hub holds all that was left
)

// rescueNext starts to look for what is left of the segments that were set aside, unless that is under way.
// mu is held, or nobody else knows the buffer yet.
func (b *Buffer) rescueNext() {
	if b.rescuing || b.closed {
		return
	}
	s, end := b.toRescue()
	if s == nil {
		return
	}
	b.rescuing = true
	b.background.Go(func() {
		for s != nil && b.stopped.Err() == nil {
			found, note := b.salvageBlocks(b.stopped, s, end)
			if b.stopped.Err() != nil {
				return
			}
			b.rescued(s, end, found, note)
			b.mu.Lock()
			if s, end = b.toRescue(); s == nil {
				b.rescuing = false
			}
			b.mu.Unlock()
		}
	})
}

// toRescue returns the first segment of which it is not known what is left, and where the one after it begins. mu is held.
func (b *Buffer) toRescue() (s *segment, end uint64) {
	for i, s := range b.segments {
		if s.rescue != nil && !s.rescue.done {
			return s, b.endOf(i)
		}
	}
	return nil, 0
}

// endOf returns the first sequence number that is not of the segment with this place in the list. mu is held.
func (b *Buffer) endOf(i int) uint64 {
	if i+1 < len(b.segments) {
		return b.segments[i+1].first
	}
	return b.info.Last + 1
}

// salvageBlocks finds the whole blocks of a segment. A process that died is started once more, and what it found until then
// counts too; after that the work is done here, since it only reads and has no depth to fall into. note says what went wrong.
func (b *Buffer) salvageBlocks(ctx context.Context, s *segment, end uint64) (found []blockRef, note string) {
	limit := b.cfg.salvageTime + time.Duration(fileSize(s.rescue.path)>>20)*time.Second
	args := salvageArgs(salvageRecords, s, end)
	for try := range salvageTries + 1 {
		salvager := b.cfg.Salvager
		if try == salvageTries {
			salvager = nil
		}
		text, err := b.ask(ctx, limit, salvager, args)
		rows, whole := readRows(text)
		found = inOrder(append(found, rows...))
		if whole && err == nil {
			return found, ""
		}
		if ctx.Err() != nil {
			break
		}
		note = "the salvage did not come to its end"
		if err != nil {
			note += ": " + err.Error()
		}
		b.cfg.Logger.Warn("salvage of a damaged segment failed", "file", s.rescue.path, "error", err)
	}
	return found, note
}

func salvageArgs(what string, s *segment, end uint64) []string {
	return []string{what, s.rescue.path, strconv.FormatUint(s.first, 10), strconv.FormatUint(end, 10)}
}

// ask has a process of its own read a damaged segment. Without a Salvager, or where none can be started, it is done here.
func (b *Buffer) ask(ctx context.Context, limit time.Duration, salvager, args []string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var out, errOut bytes.Buffer
	if len(salvager) > 0 {
		command := append(slices.Clone(salvager), args...)
		cmd := exec.CommandContext(ctx, command[0], command[1:]...)
		cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &limited{to: &out, left: salvageMemory}, &limited{to: &errOut, left: 1 << 10}, 5*time.Second
		err := cmd.Start()
		if err == nil {
			if err = cmd.Wait(); err != nil {
				err = fmt.Errorf("%w: %s", err, bytes.TrimSpace(errOut.Bytes()))
			}
			return out.Bytes(), err
		}
		b.cfg.Logger.Warn("salvage process does not start, its work is done here", "command", command[0], "error", err)
	}
	err := guarded(func() error { return runSalvage(args, &out) })
	return out.Bytes(), err
}

// limited takes so many bytes and lets the rest go.
type limited struct {
	to   io.Writer
	left int
}

func (l *limited) Write(p []byte) (int, error) {
	n := min(len(p), l.left)
	l.left -= n
	if _, err := l.to.Write(p[:n]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// salvageState asks for the newest whole state of a segment that was set aside. Nothing is found when that takes too long.
func (b *Buffer) salvageState(s *segment, end uint64) (foundState, error) {
	limit := b.cfg.salvageStateTime - time.Since(b.opened)
	if limit <= 0 {
		return foundState{Why: "there is no time left to look for it"}, nil
	}
	var found foundState
	text, err := b.ask(context.Background(), limit, b.cfg.Salvager, salvageArgs(salvageState, s, end))
	if err == nil {
		err = json.Unmarshal(text, &found)
	}
	if err != nil {
		return foundState{Why: err.Error()}, nil
	}
	if found.Newer != "" {
		return found, fmt.Errorf("%w (%s)", ErrNewerFormat, found.Newer)
	}
	return found, nil
}

// rescued takes up what is left of a segment: its records are now read from the file that was set aside.
func (b *Buffer) rescued(s *segment, end uint64, found []blockRef, note string) {
	b.readMu.Lock()
	b.mu.Lock()
	i := slices.Index(b.segments, s)
	if i < 0 { // dropped meanwhile
		b.mu.Unlock()
		b.readMu.Unlock()
		return
	}
	if s.count > 0 {
		end = min(end, s.last+1)
	}
	s.rescue.done, s.rescue.blocks = true, found
	s.count, s.bytes, s.last = 0, 0, s.first-1
	for _, r := range found {
		s.count += r.last - max(r.first, s.last+1) + 1
		s.bytes += int64(r.size)
		s.last = r.last
	}
	b.amend(s, func(d *Damage) { d.account(s, b.acked, end, note) })
	if !b.closed {
		close(b.changed)
		b.changed = make(chan struct{})
	}
	b.mu.Unlock()
	b.readMu.Unlock()
	b.sweep()
	if err := b.Update(b.stopped, nil); err != nil && !errors.Is(err, ErrClosed) && b.stopped.Err() == nil {
		b.cfg.Logger.Warn("note what was salvaged", "error", err) // it is noted with the next commit
	}
}

// account works out what of a segment that ends before end is lost.
func (d *Damage) account(s *segment, acked, end uint64, note string) {
	d.Salvage, d.Recovered = SalvageDone, s.count
	if note != "" {
		d.Reason += "; " + note
	}
	open := end > s.first+lostNumbers // so many numbers were skipped because nobody knows its last record
	if open {
		end = s.last + 1
	}
	next := max(s.first, acked+1)
	for _, r := range s.rescue.blocks {
		if r.first > next {
			d.lose(next, r.first-1)
		}
		next = max(next, r.last+1)
	}
	if next < end {
		d.lose(next, end-1)
	}
	d.OpenEnd = open
	d.total()
}

// lose adds a range that is lost, above those that are known already.
func (d *Damage) lose(first, last uint64) {
	for i, r := range d.Lost {
		if first >= r.First && last <= r.Last {
			return // known since an earlier run
		}
		if first <= r.Last+1 && last+1 >= r.First {
			d.Lost[i] = Range{min(first, r.First), max(last, r.Last)}
			return
		}
	}
	d.Lost = append(d.Lost, Range{first, last})
	slices.SortFunc(d.Lost, func(x, y Range) int { return int(int64(x.First) - int64(y.First)) })
	if n := len(d.Lost); n > maxLost {
		d.Lost[n-2].Last = d.Lost[n-1].Last
		d.Lost = d.Lost[:n-1]
	}
}

func (d *Damage) total() {
	d.Records, d.Last = 0, d.First-1
	for i, r := range d.Lost {
		if i == 0 {
			d.First = r.First
		}
		d.Last = r.Last
		d.Records += r.Last - r.First + 1
	}
}

// amend changes the report of a segment that was set aside. mu is held.
func (b *Buffer) amend(s *segment, change func(d *Damage)) {
	name := filepath.Base(s.rescue.path)
	b.info.Damage = slices.Clone(b.info.Damage)
	for i := range b.info.Damage {
		if d := &b.info.Damage[i]; d.File == name && d.Salvage != SalvageDrained {
			d.Lost = slices.Clone(d.Lost)
			change(d)
			b.infoVersion++
			b.cfg.Logger.Warn("damaged segment", "file", d.File, "salvage", d.Salvage, "recovered", d.Recovered, "lost", d.Records,
				"ranges", fmt.Sprint(d.Lost), "open_end", d.OpenEnd)
			return
		}
	}
}

// rescued reads entries of a segment that was set aside. It returns blocks that can no longer be read.
func (r *reading) rescued(s *rescue) (bad []blockRef, err error) {
	f, err := os.Open(s.path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	i, _ := slices.BinarySearchFunc(s.blocks, r.after+1, func(b blockRef, seq uint64) int {
		if b.last < seq {
			return -1
		}
		return 1
	})
	for ; i < len(s.blocks) && !r.full; i++ {
		head, err := s.blocks[i].read(f)
		if err != nil {
			bad = append(bad, s.blocks[i])
			continue
		}
		entries, err := head.entries()
		if err != nil {
			bad = append(bad, s.blocks[i])
			continue
		}
		r.add(entries)
	}
	return bad, nil
}

// readRescued reads from a segment that was set aside and reports what can no longer be read. readMu is held.
func (b *Buffer) readRescued(r *reading, s *segment) error {
	bad, err := r.rescued(s.rescue)
	if errors.Is(err, os.ErrNotExist) {
		bad, err = s.rescue.blocks, nil // somebody took the file away
	}
	if err != nil || len(bad) == 0 {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	s.rescue.blocks = slices.DeleteFunc(slices.Clone(s.rescue.blocks), func(x blockRef) bool { return slices.Contains(bad, x) })
	b.amend(s, func(d *Damage) {
		for _, x := range bad {
			if x.last > b.acked {
				d.lose(max(x.first, b.acked+1), x.last)
			}
		}
		d.total()
	})
	return nil
}
