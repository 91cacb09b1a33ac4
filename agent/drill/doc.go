// Package drill lets a plant see that its agent loses nothing and doubles nothing: it runs the real agent, as a process of
// its own, through disasters, with the plant's own rules and against a scratch hub's end, and writes a report of it.
//
// It owns the scratch plant (counters, rows and messages of which it knows how many there are), the scratch receiver (which
// stores, then acknowledges, knows a key once and trims counter ranges, as the hub does), the relay between the two that cuts,
// stalls, slows and asks for a password, and the report. It promises that it works in its scratch folder and on loopback
// only: the live data folder is not opened, the live hub is not called, the live sources are replaced; that a seed given back
// repeats the same plan of disasters; and that a verdict PASS means that every count was looked up at the receiver.
//
// It never judges the hub or an ERP, and it can not show more of the disk than the disk tells: a process that is killed leaves
// the operating system's cache alone, which a real power cut does not.
//
// # How it counts
//
// The scratch plant is the truth. "Counted" is what it made, "stored" what the agent acknowledged to it, "received" what took
// effect at the receiver. A message is given out until it is acknowledged and is then gone, as at an MQTT broker; a row can be
// read again from a cursor, as in an MES; a counter shows its present value only, as in a PLC. A message or row is found at
// the receiver by the key that the plant's own rules give it, a counter's step by the counter range of the confirmation.
package drill
