package posting

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// ErrNotParked says that a posting is not one that a person can decide about now.
var ErrNotParked = errors.New("posting is not parked")

// Replay takes up all parked postings that match and returns how many. What was rejected becomes due again, what nobody could
// tell is looked up again, what differed is compared again, and what lacked its order is planned again: a replay never
// doubles an effect. by names the person, for the audit trail.
func (e *Engine) Replay(ctx context.Context, filter store.PostingFilter, by string) (int, error) {
	filter.State = store.PostingParked
	n := 0
	var taken []store.Posting
	replay := e.replay(by)
	err := e.each(ctx, filter, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		n++
		err := replay(tx, p, f)
		taken = append(taken, *p)
		return err
	})
	e.replayed(taken...)
	if err != nil {
		return 0, fmt.Errorf("replay postings: %w", err)
	}
	return n, nil
}

// ReplayFact is Replay of one fact, by either form of its key. It returns ErrNotParked for one that needs no replay.
func (e *Engine) ReplayFact(ctx context.Context, key, by string) error {
	return e.decide(ctx, "replay", key, e.replay(by))
}

// Accept settles a parked posting by a person's decision: with the number of the document that has the effect, or without
// one when there shall be none. note says why.
func (e *Engine) Accept(ctx context.Context, key, document, note, by string) error {
	return e.decide(ctx, "accept", key, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		if document != "" {
			p.Document, p.DocumentID = document, ""
		}
		p.State, p.Class, p.Code, p.Reason, p.NextStep = store.PostingSettled, "", CodeAccepted, note, ""
		p.Intent, p.Since, p.Tries = nil, tx.Now(), 0
		outcome := pb.Receipt_OUTCOME_NOT_POSTED
		if p.Document != "" {
			outcome = pb.Receipt_OUTCOME_VERIFIED
		}
		return e.changed(tx, *p, f, "accepted", by, outcome)
	})
}

// PostAgain makes a posting due that nobody could tell about, or whose effect was wrong and has been taken back: the person
// vouches that the outside system does not have it. note says how that is known.
func (e *Engine) PostAgain(ctx context.Context, key, note, by string) error {
	return e.decide(ctx, "post again", key, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		if p.Class != ClassCannotTell && p.Class != ClassMismatch {
			return e.replay(by)(tx, p, f)
		}
		due(p, tx)
		p.Reason, p.Document, p.DocumentID = note, "", ""
		return e.changed(tx, *p, f, "replayed", by, outcomeOf(*p))
	})
}

func (e *Engine) decide(ctx context.Context, what, key string, change func(*store.Tx, *store.Posting, store.Fact) error) error {
	var taken store.Posting
	err := e.onFact(ctx, what, key, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		if p.State != store.PostingParked {
			return fmt.Errorf("%w: it is %q", ErrNotParked, p.State)
		}
		err := change(tx, p, f)
		taken = *p
		return err
	})
	if err == nil {
		e.replayed(taken)
	}
	return err
}

// onFact changes the posting of one fact in one transaction.
func (e *Engine) onFact(ctx context.Context, what, key string, change func(*store.Tx, *store.Posting, store.Fact) error) error {
	f, err := e.o.Store.FactByKey(ctx, key)
	if err != nil {
		return err
	}
	if err := e.o.Store.Update(ctx, func(tx *store.Tx) error { return e.one(tx, f.ID, change) }); err != nil {
		return fmt.Errorf("%s fact %q: %w", what, key, err)
	}
	return nil
}

func due(p *store.Posting, tx *store.Tx) {
	p.State, p.Class, p.Code, p.Reason, p.NextStep = store.PostingDue, "", "", "", ""
	p.Intent, p.Tries, p.Since, p.NextAt = nil, 0, tx.Now(), tx.Now()
}

// beforePosting are the codes of postings that never came to an outside system.
var beforePosting = []string{
	CodeUnknownOrder, CodeOrderWithoutPlant, CodeNoConnector, CodeWrongPlant, CodeNoOrder, CodeReversal, CodeWaitsForOriginal, CodeNegative, CodeRangeOverlap,
	CodeMappingMissing, CodeUnknownOperation,
}

func (e *Engine) replay(by string) func(*store.Tx, *store.Posting, store.Fact) error {
	return func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		switch {
		case p.Code == CodeRangeOverlap:
			return nil // nothing can have changed
		case slices.Contains(beforePosting, p.Code):
			return e.readmit(by)(tx, p, f)
		case p.Class == ClassCannotTell:
			doubt(p, tx.Now(), "asked for by a person")
			p.NextAt = tx.Now()
		case p.Class == ClassMismatch:
			p.State, p.Class, p.Code, p.Reason, p.NextStep = store.PostingPosted, "", "", "", ""
			p.Since, p.Tries, p.NextAt = tx.Now(), 0, tx.Now()
		default:
			due(p, tx)
			if _, err := e.sayAgain(tx, p, f); err != nil {
				return err
			}
		}
		return e.changed(tx, *p, f, "replayed", by, outcomeOf(*p))
	}
}

// readmit plans a posting again that never came to an outside system.
func (e *Engine) readmit(by string) func(*store.Tx, *store.Posting, store.Fact) error {
	return func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		before := *p
		posted, err := asPosted(tx, f)
		if err != nil {
			return err
		}
		if err := e.admit(tx, p, posted); err != nil {
			return err
		}
		if p.State == before.State && p.Code == before.Code && p.Reason == before.Reason && p.Closing == before.Closing {
			return nil
		}
		step, outcome := admittedStep(*p), outcomeOf(*p)
		if outcome == pb.Receipt_OUTCOME_RECEIVED && (before.State != store.PostingParked || before.Class == ClassWaiting) {
			outcome = pb.Receipt_OUTCOME_UNSPECIFIED // that is what the plant knows
		}
		return e.changed(tx, *p, f, step, by, outcome)
	}
}

// admittedStep is the step in the life of a posting that was parked and has been admitted again.
func admittedStep(p store.Posting) string {
	if p.State == store.PostingDue {
		return "released"
	}
	return string(p.State)
}

// admitWaiting releases postings whose order has come, of those orders, and returns their lanes and what is still waited for.
func (e *Engine) admitWaiting(ctx context.Context, orders []string) (lanes []store.Lane, waiting []wait, err error) {
	readmit := e.readmit("")
	for some := range slices.Chunk(orders, store.OrdersAtOnce) {
		for after, n := int64(0), planAtOnce; n == planAtOnce; {
			err := e.o.Store.Update(ctx, func(tx *store.Tx) error {
				ids, err := tx.Admissible(some, CodeUnknownOrder, CodeOrderWithoutPlant, after, planAtOnce)
				if err != nil {
					return err
				}
				if err := e.crash("admitting"); err != nil {
					return err
				}
				for _, id := range ids {
					err := e.one(tx, id, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
						if err := readmit(tx, p, f); err != nil {
							return err
						}
						if p.Class == ClassWaiting {
							waiting = append(waiting, wait{p.Code, p.OrderNo})
						}
						lanes = append(lanes, store.Lane{ERP: p.ERP, OrderNo: p.OrderNo})
						return nil
					})
					if err != nil {
						return err
					}
					after = id
				}
				n = len(ids)
				return nil
			})
			if err != nil {
				return nil, nil, fmt.Errorf("admit waiting postings: %w", err)
			}
		}
	}
	return lanes, waiting, nil
}
