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
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

func TestSiloThatGetsLighterIsConsumptionAndARefillIsNone(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: silo, rule: weight, source: plc, tag: kg, counts: consumed, item: RM-PE, work_center: w, unit: KGM, least: "0.5", refill: "20", decimals: 1, lot: tags.lot}
`))
	l.say("order", "A")
	l.say("lot", "L1")
	for _, v := range []string{"500.0", "499.8", "500.1", "499.3", "499.4", "490.0"} { // noise, then 10
		l.say("kg", v)
	}
	l.say("lot", "L2")
	l.say("kg", "700.2")
	l.say("kg", "699.1") // 1.1
	l.say("order", "B")
	l.say("kg", "698.6") // 0.5
	l.tick(time.Minute)
	if got, want := counted(l.facts), "A 10 KGM of RM-PE L1, A 1.1 KGM of RM-PE L2, B 0.5 KGM of RM-PE L2"; got != want {
		t.Errorf("facts are %q\nwant %q", got, want)
	}
}

// A dosing scale is filled and emptied; what is still falling, and what swings, is waited for, and the last weighing is told
// though the scale says no more.
func TestWeighingsCountWhenTheScaleStandsStill(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: dose, rule: weight, source: plc, tag: g, counts: consumed, item: RM-DYE, unit: KGM, factor: "0.001", weighs: gain, least: "2", stable_for: 3s, stable_within: "0.4", tare: tags.tare, close: {every: 1h}}
`))
	l.say("tare", "100")
	for _, v := range []string{"100.0", "100.1", "100.0", "100.1", "130.0", "145.0", "150.0", "150.2", "150.1", "150.2", "150.3"} {
		l.say("g", v)
	}
	first := counted(l.facts)
	l.say("g", "100.1") // emptied
	for range 4 {
		l.say("g", "100.2")
	}
	l.say("g", "125.2")
	l.tick(2 * time.Second)
	before := counted(l.facts)
	l.tick(time.Second)
	if want := "0.0501 KGM of RM-DYE"; first != want {
		t.Errorf("the first weighing is %q, want %q", first, want)
	}
	if got, want := strings.TrimPrefix(counted(l.facts), before+", "), "0.025 KGM of RM-DYE"; got != want || before != first {
		t.Errorf("the second weighing is %q (and before it %q), want %q", got, before, want)
	}
}

func TestWeightsThatComeAgainAfterARestartAreNotCountedAgain(t *testing.T) {
	l := newLine(t, rules(t, `rules: [{name: silo, rule: weight, source: plc, tag: kg, counts: consumed, item: RM, unit: KGM, least: "1"}]`))
	var said []signal.Signal
	for i, v := range []string{"500", "480", "470", "600", "590"} {
		said = append(said, signal.Signal{Tag: "kg", Value: num(v), SourceTime: noon.Add(time.Duration(i) * time.Second)})
	}
	for range 3 {
		for _, s := range said {
			l.send("plc", s)
		}
	}
	l.tick(time.Minute)
	if got, want := counted(l.facts), "40 KGM of RM"; got != want {
		t.Errorf("facts are %q, want %q", got, want)
	}
}

// An agent set back to an older copy counts what goes from a silo exactly once in the hub; where the silo was filled in the
// lost time, it says that it cannot know.
func TestScaleOfARestoredAgentIsTrimmedByTheHub(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		tr, err := New(rules(t, `rules: [{name: silo, rule: weight, source: plc, tag: kg, counts: consumed, item: RM, unit: KGM, least: "1", close: {quantity: "15"}}]`), keys())
		if err != nil {
			t.Fatal(err)
		}
		l := &line{tr: tr, st: memory{}, now: noon}
		kg, gone := int64(5000), int64(0)
		known, sum := map[string]decimal.Decimal{}, decimal.Decimal{} // epoch: up to
		take := func(res Result) {
			for _, f := range decodeFacts(t, res) {
				c := f.GetMaterialConsumption()
				if c == nil {
					continue
				}
				r := c.CounterRange
				from, to := decimal.RequireFromString(r.From), decimal.RequireFromString(r.To)
				if upTo := decimal.Max(from, known[r.Epoch]); to.GreaterThan(upTo) {
					sum, known[r.Epoch] = sum.Add(to.Sub(upTo)), to
				}
			}
		}
		drop := func() {
			n := rapid.Int64Range(1, 9).Draw(t, "kg")
			kg, gone, l.now = kg-n, gone+n, l.now.Add(time.Second)
			take(tr.Translate(l.st, l.now, signal.Batch{Source: "plc", Signals: []signal.Signal{{Tag: "kg", Value: num(fmt.Sprint(kg)), SourceTime: l.now}}}))
		}
		drop()
		gone = 0 // the baseline
		for range rapid.IntRange(0, 9).Draw(t, "before") {
			drop()
		}
		copied := memory(maps.Clone(l.st))
		for range rapid.IntRange(0, 9).Draw(t, "lost") {
			drop()
		}
		if rapid.Bool().Draw(t, "all sent") {
			take(tr.Tick(l.st, l.now.Add(time.Hour)))
		}
		l.st = copied
		for range rapid.IntRange(0, 3).Draw(t, "offline") {
			drop()
		}
		var marks []*pb.SourceMark
		for epoch, to := range known {
			marks = append(marks, &pb.SourceMark{Source: "plc", Tag: "kg", Epoch: epoch, CounterTo: to.String()})
		}
		take(tr.ResumeFrom(l.st, l.now, marks))
		drop()
		take(tr.Tick(l.st, l.now.Add(time.Hour)))
		if !sum.Equal(decimal.NewFromInt(gone)) {
			t.Fatalf("%d kg are gone, the hub holds %s", gone, sum)
		}
	})
}

func TestSiloFilledInTheTimeThatWasLostIsTold(t *testing.T) {
	l := newLine(t, rules(t, `rules: [{name: silo, rule: weight, source: plc, tag: kg, counts: consumed, item: RM, unit: KGM, least: "1", close: {every: 1s}}]`))
	l.say("kg", "500")
	copied := memory(maps.Clone(l.st))
	l.say("kg", "480")
	sent := l.tick(time.Minute)[0].GetMaterialConsumption().CounterRange
	l.st = copied
	l.take(l.tr.ResumeFrom(l.st, l.now, []*pb.SourceMark{{Source: "plc", Tag: "kg", Epoch: sent.Epoch, CounterTo: sent.To}}))
	l.say("kg", "900")
	l.say("kg", "890")
	after := l.tick(time.Minute)
	r := after[len(after)-1].GetMaterialConsumption().GetCounterRange()
	if codes(l.facts) != "weight_gap" || r.GetEpoch() == sent.Epoch || r.GetTo() != "10" {
		t.Errorf("told %q; the next range is %v, the one before %v", codes(l.facts), r, sent)
	}
}

func TestScannedPieceCountsOnceHoweverOftenItIsScanned(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: scan, rule: serial, source: plc, tag: scan, work_center: w, item: FG, lot: tags.lot, when: payload != 'NOREAD'}
`))
	scan := func(v any) { l.send("plc", signal.Signal{Tag: "scan", Value: v}) }
	l.say("order", "A")
	l.say("lot", "L1")
	for _, v := range []any{"0042", "0042", "", nil, "NOREAD", "42", num("42"), "0043"} {
		scan(v)
	}
	l.say("lot", "L2")
	l.say("order", "B")
	scan("0042")
	scan("0044")
	if got, want := counted(l.facts), "A 1 L1 0042 no, A 1 L1 42 no, A 1 L1 0043 no, B 1 L2 0044 no"; got != want {
		t.Errorf("facts are %q, want %q", got, want)
	}
	if got := codes(l.facts); got != "" {
		t.Errorf("told %q", got)
	}
}
