package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/payload"
)

func order(no string, revision int64) signal.WorkOrder {
	return signal.WorkOrder{OrderNo: no, Revision: revision, Plant: "p", WorkCenter: "W1", Item: "ITEM", Description: `Größe "1" <{lot}>`, Quantity: "1234.567000000000000001",
		Unit: "KGM", Priority: 5, Lot: "L", PlannedStart: time.Date(2026, 7, 1, 4, 0, 0, 0, time.UTC),
		Operations: []signal.Operation{{Operation: "0010", Quantity: "1.50", Unit: "KGM"}},
		Components: []signal.Component{{Item: "C1", Required: "0.250", Unit: "KGM", Backflush: true}}}
}

const answersSection = "answers: {url: '/answers?since={cursor}', cursor: {field: seq}, key: [seq], poll: 10ms, " +
	"fields: {order_no: no, revision: rev, status: state, changed_at: at, words: {ANGENOMMEN: accepted}}}"

// Each reply to a fifth of the deliveries is lost after it took effect; each order is in the MES once, and its answer comes
// back once, also when the agent dies between.
func TestLostRepliesMakeNoSecondOrder(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	m.loseReply = func(n int) bool { return n%5 == 0 }
	text := fmt.Sprintf("base: %s\nwork_orders: {url: /orders, %s}\n", m.url(), answersSection)
	d := p.make(text)
	stop := p.run(d, p.emit)
	const orders = 50
	failed := 0
	for n := range orders {
		for {
			err := d.(signal.OrderReceiver).Deliver(context.Background(), order(fmt.Sprint(n), 1))
			if err == nil {
				break
			}
			var refused *signal.Refused
			if errors.As(err, &refused) {
				t.Fatal(err)
			}
			failed++
		}
		if n == 20 {
			stop()
			stop = p.run(p.make(text), p.dying(1, true))
		}
		if n == 40 {
			stop()
			stop = p.start(text)
		}
	}
	p.awaitCount(orders)
	positions := map[string]bool{}
	for _, s := range p.all() {
		v := s.Value.(map[string]any)
		positions[s.Position] = true
		if s.Tag != signal.AnswerTag || v["status"] != "accepted" || v["revision"] != signal.Number("1") || v["reason"] != "" || v["changed_at"] != s.SourceTime || s.SourceTime.IsZero() {
			t.Errorf("answer is %+v", s)
		}
	}
	t.Logf("orders=%d tries=%d errors=%d effects=%d answers=%d", orders, m.tries, failed, m.effects, len(p.all()))
	if m.effects != orders || m.tries < orders+orders/6 || failed == 0 || len(positions) != orders || len(p.all()) != orders {
		t.Errorf("%d effects, %d errors, %d answers at %d positions", m.effects, failed, len(p.all()), len(positions))
	}
	p.await("no problem", func() bool { return len(p.problems) == 0 })
}

func TestTheMESDecidesWhatBecomesOfAnOrder(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	d := p.make(fmt.Sprintf("base: %s\nwork_orders: {url: /orders, reply: {field: code, taken: ['0'], words: text}}\n", m.url())).(signal.OrderReceiver)
	for _, c := range []struct {
		code    int
		answer  any
		taken   bool
		refused string // words
	}{
		{201, map[string]any{"code": 0}, true, ""},
		{200, map[string]any{"code": 17, "text": "no such item"}, false, "17 no such item"},
		{200, map[string]any{}, false, ""},
		{409, nil, true, ""},
		{422, map[string]any{"title": "Invalid", "detail": "unit KGM is unknown"}, false, "unit KGM is unknown"},
		{400, map[string]any{"error": map[string]any{"message": "bad lot"}}, false, "bad lot"},
		{404, nil, false, ""},
		{401, nil, false, ""},
		{429, nil, false, ""},
		{503, nil, false, ""},
	} {
		m.set(func() { m.answerWith = func() (int, any) { return c.code, c.answer } })
		err := d.Deliver(context.Background(), order("1", 1))
		var refused *signal.Refused
		switch {
		case (err == nil) != c.taken:
			t.Errorf("%d %v: %v", c.code, c.answer, err)
		case errors.As(err, &refused) != (c.refused != ""):
			t.Errorf("%d %v: refused is wrong: %v", c.code, c.answer, err)
		case refused != nil && !strings.Contains(refused.Reason, c.refused):
			t.Errorf("%d: the reason is %q, want %q in it", c.code, refused.Reason, c.refused)
		}
	}
}

func TestABodyIsWrittenAsTheMESWantsIt(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	d := p.make(fmt.Sprintf("base: %s\nwork_orders:\n  url: '/orders?no={order_no}'\n  body: {number: '{order_no}-{revision}', note: 'is {description}', qty: {value: '{quantity}', unit: '{unit}'}, parts: '{components}', end: '{planned_end}', fixed: 7}\n", m.url()))
	if err := d.(signal.OrderReceiver).Deliver(context.Background(), order("A/1 &", 2)); err != nil {
		t.Fatal(err)
	}

	got := string(m.orders["A/1 &/2"])
	want := `{"end":null,"fixed":7,"note":"is Größe \"1\" <{lot}>","number":"A/1 &-2","parts":[{"backflush":true,"description":"","item":"C1","operation":"","required":0.250,"reservation":"","unit":"KGM"}],"qty":{"unit":"KGM","value":1234.567000000000000001}}`
	if strings.TrimSpace(got) != want || m.requests[0] != "POST /orders?no=A%2F1+%26" {
		t.Errorf("request %s with\n%s\nwant\n%s", m.requests[0], got, want)
	}
	d = p.make(fmt.Sprintf("base: %s\nwork_orders: {url: /orders}\n", m.url()))
	if err := d.(signal.OrderReceiver).Deliver(context.Background(), order("B", 1)); err != nil {
		t.Fatal(err)
	}
	v, err := payload.JSON(m.orders["B/1"])
	if err != nil {
		t.Fatal(err)
	}
	body := v.(map[string]any)
	for _, name := range orderFields {
		if _, ok := body[name]; !ok {
			t.Errorf("the default body lacks %q", name)
		}
	}
	if body["quantity"] != json.Number("1234.567000000000000001") || body["planned_start"] != "2026-07-01T04:00:00Z" || body["planned_end"] != nil {
		t.Errorf("body is %v", body)
	}
}

// What the MES does not know is refused when it arrives; what cannot be told now waits.
func TestAnOrderIsCheckedAgainstWhatTheMESKnows(t *testing.T) {
	m, p := newMES(t), newPlant(t)
	d := p.make(fmt.Sprintf("base: %s\nwork_orders: {url: /orders, check: [{field: item, url: '/known/{value}'}, {field: component, url: '/known/{value}'}]}\n", m.url())).(signal.OrderChecker)
	check := func(change func(o *signal.WorkOrder)) error {
		o := order("1", 1)
		change(&o)
		return d.CheckOrder(context.Background(), o)
	}
	m.known = map[string]bool{"/known/ITEM": true, "/known/C1": true}
	if err := check(func(*signal.WorkOrder) {}); err != nil {
		t.Errorf("an order that the MES can take: %v", err)
	}
	var refused *signal.Refused
	if err := check(func(o *signal.WorkOrder) { o.Components[0].Item = "C/2" }); !errors.As(err, &refused) || !strings.Contains(refused.Reason, `component "C/2"`) {
		t.Errorf("a component that the MES does not know: %v", err)
	}
	m.set(func() { m.broken = 1 })
	if err := check(func(*signal.WorkOrder) {}); err == nil || errors.As(err, &refused) {
		t.Errorf("an MES that is ill: %v", err)
	}
}
