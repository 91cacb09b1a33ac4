package s4

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// state derives one state from flags of which several are set at once.
func (o *sapOrder) state() object.OrderState {
	switch {
	case o.OrderIsDeleted != "" || o.OrderIsMarkedForDeletion != "":
		return object.OrderCancelled
	case o.OrderIsClosed != "":
		return object.OrderClosed
	case o.OrderIsTechnicallyCompleted != "":
		return object.OrderCompleted
	case o.OrderIsLocked != "":
		return object.OrderHeld
	case o.OrderIsConfirmed != "" || o.OrderIsDelivered != "":
		return object.OrderCompleted
	case o.OrderIsPartiallyConfirmed != "":
		return object.OrderInProgress
	case o.OrderIsReleased != "" || o.OrderIsPartiallyReleased != "":
		return object.OrderReleased
	}
	return object.OrderPlanned
}

// finished reports that the order is at or beyond what Finish does.
func (o *sapOrder) finished() bool {
	return o.OrderIsTechnicallyCompleted != "" || o.OrderIsClosed != ""
}

// shut says why nothing can be posted on the order, empty when it can.
func (o *sapOrder) shut() string {
	switch s := o.state(); {
	case s == object.OrderCancelled:
		return "is marked for deletion"
	case s == object.OrderClosed:
		return "is closed"
	case o.finished():
		return "is technically complete"
	case s == object.OrderHeld:
		return "is locked by its planner"
	case s == object.OrderPlanned:
		return "is not released"
	}
	return ""
}

// opening is what a person does so that an order that is shut takes postings.
func (o *sapOrder) opening() string {
	switch s := o.state(); {
	case s == object.OrderCancelled || s == object.OrderClosed:
		return "Book it on another order or by hand, then accept the fact with the document's number; or have the order opened again in SAP, then replay the fact."
	case o.finished():
		return "Revoke the technical completion in SAP (transaction CO02; no service of SAP's does that), replay the fact, then complete the order again."
	}
	return "Release or unlock the order in SAP, then replay the fact."
}

// operationName names an operation as the shop floor does: its number, behind its sequence when that is not the standard one.
func operationName(sequence, number string) string {
	if s := strings.TrimLeft(sequence, "0"); s != "" {
		return s + "-" + number
	}
	return number
}

func (o *sapOrder) operations() (ops []sapOperation) {
	for _, op := range o.Operations.Results {
		if op.ManufacturingOrderSubOperation == "" && op.OperationIsDeleted == "" {
			ops = append(ops, op)
		}
	}
	slices.SortStableFunc(ops, func(a, b sapOperation) int {
		return strings.Compare(a.ManufacturingOrderSequence+"/"+a.ManufacturingOrderOperation, b.ManufacturingOrderSequence+"/"+b.ManufacturingOrderOperation)
	})
	return ops
}

// last is the last operation of the standard sequence, whose yield is received into stock.
func (o *sapOrder) last() (op sapOperation, ok bool) {
	for _, x := range o.operations() {
		if strings.TrimLeft(x.ManufacturingOrderSequence, "0") == "" {
			op, ok = x, true
		}
	}
	return op, ok
}

// workOrder translates an order; an unknown unit stops it.
func (c *Connector) workOrder(o sapOrder) (object.WorkOrder, error) {
	unit, err := c.units.known(o.ProductionUnitISOCode, o.ProductionUnit)
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("item %q: %w", o.Material, err)
	}
	stamp, _ := time.ParseInLocation(stampLayout, o.LastChangeDateTime, c.cfg.zone)
	w := object.WorkOrder{OrderNo: o.ManufacturingOrder, ERP: c.cfg.Name, ERPKey: o.ManufacturingOrder, Site: c.site(o.ProductionPlant), Item: o.Material,
		Quantity: object.Quantity{Value: o.TotalQuantity.Decimal, Unit: unit}, State: o.state(), RevisedAt: stamp,
		PlannedStart: at(o.MfgOrderScheduledStartDate, o.MfgOrderScheduledStartTime, c.cfg.zone),
		PlannedEnd:   at(o.MfgOrderScheduledEndDate, o.MfgOrderScheduledEndTime, c.cfg.zone)}
	for _, i := range o.Items.Results {
		w.Lot = cmp.Or(w.Lot, i.Batch)
		if p := i.OverdelivTolrtdLmtRatioInPct; p != nil && w.OverPercent == nil {
			w.OverPercent = &p.Decimal
		}
		w.OverUnlimited = w.OverUnlimited || i.UnlimitedOverdeliveryIsAllowed
	}
	for _, op := range o.operations() {
		q := object.Quantity{Value: op.OpPlannedTotalQuantity.Decimal, Unit: unit}
		if op.OperationUnitISOCode != "" {
			if q.Unit, err = c.units.known(op.OperationUnitISOCode, ""); err != nil {
				return object.WorkOrder{}, fmt.Errorf("operation %q: %w", op.ManufacturingOrderOperation, err)
			}
		}
		w.WorkCenter = cmp.Or(w.WorkCenter, op.WorkCenter)
		w.Operations = append(w.Operations, object.Operation{Operation: operationName(op.ManufacturingOrderSequence, op.ManufacturingOrderOperation),
			Description: op.MfgOrderOperationText, WorkCenter: op.WorkCenter, Quantity: q})
	}
	if op, ok := o.last(); ok {
		if name := operationName(op.ManufacturingOrderSequence, op.ManufacturingOrderOperation); name != w.Last() {
			w.LastOperation = name // sequences that run side by side are listed behind it
		}
	}
	for _, m := range o.Components.Results {
		if m.MatlCompIsMarkedForDeletion || m.MaterialComponentIsPhantomItem || m.GoodsMovementType == "531" {
			continue // what the order does not take
		}
		if unit, err = c.units.known(m.BaseUnitISOCode, m.BaseUnit); err != nil {
			return object.WorkOrder{}, fmt.Errorf("component %q: %w", m.Material, err)
		}
		own := m.GoodsMovementType
		if own == ownTypes[object.IssueToOrder] {
			own = ""
		}
		w.Components = append(w.Components, object.Component{MovementType: own, Item: m.Material, Description: m.BOMItemDescription, Required: object.Quantity{Value: m.RequiredQuantity.Decimal, Unit: unit},
			Operation: operationName(m.ManufacturingOrderSequence, m.ManufacturingOrderOperation), Reservation: m.Reservation + "/" + m.ReservationItem, Backflush: m.MatlCompIsMarkedForBackflush})
	}
	return w, nil
}

// cursor is where the reading of changes stands. SAP stamps changes with whole seconds before it commits them, so a change can
// appear behind a newer one: each sweep starts an overlap before the newest stamp, and Seen keeps what the overlap has shown
// already from being reported again. What an order says is compared, not its ETag: that is the stamp, and two changes can
// share a second.
type cursor struct {
	// From and After are where the next page begins: behind order After of stamp From, or with stamp From itself.
	From  string `json:"from"`
	After string `json:"after,omitempty"`
	// High is the newest stamp seen.
	High string          `json:"high"`
	Seen map[string]seen `json:"seen,omitempty"`
}

// seen is what an order said and the stamp with which it said it; Part is the newest stamp of its operations and components.
type seen struct {
	Hash  string `json:"h"`
	Stamp string `json:"s"`
	Part  string `json:"p,omitempty"`
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
		cur.Seen = map[string]seen{}
	}
	start := cur.From
	var page list[sapOrder]
	if err := c.client.get(ctx, orderService, "A_ProductionOrder_2", c.changedQuery(&cur), &page); err != nil {
		return connector.Changes{}, fmt.Errorf("list changed orders: %w", err)
	}
	changes := connector.Changes{More: len(page.Results) >= c.cfg.PageSize || page.Next != ""}
	for _, o := range page.Results {
		cur.From, cur.After, cur.High = o.LastChangeDateTime, o.ManufacturingOrder, max(cur.High, o.LastChangeDateTime)
		c.report(&changes, &cur, o)
	}
	if len(page.Results) == 0 {
		changes.More = false
	}
	if !changes.More {
		if err := c.parts(ctx, &changes, &cur, start); err != nil {
			return connector.Changes{}, fmt.Errorf("list changed operations and components: %w", err)
		}
	}
	cur.advance(changes.More, c.cfg.Overlap)
	next, err := json.Marshal(cur)
	changes.Cursor = string(next)
	return changes, err
}

func (c *Connector) changedQuery(cur *cursor) url.Values {
	var parts []string
	switch {
	case cur.After != "":
		parts = append(parts, fmt.Sprintf("(LastChangeDateTime gt %s or (LastChangeDateTime eq %s and ManufacturingOrder gt %s))", quote(cur.From), quote(cur.From), quote(cur.After)))
	case cur.From != "":
		parts = append(parts, "LastChangeDateTime ge "+quote(cur.From))
	}
	if len(c.cfg.Plants) > 0 {
		var plants []string
		for _, p := range c.cfg.Plants {
			plants = append(plants, "ProductionPlant eq "+quote(p))
		}
		parts = append(parts, "("+strings.Join(plants, " or ")+")")
	}
	q := url.Values{"$orderby": {"LastChangeDateTime,ManufacturingOrder"}, "$expand": {orderParts}, "$top": {fmt.Sprint(c.cfg.PageSize)}}
	if len(parts) > 0 {
		q.Set("$filter", strings.Join(parts, " and "))
	}
	return q
}

// report adds an order to the changes unless it says what it said before.
func (c *Connector) report(changes *connector.Changes, cur *cursor, o sapOrder) {
	w, err := c.workOrder(o)
	said := w
	said.RevisedAt = time.Time{}
	text, _ := json.Marshal(said)
	if err != nil {
		text = []byte(err.Error())
	}
	sum := sha256.Sum256(text)
	now := seen{Hash: hex.EncodeToString(sum[:8]), Stamp: o.LastChangeDateTime, Part: cur.Seen[o.ManufacturingOrder].Part}
	before, known := cur.Seen[o.ManufacturingOrder]
	cur.Seen[o.ManufacturingOrder] = now
	switch {
	case known && before.Hash == now.Hash:
	case err != nil:
		changes.Unreadable = append(changes.Unreadable, connector.Unreadable{OrderNo: o.ManufacturingOrder, ERPKey: o.ManufacturingOrder,
			Reason: fmt.Sprintf("Order %s: %v.", o.ManufacturingOrder, err)})
	default:
		changes.Orders = append(changes.Orders, w)
	}
}

// parts looks for orders of which only an operation or a component changed: nothing says that this lifts the order's stamp.
func (c *Connector) parts(ctx context.Context, changes *connector.Changes, cur *cursor, from string) error {
	if from == "" {
		return nil
	}
	if err := c.unstamped(ctx, changes, cur, from); err != nil || c.noParts.Load() {
		return err
	}
	newest := map[string]string{}
	for _, set := range []string{"A_ProductionOrderOperation_2", "A_ProductionOrderComponent_3"} {
		q := url.Values{"$filter": {"LastChangeDateTime ge " + quote(from)}, "$select": {"ManufacturingOrder,LastChangeDateTime"}}
		err := pages(ctx, c.client, orderService, set, q, func(p sapOperation) {
			newest[p.ManufacturingOrder] = max(newest[p.ManufacturingOrder], p.LastChangeDateTime)
		})
		if errors.Is(err, connector.ErrNotFound) {
			c.noParts.Store(true)
			return nil
		}
		if err != nil {
			return err
		}
	}
	numbers := slices.DeleteFunc(sortedKeys(newest), func(number string) bool {
		s := cur.Seen[number]
		return newest[number] <= max(s.Stamp, s.Part)
	})
	return c.some(ctx, numbers, func(number string, o sapOrder) {
		if len(c.cfg.Plants) > 0 && !slices.Contains(c.cfg.Plants, o.ProductionPlant) {
			return
		}
		c.report(changes, cur, o)
		s := cur.Seen[o.ManufacturingOrder]
		s.Part = newest[number]
		cur.Seen[o.ManufacturingOrder] = s
	})
}

// some reads orders by their numbers, many with each question; those that SAP does not have are left out.
func (c *Connector) some(ctx context.Context, numbers []string, each func(number string, o sapOrder)) error {
	for few := range slices.Chunk(numbers, headersAtOnce) {
		var parts []string
		for _, n := range few {
			parts = append(parts, "ManufacturingOrder eq "+quote(n))
		}
		q := url.Values{"$filter": {strings.Join(parts, " or ")}, "$expand": {orderParts}, "$orderby": {"ManufacturingOrder"}}
		err := pages(ctx, c.client, orderService, "A_ProductionOrder_2", q, func(o sapOrder) {
			is := func(n string) bool { return sameOrder(n, o.ManufacturingOrder) }
			if i := slices.IndexFunc(few, is); i >= 0 { // a system that does not filter must not make us believe
				each(few[i], o)
			}
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// unstamped looks for orders that were made lately and not changed since: they may have no stamp of a change at all.
func (c *Connector) unstamped(ctx context.Context, changes *connector.Changes, cur *cursor, from string) error {
	day, err := time.Parse(stampLayout, from)
	if err != nil {
		return nil // a stamp in a form of its own: there is no day to begin from
	}
	q := url.Values{"$expand": {orderParts}, "$filter": {fmt.Sprintf("MfgOrderCreationDate ge datetime'%sT00:00:00' and LastChangeDateTime lt '1'", day.AddDate(0, 0, -1).Format(time.DateOnly))}}
	return pages(ctx, c.client, orderService, "A_ProductionOrder_2", q, func(o sapOrder) {
		if len(c.cfg.Plants) > 0 && !slices.Contains(c.cfg.Plants, o.ProductionPlant) {
			return
		}
		c.report(changes, cur, o)
		made, ok := readDate(o.MfgOrderCreationDate)
		if !ok {
			made = time.Now()
		}
		s := cur.Seen[o.ManufacturingOrder]
		s.Part = made.AddDate(0, 0, 3).Format(stampLayout) // remembered for as long as it is asked for
		cur.Seen[o.ManufacturingOrder] = s
	})
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// advance ends a sweep unless there is more of it, and forgets what no later sweep can show.
func (cur *cursor) advance(more bool, overlap time.Duration) {
	if more || cur.High == "" {
		return
	}
	low := cur.High
	if t, err := time.Parse(stampLayout, cur.High); err == nil {
		low = t.Add(-overlap).Format(stampLayout)
	}
	cur.From, cur.After = low, ""
	for number, s := range cur.Seen {
		if max(s.Stamp, s.Part) < low {
			delete(cur.Seen, number)
		}
	}
	if len(cur.Seen) > maxSeen {
		clear(cur.Seen)
	}
}
