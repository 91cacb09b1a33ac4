package posting

import "github.com/linekeeper/linekeeper/hub/store"

func (e *Engine) note(tx *store.Tx, factID int64, s store.PostingStep) error {
	s.FactID = factID
	return tx.AddPostingStep(s)
}

func (e *Engine) setDate(tx *store.Tx, d store.PostingDate) error { return tx.SetPostingDate(d) }
