package uplink

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// backoff draws the pauses between attempts: evenly from zero to a limit that doubles (full jitter), so that many agents
// whose hub restarts do not come back in step. In the beginning of an outage the limit stays small: most are short, and a
// hub that is back is found soon.
type backoff struct {
	tries int
	began time.Time
}

func (b *backoff) next(now time.Time, refused bool, c Config) time.Duration {
	if b.began.IsZero() {
		b.began = now
	}
	low, high := c.BackoffMin, c.BackoffMax
	if refused {
		low, high = c.RefusedMin, c.RefusedMax
	} else if now.Sub(b.began) < c.BackoffSoonFor {
		high = min(high, c.BackoffSoon)
	}
	limit := high
	if b.tries < 30 && low<<b.tries < high {
		limit = low << b.tries
		b.tries++
	} else if refused || high == c.BackoffMax {
		b.tries++
	}
	wait := rand.N(limit + 1)
	if refused {
		// A refusal is not mended within a second: at least half of the limit.
		wait = limit/2 + wait/2
	}
	return wait
}

// turn is when the hub wants us again, as it said in a refusal.
type turn struct{ after time.Duration }

func (t *turn) Error() string { return fmt.Sprintf("the hub says: again after %s", t.after) }

// mostTurn bounds what a hub may ask for.
const mostTurn = 5 * time.Minute

// turnOf returns the pause that the hub asked for, and a little more: its clock and ours need not agree about a second.
func turnOf(err error) (wait time.Duration, ok bool) {
	var t *turn
	if !errors.As(err, &t) || t.after <= 0 {
		return 0, false
	}
	after := min(t.after, mostTurn)
	return after + rand.N(after/20+50*time.Millisecond), true
}
