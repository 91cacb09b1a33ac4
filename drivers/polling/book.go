package polling

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"sync"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// Book is the cursor of a whole source: a state for each of its parts. It makes batches durable one after the other.
type Book struct {
	env      *signal.Env
	emit     signal.Emit
	patience *Patience

	mu    sync.Mutex
	parts map[string]json.RawMessage
}

// Open reads a stored cursor, nil at the first start.
func Open(env *signal.Env, cursor []byte, emit signal.Emit, patience *Patience) (*Book, error) {
	b := &Book{env: env, emit: emit, patience: patience, parts: map[string]json.RawMessage{}}
	if len(cursor) == 0 {
		return b, nil
	}
	if err := json.Unmarshal(cursor, &b.parts); err != nil {
		// To start anew would read everything again, to go on would be a guess.
		return nil, fmt.Errorf("read cursor of source %q: %w", env.Source, err)
	}
	if b.parts == nil { // it was null
		b.parts = map[string]json.RawMessage{}
	}
	return b, nil
}

// Part reads one part into state; it reports false, and leaves state alone, when there is none yet. Numbers in fields of type any
// keep their text. The error is a *ProblemError.
func (b *Book) Part(part string, state any) (known bool, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	raw, ok := b.parts[part]
	if !ok {
		return false, nil
	}
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	if err := dec.Decode(state); err != nil {
		return false, &ProblemError{signal.Problem{Code: "cursor_unreadable", Item: part,
			Reason: "the stored position of this query cannot be read: " + err.Error(), NextStep: "give the query another tag to read from its beginning"}}
	}
	return true, nil
}

// Commit makes signals and the new state of a part durable together. It repeats until that is done; the only error is the
// context's.
func (b *Book) Commit(ctx context.Context, part string, state any, signals []signal.Signal) error {
	return b.CommitEncoded(ctx, part, Encode(state), signals)
}

// Encode is what CommitEncoded takes of a state, which may change afterwards. States are made of texts and numbers.
func Encode(state any) json.RawMessage {
	raw, err := json.Marshal(state)
	if err != nil {
		panic(err)
	}
	return raw
}

// CommitEncoded is Commit with a state that may change meanwhile.
func (b *Book) CommitEncoded(ctx context.Context, part string, raw json.RawMessage, signals []signal.Signal) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	parts := maps.Clone(b.parts)
	parts[part] = raw
	batch := signal.Batch{Source: b.env.Source, Signals: signals, Cursor: Encode(parts)}
	if err := b.patience.Emit(ctx, b.env, b.emit, batch); err != nil {
		return err
	}
	b.parts = parts
	return nil
}
