package posting

import (
	"context"
	"slices"
	"sync"
)

// lanesOfTurn is how many orders are worked on for each call that one system may be asked at a time. While some wait for the
// store, others make use of the system's time; and those that wait share a commit.
const lanesOfTurn = 8

// turns lets so many calls at a time through to one system.
type turns struct {
	mu     sync.Mutex
	free   int
	urgent []chan struct{}
	others []chan struct{}
}

// take waits for a turn. What is urgent goes before everything else, each in the order of coming.
func (t *turns) take(ctx context.Context, urgent bool) error {
	t.mu.Lock()
	if t.free > 0 {
		t.free--
		t.mu.Unlock()
		return nil
	}
	mine, queue := make(chan struct{}), &t.others
	if urgent {
		queue = &t.urgent
	}
	*queue = append(*queue, mine)
	t.mu.Unlock()
	select {
	case <-mine:
		return nil
	case <-ctx.Done():
	}
	t.mu.Lock()
	i := slices.Index(*queue, mine)
	if i >= 0 {
		*queue = slices.Delete(*queue, i, i+1)
	}
	t.mu.Unlock()
	if i < 0 { // it came at the same time
		t.give()
	}
	return ctx.Err()
}

// give ends a turn.
func (t *turns) give() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, queue := range []*[]chan struct{}{&t.urgent, &t.others} {
		if len(*queue) > 0 {
			close((*queue)[0])
			*queue = (*queue)[1:]
			return
		}
	}
	t.free++
}

// wanted reports that others wait for a turn: then the system's time is used, whatever those do who have had theirs.
func (t *turns) wanted() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.urgent)+len(t.others) > 0
}

// turn is the right of one posting to ask its system. It is given back as soon as the answer is there, and not only when that
// is stored.
type turn struct {
	of   *turns
	held bool
}

func (t *turn) take(ctx context.Context, urgent bool) error {
	err := t.of.take(ctx, urgent)
	t.held = err == nil
	return err
}

func (t *turn) give() {
	if t.held {
		t.held = false
		t.of.give()
	}
}
