//go:build !linux

package buffer

// loadSoon does nothing: there is no such hint, or the system guesses by itself.
func loadSoon(string, int64, int64) {}
