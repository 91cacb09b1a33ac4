package connector

import (
	"context"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
	"github.com/linekeeper/linekeeper/proto/factkey"
)

// BusinessReader is implemented by connectors whose system holds business objects beside work orders: purchase and sales
// orders, shipments, invoices, counts, and the items and parties that these are about.
type BusinessReader interface {
	// ReadsBusiness lists the kinds that can be read. It does no I/O.
	ReadsBusiness() []object.BusinessKind

	// ListBusiness is ListChanged for objects of one kind: those that changed at or after cursor, oldest change first; it may
	// return one again and never leaves one out. A change of what belongs to an object (a receipt to a purchase order) is a
	// change of it. A cursor is of its kind.
	ListBusiness(ctx context.Context, kind object.BusinessKind, cursor string) (BusinessChanges, error)

	// GetBusiness reads one object by its number, or by its ERPKey where it has no number yet. ErrNotFound when the system does
	// not have it.
	GetBusiness(ctx context.Context, kind object.BusinessKind, number string) (object.Business, error)

	// FindBusiness returns the objects with a reference: the number that the other side gave, or, of what was written through
	// here, the 16-character key. There may be several, because a reference is nobody's own; none is no error.
	FindBusiness(ctx context.Context, kind object.BusinessKind, reference string) ([]object.Business, error)
}

// BusinessChanges is one page of changed objects.
type BusinessChanges struct {
	Objects    []object.Business
	Unreadable []Unreadable // OrderNo is then the object's number
	Cursor     string
	More       bool
}

// BusinessWriter is implemented by connectors that make business objects in their system, and move them on. The methods are to
// a Write what Prepare, Post, Lookup and Verify of Connector are to a posting, and promise the same: the caller stores the
// intent before WriteBusiness, asks LookupBusiness after a lost outcome and before it writes again, and whatever is lost
// between, one key makes one object, which takes each of its steps once. PrepareBusiness makes no object and moves none; it may
// register what has no effect by itself, such as the number of a lot. A rejection may leave the object in the system as a
// draft that carries the key: it has no effect on stock or books, and the same write goes on from it.
type BusinessWriter interface {
	// WritesBusiness lists the states that objects can be brought to. It does no I/O.
	WritesBusiness() map[object.BusinessKind][]string
	PrepareBusiness(ctx context.Context, w Write) (intent []byte, early *Outcome, err error)
	WriteBusiness(ctx context.Context, w Write, intent []byte) Outcome
	LookupBusiness(ctx context.Context, w Write, intent []byte) (Finding, error)
	VerifyBusiness(ctx context.Context, w Write, intent []byte, doc Document) (Verification, error)
}

// Write is a business object as it shall be: with this content, and as far as its state says.
//
// With a number, or an ERPKey, it is that object, which is moved on. Without one the system makes a new object, unless it made
// one by itself out of what Want names: a shipment when a sales order was confirmed, a draft invoice when goods came. That one
// is then taken, if its content is the same; a difference is a rejection, for a person or a match to decide.
type Write struct {
	// Key makes it happen once. It is minted by whoever first wanted it, and stands with the object in the system.
	Key  factkey.Key
	Want object.Business
	// PostingDate is the calendar date (midnight UTC) for the books; zero leaves it to the system.
	PostingDate time.Time
	// Accept lists codes of warnings that a person has seen and accepted: the system asks, a rejection with the code of the
	// warning is the answer, and the same write that accepts it goes on. Nothing else is ever confirmed.
	Accept []string
	// Attempt counts from 1.
	Attempt int
}
