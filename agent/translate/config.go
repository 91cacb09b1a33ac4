package translate

import (
	_ "embed"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// Sample is a commented configuration with every kind of rule.
//
//go:embed rules.sample.yaml
var Sample string

// Config is what the translator is made from.
type Config struct {
	// Plant is the ISA-95 site, Agent the installation's name; both are part of what keys are made from or shown.
	Plant, Agent string
	// Zone is the plant's IANA zone, such as "Europe/Berlin": it travels with each fact and gives zone-less times of
	// payloads a meaning (in the repeated hour of autumn: the first).
	Zone  string
	Rules []Rule
	// Units maps a source's unit text to a UN/ECE Rec 20 code, such as "Stk" to "C62". Rec 20 codes stand for themselves.
	Units map[string]string
	// AwaitHub says that there is a hub whose marks will come (ResumeFrom). Until they came once, what a counter that was never
	// seen before counts stays open, unless its order ends: the hub may know the counter from an agent that was here before.
	AwaitHub bool
	// Items maps a source's item text to the ERP's item number; what is not in it stands for itself.
	Items map[string]string
}

// Rule is one rule. Which keys it may have depends on its kind; a key that has no meaning for the kind is a fault.
//
// An expression is a path (payload.order.no, payload["Auftrag Nr"], payload.items[0], topic, topic_parts[2], tag, source,
// position; item.x with each), a literal ('C62', "C62", 12.5, true), or CEL over the same names. Numbers are exact
// decimals in CEL too: + - * < <= > >= == work with a number on the right, and dec(x), add(a,b), sub(a,b), mul(a,b),
// div(a,b,decimals), round(x,decimals) (half-even) and string(x) take numbers and numeric texts.
type Rule struct {
	// Name is unique and says what the rule is about. It is part of the keys of records: a renamed rule is a new rule.
	Name string `yaml:"name"`
	// Rule is the kind: counter, record, state or reading.
	Rule string `yaml:"rule"`
	// Source and Tag say which signals the rule takes. A reading may take all tags of a source with "*".
	Source string `yaml:"source"`
	Tag    string `yaml:"tag"`
	// WorkCenter is where it happens. counter: the order that runs there is confirmed. state: the order that the signal
	// tells runs there (required). record: order states set what runs there, other facts without an order_no field take the
	// order that runs there.
	WorkCenter string `yaml:"work_center"`
	// Equipment is the ISA-95 path in the fact's header. Default: the work centre.
	Equipment string `yaml:"equipment"`

	// Counts (counter) says what one step of the counter is: yield, scrap, rework or consumed.
	Counts string `yaml:"counts"`
	// Item (counter) is what is counted. Default: the item of the order. consumed needs it.
	Item string `yaml:"item"`
	// Unit (counter) is the unit of a count after Factor; a text of the units table or a Rec 20 code. Required.
	Unit string `yaml:"unit"`
	// Factor (counter) multiplies each step, such as the cavities of a mould. Decimal text, default 1.
	Factor string `yaml:"factor"`
	// Modulus (counter) is the first value that the counter cannot show: 65536 for 16 bits. Default: it never rolls over.
	Modulus string `yaml:"modulus"`
	// MaxPerSecond (counter) is the highest speed of the raw counter that is physically possible; it tells a rollover from a
	// reset and a misread from a count. Default: no limit.
	MaxPerSecond string `yaml:"max_per_second"`
	// Reset (counter) is restart (default: after a reset the value is counted from zero) or hold (it becomes a baseline, a
	// person is asked).
	Reset string `yaml:"reset"`
	// StartFromZero (counter) counts the first value ever seen from zero. Default: it is only the baseline.
	StartFromZero bool `yaml:"start_from_zero"`
	// WithoutOrder (counter) is hold (default: confirmed with no order number, for a person to assign) or assign_next (kept
	// open for the next order on the work centre).
	WithoutOrder string `yaml:"without_order"`
	// Value and Boot (counter) are expressions: where the count is in a structured message (default payload), and a mark
	// that changes whenever the counter starts again at zero (the time of the device's start, a run number). A change of the
	// mark makes a reset certain, even with "hold"; leave it out for a counter that keeps its value over a restart.
	Value string `yaml:"value"`
	Boot  string `yaml:"boot"`
	// OccurredAt (counter) is an expression for the time of the count in a structured message. Default: the source's clock
	// where the driver has it. With either, values that come a second time after a restart are recognised by their time.
	OccurredAt string `yaml:"occurred_at"`
	// Close (counter) says when open counts become a confirmation.
	Close Close `yaml:"close"`

	// When (record, state) is a condition; without it every signal counts.
	When string `yaml:"when"`
	// Fact (record) is production_confirmation, material_consumption, quality_status or order_state.
	Fact string `yaml:"fact"`
	// ID (record, state with events) is the source's own identity of the record, for the key. Default: what the driver guarantees (table key
	// and row version), else a random key, which cannot recognise a redelivery.
	ID string `yaml:"id"`
	// Each (record) is a list inside the message: every element, under the name item, becomes a fact.
	Each string `yaml:"each"`
	// Fields (record, state) are the fact's fields as expressions; see FieldNames.
	Fields map[string]string `yaml:"fields"`
	// States (record of order_state) and Events (state) map the source's words to delivered, accepted, rejected, started,
	// held, finished, cancelled. These words stand for themselves.
	States map[string]string `yaml:"states"`
	Events map[string]string `yaml:"events"`
	// KnownOrdersOnly (record) refuses orders that the hub never sent. Default: the hub decides.
	KnownOrdersOnly bool `yaml:"known_orders_only"`
	// Decimals (counter, record) is how many decimals a quantity may have, 0 to 9; more are rounded half-even, and the rest
	// is carried to the next fact of the same order and item. Default 9.
	Decimals *int `yaml:"decimals"`
}

// Close says when open counts become a confirmation; whatever comes first.
type Close struct {
	// Quantity closes when at least this much (after Factor) is open. Decimal text; default: no quantity closes.
	Quantity string `yaml:"quantity"`
	// Every closes this long after the first open count. Default 60s.
	Every time.Duration `yaml:"every"`
	// OnOrderEnd closes when the order ends. Default true. When another order begins, open counts are closed in any case.
	OnOrderEnd *bool `yaml:"on_order_end"`
}

// What a counter counts and the kinds of the ledger.
const (
	kindYield    = "yield"
	kindScrap    = "scrap"
	kindRework   = "rework"
	kindConsumed = "consumed"
	kindReturned = "returned"
)

type kind uint8

const (
	kindCounter kind = iota
	kindRecord
	kindState
	kindReading
)

var kinds = map[string]kind{"counter": kindCounter, "record": kindRecord, "state": kindState, "reading": kindReading}

// rule is a Rule ready for work.
type rule struct {
	name, source, tag     string
	kind                  kind
	center, equipment     string
	when, value, boot     *expr
	occurred              *expr
	counts, item, unit    string
	factor                decimal.Decimal
	modulus, maxPerSecond decimal.Decimal // zero: none
	hold, fromZero        bool
	assignNext            bool
	closeAt               decimal.Decimal // zero: none
	every                 time.Duration
	closeAtEnd            bool
	places                int32

	fact       factKind
	position   string // what the positions of its records begin with
	id, each   *expr
	idPerItem  bool
	fields     []mapped
	has        [nFields]bool
	states     map[string]pb.OrderState_State
	knownOnly  bool
	orderTag   bool // a state rule whose tag simply is the order number
	orderOfRun bool // a record without order_no takes the order that runs on the work centre
}

type mapped struct {
	field field
	expr  *expr
}

// Translator applies rules. It is immutable and may be used from several goroutines; what it remembers is in State.
type Translator struct {
	plant, agent, zoneName string
	zone                   *time.Location
	rules                  []*rule
	byTag                  map[string]map[string][]*rule
	byCenter               map[string][]*rule // counters
	units, items           map[string]string
	newKey                 func() factkey.Key
	awaitHub               bool
	answerFields           []mapped
	answerStates           map[string]pb.OrderState_State
}

// New makes a translator; its error is the first fault of Validate. newKey draws the keys of facts whose source guarantees
// no position of its own.
func New(cfg Config, newKey func() factkey.Key) (*Translator, error) {
	t, errs := build(cfg, newKey, nil)
	if len(errs) > 0 {
		return nil, errs[0]
	}
	return t, nil
}

// Validate finds every fault of the rules; each names its rule and key. sources are the names that exist; nil skips that
// check.
func (c *Config) Validate(sources []string) []error {
	_, errs := build(*c, factkey.Random, sources)
	return errs
}

func build(cfg Config, newKey func() factkey.Key, sources []string) (*Translator, []error) {
	t := &Translator{
		plant: cfg.Plant, agent: cfg.Agent, zoneName: cfg.Zone, newKey: newKey, units: cfg.Units, items: cfg.Items, awaitHub: cfg.AwaitHub,
		byTag: map[string]map[string][]*rule{}, byCenter: map[string][]*rule{}, answerFields: answerMapping(), answerStates: stateWords,
	}
	var errs []error
	var err error
	if t.zone, err = time.LoadLocation(cfg.Zone); err != nil || cfg.Zone == "" || cfg.Zone == "Local" {
		errs, t.zone = append(errs, fmt.Errorf("zone %q is not an IANA name such as Europe/Berlin", cfg.Zone)), time.UTC
	}
	for _, text := range sortedKeys(cfg.Units) {
		if code := cfg.Units[text]; !unitCode(code) {
			errs = append(errs, fmt.Errorf("units: %q is given as %q, which is not a Rec 20 code (two or three upper-case letters or digits, such as C62 or KGM)", text, code))
		}
	}
	names, counters := map[string]bool{}, map[[2]string]string{}
	for i, rc := range cfg.Rules {
		c := &compiler{t: t, cfg: rc}
		r := c.compile(i, sources)
		if names[rc.Name] && rc.Name != "" {
			c.fault("name", "is used by another rule too; names must differ")
		}
		names[rc.Name] = true
		if at := [2]string{rc.Source, rc.Tag}; r.kind == kindCounter && rc.Rule != "" {
			if other := counters[at]; other != "" {
				c.fault("tag", "%q of source %q is counted by rule %q already; list the tag twice under two names in the source to count it twice", rc.Tag, rc.Source, other)
			}
			counters[at] = rc.Name
		}
		if errs = append(errs, c.errs...); len(c.errs) == 0 {
			t.add(r)
		}
	}
	return t, errs
}

func (t *Translator) add(r *rule) {
	t.rules = append(t.rules, r)
	if t.byTag[r.source] == nil {
		t.byTag[r.source] = map[string][]*rule{}
	}
	t.byTag[r.source][r.tag] = append(t.byTag[r.source][r.tag], r)
	if r.kind == kindCounter && r.center != "" {
		t.byCenter[r.center] = append(t.byCenter[r.center], r)
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func unitCode(s string) bool {
	return len(s) >= 2 && len(s) <= 3 && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == ""
}

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
		c.fault("rule", "%q is not a kind of rule; use counter, record, state or reading", cfg.Rule)
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
	switch r.kind {
	case kindCounter:
		c.counter(r)
	case kindRecord:
		c.record(r)
	case kindState:
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
		{"work_center", cfg.WorkCenter != "", "counter record state"},
		{"counts", cfg.Counts != "", "counter"}, {"item", cfg.Item != "", "counter"}, {"unit", cfg.Unit != "", "counter"},
		{"factor", cfg.Factor != "", "counter"}, {"modulus", cfg.Modulus != "", "counter"},
		{"max_per_second", cfg.MaxPerSecond != "", "counter"}, {"reset", cfg.Reset != "", "counter"},
		{"start_from_zero", cfg.StartFromZero, "counter"}, {"without_order", cfg.WithoutOrder != "", "counter"},
		{"occurred_at", cfg.OccurredAt != "", "counter"}, {"value", cfg.Value != "", "counter"}, {"boot", cfg.Boot != "", "counter"}, {"close", cfg.Close != Close{}, "counter"},
		{"when", cfg.When != "", "record state"}, {"fact", cfg.Fact != "", "record"}, {"id", cfg.ID != "", "record state"},
		{"each", cfg.Each != "", "record"}, {"fields", len(cfg.Fields) > 0, "record state"},
		{"states", len(cfg.States) > 0, "record"}, {"events", len(cfg.Events) > 0, "state"},
		{"known_orders_only", cfg.KnownOrdersOnly, "record"}, {"decimals", cfg.Decimals != nil, "counter record"},
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

func (c *compiler) counter(r *rule) {
	cfg := c.cfg
	r.counts = c.oneOf("counts", cfg.Counts, kindYield, kindScrap, kindRework, kindConsumed)
	if cfg.Counts == "" {
		c.fault("counts", "is missing; use yield, scrap, rework or consumed")
	}
	if r.item = c.t.item(cfg.Item); r.item == "" && r.counts == kindConsumed {
		c.fault("item", "is missing; a consumption needs the item consumed")
	}
	var ok bool
	if r.unit, ok = c.t.unit(cfg.Unit); cfg.Unit == "" {
		c.fault("unit", "is missing; use a Rec 20 code such as C62 (pieces) or KGM")
	} else if !ok {
		c.fault("unit", "%q is neither in units nor a known Rec 20 code", cfg.Unit)
	}
	number := func(key, text, absent string) decimal.Decimal {
		d, err := positive(text, absent)
		if err != nil {
			c.fault(key, "%v", err)
		}
		return d
	}
	optional := func(key, text string) decimal.Decimal {
		if text == "" {
			return decimal.Decimal{}
		}
		return number(key, text, "")
	}
	r.factor = number("factor", cfg.Factor, "1")
	r.modulus = optional("modulus", cfg.Modulus)
	r.maxPerSecond = optional("max_per_second", cfg.MaxPerSecond)
	r.closeAt = optional("close.quantity", cfg.Close.Quantity)
	r.hold = c.oneOf("reset", cfg.Reset, "restart", "hold") == "hold"
	r.assignNext = c.oneOf("without_order", cfg.WithoutOrder, "hold", "assign_next") == "assign_next"
	if r.assignNext && cfg.WorkCenter == "" {
		c.fault("without_order", "assign_next needs work_center: the next order there takes the counts")
	}
	r.fromZero = cfg.StartFromZero
	r.occurred = c.expr("occurred_at", cfg.OccurredAt, false)
	r.value, r.boot = c.expr("value", cfg.Value, false), c.expr("boot", cfg.Boot, false)
	if r.every = cfg.Close.Every; r.every == 0 {
		r.every = time.Minute
	} else if r.every < 0 {
		c.fault("close.every", "%v is negative", r.every)
	}
	r.closeAtEnd = cfg.Close.OnOrderEnd == nil || *cfg.Close.OnOrderEnd
	if r.modulus.IsPositive() && !r.modulus.IsInteger() {
		c.fault("modulus", "%q is not a whole number", cfg.Modulus)
	}
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

// item maps a source's item text.
func (t *Translator) item(text string) string {
	if to, ok := t.items[text]; ok {
		return to
	}
	return text
}
