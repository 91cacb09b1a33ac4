package store

import (
	"context"
	"sync"
)

// freshFacts bounds how many facts are kept as they came in, about 1.5 KB each.
const freshFacts = 8192

// fresh keeps the latest facts as they came in, until the planner takes them: on a busy line it need not read and decode
// again what was stored a moment ago. What is not here is in the database; nothing is here before its commit.
type fresh struct {
	mu    sync.Mutex
	facts []Fact // in the order of their ids
}

// add keeps facts that have been committed. When there is no room they are left to the database.
func (q *fresh) add(facts []Fact) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if n := len(q.facts); n+len(facts) > freshFacts || n > 0 && len(facts) > 0 && q.facts[n-1].ID >= facts[0].ID {
		return
	}
	q.facts = append(q.facts, facts...)
}

// after returns up to limit facts behind an id without a gap, and forgets those up to it.
func (q *fresh) after(id int64, limit int) []Fact {
	q.mu.Lock()
	defer q.mu.Unlock()
	gone := 0
	for gone < len(q.facts) && q.facts[gone].ID <= id {
		gone++
	}
	n := copy(q.facts, q.facts[gone:])
	clear(q.facts[n:])
	q.facts = q.facts[:n]
	run := 0
	for run < min(n, limit) && q.facts[run].ID == id+1+int64(run) {
		run++
	}
	return append([]Fact(nil), q.facts[:run]...)
}

// Unplanned returns the planner's cursor and up to limit facts behind it, in their order.
func (s *Store) Unplanned(ctx context.Context, limit int) (cursor int64, facts []Fact, err error) {
	if cursor, err = planCursor(ctx, s); err != nil {
		return 0, nil, err
	}
	facts = s.fresh.after(cursor, limit)
	if len(facts) == limit {
		return cursor, facts, nil
	}
	rest, err := collect(ctx, s, scanFact, unplannedColumns+" WHERE f.id > $1 ORDER BY f.id LIMIT $2", cursor+int64(len(facts)), limit-len(facts))
	return cursor, append(facts, rest...), err
}
