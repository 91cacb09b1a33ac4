// Package d365double is a stand-in for the parts of Dynamics 365 Supply Chain Management that a plant talks to: an HTTP server
// with books of its own, and the token endpoint before it.
//
// It owns production orders, stock, the message queue for manufacturing execution systems and the journals that its messages
// make. It promises that a message is only queued when SendMessage answers, that the messages of one order are processed in
// the order they came, that a message fails for good after three attempts, and that without a trap it books exactly what it was
// told, as often as it was told. It is never part of the hub and keeps nothing on disk.
//
// Read in published texts: SendMessage and its four parameters, JSON inside of a JSON string, the queue JmgMES3P, the message
// types and most of their fields, the order per production order, three attempts, AutomaticBOMConsumptionRule, cross-company,
// dataAreaId, 429 with Retry-After. Assumed, and to be checked against a real system: the names of entities and of their
// fields, the answer of SendMessage, and that the message list can be read by OData with its content.
package d365double
