package files

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/drivers/polling"
)

// progress is how far a content has become durable that is not settled yet.
type progress struct {
	Records int `json:"n,omitempty"` // so many were emitted, bad ones counted
	// Done: all of them; the file only has to be noted in the index and moved.
	Done bool `json:"d,omitempty"`
	// Refused: the file as a whole was refused for this reason, and only has to be moved.
	Refused *signal.Problem `json:"r,omitempty"`
	// Bad are the first records that were put aside, for the file beside the original.
	Bad []string `json:"b,omitempty"`
	// BadCount is how many there were.
	BadCount int `json:"c,omitempty"`
}

// book is the cursor of the whole source: by feed and content, what is not settled. It is small, because what is settled
// stands in the index.
type book struct {
	source *source
	emit   signal.Emit
	open   map[string]map[string]*progress // tag, hash
}

func openBook(s *source, cursor []byte, emit signal.Emit) (*book, error) {
	b := &book{source: s, emit: emit, open: map[string]map[string]*progress{}}
	if len(cursor) > 0 {
		if err := json.Unmarshal(cursor, &b.open); err != nil {
			// To start anew would read half-done files again, to go on would be a guess.
			return nil, fmt.Errorf("read cursor of source %q: %w", s.env.Source, err)
		}
	}
	return b, nil
}

func (b *book) of(tag string) map[string]*progress {
	m := b.open[tag]
	if m == nil {
		m = map[string]*progress{}
		b.open[tag] = m
	}
	return m
}

// buffering is how records wait for the buffer.
var buffering = polling.Patience{Records: "records", Stays: "the files stay where they are", HeldAfter: 5 * time.Second,
	FirstWait: 200 * time.Millisecond, LongestWait: 10 * time.Second}

// commit makes signals and the present state durable together. It repeats until that is done; the only error is the context's.
func (b *book) commit(ctx context.Context, signals []signal.Signal) error {
	batch := signal.Batch{Source: b.source.env.Source, Signals: signals, Cursor: polling.Encode(b.open)}
	return buffering.Emit(ctx, &b.source.env, b.emit, batch)
}
