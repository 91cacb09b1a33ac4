// Package oracledouble is a stand-in for the parts of Oracle Fusion Cloud SCM that a plant talks to: an HTTP server with books
// of its own.
//
// It owns work orders, stock and transactions, and speaks the REST resources workOrders, operationTransactions,
// materialTransactions and inventoryCompletedTransactions as they are published. It promises that without a trap it books exactly
// what it was told, as often as it was told: like the original it takes a second transaction with the same reference, refuses
// GET on the resources that post, answers a refusal with a status of success and ErrorsExistFlag, and books all details of a
// request or none. It is never part of the hub and keeps nothing on disk.
//
// Read in published texts: paths, paging by limit and offset, expand, onlyData, the header REST-Framework-Version, the
// dispatch states, ErrorsExistFlag as a string and as a boolean, and that GET is not supported where transactions are posted.
// Assumed, and to be checked against a real system: the names of messages, that TransactionReference of a request can be read
// from the completed transactions, that a scrap makes no inventory transaction, and the grammar of q beyond the simple cases.
package oracledouble
