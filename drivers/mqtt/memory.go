package mqtt

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/linekeeper/linekeeper/drivers/mqttlink"
)

// memory is what the driver must know after a restart; it is the cursor that becomes durable with each batch.
type memory struct {
	// Broker and Client name the session that the rest is about.
	Broker string `json:"broker"`
	Client string `json:"client"`
	// Joined: the broker has confirmed this session at least once.
	Joined bool `json:"joined"`
	// Topics are the filters that the session may hold at the broker: written before subscribing and after unsubscribing,
	// so that none is ever forgotten there.
	Topics []string `json:"topics"`
	// Seen is when the session was last known to be in use.
	Seen time.Time `json:"seen,omitzero"`
	// Cycles: the broker numbers messages upward and does not use the number of an acknowledged one again soon.
	Cycles bool `json:"cycles"`
	// Unconfirmed holds the durable messages whose acknowledgement the broker may not have read: number (2 bytes) and hash
	// (8 bytes), big endian, oldest first.
	Unconfirmed []byte `json:"unconfirmed,omitempty"`
	// Cut: there were more of them before these.
	Cut bool `json:"cut,omitempty"`
}

// readMemory returns what holds for the session of a client at a broker; left is the session that the agent had before, when it
// is another one.
func readMemory(cursor []byte, broker, client string) (m memory, left *memory, err error) {
	fresh := memory{Broker: broker, Client: client}
	if len(cursor) == 0 {
		return fresh, nil, nil
	}
	if err := json.Unmarshal(cursor, &m); err != nil {
		return fresh, nil, fmt.Errorf("read cursor: %w", err)
	}
	if m.Broker != broker || m.Client != client { // at another place nothing of the old one holds
		if m.Joined {
			old := m // m is what is returned
			left = &old
		}
		return fresh, left, nil
	}
	return m, nil, nil
}

// delivery is a durable message whose acknowledgement the broker has perhaps not read.
type delivery struct {
	id       uint16
	hash     uint64
	acked    uint64 // the number of its acknowledgement on the present connection; 0 when it has none there
	repeated bool   // it came again on the present connection
}

// ledger knows which redelivered messages are durable already. MQTT sends a message again under its old number with the
// DUP flag, oldest first and before anything else, so number and content tell a repetition from news: exactly when it was
// never acknowledged, since only then the number cannot have been given to another message; and after an acknowledgement
// only at brokers that count their numbers upward, since others may use the number at once for a message of the same
// content.
type ledger struct {
	deliveries []delivery
	cycles     bool
	last       uint16 // the last number of a message that is not a repetition; 0 when none was seen
	over       bool   // all repetitions have come on this connection
	open       int    // deliveries before this one are acknowledged on the present connection
	came       int    // messages of QoS 1 on the present connection
	next       int    // where the next repetition is looked for
	keep       int    // so many of the latest are in the cursor; minDurable when less
	cut        bool   // older deliveries were forgotten: repetitions that nobody knows may come first
}

const (
	// maxDeliveries is more than acknowledgements have room for in the network: mosquitto reads them more slowly than it sends
	// messages, and then sends more than there are numbers.
	maxDeliveries = 500_000
	minDurable    = 500 // so many of the latest are in the cursor, at least
)

// newLedger goes on where the memory says. window is how many messages the broker may send without an acknowledgement: one
// that heeds it never has more unread acknowledgements, so that the cursor holds every message that can come again.
func newLedger(m memory, window int) ledger {
	l := ledger{cycles: m.Cycles, cut: m.Cut, keep: window}
	if !m.Cycles {
		return l // nobody knows any more which of them were acknowledged
	}
	for b := m.Unconfirmed; len(b) >= 10; b = b[10:] {
		l.deliveries = append(l.deliveries, delivery{id: binary.BigEndian.Uint16(b), hash: binary.BigEndian.Uint64(b[2:])})
	}
	return l
}

// durable is the first delivery that goes into the cursor: all that is not acknowledged, at least.
func (l *ledger) durable() int { return max(0, min(l.open, len(l.deliveries)-max(l.keep, minDurable))) }

func (l *ledger) bytes() []byte {
	latest := l.deliveries[l.durable():]
	out := make([]byte, 0, 10*len(latest))
	for _, d := range latest {
		out = binary.BigEndian.AppendUint16(out, d.id)
		out = binary.BigEndian.AppendUint64(out, d.hash)
	}
	return out
}

// connected starts a new connection. Without the old session nothing will be repeated. What was acknowledged on the old
// connection is kept only if its number still proves something.
func (l *ledger) connected(sessionPresent bool) {
	l.over, l.last, l.open, l.came, l.next = false, 0, 0, 0, 0
	if !sessionPresent {
		l.deliveries = nil
		l.cycles, l.cut = false, false
		return
	}
	if !l.cycles {
		l.cut = true
		l.deliveries = slices.DeleteFunc(l.deliveries, func(d delivery) bool { return d.acked > 0 })
	}
	for i := range l.deliveries {
		l.deliveries[i].acked, l.deliveries[i].repeated = 0, false
	}
}

// repeats reports whether a message of QoS 1 is durable already. It must be called for every such message, in order.
func (l *ledger) repeats(m *mqttlink.Message, hash uint64) bool {
	defer func() { l.came++ }()
	if !m.Dup {
		l.endRepetitions()
		l.observe(m)
		return false
	}
	if l.over {
		return false
	}
	for i := l.next; i < len(l.deliveries); i++ {
		if d := &l.deliveries[i]; d.id == m.ID && d.hash == hash && d.acked == 0 && !d.repeated {
			d.repeated = true
			l.dropBefore(i)
			return true
		}
	}
	if !l.cut || l.next > 0 { // it was sent and never came; so was all that follows
		l.endRepetitions()
	}
	return false
}

// dropBefore forgets what did not come again before the delivery at i did.
func (l *ledger) dropBefore(i int) {
	l.next = i + 1
	if i > 0 && l.deliveries[i-1].repeated {
		return // the usual case: nothing was left out
	}
	kept := slices.DeleteFunc(l.deliveries[:i:i], func(d delivery) bool { return d.acked == 0 && !d.repeated })
	if len(kept) < i {
		l.deliveries, l.open, l.next = append(kept, l.deliveries[i:]...), 0, len(kept)+1
	}
}

// endRepetitions forgets what did not come again: the broker had read its acknowledgement.
func (l *ledger) endRepetitions() {
	if !l.over {
		l.over, l.open, l.next, l.cut = true, 0, 0, false
		l.deliveries = slices.DeleteFunc(l.deliveries, func(d delivery) bool { return d.acked == 0 && !d.repeated })
	}
}

// observe learns from the number of a new message. A broker that goes on counting although lower numbers are free is one that
// counts upward: free because it has read an acknowledgement, or because fewer messages came on this connection than there are
// lower numbers.
func (l *ledger) observe(m *mqttlink.Message) {
	if l.last != 0 {
		next := l.last + 1
		if next == 0 {
			next = 1 // 0 is no number
		}
		l.cycles = m.ID == next && (l.cycles || m.Freed || int(m.ID) > l.came+1)
	}
	l.last = m.ID
}

// add notes messages that are durable now and not acknowledged yet.
func (l *ledger) add(d []delivery) {
	l.deliveries = append(l.deliveries, d...)
	if n := len(l.deliveries) - maxDeliveries; n > 0 {
		l.drop(n)
		l.cut = true
	}
}

// drop forgets the oldest n.
func (l *ledger) drop(n int) {
	if n > 0 {
		l.deliveries, l.open, l.next = l.deliveries[n:], max(0, l.open-n), max(0, l.next-n)
	}
}

// acknowledged notes that the given numbers were acknowledged on the present connection, after that many others.
func (l *ledger) acknowledged(ids []uint16, before uint64) {
	seq := make(map[uint16]uint64, len(ids))
	for i, id := range ids {
		seq[id] = before + uint64(i) + 1
	}
	for i := l.open; i < len(l.deliveries); i++ {
		d := &l.deliveries[i]
		if d.acked == 0 {
			d.acked = seq[d.id]
		}
		if d.acked > 0 && i == l.open {
			l.open++
		}
	}
}

// forget drops what the broker has certainly read.
func (l *ledger) forget(confirmed uint64) {
	n := 0
	for n < l.open && l.deliveries[n].acked <= confirmed {
		n++
	}
	l.drop(n)
}

// hash is FNV-1a over topic and payload.
func hash(m *mqttlink.Message) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(m.Topic) {
		h = (h ^ uint64(m.Topic[i])) * 1099511628211
	}
	h *= 1099511628211
	for _, c := range m.Payload {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
