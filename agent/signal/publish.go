package signal

import "time"

// Publisher is a Driver that can tell others how the agent is, such as an edge node of Sparkplug.
type Publisher interface {
	// Publishes reports whether this source is configured to.
	Publishes() bool
	// Publish takes the present values of everything that the agent tells, every few seconds. It never blocks, may be called
	// before, during and after Run, and keeps nothing of the slice.
	Publish(metrics []Metric)
}

// Metric is one thing that the agent tells of itself.
type Metric struct {
	// Name has levels separated by "/": "Facts/Waiting". It always means the same thing.
	Name string
	// Value is nil, bool, string, Number or time.Time.
	Value any
	// Unit is empty for what has none.
	Unit string
	// At is when the value was looked at.
	At time.Time
}
