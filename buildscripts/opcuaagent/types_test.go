package main

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/buffer"
	linekeeper "github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/cmd/config"
	"github.com/linekeeper/linekeeper/drivers/opcua"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// edge is a value as the server is told it, and the text that must stand in the fact.
type edge struct {
	kind  string
	value any
	want  string
	// bits is the value itself for floats: the fact's text must read back as exactly this one.
	bits  float64
	float int // 32 or 64
}

func whole(kind string, values ...string) (list []edge) {
	for _, v := range values {
		var set any = json.Number(v)
		if strings.HasSuffix(kind, "64") {
			set = v
		}
		list = append(list, edge{kind: kind, value: set, want: v})
	}
	return list
}

func floats(kind string, size int, values ...float64) (list []edge) {
	for _, v := range values {
		set := strconv.FormatFloat(v, 'g', -1, 64)
		list = append(list, edge{kind: kind, value: set, bits: v, float: size})
	}
	return list
}

func texts(kind string, values ...string) (list []edge) {
	for _, v := range values {
		list = append(list, edge{kind: kind, value: v, want: v})
	}
	return list
}

func edges() (list []edge) {
	for _, l := range [][]edge{
		{{kind: "Boolean", value: true, want: "true"}, {kind: "Boolean", value: false, want: "false"}},
		whole("SByte", "-128", "-1", "0", "127"), whole("Byte", "0", "255"),
		whole("Int16", "-32768", "32767"), whole("UInt16", "65535", "0"),
		whole("Int32", "-2147483648", "2147483647"), whole("UInt32", "4294967295", "0"),
		whole("Int64", "-9223372036854775808", "9223372036854775807", "9007199254740993"),
		whole("UInt64", "18446744073709551615", "18446744073709551614", "9007199254740993", "0"),
		floats("Float", 32, float64(math.SmallestNonzeroFloat32), float64(math.MaxFloat32), float64(float32(0.1)), 16777217-1, math.Copysign(0, -1)),
		floats("Double", 64, math.SmallestNonzeroFloat64, math.MaxFloat64, -math.MaxFloat64, 0.1, 1.0/3, 9007199254740993, 1e21, 1e-7, math.Copysign(0, -1)),
		texts("String", "00000000000000012345", "1e3", "Größe 5 µm", "日本語", "a;b|c", "true"),
		texts("LocalizedText", "läuft"), texts("Guid", "72962B91-FA75-4AE6-8D28-B404DC7DAF63"),
		{{kind: "DateTime", value: "2024-02-29T23:59:59.123Z", want: "2024-02-29T23:59:59.123Z"}},
		{{kind: "StatusCode", value: "BadOutOfService", want: "BadOutOfService"}},
		{{kind: "ByteString", value: []byte("bytes"), want: "bytes"}},
	} {
		list = append(list, l...)
	}
	return list
}

// expressions make a text of the types that are none.
var expressions = map[string]string{"Boolean": `payload ? "true" : "false"`, "DateTime": "string(payload)", "ByteString": "string(payload)"}

// factory is the way from driver to disk, with the rules of a real agent between.
type factory struct {
	buffer *buffer.Buffer
	rules  *translate.Translator
	mu     sync.Mutex
	said   []string
}

func (f *factory) emit(ctx context.Context, b linekeeper.Batch) error {
	return f.buffer.Commit(ctx, func(tx *buffer.Tx) error {
		res := f.rules.Translate(tx, time.Now(), b)
		for _, x := range res.Facts {
			tx.Append(x.Body)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, q := range res.Quarantined {
			f.said = append(f.said, q.Tag+": "+q.Reason)
		}
		tx.SetState("cursor", b.Cursor)
		return nil
	})
}

// lots are the lots of the stored facts of a tag, in their order.
func (f *factory) lots(tag string) (list []string, err error) {
	entries, err := f.buffer.Read(0, 100_000, 64<<20)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		var fact pb.Fact
		if err := proto.Unmarshal(e.Body, &fact); err != nil {
			return nil, err
		}
		if q := fact.GetQualityStatus(); q.GetStatus() == tag {
			list = append(list, q.GetLot())
		}
	}
	return list, nil
}

// Every scalar type and its edges go from a real server through the driver and the rules into a stored fact, and come back equal.
func TestEveryTypeReachesAStoredFactBitForBit(t *testing.T) {
	plant := realparts.NodeOPCUA(t, realparts.PlantOptions{})
	dir := t.TempDir()
	list := edges()
	f := newFactory(t, dir, plant, list)
	wants := map[string][]edge{}
	for i, e := range list {
		tag := "Type." + e.kind
		plant.Post(t, "/set", map[string]any{"node": tag, "type": e.kind, "value": e.value, "sourceTime": time.Date(2026, 1, 1, 0, 0, i, 0, time.UTC)})
		wants[tag] = append(wants[tag], e)
		realparts.Eventually(t, 20*time.Second, fmt.Sprintf("%s %v is stored", e.kind, e.value), func() error {
			lots, err := f.lots(tag)
			if err == nil && len(lots) < len(wants[tag]) {
				f.mu.Lock()
				defer f.mu.Unlock()
				err = fmt.Errorf("%d facts, want %d; in quarantine: %v", len(lots), len(wants[tag]), f.said)
			}
			return err
		})
	}
	for tag, want := range wants {
		lots, err := f.lots(tag)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range want {
			e.compare(t, tag, lots[i])
		}
	}
	t.Logf("%d values of %d types came back equal", len(list), len(wants))
}

func (e edge) compare(t *testing.T, tag, got string) {
	t.Helper()
	if e.float == 0 {
		if got != e.want {
			t.Errorf("%s: stored as %q, want %q", tag, got, e.want)
		}
		return
	}
	v, err := strconv.ParseFloat(got, e.float)
	if err != nil || math.Float64bits(v) != math.Float64bits(e.bits) {
		t.Errorf("%s: stored as %q, which is %x, want %x: %v", tag, got, math.Float64bits(v), math.Float64bits(e.bits), err)
	}
}

func newFactory(t *testing.T, dir string, plant *realparts.Plant, list []edge) *factory {
	t.Helper()
	cert, err := os.ReadFile(filepath.Join(plant.Dir, "server.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(dir, "trusted"), 0o755); err != nil {
		t.Fatal(err)
	}
	realparts.WriteFile(t, filepath.Join(dir, "trusted", "plant.pem"), string(cert))
	realparts.WriteFile(t, filepath.Join(dir, "password.txt"), "secret\n")
	section := fmt.Sprintf("endpoint: %s\nuser: {name: operator, password_file: password.txt}\npublishing_interval: 50ms\nnodes:\n", plant.Endpoint())
	rules := "rules:\n"
	seen := map[string]bool{}
	for _, e := range list {
		tag := "Type." + e.kind
		if seen[tag] {
			continue
		}
		seen[tag] = true
		section += fmt.Sprintf("  - {tag: %s, node: \"ns=2;s=%s\", sampling: 0s}\n", tag, tag)
		expression := expressions[e.kind]
		if expression == "" {
			expression = "payload"
		}
		rules += fmt.Sprintf("  - {name: %s, rule: record, source: press, tag: %s, fact: quality_status, fields: {status: %q, lot: %q}}\n", tag, tag, `"`+tag+`"`, expression)
	}
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(dir, "buffer"), DiskReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	c := translate.Config{Plant: "hamburg", Agent: "line1", Zone: "UTC"}
	var file struct{ Rules []translate.Rule }
	if err := config.Parse("rules", []byte(rules), &file); err != nil {
		t.Fatal(err)
	}
	c.Rules = file.Rules
	f := &factory{buffer: b}
	if f.rules, err = translate.New(c, factkey.Random); err != nil {
		t.Fatal(err)
	}
	reporter := &sink{stats: Stats{Problems: map[string]string{}}}
	d, err := opcua.Kind.New(linekeeper.Env{Plant: "hamburg", Agent: "line1", Source: "press", Dir: dir, ConfigDir: dir, Zone: time.UTC, Reporter: reporter,
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil))}, func(into any) error { return config.Parse("press", []byte(section), into) })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx, nil, f.emit) }()
	t.Cleanup(func() {
		cancel()
		<-done
		b.Close()
	})
	realparts.Eventually(t, 30*time.Second, "the driver is connected", func() error {
		reporter.mu.Lock()
		defer reporter.mu.Unlock()
		if !strings.HasPrefix(reporter.stats.State, "ok") {
			return fmt.Errorf("it is %s; %v", reporter.stats.State, reporter.stats.Problems)
		}
		return nil
	})
	return f
}
