package ingest

import (
	"context"
	"slices"

	"github.com/linekeeper/linekeeper/hub/store"
)

// job is one batch on its way into the store; its session is answered once, from the committer.
type job struct {
	session *session
	batch   store.Batch
}

const groupRecords = 4096 // of one transaction: bounds how long the first waits for the last

// commitLoop stores what waits, from all streams, in one transaction after the other.
func (s *Server) commitLoop(ctx context.Context) {
	for {
		var group []*job
		select {
		case j := <-s.jobs:
			group = append(group, j)
		case <-ctx.Done():
			return
		}
		for n := len(group[0].batch.Records); n < groupRecords; {
			select {
			case j := <-s.jobs:
				group = append(group, j)
				n += len(j.batch.Records)
				continue
			default:
			}
			break
		}
		s.commit(ctx, group)
	}
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
