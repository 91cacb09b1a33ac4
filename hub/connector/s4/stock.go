package s4

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
)

// unrestricted is the stock type of what anybody may use.
const unrestricted = "01"

// Inventory implements connector.StockReader: unrestricted stock of the plants' own.
func (c *Connector) Inventory(ctx context.Context, items []string) ([]object.Balance, error) {
	return c.stock(ctx, items, unrestricted)
}

// Balances implements connector.LotStockReader: stock of the plants' own of all types. Who inspects, blocks or releases material moves it
// from one type to another, and none of it into the plant or out of it. Special stock (of a customer, a supplier, a sales order) is
// not in it, nor are movements of such stock among those of a document.
func (c *Connector) Balances(ctx context.Context, items []string) ([]object.Balance, error) {
	all, err := c.stock(ctx, items, "")
	return slices.DeleteFunc(all, func(b object.Balance) bool { return b.OnHand.Value.IsZero() && b.CannotTell == "" }), err
}

// itemsAtOnce keeps the address of a question short.
const itemsAtOnce = 40

func (c *Connector) stock(ctx context.Context, items []string, kind string) (all []object.Balance, err error) {
	some := items
	for {
		n := min(len(some), itemsAtOnce)
		page, err := c.stockOf(ctx, some[:n], kind)
		if err != nil {
			return nil, fmt.Errorf("read stock: %w", err)
		}
		all = append(all, page...)
		if some = some[n:]; len(some) == 0 {
			return all, nil
		}
	}
}

// stockOf reads the stock of so few items that they can be asked for at once, or of all.
func (c *Connector) stockOf(ctx context.Context, items []string, kind string) ([]object.Balance, error) {
	filter := stockFilter(items, kind)
	query := url.Values{"$inlinecount": {"allpages"}, "$orderby": {"Material,Plant,StorageLocation,Batch,InventoryStockType"}}
	if filter != "" {
		query.Set("$filter", filter)
	}
	asOf := time.Now()
	var out []object.Balance
	at, seen, twice := map[object.Balance]int{}, map[sapShelf]bool{}, ""
	err := pages(ctx, c.client, stockService, "A_MatlStkInAcctMod", query, func(s sapStock) {
		switch {
		case seen[s.sapShelf]:
			twice = s.Material
		case s.InventorySpecialStockType != "", kind != "" && s.InventoryStockType != kind, len(items) > 0 && !slices.Contains(items, s.Material):
		default:
			b := object.Balance{Site: c.site(s.Plant), Location: s.StorageLocation, Item: s.Material, Lot: s.Batch, AsOf: asOf}
			unit, err := c.units.known("", s.MaterialBaseUnit)
			if b.OnHand.Unit = unit; err != nil {
				b.CannotTell = err.Error()
			}
			i, ok := at[b]
			if !ok {
				i = len(out)
				at[b], out = i, append(out, b)
			}
			out[i].OnHand.Value = out[i].OnHand.Value.Add(s.MatlWrhsStkQtyInMatlBaseUnit.Decimal)
		}
		seen[s.sapShelf] = true
	})
	if err == nil && twice != "" {
		err = errors.New("stock of material " + twice + " came twice: it changed while it was read")
	}
	if err != nil {
		return nil, err
	}
	for _, item := range items {
		if kind == "" && !slices.ContainsFunc(out, func(b object.Balance) bool { return b.Item == item }) {
			out = append(out, object.Balance{Item: item, AsOf: asOf, CannotTell: "SAP names no stock of this material: it was never held, is not kept in stock, or has another number"})
		}
	}
	return out, nil
}

func stockFilter(items []string, kind string) string {
	var parts, all []string
	for _, item := range items {
		parts = append(parts, "Material eq "+quote(item))
	}
	if kind != "" {
		all = append(all, "InventoryStockType eq "+quote(kind))
	}
	if len(parts) > 0 {
		all = append(all, "("+strings.Join(parts, " or ")+")")
	}
	return strings.Join(all, " and ")
}

// stockOf adds what an item of a material document has done to the plant's own stock, in the material's base unit. Where a system does
// not say that unit, it is the one in which the item was entered.
func (l *ledger) stockOf(e *object.Effect, i sapDocItem, m object.EffectMovement) {
	if i.InventorySpecialStockType != "" {
		return // of a customer, a supplier, a sales order
	}
	q, moves := m.Kind.Stocked(m.Value)
	if !moves {
		return
	}
	x := object.StockMovement{Site: l.c.site(cmp.Or(i.Plant, l.b.order.ProductionPlant)), Location: i.StorageLocation, Item: m.Item, Lot: m.Lot, Quantity: object.Quantity{Value: q, Unit: m.Unit}}
	if base := i.QuantityInBaseUnit.Abs(); i.MaterialBaseUnit != "" && base.IsPositive() {
		unit, err := l.c.units.known("", i.MaterialBaseUnit)
		if err != nil {
			unit = i.MaterialBaseUnit // its balance cannot be told either, and says why
		}
		if x.Unit, x.Value = unit, base; q.IsNegative() {
			x.Value = base.Neg()
		}
	}
	e.Stock = append(e.Stock, x)
}
