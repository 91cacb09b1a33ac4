package opcua

import (
	"context"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// gap is a time of which values may be missing.
type gap struct {
	from time.Time // zero when it is not known
	why  string
	// filled tells what the server's history gave; empty when it was not asked.
	filled string
}

// reportGap tells of a gap that is over: one message, or a few, that cannot be had any more.
func (r *reader) reportGap(from time.Time, why string) {
	r.endGap(&gap{from: from, why: why}, time.Now())
}

// endGap counts a gap and shows it with its length.
func (r *reader) endGap(g *gap, now time.Time) {
	r.gaps++
	if !g.from.IsZero() {
		r.gapTime += now.Sub(g.from)
	}
	r.log.Warn("possible gap", "source", r.env.Source, "from", g.from, "to", now, "length", length(g.from, now), "reason", g.why,
		"history", g.filled)
	r.showGap(g, now)
}

func (r *reader) showGap(g *gap, now time.Time) {
	began := "an unknown time"
	if !g.from.IsZero() {
		began = g.from.In(r.zone()).Format(time.DateTime)
	}
	reason := fmt.Sprintf("values between %s and %s (%s) may be missing: %s", began, now.In(r.zone()).Format(time.DateTime),
		length(g.from, now), g.why)
	if g.filled != "" {
		reason += "; " + g.filled
	}
	if r.gaps > 1 {
		reason += fmt.Sprintf("; %d gaps since the agent started, %s together", r.gaps, r.gapTime.Round(time.Second))
	}
	r.passing("gap", &signal.Problem{Code: "gap", Item: r.config.Endpoint, Reason: reason,
		NextStep: "counters go on by their difference; check single records of that time against the machine"}, now)
}

// length is a gap's length in words.
func length(from, to time.Time) string {
	if from.IsZero() {
		return "of unknown length"
	}
	d := to.Sub(from)
	if d < 10*time.Second {
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

// closeGap ends a gap now that values come again: what the server's history has of it is stored before the values that are
// newer. Only a fault of the connection is an error; the gap is then dealt with at the next one.
func (r *reader) closeGap(ctx context.Context, l historian, facts serverFacts) error {
	s := r.sub
	if s.unfilled.IsZero() && r.gap == nil {
		return nil
	}
	if r.gap == nil {
		r.gap = &gap{from: s.unfilled, why: "the agent was stopped before it had dealt with the gap"}
	}
	if !r.config.SkipHistory && !s.unfilled.IsZero() {
		f := &filler{reader: r, historian: l, facts: facts}
		if err := f.run(ctx); err != nil {
			return fmt.Errorf("fill the gap from the server's history: %w", err)
		}
		r.gap.filled = f.words()
	}
	r.endGap(r.gap, time.Now())
	r.gap, s.unfilled = nil, time.Time{}
	clear(r.lasts)
	return r.handAndWait(ctx, nil)
}

// handAndWait makes signals durable together with the cursor of this moment, and waits for it.
func (r *reader) handAndWait(ctx context.Context, signals []signal.Signal) error {
	drain := func(upTo int) error {
		for len(r.pending) > upTo {
			select {
			case d := <-r.emitter.out:
				r.durable(d)
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	if err := drain(window); err != nil {
		return err
	}
	r.hand(&delivery{sub: r.sub, batch: signal.Batch{Source: r.env.Source, Signals: signals, Cursor: r.sub.cursor(r.sub.order.next)}})
	return drain(0)
}
