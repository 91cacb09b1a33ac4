package signal

import "time"

// Publisher is a Driver that can tell others how the agent is, such as an edge node of Sparkplug.
type Publisher interface {
	// Publishes reports whether this source is configured to tell how the agent is, and whether it tells values of tags, too.
	Publishes() (status, tags bool)
	// Publish takes the present values of everything that the agent tells, every few seconds. It never blocks, may be called
	// before, during and after Run, and keeps nothing of the slice.
	Publish(metrics []Metric)
}

// Metric is one thing that the agent tells of itself.
type Metric struct {
	// Name has levels separated by "/": "Facts/Waiting". It always means the same thing.
	Name string
	// Value is what a Signal's can be. Metrics whose names begin with Tags/ are the last values of tags, by source and tag;
	// the others tell of the agent itself and have simple values.
	Value any
	// Quality is that of a tag's value; Good for all others.
	Quality Quality
	// Unit is empty for what has none.
	Unit string
	// At is when the value was looked at, for a tag the time of its value.
	At time.Time
}
