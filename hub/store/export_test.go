package store

import "context"

// RowsWritten is how many rows the writer has written since the store was opened.
func (s *Store) RowsWritten(ctx context.Context) (n int, err error) {
	err = s.Update(ctx, func(tx *Tx) error {
		n, err = first(tx.ctx, tx, scanValue[int], "SELECT total_changes()")
		return err
	})
	return n, err
}
