package sandbox

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"github.com/linekeeper/linekeeper/hub/connector"
)

var _ connector.Reopener = (*Connector)(nil)

// The ERP's own words for orders that may be reopened, and how each is brought back.
var restoredBy = map[string]string{"COMPLETED": "/complete", "FINISHED": "/finish"}

// Shut implements connector.Reopener. A finished order takes postings only in some companies, so that one which the hub was
// refused for counts as shut.
func (c *Connector) Shut(ctx context.Context, orderNo string) (connector.Lock, error) {
	o, err := c.client.order(ctx, orderNo)
	if err != nil {
		return connector.Lock{}, fmt.Errorf("read the state of order %q: %w", orderNo, err)
	}
	final := o.State == "CLOSED" || o.State == "CANCELLED"
	return connector.Lock{State: o.State, Shut: final || restoredBy[o.State] != "", Final: final}, nil
}

// Reopen implements connector.Reopener.
func (c *Connector) Reopen(ctx context.Context, orderNo string) error {
	lock, err := c.Shut(ctx, orderNo)
	switch {
	case err != nil || !lock.Shut:
		return err
	case lock.Final:
		return fmt.Errorf("order %q is %s: it must not be reopened", orderNo, lock.State)
	}
	return c.change(ctx, orderNo, "/reopen")
}

// Restore implements connector.Reopener.
func (c *Connector) Restore(ctx context.Context, orderNo, state string) error {
	lock, err := c.Shut(ctx, orderNo)
	path, known := restoredBy[state]
	switch {
	case err != nil || lock.Shut:
		return err
	case !known:
		return fmt.Errorf("order %q cannot be brought to state %q", orderNo, state)
	}
	return c.change(ctx, orderNo, path)
}

// change asks for a change of state. An answer that was lost is an error: the caller reads the state before it asks again.
func (c *Connector) change(ctx context.Context, orderNo, path string) error {
	a, err := c.client.call(ctx, "POST", "/api/orders/"+url.PathEscape(orderNo)+path, map[string]any{})
	if err == nil && a.refusal != nil {
		err = a.refusal
	}
	if err == nil && a.duplicate != "" {
		err = errors.New(a.duplicate)
	}
	if err != nil {
		return fmt.Errorf("change the state of order %q: %w", orderNo, err)
	}
	return nil
}
