// Package recording keeps what the rules were given for a while, and gives it to other rules again.
//
// It owns the format of a recording and the comparison of two sets of rules over one. It promises that a replay starts from the
// state that the rules had when the recording began, gives them the same values with the same types in the same order at the same
// times, and touches nothing but the file. It never sees what rules pseudonymise: recordings are made of masked values, and a
// replay does not mask again.
//
// A recording is gzip of JSON lines. The first is a Header; each other is an Event. Values keep their types (translate.Typed):
// "0042" stays a text, 1.50 a number with its zero. Lines carry the number in which the rules saw them, and may stand in another
// order. A recording that was cut off is readable up to there.
package recording
