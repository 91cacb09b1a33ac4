package erp

import (
	"context"
	"fmt"
	"time"

	"github.com/shopspring/decimal"
)

// Product is one of the demo's finished goods with what one piece needs of its components.
type Product struct {
	Item, Description string
	Components        []Component // Required for one piece
}

// Products are the finished goods that SeedDemo creates. Each has one component that a shop floor books in its MES (steel,
// in KGM, and a bag per piece) and one that scales report (granulate, in KGM).
func Products() []Product {
	part := func(item, description, perPiece, unit string) Component {
		return Component{Item: item, Description: description, Required: decimal.RequireFromString(perPiece), Unit: unit, Operation: "0010"}
	}
	return []Product{
		{"BRACKET-10", "Bracket 10 mm", []Component{part("STEEL-S235", "Steel strip S235", "0.120", "KGM"), part("GRANULATE-PP", "PP granulate", "0.030", "KGM")}},
		{"COVER-20", "Cover 20 cm", []Component{part("BAG-30", "Bag 30 cm", "1", "C62"), part("GRANULATE-ABS", "ABS granulate", "0.085", "KGM")}},
		{"CLIP-5", "Clip 5 mm", []Component{part("WIRE-2", "Spring wire 2 mm", "0.015", "KGM"), part("GRANULATE-PA", "PA granulate", "0.004", "KGM")}},
	}
}

// SeedDemo creates the demo's items, with plenty of every component.
func (e *ERP) SeedDemo(ctx context.Context) error {
	plenty := decimal.NewFromInt(1_000_000)
	for _, p := range Products() {
		if err := e.PutItem(ctx, Item{Item: p.Item, Description: p.Description, Unit: "C62"}); err != nil {
			return err
		}
		for _, c := range p.Components {
			if err := e.PutItem(ctx, Item{Item: c.Item, Description: c.Description, Unit: c.Unit, OnHand: plenty}); err != nil {
				return err
			}
		}
	}
	return nil
}

// ReleaseDemoOrder releases an order for one of the Products, counted by product modulo their number, and returns its
// number.
func (e *ERP) ReleaseDemoOrder(ctx context.Context, site, workCenter string, product int, quantity int64) (string, error) {
	all := Products()
	p, q, start := all[product%len(all)], decimal.NewFromInt(quantity), e.now().UTC().Truncate(time.Minute)
	o := Order{
		Item: p.Item, Quantity: q, Site: site, WorkCenter: workCenter, Priority: 5, Lot: fmt.Sprintf("L%s", start.Format("060102")),
		PlannedStart: start, PlannedEnd: start.Add(time.Hour),
		Operations: []Operation{{Operation: "0010", Description: "Press " + p.Description, WorkCenter: workCenter, Quantity: q}},
	}
	for _, c := range p.Components {
		c.Required = c.Required.Mul(q)
		o.Components = append(o.Components, c)
	}
	return e.ReleaseOrder(ctx, o)
}
