package opcua

import (
	"context"
	"sync"
)

// live is the session that the driver has at present, for callers beside the publish loop. Its calls may be made from any
// goroutine; they fail with a fault of the connection once the session is gone, and the caller then waits for the next one.
type live struct {
	*link
	facts serverFacts
}

// lobby is where callers meet the present session.
type lobby struct {
	mu  sync.Mutex
	now *live
	// came is closed when a session comes; made by whoever waits first.
	came chan struct{}
}

// open shows a session to those who wait.
func (b *lobby) open(l *live) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = l
	if b.came != nil {
		close(b.came)
		b.came = nil
	}
}

// close takes the session away.
func (b *lobby) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.now = nil
}

// present is the session of this moment, nil when there is none.
func (b *lobby) present() *live {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.now
}

// wait returns the present session as soon as there is one; its error is that of ctx.
func (b *lobby) wait(ctx context.Context) (*live, error) {
	for {
		b.mu.Lock()
		now := b.now
		if now == nil && b.came == nil {
			b.came = make(chan struct{})
		}
		came := b.came
		b.mu.Unlock()
		if now != nil {
			return now, nil
		}
		select {
		case <-came:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}
