package factkey

import (
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The written forms are a promise to every ERP that already holds documents: this test may never be changed.
func TestKeyFormsStayAsPublished(t *testing.T) {
	k := Of(Position("counter", "ulm", "press1", "good", "e1", "1250"))
	if got, want := k.String(), "U7DOIRTV5EXVVADG"; got != want {
		t.Errorf("base32 form is %s, want %s", got, want)
	}
	if got, want := k.UUID(), "a7c6e446-75e9-8f5a-8066-09f68bb10667"; got != want {
		t.Errorf("UUID form is %s, want %s", got, want)
	}
}

func TestPositionsOfDifferentPartsDiffer(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		part := rapid.StringOfN(rapid.SampledFrom([]rune(`a|\b`)), 0, 4, -1)
		list := rapid.SliceOfN(part, 1, 4)
		a, b := list.Draw(t, "a"), list.Draw(t, "b")
		if same := strings.Join(a, "\x00") == strings.Join(b, "\x00") && len(a) == len(b); same != (Position(a...) == Position(b...)) {
			t.Fatalf("positions of %q and %q: %q, %q", a, b, Position(a...), Position(b...))
		}
	})
}

func TestParseFindsBothWrittenForms(t *testing.T) {
	k := Random()
	for _, s := range []string{k.String(), strings.ToLower(k.String()), k.UUID()} {
		p, err := Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(string(k[:]), string(p)) {
			t.Errorf("%q parsed to %x, which does not begin %x", s, p, k)
		}
	}
	if _, err := Parse("short"); err == nil {
		t.Error("a five-character key was accepted")
	}
}
