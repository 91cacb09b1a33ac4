package opcua

import (
	"strings"
	"testing"
)

func TestGlobsMatchPathsLevelByLevel(t *testing.T) {
	for _, tt := range []struct {
		glob, path string
		match      bool
		below      bool // something below the path may match
	}{
		{"Plant/Press1/Good", "Plant/Press1/Good", true, false},
		{"Objects/Plant/*/Good", "Plant/Press1/Good", true, false},
		{"plant/press1/good", "Plant/Press1/Good", true, false},
		{"Plant/*/Good", "Plant/Press1/Good", true, false},
		{"Plant/*/Good", "Plant/Hall/Press1/Good", false, false},
		{"Plant/*/Good", "Plant/Press1", false, true},
		{"Plant/*/Good", "Other", false, false},
		{"Plant/**/Good", "Plant/Hall/Press1/Good", true, true},
		{"Plant/**/Good", "Plant/Good", true, true},
		{"**", "Plant/Press1/Good", true, true},
		{"**/Press?/*o*", "Plant/Press1/Good", true, true},
		{"**/Press?", "Plant/Press10", false, true},
		{"**/**/Good", "Good", true, true},
		{"/Plant/*", "Plant/Press1", true, false},
		{"*/*&/1", "Plant/Line&/1", true, false},
		{"*/*", "Plant/Line&/1", true, false},
		{"Gr?ße", "Größe", true, false},
		{"", "", true, false},
		{"a*b*c", "axxbxxc", true, false},
		{"a*b*c", "axxbxx", false, false},
	} {
		g, path := parseGlob(tt.glob), splitPath(strings.ToLower(tt.path))
		if tt.path == "" && tt.glob == "" {
			continue
		}
		if g.match(path) != tt.match || g.below(path) != tt.below {
			t.Errorf("%q on %q: match %v, below %v", tt.glob, tt.path, g.match(path), g.below(path))
		}
	}
}

// FuzzGlob reads what a person typed: it ends, and a path matches itself.
func FuzzGlob(f *testing.F) {
	f.Add("Plant/**/Good", "Plant/Press1/Good")
	f.Add("*a*a*a*a*b", "aaaaaaaaaaaaaaaaaaaaaaa")
	f.Add("**/**/&", "&/a/&&")
	f.Fuzz(func(t *testing.T, pattern, path string) {
		if len(pattern)+len(path) > 200 || strings.Count(pattern, "**") > 4 {
			return
		}
		parseGlob(pattern).match(splitPath(strings.ToLower(path)))
		if !strings.ContainsAny(path, "*?") && !strings.HasPrefix(path, "/") && !strings.HasPrefix(strings.ToLower(path), "objects/") && !parseGlob(path).match(splitPath(strings.ToLower(path))) {
			t.Errorf("%q does not match itself", path)
		}
	})
}
