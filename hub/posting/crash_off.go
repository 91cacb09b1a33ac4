//go:build !crashpoints || !unix

package posting

// crashPoint is what happens at each step of the engine: nothing. A build with the tag crashpoints can be made to die there.
func crashPoint(string) error { return nil }
