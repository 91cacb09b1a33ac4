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
	return first(ctx, s, scanPostingDate, postingDateColumns+" WHERE d.fact_id = $1", factID)
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

// PostingDates returns what was decided about the dates of an order's postings, by fact id.
func (s *Store) PostingDates(ctx context.Context, orderNo string) (map[int64]PostingDate, error) {
	all, err := collect(ctx, s, scanPostingDate, postingDateColumns+" JOIN fact_index x ON x.fact_id = d.fact_id WHERE x.order_no = $1", orderNo)
	if err != nil {
		return nil, fmt.Errorf("read posting dates of order %q: %w", orderNo, err)
	}
	byFact := map[int64]PostingDate{}
	for _, d := range all {
		byFact[d.FactID] = d
	}
	return byFact, nil
}

// ClosedMonth is the last month (2026-10) that a system was found to have closed for a plant, and when; empty when none was.
func (s *Store) ClosedMonth(ctx context.Context, erp, plant string) (month string, learned time.Time, err error) {
	var at64 int64
	month, err = first(ctx, s, func(r *sql.Rows) (m string, err error) { return m, r.Scan(&m, &at64) },
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
