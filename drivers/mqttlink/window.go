package mqttlink

import "sync"

// window holds what was received on one connection and is not yet taken. While it is full the connection is not read: not
// every broker heeds its own limit of unacknowledged messages (mosquitto 2.0 sends its whole queue after the first
// acknowledgement), and what stays in the network stays at the broker.
type window struct {
	maxCount, maxBytes int
	ready              chan struct{} // has one element when there is something to take

	mu      sync.Mutex
	room    sync.Cond
	waiting []Message
	bytes   int
	closed  bool
}

func newWindow(maxCount, maxBytes int) *window {
	w := &window{maxCount: maxCount, maxBytes: maxBytes, ready: make(chan struct{}, 1)}
	w.room.L = &w.mu
	return w
}

// put never blocks: what is read was let through by wait. After close it keeps nothing.
func (w *window) put(m Message) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return
	}
	w.waiting = append(w.waiting, m)
	w.bytes += len(m.Payload)
	if len(w.waiting) == 1 {
		w.wake()
	}
}

// wait blocks while the window is full and not closed, and reports whether it had to.
func (w *window) wait() (blocked bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for w.full() && !w.closed {
		blocked = true
		w.room.Wait()
	}
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

func (w *window) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.waiting)
}

// take moves up to max of the oldest messages into batch, which is emptied first.
func (w *window) take(batch []Message, max int) []Message {
	w.mu.Lock()
	defer w.mu.Unlock()
	n := min(max, len(w.waiting))
	batch = append(batch[:0], w.waiting[:n]...)
	rest := copy(w.waiting, w.waiting[n:])
	clear(w.waiting[rest:])
	w.waiting = w.waiting[:rest]
	for i := range batch {
		w.bytes -= len(batch[i].Payload)
	}
	if rest > 0 {
		w.wake()
	}
	w.room.Broadcast()
	return batch
}

// close lets nothing more in and frees whoever waits. What waits can still be taken.
func (w *window) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	w.room.Broadcast()
}
