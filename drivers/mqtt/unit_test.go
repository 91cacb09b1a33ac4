package mqtt

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/linekeeper/linekeeper/agent/signal"
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
	msg := func(id uint16, dup bool, payload string) message {
		return message{id: id, dup: dup, qos: 1, payload: []byte(payload)}
	}
	// take stores messages like run does and returns the payloads that are news.
	take := func(l *ledger, messages ...message) string {
		var news []string
		var added []delivery
		for i := range messages {
			m := &messages[i]
			if !l.repeats(m, m.hash()) {
				news = append(news, string(m.payload))
				added = append(added, delivery{id: m.id, hash: m.hash()})
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

// pieces is a connection that gives a stream in reads of at most size bytes, then ends.
type pieces struct {
	net.Conn
	stream []byte
	size   int
}

func (c *pieces) Read(p []byte) (int, error) {
	if len(c.stream) == 0 {
		return 0, io.EOF
	}
	n := copy(p, c.stream[:min(c.size, len(c.stream))])
	c.stream = c.stream[n:]
	return n, nil
}

// TestMessagesLeaveTheStream sends messages between other packets, cut in all ways: messages are delivered as they were
// sent, the library sees the rest byte for byte, and each answer to a ping counts once.
func TestMessagesLeaveTheStream(t *testing.T) {
	long := bytes.Repeat([]byte{pingrespPacket, 0}, 50_000) // looks like answers, and is longer than the buffer
	var stream, rest []byte
	var want []message
	other := func(p ...byte) { stream, rest = append(stream, p...), append(rest, p...) }
	publish := func(first byte, m message) {
		want = append(want, m)
		body := append(binary.BigEndian.AppendUint16(nil, uint16(len(m.topic))), m.topic...)
		if m.qos > 0 {
			body = binary.BigEndian.AppendUint16(body, m.id)
		}
		body = append(body, m.payload...)
		stream = append(stream, first)
		for n := len(body); ; n >>= 7 {
			if n < 0x80 {
				stream = append(append(stream, byte(n)), body...)
				return
			}
			stream = append(stream, byte(n)|0x80)
		}
	}
	other(0x20, 2, 1, 0)
	publish(0x32, message{topic: "a/b", qos: 1, id: 0x1234, payload: []byte("x")})
	other(pingrespPacket, 0)
	publish(0x3B, message{topic: "a/b", qos: 1, id: 1, dup: true, retained: true, payload: long})
	publish(0x30, message{topic: strings.Repeat("t", 65535), payload: []byte{}})
	other(0x90, 3, 0, 7, 1)
	other(pingrespPacket, 0)
	for _, size := range []int{1, 2, 3, 5, 7, 1000, 65536, len(stream)} {
		var got []message
		l := newLink(&pieces{stream: stream, size: size}, time.Minute, func(m message) {
			m.received = time.Time{}
			got = append(got, m)
		})
		l.note(1)
		l.note(1)
		passed, err := io.ReadAll(l)
		if err != nil || !bytes.Equal(passed, rest) {
			t.Errorf("pieces of %d bytes: the library sees %x, %v, want %x", size, passed, err, rest)
		}
		if acked, confirmed := l.progress(); acked != 2 || confirmed != 2 {
			t.Errorf("pieces of %d bytes: acknowledged %d, read %d", size, acked, confirmed)
		}
		for i := range got {
			got[i].freed = false
		}
		if diff := cmp.Diff(want, got, cmp.AllowUnexported(message{})); diff != "" {
			t.Errorf("pieces of %d bytes: %s", size, diff)
		}
	}
}

func TestMistakesInTheStreamEndTheConnection(t *testing.T) {
	for name, stream := range map[string]string{
		"a length without end":           "\x32\xff\xff\xff\xff\x01",
		"a topic longer than its packet": "\x32\x05\x00\x09a\x00\x01",
		"no room for a number":           "\x32\x04\x00\x01a\x00",
		"an unknown quality of service":  "\x36\x05\x00\x01a\x00\x01",
		"an end in a header":             "\x32",
		"an end in a message":            "\x32\x09\x00\x01a\x00\x01x",
	} {
		l := newLink(&pieces{stream: []byte(stream), size: 3}, time.Minute, func(m message) { t.Errorf("%s: message %+v", name, m) })
		if passed, err := io.ReadAll(l); err == nil || len(passed) > 0 {
			t.Errorf("%s: the library sees %x, error %v", name, passed, err)
		}
	}
}

// FuzzStream reads anything as a stream of packets: whatever comes is passed on, delivered or refused, in bounded memory.
func FuzzStream(f *testing.F) {
	f.Add([]byte("\x20\x02\x00\x00\x32\x06\x00\x01a\x00\x01x\xd0\x00"))
	f.Add([]byte("\x32\xff\xff\xff\x7f\x00\x01a"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		bytes := 0
		l := newLink(&pieces{stream: stream, size: 4}, time.Minute, func(m message) { bytes += len(m.topic) + len(m.payload) })
		passed, _ := io.Copy(io.Discard, l)
		if int(passed)+bytes > len(stream) {
			t.Fatalf("%d bytes passed on and %d delivered of %d", passed, bytes, len(stream))
		}
	})
}

func TestAcknowledgementsAreOneWriteAndCountAsReadAfterThePing(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	l := newLink(here, time.Minute, func(m message) { t.Errorf("message %+v", m) })
	defer l.Close()
	go func() {
		buffer := make([]byte, 10)
		io.ReadFull(there, buffer)
		there.Write(append(buffer[:0], 0x20, 0, pingrespPacket, 0))
	}()
	if n, err := l.acknowledge([]uint16{1, 0x1234}); n != 2 || err != nil {
		t.Fatal(n, err)
	}
	if _, err := io.ReadFull(l, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	if acked, confirmed := l.progress(); acked != 2 || confirmed != 2 {
		t.Errorf("acknowledged %d, read %d", acked, confirmed)
	}
}

func FuzzDecodeJSON(f *testing.F) {
	for _, s := range []string{`{"a":1.50}`, `[1,2`, `nul`, ``, `"\ud800"`, `{"a":1}{"b":2}`, `1e400`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		v, problem := decodeJSON(&message{topic: "t", payload: payload})
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
		back, problem := decodeJSON(&message{payload: again})
		if diff := cmp.Diff(fmt.Sprint(v), fmt.Sprint(back)); problem != nil || diff != "" {
			t.Fatalf("problem %+v, difference %s", problem, diff)
		}
	})
}
