package odoodouble

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// What the database takes.
const (
	Database = "works"
	Login    = "linekeeper"
	Key      = "7f3a-secret-key"
)

// models names, for each model, the field that a reference shows, and the fields that every version has with their types.
var models = map[string]struct {
	shows  string
	fields map[string]string
}{
	"res.company":          {"name", map[string]string{"name": "char"}},
	"res.users":            {"name", map[string]string{"name": "char"}},
	"stock.warehouse":      {"name", map[string]string{"name": "char"}},
	"procurement.group":    {"name", map[string]string{"name": "char"}},
	"mrp.production.group": {"name", map[string]string{"name": "char"}},
	"mrp.workcenter":       {"name", map[string]string{"name": "char"}},
	"uom.uom":              {"name", map[string]string{"name": "char"}},
	"stock.lot":            {"name", map[string]string{"name": "char", "product_id": "product.product"}},
	"stock.location":       {"complete_name", map[string]string{"complete_name": "char", "usage": "selection"}},
	"stock.picking.type":   {"name", map[string]string{"name": "char", "code": "selection", "company_id": "res.company", "warehouse_id": "stock.warehouse"}},
	"product.product":      {"display_name", map[string]string{"default_code": "char", "display_name": "char", "uom_id": "uom.uom", "tracking": "selection", "active": "boolean"}},
	"stock.quant":          {"id", map[string]string{"product_id": "product.product", "location_id": "stock.location", "lot_id": "stock.lot", "quantity": "float"}},
	"mrp.workorder":        {"name", map[string]string{"name": "char", "state": "selection", "production_id": "mrp.production", "workcenter_id": "mrp.workcenter"}},
	"mrp.production": {"name", map[string]string{"name": "char", "state": "selection", "backorder_sequence": "integer", "product_id": "product.product", "product_qty": "float",
		"product_uom_id": "uom.uom", "qty_produced": "float", "qty_producing": "float", "reservation_state": "selection", "priority": "selection", "company_id": "res.company",
		"picking_type_id": "stock.picking.type", "location_src_id": "stock.location", "location_dest_id": "stock.location", "production_location_id": "stock.location"}},
	"stock.move": {"id", map[string]string{"state": "selection", "product_id": "product.product", "product_uom": "uom.uom", "product_uom_qty": "float", "location_id": "stock.location",
		"location_dest_id": "stock.location", "picking_id": "stock.picking", tieRaw: "mrp.production", tieMade: "mrp.production", "origin_returned_move_id": "stock.move", "date": "datetime"}},
	"stock.move.line": {"id", map[string]string{"product_id": "product.product", "product_uom_id": "uom.uom", "location_id": "stock.location", "location_dest_id": "stock.location",
		"picking_id": "stock.picking", "move_id": "stock.move", "lot_id": "stock.lot", "lot_name": "char"}},
	"stock.picking": {"name", map[string]string{"name": "char", "state": "selection", "origin": "char", "note": "html", "picking_type_id": "stock.picking.type",
		"location_id": "stock.location", "location_dest_id": "stock.location", "x_fact_key": "char", "move_ids": "one2many"}},
}

// fields are the fields of a model with their types, or the model that a reference leads to.
func (s *System) fields(model string) map[string]string {
	if s.known[model] == nil {
		s.known[model] = s.fieldsOf(model)
	}
	return s.known[model]
}

func (s *System) fieldsOf(model string) map[string]string {
	all := map[string]string{"id": "integer", "write_date": "datetime", "write_uid": "res.users"}
	for name, kind := range models[model].fields {
		all[name] = kind
	}
	switch model {
	case "mrp.production":
		start, end := s.dates()
		all[start], all[end], all[s.groupField()] = "datetime", "datetime", s.groupModel()
		if s.opt.Version < 19 {
			all["lot_producing_id"] = "stock.lot"
		}
	case "stock.move":
		all[s.done()] = "float"
		if s.opt.Version >= 17 {
			all["picked"] = "boolean"
		}
		if s.opt.Version < 19 {
			all["name"] = "char"
		}
	case "stock.move.line":
		all[s.lineDone()] = "float"
		if s.opt.Version >= 17 {
			all["picked"] = "boolean"
		}
	case "stock.picking":
		if s.traps.NoKeyField {
			delete(all, "x_fact_key")
		}
	}
	return all
}

// Handler serves /jsonrpc, and /json/2 from version 19 on.
func (s *System) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func page(w http.ResponseWriter, status int, title string) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<html><head><title>%d %s</title></head><body><h1>%s</h1></body></html>", status, title, title)
}

func (s *System) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	path, v2 := strings.CutPrefix(r.URL.Path, "/json/2/")
	switch {
	case err != nil || r.Method != http.MethodPost:
		page(w, 405, "Method Not Allowed")
	case s.traps.Busy:
		page(w, 503, "Service Temporarily Unavailable")
	case s.traps.Throttle:
		w.Header().Set("Retry-After", "2")
		page(w, 429, "Too Many Requests")
	case v2 && s.opt.Version >= 19:
		s.json2(w, r, path, body)
	case r.URL.Path == "/jsonrpc":
		s.jsonRPC(w, body)
	default:
		page(w, 404, "Not Found")
	}
}

func (f *fault) body() record {
	return record{"name": f.name, "message": f.says, "arguments": []any{f.says}, "context": record{}, "debug": "Traceback (most recent call last):\n  ..."}
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (s *System) json2(w http.ResponseWriter, r *http.Request, path string, body []byte) {
	var v record
	model, method, _ := strings.Cut(path, "/")
	if db := r.Header.Get("X-Odoo-Database"); db != "" && db != Database {
		page(w, 404, "Not Found")
		return
	}
	if r.Header.Get("Authorization") != "bearer "+Key {
		answer(w, 401, (&fault{401, "werkzeug.exceptions.Unauthorized", "Invalid apikey"}).body())
		return
	}
	if err := json.Unmarshal(body, &v); err != nil {
		answer(w, 400, (&fault{400, "werkzeug.exceptions.BadRequest", "could not parse the body as json"}).body())
		return
	}
	ids, words := numbers(v["ids"]), record{}
	if x, ok := v["context"].(record); ok {
		words = x
	}
	delete(v, "ids")
	delete(v, "context")
	result, f := s.transaction(model, method, ids, words, v)
	if f != nil {
		answer(w, f.status, f.body())
		return
	}
	answer(w, 200, result)
}

func (s *System) jsonRPC(w http.ResponseWriter, body []byte) {
	var q struct {
		ID     any `json:"id"`
		Params struct {
			Service, Method string
			Args            []any
		}
	}
	if err := json.Unmarshal(body, &q); err != nil {
		page(w, 400, "Bad Request")
		return
	}
	result, f := s.service(q.Params.Service+"."+q.Params.Method, q.Params.Args)
	out := record{"jsonrpc": "2.0", "id": q.ID}
	if f != nil {
		out["error"] = record{"code": 200, "message": "Odoo Server Error", "data": f.body()}
	} else {
		out["result"] = result
	}
	answer(w, 200, out)
}

func (s *System) service(name string, a []any) (any, *fault) {
	switch {
	case name == "common.authenticate" && len(a) == 4:
		if a[0] != Database || a[1] != Login || a[2] != Key {
			return false, nil
		}
		return user, nil
	case name != "object.execute_kw" || len(a) < 6:
		return nil, invalid("no service %s", name)
	case a[0] != Database || a[1] != float64(user) || a[2] != Key:
		return nil, &fault{403, "odoo.exceptions.AccessDenied", "Access Denied"}
	}
	model, method := fmt.Sprint(a[3]), fmt.Sprint(a[4])
	position, _ := a[5].([]any)
	v, words := record{}, record{}
	if len(a) > 6 {
		v, _ = a[6].(record)
	}
	if x, ok := v["context"].(record); ok {
		words = x
	}
	delete(v, "context")
	var ids []int
	switch {
	case method == "create" && len(position) == 1:
		v["vals_list"] = position[0]
	case len(position) > 0:
		ids = numbers(position[0])
		if method == "write" && len(position) > 1 {
			v["vals"] = position[1]
		}
	}
	return s.transaction(model, method, ids, words, v)
}

func numbers(v any) (ids []int) {
	list, _ := v.([]any)
	for _, x := range list {
		if n, ok := x.(float64); ok {
			ids = append(ids, int(n))
		}
	}
	return ids
}

// transaction runs one method. A method that fails has changed nothing.
func (s *System) transaction(model, method string, ids []int, words, v record) (any, *fault) {
	if _, ok := models[model]; !ok {
		return nil, &fault{404, "werkzeug.exceptions.NotFound", fmt.Sprintf("the model %q does not exist", model)}
	}
	switch method {
	case "search_read":
		return s.searchRead(model, v)
	case "fields_get":
		all := record{}
		for name, kind := range s.fields(model) {
			f := record{"type": kind}
			if _, ok := models[kind]; ok {
				f = record{"type": "many2one", "relation": kind}
			}
			all[name] = f
		}
		return all, nil
	}
	if s.traps.Deny {
		return nil, notAllowed
	}
	result, f := s.change(model, method, ids, words, v)
	if f == nil {
		s.wrote = time.Now()
	}
	if f == nil && s.traps.ErrorAfterCommit && method == "button_validate" {
		return nil, &fault{500, "builtins.RuntimeError", "the bus is not there"}
	}
	return result, f
}

func (s *System) change(model, method string, ids []int, words, v record) (any, *fault) {
	switch model + "." + method {
	case "stock.picking.button_validate":
		return s.validate(ids, words)
	case "mrp.production.action_cancel":
		for _, id := range ids {
			switch r := s.tables["mrp.production"][id]; {
			case r == nil:
				return nil, missing
			case s.locked[r["name"].(string)]:
				return nil, contended
			}
		}
		for _, id := range ids {
			s.cancel(id)
		}
		return true, nil
	case "mrp.workorder.button_start":
		return true, s.start(ids)
	}
	switch method {
	case "create":
		var list []record
		many, _ := v["vals_list"].([]any)
		for _, x := range many {
			if r, ok := x.(record); ok {
				list = append(list, r)
			}
		}
		return result(s.create(model, list))
	case "write":
		vals, _ := v["vals"].(record)
		return true, s.write(model, ids, vals)
	case "unlink":
		return true, s.unlink(model, ids)
	}
	return nil, &fault{404, "werkzeug.exceptions.NotFound", fmt.Sprintf("the method %s.%s does not exist", model, method)}
}

func result(ids []int, f *fault) (any, *fault) { return ids, f }

func (s *System) searchRead(model string, v record) (any, *fault) {
	t := s.lag()
	domain, _ := v["domain"].([]any)
	var found []record
	for _, r := range t[model] {
		ok, f := s.matches(t, model, r, domain)
		if f != nil {
			return nil, f
		}
		if ok {
			found = append(found, r)
		}
	}
	order, _ := v["order"].(string)
	byDate := strings.HasPrefix(order, "write_date")
	slices.SortFunc(found, func(a, b record) int {
		if byDate {
			if c := stampOf(a).Compare(stampOf(b)); c != 0 {
				return c
			}
		}
		return a["id"].(int) - b["id"].(int)
	})
	if limit, ok := v["limit"].(float64); ok && int(limit) < len(found) {
		found = found[:int(limit)]
	}
	fields, _ := v["fields"].([]any)
	rows := []record{}
	for _, r := range found {
		row := record{"id": r["id"]}
		for _, name := range fields {
			n := fmt.Sprint(name)
			kind, ok := s.fields(model)[n]
			if !ok {
				return nil, invalid("Invalid field %q on model %q", n, model)
			}
			row[n] = s.shown(t, model, r, n, kind)
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func stampOf(r record) time.Time {
	at, _ := r["write_date"].(time.Time)
	return at
}

// shown is a value as it travels.
func (s *System) shown(t tables, model string, r record, name, kind string) any {
	x := r[name]
	if model == "mrp.production" && name == "qty_produced" {
		x = s.made(r["id"].(int))
	}
	if to, ok := models[kind]; ok {
		id, _ := x.(int)
		target := t[kind][id]
		if target == nil {
			return false
		}
		return []any{id, fmt.Sprint(target[to.shows])}
	}
	switch v := x.(type) {
	case time.Time:
		return v.Format(time.DateTime)
	case float64:
		text := strconv.FormatFloat(v, 'g', -1, 64)
		if !strings.ContainsAny(text, ".e") {
			text += ".0"
		}
		return json.Number(text)
	case nil:
		return false
	}
	return x
}

// matches evaluates a domain, whose operators stand before what they join.
func (s *System) matches(t tables, model string, r record, domain []any) (bool, *fault) {
	ok := true
	for len(domain) > 0 {
		var one bool
		var f *fault
		if one, domain, f = s.term(t, model, r, domain); f != nil {
			return false, f
		}
		ok = ok && one
	}
	return ok, nil
}

func (s *System) term(t tables, model string, r record, domain []any) (bool, []any, *fault) {
	if len(domain) == 0 {
		return false, nil, invalid("domain ends early")
	}
	if op, ok := domain[0].(string); ok {
		a, rest, f := s.term(t, model, r, domain[1:])
		if f != nil {
			return false, nil, f
		}
		b, rest, f := s.term(t, model, r, rest)
		if op == "|" {
			return a || b, rest, f
		}
		return a && b, rest, f
	}
	c, _ := domain[0].([]any)
	if len(c) != 3 {
		return false, nil, invalid("wrong term %v", domain[0])
	}
	ok, f := s.holds(t, model, r, fmt.Sprint(c[0]), fmt.Sprint(c[1]), c[2])
	return ok, domain[1:], f
}

func (s *System) holds(t tables, model string, r record, path, op string, want any) (bool, *fault) {
	name, rest, deep := strings.Cut(path, ".")
	kind, ok := s.fields(model)[name]
	if !ok {
		return false, invalid("Invalid field %q on model %q", name, model)
	}
	if deep {
		target := t[kind][num(r, name)]
		if target == nil {
			return false, nil
		}
		return s.holds(t, kind, target, rest, op, want)
	}
	have := r[name]
	switch v := have.(type) {
	case time.Time:
		at, err := time.Parse(time.DateTime, fmt.Sprint(want))
		if err != nil {
			return false, invalid("wrong time %v", want)
		}
		return compare(op, v.Compare(at)), nil
	case int:
		if _, ref := models[kind]; ref && v == 0 {
			have = false
		} else {
			have = float64(v)
		}
	case nil:
		have = false
	}
	switch op {
	case "in", "not in":
		list, _ := want.([]any)
		return slices.Contains(list, have) == (op == "in"), nil
	case "=", "!=":
		return (have == want) == (op == "="), nil
	case "=like":
		text, _ := have.(string)
		return like(text, fmt.Sprint(want)), nil
	}
	a, aok := have.(float64)
	b, bok := want.(float64)
	if !aok || !bok {
		return false, invalid("operator %s does not fit %v and %v", op, have, want)
	}
	switch {
	case a < b:
		return compare(op, -1), nil
	case a > b:
		return compare(op, 1), nil
	}
	return compare(op, 0), nil
}

func compare(op string, c int) bool {
	switch op {
	case ">":
		return c > 0
	case ">=":
		return c >= 0
	case "<":
		return c < 0
	case "<=":
		return c <= 0
	case "!=":
		return c != 0
	}
	return c == 0
}

// like matches a text with a pattern of SQL's.
func like(text, pattern string) bool {
	switch {
	case pattern == "":
		return text == ""
	case pattern[0] == '%':
		for i := 0; i <= len(text); i++ {
			if like(text[i:], pattern[1:]) {
				return true
			}
		}
		return false
	case text == "":
		return false
	case pattern[0] == '\\' && len(pattern) > 1:
		return text[0] == pattern[1] && like(text[1:], pattern[2:])
	}
	return (pattern[0] == '_' || pattern[0] == text[0]) && like(text[1:], pattern[1:])
}
