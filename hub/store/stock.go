package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/reconcile"
)

// StockPlace is a stock that is watched. Site and Lot may be empty for all of them.
type StockPlace struct{ ERP, Site, Storage, Item, Lot string }

// StockOpening is a stock as both sides agreed on it last.
type StockOpening struct {
	StockPlace
	Unit string
	// Held is what the system held at AsOf, Moved what the documents of all known orders had moved by then. They are agreed since BasedAt.
	Held, Moved   decimal.Decimal
	AsOf, BasedAt time.Time
	// Doubt is a difference that was seen at DoubtAt for the first time; zero when there is none.
	Doubt   decimal.Decimal
	DoubtAt time.Time
	// Accepted is the last discrepancy whose acceptance is part of Held.
	Accepted int64
}

// StockMove is what the documents of one order have moved of an item: above zero into the stock. Storage is empty where it is not told.
type StockMove struct {
	Item, Lot, Unit, Site, Storage string
	Moved                          decimal.Decimal
}

// Of reports whether a move is one of a place, or may be.
func (m StockMove) Of(p StockPlace) bool {
	return m.Item == p.Item && (p.Lot == "" || m.Lot == p.Lot) && (p.Site == "" || m.Site == p.Site) &&
		(p.Storage == "" || m.Storage == "" || m.Storage == p.Storage)
}

const openingColumns = "SELECT erp, site, storage, item, lot, unit, held, moved, as_of, based_at, doubt, doubt_at, accepted FROM stock_openings"

func scanOpening(r *sql.Rows) (o StockOpening, err error) {
	var held, moved, doubt string
	var asOf, based, doubtAt int64
	if err := r.Scan(&o.ERP, &o.Site, &o.Storage, &o.Item, &o.Lot, &o.Unit, &held, &moved, &asOf, &based, &doubt, &doubtAt, &o.Accepted); err != nil {
		return o, err
	}
	o.AsOf, o.BasedAt, o.DoubtAt = at(asOf), at(based), at(doubtAt)
	var errs [3]error
	o.Held, errs[0] = decimal.NewFromString(held)
	o.Moved, errs[1] = decimal.NewFromString(moved)
	o.Doubt, errs[2] = decimal.NewFromString(zeroText(doubt))
	return o, errors.Join(errs[:]...)
}

// StockOpening returns what a place was opened with. ErrNotFound when it was not yet.
func (s *Store) StockOpening(ctx context.Context, p StockPlace) (StockOpening, error) {
	o, err := first(ctx, s, scanOpening, openingColumns+" WHERE erp = $1 AND site = $2 AND storage = $3 AND item = $4 AND lot = $5", p.ERP, p.Site, p.Storage, p.Item, p.Lot)
	if err != nil {
		return o, fmt.Errorf("read opening of stock %+v: %w", p, err)
	}
	return o, nil
}

// PutStockOpening stores an opening.
func (s *Store) PutStockOpening(ctx context.Context, o StockOpening) error {
	if err := s.Update(ctx, func(tx *Tx) error { return tx.putOpening(o) }); err != nil {
		return fmt.Errorf("store opening of stock %+v: %w", o.StockPlace, err)
	}
	return nil
}

func (tx *Tx) putOpening(o StockOpening) error {
	doubt := ""
	if !o.DoubtAt.IsZero() {
		doubt = o.Doubt.String()
	}
	_, err := tx.exec(`INSERT INTO stock_openings (erp, site, storage, item, lot, unit, held, moved, as_of, based_at, doubt, doubt_at, accepted)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13) ON CONFLICT (erp, site, storage, item, lot) DO UPDATE SET unit = excluded.unit,
		held = excluded.held, moved = excluded.moved, as_of = excluded.as_of, based_at = excluded.based_at, doubt = excluded.doubt,
		doubt_at = excluded.doubt_at, accepted = excluded.accepted`,
		o.ERP, o.Site, o.Storage, o.Item, o.Lot, o.Unit, o.Held.String(), o.Moved.String(), us(o.AsOf), us(o.BasedAt), doubt, us(o.DoubtAt), o.Accepted)
	return err
}

// OrdersMoved returns the orders whose documents have moved an item, as they were read last.
func (s *Store) OrdersMoved(ctx context.Context, erp, item string) ([]string, error) {
	all, err := collect(ctx, s, scanValue[string], "SELECT DISTINCT order_no FROM stock_moved WHERE erp = $1 AND item = $2", erp, item)
	if err != nil {
		return nil, fmt.Errorf("list orders that moved item %q: %w", item, err)
	}
	return all, nil
}

// StockMoves returns what the documents of all orders that were read have moved of an item.
func (s *Store) StockMoves(ctx context.Context, erp, item string) ([]StockMove, error) {
	all, err := collect(ctx, s, scanStockMove, "SELECT item, lot, unit, site, storage, moved FROM stock_moved WHERE erp = $1 AND item = $2", erp, item)
	if err != nil {
		return nil, fmt.Errorf("read what moved of item %q: %w", item, err)
	}
	return all, nil
}

func scanStockMove(r *sql.Rows) (m StockMove, err error) {
	var moved string
	if err := r.Scan(&m.Item, &m.Lot, &m.Unit, &m.Site, &m.Storage, &moved); err != nil {
		return m, err
	}
	m.Moved, err = decimal.NewFromString(moved)
	return m, err
}

// PutStockMoves stores what the documents of an order have moved by now. When the order is read for the first time, before says what of
// that was moved before an instant, and false where that cannot be told: openings that are older than the order's reading take it in,
// or are taken anew.
func (s *Store) PutStockMoves(ctx context.Context, erp, orderNo string, moves []StockMove, before func(p StockPlace, t time.Time) (decimal.Decimal, bool)) error {
	err := s.Update(ctx, func(tx *Tx) error {
		n, err := first(tx.ctx, tx, scanValue[int64], "SELECT COUNT(*) FROM stock_moved WHERE erp = $1 AND order_no = $2", erp, orderNo)
		if err != nil {
			return err
		}
		if n == 0 {
			if err := tx.openedBefore(erp, before); err != nil {
				return err
			}
		}
		if _, err := tx.exec("DELETE FROM stock_moved WHERE erp = $1 AND order_no = $2", erp, orderNo); err != nil {
			return err
		}
		for _, m := range append(slices.Clone(moves), StockMove{}) {
			_, err := tx.exec("INSERT INTO stock_moved (erp, order_no, item, lot, unit, site, storage, moved) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
				erp, orderNo, m.Item, m.Lot, m.Unit, m.Site, m.Storage, m.Moved.String())
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("store what order %q moved: %w", orderNo, err)
	}
	return nil
}

// openedBefore brings the openings of a system up to date with an order that was not known when they were taken.
func (tx *Tx) openedBefore(erp string, before func(p StockPlace, t time.Time) (decimal.Decimal, bool)) error {
	all, err := collect(tx.ctx, tx, scanOpening, openingColumns+" WHERE erp = $1", erp)
	if err != nil {
		return err
	}
	for _, o := range all {
		moved, sure := before(o.StockPlace, o.BasedAt)
		if !sure {
			_, err := tx.exec("DELETE FROM stock_openings WHERE erp = $1 AND site = $2 AND storage = $3 AND item = $4 AND lot = $5", o.ERP, o.Site, o.Storage, o.Item, o.Lot)
			if err != nil {
				return err
			}
			continue
		}
		if moved.IsZero() {
			continue
		}
		o.Moved = o.Moved.Add(moved)
		if err := tx.putOpening(o); err != nil {
			return err
		}
	}
	return nil
}

// StockStep is how far the comparison of a system's stocks has come: a step number of OrdersChanged.
func (s *Store) StockStep(ctx context.Context, erp string) (int64, error) {
	text, err := metaText(ctx, s, "stock_step "+erp)
	if err != nil || text == "" {
		return 0, err
	}
	return strconv.ParseInt(text, 10, 64)
}

// SetStockStep stores it.
func (s *Store) SetStockStep(ctx context.Context, erp string, step int64) error {
	return s.Update(ctx, func(tx *Tx) error { return tx.setMeta("stock_step "+erp, strconv.FormatInt(step, 10)) })
}

// StockAccepted returns what people have accepted of a stock's differences after a discrepancy's number, oldest first.
func (s *Store) StockAccepted(ctx context.Context, subject string, after int64) ([]reconcile.Discrepancy, error) {
	all, err := collect(ctx, s, scanDiscrepancy, "SELECT id, body FROM discrepancies WHERE type = $1 AND subject = $2 AND state = 'ACCEPTED' AND id > $3 ORDER BY id",
		string(reconcile.BalanceDrift), subject, after)
	if err != nil {
		return nil, fmt.Errorf("list what was accepted of %s: %w", subject, err)
	}
	return all, nil
}

// MergeStock brings the discrepancies of one stock that was judged up to date with what was found of it.
func (s *Store) MergeStock(ctx context.Context, subject string, found []reconcile.Finding, p reconcile.Policy) (changes []reconcile.Change, err error) {
	const ofStock = "SELECT id, body FROM discrepancies WHERE type IN ('balance_drift', 'negative_stock') AND subject = $1 AND closed_at = 0 ORDER BY id"
	if len(found) == 0 { // as mostly: that needs no writer
		live, err := collect(ctx, s, scanDiscrepancy, ofStock, subject)
		if err != nil || len(live) == 0 {
			return nil, err
		}
	}
	err = s.Update(ctx, func(tx *Tx) error {
		known, err := collect(tx.ctx, tx, scanDiscrepancy, ofStock, subject)
		if err != nil {
			return err
		}
		changes, err = tx.merge("", known, found, p)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("store discrepancies of %s: %w", subject, err)
	}
	return changes, nil
}
