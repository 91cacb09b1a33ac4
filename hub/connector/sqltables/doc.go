// Package sqltables connects the hub to any system that can be reached by the tables of a database, by configuration alone.
//
// It owns the translation between rows and the hub's words: work orders are read from a table or view, each fact becomes one
// row of an interface table, and a job of the other system processes the rows and writes into each what became of it. It
// promises that a fact has never more than one row, that a row is taken for posted only when its status says so, and that
// quantities are written and read as exact decimals. It never changes a row that is new or posted, never makes or alters a
// table, and never guesses a state or a unit that is not mapped.
//
// # How once is once
//
// The column of the fact's key must be UNIQUE: New does no I/O, so Prepare looks whether the database would let a second row
// in, and refuses to post where it would. Insert or resubmission, and the check that a reversal's original was not taken back
// already, are one transaction. Until its commit is sent nothing can have happened; when the answer of the commit is lost, the
// key tells. A row that was rejected is written anew only while it is rejected still.
//
// # What it can prove and what it cannot
//
//	was the fact handed over?             yes: its row is there, or can be put there only once
//	was it processed?                     yes, as far as the job writes the status; a row that stays new is asked about for ever
//	why was it refused?                   yes, by the error columns; error_classes says what can be done about a code
//	was exactly this quantity booked?     no: the row is compared with the fact, and the books behind it cannot be read
//	was it booked twice by the job?       no: the job must set the status in the transaction that books
//	was it booked later by hand?          no
//
// With postings.kept the rows of an order are listed for reconciliation; without it they are not, since a row that was tidied away
// would be taken for missing.
//
// Without a status column the row itself is the effect, and "posted" means only that it is there.
//
// Changed orders are found by a column that grows with each change. Rows that are committed late, with a value below one that
// was seen already, are found within overlap. A change of components must raise that column of their order. What is deleted
// from the table is not seen: use a state for it.
//
// PostgreSQL, MariaDB/MySQL and SQLite are spoken to. SQLite has neither decimals nor times: quantities have to be TEXT there
// and the change column a number. A quantity that arrives as a binary floating-point number stops its order.
package sqltables
