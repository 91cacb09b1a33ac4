package store

import (
	"context"
	"fmt"
	"time"
)

// A disk that is full, or fails, is told to every caller with what to do about it. Nothing has to be started again: SQLite
// takes the failed transaction back, and the next one finds out whether the disk is well.

// explain adds to an error of the disk which store it was, and the next step. Other errors it leaves alone.
func (s *Store) explain(err error) error {
	if step := nextStep(err); step != "" {
		return fmt.Errorf("%w (store %q: %s)", err, s.path, step)
	}
	return err
}

// trouble is why the disk took no write since the last one that it took.
type trouble struct {
	err error // nil when there is none
	at  time.Time
}

// quiet is how long no write must have failed for the disk to count as well, when none went well either. A disk with a little
// room left takes a small write and refuses the next large one.
const quiet = time.Minute

// judge notes whether the disk took a group of updates, and explains to each why not.
func (s *Store) judge(group []*update) {
	var failed error
	stored := false
	for _, u := range group {
		stored = stored || u.err == nil && !u.check
		if nextStep(u.err) != "" {
			u.err = s.explain(u.err)
			failed = u.err
		}
	}
	now := s.now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if stored {
		s.trouble = trouble{}
	} else if failed != nil {
		s.trouble = trouble{failed, now}
	}
}

// checkWrite finds out whether the disk takes writes again, after it did not.
func (s *Store) checkWrite(ctx context.Context) error {
	s.mu.Lock()
	was := s.trouble
	s.mu.Unlock()
	if was.err == nil {
		return nil
	}
	err := s.wait(ctx, &update{check: true, fn: func(tx *Tx) error {
		return tx.setMeta("checked_at", tx.Now().UTC().Format(time.RFC3339))
	}})
	if err == nil && s.now().Sub(was.at) < quiet {
		err = was.err
	}
	if err != nil {
		return fmt.Errorf("write to store: %w", err)
	}
	return nil
}
