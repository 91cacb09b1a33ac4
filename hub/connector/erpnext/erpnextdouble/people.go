package erpnextdouble

import (
	"errors"
	"time"

	"github.com/shopspring/decimal"
)

// Raw is an item that an entry made by hand takes from the order's WIP warehouse.
type Raw struct {
	Item     string
	Quantity decimal.Decimal
}

// Manufacture is the entry that a person makes and submits for a work order, without any key, and returns its name.
func (s *System) Manufacture(order string, yield decimal.Decimal, raw ...Raw) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := s.tables[WorkOrder][order]
	at := time.Now().In(s.opt.Zone)
	items := []any{doc{"item_code": text(o, "production_item"), "qty": number(yield), "t_warehouse": text(o, "fg_warehouse"), "is_finished_item": 1}}
	for _, r := range raw {
		items = append(items, doc{"item_code": r.Item, "qty": number(r.Quantity), "s_warehouse": text(o, "wip_warehouse")})
	}
	d, f := s.insert(doc{"stock_entry_type": "Manufacture", "work_order": order, "fg_completed_qty": number(yield), "docstatus": 1, "posting_date": at.Format(time.DateOnly),
		"posting_time": at.Format(time.TimeOnly), "items": items})
	if f != nil {
		return "", errors.New(f.says)
	}
	return text(d, "name"), nil
}

// Stage is the transfer that a person makes and submits for a work order: material goes to the order's WIP warehouse.
func (s *System) Stage(order, item, from string, quantity decimal.Decimal) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := time.Now().In(s.opt.Zone)
	d, f := s.insert(doc{"stock_entry_type": "Material Transfer for Manufacture", "work_order": order, "docstatus": 1, "posting_date": at.Format(time.DateOnly), "posting_time": at.Format(time.TimeOnly),
		"items": []any{doc{"item_code": item, "qty": number(quantity), "s_warehouse": from, "t_warehouse": text(s.tables[WorkOrder][order], "wip_warehouse")}}})
	if f != nil {
		return "", errors.New(f.says)
	}
	return text(d, "name"), nil
}

// Cancel is what a person does to a submitted entry.
func (s *System) Cancel(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, f := s.save(name, doc{"docstatus": 2, "modified": s.tables[StockEntry][name]["modified"]}); f != nil {
		return errors.New(f.says)
	}
	return nil
}

// Hide keeps an entry from the user of the interface, as a rule on its warehouse does; lists leave it out without a word.
func (s *System) Hide(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.hidden[name] = true
}
