// Package checking runs reconciliation by the clock: orders whose postings have settled soon after, watched stocks every quarter of an
// hour, verified writes of business objects every hour, and everything each night.
//
// It owns the reading of both sides of an order and of a write, the schedule, and the carrying out of what package reconcile allows without a
// person. It promises to hold one order in memory at a time, that a system which cannot be asked makes nothing missing, and
// that a heal goes through the posting engine, the writer or the connector's own guard against doubles, never past them. It never decides
// what a difference means, and it never changes what is stored about a fact.
package checking
