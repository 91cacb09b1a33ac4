package uplink

import (
	"math/rand/v2"
	"time"
)

// backoff draws the pauses between attempts: evenly from zero to a limit that doubles (full jitter), so that many agents
// whose hub restarts do not come back in step.
type backoff struct{ tries int }

func (b *backoff) next(refused bool, c Config) time.Duration {
	low, high := c.BackoffMin, c.BackoffMax
	if refused {
		low, high = c.RefusedMin, c.RefusedMax
	}
	limit := high
	if b.tries < 30 && low<<b.tries < high {
		limit = low << b.tries
	}
	b.tries++
	wait := rand.N(limit + 1)
	if refused {
		// A refusal is not mended within a second: at least half of the limit.
		wait = limit/2 + wait/2
	}
	return wait
}
