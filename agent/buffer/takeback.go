package buffer

import "fmt"

// A commit that failed may be on the disk all the same, or in part: a sync that fails loses some of the pages that were to be
// written, and nobody can tell which. The pages of the commit before it are all there, so the segment is made to show that
// one, by its meta page in the place of the failed one's. The next commit then goes to a new segment.
//
// Writing that meta page may fail too. This process knows which commit is the good one, and looks again before each reading.
// A later process finds such a segment behind others, knows what it must hold, and goes back only if that is then there.

// takeBack makes the active segment show its last good commit, after one that failed.
func (b *Buffer) takeBack(s *segment) {
	b.readMu.Lock()
	defer b.readMu.Unlock()
	s.doubtful = true
	if err := s.showGood(s.disk); err != nil {
		b.cfg.Logger.Warn("take a failed commit back", "segment", s.path, "error", err)
	}
}

// showGood makes a segment of this process show its last good commit: to this process, and when disk is given to later ones.
func (s *segment) showGood(disk Disk) error {
	older, newer, err := metaPages(s.path)
	if err != nil {
		return err
	}
	switch {
	case newer.txid <= s.commit:
		return nil
	case older.txid != s.commit:
		return fmt.Errorf("commit %d is not there, only %d and %d are", s.commit, older.txid, newer.txid)
	}
	_, err = rewind(disk, s.path)
	return err
}

// goBack makes a segment of an earlier process show the commit before its last one, if that holds all records that the
// segment must have. It is tried once.
func (s *segment) goBack() bool {
	if !s.earlier {
		return false
	}
	s.earlier = false
	_ = s.close()
	undo, err := rewind(s.disk, s.path)
	if err != nil {
		return false
	}
	s.trusted = false
	there := segment{first: s.first}
	err = s.viewNow(there.totals)
	if err == nil && there.last >= s.last {
		return true
	}
	_ = s.close()
	s.trusted = false
	undo()
	return false
}
