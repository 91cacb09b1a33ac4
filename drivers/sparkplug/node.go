package sparkplug

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/sparkplug/payload"
)

// node is one edge node and its devices.
type node struct {
	id   nodeID
	host *host

	// online: born and not dead. bdSeq is the number of its session, next the number of the next message.
	online bool
	bdSeq  uint64
	next   uint8
	// applied are the hashes of the messages of this session by their number, to know repetitions; missed are numbers that
	// were given up.
	applied [256]uint64
	missed  [256]bool
	// waiting are messages that came before an earlier one.
	waiting      map[uint8]*message
	waitingBytes int
	gapSince     time.Time // since when the earlier one is waited for
	gapAt        time.Time // when messages were last found missing

	dead    bool
	diedAt  time.Time
	unheard bool // born before the present connection and silent on it

	devices map[string]*device // "" is the node itself
	aliases map[uint64]*metric

	parked      []parked
	parkedBytes int
	ask         asking

	// A node that comes back sends what it stored in the meantime after what it measures now. What it measures now is held
	// until then, so that the rules get both in the order of time.
	historyUntil, historySince time.Time
	held                       []held
	recent                     repetitions
}

// device is a device of a node, or the node itself.
type device struct {
	name    string
	born    bool
	told    int // metrics in its last birth
	metrics map[string]*metric
}

// metric is one metric as its birth told it.
type metric struct {
	address address
	kind    payload.Type
	rule    *Metrics // nil when no rule wants it
	tag     string
	labels  map[string]string
	unit    string
	// live is the last present value, liveHash its content; stale since its death was told.
	live     *signal.Signal
	liveHash uint64
	stale    bool
	// handed is the time of the newest value that was handed on, in milliseconds.
	handed uint64
}

// parked is a metric that cannot be understood before the next birth.
type parked struct {
	device    string
	metric    payload.Metric
	timestamp uint64
	received  time.Time
	topic     string
}

// held is a present value that waits for history.
type held struct {
	metric    *metric
	signal    signal.Signal
	timestamp uint64
}

// asking is what a node is asked for: its birth.
type asking struct {
	wanted   bool // its data cannot be understood without
	polite   int  // requests left to a node that says nothing
	attempts int
	at       time.Time // not before
	last     time.Time
}

func (a *asking) open() bool { return a.wanted || a.polite > 0 }

var (
	errNoBirth  = errors.New("the node sent a value and never said in a birth what it is")
	errUnknown  = errors.New("the node sent a value under a name or alias that its birth does not have")
	errNewBirth = errors.New("the node ended before it said in a birth what this value is")
	errTooMany  = fmt.Errorf("more than %d values wait for the node's birth", maxParked)
)

func newNode(id nodeID, h *host) *node {
	return &node{id: id, host: h, waiting: map[uint8]*message{}, devices: map[string]*device{}, aliases: map[uint64]*metric{}}
}

func (n *node) problem(kind string, p *signal.Problem) {
	n.host.out.problems[kind+":"+n.id.String()] = p
}

// nodeBirth begins a session, or tells the present one anew.
func (h *host) nodeBirth(n *node, m *message, now time.Time) {
	bdSeq, numbered := bdSeqOf(&m.decoded)
	if n.dead && !n.online && numbered && bdSeq == n.bdSeq && now.Sub(n.diedAt) < lateBirth {
		// A death may overtake a birth that was under way. If the node lives after all, it answers.
		n.ask.polite, n.ask.at = politeAsks, now.Add(2*time.Second)
		return
	}
	if n.online && m.hash == n.applied[0] && m.decoded.Timestamp != 0 {
		return // the same message again
	}
	h.skipGaps(n, now)
	again := n.online && numbered && bdSeq == n.bdSeq
	n.checkAway(bdSeq, -1, now)
	n.online, n.dead, n.bdSeq = true, false, bdSeq
	n.applied, n.missed = [256]uint64{}, [256]bool{}
	first := uint8(m.decoded.Seq)
	n.next, n.applied[first] = first+1, m.hash
	n.ask.wanted, n.ask.polite = false, 0
	n.problem("birth", nil)
	n.noteProtocol(m, numbered)
	if !again {
		// Within a session devices stay what they are until their births are told anew, too.
		for _, d := range n.devices {
			d.born = false
		}
		clear(n.aliases)
		n.problem("history", nil)
		n.catchUp(now)
	}
	n.birth("", m, now)
}

// noteProtocol shows what keeps gaps and deaths of this node from being noticed.
func (n *node) noteProtocol(m *message, numbered bool) {
	var p *signal.Problem
	switch {
	case !numbered:
		p = &signal.Problem{Code: "no_bdseq", Item: n.id.String(), Reason: "the node's birth has no metric bdSeq: its death cannot be told from an older one",
			NextStep: "update the edge node's software; its values are read all the same"}
	case !m.decoded.HasSeq || m.decoded.Seq != 0:
		p = &signal.Problem{Code: "birth_seq", Item: n.id.String(), Reason: "the node's birth does not have the sequence number 0",
			NextStep: "update the edge node's software; its values are read all the same"}
	}
	n.problem("protocol", p)
}

// checkAway compares a node's first message of this run with where it was in the last one. seq is -1 for a birth.
func (n *node) checkAway(bdSeq uint64, seq int, now time.Time) {
	was, ok := n.host.past[n.id]
	if !ok {
		return
	}
	delete(n.host.past, n.id)
	switch {
	case seq < 0 && was.BdSeq != bdSeq, seq >= 0 && uint8(seq) == was.Next:
		return // it noticed that nobody listened, or nothing was sent
	case seq < 0:
		n.showGap(now, 1, "the node went on sending while the agent was not connected: what it sent then is lost unless it stored it")
	default:
		n.showGap(now, uint8(seq)-was.Next, fmt.Sprintf("at least %d messages of the node were missed while the agent was not connected", uint8(seq)-was.Next))
	}
}

// showGap tells of so many messages, at least, that never came; of none where the numbers say nothing about that.
func (n *node) showGap(at time.Time, missing uint8, reason string) {
	n.gapAt = at
	n.problem("gap", &signal.Problem{Code: "gap", Item: n.id.String(), Missing: uint64(missing), Reason: at.Format(time.RFC3339) + ": " + reason,
		NextStep: "compare the counts of this time with the machine; let the edge node store and forward with this agent as its primary host"})
}

func bdSeqOf(p *payload.Payload) (uint64, bool) {
	for i := range p.Metrics {
		if v := &p.Metrics[i].Value; p.Metrics[i].Name == bdSeqName && (v.Carrier == payload.LongValue || v.Carrier == payload.IntValue) {
			return v.Bits, true
		}
	}
	return 0, false
}

// nodeDeath ends a session, if it is that session's death.
func (h *host) nodeDeath(n *node, m *message, now time.Time) {
	bdSeq, numbered := bdSeqOf(&m.decoded)
	switch {
	case !n.online:
		n.unpark(func(parked) bool { return true }, "no_birth", errNewBirth) // the next birth may give its aliases to others
		return
	case numbered && bdSeq != n.bdSeq:
		return // the death of an earlier session
	}
	h.die(n, now)
}

func (h *host) die(n *node, now time.Time) {
	h.skipGaps(n, now)
	n.release()
	n.online, n.dead, n.diedAt, n.unheard = false, true, now, false
	n.unpark(func(parked) bool { return true }, "no_birth", errNewBirth)
	for _, name := range sortedKeys(n.devices) {
		if n.devices[name].born = false; !h.away {
			n.stale(n.devices[name], 0, now)
		}
	}
}

func (n *node) deviceDeath(m *message, now time.Time) {
	d := n.devices[m.device]
	if d == nil || !d.born {
		return
	}
	n.releaseDevice(m.device)
	d.born = false
	n.stale(d, m.decoded.Timestamp, now)
}

// staleUnborn gives up devices that have not come back with their node.
func (n *node) staleUnborn(now time.Time) {
	for _, name := range sortedKeys(n.devices) {
		if d := n.devices[name]; !d.born && n.online {
			n.stale(d, 0, now)
		}
	}
}

// stale says of every present value that nobody stands behind it any more.
func (n *node) stale(d *device, timestamp uint64, now time.Time) {
	for _, name := range sortedKeys(d.metrics) {
		m := d.metrics[name]
		if m.live == nil || m.stale || m.rule.Reports != reportsValue {
			continue
		}
		s := *m.live
		s.Quality, s.Status, s.Position = signal.Bad, "Stale", ""
		s.SourceTime, s.ReceivedTime = timeOf(timestamp), now
		m.stale = true
		n.host.out.signals = append(n.host.out.signals, s)
	}
}

// sequenced takes a message that has a number in its node's session.
func (h *host) sequenced(n *node, m *message, now time.Time) {
	if !n.online {
		if m.decoded.HasSeq {
			n.checkAway(0, int(uint8(m.decoded.Seq)), now)
		}
		n.unborn(m, now)
		return
	}
	if !m.decoded.HasSeq {
		n.apply(m, now)
		return
	}
	seq := uint8(m.decoded.Seq)
	switch ahead := seq - n.next; {
	case ahead == 0:
		n.advance(m, now)
		h.drain(n, now)
	case ahead < 128:
		if n.waiting[seq] == nil {
			n.waiting[seq], n.waitingBytes = m, n.waitingBytes+len(m.payload)
		}
		if n.gapSince.IsZero() {
			n.gapSince = now
		}
		if n.waitingBytes > maxWaiting {
			h.skipGap(n, now)
		}
	case n.applied[seq] == m.hash:
		// the same message again
	case n.missed[seq]:
		n.missed[seq], n.applied[seq] = false, m.hash
		n.apply(m, now) // late, but its values know their time
	default:
		n.showGap(now, 0, fmt.Sprintf("the node's message numbers went from %d back to %d without a birth", n.next, seq))
		n.want(now)
		n.next = seq
		n.advance(m, now)
	}
}

// advance applies the message that is next.
func (n *node) advance(m *message, now time.Time) {
	n.applied[n.next], n.missed[n.next] = m.hash, false
	n.next++
	n.apply(m, now)
}

// drain applies what waited for the message that has just come.
func (h *host) drain(n *node, now time.Time) {
	for {
		m := n.waiting[n.next]
		if m == nil {
			break
		}
		delete(n.waiting, n.next)
		n.waitingBytes -= len(m.payload)
		n.advance(m, now)
	}
	switch {
	case len(n.waiting) == 0:
		n.gapSince = time.Time{}
	case n.gapSince.IsZero():
		n.gapSince = now
	}
}

// skipGap gives up the messages before the first that waits, and asks for the node's birth.
func (h *host) skipGap(n *node, now time.Time) {
	if len(n.waiting) == 0 {
		n.gapSince = time.Time{}
		return
	}
	first := n.next
	for n.waiting[n.next] == nil {
		n.missed[n.next] = true
		n.next++
	}
	n.showGap(now, n.next-first, fmt.Sprintf("%d messages of the node (numbers %d to %d) never came", n.next-first, first, n.next-1))
	n.want(now)
	n.gapSince = time.Time{}
	h.drain(n, now)
}

// skipGaps applies everything that waits.
func (h *host) skipGaps(n *node, now time.Time) {
	for len(n.waiting) > 0 {
		h.skipGap(n, now)
	}
	n.gapSince = time.Time{}
}

// unborn parks the data of a node that has no session here.
func (n *node) unborn(m *message, now time.Time) {
	if m.kind == "NDATA" || m.kind == "DDATA" {
		n.park(m, m.decoded.Metrics, now)
	}
	n.want(now)
}

// apply takes a message whose turn it is.
func (n *node) apply(m *message, now time.Time) {
	switch m.kind {
	case "DBIRTH":
		n.birth(m.device, m, now)
	case "DDEATH":
		n.deviceDeath(m, now)
	default:
		n.data(m, now)
	}
}

// want asks for the node's birth, as soon as it may be asked again.
func (n *node) want(now time.Time) {
	if n.ask.wanted {
		return
	}
	if now.Sub(n.ask.last) > max(2*n.askAgain(), time.Minute) {
		n.ask.attempts = 0
	}
	n.ask.wanted = true
}

// askAgain is how long a node is left alone after the next request.
func (n *node) askAgain() time.Duration {
	return min(n.host.settings.rebirthWait<<min(n.ask.attempts, 10), rebirthMost)
}

func (n *node) askIfDue(now time.Time) {
	a := &n.ask
	if !a.open() || now.Before(a.at) || !n.host.settings.rebirth {
		return
	}
	n.host.out.rebirths = append(n.host.out.rebirths, n.id)
	wait := n.askAgain()
	a.attempts++
	a.polite = max(a.polite-1, 0)
	a.last, a.at = now, now.Add(wait)
	if a.wanted && a.attempts > 3 {
		n.problem("birth", &signal.Problem{Code: "no_birth", Item: n.id.String(),
			Reason:   fmt.Sprintf("the node was asked %d times for its birth and did not answer with one that explains its data; %d values wait for it", a.attempts, len(n.parked)),
			NextStep: "check that the node obeys Node Control/Rebirth and that the broker lets this agent publish NCMD; or restart the edge node"})
	}
}

func sortedKeys[V any](m map[string]V) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func timeOf(ms uint64) time.Time {
	if ms == 0 || ms > 253402300799999 { // the end of the year 9999
		return time.Time{}
	}
	return time.UnixMilli(int64(ms)).UTC()
}
