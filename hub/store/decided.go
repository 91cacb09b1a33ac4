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

// Decided returns what was decided about the posting of a fact. One question is enough where nothing was.
func (s *Store) Decided(ctx context.Context, factID int64) (d Decided, err error) {
	type there struct{ correction, applied, date bool }
	is, err := lookup(ctx, s, func(r *sql.Rows) (t there, err error) { return t, r.Scan(&t.correction, &t.applied, &t.date) },
		`SELECT EXISTS (SELECT 1 FROM corrections WHERE fact_id = $1), EXISTS (SELECT 1 FROM posting_maps WHERE fact_id = $1),
		EXISTS (SELECT 1 FROM posting_dates WHERE fact_id = $1)`, factID)
	if err == nil && is.correction {
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
