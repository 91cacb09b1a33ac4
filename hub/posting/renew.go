package posting

import (
	"context"
	"errors"
	"fmt"

	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// ErrNotInBooks says that a posting is not one whose effect was thought to be in the books.
var ErrNotInBooks = errors.New("posting is not in the books")

// Renew makes a posting due again whose effect is gone from the outside system, as after that was restored from a copy. The
// connector looks for the fact's key once more before anything is sent, so that an effect which has survived is found and not
// made twice; it is refused for a system that cannot be searched by key. reason says how it is known.
func (e *Engine) Renew(ctx context.Context, key, reason, by string) error {
	f, err := e.o.Store.FactByKey(ctx, key)
	if err != nil {
		return err
	}
	var taken store.Posting
	err = e.o.Store.Update(ctx, func(tx *store.Tx) error {
		return e.one(tx, f.ID, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
			if p.State != store.PostingVerified && (p.State != store.PostingSettled || p.Document == "") {
				return fmt.Errorf("%w: it is %q", ErrNotInBooks, p.State)
			}
			if c, ok := e.o.Connectors[p.ERP]; !ok || !c.Capabilities().ExternalKey {
				return fmt.Errorf("system %q cannot be searched by the fact's key: look there and post it by hand", p.ERP)
			}
			due(p, tx)
			p.Reason, p.Document, p.DocumentID = reason, "", ""
			taken = *p
			return e.changed(tx, *p, f, "renewed", by, pb.Receipt_OUTCOME_RECEIVED)
		})
	})
	if err != nil {
		return fmt.Errorf("post fact %q anew: %w", key, err)
	}
	e.replayed(taken)
	return nil
}
