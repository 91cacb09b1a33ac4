package erpnextdouble

import (
	"encoding/json"
	"fmt"
	"maps"
	"sync"
	"time"

	"github.com/shopspring/decimal"
)

// Stamp is how Frappe writes an instant, in the site's own zone.
const Stamp = "2006-01-02 15:04:05.000000"

// The document types.
const (
	WorkOrder  = "Work Order"
	StockEntry = "Stock Entry"
	Settings   = "Manufacturing Settings"
)

// Traps are ways in which a site goes wrong or is set up otherwise.
type Traps struct {
	// Busy answers 503, Throttle 429 with Retry-After, Deny refuses every change for lack of a right.
	Busy, Throttle, Deny bool
	// Conflict409 refuses a second value of a unique field as DuplicateEntryError (409) and not as UniqueValidationError (417).
	Conflict409 bool
	// NoKeyField, KeyNotUnique: the custom field for the key is missing, or not unique.
	NoKeyField, KeyNotUnique bool
	// NeedsRawMaterial: Material Consumption is off in Manufacturing Settings.
	NeedsRawMaterial bool
	// HiddenSettings: the user may not read Manufacturing Settings.
	HiddenSettings bool
	// FrozenUpto closes the books up to a date (2006-01-02), both included.
	FrozenUpto string
	// LossFromJobCards sets the process loss to what the job cards say, which is nothing: so it is with orders that have operations.
	LossFromJobCards bool
	// SubmitLies answers a submit as if it were done and rolls it back. OtherQuantity is what a server script makes of the
	// first row's quantity at the submit.
	SubmitLies    bool
	OtherQuantity string
}

// doc is a document as it travels.
type doc = map[string]any

// Options of a site; zero values are a site with precision 3 and no allowance for overproduction, in UTC.
type Options struct {
	Precision int32
	// OverPercent is how much more than planned may be made.
	OverPercent int64
	Zone        *time.Location
}

// System is one site.
type System struct {
	opt Options

	mu     sync.Mutex
	traps  Traps
	last   time.Time
	seq    int
	tables map[string]map[string]doc
	locked map[string]bool
	hidden map[string]bool
	bins   map[[2]string]decimal.Decimal
}

// New makes an empty site.
func New(opt Options) *System {
	if opt.Precision == 0 {
		opt.Precision = 3
	}
	if opt.Zone == nil {
		opt.Zone = time.UTC
	}
	return &System{opt: opt, tables: map[string]map[string]doc{WorkOrder: {}, StockEntry: {}, "Item": {}}, locked: map[string]bool{}, hidden: map[string]bool{}, bins: map[[2]string]decimal.Decimal{}}
}

// SetTraps replaces the traps.
func (s *System) SetTraps(t Traps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traps = t
}

// Lock is a user or a background job that holds an order.
func (s *System) Lock(order string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked[order] = on
}

// PutItem creates an item with its stock unit.
func (s *System) PutItem(code, unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tables["Item"][code] = doc{"name": code, "item_code": code, "item_name": "The " + code, "stock_uom": unit, "modified": s.now()}
}

// PutStock sets what a warehouse holds.
func (s *System) PutStock(item, warehouse string, quantity decimal.Decimal) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bins[[2]string{item, warehouse}] = quantity
}

// now is a stamp that no other document has.
func (s *System) now() string {
	t := time.Now().In(s.opt.Zone).Truncate(time.Microsecond)
	if !t.After(s.last) {
		t = s.last.Add(time.Microsecond)
	}
	s.last = t
	return t.Format(Stamp)
}

// Need is what an order needs of an item for each piece.
type Need struct {
	Item string
	Each decimal.Decimal
}

// CreateOrder makes a submitted order and returns its name.
func (s *System) CreateOrder(item string, quantity decimal.Decimal, needs ...Need) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq++
	name := fmt.Sprintf("MFG-WO-2026-%05d", s.seq)
	o := doc{"name": name, "doctype": WorkOrder, "docstatus": 1, "status": "Not Started", "production_item": item, "item_name": "The " + item, "company": "Ulm Works",
		"stock_uom": s.tables["Item"][item]["stock_uom"], "skip_transfer": 0, "from_wip_warehouse": 0, "wip_warehouse": "WIP - U", "fg_warehouse": "Finished - U", "scrap_warehouse": "Scrap - U",
		"planned_start_date": "2026-03-02 06:00:00", "expected_delivery_date": "2026-03-04", "bom_no": "BOM-" + item + "-001", "operations": []any{}, "produced_qty": json.Number("0"), "process_loss_qty": json.Number("0")}
	setOrderQuantity(o, quantity, needs)
	o["modified"] = s.now()
	s.tables[WorkOrder][name] = o
	return name
}

func setOrderQuantity(o doc, quantity decimal.Decimal, needs []Need) {
	var rows []any
	for i, n := range needs {
		rows = append(rows, doc{"idx": i + 1, "item_code": n.Item, "item_name": "The " + n.Item, "required_qty": number(quantity.Mul(n.Each)), "source_warehouse": "Stores - U"})
	}
	o["qty"], o["required_items"] = number(quantity), rows
}

// Change changes an order as a planner does, in a transaction that began at that time; zero is now.
func (s *System) Change(order string, began time.Time, change func(o map[string]any)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, ok := s.tables[WorkOrder][order]
	if !ok {
		return fmt.Errorf("no order %q", order)
	}
	o = maps.Clone(o)
	change(o)
	o["modified"] = s.now()
	if !began.IsZero() {
		o["modified"] = began.In(s.opt.Zone).Format(Stamp)
	}
	s.tables[WorkOrder][order] = o
	return nil
}

// Resize gives an order another quantity.
func Resize(quantity decimal.Decimal, needs ...Need) func(map[string]any) {
	return func(o map[string]any) { setOrderQuantity(o, quantity, needs) }
}

// Totals is what the books hold for an order.
type Totals struct {
	Yield, Scrap     decimal.Decimal
	Issued, Returned map[string]decimal.Decimal
	// Documents counts submitted entries, Drafts those without an effect, Cancelled those taken back.
	Documents, Drafts, Cancelled int
	Status                       string
}

// Totals sums the stock entries of an order; those that lose the order belong to it by the custom field.
func (s *System) Totals(order string) Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	t := Totals{Issued: map[string]decimal.Decimal{}, Returned: map[string]decimal.Decimal{}, Status: text(s.tables[WorkOrder][order], "status")}
	for _, e := range s.tables[StockEntry] {
		if text(e, "work_order") != order && text(e, "linekeeper_order") != order {
			continue
		}
		switch whole(e, "docstatus") {
		case 0:
			t.Drafts++
			continue
		case 2:
			t.Cancelled++
			continue
		}
		t.Documents++
		item := text(s.tables[WorkOrder][order], "production_item")
		for _, r := range rows(e, "items") {
			code, q := text(r, "item_code"), amount(r, "qty")
			switch purpose := text(e, "purpose"); {
			case purpose == "Manufacture" && whole(r, "is_finished_item") == 1:
				t.Yield = t.Yield.Add(q)
			case purpose == "Material Consumption for Manufacture":
				t.Issued[code] = t.Issued[code].Add(q)
			case purpose == "Material Receipt" && code == item:
				t.Scrap = t.Scrap.Add(q)
			case purpose == "Material Receipt":
				t.Returned[code] = t.Returned[code].Add(q)
			}
		}
		t.Scrap = t.Scrap.Add(amount(e, "process_loss_qty"))
	}
	return t
}

func number(d decimal.Decimal) json.Number { return json.Number(d.String()) }

func text(d doc, field string) string { s, _ := d[field].(string); return s }

func amount(d doc, field string) decimal.Decimal {
	v, err := decimal.NewFromString(fmt.Sprint(d[field]))
	if err != nil {
		return decimal.Zero
	}
	return v
}

func whole(d doc, field string) int64 { return amount(d, field).IntPart() }

func rows(d doc, field string) (out []doc) {
	list, _ := d[field].([]any)
	for _, r := range list {
		if m, ok := r.(doc); ok {
			out = append(out, m)
		}
	}
	return out
}
