// Package generic is what connectors have in common whose system is described by configuration alone.
//
// It owns the language of such a configuration: expressions (CEL) over answers and facts, templates of addresses, texts and
// documents made of them, and the way from a record to a work order. It promises that numbers stay exact, that an expression is
// checked before it is used, that its work is bounded, and that what cannot be read is named. It never touches a network, a
// file or a clock.
package generic
