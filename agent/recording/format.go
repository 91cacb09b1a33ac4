package recording

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/linekeeper/linekeeper/agent/signal"
	"github.com/linekeeper/linekeeper/agent/translate"
	pb "github.com/linekeeper/linekeeper/proto/linekeeper/v1"
)

// format is the first word of a recording, version the one that is written.
const (
	format  = "linekeeper recording"
	version = 1
)

// maxLine is the longest line that is read: a state has a few megabytes at most.
const maxLine = 256 << 20

// Header is the first line.
type Header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
	// Sources are those whose batches are recorded; empty for all.
	Sources   []string  `json:"sources,omitempty"`
	StartedAt time.Time `json:"started_at"`
	Agent     string    `json:"agent_version,omitempty"`
	// Rules is the configuration of the rules without secrets, RulesHash its hash.
	Rules     json.RawMessage `json:"rules"`
	RulesHash string          `json:"rules_hash"`
	// State is what the rules remembered.
	State map[string][]byte `json:"state"`
}

// NewHeader describes rules and their state.
func NewHeader(cfg translate.Config, agentVersion string, sources []string, now time.Time, st translate.State) (Header, error) {
	cfg.PseudonymKey = nil
	cfg.Rules = slices.Clone(cfg.Rules)
	for i := range cfg.Rules {
		cfg.Rules[i].Pseudonymise = nil // done already
	}
	raw, err := json.Marshal(cfg)
	if err != nil {
		return Header{}, fmt.Errorf("write the rules down: %w", err)
	}
	h := Header{Format: format, Version: version, Sources: sources, StartedAt: now, Agent: agentVersion, Rules: raw, RulesHash: Hash(raw), State: map[string][]byte{}}
	st.EachState("t/", func(key string, v []byte) { h.State[key] = slices.Clone(v) })
	return h, nil
}

// Hash is how a recording names rules.
func Hash(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// Config is the rules that were in force.
func (h *Header) Config() (translate.Config, error) {
	var cfg translate.Config
	if err := json.Unmarshal(h.Rules, &cfg); err != nil {
		return cfg, fmt.Errorf("read the recorded rules: %w", err)
	}
	return cfg, nil
}

// Event is one thing that the rules were told. Exactly one of Batch, Tick, Order and Marks is set.
type Event struct {
	// Seq is the place in the order in which the rules saw it, At the agent's time then.
	Seq   uint64            `json:"seq"`
	At    time.Time         `json:"at"`
	Batch *Batch            `json:"batch,omitempty"`
	Tick  bool              `json:"tick,omitempty"`
	Order *signal.WorkOrder `json:"order,omitempty"`
	Marks []json.RawMessage `json:"marks,omitempty"`
}

// Batch is a signal.Batch without its cursor.
type Batch struct {
	Source  string   `json:"source"`
	Signals []Signal `json:"signals"`
}

// Signal is a signal.Signal.
type Signal struct {
	Tag      string            `json:"tag"`
	Topic    string            `json:"topic,omitempty"`
	Labels   map[string]string `json:"labels,omitempty"`
	Value    translate.Typed   `json:"value"`
	Payload  []byte            `json:"payload,omitempty"`
	Position []byte            `json:"position,omitempty"` // may be no UTF-8
	Source   time.Time         `json:"source_time,omitzero"`
	Received time.Time         `json:"received_time,omitzero"`
	Quality  signal.Quality    `json:"quality,omitempty"`
	Status   string            `json:"status,omitempty"`
	Problem  *signal.Problem   `json:"problem,omitempty"`
}

// FromBatch writes a batch down.
func FromBatch(b signal.Batch) *Batch {
	out := &Batch{Source: b.Source, Signals: make([]Signal, len(b.Signals))}
	for i, s := range b.Signals {
		out.Signals[i] = Signal{
			Tag: s.Tag, Topic: s.Topic, Labels: s.Labels, Value: translate.Typed{Value: s.Value}, Payload: s.Payload, Position: []byte(s.Position),
			Source: s.SourceTime, Received: s.ReceivedTime, Quality: s.Quality, Status: s.Status, Problem: s.Problem,
		}
	}
	return out
}

// Signals is the batch as the rules take it.
func (b *Batch) batch() signal.Batch {
	out := signal.Batch{Source: b.Source, Signals: make([]signal.Signal, len(b.Signals))}
	for i, s := range b.Signals {
		out.Signals[i] = signal.Signal{
			Tag: s.Tag, Topic: s.Topic, Labels: s.Labels, Value: s.Value.Value, Payload: s.Payload, Position: string(s.Position),
			SourceTime: s.Source, ReceivedTime: s.Received, Quality: min(s.Quality, signal.Bad), Status: s.Status, Problem: s.Problem,
		}
	}
	return out
}

// FromMarks writes the hub's marks down.
func FromMarks(marks []*pb.SourceMark) (out []json.RawMessage) {
	for _, m := range marks {
		if raw, err := protojson.Marshal(m); err == nil {
			out = append(out, raw)
		}
	}
	return out
}

func toMarks(raw []json.RawMessage) (out []*pb.SourceMark) {
	for _, r := range raw {
		m := &pb.SourceMark{}
		if protojson.Unmarshal(r, m) == nil {
			out = append(out, m)
		}
	}
	return out
}

// ErrNotRecording says that a file is something else.
var ErrNotRecording = errors.New("is no recording of an agent")

// Read reads a recording. One that was cut off, because the computer went down, gives what is whole; cut then says so.
func Read(r io.Reader) (h Header, events []Event, cut bool, err error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return h, nil, false, fmt.Errorf("%w: %v", ErrNotRecording, err)
	}
	return readLines(z)
}

// readLines is Read of what is not compressed.
func readLines(r io.Reader) (h Header, events []Event, cut bool, err error) {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 64<<10), maxLine)
	if !lines.Scan() || json.Unmarshal(lines.Bytes(), &h) != nil || h.Format != format {
		return h, nil, false, ErrNotRecording
	}
	if h.Version != version {
		return h, nil, false, fmt.Errorf("the recording has version %d of its format; this program reads version %d", h.Version, version)
	}
	for lines.Scan() {
		var e Event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			cut = true
			break
		}
		events = append(events, e)
	}
	slices.SortStableFunc(events, func(a, b Event) int { return cmp.Compare(a.Seq, b.Seq) })
	return h, events, cut || lines.Err() != nil, nil
}
