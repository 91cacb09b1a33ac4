package opcua

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBrowsePathsAreRead(t *testing.T) {
	namespaces := []string{"http://opcfoundation.org/UA/", "urn:server", "http://maker.example/press/"}
	for _, tt := range []struct {
		text, names string
		named       bool
	}{
		{"Objects/<http://maker.example/press/>Press1/Good", "0:Objects 2:Press1 2:Good", false},
		{"Objects/<http://maker.example/press/>Press1/<http://maker.example/press/>Good", "0:Objects 2:Press1 2:Good", true},
		{"/Objects/2:Press1/2:Good", "0:Objects 2:Press1 2:Good", true},
		{"Press1/Good", "0:Objects 0:Press1 0:Good", false},
		{"Root/Objects/0:Server", "0:Objects 0:Server", true},
		{"Types", "0:Types", true},
		{`2:"DB1"."counter"`, `0:Objects 2:"DB1"."counter"`, true},
		{"2:Line&/1/2:a&&b", "0:Objects 2:Line/1 2:a&b", true},
		{"2:time:12", "0:Objects 2:time:12", true},
		{"12&:30", "0:Objects 0:12:30", false},
		{"&<odd", "0:Objects 0:<odd", false},
	} {
		p, err := parsePath(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		names, named, err := p.qualified(namespaces)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		var got []string
		for _, n := range names {
			got = append(got, string('0'+rune(n.NamespaceIndex))+":"+n.Name)
		}
		if d := cmp.Diff(tt.names, strings.Join(got, " ")); d != "" || named != tt.named {
			t.Errorf("%s, named %v: %s", tt.text, named, d)
		}
	}
	for _, wrong := range []string{"", "/", "Objects/", "Objects//Good", "<urn:a", "<>Press", "Press&", "2:"} {
		if p, err := parsePath(wrong); err == nil || !strings.Contains(err.Error(), "urn:maker:press") {
			t.Errorf("%q is read as %v, %v", wrong, p, err)
		}
	}
	p, _ := parsePath("<urn:nobody>Press")
	if _, _, err := p.qualified(namespaces); err == nil || !strings.Contains(err.Error(), "urn:nobody") {
		t.Errorf("an unknown namespace: %v", err)
	}
}

// FuzzPath reads what a person or another program wrote, and writes it so that it is read as the same.
func FuzzPath(f *testing.F) {
	for _, s := range []string{"Objects/<urn:maker>Press1/Good", "2:a/3:b", "&<x", "a&/b/0:c", "1&:2", "", "Root/Types/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePath(s)
		if err != nil {
			return
		}
		again, err := parsePath(p.String())
		if err != nil {
			t.Fatalf("%q was written as %q: %v", s, p.String(), err)
		}
		if d := cmp.Diff(p, again, cmp.AllowUnexported(pathStep{})); d != "" {
			t.Errorf("%q was written as %q: %s", s, p.String(), d)
		}
	})
}
