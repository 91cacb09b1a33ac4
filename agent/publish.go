package agent

import (
	"context"
	"strconv"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/status"
)

// publishEvery is how often the sources that publish are told how the agent is.
const publishEvery = 5 * time.Second

// maxLatest bounds the tags whose values are published.
const maxLatest = 20_000

// latest keeps the last value of each tag, for sources that publish them.
type latest struct {
	mu   sync.Mutex
	tags map[latestKey]signal.Metric
}

type latestKey struct{ source, tag string }

func (l *latest) note(b signal.Batch) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range b.Signals {
		s := &b.Signals[i]
		k := latestKey{b.Source, s.Tag}
		at := s.SourceTime
		if at.IsZero() {
			at = s.ReceivedTime
		}
		before, known := l.tags[k]
		if s.Problem != nil || before.At.After(at) || !known && len(l.tags) >= maxLatest {
			continue // not a value, one of the past, or one too many
		}
		l.tags[k] = signal.Metric{Name: "Tags/" + b.Source + "/" + s.Tag, Value: s.Value, Quality: s.Quality, At: at}
	}
}

func (l *latest) metrics(into []signal.Metric) []signal.Metric {
	if l == nil {
		return into
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, m := range l.tags {
		m.Value = signal.Whole(m.Value)
		into = append(into, m)
	}
	return into
}

// notePublisher remembers a source that tells others how the agent is.
func (a *Agent) notePublisher(d signal.Driver) {
	p, ok := d.(signal.Publisher)
	if !ok {
		return
	}
	own, tags := p.Publishes()
	if own {
		a.publishers = append(a.publishers, p)
	}
	if own && tags && a.pipe.latest == nil {
		a.pipe.latest = &latest{tags: map[latestKey]signal.Metric{}}
	}
}

// runPublishers tells them, until ctx ends.
func (a *Agent) runPublishers(ctx context.Context) {
	if len(a.publishers) == 0 {
		return
	}
	tick := time.NewTicker(publishEvery)
	defer tick.Stop()
	for {
		metrics := a.pipe.latest.metrics(statusMetrics(a.Snapshot()))
		for _, p := range a.publishers {
			p.Publish(metrics)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// statusMetrics is a snapshot as others are told it. What changes by itself all the time, such as an age, is told as the time
// since when.
func statusMetrics(s status.Snapshot) []signal.Metric {
	var list []signal.Metric
	add := func(name string, value any) {
		list = append(list, signal.Metric{Name: name, Value: value, At: s.At})
	}
	count := func(n uint64) signal.Number { return signal.Number(strconv.FormatUint(n, 10)) }
	add("Agent/Plant", s.Plant)
	add("Agent/Name", s.Agent)
	add("Agent/Version", s.Version)
	add("Agent/State", s.State)
	add("Agent/Reason", s.Reason)
	add("Hub/State", s.Uplink.State)
	add("Hub/Connected", s.Uplink.State == "connected")
	add("Facts/Stored", count(s.Business.LastSeq))
	add("Facts/Waiting", count(s.Business.Pending))
	add("Facts/Oldest", moment(s.Business.Oldest))
	add("Facts/Quarantined", count(s.Quarantined))
	add("Facts/Held", s.Business.Held)
	add("Readings/Waiting", count(s.Telemetry.Pending))
	add("Readings/Dropped", count(s.Telemetry.Dropped))
	add("Orders/Known", count(uint64(len(s.WorkOrders))))
	running := map[string]string{}
	for _, o := range s.WorkOrders {
		if o.WorkCenter != "" {
			running[o.WorkCenter] += "" // a work centre without an order is told, too
		}
		if o.WorkCenter != "" && o.State == "started" {
			running[o.WorkCenter] = o.OrderNo
		}
	}
	for center, order := range running {
		add("Orders/Running/"+center, order)
	}
	for _, src := range s.Sources {
		add("Sources/"+src.Name+"/State", src.State)
		add("Sources/"+src.Name+"/Signals", count(src.Signals))
		add("Sources/"+src.Name+"/Problems", count(uint64(len(src.Problems))))
	}
	return list
}

// moment is a time, or nil for none.
func moment(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t
}
