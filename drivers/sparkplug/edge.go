package sparkplug

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/sparkplug/payload"
)

const rebirthName = "Node Control/Rebirth"

// edge is the agent as an edge node: what it knows, and the messages that tell it. It is pure but for its lock.
type edge struct {
	config *Publish

	mu      sync.Mutex
	changed chan struct{} // has one element when there is news
	metrics []edgeMetric
	index   map[string]int
	born    bool
	bdSeq   uint64
	seq     uint8
	stored  []edgeValue // what changed while no host was told
	dropped uint64
}

// edgeMetric is a metric and its present value. Its alias is its place in the list.
type edgeMetric struct {
	name  string
	unit  string
	kind  payload.Type
	value edgeValue
	told  bool // the value is not news any more
}

// edgeValue is one value of a metric at one time.
type edgeValue struct {
	index int
	at    time.Time
	kind  payload.Type
	null  bool
	raw   payload.Raw
	// quality is that of a tag's value.
	quality signal.Quality
}

func newEdge(c *Publish) *edge {
	return &edge{config: c, changed: make(chan struct{}, 1), index: map[string]int{}}
}

// Publishes implements signal.Publisher.
func (d *driver) Publishes() (status, tags bool) {
	return d.edge != nil, d.edge != nil && len(d.config.Publish.Tags) > 0
}

// Publish implements signal.Publisher.
func (d *driver) Publish(metrics []signal.Metric) {
	if d.edge != nil {
		d.edge.update(metrics)
	}
}

// update takes the present values. Only what differs is news. A metric that is new, or has another type than it was born
// with, needs a new birth.
func (e *edge) update(metrics []signal.Metric) {
	e.mu.Lock()
	defer e.mu.Unlock()
	news := false
	for _, m := range metrics {
		if !e.config.tells(m.Name) {
			continue
		}
		v := edgeValueOf(m)
		i, known := e.index[m.Name]
		if !known && v.null {
			v.kind = payload.String // a birth must name some type
		}
		if !known {
			i = len(e.metrics)
			e.index[m.Name] = i
			e.metrics = append(e.metrics, edgeMetric{name: m.Name, unit: m.Unit, kind: v.kind})
			e.born = false
		}
		em := &e.metrics[i]
		v.index = i
		switch {
		case v.null:
			v.kind = em.kind
		case v.kind != em.kind:
			em.kind, e.born = v.kind, false
		}
		if known && v.same(&em.value) {
			continue
		}
		em.value, em.told, news = v, false, true
		if !e.born {
			e.keep(v)
		}
	}
	if news {
		select {
		case e.changed <- struct{}{}:
		default:
		}
	}
}

const tagsPrefix = "Tags/"

// tells reports whether a metric is one that the configuration wants told: everything about the agent, and chosen tags.
func (p *Publish) tells(name string) bool {
	tag, isTag := strings.CutPrefix(name, tagsPrefix)
	return !isTag || slices.ContainsFunc(p.Tags, func(glob string) bool { return match(glob, tag) })
}

// keep stores a value for a host that is away; at the bound the oldest goes, and is counted.
func (e *edge) keep(v edgeValue) {
	if e.config.PrimaryHost == "" {
		return // nobody is waited for: a birth tells the present values
	}
	if len(e.stored) >= e.config.Stored {
		over := len(e.stored) - e.config.Stored + 1
		e.stored = append(e.stored[:0], e.stored[over:]...)
		e.dropped += uint64(over)
	}
	e.stored = append(e.stored, v)
}

func (v *edgeValue) same(o *edgeValue) bool {
	return v.kind == o.kind && v.null == o.null && v.quality == o.quality && v.raw.Carrier == o.raw.Carrier && v.raw.Bits == o.raw.Bits && string(v.raw.Bytes) == string(o.raw.Bytes)
}

// connecting begins a session with the given number.
func (e *edge) connecting(bdSeq uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bdSeq, e.born = bdSeq, false
}

// ended notes that nobody hears the node any more.
func (e *edge) ended() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.born = false
}

func (e *edge) death() []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := payload.Payload{Timestamp: uint64(time.Now().UnixMilli()), Metrics: []payload.Metric{e.bdSeqMetric(0)}}
	return p.Encode()
}

func (e *edge) bdSeqMetric(timestamp uint64) payload.Metric {
	return payload.Metric{Name: bdSeqName, Timestamp: timestamp, Type: payload.Int64, Value: payload.Raw{Carrier: payload.LongValue, Bits: e.bdSeq}}
}

// birth tells everything, and begins the numbers of messages anew.
func (e *edge) birth(now time.Time) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	at := uint64(now.UnixMilli())
	p := payload.Payload{Timestamp: at, HasSeq: true, Metrics: make([]payload.Metric, 0, len(e.metrics)+2)}
	p.Metrics = append(p.Metrics, e.bdSeqMetric(at),
		payload.Metric{Name: rebirthName, Timestamp: at, Type: payload.Boolean, Value: payload.Raw{Carrier: payload.BooleanValue}})
	for i := range e.metrics {
		m := &e.metrics[i]
		m.told = true
		pm := m.value.metric()
		pm.Name, pm.Type = m.name, m.kind
		if m.unit != "" {
			pm.Properties = append(pm.Properties, payload.Property{Key: "engUnit", Type: payload.String,
				Value: payload.Raw{Carrier: payload.StringValue, Bytes: []byte(m.unit)}})
		}
		p.Metrics = append(p.Metrics, pm)
	}
	e.born, e.seq = true, 1
	e.stored = slices.DeleteFunc(e.stored, func(v edgeValue) bool { return v.at.Equal(e.metrics[v.index].value.at) }) // just told
	return p.Encode()
}

// needsBirth reports whether there is something that the last birth did not announce.
func (e *edge) needsBirth() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return !e.born && len(e.metrics) > 0
}

// historyMessage is how many stored values go into one message.
const historyMessage = 200

// data returns the next message, nil when there is no news: what was stored first.
func (e *edge) data(now time.Time) []byte {
	e.mu.Lock()
	defer e.mu.Unlock()
	p := payload.Payload{Timestamp: uint64(now.UnixMilli()), Seq: uint64(e.seq), HasSeq: true}
	if n := min(len(e.stored), historyMessage); n > 0 {
		for i := range e.stored[:n] {
			pm := e.stored[i].metric()
			pm.Historical = true
			p.Metrics = append(p.Metrics, pm)
		}
		e.stored = e.stored[n:]
	} else {
		for i := range e.metrics {
			if m := &e.metrics[i]; !m.told {
				m.told = true
				p.Metrics = append(p.Metrics, m.value.metric())
			}
		}
	}
	if len(p.Metrics) == 0 {
		return nil
	}
	e.seq++
	return p.Encode()
}

// metric is a value as data has it: under its alias, with its type in case it changed since.
func (v *edgeValue) metric() payload.Metric {
	pm := payload.Metric{Alias: uint64(v.index), HasAlias: true, Timestamp: uint64(v.at.UnixMilli()), Type: v.kind, Null: v.null, Value: v.raw}
	if code := qualityCodes[v.quality]; v.quality != signal.Good {
		pm.Properties = []payload.Property{{Key: "Quality", Type: payload.Int32, Value: payload.Raw{Carrier: payload.IntValue, Bits: code}}}
	}
	return pm
}

var qualityCodes = [...]uint64{signal.Good: 192, signal.Uncertain: 64, signal.Bad: 0}

// edgeValueOf chooses the type that carries a value exactly: a number that no type can hold travels as text.
func edgeValueOf(m signal.Metric) edgeValue {
	v := edgeValue{at: m.At, quality: m.Quality}
	words := func(kind payload.Type, s string) {
		v.kind, v.raw = kind, payload.Raw{Carrier: payload.StringValue, Bytes: []byte(s)}
	}
	switch x := m.Value.(type) {
	case nil:
		v.null = true
	case bool:
		v.kind, v.raw.Carrier = payload.Boolean, payload.BooleanValue
		if x {
			v.raw.Bits = 1
		}
	case string:
		words(payload.String, x)
	case signal.Number:
		v.number(string(x))
	case time.Time:
		v.kind, v.raw = payload.DateTime, payload.Raw{Carrier: payload.LongValue, Bits: uint64(x.UnixMilli())}
	case []byte:
		v.kind, v.raw = payload.Bytes, payload.Raw{Carrier: payload.BytesValue, Bytes: x}
	default:
		b, err := json.Marshal(x)
		if err != nil {
			b = fmt.Appendf(nil, "%v", x)
		}
		words(payload.String, string(b))
	}
	return v
}

func (v *edgeValue) number(s string) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		v.kind, v.raw = payload.Int64, payload.Raw{Carrier: payload.LongValue, Bits: uint64(n)}
		return
	}
	if n, err := strconv.ParseUint(s, 10, 64); err == nil {
		v.kind, v.raw = payload.UInt64, payload.Raw{Carrier: payload.LongValue, Bits: n}
		return
	}
	if f, err := strconv.ParseFloat(s, 64); err == nil && strconv.FormatFloat(f, 'f', -1, 64) == s {
		v.kind, v.raw = payload.Double, payload.Raw{Carrier: payload.DoubleValue, Bits: math.Float64bits(f)}
		return
	}
	v.kind, v.raw = payload.String, payload.Raw{Carrier: payload.StringValue, Bytes: []byte(s)}
}

// rebirthAsked reads a command.
func rebirthAsked(b []byte) bool {
	p, err := payload.Decode(b)
	if err != nil {
		return false
	}
	for i := range p.Metrics {
		m := &p.Metrics[i]
		if m.Name == rebirthName && m.Value.Carrier == payload.BooleanValue && m.Value.Bits == 1 {
			return true
		}
	}
	return false
}
