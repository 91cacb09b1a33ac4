package erp

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

// The states of a work order.
const (
	Created   = "CREATED" // not released yet
	Released  = "RELEASED"
	Started   = "STARTED"
	Finished  = "FINISHED"
	Completed = "COMPLETED" // technically complete
	Closed    = "CLOSED"
	Cancelled = "CANCELLED"
)

// Item is what can be made or consumed; its stock is kept in its unit.
type Item struct {
	Item        string          `json:"item"`
	Description string          `json:"description"`
	Unit        string          `json:"unit"`
	OnHand      decimal.Decimal `json:"on_hand"`
}

// Order is a work order. Times have whole seconds, in UTC.
type Order struct {
	No          string          `json:"no"`
	Version     int64           `json:"version"`
	ChangedAt   time.Time       `json:"changed_at"`
	State       string          `json:"state"`
	Item        string          `json:"item"`
	Description string          `json:"description"`
	Quantity    decimal.Decimal `json:"quantity"`
	Unit        string          `json:"unit"`
	Site        string          `json:"site"`
	WorkCenter  string          `json:"work_center"`
	Lot         string          `json:"lot,omitempty"`
	Priority    int32           `json:"priority,omitempty"`

	PlannedStart time.Time   `json:"planned_start"`
	PlannedEnd   time.Time   `json:"planned_end"`
	Operations   []Operation `json:"operations"`
	Components   []Component `json:"components"`
	// OverPercent is by how many percent more may be made than Quantity; nil when nobody has said.
	OverPercent *decimal.Decimal `json:"over_percent,omitempty"`
}

// Operation is one step of a work order.
type Operation struct {
	Operation   string          `json:"operation"`
	Description string          `json:"description"`
	WorkCenter  string          `json:"work_center"`
	Quantity    decimal.Decimal `json:"quantity"`
}

// Component is material that a work order needs. A component with Backflush is issued by the ERP itself with every
// confirmation, in proportion to what was made.
type Component struct {
	Reservation string          `json:"reservation"`
	Operation   string          `json:"operation,omitempty"`
	Item        string          `json:"item"`
	Description string          `json:"description"`
	Required    decimal.Decimal `json:"required"`
	Unit        string          `json:"unit"`
	Backflush   bool            `json:"backflush"`
}

// PutItem creates an item or changes its description; stock is added to what there is.
func (e *ERP) PutItem(ctx context.Context, it Item) error {
	err := e.inTx(func(tx *statements) error {
		_, err := tx.Exec(`insert into item (item, description, unit) values ($1, $2, $3)
			on conflict (item) do update set description = excluded.description`, it.Item, it.Description, it.Unit)
		if err != nil {
			return err
		}
		return move(tx, it.Item, it.OnHand)
	})
	if err != nil {
		return fmt.Errorf("put item %q: %w", it.Item, err)
	}
	return nil
}

// ReleaseOrder creates an order and returns its number, which the ERP counts when o has none. It is released unless o says
// that it is only Created.
func (e *ERP) ReleaseOrder(ctx context.Context, o Order) (string, error) {
	err := e.inTx(func(tx *statements) error {
		it, err := readItem(tx, o.Item)
		if err != nil {
			return err
		}
		if o.No == "" {
			n, err := next(tx, "order", 1_000_000)
			if err != nil {
				return err
			}
			o.No = fmt.Sprint(n)
		}
		return e.insertOrder(tx, o, it)
	})
	if err != nil {
		return "", fmt.Errorf("release order %q: %w", o.No, err)
	}
	return o.No, nil
}

func (e *ERP) insertOrder(tx *statements, o Order, it Item) error {
	state := Released
	if o.State == Created {
		state = Created
	}
	_, err := tx.Exec(`insert into work_order (no, version, changed_at, state, item, quantity, unit, site, work_center, lot, priority,
		planned_start, planned_end) values ($1, 1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)`,
		o.No, e.stamp(), state, o.Item, o.Quantity.String(), it.Unit, o.Site, o.WorkCenter, o.Lot, o.Priority,
		o.PlannedStart.Unix(), o.PlannedEnd.Unix())
	if err != nil {
		return err
	}
	for _, op := range o.Operations {
		_, err := tx.Exec(`insert into operation (order_no, operation, description, work_center, quantity) values ($1, $2, $3, $4, $5)`,
			o.No, op.Operation, op.Description, op.WorkCenter, op.Quantity.String())
		if err != nil {
			return err
		}
	}
	if o.OverPercent != nil {
		if _, err := tx.Exec(`insert into tolerance (order_no, over_percent) values ($1, $2)`, o.No, o.OverPercent.String()); err != nil {
			return err
		}
	}
	for i, c := range o.Components {
		component, err := readItem(tx, c.Item)
		if err != nil {
			return err
		}
		if c.Reservation == "" {
			c.Reservation = fmt.Sprintf("%s-%04d", o.No, i+1)
		}
		_, err = tx.Exec(`insert into component (order_no, reservation, operation, item, required, unit, backflush) values ($1, $2, $3, $4, $5, $6, $7)`,
			o.No, c.Reservation, c.Operation, c.Item, c.Required.String(), component.Unit, c.Backflush)
		if err != nil {
			return err
		}
	}
	return nil
}

// ChangeQuantity changes how much an order shall make. Operations follow the header; components keep their ratio to it.
func (e *ERP) ChangeQuantity(ctx context.Context, no string, quantity decimal.Decimal) error {
	return e.changeOrder(ctx, no, func(tx *statements, o *Order) error {
		if o.State != Released && o.State != Started {
			return wrongState(o, "its quantity cannot be changed")
		}
		for _, c := range o.Components {
			required := c.Required.Mul(quantity).DivRound(o.Quantity, scale)
			if _, err := tx.Exec(`update component set required = $1 where order_no = $2 and reservation = $3`, required.String(), no, c.Reservation); err != nil {
				return err
			}
		}
		_, err := tx.Exec(`update operation set quantity = $1 where order_no = $2`, quantity.String(), no)
		o.Quantity = quantity
		return err
	})
}

// Cancel cancels an order that has not been started.
func (e *ERP) Cancel(ctx context.Context, no string) error {
	return e.changeOrder(ctx, no, func(tx *statements, o *Order) error {
		if o.State != Released {
			return wrongState(o, "only a released order can be cancelled")
		}
		o.State = Cancelled
		return nil
	})
}

// CloseOrder closes an order for good: nothing can be posted to it until it is reopened.
func (e *ERP) CloseOrder(ctx context.Context, no string) error {
	return e.changeOrder(ctx, no, func(tx *statements, o *Order) error {
		o.State = Closed
		return nil
	})
}

// Withdraw takes an order back that nobody has started: it is then only created.
func (e *ERP) Withdraw(ctx context.Context, no string) error {
	return e.changeOrder(ctx, no, func(tx *statements, o *Order) error {
		if o.State != Released {
			return wrongState(o, "only a released order can be withdrawn")
		}
		o.State = Created
		return nil
	})
}

// CompleteOrder sets an order technically complete: no more is expected of it, and nothing can be posted to it.
func (e *ERP) CompleteOrder(ctx context.Context, no string) error {
	return e.changeOrder(ctx, no, func(tx *statements, o *Order) error {
		o.State = Completed
		return nil
	})
}

// Reopen makes an order workable again that is cancelled, finished, complete or closed, and releases one that is only created.
func (e *ERP) Reopen(ctx context.Context, no string) error {
	return e.changeOrder(ctx, no, func(tx *statements, o *Order) error {
		if o.State == Created {
			o.State = Released
			return nil
		}
		o.State = Started
		return nil
	})
}

// changeOrder applies a change to an order, counts its version and stamps it.
func (e *ERP) changeOrder(ctx context.Context, no string, change func(tx *statements, o *Order) error) error {
	err := e.inTx(func(tx *statements) error {
		o, err := readOrder(tx, no)
		if err != nil {
			return err
		}
		if err := change(tx, &o); err != nil {
			return err
		}
		return e.storeHeader(tx, o)
	})
	if err != nil {
		return fmt.Errorf("change order %q: %w", no, err)
	}
	return nil
}

func (e *ERP) storeHeader(tx *statements, o Order) error {
	_, err := tx.Exec(`update work_order set state = $1, quantity = $2, version = version + 1, changed_at = $3 where no = $4`,
		o.State, o.Quantity.String(), e.stamp(), o.No)
	return err
}

// stamp is the change time of a row: whole seconds, taken before the commit, and sometimes well before it.
func (e *ERP) stamp() int64 {
	e.mu.Lock()
	defer e.mu.Unlock()
	late := time.Duration(0)
	if e.faults.LateCommit > 0 {
		late = time.Duration(e.dice.Int64N(int64(e.faults.LateCommit)))
	}
	return e.now().Add(-late).Unix()
}

const orderColumns = `o.no, o.version, o.changed_at, o.state, o.item, coalesce(i.description, ''), o.quantity, o.unit, o.site, o.work_center,
	o.lot, o.priority, o.planned_start, o.planned_end, t.over_percent from work_order o left join item i on i.item = o.item
	left join tolerance t on t.order_no = o.no`

func readOrder(q querier, no string) (Order, error) {
	o, err := first(q, scanOrder, `select `+orderColumns+` where o.no = $1`, no)
	if errors.Is(err, sql.ErrNoRows) {
		return Order{}, unknownOrder(no)
	}
	if err != nil {
		return Order{}, err
	}
	return o, readParts(q, &o)
}

// changedOrders reads orders by change time and number. After (since, afterNo) when afterNo is not empty, else from since on.
func changedOrders(q querier, since int64, afterNo string, sites []string, limit int) ([]Order, error) {
	where, args := ` where (o.changed_at, o.no) > ($1, $2)`, []any{since, afterNo}
	if len(sites) > 0 {
		marks := make([]string, len(sites))
		for i, s := range sites {
			args = append(args, s)
			marks[i] = fmt.Sprintf("$%d", len(args))
		}
		where += ` and o.site in (` + strings.Join(marks, ", ") + `)`
	}
	args = append(args, limit)
	orders, err := collect(q, scanOrder, `select `+orderColumns+where+fmt.Sprintf(` order by o.changed_at, o.no limit $%d`, len(args)), args...)
	for i := range orders {
		if err == nil {
			err = readParts(q, &orders[i])
		}
	}
	return orders, err
}

func scanOrder(row scanner) (Order, error) {
	var o Order
	var changed, start, end int64
	var over decimal.NullDecimal
	err := row.Scan(&o.No, &o.Version, &changed, &o.State, &o.Item, &o.Description, &o.Quantity, &o.Unit, &o.Site, &o.WorkCenter,
		&o.Lot, &o.Priority, &start, &end, &over)
	if over.Valid {
		o.OverPercent = &over.Decimal
	}
	o.ChangedAt, o.PlannedStart, o.PlannedEnd = time.Unix(changed, 0).UTC(), time.Unix(start, 0).UTC(), time.Unix(end, 0).UTC()
	return o, err
}

func readParts(q querier, o *Order) (err error) {
	o.Operations, err = collect(q, func(row scanner) (op Operation, err error) {
		return op, row.Scan(&op.Operation, &op.Description, &op.WorkCenter, &op.Quantity)
	}, `select operation, description, work_center, quantity from operation where order_no = $1 order by operation`, o.No)
	if err != nil {
		return err
	}
	o.Components, err = collect(q, func(row scanner) (c Component, err error) {
		return c, row.Scan(&c.Reservation, &c.Operation, &c.Item, &c.Description, &c.Required, &c.Unit, &c.Backflush)
	}, `select c.reservation, c.operation, c.item, i.description, c.required, c.unit, c.backflush
		from component c join item i on i.item = c.item where c.order_no = $1 order by c.reservation`, o.No)
	return err
}

const itemColumns = `select item, description, unit, on_hand from item`

func scanItem(row scanner) (it Item, err error) {
	return it, row.Scan(&it.Item, &it.Description, &it.Unit, &it.OnHand)
}

func readItem(q querier, item string) (it Item, err error) {
	it, err = first(q, scanItem, itemColumns+` where item = $1`, item)
	if errors.Is(err, sql.ErrNoRows) {
		return it, &Error{Status: 422, Code: "M3/305", Message: fmt.Sprintf("Item %q does not exist", item)}
	}
	return it, err
}

// move changes an item's stock, which never goes below zero.
func move(tx *statements, item string, by decimal.Decimal) error {
	it, err := readItem(tx, item)
	if err != nil {
		return err
	}
	left := it.OnHand.Add(by)
	if left.IsNegative() {
		return &Error{Status: 422, Code: "M7/021",
			Message: fmt.Sprintf("Deficit of %s %s of item %q: %s on hand, %s wanted", left.Neg(), it.Unit, item, it.OnHand, by.Neg())}
	}
	_, err = tx.Exec(`update item set on_hand = $1 where item = $2`, left.String(), item)
	return err
}

// next counts a number range on.
func next(tx *statements, name string, from int64) (int64, error) {
	return first(tx, scanValue[int64], `insert into counter (name, last) values ($1, $2) on conflict (name) do update set last = last + 1 returning last`, name, from)
}
