package connector

import "context"

// Reopener is implemented by connectors whose system can let a completed order take postings again, for facts that come late.
type Reopener interface {
	// Shut reads in which state an order is now.
	Shut(ctx context.Context, orderNo string) (Lock, error)
	// Reopen lets an order take postings again. An order that takes them is left alone, so that it may be called once more.
	Reopen(ctx context.Context, orderNo string) error
	// Restore brings an order back to the state that Shut named before it was reopened. One that somebody has brought to
	// another state since, in which it takes no postings, is left alone, so that it may be called once more.
	Restore(ctx context.Context, orderNo, state string) error
}

// Lock says whether an order takes postings.
type Lock struct {
	// State is in the system's own words, for Restore.
	State string
	// Shut: it takes none. Final: it never will again, and must not be reopened.
	Shut, Final bool
}
