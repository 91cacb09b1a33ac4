// Package notify tells people of exceptions that wait for them, so that nobody has to look into the inbox to learn of one.
//
// It owns who is told what by the rules of the configuration, when, and how often; the words of the messages; and the ways, web hook and
// mail. It promises:
//
//   - What is told is derived from the open exceptions and from what each receiver was told of them. A message and the note of what it
//     tells are stored in one transaction, so that a crash at any moment loses no message: what was not noted is told after the start.
//   - A message is delivered at least once, with the same id and the same words each time, so that a receiver can drop what comes again.
//   - What comes together is told together. While a message of a topic (plant, escalation, urgency) is not delivered yet, none is made
//     beside it; after a large one, or after several, the next is a digest of ten minutes.
//   - An exception is told once, and once more for each time that it has outlasted. That an alarm has ended by itself is told to everybody
//     who was told of it, after what told of its beginning has arrived.
//   - Alarms about agents are gathered over all plants: a cut line is one message, however many it takes.
//   - A receiver that cannot be reached holds up no other, and is an exception itself: with the reason and the next step.
//   - No password leaves over a connection that is not encrypted, and no message holds a person's name or what was received.
//
// It never decides whose an exception is, and never changes one.
package notify
