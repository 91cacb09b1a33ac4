// Package d365 connects the hub to Dynamics 365 Supply Chain Management by its message interface for manufacturing execution
// systems and by OData.
//
// It owns the way a fact becomes a message, and the proof that the message had its effect once. It promises that a message
// which was taken is only called queued: what became of it is read from the message list and from the journals; that nothing of
// which the outcome is unknown is sent again before it was searched for; and that D365 is told never to take material by itself
// at a report as finished. It never rounds a quantity, never guesses a unit, and keeps nothing on disk.
//
// # How once is once
//
// The messages have no field for a key. So there are two ways, by configuration:
//
//   - key_field: the customer has added one extension field to messages and journals. The fact's key goes into it, messages and
//     journal lines are found by it, and a hub that forgot finds what it posted.
//   - without it a message is known by its content: new is what was not in the message list when the posting was prepared. The
//     journals' sums of the order are compared before and after, which proves something only where nobody else posts on the
//     order: single_writer says so. Without that a person decides on what was in doubt.
//
// A message without a trace is taken for lost after absent_after. Without key_field a message that comes after that is noticed
// by this process before it posts again, and not after a restart.
//
// # What D365 can prove, and what it cannot
//
// A message is queued, processed in the order it came among those of its production order, tried three times, and then failed
// or processed. Failed means that nothing was booked: the fact is rejected with D365's own text. A person can let a failed
// message be processed again; with key_field that is noticed when the fact is replayed, without it the person has to accept the
// fact. Not proved: reversals, which are not made here.
//
// With key_field the journal lines of an order are listed for reconciliation, and what still waits in the queue as pending. Without
// it no line can be told from another, and nothing is listed.
//
// # What was read and what was not
//
// Read in published texts: SendMessage and its parameters, the queue JmgMES3P, message types, most fields of their lines, the
// order per production order, three attempts, cross-company reading with dataAreaId, 429 with Retry-After. Assumed, and to be
// checked in each system's $metadata: the names of entities and fields (entities, key_field), that the message list can be read
// by OData with its content and searched with an asterisk, and that a return is a picking list line below zero.
package d365
