package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/hub/api"
	"github.com/linekeeper/linekeeper/hub/checking"
	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/linekeeper/linekeeper/hub/trading"
)

// policy is the careful one with the plant's own limits.
func (c ReconcileConfig) policy() reconcile.Policy {
	p := reconcile.DefaultPolicy()
	p.Settle = cmp.Or(c.Settle, p.Settle)
	p.Limits.PerOrder, p.Limits.PerDay = max(cmp.Or(c.HealsPerOrder, p.Limits.PerOrder), 0), max(cmp.Or(c.HealsPerDay, p.Limits.PerDay), 0)
	p.Prices = map[string]decimal.Decimal{}
	for item, text := range c.Prices {
		if price, err := decimal.NewFromString(text); err == nil { // Check has looked
			p.Prices[item] = price
		}
	}
	return p
}

// watches are the stocks that are compared. The error wraps ErrConfig where a system cannot show what that needs.
func (c ReconcileConfig) watches(connectors map[string]connector.Connector) (all []checking.Watch, err error) {
	for _, b := range c.Balances {
		if why := checking.Watchable(connectors[b.ERP]); why != nil {
			return nil, fmt.Errorf("%w: reconcile.balances: the balance of item %q cannot be compared in ERP %q: %w (take it out; CONNECTORS.md says which can)", ErrConfig, b.Item, b.ERP, why)
		}
		all = append(all, checking.Watch{Plant: b.Plant, StockPlace: store.StockPlace{ERP: b.ERP, Site: b.Site, Storage: b.Storage, Item: b.Item, Lot: b.Lot}})
	}
	return all, nil
}

// reconciler gives the API the checker's errors in the API's words.
type reconciler struct{ *checking.Checker }

func cannot(err error) error {
	if errors.Is(err, checking.ErrByHand) || errors.Is(err, checking.ErrNothingToUndo) || errors.Is(err, trading.ErrNotVerified) || errors.Is(err, trading.ErrCannotSearch) {
		return fmt.Errorf("%w: %w", api.ErrConflict, err)
	}
	return conflict(err)
}

func (r reconciler) Act(ctx context.Context, id int64, by, note string) error {
	return cannot(r.Checker.Act(ctx, id, by, note))
}

func (r reconciler) Undo(ctx context.Context, id int64, by, note string, byHand bool) error {
	return cannot(r.Checker.Undo(ctx, id, by, note, byHand))
}
