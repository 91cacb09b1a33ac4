package hub

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/hub/connector"
	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/hub/posting"
	"github.com/linekeeper/linekeeper/hub/reconcile"
	"github.com/shopspring/decimal"
)

// PolicyConfig is what was decided for some ERPs, plants and items. An empty field decides nothing: of the entries that fit, the
// first that says something about a matter counts.
type PolicyConfig struct {
	ERP   string `yaml:"erp"`
	Plant string `yaml:"plant"`
	// Items narrow Backflush; none: all.
	Items []string `yaml:"items"`
	// Backflush is who posts the consumption of a component: erp or mes. Without it the ERP does where it takes what the order
	// marks, else the plant.
	Backflush string `yaml:"backflush"`
	// LateFacts is the date of a fact in a closed period: event_date (default; the ERP refuses it), first_open_day or hold.
	LateFacts string `yaml:"late_facts"`
	// MonthCloses is when a month closes in the plant's zone: the day of the next month and the time, such as "3 18:00". Without
	// it, it is learned from the ERP's refusals.
	MonthCloses string `yaml:"month_closes"`
	// DoubtfulClock is the date of a fact whose clock was known to be wrong and which would be in another month than it was
	// received in: received_date (default), hold or event_date.
	DoubtfulClock string `yaml:"doubtful_clock"`
	// OverDelivery is allow (default) or stop; TolerancePercent of the order's quantity is no over-delivery.
	OverDelivery     string `yaml:"over_delivery"`
	TolerancePercent string `yaml:"tolerance_percent"`
	// ClosedOrders is hold (default) or reopen.
	ClosedOrders string `yaml:"closed_orders"`
	// OrderEnd is which finish that names an operation closes its order: reported_operations (default; the last operation's, once
	// every other of which the plant has reported anything has ended), all_operations (the last one's, once all others have ended),
	// last_operation, or order (only a finish that names none).
	OrderEnd string `yaml:"order_end"`
	// Collect makes one document of several facts.
	Collect CollectConfig `yaml:"collect"`
}

// CollectConfig says when a document is made of what was collected: after a time, from a quantity on, at the order's end.
type CollectConfig struct {
	Every    time.Duration `yaml:"every"`
	Quantity string        `yaml:"quantity"`
	OrderEnd bool          `yaml:"order_end"`
}

// policyWords are the values that a field may have.
var policyWords = []struct {
	key   string
	of    func(PolicyConfig) string
	words []string
}{
	{"backflush", func(p PolicyConfig) string { return p.Backflush }, []string{"erp", "mes"}},
	{"late_facts", func(p PolicyConfig) string { return p.LateFacts }, []string{"event_date", "first_open_day", "hold"}},
	{"doubtful_clock", func(p PolicyConfig) string { return p.DoubtfulClock }, []string{"received_date", "hold", "event_date"}},
	{"over_delivery", func(p PolicyConfig) string { return p.OverDelivery }, []string{"allow", "stop"}},
	{"order_end", func(p PolicyConfig) string { return p.OrderEnd }, []string{"reported_operations", "all_operations", "last_operation", "order"}},
	{"closed_orders", func(p PolicyConfig) string { return p.ClosedOrders }, []string{"hold", "reopen"}},
}

// policies turns the entries into the engine's, and finds what is wrong with them.
func (c *Config) policies() (all []posting.Policy, faults []Fault) {
	for i, p := range c.Posting.Policies {
		add := func(key, hint, format string, args ...any) {
			faults = append(faults, Fault{Where: fmt.Sprintf("posting.policies[%d].%s", i+1, key), Text: fmt.Sprintf(format, args...), Hint: hint})
		}
		if p.ERP != "" && !slices.ContainsFunc(c.ERPs, func(e ERPConfig) bool { return e.Name == p.ERP }) {
			add("erp", "name one of erps", "ERP %q is not configured", p.ERP)
		}
		if p.Plant != "" && !slices.ContainsFunc(c.Plants, func(x PlantConfig) bool { return x.Plant == p.Plant }) {
			add("plant", "name one of plants", "plant %q is not configured", p.Plant)
		}
		if len(p.Items) > 0 && p.Backflush == "" {
			add("items", "write backflush: erp or backflush: mes beside it, or leave items out", "items narrow backflush, which is not there")
		}
		for _, w := range policyWords {
			if v := w.of(p); v != "" && !slices.Contains(w.words, v) {
				add(w.key, "use "+strings.Join(w.words, ", "), "%q is not known", v)
			}
		}
		x := posting.Policy{ERP: p.ERP, Plant: p.Plant, Items: p.Items, Backflush: posting.Owner(p.Backflush), Late: posting.Late(p.LateFacts),
			Doubtful: posting.Doubtful(p.DoubtfulClock), Delivery: posting.Delivery(p.OverDelivery), ClosedOrder: posting.ClosedOrder(p.ClosedOrders),
			End: posting.OrderEnd(p.OrderEnd)}
		var ok bool
		if x.Closing, ok = closing(p.MonthCloses); !ok {
			add("month_closes", `write the day of the next month and the time, such as "3 18:00"`, "%q is no day and time", p.MonthCloses)
		}
		if x.Tolerance, ok = quantity(p.TolerancePercent); !ok {
			add("tolerance_percent", "write a number of zero or more, such as 2.5", "%q is no percentage", p.TolerancePercent)
		}
		size, ok := quantity(p.Collect.Quantity)
		if !ok || size != nil && size.IsZero() {
			add("collect.quantity", "write a number above zero, in the unit of what is collected", "%q is no quantity", p.Collect.Quantity)
		}
		if p.Collect.Every < 0 || p.Collect.Every > 24*time.Hour {
			add("collect.every", "write a duration up to 24h, such as 10m", "%s is out of range", p.Collect.Every)
		}
		if p.Collect != (CollectConfig{}) {
			x.Collect = &posting.Collect{Every: p.Collect.Every, OrderEnd: p.Collect.OrderEnd}
			if size != nil {
				x.Collect.Quantity = *size
			}
		}
		all = append(all, x)
	}
	return all, faults
}

// closing reads "3 18:00"; nothing is nil.
func closing(text string) (*posting.Closing, bool) {
	if text == "" {
		return nil, true
	}
	day, clock, _ := strings.Cut(text, " ")
	t, err := time.Parse("15:04", clock)
	d, err2 := decimal.NewFromString(day)
	if err != nil || err2 != nil || !d.IsInteger() || d.IntPart() < 1 || d.IntPart() > 31 {
		return nil, false
	}
	return &posting.Closing{Day: int(d.IntPart()), Hour: t.Hour(), Minute: t.Minute()}, true
}

// decidedBefore reports that an entry before the one at i says what becomes of an ERP's completed orders wherever that one would.
func (c *Config) decidedBefore(i int, erp string) bool {
	return slices.ContainsFunc(c.Posting.Policies[:i], func(o PolicyConfig) bool {
		return o.ClosedOrders != "" && (o.ERP == "" || o.ERP == erp) && (o.Plant == "" || o.Plant == c.Posting.Policies[i].Plant)
	})
}

// quantity reads a number of zero or more; nothing is nil.
func quantity(text string) (*decimal.Decimal, bool) {
	if text == "" {
		return nil, true
	}
	d, err := decimal.NewFromString(text)
	return &d, err == nil && !d.IsNegative()
}

// checkPolicies also asks the connectors whether they do what a policy says: an owner that the system does not know would let
// material be taken twice, or never.
func (c *Config) checkPolicies(kinds []ConnectorKind) []Fault {
	_, faults := c.policies()
	for i, p := range c.Posting.Policies {
		if p.Backflush != "erp" && p.ClosedOrders != "reopen" {
			continue
		}
		for _, e := range c.ERPs {
			k, ok := findKind(kinds, e.Kind)
			if p.ERP != "" && p.ERP != e.Name || !ok {
				continue
			}
			erp, err := k.New(e.Name, filepath.Dir(c.Path), e.Decode)
			if err != nil {
				continue // a fault of its own
			}
			add := func(key, hint, format string, args ...any) {
				faults = append(faults, Fault{Where: fmt.Sprintf("posting.policies[%d].%s", i+1, key), Text: fmt.Sprintf(format, args...), Hint: hint})
			}
			if p.Backflush == "erp" && erp.Capabilities().Backflush == connector.BackflushNever {
				add("backflush", "use backflush: mes, or set the ERP's section so that it backflushes (S/4HANA: movements: sap)",
					"ERP %q takes nothing by itself as it is configured: nobody would post the consumption", e.Name)
			}
			if _, can := erp.(connector.Reopener); p.ClosedOrders == "reopen" && !can && !c.decidedBefore(i, e.Name) {
				hint, why := "use closed_orders: hold for it", ""
				if why = erp.Capabilities().CannotReopen; why != "" {
					why = ": " + why
				}
				if p.ERP == "" {
					hint += ", in an entry before this one that names the ERP"
				}
				add("closed_orders", hint, "ERP %q has no way to reopen an order%s", e.Name, why)
			}
		}
	}
	return faults
}

func (c *Config) zones() map[string]*time.Location {
	zones := map[string]*time.Location{}
	for _, p := range c.Plants {
		if z, err := time.LoadLocation(p.TimeZone); p.TimeZone != "" && err == nil {
			zones[p.Plant] = z
		}
	}
	return zones
}

// rules are the same policies for the comparison with what the ERPs hold; base says what holds where none was decided.
func rules(all []posting.Policy, connectors map[string]connector.Connector, base reconcile.Policy) func(plant, erp string) reconcile.Rules {
	byDefault := posting.LateEventDate
	if base.FirstOpenDay {
		byDefault = posting.LateFirstOpenDay
	}
	return func(plant, erp string) reconcile.Rules {
		takes := connector.BackflushUnknown
		c, known := connectors[erp]
		if known {
			takes = c.Capabilities().Backflush
		}
		percent, _ := posting.Tolerance(all, erp, plant)
		_, reopens := c.(connector.Reopener)
		return reconcile.Rules{
			Owner: func(item string, m *object.Component) string {
				return string(posting.BackflushOwner(all, erp, plant, item, m != nil && m.Backflush, takes))
			},
			YieldTolerance: decimal.Max(base.YieldTolerance, percent.Div(decimal.NewFromInt(100))),
			FirstOpenDay:   posting.LateBy(all, erp, plant, byDefault) == posting.LateFirstOpenDay,
			MayReopen:      reopens && posting.ClosedBy(all, erp, plant) == posting.ClosedReopen,
		}
	}
}
