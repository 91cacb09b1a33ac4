// Package odoodouble is a stand-in for an Odoo database of version 16, 18 or 19: the part of its two JSON interfaces that a shop floor needs,
// with books of its own.
//
// It owns products, quants, manufacturing orders, transfers and stock moves in memory. It promises what was read in the published sources of
// Odoo: one call is one transaction; a new transfer is a draft without effect and its validation happens once; a method may answer with an action of the
// user interface and have done nothing; moves that are tied to an order while they are drafts are merged with the planned ones; before 17 a new transfer's
// moves get the places of its head; an order that is cancelled is done where something was made; backorders are new records with new names; quantities are
// floats; a change time is kept in microseconds and shown in seconds. Each trap can be switched. It keeps nothing on disk, knows no valuation, and
// is never a part of the hub.
package odoodouble
