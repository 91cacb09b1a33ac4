// Package erpnextdouble is a stand-in for an ERPNext site: the part of Frappe's REST interface, in both its versions, that a
// shop floor needs, with books of its own.
//
// It owns items, bins, work orders and stock entries in memory. It promises what was read in the published sources of Frappe and
// ERPNext: an insert leaves a draft without effect, a submit or cancel is one transaction, a stale modified is refused, a
// unique field is refused by the database, and numbers are rounded to the site's precision. Each trap can be switched. It keeps
// nothing on disk, knows no taxes, valuation or batches, and is never a part of the hub.
package erpnextdouble
