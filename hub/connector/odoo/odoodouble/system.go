package odoodouble

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/shopspring/decimal"
)

// Traps are ways in which a database goes wrong or is set up otherwise.
type Traps struct {
	// Busy answers 503 and Throttle 429 with Retry-After, as a web server before Odoo does. Deny refuses every change for lack of a right.
	Busy, Throttle, Deny bool
	// DenyTies refuses to change done moves for lack of a right.
	DenyTies bool
	// NoKeyField: the custom field for the key is missing. KeyUnique: the database holds it unique.
	NoKeyField, KeyUnique bool
	// Locked closes the books of today.
	Locked bool
	// Wizard answers a validation with an action of that model and does nothing.
	Wizard string
	// ValidateLies answers a validation as if it were done. OtherQuantity is what is booked of the first move instead.
	ValidateLies  bool
	OtherQuantity float64
	// Contended refuses each validation because of somebody else's lock.
	Contended bool
	// ErrorAfterCommit tells of an error of the server's own after a validation was committed.
	ErrorAfterCommit bool
	// ReadLag is how far reading lags behind writing, as with a replica.
	ReadLag time.Duration
}

// Options of a database.
type Options struct {
	// Version is 16, 18 or 19; 19 when 0.
	Version int
	// WorkOrders gives each order one work order.
	WorkOrders bool
}

type record = map[string]any

type tables map[string]map[int]record

func (t tables) clone() tables {
	out := tables{}
	for model, rows := range t {
		out[model] = map[int]record{}
		for id, r := range rows {
			out[model][id] = maps.Clone(r)
		}
	}
	return out
}

// System is one database.
type System struct {
	opt Options

	mu      sync.Mutex
	traps   Traps
	tables  tables
	replica tables
	wrote   time.Time
	last    time.Time
	seq     map[string]int
	locked  map[string]bool
	known   map[string]map[string]string // fields, by model
}

// The records that are there from the start.
const (
	company   = 1
	warehouse = 1
	typeMake  = 1
	typeFloor = 2
	// Stock, Floor and Scrap are the locations.
	Stock = 8
	Floor = 15
	Scrap = 16
	user  = 7
)

// New makes a database with one company, one warehouse and the units Units and kg.
func New(opt Options) *System {
	if opt.Version == 0 {
		opt.Version = 19
	}
	s := &System{opt: opt, tables: tables{}, seq: map[string]int{}, locked: map[string]bool{}, known: map[string]map[string]string{}}
	for model := range models {
		s.tables[model] = map[int]record{}
	}
	s.put("res.company", company, record{"name": "Ulm Works"})
	s.put("res.users", user, record{"name": "Linekeeper"})
	s.put("stock.warehouse", warehouse, record{"name": "WH"})
	s.put("stock.location", Stock, record{"complete_name": "WH/Stock", "usage": "internal"})
	s.put("stock.location", Floor, record{"complete_name": "Virtual Locations/Production", "usage": "production"})
	s.put("stock.location", Scrap, record{"complete_name": "Virtual Locations/Scrap", "usage": "inventory"})
	s.put("stock.picking.type", typeMake, record{"name": "Manufacturing", "code": "mrp_operation", "company_id": company, "warehouse_id": warehouse})
	s.put("stock.picking.type", typeFloor, record{"name": "Shop Floor", "code": "internal", "company_id": company, "warehouse_id": warehouse})
	s.put("mrp.workcenter", 1, record{"name": "Press 1"})
	s.put("uom.uom", 1, record{"name": "Units"})
	s.put("uom.uom", 12, record{"name": "kg"})
	return s
}

func (s *System) put(model string, id int, r record) {
	r["id"] = id
	s.tables[model][id] = r
	s.seq[model] = max(s.seq[model], id)
}

// now is the time of a transaction, in microseconds and never twice.
func (s *System) now() time.Time {
	t := time.Now().UTC().Truncate(time.Microsecond)
	if !t.After(s.last) {
		t = s.last.Add(time.Microsecond)
	}
	s.last = t
	return t
}

func (s *System) insert(model string, r record) int {
	s.seq[model]++
	id := s.seq[model]
	r["id"], r["write_date"], r["write_uid"] = id, s.now(), user
	s.tables[model][id] = r
	return id
}

func (s *System) touch(r record) { r["write_date"] = s.now() }

// SetTraps replaces the traps.
func (s *System) SetTraps(t Traps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.traps = t
	clear(s.known)
	s.replica = nil
	if t.ReadLag > 0 {
		s.replica = s.tables.clone()
	}
}

// PutProduct adds a product with a unit's name, and a tracking of none, lot or serial.
func (s *System) PutProduct(code, unit, tracking string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, u := range s.tables["uom.uom"] {
		if u["name"] == unit {
			s.insert("product.product", record{"default_code": code, "display_name": "[" + code + "] " + code, "uom_id": id, "tracking": tracking, "active": true})
			return
		}
	}
	panic("no unit " + unit)
}

// PutUnit adds a unit.
func (s *System) PutUnit(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert("uom.uom", record{"name": name})
}

// PutLot adds a lot of a product.
func (s *System) PutLot(code, lot string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.insert("stock.lot", record{"name": lot, "product_id": s.product(code)})
}

// PutStock sets what is in stock of a product.
func (s *System) PutStock(code string, q float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.quant(s.product(code), Stock, 0)["quantity"] = q
}

// InStock is what is in stock of a product.
func (s *System) InStock(code string) decimal.Decimal {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := 0.0
	for _, q := range s.tables["stock.quant"] {
		if q["product_id"] == s.product(code) && q["location_id"] == Stock {
			sum += q["quantity"].(float64)
		}
	}
	return exactly(sum)
}

func exactly(f float64) decimal.Decimal { return decimal.NewFromFloat(f).Round(6) }

func (s *System) product(code string) int {
	for id, p := range s.tables["product.product"] {
		if p["default_code"] == code {
			return id
		}
	}
	panic("no product " + code)
}

func (s *System) quant(product, location, lot int) record {
	for _, q := range s.tables["stock.quant"] {
		if q["product_id"] == product && q["location_id"] == location && num(q, "lot_id") == lot {
			return q
		}
	}
	id := s.insert("stock.quant", record{"product_id": product, "location_id": location, "lot_id": lot, "quantity": 0.0})
	return s.tables["stock.quant"][id]
}

// Need is so much of a component for each piece.
type Need struct {
	Code string
	Each float64
}

// CreateOrder makes a confirmed order and returns its number.
func (s *System) CreateOrder(code string, quantity float64, needs ...Need) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seq["mo"]++
	name := fmt.Sprintf("WH/MO/%05d", s.seq["mo"])
	group := s.insert(s.groupModel(), record{"name": name})
	s.newProduction(name, 0, group, s.product(code), quantity, needs)
	s.wrote = time.Now()
	return name
}

func (s *System) newProduction(name string, sequence, group, product int, quantity float64, needs []Need) int {
	now := s.now()
	unit := s.tables["product.product"][product]["uom_id"]
	r := record{"name": name, "state": "confirmed", "backorder_sequence": sequence, "product_id": product, "product_qty": quantity, "product_uom_id": unit, "qty_producing": 0.0,
		"reservation_state": "assigned", "priority": "0", "company_id": company, "picking_type_id": typeMake, "location_src_id": Stock, "location_dest_id": Stock,
		"production_location_id": Floor, s.groupField(): group}
	start, end := s.dates()
	r[start], r[end] = now, now.Add(8*time.Hour)
	id := s.insert("mrp.production", r)
	s.planned(id, tieMade, product, quantity, Floor, Stock)
	for _, n := range needs {
		s.planned(id, tieRaw, s.product(n.Code), quantity*n.Each, Stock, Floor)
	}
	if s.opt.WorkOrders {
		s.insert("mrp.workorder", record{"name": "Assembly", "state": "ready", "production_id": id, "workcenter_id": 1})
	}
	return id
}

const (
	tieRaw  = "raw_material_production_id"
	tieMade = "production_id"
)

func (s *System) planned(order int, tie string, product int, quantity float64, from, to int) int {
	r := s.newMove(product, quantity, from, to)
	r["state"], r[tie] = "confirmed", order
	return s.insert("stock.move", r)
}

func (s *System) newMove(product int, quantity float64, from, to int) record {
	return record{"state": "draft", "product_id": product, "product_uom": s.tables["product.product"][product]["uom_id"], "product_uom_qty": quantity, s.done(): 0.0,
		"location_id": from, "location_dest_id": to, "date": s.now(), "picked": false}
}

// Change changes an order's newest part as a planner would, stamped with an instant; the present when zero.
func (s *System) Change(order string, stamp time.Time, f func(record)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.members(order)
	r := s.tables["mrp.production"][ids[len(ids)-1]]
	f(r)
	s.touch(r)
	if !stamp.IsZero() {
		r["write_date"] = stamp.UTC().Truncate(time.Microsecond)
	}
	s.wrote = time.Now()
}

// Resize changes an order's quantity and that of its planned moves, in a transaction with that stamp; the present when zero.
func (s *System) Resize(order string, quantity float64, stamp time.Time) {
	s.Change(order, stamp, func(r record) {
		factor := quantity / r["product_qty"].(float64)
		r["product_qty"] = quantity
		for _, m := range s.tables["stock.move"] {
			if (num(m, tieRaw) == r["id"] || num(m, tieMade) == r["id"]) && m["state"] == "confirmed" {
				m["product_uom_qty"] = m["product_uom_qty"].(float64) * factor
			}
		}
	})
}

// Need changes what an order's first planned component move needs, which stamps the move and not the order.
func (s *System) Need(order string, quantity float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.members(order)[0]
	for _, m := range s.sorted("stock.move") {
		if num(m, tieRaw) == id && m["state"] == "confirmed" {
			m["product_uom_qty"] = quantity
			s.touch(m)
			return
		}
	}
}

// NeedIn makes an order need its first component in another unit.
func (s *System) NeedIn(order, unit string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	id := s.members(order)[0]
	for uom, u := range s.tables["uom.uom"] {
		for _, m := range s.tables["stock.move"] {
			if u["name"] == unit && num(m, tieRaw) == id {
				m["product_uom"] = uom
			}
		}
	}
}

// Cancel is a planner's cancel of all parts of an order.
func (s *System) Cancel(order string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.members(order) {
		s.cancel(id)
	}
}

// Close is a person's Produce All of an order: what is missing is made, and the planned material taken.
func (s *System) Close(order string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, id := range s.members(order) {
		r := s.tables["mrp.production"][id]
		if r["state"] != "done" && r["state"] != "cancel" {
			s.markDone(r, r["product_qty"].(float64)-s.made(id))
		}
	}
}

// Backorder is a person's partial production with a backorder: the open part makes so much, with its share of the planned material, and is done;
// a new order with the next number gets the rest.
func (s *System) Backorder(order string, made float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.members(order)
	r := s.tables["mrp.production"][ids[len(ids)-1]]
	s.splitOff(order, r, made)
	s.markDone(r, made)
}

// Split is a planner's split of the open part in two.
func (s *System) Split(order string, first float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.members(order)
	s.splitOff(order, s.tables["mrp.production"][ids[len(ids)-1]], first)
}

func (s *System) splitOff(order string, r record, first float64) {
	id, all := r["id"].(int), r["product_qty"].(float64)
	sequence := max(num(r, "backorder_sequence"), 1)
	r["backorder_sequence"], r["name"], r["product_qty"] = sequence, fmt.Sprintf("%s-%03d", order, sequence), first
	s.touch(r)
	next := s.newProduction(fmt.Sprintf("%s-%03d", order, sequence+1), sequence+1, num(r, s.groupField()), num(r, "product_id"), all-first, nil)
	for _, m := range s.sorted("stock.move") {
		if m["state"] == "confirmed" && num(m, tieRaw) == id {
			q := m["product_uom_qty"].(float64)
			m["product_uom_qty"] = q * first / all
			s.planned(next, tieRaw, num(m, "product_id"), q*(all-first)/all, Stock, Floor)
			s.touch(m)
		}
		if m["state"] == "confirmed" && num(m, tieMade) == id {
			m["product_uom_qty"] = first
			s.touch(m)
		}
	}
	s.wrote = time.Now()
}

func (s *System) markDone(r record, makes float64) {
	id := r["id"].(int)
	for _, m := range s.sorted("stock.move") {
		if m["state"] != "confirmed" || num(m, tieRaw) != id && num(m, tieMade) != id {
			continue
		}
		q := m["product_uom_qty"].(float64)
		if num(m, tieMade) == id {
			q = makes
		}
		if q <= 0 {
			m["state"] = "cancel"
			continue
		}
		m[s.done()], m["picked"] = q, true
		s.book(m, 0)
	}
	r["state"], r["qty_producing"] = "done", makes
	s.touch(r)
	s.wrote = time.Now()
}

// ChangeDraft makes a draft transfer's quantity another one, as a person might.
func (s *System) ChangeDraft(key string, q float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.tables["stock.picking"] {
		if p["x_fact_key"] == key {
			for _, m := range s.tables["stock.move"] {
				if num(m, "picking_id") == p["id"] {
					m["product_uom_qty"], m[s.done()] = q, q
					for _, l := range s.lines(m) {
						l[s.lineDone()] = q
					}
				}
			}
		}
	}
}

// MoveLines gives the lines of a draft transfer another destination than its moves have, as a person might.
func (s *System) MoveLines(key string, to int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.tables["stock.picking"] {
		for _, l := range s.tables["stock.move.line"] {
			if p["x_fact_key"] == key && num(l, "picking_id") == p["id"] {
				l["location_dest_id"] = to
			}
		}
	}
}

// Return is a person's return of a done transfer by the wizard, which copies what is copied: the key among it. Origin is another one then.
func (s *System) Return(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.sorted("stock.picking") {
		if !strings.HasSuffix(p["origin"].(string), " "+key) || p["state"] != "done" {
			continue
		}
		r := maps.Clone(p)
		s.seq["transfer"]++
		r["name"], r["origin"] = fmt.Sprintf("WH/SF/%05d", s.seq["transfer"]), "Return of "+p["name"].(string)
		id := s.insert("stock.picking", r)
		for _, m := range s.sorted("stock.move") {
			if num(m, "picking_id") != p["id"] {
				continue
			}
			b := maps.Clone(m)
			b["picking_id"], b["location_id"], b["location_dest_id"], b["origin_returned_move_id"] = id, m["location_dest_id"], m["location_id"], m["id"]
			delete(b, tieRaw)
			delete(b, tieMade)
			s.insert("stock.move", b)
			s.book(b, 0)
		}
	}
	s.wrote = time.Now()
}

// MakeByHand books a person's production under an order, without a transfer.
func (s *System) MakeByHand(order string, q float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := s.tables["mrp.production"][s.members(order)[0]]
	id := s.planned(r["id"].(int), tieMade, num(r, "product_id"), q, Floor, Stock)
	m := s.tables["stock.move"][id]
	m[s.done()], m["picked"] = q, true
	s.book(m, 0)
	s.wrote = time.Now()
}

// Again books the done transfer of a key once more, under the same key.
func (s *System) Again(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.sorted("stock.picking") {
		if !strings.HasSuffix(p["origin"].(string), " "+key) {
			continue
		}
		r := maps.Clone(p)
		s.seq["transfer"]++
		r["name"] = fmt.Sprintf("WH/SF/%05d", s.seq["transfer"])
		id := s.insert("stock.picking", r)
		for _, m := range s.sorted("stock.move") {
			if num(m, "picking_id") == p["id"] {
				b := maps.Clone(m)
				b["picking_id"] = id
				s.insert("stock.move", b)
				s.addLine(b)
				s.book(b, 0)
			}
		}
	}
	s.wrote = time.Now()
}

// Rename makes a transfer's source document another text, as a person might.
func (s *System) Rename(key, origin string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.tables["stock.picking"] {
		if p["x_fact_key"] == key {
			p["origin"] = origin
		}
	}
}

// Lock makes somebody else work on an order.
func (s *System) Lock(order string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.locked[order] = on
}

// Transfers are the states of the transfers with a key, oldest first; open for one that is neither done nor cancelled.
func (s *System) Transfers(key string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []string
	for _, p := range s.sorted("stock.picking") {
		if strings.HasSuffix(p["origin"].(string), " "+key) {
			state := p["state"].(string)
			if state != "done" && state != "cancel" {
				state = "open"
			}
			all = append(all, state)
		}
	}
	return all
}

// Made is how much Odoo itself says that an order's parts have made.
func (s *System) Made(order string) decimal.Decimal {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := 0.0
	for _, id := range s.members(order) {
		sum += s.made(id)
	}
	return exactly(sum)
}

// Consumed is how much of a product Odoo itself says that an order's parts have consumed: what is done of moves that are tied to them, whichever way
// they went.
func (s *System) Consumed(order, code string) decimal.Decimal {
	s.mu.Lock()
	defer s.mu.Unlock()
	sum := 0.0
	for _, m := range s.sorted("stock.move") {
		if slices.Contains(s.members(order), num(m, tieRaw)) && m["state"] == "done" && num(m, "product_id") == s.product(code) {
			sum += m[s.done()].(float64)
		}
	}
	return exactly(sum)
}

// ValidateNewest is a person's validation of the newest transfer with a key.
func (s *System) ValidateNewest(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range slices.Backward(s.sorted("stock.picking")) {
		if p["x_fact_key"] == key {
			if f := s.validateOne(p); f != nil {
				panic(f.says)
			}
			return
		}
	}
}

// States are the states of an order's parts, by name.
func (s *System) States(order string) map[string]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string]string{}
	for _, id := range s.members(order) {
		r := s.tables["mrp.production"][id]
		all[r["name"].(string)] = r["state"].(string)
	}
	return all
}

// Totals is what the books hold of one order.
type Totals struct {
	Yield, Scrap     decimal.Decimal
	Issued, Returned map[string]decimal.Decimal
	Documents        int
}

// Totals sums the done moves of an order.
func (s *System) Totals(order string) Totals {
	s.mu.Lock()
	defer s.mu.Unlock()
	ids := s.members(order)
	made := num(s.tables["mrp.production"][ids[0]], "product_id")
	sums := map[string]float64{}
	t := Totals{Issued: map[string]decimal.Decimal{}, Returned: map[string]decimal.Decimal{}}
	seen := map[int]bool{}
	for _, m := range s.sorted("stock.move") {
		p := s.tables["stock.picking"][num(m, "picking_id")]
		ours := p != nil && strings.HasPrefix(p["origin"].(string), order+" ")
		if m["state"] != "done" || !ours && !slices.Contains(ids, num(m, tieRaw)) && !slices.Contains(ids, num(m, tieMade)) {
			continue
		}
		code := s.tables["product.product"][num(m, "product_id")]["default_code"].(string)
		if num(m, "product_id") == made {
			code = ""
		}
		for _, f := range s.flows(m) {
			sums[fmt.Sprintf("%s|%d>%d", code, f.from, f.to)] += f.quantity
		}
		if p == nil {
			t.Documents++
		} else if !seen[p["id"].(int)] {
			seen[p["id"].(int)] = true
			t.Documents++
		}
	}
	in, out := fmt.Sprintf("%d>%d", Floor, Stock), fmt.Sprintf("%d>%d", Stock, Floor)
	for k, q := range sums {
		code, way, _ := strings.Cut(k, "|")
		switch {
		case code == "" && way == in:
			t.Yield = t.Yield.Add(exactly(q))
		case code == "" && way == out:
			t.Yield = t.Yield.Sub(exactly(q))
		case code == "" && way == fmt.Sprintf("%d>%d", Floor, Scrap):
			t.Scrap = t.Scrap.Add(exactly(q))
		case code == "":
			t.Scrap = t.Scrap.Sub(exactly(q))
		case way == out:
			t.Issued[code] = exactly(q)
		default:
			t.Returned[code] = exactly(q)
		}
	}
	return t
}

// members are the parts of an order, in the order in which they were split off.
func (s *System) members(order string) []int {
	var ids []int
	for _, r := range s.sorted("mrp.production") {
		name := r["name"].(string)
		if name == order || num(r, "backorder_sequence") > 0 && strings.HasPrefix(name, order+"-") {
			ids = append(ids, r["id"].(int))
		}
	}
	if len(ids) == 0 {
		panic("no order " + order)
	}
	return ids
}

func (s *System) sorted(model string) []record {
	all := slices.Collect(maps.Values(s.tables[model]))
	slices.SortFunc(all, func(a, b record) int { return a["id"].(int) - b["id"].(int) })
	return all
}

func num(r record, field string) int {
	n, _ := r[field].(int)
	return n
}

// The names that differ between versions.
func (s *System) done() string {
	if s.opt.Version < 17 {
		return "quantity_done"
	}
	return "quantity"
}

func (s *System) lineDone() string {
	if s.opt.Version < 17 {
		return "qty_done"
	}
	return "quantity"
}

func (s *System) dates() (start, end string) {
	if s.opt.Version < 17 {
		return "date_planned_start", "date_planned_finished"
	}
	return "date_start", "date_finished"
}

func (s *System) groupField() string {
	if s.opt.Version < 19 {
		return "procurement_group_id"
	}
	return "production_group_id"
}

func (s *System) groupModel() string {
	if s.opt.Version < 19 {
		return "procurement.group"
	}
	return "mrp.production.group"
}

// made is Odoo's qty_produced: what is picked of moves that are tied to an order and not cancelled, whichever way they went.
func (s *System) made(id int) float64 {
	sum := 0.0
	product := s.tables["mrp.production"][id]["product_id"]
	for _, m := range s.tables["stock.move"] {
		if num(m, tieMade) == id && m["state"] != "cancel" && m["product_id"] == product && m["picked"] == true {
			sum += m[s.done()].(float64)
		}
	}
	return math.Round(sum*1e9) / 1e9
}
