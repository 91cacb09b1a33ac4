// Package store keeps everything the hub knows in one database file, and gives it out again.
//
// It owns the schema, the transactions and the queries. It promises that what a returned nil says is committed survives a
// power cut (SQLite in WAL mode, synchronous=FULL), that one process at a time has the file, that a fact's key is stored
// once, and that what changed together is visible together. It never decides what a fact means, what is posted or who may
// see what: package posting, dispatch and ingest do.
//
// # How it works
//
// One connection writes, a pool of others reads. Ingest writes one row for each fact and nothing else (AppendFacts). All
// that is known beyond it (index, quantities, postings, receipts) is written later by the planner of package posting, in the
// order of facts.id, in the same transaction as its cursor: what a crash interrupts is simply done again.
//
//	facts --planner--> fact_index, marks, exceptions, order_steps, postings --engine--> posting_steps, deliveries (receipts)
//	                                                        postings --both--> tally, posting_counts (sums, never recounted)
//	connector --dispatch--> work_orders, order_revisions, order_steps, deliveries (work orders)
//	connector --trading--> business_objects, business_revisions, business_links
//	api --> business_writes --trading--> business_write_steps
//	agents <--ingest--> agents, positions, ledger, readings, deliveries.stored_at
//
// Writers call Update with a function that uses the methods of Tx; readers call the methods of Store. Whoever wants to know
// of changes calls Watch.
//
// What differs between database systems is in dialect.go alone.
package store
