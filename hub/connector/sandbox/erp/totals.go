package erp

import (
	"context"
	"strings"

	"github.com/shopspring/decimal"
)

// Totals is what the books say in sum; reversed quantities have been taken off.
type Totals struct {
	Orders    map[string]OrderTotals `json:"orders"`
	Documents int                    `json:"documents"`
	// Duplicates lists the external keys that more than one document carries.
	Duplicates []Duplicate `json:"duplicates"`
}

// OrderTotals is what was posted to one order, material by item. Consumed is Issued less Returned.
type OrderTotals struct {
	State    string                     `json:"state"`
	Yield    decimal.Decimal            `json:"yield"`
	Scrap    decimal.Decimal            `json:"scrap"`
	Rework   decimal.Decimal            `json:"rework"`
	Issued   map[string]decimal.Decimal `json:"issued"`
	Returned map[string]decimal.Decimal `json:"returned"`
	Consumed map[string]decimal.Decimal `json:"consumed"`
	// Documents counts confirmations and movements, not changes of state.
	Documents int `json:"documents"`
}

// Duplicate names the documents of one external key.
type Duplicate struct {
	ExternalKey string   `json:"external_key"`
	Numbers     []string `json:"numbers"`
}

// Totals sums up all documents.
func (e *ERP) Totals(ctx context.Context) (Totals, error) {
	t := Totals{Orders: map[string]OrderTotals{}}
	tx, err := e.readers.BeginTx(context.WithoutCancel(ctx), nil)
	if err != nil {
		return t, err
	}
	defer tx.Rollback()
	orders, err := collect(tx, scanOrder, `select `+orderColumns)
	if err != nil {
		return t, err
	}
	for _, o := range orders {
		t.Orders[o.No] = OrderTotals{State: o.State, Issued: map[string]decimal.Decimal{}, Returned: map[string]decimal.Decimal{}, Consumed: map[string]decimal.Decimal{}}
	}
	type amounts struct {
		order, word, item string
		a, b, c           decimal.Decimal
	}
	docs, err := collect(tx, func(row scanner) (v amounts, err error) {
		return v, row.Scan(&v.order, &v.word, &v.a, &v.b, &v.c)
	}, `select order_no, kind, yield, scrap, rework from document`)
	if err != nil {
		return t, err
	}
	for _, v := range docs {
		o := t.Orders[v.order]
		o.Yield, o.Scrap, o.Rework = o.Yield.Add(v.a), o.Scrap.Add(v.b), o.Rework.Add(v.c)
		if v.word != KindStatus {
			o.Documents++
		}
		t.Orders[v.order] = o
	}
	t.Documents = len(docs)
	lines, err := collect(tx, func(row scanner) (v amounts, err error) {
		return v, row.Scan(&v.order, &v.word, &v.item, &v.a)
	}, `select d.order_no, l.movement, l.item, l.quantity from document_line l join document d on d.number = l.number where l.movement in ('261', '262')`)
	if err != nil {
		return t, err
	}
	for _, v := range lines {
		o := t.Orders[v.order]
		if v.word == IssueToOrder {
			o.Issued[v.item] = o.Issued[v.item].Add(v.a)
		} else {
			o.Returned[v.item] = o.Returned[v.item].Add(v.a)
		}
		o.Consumed[v.item] = o.Issued[v.item].Sub(o.Returned[v.item])
	}
	t.Duplicates, err = collect(tx, func(row scanner) (d Duplicate, err error) {
		var numbers string
		err = row.Scan(&d.ExternalKey, &numbers)
		d.Numbers = strings.Split(numbers, ",")
		return d, err
	}, `select external_key, group_concat(number) from document where external_key <> '' group by external_key having count(*) > 1`)
	return t, err
}

// Stock returns the balances of the named items, or of all.
func (e *ERP) Stock(_ context.Context, items []string) ([]Item, error) {
	all, err := collect(&e.read, scanItem, itemColumns+` order by item`)
	if err != nil || len(items) == 0 {
		return all, err
	}
	wanted := map[string]bool{}
	for _, it := range items {
		wanted[it] = true
	}
	some := []Item{}
	for _, it := range all {
		if wanted[it.Item] {
			some = append(some, it)
		}
	}
	return some, nil
}

// Waiting counts the accepted requests that are not booked yet.
func (e *ERP) Waiting(_ context.Context) (int, error) {
	return first(&e.read, scanValue[int], `select count(*) from queue where state = 'WAITING'`)
}
