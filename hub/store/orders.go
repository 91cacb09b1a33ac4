package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
)

// Order is the latest revision of a work order and how it is routed.
type Order struct {
	ID    int64
	Order object.WorkOrder
	// Agent is who gets it, in plant Order.Plant. Unroutable is the reason why nobody does.
	Agent      string
	Unroutable string
	// Sent is the highest revision that was queued for the agent, 0 for none.
	Sent int64
	// Content is the dispatcher's fingerprint of what concerns the plant.
	Content   []byte
	ChangedAt time.Time
}

const orderColumns = "SELECT id, body, agent, unroutable, sent, content, changed_at FROM work_orders"

func scanOrder(r *sql.Rows) (o Order, err error) {
	var body string
	var changed int64
	if err := r.Scan(&o.ID, &body, &o.Agent, &o.Unroutable, &o.Sent, &o.Content, &changed); err != nil {
		return o, err
	}
	o.ChangedAt = at(changed)
	if err := json.Unmarshal([]byte(body), &o.Order); err != nil {
		return o, fmt.Errorf("stored work order %d: %w", o.ID, err)
	}
	return o, nil
}

// OrderFilter chooses work orders; empty fields choose all.
type OrderFilter struct {
	Plant, ERP, State, Item string
	// Search is a part of the order number.
	Search string
	// Unroutable chooses only orders that nobody gets.
	Unroutable bool
}

// Orders lists work orders, the ones first that were first seen last. Page.Before is an Order.ID.
func (s *Store) Orders(ctx context.Context, f OrderFilter, page Page) ([]Order, error) {
	var w where
	w.and("id < ?", page.before())
	w.andText("plant = ?", f.Plant)
	w.andText("erp = ?", f.ERP)
	w.andText("state = ?", f.State)
	w.andText("item = ?", f.Item)
	w.andText("order_no LIKE '%' || ? || '%'", f.Search)
	if f.Unroutable {
		w.and("unroutable <> ''")
	}
	all, err := collect(ctx, s, scanOrder, orderColumns+w.String()+" ORDER BY id DESC LIMIT "+fmt.Sprint(page.limit()), w.args...)
	if err != nil {
		return nil, fmt.Errorf("list work orders: %w", err)
	}
	return all, nil
}

// OrderStep is one point of a work order's timeline.
type OrderStep struct {
	ID       int64
	OrderNo  string
	Step     string // an object.OrderState ("RELEASED"), "queued", "sent", "stored", an object.FloorState ("STARTED"), "posted STARTED"
	Revision int64
	At       time.Time
	Origin   string // "erp NAME", "hub", "plant/agent"
	// Operation is set where the step is of one operation and not of the order.
	Operation string
	FactID    int64 // the fact that said so, 0 for none
	Reason    string
}

// OrderTimeline returns a work order, all of its revisions (oldest first) and its timeline. erp may be empty when the number
// is unique. ErrNotFound when the hub has never seen the order.
func (s *Store) OrderTimeline(ctx context.Context, erp, orderNo string) (Order, []object.WorkOrder, []OrderStep, error) {
	o, err := findOrder(ctx, s, erp, orderNo)
	if err != nil {
		return o, nil, nil, fmt.Errorf("find work order %q: %w", orderNo, err)
	}
	revisions, err := collect(ctx, s, func(r *sql.Rows) (w object.WorkOrder, err error) {
		var body string
		if err := r.Scan(&body); err != nil {
			return w, err
		}
		return w, json.Unmarshal([]byte(body), &w)
	}, "SELECT body FROM order_revisions WHERE erp = $1 AND order_no = $2 ORDER BY revision", o.Order.ERP, orderNo)
	if err != nil {
		return o, nil, nil, fmt.Errorf("read revisions of work order %q: %w", orderNo, err)
	}
	steps, err := orderSteps(ctx, s, orderNo)
	if err != nil {
		return o, nil, nil, fmt.Errorf("read timeline of work order %q: %w", orderNo, err)
	}
	return o, revisions, steps, nil
}

func findOrder(ctx context.Context, db querier, erp, orderNo string) (Order, error) {
	if erp == "" {
		return lookup(ctx, db, scanOrder, orderColumns+" WHERE order_no = $1 ORDER BY id LIMIT 1", orderNo)
	}
	return lookup(ctx, db, scanOrder, orderColumns+" WHERE order_no = $1 AND erp = $2 ORDER BY id LIMIT 1", orderNo, erp)
}

// FindOrder returns the order that a fact of a plant means: the one of that number which is routed to the plant, else one
// that is routed nowhere yet, else any. ok is false when the hub has never seen the number.
func (tx *Tx) FindOrder(plant, orderNo string) (o Order, ok bool, err error) {
	k := orderOf{plant, orderNo}
	if found, known := tx.orders[k]; known {
		return found.order, found.ok, nil
	}
	o, ok, err = tx.findOrder(plant, orderNo)
	if err == nil {
		if tx.orders == nil {
			tx.orders = map[orderOf]foundOrder{}
		}
		tx.orders[k] = foundOrder{o, ok}
	}
	return o, ok, err
}

type orderOf struct{ plant, no string }

type foundOrder struct {
	order Order
	ok    bool
}

func (tx *Tx) findOrder(plant, orderNo string) (o Order, ok bool, err error) {
	o, err = first(tx.ctx, tx, scanOrder, orderColumns+` WHERE order_no = $1
		ORDER BY CASE WHEN plant = $2 THEN 0 WHEN plant = '' THEN 1 ELSE 2 END, id LIMIT 1`, orderNo, plant)
	if errors.Is(err, ErrNotFound) {
		return o, false, nil
	}
	return o, err == nil, err
}

// Order returns the stored order of an ERP; ok is false when there is none.
func (tx *Tx) Order(erp, orderNo string) (o Order, ok bool, err error) {
	o, err = findOrder(tx.ctx, tx, erp, orderNo)
	if errors.Is(err, ErrNotFound) {
		return o, false, nil
	}
	return o, err == nil, err
}

// Order returns the latest revision of a work order; erp may be empty when the number is unique. ErrNotFound when the hub has
// never seen it. Its lists belong to others, too: they may not be changed.
func (s *Store) Order(ctx context.Context, erp, orderNo string) (Order, error) {
	k := orderID{erp, orderNo}
	o, changes, ok := s.latest.get(k)
	if ok {
		return o, nil
	}
	o, err := findOrder(ctx, s, erp, orderNo)
	if err != nil {
		return o, fmt.Errorf("find work order %q: %w", orderNo, err)
	}
	if erp != "" {
		s.latest.put(k, o, changes)
	}
	return o, nil
}

type orderID struct{ erp, no string }

// latest keeps work orders as they were read: each posting asks for its own two times, and to read one costs ten times more than
// to find out that it did not change. Nothing is here that is not committed, and nothing that was changed after its Update
// returned.
type latest struct {
	mu      sync.Mutex
	orders  map[orderID]Order
	changes int // what is read before a change and kept after it would be old
}

const latestOrders = 1000 // a few KB each

func (l *latest) get(k orderID) (o Order, changes int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o, ok = l.orders[k]
	return o, l.changes, ok
}

func (l *latest) put(k orderID, o Order, changes int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.changes != changes {
		return
	}
	if l.orders == nil || len(l.orders) >= latestOrders {
		l.orders = map[orderID]Order{}
	}
	l.orders[k] = o
}

func (l *latest) forget(changed []orderID) {
	if len(changed) == 0 {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.changes++
	for _, k := range changed {
		delete(l.orders, k)
	}
}

// PutOrder stores the latest content of a work order; with revised it is kept among the revisions as well.
func (tx *Tx) PutOrder(o Order, revised bool) error {
	tx.touch(TopicOrders)
	tx.orders = nil
	body, err := json.Marshal(o.Order)
	if err != nil {
		return fmt.Errorf("encode work order %q: %w", o.Order.OrderNo, err)
	}
	w := o.Order
	tx.changed = append(tx.changed, orderID{w.ERP, w.OrderNo})
	_, err = tx.exec(`INSERT INTO work_orders (erp, order_no, plant, agent, revision, sent, state, item, work_center, planned_start,
		content, body, unroutable, changed_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
		ON CONFLICT (erp, order_no) DO UPDATE SET plant = excluded.plant, agent = excluded.agent, revision = excluded.revision,
		sent = excluded.sent, state = excluded.state, item = excluded.item, work_center = excluded.work_center,
		planned_start = excluded.planned_start, content = excluded.content, body = excluded.body, unroutable = excluded.unroutable,
		changed_at = excluded.changed_at`,
		w.ERP, w.OrderNo, w.Plant, o.Agent, w.Revision, o.Sent, string(w.State), w.Item, w.WorkCenter, us(w.PlannedStart),
		o.Content, string(body), o.Unroutable, us(tx.now))
	if err != nil || !revised {
		return err
	}
	_, err = tx.exec(`INSERT INTO order_revisions (erp, order_no, revision, body, at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (erp, order_no, revision) DO UPDATE SET body = excluded.body`, w.ERP, w.OrderNo, w.Revision, string(body), us(tx.now))
	return err
}

// AddOrderStep adds a point to an order's timeline; the order need not be known. At is the transaction's time when zero.
func (tx *Tx) AddOrderStep(s OrderStep) error {
	tx.touch(TopicOrders)
	if s.At.IsZero() {
		s.At = tx.now
	}
	_, err := tx.exec("INSERT INTO order_steps (order_no, step, revision, at, origin, fact_id, reason, operation) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
		s.OrderNo, s.Step, s.Revision, us(s.At), s.Origin, s.FactID, s.Reason, s.Operation)
	return err
}

// OrderSteps returns the timeline of an order number, oldest first.
func (s *Store) OrderSteps(ctx context.Context, orderNo string) ([]OrderStep, error) {
	return orderSteps(ctx, s, orderNo)
}

// MoveOrderSteps puts what a fact said of an order on the timeline of another: its order number was corrected.
func (tx *Tx) MoveOrderSteps(factID int64, from, to string) error {
	tx.touch(TopicOrders)
	_, err := tx.exec("UPDATE order_steps SET order_no = $1 WHERE order_no = $2 AND fact_id = $3 AND step NOT LIKE 'posted %'", to, from, factID)
	return err
}

// ConfirmedOperations lists the operations of an order of which a plant has confirmed something. What was corrected to another
// order, or settled as having no effect, is not among them.
func (s *Store) ConfirmedOperations(ctx context.Context, plant, orderNo string) ([]string, error) {
	return collect(ctx, s, scanValue[string], `SELECT DISTINCT i.operation FROM fact_index i JOIN postings p ON p.fact_id = i.fact_id
		WHERE i.fact_id IN (SELECT fact_id FROM fact_index WHERE order_no = $1 UNION ALL SELECT fact_id FROM corrections WHERE new_order_no = $1)
		AND p.order_no || '' = $1 AND i.plant || '' = $2 AND i.kind = $3 AND i.operation <> '' AND (p.state || '' <> 'settled' OR p.document <> '')
		ORDER BY i.operation`, orderNo, plant, string(object.KindConfirmation))
}

// OrderSteps returns the timeline of an order number inside a transaction.
func (tx *Tx) OrderSteps(orderNo string) ([]OrderStep, error) { return orderSteps(tx.ctx, tx, orderNo) }

func orderSteps(ctx context.Context, db querier, orderNo string) ([]OrderStep, error) {
	return collect(ctx, db, func(r *sql.Rows) (s OrderStep, err error) {
		var t int64
		err = r.Scan(&s.ID, &s.OrderNo, &s.Step, &s.Revision, &t, &s.Origin, &s.FactID, &s.Reason, &s.Operation)
		s.At = at(t)
		return s, err
	}, "SELECT id, order_no, step, revision, at, origin, fact_id, reason, operation FROM order_steps WHERE order_no = $1 ORDER BY at, id", orderNo)
}

// Cursor is how far the hub has read an ERP's changes.
type Cursor struct {
	ERP       string
	Cursor    string
	ChangedAt time.Time // when the cursor moved
	OKAt      time.Time // when the ERP answered last
	FailedAt  time.Time // when it failed last, zero when it answered since
	Error     string
}

const cursorColumns = "SELECT erp, cursor, changed_at, ok_at, failed_at, error FROM erp_cursors"

func scanCursor(r *sql.Rows) (c Cursor, err error) {
	var changed, ok, failed int64
	err = r.Scan(&c.ERP, &c.Cursor, &changed, &ok, &failed, &c.Error)
	c.ChangedAt, c.OKAt, c.FailedAt = at(changed), at(ok), at(failed)
	return c, err
}

// Cursors lists the cursors of all ERPs that were ever asked.
func (s *Store) Cursors(ctx context.Context) ([]Cursor, error) {
	return collect(ctx, s, scanCursor, cursorColumns+" ORDER BY erp")
}

// Cursor returns the cursor of an ERP; it is empty before the first answer.
func (s *Store) Cursor(ctx context.Context, erp string) (Cursor, error) {
	c, err := first(ctx, s, scanCursor, cursorColumns+" WHERE erp = $1", erp)
	if errors.Is(err, ErrNotFound) {
		return Cursor{ERP: erp}, nil
	}
	return c, err
}

// SetCursor moves the cursor of an ERP that answered.
func (tx *Tx) SetCursor(erp, cursor string) error {
	_, err := tx.exec(`INSERT INTO erp_cursors (erp, cursor, changed_at, ok_at) VALUES ($1, $2, $3, $3)
		ON CONFLICT (erp) DO UPDATE SET changed_at = CASE WHEN erp_cursors.cursor = excluded.cursor THEN erp_cursors.changed_at ELSE excluded.changed_at END,
		cursor = excluded.cursor, ok_at = excluded.ok_at, failed_at = 0, error = ''`, erp, cursor, us(tx.now))
	return err
}

// SetCursorError records that an ERP could not be read.
func (s *Store) SetCursorError(ctx context.Context, erp, reason string) error {
	return s.Update(ctx, func(tx *Tx) error {
		tx.touch(TopicOrders)
		_, err := tx.exec(`INSERT INTO erp_cursors (erp, failed_at, error) VALUES ($1, $2, $3)
			ON CONFLICT (erp) DO UPDATE SET failed_at = excluded.failed_at, error = excluded.error`, erp, us(tx.now), reason)
		return err
	})
}
