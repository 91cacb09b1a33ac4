package ingest

import (
	"context"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/store"
)

// job is one batch on its way into the store; its session is answered once, from the committer.
type job struct {
	session *session
	batch   store.Batch
}

const (
	groupRecords = 4096 // of one transaction: bounds how long the first waits for the last
	enough       = 1024 // records that are worth a transaction of their own at once
	// A transaction costs as much as a few hundred facts, whatever it holds. So on a busy line there are at most a hundred in a
	// second; who comes first after a pause does not wait.
	between = 10 * time.Millisecond
)

// commitLoop stores what waits, from all streams, in one transaction after the other.
func (s *Server) commitLoop(ctx context.Context) {
	pause := time.NewTimer(0)
	defer pause.Stop()
	for begun := (time.Time{}); ; {
		group := s.gather(ctx, pause, begun.Add(between))
		if len(group) == 0 {
			return
		}
		begun = time.Now()
		s.commit(ctx, group)
	}
}

// gather returns batches to store: what waits, and while that is little what comes until a time. None says that ctx ended.
func (s *Server) gather(ctx context.Context, pause *time.Timer, until time.Time) (group []*job) {
	n := 0
	add := func(j *job) {
		group = append(group, j)
		n += len(j.batch.Records)
	}
	select {
	case j := <-s.jobs:
		add(j)
	case <-ctx.Done():
		return nil
	}
	pause.Reset(time.Until(until))
	for ripe := false; n < groupRecords; {
		select {
		case j := <-s.jobs:
			add(j)
			continue
		default:
		}
		if ripe || n >= enough {
			return group
		}
		select {
		case j := <-s.jobs:
			add(j)
		case <-pause.C:
			ripe = true
		case <-ctx.Done():
			return nil
		}
	}
	return group
}

// commit stores a group. When that fails each batch is tried alone, so that one which can never be stored hurts nobody else.
//
// A session whose batch could not be stored is broken: nothing that it sent after that batch may be stored or acknowledged,
// because an acknowledgement covers everything before it.
func (s *Server) commit(ctx context.Context, group []*job) {
	group = slices.DeleteFunc(group, func(j *job) bool { return j.session.isBroken() })
	if len(group) == 0 {
		return
	}
	batches := make([]store.Batch, len(group))
	for i, j := range group {
		batches[i] = j.batch
	}
	verdicts, err := s.o.Store.AppendFacts(ctx, batches)
	if err != nil && len(group) > 1 && ctx.Err() == nil {
		for _, j := range group {
			s.commit(ctx, []*job{j})
		}
		return
	}
	if err != nil {
		s.o.Logger.Error("cannot commit facts: the agents will send them again", "batches", len(group), "error", err)
		for _, j := range group {
			j.session.fail(err)
		}
		return
	}
	s.counts.commits.Add(1)
	for i, j := range group {
		s.count(len(j.batch.Records), verdicts[i])
		j.session.answer(j.batch, verdicts[i])
	}
}

func (s *Server) count(records int, verdicts []store.Verdict) {
	for _, v := range verdicts {
		switch v.Kind {
		case store.Duplicate:
			s.counts.duplicates.Add(1)
		case store.Conflict:
			s.counts.conflicts.Add(1)
		case store.Unreadable:
			s.counts.unreadable.Add(1)
		}
	}
	s.counts.accepted.Add(uint64(records - len(verdicts)))
}
