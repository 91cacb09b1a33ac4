// Package signal is what drivers and the rest of the agent share: signals, batches, and the contract of a driver.
//
// It owns the vocabulary only. It promises that a driver needs to know nothing else of the agent. It never touches a
// network, a file or a clock, and it knows no protocol.
package signal

import (
	"context"
	"encoding/json"
	"time"
)

// Number is an exact number as text, the way its source wrote it: never a float. Drivers turn every numeric type into it
// (an OPC UA Double in the shortest form that reads back equal).
type Number = json.Number

// Quality is what the source itself says of a value.
type Quality uint8

// Only Good values are ever counted as production; the others stay visible.
const (
	Good Quality = iota
	Uncertain
	Bad
)

func (q Quality) String() string { return [...]string{"good", "uncertain", "bad"}[q] }

// Signal is one thing a source said.
type Signal struct {
	// Tag names it as the configuration does: an OPC UA tag's name, an MQTT topic rule's name, a MES query's name.
	Tag string
	// Topic is the concrete address when one tag covers many (the MQTT topic); otherwise empty.
	Topic string
	// Labels are what the source's configuration took out of the address by name, such as site and line of a topic template;
	// nil without any. Rules read them as labels.site.
	Labels map[string]string
	// Value is nil, bool, string, Number, time.Time, []byte, []any of these, or map[string]any of these (a structured
	// message or a row, keys as the source spells them). A *Row stands for such a map, as a signal's whole value only.
	Value any
	// Payload is what was received, kept for quarantine when the value cannot be used; nil where the value says it all (OPC UA,
	// the rows of a table).
	Payload []byte
	// Position is what the source guarantees of its identity, for the fact's key: table key and row version of a row.
	// Empty when the source guarantees nothing; rules then look into the payload for an id.
	Position string
	// SourceTime is the source's clock, zero when it gave none. ReceivedTime is the agent's.
	SourceTime   time.Time
	ReceivedTime time.Time
	// ServerTime is the clock of what stands between the source and the agent and stamped the value itself (an OPC UA server);
	// zero where there is none.
	ServerTime time.Time
	Quality    Quality
	// Status is the source's own word for the quality, such as "BadSensorFailure".
	Status string
	// Problem is set when the driver could not decode the value (bad JSON, wrong encoding): the signal then carries the
	// Payload only and ends in quarantine with this reason, and the source is acknowledged like for any other.
	Problem *Problem
}

// Problem is a fault in an input, in words for the person who can mend it.
type Problem struct {
	// Code is stable, for machines: "bad_json".
	Code string
	// Item is what is at fault, as the configuration or the payload names it.
	Item string
	// Reason is one sentence; NextStep says what to do.
	Reason   string
	NextStep string
	// Missing is how many records, at least, the source has numbered that never came; zero where its numbers show none.
	Missing uint64
}

// Batch is what becomes durable together: signals, and the source's cursor after them.
type Batch struct {
	Source  string
	Signals []Signal
	// Cursor replaces the source's stored cursor when not nil. Its bytes are the driver's own business; it gets them back
	// in Run after a restart.
	Cursor []byte
}

// Emit hands a batch to the agent. Nil means that the batch's facts, its cursor and the translator's state are durable in
// one transaction; only then may the driver acknowledge its source. It blocks while the buffer is full: that is how a
// source is held back. An error means that nothing of the batch was stored; the driver keeps the batch and tries again, or
// lets its source deliver it again. Emit may be called from several goroutines; batches of one source are stored in the
// order of the calls only if the driver calls one after the other. When it has returned it keeps nothing of the list of
// signals, only values and texts that they hold.
type Emit func(ctx context.Context, b Batch) error

// Driver reads one source.
type Driver interface {
	// Run works until ctx ends and returns nil then, after all of its goroutines have ended. It heals every fault of its
	// source by itself, for ever, and reports what it is doing through the Reporter it was made with: it returns an error
	// only for a configuration that can never work. cursor is what the last durable batch carried, nil at the first start.
	Run(ctx context.Context, cursor []byte, emit Emit) error
}

// OrderReceiver is a Driver that can also hand work orders to its source.
type OrderReceiver interface {
	// TakesOrders reports whether this source is configured to take work orders.
	TakesOrders() bool
	// Deliver hands over one revision of a work order. Nil means that the receiver durably has it. It may be called again
	// with the same (OrderNo, Revision) after a crash and must then have no second effect. A *Refused error says that the
	// receiver will never take this revision; any other error is tried again.
	Deliver(ctx context.Context, o WorkOrder) error
}

// LaneReceiver is an OrderReceiver with several machines behind it, which need not wait for each other.
type LaneReceiver interface {
	// Lane names the machine that an order goes to. Orders of one lane are delivered one after the other, those of different
	// lanes at the same time.
	Lane(o WorkOrder) string
}

// OrderChecker is an OrderReceiver that can tell beforehand what it would not take or could not book.
type OrderChecker interface {
	// CheckOrder returns nil for an order that may be delivered, and *Refused, with the field at fault and the next step, for
	// one that must not. Any other error says that it cannot be told now: the order waits and is checked again. It is never
	// asked of a cancellation.
	CheckOrder(ctx context.Context, o WorkOrder) error
}

// OrderHolder is an OrderReceiver whose machines can be told to hold an order. Others are not offered held revisions.
type OrderHolder interface {
	// HoldsOrders reports whether Deliver takes a revision with Held set: what runs is paused, what waits does not start, until
	// a later revision is not held any more.
	HoldsOrders() bool
}

// Refused is the error of a Deliver that must not be repeated.
type Refused struct{ Reason string }

func (r *Refused) Error() string { return "refused: " + r.Reason }

// WorkOrder is what a receiver needs of a work order. Times are zero and texts empty when unknown.
type WorkOrder struct {
	OrderNo      string
	Revision     int64
	Cancelled    bool
	Held         bool // only for an OrderHolder
	Plant        string
	WorkCenter   string
	Item         string
	Description  string
	Quantity     Number
	Unit         string
	Priority     int32
	Lot          string
	PlannedStart time.Time
	PlannedEnd   time.Time
	Operations   []Operation
	Components   []Component
}

// Operation is one step of a work order.
type Operation struct {
	Operation   string
	Description string
	WorkCenter  string
	Quantity    Number
	Unit        string
}

// Component is material that a work order needs.
type Component struct {
	Item        string
	Description string
	Required    Number
	Unit        string
	Operation   string
	Reservation string
	Backflush   bool
}

// Reporter takes a source's state for the operator's page. Its methods never block and may be called from any goroutine.
type Reporter interface {
	// State says how the source is: one of the State constants, with a plain reason for any but OK.
	State(s State, reason string)
	// Problem shows a fault that does not stop the source (one bad node, a missing table) under a key; nil removes it.
	Problem(key string, p *Problem)
}

// State of a source.
type State string

// The states of a source.
const (
	StateConnecting State = "connecting"
	StateOK         State = "ok"
	StateFailed     State = "failed"  // not connected, being tried again
	StateHeld       State = "held"    // held back because the buffer is full
	StateStopped    State = "stopped" // by configuration or because the agent stops
)

// Kind is a driver as the agent's list names it.
type Kind struct {
	// Name is the value of "kind:" in a source's configuration.
	Name string
	// Sample is the commented configuration that stands beside the driver.
	Sample string
	// New reads the source's own section, refusing unknown keys, and returns the driver without touching the network.
	// decode fills a struct (tags "yaml") from that section; its errors carry the line.
	New func(env Env, decode func(into any) error) (Driver, error)
	// Discover finds the ways to reach a source of this kind at an address that a person typed (a host, host:port or a whole
	// address, a path), best and safest first. It may be nil.
	Discover func(ctx context.Context, env Env, address string) ([]Offer, error)
	// Explore is New for a section that has no tags yet: the driver is good for Probe, Browse and Find, and is never run. It may
	// be nil. Tags is the key of the list in the section that an Entry's Tag is an element of ("nodes", "topics", "queries").
	Explore func(env Env, decode func(into any) error) (Driver, error)
	Tags    string
}

// Env is what a driver is given.
type Env struct {
	Plant  string
	Agent  string
	Source string
	// Dir is the source's own folder for files it must keep (certificates, trust list); it exists.
	Dir string
	// ConfigDir is the folder of the configuration file: relative file names in a section start there.
	ConfigDir string
	// Zone is the plant's time zone, for sources whose times carry none.
	Zone     *time.Location
	Reporter Reporter
	Logger   Logger
}

// Logger is the part of *slog.Logger that drivers use.
type Logger interface {
	Debug(msg string, args ...any)
	Info(msg string, args ...any)
	Warn(msg string, args ...any)
	Error(msg string, args ...any)
}
