package s4

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Connector is a connector.Connector and a connector.StockReader for one client of one S/4HANA.
type Connector struct {
	cfg    Config
	client *client
	units  units
	// unrepeatable is set once the system did not say that it honours RequestID, whatever the configuration says.
	unrepeatable atomic.Bool
	// noParts is set once the system turned out not to have the set of components that can be polled.
	noParts atomic.Bool
}

var (
	_ connector.Connector      = (*Connector)(nil)
	_ connector.StockReader    = (*Connector)(nil)
	_ connector.LotStockReader = (*Connector)(nil)
)

// New makes a connector. It reads the password file and does no other I/O.
func New(cfg Config) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Connector{cfg: cfg, client: newClient(cfg), units: newUnits(cfg.Units)}, nil
}

// Close gives up the connections; the sessions end by themselves in SAP.
func (c *Connector) Close() error {
	c.client.http.CloseIdleConnections()
	return nil
}

func (c *Connector) repeatable() bool { return c.cfg.Repeatable && !c.unrepeatable.Load() }

// Capabilities implements connector.Connector. CompareAndSet stands for repeatable requests: a posting is tied to its RequestID.
func (c *Connector) Capabilities() connector.Capabilities {
	can := connector.Capabilities{
		System:        c.cfg.Name,
		Posts:         []object.Kind{object.KindConfirmation, object.KindConsumption},
		Reverses:      []object.Kind{object.KindConfirmation, object.KindConsumption},
		ExternalKey:   true,
		CompareAndSet: c.repeatable(),
		QuantityScale: scale,
		Settle:        c.cfg.Settle,
		Backflush:     connector.BackflushNever,
		MovementTypes: true,
		CannotReopen:  cannotReopen,
	}
	if c.cfg.Movements == movementsSAP {
		can.Backflush = connector.BackflushMarked
	}
	ends := []object.FloorState{object.FloorFinished}
	if c.cfg.Finish == finishComplete {
		can.States = ends
	}
	if c.cfg.FinishOperations == finishConfirm {
		can.OperationStates = ends
	}
	if len(can.States)+len(can.OperationStates) > 0 {
		can.Posts = append(can.Posts, object.KindOrderState)
	}
	return can
}

const cannotReopen = "SAP's order service completes orders technically (TechlyCmpltOrder) and has no function that revokes that; a person revokes it in SAP (transaction CO02), replays the facts, and completes the order again"

// scale is how many decimals SAP keeps of a quantity, digits how many places it has in all.
const (
	scale  = 3
	digits = 13
)

// Get reads one order.
func (c *Connector) Get(ctx context.Context, number string) (object.WorkOrder, error) {
	o, err := c.order(ctx, number)
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", number, err)
	}
	w, err := c.workOrder(o)
	if err != nil {
		return object.WorkOrder{}, fmt.Errorf("get order %q: %w", number, err)
	}
	return w, nil
}

const orderParts = "to_ProductionOrderItem,to_ProductionOrderOperation,to_ProductionOrderComponent"

// order reads an order with its parts. A number that SAP has no place for is not found.
func (c *Connector) order(ctx context.Context, number string) (o sapOrder, err error) {
	if number == "" || len(number) > 12 || strings.ContainsAny(number, "/()'") {
		return o, fmt.Errorf("SAP has no order number %q: %w", number, connector.ErrNotFound)
	}
	err = c.client.get(ctx, orderService, "A_ProductionOrder_2("+url.PathEscape(quote(number))+")", url.Values{"$expand": {orderParts}}, &o)
	if err == nil && o.ManufacturingOrder == "" {
		err = fmt.Errorf("the answer names no order")
	}
	return o, err
}

// maxPages bounds how long a reading that is cut into pages by the server may go on.
const maxPages = 10_000

// pages reads a set whole, page after page as the server cuts it.
func pages[T any](ctx context.Context, c *client, service, set string, query url.Values, each func(T)) error {
	last, want, got := "", 0, 0
	for range maxPages {
		var page list[T]
		if err := c.get(ctx, service, set, query, &page); err != nil {
			return err
		}
		for _, v := range page.Results {
			each(v)
		}
		if got += len(page.Results); last == "" {
			want, _ = strconv.Atoi(fmt.Sprint(page.Count))
		}
		if page.Next == "" && got < want {
			return fmt.Errorf("%s has %d entries, and only %d came", set, want, got)
		}
		if page.Next == "" {
			return nil
		}
		next, err := url.Parse(page.Next)
		if err == nil && page.Next == last {
			err = errors.New("it is the page before")
		}
		last = page.Next
		if err != nil {
			return fmt.Errorf("read address of the next page of %s: %w", set, err)
		}
		query = next.Query() // only its options: where it leads is ours to know
		query.Del("sap-client")
	}
	return fmt.Errorf("%s has more than %d pages", set, maxPages)
}

func (c *Connector) site(plant string) string {
	if s, ok := c.cfg.Sites[plant]; ok {
		return s
	}
	return plant
}
