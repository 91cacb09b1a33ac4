package tryton

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

var _ connector.LotStockReader = (*Connector)(nil)

// place is a storage location of a warehouse.
type place struct {
	ID        int    `json:"id"`
	Code      string `json:"code"`
	Name      string `json:"name"`
	Warehouse *int   `json:"warehouse"`
	site      string // empty where it belongs to no warehouse
}

// name is how a location is known: by its code, or by its name where it has none.
func (p place) name() string { return cmp.Or(p.Code, p.Name) }

// readPlaces reads all storage locations, by record.
func (c *Connector) readPlaces(ctx context.Context) (map[int]place, error) {
	var rows []place
	err := c.client.call(ctx, &rows, nil, "stock.location.search_read", []any{[]any{"type", "=", storage}}, 0, nil,
		[][]string{{"id", "ASC"}}, []string{"code", "name", "warehouse"})
	if err != nil {
		return nil, err
	}
	all := map[int]place{}
	for _, p := range rows {
		if p.Warehouse != nil {
			w, err := c.master.warehouseOf(ctx, *p.Warehouse)
			if err != nil {
				return nil, err
			}
			p.site = c.config.site(w)
		}
		all[p.ID] = p
	}
	c.master.keepPlaces(all)
	return all, nil
}

// storageOf is a storage location, also one that is new.
func (c *Connector) storageOf(ctx context.Context, id int) (place, error) {
	all := c.master.knownPlaces()
	if _, ok := all[id]; !ok {
		var err error
		if all, err = c.readPlaces(ctx); err != nil {
			return place{}, err
		}
	}
	p, ok := all[id]
	if !ok {
		return p, fmt.Errorf("read Tryton's place: record %d is not there", id)
	}
	return p, nil
}

// storage is the type of the locations whose stock counts.
const storage = "storage"

// spot is what a place holds of a product and lot; without a lot, of none.
type spot struct {
	place, product int
	lot            string
}

// held is the stock as it is summed.
type held struct {
	c        *Connector
	items    []string
	products map[int]kept
	sums     map[spot]decimal.Decimal
}

// kept is a product of which there is stock.
type kept struct {
	ID   int    `json:"id"`
	Code string `json:"code"`
	Unit int    `json:"default_uom"`
}

func (h *held) add(s spot, p kept, n json.Number) error {
	q, err := decimal.NewFromString(cmp.Or(n.String(), "0"))
	if err != nil {
		return fmt.Errorf("read Tryton's quantity %q of item %q: %w", n, p.Code, err)
	}
	h.products[p.ID], h.sums[s] = p, h.sums[s].Add(q)
	return nil
}

// lookBack is how long ago a day has surely begun by the clock of any server, whatever its zone.
const lookBack = 48 * time.Hour

// Balances implements connector.LotStockReader: everything that done moves have brought to a place and taken from it, of whatever day.
//
// Tryton sums up to a day, and up to one that has not begun by its own clock it adds what is only planned. Neither that clock's zone nor
// the plant's is known here, and a plant east of the server moves things on a day to come. So Tryton sums up to a day that is past
// everywhere, and the moves since are added here.
func (c *Connector) Balances(ctx context.Context, items []string) ([]object.Balance, error) {
	asOf := time.Now().UTC()
	out, err := c.unheld(ctx, items, asOf)
	if err != nil {
		return nil, fmt.Errorf("read items of Tryton: %w", err)
	}
	places, err := c.readPlaces(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the places of Tryton: %w", err)
	}
	h := &held{c: c, items: items, products: map[int]kept{}, sums: map[spot]decimal.Decimal{}}
	day := dateOf(asOf.Add(-lookBack))
	for _, id := range slices.Sorted(maps.Keys(places)) {
		if err := h.until(ctx, id, day); err != nil {
			return nil, fmt.Errorf("read the stock at %q of Tryton: %w", places[id].name(), err)
		}
	}
	if err := h.since(ctx, day, places); err != nil {
		return nil, fmt.Errorf("read what moved lately in Tryton: %w", err)
	}
	return h.balances(ctx, places, asOf, out)
}

// unheld tells of the items that are asked for and of which Tryton keeps no stock, or not one of each.
func (c *Connector) unheld(ctx context.Context, items []string, asOf time.Time) (out []object.Balance, err error) {
	if len(items) == 0 {
		return nil, nil
	}
	var rows []struct {
		Code string `json:"code"`
		Type string `json:"type"`
	}
	err = c.client.call(ctx, &rows, nil, "product.product.search_read", []any{[]any{"code", "in", items}}, 0, nil,
		[][]string{{"id", "ASC"}}, []string{"code", "type"})
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, r := range rows {
		why := ""
		switch _, twice := found[r.Code]; {
		case twice:
			why = "Tryton has more than one item with this code"
		case r.Type == "service":
			why = "it is a service in Tryton, which keeps no stock of it"
		}
		found[r.Code] = why
	}
	for _, item := range items {
		why, ok := found[item]
		if !ok {
			why = "Tryton has no active item with this code"
		}
		if why != "" {
			out = append(out, object.Balance{Item: item, AsOf: asOf, CannotTell: why})
		}
	}
	return out, nil
}

// until reads what one place holds itself by a day. Tryton sums lots, and products; what a product has beyond its lots is in none.
func (h *held) until(ctx context.Context, place int, day wireDate) error {
	where := map[string]any{"locations": []int{place}, "stock_date_end": day, "with_childs": false}
	notZero := []any{"quantity", "!=", 0}
	domain := []any{notZero, []any{"type", "!=", "service"}, []any{"code", "!=", nil}}
	if len(h.items) > 0 {
		domain = append(domain, []any{"code", "in", h.items})
	}
	type row struct {
		kept
		Quantity json.Number `json:"quantity"`
	}
	err := paged(ctx, h.c, where, "product.product", domain, []string{"code", "quantity", "default_uom"}, func(r row) (int, error) {
		return r.ID, h.add(spot{place, r.ID, ""}, r.kept, r.Quantity)
	})
	has := false
	if err == nil {
		has, err = h.c.master.keepsLots(ctx)
	}
	if err != nil || !has {
		return err
	}
	domain = []any{notZero}
	if len(h.items) > 0 {
		domain = append(domain, []any{"product.code", "in", h.items})
	}
	type lot struct {
		ID       int         `json:"id"`
		Number   string      `json:"number"`
		Quantity json.Number `json:"quantity"`
		Product  kept        `json:"product."`
	}
	return paged(ctx, h.c, where, "stock.lot", domain, []string{"number", "quantity", "product.code", "product.default_uom"}, func(l lot) (int, error) {
		err := h.add(spot{place, l.Product.ID, l.Number}, l.Product, l.Quantity)
		if err == nil {
			err = h.add(spot{place, l.Product.ID, ""}, l.Product, json.Number(negative(l.Quantity)))
		}
		return l.ID, err
	})
}

func negative(n json.Number) string {
	if rest, below := strings.CutPrefix(n.String(), "-"); below {
		return rest
	}
	return "-" + n.String()
}

// since adds what was moved later than a day.
func (h *held) since(ctx context.Context, day wireDate, places map[int]place) error {
	company, err := h.c.client.company(ctx)
	if err != nil {
		return err
	}
	domain := []any{[]any{"state", "=", "done"}, []any{"effective_date", ">", day}, []any{"company", "=", company}, []any{"product.code", "!=", nil}}
	if len(h.items) > 0 {
		domain = append(domain, []any{"product.code", "in", h.items})
	}
	fields, err := h.c.withLots(ctx, []string{"from_location", "to_location", "internal_quantity", "product.code", "product.default_uom"})
	if err != nil {
		return err
	}
	type moved struct {
		ID       int         `json:"id"`
		From     int         `json:"from_location"`
		To       int         `json:"to_location"`
		Quantity json.Number `json:"internal_quantity"`
		Product  kept        `json:"product."`
		Lot      *numbered   `json:"lot."`
	}
	return paged(ctx, h.c, nil, "stock.move", domain, fields, func(m moved) (int, error) {
		lot := ""
		if m.Lot != nil {
			lot = m.Lot.Number
		}
		var err error
		if _, kept := places[m.From]; kept {
			err = h.add(spot{m.From, m.Product.ID, lot}, m.Product, json.Number(negative(m.Quantity)))
		}
		if _, kept := places[m.To]; kept && err == nil {
			err = h.add(spot{m.To, m.Product.ID, lot}, m.Product, m.Quantity)
		}
		return m.ID, err
	})
}

// paged reads all records of a search. The next page begins behind a record and not at a count, so that one that comes or goes
// meanwhile shifts no other.
func paged[T any](ctx context.Context, c *Connector, where map[string]any, model string, domain []any, fields []string, each func(T) (id int, err error)) error {
	for last := 0; ; {
		var rows []T
		err := c.client.call(ctx, &rows, where, model+".search_read", append(slices.Clone(domain), []any{"id", ">", last}), 0, c.stockPage, [][]string{{"id", "ASC"}}, fields)
		if err != nil {
			return err
		}
		before := last
		for _, r := range rows {
			if last, err = each(r); err != nil {
				return err
			}
		}
		if len(rows) < c.stockPage {
			return nil
		}
		if last <= before {
			return fmt.Errorf("the list of %s does not go on behind record %d", model, before)
		}
	}
}

// balances gives the sums their words.
func (h *held) balances(ctx context.Context, places map[int]place, asOf time.Time, out []object.Balance) ([]object.Balance, error) {
	units, err := h.c.master.allUnits(ctx)
	if err != nil {
		return nil, err
	}
	for s, q := range h.sums {
		p, at := h.products[s.product], places[s.place]
		b := object.Balance{Site: at.site, Location: at.name(), Item: p.Code, Lot: s.lot, AsOf: asOf}
		b.OnHand.Value = q.Round(units[p.Unit].Digits)
		b.OnHand.Unit, b.CannotTell = units[p.Unit].held()
		if !b.OnHand.Value.IsZero() || b.CannotTell != "" {
			out = append(out, b)
		}
	}
	slices.SortFunc(out, func(a, b object.Balance) int {
		return cmp.Or(cmp.Compare(a.Item, b.Item), cmp.Compare(a.Site, b.Site), cmp.Compare(a.Location, b.Location), cmp.Compare(a.Lot, b.Lot))
	})
	return out, nil
}

// held is the code of the unit in which an item is held, or why there is none.
func (u unit) held() (code, why string) {
	if u.code == "" {
		return "", fmt.Sprintf("Tryton holds it in the unit %q, which has no Recommendation 20 code: add it to units", u.Symbol)
	}
	return u.code, ""
}
