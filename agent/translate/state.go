package translate

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/shopspring/decimal"

	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// State is where the translator keeps what it must remember, inside the transaction that makes a batch durable. Keys begin
// with "t/". State returns nil for an absent key, and its bytes are only read before the next SetState. SetState copies
// the value; nil removes the key, an empty one need not. EachState calls f in any order; f must not call SetState.
type State interface {
	State(key string) []byte
	SetState(key string, v []byte)
	EachState(prefix string, f func(key string, v []byte))
}

// Prefixes of the state's keys; parts of a key are separated by sep.
const (
	prefixCounter = "t/c/" // source, tag: counter
	prefixLedger  = "t/l/" // rowKey: row
	prefixOrder   = "t/o/" // order number: order
	prefixContext = "t/w/" // work centre: running
	prefixMerge   = "t/x/" // source, tag, code: merge
	prefixTag     = "t/g/" // source, tag: last order number of an order tag
	prefixSeen    = "t/d/" // source, block: keys seen lately
	prefixIgnored = "t/i/" // source, tag: 1
	prefixKept    = "t/v/" // source, tag: its last good value, where expressions look at it
	keyDue        = "t/due"
	keyPruned     = "t/pruned"
	keyMet        = "t/met" // set once the hub's marks came

	sep = "\x1f"
)

// running is the order that runs on a work centre.
type running struct {
	Order     string `json:"o,omitempty"`
	Operation string `json:"p,omitempty"`
	Item      string `json:"i,omitempty"`
	Unit      string `json:"u,omitempty"`
}

// order is what the agent knows of a work order: from the hub, and how far the shop floor is with it.
type order struct {
	Known     bool        `json:"k,omitempty"` // the hub sent it
	Revision  int64       `json:"r,omitempty"`
	Cancelled bool        `json:"c,omitempty"`
	Item      string      `json:"i,omitempty"`
	Unit      string      `json:"u,omitempty"`
	Quantity  string      `json:"q,omitempty"`
	Lot       string      `json:"l,omitempty"`
	Center    string      `json:"w,omitempty"`
	Ops       [][2]string `json:"p,omitempty"` // operation, work centre
	State     string      `json:"s,omitempty"`
	Reason    string      `json:"e,omitempty"`
	Seq       int         `json:"n,omitempty"` // changes of state seen
	Steps     []orderStep `json:"h,omitempty"`
	Touched   time.Time   `json:"t"`
}

type orderStep struct {
	State     string    `json:"s"`
	Revision  int64     `json:"r,omitempty"`
	At        time.Time `json:"t"`
	Reason    string    `json:"e,omitempty"`
	Operation string    `json:"o,omitempty"` // which it is of, where it is not the order's
}

// merge keeps equal exceptions of one tag down to one fact per minute.
type merge struct {
	At       time.Time `json:"t"` // of the last fact
	Key      []byte    `json:"k"` // of the last fact
	N        int       `json:"n,omitempty"`
	Hash     uint64    `json:"h"`
	Rule     string    `json:"u,omitempty"`
	Item     string    `json:"i,omitempty"`
	Reason   string    `json:"r"`
	NextStep string    `json:"x,omitempty"`
	Step     *stepBack `json:"b,omitempty"`
}

// stepBack is what is told of a counter that went back.
type stepBack struct {
	Tag     string                 `json:"t"`
	Epoch   string                 `json:"e"`
	Last    decimal.Decimal        `json:"l"`
	Now     decimal.Decimal        `json:"n"`
	LastAt  time.Time              `json:"y,omitzero"`
	At      time.Time              `json:"a"`
	Modulus decimal.Decimal        `json:"m"`
	Most    decimal.Decimal        `json:"s"` // a second
	Booted  bool                   `json:"b,omitempty"`
	Outcome pb.CounterStep_Outcome `json:"o"`
}

// undecided tells that somebody else has to say what the step means.
func (s *stepBack) undecided() bool {
	return s != nil && (s.Outcome == pb.CounterStep_OUTCOME_WAITS || s.Outcome == pb.CounterStep_OUTCOME_HELD)
}

// rowKey names one line of the ledger.
type rowKey struct{ source, order, operation, item, kind, unit string }

// append appends the row's key in the state.
func (k rowKey) append(b []byte) []byte {
	b = append(b, prefixLedger...)
	for i, part := range [...]string{k.source, k.order, k.operation, k.item, k.kind, k.unit} {
		if i > 0 {
			b = append(b, sep...)
		}
		b = append(b, part...)
	}
	return b
}

func parseRowKey(key string) (rowKey, bool) {
	p := strings.Split(strings.TrimPrefix(key, prefixLedger), sep)
	if len(p) != 6 {
		return rowKey{}, false
	}
	return rowKey{p[0], p[1], p[2], p[3], p[4], p[5]}, true
}

// row is one line of the ledger. rest is what rounding left for the next fact of the row: counted = stored + rest + what
// is open.
type row struct {
	name                  string // its key in the state
	counted, stored, rest amount
	day                   int64 // last touched, days since 1970
}

// count and store book what a counter counted, and what of it a fact says.
func (r *row) count(d decimal.Decimal) { r.counted = r.counted.plus(exactly(d)) }
func (r *row) store(d decimal.Decimal) { r.stored = r.stored.plus(exactly(d)) }

// record books an amount that is counted and stored at once.
func (r *row) record(a amount) { r.counted, r.stored = r.counted.plus(a), r.stored.plus(a) }

// append appends the row as the state has it.
func (r *row) append(b []byte) []byte {
	for _, a := range [...]amount{r.counted, r.stored, r.rest} {
		b = append(a.append(b), ' ')
	}
	return strconv.AppendInt(b, r.day, 10)
}

func decodeRow(b []byte) (*row, error) {
	var p [4]string
	n := 0
	for part := range strings.FieldsSeq(string(b)) {
		if n < len(p) {
			p[n] = part
		}
		n++
	}
	if n != len(p) {
		return &row{}, fmt.Errorf("ledger row %q has %d parts, want %d", b, n, len(p))
	}
	r := &row{}
	for i, into := range []*amount{&r.counted, &r.stored, &r.rest} {
		a, ok := parseShort(p[i])
		if !ok {
			d, err := decimal.NewFromString(p[i])
			if err != nil {
				return &row{}, fmt.Errorf("ledger row %q: %w", b, err)
			}
			a = exactly(d)
		}
		*into = a
	}
	var err error
	r.day, err = strconv.ParseInt(p[3], 10, 64)
	return r, err
}

// settle books exact as stored, rounded half-even to places; what rounding takes away or adds waits for the next one.
func (r *row) settle(exact decimal.Decimal, places int32) decimal.Decimal {
	total := exact
	if !r.rest.isZero() {
		total = total.Add(r.rest.decimal())
	}
	rounded := total
	if total.Exponent() < -places {
		rounded = total.RoundBank(places)
	}
	r.rest = exactly(total.Sub(rounded))
	r.store(rounded)
	return rounded
}

// cell is one piece of state during a call: read once, written back once.
type cell[V any] struct {
	v     V
	dirty bool
}

// table caches the state under one prefix as JSON.
type table[V any] struct {
	prefix string
	cells  map[string]*cell[V]
	order  []string
}

// get returns the cell of a key, read from st at the first use. A value that cannot be read is a broken invariant of our
// own: the transaction must not go on as if nothing had been remembered.
func (t *table[V]) get(st State, key string) *cell[V] {
	if c, ok := t.cells[key]; ok {
		return c
	}
	c := &cell[V]{}
	if b := st.State(t.prefix + key); len(b) > 0 {
		if err := json.Unmarshal(b, &c.v); err != nil {
			panic(fmt.Sprintf("read own state %q: %v", t.prefix+key, err))
		}
	}
	if t.cells == nil {
		t.cells = map[string]*cell[V]{}
	}
	t.cells[key] = c
	t.order = append(t.order, key)
	return c
}

func (t *table[V]) flush(st State) {
	for _, key := range t.order {
		c := t.cells[key]
		if !c.dirty {
			continue
		}
		b, err := json.Marshal(&c.v)
		if err != nil {
			panic(fmt.Sprintf("write own state %q: %v", t.prefix+key, err))
		}
		st.SetState(t.prefix+key, b)
		c.dirty = false
	}
}

// keysUnder lists the rest of all keys with a prefix.
func keysUnder(st State, prefix string) []string {
	var keys []string
	st.EachState(prefix, func(key string, _ []byte) { keys = append(keys, strings.TrimPrefix(key, prefix)) })
	return keys
}
