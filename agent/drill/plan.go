package drill

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// driven is one tag that the scratch plant makes values of.
type driven struct {
	Source string `json:"source"`
	Tag    string `json:"tag"`
	Rule   string `json:"rule"`
	// Kind is counter, row, message, order or reading. The last two are context and are not tallied.
	Kind string `json:"kind"`

	id    int // tells the entries of one rule from those of another
	rule  translate.Rule
	rules []translate.Rule // all that take the tag
	seen  int              // entries made so far
}

// leftOut is a rule that the drill can not drive.
type leftOut struct {
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
}

// plan is what of a configuration is driven.
type plan struct {
	tags []*driven
	out  []leftOut
	cfg  translate.Config
	try  *translate.Translator
}

// makePlan finds for each rule values that it takes, and tries them on the rules themselves.
// messages says which sources give an entry out until it is acknowledged, as a broker does.
func makePlan(cfg agent.Config, messages map[string]bool, now time.Time) (*plan, error) {
	p := &plan{cfg: translate.Config{
		Plant: cfg.Plant, Agent: cfg.Agent, Zone: cfg.TimeZone, Rules: cfg.Rules, Units: cfg.Units, Items: cfg.Items,
		Calendars: cfg.Calendars, Reasons: cfg.Reasons,
	}}
	var err error
	if p.try, err = translate.New(p.cfg, factkey.Random); err != nil {
		return nil, err
	}
	count := map[string]int{}
	for i, r := range cfg.Rules {
		d := &driven{id: i + 1, Source: r.Source, Tag: r.Tag, Rule: r.Name, Kind: kindOf(r), rule: r, rules: p.takers(r.Source, r.Tag)}
		if d.Kind == "row" && messages[r.Source] {
			d.Kind = "message"
		}
		reason := p.fits(d, now)
		if reason == "" && count[d.Kind] >= mostOfAKind && i < len(cfg.Rules)-ownRules {
			reason = fmt.Sprintf("%d rules of its kind are driven already", mostOfAKind)
		}
		if reason != "" {
			p.out = append(p.out, leftOut{r.Name, reason})
			continue
		}
		count[d.Kind]++
		d.seen = 0
		p.tags = append(p.tags, d)
	}
	return p, nil
}

// mostOfAKind bounds how many rules of a kind are driven, and with it what a thin line has to carry. The drill's own rules
// stand last and are always driven.
const (
	mostOfAKind = 20
	ownRules    = 3
)

func kindOf(r translate.Rule) string {
	switch r.Rule {
	case "counter":
		return "counter"
	case "reading":
		return "reading"
	case "state":
		if r.Fields["event"] == "" && r.Fields["state"] == "" {
			return "order"
		}
	}
	return "row"
}

func (p *plan) takers(source, tag string) (list []translate.Rule) {
	for _, r := range p.cfg.Rules {
		if r.Source == source && r.Tag == tag {
			list = append(list, r)
		}
	}
	return list
}

// fits says why a rule can not be driven, or nothing.
func (p *plan) fits(d *driven, now time.Time) string {
	switch {
	case d.Tag == "*":
		return "it takes every tag of its source: there is none to make up"
	case len(d.rule.Outputs) > 0:
		return "its counter has several outputs: what a drill counts has one"
	case d.rule.FactorFrom != "":
		return "its factor comes from another tag, which a drill does not drive"
	case d.rule.Rule == "serial":
		return "its pieces need an order that runs, which another tag tells"
	case d.rule.Rule == "weight":
		return "it weighs: what a drill makes up is counted"
	}
	for _, r := range d.rules {
		if k := kindOf(r); k != d.Kind && (k != "row" || d.Kind != "message") && k != "reading" && d.Kind != "reading" {
			return fmt.Sprintf("its tag is taken by rule %q of another kind too", r.Name)
		}
	}
	switch d.Kind {
	case "counter":
		return p.fitsCounter(d, now)
	case "row", "message":
		return p.fitsRow(d, now)
	}
	return ""
}

// fitsCounter counts five steps on the rules and looks for the confirmation of them.
func (p *plan) fitsCounter(d *driven, now time.Time) string {
	st := memory{}
	base := d.base()
	for i, v := range []int64{base, base + 5} {
		s := d.counterSignal(v, now.Add(time.Duration(i)*time.Minute))
		res := p.try.Translate(st, s.ReceivedTime, signal.Batch{Source: d.Source, Signals: []signal.Signal{s}})
		if why := refusal(res); why != "" {
			return why
		}
		for _, f := range res.Facts {
			if _, ok := rangeOf(f.Body, d.Tag); ok {
				return "" // closed by quantity at once
			}
		}
	}
	for _, f := range p.try.Tick(st, now.Add(time.Hour)).Facts {
		if _, ok := rangeOf(f.Body, d.Tag); ok {
			return ""
		}
	}
	return "values made up for it are not confirmed (the count may stay open until an order begins)"
}

// fitsRow makes two entries and wants each to become facts of its own under keys that the source guarantees.
func (p *plan) fitsRow(d *driven, now time.Time) string {
	seen := map[factkey.Key]bool{}
	for n := 1; n <= 2; n++ {
		s := d.entrySignal(n, now)
		first, why := p.keys(d.Source, s)
		if why != "" {
			return why
		}
		again, _ := p.keys(d.Source, s)
		for _, k := range first {
			if seen[k] {
				return "two different entries get the same key"
			}
			if seen[k] = true; !slices.Contains(again, k) {
				return "its facts get random keys"
			}
		}
		if len(first) == 0 {
			return "values made up for it become no fact"
		}
	}
	return ""
}

// keys are those of the facts that the rules make of an entry.
func (p *plan) keys(source string, s signal.Signal) (list []factkey.Key, refused string) {
	res := p.try.Translate(memory{}, s.ReceivedTime, signal.Batch{Source: source, Signals: []signal.Signal{s}})
	if why := refusal(res); why != "" {
		return nil, why
	}
	for _, f := range res.Facts {
		list = append(list, f.Key)
	}
	return list, ""
}

func refusal(res translate.Result) string {
	if len(res.Quarantined) > 0 {
		return "values made up for it are refused: " + res.Quarantined[0].Reason
	}
	return ""
}

// base is the value at which a counter begins: shortly before its rollover where it has one.
func (d *driven) base() int64 {
	if d.rule.StartFromZero {
		return 0
	}
	if m := d.modulus(); m > 0 {
		return max(0, m-30)
	}
	return 1000
}

func (d *driven) modulus() int64 {
	m, err := decimal.NewFromString(cmp.Or(d.rule.Modulus, "0"))
	if err != nil || !m.IsPositive() || m.GreaterThan(decimal.New(1, 15)) {
		return 0
	}
	return m.IntPart()
}

// rate is how many steps a second the counter makes: what the rule holds possible, and slow enough for a rollover to be
// told from a reset after a minute of silence.
func (d *driven) rate() float64 {
	rate := 20.0
	if d.rule.MaxPerSecond != "" {
		if m, err := decimal.NewFromString(d.rule.MaxPerSecond); err == nil {
			rate = min(rate, m.InexactFloat64()/3)
		}
	}
	if m := d.modulus(); m > 0 {
		rate = min(rate, float64(m)/150)
	}
	return rate
}

// factor is how many units one step counts.
func (d *driven) factor() decimal.Decimal {
	f, err := decimal.NewFromString(cmp.Or(d.rule.Factor, "1"))
	if err != nil {
		return decimal.New(1, 0)
	}
	return f
}

func (d *driven) counterSignal(total int64, at time.Time) signal.Signal {
	shown := total
	if m := d.modulus(); m > 0 {
		shown %= m
	}
	b := builder{n: 1, at: at}
	b.put(cmp.Or(d.rule.Value, "payload"), signal.Number(fmt.Sprint(shown)))
	b.put(d.rule.Boot, "drill")
	b.put(d.rule.OccurredAt, at.Format(time.RFC3339Nano))
	return b.signal(d.Tag)
}

// entrySignal is the n-th row or message of the tag.
func (d *driven) entrySignal(n int, at time.Time) signal.Signal {
	b := builder{id: d.id, n: n, at: at}
	r := d.rule
	for _, field := range slices.Sorted(maps.Keys(r.Fields)) {
		b.put(r.Fields[field], b.valueOf(field, r))
	}
	b.put(r.ID, fmt.Sprintf("drill-%s-%d", d.Rule, n))
	b.conditions(r.When)
	if r.Each != "" {
		b.put(r.Each, []any{b.item})
	}
	s := b.signal(d.Tag)
	s.Position = factkey.Position("drill", d.Rule, fmt.Sprint(n))
	s.Topic = "drill/drill/drill/drill/drill/drill"
	return s
}

func (d *driven) orderSignal(n int, at time.Time) signal.Signal {
	b := builder{n: n, at: at}
	b.put(cmp.Or(d.rule.Fields["order_no"], "payload"), fmt.Sprintf("DRILL%d-%d", d.id, n))
	return b.signal(d.Tag)
}

// builder makes a value that a rule's expressions find what they need in.
type builder struct {
	id, n int
	at    time.Time
	whole any // the payload itself, when an expression is just "payload"
	tree  map[string]any
	item  map[string]any
}

func (b *builder) signal(tag string) signal.Signal {
	s := signal.Signal{Tag: tag, Value: b.whole, SourceTime: b.at, ReceivedTime: b.at}
	if b.whole == nil && b.tree != nil {
		s.Value = b.tree
	}
	return s
}

// note is some text of a size that real records have.
const note = "early shift, press 1, tool 4711, checked"

func (b *builder) valueOf(field string, r translate.Rule) any {
	switch field {
	case "order_no":
		return fmt.Sprintf("DRILL%d-%d", b.id, b.n) // one each: the same state of one order is told once only
	case "quantity", "yield":
		return signal.Number(fmt.Sprint(b.n%9 + 1))
	case "scrap", "rework":
		return signal.Number(fmt.Sprint(b.n % 2))
	case "revision":
		return signal.Number("1")
	case "unit":
		return "C62"
	case "final":
		return false
	case "movement":
		return "issue"
	case "event", "state":
		return word(r)
	case "started_at", "finished_at", "occurred_at":
		return b.at.Format(time.RFC3339Nano)
	case "status", "disposition":
		return "conforming"
	}
	return note
}

// word is the source's own word for "started", or that word.
func word(r translate.Rule) string {
	for _, m := range []map[string]string{r.Events, r.States} {
		for _, w := range slices.Sorted(maps.Keys(m)) {
			if m[w] == "started" {
				return w
			}
		}
	}
	return "started"
}

var (
	pathPattern   = regexp.MustCompile(`\b(payload|item)((?:\.[A-Za-z_][A-Za-z0-9_]*|\[(?:"[^"]+"|'[^']+')\])+)`)
	stepPattern   = regexp.MustCompile(`\.([A-Za-z_][A-Za-z0-9_]*)|\[(?:"([^"]+)"|'([^']+)')\]`)
	equalsPattern = regexp.MustCompile(`\b((?:payload|item)(?:\.[A-Za-z_][A-Za-z0-9_]*|\[(?:"[^"]+"|'[^']+')\])+)\s*==\s*(?:'([^']*)'|"([^"]*)"|(-?[0-9.]+|true|false))`)
)

// put makes an expression give v, or something like it: a plain path gets v, each path inside of a longer expression gets v
// unless it has a value already.
func (b *builder) put(expr string, v any) {
	expr = strings.TrimSpace(expr)
	if expr == "payload" {
		b.whole = v
		return
	}
	b.conditions(expr)
	for _, m := range pathPattern.FindAllStringSubmatch(expr, -1) {
		b.set(m[1], m[2], v, m[0] == expr)
	}
}

// conditions makes each comparison with a literal true.
func (b *builder) conditions(expr string) {
	for _, m := range equalsPattern.FindAllStringSubmatch(expr, -1) {
		root, path, _ := cutRoot(m[1])
		var v any = m[2] + m[3]
		switch m[4] {
		case "":
		case "true", "false":
			v = m[4] == "true"
		default:
			v = signal.Number(m[4])
		}
		b.set(root, path, v, true)
	}
}

func cutRoot(s string) (root, path string, ok bool) {
	for _, root := range []string{"payload", "item"} {
		if rest, ok := strings.CutPrefix(s, root); ok {
			return root, rest, true
		}
	}
	return "", "", false
}

func (b *builder) set(root, path string, v any, replace bool) {
	at := &b.tree
	if root == "item" {
		at = &b.item
	}
	if *at == nil {
		*at = map[string]any{}
	}
	m := *at
	steps := stepPattern.FindAllStringSubmatch(path, -1)
	for i, s := range steps {
		key := s[1] + s[2] + s[3]
		if i == len(steps)-1 {
			if _, there := m[key]; !there || replace {
				m[key] = v
			}
			return
		}
		next, ok := m[key].(map[string]any)
		if !ok {
			next = map[string]any{}
			m[key] = next
		}
		m = next
	}
}

// memory is the rules' state for a try.
type memory map[string][]byte

func (m memory) State(key string) []byte { return m[key] }

func (m memory) SetState(key string, v []byte) {
	if v == nil {
		delete(m, key)
		return
	}
	m[key] = slices.Clone(v)
}

func (m memory) EachState(prefix string, f func(key string, v []byte)) {
	for k, v := range m {
		if strings.HasPrefix(k, prefix) {
			f(k, v)
		}
	}
}

// wireSignal is a signal on its way from the scratch plant to the drilled agent.
type wireSignal struct {
	Tag, Topic, Position string
	Value                json.RawMessage
	At                   time.Time
}

func pack(s signal.Signal) wireSignal {
	v, err := json.Marshal(s.Value)
	if err != nil {
		v = []byte("null") // only maps, lists, texts, numbers and truth values are made
	}
	return wireSignal{s.Tag, s.Topic, s.Position, v, s.SourceTime}
}

func unpack(w wireSignal, now time.Time) (signal.Signal, error) {
	d := json.NewDecoder(strings.NewReader(string(w.Value)))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return signal.Signal{}, fmt.Errorf("read value of tag %q: %w", w.Tag, err)
	}
	return signal.Signal{Tag: w.Tag, Topic: w.Topic, Position: w.Position, Value: v, SourceTime: w.At, ReceivedTime: now}, nil
}
