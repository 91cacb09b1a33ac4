package translate

import (
	"fmt"
	"maps"
	"math/big"
	"testing"
	"time"

	"github.com/shopspring/decimal"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/linekeeper/linekeeper/agent/signal"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// interleaving is a counter and an order tag that change in any order, and whose the counts are by each way to hand over.
type interleaving struct {
	mode        string
	order, held string // that runs now, and ran at the last value
	raw         int64
	clock, then time.Time
	changes     []change // since the last value
	made        map[string]int64
}

type change struct {
	at    time.Time
	order string
}

func (i *interleaving) turnTo(order string) {
	if i.order != order {
		i.order = order
		i.changes = append(i.changes, change{i.clock, order})
	}
}

// count adds a step as the rule's words say it should be, worked out in fractions.
func (i *interleaving) count(step int64) {
	i.raw += step
	switch i.mode {
	case "next":
		i.made[i.order] += step
	case "last":
		i.made[i.held] += step
	case "by_time":
		done, owner := int64(0), i.held
		for _, c := range i.changes {
			upTo := roundHalfEven(big.NewRat(step*int64(c.at.Sub(i.then)), int64(i.clock.Sub(i.then))))
			i.made[owner] += upTo - done
			done, owner = upTo, c.order
		}
		i.made[owner] += step - done
	}
	i.held, i.then, i.changes = i.order, i.clock, nil
}

func roundHalfEven(r *big.Rat) int64 {
	twice := new(big.Int).Mul(r.Num(), big.NewInt(2))
	twice.Add(twice, r.Denom())
	q, rest := new(big.Int).DivMod(twice, new(big.Int).Mul(r.Denom(), big.NewInt(2)), new(big.Int))
	if rest.Sign() == 0 && q.Bit(0) == 1 {
		q.Sub(q, big.NewInt(1))
	}
	return q.Int64()
}

// However counts and orders follow each other, each count is on the order that the rule's hand_over names, and none is lost or
// booked twice, also when batches are delivered again.
func TestHandOverBooksEachCountOnTheOrderThatTheRuleNames(t *testing.T) {
	for _, mode := range []string{"next", "last", "by_time"} {
		t.Run(mode, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) { checkHandOver(t, mode) })
		})
	}
}

func checkHandOver(t *rapid.T, mode string) {
	quantity := ""
	if rapid.Bool().Draw(t, "by quantity") {
		quantity = `, close: {quantity: "7"}`
	}
	tr, err := New(rules(t, fmt.Sprintf(`
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: w, unit: C62, hand_over: %s%s}
`, mode, quantity)), keys())
	if err != nil {
		t.Fatal(err)
	}
	i := &interleaving{mode: mode, clock: noon, then: noon, made: map[string]int64{}}
	st, sum := memory{}, map[string]int64{}
	take := func(res Result) {
		for _, f := range res.Facts {
			m := &pb.Fact{}
			if err := proto.Unmarshal(f.Body, m); err != nil {
				t.Fatal(err)
			}
			if c := m.GetProductionConfirmation(); c != nil {
				sum[c.OrderNo] += decimal.RequireFromString(c.Yield).IntPart()
			}
		}
	}
	send := func(s signal.Signal) {
		s.SourceTime = i.clock
		b := signal.Batch{Source: "plc", Signals: []signal.Signal{s}}
		if rapid.IntRange(0, 5).Draw(t, "transaction lost") == 0 {
			tr.Translate(maps.Clone(st), i.clock, b)
		}
		take(tr.Translate(st, i.clock, b))
		if rapid.IntRange(0, 5).Draw(t, "redelivered") == 0 {
			take(tr.Translate(st, i.clock, b))
		}
	}
	send(signal.Signal{Tag: "good", Value: num("0")})
	for range rapid.IntRange(1, 30).Draw(t, "events") {
		i.clock = i.clock.Add(time.Duration(rapid.IntRange(1, 20000).Draw(t, "ms")) * time.Millisecond)
		if rapid.Bool().Draw(t, "order") {
			i.turnTo(rapid.SampledFrom([]string{"", "A", "B", "C"}).Draw(t, "no"))
			send(signal.Signal{Tag: "order", Value: i.order})
		} else {
			i.count(rapid.Int64Range(0, 20).Draw(t, "step"))
			send(signal.Signal{Tag: "good", Value: num(fmt.Sprint(i.raw))})
		}
		if rapid.IntRange(0, 3).Draw(t, "tick") == 0 {
			take(tr.Tick(st, i.clock))
		}
	}
	take(tr.Tick(st, i.clock.Add(time.Hour)))
	for _, no := range []string{"", "A", "B", "C"} {
		if sum[no] != i.made[no] {
			t.Fatalf("order %q has %d in facts, want %d", no, sum[no], i.made[no])
		}
	}
}

// What comes late for an order that is over is confirmed at once: nothing of it would come any more.
func TestLateCountsOfAnOrderThatIsOverAreConfirmedAtOnce(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: w, unit: C62, hand_over: last, close: {every: 8h}}
`))
	l.say("order", "A")
	l.say("good", "0")
	l.say("order", "B")
	l.say("good", "4")
	if got, want := said(l.facts), "A started, B started, A +4"; got != want {
		t.Errorf("facts are %s, want %s", got, want)
	}
}

// Clocks of two machines differ: a change that seems to lie before the last value, or after the new one, still divides the step
// into parts that add up.
func TestChangesOutsideOfAStepsTimeDivideItAtItsEnds(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: order, rule: state, source: mes, tag: order, work_center: w}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: w, unit: C62, hand_over: by_time}
`))
	send := func(source, tag string, v any, second int) {
		l.send(source, signal.Signal{Tag: tag, Value: v, SourceTime: noon.Add(time.Duration(second) * time.Second)})
	}
	send("mes", "order", "A", 0)
	send("plc", "good", num("0"), 100)
	send("mes", "order", "B", 40) // all of the step is B's
	send("plc", "good", num("10"), 110)
	send("mes", "order", "C", 200) // none of the step is C's
	send("plc", "good", num("17"), 120)
	send("mes", "order", "D", 125) // half and half
	send("plc", "good", num("27"), 130)
	l.tick(time.Minute)
	if got, want := counted(l.facts), "B 10, B 7, C 5, D 5"; got != want {
		t.Errorf("facts are %q, want %q", got, want)
	}
}

// By time, a step over the end of a shift is divided at it.
func TestHandOverByTimeDividesAtTheEndOfAShift(t *testing.T) {
	l := newLine(t, rules(t, threeShifts+`
rules:
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, unit: C62, hand_over: by_time, close: {every: 8h, on_shift_end: true}}
`))
	l.now = time.Date(2026, 3, 2, 13, 50, 0, 0, berlin(t))
	for _, v := range []string{"0", "30"} {
		l.send("plc", signal.Signal{Tag: "good", Value: num(v), SourceTime: l.now})
		l.now = l.now.Add(15 * time.Minute)
	}
	l.tick(9 * time.Hour)
	got := ""
	for _, f := range l.facts {
		got += f.Header.Shift + " " + f.GetProductionConfirmation().GetYield() + " "
	}
	if got != "early 20 late 10 " {
		t.Errorf("facts are %s", got)
	}
}

// shareHub stores what the hub would: per output the positions that it knows, from which overlaps are trimmed.
type shareHub struct {
	spans map[string][2]decimal.Decimal // tag, epoch: from 0 on without a gap
	sum   map[string]decimal.Decimal    // tag
}

func (h *shareHub) take(t *rapid.T, facts []Fact) {
	for _, f := range facts {
		m := &pb.Fact{}
		if err := proto.Unmarshal(f.Body, m); err != nil {
			t.Fatal(err)
		}
		c := m.GetProductionConfirmation()
		if c == nil {
			continue
		}
		r := c.CounterRange
		from, to, qty := decimal.RequireFromString(r.From), decimal.RequireFromString(r.To), decimal.RequireFromString(c.Yield)
		if !qty.Equal(to.Sub(from).Mul(decimal.NewFromInt(2))) {
			t.Fatalf("range %s to %s holds %s: the hub could not divide it", from, to, qty)
		}
		known, ok := h.spans[r.Tag+" "+r.Epoch]
		if !ok {
			known = [2]decimal.Decimal{from, from}
		}
		if from.GreaterThan(known[1]) {
			t.Fatalf("%s: positions %s to %s are missing", r.Tag, known[1], from)
		}
		if to.GreaterThan(known[1]) {
			h.sum[r.Tag] = h.sum[r.Tag].Add(to.Sub(known[1]).Mul(decimal.NewFromInt(2)))
			known[1] = to
		}
		h.spans[r.Tag+" "+r.Epoch] = known
	}
}

// Steps that are dealt out to several orders add up at any time, each order gets its share to within one step, and an agent that
// went back in time, or began anew, neither loses nor doubles a step of any.
func TestSharesAddUpAndAreTrimmedExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var shares []int
		outputs, sum := "", 0
		for i := range rapid.IntRange(1, 4).Draw(t, "outputs") {
			n := rapid.IntRange(1, 7).Draw(t, "share")
			shares, sum = append(shares, n), sum+n
			outputs += fmt.Sprintf("{name: o%d, order: \"'WO-%d'\", share: %d, factor: \"2\"}, ", i, i, n)
		}
		modulus := rapid.SampledFrom([]int64{0, 1000}).Draw(t, "modulus")
		extra := `, close: {quantity: "` + rapid.SampledFrom([]string{"1", "5", "20"}).Draw(t, "close") + `"}`
		if modulus > 0 {
			extra += fmt.Sprintf(`, modulus: "%d"`, modulus)
		}
		const rule = `rules: [{name: x, rule: counter, source: plc, tag: good, counts: yield, unit: C62, outputs: [`
		tr, err := New(rules(t, rule+outputs+`], start_from_zero: true`+extra+`}]`), keys())
		if err != nil {
			t.Fatal(err)
		}
		anew, err := New(rules(t, rule+outputs+`]`+extra+`}]`), tr.newKey)
		if err != nil {
			t.Fatal(err)
		}
		inForce := tr
		h := &shareHub{spans: map[string][2]decimal.Decimal{}, sum: map[string]decimal.Decimal{}}
		st, now, raw := memory{}, noon, rapid.SampledFrom([]int64{1, 7, 500, 980}).Draw(t, "first")
		var pending []Fact // made before the hub was heard: its marks come first
		count := func() {
			raw, now = raw+rapid.Int64Range(0, 11).Draw(t, "step"), now.Add(time.Second)
			shown := raw
			if modulus > 0 {
				shown %= modulus
			}
			s := signal.Signal{Tag: "good", Value: num(fmt.Sprint(shown)), SourceTime: now, ReceivedTime: now}
			facts := inForce.Translate(st, now, signal.Batch{Source: "plc", Signals: []signal.Signal{s}}).Facts
			if pending = append(pending, facts...); inForce == tr {
				h.take(t, pending)
				pending = nil
			}
		}
		count()
		h.take(t, tr.Tick(st, now.Add(time.Hour)).Facts)
		snapshot := memory(maps.Clone(st))
		for range rapid.IntRange(0, 3).Draw(t, "accidents") {
			for range rapid.IntRange(0, 12).Draw(t, "values") {
				count()
			}
			switch rapid.IntRange(0, 2).Draw(t, "accident") {
			case 0:
				st = maps.Clone(snapshot)
			case 1:
				h.take(t, tr.Tick(st, now.Add(time.Hour)).Facts)
				if len(h.sum) < len(shares) {
					break // the hub has nothing yet of one of them: what it is due then is lost with the data
				}
				st, snapshot = memory{}, nil
				inForce = anew
				for range rapid.IntRange(0, 3).Draw(t, "before the hub is heard") {
					count()
				}
				inForce = tr
			}
			h.take(t, append(pending, tr.ResumeFrom(st, now, h.marks()).Facts...))
			pending = nil
			if snapshot == nil || rapid.Bool().Draw(t, "snapshot") {
				snapshot = maps.Clone(st)
			}
		}
		count()
		h.take(t, tr.Tick(st, now.Add(time.Hour)).Facts)
		checkShares(t, h, shares, sum, raw)
	})
}

func (h *shareHub) marks() (marks []*pb.SourceMark) {
	for key, span := range h.spans {
		var tag, epoch string
		fmt.Sscan(key, &tag, &epoch)
		marks = append(marks, &pb.SourceMark{Source: "plc", Tag: tag, Epoch: epoch, CounterTo: span[1].String()})
	}
	return marks
}

func checkShares(t *rapid.T, h *shareHub, shares []int, sum int, raw int64) {
	total := decimal.Decimal{}
	for i, n := range shares {
		got := h.sum[fmt.Sprintf("good#o%d", i)]
		total = total.Add(got)
		fair := decimal.NewFromInt(2*raw*int64(n)).DivRound(decimal.NewFromInt(int64(sum)), 9)
		if got.Sub(fair).Abs().GreaterThan(decimal.NewFromInt(int64(2*len(shares)) * (1 + raw/1000))) {
			t.Fatalf("output %d of shares %v has %s of %d steps, which is not near %s", i, shares, got, raw, fair)
		}
	}
	if !total.Equal(decimal.NewFromInt(2 * raw)) {
		t.Fatalf("the outputs have %s in sum, want %d", total, 2*raw)
	}
}

// The part of an output grows with the position and adds up with the others' at each, also between whole steps.
func TestPositionsOfASharePointBothWays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.IntRange(1, 9), 1, 5).Draw(t, "weights")
		sum := 0
		for _, n := range weights {
			sum += n
		}
		at := decimal.New(rapid.Int64Range(0, 500_000).Draw(t, "thousandths"), -3)
		more := at.Add(decimal.New(rapid.Int64Range(0, 5000).Draw(t, "more"), -3))
		total := decimal.Decimal{}
		modulus := decimal.NewFromInt(rapid.SampledFrom([]int64{0, 100, 111}).Draw(t, "modulus"))
		for i, p := range deal(weights, sum, modulus) {
			of := p.of(at)
			total = total.Add(of)
			if p.of(more).LessThan(of) {
				t.Fatalf("output %d goes back from %s at %s to %s at %s", i, of, at, p.of(more), more)
			}
			if back := p.at(of); back.GreaterThan(at) || !p.of(back).Equal(of) {
				t.Fatalf("output %d: %s at %s is found again at %s, where it is %s", i, of, at, back, p.of(back))
			}
		}
		if !total.Equal(at) {
			t.Fatalf("at %s the outputs have %s", at, total)
		}
	})
}
