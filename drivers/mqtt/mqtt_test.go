package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/packets"
	yaml "go.yaml.in/yaml/v4"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/signal/drivertest"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

const patience = 30 * time.Second

// plant is what a driver is run against: it keeps what became durable, like the agent does.
type plant struct {
	t   testing.TB
	dir string

	mu       sync.Mutex
	refuse   error // what emit answers, when set
	gate     chan struct{}
	signals  []signal.Signal
	batches  int
	cursor   []byte
	state    signal.State
	failures int // how often the state became failed
	problems map[string]*signal.Problem
}

func newPlant(t testing.TB) *plant {
	return &plant{t: t, dir: t.TempDir(), problems: map[string]*signal.Problem{}}
}

func (p *plant) State(s signal.State, _ string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state = s
	if s == signal.StateFailed {
		p.failures++
	}
}

func (p *plant) Problem(key string, x *signal.Problem) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if x == nil {
		delete(p.problems, key)
	} else {
		p.problems[key] = x
	}
}

func (p *plant) emit(ctx context.Context, b signal.Batch) error {
	p.mu.Lock()
	gate := p.gate
	p.mu.Unlock()
	if gate != nil {
		select {
		case <-gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.refuse != nil {
		return p.refuse
	}
	p.signals = append(p.signals, b.Signals...)
	p.batches++
	if b.Cursor != nil {
		p.cursor = b.Cursor
	}
	return nil
}

func (p *plant) set(f func()) { p.mu.Lock(); defer p.mu.Unlock(); f() }

func (p *plant) count() int { p.mu.Lock(); defer p.mu.Unlock(); return len(p.signals) }

func (p *plant) env() signal.Env {
	return signal.Env{Plant: "p", Agent: "a", Source: "s", Dir: p.dir, ConfigDir: p.dir, Zone: time.UTC, Reporter: p,
		Logger: slog.New(slog.NewTextHandler(p.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))}
}

func decodeYAML(section string) func(any) error {
	return func(into any) error { return yaml.Load([]byte(section), into, yaml.WithKnownFields()) }
}

// start runs a driver and returns a function that stops it and waits for its end.
func (p *plant) start(section string) (stop func()) {
	p.t.Helper()
	d, err := Kind.New(p.env(), decodeYAML(section))
	if err != nil {
		p.t.Fatalf("make the driver: %v", err)
	}
	return p.run(d, p.emit)
}

func (p *plant) run(d signal.Driver, emit signal.Emit) (stop func()) {
	p.mu.Lock()
	cursor := p.cursor
	p.mu.Unlock()
	return drivertest.Start(p.t, d, cursor, emit, patience)
}

func (p *plant) await(what string, ok func() bool) {
	p.t.Helper()
	realparts.Eventually(p.t, patience, what, func() error {
		p.mu.Lock()
		defer p.mu.Unlock()
		if ok() {
			return nil
		}
		return fmt.Errorf("%d signals, state %q, problems %v", len(p.signals), p.state, p.problems)
	})
}

// awaitWhileTheyCome waits for as long as messages go on coming: how long a whole backlog takes depends on the machine.
func (p *plant) awaitWhileTheyCome(what string, ok func() bool) {
	p.t.Helper()
	for done := false; !done; {
		before := p.count()
		p.await(what, func() bool {
			done = ok()
			return done || len(p.signals) > before
		})
	}
}

func (p *plant) awaitOK() {
	p.t.Helper()
	p.await("state ok", func() bool { return p.state == signal.StateOK })
}

func (p *plant) awaitProblem(key, code string) *signal.Problem {
	p.t.Helper()
	var found *signal.Problem
	p.await("problem "+code, func() bool { found = p.problems[key]; return found != nil && found.Code == code })
	return found
}

// machine publishes with QoS 1 and numbers its messages per topic.
type machine struct {
	t      testing.TB
	client paho.Client
	next   map[string]int
}

func newMachine(t testing.TB, b *realparts.Broker, change func(*paho.ClientOptions)) *machine {
	t.Helper()
	o := paho.NewClientOptions().AddBroker(fmt.Sprintf("tcp://127.0.0.1:%d", b.Port)).SetClientID("machine").SetOrderMatters(false)
	o.SetConnectRetry(true).SetConnectRetryInterval(50 * time.Millisecond).SetMaxReconnectInterval(100 * time.Millisecond)
	if change != nil {
		change(o)
	}
	c := paho.NewClient(o)
	if token := c.Connect(); !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatalf("connect the machine: %v", token.Error())
	}
	t.Cleanup(func() { c.Disconnect(0) })
	return &machine{t: t, client: c, next: map[string]int{}}
}

// publish sends n messages, counting on from the last one of the topic, and waits for the broker's acknowledgements.
func (m *machine) publish(topic string, n int) {
	m.t.Helper()
	realparts.Eventually(m.t, patience, "connection of the machine", func() error {
		if m.client.IsConnectionOpen() {
			return nil
		}
		return errors.New("not connected") // what is published now, the library would send out of order
	})
	var tokens []paho.Token
	for range n {
		m.next[topic]++
		payload := fmt.Sprintf(`{"topic":%q,"n":%d,"weight":12.500,"big":18446744073709551614}`, topic, m.next[topic])
		tokens = append(tokens, m.client.Publish(topic, 1, false, payload))
	}
	for _, t := range tokens {
		if !t.WaitTimeout(patience) || t.Error() != nil {
			m.t.Fatalf("publish: %v", t.Error())
		}
	}
}

func (m *machine) send(topic string, qos byte, retained bool, payload any) {
	m.t.Helper()
	if t := m.client.Publish(topic, qos, retained, payload); !t.WaitTimeout(patience) || t.Error() != nil {
		m.t.Fatalf("publish: %v", t.Error())
	}
}

// check compares what became durable with what was published: nothing lost, nothing twice, order kept per topic.
func (p *plant) check(m *machine) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	got := map[string]int64{}
	for _, s := range p.signals {
		row, ok := s.Value.(map[string]any)
		if !ok {
			p.t.Fatalf("signal %+v is no JSON object", s)
		}
		n, err := row["n"].(signal.Number).Int64()
		if err != nil || n != got[s.Topic]+1 {
			p.t.Fatalf("topic %s: number %v after %d", s.Topic, row["n"], got[s.Topic])
		}
		got[s.Topic] = n
	}
	for topic, n := range m.next {
		if got[topic] != int64(n) {
			p.t.Errorf("topic %s: %d of %d messages became durable", topic, got[topic], n)
		}
	}
}

func (p *plant) awaitAll(m *machine) {
	p.t.Helper()
	want := 0
	for _, n := range m.next {
		want += n
	}
	p.awaitWhileTheyCome(fmt.Sprintf("%d messages", want), func() bool { return len(p.signals) >= want })
}

// learn goes on until the driver knows how the broker numbers messages. Before that it cannot tell a message whose acknowledgement
// was lost from a new one, and saves it again.
func (p *plant) learn(m *machine) {
	p.t.Helper()
	realparts.Eventually(p.t, patience, "the driver knows how the broker counts", func() error {
		m.publish("line/1/counts", 5)
		p.awaitAll(m)
		p.mu.Lock()
		defer p.mu.Unlock()
		var known memory
		if err := json.Unmarshal(p.cursor, &known); err != nil || !known.Cycles {
			return fmt.Errorf("it does not, after %d messages (%v)", len(p.signals), err)
		}
		return nil
	})
}

// inBoth runs a test in both versions of the protocol; version is the line of the configuration.
func inBoth(t *testing.T, test func(t *testing.T, version string)) {
	for _, v := range []string{"5", "3.1.1"} {
		t.Run(v, func(t *testing.T) {
			t.Parallel()
			test(t, "version: "+v)
		})
	}
}

func section(b *realparts.Broker, more string) string {
	return fmt.Sprintf("broker: %s\nkeep_alive: 2s\n%s\ntopics:\n- {tag: counts, topic: line/+/counts}\n", b.URL(), more)
}

// impatient notices a dead connection soon.
func impatient(section string) string {
	return strings.Replace(section, "keep_alive: 2s", "keep_alive: 1s", 1)
}

func TestMessagesArriveOnceInOrderWithExactNumbers(t *testing.T) {
	inBoth(t, testMessagesArriveOnceInOrderWithExactNumbers)
}

func testMessagesArriveOnceInOrderWithExactNumbers(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p, m := newPlant(t), newMachine(t, b, nil)
	p.start(section(b, version))
	p.awaitOK()
	for range 5 {
		m.publish("line/1/counts", 300)
		m.publish("line/2/counts", 100)
	}
	p.awaitAll(m)
	p.check(m)
	row := p.signals[0].Value.(map[string]any)
	if row["weight"] != signal.Number("12.500") || row["big"] != signal.Number("18446744073709551614") {
		t.Errorf("numbers changed: %v", row)
	}
	if s := p.signals[0]; s.Tag != "counts" || s.Topic != "line/1/counts" || s.ReceivedTime.IsZero() || !json.Valid(s.Payload) {
		t.Errorf("signal is %+v", s)
	}
}

// A driver that is dropped between durable and acknowledged is what kill -9 leaves behind: the next one starts with the
// cursor of the last durable batch and gets the messages again.
func TestKilledAgentLosesNothingAndStoresNothingTwice(t *testing.T) {
	inBoth(t, testKilledAgentLosesNothingAndStoresNothingTwice)
}

func testKilledAgentLosesNothingAndStoresNothingTwice(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{MaxInflight: 200})
	p, m := newPlant(t), newMachine(t, b, nil)
	stop := p.start(section(b, version+"\nbatch: 50\nwindow: 200"))
	p.awaitOK()
	p.learn(m)
	m.publish("line/1/counts", 500)
	p.awaitAll(m)
	for round := range 6 {
		stop()
		m.publish("line/1/counts", 400)
		d, err := Kind.New(p.env(), decodeYAML(section(b, version+"\nbatch: 50\nwindow: 200")))
		if err != nil {
			t.Fatal(err)
		}
		died, n := make(chan struct{}), 0
		stop = p.run(d, func(ctx context.Context, batch signal.Batch) error {
			if n++; n > round+1 { // the batch becomes durable, the answer is never seen
				if n == round+2 {
					p.emit(ctx, batch)
					close(died)
				}
				<-ctx.Done()
				return ctx.Err()
			}
			return p.emit(ctx, batch)
		})
		<-died
	}
	stop()
	p.start(section(b, version))
	p.awaitAll(m)
	m.publish("line/1/counts", 1)
	p.awaitAll(m)
	p.check(m)
}

func TestRefusedBatchIsOfferedAgainUntilItIsTaken(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p, m := newPlant(t), newMachine(t, b, nil)
	p.start(section(b, ""))
	p.awaitOK()
	p.set(func() { p.refuse = errors.New("disk full") })
	m.publish("line/1/counts", 100)
	p.await("held state", func() bool { return p.state == signal.StateHeld })
	if p.count() != 0 {
		t.Fatal("refused signals were counted as durable")
	}
	p.set(func() { p.refuse = nil })
	p.awaitAll(m)
	p.awaitOK()
	p.check(m)
}

func TestFullBufferHoldsTheBrokerBackAndKeepsTheConnection(t *testing.T) {
	inBoth(t, testFullBufferHoldsTheBrokerBackAndKeepsTheConnection)
}

func testFullBufferHoldsTheBrokerBackAndKeepsTheConnection(t *testing.T, version string) {
	const window = 100
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{MaxInflight: window})
	p, m := newPlant(t), newMachine(t, b, nil)
	p.start(impatient(section(b, version+"\n"+fmt.Sprintf("window: %d\nbatch: 10", window))))
	p.awaitOK()
	gate := make(chan struct{})
	p.set(func() { p.gate = gate })
	m.publish("line/1/counts", 3000)
	p.await("held state", func() bool { return p.state == signal.StateHeld })
	// Longer than the keep-alive and its patience: a blocked receiver would lose the connection.
	held := time.NewTimer(4 * time.Second)
	<-held.C
	if got := p.count(); got != 0 {
		t.Fatalf("%d signals passed a closed buffer", got)
	}
	p.set(func() { p.gate = nil; close(gate) })
	p.awaitAll(m)
	p.check(m)
	if log := b.Output(); strings.Count(log, "as linekeeper-p-a-s") > 1 {
		t.Errorf("the driver connected more than once:\n%s", log)
	}
}

func TestBrokerThatSendsItsWholeQueueCannotFillTheMemory(t *testing.T) {
	inBoth(t, testBrokerThatSendsItsWholeQueueCannotFillTheMemory)
}

func testBrokerThatSendsItsWholeQueueCannotFillTheMemory(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{MaxInflight: 20_000})
	p, m := newPlant(t), newMachine(t, b, nil)
	d, err := Kind.New(p.env(), decodeYAML(impatient(section(b, version))))
	if err != nil {
		t.Fatal(err)
	}
	p.run(d, p.emit)
	p.awaitOK()
	gate := make(chan struct{})
	p.set(func() { p.gate = gate })
	m.publish("line/1/counts", 15_000)     // window is 5,000
	held := time.NewTimer(3 * time.Second) // longer than the broker waits for a sign of life
	<-held.C
	if n := d.(*driver).session.Load().Waiting(); n == 0 || n > 7000 { // what is in small buffers comes on top
		t.Errorf("%d messages are in memory; the window is 5000", n)
	}
	p.set(func() { p.gate = nil; close(gate) })
	p.awaitAll(m)
	p.check(m)
}

func TestBrokerRestartLosesNothingThatItKept(t *testing.T) {
	inBoth(t, testBrokerRestartLosesNothingThatItKept)
}

func testBrokerRestartLosesNothingThatItKept(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p, m := newPlant(t), newMachine(t, b, nil)
	p.start(section(b, version))
	p.awaitOK()
	p.learn(m)
	for range 3 {
		gate := make(chan struct{})
		p.set(func() { p.gate = gate })
		m.publish("line/1/counts", 1000)
		b.Kill(15) // it writes its memory to disk
		if err := b.Run(); err != nil {
			t.Fatal(err)
		}
		p.set(func() { p.gate = nil; close(gate) })
		p.awaitAll(m)
	}
	p.check(m)
	if p.problems["session"] != nil {
		t.Errorf("a gap is reported although the broker kept the session: %v", p.problems["session"])
	}
}

func TestLostSessionIsReportedAndMessagesInHandAreSaved(t *testing.T) {
	inBoth(t, testLostSessionIsReportedAndMessagesInHandAreSaved)
}

func testLostSessionIsReportedAndMessagesInHandAreSaved(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{Extra: "autosave_interval 0"})
	p, m := newPlant(t), newMachine(t, b, nil)
	p.start(section(b, version))
	p.awaitOK()
	gate := make(chan struct{})
	p.set(func() { p.gate = gate })
	m.publish("line/1/counts", 100)
	p.await("held state", func() bool { return p.state == signal.StateHeld })
	b.Kill(9)
	if err := b.Run(); err != nil {
		t.Fatal(err)
	}
	p.set(func() { p.gate = nil; close(gate) })
	if x := p.awaitProblem("session", "possible_gap"); !strings.Contains(x.NextStep, "persistence") {
		t.Errorf("next step is %q", x.NextStep)
	}
	p.awaitAll(m)
	m.publish("line/1/counts", 10)
	p.awaitAll(m)
	p.check(m)
}

func TestFrozenBrokerIsNoticedAndReadAgain(t *testing.T) {
	inBoth(t, testFrozenBrokerIsNoticedAndReadAgain)
}

func testFrozenBrokerIsNoticedAndReadAgain(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p, m := newPlant(t), newMachine(t, b, nil)
	p.start(impatient(section(b, version)))
	p.awaitOK()
	p.learn(m)
	m.publish("line/1/counts", 100)
	p.awaitAll(m)
	b.Signal(19) // SIGSTOP: the connection stays open, nothing answers
	p.await("failed state", func() bool { return p.state == signal.StateFailed })
	b.Signal(18)
	p.awaitOK()
	m.publish("line/1/counts", 100)
	p.awaitAll(m)
	p.check(m)
}

func TestWrongPasswordIsAClearProblem(t *testing.T) { inBoth(t, testWrongPasswordIsAClearProblem) }

func testWrongPasswordIsAClearProblem(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{User: "agent", Password: "right"})
	p := newPlant(t)
	realparts.WriteFile(t, filepath.Join(p.dir, "pw"), "wrong-secret\n")
	p.start(section(b, version+"\nusername: agent\npassword_file: pw"))
	x := p.awaitProblem("connect", "login_refused")
	if !strings.Contains(x.Reason, `"agent"`) || !strings.Contains(x.NextStep, "password_file") || strings.Contains(fmt.Sprint(*x), "wrong-secret") {
		t.Errorf("problem is %+v", x)
	}
	realparts.WriteFile(t, filepath.Join(p.dir, "pw"), "right\r\n") // corrected while the agent runs
	p.awaitOK()
	p.await("no problem", func() bool { return p.problems["connect"] == nil })
}

func TestUnknownAuthorityIsRefusedAndTheRightOneTaken(t *testing.T) {
	inBoth(t, testUnknownAuthorityIsRefusedAndTheRightOneTaken)
}

func testUnknownAuthorityIsRefusedAndTheRightOneTaken(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{TLS: true, ClientCertificates: true})
	cert, key := b.ClientCertificate(t, "agent")
	p := newPlant(t)
	stop := p.start(section(b, version+"\n"+fmt.Sprintf("cert: %s\nkey: %s", cert, key)))
	p.awaitProblem("connect", "certificate_unknown")
	stop()
	stop = p.start(section(b, version+"\n"+fmt.Sprintf("cert: %s\nkey: %s\nca: %s\nserver_name: elsewhere", cert, key, b.CAFile)))
	p.awaitProblem("connect", "certificate_name")
	stop()
	stop = p.start(section(b, version+"\nca: "+b.CAFile))
	p.awaitProblem("connect", "certificate_refused")
	stop()
	p.start(section(b, version+"\n"+fmt.Sprintf("cert: %s\nkey: %s\nca: %s", cert, key, b.CAFile)))
	p.awaitOK()
}

func TestBadMessagesAreReportedWithTheirPlaceAndDoNotBlockOthers(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p, m := newPlant(t), newMachine(t, b, nil)
	config := fmt.Sprintf(`
broker: %s
topics:
- {tag: j, topic: j, max_size: 100}
- {tag: t, topic: t, format: text}
- {tag: b, topic: b, format: bytes}`, b.URL())
	stop := p.start(config)
	p.awaitOK()
	m.send("j", 1, false, `{"n": 1,}`)
	m.send("j", 1, false, `{"n": 1} x`)
	m.send("j", 1, false, `{"n": 1`)
	m.send("j", 1, false, ``)
	m.send("j", 1, false, `{"long": "`+strings.Repeat("x", 200)+`"}`)
	m.send("t", 1, false, []byte{0xff, 0xfe})
	m.send("t", 1, false, "Größe")
	m.send("b", 1, false, []byte{0, 0xff})
	m.send("j", 0, false, `[1.10, null]`)
	p.await("9 signals", func() bool { return len(p.signals) == 9 })
	for i, want := range []string{"byte 9:", "byte 8: more", "byte 7: the message ends too early", "byte 0: the message ends", "200", "UTF-8"} {
		s := p.signals[i]
		if i == 4 {
			want = "more than max_size 100"
		}
		if s.Problem == nil || !strings.Contains(s.Problem.Reason, want) || s.Problem.NextStep == "" || s.Value != nil {
			t.Errorf("signal %d: problem %+v, want a reason with %q", i, s.Problem, want)
		}
	}
	if got := p.signals[4].Payload; len(got) != 100 {
		t.Errorf("%d bytes of the large message are kept", len(got))
	}
	if p.signals[6].Value != "Größe" || string(p.signals[7].Value.([]byte)) != "\x00\xff" {
		t.Errorf("values are %v, %v", p.signals[6].Value, p.signals[7].Value)
	}
	if got := fmt.Sprint(p.signals[8].Value); got != "[1.10 <nil>]" {
		t.Errorf("array is %s", got)
	}
	p.awaitProblem("qos:j", "qos_0")
	stop()
	p.start(config) // bad ones were acknowledged: none comes again
	p.awaitOK()
	m.send("t", 1, false, "last")
	p.await("10 signals", func() bool { return len(p.signals) == 10 && p.signals[9].Value == "last" })
}

func TestTopicThatLeftTheConfigurationIsUnsubscribed(t *testing.T) {
	inBoth(t, testTopicThatLeftTheConfigurationIsUnsubscribed)
}

func testTopicThatLeftTheConfigurationIsUnsubscribed(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p, m := newPlant(t), newMachine(t, b, nil)
	config := func(topics string) string {
		return fmt.Sprintf(version+"\nbroker: %s\ntopics: [%s]\n", b.URL(), topics)
	}
	stop := p.start(config("{tag: x, topic: x}, {tag: y, topic: y}"))
	p.awaitOK()
	stop()
	m.send("x", 1, false, `1`) // waits in the session: nobody may lose it silently
	stop = p.start(config("{tag: y, topic: y}, {tag: z, topic: z}"))
	p.awaitOK()
	m.send("x", 1, false, `2`)
	m.send("z", 1, false, `3`)
	p.await("two signals", func() bool { return len(p.signals) == 2 })
	if s := p.signals[0]; s.Problem == nil || s.Problem.Code != "unexpected_topic" || string(s.Payload) != "1" {
		t.Errorf("the message of the removed topic became %+v", s)
	}
	if s := p.signals[1]; s.Tag != "z" || s.Value != signal.Number("3") {
		t.Errorf("second signal is %+v", s)
	}
	stop()
	m.send("x", 1, false, `4`)
	m.send("y", 1, false, `5`)
	p.start(config("{tag: y, topic: y}, {tag: z, topic: z}"))
	p.await("three signals", func() bool { return len(p.signals) == 3 })
	if s := p.signals[2]; s.Tag != "y" {
		t.Errorf("third signal is %+v: the old subscription is still there", s)
	}
}

func TestRetainedSnapshotsAreSkippedUnlessWanted(t *testing.T) {
	inBoth(t, testRetainedSnapshotsAreSkippedUnlessWanted)
}

func testRetainedSnapshotsAreSkippedUnlessWanted(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p, m := newPlant(t), newMachine(t, b, nil)
	m.send("count", 1, true, `1`)
	m.send("state", 1, true, `"running"`)
	p.start(fmt.Sprintf(version+"\nbroker: %s\ntopics: [{tag: c, topic: count}, {tag: s, topic: state, retained: use}]\n", b.URL()))
	p.awaitOK()
	m.send("count", 1, true, `2`) // live: the flag is not set on the way to those who are subscribed
	p.await("two signals", func() bool { return len(p.signals) == 2 })
	if s := p.signals[0]; s.Tag != "s" || s.Status != "retained" {
		t.Errorf("first signal is %+v", s)
	}
	if s := p.signals[1]; s.Tag != "c" || s.Value != signal.Number("2") || s.Status != "" {
		t.Errorf("second signal is %+v", s)
	}
}

// Mosquitto's access list grants every subscription and then stays silent, so a broker that says no stands in.
func TestRefusedTopicLeavesTheOthersAlone(t *testing.T) {
	server, address := startMochi(t, &mochi.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)})
	p := newPlant(t)
	p.start(fmt.Sprintf("broker: %s\ntopics: [{tag: secret, topic: secret/#}, {tag: open, topic: open/#}]\n", address))
	p.awaitProblem("topic:secret", "topic_refused")
	if err := server.Publish("open/x", []byte(`1`), false, 1); err != nil {
		t.Fatal(err)
	}
	p.await("one signal", func() bool { return len(p.signals) == 1 })
}

// allowOpen lets anybody in and read what lies under open/.
type allowOpen struct{ mochi.HookBase }

func (*allowOpen) Provides(b byte) bool {
	return b == mochi.OnConnectAuthenticate || b == mochi.OnACLCheck
}

func (*allowOpen) OnConnectAuthenticate(*mochi.Client, packets.Packet) bool { return true }

func (*allowOpen) OnACLCheck(_ *mochi.Client, topic string, write bool) bool {
	return strings.HasPrefix(topic, "open/")
}

func TestTwinWithTheSameClientIDIsNoticed(t *testing.T) {
	inBoth(t, testTwinWithTheSameClientIDIsNoticed)
}

func testTwinWithTheSameClientIDIsNoticed(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p := newPlant(t)
	p.start(section(b, version))
	p.awaitOK()
	newMachine(t, b, func(o *paho.ClientOptions) {
		o.SetClientID("linekeeper-p-a-s").SetCleanSession(false).SetAutoReconnect(true)
	})
	if x := p.awaitProblem("client_id", "client_id_conflict"); x.Item != "linekeeper-p-a-s" {
		t.Errorf("problem is %+v", x)
	}
}
