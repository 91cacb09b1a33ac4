package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

func TestMain(m *testing.M) {
	ackPatience = 300 * time.Millisecond
	goleak.VerifyTestMain(m)
}

// controller is a machine that takes work orders, once for each id, and answers as it is told.
type controller struct {
	t testing.TB
	m *machine

	mu     sync.Mutex
	came   []mqttlink.Message // all, repetitions included
	taken  []order            // new ids only
	known  map[string]bool
	answer func(o order) string // nil: it says nothing
}

func newController(t testing.TB, b *realparts.Broker) *controller {
	t.Helper()
	c := &controller{t: t, m: newMachine(t, b, nil), known: map[string]bool{}}
	u, err := mqttlink.ParseBroker(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	s, err := mqttlink.Connect(t.Context(), mqttlink.Options{Broker: u, ClientID: "controller", KeepAlive: time.Second, SessionExpiry: mqttlink.Forever})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Subscribe(t.Context(), []mqttlink.Subscription{{Filter: "orders/+", QoS: 1}}); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			select {
			case <-s.Done():
				return
			case <-s.Ready():
				for _, m := range s.Take(nil, 100) {
					c.take(m)
					s.Acknowledge([]mqttlink.Message{m})
				}
			}
		}
	}()
	t.Cleanup(func() { s.Close(); <-done })
	return c
}

func (c *controller) take(m mqttlink.Message) {
	var o order
	if err := json.Unmarshal(m.Payload, &o); err != nil {
		c.t.Errorf("order %s: %v", m.Payload, err)
		return
	}
	c.mu.Lock()
	c.came = append(c.came, m)
	if !c.known[o.ID] {
		c.known[o.ID] = true
		c.taken = append(c.taken, o)
	}
	answer := c.answer
	c.mu.Unlock()
	if answer == nil {
		return
	}
	if text := answer(o); text != "" {
		c.m.send(o.AckTopic, 1, false, text)
	}
}

func (c *controller) says(answer func(o order) string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.answer = answer
}

func (c *controller) counts() (came, taken int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.came), len(c.taken)
}

func accept(o order) string { return fmt.Sprintf(`{"id":%q,"status":"accepted"}`, o.ID) }

const ordersSection = "\nwork_orders: {topic: 'orders/{work_center}', ack_topic: 'orders/{work_center}/ack', repeat: 1s, words: {NOK: rejected}%s}\n"

func ordersAt(b *realparts.Broker, version, more string) string {
	return "broker: " + b.URL() + "\n" + version + fmt.Sprintf(ordersSection, more)
}

// receiver makes a driver that takes orders, and runs it.
func (p *plant) receiver(section string) (r signal.OrderReceiver, stop func()) {
	p.t.Helper()
	d, err := Kind.New(p.env(), decodeYAML(section))
	if err != nil {
		p.t.Fatal(err)
	}
	r = d.(signal.OrderReceiver)
	if !r.TakesOrders() {
		p.t.Fatal("the source does not take orders")
	}
	p.set(func() { p.state = "" })
	return r, p.run(d, p.emit)
}

func deliver(t testing.TB, r signal.OrderReceiver, o signal.WorkOrder) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return r.Deliver(ctx, o)
}

func workOrder(no string, revision int64) signal.WorkOrder {
	return signal.WorkOrder{OrderNo: no, Revision: revision, WorkCenter: "press1", Item: "4711", Quantity: "12.500", Unit: "PCE",
		PlannedStart: time.Date(2026, 3, 1, 6, 0, 0, 0, time.UTC), Operations: []signal.Operation{{Operation: "0010", Quantity: "12.500"}}}
}

func TestWorkOrderIsDeliveredWhenItsReceiverSaysSo(t *testing.T) { inBoth(t, testWorkOrder) }

func testWorkOrder(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	c := newController(t, b)
	c.says(accept)
	p := newPlant(t)
	r, _ := p.receiver(ordersAt(b, version, ""))
	p.awaitOK()
	if err := deliver(t, r, workOrder("WO/1", 1)); err != nil {
		t.Fatal(err)
	}
	if err := deliver(t, r, workOrder("WO/1", 1)); err != nil { // after a crash of the agent
		t.Fatal(err)
	}
	changed := workOrder("WO/1", 2)
	changed.Quantity = "13"
	if err := deliver(t, r, changed); err != nil {
		t.Fatal(err)
	}
	var refused *signal.Refused
	if err := deliver(t, r, workOrder("WO/1", 1)); err != nil {
		t.Errorf("a revision that was accepted before: %v", err)
	}
	if came, taken := c.counts(); came != 2 || taken != 2 {
		t.Errorf("%d messages, %d orders", came, taken)
	}
	c.mu.Lock()
	first, second, message := c.taken[0], c.taken[1], c.came[0]
	c.mu.Unlock()
	if first.Action != "CREATE" || second.Action != "CHANGE" || first.Quantity != "12.500" || first.ID != "WO/1/1" || !first.PlannedStart.Equal(workOrder("", 0).PlannedStart) {
		t.Errorf("orders are %+v, %+v", first, second)
	}
	if message.Topic != "orders/press1" {
		t.Errorf("topic is %s", message.Topic)
	}
	if version == "version: 5" && (message.Properties.ResponseTopic != "orders/press1/ack" || string(message.Properties.Correlation) != "WO/1/1") {
		t.Errorf("properties are %+v", message.Properties)
	}
	c.says(func(o order) string {
		return fmt.Sprintf(`{"order_no":%q,"revision":%d,"status":"NOK","reason":"no tool"}`, o.OrderNo, o.Revision)
	})
	cancelled := workOrder("WO/1", 3)
	cancelled.Cancelled = true
	if err := deliver(t, r, cancelled); !errors.As(err, &refused) || refused.Reason != "no tool" {
		t.Errorf("a rejected cancellation: %v", err)
	}
	if err := deliver(t, r, workOrder("old", 1)); !errors.As(err, &refused) {
		t.Errorf("a rejected order: %v", err)
	}
	bad := workOrder("WO2", 1)
	bad.WorkCenter = "a/b"
	if err := deliver(t, r, bad); !errors.As(err, &refused) || !strings.Contains(refused.Reason, "work_center") {
		t.Errorf("a work centre that is no level of a topic: %v", err)
	}
}

// What a receiver says later becomes signals, each once however often it is said.
func TestLaterAnswersBecomeSignals(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	c := newController(t, b)
	c.says(accept)
	p := newPlant(t)
	r, _ := p.receiver(ordersAt(b, "", ""))
	p.awaitOK()
	if err := deliver(t, r, workOrder("A", 1)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		c.m.send("orders/press1/ack", 1, false, `{"id":"A/1","status":"Started","changed_at":"2026-03-01T06:00:05+01:00","operator":"7"}`)
	}
	c.m.send("orders/press1/ack", 1, false, `{"id":"A/1","status":"finished","answer_id":"x9","reason":"done"}`)
	c.m.send("orders/press1/ack", 1, false, `{"status":"finished"}`)
	p.await("five signals", func() bool { return len(p.signals) == 5 })
	var got []string
	for _, s := range p.signals {
		if s.Problem != nil {
			got = append(got, s.Problem.Code)
			continue
		}
		v := s.Value.(map[string]any)
		got = append(got, strings.Join(strings.Fields(fmt.Sprintln(s.Tag, v["order_no"], v["revision"], v["status"], v["reason"], s.Position)), " "))
		if _, isTime := v["changed_at"].(time.Time); isTime != !s.SourceTime.IsZero() {
			t.Errorf("time of %+v", s)
		}
	}
	started := "work_order_answer A 1 started A/1/started/2026-03-01T05:00:05Z"
	want := []string{"work_order_answer A 1 accepted", started, started, "work_order_answer A 1 finished done x9", "bad_answer"}
	if strings.Join(got, "|") != strings.Join(want, "|") {
		t.Errorf("answers are\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A receiver that is away gets the order when it comes back, and one that loses its answer says it again: one order.
func TestLostAnswerLeadsToOneOrder(t *testing.T) { inBoth(t, testLostAnswer) }

func testLostAnswer(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	c := newController(t, b)
	p := newPlant(t)
	r, stop := p.receiver(ordersAt(b, version, ""))
	p.awaitOK()
	o := workOrder("A", 1)
	if err := deliver(t, r, o); err == nil || !strings.Contains(err.Error(), "has not answered") {
		t.Fatalf("an order without an answer: %v", err)
	}
	stop() // the agent dies; the journal is what stays
	r, _ = p.receiver(ordersAt(b, version, ""))
	p.awaitOK()
	c.says(accept)
	realparts.Eventually(t, patience, "delivery", func() error { return deliver(t, r, o) })
	if came, taken := c.counts(); taken != 1 || came < 2 {
		t.Errorf("%d messages, %d orders", came, taken)
	}
	for i, m := range c.came {
		if string(m.Payload) != string(c.came[0].Payload) {
			t.Errorf("message %d differs from the first: %s", i, m.Payload)
		}
	}
}

// An answer that comes while the agent is down waits at the broker, and ends the delivery without another message.
func TestAnswerIsReadAfterARestart(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	c := newController(t, b)
	p := newPlant(t)
	r, stop := p.receiver(ordersAt(b, "", ""))
	p.awaitOK()
	if err := deliver(t, r, workOrder("A", 1)); err == nil {
		t.Fatal("delivered without an answer")
	}
	stop()
	came, _ := c.counts()
	c.m.send("orders/press1/ack", 1, false, `{"order_no":"A","status":"accepted"}`)
	r, _ = p.receiver(ordersAt(b, "", ""))
	p.await("the answer", func() bool { return len(p.signals) == 1 })
	if err := deliver(t, r, workOrder("A", 1)); err != nil {
		t.Fatal(err)
	}
	if again, _ := c.counts(); again != came {
		t.Errorf("%d messages, then %d", came, again)
	}
}

// The agent was down while the order was accepted, and comes back after its time: the answer that waits counts.
func TestAnswerThatWaitsAtTheBrokerBeatsTheExpiry(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	c := newController(t, b)
	p := newPlant(t)
	r, stop := p.receiver(ordersAt(b, "", ", expiry: 1s"))
	p.awaitOK()
	if err := deliver(t, r, workOrder("A", 1)); err == nil {
		t.Fatal("delivered without an answer")
	}
	stop()
	c.m.send("orders/press1/ack", 1, false, `{"id":"A/1","status":"accepted"}`)
	over := time.NewTimer(time.Until(c.taken[0].ExpiresAt.Add(10 * time.Millisecond)))
	<-over.C
	gate := make(chan struct{})
	p.set(func() { p.gate = gate }) // the buffer is slow, too
	r, _ = p.receiver(ordersAt(b, "", ", expiry: 1s"))
	var refused *signal.Refused
	if err := deliver(t, r, workOrder("A", 1)); errors.As(err, &refused) { // the answer is noted before the buffer has it
		t.Fatalf("given up before its answer was looked for: %v", err)
	}
	p.set(func() { p.gate = nil; close(gate) })
	realparts.Eventually(t, patience, "delivery", func() error {
		err := deliver(t, r, workOrder("A", 1))
		if errors.As(err, &refused) {
			t.Fatalf("an order that was accepted is given up: %v", err)
		}
		return err
	})
}

func TestOrderWithoutAnswerExpires(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	c := newController(t, b)
	p := newPlant(t)
	r, _ := p.receiver(ordersAt(b, "", ", expiry: 2s"))
	p.awaitOK()
	var refused *signal.Refused
	realparts.Eventually(t, patience, "expiry", func() error {
		err := deliver(t, r, workOrder("A", 1))
		if errors.As(err, &refused) {
			return nil
		}
		return fmt.Errorf("not refused: %v", err)
	})
	if !strings.Contains(refused.Reason, "expired") || !strings.Contains(refused.Reason, "orders/press1/ack") {
		t.Errorf("reason is %q", refused.Reason)
	}
	c.mu.Lock()
	first := c.taken[0]
	c.mu.Unlock()
	if first.ExpiresAt == nil || first.ExpiresAt.Sub(first.SentAt) != 2*time.Second {
		t.Errorf("order is sent at %v and expires at %v", first.SentAt, first.ExpiresAt)
	}
	c.m.send("orders/press1/ack", 1, false, `{"id":"A/1","status":"accepted"}`)
	p.awaitProblem("late:A/1", "order_taken_late")
	if err := deliver(t, r, workOrder("A", 1)); !errors.As(err, &refused) {
		t.Errorf("an expired order is delivered in the end: %v", err)
	}
}

func TestWithoutAcknowledgementTheBrokerIsTheReceiver(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	c := newController(t, b)
	p := newPlant(t)
	section := "broker: " + b.URL() + "\nwork_orders: {topic: 'orders/{work_center}', ack: none}\n"
	r, stop := p.receiver(section)
	p.awaitOK()
	if err := deliver(t, r, workOrder("A", 1)); err != nil {
		t.Fatal(err)
	}
	stop()
	if err := deliver(t, r, workOrder("B", 1)); err == nil || !strings.Contains(err.Error(), "connection") {
		t.Errorf("without a connection: %v", err)
	}
	r, _ = p.receiver(section)
	p.awaitOK()
	for _, no := range []string{"A", "B"} {
		if err := deliver(t, r, workOrder(no, 1)); err != nil {
			t.Fatal(err)
		}
	}
	realparts.Eventually(t, patience, "two orders", func() error {
		if came, taken := c.counts(); came != 2 || taken != 2 {
			return fmt.Errorf("%d messages, %d orders", came, taken)
		}
		return nil
	})
}

func TestDamagedJournalIsSetAside(t *testing.T) {
	p := newPlant(t)
	realparts.WriteFile(t, filepath.Join(p.dir, journalName), `[{"id":`)
	j := newOrders(p.env(), nil)
	made := false
	_, err := j.begin(workOrder("A", 1), func(known bool) (*entry, error) {
		made = true
		return &entry{ID: "A/1", OrderNo: "A", Revision: 1, Payload: json.RawMessage(`{}`)}, nil
	})
	if err != nil || !made {
		t.Fatal(err)
	}
	aside, _ := filepath.Glob(filepath.Join(p.dir, journalName+".damaged-*"))
	if len(aside) != 1 {
		t.Errorf("files set aside: %v", aside)
	}
	again := newOrders(p.env(), nil)
	var refused *signal.Refused
	if _, err := again.begin(workOrder("A", 0), nil); !errors.As(err, &refused) {
		t.Errorf("an older revision: %v", err)
	}
}

// FuzzAnswer reads what receivers may say: it names its order and status, or is a problem; nothing settles an order that it does
// not name.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{accept(order{ID: "A/1"}), `{"order_no":"A","revision":1,"status":"NOK","reason":5}`, `{"id":"/","status":"x"}`,
		`{"id":"A/-1","status":"accepted"}`, `[]`, `{"id":"A/1"}`, `{"order_no":"A","status":"accepted","changed_at":"2026-03-01","answer_id":7}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d := &driver{env: signal.Env{Dir: t.TempDir()}, config: Config{WorkOrders: &WorkOrders{}}}
		d.orders = newOrders(d.env, nil)
		m := &mqttlink.Message{Topic: "ack", Payload: text}
		topic := Topic{Format: "json", MaxSize: 1 << 20}
		s := &decode(nil, m, &topic)[0]
		if s.Problem != nil {
			return
		}
		a := d.answer(s, m)
		if s.Problem != nil {
			if s.Value != nil || a != (answer{}) {
				t.Fatalf("a problem carries %v and %+v", s.Value, a)
			}
			return
		}
		row := s.Value.(map[string]any)
		if row["order_no"] == "" || row["status"] == "" {
			t.Fatalf("an answer names nothing: %v", row)
		}
		if _, err := row["revision"].(signal.Number).Int64(); err != nil {
			t.Fatalf("revision is %v", row["revision"])
		}
		if err := d.note([]answer{a}); err != nil {
			t.Fatal(err)
		}
		if len(d.orders.entries) != 0 {
			t.Fatal("an order that was never sent is in the journal")
		}
	})
}
