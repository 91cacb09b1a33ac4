// Package inbox keeps what came down from the hub: work orders with the states they went through, and receipts for facts.
//
// It owns one small bbolt file. It promises that a delivery is durable before Store returns and that storing one twice, in
// any order, has no second effect; that the receiver of work orders is only ever offered the newest revision of an order;
// and that a damaged file never stops the agent: it is set aside, an empty one is begun, and the hub sends everything
// again, because the position in the file is then zero. It never talks to the network and never delivers an order itself.
//
// # On disk
//
//	meta      "epoch", "seq": the last delivery stored; "arrivals": a counter
//	orders    order number -> JSON of a record
//	past      order number -> revision and whether it was delivered, of orders pruned from "orders"
//	receipts  fact key -> arrival number and encoded Receipt
//	trouble   arrival number -> fact key, of receipts that need a person
//	open      the same of those that need more news
//	settled   the same of the others
//	facts     number in the buffer -> JSON of what a receipt may be about, of the newest 500 facts
//	aside     delivery sequence -> what could not be used
//
// Each value begins with the CRC-32C of the rest.
package inbox
