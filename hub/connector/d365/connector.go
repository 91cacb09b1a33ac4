package d365

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Connector is a connector.Connector for one company of one D365.
type Connector struct {
	cfg  Config
	http *http.Client

	mu         sync.Mutex
	bearer     string
	bearerEnds time.Time
	// forsaken are intents of facts whose messages were taken for lost: one may still come.
	forsaken map[string]intent
	// missing is since when a processed message's journals are waited for, by the fact's key.
	missing map[string]time.Time
}

var _ connector.Connector = (*Connector)(nil)

// New makes a connector. It reads the secret's file and does no other I/O.
func New(cfg Config) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Connector{cfg: cfg, forsaken: map[string]intent{}, missing: map[string]time.Time{}, http: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Close gives up the connections.
func (c *Connector) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Capabilities implements connector.Connector.
func (c *Connector) Capabilities() connector.Capabilities {
	return connector.Capabilities{System: c.cfg.Name, Posts: []object.Kind{object.KindConfirmation, object.KindConsumption}, ExternalKey: c.cfg.KeyField != "", QuantityScale: -1, Settle: c.cfg.Settle,
		Backflush: connector.BackflushNever}
}

// order is a production order with the lines of its bill of materials.
type order struct {
	head row
	bom  []row
}

func (o *order) number() string { return o.head.text("ProductionOrderNumber") }

var states = map[string]object.OrderState{"Created": object.OrderPlanned, "CostEstimated": object.OrderPlanned, "Scheduled": object.OrderPlanned,
	"Released": object.OrderReleased, "StartedUp": object.OrderInProgress, "ReportedFinished": object.OrderCompleted, "Completed": object.OrderClosed, "Cancelled": object.OrderCancelled}

func (o *order) state() object.OrderState { return states[o.head.text("ProductionOrderStatus")] }

// Get reads one order.
func (c *Connector) Get(ctx context.Context, number string) (object.WorkOrder, error) {
	o, err := c.order(ctx, number)
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", number, err)
	}
	w, err := c.workOrder(o)
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", number, err)
	}
	return w, nil
}

func (c *Connector) order(ctx context.Context, number string) (order, error) {
	if number == "" || strings.Contains(number, "*") {
		return order{}, fmt.Errorf("no order %q: %w", number, connector.ErrNotFound)
	}
	found, err := c.read(ctx, "orders", "ProductionOrderNumber eq "+quote(number), "", 0)
	if err != nil {
		return order{}, err
	}
	all, err := c.whole(ctx, found)
	if err != nil {
		return order{}, err
	}
	for _, o := range all {
		if o.number() == number {
			return o, nil
		}
	}
	return order{}, fmt.Errorf("no order %q: %w", number, connector.ErrNotFound)
}

// whole reads the bills of materials of orders.
func (c *Connector) whole(ctx context.Context, heads []row) ([]order, error) {
	if len(heads) == 0 {
		return nil, nil
	}
	all, at := make([]order, len(heads)), map[string]int{}
	var parts []string
	for i, h := range heads {
		all[i].head, at[h.text("ProductionOrderNumber")] = h, i
		parts = append(parts, "ProductionOrderNumber eq "+quote(h.text("ProductionOrderNumber")))
	}
	lines, err := c.read(ctx, "bom", "("+strings.Join(parts, " or ")+")", "", 0)
	for _, l := range lines {
		if i, ok := at[l.text("ProductionOrderNumber")]; ok {
			all[i].bom = append(all[i].bom, l)
		}
	}
	return all, err
}

// workOrder translates an order; an unknown unit, status or number stops it.
func (c *Connector) workOrder(o order) (object.WorkOrder, error) {
	q, err := c.quantity(o.head, "ScheduledQuantity")
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("item %q: %w", o.head.text("ItemNumber"), err)
	}
	site := o.head.text("ProductionSiteId")
	w := object.WorkOrder{OrderNo: o.number(), ERP: c.cfg.Name, ERPKey: o.number(), Site: cmp.Or(c.cfg.Sites[site], site), Item: o.head.text("ItemNumber"), Quantity: q,
		State: o.state(), RevisedAt: stamp(o.head.text("ModifiedDateTime")), PlannedStart: stamp(o.head.text("ScheduledStartDate")), PlannedEnd: stamp(o.head.text("ScheduledEndDate"))}
	if w.State == "" {
		return w, fmt.Errorf("status %q of D365 is not known", o.head.text("ProductionOrderStatus"))
	}
	for _, l := range o.bom {
		q, err := c.quantity(l, "EstimatedQuantity")
		if err != nil {
			return w, fmt.Errorf("component %q: %w", l.text("ItemNumber"), err)
		}
		w.Components = append(w.Components, object.Component{Item: l.text("ItemNumber"), Required: q})
	}
	return w, nil
}

func (c *Connector) quantity(r row, name string) (object.Quantity, error) {
	v, err := exact(r.text(name))
	if err != nil {
		return object.Quantity{}, fmt.Errorf("%s %q is not a number", name, r.text(name))
	}
	unit, ok := c.cfg.Units[r.text("UnitSymbol")]
	if !ok {
		return object.Quantity{}, fmt.Errorf("unit %q of D365 is not mapped: add it to units", r.text("UnitSymbol"))
	}
	return object.Quantity{Value: v, Unit: unit}, nil
}

func stamp(text string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, text)
	return t
}

// cursor is where the reading of changes stands. D365 stamps a change with whole seconds before it commits it, so a change can
// appear behind a newer one: each sweep starts an overlap before the newest stamp, and Seen keeps what the overlap has shown
// already from being reported again.
type cursor struct {
	From  string            `json:"from"`
	After string            `json:"after,omitempty"`
	High  string            `json:"high"`
	Seen  map[string]string `json:"seen,omitempty"`
}

// maxSeen bounds the cursor. Beyond it orders are reported again, which does no harm.
const maxSeen = 2000

// ListChanged reads one page of changed orders.
func (c *Connector) ListChanged(ctx context.Context, text string) (connector.Changes, error) {
	cur := cursor{}
	if text != "" {
		if err := json.Unmarshal([]byte(text), &cur); err != nil {
			return connector.Changes{}, fmt.Errorf("list changed orders: cursor %.100q was not made by this connector: clear it to read all orders again: %w", text, err)
		}
	}
	if cur.Seen == nil {
		cur.Seen = map[string]string{}
	}
	filter := ""
	switch {
	case cur.After != "":
		filter = fmt.Sprintf("(ModifiedDateTime gt %s or (ModifiedDateTime eq %s and ProductionOrderNumber gt %s))", cur.From, cur.From, quote(cur.After))
	case cur.From != "":
		filter = "ModifiedDateTime ge " + cur.From
	}
	heads, err := c.read(ctx, "orders", filter, "ModifiedDateTime,ProductionOrderNumber", c.cfg.PageSize)
	if err != nil {
		return connector.Changes{}, fmt.Errorf("list changed orders: %w", err)
	}
	all, err := c.whole(ctx, heads)
	if err != nil {
		return connector.Changes{}, fmt.Errorf("list changed orders: %w", err)
	}
	changes := connector.Changes{More: len(heads) >= c.cfg.PageSize}
	for _, o := range all {
		cur.From, cur.After = o.head.text("ModifiedDateTime"), o.number()
		cur.High = max(cur.High, cur.From)
		c.report(&changes, &cur, o)
	}
	if !changes.More && cur.High != "" {
		cur.From, cur.After = stamp(cur.High).UTC().Add(-c.cfg.Overlap).Format("2006-01-02T15:04:05Z"), ""
		if len(cur.Seen) > maxSeen {
			clear(cur.Seen)
		}
	}
	next, err := json.Marshal(cur)
	changes.Cursor = string(next)
	return changes, err
}

// report adds an order to the changes unless it says what it said before.
func (c *Connector) report(changes *connector.Changes, cur *cursor, o order) {
	w, err := c.workOrder(o)
	said := w
	said.RevisedAt = time.Time{}
	text, _ := json.Marshal(said)
	if err != nil {
		text = []byte(err.Error())
	}
	sum := sha256.Sum256(text)
	hash := hex.EncodeToString(sum[:8])
	before := cur.Seen[o.number()]
	cur.Seen[o.number()] = hash
	switch {
	case before == hash:
	case err != nil:
		changes.Unreadable = append(changes.Unreadable, connector.Unreadable{OrderNo: o.number(), ERPKey: o.number(), Reason: fmt.Sprintf("Order %s: %v.", o.number(), err)})
	default:
		changes.Orders = append(changes.Orders, w)
	}
}
