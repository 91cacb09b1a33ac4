package translate

import (
	_ "embed"
	"time"
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
	// Calendars say which shift works when. Without any, facts name no shift.
	Calendars []Calendar
	// Reasons are tables of what machines call the causes of scrap and rework, by a name that rules use.
	Reasons map[string]ReasonTable
	// PseudonymKey is the plant's secret for Rule.Pseudonymise; Mask needs it, nothing else looks at it.
	PseudonymKey []byte
}

// ReasonTable maps a machine's code to the plant's. A code that is not in it is kept as it is, and shown.
type ReasonTable map[string]Reason

// Reason is what a machine's code means.
type Reason struct {
	// Code is the plant's, as the ERP knows it. Default: the machine's.
	Code string `yaml:"code"`
	Text string `yaml:"text"`
}

// Rule is one rule. Which keys it may have depends on its kind; a key that has no meaning for the kind is a fault.
//
// An expression is a path (payload.order.no, payload["Auftrag Nr"], payload.items[0], topic, topic_parts[2], labels.site, tag,
// source, position, tags.cavities; item.x with each), a literal ('C62', "C62", 12.5, true), or CEL over the same names. Numbers are exact
// decimals in CEL too: + - * < <= > >= == work with a number on the right, and dec(x), add(a,b), sub(a,b), mul(a,b),
// div(a,b,decimals), round(x,decimals) (half-even) and string(x) take numbers and numeric texts.
//
// tags.x is the last good value of tag x of the same source, tags["@broker/x"] that of a tag of source broker; it needs no rule
// of its own. Which tags a rule looks at must be plain to see, so the name is always a literal.
type Rule struct {
	// Name is unique and says what the rule is about. It is part of the keys of records: a renamed rule is a new rule.
	Name string `yaml:"name"`
	// Rule is the kind: counter, weight, serial, record, state or reading.
	Rule string `yaml:"rule"`
	// Source and Tag say which signals the rule takes. A reading may take all tags of a source with "*".
	Source string `yaml:"source"`
	Tag    string `yaml:"tag"`
	// WorkCenter is where it happens. counter, weight, serial: the order that runs there is confirmed. state: the order that the signal
	// tells runs there (required). record: order states set what runs there, other facts without an order_no field take the
	// order that runs there.
	WorkCenter string `yaml:"work_center"`
	// Equipment is the ISA-95 path in the fact's header. Default: the work centre.
	Equipment string `yaml:"equipment"`
	// WorkCenterFrom (counter, weight) is an expression for a counter that several work centres share, such as
	// tags.selector; WorkCenters maps its values to them.
	WorkCenterFrom string            `yaml:"work_center_from"`
	WorkCenters    map[string]string `yaml:"work_centers"`

	// Counts (counter, weight, serial) says what one step of the counter is: yield, scrap, rework or consumed.
	Counts string `yaml:"counts"`
	// Item (counter, weight, serial) is what is counted. Default: the item of the order. consumed needs it.
	Item string `yaml:"item"`
	// Unit (counter, weight) is the unit of a count after Factor; a text of the units table or a Rec 20 code. Required.
	// serial: default C62.
	Unit string `yaml:"unit"`
	// Order and Operation (counter, weight, serial) are expressions for the order that is counted on. Default: the order that
	// runs on the work centre.
	Order     string `yaml:"order"`
	Operation string `yaml:"operation"`
	// Reason, Lot and Person (counter, weight, serial) are expressions that are asked at each count; a change of one closes what
	// is open, so that each fact has one of each. Reasons (also record) names the table that Reason, or the field scrap_reason,
	// is looked up in.
	Reason  string `yaml:"reason"`
	Reasons string `yaml:"reasons"`
	Lot     string `yaml:"lot"`
	Person  string `yaml:"person"`
	// Factor (counter) multiplies each step, such as the cavities of a mould. Decimal text, default 1.
	Factor string `yaml:"factor"`
	// FactorFrom (counter) is an expression for a factor that changes while the machine runs, such as tags.cavities; a change
	// closes what is open. Factor is then not allowed.
	FactorFrom string `yaml:"factor_from"`
	// Outputs (counter) are what one step of the counter makes, where that is more than one thing.
	Outputs []Output `yaml:"outputs"`
	// HandOver (counter, weight) says whose a count is when order, lot, reason, person, factor or shift changed since the last
	// value: next (default: what holds at the new value), last (what held at the last one) or by_time (divided in the
	// proportion of the times, whole pieces for units that count).
	HandOver string `yaml:"hand_over"`
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
	// Weighs (weight) is loss (default: weight that goes from the scale is counted, what comes onto it is a refill) or gain
	// (weight that comes onto it is counted, what goes is an emptying).
	Weighs string `yaml:"weighs"`
	// Least (weight) is the smallest change that counts, above the noise of the scale; smaller ones wait until they add up.
	// Decimal text in the unit of the scale, required.
	Least string `yaml:"least"`
	// Refill (weight) is the smallest change the other way that is a refill (an emptying); smaller ones are noise. Default:
	// five times Least.
	Refill string `yaml:"refill"`
	// StableFor (weight) counts only weights that stood still so long, within StableWithin (decimal text, default half of
	// Least): what is still falling when the valve has closed is waited for. Each weighing is then a fact of its own, unless
	// close.quantity says otherwise. Default 0: each value counts, as for a silo.
	StableFor    time.Duration `yaml:"stable_for"`
	StableWithin string        `yaml:"stable_within"`
	// Tare (weight) is an expression for what is taken off the weight: a number, or tags.tare.
	Tare string `yaml:"tare"`
	// Close (counter, weight) says when open counts become a confirmation.
	Close Close `yaml:"close"`

	// Pseudonymise (all kinds) lists paths into the message (payload.operator; payload for the whole value) whose texts are
	// replaced by pseudonyms before anything else of the agent sees them.
	Pseudonymise []string `yaml:"pseudonymise"`

	// When (record, state, serial) is a condition; without it every signal counts.
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
	// Decimals (counter, weight, record) is how many decimals a quantity may have, 0 to 9; more are rounded half-even, and the rest
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
	// OnShiftEnd closes at the end of each shift of the work centre's calendar, to the second of the source's time.
	OnShiftEnd bool `yaml:"on_shift_end"`
}

// Output is one of the things that a step of a counter makes: the halves of a family mould, the orders that share a tool. What
// is empty is as in the rule.
type Output struct {
	// Name tells the outputs of a rule apart. It is part of the keys.
	Name       string `yaml:"name"`
	WorkCenter string `yaml:"work_center"`
	Equipment  string `yaml:"equipment"`
	Counts     string `yaml:"counts"`
	Item       string `yaml:"item"`
	Unit       string `yaml:"unit"`
	Factor     string `yaml:"factor"`
	FactorFrom string `yaml:"factor_from"`
	Order      string `yaml:"order"`
	Lot        string `yaml:"lot"`
	Reason     string `yaml:"reason"`
	// Share deals the steps out instead of counting each for every output: of every (sum of all shares) steps, this output
	// gets so many. All outputs of a rule have one, or none.
	Share int `yaml:"share"`
}
