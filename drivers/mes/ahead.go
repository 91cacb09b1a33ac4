package mes

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// portion is what is made durable at once: what one poll has found, or several while the portion before was made durable.
type portion struct {
	signals []signal.Signal
	state   json.RawMessage // with these signals durable
	bytes   int             // that were read
	more    bool
	err     error // of the last poll; what those before have found is good
}

// What is read ahead of a portion that becomes durable slowly is no more than this, and one poll above.
const (
	aheadRows  = 16_000
	aheadBytes = 8 << 20
)

// full reports that no more is to be read ahead.
func (f *portion) full() bool { return len(f.signals) >= aheadRows || f.bytes >= aheadBytes }

// last reports that there is nothing behind it for now.
func (f *portion) last() bool { return f.err != nil || !f.more }

// While much is found, a poll takes more rows: what it costs besides them is the same for few and many.
const (
	largest    = 2
	largeBytes = 1 << 20 // of a poll that is not followed by a larger one
)

// limit is how many rows a statement may return.
func (p *poller) limit() int { return p.query.Batch * max(1, p.large) }

// grow sets how much the poll after one that is read ahead may find.
func (p *poller) grow(f *portion) {
	switch {
	case f.bytes > 2*largeBytes:
		p.large /= 2
	case f.bytes < largeBytes:
		p.large = min(max(1, p.large)*2, largest)
	}
}

// look finds what comes next. It is put in the room of f.
func (p *poller) look(ctx context.Context, f *portion) {
	from := p.read
	rows, more, err := p.finder.find(ctx, p)
	*f = portion{signals: f.signals[:0], more: more, err: err}
	if err != nil || len(rows) == 0 {
		return
	}
	if p.query.Mark != nil {
		for _, r := range rows {
			p.state.Unmarked = append(p.state.Unmarked, r.key)
		}
	}
	f.signals, f.state, f.bytes = p.signals(rows, f.signals), polling.Encode(p.state), p.read-from
	p.spare = rows[:0]
}

// reading polls on while portions become durable: where nothing has to be told to the database afterwards. While it runs, the poller's
// position and the room for rows are its own.
type reading struct {
	stop  context.CancelFunc
	ended sync.WaitGroup

	mu      sync.Mutex
	changed sync.Cond
	found   portion // by whole polls, and taken by nobody yet
	stopped bool
}

// readOn begins to poll.
func (p *poller) readOn(ctx context.Context) *reading {
	r := &reading{found: portion{more: true}}
	r.changed.L = &r.mu
	ctx, cancel := context.WithCancel(ctx)
	r.stop = func() {
		cancel()
		r.mu.Lock()
		r.stopped = true
		r.mu.Unlock()
		r.changed.Broadcast()
	}
	r.ended.Go(func() {
		var f portion
		for {
			p.look(ctx, &f)
			p.grow(&f)
			if end := r.add(&f); end {
				return
			}
		}
	})
	return r
}

// add notes what a poll has found, waits while that is too much, and reports whether it was the last one. It leaves room for the next.
func (r *reading) add(f *portion) (end bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.found.signals) == 0 {
		r.found.signals, f.signals = f.signals, r.found.signals
	} else {
		r.found.signals = append(r.found.signals, f.signals...)
	}
	if f.state != nil {
		r.found.state = f.state
	}
	r.found.bytes, r.found.more, r.found.err = r.found.bytes+f.bytes, f.more, f.err
	r.changed.Broadcast()
	for r.found.full() && !r.stopped {
		r.changed.Wait()
	}
	return f.last() || r.stopped
}

// take waits until something was found and takes it, for the room of what is durable.
func (r *reading) take(room []signal.Signal) *portion {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.found.signals) == 0 && !r.found.last() {
		r.changed.Wait()
	}
	f := r.found
	r.found = portion{signals: room[:0], more: f.more, err: f.err}
	r.changed.Broadcast()
	return &f
}

// halt ends the reading ahead and forgets what it has found.
func (p *poller) halt() {
	if p.reading != nil {
		p.reading.stop()
		p.reading.ended.Wait()
		p.reading, p.large = nil, 0
	}
}
