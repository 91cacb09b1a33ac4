// Package mapping is what the words of a plant and those of an outside system have to do with each other: units with exact
// factors, items, sites, movements, reasons and the code lists of partners.
//
// It owns the definitions (a set of a kind, in versions), their faults and tests, the rule which version is in force, the exact
// arithmetic, and what a dry run compares. It promises that what passed Check is without contradiction, that a conversion is
// exact until it is rounded once, and that a value which no version in force knows is reported and never guessed. It never
// touches a clock, the network or a store, and approves nothing.
//
// # Which version counts
//
// A fact is mapped by the version that is in force at the time when it occurred: of the approved versions whose time of effect
// is not after that, the one with the highest number. A value which that one does not have is taken from the first later
// version in force that has it: the row was added for it. Where several sets of a kind fit, the one for system and plant goes
// before the one for the system, that before the one for the plant, and that before the one for all. A set that has no version
// in force at a time is not there at that time.
package mapping
