package tryton

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

var _ connector.LotStockReader = (*Connector)(nil)

// place is a storage location of a warehouse.
type place struct {
	ID        int    `json:"id"`
	Code      string `json:"code"`
	Name      string `json:"name"`
	Warehouse *int   `json:"warehouse"`
}

// name is how a location is known: by its code, or by its name where it has none.
func (p place) name() string {
	if p.Code != "" {
		return p.Code
	}
	return p.Name
}

// Balances implements connector.LotStockReader.
func (c *Connector) Balances(ctx context.Context, items []string) ([]object.Balance, error) {
	var places []place
	err := c.client.call(ctx, &places, nil, "stock.location.search_read", []any{[]any{"type", "=", "storage"}}, 0, nil,
		[][]string{{"id", "ASC"}}, []string{"code", "name", "warehouse"})
	if err != nil {
		return nil, err
	}
	var out []object.Balance
	for _, p := range places {
		site := ""
		if p.Warehouse != nil {
			w, err := c.master.warehouseOf(ctx, *p.Warehouse)
			if err != nil {
				return nil, err
			}
			site = c.config.site(w)
		}
		here, err := c.balancesAt(ctx, p, items)
		if err != nil {
			return nil, fmt.Errorf("read the stock at %q of Tryton: %w", p.name(), err)
		}
		for i := range here {
			here[i].Site, here[i].Location = site, p.name()
		}
		out = append(out, here...)
	}
	return out, nil
}

// balancesAt reads what one location holds itself. Tryton lists lots, and products; what a product has beyond its lots is in none.
func (c *Connector) balancesAt(ctx context.Context, p place, items []string) ([]object.Balance, error) {
	asOf := time.Now().UTC()
	where := map[string]any{"locations": []int{p.ID}, "stock_date_end": dateOf(asOf), "with_childs": false}
	lots, err := c.lotsAt(ctx, where, items)
	if err != nil {
		return nil, err
	}
	withLots := append([]int{}, slices.Sorted(maps.Keys(lots))...) // a product whose lots cancel out is there all the same
	domain := []any{[]any{"type", "=", "goods"}, []any{"code", "!=", nil}, []any{"OR", []any{"quantity", "!=", 0}, idsIn(withLots)}}
	if len(items) > 0 {
		domain = append(domain, []any{"code", "in", items})
	}
	var out []object.Balance
	for offset := 0; ; offset += stockPage {
		var rows []stockRow
		err := c.client.call(ctx, &rows, where, "product.product.search_read", domain, offset, stockPage, [][]string{{"id", "ASC"}},
			[]string{"code", "quantity", "default_uom"})
		if err != nil {
			return nil, err
		}
		for _, r := range rows {
			left, err := c.quantity(ctx, r.Quantity, r.Unit)
			if err != nil {
				return nil, fmt.Errorf("item %q: %w", r.Code, err)
			}
			for _, l := range lots[r.ID] {
				q, err := c.quantity(ctx, l.Quantity, r.Unit)
				if err != nil {
					return nil, fmt.Errorf("item %q, lot %q: %w", r.Code, l.Number, err)
				}
				left.Value = left.Value.Sub(q.Value)
				out = append(out, object.Balance{Item: r.Code, Lot: l.Number, OnHand: q, AsOf: asOf})
			}
			if !left.Value.Equal(decimal.Zero) {
				out = append(out, object.Balance{Item: r.Code, OnHand: left, AsOf: asOf})
			}
		}
		if len(rows) < stockPage {
			return out, nil
		}
	}
}

// heldLot is what a place holds of a lot.
type heldLot struct {
	Number   string      `json:"number"`
	Quantity json.Number `json:"quantity"`
	Product  int         `json:"product"`
}

// lotsAt reads the lots of a place, by product.
func (c *Connector) lotsAt(ctx context.Context, where map[string]any, items []string) (map[int][]heldLot, error) {
	has, err := c.master.keepsLots(ctx)
	if err != nil || !has {
		return nil, err
	}
	domain := []any{[]any{"quantity", "!=", 0}}
	if len(items) > 0 {
		domain = append(domain, []any{"product.code", "in", items})
	}
	lots := map[int][]heldLot{}
	for offset := 0; ; offset += stockPage {
		var rows []heldLot
		err := c.client.call(ctx, &rows, where, "stock.lot.search_read", domain, offset, stockPage, [][]string{{"id", "ASC"}},
			[]string{"number", "quantity", "product"})
		if err != nil {
			return nil, err
		}
		for _, l := range rows {
			lots[l.Product] = append(lots[l.Product], l)
		}
		if len(rows) < stockPage {
			return lots, nil
		}
	}
}
