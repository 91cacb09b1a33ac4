// Package connectortest is the conformance suite of connectors: an implementation of connector.Connector is done when Run
// passes against the real outside system, or the best stand-in there is. RunBusiness is the same for a connector.BusinessReader
// and BusinessWriter.
//
// Run prints a table of every fault of the line and of the system that is known: what the hub must see of it, and whether the
// connector was shown it, or why the system cannot show it. A harness that says nothing of a fault fails.
//
// A connector that can list the documents of an order passes the cases of that, too, with a table of its own: a document that is
// left out would be taken for missing.
//
// It owns the disasters (a reply lost after the effect, a request lost before it, one that arrives late, an answer read late, a session that
// ended, a hub that forgot), and it drives a connector as the hub's posting engine does: prepare, keep the intent, post,
// look up, verify. It judges by what the outside system holds, never by what the connector says. It knows no system.
package connectortest
