package tryton

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// production is an order as the plant needs it.
type production struct {
	ID       int         `json:"id"`
	Number   string      `json:"number"`
	State    string      `json:"state"`
	Quantity json.Number `json:"quantity"`
	Unit     *int        `json:"uom"`
	Product  *struct {
		Code string `json:"code"`
		Name string `json:"name"`
	} `json:"product."`
	Warehouse  int `json:"warehouse"`
	WorkCenter *struct {
		Name string `json:"name"`
	} `json:"work_center."`
	Start   *wireDate     `json:"planned_start_date"`
	End     *wireDate     `json:"planned_date"`
	Written *wireTime     `json:"write_date"`
	Created *wireTime     `json:"create_date"`
	Inputs  []planned     `json:"inputs."`
	Outputs []plannedLot  `json:"outputs."`
	Works   []plannedWork `json:"works."`
}

// planned is an input line of an order.
type planned struct {
	ID       int         `json:"id"`
	State    string      `json:"state"`
	Quantity json.Number `json:"quantity"`
	Unit     int         `json:"uom"`
	Creator  *int        `json:"create_uid"`
	Writer   *int        `json:"write_uid"`
	Product  struct {
		Code string `json:"code"`
		Name string `json:"name"`
	} `json:"product."`
}

// plannedLot is an output line as far as it says which lot is to be made.
type plannedLot struct {
	State   string    `json:"state"`
	Lot     *numbered `json:"lot."`
	Product struct {
		Code string `json:"code"`
	} `json:"product."`
}

type plannedWork struct {
	ID        int  `json:"id"`
	Sequence  *int `json:"sequence"`
	Operation struct {
		Name string `json:"name"`
	} `json:"operation."`
	WorkCenter *struct {
		Name string `json:"name"`
	} `json:"work_center."`
}

var productionFields = []string{"number", "state", "quantity", "uom", "product.code", "product.name", "warehouse",
	"planned_start_date", "planned_date", "write_date", "create_date",
	"inputs.state", "inputs.quantity", "inputs.uom", "inputs.create_uid", "inputs.write_uid", "inputs.product.code", "inputs.product.name"}

// fields of a production, as far as the active modules have them.
func (c *Connector) fields(ctx context.Context) ([]string, error) {
	works, err := c.master.keepsWorks(ctx)
	if err != nil {
		return nil, err
	}
	lots, err := c.master.keepsLots(ctx)
	if err != nil {
		return nil, err
	}
	fields := slices.Clone(productionFields)
	if works {
		fields = append(fields, "work_center.name", "works.sequence", "works.operation.name", "works.work_center.name")
	}
	if lots {
		fields = append(fields, "outputs.state", "outputs.product.code", "outputs.lot.number")
	}
	return fields, nil
}

// Get implements connector.Connector.
func (c *Connector) Get(ctx context.Context, orderNo string) (object.WorkOrder, error) {
	fields, err := c.fields(ctx)
	if err != nil {
		return object.WorkOrder{}, err
	}
	var rows []production
	err = c.client.call(ctx, &rows, nil, "production.search_read", []any{[]any{"number", "=", orderNo}}, 0, 2, nil, fields)
	if err != nil {
		return object.WorkOrder{}, err
	}
	row, err := one(rows, orderNo)
	if err != nil {
		return object.WorkOrder{}, err
	}
	return c.workOrder(ctx, row)
}

var orderStates = map[string]object.OrderState{
	stateRequest: object.OrderPlanned, stateDraft: object.OrderPlanned,
	stateWaiting: object.OrderReleased, stateAssigned: object.OrderReleased,
	stateRunning: object.OrderInProgress, stateDone: object.OrderCompleted, stateCancelled: object.OrderCancelled,
}

// workOrder turns Tryton's words into ours.
func (c *Connector) workOrder(ctx context.Context, x production) (object.WorkOrder, error) {
	o := object.WorkOrder{OrderNo: x.Number, ERP: c.config.Name, ERPKey: "production," + strconv.Itoa(x.ID), State: orderStates[x.State],
		PlannedStart: x.Start.instant(), PlannedEnd: x.End.instant(), RevisedAt: cmp.Or(x.Written, x.Created).instant()}
	if o.State == "" {
		return o, fmt.Errorf("read order %q of Tryton: it has the unknown state %q", x.Number, x.State)
	}
	w, err := c.master.warehouseOf(ctx, x.Warehouse)
	if err != nil {
		return o, fmt.Errorf("read order %q of Tryton: %w", x.Number, err)
	}
	o.Site = c.config.site(w)
	if x.Product != nil {
		o.Item, o.ItemDescription = x.Product.Code, x.Product.Name
	}
	if x.WorkCenter != nil {
		o.WorkCenter = x.WorkCenter.Name
	}
	if x.Unit != nil {
		if o.Quantity, err = c.quantity(ctx, x.Quantity, *x.Unit); err != nil {
			return o, fmt.Errorf("read order %q of Tryton: %w", x.Number, err)
		}
	}
	if o.Components, err = c.components(ctx, x.Inputs); err != nil {
		return o, fmt.Errorf("read order %q of Tryton: %w", x.Number, err)
	}
	o.Operations = operations(x.Works, o.Quantity)
	o.Lot = lotToMake(x.Outputs, o.Item)
	return o, nil
}

// lotToMake is the lot that the planner gave to the output that is still planned, where it is one.
func lotToMake(outputs []plannedLot, item string) string {
	lot := ""
	for _, l := range outputs {
		if l.Lot == nil || l.State != "draft" || l.Product.Code != item {
			continue
		}
		if lot != "" && lot != l.Lot.Number {
			return ""
		}
		lot = l.Lot.Number
	}
	return lot
}

func (c *Connector) quantity(ctx context.Context, n json.Number, unitID int) (object.Quantity, error) {
	u, err := c.master.unitOf(ctx, unitID)
	if err != nil {
		return object.Quantity{}, err
	}
	value, err := exact(n, u.Digits)
	return object.Quantity{Value: value, Unit: u.code}, err
}

// components are the planned inputs, one for each item and unit, whatever became of the lines: a line that this connector
// cancelled at the start is still planned, one that a person cancelled is not, and what the floor consumed was never planned.
func (c *Connector) components(ctx context.Context, lines []planned) ([]object.Component, error) {
	uid, err := c.client.uid(ctx)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(lines, func(a, b planned) int { return cmp.Compare(a.ID, b.ID) })
	var out []object.Component
	for _, l := range lines {
		if l.Creator != nil && *l.Creator == uid || l.State == "cancelled" && (l.Writer == nil || *l.Writer != uid) {
			continue
		}
		q, err := c.quantity(ctx, l.Quantity, l.Unit)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(out, func(x object.Component) bool { return x.Item == l.Product.Code && x.Required.Unit == q.Unit })
		if i >= 0 {
			out[i].Required.Value = out[i].Required.Value.Add(q.Value)
			continue
		}
		out = append(out, object.Component{Item: l.Product.Code, Description: l.Product.Name, Required: q})
	}
	return out, nil
}

func operations(works []plannedWork, q object.Quantity) []object.Operation {
	var out []object.Operation
	for _, w := range works {
		x := object.Operation{Operation: strconv.Itoa(w.ID), Description: w.Operation.Name, Quantity: q}
		if w.Sequence != nil {
			x.Operation = strconv.Itoa(*w.Sequence)
		}
		if w.WorkCenter != nil {
			x.WorkCenter = w.WorkCenter.Name
		}
		out = append(out, x)
	}
	return out
}

// stockRow is a product's balance at a location.
type stockRow struct {
	ID       int         `json:"id"`
	Code     string      `json:"code"`
	Quantity json.Number `json:"quantity"`
	Unit     int         `json:"default_uom"`
}

// stock reads the book stock of products below a location, by today.
func (c *Connector) stock(ctx context.Context, place int, domain []any, offset int) ([]stockRow, error) {
	var rows []stockRow
	where := map[string]any{"locations": []int{place}, "stock_date_end": dateOf(time.Now().UTC()), "with_childs": true}
	err := c.client.call(ctx, &rows, where, "product.product.search_read", domain, offset, stockPage, [][]string{{"id", "ASC"}},
		[]string{"code", "quantity", "default_uom"})
	return rows, err
}

const stockPage = 500

// Inventory implements connector.StockReader: the book stock of each warehouse's storage, its bins included.
func (c *Connector) Inventory(ctx context.Context, items []string) ([]object.Balance, error) {
	var warehouses []int
	err := c.client.call(ctx, &warehouses, nil, "stock.location.search", []any{[]any{"type", "=", "warehouse"}}, 0, nil, [][]string{{"id", "ASC"}})
	if err != nil {
		return nil, err
	}
	domain := []any{[]any{"type", "=", "goods"}, []any{"code", "!=", nil}}
	if len(items) > 0 {
		domain = append(domain, []any{"code", "in", items})
	}
	units, err := c.master.allUnits(ctx)
	if err != nil {
		return nil, err
	}
	var out []object.Balance
	for _, id := range warehouses {
		w, err := c.master.warehouseOf(ctx, id)
		if err != nil {
			return nil, err
		}
		for offset := 0; ; offset += stockPage {
			asOf := time.Now().UTC()
			rows, err := c.stock(ctx, w.Storage.ID, domain, offset)
			if err != nil {
				return nil, err
			}
			for _, r := range rows {
				b := object.Balance{Site: c.config.site(w), Location: w.Storage.Code, Item: r.Code, AsOf: asOf}
				if b.OnHand.Value, err = exact(r.Quantity, units[r.Unit].Digits); err != nil {
					return nil, fmt.Errorf("read the stock of item %q of Tryton: %w", r.Code, err)
				}
				b.OnHand.Unit, b.CannotTell = units[r.Unit].held()
				out = append(out, b)
			}
			if len(rows) < stockPage {
				break
			}
		}
	}
	return out, nil
}

var _ connector.Connector = (*Connector)(nil)
var _ connector.StockReader = (*Connector)(nil)
var _ connector.ManyVerifier = (*Connector)(nil)
