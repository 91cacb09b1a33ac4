package opcua

import (
	"fmt"
	"math"
	"time"
)

// The values of Config.Read.
const (
	readSubscribe = "subscribe"
	readPoll      = "poll"
)

const defaultPolling = time.Second

// validateReading says what in the way of reading can never work.
func (c *Config) validateReading() error {
	switch c.Read {
	case "", readSubscribe, readPoll:
	default:
		return fmt.Errorf("read %q is unknown: write subscribe or poll, or leave it out", c.Read)
	}
	if c.PollEvery < 50*time.Millisecond || c.PollEvery > time.Hour {
		return fmt.Errorf("poll_every %s is out of range: choose 50ms to 1h", c.PollEvery)
	}
	for i := range c.Nodes {
		if err := c.Nodes[i].validateReading(); err != nil {
			return fmt.Errorf("tag %q: %w", c.Nodes[i].Tag, err)
		}
	}
	return nil
}

func (n *Node) validateReading() error {
	switch {
	case n.Deadband < 0 || math.IsNaN(n.Deadband) || math.IsInf(n.Deadband, 0):
		return fmt.Errorf("deadband %g is not a change of a number", n.Deadband)
	case math.IsNaN(n.DeadbandPercent) || n.DeadbandPercent < 0 || n.DeadbandPercent > 100:
		return fmt.Errorf("deadband_percent %g is out of range: choose 0 to 100", n.DeadbandPercent)
	case n.Deadband > 0 && n.DeadbandPercent > 0:
		return fmt.Errorf("deadband and deadband_percent exclude each other: remove one of them")
	case n.ExpectEvery != 0 && (n.ExpectEvery < time.Second || n.ExpectEvery > 7*24*time.Hour):
		return fmt.Errorf("expect_every %s is out of range: choose 1s to 168h", n.ExpectEvery)
	}
	return nil
}
