// Package s4 connects the hub to SAP S/4HANA by its published OData V2 services.
//
// It owns the way a fact becomes a confirmation or a material document, and the proof that it did so once. It promises that
// the fact's key goes with every document, that nothing of which the outcome is unknown is sent again before it was searched
// for by that key, and that a success of HTTP is never taken for a posting: confirmation and goods movements are read back.
// It never changes a document, since SAP has no way to, never cuts a text or rounds a quantity, and keeps nothing on disk.
//
// # How once is once
//
// A confirmation carries the key as ExternalSystemConfirmation (a GUID), a material document as ReferenceDocument (16
// characters). SAP can be searched by both, and by nothing that was read does it refuse a second document with one of them. So
// the search alone cannot tell a request that was lost from one that is late. There are two ways out, by configuration:
//
//   - repeatable: SAP Gateway is configured for RequestID with RepeatabilityCreation. The request is made from the fact's key,
//     so that it is the same whoever sends it and however often, and SAP answers a repetition with its first answer. A request
//     without a trace after Settle may be sent again. An answer that the id is outdated means that it was processed: it is
//     searched for. A system that does not say that it accepted the id is from then on treated as the other kind.
//   - otherwise a request without a trace is taken for lost only after AbsentAfter, which has to be longer than SAP and
//     everything before it let a request live; or a person decides. A request that a gateway sends twice is booked twice, and
//     Verify shows both documents.
//
// # What SAP can prove, and what it cannot
//
// Proved by reading back: order, operation, quantities, unit, posting date and each goods movement. SAP saves a confirmation
// although its goods movement fails (it then waits in the list of failed movements, which no service shows), or processes the
// movement later. Both look alike: the movement is not there. Within Settle the connector says "not yet", after it "different",
// with item and quantity. The list of failed movements can be neither read nor emptied from outside, so that nothing of it is posted beside
// it: only a receipt that is a document of its own (movements: separate, repeatable) is posted later by reconciliation. Since nobody knows when within the time of a request SAP began, that time is waited for as well.
//
// The documents of an order are listed for reconciliation: confirmations with their goods movements, and the material documents
// that no confirmation made. A list that is shorter than SAP counts, a cancelled confirmation without what cancelled it, or a
// document of which only an item was seen is an error. The GUID of a confirmation carries too few bits of the fact's key, so its
// text has to say the key too; one whose text was changed is listed without a key, and found by the look-up all the same. A single
// document is taken back by SAP's own functions, each of which does so only once.
//
// Several postings are read back by one question for all confirmations and one for all material documents, with their keys joined by or,
// twenty at a time. That the services take such a filter for these fields is assumed; one that refuses it is asked for each.
//
// The end of one operation, with finish_operations: confirm, is a final confirmation of it without quantities and movements, found by
// the key like any other. An operation that somebody else has confirmed finally has its end already. The order stays open; it is
// completed (TechlyCmpltOrder) when the hub says that it ends.
//
// Not proved: who cancelled a document by hand, what Cancel of a material document belonged to (it takes no key; so a
// consumption is taken back by the opposite movement under a key of its own), that an operation's change lifts its order's time
// stamp (operations and components are asked for beside the orders), and when within a second something changed (orders are
// compared by content; the ETag is that second).
//
// Movement types are SAP's own (101, 102, 261, 262, 531, 532) unless a mapping says the customer's: in the receipt of a confirmation, in
// material documents and in what takes them back. A component of a type that only the mapping knows is then a by-product or not; what
// SAP backflushes or receives by itself has the types of its own configuration, and a movement of an unknown type is read by the side
// of the books on which it stands.
//
// An order that is technically complete is not opened again for late facts: of the functions of API_PRODUCTION_ORDER_2_SRV (ReleaseOrder,
// ReleaseOperation, TechlyCmpltOrder, CloseOrder, DiscardOrder, DeletionFlagOrder, DeletionIndOrder, DeliveryCompletedOrder,
// ConvertPlndOrder, ScheduleProductionOrderOperation, OrderReleasedByMES) none revokes a completion, nor can its flag be written. The
// policy closed_orders: reopen is refused for this connector, and a late fact is parked with what a person does.
//
// # What was read and what was not
//
// Services, sets, functions, fields, lengths, scales, the form of dates and errors, the headers of repeatable requests,
// movement types and their codes were read in SAP's own metadata and texts. That explicit goods movements replace the automatic
// ones was read of the function modules behind the service. Assumed, and to be checked in each system: the numbers of most
// messages (see messages), that cancelled and cancelling confirmations are both listed with their flags, that the function Cancel
// copies the reference, that a final confirmation without quantities is taken, and that the flag OperationIsConfirmed of an operation
// means a final one, the zone of LastChangeDateTime (see time_zone), that a refused request is not kept as repeatable,
// and that the opposite movement opens a reservation again by code 06 with posting type 1.
//
// Stock is API_MATERIAL_STOCK_SRV's, in the base unit, all stock types together: who inspects, blocks or releases moves nothing in or out. Special
// stock is neither in it nor among what a document has moved. Assumed, and to be checked: that a material which was used up is still named, with
// zero (one that is not named at all is not judged), that an item of a material document says its special stock as the stock does, and that the
// set can be ordered by its key.
//
// The tolerance for over-delivery of an order's item was not among its fields that were read. Where a system gives it under the names
// that SAP uses elsewhere (OverdelivTolrtdLmtRatioInPct, UnlimitedOverdeliveryIsAllowed), it is taken; else it is not known.
//
// # Why there is no $batch
//
// A batch is of one service. What a posting reads lies in several (the order, then the confirmation or document by key), each question
// once and the second one only before something is sent; so that a batch could only join the questions of different postings, which
// then wait for each other. With 50 ms for each call 64 confirmations take 260 calls, 18.7 a second in 4 sessions and 36.3 in 8: sessions
// scale, and need no further answer with faults of its own for each part. Where one service is asked for many things of a kind, a filter
// does it: 40 orders of which only a part changed are read by 6 calls in 0.5 s and not by 44 in 2.4 s.
//
// # What S/4HANA must be like
//
// The communication scenarios for production orders, confirmations, material documents and stock are active for a technical
// user of the connector's own. With movements: explicit, SAP moves nothing at a confirmation by itself: the plant reports its
// consumption. Components marked for backflush are then not taken by anybody else.
package s4
