package opcua

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/gopcua/opcua/ua"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/buildscripts/realparts"
)

// testHistory takes the subscription away while the agent cannot reach the server: the server's queues are gone then, its history
// is not.
func testHistory(t *testing.T, plant *realparts.Plant) {
	const historised = 5
	for i := range historised {
		plant.Post(t, "/historise", map[string]any{"node": fmt.Sprintf("Count.%d", i)})
	}
	proxy := realparts.NewProxy(t, fmt.Sprintf("127.0.0.1:%d", plant.Port))
	b := newBench(t)
	b.prepare(plant)
	config, tags := counterConfig(plant.EndpointAt(proxy.Addr()), historised+2)
	b.start(b.driver(config, nil))
	b.awaitState(signal.StateOK)
	b.catchUp(plant, tags)
	proxy.Refuse(true)
	proxy.Cut()
	plant.Post(t, "/end-subscriptions", nil)
	awaitTicks(t, plant, 2000/period)
	proxy.Refuse(false)
	b.awaitState(signal.StateOK)
	values := b.catchUp(plant, tags[:historised])
	told := 0
	for _, s := range b.values("c0") {
		if strings.HasSuffix(s.Status, "(history)") {
			told++
			if s.Quality != signal.Good || s.SourceTime.IsZero() {
				t.Errorf("a value from the history is %s of %s", s.Status, s.SourceTime)
			}
		}
	}
	if told < 2000/period {
		t.Errorf("%d values of a tag came from the history, want at least %d", told, 2000/period)
	}
	p := b.problem("gap")
	if p == nil || !strings.Contains(p.Reason, fmt.Sprintf("of %d of %d tags", historised, historised+2)) {
		t.Fatalf("the gap is %+v", p)
	}
	t.Logf("%d values, 0 lost, 0 doubled, %d of a tag from the history; %s", values, told, p.Reason)
	// The tags without a history have the gap, and only that one.
	jumps := 0
	list := b.values(tags[historised])
	for i := 1; i < len(list); i++ {
		if step := number(t, list[i]) - number(t, list[i-1]); step > 1 {
			jumps++
		} else if step < 1 {
			t.Errorf("%d after %d", number(t, list[i]), number(t, list[i-1]))
		}
	}
	if jumps != 1 {
		t.Errorf("a tag without a history has %d gaps", jumps)
	}
}

// fakeHistorian keeps the histories of two nodes: one counts each second, one changes at times.
type fakeHistorian struct {
	*fakeServer
	start  time.Time
	count  int
	orders []int // the seconds at which the order changes
	most   int   // values in one answer
	calls  int
}

func (h *fakeHistorian) read(_ context.Context, nodes []*ua.ReadValueID, _ int) ([]*ua.DataValue, error) {
	var values []*ua.DataValue
	for range nodes {
		values = append(values, &ua.DataValue{EncodingMask: ua.DataValueValue, Value: ua.MustVariant(byte(5))})
	}
	return values, nil
}

func (h *fakeHistorian) history(_ context.Context, nodes []*ua.NodeID, start, end time.Time, limit int) (list []historyResult, err error) {
	h.calls++
	limit = min(limit, h.most)
	for _, n := range nodes {
		var r historyResult
		add := func(second int, v any) {
			at := h.start.Add(time.Duration(second) * time.Second)
			switch {
			case at.Before(start) || !at.Before(end):
			case len(r.values) == limit:
				r.more = []byte{1}
			default:
				r.values = append(r.values, sent(h.t, &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp | ua.DataValueStatusCode,
					Value: ua.MustVariant(v), SourceTimestamp: at}))
			}
		}
		if n.StringID() == "count" {
			for i := range h.count {
				add(i, uint32(i))
			}
		} else {
			for _, i := range h.orders {
				add(i, fmt.Sprintf("order of %d", i))
			}
		}
		list = append(list, r)
	}
	return list, nil
}

// Histories come node by node and page by page; what is stored is in the order of time over all of them.
func TestAHistoryIsStoredInTheOrderOfTimeAndOnce(t *testing.T) {
	start := time.Now().Add(-time.Hour).Truncate(time.Second).UTC()
	for _, most := range []int{1, 3, 7, 10000} {
		b := newBench(t)
		d := b.driver("endpoint: opc.tcp://h:1\nanonymous: true\nnodes: [{tag: count, node: 's=count'}, {tag: order, node: 's=order'}]", nil)
		r := newReader(d, b.emit)
		ctx, cancel := context.WithCancel(t.Context())
		go r.emitter.run(ctx)
		h := &fakeHistorian{fakeServer: newFakeServer(t, 1, 1), start: start, count: 50, orders: []int{0, 10, 30}, most: most}
		r.types = newTypes(nil)
		r.sub = newSubscription("", table{Subscription: 3})
		// The count is stored up to 9, the order up to that of 0.
		for i, tag := range []string{"count", "order"} {
			at := []int{9, 0}[i]
			r.sub.add(&item{tableItem: tableItem{Handle: uint32(i + 1), Tag: tag, Node: "s=" + tag}, at: start.Add(time.Duration(at)*time.Second).Unix() * 1e7})
		}
		r.sub.unfilled = start.Add(9 * time.Second)
		if err := r.closeGap(ctx, h, serverFacts{namespaces: []string{""}}); err != nil {
			t.Fatal(err)
		}
		cancel()
		want := []string{"order of 10", "10"}
		for i := 11; i < 50; i++ {
			if i == 30 {
				want = append(want, "order of 30")
			}
			want = append(want, fmt.Sprint(i))
		}
		var got []string
		var latest time.Time
		for _, s := range b.signals {
			got = append(got, fmt.Sprint(s.Value))
			if s.SourceTime.Before(latest) {
				t.Errorf("%v of %s stands behind %s", s.Value, s.SourceTime, latest)
			}
			latest = s.SourceTime
		}
		if len(got) != len(want) {
			t.Errorf("with %d values an answer: got %d values, want %d: %v", most, len(got), len(want), got)
		}
		if p := b.problem("gap"); p == nil || !strings.Contains(p.Reason, fmt.Sprintf("gave %d values of 2 of 2 tags", len(want))) {
			t.Errorf("the gap is %+v", p)
		}
		// What the subscription tells once more is not news.
		l := &loop{reader: r}
		m := &message{seq: 1}
		for _, second := range []int{49, 50} {
			m.changes = append(m.changes, change{handle: 1, value: sent(t, &ua.DataValue{EncodingMask: ua.DataValueValue | ua.DataValueSourceTimestamp,
				Value: ua.MustVariant(uint32(second)), SourceTimestamp: start.Add(time.Duration(second) * time.Second)})})
		}
		if s := l.signals(m, time.Now()); len(s) != 1 || s[0].Value != signal.Number("50") {
			t.Errorf("the subscription told %v", s)
		}
	}
}

func TestASilentTagIsSaidUntilItSpeaks(t *testing.T) {
	w := newWrongServer(t, 2)
	w.notes = [][]byte{changeOf(counted(1))}
	b := newBench(t)
	b.start(b.driver(strings.Replace(fmt.Sprintf(wrongConfig, w.endpoint), "n0\"}", "n0\", expect_every: 1s}\n  - {tag: c1, node: \"ns=1;s=n1\"}", 1), nil))
	b.awaitCount("c0", 1)
	b.awaitProblem("silent:c0", "silent")
	if p := b.problem("silent:c1"); p != nil {
		t.Errorf("of a tag that nothing is expected of it is said: %s", p.Reason)
	}
	w.mu.Lock()
	w.notes = [][]byte{changeOf(counted(2))}
	w.mu.Unlock()
	b.awaitCount("c0", 2)
	realparts.Eventually(t, 10*time.Second, "the problem is gone", func() error {
		if p := b.problem("silent:c0"); p != nil && strings.Contains(p.Reason, "has not changed") {
			return fmt.Errorf("it is %s", p.Reason)
		}
		return nil
	})
}
