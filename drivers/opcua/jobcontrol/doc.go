// Package jobcontrol is the data of ISA-95 Job Control (OPC 10031-4, namespace version 2): job orders, their states, job
// responses, and what a receiver's return status means.
//
// It owns their binary encoding, which is that of structures with optional fields: a mask, then the fields that are there.
// It promises that what it writes reads back equal, and that bytes of any kind are either read or refused with an error. It
// never touches a network and knows nothing of sessions.
package jobcontrol
