// Package setup leads from an unpacked agent to a first fact: it asks, or reads the answers from a file, looks at the sources,
// proposes tags and rules, tries everything, and writes the configuration.
//
// It owns the questions, the proposals and the text of the file. It promises that what it writes was checked like any
// configuration, that a file which exists is never overwritten unless that was asked for, and that a certificate is trusted only
// when a person gave its fingerprint. It never changes a source, and it knows no protocol: drivers look around for it.
package setup
