package recording

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

var noon = time.Date(2026, 3, 2, 12, 0, 0, 0, time.UTC)

const before = `
- {name: order, rule: state, source: plc, tag: order, work_center: w}
- {name: good, rule: counter, source: plc, tag: good, counts: yield, work_center: w, unit: C62, close: {every: 10s, on_order_end: false}}
- {name: used, rule: record, source: mes, tag: used, fact: material_consumption, decimals: 3, fields: {order_no: payload.o, item: payload.i, quantity: payload.q, unit: "'KGM'", lot: payload.lot}}
- {name: scan, rule: serial, source: plc, tag: scan, work_center: w, pseudonymise: [payload.who]}
`

func config(t testing.TB, rules string) translate.Config {
	t.Helper()
	c := translate.Config{Plant: "ulm", Agent: "pc1", Zone: "Europe/Berlin", PseudonymKey: []byte("secret"), Units: map[string]string{"Stk": "C62"}}
	if err := yaml.Load([]byte(rules), &c.Rules, yaml.WithKnownFields()); err != nil {
		t.Fatal(err)
	}
	return c
}

// plant is what a plant said: before the recording, and during it.
type plant struct {
	t      testing.TB
	tr     *translate.Translator
	st     memory
	events []Event
	facts  []translate.Fact
	now    time.Time
}

func (p *plant) say(source, tag string, v any) {
	p.now = p.now.Add(time.Second)
	n := fmt.Sprint(p.now.Unix())
	b := signal.Batch{Source: source, Signals: []signal.Signal{{Tag: tag, Value: v, Position: n, SourceTime: p.now, ReceivedTime: p.now}}}
	p.facts = append(p.facts, p.tr.Translate(p.st, p.now, b).Facts...)
	p.events = append(p.events, Event{Seq: uint64(len(p.events) + 1), At: p.now, Batch: FromBatch(b)})
}

func (p *plant) tick() {
	p.facts = append(p.facts, p.tr.Tick(p.st, p.now).Facts...)
	p.events = append(p.events, Event{Seq: uint64(len(p.events) + 1), At: p.now, Tick: true})
}

// hour is a recorded hour, in its file, and the facts that were made in it.
func hour(t testing.TB) ([]byte, []translate.Fact) {
	cfg := config(t, before)
	n := 0
	tr, err := translate.New(cfg, func() factkey.Key { n++; return factkey.Of(fmt.Sprint("live", n)) })
	if err != nil {
		t.Fatal(err)
	}
	p := &plant{t: t, tr: tr, st: memory{}, now: noon}
	p.say("plc", "order", "4711")
	p.say("plc", "good", signal.Number("100"))
	p.say("plc", "good", signal.Number("103"))
	h, err := NewHeader(cfg, "test", nil, p.now, p.st)
	if err != nil {
		t.Fatal(err)
	}
	p.events, p.facts = nil, nil
	for i := range 20 {
		p.say("plc", "good", signal.Number(fmt.Sprint(104+i)))
		p.say("plc", "scan", fmt.Sprintf("00%d", 40+i%15))
		p.say("mes", "used", map[string]any{"o": "4711", "i": "RM", "q": signal.Number("1.250"), "lot": fmt.Sprintf("0%d", i)})
		if i%3 == 0 {
			p.tick()
		}
	}
	p.facts = append(p.facts, p.tr.Tick(p.st, p.now.Add(closing)).Facts...)
	var file bytes.Buffer
	w, err := NewWriter(&file, h, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	shuffled := slices.Clone(p.events)
	slices.Reverse(shuffled) // lines may stand in any order
	for _, e := range shuffled {
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Line(b); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes(), p.facts
}

func read(t testing.TB, file []byte) (Header, []Event) {
	t.Helper()
	h, events, cut, err := Read(bytes.NewReader(file))
	if err != nil || cut {
		t.Fatalf("read: %v, cut off %v", err, cut)
	}
	return h, events
}

// A replay of unchanged rules makes the facts that were made live, with their keys, fields and times.
func TestReplayOfTheSameRulesMakesTheSameFacts(t *testing.T) {
	file, live := hour(t)
	h, events := read(t, file)
	cfg, err := h.Config()
	if err != nil {
		t.Fatal(err)
	}
	facts, err := Replay(&h, events, cfg)
	if err != nil {
		t.Fatal(err)
	}
	again := &run{}
	if err := again.take(0, translate.Result{Facts: live}); err != nil {
		t.Fatal(err)
	}
	key := func(f Fact) string { return f.Key + f.Fields["header.recorded_at"] + fmt.Sprint(f.Fields) }
	var got, want []string
	for _, f := range facts {
		got = append(got, key(f))
	}
	for _, f := range again.facts {
		want = append(want, key(f))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	d, err := Compare(&h, events, cfg, cfg)
	if err != nil || !d.Equal() || d.Same != len(live) || d.Signals != 60 {
		t.Errorf("compared with itself: %+v, %v", d, err)
	}
}

func TestChangedRuleShowsWhatWouldBeDifferent(t *testing.T) {
	file, _ := hour(t)
	h, events := read(t, file)
	cfg, err := h.Config()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, old, new          string
		changed, missing, added int
		fields, sums            string
	}{
		{"kg to g", `'KGM'`, `'GRM'`, 20, 0, 0, "[material_consumption.quantity.unit]", "4711 RM consumed 0 -> 25 GRM; 4711 RM consumed 25 -> 0 KGM"},
		{"quantity", `quantity: payload.q`, `quantity: payload.q * 1000`, 20, 0, 0, "[material_consumption.quantity.value]", "4711 RM consumed 25 -> 25000 KGM"},
		{"lot to a number", `lot: payload.lot`, `lot: "string(dec(payload.lot))"`, 20, 0, 0, "[material_consumption.lot]", ""},
		{"serial to a number", `tag: scan, `, `tag: scan, value: dec(payload), `, 15, 0, 0, "[header.position key production_confirmation.serial]", ""},
		{"rule away", "- {name: used", "- {name: none, rule: reading, source: x, tag: y}\n# {name: used", 0, 20, 1, "", "4711 RM consumed 25 -> 0 KGM"},
		{"factor", `counts: yield, `, `counts: yield, factor: "2", `, 4, 0, 0, "[production_confirmation.yield]", "4711  yield 35 -> 55 C62"},
		{"another name", `name: used`, `name: taken`, 20, 0, 0, "[header.position header.rule key]", ""},
		{"order away", `tag: order, work_center: w`, `tag: order, work_center: w2`, 0, 0, 0, "", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			after := config(t, strings.Replace(before, c.old, c.new, 1))
			d, err := Compare(&h, events, cfg, after)
			if err != nil {
				t.Fatal(err)
			}
			if len(d.Changed) != c.changed || len(d.Missing) != c.missing || len(d.Added) != c.added {
				t.Fatalf("%d changed, %d missing, %d added; want %d, %d, %d", len(d.Changed), len(d.Missing), len(d.Added), c.changed, c.missing, c.added)
			}
			for _, x := range d.Changed {
				if got := fmt.Sprint(x.Fields); got != c.fields {
					t.Errorf("fields that differ are %s, want %s", got, c.fields)
				}
			}
			var sums []string
			for _, s := range d.Sums {
				sums = append(sums, fmt.Sprintf("%s %s %s %s -> %s %s", s.OrderNo, s.Item, s.Kind, s.Before, s.After, s.Unit))
			}
			if got := strings.Join(sums, "; "); got != c.sums {
				t.Errorf("sums are %q, want %q", got, c.sums)
			}
		})
	}
}

// What was written before the computer went down is read, and it is said that something is missing.
func TestRecordingThatWasCutOffIsReadUpToThere(t *testing.T) {
	file, _ := hour(t)
	whole := 0
	for n := range len(file) {
		h, events, cut, err := Read(bytes.NewReader(file[:n]))
		if err != nil {
			continue // not even the header
		}
		if whole++; !cut || h.Format != format || len(events) > 67 {
			t.Fatalf("of %d bytes, %d events were read, cut off: %v", n, len(events), cut)
		}
	}
	if whole == 0 {
		t.Error("no cut left the header whole")
	}
}

func TestRecordingHoldsNoSecret(t *testing.T) {
	file, _ := hour(t)
	h, _ := read(t, file)
	raw, _ := json.Marshal(h)
	if bytes.Contains(raw, []byte("secret")) || bytes.Contains(raw, []byte("c2VjcmV0")) {
		t.Errorf("the header is %s", raw)
	}
}

func TestRecordingEndsAtItsSize(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, Header{Format: format, Version: version}, 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	var line []byte
	n := 0
	for ; err == nil && n < 100_000; n++ {
		line, _ = json.Marshal(Event{Seq: uint64(n), At: noon.Add(time.Duration(n*n) * time.Millisecond), Tick: true})
		err = w.Line(line)
	}
	if err != ErrFull {
		t.Fatalf("after %d lines: %v", n, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if h, events, cut, err := Read(bytes.NewReader(file.Bytes())); err != nil || cut || h.Format != format || len(events) != n-1 {
		t.Errorf("%d of %d events are read, cut off %v, %v", len(events), n-1, cut, err)
	}
}

// FuzzRead reads anything as the lines of a recording, and replays what it takes for one.
func FuzzRead(f *testing.F) {
	file, _ := hour(f)
	z, err := gzip.NewReader(bytes.NewReader(file))
	if err != nil {
		f.Fatal(err)
	}
	lines, err := io.ReadAll(z)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(lines[:bytes.LastIndexByte(lines[:8000], '\n')])
	f.Add([]byte(`{"format":"linekeeper recording","version":1,"rules":{},"state":{"t/due":"MQ=="}}` + "\n" +
		`{"seq":2,"at":"2026-03-02T12:00:00Z","tick":true}` + "\n" + `{"seq":1,"order":{"OrderNo":"A","Revision":1}}` + "\n" +
		`{"seq":3,"at":"2026-03-02T12:00:01Z","marks":[{"source":"plc","tag":"good","epoch":"x.1","counterTo":"7"}]}` + "\n" +
		`{"seq":4,"at":"2026-03-02T12:00:02Z","batch":{"source":"plc","signals":[{"tag":"good","value":{"n":"9"},"quality":7}]}}`))
	f.Add([]byte("linekeeper"))
	cfg := config(f, before)
	f.Fuzz(func(t *testing.T, b []byte) {
		h, events, _, err := readLines(bytes.NewReader(b))
		if err != nil {
			return
		}
		defer func() {
			if r := recover(); r != nil { // a state that is not the rules' own
				if text, ok := r.(string); !ok || !strings.HasPrefix(text, "read own state") {
					panic(r)
				}
			}
		}()
		if len(events) < 100 {
			Replay(&h, events, cfg)
		}
	})
}
