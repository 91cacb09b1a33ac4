package buffer

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Inspection is what lies in a buffer's folder.
type Inspection struct {
	Dir string `json:"dir"`
	// Running says that a process has the buffer open: what it has not yet committed is not seen.
	Running     bool          `json:"running"`
	Generation  string        `json:"generation"`
	LastSeq     uint64        `json:"last_seq"`
	AckedSeq    uint64        `json:"acked_seq"`
	Pending     uint64        `json:"pending"`  // records in the segments that are not acknowledged
	Salvaged    uint64        `json:"salvaged"` // records in files that were set aside, until the hub holds them all
	Dropped     uint64        `json:"dropped"`
	Segments    []SegmentInfo `json:"segments"` // oldest first
	State       []StateInfo   `json:"state"`    // by key
	Quarantined int           `json:"quarantined"`
	Damage      []Damage      `json:"damage"`
	// SetAside are the names of damaged files, Foreign those of files that are none of the buffer's.
	SetAside []string `json:"set_aside"`
	Foreign  []string `json:"foreign"`
	// Faults are what Verify found; Inspect finds those that keep it from reading.
	Faults []Fault `json:"faults"`
}

// SegmentInfo is one file. First to Last are its records; Last is First-1 when it has none.
type SegmentInfo struct {
	File    string `json:"file"`
	Number  uint64 `json:"number"`
	First   uint64 `json:"first"`
	Last    uint64 `json:"last"`
	Records uint64 `json:"records"`
	Bytes   int64  `json:"bytes"` // of the file
}

// StateInfo is one key of the state.
type StateInfo struct {
	Key   string `json:"key"`
	Bytes int    `json:"bytes"`
}

// Fault is something that is not as it should be.
type Fault struct {
	File   string `json:"file,omitempty"`
	Reason string `json:"reason"`
}

// Inspect reads a folder without opening the buffer: it writes nothing, takes no lock, maps no file and may be used while
// an agent runs. A folder that is not there is an error that wraps fs.ErrNotExist, one of a newer program ErrNewerFormat.
func Inspect(dir string) (*Inspection, error) { return inspect(dir, false) }

// Verify is Inspect and also checks every page, record and value. It must not be used while an agent runs: what changes
// under its eyes looks like damage. The error is then ErrInUse.
func Verify(dir string) (*Inspection, error) {
	running, err := isLocked(dir)
	if err != nil {
		return nil, fmt.Errorf("verify buffer %q: %w", dir, err)
	}
	if running {
		return nil, fmt.Errorf("verify buffer %q: %w", dir, ErrInUse)
	}
	return inspect(dir, true)
}

// isLocked says that a process has the buffer open.
func isLocked(dir string) (bool, error) {
	if _, err := os.Stat(filepath.Join(dir, "lock")); err != nil {
		if _, dirErr := os.Stat(dir); dirErr != nil {
			return false, dirErr
		}
		return false, nil // never opened, or a copy without it
	}
	return probeLock(filepath.Join(dir, "lock"))
}

func inspect(dir string, deep bool) (*Inspection, error) {
	in := &Inspection{Dir: dir, Segments: []SegmentInfo{}, State: []StateInfo{}, Damage: []Damage{}, SetAside: []string{}, Foreign: []string{}, Faults: []Fault{}}
	segments, err := in.list()
	if err != nil {
		return nil, fmt.Errorf("inspect buffer %q: %w", dir, err)
	}
	if in.Running, err = isLocked(dir); err != nil && !errors.Is(err, fs.ErrPermission) {
		return nil, fmt.Errorf("inspect buffer %q: %w", dir, err)
	}
	var known []sealedSegment
	for i := len(segments) - 1; i >= 0; i-- {
		found, err := in.newest(segments[i], nextFirst(segments, i))
		if err != nil {
			return nil, fmt.Errorf("inspect buffer %q: %w", dir, err)
		}
		if found.Found {
			in.take(found)
			known = found.Known
			break
		}
		in.fault(segments[i].path, found.Why)
	}
	in.addSegments(segments, known, deep)
	return in, nil
}

// list sorts the files of the folder.
func (in *Inspection) list() (segments []*segment, err error) {
	files, err := os.ReadDir(in.Dir)
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		name := file.Name()
		if number, first, ok := parseName(name, segmentSuffix); ok {
			segments = append(segments, &segment{number: number, first: first, last: first - 1, path: filepath.Join(in.Dir, name)})
			continue
		}
		switch {
		case strings.Contains(name, damagedSuffix):
			in.SetAside = append(in.SetAside, name)
		case name != "lock" && !strings.HasSuffix(name, newSuffix):
			in.Foreign = append(in.Foreign, name)
		}
	}
	slices.SortFunc(segments, byNumber)
	return segments, nil
}

func nextFirst(segments []*segment, i int) uint64 {
	if i+1 < len(segments) {
		return segments[i+1].first
	}
	return 0
}

// newest reads the state of a segment.
func (in *Inspection) newest(s *segment, end uint64) (foundState, error) {
	f, err := os.Open(s.path)
	if err != nil {
		return foundState{}, err
	}
	defer func() { _ = f.Close() }()
	blocks, err := findBlocks(f, s.first, end)
	if err != nil {
		return foundState{}, err
	}
	found := findState(f, s.first, blocks)
	if found.Newer != "" {
		return found, fmt.Errorf("%w (%s)", ErrNewerFormat, found.Newer)
	}
	if found.Found && !found.Newest {
		in.fault(s.path, found.Why)
	}
	return found, nil
}

func (in *Inspection) take(s foundState) {
	in.Generation, in.Dropped, in.Damage = s.Info.Generation, s.Info.Dropped, append(in.Damage, s.Info.Damage...)
	in.AckedSeq, in.LastSeq, in.Quarantined = s.Acked, max(s.Info.Last, s.Last), len(s.Quarantine)
	for _, d := range in.Damage {
		if d.Salvage == SalvageDone {
			in.Salvaged += d.Recovered
		}
	}
	for key, v := range s.State {
		in.State = append(in.State, StateInfo{key, len(v)})
	}
	slices.SortFunc(in.State, func(x, y StateInfo) int { return strings.Compare(x.Key, y.Key) })
}

func (in *Inspection) fault(path, reason string) {
	in.Faults = append(in.Faults, Fault{filepath.Base(path), reason})
}

func (in *Inspection) addSegments(segments []*segment, known []sealedSegment, deep bool) {
	there, totals := map[uint64]bool{}, map[uint64]sealedSegment{}
	for _, d := range in.Damage {
		there[d.Segment] = true
	}
	for _, k := range known {
		totals[k.Number] = k
	}
	for i, s := range segments {
		there[s.number] = true
		info := SegmentInfo{File: filepath.Base(s.path), Number: s.number, First: s.first, Last: s.last, Bytes: fileSize(s.path)}
		k, isKnown := totals[s.number]
		r := recordWalk{first: k.First, last: k.Last, count: k.Count}
		if deep || !isKnown || k.First != s.first {
			var err error
			if r, err = readRecords(s, nextFirst(segments, i), deep); err != nil {
				in.fault(s.path, err.Error())
			} else if k.Count > 0 && k.Last != r.last {
				in.fault(s.path, fmt.Sprintf("it ends with record %d, the newest segment says %d", r.last, k.Last))
			}
		}
		info.Last, info.Records = r.last, r.count
		if r.count > 0 && r.last > in.AckedSeq {
			in.Pending += r.count - min(r.count, in.AckedSeq+1-min(s.first, in.AckedSeq+1))
		}
		in.Segments = append(in.Segments, info)
	}
	for _, k := range known {
		if !there[k.Number] && k.Count > 0 && k.Last > in.AckedSeq {
			in.fault(segmentName(k.Number, k.First), fmt.Sprintf("the file with the records %d to %d is missing", k.First, k.Last))
		}
	}
}

// recordWalk follows the blocks of a segment from the newest commit's tree.
type recordWalk struct {
	first, last, count uint64
	next               uint64 // where the next segment begins, 0 when there is none
}

// readRecords walks the records of a segment; deep also checks all that it does not need for that.
func readRecords(s *segment, next uint64, deep bool) (recordWalk, error) {
	w := recordWalk{first: s.first, last: s.first - 1, next: next}
	if deep {
		if err := checkPages(s.path); err != nil {
			return w, err
		}
	}
	f, err := os.Open(s.path)
	if err != nil {
		return w, err
	}
	defer func() { _ = f.Close() }()
	p := newPageFile(f)
	if err := p.readMeta(); err != nil {
		return w, err
	}
	buckets, err := p.buckets(p.root)
	if err != nil {
		return w, err
	}
	err = newPageFile(f).eachIn(buckets[string(bucketRecords)], func(key, v []byte) error { return w.block(key, v, deep) })
	if err == nil && deep {
		err = checkValues(f, buckets)
	}
	return w, err
}

func (w *recordWalk) block(key, v []byte, deep bool) error {
	b, err := decodeBlock(key, v)
	if err != nil {
		return fmt.Errorf("block %x: %w", key, err)
	}
	if w.next > 0 && b.first >= w.next {
		return nil // left behind by a failed commit
	}
	if b.first != w.last+1 {
		return fmt.Errorf("records %d to %d are missing", w.last+1, b.first-1)
	}
	if deep {
		if _, err := b.entries(); err != nil {
			return fmt.Errorf("block %x: %w", key, err)
		}
	}
	if w.last = b.last; w.next > 0 {
		w.last = min(w.last, w.next-1)
	}
	w.count = w.last - w.first + 1
	return nil
}

// checkValues checks all values but the records.
func checkValues(f *os.File, buckets map[string][]byte) error {
	for i, s := range summed {
		if i == inRecords {
			continue
		}
		err := newPageFile(f).eachIn(buckets[string(s.name)], func(key, v []byte) error {
			if _, err := unsealed(key, v); err != nil {
				return fmt.Errorf("key %.40q: %w", key, err)
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("bucket %q: %w", s.name, err)
		}
	}
	var missing error
	for _, key := range [][]byte{keyProof, keyAcked, keyFlushed} {
		found := false
		err := newPageFile(f).eachIn(buckets[string(bucketMeta)], func(k, v []byte) error {
			if bytes.Equal(k, key) {
				found = true
				_, err := unsealed(k, v)
				return err
			}
			return nil
		})
		if err == nil && !found {
			err = errors.New("not there")
		}
		if err != nil {
			missing = errors.Join(missing, fmt.Errorf("%q: %w", key, err))
		}
	}
	return missing
}
