//go:build !sabotage

package sabotage

// Rule reports whether a rule is to be broken: never.
func Rule(int) bool { return false }
