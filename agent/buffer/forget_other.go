//go:build !linux

package buffer

// letGo does nothing: other systems take a file's pages back by themselves, or have no such hint.
func letGo(uintptr, int64) {}
