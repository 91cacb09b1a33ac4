package mqtt

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/buffer"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// jsonCases are values as somebody sends them, and as the agent must have stored them: to the last digit.
var jsonCases = []struct{ sent, want string }{
	{`18446744073709551615`, "18446744073709551615"},
	{`-9223372036854775808`, "-9223372036854775808"},
	{`9007199254740993`, "9007199254740993"},
	{`-12`, "-12"},
	{`0`, "0"},
	{`12.500`, "12.500"},
	{`0.1`, "0.1"},
	{`1.7976931348623157e308`, "1.7976931348623157e308"},
	{`5e-324`, "5e-324"},
	{`123456789012345678901234567890.123456789`, "123456789012345678901234567890.123456789"},
	{`"00012345678901234567"`, "00012345678901234567"},
	{`"0042"`, "0042"},
	{`"1e5"`, "1e5"},
	{`"NaN"`, "NaN"},
	{`"Größe 漢字 😀"`, "Größe 漢字 😀"},
	{`""`, ""},
	{`true`, "true"},
	{`false`, "false"},
	{`null`, ""},
	{`[1, 2.50, "0042"]`, `[1,2.50,"0042"]`},
	{`{"a": 1.10, "b": "007"}`, `{"a":1.10,"b":"007"}`},
}

// Each value goes over a real broker through the rules into a reading, and the numbers that can be quantities into a fact.
func TestEveryJSONValueIsStoredAsItWasSent(t *testing.T) {
	broker := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	dir := t.TempDir()
	section := "broker: " + broker.URL() + "\ntopics:\n"
	for i := range jsonCases {
		section += fmt.Sprintf("  - {tag: v%d, topic: v/%d}\n", i, i)
	}
	section += "  - {tag: dosed, topic: dosed}\n"
	cfg := agent.Config{
		Plant: "ulm", Agent: "line1", TimeZone: "Europe/Berlin", DataDir: filepath.Join(dir, "data"), Listen: "127.0.0.1:0",
		Buffer: agent.BufferConfig{DiskReserve: -1}, Path: filepath.Join(dir, "agent.yaml"),
		Sources: []agent.SourceConfig{{Name: "broker", Kind: Kind.Name, Decode: decodeYAML(section)}},
		Rules: []translate.Rule{
			{Name: "all", Rule: "reading", Source: "broker", Tag: "*"},
			{Name: "dosed", Rule: "record", Source: "broker", Tag: "dosed", Fact: "material_consumption", ID: "payload.id",
				Fields: map[string]string{"order_no": "payload.order", "item": "payload.item", "lot": "payload.lot", "quantity": "payload.q", "unit": "'KGM'"}},
		},
	}
	a, err := agent.New(cfg, agent.Options{Version: "test", Kinds: []signal.Kind{Kind}, Logger: slog.New(slog.NewTextHandler(t.Output(), nil))})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- a.Run(ctx) }()
	heard := func(n int) func() error {
		return func() error {
			s := a.Snapshot().Sources[0]
			if s.State != "ok" || s.Signals < uint64(n) {
				return fmt.Errorf("%+v", s)
			}
			return nil
		}
	}
	realparts.Eventually(t, patience, "the source is ok", heard(0))
	u, err := mqttlink.ParseBroker(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	s, err := mqttlink.Connect(t.Context(), mqttlink.Options{Broker: u, ClientID: "machine", Clean: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	send := func(topic, text string) {
		t.Helper()
		if err := s.Publish(t.Context(), mqttlink.Publication{Topic: topic, Payload: []byte(text), QoS: 1}); err != nil {
			t.Fatal(err)
		}
	}
	for i, c := range jsonCases {
		send(fmt.Sprintf("v/%d", i), c.sent)
	}
	quantities := []string{"12.500000001", "123456789012.123456789", "0.000000001", "18446744073709551615"}
	for i, q := range quantities {
		send("dosed", fmt.Sprintf(`{"id": "d%d", "order": "0042", "item": "00012345678901234567", "lot": "1e5", "q": %s}`, i, q))
	}
	realparts.Eventually(t, patience, "everything is stored", heard(len(jsonCases)+len(quantities)))
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, body := range storedBodies(t, dir, "telemetry") {
		var r pb.Reading
		if err := proto.Unmarshal(body, &r); err != nil {
			t.Fatal(err)
		}
		got[r.Tag] = r.Value
	}
	for i, c := range jsonCases {
		if g, ok := got[fmt.Sprintf("v%d", i)]; !ok || g != c.want {
			t.Errorf("%s is stored as %q (%t), want %q", c.sent, g, ok, c.want)
		}
	}
	var stored []string
	for _, body := range storedBodies(t, dir, "business") {
		var f pb.Fact
		if err := proto.Unmarshal(body, &f); err != nil {
			t.Fatal(err)
		}
		if m := f.GetMaterialConsumption(); m != nil {
			stored = append(stored, m.GetQuantity().GetValue())
			if m.OrderNo != "0042" || m.Item != "00012345678901234567" || m.Lot != "1e5" {
				t.Errorf("texts of digits are stored as %q, %q, %q", m.OrderNo, m.Item, m.Lot)
			}
		}
	}
	if strings.Join(stored, " ") != strings.Join(quantities, " ") {
		t.Errorf("quantities are stored as %q, want %q", stored, quantities)
	}
}

// storedBodies reads one of a stopped agent's buffers.
func storedBodies(t *testing.T, dir, name string) (bodies [][]byte) {
	t.Helper()
	b, err := buffer.Open(buffer.Config{Dir: filepath.Join(dir, "data", name), DiskReserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	list, err := b.Read(0, 1000, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		bodies = append(bodies, e.Body)
	}
	return bodies
}
