// Package opcua reads the nodes of an OPC UA server through one subscription, and loses none of the values that the
// server still has.
//
// It owns the session, the subscription and the trust in the server's certificate. It uses gopcua for the secure channel and the
// encoding of requests; the publish loop, the acknowledgements, the repair of gaps, every reconnect, and the decoding of whatever
// carries values are its own. The last replaces the library's table of services for the whole process: bytes that make no sense
// cannot end the agent.
//
// It promises:
//
//   - A notification is acknowledged to the server only after emit has returned nil for it. The cursor stored with the
//     notification names the subscription and the next sequence number, so that an agent that was killed takes the
//     subscription over again, fetches what it has not stored, and goes on: nothing missing, nothing twice.
//   - After a lost connection it re-activates its session; where the server has forgotten that, it opens a new session and
//     transfers the subscription; where that is gone as well, it makes a new subscription, stores what the server's history has
//     of the time between, in order and once, and reports that time with its length. It never stops trying.
//   - No password leaves before the server's certificate is trusted. What is not trusted lies in rejected/ until a person
//     moves it to trusted/.
//   - One bad node stops no other.
//   - A value is passed on exactly: numbers as text, with the status, the source's time and the server's. A bad value has no value.
//     Structures come with their fields where the server defines them, else as their type and bytes.
//   - What a server grants less than was asked for is shown: queues, sampling, deadbands, subscriptions at all. A server without
//     subscriptions is polled, and its values are marked so.
//
// While the agent's buffer takes nothing, no further notification is fetched: at most six are in memory. The session and
// the subscription are kept alive by other calls, the server fills the queues of the nodes, and what no longer fits in
// them is lost in the server, which marks it: the driver counts and reports those marks.
//
// Where work orders are configured it hands them to the server's machines, as job orders of ISA-95 Job Control or written into
// nodes. It promises:
//
//   - What a call is about to do is durable before the call. After a call without an answer, and after a crash, the machine's
//     own list or nodes are read before anything is sent again: a machine has each order once.
//   - What becomes of a job is told once per change, also what happened while the agent was away.
//   - Nothing that runs is stopped without the configuration saying so, and no two conversations with one machine cross.
//
// But for work orders it never writes to a server. It never changes its configuration, and never deletes a subscription when it stops: an agent
// that starts again within the lifetime goes on where it was.
package opcua
