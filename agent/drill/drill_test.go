package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	yaml "go.yaml.in/yaml/v4"
	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent"
	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

func live(t *testing.T, rules string, sources ...agent.SourceConfig) agent.Config {
	t.Helper()
	cfg := agent.Config{Plant: "ulm", Agent: "line1", TimeZone: "Europe/Berlin", DataDir: "/live/data", Listen: "10.0.0.1:80", Sources: sources}
	cfg.Hub.Address, cfg.Hub.Proxy = "hub.example.com:9443", "http://proxy.example.com"
	if err := yaml.Load([]byte(rules), &cfg.Rules, yaml.WithKnownFields()); err != nil {
		t.Fatal(err)
	}
	return cfg
}

func planOf(t *testing.T, cfg agent.Config) *plan {
	t.Helper()
	p, err := makePlan(adapt(cfg, spec{DataDir: t.TempDir()}), brokers(cfg), noon)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRulesOfTheSampleAreDriven(t *testing.T) {
	var sample struct {
		Rules []translate.Rule  `yaml:"rules"`
		Units map[string]string `yaml:"units"`
		Items map[string]string `yaml:"items"`

		Calendars []translate.Calendar             `yaml:"calendars"`
		Reasons   map[string]translate.ReasonTable `yaml:"reasons"`
	}
	if err := yaml.Load([]byte(translate.Sample), &sample); err != nil {
		t.Fatal(err)
	}
	cfg := live(t, "[]", agent.SourceConfig{Name: "broker", Kind: "mqtt"})
	cfg.Rules, cfg.Units, cfg.Items = sample.Rules, sample.Units, sample.Items
	cfg.Calendars, cfg.Reasons = sample.Calendars, sample.Reasons
	p := planOf(t, cfg)
	out := map[string]string{}
	for _, o := range p.out {
		out[o.Rule] = o.Reason
	}
	for rule, why := range map[string]string{
		"press2 good parts": "another tag", "press3 good parts": "several outputs", "press4 good parts": "several outputs", "silo 1": "weighs", "dye": "weighs",
		"end of line": "need an order",
	} {
		if !strings.Contains(out[rule], why) {
			t.Errorf("rule %q is left out because %q, want %q", rule, out[rule], why)
		}
		delete(out, rule)
	}
	if len(out) > 0 || len(p.tags)+len(p.out) != len(sample.Rules)+ownRules {
		t.Errorf("%d of %d rules are driven, left out are %v", len(p.tags), len(sample.Rules)+ownRules, p.out)
	}
	for _, d := range p.tags {
		if d.Source == "broker" && d.Kind == "row" {
			t.Errorf("rule %q takes messages of a broker and is driven as if they could be read again", d.Rule)
		}
	}
}

func TestRuleThatCannotBeDrivenIsLeftOutWithItsReason(t *testing.T) {
	p := planOf(t, live(t, `
- {name: all, rule: reading, source: s, tag: "*"}
- {name: strict, rule: record, source: s, tag: a, fact: production_confirmation, known_orders_only: true, fields: {order_no: payload.o, yield: payload.n, unit: "'C62'"}}
- {name: odd, rule: record, source: s, tag: b, fact: quality_status, when: "size(payload.list) == 77", fields: {status: payload.s}}
- {name: mixed counter, rule: counter, source: s, tag: c, counts: yield, unit: C62, value: payload.n}
- {name: mixed record, rule: record, source: s, tag: c, fact: quality_status, fields: {status: payload.s}}
- {name: waits, rule: counter, source: s, tag: d, counts: yield, unit: C62, work_center: w, without_order: assign_next}
`))
	reasons := map[string]string{}
	for _, o := range p.out {
		reasons[o.Rule] = o.Reason
	}
	for rule, want := range map[string]string{"all": "every tag", "strict": "refused", "odd": "", "mixed counter": "another kind", "mixed record": "another kind", "waits": "not confirmed"} {
		if reason, ok := reasons[rule]; !ok || !strings.Contains(reason, want) {
			t.Errorf("rule %q: left out %v, %q, want a reason with %q", rule, ok, reason, want)
		}
	}
	if len(p.tags) != ownRules {
		t.Errorf("%d rules are driven, want the drill's own %d", len(p.tags), ownRules)
	}
}

func TestNothingOfTheLiveConfigurationLeadsOutOfTheDrill(t *testing.T) {
	cfg := live(t, "[]", agent.SourceConfig{Name: "drill", Kind: "mes", Decode: func(any) error { t.Error("a live section was read"); return nil }})
	s := spec{DataDir: "/scratch/data", Hub: "127.0.0.1:1", Proxy: "direct", Certs: "/scratch/certs", Machine: "127.0.0.1:2"}
	out := adapt(cfg, s)
	for _, src := range out.Sources {
		if src.Kind != kindName || src.Decode(nil) != nil {
			t.Errorf("source %q is of kind %q", src.Name, src.Kind)
		}
	}
	if len(out.Sources) != 3 || out.Sources[1].Name == "drill" {
		t.Errorf("sources %v: want the live one and two of the drill's under free names", out.Sources)
	}
	text := fmt.Sprintf("%+v", out)
	for _, no := range []string{"example.com", "/live", "10.0.0.1"} {
		if strings.Contains(text, no) {
			t.Errorf("the drill's configuration holds %q: %s", no, text)
		}
	}
	if len(out.Check([]signal.Kind{kind(s)})) > 0 {
		t.Errorf("it has faults: %v", out.Check([]signal.Kind{kind(s)}))
	}
	if len(cfg.Rules) != 0 || cfg.DataDir != "/live/data" {
		t.Error("the live configuration was changed")
	}
}

func record(t *testing.T, key, order, yield, from, to string) []byte {
	t.Helper()
	k := factkey.Of(key)
	c := &pb.ProductionConfirmation{OrderNo: order, Yield: yield, Unit: "C62"}
	if to != "" {
		c.CounterRange = &pb.CounterRange{Tag: "parts", Epoch: "e.1", From: from, To: to}
	}
	raw, err := proto.Marshal(&pb.Fact{Key: k[:], Header: &pb.Header{Plant: "ulm", Source: "s", Rule: "r"}, Content: &pb.Fact_ProductionConfirmation{ProductionConfirmation: c}})
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestReceiverLetsAKeyAndACounterValueTakeEffectOnce(t *testing.T) {
	l := newLedger()
	for i, c := range []struct {
		record []byte
		want   pb.Verdict_Kind
	}{
		{record(t, "a", "A", "1", "", ""), 0},
		{record(t, "a", "A", "1", "", ""), pb.Verdict_KIND_DUPLICATE},
		{record(t, "a", "B", "1", "", ""), pb.Verdict_KIND_CONFLICT},
		{[]byte{0xff}, pb.Verdict_KIND_UNREADABLE},
		{record(t, "c1", "A", "10", "100", "110"), 0},
		{record(t, "c2", "A", "20", "105", "125"), 0},
		{record(t, "c3", "A", "5", "100", "105"), 0},
	} {
		if got, _ := l.take(c.record); got != c.want {
			t.Errorf("record %d: %v, want %v", i, got, c.want)
		}
	}
	c := l.counters[counterKey{"s", "parts", "e.1"}]
	if c.received.String() != "25" || c.unique().String() != "25" || c.quantity.String() != "25" || l.trimmed != 2 {
		t.Errorf("received %s, known %s, quantity %s, trimmed %d", c.received, c.unique(), c.quantity, l.trimmed)
	}
	if m := l.marks(); len(m) != 1 || m[0].CounterTo != "125" {
		t.Errorf("marks %v", m)
	}
}

func TestTallyFindsWhatIsLostAndWhatIsDoubled(t *testing.T) {
	d := &driven{Source: "s", Tag: "t", Rule: "r", Kind: "row"}
	m := &machine{plan: &plan{tags: []*driven{d}}, sources: map[string]*shelf{"s": {entries: []*entry{
		{d: d, keys: []factkey.Key{factkey.Of("here")}, stored: true}, {d: d, keys: []factkey.Key{factkey.Of("lost")}, stored: true},
	}}}}
	l := newLedger()
	for _, key := range []string{"here", "stranger"} {
		l.take(record(t, key, "A", "1", "", ""))
	}
	got := tally(m, l)
	if len(got) != 1 || got[0].Counted != 2 || got[0].Stored != 2 || got[0].Received != 1 || got[0].Lost != 1 || got[0].Doubled != 1 {
		t.Errorf("tally %+v", got)
	}
	counter := &driven{Source: "s", Tag: "parts", Rule: "c", Kind: "counter"}
	m.plan.tags = append(m.plan.tags, counter)
	m.meters = []*meter{{d: counter, total: 30, stored: 30}}
	l.take(record(t, "c", "A", "24", "1000", "1025"))
	got = tally(m, l)
	if c := got[1]; c.Received != 25 || c.Lost != 5 || c.Doubled != 0 || !strings.Contains(c.Fault, "24") {
		t.Errorf("counter %+v", c)
	}
}

func TestMessageIsGivenOutUntilItIsAcknowledgedAndARowFromItsCursor(t *testing.T) {
	cfg := live(t, "[]")
	m, err := newMachine(planOf(t, cfg), 1)
	if err != nil {
		t.Fatal(err)
	}
	m.close() // nothing is made but what this test makes
	m.running = true
	m.make(time.Second, noon)
	o := ownSources(&cfg)
	first, _ := m.give(ask{Source: o.messages}, map[*meter]int64{})
	again, g := m.give(ask{Source: o.messages, Cursor: first.Cursor}, map[*meter]int64{})
	if len(first.Signals) == 0 || len(again.Signals) != len(first.Signals) {
		t.Errorf("%d messages, then %d: what is not acknowledged comes again", len(first.Signals), len(again.Signals))
	}
	m.acknowledge(g)
	if after, _ := m.give(ask{Source: o.messages}, map[*meter]int64{}); len(after.Signals) >= len(first.Signals) {
		t.Errorf("%d messages after all were acknowledged", len(after.Signals))
	}
	rows, g := m.give(ask{Source: o.rows}, map[*meter]int64{})
	m.acknowledge(g)
	back, _ := m.give(ask{Source: o.rows}, map[*meter]int64{})
	on, _ := m.give(ask{Source: o.rows, Cursor: rows.Cursor}, map[*meter]int64{})
	if len(back.Signals) != len(rows.Signals) || len(on.Signals) >= len(rows.Signals) {
		t.Errorf("%d rows, %d from the old cursor, %d from the new one", len(rows.Signals), len(back.Signals), len(on.Signals))
	}
}

func TestReportEndsWithItsVerdictAndSurvivesJSON(t *testing.T) {
	r := Report{Host: "pc", Seed: 7, Pass: false, Drills: []Result{
		{Word: "outage", Title: "T", Pass: true, Counts: []Count{{Rule: "r", Counted: 5, Received: 5}}, Why: strings.Repeat("word ", 60)},
		{Word: "corrupt", Lost: 3, Named: 2, Failures: []string{"one is missing"}},
	}}
	text := r.Text()
	if !strings.HasSuffix(text, "\nVERDICT: FAIL: 1 of 2 drills passed, counted 5, lost 1, doubled 0, lost with a damaged file and named 2\n") {
		t.Errorf("the report ends with %q", text[max(0, len(text)-200):])
	}
	for line := range strings.Lines(text) {
		if len(line) > 120 {
			t.Errorf("this line is too wide: %s", line)
		}
	}
	raw, err := json.Marshal(r)
	var back Report
	if err != nil || json.Unmarshal(raw, &back) != nil || back.Text() != text {
		t.Errorf("as JSON it is another report (%v)", err)
	}
}

func TestNetworkCutsStallsAndAsksForALogin(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			buf := make([]byte, 4)
			if n, err := c.Read(buf); err == nil {
				_, _ = c.Write(buf[:n])
			}
			c.Close()
		}
	}()
	defer func() { echo.Close(); <-done }()
	r, err := newRelay(echo.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer r.close()
	talk := func(say string) string {
		c, err := net.Dial("tcp", r.addr())
		if err != nil {
			return "refused"
		}
		defer c.Close()
		_, _ = c.Write([]byte(say))
		_ = c.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		buf := make([]byte, 12)
		n, err := c.Read(buf)
		var timeout net.Error
		if n == 0 && err != nil {
			if errors.As(err, &timeout) && timeout.Timeout() {
				return "silence"
			}
			return "cut"
		}
		return string(buf[:n])
	}
	if got := talk("ping"); got != "ping" {
		t.Errorf("a good line says %q", got)
	}
	r.set(mode{down: true})
	if got := talk("ping"); got == "ping" || got == "silence" {
		t.Errorf("a line that is down says %q", got)
	}
	r.set(mode{stall: true})
	if got := talk("ping"); got != "silence" {
		t.Errorf("a stalled line says %q", got)
	}
	r.cut()
	r.set(mode{})
	r.setLogin("a:b")
	if got := talk("CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n"); got != "HTTP/1.1 407" {
		t.Errorf("a proxy without a login says %q", got)
	}
}

func TestUnknownDrillIsNamed(t *testing.T) {
	if _, err := Run(context.Background(), Options{}, []string{"flood"}); err == nil || !strings.Contains(err.Error(), `"flood"`) {
		t.Errorf("error %v", err)
	}
}
