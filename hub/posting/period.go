package posting

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// The date for the books is a calendar date of the plant. A month is open until its closing (see Closing), and as long as the
// outside system has not refused one of its dates. The date is decided when a posting's turn has come, stored before anything is
// sent with it, and decided anew only after a refusal.

// believedClosed is how long a month is taken for closed because the outside system said so: it may have been opened again.
const believedClosed = 24 * time.Hour

const monthFormat = "2006-01"

// closesAt is the instant at which the month of a date closes in a zone.
func (c Closing) closesAt(date time.Time, zone *time.Location) time.Time {
	y, m, _ := date.Date()
	last := time.Date(y, m+2, 0, 0, 0, 0, 0, time.UTC).Day() // of the next month
	return time.Date(y, m+1, min(c.Day, last), c.Hour, c.Minute, 0, 0, zone)
}

func nextMonth(date time.Time) time.Time {
	y, m, _ := date.Date()
	return time.Date(y, m+1, 1, 0, 0, 0, 0, time.UTC)
}

// dateOf is the calendar date of an instant in a zone, as midnight UTC.
func dateOf(t time.Time, zone *time.Location) time.Time {
	y, m, d := t.In(zone).Date()
	return time.Date(y, m, d, 0, 0, 0, 0, time.UTC)
}

// calendar says which dates are open for a plant in a system at an instant.
type calendar struct {
	now     time.Time
	zone    *time.Location
	rule    *Closing
	learned string // the last month that the system was found to have closed
}

func (c calendar) closed(date time.Time) bool {
	return date.Format(monthFormat) <= c.learned || c.rule != nil && !c.now.Before(c.rule.closesAt(date, c.zone))
}

func (c calendar) today() time.Time { return dateOf(c.now, c.zone) }

// firstOpen is the first open day at or after a date; false when none is up to today.
func (c calendar) firstOpen(date time.Time) (time.Time, bool) {
	for c.closed(date) {
		date = nextMonth(date)
		if date.After(c.today()) {
			return date, false
		}
	}
	return date, true
}

func (e *Engine) calendar(ctx context.Context, p store.Posting, f object.Fact) (calendar, error) {
	c := calendar{now: e.o.Now(), zone: e.zone(f), rule: closingOf(e.o.Policies, p.ERP, p.Plant)}
	month, learned, err := e.o.Store.ClosedMonth(ctx, p.ERP, p.Plant)
	if err == nil && month != "" && c.now.Sub(learned).Abs() < believedClosed {
		c.learned = month
	}
	return c, err
}

// dating is the date that a policy wants for a posting. hold is a code when a person has to approve it.
type dating struct {
	date         time.Time
	reason, hold string
}

// date decides by the policies, for a fact that was received at a time.
func (c calendar) date(f object.Fact, received time.Time, late Late, doubtful Doubtful) dating {
	event := postingDate(f)
	d := dating{date: event}
	if got := dateOf(received, c.zone); f.ClockSuspect && got.Format(monthFormat) != event.Format(monthFormat) {
		why := fmt.Sprintf("the clock of its source was known to be wrong: it says %s, and the fact was received on %s", event.Format(time.DateOnly), got.Format(time.DateOnly))
		switch doubtful {
		case DoubtfulHold:
			return dating{date: event, reason: why, hold: CodeDoubtfulClock}
		case DoubtfulReceivedDate:
			d.date, d.reason = got, why
		}
	}
	if !c.closed(d.date) || late == LateEventDate {
		return d
	}
	month := d.date.Format(monthFormat)
	open, ok := c.firstOpen(d.date)
	switch {
	case late == LateHold:
		return dating{date: event, reason: fmt.Sprintf("it happened on %s, and month %s is closed", event.Format(time.DateOnly), month), hold: CodeLate}
	case !ok:
		return d // no day is open yet: the system has the last word
	}
	d.date = open
	if d.reason != "" {
		d.reason += "; "
	}
	d.reason += fmt.Sprintf("month %s is closed: it is posted on the first open day", month)
	return d
}

// dated gives a posting its date, stored, or parks it until a person approves one. It reports whether it parked it.
func (e *Engine) dated(ctx context.Context, c *call) (held bool, err error) {
	if c.date.ApprovedBy != "" {
		return false, nil
	}
	cal, err := e.calendar(ctx, c.p, c.posting.Fact)
	if err != nil {
		return false, err
	}
	d := cal.date(c.posting.Fact, c.f.ReceivedAt, LateBy(e.o.Policies, c.p.ERP, c.p.Plant, LateEventDate), doubtfulBy(e.o.Policies, c.p.ERP, c.p.Plant))
	if d.hold != "" {
		return true, e.hold(ctx, c, d.hold, d.reason, "approve it with a date of an open period, or settle it by hand")
	}
	event := postingDate(c.posting.Fact)
	next := store.PostingDate{FactID: c.p.FactID, Date: d.date.Format(time.DateOnly), Event: event.Format(time.DateOnly), Reason: d.reason}
	own := d.date.Equal(event)
	if own && c.date == (store.PostingDate{}) || next == c.date {
		return false, nil
	}
	err = e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		return e.setDate(tx, c.p, c.f, next, own)
	})
	if err == nil {
		c.take(next)
		err = e.crash("dated")
	}
	return false, err
}

// hold parks a posting until a person approves it.
func (e *Engine) hold(ctx context.Context, c *call, code, reason, next string) error {
	park(&c.p, string(connector.Correctable), code, reason, next)
	c.p.Since, c.p.Tries, c.p.Intent = e.o.Now(), 0, nil
	return e.save(ctx, c, "held", pb.Receipt_OUTCOME_REJECTED)
}

// take gives the posting a date that was decided.
func (c *call) take(d store.PostingDate) {
	c.date = d
	date, err := time.Parse(time.DateOnly, d.Date)
	if err != nil {
		return
	}
	event := postingDate(c.posting.Fact)
	if c.posting.PostingDate, c.posting.EventDate = date, event; date.Equal(event) {
		c.posting.EventDate = time.Time{}
	}
}

// periodClosed learns from a refusal that a period is closed, and makes the posting due again for the first day that may be
// open: the one after the month, then the first of the present month. It reports whether it did.
func (e *Engine) periodClosed(ctx context.Context, c *call, out connector.Outcome) (again bool, err error) {
	if reconcile.TypeOf(out.Code) != reconcile.PeriodClosed || c.date.ApprovedBy != "" || LateBy(e.o.Policies, c.p.ERP, c.p.Plant, LateEventDate) != LateFirstOpenDay {
		return false, nil
	}
	cal, err := e.calendar(ctx, c.p, c.posting.Fact)
	if err != nil {
		return false, err
	}
	refused := c.posting.PostingDate
	month := refused.Format(monthFormat)
	if !c.posting.EventDate.IsZero() { // a date that was tried already: no other than the present month is left
		month = max(month, cal.today().AddDate(0, 0, -cal.today().Day()).Format(monthFormat))
	}
	if month >= cal.today().Format(monthFormat) {
		return false, nil // that is no late fact: the present month is not open
	}
	now := e.o.Now()
	c.p.State, c.p.Class, c.p.Code, c.p.NextStep = store.PostingDue, string(out.Class), out.Code, "nothing to do: it is posted on the first open day"
	c.p.Reason = fmt.Sprintf("%s: %s is not open", out.Reason, refused.Format(time.DateOnly))
	c.p.Intent, c.p.Tries, c.p.Since, c.p.NextAt = nil, 0, now, now.Add(time.Second)
	err = e.o.Store.Update(context.WithoutCancel(ctx), func(tx *store.Tx) error {
		if err := tx.SetClosedMonth(c.p.ERP, c.p.Plant, month); err != nil {
			return err
		}
		return e.changed(tx, c.p, c.f, "period closed", "", pb.Receipt_OUTCOME_UNSPECIFIED)
	})
	if err == nil {
		err = e.crash("period closed")
	}
	return true, err
}

// ErrNotHeld says that a posting is not one that a person's approval lets go on.
var ErrNotHeld = errors.New("posting is not held for an approval")

// Approve posts what a policy holds, or what was refused for its date: with the date for the books that the person chose, such as
// 2026-11-01, or the fact's own when it is empty. No policy stops it again. note says why.
func (e *Engine) Approve(ctx context.Context, key, date, note, by string) error {
	if date != "" {
		if _, err := time.Parse(time.DateOnly, date); err != nil {
			return fmt.Errorf("%w: date %q is not like 2026-11-01", ErrNotHeld, date)
		}
	}
	return e.decide(ctx, "approve", key, func(tx *store.Tx, p *store.Posting, f store.Fact) error {
		held := p.Code == CodeLate || p.Code == CodeDoubtfulClock || p.Code == CodeOverDelivery
		if !held && reconcile.TypeOf(p.Code) != reconcile.PeriodClosed {
			return fmt.Errorf("%w: it is parked with code %q; replay it when the cause is mended", ErrNotHeld, p.Code)
		}
		event := postingDate(f.Fact).Format(time.DateOnly)
		d := store.PostingDate{FactID: p.FactID, Date: date, Event: event, Reason: note, ApprovedBy: by}
		if date == "" {
			d.Date = event
		}
		if d.ApprovedBy == "" {
			d.ApprovedBy = "somebody"
		}
		if err := e.setDate(tx, *p, f, d, false); err != nil {
			return err
		}
		due(p, tx)
		p.Reason = fmt.Sprintf("approved for %s: %s", d.Date, note)
		return e.changed(tx, *p, f, "approved", by, outcomeOf(*p))
	})
}
