package oracle

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Connector is a connector.Connector for one Oracle Fusion.
type Connector struct {
	cfg  Config
	http *http.Client

	mu sync.Mutex
	// forsaken are intents of facts whose requests were taken for lost by totals: one may still come.
	forsaken map[string]intent
}

var _ connector.Connector = (*Connector)(nil)

// New makes a connector. It reads the password file and does no other I/O.
func New(cfg Config) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Connector{cfg: cfg, forsaken: map[string]intent{}, http: &http.Client{Transport: http.DefaultTransport.(*http.Transport).Clone(),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

// Close gives up the connections.
func (c *Connector) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// Capabilities implements connector.Connector.
func (c *Connector) Capabilities() connector.Capabilities {
	can := connector.Capabilities{System: c.cfg.Name, Posts: []object.Kind{object.KindConfirmation, object.KindConsumption}, QuantityScale: -1, Settle: c.cfg.Settle, Backflush: connector.BackflushMarked}
	if c.cfg.Lookup == byReference {
		can.Reverses = can.Posts
	}
	return can
}

type order struct {
	WorkOrderID                              jsonText `json:"WorkOrderId"`
	WorkOrderNumber, OrganizationCode        string
	ItemNumber, UOMCode, WorkOrderStatusCode string
	LastUpdateDate                           string
	PlannedStartDate, PlannedCompletionDate  string
	PlannedStartQuantity                     decimal.Decimal
	Operations                               children[operation] `json:"WorkOrderOperation"`
}

type operation struct {
	Sequence                            int `json:"OperationSequenceNumber"`
	OperationName, WorkCenterCode       string
	CompletedQuantity, ScrappedQuantity decimal.Decimal
	Materials                           children[material] `json:"WorkOrderOperationMaterial"`
}

type material struct {
	ItemNumber, UOMCode, SupplyType string
	Quantity, IssuedQuantity        decimal.Decimal
}

// jsonText is a number or a text, as its text.
type jsonText string

// sane refuses numbers with a huge exponent: comparing them would fill the memory.
func sane(all ...decimal.Decimal) error {
	for _, d := range all {
		if d.Exponent() > 100 || d.Exponent() < -100 {
			return fmt.Errorf("a number of Oracle has exponent %d, which is out of range", d.Exponent())
		}
	}
	return nil
}

func (op *operation) UnmarshalJSON(text []byte) error {
	type plain operation
	if err := json.Unmarshal(text, (*plain)(op)); err != nil {
		return err
	}
	return sane(op.CompletedQuantity, op.ScrappedQuantity)
}

func (m *material) UnmarshalJSON(text []byte) error {
	type plain material
	if err := json.Unmarshal(text, (*plain)(m)); err != nil {
		return err
	}
	return sane(m.Quantity, m.IssuedQuantity)
}

func (j *jsonText) UnmarshalJSON(text []byte) error {
	*j = jsonText(strings.Trim(string(text), `"`))
	return nil
}

const orderParts = "WorkOrderOperation,WorkOrderOperation.WorkOrderOperationMaterial"

// Get reads one order.
func (c *Connector) Get(ctx context.Context, number string) (object.WorkOrder, error) {
	o, err := c.order(ctx, number, "")
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", number, err)
	}
	w, err := c.workOrder(&o)
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", number, err)
	}
	return w, nil
}

// order reads an order by its number, which is unique in one organization only: id chooses among several.
func (c *Connector) order(ctx context.Context, number, id string) (order, error) {
	if number == "" {
		return order{}, fmt.Errorf("an order without a number: %w", connector.ErrNotFound)
	}
	found, err := get[order](ctx, c, "workOrders", url.Values{"q": {c.mine("WorkOrderNumber = " + quote(number))}, "expand": {orderParts}, "limit": {"50"}})
	if err != nil {
		return order{}, err
	}
	all := slices.DeleteFunc(found.Items, func(o order) bool {
		return o.WorkOrderNumber != number || (id != "" && string(o.WorkOrderID) != id)
	})
	switch len(all) {
	case 0:
		return order{}, fmt.Errorf("no order %q: %w", number, connector.ErrNotFound)
	case 1:
		return all[0], nil
	}
	return order{}, fmt.Errorf("%d organizations have an order %q: name the plant's in organizations", len(all), number)
}

// mine limits a question to the configured organizations.
func (c *Connector) mine(q string) string {
	var parts []string
	for _, o := range c.cfg.Organizations {
		parts = append(parts, "OrganizationCode = "+quote(o))
	}
	if len(parts) == 0 {
		return q
	}
	return strings.TrimPrefix(q+" and ", " and ") + "(" + strings.Join(parts, " or ") + ")"
}

func (o *order) state() object.OrderState {
	switch o.WorkOrderStatusCode {
	case "ORA_RELEASED":
		for _, op := range o.Operations {
			moved := slices.ContainsFunc(op.Materials, func(m material) bool { return !m.IssuedQuantity.IsZero() })
			if moved || op.CompletedQuantity.IsPositive() || op.ScrappedQuantity.IsPositive() {
				return object.OrderInProgress
			}
		}
		return object.OrderReleased
	case "ORA_ON_HOLD":
		return object.OrderHeld
	case "ORA_COMPLETED":
		return object.OrderCompleted
	case "ORA_CLOSED", "ORA_PENDING_CLOSE":
		return object.OrderClosed
	case "ORA_CANCELED":
		return object.OrderCancelled
	case "ORA_UNRELEASED":
		return object.OrderPlanned
	}
	return ""
}

// workOrder translates an order; an unknown unit or status stops it.
func (c *Connector) workOrder(o *order) (object.WorkOrder, error) {
	unit, err := c.unit(o.UOMCode)
	if err == nil {
		err = sane(o.PlannedStartQuantity)
	}
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("item %q: %w", o.ItemNumber, err)
	}
	w := object.WorkOrder{OrderNo: o.WorkOrderNumber, ERP: c.cfg.Name, ERPKey: string(o.WorkOrderID), Site: c.site(o.OrganizationCode), Item: o.ItemNumber,
		Quantity: object.Quantity{Value: o.PlannedStartQuantity, Unit: unit}, State: o.state(), RevisedAt: stamp(o.LastUpdateDate),
		PlannedStart: stamp(o.PlannedStartDate), PlannedEnd: stamp(o.PlannedCompletionDate)}
	if w.State == "" {
		return w, fmt.Errorf("status %q of Oracle is not known", o.WorkOrderStatusCode)
	}
	for _, op := range o.Operations {
		name := fmt.Sprint(op.Sequence)
		w.WorkCenter = cmp.Or(w.WorkCenter, op.WorkCenterCode)
		w.Operations = append(w.Operations, object.Operation{Operation: name, Description: op.OperationName, WorkCenter: op.WorkCenterCode, Quantity: w.Quantity})
		for _, m := range op.Materials {
			unit, err := c.unit(m.UOMCode)
			if err != nil {
				return w, fmt.Errorf("component %q: %w", m.ItemNumber, err)
			}
			w.Components = append(w.Components, object.Component{Item: m.ItemNumber, Required: object.Quantity{Value: m.Quantity, Unit: unit}, Operation: name, Backflush: m.pulled()})
		}
	}
	return w, nil
}

// pulled reports that Oracle takes the material by itself.
func (m *material) pulled() bool { return strings.Contains(strings.ToUpper(m.SupplyType), "PULL") }

func (c *Connector) unit(code string) (string, error) {
	if unit, ok := c.cfg.Units[code]; ok {
		return unit, nil
	}
	return "", fmt.Errorf("unit %q of Oracle is not mapped: add it to units", code)
}

func (c *Connector) site(organization string) string {
	if s, ok := c.cfg.Sites[organization]; ok {
		return s
	}
	return organization
}

func stamp(text string) time.Time {
	t, _ := time.Parse(time.RFC3339Nano, text)
	return t
}
