package signal

import "testing"

func TestAGlobStaysWithinItsLevels(t *testing.T) {
	for glob, c := range map[string][2][]string{
		"a/*/c":   {{"a/b/c", "a//c"}, {"a/b/b/c", "a/c"}},
		"a/**/c":  {{"a/c", "a/b/c", "a/b/b/c"}, {"a/b", "b/a/c"}},
		"**/c":    {{"c", "a/c", "a/b/c"}, {"ac", "c/a"}},
		"a/**":    {{"a/b", "a/b/c", "a/"}, {"a", "b/a"}},
		"**":      {{"a", "a/b", ""}, nil},
		"a?":      {{"ab"}, {"a/", "a"}},
		"a.b(":    {{"a.b("}, {"axb("}},
		"P*s/G*d": {{"Press/Good", "Ps/Gd"}, {"Press/x/Good"}},
	} {
		match, err := Glob(glob)
		if err != nil {
			t.Fatal(err)
		}
		for _, yes := range c[0] {
			if !match(yes) {
				t.Errorf("%s does not match %s", glob, yes)
			}
		}
		for _, no := range c[1] {
			if match(no) {
				t.Errorf("%s matches %s", glob, no)
			}
		}
	}
	if _, err := Glob(""); err == nil {
		t.Error("an empty search is none")
	}
}
