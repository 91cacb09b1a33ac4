package translate

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/proto/factkey"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

const recordRules = `
units: {Stk: C62}
items: {OLD-GEAR: FG-GEAR}
rules:
  - name: confirm
    rule: record
    source: mes
    tag: confirm
    fact: production_confirmation
    fields: {order_no: payload.order, operation: payload.op, item: payload.item, yield: payload.good, scrap: payload.bad, unit: payload.unit, final: payload.last, finished_at: payload.at}
  - name: consume
    rule: record
    source: mes
    tag: consume
    fact: material_consumption
    each: payload.items
    id: payload.id
    decimals: 3
    fields: {order_no: payload.order, item: item.m, quantity: item.q, unit: item.u, lot: item.lot, movement: item.dir}
  - name: quality
    rule: record
    source: mes
    tag: quality
    fact: quality_status
    fields: {lot: payload.lot, status: payload.status, disposition: "payload.status == 'OK' ? 'conforming' : 'nonconforming'"}
  - name: known
    rule: record
    source: mes
    tag: known
    fact: production_confirmation
    known_orders_only: true
    fields: {order_no: payload.order, yield: payload.good, unit: "'C62'"}
  - name: run
    rule: record
    source: mes
    tag: states
    fact: order_state
    work_center: line1
    fields: {order_no: payload.order, state: payload.state}
    states: {STA: started, FIN: finished}
  - name: atline
    rule: record
    source: mes
    tag: atline
    fact: production_confirmation
    work_center: line1
    fields: {yield: payload.good}
`

// row sends one JSON object as a row of the MES.
func (l *line) row(tag, position, text string) []*pb.Fact {
	l.t.Helper()
	return l.send("mes", signal.Signal{Tag: tag, Value: decode(l.t, text), Payload: []byte(text), Position: position})
}

func TestRowBecomesConfirmation(t *testing.T) {
	l := newLine(t, rules(t, recordRules))
	facts := l.row("confirm", "17|v3", `{"order": 4711, "op": "0010 ", "item": "OLD-GEAR", "good": 12.50, "bad": "1", "unit": "Stk", "last": 1, "at": "2026-03-02 13:00:00"}`)
	if len(facts) != 1 {
		t.Fatalf("%d facts; quarantine holds %+v", len(facts), l.quarantined)
	}
	got := facts[0]
	c := got.GetProductionConfirmation()
	if c.OrderNo != "4711" || c.Operation != "0010" || c.Item != "FG-GEAR" || c.Yield != "12.50" || c.Scrap != "1" || c.Rework != "" || c.Unit != "C62" || !c.Final {
		t.Errorf("confirmation is %v", c)
	}
	if at := got.Header.OccurredAt.AsTime(); !at.Equal(noon) {
		t.Errorf("a local time of the plant was read as %v, want %v", at, noon)
	}
	if got.Header.Position != `record|ulm|mes|confirm|17\|v3` || got.Header.TimeZone != "Europe/Berlin" {
		t.Errorf("header is %v", got.Header)
	}
	if want := "4711 scrap: 1 counted, 1 stored; 4711 yield: 12.5 counted, 12.5 stored"; l.ledger() != want {
		t.Errorf("ledger is %q, want %q", l.ledger(), want)
	}
}

func TestRecordThatComesAgainMakesNoSecondFact(t *testing.T) {
	l := newLine(t, rules(t, recordRules))
	text := `{"order": "A", "good": 5, "unit": "C62"}`
	for range 3 {
		l.now = l.now.Add(time.Second)
		l.row("confirm", "17|v3", text)
	}
	l.row("confirm", "17|v3", `{"order": "A", "good": 5.00, "unit": "C62"}`) // the same number
	if len(l.facts) != 1 || len(l.quarantined) != 0 {
		t.Fatalf("%d facts, %d quarantined", len(l.facts), len(l.quarantined))
	}
	if want := "A yield: 5 counted, 5 stored"; l.ledger() != want {
		t.Errorf("ledger is %q, want %q", l.ledger(), want)
	}
	l.row("confirm", "17|v3", `{"order": "A", "good": 6, "unit": "C62"}`)
	if len(l.quarantined) != 1 || l.quarantined[0].Code != "conflict" {
		t.Errorf("another content under the same identity gave %+v", l.quarantined)
	}
	l.row("confirm", "17|v4", `{"order": "A", "good": 6, "unit": "C62"}`)
	if want := "A yield: 11 counted, 11 stored"; l.ledger() != want {
		t.Errorf("ledger is %q, want %q", l.ledger(), want)
	}
}

func TestKeysAreRememberedForThousandsOfRecords(t *testing.T) {
	l := newLine(t, rules(t, recordRules))
	const n = 16384 + 128
	send := func() (facts int) {
		for i := 0; i < n; i += 64 {
			b := signal.Batch{Source: "mes"}
			for j := i; j < i+64; j++ {
				v := map[string]any{"order": "A", "good": num("1"), "unit": "C62"}
				b.Signals = append(b.Signals, signal.Signal{Tag: "confirm", Value: v, Position: fmt.Sprint(j)})
			}
			facts += len(l.tr.Translate(l.st, l.now, b).Facts)
		}
		return facts
	}
	if first, again := send(), send(); first != n || again != 0 {
		t.Errorf("%d records gave %d facts, and %d when they came again", n, first, again)
	}
}

// Every bad record is named and its neighbour is taken.
func TestBadRecordsAreQuarantinedByName(t *testing.T) {
	for _, c := range []struct{ tag, text, code, item string }{
		{"confirm", `{"good": 5, "unit": "C62"}`, "missing_field", "order_no"},
		{"confirm", `{"order": "", "good": 5, "unit": "C62"}`, "missing_field", "order_no"},
		{"confirm", `{"order": "A", "unit": "C62"}`, "missing_field", "quantity"},
		{"confirm", `{"order": "A", "good": 5}`, "missing_field", "unit"},
		{"confirm", `{"order": "A", "good": 5, "unit": "box"}`, "unknown_unit", "payload.unit"},
		{"confirm", `{"order": "A", "good": 5, "unit": "stk"}`, "unknown_unit", "payload.unit"},
		{"confirm", `{"order": "A", "good": -5, "unit": "C62"}`, "negative_count", "payload.good"},
		{"confirm", `{"order": "A", "good": "5,5", "unit": "C62"}`, "wrong_type", "payload.good"},
		{"confirm", `{"order": "A", "good": true, "unit": "C62"}`, "wrong_type", "payload.good"},
		{"confirm", `{"order": "A", "good": 1e30, "unit": "C62"}`, "too_large", "payload.good"},
		{"confirm", `{"order": ["A"], "good": 5, "unit": "C62"}`, "wrong_type", "payload.order"},
		{"confirm", `{"order": "A\u0000", "good": 5, "unit": "C62"}`, "bad_encoding", "payload.order"},
		{"confirm", `{"order": "` + strings.Repeat("A", 201) + `", "good": 5, "unit": "C62"}`, "too_long", "payload.order"},
		{"confirm", `{"order": "A", "good": 5, "unit": "C62", "last": "maybe"}`, "wrong_type", "payload.last"},
		{"confirm", `{"order": "A", "good": 5, "unit": "C62", "at": "yesterday"}`, "bad_time", "payload.at"},
		{"confirm", `{"order": "A", "good": 5, "unit": "C62", "at": 1772452800}`, "bad_time", "payload.at"},
		{"confirm", `"only text"`, "missing_field", "order_no"},
		{"consume", `{"order": "A", "items": {"m": "X"}}`, "wrong_type", "payload.items"},
		{"consume", `{"order": "A", "items": [{"m": "X", "q": 1, "u": "KGM", "dir": "up"}]}`, "unknown_movement", "item.dir"},
		{"consume", `{"order": "A", "items": [{"q": 1, "u": "KGM"}]}`, "missing_field", "item"},
		{"quality", `{"lot": "L1"}`, "rule_failed", "quality.fields.disposition"},
		{"quality", `{"status": "OK"}`, "missing_field", "lot"},
		{"known", `{"order": "Z", "good": 1}`, "unknown_order", "Z"},
		{"states", `{"order": "A", "state": "???"}`, "unknown_state", "payload.state"},
		{"atline", `{"good": 1}`, "missing_field", "order_no"},
	} {
		l := newLine(t, rules(t, recordRules))
		b := signal.Batch{Source: "mes", Signals: []signal.Signal{
			{Tag: c.tag, Value: decode(t, c.text), Payload: []byte(c.text)},
			{Tag: "confirm", Value: decode(t, `{"order": "A", "good": 5, "unit": "C62"}`)},
		}}
		facts := l.take(l.tr.Translate(l.st, l.now, b))
		if len(l.quarantined) != 1 {
			t.Errorf("%s: quarantine holds %+v, want %s", c.text, l.quarantined, c.code)
			continue
		}
		q := l.quarantined[0]
		if q.Code != c.code || q.Item != c.item || q.Reason == "" || q.NextStep == "" || string(q.Payload) != c.text {
			t.Errorf("%s: quarantine holds %+v, want %s of %q", c.text, q, c.code, c.item)
		}
		if len(facts) != 2 || facts[0].GetSourceException().GetCode() != c.code || facts[1].GetProductionConfirmation() == nil {
			t.Errorf("%s: facts are %v, want the exception and the neighbour's confirmation", c.text, facts)
		} else if string(facts[0].Key) != string(q.Key[:]) {
			t.Errorf("%s: quarantine and exception have different keys", c.text)
		}
	}
}

func TestUndecodableSignalIsQuarantinedAsTheDriverSays(t *testing.T) {
	l := newLine(t, rules(t, recordRules))
	facts := l.send("mes", signal.Signal{Tag: "confirm", Payload: []byte("{broken"), Problem: &signal.Problem{Code: "bad_json", Item: "confirm", Reason: "broken", NextStep: "mend"}})
	if e := facts[0].GetSourceException(); e.GetCode() != "bad_json" || string(e.PayloadExcerpt) != "{broken" || l.quarantined[0].NextStep != "mend" {
		t.Errorf("facts are %v, quarantine holds %+v", facts, l.quarantined)
	}
}

func TestEqualExceptionsBecomeOneFactAMinute(t *testing.T) {
	l := newLine(t, rules(t, recordRules))
	for i := range 50 {
		l.now = l.now.Add(time.Second)
		l.row("confirm", "", fmt.Sprintf(`{"order": "A", "good": 5, "unit": "box%d"}`, i))
		l.row("confirm", "", fmt.Sprintf(`{"order": "A", "good": 5, "unit": "box%d"}`, i))
	}
	if got := codes(l.facts); got != "unknown_unit" {
		t.Errorf("told %q within a minute, want one", got)
	}
	if n := len(l.quarantined); n != 50 {
		t.Errorf("%d inputs are in quarantine, want the 50 that differ", n)
	}
	if due := l.tr.NextTick(l.st); !due.Equal(noon.Add(61 * time.Second)) {
		t.Errorf("next tick is due at %v", due)
	}
	facts := l.tick(11 * time.Second)
	if len(facts) != 1 || !strings.Contains(facts[0].GetSourceException().GetReason(), "98 more") {
		t.Errorf("after the minute there is %v, want one that tells of 98 more", facts)
	}
	if facts = l.tick(time.Hour); len(facts) != 0 {
		t.Errorf("told again without a new one: %v", facts)
	}
}

func TestGoodElementsOfAListAreTakenWhenEachHasItsKey(t *testing.T) {
	l := newLine(t, rules(t, recordRules))
	text := `{"id": "m1", "order": "A", "items": [{"m": "X", "q": 0.0005, "u": "KGM", "lot": "L"}, {"m": "Y", "q": 1, "u": "pots"}, {"m": "Z", "q": 2, "u": "KGM", "dir": "return"}]}`
	l.row("consume", "", text)
	if want := "A consumed: 0.0005 counted, 0 stored; A returned: 2 counted, 2 stored"; l.ledger() != want {
		t.Errorf("ledger is %q, want %q", l.ledger(), want)
	}
	if len(l.quarantined) != 1 {
		t.Fatalf("quarantine holds %+v", l.quarantined)
	}
	// The unit is learned and the message replayed: only what was missing is added.
	cfg := rules(t, recordRules)
	cfg.Units["pots"] = "H87"
	tr, err := New(cfg, keys())
	if err != nil {
		t.Fatal(err)
	}
	facts := l.take(tr.Replay(l.st, l.now, signal.Batch{Source: "mes", Signals: []signal.Signal{{Tag: "consume", Value: decode(t, text)}}}))
	if len(facts) != 1 || facts[0].GetMaterialConsumption().GetItem() != "Y" {
		t.Errorf("replay gave %v, want Y only", facts)
	}
}

func TestListWithoutIDsIsTakenWholeOrNotAtAll(t *testing.T) {
	l := newLine(t, rules(t, recordRules))
	l.row("consume", "", `{"order": "A", "items": [{"m": "X", "q": 1, "u": "KGM"}, {"m": "Y", "q": 1, "u": "pots"}]}`)
	if l.ledger() != "" || len(l.quarantined) != 1 {
		t.Errorf("ledger is %q, quarantine holds %d", l.ledger(), len(l.quarantined))
	}
	l.row("consume", "", `{"order": "A", "items": [{"m": "X", "q": 1, "u": "KGM"}, {"m": "Y", "q": 1, "u": "KGM"}]}`)
	keys := map[string]bool{}
	for _, f := range l.facts {
		keys[string(f.Key)] = true
	}
	if len(keys) != len(l.facts) {
		t.Error("two facts share a key")
	}
}

func TestStartedOrderRunsOnItsWorkCentre(t *testing.T) {
	l := newLine(t, rules(t, recordRules))
	l.tr.Dispatched(l.st, l.now, signal.WorkOrder{OrderNo: "A", Revision: 1, Item: "FG", Unit: "C62", WorkCenter: "line1", Operations: []signal.Operation{{Operation: "0010"}}})
	l.row("states", "1", `{"order": "A", "state": "STA"}`)
	c := l.row("atline", "2", `{"good": 3}`)[0].GetProductionConfirmation()
	if c.OrderNo != "A" || c.Item != "FG" || c.Unit != "C62" || c.Operation != "0010" {
		t.Errorf("confirmation is %v", c)
	}
	l.row("states", "3", `{"order": "A", "state": "FIN"}`)
	l.row("states", "1", `{"order": "A", "state": "STA"}`) // the row comes again in an overlapping query
	if facts := l.row("atline", "4", `{"good": 3}`); facts[0].GetSourceException().GetCode() != "missing_field" {
		t.Errorf("an old row started the finished order again: %v", facts)
	}
	var got []string
	for _, s := range l.tr.OrderStates(l.st) {
		got = append(got, s.State.OrderNo+" "+s.State.State.String())
	}
	if s := strings.Join(got, ", "); s != "A STATE_STARTED, A STATE_FINISHED" {
		t.Errorf("order states are %s", s)
	}
}

func TestUnruledTagIsToldOnce(t *testing.T) {
	l := newLine(t, rules(t, recordRules))
	for range 3 {
		l.row("nobody", "", `{"a": 1}`)
		l.now = l.now.Add(time.Hour)
	}
	if got := codes(l.facts); got != "no_rule" || len(l.quarantined) != 1 {
		t.Errorf("told %q, quarantine holds %d", got, len(l.quarantined))
	}
}

func TestReadingsTakeEveryType(t *testing.T) {
	l := newLine(t, rules(t, `rules: [{name: all, rule: reading, source: plc, tag: "*", equipment: ulm/x}]`))
	for _, c := range []struct {
		v    any
		want string
	}{
		{num("-12"), "-12"}, {"12345678901234567890", "12345678901234567890"}, {num("9223372036854775807"), "9223372036854775807"},
		{true, "true"}, {nil, ""}, {noon, "2026-03-02T12:00:00Z"}, {[]byte{1, 2}, "AQI="}, {[]any{num("1"), "a"}, `[1,"a"]`},
	} {
		l.readings = nil
		l.send("plc", signal.Signal{Tag: "t", Value: c.v, Quality: signal.Uncertain})
		if len(l.readings) != 1 || l.readings[0].Value != c.want || l.readings[0].Quality != "uncertain" || l.readings[0].Equipment != "ulm/x" {
			t.Errorf("value %v was read as %v, want %q", c.v, l.readings, c.want)
		}
	}
}

func TestOldOrdersAndTheirLinesAreForgotten(t *testing.T) {
	l := newLine(t, rules(t, recordRules))
	for i := range 20 {
		l.row("states", "", fmt.Sprintf(`{"order": "A%d", "state": "STA"}`, i))
		l.row("confirm", "", fmt.Sprintf(`{"order": "A%d", "good": 1, "unit": "C62"}`, i))
		if i%2 == 0 {
			l.row("states", "", fmt.Sprintf(`{"order": "A%d", "state": "FIN"}`, i))
		}
	}
	count := func() (rows int) { return len(l.tr.Ledger(l.st)) }
	l.tick(keepOver - time.Hour)
	if n := count(); n != 20 {
		t.Errorf("%d lines are left too early, want 20", n)
	}
	l.tick(72 * time.Hour)
	if n := count(); n != 10 {
		t.Errorf("%d lines are left, want the 10 of orders that are not over", n)
	}
	for range int(keepIdle/keepOver) + 1 {
		l.tick(keepOver)
	}
	if n := count(); n != 0 {
		t.Errorf("%d lines are left of orders nobody works on", n)
	}
	if n := len(l.tr.OrderStates(l.st)); n != 0 {
		t.Errorf("%d states of orders are left", n)
	}
}

func TestClockThatIsSetAheadDoesNotMakeTheLedgerForget(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: row, rule: record, source: mes, tag: row, fact: production_confirmation, fields: {order_no: payload.order, yield: payload.n, unit: "'C62'"}}
`))
	l.send("mes", signal.Signal{Tag: "row", Position: "1", Value: map[string]any{"order": "WO-1", "n": num("5")}})
	l.tick(time.Hour)
	before := l.ledger()
	l.tick(2 * 365 * 24 * time.Hour)
	l.tick(2 * time.Hour)
	l.tick(-2 * 365 * 24 * time.Hour)
	l.tick(2 * time.Hour)
	if got := l.ledger(); got != before || got == "" {
		t.Errorf("after the clock was wrong by years: %q, before: %q", got, before)
	}
}

func FuzzRecord(f *testing.F) {
	for _, s := range []string{
		`{"order": "A", "good": 5, "unit": "Stk", "at": "2026-03-02T12:00:00Z", "last": true}`,
		`{"order": 1e5, "good": "-0.0", "unit": "C62"}`,
		`{"id": 7, "order": "A|\\", "items": [{"m": "X", "q": 1.0000000005, "u": "KGM"}, null, []]}`,
		`[1, 2]`, `null`, `"\ud800"`, `{"lot": "\u0001", "status": "OK"}`, `{"order": "A", "state": "STA", "good": 99999999999999999999999}`,
	} {
		f.Add(s, "confirm", "p1")
		f.Add(s, "consume", "")
		f.Add(s, "quality", "p")
		f.Add(s, "states", "")
	}
	cfg := rules(f, recordRules)
	f.Fuzz(func(t *testing.T, text, tag, position string) {
		d := json.NewDecoder(strings.NewReader(text))
		d.UseNumber()
		var v any
		if d.Decode(&v) != nil {
			return
		}
		l := newLine(t, cfg)
		s := signal.Signal{Tag: tag, Value: v, Payload: []byte(text), Position: position}
		first := l.send("mes", s)
		if len(first)+len(l.quarantined) == 0 && tag != "consume" {
			t.Fatalf("%q became nothing", text)
		}
		for _, fact := range first {
			if _, err := proto.Marshal(fact); err != nil {
				t.Fatal(err)
			}
		}
		for _, r := range l.tr.Ledger(l.st) {
			if strings.HasPrefix(r.Counted, "-") || strings.HasPrefix(r.Stored, "-") {
				t.Fatalf("ledger went below zero: %v", r)
			}
		}
	})
}

// TestPositionsOfRecordsStayAsTheyAre: a record that is delivered again after an upgrade has the key that it had before it. This
// test may never be changed.
func TestPositionsOfRecordsStayAsTheyAre(t *testing.T) {
	l := newLine(t, rules(t, `
rules:
  - {name: "a|b", rule: record, source: mes, tag: one, fact: production_confirmation, fields: {order_no: "'A'", yield: "1", unit: "'C62'"}}
  - {name: list, rule: record, source: mes, tag: list, each: payload, fact: production_confirmation, fields: {order_no: "'A'", yield: "1", unit: "'C62'"}}
  - {name: ids, rule: record, source: mes, tag: ids, each: payload, id: item.id, fact: production_confirmation, fields: {order_no: "'A'", yield: "1", unit: "'C62'"}}
`))
	two := []any{map[string]any{"id": "x|1"}, map[string]any{"id": num("2")}}
	for _, s := range []signal.Signal{
		{Tag: "one", Position: "17"}, {Tag: "one", Position: `t|1\2`}, {Tag: "one", Position: "M\xfcller|\xff"}, {Tag: "one", Position: "Müller"},
		{Tag: "list", Position: "t|9", Value: two}, {Tag: "ids", Position: "t|9", Value: two},
	} {
		l.send("mes", s)
	}
	var got []string
	for _, f := range l.facts {
		got = append(got, f.Header.Position+" "+factkey.Key(f.Key).String())
	}
	want := []string{
		`record|ulm|mes|a\|b|17 4YFVQTGO3MZUSOFS`,
		`record|ulm|mes|a\|b|t\|1\\2 5YUV32MXVVZFLDWY`,
		`record|ulm|mes|a\|b|M\xfcller\|\xff DEZRICMCS4K2BAJI`,
		`record|ulm|mes|a\|b|Müller KV47UVEX76F42EAD`,
		`record|ulm|mes|list|t\|9|0 C425P4NFTLSJDLUZ`,
		`record|ulm|mes|list|t\|9|1 XF3UBUMO7U67KKTQ`,
		`record|ulm|mes|ids|x\|1 PRZPOIJHECIXIKE6`,
		`record|ulm|mes|ids|2 MBLOJPBAMJT5X7KA`,
	}
	if !slices.Equal(got, want) {
		t.Errorf("positions are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
