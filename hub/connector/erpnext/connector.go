package erpnext

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Connector is a connector.Connector and a connector.StockReader for one site.
type Connector struct {
	cfg    Config
	client *client
	// proved is set once the custom fields were seen to be there and to be unique.
	proved atomic.Bool

	mu        sync.Mutex
	allowed   *decimal.Decimal // the site's allowance for overproduction, as it was read at
	allowedAt time.Time
}

var (
	_ connector.Connector   = (*Connector)(nil)
	_ connector.StockReader = (*Connector)(nil)
)

// New makes a connector. It reads the password file and does no other I/O.
func New(cfg Config) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Connector{cfg: cfg, client: newClient(cfg)}, nil
}

// Close gives up the connections.
func (c *Connector) Close() error {
	c.client.http.CloseIdleConnections()
	return nil
}

// Capabilities implements connector.Connector. CompareAndSet stands for the unique key and for modified.
func (c *Connector) Capabilities() connector.Capabilities {
	kinds := []object.Kind{object.KindConfirmation, object.KindConsumption}
	return connector.Capabilities{System: c.cfg.Name, Posts: kinds, Reverses: kinds, ExternalKey: true, CompareAndSet: true, MovementTypes: true, QuantityScale: c.cfg.Precision}
}

// Get reads one order.
func (c *Connector) Get(ctx context.Context, number string) (object.WorkOrder, error) {
	var o order
	err := c.client.get(ctx, workOrder, number, &o)
	var w object.WorkOrder
	if err == nil {
		w, err = c.workOrder(ctx, &o)
	}
	if err == nil {
		w.OverPercent, err = c.allowance(ctx)
	}
	if err != nil {
		return w, fmt.Errorf("get order %q: %w", number, err)
	}
	return w, nil
}

// allowanceFor is how long the site's allowance for overproduction is believed: it stands in no order.
const allowanceFor = 5 * time.Minute

// allowance reads by how many percent the site lets an order be exceeded. A user who may not read that does not know it.
func (c *Connector) allowance(ctx context.Context) (*decimal.Decimal, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.allowedAt.IsZero() && time.Since(c.allowedAt) < allowanceFor {
		return c.allowed, nil
	}
	var s struct {
		Percent *quantity `json:"overproduction_percentage_for_work_order"`
	}
	err := c.client.get(ctx, settings, settings, &s)
	if _, no := refused(err); errors.Is(err, connector.ErrNotFound) || no && !isLine(err) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", settings, err)
	}
	c.allowed, c.allowedAt = nil, time.Now()
	if s.Percent != nil {
		c.allowed = &s.Percent.Decimal
	}
	return c.allowed, nil
}

// states are the statuses of a work order; those of reserved stock say nothing about the work.
var states = map[string]object.OrderState{
	"Draft": object.OrderPlanned, "Submitted": object.OrderReleased, "Not Started": object.OrderReleased, "Stock Reserved": object.OrderReleased,
	"Stock Partially Reserved": object.OrderReleased, "In Process": object.OrderInProgress, "Stopped": object.OrderHeld, "Completed": object.OrderCompleted,
	"Closed": object.OrderClosed, "Cancelled": object.OrderCancelled,
}

func (c *Connector) workOrder(ctx context.Context, o *order) (w object.WorkOrder, err error) {
	state, ok := states[o.Status]
	switch {
	case o.Docstatus == 2:
		state = object.OrderCancelled
	case !ok:
		return w, fmt.Errorf("status %q of ERPNext is not known", o.Status)
	}
	unit, err := c.unit(ctx, o.Item, o.Unit)
	if err != nil {
		return w, err
	}
	w = object.WorkOrder{OrderNo: o.Name, ERP: c.cfg.Name, ERPKey: o.Name, Site: c.site(o), Item: o.Item, ItemDescription: o.ItemName, State: state,
		Quantity: object.Quantity{Value: o.Quantity.Round(c.cfg.Precision), Unit: unit}, PlannedStart: instant(o.PlannedStart, c.cfg.zone),
		PlannedEnd: instant(cmp.Or(o.PlannedEnd, o.ExpectedOn), c.cfg.zone), RevisedAt: instant(o.Modified, c.cfg.zone)}
	for _, op := range o.WorkOperations {
		w.WorkCenter = cmp.Or(w.WorkCenter, op.Workstation)
		w.Operations = append(w.Operations, object.Operation{Operation: op.Operation, Description: plain(op.Description), WorkCenter: op.Workstation, Quantity: w.Quantity})
	}
	for _, n := range o.RequiredItems {
		if unit, err = c.unit(ctx, n.Item, n.Unit); err != nil {
			return object.WorkOrder{}, err
		}
		w.Components = append(w.Components, object.Component{Item: n.Item, Description: n.Name, Operation: n.Operation, Required: object.Quantity{Value: n.Required.Round(c.cfg.Precision), Unit: unit}})
	}
	return w, nil
}

func (c *Connector) site(o *order) string {
	if s := c.cfg.Sites[o.Finished]; s != "" {
		return s
	}
	return cmp.Or(c.cfg.Sites[o.Company], o.Company)
}

// unit translates an item's stock unit, which is read where a row does not carry it (versions before 15). It never guesses.
func (c *Connector) unit(ctx context.Context, code, unit string) (string, error) {
	if unit == "" {
		var i item
		if err := c.client.get(ctx, "Item", code, &i); err != nil {
			return "", fmt.Errorf("read item %q: %w", code, err)
		}
		unit = i.Unit
	}
	if u, ok := c.cfg.Units[unit]; ok && u != "" {
		return u, nil
	}
	return "", fmt.Errorf("unit %q of item %q is not mapped: add it to units", unit, code)
}

// cursor is where the reading of changes stands. Frappe stamps a change before it commits it, so each sweep starts an overlap
// before the newest stamp seen. Within a sweep the next page begins behind (From, After), not at a count: an order that changes
// meanwhile moves to the end and must shift nobody.
type cursor struct {
	From  string `json:"from,omitempty"`
	After string `json:"after,omitempty"`
	High  string `json:"high,omitempty"`
}

// ListChanged reads one page of changed orders.
func (c *Connector) ListChanged(ctx context.Context, text string) (connector.Changes, error) {
	var cur cursor
	if text != "" {
		if err := json.Unmarshal([]byte(text), &cur); err != nil {
			return connector.Changes{}, fmt.Errorf("list changed orders: cursor %.100q was not made by this connector: clear it to read all orders again: %w", text, err)
		}
	}
	var page []order
	if cur.After != "" { // those that share the stamp at which the last page ended
		if err := c.page(ctx, [][]any{{"modified", "=", cur.From}, {"name", ">", cur.After}}, &page); err != nil {
			return connector.Changes{}, err
		}
	}
	if len(page) < c.cfg.PageSize {
		how := ">="
		if cur.After != "" {
			how = ">"
		}
		var more []order
		if err := c.page(ctx, [][]any{{"modified", how, cmp.Or(cur.From, "1900-01-01 00:00:00")}}, &more); err != nil {
			return connector.Changes{}, err
		}
		page = append(page, more[:min(len(more), c.cfg.PageSize-len(page))]...)
	}
	changes := connector.Changes{More: len(page) >= c.cfg.PageSize}
	for _, row := range page {
		cur.High = max(cur.High, row.Modified)
		cur.From, cur.After = row.Modified, row.Name
		w, err := c.Get(ctx, row.Name)
		switch {
		case errors.Is(err, connector.ErrNotFound) && c.gone(ctx, row.Name):
		case err != nil && isLine(err):
			return connector.Changes{}, err
		case err != nil:
			changes.Unreadable = append(changes.Unreadable, connector.Unreadable{OrderNo: row.Name, ERPKey: row.Name, Reason: err.Error()})
		default:
			changes.Orders = append(changes.Orders, w)
		}
	}
	if !changes.More && cur.High != "" {
		cur.From, cur.After = earlier(cur.High, c.cfg.Overlap), ""
	}
	next, err := json.Marshal(cur)
	changes.Cursor = string(next)
	return changes, err
}

// gone reports an order that was deleted since it was listed, and not one of whose items something is missing.
func (c *Connector) gone(ctx context.Context, name string) bool {
	var o order
	return errors.Is(c.client.get(ctx, workOrder, name, &o), connector.ErrNotFound)
}

// isLine reports an error of the line or of the whole site, which is none of the order's.
func isLine(err error) bool {
	var l *lost
	if r, ok := refused(err); ok {
		return r.status == http.StatusUnauthorized || r.status == http.StatusTooManyRequests || r.status == http.StatusServiceUnavailable
	}
	if errors.Is(err, errForm) {
		return false
	}
	var n interface{ Timeout() bool }
	return errors.As(err, &l) || errors.As(err, &n) || errors.Is(err, context.Canceled)
}

func (c *Connector) page(ctx context.Context, filters [][]any, v *[]order) error {
	if len(c.cfg.Companies) > 0 {
		filters = append(filters, []any{"company", "in", c.cfg.Companies})
	}
	if err := c.client.list(ctx, workOrder, filters, []string{"name", "modified"}, "modified asc, name asc", 0, c.cfg.PageSize, v); err != nil {
		return fmt.Errorf("list changed orders: %w", err)
	}
	return nil
}

// itemsAtOnce keeps the address of a question short.
const itemsAtOnce = 40

// Inventory reads the bins of the configured warehouses.
func (c *Connector) Inventory(ctx context.Context, items []string) (all []object.Balance, err error) {
	some := items
	for {
		n := min(len(some), itemsAtOnce)
		if all, err = c.bins(ctx, all, some[:n]); err != nil {
			return nil, fmt.Errorf("read stock: %w", err)
		}
		if some = some[n:]; len(some) == 0 {
			return all, nil
		}
	}
}

// bins adds the bins of so few items that they can be asked for at once, or of all. The next page begins behind a name and not at a
// count: a bin that comes meanwhile must shift nobody.
func (c *Connector) bins(ctx context.Context, all []object.Balance, items []string) ([]object.Balance, error) {
	asOf := time.Now()
	for last := ""; ; {
		filters := [][]any{{"name", ">", last}}
		if len(items) > 0 {
			filters = append(filters, []any{"item_code", "in", items})
		}
		if len(c.cfg.Warehouses) > 0 {
			filters = append(filters, []any{"warehouse", "in", c.cfg.Warehouses})
		}
		var page []bin
		if err := c.client.list(ctx, "Bin", filters, []string{"name", "item_code", "warehouse", "actual_qty", "stock_uom"}, "name asc", 0, c.cfg.PageSize, &page); err != nil {
			return nil, err
		}
		for _, b := range page {
			if b.Name <= last {
				return nil, fmt.Errorf("the list of bins does not go on behind %q", last)
			}
			last = b.Name
			x := object.Balance{Site: c.cfg.Sites[b.Warehouse], Location: b.Warehouse, Item: b.Item, AsOf: asOf, OnHand: object.Quantity{Value: b.Quantity.Round(c.cfg.Precision)}}
			unit, err := c.unit(ctx, b.Item, b.Unit)
			if err != nil && isLine(err) {
				return nil, err
			}
			if x.OnHand.Unit = unit; err != nil {
				x.CannotTell = err.Error()
			}
			all = append(all, x)
		}
		if len(page) < c.cfg.PageSize {
			return all, nil
		}
	}
}
