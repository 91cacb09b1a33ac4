package sqltables

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Connector implements connector.Connector.
type Connector struct {
	cfg    Config
	d      dialect
	db     *sql.DB
	unique atomic.Bool       // the key's column was seen to be UNIQUE
	unit   map[string]string // theirs to ours
	back   map[string]string // ours to theirs
}

var (
	_ connector.Connector    = (*Connector)(nil)
	_ connector.ManyVerifier = (*Connector)(nil)
)

// New returns a connector without touching the network.
func New(cfg Config) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	d := dialects[cfg.Driver]
	dsn, err := d.address(cfg.DSN)
	if err != nil {
		return nil, err
	}
	db, err := sql.Open(d.driver, dsn)
	if err != nil {
		return nil, wrong("dsn is not one of %s", cfg.Driver) // the cause may show the password
	}
	db.SetMaxOpenConns(cfg.Connections)
	db.SetMaxIdleConns(cfg.Connections)
	c := &Connector{cfg: cfg, d: d, db: db, unit: map[string]string{}, back: map[string]string{}}
	for _, u := range rec20 {
		c.unit[u], c.back[u] = u, u
	}
	for theirs, ours := range cfg.Units {
		c.unit[theirs], c.back[ours] = ours, theirs
	}
	return c, nil
}

// Close ends the connections.
func (c *Connector) Close() error { return c.db.Close() }

// Capabilities as configured.
func (c *Connector) Capabilities() connector.Capabilities {
	can := connector.Capabilities{System: c.cfg.Name, ExternalKey: true, CompareAndSet: true,
		MovementTypes: c.cfg.Postings.Columns["movement_type"] != "", QuantityScale: *c.cfg.Postings.Scale, Settle: c.cfg.Settle}
	for _, k := range c.cfg.Postings.Kinds {
		can.Posts = append(can.Posts, object.Kind(k))
		if c.cfg.Postings.Reversals && object.Kind(k) != object.KindOrderState {
			can.Reverses = append(can.Reverses, object.Kind(k))
		}
	}
	if slices.Contains(can.Posts, object.KindOrderState) {
		for _, s := range c.cfg.Postings.States {
			can.States = append(can.States, object.FloorState(s))
		}
		if c.cfg.Postings.OperationStates {
			can.OperationStates = can.States
		}
	}
	return can
}

// asker is a database or a transaction.
type asker interface {
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
}

// row is one row by field.
type row map[string]any

// rows reads the configured columns of one table.
func (c *Connector) rows(ctx context.Context, a asker, table string, columns map[string]string, rest string, args ...any) ([]row, error) {
	fields := slices.Sorted(maps.Keys(columns))
	quoted := make([]string, len(fields))
	for i, f := range fields {
		quoted[i] = c.d.table(columns[f])
	}
	found, err := a.QueryContext(ctx, c.d.number("SELECT "+strings.Join(quoted, ", ")+" FROM "+c.d.table(table)+" "+rest), args...)
	if err != nil {
		return nil, fmt.Errorf("read table %s: %w", table, err)
	}
	defer found.Close()
	var all []row
	for found.Next() {
		values, into := make([]any, len(fields)), make([]any, len(fields))
		for i := range values {
			into[i] = &values[i]
		}
		if err := found.Scan(into...); err != nil {
			return nil, fmt.Errorf("read table %s: %w", table, err)
		}
		r := row{}
		for i, f := range fields {
			r[f] = values[i]
		}
		all = append(all, r)
	}
	if err := found.Err(); err != nil {
		return nil, fmt.Errorf("read table %s: %w", table, err)
	}
	return all, nil
}

// Get reads one order.
func (c *Connector) Get(ctx context.Context, no string) (object.WorkOrder, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	found, err := c.rows(ctx, c.db, c.cfg.Orders.Table, c.cfg.Orders.Columns, "WHERE "+c.d.table(c.cfg.Orders.Columns["order_no"])+" = ?", no)
	found = slices.DeleteFunc(found, func(r row) bool { return text(r["order_no"]) != no }) // some databases ignore case
	switch {
	case err != nil:
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", no, err)
	case len(found) == 0:
		return object.WorkOrder{}, fmt.Errorf("get order %q in table %s: %w", no, c.cfg.Orders.Table, connector.ErrNotFound)
	case len(found) > 1:
		return object.WorkOrder{}, fmt.Errorf("get order %q: table %s has %d rows of it; give it one row for each order", no, c.cfg.Orders.Table, len(found))
	}
	orders, unreadable, err := c.orders(ctx, found)
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", no, err)
	}
	if len(unreadable) > 0 {
		return object.WorkOrder{}, errors.New(unreadable[0].Reason)
	}
	return orders[0], nil
}

// uniqueKey makes sure that the database lets no second row with a fact's key in.
func (c *Connector) uniqueKey(ctx context.Context) (bool, error) {
	if c.unique.Load() {
		return true, nil
	}
	p := c.cfg.Postings
	args := []any{p.Table, p.Columns["fact_key"]}
	switch schema, table, has := strings.Cut(p.Table, "."); {
	case c.d.split && has:
		args = []any{schema, table, p.Columns["fact_key"]}
	case c.d.split:
		args = []any{nil, p.Table, p.Columns["fact_key"]}
	case c.d.dollars:
		args[0] = c.d.table(p.Table)
	}
	var n int
	if err := c.db.QueryRowContext(ctx, c.d.number(c.d.unique), args...).Scan(&n); err != nil {
		return false, fmt.Errorf("look for the unique key of table %s: %w", p.Table, err)
	}
	c.unique.Store(n > 0)
	return n > 0, nil
}
