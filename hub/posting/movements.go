package posting

import (
	"context"
	"fmt"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

const stepMovements = "movements posted"

// PostMovements has the outside system post the goods movements that a fact's document lacks, and then compares again. Rejected, nothing
// has changed. It may be asked for again when the answer was lost: what is there is not posted twice.
func (e *Engine) PostMovements(ctx context.Context, key, document, reason, by string) (connector.Outcome, error) {
	var p store.Posting
	err := e.onFact(ctx, "post movements of", key, func(_ *store.Tx, now *store.Posting, _ store.Fact) error {
		if p = *now; p.Document == "" || p.Document != document {
			return fmt.Errorf("%w: its document is %q, not %q", ErrNotNow, p.Document, document)
		}
		return nil
	})
	if err != nil {
		return connector.Outcome{}, err
	}
	poster, ok := e.o.Connectors[p.ERP].(connector.MovementPoster)
	if !ok {
		return connector.Outcome{}, fmt.Errorf("%w: system %q posts no movement of a document by itself", ErrNotNow, p.ERP)
	}
	out, err := e.postMovements(ctx, poster, p)
	if err != nil || out.Result != connector.Posted {
		return out, err
	}
	if err := e.crash("movements posted"); err != nil {
		return out, err
	}
	var taken store.Posting
	err = e.onFact(context.WithoutCancel(ctx), "post movements of", key, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		if p.Document != document {
			return nil // somebody has decided meanwhile
		}
		if p.State == store.PostingParked && p.Class == ClassMismatch && p.Code == CodeDiffers {
			p.State, p.Class, p.Code, p.Reason, p.NextStep = store.PostingPosted, "", "", "", ""
			p.Since, p.Tries, p.NextAt = tx.Now(), 0, tx.Now()
		}
		taken = *p
		return e.changedFor(tx, *p, f, store.PostingStep{Step: stepMovements, Document: out.Document.Number, Reason: reason, By: by}, pb.Receipt_OUTCOME_UNSPECIFIED)
	})
	if err == nil {
		e.replayed(taken)
	}
	return out, err
}

func (e *Engine) postMovements(ctx context.Context, poster connector.MovementPoster, p store.Posting) (out connector.Outcome, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), e.o.CallTimeout)
	defer cancel()
	l := store.Lane{ERP: p.ERP, OrderNo: p.OrderNo}
	c, err := e.prepareCall(ctx, l, store.Waiting{FactID: p.FactID, State: p.State, Closing: p.Closing, NextAt: p.NextAt})
	if err == nil && c == nil {
		err = fmt.Errorf("%w: its posting has just changed", ErrNotNow)
	}
	if err != nil {
		return out, err
	}
	give, err := e.onOrder.take(ctx, l)
	if err != nil {
		return out, fmt.Errorf("wait for other calls about order %q: %w", l.OrderNo, err)
	}
	defer give()
	defer calm("post movements", &err)
	return poster.PostMovements(ctx, c.posting, connector.Document{Number: p.Document, ID: p.DocumentID})
}
