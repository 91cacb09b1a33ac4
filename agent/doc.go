// Package agent assembles the plant agent and owns its goroutines.
//
// The map of the house:
//
//	drivers/*        read one protocol each and emit batches of signals
//	agent/translate  turns signals into facts: pure rules over durable state
//	agent/buffer     keeps facts, cursors and state in one transaction, in segments
//	agent/uplink     streams what is buffered to the hub and takes what comes down
//	agent/inbox      keeps work orders and receipts that came down
//	agent/localui    shows all of it to the operator
//
// A batch goes from a driver through translate into one transaction of the buffer (pipeline.go); the driver acknowledges
// its source only after that transaction. Work orders go the other way: inbox, then the source that takes them
// (orders.go). Sources start last and stop first, so that nothing is taken that could not be kept.
//
// The package promises that the agent starts and collects without a hub, that one broken source never stops another, and
// that Run returns only when everything it started has ended. It never interprets a protocol or a fact itself.
package agent
