package s4

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
)

var _ connector.MovementPoster = (*Connector)(nil)

// PostMovements implements connector.MovementPoster for receipts that are documents of their own (movements: separate), by the request that
// the confirmation's posting would have sent: SAP answers a repetition with its first answer. What SAP itself moves with a
// confirmation, and could not, waits in its list of failed movements. No service reads or empties that, and what is posted beside it is
// posted again by whoever processes the list: so that is refused.
func (c *Connector) PostMovements(ctx context.Context, p connector.Posting, doc connector.Document) (connector.Outcome, error) {
	fail := func(err error) (connector.Outcome, error) {
		return connector.Outcome{}, fmt.Errorf("post movements of document %q: %w", doc.Number, err)
	}
	switch {
	case p.Fact.Confirmation == nil || !p.Fact.Reverses.IsZero():
		return *reject(connector.Correctable, "NO_MOVEMENTS", "Compare the document in SAP, and post there what is missing.", "Fact %s has no movements beside its document.", p.Fact.Key), nil
	case c.cfg.Movements != movementsSeparate:
		return *reject(connector.Correctable, "COGI", "Process the order's failed goods movements in SAP (transaction COGI): the comparison notices.",
			"SAP keeps the movements of confirmation %s in its list of failed ones, and would post them from there a second time.", doc.Number), nil
	case !c.repeatable():
		return *reject(connector.Correctable, "NOT_REPEATABLE", "Post the receipt in SAP with the fact's key as its reference, then replay the fact.",
			"The receipt of confirmation %s would be a request that can be booked twice: SAP honours no RequestID.", doc.Number), nil
	}
	o, err := c.order(ctx, orderNo(p))
	if errors.Is(err, connector.ErrNotFound) {
		return *reject(connector.Fatal, "UNKNOWN_ORDER", "Check the order in SAP.", "SAP has no order %q.", orderNo(p)), nil
	}
	if err != nil {
		return fail(err)
	}
	steps, no := c.plan(p, &o)
	if no != nil {
		return *no, nil
	}
	i := slices.IndexFunc(steps, func(s step) bool { return s.Do == doDocument })
	if i < 0 {
		return connector.Outcome{Result: connector.Posted}, nil // it receives nothing
	}
	confirmed, err := c.find(ctx, p, steps[0])
	if err != nil {
		return fail(err)
	}
	if confirmed == nil || confirmed.Number != doc.Number {
		return *reject(connector.Correctable, "NO_CONFIRMATION", "Look in SAP what became of the confirmation.", "Confirmation %s of fact %s is not there: its receipt must not be either.", doc.Number, p.Fact.Key), nil
	}
	there, err := c.find(ctx, p, steps[i])
	if err != nil {
		return fail(err)
	}
	if there != nil {
		return connector.Outcome{Result: connector.Posted, Document: *there}, nil
	}
	return c.do(ctx, steps[i], time.Now()), nil
}
