package generic

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/exact"
)

// OrderMap says by expressions over "row", a record of the system, what a work order holds. order_no, item, quantity, unit and
// state are necessary.
type OrderMap struct {
	OrderNo      string `yaml:"order_no"`
	ERPKey       string `yaml:"erp_key"` // the order number when empty
	Item         string `yaml:"item"`
	Description  string `yaml:"description"`
	Quantity     string `yaml:"quantity"`
	Unit         string `yaml:"unit"`
	State        string `yaml:"state"`
	Site         string `yaml:"site"`
	WorkCenter   string `yaml:"work_center"`
	Lot          string `yaml:"lot"`
	Priority     string `yaml:"priority"`
	PlannedStart string `yaml:"planned_start"`
	PlannedEnd   string `yaml:"planned_end"`
	// OverPercent is by how many percent the order may be exceeded, empty where the system does not say; OverUnlimited is true where
	// there is no limit.
	OverPercent   string `yaml:"over_percent"`
	OverUnlimited string `yaml:"over_unlimited"`
	// Changed grows with each change of the order: a time or a number.
	Changed    string        `yaml:"changed"`
	Operations *OperationMap `yaml:"operations"`
	Components *ComponentMap `yaml:"components"`
}

// OperationMap says where the operations are (Each, over row) and what they hold (over row and line). A unit that is empty is the order's.
type OperationMap struct {
	Each        string `yaml:"each"`
	Operation   string `yaml:"operation"`
	Description string `yaml:"description"`
	WorkCenter  string `yaml:"work_center"`
	Quantity    string `yaml:"quantity"` // the order's when empty
}

// ComponentMap is OperationMap for what the order needs.
type ComponentMap struct {
	Each        string `yaml:"each"`
	Item        string `yaml:"item"`
	Description string `yaml:"description"`
	Quantity    string `yaml:"quantity"`
	Unit        string `yaml:"unit"`
	Operation   string `yaml:"operation"`
	Reservation string `yaml:"reservation"`
	Backflush   string `yaml:"backflush"` // true where the system books it by itself
}

// OrderConfig is what the translation of orders needs to know beside the map.
type OrderConfig struct {
	// ERP is the name of the system in work orders, Site that of all orders where the map has none.
	ERP, Site string
	States    map[string]string
	Units     Units
	// Zone is that of times that carry none.
	Zone *time.Location
}

// Orders translates records into work orders.
type Orders struct {
	cfg              OrderConfig
	order, op, part  map[string]Expr
	hasOps, hasParts bool
}

var orderStates = []object.OrderState{object.OrderPlanned, object.OrderReleased, object.OrderInProgress, object.OrderHeld,
	object.OrderCompleted, object.OrderClosed, object.OrderCancelled}

// NewOrders checks a map. Errors name the field.
func NewOrders(m OrderMap, cfg OrderConfig) (*Orders, error) {
	o := &Orders{cfg: cfg, hasOps: m.Operations != nil, hasParts: m.Components != nil}
	if cfg.Zone == nil {
		o.cfg.Zone = time.UTC
	}
	for from, to := range cfg.States {
		if !slices.Contains(orderStates, object.OrderState(to)) {
			return nil, fmt.Errorf("states: %q of %q is not known; use one of %v", to, from, orderStates)
		}
	}
	var err error
	if o.order, err = fields(m, []string{"row"}, "order_no", "item", "quantity", "unit", "state"); err != nil {
		return nil, err
	}
	if m.Operations != nil {
		if o.op, err = fields(*m.Operations, []string{"row", "line"}, "each", "operation"); err != nil {
			return nil, fmt.Errorf("operations: %w", err)
		}
	}
	if m.Components != nil {
		if o.part, err = fields(*m.Components, []string{"row", "line"}, "each", "item", "quantity", "unit"); err != nil {
			return nil, fmt.Errorf("components: %w", err)
		}
	}
	return o, nil
}

// fields compiles the texts of a struct by their names in YAML.
func fields(from any, names []string, need ...string) (map[string]Expr, error) {
	out := map[string]Expr{}
	v := reflect.ValueOf(from)
	for i := range v.NumField() {
		src, ok := v.Field(i).Interface().(string)
		if !ok {
			continue
		}
		name := v.Type().Field(i).Tag.Get("yaml")
		if src == "" && slices.Contains(need, name) {
			return nil, fmt.Errorf("%s is missing; write an expression such as row.%s", name, name)
		}
		in := names
		if name == "each" {
			in = names[:1]
		}
		e, err := Compile(src, in...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out[name] = e
	}
	return out, nil
}

// Number is the number of a record's order, as far as it can be told.
func (o *Orders) Number(row any) string {
	no, _ := o.order["order_no"].Text(map[string]any{"row": row})
	return no
}

// Changed is the value by which changes are found; nil when there is none.
func (o *Orders) Changed(row any) (any, error) {
	return o.order["changed"].Value(map[string]any{"row": row})
}

// reader evaluates the expressions of one map and keeps the first error, with the field's name.
type reader struct {
	exprs map[string]Expr
	vars  map[string]any
	zone  *time.Location
	err   error
}

func (r *reader) fail(field string, err error) {
	if r.err == nil && err != nil {
		r.err = fmt.Errorf("%s: %w", field, err)
	}
}

func (r *reader) text(field string) string {
	text, err := r.exprs[field].Text(r.vars)
	r.fail(field, err)
	return strings.TrimSpace(text)
}

func (r *reader) number(field string) decimal.Decimal {
	v, err := r.exprs[field].Value(r.vars)
	r.fail(field, err)
	d, err := Decimal(v)
	r.fail(field, err)
	return d
}

// percent is a number of zero or more, nil where there is none.
func (r *reader) percent(field string) *decimal.Decimal {
	v, err := r.exprs[field].Value(r.vars)
	r.fail(field, err)
	if v == nil || v == "" || err != nil {
		return nil
	}
	d, err := Decimal(v)
	if err == nil && d.IsNegative() {
		err = fmt.Errorf("%s is below zero", d)
	}
	r.fail(field, err)
	return &d
}

func (r *reader) time(field string) time.Time {
	v, err := r.exprs[field].Value(r.vars)
	r.fail(field, err)
	if v == nil || v == "" {
		return time.Time{}
	}
	t, _, err := ReadTime(v, r.zone)
	r.fail(field, err)
	return t
}

func (r *reader) each() []any {
	v, err := r.exprs["each"].Value(r.vars)
	r.fail("each", err)
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok && r.err == nil {
		r.fail("each", fmt.Errorf("%q gives no list", r.exprs["each"]))
	}
	return list
}

// Decimal is an exact number out of a number or a text.
func Decimal(v any) (decimal.Decimal, error) {
	text := ""
	switch v := v.(type) {
	case json.Number:
		text = v.String()
	case string:
		text = strings.TrimSpace(v)
	default:
		return decimal.Zero, fmt.Errorf("%v is not a number", v)
	}
	d, err := exact.Parse(text)
	if err != nil {
		return d, fmt.Errorf("%.60q %w", text, err)
	}
	return d, nil
}

// layouts are the forms of a time; those without a zone are read in the configured one.
var layouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05.999999999Z07:00", "2006-01-02 15:04:05.999999999",
	"2006-01-02T15:04Z07:00", "2006-01-02T15:04", time.DateOnly, "20060102150405"}

// ReadTime reads a time in one of the usual forms, and says in which.
func ReadTime(v any, zone *time.Location) (time.Time, string, error) {
	if t, ok := v.(time.Time); ok {
		return t, time.RFC3339Nano, nil
	}
	text, ok := v.(string)
	if !ok {
		return time.Time{}, "", fmt.Errorf("%v is not a time", v)
	}
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, text, zone); err == nil && t.Year() >= 1 && t.Year() <= 9999 {
			return t, layout, nil
		}
	}
	return time.Time{}, "", fmt.Errorf("%.60q is not a time such as 2026-03-01T06:00:00Z", text)
}

// Read translates one record. Errors name the field and the next step.
func (o *Orders) Read(row any) (object.WorkOrder, error) {
	r := &reader{exprs: o.order, vars: map[string]any{"row": row}, zone: o.cfg.Zone}
	w := object.WorkOrder{OrderNo: r.text("order_no"), ERP: o.cfg.ERP, ERPKey: r.text("erp_key"), Item: r.text("item"), ItemDescription: r.text("description"),
		Site: r.text("site"), WorkCenter: r.text("work_center"), Lot: r.text("lot"), PlannedStart: r.time("planned_start"), PlannedEnd: r.time("planned_end")}
	w.Quantity.Value = r.number("quantity")
	w.OverPercent, w.OverUnlimited = r.percent("over_percent"), r.text("over_unlimited") == "true"
	unit, state, priority := r.text("unit"), r.text("state"), r.text("priority")
	if r.err != nil {
		return w, r.err
	}
	if w.OrderNo == "" || w.Item == "" {
		return w, errors.New("order number or item is empty: correct the order in the system, or the map of orders")
	}
	if w.ERPKey == "" {
		w.ERPKey = w.OrderNo
	}
	if w.Site == "" {
		w.Site = o.cfg.Site
	}
	if at, err := o.Changed(row); err == nil {
		w.RevisedAt, _, _ = ReadTime(at, o.cfg.Zone) // a number is no time
	}
	if priority != "" {
		n, err := strconv.ParseInt(priority, 10, 32)
		if err != nil {
			return w, fmt.Errorf("priority: %q is not a whole number", priority)
		}
		w.Priority = int32(n)
	}
	if w.State = object.OrderState(state); o.cfg.States[state] != "" {
		w.State = object.OrderState(o.cfg.States[state])
	}
	if !slices.Contains(orderStates, w.State) {
		return w, fmt.Errorf("state %q is not mapped: add it to states", state)
	}
	var err error
	if w.Quantity.Unit, err = o.cfg.Units.Ours(unit); err != nil {
		return w, err
	}
	return w, o.lines(row, &w)
}

func (o *Orders) lines(row any, w *object.WorkOrder) error {
	if o.hasOps {
		r := &reader{exprs: o.op, vars: map[string]any{"row": row}, zone: o.cfg.Zone}
		for _, line := range r.each() {
			r.vars = map[string]any{"row": row, "line": line}
			x := object.Operation{Operation: r.text("operation"), Description: r.text("description"), WorkCenter: r.text("work_center"), Quantity: w.Quantity}
			if r.exprs["quantity"].IsSet() {
				x.Quantity.Value = r.number("quantity")
			}
			w.Operations = append(w.Operations, x)
		}
		if r.err != nil {
			return fmt.Errorf("operations: %w", r.err)
		}
	}
	if !o.hasParts {
		return nil
	}
	r := &reader{exprs: o.part, vars: map[string]any{"row": row}, zone: o.cfg.Zone}
	for _, line := range r.each() {
		r.vars = map[string]any{"row": row, "line": line}
		x := object.Component{Item: r.text("item"), Description: r.text("description"), Operation: r.text("operation"), Reservation: r.text("reservation"),
			Backflush: r.text("backflush") == "true", Required: object.Quantity{Value: r.number("quantity")}}
		unit := r.text("unit")
		if r.err != nil {
			return fmt.Errorf("component %q: %w", x.Item, r.err)
		}
		var err error
		if x.Required.Unit, err = o.cfg.Units.Ours(unit); err != nil {
			return fmt.Errorf("component %q: %w", x.Item, err)
		}
		w.Components = append(w.Components, x)
	}
	if r.err != nil {
		return fmt.Errorf("components: %w", r.err)
	}
	return nil
}
