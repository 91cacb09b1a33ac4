package posting

import (
	"testing"
	"time"
)

// What arrives goes before planning for a while, but not for as long as a plant is busy.
func TestPlannerThatStaysBehindRestsLess(t *testing.T) {
	r := &runner{}
	at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
	const took = 20 * time.Millisecond
	for _, step := range []struct {
		after time.Duration
		full  bool // it left facts behind
		want  time.Duration
	}{
		{0, false, restTimes * took},
		{0, true, restTimes * took},
		{burst, true, restTimes * took},
		{burst + 1, true, took},
		{burst + 2, false, restTimes * took},
		{burst + 3, true, restTimes * took},
	} {
		r.facts = step.full
		if rest := r.rest(at.Add(step.after), took); rest != step.want {
			t.Errorf("after %s (behind: %t) it rests %s, want %s", step.after, step.full, rest, step.want)
		}
	}
	if rest := r.rest(at, time.Hour); rest != longestRest {
		t.Errorf("after an hour it rests %s", rest)
	}
}
