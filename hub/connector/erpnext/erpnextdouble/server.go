package erpnextdouble

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/shopspring/decimal"
)

// Token is the key and secret that the site takes.
const Token = "key:secret"

// Handler serves the REST interface, version 1 under /api/resource and version 2 under /api/v2/document.
func (s *System) Handler() http.Handler { return http.HandlerFunc(s.serve) }

func (s *System) serve(w http.ResponseWriter, r *http.Request) {
	path, v2 := strings.CutPrefix(r.URL.Path, "/api/v2/document/")
	if !v2 {
		path = strings.TrimPrefix(path, "/api/resource/")
	}
	doctype, name, _ := strings.Cut(path, "/")
	s.mu.Lock()
	defer s.mu.Unlock()
	data, f := s.do(r, v2, doctype, name)
	w.Header().Set("Content-Type", "application/json")
	if f == nil {
		_ = json.NewEncoder(w).Encode(map[string]any{"data": data})
		return
	}
	if f.status == 429 {
		w.Header().Set("Retry-After", "2")
	}
	w.WriteHeader(f.status)
	if v2 {
		_ = json.NewEncoder(w).Encode(map[string]any{"errors": []any{map[string]string{"type": f.kind, "message": f.says}}})
		return
	}
	inner, _ := json.Marshal(map[string]any{"message": f.says, "indicator": "red"})
	outer, _ := json.Marshal([]string{string(inner)})
	_ = json.NewEncoder(w).Encode(map[string]string{"exc_type": f.kind, "exception": "frappe.exceptions." + f.kind + ": " + f.says, "_server_messages": string(outer)})
}

func (s *System) do(r *http.Request, v2 bool, doctype, name string) (any, *fault) {
	switch {
	case r.Header.Get("Authorization") != "token "+Token:
		return nil, &fault{401, "AuthenticationError", "Invalid token"}
	case s.traps.Busy:
		return nil, &fault{503, "ServiceUnavailableError", "The site is being updated"}
	case s.traps.Throttle:
		return nil, &fault{429, "RateLimitExceededError", "Rate limit exceeded"}
	case s.traps.Deny && r.Method != http.MethodGet:
		return nil, &fault{403, "PermissionError", "No permission for " + doctype}
	}
	switch {
	case r.Method == http.MethodGet && name == "":
		return s.list(r, v2, doctype)
	case r.Method == http.MethodGet:
		if d := s.table(doctype)[name]; d != nil {
			return d, nil
		}
	case doctype != StockEntry:
		return nil, &fault{403, "PermissionError", "No permission for " + doctype}
	case r.Method == http.MethodDelete:
		d := s.tables[StockEntry][name]
		switch {
		case d == nil:
		case whole(d, "docstatus") == 1:
			return nil, throw("ValidationError", "Submitted Record cannot be deleted")
		default:
			delete(s.tables[StockEntry], name)
			return "ok", nil
		}
	default:
		var body doc
		dec := json.NewDecoder(r.Body)
		dec.UseNumber()
		if err := dec.Decode(&body); err != nil {
			return nil, &fault{400, "JSONDecodeError", err.Error()}
		}
		if r.Method == http.MethodPost {
			return result(s.insert(body))
		}
		return result(s.save(name, body))
	}
	return nil, &fault{404, "DoesNotExistError", doctype + " " + name + " not found"}
}

// result keeps a nil fault nil.
func result(d doc, f *fault) (any, *fault) { return d, f }

// table gives the documents of a type, made up where they are only a view.
func (s *System) table(doctype string) map[string]doc {
	switch doctype {
	case "Bin":
		t := map[string]doc{}
		for at, q := range s.bins {
			name := at[0] + "/" + at[1]
			t[name] = doc{"name": name, "item_code": at[0], "warehouse": at[1], "actual_qty": number(q), "stock_uom": s.tables["Item"][at[0]]["stock_uom"]}
		}
		return t
	case Settings:
		if s.traps.HiddenSettings {
			return nil
		}
		return map[string]doc{Settings: {"name": Settings, "overproduction_percentage_for_work_order": float64(s.opt.OverPercent)}}
	case "Custom Field":
		t := map[string]doc{}
		for _, f := range keyFields {
			unique := 1
			if s.traps.KeyNotUnique {
				unique = 0
			}
			t["Stock Entry-"+f] = doc{"name": "Stock Entry-" + f, "unique": unique}
		}
		if s.traps.NoKeyField {
			clear(t)
		}
		return t
	}
	return s.tables[doctype]
}

func (s *System) list(r *http.Request, v2 bool, doctype string) (any, *fault) {
	q := r.URL.Query()
	var filters [][]any
	var fields []string
	if f := q.Get("filters"); f != "" && json.Unmarshal([]byte(f), &filters) != nil {
		return nil, throw("ValidationError", "Invalid filters")
	}
	if f := q.Get("fields"); f != "" && json.Unmarshal([]byte(f), &fields) != nil {
		return nil, throw("ValidationError", "Invalid fields")
	}
	found := []doc{}
	for _, d := range s.table(doctype) {
		keep := !s.hidden[text(d, "name")]
		for _, f := range filters {
			if s.traps.NoKeyField && slices.Contains(keyFields, fmt.Sprint(f[0])) {
				return nil, throw("DataError", "Field not permitted in query: %v", f[0])
			}
			keep = keep && matches(d, f)
		}
		if keep {
			found = append(found, d)
		}
	}
	slices.SortFunc(found, func(a, b doc) int {
		if strings.HasPrefix(q.Get("order_by"), "modified") {
			if c := strings.Compare(text(a, "modified"), text(b, "modified")); c != 0 {
				return c
			}
		}
		return strings.Compare(text(a, "name"), text(b, "name"))
	})
	start, limit := page(q.Get("limit_start"), q.Get("limit_page_length"))
	if v2 {
		start, limit = page(q.Get("start"), q.Get("limit"))
	}
	found = found[min(start, len(found)):]
	found = found[:min(limit, len(found))]
	out := []doc{}
	for _, d := range found {
		x := doc{"name": d["name"]}
		for _, f := range fields {
			x[f] = d[f]
		}
		out = append(out, x)
	}
	return out, nil
}

// page reads start and limit; a list without a limit is short, which is Frappe's best known trap.
func page(start, limit string) (int, int) {
	a, _ := strconv.Atoi(start)
	b, err := strconv.Atoi(limit)
	if err != nil || b == 0 {
		b = 20
	}
	return a, b
}

func matches(d doc, filter []any) bool {
	if len(filter) != 3 {
		return false
	}
	have, want := fmt.Sprint(d[fmt.Sprint(filter[0])]), fmt.Sprint(filter[2])
	switch filter[1] {
	case "=":
		return have == want
	case ">":
		return have > want
	case ">=":
		return have >= want
	case "in":
		list, _ := filter[2].([]any)
		return slices.ContainsFunc(list, func(v any) bool { return fmt.Sprint(v) == have })
	}
	return false
}

// Stock is what a warehouse holds of an item.
func (s *System) Stock(item, warehouse string) decimal.Decimal {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bins[[2]string{item, warehouse}]
}

// Entries returns copies of the stock entries, for tests that look at one or spoil one.
func (s *System) Entries() []map[string]any {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []map[string]any
	for _, e := range s.tables[StockEntry] {
		out = append(out, maps.Clone(e))
	}
	return out
}
