package mqtt

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	mochi "github.com/mochi-mqtt/server/v2"
	"github.com/mochi-mqtt/server/v2/listeners"
	"github.com/mochi-mqtt/server/v2/packets"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

// The session of an agent that spoke 3.1.1 goes on when it speaks 5, and back: what waits in it is delivered once.
func TestSessionSurvivesAChangeOfVersion(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p, m := newPlant(t), newMachine(t, b, nil)
	for _, version := range []string{"3.1.1", "5", "auto", "3.1.1"} {
		stop := p.start(section(b, "version: "+version))
		p.awaitOK()
		m.publish("line/1/counts", 50)
		p.awaitAll(m)
		stop()
		m.publish("line/1/counts", 50)
	}
	p.start(section(b, "version: auto"))
	p.awaitAll(m)
	p.check(m)
	if x := p.problems["session"]; x != nil {
		t.Errorf("a gap is reported: %+v", x)
	}
}

func TestGapHasABeginningAndAnEnd(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p, m := newPlant(t), newMachine(t, b, nil)
	before := time.Now().Add(-time.Second).Truncate(time.Second)
	stop := p.start(section(b, ""))
	p.awaitOK()
	m.publish("line/1/counts", 1)
	p.awaitAll(m)
	stop()
	thief, err := mqttlink.Connect(t.Context(), mqttlink.Options{Broker: brokerOf(t, b), ClientID: "linekeeper-p-a-s", Clean: true, KeepAlive: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	thief.Close() // the session is gone
	p.start(section(b, ""))
	x := p.awaitProblem("session", "possible_gap")
	var from, to time.Time
	words := strings.Fields(x.Reason)
	for i, w := range words[:len(words)-1] {
		switch w {
		case "from":
			from, _ = time.Parse(time.RFC3339, words[i+1])
		case "until":
			to, _ = time.Parse(time.RFC3339, words[i+1])
		}
	}
	if from.Before(before) || to.Before(from) || to.After(time.Now()) {
		t.Errorf("gap is from %s until %s: %s", from, to, x.Reason)
	}
}

// Another client_id is another session: what waits in the old one must not be forgotten.
func TestSessionThatWasLeftBehindIsNamed(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p, m := newPlant(t), newMachine(t, b, nil)
	stop := p.start(section(b, "client_id: old"))
	p.awaitOK()
	m.publish("line/1/counts", 1)
	p.awaitAll(m)
	stop()
	p.start(section(b, "client_id: new"))
	if x := p.awaitProblem("session_left", "session_left"); x.Item != "old" || !strings.Contains(x.Reason, time.Now().UTC().Format("2006-01-02T")) {
		t.Errorf("problem is %+v", x)
	}
}

func brokerOf(t *testing.T, b *realparts.Broker) *url.URL {
	t.Helper()
	u, err := mqttlink.ParseBroker(b.URL())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func TestLabelsAndPropertiesReachTheRules(t *testing.T) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p := newPlant(t)
	p.start(fmt.Sprintf("broker: %s\ntopics: [{tag: c, topic: 'acme/{site}/{line}/+/count', equipment: '{site}/{line}', with_properties: true}]\n", b.URL()))
	p.awaitOK()
	s, err := mqttlink.Connect(t.Context(), mqttlink.Options{Broker: brokerOf(t, b), ClientID: "m", Clean: true, KeepAlive: time.Second, Version: mqttlink.V5})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	err = s.Publish(t.Context(), mqttlink.Publication{Topic: "acme/ulm/l1/x/count", Payload: []byte("7"), QoS: 1, Properties: mqttlink.Properties{
		ContentType: "application/json", User: []mqttlink.Property{{Name: "shift", Value: "early"}}}})
	if err != nil {
		t.Fatal(err)
	}
	p.await("one signal", func() bool { return len(p.signals) == 1 })
	got, err := json.Marshal([]any{p.signals[0].Labels, p.signals[0].Value})
	if err != nil {
		t.Fatal(err)
	}
	want := `[{"equipment":"ulm/l1","line":"l1","site":"ulm"},{"payload":7,"properties":{"content_type":"application/json","user":{"shift":"early"}}}]`
	if string(got) != want {
		t.Errorf("signal carries %s, want %s", got, want)
	}
}

// Two agents share the messages of a line out: each comes to one of them.
func TestSharedSubscriptionSharesTheMessagesOut(t *testing.T) { inBoth(t, testSharedSubscription) }

func testSharedSubscription(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	m := newMachine(t, b, nil)
	var plants [2]*plant
	for i := range plants {
		plants[i] = newPlant(t)
		plants[i].start(fmt.Sprintf("broker: %s\n%s\nclient_id: agent%d\ntopics: [{tag: c, topic: $share/agents/line/+/counts}]\n", b.URL(), version, i))
		plants[i].awaitOK()
	}
	m.publish("line/1/counts", 200)
	realparts.Eventually(t, patience, "200 messages", func() error {
		if n := plants[0].count() + plants[1].count(); n != 200 {
			return fmt.Errorf("%d messages came", n)
		}
		return nil
	})
	seen := map[string]bool{}
	for _, p := range plants {
		if p.count() == 0 {
			t.Error("one of the two got nothing")
		}
		for _, s := range p.signals {
			n := fmt.Sprint(s.Value.(map[string]any)["n"])
			if seen[n] || s.Tag != "c" || s.Topic != "line/1/counts" {
				t.Errorf("message %s came twice or wrong: %+v", n, s)
			}
			seen[n] = true
		}
	}
}

// A broker without shared subscriptions would end the connection over one; the others go on.
func TestSharedSubscriptionThatTheBrokerCannotIsNamed(t *testing.T) {
	server, address := startMochi(t, &mochi.Options{InlineClient: true, Logger: slog.New(slog.DiscardHandler)}, new(noSharing))
	p := newPlant(t)
	p.start(fmt.Sprintf("broker: %s\ntopics: [{tag: s, topic: $share/g/open/s}, {tag: c, topic: open/c}]\n", address))
	if x := p.awaitProblem("topic:s", "topic_refused"); !strings.Contains(x.Reason, "shared") {
		t.Errorf("problem is %+v", x)
	}
	p.awaitOK()
	if err := server.Publish("open/c", []byte(`1`), false, 1); err != nil {
		t.Fatal(err)
	}
	p.await("one signal", func() bool { return len(p.signals) == 1 })
}

// noSharing tells clients that there are no shared subscriptions.
type noSharing struct{ mochi.HookBase }

func (*noSharing) Provides(b byte) bool { return b == mochi.OnPacketEncode }

func (*noSharing) OnPacketEncode(_ *mochi.Client, p packets.Packet) packets.Packet {
	if p.FixedHeader.Type == packets.Connack {
		p.Properties.SharedSubAvailable, p.Properties.SharedSubAvailableFlag = 0, true
	}
	return p
}

func startMochi(t *testing.T, o *mochi.Options, hooks ...mochi.Hook) (server *mochi.Server, address string) {
	t.Helper()
	port := realparts.FreePort(t)
	server = mochi.New(o)
	for _, h := range append(hooks, new(allowOpen)) {
		if err := server.AddHook(h, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := server.AddListener(listeners.NewTCP(listeners.Config{ID: "t", Address: fmt.Sprintf("127.0.0.1:%d", port)})); err != nil {
		t.Fatal(err)
	}
	if err := server.Serve(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return server, fmt.Sprintf("tcp://127.0.0.1:%d", port)
}

func TestBrokerThatKeepsSessionsTooShortIsNamed(t *testing.T) {
	capabilities := mochi.NewDefaultServerCapabilities()
	capabilities.MaximumSessionExpiryInterval = 600
	_, address := startMochi(t, &mochi.Options{Capabilities: capabilities, Logger: slog.New(slog.DiscardHandler)})
	p := newPlant(t)
	p.start(fmt.Sprintf("broker: %s\nsession_expiry: 48h\ntopics: [{tag: c, topic: open/c}]\n", address))
	if x := p.awaitProblem("session_expiry", "session_short"); !strings.Contains(x.Reason, "10m") {
		t.Errorf("problem is %+v", x)
	}
}

func TestTwinThatTheBrokerNamesIsShownAtOnce(t *testing.T) {
	_, address := startMochi(t, &mochi.Options{Logger: slog.New(slog.DiscardHandler)})
	p := newPlant(t)
	p.start(fmt.Sprintf("broker: %s\ntopics: [{tag: c, topic: open/c}]\n", address))
	p.awaitOK()
	u, err := mqttlink.ParseBroker(address)
	if err != nil {
		t.Fatal(err)
	}
	twin, err := mqttlink.Connect(t.Context(), mqttlink.Options{Broker: u, ClientID: "linekeeper-p-a-s", KeepAlive: time.Second, SessionExpiry: mqttlink.Forever})
	if err != nil {
		t.Fatal(err)
	}
	defer twin.Close()
	if x := p.awaitProblem("client_id", "client_id_conflict"); !strings.Contains(x.Reason, "took the session over") {
		t.Errorf("problem is %+v", x)
	}
}

// The status topic says online, then offline: by the agent when it stops, by the broker when the agent is gone.
func TestStatusTopicTellsWhetherTheAgentIsThere(t *testing.T) { inBoth(t, testStatusTopic) }

func testStatusTopic(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	proxy := realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", b.Port))
	said := make(chan string, 20)
	m := newMachine(t, b, nil)
	listen(t, m, "status", func(p []byte) {
		var s struct{ Status, Agent string }
		if err := json.Unmarshal(p, &s); err != nil || s.Agent != "a" {
			t.Errorf("status is %s", p)
		}
		said <- s.Status
	})
	expect := func(want string) {
		t.Helper()
		select {
		case got := <-said:
			if got != want {
				t.Fatalf("status is %q, want %q", got, want)
			}
		case <-time.After(patience):
			t.Fatalf("no status came, want %q", want)
		}
	}
	p := newPlant(t)
	config := fmt.Sprintf("broker: tcp://%s\n%s\nkeep_alive: 1s\nstatus_topic: status\ntopics: [{tag: c, topic: c}]\n", proxy.Addr(), version)
	stop := p.start(config)
	expect("online")
	stop()
	expect("offline")
	p.start(config)
	expect("online")
	proxy.Refuse(true)
	proxy.Cut()
	expect("offline")
	proxy.Refuse(false)
	expect("online")
}

func listen(t *testing.T, m *machine, filter string, f func(payload []byte)) {
	t.Helper()
	token := m.client.Subscribe(filter, 1, func(_ paho.Client, x paho.Message) { f(x.Payload()) })
	if !token.WaitTimeout(patience) || token.Error() != nil {
		t.Fatalf("subscribe: %v", token.Error())
	}
}

// A network that swallows everything and closes nothing: the agent connects anew and loses nothing.
func TestHalfOpenLinkLosesNothing(t *testing.T) { inBoth(t, testHalfOpenLink) }

func testHalfOpenLink(t *testing.T, version string) {
	b := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	proxy := realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", b.Port))
	p, m := newPlant(t), newMachine(t, b, nil)
	p.start(strings.Replace(impatient(section(b, version)), b.URL(), "tcp://"+proxy.Addr(), 1))
	p.awaitOK()
	p.learn(m)
	proxy.Refuse(true) // of new connections: the old one says nothing any more
	proxy.Swallow(true)
	m.publish("line/1/counts", 100)
	p.await("failed state", func() bool { return p.state == signal.StateFailed })
	proxy.Swallow(false)
	proxy.Refuse(false)
	p.awaitAll(m)
	p.check(m)
	if proxy.Connections() < 2 {
		t.Error("the link was not replaced")
	}
}
