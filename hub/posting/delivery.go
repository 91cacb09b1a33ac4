package posting

import (
	"context"
	"fmt"
	"math/big"

	"github.com/linekeeper/linekeeper/hub/mapping"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/store"
	"github.com/shopspring/decimal"
)

// overDelivered parks a confirmation with which more than the order allows would be in the books of its operation. It is asked
// when everything before it in its order is decided, so that what is posted and what is due are never counted twice.
func (e *Engine) overDelivered(ctx context.Context, c *call) (held bool, err error) {
	f, w := c.posting.Fact.Confirmation, c.posting.Order
	if f == nil || !c.posting.Fact.Reverses.IsZero() || !f.Yield.IsPositive() || c.date.ApprovedBy != "" || !w.Quantity.Value.IsPositive() || f.Unit != w.Quantity.Unit || f.Item != "" && f.Item != w.Item {
		return false, nil
	}
	percent, what := Tolerance(e.o.Policies, c.p.ERP, c.p.Plant)
	if what != DeliveryStop || w.OverUnlimited {
		return false, nil
	}
	if w.OverPercent != nil && w.OverPercent.GreaterThan(percent) {
		percent = *w.OverPercent
	}
	limit := w.Quantity.Value.Mul(decimal.NewFromInt(100).Add(percent)).Div(decimal.NewFromInt(100))
	own := c.correction.Apply(c.f.Fact).Confirmation // the ledger is in the plant's words
	posted, err := e.o.Store.PostedYield(ctx, object.LedgerKey{Plant: c.p.Plant, OrderNo: f.OrderNo, Operation: f.Operation, Item: own.Item, Unit: own.Unit})
	if err != nil {
		return false, err
	}
	if c.applied.Converts() {
		posted = mapping.RoundTo(new(big.Rat).Mul(posted.Rat(), c.applied.Ratio()), c.applied.DecimalsOf(c.erp.Capabilities().QuantityScale))
	}
	if sum := posted.Add(f.Yield); sum.GreaterThan(limit) {
		return true, e.hold(ctx, c, CodeOverDelivery, fmt.Sprintf("%s %s of item %q are in the books at operation %q of order %q, and with this one it would be %s: ordered are %s, and %s percent more are allowed",
			posted, f.Unit, w.Item, f.Operation, w.OrderNo, sum, w.Quantity.Value, percent),
			"raise the order's quantity and replay this fact, approve it as it is, or settle it without a document")
	}
	return false, nil
}

// noteResidues writes into the order's timeline what rounding has left over when the order ends: it was never posted.
func (e *Engine) noteResidues(tx *store.Tx, erp, orderNo string, factID int64) error {
	left, err := tx.Residues(erp, orderNo)
	if err != nil {
		return err
	}
	mapped, err := tx.MappedResidues(erp, orderNo)
	if err != nil {
		return err
	}
	left = append(left, mapped...)
	for _, r := range left {
		step := store.OrderStep{OrderNo: orderNo, Step: "never posted", Origin: "hub", FactID: factID,
			Reason: fmt.Sprintf("%s %s %s of item %q at operation %q: less than the last decimal that system %q keeps", r.Value, r.Unit, r.Kind, r.Item, r.Operation, erp)}
		if err := tx.AddOrderStep(step); err != nil {
			return err
		}
	}
	return nil
}
