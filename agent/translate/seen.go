package translate

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"math/bits"
	"slices"

	"github.com/linekeeper/linekeeper/proto/factkey"
)

// The memory of keys of one source, newest first: an open block in the order of arrival, a middle block sorted by key, and a
// ring of sorted blocks. A record costs a write of the small open block only; that is merged into the middle when it is full,
// and the middle moves into the ring. 16,384 to 18,560 of the last keys are remembered.
//
// An entry is the 10 bytes of a key that hub and ERP know it by, and 6 bytes of the content's hash.
const (
	entrySize  = 16
	keyPart    = 10
	openSize   = 128 * entrySize
	middleSize = 2048 * entrySize
	ringBlocks = 8
)

// memo is the memory of one source during a call.
type memo struct {
	name         string // of the state keys
	open, middle []byte
	ring         [ringBlocks][]byte
	ownMiddle    bool // middle was made by this call, which may write in it
	next         byte // the block of the ring that is overwritten next
	dirtyOpen    bool
	dirtyMiddle  bool
	dirtyRing    [ringBlocks]bool
	asked        int     // by this call, or expected to be
	filter       *filter // nil while little was asked
}

func (w *work) memo(source string) *memo {
	if m := w.memos[source]; m != nil {
		return m
	}
	m := &memo{name: prefixSeen + source + sep, asked: w.signals}
	m.open = append(make([]byte, 0, openSize), w.st.State(m.name+"o")...)
	m.middle = w.st.State(m.name + "m")
	for i := range m.ring {
		m.ring[i] = w.st.State(m.name + string(rune('0'+i)))
	}
	if n := w.st.State(m.name + "n"); len(n) == 1 {
		m.next = n[0] % ringBlocks
	}
	if w.memos == nil {
		w.memos = map[string]*memo{}
	}
	w.memos[source] = m
	return m
}

// seen tells whether a key was booked lately, and with the same content; if not, it is remembered.
func (w *work) seen(source string, key factkey.Key, hash uint64) (before, same bool) {
	m := w.memo(source)
	var e [entrySize]byte
	copy(e[:keyPart], key[:])
	var h [8]byte
	binary.BigEndian.PutUint64(h[:], hash)
	copy(e[keyPart:], h[:])
	if found := m.find(e[:keyPart]); found != nil {
		return true, bytes.Equal(found, e[keyPart:])
	}
	m.add(e[:])
	return false, false
}

// find returns the content's part of a key's entry, nil when the key is not remembered.
func (m *memo) find(key []byte) []byte {
	head := binary.BigEndian.Uint64(key)
	if m.asked++; m.asked >= filterAfter && m.filter == nil {
		m.filter = m.newFilter()
	}
	if m.filter != nil && !m.filter.may(head) {
		return nil
	}
	for i := 0; i < len(m.open); i += entrySize {
		if e := m.open[i : i+entrySize]; binary.BigEndian.Uint64(e) == head && bytes.Equal(e[:keyPart], key) {
			return e[keyPart:]
		}
	}
	if found := findSorted(m.middle, key); found != nil {
		return found
	}
	for _, block := range m.ring {
		if found := findSorted(block, key); found != nil {
			return found
		}
	}
	return nil
}

// filter says of nearly every key that is not remembered that it is not: a bit for each beginning of a key, set for those of
// the keys that are. It is made when a call asks so often that this costs less than the searches that it saves.
type filter [1 << (filterBits - 6)]uint64

const (
	filterBits  = 18
	filterAfter = 64
)

func (m *memo) newFilter() *filter {
	f := &filter{}
	f.addAll(m.open)
	f.addAll(m.middle)
	for _, block := range m.ring {
		f.addAll(block)
	}
	return f
}

func (f *filter) addAll(block []byte) {
	for ; len(block) >= entrySize; block = block[entrySize:] {
		f.add(binary.BigEndian.Uint64(block))
	}
}

func (f *filter) add(head uint64) {
	at := head >> (64 - filterBits)
	f[at/64] |= 1 << (at % 64)
}

func (f *filter) may(head uint64) bool {
	at := head >> (64 - filterBits)
	return f[at/64]&(1<<(at%64)) != 0
}

// findSorted looks through a sorted block. Every record is looked for in every block, so this is done in a handful of steps:
// keys are hashes and lie evenly, so a key's value tells about where it stands; the entry found there tells how far that is
// off; the rest is a short walk.
func findSorted(block, key []byte) []byte {
	n := len(block) / entrySize
	if n == 0 {
		return nil
	}
	head := binary.BigEndian.Uint64(key)
	at := func(i int) uint64 { return binary.BigEndian.Uint64(block[i*entrySize:]) }
	i := share(head, n)
	if here := at(i); here < head {
		i = min(i+share(head-here, n), n-1)
	} else {
		i = max(i-share(here-head, n), 0)
	}
	for i < n && at(i) < head {
		i++
	}
	for i > 0 && at(i-1) >= head {
		i--
	}
	for ; i < n && at(i) == head; i++ {
		if e := block[i*entrySize : (i+1)*entrySize]; bytes.Equal(e[:keyPart], key) {
			return e[keyPart:]
		}
	}
	return nil
}

// share is how many of n evenly spread numbers lie below x.
func share(x uint64, n int) int {
	high, _ := bits.Mul64(x, uint64(n))
	return int(high)
}

func (m *memo) add(entry []byte) {
	if len(m.open) >= openSize {
		m.merge()
	}
	m.open, m.dirtyOpen = append(m.open, entry...), true
	if m.filter != nil {
		m.filter.add(binary.BigEndian.Uint64(entry))
	}
}

// merge moves the open block into the middle one, and a full middle one into the ring.
func (m *memo) merge() {
	if len(m.middle) >= middleSize {
		m.ring[m.next], m.dirtyRing[m.next] = m.middle, true
		m.next = (m.next + 1) % ringBlocks
		m.middle, m.ownMiddle = nil, false
	}
	if !m.ownMiddle {
		m.middle, m.ownMiddle = append(make([]byte, 0, middleSize), m.middle...), true
	}
	var room [openSize / entrySize]entry
	m.middle, m.dirtyMiddle, m.open = mergeSorted(m.middle, sortEntries(room[:0], m.open)), true, m.open[:0]
}

// entry is an entry as two numbers that compare as its bytes do.
type entry struct{ head, tail uint64 }

func (e entry) compare(o entry) int {
	if e.head != o.head {
		return cmp.Compare(e.head, o.head)
	}
	return cmp.Compare(e.tail, o.tail)
}

func readEntry(b []byte) entry {
	return entry{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// sortEntries appends the entries of a block to none, and returns them in the order of their keys. No two have the same one.
func sortEntries(none []entry, block []byte) []entry {
	sorted := none
	for ; len(block) >= entrySize; block = block[entrySize:] {
		sorted = append(sorted, readEntry(block))
	}
	slices.SortFunc(sorted, entry.compare)
	return sorted
}

// mergeSorted puts further entries into a sorted block, each in its place, and returns it. It writes in the block's room: from the end,
// so that what has to move moves once.
func mergeSorted(block []byte, young []entry) []byte {
	at := len(block) // up to here the old entries are where they were
	to := at + len(young)*entrySize
	block = slices.Grow(block, len(young)*entrySize)[:to]
	for _, e := range slices.Backward(young) {
		from := at
		for from > 0 && readEntry(block[from-entrySize:]).compare(e) > 0 {
			from -= entrySize
		}
		copy(block[to-(at-from):to], block[from:at])
		to -= at - from + entrySize
		at = from
		binary.BigEndian.PutUint64(block[to:], e.head)
		binary.BigEndian.PutUint64(block[to+8:], e.tail)
	}
	return block
}

func (m *memo) flush(st State) {
	if m.dirtyOpen {
		st.SetState(m.name+"o", m.open)
	}
	if m.dirtyMiddle {
		st.SetState(m.name+"m", m.middle)
	}
	for i, dirty := range m.dirtyRing {
		if dirty {
			st.SetState(m.name+string(rune('0'+i)), m.ring[i])
			st.SetState(m.name+"n", []byte{m.next})
		}
	}
}
