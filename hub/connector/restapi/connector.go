package restapi

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/connector/generic"
	"github.com/linekeeper/linekeeper/hub/object"
)

// Connector implements connector.Connector.
type Connector struct {
	cfg      Config
	client   *client
	units    generic.Units
	orders   *generic.Orders
	zone     *time.Location
	list     list
	postings map[object.Kind]*posting
	shared   []generic.Refusal
	effects  *effects
	can      connector.Capabilities

	// started and sent say when a request of a fact can have been sent last: by this process, or by one before it.
	started time.Time
	mu      sync.Mutex
	sent    map[string]time.Time // by key, while in doubt
}

// reading is a Connector that can also list the documents of an order.
type reading struct{ *Connector }

var (
	_ connector.Connector    = (*Connector)(nil)
	_ connector.EffectReader = reading{}
)

// New returns a connector, which is a connector.EffectReader where effects are configured. It reads the files that the
// configuration names and does no other I/O.
func New(cfg Config) (connector.Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	if err := cfg.checkKinds(); err != nil {
		return nil, err
	}
	c := &Connector{cfg: cfg, postings: map[object.Kind]*posting{}, started: time.Now(), sent: map[string]time.Time{}}
	if c.zone, err = time.LoadLocation(cfg.TimeZone); err != nil {
		return nil, wrong("time_zone %q is not known; use an IANA name such as Europe/Berlin", cfg.TimeZone)
	}
	if c.units, err = generic.NewUnits(cfg.Units); err != nil {
		return nil, wrong("%w", err)
	}
	if c.orders, err = generic.NewOrders(cfg.Orders.Map, generic.OrderConfig{ERP: cfg.Name, Site: cfg.Site, States: cfg.States, Units: c.units, Zone: c.zone}); err != nil {
		return nil, wrong("orders.map: %w", err)
	}
	if err := c.compile(); err != nil {
		return nil, err
	}
	if c.client, err = newClient(cfg); err != nil {
		return nil, err
	}
	if c.effects != nil {
		return reading{c}, nil
	}
	return c, nil
}

func (c *Connector) compile() error {
	var x compiler
	c.list = x.list(c.cfg.Orders)
	c.shared = x.rules("errors", c.cfg.Errors, ofPage, "retryable", "correctable", "fatal", "duplicate")
	shared := x.rules("errors", c.cfg.Errors, ofAnswer, "retryable", "correctable", "fatal", "duplicate")
	c.can = connector.Capabilities{System: c.cfg.Name, QuantityScale: *c.cfg.Scale, Settle: c.cfg.Settle, ExternalKey: true, CompareAndSet: true,
		MovementTypes: generic.AsksForMovementType(c.cfg.Postings)}
	for _, kind := range kinds {
		cfg := c.cfg.Postings[string(kind)]
		if cfg == nil {
			continue
		}
		p := x.posting("postings."+string(kind), cfg, nil, shared)
		c.postings[kind] = p
		c.can.Posts = append(c.can.Posts, kind)
		c.can.ExternalKey = c.can.ExternalKey && p.lookup != nil
		c.can.CompareAndSet = c.can.CompareAndSet && p.cfg.Once
		if p.reverse != nil {
			c.can.Reverses = append(c.can.Reverses, kind)
			c.can.CompareAndSet = c.can.CompareAndSet && p.reverse.cfg.Once
		}
	}
	if p := c.cfg.Postings[string(object.KindOrderState)]; p != nil {
		states := p.States
		if len(states) == 0 {
			states = []string{string(object.FloorStarted), string(object.FloorFinished)}
		}
		for _, s := range states {
			c.can.States = append(c.can.States, object.FloorState(s))
		}
		if p.Operations {
			c.can.OperationStates = c.can.States
		}
	}
	c.effects = x.effects(c.cfg.Effects)
	return x.err
}

// Close gives up the connections.
func (c *Connector) Close() error {
	c.client.http.CloseIdleConnections()
	return nil
}

// Capabilities as configured.
func (c *Connector) Capabilities() connector.Capabilities { return c.can }

// Get reads one order.
func (c *Connector) Get(ctx context.Context, no string) (object.WorkOrder, error) {
	w, err := c.order(ctx, no)
	if err != nil {
		return w, fmt.Errorf("get order %q: %w", no, err)
	}
	return w, nil
}

func (c *Connector) order(ctx context.Context, no string) (w object.WorkOrder, err error) {
	vars := map[string]any{"order_no": no, "cursor": nil, "offset": 0, "page_size": c.cfg.Orders.PageSize}
	address, err := c.list.get.Fill(vars, escape)
	if err != nil {
		return w, err
	}
	a, err := c.client.get(ctx, address)
	if err != nil {
		return w, err
	}
	vars = a.vars(vars)
	if c.list.missing.True(vars) {
		return w, connector.ErrNotFound
	}
	if a.status < 200 || a.status > 299 || !a.json {
		return w, &unhappy{"read the order", a}
	}
	v, err := c.list.getAt.Value(vars)
	if err != nil {
		return w, fmt.Errorf("orders.get.at: %w", err)
	}
	rows, isList := v.([]any)
	if !isList {
		rows = []any{v}
	}
	var unread error
	for _, row := range rows {
		if row == nil || isList && c.orders.Number(row) != no { // some systems search by the beginning
			continue
		}
		w, err := c.orders.Read(row)
		switch {
		case err == nil && w.OrderNo == no:
			return w, nil
		case err == nil:
			return object.WorkOrder{}, fmt.Errorf("the answer is about order %q: correct orders.get.url", w.OrderNo)
		}
		unread = err
	}
	if unread != nil {
		return w, unread
	}
	return w, connector.ErrNotFound
}

// spec is how a fact is posted; nil when it is not.
func (c *Connector) spec(p connector.Posting) *posting {
	spec := c.postings[p.Fact.Kind]
	if spec != nil && !p.Fact.Reverses.IsZero() {
		return spec.reverse
	}
	return spec
}

// busy turns an answer by which the system asks for a rest into a rejection; other errors stay what they are.
func (c *Connector) busy(p connector.Posting, err error) *connector.Outcome {
	var u *unhappy
	if !errors.As(err, &u) {
		return nil
	}
	vars := u.vars(map[string]any{"cursor": nil, "offset": 0, "page_size": 0, "order_no": generic.OrderNo(p)})
	for _, r := range c.shared {
		if r.Class == connector.Retryable && r.When.True(vars) {
			return refusal(r, p, u.answer, vars)
		}
	}
	return nil
}
