package opcua

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

func TestAServerWithoutSubscriptionsIsPolled(t *testing.T) {
	t.Parallel()
	w := newWrongServer(t, 2)
	w.handle(id.CreateSubscriptionRequest_Encoding_DefaultBinary, func(ua.Request) (ua.Response, error) { return nil, ua.StatusBadServiceUnsupported })
	b := newBench(t)
	config := fmt.Sprintf(wrongConfig, w.endpoint) + "  - {tag: c1, node: \"ns=1;s=n1\"}\n  - {tag: absent, node: \"ns=1;s=absent\"}\npoll_every: 50ms\n"
	b.start(b.driver(config, nil))
	b.awaitProblem("polling", "polling")
	b.awaitProblem("node:absent", "bad_node")
	for i := range uint32(5) {
		w.set("n0", i+1)
		b.awaitCount("c0", int64(i+1))
	}
	w.set("n0", uint32(5)) // the same with another time is no change
	w.set("n1", uint32(7))
	b.awaitCount("c1", 7)
	b.proof([]string{"c0"})
	for _, s := range b.values("c0") {
		if s.Status != "Good (polled)" || s.Quality != signal.Good || s.SourceTime.IsZero() {
			t.Errorf("a polled value is %q of %s", s.Status, s.SourceTime)
		}
	}

	// A restarted agent takes nothing for new that it has stored, and sees what changed meanwhile.
	b.stop()
	have := len(b.values("c0"))
	w.set("n1", uint32(8))
	b.start(b.driver(config, nil))
	b.awaitCount("c1", 8)
	if n := len(b.values("c0")); n != have {
		t.Errorf("%d values of a node that did not change, %d before the restart", n, have)
	}
	if p := b.problem("gap"); p != nil {
		t.Errorf("a gap was reported: %s", p.Reason)
	}
}

func TestASourceIsPolledWhereItIsWritten(t *testing.T) {
	t.Parallel()
	w := newWrongServer(t, 1)
	w.set("n0", uint32(3))
	b := newBench(t)
	b.start(b.driver(fmt.Sprintf(wrongConfig, w.endpoint)+"read: poll\npoll_every: 50ms\n", nil))
	b.awaitCount("c0", 3)
	if n := w.called(new(ua.CreateSubscriptionRequest)); n > 0 {
		t.Errorf("%d subscriptions were asked for", n)
	}
	if p := b.problem("polling"); p != nil {
		t.Errorf("what was written is a problem: %s", p.Reason)
	}
}

// testPolling polls a real server over a connection that breaks, and with a buffer that holds it back.
func testPolling(t *testing.T, plant *realparts.Plant) {
	proxy := realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", plant.Port))
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.EndpointAt(proxy.Addr()), 3)
	config += "  - {tag: recipe, node: \"ns=2;s=Type.Recipe\"}\nread: poll\npoll_every: 50ms\n"
	b.start(b.driver(config, func(p *pace) { p.held = time.Second }))
	b.awaitState(signal.StateOK)
	proxy.Cut()
	gate := make(chan struct{})
	b.mu.Lock()
	b.gate = gate
	b.mu.Unlock()
	b.awaitState(signal.StateHeld)
	b.mu.Lock()
	b.gate = nil
	b.mu.Unlock()
	close(gate)
	for _, tag := range tags {
		b.awaitCount(tag, plant.Counts(t).Counters["Count.0"])
		list := b.values(tag)
		for i := 1; i < len(list); i++ {
			if was, is := number(t, list[i-1]), number(t, list[i]); is <= was {
				t.Errorf("%s: %d after %d", tag, is, was)
			}
		}
	}
	if v, ok := b.values("recipe")[0].Value.(map[string]any); !ok || v["Name"] != "blue" {
		t.Errorf("the structure is %v", b.values("recipe")[0].Value)
	}
	if s := b.values("c0")[0].Status; !strings.HasSuffix(s, "(polled)") {
		t.Errorf("status is %q", s)
	}
}
