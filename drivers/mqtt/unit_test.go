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
)

func TestSampleIsAValidConfiguration(t *testing.T) {
	env := signal.Env{Plant: "hamburg", Agent: "line1", Source: "mqtt", ConfigDir: t.TempDir()}
	for name, text := range map[string]string{"as shipped": sample, "with everything": uncommented(sample)} {
		d, err := Kind.New(env, decodeYAML(text))
		if err != nil {
			t.Fatalf("sample %s: %v", name, err)
		}
		if c := d.(*driver).config; c.KeepAlive != 20*time.Second || c.Window != 5000 || c.Batch != 1500 || c.Topics[0].MaxSize != 262144 {
			t.Errorf("sample %s: the defaults in the text are not those of the code: %+v", name, c)
		}
	}
}

// uncommented turns "# key: value" lines of a sample into settings.
func uncommented(text string) string {
	return regexp.MustCompile(`(?m)^( *)# ([a-z_]+: )`).ReplaceAllString(text, "$1$2")
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
		{"broker: tcp://h\ntopics: [{tag: a, topic: $share/g/x}]", "shared"},
		{"broker: tcp://h\ntopics: [{tag: a, topic: x, format: xml}]", "xml"},
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

	l = ledger{cycles: true} // acknowledged, the broker counts upward: the acknowledgement was lost with the connection
	l.connected(true)
	expect(take(&l, msg(7, false, "x"), msg(8, false, "x"), msg(9, false, "x")), "x x x")
	l.acknowledged([]uint16{7, 8}, 0)
	l.forget(1)
	restarted := newLedger(memory{Cycles: true, Unconfirmed: l.bytes()})
	for _, l := range []*ledger{&l, &restarted} {
		l.connected(true)
		expect(take(l, msg(8, true, "x"), msg(9, true, "x"), msg(10, false, "x"), msg(8, true, "x")), "x x")
		l.connected(false)
		expect(take(l, msg(9, true, "x")), "x")
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
