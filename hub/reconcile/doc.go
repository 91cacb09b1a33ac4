// Package reconcile finds out where machine, MES and ERP disagree, what it is, and what may be done about it.
//
// It owns the comparison of one order's facts with the documents of the outside system (per fact, per sum, per balance), the
// types of discrepancies, the decision whether one may be healed without a person, and the life of a discrepancy. It promises
// that what is younger than the settle time is never called a discrepancy, that there is one finding for one type and subject,
// that a heal is proposed only where it can be taken back and stays inside its limits, and that the same input gives the same
// findings in any order. It is a pure function of its input: no clock, no store, no network; it heals nothing itself.
//
// Acknowledgments and milestones of partners (the twentieth row of the table of discrepancies) are not compared here: the hub
// does not hold them.
package reconcile
