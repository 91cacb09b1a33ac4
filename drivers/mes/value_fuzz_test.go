package mes

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/linekeeper/linekeeper/agent/signal"
)

// FuzzValue reads anything as a column of a MES row: a number is exact and the source's own text, everything is of the
// vocabulary, and the row can be shown to a person.
func FuzzValue(f *testing.F) {
	for _, s := range []struct{ driver, kind, text string }{
		{"postgres", "NUMERIC(10,3)", "12.500"}, {"mysql", "DECIMAL", "-0"}, {"postgres", "JSONB", `{"a":1e400}`}, {"sqlserver", "UNIQUEIDENTIFIER", "0123456789abcdef"},
		{"sqlite", "DATETIME", "2026-10-25 02:30:00.123456789"}, {"mysql", "TIMESTAMP", "0000-00-00 00:00:00"}, {"postgres", "TIMESTAMPTZ", "2026-03-29 02:30:00+01"},
		{"sqlite", "MONEY", "1e999999999"}, {"mysql", "VARCHAR(10)", "\xff\xfe"}, {"postgres", "DATE", "infinity"}, {"sqlserver", "UNIQUEIDENTIFIER", "short"},
	} {
		f.Add(s.driver, s.kind, []byte(s.text))
	}
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, driver, typeName string, raw []byte) {
		c := column{name: "c", kind: kindOf(driver, typeName)}
		for _, v := range []any{raw, string(raw)} {
			got, err := c.value(v, zone)
			if err != nil {
				continue
			}
			switch n := got.(type) {
			case nil, bool, string, []byte, time.Time, map[string]any, []any:
			case signal.Number:
				if !json.Valid([]byte(n)) || c.kind == kindNumber && string(n) != string(raw) {
					t.Fatalf("%q became the number %q", raw, n)
				}
			default:
				t.Fatalf("%q became a %T", raw, got)
			}
			if number(string(raw)) != (len(raw) > 0 && strings.Contains("-0123456789", string(raw[:1])) && !strings.ContainsAny(string(raw), " \t\r\n") && json.Valid(raw)) {
				t.Fatalf("is %q a number?", raw)
			}
			if key := keyText([]any{got, "x"}); !strings.HasSuffix(key, ",x") {
				t.Fatalf("key %q", key)
			}
		}
	})
}

// FuzzKeyText wants different keys to stay different.
func FuzzKeyText(f *testing.F) {
	f.Add("a,b", "", "a", "b")
	f.Add(`a\`, ",b", `a\,`, "b")
	f.Add("a|b", "c", `a\|b`, "c")
	f.Fuzz(func(t *testing.T, a, b, c, d string) {
		if same := a == c && b == d; same != (keyText([]any{a, b}) == keyText([]any{c, d})) {
			t.Fatalf("(%q, %q) and (%q, %q)", a, b, c, d)
		}
	})
}

// FuzzParseTime wants the short way to read times to read what the long one reads, and that alone.
func FuzzParseTime(f *testing.F) {
	for _, text := range []string{"2026-03-29 02:30:00", "2026-02-29 00:00:00", "2024-02-29 23:59:59.999999999+00", "2026-10-25 02:30:00.5", "2026-1-01 00:00:00",
		"2026-12-31 24:00:00", "2026-01-01 00:00:60", "2026-01-01 00:00:00.+00", "2026-04-31 00:00:00+00", "0000-01-01 00:00:00", "2026-01-01 00:00:00.1234567891"} {
		f.Add(text)
	}
	zone, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text string) {
		got, ok := parsePlain(text, zone)
		if !ok {
			return
		}
		want, layout := parseLayout(text, zone)
		if layout == "" || !got.Equal(want) || got.Format(time.RFC3339Nano) != want.Format(time.RFC3339Nano) {
			t.Fatalf("%q is %s, and by the layouts (%q) %s", text, got, layout, want)
		}
	})
}
