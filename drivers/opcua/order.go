package opcua

import "time"

// order puts notification messages into the order of their sequence numbers and knows which are missing. It is a value of
// one goroutine and does no work of its own.
type order struct {
	// next is the number of the next message to hand on.
	next uint32
	// fresh is true until the first message of the subscription has come.
	fresh bool
	// early are messages that came before their turn.
	early map[uint32]*message
	// horizon is the number that the server will use next, as far as is known: never behind next.
	horizon uint32
	// since is when the present gap was first seen; zero when there is none.
	since time.Time
	// behind counts messages in a row whose numbers were already handed on.
	behind int
}

func newOrder(next uint32, fresh bool) *order {
	return &order{next: next, fresh: fresh, early: map[uint32]*message{}, horizon: next}
}

// after is the number that follows: there is no 0.
func after(seq uint32) uint32 {
	if seq == 1<<32-1 {
		return 1
	}
	return seq + 1
}

// distance is how many steps b lies after a, in a circle of 2^32-1 numbers; more than half of them means before a.
func distance(a, b uint32) uint32 {
	if b >= a {
		return b - a
	}
	return 1<<32 - 1 - (a - b)
}

// ahead reports whether b comes after a.
func ahead(a, b uint32) bool {
	d := distance(a, b)
	return d > 0 && d < 1<<31
}

// take accepts a message and returns those whose turn it is now.
func (o *order) take(m *message, now time.Time) []*message {
	seq := m.seq
	if o.fresh && seq != o.next && !ahead(o.next, seq) {
		// A server that begins with another number than 1 is wrong, and still has values.
		o.next, o.horizon = seq, seq
	}
	o.fresh = false
	if seq != o.next && !ahead(o.next, seq) {
		o.behind++
		return nil
	}
	o.behind = 0
	o.early[seq] = m
	o.expect(after(seq), now)
	return o.release()
}

func (o *order) release() (ready []*message) {
	for {
		m, ok := o.early[o.next]
		if !ok {
			break
		}
		delete(o.early, o.next)
		ready = append(ready, m)
		o.next = after(o.next)
	}
	if !ahead(o.next, o.horizon) {
		o.horizon, o.since = o.next, time.Time{}
	} else if len(ready) > 0 {
		// Another gap than the one before: its time begins anew.
		o.since = time.Time{}
	}
	return ready
}

// expect notes that the server has used all numbers before seq.
func (o *order) expect(seq uint32, now time.Time) {
	if ahead(o.horizon, seq) {
		o.horizon = seq
	}
	if o.missing() && o.since.IsZero() {
		o.since = now
	}
}

// missing reports whether the message next exists and has not come.
func (o *order) missing() bool {
	_, here := o.early[o.next]
	return !here && ahead(o.next, o.horizon)
}

// overdue reports whether a gap has lasted longer than answers under way may take.
func (o *order) overdue(now time.Time, patience time.Duration) bool {
	if !o.missing() {
		return false
	}
	if o.since.IsZero() {
		o.since = now
	}
	return now.Sub(o.since) >= patience
}

// skip gives the missing messages up and returns how many they are and those whose turn it is now.
func (o *order) skip() (lost uint32, ready []*message) {
	to := o.horizon
	for seq := range o.early {
		if distance(o.next, seq) < distance(o.next, to) {
			to = seq
		}
	}
	lost = distance(o.next, to)
	o.next = to
	return lost, o.release()
}
