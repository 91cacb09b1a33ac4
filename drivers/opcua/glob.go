package opcua

import "strings"

// glob is a pattern over browse paths, level by level: * stands for any part of a name, ? for one character, ** for any number
// of levels. A leading Objects may stand there, as in a browse path. Names are compared without regard to upper and lower case.
type glob []string

func parseGlob(s string) glob {
	var g glob
	text := strings.TrimPrefix(strings.ToLower(s), "/")
	for _, level := range splitPath(strings.TrimPrefix(text, "objects/")) {
		if level == "**" && len(g) > 0 && g[len(g)-1] == "**" {
			continue // two of them say no more than one
		}
		g = append(g, level)
	}
	return g
}

// splitPath cuts a path into its names; &/ belongs to a name.
func splitPath(s string) (levels []string) {
	start := 0
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '&':
			i++
		case s[i] == '/':
			levels = append(levels, s[start:i])
			start = i + 1
		}
	}
	return append(levels, s[start:])
}

// match reports whether a path fits; path is in lower case.
func (g glob) match(path []string) bool {
	if len(g) == 0 {
		return len(path) == 0
	}
	if g[0] == "**" {
		for i := 0; i <= len(path); i++ {
			if g[1:].match(path[i:]) {
				return true
			}
		}
		return false
	}
	return len(path) > 0 && matchName(g[0], path[0]) && g[1:].match(path[1:])
}

// below reports whether something below a path may fit.
func (g glob) below(path []string) bool {
	if len(g) == 0 {
		return false
	}
	if g[0] == "**" || len(path) == 0 {
		return true
	}
	return matchName(g[0], path[0]) && g[1:].below(path[1:])
}

// deep reports whether the pattern has no end of levels.
func (g glob) deep() bool {
	for _, level := range g {
		if level == "**" {
			return true
		}
	}
	return false
}

// matchName compares one name. It goes back to the last * only, so that no pattern takes long.
func matchName(pattern, name string) bool {
	p, n := []rune(pattern), []rune(name)
	i, j := 0, 0
	star, mark := -1, 0
	for j < len(n) {
		switch {
		case i < len(p) && p[i] == '*':
			star, mark = i, j
			i++
		case i < len(p) && (p[i] == '?' || p[i] == n[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == '*' {
		i++
	}
	return i == len(p)
}
