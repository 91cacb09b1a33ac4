// Package secret reads what the hub logs in or signs with from a file of its own, or from the environment.
//
// It owns one rule, the same for all: a secret is the first line of its file, as an editor or echo leaves it. It never keeps or
// shows one.
package secret

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Source says where a secret stands: in a file, or in a variable of the environment.
type Source struct {
	File string `yaml:"file"`
	Env  string `yaml:"env"`
}

// Read gives the secret without blanks around it. An error names what to do.
func (s Source) Read() (string, error) {
	var text string
	switch {
	case (s.File == "") == (s.Env == ""):
		return "", errors.New("needs a file or an env; put the secret on the first line of a file")
	case s.File != "":
		var err error
		if text, err = FirstLine(s.File); err != nil {
			return "", fmt.Errorf("cannot be read: %w", err)
		}
	default:
		text = os.Getenv(s.Env)
	}
	if text = strings.TrimSpace(text); text == "" {
		return "", errors.New("is empty; put the secret on the first line of the file, or into the environment")
	}
	return text, nil
}

// FirstLine returns the first line of a file without its end. Blanks around it stay: a password may have some.
func FirstLine(path string) (string, error) {
	text, err := os.ReadFile(path)
	line, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimRight(line, "\r"), err
}
