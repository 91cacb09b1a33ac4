package posting

import (
	"context"
	"fmt"
	"time"
)

// Visit is the leave of another part of the hub to ask an outside system. It keeps to what postings keep to: so many calls at a
// time, none while the system rests or is left in peace.
type Visit struct {
	e    *Engine
	gate *gate
	turn turn
}

// Visit lets the caller ask a system. A wait above zero says that it is left in peace for so long, and there is no visit then.
// Whoever has one must Leave.
func (e *Engine) Visit(erp string) (v *Visit, wait time.Duration, err error) {
	g := e.gates[erp]
	if g == nil {
		return nil, 0, fmt.Errorf("ask outside system %q: it is not configured", erp)
	}
	if wait, ok := g.enter(time.Now()); !ok {
		return nil, max(wait, time.Millisecond), nil
	}
	return &Visit{e: e, gate: g, turn: turn{of: e.turns[erp]}}, 0, nil
}

// Turn waits until one more call may be under way; what is urgent goes first. Pause ends it, so does Leave.
func (v *Visit) Turn(ctx context.Context, urgent bool) error { return v.turn.take(ctx, urgent) }

// Pause gives the turn back while the answer is dealt with.
func (v *Visit) Pause() { v.turn.give() }

// Rest leaves the system in peace for as long as it asked, within reason.
func (v *Visit) Rest(d time.Duration) { v.gate.rest(time.Now(), d) }

// Leave ends the visit; failure is a reason to believe that the system itself is in trouble, empty when it answered.
func (v *Visit) Leave(failure string) {
	v.turn.give()
	v.gate.leave(time.Now(), failure)
}

// Quit ends a visit that says nothing about the system: what is refused there may be granted to postings.
func (v *Visit) Quit() {
	v.turn.give()
	v.gate.quit()
}

// Context is one for a call of an outside system: it outlives the hub's end by the grace, so that a call which has begun can be
// answered.
func (v *Visit) Context(ctx context.Context) (context.Context, context.CancelFunc) {
	return v.e.callContext(ctx)
}

// CrashPoint is asked by other parts of the hub at each of their steps, as the engine asks at its own: a build with the tag
// crashpoints can be made to die there.
func CrashPoint(step string) error { return crashPoint(step) }
