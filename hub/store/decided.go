package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/linekeeper/linekeeper/hub/mapping"
)

// Decided is what was decided about one posting beside what its fact says. Most postings have nothing of it.
type Decided struct {
	Correction *Correction      // the last one; nil for none
	Applied    *mapping.Applied // how it is said in the outside system's words; nil for as the fact says
	Date       PostingDate      // zero where the fact's own counts
}

// isDecided says which of them there are.
type isDecided struct{ correction, applied, date bool }

func (is *isDecided) columns() []any { return []any{&is.correction, &is.applied, &is.date} }

const whatIsDecided = `EXISTS (SELECT 1 FROM corrections WHERE fact_id = $1), EXISTS (SELECT 1 FROM posting_maps WHERE fact_id = $1),
	EXISTS (SELECT 1 FROM posting_dates WHERE fact_id = $1)`

// Decided returns what was decided about the posting of a fact. One question is enough where nothing was.
func (s *Store) Decided(ctx context.Context, factID int64) (Decided, error) {
	is, err := lookup(ctx, s, func(r *sql.Rows) (is isDecided, err error) { return is, r.Scan(is.columns()...) }, "SELECT "+whatIsDecided, factID)
	if err != nil {
		return Decided{}, fmt.Errorf("read what was decided about posting %d: %w", factID, err)
	}
	return s.decided(ctx, factID, is)
}

func (s *Store) decided(ctx context.Context, factID int64, is isDecided) (d Decided, err error) {
	if is.correction {
		d.Correction, err = s.Correction(ctx, factID)
	}
	if err == nil && is.applied {
		d.Applied, err = s.Applied(ctx, factID)
	}
	if err == nil && is.date {
		if d.Date, err = s.PostingDate(ctx, factID); errors.Is(err, ErrNotFound) {
			err = nil // it was taken back meanwhile
		}
	}
	if err != nil {
		return d, fmt.Errorf("read what was decided about posting %d: %w", factID, err)
	}
	return d, nil
}

// Task is all that a step of a posting has to know of it.
type Task struct {
	Posting Posting
	Fact    Fact
	Decided Decided
}

const taskColumns = "SELECT " + ofPosting + ", " + ofFact + ", " + whatIsDecided + `
	FROM postings p JOIN facts f ON f.id = p.fact_id JOIN positions pos ON pos.id = f.position_id JOIN agents a ON a.id = pos.agent_id
	LEFT JOIN fact_index x ON x.fact_id = f.id WHERE p.fact_id = $1`

// Task returns the posting of a fact with what its steps need. ErrNotFound when there is none. It is one question, because it is
// asked for each step of each posting.
func (s *Store) Task(ctx context.Context, factID int64) (Task, error) {
	type row struct {
		t  Task
		is isDecided
	}
	found, err := lookup(ctx, s, func(r *sql.Rows) (x row, err error) {
		var p postingRow
		var f factRow
		if err := r.Scan(append(append(p.columns(), f.columns()...), x.is.columns()...)...); err != nil {
			return x, err
		}
		x.t.Fact = f.fact()
		x.t.Posting, err = p.posting()
		return x, err
	}, taskColumns, factID)
	if err == nil {
		found.t.Decided, err = s.decided(ctx, factID, found.is)
	}
	return found.t, err
}
