package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// PostingDate is the date for the books of a posting that does not have its fact's own, or that a person has approved.
type PostingDate struct {
	FactID int64
	// Date and Event are calendar dates (2026-11-01): the one that is posted with, and the fact's own.
	Date, Event string
	Reason      string
	// ApprovedBy names the person who let it be posted in spite of a policy; empty when the policy itself chose the date.
	ApprovedBy string
}

const postingDateColumns = "SELECT d.fact_id, d.date, d.event_date, d.reason, d.approved_by FROM posting_dates d"

func scanPostingDate(r *sql.Rows) (d PostingDate, err error) {
	return d, r.Scan(&d.FactID, &d.Date, &d.Event, &d.Reason, &d.ApprovedBy)
}

// PostingDate returns what was decided about the date of a fact's posting. ErrNotFound when the fact's own date counts.
func (s *Store) PostingDate(ctx context.Context, factID int64) (PostingDate, error) {
	return lookup(ctx, s, scanPostingDate, postingDateColumns+" WHERE d.fact_id = $1", factID)
}

// PostingDate is Store.PostingDate inside a transaction.
func (tx *Tx) PostingDate(factID int64) (PostingDate, error) {
	return first(tx.ctx, tx, scanPostingDate, postingDateColumns+" WHERE d.fact_id = $1", factID)
}

// SetPostingDate stores what was decided about the date of a posting.
func (tx *Tx) SetPostingDate(d PostingDate) error {
	_, err := tx.exec(`INSERT INTO posting_dates (fact_id, date, event_date, reason, approved_by) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (fact_id) DO UPDATE SET date = excluded.date, event_date = excluded.event_date, reason = excluded.reason, approved_by = excluded.approved_by`,
		d.FactID, d.Date, d.Event, d.Reason, d.ApprovedBy)
	return err
}

// ClearPostingDate lets the fact's own date count again.
func (tx *Tx) ClearPostingDate(factID int64) error {
	_, err := tx.exec("DELETE FROM posting_dates WHERE fact_id = $1", factID)
	return err
}

// ClosedMonth is the last month (2026-10) that a system was found to have closed for a plant, and when; empty when none was.
func (s *Store) ClosedMonth(ctx context.Context, erp, plant string) (month string, learned time.Time, err error) {
	var at64 int64
	month, err = lookup(ctx, s, func(r *sql.Rows) (m string, err error) { return m, r.Scan(&m, &at64) },
		"SELECT month, learned_at FROM closed_periods WHERE erp = $1 AND plant = $2", erp, plant)
	if errors.Is(err, ErrNotFound) {
		return "", time.Time{}, nil
	}
	return month, at(at64), err
}

// SetClosedMonth stores that a system has closed a month for a plant.
func (tx *Tx) SetClosedMonth(erp, plant, month string) error {
	_, err := tx.exec(`INSERT INTO closed_periods (erp, plant, month, learned_at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (erp, plant) DO UPDATE SET month = excluded.month, learned_at = excluded.learned_at`, erp, plant, month, us(tx.now))
	return err
}

// PostedYield sums what has its effect in the books of the yield of an order's operation.
func (s *Store) PostedYield(ctx context.Context, l object.LedgerKey) (decimal.Decimal, error) {
	var w where
	w.and("order_no = ?", l.OrderNo)
	w.and("plant = ?", l.Plant)
	w.and("operation = ?", l.Operation)
	w.and("item = ?", l.Item)
	w.and("kind = ?", string(object.Yield))
	w.and("unit = ?", l.Unit)
	all, err := collect(ctx, s, scanSum, sumColumns+w.String(), w.args...)
	if err != nil {
		return decimal.Zero, fmt.Errorf("sum the yield of order %q: %w", l.OrderNo, err)
	}
	var sum decimal.Decimal
	for _, t := range all {
		sum = sum.Add(t.posted)
	}
	return sum, nil
}

// Rest is what rounding left over of one line of the ledger.
type Rest struct {
	object.LedgerKey
	Value decimal.Decimal
}

// Residues lists what rounding has left over of an order.
func (tx *Tx) Residues(erp, orderNo string) ([]Rest, error) {
	return collect(tx.ctx, tx, func(r *sql.Rows) (x Rest, err error) {
		var v string
		if err := r.Scan(&x.OrderNo, &x.Operation, &x.Item, &x.Kind, &x.Unit, &v); err != nil {
			return x, err
		}
		x.Value, err = decimal.NewFromString(v)
		return x, err
	}, "SELECT order_no, operation, item, kind, unit, value FROM residues WHERE erp = $1 AND order_no = $2 AND value <> '0' ORDER BY operation, item, kind, unit", erp, orderNo)
}

// Reopening is an order that the hub has had reopened, or is about to.
type Reopening struct {
	Lane
	State ReopeningState
	// Was is the order's state before, in the system's own words; empty while it is only wanted.
	Was string
	// Times counts the reopenings since FirstAt.
	Times              int
	FirstAt, ChangedAt time.Time
}

// ReopeningState is how far a reopening is.
type ReopeningState string

// The states of a reopening.
const (
	ReopeningWanted   ReopeningState = "wanted" // the order was found shut
	ReopeningBegun    ReopeningState = "begun"  // its state is noted, the system may have been asked
	ReopeningOpen     ReopeningState = "open"   // it takes postings
	ReopeningRestored ReopeningState = "restored"
)

const reopeningColumns = "SELECT n.erp, n.order_no, n.state, n.was, n.times, n.first_at, n.changed_at FROM reopenings n"

func scanReopening(r *sql.Rows) (n Reopening, err error) {
	var first64, changed int64
	err = r.Scan(&n.ERP, &n.OrderNo, &n.State, &n.Was, &n.Times, &first64, &changed)
	n.FirstAt, n.ChangedAt = at(first64), at(changed)
	return n, err
}

// Reopening returns what the hub did about a shut order; nil for nothing.
func (s *Store) Reopening(ctx context.Context, l Lane) (*Reopening, error) {
	return reopening(ctx, s, l)
}

// Reopening is Store.Reopening inside a transaction.
func (tx *Tx) Reopening(l Lane) (*Reopening, error) { return reopening(tx.ctx, tx, l) }

func reopening(ctx context.Context, db querier, l Lane) (*Reopening, error) {
	return optionalRow(lookup(ctx, db, scanReopening, reopeningColumns+" WHERE n.erp = $1 AND n.order_no = $2", l.ERP, l.OrderNo))
}

// Reopened lists the orders that are to be brought back to their state, or may have to be.
func (s *Store) Reopened(ctx context.Context) ([]Lane, error) {
	return collect(ctx, s, func(r *sql.Rows) (l Lane, err error) { return l, r.Scan(&l.ERP, &l.OrderNo) },
		"SELECT erp, order_no FROM reopenings WHERE state IN ('begun', 'open')")
}

// PutReopening stores what the hub does about a shut order, at the time of the transaction.
func (tx *Tx) PutReopening(n Reopening) error {
	_, err := tx.exec(`INSERT INTO reopenings (erp, order_no, state, was, times, first_at, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (erp, order_no) DO UPDATE SET state = excluded.state, was = excluded.was, times = excluded.times, first_at = excluded.first_at,
		changed_at = excluded.changed_at`, n.ERP, n.OrderNo, string(n.State), n.Was, n.Times, us(n.FirstAt), us(tx.now))
	return err
}
