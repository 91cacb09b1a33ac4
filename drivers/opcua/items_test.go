package opcua

import (
	"encoding/binary"
	"fmt"
	"strings"
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
