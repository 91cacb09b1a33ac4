package sparkplug

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// startAgent runs a real agent around this driver.
func startAgent(t *testing.T, dir, section string, rules []translate.Rule) (a *agent.Agent, stop func()) {
	t.Helper()
	cfg := agent.Config{
		Plant: "ulm", Agent: "line1", TimeZone: "Europe/Berlin", DataDir: filepath.Join(dir, "data"), Listen: "127.0.0.1:0",
		Buffer: agent.BufferConfig{DiskReserve: -1}, Path: filepath.Join(dir, "agent.yaml"), Rules: rules,
		Sources: []agent.SourceConfig{{Name: "edge", Kind: Kind.Name, Decode: decodeYAML(section)}},
	}
	a, err := agent.New(cfg, agent.Options{Version: "test", Kinds: []signal.Kind{Kind}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the agent ended with %v", err)
		}
	}
	t.Cleanup(stop)
	return a, stop
}

// stored reads one of a stopped agent's buffers.
func stored(t *testing.T, dir, name string) (bodies [][]byte) {
	t.Helper()
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(dir, "data", name), DiskReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	for after := uint64(0); ; {
		list, err := b.Read(after, 1000, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		if len(list) == 0 {
			return bodies
		}
		for _, e := range list {
			bodies, after = append(bodies, e.Body), e.Seq
		}
	}
}

func facts(t *testing.T, dir string) (list []*pb.Fact) {
	for _, b := range stored(t, dir, "business") {
		f := &pb.Fact{}
		if err := proto.Unmarshal(b, f); err != nil {
			t.Fatal(err)
		}
		list = append(list, f)
	}
	return list
}

// edgeCase is a value as the edge node's library takes it, and as the agent must have stored it.
type edgeCase struct {
	name, kind string
	value      any
	want       string
}

func long(s string) any  { return map[string]any{"$long": s} }
func ulong(s string) any { return map[string]any{"$ulong": s} }
func number64(f float64) any {
	return map[string]any{"$num": fmt.Sprint(f)}
}
func rawBytes(b ...byte) any { return map[string]any{"$bytes": base64.StdEncoding.EncodeToString(b)} }

var edgeCases = []edgeCase{
	{"int8 lowest", "Int8", -128, "-128"}, {"int8 minus twelve", "Int8", -12, "-12"}, {"int8 highest", "Int8", 127, "127"},
	{"int16 lowest", "Int16", -32768, "-32768"}, {"int16 highest", "Int16", 32767, "32767"},
	{"int32 lowest", "Int32", -2147483648, "-2147483648"}, {"int32 minus one", "Int32", -1, "-1"}, {"int32 highest", "Int32", 2147483647, "2147483647"},
	{"int64 lowest", "Int64", long("-9223372036854775808"), "-9223372036854775808"}, {"int64 minus twelve", "Int64", long("-12"), "-12"},
	{"int64 above 2^53", "Int64", long("9007199254740993"), "9007199254740993"}, {"int64 highest", "Int64", long("9223372036854775807"), "9223372036854775807"},
	{"uint8 highest", "UInt8", 255, "255"}, {"uint16 highest", "UInt16", 65535, "65535"}, {"uint32 highest", "UInt32", 4294967295, "4294967295"},
	{"uint64 above 2^63", "UInt64", ulong("9223372036854775808"), "9223372036854775808"},
	{"uint64 highest", "UInt64", ulong("18446744073709551615"), "18446744073709551615"}, {"uint64 zero", "UInt64", ulong("0"), "0"},
	{"float tenth", "Float", 0.1, "0.1"}, {"float largest", "Float", 3.4028234663852886e38, "3.4028235e+38"}, {"float smallest", "Float", 1.401298464324817e-45, "1e-45"},
	{"float minus", "Float", -12.5, "-12.5"}, {"double tenth", "Double", 0.1, "0.1"}, {"double third", "Double", 1.0 / 3, "0.3333333333333333"},
	{"double largest", "Double", math.MaxFloat64, "1.7976931348623157e+308"}, {"double smallest", "Double", 5e-324, "5e-324"},
	{"double minus zero", "Double", number64(math.Copysign(0, -1)), "-0"}, {"double nan", "Double", number64(math.NaN()), "bad "},
	{"double infinite", "Double", map[string]any{"$num": "Infinity"}, "bad "},
	{"boolean true", "Boolean", true, "true"}, {"boolean false", "Boolean", false, "false"},
	{"string of digits", "String", "00012345678901234567890", "00012345678901234567890"}, {"string empty", "String", "", ""},
	{"string of all kinds", "String", "ä€😀\n\"\x00 ", "ä€😀\n\"\x00 "}, {"text", "Text", "Zeile 1\nZeile 2", "Zeile 1\nZeile 2"},
	{"uuid", "UUID", "6e0a9a3c-0f2c-4d43-9d62-9b6e7b1c2a11", "6e0a9a3c-0f2c-4d43-9d62-9b6e7b1c2a11"},
	{"time", "DateTime", ulong("1767225600123"), "2026-01-01T00:00:00.123Z"}, {"time zero", "DateTime", ulong("0"), "1970-01-01T00:00:00Z"},
	{"bytes", "Bytes", rawBytes(0, 255, 10, 13), "AP8KDQ=="}, {"bytes none", "Bytes", rawBytes(), ""}, {"file", "File", rawBytes(1, 2, 3), "AQID"},
	{"data set", "DataSet", map[string]any{"numOfColumns": 3, "types": []string{"Int8", "String", "UInt64"}, "columns": []string{"n", "text", "big"},
		"rows": [][]any{{-1, "a", ulong("18446744073709551615")}, {7, "00", ulong("0")}}},
		`{"columns":[{"name":"n","type":"Int8"},{"name":"text","type":"String"},{"name":"big","type":"UInt64"}],` +
			`"rows":[{"big":18446744073709551615,"n":-1,"text":"a"},{"big":0,"n":7,"text":"00"}]}`},
	{"template", "Template", map[string]any{"version": "1", "templateRef": "Pump", "isDefinition": false,
		"parameters": []any{map[string]any{"name": "serial", "type": "String", "value": "007"}},
		"metrics":    []any{map[string]any{"name": "rpm", "type": "Int32", "value": -1}, map[string]any{"name": "on", "type": "Boolean", "value": true}}},
		`{"definition":false,"metrics":{"on":true,"rpm":-1},"parameters":{"serial":"007"},"template":"Pump","version":"1"}`},
}

// rawCase is a value of a type that the library does not know, as the fields of the format.
type rawCase struct {
	name string
	kind int
	b    []byte
	want string
}

func le64(v ...uint64) (b []byte) {
	for _, x := range v {
		b = binary.LittleEndian.AppendUint64(b, x)
	}
	return b
}

var rawCases = []rawCase{
	{"int8 array", 22, []byte{0x80, 0x7F}, "[-128,127]"}, {"int16 array", 23, []byte{0, 0x80, 0xFF, 0x7F}, "[-32768,32767]"},
	{"int32 array", 24, []byte{0, 0, 0, 0x80, 0xFF, 0xFF, 0xFF, 0x7F}, "[-2147483648,2147483647]"},
	{"int64 array", 25, le64(1<<63, 1<<63-1), "[-9223372036854775808,9223372036854775807]"}, {"uint8 array", 26, []byte{0, 255}, "[0,255]"},
	{"uint16 array", 27, []byte{0xFF, 0xFF}, "[65535]"}, {"uint32 array", 28, []byte{0xFF, 0xFF, 0xFF, 0xFF}, "[4294967295]"},
	{"uint64 array", 29, le64(math.MaxUint64), "[18446744073709551615]"},
	{"float array", 30, binary.LittleEndian.AppendUint32(nil, math.Float32bits(0.1)), "[0.1]"}, {"double array", 31, le64(math.Float64bits(1.0 / 3)), "[0.3333333333333333]"},
	{"boolean array", 32, []byte{3, 0, 0, 0, 0xA0}, "[true,false,true]"}, {"string array", 33, []byte("007\x00ä\x00"), `["007","ä"]`},
	{"time array", 34, le64(1767225600123), `["2026-01-01T00:00:00.123Z"]`},
}

// Every type goes from an edge node that is not ours to what the agent has stored, and is there what it was meant to be.
func TestEveryTypeIsStoredAsItWasSent(t *testing.T) {
	t.Parallel()
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	edge := realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b), PrimaryHost: "here"})
	var metrics, raw []any
	want := map[string]string{}
	for _, c := range edgeCases {
		metrics = append(metrics, map[string]any{"name": c.name, "type": c.kind, "value": c.value, "timestamp": time.Now().UnixMilli()})
		want[c.name] = c.want
	}
	metrics = append(metrics, map[string]any{"name": "null", "type": "Int32", "value": nil})
	want["null"] = ""
	for _, c := range rawCases {
		raw = append(raw, map[string]any{"name": c.name, "datatype": c.kind, "bytesValue": rawBytes(c.b...)})
		want[c.name] = c.want
	}
	edge.Post(t, "/extra", map[string]any{"metrics": metrics, "add": true})
	edge.Post(t, "/extra", map[string]any{"metrics": raw, "raw": true, "add": true})

	dir := t.TempDir()
	section := strings.Replace(section(b), "{tag: other,", "{tag: '{metric}',", 1)
	a, stop := startAgent(t, dir, section, []translate.Rule{{Name: "all", Rule: "reading", Source: "edge", Tag: "*"}})
	realparts.Eventually(t, testPatience, "values", func() error {
		for _, s := range a.Snapshot().Sources {
			if s.Signals >= uint64(len(want)) {
				return nil
			}
		}
		return fmt.Errorf("%+v", a.Snapshot().Sources)
	})
	stop()
	got := map[string]string{}
	for _, body := range stored(t, dir, "telemetry") {
		var r pb.Reading
		if err := proto.Unmarshal(body, &r); err != nil {
			t.Fatal(err)
		}
		got[r.Tag] = r.Value
		if r.Quality != "good" {
			got[r.Tag] = r.Quality + " " + r.Value
		}
	}
	for name, w := range want {
		if g, ok := got[name]; !ok || g != w {
			t.Errorf("%s is stored as %q (%t), want %q", name, g, ok, w)
		}
	}
	if !t.Failed() {
		t.Logf("%d types and edge values are stored as they were sent", len(want))
	}
}

// A counter and events over many outages of the host: the confirmations tell what the node made.
func TestAgentCountsWhatTheNodeMade(t *testing.T) {
	t.Parallel()
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	edge := realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b), PrimaryHost: "here", Rolling: 50})
	dir := t.TempDir()
	rules := []translate.Rule{
		{Name: "good", Rule: "counter", Source: "edge", Tag: "good", Counts: "yield", WorkCenter: "line1", Unit: "C62", Item: "FG-GEAR", StartFromZero: true,
			Close: translate.Close{Every: 100 * time.Millisecond}},
		{Name: "parts", Rule: "record", Source: "edge", Tag: "parts", Fact: "production_confirmation",
			Fields: map[string]string{"order_no": "'WO-1'", "item": "'PART'", "yield": "1", "unit": "'C62'", "operation": "string(payload)"}},
	}
	for range 5 {
		_, stop := startAgent(t, dir, section(b), rules)
		awaitEdge(t, edge, "a birth", func(s realparts.EdgeState) bool { return s.Born })
		produce(t, edge, 20)
		edge.Post(t, "/restart", nil) // in the middle of it the node's own line fails
		produce(t, edge, 7)
		awaitEdge(t, edge, "a birth", func(s realparts.EdgeState) bool { return s.Born })
		produce(t, edge, 10)
		stop()
		awaitEdge(t, edge, "that the node knows that the host is gone", func(s realparts.EdgeState) bool { return !s.HostOnline })
		produce(t, edge, 9)
	}
	a, stop := startAgent(t, dir, section(b), rules)
	made := edge.State(t).Made
	realparts.Eventually(t, testPatience, "the last part", func() error {
		for _, l := range a.Snapshot().Ledger {
			if l.Item == "FG-GEAR" && l.Stored == fmt.Sprint(made) {
				return nil
			}
		}
		return fmt.Errorf("%d made, ledger %+v", made, a.Snapshot().Ledger)
	})
	if n := a.Snapshot().Quarantined; n != 0 {
		t.Errorf("%d values in quarantine: %+v", n, a.Snapshot().Quarantine)
	}
	stop()
	yield, parts := 0, map[string]int{}
	for _, f := range facts(t, dir) {
		c := f.GetProductionConfirmation()
		if c == nil {
			continue
		}
		if c.Item == "PART" {
			parts[c.Operation]++
			continue
		}
		var n int
		fmt.Sscan(c.Yield, &n)
		yield += n
	}
	lost, doubled := made-len(parts), 0
	for _, n := range parts {
		doubled += n - 1
	}
	t.Logf("made=%d counted=%d events=%d lost=%d doubled=%d flushed=%d", made, yield, len(parts), lost, doubled, edge.State(t).Flushed)
	if yield != made || lost != 0 || doubled != 0 {
		t.Errorf("made %d: counted %d, lost %d, doubled %d", made, yield, lost, doubled)
	}
}

// What the agent knows of itself, and a tag that it reads, arrive at a host that is not ours.
func TestAgentTellsAnotherHostHowItIs(t *testing.T) {
	t.Parallel()
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	other := realparts.SparkplugHost(t, clients(b))
	edge := realparts.SparkplugEdge(t, realparts.EdgeOptions{Broker: clients(b), PrimaryHost: "here"})
	produce(t, edge, 3)
	rules := []translate.Rule{{Name: "parts", Rule: "record", Source: "edge", Tag: "parts", Fact: "production_confirmation",
		Fields: map[string]string{"order_no": "'WO-1'", "item": "'PART'", "yield": "1", "unit": "'C62'"}},
		{Name: "all", Rule: "reading", Source: "edge", Tag: "*"}}
	startAgent(t, t.TempDir(), section(b)+"publish: {tags: [edge/good]}\n", rules)
	awaitEdge(t, edge, "a birth", func(s realparts.EdgeState) bool { return s.Born })
	told := func() map[string]string {
		names, values := map[string]string{}, map[string]string{}
		for _, m := range heardBy(t, other) {
			if !strings.HasPrefix(m.Topic, "spBv1.0/ulm/") {
				continue
			}
			for _, x := range m.Payload.Metrics {
				if x.Name != "" {
					names[fmt.Sprint(x.Alias)] = x.Name
				}
				values[names[fmt.Sprint(x.Alias)]] = fmt.Sprint(x.Value)
			}
		}
		return values
	}
	realparts.Eventually(t, testPatience, "what the agent tells", func() error {
		got := told()
		for name, want := range map[string]string{"Agent/Plant": "ulm", "Facts/Stored": "3", "Facts/Waiting": "3", "Facts/Quarantined": "0", "Hub/Connected": "false", "Sources/edge/State": "ok", "Sources/edge/Signals": "7", "Tags/edge/good": "3"} {
			if got[name] != want {
				return fmt.Errorf("%s is %q, want %q; all: %v", name, got[name], want, got)
			}
		}
		return nil
	})
}
