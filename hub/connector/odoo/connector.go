package odoo

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Connector is a connector.Connector for one database, and reads and takes back what it holds.
type Connector struct {
	cfg    Config
	client *client
	cat    catalogue
}

var (
	_ connector.Connector        = (*Connector)(nil)
	_ connector.StockReader      = (*Connector)(nil)
	_ connector.LotStockReader   = (*Connector)(nil)
	_ connector.EffectReader     = (*Connector)(nil)
	_ connector.DocumentReverser = (*Connector)(nil)
)

// New makes a connector. It reads the password file and does no other I/O.
func New(cfg Config) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Connector{cfg: cfg, client: newClient(cfg), cat: catalogue{usages: map[int]string{}}}, nil
}

// Close gives up the connections.
func (c *Connector) Close() error {
	c.client.http.CloseIdleConnections()
	return nil
}

// Capabilities implements connector.Connector. Odoo cannot tie a change to what was read before it, so there is no CompareAndSet.
func (c *Connector) Capabilities() connector.Capabilities {
	moves := []object.Kind{object.KindConfirmation, object.KindConsumption}
	states := []object.FloorState{object.FloorFinished, object.FloorCancelled}
	if c.cfg.StartWorkOrders {
		states = append(states, object.FloorStarted)
	}
	return connector.Capabilities{System: c.cfg.Name, Posts: append([]object.Kind{object.KindOrderState}, moves...), States: states, Reverses: moves,
		ExternalKey: true, Backflush: connector.BackflushNever, QuantityScale: c.cfg.Precision, Settle: c.cfg.ReadDelay}
}

// Inventory sums the quants of the configured locations, or of all internal ones, whatever lot they are of.
func (c *Connector) Inventory(ctx context.Context, items []string) ([]object.Balance, error) {
	return c.stock(ctx, items, false)
}

// Balances is Inventory with each lot apart, without what is not there.
func (c *Connector) Balances(ctx context.Context, items []string) ([]object.Balance, error) {
	all, err := c.stock(ctx, items, true)
	return slices.DeleteFunc(all, func(b object.Balance) bool { return b.OnHand.Value.IsZero() && b.CannotTell == "" }), err
}

// held is what is summed into one balance.
type held struct{ product, location, lot int }

func (c *Connector) stock(ctx context.Context, items []string, lots bool) ([]object.Balance, error) {
	domain := []any{where("location_id.usage", "=", "internal")}
	if len(c.cfg.Locations) > 0 {
		domain = append(domain, where("location_id.complete_name", "in", c.cfg.Locations))
	}
	if len(items) > 0 {
		domain = append(domain, where("product_id.default_code", "in", items))
	}
	asOf := time.Now().UTC().Add(-c.cfg.ReadDelay)
	sums := map[held]*object.Balance{}
	var order []held
	names := map[int]ref{}
	size := c.cfg.PageSize
	for last := 0; ; {
		var page []struct {
			ID       int    `json:"id"`
			Product  ref    `json:"product_id"`
			Location ref    `json:"location_id"`
			Lot      ref    `json:"lot_id"`
			Quantity amount `json:"quantity"`
		}
		if err := c.client.list(ctx, "stock.quant", append([]any{where("id", ">", last)}, domain...), []string{"product_id", "location_id", "lot_id", "quantity"}, "id", size, &page); err != nil {
			return nil, fmt.Errorf("read stock: %w", err)
		}
		for _, q := range page {
			if !lots {
				q.Lot = ref{}
			}
			k := held{q.Product.ID, q.Location.ID, q.Lot.ID}
			if sums[k] == nil {
				sums[k] = &object.Balance{Site: c.cfg.Sites[q.Location.Name], Location: q.Location.Name, Lot: q.Lot.Name, AsOf: asOf}
				order = append(order, k)
			}
			names[q.Product.ID] = q.Product
			sums[k].OnHand.Value = sums[k].OnHand.Value.Add(q.Quantity.Decimal)
			last = q.ID
		}
		if len(page) < size {
			return c.balances(ctx, order, sums, names)
		}
	}
}

// balances gives sums their item and unit.
func (c *Connector) balances(ctx context.Context, order []held, sums map[held]*object.Balance, names map[int]ref) ([]object.Balance, error) {
	products, err := c.products(ctx, slices.Sorted(maps.Keys(names)))
	if err != nil {
		return nil, fmt.Errorf("read stock: %w", err)
	}
	d := &details{products: products}
	var all []object.Balance
	for _, k := range order {
		b := sums[k]
		b.OnHand.Value = b.OnHand.Value.Round(c.cfg.Precision)
		if b.Item, err = d.item(names[k.product]); err == nil {
			b.OnHand.Unit, err = c.unit(products[k.product].Unit)
		}
		if err != nil {
			b.CannotTell = err.Error()
		}
		all = append(all, *b)
	}
	return all, nil
}
