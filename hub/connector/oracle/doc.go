// Package oracle connects the hub to Oracle Fusion Cloud SCM by its REST resources for manufacturing.
//
// It owns the way a fact becomes an operation transaction or a material transaction, and the proof that it did so once. It
// promises that one fact is one request, which Oracle books whole or not at all; that nothing of which the outcome is unknown
// is sent again before it was searched for; and that a success of HTTP is never taken for a posting: ErrorsExistFlag inside of
// it is read, and the effect is read back. It never rounds a quantity, never guesses a unit, and keeps nothing on disk.
//
// # How once is once
//
// The resources that post cannot be read, and nothing that was read says that Oracle refuses a second transaction with the
// same reference. So there are two ways to find an effect, by configuration:
//
//   - lookup: reference. The fact's key goes with each transaction as its reference and is searched for in the completed
//     inventory transactions. This finds what moves stock: material, and yield of the last operation. What moves none (scrap
//     alone, earlier operations) is looked for by totals.
//   - lookup: totals. Completed and scrapped quantity of the operation, or issued quantity of the material, are read before the
//     posting and after it. That proves something only where nobody else posts on these operations: single_writer says so.
//     Without it the answer is that it cannot be told, and a person decides.
//
// A request without a trace is taken for lost after absent_after, which has to be longer than any request may live on the way.
// By totals, a request that comes after that is noticed by this process before it posts again, and not after a restart.
//
// # What Oracle can prove, and what it cannot
//
// Proved by reading back: by reference order, item, quantity and that there is one transaction; by totals the change of the
// totals. Not proved: the posting date, and by totals which transaction it was. A hub whose database was put back finds what has
// a reference, and does not find scrap alone or earlier operations: so the capability of an external key is not claimed. Facts
// are taken back only with lookup: reference, and only what can be found by it.
//
// By reference the documents of an order are listed for reconciliation, out of the completed inventory transactions. These show
// neither scrap nor operations before the last; an order that has either, or whose totals are not what its transactions add up to,
// is not listed and an error.
//
// # What was read and what was not
//
// Read in published texts: paths and paging, the header REST-Framework-Version, the children of a work order, dispatch states,
// the source system, ErrorsExistFlag as text or boolean, and that GET is not supported on transactions. Assumed, and to be
// checked in each system: that the reference of a request can be read from completed transactions and by which names
// (reference_field, reference_attribute, completed_resource, source_attribute), the names of messages (messages), that the stamp of an order is set before its
// change can be seen (overlap), and the codes of order status. Lots and serial numbers have no published sample that was read:
// facts that carry them are refused by name.
package oracle
