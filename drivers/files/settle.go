package files

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// finished is a file whose records are all in the group, or durable.
type finished struct {
	candidate
	hash        string
	progress    *progress
	duplicate   taken
	isDuplicate bool
}

// group is what becomes durable together: some small files, or a part of a large one.
type group struct {
	*feed
	store   store
	signals []signal.Signal
	files   []finished
}

const filesTogether = 200

func (g *group) finish(d finished) { g.files = append(g.files, d) }

// again marks a file whose content another one of this group has.
func (g *group) again(d finished) finished {
	for _, other := range g.files {
		if d.fresh && other.hash == d.hash {
			d.duplicate, d.isDuplicate = newTaken(d.hash, other.entry), true
		}
	}
	return d
}

// refuse puts a file aside as a whole. One signal says so; content is nil when it was not read.
func (g *group) refuse(c candidate, hash string, p *progress, why signal.Problem, content *content) {
	p.Refused = &why
	g.book.of(g.config.Tag)[hash] = p
	s := signal.Signal{Tag: g.config.Tag, Topic: c.name, Position: hash + "|file", SourceTime: c.mtime, ReceivedTime: time.Now(), Problem: &why}
	if content != nil {
		s.Payload = bytes.Clone(content.small[:min(len(content.small), maxPayload)])
	}
	g.signals = append(g.signals, s)
	g.finish(finished{candidate: c, hash: hash, progress: p})
}

func (g *group) flushFull(ctx context.Context) error {
	if len(g.signals) < g.config.Batch && len(g.files) < filesTogether {
		return nil
	}
	return g.flush(ctx)
}

// flush makes the group durable, notes its files in the index, and only then moves them.
func (g *group) flush(ctx context.Context) error {
	if len(g.signals) > 0 {
		if err := g.book.commit(ctx, g.signals); err != nil {
			return err
		}
	}
	files := g.files
	g.signals, g.files = nil, nil
	if err := g.note(files); err != nil {
		g.raise("index", indexProblem(g.index.path, err))
		for _, d := range files {
			g.parked[d.path] = d
		}
		return nil
	}
	for _, d := range files {
		if err := g.close(g.store, d); err != nil {
			return err
		}
	}
	return nil
}

// note makes it durable that the files' contents were taken.
func (f *feed) note(files []finished) error {
	var list []taken
	for _, d := range files {
		known, ok := f.index.taken[d.hash]
		moved := f.config.Keep && ok && (known.Name != d.name || !known.fits(d.entry))
		if d.progress.Refused == nil && (!ok || moved) {
			list = append(list, newTaken(d.hash, d.entry))
		}
	}
	return f.index.add(list)
}

// retry does the rest for a file that could not be noted or moved before.
func (f *feed) retry(_ context.Context, st store, d finished) error {
	if err := f.note([]finished{d}); err != nil {
		f.raise("index", indexProblem(f.index.path, err))
		return nil
	}
	return f.close(st, d)
}

// close moves a file to where it belongs. A move that fails is tried again in each scan; the error says that the connection
// is gone.
func (f *feed) close(st store, d finished) error {
	if f.config.Keep {
		if d.progress.Refused != nil {
			f.refused[d.name] = refusal{d.entry, *d.progress.Refused}
		}
		f.forget(d)
		return nil
	}
	err := f.move(st, d)
	if err != nil {
		f.made = ""
	}
	switch {
	case err == nil || errors.Is(err, fs.ErrNotExist) && gone(st, d.path):
		f.forget(d)
		return nil
	case st.lost(err):
		return err
	}
	f.parked[d.path] = d
	f.raise("move", signal.Problem{Code: "move_failed", Item: d.path, Reason: "its records are safe, but the file cannot be moved away: " + err.Error(),
		NextStep: "make room, or let the agent's user change the folders done and error; it is tried again by itself"})
	return nil
}

func gone(st store, path string) bool {
	_, err := st.stat(path)
	return errors.Is(err, fs.ErrNotExist)
}

func (f *feed) forget(d finished) {
	delete(f.parked, d.path)
	delete(f.book.of(f.config.Tag), d.hash)
}

const reasonSuffix = ".reason.txt"

func (f *feed) move(st store, d finished) error {
	now, err := st.stat(d.path)
	if err != nil {
		return err
	}
	why := d.progress.Refused
	if why == nil && !now.same(d.entry) {
		why = &signal.Problem{Code: "changed_after_reading", Item: d.name,
			Reason:   fmt.Sprintf("the sender went on writing after the file was taken: it had %d bytes then and has %d now; what it held then was taken", d.size, now.size),
			NextStep: "book what was added by hand, or deliver it in a file of its own; let the sender write under another name first, or set ready: marker or a longer settle"}
	}
	dir := st.join(f.folder(f.config.Done, st), time.Now().In(f.zone).Format(time.DateOnly))
	if why != nil {
		dir = f.folder(f.config.Error, st)
	}
	if f.made != dir { // one request less for each file, which counts over a slow line
		if err := st.mkdir(dir); err != nil {
			return err
		}
		f.made = dir
	}
	name, err := freeName(st, dir, d.name, d.hash)
	if err != nil {
		return err
	}
	if note := f.reason(d, why); note != "" { // first the reason: a refused file must never lie there without
		if err := st.write(st.join(dir, name+reasonSuffix), []byte(note)); err != nil {
			return err
		}
	}
	return st.rename(d.path, st.join(dir, name))
}

// reason is the text that is laid beside a file; empty for one that needs none.
func (f *feed) reason(d finished, why *signal.Problem) string {
	var b strings.Builder
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&b, "%-11s%s\n", label+":", text)
		}
	}
	p := d.progress
	switch {
	case why != nil:
		line("Refused", d.name)
		line("Code", why.Code)
		line("Item", why.Item)
		line("Reason", why.Reason)
		line("Next step", why.NextStep)
	case d.isDuplicate:
		line("Duplicate", d.name)
		line("Reason", fmt.Sprintf("the same content was taken on %s as %q; nothing of it was taken again", time.Unix(d.duplicate.At, 0).In(f.zone).Format(time.DateTime), d.duplicate.Name))
		line("Next step", "none, if it was sent twice; if two files may hold the same and both count, set identity: name_and_content")
	case p.BadCount > 0:
		line("Taken", d.name+", but not all of it")
		line("Next step", "deliver the records below again, corrected, in a file of their own: in this file, the good ones would count twice")
	default:
		return ""
	}
	line("Time", time.Now().In(f.zone).Format(time.RFC3339))
	if p.BadCount > 0 {
		fmt.Fprintf(&b, "\n%d records cannot be used:\n", p.BadCount)
		for _, bad := range p.Bad {
			b.WriteString("  " + bad + "\n")
		}
		if p.BadCount > len(p.Bad) {
			fmt.Fprintf(&b, "  and %d more\n", p.BadCount-len(p.Bad))
		}
	}
	return b.String()
}

// freeName is the name, or one with a mark, under which nothing lies in a folder yet.
func freeName(st store, dir, name, mark string) (string, error) {
	ext := path.Ext(name)
	stem := strings.TrimSuffix(name, ext)
	try := name
	for n := 1; ; n++ {
		_, err := st.stat(st.join(dir, try))
		if errors.Is(err, fs.ErrNotExist) {
			return try, nil
		}
		if err != nil {
			return "", err
		}
		if n > 1000 {
			return "", fmt.Errorf("there are too many files %s in %s", name, dir)
		}
		try = fmt.Sprintf("%s~%.8s%s", stem, mark, ext)
		if n > 1 {
			try = fmt.Sprintf("%s~%.8s~%d%s", stem, mark, n, ext)
		}
	}
}
