// Package connector is the contract between the hub and an outside system that holds the books.
//
// It owns the questions the hub asks (what changed, post this, did that happen, what do you hold) and the possible answers,
// "cannot tell" among them. It promises the posting engine that every answer is a statement about the effect in the outside
// system and never about the transport. It never stores anything and never decides to try again.
package connector

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/linekeeper/linekeeper/hub/object"
)

// Connector speaks to one outside system. All methods may be called from several goroutines; the hub never has two calls
// about one work order under way at once. An error return means that the connector itself could not do its work (network
// down before anything was sent, log-in refused): nothing has happened outside, and the hub asks again later.
type Connector interface {
	// Capabilities says what the system can and cannot prove. It does no I/O.
	Capabilities() Capabilities

	// ListChanged returns work orders that changed at or after cursor, oldest change first, and the cursor for the next
	// call. An empty cursor means from the beginning. It may return an order again that was returned before; it never
	// leaves one out, even when the system commits changes out of order. More says that there is more right now.
	ListChanged(ctx context.Context, cursor string) (Changes, error)

	// Get reads one work order by its number. ErrNotFound when the system does not have it.
	Get(ctx context.Context, orderNo string) (object.WorkOrder, error)

	// Prepare reads what Lookup will need if the outcome of Post is lost and returns it as the intent; the hub stores it
	// before Post. It changes nothing outside. It may already answer Rejected, or Posted when the effect is there.
	Prepare(ctx context.Context, p Posting) (intent []byte, early *Outcome, err error)

	// Post makes the effect, once. Whatever goes wrong after the first byte may have been sent is InDoubt, never an error.
	Post(ctx context.Context, p Posting, intent []byte) Outcome

	// Lookup finds out what became of a posting whose outcome is unknown. It may finish a posting that is half done when
	// finishing it cannot double it. What is not there is judged by its age at the first question to the system, in Verify too: the
	// answer may be read long after it was given.
	Lookup(ctx context.Context, p Posting, intent []byte) (Finding, error)

	// Verify reads the effect back and compares it with the posting.
	Verify(ctx context.Context, p Posting, intent []byte, doc Document) (Verification, error)
}

// StockReader is implemented by connectors whose system can tell how much it holds.
type StockReader interface {
	// Inventory returns the balances of the items at the system's own default storage, or of all items when none is named. A list is
	// whole or an error; an item of which it cannot be told what is held has a balance that says why (CannotTell), and stops no other.
	Inventory(ctx context.Context, items []string) ([]object.Balance, error)
}

// LotStockReader is implemented by connectors whose system can tell where it holds what, and of which lot.
type LotStockReader interface {
	// Balances returns the balance of each item at each storage location, a lot apart from the others, or of all items when none
	// is named. What is not there is left out; a balance without a lot is what belongs to none. It counts whatever object.Effect says
	// to have moved stock, and lists like Inventory.
	Balances(ctx context.Context, items []string) ([]object.Balance, error)
}

// Capabilities of an outside system. The hub asks before it plans.
type Capabilities struct {
	System string
	// Posts lists the kinds of facts that have an effect in the system; facts of other kinds are settled as "not posted by
	// policy". States lists the shop-floor states that have one.
	Posts  []object.Kind
	States []object.FloorState
	// OperationStates lists the shop-floor states that a single operation can have in the system. The hub never asks a connector
	// for others of an operation that leave the order open.
	OperationStates []object.FloorState
	// ExternalKey: the system stores the fact's key with the document and can be searched by it.
	ExternalKey bool
	// CompareAndSet: a posting can be tied to the state that Prepare read, so that it cannot happen twice.
	CompareAndSet bool
	// Reverses lists the kinds of facts whose effects the connector can take back. The hub never asks it to reverse others.
	Reverses []object.Kind
	// QuantityScale is the number of decimals that the system keeps; -1 means any.
	QuantityScale int32
	// Settle is how long an effect may take to appear after the system answered.
	Settle time.Duration
	// Backflush says which components the system takes by itself with a confirmation, as the connector is configured.
	Backflush Backflush
	// MovementTypes: the system is told types of goods movements, which a mapping may say (Posting.MovementType).
	MovementTypes bool
	// CannotReopen says, of a system that is known to offer no way to let a completed order take postings again, why, and what a
	// person does instead; empty for a Reopener, and where nothing is known.
	CannotReopen string
	// ReversesPart lists the kinds of facts of whose effects the connector can take back a part: Posting.Fact then has less than
	// Posting.Original, and Original.Part is set.
	ReversesPart []object.Kind
}

// Backflush says which components a system takes by itself.
type Backflush string

// What a system backflushes.
const (
	BackflushUnknown Backflush = ""       // nobody has said: the order's mark counts
	BackflushNever   Backflush = "never"  // nothing: the connector tells it so with each confirmation
	BackflushMarked  Backflush = "marked" // the components that the order marks (object.Component.Backflush)
)

// Changes is one page of changed work orders.
type Changes struct {
	Orders []object.WorkOrder
	// Unreadable are changed orders that could not be put into our words. They stop no neighbour; Get returns one once the
	// cause is mended.
	Unreadable []Unreadable
	Cursor     string
	More       bool
}

// Unreadable is an order that the connector cannot translate, and a sentence why: an unmapped unit, for instance.
type Unreadable struct {
	OrderNo, ERPKey, Reason string
}

// Posting is what shall take effect.
type Posting struct {
	Fact object.Fact
	// Order is the work order as the hub knows it.
	Order object.WorkOrder
	// PostingDate is the calendar date (midnight UTC) for the books. EventDate is the fact's own where that is another, zero
	// otherwise: a connector whose document has a text puts it there.
	PostingDate, EventDate time.Time
	// Attempt counts from 1.
	Attempt int
	// Movements are the system's types of goods movements where a mapping says them; ask MovementType. They stay the same for all
	// that is done about a posting, its reversal included.
	Movements *object.MovementTypes
	// ClosesOrder: a change of state that names an operation ends the order with it. It names one only where the system has such a
	// state of an operation (Capabilities.OperationStates), else the order alone is meant. What names no operation is always of
	// the order.
	ClosesOrder bool
	// Original is the fact that Fact takes back, nil unless Fact.Reverses is set. Fact's quantities are then the ones to take
	// back, above zero as they were posted.
	//
	// A reversal goes the way of any posting. Prepare finds the original's effect by the original's key: Rejected when there
	// is none, or when another fact has taken it back already. Post makes the opposite of that effect under Fact's own key,
	// once. Verify reads back the opposite, and that it belongs to the original.
	Original *Original
}

// CodeMappingMissing is the code of a posting of which no mapping in force knows a word. It waits until one does.
const CodeMappingMissing = "mapping_missing"

// MovementType is what the system calls a goods movement: what a mapping says, own where none is in force. A movement that a mapping
// in force does not know is Rejected with CodeMappingMissing, for Prepare to answer.
func (p Posting) MovementType(k object.MovementKind, own string) (string, *Outcome) {
	to, ok := p.Movements.Of(k, own)
	if ok {
		return to, nil
	}
	return "", &Outcome{Result: Rejected, Class: Correctable, Code: CodeMappingMissing,
		Reason:   fmt.Sprintf("movement %q is not in mapping set %q, of which version %d is in force", k, p.Movements.Set, p.Movements.Version),
		NextStep: fmt.Sprintf("add it in a new version of %q and have that approved; then this goes on by itself", p.Movements.Set)}
}

// Original is a fact as it was posted, and the document of its effect as far as the hub knows it.
type Original struct {
	Fact     object.Fact
	Document Document
	// Part: the document has more than is taken back. Fact is then the whole of it, with the key that the document carries.
	Part bool
}

// Result is what Post knows of the effect.
type Result string

// The results of a posting.
const (
	Posted   Result = "posted"
	Rejected Result = "rejected"
	InDoubt  Result = "in_doubt"
)

// Class says what can be done about a rejection. In every class nothing has happened outside.
type Class string

// The classes of rejections.
const (
	Retryable   Class = "retryable"   // lock, throttling, dependency not there yet: the hub tries again by itself
	Correctable Class = "correctable" // closed period, missing stock, wrong state: a person mends it, then replays
	Fatal       Class = "fatal"       // unknown order, unit or item, no right: the fact itself or the mapping is wrong
)

// Outcome is the answer of Post.
type Outcome struct {
	Result   Result
	Document Document
	// Class, Code and Reason are set when rejected; Reason also when in doubt. Code is stable, Reason a sentence that names
	// the item, NextStep what a person should do.
	Class    Class
	Code     string
	Reason   string
	NextStep string
	// RetryAfter is how long the system asked to be left in peace, with this and every other call; zero when it did not.
	RetryAfter time.Duration
}

// Document is the outside system's own key of an effect.
type Document struct {
	Number string // as a person would search for it
	ID     string // the system's technical key; may be empty
}

// Presence is what Lookup found.
type Presence string

// What a look-up can find.
const (
	Found       Presence = "found"
	Absent      Presence = "absent"        // certainly not there and can no longer appear: it may be posted again
	NotFoundYet Presence = "not_found_yet" // not there, but might still appear: ask again later
	CannotTell  Presence = "cannot_tell"   // the system cannot answer: a person decides
)

// Finding is the answer of Lookup.
type Finding struct {
	Presence Presence
	Document Document
	Reason   string
	// Rejection says, of an effect that is Absent, why: the system had taken the request and then refused it. The hub deals
	// with it as with the same answer of Post. Nil when the request was only lost.
	Rejection *Outcome
}

// Verification is the answer of Verify.
type Verification struct {
	// Matches: the effect is there and equals the posting. Otherwise Difference says in a sentence what is different.
	Matches    bool
	Difference string
	// NotYet: the effect cannot be read yet; ask again later.
	NotYet bool
	// Alone: this posting cannot be told of together with others, so that Verify is to be asked. Only VerifyMany answers that, and
	// nothing else then.
	Alone bool
}

// ErrNotFound says that the outside system does not have the object; Get wraps it.
var ErrNotFound = errors.New("not found")
