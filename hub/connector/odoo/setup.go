package odoo

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
)

// setup is what differs between versions and databases, read from Odoo itself and never guessed.
type setup struct {
	done       string // of stock.move: quantity (17 and later) or quantity_done
	lineDone   string // of stock.move.line: quantity or qty_done
	picked     bool   // moves and lines say whether their quantity was done or only reserved (17 and later)
	start, end string // of mrp.production: date_start, date_finished (17 and later) or date_planned_start, date_planned_finished
	group      string // of mrp.production: procurement_group_id or production_group_id (19): what backorders have in common
	lot        string // of mrp.production; empty where an order has several
	moves      string // of stock.picking: move_ids or move_lines (15)
	moveName   bool   // stock.move has a name, which it then needs (before 19)
	lotModel   string

	types []operationType
	scrap int // location
}

type operationType struct {
	ID        int `json:"id"`
	Company   ref `json:"company_id"`
	Warehouse ref `json:"warehouse_id"`
}

type field struct {
	Type     string `json:"type"`
	Relation string `json:"relation"`
}

// catalogue keeps what is read once: the set-up, and the usage of locations.
type catalogue struct {
	mu     sync.Mutex
	setup  *setup
	usages map[int]string
}

// known reads the set-up at the first need and keeps it once it was read whole.
func (c *Connector) known(ctx context.Context) (*setup, error) {
	c.cat.mu.Lock()
	defer c.cat.mu.Unlock()
	if c.cat.setup != nil {
		return c.cat.setup, nil
	}
	s, err := c.learn(ctx)
	if err != nil {
		return nil, fmt.Errorf("read how Odoo is set up: %w", err)
	}
	c.cat.setup = s
	return s, nil
}

func (c *Connector) learn(ctx context.Context) (*setup, error) {
	fields := map[string]map[string]field{}
	for _, model := range []string{"mrp.production", "stock.move", "stock.move.line", "stock.picking"} {
		var f map[string]field
		if err := c.client.call(ctx, model, "fields_get", nil, nil, &f, arg{"attributes", []string{"type", "relation"}}); err != nil {
			return nil, fmt.Errorf("read the fields of %s: %w", model, err)
		}
		fields[model] = f
	}
	s := &setup{}
	for _, x := range []struct {
		model string
		into  *string
		names []string // the first that is there
	}{
		{"stock.move", &s.done, []string{"quantity_done", "quantity"}},
		{"stock.move.line", &s.lineDone, []string{"qty_done", "quantity"}},
		{"mrp.production", &s.start, []string{"date_planned_start", "date_start"}},
		{"mrp.production", &s.end, []string{"date_planned_finished", "date_finished"}},
		{"mrp.production", &s.group, []string{"procurement_group_id", "production_group_id"}},
		{"mrp.production", new(string), []string{"production_location_id"}},
		{"mrp.production", new(string), []string{"backorder_sequence"}},
		{"stock.picking", &s.moves, []string{"move_lines", "move_ids"}},
		{"stock.move", new(string), []string{"origin_returned_move_id"}},
		{"stock.move", new(string), []string{"raw_material_production_id"}},
	} {
		for _, name := range x.names {
			if _, ok := fields[x.model][name]; ok {
				*x.into = name
				break
			}
		}
		if *x.into == "" {
			return nil, fmt.Errorf("%s has no field %v: this connector knows Odoo 15 to 19, with Manufacturing installed and readable for its user", x.model, x.names)
		}
	}
	_, s.picked = fields["stock.move"]["picked"]
	_, s.moveName = fields["stock.move"]["name"]
	if _, ok := fields["mrp.production"]["lot_producing_id"]; ok {
		s.lot = "lot_producing_id"
	}
	s.lotModel = cmp.Or(fields["stock.move.line"]["lot_id"].Relation, "stock.lot")
	if f, ok := fields["stock.picking"][c.cfg.KeyField]; !ok || f.Type != "char" {
		return nil, fmt.Errorf("field %q of Transfer is missing in Odoo or is no text: add it in Settings, Technical, Fields (model stock.picking, type char, indexed, not copied), or set key_field to origin", c.cfg.KeyField)
	}
	return s, c.learnPlaces(ctx, s)
}

func (c *Connector) learnPlaces(ctx context.Context, s *setup) error {
	domain := []any{where("name", "=", c.cfg.OperationType), where("code", "=", "internal")}
	if err := c.client.list(ctx, "stock.picking.type", domain, []string{"company_id", "warehouse_id"}, "id", 0, &s.types); err != nil {
		return err
	}
	if len(s.types) == 0 {
		return fmt.Errorf("no operation type %q of type Internal Transfer is in Odoo: create it, or correct operation_type", c.cfg.OperationType)
	}
	if c.cfg.ScrapLocation == "" {
		return nil
	}
	var found []struct {
		ID int `json:"id"`
	}
	if err := c.client.list(ctx, "stock.location", []any{where("complete_name", "=", c.cfg.ScrapLocation)}, []string{"usage"}, "id", 2, &found); err != nil {
		return err
	}
	if len(found) != 1 {
		return fmt.Errorf("%d locations have the full name %q in Odoo: correct scrap_location", len(found), c.cfg.ScrapLocation)
	}
	s.scrap = found[0].ID
	return nil
}

// typeFor picks the operation type of an order's company, and of its warehouse where the company has several.
func (c *Connector) typeFor(ctx context.Context, s *setup, p *production) (int, error) {
	var mine []operationType
	for _, t := range s.types {
		if t.Company.ID == p.Company.ID {
			mine = append(mine, t)
		}
	}
	if len(mine) == 1 {
		return mine[0].ID, nil
	}
	var own []operationType
	if err := c.client.list(ctx, "stock.picking.type", []any{where("id", "=", p.Type.ID)}, []string{"company_id", "warehouse_id"}, "id", 1, &own); err != nil {
		return 0, err
	}
	for _, t := range mine {
		if len(own) == 1 && t.Warehouse.ID == own[0].Warehouse.ID {
			return t.ID, nil
		}
	}
	return 0, fmt.Errorf("company %q has %d operation types %q, none of them of the order's warehouse: create one there, then start the hub again", p.Company.Name, len(mine), c.cfg.OperationType)
}

// usage says what kind of places locations are: internal, production, inventory and so on. A location's usage cannot change while it is used.
func (c *Connector) usage(ctx context.Context, ids []int) (map[int]string, error) {
	c.cat.mu.Lock()
	defer c.cat.mu.Unlock()
	var missing []int
	for _, id := range ids {
		if c.cat.usages[id] == "" {
			missing = append(missing, id)
		}
	}
	if len(missing) > 0 {
		var found []struct {
			ID    int    `json:"id"`
			Usage string `json:"usage"`
		}
		if err := c.client.list(ctx, "stock.location", []any{where("id", "in", missing)}, []string{"usage"}, "id", 0, &found); err != nil {
			return nil, err
		}
		for _, l := range found {
			c.cat.usages[l.ID] = l.Usage
		}
	}
	all := map[int]string{}
	for _, id := range ids {
		all[id] = c.cat.usages[id]
	}
	return all, nil
}

// unit translates a unit of Odoo's. It never guesses.
func (c *Connector) unit(u ref) (string, error) {
	if code := cmp.Or(c.cfg.Units[u.Name], c.cfg.Units[strconv.Itoa(u.ID)]); code != "" {
		return code, nil
	}
	return "", fmt.Errorf("unit %q (id %d) is not mapped: add it to units", u.Name, u.ID)
}

// products reads products by id.
func (c *Connector) products(ctx context.Context, ids []int) (map[int]product, error) {
	all := map[int]product{}
	if len(ids) == 0 {
		return all, nil
	}
	var found []product
	if err := c.client.list(ctx, "product.product", []any{where("id", "in", ids), where("active", "in", []bool{true, false})}, productFields, "id", 0, &found); err != nil {
		return nil, err
	}
	for _, p := range found {
		all[p.ID] = p
	}
	return all, nil
}

var productFields = []string{"default_code", "display_name", "uom_id", "tracking"}

var moveFields = []string{"state", "product_id", "product_uom", "product_uom_qty", "location_id", "location_dest_id", "picking_id", "raw_material_production_id",
	"production_id", "origin_returned_move_id", "date", "write_uid"}

// moves reads stock moves.
func (c *Connector) moves(ctx context.Context, s *setup, domain []any) ([]move, error) {
	var raw []json.RawMessage
	if err := c.client.list(ctx, "stock.move", domain, append([]string{s.done}, moveFields...), "id", 0, &raw); err != nil {
		return nil, err
	}
	all := make([]move, len(raw))
	for i := range raw {
		var named map[string]json.RawMessage
		if err := json.Unmarshal(raw[i], &all[i]); err != nil {
			return nil, &lost{cause: fmt.Errorf("read a stock move: %w: %w", errForm, err)}
		}
		if err := json.Unmarshal(raw[i], &named); err != nil {
			return nil, &lost{cause: fmt.Errorf("read a stock move: %w: %w", errForm, err)}
		}
		if err := field1(named, s.done, &all[i].Done); err != nil {
			return nil, fmt.Errorf("read stock move %d: %w", all[i].ID, err)
		}
	}
	return all, nil
}

// field1 reads a field whose name is known only now; one that is empty or not asked for stays zero.
func field1(named map[string]json.RawMessage, name string, v any) error {
	if len(named[name]) == 0 {
		return nil
	}
	if err := json.Unmarshal(named[name], v); err != nil {
		return &lost{cause: fmt.Errorf("%w: %s: %w", errForm, name, err)}
	}
	return nil
}

var productionFields = []string{"name", "state", "backorder_sequence", "product_id", "product_qty", "product_uom_id", "qty_produced", "reservation_state", "priority",
	"company_id", "picking_type_id", "location_src_id", "location_dest_id", "production_location_id", "write_date"}

// productions reads manufacturing orders, as they were split, oldest first. One that cannot be read is an error of form.
func (c *Connector) productions(ctx context.Context, s *setup, domain []any) ([]production, error) {
	fields := append([]string{s.start, s.end, s.group}, productionFields...)
	if s.lot != "" {
		fields = append(fields, s.lot)
	}
	var raw []json.RawMessage
	if err := c.client.list(ctx, "mrp.production", domain, fields, "id", 0, &raw); err != nil {
		return nil, err
	}
	all := make([]production, len(raw))
	for i := range raw {
		if err := all[i].read(raw[i], s); err != nil {
			return nil, fmt.Errorf("read manufacturing order %s: %w", all[i].Name, err)
		}
	}
	return all, nil
}

func (p *production) read(raw json.RawMessage, s *setup) error {
	var named map[string]json.RawMessage
	if err := json.Unmarshal(raw, p); err != nil {
		return &lost{cause: fmt.Errorf("%w: %w", errForm, err)}
	}
	if err := json.Unmarshal(raw, &named); err != nil {
		return &lost{cause: fmt.Errorf("%w: %w", errForm, err)}
	}
	var lot ref
	for name, v := range map[string]any{s.start: &p.Start, s.end: &p.End, s.group: &p.Group, s.lot: &lot} {
		if name != "" {
			if err := field1(named, name, v); err != nil {
				return err
			}
		}
	}
	p.Lot = text(lot.Name)
	return nil
}
