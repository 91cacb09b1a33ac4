package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/wire"
)

// SetApplied stores how a posting is said in the outside system's words.
func (tx *Tx) SetApplied(factID int64, a *mapping.Applied) error {
	body, err := json.Marshal(a)
	if err != nil {
		return err
	}
	_, err = tx.exec("INSERT INTO posting_maps (fact_id, body) VALUES ($1, $2) ON CONFLICT (fact_id) DO UPDATE SET body = excluded.body", factID, string(body))
	return err
}

// ForgetApplied forgets how a posting was said, because that is decided anew.
func (tx *Tx) ForgetApplied(factID int64) error {
	_, err := tx.exec("DELETE FROM posting_maps WHERE fact_id = $1", factID)
	return err
}

func scanApplied(r *sql.Rows) (*mapping.Applied, error) {
	var body string
	if err := r.Scan(&body); err != nil {
		return nil, err
	}
	return readApplied(body)
}

// readApplied reads the text of a column; nil for an empty one.
func readApplied(body string) (*mapping.Applied, error) {
	if body == "" {
		return nil, nil
	}
	a := &mapping.Applied{}
	if err := json.Unmarshal([]byte(body), a); err != nil {
		return nil, fmt.Errorf("stored mapping of a posting: %w", err)
	}
	return a, nil
}

func applied(ctx context.Context, db querier, factID int64) (*mapping.Applied, error) {
	a, err := lookup(ctx, db, scanApplied, "SELECT body FROM posting_maps WHERE fact_id = $1", factID)
	if errors.Is(err, ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read mapping of posting %d: %w", factID, err)
	}
	return a, nil
}

// Applied returns how a posting is said in the outside system's words; nil for one that was planned while there were no
// mappings.
func (s *Store) Applied(ctx context.Context, factID int64) (*mapping.Applied, error) {
	return applied(ctx, s, factID)
}

// Applied is Store.Applied inside a transaction.
func (tx *Tx) Applied(factID int64) (*mapping.Applied, error) { return applied(tx.ctx, tx, factID) }

// inBooks reads how a posting is said, as reconciliation compares it.
func inBooks(said string) (*reconcile.Words, error) {
	a, err := readApplied(said)
	if err != nil || a == nil || a.Item == "" && a.Unit == "" {
		return nil, err
	}
	w := &reconcile.Words{Item: a.Item, Unit: a.Unit, Amounts: map[object.QuantityKind]decimal.Decimal{}}
	for _, x := range a.Amounts {
		w.Amounts[x.Kind] = x.Posted
	}
	return w, nil
}

// Counted returns what counts of a planned fact, in its own unit. ErrNotFound for one that no planner has stored yet.
func (tx *Tx) Counted(factID int64) (*Amounts, error) {
	return first(tx.ctx, tx, func(r *sql.Rows) (*Amounts, error) {
		var yield, scrap, rework, consumed, returned string
		if err := r.Scan(&yield, &scrap, &rework, &consumed, &returned); err != nil {
			return nil, err
		}
		a := &Amounts{}
		var err error
		if a.Yield, a.Scrap, a.Rework, a.Quantity, err = four(yield, scrap, rework, consumed); err != nil {
			return nil, err
		}
		back, err := decimal.NewFromString(returned)
		a.Quantity = a.Quantity.Add(back)
		return a, err
	}, "SELECT yield, scrap, rework, consumed, returned FROM fact_index WHERE fact_id = $1", factID)
}

// MappedLine is a line of the ledger of which quantities go out as another item or in another unit.
type MappedLine struct {
	ERP            string
	Line           object.LedgerKey
	ToItem, ToUnit string
}

func (l MappedLine) args() []any {
	return []any{l.ERP, l.Line.OrderNo, l.Line.Operation, l.Line.Item, string(l.Line.Kind), l.Line.Unit, l.ToItem, l.ToUnit}
}

// MappedResidue returns what rounding left over: rest in the outside system's unit, own in that of the facts, as far as decimals
// go.
func (tx *Tx) MappedResidue(l MappedLine) (rest *big.Rat, own decimal.Decimal, err error) {
	type pair struct{ rest, own string }
	p, err := first(tx.ctx, tx, func(r *sql.Rows) (p pair, err error) { return p, r.Scan(&p.rest, &p.own) },
		`SELECT rest, own FROM mapped_residues WHERE erp = $1 AND order_no = $2 AND operation = $3 AND item = $4 AND kind = $5 AND unit = $6
		AND to_item = $7 AND to_unit = $8`, l.args()...)
	if errors.Is(err, ErrNotFound) {
		return new(big.Rat), own, nil
	}
	if err != nil {
		return nil, own, err
	}
	rest, ok := new(big.Rat).SetString(p.rest)
	if !ok {
		return nil, own, fmt.Errorf("stored rest %q is no fraction", p.rest)
	}
	own, err = decimal.NewFromString(p.own)
	return rest, own, err
}

// SetMappedResidue stores it.
func (tx *Tx) SetMappedResidue(l MappedLine, rest *big.Rat, own decimal.Decimal) error {
	_, err := tx.exec(`INSERT INTO mapped_residues (erp, order_no, operation, item, kind, unit, to_item, to_unit, rest, own)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (erp, order_no, operation, item, kind, unit, to_item, to_unit) DO UPDATE SET rest = excluded.rest, own = excluded.own`,
		append(l.args(), rest.String(), own.String())...)
	return err
}

// MappedResidues lists what rounding has left over of an order in the outside system's words.
func (tx *Tx) MappedResidues(erp, orderNo string) ([]Rest, error) {
	return collect(tx.ctx, tx, func(r *sql.Rows) (x Rest, err error) {
		var item, rest string
		if err := r.Scan(&x.OrderNo, &x.Operation, &x.Item, &x.Kind, &item, &x.Unit, &rest); err != nil {
			return x, err
		}
		v, ok := new(big.Rat).SetString(rest)
		if !ok {
			return x, fmt.Errorf("stored rest %q is no fraction", rest)
		}
		if item != "" {
			x.Item = item
		}
		x.Value = mapping.RoundTo(v, -1)
		return x, nil
	}, `SELECT order_no, operation, item, kind, to_item, to_unit, rest FROM mapped_residues WHERE erp = $1 AND order_no = $2
		AND rest <> '0/1' ORDER BY operation, item, kind, to_unit`, erp, orderNo)
}

// TrialFilter chooses the facts of a dry run. Limit is 100,000 when 0.
type TrialFilter struct {
	Since          time.Time
	Plant, OrderNo string
	Limit          int
}

// looked bounds how many rows of the index a dry run goes through for one fact that it takes.
const looked = 5

// Samples hands over the facts that a dry run looks at, the latest first. truncated says that there are more.
func (s *Store) Samples(ctx context.Context, f TrialFilter, take func(mapping.Sample)) (truncated bool, err error) {
	if f.Limit <= 0 {
		f.Limit = 100_000
	}
	last, err := first(ctx, s, scanValue[int64], "SELECT COALESCE(MAX(fact_id), 0) FROM fact_index")
	if err != nil {
		return false, fmt.Errorf("read facts for a dry run: %w", err)
	}
	floor := max(last-int64(f.Limit)*looked, 0)
	orders := map[Lane]object.WorkOrder{}
	taken := 0
	for below := last + 1; below > floor+1; {
		rows, err := s.samples(ctx, f, floor, below)
		if err != nil {
			return false, fmt.Errorf("read facts for a dry run: %w", err)
		}
		for _, x := range rows {
			if taken == f.Limit {
				return true, nil
			}
			taken++
			below = x.id
			if x.Sample.Order, err = s.orderOf(ctx, x.ERP, x.Fact.OrderNo(), orders); err != nil {
				return false, err
			}
			take(x.Sample)
		}
		if len(rows) < samplesAtOnce {
			return floor > 0, nil
		}
	}
	return floor > 0, nil
}

// OpenOrders hands over the work orders that are not over.
func (s *Store) OpenOrders(ctx context.Context, erp, plant string, take func(object.WorkOrder)) error {
	for page := (Page{Limit: 1000}); ; {
		orders, err := s.Orders(ctx, OrderFilter{ERP: erp, Plant: plant}, page)
		if err != nil || len(orders) == 0 {
			return err
		}
		for _, o := range orders {
			page.Before = o.ID
			if !o.Order.State.Over() {
				take(o.Order)
			}
		}
	}
}

const samplesAtOnce = 1000

type sample struct {
	mapping.Sample
	id int64
}

func (s *Store) samples(ctx context.Context, f TrialFilter, floor, below int64) ([]sample, error) {
	var w where
	w.and("x.fact_id < ?", below)
	w.and("x.fact_id > ?", floor)
	w.and("x.occurred_at >= ?", us(f.Since))
	w.andText("x.plant || '' = ?", f.Plant)
	w.andText("x.order_no || '' = ?", f.OrderNo)
	w.and("x.kind IN ('production_confirmation', 'material_consumption', 'quality_status')")
	return collect(ctx, s, func(r *sql.Rows) (x sample, err error) {
		var body []byte
		var state PostingState
		var document, how string
		if err := r.Scan(&x.id, &body, &x.ERP, &state, &document, &how); err != nil {
			return x, err
		}
		if x.Fact, err = wire.DecodeFact(body); err != nil {
			return x, nil // is kept aside: it says nothing that could be mapped
		}
		x.Sent = document != "" || state == PostingSending || state == PostingInDoubt || state == PostingPosted || state == PostingVerified
		x.Applied, err = readApplied(how)
		return x, err
	}, `SELECT x.fact_id, f.body, COALESCE(p.erp, ''), COALESCE(p.state, ''), COALESCE(p.document, ''), COALESCE(m.body, '')
		FROM fact_index x JOIN facts f ON f.id = x.fact_id LEFT JOIN postings p ON p.fact_id = x.fact_id
		LEFT JOIN posting_maps m ON m.fact_id = x.fact_id`+w.String()+" ORDER BY x.fact_id DESC LIMIT "+fmt.Sprint(samplesAtOnce), w.args...)
}

func (s *Store) orderOf(ctx context.Context, erp, no string, known map[Lane]object.WorkOrder) (object.WorkOrder, error) {
	k := Lane{erp, no}
	if w, met := known[k]; met || erp == "" || no == "" {
		return w, nil
	}
	o, err := s.Order(ctx, erp, no)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return object.WorkOrder{}, err
	}
	known[k] = o.Order
	return o.Order, nil
}
