package odoo

import (
	"context"
	"errors"
	"fmt"
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
		ExternalKey: true, QuantityScale: c.cfg.Precision, Settle: c.cfg.ReadDelay}
}

// Inventory reads the quants of the configured locations, or of all internal ones.
func (c *Connector) Inventory(ctx context.Context, items []string) ([]object.Balance, error) {
	domain := []any{where("location_id.usage", "=", "internal")}
	if len(c.cfg.Locations) > 0 {
		domain = append(domain, where("location_id.complete_name", "in", c.cfg.Locations))
	}
	if len(items) > 0 {
		domain = append(domain, where("product_id.default_code", "in", items))
	}
	asOf := time.Now().UTC()
	type key struct{ product, location, lot int }
	sums := map[key]*object.Balance{}
	var order []key
	var ids []int
	names := map[int]ref{}
	const size = 500
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
			k := key{q.Product.ID, q.Location.ID, q.Lot.ID}
			if sums[k] == nil {
				sums[k] = &object.Balance{Site: c.cfg.Sites[q.Location.Name], Location: q.Location.Name, Lot: q.Lot.Name, AsOf: asOf}
				order, ids = append(order, k), append(ids, q.Product.ID)
				names[q.Product.ID] = q.Product
			}
			sums[k].OnHand.Value = sums[k].OnHand.Value.Add(q.Quantity.Decimal)
			last = q.ID
		}
		if len(page) < size {
			break
		}
	}
	return byItem(ctx, c, order, func(k key) (ref, *object.Balance) { return names[k.product], sums[k] }, ids)
}

// byItem gives balances their item and unit. A product that has none stops the whole: a stock that is left out would be taken for none.
func byItem[K any](ctx context.Context, c *Connector, order []K, at func(K) (ref, *object.Balance), ids []int) ([]object.Balance, error) {
	products, err := c.products(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read stock: %w", err)
	}
	d := &details{products: products}
	var all []object.Balance
	var bad []error
	for _, k := range order {
		p, b := at(k)
		item, err := d.item(p)
		if err == nil {
			b.OnHand.Unit, err = c.unit(products[p.ID].Unit)
		}
		if err != nil {
			bad = append(bad, err)
			continue
		}
		b.Item, b.OnHand.Value = item, b.OnHand.Value.Round(c.cfg.Precision)
		all = append(all, *b)
	}
	if err := errors.Join(bad...); err != nil {
		return nil, fmt.Errorf("read stock: %w", err)
	}
	return all, nil
}
