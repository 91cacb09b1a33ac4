package translate

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"pgregory.net/rapid"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// shop is a counter, all that its counts are booked on, and what truly was made under each.
type shop struct {
	tags    map[string]string
	raw     int64
	pending int64 // steps that no factor counted yet
	made    map[string]decimal.Decimal
}

// count books a step as the rules of TestEachCountIsBookedOnWhatHeldAtItsTime say in words.
func (s *shop) count(step int64) {
	s.raw += step
	// right: each stroke makes one part on the order that the tag names.
	s.add("right "+s.tags["right"]+"//", step)
	// left: parts on the order of the line that the switch shows, of this lot, by the cavities that are open.
	s.pending += step
	factor := map[string]int64{"1": 1, "2": 2, "4": 4}[s.tags["cavities"]]
	if factor == 0 {
		return
	}
	order := map[string]string{"1": s.tags["order1"], "2": s.tags["order2"]}[s.tags["line"]]
	s.add("left "+order+"/"+s.tags["lot"]+"/"+s.tags["badge"], s.pending*factor)
	s.pending = 0
}

func (s *shop) add(key string, n int64) { s.made[key] = s.made[key].Add(decimal.NewFromInt(n)) }

// However order, lot, operator, line and cavities change between the values of a counter, and whatever is delivered again or
// lost in between, each count is booked once, on what held at its time.
func TestEachCountIsBookedOnWhatHeldAtItsTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr, err := New(rules(t, `
rules:
  - {name: one, rule: state, source: plc, tag: order1, work_center: w1}
  - {name: two, rule: state, source: plc, tag: order2, work_center: w2}
  - name: strokes
    rule: counter
    source: plc
    tag: strokes
    counts: yield
    unit: C62
    outputs:
      - {name: right, order: tags.right}
      - {name: left, factor_from: tags.cavities, lot: tags.lot, item: FG-L}
    work_center_from: tags.line
    work_centers: {"1": w1, "2": w2}
    close: {quantity: "25"}
`), keys())
		if err != nil {
			t.Fatal(err)
		}
		s := &shop{tags: map[string]string{}, made: map[string]decimal.Decimal{}}
		st, now, sum := memory{}, noon, map[string]decimal.Decimal{}
		take := func(res Result) {
			for _, f := range decodeFacts(t, res) {
				if c := f.GetProductionConfirmation(); c != nil {
					_, output, _ := strings.Cut(c.CounterRange.Tag, "#")
					key := output + " " + c.OrderNo + "/" + c.Lot + "/" + c.Person
					sum[key] = sum[key].Add(decimal.RequireFromString(c.Yield))
				}
			}
		}
		send := func(tag string, v any) {
			now = now.Add(time.Second)
			b := signal.Batch{Source: "plc", Signals: []signal.Signal{{Tag: tag, Value: v, SourceTime: now}}}
			if rapid.IntRange(0, 4).Draw(t, "transaction lost") == 0 {
				tr.Translate(maps.Clone(st), now, b)
			}
			take(tr.Translate(st, now, b))
			if rapid.IntRange(0, 4).Draw(t, "redelivered") == 0 {
				take(tr.Translate(st, now, b))
			}
		}
		send("strokes", num("0"))
		for range rapid.IntRange(1, 40).Draw(t, "events") {
			what := rapid.SampledFrom([]string{"strokes", "strokes", "order1", "order2", "right", "line", "lot", "cavities"}).Draw(t, "what")
			if what == "strokes" {
				s.count(rapid.Int64Range(0, 9).Draw(t, "step"))
				send("strokes", num(fmt.Sprint(s.raw)))
				continue
			}
			v := rapid.SampledFrom([]string{"1", "2", "4", ""}).Draw(t, "value")
			if s.tags[what] = v; what == "cavities" {
				send(what, num(v + "0")[:max(len(v), 1)])
				continue
			}
			send(what, v)
		}
		take(tr.Tick(st, now.Add(time.Hour)))
		for key := range s.made {
			if !sum[key].Equal(s.made[key]) {
				t.Fatalf("%q: %s in facts, %s made; all made %v, all in facts %v", key, sum[key], s.made[key], s.made, sum)
			}
		}
		for key := range sum {
			if _, ok := s.made[key]; !ok {
				t.Fatalf("%q: %s in facts, none made", key, sum[key])
			}
		}
	})
}

func TestExpressionsReadLabelsAndOtherTags(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - name: r
    rule: record
    source: broker
    tag: row
    fact: quality_status
    fields: {status: payload, order_no: labels.line, lot: "has(labels.site) ? labels.site + '/' + labels.line : 'none'", serial: "has(tags.ctx) ? string(tags.ctx.no) : 'none'", reason: "tags[\"@plc/x y\"]"}
`))
	send := func(source, tag string, v any, labels map[string]string) {
		l.send(source, signal.Signal{Tag: tag, Value: v, Labels: labels, Position: fmt.Sprint(len(l.facts))})
	}
	send("broker", "row", "OK", map[string]string{"line": "press1"})
	send("broker", "ctx", map[string]any{"no": num("007")}, nil)
	send("plc", "x y", "why", nil)
	send("broker", "row", "OK", map[string]string{"line": "press2", "site": "ulm"})
	var got []string
	for _, f := range l.facts {
		q := f.GetQualityStatus()
		got = append(got, q.GetOrderNo()+" "+q.GetLot()+" "+q.GetSerial()+" "+q.GetReason())
	}
	if s := strings.Join(got, ", "); s != "press1 none none , press2 ulm/press2 7 why" {
		t.Errorf("facts are %q; quarantined %v", s, l.quarantined)
	}
}

func TestSourcesThatFeedOthersAreNamed(t *testing.T) {
	tr, err := New(rules(t, `
rules:
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, unit: C62, work_center: w, lot: "tags[\"@lab/lot\"]"}
  - {name: order, rule: state, source: mes, tag: order, work_center: w}
  - {name: other, rule: state, source: far, tag: order, work_center: elsewhere}
  - {name: temp, rule: reading, source: lab, tag: temp}
`), keys())
	if err != nil {
		t.Fatal(err)
	}
	for of, want := range map[string]string{"plc": "lab mes plc", "mes": "mes", "far": "far", "lab": "lab"} {
		if got := strings.Join(tr.Feeds([]string{of}), " "); got != want {
			t.Errorf("%s is fed by %q, want %q", of, got, want)
		}
	}
}
