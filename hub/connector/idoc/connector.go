package idoc

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/shopspring/decimal"
)

// Connector implements connector.Connector.
type Connector struct {
	cfg        Config
	unit, back map[string]string // SAP's to ours, ours to SAP's
	putting    sync.Mutex        // one file is put out at a time

	reading sync.Mutex
	answers map[string][]answer // by name, size and time of the file
	orders  map[string]*node    // the latest IDoc of each order, as of the folder's state
	state   string
}

var _ connector.Connector = (*Connector)(nil)

// rec20 are codes of UN/ECE Recommendation 20 that need no entry in units.
var rec20 = strings.Fields("C62 H87 EA KGM GRM MGM TNE LBR ONZ LTR MLT HLT MTQ MTR CMT MMT KMT MTK SEC MIN HUR DAY PR SET KWH")

// New returns a connector without touching a folder.
func New(cfg Config) (*Connector, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	c := &Connector{cfg: cfg, unit: map[string]string{}, back: map[string]string{}, answers: map[string][]answer{}}
	for _, u := range rec20 {
		c.unit[u], c.back[u] = u, u
	}
	for theirs, ours := range cfg.Units {
		c.unit[theirs], c.back[ours] = ours, theirs
	}
	return c, nil
}

// Capabilities of IDocs.
func (c *Connector) Capabilities() connector.Capabilities {
	return connector.Capabilities{System: c.cfg.Name, Posts: []object.Kind{object.KindConfirmation, object.KindConsumption},
		ExternalKey: true, MovementTypes: true, QuantityScale: scale, Settle: c.cfg.AnswerWithin}
}

// scale is how many decimals SAP's quantities have.
const scale = 3

func reject(class connector.Class, code, next, reason string, args ...any) *connector.Outcome {
	return &connector.Outcome{Result: connector.Rejected, Class: class, Code: code, Reason: fmt.Sprintf(reason, args...), NextStep: next}
}

func orderNo(p connector.Posting) string { return cmp.Or(p.Fact.OrderNo(), p.Order.OrderNo) }

// misfit refuses a posting that does not fit its order, and completes what the IDoc needs from the order.
func (c *Connector) misfit(ctx context.Context, p connector.Posting, in *intent) (*connector.Outcome, error) {
	no := orderNo(p)
	o, err := c.Get(ctx, no)
	if errors.Is(err, connector.ErrNotFound) {
		return reject(connector.Fatal, "NO_ORDER", "Check the order number at the source, and that SAP sends the order as LOIPRO.", "No IDoc of order %s is there.", no), nil
	}
	if err != nil {
		return nil, err
	}
	if slices.Contains([]object.OrderState{object.OrderCancelled, object.OrderClosed, object.OrderPlanned, object.OrderCompleted}, o.State) {
		return reject(connector.Correctable, "ORDER_STATE", "Release or reopen the order in SAP and send it again, then replay the fact.", "Order %s is %s.", no, o.State), nil
	}
	in.Plant = c.plant(o)
	if x := p.Fact.Confirmation; x != nil {
		return c.misfitConfirmation(p, o, in), nil
	}
	x := p.Fact.Consumption
	i := slices.IndexFunc(o.Components, func(part object.Component) bool { return part.Item == x.Item })
	switch {
	case i < 0:
		return badItem(no, x.Item), nil
	case o.Components[i].Required.Unit != x.Quantity.Unit:
		return badUnit(no, x.Item, o.Components[i].Required.Unit, x.Quantity.Unit), nil
	}
	in.Unit, in.Reservation = c.back[x.Quantity.Unit], o.Components[i].Reservation
	return nil, nil
}

func (c *Connector) misfitConfirmation(p connector.Posting, o object.WorkOrder, in *intent) *connector.Outcome {
	x := p.Fact.Confirmation
	switch {
	case x.Item != "" && x.Item != o.Item:
		return badItem(o.OrderNo, x.Item)
	case x.Unit != o.Quantity.Unit:
		return badUnit(o.OrderNo, o.Item, o.Quantity.Unit, x.Unit)
	}
	in.Operation = x.Operation
	if in.Operation == "" && len(o.Operations) == 1 {
		in.Operation = o.Operations[0].Operation
	}
	has := slices.ContainsFunc(o.Operations, func(op object.Operation) bool { return pad(op.Operation, 4) == pad(in.Operation, 4) })
	if !has {
		return reject(connector.Fatal, "OPERATION", "Name an operation of the order in the rule of the source.", "Order %s has no operation %q.", o.OrderNo, in.Operation)
	}
	if x.ScrapReason != "" && c.cfg.ScrapReasons[x.ScrapReason] == "" && !x.Scrap.IsZero() {
		return reject(connector.Fatal, "SCRAP_REASON", "Add it to scrap_reasons in the configuration.", "Scrap reason %q of order %s is not mapped.", x.ScrapReason, o.OrderNo)
	}
	in.Unit = c.back[x.Unit]
	return nil
}

// plant is SAP's own code of the order's site.
func (c *Connector) plant(o object.WorkOrder) string {
	for code, site := range c.cfg.Sites {
		if site == o.Site {
			return code
		}
	}
	return o.Site
}

func badItem(no, item string) *connector.Outcome {
	return reject(connector.Fatal, "ITEM", "Correct the item in the rule of the source, or add it to the order.", "Order %s has no item %s.", no, item)
}

func badUnit(no, item, want, got string) *connector.Outcome {
	return reject(connector.Fatal, "UNIT", "Correct the unit in the rule of the source.", "Item %s of order %s is counted in %s, not in %s.", item, no, want, got)
}

// unsuitable refuses what no IDoc can carry.
func unsuitable(p connector.Posting) *connector.Outcome {
	if p.Fact.Confirmation == nil && p.Fact.Consumption == nil || !p.Fact.Reverses.IsZero() {
		return reject(connector.Fatal, "NOT_POSTED", "Do it in SAP by hand, then accept the fact with its document.", "No IDoc is there for fact %s.", p.Fact.Key)
	}
	var quantities []decimal.Decimal
	if x := p.Fact.Confirmation; x != nil {
		quantities = []decimal.Decimal{x.Yield, x.Scrap, x.Rework}
		if x.Lot != "" || x.Serial != "" {
			return reject(connector.Fatal, "NO_FIELD", "Leave it out in the rule of the source, or post the receipt in SAP.",
				"A confirmation by IDoc cannot carry lot %q or serial number %q.", x.Lot, x.Serial)
		}
	} else {
		quantities = []decimal.Decimal{p.Fact.Consumption.Quantity.Value}
	}
	for _, q := range quantities {
		if !q.Equal(q.Truncate(scale)) || len(q.Truncate(0).Abs().String()) > 10 {
			return reject(connector.Fatal, "SCALE", "Round it by the rule of the source.", "%s does not fit 10 digits and %d decimals.", q, scale)
		}
	}
	return nil
}
