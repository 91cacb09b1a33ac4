package translate

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/linekeeper/linekeeper/agent/signal"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// plant is a machine with its order and its MES, and what truly was made on each order.
type plant struct {
	raw, modulus int64
	order        string
	clock        time.Time
	rows         int
	made         map[string]decimal.Decimal
	factor       decimal.Decimal
}

func (p *plant) add(order string, q decimal.Decimal) { p.made[order] = p.made[order].Add(q) }

// next is one thing that happens, as the driver tells it.
func (p *plant) next(t *rapid.T) signal.Signal {
	p.clock = p.clock.Add(time.Duration(rapid.IntRange(1, 20).Draw(t, "seconds")) * time.Second)
	s := signal.Signal{Tag: "good", SourceTime: p.clock, ReceivedTime: p.clock}
	switch what := rapid.IntRange(0, 11).Draw(t, "what"); {
	case what == 0:
		p.order = rapid.SampledFrom([]string{"", "A", "B", "C"}).Draw(t, "order")
		s.Tag, s.Value = "order", p.order
		return s
	case what == 1:
		p.rows++
		n := rapid.Int64Range(0, 5000).Draw(t, "milli")
		p.add("R", decimal.New(n, -3))
		s.Tag, s.Value, s.Position = "row", map[string]any{"order": "R", "n": num(decimal.New(n, -3).StringFixed(3))}, fmt.Sprint(p.rows)
		return s
	case what == 2 && p.modulus == 0 && p.raw > 0:
		p.raw = rapid.Int64Range(0, p.raw/2).Draw(t, "reset to")
		p.add(p.order, decimal.NewFromInt(p.raw).Mul(p.factor))
	case what == 3:
		s.Value = rapid.SampledFrom([]any{num("NaN"), "text", num("-4"), nil, num("0.5")}).Draw(t, "bad")
		return s
	case what == 4:
		s.Value, s.Quality = num("123"), signal.Bad
		return s
	default:
		most := int64(400)
		if p.modulus > 0 {
			most = p.modulus / 2
		}
		step := rapid.Int64Range(0, most).Draw(t, "step")
		p.raw += step
		p.add(p.order, decimal.NewFromInt(step).Mul(p.factor))
		if p.modulus > 0 {
			p.raw %= p.modulus
		}
	}
	s.Value = num(fmt.Sprint(p.raw))
	return s
}

const onceRules = `
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: w, unit: C62, factor: "%s", start_from_zero: true, without_order: hold, decimals: %d%s, close: {every: 30s%s}}
  - {name: row, rule: record, source: plc, tag: row, fact: production_confirmation, fields: {order_no: payload.order, yield: payload.n, unit: "'C62'"}}
`

func drawPlant(t *rapid.T) (*plant, Config) {
	p := &plant{clock: noon, made: map[string]decimal.Decimal{}}
	p.modulus = rapid.SampledFrom([]int64{0, 0, 1000, 65536}).Draw(t, "modulus")
	factor := rapid.SampledFrom([]string{"1", "2", "0.25", "0.3333"}).Draw(t, "factor")
	p.factor = decimal.RequireFromString(factor)
	extra, quantity := "", ""
	if p.modulus > 0 {
		extra = fmt.Sprintf(`, modulus: "%d"`, p.modulus)
	}
	if rapid.Bool().Draw(t, "by quantity") {
		quantity = `, quantity: "250"`
	}
	return p, rules(t, fmt.Sprintf(onceRules, factor, rapid.IntRange(0, 4).Draw(t, "decimals"), extra, quantity))
}

// No split into batches, no lost transaction and no second delivery changes what is booked on any order.
func TestNothingIsLostOrDoubledByCrashesAndRedelivery(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, cfg := drawPlant(t)
		tr, err := New(cfg, keys())
		if err != nil {
			t.Fatal(err)
		}
		st, seen, sum := memory{}, map[string]bool{}, map[string]decimal.Decimal{}
		take := func(res Result) {
			for _, f := range res.Facts {
				m := &pb.Fact{}
				if err := proto.Unmarshal(f.Body, m); err != nil {
					t.Fatal(err)
				}
				if seen[string(m.Key)] {
					t.Fatalf("key of %v came twice", m)
				}
				seen[string(m.Key)] = true
				if c := m.GetProductionConfirmation(); c != nil {
					q, err := decimal.NewFromString(c.Yield)
					if c.Yield != "" && err != nil {
						t.Fatal(err)
					}
					sum[c.OrderNo] = sum[c.OrderNo].Add(q)
				}
			}
		}
		for range rapid.IntRange(1, 25).Draw(t, "batches") {
			b := signal.Batch{Source: "plc"}
			for range rapid.IntRange(1, 8).Draw(t, "signals") {
				b.Signals = append(b.Signals, p.next(t))
			}
			for range rapid.IntRange(0, 2).Draw(t, "lost transactions") {
				tr.Translate(maps.Clone(st), p.clock, b)
			}
			take(tr.Translate(st, p.clock, b))
			if rapid.IntRange(0, 3).Draw(t, "redelivered") == 0 {
				take(tr.Translate(st, p.clock.Add(time.Second), b))
			}
			if rapid.Bool().Draw(t, "tick") {
				tr.Tick(maps.Clone(st), p.clock)
				take(tr.Tick(st, p.clock))
			}
			checkLedger(t, tr, st, p, sum)
		}
		take(tr.Tick(st, p.clock.Add(time.Hour)))
		checkLedger(t, tr, st, p, sum)
		if due := tr.NextTick(st); !due.IsZero() && !due.After(p.clock) {
			t.Fatalf("all is closed, but a tick is due at %v", due)
		}
	})
}

// checkLedger compares, per order: truly made = counted = stored + open + rest of rounding, and stored = sum of the facts.
func checkLedger(t *rapid.T, tr *Translator, st memory, p *plant, sum map[string]decimal.Decimal) {
	counted, stored, open := map[string]decimal.Decimal{}, map[string]decimal.Decimal{}, map[string]decimal.Decimal{}
	for _, r := range tr.Ledger(st) {
		counted[r.OrderNo] = counted[r.OrderNo].Add(decimal.RequireFromString(r.Counted))
		stored[r.OrderNo] = stored[r.OrderNo].Add(decimal.RequireFromString(r.Stored))
	}
	st.EachState(prefixLedger, func(key string, v []byte) {
		k, _ := parseRowKey(key)
		r, err := decodeRow(v)
		if err != nil {
			t.Fatal(err)
		}
		open[k.order] = open[k.order].Add(r.rest.decimal())
	})
	w := tr.begin(st, p.clock)
	for _, key := range keysUnder(st, prefixCounter) {
		if o := w.counters.get(st, key).v.Open; o != nil {
			open[o.Booked.Order] = open[o.Booked.Order].Add(o.Qty)
		}
	}
	for _, order := range []string{"", "A", "B", "C", "R"} {
		if !counted[order].Equal(p.made[order]) {
			t.Fatalf("order %q: made %s, counted %s", order, p.made[order], counted[order])
		}
		if !stored[order].Equal(sum[order]) || !counted[order].Equal(stored[order].Add(open[order])) {
			t.Fatalf("order %q: counted %s, stored %s, in facts %s, open %s", order, counted[order], stored[order], sum[order], open[order])
		}
	}
}

// hub holds ranges of counters the way the hub does: what it knows is trimmed.
type hub struct {
	keys  map[string]bool
	marks map[string]decimal.Decimal // epoch: up to
	order []string                   // epochs as they came
	total decimal.Decimal
}

func (h *hub) take(t *rapid.T, facts []Fact) {
	for _, f := range facts {
		m := &pb.Fact{}
		if err := proto.Unmarshal(f.Body, m); err != nil {
			t.Fatal(err)
		}
		c := m.GetProductionConfirmation()
		if c == nil || h.keys[string(m.Key)] {
			continue
		}
		h.keys[string(m.Key)] = true
		e := c.CounterRange.Epoch
		from, to := decimal.RequireFromString(c.CounterRange.From), decimal.RequireFromString(c.CounterRange.To)
		if mark, known := h.marks[e]; known && from.LessThan(mark) {
			from = decimal.Min(mark, to)
		} else if !known {
			h.order = append(h.order, e)
		}
		h.total = h.total.Add(to.Sub(from))
		h.marks[e] = decimal.Max(h.marks[e], to)
	}
}

func (h *hub) sourceMarks(t *rapid.T) []*pb.SourceMark {
	var marks []*pb.SourceMark
	for _, e := range rapid.Permutation(h.order).Draw(t, "order of marks") {
		marks = append(marks, &pb.SourceMark{Source: "plc", Tag: "good", Epoch: e, CounterTo: h.marks[e].String()})
	}
	return marks
}

// A restored snapshot and a lost state neither lose nor double a count, as long as the counter itself only counts.
func TestRestoredOrLostStateResumesFromTheHub(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		modulus := rapid.SampledFrom([]int64{0, 1000}).Draw(t, "modulus")
		extra := ""
		if modulus > 0 {
			extra = `, modulus: "1000"`
		}
		tr, err := New(rules(t, `rules: [{name: good, rule: counter, source: plc, tag: good, counts: yield, unit: C62, start_from_zero: true, close: {quantity: "40"}`+extra+`}]`), keys())
		if err != nil {
			t.Fatal(err)
		}
		h := &hub{keys: map[string]bool{}, marks: map[string]decimal.Decimal{}}
		st, now, total, made := memory{}, noon, int64(0), int64(0)
		var pending []Fact
		count := func() {
			step := rapid.Int64Range(0, 30).Draw(t, "step")
			total, made, now = total+step, made+step, now.Add(time.Second)
			raw := total
			if modulus > 0 {
				raw %= modulus
			}
			s := signal.Signal{Tag: "good", Value: num(fmt.Sprint(raw)), SourceTime: now, ReceivedTime: now}
			pending = append(pending, tr.Translate(st, now, signal.Batch{Source: "plc", Signals: []signal.Signal{s}}).Facts...)
		}
		online := func() {
			pending = append(pending, tr.ResumeFrom(st, now, h.sourceMarks(t)).Facts...)
			h.take(t, pending)
			pending = nil
		}
		total = rapid.Int64Range(1, 400).Draw(t, "first")
		made = total
		count()
		snapshot, unsent := memory(maps.Clone(st)), slices.Clone(pending)
		online()
		some := func(what string) {
			for range rapid.IntRange(0, 9).Draw(t, what) {
				count()
			}
		}
		for range rapid.IntRange(1, 4).Draw(t, "accidents") {
			some("before")
			online()
			lost := false
			switch rapid.IntRange(0, 2).Draw(t, "accident") {
			case 0: // the machine is set back to an older copy, after its last facts were sent or before
				if rapid.Bool().Draw(t, "last facts sent") {
					h.take(t, append(pending, tr.Tick(st, now.Add(time.Hour)).Facts...))
				}
				st, pending = maps.Clone(snapshot), slices.Clone(unsent)
				some("offline after the restore")
			case 1: // the data folder is lost after all of it was sent, and the agent starts anew
				h.take(t, append(pending, tr.Tick(st, now.Add(time.Hour)).Facts...))
				st, pending, lost = memory{}, nil, true
				if len(h.order) == 0 {
					t.Skip("the hub knows nothing yet")
				}
				if !rapid.Bool().Draw(t, "hub first") {
					total, made, now = total+3, made+3, now.Add(time.Second)
					raw := total
					if modulus > 0 {
						raw %= modulus
					}
					cfg := rules(t, `rules: [{name: good, rule: counter, source: plc, tag: good, counts: yield, unit: C62, close: {quantity: "40"}`+extra+`}]`)
					plain, err := New(cfg, tr.newKey)
					if err != nil {
						t.Fatal(err)
					}
					plain.Translate(st, now, signal.Batch{Source: "plc", Signals: []signal.Signal{{Tag: "good", Value: num(fmt.Sprint(raw)), SourceTime: now, ReceivedTime: now}}})
					some("offline after the loss")
				}
			case 2:
				some("not sent yet")
				snapshot, unsent = maps.Clone(st), slices.Clone(pending)
			}
			online()
			if lost {
				// A copy from before a loss names no epoch that began after it: that is for the hub's check of generations.
				snapshot, unsent = maps.Clone(st), nil
			}
		}
		some("after")
		count()
		online()
		h.take(t, tr.Tick(st, now.Add(time.Hour)).Facts)
		if got := h.total.String(); got != fmt.Sprint(made) {
			var log strings.Builder
			for _, e := range h.order {
				fmt.Fprintf(&log, " %s up to %s", e, h.marks[e])
			}
			t.Fatalf("made %d, the hub holds %s:%s", made, got, log.String())
		}
	})
}
