package translate

import (
	"fmt"
	"strings"
	"time"

	"github.com/shopspring/decimal"
)

func (c *compiler) number(key, text, absent string) decimal.Decimal {
	d, err := positive(text, absent)
	if err != nil {
		c.fault(key, "%v", err)
	}
	return d
}

func (c *compiler) optional(key, text string) decimal.Decimal {
	if text == "" {
		return decimal.Decimal{}
	}
	return c.number(key, text, "")
}

// counter compiles what counters and weights have in common, and what only counters have: a weight has none of these keys.
func (c *compiler) counter(r *rule) {
	cfg := c.cfg
	r.meter = r.tag
	c.counted(r)
	r.modulus = c.optional("modulus", cfg.Modulus)
	r.maxPerSecond = c.optional("max_per_second", cfg.MaxPerSecond)
	r.hold = c.oneOf("reset", cfg.Reset, "restart", "hold") == "hold"
	r.fromZero = cfg.StartFromZero
	r.occurred = c.expr("occurred_at", cfg.OccurredAt, false)
	r.value, r.boot = c.expr("value", cfg.Value, false), c.expr("boot", cfg.Boot, false)
	if r.modulus.IsPositive() && !r.modulus.IsInteger() {
		c.fault("modulus", "%q is not a whole number", cfg.Modulus)
	}
	c.closing(r)
	c.center(r)
	c.context(r, cfg.Order, cfg.Reason, cfg.Lot)
	r.operationOf, r.personOf = c.expr("operation", cfg.Operation, false), c.expr("person", cfg.Person, false)
	r.handOver = handOvers[c.oneOf("hand_over", cfg.HandOver, "next", "last", "by_time")]
	c.divisible(r)
}

// counted compiles what a count is of, and its factor.
func (c *compiler) counted(r *rule) {
	cfg := c.cfg
	r.counts = c.oneOf("counts", cfg.Counts, kindYield, kindScrap, kindRework, kindConsumed)
	if cfg.Counts == "" {
		c.fault("counts", "is missing; use yield, scrap, rework or consumed")
	}
	if r.item = c.t.item(cfg.Item); r.item == "" && r.counts == kindConsumed && len(cfg.Outputs) == 0 {
		c.fault("item", "is missing; a consumption needs the item consumed")
	}
	r.unit = c.unit(cfg.Unit)
	r.factor = c.number("factor", cfg.Factor, "1")
	r.factorOf = c.expr("factor_from", cfg.FactorFrom, false)
	if cfg.FactorFrom != "" && cfg.Factor != "" {
		c.fault("factor_from", "and factor are both given; use one")
	}
}

func (c *compiler) unit(text string) string {
	code, ok := c.t.unit(text)
	if text == "" {
		c.fault("unit", "is missing; use a Rec 20 code such as C62 (pieces) or KGM")
	} else if !ok {
		c.fault("unit", "%q is neither in units nor a known Rec 20 code", text)
	}
	return code
}

func (c *compiler) closing(r *rule) {
	cfg := c.cfg
	r.closeAt = c.optional("close.quantity", cfg.Close.Quantity)
	if r.every = cfg.Close.Every; r.every == 0 {
		r.every = time.Minute
	} else if r.every < 0 {
		c.fault("close.every", "%v is negative", r.every)
	}
	r.closeAtEnd = cfg.Close.OnOrderEnd == nil || *cfg.Close.OnOrderEnd
	if r.closeAtShift = cfg.Close.OnShiftEnd; r.closeAtShift && c.t.calendar == nil && len(c.t.calendars) == 0 {
		c.fault("close.on_shift_end", "needs calendars that say when shifts end")
	}
}

func (c *compiler) center(r *rule) {
	cfg := c.cfg
	r.assignNext = c.oneOf("without_order", cfg.WithoutOrder, "hold", "assign_next") == "assign_next"
	if r.assignNext && cfg.WorkCenter == "" {
		c.fault("without_order", "assign_next needs work_center: the next order there takes the counts")
	}
	r.centerOf, r.centers = c.expr("work_center_from", cfg.WorkCenterFrom, false), cfg.WorkCenters
	switch {
	case (cfg.WorkCenterFrom == "") != (len(cfg.WorkCenters) == 0):
		c.fault("work_center_from", "and work_centers belong together: the one says which value, the other what the values mean")
	case cfg.WorkCenterFrom != "" && cfg.WorkCenter != "":
		c.fault("work_center", "and work_center_from are both given; use one")
	}
}

func (c *compiler) context(r *rule, order, reason, lot string) {
	r.orderOf, r.reasonOf, r.lotOf = c.expr("order", order, false), c.expr("reason", reason, false), c.expr("lot", lot, false)
	if r.orderOf != nil && r.assignNext {
		c.fault("without_order", "assign_next waits for the next order of the work centre, but this rule has order: leave one out")
	}
	if reason != "" && r.counts != kindScrap && r.counts != kindRework {
		c.fault("reason", "is for scrap and rework")
	}
}

// divisible refuses to divide counts by time where what they are booked on is known only from the counter's own message.
func (c *compiler) divisible(r *rule) {
	if r.handOver != byTime {
		return
	}
	for key, e := range map[string]*expr{
		"order": r.orderOf, "operation": r.operationOf, "reason": r.reasonOf, "lot": r.lotOf, "person": r.personOf, "factor_from": r.factorOf, "work_center_from": r.centerOf,
	} {
		if e != nil && e.ofSignal {
			c.fault("hand_over", "by_time needs to see the moment of a change, but %s is read from the counter's own message; use tags, or another hand_over", key)
		}
	}
}

// outputs makes one counter of each output of a rule.
func (c *compiler) outputs(r *rule) []*rule {
	if len(c.cfg.Outputs) == 0 || r.kind != kindCounter {
		return []*rule{r}
	}
	shares, names := make([]int, len(c.cfg.Outputs)), map[string]bool{}
	var out []*rule
	for i, o := range c.cfg.Outputs {
		if o.Name == "" || names[o.Name] || strings.ContainsAny(o.Name, "#|"+sep) {
			c.fault("outputs", "output %d needs a name of its own, without # and |", i+1)
		}
		names[o.Name] = true
		shares[i] = o.Share
		made := c.output(*r, o)
		made.echo = i > 0
		out = append(out, made)
	}
	c.shares(out, shares)
	return out
}

func (c *compiler) output(r rule, o Output) *rule {
	oc := *c
	oc.errs = nil
	cfg := &oc.cfg
	for _, f := range []struct {
		to   *string
		from string
	}{
		{&cfg.WorkCenter, o.WorkCenter}, {&cfg.Equipment, o.Equipment}, {&cfg.Counts, o.Counts}, {&cfg.Item, o.Item}, {&cfg.Unit, o.Unit},
		{&cfg.Order, o.Order}, {&cfg.Lot, o.Lot}, {&cfg.Reason, o.Reason},
	} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	if o.Factor != "" || o.FactorFrom != "" {
		cfg.Factor, cfg.FactorFrom = o.Factor, o.FactorFrom
	}
	cfg.Outputs = nil
	if o.WorkCenter != "" {
		cfg.WorkCenterFrom, cfg.WorkCenters = "", nil
	}
	made := r
	made.center, made.equipment = cfg.WorkCenter, cfg.Equipment
	fallback(&made.equipment, made.center)
	oc.counter(&made)
	made.meter = r.tag + "#" + o.Name
	for _, err := range oc.errs {
		if f, ok := err.(*RuleFault); ok {
			f.Text, f.Key = fmt.Sprintf("of output %q: %s %s", o.Name, f.Key, f.Text), "outputs"
		}
	}
	c.errs = append(c.errs, oc.errs...)
	return &made
}

// shares deals out the steps of a counter.
func (c *compiler) shares(out []*rule, weights []int) {
	sum, given := 0, 0
	for _, n := range weights {
		if sum += n; n < 0 || n > maxShare || sum > maxShare {
			c.fault("outputs", "have shares below 1, or of more than %d in sum", maxShare)
			return
		}
		if n > 0 {
			given++
		}
	}
	switch {
	case given == 0:
		return
	case given < len(weights):
		c.fault("outputs", "have a share in part only: give all of them one, or none")
		return
	}
	modulus := out[0].modulus
	if modulus.IsPositive() && modulus.LessThan(decimal.NewFromInt(int64(sum))) {
		c.fault("outputs", "have shares of %d in sum, more than the modulus %s", sum, modulus)
		return
	}
	for i, s := range deal(weights, sum, modulus) {
		out[i].share = s
	}
}
