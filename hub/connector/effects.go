package connector

import (
	"context"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
)

// EffectReader is implemented by connectors whose system can list what it holds of a work order: reconciliation compares that
// with the facts.
type EffectReader interface {
	// Effects returns all documents of an order, and the order as the system holds it now. What the system cannot show must be
	// an error: a document that is left out would be taken for missing. ErrNotFound when the system does not have the order,
	// and for nothing else that it does not have.
	//
	// A document is what one fact made, or what somebody else made, with a number of its own; what takes one back is another.
	// What is accepted and not booked is pending. Whoever cannot show a document's movements gives it those that its quantities
	// mean: a confirmation without its receipt is one whose movement failed.
	Effects(ctx context.Context, orderNo string) (Effects, error)
}

// Effects is everything that a system holds of one order.
type Effects struct {
	// AsOf is the instant up to which everything is listed, by the system's clock where it tells it.
	AsOf      time.Time
	Order     object.WorkOrder
	Documents []object.Effect
}

// DocumentReverser is implemented by connectors that can take back one document by its number, which no fact asked for: the
// second of two with the same key, for instance.
type DocumentReverser interface {
	// ReverseDocument makes the opposite of a document under a key of its own, once: it looks for the opposite first. number is
	// that of an object.Effect, or of one of its movements. A document that is taken back already is Posted with what did it, or
	// refused by its name.
	ReverseDocument(ctx context.Context, number, key string) (Outcome, error)
}
