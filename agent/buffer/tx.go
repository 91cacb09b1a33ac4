package buffer

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"sort"
	"strings"
	"time"
)

// Tx is the staging area of one Commit: it sees all that was committed, all that earlier functions of the same group
// staged, and its own changes. It may be used only while the function runs, by the goroutine that runs it.
type Tx struct {
	b     *Buffer
	group *group
	own   staged
	small bool
	err   error
}

// staged is a set of changes.
type staged struct {
	bodies     [][]byte
	bytes      int64
	state      map[string][]byte // nil: deleted
	quarantine []Quarantined
	released   []uint64
	generation string
}

// group is what one bbolt transaction writes: the changes of all functions that went well.
type group struct {
	staged
	first uint64 // sequence number of the first record
	room  int64  // bytes until the limit
	at    time.Time
	shed  bool // there is no room and nothing older to drop: count the records, do not store them
}

// Append adds a record and returns its sequence number, which holds only if Commit returns nil. The body must not be
// changed before Commit returns. A record of more than MaxRecord bytes fails the Commit.
func (t *Tx) Append(body []byte) uint64 {
	switch {
	case t.small:
		t.fail(errors.New("append a record: Update carries state only, use Commit"))
	case len(body) > MaxRecord:
		t.fail(fmt.Errorf("append a record of %d bytes: the limit is %d", len(body), MaxRecord))
	}
	t.own.bodies = append(t.own.bodies, body)
	t.own.bytes += int64(len(body))
	return t.group.first + uint64(len(t.group.bodies)+len(t.own.bodies)) - 1
}

// State returns the value of a key, nil when there is none. It must not be changed.
func (t *Tx) State(key string) []byte {
	if v, ok := t.own.state[key]; ok {
		return v
	}
	if v, ok := t.group.state[key]; ok {
		return v
	}
	return t.b.state[key]
}

// SetState sets the value of a key, which is copied; nil deletes the key. Keys have 1 to 4,096 bytes.
func (t *Tx) SetState(key string, v []byte) {
	if len(key) == 0 || len(key) > 4096 {
		t.fail(fmt.Errorf("set state %.40q: a key has 1 to 4096 bytes, not %d", key, len(key)))
		return
	}
	if t.own.state == nil {
		t.own.state = map[string][]byte{}
	}
	if v != nil {
		v = append(make([]byte, 0, len(v)), v...)
	}
	t.own.state[key] = v
}

// EachState calls fn with each key that starts with prefix, in ascending order. The values must not be changed.
func (t *Tx) EachState(prefix string, fn func(key string, v []byte)) {
	keys := map[string]bool{}
	for _, layer := range []map[string][]byte{t.b.state, t.group.state, t.own.state} {
		for key := range layer {
			if strings.HasPrefix(key, prefix) {
				keys[key] = true
			}
		}
	}
	sorted := make([]string, 0, len(keys))
	for key := range keys {
		sorted = append(sorted, key)
	}
	sort.Strings(sorted)
	for _, key := range sorted {
		if v := t.State(key); v != nil {
			fn(key, v)
		}
	}
}

// NewGeneration starts a new generation and returns its id.
func (t *Tx) NewGeneration() string {
	t.own.generation = randomID()
	return t.own.generation
}

func (t *Tx) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

func randomID() string {
	var id [16]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// run runs one function on the group and keeps what it did if it went well.
func (g *group) run(b *Buffer, r *request) (err error) {
	tx := &Tx{b: b, group: g, small: r.small}
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("store in buffer %q: panic: %v", b.cfg.Dir, p)
		}
	}()
	if r.fn != nil {
		if err := r.fn(tx); err != nil {
			return err
		}
	}
	if tx.err != nil {
		return tx.err
	}
	g.add(&tx.own)
	return nil
}

func (g *group) empty() bool {
	return len(g.bodies)+len(g.state)+len(g.quarantine)+len(g.released) == 0 && g.generation == ""
}

func (g *group) add(s *staged) {
	if g.bodies == nil {
		g.bodies = s.bodies
	} else {
		g.bodies = append(g.bodies, s.bodies...)
	}
	g.bytes += s.bytes
	g.quarantine = append(g.quarantine, s.quarantine...)
	g.released = append(g.released, s.released...)
	if s.generation != "" {
		g.generation = s.generation
	}
	if g.state == nil {
		g.state = s.state
		return
	}
	maps.Copy(g.state, s.state)
}
