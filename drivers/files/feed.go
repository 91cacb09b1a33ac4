package files

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// feed is one folder at work. Its methods are called by one goroutine.
type feed struct {
	*source
	config  Feed
	answers *Answers // nil for an ordinary feed
	index   *index

	seen     map[string]observation
	parked   map[string]finished // by path: all but the last move is done
	refused  map[string]refusal  // of a folder that is kept: what this run refused
	book     *book
	problems map[string]bool // those that are shown
	raised   map[string]bool // those of this round
	due      time.Time
	pruned   time.Time
	ready    bool   // the folders of this connection are there
	made     string // the folder that the last file was moved to
}

// observation is how a file looked since when.
type observation struct {
	entry entry
	since time.Time
	scans int
}

// refusal is why a file that stays in its folder was refused.
type refusal struct {
	entry   entry
	problem signal.Problem
}

// candidate is a file that may be taken.
type candidate struct {
	entry
	path  string // where it lies now
	fresh bool   // not yet in processing
}

func (f *feed) folder(name string, st store) string { return st.join(f.config.Folder, name) }

// raise shows a problem of the feed; what is not raised again in the next round goes.
func (f *feed) raise(what string, p signal.Problem) {
	key := "feed:" + f.config.Tag + ":" + what
	f.raised[key], f.problems[key] = true, true
	f.env.Reporter.Problem(key, &p)
}

func (f *feed) settleProblems() {
	for key := range f.problems {
		if !f.raised[key] {
			delete(f.problems, key)
			f.env.Reporter.Problem(key, nil)
		}
	}
	clear(f.raised)
}

// scan looks through the folder once and takes what is ready. soon says that something may be ready before the next scan
// would look. The error is the context's, or says that the connection or the folder is gone.
func (f *feed) scan(ctx context.Context, st store) (soon bool, err error) {
	entries, err := st.list(f.config.Folder)
	if err != nil {
		f.raiseFolder(f.config.Folder, err)
		return false, err
	}
	if err := f.prepare(st); err != nil {
		f.raiseFolder(f.config.Folder, err)
		return false, err
	}
	left, err := f.leftovers(ctx, st)
	if err != nil {
		return false, err
	}
	if len(left) == 0 {
		f.purge()
	}
	ready, unsettled := f.choose(st, entries)
	g := &group{feed: f, store: st}
	for _, c := range append(left, ready...) {
		if err := f.take(ctx, g, c); err != nil {
			return false, err
		}
		if err := g.flushFull(ctx); err != nil {
			return false, err
		}
	}
	if err := g.flush(ctx); err != nil {
		return false, err
	}
	return unsettled, f.keepHouse(st, entries)
}

func (f *feed) raiseFolder(folder string, err error) {
	p := signal.Problem{Code: "folder_unreachable", Item: folder, Reason: "the folder cannot be read: " + err.Error(), NextStep: "check the share, its name and the agent's rights; it is tried again by itself"}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		p.Code, p.Reason = "folder_missing", fmt.Sprintf("the folder %s does not exist", folder)
		p.NextStep = "correct folder, make it, or mount the share that it lies on; the agent does not make it, because a share that is not mounted would go unnoticed"
	case errors.Is(err, fs.ErrPermission):
		p.Code = "right_missing"
		p.NextStep = "let the agent's user read and change the folder; with keep: true reading is enough"
	}
	f.raise("folder", p)
}

// prepare makes the folders that files are moved to.
func (f *feed) prepare(st store) error {
	if f.ready || f.config.Keep {
		return nil
	}
	for _, dir := range []string{f.config.Processing, f.config.Done, f.config.Error} {
		if err := st.mkdir(f.folder(dir, st)); err != nil {
			return fmt.Errorf("make folder %s: %w", f.folder(dir, st), err)
		}
	}
	f.ready = true
	return nil
}

// leftovers are files in processing: what a killed agent, or a failed move, left there.
func (f *feed) leftovers(ctx context.Context, st store) ([]candidate, error) {
	if f.config.Keep {
		return nil, nil
	}
	dir := f.folder(f.config.Processing, st)
	entries, err := st.list(dir)
	if err != nil {
		if st.lost(err) {
			return nil, err
		}
		f.ready = false // somebody took it away: it is made again
		f.raiseFolder(dir, err)
		return nil, nil
	}
	var out []candidate
	for _, e := range entries {
		where := st.join(dir, e.name)
		if e.dir || strings.HasSuffix(e.name, ".lk.part") {
			continue
		}
		if done, ok := f.parked[where]; ok {
			if err := f.retry(ctx, st, done); err != nil {
				return nil, err
			}
			continue
		}
		out = append(out, candidate{entry: e, path: where})
	}
	byAge(out)
	return out, nil
}

// purge forgets what is finished when no file waits for its last move any more: its end was not stored with a later batch.
func (f *feed) purge() {
	open := f.book.of(f.config.Tag)
	for hash, p := range open {
		_, noted := f.index.taken[hash]
		if len(f.parked) == 0 && (p.Refused != nil || p.Done && noted) {
			delete(open, hash)
		}
	}
}

func byAge(list []candidate) {
	slices.SortStableFunc(list, func(a, b candidate) int { return cmp.Or(a.mtime.Compare(b.mtime), cmp.Compare(a.name, b.name)) })
}

// choose finds the files of the folder that are ready; unsettled says that others may be soon.
func (f *feed) choose(st store, entries []entry) (ready []candidate, unsettled bool) {
	now := time.Now()
	names := map[string]bool{}
	for _, e := range entries {
		names[e.name] = true
	}
	for name := range f.seen {
		if !names[name] {
			delete(f.seen, name)
		}
	}
	for _, e := range entries {
		if e.dir || !f.matches(e.name) || f.isKnown(e) {
			continue
		}
		c := candidate{entry: e, path: st.join(f.config.Folder, e.name), fresh: true}
		switch f.config.Ready {
		case readyMarker:
			if f.marker(e.name, names) != "" {
				ready = append(ready, c)
			}
		case readyRenamed:
			ready = append(ready, c)
		default:
			if f.stable(e, now) {
				ready = append(ready, c)
			} else {
				unsettled = true
			}
		}
	}
	byAge(ready)
	return ready, unsettled
}

// matches reports whether a name is one of the feed's.
func (f *feed) matches(name string) bool {
	if f.config.Ready == readyMarker && strings.HasSuffix(name, f.config.Marker) {
		return false
	}
	return anyGlob(f.config.Files, name) && !anyGlob(f.config.Ignore, name)
}

// anyGlob compares without case: names on shares come in any.
func anyGlob(globs []string, name string) bool {
	for _, g := range globs {
		if ok, _ := path.Match(strings.ToLower(g), strings.ToLower(name)); ok {
			return true
		}
	}
	return false
}

// marker is the name of the file that says that another one is complete; empty when it is not there.
func (f *feed) marker(name string, names map[string]bool) string {
	for _, m := range []string{name + f.config.Marker, strings.TrimSuffix(name, path.Ext(name)) + f.config.Marker} {
		if names[m] {
			return m
		}
	}
	return ""
}

// isKnown reports whether a file that stays in its folder was read before, as far as name, size and time tell.
func (f *feed) isKnown(e entry) bool {
	if !f.config.Keep {
		return false
	}
	if t, ok := f.index.byName[e.name]; ok && t.fits(e) {
		return true
	}
	r, ok := f.refused[e.name]
	return ok && r.entry.same(e)
}

// stable reports whether a file looked the same in two scans that lie at least settle apart.
func (f *feed) stable(e entry, now time.Time) bool {
	o, ok := f.seen[e.name]
	if !ok || !o.entry.same(e) {
		f.seen[e.name] = observation{entry: e, since: now, scans: 1}
		return false
	}
	o.scans++
	f.seen[e.name] = o
	return now.Sub(o.since) >= f.config.Settle
}

// keepHouse does what has time: old files in done, the size of the index, the count of refused files.
func (f *feed) keepHouse(st store, entries []entry) error {
	there := map[string]bool{}
	if f.config.Keep {
		for _, e := range entries {
			there[e.name] = true
		}
		f.showRefused(there)
	}
	if err := f.index.shrink(there); err != nil {
		f.raise("index", indexProblem(f.index.path, err))
	}
	if f.config.Keep {
		return nil
	}
	if err := f.countRefused(st); err != nil {
		return err
	}
	if f.config.Retention > 0 && time.Since(f.pruned) > time.Hour {
		f.pruned = time.Now()
		return f.prune(st)
	}
	return nil
}

// showRefused shows that files which stay in their folder were refused.
func (f *feed) showRefused(there map[string]bool) {
	var last refusal
	for name, r := range f.refused {
		if !there[name] {
			delete(f.refused, name)
		} else if last.entry.name == "" || r.entry.mtime.After(last.entry.mtime) {
			last = r
		}
	}
	if n := len(f.refused); n > 0 {
		last.problem.Reason = fmt.Sprintf("%d files were refused, the latest %q: %s", n, last.entry.name, last.problem.Reason)
		f.raise("refused", last.problem)
	}
}

func indexProblem(path string, err error) signal.Problem {
	return signal.Problem{Code: "index_not_written", Item: path, Reason: "the list of files that were taken cannot be written: " + err.Error(),
		NextStep: "make room on this computer's disk, or let the agent's user write there; the files wait in processing"}
}

// countRefused shows that files lie in error until somebody took them away.
func (f *feed) countRefused(st store) error {
	dir := f.folder(f.config.Error, st)
	entries, err := st.list(dir)
	if err != nil {
		if st.lost(err) {
			return err
		}
		return nil // reported when a file has to go there
	}
	n, latest := 0, entry{}
	for _, e := range entries {
		if !e.dir && !strings.HasSuffix(e.name, reasonSuffix) {
			if n++; e.mtime.After(latest.mtime) {
				latest = e
			}
		}
	}
	if n > 0 {
		f.raise("refused", signal.Problem{Code: "files_refused", Item: dir, Reason: fmt.Sprintf("%d files were refused and lie in %s, the latest %q", n, dir, latest.name),
			NextStep: "read the " + reasonSuffix + " beside each; correct it and move the file back to " + f.config.Folder + ", or take it away"})
	}
	return nil
}

// prune removes what has lain in done for longer than retention.
func (f *feed) prune(st store) error {
	dir := f.folder(f.config.Done, st)
	days, err := st.list(dir)
	if err != nil {
		return onlyLost(st, err)
	}
	for _, d := range days {
		day, err := time.ParseInLocation(time.DateOnly, d.name, f.zone)
		if !d.dir || err != nil || time.Since(day) < f.config.Retention+24*time.Hour {
			continue
		}
		entries, err := st.list(st.join(dir, d.name))
		if err != nil {
			return onlyLost(st, err)
		}
		for _, e := range entries {
			if err := st.remove(st.join(dir, d.name, e.name)); err != nil {
				return onlyLost(st, err)
			}
		}
		if err := st.remove(st.join(dir, d.name)); err != nil {
			return onlyLost(st, err)
		}
	}
	return nil
}

// onlyLost passes an error on when it means that the connection is gone.
func onlyLost(st store, err error) error {
	if st.lost(err) {
		return err
	}
	return nil
}
