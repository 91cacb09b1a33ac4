package translate

import (
	"fmt"
	"slices"
	"strings"

	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// compiler turns one Rule into a rule and collects its faults.
type compiler struct {
	t     *Translator
	cfg   Rule
	index int
	errs  []error
	name  string
}

// RuleFault is a fault of one rule, as Validate returns it.
type RuleFault struct {
	Index int    // of the rule in the configuration
	Name  string // of the rule
	Key   string // the key at fault: "unit", "close.quantity"
	Text  string // what is wrong with the key
}

func (f *RuleFault) Error() string { return fmt.Sprintf("rule %q: %s %s", f.Name, f.Key, f.Text) }

func (c *compiler) fault(key, format string, args ...any) {
	c.errs = append(c.errs, &RuleFault{Index: c.index, Name: c.name, Key: key, Text: fmt.Sprintf(format, args...)})
}

func (c *compiler) compile(i int, sources []string) *rule {
	cfg := c.cfg
	c.name, c.index = cfg.Name, i
	if cfg.Name == "" {
		c.name = fmt.Sprintf("number %d", i+1)
		c.fault("name", "is missing; say what the rule is about, such as \"press1 good parts\"")
	}
	r := &rule{name: cfg.Name, source: cfg.Source, tag: cfg.Tag, center: cfg.WorkCenter, equipment: cfg.Equipment, places: maxDecimals}
	if r.equipment == "" {
		r.equipment = r.center
	}
	known := false
	if r.kind, known = kinds[cfg.Rule]; !known {
		c.fault("rule", "%q is not a kind of rule; use counter, weight, serial, record, state or reading", cfg.Rule)
		return r
	}
	if cfg.Source == "" {
		c.fault("source", "is missing")
	} else if sources != nil && !slices.Contains(sources, cfg.Source) {
		c.fault("source", "%q is not a source of this configuration; there are %s", cfg.Source, strings.Join(sources, ", "))
	}
	if cfg.Tag == "" {
		c.fault("tag", "is missing")
	} else if cfg.Tag == "*" && r.kind != kindReading {
		c.fault("tag", "\"*\" is for readings only; name the tag")
	}
	c.refuseForeignKeys()
	if cfg.Decimals != nil {
		if r.places = int32(*cfg.Decimals); r.places < 0 || r.places > maxDecimals {
			c.fault("decimals", "%d is not from 0 to 9", r.places)
		}
	}
	c.pseudonymise(r)
	if r.reasons = c.t.reasons[cfg.Reasons]; cfg.Reasons != "" && r.reasons == nil {
		c.fault("reasons", "%q is not a table; there are %s", cfg.Reasons, strings.Join(sortedKeys(c.t.reasons), ", "))
	}
	switch cfg.Rule {
	case "counter":
		c.counter(r)
	case "weight":
		c.counter(r)
		c.weight(r)
	case "serial":
		c.serial(r)
	case "record":
		c.record(r)
	case "state":
		c.state(r)
	}
	return r
}

// refuseForeignKeys names keys that have no meaning for the rule's kind: they are a misunderstanding that must not stay
// silent.
func (c *compiler) refuseForeignKeys() {
	cfg := &c.cfg
	for _, k := range []struct {
		key   string
		set   bool
		kinds string
	}{
		{"work_center", cfg.WorkCenter != "", "counter weight serial record state"},
		{"work_center_from", cfg.WorkCenterFrom != "", "counter weight"}, {"work_centers", len(cfg.WorkCenters) > 0, "counter weight"},
		{"counts", cfg.Counts != "", "counter weight serial"}, {"item", cfg.Item != "", "counter weight serial"}, {"unit", cfg.Unit != "", "counter weight serial"},
		{"order", cfg.Order != "", "counter weight serial"}, {"operation", cfg.Operation != "", "counter weight serial"},
		{"reason", cfg.Reason != "", "counter weight serial"}, {"reasons", cfg.Reasons != "", "counter weight serial record"},
		{"lot", cfg.Lot != "", "counter weight serial"}, {"person", cfg.Person != "", "counter weight serial"},
		{"factor_from", cfg.FactorFrom != "", "counter"}, {"outputs", len(cfg.Outputs) > 0, "counter"}, {"hand_over", cfg.HandOver != "", "counter weight"},
		{"weighs", cfg.Weighs != "", "weight"}, {"least", cfg.Least != "", "weight"}, {"refill", cfg.Refill != "", "weight"},
		{"stable_for", cfg.StableFor != 0, "weight"}, {"stable_within", cfg.StableWithin != "", "weight"}, {"tare", cfg.Tare != "", "weight"},
		{"factor", cfg.Factor != "", "counter weight"}, {"modulus", cfg.Modulus != "", "counter"},
		{"max_per_second", cfg.MaxPerSecond != "", "counter"}, {"reset", cfg.Reset != "", "counter"},
		{"start_from_zero", cfg.StartFromZero, "counter"}, {"without_order", cfg.WithoutOrder != "", "counter weight"},
		{"occurred_at", cfg.OccurredAt != "", "counter weight serial"}, {"value", cfg.Value != "", "counter weight serial"}, {"boot", cfg.Boot != "", "counter"},
		{"close", cfg.Close != Close{}, "counter weight"},
		{"when", cfg.When != "", "record state serial"}, {"fact", cfg.Fact != "", "record"}, {"id", cfg.ID != "", "record state"},
		{"each", cfg.Each != "", "record"}, {"fields", len(cfg.Fields) > 0, "record state"},
		{"states", len(cfg.States) > 0, "record"}, {"events", len(cfg.Events) > 0, "state"},
		{"known_orders_only", cfg.KnownOrdersOnly, "record"}, {"decimals", cfg.Decimals != nil, "counter weight record"},
	} {
		if k.set && !slices.Contains(strings.Fields(k.kinds), cfg.Rule) {
			c.fault(k.key, "has no meaning in a %s rule; it belongs to: %s", cfg.Rule, strings.ReplaceAll(k.kinds, " ", ", "))
		}
	}
}

func (c *compiler) expr(key, src string, withItem bool) *expr {
	if src == "" {
		return nil
	}
	e, err := compile(src, withItem)
	if err != nil {
		c.fault(key, "%v", err)
		return e
	}
	for _, name := range e.looksAt {
		at := keptTag(c.cfg.Source, name)
		c.t.kept[at] = true
		c.t.fedBy[c.cfg.Source] = append(c.t.fedBy[c.cfg.Source], at[0])
	}
	return e
}

func (c *compiler) oneOf(key, got string, allowed ...string) string {
	if got == "" {
		return allowed[0]
	}
	if !slices.Contains(allowed, got) {
		c.fault(key, "%q is none of %s", got, strings.Join(allowed, ", "))
	}
	return got
}

func (c *compiler) record(r *rule) {
	cfg := c.cfg
	spec, ok := factSpecs[cfg.Fact]
	if !ok {
		c.fault("fact", "%q is none of %s", cfg.Fact, strings.Join(sortedKeys(factSpecs), ", "))
		return
	}
	r.fact = spec.kind
	r.each = c.expr("each", cfg.Each, false)
	withItem := cfg.Each != ""
	r.when, r.id = c.expr("when", cfg.When, withItem), c.expr("id", cfg.ID, withItem)
	r.idPerItem = withItem && usesItem(cfg.ID)
	r.position = factkey.Position("record", c.t.plant, r.source, r.name)
	r.knownOnly = cfg.KnownOrdersOnly
	c.mapFields(r, spec.fields, withItem)
	r.orderOfRun = cfg.WorkCenter != "" && !r.has[fOrder]
	for _, f := range spec.required {
		if !r.has[f] && !(f == fOrder && r.orderOfRun && r.fact != factOrderState) {
			c.fault("fields", "lack %s, which a %s needs", fieldNames[f], cfg.Fact)
		}
	}
	if r.fact == factConfirmation && !r.has[fYield] && !r.has[fScrap] && !r.has[fRework] {
		c.fault("fields", "lack yield, scrap or rework: a production_confirmation needs one of them")
	}
	if r.fact == factOrderState {
		r.states = c.words("states", cfg.States)
	} else if len(cfg.States) > 0 {
		c.fault("states", "has no meaning for a %s", cfg.Fact)
	}
}

// usesItem tells whether an id differs per element of a list.
func usesItem(src string) bool {
	for src != "" {
		name, rest := ident(src)
		if name == "item" {
			return true
		}
		if name == "" {
			rest = src[1:]
		}
		src = rest
	}
	return false
}

func (c *compiler) mapFields(r *rule, allowed []field, withItem bool) {
	for _, name := range sortedKeys(c.cfg.Fields) {
		f, ok := fieldByName[name]
		if !ok || !slices.Contains(allowed, f) {
			var names []string
			for _, a := range allowed {
				names = append(names, fieldNames[a])
			}
			c.fault("fields."+name, "is not a field here; there are %s", strings.Join(names, ", "))
			continue
		}
		e := c.expr("fields."+name, c.cfg.Fields[name], withItem)
		if c.cfg.Fields[name] == "" {
			c.fault("fields."+name, "is empty")
		}
		if e != nil && e.prg == nil && e.steps == nil && f == fUnit {
			if _, known := c.t.unit(fmt.Sprint(e.lit)); !known {
				c.fault("fields.unit", "%s is neither in units nor a known Rec 20 code", c.cfg.Fields[name])
			}
		}
		r.has[f] = true
		r.fields = append(r.fields, mapped{f, e})
	}
}

var stateWords = map[string]pb.OrderState_State{
	"delivered": pb.OrderState_STATE_DELIVERED,
	"accepted":  pb.OrderState_STATE_ACCEPTED,
	"rejected":  pb.OrderState_STATE_REJECTED,
	"started":   pb.OrderState_STATE_STARTED,
	"held":      pb.OrderState_STATE_HELD,
	"finished":  pb.OrderState_STATE_FINISHED,
	"cancelled": pb.OrderState_STATE_CANCELLED,
}

// stateWord is the inverse of stateWords.
func stateWord(s pb.OrderState_State) string {
	return strings.ToLower(strings.TrimPrefix(s.String(), "STATE_"))
}

func (c *compiler) words(key string, m map[string]string) map[string]pb.OrderState_State {
	out := map[string]pb.OrderState_State{}
	for w, s := range stateWords {
		out[w] = s
	}
	for _, w := range sortedKeys(m) {
		s, ok := stateWords[m[w]]
		if !ok {
			c.fault(key, "%q is mapped to %q, which is none of %s", w, m[w], strings.Join(sortedKeys(stateWords), ", "))
		}
		out[w] = s
	}
	return out
}

func (c *compiler) state(r *rule) {
	cfg := c.cfg
	if cfg.WorkCenter == "" {
		c.fault("work_center", "is missing; it says where the order runs")
	}
	r.fact = factOrderState
	r.position = factkey.Position("state", c.t.plant, r.source, r.name)
	r.when, r.id = c.expr("when", cfg.When, false), c.expr("id", cfg.ID, false)
	c.mapFields(r, []field{fOrder, fOperation, fItem, fUnit, fState, fReason, fOccurredAt, fRevision}, false)
	r.states = c.words("events", cfg.Events)
	if r.orderTag = !r.has[fState]; !r.orderTag && !r.has[fOrder] {
		c.fault("fields", "lack order_no: an event needs its order")
	}
	if r.orderTag && len(cfg.Events) > 0 {
		c.fault("events", "needs fields.event")
	}
	if r.orderTag && cfg.ID != "" {
		c.fault("id", "needs fields.event: a tag that shows the order that runs has no records")
	}
}
