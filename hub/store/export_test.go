package store

import (
	"context"
	"time"
)

// RowsWritten is how many rows the writer has written since the store was opened.
func (s *Store) RowsWritten(ctx context.Context) (n int, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		n, err = first(tx.ctx, tx, scanValue[int], "SELECT total_changes()")
		return err
	})
	return n, err
}

// SetCompanyTime sets how long Unhurried waits for others. Nobody may be writing.
func (s *Store) SetCompanyTime(d time.Duration) { s.companyTime = d }

// Waiting is how many wait to be written.
func (s *Store) Waiting() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.queue)
}
