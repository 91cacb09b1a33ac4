package agent

import (
	"fmt"
	"slices"
	"strings"
)

// OrdersConfig says what happens to work orders that come down.
type OrdersConfig struct {
	// Receiver is the source that takes them. Default: the only source that can; none when no source can.
	Receiver string `yaml:"receiver"`
	// Receivers are several ones: the first whose work centre fits takes an order. An order that none takes waits and is shown.
	Receivers []OrderRoute `yaml:"receivers"`
	// Check is what is looked at before an order is delivered.
	Check OrderCheck `yaml:"check"`
}

// OrderRoute leads the orders of a work centre to a source.
type OrderRoute struct {
	// WorkCenter is a work centre, as name or as path, and may end in "*". Empty fits each order.
	WorkCenter string `yaml:"work_center"`
	Source     string `yaml:"source"`
}

// OrderCheck refuses work orders that could not be confirmed. A unit that is neither a Rec 20 code nor in the units table is
// always refused. What a list names is all there is; each entry may end in "*". Without a list, a work centre that neither
// rules nor receivers name is shown as a warning, and the rest is not looked at.
type OrderCheck struct {
	Items       []string `yaml:"items"`
	Units       []string `yaml:"units"`
	Operations  []string `yaml:"operations"`
	WorkCenters []string `yaml:"work_centers"`
	// Strict refuses what would only be a warning, also a unit that looks like a Rec 20 code and is not a known one.
	Strict bool `yaml:"strict"`
	// Off checks nothing but what the receivers check.
	Off bool `yaml:"off"`
}

// fitsCenter reports whether a work centre is the pattern's; either may be a full path.
func fitsCenter(pattern, center string) bool {
	last := func(s string) string { return s[strings.LastIndex(s, "/")+1:] }
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(center, prefix) || strings.HasPrefix(last(center), prefix)
	}
	return pattern == "" || pattern == center || center != "" && (strings.HasSuffix(center, "/"+pattern) || strings.HasSuffix(pattern, "/"+center))
}

// listed reports whether a list of patterns has a text.
func listed(list []string, text string) bool {
	return slices.ContainsFunc(list, func(p string) bool {
		prefix, ok := strings.CutSuffix(p, "*")
		return p == text || ok && strings.HasPrefix(text, prefix)
	})
}

func (k *checker) orders() {
	o := k.cfg.Orders
	const receiver, receivers = "work_orders.receiver", "work_orders.receivers"
	if o.Receiver != "" && len(o.Receivers) > 0 {
		k.add(receivers, "remove one of them", "receiver and receivers exclude each other")
		return
	}
	if o.Receiver == "" && len(o.Receivers) == 0 && len(k.takers) > 1 {
		k.add("work_orders", "name one of them in receiver:, or give each its work centres in receivers:", "%d sources can take work orders: %s",
			len(k.takers), strings.Join(k.takers, ", "))
	}
	if o.Receiver != "" {
		k.taker(receiver, o.Receiver)
	}
	for i, r := range o.Receivers {
		key := fmt.Sprintf("%s[%d]", receivers, i)
		k.taker(key+".source", r.Source)
		for _, before := range o.Receivers[:i] {
			if before.WorkCenter == "" || before.WorkCenter == r.WorkCenter {
				k.add(key, "put what fits each order last, and name each work centre once", "no order comes to source %q: the entry of source %q before it takes them all", r.Source, before.Source)
				break
			}
		}
	}
	if c := o.Check; c.Off && (c.Strict || len(c.Items)+len(c.Units)+len(c.Operations)+len(c.WorkCenters) > 0) {
		k.add("work_orders.check", "remove off:, or the rest", "off excludes everything else")
	}
}

// taker notes a source that takes no orders.
func (k *checker) taker(key, source string) {
	switch {
	case !slices.Contains(k.sourceNames(), source):
		k.add(key, "name one of the sources", "%q is not a source", source)
	case !slices.Contains(k.takers, source):
		k.add(key, "let it take them in its own section, or name another source", "source %q does not take work orders", source)
	}
}
