// Package status collects what the agent knows of itself, for the page, the command line, metrics and the hub alike.
//
// It owns the Board, a set of the latest states, and the Snapshot taken of it. It promises that setting a state never
// blocks and that all readers see the same picture. It never decides anything and never touches a file or the network.
package status

import (
	"sort"
	"sync"
	"time"
)

// Overall states in order of gravity; exit codes of "plantagent status" are their index.
const (
	OK       = "ok"
	Degraded = "degraded" // data is safe, something needs attention
	Offline  = "offline"  // collecting and storing, the hub is not reached
	Losing   = "losing"   // a source is held back or telemetry is being dropped: new data is at risk
)

// Snapshot is the JSON at /api/v1/status. Times are RFC 3339 with zone; sizes are bytes.
type Snapshot struct {
	At          time.Time `json:"at"`
	Version     string    `json:"version"`
	Plant       string    `json:"plant"`
	Agent       string    `json:"agent"`
	StartedAt   time.Time `json:"started_at"`
	State       string    `json:"state"`
	Since       time.Time `json:"since"`
	Reason      string    `json:"reason,omitempty"`
	NextStep    string    `json:"next_step,omitempty"`
	Also        []Finding `json:"also,omitempty"` // what else is wrong, the gravest first
	Uplink      Uplink    `json:"uplink"`
	Business    Buffer    `json:"business"`
	Telemetry   Buffer    `json:"telemetry"`
	Quarantined uint64    `json:"quarantined"`
	// QuarantineDropped counts inputs that the quarantine's own limit pushed out.
	QuarantineDropped uint64 `json:"quarantine_dropped,omitempty"`
	// BufferDamage says what was lost with a damaged buffer file of the last days and what was saved; empty without one.
	BufferDamage string `json:"buffer_damage,omitempty"`
	// InboxDamage says what was done about a damaged inbox at the start; empty when it was whole.
	InboxDamage  string    `json:"inbox_damage,omitempty"`
	FreeDisk     int64     `json:"free_disk"`
	Sources      []Source  `json:"sources"`
	WorkOrders   []Order   `json:"work_orders"`
	Receipts     []Receipt `json:"receipts"`
	Quarantine   []Entry   `json:"quarantine"`
	Ledger       []Ledger  `json:"ledger"`
	ConfigPath   string    `json:"config_path"`
	DataDir      string    `json:"data_dir"`
	HubClockSkew string    `json:"hub_clock_skew,omitempty"` // this computer's clock minus the hub's, "-41m12s"
	Contact      string    `json:"contact,omitempty"`        // whom the operator can call, from the configuration
}

// Finding is something that is wrong, and what to do about it.
type Finding struct {
	State    string `json:"state"` // what the overall state is because of it
	Reason   string `json:"reason"`
	NextStep string `json:"next_step,omitempty"`
}

// Uplink is the state of the line to the hub.
type Uplink struct {
	State   string    `json:"state"` // "connected", "connecting", "offline", "refused"
	Since   time.Time `json:"since"`
	Reason  string    `json:"reason,omitempty"`
	Hub     string    `json:"hub"`
	LastAck time.Time `json:"last_ack,omitzero"`
	NextTry time.Time `json:"next_try,omitzero"`
	// Code is stable, for machines ("dns", "refused_identity_mismatch"); NextStep says what a person can do.
	Code     string `json:"code,omitempty"`
	NextStep string `json:"next_step,omitempty"`
	// Way is how the hub is reached: "direct", or "websocket" with its address and why the direct way is not used.
	Way       string `json:"way,omitempty"`
	WayURL    string `json:"way_url,omitempty"`
	WayReason string `json:"way_reason,omitempty"`
}

// Buffer is how much one buffer holds.
type Buffer struct {
	Pending       uint64    `json:"pending"`
	Bytes         int64     `json:"bytes"`
	Limit         int64     `json:"limit"`
	Oldest        time.Time `json:"oldest,omitzero"`
	LastSeq       uint64    `json:"last_seq"`
	AckedSeq      uint64    `json:"acked_seq"`
	Dropped       uint64    `json:"dropped"`
	Generation    string    `json:"generation"`
	FullInSeconds int64     `json:"full_in_seconds,omitempty"` // at the present rate; 0 when it is not filling
	Held          bool      `json:"held"`
}

// Source is the state of one source.
type Source struct {
	Name     string    `json:"name"`
	Kind     string    `json:"kind"`
	State    string    `json:"state"`
	Reason   string    `json:"reason,omitempty"`
	Since    time.Time `json:"since"`
	LastData time.Time `json:"last_data,omitzero"`
	Signals  uint64    `json:"signals"`
	Problems []Problem `json:"problems,omitempty"`
}

// Problem is a fault that does not stop its source.
type Problem struct {
	Key      string    `json:"key"`
	Code     string    `json:"code"`
	Item     string    `json:"item"`
	Reason   string    `json:"reason"`
	NextStep string    `json:"next_step,omitempty"`
	Since    time.Time `json:"since"`
	// Missing is how many records of the source's own numbering never came, at least.
	Missing uint64 `json:"missing,omitempty"`
}

// Order is a work order at the agent with the time of each state it reached.
type Order struct {
	OrderNo    string      `json:"order_no"`
	Revision   int64       `json:"revision"`
	WorkCenter string      `json:"work_center,omitempty"`
	Item       string      `json:"item"`
	Quantity   string      `json:"quantity"`
	Unit       string      `json:"unit"`
	State      string      `json:"state"`
	Reason     string      `json:"reason,omitempty"`
	History    []OrderStep `json:"history"`
}

// OrderStep is one state of a work order and when it was reached.
type OrderStep struct {
	State    string    `json:"state"`
	Revision int64     `json:"revision"`
	At       time.Time `json:"at"`
	Reason   string    `json:"reason,omitempty"`
}

// Receipt is what became of one fact.
type Receipt struct {
	Key      string    `json:"key"`
	OrderNo  string    `json:"order_no"`
	What     string    `json:"what"`
	StoredAt time.Time `json:"stored_at,omitzero"`
	Outcome  string    `json:"outcome"` // "buffered", "received", "posted", "verified", "rejected", "in_doubt", "not_posted"
	Document string    `json:"document,omitempty"`
	Reason   string    `json:"reason,omitempty"`
	At       time.Time `json:"at"`
}

// Entry is one quarantined input.
type Entry struct {
	ID       uint64    `json:"id"`
	At       time.Time `json:"at"`
	Source   string    `json:"source"`
	Code     string    `json:"code"`
	Item     string    `json:"item"`
	Reason   string    `json:"reason"`
	NextStep string    `json:"next_step,omitempty"`
	Payload  string    `json:"payload"` // first 1,024 bytes, quoted where it is not text
}

// Ledger is one line of the quantity ledger at the edge.
type Ledger struct {
	Source    string `json:"source"`
	OrderNo   string `json:"order_no"`
	Operation string `json:"operation,omitempty"`
	Item      string `json:"item"`
	Kind      string `json:"kind"`
	Unit      string `json:"unit"`
	Counted   string `json:"counted"`
	Stored    string `json:"stored"`
}

// Board holds the latest state of each source. The zero value is not usable; make one with NewBoard.
type Board struct {
	mu      sync.Mutex
	now     func() time.Time
	sources map[string]*Source
	changed chan struct{}
}

// NewBoard returns an empty board that takes the time from now.
func NewBoard(now func() time.Time) *Board {
	return &Board{now: now, sources: map[string]*Source{}, changed: make(chan struct{}, 1)}
}

// Changed receives after a state changed; bursts are merged into one.
func (b *Board) Changed() <-chan struct{} { return b.changed }

// Touch says that something changed that the board itself does not hold.
func (b *Board) Touch() { b.touch() }

func (b *Board) touch() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// AddSource lists a source before it runs.
func (b *Board) AddSource(name, kind string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sources[name] = &Source{Name: name, Kind: kind, State: "connecting", Since: b.now()}
}

// SetState records how a source is; an unchanged state and reason keep their "since".
func (b *Board) SetState(name, state, reason string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sources[name]
	if s == nil || s.State == state && s.Reason == reason {
		return
	}
	if s.State != state {
		s.Since = b.now()
	}
	s.State, s.Reason = state, reason
	b.touch()
}

// SetProblem shows a problem of a source under p.Key, or removes it when p has no code.
func (b *Board) SetProblem(name string, p Problem) {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.sources[name]
	if s == nil {
		return
	}
	for i, old := range s.Problems {
		if old.Key != p.Key {
			continue
		}
		if p.Code == "" {
			s.Problems = append(s.Problems[:i:i], s.Problems[i+1:]...)
			b.touch()
			return
		}
		p.Since = old.Since
		s.Problems[i] = p
		return
	}
	if p.Code == "" {
		return
	}
	p.Since = b.now()
	s.Problems = append(s.Problems, p)
	b.touch()
}

// CountData records that n signals of a source became durable.
func (b *Board) CountData(name string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s := b.sources[name]; s != nil {
		s.Signals += uint64(n)
		s.LastData = b.now()
	}
}

// Sources returns a copy of all sources, those in trouble first, then by name.
func (b *Board) Sources() []Source {
	b.mu.Lock()
	defer b.mu.Unlock()
	out := make([]Source, 0, len(b.sources))
	for _, s := range b.sources {
		c := *s
		c.Problems = append([]Problem(nil), s.Problems...)
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool {
		if ti, tj := trouble(out[i]), trouble(out[j]); ti != tj {
			return ti > tj
		}
		return out[i].Name < out[j].Name
	})
	return out
}

func trouble(s Source) int {
	switch {
	case s.State == "failed":
		return 3
	case s.State == "held":
		return 2
	case len(s.Problems) > 0 || s.State == "connecting":
		return 1
	}
	return 0
}
