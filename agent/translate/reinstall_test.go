package translate

import (
	"bytes"
	"maps"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// An agent that is installed from nothing reads the counters before it reaches the hub, which knows them from the agent that
// was here before: what the hub holds is not counted again, what was made between is, on the order, and no person is needed.
func TestAgentInstalledAnewCountsNothingTwiceThoughTheHubIsLate(t *testing.T) {
	cfg := rules(t, `
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: w, unit: C62, close: {every: 5s, quantity: "10"}}
  - {name: zero, rule: counter, source: plc, tag: zero, counts: scrap, work_center: w, unit: C62, start_from_zero: true, close: {every: 5s}}
`)
	cfg.AwaitHub = true
	l := newLine(t, cfg)
	say := func(tag string, v any) []*pb.Fact { return l.send("plc", signal.Signal{Tag: tag, Value: v}) }
	say("order", "WO-1")
	var early []*pb.Fact
	for _, n := range []string{"1040", "1045", "1060"} {
		early = append(early, say("good", num(n))...)
		early = append(early, say("zero", num("70"))...)
		early = append(early, l.tick(time.Minute)...)
	}
	if len(early) > 0 {
		t.Errorf("%d facts were made before the hub was heard, the first: %v", len(early), early[0])
	}
	marks := []*pb.SourceMark{
		{Source: "plc", Tag: "good", Epoch: "20250101T000000-ABCD.1", CounterTo: "1030"},
		{Source: "plc", Tag: "zero", Epoch: "20250101T000000-EFGH.1", CounterTo: "65"},
	}
	facts := l.take(l.tr.ResumeFrom(l.st, l.now, marks))
	facts = append(facts, l.tick(time.Minute)...)
	got := map[string]string{}
	for _, f := range facts {
		if c := f.GetProductionConfirmation(); c != nil {
			got[c.CounterRange.Tag] += c.OrderNo + " " + c.Yield + c.Scrap + " from " + c.CounterRange.From + " to " + c.CounterRange.To
		}
	}
	if want := "WO-1 30 from 1030 to 1060"; got["good"] != want {
		t.Errorf("good: %q, want %q", got["good"], want)
	}
	if want := "WO-1 5 from 65 to 70"; got["zero"] != want {
		t.Errorf("zero: %q, want %q", got["zero"], want)
	}
}

// The agent before went on for a while after the new one had begun, and the counter rolled over between the two.
func TestAgentInstalledAnewBeforeARolloverJoinsTheHubsMarkBehindIt(t *testing.T) {
	cfg := rules(t, `
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: w, unit: C62, modulus: "65536", close: {every: 5s}}
`)
	cfg.AwaitHub = true
	l := newLine(t, cfg)
	say := func(tag string, v any) { l.send("plc", signal.Signal{Tag: tag, Value: v}) }
	say("order", "WO-1")
	say("good", num("65533"))
	say("good", num("10"))
	marks := []*pb.SourceMark{{Source: "plc", Tag: "good", Epoch: "20250101T000000-ABCD.1", CounterTo: "65540"}} // shown as 4
	facts := append(l.take(l.tr.ResumeFrom(l.st, l.now, marks)), l.tick(time.Minute)...)
	got := ""
	for _, f := range facts {
		if c := f.GetProductionConfirmation(); c != nil {
			got += c.Yield + " from " + c.CounterRange.From + " to " + c.CounterRange.To
		}
	}
	if want := "6 from 65540 to 65546"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// An agent restored from a copy closes a longer range at a value at which it closed before. The hub must get both, to take
// from the second what it does not know of it: under one key the second would be a conflict.
func TestRangesThatEndAtOneValueAreTwoFacts(t *testing.T) {
	cfg := rules(t, `
rules:
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, unit: C62, close: {every: 5s}}
`)
	l := newLine(t, cfg)
	say := func(n string) { l.send("plc", signal.Signal{Tag: "good", Value: num(n)}) }
	say("0")
	say("10")
	before := maps.Clone(l.st)
	l.tick(time.Minute) // (0, 10]
	say("20")
	first := l.tick(time.Minute) // (10, 20]
	l.st = before
	say("20")
	second := l.tick(time.Minute) // (0, 20]
	if len(first) != 1 || len(second) != 1 {
		t.Fatalf("%d and %d facts, want one each", len(first), len(second))
	}
	if bytes.Equal(first[0].Key, second[0].Key) {
		t.Errorf("%v and %v have one key", first[0], second[0])
	}
}

// An agent installed from nothing was copied before it had heard the hub, and is restored to that copy: what it saw last is
// older than the hub's mark, which says that the agent counted on, and not that the counter was set back.
func TestCopyOfANewAgentResumesBehindWhatItSawLast(t *testing.T) {
	cfg := rules(t, `
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: w, unit: C62, close: {every: 5s}}
`)
	cfg.AwaitHub = true
	l := newLine(t, cfg)
	say := func(tag string, v any) { l.send("plc", signal.Signal{Tag: tag, Value: v}) }
	say("order", "WO-1")
	say("good", num("694"))
	say("good", num("741"))
	marks := []*pb.SourceMark{{Source: "plc", Tag: "good", Epoch: "20250101T000000-ABCD.1", CounterTo: "749"}}
	facts := l.take(l.tr.ResumeFrom(l.st, l.now, marks))
	say("good", num("761"))
	got := ranges(append(facts, l.tick(time.Minute)...))
	if want := "12 from 749 to 761"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// The same shortly before a rollover that the hub's mark lies behind: what was seen here is a little behind the mark, not most of
// a round ahead of it.
func TestCopyOfANewAgentFromBeforeARolloverCountsNoRound(t *testing.T) {
	cfg := rules(t, `
rules:
  - {name: order, rule: state, source: plc, tag: order, work_center: w}
  - {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: w, unit: C62, modulus: "65536", close: {every: 5s}}
`)
	cfg.AwaitHub = true
	l := newLine(t, cfg)
	say := func(tag string, v any) { l.send("plc", signal.Signal{Tag: tag, Value: v}) }
	say("order", "WO-1")
	say("good", num("65534"))
	say("good", num("65535"))
	marks := []*pb.SourceMark{{Source: "plc", Tag: "good", Epoch: "20250101T000000-ABCD.1", CounterTo: "65542"}}
	facts := l.take(l.tr.ResumeFrom(l.st, l.now, marks))
	say("good", num("8"))
	got := ranges(append(facts, l.tick(time.Minute)...))
	if want := "2 from 65542 to 65544"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// ranges says what confirmations count, and of which counter values.
func ranges(facts []*pb.Fact) (text string) {
	for _, f := range facts {
		if c := f.GetProductionConfirmation(); c != nil {
			text += c.Yield + " from " + c.CounterRange.From + " to " + c.CounterRange.To
		}
	}
	return text
}
