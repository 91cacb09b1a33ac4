// Package sabotage lets a test break one of the rules that make "once" mean once, at the very place in the product where the
// rule is kept, to show that the simulation notices.
//
// It owns the switch and nothing else. In every normal build Rule is constantly false and the compiler leaves out what it
// guards. Only a build with the tag "sabotage" looks at the environment variable LINEKEEPER_SABOTAGE, which names the rule:
//
//	1  a record gets a random key at each attempt to take it
//	2  a source is acknowledged before its batch is durable
//	3  a record leaves the agent when it is sent, not when the hub holds it
//	4  the hub stores a key again that it has already
//	5  an agent that went back in time is not noticed, and counter ranges that overlap are not trimmed
//	6  a posting in doubt is posted again without looking
//	7  a record that comes again with other content replaces what is stored
//
// It must never be part of anything that is shipped; no build of the Makefile sets the tag.
package sabotage
