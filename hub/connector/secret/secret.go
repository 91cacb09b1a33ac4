// Package secret reads what a connector logs in with from a file of its own.
//
// It owns one rule, the same for all: a secret is the first line of its file, as an editor or echo leaves it. It never keeps or
// shows one.
package secret

import (
	"os"
	"strings"
)

// FirstLine returns the first line of a file without its end. Blanks around it stay: a password may have some.
func FirstLine(path string) (string, error) {
	text, err := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimRight(line, "\r"), err
}
