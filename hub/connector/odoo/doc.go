// Package odoo connects the hub to Odoo 15 to 19: manufacturing orders come in, production, scrap, material and changes of state go out.
//
// It owns the way a fact becomes a transfer (stock.picking) and the proof that it did so once. It promises that the fact's key goes with every transfer
// in the call that makes it, that a draft is never taken for a posting, that an answer which only asks something is never taken for an effect, and that
// quantities travel as exact text and are compared at the database's precision. It never rounds, never guesses a field's name or a unit, never writes
// a quantity of an order, and keeps nothing on disk.
//
// # How once is once
//
// In Odoo one call is one transaction, no call can be tied to what was read before it, and a posting takes several. So only one of them has an
// effect on stock, and that one happens once however often it comes:
//
//  1. create: a transfer with its moves and the fact's key, called a draft here though Odoo from 17 on confirms it at once. It has no effect on stock.
//  2. read what bears the key: what is done is the effect. Else the oldest draft is compared with the fact and, where Odoo before 17 gave its moves
//     the places of the transfer's head, put right.
//  3. button_validate of that draft: all its moves are done, in one transaction. Odoo takes only moves that are not done yet, so that it does nothing
//     the second time.
//  4. write on the done moves: they are tied to their order, so that it counts them as made or consumed. Always the same, however often.
//
// After a lost reply the look-up begins at 2 and goes on from wherever it stands:
//
//	dies after 1: a draft with the key is there: it is validated.
//	dies after 3: the transfer is done and its moves count nowhere: they are tied.
//	dies after 4: done.
//	1 was lost: nothing has the key: Absent, at once. If it arrives late all the same, it makes a draft, which nobody validates: look-up and Verify
//	    delete it, and the list of effects shows one that comes later still as pending.
//	3 was lost: the draft is validated again; the late request finds it done, or deleted.
//
// A draft whose validation Odoo refuses, or before which it asks something, is deleted, so that nobody validates it by hand. An exception of Odoo's own
// means that the transaction was rolled back; an error of the server's that is none of those may come after the commit and is in doubt. Two hubs that
// post one intent at the same instant could validate two drafts: so there is no claim of compare and set, unless a module makes the field unique in the
// database, which is understood when it refuses. Where Odoo reads from a replica (19, json2), read_delay says how far it lags: until then nothing that
// is not seen is Absent.
//
// # What becomes of a fact
//
//   - Yield: from the production location to the order's destination, tied to the order as made (production_id).
//   - Scrap: of the finished product, from the production location to scrap_location. It is not tied: Odoo would count it as made.
//   - Material used: from the order's source to the production location, tied as consumed (raw_material_production_id), in the unit of the product or
//     in that of the order's need.
//   - Material given back: the other way, not tied: Odoo would add it to what was consumed.
//   - A fact that takes another back: the opposite moves, which name the moves they return. What they return is taken out of its order while that is
//     open, for the same reason.
//   - STARTED, where configured: the first open work order is started. Odoo then fills in the quantities that it expects; nothing here reads them.
//   - FINISHED: action_cancel on the open parts of the order. Odoo cancels what is left of the plan, and the order is done because something was made.
//     button_mark_done is not used: it wants qty_producing to be written before, and a write that arrives late would set each done move to the sum of all.
//     An order of which nothing was made can only be cancelled: without any booking that is its finish, else a person decides.
//   - CANCELLED: action_cancel, while nothing was posted.
//
// Rework and HELD have no place. Odoo backflushes nothing of orders that are finished here: facts say what was used.
//
// # One number, several records
//
// A partial production with a backorder, or a split, makes new records: WH/MO/00012 becomes -001, and -002 and so on have the rest. The plant keeps the
// first number. It leads to all records with that name and a backorder_sequence, of one company and of one group (procurement_group_id, from 19 on
// production_group_id); quantities are sums over all, and postings go to the first that is open. Records that only look like parts are shown as
// unreadable.
//
// # What Odoo can prove, and what it cannot
//
// Proved by reading back: that there is one done transfer with the key, of the order, with these products, quantities, units, directions and lot, and
// that it counts in the order. Read in the published sources of Odoo 16 to 19, not tried on a database: all of the above. In particular that validating
// a done transfer moves nothing, that done moves may be tied to an order, that moves tied as drafts are merged with planned ones (so they are tied
// last), and that action_cancel leaves an order done that made something; an order without components stays open then, which Verify shows.
//
// Odoo dates each booking by its own clock when it is made: the fact's dates stand in the transfer's note and nothing is backdated. It values finished goods at the
// product's cost of that moment, not from the order's material. Until an order is finished its planned moves stand in the forecast beside what was
// booked. On a done order nobody should change the quantity produced: Odoo sets each of the done moves to it.
//
// # What has to be set up
//
// A text field of Transfer for the key (Settings, Technical, Fields: model stock.picking, type char, indexed, not copied), or key_field: origin, which needs no
// field and holds as long as nobody changes a source document. An operation type of type Internal Transfer of the connector's own in each company. A user of the
// connector's own with Inventory: User and Manufacturing: User, and an API key; json2 is there from Odoo 19 on, on plans with external access.
package odoo
