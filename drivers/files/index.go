package files

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// index remembers the contents that were taken from one folder, in a file of lines that only grows until it is written anew.
// A line counts once it is synced; a torn one at the end is none.
type index struct {
	path  string
	limit int

	taken  map[string]taken // by content
	byName map[string]taken // the latest of each name
	lines  int
}

// taken is one content: when and under which name it came.
type taken struct {
	Hash  string `json:"h"`
	Name  string `json:"n"`
	Size  int64  `json:"s"`
	MTime int64  `json:"m"` // nanoseconds since 1970
	At    int64  `json:"t"` // seconds since 1970
}

func (t taken) fits(e entry) bool { return t.Size == e.size && t.MTime == e.mtime.UnixNano() }

func openIndex(path string, limit int) (*index, error) {
	x := &index{path: path, limit: limit, taken: map[string]taken{}, byName: map[string]taken{}}
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return x, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the list of files that were taken: %w", err)
	}
	whole := raw[:bytes.LastIndexByte(raw, '\n')+1]
	for line := range bytes.Lines(whole) {
		var t taken
		if json.Unmarshal(line, &t) == nil && t.Hash != "" {
			x.note(t)
		}
	}
	if len(whole) < len(raw) { // a torn line would swallow the next one
		if err := os.Truncate(path, int64(len(whole))); err != nil {
			return nil, fmt.Errorf("mend the list of files that were taken: %w", err)
		}
	}
	return x, nil
}

func (x *index) note(t taken) {
	x.taken[t.Hash] = t
	x.byName[t.Name] = t
	x.lines++
}

// add makes contents durable.
func (x *index) add(list []taken) error {
	if len(list) == 0 {
		return nil
	}
	var b bytes.Buffer
	for _, t := range list {
		line, err := json.Marshal(t)
		if err != nil {
			return err
		}
		b.Write(append(line, '\n'))
	}
	f, err := os.OpenFile(x.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	before, err := f.Seek(0, 2)
	if err == nil {
		_, err = f.Write(b.Bytes())
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		f.Truncate(before) // half a line must not stay before the next try's
		f.Close()
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	for _, t := range list {
		x.note(t)
	}
	return nil
}

// shrink writes the index anew when it has grown far over its limit. The latest stay, and those whose names are still there.
func (x *index) shrink(there map[string]bool) error {
	if x.lines <= 2*x.limit {
		return nil
	}
	all := make([]taken, 0, len(x.taken))
	for _, t := range x.taken {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b taken) int { return cmp.Compare(a.At, b.At) })
	extra := len(all) - x.limit
	var kept []taken
	for i, t := range all {
		if i >= extra || there[t.Name] {
			kept = append(kept, t)
		}
	}
	part := x.path + ".part"
	f, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	enc := json.NewEncoder(w)
	for _, t := range kept {
		err = errors.Join(err, enc.Encode(t))
	}
	if err = errors.Join(err, w.Flush(), f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(part, x.path); err != nil {
		return err
	}
	x.taken, x.byName, x.lines = map[string]taken{}, map[string]taken{}, 0
	for _, t := range kept {
		x.note(t)
	}
	return syncFolder(filepath.Dir(x.path))
}

func newTaken(hash string, e entry) taken {
	return taken{Hash: hash, Name: e.name, Size: e.size, MTime: e.mtime.UnixNano(), At: time.Now().Unix()}
}
