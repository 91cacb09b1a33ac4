package sparkplug

import (
	"encoding/json"
	"fmt"
	"hash/fnv"
	"strings"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/sparkplug/payload"
)

// host is what is known of the edge nodes. It is pure: messages and the time go in, signals, requests and problems come
// out, and nothing of it waits for or asks anything. One goroutine owns it.
type host struct {
	rules    selection
	settings hostSettings
	nodes    map[nodeID]*node
	past     map[nodeID]mark // from the last run; removed once a node was heard
	metrics  int             // in the last births of all
	out      output
	away     bool // nodes were told that this host is offline: that they end their sessions then says nothing of their values
}

// hostSettings are the waiting times and bounds of a host.
type hostSettings struct {
	reorderWait time.Duration // for a message that another one overtook
	rebirthWait time.Duration // between two requests to a node, doubled up to rebirthMost
	historyWait time.Duration // for what a node stored while nobody listened; 0 hands on at once
	rebirth     bool          // requests may be sent
	maxSize     int           // bytes of a message that came compressed
	own         nodeID        // the agent as an edge node, which it does not read
}

// Bounds. What does not fit goes on with a reason; nothing is thrown away in silence.
const (
	rebirthMost   = 5 * time.Minute
	askKnownAfter = 5 * time.Second // before a node of the last run that says nothing is asked
	politeAsks    = 3               // requests to a node that says nothing
	lateBirth     = 250 * time.Millisecond
	gapShown      = time.Hour
	parkAge       = 10 * time.Minute
	maxParked     = 2000
	maxParkedSize = 4 << 20
	maxHeld       = 10_000
	maxWaiting    = 4 << 20 // bytes of messages that wait for an earlier one
	maxCatchUp    = 10 * time.Minute
	maxNodes      = 10_000
	maxDevices    = 2_000 // of one node
	maxMetrics    = 500_000
)

const bdSeqName = "bdSeq"

type nodeID struct{ group, node string }

func (n nodeID) String() string { return n.group + "/" + n.node }

// mark is what a node's session was like: the number of its birth and of its next message.
type mark struct {
	BdSeq uint64 `json:"b"`
	Next  uint8  `json:"n"`
}

// output is what the host wants done.
type output struct {
	signals  []signal.Signal
	rebirths []nodeID
	problems map[string]*signal.Problem // by key; nil removes it
}

// message is one MQTT message of the namespace.
type message struct {
	topic    string
	payload  []byte
	received time.Time
	retained bool
	kind     string // NBIRTH, DDATA, ...
	node     nodeID
	device   string
	decoded  payload.Payload
	hash     uint64
}

func newHost(rules selection, settings hostSettings, cursor []byte) (*host, error) {
	h := &host{rules: rules, settings: settings, nodes: map[nodeID]*node{}, past: map[nodeID]mark{}}
	h.out.problems = map[string]*signal.Problem{}
	if len(cursor) == 0 {
		return h, nil
	}
	var m hostMemory
	if err := json.Unmarshal(cursor, &m); err != nil {
		return h, fmt.Errorf("read cursor: %w", err)
	}
	for name, p := range m.Nodes {
		if group, id, ok := strings.Cut(name, "/"); ok {
			h.past[nodeID{group, id}] = p
		}
	}
	return h, nil
}

// hostMemory is the cursor: enough to notice what was missed while the agent was away. Births are asked for again.
type hostMemory struct {
	Nodes map[string]mark `json:"nodes"`
}

func (h *host) cursor() []byte {
	m := hostMemory{Nodes: make(map[string]mark, len(h.nodes)+len(h.past))}
	for id, p := range h.past {
		m.Nodes[id.String()] = p
	}
	for id, n := range h.nodes {
		if n.online {
			m.Nodes[id.String()] = mark{BdSeq: n.bdSeq, Next: n.next}
		}
	}
	b, err := json.Marshal(m)
	if err != nil {
		panic(err) // texts and numbers only
	}
	return b
}

// take returns what is to be done and forgets it.
func (h *host) take() output {
	out := h.out
	h.out = output{problems: map[string]*signal.Problem{}}
	return out
}

// connected notes a new connection: nodes that are known and stay silent are asked for their birth. Those that do not answer
// died while nobody listened.
func (h *host) connected(now time.Time) {
	for _, n := range h.nodes {
		if n.online && h.settings.rebirth {
			n.unheard = true
			n.ask.polite, n.ask.at = politeAsks, now.Add(askKnownAfter)
		}
	}
	for id := range h.past {
		n := h.node(id)
		if n == nil {
			return
		}
		n.ask.polite, n.ask.at = politeAsks, now.Add(askKnownAfter)
	}
}

// disconnected hands on what waited for something that will not come on this connection any more.
func (h *host) disconnected(now time.Time) {
	for _, n := range h.nodes {
		h.skipGaps(n, now)
		n.release()
	}
}

// receive takes one message. The topics of STATE are not for it.
func (h *host) receive(m *message, now time.Time) {
	if !m.parseTopic() || m.retained || m.node == h.settings.own {
		return // no message of a node, a snapshot of one that is long past, or the agent's own
	}
	n := h.node(m.node)
	if n == nil {
		h.out.problems["nodes"] = &signal.Problem{Code: "too_many_nodes", Item: m.node.String(),
			Reason:   fmt.Sprintf("more than %d edge nodes publish below the configured groups; this one is not read", maxNodes),
			NextStep: "name the groups that belong to this source in host.groups"}
		return
	}
	if !m.wanted() {
		return
	}
	var err error
	if m.decoded, err = payload.Read(m.payload, h.settings.maxSize); err != nil {
		h.out.signals = append(h.out.signals, unreadable(m, m.payload, m.topic, "bad_payload", err))
		return
	}
	m.hash = hashOf(m.topic, m.payload)
	if n.unheard {
		n.unheard, n.ask.polite = false, 0
	}
	switch m.kind {
	case "NBIRTH":
		h.nodeBirth(n, m, now)
	case "NDEATH":
		h.nodeDeath(n, m, now)
	default:
		h.sequenced(n, m, now)
	}
	h.due(n, now)
}

// wanted leaves out commands, which other hosts send to nodes.
func (m *message) wanted() bool {
	switch m.kind {
	case "NBIRTH", "NDEATH", "NDATA":
		return m.device == ""
	case "DBIRTH", "DDEATH", "DDATA":
		return m.device != ""
	}
	return false
}

const namespace = "spBv1.0"

func (m *message) parseTopic() bool {
	parts := strings.Split(m.topic, "/")
	if len(parts) < 4 || len(parts) > 5 || parts[0] != namespace || parts[1] == "STATE" {
		return false
	}
	m.node, m.kind = nodeID{parts[1], parts[3]}, parts[2]
	if len(parts) == 5 {
		m.device = parts[4]
	}
	return true
}

func (h *host) node(id nodeID) *node {
	n := h.nodes[id]
	if n == nil && len(h.nodes) < maxNodes {
		n = newNode(id, h)
		h.nodes[id] = n
	}
	return n
}

// tick does what is due by time.
func (h *host) tick(now time.Time) {
	for _, n := range h.nodes {
		h.due(n, now)
	}
}

// due does what is due for one node.
func (h *host) due(n *node, now time.Time) {
	if !n.gapSince.IsZero() && now.Sub(n.gapSince) >= h.settings.reorderWait {
		h.skipGap(n, now)
	}
	if n.catching() && !now.Before(n.historyUntil) {
		n.release()
		n.staleUnborn(now)
	}
	if len(n.parked) > 0 && now.Sub(n.parked[0].received) > parkAge {
		n.unpark(func(p parked) bool { return now.Sub(p.received) > parkAge }, "no_birth", errNoBirth)
	}
	if !n.gapAt.IsZero() && now.Sub(n.gapAt) > gapShown {
		n.gapAt = time.Time{}
		h.out.problems["gap:"+n.id.String()] = nil
	}
	if n.unheard && n.ask.polite == 0 && !now.Before(n.ask.at) {
		h.die(n, now)
	}
	n.askIfDue(now)
}

// next is when tick wants to be called at the latest; zero means that nothing is waited for.
func (h *host) next() time.Time {
	var first time.Time
	soon := func(t time.Time) {
		if !t.IsZero() && (first.IsZero() || t.Before(first)) {
			first = t
		}
	}
	for _, n := range h.nodes {
		if !n.gapSince.IsZero() {
			soon(n.gapSince.Add(h.settings.reorderWait))
		}
		if n.catching() {
			soon(n.historyUntil)
		}
		if len(n.parked) > 0 {
			soon(n.parked[0].received.Add(parkAge + time.Millisecond))
		}
		if n.ask.open() && h.settings.rebirth || n.unheard {
			soon(n.ask.at)
		}
	}
	return first
}

func hashOf(topic string, b []byte) uint64 {
	h := fnv.New64a()
	h.Write([]byte(topic))
	h.Write([]byte{0})
	h.Write(b)
	return h.Sum64()
}
