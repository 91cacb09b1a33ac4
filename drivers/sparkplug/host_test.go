package sparkplug

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/drivers/sparkplug/payload"
)

// bench is a host under test with a clock that only a test moves.
type bench struct {
	t    *testing.T
	h    *host
	now  time.Time
	out  output            // everything since the last look
	open map[string]string // problems that are shown: key and code
}

var testSettings = hostSettings{reorderWait: 2 * time.Second, rebirthWait: 10 * time.Second, historyWait: 0, rebirth: true, maxSize: 1 << 20}

func newBench(t *testing.T, change func(*hostSettings), metrics ...Metrics) *bench {
	t.Helper()
	if metrics == nil {
		metrics = []Metrics{{Tag: "events", Metric: "Event/**", Reports: reportsEvent}, {Tag: "values", Metric: "**"}}
	}
	for i := range metrics {
		metrics[i].fill()
	}
	s := testSettings
	if change != nil {
		change(&s)
	}
	h, err := newHost(metrics, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &bench{t: t, h: h, now: time.Date(2026, 5, 1, 8, 0, 0, 0, time.UTC), open: map[string]string{}}
}

func (b *bench) gather() {
	o := b.h.take()
	b.out.signals = append(b.out.signals, o.signals...)
	b.out.rebirths = append(b.out.rebirths, o.rebirths...)
	for key, p := range o.problems {
		delete(b.open, key)
		if p != nil {
			b.open[key] = p.Code
		}
	}
}

// wait moves the clock, calling the host when it wants to be called.
func (b *bench) wait(d time.Duration) {
	end := b.now.Add(d)
	for {
		next := b.h.next()
		if next.IsZero() || next.After(end) {
			break
		}
		if next.After(b.now) {
			b.now = next
		}
		b.h.tick(b.now)
		b.gather()
		if again := b.h.next(); !again.IsZero() && !again.After(b.now) {
			b.t.Fatalf("the host wants to be called at %s again and again", again)
		}
	}
	b.now = end
	b.h.tick(b.now)
	b.gather()
}

// send lets node g/n say something. seq is -1 for none.
func (b *bench) send(kind, device string, seq int, metrics ...payload.Metric) {
	p := payload.Payload{Timestamp: uint64(b.now.UnixMilli()), Metrics: metrics}
	if seq >= 0 {
		p.Seq, p.HasSeq = uint64(seq), true
	}
	b.deliver(kind, device, p.Encode())
}

func (b *bench) deliver(kind, device string, body []byte) {
	topic := "spBv1.0/g/" + kind + "/n"
	if device != "" {
		topic += "/" + device
	}
	b.h.receive(&message{topic: topic, payload: body, received: b.now}, b.now)
	b.gather()
}

func bdSeq(n uint64) payload.Metric {
	return payload.Metric{Name: "bdSeq", Type: payload.Int64, Value: payload.Raw{Carrier: payload.LongValue, Bits: n}}
}

func number(name string, v int32) payload.Metric {
	return payload.Metric{Name: name, Type: payload.Int32, Value: payload.Raw{Carrier: payload.IntValue, Bits: uint64(uint32(v))}}
}

func aliased(name string, alias uint64, v int32) payload.Metric {
	m := number(name, v)
	m.Alias, m.HasAlias = alias, true
	return m
}

// by is a value under its alias only, as data has it.
func by(alias uint64, v int32) payload.Metric {
	m := aliased("", alias, v)
	m.Type = payload.Unknown
	return m
}

func at(m payload.Metric, t time.Time) payload.Metric {
	m.Timestamp = uint64(t.UnixMilli())
	return m
}

func historical(m payload.Metric, t time.Time) payload.Metric {
	m = at(m, t)
	m.Historical = true
	return m
}

// said returns what has come out since the last call: "good 5", "bad 5", or the code of a problem.
func (b *bench) said() string {
	var list []string
	for _, s := range b.out.signals {
		switch {
		case s.Problem != nil:
			list = append(list, s.Problem.Code)
		default:
			list = append(list, fmt.Sprintf("%s %v", s.Quality, s.Value))
		}
	}
	b.out.signals = nil
	return strings.Join(list, ", ")
}

func (b *bench) expect(what, want string) {
	b.t.Helper()
	if got := b.said(); got != want {
		b.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (b *bench) asked(want int) {
	b.t.Helper()
	if got := len(b.out.rebirths); got != want {
		b.t.Errorf("the node was asked for its birth %d times, want %d", got, want)
	}
	b.out.rebirths = nil
}

func (b *bench) birth(n uint64, v int32) { b.send("NBIRTH", "", 0, bdSeq(n), aliased("Good", 1, v)) }

func TestBirthGivesNamesToAliases(t *testing.T) {
	b := newBench(t, nil)
	b.birth(0, 5)
	b.send("DBIRTH", "press", 1, aliased("Good", 2, 7))
	b.send("NDATA", "", 2, by(1, 6))
	b.send("DDATA", "press", 3, by(2, 8), number("Good", 9))
	var topics []string
	for _, s := range b.out.signals {
		topics = append(topics, s.Topic)
	}
	if want := []string{"g/n/Good", "g/n/press/Good", "g/n/Good", "g/n/press/Good", "g/n/press/Good"}; !slices.Equal(topics, want) {
		t.Errorf("topics are %v", topics)
	}
	b.expect("values", "good 5, good 7, good 6, good 8, good 9")
	b.asked(0)
}

// An alias belongs to the device whose birth gave it.
func TestAliasOfAnotherDeviceIsUnknown(t *testing.T) {
	b := newBench(t, nil)
	b.birth(0, 5)
	b.send("DBIRTH", "press", 1, aliased("Good", 2, 7))
	b.said()
	b.send("NDATA", "", 2, by(2, 8))
	b.expect("a value of the node under the device's alias", "")
	b.asked(1)
}

func TestNumbersGoRoundWithoutAGap(t *testing.T) {
	b := newBench(t, nil)
	b.birth(0, 0)
	b.said()
	for i := 1; i <= 600; i++ {
		b.send("NDATA", "", i%256, by(1, int32(i)))
	}
	b.wait(time.Minute)
	if got := len(b.out.signals); got != 600 {
		t.Errorf("%d of 600 values came out", got)
	}
	b.asked(0)
	if len(b.open) > 0 {
		t.Errorf("problems: %v", b.open)
	}
}

func TestOvertakenMessagesComeOutInOrder(t *testing.T) {
	b := newBench(t, nil)
	b.birth(0, 0)
	b.said()
	b.send("NDATA", "", 2, by(1, 2))
	b.send("NDATA", "", 3, by(1, 3))
	b.expect("before the first", "")
	b.wait(time.Second)
	b.send("NDATA", "", 1, by(1, 1))
	b.expect("after the first", "good 1, good 2, good 3")
	b.wait(time.Minute)
	b.asked(0)
}

func TestGapIsShownAndTheBirthAskedForOnce(t *testing.T) {
	b := newBench(t, nil)
	b.birth(0, 0)
	b.said()
	b.send("NDATA", "", 3, by(1, 3))
	b.send("NDATA", "", 4, by(1, 4))
	b.wait(1900 * time.Millisecond)
	b.expect("within the wait", "")
	b.wait(200 * time.Millisecond)
	b.expect("after the wait", "good 3, good 4")
	b.asked(1)
	if b.open["gap:g/n"] != "gap" {
		t.Errorf("problems: %v", b.open)
	}
	b.send("NDATA", "", 1, by(1, 1))
	b.expect("a message that was given up", "good 1")
	b.send("NDATA", "", 1, by(1, 1))
	b.expect("the same once more", "")
	b.birth(0, 4)
	b.wait(time.Minute)
	b.asked(0)
}

// A node that ignores requests must not be hammered with them.
func TestRequestsForABirthBackOff(t *testing.T) {
	b := newBench(t, nil)
	b.send("NDATA", "", 7, by(1, 1))
	b.asked(1)
	for i := range 100 {
		b.send("NDATA", "", 8+i, by(1, 1))
	}
	b.asked(0)
	b.wait(10 * time.Second)
	b.asked(1)
	b.wait(time.Hour - 10*time.Second)
	if n := len(b.out.rebirths); n < 10 || n > 18 {
		t.Errorf("asked %d times within an hour", n)
	}
	if b.open["birth:g/n"] != "no_birth" {
		t.Errorf("problems: %v", b.open)
	}
	b.birth(0, 1)
	if b.open["birth:g/n"] != "" {
		t.Errorf("the problem stays after the birth: %v", b.open)
	}
}

// One that answers and still sends what its birth does not have is asked ever more rarely, too.
func TestBirthThatDoesNotHelpIsNotAskedForAgainAndAgain(t *testing.T) {
	b := newBench(t, nil)
	b.birth(0, 0)
	asked, seq := 0, 1
	for range 600 {
		b.send("NDATA", "", seq, by(99, 1))
		seq++
		if len(b.out.rebirths) > 0 {
			asked, b.out.rebirths, seq = asked+1, nil, 1
			b.birth(0, 0)
		}
		seq %= 256
		b.wait(time.Second)
		if len(b.out.rebirths) > 0 {
			asked, b.out.rebirths, seq = asked+1, nil, 1
			b.birth(0, 0)
		}
	}
	if asked < 2 || asked > 10 {
		t.Errorf("asked %d times within ten minutes", asked)
	}
}

func TestDataBeforeItsBirthIsParkedAndUnderstoodThen(t *testing.T) {
	b := newBench(t, nil)
	b.send("NDATA", "", 7, by(1, 41))
	b.send("DDATA", "press", 8, by(2, 51))
	b.send("NDATA", "", 9, by(1, 42))
	b.expect("before the birth", "")
	b.asked(1)
	b.birth(3, 43)
	b.expect("after the node's birth", "good 41, good 42, good 43")
	b.send("DBIRTH", "press", 1, aliased("Good", 2, 52))
	b.expect("after the device's birth", "good 51, good 52")
}

func TestUnknownAliasParksThatValueOnly(t *testing.T) {
	b := newBench(t, nil)
	b.birth(0, 1)
	b.said()
	b.send("NDATA", "", 1, by(1, 2), by(9, 70))
	b.expect("the known value", "good 2")
	b.asked(1)
	b.send("NBIRTH", "", 0, bdSeq(0), aliased("Good", 1, 2), aliased("Scrap", 9, 71))
	b.expect("after the birth", "good 70, good 71")
}

func TestParkedDataIsBoundedAndNeverDroppedInSilence(t *testing.T) {
	b := newBench(t, nil)
	for i := range maxParked + 10 {
		b.send("NDATA", "", i%256, by(1, int32(i)))
	}
	if n := len(b.out.signals); n != 10 || b.out.signals[0].Problem.Code != "no_birth" || len(b.out.signals[0].Payload) == 0 {
		t.Errorf("%d values were put aside, want 10", n)
	}
	b.said()
	b.wait(parkAge + time.Second)
	if n := len(b.out.signals); n != maxParked {
		t.Errorf("%d values were put aside for their age, want %d", n, maxParked)
	}
	if p := b.h.nodes[nodeID{"g", "n"}]; len(p.parked) != 0 || p.parkedBytes != 0 {
		t.Errorf("%d values, %d bytes are still parked", len(p.parked), p.parkedBytes)
	}
}

// After a node's death its aliases may be given to others: what was parked must not be taken for those.
func TestParkedDataIsNotReadByTheNextSessionsNames(t *testing.T) {
	b := newBench(t, nil)
	b.send("NDATA", "", 7, by(1, 41))
	b.send("NDEATH", "", -1, bdSeq(3))
	b.send("NBIRTH", "", 0, bdSeq(4), aliased("Temperature", 1, 20))
	b.expect("the values", "no_birth, good 20")
}

func TestDeathMakesValuesBadUntilTheNextBirth(t *testing.T) {
	b := newBench(t, nil)
	b.birth(4, 5)
	b.send("DBIRTH", "press", 1, aliased("Good", 2, 7), aliased("Event/part", 3, 1))
	b.said()
	b.send("DDEATH", "press", 2)
	b.expect("the device died", "bad 7")
	b.send("NDEATH", "", -1, bdSeq(3))
	b.expect("the death of the session before", "")
	b.send("NDEATH", "", -1, bdSeq(4))
	b.expect("the node died", "bad 5")
	b.send("NDEATH", "", -1, bdSeq(4))
	b.expect("the same death again", "")
	b.wait(time.Second)
	b.birth(5, 5)
	b.expect("the same value after a new birth", "good 5")
	b.send("DBIRTH", "press", 1, aliased("Good", 2, 7))
	b.expect("the device is back", "good 7")
}

// A node restarts and its old will arrives late: the new session goes on.
func TestLateWillOfTheSessionBeforeIsIgnored(t *testing.T) {
	b := newBench(t, nil)
	b.birth(4, 5)
	b.birth(5, 6)
	b.send("NDEATH", "", -1, bdSeq(4))
	b.send("NDATA", "", 1, by(1, 7))
	b.expect("values", "good 5, good 6, good 7")
	b.asked(0)
}

// A death may overtake a birth that was under way when the node died.
func TestBirthRightAfterItsDeathIsNotBelieved(t *testing.T) {
	b := newBench(t, nil)
	b.birth(4, 5)
	b.said()
	b.send("NDEATH", "", -1, bdSeq(4))
	b.said()
	b.wait(100 * time.Millisecond)
	b.send("NBIRTH", "", 0, bdSeq(4), aliased("Good", 1, 9))
	b.expect("the overtaken birth", "")
	b.wait(5 * time.Second)
	b.asked(1)
	b.birth(4, 9)
	b.expect("the birth that was asked for", "good 9")
}

func TestRebirthTellsOnlyWhatIsNew(t *testing.T) {
	b := newBench(t, nil)
	b.birth(4, 5)
	b.said()
	b.wait(time.Second)
	b.send("NBIRTH", "", 0, bdSeq(4), aliased("Good", 1, 5), aliased("Scrap", 2, 1), number("Event/part", 3))
	b.expect("the birth told anew", "good 1")
	b.send("NDATA", "", 1, by(1, 5))
	b.expect("data is told always", "good 5")
}

// What a node stored comes after its birth. The rules get it first, in the order of time, and the present value after it.
func TestHistoryReachesTheRulesInTheOrderOfTime(t *testing.T) {
	b := newBench(t, func(s *hostSettings) { s.historyWait = 3 * time.Second })
	past := func(s int) time.Time { return b.now.Add(time.Duration(s) * time.Second) }
	b.birth(1, 39)
	b.expect("the birth waits", "")
	b.send("NDATA", "", 1, historical(by(1, 36), past(-3)), historical(by(1, 37), past(-2)))
	b.send("NDATA", "", 2, by(1, 40))
	b.wait(2 * time.Second)
	b.send("NDATA", "", 3, historical(by(1, 38), past(-3)))
	b.expect("history", "good 36, good 37, good 38")
	b.wait(2 * time.Second)
	b.expect("history may still come", "")
	b.wait(2 * time.Second)
	b.expect("the present", "good 39, good 40")
	b.send("NDATA", "", 4, by(1, 41))
	b.expect("from then on at once", "good 41")
}

func TestRepeatedHistoryIsRecognised(t *testing.T) {
	b := newBench(t, nil)
	b.birth(1, 1)
	b.said()
	when := b.now.Add(-time.Minute)
	b.send("NDATA", "", 1, historical(by(1, 5), when), historical(number("Event/part", 5), when))
	first := slices.Clone(b.out.signals)
	b.said()
	b.send("NDATA", "", 2, historical(by(1, 5), when))
	b.expect("the same history again", "")
	if len(first) == 0 || first[0].Position == "" || !first[0].SourceTime.Equal(when) {
		t.Fatalf("history has no position or not its own time: %+v", first)
	}
	// After a restart the rules know it by its position.
	again := newBench(t, nil)
	again.birth(1, 1)
	again.said()
	again.send("NDATA", "", 1, historical(by(1, 5), when))
	if got := again.out.signals[0].Position; got != first[0].Position {
		t.Errorf("position %q, then %q", first[0].Position, got)
	}
}

// A live value that is sent again as history is the same value.
func TestLiveValueThatIsFlushedAgainHasTheSamePosition(t *testing.T) {
	b := newBench(t, nil)
	b.birth(1, 1)
	when := b.now
	b.send("NDATA", "", 1, at(by(1, 5), when))
	live := b.out.signals[len(b.out.signals)-1]
	b.said()
	b.wait(time.Minute)
	b.send("NDATA", "", 2, historical(by(1, 5), when))
	b.expect("the same as history", "")
	if !strings.HasPrefix(live.Position, fmt.Sprintf("g/n/Good|%d|", when.UnixMilli())) {
		t.Errorf("position %q", live.Position)
	}
}

func TestLateHistoryIsNotCounted(t *testing.T) {
	b := newBench(t, nil, Metrics{Tag: "events", Metric: "Event/**", Reports: reportsEvent}, Metrics{Tag: "values", Metric: "**"})
	b.send("NBIRTH", "", 0, bdSeq(1), aliased("Good", 1, 39), aliased("Event/part", 2, 4))
	b.expect("the birth of an event says nothing", "good 39")
	b.send("NDATA", "", 1, historical(by(1, 5), b.now.Add(-time.Hour)), historical(by(2, 3), b.now.Add(-time.Hour)))
	b.expect("history behind newer values", "uncertain 5, good 3")
	if b.open["history:g/n"] != "late_history" {
		t.Errorf("problems: %v", b.open)
	}
	b.send("NDEATH", "", -1, bdSeq(1))
	b.expect("history is never the present value", "bad 39")
}

func TestTwoEqualEventsOfOneMessageAreTwo(t *testing.T) {
	b := newBench(t, nil)
	b.send("NBIRTH", "", 0, bdSeq(1), aliased("Event/part", 2, 4))
	b.send("NDATA", "", 1, at(by(2, 7), b.now), at(by(2, 7), b.now))
	if s := b.out.signals; len(s) != 2 || s[0].Position == s[1].Position {
		t.Errorf("got %+v", s)
	}
}

func TestQualityNullAndTransientAreTold(t *testing.T) {
	b := newBench(t, nil)
	poor := number("Good", 5)
	poor.Properties = []payload.Property{{Key: "Quality", Type: payload.Int32, Value: payload.Raw{Carrier: payload.IntValue, Bits: 0}}}
	vague := poor
	vague.Properties = []payload.Property{{Key: "quality", Type: payload.Int32, Value: payload.Raw{Carrier: payload.IntValue, Bits: 64}}}
	fine := poor
	fine.Properties = []payload.Property{{Key: "Quality", Type: payload.Int32, Value: payload.Raw{Carrier: payload.IntValue, Bits: 192}}}
	null := payload.Metric{Name: "Good", Type: payload.Int32, Null: true}
	passing := number("Good", 6)
	passing.Transient = true
	nan := payload.Metric{Name: "Temperature", Type: payload.Double, Value: payload.Raw{Carrier: payload.DoubleValue, Bits: math.Float64bits(math.NaN())}}
	b.send("NBIRTH", "", 0, bdSeq(1), poor, nan)
	b.send("NDATA", "", 1, vague, fine, null, passing)
	if s := b.out.signals[len(b.out.signals)-1].Status; s != "transient" {
		t.Errorf("status %q", s)
	}
	b.expect("values", "bad 5, bad <nil>, uncertain 5, good 5, good <nil>, good 6")
}

func TestOneBadValueLeavesItsNeighbours(t *testing.T) {
	b := newBench(t, nil)
	b.birth(1, 1)
	b.said()
	large := number("Good", 1)
	large.Type, large.Value.Bits = payload.Int8, 4000
	b.send("NDATA", "", 1, large, by(1, 2))
	if s := b.out.signals; len(s) != 2 || s[0].Tag != "values" || len(s[0].Payload) == 0 {
		t.Errorf("got %+v", s)
	}
	b.expect("values", "bad_value, good 2")
	b.deliver("NDATA", "", []byte{0xFF, 0xFF})
	b.expect("a message that is none", "bad_payload")
	b.send("NDATA", "", 2, by(1, 3))
	b.expect("the next one", "good 3")
}

func TestMissedMessagesOfARestartAreNoticed(t *testing.T) {
	b := newBench(t, nil)
	b.birth(4, 5)
	b.send("NDATA", "", 1, by(1, 6))
	cursor := b.h.cursor()
	for name, c := range map[string]struct {
		send func(*bench)
		gap  bool
	}{
		"it went on":                         {func(b *bench) { b.send("NDATA", "", 2, by(1, 7)) }, false},
		"messages are missing":               {func(b *bench) { b.send("NDATA", "", 9, by(1, 7)) }, true},
		"it was born anew":                   {func(b *bench) { b.birth(5, 7) }, false},
		"it tells the same session's birth":  {func(b *bench) { b.birth(4, 7) }, true},
		"data first, then the birth of that": {func(b *bench) { b.send("NDATA", "", 2, by(1, 7)); b.birth(4, 7) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			again := newBench(t, nil)
			var err error
			if again.h, err = newHost(again.h.rules, testSettings, cursor); err != nil {
				t.Fatal(err)
			}
			again.h.connected(again.now)
			c.send(again)
			if got := again.open["gap:g/n"] == "gap"; got != c.gap {
				t.Errorf("gap %t, want %t", got, c.gap)
			}
		})
	}
	silent := newBench(t, nil)
	silent.h, _ = newHost(silent.h.rules, testSettings, cursor)
	silent.h.connected(silent.now)
	silent.wait(time.Hour)
	silent.asked(politeAsks)
}

func TestMetricsAreChosenByGlob(t *testing.T) {
	for _, c := range []struct {
		glob, text string
		want       bool
	}{
		{"Good", "Good", true}, {"Good", "Good2", false}, {"*", "Good", true}, {"*", "Line/Good", false}, {"**", "Line/Good", true},
		{"Line/*", "Line/Good", true}, {"Line/*", "Line/1/Good", false}, {"**/Good", "Line/1/Good", true}, {"**/x*", "a/x/b/xy", true},
		{"Line ?/Good", "Line 1/Good", true}, {"Line ?/Good", "Line //Good", false}, {"*o*d", "Good", true}, {"a*b*c", "abcb", false},
		{"?", "ö", true}, {"*ö", "schö", true}, {"", "", true}, {"", "x", false}, {"**", "", true}, {"a**", "a/b/c", true}, {"*/b/**/d", "a/b/c/c/d", true},
	} {
		if got := match(c.glob, c.text); got != c.want {
			t.Errorf("match(%q, %q) = %t", c.glob, c.text, got)
		}
	}
	rules := selection{{Tag: "node", Device: noDevice, Metric: "**"}, {Tag: "press {device}", Device: "press*", Metric: "Good"}, {Tag: "{group}.{node}.{device}.{metric}", Metric: "Temp"}}
	for i := range rules {
		rules[i].fill()
	}
	for a, want := range map[address]string{
		{"g", "n", "", "Good"}: "node", {"g", "n", "press1", "Good"}: "press press1", {"g", "n", "saw", "Good"}: "",
		{"g", "n", "saw", "Temp"}: "g.n.saw.Temp", {"g", "n", "", "bdSeq"}: "", {"g", "n", "", "Node Control/Rebirth"}: "",
	} {
		if _, tag := rules.find(a); tag != want {
			t.Errorf("%s got tag %q, want %q", a, tag, want)
		}
	}
}

// A node that tells only its own birth anew has not lost its devices; one that comes back without a device has.
func TestDevicesLastAsLongAsTheirSession(t *testing.T) {
	b := newBench(t, func(s *hostSettings) { s.historyWait = time.Second })
	b.birth(4, 5)
	b.send("DBIRTH", "press", 1, aliased("Good", 2, 7))
	b.wait(2 * time.Second)
	b.expect("births", "good 5, good 7")
	b.birth(4, 5)
	b.send("DDATA", "press", 1, by(2, 8))
	b.expect("data after a birth that was told anew", "good 8")
	b.birth(5, 5)
	b.send("DDATA", "press", 1, by(2, 9))
	b.expect("data of a device that is not born in this session", "")
	b.asked(1)
	b.wait(2 * time.Second)
	b.expect("the device has not come back", "bad 8")
	b.send("DBIRTH", "press", 2, aliased("Good", 2, 9))
	b.expect("it has", "good 9")
}

func TestDevicesOfANodeAreBounded(t *testing.T) {
	b := newBench(t, nil)
	b.birth(0, 1)
	for i := range maxDevices + 5 {
		b.send("DBIRTH", fmt.Sprint("d", i), (i+1)%256, number("Good", 1))
	}
	if n := len(b.h.nodes[nodeID{"g", "n"}].devices); n != maxDevices || b.open["size:g/n"] != "too_many_metrics" {
		t.Errorf("%d devices, problems %v", n, b.open)
	}
}
