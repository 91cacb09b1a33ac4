package s4

import "time"

// Impatient lets a test say that its requests never take as long as Timeout would let them.
func Impatient(c Config, mayTake time.Duration) Config {
	c.mayTake = mayTake
	return c
}
