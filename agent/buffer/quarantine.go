package buffer

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/bbolt"
)

// Limits of the quarantine. Beyond them the oldest entries are dropped and counted.
const (
	MaxQuarantined      = 10_000
	MaxQuarantinedBytes = 32 << 20
	// MaxQuarantinedPayload is how much of one payload is kept, in bytes.
	MaxQuarantinedPayload = 1 << 20
)

// Quarantined is an input that could not be used, with the reason.
type Quarantined struct {
	ID       uint64    `json:"-"`
	At       time.Time `json:"at"`
	Source   string    `json:"source"`
	Tag      string    `json:"tag,omitempty"`
	Code     string    `json:"code"`
	Item     string    `json:"item,omitempty"`
	Reason   string    `json:"reason"`
	NextStep string    `json:"next_step,omitempty"`
	// Payload is what was received, at most MaxQuarantinedPayload bytes of it.
	Payload []byte `json:"payload,omitempty"`
}

// Quarantine puts an input aside, durable together with the state and cursor that move past it, and returns its id. A zero
// At becomes the time of the commit.
func (t *Tx) Quarantine(q Quarantined) uint64 {
	if q.At.IsZero() {
		q.At = t.group.at
	}
	q.Payload = slices.Clone(q.Payload[:min(len(q.Payload), MaxQuarantinedPayload)])
	q.ID = t.b.quarantine.sequence + uint64(len(t.group.quarantine)+len(t.own.quarantine)) + 1
	t.own.quarantine = append(t.own.quarantine, q)
	return q.ID
}

// RemoveQuarantined takes an input out of the quarantine, for one that is tried again in the same transaction. An id that
// is not there does nothing.
func (t *Tx) RemoveQuarantined(id uint64) { t.own.released = append(t.own.released, id) }

// RemoveQuarantined takes an input out of the quarantine, durably. An id that is not there does nothing.
func (b *Buffer) RemoveQuarantined(id uint64) error {
	return b.Update(context.Background(), func(tx *Tx) error {
		tx.RemoveQuarantined(id)
		return nil
	})
}

// Quarantined returns the newest inputs in the quarantine, at most limit, the newest first.
func (b *Buffer) Quarantined(limit int) ([]Quarantined, error) {
	b.readMu.Lock()
	defer b.readMu.Unlock()
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return nil, ErrClosed
	}
	active := b.segments[len(b.segments)-1]
	b.mu.Unlock()
	var found []Quarantined
	err := active.view(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucketQuarantine).Cursor()
		for key, v := c.Last(); key != nil && len(found) < limit; key, v = c.Prev() {
			q := Quarantined{ID: seqOf(key)}
			text, err := unsealed(key, v)
			if err == nil {
				err = json.Unmarshal(text, &q)
			}
			if err != nil {
				return fmt.Errorf("quarantined input %d: %w", q.ID, err)
			}
			found = append(found, q)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read buffer %q: %w", b.cfg.Dir, err)
	}
	return found, nil
}

// quarantineIndex is what the memory knows of the quarantine: ids and sizes, the oldest first.
type quarantineIndex struct {
	sequence uint64 // the last id that was given
	entries  []quarantineEntry
	bytes    int64
}

type quarantineEntry struct {
	id   uint64
	size int64
}

// load reads the index. A bad entry is left behind: it is not worth a segment.
func (x *quarantineIndex) load(bucket *bbolt.Bucket) error {
	x.sequence = bucket.Sequence()
	return bucket.ForEach(func(key, v []byte) error {
		if _, err := unsealed(key, v); err == nil && len(key) == 8 {
			x.entries = append(x.entries, quarantineEntry{seqOf(key), int64(len(v))})
			x.bytes += int64(len(v))
		}
		return nil
	})
}

// quarantinePlan is what one commit does to the quarantine.
type quarantinePlan struct {
	added    []quarantineEntry
	values   [][]byte
	removed  []uint64
	dropped  uint64
	sequence uint64
}

// plan works out a commit: what is added, what is taken out, what has to make room.
func (x *quarantineIndex) plan(g *group) quarantinePlan {
	p := quarantinePlan{sequence: x.sequence + uint64(len(g.quarantine)), removed: g.released}
	count, bytes := len(x.entries), x.bytes
	for _, q := range g.quarantine {
		text, err := json.Marshal(q)
		if err != nil { // only a year beyond 9999 can do that
			q.At = g.at
			text, _ = json.Marshal(q)
		}
		v := sealed(seqKey(q.ID), text)
		p.added, p.values = append(p.added, quarantineEntry{q.ID, int64(len(v))}), append(p.values, v)
		count, bytes = count+1, bytes+int64(len(v))
	}
	if len(g.quarantine) == 0 {
		return p
	}
	for _, old := range x.entries {
		if count <= MaxQuarantined && bytes <= MaxQuarantinedBytes {
			break
		}
		p.removed = append(p.removed[:len(p.removed):len(p.removed)], old.id)
		p.dropped++
		count, bytes = count-1, bytes-old.size
	}
	return p
}

func (p quarantinePlan) put(t *tree) error {
	if len(p.added)+len(p.removed) == 0 {
		return nil
	}
	for i, e := range p.added {
		if err := t.put(inQuarantine, seqKey(e.id), p.values[i]); err != nil {
			return err
		}
	}
	for _, id := range p.removed {
		if err := t.delete(inQuarantine, seqKey(id)); err != nil {
			return err
		}
	}
	return t.tx.Bucket(bucketQuarantine).SetSequence(p.sequence)
}

func (x *quarantineIndex) apply(p quarantinePlan) {
	x.sequence = p.sequence
	x.entries = append(x.entries, p.added...)
	for _, e := range p.added {
		x.bytes += e.size
	}
	for _, id := range p.removed {
		i, found := slices.BinarySearchFunc(x.entries, id, func(e quarantineEntry, id uint64) int { return int(int64(e.id) - int64(id)) })
		if found {
			x.bytes -= x.entries[i].size
			x.entries = slices.Delete(x.entries, i, i+1)
		}
	}
}

// carry reads the quarantine of a segment for the next one. What can not be read stays behind.
func (x *quarantineIndex) carry(old *segment) []pair {
	if old == nil || len(x.entries) == 0 {
		return nil
	}
	pairs := make([]pair, 0, len(x.entries))
	_ = old.view(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket(bucketQuarantine)
		for _, e := range x.entries {
			key := seqKey(e.id)
			v := bucket.Get(key)
			if _, err := unsealed(key, v); err == nil {
				pairs = append(pairs, pair{key, slices.Clone(v)})
			}
		}
		return nil
	})
	return pairs
}

// keep reduces the index to what was carried over.
func (x *quarantineIndex) keep(carried []pair) {
	if len(carried) == len(x.entries) {
		return
	}
	x.entries, x.bytes = nil, 0
	for _, p := range carried {
		x.entries = append(x.entries, quarantineEntry{seqOf(p.key), int64(len(p.value))})
		x.bytes += int64(len(p.value))
	}
}
