package drill

import (
	"bytes"
	"cmp"
	"slices"
	"sync"

	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// ledger is what took effect at the receiver.
type ledger struct {
	blind bool // sabotage: a record takes effect as often as it comes

	mu         sync.Mutex
	effects    map[factkey.Key]int
	rule       map[factkey.Key]string
	body       map[factkey.Key][]byte
	counters   map[counterKey]*covered
	exceptions map[string]int
	duplicates int
	conflicts  int
	trimmed    int
	readings   int
}

// counterKey is one epoch of one counter.
type counterKey struct{ source, tag, epoch string }

// covered is what is known of an epoch.
type covered struct {
	spans    []span
	received decimal.Decimal // steps that took effect, repeated ones included
	quantity decimal.Decimal
	changed  int
}

// span is the counter values (from, to].
type span struct{ from, to decimal.Decimal }

func newLedger() *ledger {
	return &ledger{effects: map[factkey.Key]int{}, rule: map[factkey.Key]string{}, body: map[factkey.Key][]byte{},
		counters: map[counterKey]*covered{}, exceptions: map[string]int{}}
}

// take stores one record of the business stream and says what the agent is told of it; zero for nothing.
func (l *ledger) take(record []byte) (kind pb.Verdict_Kind, reason string) {
	var f pb.Fact
	if err := proto.Unmarshal(record, &f); err != nil {
		return pb.Verdict_KIND_UNREADABLE, err.Error()
	}
	key, err := factkey.FromBytes(f.GetKey())
	if err != nil {
		return pb.Verdict_KIND_UNREADABLE, err.Error()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if old, ok := l.body[key]; ok && !l.blind {
		if bytes.Equal(old, content(&f)) {
			l.duplicates++
			return pb.Verdict_KIND_DUPLICATE, "known"
		}
		l.conflicts++
		return pb.Verdict_KIND_CONFLICT, "another fact is stored under this key"
	}
	l.body[key] = content(&f)
	l.rule[key] = f.GetHeader().GetRule()
	if e := f.GetSourceException(); e != nil {
		l.exceptions[e.GetCode()]++
		return 0, ""
	}
	if r := counterRange(&f); r != nil {
		l.takeRange(f.GetHeader().GetSource(), r, amount(&f))
		return 0, ""
	}
	l.effects[key]++
	return 0, ""
}

// content is a fact without the times of its recording: what tells the same fact again from another one.
func content(f *pb.Fact) []byte {
	f = proto.Clone(f).(*pb.Fact)
	if f.Header != nil {
		f.Header.RecordedAt = nil
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(f)
	if err != nil {
		return nil // it was decoded a moment ago
	}
	return b
}

func counterRange(f *pb.Fact) *pb.CounterRange {
	if c := f.GetProductionConfirmation().GetCounterRange(); c != nil {
		return c
	}
	return f.GetMaterialConsumption().GetCounterRange()
}

func amount(f *pb.Fact) decimal.Decimal {
	sum := decimal.Decimal{}
	c := f.GetProductionConfirmation()
	for _, text := range []string{c.GetYield(), c.GetScrap(), c.GetRework(), f.GetMaterialConsumption().GetQuantity().GetValue()} {
		if d, err := decimal.NewFromString(cmp.Or(text, "0")); err == nil {
			sum = sum.Add(d)
		}
	}
	return sum
}

// rangeOf says whether a record is a confirmation of the tag's counter.
func rangeOf(record []byte, tag string) (*pb.CounterRange, bool) {
	var f pb.Fact
	if err := proto.Unmarshal(record, &f); err != nil {
		return nil, false
	}
	r := counterRange(&f)
	return r, r.GetTag() == tag
}

// takeRange lets of a confirmation take effect what is not known of its counter.
func (l *ledger) takeRange(source string, r *pb.CounterRange, qty decimal.Decimal) {
	k := counterKey{source, r.GetTag(), r.GetEpoch()}
	c := l.counters[k]
	if c == nil {
		c = &covered{}
		l.counters[k] = c
	}
	from, err1 := decimal.NewFromString(r.GetFrom())
	to, err2 := decimal.NewFromString(r.GetTo())
	if err1 != nil || err2 != nil || !to.GreaterThan(from) {
		return
	}
	x := span{from, to}
	whole, free := to.Sub(from), c.free(x)
	if !free.Equal(whole) {
		l.trimmed++
	}
	if l.blind {
		free = whole
	}
	c.received = c.received.Add(free)
	c.quantity = c.quantity.Add(qty.Mul(free).DivRound(whole, 12))
	c.add(x)
	c.changed = len(l.body)
}

func (c *covered) free(x span) decimal.Decimal {
	free := x.to.Sub(x.from)
	for _, p := range c.spans {
		if o := decimal.Min(p.to, x.to).Sub(decimal.Max(p.from, x.from)); o.IsPositive() {
			free = free.Sub(o)
		}
	}
	return free
}

func (c *covered) add(x span) {
	c.spans = append(c.spans, x)
	slices.SortFunc(c.spans, func(a, b span) int { return cmp.Or(a.from.Cmp(b.from), a.to.Cmp(b.to)) })
	out := c.spans[:1]
	for _, p := range c.spans[1:] {
		last := &out[len(out)-1]
		if p.from.GreaterThan(last.to) {
			out = append(out, p)
		} else {
			last.to = decimal.Max(last.to, p.to)
		}
	}
	c.spans = out
}

func (c *covered) unique() decimal.Decimal {
	sum := decimal.Decimal{}
	for _, p := range c.spans {
		sum = sum.Add(p.to.Sub(p.from))
	}
	return sum
}

// marks tell an agent how far each counter is known.
func (l *ledger) marks() (list []*pb.SourceMark) {
	l.mu.Lock()
	defer l.mu.Unlock()
	type mark struct {
		m  *pb.SourceMark
		at int
	}
	var all []mark
	for k, c := range l.counters {
		if len(c.spans) > 0 {
			top := c.spans[len(c.spans)-1].to
			all = append(all, mark{&pb.SourceMark{Source: k.source, Tag: k.tag, Epoch: k.epoch, CounterTo: top.String()}, c.changed})
		}
	}
	slices.SortFunc(all, func(a, b mark) int { return cmp.Compare(a.at, b.at) })
	for _, a := range all {
		list = append(list, a.m)
	}
	return list
}

// size changes with everything that arrives.
func (l *ledger) size() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.body) + l.duplicates + l.conflicts
}

// Count is one line of a tally. All numbers but Unit's are counts of steps, rows or messages.
type Count struct {
	Rule     string `json:"rule"`
	Source   string `json:"source"`
	Tag      string `json:"tag"`
	Kind     string `json:"kind"`
	Counted  int64  `json:"counted"`
	Stored   int64  `json:"stored"`
	Received int64  `json:"received"`
	Lost     int64  `json:"lost"`
	Doubled  int64  `json:"doubled"`
	// Fault says that the quantity of a counter's confirmations is not that of its steps.
	Fault string `json:"fault,omitempty"`
}

// tally compares the scratch plant with the receiver.
func tally(m *machine, l *ledger) []Count {
	m.mu.Lock()
	defer m.mu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []Count
	byRule := map[*driven]*Count{}
	for _, d := range m.plan.tags {
		if d.Kind != "order" && d.Kind != "reading" {
			list = append(list, Count{Rule: d.Rule, Source: d.Source, Tag: d.Tag, Kind: d.Kind})
		}
	}
	i := 0
	for _, d := range m.plan.tags {
		if d.Kind != "order" && d.Kind != "reading" {
			byRule[d] = &list[i]
			i++
		}
	}
	for _, c := range m.meters {
		l.tallyMeter(c, byRule[c.d])
	}
	expected := map[factkey.Key]bool{}
	for _, s := range m.sources {
		for _, e := range s.entries {
			l.tallyEntry(e, byRule[e.d], expected)
		}
	}
	l.tallyStrangers(m.plan.tags, byRule, expected)
	return list
}

func (l *ledger) tallyMeter(m *meter, row *Count) {
	received, unique, quantity := decimal.Decimal{}, decimal.Decimal{}, decimal.Decimal{}
	for k, c := range l.counters {
		if k.source == m.d.Source && k.tag == m.d.Tag {
			received, unique, quantity = received.Add(c.received), unique.Add(c.unique()), quantity.Add(c.quantity)
		}
	}
	row.Counted, row.Stored, row.Received = m.total, m.stored, received.IntPart()
	row.Lost = max(0, m.total-unique.IntPart())
	row.Doubled = received.Sub(unique).IntPart() + max(0, unique.IntPart()-m.total)
	if want := received.Mul(m.d.factor()); quantity.Sub(want).Abs().GreaterThan(m.d.tolerance()) {
		row.Fault = "confirmed " + quantity.String() + " units for " + received.String() + " steps, expected " + want.String()
	}
}

// tolerance is what rounding may still hold back for the next fact.
func (d *driven) tolerance() decimal.Decimal {
	if d.rule.Decimals == nil {
		return decimal.New(1, -6)
	}
	return decimal.New(1, -int32(*d.rule.Decimals))
}

func (l *ledger) tallyEntry(e *entry, row *Count, expected map[factkey.Key]bool) {
	row.Counted++
	if e.stored {
		row.Stored++
	}
	there := true
	for _, k := range e.keys {
		expected[k] = true
		n := l.effects[k]
		there = there && n > 0
		row.Doubled += int64(max(0, n-1))
	}
	if there {
		row.Received++
	} else {
		row.Lost++
	}
}

// tallyStrangers finds facts of a driven rule under keys that none of its entries has: the same entry under a second key.
func (l *ledger) tallyStrangers(tags []*driven, byRule map[*driven]*Count, expected map[factkey.Key]bool) {
	for _, d := range tags {
		row := byRule[d]
		if row == nil || d.Kind == "counter" {
			continue
		}
		for k, n := range l.effects {
			if l.rule[k] == d.Rule && !expected[k] {
				row.Doubled += int64(n)
			}
		}
	}
}
