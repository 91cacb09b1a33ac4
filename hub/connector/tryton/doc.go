// Package tryton connects the hub to a Tryton 6.0 ERP: it reads production orders and posts what the shop floor did.
//
// It owns the way a fact becomes stock moves of a production and the proof that it did so once. It promises that no fact
// moves stock twice, whatever is lost between it and Tryton, and that the fact's key stands in a note on every move before
// the move is done. It reads and writes purchases, sales, shipments, invoices and counts by the same promise. It never keeps anything on disk and never lets Tryton consume the planned material by itself.
//
// # How once is once
//
// A posting is one write on the production order that adds its moves as drafts, tied by the record's timestamp to the state
// that Prepare read (compare and set). Then the key is noted on the moves, and they are done; both can be repeated. After a
// lost reply Lookup searches the order for moves newer than the intent. If there are none it first writes the order once
// more, so that a request which is still under way can no longer match the timestamp, and only then says Absent.
//
// # How a production order lives
//
//	waiting, assigned --start--> running --finish--> done
//	       \------------cancel----+--> cancelled   (while nothing was posted)
//
// Tryton's own "run" consumes every planned input. The shop floor reports what it really took, so a start first cancels the
// planned inputs: they stay readable as cancelled lines, and the component list is read from them. A consumption or a
// confirmation on an order that was not started is posted at once, and the order is started right after it, so that nobody
// on the floor waits for an order of messages. Each yield is taken off the planned output, which keeps Tryton's forecast
// right; a finish cancels what is left of it and of other drafts.
//
// An order with a routing has works, and Tryton refuses to finish it until they are finished there. An operation that the
// floor starts gets a cycle on its work, which runs until the floor finishes the operation or the order. The finish of an operation
// finishes its work alone, also the last open one; the order is finished when the hub says that it ends with it. A work of which the
// floor said nothing is a person's to finish, or is finished without time where finish_works is set. Tryton keeps no quantities
// of operations: good pieces are taken from the last one, and refused from others.
//
// # How a purchase, a receipt or an invoice is once
//
// An object that is to be made has no record whose timestamp a request could be tied to, and Tryton keeps no key unique. So its
// making also touches a gate in the same transaction: a cancelled stock move of nothing that the connector made for this, and
// that is written only as it was read. Of two makings with one key one fails, whichever hub it comes from; and after the
// look-up has touched the gate, one that is still under way fails too. The key stands in the description of orders and
// invoices, in the number of counts, and in the reference of shipments until a note on them says it and the reference can say
// the other side's number. What the object takes from others (the open moves of a purchase) is tied by timestamp as well.
//
// Then the object goes step by step to its state, each step tied to its own timestamp and read back. A receipt takes the
// planned moves of its purchase, a delivery is the one that Tryton planned for the sale, an invoice the draft that Tryton made
// of them: a draft with other quantities or prices is never changed, but shown. Tryton's warnings are confirmed only where the
// write accepts them by code: no_origin, date_in_future, payment_term_past, needs_confirmation.
//
// A shipment that Tryton refuses to receive stays as a draft with the key; the same write goes on from it.
//
// # How stock is told
//
// What done moves have brought to each storage location, of each lot, in the unit in which Tryton holds the item, whatever their day: Tryton sums
// up to a day by its own clock, and up to one that has not begun it counts what is only planned. So it is asked for a day that is past in
// every zone, and the moves since are added. The moves of an order tell the same of each location, rework among them; what they do is all
// that is compared. A service, an item that is not active and a unit that is not mapped are named, and no stock is said of them.
//
// # What Tryton must be like
//
// The account given to the connector must be its own: moves that it created are told from planned ones by their creator. It
// needs the groups Stock and Production, and Purchase, Sales and Account where it writes these. Planners do not press Run on orders of the line, because Tryton then consumes the
// planned material besides what the floor reports. PostgreSQL runs in UTC: where its clock jumps back in autumn, changes of
// that hour would be stamped before the cursor. On SQLite Tryton's timestamps have whole seconds, and nothing here holds.
//
// Deleted orders are not reported by Tryton, and so not by ListChanged: Get says that they are gone.
package tryton
