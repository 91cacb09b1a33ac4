// Package hub assembles the sync hub and owns its goroutines.
//
// The map of the house:
//
//	hub/object     the vocabulary: work orders, facts, their states
//	hub/wire       the way between the uplink contract and the vocabulary
//	hub/store      one file, one transaction for everything that belongs together
//	hub/ingest     takes what agents send, stores it once, acknowledges after the commit
//	hub/posting    takes facts into the ERP, each once
//	hub/dispatch   brings work orders from the ERP to the right plant
//	hub/trading    reads and writes the ERP's business objects: purchases, sales, shipments, invoices, counts
//	hub/tally      compares counted, stored, received and posted
//	hub/inbox      what a person must see to, hub/notify tells of it
//	hub/connector  the contract toward ERPs, and one folder for each
//	hub/fleet      who belongs to the hub: certificates
//	hub/api        /v1 for everybody, hub/console for people
//
// The parts meet only in the store: ingest writes facts, posting plans them, dispatch writes orders and deliveries, and
// each wakes the others through the store's topics. The package promises that a part which fails ends the hub as a whole,
// so that a supervisor starts it again, and that Run returns only when everything it started has ended.
package hub
