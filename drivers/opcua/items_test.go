package opcua

import (
	"encoding/binary"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gopcua/opcua/id"
	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// onItems lets the server answer each wanted item.
func (w *wrongServer) onItems(answer func(i int, item *ua.MonitoredItemCreateRequest, res *ua.MonitoredItemCreateResult)) {
	w.handle(id.CreateMonitoredItemsRequest_Encoding_DefaultBinary, func(r ua.Request) (ua.Response, error) {
		res, err := w.createItems(r)
		for i, item := range r.(*ua.CreateMonitoredItemsRequest).ItemsToCreate {
			answer(i, item, res.(*ua.CreateMonitoredItemsResponse).Results[i])
		}
		return res, err
	})
}

func TestADeadbandThatTheServerRefusesIsLeftOut(t *testing.T) {
	t.Parallel()
	w := newWrongServer(t, 2)
	w.onItems(func(_ int, item *ua.MonitoredItemCreateRequest, res *ua.MonitoredItemCreateResult) {
		if item.RequestedParameters.Filter != nil && item.RequestedParameters.Filter.Value != nil {
			res.StatusCode = ua.StatusBadMonitoredItemFilterUnsupported
		}
	})
	w.notes = [][]byte{changeOf(counted(1))}
	b := newBench(t)
	b.start(b.driver(fmt.Sprintf(wrongConfig, w.endpoint)+"  - {tag: c1, node: \"ns=1;s=n1\", deadband: 0.5}\n", nil))
	b.awaitCount("c0", 1)
	b.awaitProblem("deadband:c1", "deadband")
	realparts.Eventually(t, 10*time.Second, "the node is asked for again", func() error {
		if n := w.called(new(ua.CreateMonitoredItemsRequest)); n < 2 {
			return fmt.Errorf("%d requests", n)
		}
		return nil
	})
	if p := b.problem("node:c1"); p != nil {
		t.Errorf("the node itself is said to be bad: %s", p.Reason)
	}
}

func TestLessThanWasAskedForIsSaid(t *testing.T) {
	t.Parallel()
	w := newWrongServer(t, 1)
	w.onItems(func(_ int, item *ua.MonitoredItemCreateRequest, res *ua.MonitoredItemCreateResult) {
		res.RevisedSamplingInterval, res.RevisedQueueSize = 1000, 1
	})
	b := newBench(t)
	b.start(b.driver(fmt.Sprintf(wrongConfig, w.endpoint), nil))
	b.awaitProblem("server_limits", "server_limits")
	p := b.problem("server_limits")
	for _, want := range []string{`queue 1 (tag "c0")`, `sampling 1s (tag "c0")`} {
		if !strings.Contains(p.Reason, want) {
			t.Errorf("the problem is %q, without %q", p.Reason, want)
		}
	}
}

// A server that ends the connection on a request that is too large for it is asked for less.
func TestAServerThatHangsUpOnManyItemsIsAskedForFewer(t *testing.T) {
	t.Parallel()
	const bears, nodes = 30, 100
	w := newWrongServer(t, nodes)
	proxy := realparts.NewProxy(t, strings.TrimPrefix(w.endpoint, "opc.tcp://"))
	w.handle(id.CreateMonitoredItemsRequest_Encoding_DefaultBinary, func(r ua.Request) (ua.Response, error) {
		if len(r.(*ua.CreateMonitoredItemsRequest).ItemsToCreate) > bears {
			proxy.Cut()
		}
		return w.createItems(r)
	})
	config := fmt.Sprintf(wrongConfig, "opc.tcp://"+proxy.Addr())
	for i := 1; i < nodes; i++ {
		config += fmt.Sprintf("  - {tag: c%d, node: \"ns=1;s=n%d\"}\n", i, i)
	}
	b := newBench(t)
	b.start(b.driver(config, func(p *pace) { p.retry, p.retryMax = 10*time.Millisecond, 50*time.Millisecond }))
	b.awaitState(signal.StateOK)
	w.mu.Lock()
	note := changeOf(counted(1))
	binary.LittleEndian.PutUint32(note[4:], w.handles["n0"])
	w.notes = [][]byte{note}
	w.mu.Unlock()
	b.awaitCount("c0", 1)
	if n := w.called(new(ua.CreateMonitoredItemsRequest)); n < 2+nodes/bears {
		t.Errorf("all items were made in %d requests", n)
	}
}

// A kind of server that is known is asked for what it bears, whatever it would grant.
func TestAKnownKindOfServerIsAskedForWhatItBears(t *testing.T) {
	b := newBench(t)
	r := newReader(b.driver("endpoint: opc.tcp://h:1\nanonymous: true\nnodes: [{tag: a, node: 's=a', sampling: 10ms, queue: 500, deadband: 1}, {tag: b, node: 's=b', sampling: 1s}]", nil), b.emit)
	r.sub = newSubscription("", table{NextHandle: 1})
	bears := profile{name: "Press 3000", sampling: 100 * time.Millisecond, queue: 20, noDeadband: true, items: 1}
	requests, _ := r.itemRequests(r.config.Nodes, serverFacts{namespaces: []string{""}, profile: bears})
	for i, want := range []ua.MonitoringParameters{{SamplingInterval: 100, QueueSize: 20}, {SamplingInterval: 1000, QueueSize: 20}} {
		got := requests[i].RequestedParameters
		if got.SamplingInterval != want.SamplingInterval || got.QueueSize != want.QueueSize || got.Filter != nil {
			t.Errorf("item %d is asked for as %+v, want %+v without a filter", i, got, want)
		}
	}
	if p := b.problem("deadband:a"); p == nil || !strings.Contains(p.Reason, "Press 3000") {
		t.Errorf("the deadband's problem is %+v", p)
	}
	r.checkLimits(bears)
	if p := b.problem("server_limits"); p == nil || !strings.Contains(p.Reason, "1 of 2 nodes") {
		t.Errorf("the limits' problem is %+v", p)
	}
}

// testDeadband asks a real server for a deadband in percent of a node that has no range.
func testDeadband(t *testing.T, plant *realparts.Plant) {
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.Endpoint(), 2)
	config = strings.Replace(config, "s=Count.0\", ", "s=Count.0\", deadband_percent: 50, ", 1)
	b.start(b.driver(config, nil))
	b.awaitProblem("deadband:c0", "deadband")
	b.catchUp(plant, tags)
}

// A server that was restarted gives the new subscription the number of the old one, which must not be swept away as abandoned.
func TestTheNewSubscriptionOfTheOldNumberIsKept(t *testing.T) {
	t.Parallel()
	w := newWrongServer(t, 1)
	var gone atomic.Bool
	w.handle(id.PublishRequest_Encoding_DefaultBinary, func(r ua.Request) (ua.Response, error) {
		if !gone.Swap(true) {
			return nil, ua.StatusBadNoSubscription
		}
		return w.publish(r)
	})
	w.handle(id.DeleteSubscriptionsRequest_Encoding_DefaultBinary, func(r ua.Request) (ua.Response, error) {
		t.Errorf("subscriptions %v are deleted", r.(*ua.DeleteSubscriptionsRequest).SubscriptionIDs)
		return nil, ua.StatusBadSubscriptionIDInvalid
	})
	b := newBench(t)
	b.start(b.driver(fmt.Sprintf(wrongConfig, w.endpoint), nil))
	b.awaitProblem("gap", "gap")
	realparts.Eventually(t, 20*time.Second, "two subscriptions were made", func() error {
		if n := w.called(new(ua.CreateSubscriptionRequest)); n < 2 {
			return fmt.Errorf("%d", n)
		}
		return nil
	})
	b.awaitState(signal.StateOK)
}
