package tryton

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/shopspring/decimal"
)

// keepMaster is how long master data is believed before it is read again.
const keepMaster = 5 * time.Minute

// master is Tryton's master data as far as postings need it, read on demand.
type master struct {
	client *client
	config Config
	codes  map[string]string // unit symbol to Rec 20

	mu         sync.Mutex
	fields     map[string]aged[bool] // by model and field: whether a module gives it
	units      aged[map[int]unit]
	items      map[string]aged[item]
	warehouses map[int]aged[warehouse]
	places     aged[map[int]place]
}

type aged[T any] struct {
	value T
	read  time.Time
}

func (a aged[T]) fresh() bool { return time.Since(a.read) < keepMaster }

type unit struct {
	ID       int    `json:"id"`
	Symbol   string `json:"symbol"`
	Digits   int32  `json:"digits"`
	Category int    `json:"category"`
	// Factor is how many of the kind's base unit one of these is, as exact as Tryton's float.
	Factor decimal.Decimal `json:"factor"`
	code   string          // Rec 20; empty when the symbol is not mapped
}

type item struct {
	ID   int    `json:"id"`
	Code string `json:"code"`
	Unit struct {
		ID       int `json:"id"`
		Category int `json:"category"`
	} `json:"default_uom."`
}

type warehouse struct {
	ID      int        `json:"id"`
	Code    string     `json:"code"`
	Name    string     `json:"name"`
	Storage location   `json:"storage_location."`
	Picking *location  `json:"production_picking_location."`
	Output  *location  `json:"production_output_location."`
	Input   location   `json:"input_location."`
	Waste   []location `json:"waste_locations."`
}

type location struct {
	ID   int    `json:"id"`
	Code string `json:"code"`
	Type string `json:"type"`
}

func newMaster(c *client, config Config) *master {
	codes := maps.Clone(builtInUnits)
	maps.Copy(codes, config.Units)
	return &master{client: c, config: config, codes: codes, fields: map[string]aged[bool]{}, items: map[string]aged[item]{}, warehouses: map[int]aged[warehouse]{}}
}

// allUnits returns Tryton's units by record id.
func (m *master) allUnits(ctx context.Context) (map[int]unit, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.units.fresh() {
		return m.units.value, nil
	}
	var rows []unit
	err := m.client.call(ctx, &rows, nil, "product.uom.search_read", []any{}, 0, nil, nil, []string{"symbol", "digits", "category", "factor"})
	if err != nil {
		return nil, err
	}
	units := make(map[int]unit, len(rows))
	for _, u := range rows {
		u.code = m.codes[u.Symbol]
		units[u.ID] = u
	}
	m.units = aged[map[int]unit]{units, time.Now()}
	return units, nil
}

// unitOf returns the unit of a record; an unmapped one is an error that names it.
func (m *master) unitOf(ctx context.Context, id int) (unit, error) {
	units, err := m.allUnits(ctx)
	if err != nil {
		return unit{}, err
	}
	u, ok := units[id]
	if !ok {
		return u, fmt.Errorf("read Tryton's unit: record %d is not there", id)
	}
	if u.code == "" {
		return u, fmt.Errorf("map Tryton's unit %q: it has no Recommendation 20 code; add it to units", u.Symbol)
	}
	return u, nil
}

// unitFor returns Tryton's unit for a Rec 20 code, of the item's kind (count, weight, ...).
func (m *master) unitFor(ctx context.Context, code string, it item) (unit, *connector.Outcome, error) {
	units, err := m.allUnits(ctx)
	if err != nil {
		return unit{}, nil, err
	}
	var symbols []string
	for _, u := range units {
		if u.code != code {
			continue
		}
		if u.Category == it.Unit.Category {
			return u, nil, nil
		}
		symbols = append(symbols, u.Symbol)
	}
	if len(symbols) == 0 {
		return unit{}, reject(connector.Fatal, "unknown_unit", fmt.Sprintf("Tryton has no unit for %q, in which item %q was reported", code, it.Code),
			"Map one of Tryton's unit symbols to it under units in the connector's configuration, or correct the unit at the source."), nil
	}
	slices.Sort(symbols)
	return unit{}, reject(connector.Fatal, "unit_mismatch", fmt.Sprintf("item %q is kept in units of another kind than %q (%s in Tryton)", it.Code, code, strings.Join(symbols, ", ")),
		"Correct the unit at the source or in its rule: Tryton does not convert between kinds of units."), nil
}

// itemFor returns the item of a code.
func (m *master) itemFor(ctx context.Context, code string) (item, *connector.Outcome, error) {
	m.mu.Lock()
	known := m.items[code]
	m.mu.Unlock()
	if known.fresh() {
		return known.value, nil, nil
	}
	var rows []item
	err := m.client.call(ctx, &rows, nil, "product.product.search_read", []any{[]any{"code", "=", code}}, 0, 2, nil,
		[]string{"code", "default_uom.category"})
	if err != nil {
		return item{}, nil, err
	}
	switch len(rows) {
	case 1:
	case 0:
		return item{}, reject(connector.Fatal, "unknown_item", fmt.Sprintf("Tryton has no active item %q", code),
			"Correct the item at the source or in its mapping, or create it in Tryton and replay."), nil
	default:
		return item{}, reject(connector.Fatal, "ambiguous_item", fmt.Sprintf("Tryton has more than one item with the code %q", code),
			"Give each item in Tryton a code of its own and replay."), nil
	}
	m.mu.Lock()
	m.items[code] = aged[item]{rows[0], time.Now()}
	m.mu.Unlock()
	return rows[0], nil, nil
}

// warehouseOf returns the places of an order's warehouse.
func (m *master) warehouseOf(ctx context.Context, id int) (warehouse, error) {
	m.mu.Lock()
	known := m.warehouses[id]
	m.mu.Unlock()
	if known.fresh() {
		return known.value, nil
	}
	var rows []warehouse
	err := m.client.call(ctx, &rows, nil, "stock.location.read", []int{id}, []string{"code", "name",
		"storage_location.type", "storage_location.code", "production_picking_location.type", "production_picking_location.code",
		"production_output_location.type", "production_output_location.code", "input_location.code", "input_location.type",
		"waste_locations.code", "waste_locations.type"})
	if err != nil {
		return warehouse{}, err
	}
	if len(rows) != 1 {
		return warehouse{}, fmt.Errorf("read Tryton's warehouse: record %d is not there", id)
	}
	m.mu.Lock()
	m.warehouses[id] = aged[warehouse]{rows[0], time.Now()}
	m.mu.Unlock()
	return rows[0], nil
}

// site is how routing knows the warehouse.
func (c Config) site(w warehouse) string {
	name := w.Code
	if name == "" {
		name = w.Name
	}
	if site, ok := c.Sites[name]; ok {
		return site
	}
	return name
}

// picked is where material comes from, made where good pieces go.
func (w warehouse) picked() location {
	if w.Picking != nil {
		return *w.Picking
	}
	return w.Storage
}

// input is where goods arrive; another place than the storage, or at least one that a gate can name.
func (w warehouse) input() int {
	if w.Input.ID != w.Storage.ID || len(w.Waste) == 0 {
		return w.Input.ID
	}
	return w.Waste[0].ID
}

func (w warehouse) made() location {
	if w.Output != nil {
		return *w.Output
	}
	return w.Storage
}

// scrap returns the waste location that the configuration means.
func (c Config) scrap(w warehouse) (location, *connector.Outcome) {
	if c.ScrapLocation == "" && len(w.Waste) == 1 {
		return w.Waste[0], nil
	}
	for _, l := range w.Waste {
		if c.ScrapLocation != "" && l.Code == c.ScrapLocation {
			return l, nil
		}
	}
	reason := fmt.Sprintf("warehouse %q has no waste location %q", c.site(w), c.ScrapLocation)
	if c.ScrapLocation == "" {
		reason = fmt.Sprintf("warehouse %q has %d waste locations, and scrap_location does not say which one to use", c.site(w), len(w.Waste))
	}
	return location{}, reject(connector.Correctable, "no_scrap_location", reason,
		"Add a location of type Lost and Found to the warehouse's waste locations in Tryton, name its code in scrap_location, and replay.")
}

// keepsLots reports whether the module for lots is active.
func (m *master) keepsLots(ctx context.Context) (bool, error) { return m.has(ctx, "stock.move", "lot") }

// keepsWorks reports whether the module for works on orders is active.
func (m *master) keepsWorks(ctx context.Context) (bool, error) {
	return m.has(ctx, "production", "works")
}

// has reports whether the active modules give a model the field.
func (m *master) has(ctx context.Context, model, field string) (bool, error) {
	m.mu.Lock()
	known := m.fields[model+"."+field]
	m.mu.Unlock()
	if known.fresh() {
		return known.value, nil
	}
	var fields map[string]any
	if err := m.client.call(ctx, &fields, nil, model+".fields_get", []string{field}); err != nil {
		return false, err
	}
	_, has := fields[field]
	m.mu.Lock()
	m.fields[model+"."+field] = aged[bool]{has, time.Now()}
	m.mu.Unlock()
	return has, nil
}

// knownPlaces are the storage locations as they were read last; none when that is too long ago.
func (m *master) knownPlaces() map[int]place {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.places.fresh() {
		return nil
	}
	return m.places.value
}

func (m *master) keepPlaces(all map[int]place) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.places = aged[map[int]place]{all, time.Now()}
}
