package checking

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// heal carries out what was begun. What nobody carries out goes to a person at once and is no heal; what fails otherwise stays in
// healing and goes to a person in the end.
func (c *Checker) heal(ctx context.Context, x reconcile.Change) {
	made, err := c.carryOut(ctx, x.Discrepancy, By, "reconciliation: "+x.Why)
	note := "done"
	if errors.Is(err, ErrByHand) {
		if err := c.o.Store.DropHeal(ctx, x.ID, err.Error()); err != nil {
			c.o.Logger.Warn("what could not be healed could not be written down", "error", err)
		}
		return
	}
	if err != nil {
		note = err.Error()
		c.o.Logger.Warn("a discrepancy could not be healed", "type", x.Type, "subject", x.Subject, "error", err)
	}
	if err := c.o.Store.SetHealMade(ctx, x.ID, made, note); err != nil {
		c.o.Logger.Warn("what was healed could not be written down", "error", err)
	}
}

// ErrByHand says that an action has nobody who carries it out: it stays a proposal, and the text says who does it.
var ErrByHand = errors.New("do it by hand")

// byHand are the actions that the hub does not carry out, and why not.
var byHand = map[reconcile.ActionKind]string{
	reconcile.PostMovement:  "this outside system does not let the hub post a goods movement beside its document: process it there",
	reconcile.Reopen:        "this outside system lets nobody but its own users open an order again",
	reconcile.CountRollover: "a counter is counted by the plant's agent: set the rule's modulus there, or enter the quantity in the outside system",
	reconcile.CountFromZero: "a counter is counted by the plant's agent: set the rule's epoch there, or enter the quantity in the outside system",
	reconcile.Correct:       "a counter is counted by the plant's agent: reverse what was counted too much in the outside system",
	reconcile.Replay:        "no agent can be asked for records again that it has let go: restore its buffer, or export and import it",
	reconcile.Ask:           "a person decides",
}

// carryOut does what is proposed, in the name of somebody. made is the document that it has made, where that is known at once.
func (c *Checker) carryOut(ctx context.Context, d reconcile.Discrepancy, by, reason string) (made string, err error) {
	a := d.Proposed
	switch a.Kind {
	case reconcile.LookUpAndSend:
		if a.Write != "" {
			return "", c.renewWrite(ctx, a.Write, by, reason)
		}
		return "", c.o.Books.Renew(ctx, a.Fact, reason, by)
	case reconcile.Retry, reconcile.WaitReceipt, reconcile.PullMaster:
		if a.Fact == "" { // a stock waits for a receipt that is posted in its turn
			return "", nil
		}
		return "", c.o.Books.ReplayFact(ctx, a.Fact, by)
	case reconcile.PostMovement:
		if a.Document == "" { // of a fact that waits for movements which may be processed by now
			return "", c.o.Books.ReplayFact(ctx, a.Fact, by)
		}
		if _, ok := c.o.Connectors[d.ERP].(connector.MovementPoster); ok && a.Fact != "" {
			return c.postMovements(ctx, a, by, reason)
		}
	case reconcile.Reopen:
		// The posting engine opens the order and restores its state, where the plant's policy lets it.
		if _, ok := c.o.Connectors[d.ERP].(connector.Reopener); ok {
			return "", c.o.Books.ReplayFact(ctx, a.Fact, by)
		}
	case reconcile.ReverseDocument:
		return c.reverse(ctx, d, a.Document, "reverse", a.Document)
	case reconcile.Convert:
		return "", c.o.Books.Convert(ctx, a.Fact, reason, by)
	case reconcile.MoveDate, reconcile.FixDate:
		return "", c.redate(ctx, d, by, reason)
	case reconcile.ReadAgain, reconcile.Estimate:
		return "", nil // the next comparison reads again
	}
	why := byHand[a.Kind]
	if erp := c.o.Connectors[d.ERP]; a.Kind == reconcile.Reopen && erp != nil {
		why = cmp.Or(erp.Capabilities().CannotReopen, why)
	}
	if why == "" {
		why = "nothing is proposed"
	}
	return "", fmt.Errorf("%w: %s", ErrByHand, why)
}

func (c *Checker) renewWrite(ctx context.Context, text, by, reason string) error {
	if c.o.Trade == nil {
		return fmt.Errorf("%w: this hub writes no business objects", ErrByHand)
	}
	w, err := c.o.Store.WriteByKey(ctx, text)
	if err != nil {
		return err
	}
	return c.o.Trade.Renew(ctx, w.Key, reason, by)
}

// postMovements posts what a fact's document lacks. What the outside system refuses, a person has to mend first: that is no heal.
func (c *Checker) postMovements(ctx context.Context, a reconcile.Action, by, reason string) (string, error) {
	out, err := c.o.Books.PostMovements(ctx, a.Fact, a.Document, reason, by)
	switch {
	case err != nil:
		return "", err
	case out.Result == connector.Rejected && out.Class != connector.Retryable:
		return "", fmt.Errorf("%w: %s %s", ErrByHand, out.Reason, out.NextStep)
	case out.Result != connector.Posted:
		return "", fmt.Errorf("%s: %s %s", out.Result, out.Code, out.Reason)
	}
	return out.Document.Number, nil
}

// reverse makes the opposite of a document that no fact asked for, under a key of its own.
func (c *Checker) reverse(ctx context.Context, d reconcile.Discrepancy, number string, position ...string) (string, error) {
	if _, ok := c.o.Connectors[d.ERP].(connector.DocumentReverser); !ok || number == "" {
		return "", fmt.Errorf("%w: system %q takes no document back by itself", ErrByHand, d.ERP)
	}
	out, err := c.o.Books.ReverseDocument(ctx, d.ERP, d.OrderNo, number, factkey.Of(factkey.Position(append([]string{"reconciliation", fmt.Sprint(d.ID)}, position...)...)).String())
	if err == nil && out.Result != connector.Posted {
		err = fmt.Errorf("%s: %s %s", out.Result, out.Code, out.Reason)
	}
	return out.Document.Number, err
}

// redate posts a fact with the date that it should have. What was found may be old: the date is worked out from what is stored now.
func (c *Checker) redate(ctx context.Context, d reconcile.Discrepancy, by, reason string) error {
	f, err := c.o.Store.FactByKey(ctx, d.Proposed.Fact)
	if err != nil {
		return err
	}
	was, err := c.dateOf(ctx, f)
	if err != nil {
		return err
	}
	day := midnight(was)
	if d.Proposed.Kind == reconcile.FixDate {
		zone, err := time.LoadLocation(f.Fact.TimeZone)
		if err != nil {
			return fmt.Errorf("%w: the zone of fact %s is not known: %w", ErrByHand, f.Fact.Key, err)
		}
		day = midnight(f.Fact.OccurredAt.In(zone))
	} else if day, err = c.openDay(ctx, f, day); err != nil {
		return err
	}
	return c.o.Books.RetryOn(ctx, d.Proposed.Fact, day, fmt.Sprintf("%s; it happened on %s", reason, f.Fact.OccurredAt.Format(time.DateOnly)), by)
}

// dateOf is the date that a fact is posted with as it stands.
func (c *Checker) dateOf(ctx context.Context, f store.Fact) (time.Time, error) {
	text := f.Fact.PostingDate
	d, err := c.o.Store.PostingDate(ctx, f.ID)
	switch {
	case err == nil:
		text = d.Date
	case !errors.Is(err, store.ErrNotFound):
		return time.Time{}, err
	}
	if text == "" {
		return f.Fact.OccurredAt, nil
	}
	at, err := time.Parse(time.DateOnly, text)
	if err != nil {
		return at, fmt.Errorf("the posting date of fact %s: %w", f.Fact.Key, err)
	}
	return at, nil
}

// openDay is the day to post on instead of one in a closed period. It never lies ahead of the plant's own today.
func (c *Checker) openDay(ctx context.Context, f store.Fact, refused time.Time) (time.Time, error) {
	day := time.Date(refused.Year(), refused.Month()+1, 1, 0, 0, 0, 0, time.UTC)
	if c.o.OpenDay != nil {
		var err error
		if day, err = c.o.OpenDay(ctx, f.Posting.ERP, f.Fact.Plant, refused); err != nil {
			return day, err
		}
	}
	if today := midnight(c.o.Now().In(f.Fact.OccurredAt.Location())); day.After(today) {
		return day, fmt.Errorf("%w: the period of %s is closed and the next one begins on %s only: open the period, or wait", ErrByHand, refused.Format(time.DateOnly), day.Format(time.DateOnly))
	}
	return day, nil
}

// midnight is the calendar date of a time in its own zone, as midnight UTC.
func midnight(t time.Time) time.Time {
	y, m, d := t.Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}
