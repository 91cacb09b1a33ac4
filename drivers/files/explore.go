package files

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// Probe implements signal.Prober: the way to each folder, and whether the latest file there can be read.
func (s *source) Probe(ctx context.Context) []signal.Step {
	var steps []signal.Step
	link := &link{dial: s.link.dial} // its own, so that it can run beside Run
	defer link.close()
	st, err := link.get(ctx)
	if s.config.SFTP != nil {
		step := signal.Step{Name: fmt.Sprintf("%s lets %s in", s.config.SFTP.Address, s.config.SFTP.User)}
		if err != nil {
			step.Problem = problemOf(err, s.config.SFTP.Address)
			return append(steps, step)
		}
		step.Detail = "the server's key is the configured one, the login works, SFTP is there"
		steps = append(steps, step)
	}
	if err != nil {
		return append(steps, signal.Step{Name: "folders", Problem: problemOf(err, "folders")})
	}
	for _, c := range s.config.feeds() {
		f := &feed{source: s, config: *c}
		if w := s.config.WorkOrders; w != nil && w.Answers != nil && c == &w.Answers.Feed {
			f.answers = w.Answers
		}
		steps = append(steps, f.probe(ctx, st)...)
	}
	if w := s.config.WorkOrders; w != nil {
		steps = append(steps, probeWrite(st, w.Folder, "work orders can be laid into "+w.Folder))
	}
	return steps
}

func problemOf(err error, item string) *signal.Problem {
	var own *problemError
	if errors.As(err, &own) {
		return &own.problem
	}
	return &signal.Problem{Code: "folder_unreachable", Item: item, Reason: err.Error(), NextStep: "check that the folder is there, and the rights of the agent's user"}
}

func (f *feed) probe(ctx context.Context, st store) []signal.Step {
	step := signal.Step{Name: fmt.Sprintf("folder %s of %s can be read", f.config.Folder, f.config.Tag)}
	entries, err := st.list(f.config.Folder)
	if err != nil {
		step.Problem = problemOf(err, f.config.Folder)
		return []signal.Step{step}
	}
	var latest *entry
	n := 0
	for _, e := range entries {
		if !e.dir && f.matches(e.name) {
			if n++; latest == nil || e.mtime.After(latest.mtime) {
				latest = &e
			}
		}
	}
	step.Detail = fmt.Sprintf("%d files have matching names", n)
	steps := []signal.Step{step}
	if !f.config.Keep {
		steps = append(steps, probeWrite(st, f.config.Folder, fmt.Sprintf("files can be moved out of %s", f.config.Folder)))
	}
	if latest == nil {
		return append(steps, signal.Step{Name: "a file of " + f.config.Tag + " to try", Detail: "there is none yet", Warning: true})
	}
	return append(steps, f.probeFile(ctx, st, *latest))
}

// probeFile reads a file as Run would, and emits nothing.
func (f *feed) probeFile(ctx context.Context, st store, e entry) signal.Step {
	step := signal.Step{Name: fmt.Sprintf("%s is %s that can be used", e.name, f.config.Format), Warning: true}
	c, err := f.load(ctx, st, st.join(f.config.Folder, e.name), e)
	if err != nil {
		step.Problem = problemOf(err, e.name)
		return step
	}
	defer c.drop()
	var p progress
	step.Problem = f.judge(c, &p)
	if step.Problem == nil && p.BadCount > 0 {
		step.Problem = &signal.Problem{Code: "bad_records", Item: e.name, Reason: fmt.Sprintf("%d records cannot be used; the first: %s", p.BadCount, p.Bad[0]), NextStep: "correct the format of the feed, or the sender"}
	}
	if step.Problem == nil {
		step.Warning = false
	}
	return step
}

// probeWrite makes a small file and removes it again.
func probeWrite(st store, folder, name string) signal.Step {
	step := signal.Step{Name: name}
	trial := st.join(folder, ".linekeeper-probe.tmp")
	err := st.write(trial, []byte("may be removed\n"))
	if err == nil {
		if err = st.rename(trial, trial+".tmp"); err == nil {
			err = st.remove(trial + ".tmp")
		}
	}
	if err != nil {
		step.Problem = problemOf(err, folder)
		step.Problem.NextStep = "let the agent's user change the folder; a feed whose folder may only be read needs keep: true"
	}
	return step
}

// Browse implements signal.Browser: feeds, their files, and the fields of a file's first record.
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

// Find implements signal.Browser.
func (s *source) Find(ctx context.Context, at, glob string, f func(signal.Entry) bool) error {
	pattern, err := globPattern(glob)
	if err != nil {
		return err
	}
	_, err = s.find(ctx, at, pattern, f)
	return err
}

func (s *source) find(ctx context.Context, at string, pattern *regexp.Regexp, f func(signal.Entry) bool) (more bool, err error) {
	entries, err := s.entries(ctx, at)
	if err != nil {
		return false, err
	}
	for _, e := range entries {
		if e.Readable && pattern.MatchString(e.Path) && !f(e) {
			return false, nil
		}
		if !e.Children {
			continue
		}
		more, err := s.find(ctx, e.ID, pattern, f)
		if ctx.Err() != nil || err == nil && !more {
			return false, ctx.Err()
		}
		// A file that cannot be read hides its own fields only.
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
	tag, file, isFile := strings.Cut(at, "/")
	if at == "" {
		var out []signal.Entry
		for _, c := range s.config.feeds() {
			out = append(out, signal.Entry{ID: c.Tag, Path: c.Tag, Name: c.Tag, Kind: "folder", Type: c.Format, Value: c.Folder, Children: true})
		}
		return out, nil
	}
	var f *feed
	for _, c := range s.config.feeds() {
		if c.Tag == tag {
			f = &feed{source: s, config: *c}
		}
	}
	if f == nil {
		return nil, fmt.Errorf("there is no feed %q", tag)
	}
	st, err := s.link.get(ctx)
	if err != nil {
		return nil, err
	}
	out, err := f.filesOrFields(ctx, st, file, isFile)
	if st.lost(err) {
		s.link.drop(st)
	}
	return out, err
}

// filesOrFields lists the feed's files, also the latest done ones, or the fields of one of them.
func (f *feed) filesOrFields(ctx context.Context, st store, file string, isFile bool) ([]signal.Entry, error) {
	found, err := f.known(st)
	if err != nil {
		return nil, err
	}
	var out []signal.Entry
	for _, c := range found {
		if !isFile {
			id := f.config.Tag + "/" + c.name
			out = append(out, signal.Entry{ID: id, Path: id, Name: c.name, Kind: "file", Type: fmt.Sprintf("%d bytes", c.size), Value: c.mtime.In(f.zone).Format(time.RFC3339), Children: true})
		} else if c.name == file {
			return f.fields(ctx, st, c)
		}
	}
	if isFile {
		return nil, fmt.Errorf("feed %q has no file %q", f.config.Tag, file)
	}
	return out, nil
}

// known are the files that wait and those of the latest day in done.
func (f *feed) known(st store) ([]candidate, error) {
	var out []candidate
	seen := map[string]bool{}
	add := func(dir string) error {
		entries, err := st.list(dir)
		for _, e := range entries {
			if !e.dir && !seen[e.name] && f.matches(e.name) && !strings.HasSuffix(e.name, reasonSuffix) {
				seen[e.name] = true
				out = append(out, candidate{entry: e, path: st.join(dir, e.name)})
			}
		}
		return err
	}
	if err := add(f.config.Folder); err != nil {
		return nil, err
	}
	if f.config.Keep {
		return out, nil
	}
	done := f.folder(f.config.Done, st)
	days, _ := st.list(done) // none yet
	slices.SortFunc(days, func(a, b entry) int { return strings.Compare(b.name, a.name) })
	for _, d := range days {
		if d.dir {
			return out, add(st.join(done, d.name))
		}
	}
	return out, nil
}

func (f *feed) fields(ctx context.Context, st store, c candidate) ([]signal.Entry, error) {
	content, err := f.load(ctx, st, c.path, c.entry)
	if err != nil {
		return nil, err
	}
	defer content.drop()
	in, err := content.open()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	r, err := f.reader(in)
	for n := 0; err == nil && n < 1000; n++ {
		var rec payload.Record
		if rec, err = r.Next(); err == nil && rec.Problem == nil {
			return fieldEntries(f.config.Tag+"/"+c.name, rec.Value), nil
		}
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return nil, fmt.Errorf("%s has no record that can be read", c.name)
}

func fieldEntries(parent string, v any) []signal.Entry {
	m, ok := v.(map[string]any)
	if !ok {
		m = map[string]any{"value": v}
	}
	names := make([]string, 0, len(m))
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	var out []signal.Entry
	for _, name := range names {
		e := signal.Entry{ID: parent + "/" + name, Path: parent + "/" + name, Name: name, Kind: "field", Readable: true, Type: typeOf(m[name])}
		switch field := m[name].(type) {
		case map[string]any, []any:
			e.Value = string(rawOf(field))
		default:
			e.Value = textOf(field)
		}
		if text, isText := m[name].(string); isText {
			e.Tag = fmt.Sprintf("{name: %s, type: %s}", strconv.Quote(name), looksLike(text))
		}
		out = append(out, e)
	}
	return out
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

var (
	plainNumber = regexp.MustCompile(`^-?(0|[1-9]\d{0,9})([.,]\d+)?$`)
	isoTime     = regexp.MustCompile(`^\d{4}-\d\d-\d\d[T ]\d\d:\d\d`)
)

// looksLike proposes a type, for a person to decide.
func looksLike(text string) string {
	switch {
	case plainNumber.MatchString(text):
		return "number"
	case isoTime.MatchString(text):
		return "time"
	}
	return "text"
}

// extension is the glob for files like this one.
func extension(name string) string {
	if ext := path.Ext(name); ext != "" {
		return "*" + ext
	}
	return "*"
}
