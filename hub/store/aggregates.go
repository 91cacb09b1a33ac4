package store

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/proto/factkey"
	"github.com/shopspring/decimal"
)

// Aggregate is a number of postings that are made as one document. While it is open, members join; once it has its key, nothing of
// it changes any more.
type Aggregate struct {
	ID           int64
	ERP, OrderNo string
	// Line says what its members have in common, beside system and order.
	Line string
	// Key is zero while it is open.
	Key              factkey.Key
	OpenedAt, SealAt time.Time
	Members          int
	Quantity         decimal.Decimal
}

const aggregateColumns = "SELECT g.id, g.erp, g.order_no, g.line, g.key, g.opened_at, g.seal_at, g.members, g.quantity FROM aggregates g"

func scanAggregate(r *sql.Rows) (g Aggregate, err error) {
	var opened, seal int64
	var key []byte
	var quantity string
	if err := r.Scan(&g.ID, &g.ERP, &g.OrderNo, &g.Line, &key, &opened, &seal, &g.Members, &quantity); err != nil {
		return g, err
	}
	copy(g.Key[:], key)
	g.OpenedAt, g.SealAt = at(opened), at(seal)
	g.Quantity, err = decimal.NewFromString(quantity)
	return g, err
}

// OpenAggregate returns the open aggregate of a line of an order; nil when there is none.
func (tx *Tx) OpenAggregate(erp, orderNo, line string) (*Aggregate, error) {
	return optionalRow(first(tx.ctx, tx, scanAggregate, aggregateColumns+" WHERE g.key IS NULL AND g.erp = $1 AND g.order_no = $2 AND g.line = $3", erp, orderNo, line))
}

// OpenAggregates lists the open aggregates of a lane, the oldest first.
func (s *Store) OpenAggregates(ctx context.Context, l Lane) ([]Aggregate, error) {
	all, err := collect(ctx, s, scanAggregate, aggregateColumns+" WHERE g.key IS NULL AND g.erp = $1 AND g.order_no = $2 ORDER BY g.id", l.ERP, l.OrderNo)
	if err != nil {
		return nil, fmt.Errorf("read what is collected of order %q: %w", l.OrderNo, err)
	}
	return all, nil
}

// OpenAggregatesOf lists the open aggregates of an order in all systems.
func (tx *Tx) OpenAggregatesOf(orderNo string) ([]Aggregate, error) {
	return collect(tx.ctx, tx, scanAggregate, aggregateColumns+" WHERE g.key IS NULL AND g.order_no = $1 ORDER BY g.id", orderNo)
}

// AnyAggregate reports whether there is one at all.
func (s *Store) AnyAggregate(ctx context.Context) (bool, error) {
	n, err := first(ctx, s, scanValue[int64], "SELECT EXISTS (SELECT 1 FROM aggregates)")
	return n != 0, err
}

// PutAggregate stores an aggregate; one without an ID is new and gets it.
func (tx *Tx) PutAggregate(g *Aggregate) error {
	var key []byte
	if !g.Key.IsZero() {
		key = g.Key[:]
	}
	if g.ID != 0 {
		_, err := tx.exec("UPDATE aggregates SET key = $1, seal_at = $2, members = $3, quantity = $4 WHERE id = $5 AND key IS NULL", key, us(g.SealAt), g.Members, g.Quantity.String(), g.ID)
		return err
	}
	id, err := first(tx.ctx, tx, scanValue[int64], `INSERT INTO aggregates (erp, order_no, line, key, opened_at, seal_at, members, quantity)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id`, g.ERP, g.OrderNo, g.Line, key, us(g.OpenedAt), us(g.SealAt), g.Members, g.Quantity.String())
	g.ID = id
	return err
}

// JoinAggregate makes a fact's posting a member.
func (tx *Tx) JoinAggregate(factID, aggregate int64) error {
	_, err := tx.exec("INSERT INTO aggregate_members (fact_id, aggregate_id) VALUES ($1, $2)", factID, aggregate)
	return err
}

// DropAggregate takes an aggregate away that was never sealed; its members are on their own again.
func (tx *Tx) DropAggregate(id int64) error {
	_, err := tx.exec("DELETE FROM aggregate_members WHERE aggregate_id = $1 AND EXISTS (SELECT 1 FROM aggregates WHERE id = $1 AND key IS NULL)", id)
	if err == nil {
		_, err = tx.exec("DELETE FROM aggregates WHERE id = $1 AND key IS NULL", id)
	}
	return err
}

// DissolveAggregate takes an aggregate apart, sealed or not; its members are on their own again.
func (tx *Tx) DissolveAggregate(id int64) error {
	_, err := tx.exec("DELETE FROM aggregate_members WHERE aggregate_id = $1", id)
	if err == nil {
		_, err = tx.exec("DELETE FROM aggregates WHERE id = $1", id)
	}
	return err
}

const memberFacts = "f.id IN (SELECT fact_id FROM aggregate_members WHERE aggregate_id = $1)"

// Aggregate returns the aggregate that a fact's posting belongs to, open or sealed; nil when it goes alone.
func (tx *Tx) Aggregate(factID int64) (*Aggregate, error) { return aggregateOf(tx.ctx, tx, factID) }

// Aggregate is Tx.Aggregate outside a transaction.
func (s *Store) Aggregate(ctx context.Context, factID int64) (*Aggregate, error) {
	return aggregateOf(ctx, s, factID)
}

func aggregateOf(ctx context.Context, db querier, factID int64) (*Aggregate, error) {
	return optionalRow(lookup(ctx, db, scanAggregate, aggregateColumns+" JOIN aggregate_members m ON m.aggregate_id = g.id WHERE m.fact_id = $1", factID))
}

// Members returns the facts of an aggregate with their postings, in the order of the facts.
func (tx *Tx) Members(id int64) ([]Fact, error) { return members(tx.ctx, tx, id) }

// Members is Tx.Members outside a transaction.
func (s *Store) Members(ctx context.Context, id int64) ([]Fact, error) { return members(ctx, s, id) }

func members(ctx context.Context, db querier, id int64) ([]Fact, error) {
	facts, err := collect(ctx, db, scanFact, factColumns+" WHERE "+memberFacts+" ORDER BY f.id", id)
	if err != nil {
		return nil, err
	}
	all, err := collect(ctx, db, scanPosting, postingColumns+" WHERE p.fact_id IN (SELECT fact_id FROM aggregate_members WHERE aggregate_id = $1) ORDER BY p.fact_id", id)
	if err == nil && len(all) != len(facts) {
		err = errors.New("facts and postings are not the same")
	}
	if err != nil {
		return nil, fmt.Errorf("read the members of aggregate %d: %w", id, err)
	}
	for i := range facts {
		facts[i].Posting = &all[i]
	}
	return facts, nil
}

// firstMember is the first fact of the aggregate with a key, which stands on its document; ErrNotFound when there is none.
func (s *Store) firstMember(ctx context.Context, from []byte) (Fact, error) {
	to := append(bytes.Clone(from), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
	g, err := first(ctx, s, scanAggregate, aggregateColumns+" WHERE g.key IS NOT NULL AND g.key >= $1 AND g.key <= $2 ORDER BY g.key LIMIT 1", from, to)
	if err != nil {
		return Fact{}, err
	}
	return first(ctx, s, scanFact, factColumns+" WHERE "+memberFacts+" ORDER BY f.id LIMIT 1", g.ID)
}

// StepLast stands on an order's timeline when its last operation was finished, which closes the order.
const StepLast = "last operation finished"

// Finished reports whether the shop floor has said that it is done with an order, or with its last operation.
func (tx *Tx) Finished(orderNo string) (bool, error) {
	n, err := first(tx.ctx, tx, scanValue[int64],
		`SELECT EXISTS (SELECT 1 FROM order_steps o WHERE o.order_no = $1 AND o.fact_id <> 0
		AND (o.step IN ('FINISHED', 'CANCELLED') AND o.operation = '' OR o.step = $2))`, orderNo, StepLast)
	return n != 0, err
}
