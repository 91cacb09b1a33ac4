package connector

import "context"

// MovementPoster is implemented by connectors whose system lets somebody post the goods movements of a document that were not posted
// with it.
type MovementPoster interface {
	// PostMovements posts what is missing of the goods movements of a posting's document, once: it looks first what is there. What
	// is all there already is Posted, without a number where no document was made for it. Rejected says why it is not done: stock,
	// a closed period, or a system that keeps the movements and posts them from there, so that they would be in the books twice.
	PostMovements(ctx context.Context, p Posting, doc Document) (Outcome, error)
}
