//go:build !linux

package buffer

// limitSelf does nothing here: the Go runtime's own limit and the time that the process is given have to do.
func limitSelf(uint64) {}
