package translate

import (
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

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

// kinds are the words for rules. A weight is counted like a counter that the rule itself keeps, a serial number is a record.
var kinds = map[string]kind{
	"counter": kindCounter, "weight": kindCounter, "serial": kindRecord, "record": kindRecord, "state": kindState, "reading": kindReading,
}

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
	closeAtShift          bool
	places                int32

	// meter is the name under which the counter is remembered and the hub knows it: the tag, or "tag#output".
	meter    string
	echo     bool // an output behind the first, which tells of the counter's faults for all
	share    *portion
	handOver handOver
	factorOf *expr
	// The work centre of a shared counter, and what a count is booked on.
	centerOf                              *expr
	centers                               map[string]string
	orderOf, operationOf, reasonOf, lotOf *expr
	personOf                              *expr
	reasons                               ReasonTable
	scale                                 *scaleRule // of a weight

	serial bool // a record whose identity is a serial number

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
	byCenter               map[string][]*rule         // counters
	byMeter                map[[2]string]*rule        // counters by source and meter
	byTime                 []*rule                    // counters that divide counts by time
	kept                   map[[2]string]bool         // source, tag: values that expressions look at
	fedBy                  map[string][]string        // source: those whose tags its rules look at
	masked                 map[[2]string][][]pathStep // source, tag: what is pseudonymised
	pseudonymKey           []byte
	calendar               *calendar // of all that no other names
	calendars              map[string]*calendar
	reasons                map[string]ReasonTable
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
		byMeter: map[[2]string]*rule{}, fedBy: map[string][]string{}, kept: map[[2]string]bool{}, masked: map[[2]string][][]pathStep{}, calendars: map[string]*calendar{},
		reasons: cfg.Reasons, pseudonymKey: cfg.PseudonymKey,
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
	errs = append(errs, t.addCalendars(cfg.Calendars)...)
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
		outputs := c.outputs(r)
		if errs = append(errs, c.errs...); len(c.errs) == 0 {
			for _, r := range outputs {
				t.add(r)
			}
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
	if r.kind != kindCounter {
		return
	}
	t.byMeter[[2]string{r.source, r.meter}] = r
	if r.center != "" {
		t.byCenter[r.center] = append(t.byCenter[r.center], r)
	}
	seen := map[string]bool{}
	for _, center := range r.centers {
		if !seen[center] {
			seen[center] = true
			t.byCenter[center] = append(t.byCenter[center], r)
		}
	}
	if r.handOver == byTime {
		t.byTime = append(t.byTime, r)
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

// item maps a source's item text.
func (t *Translator) item(text string) string {
	if to, ok := t.items[text]; ok {
		return to
	}
	return text
}
