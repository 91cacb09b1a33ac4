package connector

import "context"

// ManyVerifier is implemented by connectors that can read several postings of one order back by one call of the system: where
// calls are counted, reading back then costs few of them.
type ManyVerifier interface {
	// VerifyMany reads postings of one order back. The answers stand in the order of the questions, and each says what Verify
	// would say of that posting alone, or that Verify has to be asked (Verification.Alone). An error says that the question was
	// lost: nothing is known of any of them.
	VerifyMany(ctx context.Context, all []ToVerify) ([]Verification, error)
}

// ToVerify is a posting that is read back together with others, and what Verify would be asked with.
type ToVerify struct {
	Posting  Posting
	Intent   []byte
	Document Document
}
