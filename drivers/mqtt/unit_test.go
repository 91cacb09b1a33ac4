package mqtt

import (
	"encoding/json"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

func TestSampleIsAValidConfiguration(t *testing.T) {
	env := signal.Env{Plant: "hamburg", Agent: "line1", Source: "mqtt", ConfigDir: t.TempDir()}
	for name, text := range map[string]string{"as shipped": sample, "with everything": uncommented(sample)} {
		d, err := Kind.New(env, decodeYAML(text))
		if err != nil {
			t.Fatalf("sample %s: %v", name, err)
		}
		if c := d.(*driver).config; c.KeepAlive != 20*time.Second || c.Window != 5000 || c.Batch != 1500 || c.Topics[0].MaxSize != 262144 || c.Version != mqttlink.Auto {
			t.Errorf("sample %s: the defaults in the text are not those of the code: %+v", name, c)
		}
		if d.(*driver).TakesOrders() != (name == "with everything") {
			t.Errorf("sample %s: takes orders: %v", name, d.(*driver).TakesOrders())
		}
	}
}

// uncommented turns "# key: value" lines of a sample into settings.
func uncommented(text string) string {
	return regexp.MustCompile(`(?m)^( *)# ((?:  )*[a-z_]+:(?: |$))`).ReplaceAllString(text, "$1$2")
}

func TestMistakesInTheConfigurationAreNamed(t *testing.T) {
	topics := "topics: [{tag: a, topic: a}]"
	for _, c := range []struct{ text, want string }{
		{"broker: tcp://h\nsurprise: 1\n" + topics, "surprise"},
		{"broker: tcp://u:hidden@h\n" + topics, "password_file"},
		{"broker: http://h\n" + topics, "tcp://host:1883"},
		{"broker: tcp://h\nca: x\n" + topics, "tls://"},
		{"broker: tls://h\ncert: x\n" + topics, "key"},
		{"broker: tcp://h\npassword_file: x\n" + topics, "username"},
		{"broker: tcp://h\nbatch: 10\nwindow: 5\n" + topics, "window"},
		{"broker: tcp://h", "topics"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: x/+}, {tag: b, topic: x/y}]", "overlap"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: x/#/y}]", "whole level"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: $share/g}]", "shared"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: $share/g/x, retained: use}]", "shared"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: $share/g/x/+}, {tag: b, topic: x/y}]", "overlap"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: x, format: xml}]", "xml"},
		{"broker: tcp://h\nversion: 4\n" + topics, "3.1.1"},
		{"broker: tcp://h\nsession_expiry: 1m\n" + topics, "session_expiry"},
		{"broker: tcp://h\nstatus_topic: a/+\n" + topics, "status_topic"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: 'x/{line}s'}]", "whole level"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: 'x/{line}/{line}'}]", "two levels"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: 'x/{line}', equipment: '{site}/{line}'}]", "{site}"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: x, format: csv, csv: {header: false}}]", "columns"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: x, number: {decimal: x}}]", "decimal"},
		{"broker: tcp://h\nwork_orders: {topic: o}", "ack_topic"},
		{"broker: tcp://h\nwork_orders: {topic: 'o/{machine}', ack: none}", "{machine}"},
		{"broker: tcp://h\nwork_orders: {topic: o, ack_topic: 'a/{item}'}\ntopics: [{tag: a, topic: 'a/#'}]", "overlap"},
		{"broker: tcp://h\nwork_orders: {topic: o, ack: none, words: {OK: fine}}", "fine"},
	} {
		_, err := Kind.New(signal.Env{}, decodeYAML(c.text))
		if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hidden") {
			t.Errorf("%q: error is %v, want one about %q", c.text, err, c.want)
		}
	}
}

func TestFiltersOverlapWhenSomeTopicMatchesBoth(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"a/b", "a/b", true}, {"a/b", "a/c", false}, {"a/+", "a/b", true}, {"+/b", "a/+", true}, {"a/#", "a", true}, {"a/#", "b/#", false},
		{"#", "x/y/z", true}, {"+", "x/y", false}, {"a/+/c", "a/b/+", true}, {"a/+/c", "a/b/d", false}, {"#", "$SYS/x", false}, {"$SYS/#", "$SYS/x", true},
		{"+/+", "a/#", true}, {"a", "a/+", false},
	} {
		for _, x := range [][2]string{{c.a, c.b}, {c.b, c.a}} {
			if got := overlap(strings.Split(x[0], "/"), strings.Split(x[1], "/")); got != c.want {
				t.Errorf("overlap(%q, %q) is %v", x[0], x[1], got)
			}
		}
	}
}

func TestRepetitionsAreToldFromNews(t *testing.T) {
	msg := func(id uint16, dup bool, payload string) mqttlink.Message {
		return mqttlink.Message{ID: id, Dup: dup, QoS: 1, Payload: []byte(payload)}
	}
	// take stores messages like run does and returns the payloads that are news.
	take := func(l *ledger, messages ...mqttlink.Message) string {
		var news []string
		var added []delivery
		for i := range messages {
			m := &messages[i]
			if !l.repeats(m, hash(m)) {
				news = append(news, string(m.Payload))
				added = append(added, delivery{id: m.ID, hash: hash(m)})
			}
		}
		l.add(added)
		return strings.Join(news, " ")
	}
	expect := func(got, want string) {
		t.Helper()
		if got != want {
			t.Errorf("news are %q, want %q", got, want)
		}
	}

	var l ledger // never acknowledged: exact, even for equal payloads
	l.connected(true)
	expect(take(&l, msg(1, false, "x"), msg(2, false, "x"), msg(3, false, "x")), "x x x")
	l.connected(true)
	expect(take(&l, msg(1, true, "x"), msg(2, true, "x"), msg(3, true, "x"), msg(4, true, "x"), msg(1, true, "x")), "x x")

	l = ledger{} // acknowledged, the broker gives the lowest free number: never taken for a repetition
	l.connected(true)
	expect(take(&l, msg(1, false, "x")), "x")
	l.acknowledged([]uint16{1}, 0)
	expect(take(&l, msg(1, false, "x")), "x")
	l.acknowledged([]uint16{1}, 1)
	l.connected(true)
	expect(take(&l, msg(1, true, "x")), "x")

	l = ledger{} // numbers that go on after all lower ones are free: the broker counts upward
	l.connected(true)
	expect(take(&l, msg(501, false, "x"), msg(502, false, "x")), "x x")
	if !l.cycles {
		t.Error("a broker that counts upward was not recognised")
	}
	l = ledger{} // the lowest free numbers on a new connection prove nothing
	l.connected(true)
	expect(take(&l, msg(1, true, "x"), msg(2, true, "x"), msg(3, false, "x"), msg(4, false, "x")), "x x x x")
	if l.cycles {
		t.Error("a broker that takes the lowest free number was taken for one that counts upward")
	}

	l = ledger{cycles: true} // so many that the cursor has not room for all: the oldest are news, the others are not
	l.connected(true)
	var many []mqttlink.Message
	for i := range minDurable + 2 {
		many = append(many, msg(uint16(i+1), false, fmt.Sprint(i)))
	}
	take(&l, many...)
	var ids []uint16
	for _, m := range many {
		ids = append(ids, m.ID)
	}
	l.acknowledged(ids, 0)
	for i := range many {
		many[i].Dup = true
	}
	after := newLedger(memory{Cycles: true, Unconfirmed: l.bytes(), Cut: l.durable() > 0}, 0)
	after.connected(true)
	expect(take(&after, append(many, msg(minDurable+3, true, "lost on the way"), msg(9, true, "8"))...), "0 1 lost on the way 8")

	l = ledger{cycles: true} // acknowledged, the broker counts upward: the acknowledgement was lost with the connection
	l.connected(true)
	expect(take(&l, msg(7, false, "x"), msg(8, false, "x"), msg(9, false, "x")), "x x x")
	l.acknowledged([]uint16{7, 8}, 0)
	l.forget(1)
	restarted := newLedger(memory{Cycles: true, Unconfirmed: l.bytes()}, 0)
	for _, l := range []*ledger{&l, &restarted} {
		l.connected(true)
		expect(take(l, msg(8, true, "x"), msg(9, true, "x"), msg(10, false, "x"), msg(8, true, "x")), "x x")
		l.connected(false)
		expect(take(l, msg(9, true, "x")), "x")
	}
}

// A broker that reads acknowledgements more slowly than it sends has more messages under way than there are numbers.
// TestAKilledAgentKnowsAllThatABrokerWhichHeedsTheWindowCanRepeat ends the agent when the broker has read none of the acknowledgements
// that the window allows.
func TestAKilledAgentKnowsAllThatABrokerWhichHeedsTheWindowCanRepeat(t *testing.T) {
	const window, batch = 5000, 1500
	l := newLedger(memory{Cycles: true}, window)
	l.connected(true)
	message := func(i int, dup bool) (*mqttlink.Message, uint64) {
		m := &mqttlink.Message{Topic: "x", Payload: []byte("the same"), ID: uint16(i + 1), QoS: 1, Dup: dup}
		return m, hash(m)
	}
	var stored []byte
	for from := 0; from < window; from += batch {
		var added []delivery
		var ids []uint16
		for i := from; i < min(from+batch, window); i++ {
			m, h := message(i, false)
			if l.repeats(m, h) {
				t.Fatalf("message %d is taken for a repetition", i)
			}
			added, ids = append(added, delivery{id: m.ID, hash: h}), append(ids, m.ID)
		}
		l.add(added)
		stored = l.bytes()
		l.acknowledged(ids, uint64(from))
	}
	restarted := newLedger(memory{Cycles: true, Unconfirmed: stored}, window)
	restarted.connected(true)
	for i := range window {
		if m, h := message(i, true); !restarted.repeats(m, h) {
			t.Fatalf("message %d counts twice", i)
		}
	}
}

func TestMoreRepetitionsThanThereAreNumbersAreRecognised(t *testing.T) {
	l := ledger{cycles: true}
	l.connected(true)
	message := func(i int, dup bool) (*mqttlink.Message, uint64) {
		m := &mqttlink.Message{Topic: "x", Payload: fmt.Append(nil, i), ID: uint16(i%65535 + 1), QoS: 1, Dup: dup}
		return m, hash(m)
	}
	const n = 150_000
	for from := 0; from < n; from += 1000 {
		var added []delivery
		var ids []uint16
		for i := from; i < min(from+1000, n); i++ {
			m, h := message(i, false)
			if l.repeats(m, h) {
				t.Fatalf("message %d is taken for a repetition", i)
			}
			added, ids = append(added, delivery{id: m.ID, hash: h}), append(ids, m.ID)
		}
		l.add(added)
		l.acknowledged(ids, uint64(from))
	}
	l.connected(true)
	for i := range n {
		if m, h := message(i, true); !l.repeats(m, h) {
			t.Fatalf("message %d is not recognised", i)
		}
	}
}

func TestNamedLevelsBecomeLabels(t *testing.T) {
	topic := Topic{Topic: "$share/g/{site}/x/{line}/+/#", Equipment: "{line}@{site}!", Format: "json", Retained: "skip", MaxSize: 1}
	if err := topic.validate(); err != nil {
		t.Fatal(err)
	}
	if topic.pattern.filter != "$share/g/+/x/+/+/#" || !topic.pattern.shared {
		t.Errorf("pattern is %+v", topic.pattern)
	}
	want := map[string]string{"site": "ulm", "line": "l1", "equipment": "l1@ulm!"}
	if diff := cmp.Diff(topic.pattern.labels("ulm/x/l1/a/b"), want); diff != "" {
		t.Error(diff)
	}
}

func TestPayloadsOfEveryFormat(t *testing.T) {
	header := false
	for _, c := range []struct {
		topic   Topic
		payload string
		want    string // values and problems' codes
	}{
		{Topic{Format: "number"}, " 0012.50\n", "12.50"},
		{Topic{Format: "number", Number: payload.Locale{Decimal: ",", Thousands: "."}}, "1.234,5", "1234.5"},
		{Topic{Format: "number"}, "12,5", "bad_number"},
		{Topic{Format: "number"}, "", "bad_number"},
		{Topic{Format: "number"}, "\xff", "bad_number"},
		{Topic{Format: "csv"}, "a;b\n1;2\n3;4\n", "map[a:1 b:2] map[a:3 b:4]"},
		{Topic{Format: "csv"}, "a;b\n1;2;3\n3;4\n", "bad_csv map[a:3 b:4]"},
		{Topic{Format: "csv"}, "a;b\n", "bad_csv"},
		{Topic{Format: "csv"}, "", "bad_csv"},
		{Topic{Format: "csv"}, "a,a\n1,2", "column_twice"},
		{Topic{Format: "csv", CSV: payload.CSVOptions{Header: &header, Columns: []payload.Column{{Name: "n", Type: "number"}}, Locale: payload.Locale{Decimal: ","}}}, "1,5", "bad_csv"},
		{Topic{Format: "csv", CSV: payload.CSVOptions{Header: &header, Delimiter: ";", Columns: []payload.Column{{Name: "n", Type: "number"}, {Name: "t"}}, Locale: payload.Locale{Decimal: ","}}}, "1,5;x\ny;z", "map[n:1.5 t:x] bad_value"},
		{Topic{Format: "json", Properties: true}, "5", "map[payload:5 properties:map[content_type:t correlation:c expiry_s:60 user:map[a:[1 2 3] b:x]]]"},
		{Topic{Format: "json", Properties: true}, "{", "bad_json"},
	} {
		c.topic.Tag, c.topic.MaxSize = "t", 1000
		m := &mqttlink.Message{Topic: "x", Payload: []byte(c.payload), Properties: &mqttlink.Properties{ContentType: "t", Correlation: []byte("c"), Expiry: time.Minute,
			User: []mqttlink.Property{{Name: "a", Value: "1"}, {Name: "a", Value: "2"}, {Name: "b", Value: "x"}, {Name: "a", Value: "3"}}}}
		var got []string
		for _, s := range decode(nil, m, &c.topic) {
			if s.Problem != nil {
				got = append(got, s.Problem.Code)
			} else {
				got = append(got, fmt.Sprint(s.Value))
			}
		}
		if strings.Join(got, " ") != c.want {
			t.Errorf("%q as %s: %q, want %q", c.payload, c.topic.Format, got, c.want)
		}
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{`{"a":1.50}`, `[1,2`, `nul`, ``, `"\ud800"`, `{"a":1}{"b":2}`, `1e400`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		v, problem := decodeJSON(&mqttlink.Message{Topic: "t", Payload: payload})
		if json.Valid(payload) != (problem == nil) {
			t.Fatalf("valid JSON: %v, problem: %+v", json.Valid(payload), problem)
		}
		if problem != nil {
			return
		}
		again, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		back, problem := decodeJSON(&mqttlink.Message{Payload: again})
		if diff := cmp.Diff(fmt.Sprint(v), fmt.Sprint(back)); problem != nil || diff != "" {
			t.Fatalf("problem %+v, difference %s", problem, diff)
		}
	})
}
