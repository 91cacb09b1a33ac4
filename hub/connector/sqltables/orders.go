package sqltables

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// cursor is where one reading of changes stands. A reading begins at From and goes on after the row (At, No); Base is the newest
// change that was there when it began, from which the next reading goes back by the overlap.
type cursor struct {
	From string `json:"from,omitempty"`
	Base string `json:"base,omitempty"`
	At   string `json:"at,omitempty"`
	No   string `json:"no,omitempty"`
}

// ListChanged reads a page of changed orders.
func (c *Connector) ListChanged(ctx context.Context, from string) (connector.Changes, error) {
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	var cur cursor
	if from != "" {
		if err := json.Unmarshal([]byte(from), &cur); err != nil {
			return connector.Changes{}, fmt.Errorf("list changed orders: cursor %.60q is damaged: %w", from, err)
		}
	}
	changes, err := c.page(ctx, cur)
	if err != nil {
		return connector.Changes{}, fmt.Errorf("list changed orders: %w", err)
	}
	return changes, nil
}

func (c *Connector) page(ctx context.Context, cur cursor) (out connector.Changes, err error) {
	o := c.cfg.Orders
	changed, no := c.d.table(o.Columns["changed"]), c.d.table(o.Columns["order_no"])
	if cur.At == "" {
		if cur.Base, err = c.newest(ctx, changed); err != nil {
			return out, err
		}
	}
	where, args := "", []any(nil)
	switch {
	case cur.At != "":
		at, err := c.stamp(cur.At)
		if err != nil {
			return out, err
		}
		where, args = fmt.Sprintf("WHERE (%s > ? OR (%s = ? AND %s > ?)) ", changed, changed, no), []any{at, at, cur.No}
	case cur.From != "":
		at, err := c.stamp(cur.From)
		if err != nil {
			return out, err
		}
		where, args = fmt.Sprintf("WHERE %s >= ? ", changed), []any{at}
	default:
		where = fmt.Sprintf("WHERE %s IS NOT NULL ", changed)
	}
	found, err := c.rows(ctx, c.db, o.Table, o.Columns, where+fmt.Sprintf("ORDER BY %s, %s LIMIT %d", changed, no, c.cfg.PageSize), args...)
	if err != nil {
		return out, err
	}
	if out.Orders, out.Unreadable, err = c.orders(ctx, found); err != nil {
		return out, err
	}
	if len(found) == c.cfg.PageSize {
		last := found[len(found)-1]
		cur.No, out.More = text(last["order_no"]), true
		cur.At, err = mark(last["changed"])
	} else {
		cur, err = c.next(cur)
	}
	if err != nil {
		return out, err
	}
	b, err := json.Marshal(cur)
	out.Cursor = string(b)
	return out, err
}

// newest is the newest change there is, empty in an empty table.
func (c *Connector) newest(ctx context.Context, changed string) (string, error) {
	var v any
	if err := c.db.QueryRowContext(ctx, "SELECT MAX("+changed+") FROM "+c.d.table(c.cfg.Orders.Table)).Scan(&v); err != nil {
		return "", fmt.Errorf("read table %s: %w", c.cfg.Orders.Table, err)
	}
	if v == nil {
		return "", nil
	}
	return mark(v)
}

// mark writes a value of the changed column down.
func mark(v any) (string, error) {
	if t, ok := v.(time.Time); ok {
		return t.UTC().Format(time.RFC3339Nano), nil
	}
	n, err := strconv.ParseInt(text(v), 10, 64)
	if err != nil {
		return "", fmt.Errorf("the changed column holds %.40q: set orders.changed to what it holds, time or number", text(v))
	}
	return strconv.FormatInt(n, 10), nil
}

// stamp reads what mark wrote.
func (c *Connector) stamp(s string) (any, error) {
	if c.cfg.Orders.Changed == "number" {
		n, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("%.40q is not a number: orders.changed was another when the cursor was written; begin without a cursor", s)
		}
		return n, nil
	}
	t, err := time.Parse(time.RFC3339Nano, s)
	if err != nil {
		return nil, fmt.Errorf("%.40q is not a time: orders.changed was another when the cursor was written; begin without a cursor", s)
	}
	return t, nil
}

// next is the cursor of the next reading. It never goes back behind the one before.
func (c *Connector) next(cur cursor) (cursor, error) {
	if cur.Base == "" {
		return cursor{From: cur.From}, nil
	}
	base, err := c.stamp(cur.Base)
	if err != nil {
		return cur, err
	}
	var from string
	switch b := base.(type) {
	case int64:
		from = strconv.FormatInt(b-c.cfg.Orders.OverlapNumber, 10)
	case time.Time:
		from = b.Add(-c.cfg.Orders.Overlap).Format(time.RFC3339Nano)
	}
	return cursor{From: from}, nil
}

// orders puts rows into our words, with their components. What cannot be is reported and stops no neighbour.
func (c *Connector) orders(ctx context.Context, found []row) (orders []object.WorkOrder, unreadable []connector.Unreadable, err error) {
	parts, err := c.components(ctx, found)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range found {
		o, err := c.order(r, parts[text(r["order_no"])])
		if err != nil {
			no := text(r["order_no"])
			unreadable = append(unreadable, connector.Unreadable{OrderNo: no, ERPKey: no, Reason: fmt.Sprintf("Order %s: %v.", no, err)})
			continue
		}
		orders = append(orders, o)
	}
	return orders, unreadable, nil
}

func (c *Connector) components(ctx context.Context, found []row) (map[string][]row, error) {
	t := c.cfg.Components
	if t.Table == "" || len(found) == 0 {
		return nil, nil
	}
	args := make([]any, len(found))
	for i, r := range found {
		args[i] = text(r["order_no"])
	}
	no := c.d.table(t.Columns["order_no"])
	parts, err := c.rows(ctx, c.db, t.Table, t.Columns,
		fmt.Sprintf("WHERE %s IN (%s) ORDER BY %s, %s", no, strings.TrimSuffix(strings.Repeat("?, ", len(args)), ", "), no, c.d.table(t.Columns["item"])), args...)
	by := map[string][]row{}
	for _, p := range parts {
		by[text(p["order_no"])] = append(by[text(p["order_no"])], p)
	}
	return by, err
}

func (c *Connector) order(r row, parts []row) (object.WorkOrder, error) {
	o := object.WorkOrder{OrderNo: text(r["order_no"]), ERP: c.cfg.Name, ERPKey: text(r["order_no"]), Item: text(r["item"]),
		ItemDescription: text(r["description"]), Site: cmp.Or(text(r["site"]), c.cfg.Orders.Site), WorkCenter: text(r["work_center"]), Lot: text(r["lot"])}
	if t, ok := r["changed"].(time.Time); ok {
		o.RevisedAt = t
	}
	state := text(r["state"])
	o.State = object.OrderState(cmp.Or(c.cfg.States[state], state))
	if !slices.Contains(orderStates, o.State) {
		return o, fmt.Errorf("state %q is not mapped: add it to states", state)
	}
	if o.OrderNo == "" || o.Item == "" {
		return o, fmt.Errorf("order number or item is empty: correct the row in table %s", c.cfg.Orders.Table)
	}
	var err error
	if o.Quantity, err = c.quantity(r); err != nil {
		return o, err
	}
	if o.OverPercent, err = percent(r["over_percent"]); err != nil {
		return o, err
	}
	o.OverUnlimited = isTrue(r["over_unlimited"])
	for _, p := range parts {
		q, err := c.quantity(p)
		if err != nil {
			return o, fmt.Errorf("component %s: %w", text(p["item"]), err)
		}
		o.Components = append(o.Components, object.Component{Item: text(p["item"]), Description: text(p["description"]), Required: q,
			Operation: text(p["operation"]), Reservation: text(p["reservation"])})
	}
	return o, nil
}

// percent is a number of zero or more; nil where the column holds none.
func percent(v any) (*decimal.Decimal, error) {
	if text(v) == "" {
		return nil, nil
	}
	n, err := number(v)
	if err == nil && n.IsNegative() {
		err = errors.New("is below zero")
	}
	if err != nil {
		return nil, fmt.Errorf("over_percent %.40q: %w", text(v), err)
	}
	return &n, nil
}

// isTrue reads a flag in one of the forms that databases have for one.
func isTrue(v any) bool {
	switch strings.ToLower(strings.TrimSpace(text(v))) {
	case "1", "true", "t", "y", "yes", "x":
		return true
	}
	return false
}

func (c *Connector) quantity(r row) (object.Quantity, error) {
	unit, known := c.unit[text(r["unit"])]
	if !known {
		return object.Quantity{}, fmt.Errorf("unit %q is not mapped: add it to units", text(r["unit"]))
	}
	n, err := number(r["quantity"])
	if err != nil {
		return object.Quantity{}, fmt.Errorf("quantity %w", err)
	}
	return object.Quantity{Value: n, Unit: unit}, nil
}
