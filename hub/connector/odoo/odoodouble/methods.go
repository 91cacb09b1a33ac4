package odoodouble

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// fault is an exception.
type fault struct {
	status     int
	name, says string
}

func userError(format string, args ...any) *fault {
	return &fault{422, "odoo.exceptions.UserError", fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *fault {
	return &fault{500, "builtins.ValueError", fmt.Sprintf(format, args...)}
}

var (
	missing    = &fault{404, "odoo.exceptions.MissingError", "Record does not exist or has been deleted."}
	notAllowed = &fault{403, "odoo.exceptions.AccessError", "You are not allowed to modify this record."}
	contended  = &fault{500, "psycopg2.errors.LockNotAvailable", "could not obtain lock on row in relation \"mrp_production\""}
)

// create makes records of the one model that this double lets be made.
func (s *System) create(model string, list []record) ([]int, *fault) {
	if model != "stock.picking" {
		return nil, notAllowed
	}
	var ids []int
	for _, v := range list {
		id, f := s.newTransfer(v)
		if f != nil {
			return nil, f
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func (s *System) newTransfer(v record) (int, *fault) {
	if s.locked[orderOf(v)] {
		return 0, contended
	}
	nested, _ := v["move_ids"].([]any)
	delete(v, "move_ids")
	r, f := s.typed("stock.picking", v)
	if f != nil {
		return 0, f
	}
	if s.traps.KeyUnique {
		for _, p := range s.tables["stock.picking"] {
			if p["x_fact_key"] == r["x_fact_key"] {
				return 0, &fault{422, "odoo.exceptions.ValidationError", "The operation cannot be completed: x_fact_key must be unique"}
			}
		}
	}
	s.seq["transfer"]++
	r["name"], r["state"] = fmt.Sprintf("WH/SF/%05d", s.seq["transfer"]), "draft"
	if s.opt.Version >= 17 { // Odoo confirms at once what has a quantity
		r["state"] = "assigned"
	}
	id := s.insert("stock.picking", r)
	for _, command := range nested {
		c, _ := command.([]any)
		if len(c) != 3 {
			s.drop(id)
			return 0, invalid("wrong command %v", command)
		}
		values, _ := c[2].(record)
		if f := s.addMove(r, id, values); f != nil {
			s.drop(id)
			return 0, f
		}
	}
	return id, nil
}

// drop takes a transfer out, with its moves and their lines.
func (s *System) drop(id int) {
	delete(s.tables["stock.picking"], id)
	for _, model := range []string{"stock.move", "stock.move.line"} {
		for at, m := range s.tables[model] {
			if num(m, "picking_id") == id {
				delete(s.tables[model], at)
			}
		}
	}
}

func orderOf(v record) string {
	origin, _ := v["origin"].(string)
	order, _, _ := strings.Cut(origin, " ")
	return order
}

func (s *System) addMove(head record, picking int, v record) *fault {
	lines, _ := v["move_line_ids"].([]any)
	delete(v, "move_line_ids")
	if _, named := v["name"]; named != (s.opt.Version < 19) {
		return invalid("Invalid field or missing value for 'name' on model 'stock.move'")
	}
	delete(v, "name")
	m, f := s.typed("stock.move", v)
	if f != nil {
		return f
	}
	if s.opt.Version < 17 { // as Odoo did with the moves of a new transfer
		m["location_id"], m["location_dest_id"] = head["location_id"], head["location_dest_id"]
	}
	m["state"], m["picking_id"], m["date"] = "draft", picking, s.now()
	if m[s.done()] == nil {
		m[s.done()] = 0.0
	}
	id := s.insert("stock.move", m)
	if len(lines) == 0 && m[s.done()].(float64) != 0 {
		s.addLine(m)
	}
	for _, command := range lines {
		c, _ := command.([]any)
		values, _ := c[2].(record)
		l, f := s.typed("stock.move.line", values)
		if f != nil {
			return f
		}
		l["move_id"], l["picking_id"] = id, picking
		s.insert("stock.move.line", l)
		m[s.done()] = m[s.done()].(float64) + l[s.lineDone()].(float64)
	}
	return nil
}

// addLine is the line that Odoo makes of a move's quantity; it has the places that the move has then.
func (s *System) addLine(m record) {
	s.insert("stock.move.line", record{"move_id": m["id"], "picking_id": m["picking_id"], "product_id": m["product_id"], "product_uom_id": m["product_uom"],
		s.lineDone(): m[s.done()], "location_id": m["location_id"], "location_dest_id": m["location_dest_id"]})
}

func (s *System) lines(m record) []record {
	var all []record
	for _, l := range s.tables["stock.move.line"] {
		if num(l, "move_id") == m["id"] {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b record) int { return a["id"].(int) - b["id"].(int) })
	return all
}

// write changes fields of records.
func (s *System) write(model string, ids []int, v record) *fault {
	if model != "stock.move" && model != "stock.move.line" {
		return notAllowed
	}
	v, f := s.typed(model, v)
	if f != nil {
		return f
	}
	for _, id := range ids {
		if f := s.writable(model, s.tables[model][id], v); f != nil {
			return f
		}
	}
	for _, id := range ids {
		m := s.tables[model][id]
		was := []int{num(m, tieRaw), num(m, tieMade)}
		for k, x := range v {
			m[k] = x
		}
		s.touch(m)
		for _, order := range append(was, num(m, tieRaw), num(m, tieMade)) {
			s.recompute(order)
		}
	}
	return nil
}

func (s *System) writable(model string, m, v record) *fault {
	_, places := v["location_id"]
	switch {
	case m == nil:
		return missing
	case s.traps.DenyTies && m["state"] == "done":
		return notAllowed
	case places && m["state"] == "done":
		return userError("You cannot change the locations of a done move.")
	case model == "stock.move.line" && s.tables["stock.move"][num(m, "move_id")]["state"] == "done":
		return userError("You cannot change the lines of a done move.")
	}
	return nil
}

// unlink deletes transfers that are drafts.
func (s *System) unlink(model string, ids []int) *fault {
	if model != "stock.picking" {
		return notAllowed
	}
	for _, id := range ids {
		switch p := s.tables[model][id]; {
		case p == nil:
			return missing
		case p["state"] == "done":
			return userError("You can not delete a done transfer.")
		}
	}
	for _, id := range ids {
		s.drop(id)
	}
	return nil
}

// validate does what button_validate does.
func (s *System) validate(ids []int, words record) (any, *fault) {
	for _, id := range ids {
		p := s.tables["stock.picking"][id]
		if p == nil {
			return nil, missing
		}
		switch {
		case p["state"] == "done":
			continue
		case s.locked[orderOf(p)], s.traps.Contended:
			return nil, contended
		case s.traps.Wizard != "":
			return record{"type": "ir.actions.act_window", "name": "Confirm", "res_model": s.traps.Wizard, "context": words}, nil
		case s.traps.Locked:
			return nil, userError("You cannot add entries prior to and inclusive of the lock date.")
		case s.traps.ValidateLies:
			return true, nil
		}
		if f := s.validateOne(p); f != nil {
			return nil, f
		}
	}
	return true, nil
}

func (s *System) validateOne(p record) *fault {
	var moves, merged []record
	for _, m := range s.sorted("stock.move") {
		switch {
		case num(m, "picking_id") != p["id"]:
		case num(m, tieRaw) != 0 || num(m, tieMade) != 0:
			// A draft that is tied is merged with the planned move of its order, and gone from its transfer.
			merged = append(merged, m)
		case s.tables["product.product"][num(m, "product_id")]["tracking"] != "none" && !s.hasLot(m):
			return userError("You need to supply a Lot/Serial number for products %v.", s.tables["product.product"][num(m, "product_id")]["display_name"])
		default:
			moves = append(moves, m)
		}
	}
	if len(moves) == 0 {
		return userError("Please add some items to move.")
	}
	for _, m := range merged {
		delete(s.tables["stock.move"], m["id"].(int))
	}
	for i, m := range moves {
		if m[s.done()].(float64) == 0 && s.opt.Version >= 17 {
			m[s.done()] = m["product_uom_qty"]
		}
		if len(s.lines(m)) == 0 {
			s.addLine(m)
		}
		if i == 0 && s.traps.OtherQuantity != 0 {
			m[s.done()], s.lines(m)[0][s.lineDone()] = s.traps.OtherQuantity, s.traps.OtherQuantity
		}
		m["picked"] = true
		s.book(m, s.lotOf(m))
	}
	p["state"] = "done"
	s.touch(p)
	return nil
}

func (s *System) hasLot(m record) bool {
	for _, l := range s.lines(m) {
		if name, _ := l["lot_name"].(string); name != "" || num(l, "lot_id") != 0 {
			return true
		}
	}
	return false
}

// lotOf is the lot of a move's line, which is made where it has only a name; 0 where it has none.
func (s *System) lotOf(m record) int {
	l := s.lines(m)[0]
	if name, _ := l["lot_name"].(string); name != "" && num(l, "lot_id") == 0 {
		l["lot_id"] = s.insert("stock.lot", record{"name": name, "product_id": m["product_id"]})
	}
	return num(l, "lot_id")
}

// book moves what the lines of a move say, or the move where it has none.
func (s *System) book(m record, lot int) {
	for _, f := range s.flows(m) {
		for at, sign := range map[int]float64{f.from: -1, f.to: 1} {
			if s.tables["stock.location"][at]["usage"] == "internal" {
				quant := s.quant(num(m, "product_id"), at, lot)
				quant["quantity"] = quant["quantity"].(float64) + sign*f.quantity
			}
		}
	}
	m["state"], m["date"] = "done", s.now()
	s.touch(m)
	s.recompute(num(m, tieRaw))
	s.recompute(num(m, tieMade))
}

type flow struct {
	from, to int
	quantity float64
}

func (s *System) flows(m record) []flow {
	var all []flow
	for _, l := range s.lines(m) {
		all = append(all, flow{num(l, "location_id"), num(l, "location_dest_id"), l[s.lineDone()].(float64)})
	}
	if len(all) == 0 {
		all = []flow{{num(m, "location_id"), num(m, "location_dest_id"), m[s.done()].(float64)}}
	}
	return all
}

// cancel does what action_cancel does to one order.
func (s *System) cancel(id int) {
	r := s.tables["mrp.production"][id]
	if r["state"] == "done" || r["state"] == "cancel" {
		return
	}
	for _, w := range s.tables["mrp.workorder"] {
		if num(w, "production_id") == id && w["state"] != "done" {
			w["state"] = "cancel"
			s.touch(w)
		}
	}
	for _, m := range s.sorted("stock.move") {
		if (num(m, tieRaw) == id || num(m, tieMade) == id) && m["state"] != "done" && m["state"] != "cancel" {
			m["state"], m["picked"] = "cancel", false
			s.touch(m)
		}
	}
	s.recompute(id)
	s.touch(r)
}

// start does what button_start does: Odoo expects all that is left to be made.
func (s *System) start(ids []int) *fault {
	for _, id := range ids {
		w := s.tables["mrp.workorder"][id]
		if w == nil || w["state"] == "done" || w["state"] == "cancel" {
			continue
		}
		w["state"] = "progress"
		s.touch(w)
		order := num(w, "production_id")
		r := s.tables["mrp.production"][order]
		r["qty_producing"] = r["product_qty"]
		for _, m := range s.tables["stock.move"] {
			if num(m, tieRaw) == order && m["state"] == "confirmed" {
				m["picked"], m[s.done()] = true, m["product_uom_qty"]
			}
		}
		s.recompute(order)
	}
	return nil
}

// recompute is how Odoo computes an order's state.
func (s *System) recompute(id int) {
	r := s.tables["mrp.production"][id]
	if r == nil || r["state"] == "draft" || r["state"] == "done" || r["state"] == "cancel" {
		return
	}
	was := r["state"]
	count := map[string]int{}
	for _, m := range s.tables["stock.move"] {
		tied := ""
		switch id {
		case num(m, tieRaw):
			tied = "raw "
		case num(m, tieMade):
			tied = "made "
		default:
			continue
		}
		count[tied]++
		if m["state"] == "cancel" {
			count[tied+"cancelled"]++
		}
		if m["state"] == "cancel" || m["state"] == "done" {
			count[tied+"over"]++
		}
		if tied == "raw " && m["picked"] == true {
			count["picked"]++
		}
	}
	work := map[string]int{}
	for _, w := range s.tables["mrp.workorder"] {
		if num(w, "production_id") == id {
			work[w["state"].(string)]++
			work["all"]++
		}
	}
	producing := r["qty_producing"].(float64)
	switch {
	case count["made "] > 0 && count["made "] == count["made cancelled"]:
		r["state"] = "cancel"
	case count["raw "] > 0 && count["raw "] == count["raw over"] && count["made "] == count["made over"]:
		r["state"] = "done"
	case work["all"] > 0 && work["done"]+work["cancel"] == work["all"], work["all"] == 0 && producing >= r["product_qty"].(float64):
		r["state"] = "to_close"
	case work["progress"]+work["done"] > 0, producing > 0, count["picked"] > 0:
		r["state"] = "progress"
	}
	if r["state"] != was {
		s.touch(r)
	}
}

// typed makes values of a request what a record holds.
func (s *System) typed(model string, v record) (record, *fault) {
	out := record{}
	for name, x := range v {
		kind, ok := s.fields(model)[name]
		if !ok {
			return nil, invalid("Invalid field %q on model %q", name, model)
		}
		switch n := x.(type) {
		case float64:
			if kind != "float" {
				x = int(n)
			}
		case bool:
			if !n && kind != "boolean" {
				x = nil
			}
		}
		out[name] = x
	}
	return out, nil
}

// lag makes the replica catch up, where there is one and it is time.
func (s *System) lag() tables {
	if s.traps.ReadLag == 0 {
		return s.tables
	}
	if time.Since(s.wrote) >= s.traps.ReadLag {
		s.replica = s.tables.clone()
	}
	return s.replica
}
