package files

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// Browse implements signal.Browser: folders below root (or those of the feeds), the kinds of files in each, and the fields of
// the latest file of a kind.
func (s *source) Browse(ctx context.Context, at, page string, limit int) ([]signal.Entry, string, error) {
	entries, err := s.entries(ctx, at)
	if err != nil {
		return nil, "", err
	}
	from := 0
	if page != "" {
		if from, err = strconv.Atoi(page); err != nil || from < 0 || from > len(entries) {
			return nil, "", fmt.Errorf("page %q is none of this list", page)
		}
	}
	if limit < 1 {
		limit = 100
	}
	to := min(from+limit, len(entries))
	next := ""
	if to < len(entries) {
		next = strconv.Itoa(to)
	}
	return entries[from:to], next, nil
}

// Find implements signal.Browser: what can become a feed is a kind of files.
func (s *source) Find(ctx context.Context, at, glob string, f func(signal.Entry) bool) error {
	pattern, err := globPattern(glob)
	if err != nil {
		return err
	}
	_, err = s.find(ctx, at, pattern, f, 0)
	return err
}

// deepest is how far below root Find looks: links can lead round in circles.
const deepest = 6

func (s *source) find(ctx context.Context, at string, pattern *regexp.Regexp, f func(signal.Entry) bool, depth int) (more bool, err error) {
	entries, err := s.entries(ctx, at)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Readable && pattern.MatchString(e.Path) && !f(e) {
			return false, nil
		}
		if e.Kind != "folder" || depth >= deepest {
			continue
		}
		more, err := s.find(ctx, e.ID, pattern, f, depth+1)
		if ctx.Err() != nil || err == nil && !more {
			return false, ctx.Err()
		}
		// A folder that cannot be read hides its own files only.
	}
	return true, nil
}

// globPattern reads * within a level, ** across levels and ? for one character.
func globPattern(glob string) (*regexp.Regexp, error) {
	quoted := regexp.QuoteMeta(glob)
	quoted = strings.ReplaceAll(quoted, `\*\*`, "\x00")
	quoted = strings.ReplaceAll(quoted, `\*`, `[^/]*`)
	quoted = strings.ReplaceAll(quoted, `\?`, `[^/]`)
	return regexp.Compile("^" + strings.ReplaceAll(quoted, "\x00", ".*") + "$")
}

func (s *source) entries(ctx context.Context, at string) ([]signal.Entry, error) {
	if at == "" && s.config.Root == "" {
		var out []signal.Entry
		for _, c := range s.config.feeds() {
			id := filepath.ToSlash(c.Folder)
			if !slices.ContainsFunc(out, func(e signal.Entry) bool { return e.ID == id }) {
				out = append(out, signal.Entry{ID: id, Path: id, Name: c.Tag, Kind: "folder", Children: true})
			}
		}
		return out, nil
	}
	st, err := s.link.get(ctx)
	if err != nil {
		return nil, err
	}
	dir, glob := at, ""
	if strings.Contains(path.Base(at), "*") {
		dir, glob = strings.TrimSuffix(strings.TrimSuffix(at, path.Base(at)), "/"), path.Base(at)
		if dir == "" && strings.HasPrefix(at, "/") {
			dir = "/"
		}
	}
	groups, folders, err := s.look(st, dir)
	if st.lost(err) {
		s.link.drop(st)
	}
	if err != nil {
		return nil, err
	}
	if glob == "" {
		return append(folders, groups...), nil
	}
	for _, g := range groups {
		if g.Name == glob {
			return s.fields(st, dir, g)
		}
	}
	return nil, fmt.Errorf("there is no file %s in %q", glob, dir)
}

// look lists the folders and the kinds of files in a folder.
func (s *source) look(st store, dir string) (groups, folders []signal.Entry, err error) {
	entries, err := st.list(st.join(s.config.Root, orElse(dir, ".")))
	if err != nil {
		return nil, nil, err
	}
	latest, count := map[string]entry{}, map[string]int{}
	for _, e := range entries {
		id := path.Join(dir, e.name)
		switch {
		case e.dir && !strings.HasPrefix(e.name, ".") && !slices.Contains([]string{"processing", "done", "error"}, e.name):
			folders = append(folders, signal.Entry{ID: id, Path: id, Name: e.name, Kind: "folder", Children: true})
		case e.dir, anyGlob(incomplete, e.name), strings.HasSuffix(e.name, reasonSuffix):
		default:
			glob := extension(e.name)
			if count[glob]++; e.mtime.After(latest[glob].mtime) {
				latest[glob] = e
			}
		}
	}
	for glob, e := range latest {
		id := path.Join(dir, glob)
		g := signal.Entry{ID: id, Path: id, Name: glob, Kind: "files", Value: fmt.Sprintf("%d files, the latest %s of %s", count[glob], e.name, e.mtime.In(s.zone).Format(time.DateTime)), Readable: true, Children: true}
		if sniffed, err := s.sniff(st, dir, e); err == nil {
			g.Type, g.Tag = sniffed.about, sniffed.feed(orElse(dir, "."))
		} else if st.lost(err) {
			return nil, nil, err
		}
		g.Readable = g.Tag != ""
		groups = append(groups, g)
	}
	slices.SortFunc(groups, func(a, b signal.Entry) int { return strings.Compare(a.Name, b.Name) })
	return groups, folders, nil
}

func orElse(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// headSize is how much of a file is looked at.
const headSize = 64 << 10

func (s *source) sniff(st store, dir string, e entry) (*sniffed, error) {
	head, err := readHead(st, st.join(s.config.Root, orElse(dir, "."), e.name), headSize)
	if err != nil {
		return nil, err
	}
	return sniff(e.name, head), nil
}

// readHead reads the beginning of a file; a long one ends with a whole line.
func readHead(st store, path string, most int64) ([]byte, error) {
	in, err := st.open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	head, err := io.ReadAll(io.LimitReader(in, most))
	if end := strings.LastIndexByte(string(head), '\n'); int64(len(head)) == most && end > 0 {
		head = head[:end+1]
	}
	return head, err
}

// fields lists those of the first good record of the latest file of a kind, read as its feed would, or as it looks.
func (s *source) fields(st store, dir string, g signal.Entry) ([]signal.Entry, error) {
	entries, err := st.list(st.join(s.config.Root, orElse(dir, ".")))
	if err != nil {
		return nil, err
	}
	var latest entry
	for _, e := range entries {
		if !e.dir && extension(e.name) == g.Name && !anyGlob(incomplete, e.name) && e.mtime.After(latest.mtime) {
			latest = e
		}
	}
	sniffed, err := s.sniff(st, dir, latest)
	if err != nil {
		return nil, err
	}
	f := &feed{source: s, config: s.feedFor(st, dir, latest.name, sniffed)}
	most := int64(1 << 20)
	if slices.Contains([]string{"json", "b2mml", "xml"}, f.config.Format) {
		most = smallFile
	}
	head, err := readHead(st, st.join(s.config.Root, orElse(dir, "."), latest.name), most)
	if err != nil {
		return nil, err
	}
	r, err := f.reader(strings.NewReader(string(head)))
	for n := 0; err == nil && n < 1000; n++ {
		var rec payload.Record
		if rec, err = r.Next(); err == nil && rec.Problem == nil {
			return fieldEntries(g.ID, rec.Value), nil
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, fmt.Errorf("%s has no record that can be read", latest.name)
}

// feedFor is the configured feed that takes a file, or one as the file looks.
func (s *source) feedFor(st store, dir, name string, sniffed *sniffed) Feed {
	for _, c := range s.config.feeds() {
		if c.Folder == st.join(s.config.Root, orElse(dir, ".")) && (&feed{config: *c}).matches(name) {
			return *c
		}
	}
	c := Feed{Format: sniffed.format}
	c.CSV.Encoding = sniffed.encoding
	return c
}

func fieldEntries(parent string, v any) []signal.Entry {
	m, ok := v.(map[string]any)
	if a, is := v.(answer); is {
		m, ok = a, true
	}
	if !ok {
		m = map[string]any{"value": v}
	}
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int { return cmp.Or(rank(a)-rank(b), cmp.Compare(a, b)) })
	var out []signal.Entry
	for _, name := range names {
		e := signal.Entry{ID: parent + "/" + name, Path: parent + "/" + name, Name: name, Kind: "field", Type: typeOf(m[name])}
		switch field := m[name].(type) {
		case map[string]any, []any:
			e.Value = string(rawOf(field))
		default:
			e.Value = textOf(field)
		}
		out = append(out, e)
	}
	return out
}

// first are the fields of a B2MML record that rules mostly need; a proposal takes the first that fits.
var first = []string{"order_no", "operation", "item", "yield", "scrap", "rework", "unit", "lot", "finished_at", "started_at"}

func rank(name string) int {
	if i := slices.Index(first, name); i >= 0 {
		return i
	}
	return len(first)
}

func typeOf(v any) string {
	switch v.(type) {
	case nil:
		return "empty"
	case string:
		return "text"
	case json.Number:
		return "number"
	case bool:
		return "bool"
	case time.Time:
		return "time"
	case []any:
		return "list"
	}
	return "object"
}

// extension is the glob for files like this one.
func extension(name string) string {
	if ext := path.Ext(name); ext != "" && ext != name {
		return "*" + ext
	}
	return "*"
}
