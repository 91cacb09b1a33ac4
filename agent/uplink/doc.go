// Package uplink keeps the one line from a plant agent to its hub.
//
// It owns the outbound stream: dialling (through an HTTP proxy where there is one), mutual TLS, the hello, the window of
// batches in flight, acknowledgements in both directions, and the words that tell an operator why the line is down.
//
// It promises:
//   - A record is reported acknowledged to its buffer only after the hub said that its own commit holds it.
//   - After any cut, everything not acknowledged at this end is sent again, from that position on and as the same bytes.
//     Nothing is skipped because the hub claims to have it.
//   - What comes down is acknowledged only after the inbox stored it, and a backlog going up does not delay it.
//   - A line that is dead without saying so is noticed and cut; a hub that says no is asked again slowly.
//   - Business records go before telemetry.
//
// It never decodes or changes a record, never stores anything itself, and never keeps the agent from collecting.
//
//	connect -> hello -> hello_ack --> (went back in time: marks, new generation, connect again)
//	                             \--> send | receive | store deliveries | persist acks, until one of them ends
package uplink
