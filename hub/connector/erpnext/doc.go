// Package erpnext connects the hub to ERPNext by the REST interface of Frappe.
//
// It owns the way a fact becomes a Stock Entry, and the proof that it did so once. It promises that the fact's key goes with
// every entry in a field that the site's database holds unique, that a draft is never taken for a posting, and that quantities
// travel as exact text and are compared at the site's precision. It never rounds, never makes or changes a work order, and keeps
// nothing on disk.
//
// # How once is once
//
// Insert and submit are two calls, each a transaction of its own. The insert leaves a draft, which has no effect on stock. A
// second insert with the same key is refused by the database (in the published source: UniqueValidationError with status 417
// for a field that is marked unique, DuplicateEntryError with 409 for a name; both are read as "it is there already"), so a request that
// arrives late does no harm, and one without a trace may be sent again at once. The submit carries the draft's modified: Frappe refuses
// it with TimestampMismatchError when the draft was changed or submitted meanwhile. A draft whose submit was lost is finished by the
// look-up. A draft whose submit is refused for good is deleted; where the account may not, it is named.
//
// A fact is taken back by cancelling its entry. The cancel writes the reversing fact's key into the cancelled entry, in the same transaction.
//
// # What becomes of a fact
//
//   - Yield, with its scrap as process loss: purpose Manufacture, with the finished item only. ERPNext accepts that when Material Consumption
//     is on in Manufacturing Settings (read in its source: otherwise it wants a raw material in each such entry).
//   - Scrap without any yield: ERPNext refuses a Manufacture entry without a finished item. It becomes a Material Receipt of the item
//     in the scrap warehouse; the order's own process loss does not show it.
//   - Material used: purpose Material Consumption for Manufacture, from the order's WIP warehouse, or from the component's source
//     warehouse where the order skips the transfer.
//   - Material given back: a Material Receipt in the same warehouse. ERPNext has no purpose for the return of what was consumed already
//     and drops the work order from such an entry, so the order stands in a custom field, and its consumed quantity stays as it was.
//
// Rework has no place and is refused. States of the shop floor have no effect. Transfers to the WIP warehouse are the warehouse's own business:
// no fact of the shop floor asks for one.
//
// # What ERPNext can prove, and what it cannot
//
// Proved by reading back: purpose, order, items, quantities, unit and posting date, and that it is submitted. Not checked at a real site: that
// a cancel may write a field that allows changes after submit, and that no server script changes an entry at its submit (Verify sees it if one
// does). ERPNext takes the process loss of an order with operations from its job cards, and a loss of the BOM's where none is given (read in its
// source): so a draft is compared with the fact before it is submitted, and not submitted when it differs. Times of ERPNext are in the site's zone and say no zone: time_zone has to be it.
//
// How much more than planned may be made is no field of an order but the site's allowance for overproduction in Manufacturing Settings (read in
// its source). It is read with orders, at most every five minutes; where the user may not read it, it is not known.
//
// The entries of an order are listed for reconciliation, drafts as pending. A site may hide entries from a user without a word, so the list has to hold
// what the work order says to have been produced; consumption that is hidden is not noticed. An entry is taken back by cancelling it.
//
// # What has to be set up
//
// Three custom fields of Stock Entry, named in the sample: key and reversal marked unique, no copy and allow on submit, and the order. A user of
// the connector's own who may read Work Order, Item, Bin, Custom Field and, for the allowance, Manufacturing Settings, and create, submit, cancel and delete Stock Entry.
package erpnext
