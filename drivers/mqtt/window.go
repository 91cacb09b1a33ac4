package mqtt

import (
	"sync"
	"time"
)

// message is one PUBLISH as it came.
type message struct {
	topic    string
	payload  []byte
	received time.Time
	id       uint16
	qos      byte
	dup      bool
	retained bool
	freed    bool // when it came, the broker had certainly read some acknowledgement of this connection
}

// window holds what was received on one connection and is not yet taken. While it is full the connection is not read: not
// every broker heeds its own limit of unacknowledged messages (mosquitto 2.0 sends its whole queue after the first
// acknowledgement), and what stays in the network stays at the broker.
type window struct {
	maxCount, maxBytes int
	ready              chan struct{} // has one element when there is something to take

	mu      sync.Mutex
	room    sync.Cond
	waiting []message
	bytes   int
	closed  bool
}

func newWindow(maxCount, maxBytes int) *window {
	w := &window{maxCount: maxCount, maxBytes: maxBytes, ready: make(chan struct{}, 1)}
	w.room.L = &w.mu
	return w
}

// put blocks while the window is full and reports whether it had to. After close it keeps nothing.
func (w *window) put(m message) (blocked bool) {
	w.mu.Lock()
	for w.full() && !w.closed {
		blocked = true
		w.room.Wait()
	}
	if w.closed {
		w.mu.Unlock()
		return blocked
	}
	w.waiting = append(w.waiting, m)
	w.bytes += len(m.payload)
	if len(w.waiting) == 1 {
		w.wake()
	}
	w.mu.Unlock()
	return blocked
}

func (w *window) wake() {
	select {
	case w.ready <- struct{}{}:
	default:
	}
}

func (w *window) full() bool { return len(w.waiting) >= w.maxCount || w.bytes >= w.maxBytes }

// holds reports whether the window is full now.
func (w *window) holds() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.full()
}

// take moves up to max of the oldest messages into batch, which is emptied first.
func (w *window) take(batch []message, max int) []message {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(max, len(w.waiting))
	batch = append(batch[:0], w.waiting[:n]...)
	rest := copy(w.waiting, w.waiting[n:])
	clear(w.waiting[rest:])
	w.waiting = w.waiting[:rest]
	for i := range batch {
		w.bytes -= len(batch[i].payload)
	}
	if rest > 0 {
		w.wake()
	}
	w.room.Broadcast()
	return batch
}

// close lets nothing more in and frees whoever waits in put. What waits can still be taken.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.room.Broadcast()
}
