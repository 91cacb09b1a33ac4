package files

import (
	"context"
	"errors"
	"fmt"

	"github.com/linekeeper/linekeeper/agent/signal"
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
	step.Problem = f.judge(ctx, c, &p)
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
