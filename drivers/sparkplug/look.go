package sparkplug

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/mqttlink"
	"github.com/linekeeper/linekeeper/drivers/sparkplug/payload"
)

const (
	// listening is how long a look listens: nodes that speak are asked for their birth, and answer at once.
	listening = 4 * time.Second
	// lookFresh is how long what was heard serves further looks.
	lookFresh = time.Minute
)

// look is what was heard of edge nodes, sorted by path.
type look struct {
	mu    sync.Mutex
	heard []signal.Entry
	at    time.Time
}

// newExplorer makes a driver that only looks around; its metrics may be empty.
func newExplorer(env signal.Env, decode func(into any) error) (signal.Driver, error) {
	var c Config
	if err := decode(&c); err != nil {
		return nil, err
	}
	c.fill(env)
	if len(c.Metrics) == 0 {
		c.Metrics = []Metrics{{Tag: "all", Metric: "**"}}
		c.Metrics[0].fill()
	}
	u, err := c.validate()
	if err != nil {
		return nil, err
	}
	return &driver{env: env, config: c, broker: u}, nil
}

// aside connects beside the running agent: under a name of its own, and without a word on whether the host is online. A node
// that heard such a word would send what it stores, and nobody would keep it.
func (d *driver) aside(ctx context.Context) (*mqttlink.Session, mqttlink.Options, error) {
	o := d.options(d.config.ClientID+"-look", nil)
	s, err := mqttlink.Connect(ctx, o)
	return s, o, err
}

// Probe implements signal.Prober.
func (d *driver) Probe(ctx context.Context) (steps []signal.Step) {
	step := func(name, detail string, p *signal.Problem) bool {
		steps = append(steps, signal.Step{Name: name, Detail: detail, Problem: p})
		return p == nil
	}
	o := d.options("", nil)
	host := d.broker.Hostname()
	addresses, err := net.DefaultResolver.LookupHost(ctx, host)
	if err != nil {
		step("name "+host+" is known", "", mqttlink.Explain(err, &o))
		return steps
	}
	step("name "+host+" is known", strings.Join(addresses, ", "), nil)
	conn, err := (&net.Dialer{Timeout: patience}).DialContext(ctx, "tcp", d.broker.Host)
	if err != nil {
		step("port "+d.broker.Port()+" is open", "", mqttlink.Explain(err, &o))
		return steps
	}
	conn.Close()
	step("port "+d.broker.Port()+" is open", "", nil)
	s, o, err := d.aside(ctx)
	if err != nil {
		step("the broker lets the agent in", "", mqttlink.Explain(err, &o))
		return steps
	}
	defer s.Close()
	step("the broker lets the agent in", "MQTT "+string(s.Version), nil)
	grants, err := s.Subscribe(ctx, d.config.Host.subscriptions())
	if err != nil {
		step("the namespace may be read", "", mqttlink.Explain(err, &o))
		return steps
	}
	for _, g := range grants {
		step("topic "+g.Filter+" may be read", "", refusedTopic(g))
	}
	return steps
}

func refusedTopic(g mqttlink.Grant) *signal.Problem {
	if g.Refused == nil {
		return nil
	}
	return &signal.Problem{Code: "topic_refused", Item: g.Filter, Reason: "the broker refuses this subscription: " + g.Refused.String(),
		NextStep: "allow the agent's user to read the topic at the broker (access list)"}
}

// listen hears the births of the nodes that speak, unless that was done lately.
func (d *driver) listen(ctx context.Context) ([]signal.Entry, error) {
	l := &d.look
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.heard != nil && time.Since(l.at) < lookFresh {
		return l.heard, nil
	}
	s, o, err := d.aside(ctx)
	if err != nil {
		p := mqttlink.Explain(err, &o)
		return nil, fmt.Errorf("%s (%s)", p.Reason, p.NextStep)
	}
	defer s.Close()
	if _, err := s.Subscribe(ctx, d.config.Host.subscriptions()); err != nil {
		return nil, fmt.Errorf("listen to edge nodes: %w", err)
	}
	all := Metrics{Tag: "all", Metric: "**"}
	all.fill()
	h, err := newHost(selection{all}, hostSettings{reorderWait: time.Second, rebirthWait: listening, rebirth: d.config.Host.Rebirth == "ask",
		maxSize: d.config.Host.MaxSize}, nil)
	if err != nil {
		return nil, err
	}
	enough := time.NewTimer(listening)
	defer enough.Stop()
	for waiting := true; waiting; {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.Done():
			return nil, fmt.Errorf("listen to edge nodes: %w", s.Err())
		case <-enough.C:
			waiting = false
		case <-s.Ready():
		}
		batch := s.Take(nil, batchMessages)
		for i := range batch {
			h.receive(&message{topic: batch[i].Topic, payload: batch[i].Payload, received: batch[i].Received, retained: batch[i].Retained}, batch[i].Received)
		}
		for _, id := range h.take().rebirths {
			if err := askBirth(ctx, s, id); err != nil {
				return nil, fmt.Errorf("ask %s for its birth: %w", id, err)
			}
		}
		if _, err := s.Acknowledge(batch); err != nil {
			return nil, fmt.Errorf("listen to edge nodes: %w", err)
		}
	}
	if l.heard = h.entries(); len(l.heard) == 0 {
		l.heard = nil
		return nil, errors.New("no edge node was heard: nodes that wait for a primary host speak only while it is online (start the agent with metric \"**\", then look at the values that come)")
	}
	l.at = time.Now()
	return l.heard, nil
}

// What an entry's ID begins with.
const (
	levelID  = "level:"
	metricID = "metric:"
)

// entries are all metrics that were born.
func (h *host) entries() (list []signal.Entry) {
	for _, n := range h.nodes {
		for _, dev := range n.devices {
			for _, m := range dev.metrics {
				if !m.address.protocol() {
					list = append(list, m.entry())
				}
			}
		}
	}
	slices.SortFunc(list, func(a, b signal.Entry) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

func (m *metric) entry() signal.Entry {
	a := m.address
	e := signal.Entry{ID: metricID + a.String(), Path: a.String(), Name: a.metric[strings.LastIndexByte(a.metric, '/')+1:], Kind: "metric", Type: m.kind.String(),
		Unit: m.unit, Readable: true}
	if m.live != nil {
		e.Value, e.Quality = excerpt(m.live.Value), m.live.Quality
	}
	device := a.device
	if device == "" {
		device = noDevice
	}
	e.Tag = fmt.Sprintf("tag: %s\ngroup: %s\nnode: %s\ndevice: %s\nmetric: %s\n", strconv.Quote(e.Name), strconv.Quote(a.group), strconv.Quote(a.node),
		strconv.Quote(device), strconv.Quote(a.metric))
	return e
}

// excerpt is the beginning of a value as one line of text.
func excerpt(v any) string {
	text := []rune(strings.Join(strings.Fields(fmt.Sprint(v)), " "))
	if len(text) > 80 {
		return string(text[:80]) + "..."
	}
	return string(text)
}

// Browse implements signal.Browser: groups, nodes, devices, and the levels of metrics' names.
func (d *driver) Browse(ctx context.Context, at, page string, limit int) ([]signal.Entry, string, error) {
	heard, err := d.listen(ctx)
	if err != nil {
		return nil, "", err
	}
	below := below(heard, strings.TrimPrefix(at, levelID))
	from, _ := slices.BinarySearchFunc(below, page, func(e signal.Entry, id string) int { return cmp.Compare(e.ID, id) })
	below = below[from:]
	if limit > 0 && len(below) > limit {
		return below[:limit], below[limit].ID, nil
	}
	return below, "", nil
}

// below are the levels and metrics right below a path, sorted by their IDs.
func below(heard []signal.Entry, at string) []signal.Entry {
	var list []signal.Entry
	levels := map[string]bool{}
	if at != "" {
		at += "/"
	}
	for _, e := range heard {
		rest, ok := strings.CutPrefix(e.Path, at)
		if !ok {
			continue
		}
		name, _, deeper := strings.Cut(rest, "/")
		switch {
		case !deeper:
			list = append(list, e)
		case !levels[name]:
			levels[name] = true
			list = append(list, signal.Entry{ID: levelID + at + name, Path: at + name, Name: name, Kind: "level", Children: true})
		}
	}
	slices.SortFunc(list, func(a, b signal.Entry) int { return cmp.Compare(a.ID, b.ID) })
	return list
}

// Find implements signal.Browser.
func (d *driver) Find(ctx context.Context, at, glob string, f func(signal.Entry) bool) error {
	heard, err := d.listen(ctx)
	if err != nil {
		return err
	}
	if at = strings.TrimPrefix(at, levelID); at != "" {
		at += "/"
	}
	for _, e := range heard {
		if strings.HasPrefix(e.Path, at) && match(glob, e.Path) && !f(e) {
			return nil
		}
	}
	return nil
}

// askBirth sends a node the request for its birth.
func askBirth(ctx context.Context, s *mqttlink.Session, id nodeID) error {
	command := payload.Payload{Timestamp: uint64(time.Now().UnixMilli()), Metrics: []payload.Metric{{
		Name: rebirthName, Type: payload.Boolean, Value: payload.Raw{Carrier: payload.BooleanValue, Bits: 1},
	}}}
	return publish(ctx, s, mqttlink.Publication{Topic: namespace + "/" + id.group + "/NCMD/" + id.node, Payload: command.Encode()})
}

// unitOf reads the property by which a node tells a metric's unit.
func unitOf(set []payload.Property) string {
	for i := range set {
		if p := &set[i]; strings.EqualFold(p.Key, "engUnit") && p.Value.Carrier == payload.StringValue {
			return excerpt(string(p.Value.Bytes))
		}
	}
	return ""
}
