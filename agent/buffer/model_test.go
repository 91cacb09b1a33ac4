package buffer

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// model is what a buffer should be, in memory.
type model struct {
	records    []string // of sequence numbers 1, 2, ...
	acked      int
	state      map[string]string
	quarantine []string
	generation string
}

func TestBufferBehavesLikeItsModel(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		dir, err := os.MkdirTemp(t.TempDir(), "model-")
		if err != nil {
			rt.Fatal(err)
		}
		m := &machine{dir: dir, model: model{state: map[string]string{}}}
		m.open(rt)
		m.model.generation = m.b.Generation()
		defer func() { _ = m.b.Close() }()
		rt.Repeat(map[string]func(*rapid.T){
			"commit":     m.commit,
			"fail":       m.fail,
			"big":        m.big,
			"read":       m.read,
			"ack":        m.ack,
			"reopen":     m.reopen,
			"generation": m.newGeneration,
			"broken":     m.broken,
			"":           m.check,
		})
	})
}

type machine struct {
	dir string
	b   *Buffer
	model
	torn bool // a file was closed behind the buffer's back, so Close may complain
}

func (m *machine) open(t *rapid.T) {
	b, err := Open(small(m.dir))
	if err != nil {
		t.Fatal(err)
	}
	m.b = b
}

// change draws what one function does and does it to the model.
func (m *machine) change(t *rapid.T, to *model) func(tx *Tx) error {
	records := rapid.SliceOfN(rapid.StringN(0, 40, 400), 0, 5).Draw(t, "records")
	keys := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "c/1", "c/2"}), 0, 3).Draw(t, "keys")
	values := make([]string, len(keys))
	for i, key := range keys {
		values[i] = rapid.SampledFrom([]string{"", "x", "delete", strings.Repeat("long", 400)}).Draw(t, "value")
		if values[i] == "delete" {
			delete(to.state, key)
		} else {
			to.state[key] = values[i]
		}
	}
	bad := rapid.SampledFrom([]string{"", "", "", "bad"}).Draw(t, "bad")
	if bad != "" {
		to.quarantine = append(to.quarantine, bad)
	}
	to.records = append(to.records, records...)
	first := len(to.records) - len(records)
	return func(tx *Tx) error {
		for i, r := range records {
			if seq := tx.Append([]byte(r)); seq != uint64(first+i+1) {
				return fmt.Errorf("sequence number %d, want %d", seq, first+i+1)
			}
		}
		for i, key := range keys {
			if values[i] == "delete" {
				tx.SetState(key, nil)
			} else {
				tx.SetState(key, []byte(values[i]))
			}
		}
		if bad != "" {
			tx.Quarantine(Quarantined{Item: bad})
		}
		return nil
	}
}

func (m *model) copy() *model {
	c := *m
	c.records, c.quarantine = slices.Clone(m.records), slices.Clone(m.quarantine)
	c.state = maps.Clone(m.state)
	return &c
}

func (m *machine) commit(t *rapid.T) {
	if err := m.b.Commit(t.Context(), m.change(t, &m.model)); err != nil {
		t.Fatal(err)
	}
}

func (m *machine) fail(t *rapid.T) {
	boom := errors.New("boom")
	fn := m.change(t, m.model.copy())
	err := m.b.Commit(t.Context(), func(tx *Tx) error { return errors.Join(fn(tx), boom) })
	if !errors.Is(err, boom) {
		t.Fatal(err)
	}
}

// big brings the segment nearer to its end.
func (m *machine) big(t *rapid.T) {
	records := slices.Repeat([]string{strings.Repeat("big", 1000)}, rapid.IntRange(1, 30).Draw(t, "n"))
	m.records = append(m.records, records...)
	err := m.b.Commit(t.Context(), func(tx *Tx) error {
		for _, r := range records {
			tx.Append([]byte(r))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// broken lets one commit fail at the disk.
func (m *machine) broken(t *rapid.T) {
	to := m.model.copy()
	fn := m.change(t, to)
	to.state["some"] = "thing" // so that there is something to write
	err := m.b.Commit(t.Context(), func(tx *Tx) error {
		tx.SetState("some", []byte("thing"))
		return errors.Join(fn(tx), m.b.active.file.Close())
	})
	m.torn = true
	if err == nil { // the segment was full: the commit went to the next one
		m.model = *to
	}
}

func (m *machine) read(t *rapid.T) {
	after := rapid.IntRange(0, len(m.records)).Draw(t, "after")
	limit := rapid.IntRange(1, 40).Draw(t, "limit")
	bytes := rapid.IntRange(1, 5000).Draw(t, "bytes")
	entries, err := m.b.Read(uint64(after), limit, bytes)
	if err != nil {
		t.Fatal(err)
	}
	next, room := max(after, m.acked), bytes
	for i := 0; i < limit && next < len(m.records); i++ {
		if size := len(m.records[next]); i > 0 && size > room {
			break
		} else {
			room -= size
		}
		if i >= len(entries) || entries[i].Seq != uint64(next+1) || string(entries[i].Body) != m.records[next] {
			t.Fatalf("record %d of %d after %d is wrong", i, len(entries), after)
		}
		next++
	}
	if want := next - max(after, m.acked); len(entries) != want {
		t.Fatalf("%d records after %d, want %d", len(entries), after, want)
	}
}

func (m *machine) ack(t *rapid.T) {
	seq := rapid.IntRange(0, len(m.records)).Draw(t, "seq")
	if err := m.b.Ack(uint64(seq)); err != nil {
		t.Fatal(err)
	}
	m.acked = max(m.acked, seq)
}

func (m *machine) reopen(t *rapid.T) {
	if err := m.b.Close(); err != nil && !m.torn {
		t.Fatal(err)
	}
	m.torn = false
	m.open(t)
}

func (m *machine) newGeneration(t *rapid.T) {
	if err := m.b.NewGeneration(); err != nil {
		t.Fatal(err)
	}
	if m.b.Generation() == m.generation {
		t.Fatal("the generation did not change")
	}
	m.generation = m.b.Generation()
}

func (m *machine) check(t *rapid.T) {
	s := m.b.Stats()
	if s.LastSeq != uint64(len(m.records)) || s.AckedSeq != uint64(m.acked) || s.Pending != uint64(len(m.records)-m.acked) {
		t.Fatalf("last %d, acked %d, pending %d, want %d, %d and the difference", s.LastSeq, s.AckedSeq, s.Pending, len(m.records), m.acked)
	}
	if s.Quarantined != uint64(len(m.quarantine)) || s.Damaged != 0 || s.Dropped != 0 || s.Generation != m.generation {
		t.Fatalf("stats %+v", s)
	}
	got := map[string]string{}
	m.b.EachState("", func(key string, v []byte) { got[key] = string(v) })
	if !maps.Equal(got, m.state) {
		t.Fatalf("state %.300q, want %.300q", got, m.state)
	}
}
