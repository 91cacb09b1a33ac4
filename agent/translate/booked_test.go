package translate

import (
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// counted is the confirmations and consumptions in short, in order: "A 5 scrap S17 lot L1".
func counted(facts []*pb.Fact) string {
	var out []string
	for _, f := range facts {
		if c := f.GetProductionConfirmation(); c != nil {
			s := c.OrderNo + " " + c.Yield
			for _, p := range [][2]string{{c.Scrap, " scrap"}, {c.Rework, " rework"}, {c.ScrapReason, ""}, {c.Lot, ""}, {c.Person, ""}, {c.Serial, " no"}} {
				if p[0] != "" {
					s = strings.TrimSpace(s) + " " + p[0] + p[1]
				}
			}
			out = append(out, strings.TrimSpace(s))
		}
		if c := f.GetMaterialConsumption(); c != nil {
			out = append(out, strings.TrimSpace(c.OrderNo+" "+c.Quantity.Value+" "+c.Quantity.Unit+" of "+c.Item+" "+c.Lot))
		}
	}
	return strings.Join(out, ", ")
}

// say sends one value of a tag of the PLC, a second after the last.
func (l *line) say(tag string, v any) {
	l.t.Helper()
	l.now = l.now.Add(time.Second)
	if s, ok := v.(string); ok && tag != "order" && strings.Trim(s, "0123456789.") == "" && s != "" {
		v = num(s)
	}
	l.send("plc", signal.Signal{Tag: tag, Value: v, SourceTime: l.now})
}

func TestCountsAreClosedPerReason(t *testing.T) {
	l := newLine(t, rules(t, `
reasons:
  press: {"17": {code: S17, text: burr}, "18": {text: short}}
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: bad, rule: counter, source: plc, tag: bad, counts: scrap, work_center: w, unit: C62, reason: tags.why, reasons: press}
`))
	l.say("order", "A")
	l.say("why", "17")
	l.say("bad", "0")
	l.say("bad", "2")
	l.say("bad", "3")
	l.say("why", "18")
	l.say("bad", "7")
	l.say("why", "99")
	l.say("bad", "8")
	l.say("bad", "9")
	l.tick(time.Minute)
	if got, want := counted(l.facts), "A 3 scrap S17, A 4 scrap 18, A 2 scrap 99"; got != want {
		t.Errorf("facts are %q, want %q", got, want)
	}
	if got := codes(l.facts); got != "unknown_reason" {
		t.Errorf("told %q, want the unknown reason once", got)
	}
	for _, f := range l.facts {
		if c := f.GetProductionConfirmation(); c.GetScrapReason() == "S17" && c.GetScrapReasonText() != "burr" {
			t.Errorf("reason is %v", c)
		}
	}
}

func TestLotAndOperatorSplitWhatIsOpen(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, unit: C62, lot: tags.lot, person: "tags[\"@door/badge\"]"}
`))
	l.say("good", "0")
	l.say("lot", "L1")
	l.say("good", "4")
	l.say("lot", "L2")
	l.say("good", "9")
	l.send("door", signal.Signal{Tag: "badge", Value: "P1"})
	l.send("plc", signal.Signal{Tag: "lot", Value: "L9", Quality: signal.Bad}) // the last good one stays
	l.say("good", "10")
	l.tick(time.Minute)
	if got, want := counted(l.facts), "4 L1, 5 L2, 1 L2 P1"; got != want {
		t.Errorf("facts are %q, want %q", got, want)
	}
}

// The cavities of a mould are closed and opened while it runs; without a number of them, nothing is counted, and nothing lost.
func TestFactorThatChangesSplitsWhatIsOpen(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: good, rule: counter, source: plc, tag: shots, counts: yield, unit: C62, factor_from: tags.cavities}
`))
	l.say("cavities", "4")
	l.say("shots", "10")
	l.say("shots", "15") // 20
	l.say("cavities", "3")
	l.say("shots", "17") // 6
	l.say("cavities", "0")
	l.say("shots", "18")
	l.say("cavities", "2")
	l.say("shots", "20") // 3 shots, 6
	l.tick(time.Minute)
	if got, want := counted(l.facts), "20, 6, 6"; got != want {
		t.Errorf("facts are %q, want %q", got, want)
	}
	if got := codes(l.facts); got != "no_factor" {
		t.Errorf("told %q", got)
	}
}

func TestOneCounterOfSeveralWorkCenters(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: a, rule: state, source: plc, tag: orderA, work_center: a}
  - {name: b, rule: state, source: plc, tag: orderB, work_center: b}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, unit: C62, work_center_from: tags.switch, work_centers: {"1": a, "2": b}}
`))
	l.say("orderA", "WO-A")
	l.say("orderB", "WO-B")
	l.say("switch", "1")
	l.say("good", "0")
	l.say("good", "5")
	l.say("switch", "2")
	l.say("good", "7")
	l.say("orderA", "WO-C") // is not what runs where is counted
	l.say("good", "8")
	l.say("switch", "1")
	l.say("good", "10")
	l.say("switch", "3")
	l.say("good", "11")
	l.tick(time.Minute)
	if got, want := counted(l.facts), "WO-A 5, WO-B 3, WO-C 2, 1"; got != want {
		t.Errorf("facts are %q, want %q", got, want)
	}
	if got := codes(l.facts); got != "unknown_work_center" {
		t.Errorf("told %q", got)
	}
}

func TestFamilyMouldMakesSeveralItemsOfOneStroke(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: l, rule: state, source: plc, tag: left, work_center: left}
  - name: shots
    rule: counter
    source: plc
    tag: shots
    counts: yield
    unit: C62
    modulus: "100"
    outputs:
      - {name: left, work_center: left, item: FG-L, factor: "2"}
      - {name: right, order: tags.right, item: FG-R}
`))
	l.say("left", "A")
	l.say("right", "B")
	l.say("shots", "97")
	l.say("shots", "99")
	l.say("shots", "3")
	l.say("right", "C")
	l.say("shots", "5")
	l.say("shots", "bad")
	l.tick(time.Minute)
	if got, want := counted(l.facts), "B 6, A 16, C 2"; got != want {
		t.Errorf("facts are %q, want %q", got, want)
	}
	if got := codes(l.facts); got != "wrong_type" || len(l.quarantined) != 1 {
		t.Errorf("told %q, %d quarantined: a fault of one signal is told once", got, len(l.quarantined))
	}
}

// A rule that gets outputs while its counter runs loses no step, and none is counted twice when it loses them again.
func TestCounterGoesOnWhenItsRuleGetsOutputsAndLosesThem(t *testing.T) {
	plain := `{name: x, rule: counter, source: plc, tag: good, counts: yield, unit: C62`
	l := newLine(t, rules(t, "rules:\n  - "+plain+"}\n"))
	switchTo := func(text string) {
		tr, err := New(rules(t, text), l.tr.newKey)
		if err != nil {
			t.Fatal(err)
		}
		l.tr = tr
	}
	l.say("good", "0")
	l.say("good", "5")
	switchTo("rules:\n  - " + plain + ", outputs: [{name: a}, {name: b, factor: \"10\"}]}\n")
	l.say("good", "8")
	switchTo("rules:\n  - " + plain + "}\n")
	l.say("good", "10")
	l.tick(time.Minute)
	if got, want := counted(l.facts), "5, 3, 30, 2"; got != want {
		t.Errorf("facts are %q, want %q", got, want)
	}
}

func TestFaultsOfWhatIsBookedOnAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		`reason: tags.x`:                               `reason is for scrap and rework`,
		`lot: "tags[payload.x]"`:                       `a tag must be named literally`,
		`factor_from: tags.n, factor: "2"`:             `use one`,
		`work_center_from: tags.s`:                     `belong together`,
		`hand_over: maybe`:                             `hand_over "maybe" is none of`,
		`hand_over: by_time, lot: payload.lot`:         `lot is read from the counter's own message`,
		`outputs: [{name: a, share: 1}, {name: b}]`:    `give all of them one, or none`,
		`outputs: [{name: a}, {name: a}]`:              `needs a name of its own`,
		`outputs: [{name: a, unit: boxes}]`:            `of output "a": unit "boxes" is neither`,
		`reasons: press`:                               `"press" is not a table`,
		`close: {on_shift_end: true}`:                  `needs calendars`,
		`least: "1"`:                                   `least has no meaning in a counter rule`,
		`pseudonymise: [topic]`:                        `is not a path into the message`,
		`order: payload.o, without_order: assign_next`: `leave one out`,
	} {
		cfg := rules(t, "rules:\n  - {name: x, rule: counter, source: s, tag: t, counts: yield, unit: C62, "+text+"}\n")
		var got []string
		for _, err := range cfg.Validate(nil) {
			got = append(got, err.Error())
		}
		if !strings.Contains(strings.Join(got, "\n"), want) {
			t.Errorf("%s\n gives %q\n want %q", text, got, want)
		}
	}
}
