package status

import "time"

// RecordRequest says what to record of what the rules are given.
type RecordRequest struct {
	// Sources are those whose batches are recorded; empty for all. Sources that say what theirs is booked on (the order that runs,
	// tags that their rules look at) are recorded with them.
	Sources []string
	// For is how long, 1 h when 0, at most 24 h; MaxBytes how large the file may become, 64 MiB when 0, at most 1 GiB.
	For      time.Duration
	MaxBytes int64
}

// Recording says how a recording is.
type Recording struct {
	File    string    `json:"file"`
	Sources []string  `json:"sources,omitempty"`
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until"`
	Events  uint64    `json:"events"`
	Bytes   int64     `json:"bytes"`
	// Running is false when it has ended; Ended says why.
	Running bool   `json:"running"`
	Ended   string `json:"ended,omitempty"`
}
