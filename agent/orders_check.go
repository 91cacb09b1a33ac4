package agent

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
)

// orderCheck knows what the plant could confirm.
type orderCheck struct {
	OrderCheck
	units map[string]string
	// known are the work centres of rules and receivers; empty when one of them takes any.
	known []string

	mu *sync.Mutex
	// passed are the newest revisions that passed the plant's own check, with their warnings.
	passed map[string]passed
}

type passed struct {
	revision int64
	warning  string
}

func newOrderCheck(cfg Config) orderCheck {
	c := orderCheck{OrderCheck: cfg.Orders.Check, units: cfg.Units, mu: &sync.Mutex{}, passed: map[string]passed{}}
	add := func(names ...string) {
		for _, n := range names {
			if n != "" && !slices.Contains(c.known, n) {
				c.known = append(c.known, n)
			}
		}
	}
	for _, r := range cfg.Rules {
		if r.Rule == "record" && r.Fact != "order_state" && r.WorkCenter == "" {
			c.known = nil // such a rule books for any order that its source names
			return c
		}
		add(r.WorkCenter)
		for _, n := range r.WorkCenters {
			add(n)
		}
		for _, o := range r.Outputs {
			add(o.WorkCenter)
		}
	}
	if len(c.known) == 0 {
		return c
	}
	for _, r := range cfg.Orders.Receivers {
		add(r.WorkCenter)
	}
	slices.Sort(c.known)
	return c
}

// checkOrder looks at an order before it is delivered: by what the plant knows, then by what its receiver knows.
func (a *Agent) checkOrder(ctx context.Context, l *orderLane, o signal.WorkOrder) error {
	if _, refusal := a.orders.check.look(o); refusal != "" {
		return &signal.Refused{Reason: refusal}
	}
	if by, ok := l.receiver.to.(signal.OrderChecker); ok && !o.Cancelled && !o.Held {
		return by.CheckOrder(ctx, o)
	}
	return nil
}

// forget drops what is remembered of orders that do not wait any more.
func (c *orderCheck) forget(waiting []signal.WorkOrder) {
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := make(map[string]passed, len(waiting))
	for _, o := range waiting {
		if p, ok := c.passed[o.OrderNo]; ok {
			kept[o.OrderNo] = p
		}
	}
	c.passed = kept
}

// look returns why an order is refused, or what is odd about it; both empty when it is well.
func (c *orderCheck) look(o signal.WorkOrder) (warning, refusal string) {
	if c.Off || o.Cancelled || o.Held {
		return "", ""
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if p, ok := c.passed[o.OrderNo]; ok && p.revision == o.Revision {
		return p.warning, ""
	}
	var warnings []string
	warn := func(format string, args ...any) {
		if c.Strict && refusal == "" {
			refusal = fmt.Sprintf(format, args...)
		}
		warnings = append(warnings, fmt.Sprintf("work order %q: ", o.OrderNo)+fmt.Sprintf(format, args...))
	}
	if err := errors.Join(c.item(o), c.unit(o, warn), c.places(o, warn)); err != nil {
		refusal = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	if refusal != "" {
		return "", refusal
	}
	if len(warnings) > 0 {
		warning = strings.Join(warnings, "; ")
	}
	c.passed[o.OrderNo] = passed{o.Revision, warning}
	return warning, ""
}

func (c *orderCheck) item(o signal.WorkOrder) error {
	var errs []error
	if len(c.Items) > 0 && !listed(c.Items, o.Item) {
		errs = append(errs, fmt.Errorf("item %q is not one that this plant makes: correct the order, or add it to work_orders.check.items", o.Item))
	}
	for _, op := range o.Operations {
		if len(c.Operations) > 0 && !listed(c.Operations, op.Operation) {
			errs = append(errs, fmt.Errorf("operation %q is not known here: correct the order, or add it to work_orders.check.operations", op.Operation))
		}
	}
	return errors.Join(errs...)
}

// unit looks at the units of the order and its operations; those of components are the ERP's own business until they are
// consumed.
func (c *orderCheck) unit(o signal.WorkOrder, warn func(string, ...any)) error {
	units := []string{o.Unit}
	for _, op := range o.Operations {
		if !slices.Contains(units, op.Unit) {
			units = append(units, op.Unit)
		}
	}
	var errs []error
	for _, u := range units {
		code, known := translate.UnitCode(c.units, u)
		switch {
		case u == "":
		case len(c.Units) > 0 && !listed(c.Units, u) && !listed(c.Units, code):
			errs = append(errs, fmt.Errorf("unit %q is not one of work_orders.check.units: correct the order, or add it there", u))
		case known:
		case translate.LooksLikeUnitCode(u):
			warn("unit %q is not a known code of UN/ECE Rec 20: correct the order, or add it to units", u)
		default:
			errs = append(errs, fmt.Errorf("unit %q is neither a code of UN/ECE Rec 20 nor in the units table: correct the order, or add it to units", u))
		}
	}
	return errors.Join(errs...)
}

func (c *orderCheck) places(o signal.WorkOrder, warn func(string, ...any)) error {
	var centers []string
	for _, n := range append([]string{o.WorkCenter}, operationCenters(o)...) {
		if n != "" && !slices.Contains(centers, n) {
			centers = append(centers, n)
		}
	}
	fits := func(list []string, center string) bool {
		return slices.ContainsFunc(list, func(p string) bool { return fitsCenter(p, center) })
	}
	var errs []error
	for _, n := range centers {
		switch {
		case len(c.WorkCenters) > 0 && !fits(c.WorkCenters, n):
			errs = append(errs, fmt.Errorf("work centre %q is not one of work_orders.check.work_centers: correct the order, or add it there", n))
		case len(c.WorkCenters) == 0 && len(c.known) > 0 && n == centerOf(o) && !fits(c.known, n):
			warn("no rule and no receiver names work centre %q, so nothing made there would be booked: correct the order, or add it to a rule", n)
		}
	}
	return errors.Join(errs...)
}

func operationCenters(o signal.WorkOrder) (list []string) {
	for _, op := range o.Operations {
		list = append(list, op.WorkCenter)
	}
	return list
}
