//go:build sabotage

package sabotage

import (
	"os"
	"strconv"
)

var broken, _ = strconv.Atoi(os.Getenv("LINEKEEPER_SABOTAGE"))

// Rule reports whether a rule is to be broken.
func Rule(n int) bool { return n == broken }
