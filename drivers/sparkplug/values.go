package sparkplug

import (
	"bytes"
	"encoding/json"
	"fmt"
	"hash/fnv"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/sparkplug/payload"
)

// birth takes what a birth tells of a device, or with an empty name of the node itself.
func (n *node) birth(name string, m *message, now time.Time) {
	d := n.devices[name]
	if d == nil {
		d = &device{name: name}
	}
	if n.host.metrics+len(m.decoded.Metrics)-d.told > maxMetrics || len(n.devices) >= maxDevices && n.devices[name] == nil {
		n.problem("size", &signal.Problem{Code: "too_many_metrics", Item: m.topic,
			Reason:   fmt.Sprintf("more than %d metrics, or %d devices of one node, are born; what this birth tells is not read", maxMetrics, maxDevices),
			NextStep: "name the groups that belong to this source in host.groups, or share the nodes among several agents"})
		return
	}
	n.devices[name] = d
	n.host.metrics += len(m.decoded.Metrics) - d.told
	d.told = len(m.decoded.Metrics)
	old := d.metrics
	d.metrics, d.born = make(map[string]*metric, len(m.decoded.Metrics)), true
	for alias, known := range n.aliases {
		if known.address.device == name {
			delete(n.aliases, alias)
		}
	}
	var told []int
	for i := range m.decoded.Metrics {
		pm := &m.decoded.Metrics[i]
		if pm.Fault != nil || pm.Name == "" {
			n.host.out.signals = append(n.host.out.signals, unreadableMetric(m.topic, m.received, pm, faultOf(pm)))
			continue
		}
		d.metrics[pm.Name] = n.describe(name, pm, old[pm.Name])
		if pm.HasAlias {
			n.aliases[pm.Alias] = d.metrics[pm.Name]
		}
		told = append(told, i)
	}
	n.understand(d, now)
	b := newBatch(m)
	for _, i := range told {
		pm := &m.decoded.Metrics[i]
		if mt := d.metrics[pm.Name]; mt.rule != nil && mt.rule.Reports == reportsValue {
			n.value(mt, pm, b, now, true)
		}
	}
}

func faultOf(pm *payload.Metric) error {
	if pm.Fault != nil {
		return pm.Fault
	}
	return fmt.Errorf("a metric in a birth has no name")
}

// describe makes what is known of a metric, with the present value of the birth before.
func (n *node) describe(device string, pm *payload.Metric, old *metric) *metric {
	a := address{n.id.group, n.id.node, device, pm.Name}
	mt := &metric{address: a, kind: pm.Type, unit: unitOf(pm.Properties)}
	if mt.rule, mt.tag = n.host.rules.find(a); mt.rule != nil {
		mt.labels = a.labels()
	}
	if old != nil {
		mt.handed = old.handed
		if old.kind == mt.kind {
			mt.live, mt.liveHash, mt.stale = old.live, old.liveHash, old.stale
		}
	}
	return mt
}

// understand hands on what waited for this birth.
func (n *node) understand(d *device, now time.Time) {
	for _, p := range n.parked {
		if p.device != d.name {
			continue
		}
		if mt := n.lookup(d, &p.metric); mt != nil {
			n.value(mt, &p.metric, &batch{timestamp: p.timestamp, received: p.received}, now, false)
		}
	}
	n.parked = slices.DeleteFunc(n.parked, func(p parked) bool {
		if p.device == d.name && n.lookup(d, &p.metric) != nil {
			n.parkedBytes -= len(p.metric.Bytes)
			return true
		}
		return false
	})
	n.unpark(func(p parked) bool { return p.device == d.name }, "unknown_metric", errUnknown)
}

// data takes values. Those that are not understood wait for the next birth; the others do not.
func (n *node) data(m *message, now time.Time) {
	d := n.devices[m.device]
	if d == nil || !d.born {
		n.park(m, m.decoded.Metrics, now)
		n.want(now)
		return
	}
	var unknown []payload.Metric
	b := newBatch(m)
	for i := range m.decoded.Metrics {
		pm := &m.decoded.Metrics[i]
		if pm.Fault != nil {
			n.host.out.signals = append(n.host.out.signals, unreadableMetric(m.topic, m.received, pm, pm.Fault))
			continue
		}
		if mt := n.lookup(d, pm); mt != nil {
			n.value(mt, pm, b, now, false)
		} else {
			unknown = append(unknown, *pm)
		}
	}
	if len(unknown) > 0 {
		n.park(m, unknown, now)
		n.want(now)
	}
}

func (n *node) lookup(d *device, pm *payload.Metric) *metric {
	if pm.Name != "" {
		return d.metrics[pm.Name]
	}
	if mt := n.aliases[pm.Alias]; pm.HasAlias && mt != nil && mt.address.device == d.name {
		return mt
	}
	return nil
}

// park keeps metrics until a birth explains them.
func (n *node) park(m *message, metrics []payload.Metric, now time.Time) {
	for _, pm := range metrics {
		n.parked = append(n.parked, parked{device: m.device, metric: pm, timestamp: m.decoded.Timestamp, received: m.received, topic: m.topic})
		n.parkedBytes += len(pm.Bytes)
	}
	over := 0
	for left, size := len(n.parked), n.parkedBytes; left > maxParked || size > maxParkedSize; left-- {
		size -= len(n.parked[over].metric.Bytes)
		over++
	}
	if over > 0 {
		count := 0
		n.unpark(func(parked) bool { count++; return count <= over }, "no_birth", errTooMany)
	}
}

// unpark puts aside, with a reason, what will not be understood any more.
func (n *node) unpark(which func(parked) bool, code string, why error) {
	n.parked = slices.DeleteFunc(n.parked, func(p parked) bool {
		if !which(p) {
			return false
		}
		n.parkedBytes -= len(p.metric.Bytes)
		s := unreadableMetric(p.topic, p.received, &p.metric, why)
		s.Problem.Code = code
		n.host.out.signals = append(n.host.out.signals, s)
		return true
	})
}

// batch is what the values of one message have in common.
type batch struct {
	timestamp uint64
	received  time.Time
	seen      map[string]int // positions, for a message that says one thing several times
}

func newBatch(m *message) *batch {
	return &batch{timestamp: m.decoded.Timestamp, received: m.received}
}

// value makes a signal of a metric and hands it on in its turn.
func (n *node) value(mt *metric, pm *payload.Metric, b *batch, now time.Time, birth bool) {
	if mt.rule == nil {
		return
	}
	timestamp := pm.Timestamp
	if timestamp == 0 {
		timestamp = b.timestamp
	}
	kind := pm.Type
	if kind == payload.Unknown {
		kind = mt.kind
	}
	v, err := pm.Convert(kind)
	if err != nil {
		s := unreadableMetric(mt.address.String(), b.received, pm, err)
		s.Tag, s.Labels, s.SourceTime = mt.tag, mt.labels, timeOf(timestamp)
		n.host.out.signals = append(n.host.out.signals, s)
		return
	}
	s := signal.Signal{Tag: mt.tag, Topic: mt.address.String(), Labels: mt.labels, Value: v.Value, SourceTime: timeOf(timestamp), ReceivedTime: b.received}
	s.Quality, s.Status = qualityOf(pm.Properties)
	switch {
	case v.NotNumber != "":
		s.Quality, s.Status = signal.Bad, v.NotNumber
	case s.Status == "" && pm.Historical:
		s.Status = "historical"
	case s.Status == "" && pm.Transient:
		s.Status = "transient"
	}
	content := contentHash(&s)
	s.Position = b.position(mt.address, timestamp, content)
	if pm.Historical {
		n.historical(mt, s, timestamp, now)
		return
	}
	n.live(mt, s, timestamp, content, now, birth)
}

// position is what a value is known by when it comes again: a node that stores and forwards may send what it sent before.
func (b *batch) position(a address, timestamp, content uint64) string {
	if timestamp == 0 {
		return "" // nothing tells it from the next one
	}
	p := fmt.Sprintf("%s|%d|%016x", a, timestamp, content)
	if b.seen == nil {
		b.seen = map[string]int{}
	}
	b.seen[p]++
	if times := b.seen[p]; times > 1 {
		p += "|" + strconv.Itoa(times)
	}
	return p
}

// historical hands on what a node had stored. It never becomes the present value.
func (n *node) historical(mt *metric, s signal.Signal, timestamp uint64, now time.Time) {
	if n.recent.repeats(s.Position) {
		return
	}
	n.catchUp(now)
	switch {
	case mt.rule.Reports == reportsEvent:
	case timestamp >= mt.handed:
		mt.handed = timestamp
	case s.Quality == signal.Good:
		// A counter that goes back in time would be taken for one that was reset.
		s.Quality, s.Status = signal.Uncertain, "historical, older than what was handed on before"
		n.problem("history", &signal.Problem{Code: "late_history", Item: mt.address.String(),
			Reason:   "the node sends a stored value after a newer one was handed on; it is kept as a reading and not counted",
			NextStep: "raise host.history_wait, or set reports: event for metrics each value of which is an event of its own"})
	}
	n.host.out.signals = append(n.host.out.signals, s)
}

// live takes a present value.
func (n *node) live(mt *metric, s signal.Signal, timestamp, content uint64, now time.Time, birth bool) {
	if birth && mt.live != nil && !mt.stale && mt.liveHash == content {
		return // the birth says what is known
	}
	mt.live, mt.liveHash, mt.stale = &s, content, false
	n.recent.repeats(s.Position)
	if mt.rule.Reports == reportsValue && n.catching() {
		n.held = append(n.held, held{mt, s, timestamp})
		if len(n.held) >= maxHeld {
			n.release()
		}
		return
	}
	mt.handed = max(mt.handed, timestamp)
	n.host.out.signals = append(n.host.out.signals, s)
}

func (n *node) catching() bool { return !n.historyUntil.IsZero() }

// catchUp holds present values for a while, or for longer while history is coming.
func (n *node) catchUp(now time.Time) {
	wait := n.host.settings.historyWait
	if wait == 0 {
		return
	}
	if !n.catching() {
		n.historySince = now
	}
	n.historyUntil = now.Add(wait)
	if last := n.historySince.Add(maxCatchUp); n.historyUntil.After(last) {
		n.historyUntil = last
	}
}

// release hands on what was held.
func (n *node) release() {
	n.historyUntil = time.Time{}
	n.handOn(n.held)
	n.held = nil
}

func (n *node) releaseDevice(name string) {
	var own, others []held
	for _, h := range n.held {
		if h.metric.address.device == name {
			own = append(own, h)
		} else {
			others = append(others, h)
		}
	}
	n.handOn(own)
	n.held = others
}

// handOn hands on present values in the order in which they came, which is the order of time at their node.
func (n *node) handOn(list []held) {
	for _, h := range list {
		h.metric.handed = max(h.metric.handed, h.timestamp)
		n.host.out.signals = append(n.host.out.signals, h.signal)
	}
}

// repetitions remembers the last values of a node by hashes of their positions.
type repetitions struct {
	known map[uint64]struct{}
	order []uint64
	next  int
}

const maxRepetitions = 4096

// repeats tells whether a position was there lately, and remembers it.
func (r *repetitions) repeats(position string) bool {
	if position == "" {
		return false
	}
	h := hashOf(position, nil)
	if _, ok := r.known[h]; ok {
		return true
	}
	if r.known == nil {
		r.known = map[uint64]struct{}{}
	}
	r.known[h] = struct{}{}
	if len(r.order) < maxRepetitions {
		r.order = append(r.order, h)
		return false
	}
	delete(r.known, r.order[r.next])
	r.order[r.next] = h
	r.next = (r.next + 1) % maxRepetitions
	return false
}

// qualityOf reads the property by which a node says how good a value is. Without one it is good.
func qualityOf(set []payload.Property) (signal.Quality, string) {
	for i := range set {
		p := &set[i]
		if !strings.EqualFold(p.Key, "Quality") || p.Null || p.Value.Carrier != payload.IntValue && p.Value.Carrier != payload.LongValue {
			continue
		}
		switch code := int32(p.Value.Bits); {
		case code >= 192 && code < 256:
			return signal.Good, ""
		case code >= 64 && code < 128, code >= 256 && code < 500:
			return signal.Uncertain, fmt.Sprintf("Quality %d", code)
		case code == 500:
			return signal.Bad, "Stale"
		default:
			return signal.Bad, fmt.Sprintf("Quality %d", code)
		}
	}
	return signal.Good, ""
}

// contentHash is the same for the same value of the same quality.
func contentHash(s *signal.Signal) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d\x00%T\x00", s.Quality, s.Value)
	switch v := s.Value.(type) {
	case signal.Number:
		h.Write([]byte(v))
	case string:
		h.Write([]byte(v))
	case []byte:
		h.Write(v)
	default:
		b, err := json.Marshal(v)
		if err != nil {
			b = fmt.Appendf(nil, "%v", v)
		}
		h.Write(b)
	}
	return h.Sum64()
}

// unreadable is a message that cannot be decoded: it goes into quarantine with its reason.
func unreadable(m *message, what []byte, item, code string, why error) signal.Signal {
	return signal.Signal{Tag: m.topic, Topic: m.topic, Payload: bytes.Clone(what), ReceivedTime: m.received,
		Problem: &signal.Problem{Code: code, Item: item, Reason: why.Error(),
			NextStep: "check that only Sparkplug B nodes publish below " + namespace + "/, and update the edge node's software"}}
}

// unreadableMetric is one metric that cannot be used.
func unreadableMetric(topic string, received time.Time, pm *payload.Metric, why error) signal.Signal {
	item := topic
	switch {
	case pm.Name != "" && !strings.HasSuffix(topic, "/"+pm.Name):
		item += ", metric " + strconv.Quote(pm.Name)
	case pm.Name == "" && pm.HasAlias:
		item += fmt.Sprintf(", alias %d", pm.Alias)
	}
	return signal.Signal{Tag: topic, Topic: topic, Payload: bytes.Clone(pm.Bytes), ReceivedTime: received,
		Problem: &signal.Problem{Code: "bad_value", Item: item, Reason: "the value cannot be used: " + why.Error(),
			NextStep: "correct the type or the value at the edge node, then discard the entry"}}
}
