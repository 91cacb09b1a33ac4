// Package uplink keeps the one line from a plant agent to its hub.
//
// It owns the outbound stream: dialling (through an HTTP proxy where there is one, inside a WebSocket where something breaks
// the direct way), mutual TLS, the hello, what is in flight, acknowledgements in both directions, and the words that tell an
// operator why the line is down.
//
// It promises:
//   - A record is reported acknowledged to its buffer only after the hub said that its own commit holds it.
//   - After any cut, everything not acknowledged at this end is sent again, from that position on and as the same bytes.
//     Nothing is skipped because the hub claims to have it.
//   - What comes down is acknowledged only after the inbox stored it, and a backlog going up does not delay it.
//   - A line that is dead without saying so is noticed and cut; a slow one that lives is not. What is in flight is fitted to
//     the line's speed, so that what is urgent waits about half a second behind it.
//   - A hub that is back soon is found within 2 s; one that says no is asked again slowly, one that names a time, then.
//   - Inside a WebSocket the same mutual TLS runs from end to end: nobody between can read, and nothing is believed that the
//     hub's certificate does not prove. The direct way is looked at again from time to time.
//   - A clock that makes certificates look invalid is told from certificates that are, by the hub's own time.
//   - Business records go before telemetry.
//
// It never decodes or changes a record, never stores anything itself, and never keeps the agent from collecting.
//
//	way: direct -> (broken by something between) -> inside a WebSocket -> (direct works again) -> direct
//	connect -> hello -> hello_ack --> (went back in time: marks, new generation, connect again)
//	                             \--> send | receive | store deliveries | persist acks, until one of them ends
package uplink
