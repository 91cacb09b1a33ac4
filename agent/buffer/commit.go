package buffer

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"
)

var errAborted = errors.New("the function of a neighbour ended its goroutine")

// request is a caller that waits.
type request struct {
	fn        func(*Tx) error
	small     bool // brings no records: never held back
	roll      bool // wants a new segment first
	cancelled bool
	answered  bool
	done      chan error
	turn      chan struct{} // a hint that there may be work for this caller
}

func newRequest(fn func(*Tx) error) *request {
	return &request{fn: fn, done: make(chan error, 1), turn: make(chan struct{}, 1)}
}

// answer tells the caller how it ended, the first time it is called.
func (r *request) answer(err error) {
	if !r.answered {
		r.answered = true
		r.done <- err
	}
}

// Commit runs fn and makes what it did durable, together with the functions of all callers that wait at the moment. Nil
// means that all of it is on the disk; an error that none of it is. An error or a panic of fn undoes that fn alone.
//
// While the buffer is full Commit waits (Overflow Block); when ctx ends meanwhile it returns ErrFull. Once its group has
// been started it does not return before the outcome is known. fn must not wait for anything and must not call Commit,
// Update or Close; it may run on another caller's goroutine.
func (b *Buffer) Commit(ctx context.Context, fn func(tx *Tx) error) error {
	return b.do(ctx, newRequest(fn))
}

// Update is Commit for state, quarantine and generation only: fn must not Append, and so Update is not held back when the
// buffer is full. What comes down from the hub, acknowledgements included, must not wait for room that only an
// acknowledgement can make.
func (b *Buffer) Update(ctx context.Context, fn func(tx *Tx) error) error {
	r := newRequest(fn)
	r.small = true
	return b.do(ctx, r)
}

// do queues a request and waits for its outcome. There is no goroutine that commits: a caller that finds nobody at it
// leads, which means that it commits for all that wait, and then hints at the next one. A caller alone never has to wait
// for another goroutine.
func (b *Buffer) do(ctx context.Context, r *request) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("store in buffer %q: %w", b.cfg.Dir, err)
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	b.queue = append(b.queue, r)
	b.mu.Unlock()
	for {
		held := b.lead()
		select {
		case err := <-r.done:
			return err
		default:
		}
		var poll <-chan time.Time
		if held {
			poll = time.After(heldPoll) // somebody else may make room on the disk
		}
		select {
		case err := <-r.done:
			return err
		case <-r.turn:
		case <-poll:
		case <-ctx.Done():
			if err, gone := b.cancel(ctx, r); gone {
				return err
			}
			return <-r.done
		}
	}
}

// lead commits what waits, unless somebody is at it. It returns true when callers have to wait for room.
func (b *Buffer) lead() (held bool) {
	b.mu.Lock()
	if b.leading || b.closed || len(b.queue) == 0 {
		defer b.mu.Unlock()
		return b.held != ""
	}
	b.leading = true
	b.gather()
	requests := b.take()
	held = b.held != ""
	left := len(b.queue)
	b.mu.Unlock()
	defer func() {
		b.mu.Lock()
		b.leading = false
		b.idle.Broadcast()
		if len(requests) > 0 || len(b.queue) > left {
			b.hint()
		}
		b.mu.Unlock()
	}()
	if len(requests) > 0 {
		b.lastGroup = len(requests)
		b.commit(requests)
	}
	return held
}

// gather lets others run who are about to call, when there were several the last time: the first of those whom the last
// commit released would otherwise sync for itself alone. mu is held, and given free meanwhile.
func (b *Buffer) gather() {
	for had := 0; len(b.queue) > had && len(b.queue) < b.lastGroup; {
		had = len(b.queue)
		b.mu.Unlock()
		runtime.Gosched()
		b.mu.Lock()
	}
}

// hint wakes the caller at the head of the queue, if there is one, to lead. mu is held.
func (b *Buffer) hint() {
	if len(b.queue) == 0 || b.leading {
		return
	}
	select {
	case b.queue[0].turn <- struct{}{}:
	default:
	}
}

// take takes the requests that can go ahead from the queue. mu is held.
func (b *Buffer) take() (requests []*request) {
	full := ""
	if b.cfg.Overflow == Block {
		full = b.room()
	}
	var waiting []*request
	for _, r := range b.queue {
		if full == "" || r.small {
			requests = append(requests, r)
		} else {
			waiting = append(waiting, r)
		}
	}
	b.queue = waiting
	if len(waiting) == 0 {
		full = ""
	}
	if full != "" && b.held == "" {
		b.cfg.Logger.Warn("buffer is full, sources are held back", "buffer", b.cfg.Dir, "reason", full)
	}
	b.held = full
	return requests
}

// cancel takes a request back unless a leader has it.
func (b *Buffer) cancel(ctx context.Context, r *request) (error, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	r.cancelled = true
	for i, waiting := range b.queue {
		if waiting != r {
			continue
		}
		err := b.cancelledError(context.Cause(ctx))
		b.queue = append(b.queue[:i:i], b.queue[i+1:]...)
		if len(b.queue) == 0 {
			b.held = ""
		}
		b.hint() // a hint may have come to this caller
		return err, true
	}
	return nil, false
}

func (b *Buffer) cancelledError(cause error) error {
	if b.held == "" {
		return fmt.Errorf("store in buffer %q: %w", b.cfg.Dir, cause)
	}
	step := "let the hub take what waits, or raise the limit"
	if b.held == heldDisk {
		step = fmt.Sprintf("less than %d bytes are free on the disk, free some of it", b.cfg.DiskReserve)
	}
	return fmt.Errorf("store in buffer %q: %w (%s: %s): %w", b.cfg.Dir, ErrFull, b.held, step, cause)
}

// commit runs a group, writes it and tells the callers. Who leads calls it.
func (b *Buffer) commit(requests []*request) {
	started := 0
	defer func() {
		for _, r := range requests[:started] {
			r.answer(errAborted) // only when a function ended the goroutine
		}
		b.putBack(requests[started:])
	}()
	g := &group{at: b.cfg.Now(), shed: b.makeRoom()}
	g.first, g.room = b.position()
	for started < len(requests) && !b.enough(g) {
		r := requests[started]
		started++
		b.mustRoll = b.mustRoll || r.roll
		if err := g.run(b, r); err != nil {
			r.answer(err)
		}
	}
	var err error
	if b.mustRoll || !g.empty() || b.dirty() {
		err = b.write(g)
		b.noteTrouble(explain(err))
	}
	if err != nil {
		err = fmt.Errorf("store in buffer %q: %w", b.cfg.Dir, explain(err))
	}
	for _, r := range requests[:started] {
		r.answer(err)
	}
}

// enough says that a group should be written before more functions are run.
func (b *Buffer) enough(g *group) bool {
	if len(g.bodies) == 0 {
		return false
	}
	if len(g.bodies) >= maxGroupRecords || g.bytes >= maxGroupBytes {
		return true
	}
	return b.cfg.Overflow == Block && g.bytes >= g.room
}

// putBack returns requests that were taken to the head of the queue.
func (b *Buffer) putBack(requests []*request) {
	if len(requests) == 0 {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var again []*request
	for _, r := range requests {
		if r.cancelled {
			r.answer(b.cancelledError(context.Canceled))
			continue
		}
		again = append(again, r)
	}
	b.queue = append(again, b.queue...)
}

// position returns the next sequence number and how many bytes still fit.
func (b *Buffer) position() (next uint64, room int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, bytes := b.pending()
	return b.info.Last + 1, b.cfg.Limit - bytes
}
