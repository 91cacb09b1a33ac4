package opcua

import (
	"context"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

const (
	// outstanding is how many publish requests wait at the server: with a slow network one alone would limit the rate.
	outstanding = 3
	// window is how many notifications may be under way or wait to become durable.
	window = 6
)

// delivery is one notification on its way into the buffer.
type delivery struct {
	batch signal.Batch
	// sub and seq are what is acknowledged afterwards; seq is 0 when only the cursor changed.
	sub *subscription
	seq uint32
	at  time.Time
}

// emitter makes deliveries durable, one after the other, for as long as it takes. It outlives connections: what it holds
// was received and need not be asked for again.
type emitter struct {
	emit signal.Emit
	in   chan *delivery
	out  chan *delivery
	// fault is why the last attempt failed, nil while all is well.
	fault atomic.Pointer[string]
	retry time.Duration
}

func newEmitter(emit signal.Emit, retry time.Duration) *emitter {
	// Both channels hold all that may be under way, so that neither side ever waits for the other.
	const room = 2*window + 4
	return &emitter{emit: emit, in: make(chan *delivery, room), out: make(chan *delivery, room), retry: retry}
}

// run works until ctx ends. A delivery that could not be stored is tried again before the next one.
func (e *emitter) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case d := <-e.in:
			if !e.store(ctx, d) {
				return
			}
			e.out <- d
		}
	}
}

func (e *emitter) store(ctx context.Context, d *delivery) bool {
	for attempt := 0; ; attempt++ {
		err := e.emit(ctx, d.batch)
		if err == nil {
			e.fault.Store(nil)
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		reason := err.Error()
		e.fault.Store(&reason)
		if !pause(ctx, jitter(e.retry, 5*time.Second, attempt)) {
			return false
		}
	}
}

// jitter is a random wait of up to base doubled attempt times, but never more than limit.
func jitter(base, limit time.Duration, attempt int) time.Duration {
	d := limit
	if attempt < 20 && base<<attempt < limit {
		d = base << attempt
	}
	return d/20 + time.Duration(rand.Int64N(int64(d)))
}

// pause waits, and reports false when ctx ended first.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-t.C:
		return true
	}
}
