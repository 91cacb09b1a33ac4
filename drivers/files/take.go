package files

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

// take reads one file into the group. The error is the context's, or says that the connection is gone.
func (f *feed) take(ctx context.Context, g *group, c candidate) error {
	if c.fresh && !f.config.Keep {
		claimed, err := f.claim(g.store, c)
		if err != nil || claimed.path == "" {
			return err
		}
		c = claimed
	}
	if c.size > f.config.MaxSize {
		p := signal.Problem{Code: "too_large", Item: c.name, Reason: fmt.Sprintf("the file has %d bytes, more than max_size %d", c.size, f.config.MaxSize), NextStep: "raise max_size, or let the sender write smaller files"}
		g.refuse(c, fmt.Sprintf("large|%s|%d|%d", c.name, c.size, c.mtime.UnixNano()), &progress{}, p, nil)
		return nil
	}
	content, err := f.load(ctx, g.store, c.path, c.entry)
	if err != nil {
		return f.notLoaded(ctx, g.store, c, err)
	}
	defer content.drop()
	open := g.book.of(f.config.Tag)
	p := open[content.hash]
	if p != nil && p.Refused != nil && c.fresh {
		p = nil // it was put back, perhaps after the configuration was corrected
	}
	switch {
	case p != nil && (p.Refused != nil || p.Done):
		g.finish(g.again(finished{candidate: c, hash: content.hash, progress: p}))
		return nil
	case p == nil:
		if before, ok := f.index.taken[content.hash]; ok {
			g.finish(finished{candidate: c, hash: content.hash, progress: &progress{Done: true}, duplicate: before, isDuplicate: c.fresh})
			return nil
		}
		p = &progress{}
		fault := f.judge(ctx, content, p)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if fault != nil {
			open[content.hash] = p
			g.refuse(c, content.hash, p, *fault, content)
			return nil
		}
		open[content.hash] = p
	}
	return f.records(ctx, g, c, content, p)
}

// claim moves a file out of the writers' way. An empty path says that it could not be had.
func (f *feed) claim(st store, c candidate) (candidate, error) {
	dir := f.folder(f.config.Processing, st)
	name, err := freeName(st, dir, c.name, fmt.Sprintf("%x", c.mtime.UnixNano()))
	if err == nil {
		to := st.join(dir, name)
		if err = st.rename(c.path, to); err == nil {
			delete(f.seen, c.name)
			f.unmark(st, c.name)
			return candidate{entry: c.entry, path: to, fresh: true}, nil
		}
	}
	switch {
	case st.lost(err):
		return candidate{}, err
	case errors.Is(err, fs.ErrNotExist):
		return candidate{}, nil // somebody else took it, or renamed it
	}
	f.raise("claim", signal.Problem{Code: "claim_failed", Item: c.path, Reason: "the file cannot be moved to " + dir + ": " + err.Error(),
		NextStep: "close the program that holds it open, or let the agent's user change the folder; for a folder that may only be read set keep: true"})
	return candidate{}, nil
}

// unmark removes the marker of a file that was claimed, so that it does not vouch for the next one of this name.
func (f *feed) unmark(st store, name string) {
	if f.config.Ready != readyMarker {
		return
	}
	entries, err := st.list(f.config.Folder)
	if err != nil {
		return
	}
	names := map[string]bool{}
	for _, e := range entries {
		names[e.name] = true
	}
	if m := f.marker(name, names); m != "" && !names[name] {
		if err := st.remove(st.join(f.config.Folder, m)); err != nil {
			f.env.Logger.Warn("remove marker", "source", f.env.Source, "file", m, "err", err)
		}
	}
}

// notLoaded decides what an error of load means.
func (f *feed) notLoaded(ctx context.Context, st store, c candidate, err error) error {
	var own spoolError
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.As(err, &own):
		f.raise("spool", signal.Problem{Code: "no_room", Item: f.env.Dir, Reason: "a large file cannot be copied to this computer: " + err.Error(), NextStep: "make room on the agent's disk; the file waits"})
	case st.lost(err):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return nil // vanished
	case errors.Is(err, errChanged):
		delete(f.seen, c.name)
		return nil // still being written
	default:
		f.raise("read", signal.Problem{Code: "unreadable", Item: c.path, Reason: "the file cannot be read: " + err.Error(), NextStep: "let the agent's user read the file, and check the disk or share"})
	}
	return nil
}

const worstRecords = 20 // are named in the file beside the original

// judge reads a whole content before anything of it is emitted. It returns why the file is refused, nil when it is not.
func (f *feed) judge(ctx context.Context, c *content, p *progress) *signal.Problem {
	if c.entry.size == 0 {
		return &signal.Problem{Code: "empty_file", Item: c.entry.name, Reason: "the file is empty", NextStep: "let the sender write the file whole, under another name first; take this one away"}
	}
	good, fault := f.count(ctx, c, p)
	switch {
	case fault != nil:
		return fault
	case p.BadCount > 0 && f.config.OnError == onErrorReject:
		return &signal.Problem{Code: "bad_records", Item: c.entry.name, Reason: fmt.Sprintf("%d of %d records cannot be used, and on_error is reject_file", p.BadCount, good+p.BadCount),
			NextStep: "correct the records that are named below, and deliver the file again"}
	case p.BadCount > 0 && good == 0:
		return &signal.Problem{Code: "no_good_record", Item: c.entry.name, Reason: fmt.Sprintf("none of its %d records can be used", p.BadCount),
			NextStep: "compare the file with the feed's format; then move it back to " + f.config.Folder}
	}
	return nil
}

func (f *feed) count(ctx context.Context, c *content, p *progress) (good int, fault *signal.Problem) {
	in, err := c.open()
	if err != nil {
		return 0, &signal.Problem{Code: "unreadable", Item: c.entry.name, Reason: err.Error(), NextStep: "move the file back to " + f.config.Folder}
	}
	defer in.Close()
	r, err := f.reader(in)
	for n := 0; err == nil && ctx.Err() == nil; n++ {
		var rec payload.Record
		if rec, err = r.Next(); err != nil {
			break
		}
		s, _ := f.signal(rec, c, n)
		switch {
		case s.Problem != nil:
			if p.BadCount++; len(p.Bad) < worstRecords {
				p.Bad = append(p.Bad, fmt.Sprintf("record %d: %s: %s", n+1, s.Problem.Code, strings.TrimPrefix(s.Problem.Reason, c.entry.name+", ")))
			}
		default:
			good++ // one that where leaves out is as good as any
		}
	}
	var whole *payload.Fault
	switch {
	case err == nil || errors.Is(err, io.EOF): // nil: told to stop, and nobody asks for more
		return good, nil
	case errors.As(err, &whole):
		p.Bad, p.BadCount = nil, 0
		q := whole.Problem
		if whole.Line > 0 {
			q.Reason = fmt.Sprintf("line %d: %s", whole.Line, q.Reason)
		}
		return good, &q
	}
	return good, &signal.Problem{Code: "unreadable", Item: c.entry.name, Reason: err.Error(), NextStep: "move the file back to " + f.config.Folder}
}

// records adds what is not durable yet to the group.
func (f *feed) records(ctx context.Context, g *group, c candidate, content *content, p *progress) error {
	in, err := content.open()
	if err != nil {
		return err
	}
	defer in.Close()
	r, err := f.reader(in)
	for n := 0; err == nil; n++ {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		var rec payload.Record
		if rec, err = r.Next(); err != nil || n < p.Records {
			continue
		}
		p.Records = n + 1
		if s, ok := f.signal(rec, content, n); ok || s.Problem != nil {
			g.signals = append(g.signals, s)
		}
		if err := g.flushFull(ctx); err != nil {
			return err
		}
	}
	if !errors.Is(err, io.EOF) { // it could be read when it was judged: the configuration has changed since
		g.refuse(c, content.hash, p, signal.Problem{Code: "half_taken", Item: c.name, Reason: fmt.Sprintf("its first %d records were taken before the agent was started anew, the others cannot be read: %v", p.Records, err),
			NextStep: "set the configuration of the feed back and move the file to " + f.config.Folder + "; what was taken counts once"}, content)
		return nil
	}
	p.Done = true
	g.finish(finished{candidate: c, hash: content.hash, progress: p})
	return nil
}

// signal makes the n-th record of a content a signal; ok is false for one that where leaves out.
func (f *feed) signal(rec payload.Record, c *content, n int) (s signal.Signal, ok bool) {
	s = signal.Signal{Tag: f.config.Tag, Topic: c.entry.name, Payload: rec.Raw, Position: fmt.Sprintf("%s|%d", c.hash, n), SourceTime: c.entry.mtime, ReceivedTime: time.Now(), Problem: rec.Problem}
	if s.Problem != nil { // a person who sees it needs to know where it stands
		named := *s.Problem
		where := c.entry.name
		if rec.Line > 0 {
			where = fmt.Sprintf("%s, line %d", where, rec.Line)
		}
		named.Reason = where + ": " + strings.TrimPrefix(named.Reason, fmt.Sprintf("line %d: ", rec.Line))
		s.Problem = &named
		return s, false
	}
	if t := f.when(rec); !t.IsZero() {
		s.SourceTime = t
	}
	if f.answers != nil || isAnswer(rec.Value) {
		f.answerSignal(&s, rec.Value)
		return s, s.Problem == nil
	}
	s.Value = rec.Value
	if ok, s.Problem = f.wanted(rec.Value); ok {
		s.Position, s.Problem = f.position(rec.Value, c.hash, n)
	}
	if s.Problem != nil {
		s.Value, s.Position, ok = nil, fmt.Sprintf("%s|%d", c.hash, n), false
	}
	return s, ok
}

func isAnswer(v any) bool {
	_, ok := v.(answer)
	return ok
}

// answerSignal fills the signal of an answer to a work order.
func (f *feed) answerSignal(s *signal.Signal, v any) {
	m, ok := v.(answer)
	if ok {
		s.Value = map[string]any(m)
	} else if s.Value, s.Problem = f.answers.read(v, f.zone); s.Problem != nil {
		s.Value = nil
		return
	}
	if f.answers == nil {
		s.Tag = signal.AnswerTag
	}
	if t, has := s.Value.(map[string]any)["changed_at"].(time.Time); has {
		s.SourceTime = t
	}
}
