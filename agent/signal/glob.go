package signal

import (
	"fmt"
	"regexp"
	"strings"
)

// Glob returns what tells whether a path (levels separated by "/") fits a pattern of Browser.Find: * stands for any part of a
// level, ? for one character, and ** for any number of levels, none among them.
func Glob(pattern string) (match func(path string) bool, err error) {
	if pattern == "" {
		return nil, fmt.Errorf("the search is empty: write for example Objects/*/Good")
	}
	levels := strings.Split(pattern, "/")
	var text strings.Builder
	text.WriteString("^")
	for i, level := range levels {
		last := i == len(levels)-1
		switch {
		case level == "**" && last:
			text.WriteString(".*")
		case level == "**":
			text.WriteString("(?:.*/)?")
		default:
			level = regexp.QuoteMeta(level)
			level = strings.NewReplacer(`\*\*`, ".*", `\*`, "[^/]*", `\?`, "[^/]").Replace(level)
			text.WriteString(level)
			if !last {
				text.WriteString("/")
			}
		}
	}
	expression, err := regexp.Compile(text.String() + "$")
	if err != nil {
		return nil, fmt.Errorf("the search %q cannot be read: %w", pattern, err)
	}
	return expression.MatchString, nil
}
