package mqtt

import (
	"fmt"
	"strings"
	"testing"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

func explorer(t *testing.T, p *plant, section string) *driver {
	t.Helper()
	d, err := Kind.Explore(p.env(), decodeYAML(section))
	if err != nil {
		t.Fatal(err)
	}
	return d.(*driver)
}

func TestARealBrokerIsDiscoveredProbedAndBrowsed(t *testing.T) {
	broker := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p := newPlant(t)
	address := strings.TrimPrefix(broker.URL(), "tcp://")
	offers, err := Kind.Discover(t.Context(), p.env(), address)
	if err != nil || len(offers) != 1 || offers[0].Secure || !strings.Contains(offers[0].Section, "broker: tcp://"+address) {
		t.Fatalf("%+v, %v", offers, err)
	}
	u, err := mqttlink.ParseBroker(broker.URL())
	if err != nil {
		t.Fatal(err)
	}
	s, err := mqttlink.Connect(t.Context(), mqttlink.Options{Broker: u, ClientID: "machines", Clean: true})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for topic, text := range map[string]string{
		"ulm/press1/count": `{"id":"7","order":"WO-1","good":17,"weight":1.250}`, "ulm/press1/temp": "21.5", "ulm/press2/count": `{"good":3}`, "ulm/press1": "running",
	} {
		if err := s.Publish(t.Context(), mqttlink.Publication{Topic: topic, Payload: []byte(text), QoS: 1, Retain: true}); err != nil {
			t.Fatal(err)
		}
	}
	d := explorer(t, p, offers[0].Section)
	for _, step := range d.Probe(t.Context()) {
		if step.Problem != nil {
			t.Errorf("%s: %+v", step.Name, step.Problem)
		}
	}
	list := func(at, page string, limit int) string {
		t.Helper()
		entries, next, err := d.Browse(t.Context(), at, page, limit)
		if err != nil {
			t.Fatal(err)
		}
		var out []string
		for _, e := range entries {
			out = append(out, fmt.Sprintf("%s %s %s %s", e.Kind, e.Name, e.Type, e.Value))
		}
		if next != "" {
			out = append(out, "next "+next)
		}
		return strings.Join(out, "; ")
	}
	if got := list("", "", 0); got != "level ulm  " {
		t.Error(got)
	}
	if got := list("level:ulm", "", 0); got != "level press1  ; topic press1 text running; level press2  " {
		t.Error(got)
	}
	if got := list("level:ulm/press1", "", 1); got != `topic count object {"id":"7","order":"WO-1","good":17,"weight":1.250}; next topic:ulm/press1/temp` {
		t.Error(got)
	}
	if got := list("level:ulm/press1", "topic:ulm/press1/temp", 1); got != "topic temp number 21.5" {
		t.Error(got)
	}
	if got := list("topic:ulm/press1/count", "", 0); got != "field good integer 17; field id text 7; field order text WO-1; field weight number 1.250" {
		t.Error(got)
	}
	var found []string
	if err := d.Find(t.Context(), "", "ulm/*/count", func(e signal.Entry) bool { found = append(found, e.Tag); return true }); err != nil || len(found) != 2 {
		t.Errorf("%v %v", found, err)
	}
	if _, err := Kind.New(p.env(), decodeYAML("broker: "+broker.URL()+"\ntopics:\n  - "+strings.ReplaceAll(strings.TrimSpace(found[0]), "\n", "\n    ")+"\n")); err != nil {
		t.Errorf("what was found is no topic: %v", err)
	}
	if _, err := Kind.New(p.env(), decodeYAML(offers[0].Section)); err == nil {
		t.Error("a source without topics may only look around")
	}
}

func TestAProbeSaysWhichStepFails(t *testing.T) {
	broker := realparts.Mosquitto(t, realparts.MosquittoOptions{})
	p := newPlant(t)
	last := func(section string) *signal.Problem {
		t.Helper()
		steps := explorer(t, p, section).Probe(t.Context())
		return steps[len(steps)-1].Problem
	}
	if got := last("broker: tcp://no-such-host.invalid:1883\n"); got == nil || got.Code != "name_unknown" {
		t.Errorf("%+v", got)
	}
	if got := last(fmt.Sprintf("broker: tcp://127.0.0.1:%d\n", realparts.FreePort(t))); got == nil || !strings.Contains(got.Reason, "nothing listens") {
		t.Errorf("%+v", got)
	}
	if got := last("broker: " + strings.Replace(broker.URL(), "tcp:", "tls:", 1) + "\n"); got == nil {
		t.Error("a broker without TLS passed a probe with it")
	}
	if _, err := Kind.Discover(t.Context(), p.env(), fmt.Sprintf("127.0.0.1:%d", realparts.FreePort(t))); err == nil || !strings.Contains(err.Error(), "nothing listens") {
		t.Error(err)
	}
}
